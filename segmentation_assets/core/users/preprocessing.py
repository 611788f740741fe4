"""Features as rows that a clusterer can take: imputed, winsorised, transformed, scaled, encoded.

What belongs here: fitting these steps once and applying them later to anybody, one user included. What does not: the
features (features), what is done with the rows (clustering).
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from segmentation_assets.core.settings import BehaviourSettings
from segmentation_assets.core.users.features import FEATURES, TRAITS, UserFeatures, reason_absent
from segmentation_assets.core.users.imputation import UNKNOWN
from segmentation_assets.errors import SegmentsError


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
        left_out: feature or trait to why it has no column: 'constant', why it is absent, or that next to nobody
            differs in it.
    """

    numeric: list[NumericStep]
    categorical: list[CategoricalStep]
    left_out: dict[str, str]


DEFAULT_FEATURES = (
    "sessions_per_week",
    "recency_days",
    "session_duration",
    "click_through",
    "views",
    "add_to_carts",
    "purchases_per_month",
    "average_spend",
    "conversion",
    "price_level",
)
"""Clustered by where nobody chose: how often and when last, how long, how attentively, how much, how dear. Left out on
purpose: totals that say the same again (sessions, clicks, purchases, spend), how long somebody has been a customer, and
what is bought or searched for, which the query segments are about."""

NO_ORDER = frozenset({"average_spend"})
"""Features that are not defined without an order (or without a known price). There the missing value is 0, what such a
user spends as far as is known, not the median of those who buy."""

NOT_SKEWED = frozenset({"share", "rank"})
"""Units within 0..1. Counts, times and money of people have a long tail upwards, and of those the logarithm is taken:
one visit or two is a difference, a hundred or a hundred and one is none."""

DAYS_BEFORE_END = frozenset({"signup_days", "subscription_days"})
"""Traits of which the logarithm is taken as well."""

TAIL = 0.005
"""Share of the users at either end beyond which alone a value can be drawn in."""

FENCE = 1.5
"""Interquartile ranges beyond the quartiles (Tukey 1977) within which no value is drawn in."""

NORMAL_IQR = 1.349
"""Interquartile range of a normal distribution of standard deviation 1: so robust scaling leaves about 1 as well."""

SMALLEST_SPREAD = 1e-9
LARGEST = 1e12
"""No feature of a person is larger; cut off so that nothing computed from it is infinite."""


class UnknownFeatureError(SegmentsError):
    """A feature or trait to cluster by that does not exist."""


class NoFeaturesError(SegmentsError):
    """Nothing is left to cluster by."""


def fit_preprocessing(features: UserFeatures, settings: BehaviourSettings, among: NDArray[np.bool_]) -> Preprocessing:
    """Find out how users become rows.

    A numeric feature: missing values become the median (0 for ``NO_ORDER``); counts, times and money are logged;
    outliers are drawn to the bounds; the column is centred and scaled. The bounds, on the logged scale, are Tukey's
    fences or the outer ``TAIL`` of the users, whichever is wider: fences alone would cut off the tenth of the users
    who buy, where all others have 0. A feature that differs in fewer users than that tail is left out, since all it
    could make is a group of those few.

    A trait: a column for each of at most ``max_categories`` categories that at least ``min_category_share`` of the
    users have, and one for all others; a missing value is the category 'Unknown'.

    Each counts alike: with 'standard' and 'robust' a feature adds about 2 to the squared distance of two users, and so
    does a trait in which they differ, or the columns of a feature made of shares (``hour_share``) together; with
    'minmax' each adds 1 at most.

    Args:
        features: of all users.
        settings: which features, scaling, bounds, categories.
        among: (n,) users to go by, in the order of ``features.table``.

    Raises:
        UnknownFeatureError: ``settings.features`` names what does not exist.
        NoFeaturesError: every feature is absent or constant.
    """
    _refuse_unknown(features, settings.features or ())
    numeric: list[NumericStep] = []
    categorical: list[CategoricalStep] = []
    left_out: dict[str, str] = {}
    for asked in dict.fromkeys(DEFAULT_FEATURES if settings.features is None else settings.features):
        columns = _columns_of(asked, features)
        if not columns:
            left_out[asked] = reason_absent(features, asked)
        found: list[NumericStep] = []
        for name in columns:
            column = _column(name, features.table, features.traits)
            step: NumericStep | CategoricalStep | str
            if _is_number(column):
                step = _fit_number(name, _numbers(column)[among], settings)
            else:
                step = _fit_category(name, column.filter(pa.array(among)), settings)
            if isinstance(step, NumericStep):
                found.append(step)
            elif isinstance(step, CategoricalStep):
                categorical.append(step)
            else:
                left_out[name] = step
        numeric += [replace(step, weight=len(found) ** -0.5) for step in found]
    if not numeric and not categorical:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in left_out.items()) or "none was asked for"
        raise NoFeaturesError(
            f"There is nothing to cluster {int(among.sum())} users by, all {len(left_out)} features are left out "
            f"({reasons}).",
            "Name others in behaviour.features, or read more sessions.",
        )
    return Preprocessing(numeric, categorical, left_out)


def transform(preprocessing: Preprocessing, numeric: pa.Table, traits: pa.Table) -> NDArray[np.float64]:
    """Users as rows: (n, d) float64, finite always, the same for a user alone as among all.

    Args:
        preprocessing: as it was fitted, on these users or others.
        numeric: features of n users, as ``UserFeatures.table``; a column that is not there is one of missing values.
        traits: the same users in the same order, as ``UserFeatures.traits``.
    """
    parts = []
    for step in preprocessing.numeric:
        values = _numbers(_column(step.feature, numeric, traits))
        scaled = (_prepared(values, step.fill, step.low, step.high, step.log) - step.center) / step.scale * step.weight
        parts.append(scaled[:, None])
    for trait in preprocessing.categorical:
        names = pc.fill_null(_column(trait.trait, numeric, traits).cast(pa.string()), trait.fill)
        place = pc.index_in(names, pa.array(trait.categories, pa.string()))
        columns = pc.fill_null(place, len(trait.categories)).to_numpy()
        part = np.zeros((len(columns), len(trait.categories) + 1))
        part[np.arange(len(columns)), columns] = trait.weight
        parts.append(part if trait.rare else part[:, :-1])
    return np.hstack(parts)


def _refuse_unknown(features: UserFeatures, names: Iterable[str]) -> None:
    known = {feature.name for feature in FEATURES} | set(TRAITS)
    there = (set(features.table.column_names) | set(features.traits.column_names)) - {"user_id"}
    unknown = [name for name in names if name not in there and name.split(":")[0] not in known]
    if unknown:
        raise UnknownFeatureError(
            f"behaviour.features names {', '.join(map(repr, unknown))}, which {'is' if len(unknown) == 1 else 'are'} "
            "not measured.",
            f"Choose among {', '.join(sorted(known | {name for name in there if ':' not in name}))}.",
        )


def _columns_of(asked: str, features: UserFeatures) -> list[str]:
    """The columns of what was asked for: itself, or those of all shares whose names begin with it."""
    names = [*features.table.column_names, *features.traits.column_names]
    return [asked] if asked in names else sorted(name for name in names if name.startswith(asked + ":"))


def _column(name: str, numeric: pa.Table, traits: pa.Table) -> pa.ChunkedArray:
    for table in (numeric, traits):
        if name in table.column_names:
            return table[name]
    return pa.chunked_array([pa.nulls(numeric.num_rows)])


def _is_number(column: pa.ChunkedArray) -> bool:
    return bool(pa.types.is_floating(column.type) or pa.types.is_integer(column.type))


def _numbers(column: pa.ChunkedArray) -> NDArray[np.float64]:
    """(n,) float64, NaN where there is no value or none that is finite."""
    values = pc.fill_null(column.cast(pa.float64()), float("nan")).to_numpy()
    return np.where(np.isfinite(values), np.clip(values, -LARGEST, LARGEST), np.nan)


def _prepared(
    values: NDArray[np.float64], fill: float, low: float | None, high: float | None, log: bool
) -> NDArray[np.float64]:
    """Filled, bounded and logged."""
    values = np.where(np.isnan(values), fill, values)
    if low is not None:
        values = np.maximum(values, low)
    if high is not None:
        values = np.minimum(values, high)
    return np.log1p(values) if log else values


def _fit_number(name: str, values: NDArray[np.float64], settings: BehaviourSettings) -> NumericStep | str:
    """The step of a column, or why it has none."""
    there = values[~np.isnan(values)]
    if not len(there):
        return "no user has a value"
    fill = 0.0 if name in NO_ORDER else float(np.median(there))
    units = {feature.name: feature.unit for feature in FEATURES}
    unit = units.get(name.split(":")[0])
    log = unit not in NOT_SKEWED if unit else name in DAYS_BEFORE_END
    low: float | None = 0.0 if log else None
    high: float | None = None
    # Sorted: the last bits of a sum depend on its order, and the order of the users must not matter.
    raw = np.sort(_prepared(values, fill, low, high, log=False))
    if _constant(raw):
        return "constant"
    if settings.winsorise:
        low, high = _bounds(raw, log)
    column = _prepared(raw, fill, low, high, log)
    if _constant(column):
        differing = int((raw != np.median(raw)).sum())
        return f"the same for all but {differing} of {len(raw)} users"
    center, scale = _scaling(column, settings)
    return NumericStep(name, fill, low, high, log, center, scale)


def _bounds(raw: NDArray[np.float64], log: bool) -> tuple[float, float]:
    """Lowest and highest value that stays as it is, always one that a user has or a fence."""
    scaled = np.log1p(raw) if log else raw
    first, third = np.quantile(scaled, [0.25, 0.75])
    reach = FENCE * (third - first)
    low = min(first - reach, np.quantile(scaled, TAIL, method="higher"))
    high = max(third + reach, np.quantile(scaled, 1 - TAIL, method="lower"))
    if log:
        return max(float(np.expm1(low)), 0.0), float(np.expm1(high))
    return float(low), float(high)


def _scaling(column: NDArray[np.float64], settings: BehaviourSettings) -> tuple[float, float]:
    """Centre and scale of a column that is not constant."""
    if settings.scaling == "minmax":
        return float(column[0]), float(column[-1] - column[0])
    if settings.scaling == "robust":
        first, median, third = np.quantile(column, [0.25, 0.5, 0.75])
        spread = (third - first) / NORMAL_IQR
        return float(median), float(spread if spread > SMALLEST_SPREAD else column.std())
    return float(column.mean()), float(column.std())


def _constant(values: NDArray[np.float64]) -> bool:
    """Whether sorted values are the same but for rounding."""
    return bool(values[-1] - values[0] <= SMALLEST_SPREAD * max(1.0, abs(values[0]), abs(values[-1])))


def _fit_category(name: str, column: pa.ChunkedArray, settings: BehaviourSettings) -> CategoricalStep | str:
    """The step of a trait, or why it has none."""
    counted = pc.fill_null(column.cast(pa.string()), UNKNOWN).value_counts()
    found = zip(counted.field("values").to_pylist(), counted.field("counts").to_pylist(), strict=True)
    by_users = sorted(found, key=lambda entry: (-entry[1], entry[0]))
    if len(by_users) < 2:
        return "constant"
    enough = settings.min_category_share * len(column)
    kept = [category for category, users in by_users if users >= enough][: settings.max_categories]
    if not kept:
        return f"none of its {len(by_users)} categories is frequent enough"
    # Two users of different categories are as far apart as the two columns make them: 2 squared, or 1 of the range.
    weight = 0.5**0.5 if settings.scaling == "minmax" else 1.0
    return CategoricalStep(name, UNKNOWN, kept, rare=len(kept) < len(by_users), weight=weight)
