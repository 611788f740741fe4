"""The settings file and the taxonomy it names: every mistake is one error that names it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from segmentation_assets.core.labels import TaxonomyError, shipped_taxonomy
from segmentation_assets.core.settings import Settings
from segmentation_assets.io.settings import SettingsError, load_settings, load_taxonomy


def written(folder: Path, text: str | bytes, name: str = "segments.yaml") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_no_file_is_the_defaults() -> None:
    assert load_settings(None) == Settings()


@pytest.mark.parametrize("text", ["", "# nothing yet\n", "{}", "---\n"])
def test_an_empty_file_is_the_defaults(text: str, tmp_path: Path) -> None:
    assert load_settings(written(tmp_path, text)) == Settings()


def test_what_the_file_says_holds_and_the_rest_stays(tmp_path: Path) -> None:
    chosen = load_settings(written(tmp_path, "clusters: {k: auto, seed: 7}\nsessions: {start: 2024-01-31}\n"))
    assert (chosen.clusters.k, chosen.clusters.seed, chosen.clusters.method) == ("auto", 7, "consensus")
    assert chosen.sessions.start.isoformat() == "2024-01-31T00:00:00+00:00"
    assert chosen.publish == Settings().publish


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("clusters: [", "not valid YAML"),
        ("a: b: c", "not valid YAML"),
        ("\tclusters: {}", "not valid YAML"),
        (b"\xff\xfe\x00", "not valid YAML"),
        ("sessions: {start: 2024-13-45}", "not valid YAML: month must be in"),
        ("- a", "top level"),
        ("just text", "top level"),
        ("clusters:", "clusters: Input should be a valid dictionary"),
        ("cluster: {k: 5}", "cluster: Extra inputs are not permitted"),
        ("clusters: {k: 1, seed: -1}\npublish: {keep: 0}", r"clusters\.seed: .*; publish\.keep: "),
        ("clusters: {k: 1}", "clusters: Value error, k must be at least 2"),
        (
            "checks: {cluster_balance: {max_share: 60}}",
            r"checks\.cluster_balance\.max_share: Input should be less than",
        ),
        ("sessions: {start: 2024}", r"sessions\.start: Value error, write a date"),
        ("sessions: {start: 2024-02-01T00:00:00, end: 2024-01-01T00:00:00Z}", "start must be before end"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_error_with_its_path_and_each_mistake(
    text: str | bytes, says: str, tmp_path: Path
) -> None:
    path = written(tmp_path, text)
    with pytest.raises(SettingsError, match=says) as raised:
        load_settings(path)
    assert str(path) in str(raised.value)
    assert raised.value.cure
    assert "\n" not in str(raised.value)


def test_a_file_that_is_not_there_or_a_folder_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"nowhere\.yaml cannot be read: No such file"):
        load_settings(tmp_path / "nowhere.yaml")
    with pytest.raises(SettingsError, match="cannot be read: Is a directory"):
        load_settings(tmp_path)


def test_yaml_tags_run_no_code(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="not valid YAML"):
        load_settings(written(tmp_path, f"clusters: !!python/object/apply:os.mkdir [{tmp_path / 'ran'}]"))
    assert not (tmp_path / "ran").exists()


# --- taxonomy

MINE = "segments: {garden: {keywords: [chair]}}"


def naming(path: str) -> Settings:
    return Settings.model_validate({"labels": {"taxonomy": path}})


def test_without_a_name_it_is_the_shipped_one() -> None:
    assert load_taxonomy(Settings(), None) == shipped_taxonomy()


def test_a_relative_name_is_relative_to_the_settings_file_not_to_where_one_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    written(tmp_path, MINE, "mine.yaml")
    assert list(load_taxonomy(naming("mine.yaml"), tmp_path / "segments.yaml").segments) == ["garden"]


def test_a_full_name_and_a_home_folder_are_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path, MINE, "mine.yaml")
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in (str(path), "~/mine.yaml"):
        assert list(load_taxonomy(naming(name), Path("/elsewhere/segments.yaml")).segments) == ["garden"]


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_a_taxonomy_that_cannot_be_read_is_one_error_with_its_path(content: bytes | None, tmp_path: Path) -> None:
    if content is not None:
        written(tmp_path, content, "mine.yaml")
    with pytest.raises(SettingsError, match=r"mine\.yaml cannot be read .*labels\.taxonomy"):
        load_taxonomy(naming("mine.yaml"), tmp_path / "segments.yaml")


def test_a_taxonomy_with_a_mistake_is_named_with_its_path(tmp_path: Path) -> None:
    path = written(tmp_path, "segments: {Garden: {keywords: [chair]}}", "mine.yaml")
    with pytest.raises(TaxonomyError, match="segment name 'Garden'") as raised:
        load_taxonomy(naming("mine.yaml"), tmp_path / "segments.yaml")
    assert str(path) in str(raised.value)


def test_the_example_settings_are_the_defaults() -> None:
    """examples/segments.yaml shows every setting with its default; a copy of it must change nothing."""
    path = Path(__file__).parents[2] / "examples" / "segments.yaml"
    if not path.exists():
        pytest.skip("the example is not in this checkout")
    assert load_settings(path) == Settings()
    assert set(_names(yaml.safe_load(path.read_text()))) == set(_names(Settings().model_dump(by_alias=True)))


def _names(settings: dict, before: str = "") -> Iterator[str]:
    for name, value in settings.items():
        yield before + name
        if isinstance(value, dict):
            yield from _names(value, f"{before}{name}.")
