"""What is known about users from elsewhere: age, gender, place, when they signed up.

What belongs here: which attributes there are and which values can be used. What does not: where they come from (io).
"""

from dataclasses import dataclass, field

import pyarrow as pa

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
