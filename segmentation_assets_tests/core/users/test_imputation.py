"""Filling what is missing: with what, where, and the marks."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segmentation_assets.core.users.imputation import Imputation, fill, find_value, impute

NUMBERS = pa.chunked_array([[1.0, None, 10.0], [4.0]])
WHOLE = pa.chunked_array([pa.array([1, 2, None])])
TEXTS = pa.chunked_array([["b", "a", None], ["b", "a", "c"]])
NOTHING = pa.chunked_array([pa.array([None, None], pa.string())])


def test_a_value_is_found_by_each_rule() -> None:
    assert find_value(NUMBERS, "mean") == 5
    assert find_value(NUMBERS, "median") == 4
    assert find_value(NUMBERS, "none") is None
    assert find_value(TEXTS, "mode") == "a"  # as often as b, and before it
    assert find_value(TEXTS, "unknown") == "Unknown"
    assert find_value(TEXTS, "none") is None
    assert find_value(WHOLE, "median") == 1.5


def test_a_value_is_found_only_among_the_rows_to_go_by() -> None:
    assert find_value(NUMBERS, "mean", np.array([True, True, False, True])) == 2.5
    assert find_value(TEXTS, "mode", np.array([True, False, True, True, True, True])) == "b"
    assert find_value(NUMBERS, "mean", np.array([False, True, False, False])) is None


def test_nothing_is_made_of_nothing() -> None:
    assert find_value(NOTHING, "mode") is None
    table, account = impute(pa.table({"place": NOTHING}), {"place": "mode"})
    assert table.to_pydict() == {"place": [None, None], "place_imputed": [False, False]}
    assert account == [Imputation("place", "mode", None, 0)]


@pytest.mark.parametrize("how", ["mean", "median"])
def test_text_has_no_mean(how: str) -> None:
    with pytest.raises(ValueError, match=f"text has no {how}"):
        find_value(TEXTS, how)  # type: ignore[arg-type]


def test_a_number_cannot_be_unknown() -> None:
    with pytest.raises(ValueError, match="number"):
        find_value(NUMBERS, "unknown")


def test_what_was_filled_is_marked_and_the_rest_stays() -> None:
    table = pa.table({"seconds": NUMBERS, "other": pa.chunked_array([[1, 2, 3, 4]])})
    found, account = impute(table, {"seconds": "mean"})
    assert found.to_pydict() == {
        "seconds": [1, 5, 10, 4],
        "other": [1, 2, 3, 4],
        "seconds_imputed": [False, True, False, False],
    }
    assert account == [Imputation("seconds", "mean", 5.0, 1)]


def test_whole_numbers_can_be_filled_with_a_fraction() -> None:
    assert fill(pa.table({"n": WHOLE}), {"n": 1.5})["n"].to_pylist() == [1, 2, 1.5]
    kept = fill(pa.table({"n": WHOLE}), {"n": 2.0})["n"]
    assert (kept.to_pylist(), kept.type) == ([1, 2, 2], pa.int64())


@given(
    st.lists(st.none() | st.floats(-1e6, 1e6), min_size=1),
    st.sampled_from(["mean", "median"]),
    st.randoms(use_true_random=False),
)
def test_filling_changes_only_missing_cells(values: list[float | None], how: str, chance: object) -> None:
    column = pa.chunked_array([pa.array(values, pa.float64())])
    table, account = impute(pa.table({"x": column}), {"x": how})  # type: ignore[dict-item]
    known = [value for value in values if value is not None]
    for before, after, marked in zip(values, table["x"].to_pylist(), table["x_imputed"].to_pylist(), strict=True):
        assert after == (before if before is not None else account[0].value)
        assert marked == (before is None and bool(known))
    assert account[0].cells == sum(table["x_imputed"].to_pylist())
    if known:
        assert min(known) - 1e-6 <= account[0].value <= max(known) + 1e-6
    chance.shuffle(values)  # type: ignore[attr-defined]
    other = find_value(pa.chunked_array([pa.array(values, pa.float64())]), how)  # type: ignore[arg-type]
    assert other == (None if not known else pytest.approx(account[0].value, abs=1e-6))
