"""``segments doctor``: what stands between this machine and a run, with a cure for each.

What belongs here: looking, and saying what was seen. What does not: mending anything.
"""

import platform
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import psutil

from segmentation_assets.cli.session import is_embedded
from segmentation_assets.cli.terminal import err, out, print_json, table
from segmentation_assets.core.settings import Settings
from segmentation_assets.errors import SegmentsError
from segmentation_assets.paths import DataDir, cache_dir

if TYPE_CHECKING:
    from elasticsearch import Elasticsearch

PACKAGES = ("dagster", "dagster-webserver", "elasticsearch", "scikit-learn", "pandas", "numpy", "pyarrow")
MEMORY_NEEDED = 2 * 1024**3
DISK_NEEDED = 1024**3

Verdict = Literal["ok", "note", "problem"]


@dataclass(frozen=True)
class Finding:
    """One thing looked at."""

    subject: str
    verdict: Verdict
    seen: str
    cure: str = ""


def examine(data: DataDir, as_json: bool) -> int:
    """Look at everything and show it; returns 1 if there is a problem."""
    findings = [_python(), *_packages(), _memory(), _disk("data folder", data.root), _disk("cache folder", cache_dir())]
    for look in (_settings, _elasticsearch):
        findings += _guarded(look, data)
    if as_json:
        print_json({"ok": all(f.verdict != "problem" for f in findings), "findings": [asdict(f) for f in findings]})
    else:
        out.print(table("Doctor", ["subject", "verdict", "seen"], [[f.subject, f.verdict, f.seen] for f in findings]))
        for finding in findings:
            if finding.cure:
                err.print(f"{finding.subject}: {finding.cure}", soft_wrap=True, markup=False)
    return int(any(f.verdict == "problem" for f in findings))


def _guarded(look: Callable[[DataDir], list[Finding]], data: DataDir) -> list[Finding]:
    try:
        return look(data)
    except SegmentsError as error:
        return [Finding(look.__name__.strip("_"), "problem", error.problem, error.cure)]


def _python() -> Finding:
    seen = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    if sys.platform == "win32":
        return Finding(
            "python",
            "problem",
            seen,
            "The embedded Elasticsearch needs Linux or macOS; set ELASTICSEARCH_URL, or use WSL.",
        )
    return Finding("python", "ok", seen)


def _packages() -> list[Finding]:
    findings = []
    for name in PACKAGES:
        try:
            findings.append(Finding(name, "ok", version(name)))
        except PackageNotFoundError:
            findings.append(Finding(name, "problem", "not installed", "python -m pip install -e ."))
    return findings


def _memory() -> Finding:
    memory = psutil.virtual_memory()
    seen = f"{memory.available / 1024**3:.1f} of {memory.total / 1024**3:.1f} GiB free"
    if memory.available < MEMORY_NEEDED:
        return Finding(
            "memory",
            "problem",
            seen,
            "About 2 GiB are needed: close something, or set SEGMENTS_ELASTICSEARCH_HEAP=512m.",
        )
    return Finding("memory", "ok", seen)


def _disk(subject: str, path: Path) -> Finding:
    there = next(folder for folder in (path, *path.parents) if folder.exists())
    free = shutil.disk_usage(there).free
    seen = f"{path}: {free / 1024**3:.1f} GiB free"
    return (
        Finding(subject, "ok", seen)
        if free >= DISK_NEEDED
        else Finding(subject, "problem", seen, "Free at least 1 GiB, or choose another with --data-dir.")
    )


def _settings(_: DataDir) -> list[Finding]:
    from segmentation_assets.defs.resources import resolved_resources

    settings = resolved_resources()[1]
    settings.load()
    segments = ", ".join(settings.taxonomy().segments)
    return [Finding("settings", "ok", str(settings.path or "defaults")), Finding("taxonomy", "ok", segments)]


def _elasticsearch(data: DataDir) -> list[Finding]:
    if not is_embedded():
        return _indices()
    from segmentation_assets.local.elasticsearch import EmbeddedElasticsearch

    node = EmbeddedElasticsearch(data)
    if node.url() is None:
        note = Finding(
            "elasticsearch",
            "note",
            "embedded, not running",
            "It starts when it is needed; `segments elasticsearch start` starts it now.",
        )
        return [note]
    with node.acquire():
        return _indices()


def _indices() -> list[Finding]:
    from segmentation_assets.defs.resources import resolved_resources
    from segmentation_assets.io.elasticsearch import IndexMissing, server_version
    from segmentation_assets.io.session_store import count_sessions

    elasticsearch, settings, _ = resolved_resources()
    try:
        chosen = settings.load()
    except SegmentsError:  # said by _settings; the server is looked at all the same
        chosen = Settings()
    connection = elasticsearch.connection()
    with elasticsearch.client() as client:
        kind = (
            "embedded"
            if elasticsearch.embedded
            else "API key"
            if connection.api_key
            else "basic auth"
            if connection.username
            else "no credentials"
        )
        findings = [Finding("elasticsearch", "ok", f"{server_version(client) or 'reached'} ({kind})")]
        try:
            count = count_sessions(client, chosen.sessions.index)
            findings.append(
                Finding(chosen.sessions.index, "ok", f"{count:,} documents")
                if count
                else Finding(chosen.sessions.index, "problem", "empty", "segments seed, or segments import FILE")
            )
        except IndexMissing as error:
            findings.append(Finding(chosen.sessions.index, "problem", error.problem, error.cure))
        findings += [
            _attributes(client, chosen.attributes.index),
            _published(client, chosen.publish.alias, "segments run"),
            _published(client, chosen.profiles.alias, "segments run --users"),
        ]
    return findings


def _attributes(client: "Elasticsearch", index: str) -> Finding:
    """Attributes of users are no condition of a run: whoever keeps none has nothing to mend."""
    from segmentation_assets.io.elasticsearch import IndexMissing, MissingPrivilege
    from segmentation_assets.io.session_store import count_sessions

    try:
        return Finding(index, "ok", f"{count_sessions(client, index):,} documents")
    except IndexMissing:
        return Finding(index, "note", "absent, which is fine: users are then known by what they did alone")
    except MissingPrivilege:
        return Finding(index, "note", "the credentials may not read it, which is fine where no attributes are kept")


def _published(client: "Elasticsearch", alias: str, cure: str) -> Finding:
    from segmentation_assets.io.elasticsearch import MissingPrivilege
    from segmentation_assets.io.publishing import AliasTaken, published_state

    try:
        state = published_state(client, alias)
    except (AliasTaken, MissingPrivilege) as error:  # about this alias alone; the others are looked at all the same
        return Finding(alias, "problem", error.problem, error.cure)
    if state is None:
        return Finding(alias, "note", "nothing published yet", cure)
    return Finding(alias, "ok", f"{state.documents:,} documents in {state.index}")
