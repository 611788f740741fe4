"""User churn: how many users change segment when a model is trained again on 90% of the sessions.

python -m benchmarks.churn [--sessions N] [--seeds N] [--json]

Generated sessions, on which a first model is trained and published. Then, ten times, 90% of the sessions are drawn, a
model is trained on them with the published one as the one before, and the users in both results are compared. Two
columns of the default: with the rule that keeps a model unless the new one is better, and without. Beside it the
textbook recipe: with ids carried over and names by the taxonomy in the same way, and raw, as it is mostly written
(TfidfVectorizer, KMeans, the number of the cluster is the segment).

``next day`` is one retraining on the sessions up to the last day after one on those before it.
"""

import argparse
import json
import time
from collections import Counter
from datetime import timedelta
from statistics import fmean, median

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from sklearn.cluster import KMeans
from sklearn.feature_extraction.text import TfidfVectorizer

from benchmarks.generated import END, sessions_of
from segmentation_assets.core.churn import Churn
from segmentation_assets.core.generate import generate_sessions
from segmentation_assets.core.labels import LabeledSegments, label, shipped_taxonomy
from segmentation_assets.core.model import ClusterModel
from segmentation_assets.core.retrain import made_with, retrain, with_churn
from segmentation_assets.core.sessions import Intake, Sessions
from segmentation_assets.core.settings import Settings
from segmentation_assets.core.vectorize import vectorize

RETRAININGS = 10
SHARE = 0.9
TEXTBOOK = "kmeans"

Result = tuple[LabeledSegments, ClusterModel]


def main() -> None:
    """Print a Markdown table, or one JSON list."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sessions", type=int, default=20_000)
    parser.add_argument("--seeds", type=int, default=1, help="logs to generate, from seed 1 on")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    default = Settings().clusters.method
    rows = []
    for seed in range(1, options.seeds + 1):
        sessions = _generated(options.sessions, seed)
        for method, rule in ((default, "better"), (default, "always"), (TEXTBOOK, "better"), (TEXTBOOK, "always")):
            rows.append(_measure(sessions, seed, method, rule))
        rows.append(_measure_raw(sessions, seed))
    if options.json:
        print(json.dumps(rows, indent=2))
        return
    print(
        "| sessions, seed | method | retrain | user churn: median | max | by the model: median | max | replaced | "
        "next day | CPU s each |\n|---|---|---|---|---|---|---|---|---|---|"
    )
    for row in rows:
        numbers = [row[name] for name in ("churn_median", "churn_max", "model_median", "model_max")]
        shown = ["" if value is None else f"{value:.1%}" for value in [*numbers, row["next_day"]]]
        print(
            f"| {row['sessions']:,}, {row['seed']} | {row['method']} | {row['retrain']} | "
            f"{' | '.join(shown[:4])} | {row['replaced']} of {RETRAININGS} | {shown[4]} | {row['cpu_seconds']:.2f} |"
        )


def _generated(n: int, seed: int) -> Sessions:
    return sessions_of(generate_sessions(n, seed, END).documents)


def _samples(sessions: Sessions) -> list[Sessions]:
    chance = np.random.default_rng(0)
    rows = [
        np.sort(chance.choice(len(sessions), int(len(sessions) * SHARE), replace=False)) for _ in range(RETRAININGS)
    ]
    return [_of(sessions.table.take(pa.array(chosen))) for chosen in rows]


def _before_the_last_day(sessions: Sessions) -> Sessions:
    yesterday = pa.scalar(END - timedelta(days=1), sessions.table.schema.field("timestamp").type)
    return _of(sessions.table.filter(pc.less(sessions.table["timestamp"], yesterday)))


def _of(table: pa.Table) -> Sessions:
    return Sessions(table, Intake(table.num_rows, table.num_rows))


def _measure(sessions: Sessions, seed: int, method: str, rule: str) -> dict[str, object]:
    # Without a share of new sessions to wait for: every retraining is to be one.
    settings = Settings.model_validate({"clusters": {"method": method, "retrain": rule, "refit_share": 0}})

    def run(chosen: Sessions, served: Result | None = None) -> Result:
        tfidf = vectorize(chosen.table["search_query"], settings.vectors)
        model = retrain(tfidf, chosen.user_numbers(), settings.clusters, served[1] if served else None)
        taxonomy = shipped_taxonomy()
        labeled = label(chosen, tfidf, model, taxonomy, settings.labels)
        return with_churn(labeled, served, made_with(model, settings.labels, taxonomy)), model

    first = run(sessions)
    started = time.process_time()
    again = [run(sample, first) for sample in _samples(sessions)]
    seconds = (time.process_time() - started) / RETRAININGS
    tomorrow = run(sessions, run(_before_the_last_day(sessions)))
    churns = [_churn(labeled) for labeled, _ in again]
    return {
        "sessions": len(sessions),
        "seed": seed,
        "method": method,
        "retrain": rule,
        "churn_median": median(churn.changed_share for churn in churns),
        "churn_max": max(churn.changed_share for churn in churns),
        "churn_mean": fmean(churn.changed_share for churn in churns),
        "model_median": median(churn.model_share for churn in churns),
        "model_max": max(churn.model_share for churn in churns),
        "replaced": sum(model.version != first[1].version for _, model in again),
        "gains": [model.decision.gain for _, model in again if model.decision],
        "next_day": _churn(tomorrow[0]).changed_share,
        "cpu_seconds": seconds,
    }


def _measure_raw(sessions: Sessions, seed: int) -> dict[str, object]:
    """The recipe as it is mostly written: the number of a user's most frequent cluster is their segment."""
    before = _raw(sessions)
    started = time.process_time()
    again = [_raw(sample) for sample in _samples(sessions)]
    seconds = (time.process_time() - started) / RETRAININGS
    churns = [_changed(before, now) for now in again]
    return {
        "sessions": len(sessions),
        "seed": seed,
        "method": f"{TEXTBOOK}, raw",
        "retrain": "always",
        "churn_median": median(churns),
        "churn_max": max(churns),
        "churn_mean": fmean(churns),
        "model_median": None,
        "model_max": None,
        "replaced": RETRAININGS,
        "gains": [],
        "next_day": _changed(_raw(_before_the_last_day(sessions)), before),
        "cpu_seconds": seconds,
    }


def _raw(sessions: Sessions) -> dict[str, int]:
    chosen = Settings().clusters
    rows = TfidfVectorizer(stop_words="english").fit_transform(sessions.table["search_query"].to_pylist())
    k = chosen.k if isinstance(chosen.k, int) else 5
    labels = KMeans(n_clusters=k, n_init=chosen.n_init, random_state=chosen.seed).fit_predict(rows)
    counts: dict[str, Counter[int]] = {}
    for user, cluster in zip(sessions.table["user_id"].to_pylist(), labels.tolist(), strict=True):
        counts.setdefault(user, Counter())[cluster] += 1
    return {user: min(found, key=lambda cluster: (-found[cluster], cluster)) for user, found in counts.items()}


def _changed(old: dict[str, int], new: dict[str, int]) -> float:
    return fmean(old[user] != new[user] for user in old.keys() & new.keys())


def _churn(labeled: LabeledSegments) -> Churn:
    assert labeled.churn is not None
    return labeled.churn


if __name__ == "__main__":
    main()
