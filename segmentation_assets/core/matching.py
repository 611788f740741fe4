"""The keywords of a taxonomy in queries: as they stand, in the plural, in compounds, misspelt; and how sure that is.

What belongs here: what a typed word may stand for. What does not: the taxonomy itself (taxonomy), what follows for a
cluster (labels).

Words are looked at once, however many queries hold them. Whatever is not the keyword itself is a guess, so each kind
has a certainty, and the rules lean towards leaving a word alone: 'sheep' is no 'sheet', 'spring' holds no 'ring', a
'dresser' no 'dress'.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from segmentation_assets.core import tokens
from segmentation_assets.core.taxonomy import WORD, Taxonomy, fold
from segmentation_assets.core.tokens import Words, edit_distance, unaccented

Kind = Literal["exact", "plural", "apart", "compound", "typo", "meaning"]

CERTAINTY: dict[Kind, float] = {"exact": 1.0, "plural": 1.0, "apart": 0.9, "compound": 0.8, "typo": 0.7, "meaning": 0.4}
"""How sure a match of each kind is, 0..1: no measured probabilities, but an order, and a weight in a cluster's share.

exact: the word itself, in any case, with or without accents. plural: it differs by a regular plural only. apart: a
keyword typed in two words, or one of several words typed in one ('hand bag', 'memorycard'). compound: the keyword is
the first or last part of a longer word ('laptopstand'). typo: one letter wrong (two in a long word). meaning: another
word that means nearly the same (``core.meaning``).
"""

PART = 5
"""Letters that a keyword must have to be looked for inside a word: 'ring' is in 'spring', 'top' in 'laptop'."""

SURE_PART = 6
"""Letters from which a keyword inside a word needs no known word beside it: 'gamingtisch' speaks for itself."""

TYPO_1, TYPO_2 = 5, 9
"""Letters from which one, and two, letters may be wrong."""

RARER = 10
"""A misspelling is at least this many times rarer than what it misspells. A word that is not is a word of its own: so
even where the guess is wrong ('globe' beside many a 'glove') it adds at most a tenth to the keyword's weight."""

TOO_RARE = 2
"""Up to this many sessions frequency tells nothing, and the kind of slip must: letters swapped, doubled or left out
seldom make another word, while one in place of another often does ('painter', 'printer')."""

# What makes another word of a word, rather than joining two: 'dressing', 'fashionable', 'monitoring'.
_ENDINGS = frozenset(
    ending
    for endings in (
        "able ably age ary ant ate ation ed ee eer en ence ent er ers ery ess est ette ful hood ian ible ic ical ing",
        "ings ion ish ism ist ity ive ize less let like ling ly man men ment ness ous ship some ster ter ties ure ward",
    )
    for ending in endings.split()
)
_LINKS = ("", "s", "n", "e")  # letters between the parts of a compound: 'arbeit-s-schuhe', 'tasche-n-lampe'
_LETTERS_OR_DIGITS = re.compile(r"[^\W\d_]+|\d+")


class Match(NamedTuple):
    """A keyword found in a query.

    Attributes:
        segment: the segment the keyword speaks for.
        keyword: as the taxonomy writes it.
        kind: how it was found; where its words were found differently, the least sure of them.
        certainty: of that kind, see ``CERTAINTY``.
        typed: the word or words as they stand in the query, in lower case.
    """

    segment: str
    keyword: str
    kind: Kind
    certainty: float
    typed: str


class _Reading(NamedTuple):
    """What a typed word may be: words of keywords, whole keywords of several words, the beginning of one of one."""

    words: tuple[tuple[str, Kind], ...]
    joined: tuple[tuple[str, str], ...]
    begins: bool


_NOTHING = _Reading((), (), False)
_GAP = ""


class KeywordMatcher:
    """Finds the keywords of a taxonomy in queries.

    Args:
        taxonomy: the segments and their keywords.
        frequencies: sessions that hold each folded word (``word_frequencies``), by which a misspelling is told from a
            word of its own. Without them every word counts as rare.
    """

    def __init__(self, taxonomy: Taxonomy, frequencies: Mapping[str, int] | None = None) -> None:
        self._frequencies = frequencies or {}
        # first word -> the keywords that start with it
        self._by_first: dict[str, list[tuple[tuple[str, ...], str, str]]] = defaultdict(list)
        # the words of a keyword in one -> those keywords
        self._joined: dict[str, list[tuple[str, str]]] = defaultdict(list)
        self._single: set[str] = set()  # keywords of one word, folded
        self._typed_so: set[str] = set()  # the words of the keywords, as they stand there
        for segment, entry in taxonomy.segments.items():
            for keyword in entry.keywords:
                typed = WORD.findall(keyword.lower())
                key = tuple(map(fold, typed))
                self._typed_so.update(map(unaccented, typed))
                self._by_first[key[0]].append((key, segment, keyword))
                if len(key) == 1:
                    self._single.add(key[0])
                elif _long_enough(joined := fold("".join(typed))):
                    self._joined[joined].append((segment, keyword))
        self._known = {word for keys in self._by_first.values() for key, _, _ in keys for word in key}
        # how keywords of one word begin, for those typed in two
        self._beginnings = {word[:cut] for word in self._single if _long_enough(word) for cut in range(2, len(word))}
        # first and last letter -> keyword words that may be misspelt: people get these two right
        self._by_ends: dict[tuple[str, str], list[str]] = defaultdict(list)
        for word in sorted(self._known):
            if len(word) >= TYPO_1 and word.isalpha():
                self._by_ends[word[0], word[-1]].append(word)
        self._readings: dict[str, _Reading] = {_GAP: _NOTHING}
        self._meanings: dict[str, str] = {}

    @property
    def single_words(self) -> set[str]:
        """The keywords of one word, folded."""
        return set(self._single)

    def learn(self, meanings: Mapping[str, str]) -> None:
        """Take words (folded) for keywords of one word that mean the same, where nothing else explains them."""
        self._meanings.update(meanings)
        self._readings = {_GAP: _NOTHING}

    def find(self, query: str) -> dict[tuple[str, str], Match]:
        """(segment, keyword) to the surest match of each keyword that a query holds."""
        return self.match(WORD.findall(query.lower()))

    def essences(self, words: Words, n: int) -> tuple[list[tuple[str, ...]], NDArray[np.int64]]:
        """What the matches of n queries depend on: some of their words in order, with one gap for all others between.

        Queries of one essence have the same matches, which ``match`` finds: there are far fewer essences than queries.

        Args:
            words: of the queries (``typed_words``).
            n: how many queries there are.

        Returns:
            The different essences, and (n,) the place of each query's among them.
        """
        readings = [self._readings.get(word) or self._read(word) for word in words.words]
        speaks = np.array([reading is not _NOTHING for reading in readings], dtype=np.bool_)
        begins = np.array([reading.begins for reading in readings], dtype=np.bool_)
        kept = speaks[words.ids]
        beside = words.rows[1:] == words.rows[:-1]
        kept[1:] |= begins[words.ids[:-1]] & beside  # whatever follows a beginning may be its end
        places = np.flatnonzero(kept)
        rows = words.rows[places]
        gap = np.zeros(len(places), dtype=np.bool_)
        gap[1:] = (np.diff(places) > 1) & (rows[1:] == rows[:-1])
        codes = np.insert(words.ids[places], np.flatnonzero(gap), -1).astype(np.int32)
        ends = np.cumsum(np.bincount(rows, minlength=n) + np.bincount(rows[gap], minlength=n)) * codes.itemsize
        different: dict[bytes, int] = {}
        text, start, of_query = codes.tobytes(), 0, np.empty(n, dtype=np.int64)
        for row, end in enumerate(ends.tolist()):
            of_query[row] = different.setdefault(text[start:end], len(different))
            start = end
        names = [*words.words, _GAP]
        return [tuple(names[code] for code in np.frombuffer(found, np.int32)) for found in different], of_query

    def match(self, typed: Sequence[str]) -> dict[tuple[str, str], Match]:
        """As ``find``, of the words of a query in lower case, or of one of the ``essences``."""
        readings = [self._readings.get(word) or self._read(word) for word in typed]
        found: dict[tuple[str, str], Match] = {}
        for i, reading in enumerate(readings):
            if reading is _NOTHING:
                continue
            for word, kind in reading.words:
                for key, segment, keyword in self._by_first.get(word, ()):
                    kinds = [kind, *_follow(key[1:], readings[i + 1 : i + len(key)])]
                    if len(kinds) == len(key) and (len(key) == 1 or "compound" not in kinds):
                        _keep(found, segment, keyword, min(kinds, key=_sureness), typed[i : i + len(key)])
            for segment, keyword in reading.joined:
                _keep(found, segment, keyword, "apart", typed[i : i + 1])
            if reading.begins and i + 1 < len(typed) and _two_words(*typed[i : i + 2]):
                for key, segment, keyword in self._by_first.get(fold(typed[i] + typed[i + 1]), ()):
                    if len(key) == 1:
                        _keep(found, segment, keyword, "apart", typed[i : i + 2])
        return found

    def _read(self, typed: str) -> "_Reading":
        """What a typed word may stand for; looked at once for each word."""
        word = fold(typed)
        words = self._interpret(typed, word)
        reading = _Reading(words, tuple(self._joined.get(word, ())), unaccented(typed) in self._beginnings)
        self._readings[typed] = reading = reading if any(reading) else _NOTHING
        return reading

    def _interpret(self, typed: str, word: str) -> tuple[tuple[str, Kind], ...]:
        """The words of keywords that one may stand for, with how; the surest kind only."""
        if word in self._known:
            return ((word, "exact" if unaccented(typed) in self._typed_so else "plural"),)
        if word in self._joined:
            return ()
        if meant := self._misspelt(word):  # before compounds: 'hedaphones' is no kind of phone
            return ((meant, "typo"),)
        if parts := self._parts(word):
            return tuple((part, "compound") for part in parts)
        return ((self._meanings[word], "meaning"),) if word in self._meanings else ()

    def _parts(self, word: str) -> list[str]:
        """Keywords of one word that a longer word starts or ends with."""
        if not word.isalpha():  # letters meet digits at a boundary of their own: 'rtx4070', 'iphone15'
            pieces = _LETTERS_OR_DIGITS.findall(word)
            return [piece for piece in map(fold, pieces) if len(piece) >= 3 and piece in self._single]
        found = []
        for cut in range(3, len(word) - 2):
            head, tail = word[:cut], word[cut:]
            # 'handytaschen' was folded as a whole; a part that stands first may be a plural too: 'schuheregal'
            for part, rest, last in ((fold(head), tail, False), (tail, head, True)):
                if len(part) >= PART and part in self._single and self._stands_beside(rest, last, len(part)):
                    found.append(part)
        return found

    def _stands_beside(self, rest: str, before: bool, letters: int) -> bool:
        """Whether what is left of a word, before or after a keyword of so many letters, is a word by itself."""
        if not before and rest in _ENDINGS:
            return False
        return letters >= SURE_PART or any(
            len(bare) >= 3 and (fold(bare) in self._known or self._frequencies.get(fold(bare), 0) > 0)
            for link in _LINKS
            for bare in ([rest.removesuffix(link)] if before else [rest.removeprefix(link)])
        )

    def _misspelt(self, word: str) -> str | None:
        """The keyword's word that a word is most likely a misspelling of."""
        if len(word) < TYPO_1 or not word.isalpha():
            return None
        best: tuple[int, int, str] | None = None
        for meant in self._by_ends.get((word[0], word[-1]), ()):
            allowed = allowed_slips(min(len(meant), len(word)))
            if abs(len(meant) - len(word)) > allowed or len(set(word) ^ set(meant)) > 2 * allowed:
                continue
            # 'table' and 'tablet', 'jacke' and 'jacket': an ending more is a word more
            if word.startswith(meant) or meant.startswith(word):
                continue
            distance = edit_distance(word, meant, allowed)
            if distance <= allowed and self._is_slip(word, meant, distance):
                candidate = (distance, -self._frequencies.get(meant, 0), meant)
                best = min(best, candidate) if best else candidate
        return best[2] if best else None

    def _is_slip(self, word: str, meant: str, distance: int) -> bool:
        """Whether a word so near to a keyword's is a slip of the fingers, and not a word of its own."""
        same_letters = len(word) != len(meant) or sorted(word) == sorted(meant)  # swapped, doubled or left out
        if not same_letters and len(meant) <= TYPO_1:
            return False  # too many short words differ in one letter: 'short', 'witch', 'globe', 'prone'
        seen, usual = self._frequencies.get(word, 0), self._frequencies.get(meant, 0)
        return (usual > 0 and seen * RARER <= usual) or (
            seen <= TOO_RARE and distance == 1 and same_letters and len(meant) > TYPO_1
        )


def typed_words(queries: Sequence[str]) -> Words:
    """The words of queries in lower case, as ``KeywordMatcher`` reads them."""
    return tokens.words_of_lines(WORD, queries)


def word_frequencies(words: Words, counts: NDArray[np.int64]) -> Counter[str]:
    """Sessions that hold each folded word; a word that stands twice in a query counts once.

    Args:
        words: of the distinct queries (``typed_words``).
        counts: (n_distinct,) sessions that hold each.
    """
    once = np.unique(words.rows.astype(np.int64) * len(words.words) + words.ids)
    row, word = np.divmod(once, max(len(words.words), 1))
    typed = np.bincount(word, weights=counts[row], minlength=len(words.words)).astype(np.int64)
    folded: Counter[str] = Counter()
    for text, count in zip(words.words, typed.tolist(), strict=True):
        folded[fold(text)] += count
    return folded


def allowed_slips(letters: int) -> int:
    """How many letters of a word of this length may be wrong."""
    return 0 if letters < TYPO_1 else 1 if letters < TYPO_2 else 2


def _long_enough(word: str) -> bool:
    """Whether a keyword may be told from a chance meeting of two words: 'key board', 'ps 5'; not 'to p'."""
    return len(word) >= PART or (len(word) >= 3 and any(c.isdigit() for c in word) and any(c.isalpha() for c in word))


def _two_words(first: str, second: str) -> bool:
    """Whether two words may be one typed apart: not by a single letter ('c able'), nor by a short one ('sol de')."""
    return (len(first) >= 3 and len(second) >= 3) or first.isdigit() or second.isdigit()


def _sureness(kind: Kind) -> float:
    return CERTAINTY[kind]


def _follow(rest: tuple[str, ...], readings: list[_Reading]) -> list[Kind]:
    """How each further word of a keyword was found; fewer than there are when one was not."""
    kinds: list[Kind] = []
    for wanted, reading in zip(rest, readings, strict=False):
        kind = next((kind for word, kind in reading.words if word == wanted), None)
        if kind is None:
            break
        kinds.append(kind)
    return kinds


def _keep(found: dict[tuple[str, str], Match], segment: str, keyword: str, kind: Kind, typed: Sequence[str]) -> None:
    before = found.get((segment, keyword))
    if before is None or before.certainty < CERTAINTY[kind]:
        found[segment, keyword] = Match(segment, keyword, kind, CERTAINTY[kind], " ".join(typed))
