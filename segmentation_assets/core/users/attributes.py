"""What is known about users from elsewhere: age, gender, place, when they signed up.

What belongs here: which attributes there are and which values can be used. What does not: where they come from (io).
"""

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from segmentation_assets.core.moments import parse_timestamp
from segmentation_assets.core.sessions import CLOCK_SKEW
from segmentation_assets.core.values import encodable, usable_id

MAX_AGE = 130.0
"""Years. Nobody is known to have lived longer than 122."""

MAX_TEXT_LENGTH = 100
"""Characters of a gender or a place; a longer text is a note somebody wrote."""

FIRST_DATE = datetime(1900, 1, 1, tzinfo=UTC)
"""An earlier date stands for 'unknown' in the system it comes from (year 1 in many)."""

ATTRIBUTES_SCHEMA = pa.schema(
    [
        ("user_id", pa.string()),
        ("age", pa.float64()),  # years
        ("gender", pa.string()),
        ("location", pa.string()),
        ("signup_date", pa.timestamp("ms", tz="UTC")),
        ("subscription_date", pa.timestamp("ms", tz="UTC")),
    ]
)


@dataclass(frozen=True)
class AttributesAccount:
    """What became of what the sources said. ``read == used + sum(set_aside.values())``, always.

    Attributes:
        read: records read from all sources.
        used: records that became or completed a user's row.
        set_aside: the others, by reason.
        dropped: single values that could not be used, by '<attribute>: <why>'; the rest of their record was.
        failed: users that a source was asked about and gave no answer for, by reason; they keep what other sources and
            earlier answers say.
        sources: what was asked, in words, with how many users each knew.
    """

    read: int = 0
    used: int = 0
    set_aside: dict[str, int] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)
    failed: dict[str, int] = field(default_factory=dict)
    sources: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class UserAttributes:
    """Attributes of the users that anything is known about.

    Attributes:
        table: user_id and those columns of ``ATTRIBUTES_SCHEMA`` in which at least one user has a value, sorted by
            user_id, each user once.
        account: what was read.
    """

    table: pa.Table
    account: AttributesAccount


class AttributeReason(StrEnum):
    """Why a record was set aside."""

    NOT_AN_OBJECT = "not_an_object"
    NO_USER = "no_user"
    NOT_IN_SESSIONS = "not_in_sessions"
    DUPLICATE_USER = "duplicate_user"  # a later record of the same source is about the same user
    NO_VALUE = "no_value"
    NOTHING_NEW = "nothing_new"  # an earlier source has a value for all that it says


class CheckedAttributes(NamedTuple):
    """A record that is about somebody.

    Attributes:
        user_id: whom.
        values: attribute to value, only those that can be used: float, text, or aware datetime in UTC.
        dropped: the others, as '<attribute>: <why>'.
    """

    user_id: str
    values: dict[str, Any]
    dropped: tuple[str, ...]


def check_attributes(record: object, now: datetime) -> AttributeReason | CheckedAttributes:
    """Decide what a record tells about whom.

    Other fields than those of ``ATTRIBUTES_SCHEMA`` are ignored. A missing value, null, not-a-number and a text of
    white space all mean that nothing is said. A value that cannot be used is dropped, and the rest of the record is
    used: an age has to be a number of 0 to ``MAX_AGE`` years, or its digits; a gender or location a text of up to
    ``MAX_TEXT_LENGTH`` characters, or a whole number, which is taken as its digits; a date what ``parse_timestamp``
    takes, from ``FIRST_DATE`` until now.

    Args:
        record: as read from JSON, a file or an answer.
        now: aware datetime; a date after ``now + CLOCK_SKEW`` is in the future.

    Returns:
        The reason it is set aside (NOT_AN_OBJECT or NO_USER), or what it tells, which can be nothing.
    """
    if not isinstance(record, Mapping):
        return AttributeReason.NOT_AN_OBJECT
    user = usable_id(record.get("user_id"))
    if user is None:
        return AttributeReason.NO_USER
    values: dict[str, Any] = {}
    dropped: list[str] = []
    for name in ATTRIBUTES_SCHEMA.names[1:]:
        value = record.get(name)
        if _says_nothing(value):
            continue
        checked: float | str | datetime | _Unusable
        if name == "age":
            checked = _age(value)
        elif name in ("gender", "location"):
            checked = _text(value)
        else:
            checked = _date(value, now)
        if isinstance(checked, _Unusable):
            dropped.append(f"{name}: {checked.why}")
        else:
            values[name] = checked
    return CheckedAttributes(user, values, tuple(dropped))


class _Unusable(NamedTuple):
    why: str


def _says_nothing(value: object) -> bool:
    if isinstance(value, str):
        return not value.strip()
    return value is None or (isinstance(value, float) and math.isnan(value))


def _age(value: object) -> float | _Unusable:
    # float() takes '1_0' for 10; nobody writes an age like that.
    if isinstance(value, bool) or (isinstance(value, str) and "_" in value):
        return _Unusable("not a number")
    if not isinstance(value, int | float | Decimal | str):
        return _Unusable("not a number")
    try:
        years = float(value)
    except OverflowError:
        return _Unusable("out of range")
    except ValueError:
        return _Unusable("not a number")
    if math.isnan(years):
        return _Unusable("not a number")
    return years + 0.0 if 0 <= years <= MAX_AGE else _Unusable("out of range")


def _text(value: object) -> str | _Unusable:
    if isinstance(value, int) and not isinstance(value, bool):
        if abs(value) >= 10**MAX_TEXT_LENGTH:
            return _Unusable("too long")
        value = str(value)
    if not isinstance(value, str) or not encodable(value):
        return _Unusable("not text")
    text = " ".join(value.split())
    return text if len(text) <= MAX_TEXT_LENGTH else _Unusable("too long")


def _date(value: object, now: datetime) -> datetime | _Unusable:
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day, tzinfo=UTC)
    moment = parse_timestamp(value)
    if moment is None:
        return _Unusable("not a date")
    if moment > now + CLOCK_SKEW:
        return _Unusable("in the future")
    return moment if moment >= FIRST_DATE else _Unusable("too long ago")


Order = tuple[int, str]
"""When a record was written, as far as its source tells."""

_FIRST: Order = (0, "")


class AttributeSource:
    """Takes the records of one source, one at a time, keeping the account.

    The later of two records about a user is taken, whatever it says: the earlier one is what was known before.

    Args:
        name: of the source, for people.
        now: aware datetime, see ``check_attributes``.
        users: of the sessions; a record about somebody else is set aside. None: all are taken.
    """

    def __init__(self, name: str, now: datetime, users: Collection[str] | None = None) -> None:
        self._name = name
        self._now = now
        self._users = users if users is None or isinstance(users, set | frozenset | dict) else frozenset(users)
        self._rows: dict[str, tuple[Order, CheckedAttributes]] = {}
        self._remarks: list[str] = []
        self.read = 0
        self.set_aside: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()

    def add(self, record: object, order: Order = _FIRST) -> None:
        """Take the record, or set it aside.

        Args:
            record: see ``check_attributes``.
            order: when it was written; of two of the same the one added last is the later.
        """
        self.read += 1
        checked = check_attributes(record, self._now)
        if isinstance(checked, AttributeReason):
            self.set_aside[checked.value] += 1
            return
        user = checked.user_id
        if self._users is not None and user not in self._users:
            self.set_aside[AttributeReason.NOT_IN_SESSIONS.value] += 1
            return
        earlier = self._rows.get(user)
        if earlier is not None:
            self.set_aside[AttributeReason.DUPLICATE_USER.value] += 1
        if earlier is None or order >= earlier[0]:
            self._rows[user] = (order, checked)

    def count_out(self, reason: str, records: int) -> None:
        """Note records that the source had and that cannot be added."""
        self.read += records
        self.set_aside[reason] += records

    def remark(self, text: str) -> None:
        """Note something about the source that whoever reads the account should know."""
        self._remarks.append(text)

    @property
    def known(self) -> frozenset[str]:
        """The users that it has at least one value of."""
        return frozenset(user for user, (_, row) in self._rows.items() if row.values)

    @property
    def dropped(self) -> Counter[str]:
        """Values that could not be used, by '<attribute>: <why>'."""
        return Counter(why for _, row in self._rows.values() for why in row.dropped)

    @property
    def says_nothing(self) -> int:
        """Users that there is a record of, without a single usable value."""
        return sum(not row.values for _, row in self._rows.values())

    @property
    def summary(self) -> str:
        """The source in words."""
        users = len(self.known)
        return "; ".join([f"{self._name}: {users:,} {'user' if users == 1 else 'users'} known", *self._remarks])

    def table(self) -> pa.Table:
        """``ATTRIBUTES_SCHEMA``, one row for each user that is known, sorted by user_id."""
        users = sorted(self.known)
        rows = [self._rows[user][1].values for user in users]
        columns = {name: [row.get(name) for row in rows] for name in ATTRIBUTES_SCHEMA.names[1:]}
        return pa.table({"user_id": users, **columns}, schema=ATTRIBUTES_SCHEMA)


def merge_attributes(sources: Sequence[AttributeSource]) -> UserAttributes:
    """Put together what several sources know, value by value: the first source that has one is believed.

    Args:
        sources: the most trusted first.
    """
    tables = [source.table() for source in sources]
    users = pc.unique(pa.chunked_array([table["user_id"].combine_chunks() for table in tables], pa.string()))
    users = users.take(pc.array_sort_indices(users))
    merged = {field.name: pa.nulls(len(users), field.type) for field in ATTRIBUTES_SCHEMA}
    merged["user_id"] = users
    used = 0
    set_aside: Counter[str] = Counter()
    for source, table in zip(sources, tables, strict=True):
        place = pc.index_in(users, table["user_id"].combine_chunks())
        told = np.zeros(len(users), bool)
        for name in ATTRIBUTES_SCHEMA.names[1:]:
            theirs = table[name].combine_chunks().take(place)
            told |= pc.and_(pc.is_null(merged[name]), pc.is_valid(theirs)).to_numpy(zero_copy_only=False)
            merged[name] = pc.coalesce(merged[name], theirs)
        completed = int(told.sum())
        used += completed
        set_aside += source.set_aside
        set_aside[AttributeReason.NO_VALUE.value] += source.says_nothing
        set_aside[AttributeReason.NOTHING_NEW.value] += table.num_rows - completed
    whole = pa.table(merged, schema=ATTRIBUTES_SCHEMA)
    there = [name for name in whole.column_names if name == "user_id" or whole[name].null_count < len(whole)]
    return UserAttributes(
        whole.select(there),
        AttributesAccount(
            read=sum(source.read for source in sources),
            used=used,
            set_aside=_counted(set_aside),
            dropped=_counted(sum((source.dropped for source in sources), Counter())),
            failed=_counted(sum((source.failed for source in sources), Counter())),
            sources=[source.summary for source in sources],
        ),
    )


def _counted(counts: Counter[str]) -> dict[str, int]:
    """What was counted at all, by name: the order it came in must not show."""
    return {name: counts[name] for name in sorted(counts) if counts[name]}
