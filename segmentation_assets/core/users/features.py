"""What a user does, in numbers.

What belongs here: the features, their definitions and units, and outliers among them. What does not: cleaning, scores
made of features (scores), scaling them for a clusterer (preprocessing).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from segmentation_assets.core.numbering import numbered
from segmentation_assets.core.settings import FeatureSettings
from segmentation_assets.core.users.cleaning import CleanSessions, milliseconds
from segmentation_assets.core.users.imputation import MARK
from segmentation_assets.errors import SegmentsError

PRODUCT_EVENTS = ("view", "click", "add_to_cart", "purchase")
"""What users do with products. An impression is what a shop does."""

OTHER = "other"
"""Ends the name of the share of all values that have no share of their own."""

WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
HOURS = tuple(f"{hour:02}" for hour in range(24))

SHARES = frozenset({"categories", "hours", "weekdays", "devices", "segments"})
"""Groups of features that are the parts of a whole."""

Kind = Literal["number", "text"]

TRAITS: dict[str, Kind] = {
    "device": "text",
    "country": "text",
    "region": "text",
    "age": "number",
    "gender": "text",
    "location": "text",
    "signup_days": "number",
    "subscription_days": "number",
}
"""Every column that ``UserFeatures.traits`` can have, and what is in it."""


@dataclass(frozen=True)
class Feature:
    """What a feature is.

    Attributes:
        name: of the column; of shares, how the columns' names begin: ``category_share:Shoes``.
        group: what it belongs to.
        unit: what it is counted in.
        meaning: its definition, for people.
    """

    name: str
    group: str
    unit: str
    meaning: str


FEATURES: tuple[Feature, ...] = (
    Feature("sessions", "visits", "sessions", "sessions in the data window"),
    Feature("searches", "visits", "searches", "search events, or sessions where there are more: each begins with one"),
    Feature("active_days", "visits", "days", "different days (UTC) with a session"),
    Feature("sessions_per_week", "visits", "per week", "sessions by the weeks since the first one, at least one week"),
    Feature("recency_days", "visits", "days", "from the last session to the end of the window"),
    Feature("tenure_days", "visits", "days", "from the first session to the end of the window"),
    Feature("session_duration", "duration", "seconds", "mean duration of a session, filled ones included"),
    Feature("clicks", "clicks", "clicks", "clicks on products"),
    Feature("click_through", "clicks", "share", "share of the sessions with at least one click, 0..1"),
    Feature("views", "views", "views", "views of products"),
    Feature("views_without_purchase", "views", "views", "views of known products that the user never bought"),
    Feature("add_to_carts", "carts", "times", "how often a product was put into the cart"),
    Feature(
        "purchases",
        "purchases",
        "orders",
        "orders: purchases of one transaction are one; without a transaction id, those of one moment of a session",
    ),
    Feature(
        "purchases_per_month",
        "purchases",
        "per month",
        "orders by the months (30 days) since the first session, at least one",
    ),
    Feature(
        "spend",
        "purchases",
        "money",
        "price times quantity of everything bought; not defined where something was bought but no price is known",
    ),
    Feature("average_spend", "purchases", "money", "spend by order with a price; not defined without one"),
    Feature("conversion", "purchases", "share", "share of the sessions with a purchase, 0..1"),
    Feature(
        "price_level",
        "prices",
        "rank",
        "mean rank of the prices of what was viewed, clicked, put into the cart or bought, among all prices seen in "
        "its category, 0 (cheapest) to 1",
    ),
    Feature("category_share", "categories", "share", "share of the user's product events in a category, 0..1"),
    Feature("hour_share", "hours", "share", "share of the sessions that begin in an hour of the day (UTC), 00 to 23"),
    Feature("weekday_share", "weekdays", "share", "share of the sessions on a day of the week (UTC), mon to sun"),
    Feature("device_share", "devices", "share", "share of the sessions with a recorded device that are on one"),
    Feature("segment_share", "segments", "share", "share of the sessions with a query segment that are in one"),
)
"""Every feature; ``UserFeatures.groups`` and ``absent`` say which there are in a data set."""


@dataclass(frozen=True)
class UserFeatures:
    """Features of every user.

    Attributes:
        table: user_id and a float64 column for each feature, sorted by user_id; null where it is not defined for a user
            (an average of no purchases). Every user of the sessions that came in has a row.
        traits: user_id and text or float64 columns of what a user is rather than does: device, country, region (the
            most frequent of the user's sessions), and what attributes there are (age, gender, location, and as days
            before the end of the window, negative after it, signup_days and subscription_days); same rows.
        groups: group to the features of ``table`` in it; of the shares, the columns that were made.
        absent: group, or single feature or trait, to why it is left out.
        outliers: user_id, feature, value, low, high: cells beyond the bounds, by user_id and in the order of the
            columns; a mark, nobody is left out.
        noise: user_id, noise (list of text), as ``CleanSessions.users``.
        start: first moment of the data window, aware UTC.
        end: last moment, which recency counts from.
    """

    table: pa.Table
    traits: pa.Table
    groups: dict[str, list[str]]
    absent: dict[str, str]
    outliers: pa.Table
    noise: pa.Table
    start: datetime
    end: datetime


class NoSessionsError(SegmentsError):
    """Users cannot be measured without a session."""


_DAY = 86_400_000  # milliseconds
_HOUR = 3_600_000
_THURSDAY = 3  # 1970-01-01, counted from Monday
_WEEK_DAYS, _MONTH_DAYS = 7.0, 30.0

_Values = NDArray[np.float64]
_Group = dict[str, _Values | str] | str
"""Feature to its values (n_users,), NaN where not defined, or to why there are none; or why there is no group."""


def measure(
    clean: CleanSessions,
    segments: pa.Table | None,
    attributes: pa.Table | None,
    settings: FeatureSettings,
    end: datetime | None = None,
) -> UserFeatures:
    """Measure every feature of every user.

    Marked users are measured as all others are; only what is normal (the bounds of outliers, which categories and
    devices are frequent) is found without them. A count is 0 for a user who did nothing of the kind, and an average or
    share of nothing is null. A feature that the data cannot tell of anybody has no column: ``absent`` says why.

    - price_level: all different (product, price) of a category, of events of any type and of all users, are ranked
      from 0 (the cheapest) to 1; equal prices have their mean rank, and a lone price is 0.5. A user's level is the mean
      over the priced product events (view, click, add_to_cart, purchase), each counting once. What has no category is
      not compared.
    - category_share, device_share: the ``max_categories`` most frequent (of equally frequent ones the first in order)
      have columns; all others are one, ``category_share:other``.
    - device, country, region: the most frequent of the user's sessions, of equally frequent ones the latest, then the
      first in order. What was filled in counts only for a user of whom nothing was recorded.
    - Outliers: beyond ``iqr_factor`` interquartile ranges from the quartiles (Tukey 1977, Exploratory Data Analysis),
      quartiles by linear interpolation; or beyond ``zscore`` standard deviations from the mean. A feature that has the
      same value for the middle half of the users has no interquartile range to go by, and a constant one no deviation:
      they have no outliers. Shares of a whole (``SHARES``) are not looked at: they are bounded, and for a user of few
      sessions they are extreme by nature.

    Args:
        clean: sessions, events and users.
        segments: session_id (each once) and segment, the query segment of each session; None where there are none.
            Sessions that are not in it, or have none, count in no share.
        attributes: columns of ``attributes.ATTRIBUTES_SCHEMA``, each user at most once; None where nothing is known.
        settings: categories and outliers.
        end: of the data window, aware; None, or before the last session: the moment of the last session.

    Raises:
        NoSessionsError: no session at all.
        ValueError: an end without a zone.
    """
    if len(clean.sessions) == 0:
        raise NoSessionsError(
            "Users cannot be measured: there is no session.",
            "Read some: look at what raw_sessions set aside and why, or import sessions.",
        )
    if end is not None and end.tzinfo is None:
        raise ValueError("the end of the window needs a time zone")
    data = _Data(clean, end)
    groups: dict[str, _Group] = {
        "visits": data.visits(),
        "duration": data.duration(),
        "clicks": data.clicks(),
        "views": data.views(),
        "carts": data.carts(),
        "purchases": data.purchases(),
        "prices": data.prices(),
        "categories": data.categories(settings.max_categories),
        "hours": data.hours(),
        "weekdays": data.weekdays(),
        "devices": data.devices(settings.max_categories),
        "segments": data.segments(segments),
    }
    traits, untold = data.traits(attributes)
    absent: dict[str, str] = {}
    names: dict[str, list[str]] = {}
    columns: dict[str, _Values] = {}
    for group, measured in groups.items():
        if isinstance(measured, str):
            absent[group] = measured
            continue
        values = {name: found for name, found in measured.items() if not isinstance(found, str)}
        absent |= {name: found for name, found in measured.items() if isinstance(found, str)}
        names[group] = list(values)
        columns |= values
    plain = {name: columns[name] for group, inside in names.items() if group not in SHARES for name in inside}
    return UserFeatures(
        table=pa.table({"user_id": data.users} | {name: _nullable(values) for name, values in columns.items()}),
        traits=traits,
        groups=names,
        absent=absent | untold,
        outliers=_outliers(data.users, plain, data.normal, settings),
        noise=clean.users.select(["user_id", "noise"]),
        start=_moment(data.start),
        end=_moment(data.end),
    )


def of_users(table: pa.Table, users: pa.Array | pa.ChunkedArray) -> pa.Table:
    """The rows of a table (with a column user_id, each once) that are about these users, in their order.

    A user without a row has one of nulls, in the column user_id as well.
    """
    return table.take(pc.index_in(_one(users), _one(table["user_id"])))


def _one(ids: pa.Array | pa.ChunkedArray) -> pa.Array:
    return ids.combine_chunks() if isinstance(ids, pa.ChunkedArray) else ids


def marked(features: UserFeatures) -> NDArray[np.bool_]:
    """(n,) which users are marked as noise, in the order of ``features.table``."""
    reasons = pc.list_value_length(features.noise["noise"])
    flagged = features.noise["user_id"].filter(pc.greater(reasons, 0)).combine_chunks()
    found = pc.is_in(features.table["user_id"].combine_chunks(), flagged)
    return np.asarray(found.to_numpy(zero_copy_only=False), dtype=np.bool_)


def reason_absent(features: UserFeatures, column: str) -> str:
    """Why the features have no such column, as they say it of the column or its group.

    Args:
        features: of users.
        column: a feature, one of its share columns, or a trait.
    """
    stem = column.partition(":")[0]
    group = next((feature.group for feature in FEATURES if feature.name == stem), column)
    for name in (column, stem, group):
        if name in features.absent:
            return features.absent[name]
    return "the data have no such column"


def _nullable(values: _Values) -> pa.Array:
    """NaN becomes null: what is not defined is missing."""
    return pa.array(values, pa.float64(), from_pandas=True)


def _moment(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def _places(values: pa.ChunkedArray, among: pa.Array | pa.ChunkedArray) -> NDArray[np.int64]:
    """(n,) place of each value among some; -1 where it is none of them or missing."""
    among = among.combine_chunks() if isinstance(among, pa.ChunkedArray) else among
    place = pc.index_in(values.combine_chunks(), among, skip_nulls=True)
    return np.asarray(pc.fill_null(place, -1).to_numpy(), dtype=np.int64)


def _known(column: pa.ChunkedArray) -> NDArray[np.bool_]:
    """(n,) which cells have a value."""
    return np.asarray(column.is_valid().to_numpy(), dtype=np.bool_)


def _codes(texts: pa.ChunkedArray) -> tuple[pa.Array, NDArray[np.int64]]:
    """The different texts, sorted, and (n,) the place of each among them, -1 for none."""
    known = _known(texts)
    different, place = numbered(texts.filter(pa.array(known)))
    result = np.full(len(texts), -1, dtype=np.int64)
    result[known] = place
    return different, result


def _divided(one: NDArray[np.float64] | NDArray[np.int64], by: NDArray[np.float64] | NDArray[np.int64]) -> _Values:
    """Quotients, NaN for those by 0."""
    return np.divide(one, by, out=np.full(np.shape(one), np.nan), where=np.asarray(by) != 0)


class _Data:
    """Sessions and events as numbers: the user of each row is its place among the users.

    Args:
        clean: see ``measure``.
        end: see ``measure``.
    """

    def __init__(self, clean: CleanSessions, end: datetime | None) -> None:
        self.users: pa.Array = clean.users["user_id"].combine_chunks()
        self.normal: NDArray[np.bool_] = pc.list_value_length(clean.users["noise"]).to_numpy() == 0
        self._sessions = clean.sessions
        self._user = _places(clean.sessions["user_id"], self.users)
        self._when = milliseconds(clean.sessions["timestamp"])
        self.start = int(self._when.min())
        latest = int(self._when.max())
        self.end = latest if end is None else max(latest, round(end.timestamp() * 1000))
        self._count = self._per_user(self._user)
        first, last = np.full(len(self.users), self.end), np.full(len(self.users), self.start)
        np.minimum.at(first, self._user, self._when)
        np.maximum.at(last, self._user, self._when)
        self._tenure = np.where(self._count > 0, (self.end - first) / _DAY, np.nan)
        self._recency = np.where(self._count > 0, (self.end - last) / _DAY, np.nan)
        self._events = clean.events
        self._owner = _places(clean.events["user_id"], self.users)
        kinds = {kind: np.asarray(pc.equal(clean.events["event_type"], kind).to_numpy()) for kind in _KINDS}
        self._is: dict[str, NDArray[np.bool_]] = kinds
        self._of_product = np.any([kinds[kind] for kind in PRODUCT_EVENTS], axis=0)
        self._product = _codes(clean.events["product_id"])[1]
        self._categories, self._category = _codes(clean.events["category"])

    def _per_user(self, rows: NDArray[np.int64], weights: _Values | None = None) -> _Values:
        """(n_users,) rows of each user, or the sum of their weights."""
        return np.bincount(rows, weights, minlength=len(self.users)).astype(np.float64)

    def visits(self) -> _Group:
        searches = self._per_user(self._owner[self._is["search"]])
        day = self._when // _DAY - self.start // _DAY
        span = int(day.max()) + 1
        days = np.unique(self._user * span + day) // span
        return {
            "sessions": self._count,
            "searches": np.maximum(searches, self._count),
            "active_days": self._per_user(days),
            "sessions_per_week": self._count / np.maximum(self._tenure / _WEEK_DAYS, 1),
            "recency_days": self._recency,
            "tenure_days": self._tenure,
        }

    def duration(self) -> _Group:
        if not self._has("duration"):
            return "no session has a duration"
        duration = self._sessions["duration"]
        known = _known(duration)
        user = self._user[known]
        return {"session_duration": _divided(self._per_user(user, duration.to_numpy()[known]), self._per_user(user))}

    def clicks(self) -> _Group:
        clicks = self._sessions["clicks"].to_numpy()
        if not clicks.any():
            return _KINDS["click"]
        return {
            "clicks": self._per_user(self._user, clicks.astype(np.float64)),
            "click_through": _divided(self._per_user(self._user[clicks > 0]), self._count),
        }

    def _none_of(self, kind: str) -> str | None:
        """Why nothing can be said of a kind of events; None where something can."""
        if len(self._owner) == 0:
            return "no session has events"
        return None if self._is[kind].any() else _KINDS[kind]

    def views(self) -> _Group:
        missing = self._none_of("view")
        if missing:
            return missing
        known = self._product >= 0
        viewed, bought = self._is["view"] & known, self._is["purchase"] & known
        result: dict[str, _Values | str] = {"views": self._per_user(self._owner[self._is["view"]])}
        if not viewed.any():
            return result | {"views_without_purchase": "no view has a product id"}
        if not bought.any():
            reason = "no purchase has a product id" if self._is["purchase"].any() else _KINDS["purchase"]
            return result | {"views_without_purchase": reason}
        pair = self._owner * (int(self._product.max()) + 1) + self._product
        never = ~np.isin(pair[viewed], pair[bought])
        return result | {"views_without_purchase": self._per_user(self._owner[viewed][never])}

    def carts(self) -> _Group:
        return self._none_of("add_to_cart") or {"add_to_carts": self._per_user(self._owner[self._is["add_to_cart"]])}

    def purchases(self) -> _Group:
        missing = self._none_of("purchase")
        if missing:
            return missing
        bought = self._events.filter(pa.array(self._is["purchase"]))
        owner = self._owner[self._is["purchase"]]
        price = bought["price"].to_numpy()
        priced = _known(bought["price"])
        order = _orders(bought)
        orders = self._per_user(_owners_of(order, owner))
        session = _places(bought["session_id"], self._sessions["session_id"])
        result: dict[str, _Values | str] = {
            "purchases": orders,
            "purchases_per_month": orders / np.maximum(self._tenure / _MONTH_DAYS, 1),
        }
        if priced.any():
            amount = price * pc.fill_null(bought["quantity"], 1.0).to_numpy()
            priced_orders = self._per_user(_owners_of(order[priced], owner[priced]))
            spend = self._per_user(owner[priced], amount[priced])
            spend[(orders > 0) & (priced_orders == 0)] = np.nan
            result |= {"spend": spend, "average_spend": _divided(spend, priced_orders)}
        else:
            result |= dict.fromkeys(("spend", "average_spend"), "no purchase has a price")
        converted = self._per_user(self._user[np.unique(session)])
        return result | {"conversion": _divided(converted, self._count)}

    def prices(self) -> _Group:
        if len(self._owner) == 0:
            return "no session has events"
        priced = _known(self._events["price"])
        if not (priced & self._of_product).any():
            return "no view, click, add_to_cart or purchase has a price"
        compared = priced & (self._category >= 0)
        mine = compared & self._of_product
        if not mine.any():
            return "nothing with a price has a category"
        price = np.unique(self._events["price"].to_numpy()[compared], return_inverse=True)[1]
        place = np.zeros(len(priced), dtype=np.int64)
        place[compared] = self._category[compared] * (int(price.max()) + 1) + price
        level = _levels(self._category[compared], place[compared], self._product[compared])
        of_mine = mine[compared]
        owner = self._owner[mine]
        return {"price_level": _divided(self._per_user(owner, level[of_mine]), self._per_user(owner))}

    def _shares(
        self, prefix: str, user: NDArray[np.int64], value: NDArray[np.int64], names: list[str]
    ) -> dict[str, _Values | str]:
        """Share of each user's rows that have each value; NaN for a user without rows."""
        size = len(names)
        counts = np.bincount(user * size + value, minlength=len(self.users) * size).reshape(-1, size)
        shares = _divided(counts, np.broadcast_to(counts.sum(axis=1, keepdims=True), counts.shape))
        return {f"{prefix}:{name}": np.ascontiguousarray(shares[:, n]) for n, name in enumerate(names)}

    def _frequent(
        self, prefix: str, user: NDArray[np.int64], value: NDArray[np.int64], texts: pa.Array, most: int
    ) -> dict[str, _Values | str]:
        """The shares of the most frequent texts, and of all others together.

        Args:
            prefix: of the columns' names.
            user: (m,) user of each row.
            value: (m,) place of its text among ``texts``.
            texts: sorted.
            most: texts with a column.
        """
        names = texts.to_pylist()
        usual = np.bincount(value[self.normal[user]], minlength=len(names))
        frequency = np.lexsort((np.arange(len(names)), -np.bincount(value, minlength=len(names)), -usual))
        # A text that reads like the name of the rest is part of the rest.
        chosen = [int(n) for n in frequency[:most] if names[n] != OTHER]
        column = np.full(len(names), len(chosen))
        column[chosen] = np.arange(len(chosen))
        rest = [OTHER] if len(chosen) < len(names) else []
        return self._shares(prefix, user, column[value], [names[n] for n in chosen] + rest)

    def categories(self, most: int) -> _Group:
        if len(self._owner) == 0:
            return "no session has events"
        rows = self._of_product & (self._category >= 0)
        if not rows.any():
            return "no view, click, add_to_cart or purchase has a category"
        # Numbered anew: a category of impressions alone is nobody's.
        different, value = _codes(self._events["category"].filter(pa.array(rows)))
        return self._frequent("category_share", self._owner[rows], value, different, most)

    def hours(self) -> _Group:
        return self._shares("hour_share", self._user, self._when // _HOUR % 24, list(HOURS))

    def weekdays(self) -> _Group:
        return self._shares("weekday_share", self._user, (self._when // _DAY + _THURSDAY) % 7, list(WEEKDAYS))

    def _has(self, name: str) -> bool:
        """Whether any session has a value in a column, of those that not every log has."""
        return name in self._sessions.column_names and self._sessions[name].null_count < len(self._sessions)

    def _recorded(self, name: str) -> NDArray[np.bool_]:
        """(n_sessions,) which cells of a column were there before any was filled."""
        known = _known(self._sessions[name])
        if name + MARK in self._sessions.column_names:
            known &= ~np.asarray(self._sessions[name + MARK].to_numpy())
        return known

    def devices(self, most: int) -> _Group:
        if not self._has("device"):
            return "no session has a device"
        recorded = self._recorded("device")
        different, value = _codes(self._sessions["device"].filter(pa.array(recorded)))
        return self._frequent("device_share", self._user[recorded], value, different, most)

    def segments(self, segments: pa.Table | None) -> _Group:
        if segments is None:
            return "there are no query segments"
        place = _places(self._sessions["session_id"], segments["session_id"])
        found = segments["segment"].take(pa.array(place[place >= 0]))
        inside = np.flatnonzero(place >= 0)[_known(found)]
        if len(inside) == 0:
            return "no session has a query segment"
        different, value = _codes(found.drop_null())
        return self._shares("segment_share", self._user[inside], value, different.to_pylist())

    def traits(self, attributes: pa.Table | None) -> tuple[pa.Table, dict[str, str]]:
        """The table of traits, and trait to why it is left out."""
        columns: dict[str, pa.Array] = {"user_id": self.users}
        absent: dict[str, str] = {}
        for name in ("device", "country", "region"):
            if self._has(name):
                columns[name] = self._dominant(name)
            else:
                absent[name] = f"no session has a {name}"
        row = None if attributes is None else pc.index_in(self.users, attributes["user_id"].combine_chunks())
        for name, attribute in _ATTRIBUTES.items():
            if attributes is None or row is None:
                absent[name] = "there are no attributes"
            elif attribute not in attributes.column_names or (
                (values := attributes[attribute].combine_chunks().take(row)).null_count == len(values)
            ):
                absent[name] = f"no user's {attribute.replace('_', ' ')} is known"
            elif attribute == name:
                columns[name] = values
            else:
                columns[name] = pc.divide(
                    pc.subtract(float(self.end), values.cast(pa.int64()).cast(pa.float64())), _DAY
                )
        return pa.table(columns), absent

    def _dominant(self, name: str) -> pa.Array:
        """(n_users,) the most frequent text of each user's sessions."""
        different, value = _codes(self._sessions[name])
        known = value >= 0
        user, recorded = self._user[known], self._recorded(name)[known]
        pairs, pair, counts = np.unique(
            (user * len(different) + value[known]) * 2 + ~recorded, return_inverse=True, return_counts=True
        )
        latest = np.full(len(pairs), self.start)
        np.maximum.at(latest, pair, self._when[known])
        filled, pairs = pairs % 2, pairs // 2
        owner, text = pairs // len(different), pairs % len(different)
        order = np.lexsort((text, -latest, -counts, filled, owner))
        owners, first = np.unique(owner[order], return_index=True)
        chosen = np.full(len(self.users), -1, dtype=np.int64)
        chosen[owners] = text[order][first]
        return different.take(pa.array(chosen, mask=chosen < 0))


_KINDS = {
    "search": "no search was recorded",
    "view": "no view was recorded",
    "click": "no click was recorded",
    "add_to_cart": "no add_to_cart was recorded",
    "purchase": "no purchase was recorded",
}
_ATTRIBUTES = {
    "age": "age",
    "gender": "gender",
    "location": "location",
    "signup_days": "signup_date",
    "subscription_days": "subscription_date",
}
"""Trait to the attribute that it is made of."""


def _orders(bought: pa.Table) -> NDArray[np.int64]:
    """(n,) the order that each purchase belongs to, as a number."""
    number = np.unique(_codes(bought["transaction_id"])[1], return_inverse=True)[1]
    unnamed = ~_known(bought["transaction_id"])
    session = _codes(bought["session_id"])[1]
    when = np.unique(milliseconds(bought["timestamp"]), return_inverse=True)[1]
    user = _codes(bought["user_id"])[1]
    named = user * (int(number.max()) + 1) + number
    moment = session * (int(when.max()) + 1) + when + int(named.max()) + 1
    return np.asarray(np.where(unnamed, moment, named), dtype=np.int64)


def _owners_of(order: NDArray[np.int64], owner: NDArray[np.int64]) -> NDArray[np.int64]:
    """The owner of each different order."""
    return owner[np.unique(order, return_index=True)[1]]


def _levels(category: NDArray[np.int64], place: NDArray[np.int64], product: NDArray[np.int64]) -> _Values:
    """(n,) rank of each price among the different (product, price) of its category, 0 to 1.

    Args:
        category: (n,) number.
        place: (n,) number of category and price: equal for the same price of the same category, in the order of prices.
        product: (n,) number, -1 for none.
    """
    products = int(product.max()) + 2
    pairs = np.unique(place * products + product + 1)
    places, first, prices = np.unique(pairs // products, return_index=True, return_counts=True)
    of_category = np.empty(len(places), dtype=np.int64)
    of_place = np.searchsorted(places, place)
    of_category[of_place] = category
    _, begin, inverse = np.unique(of_category, return_index=True, return_inverse=True)
    size = np.bincount(inverse, prices)[inverse]
    before = first - first[begin][inverse]
    rank = before + (prices - 1) / 2
    level = np.divide(rank, size - 1, out=np.full(len(places), 0.5), where=size > 1)
    return np.asarray(level[of_place], dtype=np.float64)


def _outliers(
    users: pa.Array, columns: Mapping[str, _Values], normal: NDArray[np.bool_], settings: FeatureSettings
) -> pa.Table:
    """See ``UserFeatures.outliers``."""
    names = list(columns)
    parts = [
        (np.flatnonzero((values < low) | (values > high)), names.index(name), low, high)
        for name, values, low, high in _bounds(columns, normal, settings)
    ]
    empty = np.empty(0, np.int64)
    row = np.concatenate([empty, *(rows for rows, *_ in parts)])
    feature = np.concatenate([empty, *(np.full(len(rows), column) for rows, column, *_ in parts)])
    value = np.concatenate([np.empty(0), *(columns[names[column]][rows] for rows, column, *_ in parts)])
    low = np.concatenate([np.empty(0), *(np.full(len(rows), bound) for rows, _, bound, _ in parts)])
    high = np.concatenate([np.empty(0), *(np.full(len(rows), bound) for rows, *_, bound in parts)])
    order = np.lexsort((feature, row))
    return pa.table(
        {
            "user_id": users.take(pa.array(row[order])),
            "feature": pa.array(names, pa.string()).take(pa.array(feature[order])),
            "value": value[order],
            "low": low[order],
            "high": high[order],
        }
    )


def _bounds(
    columns: Mapping[str, _Values], normal: NDArray[np.bool_], settings: FeatureSettings
) -> Iterator[tuple[str, _Values, float, float]]:
    """Name, values and bounds of every feature that has bounds."""
    for name, values in columns.items():
        usual = values[normal & ~np.isnan(values)]
        if len(usual) == 0 or settings.outliers == "none":
            continue
        if settings.outliers == "iqr":
            first, third = (float(quartile) for quartile in np.quantile(usual, [0.25, 0.75]))
            low, high = first - settings.iqr_factor * (third - first), third + settings.iqr_factor * (third - first)
            varied = third > first
        else:
            mean, deviation = float(usual.mean()), float(usual.std())
            low, high = mean - settings.zscore * deviation, mean + settings.zscore * deviation
            varied = float(usual.max()) > float(usual.min())  # rounding gives a constant a deviation
        if varied:
            yield name, values, low, high
