"""Behaviour clusters beside the personas that generated users really have, as their sessions become more.

python -m benchmarks.personas [--users 10000] [--sessions-per-user 1 4.5 10 15 20] [--seeds 11 12 13] [--json]

Generated sessions with behaviour, and from there the product's own way: documents as the reader of an index gives them,
cleaned, measured, clustered by the default settings, named by the shipped table. What no default feature is made of is
left out: attributes, and the query segment of a session. At the largest number of sessions also k='auto' and HDBSCAN,
every other setting as it is.

ARI is the adjusted Rand index of clusters and true personas over all users, those in no cluster as a group of their
own; 1 is the same division, 0 what chance gives. *Of those in a cluster*: without them. The second table says who
really is in the clusters of a name. CPU seconds of cleaning and measuring, and of clustering with its bootstraps.

Whoever wrote the generator looked at seeds 0 to 7 while choosing its numbers. Report others.
"""

import argparse
import json
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import groupby
from statistics import fmean

import numpy as np
import sklearn.cluster  # what a fit would import is not its time
import sklearn.metrics
from numpy.typing import NDArray

from benchmarks.generated import END, sessions_of
from segmentation_assets.core.generate import generate_sessions
from segmentation_assets.core.generate_behaviour import PERSONAS
from segmentation_assets.core.settings import BehaviourSettings, Settings
from segmentation_assets.core.users.behaviour import fit_behaviour
from segmentation_assets.core.users.cleaning import clean
from segmentation_assets.core.users.clustering import NOISE
from segmentation_assets.core.users.features import UserFeatures, measure
from segmentation_assets.core.users.personas import describe, shipped_names

DEFAULT = "default"
OTHERS: dict[str, dict[str, object]] = {"k = auto": {"k": "auto"}, "hdbscan": {"method": "hdbscan"}}


@dataclass(frozen=True)
class Row:
    """One clustering of the users of one log.

    Attributes:
        sessions_per_user: mean.
        method: 'default', or what is other than that.
        seed: of the log.
        users: how many there are.
        k: clusters found.
        ari: adjusted Rand index of clusters and true personas.
        ari_inside: the same without the users in no cluster.
        silhouette: as the product reports it; None where it is not defined.
        agreement: mean agreement with the clusterings of bootstrap samples; None where there is none.
        in_no_cluster: users of whom no cluster was found.
        names: name of each cluster to its users by true persona.
        measuring: CPU seconds of cleaning and measuring.
        clustering: CPU seconds of fitting, stability included.
    """

    sessions_per_user: float
    method: str
    seed: int
    users: int
    k: int
    ari: float
    ari_inside: float
    silhouette: float | None
    agreement: float | None
    in_no_cluster: int
    names: dict[str, dict[str, int]]
    measuring: float
    clustering: float


def main() -> None:
    """Print Markdown tables, or one JSON list."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=10_000, help="about so many: they are drawn until they suffice")
    parser.add_argument("--sessions-per-user", type=float, nargs="+", default=[1, 4.5, 10, 15, 20])
    parser.add_argument("--seeds", type=int, nargs="+", default=[11, 12, 13])
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows: list[Row] = []
    for mean in options.sessions_per_user:
        others = OTHERS if mean == max(options.sessions_per_user) else {}
        for seed in options.seeds:
            rows += _rows(options.users, mean, seed, {DEFAULT: {}} | others)
    if options.json:
        print(json.dumps([asdict(row) for row in rows], indent=1))
        return
    _show(rows)


def _rows(users: int, mean: float, seed: int, methods: dict[str, dict[str, object]]) -> Iterator[Row]:
    generated = generate_sessions(round(users * mean), seed, END, behaviour=True, sessions_per_user=mean)
    people = generated.truth.users
    truth = dict(zip(people["user_id"].to_pylist(), people["persona"].to_pylist(), strict=True))
    sessions = sessions_of(generated.documents)
    settings = Settings()
    started = time.process_time()
    features = measure(clean(sessions.table, settings.cleaning), None, None, settings.features)
    measuring = time.process_time() - started
    for method, other in methods.items():
        chosen = BehaviourSettings.model_validate(settings.behaviour.model_dump() | other)
        yield _row(features, truth, chosen, settings, mean, method, seed, measuring)


def _row(
    features: UserFeatures,
    truth: dict[str, str],
    chosen: BehaviourSettings,
    settings: Settings,
    mean: float,
    method: str,
    seed: int,
    measuring: float,
) -> Row:
    started = time.process_time()
    model = fit_behaviour(features, chosen)
    clustering = time.process_time() - started
    cards = describe(features, model, shipped_names(), settings.personas).cards
    personas = np.array([truth[user] for user in model.users.to_pylist()])
    if len(personas) != len(truth):
        raise SystemExit(f"{len(truth)} users came in and {len(personas)} are in the model.")
    pairs = Counter(zip(model.labels.tolist(), personas.tolist(), strict=True))
    return Row(
        sessions_per_user=mean,
        method=method,
        seed=seed,
        users=len(personas),
        k=len(model.cluster_ids),
        ari=_ari(personas, model.labels),
        ari_inside=_ari(personas[model.labels != NOISE], model.labels[model.labels != NOISE]),
        silhouette=model.stability.silhouette,
        agreement=model.stability.agreement,
        in_no_cluster=model.noise,
        names={card.name: {entry.name: pairs[card.cluster, entry.name] for entry in PERSONAS} for card in cards},
        measuring=measuring,
        clustering=clustering,
    )


def _ari(personas: NDArray[np.str_], labels: NDArray[np.int32]) -> float:
    return float(sklearn.metrics.adjusted_rand_score(personas, labels))


def _show(rows: list[Row]) -> None:
    rows = sorted(rows, key=_way)
    print(
        "| sessions a user | method | seeds | users | ARI, mean | lowest | of those in a cluster | silhouette "
        "| agreement | clusters found | in no cluster | measuring, CPU s | clustering, CPU s |"
    )
    print("|---" * 13 + "|")
    for (mean, method), group in groupby(rows, key=_way):
        found = list(group)
        numbers = [_mean([row.silhouette for row in found]), _mean([row.agreement for row in found])]
        print(
            f"| {mean:g} | {method} | {len(found)} | {fmean(row.users for row in found):,.0f} "
            f"| {fmean(row.ari for row in found):.3f} | {min(row.ari for row in found):.3f} "
            f"| {fmean(row.ari_inside for row in found):.3f} | {' | '.join(numbers)} "
            f"| {', '.join(map(str, sorted({row.k for row in found})))} "
            f"| {sum(row.in_no_cluster for row in found) / sum(row.users for row in found):.1%} "
            f"| {fmean(row.measuring for row in found):.2f} | {fmean(row.clustering for row in found):.2f} |"
        )
    names = [persona.name for persona in PERSONAS]
    print("\nWho is in the clusters of a name, users of all seeds together:\n")
    print(f"| sessions a user | method | name given | seeds | users | {' | '.join(names)} |")
    print("|---" * (5 + len(names)) + "|")
    for (mean, method), group in groupby(rows, key=_way):
        users: dict[str, Counter[str]] = {}
        seeds: Counter[str] = Counter()
        for row in group:
            for name, personas in row.names.items():
                users.setdefault(name, Counter()).update(personas)
                seeds[name] += 1
        for name, personas in sorted(users.items(), key=lambda entry: (-entry[1].total(), entry[0])):
            most = max(personas.values())
            shares = [f"{personas[each] / max(personas.total(), 1):.0%}" for each in names]
            cells = [f"**{s}**" if personas[each] == most else s for s, each in zip(shares, names, strict=True)]
            print(f"| {mean:g} | {method} | {name} | {seeds[name]} | {personas.total():,} | {' | '.join(cells)} |")


def _way(row: Row) -> tuple[float, str]:
    return row.sessions_per_user, row.method


def _mean(values: list[float | None]) -> str:
    """Of those that are defined; nothing where none is."""
    defined = [value for value in values if value is not None]
    return f"{fmean(defined):.3f}" if defined else ""


if __name__ == "__main__":
    main()
