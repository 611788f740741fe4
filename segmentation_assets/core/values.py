"""Single values of documents: which can be an id, which a short text.

What belongs here: rules for one value. What does not: what a document needs (sessions, details), times (moments).
"""

MAX_ID_LENGTH = 512
"""Bytes of UTF-8. Elasticsearch refuses a longer document id."""

MAX_TEXT_LENGTH = 256
"""Characters of a name of something: a device, a country, a category."""


def usable_id(value: object) -> str | None:
    """Return the value as an id (digits for a whole number, no outer white space), or None when it cannot be one."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not encodable(value):
        return None
    value = value.strip()
    return value if value and len(value.encode()) <= MAX_ID_LENGTH else None


def usable_text(value: object) -> str | None:
    """Return the value as a short text (white space folded), or None when it cannot be one."""
    if not isinstance(value, str) or not encodable(value):
        return None
    text = " ".join(value.split())
    return text if text and len(text) <= MAX_TEXT_LENGTH else None


def encodable(text: str) -> bool:
    """Whether a text can be stored: lone surrogates survive JSON but neither UTF-8 nor Arrow."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
