"""Two tables of documents: what has to be written and removed to make the one of the other.

What belongs here: comparing tables row by row, and the digest by which a table is known again. What does not: writing.
"""

import hashlib
from bisect import bisect_left
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

_AT_ONCE = 100_000
"""Rows that are looked at together."""


def content(table: pa.Table) -> str:
    """A digest of all values: the same for equal tables, however they lie in memory.

    Args:
        table: columns of text, numbers, truth values or moments.
    """
    digest = hashlib.blake2b(str(table.schema.remove_metadata()).encode(), digest_size=16)
    for column in table.columns:
        if column.null_count:
            digest.update(np.flatnonzero(column.is_null().to_numpy()).tobytes())
        for chunk in column.chunks:
            for start in range(0, len(chunk), _AT_ONCE):
                digest.update(_values(chunk.slice(start, _AT_ONCE)))
    digest.update(str(table.num_rows).encode())
    return digest.hexdigest()


def _values(chunk: pa.Array) -> memoryview:
    """The values alone: no offsets, which depend on where a chunk begins, and no lengths beside them but their ends."""
    if pa.types.is_string(chunk.type):
        # The end of each text is marked by a byte that UTF-8 never holds.
        marked = pc.binary_join_element_wise(pc.fill_null(chunk, "").cast(pa.binary()), b"", b"\xff")
        offsets = np.frombuffer(marked.buffers()[1], np.int32, len(marked) + 1, marked.offset * 4)
        return memoryview(marked.buffers()[2])[offsets[0] : offsets[-1]]
    if pa.types.is_timestamp(chunk.type):
        chunk = chunk.cast(pa.int64())
    values = pc.fill_null(chunk, False if pa.types.is_boolean(chunk.type) else 0)
    return np.ascontiguousarray(values.to_numpy(zero_copy_only=False)).view(np.uint8).data


def difference(before: pa.Table, now: pa.Table, key: str) -> tuple[NDArray[np.int64], pa.Array]:
    """What makes the second of the first.

    Args:
        before: columns of text, numbers, truth values or moments; the key's values all different.
        now: of the same schema, the keys all different as well.
        key: the column of text by which rows are the same. Where both tables are sorted by it, they are compared piece
            by piece, with no more memory than a piece takes.

    Returns:
        (n,) rows of ``now`` that are new or other than before, rising; and the keys that are there no more.
    """
    rows, gone = [np.empty(0, np.int64)], [pa.array([], before[key].type)]
    for old, new in _pieces(before[key], now[key]):
        found, missing = _difference(before.slice(old.start, len(old)), now.slice(new.start, len(new)), key)
        rows.append(found + new.start)
        gone.append(missing)
    return np.concatenate(rows), pa.concat_arrays(gone)


def _pieces(before: pa.ChunkedArray, now: pa.ChunkedArray) -> Iterator[tuple[range, range]]:
    """Rows of both tables that hold the same keys, if either does: all at once where the keys are not sorted."""
    if not (_is_sorted(before) and _is_sorted(now)):
        yield range(len(before)), range(len(now))
        return
    old = new = 0
    while old < len(before) or new < len(now):
        last = min(old + _AT_ONCE, len(before))
        end = (
            len(now)
            if last == len(before)
            else bisect_left(range(len(now)), before[last].as_py(), new, key=lambda i: now[i].as_py())
        )
        yield range(old, last), range(new, end)
        old, new = last, end


def _is_sorted(keys: pa.ChunkedArray) -> bool:
    ends = [(chunk[0].as_py(), chunk[-1].as_py()) for chunk in keys.chunks if len(chunk)]
    return all(one[1] <= other[0] for one, other in pairwise(ends)) and all(
        pc.all(pc.less_equal(chunk.slice(0, len(chunk) - 1), chunk.slice(1)), min_count=0).as_py()
        for chunk in keys.chunks
        if len(chunk)
    )


def _difference(before: pa.Table, now: pa.Table, key: str) -> tuple[NDArray[np.int64], pa.Array]:
    place = pc.index_in(now[key].combine_chunks(), before[key].combine_chunks())
    matched = np.flatnonzero(place.is_valid().to_numpy(zero_copy_only=False))
    there, rows = place.drop_null(), pa.array(matched)
    same = np.ones(len(matched), dtype=np.bool_)
    for name in now.column_names:
        if name != key:
            old, new = before[name].combine_chunks().take(there), now[name].combine_chunks().take(rows)
            same &= _mask(pc.equal(old, new)) | _mask(pc.and_(old.is_null(), new.is_null()))
    found = np.zeros(now.num_rows, dtype=np.bool_)
    found[matched] = same
    gone = pa.array([], before[key].type)
    if len(matched) < before.num_rows:
        gone = before[key].filter(pc.invert(pc.is_in(before[key], now[key].combine_chunks()))).combine_chunks()
    return np.flatnonzero(~found), gone


def _mask(truth: pa.Array) -> NDArray[np.bool_]:
    return np.asarray(pc.fill_null(truth, False).to_numpy(zero_copy_only=False), dtype=np.bool_)
