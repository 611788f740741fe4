"""What every state store does, asked of each of them; Redis is a real server."""

import threading
import time
from collections.abc import Iterator
from itertools import count, pairwise

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from segmentation_assets.core.live.segmenter import Change
from segmentation_assets.core.live.state import UserState
from segmentation_assets.io.live_store import Claim, Commit, Conflict, Fenced, ModelRecord, StateStore, open_store
from segmentation_assets.io.live_store.rules import as_pair, proportional
from segmentation_assets.local.redis import LocalRedis
from segmentation_assets.paths import DataDir

_numbers = count()


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with LocalRedis(DataDir(tmp_path_factory.mktemp("redis"))) as running:
        yield running.url


@pytest.fixture(params=["memory", "redis"])
def store(request: pytest.FixtureRequest) -> Iterator[StateStore]:
    url = "memory://" if request.param == "memory" else request.getfixturevalue("redis_url")
    found = open_store(url, f"test-{next(_numbers)}")
    yield found
    found.close()


def state(sequence: int, segment: str = "", since: int = 0) -> UserState:
    return UserState(sequence=sequence, segment=segment, since=since)


def change(user: str, segment: str, previous: str = "", at: int = 5) -> Change:
    return Change(user, at, segment, previous, -2, -2, "", "m1")


def put(store: StateStore, claim: Claim, segments: dict[str, str], sequence: int = 1, since: int = 7) -> None:
    """New users, each in a segment."""
    states = {user: state(sequence, segment, since) for user, segment in segments.items()}
    changes = [change(user, segment) for user, segment in segments.items()]
    assert store.commit(Commit([(claim, None)], states, changes)) is None


def all_members(store: StateStore, segment: str, limit: int = 3) -> list[str]:
    found: list[str] = []
    cursor = None
    while True:
        page, cursor = store.members(segment, cursor, limit)
        assert len(page) <= limit
        found += [user for user, _ in page]
        if cursor is None:
            return found


def eventually(question: object) -> None:
    assert callable(question)
    until = time.monotonic() + 30
    while not question():
        assert time.monotonic() < until, "did not come true"
        time.sleep(0.05)


# --- commits


def test_a_commit_is_read_back_whole(store: StateStore) -> None:
    claim = store.claim("events/0")
    assert (claim.partition, claim.position) == ("events/0", None)
    ada = UserState(sequence=1, segment="wohnen für alle", since=9, queries=[(9, "grüne lampe", 2)], clicks=3)
    done = store.commit(
        Commit(
            [(claim, "17")],
            {"ada": ada, "bob": state(1)},
            [change("ada", "wohnen für alle")],
            {("wohnen für alle", 480_000, "lampe-1"): 3},
            {"events": 2, "late": 1},
        )
    )
    assert done is None
    assert store.load(["ada", "nobody", "bob"]) == {"ada": ada, "bob": state(1)}
    assert store.claim("events/0").position == "17"
    assert store.members("wohnen für alle", None, 10) == ([("ada", 9)], None)
    assert store.sizes() == {"wohnen für alle": 1}
    assert [found.change for found in store.changes(None, 10)] == [change("ada", "wohnen für alle")]
    assert store.popular("wohnen für alle", [480_000], 5) == [("lampe-1", 3.0)]
    assert store.totals() == {"events": 2, "late": 1}


def test_what_is_loaded_is_not_what_is_stored(store: StateStore) -> None:
    put(store, store.claim("p"), {"ada": "a"})
    store.load(["ada"])["ada"].clicks = 100
    assert store.load(["ada"])["ada"].clicks == 0


def test_a_step_covers_several_partitions(store: StateStore) -> None:
    one, other = store.claim("events/1"), store.claim("events/2")
    assert store.commit(Commit([(one, "5"), (other, "9")], {"ada": state(1)})) is None
    assert store.claim("events/1").position == "5"
    assert store.claim("events/2").position == "9"


def test_a_source_that_cannot_be_read_again_leaves_no_position(store: StateStore) -> None:
    claim = store.claim("p")
    store.commit(Commit([(claim, "3")], {}))
    store.commit(Commit([(claim, None)], {"ada": state(1)}))
    assert store.claim("p").position == "3"


def test_an_empty_commit_moves_the_position(store: StateStore) -> None:
    assert store.commit(Commit([(store.claim("p"), "12")], {})) is None
    assert store.claim("p").position == "12"


def everything(store: StateStore) -> object:
    users = ["ada", "bob", "cem", "dia"]
    segments = ["a", "b"]
    return (
        store.load(users),
        store.sizes(),
        [all_members(store, segment) for segment in segments],
        [found.change for found in store.changes(None, 1000)],
        [store.popular(segment, [1, 2], 10) for segment in segments],
        store.totals(),
    )


@pytest.mark.parametrize("sequence", [1, 3, 4, 2**40])
def test_a_commit_upon_another_state_writes_nothing_of_anybody(store: StateStore, sequence: int) -> None:
    claim = store.claim("p")
    put(store, claim, {"ada": "a", "bob": "a"})
    before = everything(store)
    done = store.commit(
        Commit(
            [(claim, "99")],
            {"ada": state(2, "b"), "bob": state(sequence, "b"), "cem": state(1, "b")},
            [change("ada", "b", "a"), change("bob", "b", "a"), change("cem", "b")],
            {("b", 1, "p"): 1},
            {"events": 3},
        )
    )
    assert done == Conflict(["bob"])
    assert everything(store) == before
    assert store.claim("p").position is None


def test_a_conflict_names_all_whose_state_is_another_one(store: StateStore) -> None:
    claim = store.claim("p")
    put(store, claim, {"ada": "a", "bob": "a", "cem": "a"})
    done = store.commit(Commit([(claim, "1")], {"cem": state(1), "bob": state(2), "new": state(2), "ada": state(9)}))
    assert done is not None
    assert sorted(done.users) == ["ada", "cem", "new"]


def test_whoever_was_before_is_fenced_and_writes_nothing(store: StateStore) -> None:
    first = store.claim("p")
    put(store, first, {"ada": "a"})
    second = store.claim("p")
    assert second.token > first.token
    before = everything(store)
    with pytest.raises(Fenced):
        store.commit(Commit([(first, "9")], {"ada": state(2, "b")}, [change("ada", "b", "a")], {}, {"events": 1}))
    assert everything(store) == before
    assert store.commit(Commit([(second, "9")], {"ada": state(2, "b")}, [change("ada", "b", "a")])) is None


def test_one_claim_taken_over_stops_the_step_of_all_partitions(store: StateStore) -> None:
    one, other = store.claim("events/1"), store.claim("events/2")
    store.claim("events/2")
    with pytest.raises(Fenced, match="events/2"):
        store.commit(Commit([(one, "5"), (other, "9")], {"ada": state(1)}))
    assert store.load(["ada"]) == {}
    assert store.claim("events/1").position is None


def test_a_state_is_forgotten_after_its_time_and_its_entry_when_it_is_met(store: StateStore) -> None:
    claim = store.claim("p")
    put(store, claim, {"bob": "a"})
    store.commit(Commit([(claim, None)], {"ada": state(1, "a")}, [change("ada", "a")], keep_seconds=1))
    eventually(lambda: "ada" not in store.load(["ada"]))
    assert store.sizes() == {"a": 2}
    assert store.members("a", None, 10) == ([("bob", 7)], None)
    assert store.sizes() == {"a": 1}
    put(store, claim, {"ada": "a"})  # begins anew
    assert all_members(store, "a") == ["ada", "bob"]


def test_who_comes_back_into_another_segment_is_no_longer_shown_in_the_old_one(store: StateStore) -> None:
    claim = store.claim("p")
    store.commit(Commit([(claim, None)], {"ada": state(1, "a")}, [change("ada", "a")], keep_seconds=1))
    eventually(lambda: "ada" not in store.load(["ada"]))
    put(store, claim, {"ada": "b"})
    assert all_members(store, "b") == ["ada"]
    assert [found.user_id for found in store.sample(5)] == ["ada"]
    assert all_members(store, "a") == []
    assert store.sizes() == {"b": 1}


# --- segments


def test_a_user_moves_from_segment_to_segment_and_out(store: StateStore) -> None:
    claim = store.claim("p")
    put(store, claim, {"ada": "a", "bob": "a"})
    store.commit(Commit([(claim, None)], {"ada": state(2, "b", 11)}, [change("ada", "b", "a")]))
    assert (all_members(store, "a"), store.members("b", None, 5)) == (["bob"], ([("ada", 11)], None))
    store.commit(Commit([(claim, None)], {"ada": state(3, "", 12)}, [change("ada", "", "b")]))
    assert store.sizes() == {"a": 1}


def test_another_behaviour_cluster_is_a_change_but_no_move(store: StateStore) -> None:
    claim = store.claim("p")
    put(store, claim, {"ada": "a"})
    moved = Change("ada", 8, "a", "a", 3, -2, "Stöberer", "m1", "s1", "lampe")
    store.commit(Commit([(claim, None)], {"ada": state(2, "a", 7)}, [moved]))
    assert store.members("a", None, 5) == ([("ada", 7)], None)
    assert store.changes(None, 1, newest_first=True)[0].change == moved


def test_pages_hold_everybody_once_in_the_order_of_their_ids(store: StateStore) -> None:
    users = [f"u{number}" for number in range(25)] + ["Ä", "ä", "z:1", "😀", "a b"]
    put(store, store.claim("p"), dict.fromkeys(users, "a"))
    for limit in (1, 7, 29, 30, 100):
        assert all_members(store, "a", limit) == sorted(users)
    assert store.members("a", None, 30)[1] is None


def test_pages_stay_exact_while_members_come_and_go(store: StateStore) -> None:
    claim = store.claim("p")
    put(store, claim, dict.fromkeys([f"u{number:02}" for number in range(20)], "a"))
    page, cursor = store.members("a", None, 5)
    leaving = {f"u{number:02}": state(2, "b") for number in (1, 4, 6, 12)}
    store.commit(Commit([(claim, None)], leaving, [change(user, "b", "a") for user in leaving]))
    put(store, claim, {"u00x": "a", "u10x": "a"})
    rest: list[tuple[str, int]] = []
    while cursor is not None:
        more, cursor = store.members("a", cursor, 5)
        rest += more
    seen = [user for user, _ in page + rest]
    assert seen == sorted(set(seen))
    stayed = {f"u{number:02}" for number in range(20)} - set(leaving)
    assert stayed <= set(seen)
    assert "u10x" in seen
    assert not {"u06", "u12"} & set(seen)


def test_a_segment_nobody_is_in_has_no_members(store: StateStore) -> None:
    assert store.members("a", None, 5) == ([], None)


def test_a_sample_is_everybody_where_there_are_not_more(store: StateStore) -> None:
    put(store, store.claim("p"), {"ada": "a", "bob": "a", "cem": "b"})
    assert sorted(found.user_id for found in store.sample(3)) == ["ada", "bob", "cem"]
    assert {found.user_id: found.state.segment for found in store.sample(10)}["cem"] == "b"


def test_a_sample_takes_of_every_segment_its_share(store: StateStore) -> None:
    users = {f"a{number}": "a" for number in range(300)} | {f"b{number}": "b" for number in range(100)}
    put(store, store.claim("p"), users)
    drawn = store.sample(40)
    assert len({found.user_id for found in drawn}) == 40
    assert sum(found.state.segment == "a" for found in drawn) == 30


@pytest.mark.parametrize("number", [0, 1, 5, 6, 7, 100])
def test_parts_add_up_to_the_whole(number: int) -> None:
    sizes = {"a": 3, "b": 2, "c": 1}
    parts = proportional(sizes, number)
    assert sum(parts.values()) == min(number, 6)
    assert all(parts[name] <= sizes[name] for name in sizes)


# --- changes


def test_ids_of_changes_strictly_grow_and_lead_on(store: StateStore) -> None:
    claim = store.claim("p")
    for step in range(5):
        put(store, claim, {f"u{step}{number}": "a" for number in range(4)})
    found = store.changes(None, 100)
    assert len(found) == 20
    assert all(as_pair(one.id) < as_pair(other.id) for one, other in pairwise(found))
    assert store.changes(found[7].id, 5) == found[8:13]
    assert store.changes(found[-1].id, 5) == []
    assert store.changes(None, 6, newest_first=True) == found[:-7:-1]
    assert store.changes(found[17].id, 6, newest_first=True) == [found[19], found[18]]


@pytest.mark.parametrize("other", ["", "x", "5", "(5-0", "-", "+", "5-0-0", "9" * 30 + "-0"])
def test_what_is_no_id_of_a_change_is_refused(store: StateStore, other: str) -> None:
    for ask in (
        lambda: store.changes(other, 5),
        lambda: store.wait_changes(other, 5, 0.01),
        lambda: store.advance("sink", other),
    ):
        with pytest.raises(ValueError, match="id of a change"):
            ask()


def test_waiting_ends_with_the_first_change_that_comes(store: StateStore) -> None:
    claim = store.claim("p")
    put(store, claim, {"ada": "a"})
    got: list[str] = []
    ready = threading.Event()

    def wait() -> None:
        ready.set()
        while not got:
            got.extend(found.change.user_id for found in store.wait_changes("$", 10, 0.5))

    waiting = threading.Thread(target=wait)
    waiting.start()
    ready.wait()
    for number in range(200):  # '$' is what comes from now on; when the other thread begins to wait nobody knows
        put(store, claim, {f"u{number:03}": "a"})
        if got:
            break
        time.sleep(0.05)
    waiting.join(30)
    assert got
    assert "ada" not in got


def test_waiting_for_what_is_there_does_not_wait(store: StateStore) -> None:
    put(store, store.claim("p"), {"ada": "a", "bob": "a"})
    first = store.changes(None, 1)[0].id
    assert [found.change.user_id for found in store.wait_changes(first, 5, 3600)] == ["bob"]
    assert store.wait_changes(store.changes(None, 5)[-1].id, 5, 0.01) == []


def test_a_cursor_is_kept_by_sink_and_never_goes_back(store: StateStore) -> None:
    assert store.cursor("topic") is None
    store.advance("topic", "12-3")
    store.advance("topic", "9-7")
    store.advance("other", "2-0")
    assert (store.cursor("topic"), store.cursor("other")) == ("12-3", "2-0")
    store.advance("topic", "12-10")
    assert store.cursor("topic") == "12-10"


def test_changes_are_kept_until_every_sink_has_told_them_and_then_the_newest_ones(store: StateStore) -> None:
    claim = store.claim("p")
    store.cursor("slow")  # it has told nothing yet
    for step in range(4):
        names = [change("ada", "a", "a", at=step * 3500 + number) for number in range(3500)]
        assert store.commit(Commit([(claim, None)], {"ada": state(step + 1, "a")}, names)) is None
    everyone = store.changes(None, 20_000)
    assert len(everyone) == 14_000
    store.advance("fast", everyone[-1].id)
    assert len(store.changes(None, 20_000)) == 14_000
    store.advance("slow", everyone[2_499].id)
    assert store.changes(None, 20_000) == everyone[2_500:]
    store.advance("slow", everyone[-1].id)
    assert store.changes(None, 20_000) == everyone[4_000:]


# --- what else is kept


def test_the_heaviest_products_of_some_hours_come_first(store: StateStore) -> None:
    claim = store.claim("p")
    store.commit(Commit([(claim, None)], {}, products={("a", 1, "p"): 3, ("a", 2, "q"): 4, ("b", 1, "r"): 9}))
    store.commit(Commit([(claim, None)], {}, products={("a", 2, "p"): 2, ("a", 3, "q"): 100, ("a", 1, "s:1"): 1}))
    assert store.popular("a", [1, 2], 10) == [("p", 5.0), ("q", 4.0), ("s:1", 1.0)]
    assert store.popular("a", [2, 1, 1], 1) == [("p", 5.0)]
    assert store.popular("a", [2], 2) == [("q", 4.0), ("p", 2.0)]
    assert store.popular("a", [7], 2) == []
    assert store.popular("a", [], 2) == []


def test_counts_are_added_up(store: StateStore) -> None:
    claim = store.claim("p")
    store.commit(Commit([(claim, None)], {}, counts={"events": 2**33, "late": 1}))
    store.commit(Commit([(claim, None)], {}, counts={"events": 1, "dead": 0}))
    assert {name: n for name, n in store.totals().items() if n} == {"events": 2**33 + 1, "late": 1}


def test_the_model_before_stays_readable_and_older_ones_go(store: StateStore) -> None:
    assert (store.current_model(), store.model("m1"), store.models()) == (None, None, [])
    records = [ModelRecord(f"m{number}", number, bytes([number, 0, 255])) for number in range(1, 4)]
    for record in records:
        store.publish_model(record)
    assert store.current_model() == "m3"
    assert store.model("m3") == records[2]
    assert store.model("m2") == records[1]
    assert store.model("m1") is None
    assert store.models() == [("m3", 3), ("m2", 2)]
    again = ModelRecord("m3", 30, b"again")
    store.publish_model(again)
    assert store.model("m3") == again
    assert store.models() == [("m3", 30), ("m2", 2)]
    store.publish_model(records[1])  # back to the one before
    assert store.models() == [("m2", 2), ("m3", 30)]


def test_workers_are_forgotten_when_they_say_nothing(store: StateStore) -> None:
    store.report_worker("w1", {"model": "m1", "events": 3.5, "lag": {"events/0": 2}})
    store.report_worker("w2", {"model": "m1"}, keep_seconds=1)
    assert store.workers()["w1"] == {"model": "m1", "events": 3.5, "lag": {"events/0": 2}}
    eventually(lambda: sorted(store.workers()) == ["w1"])


def test_a_lock_is_held_by_one(store: StateStore) -> None:
    assert store.lock("tell", "w1", 60)
    assert store.lock("tell", "w1", 1)
    assert not store.lock("tell", "w2", 60)
    assert store.lock("other", "w2", 60)
    eventually(lambda: store.lock("tell", "w2", 60))
    assert not store.lock("tell", "w1", 60)


def test_a_lock_that_is_given_back_is_the_next_ones(store: StateStore) -> None:
    assert store.lock("tell", "a", 60)
    assert not store.lock("tell", "b", 0)
    assert not store.lock("tell", "b", 60)
    assert store.lock("tell", "a", 0)
    assert store.lock("tell", "b", 60)


def test_bytes_are_kept_under_a_name(store: StateStore) -> None:
    assert store.kept("clusters") is None
    store.keep("clusters", b"\x00\xff")
    assert store.kept("clusters") == b"\x00\xff"


def test_what_is_kept_for_a_time_is_gone_after_it(store: StateStore) -> None:
    store.keep("clusters", b"1", 0.2)
    store.keep("others", b"2")
    assert store.kept("clusters") == b"1"
    eventually(lambda: store.kept("clusters") is None)
    assert store.kept("others") == b"2"


def test_tidying_comes_round_to_everybody(store: StateStore) -> None:
    """More than Redis keeps in one small piece, so that one call looks at a part only."""
    claim = store.claim("events/0")
    users = [f"user{number}" for number in range(900)]
    gone, here = users[:600], users[600:]
    for some, seconds in ((gone, 1), (here, 600)):
        states = {user: state(1, "a") for user in some}
        store.commit(Commit([(claim, None)], states, [change(user, "a") for user in some], keep_seconds=seconds))
    assert store.sizes() == {"a": 900}
    eventually(lambda: not store.load(gone))
    found = 0
    for _ in range(100):
        found += store.tidy(50)
        if found == 600:
            break
    assert (found, store.sizes()) == (600, {"a": 300})
    assert all_members(store, "a", 100) == sorted(here)


def test_a_store_that_is_there_answers(store: StateStore) -> None:
    assert store.ping()


def test_threads_that_write_the_same_user_leave_no_update_out(store: StateStore) -> None:
    def work(partition: str) -> None:
        claim = store.claim(partition)
        for step in range(20):
            while True:
                held = store.load(["ada"]).get("ada", UserState())
                held.sequence += 1
                held.clicks += 1
                if store.commit(Commit([(claim, str(step))], {"ada": held}, counts={"events": 1})) is None:
                    break

    threads = [threading.Thread(target=work, args=(f"p{number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    found = store.load(["ada"])["ada"]
    assert (found.sequence, found.clicks, store.totals()) == (80, 80, {"events": 80})


def test_an_address_of_another_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="begins with redis"):
        open_store("http://127.0.0.1")


# --- both stores, step by step, whatever the steps are

_USERS = st.sampled_from(["ada", "bob", "cem", "dia"])
_SEGMENTS = st.sampled_from(["a", "b", "ü" * 40])


class _Alike(RuleBasedStateMachine):
    """Redis and the memory store are told the same, and have to say the same."""

    url = ""

    @initialize()
    def begin(self) -> None:
        self.stores = [open_store("memory://"), open_store(self.url, f"alike-{next(_numbers)}")]
        self.claims = [[store.claim("p")] for store in self.stores]
        self.step = 0

    @rule()
    def claim(self) -> None:
        for store, claims in zip(self.stores, self.claims, strict=True):
            claims.append(store.claim("p"))
        assert self.claims[0] == self.claims[1]

    @rule(
        which=st.integers(0, 1),
        users=st.lists(st.tuples(_USERS, _SEGMENTS, st.sampled_from([0, 0, 0, 0, -1, 1])), unique_by=lambda u: u[0]),
        products=st.dictionaries(st.tuples(_SEGMENTS, st.integers(1, 2), _USERS), st.integers(1, 9), max_size=3),
    )
    def commit(self, which: int, users: list[tuple[str, str, int]], products: dict[tuple[str, int, str], int]) -> None:
        self.step += 1
        answers = []
        for store, claims in zip(self.stores, self.claims, strict=True):
            held = store.load([user for user, _, _ in users])
            states, changes = {}, []
            for user, segment, wrong in users:
                before = held.get(user, UserState())
                states[user] = state(max(before.sequence + 1 + wrong, 1), segment, self.step)
                if before.segment != segment:
                    changes.append(change(user, segment, before.segment, self.step))
            claim = claims[-1 - which] if len(claims) > which else claims[-1]
            try:
                done = store.commit(Commit([(claim, str(self.step))], states, changes, products, {"events": 1}))
                answers.append(None if done is None else sorted(done.users))
            except Fenced as error:
                answers.append(str(error))
        assert answers[0] == answers[1]

    @invariant()
    def they_say_the_same(self) -> None:
        if hasattr(self, "stores"):
            one, other = (
                (
                    store.load(["ada", "bob", "cem", "dia"]),
                    store.sizes(),
                    [all_members(store, segment, 2) for segment in ("a", "b", "ü" * 40)],
                    [found.change for found in store.changes(None, 1000)],
                    [store.popular(segment, [1, 2], 3) for segment in ("a", "b", "ü" * 40)],
                    store.totals(),
                )
                for store in self.stores
            )
            assert one == other

    def teardown(self) -> None:
        for store, claims in zip(getattr(self, "stores", []), getattr(self, "claims", []), strict=True):
            claims.append(store.claim("p"))
            store.close()
        if hasattr(self, "claims"):
            assert self.claims[0][-1] == self.claims[1][-1]  # the positions, too


def test_the_stores_do_the_same_whatever_the_steps_are(redis_url: str) -> None:
    machine = type("Alike", (_Alike,), {"url": redis_url})
    run_state_machine_as_test(machine, settings=settings(max_examples=40, stateful_step_count=15, deadline=None))
