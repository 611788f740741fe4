"""Pictures of the stream: its pace over the hours, segments over the hours, drift, engagement.

What belongs here: figures drawn from ``health``. What does not: how a picture becomes bytes (core.plots), the numbers
(health), dashboards that follow by the second (Grafana).
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from segmentation_assets.core.labels import OTHER
from segmentation_assets.core.live.health import Engagement, Hour, LiveHealth
from segmentation_assets.core.plots import (
    GREY,
    INK,
    PALETTE,
    SURFACE,
    canvas,
    cut,
    new_figure,
    rendered,
    segment_colors,
    shown,
    strip,
)
from segmentation_assets.core.user_plots import readable

FEATURES = 20
"""Bars of drift; the features that moved most."""

SEGMENTS = 8
"""Segments with a colour of their own over time; the smaller ones are drawn together with 'other'."""

SOME_CHANGE = 0.1
"""Index from which some change is seen (Lewis 1994)."""

_SHORT = timedelta(minutes=10)
"""A time that an axis has no room to divide."""


def pace(hours: Sequence[Hour]) -> bytes:
    """Three panels over time: events a second, events that wait, and percentiles of latency.

    Args:
        hours: ``LiveHealth.hours``; where a number is not known the line is broken.
    """
    figure = canvas(8.0, 5.4)
    panels = figure.subplots(3, 1, sharex=True)
    lines: tuple[tuple[str, tuple[tuple[str, str], ...]], ...] = (
        ("Events a second", (("events_per_second", ""),)),
        ("Events that wait", (("lag", ""),)),
        ("Milliseconds from broker to segment", (("p50_ms", "p50"), ("p95_ms", "p95"), ("p99_ms", "p99"))),
    )
    times = _times(hours)
    for axes, (title, curves) in zip(panels, lines, strict=True):
        strip(axes)
        drawn: list[float] = []
        for place, (field, name) in enumerate(curves):
            values = [np.nan if (value := getattr(hour, field)) is None else value for hour in hours]
            drawn += values
            axes.plot(times, values, marker="o", markersize=3, color=PALETTE[place], label=name or None)
        axes.set_title(title, loc="left", fontsize=9)
        axes.tick_params(labelsize=8)
        axes.set_ylim(0, 1.1 * max([1.0, *(value for value in drawn if np.isfinite(value))]))
        if len(curves) > 1:
            axes.legend(fontsize=8, frameon=False, ncols=3, loc="upper right", bbox_to_anchor=(1, 1.25))
    _dates(panels[-1], hours)
    return rendered(figure, "png")


def mix_over_time(hours: Sequence[Hour], then: dict[str, float]) -> bytes:
    """Areas, one on the other: the share of each segment, with that of the users the model was made of at the right.

    Args:
        hours: ``LiveHealth.hours``; those without users are left out.
        then: ``LiveHealth.mix_then``.
    """
    hours = [hour for hour in hours if hour.mix]
    figure = canvas(8.0, 3.6)
    over_time, right = figure.subplots(1, 2, width_ratios=(8, 1), sharey=True)
    strip(over_time)
    right.spines[["top", "right", "left", "bottom"]].set_visible(False)
    sizes: dict[str, float] = dict(then)
    for hour in hours:
        for name, share in hour.mix.items():
            sizes[name] = max(sizes.get(name, 0.0), share)
    named = sorted((name for name in sizes if name != OTHER), key=lambda name: (-sizes[name], name))[:SEGMENTS]
    order = [*named, OTHER]
    colors = segment_colors(order)
    stacked = np.array([_folded(hour.mix, named) for hour in hours]).reshape(len(hours), len(order)).T
    if len(hours) > 1:
        areas: Any = over_time.stackplot(_times(hours), stacked, colors=[colors[name] for name in order], alpha=0.85)
        _dates(over_time, hours)
    else:  # one moment has no area
        bottoms = np.cumsum(stacked, axis=0) - stacked
        areas = [
            over_time.bar([0.0] * len(hours), part, bottom=bottom, width=0.3, color=colors[name], alpha=0.85)
            for name, part, bottom in zip(order, stacked, bottoms, strict=True)
        ]
        over_time.set_xticks([0.0] * len(hours), [f"{time:%d %b %H:%M}" for time in _times(hours)])
        over_time.set_xlim(-1, 1)
    bottom = 0.0
    for name, share in zip(order, _folded(then, named), strict=True):
        right.bar(0, share, bottom=bottom, width=0.8, color=colors[name], alpha=0.85)
        bottom += share
    right.set_xticks([0], ["model"])
    right.tick_params(axis="y", length=0)
    for axes in (over_time, right):
        axes.tick_params(labelsize=8)
    over_time.set_ylim(0, 1)
    over_time.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    over_time.set_title("Users by segment, and those the model was made of", loc="left", fontsize=11)
    legend = figure.legend(list(areas)[::-1], [""] * len(order), loc="outside right upper", fontsize=8, frameon=False)
    words = shown(order[::-1], 24)
    for text, word in zip(legend.get_texts(), words["labels"], strict=True):
        text.set(text=word, parse_math=False, fontfamily=words["fontfamily"])
    return rendered(figure, "png")


def drift_bars(health: LiveHealth, bound: float) -> bytes:
    """Bars: the population stability index of the features that moved most, with the bounds.

    Args:
        health: the record.
        bound: ``drift.max_psi``, from which another model is asked for.
    """
    found = list(health.psi.items())[:FEATURES][::-1]
    figure, axes = new_figure(7.0, 1.0 + 0.24 * max(len(found), 2))
    if found:
        colors = [
            PALETTE[7] if value > bound else PALETTE[1] if value > SOME_CHANGE else PALETTE[0] for _, value in found
        ]
        axes.barh(range(len(found)), [value for _, value in found], color=colors)
        axes.set_yticks(range(len(found)), **shown([readable(name) for name, _ in found]), fontsize=8)
        for place, (_, value) in enumerate(found):
            axes.annotate(
                f"{value:.3f}", (value, place), (4, 0), textcoords="offset points", va="center", fontsize=7, color=INK,
                bbox={"boxstyle": "square,pad=0.1", "fc": SURFACE, "ec": "none"},
            )  # fmt: skip
        axes.set_xlim(0, max(bound * 1.25, found[-1][1] * 1.12))
    else:
        axes.set_yticks([])
        _nothing(axes, "Nothing to compare")
    if found:
        axes.axvline(bound, color=PALETTE[7], linestyle="--", linewidth=1)
        axes.axvline(SOME_CHANGE, color=PALETTE[1], linestyle=":", linewidth=1)
    axes.tick_params(axis="x", labelsize=8)
    left_out = len(health.psi) - len(found)
    more = f"; {left_out} features below these are not drawn" if left_out else ""
    axes.set_title(f"Drift of {health.users:,} users (PSI; dashed: bound{more})", loc="left", fontsize=10)
    return rendered(figure, "png")


def engagement_bars(health: LiveHealth) -> bytes:
    """Two rows of bars: click-through and conversion by segment; and before and after users came into it."""
    now = health.engagement[:SEGMENTS]
    shifts = health.shifts[:SEGMENTS]
    tall = 1.4 + 0.34 * max(len(now), 1) + 0.34 * max(len(shifts), 1)
    figure = canvas(8.0, tall)
    panels = figure.subplots(2, 2, height_ratios=(max(len(now), 1), max(len(shifts), 1)), sharey="row")
    colors = segment_colors([*(row.segment for row in now), *(row.segment for row in shifts)])
    _bars_now(panels[0], now, colors)
    for axes, field, title in zip(
        panels[1], ("click_through", "conversion"), ("Click-through", "Conversion"), strict=True
    ):
        strip(axes)
        position = np.arange(len(shifts))[::-1]
        before = np.array([getattr(row, f"{field}_before") for row in shifts])
        after = np.array([getattr(row, f"{field}_after") for row in shifts])
        axes.hlines(position, before, after, color=GREY, linewidth=1.5)
        edges = [colors[row.segment] for row in shifts]
        axes.scatter(before, position, color=SURFACE, edgecolors=edges, s=36, zorder=3)
        axes.scatter(after, position, color=edges, s=42, zorder=4)
        axes.set_ylim(-0.6, max(len(shifts), 1) - 0.4)
        axes.set_yticks(position, **shown([f"{cut(row.segment, 24)} ({row.users:,})" for row in shifts]), fontsize=8)
        axes.set_title(f"{title} before (empty) and after they came", loc="left", fontsize=9)
        _shares(axes, [*before, *after])
        if not shifts:
            _nothing(axes, "Nobody has changed yet")
    return rendered(figure, "png")


def _bars_now(panels: Any, now: Sequence[Engagement], colors: dict[str, str]) -> None:
    for axes, field, title in zip(
        panels, ("click_through", "conversion"), ("Click-through", "Conversion"), strict=True
    ):
        strip(axes)
        position = np.arange(len(now))[::-1]
        shares = [getattr(row, field) for row in now]
        axes.barh(position, shares, height=0.6, color=[colors[row.segment] for row in now])
        for y, share in zip(position, shares, strict=True):
            axes.text(share, y, f" {share:.1%}", va="center", fontsize=8, color=INK)
        axes.set_ylim(-0.6, max(len(now), 1) - 0.4)
        axes.set_yticks(position, **shown([f"{cut(row.segment, 24)} ({row.users:,})" for row in now]), fontsize=8)
        axes.set_title(f"{title} of sessions, by segment (users)", loc="left", fontsize=9)
        _shares(axes, shares)
        if not now:
            _nothing(axes, "Nobody is in a segment")


def _nothing(axes: Any, why: str) -> None:
    axes.text(0.5, 0.4, why, transform=axes.transAxes, ha="center", fontsize=8, color=INK)


def _shares(axes: Any, values: Sequence[float]) -> None:
    axes.set_xlim(0, max([*values, 0.01]) * 1.2)
    axes.locator_params(axis="x", nbins=5, steps=[1, 2, 5, 10])
    axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:g}%")
    axes.tick_params(axis="x", labelsize=8)
    axes.tick_params(axis="y", length=0)


def _folded(mix: dict[str, float], named: Sequence[str]) -> list[float]:
    """Shares of the named segments, and of all others together."""
    return [*(mix.get(name, 0.0) for name in named), sum(share for name, share in mix.items() if name not in named)]


def _times(hours: Sequence[Hour]) -> list[datetime]:
    return [datetime.fromtimestamp(hour.at / 1000, UTC) for hour in hours]


def _dates(axes: Any, hours: Sequence[Hour]) -> None:
    """Moments at the axis of time, few enough to be read."""
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    times = _times(hours)
    if times and times[-1] - times[0] >= _SHORT:
        locator: Any = AutoDateLocator(maxticks=9)  # type: ignore[no-untyped-call]
        axes.xaxis.set_major_locator(locator)
        axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]
    else:  # records that follow each other at once, as when somebody asks for them
        ends = times[-1:]
        axes.set_xticks(ends, [f"{time:%d %b %H:%M}" for time in ends])
    axes.tick_params(labelsize=8)
