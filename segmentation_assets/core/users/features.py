"""What a user does, in numbers.

What belongs here: the features, their definitions and units, and outliers among them. What does not: cleaning, scores
made of features (scores), scaling them for a clusterer (preprocessing).
"""

from dataclasses import dataclass
from datetime import datetime

import pyarrow as pa


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
    Feature("session_duration", "duration", "seconds", "mean duration of a session"),
    Feature("clicks", "clicks", "clicks", "clicks on products"),
    Feature("click_through", "clicks", "share", "share of the sessions with at least one click, 0..1"),
    Feature("views", "views", "views", "views of products"),
    Feature("views_without_purchase", "views", "views", "views of products that the user never bought"),
    Feature("add_to_carts", "carts", "times", "products put into the cart"),
    Feature("purchases", "purchases", "orders", "orders: purchases of one transaction are one"),
    Feature(
        "purchases_per_month",
        "purchases",
        "per month",
        "orders by the months (30 days) since the first session, at least one",
    ),
    Feature("spend", "purchases", "money", "price times quantity of everything bought"),
    Feature("average_spend", "purchases", "money", "spend by order; not defined without an order"),
    Feature("conversion", "purchases", "share", "share of the sessions with a purchase, 0..1"),
    Feature(
        "price_level",
        "prices",
        "rank",
        "mean rank of the prices of what was viewed, clicked, put into the cart or bought, among all prices seen in its "
        "category, 0 (cheapest) to 1",
    ),
    Feature("category_share", "categories", "share", "share of the user's product events in a category, 0..1"),
    Feature("hour_share", "hours", "share", "share of the sessions that begin in an hour of the day (UTC), 00 to 23"),
    Feature("weekday_share", "weekdays", "share", "share of the sessions on a day of the week (UTC), mon to sun"),
    Feature("device_share", "devices", "share", "share of the sessions on a device"),
    Feature("segment_share", "segments", "share", "share of the sessions in a query segment"),
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
            before the end of the window signup_days and subscription_days); same rows.
        groups: group to the features of ``table`` in it; of the shares, the columns that were made.
        absent: group to why its features are left out.
        outliers: user_id, feature, value, low, high: cells beyond the bounds; a mark, nobody is left out.
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
