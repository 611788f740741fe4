"""Stage 1: sessions out of Elasticsearch."""

from datetime import UTC, datetime

import dagster as dg
import pyarrow.compute as pc

from segmentation_assets.core import plots, quality
from segmentation_assets.core.details import DETAILS_SCHEMA
from segmentation_assets.core.sessions import SESSION_SCHEMA, Sessions
from segmentation_assets.defs.metadata import check_result, picture, table
from segmentation_assets.defs.progress import log_progress
from segmentation_assets.defs.resources import ArtifactIOManager, ElasticsearchResource, SettingsResource
from segmentation_assets.io.artifacts import last_of
from segmentation_assets.io.seeding import seed_when_empty
from segmentation_assets.io.session_reader import read_sessions
from segmentation_assets.paths import DataDir


class RawSessionsConfig(dg.Config):
    """What a run may decide about reading sessions."""

    generate_when_empty: bool = True
    """On the embedded node only: generate 1,000 example sessions when the index is absent or empty. Never on a
    cluster.
    """

    read_all: bool = False
    """Fetch every session, also those that are known from the run before."""


@dg.asset(
    group_name="segmentation",
    kinds={"elasticsearch", "python"},
    owners=["team:segmentation"],
    code_version="1",
    description="One consistent snapshot of `user_sessions`: each document is kept, or set aside with its reason. What "
    "was read before is not fetched again.",
)
def raw_sessions(
    context: dg.AssetExecutionContext,
    config: RawSessionsConfig,
    elasticsearch: ElasticsearchResource,
    settings: SettingsResource,
    io_manager: dg.ResourceParam[ArtifactIOManager],
) -> dg.Output[Sessions]:
    """Read all sessions, going on from the last time where that gives the same."""
    chosen = settings.load()
    wanted = chosen.sessions
    now = datetime.now(UTC)
    known = None if config.read_all else last_of(io_manager.store, "raw_sessions", Sessions, context.log.warning)
    with elasticsearch.client() as client:
        if elasticsearch.embedded and config.generate_when_empty:
            generated = seed_when_empty(
                client,
                wanted.index,
                DataDir.resolve(elasticsearch.data_dir),
                now,
                attributes_index=chosen.attributes.index,
            )
            if generated:
                context.log.warning(
                    f"{wanted.index} was empty: generated {generated} example sessions on the embedded node."
                )
        sessions = read_sessions(
            client,
            wanted.index,
            now=now,
            start=wanted.start,
            end=wanted.end,
            page_size=wanted.page_size,
            slices=wanted.slices,
            previous=known,
            on_progress=log_progress(context.log),
        )
    intake = sessions.intake
    users = sessions.table["user_id"].unique()
    return dg.Output(
        sessions,
        metadata={
            "dagster/row_count": len(sessions),
            "read": intake.read,
            "fetched": sessions.fetched,
            "reading": sessions.reading,
            "kept": intake.kept,
            "set_aside": intake.set_aside_total,
            "set_aside_by_reason": table(
                [
                    {"reason": r, "documents": n, "for example (ids)": intake.examples.get(r, [])}
                    for r, n in sorted(intake.set_aside.items())
                ],
                {"reason": "string", "documents": "int", "for example (ids)": "string"},
            ),
            "users": len(users),
            "details": [name for name in DETAILS_SCHEMA.names if name in sessions.table.column_names],
            "dropped": _dropped(sessions),
            "distinct_queries": len(sessions.table["search_query"].unique()),
            "index": wanted.index,
            "sample": table(
                sessions.table.select(SESSION_SCHEMA.names).slice(0, 10).to_pylist(),
                {
                    "session_id": "string",
                    "user_id": "string",
                    "search_query": "string",
                    "clicked_product_ids": "string",
                    "timestamp": "string",
                },
            ),
            "sessions_over_time": picture(
                plots.sessions_over_time(sessions.table["timestamp"].to_pandas()), "sessions over time"
            ),
        },
    )


def _dropped(sessions: Sessions) -> dg.TableMetadataValue:
    """What documents carried beside a session's own fields and could not be used."""
    columns = {"what": "string", "values": "int"}
    if "dropped" not in sessions.table.column_names:
        return table([], columns)
    counts = pc.list_flatten(sessions.table["dropped"]).value_counts().to_pylist()
    return table([{"what": entry["values"], "values": entry["counts"]} for entry in counts], columns)


@dg.asset_check(asset="raw_sessions", blocking=True, description="Nothing is lost: read = kept + set aside.")
def sessions_accounted(raw_sessions: Sessions) -> dg.AssetCheckResult:
    """See ``quality.sessions_accounted``."""
    return check_result(quality.sessions_accounted(raw_sessions.intake))


@dg.asset_check(asset="raw_sessions", blocking=True, description="Not too many documents had to be set aside.")
def session_validity(raw_sessions: Sessions, settings: SettingsResource) -> dg.AssetCheckResult:
    """See ``quality.session_validity``."""
    return check_result(quality.session_validity(raw_sessions.intake, settings.load().checks.session_validity))
