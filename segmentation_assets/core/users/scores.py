"""RFM scores and the loyalty index.

What belongs here: scores made of recency, frequency and monetary value. What does not: those three (features).
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from segmentation_assets.core.settings import ScoreSettings
from segmentation_assets.core.users.features import UserFeatures, marked, reason_absent

SCORES_SCHEMA = pa.schema(
    [
        ("user_id", pa.string()),
        ("recency_score", pa.int64()),  # 1 (long ago) .. groups (just now)
        ("frequency_score", pa.int64()),
        ("monetary_score", pa.int64()),  # null where no spend was ever recorded
        ("rfm", pa.string()),  # the three as digits, "-" for one that is absent: "54-"
        ("loyalty_index", pa.float64()),  # 0..100
        ("loyalty_tier", pa.string()),
    ]
)


@dataclass(frozen=True)
class UserScores:
    """Scores of every user.

    Attributes:
        table: ``SCORES_SCHEMA``, sorted by user_id.
        absent: column of ``table`` to why nobody has a value in it; the weight of a score that is absent is shared out
            among the others.
        weights: of 'recency', 'frequency' and 'monetary' in the loyalty index, as they were used: of those that are
            there, summing to 1. Empty where there is no index.
        frequency: the feature that frequency was taken from ('purchases', or 'sessions' where nothing was bought).
        groups: the best score there can be; who has it is another matter.
    """

    table: pa.Table
    absent: dict[str, str]
    weights: dict[str, float]
    frequency: str
    groups: int = 5


PARTS = {"recency": "recency_score", "frequency": "frequency_score", "monetary": "monetary_score"}
"""The three parts of the loyalty index, and the column of each one's score."""


def score(features: UserFeatures, settings: ScoreSettings) -> UserScores:
    """Score how recently, how often and for how much each user came, and how loyal that makes them.

    RFM after Hughes (1994, Strategic Database Marketing) and Bult and Wansbeek (1995, Optimal selection for direct
    mail, Marketing Science 14): customers are sorted by each value and cut into equal groups, the best one numbered
    highest. Cutting a sorted list parts customers with the same value by chance, so a score is made of a rank instead:

        rank = (users with a worse value + half of those with the same one, the user included) / users

    which is above 0 and below 1, the same for the same value, and never less for a better one (of different values,
    Hazen's plotting position). With G groups:

        score = rank * G, rounded up

    So many users with different values are cut into G equal groups; all users of one value are in the group that the
    middle of their places falls into; and few users have the scores their ranks allow (of five groups: one user 3, two
    users 2 and 4, five users 1 to 5).

    Recency is ranked among all users. Frequency and monetary value are ranked among the users who have any: Hughes'
    customers all bought something. Whoever bought nothing has rank 0 and score 1, and however many they are, buyers are
    told apart. Users marked as noise are ranked among those who are not, and change nobody's rank; where all who could
    be ranked are marked, among themselves.

    The loyalty index is the mean of the ranks by the weights of the settings, times 100. It is made of ranks because
    they tell apart users whom the scores do not; it never falls when one of the three values gets better. A user of
    whom one value is missing has the mean of the others.

    Values are compared to six decimals: the last bits of a sum are no reason to put one user before another.

    Args:
        features: of all users; recency_days, purchases or else sessions, and spend are read.
        settings: groups, weights and tiers.

    Returns:
        Scores of every user. Where all the weight is on what is absent, there is no index and no tier.
    """
    order = pc.sort_indices(features.table["user_id"])
    table = features.table.take(order)
    usual = ~marked(features)[order.to_numpy()]
    frequency = "purchases" if "purchases" in table.column_names else "sessions"
    asked = {
        "recency": ("recency_days", settings.recency_weight),
        "frequency": (frequency, settings.frequency_weight),
        "monetary": ("spend", settings.monetary_weight),
    }
    absent: dict[str, str] = {}
    ranks: dict[str, NDArray[np.float64]] = {}
    scores: dict[str, pa.Array] = {}
    for part, (column, _) in asked.items():
        if column not in table.column_names or (table.num_rows and table[column].null_count == table.num_rows):
            absent[PARTS[part]] = reason_absent(features, column)
            ranks[part] = np.full(table.num_rows, np.nan)
            scores[part] = pa.nulls(table.num_rows, pa.int64())
            continue
        values = table[column].cast(pa.float64()).to_numpy()
        better = -values if part == "recency" else values
        worst = -np.inf if part == "recency" else 0.0
        ranks[part], scores[part] = _rank(better, worst, usual, settings.groups)

    weights = {part: weight for part, (_, weight) in asked.items() if PARTS[part] not in absent}
    total = sum(weights.values())
    if total > 0:
        weights = {part: weight / total for part, weight in weights.items()}
    else:
        weights = {}
        absent["loyalty_index"] = absent["loyalty_tier"] = "all of its weight is on scores that are absent"
    index = _weighted_mean(ranks, weights, table.num_rows)
    tier = np.searchsorted([tier.from_ for tier in settings.tiers], index, side="right") - 1
    names = pa.array([tier.name for tier in settings.tiers], pa.string())
    unknown = np.isnan(index)
    digits = [pc.fill_null(scores[part].cast(pa.string()), "-") for part in PARTS]
    return UserScores(
        table=pa.table(
            [
                table["user_id"],
                *(scores[part] for part in PARTS),
                pc.binary_join_element_wise(*digits, ""),
                pa.array(index, mask=unknown),
                names.take(pa.array(tier, mask=unknown)),
            ],
            schema=SCORES_SCHEMA,
        ),
        absent=absent,
        weights=weights,
        frequency=frequency,
        groups=settings.groups,
    )


def _rank(
    better: NDArray[np.float64], worst: float, usual: NDArray[np.bool_], groups: int
) -> tuple[NDArray[np.float64], pa.Array]:
    """Ranks of values of which more is better, nan where there is none, and the scores, null there.

    Args:
        better: (n,) values.
        worst: whoever has no more than this has rank 0 and is ranked among nobody.
        usual: (n,) whom to rank among.
        groups: of scores.
    """
    values = better.round(6)
    ranked = better > worst
    ranks = np.where(np.isnan(better), np.nan, 0.0)
    scores = np.ones(len(better), np.int64)
    if ranked.any():
        among = np.sort(values[ranked & usual] if (ranked & usual).any() else values[ranked])
        # whole numbers: a rank that ends a group must not be rounded into the next one
        twice = np.searchsorted(among, values[ranked], "left") + np.searchsorted(among, values[ranked], "right")
        ranks[ranked] = twice / (2 * len(among))
        scores[ranked] = np.maximum(-(-groups * twice // (2 * len(among))), 1)
    return ranks, pa.array(scores, mask=np.isnan(better))


def _weighted_mean(ranks: dict[str, NDArray[np.float64]], weights: dict[str, float], users: int) -> NDArray[np.float64]:
    """(users,) means 0..100, to six decimals, of the ranks that a user has; nan where none of them has a weight."""
    total = np.zeros(users)
    weight = np.zeros(users)
    for part, share in weights.items():
        known = ~np.isnan(ranks[part])
        total[known] += share * ranks[part][known]
        weight[known] += share
    mean: NDArray[np.float64] = np.divide(100 * total, weight, out=np.full(users, np.nan), where=weight > 0)
    return mean.round(6)
