"""What a taxonomy lacks, and what in it does not work, on the sessions at hand.

What belongs here: drafts of new entries, and findings about the present ones. What does not: finding keywords in a
query (matching), naming clusters (labels), loading or printing.
"""

import re
from collections import Counter, defaultdict
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pyarrow.compute as pc
import yaml
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from segmentation_assets.core.labels import OTHER, ClusterLabel, LabeledSegments
from segmentation_assets.core.matching import KeywordMatcher, Match, typed_words, word_frequencies
from segmentation_assets.core.names import contrastive_terms, distinct_words, phrases
from segmentation_assets.core.taxonomy import SegmentEntry, Taxonomy, words
from segmentation_assets.core.tokens import unaccented
from segmentation_assets.core.vectorize import TfidfMatrix

KEYWORDS = 12
"""Keywords drafted for one segment."""

TIED = 0.8
"""A missing keyword: at least this share of the sessions that hold it are in clusters of the segment .."""

LIFT = 1.5
"""..and that is this many times the segment's share of all sessions: where everybody is, everything is tied to it."""

HERE = 0.5
"""A keyword of a new entry: at least this share of the sessions that hold it are in its cluster."""

INSTEAD = 0.5
"""A word stands alone, and not in a phrase with its neighbour, when the phrase would match less than this share of what
the word matches: 'air fryer', but 'moisturizer' and not the one brand of it."""

SESSIONS, USERS = 3, 2
"""What fewer sessions hold, or a single user, is chance .."""

WORTH = 0.001
"""..and so is what a smaller share of the clusters' sessions hold."""

OVERLAP = 0.5
"""Two keywords overlap when this share of the rarer one's sessions hold the other as well."""

AMBIGUOUS = 0.8
"""A keyword is ambiguous when it is found this nearly as often in clusters of another name as in those of its own."""

READINGS = 20
"""Guessed readings shown, the most frequent ones."""


@dataclass(frozen=True)
class DraftKeyword:
    """A word, or words that stand together, that might be a keyword.

    Attributes:
        keyword: as people most often type it.
        sessions: sessions that it would match.
        users: users of those.
        share: share of them in the clusters it was drafted for.
        gain: of the sessions in those clusters, how many it would match that no keyword matches now.
    """

    keyword: str
    sessions: int
    users: int
    share: float
    gain: int


@dataclass(frozen=True)
class DraftSegment:
    """A cluster that the taxonomy does not name, as a new entry.

    Attributes:
        segment: a name that a taxonomy takes; not one of its own.
        description: the cluster's suggested name.
        cluster: its id.
        sessions: its sessions.
        users: users with a session in it.
        keywords: drafted keywords, heaviest first.
        sample_queries: typical queries.
    """

    segment: str
    description: str
    cluster: int
    sessions: int
    users: int
    keywords: list[DraftKeyword]
    sample_queries: list[str]


@dataclass(frozen=True)
class MoreKeywords:
    """Keywords that a segment of the taxonomy lacks.

    Attributes:
        segment: its name.
        sessions: sessions in its clusters.
        uncovered: those of them that hold none of its keywords.
        keywords: drafted keywords, the most frequent first.
    """

    segment: str
    sessions: int
    uncovered: int
    keywords: list[DraftKeyword]


@dataclass(frozen=True)
class Suggestion:
    """Drafts for a person to accept, edit or leave.

    Attributes:
        segments: for clusters that are ``other``, the largest first.
        keywords: for segments that have clusters, in the order of the taxonomy.
    """

    segments: list[DraftSegment]
    keywords: list[MoreKeywords]


@dataclass(frozen=True)
class Finding:
    """What a person should look at in a taxonomy.

    Attributes:
        kind: 'never' (no query matches), 'duplicate' (one word written twice), 'overlap' (two keywords of different
            segments in the same queries), 'redundant' (the same within one segment), 'ambiguous' (nearly as frequent
            in clusters of another name).
        segment: the entry.
        keyword: of it; None where the whole entry is meant.
        other_segment: the other entry; None where there is none.
        other_keyword: of that.
        sessions: sessions it rests on.
        message: the finding in one sentence, with its numbers.
    """

    kind: str
    segment: str
    keyword: str | None
    other_segment: str | None
    other_keyword: str | None
    sessions: int
    message: str


@dataclass(frozen=True)
class Reading:
    """A word that was read as a keyword without being it.

    Attributes:
        typed: as people typed it.
        keyword: what it was read as.
        segment: the keyword's segment.
        kind: 'apart', 'compound' or 'typo', see ``matching``.
        sessions: sessions that hold it.
    """

    typed: str
    keyword: str
    segment: str
    kind: str
    sessions: int


@dataclass(frozen=True)
class Review:
    """A taxonomy on trial.

    Attributes:
        findings: by kind, the heaviest first within each.
        readings: the most frequent guesses, to see whether they are right; no finding by themselves.
        sessions: sessions looked at.
        matched: those of them that hold a keyword.
    """

    findings: list[Finding]
    readings: list[Reading]
    sessions: int
    matched: int


def suggest(tfidf: TfidfMatrix, labels: NDArray[np.int32], labeled: LabeledSegments, taxonomy: Taxonomy) -> Suggestion:
    """Draft what the taxonomy lacks.

    A cluster that is ``other`` becomes a new entry with its contrastive terms (``names.contrastive_terms``). A segment
    that has clusters gets the words of its uncovered sessions that are tied to it (``TIED``, ``LIFT``). Words that
    stand together are one keyword. Each draft was tried on the sessions: it matches what its numbers say, and something
    that no keyword matches now. Words of fewer than three letters and numbers are no keywords.

    Args:
        tfidf: the queries.
        labels: (n_distinct,) cluster id of each distinct query; -1 is no cluster.
        labeled: the clusters' labels, of this taxonomy, and the users of the sessions.
        taxonomy: the present one.
    """
    segment_of = {entry.cluster: entry.segment for entry in labeled.labels}
    segments = np.array([segment_of.get(cluster, "") for cluster in labels.tolist()], dtype=object)
    covered = _covered(tfidf, segments, taxonomy)
    present = csr_matrix(
        (np.ones(tfidf.matrix.nnz), tfidf.matrix.indices, tfidf.matrix.indptr), shape=tfidf.matrix.shape
    )
    everywhere = np.asarray(tfidf.counts @ present).ravel()
    terms = tfidf.terms.to_pylist()

    inside: dict[str, NDArray[np.bool_]] = {}  # what a draft is for -> its queries
    candidates: dict[str, list[str]] = {}
    for name in taxonomy.segments:
        mine = segments == name
        held = np.asarray(np.where(mine, tfidf.counts, 0) @ present).ravel()
        open_ = np.asarray(np.where(mine & ~covered, tfidf.counts, 0) @ present).ravel()
        base = int(tfidf.counts[mine].sum()) / max(int(tfidf.counts.sum()), 1)
        tied = (held >= max(TIED, LIFT * base) * everywhere) & (open_ >= SESSIONS)
        inside[name] = mine
        candidates[name] = [terms[int(i)] for i in np.argsort(-open_, kind="stable") if tied[i]][: 3 * KEYWORDS]
    unnamed = {str(entry.cluster): entry for entry in labeled.labels if entry.segment == OTHER}
    contrast = contrastive_terms(tfidf, labels, 3 * KEYWORDS)
    for key, entry in unnamed.items():  # with a plus, which no segment's name has
        inside[f"+{key}"] = labels == entry.cluster
        candidates[f"+{key}"] = list(contrast.get(entry.cluster, {}))
    wanted = {
        key: phrases(
            tfidf,
            np.flatnonzero(inside[key]),
            distinct_words(filter(_may_be_keyword, found)),
        )
        for key, found in candidates.items()
    }
    drafts = _tried(tfidf, labeled, wanted, inside, covered)

    taken = {*taxonomy.segments, OTHER}
    new = []
    for key, entry in unnamed.items():
        if drafts[f"+{key}"]:
            name = _segment_name(entry, taken)
            taken.add(name)
            new.append(
                DraftSegment(
                    segment=name,
                    description=entry.suggested_name,
                    cluster=entry.cluster,
                    sessions=entry.sessions,
                    users=entry.users,
                    keywords=drafts[f"+{key}"],
                    sample_queries=entry.sample_queries,
                )
            )
    more = [
        MoreKeywords(
            segment=name,
            sessions=int(tfidf.counts[inside[name]].sum()),
            uncovered=int(tfidf.counts[inside[name] & ~covered].sum()),
            keywords=drafts[name],
        )
        for name in taxonomy.segments
        if drafts[name]
    ]
    return Suggestion(new, more)


def as_yaml(suggestion: Suggestion) -> str:
    """The drafts as YAML to paste into a taxonomy, with what they rest on in comments.

    Whole entries stand under ``segments``, ready to use. Keywords for present segments stand in comments, one line
    each: whether a word belongs there is for a person to say.
    """
    lines = [
        "# Drafted from the sessions at hand, for you to accept, edit or leave. Paste entries below `segments:` of"
    ]
    lines += ["# your taxonomy file, and name that file in your settings: labels.taxonomy: taxonomy.yaml"]
    if suggestion.segments:
        lines += ["segments:"]
    for entry in suggestion.segments:
        lines += [
            f"  # cluster {entry.cluster}: {entry.sessions:,} sessions, {entry.users:,} users",
            *(f"  # e.g. {_one_line(query)}" for query in entry.sample_queries),
            f"  {entry.segment}:",
            f"    description: {_scalar(entry.description)}",
            "    keywords:",
            *(f"      - {_scalar(word.keyword)}  # {_numbers(word)}" for word in entry.keywords),
        ]
    for more in suggestion.keywords:
        lines += [
            f"# {more.segment}: {more.uncovered:,} of its {more.sessions:,} sessions hold none of its keywords.",
            "# Perhaps some of these are missing there:",
            *(f"#     - {_scalar(word.keyword)}  # {_numbers(word)}" for word in more.keywords),
        ]
    if not suggestion.segments and not suggestion.keywords:
        lines += ["# Nothing is missing: every cluster has a name, and no frequent word is without a keyword."]
    return "\n".join(lines) + "\n"


def review(tfidf: TfidfMatrix, labels: NDArray[np.int32], labeled: LabeledSegments, taxonomy: Taxonomy) -> Review:
    """Say what in a taxonomy does not work on these sessions.

    Args:
        tfidf: the queries.
        labels: (n_distinct,) cluster id of each distinct query; -1 is no cluster.
        labeled: the clusters' labels, of this taxonomy.
        taxonomy: the one on trial.
    """
    queries, counts = tfidf.queries.to_pylist(), tfidf.counts.tolist()
    matcher = KeywordMatcher(taxonomy, word_frequencies(typed_words(queries), tfidf.counts))
    segment_of = {entry.cluster: entry.segment for entry in labeled.labels}
    sessions: Counter[tuple[str, str]] = Counter()
    together: Counter[tuple[tuple[str, str], tuple[str, str]]] = Counter()
    typed_in: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    guesses: Counter[Match] = Counter()
    matched = 0
    for query, count, cluster in zip(queries, counts, labels.tolist(), strict=True):
        found = matcher.find(query)
        matched += count if found else 0
        for key, match in found.items():
            sessions[key] += count
            typed_in[key][segment_of.get(cluster, OTHER)] += count
            if match.kind not in ("exact", "plural"):
                guesses[match] += count
        for pair in combinations(sorted(found), 2):
            together[pair] += count
    findings = [
        *_never(taxonomy, sessions),
        *_duplicates(taxonomy, sessions),
        *_overlaps(sessions, together),
        *_ambiguous(sessions, typed_in),
    ]
    readings = [
        Reading(match.typed, match.keyword, match.segment, match.kind, count)
        for match, count in sorted(guesses.items(), key=lambda item: (-item[1], item[0]))[:READINGS]
    ]
    return Review(findings, readings, sum(counts), matched)


def _never(taxonomy: Taxonomy, sessions: Counter[tuple[str, str]]) -> list[Finding]:
    findings = []
    for segment, entry in taxonomy.segments.items():
        silent = [keyword for keyword in dict.fromkeys(entry.keywords) if not sessions[segment, keyword]]
        if len(silent) == len(set(entry.keywords)):
            message = f"no query holds a keyword of {segment}"
            findings.append(Finding("never", segment, None, None, None, 0, message))
        else:
            findings += [
                Finding("never", segment, keyword, None, None, 0, f"no query holds {keyword!r} ({segment})")
                for keyword in silent
            ]
    return findings


def _duplicates(taxonomy: Taxonomy, sessions: Counter[tuple[str, str]]) -> list[Finding]:
    written: dict[tuple[str, ...], tuple[str, str]] = {}
    findings = []
    for segment, entry in taxonomy.segments.items():
        for keyword in entry.keywords:
            before = written.get(words(keyword))
            if before is None:
                written[words(keyword)] = (segment, keyword)
                continue
            message = f"{keyword!r} ({segment}) is the same to the matcher as {before[1]!r} ({before[0]})"
            findings.append(Finding("duplicate", segment, keyword, *before, sessions[segment, keyword], message))
    return findings


def _overlaps(
    sessions: Counter[tuple[str, str]], together: Counter[tuple[tuple[str, str], tuple[str, str]]]
) -> list[Finding]:
    findings = []
    for (one, another), both in sorted(together.items(), key=lambda item: (-item[1], item[0])):
        rarer, other = sorted((one, another), key=lambda key: (sessions[key], key))
        if both < SESSIONS or both < OVERLAP * sessions[rarer] or words(rarer[1]) == words(other[1]):
            continue
        same = rarer[0] == other[0]
        if same and (both < sessions[rarer] or not _contains(rarer[1], other[1])):
            continue  # words of one segment may well stand together; only one that can add nothing is worth a line
        message = (
            f"{both:,} of the {sessions[rarer]:,} sessions with {rarer[1]!r} ({rarer[0]}) "
            f"also hold {other[1]!r} ({other[0]})"
        )
        findings.append(Finding("redundant" if same else "overlap", *rarer, *other, both, message))
    return sorted(findings, key=lambda finding: finding.kind)


def _contains(keyword: str, other: str) -> bool:
    """Whether a query with the one keyword always holds the other as well."""
    long, short = words(keyword), words(other)
    return "".join(long) == "".join(short) or any(
        long[i : i + len(short)] == short for i in range(len(long) - len(short) + 1)
    )


def _ambiguous(sessions: Counter[tuple[str, str]], typed_in: dict[tuple[str, str], Counter[str]]) -> list[Finding]:
    findings = []
    for (segment, keyword), where in sorted(typed_in.items(), key=lambda item: (-sessions[item[0]], item[0])):
        others = sorted((-n, name) for name, n in where.items() if name not in (segment, OTHER))
        if not others:
            continue
        n, name = -others[0][0], others[0][1]
        if n >= SESSIONS and n >= AMBIGUOUS * where[segment]:
            message = (
                f"{keyword!r} ({segment}) is in {where[segment]:,} sessions of clusters named {segment} and in "
                f"{n:,} of clusters named {name}"
            )
            findings.append(Finding("ambiguous", segment, keyword, name, None, n, message))
    return findings


def _covered(tfidf: TfidfMatrix, segments: NDArray[np.object_], taxonomy: Taxonomy) -> NDArray[np.bool_]:
    """(n_distinct,) whether a query holds a keyword of its own segment; of any, where it has no segment with a name."""
    queries = tfidf.queries.to_pylist()
    matcher = KeywordMatcher(taxonomy, word_frequencies(typed_words(queries), tfidf.counts))
    return np.array(
        [
            bool(found) if segment not in taxonomy.segments else any(name == segment for name, _ in found)
            for segment, found in zip(segments.tolist(), map(matcher.find, queries), strict=True)
        ],
        dtype=bool,
    )


def _tried(
    tfidf: TfidfMatrix,
    labeled: LabeledSegments,
    wanted: dict[str, list[str]],
    inside: dict[str, NDArray[np.bool_]],
    covered: NDArray[np.bool_],
) -> dict[str, list[DraftKeyword]]:
    """The drafts that are worth it, with what each would match."""
    drafts: dict[str, list[DraftKeyword]] = {key: [] for key in wanted}
    spelled = {
        key: list(dict.fromkeys(word for text in found for word in (text, *text.split())))
        for key, found in wanted.items()
    }
    entries = {key: SegmentEntry(keywords=found) for key, found in spelled.items() if found}
    if not entries:
        return drafts
    # not validated: the keys are no names of segments, and nobody sees them
    matcher = KeywordMatcher(Taxonomy.model_construct(segments=entries))
    rows: dict[tuple[str, str], list[int]] = defaultdict(list)
    for row, query in enumerate(tfidf.queries.to_pylist()):
        for pair, match in matcher.find(query).items():
            if match.kind in ("exact", "plural"):
                rows[pair].append(row)
    users = pc.dictionary_encode(labeled.table["user_id"].combine_chunks()).indices.to_numpy()
    for key, found in wanted.items():
        mine = inside[key]
        least = max(SESSIONS, WORTH * int(tfidf.counts[mine].sum()))
        tied = HERE if key.startswith("+") else TIED
        tried: dict[str, DraftKeyword] = {}
        for keyword in spelled[key]:
            holds = np.zeros(len(mine), dtype=bool)
            holds[rows.get((key, keyword), [])] = True
            sessions, here = int(tfidf.counts[holds].sum()), int(tfidf.counts[holds & mine].sum())
            draft = DraftKeyword(
                keyword=keyword,
                sessions=sessions,
                users=len(np.unique(users[holds[tfidf.query_of_session]])),
                share=here / sessions if sessions else 0.0,
                gain=int(tfidf.counts[holds & mine & ~covered].sum()),
            )
            if draft.gain >= least and draft.users >= USERS and draft.share >= tied:
                tried[keyword] = draft
        chosen: dict[str, DraftKeyword] = {}
        for text in found:
            parts = [tried[word] for word in text.split() if word in tried and _may_be_keyword(word)]
            widest = max(parts, key=lambda draft: draft.gain, default=None)
            if text in tried and (widest is None or tried[text].gain >= INSTEAD * widest.gain):
                chosen[text] = tried[text]
            elif widest is not None:
                chosen[widest.keyword] = widest
        drafts[key] = list(chosen.values())
        if not key.startswith("+"):  # a new entry keeps the order of contrast
            drafts[key].sort(key=lambda draft: (-draft.gain, draft.keyword))
        del drafts[key][KEYWORDS:]
    return drafts


def _may_be_keyword(word: str) -> bool:
    return len(word) >= 3 and any(c.isalpha() for c in word) and bool(words(word))


def _segment_name(entry: ClusterLabel, taken: set[str]) -> str:
    """A name that a taxonomy takes, from the cluster's own words."""
    parts = re.findall(r"[a-z0-9]+", unaccented(entry.suggested_name.lower()))
    name = "_".join(parts)[:48].strip("_") or f"cluster_{entry.cluster}"
    number = 2
    unique = name
    while unique in taken:
        unique, number = f"{name}_{number}", number + 1
    return unique


def _numbers(draft: DraftKeyword) -> str:
    return (
        f"{draft.sessions:,} sessions of {draft.users:,} users, {draft.share:.0%} of them here, {draft.gain:,} gained"
    )


def _scalar(text: str) -> str:
    """A text as YAML on one line, quoted where it must be."""
    return str(yaml.safe_dump(text, allow_unicode=True, width=1_000_000)).removesuffix("...\n").strip()


def _one_line(text: str) -> str:
    """Somebody's query in a comment: no line break may end it."""
    return "".join(c if c.isprintable() else " " for c in text)
