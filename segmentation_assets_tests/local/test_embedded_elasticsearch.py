"""The embedded node: one for a folder, stopped by its last user, recovered when killed, reported when it dies.

All on real nodes. Starting one takes seconds, so a test tells a whole story with each node it starts.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from elasticsearch import Elasticsearch, helpers

from segmentation_assets.local import elasticsearch as embedded
from segmentation_assets.local import processes
from segmentation_assets.local.elasticsearch import (
    EmbeddedElasticsearch,
    EmbeddedElasticsearchDied,
    EmbeddedElasticsearchError,
    Lease,
)
from segmentation_assets.local.elasticsearch_node import PORTS
from segmentation_assets.local.node_state import NodeFiles, NodeState, open_lock, try_exclusive
from segmentation_assets.paths import DataDir

USER = """
import json, sys
from segmentation_assets.local.elasticsearch import EmbeddedElasticsearch
from segmentation_assets.paths import DataDir
data, linger = sys.argv[1:]
lease = EmbeddedElasticsearch(DataDir.resolve(data), linger_seconds=float(linger)).acquire()
print(json.dumps({"url": lease.url, "pid": lease._state.pid, "started": lease.started_here}), flush=True)
sys.stdin.read()
lease.release()
"""


class User:
    """Another process that uses the node until told to leave."""

    def __init__(self, data: DataDir, linger: float = 15.0, **environment: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", USER, str(data.root), str(linger)],
            env=os.environ | environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def joined(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        return dict(json.loads(self.process.stdout.readline()))

    def leave(self) -> None:
        self.process.communicate(timeout=60)
        assert self.process.returncode == 0

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


def until(condition: Callable[[], bool]) -> None:
    """Wait for something that must happen; how fast is not the question."""
    deadline = time.monotonic() + 90
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


@pytest.fixture
def data(tmp_path: Path) -> Iterator[DataDir]:
    """An empty data folder; whatever runs in it is killed afterwards, also when the test failed."""
    folder = DataDir(tmp_path / "data")
    yield folder
    state = NodeState.read(NodeFiles(folder.elasticsearch).state)
    process = state.process() if state else None
    if process is not None:
        process.kill()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[EmbeddedElasticsearch, Lease]]:
    """A running node for the tests that only look at it."""
    node = EmbeddedElasticsearch(DataDir(tmp_path_factory.mktemp("shared")))
    with node.acquire() as lease:
        yield node, lease


def test_processes_asking_at_once_share_one_node_and_the_last_one_stops_it(data: DataDir) -> None:
    users = [User(data) for _ in range(6)]
    answers = [user.joined() for user in users]
    assert len({(answer["url"], answer["pid"]) for answer in answers}) == 1
    assert sum(answer["started"] for answer in answers) == 1
    node = EmbeddedElasticsearch(data)
    starter = next(i for i, answer in enumerate(answers) if answer["started"])
    users.pop(starter).leave()  # also when the one who started it leaves, the others keep it
    for user in users[1:]:
        user.leave()
        assert node.status().state == "running"
    users[0].leave()
    assert node.status().state == "stopped"
    assert gone(answers[0]["pid"])


def test_a_killed_node_is_reported_recovered_and_has_every_acknowledged_document(data: DataDir) -> None:
    node = EmbeddedElasticsearch(data)
    first = node.acquire()
    with Elasticsearch(first.url) as client:
        client.indices.create(index="kept", settings={"number_of_replicas": 0})
        helpers.bulk(client, ({"_index": "kept", "_id": i, "n": i} for i in range(500)))
    port, pid = node.status().port, node.status().pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    until(lambda: gone(pid))
    assert node.status().state == "dead"
    assert node.url() is None
    with pytest.raises(EmbeddedElasticsearchDied, match=r"(?s)has died.*ELASTICSEARCH_URL.*started \{embedded\}"):
        first.check()

    second = node.acquire()
    assert second.started_here
    if node.status().port != port:  # the address stays when it can: not where another test's node took it meanwhile
        socket.create_connection(("127.0.0.1", port), timeout=10).close()
        port = node.status().port
    with Elasticsearch(second.url) as client:
        client.indices.refresh(index="kept")
        assert client.count(index="kept")["count"] == 500
    first.release()
    assert node.status().state == "running"
    second.release()
    assert node.status().state == "stopped"

    assert port is not None
    with socket.create_server(("127.0.0.1", port)):
        third = node.acquire(keep=True)  # also: a kept node outlives its users
        assert node.status().port != port
        assert node.status().port in PORTS
        with Elasticsearch(third.url) as client:
            assert client.count(index="kept")["count"] == 500
        third.release()
        assert node.status().state == "running"
        assert node.status().kept
    assert node.stop()
    assert node.status().state == "stopped"
    assert not node.stop()
    assert "closed" in node.files.log.read_text().splitlines()[-1]  # it was closed, not killed


def test_a_node_whose_users_were_killed_ends_by_itself_but_not_before_the_last(data: DataDir) -> None:
    users = [User(data, linger=0.5), User(data, linger=0.5)]
    pid = {user.joined()["pid"] for user in users}.pop()
    users[0].kill()
    time.sleep(3)  # several times what it would wait for a user, if there were none
    node = EmbeddedElasticsearch(data)
    with node.acquire() as lease:  # it can still be joined, and left
        assert not lease.started_here
    assert node.status().pid == pid
    users[1].kill()
    until(lambda: gone(pid))
    assert node.status().state == "stopped"


def test_a_start_whose_process_was_killed_is_taken_over_not_repeated(data: DataDir) -> None:
    files = NodeFiles(data.elasticsearch)
    user = User(data)
    until(files.state.exists)
    user.kill()
    starting = NodeState.read(files.state)
    assert starting is not None
    node = EmbeddedElasticsearch(data)
    with node.acquire() as lease:
        assert not lease.started_here
        assert node.status().pid == starting.pid
        # A deleted data folder: the node must not be left behind.
        shutil.rmtree(data.root)
    until(lambda: gone(starting.pid))
    assert not data.root.exists()


def test_a_node_that_cannot_start_is_reported_with_the_end_of_its_log(data: DataDir) -> None:
    folder = NodeFiles(data.elasticsearch).data
    folder.mkdir(parents=True)
    (folder / "_state").write_text("not a folder")
    node = EmbeddedElasticsearch(data)
    with pytest.raises(EmbeddedElasticsearchDied, match="ended while it started") as raised:
        node.acquire()
    message = str(raised.value)
    assert "_state" in message
    assert str(node.files.log) in message
    assert "\tat " not in message
    assert node.status().state == "stopped"
    # It is no user of anything now: the lease was given back.
    lease = open_lock(node.files.lease_lock)
    assert try_exclusive(lease)
    os.close(lease)


def test_it_listens_on_loopback_only(shared: tuple[EmbeddedElasticsearch, Lease]) -> None:
    node, lease = shared
    process = psutil.Process(node.status().pid)
    listening = [c.laddr for c in process.net_connections(kind="inet") if c.status == psutil.CONN_LISTEN]
    assert node.status().port in {address.port for address in listening}
    assert {address.ip for address in listening} <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
    assert lease.url.startswith("http://127.0.0.1:")


def test_the_status_says_what_runs(shared: tuple[EmbeddedElasticsearch, Lease]) -> None:
    node, lease = shared
    status = node.status()
    assert (status.state, status.url, status.version) == ("running", lease.url, lease.version)
    assert status.version is not None
    assert status.version.startswith("9.")
    assert status.heap_megabytes is not None
    assert status.heap_megabytes >= 512
    assert status.resident_bytes is not None
    assert status.resident_bytes > 100_000_000
    assert status.log.stat().st_size > 0
    lease.check()


def test_threads_of_one_process_share_it(shared: tuple[EmbeddedElasticsearch, Lease]) -> None:
    node, lease = shared
    urls: list[str] = []

    def use() -> None:
        with node.acquire() as own:
            urls.append(own.url)

    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert urls == [lease.url] * 8
    lease.check()


def test_a_proxy_in_the_environment_is_not_asked(shared: tuple[EmbeddedElasticsearch, Lease]) -> None:
    node, lease = shared
    user = User(DataDir(node.files.root.parent), http_proxy="http://127.0.0.1:9", no_proxy="")
    assert user.joined()["url"] == lease.url
    user.leave()


def test_a_forked_child_neither_releases_nor_holds_the_lease(tmp_path: Path) -> None:
    files = NodeFiles(tmp_path)
    embedded._hold(files)
    ready, resume = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        embedded._release_everything()
        os.write(ready[1], b"x")
        os.read(resume[0], 1)
        os._exit(0)
    try:
        os.read(ready[0], 1)
        probe = open_lock(files.lease_lock)
        assert not try_exclusive(probe)  # what the child did when it cleaned up did not touch the parent's lease
        os.close(embedded._held.pop(files.lease_lock)[0])  # as the kernel does for a killed parent
        assert try_exclusive(probe)  # and the child's life does not prolong it
        os.close(probe)
    finally:
        os.write(resume[1], b"x")
        os.waitpid(child, 0)


def test_a_reused_pid_is_not_taken_for_the_node(tmp_path: Path) -> None:
    mine = psutil.Process()
    node = EmbeddedElasticsearch(DataDir(tmp_path))
    node.files.root.mkdir(parents=True)
    NodeState(mine.pid, mine.create_time() - 3600, 512, False, True, 1, "http://127.0.0.1:1", "9").write(
        node.files.state
    )
    assert node.status().state == "dead"
    assert not node.stop()  # in particular: this very process was not ended
    assert node.status().state == "stopped"


def test_asking_for_the_status_creates_nothing(tmp_path: Path) -> None:
    node = EmbeddedElasticsearch(DataDir(tmp_path / "data"))
    assert node.status().state == "stopped"
    assert node.url() is None
    assert not node.keep()
    assert not node.stop()
    assert not (tmp_path / "data").exists()


def test_a_damaged_state_file_is_no_node(tmp_path: Path) -> None:
    node = EmbeddedElasticsearch(DataDir(tmp_path))
    node.files.root.mkdir(parents=True)
    for text in ("", "{", "[]", '{"pid": 1}'):
        node.files.state.write_text(text)
        assert node.status().state == "stopped"


def test_a_folder_that_cannot_be_used_is_said(tmp_path: Path) -> None:
    (tmp_path / "elasticsearch").write_text("a file where the folder should be")
    with pytest.raises(EmbeddedElasticsearchError, match="SEGMENTS_HOME"):
        EmbeddedElasticsearch(DataDir(tmp_path)).acquire()


def test_a_long_log_is_set_aside_and_only_useful_lines_are_shown(tmp_path: Path) -> None:
    log = tmp_path / "elasticsearch.log"
    log.write_text("x" * (processes.LOG_LIMIT + 1))
    processes.rotate(log)
    assert not log.exists()
    log.write_text("old\n")
    offset = log.stat().st_size
    with log.open("a") as file:
        file.write("".join(f"line {i}\n\tat java.Frame({i})\n" for i in range(40)))
    assert processes.tail(log, offset) == [f"line {i}" for i in range(20, 40)]
