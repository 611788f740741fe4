"""Segments by rule: written down as data, checked when read, never evaluated as code.

What belongs here: the language of rules, reading them, applying them. What does not: the shipped rules (rules.yaml).
"""

from dataclasses import dataclass

import pyarrow as pa


@dataclass(frozen=True)
class RuleReport:
    """What a rule did.

    Attributes:
        name: of the segment.
        users: how many it takes.
        share: of all users, 0..1.
        unusable: why it could not be applied (a feature that is absent); None where it was.
    """

    name: str
    users: int
    share: float
    unusable: str | None = None


@dataclass(frozen=True)
class Overlap:
    """Two rules that take some of the same users."""

    one: str
    other: str
    users: int


@dataclass(frozen=True)
class RuleSegments:
    """The rule segments of every user.

    Attributes:
        table: user_id, rules (list of text, in the order of the file), sorted by user_id; every user has a row.
        report: one entry a rule, in the order of the file.
        overlaps: pairs of rules with users in common, most users first.
    """

    table: pa.Table
    report: list[RuleReport]
    overlaps: list[Overlap]
