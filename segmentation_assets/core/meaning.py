"""Words that mean nearly the same as a keyword, by their sentence vectors (the extra ``[embeddings]``).

What belongs here: which word is near which keyword. What does not: the vectors (encoder), what follows (matching).
"""

from collections.abc import Mapping

import numpy as np

from segmentation_assets.core.encoder import encode
from segmentation_assets.core.matching import KeywordMatcher

LEAST_SESSIONS = 3
LEAST_LETTERS = 4
"""Rare and short words are mostly names and pieces, and their vectors chance."""


def learn_meanings(matcher: KeywordMatcher, frequencies: Mapping[str, int], least: float) -> dict[str, str]:
    """Let a matcher take words for the keywords that they mean nearly the same as.

    Only keywords of one word, and only words that the matcher cannot read otherwise. A vector knows what words are
    used alike, not what is sold: 'samsung' is near 'smartphone', but 'tuesday' would be near 'friday'. So such a match
    is the least sure of all (``matching.CERTAINTY``).

    Args:
        matcher: made from the taxonomy; changed.
        frequencies: sessions that hold each folded word.
        least: smallest cosine of the two vectors, 0..1.

    Returns:
        Word to keyword, what was learned.

    Raises:
        EncoderMissingError: the extra is not installed.
    """
    keywords = sorted(matcher.single_words)
    words = sorted(
        word
        for word, sessions in frequencies.items()
        if sessions >= LEAST_SESSIONS and len(word) >= LEAST_LETTERS and word.isalpha() and not matcher.find(word)
    )
    if not words or not keywords:
        return {}
    alike = encode(words) @ encode(keywords).T
    nearest = np.asarray(alike.argmax(axis=1))
    found = {
        word: keywords[near]
        for word, near, cosine in zip(words, nearest.tolist(), alike.max(axis=1).tolist(), strict=True)
        if cosine >= least
    }
    matcher.learn(found)
    return found
