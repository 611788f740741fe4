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
        key: names this wish; the same wish twice has the same key, two wishes never.
    """

    new: int
    due: bool
    cursor: str
    key: str


def look(cursor: str | None, uuids: Sequence[str], count: int, threshold: int) -> Arrivals:
    """Compare what is there with what was there.

    An index that was rebuilt (other uuids) counts from zero. Documents that were deleted lower the mark, so that as
    many new ones as ``threshold`` are needed from there, not from the old height.

    Args:
        cursor: of the last look; None or unreadable means there was none.
        uuids: of the indices behind the name.
        count: documents now.
        threshold: new documents that make a run due.
    """
    known = sorted(uuids)
    mark, wishes = _remembered(cursor, known)
    low = min(mark, count)
    new = count - low
    due = new >= threshold
    after = {"uuids": known, "mark": count if due else low, "wishes": wishes + due}
    # The wishes before this one are part of its name: after a deletion the counts may be what they were once before,
    # and Dagster never starts a second run for a key.
    digest = hashlib.sha256(json.dumps([known, count, low, wishes]).encode()).hexdigest()[:16]
    return Arrivals(new, due, json.dumps(after), f"new-sessions-{digest}")


def _remembered(cursor: str | None, uuids: list[str]) -> tuple[int, int]:
    """The mark (0 for other indices) and the number of wishes so far."""
    try:
        before = json.loads(cursor or "")
        mark, wishes = before["mark"], before["wishes"]
    except (ValueError, KeyError, TypeError):
        return 0, 0
    if type(mark) is not int or type(wishes) is not int or mark < 0:
        return 0, 0
    return (mark if before.get("uuids") == uuids else 0), wishes
