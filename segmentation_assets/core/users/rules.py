"""Segments by rule: written down as data, checked when read, never evaluated as code.

What belongs here: the language of rules, reading them, applying them. What does not: the shipped rules (rules.yaml).
"""

import difflib
import math
import reprlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from importlib import resources
from typing import Annotated, Any, Literal, NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import yaml
from numpy.typing import NDArray
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictBool, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from segmentation_assets.core.users.features import (
    FEATURES,
    HOURS,
    TRAITS,
    WEEKDAYS,
    Kind,
    UserFeatures,
    reason_absent,
)
from segmentation_assets.core.users.scores import SCORES_SCHEMA, UserScores
from segmentation_assets.core.users.yaml_keys import keys_given_twice
from segmentation_assets.errors import SegmentsError


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


Source = Literal["feature", "trait", "score"]

SCORES: dict[str, Kind] = {
    field.name: "text" if pa.types.is_string(field.type) else "number"
    for field in SCORES_SCHEMA
    if field.name != "user_id"
}

SHARES = [feature.name for feature in FEATURES if feature.name.endswith("_share")]
"""Features of which a rule names one column: ``category_share:Shoes``."""

SHARE_COLUMNS = {"hour_share": HOURS, "weekday_share": WEEKDAYS}
"""Of the shares whose columns are the same in all data, what stands after the colon."""

KNOWN: dict[Source, list[str]] = {
    "feature": [feature.name for feature in FEATURES if feature.name not in SHARES],
    "trait": list(TRAITS),
    "score": list(SCORES),
}

COMBINATIONS = ("all", "any", "not")
BY_NUMBER = ("above", "at_least", "below", "at_most", "between")
BY_VALUE = ("is", "in")
OPERATORS = (*BY_NUMBER, *BY_VALUE, "missing")

MAX_DEPTH = 5
"""How many of all, any and not there may be around a comparison."""

MAX_CONDITIONS = 200
"""Conditions of one rule; YAML can repeat a part by a reference, so that a short text can stand for billions."""

MAX_RULES = 200

SEE = "See segmentation_assets/core/users/rules.yaml for the shipped rules with their explanation."


class RulesError(SegmentsError):
    """The rules cannot be used as they are."""


def _wrong(problem: str, cure: str) -> NoReturn:
    """Refuse a part of a rule; pydantic adds where it stands."""
    raise PydanticCustomError("rule", "{problem}", {"problem": problem, "cure": cure})


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        _wrong(f"{_shown(value)} is no number", "Write a number, without quotes.")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        _wrong(f"{_shown(value)} is no number to compare with", "Write a finite number.")
    return number


def _number_or_text(value: Any) -> float | str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float):
        _wrong(
            f"{_shown(value)} is neither a number nor text",
            "Put it in quotes: YAML reads yes, no, on and off as truth values, and 2024-01-31 as a date.",
        )
    return _number(value)


def _items(value: Any) -> Any:
    if not isinstance(value, list) or not value:
        _wrong(f"{_shown(value)} is no list of values", "Write a list, as in [gold, platinum].")
    return [_number_or_text(item) for item in value]


def _bounds(value: Any) -> Any:
    if not isinstance(value, list) or len(value) != 2:
        _wrong(f"{_shown(value)} is no pair of numbers", "Write the lower and the upper bound, as in [18, 25].")
    low, high = (_number(item) for item in value)
    if low > high:
        _wrong(f"no value lies between {low:.15g} and {high:.15g}", "Write the lower bound first.")
    return [low, high]


_Number = Annotated[float | None, BeforeValidator(_number)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Condition(_Part):
    """Either a combination of conditions, or a comparison of one feature, trait or score with a value.

    A user of whom the value is missing meets no comparison but ``missing: true``, and so does meet its ``not``.

    Attributes:
        all_: holds when each of these does.
        any_: when at least one does.
        not_: when this one does not.
        feature: a column of ``UserFeatures.table``.
        trait: a column of ``UserFeatures.traits``.
        score: a column of ``UserScores.table``.
        above: more than this number.
        at_least: this number or more.
        below: less than this number.
        at_most: this number or less.
        between: two numbers; at least the first and at most the second.
        is_: this very number or text; case counts.
        in_: one of these.
        missing: whether there is no value.
    """

    all_: tuple["Condition", ...] | None = Field(None, alias="all")
    any_: tuple["Condition", ...] | None = Field(None, alias="any")
    not_: "Condition | None" = Field(None, alias="not")
    feature: str | None = None
    trait: str | None = None
    score: str | None = None
    above: _Number = None
    at_least: _Number = None
    below: _Number = None
    at_most: _Number = None
    between: Annotated[tuple[float, float] | None, BeforeValidator(_bounds)] = None
    is_: Annotated[float | str | None, BeforeValidator(_number_or_text)] = Field(None, alias="is")
    in_: Annotated[tuple[float | str, ...] | None, BeforeValidator(_items)] = Field(None, alias="in")
    missing: StrictBool | None = None

    @model_validator(mode="after")
    def _one_thing(self) -> "Condition":
        given = [name.rstrip("_") for name in Condition.model_fields if name in self.model_fields_set]
        empty = [name for name in given if self._given(name) in (None, ())]
        combinations = [name for name in given if name in COMBINATIONS]
        sources = [name for name in given if name in KNOWN]
        operators = [name for name in given if name in OPERATORS]
        if empty:
            _wrong(f"{_listed(empty)} has no value", "Write one after the colon, or leave the word out.")
        if combinations and len(given) > 1:
            _wrong(
                f"{_listed(given)} stand in one condition",
                "all, any and not stand alone; put the others into their list, each with its own dash.",
            )
        if not combinations and len(sources) != 1:
            _wrong(
                f"a condition needs one feature, trait or score, and has {_listed(sources)}",
                "Write, for example, {feature: purchases_per_month, above: 3}; to ask for several, combine conditions "
                "by all or any.",
            )
        if not combinations and len(operators) != 1:
            _wrong(
                f"a comparison needs one operator, and has {_listed(operators)}",
                f"Use one of {', '.join(OPERATORS)}; to ask for several, combine conditions by all.",
            )
        if not combinations:
            _check_name(self.source, self.name)
            _check_kind(self)
        return self

    def _given(self, word: str) -> Any:
        return getattr(self, word if word in Condition.model_fields else f"{word}_")

    @property
    def parts(self) -> Sequence["Condition"]:
        """The conditions that this one combines; none of a comparison."""
        if self.not_ is not None:
            return [self.not_]
        return self.all_ or self.any_ or []

    @property
    def source(self) -> Source:
        """Of a comparison: what it looks at."""
        return "feature" if self.feature is not None else "trait" if self.trait is not None else "score"

    @property
    def name(self) -> str:
        """Of a comparison: the column it looks at."""
        return str(self._given(self.source))

    @property
    def operator(self) -> str:
        """Of a comparison: how it compares."""
        return next(word for word in OPERATORS if self._given(word) is not None)

    @property
    def value(self) -> Any:
        """Of a comparison: what it compares with."""
        return self._given(self.operator)


class Rule(_Part):
    """A segment and who is in it."""

    name: str = Field(pattern=r"^[a-z0-9_]{1,64}$")
    description: str = ""
    when: Condition


class Rules(_Part):
    """All rules, in their order."""

    rules: tuple[Rule, ...] = Field(max_length=MAX_RULES)

    @model_validator(mode="after")
    def _different(self) -> "Rules":
        names = [rule.name for rule in self.rules]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            _wrong(f"several rules have the name {_listed(twice)}", "Give each rule a name of its own.")
        return self


def parse_rules(text: str, source: str) -> Rules:
    """Read rules from YAML text.

    Args:
        text: the YAML; a mapping with the one key ``rules``, a list of mappings with name, description and when.
        source: what to call it in an error.

    Raises:
        RulesError: not YAML, or not rules; names each line and rule that is wrong, and what would be right.
    """
    try:
        node = yaml.compose(text, yaml.SafeLoader)
        content = yaml.safe_load(text)
    except RecursionError:
        raise RulesError(f"The rules {source} are nested too deep to be read.", SEE) from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: what looks like a date and is none
        raise RulesError(f"The rules {source} are not valid YAML: {' '.join(str(error).split())[:300]}.", SEE) from None
    problems = [
        *(
            _Problem(place, f"{_shown(place[-1])} stands twice", "Keep one, or combine two conditions by all.")
            for place in keys_given_twice(node)
        ),
        *_beyond_bounds(content),
    ]
    if not problems:
        try:
            return Rules.model_validate(content)
        except ValidationError as error:
            problems = [_Problem(_readable(e), *_in_words(e)) for e in error.errors(include_url=False)]
    shown = problems[:5]
    raise RulesError(
        f"The rules {source} cannot be used: {'; '.join(_placed(problem, node, content) for problem in shown)}.",
        " ".join(dict.fromkeys([*(problem.cure for problem in shown), SEE])),
    )


def shipped_rules() -> Rules:
    """The rules that come with the package."""
    return parse_rules(
        resources.files("segmentation_assets.core.users").joinpath("rules.yaml").read_text("utf-8"), "rules.yaml"
    )


def apply_rules(rules: Rules, features: UserFeatures, scores: UserScores) -> RuleSegments:
    """Who is in which rule's segment: the dry run, and the real one.

    Users who are marked as noise are taken like any others: a rule says what it says. A rule that asks for a column
    that the data do not have takes nobody, whatever else it asks for, and the report says why.

    Args:
        rules: checked rules.
        features: features and traits of all users.
        scores: of the same users.

    Returns:
        The rules of every user, the size of every rule, and what any two have in common.
    """
    from scipy.sparse import csr_matrix

    columns = _Columns(features, scores)
    users = len(columns.users)
    taken = np.zeros((users, len(rules.rules)), np.bool_)
    unusable: list[str | None] = []
    for place, rule in enumerate(rules.rules):
        lacking = dict.fromkeys(filter(None, map(columns.why_absent, _comparisons(rule.when))))
        unusable.append("; ".join(lacking) or None)
        if not lacking:
            taken[:, place] = _holds(rule.when, columns)
    sizes = taken.sum(axis=0).tolist()
    _, which = np.nonzero(taken)
    ends = np.concatenate([[0], taken.sum(axis=1).cumsum()])
    names = pa.array([rule.name for rule in rules.rules], pa.string())
    membership = csr_matrix((np.ones(len(which), np.int64), which, ends), shape=taken.shape)
    common = (membership.T @ membership).toarray()
    pairs = sorted(zip(*np.nonzero(np.triu(common, 1)), strict=True), key=lambda pair: (-common[pair], pair))
    return RuleSegments(
        table=pa.table(
            {
                "user_id": columns.users,
                "rules": pa.ListArray.from_arrays(pa.array(ends, pa.int32()), names.take(pa.array(which, pa.int64()))),
            }
        ),
        report=[
            RuleReport(rule.name, size, size / users if users else 0.0, why)
            for rule, size, why in zip(rules.rules, sizes, unusable, strict=True)
        ],
        overlaps=[
            Overlap(rules.rules[one].name, rules.rules[other].name, int(common[one, other])) for one, other in pairs
        ],
    )


class _Columns:
    """The columns that rules compare, all in the order of ``users``."""

    def __init__(self, features: UserFeatures, scores: UserScores) -> None:
        ids = features.table["user_id"].combine_chunks()
        self.users: pa.Array = ids.take(pc.sort_indices(ids))
        self._features = features
        self._scores = scores
        self._tables: dict[Source, pa.Table] = {
            "feature": features.table,
            "trait": features.traits,
            "score": scores.table,
        }
        self._rows: dict[Source, pa.Array] = {}

    def why_absent(self, comparison: Condition) -> str | None:
        """Why the data have nothing to compare; None where they have."""
        source, name = comparison.source, comparison.name
        if source == "score":
            return f"{name}: {self._scores.absent[name]}" if name in self._scores.absent else None
        if name in self._tables[source].column_names:
            return None
        return f"{name}: {reason_absent(self._features, name)}"

    def numbers(self, comparison: Condition) -> NDArray[np.float64]:
        """(users,) values, nan where missing."""
        values: NDArray[np.float64] = self._column(comparison).cast(pa.float64()).to_numpy()
        return values

    def texts(self, comparison: Condition) -> pa.ChunkedArray:
        """(users,) values, null where missing."""
        return self._column(comparison).cast(pa.string())

    def _column(self, comparison: Condition) -> pa.ChunkedArray:
        table = self._tables[comparison.source]
        if comparison.source not in self._rows:
            self._rows[comparison.source] = pc.index_in(self.users, value_set=table["user_id"].combine_chunks())
        return table[comparison.name].take(self._rows[comparison.source])


def _holds(condition: Condition, columns: _Columns) -> NDArray[np.bool_]:
    """(users,) whether a condition holds."""
    if condition.parts:
        masks = [_holds(part, columns) for part in condition.parts]
        combined: NDArray[np.bool_] = (
            ~masks[0]
            if condition.not_ is not None
            else np.all(masks, axis=0)
            if condition.all_
            else np.any(masks, axis=0)
        )
        return combined
    compared = _compare_numbers if _kind(condition.source, condition.name) == "number" else _compare_texts
    return compared(condition, columns)


def _compare_numbers(comparison: Condition, columns: _Columns) -> NDArray[np.bool_]:
    values = columns.numbers(comparison)  # nan is neither more nor less than any number, nor the same
    wanted = comparison.value
    holds: NDArray[np.bool_]
    match comparison.operator:
        case "above":
            holds = values > wanted
        case "at_least":
            holds = values >= wanted
        case "below":
            holds = values < wanted
        case "at_most":
            holds = values <= wanted
        case "between":
            holds = (values >= wanted[0]) & (values <= wanted[1])
        case "missing":
            holds = np.isnan(values) == wanted
        case _:
            holds = np.isin(values, wanted)
    return holds


def _compare_texts(comparison: Condition, columns: _Columns) -> NDArray[np.bool_]:
    values = columns.texts(comparison)
    wanted = comparison.value
    holds: NDArray[np.bool_]
    if comparison.operator == "missing":
        holds = values.is_null().to_numpy() == wanted
    else:
        among = [wanted] if comparison.operator == "is" else list(wanted)
        holds = pc.is_in(values, value_set=pa.array(among, pa.string())).to_numpy()
    return holds


def _comparisons(condition: Condition) -> Iterator[Condition]:
    if not condition.parts:
        yield condition
    for part in condition.parts:
        yield from _comparisons(part)


def _kind(source: Source, name: str) -> Kind:
    return TRAITS[name] if source == "trait" else SCORES[name] if source == "score" else "number"


def _check_name(source: Source, name: str) -> None:
    """Refuse a name that no data set could have."""
    if name in KNOWN[source]:
        return
    stem, _, column = name.partition(":")
    if source == "feature" and stem in SHARES:
        columns = SHARE_COLUMNS.get(stem)
        if column and (columns is None or column in columns):
            return
        which = f"one of {', '.join(columns)}" if columns else "one of its values"
        _wrong(f"{_shown(name)} names no column of {stem}", f"Write '{stem}:' and, without a space, {which}.")
    for other, names in KNOWN.items():
        if name in names:
            _wrong(f"{_shown(name)} is a {other}, not a {source}", f"Write '{other}: {name}'.")
    known = [*KNOWN[source], *(SHARES if source == "feature" else [])]
    close = difflib.get_close_matches(stem, known, 3)
    _wrong(
        f"there is no {source} {_shown(name)}",
        f"Did you mean {' or '.join(close)}?" if close else f"There are {', '.join(known)}.",
    )


def _check_kind(comparison: Condition) -> None:
    """Refuse to compare text with numbers."""
    name, operator = comparison.name, comparison.operator
    text = _kind(comparison.source, name) == "text"
    if text and operator in BY_NUMBER:
        _wrong(f"{name} is text, which '{operator}' cannot compare", "Use is, in or missing.")
    if operator in BY_VALUE:
        for value in [comparison.value] if operator == "is" else comparison.value:
            if text and not isinstance(value, str):
                _wrong(f"{name} is text and {value:.15g} is a number", f"Put it in quotes: '{value:.15g}'.")
            if not text and isinstance(value, str):
                _wrong(f"{name} is a number and {_shown(value)} is text", "Write a number, without quotes.")


@dataclass(frozen=True)
class _Problem:
    """What is wrong at a place, as pydantic gives places: keys and positions from the top."""

    place: tuple[int | str, ...]
    what: str
    cure: str


def _beyond_bounds(content: Any) -> list[_Problem]:
    """Rules that are nested too deep, or are made of too many conditions, to be looked at any closer."""
    rules = content.get("rules") if isinstance(content, dict) else None
    problems = []
    for position, rule in enumerate(rules if isinstance(rules, list) else []):
        left: list[tuple[int, Any]] = [(0, rule.get("when"))] if isinstance(rule, dict) else []
        conditions = 0
        while left:
            depth, condition = left.pop()
            conditions += 1
            what = (
                f"all, any and not are nested deeper than {MAX_DEPTH}"
                if depth > MAX_DEPTH
                else f"it has more than {MAX_CONDITIONS} conditions"
                if conditions > MAX_CONDITIONS
                else ""
            )
            if what:
                problems.append(_Problem(("rules", position, "when"), what, "Split the rule into several."))
                break
            if isinstance(condition, dict):
                for word in COMBINATIONS:
                    parts = condition.get(word)
                    left += [(depth + 1, part) for part in (parts if isinstance(parts, list) else [parts]) if part]
    return problems


def _in_words(error: Any) -> tuple[str, str]:
    """What pydantic found, and the cure, for people."""
    if error["type"] == "rule":
        return error["msg"], error["ctx"]["cure"]
    place = error["loc"]
    last = place[-1] if place else None
    match error["type"]:
        case "missing":
            return f"'{last}' is missing", "A rule has a name and a condition: name, when."
        case "invalid_key":
            return f"there is no word {_shown(error['input'])}", f"Here stand {', '.join(_words_at(place))}."
        case "extra_forbidden":
            words = _words_at(place)
            close = difflib.get_close_matches(str(last), words, 1)
            return (
                f"there is no word {_shown(last)}",
                f"Did you mean {close[0]}?" if close else f"Here stand {', '.join(words)}.",
            )
        case "string_pattern_mismatch":
            return "the name cannot be used", "Use lower case letters, digits and underscores, at most 64."
        case "string_type":
            return f"'{last}' is no text", "Write text; put it in quotes where YAML takes it for something else."
        case "bool_type":
            return f"'{last}' is neither true nor false", "Write true or false."
        case "tuple_type":
            return f"'{last}' is no list", "Write a list, each entry with a dash."
        case "too_long":
            return f"there are more than {MAX_RULES} rules", "Leave some out."
        case _:
            return (
                f"{_shown(last) if isinstance(last, str) else 'an entry' if place else 'the file'} is no mapping",
                "Write names with values: the file has 'rules:', a rule 'name:' and 'when:', a condition "
                "'{feature: purchases_per_month, above: 3}'.",
            )


def _readable(error: Any) -> tuple[int | str, ...]:
    """Where an error is; a key that is no text would look like a position, so it is where its mapping is."""
    place: tuple[int | str, ...] = error["loc"]
    return place[:-1] if error["type"] == "invalid_key" else place


def _words_at(place: Sequence[int | str]) -> list[str]:
    model = Rules if len(place) == 1 else Rule if len(place) == 3 else Condition
    return [field.alias or name for name, field in model.model_fields.items()]


def _placed(problem: _Problem, top: yaml.Node | None, content: Any) -> str:
    """A problem with where it is: 'line 7, rule 'big_spenders', when.all.2: ...'."""
    node, line, words = top, 0, []
    for step in problem.place:
        pairs = node.value if isinstance(node, yaml.MappingNode) else []
        entries = node.value if isinstance(node, yaml.SequenceNode) else []
        found = [(key, value) for key, value in pairs if key.value == str(step)]
        if found:
            line, node = found[-1][0].start_mark.line + 1, found[-1][1]
        elif isinstance(step, int) and step < len(entries):
            line, node = entries[step].start_mark.line + 1, entries[step]
        else:
            break
    if line:
        words.append(f"line {line}")
    section, number, *inside = (*problem.place, None, None)[: max(2, len(problem.place))]
    if section == "rules" and isinstance(number, int):
        rule = content["rules"][number]
        name = rule.get("name") if isinstance(rule, dict) else None
        words.append(f"rule {_shown(name)}" if isinstance(name, str) else f"rule {number + 1}")
        if inside:
            words.append(".".join(str(step + 1 if isinstance(step, int) else step) for step in inside))
    return f"{', '.join(words)}: {problem.what}" if words else problem.what


def _listed(names: Sequence[str]) -> str:
    return " and ".join(f"'{name}'" for name in names) or "none"


_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxother = 2, 60, 60


def _shown(value: object) -> str:
    """A value from a file as it is shown in an error: never long, never on more than a line."""
    return str(value) if isinstance(value, date) else _SHORT.repr(value)
