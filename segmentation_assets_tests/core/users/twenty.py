"""Twenty users, small enough to be reckoned by hand, and what is to be found about them.

What belongs here: the sessions, their query segments, attributes, and the numbers reckoned by hand, with the arithmetic
beside them. What does not: tests, numbers that a program made.

The window ends at midnight before Sunday the 29th of March 2026. So the Sundays before it are the 22nd (7 days to the
end), 15th (14), 8th (21) and 1st of March (28); the 27th of February (30 days) is a Friday, the 28th of January (60)
a Wednesday.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from segmentation_assets.core.details import EVENT
from segmentation_assets.core.settings import CleaningSettings
from segmentation_assets.core.users.attributes import ATTRIBUTES_SCHEMA

END = datetime(2026, 3, 29, tzinfo=UTC)
START = datetime(2026, 1, 28, tzinfo=UTC)
"""The first session, of u04."""

CLEANING = CleaningSettings(internal_users=frozenset({"u20"}))
"""With what the users are to be cleaned: u20 is a colleague."""

PRODUCTS: dict[str, tuple[str | None, float | None]] = {
    # Shoes: 5 prices, so ranks 0 1 2 3 4 of 4
    "A": ("Shoes", 10.0),  # 0 / 4 = 0
    "B": ("Shoes", 20.0),  # 1 / 4 = 0.25
    "C": ("Shoes", 30.0),  # 2 / 4 = 0.5
    "D": ("Shoes", 40.0),  # 3 / 4 = 0.75
    "E": ("Shoes", 50.0),  # 4 / 4 = 1
    # Books: 3 prices, two of them equal: ranks 0.5 0.5 2 of 2
    "F": ("Books", 5.0),  # 0.5 / 2 = 0.25
    "G": ("Books", 5.0),  # 0.25
    "H": ("Books", 9.0),  # 2 / 2 = 1
    "K": ("Garden", 100.0),  # alone: 0.5
    "X": (None, 7.0),  # compared with nothing
    "Y": ("Toys", None),
}
"""Product to category and price."""


def moment(text: str) -> datetime:
    """'03-01' or '03-01 10:30' of the year 2026, UTC."""
    return datetime.fromisoformat(f"2026-{text}").replace(tzinfo=UTC)


def event(
    kind: str,
    product: str | None = None,
    when: str | None = None,
    quantity: float | None = None,
    transaction: str | None = None,
) -> dict[str, Any]:
    """An event; of a product with its category and price, at the moment of its session unless told otherwise."""
    category, price = PRODUCTS[product] if product else (None, None)
    return {
        "event_type": kind,
        "timestamp": moment(when) if when else None,
        "product_id": product,
        "category": category,
        "price": price,
        "quantity": quantity,
        "transaction_id": transaction,
    }


def session(
    key: str,
    when: str,
    clicks: Sequence[str] = (),
    duration: float | None = 100.0,
    device: str | None = "phone",
    events: Sequence[dict[str, Any]] = (),
    **others: str | None,
) -> dict[str, Any]:
    """A session of the user whose number its key begins with: s0102 is the second one of u01."""
    return {
        "session_id": key,
        "user_id": "u" + key[1:3],
        "search_query": "running shoes",
        "clicked_product_ids": list(clicks),
        "timestamp": moment(when),
        "duration": duration,
        "device": device,
        "country": "DE",
        "region": None,
        "events": list(events),
        **others,
    }


def buy(product: str, transaction: str | None = None, quantity: float | None = None, when: str | None = None) -> Any:
    return event("purchase", product, when, quantity, transaction)


SESSIONS: list[dict[str, Any]] = [
    # comes every Sunday and buys
    session("s0101", "03-01", "AB", 100, events=[event("view", "A"), event("add_to_cart", "A"), buy("A", "T1", 2)]),
    session("s0102", "03-08", "A", 200, events=[event("view", "B"), buy("B", "T2")]),
    session("s0103", "03-15", "", 300, "desktop"),
    session("s0104", "03-22", "", 400, events=[buy("C", "T3"), buy("D", "T3")]),
    # looks and never buys
    session("s0201", "03-15 06:00", "", 60, "desktop", [event("view", "A"), event("view", "E")]),
    session("s0202", "03-16 06:00", "", 120, "desktop", [event("view", "E"), event("view", "K")]),
    # leaves the cart; more click events than clicked products
    session(
        "s0301",
        "03-24 12:00",
        "A",
        30,
        events=[
            event("click", "A"),
            event("click", "B"),
            event("view", "B"),
            event("add_to_cart", "A"),
            event("add_to_cart", "B"),
        ],
    ),
    # here for two months; the first order is reported again in the second session, whose duration is missing
    session("s0401", "01-28", "", 50, events=[buy("K", "T4")]),
    session("s0402", "02-27", "", None, events=[buy("K", "T4")]),
    session("s0403", "03-28", "", 70, events=[buy("K", "T5", 3), buy("F", "T5")]),
    # at the very end of the window, on nobody knows what
    session("s0501", "03-29", device=None, country=None),
    # searches three times in a session
    session("s0601", "03-22 10:30", events=[event("search", when=f"03-22 10:3{n}") for n in range(3)]),
    # buys something without a price
    session("s0701", "03-15", events=[buy("Y", "T6")]),
    # buys without transaction ids: two things at once, a third one ten minutes later
    session("s0801", "03-01", events=[buy("A"), buy("B"), buy("C", when="03-01 00:10")]),
    # around midnight; one order with a price and one without
    session("s0901", "03-08 23:59", events=[buy("H", "T7", 2)]),
    session("s0902", "03-09", events=[buy("Y", "T8")]),
    # on the phone twice, at the desk twice, and there last
    session("s1001", "03-21", "", 10, "desktop", region="Berlin"),
    session("s1002", "03-22", "", 20, country="FR"),
    session("s1003", "03-23", "", 30),
    session("s1004", "03-24", "", 40, "desktop", region="Hessen"),
    # mostly on nobody knows what
    session("s1101", "03-21", device=None),
    session("s1102", "03-22", device=None),
    session("s1103", "03-22 01:00", device="tablet"),
    # two queries at the same moment
    session("s1201", "03-22", search_query="socks"),
    session("s1202", "03-22", device="desktop"),
    # the first session was logged twice, with more events the second time; a view of nobody knows what
    session("s1301", "03-22", "ABC", 999, events=[event("view")]),
    session("s1302", "03-22", events=[event("view"), event("search")]),
    session("s1303", "03-23", events=[event("view", "F"), buy("F", "T9"), event("view", "G")]),
    # the same view twice; an impression is no deed of the user
    session(
        "s1401",
        "03-22",
        events=[event("view", "A", "03-22 00:01"), event("view", "A", "03-22 00:01"), event("impression", "E")],
    ),
    # a product without a category, a session without a duration
    session("s1501", "03-22", duration=None, events=[event("view", "X")]),
    # every day of the last week
    session("s1601", "03-23", "A"),
    session("s1602", "03-24", "AB"),
    session("s1603", "03-25", "ABC"),
    session("s1604", "03-26"),
    session("s1605", "03-27"),
    session("s1606", "03-28", "A"),
    # comes once and buys dearly
    session("s1701", "02-27", "", 500, events=[buy("K", "T10", 10)]),
    # buys the same book in two orders
    session("s1801", "03-01", events=[event("view", "F"), buy("F", "T11")]),
    session("s1802", "03-15", "", 200, events=[buy("F", "T12")]),
    # never closes the window of the browser
    session("s1901", "03-01", "", 30_000),
    # a colleague
    session("s2001", "03-01", events=[event("view", "C")]),
    session("s2002", "03-15", events=[buy("E", "T13")]),
]

SESSIONS_READ, SESSIONS_USED = 42, 41  # without s1301
EVENTS_READ, EVENTS_USED = 45, 42
EVENTS_SET_ASIDE = {
    "of_duplicate_session": 1,  # the view of s1301
    "duplicate_event": 1,  # the second view of s1401
    "duplicate_transaction": 1,  # T4 in s0402
}
NOISE = {"u19": ["endless_session"], "u20": ["internal_user"]}
"""Why users are marked; all others are not."""

MEDIAN_DURATION = 100.0
# Durations recorded of users who are not marked: 8 below 100 (60, 30, 50, 70, 10, 20, 30, 40), 6 above it (200, 300,
# 400, 120, 500, 200), and more than those of exactly 100. It fills s0402 and s1501.

SEGMENTS = {
    "s0101": "shoes",
    "s0102": "shoes",
    "s0103": "books",
    "s0201": "shoes",
    "s0202": "other",
    "s1301": "books",  # set aside: counts nowhere
    "s1801": "books",
    "s1802": "books",
}
"""Session to query segment; the others have none."""

ATTRIBUTES: list[dict[str, Any]] = [
    {
        "user_id": "u01",
        "age": 30.0,
        "gender": "f",
        "location": "Berlin",
        "signup_date": moment("01-28"),
        "subscription_date": moment("03-01"),
    },
    {"user_id": "u02", "gender": "m"},
    {"user_id": "u04", "signup_date": moment("03-30")},  # after the window: known later than the sessions
    {"user_id": "nobody we know", "age": 50.0},
]


def sessions_table() -> pa.Table:
    """The sessions as the reader hands them on."""
    fields = {
        "timestamp": pa.timestamp("ms", tz="UTC"),
        "clicked_product_ids": pa.list_(pa.string()),
        "duration": pa.float64(),
        "events": pa.list_(EVENT),
    }
    schema = pa.schema([(name, fields.get(name, pa.string())) for name in SESSIONS[0]])
    return pa.Table.from_pylist(SESSIONS, schema=schema)


def segments_table() -> pa.Table:
    return pa.table({"session_id": list(SEGMENTS), "segment": list(SEGMENTS.values())})


def attributes_table() -> pa.Table:
    return pa.Table.from_pylist(ATTRIBUTES, schema=ATTRIBUTES_SCHEMA)


ONCE: dict[str, float | None] = {
    "sessions": 1,
    "searches": 1,
    "active_days": 1,
    "sessions_per_week": 1,  # 1 / 1: at most a week here
    "session_duration": 100,
    "clicks": 0,
    "click_through": 0,
    "views": 0,
    "views_without_purchase": 0,
    "add_to_carts": 0,
    "purchases": 0,
    "purchases_per_month": 0,
    "spend": 0,
    "average_spend": None,
    "conversion": 0,
    "price_level": None,
}
"""Of a user who came once, for 100 seconds, and did nothing but search."""

MINUTE = 1 / 1440  # days

EXPECTED: dict[str, dict[str, float | None]] = {
    "u01": ONCE
    | {
        "sessions": 4,
        "searches": 4,
        "active_days": 4,
        "sessions_per_week": 1,  # 4 sessions in 28 / 7 = 4 weeks
        "recency_days": 7,
        "tenure_days": 28,
        "session_duration": 250,  # (100 + 200 + 300 + 400) / 4
        "clicks": 3,
        "click_through": 0.5,  # 2 of 4
        "views": 2,  # A and B, and both were bought
        "add_to_carts": 1,
        "purchases": 3,
        "purchases_per_month": 3,  # 28 days count as a month
        "spend": 110,  # 2 * 10 + 20 + 30 + 40
        "average_spend": 110 / 3,
        "conversion": 0.75,
        "price_level": 0.25,  # A A A B B C D: (0 + 0 + 0 + 0.25 + 0.25 + 0.5 + 0.75) / 7 = 1.75 / 7
    },
    "u02": ONCE
    | {
        "sessions": 2,
        "searches": 2,
        "active_days": 2,
        "sessions_per_week": 14 / 13.75,  # 2 in 13.75 / 7 weeks
        "recency_days": 12.75,
        "tenure_days": 13.75,
        "session_duration": 90,  # (60 + 120) / 2
        "views": 4,
        "views_without_purchase": 4,
        "price_level": 0.625,  # A E E K: (0 + 1 + 1 + 0.5) / 4
    },
    "u03": ONCE
    | {
        "recency_days": 4.5,
        "tenure_days": 4.5,
        "session_duration": 30,
        "clicks": 2,  # of 2 events, though 1 clicked product
        "click_through": 1,
        "views": 1,
        "views_without_purchase": 1,
        "add_to_carts": 2,
        "price_level": 0.15,  # A B B A B: 3 * 0.25 / 5
    },
    "u04": ONCE
    | {
        "sessions": 3,
        "searches": 3,
        "active_days": 3,
        "sessions_per_week": 0.35,  # 3 in 60 / 7 weeks: 21 / 60
        "recency_days": 1,
        "tenure_days": 60,
        "session_duration": 220 / 3,  # (50 + 100 + 70) / 3, the 100 filled in
        "purchases": 2,  # T4 and T5
        "purchases_per_month": 1,  # 2 in 60 / 30 months
        "spend": 405,  # 100 + 3 * 100 + 5
        "average_spend": 202.5,
        "conversion": 2 / 3,
        "price_level": 1.25 / 3,  # K K F: 0.5 + 0.5 + 0.25
    },
    "u05": ONCE | {"recency_days": 0, "tenure_days": 0},
    "u06": ONCE | {"searches": 3, "recency_days": 6.5625, "tenure_days": 6.5625},  # 6 days and 13.5 hours
    "u07": ONCE
    | {
        "sessions_per_week": 0.5,  # 1 in 14 / 7 weeks
        "recency_days": 14,
        "tenure_days": 14,
        "purchases": 1,
        "purchases_per_month": 1,
        "spend": None,  # nobody knows
        "conversion": 1,
    },
    "u08": ONCE
    | {
        "sessions_per_week": 0.25,  # 1 in 4 weeks
        "recency_days": 28,
        "tenure_days": 28,
        "purchases": 2,  # A with B, and C
        "purchases_per_month": 2,
        "spend": 60,  # 10 + 20 + 30
        "average_spend": 30,
        "conversion": 1,
        "price_level": 0.25,  # (0 + 0.25 + 0.5) / 3
    },
    "u09": ONCE
    | {
        "sessions": 2,
        "searches": 2,
        "active_days": 2,  # the 8th and the 9th, a minute apart
        "sessions_per_week": 14 / (20 + MINUTE),
        "recency_days": 20,
        "tenure_days": 20 + MINUTE,
        "purchases": 2,
        "purchases_per_month": 2,
        "spend": 18,  # 2 * 9
        "average_spend": 18,  # by the one order that has a price
        "conversion": 1,
        "price_level": 1,  # H; Y has no price
    },
    "u10": ONCE
    | {
        "sessions": 4,
        "searches": 4,
        "active_days": 4,
        "sessions_per_week": 3.5,  # 4 in 8 / 7 weeks
        "recency_days": 5,
        "tenure_days": 8,
        "session_duration": 25,  # (10 + 20 + 30 + 40) / 4
    },
    "u11": ONCE
    | {
        "sessions": 3,
        "searches": 3,
        "active_days": 2,
        "sessions_per_week": 2.625,  # 3 in 8 / 7 weeks: 21 / 8
        "recency_days": 6 + 23 / 24,
        "tenure_days": 8,
    },
    "u12": ONCE | {"sessions": 2, "searches": 2, "sessions_per_week": 2, "recency_days": 7, "tenure_days": 7},
    "u13": ONCE
    | {
        "sessions": 2,
        "searches": 2,  # one search event, and each session begins with one
        "active_days": 2,
        "sessions_per_week": 2,
        "recency_days": 6,
        "tenure_days": 7,
        "views": 3,
        "views_without_purchase": 1,  # G: F was bought, and of the third nobody knows
        "purchases": 1,
        "purchases_per_month": 1,
        "spend": 5,
        "average_spend": 5,
        "conversion": 0.5,
        "price_level": 0.25,  # F F G
    },
    "u14": ONCE
    | {"recency_days": 7, "tenure_days": 7, "views": 1, "views_without_purchase": 1, "price_level": 0},  # A alone
    "u15": ONCE | {"recency_days": 7, "tenure_days": 7, "views": 1, "views_without_purchase": 1},  # duration filled in
    "u16": ONCE
    | {
        "sessions": 6,
        "searches": 6,
        "active_days": 6,
        "sessions_per_week": 6,  # 6 days count as a week
        "recency_days": 1,
        "tenure_days": 6,
        "clicks": 7,  # 1 + 2 + 3 + 1
        "click_through": 4 / 6,
    },
    "u17": ONCE
    | {
        "sessions_per_week": 7 / 30,  # 1 in 30 / 7 weeks
        "recency_days": 30,
        "tenure_days": 30,
        "session_duration": 500,
        "purchases": 1,
        "purchases_per_month": 1,  # 30 days are a month
        "spend": 1000,  # 10 * 100
        "average_spend": 1000,
        "conversion": 1,
        "price_level": 0.5,
    },
    "u18": ONCE
    | {
        "sessions": 2,
        "searches": 2,
        "active_days": 2,
        "sessions_per_week": 0.5,  # 2 in 4 weeks
        "recency_days": 14,
        "tenure_days": 28,
        "session_duration": 150,
        "views": 1,
        "purchases": 2,
        "purchases_per_month": 2,
        "spend": 10,
        "average_spend": 5,
        "conversion": 1,
        "price_level": 0.25,
    },
    "u19": ONCE | {"sessions_per_week": 0.25, "recency_days": 28, "tenure_days": 28, "session_duration": 30_000},
    "u20": ONCE
    | {
        "sessions": 2,
        "searches": 2,
        "active_days": 2,
        "sessions_per_week": 0.5,
        "recency_days": 14,
        "tenure_days": 28,
        "views": 1,
        "views_without_purchase": 1,  # C; E was bought
        "purchases": 1,
        "purchases_per_month": 1,
        "spend": 50,
        "average_spend": 50,
        "conversion": 0.5,
        "price_level": 0.75,  # (0.5 + 1) / 2
    },
}
"""User to feature to value, None where it is not defined; shares are below."""

CATEGORY_SHARES: dict[str, dict[str, float]] = {
    "u01": {"Shoes": 1},
    "u02": {"Shoes": 0.75, "Garden": 0.25},
    "u03": {"Shoes": 1},
    "u04": {"Garden": 2 / 3, "Books": 1 / 3},
    "u07": {"Toys": 1},
    "u08": {"Shoes": 1},
    "u09": {"Books": 0.5, "Toys": 0.5},
    "u13": {"Books": 1},
    "u14": {"Shoes": 1},
    "u17": {"Garden": 1},
    "u18": {"Books": 1},
    "u20": {"Shoes": 1},
}
"""The others have touched no product of a known category. Events of users who are not marked: Shoes 7 + 3 + 5 + 3 + 1 =
19, Books 1 + 1 + 3 + 3 = 8, Garden 1 + 2 + 1 = 4, Toys 1 + 1 = 2."""

HOUR_SHARES: dict[str, dict[str, float]] = {
    **{user: {"00": 1} for user in EXPECTED},
    "u02": {"06": 1},
    "u03": {"12": 1},
    "u06": {"10": 1},
    "u09": {"23": 0.5, "00": 0.5},
    "u11": {"00": 2 / 3, "01": 1 / 3},
}

WEEKDAY_SHARES: dict[str, dict[str, float]] = {
    **{user: {"sun": 1} for user in EXPECTED},
    "u02": {"sun": 0.5, "mon": 0.5},
    "u03": {"tue": 1},
    "u04": {"wed": 1 / 3, "fri": 1 / 3, "sat": 1 / 3},
    "u09": {"sun": 0.5, "mon": 0.5},
    "u10": {"sat": 0.25, "sun": 0.25, "mon": 0.25, "tue": 0.25},
    "u11": {"sat": 1 / 3, "sun": 2 / 3},
    "u13": {"sun": 0.5, "mon": 0.5},
    "u16": dict.fromkeys(("mon", "tue", "wed", "thu", "fri", "sat"), 1 / 6),
    "u17": {"fri": 1},
}

DEVICE_SHARES: dict[str, dict[str, float]] = {
    **{user: {"phone": 1} for user in EXPECTED if user != "u05"},  # of u05 nothing was recorded
    "u01": {"phone": 0.75, "desktop": 0.25},
    "u02": {"desktop": 1},
    "u10": {"phone": 0.5, "desktop": 0.5},
    "u11": {"tablet": 1},  # of the one session that tells
    "u12": {"phone": 0.5, "desktop": 0.5},
}

SEGMENT_SHARES: dict[str, dict[str, float]] = {
    "u01": {"shoes": 2 / 3, "books": 1 / 3},  # one session has no segment
    "u02": {"shoes": 0.5, "other": 0.5},
    "u18": {"books": 1},
}

TRAITS: dict[str, dict[str, str | float | None]] = {
    user: {
        "device": "phone",
        "country": "DE",
        "region": "Unknown",
        "age": None,
        "gender": None,
        "location": None,
        "signup_days": None,
        "subscription_days": None,
    }
    for user in EXPECTED
}
TRAITS["u01"] |= {"age": 30, "gender": "f", "location": "Berlin", "signup_days": 60, "subscription_days": 28}
TRAITS["u02"] |= {"device": "desktop", "gender": "m"}
TRAITS["u04"] |= {"signup_days": -1}
TRAITS["u05"] |= {"device": "Unknown", "country": "Unknown"}
TRAITS["u10"] |= {"device": "desktop", "region": "Hessen"}  # twice each, and both last at the desk, in Hessen
TRAITS["u11"] |= {"device": "tablet"}  # two sessions were filled in, but one tells
TRAITS["u12"] |= {"device": "desktop"}  # once each, at the same moment: the first in order
