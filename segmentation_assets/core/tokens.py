"""Words of search queries: how what people type becomes words that can be counted.

What belongs here: text to words (Unicode, units, scripts), which words are forms of one word, which is a misspelling of
which. What does not: the vocabulary of a particular log and its TF-IDF (vectorize).

Everything is decided by rules or by frequencies, with no dictionary and no language guessed: a shop's words are names,
models and several languages in one query.
"""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, combinations, pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

# Words that join others and say nothing of what is wanted. Deliberately not scikit-learn's English list: that one holds
# words people buy ('system', 'fire', 'bill').
# Nor 'fur' for the German 'für': it is a coat.
FUNCTION_WORDS = frozenset(
    word
    for words in (
        "a an and are as at be but by for from has how i if in into is it its me my near no not of off on or our so",
        "than that the their these this to under up us was we what when where which who why will with without you your",
        "am auf aus bei das dem den der des die ein eine einem einen einer es für im ist mit nach oder ohne und unter",
        "vom von zu zum zur",
        "au aux avec ce ces chez dans de des du en et la le les ou par pas pour sans sous sur un une",
        "al con del el las los para por sin sobre una unos y",
    )
    for word in words.split()
)

# What stands behind a number, in the languages of the function words, and how it is written in a term: '16 GB' and
# '16-gb' are '16gb', '27 Zoll' and '27"' are '27in'. Only spellings of one unit meet; nothing is converted.
_UNITS = {
    spelling: unit
    for unit, spellings in {
        **{unit: unit for unit in ("kb", "mb", "gb", "tb", "mhz", "ghz", "mah", "wh", "mp", "mm", "cm", "km", "cl")},
        "in": "in inch inches zoll pouce pouces pulgada pulgadas \" \u201d '' \u2032\u2032",
        "ft": "ft foot feet",
        "m": "m meter meters metre metres metro metros",
        "mg": "mg milligram milligrams",
        "g": "g gr gram grams gramm gramme grammes gramos",
        "kg": "kg kgs kilo kilos",
        "lb": "lb lbs pound pounds",
        "oz": "oz ounce ounces",
        "ml": "ml milliliter milliliters",
        "l": "l liter liters litre litres litro litros",
        "gal": "gal gallon gallons",
        "w": "w watt watts",
        "v": "v volt volts",
        "hz": "hz hertz",
        "pack": "pack packs pk pcs piece pieces stück pièces piezas",
        "%": "% percent prozent",
    }.items()
    for spelling in spellings.split()
}
_SIZE_WORDS = ("size", "sz", "grösse", "taille", "talla")

_IRREGULAR = {
    "men": "man",
    "women": "woman",
    "children": "child",
    "mice": "mouse",
    "feet": "foot",
    "teeth": "tooth",
    "geese": "goose",
    "lens": "lens",
    "lenses": "lens",
    "series": "series",
    "shorts": "shorts",  # not 'short'
    "knives": "knife",
    "shelves": "shelf",
    "scarves": "scarf",
    "leaves": "leaf",
    "halves": "half",
}

_CJK = "\u1100-\u11ff\u2e80-\u2fdf\u3005-\u3007\u3040-\u30ff\u3105-\u318f\u31a0-\u31ff\u3400-\u9fff"
_CJK += "\ua960-\ua97f\uac00-\ud7ff\uf900-\ufaff\U00020000-\U0003ffff"
_NO_SPACES = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\uaa60-\uaa7f"  # Thai, Lao, Myanmar, Khmer
_EMOJI = "\u2300-\u23ff\u2600-\u27bf\u2b00-\u2bff\U0001f000-\U0001f1e5\U0001f200-\U0001faff"
_FLAG = "[\U0001f1e6-\U0001f1ff]{2}"


def _marks() -> str:
    """Combining marks outside of the CJK blocks: part of a word, though Python's \\w leaves most of them out."""
    return "".join(chr(c) for c in range(0x300, 0x1E00) if unicodedata.category(chr(c))[0] == "M")


_LETTERS = rf"\w{_marks()}"
# Signs of trade, variation selectors, skin tones, joiners and other invisible characters, and the frame of a keycap.
_INVISIBLE = re.compile("[®©™\u00ad\u200b-\u200f\u2060\ufe00-\ufe0f\U0001f3fb-\U0001f3ff\u20e3\ufeff]")
_THOUSANDS = re.compile(r"(\d),(\d{3})(?![\d,])")
_MEASURE = re.compile(
    r"(?<![^\W_])(\d+(?:[.,]\d+)?)(?:[ -]?("
    + "|".join(sorted((re.escape(u) for u in _UNITS if u != "in"), key=len, reverse=True))
    # '27 in monitor', but not '2 in 1' and not 'a table for 6 in Paris'
    + r"|(?<=[\d-])in(?!-\d)|(?<=\d\d )in(?! \d| the\b))(?!\w)| ?([$€£])(?!\d)"
    "|((?: ?[x\u00d7*] ?\\d+(?:[.,]\\d+)?)+)(?!\\w))"
)
_SIZE = re.compile(rf"\b(?:{'|'.join(_SIZE_WORDS)})[ -]?(\d+(?:[.,]\d+)?)(?!\w)")
_MODEL = re.compile(r"([^\W\d_]{3,})(\d+)")
_INITIALS = re.compile("[b-df-hj-np-tv-z]{2}s")  # 'tvs', 'pcs'
_APOSTROPHE = re.compile("[\u00b4\u2018\u2019]")
_CONNECTED = re.compile("['_&]")
_TOKEN = re.compile(
    rf"\n|[$€£] ?\d+(?:[.,]\d+)*|\d+(?:[.,x]\d+)+%?\w*|\d+%|\w[{_LETTERS}]*(?:['&]\w[{_LETTERS}]*)*|{_FLAG}|[{_EMOJI}]"
)
_PLAIN_WORD = re.compile(r"\w\w+|\n")
_SCRIPTS = re.compile(rf"[{_CJK}]+|[{_NO_SPACES}]+|[^{_CJK}{_NO_SPACES}]+")
_SPACELESS = re.compile(rf"[{_CJK}{_NO_SPACES}]")
_SYLLABLE = re.compile(rf"[^{_marks()}][{_marks()}]*|.")
_ACCENT = re.compile("[\u0300-\u036f]")  # those of Latin, Greek and Cyrillic; the vowel signs of other scripts stay
_NO_DECOMPOSITION = str.maketrans(
    {"ø": "o", "ł": "l", "đ": "d", "\u0131": "i", "æ": "ae", "œ": "oe", "ð": "d", "þ": "th"}
)
_KEYBOARD = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
_BESIDE = frozenset(  # keys that touch, as pairs: in a row, or one half to the left or right in the next row
    frozenset(pair)
    for upper, lower in zip(_KEYBOARD, (*_KEYBOARD[1:], ""), strict=True)
    for pairs in (pairwise(upper), zip(lower, upper, strict=False), zip(lower, upper[1:], strict=False))
    for pair in pairs
)
_VOWELS = frozenset("aeiou")
_ELISION = frozenset(["c", "d", "j", "l", "m", "n", "s", "t", "qu"])
_CONTRACTION = frozenset(["d", "ll", "m", "re", "ve"])


_LINES = 10_000
"""Queries that are read at a time."""


@dataclass(frozen=True)
class Words:
    """The words of many queries, in order.

    Attributes:
        words: the different words; "" stands for one that was left out, so that what was beside it stays apart.
        ids: (n,) int32, the place in ``words`` of every word of every query.
        rows: (n,) int32, the query it is in; never falling.
    """

    words: list[str]
    ids: NDArray[np.int32]
    rows: NDArray[np.int32]

    def replace(self, by: Callable[[str], Sequence[str]]) -> "Words":
        """Every word replaced by none, one or more; ``by`` is asked once for each different word."""
        index: dict[str, int] = {}
        parts = [[index.setdefault(part, len(index)) for part in by(word)] for word in self.words]
        lengths = np.fromiter(map(len, parts), np.int32, len(parts))
        flat = np.fromiter((part for word in parts for part in word), np.int32, int(lengths.sum()))
        if len(flat) == len(parts) and (lengths == 1).all():
            return Words(list(index), flat[self.ids], self.rows)
        each = lengths[self.ids]
        within = np.arange(each.sum(), dtype=np.int32) - np.repeat(np.cumsum(each) - each, each)
        start = np.cumsum(lengths) - lengths
        ids = flat[np.repeat(start[self.ids], each) + within]
        return Words(list(index), ids.astype(np.int32), np.repeat(self.rows, each))

    def pairs(self) -> tuple[NDArray[np.int64], NDArray[np.intp]]:
        """Neighbours within a query: (m,) code ``first * len(words) + second``, and (m,) where the first is."""
        where = np.flatnonzero(self.rows[:-1] == self.rows[1:])
        return self.ids[where].astype(np.int64) * len(self.words) + self.ids[where + 1], where

    def with_ngrams(self, longest: int) -> "Words":
        """All words, then all sequences of two words, and so on; a sequence is its words with spaces between."""
        words, ids, rows = list(self.words), [self.ids], [self.rows]
        gram, where = self.ids, np.arange(len(self.ids))  # of the sequences of n words: their ids, and where they begin
        for n in range(2, longest + 1):
            inside = where + n - 1 < len(self.ids)
            gram, where = gram[inside], where[inside]
            inside = self.rows[where] == self.rows[where + n - 1]
            gram, where = gram[inside], where[inside]
            codes = gram.astype(np.int64) * len(self.words) + self.ids[where + n - 1]
            different, inverse = np.unique(codes, return_inverse=True)
            gram = (inverse + len(words)).astype(np.int32)
            words += [f"{words[code // len(self.words)]} {self.words[code % len(self.words)]}" for code in different]
            ids.append(gram)
            rows.append(self.rows[where])
        return Words(words, np.concatenate(ids), np.concatenate(rows))


def plain_words(queries: Sequence[str]) -> Words:
    """Words of two word characters or more, in lower case: scikit-learn's rule, and nothing else.

    Where nothing but spaces parts ASCII letters, digits and underscores, Arrow's split finds the same words in a
    quarter of the time.
    """
    try:
        texts = pa.array(queries, pa.string())
    except (pa.ArrowException, UnicodeError):  # half of a character, which Arrow does not take
        return _by_query(_found(_PLAIN_WORD, map(str.lower, _in_lines(queries))))
    simple = pc.match_substring_regex(texts, r"\A[0-9A-Za-z_ ]*\z").to_numpy(zero_copy_only=False)
    places, others = np.flatnonzero(simple), np.flatnonzero(~simple)
    quick = _spaced_words(texts.take(pa.array(places)), places)
    if not len(others):
        return quick
    slow = _by_query(_found(_PLAIN_WORD, map(str.lower, _in_lines([queries[i] for i in others.tolist()]))))
    return _beside(quick, Words(slow.words, slow.ids, others[slow.rows].astype(np.int32)))


def shop_words(queries: Sequence[str]) -> Words:
    """Words of each query, as written but for what is only a way of writing.

    - Unicode is normalised (NFKC, casefold); trade signs, variation selectors, skin tones and invisible characters go.
    - A number with its unit is one word: '16 gb', '16gb' and '16-GB'; '27 inch', '27"' and '27in'; '8 x 10'; '$ 20';
      'size 42'. Decimal commas are points. Three letters or more part from the number after them: 'iphone15'.
    - "men's" is 'mens', "l'eau" is 'eau', "i'd" is 'i', 'h & m' is 'h&m'. Hyphens and all other signs part words.
    - Chinese, Japanese and Korean text gives overlapping pairs of characters, as Elasticsearch's cjk analyzer does; so
      do Thai, Lao, Khmer and Burmese, in characters with their marks (no dictionary here could part their words).
    - An emoji is a word, a flag is one, and of emoji joined to one picture each is.

    Function words, single letters and digits are all there.
    """
    return _by_query(_found(_TOKEN, map(_as_typed_elsewhere, _in_lines(queries)))).replace(_parts)


def _as_typed_elsewhere(text: str) -> str:
    """The same without what is only a way of writing, but for what a word is."""
    if not text.isascii():
        text = _APOSTROPHE.sub("'", text)
        text = unicodedata.normalize("NFKC", _INVISIBLE.sub("", text))
    text = text.casefold().replace(" & ", "&")
    return _SIZE.sub(r"size\1", _MEASURE.sub(_measure, _THOUSANDS.sub(r"\1\2", text)))


def unaccented(word: str) -> str:
    """Without accents: 'décor' and 'decor' are one; people leave them out."""
    if word.isascii():
        return word
    return unicodedata.normalize("NFC", _ACCENT.sub("", unicodedata.normalize("NFD", word)))


@lru_cache(maxsize=200_000)
def key(word: str) -> str:
    """What all forms of a word have in common; words with the same key are one term.

    Accents are folded ('café', 'cafe'), and the regular plurals of English, French and Spanish meet their singular
    ('dresses', 'batteries', 'robes', 'zapatos'), as do a few irregular ones: an S-stemmer (Harman, JASIS 42, 1991) that
    treats singulars alike, so that 'shoe' and 'shoes', 'movie' and 'movies', 'watch' and 'watches' agree without a
    dictionary. A key need not be a word. Words with digits and very short ones only lose their accents.
    """
    if not word.isascii():
        word = unaccented(word).translate(_NO_DECOMPOSITION)
    if len(word) < 4 or not word.isalpha():
        return word[:-1] if _INITIALS.fullmatch(word) else _IRREGULAR.get(word, word)
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    if word.endswith("s") and not word.endswith(("ss", "us", "is")):
        word = word[:-1]
    if word in _IRREGULAR:  # 'mens'
        return _IRREGULAR[word]
    if len(word) > 3 and word.endswith("ie"):
        return word[:-2] + "y"
    if len(word) > 3 and word.endswith(("sse", "xe", "zze", "che", "she", "oe")):
        return word[:-1]
    return word


RATIO = 50
"""A word is a misspelling of another only if that is so many times as frequent."""

MOST_EDITS = 2
"""Letters of a long word that may be wrong."""

FURTHER = 10
"""What a second wrong letter demands beyond that."""

LIFT = 3
"""Two words are one written apart only if they follow each other so many times as often as by chance."""


class Speller:
    """Finds the frequent word that a rare one is a misspelling of.

    Candidates begin with the same letter and are one edit away, or two where both have nine letters or more; an edit is
    a letter left out, put in, replaced, or swapped with the next (Damerau, CACM 7, 1964). The shorter a word, the more
    other words are one edit away ('closet' and 'close', 'stage' and 'state'), so short words are corrected only where
    the edit is one that fingers make: two letters swapped or one doubled from five letters on, a letter too many or too
    few, or the key beside the right one, from six, one vowel for another from seven, anything from nine. The most
    frequent candidate wins, as in Norvig's corrector ('How to write a spelling corrector', 2007), and only if it is far
    more frequent. Candidates are found by what is left of two words when letters are taken out of both (Garbe's
    SymSpell), so time grows with the words, not with their pairs. Words of fewer than five letters, and whatever holds
    a digit, are never corrected nor corrected to: '4070' is no '4080'.

    Args:
        weights: how frequent each word is, in any unit.
        rarest: the least weight that a word to be corrected will have.
    """

    def __init__(self, weights: Mapping[str, float], rarest: float) -> None:
        self._weights = {w: weight for w, weight in weights.items() if weight >= RATIO * rarest and correctable(w)}
        self._left: dict[str, list[str]] = {}
        for word in sorted(self._weights):
            for left in _leavings(word):
                self._left.setdefault(left, []).append(word)

    def correct(self, word: str, weight: float, not_to: Mapping[str, object] | None = None) -> str | None:
        """The word that was meant; None if the word stands for itself."""
        best, score = None, 0.0
        if self._weights and correctable(word):
            seen = set()
            for left in _leavings(word):
                for other in self._left.get(left, ()):
                    if other in seen or other == word or (not_to and other in not_to):
                        continue
                    seen.add(other)
                    edits = edit_distance(word, other, MOST_EDITS)
                    if not _is_slip(word, other, edits):
                        continue
                    its = self._weights[other] / FURTHER ** (edits - 1)
                    if (its, other) > (score, best or ""):
                        best, score = other, its
        return best if score >= RATIO * weight else None


def misspellings(counts: Mapping[str, float]) -> dict[str, str]:
    """What is a misspelling among counted words, with the word that was meant, which is none itself."""
    speller = Speller(counts, min(counts.values(), default=1))
    most = max(counts.values(), default=0)
    meant: dict[str, str] = {}
    # The most frequent first: whoever a word could be corrected to is decided already.
    for word in sorted((w for w in counts if counts[w] * RATIO <= most), key=lambda w: (-counts[w], w)):
        other = speller.correct(word, counts[word], not_to=meant)
        if other is not None:
            meant[word] = other
    return meant


def edit_distance(one: str, another: str, limit: int) -> int:
    """Letters to change, insert, leave out, or swap with their neighbour (Damerau 1964; no letter is edited twice).

    Args:
        one: a word.
        another: the other word.
        limit: whatever is above comes back as ``limit + 1``.
    """
    if abs(len(one) - len(another)) > limit:
        return limit + 1
    before: list[int] = []
    row = list(range(len(another) + 1))
    for i, a in enumerate(one, 1):
        before, last, row = row, before, [i]
        for j, b in enumerate(another, 1):
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (a != b))
            if i > 1 and j > 1 and a == another[j - 2] and one[i - 2] == b:
                cost = min(cost, last[j - 2] + 1)
            row.append(cost)
        # a swap reaches back two rows, so both must be over
        if min(row) > limit and min(before) > limit:
            return limit + 1
    return min(row[-1], limit + 1)


def correctable(word: str) -> bool:
    """Whether a word may be a misspelling, or be what was meant."""
    return len(word) >= 5 and word.isalpha() and _SPACELESS.match(word) is None


def written_apart(words: Words, weights: NDArray[np.float64]) -> tuple[dict[str, str], dict[str, str]]:
    """What is written in one word and in two, as 'earbuds' and 'ear buds', or 'rtx 4070' and 'rtx4070'.

    Nothing is known of the words but how often they occur: where both ways do, the more frequent one counts, if the two
    words follow each other more often than by chance ('car pet bed' is no 'carpet'). Where the first is one letter, it
    is one word however often: 't shirt', 'e bike'.

    Args:
        words: the words.
        weights: (n,) what each occurrence counts.

    Returns:
        Two words (with a space) that are to be one; one that is to be two.
    """
    size = len(words.words)
    count = np.bincount(words.ids, weights=weights, minlength=size)
    index = {word: i for i, word in enumerate(words.words) if len(word) > 2}
    codes, where = words.pairs()
    different, inverse = np.unique(codes, return_inverse=True)
    together = np.bincount(inverse, weights=weights[where], minlength=len(different))
    often = together * count.sum() >= LIFT * count[different // size] * count[different % size]
    ways: dict[str, list[tuple[float, str, str]]] = {}
    for code, n in zip(different[often].tolist(), together[often].tolist(), strict=True):
        first, second = words.words[code // size], words.words[code % size]
        if first and second and first + second in index and not (first[-1].isdigit() and second[0].isdigit()):
            ways.setdefault(first + second, []).append((n, first, second))
    joined, parted = {}, {}
    for word, found in ways.items():
        n, first, second = max(found)
        if n > count[index[word]] and len(first) > 1:
            parted[word] = f"{first} {second}"
        else:
            joined.update({f"{first} {second}": word for _, first, second in found})
    return joined, parted


def rewrite(words: Words, spellings: Mapping[str, str]) -> Words:
    """Words as they are meant: two joined or one parted (``written_apart``), then misspellings corrected."""
    joined = {pair: word for pair, word in spellings.items() if " " in pair}
    if joined:
        words = _join(words, joined)
    words = words.replace(lambda word: spellings[word].split(" ") if " " in spellings.get(word, "") else [word])
    return words.replace(lambda word: [meant] if " " not in (meant := spellings.get(word, word)) else [word])


def _join(words: Words, joined: Mapping[str, str]) -> Words:
    index = {word: i for i, word in enumerate(words.words)}
    names = list(words.words)
    size, meant = len(names), {}
    for pair, word in joined.items():
        first, second = pair.split(" ")
        if first in index and second in index:
            if word not in index:
                index[word] = len(names)
                names.append(word)
            meant[index[first] * size + index[second]] = index[word]
    codes, where = words.pairs()
    ids, keep, last = words.ids.copy(), np.ones(len(words.ids), dtype=bool), -2
    for i in np.flatnonzero(np.isin(codes, np.fromiter(meant, np.int64, len(meant)))):
        if where[i] > last + 1:  # of 'a b c' only one pair is joined, from the left
            last = int(where[i])
            ids[last], keep[last + 1] = meant[int(codes[i])], False
    return Words(names, ids[keep], words.rows[keep])


def words_of_lines(word: re.Pattern[str], queries: Sequence[str]) -> Words:
    """What a pattern, which must not match the end of a line, finds in each query in lower case."""
    return _by_query(_found(re.compile(f"{word.pattern}|\n", word.flags), map(str.lower, _in_lines(queries))))


def _found(token: re.Pattern[str], texts: Iterable[str]) -> Iterator[str]:
    return chain.from_iterable(map(token.findall, texts))


def _in_lines(queries: Sequence[str]) -> Iterator[str]:
    """Texts with a line for each query: a regular expression over many costs far less than one over each.

    Not one text of all: the words found in it would be there at once, each an object.
    """
    for start in range(0, len(queries), _LINES):
        part = queries[start : start + _LINES]
        text = "\n".join(part)
        if text.count("\n") != len(part) - 1:
            text = "\n".join([query.replace("\n", " ") for query in part])
        yield text + "\n"


def _spaced_words(texts: pa.Array, rows: NDArray[np.int64]) -> Words:
    """Words of two characters or more between spaces, in lower case; ``rows`` are the queries' numbers."""
    lists = pc.split_pattern(pc.ascii_lower(texts), " ")
    long = pc.greater(pc.binary_length(lists.values), 1)
    encoded = pc.dictionary_encode(lists.values.filter(long))
    of_word = np.repeat(rows, np.diff(lists.offsets.to_numpy()))[long.to_numpy(zero_copy_only=False)]
    return Words(encoded.dictionary.to_pylist(), encoded.indices.to_numpy(), of_word.astype(np.int32))


def _beside(one: Words, other: Words) -> Words:
    """The words of both, which are of different queries, in the order of the queries."""
    index = {word: place for place, word in enumerate(one.words)}
    place_of = np.array([index.setdefault(word, len(index)) for word in other.words], dtype=np.int32)
    rows = np.concatenate([one.rows, other.rows])
    order = np.argsort(rows, kind="stable")
    ids = np.concatenate([one.ids, place_of[other.ids]]) if len(other.ids) else one.ids
    return Words(list(index), ids[order].astype(np.int32), rows[order])


def _by_query(tokens: Iterable[str]) -> Words:
    """Tokens of lines; the ends of the lines are tokens too."""
    index: defaultdict[str, int] = defaultdict()
    index.default_factory = index.__len__  # a new token gets the next number
    index["\n"] = 0
    ids = np.fromiter(map(index.__getitem__, tokens), np.int32)
    inside = ids > 0
    rows = np.cumsum(~inside, dtype=np.int32)[inside]
    return Words(list(index)[1:], ids[inside] - 1, rows)


def _measure(match: re.Match[str]) -> str:
    number, unit, currency, times = match.groups()
    if unit:
        return f"{number}{_UNITS[unit]} "
    if currency:
        return f"{currency}{number} "
    return number + times.replace(" ", "").replace("\u00d7", "x").replace("*", "x")


def _parts(token: str) -> Sequence[str]:
    """The words in a run of characters without a space."""
    if token[0] in "$€£":
        return [token.replace(" ", "").replace(",", ".")]
    if token[0].isdigit() and not token.isalnum():
        return [token.replace(",", ".")]
    if token.isascii() and token.isalnum():
        model = _MODEL.fullmatch(token)
        return [token] if model is None or model[1] == "size" else list(model.groups())
    words = [part for piece in _connected(token) for part in _SCRIPTS.findall(piece)]
    return [word for part in words for word in (_overlapping(part) if _SPACELESS.match(part) else [part])]


def _connected(token: str) -> list[str]:
    pieces = [piece for piece in _CONNECTED.split(token) if piece]
    if len(pieces) < 2:
        return pieces
    if "&" in token:
        return [token] if any(len(piece) == 1 and piece.isalpha() for piece in pieces) else pieces
    if pieces[-1] == "s" or (pieces[-1] == "t" and pieces[-2].endswith("n")):
        pieces[-2:] = [pieces[-2] + pieces[-1]]
    elif pieces[-1] in _CONTRACTION:
        pieces.pop()
    return pieces[1:] if len(pieces) > 1 and pieces[0] in _ELISION else pieces


def _overlapping(run: str) -> list[str]:
    characters = _SYLLABLE.findall(run)
    return [a + b for a, b in pairwise(characters)] or characters


def _allowed(word: str) -> int:
    return MOST_EDITS if len(word) >= 9 else 1


def _leavings(word: str) -> Iterator[str]:
    """What is left of a word when up to as many letters are taken out as may be wrong; never the first."""
    yield word
    for n in range(1, _allowed(word) + 1):
        for kept in combinations(word[1:], len(word) - 1 - n):
            yield word[0] + "".join(kept)


def _is_slip(one: str, two: str, edits: int) -> bool:
    """Whether words so long are taken for one with these edits between them; see ``Speller``."""
    short, long = sorted((one, two), key=len)
    if len(short) >= 9:
        return edits <= MOST_EDITS
    if edits > 1:
        return False
    at = next((i for i, (a, b) in enumerate(zip(short, long, strict=False)) if a != b), len(short))
    if len(short) < len(long):
        return long[at] == long[at - 1] or len(short) >= 6
    if short[at + 1 :] != long[at + 1 :]:
        return True  # swapped
    replaced = frozenset((short[at], long[at]))
    return (len(short) >= 6 and replaced in _BESIDE) or (len(short) >= 7 and replaced <= _VOWELS)
