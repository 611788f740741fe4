"""Compare the clustering methods: agreement with what was meant on generated sessions, balance on logs.

python -m benchmarks.methods                        generated sessions only
python -m benchmarks.methods --log FILE [--log ..]  and any file that `segments import` reads
"""

import argparse
import time
from datetime import UTC, datetime

import numpy as np
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

from benchmarks.generated import END, sessions_of
from segmentation_assets.core.clustering import available
from segmentation_assets.core.generate import generate_sessions
from segmentation_assets.core.labels import label, shipped_taxonomy
from segmentation_assets.core.model import fit
from segmentation_assets.core.sessions import SessionBuilder, Sessions
from segmentation_assets.core.settings import Settings
from segmentation_assets.core.vectorize import vectorize
from segmentation_assets.io.importing import read_file

CHOSEN_ON = [(1_000, 42)]
REPORTED_ON = [(1_000, 1), (1_000, 2), (1_000, 3), (20_000, 1), (100_000, 1)]
SEGMENT_OF_TASTE = {"electronics": "tech_enthusiast", "bargains": "budget_buyer", "fashion": "fashion_oriented"}


def main() -> None:
    """Print two Markdown tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--log", action="append", default=[], help="a file of sessions")
    parser.add_argument("--seeds", type=int, default=3, help="seeds of the clustering, averaged")
    options = parser.parse_args()
    print("| sessions, seed | method | NMI | ARI | right segment | largest cluster | CPU s |")
    print("|---|---|---|---|---|---|---|")
    for n, seed in CHOSEN_ON + REPORTED_ON:
        generated = generate_sessions(n, seed, END)
        sessions = sessions_of(generated.documents)
        truth = generated.truth.sessions
        taste_of = dict(zip(truth["session_id"].to_pylist(), truth["taste"].to_pylist(), strict=True))
        tastes = [taste_of[session] for session in sessions.table["session_id"].to_pylist()]
        meant = np.array([SEGMENT_OF_TASTE.get(taste, "other") for taste in tastes])
        for method in available():
            rows = [_measure(sessions, method, s) for s in range(options.seeds)]
            nmi = np.mean([normalized_mutual_info_score(tastes, r[0]) for r in rows])
            ari = np.mean([adjusted_rand_score(tastes, r[0]) for r in rows])
            right = np.mean([np.mean(np.array(r[1]) == meant) for r in rows])
            largest, seconds = np.mean([r[2] for r in rows]), np.mean([r[3] for r in rows])
            print(f"| {n:,}, {seed} | {method} | {nmi:.2f} | {ari:.2f} | {right:.0%} | {largest:.0%} | {seconds:.2f} |")
    if options.log:
        print("\n| log | sessions | method | largest cluster | smallest cluster | CPU s |\n|---|---|---|---|---|---|")
    for path in options.log:
        builder = SessionBuilder(datetime.now(UTC))
        for record in read_file(path):
            builder.add(record.session_id, record.document)
        sessions = builder.finish()
        for method in available():
            rows = [_measure(sessions, method, s) for s in range(options.seeds)]
            largest, smallest, seconds = (np.mean([r[i] for r in rows]) for i in (2, 4, 3))
            name = path.rsplit("/", 1)[-1]
            print(f"| {name} | {len(sessions):,} | {method} | {largest:.0%} | {smallest:.1%} | {seconds:.2f} |")


def _measure(sessions: Sessions, method: str, seed: int) -> tuple[np.ndarray, list[str], float, float, float]:
    settings = Settings.model_validate({"clusters": {"method": method, "seed": seed}})
    started = time.process_time()
    tfidf = vectorize(sessions.table["search_query"], settings.vectors.for_method(settings.clusters.method))
    model = fit(tfidf, sessions.user_numbers(), settings.clusters)
    seconds = time.process_time() - started
    labeled = label(sessions, tfidf, model, shipped_taxonomy(), settings.labels)
    share = np.array(model.sizes) / max(sum(model.sizes), 1)
    segments = labeled.table["segment"].to_pylist()
    return model.labels[tfidf.query_of_session], segments, float(share.max()), seconds, float(share.min())


if __name__ == "__main__":
    main()
