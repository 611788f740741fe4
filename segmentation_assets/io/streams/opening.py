"""The source and the sink that the settings name, at the addresses that the environment names.

What belongs here: names of variables, and what follows from them. What does not: reading the environment (it is given),
what runs on this machine (streaming.addresses).
"""

from collections.abc import Mapping
from pathlib import Path

from segmentation_assets.core.settings import StreamSettings
from segmentation_assets.errors import SegmentsError
from segmentation_assets.io.streams.base import Sink, Source

KAFKA = "SEGMENTS_KAFKA"
KAFKA_CONFIG = "SEGMENTS_KAFKA_CONFIG"
MQTT = "SEGMENTS_MQTT_URL"
MQTT_CLIENT = "SEGMENTS_MQTT_CLIENT"


class NoAddressError(SegmentsError):
    """Nobody said where the broker is, or what was said is no address."""


def open_source(settings: StreamSettings, environment: Mapping[str, str]) -> Source:
    """The source of events.

    Args:
        settings: kind, topic and group.
        environment: ``SEGMENTS_KAFKA`` (``host:port``, separated by commas) and, for passwords and certificates,
            ``SEGMENTS_KAFKA_CONFIG`` (path of a file of librdkafka's settings, ``key=value`` a line); or
            ``SEGMENTS_MQTT_URL`` and, where several workers read, ``SEGMENTS_MQTT_CLIENT`` (another name for each; the
            group's otherwise). Kinesis and Pub/Sub have variables of their own, see there.

    Raises:
        NoAddressError: a variable is missing, or holds no address.
        MissingExtraError: its library is not installed.
        SourceUnavailable: the client does not accept its settings.
    """
    if settings.source == "kafka":
        from segmentation_assets.io.streams.kafka import KafkaSource

        return KafkaSource(
            _of(environment, KAFKA),
            settings.topic,
            settings.group,
            kafka_config(environment),
            linger_seconds=settings.linger_ms / 1000,
        )
    if settings.source == "mqtt":
        from segmentation_assets.io.streams.mqtt import MqttSource

        url = _of(environment, MQTT)
        try:
            return MqttSource(url, settings.topic, environment.get(MQTT_CLIENT) or settings.group)
        except ValueError as error:
            raise _no_url(error) from None
    if settings.source == "kinesis":
        from segmentation_assets.io.streams.kinesis import KinesisSource

        return KinesisSource(settings.topic)
    from segmentation_assets.io.streams.pubsub import PubsubSource

    return PubsubSource(settings.topic)


def open_sink(settings: StreamSettings, environment: Mapping[str, str]) -> Sink:
    """Where dead letters and changes go: the same kind of broker that events come from.

    Args:
        settings: kind.
        environment: see ``open_source``.

    Raises:
        NoAddressError: a variable is missing, or holds no address.
        MissingExtraError: its library is not installed.
        SinkUnavailable: the client does not accept its settings.
    """
    if settings.source == "kafka":
        from segmentation_assets.io.streams.kafka import KafkaSink

        return KafkaSink(_of(environment, KAFKA), kafka_config(environment))
    if settings.source == "mqtt":
        from segmentation_assets.io.streams.mqtt import MqttSink

        try:
            return MqttSink(_of(environment, MQTT))
        except ValueError as error:
            raise _no_url(error) from None
    if settings.source == "kinesis":
        from segmentation_assets.io.streams.kinesis import KinesisSink

        return KinesisSink()
    from segmentation_assets.io.streams.pubsub import PubsubSink

    return PubsubSink()


def kafka_config(environment: Mapping[str, str]) -> dict[str, str]:
    """The settings in the file that ``SEGMENTS_KAFKA_CONFIG`` names; none where it names none.

    A line is ``key=value``; one that begins with ``#`` or ``!`` is a remark.

    Raises:
        NoAddressError: the file cannot be read, or a line of it is none. The message holds no value.
    """
    path = environment.get(KAFKA_CONFIG)
    if not path:
        return {}
    try:
        lines = Path(path).expanduser().read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why = (error.strerror if isinstance(error, OSError) else None) or "it is no text"
        raise NoAddressError(f"{path}, which {KAFKA_CONFIG} names, cannot be read: {why}.", "Check the path.") from None
    found = {}
    for number, line in enumerate(map(str.strip, lines), start=1):
        if not line or line.startswith(("#", "!")):
            continue
        name, sign, value = line.partition("=")
        if not sign or not name.strip():
            raise NoAddressError(f"Line {number} of {path} is not key=value.", "Write for example sasl.username=shop")
        found[name.strip()] = value.strip()
    return found


def _of(environment: Mapping[str, str], variable: str) -> str:
    value = environment.get(variable)
    if not value:
        raise NoAddressError(
            f"{variable} is not set, and no such broker runs on this machine.",
            f"Run `segments services start`, or set {variable} to yours.",
        )
    return value


def _no_url(error: ValueError) -> NoAddressError:
    # Of another kind than ours, a ValueError may quote the address, and with it a password.
    said = str(error) if str(error).startswith("the address of") else "it is no address"
    return NoAddressError(f"{MQTT} cannot be used: {said}.", "For example mqtt://127.0.0.1:1883")
