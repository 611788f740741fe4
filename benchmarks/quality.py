"""How right each method is: on labelled texts, and on generated users by how much is known of them.

python -m benchmarks.quality [--data DIR] [--seeds 5] [--sessions 20000] [--json]

Labelled texts: what `segments evaluate` measures, at session level and for users of five queries each. Generated
sessions: a user is right when the cluster of most of their sessions is the one matched, over all users, with the taste
they were given; shown by how many sessions the user has. k is the number of labels, or of tastes.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean

import numpy as np
import pyarrow.compute as pc

from benchmarks.generated import END, sessions_of
from segmentation_assets.cli.evaluate import (
    JOINED,
    TEXTBOOK,
    Row,
    default_method,
    label_numbers,
    measure_all,
    plan,
    read_labelled,
)
from segmentation_assets.core.clustering import available
from segmentation_assets.core.evaluation import (
    Case,
    LabelledTexts,
    joined,
    match_classes,
    segment,
    session_clusters,
    user_clusters,
)
from segmentation_assets.core.generate import generate_sessions
from segmentation_assets.core.settings import ClusterSettings, Settings
from segmentation_assets.errors import SegmentsError

DATA = Path(__file__).parents[2] / "shared" / "data"
DEVELOPMENT_SETS = ("snips7", "hwu_scenario18", "wands_ge5")
QUERIES_PER_USER = 5
SESSIONS_OF_USER = (1, 2, 3, 5, 10)
GENERATED_SEED = 1


def main() -> None:
    """Print Markdown tables, or one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the labelled sets")
    parser.add_argument("--seeds", type=int, default=5, help="seeds, averaged")
    parser.add_argument("--sessions", type=int, default=20_000, help="generated sessions")
    parser.add_argument("--json", action="store_true", help="the numbers instead of tables")
    options = parser.parse_args()
    paths = {name: options.data / f"{name}.tsv" for name in DEVELOPMENT_SETS}
    absent = [name for name, path in paths.items() if not path.exists()]
    files = {name: read_labelled(path) for name, path in paths.items() if name not in absent}
    tasks = plan(files, [], [None, QUERIES_PER_USER], k=None, seeds=options.seeds)
    rows = measure_all(tasks, required={default_method()}, on_progress=_progress)
    generated = _generated(options.sessions, options.seeds)
    if options.json:
        print(json.dumps({"rows": [asdict(row) for row in rows], "absent": absent, "generated": generated}, indent=2))
        return
    for level, title in (("session", "Sessions"), (f"users_{QUERIES_PER_USER}", f"Users of {QUERIES_PER_USER}")):
        here = [row for row in rows if row.level == level]
        print(f"\n**{title}{' queries' if level != 'session' else ''}** (mean of {options.seeds} seeds, x100)\n")
        _agreement_table(here, absent)
        if level == "session":
            print("\n**Keywords of the clusters** (x100)\n")
            _keyword_table(here, absent)
    print(f"\n**Generated: {options.sessions:,} sessions, users with n of them** (users that are right, x100)\n")
    _generated_table(generated)


def _progress(done: int, total: int | None) -> None:
    print(f"{done} of {total}", file=sys.stderr)


def _agreement_table(rows: Sequence[Row], absent: Sequence[str]) -> None:
    print("| set | method | accuracy (min..max) | NMI | ARI | largest | CPU s | peak MB |\n" + "|---" * 8 + "|")
    for row in rows:
        print(
            f"| {row.file} | {_named(row)} | {row.acc:.1f} ({row.acc_min:.1f}..{row.acc_max:.1f}) | {row.nmi:.1f} "
            f"| {row.ari:.1f} | {row.largest:.0f} | {row.cpu_seconds:.2f} | {row.peak_mb:.0f} |"
        )
    for name in absent:
        print(f"| {name} | absent: not measured | | | | | | |")
    sets = {row.file for row in rows}
    for method in dict.fromkeys(row.method for row in rows):
        mine = [row for row in rows if row.method == method]
        if len(sets) > 1 and {row.file for row in mine} == sets:  # a mean over fewer sets is not comparable
            print(
                f"| **mean of {len(sets)}** | {_named(mine[0])} | **{fmean(r.acc for r in mine):.1f}** "
                f"| {fmean(r.nmi for r in mine):.1f} | {fmean(r.ari for r in mine):.1f} "
                f"| {fmean(r.largest for r in mine):.0f} | {fmean(r.cpu_seconds for r in mine):.2f} "
                f"| {fmean(r.peak_mb for r in mine):.0f} |"
            )


def _keyword_table(rows: Sequence[Row], absent: Sequence[str]) -> None:
    print("| set | method | right class | classes covered | name first | name in 5 | different |\n" + "|---" * 7 + "|")
    for row in rows:
        print(f"| {row.file} | {_named(row)} | " + " | ".join(f"{v:.1f}" for v in label_numbers(row)) + " |")
    for name in absent:
        print(f"| {name} | absent: not measured | | | | | |")


def _named(row: Row) -> str:
    return f"**{row.method}** (default)" if row.default else row.method


def _generated(n: int, seeds: int) -> list[dict[str, object]]:
    """Users of generated sessions that are right, by how many sessions they have; means over the seeds."""
    made = generate_sessions(n, GENERATED_SEED, END)
    sessions = sessions_of(made.documents)
    people = made.truth.users
    taste_of = dict(zip(people["user_id"].to_pylist(), people["taste"].to_pylist(), strict=True))
    # Sessions.user_numbers() counts in the order of the sorted ids.
    ids = sorted(pc.unique(sessions.table["user_id"]).to_pylist())
    truth = LabelledTexts.of([taste_of[user] for user in ids], ids)
    case = Case(sessions.table["search_query"].combine_chunks(), sessions.user_numbers(), truth.truth)
    documents = joined(case)
    count = np.bincount(case.users)
    rows: list[dict[str, object]] = []
    for method in [*available(), JOINED]:
        print(f"generated: {method}", file=sys.stderr)
        right, seconds = np.zeros((seeds, len(ids)), dtype=bool), []
        where = documents if method == JOINED else case
        try:
            for seed in range(seeds):
                clusters = Settings().clusters.model_dump() | {
                    "method": TEXTBOOK if method == JOINED else method,
                    "k": len(truth.classes),
                    "seed": seed,
                }
                started = time.process_time()
                tfidf, model = segment(where, Settings().vectors, ClusterSettings.model_validate(clusters))
                seconds.append(time.process_time() - started)
                found = user_clusters(where.users, *session_clusters(tfidf, model))
                matched = match_classes(where.truth, found)
                right[seed] = [
                    matched.get(c, -1) == taste for c, taste in zip(found.tolist(), where.truth, strict=True)
                ]
        except SegmentsError as error:
            if method == default_method():
                raise
            print(f"{method} is left out of the generated users: {error}", file=sys.stderr)
            continue
        rows.append(
            {
                "method": method,
                "default": method == default_method(),
                "all": round(100 * float(right.mean()), 2),
                "users": len(ids),
                "by_sessions": {
                    str(k): {
                        "acc": round(100 * float(right[:, count == k].mean()), 2) if (count == k).any() else None,
                        "users": int((count == k).sum()),
                    }
                    for k in SESSIONS_OF_USER
                },
                "cpu_seconds": round(fmean(seconds), 3),
            }
        )
    return rows


def _generated_table(rows: Sequence[dict[str, object]]) -> None:
    by = rows[0]["by_sessions"]
    assert isinstance(by, dict)
    heads = [f"n = {k} ({part['users']:,} users)" for k, part in by.items()]
    print(f"| method | all ({rows[0]['users']:,} users) | " + " | ".join(heads) + " | CPU s |")
    print("|---" * (len(heads) + 3) + "|")
    for row in rows:
        parts = row["by_sessions"]
        assert isinstance(parts, dict)
        cells = [f"{part['acc']:.1f}" if part["acc"] is not None else "no such user" for part in parts.values()]
        name = f"**{row['method']}** (default)" if row["default"] else str(row["method"])
        print(f"| {name} | {row['all']:.1f} | " + " | ".join(cells) + f" | {row['cpu_seconds']:.2f} |")


if __name__ == "__main__":
    main()
