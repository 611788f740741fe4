"""``segments taxonomy``: what the taxonomy lacks, and what in it does not work, on the sessions last read.

What belongs here: loading stored results and laying the answers out. What does not: finding them
(core.taxonomy_review). Nothing here needs an Elasticsearch.
"""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from segmentation_assets.cli import session
from segmentation_assets.cli.options import ConfigOption, DataDirOption, JsonOption
from segmentation_assets.cli.terminal import answer_in_json, out, print_json, table

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from segmentation_assets.core.labels import LabeledSegments
    from segmentation_assets.core.taxonomy import Taxonomy
    from segmentation_assets.core.taxonomy_review import Finding
    from segmentation_assets.core.vectorize import TfidfMatrix

taxonomy_app = typer.Typer(
    no_args_is_help=True, help="The taxonomy that names the segments: what it lacks, what in it does not work."
)


@taxonomy_app.command()
def suggest(json: JsonOption = False, data_dir: DataDirOption = None, config: ConfigOption = None) -> None:
    """Draft new entries for clusters without a name, and keywords that segments lack: YAML on stdout, to edit.

    Looks at the sessions and clusters of the last run, with the taxonomy as it is now.

    Examples:

      [bold]segments taxonomy suggest > drafts.yaml[/]
    """
    from segmentation_assets.core import taxonomy_review

    answer_in_json(json)
    suggestion = taxonomy_review.suggest(*_last_run(data_dir, config))
    if json:
        print_json(asdict(suggestion))
    else:
        typer.echo(taxonomy_review.as_yaml(suggestion), nl=False)


@taxonomy_app.command()
def check(
    strict: Annotated[bool, typer.Option("--strict", help="Exit code 1 if there is a warning.")] = False,
    json: JsonOption = False,
    data_dir: DataDirOption = None,
    config: ConfigOption = None,
) -> None:
    """Say which keywords never match, which are written twice, overlap or are ambiguous, and what was guessed.

    Looks at the sessions and clusters of the last run, with the taxonomy as it is now. Exit code 0, also with warnings.

    Examples:

      [bold]segments taxonomy check[/]

      [bold]segments taxonomy check --strict --json[/]
    """
    from segmentation_assets.core import taxonomy_review

    answer_in_json(json)
    review = taxonomy_review.review(*_last_run(data_dir, config))
    if json:
        print_json({**asdict(review), "warnings": len(review.findings)})
    else:
        if review.findings:
            out.print(table("Warnings", ["what", "segment", "finding"], _rows(review.findings)))
        if review.readings:
            guesses = [[r.typed, r.keyword, r.segment, r.kind, f"{r.sessions:,}"] for r in review.readings]
            title = "Words read as a keyword: are they?"
            columns = ["typed", "read as", "segment", "how", "sessions"]
            out.print(table(title, columns, guesses, numeric=["sessions"]))
        out.print(
            f"{len(review.findings):,} warnings. {review.matched:,} of {review.sessions:,} sessions hold a keyword.",
            soft_wrap=True,
        )
    raise typer.Exit(1 if strict and review.findings else 0)


def _rows(findings: "list[Finding]") -> list[list[str]]:
    """One row a finding; keywords that never match in one row a segment."""
    silent: dict[str, list[str]] = {}
    for finding in findings:
        if finding.kind == "never" and finding.keyword is not None:
            silent.setdefault(finding.segment, []).append(finding.keyword)
    return [
        *(["never", segment, f"no query holds {', '.join(keywords)}"] for segment, keywords in silent.items()),
        *([f.kind, f.segment, f.message] for f in findings if f.kind != "never" or f.keyword is None),
    ]


def _last_run(
    data_dir: Path | None, config: Path | None
) -> "tuple[TfidfMatrix, NDArray[np.int32], LabeledSegments, Taxonomy]":
    """What was last materialized, named by the taxonomy as it is now: an edit shows at once."""
    from segmentation_assets.core.labels import label
    from segmentation_assets.core.model import ClusterModel
    from segmentation_assets.core.sessions import Sessions
    from segmentation_assets.core.vectorize import TfidfMatrix
    from segmentation_assets.defs.resources import resolved_resources

    session.use_data_dir(data_dir, config)
    _, settings, storage = resolved_resources()
    taxonomy, chosen = settings.taxonomy(), settings.load().labels
    sessions = storage.store.load("raw_sessions", Sessions)
    tfidf = storage.store.load("tfidf_matrix", TfidfMatrix)
    model = storage.store.load("kmeans_model", ClusterModel)
    return tfidf, model.labels, label(sessions, tfidf, model, taxonomy, chosen), taxonomy
