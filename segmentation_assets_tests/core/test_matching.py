"""Keywords in queries: whole words, plurals, words typed apart, compounds, misspellings, and what is none of these."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segmentation_assets.core.matching import (
    CERTAINTY,
    RARER,
    TOO_RARE,
    KeywordMatcher,
    allowed_slips,
    edit_distance,
    typed_words,
    word_frequencies,
)
from segmentation_assets.core.taxonomy import Taxonomy, parse_taxonomy, shipped_taxonomy, words

TAXONOMY = Taxonomy.model_validate(
    {
        "segments": {
            "fashion": {"keywords": ["dress", "shoe", "leather handbag"]},
            "tech": {"keywords": ["laptop", "keyboard", "4070"]},
            "bargain": {"keywords": ["cheap", "dress sale"]},
        }
    }
)
letters = st.text(alphabet="abcde", max_size=9)


def taxonomy_of(*keywords: str) -> Taxonomy:
    return Taxonomy.model_validate({"segments": {"a": {"keywords": list(keywords)}}})


def pairs(query: str, taxonomy: Taxonomy = TAXONOMY) -> set[tuple[str, str]]:
    return set(KeywordMatcher(taxonomy).find(query))


def kinds(query: str, *keywords: str, **seen: int) -> dict[str, str]:
    """Keyword to how it was found, where ``seen`` sessions hold each word."""
    found = KeywordMatcher(taxonomy_of(*keywords), seen).find(query)
    return {match.keyword: match.kind for match in found.values()}


def test_numbers_are_keywords_too() -> None:
    taxonomy = parse_taxonomy("segments: {a: {keywords: [4070, rtx 4080]}}", "t")
    assert pairs("rtx 4070", taxonomy) == {("a", "4070")}


# --- words and keywords


@pytest.mark.parametrize(
    ("one", "many"),
    [
        ("dress", "dresses"), ("watch", "watches"), ("box", "boxes"), ("brush", "brushes"), ("battery", "batteries"),
        ("hoodie", "hoodies"), ("movie", "movies"), ("tie", "ties"), ("size", "sizes"), ("headache", "headaches"),
        ("shoe", "shoes"), ("blouse", "blouses"), ("toy", "toys"), ("keyboard", "KEYBOARDS"), ("phone", "phones"),
        ("necklace", "necklaces"), ("t-shirt", "T-Shirts"), ("oferta", "ofertas"), ("axe", "axes"),
    ],
)  # fmt: skip
def test_a_regular_plural_is_the_same_word(one: str, many: str) -> None:
    assert words(one) == words(many)


@pytest.mark.parametrize(
    ("one", "another"),
    [
        ("bus", "bu"),
        ("glass", "glas"),
        ("tennis", "tenni"),
        ("gas", "ga"),
        ("tie", "ty"),
        ("ps4", "ps5"),
        ("cap", "cape"),
    ],
)
def test_what_only_looks_like_a_plural_stays(one: str, another: str) -> None:
    assert words(one) != words(another)


def test_words_are_whole_lower_case_and_free_of_punctuation() -> None:
    assert words("  T-Shirt, ROT/blau! ") == ("t", "shirt", "rot", "blau")
    assert words("!!") == ()


@given(st.text(max_size=30))
def test_case_and_white_space_around_do_not_matter(text: str) -> None:
    assert words(f"  {text.lower()}\n") == words(text.lower())


def test_a_keyword_matches_whole_words_only() -> None:
    assert pairs("laptop") == {("tech", "laptop")}
    assert pairs("dressing cheaper 40700") == set()


def test_a_keyword_of_several_words_matches_only_where_they_stand_together_in_order() -> None:
    assert pairs("brown leather handbags cheap") == {("fashion", "leather handbag"), ("bargain", "cheap")}
    assert pairs("leather brown handbag") == set()
    assert pairs("handbag leather") == set()
    assert pairs("real leather") == set()


def test_one_query_may_speak_for_several_segments() -> None:
    assert pairs("dress sale") == {("fashion", "dress"), ("bargain", "dress sale")}


@given(
    st.lists(
        st.sampled_from(["dress", "shoe", "leather", "handbag", "laptop", "4070", "cheap", "sale", "x"]), max_size=7
    )
)
def test_finding_is_what_looking_for_every_keyword_in_every_place_gives(text: list[str]) -> None:
    expected = {
        (segment, keyword)
        for segment, entry in TAXONOMY.segments.items()
        for keyword in entry.keywords
        if f" {keyword} " in f" {' '.join(text)} "
    }
    assert pairs(" ".join(text)) == expected


# --- how sure


def test_each_match_says_what_was_typed_how_it_was_found_and_how_sure_that_is() -> None:
    matcher = KeywordMatcher(TAXONOMY, {"keyboard": 1_000, "keybord": 3})
    found = matcher.find("Dresses and laptopstand, lether handbag, keybord")
    assert {(m.keyword, m.kind, m.certainty, m.typed) for m in found.values()} == {
        ("dress", "plural", 1.0, "dresses"),
        ("laptop", "compound", CERTAINTY["compound"], "laptopstand"),
        ("keyboard", "typo", CERTAINTY["typo"], "keybord"),
        ("leather handbag", "typo", CERTAINTY["typo"], "lether handbag"),
    }


def test_the_surest_of_several_matches_of_one_keyword_counts() -> None:
    assert kinds("lap top laptop", "laptop") == {"laptop": "exact"}
    assert kinds("laptopstand lap top", "laptop") == {"laptop": "apart"}


def test_a_guess_is_less_sure_than_the_keyword_itself() -> None:
    assert CERTAINTY["exact"] == CERTAINTY["plural"] == 1 > CERTAINTY["apart"] > CERTAINTY["compound"]
    assert CERTAINTY["compound"] > CERTAINTY["typo"] > 0


@pytest.mark.parametrize(
    ("query", "keyword"), [("café", "cafe"), ("cafe", "café"), ("DÉCORS", "decor"), ("mice", "mouse")]
)
def test_accents_and_irregular_plurals_do_not_matter(query: str, keyword: str) -> None:
    assert set(kinds(query, keyword)) == {keyword}


# --- typed apart, typed in one


@pytest.mark.parametrize(
    ("query", "keyword"),
    [
        ("leather hand bags", "handbag"), ("lap top", "laptop"), ("memorycard", "memory card"), ("ps 5 game", "ps5"),
        ("blackfriday deals", "black friday"), ("memorycards", "memory card"), ("key board", "keyboard"),
    ],
)  # fmt: skip
def test_a_keyword_may_be_typed_in_two_words_or_in_one(query: str, keyword: str) -> None:
    assert kinds(query, keyword) == {keyword: "apart"}


@pytest.mark.parametrize(
    ("query", "keyword"), [("to p", "top"), ("c able", "cable"), ("sol de playa", "soldes"), ("bag hand", "handbag")]
)
def test_words_that_meet_by_chance_are_not_a_keyword_typed_apart(query: str, keyword: str) -> None:
    assert kinds(query, keyword) == {}


# --- compounds


@pytest.mark.parametrize(
    ("word", "keyword"),
    [
        ("gamingmaus", "gaming"), ("laptopstand", "laptop"), ("handtasche", "tasche"), ("laptoptaschen", "laptop"),
        ("summerdresses", "dress"), ("rtx4070", "4070"), ("iphone15pro", "iphone"), ("schuhschrank", "schrank"),
        ("winterjacket", "jacket"),
    ],
)  # fmt: skip
def test_a_keyword_is_found_as_the_first_or_last_part_of_a_longer_word(word: str, keyword: str) -> None:
    assert kinds(word, keyword, summer=5, hand=5) == {keyword: "compound"}


@pytest.mark.parametrize(
    ("word", "keyword"),
    [
        ("spring", "ring"), ("laptop", "top"), ("dresser", "dress"), ("dressing", "dress"), ("address", "dress"),
        ("tabletop", "tablet"), ("fashionable", "fashion"), ("monitoring", "monitor"), ("saxophone", "phone"),
        ("impeccable", "cable"), ("cheapness", "cheap"), ("minigamingtable", "gaming"), ("wardrobe", "robe"),
        ("scarface", "scarf"), ("mp3", "mp"),
    ],
)  # fmt: skip
def test_what_only_looks_like_a_part_is_none(word: str, keyword: str) -> None:
    """Too short, in the middle, with an ending that makes another word of it, or beside what is no word."""
    assert kinds(word, keyword) == {}


def test_a_keyword_of_four_letters_is_no_part_even_beside_a_known_word() -> None:
    assert kinds("keyring offspring", "ring", key=99, offsp=9) == {}


def test_a_short_part_needs_a_known_word_beside_it() -> None:
    assert kinds("nightdress", "dress") == {}
    assert kinds("nightdress", "dress", night=1) == {"dress": "compound"}
    assert kinds("dressshoes", "dress", "shoe") == {"dress": "compound"}


def test_a_compound_may_hold_two_keywords() -> None:
    assert kinds("gaminglaptop", "gaming", "laptop") == {"gaming": "compound", "laptop": "compound"}


def test_a_part_of_a_word_is_no_part_of_a_keyword_of_several_words() -> None:
    assert kinds("lowestbudget price", "budget price") == {}


# --- misspellings


@pytest.mark.parametrize(
    ("typed", "keyword"),
    [
        ("keybord", "keyboard"), ("lapotp", "laptop"), ("jewellry", "jewellery"), ("headhpones", "headphone"),
        ("hedfones", "headphone"), ("labtop", "laptop"), ("derss", "dress"), ("clearence", "clearance"),
    ],
)  # fmt: skip
def test_a_rare_misspelling_of_a_frequent_keyword_is_read_as_that(typed: str, keyword: str) -> None:
    seen = {words(keyword)[0]: 1_000, words(typed)[0]: 3}
    expected = {} if typed == "hedfones" else {keyword: "typo"}  # three letters wrong
    assert kinds(typed, keyword, **seen) == expected


@pytest.mark.parametrize(
    ("word", "keyword"),
    [
        ("sheep", "sheet"), ("short", "shirt"), ("witch", "watch"), ("globe", "glove"), ("prone", "phone"),
        ("table", "tablet"), ("packet", "jacket"), ("boot", "book"), ("4080", "4070"),
        ("rtx4080", "rtx4070"), ("electric", "electronics"), ("moose", "mouse"), ("done", "drone"), ("chap", "cheap"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("often", [0, 1, 5, 100])
def test_another_word_of_nearly_the_same_letters_is_no_misspelling(word: str, keyword: str, often: int) -> None:
    """However rare it is, and however frequent the keyword."""
    assert kinds(word, keyword, **{words(word)[0]: often, words(keyword)[0]: 1_000}) == {}


@pytest.mark.parametrize(("word", "keyword"), [("painter", "printer"), ("changer", "charger"), ("spring", "string")])
def test_a_word_that_is_not_much_rarer_than_the_keyword_is_a_word_of_its_own(word: str, keyword: str) -> None:
    seen = 50
    assert kinds(word, keyword, **{word: seen, keyword: seen * RARER - 1}) == {}
    assert kinds(word, keyword, **{word: seen, keyword: seen * RARER}) == {keyword: "typo"}


def test_of_what_is_too_rare_to_tell_only_slips_are_read_that_seldom_make_another_word() -> None:
    """Letters swapped, doubled or left out; not one in place of another."""
    assert kinds("lapotp keybord", "laptop", "keyboard") == {"laptop": "typo", "keyboard": "typo"}
    assert kinds("painter", "printer") == {}
    assert kinds("keybord", "keyboard", keybord=TOO_RARE) == {"keyboard": "typo"}
    assert kinds("keybord", "keyboard", keybord=TOO_RARE + 1) == {}


def test_a_keyword_is_never_a_misspelling_of_another() -> None:
    seen = {"skirt": 1, "shirt": 10_000, "sneaker": 1, "speaker": 10_000}
    assert kinds("skirt sneaker", "skirt", "shirt", "sneaker", "speaker", **seen) == {
        "skirt": "exact",
        "sneaker": "exact",
    }


def test_of_two_keywords_as_near_the_more_frequent_is_meant() -> None:
    assert set(kinds("cabble", "cabbles", "cable", cable=500)) <= {"cable", "cabbles"}
    assert kinds("jaccket", "jacket", "jackket", jacket=900, jackket=100) == {"jacket": "typo"}


def test_the_shipped_taxonomy_reads_no_common_word_of_another_trade_as_its_own() -> None:
    """Words of a furniture, a food and a book shop that look like its keywords."""
    common = [
        word
        for line in (
            "table tables tablecloth dresser dressers dressing address spring string sheet sheep sheets painter",
            "printers desktop witch globe prone house mouse couch bench lamp pillow mirror vanity faucet stool cushion",
            "rug chair carpet carrot pasta bread butter cheese scandal sandwich professor protector wine beer novel",
        )
        for word in line.split()
    ]
    keywords = {word for entry in shipped_taxonomy().segments.values() for k in entry.keywords for word in words(k)}
    frequencies = dict.fromkeys((words(word)[0] for word in common), 50)
    matcher = KeywordMatcher(shipped_taxonomy(), frequencies | dict.fromkeys(keywords, 400))
    guessed = {word: match.keyword for word in common for match in matcher.find(word).values() if match.certainty < 1}
    assert guessed == {}


# --- the distance


def naive_distance(one: str, two: str) -> int:
    """Optimal string alignment by its definition."""
    if not one or not two:
        return len(one) + len(two)
    best = min(
        naive_distance(one[:-1], two) + 1,
        naive_distance(one, two[:-1]) + 1,
        naive_distance(one[:-1], two[:-1]) + (one[-1] != two[-1]),
    )
    if len(one) > 1 and len(two) > 1 and one[-1] == two[-2] and one[-2] == two[-1]:
        best = min(best, naive_distance(one[:-2], two[:-2]) + 1)
    return best


@given(st.text(alphabet="abc", max_size=5), st.text(alphabet="abc", max_size=5), st.integers(0, 3))
def test_the_distance_is_that_of_the_definition_up_to_its_limit(one: str, two: str, limit: int) -> None:
    assert edit_distance(one, two, limit) == min(naive_distance(one, two), limit + 1)


@given(letters, letters)
def test_the_distance_is_symmetric_and_zero_only_for_the_same_word(one: str, two: str) -> None:
    assert edit_distance(one, two, 9) == edit_distance(two, one, 9)
    assert (edit_distance(one, two, 9) == 0) == (one == two)


def test_long_words_may_have_more_slips() -> None:
    assert [allowed_slips(n) for n in (4, 5, 8, 9, 20)] == [0, 1, 1, 2, 2]


# --- frequencies


def test_frequencies_are_of_sessions_and_of_folded_words() -> None:
    found = word_frequencies(typed_words(["red dress", "Dresses dresses", "café dress"]), np.array([3, 2, 1]))
    assert found == {"red": 3, words("dress")[0]: 6, "cafe": 1}


@given(st.lists(st.sampled_from(["red dress", "dresses", "laptop 16gb", "Dress shoes"]), max_size=20))
def test_finding_does_not_depend_on_what_was_looked_for_before(queries: list[str]) -> None:
    """What a word was read as is remembered."""
    used = KeywordMatcher(TAXONOMY)
    assert [used.find(query) for query in queries] == [KeywordMatcher(TAXONOMY).find(query) for query in queries]


# --- queries that are alike

vocabulary = st.sampled_from(
    [
        "dress",
        "dresses",
        "shoe",
        "leather",
        "handbag",
        "key",
        "board",
        "keybord",
        "4070",
        "rtx",
        "cheap",
        "sale",
        "red",
        "laptopstand",
        "of",
        "leatherhandbag",
        "xyz",
    ]
)


def essences(matcher: KeywordMatcher, *queries: str) -> list[tuple[str, ...]]:
    different, of_query = matcher.essences(typed_words(queries), len(queries))
    assert len(set(different)) == len(different)
    return [different[place] for place in of_query]


@given(st.lists(st.lists(vocabulary, max_size=7).map(" ".join), max_size=5))
def test_what_a_query_comes_down_to_has_the_matches_of_the_query(queries: list[str]) -> None:
    matcher = KeywordMatcher(TAXONOMY, {"keyboard": 100})
    for query, essence in zip(queries, essences(matcher, *queries), strict=True):
        whole, found = matcher.find(query), matcher.match(essence)
        assert {key: match[:4] for key, match in found.items()} == {key: match[:4] for key, match in whole.items()}


def test_queries_that_differ_in_what_is_no_keyword_are_one_and_the_same_in_essence() -> None:
    matcher = KeywordMatcher(TAXONOMY)
    one, other, apart, beside, none, empty = essences(
        matcher,
        "a big red dress of mine on sale",
        "nice x dress x sale",
        "dress on sale",
        "dress sale",
        "none of it",
        "",
    )
    assert one == other == apart
    assert apart != beside
    assert none == empty == ()
    assert essences(matcher) == []
