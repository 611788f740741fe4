"""How right are the clusters: texts whose class is known, the product's own path over them, and the agreement of both.

What belongs here: labelled texts, users composed from them, and the numbers that compare clusters and keywords with
the truth. What does not: reading files, seconds and megabytes (cli/evaluate), and the bounds of asset checks, which
know no truth (quality).
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import sklearn.cluster
import sklearn.preprocessing  # noqa: F401  # what a fit would import: its time is not the method's
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.sparse import csr_matrix
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

from segmentation_assets.core.model import ClusterModel, fit, top_terms
from segmentation_assets.core.settings import ClusterSettings, VectorSettings
from segmentation_assets.core.vectorize import FUNCTION_WORDS, TfidfMatrix, vectorize
from segmentation_assets.errors import SegmentsError

OFF_CLASS = 0.2
"""Share of a composed user's queries that are of another class than the user's own."""

LEAST_USERS = 5
"""Users a class gets at least, also where that takes more texts than it has: no clustering can be judged by less."""

QUERIES_PER_USER = (1, 3, 5, 10)
"""Queries a user for which user level is reported."""

KEYWORDS = 10
"""Keywords of a cluster that its label is judged by."""

_NAME_PART = re.compile(r"[^\W\d_]+|\d+")
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")


class LabelledFileError(SegmentsError):
    """A file of labelled texts cannot be used as it is."""


@dataclass(frozen=True)
class LabelledTexts:
    """Texts with their true classes.

    Attributes:
        texts: (n_texts,) as they stand in the file.
        truth: (n_texts,) int32, the place of each text's class in ``classes``.
        classes: the different labels, sorted.
    """

    texts: tuple[str, ...]
    truth: NDArray[np.int32]
    classes: tuple[str, ...]

    @classmethod
    def of(cls, labels: Sequence[str], texts: Sequence[str]) -> "LabelledTexts":
        """From a label and a text each."""
        classes = sorted(set(labels))
        place = {label: i for i, label in enumerate(classes)}
        return cls(tuple(texts), np.array([place[label] for label in labels], dtype=np.int32), tuple(classes))


def parse_labelled(content: bytes, name: str) -> LabelledTexts:
    """Read lines of label TAB text: UTF-8, no header. What follows the first tab is the text, later tabs included.

    Args:
        content: the file.
        name: what errors call it.

    Raises:
        LabelledFileError: a line without a tab, with an empty label or text or not in UTF-8; fewer than two labels.
    """
    labels, texts = [], []
    lines = content.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    if not lines[-1].strip():
        lines.pop()
    for number, line in enumerate(lines, start=1):
        try:
            label, tab, text = line.decode("utf-8").partition("\t")
        except UnicodeDecodeError:
            raise LabelledFileError(
                f"{name}, line {number}: it is not UTF-8.", "Save the file in UTF-8, or take the line out."
            ) from None
        label, text = label.strip(), text.strip()
        wrong = "there is no tab" if not tab else "the label is empty" if not label else "the text is empty"
        if not (tab and label and text):
            raise LabelledFileError(
                f"{name}, line {number}: {wrong}.",
                "Every line is a label, a tab and a text, without a header. Correct the line, or take it out.",
            )
        labels.append(label)
        texts.append(text)
    if len(set(labels)) < 2:
        raise LabelledFileError(
            f"{name} holds {len(texts)} texts with {len(set(labels))} different labels.",
            "Clusters can be compared with the truth only where it has two labels or more.",
        )
    return LabelledTexts.of(labels, texts)


@dataclass(frozen=True)
class Case:
    """Sessions whose users have a known class.

    Attributes:
        texts: (n_sessions,) strings.
        users: (n_sessions,) int32, the user of each session.
        truth: (n_users,) int32, the class of each user.
    """

    texts: pa.Array
    users: NDArray[np.int32]
    truth: NDArray[np.int32]


def session_case(data: LabelledTexts) -> Case:
    """Session level: each text is the one session of a user of its own."""
    return Case(pa.array(data.texts, pa.string()), np.arange(len(data.texts), dtype=np.int32), data.truth)


def user_case(data: LabelledTexts, queries_per_user: int, seed: int) -> Case:
    """User level: users composed from the texts.

    A class gets one user for every ``queries_per_user`` of its texts, and at least ``LEAST_USERS``. Each query of a
    user is, with probability ``OFF_CLASS``, of another class, drawn in proportion to the number of its texts; otherwise
    of the user's own. The texts of a class are dealt like cards: shuffled, one after the other, and shuffled anew only
    when all have been dealt, so none is used twice before each was used once. Users are in random order, so that it
    gives nothing away.

    With one query a user the class of the query is the user's in four of five cases only, so no method can be expected
    to reach more than about 80.

    Args:
        data: the texts.
        queries_per_user: sessions each user gets, 1 or more.
        seed: same seed, same users.
    """
    rng = np.random.default_rng([seed, queries_per_user])
    sizes = np.bincount(data.truth, minlength=len(data.classes))
    users_of_class = np.maximum(sizes // queries_per_user, LEAST_USERS)
    truth = rng.permutation(np.repeat(np.arange(len(sizes), dtype=np.int32), users_of_class))
    own = np.repeat(truth, queries_per_user)
    wanted = own.copy()
    off = rng.random(len(own)) < OFF_CLASS
    for c in range(len(sizes)):
        here = off & (own == c)
        others = np.where(np.arange(len(sizes)) == c, 0, sizes)
        wanted[here] = rng.choice(len(sizes), size=int(here.sum()), p=others / others.sum())
    dealers = [_dealt(np.flatnonzero(data.truth == c), rng) for c in range(len(sizes))]
    texts = [data.texts[next(dealers[c])] for c in wanted.tolist()]
    users = np.repeat(np.arange(len(truth), dtype=np.int32), queries_per_user)
    return Case(pa.array(texts, pa.string()), users, truth)


def _dealt(cards: NDArray[np.int64], rng: np.random.Generator) -> Iterator[int]:
    while True:
        yield from rng.permutation(cards).tolist()


def joined(case: Case) -> Case:
    """The textbook's way with users: all texts of a user are one document, which is their only session."""
    texts: list[list[str]] = [[] for _ in case.truth]
    for user, text in zip(case.users.tolist(), case.texts.to_pylist(), strict=True):
        texts[user].append(text)
    documents = pa.array([" ".join(some) for some in texts], pa.string())
    return Case(documents, np.arange(len(case.truth), dtype=np.int32), case.truth)


def segment(case: Case, vectors: VectorSettings, clusters: ClusterSettings) -> tuple[TfidfMatrix, ClusterModel]:
    """The product's own path from sessions to clusters, and nothing else.

    Raises:
        SegmentsError: see ``vectorize`` and ``fit``.
    """
    tfidf = vectorize(case.texts, vectors.for_method(clusters.method))
    return tfidf, fit(tfidf, case.users, clusters)


def session_clusters(tfidf: TfidfMatrix, model: ClusterModel) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """(n_sessions,) cluster id, -1 for none, and (n_sessions,) confidence."""
    return model.labels[tfidf.query_of_session], model.confidence[tfidf.query_of_session]


def user_clusters(
    users: NDArray[np.int32], clusters: NDArray[np.int32], confidence: NDArray[np.float32]
) -> NDArray[np.int32]:
    """The cluster that most of a user's sessions are in.

    Of several, the one with the larger summed confidence; of these the lower id. Sessions in no cluster do not count.

    Args:
        users: (n_sessions,) numbers from 0 on, none left out.
        clusters: (n_sessions,) id, or -1 for none.
        confidence: (n_sessions,) 0..1.

    Returns:
        (n_users,) int32; -1 for a user without a session in a cluster.
    """
    found = np.full(int(users.max()) + 1, -1, dtype=np.int32)
    inside = np.flatnonzero(clusters >= 0)
    if not len(inside):
        return found
    pairs, pair_of = np.unique(np.stack([users[inside], clusters[inside]], axis=1), axis=0, return_inverse=True)
    pair_of = pair_of.ravel()
    sessions = np.bincount(pair_of)
    # Summed in an order that does not depend on that of the sessions, and rounded to what 32 bits can tell apart (0.1 +
    # 0.2 and 0.3 differ in the eighth digit): a tie is a tie.
    order = np.lexsort((confidence[inside], pair_of))
    sums = np.bincount(pair_of[order], weights=confidence[inside][order].astype(np.float64)).round(6)
    best = np.lexsort((pairs[:, 1], -sums, -sessions, pairs[:, 0]))
    first = best[np.unique(pairs[best, 0], return_index=True)[1]]
    found[pairs[first, 0]] = pairs[first, 1]
    return found


@dataclass(frozen=True)
class Agreement:
    """How far clusters agree with classes.

    Attributes:
        accuracy: share that is in the cluster matched with its class; see ``match_classes``.
        nmi: normalised mutual information, arithmetic mean (Vinh, Epps and Bailey, JMLR 11, 2010); no cluster is one
            of its own.
        ari: adjusted Rand index (Hubert and Arabie, 1985); the same.
        sizes: members of each cluster that has any, largest first.
        unclustered: members of no cluster.
    """

    accuracy: float
    nmi: float
    ari: float
    sizes: list[int]
    unclustered: int


def agreement(truth: NDArray[np.int32], clusters: NDArray[np.int32]) -> Agreement:
    """Compare clusters with classes.

    Args:
        truth: (n,) class numbers, n >= 1.
        clusters: (n,) cluster ids; -1 is no cluster, and never right.
    """
    matched = match_classes(truth, clusters)
    right = sum(int(((clusters == cluster) & (truth == c)).sum()) for cluster, c in matched.items())
    return Agreement(
        accuracy=right / len(truth),
        nmi=float(normalized_mutual_info_score(truth, clusters)),
        ari=float(adjusted_rand_score(truth, clusters)),
        sizes=sorted(np.unique(clusters[clusters >= 0], return_counts=True)[1].tolist(), reverse=True),
        unclustered=int((clusters < 0).sum()),
    )


def match_classes(truth: NDArray[np.int32], clusters: NDArray[np.int32]) -> dict[int, int]:
    """Each cluster's class, and each class's cluster, so that as many as possible are right (Kuhn 1955).

    Args:
        truth: (n,) class numbers.
        clusters: (n,) cluster ids; -1 is no cluster.

    Returns:
        cluster id to class number; where there are more of the one than of the other, some stay alone.
    """
    ids = np.unique(clusters[clusters >= 0])
    classes = np.unique(truth)
    inside = clusters >= 0
    together = np.zeros((len(ids), len(classes)), dtype=np.int64)
    np.add.at(together, (np.searchsorted(ids, clusters[inside]), np.searchsorted(classes, truth[inside])), 1)
    pairs = zip(*linear_sum_assignment(-together), strict=True)
    return {int(ids[row]): int(classes[column]) for row, column in pairs}


@dataclass(frozen=True)
class LabelScores:
    """How well clusters are described by their first ``KEYWORDS`` keywords.

    Attributes:
        class_accuracy: share of the sessions whose class is the one that their cluster's keywords stand for. Each
            keyword has one vote and divides it among the classes in proportion to the share of their texts that hold
            it, so a large class gains nothing by its size; the class with the most votes is what the keywords stand
            for. A cluster that is wrong and keywords that are wrong both cost.
        classes_covered: share of the classes that some cluster's keywords stand for.
        name_in_top1: share of the classes of which the first keyword of the cluster matched with it
            (``match_classes``) has a word of the class's own name. A name is split at capitals and signs; function
            words do not count; singular and plural are the same.
        name_in_top5: the same with the first five keywords.
        diversity: share of different ones among the keywords of all clusters (Dieng, Ruiz and Blei, TACL 8, 2020).

    Deliberately no NPMI: keywords that often stand together score high also where the clusters are wrong.
    """

    class_accuracy: float
    classes_covered: float
    name_in_top1: float
    name_in_top5: float
    diversity: float


def keywords(tfidf: TfidfMatrix, model: ClusterModel) -> dict[int, list[str]]:
    """The keywords that each cluster is shown with, the best first; at most ``KEYWORDS``."""
    return {int(c): list(top_terms(tfidf, model, int(c), KEYWORDS)) for c in model.cluster_ids}


def judge_keywords(
    data: LabelledTexts, tfidf: TfidfMatrix, clusters: NDArray[np.int32], shown: Mapping[int, Sequence[str]]
) -> LabelScores:
    """Judge the keywords of clusters.

    Args:
        data: the texts.
        tfidf: the same texts, in the same order; a text holds a keyword where its row has that term.
        clusters: (n_texts,) cluster of each text; -1 is none, and counts as wrong.
        shown: cluster id to its keywords, the best first. A keyword that is no term has no vote.
    """
    truth, classes = data.truth, data.classes
    voted = {cluster: _vote(votes) for cluster, votes in _votes(data, tfidf, shown).items()}
    right = sum(int(((clusters == cluster) & (truth == c)).sum()) for cluster, c in voted.items() if c is not None)
    named = {1: 0, 5: 0}
    for cluster, c in match_classes(truth, clusters).items():
        name = name_words(classes[c])
        for first in named:
            said = {_singular(word) for keyword in shown[cluster][:first] for word in _words(keyword)}
            named[first] += bool(name & said)
    every = [word for words in shown.values() for word in words]
    return LabelScores(
        class_accuracy=right / len(truth),
        classes_covered=len({c for c in voted.values() if c is not None}) / len(classes),
        name_in_top1=named[1] / len(classes),
        name_in_top5=named[5] / len(classes),
        diversity=len(set(every)) / max(len(every), 1),
    )


def _votes(
    data: LabelledTexts, tfidf: TfidfMatrix, shown: Mapping[int, Sequence[str]]
) -> dict[int, NDArray[np.float64]]:
    """Cluster id to the (n_classes,) votes of its keywords."""
    n_texts, n_classes = len(data.texts), len(data.classes)
    member = csr_matrix((np.ones(n_texts), (data.truth, tfidf.query_of_session)), shape=(n_classes, len(tfidf.counts)))
    holding = csr_matrix(member @ (tfidf.matrix > 0)).tocsc()
    column = {term: i for i, term in enumerate(tfidf.terms.to_pylist())}
    sizes = np.bincount(data.truth, minlength=n_classes)
    votes = {cluster: np.zeros(n_classes) for cluster in shown}
    for cluster, words in shown.items():
        for word in words:
            if word in column:
                share = holding[:, [column[word]]].toarray().ravel() / sizes
                votes[cluster] += share / share.sum()
    return votes


def _vote(votes: NDArray[np.float64]) -> int | None:
    """The class with most votes, the first of several; None where there is no vote."""
    return int(votes.round(9).argmax()) if votes.any() else None


def name_words(name: str) -> set[str]:
    """The words of a class's name in the singular: 'AddToPlaylist' is add and playlist."""
    return {_singular(word) for word in _words(_CAMEL.sub(" ", name))}


def _words(text: str) -> list[str]:
    return [word for word in _NAME_PART.findall(text.lower()) if word not in FUNCTION_WORDS]


def _singular(word: str) -> str:
    """English plurals by their ending alone; the same is done to both sides, so a false singular does no harm."""
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    if len(word) > 4 and word.endswith(("shes", "ches", "sses", "xes", "zes")):
        return word[:-2]
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return word[:-1]
    return word
