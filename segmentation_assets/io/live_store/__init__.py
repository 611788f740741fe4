"""Where the states of users lie while events come in, behind one contract.

What belongs here: one file a store, and opening one by its address. What does not: what a state is (core.live.state).
"""

from segmentation_assets.io.live_store.base import (
    Claim,
    Commit,
    Conflict,
    Fenced,
    ModelRecord,
    Prepared,
    StateStore,
    StoredChange,
    StoredState,
    StoreUnavailable,
)

__all__ = [
    "Claim",
    "Commit",
    "Conflict",
    "Fenced",
    "ModelRecord",
    "Prepared",
    "StateStore",
    "StoreUnavailable",
    "StoredChange",
    "StoredState",
    "open_store",
]


def open_store(url: str, namespace: str = "segments") -> StateStore:
    """The store at an address: ``redis://`` (``rediss://``, ``unix://``), or ``memory://`` for this process alone.

    Args:
        url: of the store; may hold a password, which goes into no message.
        namespace: begins every key, so that several installations can share a server.

    Raises:
        MissingExtraError: the extra [stream] is not installed.
        StoreUnavailable: nobody answers there.
        ValueError: of an address of another kind.
    """
    scheme = url.partition("://")[0]
    if scheme == "memory":
        from segmentation_assets.io.live_store.memory import MemoryStore

        return MemoryStore()
    if scheme in ("redis", "rediss", "unix"):
        from segmentation_assets.io.live_store.redis import RedisStore

        return RedisStore(url, namespace)
    raise ValueError("the address of a state store begins with redis://, rediss://, unix:// or memory://")
