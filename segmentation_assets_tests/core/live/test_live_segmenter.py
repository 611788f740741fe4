"""The stream's segments are those of the batch side, whatever the order and however often events come."""

from collections import Counter
from dataclasses import replace
from functools import cache

import numpy as np
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segmentation_assets.core.live import segmenter as segmenter_module
from segmentation_assets.core.live.change import GROUPS, behaviour_change, has_changed, remember
from segmentation_assets.core.live.events import Event, events_of_session
from segmentation_assets.core.live.features import Prices, live_features
from segmentation_assets.core.live.segmenter import Segmenter
from segmentation_assets.core.live.state import (
    APPLIED,
    DUPLICATE,
    LARGEST_SPEND,
    LATE,
    UnreadableStateError,
    UserState,
    apply,
    decode,
    encode,
)
from segmentation_assets_tests.batch_side import Batch, batch_side

HOUR = 3_600_000
END = 1_790_000_000_000


@cache
def small() -> Batch:
    return batch_side(4_000, 8)


def events_of(batch: Batch) -> list[Event]:
    events = [event for document in batch.documents for event in events_of_session(document)]
    return sorted(events, key=lambda event: event.timestamp)


def through(segmenter: Segmenter, events: list[Event], size: int = 997) -> dict[str, UserState]:
    states: dict[str, UserState] = {}
    for start in range(0, len(events), size):
        segmenter.process(events[start : start + size], states)
    return states


def test_the_same_sessions_give_every_one_of_ten_thousand_users_the_same_segment() -> None:
    batch = batch_side(46_000)
    wanted = dict(zip(*(batch.labeled.users[name].to_pylist() for name in ("user_id", "segment")), strict=True))
    assert len(wanted) >= 10_000
    states = through(Segmenter(batch.model, HOUR, 0.2), events_of(batch), 5_000)
    assert {user: state.segment for user, state in states.items()} == wanted
    assert len(set(wanted.values())) > 2


def test_features_are_those_of_the_batch_side_and_so_is_the_behaviour_cluster() -> None:
    batch = small()
    segmenter = Segmenter(batch.model, HOUR, 0.2)
    states = through(segmenter, events_of(batch))
    users = batch.features.table["user_id"].to_pylist()
    end = round(batch.features.end.timestamp() * 1000)
    wanted = [name for name in batch.features.table.column_names if ":" in name]
    table, traits = live_features([states[user] for user in users], users, batch.model.segments, end, wanted)
    # The batch side fills in durations that are missing; what was viewed long ago is forgotten.
    filled = batch.clean.sessions.filter(batch.clean.sessions["duration_imputed"])["user_id"].unique()
    complete = ~pc.is_in(table["user_id"].combine_chunks(), filled).to_numpy(zero_copy_only=False)
    for name in batch.features.table.column_names:
        if name in ("user_id", "views_without_purchase"):
            continue
        rows = complete if name == "session_duration" else np.ones(len(users), np.bool_)
        one, other = (found[name].to_numpy()[rows] for found in (table, batch.features.table))
        np.testing.assert_allclose(one, other, rtol=0, atol=2e-6, err_msg=name)
    assert complete.sum() > 200
    clusters, confidence = segmenter.behaviour([states[user] for user in users], users, end)
    batchs = batch.behaviour.labels
    assert (clusters[complete] == batchs[complete]).all()
    assert (clusters == batchs).mean() > 0.97
    assert traits["device"].to_pylist() == batch.features.traits["device"].to_pylist()
    assert ((confidence >= 0) & (confidence <= 1)).all()


def test_events_that_come_again_and_in_another_order_change_nothing() -> None:
    batch = small()
    events = events_of(batch)[:6_000]
    once = through(Segmenter(batch.model, 10**12, 0.2), events)
    rng = np.random.default_rng(5)
    twice = [events[place] for place in rng.permutation(np.repeat(np.arange(len(events)), 2))]
    again = through(Segmenter(batch.model, 10**12, 0.2), twice)
    assert again.keys() == once.keys()
    for user, state in once.items():
        other = again[user]
        # What is bounded (products, sessions remembered) may differ after so wild an order; what is counted may not.
        for name in ("events", "sessions", "searches", "views", "clicks", "carts", "orders", "spend", "level", "hours"):
            assert getattr(other, name) == getattr(state, name), name
        assert other.interests == state.interests
        assert other.segment == state.segment
        assert other.queries == state.queries


def test_an_event_that_is_too_late_is_told_by_its_place() -> None:
    segmenter = Segmenter(small().model, HOUR, 0.2)
    states: dict[str, UserState] = {}
    outcome = segmenter.process(
        [
            Event("a", "u", "search", END, search_query="laptop"),
            Event("b", "u", "search", END - 2 * HOUR, search_query="dress"),
            Event("a", "u", "search", END, search_query="laptop"),
            Event("c", "u", "view", END - HOUR),
        ],
        states,
    )
    assert (outcome.late, outcome.duplicates, outcome.applied) == ([1], 1, 2)
    assert states["u"].sessions == 1
    assert states["u"].sequence == 1


def test_a_change_tells_from_where_to_where_and_by_which_search() -> None:
    batch = small()
    segmenter = Segmenter(batch.model, HOUR, 0.2)
    by_segment = {}
    for query in batch.sessions.table["search_query"].unique().to_pylist():
        name = segmenter.segment_of(segmenter.clusters_of([query])[query])
        by_segment.setdefault(name, query)
    one, other = sorted(by_segment)[:2]
    states: dict[str, UserState] = {}
    first = segmenter.process([Event("1", "u", "search", END, session_id="s1", search_query=by_segment[one])], states)
    assert [(c.previous, c.segment, c.session_id) for c in first.changes] == [("", one, "s1")]
    later = [Event(f"{n}", "u", "search", END + n, search_query=by_segment[other]) for n in range(2, 5)]
    second = segmenter.process(later, states)
    assert [(c.previous, c.segment, c.session_segment, c.session_at) for c in second.changes] == [
        (one, other, other, END + 4)
    ]
    assert states["u"].before == [3, 0, 0]
    assert segmenter.process([Event("9", "u", "view", END + 9)], states).changes == []


def test_with_another_model_a_users_sessions_are_counted_by_its_clusters() -> None:
    """Exact as long as all queries are remembered: the state is then that of a stream that began with the new model."""
    old, new = small().model, batch_side(4_000, 8, k=8, seed=3).model
    assert old.version != new.version
    queries = small().sessions.table["search_query"].unique().to_pylist()[:40]
    events = [Event(str(n), f"u{n % 10}", "search", END + n, search_query=query) for n, query in enumerate(queries)]
    states = through(Segmenter(old, HOUR, 0.2), events)
    more = [Event(f"more{n}", f"u{n}", "view", END + 100 + n) for n in range(10)]
    segmenter = Segmenter(new, HOUR, 0.2)
    segmenter.process(more, states)
    fresh = through(Segmenter(new, HOUR, 0.2), [*events, *more])
    for user, state in fresh.items():
        assert states[user].interests == state.interests
        assert states[user].segment == state.segment
        assert states[user].model == new.version


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 8), st.integers(-2, 6)), max_size=60))
@settings(max_examples=60)
def test_an_event_counts_once_and_never_when_late(steps: list[tuple[int, int, int]]) -> None:
    """Against the definition: late by the latest so far, otherwise counted unless its id was."""
    state = UserState()
    ids: set[str] = set()
    latest: int | None = None
    for number, kind, back in steps:
        at = END + (number - back * 10) * 60_000
        event = Event(f"{number}-{kind}-{back}", "u", ("search", "view", "click", "purchase")[kind % 4], at)
        done = apply(state, event, HOUR)
        if latest is not None and at < latest - HOUR:
            assert done == LATE
        elif event.event_id in ids:
            assert done == DUPLICATE
        else:
            assert done == APPLIED
            ids.add(event.event_id)
            latest = at if latest is None else max(latest, at)
    assert state.events == len(ids)
    assert decode(encode(state)) == state


def test_bytes_that_are_no_state_are_refused() -> None:
    for data in (b"", b"\xc1", b"\x93\x02\x00\x00", encode(UserState(format=9))):
        with pytest.raises(UnreadableStateError):
            decode(data)


amounts = st.integers(0, 50)


@given(st.lists(amounts, min_size=6, max_size=6), st.lists(amounts, min_size=6, max_size=6), st.data())
def test_the_quick_question_agrees_with_the_distance(then: list[int], more: list[int], data: st.DataObject) -> None:
    names = ("sessions", "clicks", "views", "carts", "orders", "spend")
    counts = st.dictionaries(st.integers(0, 3), amounts.filter(bool), max_size=4)
    state = UserState(**dict(zip(names, then, strict=True)))
    state.interests = {cluster: [n, 0] for cluster, n in data.draw(counts).items()}
    state.categories = {str(cluster): n for cluster, n in data.draw(counts).items()}
    assert set(behaviour_change(state).values()) == {1.0}
    remember(state)
    assert not has_changed(state, 0.0)
    assert set(behaviour_change(state).values()) == {0.0}
    for name, n in zip(names, more, strict=True):
        setattr(state, name, getattr(state, name) + n)
    if more[0]:  # interests only change by sessions
        state.interests = {cluster: [n, 0] for cluster, n in data.draw(counts).items()}
    change = behaviour_change(state)
    assert change.keys() == GROUPS.keys()
    assert all(0 <= value <= 1 for value in change.values())
    for bound in (0.0, 0.1, 0.2, 0.5, 0.7):
        assert has_changed(state, bound) == (max(change.values()) > bound)


def test_the_twenty_percent_by_hand() -> None:
    state = UserState(sessions=10, interests={0: [6, 0], 1: [4, 0]})
    remember(state)
    state.sessions, state.interests = 12, {0: [6, 0], 1: [6, 0]}
    assert behaviour_change(state)["visits"] == pytest.approx(2 / 12)
    assert behaviour_change(state)["interests"] == pytest.approx(0.1)
    assert not has_changed(state, 0.2)
    state.sessions, state.interests = 13, {0: [6, 0], 1: [7, 0]}
    assert behaviour_change(state)["visits"] == pytest.approx(3 / 13)
    assert has_changed(state, 0.2)


def test_a_user_is_looked_at_anew_when_behaviour_moved_and_not_before() -> None:
    batch = small()
    segmenter = Segmenter(batch.model, HOUR, 0.2)
    states: dict[str, UserState] = {}
    looked = Counter[int]()
    for number in range(40):
        event = Event(str(number), "u", "search", END + number, search_query="laptop")
        looked[number + 1] = segmenter.process([event], states).segmented
    # Each time when the sessions since are more than a fifth of all of them.
    expected, then = [], 0
    for n in range(1, 41):
        if then == 0 or n - then > 0.2 * n:
            expected.append(n)
            then = n
    assert [n for n, times in looked.items() if times] == expected
    assert states["u"].cluster in batch.behaviour.cluster_ids


def test_prices_are_ranked_as_the_batch_side_ranks_them() -> None:
    import pyarrow as pa

    prices = Prices(pa.table({"category": ["a"] * 4 + ["b"], "price": [1.0, 2.0, 2.0, 5.0, 9.0]}))
    assert [prices.level("a", price) for price in (1.0, 2.0, 5.0)] == [0.0, 0.5, 1.0]
    assert prices.level("b", 3.0) == 0.5
    assert prices.level("c", 3.0) == -1
    assert prices.level(None, 3.0) == -1
    assert prices.level("a", None) == -1
    assert (prices.level("a", 0.5), prices.level("a", 7.0)) == (0.0, 1.0)


def queries_by_segment(segmenter: Segmenter) -> dict[str, str]:
    """Segment to a query of it."""
    queries = small().sessions.table["search_query"].unique().to_pylist()
    clusters = segmenter.clusters_of(queries)
    return {segmenter.segment_of(clusters[query]): query for query in queries}


def test_queries_may_be_forgotten_in_the_midst_of_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segmenter_module, "REMEMBERED_QUERIES", 3)
    states: dict[str, UserState] = {}
    earlier = Segmenter(replace(small().model, version="earlier"), HOUR, 0.2)
    earlier.process([Event("0", "old", "search", END, search_query="nobody else asks for it")], states)
    queries = small().sessions.table["search_query"].unique().to_pylist()[:5]
    events = [Event(f"n{n}", f"new{n}", "search", END, search_query=query) for n, query in enumerate(queries)]
    events.insert(3, Event("1", "old", "view", END + 1))  # its query is of another model, and looked up again
    outcome = Segmenter(small().model, HOUR, 0.2).process(events, states)
    assert outcome.applied == 6
    assert all(states[f"new{n}"].segment for n in range(5))


def test_a_user_is_in_a_segment_since_the_search_that_did_it_and_not_since_what_came_with_it() -> None:
    segmenter = Segmenter(small().model, HOUR, 0.2)
    states: dict[str, UserState] = {}
    search = Event(
        "1", "u", "search", END, session_id="s", search_query=next(iter(queries_by_segment(segmenter).values()))
    )
    for after in (Event("2", "u", "click", END + 9_000, "s"), Event("3", "u", "view", END - 9_000, "s")):
        states.clear()
        outcome = segmenter.process([search, after], states)
        assert (states["u"].since, outcome.changes[0].at) == (END, END)


def test_a_click_of_a_visit_whose_search_was_not_seen_takes_nothing_from_those_before() -> None:
    segmenter = Segmenter(small().model, HOUR, 0.2)
    one, other = list(queries_by_segment(segmenter).values())[:2]
    states: dict[str, UserState] = {}
    segmenter.process([Event("1", "u", "search", END, "a", one)], states)
    searches = [Event(f"b{n}", "u", "search", END + n, f"b{n}", other) for n in (1, 2)]
    segmenter.process([*searches, Event("3", "u", "click", END + 3, "c")], states)
    assert states["u"].before == [2, 0, 0]


def test_no_price_is_so_high_that_a_state_cannot_be_written() -> None:
    state = UserState()
    for number in range(30):
        apply(state, Event(str(number), "u", "purchase", END, price=1e9, quantity=1e9), HOUR)
    assert decode(encode(state)) == state
    assert (state.orders, state.spend) == (1, LARGEST_SPEND)


@given(st.permutations(range(6)))
def test_what_happens_without_a_session_id_belongs_to_the_session_that_goes_on(order: list[int]) -> None:
    minute = 60_000
    events = [
        Event("1", "u", "search", END, search_query="laptop"),
        Event("2", "u", "view", END + 3 * minute),
        Event("3", "u", "view", END + 9 * minute),
        Event("4", "u", "search", END + 20 * minute, session_id="s", search_query="dress"),
        Event("5", "u", "click", END + 22 * minute),
        Event("6", "u", "click", END + 55 * minute),  # nobody was there for half an hour
    ]
    # Both searches first: what comes before its search cannot be attached.
    searches_first = [0, 3, *(place for place in order if place not in (0, 3))]
    state = UserState()
    for place in searches_first:
        assert apply(state, events[place], HOUR) == APPLIED
    assert (state.visits, state.sessions, state.clicked, state.timed) == (2, 2, 1, 2)
    assert state.duration == (9 + 2) * minute


def test_several_searches_of_one_visit_are_one_visit() -> None:
    state = UserState()
    for number in range(3):
        apply(state, Event(f"s{number}", "u", "search", END + number, session_id="v", search_query="laptop"), HOUR)
        apply(state, Event(f"c{number}", "u", "click", END + number, session_id="v"), HOUR)
    assert (state.sessions, state.visits, state.clicked) == (3, 1, 1)
    table, _ = live_features([state], ["u"], {})
    assert table["click_through"].to_pylist() == [1.0]


def test_a_session_in_which_things_happen_is_not_forgotten() -> None:
    state = UserState()
    for number in range(40):
        search = Event(f"{number}", "u", "search", END + number, session_id=f"v{number}", search_query="laptop")
        apply(state, search, HOUR)
        apply(state, Event(f"view{number}", "u", "view", END + number, session_id="v0"), HOUR)
    apply(state, Event("click", "u", "click", END + 50, session_id="v0"), HOUR)
    assert (state.visits, state.clicked) == (40, 1)
