"""Beside the stream: the model that it segments by, its health hour by hour, and asking for another model.

What belongs here: assets, checks, job, schedule and sensors of the group live. What does not: the stream itself
(streaming), numbers and bounds (core.live.health), the store (defs.live_store).

No other job includes this group: who does not stream needs no store. All that starts runs is off until switched on.
"""

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from segmentation_assets.core.live import health as numbers
from segmentation_assets.core.live import plots
from segmentation_assets.core.live.health import Baseline, LiveHealth
from segmentation_assets.core.live.model import LiveModel
from segmentation_assets.core.live.state import UserState
from segmentation_assets.core.settings import StreamSettings
from segmentation_assets.defs.automation import everything, segmentation, users
from segmentation_assets.defs.live_store import StateStoreResource
from segmentation_assets.defs.metadata import check_result, picture, table
from segmentation_assets.defs.resources import ArtifactIOManager, SettingsResource
from segmentation_assets.errors import SegmentsError
from segmentation_assets.io.artifacts import ArtifactMissingError, ArtifactStore, ArtifactUnreadableError, last_of
from segmentation_assets.io.live_models import from_artifacts, publish, unpack
from segmentation_assets.io.live_store import StateStore
from segmentation_assets.io.models import LABELED, SERVES

HEALTH = "live_health"
"""Under which the latest record lies in the state store, for the sensor and the API."""

BASELINE = "live_baseline"
"""Under which the users lie there as the model found them."""

_LOADED = 500
"""Users of the baseline that are asked for at a time."""


def _now() -> int:
    return round(time.time() * 1000)


@dg.asset(
    group_name="live",
    deps=["es_user_segments", "kmeans_model", "labeled_segments", "behaviour_clusters", "personas", "user_features",
          "clean_sessions"],
    kinds={"redis", "python"},
    owners=["team:segmentation"],
    code_version="1",
    description="The model that running streams segment by: of what readers are served, behaviour clusters where there "
    "are some. Streams take a new one without a restart. Nothing where no stream was set up.",
    output_required=False,
)  # fmt: skip
def live_model(
    context: dg.AssetExecutionContext,
    state_store: StateStoreResource,
    io_manager: dg.ResourceParam[ArtifactIOManager],
) -> Iterator[dg.MaterializeResult[Any]]:
    """Publish the model to the state store.

    What it is made of may be absent, or not of one run, so it is read where it lies instead of being an input.
    """
    if missing := state_store.missing():  # "Materialize all" is for those without a stream as well
        context.log.warning(missing)
        return
    artifacts = io_manager.store
    if artifacts.marked(LABELED, SERVES) is None:
        raise ArtifactMissingError(
            "No segments have been published yet, so there is nothing that a stream could go on from.",
            "Run `segments run` first.",
        )
    model, note = from_artifacts(artifacts)
    if note:
        context.log.warning(note)
    with state_store.store() as store:
        before = store.current_model()
        if model.behaviour is None and _segments_alike(store, before, model):
            decision = "kept the current one: it segments queries the same, and has behaviour clusters as well"
        elif publish(store, model, _now()):
            decision = "published"
            _take_baseline(store, model.version)
        else:
            decision = "kept: it is the current one already"
            if _baseline_at(store) < _labelled_at(artifacts):  # a run has looked at the users since, and found the same
                _take_baseline(store, model.version)
        current = store.current_model()
        workers = store.workers()
    yield dg.MaterializeResult(
        metadata={
            "model_version": str(current),
            "decision": decision,
            "previous_model": before or "none",
            "left_out": note or "nothing",
            "segments": len(set(model.segments.values())),
            "behaviour_clusters": 0 if model.behaviour is None else len(model.behaviour.cluster_ids),
            "personas": sorted(model.personas.values()),
            "workers": table(
                [{"worker": name, "runs model": said.get("model")} for name, said in sorted(workers.items())],
                {"worker": "string", "runs model": "string"},
            ),
        }
    )


def _segments_alike(store: StateStore, version: str | None, model: LiveModel) -> bool:
    """Whether the current model has behaviour clusters and segments queries as this one does."""
    record = store.model(version) if version else None
    if record is None:
        return False
    try:
        current = unpack(record.data)
    except ArtifactUnreadableError:
        return False
    alike = (current.queries.version, current.segments) == (model.queries.version, model.segments)
    return alike and current.behaviour is not None


def _take_baseline(store: StateStore, version: str) -> Baseline:
    """Note users as they are now, to tell later how many have moved."""
    noted = numbers.baseline(_sample(store), version, _now())
    store.keep(BASELINE, numbers.encode_baseline(noted))
    return noted


def _baseline_at(store: StateStore) -> int:
    """Milliseconds; 0 where there is none."""
    data = store.kept(BASELINE)
    noted = numbers.decode_baseline(data) if data else None
    return noted.at if noted else 0


def _labelled_at(artifacts: ArtifactStore) -> int:
    """When the segments that readers are served were made, milliseconds."""
    folder = artifacts.marked(LABELED, SERVES)
    return round(folder.stat().st_mtime * 1000) if folder else 0


def _sample(store: StateStore) -> list[tuple[str, UserState]]:
    return [(found.user_id, found.state) for found in store.sample(numbers.SAMPLE)]


@dg.asset(
    group_name="live",
    deps=[live_model],
    kinds={"redis", "matplotlib"},
    owners=["team:segmentation"],
    code_version="1",
    description="How the stream is doing: lag, pace, latency, dead letters, drift, segments over the hours, engagement "
    "before and after a change. Nothing where no stream was set up.",
    output_required=False,
)
def live_health(
    context: dg.AssetExecutionContext,
    state_store: StateStoreResource,
    settings: SettingsResource,
    io_manager: dg.ResourceParam[ArtifactIOManager],
) -> Iterator[dg.Output[LiveHealth]]:
    """Take stock, and leave the record in the state store as well."""
    if missing := state_store.missing():
        context.log.warning(missing)
        return
    chosen = settings.load()
    with state_store.store() as store:
        model = _current(store)
        found = numbers.live_health(
            _sample(store),
            model,
            store.totals(),
            store.workers(),
            _before(io_manager.store, context.log.warning),
            _now(),
            _changed(store, model.version, chosen.stream),
        )
        store.keep(HEALTH, numbers.encode_health(found))
    yield dg.Output(found, metadata=_told(found, chosen.drift.max_psi))


def _current(store: StateStore) -> LiveModel:
    version = store.current_model()
    record = store.model(version) if version else None
    if record is None:
        raise ArtifactMissingError("No model is in the state store.", "Materialize live_model first.")
    return unpack(record.data)


def _before(artifacts: ArtifactStore, warn: Callable[[str], None]) -> LiveHealth | None:
    """The record before; read whole at once, since what comes now is stored beside it."""
    return last_of(artifacts, HEALTH, LiveHealth, warn)


def _changed(store: StateStore, version: str, stream: StreamSettings) -> numbers.Changed:
    """How many users have moved since the model came; without a baseline of it one is taken, and nobody has."""
    data = store.kept(BASELINE)
    noted = numbers.decode_baseline(data) if data else None
    if noted is None or noted.model != version or not noted.users:
        _take_baseline(store, version)
        return numbers.Changed(0, 0)
    known = list(noted.users)
    states: dict[str, UserState] = {}
    for start in range(0, len(known), _LOADED):
        states |= store.load(known[start : start + _LOADED])
    return numbers.changed_since(noted, states, stream.change)


def _told(found: LiveHealth, max_psi: float) -> dict[str, Any]:
    """The record for people."""
    return {
        "at": f"{_moment(found.at):%Y-%m-%d %H:%M:%S} UTC",
        "model_version": found.model,
        "users_in_sample": found.users,
        **{
            name: "not known" if value is None else round(value, 4)
            for name, value in (
                ("events_per_second", found.events_per_second),
                ("lag", found.lag),
                ("p50_ms", found.p50_ms),
                ("p95_ms", found.p95_ms),
                ("p99_ms", found.p99_ms),
                ("dead_share", found.dead_share),
                ("segmented_share", found.segmented_share),
                ("silhouette", found.silhouette),
                ("changed_share", found.changed_share),
            )
        },
        "active_users": found.active,
        "mix_shift": round(found.mix_shift, 4),
        "largest_psi": round(max(found.psi.values(), default=0.0), 4),
        "not_compared": found.not_compared,
        "totals": table(
            [{"what": name, "count": n} for name, n in found.totals.items()], {"what": "string", "count": "int"}
        ),
        "workers": table(
            [
                {"worker": name, "model": version, "waits because": found.held.get(name, "")}
                for name, version in found.workers.items()
            ],
            {"worker": "string", "model": "string", "waits because": "string"},
        ),
        "drift": table(
            [{"feature": name, "psi": value} for name, value in found.psi.items()],
            {"feature": "string", "psi": "float"},
        ),
        "segments": table(
            [
                {"segment": name, "now": found.mix.get(name, 0.0), "then": found.mix_then.get(name, 0.0)}
                for name in sorted(found.mix.keys() | found.mix_then.keys())
            ],
            {"segment": "string", "now": "float", "then": "float"},
        ),
        "engagement": table(
            [
                {
                    "segment": row.segment,
                    "users": row.users,
                    "sessions": row.sessions,
                    "click-through": row.click_through,
                    "conversion": row.conversion,
                }
                for row in found.engagement
            ],
            {
                "segment": "string",
                "users": "int",
                "sessions": "int",
                "click-through": "float",
                "conversion": "float",
            },
        ),
        "before_and_after": table(
            [
                {
                    "came into": row.segment,
                    "users": row.users,
                    "click-through before": row.click_through_before,
                    "after": row.click_through_after,
                    "conversion before": row.conversion_before,
                    "and after": row.conversion_after,
                }
                for row in found.shifts
            ],
            {
                "came into": "string",
                "users": "int",
                "click-through before": "float",
                "after": "float",
                "conversion before": "float",
                "and after": "float",
            },
        ),
        "pace": picture(plots.pace(found.hours), "events a second, lag and latency over the hours"),
        "mix": picture(plots.mix_over_time(found.hours, found.mix_then), "users by segment over the hours"),
        "drift_plot": picture(plots.drift_bars(found, max_psi), "drift by feature"),
        "engagement_plot": picture(plots.engagement_bars(found), "engagement by segment, before and after a change"),
    }


def _moment(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


@dg.asset_check(asset="live_health", description="A worker reads events, and is not far behind.")
def live_lag(live_health: LiveHealth, settings: SettingsResource) -> dg.AssetCheckResult:
    """See ``health.live_lag``."""
    return check_result(numbers.live_lag(live_health, settings.load().checks.live_health))


@dg.asset_check(asset="live_health", description="Not too many events become dead letters.")
def live_dead_letters(live_health: LiveHealth, settings: SettingsResource) -> dg.AssetCheckResult:
    """See ``health.live_dead_letters``."""
    return check_result(numbers.live_dead_letters(live_health, settings.load().checks.live_health))


@dg.asset_check(asset="live_health", description="Segments follow events quickly enough.")
def live_latency(live_health: LiveHealth, settings: SettingsResource) -> dg.AssetCheckResult:
    """See ``health.live_latency``."""
    return check_result(numbers.live_latency(live_health, settings.load().checks.live_health))


@dg.asset_check(asset="live_health", description="Users are still those that the model was made of.")
def live_drift(live_health: LiveHealth, settings: SettingsResource) -> dg.AssetCheckResult:
    """See ``health.live_drift``."""
    return check_result(numbers.live_drift(live_health, settings.load().drift))


live = dg.define_asset_job(
    "live",
    selection=dg.AssetSelection.groups("live"),
    description="The published model to the running streams, where it is another one, and their health.",
)


@dg.schedule(
    job=live,
    cron_schedule="35 * * * *",
    description="Every hour, 35 minutes past: the health of the stream. Off until switched on.",
)
def hourly_health() -> dg.RunRequest:
    """Without the model: that one follows runs (``new_live_model``)."""
    return dg.RunRequest(asset_selection=[dg.AssetKey("live_health")])


@dg.run_status_sensor(
    run_status=dg.DagsterRunStatus.SUCCESS,
    monitored_jobs=[segmentation, users, everything],
    request_job=live,
    minimum_interval_seconds=30,
    description="Gives running streams the model that a run has just published. Off until switched on.",
)
def new_live_model(context: dg.RunStatusSensorContext) -> dg.RunRequest:
    """Ask for live_model once for every run that succeeded."""
    return dg.RunRequest(run_key=context.dagster_run.run_id, asset_selection=[dg.AssetKey("live_model")])


@dg.sensor(
    job=everything,
    minimum_interval_seconds=300,
    description="Requests retraining, once a model, when users are no longer those of the model (drift). Off until "
    "switched on.",
)
def behaviour_drift(
    context: dg.SensorEvaluationContext, state_store: StateStoreResource, settings: SettingsResource
) -> dg.SensorResult | dg.SkipReason:
    """Look at the latest record; the cursor is the version of the model that another one was last asked for.

    The record is read in the state store: it is there even where Dagster's storage was emptied, and it goes when the
    stream's own data goes.
    """
    bounds = settings.load().drift
    try:
        with state_store.store() as store:
            data, current = store.kept(HEALTH), store.current_model()
    except SegmentsError as error:  # no store, or the extra is absent: another tick may find it
        return dg.SkipReason(str(error))
    found = numbers.decode_health(data) if data else None
    if found is None:
        return dg.SkipReason("No health of a stream has been recorded: switch hourly_health on, or run the job live.")
    if found.model != current:
        return dg.SkipReason(f"The latest record is of model {found.model}; the current one is {current}.")
    reasons = numbers.needs_retraining(found, bounds)
    largest = max(found.psi.values(), default=0.0)
    share = "not known" if found.changed_share is None else f"{found.changed_share:.1%}"
    said = (
        f"model {found.model}: largest population stability index {largest:.3f} (bound {bounds.max_psi:g}) over "
        f"{found.users:,} users; {share} of {found.active:,} active users changed "
        f"(bound {bounds.max_changed_share:.0%}); nothing is concluded below {bounds.min_users:,} users"
    )
    if not reasons:
        return dg.SkipReason(f"No retraining is due. {said}.")
    if context.cursor == found.model:
        return dg.SkipReason(f"Another model than {found.model} was asked for already. {said}.")
    # By the hour as well: a model that comes back by a rollback may be asked about again.
    hour = f"{_moment(found.at):%Y-%m-%dT%H}"
    tags = {"segmentation/drift": "; ".join(reasons)[:250], "segmentation/model": found.model}
    return dg.SensorResult(
        run_requests=[dg.RunRequest(run_key=f"drift-{found.model}-{hour}", tags=tags)], cursor=found.model
    )
