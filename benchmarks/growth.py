"""What a session costs as the log grows: a picture and a table of results that benchmarks.main_job noted.

python -m benchmarks.main_job --sessions 10000 --results growth.json      # and 100000, 1000000, 10000000
python -m benchmarks.growth growth.json --picture docs/images/growth.png
"""

import argparse
import json
from pathlib import Path
from typing import Any

COLOURS = {
    "floor": "#94a3b8",
    "textbook": "#db2777",
    "core, kmeans": "#d97706",
    "core, default": "#2563eb",
    "dagster, default": "#7c3aed",
    "dagster, default, 1% more": "#059669",
}


def main() -> None:
    """Draw the picture and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    parser.add_argument("--picture", type=Path)
    options = parser.parse_args()
    results = {int(size): found for size, found in json.loads(options.results.read_text("utf-8")).items()}
    ways = {
        name: {
            size: (sum(part["wall"].values()), part["peak_mb"])
            for size, found in sorted(results.items())
            for part in found["parts"]
            if part["name"] == name
        }
        for name in COLOURS
    }
    ways = {name: points for name, points in ways.items() if points}
    print(f"| way | {' | '.join(f'{size:,}' for size in sorted(results))} |\n|{'---|' * (len(results) + 1)}")
    for name, points in ways.items():
        cells = [
            f"{points[size][0] / size * 1e6:.1f} us, {points[size][1]:.0f} MB" if size in points else ""
            for size in sorted(results)
        ]
        print(f"| {name} | {' | '.join(cells)} |")
    if options.picture:
        draw(ways, options.picture)


def draw(ways: dict[str, dict[int, tuple[float, float]]], file: Path) -> None:
    """Two panels over the number of sessions: microseconds a session, and peak memory of the client."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FixedLocator, NullLocator

    figure = Figure(figsize=(9.5, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name, points in ways.items():
        sizes = list(points)
        style: dict[str, Any] = {"color": COLOURS[name], "marker": "o", "markersize": 4, "label": name}
        left.plot(sizes, [points[size][0] / size * 1e6 for size in sizes], **style)
        if name != "floor":  # which keeps everything that it sends
            right.plot(sizes, [points[size][1] for size in sizes], **style)
    left.set_title("wall time a session, microseconds", loc="left", fontsize=10)
    right.set_title("peak memory of the client, MB", loc="left", fontsize=10)
    for axes, marks in ((left, (10, 20, 50, 100, 200, 500)), (right, (250, 500, 1_000, 2_500, 5_000))):
        axes.set_xscale("log")
        axes.set_yscale("log")
        for axis, places in ((axes.xaxis, (10_000, 100_000, 1_000_000, 10_000_000)), (axes.yaxis, marks)):
            axis.set_major_locator(FixedLocator(places))
            axis.set_major_formatter(lambda value, _: f"{value:,.0f}")
            axis.set_minor_locator(NullLocator())
        axes.set_xlabel("sessions")
        axes.grid(alpha=0.25)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    left.legend(frameon=False, fontsize=8)
    figure.savefig(file, dpi=130)


if __name__ == "__main__":
    main()
