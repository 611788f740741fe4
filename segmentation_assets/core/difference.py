"""Two tables of documents: what has to be written and removed to make the one of the other.

What belongs here: comparing tables row by row, and the digest by which a table is known again. What does not: writing.
"""

import hashlib

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

_AT_ONCE = 100_000


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
        key: the column by which rows are the same.

    Returns:
        (n,) rows of ``now`` that are new or other than before, rising; and the keys that are there no more.
    """
    place = pc.index_in(now[key].combine_chunks(), before[key].combine_chunks())
    matched = np.flatnonzero(place.is_valid().to_numpy(zero_copy_only=False))
    there, rows = place.drop_null(), pa.array(matched)
    same = np.ones(len(matched), dtype=np.bool_)
    for name in now.column_names:
        if name != key:
            # One column at a time: two copies of everything would be the most that a run ever holds.
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
