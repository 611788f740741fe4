"""The number of clusters: what is in the data is found, what is not is said to be a guess."""

import numpy as np
import pyarrow as pa
import pytest

from segmentation_assets.core.choose_k import FIRM, KChoice, _judge, candidates, choose_k
from segmentation_assets.core.settings import VectorSettings
from segmentation_assets.core.space import Corpus
from segmentation_assets.core.vectorize import vectorize


def corpus(tastes: int, users: int = 160, shared: float = 0.1, seed: int = 1) -> Corpus:
    chance = np.random.default_rng(seed)
    queries, owners = [], []
    for user in range(users):
        for _ in range(5):
            own = f"{'abcdefgh'[user % tastes]}thing{chance.integers(15)}"
            queries.append(f"any{chance.integers(8)}" if chance.random() < shared else own)
            owners.append(user)
    tfidf = vectorize(pa.array(queries), VectorSettings(text="plain"))
    return Corpus.of_sessions(tfidf.matrix, tfidf.queries, tfidf.query_of_session, np.array(owners, dtype=np.int32))


@pytest.mark.parametrize("tastes", [3, 5])
def test_the_number_of_tastes_is_found_within_a_quarter_and_with_confidence(tastes: int) -> None:
    choice = choose_k(corpus(tastes), 2, 10, 20, seed=1)
    assert abs(choice.k - tastes) <= 0.25 * tastes
    assert choice.confident, choice.reason


def test_words_at_random_give_a_guess_that_is_called_one() -> None:
    choice = choose_k(corpus(4, shared=1.0), 2, 8, 20, seed=1)
    assert not choice.confident


def test_a_range_that_ends_too_early_gives_no_confidence() -> None:
    choice = choose_k(corpus(6), 2, 4, 20, seed=1)
    assert choice.k == 4
    assert not choice.confident


def test_the_same_seed_proposes_the_same() -> None:
    assert choose_k(corpus(3, 60), 2, 5, 20, seed=2) == choose_k(corpus(3, 60), 2, 5, 20, seed=2)


def test_far_up_not_every_number_is_tried_but_both_ends_are() -> None:
    tried = candidates(3, 40)
    assert tried[:8] == [3, 4, 5, 6, 7, 8, 9, 10]
    assert tried[-1] == 40
    assert len(tried) < 30
    assert candidates(5, 5) == [5]


def curves(*peaks: int, firm: float = 0.9) -> tuple[dict[int, float], dict[int, float], dict[int, float]]:
    one, two, three = ({k: firm if k == peak else firm - 0.01 for k in range(2, 21)} for peak in peaks)
    return one, two, three


@pytest.mark.parametrize(
    ("peaks", "firm", "k", "confident", "reason"),
    [
        ((8, 8, 10), 0.9, 8, True, "agree"),
        ((8, 8, 11), 0.9, 8, False, "do not agree"),
        ((8, 8, 8), FIRM - 0.01, 8, False, "little in common"),
        ((20, 20, 18), 0.9, 20, False, "nothing beyond the range"),
        ((2, 2, 2), 0.9, 2, True, "agree"),
    ],
)
def test_the_median_is_taken_and_doubt_is_said(
    peaks: tuple[int, ...], firm: float, k: int, confident: bool, reason: str
) -> None:
    choice: KChoice = _judge(curves(*peaks, firm=firm), 2, 20)
    assert (choice.k, choice.confident) == (k, confident)
    assert reason in choice.reason
    assert sorted(choice.proposals.values()) == sorted(peaks)
