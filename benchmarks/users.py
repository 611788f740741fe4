"""What users cost beside the main job: `segments run` and `segments run --users`, on one node.

python -m benchmarks.users [--sessions 100000] [--sessions-per-user 4.5] [--runs 3] [--json]

An embedded node is started in a folder of its own and filled with generated sessions with behaviour, and with what the
shop knows of their users. A first `segments run`, which is not counted, warms the node. Then the two ways take turns.
Each run is a process of its own with a home and aliases of its own, so that it reads, computes and writes everything.

Wall seconds, the median of the runs: of the whole process, and by asset as Dagster recorded them. CPU seconds of the
client and of the node, medians as well; peak memory is the highest resident memory of the client in any run.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Any

import psutil
from elasticsearch import Elasticsearch

from benchmarks.generated import END
from segmentation_assets.core.settings import Settings
from segmentation_assets.io.seeding import seed_sessions
from segmentation_assets.local.elasticsearch import EmbeddedElasticsearch
from segmentation_assets.paths import HOME_VARIABLE, DataDir

WAYS: dict[str, list[str]] = {"segments run": [], "segments run --users": ["--users"]}
PROFILES = "es_user_profiles"
SEED = 1


@dataclass(frozen=True)
class Run:
    """What one run cost.

    Attributes:
        wall: seconds from the start of the process to its end.
        assets: seconds by asset.
        cpu: seconds of the client, all threads.
        node_cpu: seconds of the node meanwhile.
        peak_mb: highest resident memory of the client.
        users: of the sessions that were read.
        profiles: documents published; 0 where profiles were not asked for.
        report_bytes: size of the report; 0 where it was not asked for.
    """

    wall: float
    assets: dict[str, float]
    cpu: float
    node_cpu: float
    peak_mb: float
    users: int
    profiles: int
    report_bytes: int


def main() -> None:
    """Print Markdown tables, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sessions", type=int, default=100_000)
    parser.add_argument("--sessions-per-user", type=float, default=4.5)
    parser.add_argument("--runs", type=int, default=3, help="counted runs of each way")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    runs: dict[str, list[Run]] = {name: [] for name in WAYS}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        embedded = EmbeddedElasticsearch(DataDir(root / "node"))
        with embedded.acquire() as lease:
            node = psutil.Process(embedded.status().pid)
            _say(f"seeding {options.sessions:,} sessions")
            _seed(lease.url, DataDir(root / "seeding"), options.sessions, options.sessions_per_user)
            _say("warming")
            _run(lease.url, root / "warming", [], node)
            for number in range(options.runs):
                for name, arguments in WAYS.items():
                    _say(f"{name}, {number + 1} of {options.runs}")
                    runs[name].append(_run(lease.url, root / f"{name}-{number}", arguments, node))
    if options.json:
        print(json.dumps({name: [asdict(run) for run in found] for name, found in runs.items()}, indent=1))
        return
    _show(options.sessions, runs)


def _seed(url: str, data: DataDir, sessions: int, sessions_per_user: float) -> None:
    settings = Settings()
    with Elasticsearch(url, request_timeout=120) as client:
        seed_sessions(
            client,
            settings.sessions.index,
            data,
            sessions=sessions,
            seed=SEED,
            now=END,
            end=END,
            sessions_per_user=sessions_per_user,
            attributes_index=settings.attributes.index,
        )


def _run(url: str, home: Path, arguments: Sequence[str], node: psutil.Process) -> Run:
    home.mkdir()
    name = home.name.replace(" ", "-").replace("--", "-")
    file = home / "segments.yaml"
    file.write_text(f"publish: {{alias: {name}-segments}}\nprofiles: {{alias: {name}-profiles}}\n", "utf-8")
    environment = {**os.environ, "ELASTICSEARCH_URL": url, HOME_VARIABLE: str(home)}
    environment.pop("DAGSTER_HOME", None)
    before = _cpu(node)
    with (home / "out").open("w+b") as out, (home / "err").open("w+b") as err:
        started = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-m", "segmentation_assets", "run", "--json", "--config", str(file), *arguments],
            env=environment,
            stdout=out,
            stderr=err,
        )
        cpu, peak = _watched(process)
        wall = time.perf_counter() - started
        for written in (out, err):
            written.seek(0)
        said: dict[str, Any] = json.loads(out.read() or "{}")
        if process.returncode:
            raise SystemExit(f"segments run failed ({process.returncode}): {err.read().decode()[-2000:]} {said}")
    profiles = said["profiles"]["documents"] if said["profiles"] else 0
    if profiles != (said["users"] if "--users" in arguments else 0):
        raise SystemExit(f"{said['users']} users came in and {profiles} have a profile.")
    return Run(
        wall=wall,
        assets=said["seconds"],
        cpu=cpu,
        node_cpu=_cpu(node) - before,
        peak_mb=peak,
        users=said["users"],
        profiles=profiles,
        report_bytes=Path(said["report"]).stat().st_size if said["report"] else 0,
    )


def _watched(process: subprocess.Popen[bytes]) -> tuple[float, float]:
    """CPU seconds and the highest resident memory, in MB, of a process by its end."""
    seen = psutil.Process(process.pid)
    cpu = peak = 0.0
    while process.poll() is None:
        with suppress(psutil.Error):  # it ends this very moment
            cpu, peak = _cpu(seen), max(peak, seen.memory_info().rss / 1e6)
        time.sleep(0.02)
    return cpu, peak


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _say(text: str) -> None:
    print(f"[{datetime.now():%H:%M:%S}] {text}", file=sys.stderr, flush=True)


def _show(sessions: int, runs: dict[str, list[Run]]) -> None:
    names = list(runs)
    print(f"{sessions:,} sessions of {runs[names[0]][0].users:,} users, {len(runs[names[0]])} runs of each way.\n")
    print("| way | assets, s | start, checks, stop, s | total s | min..max | client CPU s | node CPU s | peak MB |")
    print("|---|---|---|---|---|---|---|---|")
    for name, found in runs.items():
        walls = [run.wall for run in found]
        inside = [sum(run.assets.values()) for run in found]
        print(
            f"| `{name}` | {median(inside):.2f} "
            f"| {median(wall - assets for wall, assets in zip(walls, inside, strict=True)):.2f} "
            f"| {median(walls):.2f} | {min(walls):.2f}..{max(walls):.2f} | {median(run.cpu for run in found):.2f} "
            f"| {median(run.node_cpu for run in found):.2f} | {max(run.peak_mb for run in found):.0f} |"
        )
    first, last = (median(run.wall for run in runs[name]) for name in (names[0], names[-1]))
    print(f"\nWith users it takes {last - first:.1f} s more, {last / first:.2f} times as long.\n")
    print(f"| asset | {' | '.join(f'`{name}`, s' for name in names)} |")
    print("|---" * (1 + len(names)) + "|")
    for asset in runs[names[-1]][0].assets:
        cells = [_median([run.assets[asset] for run in found if asset in run.assets]) for found in runs.values()]
        print(f"| {asset} | {' | '.join(cells)} |")
    whole = runs[names[-1]]
    publishing = median(run.assets[PROFILES] for run in whole)
    each = publishing / whole[0].profiles * 1e6
    print(
        f"\nPublishing {whole[0].profiles:,} profiles takes {publishing:.2f} s, {each:.0f} us each, with putting them "
        f"together and looking at the checks. The report has {whole[0].report_bytes / 1024:,.0f} KB."
    )


def _median(seconds: list[float]) -> str:
    return f"{median(seconds):.2f}" if seconds else ""


if __name__ == "__main__":
    main()
