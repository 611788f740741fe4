"""Which source and sink the settings and the environment lead to."""

import sys
from pathlib import Path

import pytest

from segmentation_assets.core.settings import StreamSettings
from segmentation_assets.errors import MissingExtraError
from segmentation_assets.io.streams.base import SinkUnavailable
from segmentation_assets.io.streams.opening import NoAddressError, kafka_config, open_sink, open_source


def test_kafka_and_mqtt_are_opened_at_their_addresses() -> None:
    kafka, mqtt = StreamSettings(source="kafka"), StreamSettings(source="mqtt")
    environment = {"SEGMENTS_KAFKA": "127.0.0.1:1", "SEGMENTS_MQTT_URL": "mqtt://127.0.0.1:1"}
    for settings, name in ((kafka, "Kafka"), (mqtt, "Mqtt")):
        for opened, kind in (
            (open_source(settings, environment), "Source"),
            (open_sink(settings, environment), "Sink"),
        ):
            assert type(opened).__name__ == name + kind
            opened.close()


@pytest.mark.parametrize(("source", "variable"), [("kafka", "SEGMENTS_KAFKA"), ("mqtt", "SEGMENTS_MQTT_URL")])
def test_a_missing_address_is_named_with_its_variable(source: str, variable: str) -> None:
    settings = StreamSettings.model_validate({"source": source})
    for opening in (open_source, open_sink):
        with pytest.raises(NoAddressError, match=f"{variable} is not set") as found:
            opening(settings, {})
        assert "segments services start" in found.value.cure


@pytest.mark.parametrize("url", ["mqtt://u:hunter2@[bad", "http://u:hunter2@host", "mqtt://u:hunter2@host:port"])
def test_an_address_that_is_none_is_refused_without_quoting_it(url: str) -> None:
    for opening in (open_source, open_sink):
        with pytest.raises(NoAddressError) as found:
            opening(StreamSettings(source="mqtt"), {"SEGMENTS_MQTT_URL": url})
        assert "hunter2" not in str(found.value)


@pytest.mark.parametrize(
    ("source", "module", "extra"),
    [
        ("kafka", "confluent_kafka", "stream"),
        ("mqtt", "paho.mqtt", "stream"),
        ("kinesis", "boto3", "kinesis"),
        ("pubsub", "google.cloud", "pubsub"),
    ],
)
def test_a_library_that_is_not_installed_is_named_with_its_extra(
    monkeypatch: pytest.MonkeyPatch, source: str, module: str, extra: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    environment = {"SEGMENTS_KAFKA": "127.0.0.1:1", "SEGMENTS_MQTT_URL": "mqtt://127.0.0.1:1"}
    settings = StreamSettings.model_validate({"source": source, "topic": "projects/p/subscriptions/s"})
    for opening in (open_source, open_sink):
        with pytest.raises(MissingExtraError, match=rf"\[{extra}\]"):
            opening(settings, environment)


def test_settings_of_kafka_are_read_from_the_file_that_is_named(tmp_path: Path) -> None:
    path = tmp_path / "kafka.properties"
    path.write_text("# ours\n\n! too\nsecurity.protocol = SASL_SSL\nsasl.password=a=b#c\n")
    assert kafka_config({"SEGMENTS_KAFKA_CONFIG": str(path)}) == {
        "security.protocol": "SASL_SSL",
        "sasl.password": "a=b#c",
    }
    assert kafka_config({}) == {}


def test_a_file_of_settings_that_cannot_be_read_is_one_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "kafka.properties"
    with pytest.raises(NoAddressError, match="cannot be read"):
        kafka_config({"SEGMENTS_KAFKA_CONFIG": str(path)})
    path.write_text("sasl.username=u\nhunter2\n")
    with pytest.raises(NoAddressError, match="Line 2") as found:
        kafka_config({"SEGMENTS_KAFKA_CONFIG": str(path)})
    assert "hunter2" not in str(found.value)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(NoAddressError, match="no text"):
        kafka_config({"SEGMENTS_KAFKA_CONFIG": str(path)})


def test_the_file_of_settings_reaches_the_client(tmp_path: Path) -> None:
    path = tmp_path / "kafka.properties"
    path.write_text("no.such.setting=hunter2\n")
    environment = {"SEGMENTS_KAFKA": "127.0.0.1:1", "SEGMENTS_KAFKA_CONFIG": str(path)}
    with pytest.raises(SinkUnavailable, match=r"no\.such\.setting") as found:
        open_sink(StreamSettings(), environment)
    assert "hunter2" not in str(found.value)
