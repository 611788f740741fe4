"""The embedded Elasticsearch as its users see it: acquire a lease, use its URL, release it.

What belongs here: who starts the node, who stops it, and what is said when it dies. What does not: what runs inside
the node's process (``elasticsearch_node.py``), and any use of the Elasticsearch API.

One node for a data folder, however many processes ask. Each holds a lease while it uses the node; the last to release
it stops the node, unless it is marked to be kept. A process that is killed loses its lease with its life, and the node
ends by itself soon after. ``node_state.py`` says which locks make this so.
"""

import atexit
import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import filelock

from segmentation_assets.errors import SegmentsError
from segmentation_assets.local.elasticsearch_node import ALREADY_RUNNING
from segmentation_assets.local.heap import heap_megabytes
from segmentation_assets.local.jars import ensure_jars
from segmentation_assets.local.node_state import (
    NodeFiles,
    NodeState,
    open_lock,
    release,
    share,
    try_exclusive,
    version_of,
)
from segmentation_assets.local.processes import STOP_SECONDS, end, resident_bytes, rotate, spawn, tail
from segmentation_assets.paths import DataDir

_DYING_SECONDS = 2.0
_INSTEAD = "Or set ELASTICSEARCH_URL to use a cluster you have."


class EmbeddedElasticsearchError(SegmentsError):
    """The embedded Elasticsearch could not be started, joined or stopped."""


class EmbeddedElasticsearchDied(EmbeddedElasticsearchError):
    """The node's process ended by itself. The message ends with the last lines of its log."""


@dataclass(frozen=True)
class Status:
    """What is known about the node of a data folder. ``dead``: it was killed, and its state file tells of it."""

    state: Literal["running", "starting", "stopped", "dead"]
    data: Path
    log: Path
    url: str | None = None
    pid: int | None = None
    port: int | None = None
    version: str | None = None
    heap_megabytes: int | None = None
    resident_bytes: int | None = None
    seconds_up: float | None = None
    kept: bool = False


@dataclass
class Lease:
    """The right to use the node until ``release``. Also a context manager."""

    url: str
    version: str
    started_here: bool
    _owner: "EmbeddedElasticsearch" = field(repr=False)
    _state: NodeState = field(repr=False)
    _process: int = field(default_factory=os.getpid, repr=False)
    _released: bool = field(default=False, repr=False)

    def release(self) -> None:
        """Stop using the node. Its last user stops it, and waits for that, unless it is kept.

        Calling this twice is harmless.
        """
        # A forked child has a copy of this object, but the lease is its parent's.
        if not self._released and self._process == os.getpid():
            self._released = True
            self._owner._release(self._state)

    def check(self) -> None:
        """Raise ``EmbeddedElasticsearchDied`` if the node is gone: call it when a request could not connect."""
        # A killed process closes its connections before it is gone: giving back a gigabyte of heap takes a moment.
        deadline = time.monotonic() + _DYING_SECONDS
        while self._state.process() is not None:
            if time.monotonic() > deadline:
                return
            time.sleep(0.02)
        raise self._owner._died("The embedded Elasticsearch has died.")

    def __enter__(self) -> "Lease":
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


class EmbeddedElasticsearch:
    """The node of one data folder. Objects of this class hold nothing; make as many as you like.

    Args:
        data: the data folder.
        linger_seconds: how long a node that this starts waits for a user before it ends by itself.
        start_seconds: how long a start may take.
    """

    def __init__(self, data: DataDir, *, linger_seconds: float = 15.0, start_seconds: float = 60.0) -> None:
        self.files = NodeFiles(data.elasticsearch)
        self._linger_seconds = linger_seconds
        self._start_seconds = start_seconds

    def acquire(self, keep: bool = False, on_progress: Callable[[str], None] | None = None) -> Lease:
        """Join the running node, or start one.

        Args:
            keep: let it run on when nobody uses it any more.
            on_progress: told, in a few words, what takes time.

        Raises:
            EmbeddedElasticsearchDied: it ended while it started.
            EmbeddedElasticsearchError: it did not come up in time, or the data folder cannot be used.
            JarDownloadError: it is not downloaded yet, and cannot be.
        """
        _refuse_windows()
        heap_megabytes()  # says what is wrong with the setting, even if another process happens to start the node
        if _alive(self.files) is None:
            ensure_jars()  # before the lock: nobody should wait for this download who need not
        with self._start_lock():
            _hold(self.files)
            try:
                state, started_here = self._join_or_start(keep, on_progress or (lambda _: None))
                if keep and not state.kept:
                    state = replace(state, kept=True)
                    state.write(self.files.state)
            except BaseException:
                _let_go(self.files)
                raise
        return Lease(state.url, state.version, started_here, self, state)

    def keep(self) -> bool:
        """Mark the running node to be kept when nobody uses it any more. False if none runs."""
        if _alive(self.files) is None:
            return False
        with self._start_lock():
            state = _alive(self.files)
            if state is None:
                return False
            replace(state, kept=True).write(self.files.state)
        return True

    def stop(self) -> bool:
        """Stop the node, whoever started it and whoever uses it. False if none ran."""
        if not self.files.root.exists():
            return False
        with self._start_lock():
            state = NodeState.read(self.files.state)
            if state is None:
                return False
            ran = end(state.process())
            state.remove(self.files.state)  # a killed one could not do it itself
        return ran

    def url(self) -> str | None:
        """Where the node answers; None if none runs."""
        state = _alive(self.files)
        return state.url if state is not None and state.ready else None

    def status(self) -> Status:
        """What is known about the node. Starts and changes nothing."""
        files, state = self.files, NodeState.read(self.files.state)
        if state is None:
            return Status("stopped", files.data, files.log)
        process = state.process()
        if process is None:
            return Status(
                "dead", files.data, files.log, pid=state.pid, heap_megabytes=state.heap_megabytes, kept=state.kept
            )
        return Status(
            "running" if state.ready else "starting",
            files.data,
            files.log,
            url=state.url or None,
            pid=state.pid,
            port=state.port or None,
            version=state.version or None,
            heap_megabytes=state.heap_megabytes,
            resident_bytes=resident_bytes(process),
            seconds_up=max(time.time() - state.created, 0.0),
            kept=state.kept,
        )

    def _join_or_start(self, keep: bool, say: Callable[[str], None]) -> tuple[NodeState, bool]:
        """Give the state of a node that answers, and whether this call started it. The caller holds the start lock."""
        deadline = time.monotonic() + self._start_seconds
        while time.monotonic() < deadline:
            state = _alive(self.files)
            if state is not None:  # perhaps still starting, for a process that was killed meanwhile
                joined = self._wait_for(state, deadline)
                if joined is not None:
                    return joined, False
                continue
            say("starting Elasticsearch")
            started = self._start(keep, deadline)
            if started is not None:
                return started, True
            time.sleep(0.2)  # another process is this folder's node, but has not said so yet, or is about to end
        raise EmbeddedElasticsearchError(
            f"The embedded Elasticsearch in {self.files.root} runs but does not answer.",
            f"Run `segments elasticsearch stop` and try again. {_INSTEAD}",
        )

    def _wait_for(self, state: NodeState, deadline: float) -> NodeState | None:
        """Wait for a node somebody else started; None when it ends instead."""
        while time.monotonic() < deadline:
            found = _alive(self.files)
            if found is None or found.pid != state.pid:
                return None
            if found.ready and version_of(found.url):
                return found
            time.sleep(0.1)
        return None

    def _start(self, keep: bool, deadline: float) -> NodeState | None:
        """Start the node and wait until it answers. None when it turned out that another process is the node."""
        jars = ensure_jars()
        rotate(self.files.log)
        said_before = self.files.log.stat().st_size if self.files.log.exists() else 0
        module = [sys.executable, "-m", "segmentation_assets.local.elasticsearch_node"]
        arguments = ["--root", str(self.files.root), "--jars", str(jars), "--heap", str(heap_megabytes())]
        arguments += ["--linger", str(self._linger_seconds), *(["--keep"] if keep else [])]
        child = spawn(module + arguments, self.files.log)
        _children.append(child)
        while time.monotonic() < deadline:
            code = child.poll()
            if code == ALREADY_RUNNING:
                return None
            if code is not None:
                raise self._died(f"The embedded Elasticsearch ended while it started (exit code {code}).", said_before)
            state = NodeState.read(self.files.state)
            if state is not None and state.pid == child.pid and state.ready:
                return state
            time.sleep(0.05)
        child.kill()
        child.wait()
        raise self._died(f"The embedded Elasticsearch did not come up within {self._start_seconds:.0f} s.", said_before)

    def _release(self, state: NodeState) -> None:
        """Give one lease of this process back, and stop the node if it was the last of all."""
        if not _let_go(self.files):
            return
        if not self.files.root.exists():  # the data folder was deleted under the node; nobody else can find it any more
            end(state.process())
            return
        with self._start_lock():
            current = _alive(self.files)
            if current is None or current.kept:
                return
            lease = open_lock(self.files.lease_lock)
            try:
                if try_exclusive(lease):
                    end(current.process())
                    current.remove(self.files.state)
            finally:
                os.close(lease)

    @contextlib.contextmanager
    def _start_lock(self) -> Iterator[None]:
        """Be the only one who starts, joins or stops the node of this folder."""
        patience = self._start_seconds + STOP_SECONDS + 10
        lock = filelock.FileLock(self.files.start_lock, timeout=patience)
        try:
            self.files.root.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except filelock.Timeout:
            raise EmbeddedElasticsearchError(
                f"Another process has been starting or stopping the embedded Elasticsearch for {patience:.0f} s.",
                f"Find who holds {self.files.start_lock} and end it. {_INSTEAD}",
            ) from None
        except OSError as error:
            raise EmbeddedElasticsearchError(
                f"The folder {self.files.root} cannot be used: {error.strerror or error}.",
                f"Make it writable, or choose another with SEGMENTS_HOME. {_INSTEAD}",
            ) from error
        try:
            yield
        finally:
            lock.release()

    def _died(self, what: str, said_before: int = 0) -> EmbeddedElasticsearchDied:
        last = "\n".join(f"  {line}" for line in tail(self.files.log, said_before)) or "  (nothing)"
        return EmbeddedElasticsearchDied(
            what,
            f"Try again; what it had acknowledged is safe. {_INSTEAD} The end of its log, {self.files.log}:\n{last}",
        )


def _refuse_windows() -> None:
    if sys.platform == "win32":
        raise EmbeddedElasticsearchError(
            "The embedded Elasticsearch runs on Linux and macOS only.",
            "Set ELASTICSEARCH_URL to use a cluster you have, or run this under WSL.",
        )


def _alive(files: NodeFiles) -> NodeState | None:
    """The state file, if the process it names lives."""
    state = NodeState.read(files.state)
    return state if state is not None and state.process() is not None else None


# The leases of this process: for each lease file the descriptor that shares its lock, and how many leases stand on it.
# One process shares a lock only once, since the kernel counts open files, not users.
_held: dict[Path, list[int]] = {}
_held_guard = threading.RLock()
# Nodes this process started. Kept, because a Popen object complains when it is dropped while its process runs.
_children: list[subprocess.Popen[bytes]] = []


def _hold(files: NodeFiles) -> None:
    """Take a lease. The caller holds the start lock, so nobody has the lease lock alone."""
    with _held_guard:
        entry = _held.get(files.lease_lock)
        if entry is not None and not _is_at(entry[0], files.lease_lock):
            os.close(entry[0])  # the data folder was deleted and made anew: this one protects nothing any more
            entry[0] = open_lock(files.lease_lock)
            share(entry[0])
        if entry is None:
            entry = _held[files.lease_lock] = [open_lock(files.lease_lock), 0]
            share(entry[0])
        entry[1] += 1


def _let_go(files: NodeFiles) -> bool:
    """Give a lease back. True when it was this process's last on that node."""
    with _held_guard:
        entry = _held.get(files.lease_lock)
        if entry is None:
            return False
        entry[1] -= 1
        if entry[1] > 0:
            return False
        del _held[files.lease_lock]
        release(entry[0])  # explicitly: closing would not be enough if a forked child has a copy
        os.close(entry[0])
        return True


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except OSError:
        return False


def _forget_after_fork() -> None:
    """In a forked child: the leases are the parent's. An open copy would outlive a killed parent, so close it."""
    global _held_guard
    _held_guard = threading.RLock()  # another thread of the parent may have held it
    for descriptor, _count in _held.values():
        with contextlib.suppress(OSError):
            os.close(descriptor)
    _held.clear()
    for child in _children:
        child.returncode = 0  # not ours to wait for
    _children.clear()


@atexit.register
def _release_everything() -> None:
    """A process that forgot to release does it when it ends."""
    for lease_lock in list(_held):
        embedded = EmbeddedElasticsearch(DataDir(lease_lock.parent.parent))
        state = NodeState.read(embedded.files.state)
        _held[lease_lock][1] = 1
        if state is None:
            _let_go(embedded.files)
        else:
            embedded._release(state)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_after_fork)
