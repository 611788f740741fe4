"""``segments dev``: Dagster's own development server on our data folder.

What belongs here: starting it and passing signals on. What does not: anything the UI shows.
"""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress

from segmentation_assets.cli.terminal import say
from segmentation_assets.errors import SegmentsError
from segmentation_assets.paths import DataDir

GRACE_SECONDS = 30
"""How long Dagster may take to end its processes after a signal; then they are killed."""

WORKSPACE = """\
# Written by `segments dev`.
load_from:
  - python_module:
      module_name: segmentation_assets.definitions
      location_name: segmentation_assets
"""


def serve(data: DataDir, host: str, port: int) -> int:
    """Run ``dagster dev`` until it ends or is interrupted; returns its exit code.

    Raises:
        SegmentsError: the port is taken.
    """
    _require_free(host, port)
    workspace = data.dagster / "workspace.yaml"
    workspace.write_text(WORKSPACE)
    say(f"Dagster UI: http://{host}:{port}   (Ctrl-C ends it)")
    command = [
        sys.executable,
        "-m",
        "dagster",
        "dev",
        "-w",
        str(workspace),
        "-h",
        host,
        "-p",
        str(port),
        "--log-level",
        "warning",
    ]
    process: subprocess.Popen[bytes] | None = None
    told_to_end: float | None = None

    def pass_on(number: int, _: object) -> None:
        nonlocal told_to_end
        told_to_end = told_to_end or time.monotonic()
        if process is not None:
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM if number == signal.SIGHUP else number)

    # Before the child is started: a signal that this process was told to ignore (nohup) would stay ignored in it.
    before = {number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        # A session of its own: Ctrl-C would reach it twice, from the terminal and from here, and the second stops its
        # clean-up.
        process = subprocess.Popen(command, cwd=data.dagster, start_new_session=True)  # noqa: S603  # our own arguments
        while True:
            try:
                code = process.wait(timeout=1)
                break
            except subprocess.TimeoutExpired:
                if told_to_end is not None and time.monotonic() - told_to_end > GRACE_SECONDS:
                    os.killpg(process.pid, signal.SIGKILL)
    finally:
        if process is not None and process.poll() is None:
            process.terminate()
        for number, handler in before.items():
            signal.signal(number, handler)
    return 0 if told_to_end is not None else code  # a signal is how one ends it, whatever Dagster makes of it


def _require_free(host: str, port: int) -> None:
    import socket

    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise SegmentsError(
                f"Port {port} on {host} cannot be used: {error.strerror}.", "Choose another with --port."
            ) from None
