"""Pictures of a segmentation, as PNG or SVG.

What belongs here: figures of sessions, queries and segments drawn from core's own types, and what all figures share.
What does not: figures of users (user_plots), where a picture is shown. Figures are made without pyplot, whose global
state is not safe in a server with threads. matplotlib and pandas take a second to import and most processes draw
nothing, so they are imported where something is drawn.

Every function that draws takes the ``form`` of the picture. An SVG is for a page, narrower so that it can be read on a
telephone, its letters are text, and what stands above a PNG as its title is the SVG's ``<title>``.
"""

import io
import threading
from collections.abc import Iterable
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from segmentation_assets.core.choose_k import KChoice
from segmentation_assets.core.churn import Churn
from segmentation_assets.core.labels import OTHER, LabeledSegments
from segmentation_assets.core.model import ClusterModel, mean_row
from segmentation_assets.core.vectorize import TfidfMatrix

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure
    from matplotlib.path import Path

MAP_POINTS = 2_000
"""Distinct queries drawn on the map; more would be a blot."""

Form = Literal["png", "svg"]

PALETTE = ("#2563eb", "#d97706", "#db2777", "#059669", "#7c3aed", "#0891b2", "#65a30d", "#dc2626")
GREY = "#94a3b8"
INK = "#1e293b"
SURFACE = "#ffffff"
"""What lies behind a picture."""

NARROW = 4.6
"""Inches that a picture is wide as SVG; its letters, of 8 points and more, can then be read on a narrow screen."""

_SVG_SETTINGS = threading.Lock()
"""matplotlib takes what an SVG is to be like from settings of the whole process."""

_FONTS = (
    "DejaVu Sans",
    *(f"Noto Sans CJK {region}" for region in ("JP", "SC", "TC", "KR")),
    *("Hiragino Sans", "Apple SD Gothic Neo", "Arial Unicode MS", "Microsoft YaHei", "Malgun Gothic"),
    *("WenQuanYi Zen Hei", "WenQuanYi Micro Hei", "Droid Sans Fallback", "Unifont"),
    *(f"Noto Sans {script}" for script in ("Arabic", "Hebrew", "Devanagari", "Thai", "Bengali", "Tamil")),
)
"""Fonts for what people type, in the order of preference; only the first is sure to be there (matplotlib brings it)."""

_NO_GLYPH = "\N{WHITE SQUARE}"

_FIRST_DRAWABLE_YEAR = 1900
"""matplotlib's calendar begins with year 1, and a margin to the left of a clock's zero lies before it."""


def segment_colors(segments: Iterable[str]) -> dict[str, str]:
    """A colour for each segment, the same for the same set of names; ``other`` is grey."""
    named = sorted(set(segments) - {OTHER})
    return {name: PALETTE[i % len(PALETTE)] for i, name in enumerate(named)} | {OTHER: GREY}


def segment_sizes(summary: "pd.DataFrame", form: Form = "png") -> bytes:
    """Bars: sessions and users of each segment (``labels.summarize``)."""
    figure, axes = new_figure(_wide(7.0, form), 0.9 + 0.55 * max(len(summary), 1))
    colors = segment_colors(summary["segment"])
    position = np.arange(len(summary))[::-1]
    axes.barh(position + 0.19, summary["sessions"], height=0.36, color=[colors[name] for name in summary["segment"]])
    axes.barh(
        position - 0.19, summary["users"], height=0.36, color=[colors[name] for name in summary["segment"]], alpha=0.45
    )
    for y, sessions, users, share in zip(
        position, summary["sessions"], summary["users"], summary["share"], strict=True
    ):
        axes.text(sessions, y + 0.19, f" {sessions:,} sessions ({share:.0%})", va="center", fontsize=8, color=INK)
        axes.text(users, y - 0.19, f" {users:,} users", va="center", fontsize=8, color=INK)
    axes.set_yticks(position, **shown(summary["segment"]))
    axes.set_xlim(0, max(summary["sessions"].max() if len(summary) else 1, 1) * (1.28 if form == "png" else 1.6))
    axes.set_title("Sessions and users by segment", loc="left", fontsize=11)
    axes.spines["bottom"].set_visible(False)
    axes.set_xticks([])
    return rendered(figure, form)


def query_map(
    tfidf: TfidfMatrix, model: ClusterModel, labeled: LabeledSegments, seed: int, form: Form = "png"
) -> bytes:
    """Scatter: distinct queries, near each other when their words are those of the same clusters.

    The coordinates are the first two principal components of each query's cosine similarity to the mean TF-IDF row of
    every cluster, scaled to unit length, so distance from the crowd means clear membership; the size of a dot grows
    with the number of sessions.
    """
    figure, axes = new_figure(_wide(7.0, form), 5.2)
    segment_of = {entry.cluster: entry.segment for entry in labeled.labels} | {-1: OTHER}
    members = np.flatnonzero(model.labels >= 0)
    if len(members) > MAP_POINTS:
        weights = tfidf.counts[members] / tfidf.counts[members].sum()
        members = np.sort(np.random.default_rng(seed).choice(members, MAP_POINTS, replace=False, p=weights))
    # By the words of these sessions, not in the model's own space: a kept model's vocabulary is that of older ones.
    means = np.stack([mean_row(tfidf, model, int(cluster)) for cluster in model.cluster_ids])
    norms = np.linalg.norm(means, axis=1, keepdims=True)
    similarity = np.asarray(tfidf.matrix[members] @ (means / np.where(norms > 0, norms, 1)).T)
    similarity /= np.maximum(np.linalg.norm(similarity, axis=1, keepdims=True), 1e-12)  # which, not how frequent a word
    centered = np.pad(similarity - (similarity.mean(axis=0) if len(members) else 0.0), ((0, 0), (0, 1)))
    # Padded, so that there are two axes even for a single query or cluster.
    _, _, axis = np.linalg.svd(np.pad(centered, ((0, 2), (0, 0))), full_matrices=False)
    xy = centered @ axis[:2].T
    colors = segment_colors([entry.segment for entry in labeled.labels])
    size = 6 + 10 * np.log1p(tfidf.counts[members])
    markers = "osD^vP*XhH<>"
    for index, entry in enumerate(labeled.labels):
        mine = model.labels[members] == entry.cluster
        if not mine.any():
            continue
        segment = segment_of[entry.cluster]
        axes.scatter(
            xy[mine, 0], xy[mine, 1], s=size[mine], color=colors[segment], alpha=0.45, linewidths=0,
            marker=markers[index % len(markers)], label=f"{entry.cluster}: {segment}",
        )  # fmt: skip
        x, y = xy[mine].mean(axis=0)
        words = shown([", ".join(cut(term, 20) for term in list(entry.top_terms)[:3])], 64)
        axes.annotate(
            words.pop("labels")[0], (x, y), fontsize=8, color=INK, ha="center", **words,
            bbox={"boxstyle": "round,pad=0.25", "fc": "white", "ec": colors[segment], "alpha": 0.9},
        )  # fmt: skip
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_title(f"{len(members):,} distinct queries by likeness to each cluster's words", loc="left", fontsize=11)
    legend = axes.legend(
        handles=axes.collections,
        fontsize=8,
        frameon=False,
        loc="upper center",
        bbox_to_anchor=(0.5, -0.02),
        ncols=3 if form == "png" else 2,
        title="cluster: segment",
        title_fontsize=8,
    )
    for handle in legend.legend_handles:
        handle.set_alpha(1.0)
    words = shown((text.get_text() for text in legend.get_texts()), 28)
    for text, word in zip(legend.get_texts(), words["labels"], strict=True):
        text.set(text=word, parse_math=False, fontfamily=words["fontfamily"])
    return rendered(figure, form)


def cluster_terms(labeled: LabeledSegments, form: Form = "png") -> bytes:
    """Small bars, one panel a cluster: its heaviest terms and their mean TF-IDF weight."""
    labels = labeled.labels
    columns = min(3, max(len(labels), 1))
    rows = -(-len(labels) // columns) or 1
    figure = canvas(3.1 * columns, 2.3 * rows)
    colors = segment_colors([entry.segment for entry in labels])
    for index, entry in enumerate(labels):
        axes = figure.add_subplot(rows, columns, index + 1)
        terms = list(entry.top_terms.items())[:8][::-1]
        axes.barh(range(len(terms)), [weight for _, weight in terms], color=colors[entry.segment])
        axes.set_yticks(range(len(terms)), **shown([term for term, _ in terms], 18), fontsize=8)
        axes.tick_params(axis="x", labelsize=7)
        words = shown([f"{entry.cluster}: {cut(entry.segment, 28)} ({entry.sessions:,})"], 60)
        axes.set_title(words.pop("labels")[0], fontsize=9, loc="left", **words)
        strip(axes)
    return rendered(figure, form)


def user_flows(churn: Churn, form: Form = "png") -> bytes:
    """Alluvial diagram: the users of each segment as served before (left) and now (right), and who went where.

    A band is as high as its users are many and has the colour of the segment it comes from; the bands of those who
    stayed are pale. Segments stand in one order on both sides. Only users present in both results are drawn.
    """
    from matplotlib.patches import PathPatch

    before, now = (_stack(churn, side) for side in ("before", "now"))
    order = sorted({**before, **now}, key=lambda name: (name == OTHER, -before.get(name, 0) - now.get(name, 0), name))
    rank = {name: place for place, name in enumerate(order)}
    figure, axes = new_figure(_wide(8.0, form), max(3.2, 1.6 + 0.5 * max(len(before), len(now))))
    margin = 0.45 if form == "png" else 1.9  # for the words at both sides, in widths of what lies between
    colors = segment_colors(order)
    gap = 0.04 * max(churn.users, 1)
    bottoms = [_bottoms(stack, order, gap) for stack in (before, now)]
    free = [dict(found) for found in bottoms]  # where the next band of a segment begins
    for flow in sorted(churn.flows, key=lambda flow: (rank[flow.before], rank[flow.now])):
        left, right = free[0][flow.before], free[1][flow.now]
        free[0][flow.before] += flow.users
        free[1][flow.now] += flow.users
        alpha = 0.2 if flow.before == flow.now else 0.7
        band = _band(left, right, flow.users)
        axes.add_patch(PathPatch(band, facecolor=colors[flow.before], alpha=alpha, linewidth=0))
    for x, title, stack, at, side in (
        (0.0, "served before", before, bottoms[0], "right"),
        (1.0, "now", now, bottoms[1], "left"),
    ):
        away = margin / (-22 if side == "right" else 22)
        axes.text(x + away, -gap, title, ha=side, va="bottom", fontsize=8, color=INK)
        for name, users in stack.items():
            axes.bar(x, users, bottom=at[name], width=0.025, color=colors[name])
            words = shown([f"{cut(name, 28 if form == 'png' else 17)}  {users:,} ({users / churn.users:.0%})"], 60)
            text = words.pop("labels")[0]
            size = 9 if form == "png" else 8
            axes.text(x + away, at[name] + users / 2, text, ha=side, va="center", fontsize=size, color=INK, **words)
    axes.set_xlim(-margin, 1 + margin)
    axes.set_ylim(max(churn.users, 1) + gap * max(len(before), len(now)), -2 * gap)  # the largest on top
    axes.axis("off")
    axes.set_title(
        f"{churn.changed_share:.1%} of {churn.users:,} users changed segment: {churn.behaviour_share:.1%} by their "
        f"behaviour, {churn.model_share:.1%} by the model\n{churn.came:,} came, {churn.left:,} left (not drawn)",
        loc="left",
        fontsize=10,
    )
    return rendered(figure, form)


def _stack(churn: Churn, side: str) -> dict[str, int]:
    """Users of each segment on one side, 'before' or 'now'."""
    users: dict[str, int] = {}
    for flow in churn.flows:
        name = flow.before if side == "before" else flow.now
        users[name] = users.get(name, 0) + flow.users
    return users


def _bottoms(stack: dict[str, int], order: list[str], gap: float) -> dict[str, float]:
    """Where each segment of a stack begins, in the order given."""
    found, at = {}, 0.0
    for name in order:
        if name in stack:
            found[name] = at
            at += stack[name] + gap
    return found


def _band(left: float, right: float, users: int) -> "Path":
    """A band of constant height from the left bar to the right one, as two Bezier curves."""
    from matplotlib.path import Path

    a, b, c, d = 0.0125, 0.4, 0.6, 0.9875
    points = [
        (a, left), (b, left), (c, right), (d, right),
        (d, right + users), (c, right + users), (b, left + users), (a, left + users), (a, left),
    ]  # fmt: skip
    codes = [Path.MOVETO, *[Path.CURVE4] * 3, Path.LINETO, *[Path.CURVE4] * 3, Path.CLOSEPOLY]
    return Path(points, codes)


def vocabulary(tfidf: TfidfMatrix, top: int = 20, form: Form = "png") -> bytes:
    """Bars: the terms that occur in the most sessions."""
    frequency = np.asarray(tfidf.counts @ (tfidf.matrix > 0)).ravel()
    order = np.argsort(-frequency, kind="stable")[:top][::-1]
    figure, axes = new_figure(_wide(6.0, form), 0.8 + 0.22 * len(order))
    terms = tfidf.terms.take(order).to_pylist()
    axes.barh(range(len(order)), frequency[order], color=PALETTE[0])
    axes.set_yticks(range(len(order)), **shown(terms), fontsize=8)
    axes.set_title("Sessions that hold a term", loc="left", fontsize=11)
    return rendered(figure, form)


def choice_of_k(choice: KChoice, form: Form = "png") -> bytes:
    """Three lines, one a ruler, by number of clusters; the peak of each and the number taken are marked."""
    figure = canvas(10.0, 3.0)
    axes = figure.subplots(1, 3)
    rulers = {
        "agreement": ("agreement of partitions (ARI)", choice.agreement),
        "silhouette": ("silhouette (cosine)", choice.silhouette),
        "likelihood": ("log likelihood of unseen users' terms", choice.likelihood),
    }
    for place, (name, (title, curve)) in zip(axes, rulers.items(), strict=True):
        place.plot(list(curve), list(curve.values()), marker="o", markersize=3, color=PALETTE[0])
        strip(place)
        peak = choice.proposals[name]
        place.plot([peak], [curve[peak]], marker="o", markersize=8, color=PALETTE[1])
        place.axvline(choice.k, color=PALETTE[1], linestyle="--", linewidth=1)
        place.set_xlabel("k")
        place.set_title(f"{title}: {peak}", loc="left", fontsize=9)
    figure.suptitle(f"k = {choice.k}, {'' if choice.confident else 'low confidence: '}{choice.reason}", fontsize=9)
    return rendered(figure, form)


def sessions_over_time(timestamps: "pd.Series", form: Form = "png") -> bytes:
    """Bars: sessions by day (by month where there are many days).

    Sessions of before 1900 are dated by a clock that was never set; they are counted in the title instead of drawn.
    """
    figure, axes = new_figure(_wide(7.0, form), 2.4)
    drawn = timestamps[timestamps.dt.year >= _FIRST_DRAWABLE_YEAR]
    days = drawn.dt.floor("D")
    by = days if days.nunique() <= 120 else drawn.dt.tz_localize(None).dt.to_period("M").dt.to_timestamp()
    counts = by.value_counts().sort_index()
    axes.bar(counts.index, counts.to_numpy(), width=0.9 if by is days else 25, color=PALETTE[0])
    missing = len(timestamps) - len(drawn)
    note = f" (and {missing:,} before {_FIRST_DRAWABLE_YEAR})" if missing else ""
    axes.set_title(f"Sessions over time{note}", loc="left", fontsize=11)
    axes.tick_params(labelsize=8)
    return rendered(figure, form)


def canvas(width: float, height: float) -> "Figure":
    """An empty figure, in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def new_figure(width: float, height: float):  # type: ignore[no-untyped-def]  # matplotlib ships no types to check
    """A figure, in inches, with one set of axes: both."""
    figure = canvas(width, height)
    axes = figure.add_subplot()
    strip(axes)
    return figure, axes


def strip(axes) -> None:  # type: ignore[no-untyped-def]
    """Leave only the axes' left and lower line."""
    axes.spines[["top", "right"]].set_visible(False)


def shown(texts: Iterable[str], length: int = 40) -> dict[str, Any]:
    """Labels with the properties that show them as they stand, whatever somebody typed.

    A '$' starts no formula, what is too long is cut, and a character that no font here has becomes a box, which is what
    matplotlib would draw, but not without a warning for each in the run's log.
    """
    families, known = _fonts()
    short = [cut(str(text), length) for text in texts]
    return {
        "labels": ["".join(c if ord(c) in known else _NO_GLYPH for c in text) for text in short],
        "fontfamily": list(families),
        "parse_math": False,
    }


def cut(text: str, length: int) -> str:
    """A text of at most so many characters, with an ellipsis where some are missing."""
    return text if len(text) <= length else text[: length - 1] + "…"


@cache
def _fonts() -> tuple[tuple[str, ...], frozenset[int]]:
    """The installed ones of ``_FONTS``, and every code point that at least one of them can draw."""
    from matplotlib.font_manager import fontManager, get_font

    installed = {font.name for font in fontManager.ttflist}
    families = tuple(name for name in _FONTS if name in installed)
    files = [fontManager.findfont(name) for name in families]
    return families, frozenset(code for file in files for code in get_font(file).get_charmap())


def _wide(inches: float, form: Form) -> float:
    """Inches that a picture is wide in a form."""
    return inches if form == "png" else min(inches, NARROW)


def rendered(figure: "Figure", form: Form) -> bytes:
    """The picture itself: PNG, or SVG in UTF-8.

    An SVG has no background, no date, and text for letters. The title of its only axes is its ``<title>`` instead, for
    the page to show; with several axes each keeps its own.
    """
    import matplotlib

    buffer = io.BytesIO()
    if form == "png":
        figure.savefig(buffer, format="png", dpi=110, facecolor="white")
        return buffer.getvalue()
    metadata: dict[str, str | None] = {"Date": None}
    if len(figure.axes) == 1:
        metadata["Title"] = figure.axes[0].get_title(loc="left")
        figure.axes[0].set_title("", loc="left")
    # The salt makes the ids of two drawings of one thing the same.
    with _SVG_SETTINGS, matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "segments"}):
        figure.savefig(buffer, format="svg", transparent=True, metadata=metadata)
    return buffer.getvalue()
