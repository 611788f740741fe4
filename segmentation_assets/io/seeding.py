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
from segmentation_assets.io.user_attributes import write_attributes
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
    behaviour: bool = True,
    sessions_per_user: float | None = None,
    attributes_index: str | None = None,
    on_progress: Callable[[int, int | None], None] | None = None,
) -> ImportSummary:
    """Generate sessions and write them; the same seed and end give the same sessions under the same ids.

    The tastes and personas that were meant go to Parquet files below ``data.truth``, never to the index.

    Args:
        client: the client.
        index: for the sessions, created when absent.
        data: where the truth goes.
        sessions: how many.
        seed: of the generator.
        now: aware datetime, for what is written beside the sessions.
        end: when the log ends; None: the midnight before ``now``.
        behaviour: with events, duration, device, place and referrer; else a query and clicks only.
        sessions_per_user: mean; None: about 4.5.
        attributes_index: where to write what the shop knows of the users; None: nowhere. Without behaviour there is
            nothing to write.
        on_progress: called with the number of sessions written so far.

    Raises:
        SegmentsError: see ``session_store.write_sessions``.
    """
    generated = generate_sessions(
        sessions, seed, end or last_midnight(now), behaviour=behaviour, sessions_per_user=sessions_per_user
    )
    _write_truth(generated.truth.sessions, data.truth / f"{index}-{seed}-{sessions}-sessions.parquet")
    _write_truth(generated.truth.users, data.truth / f"{index}-{seed}-{sessions}-users.parquet")
    records = ((document["session_id"], document) for document in generated.documents)
    summary = write_sessions(
        client, index, records, source=f"generated-{seed}-{sessions}", now=now, on_progress=on_progress
    )
    if attributes_index is not None:
        write_attributes(client, attributes_index, generated.attributes, now=now)
    return summary


def seed_when_empty(
    client: Elasticsearch,
    index: str,
    data: DataDir,
    now: datetime,
    sessions: int = EXAMPLE_SESSIONS,
    seed: int = EXAMPLE_SEED,
    *,
    behaviour: bool = True,
    attributes_index: str | None = None,
) -> int:
    """Seed an index that is absent or empty, and return how many sessions were written: 0 where there was something.

    An index that is empty because everything imported into it was rejected counts as having something: those rejects
    are what its owner has to see. ``behaviour`` and ``attributes_index`` are those of ``seed_sessions``.
    """
    for name in (index, rejected_index(index)):
        try:
            if count_sessions(client, name):
                return 0
        except IndexMissing:
            continue
    return seed_sessions(
        client,
        index,
        data,
        sessions=sessions,
        seed=seed,
        now=now,
        behaviour=behaviour,
        attributes_index=attributes_index,
    ).indexed


def _write_truth(table, path: Path) -> None:  # type: ignore[no-untyped-def]  # pyarrow ships no types
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)
