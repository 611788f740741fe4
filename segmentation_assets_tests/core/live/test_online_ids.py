"""How ids are carried from one clustering to the next."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from segmentation_assets.core.live.online.base import Carried, carry_ids, follow_merges


def carry(before: list[int], labels: list[int], weights: list[float] | None = None, next_id: int = 100) -> Carried:
    counted = np.ones(len(before)) if weights is None else np.array(weights)
    return carry_ids(np.array(before, np.int32), np.array(labels, np.int32), counted, next_id)


def test_what_is_the_same_keeps_its_id() -> None:
    found = carry([7, 7, 3, 3], [1, 1, 0, 0])
    assert found.ids.tolist() == [3, 7]
    assert found.next_id == 100
    assert found.merged == {}


def test_of_two_that_merge_the_larger_keeps_its_id() -> None:
    found = carry([1, 1, 2, 2, 2], [0, 0, 0, 0, 0])
    assert found.ids.tolist() == [2]
    assert found.merged == {1: 2}


def test_many_that_merge_keep_an_id() -> None:
    found = carry(list(range(10)), [0] * 10, [1.0] * 6 + [1.5] + [1.0] * 3)
    assert found.ids.tolist() == [6]
    assert found.merged == {i: 6 for i in range(10) if i != 6}


def test_the_larger_part_of_what_falls_apart_keeps_the_id() -> None:
    found = carry([5, 5, 5, 5, 5], [0, 0, 1, 1, 1])
    assert found.ids.tolist() == [100, 5]
    assert found.next_id == 101
    assert found.merged == {}


def test_weights_decide_and_not_numbers() -> None:
    assert carry([1, 1, 1, 2], [0, 0, 0, 0], [1, 1, 1, 9]).ids.tolist() == [2]


def test_next_to_nothing_in_common_makes_no_same_cluster() -> None:
    found = carry([4] * 20 + [-1] * 30, [-1] * 18 + [0] * 32)
    assert found.ids.tolist() == [100]
    assert found.merged == {}


def test_what_nobody_was_in_gets_a_new_id() -> None:
    assert carry([-1, -1, 2], [0, 1, 2]).ids.tolist() == [100, 101, 2]


@given(st.lists(st.tuples(st.integers(-1, 5), st.integers(0, 4)), min_size=1, max_size=40))
def test_ids_differ_and_those_that_are_gone_are_not_among_them(pairs: list[tuple[int, int]]) -> None:
    before, labels = (list(column) for column in zip(*pairs, strict=True))
    dense = np.unique(labels, return_inverse=True)[1]
    found = carry(before, dense.tolist())
    ids = found.ids.tolist()
    assert len(set(ids)) == len(ids) == max(dense) + 1
    assert set(ids) <= set(before) | set(range(100, found.next_id))
    assert -1 not in ids
    assert all(gone in before and gone not in ids and into in ids for gone, into in found.merged.items())


def test_merges_are_followed_to_what_lives() -> None:
    living = np.array([3, 9], np.int32)
    assert follow_merges({1: 2, 5: 6}, {2: 3}, living) == {1: 3, 2: 3}
