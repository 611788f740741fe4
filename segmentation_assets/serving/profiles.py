"""Published profiles, for users whom the stream does not know or while its store is away.

What belongs here: reading a few fields of them, quickly or not at all. What does not: publishing (io.profile_store).
"""

from collections.abc import Mapping, Sequence
from typing import Any

from elasticsearch import ApiError, Elasticsearch, TransportError

from segmentation_assets.errors import SegmentsError

FIELDS = ("segment", "cluster", "cluster_confidence", "persona", "model_version", "published_at")
TIMEOUT_SECONDS = 2.0


class ProfilesUnavailable(SegmentsError):
    """Elasticsearch does not answer, or refuses."""


class ProfileReader:
    """Reads profiles.

    Args:
        client: is not closed here.
        alias: of the profiles.
    """

    def __init__(self, client: Elasticsearch, alias: str) -> None:
        # Somebody waits: better no answer than one that comes late.
        self._client = client.options(request_timeout=TIMEOUT_SECONDS, max_retries=0, retry_on_timeout=False)
        self._alias = alias

    def read(self, users: Sequence[str]) -> dict[str, Mapping[str, Any]]:
        """User to ``FIELDS`` of the profile, of those who have one; of nobody where none were published.

        Raises:
            ProfilesUnavailable: see there.
        """
        if not users:
            return {}
        try:
            found = self._client.mget(index=self._alias, ids=list(users), source_includes=list(FIELDS))
        except (ApiError, TransportError) as error:
            raise ProfilesUnavailable(
                f"Elasticsearch does not answer ({type(error).__name__}).", "Ask again in a moment."
            ) from None
        return {document["_id"]: document["_source"] for document in found["docs"] if document.get("found")}
