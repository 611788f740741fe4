"""``segments taxonomy``: drafts and findings from what was last materialized, with no server in reach."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from segmentation_assets.core.taxonomy import parse_taxonomy

CLOSED = {"ELASTICSEARCH_URL": "http://127.0.0.1:1"}  # whoever asks it anything fails


@pytest.fixture
def away(demo: Any, segments_at: Any) -> Any:
    """The demo's data folder, and no Elasticsearch."""
    return segments_at(demo[0].data.root, **CLOSED)


def configured(folder: Path, taxonomy: str) -> Path:
    (folder / "mine.yaml").write_text(taxonomy)
    path = folder / "settings.yaml"
    path.write_text("labels: {taxonomy: mine.yaml}\n")
    return path


def test_suggest_drafts_entries_for_the_clusters_without_a_name(away: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """YAML on stdout that is a taxonomy as it stands."""
    done = away.at_once(capsys, "taxonomy", "suggest")
    assert done.returncode == 0, done.stderr
    drafted = parse_taxonomy(done.stdout, "stdout")
    assert drafted.segments
    assert "sessions" in done.stdout
    assert "# e.g. " in done.stdout


def test_suggest_as_json_holds_the_same_drafts(away: Any, capsys: pytest.CaptureFixture[str]) -> None:
    text = yaml.safe_load(away.at_once(capsys, "taxonomy", "suggest").stdout)
    answer = json.loads(away.at_once(capsys, "taxonomy", "suggest", "--json").stdout)
    assert [entry["segment"] for entry in answer["segments"]] == list(text["segments"])
    for entry in answer["segments"]:
        assert entry["sessions"] >= entry["users"] > 0
        assert [word["keyword"] for word in entry["keywords"]] == text["segments"][entry["segment"]]["keywords"]
        assert all(0 < word["share"] <= 1 and word["gain"] > 0 for word in entry["keywords"])


def test_check_names_what_never_matches_and_only_strict_fails_for_it(
    away: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    done = away.at_once(capsys, "taxonomy", "check")
    assert done.returncode == 0, done.stderr
    assert "no query holds" in done.stdout
    assert "sessions hold a keyword" in done.stdout
    assert away.at_once(capsys, "taxonomy", "check", "--strict").returncode == 1
    answer = json.loads(away.at_once(capsys, "taxonomy", "check", "--json").stdout)
    assert answer["warnings"] == len(answer["findings"]) > 0
    assert 0 < answer["matched"] <= answer["sessions"] == 1_000
    assert {finding["kind"] for finding in answer["findings"]} <= {
        "never",
        "duplicate",
        "overlap",
        "redundant",
        "ambiguous",
    }


def test_a_taxonomy_that_was_edited_since_the_run_is_what_is_looked_at(
    away: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "segments: {a: {keywords: [laptop, Laptops, zzyzx]}, b: {keywords: [dress]}}"
    done = away.at_once(capsys, "taxonomy", "check", "--json", "--config", configured(tmp_path, text))
    findings = json.loads(done.stdout)["findings"]
    assert ("duplicate", "Laptops") in {(finding["kind"], finding["keyword"]) for finding in findings}
    assert ("never", "zzyzx") in {(finding["kind"], finding["keyword"]) for finding in findings}


def test_a_taxonomy_without_a_finding_passes_strictly(
    away: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = configured(tmp_path, "segments: {a: {keywords: [laptop]}}")
    done = away.at_once(capsys, "taxonomy", "check", "--strict", "--config", config)
    assert done.returncode == 0, done.stdout


def test_a_taxonomy_that_cannot_be_used_is_one_error(
    away: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    done = away.at_once(capsys, "taxonomy", "check", "--json", "--config", configured(tmp_path, "segments: {A: 1}"))
    assert done.returncode == 1
    assert json.loads(done.stdout)["error"]["type"] == "TaxonomyError"


@pytest.mark.parametrize("verb", ["suggest", "check"])
def test_before_the_first_run_it_says_what_to_do(
    segments_at: Any, tmp_path: Path, verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    done = segments_at(tmp_path / "empty", **CLOSED).at_once(capsys, "taxonomy", verb)
    assert done.returncode == 1
    assert done.stdout == ""
    assert "segments run" in done.stderr


def test_the_result_of_a_run_names_the_clusters_behind_the_segments(demo: Any) -> None:
    """`demo --json` gives each cluster's certainty, and what an `other` might be called."""
    result = json.loads(demo[1].stdout)
    assert sum(entry["sessions"] for entry in result["clusters"]) <= 1_000
    for entry in result["clusters"]:
        assert 0 <= entry["certainty"] <= 1
        assert (entry["certainty"] == 0) == (entry["segment"] == "other")
        assert entry["suggested_name"]
    for row in result["segments"]:
        suggested = [e["suggested_name"] for e in result["clusters"] if e["segment"] == row["segment"] == "other"]
        assert row["suggested_names"] == suggested


def test_the_table_shows_the_suggestions_beside_other(demo: Any, capsys: pytest.CaptureFixture[str]) -> None:
    shown = demo[0].ok("demo")
    result = json.loads(demo[1].stdout)
    for entry in result["clusters"]:
        if entry["segment"] == "other":
            assert entry["suggested_name"] in shown
    assert "segments taxonomy suggest" in shown
