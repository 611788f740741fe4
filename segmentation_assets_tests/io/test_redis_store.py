"""What only Redis can do wrong: die, forget scripts, run out of memory, refuse a password, hold others' bytes."""

import logging
import os
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import redis

from segmentation_assets.core.live.segmenter import Change
from segmentation_assets.core.live.state import UserState
from segmentation_assets.errors import MissingExtraError
from segmentation_assets.io.live_store import Claim, Commit, Conflict, StoreUnavailable, open_store
from segmentation_assets.io.live_store import redis as redis_store
from segmentation_assets.io.live_store.redis import RedisStore
from segmentation_assets.local.redis import LocalRedis
from segmentation_assets.paths import DataDir

_numbers = count()


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with LocalRedis(DataDir(tmp_path_factory.mktemp("redis"))) as running:
        yield running.url


@pytest.fixture
def raw(url: str) -> Iterator[Any]:
    with redis.Redis.from_url(url) as client:
        yield client


@pytest.fixture
def store(url: str) -> Iterator[RedisStore]:
    found = RedisStore(url, f"redis-{next(_numbers)}")
    yield found
    found.close()


def key(store: RedisStore, rest: str) -> str:
    return f"{store.namespace}:{rest}"


def change(user: str, segment: str, previous: str = "") -> Change:
    return Change(user, 5, segment, previous, -2, -2, "", "m1")


def put(store: RedisStore, claim: Claim, user: str, segment: str, sequence: int = 1, previous: str = "") -> None:
    state = UserState(sequence=sequence, segment=segment, since=7)
    assert store.commit(Commit([(claim, None)], {user: state}, [change(user, segment, previous)])) is None


def test_a_server_killed_while_it_writes_has_every_step_whole_or_not_at_all(tmp_path: Path) -> None:
    with LocalRedis(DataDir(tmp_path)) as running:
        store = RedisStore(running.url)
        claim = store.claim("events/0")
        users = [f"u{number}" for number in range(200)]
        enough, sent = threading.Event(), []

        def write() -> None:
            sequences = dict.fromkeys(users, 0)
            for step in range(1, 100_000):
                some = users[step % 4 :: 4]
                for user in some:
                    sequences[user] += 1
                states = {user: UserState(sequence=sequences[user], segment=f"s{step}", since=step) for user in some}
                changes = [change(user, f"s{step}", "" if step < 5 else f"s{step - 4}") for user in some]
                sent.append(step)
                try:
                    done = store.commit(
                        Commit([(claim, str(step))], states, changes, {("a", 1, "p"): 1}, {"events": len(some)})
                    )
                except StoreUnavailable:
                    return
                assert done is None
                if step == 50:
                    enough.set()

        writing = threading.Thread(target=write)
        writing.start()
        assert enough.wait(60)
        os.kill(running.pid, signal.SIGKILL)
        writing.join(60)
        assert not writing.is_alive()
        store.close()
    with LocalRedis(DataDir(tmp_path)) as running:
        store = RedisStore(running.url)
        position = int(store.claim("events/0").position or 0)
        assert 0 < position <= sent[-1]
        states = store.load(users)
        assert sum(state.sequence for state in states.values()) == position * 50
        assert store.totals() == {"events": position * 50}
        assert len(store.changes(None, 1_000_000)) == position * 50
        assert store.popular("a", [1], 1) == [("p", position)]
        assert store.sizes() == {f"s{step}": 50 for step in range(position - 3, position + 1)}
        assert {state.segment for state in states.values()} == set(store.sizes())
        store.close()


def test_a_store_goes_on_when_the_server_is_there_again(tmp_path: Path) -> None:
    server = LocalRedis(DataDir(tmp_path))
    with server as running:
        store = RedisStore(running.url)
        put(store, store.claim("p"), "ada", "a")
        os.kill(running.pid, signal.SIGKILL)
        assert not store.ping()
        with pytest.raises(StoreUnavailable, match="does not answer"):
            store.load(["ada"])
    with LocalRedis(DataDir(tmp_path)) as again:
        assert again.url == running.url
        claim = store.claim("p")
        assert claim.token == 2
        put(store, claim, "ada", "b", 2, "a")
        assert store.sizes() == {"b": 1}
        store.close()


def test_a_script_that_the_server_forgot_is_sent_again(store: RedisStore, raw: Any) -> None:
    claim = store.claim("p")
    put(store, claim, "ada", "a")
    raw.script_flush()
    put(store, claim, "ada", "b", 2, "a")
    raw.script_flush()
    assert store.members("b", None, 5) == ([("ada", 7)], None)


def test_a_state_that_cannot_be_read_is_counted_and_replaced(store: RedisStore, raw: Any) -> None:
    claim = store.claim("p")
    put(store, claim, "ada", "a")
    put(store, claim, "ada", "a", 2, "a")
    value = raw.get(key(store, "state:ada"))
    raw.set(key(store, "state:ada"), value[:19] + b"\xc1 no state")
    found = store.load(["ada"])["ada"]
    assert found == UserState(sequence=2)
    assert store.totals() == {"unreadable_states": 1}
    assert store.sample(5) == []
    done = store.commit(Commit([(claim, None)], {"ada": UserState(sequence=2, segment="b")}, [change("ada", "b")]))
    assert done == Conflict(["ada"])
    put(store, claim, "ada", "b", 3)  # it does not know that the user was in another segment; the store does
    assert store.sizes() == {"b": 1}
    assert store.load(["ada"])["ada"].segment == "b"


def test_bytes_shorter_than_a_header_are_no_state_either(store: RedisStore, raw: Any) -> None:
    raw.set(key(store, "state:ada"), b"\0\0\0\0\0\0\0\x05")
    assert store.load(["ada"]) == {"ada": UserState(sequence=5)}


def test_installations_on_one_server_do_not_see_each_other(url: str) -> None:
    names = ["n", "n.state", "n-1", "n_"]
    stores = [open_store(url, f"one-{name}") for name in names]
    for number, store in enumerate(stores):
        claim = store.claim("p")
        assert (claim.token, claim.position) == (1, None)
        user = f"u{number}"
        state = UserState(sequence=1, segment="a")
        assert store.commit(Commit([(claim, "9")], {user: state}, [change(user, "a")], {}, {"events": 1})) is None
    for number, store in enumerate(stores):
        assert list(store.load([f"u{other}" for other in range(4)])) == [f"u{number}"]
        assert (store.sizes(), store.totals(), len(store.changes(None, 10))) == ({"a": 1}, {"events": 1}, 1)
        store.close()


def test_without_the_extra_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(MissingExtraError, match=r"segmentation-assets\[stream\]"):
        open_store("redis://127.0.0.1")


@pytest.mark.parametrize("name", ["", "a:b", "a b", "ä", "a*", "x" * 101])
def test_a_namespace_that_could_be_part_of_another_is_refused(url: str, name: str) -> None:
    with pytest.raises(ValueError, match="namespace"):
        RedisStore(url, name)


def test_a_sink_that_was_not_heard_of_for_a_week_holds_nothing_back(store: RedisStore, raw: Any) -> None:
    claim = store.claim("p")
    raw.hset(key(store, "cursors"), "gone", "0-0 1000")
    many = [change("ada", "a", "a")] * 12_000
    store.commit(Commit([(claim, None)], {"ada": UserState(sequence=1, segment="a")}, many))
    store.advance("topic", store.changes(None, 1, newest_first=True)[0].id)
    assert len(store.changes(None, 20_000)) == 10_000


def test_changes_do_not_pile_up_while_there_is_no_sink(store: RedisStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_store, "UNTOLD_CHANGES", 500)
    claim = store.claim("p")
    for step in range(1, 11):
        many = [change("ada", "a", "a")] * 300
        store.commit(Commit([(claim, None)], {"ada": UserState(sequence=step, segment="a")}, many))
    assert 500 <= len(store.changes(None, 5_000)) < 1_000  # whole nodes of the stream are forgotten at a time
    store.cursor("topic")
    for step in range(11, 16):
        many = [change("ada", "a", "a")] * 300
        store.commit(Commit([(claim, None)], {"ada": UserState(sequence=step, segment="a")}, many))
    assert len(store.changes(None, 5_000)) >= 2_000


def test_a_commit_of_many_users_who_all_move_fits(store: RedisStore) -> None:
    claim = store.claim("p")
    users = [f"u{number}" for number in range(9_000)]
    for sequence, (segment, previous) in enumerate([("a", ""), ("b", "a")], 1):
        states = {user: UserState(sequence=sequence, segment=segment) for user in users}
        products = {(segment, 1, f"p{number}"): 1 for number in range(9_000)}
        changes = [change(user, segment, previous) for user in users]
        assert store.commit(Commit([(claim, None)], states, changes, products)) is None
    assert store.sizes() == {"b": 9_000}
    conflict = store.commit(Commit([(claim, None)], {user: UserState(sequence=1) for user in users}))
    assert conflict is not None
    assert sorted(conflict.users) == sorted(users)


def test_many_who_were_forgotten_are_cleared_away_at_once(store: RedisStore, raw: Any) -> None:
    claim = store.claim("p")
    users = [f"u{number}" for number in range(9_000)]
    states = {user: UserState(sequence=1, segment="a") for user in users}
    store.commit(Commit([(claim, None)], states, [change(user, "a") for user in users]))
    raw.delete(*[key(store, f"state:{user}") for user in users[:-1]])
    assert store.members("a", None, 3) == ([("u8999", 0)], None)
    assert store.sizes() == {"a": 1}


def test_a_server_without_memory_left_is_named_and_nothing_is_written(store: RedisStore, raw: Any) -> None:
    claim = store.claim("p")
    put(store, claim, "ada", "a")
    raw.config_set("maxmemory", 1)
    try:
        with pytest.raises(StoreUnavailable, match="no memory left"):
            store.commit(Commit([(claim, "5")], {"ada": UserState(sequence=2)}))
    finally:
        raw.config_set("maxmemory", 0)
    assert store.load(["ada"])["ada"].sequence == 1
    assert store.claim("p").position is None


def test_a_key_of_another_kind_stops_the_step_before_anything_is_written(store: RedisStore, raw: Any) -> None:
    raw.lpush(key(store, "state:bob"), "x")
    with pytest.raises(StoreUnavailable, match="cannot do it"):
        store.commit(Commit([(store.claim("p"), "5")], {"ada": UserState(sequence=1), "bob": UserState(sequence=1)}))
    assert store.load(["ada"]) == {}
    assert store.claim("p").position is None


SECRET = "s3cret-of-tests"


def _said_by(ask: Any, caplog: pytest.LogCaptureFixture) -> str:
    with caplog.at_level(logging.DEBUG), pytest.raises(StoreUnavailable) as raised:
        ask()
    return "".join(traceback.format_exception(raised.value)) + caplog.text


def test_a_wrong_password_is_named_but_not_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with LocalRedis(DataDir(tmp_path)) as running, redis.Redis.from_url(running.url) as client:
        client.config_set("requirepass", "the-right-one")
        try:
            for wrong in (f":{SECRET}@", f"someone:{SECRET}@"):
                address = running.url.replace("redis://", f"redis://{wrong}")
                said = _said_by(lambda address=address: RedisStore(address), caplog)
                assert "refuses us" in said
                assert SECRET not in said
            right = RedisStore(running.url.replace("redis://", "redis://:the-right-one@"))
            put(right, right.claim("p"), "ada", "a")
            assert "the-right-one" not in repr(right)
            client.config_set("requirepass", "another-one")
            right.close()
            said = _said_by(lambda: right.load(["ada"]), caplog)
            assert "the-right-one" not in said
            assert not right.ping()
        finally:
            client.config_set("requirepass", "")


@pytest.mark.parametrize(
    "address",
    [
        f"redis://:{SECRET}@127.0.0.1:PORT/0",
        f"redis://user:{SECRET}@127.0.0.1:PORT/0",
        f"rediss://:{SECRET}@127.0.0.1:PORT/0",
        f"redis://127.0.0.1:PORT/0?password={SECRET}",
        f"unix://:{SECRET}@/nowhere/redis.sock",
        f"redis://:{SECRET}/with/slashes@127.0.0.1:PORT/0",
        f"redis://:{SECRET}#x@127.0.0.1:PORT/0",
        f"redis://:{SECRET}@127.0.0.1:noport/0",
        f"redis://:{SECRET}@127.0.0.1:PORT/0?no_such_option=1",
    ],
)
def test_an_address_where_nobody_answers_is_named_without_its_password(
    address: str, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.socket() as taken:  # bound, but nobody listens
        taken.bind(("127.0.0.1", 0))
        port = str(taken.getsockname()[1])
        said = _said_by(lambda: open_store(address.replace("PORT", port)), caplog)
    assert SECRET not in said
    assert "Redis server" in said
