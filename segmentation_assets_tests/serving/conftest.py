"""What the tests of the API share: a model, both stores filled by it, and clients of the API over them.

What belongs here: fixtures. What does not: tests, what they make by hand (live_shop).
"""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from segmentation_assets.core.settings import ServeSettings, StreamSettings
from segmentation_assets.io.live_store import StateStore, open_store
from segmentation_assets.io.live_store.memory import MemoryStore
from segmentation_assets.local.redis import LocalRedis
from segmentation_assets.paths import DataDir
from segmentation_assets.serving.app import create_app
from segmentation_assets.serving.keys import ApiKeys
from segmentation_assets.serving.profiles import ProfileReader
from segmentation_assets_tests.batch_side import Batch, batch_side
from segmentation_assets_tests.serving.live_shop import Shop


@pytest.fixture(scope="session")
def batch() -> Batch:
    return batch_side(1_500, 8, method="kmeans")


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with LocalRedis(DataDir(tmp_path_factory.mktemp("redis"))) as running:
        yield running.url


@pytest.fixture(params=["memory", "redis"])
def store(request: pytest.FixtureRequest) -> Iterator[StateStore]:
    if request.param == "memory":
        yield MemoryStore()
        return
    found = open_store(request.getfixturevalue("redis_url"), f"test-{time.monotonic_ns()}")
    yield found
    found.close()


@pytest.fixture
def shop(store: StateStore, batch: Batch) -> Shop:
    return Shop(store, batch)


@pytest.fixture
def memory_shop(batch: Batch) -> Shop:
    return Shop(MemoryStore(), batch)


Ask = Callable[..., TestClient]


@pytest.fixture
def ask() -> Iterator[Ask]:
    """Makes a client of the API over a store."""
    with ExitStack() as open_ones:

        def made(
            store: StateStore,
            *,
            keys: ApiKeys | None = None,
            reader: ProfileReader | None = None,
            client: str = "127.0.0.1",
            host: str = "localhost",
            **settings: object,
        ) -> TestClient:
            app = create_app(store, ServeSettings(**settings), StreamSettings(), keys or ApiKeys(), reader)
            found = TestClient(
                app, f"http://{host}", raise_server_exceptions=False, client=(client, 5), follow_redirects=False
            )
            return open_ones.enter_context(found)

        yield made


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    return tmp_path / "keys.yaml"
