"""The jars: verified, downloaded once, healed after an interruption, offline afterwards; one clear error otherwise.

A local HTTP server stands in for the registry; it serves made-up jars, which are locked for these tests only.
"""

import hashlib
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from segmentation_assets.local import jars
from segmentation_assets.local.jars import ELASTICSEARCH, JAR_SETS, Jar, JarDownloadError, JarSet, ensure_jars


class Mirror(ThreadingHTTPServer):
    """A Maven repository that can be made to misbehave, by the file name of a jar."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.stuck: set[str] = set()  # sends half, then nothing
        self.cut: set[str] = set()  # sends half, then hangs up
        self.go_on = threading.Event()
        self.jar_set = ELASTICSEARCH

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Mirror

    def do_GET(self) -> None:
        name = self.path.rsplit("/", 1)[-1]
        body = self.server.files.get(self.path)
        if not name.endswith(".sha1"):
            self.server.asked.append(name)
        if body is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        half = len(body) // 2
        self.wfile.write(body[:half])
        self.wfile.flush()
        if name in self.server.stuck:
            self.server.go_on.wait(60)
        elif name not in self.server.cut:
            self.wfile.write(body[half:])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder; gives where the jars will be."""
    monkeypatch.setattr(jars, "cache_dir", lambda: tmp_path / "cache")
    return tmp_path / "cache" / "jars"


@pytest.fixture
def mirror(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mirror]:
    """A registry with three jars a-1.jar, b-1.jar, c-1.jar, which are the locked ones."""
    server = Mirror()
    locked = []
    for name, size in (("a", 300_000), ("b", 40_000), ("c", 5_000)):
        body = hashlib.sha256(name.encode()).digest() * (size // 32)
        server.files[f"/org/example/{name}/1/{name}-1.jar"] = body
        locked.append(Jar("org.example", name, "1", hashlib.sha256(body).hexdigest(), len(body)))
    lock_file = tmp_path / "jars.lock.json"
    lock_file.write_text(json.dumps([jar.__dict__ for jar in locked]))
    server.jar_set = JarSet("Example", lock_file, "jars", (), "set EXAMPLE_URL to use one you have")
    monkeypatch.setenv(jars.MIRROR_VARIABLE, server.url)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.go_on.set()
    server.shutdown()
    server.server_close()


def quiet(done_bytes: int, total_bytes: int, name: str) -> None:
    pass


def assert_complete(mirror: Mirror) -> None:
    folder = jars.cache_dir() / mirror.jar_set.folder
    assert all(jar.is_whole(folder / jar.file_name) for jar in jars.locked_jars(mirror.jar_set))
    assert not (folder / ".staging").exists()


def download(cache: Path, mirror: Mirror) -> subprocess.Popen[str]:
    """Ask for the jars in another process, with this test's cache and lock file."""
    code = (
        "from pathlib import Path; from segmentation_assets.local import jars\n"
        f"jars.cache_dir = lambda: Path({str(cache.parent)!r})\n"
        f"example = jars.JarSet('Example', Path({str(mirror.jar_set.lock_file)!r}), 'jars', (), '')\n"
        "jars.ensure_jars(jar_set=example)"
    )
    return subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("jar_set", JAR_SETS.values(), ids=list(JAR_SETS))
def test_each_lock_file_names_the_servers_jars_with_checksums(jar_set: JarSet) -> None:
    locked = jars.locked_jars(jar_set)
    assert set(jar_set.roots) <= {jar.coordinate for jar in locked}
    assert len({jar.file_name for jar in locked}) == len(locked)
    assert all(len(jar.sha256) == 64 and jar.size > 0 for jar in locked)
    assert "://" not in jar_set.lock_file.read_text()


def test_the_jars_of_kafka_are_all_of_one_version() -> None:
    """A resolver that listens to the wrong parent mixes them, and the broker then fails as it starts."""
    locked = [jar for jar in jars.locked_jars(jars.KAFKA) if jar.group == "org.apache.kafka"]
    assert len(locked) > 5
    assert len({jar.version for jar in locked}) == 1


def test_each_set_has_a_folder_and_a_way_out_of_its_own() -> None:
    assert len({jar_set.folder for jar_set in JAR_SETS.values()}) == len(JAR_SETS)
    assert "ELASTICSEARCH_URL" in str(JarDownloadError("x", jars.ELASTICSEARCH))
    assert "SEGMENTS_KAFKA" in str(JarDownloadError("x", jars.KAFKA))


@pytest.mark.parametrize("arguments", [[], ["lock", "mosquitto"], ["fetch", "kafka", "kafka"]])
def test_the_maintainers_command_says_how_it_is_used(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert jars._main(arguments) == 2
    assert "fetch|lock [elasticsearch|kafka]" in capsys.readouterr().err


def test_downloads_reports_progress_and_then_works_offline(mirror: Mirror, cache: Path) -> None:
    seen: list[tuple[int, int]] = []
    assert ensure_jars(lambda done, total, name: seen.append((done, total)), mirror.jar_set) == cache
    assert_complete(mirror)
    total = sum(jar.size for jar in jars.locked_jars(mirror.jar_set))
    assert seen[-1] == (total, total)
    assert all(done <= total for done, _ in seen)
    mirror.asked.clear()
    ensure_jars(lambda *_: pytest.fail("nothing is to be downloaded"), mirror.jar_set)
    assert mirror.asked == []


def test_without_a_terminal_a_few_lines_go_to_stderr(
    mirror: Mirror, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ensure_jars(jar_set=mirror.jar_set)
    out, err = capsys.readouterr()
    assert out == ""
    assert 1 <= len(err.splitlines()) <= 5
    assert "Downloading Example" in err


def test_another_content_is_refused_and_kept_out_of_the_cache(mirror: Mirror, cache: Path) -> None:
    path = "/org/example/b/1/b-1.jar"
    mirror.files[path] = mirror.files[path][::-1]  # same size
    with pytest.raises(JarDownloadError, match=r"org\.example:b:1.*checksum") as raised:
        ensure_jars(quiet, mirror.jar_set)
    assert "EXAMPLE_URL" in str(raised.value)
    assert not (cache / "b-1.jar").exists()
    assert not list(cache.glob(".verified-*"))


def test_a_broken_connection_is_tried_again_then_said(
    mirror: Mirror, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jars, "_ATTEMPTS", 2)
    mirror.cut.add("a-1.jar")
    with pytest.raises(JarDownloadError, match=r"org\.example:a:1 could not be downloaded.*broke off"):
        ensure_jars(quiet, mirror.jar_set)
    assert mirror.asked.count("a-1.jar") == 2
    mirror.cut.clear()
    ensure_jars(quiet, mirror.jar_set)
    assert_complete(mirror)


def test_a_truncated_or_damaged_jar_is_fetched_again_and_only_it(mirror: Mirror, cache: Path) -> None:
    ensure_jars(quiet, mirror.jar_set)
    whole = (cache / "a-1.jar").read_bytes()
    (cache / "a-1.jar").write_bytes(whole[:1000])
    mirror.asked.clear()
    ensure_jars(quiet, mirror.jar_set)
    assert mirror.asked == ["a-1.jar"]
    assert_complete(mirror)


def test_a_jar_put_there_by_something_else_is_verified_before_it_is_trusted(mirror: Mirror, cache: Path) -> None:
    cache.mkdir(parents=True)
    good, bad = mirror.files["/org/example/a/1/a-1.jar"], mirror.files["/org/example/b/1/b-1.jar"][::-1]
    (cache / "a-1.jar").write_bytes(good)
    (cache / "b-1.jar").write_bytes(bad)
    ensure_jars(quiet, mirror.jar_set)
    assert sorted(mirror.asked) == ["b-1.jar", "c-1.jar"]
    assert_complete(mirror)


def test_a_download_killed_half_way_is_finished_by_the_next(mirror: Mirror, cache: Path) -> None:
    mirror.stuck.add("a-1.jar")
    process = download(cache, mirror)
    waiting = threading.Event()
    while not ((cache / "b-1.jar").exists() and (cache / "c-1.jar").exists()):
        assert process.poll() is None
        waiting.wait(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (cache / "a-1.jar").exists()
    mirror.stuck.clear()
    mirror.asked.clear()
    ensure_jars(quiet, mirror.jar_set)
    assert mirror.asked == ["a-1.jar"]
    assert_complete(mirror)


def test_processes_asking_at_once_download_once(mirror: Mirror, cache: Path) -> None:
    processes = [download(cache, mirror) for _ in range(3)]
    for process in processes:
        _, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
    assert sorted(mirror.asked) == ["a-1.jar", "b-1.jar", "c-1.jar"]
    assert_complete(mirror)


def test_an_unreachable_registry_is_one_error_with_the_ways_out(
    mirror: Mirror, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jars, "_ATTEMPTS", 1)
    monkeypatch.setenv(jars.MIRROR_VARIABLE, "http://someone:secret@127.0.0.1:9/maven")
    with pytest.raises(JarDownloadError) as raised:
        ensure_jars(quiet, mirror.jar_set)
    message = str(raised.value)
    assert "http://127.0.0.1:9/maven" in message
    assert "cannot be reached" in message
    assert "EXAMPLE_URL" in message
    assert jars.MIRROR_VARIABLE in message
    assert "secret" not in message
    assert raised.value.__suppress_context__  # no chain of tracebacks


def test_a_registry_without_the_jar_is_said(mirror: Mirror, cache: Path) -> None:
    del mirror.files["/org/example/c/1/c-1.jar"]
    with pytest.raises(JarDownloadError, match=r"does not have org\.example:c:1"):
        ensure_jars(quiet, mirror.jar_set)


def test_a_mirror_that_is_no_address_is_refused(mirror: Mirror, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(jars.MIRROR_VARIABLE, "repo.local/maven")
    with pytest.raises(jars.SegmentsError, match=jars.MIRROR_VARIABLE):
        ensure_jars(quiet, mirror.jar_set)


def test_a_cache_that_cannot_be_written_is_said(mirror: Mirror, cache: Path) -> None:
    cache.parent.write_text("a file where the folder should be")
    with pytest.raises(JarDownloadError, match="cannot be stored"):
        ensure_jars(quiet, mirror.jar_set)
