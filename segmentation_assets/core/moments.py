"""Times as documents hold them, one by one and as columns.

What belongs here: what is taken for a time. What does not: which times are plausible (sessions).
"""

import math
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ISO = r"\A(?:19[7-9]\d|2\d{3})-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{3}|\.\d{6})?(?:Z|\+00:00)?\z"
_ZONE = r"(?:Z|\+00:00)\z"
_MICROSECONDS = pa.timestamp("us", tz="UTC")
_YEAR_3000 = 32_503_680_000_000_000
_NONE = np.zeros(1, np.int32)


def parse_timestamp(value: object) -> datetime | None:
    """Turn what Elasticsearch's default date format accepts into an aware UTC datetime; None when it is not a time.

    Accepted: ISO 8601 text (a date alone counts as midnight UTC, a missing zone as UTC), and epoch milliseconds as a
    number or digits.
    """
    if isinstance(value, bool):
        return None
    try:
        if isinstance(value, datetime):
            return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)
        if isinstance(value, int | float):
            return _EPOCH + timedelta(milliseconds=value) if math.isfinite(value) else None
        if isinstance(value, str):
            text = value.strip()
            # A bare year or a compact date is not epoch milliseconds: ask for at least ten digits.
            if text.lstrip("-").isascii() and text.lstrip("-").isdigit() and len(text) >= 10:
                return _EPOCH + timedelta(milliseconds=int(text))
            parsed = datetime.fromisoformat(text)
            return parsed.astimezone(UTC) if parsed.tzinfo else parsed.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        return None
    return None


def as_moments(values: Sequence[object]) -> pa.Array:
    """Microseconds in UTC; null for what is not plainly a time."""
    try:
        texts = pa.array(values, pa.string())
    except (pa.ArrowException, TypeError, UnicodeEncodeError):
        return _unix_times(values)
    try:
        if _uniform(texts):
            return _within_bounds(texts.cast(_MICROSECONDS))
        iso = pc.fill_null(pc.match_substring_regex(texts, _ISO), False)
        texts = pc.if_else(iso, texts, pa.scalar(None, pa.string()))
        return pc.replace_substring_regex(texts, _ZONE, "").cast(pa.timestamp("us")).cast(_MICROSECONDS)
    except pa.ArrowException:  # looks like a time and is none: the 31st of April
        return pa.nulls(len(texts), _MICROSECONDS)


def _uniform(texts: pa.Array) -> bool:
    """Whether all are of the form 2026-01-31T12:34:56.789Z, as far as its signs go; Arrow looks at the digits."""
    data, offsets = text_bytes(texts)
    if texts.null_count or not len(texts) or len(data) != 24 * len(texts) or (np.diff(offsets) != 24).any():
        return False
    table = data.reshape(len(texts), 24)
    return bool((table[:, [4, 7, 10, 13, 16, 19, 23]] == np.frombuffer(b"--T::.Z", np.uint8)).all())


def _within_bounds(moments: pa.Array) -> pa.Array:
    """Before 1970 and after 2999 the plain way decides, which knows what a datetime can hold."""
    numbers = moments.cast(pa.int64())
    inside = pc.and_(pc.greater_equal(numbers, 0), pc.less(numbers, _YEAR_3000))
    return pc.if_else(pc.fill_null(inside, False), moments, pa.scalar(None, _MICROSECONDS))


def _unix_times(values: Sequence[object]) -> pa.Array:
    try:
        millis = pa.array(values, pa.int64())
        millis = pc.if_else(pc.less(pc.abs(millis), _YEAR_3000 // 1000), millis, pa.scalar(None, pa.int64()))
        return _within_bounds(millis.cast(pa.timestamp("ms", tz="UTC")).cast(_MICROSECONDS))
    except (pa.ArrowException, TypeError, OverflowError):
        return pa.nulls(len(values), _MICROSECONDS)


def text_bytes(texts: pa.Array) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """The bytes of all texts, and (n + 1,) where each begins."""
    offsets = np.frombuffer(texts.buffers()[1], np.int32, len(texts) + 1, texts.offset * 4) if len(texts) else _NONE
    data = texts.buffers()[2]
    return (np.frombuffer(data, np.uint8)[: offsets[-1]] if data is not None else np.empty(0, np.uint8)), offsets
