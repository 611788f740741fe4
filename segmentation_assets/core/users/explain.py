"""Why a user is where they are, in sentences.

What belongs here: a profile's document, with the personas' cards beside it, put into words. What does not: reading the
profile (io), the words for features (personas), anything that neither the document nor the cards say.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from segmentation_assets.core.taxonomy import OTHER
from segmentation_assets.core.users.clustering.base import NOISE
from segmentation_assets.core.users.features import FEATURES, SHARES
from segmentation_assets.core.users.personas import NOISE_NAME, Persona, Personas, amount, number, sentence
from segmentation_assets.core.users.profiles import SEGMENTS

UNUSUAL = 2.0
"""Standard deviations from the mean of their group from which a user's value is worth a word."""

UNUSUAL_SHOWN = 3
"""Such values that are named, the furthest first."""

CLEAR, BORDER = 0.5, 0.2
"""Confidence from which a user is clearly of their group, and below which another is about as near."""

_DEVIATIONS = 3.0  # one extreme feature must not decide which group is alike
_FRACTIONS = {2: "half", 3: "third", 4: "quarter", 5: "fifth", 6: "sixth", 7: "seventh", 8: "eighth", 9: "ninth"}
_PLACES = ("", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth")
_MARKS = {
    "bot_rate": "more sessions within an hour than a human has",
    "endless_session": "a session that never ended",
    "repeated_query": "the same query again and again",
    "internal_user": "one of our own",
    "internal_referrer": "came from one of our own pages",
}


def explain(
    profile: Mapping[str, Any],
    personas: Personas | None = None,
    *,
    rules: Mapping[str, str] | None = None,
    groups: int = 5,
) -> list[str]:
    """Say why a user has the segment, group, rules, scores and marks of their profile.

    What the profile does not hold is not spoken of, or said to be unknown; nothing is guessed.

    Args:
        profile: a document as ``profiles.documents`` makes it, or as it was read back.
        personas: of the model that made the profile; of another, or None: groups are named and not described.
        rules: rule to its description; None, or one that is missing: it is named only.
        groups: of the RFM scores (``scores.groups``).

    Returns:
        Sentences, what matters most first.
    """
    cards = [] if personas is None or personas.model_version != profile.get("model_version") else personas.cards
    values = flat_features(profile)
    return [
        *_segment(profile),
        *_group(profile, cards, values),
        *_rules(profile, rules or {}),
        *_scores(profile, values, groups),
        *_known(profile),
        *_flags(profile, values),
        *_window(profile),
    ]


def flat_features(profile: Mapping[str, Any]) -> dict[str, float]:
    """The features of a document under the names they have as columns: ``category_share:Shoes``."""
    values: dict[str, float] = {}
    for name, value in {**profile.get("features", {}), SEGMENTS: profile.get(SEGMENTS)}.items():
        if isinstance(value, Mapping):
            values |= {f"{name}:{part}": share for part, share in value.items() if share is not None}
        elif value is not None:
            values[name] = value
    return values


def _segment(profile: Mapping[str, Any]) -> Iterator[str]:
    segment, shares = profile.get("segment"), profile.get(SEGMENTS) or {}
    if segment is None:
        yield "In no query segment: none is known of this user's searches."
        return
    what = "no named segment fits most of the searches" if segment == OTHER else "where most of the searches are"
    others = sorted(((share, name) for name, share in shares.items() if name != segment and share), reverse=True)
    parts = [
        f"{name} {amount(SEGMENTS, share)}" for share, name in sorted(others, key=lambda pair: (-pair[0], pair[1]))
    ]
    told = f" ({amount(SEGMENTS, shares[segment])} of them)" if segment in shares else ""
    yield f"Query segment {segment}: {what}{told}{'; then ' + ', '.join(parts) if parts else ''}."


def _group(profile: Mapping[str, Any], cards: list[Persona], values: Mapping[str, float]) -> Iterator[str]:
    cluster = profile.get("cluster")
    if cluster is None:
        return
    card = next((card for card in cards if card.cluster == cluster), None)
    size = f" ({card.users:,} users, {card.share:.1%} of all)" if card else ""
    if cluster == NOISE:
        yield f"{profile.get('persona', NOISE_NAME)}{size}: behaves like no group that there is."
    else:
        confidence = profile.get("cluster_confidence")
        sure = ""
        if confidence is not None:
            word = (
                "clearly nearer to it than to any other group"
                if confidence >= CLEAR
                else "nearer to it than to any other group"
                if confidence >= BORDER
                else "on the border, another group is nearly as near"
            )
            sure = f": {word} (confidence {confidence:.2f} of 1)"
        yield f"Persona {profile.get('persona', cluster)}, group {cluster}{size}{sure}."
    alike = _alike([other for other in cards if other.cluster not in (cluster, NOISE)], cards, values)
    if alike is not None:
        yield f"Of the {'' if cluster == NOISE else 'other '}groups, {alike.name} is the most alike in numbers."
    if card is None:
        return
    if cluster != NOISE:
        for trait in card.traits:
            if trait.feature in values:
                compared = [("the group", trait.mean), ("all others", trait.rest)]
                yield sentence(trait.feature, values[trait.feature], compared)
    yield from _unusual(card, values)


def _alike(others: list[Persona], cards: list[Persona], values: Mapping[str, float]) -> Persona | None:
    """The group whose means are nearest to a user's values, each feature by its deviation among all users.

    Not the distance of the model, which neither profile nor cards hold: shares are left out, and no feature counts for
    more than another.
    """
    spread = {name: _deviation(cards, name) for name in values if ":" not in name}
    told = [
        name for name, deviation in spread.items() if deviation > 0 and all(name in card.statistics for card in others)
    ]
    if not others or not told:
        return None

    def distance(card: Persona) -> float:
        return sum(
            min(abs(values[name] - card.statistics[name]["mean"]) / spread[name], _DEVIATIONS) ** 2 for name in told
        )

    return min(others, key=lambda card: (round(distance(card), 9), card.cluster))


def _deviation(cards: list[Persona], feature: str) -> float:
    """Of all users, put together from the groups'."""
    found = [card.statistics[feature] for card in cards if feature in card.statistics]
    count = sum(each["count"] for each in found)
    if count < 2:
        return 0.0
    mean = sum(each["count"] * each["mean"] for each in found) / count
    squares = sum((each["count"] - 1) * each["std"] ** 2 + each["count"] * (each["mean"] - mean) ** 2 for each in found)
    return math.sqrt(squares / (count - 1))


def _unusual(card: Persona, values: Mapping[str, float]) -> Iterator[str]:
    shares = {feature.name for feature in FEATURES if feature.group in SHARES}
    told = {trait.feature for trait in card.traits}
    found = []
    for feature, value in values.items():
        statistics = card.statistics.get(feature)
        if feature.partition(":")[0] not in shares and feature not in told and statistics and statistics["std"] > 0:
            away = abs(value - statistics["mean"]) / statistics["std"]
            if away >= UNUSUAL:
                found.append((-away, feature, value, statistics["mean"]))
    for _, feature, value, mean in sorted(found)[:UNUSUAL_SHOWN]:
        yield f"Unusual in the group: {_small(sentence(feature, value, [('the group', mean)]))}"


def _rules(profile: Mapping[str, Any], descriptions: Mapping[str, str]) -> Iterator[str]:
    names = profile.get("rules")
    if names is None:
        return
    if not names:
        yield "No rule takes this user."
    for name in names:
        description = descriptions.get(name, "").strip().rstrip(".")
        yield f"Rule {name}{': ' + description if description else ' takes this user'}."


_NOTHING = {"purchases": "Never bought anything", "spend": "Spent nothing", "sessions": "Never came"}


def _scores(profile: Mapping[str, Any], values: Mapping[str, float], groups: int) -> Iterator[str]:
    frequency = "purchases" if "purchases" in values else "sessions"
    for score, feature, best, worst in (
        ("recency_score", "recency_days", "most recent", "least recent"),
        ("frequency_score", frequency, "most frequent", "least frequent"),
        ("monetary_score", "spend", "highest-spending", "lowest-spending"),
    ):
        found = profile.get(score)
        if found is None:
            continue
        if score != "recency_score" and values.get(feature) == 0:
            yield f"{_NOTHING[feature]} ({score.replace('_', ' ')} {found} of {groups})."
        else:
            start = sentence(feature, values[feature])[:-1] if feature in values else "Scored"
            # Frequency and monetary value are ranked among those who have any (scores).
            buyers = " of those who bought" if feature in ("purchases", "spend") else ""
            place = _place(found, groups, best, worst) + buyers
            yield f"{start}: {place} ({score.replace('_', ' ')} {found} of {groups})."
    if (
        profile.get("monetary_score") is None
        and "monetary_score" not in profile.get("absent", ())
        and profile.get("rfm")
    ):
        yield "No monetary score: what this user spent is not known."
    index, tier = profile.get("loyalty_index"), profile.get("loyalty_tier")
    if index is not None:
        yield f"Loyalty index {number(index)} of 100{f': tier {tier}' if tier else ''}."


def _place(score: int, groups: int, best: str, worst: str) -> str:
    fraction = _FRACTIONS.get(groups, f"of {groups} groups")
    if score >= groups:
        return f"among the {best} {fraction}"
    if score <= 1:
        return f"among the {worst} {fraction}"
    return f"in the {_PLACES[groups - score]} {fraction} from the {best}"


def _known(profile: Mapping[str, Any]) -> Iterator[str]:
    traits = profile.get("traits") or {}
    texts = [
        f"{name.replace('_', ' ')} {number(value, 3) if isinstance(value, int | float) else str(value)[:100]}"
        for name, value in sorted(traits.items())
        if value is not None
    ]
    if texts:
        yield f"Known: {', '.join(texts)}."


def _flags(profile: Mapping[str, Any], values: Mapping[str, float]) -> Iterator[str]:
    if profile.get("noise"):
        reasons = ", ".join(_MARKS.get(reason, reason) for reason in profile["noise"])
        yield f"Marked, so that nothing about others is learnt from this user: {reasons}."
    if profile.get("outliers"):
        texts = [_small(sentence(name, values[name]))[:-1] if name in values else name for name in profile["outliers"]]
        yield f"Far from what is common: {', '.join(texts)}."
    if profile.get("imputed"):
        yield f"Missing in some of the sessions and filled in: {', '.join(profile['imputed'])}."
    if profile.get("absent"):
        yield f"Not measured of anybody, the data do not tell: {', '.join(profile['absent'])}."


def _window(profile: Mapping[str, Any]) -> Iterator[str]:
    start, end = profile.get("window_start"), profile.get("window_end")
    if start and end:
        yield f"All this is about sessions from {str(start)[:10]} to {str(end)[:10]} (UTC)."


def _small(text: str) -> str:
    return text[0].lower() + text[1:]
