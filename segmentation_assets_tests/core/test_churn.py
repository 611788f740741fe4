"""Users before and after: who changed segment, and whether they or the model did it."""

from collections import Counter

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from segmentation_assets.core.churn import Churn, Decision, Flow, changed_users, measure

SEGMENTS = st.sampled_from(["a", "b", "c", "other"])
USERS = st.dictionaries(st.sampled_from([f"u{n}" for n in range(12)]), SEGMENTS)


def table(users: dict[str, str]) -> pa.Table:
    """One row a user, as ``labels.dominant_segments`` gives them."""
    return pa.table(
        {"user_id": pa.array(list(users), pa.string()), "segment": pa.array(list(users.values()), pa.string())}
    )


def compared(before: dict[str, str], now: dict[str, str], replayed: dict[str, str]) -> Churn:
    return measure("v1", table(before), table(now), table(replayed))


def test_each_cause_by_hand() -> None:
    """The previous model on the new sessions says what would have been without the new one."""
    before = {"stays": "a", "drifts": "a", "is moved": "a", "drifts elsewhere": "a", "left": "b"}
    now = {"stays": "a", "drifts": "b", "is moved": "b", "drifts elsewhere": "c", "came": "b"}
    replayed = {"drifts": "b", "is moved": "a", "drifts elsewhere": "b"}
    found = compared(before, now, replayed)
    assert (found.users, found.came, found.left) == (4, 1, 1)
    assert (found.by_behaviour, found.by_model) == (2, 1)
    assert (found.changed_share, found.behaviour_share, found.model_share) == (0.75, 0.5, 0.25)
    assert found.flows == [Flow("a", "b", 2, 1, 1), Flow("a", "a", 1), Flow("a", "c", 1, 1, 0)]
    assert not found.first


def test_a_user_that_nobody_replayed_was_moved_by_the_model() -> None:
    """A missing number never excuses a model."""
    assert compared({"u": "a"}, {"u": "b"}, {}).by_model == 1


def test_nobody_in_both_is_no_churn() -> None:
    found = compared({"u": "a"}, {"v": "b"}, {})
    assert (found.users, found.came, found.left, found.changed_share, found.model_share) == (0, 1, 1, 0, 0)
    assert found.flows == []


def test_a_first_result_has_nothing_to_be_compared_with() -> None:
    assert Churn(None).first
    assert Churn(None).changed_share == 0


@given(USERS, USERS, USERS)
def test_every_user_is_counted_once_with_one_cause(
    before: dict[str, str], now: dict[str, str], replayed: dict[str, str]
) -> None:
    found = compared(before, now, replayed)
    both = before.keys() & now.keys()
    assert found.users == len(both) == sum(flow.users for flow in found.flows)
    assert found.users + found.came == len(now)
    assert found.users + found.left == len(before)
    changed = {user for user in both if before[user] != now[user]}
    assert sorted(changed_users(table(before), table(now)).to_pylist()) == sorted(changed)
    assert found.by_behaviour + found.by_model == len(changed)
    assert found.by_behaviour == sum(replayed.get(user, before[user]) != before[user] for user in changed)
    assert {(f.before, f.now): f.users for f in found.flows} == Counter((before[u], now[u]) for u in both)
    for flow in found.flows:
        assert flow.by_behaviour + flow.by_model == (0 if flow.before == flow.now else flow.users)


@given(USERS, USERS, USERS, st.randoms())
def test_the_order_of_the_users_changes_nothing(
    before: dict[str, str], now: dict[str, str], replayed: dict[str, str], chance: object
) -> None:
    def shuffled(users: dict[str, str]) -> dict[str, str]:
        items = list(users.items())
        chance.shuffle(items)  # type: ignore[attr-defined]
        return dict(items)

    assert compared(before, now, replayed) == compared(shuffled(before), shuffled(now), shuffled(replayed))


@given(USERS, USERS)
def test_a_model_that_was_kept_moves_nobody(before: dict[str, str], now: dict[str, str]) -> None:
    """Replaying it on the new sessions is what was published."""
    found = compared(before, now, now)
    assert found.by_model == 0
    assert found.changed_share == found.behaviour_share


def test_a_decision_is_one_line_and_its_numbers() -> None:
    assert Decision(False, "first model").summary == "took the new model: first model"
    assert Decision(False, "first model").numbers == {}
    kept = Decision(True, "the new model is not better", 1.0, 1.25, -0.2, 0.03)
    assert kept.summary == "kept the previous model: the new model is not better"
    assert kept.numbers == {"told_by_new_model": 1.0, "told_by_previous_model": 1.25, "gain": -0.2}
