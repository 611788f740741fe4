"""Killed without warning, half-way: what readers see stays whole, and running again puts everything right."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import pytest
from elasticsearch import Elasticsearch

from segmentation_assets.local.elasticsearch import EmbeddedElasticsearch
from segmentation_assets.local.node_state import NodeFiles, NodeState

SESSIONS = 30_000
ALIAS = "user_segments"


@pytest.fixture(scope="module")
def crashing(tmp_path_factory: pytest.TempPathFactory, segments_at: Callable[..., Any]) -> Iterator[Any]:
    """The command on a data folder with many sessions, published once; its node runs on its own."""
    command = segments_at(tmp_path_factory.mktemp("crash") / "data")
    command.ok("elasticsearch", "start")
    command.ok("seed", "--sessions", str(SESSIONS))
    assert command.json("run")["published"]["documents"] == SESSIONS
    yield command
    command.end()


def node(command: Any) -> psutil.Process:
    state = NodeState.read(NodeFiles(command.data.elasticsearch).state)
    process = state.process() if state else None
    assert process is not None
    return process


def connect(command: Any) -> Elasticsearch:
    return Elasticsearch(str(EmbeddedElasticsearch(command.data).url()), request_timeout=60, max_retries=0)


def half_published(client: Elasticsearch, live: str) -> str | None:
    """The index that is being written, once some but not all documents are in it."""
    stats = client.indices.stats(index=f"{ALIAS}-*", metric="indexing")["indices"]
    for name, found in stats.items():
        if name != live and 0 < found["primaries"]["indexing"]["index_total"] < SESSIONS:
            return str(name)
    return None


def run_until_half_published(command: Any, live: str) -> tuple[subprocess.Popen[str], str]:
    """A run that was stopped in the middle of publishing, and the index it was writing."""
    # In full: a run with nothing new writes nothing that it could be stopped in.
    process = command.start("run", "--full", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    with connect(command) as client:
        deadline = time.monotonic() + 120
        while True:
            building = half_published(client, live)
            if building is not None:
                process.send_signal(signal.SIGSTOP)  # so that it cannot finish behind our back
                if half_published(client, live) == building:
                    return process, building
                process.send_signal(signal.SIGCONT)
            assert process.poll() is None, "it ended before it could be stopped"
            assert time.monotonic() < deadline
            time.sleep(0.005)


def test_a_run_killed_while_it_publishes_is_healed_by_the_next(crashing: Any) -> None:
    """Readers keep the old segments, whole; the next run publishes, and removes what the killed one left."""
    with connect(crashing) as client:
        (live,) = client.indices.get_alias(name=ALIAS)
        process, building = run_until_half_published(crashing, live)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        assert list(client.indices.get_alias(name=ALIAS)) == [live]
        assert client.count(index=ALIAS)["count"] == SESSIONS
        assert client.indices.exists(index=building)

        result = crashing.json("run")
        published = result["published"]
        assert published["documents"] == SESSIONS
        assert list(client.indices.get_alias(name=ALIAS)) == [published["index"]] != [live]
        assert client.count(index=ALIAS)["count"] == SESSIONS
        assert set(client.indices.get(index=f"{ALIAS}-*")) == {live, published["index"]}
        assert not client.indices.exists(index=building)
    assert not list(crashing.data.storage.rglob(".building-*"))


def test_everything_killed_at_once_is_healed_by_the_next_run(crashing: Any) -> None:
    """As when the power fails while a run publishes: the next one starts the node anew, and no session is missing."""
    with connect(crashing) as client:
        (live,) = client.indices.get_alias(name=ALIAS)
    process, building = run_until_half_published(crashing, live)
    node(crashing).kill()
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert crashing.json("elasticsearch", "status", code=3)["state"] == "dead"

    crashing.ok("elasticsearch", "start")
    with connect(crashing) as client:
        assert client.count(index="user_sessions")["count"] == SESSIONS
        assert list(client.indices.get_alias(name=ALIAS)) == [live]
        assert client.count(index=ALIAS)["count"] == SESSIONS
        published = crashing.json("run")["published"]
        assert published["documents"] == client.count(index=ALIAS)["count"] == SESSIONS
        assert list(client.indices.get_alias(name=ALIAS)) == [published["index"]] != [live]
        assert building not in client.indices.get(index=f"{ALIAS}-*")


def test_a_node_killed_between_runs_comes_back_by_itself(crashing: Any) -> None:
    """For as long as a command needs it, with everything that it had acknowledged."""
    node(crashing).kill()
    assert crashing.json("check")["success"] is True  # which counts what is published
    assert crashing.json("elasticsearch", "status", code=3)["state"] == "stopped"
    assert not crashing.processes()
