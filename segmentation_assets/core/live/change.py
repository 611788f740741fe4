"""How far a user's behaviour has moved since the user was last segmented, and whether that is far.

What belongs here: the distance, group by group. What does not: features for clusterers (features), what follows from a
change (segmenter).

Two kinds of groups. Of amounts, each is compared as ``|now - then| / max(now, then)``, the relative difference by the
larger of both, 0 for two zeros, and a group is the mean of its amounts: 10 sessions that have become 12 are 0.17, 13
are 0.23. Of shares, the group is the total variation distance ``sum |now - then| / 2`` between the two distributions:
the part of the user's attention that went from one thing to another. Both are between 0 and 1.
"""

from collections.abc import Mapping
from typing import TypeVar

from segmentation_assets.core.live.state import UserState

K = TypeVar("K", int, str)

AMOUNTS = ("sessions", "clicks", "views", "carts", "orders", "spend")
"""Of a state: what ``UserState.then`` holds, in this order."""

GROUPS: Mapping[str, tuple[str, ...]] = {
    "visits": ("sessions",),
    "attention": ("clicks", "views"),
    "purchases": ("carts", "orders", "spend"),
    "interests": ("interests",),
    "categories": ("categories",),
}
"""Group to what is compared in it."""


def behaviour_change(state: UserState) -> dict[str, float]:
    """Group to how far the user has moved in it since the last segmentation, 0..1; 1 before the first one."""
    if not state.then:
        return dict.fromkeys(GROUPS, 1.0)
    sessions, clicks, views, carts, orders, spend = state.then
    return {
        "visits": _relative(state.sessions, sessions),
        "attention": (_relative(state.clicks, clicks) + _relative(state.views, views)) / 2,
        "purchases": (_relative(state.carts, carts) + _relative(state.orders, orders) + _relative(state.spend, spend))
        / 3,
        "interests": _total_variation(
            {cluster: found[0] for cluster, found in state.interests.items()}, state.then_interests
        ),
        "categories": _total_variation(state.categories, state.then_categories),
    }


def has_changed(state: UserState, bound: float) -> bool:
    """Whether the change of any group is greater than a bound: the same as asking ``behaviour_change``, sooner."""
    then = state.then
    if not then:
        return True
    sessions = state.sessions
    if _relative(sessions, then[0]) > bound:
        return True
    if (_relative(state.clicks, then[1]) + _relative(state.views, then[2])) / 2 > bound:
        return True
    orders, spend = _relative(state.orders, then[4]), _relative(state.spend, then[5])
    if (_relative(state.carts, then[3]) + orders + spend) / 3 > bound:
        return True
    if sessions != then[0]:
        now = {cluster: found[0] for cluster, found in state.interests.items()}
        if _total_variation(now, state.then_interests) > bound:
            return True
    return (
        state.categories != state.then_categories and _total_variation(state.categories, state.then_categories) > bound
    )


def remember(state: UserState) -> None:
    """Note the behaviour as it is now, for later comparison."""
    state.then = [state.sessions, state.clicks, state.views, state.carts, state.orders, state.spend]
    state.then_interests = {cluster: found[0] for cluster, found in state.interests.items()}
    state.then_categories = dict(state.categories)
    state.segmentations += 1


def _relative(now: int, then: int) -> float:
    return abs(now - then) / max(now, then) if now != then else 0.0


def _total_variation(now: Mapping[K, int], then: Mapping[K, int]) -> float:
    total, before = sum(now.values()), sum(then.values())
    if not total or not before:
        return float(total != before)
    return sum(abs(now.get(name, 0) / total - then.get(name, 0) / before) for name in now.keys() | then.keys()) / 2
