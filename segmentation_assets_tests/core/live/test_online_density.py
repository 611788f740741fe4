"""DenStream, DBSTREAM and HDBSCAN on a stream: what is each one's own."""

import subprocess
import sys

import numpy as np
import pytest

from segmentation_assets.core.live.online import OnlineClusters, OnlineSettings
from segmentation_assets.core.live.online.dbstream import DbStream
from segmentation_assets.core.live.online.denstream import DenStream
from segmentation_assets.core.live.online.hdbscan import OnlineHdbscan
from segmentation_assets.core.settings import BehaviourSettings
from segmentation_assets.core.users.clustering import METHODS, assign

BEGAN = 1_700_000_000_000


def crowd(n: int, center: list[float], seed: int = 0, spread: float = 0.3) -> np.ndarray:
    return np.array(center) + spread * np.random.default_rng(seed).standard_normal((n, len(center)))


def mixed(*parts: np.ndarray) -> np.ndarray:
    rows = np.concatenate(parts)
    return rows[np.random.default_rng(9).permutation(len(rows))]


def at(n: int, start: float = 0.0, rate: float = 100.0) -> np.ndarray:
    return BEGAN + ((start + np.arange(n) / rate) * 1_000).astype(np.int64)


def of(found: OnlineClusters, rows: list[list[float]]) -> list[int]:
    return assign(np.array(rows), found.points, found.point_ids, found.reach)[0].tolist()


DENSITY = OnlineSettings(
    start_points=100, macro_every=200, radius=0.8, core_weight=8, potential_share=0.5, shared_share=0.03
)


@pytest.mark.parametrize(("method", "radius"), [(DenStream, 0.3), (DbStream, 0.8)])
def test_a_crowd_of_another_shape_is_one_cluster(method: type[DenStream | DbStream], radius: float) -> None:
    chance = np.random.default_rng(0)
    angle = chance.uniform(0, 2 * np.pi, 2_000)
    ring = 6 * np.column_stack((np.cos(angle), np.sin(angle))) + 0.4 * chance.standard_normal((2_000, 2))
    rows = mixed(ring, crowd(600, [0.0, 0.0]))
    one = method(DENSITY.model_copy(update={"radius": radius}), None, 2)
    one.learn(rows, at(len(rows)))
    found = one.clusters()
    assert len(found.ids) == 2
    middle, right, left = of(found, [[0, 0], [6, 0], [-6, 0]])
    assert right == left != middle
    assert of(found, [[3, 0]]) == [-1]


@pytest.mark.parametrize("method", [DenStream, DbStream])
def test_far_from_the_origin_is_as_at_the_origin(method: type[DenStream | DbStream]) -> None:
    rows = mixed(crowd(500, [0.0, 0.0, 0.0]), crowd(500, [5.0, 5.0, 5.0], 1))
    found = []
    for offset in (0.0, 1_000.0):
        one = method(DENSITY, None, 3)
        one.learn(rows + offset, at(1_000))
        now = one.clusters()
        assert len(now.ids) == 2
        found.append(assign(rows + offset, now.points, now.point_ids, now.reach)[0])
    assert np.mean(found[0] == found[1]) > 0.99


def test_a_micro_cluster_of_denstream_is_no_wider_than_the_radius() -> None:
    chance = np.random.default_rng(2)
    rows = chance.uniform(0, 6, (3_000, 2))
    one = DenStream(DENSITY.model_copy(update={"half_life": 1e9}), None, 2)
    one.learn(rows, at(3_000))
    kept = one.snapshot()
    used = int(kept["used_0"])
    weight, total, squares = (np.asarray(kept[f"{name}_0"], np.float64)[:used] for name in ("weight", "sum", "squares"))
    spread = squares / weight - ((total / weight[:, None]) ** 2).sum(axis=1)
    assert used > 5
    assert spread.max() <= 0.8**2 + 1e-9


def test_denstream_forgets_with_time_and_not_with_points() -> None:
    rows = mixed(crowd(300, [0.0, 0.0]), crowd(300, [9.0, 0.0], 1))
    short = DENSITY.model_copy(update={"half_life": 20.0, "macro_every": 50})
    one = DenStream(short, None, 2)
    one.learn(rows, at(600))
    one.learn(crowd(100, [0.0, 0.0], 3), at(100, 7))  # a second later both are there
    assert len(one.clusters().ids) == 2
    one.learn(crowd(100, [0.0, 0.0], 4), at(100, 300))  # fifteen half-lives later
    assert of(one.clusters(), [[9.0, 0.0]]) == [-1]


def test_denstream_keeps_no_more_micro_clusters_than_it_may() -> None:
    one = DenStream(DENSITY.model_copy(update={"micro_clusters": 10, "radius": 0.01}), None, 2)
    one.learn(crowd(3_000, [0.0, 0.0], spread=50.0), at(3_000))
    kept = one.snapshot()
    assert int(kept["used_1"]) == 10
    assert len(np.asarray(kept["sum_1"])) == 10


def test_what_dbstream_keeps_does_not_grow() -> None:
    settings = DENSITY.model_copy(update={"half_life_points": 500.0, "radius": 0.5})
    one = DbStream(settings, None, 2)
    sizes = []
    for step in range(8):
        one.learn(crowd(1_000, [2.0 * step, 0.0], step), at(1_000, step * 10))
        sizes.append(sum(part.nbytes for part in one.snapshot().values()))
    assert max(sizes[4:]) < 2 * max(sizes[:4])


def test_without_river_dbstream_says_which_extra_it_needs() -> None:
    code = (
        "import sys; sys.modules['river'] = sys.modules['river.cluster'] = None\n"
        "from segmentation_assets.core.live.online import METHODS, OnlineSettings\n"
        "for name in ('kmeans', 'clustream', 'denstream', 'hdbscan'): METHODS[name](OnlineSettings(), None, 2)\n"
        "METHODS['dbstream'](OnlineSettings(), None, 2)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "StreamExtraMissingError: The online method 'dbstream' needs the extra [stream]." in done.stderr


def test_river_is_not_loaded_unless_it_is_chosen() -> None:
    code = (
        "import sys; from segmentation_assets.core.live.online import METHODS, OnlineSettings\n"
        "METHODS['clustream'](OnlineSettings(), None, 2); assert not {'river', 'sklearn'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


BATCH = BehaviourSettings(method="hdbscan", min_samples=5, min_cluster_size=15)
LOOKS = OnlineSettings(window=400, recluster_every=400, min_samples=5, min_cluster_size=15)


def hdbscan_seed(rows: np.ndarray) -> OnlineClusters:
    found = METHODS["hdbscan"].fit(rows, BATCH)
    return OnlineClusters(found.points, found.point_labels, found.reach)


def test_hdbscan_assigns_as_the_batch_did_until_it_looks_again() -> None:
    rows = mixed(crowd(200, [0.0, 0.0]), crowd(150, [6.0, 0.0], 1))
    seed = hdbscan_seed(rows)
    one = OnlineHdbscan(LOOKS, seed, 2)
    one.learn(crowd(399, [3.0, 9.0], 5), at(399))
    others = np.random.default_rng(0).uniform(-2, 9, (200, 2))
    assert of(one.clusters(), others.tolist()) == of(seed, others.tolist())
    one.learn(crowd(1, [3.0, 9.0], 6), at(1))
    assert of(one.clusters(), [[3.0, 9.0]]) != [-1] == of(seed, [[3.0, 9.0]])


def test_clusters_of_hdbscan_that_have_grown_together_are_one_and_it_says_so() -> None:
    """Two crowds, and later many rows between them too."""
    two = mixed(crowd(600, [0.0, 0.0], 0, 0.5), crowd(150, [5.0, 0.0], 1, 0.5), crowd(150, [0.0, 9.0], 2, 0.5))
    seed = hdbscan_seed(two)
    large, small, other = of(seed, [[0.0, 0.0], [5.0, 0.0], [0.0, 9.0]])
    assert len({large, small, other} - {-1}) == 3
    one = OnlineHdbscan(LOOKS.model_copy(update={"window": 4_000, "recluster_every": 5_000}), seed, 2)
    between = np.column_stack((np.random.default_rng(4).uniform(-1, 6, 2_500), np.zeros(2_500)))
    between[:, 1] = 0.5 * np.random.default_rng(5).standard_normal(2_500)
    one.learn(mixed(between, crowd(200, [0.0, 9.0], 6, 0.5)), at(2_700))
    merged = one.recluster()
    found = one.clusters()
    assert of(found, [[0.0, 0.0], [2.5, 0.0], [5.0, 0.0]]) == [large] * 3
    assert of(found, [[0.0, 9.0]]) == [other]
    assert merged == {small: large}
    assert found.merged == {small: large}
    assert OnlineHdbscan.restore(one.snapshot(), LOOKS).clusters().merged == {small: large}


def test_hdbscan_that_finds_nothing_keeps_what_it_had() -> None:
    seed = hdbscan_seed(mixed(crowd(200, [0.0, 0.0]), crowd(150, [6.0, 0.0], 1)))
    one = OnlineHdbscan(LOOKS.model_copy(update={"min_cluster_size": 390}), seed, 2)
    one.learn(np.random.default_rng(1).uniform(-50, 50, (400, 2)), at(400))
    assert one.clusters().points.tolist() == seed.points.tolist()


def test_the_sample_of_hdbscan_is_no_larger_than_its_window_and_mostly_recent() -> None:
    one = OnlineHdbscan(LOOKS.model_copy(update={"recluster_every": 10**6}), None, 1)
    for step in range(40):
        one.learn(np.full((100, 1), float(step)), at(100, step))
    rows = np.asarray(one.snapshot()["rows"], np.float64)
    assert rows.shape == (400, 1)
    # a row is still there with probability exp(-age / 400): about nothing of the first half
    assert np.mean(rows[:, 0] >= 30) == pytest.approx(1 - np.exp(-1_000 / 400), abs=0.06)
