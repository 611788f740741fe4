"""Kafka on this machine: a real broker that is its own controller (KRaft), in a child process with an embedded Java.

What belongs here: whether what it needs is there, and how its process is started. What does not: what runs inside that
process (``kafka_node.py``), and using it (``io/streams``).
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from segmentation_assets.local.jars import KAFKA, ensure_jars
from segmentation_assets.local.service import ChildService


class LocalKafka(ChildService):
    """A Kafka broker of one data folder. Topics come into being, with four partitions, when they are first used."""

    name: ClassVar[str] = "kafka"
    variable: ClassVar[str | None] = "SEGMENTS_KAFKA"
    ports: ClassVar[range] = range(18000, 19000)
    number_of_ports: ClassVar[int] = 2  # the clients', and the one where the broker talks to itself as controller

    def prepare(self) -> None:
        """Download the jars, once."""
        ensure_jars(jar_set=KAFKA)

    def command(self, ports: Sequence[int]) -> list[str | Path]:
        """The process of ``kafka_node.py``."""
        module = [sys.executable, "-m", "segmentation_assets.local.kafka_node"]
        jars = ensure_jars(jar_set=KAFKA)
        return [*module, "--root", self.files.root, "--jars", jars, "--ports", *map(str, ports)]

    def url(self, address: str) -> str:
        """Clients take the address as it is, as ``bootstrap.servers``."""
        return address
