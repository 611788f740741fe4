"""Sessions of an earlier read, brought up to date with the documents that were written since.

What belongs here: what the new documents replace, and whether the sum of both is all there is. What does not: finding
the new documents (io.session_reader).
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import count

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from segmentation_assets.core.details import in_order
from segmentation_assets.core.sessions import EXAMPLES_PER_REASON, Intake, Origin, Sessions

_FEW = 20
"""Finding the place of each of n rows pays where they are this many times fewer than the rows they go among."""


def updated(
    previous: Sessions,
    origin: Origin,
    fresh: Sessions,
    ids: Sequence[str],
    set_aside: Mapping[str, str],
    total: int,
) -> tuple[Sessions, dict[str, str]] | None:
    """What reading everything would give: the previous sessions with the new ones in their place or beside them.

    Args:
        previous: sessions whose ids are their documents'.
        origin: theirs.
        fresh: the sessions among the documents that were written since, or that may have been; ids likewise.
        ids: all those documents' ids, each once.
        set_aside: of them, those that were set aside, with the reason.
        total: documents that there are now.

    Returns:
        The sessions, and what is set aside now, by id; None where the numbers do not add up: documents were deleted.
    """
    if len(fresh) + len(set_aside) != len(ids):
        return None  # more were set aside than anybody remembers
    fetched = set(ids)
    replaced = pc.is_in(previous.table["session_id"], value_set=pa.array(ids, pa.string()))
    known = int(pc.sum(replaced).as_py() or 0) + len(origin.set_aside.keys() & fetched)
    if origin.intake.read - known + len(ids) != total:
        return None
    refused = {key: why for key, why in origin.set_aside.items() if key not in fetched} | dict(set_aside)
    intake = Intake(total, total - len(refused), dict(Counter(refused.values())), _examples(refused))
    table = _exchanged(previous.table, np.flatnonzero(replaced.to_numpy()), fresh.table)
    return Sessions(in_order(table), intake, fetched=len(ids)), refused


def _examples(refused: Mapping[str, str]) -> dict[str, list[str]]:
    examples: dict[str, list[str]] = {}
    for key, reason in refused.items():
        found = examples.setdefault(reason, [])
        if len(found) < EXAMPLES_PER_REASON:
            found.append(key[:64])
    return examples


def _exchanged(table: pa.Table, without: NDArray[np.int64], rows: pa.Table) -> pa.Table:
    """A table without some of its rows and with others, sorted by session_id, as both are by themselves."""
    if rows.num_rows * _FEW > table.num_rows:
        kept = np.ones(table.num_rows, dtype=np.bool_)
        kept[without] = False
        both = pa.concat_tables([table.filter(pa.array(kept)), rows], promote_options="default").combine_chunks()
        return both.take(pc.array_sort_indices(both["session_id"].combine_chunks())).combine_chunks()
    ids = table["session_id"].combine_chunks()
    places = [bisect_left(range(len(ids)), key, key=lambda i: ids[i].as_py()) for key in rows["session_id"].to_pylist()]
    parts, last = [table.slice(0, 0)], 0
    for place, number in sorted([*((place, -1) for place in without.tolist()), *zip(places, count())]):
        if place > last:
            parts.append(table.slice(last, place - last))
        if number < 0:
            last = place + 1
        else:
            parts.append(rows.slice(number, 1))
            last = max(last, place)
    parts.append(table.slice(last))
    return pa.concat_tables(
        parts, promote_options="default"
    ).combine_chunks()  # copies runs, where taking would copy one row at a time
