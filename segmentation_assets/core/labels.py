"""Names for clusters, and the segment of every session and user.

What belongs here: the taxonomy, how a cluster is matched with it, and the evidence. What does not: finding the
clusters.
"""

import re
from collections import defaultdict
from dataclasses import dataclass
from importlib import resources
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import yaml
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from segmentation_assets.core.model import ClusterModel, StaleInputError, top_terms
from segmentation_assets.core.sessions import Intake, Sessions
from segmentation_assets.core.settings import LabelSettings
from segmentation_assets.core.vectorize import TfidfMatrix
from segmentation_assets.errors import SegmentsError

OTHER = "other"
"""The segment of whatever no name fits: an unnamed cluster, or a query in no cluster."""

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


class TaxonomyError(SegmentsError):
    """The taxonomy cannot be used as it is."""


class SegmentEntry(BaseModel):
    """One segment of a taxonomy."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    description: str = ""
    keywords: list[str] = Field(min_length=1)

    @field_validator("keywords", mode="before")
    @classmethod
    def _texts(cls, value: Any) -> Any:
        # YAML reads `on` as true and 4070 as a number: take the digits, refuse the rest by name.
        return (
            [str(item) if isinstance(item, int) and not isinstance(item, bool) else item for item in value]
            if isinstance(value, list)
            else value
        )

    @field_validator("keywords")
    @classmethod
    def _has_words(cls, value: list[str]) -> list[str]:
        for keyword in value:
            if not words(keyword):
                raise ValueError(f"keyword {keyword!r} holds no word")
        return value


class Taxonomy(BaseModel):
    """Which words speak for which segment."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    version: int = 1
    segments: dict[str, SegmentEntry] = Field(min_length=1)

    @field_validator("segments")
    @classmethod
    def _names(cls, value: dict[str, SegmentEntry]) -> dict[str, SegmentEntry]:
        for name in value:
            if not re.fullmatch(r"[a-z0-9_]{1,64}", name) or name == OTHER:
                raise ValueError(
                    f"segment name {name!r}: use lower case letters, digits and underscores, and not {OTHER!r}"
                )
        return value


def parse_taxonomy(text: str, where: str) -> Taxonomy:
    """Read a taxonomy from YAML text.

    Args:
        text: the YAML.
        where: what to call it in an error.

    Raises:
        TaxonomyError: not YAML, or not a taxonomy; names each entry that is wrong.
    """
    cure = "See segmentation_assets/core/taxonomy.yaml for the shipped one with its explanation."
    try:
        return Taxonomy.model_validate(yaml.safe_load(text))
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'top level'}: {e['msg']}" for e in error.errors()[:5])
        raise TaxonomyError(f"The taxonomy {where} cannot be used: {problems}.", cure) from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: what looks like a date and is none
        raise TaxonomyError(
            f"The taxonomy {where} is not valid YAML: {' '.join(str(error).split())[:300]}.", cure
        ) from None


def shipped_taxonomy() -> Taxonomy:
    """The taxonomy that comes with the package."""
    return parse_taxonomy(
        resources.files("segmentation_assets.core").joinpath("taxonomy.yaml").read_text("utf-8"), "taxonomy.yaml"
    )


def words(text: str) -> tuple[str, ...]:
    """Lower-case words with regular English plurals folded, so that 'Dresses' and 'dress' are one."""
    return tuple(_singular(word) for word in re.findall(r"\w+", text.lower()))


def _singular(word: str) -> str:
    """One form for a regular plural and its singular; it need not be a word ('hoodies', 'hoodie': both 'hoody')."""
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        word = word[:-1]
    if len(word) > 3 and word.endswith("ie"):
        return word[:-2] + "y"
    if len(word) > 3 and word.endswith(("sse", "che", "she", "xe", "ze")):
        return word[:-1]
    return word


class KeywordMatcher:
    """Finds the keywords of a taxonomy in queries.

    Args:
        taxonomy: the segments and their keywords.
    """

    def __init__(self, taxonomy: Taxonomy) -> None:
        # first word -> the keywords that start with it
        self._by_first: dict[str, list[tuple[tuple[str, ...], str, str]]] = defaultdict(list)
        for segment, entry in taxonomy.segments.items():
            for keyword in entry.keywords:
                self._by_first[words(keyword)[0]].append((words(keyword), segment, keyword))

    def find(self, query: str) -> set[tuple[str, str]]:
        """The (segment, keyword) pairs that occur in a query."""
        text = words(query)
        return {
            (segment, keyword)
            for i, word in enumerate(text)
            for key, segment, keyword in self._by_first.get(word, ())
            if text[i : i + len(key)] == key
        }


@dataclass(frozen=True)
class ClusterLabel:
    """Why a cluster is called what it is called.

    Attributes:
        cluster: the cluster's id.
        segment: the name, ``other`` when no segment reaches ``labels.min_share``.
        sessions: sessions in the cluster.
        users: users with at least one session in it.
        share: share of the sessions of this cluster that hold a keyword of the best segment (0 when none does).
        evidence: keyword to the share of the cluster's sessions that hold it, for the best segment, largest first.
        runner_up: the second best segment; None when no other has a match.
        runner_up_share: its share.
        top_terms: the heaviest terms of the cluster's mean TF-IDF row, with their weight.
        sample_queries: frequent queries of the cluster, nearest to its centre first among equals.
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


@dataclass(frozen=True)
class LabeledSegments:
    """The result: a segment for every session.

    Attributes:
        table: ``ASSIGNMENT_SCHEMA``, one row a session, in the order of the sessions.
        labels: one entry a cluster, largest first.
        model_version: the model that made the clusters.
        unclustered: sessions in no cluster (their segment is ``other``).
        intake: the account of the sessions, carried along for the publish guard.
    """

    table: pa.Table
    labels: list[ClusterLabel]
    model_version: str
    unclustered: int
    intake: Intake


class StaleModelError(StaleInputError):
    """Sessions, TF-IDF and model were not made from each other."""


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
        or not model.terms.equals(tfidf.terms)
        or not np.array_equal(model.idf, tfidf.idf)
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


def _name_clusters(
    sessions: Sessions,
    tfidf: TfidfMatrix,
    model: ClusterModel,
    taxonomy: Taxonomy,
    settings: LabelSettings,
    cluster: NDArray[np.int32],
) -> list[ClusterLabel]:
    queries = tfidf.queries.to_pylist()
    matcher = KeywordMatcher(taxonomy)
    found = [matcher.find(query) for query in queries]
    users = _users_per_cluster(sessions, cluster)
    labels = []
    for cluster_id in model.cluster_ids.tolist():
        members = np.flatnonzero(model.labels == cluster_id)
        counts = tfidf.counts[members]
        total = int(counts.sum())
        by_segment: dict[str, int] = defaultdict(int)
        by_keyword: dict[tuple[str, str], int] = defaultdict(int)
        for row, count in zip(members.tolist(), counts.tolist(), strict=True):
            for segment in {pair[0] for pair in found[row]}:
                by_segment[segment] += count
            for pair in found[row]:
                by_keyword[pair] += count
        # equal shares: the one that stands first in the taxonomy
        ranked = sorted((name for name in taxonomy.segments if name in by_segment), key=lambda name: -by_segment[name])
        best = ranked[0] if ranked else None
        share = by_segment[best] / total if best else 0.0
        keywords = sorted(
            ((n, keyword) for (segment, keyword), n in by_keyword.items() if segment == best),
            key=lambda x: (-x[0], x[1]),
        )
        typical = np.lexsort((members, -model.confidence[members], -counts))[:SAMPLE_QUERIES]
        labels.append(
            ClusterLabel(
                cluster=cluster_id,
                segment=best if best and share >= settings.min_share else OTHER,
                sessions=total,
                users=users.get(cluster_id, 0),
                share=share,
                evidence={keyword: n / total for n, keyword in keywords[:TOP_TERMS]},
                runner_up=ranked[1] if len(ranked) > 1 else None,
                runner_up_share=by_segment[ranked[1]] / total if len(ranked) > 1 else 0.0,
                top_terms=top_terms(tfidf, model, cluster_id, TOP_TERMS),
                sample_queries=[queries[members[i]] for i in typical],
            )
        )
    return sorted(labels, key=lambda entry: (-entry.sessions, entry.cluster))


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
        columns user_id, segment, sessions (of that segment), total (of the user); one row a user, sorted by user_id.
    """
    grouped = table.group_by(["user_id", "segment"]).aggregate([("session_id", "count"), ("timestamp", "max")])
    grouped = grouped.append_column("named", pc.cast(pc.not_equal(grouped["segment"], OTHER), pa.int8()))
    totals = table.group_by("user_id").aggregate([("session_id", "count")])
    frame = grouped.sort_by(
        [("user_id", "ascending"), ("session_id_count", "descending"), ("named", "descending"),
         ("timestamp_max", "descending"), ("segment", "ascending")]
    )  # fmt: skip
    users = frame["user_id"].combine_chunks()
    first = pc.if_else(
        pc.equal(pa.array(range(len(users))), 0),
        True,
        pc.not_equal(users, users.take(pa.array(np.maximum(np.arange(len(users)) - 1, 0)))),
    )
    firsts = frame.filter(first)
    totals = totals.sort_by("user_id")
    return pa.table(
        {
            "user_id": firsts["user_id"],
            "segment": firsts["segment"],
            "sessions": firsts["session_id_count"],
            "total": totals["session_id_count"],
        }
    )


def summarize(labeled: LabeledSegments) -> pd.DataFrame:
    """One row a segment, the largest first.

    Columns: segment, users, sessions, share (of sessions), clusters, keywords, sample_queries.

    ``users`` counts each user once, in their dominant segment, so the column adds up to all users.
    """
    sessions = labeled.table.group_by("segment").aggregate([("session_id", "count")]).to_pandas()
    users = dominant_segments(labeled.table).group_by("segment").aggregate([("user_id", "count")]).to_pandas()
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


def _interleave(lists: list[list[str]]) -> list[str]:
    longest = max((len(items) for items in lists), default=0)
    return list(dict.fromkeys(items[i] for i in range(longest) for items in lists if i < len(items)))
