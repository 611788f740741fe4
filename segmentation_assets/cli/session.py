"""One invocation of the command: which data folder, which server, for how long.

What belongs here: from options to environment, and the lease on the embedded node. What does not: running anything
on it.
"""

import importlib
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from segmentation_assets.cli.terminal import say
from segmentation_assets.errors import SegmentsError
from segmentation_assets.paths import HOME_VARIABLE, DataDir

DAGSTER_YAML = """\
# Written by `segments` when it was not there; yours to change.
telemetry:
  enabled: false
nux:
  enabled: false
freshness:
  enabled: true
"""


def use_data_dir(data_dir: Path | None, config: Path | None = None) -> DataDir:
    """Point this process, and all it starts, at a data folder.

    A DAGSTER_HOME that is already set is kept, unless a data folder was asked for by name.

    Raises:
        SegmentsError: the folder cannot be made or written to.
    """
    data = DataDir.resolve(data_dir)
    try:
        data.root.mkdir(parents=True, exist_ok=True)
        data.dagster.mkdir(exist_ok=True)
        if not (data.dagster / "dagster.yaml").exists():
            (data.dagster / "dagster.yaml").write_text(DAGSTER_YAML)
    except OSError as error:
        raise SegmentsError(
            f"The data folder {data.root} cannot be used: {error.strerror}.",
            f"Choose another with --data-dir or {HOME_VARIABLE}.",
        ) from None
    os.environ[HOME_VARIABLE] = str(data.root)
    if data_dir is not None or not os.environ.get("DAGSTER_HOME"):
        os.environ["DAGSTER_HOME"] = str(data.dagster)
    if config is not None:
        os.environ["SEGMENTS_CONFIG"] = str(config)
    for name in ("SEGMENTS_CONFIG", "ELASTICSEARCH_CA_CERTS"):  # what is started from here may work in another folder
        if os.environ.get(name):
            os.environ[name] = str(Path(os.environ[name]).expanduser().absolute())
    return data


def is_embedded() -> bool:
    """Whether no cluster was named."""
    return not os.environ.get("ELASTICSEARCH_URL")


_OF_A_RUN = ("sklearn.cluster", "sklearn.utils.extmath", "pandas", "matplotlib.figure", "matplotlib.font_manager")
"""Slow imports that are put off until they are needed; a run needs them all."""


def _import_what_follows(run: bool) -> None:
    with suppress(Exception):  # whatever is wrong with it is said where it is needed
        for name in ("segmentation_assets.definitions", *(_OF_A_RUN if run else ())):
            importlib.import_module(name)


@contextmanager
def server(data: DataDir, keep: bool = False, run: bool = False) -> Iterator[None]:
    """Have a server while inside: start the embedded node where no cluster is named, and stop it if nobody else uses
    it. ``run`` says that assets will be materialized.
    """
    if not is_embedded():
        yield
        return
    from segmentation_assets.local.elasticsearch import EmbeddedElasticsearch

    # The node takes seconds to start, and so do these imports, each mostly on a core of its own.
    imports = threading.Thread(target=_import_what_follows, args=(run,), daemon=True)
    imports.start()
    try:
        lease = EmbeddedElasticsearch(data).acquire(keep=keep, on_progress=say)
    finally:
        imports.join()
    try:
        yield
    finally:
        lease.release()
