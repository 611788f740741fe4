"""The numbers that say whether a segmentation may be served, and their comparison with the bounds.

What belongs here: one function a check, from data to a ``CheckOutcome``. The asset checks show these outcomes, and the
publish guard refuses by the very same ones. What does not: Dagster, and any choice of a bound (settings).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow.compute as pc

from segmentation_assets.core.churn import Churn
from segmentation_assets.core.labels import OTHER, LabeledSegments
from segmentation_assets.core.sessions import Intake
from segmentation_assets.core.settings import (
    CheckSettings,
    ClusterBalanceBounds,
    LabelCoverageBounds,
    SessionValidityBounds,
    Severity,
    UserChurnBounds,
)
from segmentation_assets.errors import SegmentsError


@dataclass(frozen=True)
class CheckOutcome:
    """A check's verdict with all it rests on.

    Attributes:
        name: of the check.
        passed: whether every number is within its bound.
        severity: what a failure means: ERROR stops, WARN is shown.
        values: the numbers, and the bounds they were compared with.
        message: what failed and by how much; empty when it passed.
    """

    name: str
    passed: bool
    severity: Severity
    values: dict[str, float | int | str]
    message: str = ""


class PublishRefusedError(SegmentsError):
    """A blocking check does not hold, so nothing was published."""


def sessions_accounted(intake: Intake) -> CheckOutcome:
    """Nothing is lost on the way in: read = kept + set aside."""
    missing = intake.read - intake.kept - intake.set_aside_total
    return judged(
        "sessions_accounted",
        "ERROR",
        {"read": intake.read, "kept": intake.kept, "set_aside": intake.set_aside_total},
        [
            f"read {intake.read} documents but kept {intake.kept} and set {intake.set_aside_total} aside: "
            f"{abs(missing)} unaccounted"
        ]
        if missing
        else [],
    )


def session_validity(intake: Intake, bounds: SessionValidityBounds) -> CheckOutcome:
    """Most documents are usable sessions."""
    share = intake.set_aside_total / intake.read if intake.read else 0.0
    problems = []
    if intake.kept == 0:
        problems.append("no usable session")
    if share > bounds.max_set_aside_share:
        reasons = ", ".join(
            f"{reason} {n}" for reason, n in sorted(intake.set_aside.items(), key=lambda item: -item[1])
        )
        problems.append(
            f"{share:.1%} of the documents were set aside, over {bounds.max_set_aside_share:.1%} ({reasons})"
        )
    return judged(
        "session_validity",
        bounds.severity,
        {
            "set_aside_share": round(share, 6),
            "max_set_aside_share": bounds.max_set_aside_share,
            **{f"set_aside_{reason}": n for reason, n in sorted(intake.set_aside.items())},
        },
        problems,
    )


def cluster_balance(sizes: Sequence[int], unclustered: int, bounds: ClusterBalanceBounds) -> CheckOutcome:
    """No cluster swallows the rest, none is a crumb, and most sessions are in one.

    Args:
        sizes: sessions in each cluster, empty ones included.
        unclustered: sessions in no cluster.
        bounds: see ``ClusterBalanceBounds``.
    """
    clustered = sum(sizes)
    largest = max(sizes, default=0) / clustered if clustered else 0.0
    smallest = min(sizes, default=0) / clustered if clustered else 0.0
    outside = unclustered / (clustered + unclustered) if clustered + unclustered else 1.0
    problems = []
    if largest > bounds.max_share:
        problems.append(
            f"the largest cluster holds {largest:.1%} of the clustered sessions, over {bounds.max_share:.1%}"
        )
    if smallest < bounds.min_share:
        problems.append(
            f"the smallest cluster holds {smallest:.2%} of the clustered sessions, under {bounds.min_share:.2%}"
        )
    if outside > bounds.max_unclustered_share:
        problems.append(f"{outside:.1%} of the sessions are in no cluster, over {bounds.max_unclustered_share:.1%}")
    return judged(
        "cluster_balance",
        bounds.severity,
        {
            "clusters": len(sizes),
            "largest_share": round(largest, 6),
            "max_share": bounds.max_share,
            "smallest_share": round(smallest, 6),
            "min_share": bounds.min_share,
            "unclustered_share": round(outside, 6),
            "max_unclustered_share": bounds.max_unclustered_share,
        },
        problems,
    )


def label_coverage(labeled: LabeledSegments, bounds: LabelCoverageBounds) -> CheckOutcome:
    """Enough sessions and users are in a segment with a name."""
    sessions = labeled.table.num_rows
    named = pc.sum(pc.not_equal(labeled.table["segment"], OTHER)).as_py() or 0
    users = labeled.users
    named_users = pc.sum(pc.not_equal(users["segment"], OTHER)).as_py() or 0
    session_share = named / sessions if sessions else 0.0
    user_share = named_users / users.num_rows if users.num_rows else 0.0
    problems = []
    if session_share < bounds.min_session_share:
        problems.append(
            f"{session_share:.1%} of the sessions are in a named segment, under {bounds.min_session_share:.1%}"
        )
    if user_share < bounds.min_user_share:
        problems.append(f"{user_share:.1%} of the users are in a named segment, under {bounds.min_user_share:.1%}")
    return judged(
        "label_coverage",
        bounds.severity,
        {
            "session_share": round(session_share, 6),
            "min_session_share": bounds.min_session_share,
            "user_share": round(user_share, 6),
            "min_user_share": bounds.min_user_share,
        },
        problems,
    )


def user_churn(churn: Churn | None, bounds: UserChurnBounds) -> CheckOutcome:
    """Not too many users change segment because the model changed.

    What users did themselves (``Churn.behaviour_share``) is shown, not bounded: they may do what they like.

    Args:
        churn: against what readers are served; None where it was not measured, or for a first result, passes.
        bounds: ``max_asked_share`` holds where somebody changed the method, k, the vectors, the labels or the taxonomy
            since, else ``max_model_share``.
    """
    if churn is None or churn.first:
        return judged("user_churn", bounds.severity, {"compared_with": "nothing: none was published before"}, [])
    name = "max_asked_share" if churn.asked else "max_model_share"
    bound = bounds.max_asked_share if churn.asked else bounds.max_model_share
    share = churn.model_share
    return judged(
        "user_churn",
        bounds.severity,
        {
            "compared_with": f"model {churn.previous_version}",
            "users_in_both": churn.users,
            "users_came": churn.came,
            "users_left": churn.left,
            "changed_share": round(churn.changed_share, 6),
            "behaviour_share": round(churn.behaviour_share, 6),
            "model_share": round(share, 6),
            name: bound,
            **({"settings_changed": ", ".join(churn.asked)} if churn.asked else {}),
        },
        [
            f"{share:.1%} of the {churn.users} users served before change segment because the model changed, over "
            f"{bound:.1%}; see the flows on labeled_segments, and to publish all the same set "
            f"checks.user_churn.{name} to 1 and materialize es_user_segments"
        ]
        if share > bound
        else [],
    )


def published_complete(labelled: int, published: int) -> CheckOutcome:
    """What readers see is all that was labelled."""
    return judged(
        "published_complete",
        "ERROR",
        {"labelled": labelled, "published": published},
        [] if labelled == published else [f"{labelled} sessions were labelled and {published} documents are published"],
    )


def publish_gate(labeled: LabeledSegments, checks: CheckSettings) -> list[CheckOutcome]:
    """Every check that must hold before publishing, computed anew from the very data that is to be published."""
    sizes = [entry.sessions for entry in labeled.labels]
    return [
        sessions_accounted(labeled.intake),
        session_validity(labeled.intake, checks.session_validity),
        cluster_balance(sizes, labeled.unclustered, checks.cluster_balance),
        label_coverage(labeled, checks.label_coverage),
        user_churn(labeled.churn, checks.user_churn),
    ]


def require_publishable(outcomes: list[CheckOutcome]) -> None:
    """Let through what passed.

    Raises:
        PublishRefusedError: an outcome of severity ERROR failed; says which, and by how much.
    """
    failed = [outcome for outcome in outcomes if not outcome.passed and outcome.severity == "ERROR"]
    if failed:
        raise PublishRefusedError(
            "Not published: " + "; ".join(f"{outcome.name}: {outcome.message}" for outcome in failed) + ".",
            "Readers keep what was published before. Mend the data or the settings, and materialize again.",
        )


def judged(name: str, severity: Severity, values: dict[str, float | int | str], problems: list[str]) -> CheckOutcome:
    """An outcome that passes where there are no problems."""
    return CheckOutcome(name, not problems, severity, values, "; ".join(problems))
