"""The state store of the stream as a resource.

What belongs here: which store, and one clear error where there is none. What does not: what is asked of it (live),
stores themselves (io.live_store).
"""

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg
from pydantic import Field

from segmentation_assets.errors import SegmentsError
from segmentation_assets.io.live_store import StateStore, StoreUnavailable, open_store
from segmentation_assets.paths import DataDir

VARIABLE = "SEGMENTS_REDIS_URL"


class StateStoreResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The store that workers of the stream write to; the local Redis of the data folder when no URL is given.

    Nothing is started and nothing is asked before it is used: without a store everything else works.
    """

    url: str | None = Field(
        None,
        description="Address (redis://, rediss://, unix://), which may hold a password: set it by dg.EnvVar. Not given:"
        " the Redis that `segments services start redis` started.",
    )
    namespace: str = Field("segments", min_length=1, description="Begins every key, for several installations.")
    data_dir: str | None = Field(
        None, description="Folder for everything kept on this machine; the user's data folder when not given."
    )

    def address(self) -> str:
        """Where the store is.

        Raises:
            StoreUnavailable: no URL is given and no local Redis runs.
        """
        if self.url:
            return self.url
        from segmentation_assets.local.redis import LocalRedis

        found = LocalRedis(DataDir.resolve(self.data_dir)).status()
        if found.state != "running" or found.url is None:
            raise StoreUnavailable(
                f"There is no state store: {VARIABLE} is not set, and no Redis of this data folder runs.",
                f"Run `segments services start redis`, or set {VARIABLE}.",
            )
        return found.url

    def missing(self) -> str | None:
        """Why there is nothing to ask, where nobody has set a stream up here; None where there is something."""
        if self.url:
            return None
        try:
            self.address()
        except StoreUnavailable as error:
            return str(error)
        return None

    @contextmanager
    def store(self) -> Iterator[StateStore]:
        """The store, closed at the end.

        Raises:
            StoreUnavailable: there is none, or it does not answer.
            MissingExtraError: the extra [stream] is not installed.
            SegmentsError: the URL is of no kind that is known.
        """
        try:
            store = open_store(self.address(), self.namespace)
        except ValueError:  # its text, and the one before it, may hold the address
            raise SegmentsError(
                f"{VARIABLE} is no address of a state store.", "Give one as redis://host:6379/0."
            ) from None
        try:
            yield store
        finally:
            store.close()
