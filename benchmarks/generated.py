"""What benchmarks share of generated sessions.

What belongs here: the day they end, and the way from documents to sessions without an Elasticsearch. What does not:
how many, and what is measured on them.
"""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from segmentation_assets.core.sessions import SessionBuilder, Sessions

END = datetime(2026, 11, 1, tzinfo=UTC)
"""The end of every generated log, and the "now" at which it is read."""


def sessions_of(documents: Iterable[Mapping[str, Any]]) -> Sessions:
    """Documents as the reader of an index would give them."""
    builder = SessionBuilder(END)
    for document in documents:
        builder.add(document["session_id"], document)
    return builder.finish()
