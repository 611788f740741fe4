"""Resources: what the environment sets, and that no secret gets out of it."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import pytest

from segmentation_assets.definitions import build_definitions
from segmentation_assets.defs.resources import (
    ENVIRONMENT,
    Alert,
    ArtifactIOManager,
    ElasticsearchResource,
    SettingsResource,
    WebhookAlert,
    build_resources,
    resolved_resources,
)
from segmentation_assets.local.elasticsearch import EmbeddedElasticsearch, EmbeddedElasticsearchDied
from segmentation_assets.local.node_state import NodeFiles, NodeState
from segmentation_assets.paths import DataDir

SECRET = "s3cret-hunter2"
CLOSED = "127.0.0.1:1"  # nobody listens there


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """A function that sets environment variables, for this test only."""

    def put(**variables: str) -> None:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return put


def test_with_nothing_set_everything_is_embedded_and_at_its_default() -> None:
    built = build_resources({})
    assert built["elasticsearch"].embedded
    assert built["elasticsearch"] == ElasticsearchResource()
    assert built["settings"] == SettingsResource()
    assert built["io_manager"] == ArtifactIOManager()
    assert type(built["alert"]) is Alert


def test_every_variable_that_is_set_reaches_its_field_as_a_reference() -> None:
    """The values themselves are not in the resources: only their names, which Dagster resolves where it runs."""
    names = {name for fields in ENVIRONMENT.values() for name in fields.values()}
    built = build_resources(dict.fromkeys(names, SECRET))
    for resource, fields in ENVIRONMENT.items():
        config = dict(built[resource]._resolved_config_dict)
        assert {field: config[field] for field in fields} == {f: {"env": name} for f, name in fields.items()}
    assert isinstance(built["alert"], WebhookAlert)
    assert SECRET not in repr(built)


def test_an_empty_variable_counts_as_not_set() -> None:
    """Docker compose passes on what is not set as an empty string."""
    assert build_resources({"ELASTICSEARCH_URL": "", "SEGMENTS_ALERT_WEBHOOK": ""})["elasticsearch"].embedded


def test_outside_a_run_the_same_resources_hold_the_values(environment: Callable[..., None], tmp_path: Path) -> None:
    """The command line and the UI see the same server, settings and storage."""
    settings_file = tmp_path / "mine.yaml"
    settings_file.write_text("publish: {alias: mine}\n")
    environment(
        ELASTICSEARCH_URL="https://one:9200, https://two:9200",
        ELASTICSEARCH_USERNAME="me",
        ELASTICSEARCH_PASSWORD=SECRET,
        SEGMENTS_HOME=str(tmp_path),
        SEGMENTS_CONFIG=str(settings_file),
    )
    elasticsearch, settings, io_manager = resolved_resources()
    connection = elasticsearch.connection()
    assert connection.hosts == ("https://one:9200", "https://two:9200")
    assert (connection.username, connection.password) == ("me", SECRET)
    assert not elasticsearch.embedded
    assert settings.load().publish.alias == "mine"
    assert io_manager.store.base == DataDir(tmp_path).storage


def test_credentials_of_a_cluster_are_not_sent_to_the_embedded_node(
    environment: Callable[..., None], elasticsearch_url: str
) -> None:
    """Left-over credentials without a URL neither reach the embedded node nor keep it from being used."""
    environment(ELASTICSEARCH_API_KEY=SECRET, ELASTICSEARCH_CA_CERTS="/nowhere.pem")
    connection = resolved_resources()[0].connection()
    assert connection.hosts == (elasticsearch_url,)
    assert connection.api_key is None
    assert connection.ca_certs is None


def test_a_node_that_died_under_a_run_is_reported_with_its_log(tmp_path: Path) -> None:
    """Not as a cluster that is unreachable; and whoever asks next has a node again."""
    resource = ElasticsearchResource(data_dir=str(tmp_path), max_retries=0)

    def lose_the_node() -> None:
        with resource.client() as client:
            client.index(index="mine", id="1", document={"a": 1})
            node = NodeState.read(NodeFiles(DataDir(tmp_path).elasticsearch).state)
            assert node is not None
            os.kill(node.pid, signal.SIGKILL)
            client.count(index="mine")

    try:
        with pytest.raises(EmbeddedElasticsearchDied, match="The end of its log"):
            lose_the_node()
        with resource.client() as client:
            assert client.get(index="mine", id="1")["_source"] == {"a": 1}
    finally:
        EmbeddedElasticsearch(DataDir(tmp_path)).stop()


def test_settings_come_from_the_data_folder_when_no_file_is_named(tmp_path: Path) -> None:
    resource = SettingsResource(data_dir=str(tmp_path))
    assert resource.path is None
    assert resource.load().clusters.k == 5
    (tmp_path / "segments.yaml").write_text("clusters: {k: 7}\n")
    assert resource.load().clusters.k == 7


def test_the_values_of_variables_are_nowhere_in_the_definitions(environment: Callable[..., None]) -> None:
    """What the web server gets from the code server, and shows, holds the names of variables only."""
    environment(**dict.fromkeys((n for fields in ENVIRONMENT.values() for n in fields.values()), SECRET))
    definitions = build_definitions()
    repository = definitions.get_repository_def()
    from dagster._core.remote_representation.external_data import RepositorySnap

    shown = dg.serialize_value(RepositorySnap.from_def(repository))
    assert "ELASTICSEARCH_PASSWORD" in shown  # the resources are in there
    assert SECRET not in shown
    assert SECRET not in repr(definitions.resources)


def stored(folder: Path) -> Iterator[tuple[Path, bytes]]:
    for path in folder.rglob("*"):
        if path.is_file():
            yield path, path.read_bytes()


SECRETS: dict[str, tuple[dict[str, str], str]] = {
    "in the URL": ({"ELASTICSEARCH_URL": f"http://user:{SECRET}@{CLOSED}"}, "ClusterUnreachable"),
    "in the URL, escaped": ({"ELASTICSEARCH_URL": f"http://user:{SECRET}%40%2F@{CLOSED}"}, "ClusterUnreachable"),
    "in the URL, with a slash": ({"ELASTICSEARCH_URL": f"http://user:{SECRET}/x@{CLOSED}"}, "ConnectionInvalid"),
    "in the URL, with a comma": ({"ELASTICSEARCH_URL": f"http://user:{SECRET},x@{CLOSED}"}, "ClusterUnreachable"),
    "in the URL, without a scheme": ({"ELASTICSEARCH_URL": f"user:{SECRET}@{CLOSED}"}, "ConnectionInvalid"),
    "in the URL of a host that is not there": (
        {"ELASTICSEARCH_URL": f"http://user:{SECRET}@nowhere.invalid:9200"},
        "ClusterUnreachable",
    ),
    "API key": ({"ELASTICSEARCH_URL": f"http://{CLOSED}", "ELASTICSEARCH_API_KEY": SECRET}, "ClusterUnreachable"),
    "API key of impossible characters": (
        {"ELASTICSEARCH_URL": f"http://{CLOSED}", "ELASTICSEARCH_API_KEY": f"{SECRET}\tü"},
        "ConnectionInvalid",
    ),
    "password": (
        {
            "ELASTICSEARCH_URL": f"http://{CLOSED}",
            "ELASTICSEARCH_USERNAME": "me",
            "ELASTICSEARCH_PASSWORD": SECRET,
        },
        "ClusterUnreachable",
    ),
    "in two places": (
        {"ELASTICSEARCH_URL": f"http://user:{SECRET}@{CLOSED}", "ELASTICSEARCH_API_KEY": SECRET},
        "ConnectionInvalid",
    ),
}


@pytest.mark.parametrize("case", SECRETS)
def test_a_failed_run_leaves_no_secret_behind(
    case: str,
    environment: Callable[..., None],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    causes: Callable[[dg.ExecuteInProcessResult], dict[str, str]],
) -> None:
    """Whatever fails with a secret in hand: neither Dagster's storage, byte by byte, nor the output holds it."""
    variables, error = SECRETS[case]
    environment(SEGMENTS_HOME=str(tmp_path / "data"), **variables)
    (tmp_path / "dagster").mkdir()
    with dg.instance_for_test(temp_dir=str(tmp_path / "dagster")) as instance:
        job = build_definitions().resolve_job_def("segmentation")
        result = job.execute_in_process(instance=instance, raise_on_error=False)
        assert not result.success
        said = causes(result)["raw_sessions"]
        assert said.startswith(f"{error}: ")
        assert SECRET not in said
        searched = dict(stored(tmp_path))
        output = capfd.readouterr()
    assert any(b"STEP_FAILURE" in content for content in searched.values())  # the log was looked at
    assert not [path for path, content in searched.items() if SECRET.encode() in content]
    assert SECRET not in output.out + output.err
    assert "STEP_FAILURE" in output.err  # so was the output
    assert SECRET in "".join(os.environ.values())
