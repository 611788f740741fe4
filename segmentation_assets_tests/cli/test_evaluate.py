"""``segments evaluate``: what it measures, what it prints, how it ends. No test here starts an Elasticsearch."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from segmentation_assets.cli.evaluate import (
    JOINED,
    Row,
    default_method,
    measure,
    measure_all,
    plan,
    read_labelled,
)
from segmentation_assets.core.clustering import METHODS, available
from segmentation_assets.core.evaluation import (
    QUERIES_PER_USER,
    LabelledFileError,
    agreement,
    segment,
    session_case,
    session_clusters,
)
from segmentation_assets.core.model import TooFewQueriesError
from segmentation_assets.core.settings import ClusterSettings, VectorSettings

REAL = Path(__file__).parents[3] / "shared" / "data"
LABEL_NUMBERS = {"label_acc", "label_coverage", "label_top1", "label_top5", "label_diversity"}


def write_texts(path: Path, classes: int = 3, each: int = 30) -> Path:
    """Texts of classes that share no word, named by a word that all of their texts hold."""
    rng = random.Random(3)
    names = ["lamp", "carpet", "mirror", "basket", "ladder"][:classes]
    lines = [
        f"{name.title()}\t{name} {' '.join(rng.choice('abcdefgh') * 3 + name[:2] for _ in range(3))}"
        for name in names
        for _ in range(each)
    ]
    rng.shuffle(lines)
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    return write_texts(tmp_path / "texts.tsv")


def test_json_is_a_list_of_a_row_for_each_method_and_nothing_else(segments: Any, texts: Path) -> None:
    """Programs rely on these names and types."""
    done = segments("evaluate", texts, "--seeds", "2", "--json")
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert [row["method"] for row in rows if row["default"]] == [default_method()]
    assert {"kmeans", default_method()} <= {row["method"] for row in rows} <= set(METHODS)
    assert len({row["method"] for row in rows}) == len(rows)
    for row in rows:
        assert (row["file"], row["level"], row["k"], row["seeds"], row["members"]) == (str(texts), "session", 3, 2, 90)
        assert isinstance(row["default"], bool)
        for name in ("acc", "nmi", "ari", *LABEL_NUMBERS):
            assert isinstance(row[name], float)
            assert -100 <= row[name] <= 100
        assert row["acc_min"] <= row["acc"] <= row["acc_max"]
        assert row["cpu_seconds"] > 0
        assert row["peak_mb"] >= 0
        assert row["sizes"] == sorted(row["sizes"], reverse=True)
        assert sum(row["sizes"]) == 90
    assert next(row for row in rows if row["method"] == default_method())["acc"] == 100


def test_it_starts_no_elasticsearch_and_leaves_nothing_behind(segments: Any, texts: Path) -> None:
    segments.ok("evaluate", texts, "--seeds", "1", "--method", "kmeans")
    assert not segments.data.root.exists()
    assert segments.processes() == []


def test_people_see_tables_that_fit_a_terminal(segments: Any, texts: Path) -> None:
    segments.environment["COLUMNS"] = "80"
    done = segments("evaluate", texts, "--seeds", "1", "--method", "kmeans", "--users")
    assert done.returncode == 0, done.stderr
    assert "texts.tsv: 90 sessions, k=3" in done.stdout
    assert "users of 5 queries" in done.stdout
    assert JOINED in done.stdout
    for head in ("acc", "min..max", "NMI", "ARI", "CPU s", "name 1st", "different"):
        assert f" {head} " in done.stdout, "whole, not cut off"
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_user_level_adds_the_textbook_recipe_on_joined_queries(texts: Path) -> None:
    tasks = plan({"texts": read_labelled(texts)}, ["spherical"], [None, *QUERIES_PER_USER], k=None, seeds=1)
    rows = [vars(measure(task)) for task in tasks]
    levels = [f"users_{queries}" for queries in QUERIES_PER_USER]
    assert [(row["level"], row["method"]) for row in rows] == [
        ("session", "spherical"),
        *((level, method) for level in levels for method in ("spherical", JOINED)),
    ]
    for row in rows[1:]:
        assert {row[name] for name in LABEL_NUMBERS} == {None}
        assert row["default"] is (row["method"] == default_method())
    assert [row["members"] for row in rows[1::2]] == [90, 30, 18, 15]  # ten queries: five users a class at least


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"lamp\tred lamp\nno tab\n", "line 2: there is no tab."),
        (b"lamp\tred lamp\n\tgreen\n", "line 2: the label is empty."),
        (b"lamp\tred lamp\nrug\t\n", "line 2: the text is empty."),
        (b"lamp\tred lamp\nrug\t\xff\n", "line 2: it is not UTF-8."),
        (b"lamp\tred lamp\n", "1 different labels."),
        (None, "cannot be read: No such file or directory."),
    ],
)
def test_a_mistake_in_a_file_is_one_error_with_its_cure(tmp_path: Path, content: bytes | None, problem: str) -> None:
    path = tmp_path / "wrong.tsv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(LabelledFileError) as caught:
        read_labelled(path)
    assert str(path) in caught.value.problem
    assert problem in caught.value.problem
    assert caught.value.cure


def test_every_file_is_read_before_anything_is_measured(segments: Any, texts: Path, tmp_path: Path) -> None:
    done = segments("evaluate", texts, tmp_path / "absent.tsv", "--json")
    assert done.returncode == 1
    assert "absent.tsv cannot be read" in done.stderr
    assert "What to do:" in done.stderr
    assert json.loads(done.stdout)["error"]["type"] == "LabelledFileError"


def test_an_unknown_method_is_refused_with_the_known_ones(segments: Any, texts: Path) -> None:
    done = segments("evaluate", texts, "--method", "magic")
    assert done.returncode == 2
    assert "magic" in done.stderr
    assert "kmeans" in done.stderr


def test_more_clusters_than_texts_is_said_not_shown_as_a_result(segments: Any, texts: Path) -> None:
    done = segments("evaluate", texts, "--k", "95", "--method", "kmeans", "--json")
    assert done.returncode == 1
    assert "95 different queries are needed" in done.stderr
    assert "error" in json.loads(done.stdout)


def test_a_method_that_cannot_run_is_left_out_and_said_unless_it_was_asked_for(
    texts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {"texts": read_labelled(texts)}
    possible = plan(files, ["kmeans"], [None], k=3, seeds=1)
    impossible = plan(files, ["spherical"], [None], k=95, seeds=1)
    seen: list[tuple[int, int | None]] = []
    rows = measure_all([*impossible, *possible], required=set(), on_progress=lambda n, total: seen.append((n, total)))
    assert [row.method for row in rows] == ["kmeans"]
    assert "spherical is left out of texts, session: 95 different queries" in capsys.readouterr().err
    assert seen == [(0, 2), (1, 2), (2, 2)]
    with pytest.raises(TooFewQueriesError) as caught:
        measure_all(impossible, required={"spherical"}, on_progress=lambda n, total: None)
    assert caught.value.cure, "problem and cure come whole out of the other process"


def test_k_is_the_number_of_labels_of_each_file_unless_told(texts: Path, tmp_path: Path) -> None:
    files = {"three": read_labelled(texts), "five": read_labelled(write_texts(tmp_path / "five.tsv", 5))}
    assert [task.k for task in plan(files, ["kmeans"], [None], k=None, seeds=1)] == [3, 5]
    assert [task.k for task in plan(files, ["kmeans"], [None], k=4, seeds=1)] == [4, 4]
    assert {task.method for task in plan(files, [], [None], k=None, seeds=1)} == set(available())


def without_costs(row: Row) -> dict[str, Any]:
    return {name: value for name, value in vars(row).items() if name not in ("cpu_seconds", "peak_mb")}


def test_measuring_again_gives_the_same_numbers(texts: Path) -> None:
    for level in (None, 3):
        (task, *_) = plan({"texts": read_labelled(texts)}, ["kmeans"], [level], k=None, seeds=2)
        assert without_costs(measure(task)) == without_costs(measure(task))


def test_each_seed_is_clustered_and_the_row_tells_mean_and_spread(tmp_path: Path) -> None:
    rng = random.Random(8)
    words = [f"word{i}" for i in range(40)]
    path = tmp_path / "noise.tsv"
    path.write_text(
        "".join(f"{c}\t{words[c]} {' '.join(rng.choices(words, k=4))}\n" for c in range(5) for _ in "x" * 30)
    )
    data = read_labelled(path)
    (task,) = plan({"noise": data}, ["kmeans"], [None], k=None, seeds=4)
    row = measure(task)
    found = []
    for seed in range(4):
        clusters = ClusterSettings(method="kmeans", k=5, seed=seed)
        of_session, _ = session_clusters(*segment(session_case(data), VectorSettings(), clusters))
        found.append(100 * agreement(data.truth, of_session).accuracy)
    assert min(found) < max(found)
    assert (row.acc_min, row.acc_max) == (pytest.approx(min(found), abs=0.01), pytest.approx(max(found), abs=0.01))
    assert row.acc == pytest.approx(sum(found) / 4, abs=0.01)


def test_what_is_measured_ends_with_the_command(segments: Any, tmp_path: Path) -> None:
    """Ctrl-C: at once, without a traceback, without a process left."""
    path = write_texts(tmp_path / "long.tsv", 5, 20_000)
    process = segments.start(
        "evaluate", path, "--seeds", "5000", "--method", "kmeans", stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    child = measuring(process)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all of them
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert out == ""
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


@pytest.mark.skipif(sys.platform != "linux", reason="exit codes of killed processes are compared as Linux gives them")
def test_a_measurement_that_is_killed_is_one_error_with_its_cure(segments: Any, tmp_path: Path) -> None:
    """As the kernel does when memory runs out."""
    path = write_texts(tmp_path / "long.tsv", 5, 20_000)
    process = segments.start(
        "evaluate", path, "--seeds", "5000", "--method", "kmeans", "--json",
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    measuring(process).kill()
    out, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "ended without a result (exit code -9)" in err
    assert "memory ran out" in err
    assert "Traceback" not in err
    assert json.loads(out)["error"]["type"] == "EvaluationError"


def measuring(process: subprocess.Popen[str]) -> psutil.Process:
    """The process that measures, once it does."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        for child in psutil.Process(process.pid).children():
            # The other child is multiprocessing's own; this one has begun to cluster when it has used some seconds.
            if "spawn_main" in " ".join(child.cmdline()) and child.cpu_times().user > 4:
                return child
        assert process.poll() is None
        time.sleep(0.1)
    raise AssertionError("nothing was measured")


def test_real_queries_of_a_furniture_shop_are_compared_with_what_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    """The textbook recipe on WANDS: 54 accuracy and 67 NMI were measured elsewhere, with other code."""
    path = REAL / "wands_ge5.tsv"
    if not path.is_file():
        pytest.skip(f"{path} is not here: it is not part of the repository")
    (task,) = plan({"wands": read_labelled(path)}, ["kmeans"], [None], k=None, seeds=2)
    row = measure(task)
    assert (row.members, row.k) == (227, 28)
    assert 40 < row.acc < 75
    assert 55 < row.nmi < 85
    assert row.label_coverage is not None
    assert row.label_coverage > 50
