"""``segments models``: what is stored, what is in it, and going back."""

import json
from typing import Any

import pytest
from elasticsearch import Elasticsearch

ALIAS = "modelled"


@pytest.fixture
def twice(elsewhere: Any, capsys: pytest.CaptureFixture[str]) -> Any:
    """The command on a folder where two models were published, one after the other."""
    elsewhere.data.root.mkdir()
    (elsewhere.data.root / "segments.yaml").write_text(f"publish: {{alias: {ALIAS}}}\n")
    for arguments in ((), ("--k", "3")):
        assert elsewhere.at_once(capsys, "run", *arguments).returncode == 0
    return elsewhere


def test_models_are_listed_shown_and_rolled_back(
    twice: Any, capsys: pytest.CaptureFixture[str], client: Elasticsearch
) -> None:
    def models() -> list[dict[str, Any]]:
        return json.loads(twice.at_once(capsys, "models", "list", "--json").stdout)["models"]

    new, old = models()
    assert (new["k"], new["published"], new["latest"]) == (3, True, True)
    assert (old["k"], old["published"], old["latest"]) == (5, False, False)
    assert new["sessions"] == old["sessions"] == 1_000
    assert "tech_enthusiast" in old["segments"]
    assert old["made"] <= new["made"] <= new["used"]
    assert set(new) == {
        *("version", "made", "used", "method", "k", "sessions", "segments", "published", "latest", "decision"),
    }
    listed = twice.at_once(capsys, "models", "list").stdout
    assert new["version"] in listed
    assert "published" in listed

    shown = json.loads(twice.at_once(capsys, "models", "show", new["version"][:6], "--json").stdout)
    assert shown["change"]["previous_version"] == shown["churn"]["previous_version"] == old["version"]
    assert shown["retraining"]["kept"] is False
    assert shown["settings"]["clusters"]["k"] == 3
    assert sum(cluster["sessions"] for cluster in shown["clusters"]) + shown["unclustered"] == 1_000
    assert all(cluster["segment"] and cluster["top_terms"] for cluster in shown["clusters"])
    latest = twice.at_once(capsys, "models", "show").stdout
    assert f"Model {new['version']}" in latest
    assert "other settings: clusters.k" in latest
    assert "users that changed segment: " in latest

    back = twice.at_once(capsys, "models", "rollback")
    assert back.returncode == 0
    assert f"made by model {old['version']}" in back.stdout
    (index,) = client.indices.get_alias(name=ALIAS)
    hit = client.search(index=ALIAS, size=1)["hits"]["hits"][0]
    assert hit["_source"]["model_version"] == old["version"]
    assert [model["version"] for model in models() if model["published"]] == [old["version"]]

    forward = twice.at_once(capsys, "models", "rollback", new["version"][:8])
    assert forward.returncode == 0
    assert list(client.indices.get_alias(name=ALIAS)) != [index]
    assert [model["version"] for model in models() if model["published"]] == [new["version"]]

    nowhere = twice.at_once(capsys, "models", "rollback", "nope")
    assert (nowhere.returncode, nowhere.stdout) == (1, "")
    assert "Nothing that model 'nope' made is behind 'modelled'" in nowhere.stderr
    assert old["version"] in nowhere.stderr
    unknown = twice.at_once(capsys, "models", "show", "nope")
    assert unknown.returncode == 1
    assert "There is no stored model 'nope'" in unknown.stderr


def test_without_a_model_there_is_an_empty_list_and_one_clear_error(
    segments: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """And no server is started to say so."""
    assert json.loads(segments.at_once(capsys, "models", "list", "--json").stdout) == {"models": []}
    missing = segments.at_once(capsys, "models", "show", "--json")
    assert missing.returncode == 1
    assert json.loads(missing.stdout)["error"]["type"] == "ModelNotFoundError"
    assert "segments run" in missing.stderr
    assert not segments.processes()


def test_before_a_second_model_there_is_nothing_to_go_back_to(
    elsewhere: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another run that keeps the model is not another model."""
    elsewhere.data.root.mkdir()
    (elsewhere.data.root / "segments.yaml").write_text("publish: {alias: alone}\n")
    for _ in range(2):
        assert elsewhere.at_once(capsys, "run").returncode == 0
    done = elsewhere.at_once(capsys, "models", "rollback")
    assert done.returncode == 1
    assert "No other model was published under 'alone' before the current one" in done.stderr
    (model,) = json.loads(elsewhere.at_once(capsys, "models", "list", "--json").stdout)["models"]
    assert model["decision"].startswith("kept the previous model")
