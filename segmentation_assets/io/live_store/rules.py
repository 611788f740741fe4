"""What all stores do alike.

What belongs here: the numbers and small rules that a store has to keep to for the others to be like it. What does not:
the contract (base), any store.
"""

import re
from collections.abc import Mapping

KEPT_CHANGES = 10_000
"""The newest changes, which are kept also when every sink has told them on."""

UNTOLD_CHANGES = 100_000
"""Changes, about, that are kept as long as no sink has asked for its cursor."""

MOST_CHANGES = 5_000_000
"""Changes that are kept at most, about, whoever has still to tell them on: a gigabyte or two. Beyond it the oldest are
lost to him."""

SINK_SECONDS = 7 * 86_400
"""A sink that has not been heard of for so long is gone, and holds nothing back any more."""

POPULAR_SECONDS = 8 * 86_400
"""How long it is known what products were looked at in an hour."""

UNREADABLE = "unreadable_states"
"""Among the totals: how often a state was asked for that could not be read."""

_ID = re.compile(r"([0-9]{1,18})-([0-9]{1,18})")


def as_pair(change_id: str) -> tuple[int, int]:
    """The id of a change, comparable.

    Raises:
        ValueError: it is none.
    """
    found = _ID.fullmatch(change_id)
    if found is None:
        raise ValueError("the id of a change is two whole numbers, as in 12-0")
    return int(found[1]), int(found[2])


def proportional(sizes: Mapping[str, int], number: int) -> dict[str, int]:
    """Divide a number among groups by their sizes: the largest remainders get what is left over.

    All of every group where there are not more than ``number``.
    """
    total = sum(sizes.values())
    if total <= number:
        return dict(sizes)
    whole = {name: size * number // total for name, size in sizes.items()}
    by_remainder = sorted(sizes, key=lambda name: (-(sizes[name] * number % total), name))
    for name in by_remainder[: number - sum(whole.values())]:
        whole[name] += 1
    return whole
