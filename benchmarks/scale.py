"""CPU seconds and memory of every method as the log grows.

python -m benchmarks.scale [--sessions 100000 1000000] [--method M]...

Generated sessions, k=5. Each row is a process of its own, one thread. CPU is that of vectorizing and of fitting; MB is
the highest resident memory above what the process held with the sessions loaded and the packages imported.
"""

import argparse
import multiprocessing
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import sklearn.cluster
import sklearn.preprocessing  # noqa: F401  # what a fit would import is neither its time nor its memory

from segmentation_assets.core.clustering import METHODS
from segmentation_assets.core.generate import generate_sessions
from segmentation_assets.core.model import fit
from segmentation_assets.core.settings import Settings
from segmentation_assets.core.vectorize import vectorize
from segmentation_assets.errors import SegmentsError

END = datetime(2026, 11, 1, tzinfo=UTC)


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
            documents = list(generate_sessions(n, 1, END).documents)
            names = sorted({document["user_id"] for document in documents})
            number = {name: i for i, name in enumerate(names)}
            columns = {
                "query": pa.array([document["search_query"] for document in documents]),
                "user": pa.array([number[document["user_id"]] for document in documents], pa.int32()),
            }
            pq.write_table(pa.table(columns), path)
            del documents, columns
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
    above = (_peak() - before) / 1e6
    return (
        f"| {len(table):,} | {len(tfidf.queries):,} | {method} | {between - started:.1f} | {ended - between:.1f} "
        f"| {ended - started:.1f} | {above:.0f} |"
    )


def _peak() -> int:
    """Highest resident memory so far, in bytes; what is now where the system does not say."""
    status = Path("/proc/self/status")
    if status.exists():
        lines = status.read_text().splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    return int(psutil.Process().memory_info().rss)


if __name__ == "__main__":
    main()
