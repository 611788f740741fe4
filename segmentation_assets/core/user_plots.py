"""Pictures of users: their features, scores, rules, behaviour clusters and personas.

What belongs here: figures drawn from the types of core.users. What does not: figures of sessions and queries, and how a
picture becomes bytes (plots), the page that shows them (report).

A cluster has the colour of its place among the model's ids, the users in no cluster are grey; both everywhere. Users
who are marked as noise are in no statistics of features, as in ``personas``, but they are users and are counted as
such.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from segmentation_assets.core.plots import GREY, INK, NARROW, PALETTE, SURFACE, Form, cut, new_figure, rendered, shown
from segmentation_assets.core.report.wording import percent
from segmentation_assets.core.users.behaviour import BehaviourModel
from segmentation_assets.core.users.cleaning import CleaningAccount
from segmentation_assets.core.users.clustering.base import NOISE
from segmentation_assets.core.users.features import FEATURES, Feature, UserFeatures, marked, of_users
from segmentation_assets.core.users.personas import NOISE_NAME, Personas, may_be_shown, number
from segmentation_assets.core.users.rules import RuleSegments
from segmentation_assets.core.users.scores import UserScores

MAP_USERS = 2_000
"""Users drawn on the map; more would be a blot."""

CHOSEN = 6
"""Features that are shown by cluster where nobody says which."""

MAP_COLUMNS = 10
"""Columns of a heat map; more cannot be read."""

MAP_RULES = 12
"""Rules whose overlaps are drawn."""

HEAT = "#1d5fe0"
"""Of the cells of heat maps."""

ON_HEAT = "#f8fafc"
"""Letters on the strongest cells of a heat map."""

_FIRST_CHOICE = ("sessions_per_week", "recency_days", "purchases_per_month", "average_spend", "click_through", "views")
_MARKERS = "osD^vP*XhH<>"


def cluster_colors(clusters: Iterable[int]) -> dict[int, str]:
    """A colour for each cluster id, the same for the same set of ids; that of the users in no cluster is grey."""
    ids = sorted(set(clusters) - {NOISE})
    return {cluster: PALETTE[place % len(PALETTE)] for place, cluster in enumerate(ids)} | {NOISE: GREY}


def cluster_names(model: BehaviourModel, personas: Personas | None = None) -> dict[int, str]:
    """The name of each of a model's clusters and of the users in none: its persona's, or 'cluster 3'."""
    names = {int(cluster): f"cluster {cluster}" for cluster in model.cluster_ids} | {NOISE: NOISE_NAME}
    return names | {card.cluster: card.name for card in (personas.cards if personas else [])}


def definition(name: str) -> Feature | None:
    """What a column of ``UserFeatures.table`` is; None where it is none of ``FEATURES``."""
    kind = name.partition(":")[0]
    return next((feature for feature in FEATURES if feature.name == kind), None)


def readable(name: str) -> str:
    """A feature's name for people: 'sessions per week', 'category share: Shoes'."""
    kind, colon, of = name.partition(":")
    words = kind.replace("_", " ")
    return f"{words}: {of}" if colon else words


def chosen_features(features: UserFeatures, personas: Personas | None = None, limit: int = CHOSEN) -> list[str]:
    """The features that tell the clusters apart best, in the order of ``FEATURES``.

    By the largest effect that any persona has in them; where there are no traits, the ones of a fixed choice that are
    there, and then others. Shares of hours, categories and the like are shown only as somebody's trait, and those that
    next to nobody has not at all (``personas.may_be_shown``).
    """
    there = may_be_shown(features)
    strength: dict[str, float] = {}
    for card in personas.cards if personas else []:
        for trait in card.traits:
            strength[trait.feature] = max(strength.get(trait.feature, 0.0), abs(trait.effect))
    first = sorted((name for name in there if name in strength), key=lambda name: (-strength[name], name))
    plain = [name for name in there if ":" not in name]
    chosen = list(dict.fromkeys([*first, *(name for name in _FIRST_CHOICE if name in plain), *plain]))[:limit]
    return sorted(chosen, key=there.index)


def feature_boxes(
    features: UserFeatures,
    model: BehaviourModel,
    names: Mapping[int, str],
    chosen: Sequence[str],
    form: Form = "png",
) -> bytes:
    """Box plots of features by cluster, a panel each.

    A box is the middle half of a cluster's users, its line the median, the diamond the mean; the whiskers end at the
    5th and the 95th percentile. Beside a name stands how many users have a value; marked users are left out.

    Args:
        features: all users.
        model: the clusters.
        names: name of each cluster (``cluster_names``).
        chosen: columns of ``features.table``; those that it has not are left out.
        form: of the picture.
    """
    chosen = [name for name in chosen if name in features.table.column_names]
    clusters = [int(cluster) for cluster in model.cluster_ids] + ([NOISE] if model.noise else [])
    colors = cluster_colors(clusters)
    columns = 1 if form == "svg" else min(2, max(len(chosen), 1))
    rows = max(-(-len(chosen) // columns), 1)
    figure, first = new_figure(NARROW * columns, rows * (1.0 + 0.36 * max(len(clusters), 1)))
    if not chosen or not clusters:
        _nothing(first, "No features" if not chosen else "No clusters")
        return rendered(figure, form)
    first.remove()
    label_of = _labels_of(features, model)
    for place, name in enumerate(chosen):
        axes = figure.add_subplot(rows, columns, place + 1)
        axes.spines[["top", "right", "left"]].set_visible(False)
        values = features.table[name].to_numpy()
        boxes, texts = [], []
        for cluster in clusters:
            mine = values[(label_of == cluster) & np.isfinite(values)]
            boxes.append(_box(mine))
            texts.append(f"{cut(names.get(cluster, str(cluster)), 24)} ({len(mine):,})")
        drawn = [index for index, box in enumerate(boxes) if box is not None]
        position = np.arange(len(clusters))[::-1]
        if drawn:
            parts = axes.bxp(
                [boxes[index] for index in drawn], positions=position[drawn], orientation="horizontal", widths=0.55,
                showfliers=False, showmeans=True, patch_artist=True, manage_ticks=False,
                medianprops={"color": INK, "linewidth": 1.6}, whiskerprops={"color": GREY}, capprops={"color": GREY},
                meanprops={"marker": "D", "markersize": 4, "markerfacecolor": SURFACE, "markeredgecolor": INK},
            )  # fmt: skip
            for patch, index in zip(parts["boxes"], drawn, strict=True):
                patch.set(facecolor=colors[clusters[index]], alpha=0.75, linewidth=0)
        else:
            _nothing(axes, "No user has a value")
        axes.set_yticks(position, **shown(texts), fontsize=9)
        axes.tick_params(axis="y", length=0)
        axes.set_ylim(-0.6, len(clusters) - 0.4)
        known = definition(name)
        if known is not None and known.unit in ("share", "rank"):
            axes.set_xlim(-0.02, 1.02)
        elif drawn:
            # The reader compares lengths, so the axis begins at 0 where nothing lies below.
            axes.set_xlim(left=min(0.0, *(boxes[index]["whislo"] for index in drawn)))  # type: ignore[index]
        _light_grid(axes, "x")
        words = shown([known.unit if known else ""])
        axes.set_xlabel(words.pop("labels")[0], fontsize=9, **words)
        title = readable(name)
        words = shown([title[:1].upper() + title[1:]], 60)
        axes.set_title(words.pop("labels")[0], loc="left", fontsize=11, **words)
    return rendered(figure, form)


def user_map(rows: NDArray[np.float64], model: BehaviourModel, names: Mapping[int, str], form: Form = "png") -> bytes:
    """Scatter: users, near each other when they behave alike, in the colour of their cluster.

    The coordinates are the first two principal components of the rows that the clusterer saw; each axis says how much
    of the users' differences it shows. Of many users a sample is drawn, the same for the same users.

    Args:
        rows: (n, d) float64, the users of ``model.users`` in that order (``preprocessing.transform``).
        model: the clusters.
        names: name of each cluster (``cluster_names``).
        form: of the picture.
    """
    figure, axes = new_figure(NARROW, 4.9)
    total = len(rows)
    if total == 0:
        _nothing(axes, "No users")
        return rendered(figure, form)
    centered = rows - rows.mean(axis=0)
    # Padded, so that there are two axes even for a single feature.
    centered = np.pad(centered, ((0, 0), (0, max(0, 2 - centered.shape[1]))))
    variance, direction = np.linalg.eigh(centered.T @ centered / total)
    variance, direction = variance[::-1], direction[:, ::-1][:, :2]
    # An axis has no sense of its own: the heaviest feature points to the right and up.
    direction = direction * np.where(direction[np.abs(direction).argmax(axis=0), [0, 1]] < 0, -1.0, 1.0)
    drawn = np.arange(total)
    if total > MAP_USERS:
        drawn = np.sort(np.random.default_rng(0).choice(total, MAP_USERS, replace=False))
    xy = centered[drawn] @ direction
    label = model.labels[drawn]
    ids, sizes = np.unique(label, return_counts=True)
    colors = cluster_colors([int(cluster) for cluster in model.cluster_ids])
    # The users in no cluster first and the smallest cluster last, so that nobody is hidden below the many.
    handles, words = [], []
    for cluster in ids[np.lexsort((ids, -sizes, ids != NOISE))].tolist():
        mine = label == cluster
        place = sorted(colors).index(cluster) if cluster in colors else 0
        points = axes.scatter(
            xy[mine, 0], xy[mine, 1], s=12, color=colors.get(cluster, GREY), alpha=0.55, linewidths=0,
            marker=_MARKERS[place % len(_MARKERS)],
        )  # fmt: skip
        handles.append(points)
        words.append(names.get(cluster, str(cluster)))
    axes.set_xticks([])
    axes.set_yticks([])
    told = variance[:2] / variance.sum() if variance.sum() > 0 else np.zeros(2)
    axes.set_xlabel(f"first component: {told[0]:.0%} of the differences", fontsize=9)
    axes.set_ylabel(f"second component: {told[1]:.0%}", fontsize=9)
    legend = _legend_below(axes, handles, shown(words, 26), -0.08)
    for handle in legend.legend_handles:
        handle.set(alpha=1.0, sizes=[26])
    what = f"{len(drawn):,} of {total:,} users" if len(drawn) < total else f"{total:,} user{'s' if total > 1 else ''}"
    axes.set_title(f"{what}, near each other when they behave alike", loc="left", fontsize=11)
    return rendered(figure, form)


def rfm_map(scores: UserScores, features: UserFeatures | None = None, cell: str = "users", form: Form = "png") -> bytes:
    """Heat map of recency by frequency.

    Args:
        scores: all users.
        features: their features, for the spend.
        cell: what stands in a cell: 'users', how many there are; 'spend', their mean spend.
        form: of the picture.

    Raises:
        ValueError: any other ``cell``; 'spend' without features that have it.
    """
    if cell not in ("users", "spend"):
        raise ValueError(f"cell is 'users' or 'spend', not {cell!r}")
    if cell == "spend" and (features is None or "spend" not in features.table.column_names):
        raise ValueError("mean spend needs features with a spend")
    table = scores.table
    recency, frequency = (
        pc.fill_null(table[name].combine_chunks(), 0).to_numpy(zero_copy_only=False).astype(np.int64)
        for name in ("recency_score", "frequency_score")
    )
    there = (recency > 0) & (frequency > 0)
    figure, axes = new_figure(NARROW, 4.2)
    if not there.any():
        _nothing(axes, "No user has both scores")
        return rendered(figure, form)
    # Scores that an earlier version stored do not say of how many groups they are.
    groups = int(max(scores.groups, recency[there].max(), frequency[there].max()))
    code = (groups - recency) * groups + frequency - 1  # the latest on top, the most frequent to the right
    users = np.bincount(code[there], minlength=groups * groups).reshape(groups, groups).astype(np.float64)
    values = np.where(users > 0, users, np.nan)
    if cell == "spend" and features is not None:
        spend = _of_users(features.table, "spend", table["user_id"])
        counted = there & np.isfinite(spend)
        n = np.bincount(code[counted], minlength=groups * groups).reshape(groups, groups)
        money = np.bincount(code[counted], weights=spend[counted], minlength=groups * groups).reshape(groups, groups)
        values = np.divide(money, n, out=np.full((groups, groups), np.nan), where=n > 0)
    _heat(axes, values, [[_short(value) for value in row] for row in values.tolist()])
    numbers = [str(score) for score in range(1, groups + 1)]
    axes.set_xticks(range(groups), labels=numbers)
    axes.set_yticks(range(groups), labels=numbers[::-1])
    words = shown([f"frequency score, by {readable(scores.frequency)} ({groups} = the most)"], 60)
    axes.set_xlabel(words.pop("labels")[0], fontsize=9, **words)
    axes.set_ylabel(f"recency score ({groups} = just now)", fontsize=9)
    axes.set_title(
        "Users by recency and frequency" if cell == "users" else "Mean spend by recency and frequency",
        loc="left",
        fontsize=11,
    )
    return rendered(figure, form)


def loyalty(scores: UserScores, form: Form = "png") -> bytes:
    """Histogram of the loyalty index, by tier; the stronger the colour, the higher the tier."""
    figure, axes = new_figure(NARROW, 3.2)
    there = scores.table.filter(scores.table["loyalty_index"].is_valid())
    axes.set_title("Users by loyalty index", loc="left", fontsize=11)
    if not there.num_rows:
        _nothing(axes, "No user has an index")
        return rendered(figure, form)
    tiers = loyalty_tiers(scores)
    index = there["loyalty_index"].to_numpy()
    tier = there["loyalty_tier"].to_numpy()
    edges = np.linspace(0, 100, 21)
    bottom = np.zeros(len(edges) - 1)
    handles, words = [], shown([f"{cut(name, 20)}: {users:,} ({percent(users / len(index))})" for name, users in tiers])
    for place, (name, _) in enumerate(tiers):
        users = np.histogram(index[tier == name], edges)[0]
        strength = 0.3 + 0.7 * (place / (len(tiers) - 1) if len(tiers) > 1 else 1.0)
        handles.append(axes.bar(edges[:-1], users, 4.6, bottom, align="edge", color=HEAT, alpha=strength))
        bottom += users
    axes.set_xlim(0, 100)
    axes.set_xlabel("loyalty index, 0 to 100", fontsize=9)
    axes.set_ylabel("users", fontsize=9)
    _light_grid(axes, "y")
    axes.yaxis.get_major_locator().set_params(integer=True)
    _legend_below(axes, handles, words, -0.2)
    return rendered(figure, form)


def loyalty_tiers(scores: UserScores) -> list[tuple[str, int]]:
    """Each tier that somebody is in with its users, the lowest tier first."""
    counted = (
        scores.table.filter(scores.table["loyalty_tier"].is_valid())
        .group_by("loyalty_tier")
        .aggregate([("loyalty_index", "min"), ("user_id", "count")])
        .to_pylist()
    )
    rising = sorted(counted, key=lambda tier: (tier["loyalty_index_min"] or 0.0, tier["loyalty_tier"]))
    return [(tier["loyalty_tier"], tier["user_id_count"]) for tier in rising]


def k_distances(distances: NDArray[np.float64], eps: float | None = None, form: Form = "png") -> bytes:
    """Curve: each user's distance to the k-th neighbour, sorted; where it bends is the eps that DBSCAN wants.

    Ester et al. 1996, A density-based algorithm for discovering clusters.

    Args:
        distances: (n,) in any order; of how many users is no matter.
        eps: the one suggested, drawn as a line.
        form: of the picture.
    """
    figure, axes = new_figure(NARROW, 3.0)
    curve = np.sort(distances[np.isfinite(distances)])
    axes.set_title("Distance of each user to the k-th neighbour", loc="left", fontsize=11)
    if not len(curve):
        _nothing(axes, "No distances")
        return rendered(figure, form)
    users = np.arange(1, len(curve) + 1)
    kept = np.unique(np.linspace(0, len(curve) - 1, min(len(curve), 1_000)).round().astype(np.int64))
    axes.plot(users[kept], curve[kept], color=PALETTE[0], marker="o" if len(curve) == 1 else None)
    if eps is not None:
        inside = float((curve <= eps).mean())
        axes.axhline(eps, color=PALETTE[1], linestyle="--", linewidth=1.2)
        axes.annotate(
            f"suggested eps = {number(eps, 3)}: {percent(inside)} of the users below", (0.02, eps), fontsize=9,
            color=INK, xycoords=("axes fraction", "data"), xytext=(0, 4), textcoords="offset points",
        )  # fmt: skip
    axes.set_xlim(0, len(curve) * 1.02)
    axes.set_ylim(0, max(curve[-1], eps or 0.0) * 1.12 or 1.0)
    axes.set_xlabel("users, those in the densest places first", fontsize=9)
    axes.set_ylabel("distance", fontsize=9)
    _light_grid(axes, "y")
    return rendered(figure, form)


def cluster_sizes(personas: Personas, form: Form = "png") -> bytes:
    """Bars: users of each persona."""
    cards = personas.cards
    colors = cluster_colors(card.cluster for card in cards)
    return _bars(
        "Users by persona",
        [card.name for card in cards],
        [card.users for card in cards],
        [f"{card.users:,} ({percent(card.share)})" for card in cards],
        [colors[card.cluster] for card in cards],
        form,
        "No personas",
    )


def rule_sizes(rules: RuleSegments, form: Form = "png") -> bytes:
    """Bars: users that each rule takes; a rule that could not be applied says so."""
    report = rules.report
    return _bars(
        "Users by rule; a user can be in several",
        [rule.name for rule in report],
        [0 if rule.unusable else rule.users for rule in report],
        ["not applied" if rule.unusable else f"{rule.users:,} ({percent(rule.share)})" for rule in report],
        [PALETTE[0]] * len(report),
        form,
        "No rules",
    )


def rule_overlaps(rules: RuleSegments, form: Form = "png") -> bytes:
    """Heat map: the part of the users of a row's rule that a column's rule takes as well.

    The columns have the numbers that stand before the rules. Of many rules those with most users are drawn.
    """
    taking = sorted((rule for rule in rules.report if rule.users), key=lambda rule: -rule.users)
    figure, axes = new_figure(NARROW, 0.9 + 0.34 * max(min(len(taking), MAP_RULES), 3))
    if not taking:
        _nothing(axes, "No rule takes anybody")
        return rendered(figure, form)
    drawn = taking[:MAP_RULES]
    place = {rule.name: index for index, rule in enumerate(drawn)}
    both = np.diag([float(rule.users) for rule in drawn])
    for overlap in rules.overlaps:
        if overlap.one in place and overlap.other in place:
            one, other = place[overlap.one], place[overlap.other]
            both[one, other] = both[other, one] = overlap.users
    share = both / np.diag(both)[:, None]
    off = np.where(np.eye(len(drawn), dtype=np.bool_), np.nan, share)
    # Twelve columns leave no room for a sign in each cell.
    texts = [[f"{100 * value:.0f}" if np.isfinite(value) else "" for value in row] for row in off]
    _heat(axes, off, texts, most=1.0, fontsize=8)
    axes.set_xticks(range(len(drawn)), labels=[str(index + 1) for index in range(len(drawn))], fontsize=9)
    named = shown((f"{index + 1}  {cut(rule.name, 24)}" for index, rule in enumerate(drawn)))
    axes.set_yticks(range(len(drawn)), **named, fontsize=9)
    axes.xaxis.tick_top()
    note = f" (the {MAP_RULES} largest rules)" if len(taking) > MAP_RULES else ""
    axes.set_title(f"Part of a rule's users that another takes as well, in %{note}", loc="left", fontsize=11)
    return rendered(figure, form)


def cleaning_bars(account: CleaningAccount, form: Form = "png") -> bytes:
    """Bars: what was set aside and what was filled in, as a part of all sessions or events that came in."""
    names, shares, texts, colors = [], [], [], []
    for what, read, aside in (
        ("sessions", account.sessions_read, account.sessions_set_aside),
        ("events", account.events_read, account.events_set_aside),
    ):
        for reason, count in sorted(aside.items(), key=lambda item: (-item[1], item[0])):
            names.append(f"{what}: {reason.replace('_', ' ')}")
            shares.append(count / read if read else 0.0)
            texts.append(f"{count:,} ({percent(shares[-1])})")
            colors.append(PALETTE[1])
    for imputation in account.imputations:
        if imputation.cells:
            names.append(f"{imputation.column} filled in")
            shares.append(imputation.cells / account.sessions_used if account.sessions_used else 0.0)
            texts.append(f"{imputation.cells:,} ({percent(shares[-1])})")
            colors.append(PALETTE[0])
    return _bars(
        "Set aside (orange) and filled in (blue)", names, shares, texts, colors, form,
        "Nothing was set aside, nothing filled in",
    )  # fmt: skip


def segment_shares(personas: Personas, form: Form = "png") -> bytes:
    """Heat map: the query segments of each persona's users, as parts of them; a row adds up to 100%."""
    cards = [card for card in personas.cards if card.segments]
    weight: dict[str, float] = {}
    for card in cards:
        for name, share in card.segments.items():
            weight[name] = weight.get(name, 0.0) + share * card.users
    ranked = sorted(weight, key=lambda name: (-weight[name], name))
    columns = ranked[:MAP_COLUMNS]
    figure, axes = new_figure(NARROW, 1.5 + 0.36 * max(len(cards), 2))
    axes.set_title("Query segments of each persona's users", loc="left", fontsize=11)
    if not columns:
        _nothing(axes, "No persona has query segments")
        return rendered(figure, form)
    shares = np.array([[card.segments.get(name, 0.0) for name in columns] for card in cards])
    if len(ranked) > len(columns):
        rest = [sum(card.segments.get(name, 0.0) for name in ranked[MAP_COLUMNS:]) for card in cards]
        shares = np.column_stack([shares, rest])
        columns = [*columns, "all others"]
    small = 8 if len(columns) > 6 else 9
    _heat(axes, shares, [[_whole_percent(value) for value in row] for row in shares.tolist()], most=1.0, fontsize=small)
    axes.set_xticks(
        range(len(columns)), **shown(columns, 18), fontsize=9, rotation=30, ha="right", rotation_mode="anchor"
    )
    axes.set_yticks(range(len(cards)), **shown((card.name for card in cards), 26), fontsize=9)
    return rendered(figure, form)


def _labels_of(features: UserFeatures, model: BehaviourModel) -> NDArray[np.int64]:
    """(n_users,) the cluster of each row of the features; one that is no cluster for the marked and the unknown."""
    nowhere = NOISE - 1
    place = pc.index_in(features.table["user_id"].combine_chunks(), model.users)
    labels = pa.array(model.labels.astype(np.int64)).take(place).fill_null(nowhere).to_numpy(zero_copy_only=False)
    return np.where(marked(features), nowhere, labels)


def _of_users(table: pa.Table, column: str, users: pa.ChunkedArray) -> NDArray[np.float64]:
    """(n_users,) a column's value of each of these users, NaN where there is none."""
    values = of_users(table.select(["user_id", column]), users)[column].cast(pa.float64())
    return np.asarray(values.to_numpy(), np.float64)


def _box(values: NDArray[np.float64]) -> dict[str, float] | None:
    if not len(values):
        return None
    low, q1, median, q3, high = np.percentile(values, [5, 25, 50, 75, 95])
    return {"whislo": low, "q1": q1, "med": median, "q3": q3, "whishi": high, "mean": float(values.mean())}


def _bars(
    title: str,
    names: Sequence[str],
    values: Sequence[float],
    texts: Sequence[str],
    colors: Sequence[str],
    form: Form,
    nothing: str,
) -> bytes:
    """Horizontal bars from zero, each with its number at its end; there is no scale to read it off."""
    figure, axes = new_figure(NARROW, 0.6 + 0.34 * max(len(names), 2))
    axes.set_title(title, loc="left", fontsize=11)
    if not names:
        _nothing(axes, nothing)
        return rendered(figure, form)
    position = np.arange(len(names))[::-1]
    axes.barh(position, values, height=0.68, color=colors)
    for y, value, text in zip(position, values, texts, strict=True):
        axes.text(value, y, f" {text}", va="center", fontsize=9, color=INK)
    axes.set_yticks(position, **shown(names, 28), fontsize=9)
    axes.tick_params(axis="y", length=0)
    axes.set_xlim(0, (max(values) or 1.0) * 1.7)  # room for the longest bar's number
    axes.set_xticks([])
    axes.spines["bottom"].set_visible(False)
    return rendered(figure, form)


def _heat(  # type: ignore[no-untyped-def]
    axes, values: NDArray[np.float64], texts: Sequence[Sequence[str]], most: float | None = None, fontsize: int = 9
) -> None:
    """Cells of one colour, the more the larger the value: opaque at ``most``; a NaN is left empty.

    Opacity instead of a colour map, so that a page can put light or dark behind it.
    """
    from matplotlib.patches import Rectangle

    rows, columns = values.shape
    top = most or (np.nanmax(values) if np.isfinite(values).any() else 1.0) or 1.0
    for row in range(rows):
        for column in range(columns):
            value = values[row, column]
            if not np.isfinite(value):
                continue
            strength = 0.9 * min(max(value / top, 0.0), 1.0)
            axes.add_patch(
                Rectangle((column - 0.48, row - 0.47), 0.96, 0.94, facecolor=HEAT, alpha=0.05 + strength, linewidth=0)
            )
            color = ON_HEAT if strength > 0.7 else INK
            axes.text(column, row, texts[row][column], ha="center", va="center", fontsize=fontsize, color=color)
    axes.set_xlim(-0.5, columns - 0.5)
    axes.set_ylim(rows - 0.5, -0.5)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)


def _legend_below(axes, handles: Sequence[object], words: Mapping[str, Any], y: float):  # type: ignore[no-untyped-def]
    """A legend below the axes, which is returned."""
    # The words come later: matplotlib leaves out those that begin with "_".
    legend = axes.legend(
        handles, ["."] * len(handles), fontsize=9, frameon=False, loc="upper center", bbox_to_anchor=(0.5, y), ncols=2
    )
    for text, word in zip(legend.get_texts(), words["labels"], strict=True):
        text.set(text=word, parse_math=False, fontfamily=words["fontfamily"])
    return legend


def _light_grid(axes, axis: str) -> None:  # type: ignore[no-untyped-def]
    axes.grid(axis=axis, color=GREY, alpha=0.3, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(axis=axis, labelsize=9)


def _nothing(axes, text: str) -> None:  # type: ignore[no-untyped-def]
    """A picture of nothing says so."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    axes.text(0.5, 0.5, text, ha="center", va="center", transform=axes.transAxes, fontsize=10, color=INK)


def _short(value: float) -> str:
    """A number that fits into a cell: 940, 9,400, 94k, 1.25M."""
    if not np.isfinite(value):
        return ""
    for letter, size in _SIZES.items():
        if abs(value) >= max(0.9995 * size, 9_999.5):
            return number(value / size, 3) + letter
    return number(value, 3)


_SIZES = {"T": 1e12, "B": 1e9, "M": 1e6, "k": 1e3}


def _whole_percent(share: float) -> str:
    """A share that is not rounded to nothing, for cells without room for a decimal."""
    return "<1%" if 0 < share < 0.005 else f"{share:.0%}"
