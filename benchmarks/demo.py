"""Where the time of a warm `segments demo` goes.

python -m benchmarks.demo [--runs 5]

Warm: jars cached, data folder made by a first run that is not counted. Every run is a whole process, from shell to
shell.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PHASES = {
    "import of the packages": "import segmentation_assets.cli.report, segmentation_assets.definitions",
    "definitions": "from segmentation_assets.definitions import build_definitions; build_definitions()",
}


def main() -> None:
    """Print a Markdown table of medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5, help="counted runs")
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as folder:
        demo = [sys.executable, "-m", "segmentation_assets", "demo", "--json", "--data-dir", folder]
        _run(demo)
        walls, assets = [], []
        for _ in range(runs):
            wall, out = _run(demo)
            walls.append(wall)
            assets.append(json.loads(out)["seconds"])
        node = [sys.executable, "-m", "segmentation_assets", "elasticsearch"]
        starts = []
        for _ in range(runs):
            starts.append(_run([*node, "start", "--data-dir", folder])[0])
            _run([*node, "stop", "--data-dir", folder])
        phases = {name: [_run([sys.executable, "-c", code])[0] for _ in range(runs)] for name, code in PHASES.items()}
        stored = sum(path.stat().st_size for path in (Path(folder) / "storage").rglob("*") if path.is_file())
    print("| part | median s | min | max |\n|---|---|---|---|")
    _row("`segments demo`, warm, whole process", walls)
    for asset in assets[0]:
        _row(f"of which asset `{asset}`", [seconds[asset] for seconds in assets])
    _row("`segments elasticsearch start`, alone", starts)
    for name, seconds in phases.items():
        _row(f"{name}, alone (a Python process)", seconds)
    print(f"\nStored by the assets in {runs + 1} runs: {stored / 1e6:.1f} MB.")


def _run(command: list[str]) -> tuple[float, str]:
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return time.perf_counter() - started, done.stdout


def _row(name: str, seconds: list[float]) -> None:
    print(f"| {name} | {statistics.median(seconds):.2f} | {min(seconds):.2f} | {max(seconds):.2f} |")


if __name__ == "__main__":
    main()
