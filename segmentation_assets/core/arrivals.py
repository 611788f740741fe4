"""Have enough new sessions arrived? A rule over counts.

What belongs here: the rule and its cursor. What does not: counting (io), asking for a run (defs).
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Arrivals:
    """The verdict of one look.

    Attributes:
        new: documents more than when a run was last requested (or than nothing, for a new index).
        due: whether a run is wanted.
        cursor: what to remember.
        key: names this wish; the same wish twice has the same key.
    """

    new: int
    due: bool
    cursor: str
    key: str


def look(cursor: str | None, uuids: Sequence[str], count: int, threshold: int) -> Arrivals:
    """Compare what is there with what was there.

    An index that was rebuilt (other uuids) counts from zero. Documents that were deleted lower the mark, so that as many
    new ones as ``threshold`` are needed from there, not from the old height.

    Args:
        cursor: of the last look; None or unreadable means there was none.
        uuids: of the indices behind the name.
        count: documents now.
        threshold: new documents that make a run due.
    """
    known = sorted(uuids)
    mark = _mark(cursor, known)
    low = min(mark, count)
    new = count - low
    due = new >= threshold
    after = {"uuids": known, "mark": count if due else low}
    digest = hashlib.sha256(json.dumps([known, count, low]).encode()).hexdigest()[:16]
    return Arrivals(new, due, json.dumps(after), f"new-sessions-{digest}")


def _mark(cursor: str | None, uuids: list[str]) -> int:
    try:
        before = json.loads(cursor or "")
        return int(before["mark"]) if before["uuids"] == uuids else 0
    except (ValueError, KeyError, TypeError):
        return 0
