"""All servers that run here, by name.

What belongs here: the list, and the embedded Elasticsearch seen as one of them. What does not: how any of them is run.
"""

from collections.abc import Callable
from typing import ClassVar

from segmentation_assets.local.elasticsearch import EmbeddedElasticsearch
from segmentation_assets.local.kafka import LocalKafka
from segmentation_assets.local.mqtt import LocalMqtt
from segmentation_assets.local.processes import tail
from segmentation_assets.local.redis import LocalRedis
from segmentation_assets.local.service import LocalService, Running, ServiceError, ServiceStatus
from segmentation_assets.paths import DataDir


class LocalElasticsearch(LocalService):
    """The embedded Elasticsearch, kept running when nobody uses it."""

    name: ClassVar[str] = "elasticsearch"
    variable: ClassVar[str | None] = None  # whoever uses the data folder joins it

    def __init__(self, data: DataDir) -> None:
        self._node = EmbeddedElasticsearch(data)

    def start(self, on_progress: Callable[[str], None] | None = None) -> Running:
        """Join or start the node, and have it kept.

        Raises:
            EmbeddedElasticsearchError: it could not be started.
            JarDownloadError: it is not downloaded yet, and cannot be.
        """
        with self._node.acquire(keep=True, on_progress=on_progress) as lease:
            found = self.status()
            if found.address is None or found.pid is None:
                lease.check()
                raise ServiceError("The embedded Elasticsearch was stopped while it was joined.", "Start it again.")
            return Running(self.name, found.address, lease.url, found.pid, lease.started_here)

    def stop(self) -> bool:
        """Stop the node, whoever uses it. False if none ran."""
        return self._node.stop()

    def status(self) -> ServiceStatus:
        """What is known about the node. Starts and changes nothing."""
        found = self._node.status()
        return ServiceStatus(
            self.name,
            found.state,
            found.data,
            found.log,
            address=f"127.0.0.1:{found.port}" if found.port else None,
            url=found.url,
            pid=found.pid,
            resident_bytes=found.resident_bytes,
            seconds_up=found.seconds_up,
            log_tail=tuple(tail(found.log)) if found.state == "dead" else (),
        )


ALL: dict[str, type[LocalKafka] | type[LocalRedis] | type[LocalMqtt] | type[LocalElasticsearch]] = {
    made.name: made for made in (LocalKafka, LocalRedis, LocalMqtt, LocalElasticsearch)
}
"""Each is made with the data folder."""

DEFAULT = ("kafka", "redis", "elasticsearch")
"""What the stream needs; the MQTT broker is another source of events."""
