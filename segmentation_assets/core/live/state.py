"""What is kept of a user between events, and how an event changes it.

What belongs here: the state, its bytes, the effect of one event, what is late and what is a duplicate. What does not:
features made of it (features), the segment it leads to (segmenter), where it lies (io.live_store).

Everything in it is a whole number or made of event times, so it does not depend on the order of a user's events, as
long as none comes later than the lateness that is allowed. What is remembered of sessions, products and orders is
bounded; an event about one that is no longer remembered opens it anew.
"""

from typing import Final

import msgspec

from segmentation_assets.core.live.events import Event, digest, recent_digest

FORMAT = 1

APPLIED: Final = 0
DUPLICATE: Final = 1
LATE: Final = 2

KEPT_SESSIONS = 12
KEPT_PRODUCTS = 32
KEPT_ORDERS = 16
KEPT_QUERIES = 8
KEPT_DAYS = 4
KEPT_EVENTS = 4_096  # within the lateness allowed; of a user who has more, the oldest of them can count twice
KEPT_NAMES = 64
"""Of categories, devices, countries and regions each; a user who has more is told by these."""

PAUSE = 1_800_000
"""Milliseconds without an event after which what comes without a session_id is of no session any more."""

MONEY = 1_000_000
"""Money and price ranks are kept in millionths: sums of whole numbers do not depend on their order."""

LARGEST_SPEND = 2**62
"""Millionths. More is not told apart, nor could it be written, whatever prices and quantities somebody sends."""

_DAY = 86_400_000
_HOUR = 3_600_000
_THURSDAY = 3
SEARCHED, CLICKED, CONVERTED = 1, 2, 4
"""Of a remembered session: what happened in it."""

_BOUGHT = -1


class UserState(msgspec.Struct, array_like=True, gc=False):
    """A user so far. Times are milliseconds since 1970.

    Attributes:
        format: of this record.
        sequence: updates so far; an update is written only upon the one that it was made from.
        first: the earliest event.
        latest: the latest, the user's watermark.
        first_session: the earliest search session.
        latest_session: the latest.
        events: applied.
        sessions: search sessions: searches with a query.
        visits: different session_ids among them; fewer where a visit has several searches.
        searches: all search events.
        impressions: what was shown.
        views: of products; likewise clicks, carts.
        clicks: see views.
        carts: see views.
        clicked: visits with a click.
        converted: visits with a purchase.
        orders: purchases of one transaction are one.
        priced_orders: those with a price.
        spend: millionths of the shop's money.
        unbought: views of products that were not bought.
        priced: events whose price could be ranked in its category.
        level: sum of these ranks, in millionths.
        timed: sessions whose duration is known.
        duration: their sum, milliseconds.
        days: different days (UTC) with a session.
        interests: cluster of queries (-1 none) to [sessions, latest moment].
        categories: product category to events.
        devices: to [sessions, latest moment].
        countries: likewise.
        regions: likewise.
        hours: (24,) sessions that began in each hour (UTC).
        weekdays: (7,) on each day, Monday first.
        queries: [moment, query, cluster], newest first.
        recent_days: days since 1970 with a session, those that a late event can still be on.
        recent_sessions: [digest of session_id, start, end, given duration or -1, flags], the least recent first.
        products: digest of product to its views, -1 once bought; the least recent first.
        recent_orders: digest of order to 1 if it has a price, else 0.
        seen: digest of event id to its moment, of those that are not too late to come again.
        segment: the dominant segment; empty before the first session.
        since: when it came to be that, by the event that did it.
        before: [visits, clicked, converted] before the session that did it; zeros for a first segment.
        cluster: of behaviour; -1 for none, -2 before it was ever looked for.
        confidence: in it, 0..1.
        model: version of the model that segment and cluster are of.
        then: amounts at the last segmentation, see ``change.AMOUNTS``.
        then_interests: cluster of queries to sessions, then.
        then_categories: category to events, then.
        segmentations: how often the user was looked at anew.
    """

    format: int = FORMAT
    sequence: int = 0
    first: int = 0
    latest: int = 0
    first_session: int = 0
    latest_session: int = 0
    events: int = 0
    sessions: int = 0
    visits: int = 0
    searches: int = 0
    impressions: int = 0
    views: int = 0
    clicks: int = 0
    carts: int = 0
    clicked: int = 0
    converted: int = 0
    orders: int = 0
    priced_orders: int = 0
    spend: int = 0
    unbought: int = 0
    priced: int = 0
    level: int = 0
    timed: int = 0
    duration: int = 0
    days: int = 0
    interests: dict[int, list[int]] = {}
    categories: dict[str, int] = {}
    devices: dict[str, list[int]] = {}
    countries: dict[str, list[int]] = {}
    regions: dict[str, list[int]] = {}
    hours: list[int] = msgspec.field(default_factory=lambda: [0] * 24)
    weekdays: list[int] = msgspec.field(default_factory=lambda: [0] * 7)
    queries: list[tuple[int, str, int]] = []
    recent_days: list[int] = []
    recent_sessions: list[list[int]] = []
    products: dict[int, int] = {}
    recent_orders: dict[int, int] = {}
    seen: dict[int, int] = {}
    segment: str = ""
    since: int = 0
    before: list[int] = []
    cluster: int = -2
    confidence: float = 0.0
    model: str = ""
    then: list[int] = []
    then_interests: dict[int, int] = {}
    then_categories: dict[str, int] = {}
    segmentations: int = 0


class UnreadableStateError(ValueError):
    """Bytes that are no state of this format."""


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(UserState)


def encode(state: UserState) -> bytes:
    """The state as MessagePack."""
    return _encoder.encode(state)


def decode(data: bytes) -> UserState:
    """What ``encode`` gave.

    Raises:
        UnreadableStateError: it is something else, or of a later format.
    """
    try:
        state = _decoder.decode(data)
    except msgspec.MsgspecError as error:
        raise UnreadableStateError("no user state") from error
    if state.format != FORMAT:
        raise UnreadableStateError(f"a user state of format {state.format}, not {FORMAT}")
    return state


def apply(state: UserState, event: Event, lateness: int, cluster: int = -1, level: float = -1.0) -> int:
    """Let one event change a state.

    Args:
        state: is changed.
        event: checked.
        lateness: milliseconds that an event may be behind the user's latest.
        cluster: of the event's query.
        level: rank of the event's price in its category, 0..1; negative where there is none.

    Returns:
        ``APPLIED``; ``DUPLICATE`` for an event that was applied before, ``LATE`` for one that is behind by more than is
        allowed: these change nothing.
    """
    at = event.timestamp
    latest = state.latest
    oldest = (at if at > latest else latest) - lateness
    if at < oldest and state.events:
        return LATE
    seen = state.seen
    identity = digest(event.event_id)
    if identity in seen:
        return DUPLICATE
    if len(seen) >= 16:
        _forget(seen, oldest)
    seen[identity] = at
    if not state.events:
        state.first = state.latest = at
    elif at > latest:
        state.latest = at
    elif at < state.first:
        state.first = at
    state.events += 1
    kind = event.event_type
    if kind == "search":
        state.searches += 1
        if event.search_query is not None:
            _open_session(state, event, at, cluster)
        elif event.session_id is not None:
            _touch(state, event, at, 0)
        return APPLIED
    if kind == "impression":
        state.impressions += 1
        return APPLIED
    if event.category is not None:
        categories = state.categories
        if event.category in categories:
            categories[event.category] += 1
        elif len(categories) < KEPT_NAMES:
            categories[event.category] = 1
    if level >= 0:
        state.priced += 1
        state.level += round(level * MONEY)
    if kind == "view":
        state.views += 1
        if event.product_id is not None:
            _view(state, recent_digest(event.product_id))
        _touch(state, event, at, 0)
    elif kind == "click":
        state.clicks += 1
        _touch(state, event, at, CLICKED)
    elif kind == "add_to_cart":
        state.carts += 1
        _touch(state, event, at, 0)
    else:
        _purchase(state, event, at)
        _touch(state, event, at, CONVERTED)
    return APPLIED


def _forget(seen: dict[int, int], oldest: int) -> None:
    """Let go of events that would be late by now; they are roughly in the order of their times."""
    gone = []
    for identity, at in seen.items():
        if at >= oldest:
            break
        gone.append(identity)
    for identity in gone:
        del seen[identity]
    if len(seen) >= KEPT_EVENTS:
        del seen[next(iter(seen))]


def _open_session(state: UserState, event: Event, at: int, cluster: int) -> None:
    if not state.sessions or at < state.first_session:
        state.first_session = at
    if at > state.latest_session:
        state.latest_session = at
    state.sessions += 1
    interest = state.interests.get(cluster)
    if interest is None:
        state.interests[cluster] = [1, at]
    else:
        interest[0] += 1
        if at > interest[1]:
            interest[1] = at
    state.hours[at // _HOUR % 24] += 1
    day = at // _DAY
    state.weekdays[(day + _THURSDAY) % 7] += 1
    if day not in state.recent_days:
        state.days += 1
        state.recent_days.append(day)
        if len(state.recent_days) > KEPT_DAYS:
            state.recent_days.remove(min(state.recent_days))
    for name, names in (
        (event.device, state.devices),
        (event.country, state.countries),
        (event.region, state.regions),
    ):
        if name is None:
            continue
        counted = names.get(name)
        if counted is not None:
            counted[0] += 1
            if at > counted[1]:
                counted[1] = at
        elif len(names) < KEPT_NAMES:
            names[name] = [1, at]
    queries = state.queries
    queries.append((at, event.search_query or "", cluster))
    if len(queries) > 1:
        queries.sort(reverse=True)
        del queries[KEPT_QUERIES:]
    _touch(state, event, at, SEARCHED)


def _touch(state: UserState, event: Event, at: int, flag: int) -> None:
    """Note what happened in a session; without an id it is the one that goes on at that time, if any."""
    sessions = state.recent_sessions
    found = None
    if event.session_id is not None:
        key = recent_digest(event.session_id)
        for place in range(len(sessions) - 1, -1, -1):
            if sessions[place][0] == key:
                found = sessions[place]
                if place < len(sessions) - 1:  # to the end of the line: what nothing happens in goes first
                    del sessions[place]
                    sessions.append(found)
                break
    elif flag == SEARCHED:  # a session of its own
        key = digest(event.event_id)
    else:
        key, found = 0, _going_on(sessions, at)
        if found is None:
            return
    if found is None:
        found = [key, at, at, -1, 0]
        sessions.append(found)
        if len(sessions) > KEPT_SESSIONS:
            del sessions[0]
    if at < found[1] or at > found[2] or event.duration is not None:
        known = _duration(found)
        if at < found[1]:
            found[1] = at
        elif at > found[2]:
            found[2] = at
        if event.duration is not None:
            found[3] = max(found[3], round(event.duration * 1000))
        now = _duration(found)
        if now != known:
            state.timed += known < 0
            state.duration += now if known < 0 else now - known
    before = found[4]
    flags = before | flag
    if flags != before:
        found[4] = flags
        if flags & SEARCHED:
            if not before & SEARCHED:
                before = 0
                state.visits += 1
            state.clicked += bool(flags & CLICKED) - bool(before & CLICKED)
            state.converted += bool(flags & CONVERTED) - bool(before & CONVERTED)


def _going_on(sessions: list[list[int]], at: int) -> list[int] | None:
    """Of the sessions that began by then and ended no longer ago than a session may pause, the one begun last."""
    found = None
    for session in sessions:
        if session[1] <= at <= session[2] + PAUSE and (found is None or session[1:] > found[1:]):
            found = session
    return found


def _duration(session: list[int]) -> int:
    """Milliseconds; -1 where it is not known: one event alone lasts nobody knows how long."""
    if session[3] >= 0:
        return session[3]
    return session[2] - session[1] if session[2] > session[1] else -1


def _view(state: UserState, product: int) -> None:
    products = state.products
    views = products.pop(product, 0)
    if views != _BOUGHT:
        views += 1
        state.unbought += 1
    products[product] = views
    if len(products) > KEPT_PRODUCTS:
        del products[next(iter(products))]


def _purchase(state: UserState, event: Event, at: int) -> None:
    if event.product_id is not None:
        product = recent_digest(event.product_id)
        views = state.products.pop(product, 0)
        if views > 0:
            state.unbought -= views
        state.products[product] = _BOUGHT
        if len(state.products) > KEPT_PRODUCTS:
            del state.products[next(iter(state.products))]
    order = digest(f"{event.session_id}\0{at}" if event.transaction_id is None else event.transaction_id)
    priced = event.price is not None
    before = state.recent_orders.get(order)
    if before is None:
        state.orders += 1
        before = 0
        if len(state.recent_orders) >= KEPT_ORDERS:
            del state.recent_orders[next(iter(state.recent_orders))]
    if event.price is not None:
        paid = round(event.price * (1.0 if event.quantity is None else event.quantity) * MONEY)
        state.spend = min(state.spend + paid, LARGEST_SPEND)
    if priced and not before:
        state.priced_orders += 1
    state.recent_orders[order] = int(priced or before)
