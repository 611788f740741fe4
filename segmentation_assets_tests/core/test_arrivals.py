"""When new sessions make a run due: once for each threshold, through deletions, rebuilt indices and garbage."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segmentation_assets.core.arrivals import Arrivals, look


def watch(counts: list[int], threshold: int = 10, uuids: tuple[str, ...] = ("a",)) -> list[Arrivals]:
    """Looks at these counts, one after the other."""
    seen: list[Arrivals] = []
    for count in counts:
        seen.append(look(seen[-1].cursor if seen else None, uuids, count, threshold))
    return seen


def due(counts: list[int], threshold: int = 10) -> list[bool]:
    return [arrivals.due for arrivals in watch(counts, threshold)]


def test_a_run_is_due_at_the_threshold_and_once() -> None:
    assert due([0, 9, 10, 10, 19, 20, 20]) == [False, False, True, False, False, True, False]


def test_what_lies_there_at_the_first_look_counts_as_new() -> None:
    assert [a.new for a in watch([500, 500])] == [500, 0]
    assert due([500, 500]) == [True, False]


def test_many_at_once_are_one_run() -> None:
    assert due([95, 96]) == [True, False]


def test_deleted_documents_lower_the_mark() -> None:
    assert due([100, 40, 49, 50, 50]) == [True, False, False, True, False]


def test_a_rebuilt_index_counts_from_zero() -> None:
    before = look(None, ["a"], 100, 10)
    after = look(before.cursor, ["b"], 100, 10)
    assert (after.new, after.due) == (100, True)
    assert not look(after.cursor, ["b"], 100, 10).due


def test_the_order_of_the_indices_behind_a_name_does_not_matter() -> None:
    before = look(None, ["a", "b"], 100, 10)
    assert look(before.cursor, ["b", "a"], 100, 10).new == 0


def test_a_look_repeated_because_its_cursor_was_not_saved_is_the_same_wish() -> None:
    before = look(None, ["a"], 100, 10)
    assert look(before.cursor, ["a"], 120, 10) == look(before.cursor, ["a"], 120, 10)


def test_the_same_counts_after_a_deletion_are_another_wish() -> None:
    """Dagster starts no second run for a key it has seen, so a key used again would swallow the run."""
    wished = [a for a in watch([20, 10, 20, 10, 20]) if a.due]
    assert len(wished) == len({a.key for a in wished}) == 3


@pytest.mark.parametrize(
    "cursor",
    [
        None, "", "no json", "null", "[]", "3", "{}", '{"mark": 5}', '{"uuids": ["a"]}', '{"uuids": ["a"], "mark": 5}',
        '{"uuids": ["a"], "mark": "x", "wishes": 0}', '{"uuids": ["a"], "mark": null, "wishes": 0}',
        '{"uuids": ["a"], "mark": -50, "wishes": 0}', '{"uuids": ["a"], "mark": Infinity, "wishes": 0}',
        '{"uuids": ["a"], "mark": true, "wishes": 0}', '{"mark": 5, "wishes": 1}',
    ],
)  # fmt: skip
def test_a_cursor_that_cannot_be_read_counts_as_none(cursor: str | None) -> None:
    assert look(cursor, ["a"], 12, 10).new == 12
    assert look(cursor, ["a"], 12, 10).due


@given(st.text() | st.recursive(st.none() | st.floats() | st.text(), st.lists).map(json.dumps), st.integers(0, 99))
def test_no_cursor_is_an_error(cursor: str, count: int) -> None:
    assert look(cursor, ["a"], count, 10).new == count


steps = st.lists(st.integers(-30, 30), max_size=40)


@given(steps, st.integers(1, 25))
def test_runs_never_answer_for_more_documents_than_arrived_and_none_waits_too_long(
    changes: list[int], threshold: int
) -> None:
    count, added, answered, cursor, keys = 0, 0, 0, None, []
    low = 0  # since the last run
    for change in changes:
        before, count = count, max(count + change, 0)
        added += max(count - before, 0)
        arrivals = look(cursor, ["a"], count, threshold)
        low = min(low, count)
        assert arrivals.due is (count - low >= threshold)
        assert arrivals.new == count - low
        cursor = arrivals.cursor
        if arrivals.due:
            answered += arrivals.new
            low = count
            keys.append(arrivals.key)
        assert not look(cursor, ["a"], count, threshold).due  # nothing new, nothing due
    assert answered <= added
    assert len(keys) == len(set(keys)) <= added // threshold
