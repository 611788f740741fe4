"""What sets a cluster of users apart, in numbers and in plain words, and a name for it.

What belongs here: traits, statistics, the table of names and how it is applied. What does not: finding the clusters
(behaviour), the shipped table (personas.yaml).
"""

import math
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from importlib import resources
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import yaml
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from segmentation_assets.core.labels import dominant_segments
from segmentation_assets.core.model import StaleInputError
from segmentation_assets.core.settings import PersonaSettings
from segmentation_assets.core.taxonomy import OTHER
from segmentation_assets.core.users.behaviour import BehaviourModel
from segmentation_assets.core.users.clustering.base import NOISE
from segmentation_assets.core.users.features import FEATURES, SHARES, UserFeatures, marked
from segmentation_assets.core.users.yaml_keys import Place, keys_given_twice
from segmentation_assets.errors import SegmentsError

NOISE_NAME = "Unlike any group"
"""What users in no cluster are called: a group with a name, never dropped."""

WORDS = {"more": {"above": 0.5}, "much_more": {"above": 0.8}, "less": {"below": -0.5}, "much_less": {"below": -0.8}}
"""Words for effect sizes in a table of names: what Cohen (1988) calls medium and large."""

EFFECT_LIMIT = 5.0
"""Effects are cut here: beyond it, two groups hardly overlap, and how little the rest varies is all that decides."""

MOST_OF_GROUP = 2
"""Traits shown of one group of features: visits, active days and searches say much the same."""

TYPED_BY = 3
"""Users who have to have typed a query, or to have any of a share (of a device, a category), for it to be shown: what
one person searches for, or calls their telephone, is theirs."""

QUERIES = 8
"""Sample queries of a persona."""

Bound = Annotated[float, Field(allow_inf_nan=False)]

FIT_LIMIT = 2.0
"""What one effect counts for in a name, at most ("huge", Sawilowsky 2009, Journal of Modern Applied Statistical Methods
8): a group that fits in several ways should not be called by the one that stands out."""

_ROUNDING = 1e-9  # of the largest value: a deviation below it is none
_FIRST = 1e-6
_NOBODY = -2  # the cluster of users who are not to be counted


@dataclass(frozen=True)
class Trait:
    """A feature in which a cluster differs from everybody else.

    Attributes:
        feature: its name.
        effect: Cohen's d against the other users, positive where the cluster has more.
        mean: of the cluster.
        rest: mean of the others.
        sentence: the same in plain words.
    """

    feature: str
    effect: float
    mean: float
    rest: float
    sentence: str


@dataclass(frozen=True)
class Persona:
    """A cluster of users as somebody one can talk about.

    Attributes:
        cluster: its id; -1 for the users in no cluster.
        name: from the table of names, or descriptive. No two clusters have the same.
        rule: the entry of the table that gave the name; None where it is descriptive.
        evidence: what the name rests on, in words.
        users: how many.
        share: of all users, 0..1.
        traits: what sets it apart, strongest first.
        statistics: feature to count, mean, std, min, q1, median, q3, max over its users that have a value.
        queries: sample queries, none of them typed by one user alone.
        segments: query segment to its share of the cluster's users (their dominant one), largest first.
    """

    cluster: int
    name: str
    rule: str | None
    evidence: list[str]
    users: int
    share: float
    traits: list[Trait]
    statistics: dict[str, dict[str, float]] = field(default_factory=dict)
    queries: list[str] = field(default_factory=list)
    segments: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Personas:
    """A persona for each cluster.

    Attributes:
        cards: largest first, the users in no cluster last.
        model_version: of the behaviour model.
    """

    cards: list[Persona]
    model_version: str


class PersonaNamesError(SegmentsError):
    """The table of names cannot be used as it is."""


class Condition(BaseModel):
    """What a feature of a cluster has to be like. All bounds that are given count, each included.

    Attributes:
        above: the effect size (Cohen's d against all other users) is this or more.
        below: the effect size is this or less.
        mean_at_least: the mean over the cluster's users is this or more, in the feature's unit.
        mean_at_most: the mean is this or less.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    above: Bound | None = None
    below: Bound | None = None
    mean_at_least: Bound | None = None
    mean_at_most: Bound | None = None

    @model_validator(mode="before")
    @classmethod
    def _word(cls, value: Any) -> Any:
        if isinstance(value, Mapping):
            return value
        if not isinstance(value, str) or value not in WORDS:
            raise ValueError(f"write one of {', '.join(WORDS)}, or bounds such as {{above: 0.4}}")
        return WORDS[value]

    @model_validator(mode="after")
    def _possible(self) -> "Condition":
        if (self.above, self.below, self.mean_at_least, self.mean_at_most) == (None, None, None, None):
            raise ValueError("write at least one of above, below, mean_at_least, mean_at_most, each with a number")
        if self.above is not None and self.below is not None and self.above > self.below:
            raise ValueError("above is greater than below: nothing can be both")
        if self.mean_at_least is not None and self.mean_at_most is not None and self.mean_at_least > self.mean_at_most:
            raise ValueError("mean_at_least is greater than mean_at_most: nothing can be both")
        return self


class NameEntry(BaseModel):
    """A name, and which clusters it is for.

    Attributes:
        name: as people read it.
        description: who that is, for whoever edits the table.
        when: feature, or column of a share such as 'device_share:mobile', to what it has to be like.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=True)
    name: str = Field(min_length=1, max_length=80)
    description: str = ""
    when: dict[str, Condition] = Field(min_length=1)

    @field_validator("when")
    @classmethod
    def _known(cls, value: dict[str, Condition]) -> dict[str, Condition]:
        known = {feature.name for feature in FEATURES}
        for feature in value:
            stem, colon, part = feature.partition(":")
            share = _GROUPS.get(stem) in SHARES
            if stem not in known or (share and not part) or (colon and not share):
                near = get_close_matches(stem, sorted(known), 1)
                raise ValueError(
                    f"{feature!r} is no feature"
                    + (f": write {stem}:<which>" if stem in known and share else "")
                    + (f": did you mean {near[0]!r}?" if near and near[0] != stem else "")
                )
        return value


class NameTable(BaseModel):
    """Names for clusters; of entries that fit equally well, the first is taken."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    names: tuple[NameEntry, ...] = ()

    @field_validator("names")
    @classmethod
    def _different(cls, value: tuple[NameEntry, ...]) -> tuple[NameEntry, ...]:
        seen = {NOISE_NAME.casefold()}
        for entry in value:
            if entry.name.casefold() in seen:
                raise ValueError(f"the name {entry.name!r} is taken: each is given once")
            seen.add(entry.name.casefold())
        return value


def parse_names(text: str, source: str) -> NameTable:
    """Read a table of names from YAML text.

    Args:
        text: the YAML: ``names``, a list of entries with name, when and, if wanted, description.
        source: what to call it in an error.

    Raises:
        PersonaNamesError: not YAML, or not a table of names; says where and what is wrong.
    """
    cure = "See segmentation_assets/core/users/personas.yaml for the shipped one with its explanation."
    try:
        node = yaml.compose(text, yaml.SafeLoader)
        loaded = yaml.safe_load(text)
    except RecursionError:
        raise PersonaNamesError(f"The table of names {source} is nested too deep to be read.", cure) from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: what looks like a date and is none
        raise PersonaNamesError(
            f"The table of names {source} is not valid YAML: {' '.join(str(error).split())[:300]}.", cure
        ) from None
    # the list alone says as much
    table = {"names": loaded} if isinstance(loaded, list) else loaded
    twice = [("names", *place) if isinstance(loaded, list) else place for place in keys_given_twice(node)]
    if twice:
        problems = "; ".join(f"{_place(place, table)}: stands twice, keep one" for place in twice[:5])
        raise PersonaNamesError(f"The table of names {source} cannot be used: {problems}.", cure)
    try:
        return NameTable.model_validate(table)
    except ValidationError as error:
        problems = "; ".join(f"{_place(e['loc'], table)}: {e['msg']}" for e in error.errors()[:5])
        raise PersonaNamesError(f"The table of names {source} cannot be used: {problems}.", cure) from None


def _place(where: Place, table: Any) -> str:
    """Where something is wrong, an entry by its name rather than its number."""
    parts = [str(part) for part in where]
    if len(where) > 1 and where[0] == "names" and isinstance(where[1], int):
        entry = table["names"][where[1]]
        name = entry.get("name") if isinstance(entry, dict) else None
        parts[1] = repr(name) if isinstance(name, str) else f"entry {where[1] + 1}"
    return ".".join(parts) or "top level"


def shipped_names() -> NameTable:
    """The table of names that comes with the package."""
    return parse_names(
        resources.files("segmentation_assets.core.users").joinpath("personas.yaml").read_text("utf-8"),
        "personas.yaml",
    )


def describe(
    features: UserFeatures,
    model: BehaviourModel,
    names: NameTable,
    settings: PersonaSettings,
    labeled: pa.Table | None = None,
) -> Personas:
    """Say of each cluster what sets it apart, and name it.

    The effect of a feature is Cohen's d (Cohen 1988, Statistical Power Analysis for the Behavioral Sciences, ch. 2):
    the mean of the cluster less the mean of all other users, those in no cluster included, by the pooled standard
    deviation of the two. Users for whom the feature is not defined are left out of it; nothing that was filled in for
    the clusterer is used. Effects beyond +-``EFFECT_LIMIT`` are cut there, and where neither group varies at all a
    difference counts as that much. Marked users (``features.noise``) count among the users of their cluster and in
    nothing else. Shares that next to nobody has (``may_be_shown``) are in nothing at all.

    A cluster takes a name of the table when all conditions of the entry hold; one on an absent feature never does. The
    names are given out so that the sum of the effects they rest on, each up to ``FIT_LIMIT``, is the largest (Kuhn
    1955, the Hungarian method).
    A cluster without one is called by its two strongest traits of different groups.

    Args:
        features: of all users.
        model: which cluster each is in.
        names: the table of names.
        settings: what counts as a trait, and how many are shown.
        labeled: user_id, search_query and segment of each session, and timestamp if there is one; None: cards have
            neither queries nor segments.

    Raises:
        StaleInputError: the model knows other users than the features.
    """
    features_of = may_be_shown(features)
    users, cluster = clusters_of(features, model)
    counted = ~marked(features)
    ids = np.array(sorted({*model.cluster_ids.tolist(), *cluster.tolist()}), np.int64)
    moments = _moments(_matrix(features.table, features_of), cluster, counted, ids)
    traits = [
        {
            feature: _trait(
                feature, *(float(values[row, place]) for values in (moments.effect, moments.mean, moments.rest))
            )
            for place, feature in enumerate(features_of)
            if np.isfinite(moments.effect[row, place])
        }
        for row in range(len(ids))
    ]
    size = {int(each): int((cluster == each).sum()) for each in ids}
    order = sorted(size, key=lambda each: (each == NOISE, -size[each], each))
    rows = {int(each): row for row, each in enumerate(ids)}
    shown = {each: _shown(traits[rows[each]], settings) for each in order}
    named = _assign(names, {each: traits[rows[each]] for each in order if each != NOISE})
    queries, segments = _searches(labeled, users, np.where(counted, cluster, _NOBODY))
    cards: list[Persona] = []
    taken = {NOISE_NAME, *(entry.name for entry in named.values())}
    for each in order:
        entry = named.get(each)
        if each == NOISE:
            name, evidence = NOISE_NAME, ["Nearer to nobody than a group has to be."]
        elif entry is not None:
            name, evidence = entry.name, _evidence(entry, traits[rows[each]])
        else:
            measured = bool((counted & (cluster == each)).any())
            name, evidence = _descriptive(shown[each], size[each], measured, taken)
            taken.add(name)
        cards.append(
            Persona(
                cluster=each,
                name=name,
                rule=entry.name if entry else None,
                evidence=evidence,
                users=size[each],
                share=size[each] / max(len(users), 1),
                traits=shown[each],
                statistics=moments.statistics(rows[each], features_of),
                queries=queries.get(each, []),
                segments=segments.get(each, {}),
            )
        )
    return Personas(cards, model.version)


def clusters_of(features: UserFeatures, model: BehaviourModel) -> tuple[pa.Array, NDArray[np.int64]]:
    """The users of the features, and (n,) the cluster id of each.

    Raises:
        StaleInputError: the model knows other users than the features.
    """
    users = features.table["user_id"].combine_chunks()
    place = pc.index_in(users, model.users)
    if place.null_count or len(users) != len(model.users):
        raise StaleInputError(
            f"The features ({len(users)} users) and the behaviour model ({len(model.users)} users) were not made from "
            "each other.",
            "Materialize the features and the behaviour clusters again, in one run.",
        )
    return users, model.labels[place.to_numpy()].astype(np.int64)


def may_be_shown(features: UserFeatures) -> list[str]:
    """The features that can be spoken of in public: all but the shares that fewer than ``TYPED_BY`` users have any of.

    The name of such a column, a device called 'Anna's iPhone', would tell who is meant. Marked users do not count, as
    in all that is shown.
    """
    counted = pa.array(~marked(features))

    def users(name: str) -> int:
        return int(pc.sum(pc.greater(features.table[name].filter(counted), 0)).as_py() or 0)

    names = (name for name in features.table.column_names if name != "user_id")
    return [name for name in names if ":" not in name or users(name) >= TYPED_BY]


def number(value: float, digits: int = 2) -> str:
    """A number as people write it, whole or with so many digits that count: 12,345; 41; 4.1; 0.06."""
    if value == 0:
        return "0"
    text = f"{value:,.{max(digits - 1 - math.floor(math.log10(abs(value))), 0)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def amount(feature: str, value: float, digits: int = 2) -> str:
    """A value of a feature with its unit: '34%', '4 min 10 s', '1,250.00', '4.1'."""
    unit = _UNITS.get(feature.partition(":")[0], "")
    if unit in ("share", "rank"):
        return f"{number(100 * value, digits)}%"
    if unit == "money":
        return f"{value:,.2f}"
    if unit == "seconds":
        seconds = round(value)
        minutes, rest = divmod(seconds, 60)
        hours, minutes = divmod(minutes, 60)
        parts = [(hours, "h"), (minutes, "min"), (rest if not hours else 0, "s")]
        return " ".join(f"{count} {name}" for count, name in parts if count) or f"{number(value, digits)} s"
    return number(value, digits)


def sentence(feature: str, value: float, others: Sequence[tuple[str, float]] = ()) -> str:
    """A value of a feature in plain words: 'Places 4.1 orders a month; others 0.6.'

    Args:
        feature: a feature, or the column of a share.
        value: of a user, or the mean of a group.
        others: whom to compare with, and their value.
    """
    stem, _, part = feature.partition(":")
    words = _WORDING.get(stem) or _Wording(
        f"Has {{value}} for {stem.replace('_', ' ')}", "", f"much {stem.replace('_', ' ')}", f"little {stem}"
    )
    values = [value, *(other for _, other in others)]
    for digits in range(2, 6):  # what differs should look different
        texts = [amount(feature, each, digits) for each in values]
        if len(set(texts)) == len(set(values)):
            break
    else:
        texts = [amount(feature, each) for each in values]
    start = words.once if words.once and texts[0] == "1" else words.begins
    compared = ", ".join(f"{who} {words.joint}{text}" for (who, _), text in zip(others, texts[1:], strict=True))
    return start.format(value=texts[0], part=_part(stem, part)) + (f"; {compared}" if compared else "") + "."


def phrase(feature: str, effect: float) -> str:
    """A trait in a few words, for a name: 'many views', 'few orders'."""
    stem, _, part = feature.partition(":")
    words = _WORDING.get(stem)
    if words is None:
        return f"{'high' if effect > 0 else 'low'} {feature.replace('_', ' ')}"
    return (words.more if effect > 0 else words.less).format(part=_part(stem, part))


def group_of(feature: str) -> str:
    """What a feature belongs to; one that is not in the registry is a group of its own."""
    stem = feature.partition(":")[0]
    return _GROUPS.get(stem, stem)


def strongest(traits: Iterable[Trait], most: int) -> list[Trait]:
    """The strongest traits, at most one of each kind of share and two of any other group.

    Of two in a group with about the same means (a search a visit) the stronger is taken, and equally strong ones in the
    order of their names.
    """
    left: Counter[str] = Counter()
    chosen: list[Trait] = []
    for trait in sorted(traits, key=lambda trait: (-round(abs(trait.effect), 9), trait.feature)):
        group = group_of(trait.feature)
        if any(group == group_of(other.feature) and _same(trait, other) for other in chosen):
            continue
        if left[group] < (1 if group in SHARES else MOST_OF_GROUP) and len(chosen) < most:
            left[group] += 1
            chosen.append(trait)
    return chosen


def _same(one: Trait, other: Trait) -> bool:
    return math.isclose(one.mean, other.mean, rel_tol=0.02) and math.isclose(one.rest, other.rest, rel_tol=0.02)


@dataclass(frozen=True)
class _Moments:
    """(clusters, features) numbers each; NaN where there is none."""

    count: NDArray[np.int64]
    mean: NDArray[np.float64]
    deviation: NDArray[np.float64]
    quantiles: NDArray[np.float64]  # (5, clusters, features): least, quarters, most
    rest: NDArray[np.float64]
    effect: NDArray[np.float64]

    def statistics(self, row: int, features: Sequence[str]) -> dict[str, dict[str, float]]:
        names = ("min", "q1", "median", "q3", "max")
        return {
            feature: {
                "count": int(self.count[row, place]),
                "mean": float(self.mean[row, place]),
                "std": float(self.deviation[row, place]),
                **{name: float(self.quantiles[which, row, place]) for which, name in enumerate(names)},
            }
            for place, feature in enumerate(features)
            if self.count[row, place]
        }


def _matrix(table: pa.Table, features: Sequence[str]) -> NDArray[np.float64]:
    """(users, features), NaN where a value is missing."""
    columns = [pc.fill_null(table[name].cast(pa.float64()), np.nan).to_numpy() for name in features]
    return np.column_stack(columns) if columns else np.empty((table.num_rows, 0))


def _moments(
    values: NDArray[np.float64], cluster: NDArray[np.int64], counted: NDArray[np.bool_], ids: NDArray[np.int64]
) -> _Moments:
    there = np.isfinite(values)
    count = np.zeros((len(ids), values.shape[1]), np.int64)
    mean, squares = np.zeros(count.shape), np.zeros(count.shape)
    quantiles = np.full((5, *count.shape), np.nan)
    for row, each in enumerate(ids.tolist()):
        block = values[counted & (cluster == each)]
        for place in range(values.shape[1]):
            # sorted, so that a sum does not depend on the order of the users
            known = np.sort(block[np.isfinite(block[:, place]), place])
            if len(known):
                count[row, place] = len(known)
                mean[row, place] = known.mean()
                squares[row, place] = ((known - mean[row, place]) ** 2).sum()
                quantiles[:, row, place] = np.quantile(known, [0, 0.25, 0.5, 0.75, 1])
    scale = np.abs(np.where(there & counted[:, None], values, 0)).max(axis=0, initial=0)
    rest, effect = np.full(count.shape, np.nan), np.full(count.shape, np.nan)
    for row in range(len(ids)):
        # moments of the others are put together from theirs (Chan, Golub and LeVeque 1983), where nothing cancels out
        others = np.arange(len(ids)) != row
        n = count[others].sum(axis=0)
        theirs = np.divide((count * mean)[others].sum(axis=0), n, out=np.zeros(len(n)), where=n > 0)
        spread = (squares + count * (mean - theirs) ** 2)[others].sum(axis=0)
        freedom = count[row] + n - 2
        known = (count[row] > 0) & (n > 0) & (freedom > 0)
        pooled = np.sqrt(np.divide(squares[row] + spread, freedom, out=np.zeros(len(n)), where=known))
        difference, nothing = mean[row] - theirs, _ROUNDING * scale
        size = np.where(np.abs(difference) > nothing, np.sign(difference) * EFFECT_LIMIT, 0.0)
        np.divide(difference, pooled, out=size, where=pooled > nothing)
        effect[row] = np.where(known, np.clip(size, -EFFECT_LIMIT, EFFECT_LIMIT), np.nan)
        rest[row] = np.where(n > 0, theirs, np.nan)
    deviation = np.sqrt(np.divide(squares, count - 1, out=np.zeros(count.shape), where=count > 1))
    return _Moments(count, mean, deviation, quantiles, rest, effect)


def _trait(feature: str, effect: float, mean: float, rest: float) -> Trait:
    return Trait(feature, effect, mean, rest, sentence(feature, mean, [("others", rest)]))


def _shown(traits: Mapping[str, Trait], settings: PersonaSettings) -> list[Trait]:
    # without the first condition a limit of 0 would make traits of features in which nobody differs
    return strongest(
        (trait for trait in traits.values() if trait.effect and abs(trait.effect) >= settings.min_effect),
        settings.traits,
    )


def _fit(entry: NameEntry, traits: Mapping[str, Trait]) -> float | None:
    """The sum of the effects, each up to ``FIT_LIMIT``, that an entry rests on; None where one does not hold."""
    total = 0.0
    for feature, condition in entry.when.items():
        trait = traits.get(feature)
        if trait is None:
            return None
        for value, least, most in (
            (trait.effect, condition.above, condition.below),
            (trait.mean, condition.mean_at_least, condition.mean_at_most),
        ):
            if (least is not None and value < least) or (most is not None and value > most):
                return None
        if condition.above is not None or condition.below is not None:
            total += min(abs(trait.effect), FIT_LIMIT)
    return total


def _assign(names: NameTable, traits: Mapping[int, Mapping[str, Trait]]) -> dict[int, NameEntry]:
    """Which cluster takes which entry."""
    from scipy.optimize import linear_sum_assignment

    clusters = list(traits)
    if not clusters or not names.names:
        return {}
    fits = [[_fit(entry, traits[each]) for entry in names.names] for each in clusters]
    # A little for each name that is given at all, less for a later entry: what rests on means alone has no effects.
    gains = np.array(
        [[0.0 if fit is None else fit + _FIRST / (1 + place) for place, fit in enumerate(row)] for row in fits]
    )
    found = zip(*linear_sum_assignment(gains, maximize=True), strict=True)
    return {clusters[row]: names.names[column] for row, column in found if fits[row][column] is not None}


def _evidence(entry: NameEntry, traits: Mapping[str, Trait]) -> list[str]:
    evidence = []
    for feature, condition in entry.when.items():
        trait, asked = traits[feature], []
        if condition.above is not None or condition.below is not None:
            asked.append(f"effect size {trait.effect:+.2f}")
        if condition.mean_at_least is not None:
            asked.append(f"asked for: at least {amount(feature, condition.mean_at_least)}")
        if condition.mean_at_most is not None:
            asked.append(f"asked for: at most {amount(feature, condition.mean_at_most)}")
        evidence.append(f"{trait.sentence} ({', '.join(asked)})")
    return evidence


def _descriptive(traits: Sequence[Trait], users: int, measured: bool, taken: Collection[str]) -> tuple[str, list[str]]:
    """A name from the strongest traits, another than those taken, and what it rests on."""
    different: dict[str, Trait] = {}
    for trait in traits:
        different.setdefault(group_of(trait.feature), trait)
    telling = list(different.values())
    if not users:
        name, evidence = "Nobody at present", ["No user is in it."]
    elif not measured:
        name, evidence = "Marked users", ["All of its users are marked as noise."]
    elif not telling:
        name, evidence = "Close to the average", ["No feature sets it apart."]
    else:
        name, evidence = "", []
    if not name:
        for length in range(min(2, len(telling)), len(telling) + 1):
            words = ", ".join(phrase(trait.feature, trait.effect) for trait in telling[:length])
            name = words[0].upper() + words[1:]
            evidence = [f"{trait.sentence} (effect size {trait.effect:+.2f})" for trait in telling[:length]]
            if name not in taken:
                break
    if name in taken:
        name = next(again for again in (f"{name} ({n})" for n in range(2, len(taken) + 3)) if again not in taken)
    return name, evidence


def _searches(
    labeled: pa.Table | None, users: pa.Array, cluster: NDArray[np.int64]
) -> tuple[dict[int, list[str]], dict[int, dict[str, float]]]:
    """The sample queries of each cluster, and the share of its users in each query segment.

    A query is shown when at least ``TYPED_BY`` different users of the cluster typed it, in whatever case and spacing,
    those first that most of them did.
    """
    if labeled is None or not labeled.num_rows:
        return {}, {}
    ids = pa.array(cluster)
    sessions = pa.table(
        {
            "user_id": labeled["user_id"],
            "cluster": ids.take(pc.index_in(labeled["user_id"].combine_chunks(), users)),
            "query": pc.utf8_lower(
                pc.replace_substring_regex(pc.utf8_trim_whitespace(labeled["search_query"]), r"\s+", " ")
            ),
        }
    )
    sessions = sessions.filter(pc.not_equal(sessions["cluster"], _NOBODY))
    typed = sessions.group_by(["cluster", "query"]).aggregate([("user_id", "count_distinct"), ("user_id", "count")])
    typed = typed.filter(pc.greater_equal(typed["user_id_count_distinct"], TYPED_BY)).sort_by(
        [
            ("cluster", "ascending"),
            ("user_id_count_distinct", "descending"),
            ("user_id_count", "descending"),
            ("query", "ascending"),
        ]
    )
    queries: dict[int, list[str]] = {}
    for each in pc.unique(typed["cluster"]).to_pylist():
        queries[each] = typed.filter(pc.equal(typed["cluster"], each))["query"].slice(0, QUERIES).to_pylist()
    if "timestamp" not in labeled.column_names:
        moments = pa.array(np.zeros(labeled.num_rows, np.int64)).cast(pa.timestamp("ms", tz="UTC"))
        labeled = labeled.append_column("timestamp", moments)
    dominant = dominant_segments(labeled)
    of_user = ids.take(pc.index_in(dominant["user_id"].combine_chunks(), users))
    pairs = pa.table({"cluster": of_user, "segment": dominant["segment"]})
    pairs = pairs.filter(pc.not_equal(pairs["cluster"], _NOBODY))
    counted = pairs.group_by(["cluster", "segment"]).aggregate([([], "count_all")]).to_pylist()
    totals: Counter[int] = Counter()
    for entry in counted:
        totals[entry["cluster"]] += entry["count_all"]
    segments: dict[int, dict[str, float]] = defaultdict(dict)
    for entry in sorted(counted, key=lambda entry: (-entry["count_all"], entry["segment"])):
        segments[entry["cluster"]][entry["segment"]] = entry["count_all"] / totals[entry["cluster"]]
    return queries, dict(segments)


@dataclass(frozen=True)
class _Wording:
    """How a feature is spoken of.

    Attributes:
        begins: a sentence about a value.
        joint: what stands before the value of others.
        more: a trait in a few words, for those who have more of it.
        less: the same for those who have less.
        once: ``begins`` for a value of 1.
    """

    begins: str
    joint: str
    more: str
    less: str
    once: str = ""


_WORDING = {
    "sessions": _Wording("Came {value} times", "", "many visits", "few visits", "Came once"),
    "searches": _Wording("Searched {value} times", "", "many searches", "few searches", "Searched once"),
    "active_days": _Wording("Came on {value} days", "on ", "many active days", "few active days", "Came on one day"),
    "sessions_per_week": _Wording(
        "Comes {value} times a week", "", "frequent visits", "rare visits", "Comes once a week"
    ),
    "recency_days": _Wording(
        "Last came {value} days ago", "", "last seen long ago", "seen recently", "Last came a day ago"
    ),
    "tenure_days": _Wording(
        "First came {value} days ago", "", "first seen long ago", "first seen recently", "First came a day ago"
    ),
    "session_duration": _Wording("Stays {value} a visit", "", "long visits", "short visits"),
    "clicks": _Wording("Clicked {value} times", "", "many clicks", "few clicks", "Clicked once"),
    "click_through": _Wording(
        "Clicks on a product in {value} of the visits", "in ", "visits with clicks", "visits without clicks"
    ),
    "views": _Wording("Viewed {value} products", "", "many views", "few views", "Viewed one product"),
    "views_without_purchase": _Wording(
        "Viewed {value} products without ever buying them",
        "",
        "much viewed and not bought",
        "little viewed and not bought",
        "Viewed one product without ever buying it",
    ),
    "add_to_carts": _Wording(
        "Put {value} products into the cart", "", "full carts", "empty carts", "Put one product into the cart"
    ),
    "purchases": _Wording("Placed {value} orders", "", "many orders", "few orders", "Placed one order"),
    "purchases_per_month": _Wording(
        "Places {value} orders a month", "", "frequent orders", "rare orders", "Places one order a month"
    ),
    "spend": _Wording("Spent {value} in all", "", "high spend", "low spend"),
    "average_spend": _Wording("Spends {value} an order", "", "large orders", "small orders"),
    "conversion": _Wording(
        "Buys in {value} of the visits", "in ", "visits that end in an order", "visits without an order"
    ),
    "price_level": _Wording(
        "Looks at products dearer than {value} of their category", "than ", "expensive products", "cheap products"
    ),
    "category_share": _Wording("{value} of what they look at is {part}", "", "much of {part}", "little of {part}"),
    "hour_share": _Wording("{value} of the visits begin {part}", "", "visits {part}", "few visits {part}"),
    "weekday_share": _Wording("{value} of the visits are on a {part}", "", "{part} visits", "few {part} visits"),
    "device_share": _Wording("{value} of the visits are on {part}", "", "visits on {part}", "few visits on {part}"),
    "segment_share": _Wording(
        "{value} of the searches are in {part}", "", "searches in {part}", "few searches in {part}"
    ),
}
_OTHERS = {"category_share": "other categories", "segment_share": "no named segment", "device_share": "other devices"}
_UNITS = {feature.name: feature.unit for feature in FEATURES}
_GROUPS = {feature.name: feature.group for feature in FEATURES}
_WEEKDAYS = dict(
    zip(
        ("mon", "tue", "wed", "thu", "fri", "sat", "sun"),
        ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"),
        strict=True,
    )
)


def _part(stem: str, part: str) -> str:
    """Which share it is of, in words."""
    if stem == "hour_share" and part.isdigit():
        return f"between {part}:00 and {(int(part) + 1) % 24:02}:00 (UTC)"
    if stem == "weekday_share":
        return _WEEKDAYS.get(part, part)
    if part == OTHER:
        return _OTHERS.get(stem, part)
    return part
