"""The verbs about users: the report, why a user is where they are, what the rules take, the dashboard for Kibana.

What belongs here: laying the answers out. What does not: computing them (core.users, io).
"""

from pathlib import Path
from typing import Annotated

import typer

from segmentation_assets.cli import session
from segmentation_assets.cli.options import ConfigOption, DataDirOption, JsonOption
from segmentation_assets.cli.terminal import answer_in_json, out, print_json, table


def report(
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File to write. Default: report.html in the data folder.")
    ] = None,
    data_dir: DataDirOption = None,
    config: ConfigOption = None,
) -> None:
    """Write the report on what was last materialized: one HTML file that opens anywhere. Needs no Elasticsearch.

    Examples:

      [bold]segments run --users && segments report -o report.html[/]
    """
    data = session.use_data_dir(data_dir, config)
    from datetime import UTC, datetime

    from segmentation_assets.defs.resources import resolved_resources
    from segmentation_assets.io.report_store import collect_report, write_report

    _, settings, storage = resolved_resources()
    storage.store.require("raw_sessions")
    found = collect_report(storage.store, settings.load(), datetime.now(UTC))
    written = write_report(found, output or data.reports / "report.html")
    out.print(f"{written.path} ({written.size / 1024:,.0f} KB)", soft_wrap=True, markup=False)


def explain(
    user: Annotated[str, typer.Argument(help="The user's id, as in user_sessions.")],
    json: JsonOption = False,
    data_dir: DataDirOption = None,
    config: ConfigOption = None,
) -> None:
    """Say in words why a user is where they are. Reads the published profile.

    Examples:

      [bold]segments explain u00c3f1[/]

      [bold]segments explain u00c3f1 --json[/]
    """
    answer_in_json(json)
    data = session.use_data_dir(data_dir, config)
    with session.server(data):
        from segmentation_assets.core.users.explain import explain as in_words
        from segmentation_assets.core.users.personas import Personas
        from segmentation_assets.defs.resources import resolved_resources
        from segmentation_assets.io.artifacts import last_of
        from segmentation_assets.io.profile_store import profile_of

        elasticsearch, settings, storage = resolved_resources()
        with elasticsearch.client() as client:
            profile = profile_of(client, settings.load().profiles.alias, user)
        known = last_of(storage.store, "personas", Personas, lambda _: None)
    # The cards of another model would explain somebody else's clusters.
    cards = known if known is not None and known.model_version == profile.get("model_version") else None
    sentences = in_words(
        profile,
        cards,
        rules={rule.name: rule.description for rule in settings.rules().rules},
        groups=settings.load().scores.groups,
    )
    if json:
        print_json({"user_id": user, "sentences": sentences, "profile": dict(profile)})
        return
    for sentence in sentences:
        out.print(sentence, soft_wrap=True, markup=False)


def rules(json: JsonOption = False, data_dir: DataDirOption = None, config: ConfigOption = None) -> None:
    """Try the rules of the settings on the users last measured: how many each takes, and where they overlap.

    A dry run: nothing is stored or published. Needs no Elasticsearch.

    Examples:

      [bold]segments rules --config segments.yaml[/]
    """
    answer_in_json(json)
    session.use_data_dir(data_dir, config)
    from dataclasses import asdict

    from segmentation_assets.core.users.features import UserFeatures
    from segmentation_assets.core.users.rules import apply_rules
    from segmentation_assets.core.users.scores import UserScores
    from segmentation_assets.defs.resources import resolved_resources
    from segmentation_assets.io.artifacts import ArtifactMissingError

    _, settings, storage = resolved_resources()
    written = settings.rules()
    try:
        features = storage.store.load("user_features", UserFeatures)
        scores = storage.store.load("user_scores", UserScores)
    except ArtifactMissingError as error:
        raise ArtifactMissingError(error.problem, "Run `segments run --users` first.") from None
    found = apply_rules(written, features, scores)
    if json:
        print_json(
            {"rules": [asdict(entry) for entry in found.report], "overlaps": [asdict(pair) for pair in found.overlaps]}
        )
        return
    rows = [[r.name, f"{r.users:,}", f"{r.share:.1%}", r.unusable or ""] for r in found.report]
    out.print(table("Rules", ["rule", "users", "share", "not applied because"], rows, numeric=["users", "share"]))
    if found.overlaps:
        pairs = [[pair.one, pair.other, f"{pair.users:,}"] for pair in found.overlaps[:20]]
        out.print(table("Users in two of them", ["one", "other", "users"], pairs, numeric=["users"]))


def kibana(
    output: Annotated[Path | None, typer.Option("--output", "-o", help="File to write. Default: stdout.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file when it is there.")] = False,
    data_dir: DataDirOption = None,
    config: ConfigOption = None,
) -> None:
    """Write the dashboard of segments and profiles as saved objects, for Kibana's Stack Management > Saved Objects.

    Examples:

      [bold]segments kibana -o dashboard.ndjson[/]
    """
    session.use_data_dir(data_dir, config)
    import pyarrow as pa

    from segmentation_assets.defs.resources import resolved_resources
    from segmentation_assets.io.export import export
    from segmentation_assets.io.kibana import saved_objects

    _, settings, _ = resolved_resources()
    chosen = settings.load()
    objects = saved_objects(chosen.publish.alias, chosen.profiles.alias)
    export(objects, pa.schema([]), output, "ndjson", force=force)
    if output is not None:
        out.print(f"{output}: {len(objects)} saved objects", soft_wrap=True, markup=False)
