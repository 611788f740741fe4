"""Features as rows that a clusterer can take: imputed, winsorised, transformed, scaled, encoded.

What belongs here: fitting these steps once and applying them later to anybody, one user included. What does not: the
features (features), what is done with the rows (clustering).
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class NumericStep:
    """How a numeric feature becomes a column.

    Attributes:
        feature: its name.
        fill: what a missing value becomes.
        low: values below become this (winsorised); None: no bound.
        high: values above become this.
        log: whether log(1 + x) is taken, after the bounds.
        center: subtracted from it, after that.
        scale: what it is then divided by, never 0.
        weight: what it is then multiplied by.
    """

    feature: str
    fill: float
    low: float | None
    high: float | None
    log: bool
    center: float
    scale: float
    weight: float = 1.0


@dataclass(frozen=True)
class CategoricalStep:
    """How a trait becomes columns, one a category.

    Attributes:
        trait: its name.
        fill: what a missing value becomes.
        categories: those with a column of their own.
        rare: whether there is one more column for all others.
        weight: the value in the column of a user's category.
    """

    trait: str
    fill: str
    categories: list[str]
    rare: bool
    weight: float = 1.0


@dataclass(frozen=True)
class Preprocessing:
    """A fitted pipeline, which is numbers and names only, so that it can be stored as JSON.

    Attributes:
        numeric: steps of the numeric features.
        categorical: steps of the traits.
        left_out: feature to why it has no column ('constant', 'absent').
    """

    numeric: list[NumericStep]
    categorical: list[CategoricalStep]
    left_out: dict[str, str]
