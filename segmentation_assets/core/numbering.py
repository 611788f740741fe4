"""Texts as numbers.

What belongs here: the one way in which the different texts of a column get numbers. What does not: what they stand for.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray


def numbered(texts: pa.Array | pa.ChunkedArray) -> tuple[pa.Array, NDArray[np.int32]]:
    """The different texts, sorted by their bytes, and (n,) the place of each text among them."""
    chunks = texts if isinstance(texts, pa.ChunkedArray) else pa.chunked_array([texts])
    encoded = pc.dictionary_encode(chunks.combine_chunks())
    order = pc.array_sort_indices(encoded.dictionary)
    place = np.empty(len(order), dtype=np.int32)
    place[order.to_numpy()] = np.arange(len(order), dtype=np.int32)
    return encoded.dictionary.take(order), place[encoded.indices.to_numpy()]
