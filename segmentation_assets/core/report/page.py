"""The report as one HTML page that needs nothing else: no server, no network, no script.

What belongs here: what the page says and in which order; numbers as people read them. What does not: how it looks
(report.html.j2, report.css), finding anything out, writing the file.

All text that people typed, in queries, names, categories and attributes, is escaped where it is put into the page, and
a policy in the page forbids it to load or run anything. There is no user id in it: a report is handed on.
"""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from segmentation_assets.core import plots, user_plots
from segmentation_assets.core.churn import Churn
from segmentation_assets.core.labels import OTHER
from segmentation_assets.core.quality import CheckOutcome
from segmentation_assets.core.report.picture import InlinePicture, inline
from segmentation_assets.core.report.wording import (
    breakable,
    capitalised,
    count,
    day,
    moment,
    number,
    percent,
    sentence,
    words,
)
from segmentation_assets.core.sessions import Intake
from segmentation_assets.core.users.attributes import AttributesAccount
from segmentation_assets.core.users.behaviour import BehaviourModel, Stability
from segmentation_assets.core.users.cleaning import CleaningAccount
from segmentation_assets.core.users.features import FEATURES, UserFeatures, marked
from segmentation_assets.core.users.personas import TYPED_BY, Persona, Personas, may_be_shown
from segmentation_assets.core.users.rules import RuleSegments
from segmentation_assets.core.users.scores import UserScores

if TYPE_CHECKING:
    import pandas as pd
    from jinja2 import Environment

SOURCES = {
    "segments": "labeled_segments",
    "query_map": "labeled_segments",
    "features": "user_features",
    "scores": "user_scores",
    "rules": "rule_segments",
    "behaviour": "behaviour_clusters",
    "personas": "personas",
    "cleaning": "clean_sessions",
    "attributes": "user_attributes",
    "intake": "raw_sessions",
    "checks": "labeled_segments",
}
"""Part of ``ReportData`` to the asset that makes it: what a reader has to materialize where it is missing."""

MAX_ROWS = 40
"""Rows of a table; how many more there are is said below it."""

MAX_EFFECT = 2.0
"""Cohen's d at which the bar of a trait is full."""


@dataclass(frozen=True)
class ReportData:
    """What the report is made of. Every part may be missing: the page then says how to get it.

    Attributes:
        generated_at: when the report is made, aware.
        title: stands above it.
        window: first and last moment of the sessions, aware; None: that of the features.
        segments: one row a query segment (``labels.summarize``).
        churn: which users changed segment; None where nobody measured.
        query_map: ``plots.query_map(..., form="svg")``.
        features: features of every user.
        scores: RFM scores and the loyalty index.
        rules: segments by rule.
        behaviour: the behaviour clusters.
        rows: (n, d) the users of ``behaviour`` as the clusterer saw them, in the order of ``behaviour.users``.
        k_distances: (n,) distances to the k-th neighbour, where eps was looked for.
        eps: the one suggested.
        personas: a persona for each cluster.
        cleaning: account of the cleaning.
        attributes: account of what is known from elsewhere.
        intake: account of the documents read.
        checks: outcomes of the checks.
    """

    generated_at: datetime
    title: str = "User segments"
    window: tuple[datetime, datetime] | None = None
    segments: "pd.DataFrame | None" = None
    churn: Churn | None = None
    query_map: bytes | None = None
    features: UserFeatures | None = None
    scores: UserScores | None = None
    rules: RuleSegments | None = None
    behaviour: BehaviourModel | None = None
    rows: NDArray[np.float64] | None = None
    k_distances: NDArray[np.float64] | None = None
    eps: float | None = None
    personas: Personas | None = None
    cleaning: CleaningAccount | None = None
    attributes: AttributesAccount | None = None
    intake: Intake | None = None
    checks: Sequence[CheckOutcome] | None = None


@dataclass(frozen=True)
class Tile:
    """A headline number: the number, what it counts, and what has to be known about it."""

    value: str
    label: str
    note: str = ""


@dataclass(frozen=True)
class Bar:
    """A share in a cell of a table, drawn as a bar of that length: 0..1, and the text beside it."""

    share: float
    text: str


@dataclass(frozen=True)
class Table:
    """A table of the page.

    Attributes:
        caption: what it shows.
        columns: their heads.
        rows: cells of text or ``Bar``, one a column.
        numbers: heads of the columns that are set flush right.
        more: rows left out.
    """

    caption: str
    columns: tuple[str, ...]
    rows: list[list[str | Bar]]
    numbers: frozenset[str] = frozenset()
    more: int = 0


@dataclass(frozen=True)
class Figure:
    """A picture of the page with what stands below it."""

    picture: InlinePicture
    caption: str
    note: str = ""


@dataclass(frozen=True)
class Card:
    """A persona as it is shown.

    Attributes:
        persona: the persona.
        color: number of the colour of its cluster, which its bars have in every picture; None for nobody's.
        traits: sentence, effect as text, and the bar's beginning and length in percent.
        numbers: statistics of the features that are its traits.
    """

    persona: Persona
    color: int | None
    traits: list[tuple[str, str, float, float]]
    numbers: Table | None


@dataclass
class _Pictures:
    """Pictures of one page, numbered so that no ids are there twice."""

    made: int = field(default=0)

    def add(self, svg: bytes, note: str = "", alt: str = "") -> Figure:
        self.made += 1
        picture = inline(svg, f"p{self.made}-", alt)
        return Figure(picture, picture.title, note)


def render(data: ReportData) -> str:
    """The report as an HTML document.

    Raises:
        ValueError: ``generated_at`` or the window has no time zone.
    """
    window = data.window or ((data.features.start, data.features.end) if data.features else None)
    for stamp in (data.generated_at, *(window or ())):
        if stamp.tzinfo is None:
            raise ValueError(f"a moment of the report has no time zone: {stamp}")
    pictures = _Pictures()
    template = _environment().get_template("report.html.j2")
    return template.render(
        data=data,
        window=window,
        missing=_missing(data),
        sources=SOURCES,
        tiles=_tiles(data, window),
        facts=_facts(data),
        segments=_segment_table(data.segments) if data.segments is not None else None,
        churn=_churn(data.churn, pictures),
        maps=_maps(data, pictures),
        cards=_cards(data.personas),
        persona_figures=_persona_figures(data, pictures),
        k_figure=_k_figure(data, pictures),
        stability=_stability(data.behaviour, data.features) if data.behaviour else None,
        boxes=_boxes(data, pictures),
        score_figures=_score_figures(data, pictures),
        tiers=_tier_table(data.scores) if data.scores else None,
        scores=_score_facts(data.scores) if data.scores else [],
        rules=_rule_table(data.rules) if data.rules else None,
        rule_figures=_rule_figures(data.rules, pictures),
        quality=_quality_tables(data),
        quality_figures=_quality_figures(data.cleaning, pictures),
        quality_facts=_quality_facts(data),
        checks=_check_table(data.checks) if data.checks else None,
        glossary=_glossary(data.features),
        terms=_TERMS,
    )


@cache
def _environment() -> "Environment":
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    folder = files("segmentation_assets.core.report")
    environment = Environment(
        autoescape=True,
        loader=FunctionLoader(lambda name: folder.joinpath(name).read_text("utf-8")),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters: dict[str, Callable[..., str]] = {
        "count": count, "percent": percent, "number": number, "moment": moment, "day": day, "breakable": breakable,
    }  # fmt: skip
    environment.filters.update(filters)
    environment.globals["style"] = folder.joinpath("report.css").read_text("utf-8")
    environment.tests["bar"] = lambda cell: isinstance(cell, Bar)
    return environment


def _missing(data: ReportData) -> dict[str, str]:
    """The asset to materialize, of each part that is missing."""
    there = {name for name in SOURCES if getattr(data, name) is not None}
    return {name: asset for name, asset in SOURCES.items() if name not in there}


def _users(data: ReportData) -> int | None:
    if data.features is not None:
        return int(data.features.table.num_rows)
    if data.behaviour is not None:
        return len(data.behaviour.users)
    return int(data.segments["users"].sum()) if data.segments is not None else None


def _tiles(data: ReportData, window: tuple[datetime, datetime] | None) -> list[Tile]:
    tiles = []
    users = _users(data)
    if users is not None:
        noise = int(marked(data.features).sum()) if data.features is not None else 0
        tiles.append(Tile(count(users), "users", f"{count(noise)} marked as noise" if noise else ""))
    if data.segments is not None or data.cleaning:
        sessions = data.cleaning.sessions_used if data.cleaning else data.segments["sessions"].sum()  # type: ignore[index]
        days = f"in {_days(window)}" if window else ""
        tiles.append(Tile(count(sessions), "sessions", days))
    if data.segments is not None:
        named = int((data.segments["segment"] != OTHER).sum())
        rest = float(data.segments.loc[data.segments["segment"] == OTHER, "share"].sum())
        tiles.append(Tile(count(named), "query segments", f"{percent(rest)} of the sessions in none" if rest else ""))
    if data.personas:
        groups = [card for card in data.personas.cards if card.cluster >= 0]
        rest = sum(card.share for card in data.personas.cards if card.cluster < 0)
        tiles.append(Tile(count(len(groups)), "personas", f"{percent(rest)} of the users in none" if rest else ""))
    if data.features is not None:
        tiles += _purchase_tiles(data.features)
    if data.churn is not None and not data.churn.first:
        tiles.append(Tile(percent(data.churn.changed_share), "changed segment", "since what was last published"))
    if data.checks:
        passed = sum(outcome.passed for outcome in data.checks)
        tiles.append(Tile(f"{passed} of {len(data.checks)}", "checks passed"))
    return tiles


def _purchase_tiles(features: UserFeatures) -> list[Tile]:
    table = features.table
    if "purchases" not in table.column_names or not table.num_rows:
        return []
    buyers = pc.sum(pc.greater(table["purchases"], 0)).as_py() or 0
    tiles = [Tile(percent(buyers / table.num_rows), "of the users bought", f"{count(buyers)} buyers")]
    if "spend" in table.column_names:
        orders = pc.sum(table["purchases"]).as_py() or 0
        tiles.append(Tile(number(pc.sum(table["spend"]).as_py() or 0.0), "spent", f"{count(orders)} orders"))
    return tiles


def _days(window: tuple[datetime, datetime]) -> str:
    days = max(math.ceil((window[1] - window[0]).total_seconds() / 86_400), 1)
    return f"{days:,} day{'s' if days > 1 else ''}"


def _facts(data: ReportData) -> list[tuple[str, str, str]]:
    """The first things to know: words, a name that people gave, words."""
    facts = []
    if data.segments is not None:
        named = data.segments[data.segments["segment"] != OTHER].to_dict("records")
        if named:
            first = max(named, key=lambda row: row["users"])
            users = max(int(data.segments["users"].sum()), 1)
            facts.append(
                (
                    "The largest query segment: ",
                    str(first["segment"]),
                    f", with {percent(first['users'] / users)} of the users.",
                )
            )
    groups = [card for card in data.personas.cards if card.cluster >= 0] if data.personas else []
    if groups:
        largest = max(groups, key=lambda card: card.users)
        tail = f", with {percent(largest.share)} of the users."
        facts.append(("The largest group by behaviour: ", largest.name, tail))
    if data.scores is not None and data.scores.table.num_rows:
        tiers = user_plots.loyalty_tiers(data.scores)
        if len(tiers) > 1:
            name, users = tiers[-1]
            share = percent(users / data.scores.table.num_rows)
            facts.append(("The highest loyalty tier, ", name, f", has {count(users)} users ({share})."))
    return facts


def _segment_table(summary: "pd.DataFrame") -> Table:
    users = max(int(summary["users"].sum()), 1)
    rows: list[list[str | Bar]] = [
        [
            str(row["segment"]),
            Bar(row["users"] / users, f"{count(row['users'])} ({percent(row['users'] / users)})"),
            f"{count(row['sessions'])} ({percent(row['share'])})",
            ", ".join(plots.cut(word, 40) for word in row["keywords"][:6]),
            " · ".join(plots.cut(query, 80) for query in row["sample_queries"][:4]),
        ]
        for row in summary.to_dict("records")
    ]
    heads = ("Segment", "Users", "Sessions", "Keywords", "Typical queries")
    return _table("What users search for; each user counts in the segment of most of their sessions", heads, rows)


@dataclass(frozen=True)
class _Change:
    sentences: list[str]
    figure: Figure | None
    flows: Table | None


def _churn(churn: Churn | None, pictures: _Pictures) -> _Change | None:
    if churn is None:
        return None
    if churn.first:
        return _Change(["Nothing was published before, so there is nothing to compare with."], None, None)
    sentences = [
        f"{percent(churn.changed_share)} of the {count(churn.users)} users who were there before changed segment: "
        f"{percent(churn.behaviour_share)} by their behaviour, {percent(churn.model_share)} by the model.",
        f"{count(churn.came)} users came, {count(churn.left)} left.",
    ]
    if churn.asked:
        sentences.append(f"Settings that were changed since: {', '.join(churn.asked)}.")
    moved: list[list[str | Bar]] = [
        [flow.before, flow.now, count(flow.users), count(flow.by_behaviour), count(flow.by_model)]
        for flow in churn.flows
        if flow.before != flow.now
    ]
    heads = ("From", "To", "Users", "By behaviour", "By the model")
    figure = pictures.add(
        plots.user_flows(churn, "svg"),
        "A band is as high as its users are many; the bands of those who stayed are pale.",
        f"Users by segment, before and now: {sentences[0]}",
    )
    figure = Figure(figure.picture, "Who went where", figure.note)
    table = _table("Users who changed segment", heads, moved, heads[2:], limit=10) if moved else None
    return _Change(sentences, figure, table)


def _maps(data: ReportData, pictures: _Pictures) -> list[Figure]:
    maps = []
    if data.query_map is not None:
        note = "A dot is a query, the larger the more sessions; the labels are each cluster's heaviest words."
        maps.append(pictures.add(data.query_map, note))
    if data.rows is not None and data.behaviour is not None:
        names = user_plots.cluster_names(data.behaviour, data.personas)
        maps.append(
            pictures.add(
                user_plots.user_map(data.rows, data.behaviour, names, "svg"),
                "A dot is a user. A flat picture shows only the part of the differences that the axes name: groups "
                "that overlap here can be apart.",
            )
        )
    return maps


def _cards(personas: Personas | None) -> list[Card]:
    if personas is None:
        return []
    colors = user_plots.cluster_colors(card.cluster for card in personas.cards)
    cards = []
    for persona in personas.cards:
        traits = []
        for trait in persona.traits:
            length = min(abs(trait.effect) / MAX_EFFECT, 1.0) * 50
            start = 50.0 if trait.effect >= 0 else 50.0 - length
            traits.append((trait.sentence, f"{trait.effect:+.1f}", round(start, 1), round(length, 1)))
        known = [trait.feature for trait in persona.traits if trait.feature in persona.statistics]
        heads = ("Feature", "Median", "Middle half", "Mean")
        rows: list[list[str | Bar]] = []
        for name in known:
            of = persona.statistics[name]
            feature = user_plots.definition(name)
            unit = f" ({feature.unit})" if feature else ""
            middle = f"{number(of.get('q1', math.nan))} to {number(of.get('q3', math.nan))}"
            median, mean = number(of.get("median", math.nan)), number(of.get("mean", math.nan))
            rows.append([user_plots.readable(name) + unit, median, middle, mean])
        numbers = _table("Its users in numbers", heads, rows, heads[1:]) if rows else None
        color = None if persona.cluster < 0 else plots.PALETTE.index(colors[persona.cluster])
        cards.append(Card(persona, color, traits, numbers))
    return cards


def _persona_figures(data: ReportData, pictures: _Pictures) -> list[Figure]:
    figures = []
    if data.personas is not None and data.personas.cards:
        figures.append(pictures.add(user_plots.cluster_sizes(data.personas, "svg")))
        if any(card.segments for card in data.personas.cards):
            note = "Each user counts in the segment of most of their sessions; a row adds up to 100%."
            figures.append(pictures.add(user_plots.segment_shares(data.personas, "svg"), note))
    return figures


def _k_figure(data: ReportData, pictures: _Pictures) -> Figure | None:
    if data.k_distances is None:
        return None
    note = "Where the curve bends upwards, users stand alone: the distance there is eps."
    return pictures.add(user_plots.k_distances(data.k_distances, data.eps, "svg"), note)


TELLING = 5
"""Sessions of a user from which behaviour begins to tell something; see docs/benchmarks.md, Users."""


def _stability(model: BehaviourModel, features: UserFeatures | None) -> list[str]:
    found = [
        f"Method: {model.method}. {count(len(model.cluster_ids))} groups were found in {count(model.fitted_on)} users; "
        f"all {count(len(model.users))} were assigned, {count(model.noise)} of them to no group."
    ]
    found += [f"{_agreement(model.stability)} {_silhouette(model.stability)}"]
    if features is not None and features.table.num_rows:
        half = float(np.median(features.table["sessions"].to_numpy()))
        text = f"Half of the users have {number(half)} sessions or fewer."
        if half < TELLING:
            text += " So few tell little of how people behave: groups come out alike all the same; names are guesses."
        found.append(text)
    if model.previous_version is not None and model.kept is not None:
        kept = len(model.kept)
        found.append(f"{kept} of the {len(model.cluster_ids)} groups were there in the model before.")
    return found


def _agreement(stability: Stability) -> str:
    if stability.agreement is None:
        return "How stable the groups are was not measured."
    # Steinley 2004, Properties of the Hubert-Arabie adjusted Rand index.
    value = stability.agreement
    verdict = "excellent" if value >= 0.9 else "good" if value >= 0.8 else "moderate" if value >= 0.65 else "poor"
    return (
        f"Other samples of the users give the same groups to a degree of {value:.2f} (1 is exactly the same; this is "
        f"{verdict}), the mean of {len(stability.agreements)} repetitions."
    )


def _silhouette(stability: Stability) -> str:
    if stability.silhouette is None:
        return "How far the groups lie apart is not defined."
    return f"Silhouette {stability.silhouette:.2f}: 1 is groups far apart, 0 groups that run into each other."


def _boxes(data: ReportData, pictures: _Pictures) -> list[Figure]:
    if data.features is None or data.behaviour is None:
        return []
    names = user_plots.cluster_names(data.behaviour, data.personas)
    figures = []
    for name in user_plots.chosen_features(data.features, data.personas):
        feature = user_plots.definition(name)
        svg = user_plots.feature_boxes(data.features, data.behaviour, names, [name], "svg")
        figures.append(pictures.add(svg, sentence(feature.meaning) if feature else ""))
    return figures


def _score_figures(data: ReportData, pictures: _Pictures) -> list[Figure]:
    if data.scores is None:
        return []
    figures = [pictures.add(user_plots.rfm_map(data.scores, form="svg"), "The number of users of each pair of scores.")]
    if data.features is not None and "spend" in data.features.table.column_names:
        note = "What a user of each pair of scores has spent on average, users who bought nothing included."
        figures.append(pictures.add(user_plots.rfm_map(data.scores, data.features, "spend", "svg"), note))
    figures.append(
        pictures.add(user_plots.loyalty(data.scores, "svg"), "The stronger the colour, the higher the tier.")
    )
    return figures


def _score_facts(scores: UserScores) -> list[str]:
    weights = ", ".join(f"{name} {percent(weight)}" for name, weight in scores.weights.items())
    facts = [f"Frequency is counted in {words(scores.frequency)}."]
    if weights:
        facts.append(f"Weights in the loyalty index: {weights}.")
    return facts + [f"Left out: {words(name)}, because {reason}." for name, reason in scores.absent.items()]


def _tier_table(scores: UserScores) -> Table:
    total = max(scores.table.num_rows, 1)
    rows: list[list[str | Bar]] = [
        [name, Bar(users / total, f"{count(users)} ({percent(users / total)})")]
        for name, users in user_plots.loyalty_tiers(scores)[::-1]
    ]
    return _table("Loyalty tiers", ("Tier", "Users"), rows)


def _rule_table(rules: RuleSegments) -> Table:
    rows: list[list[str | Bar]] = [
        [
            rule.name,
            "" if rule.unusable else Bar(rule.share, f"{count(rule.users)} ({percent(rule.share)})"),
            f"not applied: {rule.unusable}" if rule.unusable else "",
        ]
        for rule in rules.report
    ]
    if not any(rule.unusable for rule in rules.report):
        return _table("Rules and the users they take", ("Rule", "Users"), [row[:2] for row in rows])
    return _table("Rules and the users they take", ("Rule", "Users", "Remark"), rows)


def _rule_figures(rules: RuleSegments | None, pictures: _Pictures) -> list[Figure]:
    if rules is None or not rules.overlaps:
        return []
    note = "Read along a row: of this rule's users, so many are taken by the rule with the column's number as well."
    return [pictures.add(user_plots.rule_overlaps(rules, "svg"), note)]


def _quality_figures(account: CleaningAccount | None, pictures: _Pictures) -> list[Figure]:
    if account is None:
        return []
    filled = any(imputation.cells for imputation in account.imputations)
    if not (account.sessions_set_aside or account.events_set_aside or filled):
        return []
    return [pictures.add(user_plots.cleaning_bars(account, "svg"))]


def _quality_tables(data: ReportData) -> list[Table]:
    tables = []
    aside = _set_aside(data)
    if aside:
        tables.append(_table("Set aside, and why", ("What", "Why", "How many", "Part"), aside, ("How many", "Part")))
    if data.cleaning and data.cleaning.imputations:
        heads = ("Column", "Filled with", "Cells")
        filled: list[list[str | Bar]] = [
            [
                words(item.column),
                "left missing" if item.value is None else _fill(item.how, item.value),
                count(item.cells),
            ]
            for item in data.cleaning.imputations
        ]
        tables.append(_table("Missing values of sessions", heads, filled, ("Cells",)))
    if data.cleaning and data.cleaning.noise:
        noise: list[list[str | Bar]] = [
            [words(why), count(users)] for why, users in _largest_first(data.cleaning.noise)
        ]
        caption = "Users marked as noise; they stay in all counts, but what is normal is found without them"
        tables.append(_table(caption, ("Why", "Users"), noise, ("Users",)))
    absent = _absent(data)
    if absent:
        tables.append(_table("What is not there, and why", ("What", "Why"), absent))
    return tables


def _fill(how: str, value: float | str) -> str:
    return f"{how}: {number(value)}" if how != "unknown" else f"“{value}”"


def _set_aside(data: ReportData) -> list[list[str | Bar]]:
    accounts: list[tuple[str, Mapping[str, int], int | None]] = []
    if data.intake:
        accounts.append(("Documents read", data.intake.set_aside, data.intake.read))
    if data.cleaning:
        accounts.append(("Sessions", data.cleaning.sessions_set_aside, data.cleaning.sessions_read))
        accounts.append(("Events", data.cleaning.events_set_aside, data.cleaning.events_read))
    if data.attributes:
        accounts.append(("Attribute records", data.attributes.set_aside, data.attributes.read))
        accounts.append(("Attribute values", data.attributes.dropped, None))
        accounts.append(("Users without an answer", data.attributes.failed, None))
    return [
        [what, words(why), count(users), percent(users / read) if read else ""]
        for what, reasons, read in accounts
        for why, users in _largest_first(reasons)
    ]


def _absent(data: ReportData) -> list[list[str | Bar]]:
    rows: list[list[str | Bar]] = []
    if data.cleaning:
        rows += [[f"{words(name)} of sessions", "no session has it"] for name in data.cleaning.absent]
    if data.features:
        rows += [[f"features: {words(name)}", why] for name, why in data.features.absent.items()]
    if data.scores:
        rows += [[words(name), why] for name, why in data.scores.absent.items()]
    if data.behaviour:
        told = set(may_be_shown(data.features)) if data.features else set()
        left_out = {
            (_called(name, told), words(why)): None for name, why in data.behaviour.preprocessing.left_out.items()
        }
        rows += [[f"{what}, for clusters", why] for what, why in left_out]
    return rows


def _called(name: str, told: Collection[str]) -> str:
    """A feature's name; of a share that next to nobody has, only of what it is one."""
    kind, colon, _ = name.partition(":")
    if colon and name not in told:
        return f"{words(kind)}, of fewer than {TYPED_BY} users"
    return user_plots.readable(name)


def _quality_facts(data: ReportData) -> list[str]:
    facts = []
    if data.intake:
        facts.append(f"{count(data.intake.kept)} of {count(data.intake.read)} documents read became sessions.")
    if data.cleaning:
        account = data.cleaning
        facts.append(f"{count(account.sessions_used)} of {count(account.sessions_read)} sessions are used.")
        if account.events_read:
            facts.append(f"{count(account.events_used)} of {count(account.events_read)} events are used.")
        else:
            facts.append("No session has events.")
    if data.attributes:
        facts.append(f"{count(data.attributes.used)} of {count(data.attributes.read)} attribute records are used.")
        facts += [f"Source of attributes: {source}." for source in data.attributes.sources]
    if data.features is not None and data.features.outliers.num_rows:
        users = pc.count_distinct(data.features.outliers["user_id"]).as_py()
        cells = count(data.features.outliers.num_rows)
        facts.append(f"{cells} extreme values of {count(users)} users are marked; nobody is left out for them.")
    return facts


def _check_table(checks: Sequence[CheckOutcome]) -> Table:
    rows: list[list[str | Bar]] = []
    for outcome in checks:
        verdict = "✓ passed" if outcome.passed else "✗ failed" if outcome.severity == "ERROR" else "! warning"
        values = ", ".join(f"{words(name)} {number(value)}" for name, value in outcome.values.items())
        rows.append([words(outcome.name), verdict, values, outcome.message])
    return _table("Checks and the numbers they rest on", ("Check", "Verdict", "Numbers", "What failed"), rows)


def _glossary(features: UserFeatures | None) -> list[tuple[str, str, str, bool]]:
    """Feature, unit, meaning, whether it is there."""
    columns = {name.partition(":")[0] for name in features.table.column_names} if features is not None else set()
    return [
        (
            capitalised(user_plots.readable(known.name)),
            known.unit,
            sentence(known.meaning),
            features is None or known.name in columns,
        )
        for known in FEATURES
    ]


_TERMS = (
    ("Query segment", "What a session searched for, by the clusters of its words; a user's is that of most sessions."),
    ("Persona", "A group of users who behave alike, found by clustering their features, with what sets it apart."),
    (
        "Effect",
        "How far a group's mean lies from everybody else's, in standard deviations (Cohen's d): from about 0.2 small, "
        "0.5 medium, 0.8 large.",
    ),
    ("RFM", "Scores of recency, frequency and money spent, by the place among all users; the highest is the best."),
    ("Loyalty index", "The weighted mean of the three, 0 to 100; tiers begin at fixed values of it."),
    ("Rule", "A condition somebody wrote down. It takes whoever fulfils it, so a user can be in several or in none."),
    ("Noise", "Users who are no customers, such as bots and colleagues: marked, counted, but not what is normal."),
    ("Box plot", "The box is the middle half of the users, its line the median, the diamond the mean; the thin lines "
     "end where all but the lowest and the highest 5% lie."),
)  # fmt: skip


def _largest_first(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def _table(
    caption: str,
    columns: tuple[str, ...],
    rows: list[list[str | Bar]],
    numbers: Sequence[str] = (),
    limit: int = MAX_ROWS,
) -> Table:
    return Table(caption, columns, rows[:limit], frozenset(numbers), max(len(rows) - limit, 0))
