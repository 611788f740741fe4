"""Products of a segment: which are popular, which are rising.

What belongs here: the two orders, as functions of weights. What does not: weights themselves (core.live.segmenter), who
has seen what (the route).

*Popular* is what has most weight in the last 24 hours. *Rising* compares a product's share of all weight in the last 6
hours with its share in the 24 hours before these, both with one added to every weight (Laplace), so that a product
nobody looked at before has a share to be compared with. It rises when the share grew and it has at least the weight of
one purchase; ordered by ``now * ln(now / before)``, the product's part in the Kullback-Leibler divergence between the
two distributions: what moved most attention comes first, not the rarest that doubled.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from segmentation_assets.core.live.events import digest
from segmentation_assets.serving.answers import Product

RECENT_HOURS = 6
BEFORE_HOURS = 24
POPULAR_HOURS = 24
LEAST_WEIGHT = 10
CONSIDERED = 1_000
"""Products of a segment in each window, the heaviest."""

POPULAR = 100
"""So many of them are called popular."""


@dataclass(frozen=True)
class Trends:
    """Products of a segment.

    Attributes:
        popular: product to weight in the last 24 hours, the heaviest first.
        growth: product to how its share grew, of those that rise; the first one first.
        weights: product to weight in the last 24 hours, of both.
    """

    popular: Mapping[str, float]
    growth: Mapping[str, float]
    weights: Mapping[str, float]


def windows(hour: int) -> tuple[list[int], list[int], list[int]]:
    """Hours since 1970 of the popular, the recent and the earlier window, at an hour that is part of the first two."""
    popular = list(range(hour - POPULAR_HOURS + 1, hour + 1))
    recent = list(range(hour - RECENT_HOURS + 1, hour + 1))
    return popular, recent, list(range(hour - RECENT_HOURS - BEFORE_HOURS + 1, hour - RECENT_HOURS + 1))


def rising(recent: Mapping[str, float], before: Mapping[str, float]) -> dict[str, float]:
    """Product to growth of its share, above 1, of those that rise, the first one first."""
    kinds = len(recent.keys() | before.keys())
    now_total, before_total = sum(recent.values()) + kinds, sum(before.values()) + kinds
    scored = []
    for product, weight in recent.items():
        now, then = (weight + 1) / now_total, (before.get(product, 0.0) + 1) / before_total
        if weight >= LEAST_WEIGHT and now > then:
            scored.append((-now * math.log(now / then), product, now / then))
    return {product: growth for _, product, growth in sorted(scored)}


def trends(
    day: Sequence[tuple[str, float]], recent: Sequence[tuple[str, float]], before: Sequence[tuple[str, float]]
) -> Trends:
    """Of (product, weight) in the last 24 hours, the last 6, and the 24 before these; the heaviest first."""
    growth = rising(dict(recent), dict(before))
    weights = dict(recent) | dict(day)
    return Trends(dict(day[:POPULAR]), growth, weights)


def feed(found: Trends, seen: Collection[int], limit: int) -> list[Product]:
    """Popular and rising products in turn, each once, without those that were seen.

    Args:
        found: of the segment.
        seen: digests of products (``core.live.events.digest``).
        limit: at most so many.
    """
    in_turn: list[str] = []
    first, second = list(found.popular), list(found.growth)
    for place in range(max(len(first), len(second))):
        in_turn += first[place : place + 1] + second[place : place + 1]
    products: list[Product] = []
    for product in dict.fromkeys(in_turn):
        if len(products) == limit:
            break
        if digest(product) in seen:
            continue
        why: list[Literal["popular", "rising"]] = ["popular"] if product in found.popular else []
        if product in found.growth:
            why.append("rising")
        products.append(
            {
                "product_id": product,
                "why": why,
                "weight": found.weights.get(product, 0.0),
                "growth": found.growth.get(product),
            }
        )
    return products
