"""What each way of reading text is worth: clusters with and without it, and queries that are written in another way.

python -m benchmarks.text [--data DIR] [--seeds 5] [--sessions 100000]

First table: accuracy on labelled texts and on generated sessions, with plain text, with a shop's, and with one handling
of a shop's text left out at a time. Second: generated queries rewritten as people might, read in the vocabulary of the
log they come from; how like the row of the query as it was (cosine, mean), and how many have no known term left.
"""

import argparse
import random
import re
import unicodedata
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pyarrow as pa

from benchmarks.generated import END
from segmentation_assets.core import tokens
from segmentation_assets.core.evaluation import (
    Case,
    LabelledTexts,
    agreement,
    parse_labelled,
    segment,
    session_case,
    session_clusters,
)
from segmentation_assets.core.generate import generate_sessions
from segmentation_assets.core.settings import ClusterSettings, VectorSettings
from segmentation_assets.core.vectorize import transform, vectorize

DATA = Path(__file__).parents[2] / "shared" / "data"
DEVELOPMENT_SETS = ("snips7", "hwu_scenario18", "wands_ge5")
CLUSTERED = 20_000  # generated sessions of the first table
REWRITTEN = 3_000  # queries of the second
METHOD = "spherical"  # by the words alone: what users have in common would hide what words do

Patches = list[tuple[str, Any]]
LEFT_OUT: dict[str, Patches] = {
    "without plurals and accents": [("key", lambda word: word)],
    "without spelling": [("misspellings", lambda _: {})],
    "without words written apart": [("written_apart", lambda *_: ({}, {}))],
    "without units and sizes": [("_measure", lambda match: match[0]), ("_SIZE", re.compile("(?!)(x)"))],
}


def main() -> None:
    """Print two Markdown tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the labelled sets")
    parser.add_argument("--seeds", type=int, default=5, help="seeds, averaged")
    parser.add_argument("--sessions", type=int, default=100_000, help="generated sessions whose queries are rewritten")
    options = parser.parse_args()
    cases = {name: _labelled(options.data / f"{name}.tsv") for name in DEVELOPMENT_SETS}
    cases["generated"] = _generated(CLUSTERED)
    print("| text | " + " | ".join(cases) + " | mean |\n|---|" + "---|" * (len(cases) + 1))
    for name, text, left_out in [
        ("plain", "plain", []),
        ("shop", "shop", []),
        *((name, "shop", patches) for name, patches in LEFT_OUT.items()),
    ]:
        with ExitStack() as stack:
            for attribute, value in left_out:
                stack.enter_context(patch.object(tokens, attribute, value))
            right = [_accuracy(data, case, text, options.seeds) for data, case in cases.values()]
        print(
            f"| {name} | " + " | ".join(f"{100 * share:.1f}" for share in [*right, np.mean(right)]) + " |", flush=True
        )
    print("\n| query | rewritten | plain: cosine | no term | shop: cosine | no term |\n|---|---|---|---|---|---|")
    log = [document["search_query"] for document in generate_sessions(options.sessions, 1, END).documents]
    known = {
        text: vectorize(pa.array(log), VectorSettings.model_validate({"text": text})) for text in ("plain", "shop")
    }
    queries = random.Random(1).sample(sorted(set(log)), REWRITTEN)
    for name, rewrite in REWRITE.items():
        chance = random.Random(2)
        pairs = [(query, other) for query in queries if (other := rewrite(query, chance)) not in (None, query)]
        cells = []
        for tfidf in known.values():
            before, after = (
                transform(some, tfidf.terms, tfidf.idf, tfidf.settings, tfidf.spellings)
                for some in zip(*pairs, strict=True)
            )
            lost = (np.diff(before.indptr) > 0) & (np.diff(after.indptr) == 0)
            cells += [f"{before.multiply(after).sum() / len(pairs):.2f}", f"{lost.mean():.1%}"]
        print(f"| {name} | {len(pairs):,} | " + " | ".join(cells) + " |")


def _labelled(path: Path) -> tuple[LabelledTexts, Case]:
    data = parse_labelled(path.read_bytes(), path.name)
    return data, session_case(data)


def _generated(n: int) -> tuple[LabelledTexts, Case]:
    generated = generate_sessions(n, 1, END)
    queries = [document["search_query"] for document in generated.documents]
    data = LabelledTexts.of(generated.truth.sessions["taste"].to_pylist(), queries)
    return data, session_case(data)


def _accuracy(data: LabelledTexts, case: Case, text: str, seeds: int) -> float:
    vectors = VectorSettings.model_validate({"text": text})
    found = []
    for seed in range(seeds):
        clusters = ClusterSettings.model_validate({"method": METHOD, "k": len(data.classes), "seed": seed})
        labels, _ = session_clusters(*segment(case, vectors, clusters))
        found.append(agreement(data.truth, labels).accuracy)
    return float(np.mean(found))


def _plural(query: str, _: random.Random) -> str | None:
    """The last word's other number."""
    if not re.search(r"[a-z]{4}$", query):
        return None
    if re.search(r"[^s]s$", query):
        return re.sub(r"(?<=ss|ch|sh)es$|(?<=x)es$|s$", "", query)
    return query + ("es" if re.search(r"(s|x|ch|sh)$", query) else "s")


def _slip(query: str, chance: random.Random) -> str | None:
    """One letter of a word of five letters or more swapped, doubled or left out."""
    words = [match.span() for match in re.finditer(r"[a-z]{5,}", query)]
    if not words:
        return None
    start, end = chance.choice(words)
    at = chance.randrange(start + 1, end - 1)
    middle = chance.choice([query[at + 1] + query[at], query[at] * 2 + query[at + 1], query[at + 1]])
    return query[:at] + middle + query[at + 2 :]


def _unit(query: str, _: random.Random) -> str:
    """'16gb' for '16 gb', and the other way round."""
    units = "gb|tb|inch|oz|ml|lb|kg|ft|mah|pack"
    apart = re.sub(rf"(\d)({units})\b", r"\1 \2", query)
    return apart if apart != query else re.sub(rf"(\d) ({units})\b", r"\1\2", query)


def _bare(query: str, _: random.Random) -> str:
    return "".join(c for c in unicodedata.normalize("NFD", query) if not unicodedata.combining(c))


REWRITE: dict[str, Callable[[str, random.Random], str | None]] = {
    "in capitals": lambda query, _: query.upper(),
    "the words the other way round": lambda query, _: " ".join(reversed(query.split())),
    "the last word's other number": _plural,
    "one letter wrong": _slip,
    "a space left out": lambda query, _: query.replace(" ", "", 1),
    "a hyphen for the space": lambda query, _: query.replace(" ", "-", 1),
    "units together or apart": _unit,
    "without accents": _bare,
}


if __name__ == "__main__":
    main()
