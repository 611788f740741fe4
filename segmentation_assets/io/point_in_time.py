"""Points in time: what an index holds at one moment, page by page.

What belongs here: going through all hits of one, and closing it. What does not: what is done with them (snapshot,
user_attributes, export).
"""

import contextlib
from collections.abc import Iterator
from typing import Any

from elasticsearch import ApiError, Elasticsearch, NotFoundError, TransportError

from segmentation_assets.errors import SegmentsError

KEEP_ALIVE = "2m"
"""Of a point in time, renewed with each page."""

PAGE_SIZE = 10_000


class ShortRead(SegmentsError):
    """Not all of the snapshot could be read; what was read is thrown away."""


def open_point_in_time(client: Elasticsearch, index: str) -> str:
    """Open one; a missing shard is an error, not fewer hits.

    Raises:
        elasticsearch.ApiError: the cluster refuses; ``NotFoundError`` where there is no such index.
    """
    return str(client.open_point_in_time(index=index, keep_alive=KEEP_ALIVE, allow_partial_search_results=False)["id"])


def close_point_in_time(client: Elasticsearch, pit: str) -> None:
    """Close it, or let it be: it expires by itself, and whatever went wrong before is what matters."""
    with contextlib.suppress(ApiError, TransportError):
        client.close_point_in_time(id=pit)


def hits(
    client: Elasticsearch, index: str, pit: str, *, page_size: int = PAGE_SIZE, **request: Any
) -> Iterator[dict[str, Any]]:
    """Every hit of a point in time, which is closed in the end.

    Args:
        client: the client.
        index: whose it is, for the error.
        pit: the point in time.
        page_size: hits in one answer, at most 10,000.
        request: what else is asked: query, source and the like.

    Raises:
        ShortRead: it was lost on the way.
        elasticsearch.ApiError: the cluster refuses.
    """
    after: list[Any] | None = None
    try:
        while True:
            try:
                answer = client.search(
                    pit={"id": pit, "keep_alive": KEEP_ALIVE},
                    sort=["_shard_doc"],
                    search_after=after,
                    size=page_size,
                    track_total_hits=False,
                    allow_partial_search_results=False,
                    **request,
                )
            except NotFoundError as error:
                raise lost(index) from error
            pit = str(answer["pit_id"])
            page = answer["hits"]["hits"]
            yield from page
            if len(page) < page_size:
                return
            after = page[-1]["sort"]
    finally:
        close_point_in_time(client, pit)


def lost(index: str) -> ShortRead:
    """The error of a point in time that is not there any more."""
    return ShortRead(
        f"The snapshot of {index} was lost during the read (index deleted, node gone, or too slow).",
        "Run again; nothing was used of this read.",
    )
