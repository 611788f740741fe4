"""Stage 6: from sessions to users: cleaned, measured, scored, put into segments by rule."""

from datetime import UTC, datetime

import dagster as dg
import pyarrow as pa

from segmentation_assets.core import user_plots
from segmentation_assets.core.labels import LabeledSegments
from segmentation_assets.core.sessions import Sessions
from segmentation_assets.core.users import quality
from segmentation_assets.core.users.attributes import UserAttributes
from segmentation_assets.core.users.cleaning import CleanSessions, clean
from segmentation_assets.core.users.features import UserFeatures, measure
from segmentation_assets.core.users.personas import may_be_shown
from segmentation_assets.core.users.rules import RuleSegments, apply_rules
from segmentation_assets.core.users.scores import UserScores, score
from segmentation_assets.defs.metadata import check_result, picture, table
from segmentation_assets.defs.progress import log_progress
from segmentation_assets.defs.resources import ElasticsearchResource, SettingsResource
from segmentation_assets.io.user_attributes import gather_attributes
from segmentation_assets.paths import DataDir

_STRINGS = {"what": "string", "why": "string"}


@dg.asset(
    group_name="users",
    kinds={"pyarrow", "python"},
    owners=["team:segmentation"],
    code_version="1",
    description="Sessions and events without duplicates, missing values filled and marked, bots and internal traffic "
    "marked. Every user stays.",
)
def clean_sessions(raw_sessions: Sessions, settings: SettingsResource) -> dg.Output[CleanSessions]:
    """Clean the sessions."""
    found = clean(raw_sessions.table, settings.load().cleaning)
    account = found.account
    return dg.Output(
        found,
        metadata={
            "dagster/row_count": account.sessions_used,
            "users": found.users.num_rows,
            "events": account.events_used,
            "absent": account.absent,
            "set_aside": table(
                [
                    {"of": of, "reason": reason, "count": n}
                    for of, aside in (("sessions", account.sessions_set_aside), ("events", account.events_set_aside))
                    for reason, n in sorted(aside.items())
                ],
                {"of": "string", "reason": "string", "count": "int"},
            ),
            "imputed": table(
                [
                    {"column": done.column, "how": done.how, "value": str(done.value), "cells": done.cells}
                    for done in account.imputations
                ],
                {"column": "string", "how": "string", "value": "string", "cells": "int"},
            ),
            "noise": table(
                [{"reason": reason, "users": n} for reason, n in sorted(account.noise.items())],
                {"reason": "string", "users": "int"},
            ),
            "cleaning": picture(user_plots.cleaning_bars(account), "what was set aside, filled and marked"),
        },
    )


@dg.asset_check(asset="clean_sessions", blocking=True, description="Nothing is lost: in = used + set aside.")
def cleaning_accounted(clean_sessions: CleanSessions) -> dg.AssetCheckResult:
    """See ``quality.cleaning_accounted``."""
    return check_result(quality.cleaning_accounted(clean_sessions.account))


@dg.asset_check(asset="clean_sessions", blocking=True, description="Not too many users are marked as noise.")
def noise_share(clean_sessions: CleanSessions, settings: SettingsResource) -> dg.AssetCheckResult:
    """See ``quality.noise_share``."""
    return check_result(quality.noise_share(clean_sessions, settings.load().checks.noise_share))


@dg.asset(
    group_name="users",
    ins={"raw_sessions": dg.AssetIn(metadata={"columns": ["user_id"]})},
    kinds={"elasticsearch", "python"},
    owners=["team:segmentation"],
    code_version="1",
    description="What is known about the users from elsewhere: the index `user_attributes`, a file, somebody who is "
    "asked. All of it optional.",
)
def user_attributes(
    context: dg.AssetExecutionContext,
    raw_sessions: Sessions,
    elasticsearch: ElasticsearchResource,
    settings: SettingsResource,
) -> dg.Output[UserAttributes]:
    """Gather the attributes."""
    with elasticsearch.client() as client:
        found = gather_attributes(
            client,
            settings.load().attributes,
            raw_sessions.table["user_id"].unique().to_pylist(),
            now=datetime.now(UTC),
            cache=DataDir.resolve(settings.data_dir).answers,
            config_file=settings.path,
            token=settings.enrichment_token,
            on_progress=log_progress(context.log),
        )
    account = found.account
    return dg.Output(
        found,
        metadata={
            "dagster/row_count": found.table.num_rows,
            "read": account.read,
            "used": account.used,
            "sources": account.sources,
            "attributes": found.table.column_names[1:],
            "not_used": table(
                [
                    {"what": what, "why": reason, "count": n}
                    for what, counts in (
                        ("record set aside", account.set_aside),
                        ("value dropped", account.dropped),
                        ("no answer", account.failed),
                    )
                    for reason, n in sorted(counts.items())
                ],
                {**_STRINGS, "count": "int"},
            ),
        },
    )


@dg.asset(
    group_name="users",
    ins={"labeled_segments": dg.AssetIn(metadata={"columns": ["session_id", "segment"]})},
    kinds={"pyarrow", "python"},
    owners=["team:segmentation"],
    code_version="1",
    description="What every user does, in numbers; features whose data is absent are left out, and named.",
)
def user_features(
    clean_sessions: CleanSessions,
    labeled_segments: LabeledSegments,
    user_attributes: UserAttributes,
    settings: SettingsResource,
) -> dg.Output[UserFeatures]:
    """Measure the users."""
    found = measure(
        clean_sessions,
        labeled_segments.table.select(["session_id", "segment"]),
        user_attributes.table,
        settings.load().features,
    )
    shown = set(may_be_shown(found))
    return dg.Output(
        found,
        metadata={
            "dagster/row_count": found.table.num_rows,
            "window": f"{found.start:%Y-%m-%d %H:%M} to {found.end:%Y-%m-%d %H:%M} UTC",
            "features": table(
                [
                    {"group": group, "features": ", ".join([name for name in names if name in shown])}
                    for group, names in found.groups.items()
                ],
                {"group": "string", "features": "string"},
            ),
            "absent": table([{"what": what, "why": why} for what, why in sorted(found.absent.items())], _STRINGS),
            "outliers": found.outliers.num_rows,
            "users_with_an_outlier": len(found.outliers["user_id"].unique()),
            "sample": _sample(found.table),
        },
    )


@dg.asset(
    group_name="users",
    kinds={"pyarrow", "python"},
    owners=["team:segmentation"],
    code_version="1",
    description="Recency, frequency and monetary scores, and the loyalty index with its tiers.",
)
def user_scores(user_features: UserFeatures, settings: SettingsResource) -> dg.Output[UserScores]:
    """Score the users."""
    found = score(user_features, settings.load().scores)
    tiers = found.table["loyalty_tier"].value_counts()
    return dg.Output(
        found,
        metadata={
            "dagster/row_count": found.table.num_rows,
            "frequency_is": found.frequency,
            "weights": {name: round(weight, 4) for name, weight in found.weights.items()},
            "absent": found.absent,
            "tiers": table(
                [{"tier": entry["values"], "users": entry["counts"]} for entry in tiers.to_pylist()],
                {"tier": "string", "users": "int"},
            ),
            "rfm_map": picture(user_plots.rfm_map(found, user_features), "users by recency and frequency"),
            "loyalty": picture(user_plots.loyalty(found), "users by loyalty index"),
            "sample": _sample(found.table),
        },
    )


@dg.asset(
    group_name="users",
    kinds={"yaml", "python"},
    owners=["team:segmentation"],
    code_version="1",
    description="Segments by rule: frequent buyers, browsers, and whatever is written down.",
)
def rule_segments(
    user_features: UserFeatures, user_scores: UserScores, settings: SettingsResource
) -> dg.Output[RuleSegments]:
    """Apply the rules."""
    found = apply_rules(settings.rules(), user_features, user_scores)
    return dg.Output(
        found,
        metadata={
            "dagster/row_count": found.table.num_rows,
            "rules": table(
                [
                    {"rule": r.name, "users": r.users, "share": r.share, "not applied because": r.unusable or ""}
                    for r in found.report
                ],
                {"rule": "string", "users": "int", "share": "float", "not applied because": "string"},
            ),
            "overlaps": table(
                [{"one": o.one, "other": o.other, "users": o.users} for o in found.overlaps[:50]],
                {"one": "string", "other": "string", "users": "int"},
            ),
            "rule_sizes": picture(user_plots.rule_sizes(found), "users by rule"),
            "rule_overlaps": picture(user_plots.rule_overlaps(found), "users in two rules"),
        },
    )


def _sample(users: pa.Table) -> dg.TableMetadataValue:
    """The first rows, of not too many columns."""
    names = users.column_names[:16]
    kinds = {name: "string" if pa.types.is_string(users[name].type) else "float" for name in names}
    return table(users.select(names).slice(0, 10).to_pylist(), kinds)
