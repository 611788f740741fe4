"""What a state store is.

What belongs here: the contract, and the records that go in and out. What does not: any store.

Every step of a worker is one ``commit``: the new states, the changes they led to, what products were looked at, and how
far the source was read, all or nothing. So a worker that dies between two commits has done nothing, and one that
begins again where the store says begins right.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from segmentation_assets.core.live.segmenter import Change
from segmentation_assets.core.live.state import UserState
from segmentation_assets.errors import SegmentsError


class StoreUnavailable(SegmentsError):
    """The store does not answer, or answers that it cannot."""


class Fenced(Exception):
    """Another worker reads this partition by now: whatever this one holds of it is void."""


@dataclass(frozen=True)
class Claim:
    """The right to write what a partition leads to, until somebody else claims it.

    Attributes:
        partition: of the source.
        token: grows with every claim of the partition.
        position: where to go on reading; None where nothing was read yet.
    """

    partition: str
    token: int
    position: str | None


@dataclass(frozen=True)
class Commit:
    """One step.

    Attributes:
        positions: the claim of every partition that the events came from, each with where to go on reading it after
            this step; None for a source that cannot be read again.
        states: user to new state; ``sequence`` is one more than that of the stored one, or 1.
        changes: of segments.
        products: (segment, hour since 1970, product) to weight, added to what is there.
        counts: name to how many (events, duplicates, late, dead, segmented), added to the totals.
        keep_seconds: how long a state is kept from now on.
    """

    positions: Sequence[tuple[Claim, str | None]]
    states: Mapping[str, UserState]
    changes: Sequence[Change] = ()
    products: Mapping[tuple[str, int, str], int] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    keep_seconds: int = 7_776_000


@dataclass(frozen=True)
class Conflict:
    """Users whose state somebody else changed meanwhile: nothing was written, of nobody."""

    users: list[str]


class Prepared:
    """A commit as its store writes it; every store has its own."""


@dataclass(frozen=True)
class StoredState:
    """A user as the API reads it."""

    user_id: str
    state: UserState


@dataclass(frozen=True)
class StoredChange:
    """A change with its place in the order of all: ids grow, and can be compared as ``(int, int)`` of ``a-b``."""

    id: str
    change: Change


@dataclass(frozen=True)
class ModelRecord:
    """A model that is there for all workers and the API.

    Attributes:
        version: of the ``LiveModel``.
        published_at: milliseconds.
        data: ``io.live_models.pack``.
    """

    version: str
    published_at: int
    data: bytes


class StateStore(Protocol):
    """A store. All methods may raise ``StoreUnavailable``. Safe to use from several threads."""

    # --- a worker's side -----------------------------------------------------------------------------------------

    def claim(self, partition: str) -> Claim:
        """Become the one who writes what a partition leads to; whoever was before is fenced."""

    def load(self, users: Sequence[str]) -> dict[str, UserState]:
        """The states of those of the users who have one."""

    def prepare(self, commit: Commit) -> Prepared:
        """All of a commit that can be done before it is written. The states may be changed afterwards."""

    def write(self, prepared: Prepared) -> Conflict | None:
        """Write a step, all or nothing. Later writes of one connection see earlier ones.

        Raises:
            Fenced: one of the claims was taken over; nothing was written.
        """

    def commit(self, commit: Commit) -> Conflict | None:
        """Prepare and write."""

    # --- models ------------------------------------------------------------------------------------------------------

    def publish_model(self, record: ModelRecord) -> None:
        """Make it the current model; the one before stays readable."""

    def current_model(self) -> str | None:
        """Version of the current model."""

    def model(self, version: str) -> ModelRecord | None:
        """A model that is still there: the current one and the one before."""

    def models(self) -> list[tuple[str, int]]:
        """(version, published at) of what ``model`` would give, newest first."""

    def report_worker(self, worker: str, said: Mapping[str, object], keep_seconds: int = 30) -> None:
        """What a worker says of itself (model version, events a second, lag ..), forgotten after so long."""

    def workers(self) -> dict[str, dict[str, object]]:
        """Worker to what it said last."""

    # --- readers -----------------------------------------------------------------------------------------------------

    def ping(self) -> bool:
        """Whether it answers. Raises nothing."""

    def members(self, segment: str, cursor: str | None, limit: int) -> tuple[list[tuple[str, int]], str | None]:
        """A page of (user, since) of a segment, by user id, and where the next page begins; None after the last."""

    def sizes(self) -> dict[str, int]:
        """Segment to users in it, those who were forgotten left out only as far as that was noticed."""

    def changes(self, after: str | None, limit: int, *, newest_first: bool = False) -> list[StoredChange]:
        """Changes after an id (None: from the first one there is), in their order; or the newest ones."""

    def wait_changes(self, after: str, limit: int, seconds: float) -> list[StoredChange]:
        """The same, waiting for the first one; ``after`` may be '$' for what comes from now on."""

    def popular(self, segment: str, hours: Sequence[int], limit: int) -> list[tuple[str, float]]:
        """(product, weight) of users of a segment in these hours since 1970, the heaviest first."""

    def totals(self) -> dict[str, int]:
        """``Commit.counts``, added up since ever."""

    def tidy(self, users: int) -> int:
        """Look at about so many members of each segment, and take out whose state was forgotten; how many those were.

        Called now and then, it comes round to everybody: then ``sizes`` does not count users who are gone.
        """

    def sample(self, users: int) -> list[StoredState]:
        """So many users, taken evenly over all; all where there are fewer."""

    # --- told on -----------------------------------------------------------------------------------------------------

    def cursor(self, sink: str) -> str | None:
        """Id of the last change that a sink has told on."""

    def advance(self, sink: str, change_id: str) -> None:
        """Note it; changes that every sink has told on may be forgotten, but for the newest 10,000."""

    def lock(self, name: str, owner: str, seconds: int) -> bool:
        """Hold, or go on holding, a lock for so long (0: give it back); False while somebody else does."""

    # --- what else a worker keeps ------------------------------------------------------------------------------------

    def keep(self, name: str, data: bytes, seconds: float | None = None) -> None:
        """Keep some bytes under a name, for so long, such as clusters that go on learning."""

    def kept(self, name: str) -> bytes | None:
        """Them."""

    def close(self) -> None:
        """Give the connections back."""
