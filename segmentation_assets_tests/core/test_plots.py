"""Pictures: a PNG for whatever can occur, and nothing said into the log."""

import warnings
from collections.abc import Iterator
from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure

from segmentation_assets.core import plots
from segmentation_assets.core.choose_k import KChoice
from segmentation_assets.core.churn import Churn, Flow
from segmentation_assets.core.labels import (
    ASSIGNMENT_SCHEMA,
    OTHER,
    ClusterLabel,
    LabeledSegments,
    Taxonomy,
    label,
    summarize,
)
from segmentation_assets.core.model import Change, ClusterModel, fit
from segmentation_assets.core.sessions import Intake, SessionBuilder, Sessions
from segmentation_assets.core.settings import ClusterSettings, LabelSettings, VectorSettings
from segmentation_assets.core.vectorize import TfidfMatrix, vectorize

TAXONOMY = Taxonomy.model_validate({"segments": {"fashion": {"keywords": ["dress"]}, "tech": {"keywords": ["laptop"]}}})
QUERIES = ["red dress", "blue dress", "dress", "laptop", "gaming laptop", "laptop case", "chair", "garden chair"]


@pytest.fixture(autouse=True)
def silence_is_asked_for() -> Iterator[None]:
    """A warning, such as that of a missing glyph, is a failure."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def graph(
    queries: list[str], k: int = 3, method: str = "spherical"
) -> tuple[Sessions, TfidfMatrix, ClusterModel, LabeledSegments]:
    builder = SessionBuilder(datetime(2025, 6, 1, tzinfo=UTC))
    for number, query in enumerate(queries):
        builder.add(f"s{number:03}", {"user_id": number % 8, "search_query": query, "timestamp": "2025-05-01"})
    sessions = builder.finish()
    tfidf = vectorize(sessions.table["search_query"], VectorSettings())
    model = fit(tfidf, sessions.user_numbers(), ClusterSettings(k=k, method=method))
    return sessions, tfidf, model, label(sessions, tfidf, model, TAXONOMY, LabelSettings())


def one_cluster(queries: list[str]) -> tuple[TfidfMatrix, ClusterModel, LabeledSegments]:
    """A model of a single cluster, which ``fit`` never makes, but a plot must not be the one to fail."""
    tfidf = vectorize(pa.array(queries), VectorSettings())
    n, terms = tfidf.matrix.shape
    model = ClusterModel(
        "kmeans", ClusterSettings(), tfidf.settings, tfidf.terms, tfidf.idf, np.empty((terms, 0)), np.empty(0),
        np.ones((1, terms)), np.zeros(1, np.int32), 1, np.zeros(n, np.int32), np.ones(n, np.float32), [len(queries)], 0,
        0.0, None,
        Change(None, [], [0], [], 0.0), "v",
    )  # fmt: skip
    entry = ClusterLabel(0, "fashion", len(queries), 1, 1.0, {}, None, 0.0, {"dress": 0.5}, queries[:1])
    return tfidf, model, LabeledSegments(ASSIGNMENT_SCHEMA.empty_table(), [entry], "v", 0, Intake(0, 0))


def draw_all(sessions: Sessions, tfidf: TfidfMatrix, model: ClusterModel, labeled: LabeledSegments) -> list[bytes]:
    return [
        plots.segment_sizes(summarize(labeled)),
        plots.query_map(tfidf, model, labeled, 1),
        plots.cluster_terms(labeled),
        plots.vocabulary(tfidf),
        plots.sessions_over_time(sessions.table["timestamp"].to_pandas()),
    ]


def is_picture(png: bytes) -> bool:
    return png.startswith(b"\x89PNG\r\n\x1a\n") and len(png) > 1000


@pytest.mark.parametrize("method", ["lsa", "spherical", "kmeans"])
def test_every_picture_of_a_run_is_a_png(method: str) -> None:
    assert all(map(is_picture, draw_all(*graph(QUERIES * 5, method=method))))


AWKWARD = {
    "dollars": ["$100 dress", "under$50 and$60 laptop", "a$$ap$ chair$"],
    "backslashes": [r"\frac{1}{2} dress", r"laptop\$", r"chair $\alpha$"],
    "very long": ["w" * 500, "m" * 400 + " laptop", " ".join(["interminablylongcompoundword"] * 15)],
    "Chinese": ["遊戲鍵盤", "紅色連衣裙", "花園椅子 garden"],
    "other scripts": ["لوحة مفاتيح", "कीबोर्ड", "คีย์บอร์ด แดง", "клавиатура"],
    "emoji": ["dress 👗👠", "laptop 💻🎮", "chair 🪑🪴"],
    "private and unassigned": ["dress \ue000\ue001", "laptop \U0010ffff", "𝔤𝔞𝔪𝔦𝔫𝔤 chair"],
}


@pytest.mark.parametrize("what", AWKWARD)
def test_whatever_people_type_is_drawn_without_a_warning(what: str) -> None:
    assert all(map(is_picture, draw_all(*graph(AWKWARD[what] * 2))))


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
@settings(deadline=None, max_examples=15)
def test_any_text_can_be_a_label(text: str) -> None:
    entry = ClusterLabel(0, "tech", 3, 1, 1.0, {}, None, 0.0, {text: 0.5, "laptop": 0.2}, [text])
    labeled = LabeledSegments(ASSIGNMENT_SCHEMA.empty_table(), [entry], "v", 0, Intake(0, 0))
    assert is_picture(plots.cluster_terms(labeled))


def test_a_dollar_is_shown_as_a_dollar_and_a_long_term_is_cut(drawn: list[Figure]) -> None:
    entry = ClusterLabel(0, "tech", 3, 1, 1.0, {}, None, 0.0, {"$a$b": 0.5, "w" * 99: 0.2, "鍵": 0.1}, [])
    plots.cluster_terms(LabeledSegments(ASSIGNMENT_SCHEMA.empty_table(), [entry], "v", 0, Intake(0, 0)))
    shown = drawn[0].axes[0].get_yticklabels()
    texts = [item.get_text() for item in shown][::-1]
    assert texts[0] == "$a$b"
    assert not shown[0].get_parse_math()
    assert texts[1] == "w" * 17 + "…"
    assert texts[2] in {"鍵", "□"}  # whether a font for it is installed is the machine's affair


def test_the_map_shows_every_cluster_with_its_segment_and_no_query_twice(drawn: list[Figure]) -> None:
    _, tfidf, model, labeled = graph([*QUERIES * 3, "for the"])
    plots.query_map(tfidf, model, labeled, 1)
    axes = drawn[0].axes[0]
    names = [text.get_text() for text in axes.get_legend().get_texts()]
    assert names == [f"{entry.cluster}: {entry.segment}" for entry in labeled.labels]
    assert sum(len(points.get_offsets()) for points in axes.collections) == len(QUERIES)


def test_a_large_map_is_a_sample_the_same_for_the_same_seed(
    drawn: list[Figure], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plots, "MAP_POINTS", 5)
    _, tfidf, model, labeled = graph(QUERIES * 3)
    assert plots.query_map(tfidf, model, labeled, 1) == plots.query_map(tfidf, model, labeled, 1)
    assert sum(len(points.get_offsets()) for points in drawn[0].axes[0].collections) == 5


@pytest.mark.parametrize("queries", [["dress"], ["red dress", "dress"], ["dress"] * 9])
def test_one_cluster_and_one_query_are_pictures_too(queries: list[str]) -> None:
    tfidf, model, labeled = one_cluster(queries)
    assert is_picture(plots.query_map(tfidf, model, labeled, 1))
    assert is_picture(plots.cluster_terms(labeled))
    assert is_picture(plots.vocabulary(tfidf))


def test_nothing_at_all_is_a_picture_too() -> None:
    tfidf, model, _ = one_cluster(["dress"])
    nothing = LabeledSegments(ASSIGNMENT_SCHEMA.empty_table(), [], "v", 0, Intake(0, 0))
    lost = ClusterModel(**{**vars(model), "labels": np.full(1, -1, np.int32)})
    assert is_picture(plots.segment_sizes(summarize(nothing)))
    assert is_picture(plots.query_map(tfidf, lost, nothing, 1))
    assert is_picture(plots.cluster_terms(nothing))


def test_the_curve_of_k_is_a_picture(drawn: list[Figure]) -> None:
    curve = {2: 0.1, 3: 0.4, 4: 0.2}
    assert is_picture(plots.choice_of_k(KChoice(3, True, "the three agree", curve, curve, curve)))
    assert "3" in drawn[0].axes[0].get_title(loc="left")


def times(*stamps: str) -> pd.Series:
    table = pa.table(
        {"t": pa.array([datetime.fromisoformat(s).replace(tzinfo=UTC) for s in stamps], pa.timestamp("ms", "UTC"))}
    )
    return table["t"].to_pandas()


@pytest.mark.parametrize(
    "stamps",
    [
        [],
        ["2025-05-01"],
        ["1970-01-01", "2025-05-01"],
        ["0001-01-01"],
        ["0001-01-01", "2025-05-01"],
        [f"20{year:02}-{month:02}-01" for year in range(24) for month in range(1, 13)],
    ],
)
def test_sessions_over_time_copes_with_clocks_that_were_never_set(stamps: list[str]) -> None:
    assert is_picture(plots.sessions_over_time(times(*stamps)))


def test_sessions_are_counted_by_day_then_by_month_and_those_too_old_in_the_title(drawn: list[Figure]) -> None:
    plots.sessions_over_time(times("2025-05-01", "2025-05-01T23:00:00", "2025-05-02", "0001-01-01"))
    plots.sessions_over_time(times(*pd.date_range("2025-01-01", periods=150).strftime("%Y-%m-%d")))
    days, months = (figure.axes[0] for figure in drawn)
    assert [bar.get_height() for bar in days.patches] == [2, 1]
    assert days.get_title(loc="left") == "Sessions over time (and 1 before 1900)"
    assert [bar.get_height() for bar in months.patches] == [31, 28, 31, 30, 30]
    assert months.get_title(loc="left") == "Sessions over time"


def test_other_is_grey_and_a_name_keeps_its_colour() -> None:
    colors = plots.segment_colors(["tech", OTHER, "fashion"])
    assert colors == plots.segment_colors(["fashion", "tech"])
    assert len(set(colors.values())) == 3
    many = plots.segment_colors([f"segment{n}" for n in range(20)])
    assert len(many) == 21
    assert many[OTHER] not in {color for name, color in many.items() if name != OTHER}


def churn(*flows: tuple[str, str, int]) -> Churn:
    found = [Flow(before, now, users, 0, users if before != now else 0) for before, now, users in flows]
    return Churn("v", sum(flow.users for flow in found), 2, 1, found)


def test_flows_show_every_segment_on_both_sides_with_its_users(drawn: list[Figure]) -> None:
    assert is_picture(plots.user_flows(churn(("a", "a", 60), ("a", "b", 30), (OTHER, "b", 10))))
    (axes,) = drawn[0].axes
    texts = [text.get_text() for text in axes.texts]
    assert [text for text in texts if "%" in text] == ["a  90 (90%)", "other  10 (10%)", "a  60 (60%)", "b  40 (40%)"]
    title = axes.get_title(loc="left")
    assert title.startswith("40.0% of 100 users changed segment: 0.0% by their behaviour, 40.0% by the model")
    bars = [patch for patch in axes.patches if hasattr(patch, "get_height")]
    bands = [patch for patch in axes.patches if not hasattr(patch, "get_height")]
    assert len(bands) == 3
    low, high = sorted(axes.get_ylim())
    assert all(low <= bar.get_y() and bar.get_y() + bar.get_height() <= high for bar in bars)  # nothing is cut off


@given(st.dictionaries(st.tuples(st.text(max_size=50), st.text(max_size=50)), st.integers(1, 10**6), max_size=8))
@settings(deadline=None, max_examples=15)
def test_any_flows_are_a_picture(flows: dict[tuple[str, str], int]) -> None:
    assert is_picture(plots.user_flows(churn(*((before, now, n) for (before, now), n in flows.items()))))
