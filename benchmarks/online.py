"""How fast clusters can follow a stream: points learned a second, and how well, beside river and scikit-learn.

python -m benchmarks.online [--points 50000] [--slow-points 2000] [--features 20] [--runs 3] [--json]

All learn the same points, of ten crowds that overlap a little and wander, in one process on one core, after the same
first points, which are not counted. Ours and scikit-learn's take batches of 1,000; river's take one point at a time, of
the first of them only, since they are slow. CluStream has 100 micro-clusters in both. HDBSCAN's rate is that between
two looks at its window; what a look takes stands beside it. The rate is that of the fastest run.

The adjusted Rand index is of the clusters at the end on the last 2,000 points that each has learned.
"""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import adjusted_rand_score
from threadpoolctl import threadpool_limits

from segmentation_assets.core.live.online import METHODS, OnlineSettings
from segmentation_assets.core.live.online.hdbscan import OnlineHdbscan
from segmentation_assets.core.users.clustering import assign

CROWDS = 10
BATCH = 1_000
FIRST = 1_000
JUDGED = 2_000
MICRO = 100
BEGAN = 1_700_000_000_000
PEER = "river CluStream"

Labels = Callable[[NDArray[np.float64]], NDArray[np.int32]]
Work = tuple[float, Labels]


@dataclass(frozen=True)
class Row:
    """One clusterer.

    Attributes:
        name: whose, and which.
        points: how many were counted.
        rate: points a second.
        agreement: adjusted Rand index.
    """

    name: str
    points: int
    rate: float
    agreement: float


def main() -> None:
    """Print a table, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=50_000)
    parser.add_argument("--slow-points", type=int, default=2_000, help="of those that take one point at a time")
    parser.add_argument("--features", type=int, default=20)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows, truth = crowds(FIRST + options.points, options.features)
    slow = min(options.slow_points, options.points)
    plans: list[tuple[str, int, Callable[[NDArray[np.float64]], Work]]] = [
        ("kmeans", options.points, partial(ours, "kmeans")),
        ("clustream", options.points, partial(ours, "clustream")),
        ("denstream", options.points, partial(ours, "denstream")),
        ("dbstream", slow, partial(ours, "dbstream")),
        ("hdbscan", options.points, partial(ours, "hdbscan")),
        (PEER, slow, river_clustream),
        ("river STREAMKMeans", options.points, river_streamkmeans),
        ("scikit-learn MiniBatchKMeans", options.points, minibatch),
    ]
    found: list[Row] = []
    with threadpool_limits(1):
        for name, points, work in plans:
            part, best, agreement = rows[: FIRST + points], np.inf, 0.0
            for _ in range(options.runs):
                seconds, labels = work(part)
                best = min(best, seconds)
                last = slice(max(len(part) - JUDGED, 0), len(part))
                agreement = float(adjusted_rand_score(truth[last], labels(part[last])))
            found.append(Row(name, points, points / best, agreement))
        look = look_seconds(rows)
    if options.json:
        print(json.dumps({"rows": [asdict(row) for row in found], "look_seconds": look}, indent=2))
        return
    peer = next(row.rate for row in found if row.name == PEER)
    print(f"{options.features} features, {CROWDS} crowds, {MICRO} micro-clusters, fastest of {options.runs} runs")
    print(f"{'clusterer':<30}{'points':>9}{'points/s':>12}{f'x {PEER}':>20}{'agreement':>12}")
    for row in found:
        print(f"{row.name:<30}{row.points:>9,}{row.rate:>12,.0f}{row.rate / peer:>20,.1f}{row.agreement:>12.2f}")
    print(f"hdbscan, one look at a window of {OnlineSettings().window:,} points: {look:.2f} s")


def crowds(n: int, d: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """(n, d) rows, about as wide as standardised features, and the crowd of each; every crowd wanders by its width."""
    chance = np.random.default_rng(0)
    truth = chance.integers(CROWDS, size=n)
    centers, ways = chance.standard_normal((2, CROWDS, d))
    wander = np.linspace(0, 1, n)[:, None] * 0.4 * ways[truth]
    return centers[truth] + wander + 0.4 * chance.standard_normal((n, d)), truth


def ours(name: str, rows: NDArray[np.float64]) -> Work:
    """Seconds for all but the first points, and the rule by which rows are assigned."""
    settings = OnlineSettings(k=CROWDS, micro_clusters=MICRO, half_life=10.0, horizon=20.0, recluster_every=10**9)
    at = BEGAN + np.arange(len(rows), dtype=np.int64)
    one = METHODS[name](settings, None, rows.shape[1])
    one.learn(rows[:FIRST], at[:FIRST])
    began = time.perf_counter()
    for start in range(FIRST, len(rows), BATCH):
        one.learn(rows[start : start + BATCH], at[start : start + BATCH])
    seconds = time.perf_counter() - began
    if isinstance(one, OnlineHdbscan):
        one.recluster()

    def labels(part: NDArray[np.float64]) -> NDArray[np.int32]:
        now = one.clusters()
        return assign(part, now.points, now.point_ids, now.reach)[0]

    return seconds, labels


def look_seconds(rows: NDArray[np.float64]) -> float:
    """Of one run of HDBSCAN on a full window."""
    one = OnlineHdbscan(OnlineSettings(recluster_every=10**9), None, rows.shape[1])
    one.learn(rows, np.arange(len(rows), dtype=np.int64))
    began = time.perf_counter()
    one.recluster()
    return time.perf_counter() - began


def river_clustream(rows: NDArray[np.float64]) -> Work:
    """river's CluStream, one point at a time."""
    from river.cluster import CluStream

    model = CluStream(
        n_macro_clusters=CROWDS, max_micro_clusters=MICRO, micro_cluster_r_factor=2, time_window=20_000, seed=0
    )
    return _river(model, rows)


def river_streamkmeans(rows: NDArray[np.float64]) -> Work:
    """river's STREAMKMeans, one point at a time."""
    from river.cluster import STREAMKMeans

    return _river(STREAMKMeans(chunk_size=100, n_clusters=CROWDS, halflife=0.5, sigma=1.0, seed=0), rows)


def _river(model: object, rows: NDArray[np.float64]) -> Work:
    points = [dict(enumerate(row)) for row in rows.tolist()]
    learn, predict = model.learn_one, model.predict_one  # type: ignore[attr-defined]
    for point in points[:FIRST]:
        learn(point)
    began = time.perf_counter()
    for point in points[FIRST:]:
        learn(point)
    seconds = time.perf_counter() - began

    def labels(part: NDArray[np.float64]) -> NDArray[np.int32]:
        return np.array([predict(dict(enumerate(row))) for row in part.tolist()], np.int32)

    return seconds, labels


def minibatch(rows: NDArray[np.float64]) -> Work:
    """scikit-learn's MiniBatchKMeans.partial_fit, which does not forget."""
    from sklearn.cluster import MiniBatchKMeans

    model = MiniBatchKMeans(n_clusters=CROWDS, random_state=0, n_init=3).partial_fit(rows[:FIRST])
    began = time.perf_counter()
    for start in range(FIRST, len(rows), BATCH):
        model.partial_fit(rows[start : start + BATCH])
    seconds = time.perf_counter() - began

    def labels(part: NDArray[np.float64]) -> NDArray[np.int32]:
        return np.asarray(model.predict(part), np.int32)

    return seconds, labels


if __name__ == "__main__":
    main()
