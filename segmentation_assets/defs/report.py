"""Stage 9: a page for people."""

from datetime import UTC, datetime

import dagster as dg

from segmentation_assets.defs.resources import ArtifactIOManager, SettingsResource
from segmentation_assets.io.report_store import WrittenReport, collect_report, write_report
from segmentation_assets.paths import DataDir


@dg.asset(
    group_name="users",
    deps=["es_user_profiles"],  # and with it on all that the page shows
    kinds={"html", "python"},
    owners=["team:segmentation"],
    code_version="1",
    description="One HTML file that opens anywhere: segments, personas, features, RFM, rules, data quality, checks.",
)
def segmentation_report(
    context: dg.AssetExecutionContext, settings: SettingsResource, io_manager: dg.ResourceParam[ArtifactIOManager]
) -> dg.Output[WrittenReport]:
    """Write the report on what is stored."""
    found = collect_report(io_manager.store, settings.load(), datetime.now(UTC))
    written = write_report(found, DataDir.resolve(settings.data_dir).reports / "report.html")
    return dg.Output(written, metadata={"report": dg.MetadataValue.path(written.path), "size": written.size})
