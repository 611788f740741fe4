"""Sessions and their events without what is there twice, with what is missing filled and what is noise marked.

What belongs here: duplicates, missing values of sessions, bots and internal traffic, and the account of all three. What
does not: which documents are sessions (core.sessions), outliers among users' features (features).
"""

from dataclasses import dataclass, field

import pyarrow as pa

from segmentation_assets.core.users.imputation import Imputation

EVENT_SCHEMA = pa.schema(
    [
        ("session_id", pa.string()),
        ("user_id", pa.string()),
        ("event_type", pa.string()),
        ("timestamp", pa.timestamp("ms", tz="UTC")),
        ("product_id", pa.string()),
        ("category", pa.string()),
        ("price", pa.float64()),
        ("quantity", pa.float64()),
        ("transaction_id", pa.string()),
    ]
)


@dataclass(frozen=True)
class CleaningAccount:
    """``sessions_read == sessions_used + sum(sessions_set_aside.values())``, always, and so for events.

    Attributes:
        sessions_read: sessions that came in.
        sessions_used: those in ``CleanSessions.sessions``.
        sessions_set_aside: the others, by reason ('duplicate_event').
        events_read: events of all sessions that came in.
        events_used: those in ``CleanSessions.events``.
        events_set_aside: the others, by reason ('duplicate_event', 'duplicate_transaction', ...).
        imputations: what was filled in.
        absent: optional columns (``details.DETAILS_SCHEMA``) that no session has.
        noise: users marked, by reason; a user can have several.
    """

    sessions_read: int
    sessions_used: int
    sessions_set_aside: dict[str, int] = field(default_factory=dict)
    events_read: int = 0
    events_used: int = 0
    events_set_aside: dict[str, int] = field(default_factory=dict)
    imputations: list[Imputation] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)
    noise: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class CleanSessions:
    """The sessions that everything about users is made of.

    Attributes:
        sessions: one row a session, sorted by session_id: session_id, user_id, search_query, timestamp, clicks (int64:
            number of ``clicked_product_ids``, or of click events where there are more), those of duration, device,
            country, region and referrer that are there, each that is filled with its ``<name>_imputed``.
        events: ``EVENT_SCHEMA``, sorted by user_id, timestamp, session_id; timestamps never null. Empty where no
            session has events.
        users: user_id, noise (list of text: why the user is marked; empty for nearly all); one row for every user
            of the sessions that came in, sorted by user_id. Nobody is left out.
        account: what happened to what came in.
    """

    sessions: pa.Table
    events: pa.Table
    users: pa.Table
    account: CleaningAccount
