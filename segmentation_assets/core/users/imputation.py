"""Filling what is missing, and marking what was filled.

What belongs here: one value for the missing cells of a column, found in the others. What does not: which columns are to
be filled (settings), scaling and encoding (preprocessing).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

How = Literal["mean", "median", "mode", "unknown", "none"]

UNKNOWN = "Unknown"
MARK = "_imputed"
"""Ends the name of the column of truth values that says which cells were filled."""


@dataclass(frozen=True)
class Imputation:
    """What the missing cells of a column were filled with.

    Attributes:
        column: its name.
        how: 'mean', 'median', 'mode', 'unknown' or 'none'.
        value: what was filled in; None where nothing was, for 'none' or because no cell had a value.
        cells: how many were filled.
    """

    column: str
    how: How
    value: float | str | None
    cells: int


def find_value(column: pa.ChunkedArray, how: How, among: NDArray[np.bool_] | None = None) -> float | str | None:
    """The value that missing cells of a column are to be filled with; None where it has no value to go by.

    Args:
        column: numbers or text.
        how: 'mean' or 'median' for numbers; 'mode', the most frequent and of equally frequent ones the first in order,
            or 'unknown' for text; 'none'.
        among: (n,) rows to go by; None: all.

    Raises:
        ValueError: a mean or median of text, or an unknown number.
    """
    if how == "none":
        return None
    numeric = pa.types.is_integer(column.type) or pa.types.is_floating(column.type)
    if how in ("mean", "median") and not numeric:
        raise ValueError(f"text has no {how}: use 'mode' or 'unknown'")
    if how == "unknown":
        if numeric:
            raise ValueError("a number cannot be 'unknown': use 'mean' or 'median'")
        return UNKNOWN
    values = (column if among is None else column.filter(pa.array(among))).drop_null()
    if len(values) == 0:
        return None
    if how == "mean":
        return float(pc.mean(values).as_py())
    if how == "median":
        return float(np.median(values.to_numpy()))
    counted = values.value_counts()
    found = sorted(zip(counted.field("counts").to_pylist(), counted.field("values").to_pylist(), strict=True))
    most = found[-1][0]
    mode: float | str = next(value for count, value in found if count == most)
    return mode


def fill(table: pa.Table, values: Mapping[str, float | str | None]) -> pa.Table:
    """A table whose missing cells are filled, with a column ``<name>_imputed`` beside each that was looked at.

    Args:
        table: any.
        values: column to the value of its missing cells; None leaves them missing. Whole numbers that are filled with
            a number that is none become float64.
    """
    for name, value in values.items():
        column = table[name]
        missing = column.is_null()
        if isinstance(value, float) and pa.types.is_integer(column.type) and not value.is_integer():
            column = column.cast(pa.float64())  # or Arrow would cut the fraction off
        filled = pc.fill_null(column, pa.scalar(value, column.type)) if value is not None else column
        marked = missing if value is not None else pa.chunked_array([pa.array(np.zeros(len(column), np.bool_))])
        table = table.set_column(table.schema.get_field_index(name), name, filled).append_column(name + MARK, marked)
    return table


def impute(
    table: pa.Table, how: Mapping[str, How], among: NDArray[np.bool_] | None = None
) -> tuple[pa.Table, Sequence[Imputation]]:
    """Fill the missing cells of some columns; see ``find_value`` and ``fill``.

    Args:
        table: columns of numbers and text.
        how: column to how it is filled.
        among: (n_rows,) rows that the values are found in; None: all.
    """
    values = {name: find_value(table[name], chosen, among) for name, chosen in how.items()}
    account = [
        Imputation(name, chosen, values[name], 0 if values[name] is None else int(table[name].null_count))
        for name, chosen in how.items()
    ]
    return fill(table, values), account
