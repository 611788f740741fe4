"""What runs by itself: a job, two schedules, two sensors, freshness and automation conditions.

What belongs here: when things run and who is told. What does not: what runs. Everything that starts runs is off
until somebody
switches it on; only the failure alert is on, because it starts nothing.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import dagster as dg

from segmentation_assets.core.arrivals import look
from segmentation_assets.defs.failures import cause_of
from segmentation_assets.defs.resources import Alert, ElasticsearchResource, SettingsResource
from segmentation_assets.io.elasticsearch import ClusterError, ClusterTimeout, ClusterUnreachable, IndexMissing
from segmentation_assets.io.session_store import sessions_state
from segmentation_assets.local.elasticsearch import EmbeddedElasticsearchError

ROOT = "raw_sessions"

WARNINGS = (
    ("labeled_segments", "label_coverage"),
    ("clean_sessions", "noise_share"),
    ("behaviour_clusters", "behaviour_stability"),
)
"""(asset, check) of blocking checks whose severity is WARN by default."""

segmentation = dg.define_asset_job(
    "segmentation",
    selection=dg.AssetSelection.groups("segmentation"),
    description="From sessions to published segments, with all checks.",
)

users = dg.define_asset_job(
    "users",
    selection=dg.AssetSelection.groups("users"),
    description="From the sessions and segments that are there to published user profiles and the report.",
)

everything = dg.define_asset_job(
    "everything",
    selection=dg.AssetSelection.groups("segmentation", "users"),
    description="From sessions to published segments, user profiles and the report, with all checks.",
)

hourly = dg.ScheduleDefinition(
    name="hourly",
    job=segmentation,
    cron_schedule="5 * * * *",
    description="Every hour, five minutes past. Off until switched on.",
)

daily = dg.ScheduleDefinition(
    name="daily",
    job=everything,
    cron_schedule="30 3 * * *",
    execution_timezone="UTC",
    description="Every day at 03:30 UTC, user profiles included. Off until switched on.",
)


@dg.sensor(
    job=segmentation,
    minimum_interval_seconds=60,
    description="Requests a run, once, after automation.new_sessions new sessions. Off until switched on.",
)
def new_sessions(
    context: dg.SensorEvaluationContext, elasticsearch: ElasticsearchResource, settings: SettingsResource
) -> dg.SensorResult | dg.SkipReason:
    """Look for new sessions."""
    chosen = settings.load()
    try:
        with elasticsearch.client() as client:
            state = sessions_state(client, chosen.sessions.index)
    except (ClusterUnreachable, ClusterTimeout, ClusterError, IndexMissing, EmbeddedElasticsearchError) as error:
        # The cursor stays: what arrives meanwhile is counted when the cluster or the index is back.
        return dg.SkipReason(str(error))
    arrivals = look(context.cursor, state.uuids, state.count, chosen.automation.new_sessions)
    if not arrivals.due:
        return dg.SensorResult(
            skip_reason=dg.SkipReason(
                f"{arrivals.new} new sessions; a run is due after {chosen.automation.new_sessions}."
            ),
            cursor=arrivals.cursor,
        )
    return dg.SensorResult(
        run_requests=[dg.RunRequest(run_key=arrivals.key, tags={"segmentation/new_sessions": str(arrivals.new)})],
        cursor=arrivals.cursor,
    )


@dg.run_failure_sensor(
    name="alert_on_failure",
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Tells the `alert` resource when a run of this code location fails.",
)
def alert_on_failure(context: dg.RunFailureSensorContext, alert: Alert) -> None:
    """Send one alert with what failed and why."""
    run = context.dagster_run
    causes = [
        f"{event.step_key}: {cause_of(event.step_failure_data.error)}" for event in context.get_step_failure_events()
    ]
    context.log.info(f"Alerting about run {run.run_id}.")
    alert.send(
        subject=f"Segmentation run {run.run_id[:8]} ({run.job_name}) failed",
        body="\n".join(causes) or context.failure_event.message or "",
        log=context.log,
    )


automation = dg.AutomationConditionSensorDefinition(
    "automation",
    target=dg.AssetSelection.groups("segmentation", "users"),
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.STOPPED,
    description="Evaluates the assets' automation conditions. Off until switched on; then leave the schedules off.",
)


def with_policies(assets: Sequence[Any]) -> Sequence[Any]:
    """Give every asset its freshness policy and automation condition, by one rule.

    The root is due each night; the others follow as soon as what they are made of is new and its blocking checks
    passed.
    """
    # Not those that only warn unless the settings say otherwise: a condition sees no severity. Where they are to stop,
    # the run's own blocking and the publish guards stop it.
    check = dg.AutomationCondition
    passed = check.all_checks_match(check.check_passed() | check.will_be_requested(), blocking_only=True).ignore(
        dg.AssetSelection.checks(*(dg.AssetCheckKey(dg.AssetKey(asset), name) for asset, name in WARNINGS))
    )
    follow = check.eager() & check.all_deps_match(passed).with_label("all_deps_blocking_checks_passed")

    def apply(spec: dg.AssetSpec) -> dg.AssetSpec:
        return spec.replace_attributes(
            freshness_policy=dg.FreshnessPolicy.time_window(
                fail_window=timedelta(hours=48), warn_window=timedelta(hours=26)
            ),
            automation_condition=dg.AutomationCondition.on_cron("30 3 * * *") if spec.key.path[-1] == ROOT else follow,
        )

    return dg.map_asset_specs(apply, assets)
