"""Where the brokers and the state store are: variables of the environment, else servers that run on this machine.

What belongs here: that one rule. What does not: connecting (io), starting servers (local).
"""

from collections.abc import Mapping

from segmentation_assets.errors import SegmentsError
from segmentation_assets.local.kafka import LocalKafka
from segmentation_assets.local.mqtt import LocalMqtt
from segmentation_assets.local.redis import LocalRedis
from segmentation_assets.local.service import ChildService
from segmentation_assets.paths import DataDir

KAFKA, REDIS, MQTT = "SEGMENTS_KAFKA", "SEGMENTS_REDIS_URL", "SEGMENTS_MQTT_URL"

NAMESPACE = "SEGMENTS_NAMESPACE"
"""What the keys in the state store begin with, where several installations share one."""

_LOCAL: Mapping[str, type[ChildService]] = {KAFKA: LocalKafka, REDIS: LocalRedis, MQTT: LocalMqtt}


class NoServerError(SegmentsError):
    """Neither was an address given, nor does a server run here."""


def address_of(variable: str, data: DataDir, environment: Mapping[str, str]) -> str:
    """The address that a variable gives, or that of the server that runs for this data folder.

    Args:
        variable: ``KAFKA``, ``REDIS`` or ``MQTT``.
        data: the data folder.
        environment: variables.

    Raises:
        NoServerError: there is none.
    """
    given = environment.get(variable)
    if given:
        return given
    service = _LOCAL[variable](data)
    status = service.status()
    if status.state != "running" or status.url is None:
        raise NoServerError(
            f"No {service.name} is known: {variable} is not set, and none runs for the data folder {data.root}.",
            f"Set {variable} to the address of yours, or start one here: segments services start {service.name}",
        )
    return status.url


def namespace_of(environment: Mapping[str, str]) -> str:
    """What the keys in the state store begin with."""
    return environment.get(NAMESPACE) or "segments"


def with_local(source: str, data: DataDir, environment: Mapping[str, str]) -> dict[str, str]:
    """The environment, with the address of the broker that a source needs in it.

    Raises:
        NoServerError: there is none.
    """
    variable = {"kafka": KAFKA, "mqtt": MQTT}.get(source)
    found = dict(environment)
    if variable is not None:
        found[variable] = address_of(variable, data, environment)
    return found
