"""An MQTT broker on this machine: amqtt, in a child process.

What belongs here: whether what it needs is there, and how its process is started. What does not: what runs inside that
process (``mqtt_node.py``), and using it (``io/streams``).
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from segmentation_assets.local.service import ChildService, require


class LocalMqtt(ChildService):
    """An MQTT 3.1.1 broker of one data folder, with QoS 0, 1 and 2.

    It keeps persistent sessions, and what was sent to them while they were away, in memory: until it ends.
    """

    name: ClassVar[str] = "mqtt"
    variable: ClassVar[str | None] = "SEGMENTS_MQTT_URL"
    ports: ClassVar[range] = range(17000, 18000)

    def prepare(self) -> None:
        """Find amqtt."""
        require("amqtt", "The MQTT broker on this machine")

    def command(self, ports: Sequence[int]) -> list[str | Path]:
        """The process of ``mqtt_node.py``."""
        module = [sys.executable, "-m", "segmentation_assets.local.mqtt_node"]
        return [*module, "--root", self.files.root, "--port", str(ports[0])]

    def url(self, address: str) -> str:
        """Without TLS: it is on loopback."""
        return f"mqtt://{address}"
