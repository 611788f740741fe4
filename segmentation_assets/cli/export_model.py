"""``segments models export-onnx``: the models as ONNX files, for model servers and other languages.

What belongs here: which stored models are meant, and the account of what was written. What does not: the graphs
(io.onnx_models). Says what this machine knows; needs no Elasticsearch.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from segmentation_assets.cli import session
from segmentation_assets.cli.options import DataDirOption, JsonOption
from segmentation_assets.cli.terminal import answer_in_json, err, out, print_json, table

FolderOption = Annotated[Path, typer.Option("--to", help="Folder to write to; made when absent.")]
ForceOption = Annotated[bool, typer.Option("--force", help="Replace the files of an earlier export.")]
VersionArgument = Annotated[
    str | None,
    typer.Argument(metavar="[VERSION]", help="Of the model of queries, or how it begins; see `segments models list`."),
]


def export_onnx(
    to: FolderOption,
    version: VersionArgument = None,
    force: ForceOption = False,
    json: JsonOption = False,
    data_dir: DataDirOption = None,
) -> None:
    """Write the models as ONNX files, which give the same clusters. Default: the published ones, else the latest.

    Writes query.onnx and query_terms.json and, where users have behaviour clusters, behaviour.onnx and
    behaviour_features.json. Each is then run on what its model was fitted on, and compared with it.

    Examples:

      [bold]segments models export-onnx --to models[/]

      [bold]segments models export-onnx 3f2a --to models --force --json[/]
    """
    from segmentation_assets.core.model import ClusterModel
    from segmentation_assets.core.users.features import UserFeatures
    from segmentation_assets.core.users.personas import Personas
    from segmentation_assets.io import profile_store
    from segmentation_assets.io.artifacts import ArtifactStore, last_of, load_artifact
    from segmentation_assets.io.models import find_model, labels_of, stored_models
    from segmentation_assets.io.onnx_models import write_models

    answer_in_json(json)
    store = ArtifactStore(session.use_data_dir(data_dir).storage)
    published = next((model for model in stored_models(store) if model.published), None)
    found = published if published and version is None else find_model(store, version)

    def warn(problem: str) -> None:
        err.print(problem, soft_wrap=True, markup=False)

    behaviour = profile_store.model_before(store, warn)
    personas = last_of(store, "personas", Personas, warn)
    described = behaviour is not None and personas is not None and personas.model_version == behaviour.version
    written = write_models(
        to,
        load_artifact(ClusterModel, found.folder),
        {entry.cluster: entry.segment for entry in labels_of(store, found.version)},
        behaviour,
        {card.cluster: card.name for card in personas.cards} if personas and described else None,
        last_of(store, "user_features", UserFeatures, warn),
        force=force,
    )
    for model in written:
        if model.different:
            warn(
                f"{model.file.name} gives {model.different:,} of {model.compared:,} another cluster or confidence than "
                "the model does: ONNX Runtime computes otherwise here."
            )
    if json:
        print_json({"folder": str(to), "models": [asdict(model) for model in written]})
        return
    columns = ["file", "model", "method", "clusters", "bytes", "compared", "different"]
    rows = [
        [m.file.name, m.model_version, m.method, m.clusters, f"{m.bytes:,}", f"{m.compared:,}", f"{m.different:,}"]
        for m in written
    ]
    out.print(table(f"ONNX files in {to}", columns, rows, numeric=columns[3:]))
