"""The method with sentence vectors: what they add to the consensus, and what they must not change."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from segmentation_assets.core.clustering.consensus import best, partitions, settle
from segmentation_assets.core.clustering.embeddings import (
    BY_MEANING,
    Meanings,
    _nearness,
    by_meaning,
    settle_by_meaning,
)
from segmentation_assets.core.encoder import DIMENSIONS, missing
from segmentation_assets.core.evaluation import (
    LabelledTexts,
    agreement,
    parse_labelled,
    segment,
    session_case,
    session_clusters,
)
from segmentation_assets.core.settings import ClusterSettings, VectorSettings
from segmentation_assets.core.space import Corpus
from segmentation_assets.core.vectorize import vectorize

pytestmark = pytest.mark.skipif(bool(missing()), reason="the extra embeddings is not installed")

REAL = Path(__file__).parents[3] / "shared" / "data"

SAID_OTHERWISE = {
    "alarm": ["alarm tomorrow", "wake morning", "snooze clock", "bedtime ringing", "timer wakeup"],
    "music": ["song", "jazz album", "guitar concert", "playlist band", "melody singer"],
    "food": ["pizza", "pasta recipe", "baked bread", "cheese sandwich", "soup restaurant"],
}
"""No word twice: only who knows the language can tell what goes together."""


EVERY_TEXT = [text for texts in SAID_OTHERWISE.values() for text in texts]


def corpus_of(texts: list[str]) -> Corpus:
    """Each text the one search of a user of its own."""
    tfidf = vectorize(pa.array(texts), VectorSettings())
    users = np.arange(len(texts), dtype=np.int32)
    return Corpus.of_sessions(tfidf.matrix, tfidf.queries, tfidf.query_of_session, users)


def accuracy(data: LabelledTexts, method: str, seed: int = 0) -> float:
    chosen = ClusterSettings.model_validate({"method": method, "k": len(data.classes), "seed": seed})
    tfidf, model = segment(session_case(data), VectorSettings(), chosen)
    return agreement(data.truth, session_clusters(tfidf, model)[0]).accuracy


def test_what_is_said_in_other_words_is_put_together() -> None:
    pairs = [(name, text) for name, texts in SAID_OTHERWISE.items() for text in texts]
    data = LabelledTexts.of([name for name, _ in pairs], [text for _, text in pairs])
    assert accuracy(data, "embeddings") >= 0.85
    assert accuracy(data, "consensus") < 0.7


def test_there_are_as_many_partitions_by_meaning_as_of_all_other_kinds() -> None:
    corpus = corpus_of(EVERY_TEXT)
    meant = by_meaning(corpus, Meanings.of(corpus, 1), 3, seed=1)
    assert len(meant) == len(partitions(corpus, 3, 20, 1)) == BY_MEANING
    for labels in meant:
        assert labels.shape == (len(corpus.texts),)
        assert labels.dtype == np.int32
        assert set(labels.tolist()) == {0, 1, 2}
    assert len({labels.tobytes() for labels in meant}) > 1, "they start differently"


def test_the_same_queries_and_seed_give_the_same_partitions() -> None:
    corpus = corpus_of(EVERY_TEXT)
    one, two = (by_meaning(corpus, Meanings.of(corpus, 1), 3, seed=1) for _ in range(2))
    assert [labels.tolist() for labels in one] == [labels.tolist() for labels in two]


def test_of_too_many_queries_those_searched_for_most_are_read() -> None:
    often = EVERY_TEXT[::2]
    corpus = corpus_of(EVERY_TEXT + often)
    meanings = Meanings.of(corpus, 1, most=len(often))
    assert corpus.texts.take(meanings.read).to_pylist() == sorted(often)
    unread = np.setdiff1d(np.arange(len(EVERY_TEXT)), meanings.read)
    for labels in by_meaning(corpus, meanings, 3, seed=1):
        assert (labels[unread] == -1).all()
        assert (labels[meanings.read] >= 0).all()


def test_a_query_without_a_known_term_is_not_read() -> None:
    corpus = corpus_of(["red shoes", "for the", "laptop", "garden chair", "???"])
    assert corpus.texts.take(Meanings.of(corpus, 1).read).to_pylist() == ["garden chair", "laptop", "red shoes"]


def test_queries_that_all_mean_the_same_are_left_to_the_other_witnesses() -> None:
    corpus = corpus_of(["cafe table", "café table", "CAFE  TABLE", "shoes"])
    meanings = Meanings.of(corpus, 1)
    assert by_meaning(corpus, meanings, 3, seed=1) == []
    assert len(by_meaning(corpus, meanings, 2, seed=1)) == BY_MEANING


def test_in_the_last_rounds_meaning_draws_a_misplaced_query_to_its_like() -> None:
    """Its words are in no other query, so by words alone it stays where it was put."""
    corpus = corpus_of(EVERY_TEXT)
    kind = {text: i for i, texts in enumerate(SAID_OTHERWISE.values()) for text in texts}
    truth = np.array([kind[text] for text in corpus.texts.to_pylist()], dtype=np.int32)
    wrong = truth.copy()
    astray = corpus.texts.to_pylist().index("pizza")
    wrong[astray] = kind["song"]
    assert best(settle(corpus, wrong, 3), corpus)[astray] == kind["song"]
    together = best(settle_by_meaning(corpus, Meanings.of(corpus, 1), wrong, 3), corpus)
    assert together.tolist() == truth.tolist()


def test_a_cluster_of_one_vector_searched_for_without_end_is_not_infinitely_sure() -> None:
    vectors = np.full((2, DIMENSIONS), DIMENSIONS**-0.5)
    with np.errstate(all="raise"):
        near = _nearness(vectors, np.array([[1e17, 0.0], [1e17, 0.0]]))
    assert np.isfinite(near).all()
    assert (near[:, 0] > near[:, 1]).all()


@pytest.mark.skipif(not REAL.is_dir(), reason="the labelled sets are not here (shared/data)")
def test_on_real_texts_in_many_words_it_is_right_more_often_than_the_consensus() -> None:
    """A part of the set, to be quick; docs/benchmarks.md has all of all sets."""
    content = (REAL / "hwu_scenario18.tsv").read_bytes()
    lines = [line for line in content.splitlines() if line.startswith((b"alarm", b"music", b"news", b"transport"))]
    data = parse_labelled(b"\n".join(lines[::3]), "hwu")
    assert accuracy(data, "embeddings") > accuracy(data, "consensus")
    assert accuracy(data, "embeddings") > 0.85
