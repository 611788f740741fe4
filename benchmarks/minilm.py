"""The peer to beat: k-means on MiniLM sentence vectors, beside the default method, with the CPU both take.

python -m benchmarks.minilm FILE.tsv... [--seeds 3]

Needs the extra [embeddings]. Every text is read (the method `embeddings` reads 8,000 at most). One thread; CPU is that
of one fit, with the reading of the texts for MiniLM and with vectorizing for the default.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_limits

from segmentation_assets.cli.evaluate import read_labelled
from segmentation_assets.core.encoder import encode
from segmentation_assets.core.evaluation import Case, agreement, segment, session_clusters
from segmentation_assets.core.settings import Settings


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    encode(["load the model"])
    print(
        "| file | MiniLM + KMeans, accuracy / NMI | CPU s | default, accuracy / NMI | CPU s | CPU, default to MiniLM |"
    )
    print("|---|---|---|---|---|---|")
    with threadpool_limits(1):
        for path in options.files:
            data = read_labelled(path)
            k = len(data.classes)
            case = Case(pa.array(data.texts), np.arange(len(data.texts), dtype=np.int32), data.truth)
            started = time.process_time()
            vectors = encode(list(data.texts))
            reading = time.process_time() - started
            theirs, ours, their_time, our_time = [], [], [], []
            for seed in range(options.seeds):
                started = time.process_time()
                found = KMeans(k, n_init=10, random_state=seed).fit_predict(vectors).astype(np.int32)
                their_time.append(reading + time.process_time() - started)
                theirs.append(agreement(data.truth, found))
                settings = Settings.model_validate({"clusters": {"k": k, "seed": seed}})
                started = time.process_time()
                tfidf, model = segment(case, settings.vectors, settings.clusters)
                our_time.append(time.process_time() - started)
                ours.append(agreement(data.truth, session_clusters(tfidf, model)[0]))
            print(
                f"| {path.name} | {_mean(theirs, 'accuracy')} / {_mean(theirs, 'nmi')} | {np.mean(their_time):.1f} "
                f"| {_mean(ours, 'accuracy')} / {_mean(ours, 'nmi')} | {np.mean(our_time):.1f} "
                f"| {np.mean(our_time) / np.mean(their_time):.2f} |",
                flush=True,
            )


def _mean(found: list, name: str) -> str:  # type: ignore[type-arg]
    return f"{100 * np.mean([getattr(one, name) for one in found]):.1f}"


if __name__ == "__main__":
    main()
