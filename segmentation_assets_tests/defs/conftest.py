"""The whole graph, in process, on an instance of its own and the real node.

What belongs here: fixtures for tests of defs. What does not: tests.
"""

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from elasticsearch import Elasticsearch

from segmentation_assets.definitions import build_definitions
from segmentation_assets.defs.failures import cause_of
from segmentation_assets.defs.resources import ArtifactIOManager, ElasticsearchResource, SettingsResource
from segmentation_assets.io.artifacts import ArtifactStore
from segmentation_assets.io.seeding import seed_sessions
from segmentation_assets.io.session_store import write_sessions
from segmentation_assets.paths import DataDir


class Graph:
    """The product's definitions on one server, with a data folder and a Dagster instance that are this test's alone."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.data = DataDir(folder / "data")
        self.settings_file = folder / "segments.yaml"
        self.settings_file.write_text("{}\n")
        self.store = ArtifactStore(self.data.storage)
        (folder / "dagster").mkdir()
        self.instance = dg.DagsterInstance.local_temp(str(folder / "dagster"))

    def resources(self, **instead: Any) -> dict[str, Any]:
        return {
            "elasticsearch": ElasticsearchResource(url=self.url, data_dir=str(self.data.root), max_retries=0),
            "settings": SettingsResource(file=str(self.settings_file)),
            "io_manager": ArtifactIOManager(data_dir=str(self.data.root)),
            **instead,
        }

    def settings(self, yaml: str) -> None:
        self.settings_file.write_text(yaml)

    def run(
        self, *assets: str, config: dict[str, Any] | None = None, resources: dict[str, Any] | None = None
    ) -> dg.ExecuteInProcessResult:
        """Materialize the assets named, or all of them; what fails is in the result."""
        quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
        job = build_definitions(self.resources(**(resources or {}))).resolve_job_def("segmentation")
        return job.execute_in_process(
            instance=self.instance,
            run_config={"ops": {name: {"config": value} for name, value in (config or {}).items()}, **quiet},
            asset_selection=[dg.AssetKey(name) for name in assets] or None,
            raise_on_error=False,
        )


@pytest.fixture
def graph_at(tmp_path: Path) -> Iterator[Callable[[str], Graph]]:
    """A function that gives a ``Graph`` on the server of a URL."""
    made: list[Graph] = []

    def make(url: str) -> Graph:
        folder = tmp_path / f"graph-{len(made)}"
        folder.mkdir()
        made.append(Graph(url, folder))
        return made[-1]

    yield make
    for graph in made:
        graph.instance.dispose()


@pytest.fixture
def graph(graph_at: Callable[[str], Graph], elasticsearch_url: str, es: Elasticsearch) -> Graph:
    """A ``Graph`` on the shared node, which is empty."""
    return graph_at(elasticsearch_url)


@pytest.fixture
def seed(es: Elasticsearch, tmp_path: Path) -> Callable[..., int]:
    """A function that writes generated sessions, of queries and clicks alone, and returns how many."""

    def write(sessions: int = 600, seed: int = 42, index: str = "user_sessions") -> int:
        data = DataDir(tmp_path / "seed")
        summary = seed_sessions(es, index, data, sessions=sessions, seed=seed, now=datetime.now(UTC), behaviour=False)
        return summary.indexed

    return write


@pytest.fixture
def insert(es: Elasticsearch) -> Callable[..., None]:
    """A function that writes a session for each query given, each by a user of its own."""

    def write(queries: Sequence[str], source: str = "test") -> None:
        start = datetime(2026, 1, 1, tzinfo=UTC)
        documents = (
            {
                "session_id": f"{source}-{number}",
                "user_id": f"user-{number}",
                "search_query": query,
                "clicked_product_ids": [],
                "timestamp": (start + timedelta(minutes=number)).isoformat(),
            }
            for number, query in enumerate(queries)
        )
        records = ((document["session_id"], document) for document in documents)
        write_sessions(es, "user_sessions", records, source=source, now=datetime.now(UTC))

    return write


@pytest.fixture
def causes() -> Callable[[dg.ExecuteInProcessResult], dict[str, str]]:
    """A function that gives, for each step that failed, what was raised, as recorded."""

    def of(result: dg.ExecuteInProcessResult) -> dict[str, str]:
        found = {}
        for event in result.all_events:
            if event.is_step_failure:
                found[event.step_key] = cause_of(event.step_failure_data.error)
        return found

    return of
