"""``segments import``.

What belongs here: options to a reading, and the account of it. What does not: file formats (io.importing), writing
(io.session_store).
"""

from datetime import UTC, datetime
from pathlib import Path

from rich.markup import escape

from segmentation_assets.cli.terminal import counting, out, print_json, say
from segmentation_assets.defs.resources import resolved_resources
from segmentation_assets.errors import SegmentsError
from segmentation_assets.io.importing import read_file
from segmentation_assets.io.session_store import rejected_index, write_sessions


def import_file(
    path: Path,
    format: str | None,
    pairs: list[str],
    columns: list[str] | None,
    timestamp_format: str | None,
    index: str | None,
    as_json: bool,
) -> None:
    """Import one file and say what became of it.

    Raises:
        SegmentsError: see ``io.importing`` and ``io.session_store``.
    """
    reading = read_file(
        path, format=format, mapping=_mapping(pairs), timestamp_format=timestamp_format, columns=columns
    )
    for sentence in reading.plan.assumed:
        say(sentence)
    elasticsearch, settings, _ = resolved_resources()
    target = index or settings.load().sessions.index
    with elasticsearch.client() as client, counting(f"importing into {target}") as progress:
        summary = write_sessions(
            client, target, reading, source=str(path.absolute()), now=datetime.now(UTC), on_progress=progress
        )
    if as_json:
        print_json(
            {
                "file": str(path),
                "format": reading.plan.format,
                "index": target,
                "read": summary.read,
                "indexed": summary.indexed,
                "created": summary.created,
                "updated": summary.updated,
                "unchanged": summary.unchanged,
                "duplicates": summary.duplicates,
                "set_aside": summary.rejected,
                "dropped": summary.dropped,
            }
        )
        return
    out.print(
        f"{escape(path.name)} ({reading.plan.format}): {summary.read:,} read, "
        f"{summary.indexed:,} sessions in {escape(target)} "
        f"({summary.created:,} new, {summary.updated:,} changed, {summary.unchanged:,} as they were)"
        + (f", {summary.duplicates:,} superseded by a later one of the same id" if summary.duplicates else ""),
        soft_wrap=True,
    )
    if summary.rejected:
        reasons = ", ".join(
            f"{reason} {n:,}" for reason, n in sorted(summary.rejected.items(), key=lambda item: -item[1])
        )
        out.print(
            f"Set aside {summary.rejected_total:,} in {escape(rejected_index(target))}: {reasons}. They count until a "
            "corrected file is imported from the same path, or until `segments rejected --forget`.",
            soft_wrap=True,
        )
    if summary.dropped:
        what = ", ".join(f"{what} {n:,}" for what, n in sorted(summary.dropped.items(), key=lambda item: -item[1]))
        out.print(f"Left out of sessions that are fine otherwise: {what}.", markup=False, soft_wrap=True)
    counts = reading.counts
    if counts.events:
        others = ", ".join(f"{name} {n:,}" for name, n in counts.events_other.most_common(5))
        out.print(
            f"UBI: {counts.events_joined:,} events joined ({counts.clicks_joined:,} clicks), "
            f"{counts.events_unmatched:,} on queries that are not in the file or are no sessions, "
            f"{sum(counts.events_other.values()):,} of other kinds{f': {others}' if others else ''}.",
            markup=False,
            soft_wrap=True,
        )


def _mapping(pairs: list[str]) -> dict[str, str] | None:
    mapping = {}
    for pair in pairs:
        field, separator, column = pair.partition("=")
        if not separator or not field.strip() or not column.strip():
            raise SegmentsError(f"--map {pair!r} is not FIELD=COLUMN.", "For example: --map search_query=q")
        mapping[field.strip()] = column.strip()
    return mapping or None
