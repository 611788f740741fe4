"""The Dagster entry point."""

import os
from collections.abc import Mapping
from typing import Any

import dagster as dg

from segmentation_assets.defs import (
    automation,
    behaviour,
    clusters,
    live,
    profiles,
    publishing,
    report,
    segments,
    sessions,
    users,
    vectors,
)
from segmentation_assets.defs.automation import with_policies
from segmentation_assets.defs.resources import build_resources

STAGES = [sessions, vectors, clusters, segments, publishing, users, behaviour, profiles, report, live]


def build_definitions(resources: Mapping[str, Any] | None = None) -> dg.Definitions:
    """All definitions; ``resources`` replaces some by name, which is how tests put their own in."""
    return dg.Definitions(
        assets=with_policies(dg.load_assets_from_modules(STAGES)),
        asset_checks=dg.load_asset_checks_from_modules(STAGES),
        jobs=[automation.segmentation, automation.users, automation.everything, live.live],
        schedules=[automation.hourly, automation.daily, live.hourly_health],
        sensors=[
            automation.new_sessions,
            automation.alert_on_failure,
            automation.automation,
            live.behaviour_drift,
            live.new_live_model,
        ],
        resources=build_resources() | dict(resources or {}),
        # The steps share one process: importing scikit-learn and pandas anew for each costs more than the work itself.
        executor=dg.multiprocess_executor
        if os.environ.get("SEGMENTS_EXECUTOR") == "multiprocess"
        else dg.in_process_executor,
    )


@dg.definitions
def definitions() -> dg.Definitions:
    """Loaded by Dagster; nothing is built, and no environment is read, before it asks."""
    return build_definitions()
