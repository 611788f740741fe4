"""What the visitors of the imaginary shop do, beside typing: how often they come, what they look at and what they buy.

What belongs here: the personas and how they differ, the events of a session, prices, places, and what the shop knows of
its customers; and the numbers without state that both halves of the generator draw from. What does not: tastes and the
words that are typed (generate); anything that knows how users are grouped: no feature, no scaling, no cluster.

The numbers are chosen to be plausible, and so that a small log has something to look at: nearly every fifth search ends
in an order, which is more than in most shops. Most searches come from mobile telephones, and most of what is put into a
cart is left there. Every user has own rates around those of the persona, and every session has its own mood.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
Keys = npt.NDArray[np.uint64]

DEVICES = ("mobile", "desktop", "tablet")
REFERRERS = ("google.com", "newsletter", "instagram.com", "prices.example")
"""Where visitors come from; nobody sends the others, and their sessions carry no referrer."""

HOUR = 3_600_000  # milliseconds
DAY = 24 * HOUR


@dataclass(frozen=True)
class Persona:
    """How one kind of shopper behaves. Shares are of 1; the means are of the persona, its users lie around them.

    Attributes:
        name: as the truth writes it.
        share: of the users.
        visits: how often they come, against the average visitor.
        newcomers: share whose first visit lies within the log.
        lapsed: share who stop coming before its end.
        click_through: share of the sessions with a click on a result.
        clicks: clicks in such a session.
        views: products looked at beyond those clicked, in a session.
        carts: share of the products looked at that go into the cart without being what was meant to be bought.
        conversion: share of the sessions that end in an order.
        together: share of such other things in the cart that are ordered along.
        thrift: share of the orders of only the cheapest thing in the cart.
        price_level: the prices they look for, 0 (the cheapest of its type) to 1.
        dear_types: exponent of a type's price in how often they look for it; 0: the price makes no difference.
        pace: time spent, against the average visitor.
        peak: hour of the day (UTC) at which more of them come than of others.
        devices: shares of ``DEVICES``.
        referrers: shares of ``REFERRERS``.
        guests: share without an account, of whom nothing is known.
        subscribers: share of the others with a subscription.
        age: mean, years.
        tenure: mean days from the account to the first session.
    """

    name: str
    share: float
    visits: float
    newcomers: float
    lapsed: float
    click_through: float
    clicks: float
    views: float
    carts: float
    conversion: float
    together: float
    thrift: float
    price_level: float
    dear_types: float
    pace: float
    peak: float
    devices: tuple[float, float, float]
    referrers: tuple[float, float, float, float]
    guests: float
    subscribers: float
    age: float
    tenure: float


PERSONAS = (
    Persona(
        name="loyal enthusiast", share=0.18, visits=2.2, newcomers=0.08, lapsed=0.03,
        click_through=0.80, clicks=1.8, views=1.6, carts=0.16, conversion=0.25, together=0.5, thrift=0.05,
        price_level=0.60, dear_types=0.15, pace=1.0, peak=19, devices=(0.62, 0.28, 0.10),
        referrers=(0.10, 0.32, 0.08, 0.01), guests=0.02, subscribers=0.58, age=39, tenure=700,
    ),
    Persona(
        name="price-sensitive shopper", share=0.24, visits=1.0, newcomers=0.15, lapsed=0.08,
        click_through=0.80, clicks=2.3, views=4.2, carts=0.28, conversion=0.08, together=0.1, thrift=0.85,
        price_level=0.10, dear_types=-0.4, pace=1.15, peak=21, devices=(0.58, 0.32, 0.10),
        referrers=(0.24, 0.12, 0.04, 0.30), guests=0.12, subscribers=0.14, age=36, tenure=320,
    ),
    Persona(
        name="window browser", share=0.28, visits=1.0, newcomers=0.20, lapsed=0.15,
        click_through=0.32, clicks=1.3, views=4.5, carts=0.03, conversion=0.01, together=0.1, thrift=0.2,
        price_level=0.55, dear_types=0.1, pace=0.70, peak=22, devices=(0.82, 0.10, 0.08),
        referrers=(0.16, 0.05, 0.38, 0.01), guests=0.30, subscribers=0.05, age=29, tenure=200,
    ),
    Persona(
        name="occasional big spender", share=0.14, visits=0.5, newcomers=0.15, lapsed=0.10,
        click_through=0.68, clicks=1.5, views=2.2, carts=0.06, conversion=0.36, together=0.4, thrift=0.02,
        price_level=0.92, dear_types=0.7, pace=1.90, peak=14, devices=(0.24, 0.66, 0.10),
        referrers=(0.30, 0.10, 0.03, 0.02), guests=0.08, subscribers=0.22, age=50, tenure=450,
    ),
    Persona(
        name="mission buyer", share=0.16, visits=0.4, newcomers=0.50, lapsed=0.40,
        click_through=0.88, clicks=1.2, views=0.3, carts=0.03, conversion=0.60, together=0.3, thrift=0.05,
        price_level=0.45, dear_types=0.0, pace=0.6, peak=11, devices=(0.45, 0.50, 0.05),
        referrers=(0.58, 0.02, 0.02, 0.08), guests=0.45, subscribers=0.02, age=43, tenure=60,
    ),
)  # fmt: skip
"""The visitors, as a shop's marketers know them."""

BOT = Persona(
    name="bot", share=0.0, visits=0.0, newcomers=0.0, lapsed=0.0,
    click_through=0.002, clicks=1.0, views=0.0, carts=0.0, conversion=0.0, together=0.0, thrift=0.0,
    price_level=0.5, dear_types=0.0, pace=0.08, peak=3, devices=(0.0, 1.0, 0.0),
    referrers=(0.0, 0.0, 0.0, 0.0), guests=1.0, subscribers=0.0, age=0, tenure=0,
)  # fmt: skip
"""A machine: the same query hundreds of times within an hour."""

BOT_SESSIONS = (150, 450)
AT_ONCE = 5_000
"""Sessions whose events are made at a time."""

_ALL = (*PERSONAS, BOT)
_BOT = len(PERSONAS)

# How far users lie from their persona, and sessions from their user. Of the logarithm or of the logarithm of the odds.
VISITS_SPREAD = 0.3
CLICK_THROUGH_SPREAD = 0.3
VIEWS_SPREAD = 0.25
CARTS_SPREAD = 0.3
CONVERSION_SPREAD = 0.3
PACE_SPREAD = 0.15
SESSION_PACE_SPREAD = 0.3
PRICE_LEVEL_SPREAD = 0.07  # of the level itself
SESSION_PRICE_LEVEL_SPREAD = 0.12

SHORTEST_TIME = 0.2  # of the log in which a newcomer may still come; of that time, before somebody stays away
OTHER_MOOD = 0.05  # sessions in which somebody behaves like another persona: the big spender browses, too
USUAL_DEVICE = 0.8  # sessions on the user's own device; the others are on any
AWAY = 0.04  # sessions from another region of the country
PEAK_STRENGTH = 0.5  # e to this: how much more often they come at their hour
MOST_CLICKS, MOST_VIEWS = 5, 30  # in a session
CANDIDATES = 4  # products that catch the eye for each that is looked at: the one that suits the purse is
OTHER_TYPE, ANY_PRODUCT = 0.12, 0.03  # products looked at that are of another type, or of any category
PRICE_SPREAD = 0.6  # of the logarithm of the prices within a type of product
TWO_PIECES, PIECES_BELOW = 0.14, 40.0  # orders of two pieces, of things cheaper than this

SEARCH_SECONDS, PRODUCT_SECONDS, ORDER_SECONDS, MOST_SECONDS = 18.0, 32.0, 75.0, 5400.0
# Sessions in which the shop did not record something.
NO_DURATION, NO_DEVICE, NO_PLACE, NO_REGION = 0.03, 0.02, 0.02, 0.03
# Accounts in which a field was left empty.
NO_AGE, NO_GENDER, NO_LOCATION = 0.12, 0.08, 0.05
GENDERS, GENDER_SHARES = ("female", "male", "other"), (0.52, 0.46, 0.02)

# ------------------------------------------------------------------------------------------- numbers that need no state

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
# Which of a key's numbers decides what. One that is used twice would tie two choices together. Of the user's key:
_U_CLICK_THROUGH, _U_VIEWS, _U_CARTS, _U_CONVERSION, _U_LEVEL, _U_PACE, _U_DEVICE, _U_COUNTRY, _U_REGION = range(9)
_U_NEW, _U_SINCE, _U_LAPSED, _U_UNTIL, _U_GUEST, _U_AGE, _U_GENDER, _U_TENURE, _U_SUBSCRIBES, _U_WHEN = range(9, 19)
_U_NO_AGE, _U_NO_GENDER, _U_NO_LOCATION = range(19, 22)
# Of the session's own key; the first hundred belong to generate.
_S_MOOD, _S_OTHER, _S_ORDERS, _S_CLICKS, _S_MORE_CLICKS, _S_VIEWS, _S_PACE, _S_TAIL, _S_ORDER_ID = range(100, 109)
_S_THRIFT, _S_DEVICE, _S_ANY_DEVICE, _S_REFERRER, _S_AWAY, _S_REGION = range(109, 115)
_S_NO_DURATION, _S_NO_DEVICE, _S_NO_PLACE, _S_NO_REGION = range(115, 119)
_S_STEP, _S_GAP = 200, 300  # one a product looked at, and one an event: there are fewer than 100 and 256
# Of the key that a product looked at has.
_P_WHERE, _P_LEVEL, _P_CART, _P_ALONG, _P_PIECES, _P_CANDIDATE = range(6)


def mix(keys: Keys, column: int | Ints) -> Keys:
    """SplitMix64: the column-th number of each key. Needs no state, so any part of the log can be made on its own.

    Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.
    """
    with np.errstate(over="ignore"):
        z = keys + _GOLDEN * (np.asarray(column) + 1).astype(np.uint64)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return np.asarray(z ^ (z >> np.uint64(31)), np.uint64)


def draw(keys: Keys, column: int | Ints) -> Floats:
    """The same as a number in [0, 1)."""
    return (mix(keys, column) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def lookup(weights: Sequence[float] | Floats, u: Floats) -> Ints:
    """Which of the items each number in [0, 1) falls on, when they share that range by their weights."""
    edges = np.cumsum(np.asarray(weights) / np.sum(weights))
    return np.minimum(np.searchsorted(edges, u, side="right"), len(edges) - 1).astype(np.int64)


def _normal(keys: Keys, column: int) -> Floats:
    from scipy.special import ndtri  # slow to import, and only generating needs it

    return np.asarray(ndtri(np.clip(draw(keys, column), 1e-9, 1 - 1e-9)), np.float64)


def _geometric(mean: Floats, u: Floats) -> Ints:
    """Counts 0, 1, 2, .. with this mean: many have none and a few have many."""
    with np.errstate(divide="ignore"):
        return np.floor(np.log1p(-u) / np.log(mean / (1 + mean))).astype(np.int64)


def _odds(share: Floats, spread: Floats) -> Floats:
    odds = share / (1 - share) * np.exp(spread)
    return np.asarray(odds / (1 + odds), np.float64)


def _of(name: str) -> Floats:
    return np.array([getattr(persona, name) for persona in _ALL], np.float64)


def _by_persona(name: str, persona: Ints, u: Floats) -> Ints:
    """A choice of which each persona has its own shares; one more than there are stands for none of them."""
    shares = np.array([getattr(entry, name) for entry in _ALL])
    edges = np.cumsum(shares, axis=1)
    return np.asarray((u[:, None] >= edges[persona]).sum(axis=1), np.int64)


# ---------------------------------------------------------------------------------------------------------------- users


def name_of(persona: Ints) -> npt.NDArray[np.object_]:
    """The personas' names; None where the number is -1."""
    return np.array([*(entry.name for entry in _ALL), None], dtype=object)[persona]


def draw_personas(u: Floats, bots: float) -> Ints:
    """Personas, one for each number in [0, 1), numbered as in ``PERSONAS``; the bot is the last.

    Args:
        u: even numbers make even shares.
        bots: share of bots.
    """
    shares = np.array([*((1 - bots) * persona.share for persona in PERSONAS), bots])
    return lookup(shares, u)


def draw_visits(rng: np.random.Generator, persona: Ints, mean: float, most: int) -> Ints:
    """How many sessions each user has: at least 1, ``mean`` on average over people, at most ``most``."""
    visits = _of("visits")
    visits /= sum(entry.share * entry.visits for entry in PERSONAS)
    spread = rng.lognormal(-(VISITS_SPREAD**2) / 2, VISITS_SPREAD, len(persona))
    counts = 1 + rng.poisson((mean - 1) * visits[persona] * spread)
    counts = np.minimum(counts, most)
    return np.where(persona == _BOT, rng.integers(*BOT_SESSIONS, len(persona)), counts).astype(np.int64)


def is_bot(persona: Ints) -> Flags:
    """Which of the personas are machines."""
    return np.asarray(persona == _BOT)


def dear_types(persona: int) -> float:
    """``Persona.dear_types`` by number; 0 for users without a persona."""
    return _ALL[persona].dear_types if persona >= 0 else 0.0


def draw_times(
    rng: np.random.Generator,
    sessions: "Sessions",
    new_visit: Flags,
    hours: Ints,
    weights: Floats,
    last: int,
) -> Ints:
    """When each session begins: at the hours of its persona, within the time its user comes to the shop at all.

    The sessions of one visit follow each other, and all end by ``last``.

    Args:
        rng: for what lies between two sessions.
        sessions: user by user; their times are not read.
        new_visit: which of them begin a visit; the first of each user does.
        hours: hour of the day of every hour of the log, the last one first.
        weights: how many people come in each, relative.
        last: end of the log, milliseconds since 1970.

    Returns:
        Milliseconds since 1970.
    """
    persona, n = sessions.persona, len(sessions.persona)
    back = np.arange(len(hours) + 1, dtype=np.float64)  # hours before the end
    # Each comes to the shop from one share of the log, counted back from its end, until another.
    since = np.where(draw(sessions.user_key, _U_NEW) < _of("newcomers")[persona], draw(sessions.user_key, _U_SINCE), 0)
    since = 1 - (1 - SHORTEST_TIME) * since
    until = np.where(draw(sessions.user_key, _U_LAPSED) < _of("lapsed")[persona], draw(sessions.user_key, _U_UNTIL), 0)
    until *= (1 - SHORTEST_TIME) * since
    start = np.zeros(n)
    for number, entry in enumerate(_ALL):
        here = persona == number
        peaked = weights * np.exp(PEAK_STRENGTH * np.cos((hours - entry.peak) * (np.pi / 12)))
        edges = np.concatenate([[0.0], np.cumsum(peaked)])
        low, high = (np.interp(share[here] * back[-1], back, edges) for share in (until, since))
        start[here] = np.interp(low + rng.random(int(here.sum())) * (high - low), edges, back)
    duration = np.concatenate(
        [sessions.part(at, at + AT_ONCE).duration for at in range(0, max(n, 1), AT_ONCE)]
    )  # bounded memory: what they are computed from is many times as much
    pause = np.where(is_bot(persona), 2_000 + rng.exponential(4_000, n), 15_000 + rng.exponential(120_000, n))
    gaps = np.where(new_visit, 0, np.concatenate([[0], duration[:-1]])[:n] + pause.astype(np.int64))
    first = np.flatnonzero(new_visit)
    visit = np.cumsum(new_visit) - 1
    after = np.cumsum(gaps)
    time = (last - start * HOUR).astype(np.int64)[first][visit] + after - after[first][visit]
    if n:
        late = np.maximum.reduceat(time + duration, first) - last
        time -= np.maximum(late, 0)[visit]
    return np.asarray(time, np.int64)


# ------------------------------------------------------------------------------------------------------------- sessions


@dataclass(frozen=True)
class Shelves:
    """The products, numbered type by type and category by category.

    Attributes:
        ids: of every product.
        categories: names.
        category: of every product, numbered.
        price: of every product; it never changes.
        level: where the price lies among those of its type, 0 to 1.
        kind_first: first product of every type.
        kind_size: how many a type has.
        category_first: first product of every category, and how many there are in all.
    """

    ids: Sequence[str]
    categories: tuple[str, ...]
    category: Ints
    price: Floats
    level: Floats
    kind_first: Ints
    kind_size: Ints
    category_first: Ints


def prices(key: Keys, middle: Floats) -> tuple[Floats, Floats]:
    """Price and level (0 to 1) of every product.

    Args:
        key: one a product, which decides where its price lies among those of its type.
        middle: price in the middle of its type.
    """
    from scipy.special import ndtri

    level = draw(key, 0)
    price = middle * np.exp(PRICE_SPREAD * ndtri(np.clip(level, 0.01, 0.99)))
    # As prices are written: 17.99 and 184.99.
    price = np.where(price < 100, np.floor(price) + 0.99, np.floor(price / 5) * 5 + 4.99)
    return np.round(np.maximum(price, 1.99), 2), level


@dataclass(frozen=True)
class Sessions:
    """Sessions, one entry each, and what follows from the keys of their users and their own.

    Attributes:
        persona: of the user.
        user_key: decides what a user is like.
        own_key: decides what happens in the session.
        language: of the user, numbered.
        category: of what was looked for.
        kind: the type of product that was looked for.
        time: of the beginning, milliseconds since 1970.
    """

    persona: Ints
    user_key: Keys
    own_key: Keys
    language: Ints
    category: Ints
    kind: Ints
    time: Ints

    def part(self, start: int, stop: int) -> "Sessions":
        """The sessions from start to before stop."""
        return Sessions(**{field.name: getattr(self, field.name)[start:stop] for field in fields(self)})

    @cached_property
    def mood(self) -> Ints:
        """The persona that each session is like: mostly the user's."""
        other = lookup([persona.share for persona in PERSONAS], draw(self.own_key, _S_OTHER))
        swings = (draw(self.own_key, _S_MOOD) < OTHER_MOOD) & ~is_bot(self.persona)
        return np.where(swings, other, self.persona)

    def _rate(self, name: str, column: int, spread: float) -> Floats:
        """A share that differs from user to user."""
        return _odds(_of(name)[self.mood], spread * _normal(self.user_key, column))

    @cached_property
    def orders(self) -> Flags:
        """Which sessions end in an order."""
        return draw(self.own_key, _S_ORDERS) < self._rate("conversion", _U_CONVERSION, CONVERSION_SPREAD)

    @cached_property
    def clicks(self) -> Ints:
        """Products clicked among the results. What is ordered was found: such a session has at least one."""
        some = draw(self.own_key, _S_CLICKS) < self._rate("click_through", _U_CLICK_THROUGH, CLICK_THROUGH_SPREAD)
        more = _geometric(_of("clicks")[self.mood] - 1, draw(self.own_key, _S_MORE_CLICKS))
        return np.where(some | self.orders, np.minimum(1 + more, MOST_CLICKS), 0)

    @cached_property
    def views(self) -> Ints:
        """Products looked at beyond those."""
        mean = _of("views")[self.mood] * np.exp(VIEWS_SPREAD * _normal(self.user_key, _U_VIEWS))
        return np.minimum(_geometric(mean, draw(self.own_key, _S_VIEWS)), MOST_VIEWS)

    @cached_property
    def duration(self) -> Ints:
        """Milliseconds, in steps of a hundred."""
        pace = _of("pace")[self.mood] * np.exp(
            PACE_SPREAD * _normal(self.user_key, _U_PACE) + SESSION_PACE_SPREAD * _normal(self.own_key, _S_PACE)
        )
        seconds = pace * (SEARCH_SECONDS + PRODUCT_SECONDS * (self.clicks + self.views)) + ORDER_SECONDS * self.orders
        return np.asarray(np.ceil(np.minimum(seconds, MOST_SECONDS) * 10), np.int64) * 100


@dataclass(frozen=True)
class Places:
    """Where visitors live.

    Attributes:
        by_language: for each language, countries with their regions, most frequent first.
    """

    by_language: Sequence[Mapping[str, Sequence[str]]]

    def homes(self, user_key: Keys, language: Ints) -> tuple[Ints, Ints]:
        """Number of the country of every user, over all languages, and of the region within it."""
        country = np.zeros(len(user_key), np.int64)
        region = np.zeros(len(user_key), np.int64)
        u, v = draw(user_key, _U_COUNTRY), draw(user_key, _U_REGION)
        first = 0
        for number, countries in enumerate(self.by_language):
            here = language == number
            country[here] = first + lookup(_popularity(len(countries)), u[here])
            for offset, regions in enumerate(countries.values()):
                of = here & (country == first + offset)
                region[of] = lookup(_popularity(len(regions)), v[of])
            first += len(countries)
        return country, region

    @cached_property
    def countries(self) -> list[str]:
        """Name of each country, over all languages."""
        return [name for countries in self.by_language for name in countries]

    @cached_property
    def regions(self) -> list[Sequence[str]]:
        """Regions of each country, over all languages."""
        return [regions for countries in self.by_language for regions in countries.values()]


def _popularity(size: int) -> Floats:
    return np.asarray((np.arange(size) + 1.0) ** -1.2, np.float64)


@dataclass(frozen=True)
class Details:
    """What is written of each session beside the query.

    Attributes:
        clicked: ids of the products clicked among the results.
        rows: duration, device, country, region, referrer and events; what was not recorded is missing.
    """

    clicked: list[list[str]]
    rows: list[dict[str, Any]]


def details(sessions: Sessions, shelves: Shelves, places: Places) -> Details:
    """What happened in each session."""
    clicked, events = _events(sessions, shelves)
    persona, own, n = sessions.persona, sessions.own_key, len(sessions.persona)
    usual = draw(own, _S_DEVICE) < USUAL_DEVICE
    device = _by_persona(
        "devices", persona, np.where(usual, draw(sessions.user_key, _U_DEVICE), draw(own, _S_ANY_DEVICE))
    )
    country, region = places.homes(sessions.user_key, sessions.language)
    sizes = np.array([len(regions) for regions in places.regions])[country]
    away = draw(own, _S_AWAY) < AWAY
    region = np.where(away, (draw(own, _S_REGION) * sizes).astype(np.int64), region)
    referrer = _by_persona("referrers", persona, draw(own, _S_REFERRER))

    seconds = np.where(draw(own, _S_NO_DURATION) < NO_DURATION, np.nan, sessions.duration / 1000)
    device = np.where(draw(own, _S_NO_DEVICE) < NO_DEVICE, -1, device)
    country = np.where(draw(own, _S_NO_PLACE) < NO_PLACE, -1, country)
    region = np.where(draw(own, _S_NO_REGION) < NO_REGION, -1, region)
    rows: list[dict[str, Any]] = []
    for i, duration, on, there, part, sender in zip(
        range(n),
        seconds.tolist(),
        device.tolist(),
        country.tolist(),
        region.tolist(),
        referrer.tolist(),
        strict=True,
    ):
        row: dict[str, Any] = {}
        if duration == duration:
            row["duration"] = duration
        if on >= 0:
            row["device"] = DEVICES[on]
        if there >= 0:
            row["country"] = places.countries[there]
            if part >= 0:
                row["region"] = places.regions[there][part]
        if sender < len(REFERRERS):
            row["referrer"] = REFERRERS[sender]
        row["events"] = events[i]
        rows.append(row)
    return Details(clicked, rows)


@dataclass(frozen=True)
class _Steps:
    """Products looked at, session by session in the order in which they were."""

    session: Ints
    place: Ints  # in the session; a product that would come twice leaves a gap
    product: Ints
    clicked: Flags
    carted: Flags
    bought: Flags
    pieces: Ints


def _steps(sessions: Sessions, shelves: Shelves) -> _Steps:
    clicks, counts = sessions.clicks, sessions.clicks + sessions.views
    session = np.repeat(np.arange(len(counts)), counts)
    place = np.arange(len(session)) - np.repeat(np.cumsum(counts) - counts, counts)
    key = mix(sessions.own_key[session], _S_STEP + place)
    product = _look(sessions, shelves, session, key)
    # Nobody is shown the same product twice: the first time counts.
    kept = np.sort(np.unique(session * len(shelves.ids) + product, return_index=True)[1])
    session, place, product, key = session[kept], place[kept], product[kept], key[kept]

    mood = sessions.mood[session]
    begins = np.ones(len(session), bool)
    begins[1:] = session[1:] != session[:-1]
    meant = np.roll(begins, -1) & sessions.orders[session]  # the last one looked at is what they came for
    carts = sessions._rate("carts", _U_CARTS, CARTS_SPREAD)[session]
    carted = meant | (draw(key, _P_CART) < carts)
    along = carted & (draw(key, _P_ALONG) < _of("together")[mood]) & sessions.orders[session]
    price = np.where(carted, shelves.price[product], np.inf)
    starts = np.flatnonzero(begins)
    cheapest = price
    if len(starts):
        cheapest = np.minimum.reduceat(price, starts)[np.cumsum(begins) - 1]
    compares = (draw(sessions.own_key, _S_THRIFT) < _of("thrift")[sessions.mood])[session]
    bought = np.where(compares, sessions.orders[session] & carted & (price == cheapest), meant | along)
    two = (shelves.price[product] < PIECES_BELOW) & (draw(key, _P_PIECES) < TWO_PIECES)
    return _Steps(session, place, product, place < clicks[session], carted, bought, 1 + two.astype(np.int64))


def _look(sessions: Sessions, shelves: Shelves, session: Ints, key: Keys) -> Ints:
    """A product each: popular ones mostly, and of those the one whose price suits the user."""
    category, kind = sessions.category[session], sessions.kind[session]
    where = draw(key, _P_WHERE)
    elsewhere, anywhere = where < OTHER_TYPE + ANY_PRODUCT, where < ANY_PRODUCT
    first = np.where(elsewhere, shelves.category_first[category], shelves.kind_first[kind])
    size = np.where(elsewhere, np.diff(shelves.category_first)[category], shelves.kind_size[kind])
    first, size = np.where(anywhere, 0, first), np.where(anywhere, shelves.category_first[-1], size)
    level = _of("price_level")[sessions.mood] + PRICE_LEVEL_SPREAD * _normal(sessions.user_key, _U_LEVEL)
    wanted = level[session] + SESSION_PRICE_LEVEL_SPREAD * _normal(key, _P_LEVEL)
    scale = np.log(size + 1.0)
    best = np.zeros(len(session), np.int64)
    distance = np.full(len(session), np.inf)
    for candidate in range(CANDIDATES):
        # Zipf with exponent 1: the logarithm of the rank is even.
        rank = np.exp(draw(key, _P_CANDIDATE + candidate) * scale).astype(np.int64) - 1
        # The well-known products of a category lie all over it, not at its beginning.
        product = first + np.where(elsewhere, (rank * 7919) % size, np.minimum(rank, size - 1))
        away = np.abs(shelves.level[product] - wanted)
        closer = away < distance
        best, distance = np.where(closer, product, best), np.where(closer, away, distance)
    return best


_SEARCH, _CLICK, _VIEW, _CART, _ORDER = range(5)
_GAPS = np.array([0, 1000, 60, 700, 900])  # time before each, against the others
_LAST = 200  # place of the first thing ordered: after all products looked at


def _events(sessions: Sessions, shelves: Shelves) -> tuple[list[list[str]], list[list[dict[str, Any]]]]:
    """The ids clicked and the events of each session, in order of time."""
    n, steps = len(sessions.persona), _steps(sessions, shelves)
    clicked, carted, bought = (np.flatnonzero(flags) for flags in (steps.clicked, steps.carted, steps.bought))
    everything = np.arange(len(steps.session))
    which = np.concatenate([clicked, everything, carted, bought])
    session = np.concatenate([np.arange(n), steps.session[which]])
    kind = np.repeat([_SEARCH, _CLICK, _VIEW, _CART, _ORDER], [n, *map(len, (clicked, everything, carted, bought))])
    looked = np.where(kind[n:] == _ORDER, _LAST + steps.place[which], 4 * steps.place[which] + kind[n:])
    place = np.concatenate([np.zeros(n, np.int64), looked])
    order = np.argsort(session * 256 + place, kind="stable")
    session, kind, place = session[order], kind[order], place[order]
    which = np.concatenate([np.full(n, -1), which])[order]

    # Whole numbers throughout: sums of them are the same however many sessions are made at a time.
    own = sessions.own_key[session]
    found = np.append(steps.clicked, False)[which]  # its click came just before
    gap = np.where((kind == _VIEW) & ~found, _GAPS[_CLICK], _GAPS[kind])
    gap *= (mix(own, _S_GAP + place) % np.uint64(1000) + np.uint64(500)).astype(np.int64)
    again = np.zeros(len(kind), bool)
    again[1:] = (kind[1:] == _ORDER) & (kind[:-1] == _ORDER) & (session[1:] == session[:-1])
    gap[again] = 0  # one order, one moment
    first = np.flatnonzero(kind == _SEARCH)
    after = np.cumsum(gap)
    after -= after[first][session]
    ends = np.append(first[1:], len(kind))
    tail = 1 + (mix(sessions.own_key, _S_TAIL) % np.uint64(900_000)).astype(np.int64)
    total = (after[ends - 1] + tail)[session] if n else after
    time = sessions.time[session] + after * sessions.duration[session] // np.maximum(total, 1)

    product = np.append(steps.product, 0)[which]
    pieces = np.append(steps.pieces, 0)[which]
    orders = [f"T{key:016x}" for key in mix(sessions.own_key, _S_ORDER_ID).tolist()]
    ids, names = shelves.ids, shelves.categories
    rows: list[dict[str, Any]] = []
    for event, at, item, category, price, quantity, number in zip(
        kind.tolist(),
        np.datetime_as_string(time.astype("datetime64[ms]"), unit="ms", timezone="UTC").tolist(),
        product.tolist(),
        shelves.category[product].tolist(),
        shelves.price[product].tolist(),
        pieces.tolist(),
        session.tolist(),
        strict=True,
    ):
        if event == _SEARCH:
            rows.append({"event_type": "search", "timestamp": at})
            continue
        row = {
            "event_type": _NAMES[event],
            "timestamp": at,
            "product_id": ids[item],
            "category": names[category],
            "price": price,
        }
        if event >= _CART:
            row["quantity"] = quantity
            if event == _ORDER:
                row["transaction_id"] = orders[number]
        rows.append(row)
    chosen: list[list[str]] = [[] for _ in range(n)]
    for number, item in zip(steps.session[clicked].tolist(), steps.product[clicked].tolist(), strict=True):
        chosen[number].append(ids[item])
    return chosen, [rows[a:b] for a, b in zip(first.tolist(), ends.tolist(), strict=True)]


_NAMES = ("search", "click", "view", "add_to_cart", "purchase")


# ----------------------------------------------------------------------------------------------------------- attributes


def attributes(
    ids: Sequence[str], persona: Ints, user_key: Keys, language: Ints, first: Ints, end: int, places: Places
) -> Iterator[dict[str, Any]]:
    """What the shop knows of its customers: a record for each user with an account, without the fields left empty.

    Args:
        ids: of the users.
        persona: their personas.
        user_key: decides what each is like.
        language: numbered.
        first: beginning of each user's first session, milliseconds since 1970; the account is older.
        end: of the log; a subscription begins between the account and this.
        places: where they live.
    """
    country, region = places.homes(user_key, language)
    age = np.clip(np.round(_of("age")[persona] + 11 * _normal(user_key, _U_AGE)), 18, 88).astype(np.int64)
    gender = lookup(GENDER_SHARES, draw(user_key, _U_GENDER))
    tenure = 1 - _of("tenure")[persona] * np.log1p(-draw(user_key, _U_TENURE))
    signup = first - (tenure * DAY).astype(np.int64)
    subscription = signup + (draw(user_key, _U_WHEN) * (end - signup)).astype(np.int64)
    known = draw(user_key, _U_GUEST) >= _of("guests")[persona]
    subscribes = draw(user_key, _U_SUBSCRIBES) < _of("subscribers")[persona]
    no_age, no_gender = draw(user_key, _U_NO_AGE) < NO_AGE, draw(user_key, _U_NO_GENDER) < NO_GENDER
    no_location = draw(user_key, _U_NO_LOCATION) < NO_LOCATION
    for i in np.flatnonzero(known).tolist():
        record: dict[str, Any] = {"user_id": ids[i]}
        if not no_age[i]:
            record["age"] = int(age[i])
        if not no_gender[i]:
            record["gender"] = GENDERS[gender[i]]
        if not no_location[i]:
            record["location"] = f"{places.regions[country[i]][region[i]]}, {places.countries[country[i]]}"
        record["signup_date"] = _iso(signup[i])
        if subscribes[i]:
            record["subscription_date"] = _iso(subscription[i])
        yield record


def _iso(milliseconds: np.int64) -> str:
    return str(np.datetime_as_string(np.datetime64(int(milliseconds), "ms"), unit="ms")) + "Z"
