"""``segments export``: what was published, for other tools.

What belongs here: options to an export, and the account of it. What does not: reading and writing (io.export).
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from segmentation_assets.cli import session
from segmentation_assets.cli.options import ConfigOption, DataDirOption
from segmentation_assets.cli.terminal import counting, err

if TYPE_CHECKING:
    from elasticsearch import Elasticsearch

    from segmentation_assets.core.settings import Settings
    from segmentation_assets.io.export import Exported, Format, Progress

    Read = Callable[[Elasticsearch, Settings, Format, Progress], Exported]

export_app = typer.Typer(no_args_is_help=True, help="What was published as CSV, Parquet or NDJSON, for other tools.")

SegmentOption = Annotated[str | None, typer.Option("--segment", help="Only this query segment.")]
PersonaOption = Annotated[
    str | None, typer.Option("--persona", help="Only users with this name of a behaviour cluster.")
]
RuleOption = Annotated[str | None, typer.Option("--rule", help="Only users in this segment by rule.")]
FormatOption = Annotated[
    str | None,
    typer.Option("--format", help="csv, parquet or ndjson. Default: by the end of the file's name, else csv."),
]
OutputOption = Annotated[
    Path | None, typer.Option("--output", "-o", help="File to write. Default: standard output (not for Parquet).")
]
ForceOption = Annotated[bool, typer.Option("--force", help="Replace the file when it is there.")]

_SUFFIXES = {".csv": "csv", ".parquet": "parquet", ".pq": "parquet", ".ndjson": "ndjson", ".jsonl": "ndjson"}


@export_app.command()
def segments(
    segment: SegmentOption = None,
    format: FormatOption = None,
    output: OutputOption = None,
    force: ForceOption = False,
    data_dir: DataDirOption = None,
    config: ConfigOption = None,
) -> None:
    """Export the segment of every session.

    Examples:

      [bold]segments export segments -o segments.parquet[/]

      [bold]segments export segments --segment tech_enthusiast --format ndjson[/]
    """

    def read(client: "Elasticsearch", settings: "Settings", form: "Format", progress: "Progress") -> "Exported":
        from segmentation_assets.io.export import export_segments

        alias = settings.publish.alias
        return export_segments(client, alias, output, form, segment=segment, force=force, on_progress=progress)

    _export(read, "sessions", format, output, force, data_dir, config)


@export_app.command()
def profiles(
    segment: SegmentOption = None,
    persona: PersonaOption = None,
    rule: RuleOption = None,
    format: FormatOption = None,
    output: OutputOption = None,
    force: ForceOption = False,
    data_dir: DataDirOption = None,
    config: ConfigOption = None,
) -> None:
    """Export profiles of users, with everything in them; objects become columns with dotted names.

    Examples:

      [bold]segments export profiles -o profiles.parquet[/]

      [bold]segments export profiles --persona 'Loyal Enthusiasts' -o loyal.csv --force[/]
    """

    _export(_profiles(segment, persona, rule, output, force), "profiles", format, output, force, data_dir, config)


@export_app.command()
def users(
    segment: SegmentOption = None,
    persona: PersonaOption = None,
    rule: RuleOption = None,
    format: FormatOption = None,
    output: OutputOption = None,
    force: ForceOption = False,
    data_dir: DataDirOption = None,
    config: ConfigOption = None,
) -> None:
    """Export a list of users with their groups, as for a mailing.

    Several groups together: users that are in all of them.

    Examples:

      [bold]segments export users --rule big_spenders -o big_spenders.csv[/]

      [bold]segments export users --persona 'Cart Abandoners' --rule big_spenders | cut -d, -f1[/]
    """

    reading = _profiles(segment, persona, rule, output, force, groups_only=True)
    _export(reading, "users", format, output, force, data_dir, config)


def _profiles(
    segment: str | None,
    persona: str | None,
    rule: str | None,
    output: Path | None,
    force: bool,
    *,
    groups_only: bool = False,
) -> "Read":
    def read(client: "Elasticsearch", settings: "Settings", form: "Format", progress: "Progress") -> "Exported":
        from segmentation_assets.io.export import USER_FIELDS, export_profiles

        return export_profiles(
            client, settings.profiles.alias, output, form, segment=segment, persona=persona, rule=rule,
            fields=USER_FIELDS if groups_only else None, force=force, on_progress=progress,
        )  # fmt: skip

    return read


def _export(
    read: "Read",
    what: str,
    format: str | None,
    output: Path | None,
    force: bool,
    data_dir: Path | None,
    config: Path | None,
) -> None:
    from segmentation_assets.io.export import check_target

    form = cast("Format", format or _SUFFIXES.get(output.suffix.lower() if output else "", "csv"))
    check_target(output, form, force=force)  # before a server is started for it
    data = session.use_data_dir(data_dir, config)
    with session.server(data):
        from segmentation_assets.defs.resources import resolved_resources

        elasticsearch, settings, _ = resolved_resources()
        with elasticsearch.client() as client, counting(f"exporting {what}") as progress:
            done = read(client, settings.load(), form, progress)
    _account(done, what)


def _account(done: "Exported", what: str) -> None:
    def say(text: str) -> None:  # standard output may be the file itself
        err.print(text, soft_wrap=True, markup=False)

    say(f"{done.rows:,} {what} in {done.target or 'standard output'} ({done.format}).")
    if done.absent:
        say(f"None of them has: {', '.join(done.absent)}.")
    if done.left_out:
        say(f"Left out, for the index does not know them: {', '.join(done.left_out)}.")
    if done.escaped:
        say(f"{done.escaped:,} cells that a spreadsheet would run as a formula begin with an apostrophe now.")
