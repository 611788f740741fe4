"""What the embedded node and its clients tell each other through files, and nothing else.

What belongs here: the layout of the node's folder, its state file, and whether the process it names still lives.
What does not: decisions (``elasticsearch.py``) and the node itself (``elasticsearch_node.py``).

Three locks, all given back by the kernel when their holder dies, however it dies:

- ``start.lock``: held while anybody starts, stops or joins the node; also by the node while it ends for want of users.
- ``lease.lock``: shared, held by every process that uses the node. Whoever can take it alone knows that nobody does.
- ``process.lock``: held by the node process for its whole life, so that there is never a second one.
"""

import contextlib
import fcntl
import json
import os
import urllib.request
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from segmentation_assets.local.processes import living

# A proxy from the environment must not get what is meant for this machine.
_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True)
class NodeFiles:
    """The layout of the folder of one embedded node."""

    root: Path

    @property
    def home(self) -> Path:
        """Elasticsearch's home: made anew at each start."""
        return self.root / "home"

    @property
    def data(self) -> Path:
        """The indices."""
        return self.root / "data"

    @property
    def log(self) -> Path:
        """All output of the node process."""
        return self.root / "logs" / "elasticsearch.log"

    @property
    def state(self) -> Path:
        """The state file, there while a node runs (or after it was killed)."""
        return self.root / "state.json"

    @property
    def last_port(self) -> Path:
        """The port used last, preferred at the next start so that addresses in browsers and shells stay right."""
        return self.root / "port"

    @property
    def start_lock(self) -> Path:
        """See the module's docstring."""
        return self.root / "start.lock"

    @property
    def lease_lock(self) -> Path:
        """See the module's docstring."""
        return self.root / "lease.lock"

    @property
    def process_lock(self) -> Path:
        """See the module's docstring."""
        return self.root / "process.lock"


@dataclass(frozen=True)
class NodeState:
    """What the state file says about the node. ``url``, ``port`` and ``version`` are empty until ``ready``."""

    pid: int
    created: float
    heap_megabytes: int
    kept: bool
    ready: bool = False
    port: int = 0
    url: str = ""
    version: str = ""

    def process(self) -> psutil.Process | None:
        """The node's process, or None if it is gone (also when another process has its pid by now)."""
        return living(self.pid, self.created)

    def write(self, path: Path) -> None:
        """Write the state file in one step."""
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        temporary.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")
        os.replace(temporary, path)

    @classmethod
    def read(cls, path: Path) -> "NodeState | None":
        """Read the state file; None when there is none, or none that makes sense."""
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    def remove(self, path: Path) -> None:
        """Remove the state file if it is still about this process."""
        found = NodeState.read(path)
        if found is not None and (found.pid, found.created) == (self.pid, self.created):
            with contextlib.suppress(OSError):
                path.unlink()


def open_lock(path: Path) -> int:
    """Open a lock file. The descriptor is not inherited by programs this process starts."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def try_exclusive(descriptor: int) -> bool:
    """Take the lock alone if nobody else holds it; never waits."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def share(descriptor: int) -> None:
    """Take the lock together with others that share it."""
    fcntl.flock(descriptor, fcntl.LOCK_SH)


def release(descriptor: int) -> None:
    """Give the lock back, also on behalf of copies of the descriptor in forked processes."""
    fcntl.flock(descriptor, fcntl.LOCK_UN)


def get_json(url: str, timeout: float) -> Any:
    """GET from the node itself, past any proxy. Raises OSError or ValueError."""
    with _direct.open(url, timeout=timeout) as response:
        return json.load(response)


def version_of(url: str, timeout: float = 5.0) -> str | None:
    """The version of the node that answers at ``url``; None if none does. (The bare server has no ``GET /``.)"""
    try:
        nodes = get_json(f"{url}/_nodes/_local?filter_path=nodes.*.version", timeout)["nodes"]
        return str(next(iter(nodes.values()))["version"])
    except (OSError, ValueError, KeyError, StopIteration):
        return None


def wait_for_primaries(url: str, seconds: int) -> None:
    """Wait until all primary shards are there. Not for ever: one broken index must not make all others unreachable."""
    with contextlib.suppress(OSError, ValueError):  # 408 when the time is over
        get_json(f"{url}/_cluster/health?wait_for_status=yellow&timeout={seconds}s", seconds + 5)
