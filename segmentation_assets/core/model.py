"""The cluster model: fitting it, choosing k, and carrying cluster ids over from the model before.

What belongs here: from TF-IDF rows to numbered clusters. What does not: the methods themselves (clustering/) and what
the clusters are called (labels).
"""

import hashlib
import json
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # ships no type information

from segmentation_assets.core.choose_k import KChoice, choose_k
from segmentation_assets.core.churn import Decision
from segmentation_assets.core.clustering import METHODS, nearest
from segmentation_assets.core.clustering.kmeans import THREADS
from segmentation_assets.core.collector import collector_paused
from segmentation_assets.core.settings import ClusterSettings, VectorSettings
from segmentation_assets.core.space import Corpus, Space, count_different
from segmentation_assets.core.vectorize import TfidfMatrix, Vectorizer
from segmentation_assets.errors import SegmentsError

MATCH_SHARE = 0.25
"""Two clusters are one and the same when they share this part of their sessions (intersection over union). Below it the
new cluster gets a new id: better a gap than an old number on different people."""


class StaleInputError(SegmentsError):
    """Inputs that must come from each other do not."""


class TooFewQueriesError(SegmentsError):
    """There are fewer different queries than clusters."""


@dataclass(frozen=True)
class Change:
    """How a model differs from the one before.

    Attributes:
        previous_version: the model compared with; None for a first model.
        kept: cluster ids that were carried over.
        new: cluster ids that match none of the previous model.
        retired: ids of the previous model that match none of this one.
        changed_share: share of the sessions clustered by both models whose cluster id differs; 0 for a first model.
    """

    previous_version: str | None
    kept: list[int]
    new: list[int]
    retired: list[int]
    changed_share: float


def _no_texts() -> pa.Array:
    return pa.array([], pa.string())


def _no_counts() -> NDArray[np.int64]:
    return np.empty(0, np.int64)


@dataclass(frozen=True)
class ClusterModel:
    """A fitted model, with the cluster of every distinct query it was fitted on.

    Attributes:
        method: name of the clusterer.
        settings: what it was fitted with.
        vector_settings: how queries became rows.
        terms: (n_terms,) vocabulary.
        idf: (n_terms,) float64.
        projection: (n_terms, d) float64 from terms to the space of the centres; d = 0 where that is the terms.
        bias: (d,) float64 where the space is one of memberships, else empty; see ``core.space.Space``.
        centers: (k, d) float64, or (k, n_terms) where d = 0; the largest cluster's first.
        cluster_ids: (k,) int32, the id of each centre's cluster; stable from model to model.
        next_id: the id the next new cluster will get; never reused.
        labels: (n_distinct,) int32 cluster id of each distinct query; -1 is no cluster.
        confidence: (n_distinct,) float32 in 0..1, see ``clustering.nearest``.
        sizes: sessions in each cluster, in the order of ``cluster_ids``.
        unclustered: sessions in no cluster: without a known term, or with nothing in common with the space.
        objective: what the method minimized.
        k_choice: how k was chosen where it was 'auto'; else None.
        change: against the previous model.
        version: a digest of all that determines an assignment; the same for the same model.
        applied_to: ``fingerprint`` of the queries that ``labels`` are of; empty for those it was fitted on.
        spellings: what is typed and what it is counted as, see ``TfidfMatrix``.
        decision: why it is this model and not the one before, or the other way round; None where nobody decided.
        queries: (n_distinct,) the queries that ``labels`` and ``confidence`` are of.
        judged_queries: (n_judged,) the queries of the sessions on which it was fitted or last compared with another.
        judged_counts: (n_judged,) int64, sessions that held each of them then.
        judged_unclustered: sessions in no cluster then.
    """

    method: str
    settings: ClusterSettings
    vector_settings: VectorSettings
    terms: pa.Array
    idf: NDArray[np.float64]
    projection: NDArray[np.float64]
    bias: NDArray[np.float64]
    centers: NDArray[np.float64]
    cluster_ids: NDArray[np.int32]
    next_id: int
    labels: NDArray[np.int32]
    confidence: NDArray[np.float32]
    sizes: list[int]
    unclustered: int
    objective: float
    k_choice: KChoice | None
    change: Change
    version: str
    applied_to: str = ""
    spellings: dict[str, str] = field(default_factory=dict)
    decision: Decision | None = None
    queries: pa.Array = field(default_factory=_no_texts)
    judged_queries: pa.Array = field(default_factory=_no_texts)
    judged_counts: NDArray[np.int64] = field(default_factory=_no_counts)
    judged_unclustered: int = 0

    @property
    def k(self) -> int:
        """Number of clusters."""
        return len(self.cluster_ids)

    @property
    def space(self) -> Space:
        """Where the centres are."""
        return Space(self.projection, self.bias)

    @cached_property
    def vectorizer(self) -> Vectorizer:
        """Its vocabulary, ready for queries."""
        return Vectorizer(self.terms, self.idf, self.vector_settings, self.spellings)

    def assign(self, rows: csr_matrix) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Cluster id and confidence of (n, n_terms) rows in this model's vocabulary; -1 is no cluster."""
        index, confidence = nearest(self.space.embed(rows), self.centers, METHODS[self.method].metric)
        index[confidence < self.settings.min_confidence] = -1
        return np.where(index >= 0, self.cluster_ids[index], -1).astype(np.int32), confidence

    def predict(self, queries: list[str]) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Cluster id and confidence of any queries, seen before or not."""
        return self.assign(self.vectorizer.rows(queries))

    def recall(self, queries: pa.Array) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """The same of (n,) different queries, worked out only for those that it has no label of yet."""
        if len(self.queries) != len(self.labels):  # stored by a version that did not keep them
            return self.predict(queries.to_pylist())
        place = pc.fill_null(pc.index_in(queries, self.queries), -1).to_numpy()
        labels, confidence = np.full(len(queries), -1, np.int32), np.zeros(len(queries), np.float32)
        known, unknown = place >= 0, np.flatnonzero(place < 0)
        labels[known], confidence[known] = self.labels[place[known]], self.confidence[place[known]]
        if len(unknown):
            labels[unknown], confidence[unknown] = self.predict(queries.take(pa.array(unknown)).to_pylist())
        return labels, confidence


@collector_paused()
def fit(
    tfidf: TfidfMatrix, users: NDArray[np.int32], settings: ClusterSettings, previous: ClusterModel | None = None
) -> ClusterModel:
    """Fit a model and number its clusters.

    Queries without a known term take no part and belong to no cluster (-1). The rows are the sorted distinct queries,
    so the order of the sessions changes nothing. A first model numbers its clusters by size; a later one keeps the
    ids of the clusters it can match with ``previous``, which is asked to assign the same queries.

    Args:
        tfidf: the queries.
        users: (n_sessions,) the user of each session as a number; numbers in the order of the sorted user ids.
        settings: method, k, seed.
        previous: the model to carry ids over from.

    Raises:
        TooFewQueriesError: fewer different usable queries than clusters.
        StaleInputError: ``users`` and ``tfidf`` are of different sessions.
    """
    if len(users) != len(tfidf.query_of_session):
        raise StaleInputError(
            f"raw_sessions ({len(users)} sessions) and tfidf_matrix ({len(tfidf.query_of_session)}) were not made from "
            "each other.",
            "Materialize raw_sessions, tfidf_matrix and kmeans_model again, in one run.",
        )
    import sklearn.cluster  # noqa: F401  # the limit holds for libraries that are loaded

    with threadpool_limits(THREADS):  # the same bits on any machine, and waiting threads cost more than they bring
        return _fit(tfidf, users, settings, previous)


def _fit(
    tfidf: TfidfMatrix, users: NDArray[np.int32], settings: ClusterSettings, previous: ClusterModel | None
) -> ClusterModel:
    clusterer = METHODS[settings.method]
    corpus = Corpus.of_sessions(tfidf.matrix, tfidf.queries, tfidf.query_of_session, users)
    least = settings.k_min + 1 if settings.k == "auto" else settings.k

    def too_few(different: int, of_users: bool) -> TooFewQueriesError:
        auto = settings.k == "auto"
        return TooFewQueriesError(
            f"{least} different queries are needed to find {settings.k_min if auto else least} clusters"
            f"{' or more' if auto else ''}, and there are {different} (in {int(tfidf.counts.sum())} sessions of "
            f"{int(users.max()) + 1} users with {len(tfidf.queries)} distinct query texts, "
            f"{int(tfidf.counts[~tfidf.known].sum())} sessions without a known term; queries are different when "
            f"{'other users search for them' if of_users else 'they hold other terms'}).",
            f"Read more sessions, lower clusters.{'k_min' if auto else 'k'}"
            + (", or use clusters.method: spherical, which does not look at users." if of_users else "."),
        )

    different = count_different(tfidf.matrix[tfidf.known], least)
    if different < least:
        raise too_few(different, of_users=False)
    choice = None
    if settings.k == "auto":
        choice = choose_k(corpus, settings.k_min, settings.k_max, settings.components, settings.seed)
    k = choice.k if choice else least
    space = clusterer.space(corpus, k, components=settings.components, n_init=settings.n_init, seed=settings.seed)
    embedded = space.embed(tfidf.matrix)
    usable = np.flatnonzero(np.asarray(abs(embedded).sum(axis=1)).ravel() > 0)
    rows, weights = embedded[usable], tfidf.counts[usable].astype(np.float64)
    if space.projection.shape[1] and (different := count_different(rows, k)) < k:
        raise too_few(different, of_users=True)
    partition = clusterer.fit(rows, weights, k, n_init=settings.n_init, seed=settings.seed)

    # The clusterer's own labels end one half-step before its centres; assigning by the centres, in the order in which
    # the model keeps them, makes what is published exactly what predict() would say, ties included.
    index, _ = nearest(embedded, partition.centers, clusterer.metric)
    by_size = np.argsort(-_sessions_in(index, tfidf.counts, len(partition.centers)), kind="stable")
    centers = partition.centers[by_size]
    index, confidence = nearest(embedded, centers, clusterer.metric)
    index[confidence < settings.min_confidence] = -1
    sizes = _sessions_in(index, tfidf.counts, len(centers))
    model = ClusterModel(
        method=settings.method,
        settings=settings,
        vector_settings=tfidf.settings,
        terms=tfidf.terms,
        idf=tfidf.idf,
        projection=space.projection,
        bias=space.bias,
        centers=centers,
        cluster_ids=np.arange(len(sizes), dtype=np.int32),
        next_id=len(sizes),
        labels=index,
        confidence=confidence,
        sizes=sizes.tolist(),
        unclustered=int(tfidf.counts[index < 0].sum()),
        objective=partition.objective,
        k_choice=choice,
        change=Change(None, [], list(range(len(sizes))), [], 0.0),
        version="",
        spellings=tfidf.spellings,
        queries=tfidf.queries,
        judged_queries=tfidf.queries,
        judged_counts=tfidf.counts,
        judged_unclustered=int(tfidf.counts[index < 0].sum()),
    )
    if previous is not None:
        model = _carry_ids_over(model, previous, tfidf)
    return replace(model, version=_digest(model))


def fingerprint(tfidf: TfidfMatrix) -> str:
    """A digest of the distinct queries and their counts: the same for the same sessions, whatever the vocabulary."""
    digest = hashlib.sha256("\0".join(tfidf.queries.to_pylist()).encode())
    digest.update(tfidf.counts.tobytes())
    return digest.hexdigest()[:16]


def mean_row(tfidf: TfidfMatrix, model: ClusterModel, cluster: int) -> NDArray[np.float64]:
    """Mean TF-IDF row of a cluster's sessions, (n_terms,) float64: what its dominant terms are read from."""
    members = np.flatnonzero(model.labels == cluster)
    counts = tfidf.counts[members]
    return np.asarray(counts @ tfidf.matrix[members]).ravel() / max(int(counts.sum()), 1)


def top_terms(tfidf: TfidfMatrix, model: ClusterModel, cluster: int, n: int) -> dict[str, float]:
    """The heaviest terms of a cluster with their weight, heaviest first."""
    mean = mean_row(tfidf, model, cluster)
    order = np.argsort(-mean, kind="stable")[:n]
    return {tfidf.terms[int(i)].as_py(): float(mean[i]) for i in order if mean[i] > 0}


def _carry_ids_over(model: ClusterModel, previous: ClusterModel, tfidf: TfidfMatrix) -> ClusterModel:
    before, _ = previous.recall(tfidf.queries)
    sessions = tfidf.counts
    overlap = np.zeros((model.k, previous.k))
    for old, cluster in enumerate(previous.cluster_ids):
        theirs = before == cluster
        shared = _sessions_in(np.where(theirs, model.labels, -1), sessions, model.k)
        union = np.array(model.sizes) + sessions[theirs].sum() - shared
        overlap[:, old] = np.divide(shared, union, out=np.zeros(model.k), where=union > 0)
    pairs = match_clusters(overlap)
    ids = np.full(model.k, -1, dtype=np.int32)
    for new, old in pairs:
        ids[new] = previous.cluster_ids[old]
    fresh = np.flatnonzero(ids < 0)
    ids[fresh] = previous.next_id + np.arange(len(fresh))
    labels = np.where(model.labels >= 0, ids[model.labels], -1).astype(np.int32)
    both = (labels >= 0) & (before >= 0)
    in_both = sessions[both].sum()
    changed = float(sessions[both & (labels != before)].sum() / in_both) if in_both else 0.0
    kept = sorted(int(previous.cluster_ids[old]) for _, old in pairs)
    return replace(
        model,
        cluster_ids=ids,
        next_id=previous.next_id + len(fresh),
        labels=labels,
        change=Change(
            previous_version=previous.version,
            kept=kept,
            new=sorted(int(i) for i in ids[fresh]),
            retired=sorted(set(previous.cluster_ids.tolist()) - set(kept)),
            changed_share=changed,
        ),
    )


def match_clusters(overlap: NDArray[np.float64]) -> list[tuple[int, int]]:
    """The pairs of clusters that are one and the same (Kuhn 1955, the Hungarian method).

    Args:
        overlap: (new, old) share of their sessions that two clusters have in common, 0..1.

    Returns:
        (new, old) pairs of at least ``MATCH_SHARE``, each cluster in at most one, with the largest sum of shares.
    """
    from scipy.optimize import linear_sum_assignment

    # What is too small to count must not tip the balance either: two such pairs can outweigh one that counts.
    counted = np.where(overlap >= MATCH_SHARE, overlap, 0.0)
    pairs = zip(*linear_sum_assignment(-counted), strict=True)
    return [(int(new), int(old)) for new, old in pairs if counted[new, old]]


def _sessions_in(index: NDArray[np.int32], counts: NDArray[np.int64], k: int) -> NDArray[np.int64]:
    """(k,) sessions of the queries with each index; -1 is none."""
    inside = index >= 0
    return np.bincount(index[inside], weights=counts[inside], minlength=k).astype(np.int64)


def _digest(model: ClusterModel) -> str:
    digest = hashlib.sha256()
    for part in (
        model.settings.model_dump_json(exclude={"retrain", "min_gain", "refit_share"}),
        model.vector_settings.model_dump_json(),
        "\0".join(model.terms.to_pylist()),
        json.dumps(model.spellings, sort_keys=True),
        model.idf.tobytes(),
        model.projection.tobytes(),
        model.bias.tobytes(),
        np.ascontiguousarray(model.centers).tobytes(),
        model.cluster_ids.tobytes(),
    ):
        digest.update(part.encode() if isinstance(part, str) else part)
    return digest.hexdigest()[:12]
