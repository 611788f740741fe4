"""What a session may carry beside its query, all of it optional: events, duration, device, place, referrer.

What belongs here: the columns of these details and the rules by which a document's are read. What does not: whether the
document is a session at all (sessions), repairing what is missing (users.cleaning).
"""

import pyarrow as pa

EVENT_TYPES = ("search", "impression", "view", "click", "add_to_cart", "purchase")

EVENT = pa.struct(
    [
        ("event_type", pa.string()),  # one of EVENT_TYPES
        ("timestamp", pa.timestamp("ms", tz="UTC")),  # null: that of the session
        ("product_id", pa.string()),
        ("category", pa.string()),
        ("price", pa.float64()),  # of one piece; null where it was not recorded, never negative
        ("quantity", pa.float64()),  # null counts as 1
        ("transaction_id", pa.string()),
    ]
)

DETAILS_SCHEMA = pa.schema(
    [
        ("duration", pa.float64()),  # seconds
        ("device", pa.string()),
        ("country", pa.string()),
        ("region", pa.string()),
        ("referrer", pa.string()),
        ("events", pa.list_(EVENT)),
    ]
)
"""A table of sessions has those of these columns in which at least one session has a value. The others are absent."""
