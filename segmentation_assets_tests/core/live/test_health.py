"""Numbers of the stream: the population stability index by hand, drift of real states, the record, the bounds."""

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from batch_side import Batch, batch_side

from segmentation_assets.core.live import health, plots
from segmentation_assets.core.live.change import has_changed, remember
from segmentation_assets.core.live.events import Event, events_of_session
from segmentation_assets.core.live.health import Changed, LiveHealth
from segmentation_assets.core.live.model import Reference
from segmentation_assets.core.live.segmenter import Segmenter
from segmentation_assets.core.live.state import UserState, decode, encode
from segmentation_assets.core.settings import DriftSettings, LiveHealthBounds

HOUR = 3_600_000
AT = 1_790_000_000_000
PNG = b"\x89PNG"


@cache
def batch() -> Batch:
    return batch_side(1_500, k=6)


@cache
def states() -> dict[str, UserState]:
    """The states that the events of the very sessions that the model was made of lead to."""
    found: dict[str, UserState] = {}
    process(found, sorted(events(), key=lambda event: event.timestamp))
    return found


def events() -> list[Event]:
    return [event for document in batch().documents for event in events_of_session(document)]


def process(known: dict[str, UserState], told: Sequence[Event]) -> None:
    segmenter = Segmenter(batch().model, HOUR, 0.2)
    for start in range(0, len(told), 500):
        segmenter.process(told[start : start + 500], known)


def record(
    known: dict[str, UserState] | None = None,
    totals: dict[str, int] | None = None,
    workers: dict[str, dict[str, object]] | None = None,
    previous: LiveHealth | None = None,
    at: int = AT,
    changed: Changed | None = None,
) -> LiveHealth:
    of = states() if known is None else known
    return health.live_health(list(of.items()), batch().model, totals or {}, workers or {}, previous, at, changed)


# --- the population stability index -----------------------------------------------------------------------------------


def test_the_index_is_that_computed_by_hand() -> None:
    """Two bins, 10 users: 8 and 2 now, 5 and 5 then, nobody without the feature."""
    now = np.array([0.0] * 8 + [2.0] * 2)
    reference = Reference(edges=[1.0], shares=[0.5, 0.5], undefined=0.0)
    p, q = (8.5 / 11.5, 2.5 / 11.5), (5.5 / 11.5, 5.5 / 11.5)
    expected = sum((a - b) * math.log(a / b) for a, b in zip(p, q, strict=True))
    assert health.psi(now, reference) == pytest.approx(expected, rel=1e-12)


def test_many_users_bring_the_index_to_its_definition() -> None:
    now = np.array([0.0] * 800_000 + [2.0] * 200_000)
    exact = 0.3 * math.log(0.8 / 0.5) - 0.3 * math.log(0.2 / 0.5)
    assert health.psi(now, Reference([1.0], [0.5, 0.5], 0.0)) == pytest.approx(exact, rel=1e-4)


def test_the_same_shares_have_no_index_whatever_their_number() -> None:
    reference = Reference([1.0, 2.0], [0.25, 0.25, 0.5], 0.5)
    values = np.array([0.5, 1.5, 3.0, 3.0] + [np.nan] * 4)
    assert health.psi(values, reference) == pytest.approx(0, abs=1e-15)
    assert health.psi(np.tile(values, 1000), reference) == pytest.approx(0, abs=1e-12)


def test_a_value_at_the_edge_is_in_the_bin_below_it_as_in_the_reference() -> None:
    reference = Reference([1.0], [1.0, 0.0], 0.0)
    assert health.psi(np.ones(50), reference) == pytest.approx(0, abs=1e-15)
    assert health.psi(np.nextafter(np.ones(50), 2), reference) > 1


def test_users_who_lost_the_feature_are_a_change() -> None:
    reference = Reference([], [1.0], 0.0)
    assert health.psi(np.full(100, np.nan), reference) > 1
    assert health.psi(np.ones(100), reference) == pytest.approx(0, abs=1e-15)


def test_an_empty_bin_is_no_infinity_and_nobody_is_no_change() -> None:
    reference = Reference([1.0, 2.0], [0.0, 1.0, 0.0], 0.0)
    assert math.isfinite(health.psi(np.array([0.0, 5.0, np.nan]), reference))
    assert health.psi(np.empty(0), reference) == 0


# --- drift ------------------------------------------------------------------------------------------------------------


def test_the_very_users_of_the_model_have_not_drifted() -> None:
    """Every feature of the reference is told by the states, and is distributed as the batch side measured it."""
    found = health.drift(list(states().values()), list(states()), batch().model)
    assert found.keys() == batch().model.reference.keys()
    assert max(found.values()) < 0.05


def test_other_users_have_drifted_and_the_feature_they_differ_in_is_first() -> None:
    often = {user: state for user, state in states().items() if state.sessions >= 6}
    found = health.drift(list(often.values()), list(often), batch().model)
    assert next(iter(found)) in ("sessions", "searches")
    assert found["sessions"] > 1
    assert list(found.values()) == sorted(found.values(), reverse=True)


def test_what_nobody_has_is_not_compared() -> None:
    model = replace(batch().model, reference={**batch().model.reference, "age": Reference([30.0], [0.5, 0.5], 0.0)})
    assert "age" not in health.drift(list(states().values()), list(states()), model)
    found = health.live_health(list(states().items()), model, {}, {}, None, AT)
    assert found.not_compared == ["age"]
    assert health.drift([], [], model) == {}


# --- how many have moved since the run --------------------------------------------------------------------------------


def test_nobody_has_moved_before_somebody_did_something() -> None:
    noted = health.baseline(list(states().items()), "m", AT)
    assert health.changed_since(noted, states(), 0.2) == Changed(0, 0)
    assert Changed(0, 0).share is None


def test_users_who_moved_far_are_counted_even_where_they_were_looked_at_anew() -> None:
    """One session upon five is 17% more, upon one it is 50% more; the state itself remembers only its last look."""
    one = [user for user, state in states().items() if state.sessions == 1][:3]
    five = [user for user, state in states().items() if state.sessions == 5][:3]
    now = {user: clone(states()[user]) for user in [*one, *five]}
    noted = health.decode_baseline(health.encode_baseline(health.baseline(list(now.items()), "m", AT)))
    assert noted is not None
    told = [
        # the same query as before, so that interests stay
        Event(f"new-{user}", user, "search", now[user].latest + HOUR, search_query=now[user].queries[0][1])
        for user in [*one, *five[:2]]
    ]
    interests = {user: len(now[user].interests) for user in five}
    process(now, told)
    found = health.changed_since(noted, now, 0.2)
    assert found.active == 5
    far = sum(has_changed(moved(noted, user, now[user]), 0.2) for user in five[:2] if interests[user] > 0)
    assert found.changed == 3 + far
    assert all(now[user].segmentations > states()[user].segmentations for user in one)


def moved(noted: health.Baseline, user: str, state: UserState) -> UserState:
    found = clone(state)
    found.then = noted.users[user].amounts
    found.then_interests = noted.users[user].interests
    found.then_categories = noted.users[user].categories
    return found


def clone(state: UserState) -> UserState:
    return decode(encode(state))


def test_the_baseline_is_of_the_states_as_they_are() -> None:
    state = UserState(sessions=2, clicks=1, interests={1: [2, 5]}, categories={"Shoes": 1})
    noted = health.baseline([("u", state)], "m", 1)
    assert state.then == []
    remember(state)
    assert (noted.users["u"].amounts, noted.users["u"].interests) == (state.then, state.then_interests)


def test_a_baseline_that_cannot_be_read_is_none() -> None:
    assert health.decode_baseline(b"\x00nothing") is None


# --- engagement -------------------------------------------------------------------------------------------------------


def test_engagement_is_of_sessions_and_the_largest_segment_is_first() -> None:
    some = [
        UserState(segment="a", visits=4, clicked=1, converted=0),
        UserState(segment="b", visits=1, clicked=1, converted=1),
        UserState(segment="b", visits=3, clicked=1, converted=0),
        UserState(segment="", visits=0),
    ]
    first, second = health.engagement(some)
    assert (first.segment, first.users, first.sessions, first.click_through, first.conversion) == ("b", 2, 4, 0.5, 0.25)
    assert (second.segment, second.click_through) == ("a", 0.25)


def test_before_and_after_are_of_users_who_changed_and_the_session_that_did_it_is_after() -> None:
    """The third session brought the change, when two had been and one of them had a click."""
    user = UserState(segment="b", visits=5, clicked=3, converted=1, before=[2, 1, 0])
    first = UserState(segment="b", visits=2, clicked=2, converted=0, before=[0, 0, 0])  # its very first segment
    (found,) = health.shifts([user, first, UserState(segment="b", visits=2)])
    assert (found.users, found.sessions_before, found.sessions_after) == (1, 2, 3)
    assert (found.click_through_before, found.click_through_after) == (0.5, pytest.approx(2 / 3))
    assert (found.conversion_before, found.conversion_after) == (0, pytest.approx(1 / 3))


def test_shares_stay_shares_whatever_came_in_one_step() -> None:
    for shift in health.shifts(list(states().values())):
        for name in ("click_through_before", "click_through_after", "conversion_before", "conversion_after"):
            assert 0 <= getattr(shift, name) <= 1


def test_the_mix_is_that_of_the_model_for_its_own_users() -> None:
    found = record()
    assert sum(found.mix.values()) == pytest.approx(1)
    assert found.mix == pytest.approx(found.mix_then)
    assert found.mix_shift == pytest.approx(0)
    assert found.silhouette is not None
    assert -1 <= found.silhouette <= 1


# --- the record -------------------------------------------------------------------------------------------------------


def test_without_anybody_there_is_a_record_all_the_same() -> None:
    found = record(known={})
    assert (found.users, found.psi, found.mix, found.silhouette, found.mix_shift) == (0, {}, {}, None, 0)
    assert (found.lag, found.p99_ms, found.events_per_second, found.dead_share) == (None, None, None, None)
    assert health.needs_retraining(found, DriftSettings(min_users=1)) == []


def test_rates_are_since_the_record_before() -> None:
    before = record(totals={"events": 1_000, "dead": 500, "segmented": 10})
    after = record(
        totals={"events": 1_900, "dead": 510, "duplicates": 90, "segmented": 55}, previous=before, at=AT + 100_000
    )
    assert after.events_per_second == pytest.approx(10)
    assert after.dead_share == pytest.approx(0.01)
    assert after.segmented_share == pytest.approx(0.05)
    assert [hour.at for hour in after.hours] == [AT, AT + 100_000]


def test_a_store_that_began_anew_is_not_compared_with_the_one_before() -> None:
    before = record(totals={"events": 1_000, "dead": 500})
    after = record(totals={"events": 90, "dead": 10}, previous=before, at=AT + 1_000, workers={"a": pace(5.0)})
    assert after.dead_share == pytest.approx(0.1)
    assert after.events_per_second == 5.0


def pace(rate: float, lag: int = 0, p99: float | None = None) -> dict[str, object]:
    said = {"events_per_second": rate, "lag": lag, "p50_ms": p99, "p95_ms": p99, "p99_ms": p99, "model": "m"}
    return dict(said)


def test_workers_are_taken_together_and_the_slowest_counts() -> None:
    found = record(
        workers={"a": pace(10, 5, 20.0), "b": {**pace(20, 7, 90.0), "held": "the broker is away"}, "c": pace(0.0)}
    )
    assert (found.events_per_second, found.lag, found.p99_ms) == (30, 12, 90)
    assert found.workers == {"a": "m", "b": "m", "c": "m"}
    assert found.held == {"b": "the broker is away"}


def test_only_a_week_of_hours_is_told() -> None:
    found = None
    for number in range(health.KEPT_HOURS + 3):
        found = record(known={}, previous=found, at=AT + number)
    assert found is not None
    assert [found.hours[0].at, len(found.hours)] == [AT + 3, health.KEPT_HOURS]


def test_a_record_survives_being_written_down() -> None:
    found = record(totals={"events": 3}, workers={"a": pace(1, 2, 3.0)}, changed=Changed(4, 1))
    assert health.decode_health(health.encode_health(found)) == found
    assert health.decode_health(b'{"at": 1}') is None


# --- bounds -----------------------------------------------------------------------------------------------------------


def test_retraining_is_due_for_drift_and_for_users_who_moved_each_with_its_reason() -> None:
    calm = record(changed=Changed(400, 100))
    assert health.needs_retraining(calm, DriftSettings(min_users=10)) == []
    drifted = replace(calm, psi={"views": 0.9, "sessions": 0.3, "clicks": 0.1})
    (reason,) = health.needs_retraining(drifted, DriftSettings(min_users=10))
    assert "views 0.90, sessions 0.30" in reason
    assert "clicks" not in reason
    moved = replace(drifted, changed_share=0.75)
    assert [reason.split()[0] for reason in health.needs_retraining(moved, DriftSettings(min_users=10))] == [
        "users",
        "75.0%",
    ]
    assert health.needs_retraining(moved, DriftSettings(min_users=100_000)) == []


def test_the_checks_compare_with_their_bounds_and_say_by_how_much() -> None:
    bounds = LiveHealthBounds(max_lag=10, max_dead_share=0.1, max_p99_seconds=0.5)
    good = record(totals={"events": 100, "dead": 5}, workers={"a": pace(1, 10, 500.0)})
    for check in (health.live_lag, health.live_dead_letters, health.live_latency):
        assert check(good, bounds).passed
    bad = record(totals={"events": 80, "dead": 20}, workers={"a": pace(1, 11, 501.0)})
    assert "11 events wait" in health.live_lag(bad, bounds).message
    assert "20.0%" in health.live_dead_letters(bad, bounds).message
    assert "0.50 s" in health.live_latency(bad, bounds).message
    assert not health.live_drift(replace(bad, psi={"views": 9.0}), DriftSettings(min_users=1)).passed


def test_a_stream_that_nobody_reads_and_a_worker_that_waits_fail_the_check_of_lag() -> None:
    bounds = LiveHealthBounds()
    assert "no worker" in health.live_lag(record(), bounds).message
    held = record(workers={"a": {**pace(0), "held": "dead letters: away"}})
    assert health.live_lag(held, bounds).message == "a waits: dead letters: away"


# --- pictures ---------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("error::UserWarning")
def test_every_picture_is_drawn_of_much_of_one_moment_and_of_nothing() -> None:
    one = record(totals={"events": 100}, workers={"a": pace(5, 3, 20.0)})
    many = one
    for number in range(1, 20):
        many = record(known={}, previous=many, at=AT + number * HOUR)
    nothing = replace(record(known={}), hours=[], mix_then={})
    odd = replace(one, mix={"$x^$": 0.5, "日本": 0.5}, psi={"a$b$": 0.3, **one.psi})
    for found in (one, many, nothing, odd):
        for drawn in (
            plots.pace(found.hours),
            plots.mix_over_time(found.hours, found.mix_then),
            plots.drift_bars(found, 0.25),
            plots.engagement_bars(found),
        ):
            assert drawn.startswith(PNG)
