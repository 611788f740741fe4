"""Processes of servers that run here: starting one apart from this one, finding it again, ending it, reading its log.

What belongs here: what every launcher needs. What does not: any particular server, and when to start or stop it.
"""

import contextlib
import locale
import os
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path

import psutil

import segmentation_assets

LOG_LIMIT = 5_000_000
"""Bytes; a longer log is set aside at the next start."""
STOP_SECONDS = 30.0
"""How long a server may take to end when it is asked to; then it is killed."""
# Clocks are adjusted and boot times rounded; a reused pid differs by far more.
_SAME_PROCESS_SECONDS = 5.0
_TAIL_LINES = 20
# options meant for somebody's own Java programs; the full distributions' launchers ignore them too
_NOT_FOR_SERVERS = ("JAVA_TOOL_OPTIONS", "_JAVA_OPTIONS", "CLASSPATH")


def spawn(command: Sequence[str | Path], log: Path, inherited: Sequence[int] = ()) -> subprocess.Popen[bytes]:
    """Start a server's process, in a session of its own: Ctrl-C at a terminal must not reach it.

    Args:
        command: the program and its arguments.
        log: where all its output is appended to.
        inherited: file descriptors that it gets, too.
    """
    environment = {k: v for k, v in os.environ.items() if k not in _NOT_FOR_SERVERS}
    if locale.getencoding().upper() not in ("UTF-8", "UTF8"):
        environment["LC_ALL"] = "C.UTF-8"  # Java reads path names by it; under cron and in containers it is often unset
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        return subprocess.Popen(  # noqa: S603 - our own programs and arguments
            list(map(str, command)),
            cwd=Path(segmentation_assets.__file__).parent.parent,  # where -m finds this very package, installed or not
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=tuple(inherited),
        )


def living(pid: int, created: float) -> psutil.Process | None:
    """The process with this pid and creation time, or None if it is gone (also when another has its pid by now)."""
    try:
        process = psutil.Process(pid)
        same = abs(process.create_time() - created) < _SAME_PROCESS_SECONDS
        # a zombie is dead; only its parent has not looked yet
        return process if same and process.status() != psutil.STATUS_ZOMBIE else None
    except psutil.Error:
        return None


def end(process: psutil.Process | None) -> bool:
    """End a process: politely, then by force. False if it was gone already."""
    if process is None:
        return False
    with contextlib.suppress(psutil.NoSuchProcess):
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except psutil.TimeoutExpired:
            process.kill()
            process.wait(STOP_SECONDS)
    return True


def resident_bytes(process: psutil.Process) -> int | None:
    """The memory a process occupies; None if it ended this moment."""
    try:
        return int(process.memory_info().rss)
    except psutil.Error:
        return None


def is_free(port: int) -> bool:
    """Whether nobody listens there. Binding alone would not tell on macOS when another listens on all addresses."""
    with socket.socket() as probe:
        probe.settimeout(0.2)
        return probe.connect_ex(("127.0.0.1", port)) != 0


def rotate(log: Path) -> None:
    """Set a log that has grown long aside. One is kept."""
    with contextlib.suppress(FileNotFoundError):
        if log.stat().st_size > LOG_LIMIT:
            log.replace(log.with_suffix(".log.1"))


def tail(log: Path, offset: int = 0) -> list[str]:
    """The last lines of the log from byte ``offset`` on, without the frames of Java's stack traces."""
    try:
        with log.open("rb") as file:
            file.seek(max(offset, file.seek(0, os.SEEK_END) - 200_000))
            lines = file.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return []
    useful = [line for line in lines if line.strip() and not line.startswith(("\tat ", "\t... "))]
    return useful[-_TAIL_LINES:]
