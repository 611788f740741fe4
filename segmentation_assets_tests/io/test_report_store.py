"""The report on what is stored, whatever of it is there; and a file that is whole or the one before."""

import html
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from segmentation_assets.core.generate import generate_sessions
from segmentation_assets.core.labels import label, shipped_taxonomy
from segmentation_assets.core.model import fit
from segmentation_assets.core.report.page import SOURCES, render
from segmentation_assets.core.sessions import SessionBuilder
from segmentation_assets.core.settings import BehaviourSettings, Settings
from segmentation_assets.core.users.attributes import ATTRIBUTES_SCHEMA, AttributesAccount, UserAttributes
from segmentation_assets.core.users.behaviour import fit_behaviour
from segmentation_assets.core.users.cleaning import clean
from segmentation_assets.core.users.features import measure
from segmentation_assets.core.users.personas import describe, shipped_names
from segmentation_assets.core.users.rules import apply_rules, shipped_rules
from segmentation_assets.core.users.scores import score
from segmentation_assets.core.vectorize import vectorize
from segmentation_assets.io.artifacts import ArtifactStore, ArtifactUnreadableError
from segmentation_assets.io.report_store import ReportNotWrittenError, collect_report, write_report

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
SETTINGS = Settings()
MAIN = ("raw_sessions", "tfidf_matrix", "kmeans_model", "labeled_segments")
BEHAVIOUR = BehaviourSettings(k=3, bootstraps=1, n_init=1)


def results(sessions: int = 250, seed: int = 5) -> dict[str, Any]:
    """What every asset stores of generated sessions, by the name of the asset."""
    builder = SessionBuilder(NOW)
    for document in generate_sessions(sessions, seed, NOW, behaviour=True).documents:
        builder.add(document["session_id"], document)
    builder.add("unusable", {"search_query": "red dress"})
    made = builder.finish()
    tfidf = vectorize(made.table["search_query"], SETTINGS.vectors)
    model = fit(tfidf, made.user_numbers(), SETTINGS.clusters)
    labeled = label(made, tfidf, model, shipped_taxonomy(), SETTINGS.labels)
    cleaned = clean(made.table, SETTINGS.cleaning)
    nothing_known = ATTRIBUTES_SCHEMA.empty_table().select(["user_id"])
    table = labeled.table.select(["session_id", "segment"])
    features = measure(cleaned, table, nothing_known, SETTINGS.features)
    scores = score(features, SETTINGS.scores)
    behaviour = fit_behaviour(features, BEHAVIOUR)
    return {
        "raw_sessions": made,
        "tfidf_matrix": tfidf,
        "kmeans_model": model,
        "labeled_segments": labeled,
        "clean_sessions": cleaned,
        "user_attributes": UserAttributes(nothing_known, AttributesAccount(sources=["index user_attributes: none"])),
        "user_features": features,
        "user_scores": scores,
        "rule_segments": apply_rules(shipped_rules(), features, scores),
        "behaviour_clusters": behaviour,
        "personas": describe(features, behaviour, shipped_names(), SETTINGS.personas, labeled.table),
    }


@pytest.fixture(scope="module")
def made() -> dict[str, Any]:
    return results()


@pytest.fixture
def stored(tmp_path: Path, made: dict[str, Any]) -> Callable[..., ArtifactStore]:
    """A function that stores the results of these assets, or others in their place."""

    def store(*names: str, **instead: Any) -> ArtifactStore:
        found = ArtifactStore(tmp_path / "storage")
        for name in names:
            found.save(name, f"run-{len(found.history(name))}", instead.get(name, made[name]))
        return found

    return store


def text_of(page: str) -> str:
    """What a reader sees, without tags."""
    return html.unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page.partition("<body")[2])))


# --- what a report is made of


def test_a_report_on_everything_misses_nothing(stored: Any, made: dict[str, Any]) -> None:
    found = collect_report(stored(*made), SETTINGS, NOW)
    assert [name for name in SOURCES if getattr(found, name) is None] == []
    assert found.rows is not None
    assert len(found.rows) == len(made["behaviour_clusters"].users)
    assert [outcome.name for outcome in found.checks or []] == [
        *("sessions_accounted", "session_validity", "cluster_balance", "label_coverage", "user_churn"),
        *("cleaning_accounted", "noise_share", "behaviour_stability"),
    ]
    text = text_of(render(found))
    for card in made["personas"].cards:
        assert card.name in text
    assert f"{made['raw_sessions'].intake.kept} of {made['raw_sessions'].intake.read} documents read" in text


def test_no_id_of_a_user_or_session_is_in_the_page(stored: Any, made: dict[str, Any]) -> None:
    page = render(collect_report(stored(*made), SETTINGS, NOW))
    table = made["raw_sessions"].table
    ids = {*table["user_id"].to_pylist(), *table["session_id"].to_pylist(), "unusable"}
    assert len(ids) > 300
    assert [each for each in ids - {"unusable"} if each in page] == []
    assert "(unusable)" not in page


@pytest.mark.parametrize("names", [("raw_sessions",), MAIN, (), ("user_features", "behaviour_clusters")])
def test_what_was_never_materialized_is_left_out_and_the_page_names_the_asset(
    names: tuple[str, ...], stored: Any, made: dict[str, Any]
) -> None:
    found = collect_report(stored(*names), SETTINGS, NOW)
    for part, asset in SOURCES.items():
        if asset not in names and part != "checks":
            assert getattr(found, part) is None, part
    text = text_of(render(found))
    for asset in ("user_scores", "personas", *(("labeled_segments",) if "labeled_segments" not in names else ())):
        assert asset in text
    assert (found.segments is not None) == ("labeled_segments" in names)
    assert (found.rows is not None) == ("behaviour_clusters" in names)


def test_the_checks_are_those_of_what_is_there_by_the_bounds_of_the_settings(stored: Any, made: dict[str, Any]) -> None:
    store = stored("raw_sessions", "clean_sessions")
    names = ["sessions_accounted", "session_validity", "cleaning_accounted", "noise_share"]
    outcomes = collect_report(store, SETTINGS, NOW).checks or []
    assert [(outcome.name, outcome.passed) for outcome in outcomes] == [(name, True) for name in names]
    strict = Settings.model_validate({"checks": {"session_validity": {"max_set_aside_share": 0}}})
    outcomes = collect_report(store, strict, NOW).checks or []
    assert [outcome.name for outcome in outcomes if not outcome.passed] == ["session_validity"]


def test_results_of_two_runs_are_never_put_together(stored: Any, made: dict[str, Any]) -> None:
    """A run stopped half-way: new features beside old clusters, a new model beside old labels and old personas."""
    other = results(sessions=200, seed=6)
    store = stored(*made)
    for name in ("user_features", "kmeans_model"):
        store.save(name, "later", other[name])
    found = collect_report(store, SETTINGS, NOW)
    assert found.rows is None
    assert found.query_map is None
    assert render(found)

    store.save("user_features", "back", made["user_features"])
    refitted = replace(made["behaviour_clusters"], version="another")
    store.save("behaviour_clusters", "later", refitted)
    found = collect_report(store, SETTINGS, NOW)
    assert found.rows is not None
    assert found.personas is None
    assert made["personas"].cards[0].name not in text_of(render(found))


def test_a_file_that_cannot_be_read_is_one_clear_error(stored: Any, made: dict[str, Any]) -> None:
    store = stored("raw_sessions", "clean_sessions")
    (store.path("clean_sessions").resolve() / "fields.json").write_text("[]")
    with pytest.raises(ArtifactUnreadableError, match="CleanSessions") as raised:
        collect_report(store, SETTINGS, NOW)
    assert "materialize" in raised.value.cure


# --- the file


@pytest.fixture
def data(stored: Any) -> Any:
    return collect_report(stored("raw_sessions"), SETTINGS, NOW)


def test_the_page_is_written_where_it_was_asked_for_and_replaces_the_one_before(
    data: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    target = tmp_path / "deep" / "er" / "report.html"
    written = write_report(data, Path("deep/er/report.html"))
    assert (written.path, written.size) == (str(target), len(target.read_bytes()))
    assert target.read_text("utf-8") == render(data)
    target.write_text("the one before")
    assert write_report(data, target).size == written.size
    assert target.read_text("utf-8") == render(data)
    assert [path.name for path in target.parent.iterdir()] == ["report.html"]


def test_a_reader_sees_the_page_before_until_the_new_one_is_whole(
    data: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk fills up half-way: an error, the old page as it was, and nothing left beside it."""
    target = tmp_path / "report.html"
    target.write_text("the one before")
    whole = Path.write_bytes

    def half(path: Path, content: bytes) -> int:
        whole(path, content[: len(content) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", half)
    with pytest.raises(ReportNotWrittenError, match="No space left on device"):
        write_report(data, target)
    assert target.read_text() == "the one before"
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["report.html"]


@pytest.mark.parametrize("where", ["a_file/report.html", "a_folder", ".", "/", "n" * 300, "/proc/nowhere/report.html"])
def test_a_place_that_cannot_be_written_to_is_one_clear_error(
    where: str, data: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a_file").write_text("mine")
    (tmp_path / "a_folder").mkdir()
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(ReportNotWrittenError, match="The report cannot be written to ") as raised:
        write_report(data, Path(where))
    assert "None" not in raised.value.problem
    assert "--output" in raised.value.cure
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    assert (tmp_path / "a_file").read_text() == "mine"
