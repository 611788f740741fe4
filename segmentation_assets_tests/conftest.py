"""Fixtures shared by all tests: an isolated environment and one real Elasticsearch for the whole session.

What belongs here: fixtures. What does not: helpers to import, test data, tests.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from elasticsearch import Elasticsearch
from hypothesis import settings

from segmentation_assets.local.elasticsearch import EmbeddedElasticsearch
from segmentation_assets.paths import HOME_VARIABLE, DataDir

# How long an example takes says how busy the machine is, not whether the code is right.
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")

OURS = "segmentation"  # the names of the product's index templates start with this


@pytest.fixture(scope="session", autouse=True)
def isolated_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """No test reads the developer's settings or writes to their data folder. Gives the temporary SEGMENTS_HOME."""
    home = tmp_path_factory.mktemp("segments-home")
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith(("ELASTICSEARCH_", "SEGMENTS_")) or name == "DAGSTER_HOME":
                patch.delenv(name)
        patch.setenv(HOME_VARIABLE, str(home))
        yield home


@pytest.fixture(scope="session")
def elasticsearch_url(isolated_environment: Path) -> Iterator[str]:
    """The address of the one embedded node that all tests of this session share."""
    with EmbeddedElasticsearch(DataDir(isolated_environment)).acquire() as lease:
        yield lease.url


@pytest.fixture
def es(elasticsearch_url: str) -> Iterator[Elasticsearch]:
    """A client on the shared node, emptied before the test: no indices, no index templates of ours."""
    with Elasticsearch(elasticsearch_url, request_timeout=60) as client:
        _empty(client)
        yield client


def _empty(client: Elasticsearch) -> None:
    """Delete all indices (by name: wildcard deletion is refused by default) and our index templates."""
    names = [row["index"] for row in client.cat.indices(format="json", h="index").body]
    for name in names:
        client.indices.delete(index=name, ignore_unavailable=True)
    for template in client.indices.get_index_template().body["index_templates"]:
        if template["name"].startswith(OURS):
            client.indices.delete_index_template(name=template["name"])
