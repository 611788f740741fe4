"""Example sessions into an index, and what was meant by them into files beside.

What belongs here: writing what core.generate makes. What does not: making it.
"""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pyarrow.parquet as pq
from elasticsearch import Elasticsearch

from segmentation_assets.core.generate import generate_sessions
from segmentation_assets.io.elasticsearch import IndexMissing
from segmentation_assets.io.session_store import ImportSummary, count_sessions, rejected_index, write_sessions
from segmentation_assets.paths import DataDir

EXAMPLE_SESSIONS = 1_000
EXAMPLE_SEED = 42


def last_midnight(now: datetime) -> datetime:
    """Where generated sessions end: never in the future, and the same all day."""
    return now.replace(hour=0, minute=0, second=0, microsecond=0)


def seed_sessions(
    client: Elasticsearch,
    index: str,
    data: DataDir,
    *,
    sessions: int,
    seed: int,
    now: datetime,
    end: datetime | None = None,
    on_progress: Callable[[int, int | None], None] | None = None,
) -> ImportSummary:
    """Generate sessions and write them; the same seed and end give the same sessions under the same ids.

    The tastes that were meant go to Parquet files below ``data.truth``, never to the index.
    """
    generated = generate_sessions(sessions, seed, end or last_midnight(now))
    _write_truth(generated.truth.sessions, data.truth / f"{index}-{seed}-{sessions}-sessions.parquet")
    _write_truth(generated.truth.users, data.truth / f"{index}-{seed}-{sessions}-users.parquet")
    records = ((document["session_id"], document) for document in generated.documents)
    return write_sessions(
        client, index, records, source=f"generated-{seed}-{sessions}", now=now, on_progress=on_progress
    )


def seed_when_empty(
    client: Elasticsearch,
    index: str,
    data: DataDir,
    now: datetime,
    sessions: int = EXAMPLE_SESSIONS,
    seed: int = EXAMPLE_SEED,
) -> int:
    """Seed an index that is absent or empty, and return how many sessions were written: 0 where there was something.

    An index that is empty because everything imported into it was rejected counts as having something: those rejects
    are what
    its owner has to see.
    """
    for name in (index, rejected_index(index)):
        try:
            if count_sessions(client, name):
                return 0
        except IndexMissing:
            continue
    return seed_sessions(client, index, data, sessions=sessions, seed=seed, now=now).indexed


def _write_truth(table, path: Path) -> None:  # type: ignore[no-untyped-def]  # pyarrow ships no types
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)
