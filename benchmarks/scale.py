"""CPU seconds and memory of every method as the log grows.

python -m benchmarks.scale [--sessions 100000 1000000] [--method M]...

Generated sessions, k=5. Each row is a process of its own, one thread. CPU is that of vectorizing and of fitting; MB is
the highest resident memory above what the process held with the sessions loaded and the packages imported.
"""

import argparse
import multiprocessing
import tempfile
import time
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import sklearn.cluster
import sklearn.preprocessing  # noqa: F401  # what a fit would import is neither its time nor its memory

from benchmarks.generated import END, sessions_of
from segmentation_assets.cli.evaluate import peak_bytes
from segmentation_assets.core.clustering import METHODS
from segmentation_assets.core.generate import generate_sessions
from segmentation_assets.core.model import fit
from segmentation_assets.core.settings import Settings
from segmentation_assets.core.vectorize import vectorize
from segmentation_assets.errors import SegmentsError


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sessions", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--method", action="append", choices=list(METHODS))
    options = parser.parse_args()
    print("| sessions | distinct queries | method | vectorize, CPU s | fit, CPU s | both | MB above the data |")
    print("|---|---|---|---|---|---|---|")
    spawn = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        for n in options.sessions:
            path = Path(folder) / f"{n}.parquet"
            sessions = sessions_of(generate_sessions(n, 1, END).documents)
            columns = {"query": sessions.table["search_query"], "user": pa.array(sessions.user_numbers())}
            pq.write_table(pa.table(columns), path)
            del sessions, columns
            for method in options.method or METHODS:
                with spawn.Pool(1) as pool:
                    print(pool.apply(_row, (path, method)), flush=True)


def _row(path: Path, method: str) -> str:
    table = pq.read_table(path)
    queries, users = table["query"].combine_chunks(), table["user"].to_numpy()
    settings = Settings.model_validate({"clusters": {"method": method}})
    before = psutil.Process().memory_info().rss
    try:
        started = time.process_time()
        tfidf = vectorize(queries, settings.vectors.for_method(settings.clusters.method))
        between = time.process_time()
        fit(tfidf, users, settings.clusters)
    except SegmentsError as error:
        return f"| {len(table):,} | | {method} | {error} | | | |"
    ended = time.process_time()
    above = (peak_bytes() - before) / 1e6
    return (
        f"| {len(table):,} | {len(tfidf.queries):,} | {method} | {between - started:.1f} | {ended - between:.1f} "
        f"| {ended - started:.1f} | {above:.0f} |"
    )


if __name__ == "__main__":
    main()
