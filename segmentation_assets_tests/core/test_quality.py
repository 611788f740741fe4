"""The numbers behind the checks, each bound from both sides, and the guard that refuses by the same numbers."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segmentation_assets.core.churn import Churn, Flow
from segmentation_assets.core.labels import ASSIGNMENT_SCHEMA, OTHER, ClusterLabel, LabeledSegments
from segmentation_assets.core.quality import (
    CheckOutcome,
    PublishRefusedError,
    cluster_balance,
    label_coverage,
    publish_gate,
    published_complete,
    require_publishable,
    session_validity,
    sessions_accounted,
    user_churn,
)
from segmentation_assets.core.sessions import Intake
from segmentation_assets.core.settings import (
    CheckSettings,
    ClusterBalanceBounds,
    LabelCoverageBounds,
    SessionValidityBounds,
    UserChurnBounds,
)

NOW = datetime(2025, 6, 1, tzinfo=UTC)


def labeled(segments: list[tuple[str, str]], sizes: list[int] | None = None, **account: Any) -> LabeledSegments:
    """Sessions of (user, segment), and clusters of the given sizes."""
    table = pa.table(
        {
            "session_id": [f"s{n}" for n in range(len(segments))],
            "user_id": [user for user, _ in segments],
            "search_query": ["q"] * len(segments),
            "timestamp": [NOW] * len(segments),
            "cluster": [0] * len(segments),
            "segment": [segment for _, segment in segments],
            "confidence": [1.0] * len(segments),
        },
        schema=ASSIGNMENT_SCHEMA,
    )
    entries = [
        ClusterLabel(n, "tech", size, 1, 1.0, {}, None, 0.0, {}, [])
        for n, size in enumerate(sizes if sizes is not None else [len(segments)])
    ]
    intake = account.get("intake", Intake(len(segments), len(segments)))
    return LabeledSegments(table, entries, "v", account.get("unclustered", 0), intake)


# --- sessions_accounted


@given(st.integers(0, 99), st.dictionaries(st.sampled_from(["no_user", "bad_id"]), st.integers(1, 9)))
def test_what_was_kept_and_set_aside_accounts_for_what_was_read(kept: int, aside: dict[str, int]) -> None:
    read = kept + sum(aside.values())
    assert sessions_accounted(Intake(read, kept, aside)).passed
    for lost in (-1, 1):
        outcome = sessions_accounted(Intake(read + lost, kept, aside))
        assert (outcome.passed, outcome.severity) == (False, "ERROR")
        assert "1 unaccounted" in outcome.message


# --- session_validity


@pytest.mark.parametrize(("aside", "passed"), [(0, True), (25, True), (26, False), (100, False)])
def test_at_most_the_bound_may_be_set_aside(aside: int, passed: bool) -> None:
    outcome = session_validity(Intake(100, 100 - aside, {"no_user": aside}), SessionValidityBounds())
    assert outcome.passed is passed
    assert outcome.values["set_aside_share"] == aside / 100
    assert outcome.values["max_set_aside_share"] == 0.25


def test_the_reasons_are_shown_the_most_frequent_first() -> None:
    outcome = session_validity(Intake(10, 2, {"bad_id": 3, "no_user": 5}), SessionValidityBounds())
    assert "80.0% of the documents were set aside, over 25.0% (no_user 5, bad_id 3)" in outcome.message
    assert outcome.values["set_aside_bad_id"] == 3
    assert outcome.values["set_aside_no_user"] == 5


@pytest.mark.parametrize("intake", [Intake(0, 0), Intake(3, 0, {"no_user": 3})])
def test_no_usable_session_never_passes(intake: Intake) -> None:
    outcome = session_validity(intake, SessionValidityBounds(max_set_aside_share=1))
    assert not outcome.passed
    assert "no usable session" in outcome.message


# --- cluster_balance


@pytest.mark.parametrize(
    ("sizes", "unclustered", "says"),
    [
        ([60, 39, 1], 0, None),
        ([60, 39, 1], 25, None),
        ([61, 38, 1], 0, "largest cluster holds 61.0% of the clustered sessions, over 60.0%"),
        ([600, 391, 9], 0, "smallest cluster holds 0.90% of the clustered sessions, under 1.00%"),
        ([60, 40, 0], 0, "smallest cluster holds 0.00%"),
        ([60, 39, 1], 26, "20.6% of the sessions are in no cluster, over 20.0%"),
    ],
)
def test_each_bound_of_the_balance_holds_up_to_its_value(sizes: list[int], unclustered: int, says: str | None) -> None:
    outcome = cluster_balance(sizes, unclustered, ClusterBalanceBounds())
    assert outcome.passed is (says is None)
    assert (says or "") in outcome.message
    assert (outcome.message == "") is outcome.passed


def test_all_that_is_wrong_with_the_balance_is_said_at_once() -> None:
    message = cluster_balance([99, 0], 901, ClusterBalanceBounds()).message
    assert message.count(";") == 2
    assert all(word in message for word in ("largest", "smallest", "no cluster"))


@pytest.mark.parametrize(("sizes", "unclustered"), [([], 0), ([0, 0], 5), ([], 5)])
def test_nothing_clustered_is_not_balanced(sizes: list[int], unclustered: int) -> None:
    assert not cluster_balance(sizes, unclustered, ClusterBalanceBounds()).passed


def test_the_numbers_of_the_balance_are_shown_with_their_bounds() -> None:
    values = cluster_balance([3, 1], 1, ClusterBalanceBounds()).values
    assert values == {
        "clusters": 2, "largest_share": 0.75, "max_share": 0.6, "smallest_share": 0.25, "min_share": 0.01,
        "unclustered_share": 0.2, "max_unclustered_share": 0.2,
    }  # fmt: skip


# --- label_coverage


@pytest.mark.parametrize(("named", "passed"), [(30, True), (29, False)])
def test_enough_sessions_must_be_named(named: int, passed: bool) -> None:
    segments = [("u", "tech")] * named + [("u", OTHER)] * (100 - named)
    outcome = label_coverage(labeled(segments), LabelCoverageBounds(min_user_share=0))
    assert outcome.passed is passed
    assert outcome.values["session_share"] == named / 100
    assert ("of the sessions" in outcome.message) is not passed


@pytest.mark.parametrize(("named", "passed"), [(3, True), (2, False)])
def test_enough_users_must_be_named(named: int, passed: bool) -> None:
    """One busy user in a named segment must not make up for many who are not."""
    segments = [(f"u{n}", "tech" if n < named else OTHER) for n in range(10)] + [("u0", "tech")] * 90
    outcome = label_coverage(labeled(segments), LabelCoverageBounds())
    assert outcome.passed is passed
    assert outcome.values["user_share"] == named / 10
    assert ("of the users" in outcome.message) is not passed


def test_nothing_labelled_covers_nothing() -> None:
    outcome = label_coverage(labeled([]), LabelCoverageBounds())
    assert not outcome.passed
    assert (outcome.values["session_share"], outcome.values["user_share"]) == (0, 0)


# --- published_complete


@pytest.mark.parametrize(("published", "passed"), [(10, True), (9, False), (11, False), (0, False)])
def test_what_is_published_is_all_that_was_labelled(published: int, passed: bool) -> None:
    outcome = published_complete(10, published)
    assert (outcome.passed, outcome.severity) == (passed, "ERROR")
    assert outcome.values == {"labelled": 10, "published": published}


# --- the guard


def test_the_guard_looks_at_every_check_that_stands_before_publishing() -> None:
    outcomes = publish_gate(labeled([("a", "tech"), ("b", "tech")], [1, 1]), CheckSettings())
    assert [outcome.name for outcome in outcomes] == [
        "sessions_accounted", "session_validity", "cluster_balance", "label_coverage", "user_churn",
    ]  # fmt: skip


def test_the_guard_lets_good_data_through() -> None:
    outcomes = publish_gate(labeled([("a", "tech"), ("b", "tech")], [1, 1]), CheckSettings())
    assert all(outcome.passed for outcome in outcomes)
    require_publishable(outcomes)


@pytest.mark.parametrize(
    ("bad", "name"),
    [
        (labeled([("a", "tech")] * 2, [1, 1], intake=Intake(5, 2, {"no_user": 1})), "sessions_accounted"),
        (labeled([("a", "tech")] * 2, [1, 1], intake=Intake(5, 2, {"no_user": 3})), "session_validity"),
        (labeled([("a", "tech")] * 10, [9, 1]), "cluster_balance"),
        (labeled([("a", "tech")] * 10, [5, 5], unclustered=9), "cluster_balance"),
        (labeled([("a", "tech")] * 10, [5, 5, 0]), "cluster_balance"),
    ],
)
def test_the_guard_refuses_by_the_numbers_of_the_data_itself(bad: LabeledSegments, name: str) -> None:
    outcomes = publish_gate(bad, CheckSettings())
    assert [outcome.name for outcome in outcomes if not outcome.passed] == [name]
    with pytest.raises(PublishRefusedError, match=f"Not published: {name}: "):
        require_publishable(outcomes)


def test_the_guard_lets_a_warning_pass_and_refuses_the_same_number_as_an_error() -> None:
    uncovered = labeled([("a", OTHER), ("b", OTHER)], [1, 1])
    outcomes = publish_gate(uncovered, CheckSettings())
    assert [(o.name, o.severity) for o in outcomes if not o.passed] == [("label_coverage", "WARN")]
    require_publishable(outcomes)
    strict = CheckSettings(label_coverage=LabelCoverageBounds(severity="ERROR"))
    with pytest.raises(PublishRefusedError, match=r"label_coverage: 0\.0% of the sessions are in a named segment"):
        require_publishable(publish_gate(uncovered, strict))


@given(st.lists(st.tuples(st.booleans(), st.sampled_from(["ERROR", "WARN"])), max_size=6))
def test_only_a_failed_error_refuses_and_each_one_is_named(verdicts: list[tuple[bool, Any]]) -> None:
    outcomes = [
        CheckOutcome(f"check{n}", passed, severity, {}, f"why{n}") for n, (passed, severity) in enumerate(verdicts)
    ]
    bad = [o for o in outcomes if not o.passed and o.severity == "ERROR"]
    if not bad:
        require_publishable(outcomes)
        return
    with pytest.raises(PublishRefusedError) as raised:
        require_publishable(outcomes)
    for outcome in outcomes:
        assert (f"{outcome.name}: {outcome.message}" in str(raised.value)) is (outcome in bad)


# --- user_churn


def churn(by_behaviour: int, by_model: int, *asked: str) -> Churn:
    """Of a hundred users."""
    flows = [Flow("a", "a", 100 - by_behaviour - by_model)]
    flows.append(Flow("a", "b", by_behaviour + by_model, by_behaviour, by_model))
    return Churn("v0", 100, 3, 4, flows, {}, list(asked))


@pytest.mark.parametrize(("moved", "passed"), [(0, True), (20, True), (21, False), (100, False)])
def test_the_model_may_move_at_most_the_bound(moved: int, passed: bool) -> None:
    outcome = user_churn(churn(0, moved), UserChurnBounds())
    assert (outcome.passed, outcome.severity) == (passed, "ERROR")
    assert (outcome.values["model_share"], outcome.values["max_model_share"]) == (moved / 100, 0.2)
    assert (outcome.values["users_in_both"], outcome.values["users_came"], outcome.values["users_left"]) == (100, 3, 4)
    assert passed or "checks.user_churn.max_model_share to 1" in outcome.message


def test_what_users_do_themselves_is_shown_and_never_stops() -> None:
    outcome = user_churn(churn(90, 5), UserChurnBounds())
    assert outcome.passed
    assert (outcome.values["changed_share"], outcome.values["behaviour_share"]) == (0.95, 0.9)


def test_what_somebody_asked_for_has_a_bound_of_its_own() -> None:
    assert user_churn(churn(0, 100, "clusters.k"), UserChurnBounds()).passed
    outcome = user_churn(churn(0, 60, "clusters.k", "taxonomy"), UserChurnBounds(max_asked_share=0.5))
    assert not outcome.passed
    assert outcome.values["settings_changed"] == "clusters.k, taxonomy"
    assert "checks.user_churn.max_asked_share to 1" in outcome.message


@pytest.mark.parametrize("nothing", [None, Churn(None, came=5)])
def test_a_first_result_moves_nobody(nothing: Churn | None) -> None:
    outcome = user_churn(nothing, UserChurnBounds(max_model_share=0, severity="WARN"))
    assert (outcome.passed, outcome.severity) == (True, "WARN")
    assert "nothing" in str(outcome.values["compared_with"])


def test_the_gate_refuses_by_user_churn() -> None:
    found = replace(labeled([("u", "tech")] * 4, [2, 2]), churn=churn(0, 50))
    (failed,) = (outcome for outcome in publish_gate(found, CheckSettings()) if not outcome.passed)
    assert failed.name == "user_churn"
    with pytest.raises(PublishRefusedError, match="user_churn"):
        require_publishable([failed])
    open_gate = CheckSettings(user_churn=UserChurnBounds(max_model_share=1))
    assert all(outcome.passed for outcome in publish_gate(found, open_gate))
