"""How the stream is doing, in numbers: its pace, whether users are still those the model was made of, what they do.

What belongs here: the numbers, the record of them, their comparison with bounds. What does not: asking stores and
workers (defs.live), counting inside a worker (streaming.metrics), pictures (plots).

All of it is computed from a sample of the users' states, the totals of the store and what workers say of themselves;
nothing is asked of single events.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from segmentation_assets.core.live.change import has_changed, remember
from segmentation_assets.core.live.features import live_features
from segmentation_assets.core.live.model import LiveModel, Reference
from segmentation_assets.core.live.segmenter import Segmenter
from segmentation_assets.core.live.state import UserState
from segmentation_assets.core.quality import CheckOutcome, judged
from segmentation_assets.core.settings import DriftSettings, LiveHealthBounds

SAMPLE = 2_000
"""Users that a record is made of. By chance alone the index of an unchanged feature of 10 bins is then about 0.005."""

KEPT_HOURS = 168
"""Records that the next one still tells of: a week of hours."""

SMOOTHING = 0.5
"""Users that are added to every bin, now and then alike (Jeffreys' prior): an empty bin is rare, not impossible."""

_SECOND = 1000.0


# --- whether users are still the same -----------------------------------------------------------------------------


def psi(now: NDArray[np.float64], reference: Reference) -> float:
    """The population stability index of a feature: ``sum (p - q) ln(p / q)`` over bins, p now and q in the reference.

    Bins are those of the reference, and one for users of whom the feature is not defined. Half a user is added to each
    bin on both sides, of as many users as there are now, so that equal shares give exactly 0 and an empty bin no
    infinity. It is the Kullback-Leibler divergence in both directions, added up (Jeffreys 1946); as an index of
    populations, with 0.1 for some and 0.25 for much change, Lewis 1994, An Introduction to Credit Scoring. Those bounds
    are conventions: without any change, and with B bins and n users, it is about (B - 1) / n (Yurdakul and Naranjo
    2020, Statistical properties of the population stability index).

    Args:
        now: (n,) values, NaN where not defined; n = 0 gives 0.
        reference: of the same feature.
    """
    n = len(now)
    if not n:
        return 0.0
    known = now[~np.isnan(now)]
    bins = len(reference.shares)
    counts = np.bincount(np.searchsorted(np.array(reference.edges), known, side="left"), minlength=bins)
    then = np.append(np.array(reference.shares) * (1 - reference.undefined), reference.undefined) * n
    p = (np.append(counts, n - len(known)) + SMOOTHING) / (n + SMOOTHING * (bins + 1))
    q = (then + SMOOTHING) / (n + SMOOTHING * (bins + 1))
    return float(np.sum((p - q) * np.log(p / q)))


def drift(states: Sequence[UserState], users: Sequence[str], model: LiveModel) -> dict[str, float]:
    """Feature to its population stability index, the largest first.

    The window that recency and tenure count to ends with the latest event of any of them. Left out is what cannot be
    compared: features that a state does not tell, or that nobody has now.

    Args:
        states: (n,) of users with at least one event.
        users: (n,) their ids.
        model: whose reference they are compared with.
    """
    if not states or not model.reference:
        return {}
    table, _ = live_features(
        states, users, model.segments, max(state.latest for state in states), columns=list(model.reference)
    )
    found = {}
    for name, reference in model.reference.items():
        if name not in table.column_names:
            continue
        values = table[name].to_numpy(zero_copy_only=False).astype(np.float64)
        if not np.isnan(values).all():
            found[name] = psi(values, reference)
    return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))


class _Was(msgspec.Struct, array_like=True):
    """A user when the model came. Clusters of queries are only compared with those of the same model."""

    model: str
    amounts: list[int]
    interests: dict[int, int]
    categories: dict[str, int]


class Baseline(msgspec.Struct):
    """A sample of users as they were when the model came to be used.

    A state remembers the behaviour of its last segmentation, and is segmented anew as soon as it has moved; how far
    users are from what the last *run* knew of them can only be said from outside.

    Attributes:
        model: version of it.
        at: when, milliseconds.
        users: user to what was known.
    """

    model: str
    at: int
    users: dict[str, _Was]


@dataclass(frozen=True)
class Changed:
    """How many users have moved since the last run.

    Attributes:
        active: users of the baseline who are still known and did something since.
        changed: of these, those whose behaviour changed by more than the bound, by the rule of ``change``.
    """

    active: int
    changed: int

    @property
    def share(self) -> float | None:
        """Of the active ones; None where there is none."""
        return self.changed / self.active if self.active else None


def baseline(states: Sequence[tuple[str, UserState]], model: str, at: int) -> Baseline:
    """Note users as they are now.

    Args:
        states: user and state, of a sample.
        model: version that has just come to be used.
        at: now, milliseconds.
    """
    users = {}
    for user, state in states:
        noted = msgspec.structs.replace(state)
        remember(noted)
        users[user] = _Was(state.model, noted.then, noted.then_interests, noted.then_categories)
    return Baseline(model, at, users)


def encode_baseline(noted: Baseline) -> bytes:
    """The baseline as bytes."""
    return msgspec.msgpack.encode(noted)


def decode_baseline(data: bytes) -> Baseline | None:
    """What ``encode_baseline`` gave; None of anything else."""
    try:
        return msgspec.msgpack.decode(data, type=Baseline)
    except msgspec.MsgspecError:
        return None


def changed_since(noted: Baseline, states: Mapping[str, UserState], bound: float) -> Changed:
    """The users of a baseline who were active since, and those of them who have moved far.

    Args:
        noted: the baseline.
        states: user to state now, of those of its users who are still known.
        bound: of ``stream.change``.
    """
    active = changed = 0
    for user, was in noted.users.items():
        state = states.get(user)
        if state is None or state.events == 0 or _amounts(state) == was.amounts:
            continue
        active += 1
        interests = {cluster: found[0] for cluster, found in state.interests.items()}
        then = msgspec.structs.replace(
            state,
            then=was.amounts,
            then_interests=was.interests if was.model == state.model else interests,
            then_categories=was.categories,
        )
        changed += has_changed(then, bound)
    return Changed(active, changed)


def _amounts(state: UserState) -> list[int]:
    return [state.sessions, state.clicks, state.views, state.carts, state.orders, state.spend]


# --- what users do ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Engagement:
    """What the users of a segment do.

    Attributes:
        segment: its name.
        users: of the sample, in it now.
        sessions: of theirs.
        click_through: share of these with a click.
        conversion: share of these with a purchase.
    """

    segment: str
    users: int
    sessions: int
    click_through: float
    conversion: float


@dataclass(frozen=True)
class Shift:
    """What users did before and after they came into a segment from another one.

    The session that brought the change is the first one after it.

    Attributes:
        segment: that they came into.
        users: with sessions on both sides.
        sessions_before: of theirs.
        sessions_after: likewise.
        click_through_before: share of the sessions before with a click.
        click_through_after: likewise.
        conversion_before: share of the sessions before with a purchase.
        conversion_after: likewise.
    """

    segment: str
    users: int
    sessions_before: int
    sessions_after: int
    click_through_before: float
    click_through_after: float
    conversion_before: float
    conversion_after: float


def engagement(states: Sequence[UserState]) -> list[Engagement]:
    """What users do, by the segment that they are in, those with the most users first."""
    sums: dict[str, list[int]] = {}
    for state in states:
        if state.segment and state.visits:
            found = sums.setdefault(state.segment, [0, 0, 0, 0])
            for place, number in enumerate((1, state.visits, state.clicked, state.converted)):
                found[place] += number
    return [
        Engagement(segment, users, sessions, clicked / sessions, converted / sessions)
        for segment, (users, sessions, clicked, converted) in sorted(
            sums.items(), key=lambda item: (-item[1][0], item[0])
        )
    ]


def shifts(states: Sequence[UserState]) -> list[Shift]:
    """What users did before and after their latest change of segment, by the segment they came into."""
    sums: dict[str, list[int]] = {}
    for state in states:
        if len(state.before) != 3 or not state.segment:
            continue
        before = state.before[0]
        after = state.visits - before
        if before < 1 or after < 1:
            continue
        clicked, converted = min(state.before[1], before), min(state.before[2], before)
        found = sums.setdefault(state.segment, [0] * 7)
        numbers = (
            *(1, before, after, clicked, min(state.clicked - clicked, after)),
            *(converted, min(state.converted - converted, after)),
        )
        for place, number in enumerate(numbers):
            found[place] += number
    return [
        Shift(segment, users, before, after, c_before / before, c_after / after, p_before / before, p_after / after)
        for segment, (users, before, after, c_before, c_after, p_before, p_after) in sorted(
            sums.items(), key=lambda item: (-item[1][0], item[0])
        )
    ]


def segment_mix(states: Sequence[UserState]) -> dict[str, float]:
    """Segment to its share of the users who are in one."""
    counted = Counter(state.segment for state in states if state.segment)
    total = counted.total()
    return {segment: users / total for segment, users in sorted(counted.items())}


def sample_silhouette(states: Sequence[UserState], users: Sequence[str], model: LiveModel) -> float | None:
    """Mean silhouette (Rousseeuw 1987) of users in the behaviour clusters they are in now, -1..1.

    Of those who were last looked at by this model and are in a cluster. None where there are no two clusters.
    """
    those = [place for place, s in enumerate(states) if s.model == model.version and s.cluster >= 0]
    labels = np.array([states[place].cluster for place in those])
    if model.behaviour is None or not 1 < len(np.unique(labels)) < len(labels):
        return None
    from sklearn.metrics import silhouette_score

    rows = Segmenter(model, 0, 0.0).rows([states[place] for place in those], [users[place] for place in those])
    return float(silhouette_score(rows, labels))


# --- the record ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Hour:
    """What later records still tell of one. See ``LiveHealth``."""

    at: int
    model: str
    events_per_second: float | None
    lag: int | None
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    dead_share: float | None
    mix: dict[str, float]
    largest_psi: float | None
    changed_share: float | None


@dataclass(frozen=True)
class LiveHealth:
    """The stream at one moment.

    Attributes:
        at: the moment, milliseconds.
        model: version of the current model.
        users: in the sample that drift, mix, silhouette and engagement are of.
        totals: the store's, since ever.
        events_per_second: since the record before; without one, what workers say of the last seconds.
        dead_share: dead letters of all records since the record before, or since ever; None without a record.
        segmented_share: users looked at anew for each event that counted, likewise.
        workers: worker to the model it runs.
        held: worker to why it waits, of those that do.
        lag: events that wait, over all workers; None where no worker says.
        p50_ms: of the slowest worker, from arrival at the broker to the commit, in its last minute; None without
            events. Likewise the others.
        p95_ms: see p50_ms.
        p99_ms: see p50_ms.
        psi: see ``drift``.
        not_compared: features of the reference that ``drift`` left out.
        mix: segment to its share of the users now.
        mix_then: and of the users the model was made of.
        mix_shift: total variation distance of both, 0..1: the share of users that would have to be in another segment.
        silhouette: see ``sample_silhouette``.
        engagement: by segment.
        shifts: before and after a change of segment.
        active: see ``Changed``.
        changed_share: see ``Changed``; None where nobody was active.
        hours: the records before and this one, at most ``KEPT_HOURS``, the oldest first.
    """

    at: int
    model: str
    users: int
    totals: dict[str, int]
    events_per_second: float | None
    dead_share: float | None
    segmented_share: float | None
    workers: dict[str, str]
    held: dict[str, str]
    lag: int | None
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    psi: dict[str, float]
    not_compared: list[str]
    mix: dict[str, float]
    mix_then: dict[str, float]
    mix_shift: float
    silhouette: float | None
    engagement: list[Engagement]
    shifts: list[Shift]
    active: int
    changed_share: float | None
    hours: list[Hour] = field(default_factory=list)


def live_health(
    states: Sequence[tuple[str, UserState]],
    model: LiveModel,
    totals: Mapping[str, int],
    workers: Mapping[str, Mapping[str, Any]],
    previous: LiveHealth | None,
    at: int,
    changed: Changed | None = None,
) -> LiveHealth:
    """Take stock.

    Args:
        states: user and state, of a sample; ``SAMPLE`` are enough.
        model: the current one.
        totals: of the store.
        workers: worker to what it said last.
        previous: the record before, for what is counted between both. Totals that are smaller than its own are those of
            another store, and it is then passed over.
        at: now, milliseconds.
        changed: see ``changed_since``.
    """
    known = [(user, state) for user, state in states if state.events]
    users, only = [user for user, _ in known], [state for _, state in known]
    found = drift(only, users, model)
    mix = segment_mix(only)
    since = {name: number - previous.totals.get(name, 0) for name, number in totals.items()} if previous else {}
    comparable = (
        previous is not None and all(n >= 0 for n in since.values()) and previous.totals.keys() <= totals.keys()
    )
    counted = since if comparable else dict(totals)
    seconds = (at - previous.at) / _SECOND if previous is not None and comparable else 0.0
    records = sum(counted.get(name, 0) for name in ("events", "duplicates", "dead", "other"))
    applied = counted.get("events", 0)
    health = LiveHealth(
        at=at,
        model=model.version,
        users=len(known),
        totals=dict(sorted(totals.items())),
        events_per_second=records / seconds if seconds > 0 else _of(workers, "events_per_second", sum),
        dead_share=counted.get("dead", 0) / records if records else None,
        segmented_share=counted.get("segmented", 0) / applied if applied else None,
        workers={name: str(said.get("model") or "") for name, said in sorted(workers.items())},
        held={name: str(said["held"]) for name, said in sorted(workers.items()) if said.get("held")},
        lag=None if (lag := _of(workers, "lag", sum)) is None else int(lag),
        p50_ms=_of(workers, "p50_ms", max),
        p95_ms=_of(workers, "p95_ms", max),
        p99_ms=_of(workers, "p99_ms", max),
        psi=found,
        not_compared=[name for name in model.reference if name not in found] if known else [],
        mix=mix,
        mix_then=dict(model.mix),
        mix_shift=sum(abs(mix.get(s, 0.0) - model.mix.get(s, 0.0)) for s in mix.keys() | model.mix.keys()) / 2
        if mix and model.mix
        else 0.0,
        silhouette=sample_silhouette(only, users, model),
        engagement=engagement(only),
        shifts=shifts(only),
        active=changed.active if changed else 0,
        changed_share=changed.share if changed else None,
    )
    health.hours.extend([*(previous.hours if previous else []), _hour(health)][-KEPT_HOURS:])
    return health


def _of(workers: Mapping[str, Mapping[str, Any]], name: str, together: Any) -> float | None:
    """What workers say under a name, taken together; None where none says a number."""
    numbers = [said[name] for said in workers.values() if isinstance(said.get(name), int | float)]
    return float(together(numbers)) if numbers else None


def _hour(health: LiveHealth) -> Hour:
    return Hour(
        at=health.at,
        model=health.model,
        events_per_second=health.events_per_second,
        lag=health.lag,
        p50_ms=health.p50_ms,
        p95_ms=health.p95_ms,
        p99_ms=health.p99_ms,
        dead_share=health.dead_share,
        mix=health.mix,
        largest_psi=max(health.psi.values(), default=None),
        changed_share=health.changed_share,
    )


def encode_health(health: LiveHealth) -> bytes:
    """The record as JSON."""
    return msgspec.json.encode(health)


def decode_health(data: bytes) -> LiveHealth | None:
    """What ``encode_health`` gave; None of anything else, as of what a later version wrote."""
    try:
        return msgspec.json.decode(data, type=LiveHealth)
    except msgspec.MsgspecError:
        return None


# --- bounds -------------------------------------------------------------------------------------------------------


def needs_retraining(health: LiveHealth, bounds: DriftSettings) -> list[str]:
    """Why the model has had its time, a reason each; none where it has not, or there are too few users to tell."""
    reasons = []
    beyond = {name: value for name, value in health.psi.items() if value > bounds.max_psi}
    if beyond and health.users >= bounds.min_users:
        worst = ", ".join(f"{name} {value:.2f}" for name, value in list(beyond.items())[:3])
        more = f" and {len(beyond) - 3} more" if len(beyond) > 3 else ""
        reasons.append(
            f"users are others than those of the model: population stability index over {bounds.max_psi:g} of "
            f"{worst}{more}"
        )
    share = health.changed_share
    if share is not None and share > bounds.max_changed_share and health.active >= bounds.min_users:
        reasons.append(
            f"{share:.1%} of {health.active:,} active users behave otherwise than when the model came, over "
            f"{bounds.max_changed_share:.1%}"
        )
    return reasons


def live_lag(health: LiveHealth, bounds: LiveHealthBounds) -> CheckOutcome:
    """Somebody reads, and is not far behind."""
    problems = [f"{worker} waits: {why}" for worker, why in health.held.items()]
    if not health.workers:
        problems.append("no worker has reported: `segments stream` does not run, or does not reach the store")
    elif health.lag is not None and health.lag > bounds.max_lag:
        problems.append(f"{health.lag:,} events wait, over {bounds.max_lag:,}")
    values = {"workers": len(health.workers), "max_lag": bounds.max_lag, **_said("lag", health.lag)}
    return judged("live_lag", bounds.severity, values, problems)


def live_dead_letters(health: LiveHealth, bounds: LiveHealthBounds) -> CheckOutcome:
    """Most events can be used."""
    share = health.dead_share
    problems = []
    if share is not None and share > bounds.max_dead_share:
        problems.append(f"{share:.1%} of the events became dead letters, over {bounds.max_dead_share:.1%}")
    values = {"max_dead_share": bounds.max_dead_share, **_said("dead_share", share)}
    return judged("live_dead_letters", bounds.severity, values, problems)


def live_latency(health: LiveHealth, bounds: LiveHealthBounds) -> CheckOutcome:
    """Segments follow events quickly."""
    seconds = None if health.p99_ms is None else health.p99_ms / _SECOND
    problems = []
    if seconds is not None and seconds > bounds.max_p99_seconds:
        problems.append(f"1 event in 100 took {seconds:.2f} s or longer, over {bounds.max_p99_seconds:g} s")
    values = {"max_p99_seconds": bounds.max_p99_seconds, **_said("p99_seconds", seconds)}
    return judged("live_latency", bounds.severity, values, problems)


def live_drift(health: LiveHealth, bounds: DriftSettings) -> CheckOutcome:
    """Users are still those that the model was made of. Shown, never stops: it is what asks for another model."""
    values = {
        "users": health.users,
        "active_users": health.active,
        "min_users": bounds.min_users,
        "max_psi": bounds.max_psi,
        "max_changed_share": bounds.max_changed_share,
        **_said("largest_psi", max(health.psi.values(), default=None)),
        **_said("changed_share", health.changed_share),
    }
    return judged("live_drift", "WARN", values, needs_retraining(health, bounds))


def _said(name: str, value: float | None) -> dict[str, float | int | str]:
    """A number where there is one."""
    return {} if value is None else {name: value if isinstance(value, int) else round(value, 6)}
