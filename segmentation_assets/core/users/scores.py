"""RFM scores and the loyalty index.

What belongs here: scores made of recency, frequency and monetary value. What does not: those three (features).
"""

from dataclasses import dataclass

import pyarrow as pa

SCORES_SCHEMA = pa.schema(
    [
        ("user_id", pa.string()),
        ("recency_score", pa.int64()),  # 1 (long ago) .. groups (just now)
        ("frequency_score", pa.int64()),
        ("monetary_score", pa.int64()),  # null where no purchase was ever recorded
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
        absent: score to why it is left out; its weight is shared out among the others.
        weights: of R, F and M in the loyalty index as they were used, summing to 1.
        frequency: the feature that frequency was taken from ('purchases', or 'sessions' where nothing was bought).
    """

    table: pa.Table
    absent: dict[str, str]
    weights: dict[str, float]
    frequency: str
