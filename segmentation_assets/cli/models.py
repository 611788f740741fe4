"""``segments models``: the model versions stored on this machine, what is in one, and going back to one.

What belongs here: laying the answers out. What does not: finding them (io.models). Only ``rollback`` needs an
Elasticsearch; the others say what this machine knows.
"""

from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from segmentation_assets.cli import session
from segmentation_assets.cli.export_model import export_onnx
from segmentation_assets.cli.options import ConfigOption, DataDirOption, JsonOption
from segmentation_assets.cli.terminal import answer_in_json, out, print_json, table

if TYPE_CHECKING:
    from segmentation_assets.io.artifacts import ArtifactStore
    from segmentation_assets.io.models import StoredModel

models_app = typer.Typer(
    no_args_is_help=True, help="The models that made segments: list them, look into one, go back to one."
)

models_app.command("export-onnx")(export_onnx)

VersionArgument = Annotated[
    str | None, typer.Argument(metavar="[VERSION]", help="Of the model, or how it begins; see `segments models list`.")
]


@models_app.command("list")
def list_(json: JsonOption = False, data_dir: DataDirOption = None) -> None:
    """List the stored models, the last used first: which one is published, which one is the latest.

    A model that a retraining kept is one line, with the time and the sessions it was last used for.

    Examples:

      [bold]segments models list[/]

      [bold]segments models list --json[/]
    """
    from segmentation_assets.io.models import stored_models

    answer_in_json(json)
    models = stored_models(_store(data_dir))
    if json:
        print_json({"models": [_as_json(model) for model in models]})
        return
    rows = [
        [
            model.version,
            _short(model.used),
            model.method,
            model.k,
            f"{model.sessions:,}",
            len(model.segments) or "",
            " ".join(word for word, holds in (("published", model.published), ("latest", model.latest)) if holds),
        ]
        for model in models
    ]
    columns = ["version", "used (UTC)", "method", "k", "sessions", "names", ""]
    out.print(table("Models", columns, rows, numeric=["k", "sessions", "names"]))


@models_app.command()
def show(version: VersionArgument = None, json: JsonOption = False, data_dir: DataDirOption = None) -> None:
    """Show a model: its clusters, how it differs from the one before, why it was taken or kept. Default: the latest.

    Examples:

      [bold]segments models show[/]

      [bold]segments models show 3f2a --json[/]
    """
    from segmentation_assets.core.model import ClusterModel
    from segmentation_assets.io.artifacts import load_artifact
    from segmentation_assets.io.models import churn_of, find_model, labels_of

    answer_in_json(json)
    store = _store(data_dir)
    found = find_model(store, version)
    model = load_artifact(ClusterModel, found.folder)
    labels = {entry.cluster: entry for entry in labels_of(store, found.version)}
    churn = churn_of(store, found.version)
    clusters: list[dict[str, Any]] = [
        {
            "cluster": int(cluster),
            "segment": labels[cluster].segment if cluster in labels else None,
            "sessions": size,
            "users": labels[cluster].users if cluster in labels else None,
            "top_terms": list(labels[cluster].top_terms) if cluster in labels else [],
            "sample_queries": labels[cluster].sample_queries if cluster in labels else [],
        }
        for cluster, size in zip(model.cluster_ids.tolist(), model.sizes, strict=True)
    ]
    if json:
        print_json(
            {
                **_as_json(found),
                "unclustered": model.unclustered,
                "change": asdict(model.change),
                "retraining": asdict(model.decision) if model.decision else None,
                "churn": None
                if churn is None or churn.first
                else {
                    "previous_version": churn.previous_version,
                    "users": churn.users,
                    "came": churn.came,
                    "left": churn.left,
                    "changed_share": churn.changed_share,
                    "behaviour_share": churn.behaviour_share,
                    "model_share": churn.model_share,
                },
                "settings": {"clusters": model.settings.model_dump(), "vectors": model.vector_settings.model_dump()},
                "clusters": clusters,
            }
        )
        return
    change = model.change
    facts = [
        ["made", f"{_short(found.made)} UTC"],
        [
            "last used",
            f"{_short(found.used)} UTC, on {found.sessions:,} sessions ({model.unclustered:,} in no cluster)",
        ],
        ["method", f"{model.method}, k = {model.k}, seed {model.settings.seed}"],
        ["published", "yes" if found.published else "no"],
        ["latest", "yes" if found.latest else "no"],
        ["decision", found.decision or "not recorded"],
        ["compared with", change.previous_version or "nothing: it was the first"],
        ["clusters", f"{change.kept} kept, {change.new} new, {change.retired} retired"],
        ["sessions that changed cluster", f"{change.changed_share:.1%}"],
    ]
    if churn is not None and not churn.first:
        facts.append(
            [
                "users that changed segment",
                f"{churn.changed_share:.1%} of {churn.users:,}: {churn.behaviour_share:.1%} by their behaviour, "
                f"{churn.model_share:.1%} by the model; {churn.came:,} came, {churn.left:,} left",
            ]
        )
    out.print(f"Model {found.version}", style="bold")
    for name, value in facts:
        out.print(f"{name}: {value}", soft_wrap=True, markup=False)
    rows = [
        [
            entry["cluster"],
            entry["segment"] or "not labelled",
            f"{entry['sessions']:,}",
            "" if entry["users"] is None else f"{entry['users']:,}",
            ", ".join(entry["top_terms"][:8]),
        ]
        for entry in clusters
    ]
    columns = ["cluster", "segment", "sessions", "users", "top terms"]
    out.print(table("Clusters", columns, rows, numeric=["cluster", "sessions", "users"]))


@models_app.command()
def rollback(version: VersionArgument = None, data_dir: DataDirOption = None, config: ConfigOption = None) -> None:
    """Point readers at what a model published, again. Default: the model published before the current one.

    The next run takes its cluster ids from this model, keeps it unless a new one is better, and measures user churn
    against what it published.

    Examples:

      [bold]segments models rollback[/]

      [bold]segments models rollback 3f2a[/]
    """
    data = session.use_data_dir(data_dir, config)
    with session.server(data):
        from segmentation_assets.defs.resources import resolved_resources
        from segmentation_assets.io.models import rollback_model

        elasticsearch, settings, storage = resolved_resources()
        with elasticsearch.client() as client:
            state = rollback_model(client, storage.store, settings.load().publish.alias, version)
    out.print(
        f"{state.alias} now leads to {state.index} ({state.documents:,} documents), made by model "
        f"{state.meta.get('model_version')}.",
        soft_wrap=True,
        markup=False,
    )


def _store(data_dir: Any) -> "ArtifactStore":
    from segmentation_assets.io.artifacts import ArtifactStore

    return ArtifactStore(session.use_data_dir(data_dir).storage)


def _as_json(model: "StoredModel") -> dict[str, Any]:
    plain = asdict(model)
    del plain["folder"]
    return {**plain, "made": model.made.isoformat(), "used": model.used.isoformat()}


def _short(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M}"
