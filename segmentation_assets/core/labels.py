"""Names for clusters, and the segment of every session and user.

What belongs here: how a cluster is named by a taxonomy, and the evidence. What does not: the taxonomy itself
(taxonomy), its keywords in queries (matching), words for what it does not know (names), finding the clusters.
"""

from collections import defaultdict
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from segmentation_assets.core.churn import Churn
from segmentation_assets.core.collector import collector_paused
from segmentation_assets.core.matching import KeywordMatcher, typed_words, word_frequencies
from segmentation_assets.core.meaning import learn_meanings
from segmentation_assets.core.model import ClusterModel, StaleInputError, fingerprint, top_terms
from segmentation_assets.core.names import CANDIDATES, contrastive_terms, suggested_names, typical_queries
from segmentation_assets.core.numbering import numbered
from segmentation_assets.core.sessions import Intake, Sessions
from segmentation_assets.core.settings import LabelSettings
from segmentation_assets.core.taxonomy import (
    OTHER,
    SegmentEntry,
    Taxonomy,
    TaxonomyError,
    parse_taxonomy,
    shipped_taxonomy,
    words,
)
from segmentation_assets.core.vectorize import TfidfMatrix

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "ASSIGNMENT_SCHEMA",
    "OTHER",
    "ClusterLabel",
    "KeywordMatcher",
    "LabeledSegments",
    "SegmentEntry",
    "StaleModelError",
    "Taxonomy",
    "TaxonomyError",
    "dominant_segments",
    "label",
    "parse_taxonomy",
    "shipped_taxonomy",
    "summarize",
    "words",
]

TOP_TERMS = 10
SAMPLE_QUERIES = 5

ASSIGNMENT_SCHEMA = pa.schema(
    [
        ("session_id", pa.string()),
        ("user_id", pa.string()),
        ("search_query", pa.string()),
        ("timestamp", pa.timestamp("ms", tz="UTC")),
        ("cluster", pa.int32()),
        ("segment", pa.string()),
        ("confidence", pa.float32()),
    ]
)


USER_SCHEMA = pa.schema(
    [("user_id", pa.string()), ("segment", pa.string()), ("sessions", pa.int64()), ("total", pa.int64())]
)


@dataclass(frozen=True)
class ClusterLabel:
    """Why a cluster is called what it is called.

    Attributes:
        cluster: the cluster's id.
        segment: the name, ``other`` when no segment reaches ``labels.min_share``.
        sessions: sessions in the cluster.
        users: users with at least one session in it.
        share: share of the sessions of this cluster that hold a keyword of the best segment (0 when none does). A
            session counts as much as its surest match is sure (``matching.CERTAINTY``): a keyword as it stands 1, a
            misspelt one less.
        evidence: keyword to its share of the cluster's sessions, counted likewise, for the best segment, largest first.
        runner_up: the second best segment; None when no other has a match.
        runner_up_share: its share.
        top_terms: the heaviest terms of the cluster's mean TF-IDF row, with their weight.
        sample_queries: typical queries of the cluster, near its middle and frequent (``names.typical_queries``).
        best: the best segment, also where its share is too small for a name; None when none has a match.
        certainty: how sure the name is, 0..1: ``share``, times its part of ``share`` + ``runner_up_share``. So 1 when
            every session holds a keyword of this segment as it stands and none of another; half of that when another
            segment has as good a claim; 0 for ``other``, which is no name.
        mixed: whether best and runner-up both reach ``labels.mixed_share``: the cluster holds two kinds of searches,
            or one kind that two segments lay claim to.
        suggested_name: a readable name from the cluster's own words (``names.suggested_names``), for people who meet
            an ``other``; nothing is published under it. Empty for a cluster without a known term.
        contrastive: the terms that set the cluster apart from the others, with their weight, heaviest first.
    """

    cluster: int
    segment: str
    sessions: int
    users: int
    share: float
    evidence: dict[str, float]
    runner_up: str | None
    runner_up_share: float
    top_terms: dict[str, float]
    sample_queries: list[str]
    best: str | None = None
    certainty: float = 0.0
    mixed: bool = False
    suggested_name: str = ""
    contrastive: dict[str, float] = field(default_factory=dict)

    @property
    def mix(self) -> str:
        """The two segments of a mixed cluster with their shares, largest first; empty for another cluster."""
        if not self.mixed or self.runner_up is None:
            return ""
        return f"{self.best} ({self.share:.0%}), {self.runner_up} ({self.runner_up_share:.0%})"


@dataclass(frozen=True)
class LabeledSegments:
    """The result: a segment for every session.

    Attributes:
        table: ``ASSIGNMENT_SCHEMA``, one row a session, in the order of the sessions.
        labels: one entry a cluster, largest first.
        model_version: the model that made the clusters.
        unclustered: sessions in no cluster (their segment is ``other``).
        intake: the account of the sessions, carried along for the publish guard.
        churn: which users change segment by it, carried along likewise; None where nobody measured.
        users: the segment of each user, see ``dominant_segments``; worked out of ``table`` when not given.
    """

    table: pa.Table
    labels: list[ClusterLabel]
    model_version: str
    unclustered: int
    intake: Intake
    churn: Churn | None = None
    users: pa.Table = field(default_factory=lambda: USER_SCHEMA.empty_table())

    def __post_init__(self) -> None:
        if self.table.num_rows and not self.users.num_rows:
            object.__setattr__(self, "users", dominant_segments(self.table))


class StaleModelError(StaleInputError):
    """Sessions, TF-IDF and model were not made from each other."""


@collector_paused()
def label(
    sessions: Sessions, tfidf: TfidfMatrix, model: ClusterModel, taxonomy: Taxonomy, settings: LabelSettings
) -> LabeledSegments:
    """Name every cluster and give every session its segment.

    Raises:
        StaleModelError: the three inputs are not from one materialization.
    """
    if (
        len(tfidf.query_of_session) != len(sessions)
        or len(model.labels) != len(tfidf.queries)
        or not assigned(model, tfidf)
        or not sessions.table["search_query"].combine_chunks().equals(tfidf.queries.take(tfidf.query_of_session))
    ):
        raise StaleModelError(
            f"raw_sessions ({len(sessions)} sessions), tfidf_matrix ({len(tfidf.query_of_session)}) and kmeans_model "
            f"({len(model.labels)} of {len(tfidf.queries)} distinct queries) were not made from each other.",
            "Materialize raw_sessions, tfidf_matrix and kmeans_model again, in one run.",
        )
    cluster = model.labels[tfidf.query_of_session]
    labels = _name_clusters(sessions, tfidf, model, taxonomy, settings, cluster)
    names = {entry.cluster: entry.segment for entry in labels} | {-1: OTHER}
    segment = pa.array([names[int(i)] for i in model.labels], pa.string()).take(pa.array(tfidf.query_of_session))
    table = pa.table(
        {
            "session_id": sessions.table["session_id"],
            "user_id": sessions.table["user_id"],
            "search_query": sessions.table["search_query"],
            "timestamp": sessions.table["timestamp"],
            "cluster": pa.array(cluster, pa.int32()),
            "segment": segment,
            "confidence": pa.array(model.confidence[tfidf.query_of_session], pa.float32()),
        },
        schema=ASSIGNMENT_SCHEMA,
    )
    return LabeledSegments(table, labels, model.version, int((cluster < 0).sum()), sessions.intake)


def assigned(model: ClusterModel, tfidf: TfidfMatrix) -> bool:
    """Whether the model's labels are of these queries: it was applied to them, or fitted on them."""
    if model.applied_to:
        return model.applied_to == fingerprint(tfidf)
    return bool(model.terms.equals(tfidf.terms)) and np.array_equal(model.idf, tfidf.idf)


def _name_clusters(
    sessions: Sessions,
    tfidf: TfidfMatrix,
    model: ClusterModel,
    taxonomy: Taxonomy,
    settings: LabelSettings,
    cluster: NDArray[np.int32],
) -> list[ClusterLabel]:
    by_segment, by_keyword = _keyword_sessions(tfidf, model.labels, taxonomy, settings.meaning)
    users = _users_per_cluster(sessions, cluster)
    samples = typical_queries(tfidf, model.labels, SAMPLE_QUERIES)
    contrast = contrastive_terms(tfidf, model.labels, max(TOP_TERMS, CANDIDATES))
    suggested = suggested_names(tfidf, model.labels, contrast)
    labels = []
    for cluster_id in model.cluster_ids.tolist():
        total = int(tfidf.counts[model.labels == cluster_id].sum())
        held = by_segment[cluster_id]
        # equal shares: the one that stands first in the taxonomy
        ranked = sorted((name for name in taxonomy.segments if name in held), key=lambda name: -held[name])
        best, runner_up = (*ranked, None, None)[:2]
        share = held[best] / total if best else 0.0
        runner_up_share = held[runner_up] / total if runner_up else 0.0
        named = best is not None and share >= settings.min_share
        keywords = sorted(
            ((n, keyword) for (segment, keyword), n in by_keyword[cluster_id].items() if segment == best),
            key=lambda x: (-x[0], x[1]),
        )
        labels.append(
            ClusterLabel(
                cluster=cluster_id,
                segment=best if best and named else OTHER,
                sessions=total,
                users=users.get(cluster_id, 0),
                share=share,
                evidence={keyword: n / total for n, keyword in keywords[:TOP_TERMS]},
                runner_up=runner_up,
                runner_up_share=runner_up_share,
                top_terms=top_terms(tfidf, model, cluster_id, TOP_TERMS),
                sample_queries=samples.get(cluster_id, []),
                best=best,
                certainty=share * share / (share + runner_up_share) if named else 0.0,
                mixed=runner_up is not None and min(share, runner_up_share) >= settings.mixed_share,
                suggested_name=suggested.get(cluster_id, ""),
                contrastive=dict(list(contrast.get(cluster_id, {}).items())[:TOP_TERMS]),
            )
        )
    return sorted(labels, key=lambda entry: (-entry.sessions, entry.cluster))


def _keyword_sessions(
    tfidf: TfidfMatrix, labels: NDArray[np.int32], taxonomy: Taxonomy, meaning: float | None
) -> tuple[dict[int, dict[str, float]], dict[int, dict[tuple[str, str], float]]]:
    """For each cluster the sessions that speak for each segment, and for each (segment, keyword), by certainty."""
    words = typed_words(tfidf.queries.to_pylist())
    frequencies = word_frequencies(words, tfidf.counts)
    matcher = KeywordMatcher(taxonomy, frequencies)
    if meaning is not None:
        learn_meanings(matcher, frequencies, meaning)
    by_segment: dict[int, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    by_keyword: dict[int, dict[tuple[str, str], float]] = defaultdict(lambda: defaultdict(float))
    essences, essence = matcher.essences(words, len(labels))
    ids, cluster_of = np.unique(labels, return_inverse=True)
    alike, place = np.unique(essence * len(ids) + cluster_of, return_inverse=True)
    sessions = np.bincount(place, weights=tfidf.counts).tolist()
    matches = [matcher.match(words) for words in essences]
    for code, count in zip(alike.tolist(), sessions, strict=True):
        number, cluster = code // len(ids), int(ids[code % len(ids)])
        surest: dict[str, float] = {}
        for key, match in matches[number].items():
            by_keyword[cluster][key] += count * match.certainty
            surest[match.segment] = max(match.certainty, surest.get(match.segment, 0.0))
        for segment, certainty in surest.items():
            by_segment[cluster][segment] += count * certainty
    return by_segment, by_keyword


def _users_per_cluster(sessions: Sessions, cluster: NDArray[np.int32]) -> dict[int, int]:
    pairs = pa.table({"cluster": pa.array(cluster, pa.int32()), "user_id": sessions.table["user_id"]})
    counted = pairs.group_by("cluster").aggregate([("user_id", "count_distinct")])
    return dict(zip(counted["cluster"].to_pylist(), counted["user_id_count_distinct"].to_pylist(), strict=True))


def dominant_segments(table: pa.Table) -> pa.Table:
    """The segment of each user: the one with most of their sessions.

    A tie goes to a named segment over ``other``, then to the one with the latest session, then by name.

    Args:
        table: ``ASSIGNMENT_SCHEMA``.

    Returns:
        ``USER_SCHEMA``: sessions of that segment, and in total; one row a user, sorted by user_id.
    """
    users, user = numbered(table["user_id"])
    segments, segment = numbered(table["segment"])
    counts = np.bincount(user.astype(np.int64) * len(segments) + segment, minlength=len(users) * len(segments))
    counts = counts.reshape(len(users), len(segments))
    most = counts.max(axis=1, initial=0)
    top = counts == most[:, None]
    named = np.array([name != OTHER for name in segments.to_pylist()], dtype=np.bool_)
    top &= named | ~(top & named).any(axis=1)[:, None]
    chosen = top.argmax(axis=1) if len(users) else np.empty(0, np.int64)  # the first by name
    open_rows = np.flatnonzero((top.sum(axis=1) > 1)[user] & top[user, segment])
    if len(open_rows):
        moment = table["timestamp"].take(pa.array(open_rows)).combine_chunks().cast(pa.int64()).to_numpy()
        latest = open_rows[np.lexsort((segment[open_rows], -moment, user[open_rows]))]
        whose, first = np.unique(user[latest], return_index=True)
        chosen[whose] = segment[latest[first]]
    return pa.table(
        {
            "user_id": users,
            "segment": segments.take(pa.array(chosen)),
            "sessions": pa.array(most.astype(np.int64)),
            "total": pa.array(counts.sum(axis=1).astype(np.int64)),
        },
        schema=USER_SCHEMA,
    )


def summarize(labeled: LabeledSegments) -> "pd.DataFrame":
    """One row a segment, the largest first.

    Columns: segment, users, sessions, share (of sessions), clusters, keywords, sample_queries.

    ``users`` counts each user once, in their dominant segment, so the column adds up to all users.
    """
    import pandas as pd

    sessions = labeled.table.group_by("segment").aggregate([("session_id", "count")]).to_pandas()
    users = labeled.users.group_by("segment").aggregate([("user_id", "count")]).to_pandas()
    counts = sessions.merge(users, on="segment", how="left")
    rows = []
    for segment, n_sessions, n_users in zip(
        counts["segment"], counts["session_id_count"], counts["user_id_count"], strict=True
    ):
        clusters = [entry for entry in labeled.labels if entry.segment == segment]
        weights: dict[str, float] = defaultdict(float)
        for entry in clusters:
            for term, weight in entry.top_terms.items():
                weights[term] += weight * entry.sessions
        rows.append(
            {
                "segment": segment,
                "users": 0 if pd.isna(n_users) else int(n_users),
                "sessions": int(n_sessions),
                "share": int(n_sessions) / max(labeled.table.num_rows, 1),
                "clusters": [entry.cluster for entry in clusters],
                "keywords": sorted(weights, key=lambda term: (-weights[term], term))[:TOP_TERMS],
                "sample_queries": _interleave([entry.sample_queries for entry in clusters])[:SAMPLE_QUERIES],
            }
        )
    columns = ["segment", "users", "sessions", "share", "clusters", "keywords", "sample_queries"]
    return pd.DataFrame(rows, columns=columns).sort_values(
        ["sessions", "segment"], ascending=[False, True], ignore_index=True
    )


def to_pass_on(labeled: LabeledSegments, tfidf: TfidfMatrix, users: int) -> LabeledSegments:
    """The same, whose clusters are described only by words and queries that several people typed.

    Args:
        labeled: of the sessions that ``tfidf`` was made of.
        tfidf: their queries.
        users: how many different users must have typed a word, or a whole query, for it to be shown.
    """
    _, user = numbered(labeled.table["user_id"])
    places = {term: place for place, term in enumerate(tfidf.terms.to_pylist())}
    candidates = sorted({term for entry in labeled.labels for term in entry.top_terms} & places.keys())
    holding = tfidf.matrix[:, [places[term] for term in candidates]].tocsc()

    def typed_by(queries: NDArray[np.int64]) -> int:
        held = np.zeros(len(tfidf.queries), dtype=np.bool_)
        held[queries] = True
        return len(np.unique(user[held[tfidf.query_of_session]]))

    words = {
        term
        for column, term in enumerate(candidates)
        if typed_by(holding.indices[holding.indptr[column] : holding.indptr[column + 1]]) >= users
    }
    samples = list({query for entry in labeled.labels for query in entry.sample_queries})
    found = pc.fill_null(pc.index_in(pa.array(samples, pa.string()), tfidf.queries), -1).to_numpy()
    queries = {query for query, place in zip(samples, found, strict=True) if place >= 0 and typed_by(place) >= users}
    labels = [
        replace(
            entry,
            top_terms={term: weight for term, weight in entry.top_terms.items() if term in words},
            contrastive={term: weight for term, weight in entry.contrastive.items() if term in words},
            sample_queries=[query for query in entry.sample_queries if query in queries],
            suggested_name="",
        )
        for entry in labeled.labels
    ]
    return replace(labeled, labels=labels)


def _interleave(lists: list[list[str]]) -> list[str]:
    longest = max((len(items) for items in lists), default=0)
    return list(dict.fromkeys(items[i] for i in range(longest) for items in lists if i < len(items)))
