"""The numbers behind the checks of the user side, each bound from both sides, and the gate before the profiles."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segmentation_assets.core.labels import ASSIGNMENT_SCHEMA, ClusterLabel, LabeledSegments
from segmentation_assets.core.quality import PublishRefusedError, require_publishable
from segmentation_assets.core.sessions import Intake
from segmentation_assets.core.settings import BehaviourStabilityBounds, CheckSettings, NoiseBounds
from segmentation_assets.core.users.behaviour import BehaviourModel, Stability
from segmentation_assets.core.users.cleaning import EVENT_SCHEMA, CleaningAccount, CleanSessions
from segmentation_assets.core.users.preprocessing import Preprocessing
from segmentation_assets.core.users.quality import (
    behaviour_stability,
    cleaning_accounted,
    noise_share,
    profile_gate,
    profiles_complete,
    users_agree,
)

ACCOUNT = CleaningAccount(sessions_read=100, sessions_used=100)


def cleaned(users: int = 100, marked: int = 0, account: CleaningAccount = ACCOUNT) -> CleanSessions:
    """So many users, the first of them marked as noise."""
    reasons = [["bot_rate"] if number < marked else [] for number in range(users)]
    people = {"user_id": pa.array(names(users)), "noise": pa.array(reasons, pa.list_(pa.string()))}
    noise = {"bot_rate": marked} if marked else {}
    return CleanSessions(pa.table({}), EVENT_SCHEMA.empty_table(), pa.table(people), replace(account, noise=noise))


def names(users: int) -> list[str]:
    return [f"u{number:03}" for number in range(users)]


def modelled(
    users: int = 100, k: int = 2, noise: int = 0, silhouette: float | None = 0.5, agreement: float | None = 0.9
) -> BehaviourModel:
    """A model of so many users, so many of them in no cluster."""
    labels = np.array([-1 if number < noise else number % k for number in range(users)], np.int32)
    ids = np.arange(k, dtype=np.int32)
    return BehaviourModel(
        version="b1",
        method="hdbscan",
        preprocessing=Preprocessing([], [], {}),
        points=np.zeros((k, 1)),
        point_clusters=ids,
        reach=np.zeros(k),
        cluster_ids=ids,
        next_id=k,
        users=pa.array(names(users), pa.string()),
        labels=labels,
        confidence=np.zeros(users, np.float32),
        sizes=[int((labels == cluster).sum()) for cluster in ids],
        noise=noise,
        fitted_on=users,
        stability=Stability(silhouette, [] if agreement is None else [agreement], agreement),
        details={},
    )


def labelled(set_aside: int = 0) -> LabeledSegments:
    """A hundred sessions in two clusters of the same size, and so many documents that were no sessions."""
    table = pa.table(
        {
            "session_id": [f"s{number}" for number in range(100)],
            "user_id": names(100),
            "search_query": ["q"] * 100,
            "timestamp": [datetime(2026, 1, 1, tzinfo=UTC)] * 100,
            "cluster": [number % 2 for number in range(100)],
            "segment": ["tech"] * 100,
            "confidence": [1.0] * 100,
        },
        schema=ASSIGNMENT_SCHEMA,
    )
    clusters = [ClusterLabel(number, "tech", 50, 50, 1.0, {}, None, 0.0, {}, []) for number in (0, 1)]
    aside = {"no_user": set_aside} if set_aside else {}
    return LabeledSegments(table, clusters, "v", 0, Intake(100 + set_aside, 100, aside))


# --- cleaning_accounted


@given(
    st.integers(0, 99),
    st.dictionaries(st.sampled_from(["duplicate_session"]), st.integers(1, 9)),
    st.integers(0, 99),
    st.dictionaries(st.sampled_from(["duplicate_event", "of_duplicate_session"]), st.integers(1, 9)),
    st.sampled_from(["sessions_read", "events_read"]),
    st.sampled_from([-2, 2]),
)
def test_what_is_used_and_set_aside_accounts_for_the_sessions_and_for_the_events(
    sessions: int, sessions_aside: dict[str, int], events: int, events_aside: dict[str, int], lost: str, by: int
) -> None:
    account = CleaningAccount(
        sessions_read=sessions + sum(sessions_aside.values()),
        sessions_used=sessions,
        sessions_set_aside=sessions_aside,
        events_read=events + sum(events_aside.values()),
        events_used=events,
        events_set_aside=events_aside,
    )
    outcome = cleaning_accounted(account)
    assert (outcome.passed, outcome.severity, outcome.message) == (True, "ERROR", "")
    assert outcome.values["sessions_set_aside"] == sum(sessions_aside.values())
    outcome = cleaning_accounted(replace(account, **{lost: getattr(account, lost) + by}))
    assert not outcome.passed
    assert f" {lost.removesuffix('_read')} came in, " in outcome.message
    assert outcome.message.endswith("set aside: 2 unaccounted")
    assert outcome.message.count("unaccounted") == 1


def test_the_reasons_are_beside_the_sums_of_the_cleaning() -> None:
    account = CleaningAccount(10, 8, {"duplicate_session": 2}, 5, 4, {"duplicate_event": 1})
    assert cleaning_accounted(account).values == {
        "sessions_read": 10,
        "sessions_used": 8,
        "sessions_set_aside": 2,
        "sessions_duplicate_session": 2,
        "events_read": 5,
        "events_used": 4,
        "events_set_aside": 1,
        "events_duplicate_event": 1,
    }


# --- noise_share


@pytest.mark.parametrize(("marked", "passed"), [(0, True), (20, True), (21, False), (100, False)])
def test_at_most_the_bound_of_the_users_may_be_noise(marked: int, passed: bool) -> None:
    outcome = noise_share(cleaned(marked=marked), NoiseBounds())
    assert (outcome.passed, outcome.severity) == (passed, "WARN")
    assert (outcome.values["marked"], outcome.values["share"]) == (marked, marked / 100)
    assert outcome.values["max_share"] == 0.2


def test_a_user_marked_for_two_reasons_is_one_user_and_both_reasons_are_said() -> None:
    people = pa.table(
        {
            "user_id": ["a", "b"],
            "noise": pa.array([["bot_rate", "internal_user"], ["internal_user"]], pa.list_(pa.string())),
        }
    )
    account = replace(ACCOUNT, noise={"bot_rate": 1, "internal_user": 2})
    clean = CleanSessions(pa.table({}), EVENT_SCHEMA.empty_table(), people, account)
    outcome = noise_share(clean, NoiseBounds(max_share=0.5, severity="ERROR"))
    assert outcome.message == "100.0% of the users are marked as noise, over 50.0% (internal_user 2, bot_rate 1)"
    assert (outcome.values["marked"], outcome.severity) == (2, "ERROR")


def test_no_users_are_no_noise() -> None:
    assert noise_share(cleaned(0), NoiseBounds(max_share=0)).passed


# --- behaviour_stability


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ({"agreement": 0.5, "silhouette": 0.05, "noise": 50}, ""),
        ({"agreement": 0.494}, "clusterings of other samples agree by 0.49 (adjusted Rand index), under 0.50"),
        ({"agreement": -0.2}, "clusterings of other samples agree by -0.20 (adjusted Rand index), under 0.50"),
        ({"silhouette": 0.04}, "the silhouette is 0.04, under 0.05"),
        ({"noise": 51}, "51.0% of the users are in no cluster, over 50.0%"),
        ({"agreement": None}, ""),  # nobody measured it (behaviour.bootstraps: 0)
        ({"k": 1, "silhouette": None, "agreement": None}, "there is 1 cluster, so nothing to tell apart"),
        ({"silhouette": None}, "there are 2 clusters, so nothing to tell apart"),
        (
            {"users": 0, "k": 1, "silhouette": None, "agreement": None},
            "there is 1 cluster, so nothing to tell apart; 100.0% of the users are in no cluster, over 50.0%",
        ),
    ],
)
def test_the_stability_of_clusters_is_compared_with_each_bound(model: dict[str, Any], said: str) -> None:
    outcome = behaviour_stability(modelled(**model), BehaviourStabilityBounds())
    assert (outcome.passed, outcome.message, outcome.severity) == (not said, said, "WARN")


def test_the_numbers_of_the_stability_and_their_bounds_are_shown() -> None:
    bounds = BehaviourStabilityBounds(
        min_agreement=0.91, min_silhouette=0.6, max_unclustered_share=0.05, severity="ERROR"
    )
    outcome = behaviour_stability(modelled(noise=10), bounds)
    assert outcome.severity == "ERROR"
    assert outcome.message.count(";") == 2
    assert outcome.values == {
        "clusters": 2,
        "agreement": 0.9,
        "min_agreement": 0.91,
        "silhouette": 0.5,
        "min_silhouette": 0.6,
        "unclustered_share": 0.1,
        "max_unclustered_share": 0.05,
    }
    unknown = behaviour_stability(modelled(silhouette=None, agreement=None), bounds).values
    assert (unknown["agreement"], unknown["silhouette"]) == ("not measured", "not defined")


def test_a_model_without_any_cluster_is_said_to_have_none() -> None:
    none = replace(
        modelled(noise=100, silhouette=None, agreement=None),
        cluster_ids=np.zeros(0, np.int32),
        sizes=[],
    )
    outcome = behaviour_stability(none, BehaviourStabilityBounds())
    assert outcome.message == (
        "there are no clusters, so nothing to tell apart; 100.0% of the users are in no cluster, over 50.0%"
    )


# --- users_agree, profiles_complete


def test_the_users_of_the_sessions_and_those_labelled_and_assigned_have_to_be_the_same() -> None:
    assert users_agree(cleaned(), modelled(), labelled()).passed
    fewer = users_agree(cleaned(101), modelled(), labelled())
    assert (fewer.passed, fewer.severity) == (False, "ERROR")
    assert fewer.values == {"users": 101, "labelled segments": 100, "behaviour clusters": 100}
    assert "the sessions have 101 users, and the behaviour clusters 100" in fewer.message
    assert "the sessions have 101 users, and the labelled segments 100" in fewer.message
    others = replace(modelled(), users=pa.array(["somebody else", *names(100)[1:]], pa.string()))
    found = users_agree(cleaned(), others, labelled())  # as many, and not the same
    assert "behaviour clusters" in found.message
    assert "labelled" not in found.message


@given(st.integers(0, 9), st.integers(0, 9))
def test_readers_have_to_see_as_many_profiles_as_there_are_users(users: int, published: int) -> None:
    outcome = profiles_complete(users, published)
    assert (outcome.passed, outcome.severity) == (users == published, "ERROR")
    assert outcome.values == {"users": users, "published": published}
    if users != published:
        assert outcome.message == f"{users} users have a profile, but readers see {published}"


# --- the gate

STRICT = CheckSettings.model_validate(
    {"noise_share": {"severity": "ERROR"}, "behaviour_stability": {"severity": "ERROR"}}
)


def test_the_gate_holds_the_checks_of_users_and_those_of_the_segments_beside_them() -> None:
    outcomes = profile_gate(cleaned(), modelled(), labelled(), CheckSettings())
    assert [outcome.name for outcome in outcomes] == [
        *("cleaning_accounted", "users_agree", "noise_share", "behaviour_stability"),
        *("sessions_accounted", "session_validity", "cluster_balance", "label_coverage", "user_churn"),
    ]
    assert all(outcome.passed for outcome in outcomes)
    require_publishable(outcomes)


@pytest.mark.parametrize(
    ("clean", "model", "labeled", "name"),
    [
        (cleaned(account=CleaningAccount(100, 99)), modelled(), labelled(), "cleaning_accounted"),
        (cleaned(99), modelled(), labelled(), "users_agree"),
        (cleaned(marked=21), modelled(), labelled(), "noise_share"),
        (cleaned(), modelled(agreement=0.4), labelled(), "behaviour_stability"),
        (cleaned(), modelled(), labelled(set_aside=100), "session_validity"),
    ],
)
def test_the_gate_refuses_by_each_check_of_severity_error_alone(
    clean: CleanSessions, model: BehaviourModel, labeled: LabeledSegments, name: str
) -> None:
    outcomes = profile_gate(clean, model, labeled, STRICT)
    assert [outcome.name for outcome in outcomes if not outcome.passed] == [name]
    with pytest.raises(PublishRefusedError, match=f"Not published: {name}: "):
        require_publishable(outcomes)


def test_what_only_warns_lets_profiles_through() -> None:
    outcomes = profile_gate(cleaned(marked=90), modelled(agreement=0.1, noise=90), labelled(), CheckSettings())
    assert [outcome.name for outcome in outcomes if not outcome.passed] == ["noise_share", "behaviour_stability"]
    require_publishable(outcomes)
