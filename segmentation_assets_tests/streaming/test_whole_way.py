"""From sessions in Elasticsearch to the answer of the API, with all servers and commands as people start them."""

import json
import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from elasticsearch import Elasticsearch

from segmentation_assets.core.live.events import Event, encode
from segmentation_assets.io.live_store import open_store
from segmentation_assets.io.streams.kafka import KafkaSink
from segmentation_assets.local.elasticsearch import EmbeddedElasticsearch
from segmentation_assets.local.kafka import LocalKafka
from segmentation_assets.local.redis import LocalRedis
from segmentation_assets.paths import HOME_VARIABLE, DataDir

SESSIONS = 3_000


class Shop:
    """The command on one data folder with its servers."""

    def __init__(self, folder: Path) -> None:
        self.data = DataDir(folder)
        self.environment = {**os.environ, HOME_VARIABLE: str(folder)}

    def start(self, *arguments: str, **options: Any) -> "subprocess.Popen[str]":
        command = [sys.executable, "-m", "segmentation_assets", *arguments]
        return subprocess.Popen(command, env=self.environment, text=True, **options)

    def ok(self, *arguments: str) -> str:
        process = self.start(*arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        out, err = process.communicate(timeout=200)
        assert process.returncode == 0, out + err
        return str(out)

    def json(self, *arguments: str) -> Any:
        return json.loads(self.ok(*arguments, "--json"))


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    found = Shop(tmp_path / "data")
    try:
        yield found
    finally:
        LocalKafka(found.data).stop()
        LocalRedis(found.data).stop()
        EmbeddedElasticsearch(found.data).stop()


@contextmanager
def served(shop: Shop) -> Iterator[str]:
    process = shop.start("serve", "--port", "0", stderr=subprocess.PIPE)
    try:
        assert process.stderr is not None
        found = next(filter(None, (re.search(r"(http://127\.0\.0\.1:\d+)/live", line) for line in process.stderr)))
        yield found[1]
    finally:
        process.terminate()
        process.communicate(timeout=60)


def profiles(client: Elasticsearch) -> dict[str, dict[str, Any]]:
    client.indices.refresh(index="user_profiles")
    hits = client.search(index="user_profiles", size=10_000, source=["segment", "cluster", "persona"])["hits"]["hits"]
    return {hit["_id"]: hit["_source"] for hit in hits}


@pytest.mark.timeout(300)
def test_batch_and_stream_agree_on_every_user_and_a_change_reaches_elasticsearch_and_the_api(shop: Shop) -> None:
    with EmbeddedElasticsearch(shop.data).acquire() as lease, Elasticsearch(lease.url, request_timeout=60) as client:
        kafka, redis = LocalKafka(shop.data).start(), LocalRedis(shop.data).start()
        shop.ok("seed", "--sessions", str(SESSIONS))
        shop.json("run", "--users")
        published = profiles(client)
        replayed = shop.json("replay")
        streamed = shop.json("stream", "--until-idle", "3", "--name", "one")
        store = open_store(redis.url)
        states = store.load(list(published))
        assert {user: state.segment for user, state in states.items()} == {
            user: profile["segment"] for user, profile in published.items()
        }
        assert store.totals()["events"] == replayed["events"] == streamed["applied"]
        assert len(Counter(state.segment for state in states.values())) > 2
        # What the stream told on says of every user what the run had said.
        assert {user: found["segment"] for user, found in profiles(client).items()} == {
            user: profile["segment"] for user, profile in published.items()
        }

        user, query, wanted = _somebody(client, states)
        now = round(time.time() * 1000) - 60_000
        searches = states[user].sessions + 1
        visits = [
            Event(f"{user}:{n}", user, "search", now + n, session_id=f"{user}:{n}", search_query=query)
            for n in range(searches)
        ]
        sink = KafkaSink(kafka.url)
        sink.send("user_events", [(user, encode(event), {}) for event in visits])
        sink.close()
        shop.json("stream", "--until-idle", "3", "--name", "one")
        assert store.load([user])[user].segment == wanted
        after = profiles(client)
        assert after[user]["segment"] == wanted
        assert {key for key in after if after[key]["segment"] != published[key]["segment"]} == {user}
        assert [each.change.segment for each in store.changes(None, 1, newest_first=True)] == [wanted]
        store.close()
        with served(shop) as url:
            answer = httpx.get(f"{url}/v1/users/{user}/segment", timeout=30)
            assert answer.status_code == 200
            assert answer.json()["segment"] == wanted


def _somebody(client: Elasticsearch, states: dict[str, Any]) -> tuple[str, str, str]:
    """A user, and a query of another segment than the user's with that segment."""
    found = client.search(
        index="user_segments", size=1_000, query={"bool": {"must_not": {"term": {"segment": "other"}}}}
    )
    first = found["hits"]["hits"][0]["_source"]
    user = min(user for user, state in states.items() if state.segment not in (first["segment"], ""))
    return user, first["search_query"], first["segment"]
