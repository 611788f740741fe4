"""Search sessions of an imaginary shop: made up, repeatable, and with the truth about each kept apart.

What belongs here: what shoppers want, how often they come, how they phrase it, what they click. The words they use and
what the shop sells lie in ``catalog.yaml`` beside this file. What does not belong: personas, events and prices
(generate_behaviour), the clock (``end`` is given), Elasticsearch, files; and anything that knows how segments are
computed: a log made for an algorithm measures nothing.
"""

import math
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property, lru_cache
from importlib.resources import files
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import yaml

from segmentation_assets.core import generate_behaviour as behaving
from segmentation_assets.core.generate_behaviour import Floats, Ints, Keys, lookup
from segmentation_assets.core.generate_behaviour import draw as _draw
from segmentation_assets.core.generate_behaviour import mix as _mix

BARGAINS = "bargains"
"""The one taste that is not a category of products: what matters is the price."""

TRUTH_SESSIONS_SCHEMA = pa.schema(
    [
        ("session_id", pa.string()),
        ("user_id", pa.string()),
        ("taste", pa.string()),  # what the query means: a category, or bargains
        ("category", pa.string()),  # what kind of product is looked for; null when only the bargain is
        ("bargain", pa.bool_()),  # the query asks for a low price, whoever types it
    ]
)

TRUTH_USERS_SCHEMA = pa.schema(
    [
        ("user_id", pa.string()),
        ("taste", pa.string()),
        ("second_taste", pa.string()),  # null for the users who have one taste only
        ("language", pa.string()),
        ("persona", pa.string()),  # how the user behaves; null in a log without behaviour
    ]
)

# How people behave. Shares, unless said otherwise.
MIXED_USERS = 0.15  # users with a second taste
SECOND_TASTE = 0.4  # their sessions that follow it
OFF_TASTE = 0.06  # sessions that follow no taste of the user's: a present, a whim
OTHER_LANGUAGE_USERS = 0.075  # users who do not search in English
STAYS_IN_LANGUAGE = 0.8  # their sessions that are not in English
SAME_VISIT = 0.42  # sessions that follow the user's previous one within minutes
SAME_PRODUCT = 0.6  # of those: still after the same kind of product
REPEATED_QUERY = 0.05  # sessions that repeat the user's previous query word by word
BARGAIN_HUNTER_ASKS = 0.9  # sessions of bargain hunters that speak of the price
OTHERS_ASK = 0.04  # sessions of everybody else that do
BARGAIN_ALONE = 0.2  # bargain queries that name no product: "clearance"
TYPOS = 0.03
# Sessions a user: lognormal, so a few come very often; the mean is what follows from it.
VISITS_LOG_MEAN, VISITS_LOG_SPREAD, MOST_SESSIONS = 0.95, 0.95, 200
MEAN_SESSIONS = 4.5
PRICE_SENSITIVE_HUNT = 0.55  # price-sensitive shoppers who are bargain hunters, in a log with behaviour
CLICKS = (0.34, 0.33, 0.17, 0.09, 0.045, 0.025)  # sessions with 0, 1, .. 5 clicks
CLICKS_ELSEWHERE = 0.12  # clicks on another product of the category
CLICKS_ANYWHERE = 0.03  # clicks on any product of the shop
BARGAIN_CATEGORIES = (0.28, 0.26, 0.22, 0.12, 0.12)  # what bargain hunters look for: in the order of the catalogue

# Monday is the first; hours are UTC. People shop in the evening and on Sundays.
WEEKDAYS = (1.06, 1.0, 0.98, 0.97, 0.88, 0.93, 1.18)
HOURS = (
    *(2.4, 1.4, 0.9, 0.6, 0.5, 0.7, 1.3, 2.3, 3.4, 4.2, 4.7, 4.9),
    *(5.2, 5.0, 4.8, 4.9, 5.2, 5.8, 6.7, 7.9, 8.8, 8.5, 6.4, 4.1),
)

# The shapes of an English query with the share of each.
SHAPES = {
    "exact": 0.21,  # a well-known product or phrase, as thousands type it
    "type": 0.13,
    "word type": 0.235,
    "brand type": 0.12,
    "word word type": 0.07,
    "brand word type": 0.06,
    "colour type": 0.05,
    "word type colour": 0.03,
    "type size": 0.05,
    "word type size": 0.025,
    "type for": 0.05,
    "brand": 0.02,
    "type word": 0.05,  # word order is free in a search box
}
BARGAIN_SHAPES = {
    "type": 0.42,
    "word type": 0.25,
    "brand type": 0.14,
    "brand": 0.06,
    "colour type": 0.04,
    "type for": 0.06,
    "type size": 0.03,
}
OTHER_LANGUAGE_SHAPES = {"type": 0.36, "type word": 0.4, "brand type": 0.16, "type word word": 0.08}

CHUNK = 50_000  # sessions turned into text at a time
_SHOP_SEED = 1958  # the shop is the same for every seed: only its visitors change
_GOLDEN_RATIO = (5**0.5 - 1) / 2  # its multiples spread evenly over [0, 1)
_SILVER_RATIO = 2**0.5 - 1  # and so do those of this
_NEIGHBOURS = dict(zip("qwertyuiopasdfghjklzxcvbnm", "wertyuiopoasdfghjkxcvbnbn", strict=False))


@dataclass(frozen=True)
class Truth:
    """What was meant, for measuring how well it is found. Never to be written to the index.

    Attributes:
        sessions: ``TRUTH_SESSIONS_SCHEMA``, in the order of the documents.
        users: ``TRUTH_USERS_SCHEMA``, a row for each user with at least one session.
    """

    sessions: pa.Table
    users: pa.Table


@dataclass(frozen=True)
class Generated:
    """Generated sessions, kept as compact columns; text is made while reading.

    Attributes:
        n: how many sessions.
        tastes: the names the numbers in the columns stand for.
        behaviour: whether the sessions have details and the users a persona.
    """

    n: int
    tastes: tuple[str, ...]
    behaviour: bool
    _columns: "_Columns"
    _users: "_Users"
    _end: int  # milliseconds since 1970

    @property
    def documents(self) -> Iterator[dict[str, Any]]:
        """The sessions in order of time, a new iterator each time: the same documents again.

        Each has session_id, user_id, search_query, clicked_product_ids and timestamp (ISO 8601, UTC); with behaviour
        also events and, where they were recorded, duration, device, country, region and referrer.
        """
        shop = _shop()
        size = behaving.AT_ONCE if self.behaviour else CHUNK
        for start in range(0, self.n, size):
            part = self._columns.part(start, start + size)
            queries = shop.queries(part)
            if self.behaviour:
                details = behaving.details(part.as_sessions(self._users), _shelves(), _places())
                clicks, rows = details.clicked, details.rows
            else:
                clicks, rows = shop.clicks(part), []
            users = self._users.ids(part.user)
            times = np.datetime_as_string(part.time.astype("datetime64[ms]"), unit="ms").tolist()
            documents = (
                {
                    "session_id": session,
                    "user_id": user,
                    "search_query": query,
                    "clicked_product_ids": clicked,
                    "timestamp": time + "Z",
                }
                for session, user, query, clicked, time in zip(
                    _session_ids(part.own_key), users, queries, clicks, times, strict=True
                )
            )
            if self.behaviour:
                documents = (document | row for document, row in zip(documents, rows, strict=True))
            yield from documents

    @property
    def attributes(self) -> Iterator[dict[str, Any]]:
        """What the shop knows of its customers, a new iterator each time; nothing in a log without behaviour.

        Each has user_id and signup_date (ISO 8601, UTC) and, where it is known, age (years), gender, location and
        subscription_date. Users without an account have no record.
        """
        if not self.behaviour:
            return
        present, first = np.unique(self._columns.user, return_index=True)
        users = self._users
        for start in range(0, len(present), CHUNK):
            who = present[start : start + CHUNK]
            yield from behaving.attributes(
                users.ids(who),
                users.persona[who],
                users.key[who],
                users.language[who],
                self._columns.time[first[start : start + CHUNK]],
                self._end,
                _places(),
            )

    @cached_property
    def truth(self) -> Truth:
        """What each session and each user was meant to be."""
        columns, users = self._columns, self._users
        alone = columns.bargain & (_draw(columns.query_key, _ALONE) < BARGAIN_ALONE)
        names = np.array([*self.tastes, None], dtype=object)
        taste = np.where(columns.bargain_taste, self.tastes.index(BARGAINS), columns.category)
        # Someone who is no bargain hunter and types only "coupon code" means the bargain all the same.
        taste = np.where(alone, self.tastes.index(BARGAINS), taste)
        present = np.unique(columns.user)
        sessions = pa.table(
            [
                pa.array(_session_ids(columns.own_key)),
                pa.array(users.ids(columns.user), pa.string()),
                pa.array(names[taste], pa.string()),
                pa.array(names[np.where(alone, -1, columns.category)], pa.string()),
                pa.array(columns.bargain),
            ],
            schema=TRUTH_SESSIONS_SCHEMA,
        )
        people = pa.table(
            [
                pa.array(users.ids(present), pa.string()),
                pa.array(names[users.taste[present]], pa.string()),
                pa.array(names[users.second[present]], pa.string()),
                pa.array(np.array(_LANGUAGES, dtype=object)[users.language[present]], pa.string()),
                pa.array(behaving.name_of(users.persona[present]), pa.string()),
            ],
            schema=TRUTH_USERS_SCHEMA,
        )
        return Truth(sessions, people)


def generate_sessions(
    n: int,
    seed: int,
    end: datetime,
    days: int = 90,
    behaviour: bool = False,
    sessions_per_user: float | None = None,
    bots: float = 0.0,
) -> Generated:
    """Make up the search log of a shop.

    Args:
        n: how many sessions.
        seed: the same arguments give the same sessions.
        end: aware datetime; no session is later.
        days: how far back the log goes.
        behaviour: users have a hidden persona, which decides how they come, look and buy, and their sessions carry the
            details of it. Without it the sessions have a query and clicks only.
        sessions_per_user: how many sessions a user has on average, at least 1; None: about 4.5, as in most logs.
        bots: share of the users who are machines, of hundreds of sessions each; only with behaviour.

    Returns:
        The documents and the truth about them. Memory grows by about 60 bytes a session.

    Raises:
        ValueError: an argument is out of its range.
    """
    if n < 0 or seed < 0 or days < 1:
        raise ValueError(f"n and seed must not be negative and days at least 1, not n={n}, seed={seed}, days={days}")
    if end.tzinfo is None:
        raise ValueError("end must have a time zone")
    if sessions_per_user is not None and not 1 <= sessions_per_user < math.inf:
        raise ValueError(f"sessions_per_user must be at least 1, not {sessions_per_user}")
    if not 0 <= bots < 1 or (bots and not behaviour):
        raise ValueError(f"bots must be a share below 1, and none in a log without behaviour, not {bots}")
    end = end.astimezone(UTC)
    shop = _shop()
    rng = np.random.default_rng([seed, n])
    if behaviour:
        visitors = _draw_behaving_users(rng, n, shop, sessions_per_user or MEAN_SESSIONS, bots)
    else:
        visitors = _draw_users(rng, n, shop, sessions_per_user)
    columns = _draw_sessions(rng, n, visitors, shop, end, days, behaviour)
    return Generated(n, shop.tastes, behaviour, columns, visitors, _milliseconds(end))


def _milliseconds(moment: datetime) -> int:
    return math.floor(moment.timestamp() * 1000)


# ---------------------------------------------------------------------------------------------------------------- users


@dataclass(frozen=True)
class _Users:
    key: Keys
    sessions: Ints
    taste: Ints
    second: Ints  # -1: none
    language: Ints
    persona: Ints  # -1: none

    def ids(self, users: Ints) -> list[str]:
        return [f"u{key:016x}" for key in self.key[users].tolist()]


_LANGUAGES = ("en", "de", "fr", "es")


def _draw_users(rng: np.random.Generator, n: int, shop: "_Shop", mean: float | None) -> _Users:
    """Draw users until they have n sessions between them; the last one loses what is too many."""
    counts = np.zeros(0, np.int64)
    while counts.sum() < n:
        size = max(16, n // 4)
        if mean is None:
            more = rng.lognormal(VISITS_LOG_MEAN, VISITS_LOG_SPREAD, size).astype(np.int64) + 1
        else:
            further = (mean - 1) * rng.lognormal(-(VISITS_LOG_SPREAD**2) / 2, VISITS_LOG_SPREAD, size)
            more = (further + rng.random(size)).astype(np.int64) + 1
        counts = np.concatenate([counts, np.minimum(more, _most_sessions(mean))])
    counts = _exactly(counts, n)
    users = len(counts)
    weights = np.array([shop.weights[taste] for taste in shop.tastes])
    taste = lookup(weights, _evenly(rng, _rank(counts)))
    second, language = _draw_other_tastes(rng, weights, taste)
    return _Users(_keys(rng, users), counts, taste, second, language, np.full(users, -1))


def _draw_behaving_users(rng: np.random.Generator, n: int, shop: "_Shop", mean: float, bots: float) -> _Users:
    """The same with personas, which decide how often users come and who is a bargain hunter."""
    start = rng.random()
    counts = persona = np.zeros(0, np.int64)
    while counts.sum() < n:
        number = np.arange(len(counts), len(counts) + max(16, n // 4))
        # Other steps than those of the tastes, which would otherwise hang together with the personas.
        more = behaving.draw_personas(np.mod(start + number * _SILVER_RATIO, 1.0), bots)
        persona = np.concatenate([persona, more])
        counts = np.concatenate([counts, behaving.draw_visits(rng, more, mean, _most_sessions(mean))])
    counts = _exactly(counts, n)
    users = len(counts)
    persona = persona[:users]
    weights = np.array([shop.weights[taste] for taste in shop.tastes])
    hunting = shop.tastes.index(BARGAINS)
    sensitive = [entry.name for entry in behaving.PERSONAS].index("price-sensitive shopper")
    share = behaving.PERSONAS[sensitive].share
    # On the whole there are as many bargain hunters as in a log without personas.
    hunters = {True: PRICE_SENSITIVE_HUNT, False: (weights[hunting] - share * PRICE_SENSITIVE_HUNT) / (1 - share)}
    taste = np.zeros(users, np.int64)
    for is_sensitive, wanted in hunters.items():
        who = (persona == sensitive) == is_sensitive
        own = weights * (1 - wanted) / (1 - weights[hunting])
        own[hunting] = wanted
        taste[who] = lookup(own, _evenly(rng, _rank(counts[who])))
    second, language = _draw_other_tastes(rng, weights, taste)
    return _Users(_keys(rng, users), counts, taste, second, language, persona)


def _most_sessions(mean: float | None) -> int:
    return MOST_SESSIONS if mean is None else max(MOST_SESSIONS, round(10 * mean))


def _exactly(counts: Ints, n: int) -> Ints:
    """As many users as have n sessions between them; the last one loses what is too many."""
    users = int(np.searchsorted(np.cumsum(counts), n)) + 1 if n else 0
    counts = counts[:users].copy()
    if users:
        counts[-1] -= counts.sum() - n
    return counts


def _rank(counts: Ints) -> Ints:
    rank = np.empty(len(counts), np.int64)
    rank[np.argsort(counts, kind="stable")] = np.arange(len(counts))
    return rank


def _evenly(rng: np.random.Generator, rank: Ints) -> Floats:
    """Stratified over users who come equally often, so that even a small log has about the tastes it should have."""
    return np.asarray(np.mod(rng.random() + rank * _GOLDEN_RATIO, 1.0), np.float64)


def _draw_other_tastes(rng: np.random.Generator, weights: Floats, taste: Ints) -> tuple[Ints, Ints]:
    """Second tastes, -1 for none, and languages."""
    users = len(taste)
    second = np.full(users, -1, np.int64)
    mixed = rng.random(users) < MIXED_USERS
    for first in range(len(weights)):
        rest = np.where(np.arange(len(weights)) == first, 0.0, weights)
        who = mixed & (taste == first)
        second[who] = _choose(rng, rest, int(who.sum()))
    language = np.where(rng.random(users) < OTHER_LANGUAGE_USERS, rng.integers(1, len(_LANGUAGES), users), 0)
    return second, language


def _choose(rng: np.random.Generator, weights: Floats, size: int) -> Ints:
    return lookup(weights, rng.random(size))


def _keys(rng: np.random.Generator, size: int) -> Keys:
    return rng.integers(0, 2**64, size, dtype=np.uint64)


# ------------------------------------------------------------------------------------------------------------- sessions


@dataclass(frozen=True)
class _Columns:
    """One entry a session, in order of time.

    ``query_key`` decides every choice in the wording, so that a copied key is a repeated query; ``own_key`` decides the
    rest.
    """

    user: Ints
    time: Ints  # milliseconds since 1970
    category: Ints
    kind: Ints  # the type of product, numbered over all categories
    bargain: npt.NDArray[np.bool_]
    bargain_taste: npt.NDArray[np.bool_]
    language: Ints
    query_key: Keys
    own_key: Keys

    def part(self, start: int, stop: int) -> "_Columns":
        return _Columns(**{name: column[start:stop] for name, column in vars(self).items()})

    def as_sessions(self, users: _Users) -> behaving.Sessions:
        """The same for generate_behaviour."""
        return behaving.Sessions(
            persona=users.persona[self.user],
            user_key=users.key[self.user],
            own_key=self.own_key,
            language=users.language[self.user],
            category=self.category,
            kind=self.kind,
            time=self.time,
        )


def _draw_sessions(
    rng: np.random.Generator, n: int, users: _Users, shop: "_Shop", end: datetime, days: int, behaviour: bool
) -> _Columns:
    """Draw all sessions user by user, then put them in order of time."""
    user = np.repeat(np.arange(len(users.sessions)), users.sessions)
    first = np.ones(n, bool)
    first[1:] = user[1:] != user[:-1]
    machine = behaving.is_bot(users.persona)[user]
    new_visit = first | ((rng.random(n) >= SAME_VISIT) & ~machine)
    hours, weights_by_hour = _hours(end, days)
    last = _milliseconds(end)
    time = np.zeros(n, np.int64) if behaviour else _draw_times(rng, new_visit, weights_by_hour, last)

    # What the session is about.
    weights = np.array([shop.weights[taste] for taste in shop.tastes])
    taste = users.taste[user]
    second = users.second[user]
    taste = np.where((second >= 0) & (rng.random(n) < SECOND_TASTE), second, taste)
    taste = np.where(rng.random(n) < OFF_TASTE, _choose(rng, weights, n), taste)
    hunting = taste == shop.tastes.index(BARGAINS)
    category = np.where(hunting, _choose(rng, np.array(BARGAIN_CATEGORIES), n), taste)
    kind = np.zeros(n, np.int64)
    for number, name in enumerate(shop.categories):
        for persona in np.unique(users.persona).tolist():
            here = (category == number) & (users.persona == persona)[user]
            wanted = shop.kind_weights[name] * _middle_prices()[name] ** behaving.dear_types(persona)
            kind[here] = shop.first_kind[number] + _choose(rng, wanted, int(here.sum()))
    bargain = rng.random(n) < np.where(hunting, BARGAIN_HUNTER_ASKS, OTHERS_ASK)
    speaks = users.language[user]
    language = np.where(rng.random(n) < STAYS_IN_LANGUAGE, speaks, 0)
    query_key = _keys(rng, n)
    own_key = _keys(rng, n)

    # Later in a visit people mostly keep looking for the same thing; now and then they repeat the very query.
    repeats = ~first & ((rng.random(n) < REPEATED_QUERY) | machine)
    keeps = (~new_visit & (rng.random(n) < SAME_PRODUCT)) | repeats
    model = _last_true(~keeps)
    category, kind, hunting, bargain = category[model], kind[model], hunting[model], bargain[model]
    wording = _last_true(~repeats)
    query_key, language = query_key[wording], language[wording]

    columns = _Columns(
        user=user,
        time=time,
        category=category,
        kind=kind,
        bargain=bargain,
        # A bargain hunter who asks for a product and not for the price means the product.
        bargain_taste=hunting & bargain,
        language=language,
        query_key=query_key,
        own_key=own_key,
    )
    if behaviour:
        time[:] = behaving.draw_times(rng, columns.as_sessions(users), new_visit, hours, weights_by_hour, last)
    order = np.argsort(time, kind="stable")
    return _Columns(**{name: column[order] for name, column in vars(columns).items()})


def _last_true(flags: npt.NDArray[np.bool_]) -> Ints:
    """For every position the last one, up to it, where the flag is set (the first of each user always is)."""
    return np.asarray(np.maximum.accumulate(np.where(flags, np.arange(len(flags)), 0)), np.int64)


def _hours(end: datetime, days: int) -> tuple[Ints, Floats]:
    """Every hour of the log, the last one first: which of the day it is, and how many people come in it, relative."""
    slots = [end - timedelta(hours=hour + 1) for hour in range(days * 24)]
    weights = np.array([WEEKDAYS[slot.weekday()] * HOURS[slot.hour] for slot in slots])
    return np.array([slot.hour for slot in slots]), weights


def _draw_times(rng: np.random.Generator, new_visit: npt.NDArray[np.bool_], weights: Floats, last: int) -> Ints:
    """Visits follow the hours of the day and the days of the week; the sessions of one visit are minutes apart."""
    hour = 3_600_000
    n = len(new_visit)
    start = last - (_choose(rng, weights, n) + rng.random(n)) * hour
    gaps = np.where(new_visit, 0.0, 15_000 + rng.exponential(120_000, n))
    since = np.cumsum(gaps)
    visit = _last_true(new_visit)
    time = start[visit] + since - since[visit]
    return np.asarray(np.minimum(time, last), np.int64)


# Which of a key's numbers decides what. One that is used twice would tie two choices together; of the own key, those
# from 100 on belong to generate_behaviour.
_SHAPE, _ALONE, _PLACE, _PRICE, _NAME, _WORD, _WORD2, _BRAND, _COLOUR, _SIZE, _PEOPLE = range(11)
_EXACT, _TYPO, _TYPO_KIND, _TYPO_WHERE, _CASE, _PERSON = range(11, 17)
_CLICKS, _CLICK, _CLICK_WHERE = 0, 1, 6  # of the own key: 1 to 5 and 6 to 10, one a click
_ID = 11  # and 12


def _session_ids(keys: Keys) -> list[str]:
    return [f"{a:016x}{b:016x}" for a, b in zip(_mix(keys, _ID).tolist(), _mix(keys, _ID + 1).tolist(), strict=True)]


# ------------------------------------------------------------------------------------------------------------- the shop


class _Ranked:
    """Items in order of popularity, the r-th wanted about 1 / (r + 1) ** exponent as often as the first."""

    def __init__(self, items: Sequence[str], exponent: float = 0.9) -> None:
        self.items = list(items)
        self.weights = _zipf(len(items), exponent)
        self._edges = np.cumsum(self.weights / self.weights.sum()).tolist()

    def pick(self, u: float) -> str:
        return self.items[min(bisect_right(self._edges, u), len(self.items) - 1)]

    def position(self, u: float) -> int:
        return min(bisect_right(self._edges, u), len(self.items) - 1)


def _zipf(size: int, exponent: float) -> Floats:
    return (np.arange(size, dtype=np.float64) + 2.0) ** -exponent


class _Shares:
    def __init__(self, shares: dict[str, float]) -> None:
        self._names = list(shares)
        self._edges = np.cumsum(np.array(list(shares.values())) / sum(shares.values())).tolist()

    def pick(self, u: float) -> str:
        return self._names[min(bisect_right(self._edges, u), len(self._names) - 1)]


@dataclass(frozen=True)
class _Kind:
    """A type of product, with what people say about it and where its products lie."""

    name: str
    plural: str
    category: int
    brands: _Ranked
    words: _Ranked
    sizes: _Ranked | None
    coloured: bool
    personal: bool
    other: tuple[str, ...]  # its name in the other languages
    first_product: int
    products: int


def _items(text: str) -> list[str]:
    return [item.strip() for item in text.split(",") if item.strip()]


class _Shop:
    """The catalogue, ready to be drawn from."""

    def __init__(self, catalog: dict[str, Any], small_brands: dict[str, list[str]], first_names: list[str]) -> None:
        self.weights: dict[str, float] = catalog["weights"]
        self.categories: tuple[str, ...] = tuple(catalog["categories"])
        # The number of a category is also the number of the taste for it; bargains come last.
        self.tastes: tuple[str, ...] = (*self.categories, BARGAINS)
        self.colours = _Ranked(_items(catalog["colours"]))
        self.people = [_Ranked(_items(catalog["people"][name])) for name in self.categories]
        self.first_names = _Ranked(first_names, 0.6)
        prices = catalog["bargains"]
        self.price_before = _Ranked(_items(prices["before"]))
        self.price_after = _Ranked(_items(prices["after"]))
        self.price_alone = _Ranked(_items(prices["alone"]))
        self.other_prices = [_Ranked(_items(prices["other"][code])) for code in _LANGUAGES[1:]]
        worn = _items(catalog["worn"])
        self.other_words = [
            [
                _Ranked(_items(catalog["languages"][code]["worn" if name in worn else "other"]))
                for name in self.categories
            ]
            for code in _LANGUAGES[1:]
        ]
        sizes = {name: _Ranked(_items(text)) for name, text in catalog["sizes"].items()}
        personal = set(_items(catalog["personal"]))

        self.kinds: list[_Kind] = []
        self.kind_weights: dict[str, Floats] = {}
        self.exact: list[_Ranked] = []
        self.first_kind: list[int] = []
        self.first_product: list[int] = []
        product = 0
        for number, (name, category) in enumerate(catalog["categories"].items()):
            brands = {group: _Ranked(_items(text) + small_brands[name]) for group, text in category["brands"].items()}
            nameless = _Ranked(small_brands[name])
            weights = _zipf(len(category["types"]), 0.8)
            self.kind_weights[name] = weights
            self.exact.append(_Ranked(_items(category["exact"]), 0.85))
            self.first_kind.append(len(self.kinds))
            self.first_product.append(product)
            for (title, entry), share in zip(category["types"].items(), weights / weights.sum(), strict=True):
                products = max(8, int(category["products"] * share))
                self.kinds.append(
                    _Kind(
                        name=title,
                        plural=entry["plural"],
                        category=number,
                        brands=brands[entry["brands"]] if "brands" in entry else nameless,
                        words=_Ranked(_items(entry["words"])),
                        sizes=sizes[entry["sizes"]] if "sizes" in entry else None,
                        coloured=bool(entry.get("colours", False)),
                        personal=title in personal,
                        other=tuple(entry[code] for code in _LANGUAGES[1:]),
                        first_product=product,
                        products=products,
                    )
                )
                product += products
        self.first_product.append(product)
        # Ids say nothing about what the product is, as in any shop that has grown for some years.
        numbers = np.random.default_rng(_SHOP_SEED).permutation(900_000)[:product] + 100_000
        self.product_ids: list[str] = [f"P{number}" for number in numbers.tolist()]
        self.kind_begins = np.array([kind.first_product for kind in self.kinds])
        self.kind_size = np.array([kind.products for kind in self.kinds])
        self._shapes, self._bargain_shapes = _Shares(SHAPES), _Shares(BARGAIN_SHAPES)
        self._other_shapes = _Shares(OTHER_LANGUAGE_SHAPES)

    # ---- what is typed

    def queries(self, part: _Columns) -> list[str]:
        """The text of each session's query."""
        draws = np.stack([_draw(part.query_key, column) for column in range(_PERSON + 1)], axis=1).tolist()
        queries = []
        for u, kind, bargain, language in zip(
            draws, part.kind.tolist(), part.bargain.tolist(), part.language.tolist(), strict=True
        ):
            wanted = self.kinds[kind]
            if language:
                query = self._other_language(wanted, language - 1, bargain, u)
            elif bargain:
                query = self._bargain(wanted, u)
            else:
                query = self._product(wanted, self._shapes.pick(u[_SHAPE]), u)
            queries.append(_as_typed(query, u))
        return queries

    def _product(self, kind: _Kind, shape: str, u: list[float]) -> str:
        if shape == "exact":
            return self.exact[kind.category].pick(u[_EXACT])
        name = kind.plural if u[_NAME] < 0.36 else kind.name
        if kind.personal and u[_PERSON] < 0.05:
            return f"personalised {name} {self.first_names.pick(u[_PERSON] / 0.05)}"
        words = []
        for place in shape.split():
            if place == "type":
                words.append(name)
            elif place == "word":
                word = kind.words.pick(u[_WORD2] if words else u[_WORD])
                if word not in words:
                    words.append(word)
            elif place == "brand":
                words.append(kind.brands.pick(u[_BRAND]))
            elif place == "size":
                words.append(kind.sizes.pick(u[_SIZE]) if kind.sizes else kind.words.pick(u[_SIZE]))
            elif place == "colour":
                words.append(self.colours.pick(u[_COLOUR]) if kind.coloured else kind.words.pick(u[_COLOUR]))
            elif place == "for":
                words.append(f"for {self.people[kind.category].pick(u[_PEOPLE])}")
        # "with rack" and "for dry skin" can only follow.
        words.sort(key=lambda word: word.startswith(("with ", "for ", "and ")))
        return " ".join(_without_echo(words))

    def _bargain(self, kind: _Kind, u: list[float]) -> str:
        if u[_ALONE] < BARGAIN_ALONE:
            return self.price_alone.pick(u[_PRICE])
        product = self._product(kind, self._bargain_shapes.pick(u[_SHAPE]), u)
        if u[_PLACE] < 0.5:
            return f"{self.price_before.pick(u[_PRICE])} {product}"
        return f"{product} {self.price_after.pick(u[_PRICE])}"

    def _other_language(self, kind: _Kind, language: int, bargain: bool, u: list[float]) -> str:
        if bargain and u[_ALONE] < BARGAIN_ALONE:
            return self.other_prices[language].pick(u[_PRICE])
        words: list[str] = []
        for place in self._other_shapes.pick(u[_SHAPE]).split():
            if place == "type":
                words.append(kind.other[language])
            elif place == "brand":
                words.append(kind.brands.pick(u[_BRAND]))
            else:
                words.append(self.other_words[language][kind.category].pick(u[_WORD2] if len(words) > 1 else u[_WORD]))
        if bargain:
            price = self.other_prices[language].pick(u[_PRICE])
            words = [words[0], price] if u[_PLACE] < 0.8 else [price, words[0]]
        return " ".join(_without_echo(words))

    # ---- what is clicked

    def clicks(self, part: _Columns) -> list[list[str]]:
        """The products each session clicked: most of what was looked for, the popular ones most."""
        counts = np.searchsorted(np.cumsum(CLICKS), _draw(part.own_key, _CLICKS), side="right").clip(0, len(CLICKS) - 1)
        category_first = np.array(self.first_product)
        chosen = []
        for click in range(len(CLICKS) - 1):
            where = _draw(part.own_key, _CLICK_WHERE + click)
            elsewhere, anywhere = where < CLICKS_ELSEWHERE + CLICKS_ANYWHERE, where < CLICKS_ANYWHERE
            first = np.where(elsewhere, category_first[part.category], self.kind_begins[part.kind])
            size = np.where(elsewhere, np.diff(category_first)[part.category], self.kind_size[part.kind])
            first, size = np.where(anywhere, 0, first), np.where(anywhere, category_first[-1], size)
            # Zipf with exponent 1: the logarithm of the rank is even.
            rank = np.exp(_draw(part.own_key, _CLICK + click) * np.log(size + 1.0)).astype(np.int64) - 1
            # The well-known products of a category lie all over it, not at its beginning.
            rank = np.where(elsewhere, (rank * 7919) % size, np.minimum(rank, size - 1))
            chosen.append(first + rank)
        ids = self.product_ids
        rows = np.stack(chosen, axis=1).tolist()
        return [[ids[p] for p in dict.fromkeys(row[:count])] for row, count in zip(rows, counts.tolist(), strict=True)]


def _without_echo(words: list[str]) -> list[str]:
    """Nobody types "beats beats headphones": drop what the next words begin with."""
    kept: list[str] = []
    for word in words:
        if kept and (word == kept[-1] or word.startswith(kept[-1] + " ")):
            kept.pop()
        if not kept or word not in kept:
            kept.append(word)
    return kept


def _as_typed(query: str, u: list[float]) -> str:
    """What fingers and telephones make of it."""
    if u[_TYPO] < TYPOS:
        query = _typo(query, u[_TYPO_KIND], u[_TYPO_WHERE])
    if u[_CASE] < 0.07:
        return query[:1].upper() + query[1:]
    if u[_CASE] < 0.077:
        return query.upper()
    return query


def _typo(query: str, kind: float, where: float) -> str:
    places = [i for i in range(1, len(query) - 1) if query[i].isalpha() and query[i + 1].isalpha()]
    if not places:
        return query
    at = places[int(where * len(places))]
    before, letter, after = query[:at], query[at], query[at + 1 :]
    if kind < 0.35:
        return before + after[0] + letter + after[1:]
    if kind < 0.65:
        return before + after
    if kind < 0.8:
        return before + letter + letter + after
    if kind < 0.92:
        return before + _NEIGHBOURS.get(letter, letter) + after
    return query.replace(" ", "", 1) if " " in query else before + after


@lru_cache(maxsize=1)
def _shop() -> _Shop:
    """The shop, made once. Small brands and first names come from Faker; they are the long tail of what people type."""
    from faker import Faker  # half a second that only generating needs

    catalog = yaml.safe_load((files("segmentation_assets.core") / "catalog.yaml").read_text("utf-8"))
    fake = Faker("en_US")
    fake.seed_instance(_SHOP_SEED)
    brands = {name: list(dict.fromkeys(fake.last_name().lower() for _ in range(40))) for name in catalog["categories"]}
    return _Shop(catalog, brands, list(dict.fromkeys(fake.first_name().lower() for _ in range(150))))


@lru_cache(maxsize=1)
def _prices_and_places() -> dict[str, Any]:
    text = (files("segmentation_assets.core") / "generate_behaviour.yaml").read_text("utf-8")
    return dict(yaml.safe_load(text))


@lru_cache(maxsize=1)
def _middle_prices() -> dict[str, Floats]:
    """For each category what its types of products cost, in their order."""
    prices, shop = _prices_and_places()["prices"], _shop()
    return {
        name: np.array([prices[name][kind.name] for kind in shop.kinds if kind.category == number], np.float64)
        for number, name in enumerate(shop.categories)
    }


@lru_cache(maxsize=1)
def _shelves() -> behaving.Shelves:
    shop = _shop()
    middle = np.repeat(np.concatenate(list(_middle_prices().values())), shop.kind_size)
    price, level = behaving.prices(_keys(np.random.default_rng(_SHOP_SEED), len(shop.product_ids)), middle)
    first = np.array(shop.first_product)
    return behaving.Shelves(
        ids=shop.product_ids,
        categories=shop.categories,
        category=np.repeat(np.arange(len(shop.categories)), np.diff(first)),
        price=price,
        level=level,
        kind_first=shop.kind_begins,
        kind_size=shop.kind_size,
        category_first=first,
    )


@lru_cache(maxsize=1)
def _places() -> behaving.Places:
    places = _prices_and_places()["places"]
    return behaving.Places([places[code] for code in _LANGUAGES])
