"""The jars of the servers that run here: which ones, with which checksums, and how they get into the cache folder.

What belongs here: reading a committed list, downloading, verifying. What does not: starting anything from them.

Made for interruption: a jar is downloaded into a staging folder, verified, and only then moved into place in one step.
Whatever was moved is whole, so a download that was cut off at any point is finished, not repeated, by the next call.

A list (``jars.lock.json``, ``kafka_jars.lock.json``) is regenerated, for another version of the server, by editing the
roots of its set below and running ``python -m segmentation_assets.local.jars lock`` with the name of the set.
"""

import hashlib
import json
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import filelock

from segmentation_assets.errors import SegmentsError
from segmentation_assets.paths import cache_dir

MIRROR_VARIABLE = "SEGMENTS_MAVEN_REPOSITORY"
_THREADS = 4
_ATTEMPTS = 3
# Seconds to connect, and without a byte (jgo hands them on to requests): its own 10 for both is short for a slow line.
_TIMEOUT = (10, 60)


class JarDownloadError(SegmentsError):
    """A jar could not be had: the registry is unreachable, does not hold it, or sent something else."""

    def __init__(self, problem: str, jar_set: "JarSet") -> None:
        super().__init__(
            problem,
            f"Try again (what was already downloaded is kept); or {jar_set.instead}, "
            f"which needs no download; or set {MIRROR_VARIABLE} to a Maven repository you can reach.",
        )


class DownloadProgress(Protocol):
    """What is told how far the download is."""

    def __call__(self, done_bytes: int, total_bytes: int, name: str) -> None:
        """Called from several threads, one at a time; ``name`` is the jar that moved last."""


@dataclass(frozen=True, order=True)
class Jar:
    """One locked artifact."""

    group: str
    artifact: str
    version: str
    sha256: str
    size: int

    @property
    def file_name(self) -> str:
        """Its name in the jars folder."""
        return f"{self.artifact}-{self.version}.jar"

    @property
    def coordinate(self) -> str:
        """Its Maven coordinate, for people."""
        return f"{self.group}:{self.artifact}:{self.version}"

    def is_whole(self, path: Path) -> bool:
        """Whether ``path`` holds exactly this jar."""
        if not path.is_file() or path.stat().st_size != self.size:
            return False
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == self.sha256


@dataclass(frozen=True)
class JarSet:
    """All jars of one server.

    Attributes:
        name: the server, for people.
        lock_file: the committed list.
        folder: the name of its folder in the cache. One for each set: whoever waits for a download waits for their own.
        roots: the Maven coordinates that were resolved to make the list.
        instead: what a user can do who cannot download, as a part of a sentence.
    """

    name: str
    lock_file: Path
    folder: str
    roots: tuple[str, ...]
    instead: str


ELASTICSEARCH = JarSet(
    name="Elasticsearch",
    lock_file=Path(__file__).with_name("jars.lock.json"),
    folder="jars",
    roots=("org.elasticsearch:elasticsearch:9.5.3", "org.elasticsearch.plugin:transport-netty4:9.5.3"),
    instead="set ELASTICSEARCH_URL to use a cluster you have",
)
KAFKA = JarSet(
    name="Kafka",
    lock_file=Path(__file__).with_name("kafka_jars.lock.json"),
    folder="kafka-jars",
    # The broker writes its log through SLF4J, which needs to be led to Log4j.
    roots=("org.apache.kafka:kafka_2.13:4.3.0", "org.apache.logging.log4j:log4j-slf4j-impl:2.25.4"),
    instead="set SEGMENTS_KAFKA to use brokers you have",
)
JAR_SETS = {jar_set.name.lower(): jar_set for jar_set in (ELASTICSEARCH, KAFKA)}
"""Every set by the name that the command line of this module takes."""


def locked_jars(jar_set: JarSet = ELASTICSEARCH) -> list[Jar]:
    """The jars of a set's committed lock file."""
    return [Jar(**entry) for entry in json.loads(jar_set.lock_file.read_text(encoding="utf-8"))]


def ensure_jars(progress: DownloadProgress | None = None, jar_set: JarSet = ELASTICSEARCH) -> Path:
    """Give the folder that holds every jar of a set, downloading what is missing. Offline once they are there.

    Args:
        progress: told about a download, if there is one; by default a bar (terminal) or a few lines on stderr.
        jar_set: whose jars.

    Raises:
        JarDownloadError: something is missing and could not be downloaded.
    """
    folder = cache_dir() / jar_set.folder
    jars = locked_jars(jar_set)
    # The marker says that these jars were verified once; then their sizes are enough, and start-up stays quick.
    marker = folder / f".verified-{hashlib.sha256(jar_set.lock_file.read_bytes()).hexdigest()[:16]}"
    if _looks_complete(folder, jars, marker):
        return folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(folder / ".lock"):
            if not _looks_complete(folder, jars, marker):  # another process may have done it while this one waited
                missing = [jar for jar in jars if not jar.is_whole(folder / jar.file_name)]
                _complete(folder, missing, jar_set, progress)
                marker.touch()
    except OSError as error:
        raise JarDownloadError(f"The jars of {jar_set.name} cannot be stored in {folder}: {error}.", jar_set) from error
    return folder


def _looks_complete(folder: Path, jars: list[Jar], marker: Path) -> bool:
    def size(jar: Jar) -> int:
        try:
            return (folder / jar.file_name).stat().st_size
        except OSError:
            return -1

    return marker.exists() and all(size(jar) == jar.size for jar in jars)


def _complete(folder: Path, missing: list[Jar], jar_set: JarSet, progress: DownloadProgress | None) -> None:
    """Download ``missing`` into ``folder``. The caller holds the lock."""
    if not missing:
        return
    staging = folder / ".staging"
    shutil.rmtree(staging, ignore_errors=True)  # left by a killed process; nothing in it can be trusted
    try:
        with _reporting(progress, jar_set.name) as report:
            counter = _Counter(report, sum(jar.size for jar in missing))
            _download_all(missing, staging, folder, jar_set, counter)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _download_all(missing: list[Jar], staging: Path, folder: Path, jar_set: JarSet, counter: "_Counter") -> None:
    pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="jars")
    try:
        # largest first, so that no big one is left to a single thread at the end
        futures = [
            pool.submit(_download, jar, staging, folder, jar_set, counter)
            for jar in sorted(missing, key=lambda jar: jar.size, reverse=True)
        ]
        for future in as_completed(futures):
            future.result()
    finally:
        counter.cancelled.set()  # after an error or Ctrl-C, the other threads stop at their next chunk
        pool.shutdown(cancel_futures=True)


def _download(jar: Jar, staging: Path, folder: Path, jar_set: JarSet, counter: "_Counter") -> None:
    """Fetch one jar, verify it, move it into place. Retries when the line failed, never when the answer was wrong."""
    import requests

    for attempt in range(1, _ATTEMPTS + 1):
        # a folder of its own for each attempt: jgo insists that its target does not exist yet
        context = _maven(staging / f"{jar.artifact}-{attempt}", counter.progress_of(jar))
        artifact = context.project(jar.group, jar.artifact).at_version(jar.version).artifact()
        try:
            fetched = Path(context.resolver.download(artifact))
        except requests.RequestException as error:
            counter.rewind(jar)
            if attempt < _ATTEMPTS and not counter.cancelled.wait(attempt):
                continue
            raise JarDownloadError(
                f"{jar.coordinate} could not be downloaded from {_repository()}: {_reason(error)}.", jar_set
            ) from None
        except RuntimeError:  # jgo says this for every answer but 200
            if counter.cancelled.is_set():
                raise
            raise JarDownloadError(f"{_repository()} does not have {jar.coordinate}.", jar_set) from None
        if not jar.is_whole(fetched):
            raise JarDownloadError(
                f"{_repository()} sent something else than {jar.coordinate}: its checksum is not the one this package "
                f"was made with ({fetched.stat().st_size} bytes received, {jar.size} expected). It was thrown away.",
                jar_set,
            )
        with fetched.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(fetched, folder / jar.file_name)
        counter.finish(jar)
        return


def _maven(cache: Path, progress: Any = None) -> Any:
    """A jgo context that writes to ``cache`` only. Imported late: an offline start needs no Maven client."""
    from jgo.maven import MavenContext, PythonResolver

    mirror = _mirror()
    return MavenContext(
        resolver=PythonResolver(progress_callback=progress),
        repo_cache=cache,
        local_repos=[],
        remote_repos={"mirror": mirror} if mirror else None,
        timeout=_TIMEOUT,  # type: ignore[arg-type]
    )


def _mirror() -> str | None:
    mirror = os.environ.get(MIRROR_VARIABLE, "").strip().rstrip("/")
    if mirror and (urlsplit(mirror).scheme not in ("http", "https") or not urlsplit(mirror).hostname):
        raise SegmentsError(f"{MIRROR_VARIABLE} is not an http(s) address.", "Set it to one, or unset it.")
    return mirror or None


def _repository() -> str:
    """How an error names the registry: never with the user name and password that an address may hold."""
    mirror = _mirror()
    if mirror is None:
        return "the public Maven repository"
    parts = urlsplit(mirror)
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{parts.hostname}{port}{parts.path}"


def _reason(error: Exception) -> str:
    """The last cause in one short line. The text of a requests error is a nest of object representations."""
    import requests

    kinds: list[tuple[type[Exception], str]] = [
        (requests.exceptions.ProxyError, "the proxy refused"),
        (requests.exceptions.SSLError, "its certificate is not trusted"),
        (requests.Timeout, "no answer in time"),
        (requests.exceptions.ChunkedEncodingError, "the connection broke off"),
        (requests.ConnectionError, "it cannot be reached"),
    ]
    return next((text for kind, text in kinds if isinstance(error, kind)), type(error).__name__)


class _Counter:
    """Adds up what the threads downloaded."""

    def __init__(self, report: DownloadProgress, total: int) -> None:
        self._report = report
        self._total = total
        self._done: dict[str, int] = {}
        self._lock = threading.Lock()
        self.cancelled = threading.Event()

    def progress_of(self, jar: Jar) -> Any:
        """What jgo wants: called with (name, size), gives a context manager of a function of the bytes just read."""

        @contextmanager
        def progress(_name: str, _size: int) -> Iterator[Callable[[int], None]]:
            def update(count: int) -> None:
                if self.cancelled.is_set():
                    raise RuntimeError("cancelled")
                self._set(jar, self._done.get(jar.file_name, 0) + count)

            yield update

        return progress

    def rewind(self, jar: Jar) -> None:
        self._set(jar, 0)

    def finish(self, jar: Jar) -> None:
        self._set(jar, jar.size)

    def _set(self, jar: Jar, count: int) -> None:
        with self._lock:
            self._done[jar.file_name] = count
            self._report(sum(self._done.values()), self._total, jar.file_name)


@contextmanager
def _reporting(progress: DownloadProgress | None, server: str) -> Iterator[DownloadProgress]:
    if progress is not None:
        yield progress
    elif sys.stderr.isatty():
        with download_bar(server) as bar:
            yield bar
    else:
        yield _plain_lines(server)


@contextmanager
def download_bar(server: str) -> Iterator[DownloadProgress]:
    """A progress bar on stderr."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(f"Downloading {server} (once)", total=None)

        def update(done_bytes: int, total_bytes: int, name: str) -> None:
            bar.update(task, completed=done_bytes, total=total_bytes)

        yield update


def _plain_lines(server: str) -> DownloadProgress:
    """For a log: a line at the start and one for each further quarter."""
    said = -1

    def update(done_bytes: int, total_bytes: int, name: str) -> None:
        nonlocal said
        quarter = 4 * done_bytes // max(total_bytes, 1)
        if quarter > said:
            said = quarter
            megabytes = f"{done_bytes / 1e6:.0f} of {total_bytes / 1e6:.0f} MB"
            sys.stderr.write(f"Downloading {server} (once): {megabytes}\n")
            sys.stderr.flush()

    return update


def write_lock(cache: Path, jar_set: JarSet = ELASTICSEARCH) -> list[Jar]:
    """Resolve the roots of a set with everything they need and rewrite its lock file. For maintainers."""
    context = _maven(cache)
    found: dict[tuple[str, str], Any] = {}
    for root in jar_set.roots:
        # One at a time: jgo applies the versions that one root's parent prefers to the other roots' dependencies too.
        roots, others = context.resolver.resolve([context.create_dependency(root)])
        for artifact in (dependency.artifact for dependency in [*roots, *others]):
            found.setdefault((artifact.groupId, artifact.artifactId), artifact)  # as Maven does: the first one counts
    jars = set()
    for artifact in found.values():
        path = Path(artifact.resolve())
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        jars.add(Jar(artifact.groupId, artifact.artifactId, artifact.version, sha256, path.stat().st_size))
    if len({jar.file_name for jar in jars}) != len(jars):
        raise SegmentsError("Two jars have the same file name.", "The jars folder is flat: give it sub-folders first.")
    entries = [asdict(jar) for jar in sorted(jars)]
    jar_set.lock_file.write_text(json.dumps(entries, indent=1) + "\n", encoding="utf-8")
    return sorted(jars)


def _main(arguments: list[str]) -> int:
    import tempfile

    match arguments:
        case ["fetch" | "lock" as verb, *names] if len(names) <= 1 and set(names) <= set(JAR_SETS):
            jar_set = JAR_SETS[names[0]] if names else ELASTICSEARCH
        case _:
            sets = "|".join(JAR_SETS)
            sys.stderr.write(f"usage: python -m segmentation_assets.local.jars fetch|lock [{sets}]\n")
            return 2
    if verb == "fetch":
        started = time.monotonic()
        sys.stdout.write(f"{ensure_jars(jar_set=jar_set)} ({time.monotonic() - started:.1f} s)\n")
    else:
        with tempfile.TemporaryDirectory() as cache:
            jars = write_lock(Path(cache), jar_set)
        sys.stdout.write(f"{jar_set.lock_file}: {len(jars)} jars, {sum(jar.size for jar in jars) / 1e6:.1f} MB\n")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(_main(sys.argv[1:]))
    except SegmentsError as error:
        sys.exit(str(error))
