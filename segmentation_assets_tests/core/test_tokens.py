"""Words: what people type, read as they mean it; and which words are one, decided by rules and frequencies alone."""

import re
import unicodedata
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segmentation_assets.core import tokens
from segmentation_assets.core.tokens import (
    FURTHER,
    RATIO,
    Speller,
    Words,
    key,
    misspellings,
    plain_words,
    rewrite,
    shop_words,
    words_of_lines,
    written_apart,
)

LETTERS = st.text("abc", min_size=1, max_size=4)
TEXTS = st.lists(st.one_of(st.text(max_size=15), st.lists(LETTERS).map(" ".join)), max_size=8)


def by_query(words: Words, n: int) -> list[list[str]]:
    """The words of each query."""
    queries: list[list[str]] = [[] for _ in range(n)]
    for word, row in zip(words.ids, words.rows, strict=True):
        queries[row].append(words.words[word])
    return queries


def split(query: str) -> list[str]:
    return by_query(shop_words([query]), 1)[0]


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("RED Dress", "red dress"),
        ("STRASSE Straße \ufb01ne \uff34\uff36", "strasse strasse fine tv"),
        ("levis™ Lego®", "levis lego"),
        ("16 gb 16gb 16-GB 16GB", "16gb 16gb 16gb 16gb"),
        ("27 inch 27\" 27in 27-inches 27 Zoll 27'' 27″ 27 in monitor", "27in " * 8 + "monitor"),
        ("27,5 zoll 27.5 inch", "27.5in 27.5in"),
        ("2 in 1, table for 6 in paris, 24-in-1", "2 in 1 table for 6 in paris 24 in 1"),
        ("20,000mah 10 000", "20000mah 10 000"),
        ("5 kg 11 lbs 100 ml 2 m 3 feet 6 packs", "5kg 11lb 100ml 2m 3ft 6pack"),
        ("size 42 Size-42 Größe 42 taille 42 plus size", "size42 size42 size42 size42 plus size"),
        ("8 x 10 rug 8x10 8\u00d710 12 x 10 x 3 8,5 x 10.5", "8x10 rug 8x10 8x10 12x10x3 8.5x10.5"),
        ("$20, $ 20, 20 $, 20$, 50€ under $1,000 50 % 50%", "$20 $20 $20 $20 €50 under $1000 50% 50%"),
        ("iphone15 rtx4070 ps5 4k i7 1080p b650", "iphone 15 rtx 4070 ps5 4k i7 1080p b650"),
        ("t-shirt wi-fi m.2 usb 3.0", "t shirt wi fi m 2 usb 3.0"),
        ("men's Levi\u2019s don\u00b4t i'd l'eau qu'une \u00b4", "mens levis dont i eau une"),
        ("h&m h & m black & decker at&t a&b_c", "h&m h&m black decker at&t a&b_c"),
        ("👍🏽 👍 ❤️ 🇩🇪🇫🇷 👨‍👩‍👧 5️⃣", "👍 👍 ❤ 🇩🇪 🇫🇷 👨 👩 👧 5"),
        ("gift🎁box", "gift 🎁 box"),
        ("iphone ケース ｹｰｽ", "iphone ケー ース ケー ース"),
        ("日本酒 水 노트북 가방", "日本 本酒 水 노트 트북 가방"),
        ("4k電視", "4k 電視"),
        ("เคสมือถือ", "เค คส สมื มือ อถื ถือ"),
        ("मोबाइल कवर", "मोबाइल कवर"),
        ("чехол עברית كتاب", "чехол עברית كتاب"),
        ("!!! -- . ☞", "☞"),
        ("", ""),
    ],
)
def test_what_people_type_and_the_words_it_holds(query: str, words: str) -> None:
    assert split(query) == words.split()


@given(TEXTS)
@settings(deadline=None, max_examples=300)
def test_many_queries_are_read_like_each_alone(queries: list[str]) -> None:
    for read in (shop_words, plain_words):
        assert by_query(read(queries), len(queries)) == [by_query(read([query]), 1)[0] for query in queries]


@given(st.lists(st.text(st.characters(), max_size=12) | st.text("ab_1 -", max_size=12), max_size=6))
@settings(deadline=None, max_examples=300)
def test_plain_words_are_those_of_the_textbook_rule(queries: list[str]) -> None:
    expected = [re.findall(r"\w\w+", query.lower()) for query in queries]
    assert by_query(plain_words(queries), len(queries)) == expected


@given(st.text(max_size=40))
@settings(deadline=None, max_examples=300)
def test_a_query_with_a_letter_or_digit_has_words_and_no_word_holds_a_space(query: str) -> None:
    words = split(query)
    assert all(word and not any(map(str.isspace, word)) for word in words)
    if any(map(str.isalnum, query)):
        assert words


@given(st.text(max_size=12))
@settings(max_examples=300)
def test_a_key_ignores_accents_and_holds_no_space(word: str) -> None:
    for part in split(word):
        bare = unicodedata.normalize("NFC", unicodedata.normalize("NFD", part).replace("\u0301", ""))
        assert key(bare) == key(part)
        assert " " not in key(part)


@pytest.mark.parametrize(
    "forms",
    [
        "dress dresses",
        "shoe shoes",
        "watch watches",
        "battery batteries",
        "movie movies",
        "headache headaches",
        "box boxes",
        "glass glasses",
        "potato potatoes",
        "knife knives",
        "shelf shelves",
        "tv tvs",
        "man men mens",
        "woman women womens",
        "mouse mice",
        "case cases",
        "hoodie hoodies hoody",
        "robe robes",
        "zapato zapatos",
        "café cafés cafe",
        "garçon garcon",
        "size sizes",
        "toothbrush toothbrushes",
        "lens lenses",
        "smørrebrød smorrebrod",
    ],
)
def test_regular_and_common_irregular_plurals_meet_their_singular(forms: str) -> None:
    assert len({key(form) for form in forms.split()}) == 1


@pytest.mark.parametrize(
    "words",
    [
        "car care",
        "cap cape",
        "tap tape",
        "bath bathe",
        "short shorts",
        "bus bu",
        "dress dres",
        "tennis tenni",
        "4070 4070s",
        "gas ga",
        "fur four",
        "table tablet",
        "shirt short",
        "glove globe",
    ],
)
def test_other_words_keep_keys_of_their_own(words: str) -> None:
    one, two = words.split()
    assert key(one) != key(two)


def edits_by_definition(one: str, two: str) -> int:
    """Optimal string alignment, straight from its recursion."""
    if not one or not two:
        return len(one) + len(two)
    ways = [
        edits_by_definition(one[:-1], two) + 1,
        edits_by_definition(one, two[:-1]) + 1,
        edits_by_definition(one[:-1], two[:-1]) + (one[-1] != two[-1]),
    ]
    if one[-2:] == two[-2:][::-1] and len(one) > 1 and len(two) > 1:
        ways.append(edits_by_definition(one[:-2], two[:-2]) + 1)
    return min(ways)


@given(st.text("ab", min_size=5, max_size=7), st.text("ab", min_size=5, max_size=7))
@settings(deadline=None, max_examples=150)
def test_only_one_edit_corrects_a_short_word_and_never_the_first_letter(one: str, two: str) -> None:
    corrected = Speller({two: RATIO}, 1).correct(one, 1)
    assert corrected in (None, two)
    if corrected:
        assert edits_by_definition(one, two) == 1
        assert one[0] == two[0]
    elif one != two and one[0] == two[0] and edits_by_definition(one, two) == 1:
        # 'a' for 'b' is neither the next key nor a vowel for a vowel, and a letter more or less is one of six.
        assert sorted(one) != sorted(two)
        assert len(one) == len(two) or min(len(one), len(two)) < 6


@given(st.text("abcd", min_size=9, max_size=10), st.text("abcd", min_size=9, max_size=10))
@settings(deadline=None, max_examples=100)
def test_two_edits_correct_a_long_word_to_one_that_is_more_frequent_still(one: str, two: str) -> None:
    for other in (one[0] + two[1:], one[:4] + one[6:] + two[-2:], one[:-2] + two[-2:]):
        if len(other) >= 9:
            edits = distance(one, other)
            assert (Speller({other: RATIO * FURTHER}, 1).correct(one, 1) == other) == (1 <= edits <= 2)
            assert (Speller({other: RATIO * FURTHER - 1}, 1).correct(one, 1) == other) == (edits == 1)


def distance(one: str, two: str) -> int:
    """Optimal string alignment by a table, for words too long for the recursion."""
    table = {(i, j): max(i, j) for i, j in product(range(len(one) + 1), range(len(two) + 1)) if not i or not j}
    for i, j in product(range(1, len(one) + 1), range(1, len(two) + 1)):
        ways = [table[i - 1, j] + 1, table[i, j - 1] + 1, table[i - 1, j - 1] + (one[i - 1] != two[j - 1])]
        if i > 1 and j > 1 and one[i - 2 : i] == two[j - 2 : j][::-1]:
            ways.append(table[i - 2, j - 2] + 1)
        table[i, j] = min(ways)
    return table[len(one), len(two)]


@pytest.mark.parametrize("slip", ["haedphones", "headphoes", "headphoones", "headfphones", "headphobes", "heedphnes"])
def test_slips_are_taken_for_the_word_that_was_meant(slip: str) -> None:
    assert misspellings({"headphones": 900, slip: 1, "mug": 50}) == {slip: "headphones"}


@pytest.mark.parametrize(
    ("frequent", "rare"),
    [
        ("shirt", "short"),
        ("close", "closet"),
        ("state", "stage"),
        ("train", "trail"),
        ("speakers", "sneakers"),
        ("boots", "boats"),
        ("table", "cable"),
        ("4070x", "4080x"),
        ("rtx40700", "rtx40800"),
    ],
)
def test_false_friends_and_numbers_are_left_alone(frequent: str, rare: str) -> None:
    assert misspellings({frequent: 100_000, rare: 1}) == {}


def test_a_word_that_is_not_rare_stands_for_itself() -> None:
    assert misspellings({"keyboard": RATIO * 2, "keybaord": 2}) == {"keybaord": "keyboard"}
    assert misspellings({"keyboard": RATIO * 2 - 1, "keybaord": 2}) == {}


@pytest.mark.parametrize(("word", "slip"), [("train", "trrain"), ("coffee", "cofee"), ("train", "trian")])
def test_short_words_are_corrected_where_a_letter_is_doubled_or_swapped(word: str, slip: str) -> None:
    assert misspellings({word: 900, slip: 1, "mug": 50}) == {slip: word}


def test_a_misspelling_of_a_misspelling_is_not_corrected_by_way_of_it() -> None:
    assert misspellings({"keyboard": 1e6, "keybaord": 1e4, "keybaodr": 1}) == {"keybaord": "keyboard"}


@given(st.dictionaries(st.text("abn", min_size=5, max_size=6), st.sampled_from([1, 2, 60, 200, 10_000]), max_size=30))
@settings(deadline=None)
def test_nothing_is_corrected_to_what_is_corrected_itself(counts: dict[str, float]) -> None:
    meant = misspellings(counts)
    assert not set(meant) & set(meant.values())
    assert all(counts[other] >= RATIO * counts[word] for word, other in meant.items())


def learned(queries: list[str]) -> tuple[dict[str, str], dict[str, str]]:
    words = shop_words(queries)
    return written_apart(words, np.ones(len(words.ids)))


def test_the_more_frequent_way_of_writing_one_or_two_words_counts() -> None:
    assert learned(["ear buds", "earbuds", "earbuds", "mug"]) == ({"ear buds": "earbuds"}, {})
    assert learned(["ear buds", "earbuds", "ear buds", "mug"]) == ({}, {"earbuds": "ear buds"})
    assert learned(["usb c", "usbc", "usb c", "mug"]) == ({}, {"usbc": "usb c"})
    assert learned(["t shirt", "tshirt", "t-shirt", "mug"]) == (
        {"t shirt": "tshirt"},
        {},
    )  # one letter: always one word


@pytest.mark.parametrize(
    "queries",
    [
        ["carpet"] * 9 + ["car"] * 30 + ["pet"] * 30 + ["car pet seat"],  # no more often than by chance
        ["2 7 inch", "27", "mug"],  # numbers
        ["ear", "buds", "earbuds"],  # never beside each other
        ["ear", "the buds", "earbuds"],
    ],
)
def test_words_that_only_happen_to_stand_together_stay_as_they_are(queries: list[str]) -> None:
    assert learned(queries) == ({}, {})


def test_rewriting_joins_parts_and_corrects() -> None:
    spellings = {"ear buds": "earbuds", "rtx4": "rtx 4", "laptpo": "laptop", "a b": "ab", "b c": "bc"}
    words = Words(["ear", "buds", "rtx4", "laptpo", "a", "b", "c"], np.arange(7, dtype=np.int32), np.int32([0] * 7))
    assert by_query(rewrite(words, spellings), 1) == [["earbuds", "rtx", "4", "laptop", "ab", "c"]]
    apart = Words(["ear", "buds"], np.int32([0, 1]), np.int32([0, 1]))
    assert by_query(rewrite(apart, spellings), 2) == [["ear"], ["buds"]]


@given(st.lists(st.lists(LETTERS, max_size=5), max_size=5), st.integers(1, 3))
def test_n_grams_are_all_sequences_within_a_query(queries: list[list[str]], longest: int) -> None:
    index = {word: i for i, word in enumerate({word: None for query in queries for word in query})}
    ids = np.array([index[word] for query in queries for word in query], dtype=np.int32)
    rows = np.array([row for row, query in enumerate(queries) for _ in query], dtype=np.int32)
    found = by_query(Words(list(index), ids, rows).with_ngrams(longest), len(queries))
    assert [sorted(terms) for terms in found] == [
        sorted(" ".join(q[i : i + n]) for n in range(1, longest + 1) for i in range(len(q) - n + 1)) for q in queries
    ]


# --- many queries at a time


@given(st.lists(st.text(alphabet="aB1 \n'&é-", max_size=6), max_size=9), st.integers(1, 4))
def test_however_many_are_read_at_a_time_the_words_of_each_query_are_its_own(queries: list[str], lines: int) -> None:
    for read in (shop_words, plain_words, lambda some: words_of_lines(re.compile(r"\w+"), some)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(tokens, "_LINES", lines)
            many = by_query(read(queries), len(queries))
        assert many == [by_query(read([query]), 1)[0] for query in queries]
