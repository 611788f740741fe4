"""What all servers that run here have in common: start or join one, ask how it is, stop it.

What belongs here: the contract, and the launcher of those that are one process of their own. What does not: anything
about a particular server (``kafka.py``, ``redis.py``, ``mqtt.py``), or about several (``services.py``).

A server runs until somebody stops it; who started it may be long gone. Two locks, both given back by the kernel when
their holder dies, however it dies:

- ``start.lock``: held while anybody starts, joins or stops the server.
- ``process.lock``: inherited by the server's process, which holds it for its whole life: there is never a second one.
"""

import contextlib
import json
import os
import subprocess
import sys
import time
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar, Literal

import filelock
import psutil

from segmentation_assets.errors import SegmentsError
from segmentation_assets.local.node_state import open_lock, try_exclusive
from segmentation_assets.local.processes import (
    STOP_SECONDS,
    end,
    is_free,
    living,
    resident_bytes,
    rotate,
    spawn,
    tail,
)
from segmentation_assets.paths import DataDir

_START_SECONDS = 60.0
_POLL_SECONDS = 0.05
_DYING_SECONDS = 3.0
_ATTEMPTS = 3  # when others take a port between the moment it was found free and the moment the server takes it


class ServiceError(SegmentsError):
    """A server that runs here could not be started, joined or stopped."""


class ServiceDied(ServiceError):
    """A server's process ended by itself. The message ends with the last lines of its log."""


@dataclass(frozen=True)
class Running:
    """A server that answers.

    Attributes:
        address: host and port, ``127.0.0.1:9092``.
        url: how its clients take it: ``redis://127.0.0.1:6379/0``; for Kafka the bootstrap address.
        started_here: False when it ran already.
    """

    name: str
    address: str
    url: str
    pid: int
    started_here: bool


@dataclass(frozen=True)
class ServiceStatus:
    """What is known about a server. ``dead``: it was killed, and its state file tells of it.

    Attributes:
        resident_bytes: the memory its process occupies.
        log_tail: the last lines of its log; only of a dead one.
    """

    name: str
    state: Literal["running", "starting", "stopped", "dead"]
    data: Path
    log: Path
    address: str | None = None
    url: str | None = None
    pid: int | None = None
    resident_bytes: int | None = None
    seconds_up: float | None = None
    log_tail: tuple[str, ...] = ()


class LocalService(ABC):
    """A server of one data folder. Objects hold nothing that runs; make as many as you like.

    As a context manager it runs inside the block: it is stopped at the end unless it ran before.
    """

    name: ClassVar[str]
    variable: ClassVar[str | None]
    """The environment variable that leads clients to it; None where they find it by themselves."""

    _started_here = False

    @abstractmethod
    def start(self, on_progress: Callable[[str], None] | None = None) -> Running:
        """Join the running server, or start one that runs until ``stop``.

        Args:
            on_progress: told, in a few words, what takes time.

        Raises:
            ServiceDied: it ended while it started.
            ServiceError: it did not come up in time, what it needs is not installed, or the folder cannot be used.
        """

    @abstractmethod
    def stop(self) -> bool:
        """Stop the server, whoever started it. False if none ran."""

    @abstractmethod
    def status(self) -> ServiceStatus:
        """What is known about the server. Starts and changes nothing."""

    @property
    def address(self) -> str | None:
        """Host and port where it answers; None when it does not run."""
        found = self.status()
        return found.address if found.state == "running" else None

    def __enter__(self) -> Running:
        running = self.start()
        self._started_here = running.started_here
        return running

    def __exit__(self, *_: object) -> None:
        if self._started_here:
            self.stop()


@dataclass(frozen=True)
class ServiceFiles:
    """The layout of the folder of one server."""

    root: Path
    name: str

    @property
    def data(self) -> Path:
        """What it keeps."""
        return self.root / "data"

    @property
    def log(self) -> Path:
        """All output of its process."""
        return self.root / "logs" / f"{self.name}.log"

    @property
    def state(self) -> Path:
        """The state file, there while it runs (or after it was killed)."""
        return self.root / "state.json"

    @property
    def ready(self) -> Path:
        """Where a server whose process is our own Python writes its pid once it answers."""
        return self.root / "ready"

    @property
    def last_ports(self) -> Path:
        """The ports used last, preferred at the next start so that addresses stay right."""
        return self.root / "ports.json"

    @property
    def start_lock(self) -> Path:
        """See the module's docstring."""
        return self.root / "start.lock"

    @property
    def process_lock(self) -> Path:
        """See the module's docstring."""
        return self.root / "process.lock"


@dataclass(frozen=True)
class ServiceState:
    """What the state file says."""

    pid: int
    created: float
    ports: tuple[int, ...]

    def process(self) -> psutil.Process | None:
        """The server's process, or None if it is gone."""
        return living(self.pid, self.created)

    def write(self, path: Path) -> None:
        """Write the state file in one step."""
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        temporary.write_text(json.dumps(asdict(self)) + "\n", encoding="utf-8")
        os.replace(temporary, path)

    @classmethod
    def read(cls, path: Path) -> "ServiceState | None":
        """Read the state file; None when there is none, or none that makes sense."""
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            return cls(int(found["pid"]), float(found["created"]), tuple(map(int, found["ports"])))
        except (OSError, ValueError, TypeError, KeyError):
            return None


class ChildService(LocalService):
    """A server that is one process, started here and left to itself.

    Args:
        data: the data folder.
        start_seconds: how long a start may take.
    """

    ports: ClassVar[range]
    """Below those that the system gives to outgoing connections: a client that tries again and again to reach a server
    that is gone could otherwise be given the server's own port."""
    number_of_ports: ClassVar[int] = 1

    def __init__(self, data: DataDir, *, start_seconds: float = _START_SECONDS) -> None:
        self.files = ServiceFiles(data.root / "services" / self.name, self.name)
        self._start_seconds = start_seconds

    @abstractmethod
    def prepare(self) -> None:
        """Fetch or find what is needed to start; raise a ``SegmentsError`` when it cannot be had."""

    @abstractmethod
    def command(self, ports: Sequence[int]) -> list[str | Path]:
        """The program and its arguments. Called after ``prepare``; the data folder is there."""

    @abstractmethod
    def url(self, address: str) -> str:
        """How clients take the address."""

    def answers(self, pid: int, ports: Sequence[int]) -> bool:
        """Whether this very process answers: by default, whether it has written so."""
        try:
            return self.files.ready.read_text() == str(pid)
        except OSError:
            return False

    def start(self, on_progress: Callable[[str], None] | None = None) -> Running:
        """Join the running server, or start one that runs until ``stop``.

        Raises:
            ServiceDied: it ended while it started.
            ServiceError: it did not come up in time, what it needs is not installed, or the folder cannot be used.
            JarDownloadError: it is not downloaded yet, and cannot be.
        """
        if sys.platform == "win32":
            raise ServiceError(
                f"{self.name} can be started here on Linux and macOS only.", f"Set {self.variable} to one you have."
            )
        if _alive(self.files) is None:
            self.prepare()  # before the lock: nobody should wait for a download who need not
        with self._start_lock():
            deadline = time.monotonic() + self._start_seconds
            state = _alive(self.files)
            if state is not None:  # perhaps still starting, for a process that was killed meanwhile
                if self._wait_for(state, deadline):
                    return self._running(state, started_here=False)
                if state.process() is not None:
                    raise ServiceError(
                        f"{self.name} in {self.files.root} runs but does not answer.",
                        f"Run `segments services stop {self.name}` and try again.",
                    )
            if on_progress is not None:
                on_progress(f"starting {self.name}")
            return self._running(self._start(deadline), started_here=True)

    def stop(self) -> bool:
        """Stop the server, whoever started it, and wait until it is gone. False if none ran."""
        if not self.files.root.exists():
            return False
        with self._start_lock():
            state = ServiceState.read(self.files.state)
            ran = state is not None and end(state.process())
            for file in (self.files.state, self.files.ready):
                file.unlink(missing_ok=True)
        return ran

    def status(self) -> ServiceStatus:
        """What is known about the server. Starts and changes nothing."""
        files, state = self.files, ServiceState.read(self.files.state)
        if state is None:
            return ServiceStatus(self.name, "stopped", files.data, files.log)
        process = state.process()
        if process is None:
            return ServiceStatus(
                self.name, "dead", files.data, files.log, pid=state.pid, log_tail=tuple(tail(files.log))
            )
        address = _address(state)
        return ServiceStatus(
            self.name,
            "running" if self.answers(state.pid, state.ports) else "starting",
            files.data,
            files.log,
            address=address,
            url=self.url(address),
            pid=state.pid,
            resident_bytes=resident_bytes(process),
            seconds_up=max(time.time() - state.created, 0.0),
        )

    def _running(self, state: ServiceState, *, started_here: bool) -> Running:
        address = _address(state)
        return Running(self.name, address, self.url(address), state.pid, started_here)

    def _wait_for(self, state: ServiceState, deadline: float) -> bool:
        """Wait until the process answers. False when it ended, or the time is over."""
        while time.monotonic() < deadline and state.process() is not None:
            if self.answers(state.pid, state.ports):
                return True
            time.sleep(_POLL_SECONDS)
        return False

    def _start(self, deadline: float) -> ServiceState:
        """Start the process and wait until it answers. The caller holds the start lock."""
        self.prepare()
        self.files.data.mkdir(parents=True, exist_ok=True)
        rotate(self.files.log)
        said_before = self.files.log.stat().st_size if self.files.log.exists() else 0
        for attempt in range(1, _ATTEMPTS + 1):
            # A killed process lets go of its sockets when its last thread is gone, a moment after it is a zombie.
            patience = _DYING_SECONDS if attempt == 1 and ServiceState.read(self.files.state) is not None else 0.0
            ports = _free_ports(self.files.last_ports, self.ports, self.number_of_ports, patience)
            if len(ports) < self.number_of_ports:
                raise ServiceError(
                    f"All ports from {self.ports[0]} to {self.ports[-1]} are taken: {self.name} needs one.",
                    "End some of the programs that listen there.",
                )
            child, state = self._spawn(ports, deadline)
            try:
                if self._wait_for(state, deadline):
                    self.files.last_ports.write_text(json.dumps(ports))
                    return state
                code = child.poll()
            except BaseException:
                child.kill()
                raise
            if code is None:
                child.kill()
                child.wait()
                raise self._died(f"{self.name} did not come up within {self._start_seconds:.0f} s.", said_before)
            if attempt == _ATTEMPTS or all(map(is_free, ports)):
                raise self._died(f"{self.name} ended while it started (exit code {code}).", said_before)
        raise AssertionError("unreachable")

    def _spawn(self, ports: list[int], deadline: float) -> tuple[subprocess.Popen[bytes], ServiceState]:
        """Start the process, let it inherit the process lock, and say so in the state file."""
        self.files.ready.unlink(missing_ok=True)
        lock = open_lock(self.files.process_lock)
        try:
            while not try_exclusive(lock):  # a killed server's own children may live for a moment
                if time.monotonic() > deadline:
                    raise ServiceError(
                        f"Another process works on {self.files.root}, and its state file does not tell which.",
                        f"Find who holds {self.files.process_lock} and end it.",
                    )
                time.sleep(_POLL_SECONDS)
            child = spawn(self.command(ports), self.files.log, inherited=[lock])
        finally:
            os.close(lock)
        _children.append(child)
        try:
            created = psutil.Process(child.pid).create_time()
        except psutil.NoSuchProcess:  # ended at once, and somebody else in this process has looked at it
            created = time.time()
        state = ServiceState(child.pid, created, tuple(ports))
        state.write(self.files.state)
        return child, state

    def _died(self, what: str, said_before: int) -> ServiceDied:
        self.files.state.unlink(missing_ok=True)
        last = "\n".join(f"  {line}" for line in tail(self.files.log, said_before)) or "  (nothing)"
        return ServiceDied(
            what,
            f"Try again, or set {self.variable} to one you have. The end of its log, {self.files.log}:\n{last}",
        )

    @contextlib.contextmanager
    def _start_lock(self) -> Iterator[None]:
        """Be the only one who starts, joins or stops the server of this folder."""
        patience = self._start_seconds + STOP_SECONDS + 10
        lock = filelock.FileLock(self.files.start_lock, timeout=patience)
        try:
            self.files.root.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except filelock.Timeout:
            raise ServiceError(
                f"Another process has been starting or stopping {self.name} for {patience:.0f} s.",
                f"Find who holds {self.files.start_lock} and end it.",
            ) from None
        except OSError as error:
            raise ServiceError(
                f"The folder {self.files.root} cannot be used: {error.strerror or error}.",
                "Make it writable, or choose another with SEGMENTS_HOME.",
            ) from error
        try:
            yield
        finally:
            lock.release()


# Servers this process started. Kept, because a Popen object complains when it is dropped while its process runs.
_children: list[subprocess.Popen[bytes]] = []


def is_still_wanted(files: ServiceFiles) -> bool:
    """For the process of a server: whether its state file still names it. If not, its folder is gone; so is its use.

    The launcher writes the file before the process can come here.
    """
    state = ServiceState.read(files.state)
    return state is not None and state.pid == os.getpid()


def _alive(files: ServiceFiles) -> ServiceState | None:
    """The state file, if the process it names lives."""
    state = ServiceState.read(files.state)
    return state if state is not None and state.process() is not None else None


def _address(state: ServiceState) -> str:
    return f"127.0.0.1:{state.ports[0]}"


def _free_ports(remembered: Path, allowed: range, number: int, patience: float = 0.0) -> list[int]:
    """The ports used last where they are free, else the first free ones. Fewer when there are not enough.

    Each folder begins to look at a place of its own: the port of a server that was killed is then not what the next
    new one takes. For those used last it is waited, for so many seconds in all.
    """
    begin = zlib.crc32(str(remembered).encode()) % len(allowed)
    try:
        last = [int(port) for port in json.loads(remembered.read_text()) if int(port) in allowed]
    except (OSError, ValueError, TypeError):
        last = []
    deadline = time.monotonic() + patience
    while not all(map(is_free, last)) and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
    found: list[int] = []
    for port in dict.fromkeys([*last, *allowed[begin:], *allowed[:begin]]):
        if len(found) == number:
            break
        if is_free(port):
            found.append(port)
    return found


def require(module: str, what: str) -> Path:
    """Where a package of the extra lies that ``what`` needs. It is not imported.

    Raises:
        ServiceError: it is not installed.
    """
    from importlib.util import find_spec

    spec = find_spec(module)
    if spec is None or spec.origin is None:
        raise ServiceError(
            f"{what} needs the extra [stream].", "Install it: pip install 'segmentation-assets[stream]'."
        )
    return Path(spec.origin).parent
