"""The state of users as features: the same names, units and definitions as ``core.users.features``.

What belongs here: from states to the columns that the batch side's preprocessing takes. What does not: definitions
(core.users.features), scaling and clusters (core.users).
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from segmentation_assets.core.live.state import MONEY, UserState
from segmentation_assets.core.users.features import HOURS, OTHER, WEEKDAYS

_DAY = 86_400_000.0
_WEEK, _MONTH = 7.0, 30.0


def live_features(
    states: Sequence[UserState],
    users: Sequence[str],
    segments: Mapping[int, str],
    end: int | None = None,
    columns: Iterable[str] = (),
    traits: bool = True,
) -> tuple[pa.Table, pa.Table]:
    """Features and traits of users as far as their states tell.

    The same as ``core.users.features.measure`` says of the same sessions and events, as long as nothing had to be
    forgotten (``core.live.state``), prices are ranked among the same ones, and no duration was filled in. A feature of
    which the state knows nothing (an attribute of a user) is null.

    Args:
        states: (n,) of users with at least one event.
        users: (n,) their ids.
        segments: cluster of queries to its segment.
        end: of the window that recency and tenure count to, milliseconds; None: each user's own latest event.
        columns: shares that are wanted besides, by name (``category_share:Shoes``): who has none of it has 0.
        traits: whether they are wanted.

    Returns:
        a table of user_id and float64 features, and one of user_id and the traits device, country and region.
    """
    n = len(states)
    counts = np.array(
        [
            (
                s.sessions,
                s.searches,
                s.days,
                s.first_session if s.sessions else s.first,
                s.latest_session if s.sessions else s.latest,
                s.clicks,
                s.clicked,
                s.converted,
                s.views,
                s.unbought,
                s.carts,
                s.orders,
                s.priced_orders,
                s.spend,
                s.priced,
                s.level,
                s.timed,
                s.duration,
                s.visits,
            )
            for s in states
        ],
        dtype=np.float64,
    ).reshape(n, 19)
    sessions, searches, days, first, latest, clicks, clicked, converted, views, unbought = counts[:, :10].T
    carts, orders, priced_orders, spend, priced, level, timed, duration, visits = counts[:, 10:].T
    until = np.array([s.latest for s in states], np.float64) if end is None else np.full(n, float(end))
    tenure, recency = (until - first) / _DAY, (until - latest) / _DAY
    money = spend / MONEY
    money[(orders > 0) & (priced_orders == 0)] = np.nan
    values: dict[str, NDArray[np.float64]] = {
        "sessions": sessions,
        "searches": np.maximum(searches, sessions),
        "active_days": days,
        "sessions_per_week": sessions / np.maximum(tenure / _WEEK, 1),
        "recency_days": recency,
        "tenure_days": tenure,
        "session_duration": _divided(duration / 1000, timed),
        "clicks": clicks,
        "click_through": _divided(clicked, visits),
        "views": views,
        "views_without_purchase": unbought,
        "add_to_carts": carts,
        "purchases": orders,
        "purchases_per_month": orders / np.maximum(tenure / _MONTH, 1),
        "spend": money,
        "average_spend": _divided(money, priced_orders),
        "conversion": _divided(converted, visits),
        "price_level": _divided(level / MONEY, priced),
    }
    wanted = list(columns)
    values |= _shares("hour_share", [s.hours for s in states], HOURS, wanted)
    values |= _shares("weekday_share", [s.weekdays for s in states], WEEKDAYS, wanted)
    values |= _named_shares("category_share", [s.categories for s in states], wanted)
    values |= _named_shares("device_share", [{k: v[0] for k, v in s.devices.items()} for s in states], wanted)
    values |= _named_shares("segment_share", [_by_segment(s, segments) for s in states], wanted)
    ids = pa.array(users, pa.string())
    table = pa.table(
        {"user_id": ids} | {name: pa.array(v, pa.float64(), from_pandas=True) for name, v in values.items()}
    )
    if not traits:
        return table, pa.table({"user_id": ids})
    found = {
        "device": [_most(s.devices) for s in states],
        "country": [_most(s.countries) for s in states],
        "region": [_most(s.regions) for s in states],
    }
    return table, pa.table({"user_id": ids} | {name: pa.array(v, pa.string()) for name, v in found.items()})


def _by_segment(state: UserState, segments: Mapping[int, str]) -> dict[str, int]:
    found: dict[str, int] = {}
    for cluster, (sessions, _) in state.interests.items():
        name = segments.get(cluster, OTHER)
        found[name] = found.get(name, 0) + sessions
    return found


def _shares(
    prefix: str, counts: Sequence[Sequence[int]], names: Sequence[str], wanted: Sequence[str]
) -> dict[str, NDArray[np.float64]]:
    """Columns ``prefix:name`` of those that are wanted."""
    if not any(name.startswith(prefix + ":") for name in wanted):
        return {}
    table = np.array(counts, dtype=np.float64).reshape(len(counts), len(names))
    shares = _divided(table, table.sum(axis=1, keepdims=True))
    return {
        f"{prefix}:{name}": np.ascontiguousarray(shares[:, place])
        for place, name in enumerate(names)
        if f"{prefix}:{name}" in wanted
    }


def _named_shares(
    prefix: str, counts: Sequence[Mapping[str, int]], wanted: Sequence[str]
) -> dict[str, NDArray[np.float64]]:
    """The same of names that differ from user to user; what has no column of its own is ``prefix:other``."""
    names = [name.removeprefix(prefix + ":") for name in wanted if name.startswith(prefix + ":")]
    if not names:
        return {}
    table = np.array(
        [
            [
                sum(n for key, n in of_user.items() if key not in names or key == OTHER)
                if name == OTHER
                else of_user.get(name, 0)
                for name in names
            ]
            for of_user in counts
        ],
        dtype=np.float64,
    ).reshape(len(counts), len(names))
    total = np.array([sum(of_user.values()) for of_user in counts], dtype=np.float64)[:, None]
    shares = _divided(table, total)
    return {f"{prefix}:{name}": np.ascontiguousarray(shares[:, place]) for place, name in enumerate(names)}


def _most(names: Mapping[str, Sequence[int]]) -> str | None:
    """The most frequent one; of equally frequent ones the latest, then the first in order."""
    if not names:
        return None
    return min(names, key=lambda name: (-names[name][0], -names[name][1], name))


def _divided(one: NDArray[np.float64], by: NDArray[np.float64]) -> NDArray[np.float64]:
    by = np.broadcast_to(by, one.shape)
    return np.asarray(np.divide(one, by, out=np.full(one.shape, np.nan), where=by != 0), dtype=np.float64)


class Prices:
    """The prices that a shop's products have in each category, to say how dear one is among them.

    Args:
        table: category (text) and price (float64), a row for each different (category, product, price).
    """

    def __init__(self, table: pa.Table) -> None:
        self._of: dict[str, list[float]] = {}
        ordered = table.sort_by([("category", "ascending"), ("price", "ascending")])
        for category, price in zip(ordered["category"].to_pylist(), ordered["price"].to_pylist(), strict=True):
            self._of.setdefault(category, []).append(price)

    def level(self, category: str | None, price: float | None) -> float:
        """Rank of a price among those of its category, 0 (the cheapest) to 1; -1 where that cannot be said.

        Equal prices have their mean rank, and a lone price is 0.5, as in ``core.users.features``. A price that no
        product had has the rank of the place where it would stand.
        """
        if price is None or category is None:
            return -1.0
        prices = self._of.get(category)
        if prices is None:
            return -1.0
        if len(prices) == 1:
            return 0.5
        first, last = bisect_left(prices, price), bisect_right(prices, price)
        rank = (first + last - 1) / 2
        return min(max(rank / (len(prices) - 1), 0.0), 1.0)


def prices_of(events: pa.Table) -> pa.Table:
    """What ``Prices`` takes, of all events of the cleaned sessions that have a price and a category.

    Args:
        events: category, product_id, price, of ``CleanSessions.events``.
    """
    known = pc.and_(events["price"].is_valid(), events["category"].is_valid())
    named = events.filter(known).select(["category", "product_id", "price"])
    # One (product, price) is one, however often it was looked at.
    return named.group_by(["category", "product_id", "price"]).aggregate([]).select(["category", "price"])
