"""The generated log: repeatable, and like a shop's."""

import hashlib
import json
import subprocess
import sys
from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segmentation_assets.core import generate
from segmentation_assets.core.generate import Generated, generate_sessions
from segmentation_assets.core.moments import parse_timestamp
from segmentation_assets.core.sessions import check_document

END = datetime(2025, 6, 1, 12, tzinfo=UTC)
FIELDS = ["session_id", "user_id", "search_query", "clicked_product_ids", "timestamp"]


@pytest.fixture(scope="module")
def log() -> Generated:
    return generate_sessions(30_000, 42, END)


@pytest.fixture(scope="module")
def documents(log: Generated) -> list[dict]:
    return list(log.documents)


@given(n=st.integers(0, 400), seed=st.integers(0, 2**63), days=st.integers(1, 400))
@settings(max_examples=40, deadline=None)
def test_any_size_and_seed_gives_n_usable_sessions_within_the_window(n: int, seed: int, days: int) -> None:
    made = generate_sessions(n, seed, END, days)
    documents = list(made.documents)
    assert len(documents) == made.n == n
    assert len({d["session_id"] for d in documents}) == n
    for document in documents:
        assert list(document) == FIELDS
        _, query, clicks, time = check_document(document, END)
        assert query
        assert len(clicks) <= 5
        assert END - timedelta(days=days) <= time <= END
    times = [parse_timestamp(d["timestamp"]) for d in documents]
    assert times == sorted(times)


def test_the_same_seed_gives_the_same_sessions_and_truth() -> None:
    first, second = generate_sessions(2_000, 5, END), generate_sessions(2_000, 5, END)
    assert list(first.documents) == list(second.documents)
    assert list(first.documents) == list(first.documents)  # a new iterator each time
    assert first.truth.sessions.equals(second.truth.sessions)
    assert first.truth.users.equals(second.truth.users)


def test_the_zone_in_which_the_end_is_written_changes_nothing() -> None:
    elsewhere = END.astimezone(timezone(timedelta(hours=-7)))
    assert list(generate_sessions(300, 5, elsewhere).documents) == list(generate_sessions(300, 5, END).documents)


def test_another_process_with_other_hash_randomisation_gives_the_same_sessions() -> None:
    code = (
        "import hashlib, json; from datetime import UTC, datetime;"
        "from segmentation_assets.core.generate import generate_sessions;"
        "g = generate_sessions(500, 3, datetime(2025, 6, 1, 12, tzinfo=UTC));"
        "print(hashlib.sha256(json.dumps([list(g.documents), g.truth.sessions.to_pylist()]).encode()).hexdigest())"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    assert len(digests) == 1


@pytest.mark.parametrize(
    ("n", "seed", "days", "expected", "with_queries"),
    [
        (
            3_000,
            42,
            90,
            "285316862f04ad66fda55898b833e3e4a4f22d96e0139180b5e5f0d8fc7357da",
            "2180e4900488ede2906daffaa2c314d071062efb56fac65a62cceb85d1f4aece",
        ),
        (
            500,
            7,
            30,
            "3692a4d9d3709ea4a840ed9a801b94364bac0d37f4a6e9b2b26d47402d9456e2",
            "557164074d9bc806878975e6c37d2813c83a5e8b77404d3720444a1fc434eb88",
        ),
    ],
)
def test_a_log_without_behaviour_is_what_it_has_always_been(
    n: int, seed: int, days: int, expected: str, with_queries: str
) -> None:
    made = generate_sessions(n, seed, END, days)
    documents = list(made.documents)
    truth = made.truth.users.select(["user_id", "taste", "second_taste", "language"]).to_pylist()
    plain = [{**document, "search_query": None} for document in documents]
    assert _digest([plain, made.truth.sessions.to_pylist(), truth]) == expected
    names = [kind.brands.items for kind in generate._shop().kinds] + [generate._shop().first_names.items]
    if _digest(names) != "9a7d969ebb144da390e06828207a129aa00846a27e32caa99676782437a4ca8e":
        pytest.skip("this version of Faker makes up other brands")
    assert _digest(documents) == with_queries


def test_a_log_without_behaviour_has_no_personas_and_knows_nothing_of_its_customers() -> None:
    made = generate_sessions(300, 1, END)
    assert made.truth.users["persona"].null_count == len(made.truth.users)
    assert list(made.attributes) == []


@pytest.mark.parametrize("mean", [1, 1.5, 6, 20])
def test_users_have_as_many_sessions_on_average_as_asked_for(mean: float) -> None:
    users = len(generate_sessions(40_000, 1, END, sessions_per_user=mean).truth.users)
    assert 40_000 / users == pytest.approx(mean, rel=0.05)


def test_how_many_are_made_at_a_time_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = list(generate_sessions(1_000, 5, END).documents)
    monkeypatch.setattr(generate, "CHUNK", 7)
    assert list(generate_sessions(1_000, 5, END).documents) == whole


def test_another_seed_gives_other_sessions_of_other_users() -> None:
    one, two = (list(generate_sessions(500, seed, END).documents) for seed in (1, 2))
    assert not {d["session_id"] for d in one} & {d["session_id"] for d in two}
    assert not {d["user_id"] for d in one} & {d["user_id"] for d in two}


@pytest.mark.parametrize(
    "arguments", [(-1, 0, END), (1, -1, END), (1, 0, END, 0), (1, 0, END.replace(tzinfo=None))], ids=str
)
def test_impossible_arguments_are_refused(arguments: tuple) -> None:
    with pytest.raises(ValueError, match=r"negative|time zone"):
        generate_sessions(*arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        {"sessions_per_user": 0.9},
        {"sessions_per_user": float("nan")},
        {"sessions_per_user": float("inf")},
        {"behaviour": True, "bots": 1.0},
        {"behaviour": True, "bots": -0.1},
        {"bots": 0.01},
    ],
    ids=str,
)
def test_impossible_numbers_of_visits_and_of_bots_are_refused(arguments: dict) -> None:
    with pytest.raises(ValueError, match=r"sessions_per_user|bots"):
        generate_sessions(10, 1, END, **arguments)


def test_the_truth_is_row_by_row_that_of_the_documents(log: Generated, documents: list[dict]) -> None:
    truth = log.truth
    assert truth.sessions.schema == generate.TRUTH_SESSIONS_SCHEMA
    assert truth.users.schema == generate.TRUTH_USERS_SCHEMA
    assert truth.sessions["session_id"].to_pylist() == [d["session_id"] for d in documents]
    assert truth.sessions["user_id"].to_pylist() == [d["user_id"] for d in documents]
    users = truth.users["user_id"].to_pylist()
    assert len(users) == len(set(users))
    assert set(users) == {d["user_id"] for d in documents}


def test_the_tastes_have_their_shares(log: Generated) -> None:
    shares = _shares(log.truth.users["taste"].to_pylist())
    assert sorted(shares, key=shares.get, reverse=True)[:3] == ["electronics", "bargains", "fashion"]
    assert shares["electronics"] == pytest.approx(0.25, abs=0.01)
    assert shares["fashion"] == pytest.approx(0.23, abs=0.01)
    assert shares["bargains"] == pytest.approx(0.235, abs=0.01)
    sessions = _shares(log.truth.sessions["taste"].to_pylist())
    assert set(sorted(sessions, key=sessions.get)[3:]) == {"electronics", "fashion", "bargains"}


@pytest.mark.parametrize("seed", range(5))
def test_a_small_log_has_the_tastes_in_their_shares_as_well(seed: int) -> None:
    shares = _shares(generate_sessions(1_000, seed, END).truth.users["taste"].to_pylist())
    expected = {"electronics": 0.25, "bargains": 0.235, "fashion": 0.23, "home": 0.115, "sport": 0.095, "beauty": 0.075}
    assert shares == pytest.approx(expected, abs=0.012)


def test_users_come_several_times_and_a_few_very_often(log: Generated, documents: list[dict]) -> None:
    counts = np.array(list(Counter(d["user_id"] for d in documents).values()))
    assert 4 <= counts.mean() <= 5
    assert np.median(counts) < counts.mean()
    assert counts.max() > 10 * np.median(counts)
    second = log.truth.users["second_taste"]
    assert 1 - second.null_count / len(second) == pytest.approx(generate.MIXED_USERS, abs=0.02)


def test_users_follow_their_tastes(log: Generated) -> None:
    people = {row["user_id"]: row for row in log.truth.users.to_pylist()}
    rows = [row for row in log.truth.sessions.to_pylist() if people[row["user_id"]]["taste"] != "bargains"]
    follows = [
        row["taste"] in (people[row["user_id"]]["taste"], people[row["user_id"]]["second_taste"]) for row in rows
    ]
    assert 0.85 < np.mean(follows) < 0.98


def test_queries_are_short_repeat_and_have_a_long_tail(documents: list[dict]) -> None:
    queries = Counter(d["search_query"] for d in documents)
    words = [len(d["search_query"].split()) for d in documents]
    assert 2 <= np.mean(words) <= 3
    assert np.mean([1 <= count <= 5 for count in words]) > 0.95
    assert len(queries) / len(documents) < 0.7
    once = sum(count == 1 for count in queries.values()) / len(queries)
    assert once > 0.5
    head = sum(count for _, count in queries.most_common(len(queries) // 100)) / len(documents)
    assert head > 0.15  # one in a hundred queries makes a good part of the log


def test_words_fit_what_was_meant(log: Generated, documents: list[dict]) -> None:
    words: dict[str, Counter[str]] = defaultdict(Counter)
    for document, taste in zip(documents, log.truth.sessions["taste"].to_pylist(), strict=True):
        words[taste].update(document["search_query"].lower().split())
    for taste, expected in {
        "electronics": "gaming keyboard monitor laptop headphones usb",
        "fashion": "dress handbag shoes jacket",
        "bargains": "cheap discount deals offer sale clearance coupon under",
    }.items():
        for word in expected.split():
            assert words[taste][word] == max(counts[word] for counts in words.values()), (taste, word)


def test_truth_knows_who_asks_for_a_low_price(log: Generated, documents: list[dict]) -> None:
    price = {"cheap", "discount", "clearance", "coupon", "sale", "deals", "offer", "günstig", "barato", "rebajas"}
    rows = zip(documents, log.truth.sessions.to_pylist(), strict=True)
    asks = [(bool(price & set(d["search_query"].lower().split())), row["bargain"]) for d, row in rows]
    assert not [1 for speaks, bargain in asks if speaks and not bargain]
    assert sum(speaks for speaks, bargain in asks if bargain) > 0.4 * sum(bargain for _, bargain in asks)


def test_other_languages_occur_at_their_rate(log: Generated, documents: list[dict]) -> None:
    assert set(log.truth.users["language"].to_pylist()) == {"en", "de", "fr", "es"}
    foreign = {"kopfhörer", "kleid", "schuhe", "chaussures", "robe", "auriculares", "vestido", "zapatos"}
    assert foreign <= {word for d in documents for word in d["search_query"].lower().split()}
    assert np.mean(log._columns.language > 0) == pytest.approx(0.06, abs=0.01)


def test_three_in_a_hundred_queries_are_mistyped(
    log: Generated, documents: list[dict], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generate, "TYPOS", 0.0)
    meant = [d["search_query"] for d in log.documents]
    mistyped = [d["search_query"] != query for d, query in zip(documents, meant, strict=True)]
    assert np.mean(mistyped) == pytest.approx(0.03, abs=0.005)
    vocabulary = {word for query in meant for word in query.lower().split()}
    wrong = [d["search_query"] for d, typo in zip(documents, mistyped, strict=True) if typo]
    assert np.mean([not vocabulary.issuperset(query.lower().split()) for query in wrong]) > 0.8


def test_clicks_are_few_and_on_what_was_searched(log: Generated, documents: list[dict]) -> None:
    clicks = [len(d["clicked_product_ids"]) for d in documents]
    assert 0.25 < np.mean([count == 0 for count in clicks]) < 0.45
    assert set(clicks) <= set(range(6))
    assert all(len(set(d["clicked_product_ids"])) == len(d["clicked_product_ids"]) for d in documents)
    by_product: dict[str, Counter[str]] = defaultdict(Counter)
    for document, category in zip(documents, log.truth.sessions["category"].to_pylist(), strict=True):
        for product in document["clicked_product_ids"]:
            if category is not None:
                by_product[product][category] += 1
    popular = [counts for counts in by_product.values() if counts.total() >= 10]
    # The product's own category dominates, though the id does not show it.
    assert np.mean([max(counts.values()) / counts.total() for counts in popular]) > 0.8
    totals = sorted((counts.total() for counts in by_product.values()), reverse=True)
    assert sum(totals[: len(totals) // 10]) > 0.4 * sum(totals)


def test_the_day_has_an_evening_peak_and_the_week_a_sunday(documents: list[dict]) -> None:
    times = [parse_timestamp(d["timestamp"]) for d in documents]
    hours = Counter(t.hour for t in times)
    assert hours.most_common(1)[0][0] in (20, 21)
    assert min(hours.values()) < hours[20] / 8
    week = Counter(t.weekday() for t in times if t >= END - timedelta(days=84))  # whole weeks
    assert week.most_common(1)[0][0] == 6
    assert min(week, key=week.get) == 4


def _shares(values: list[str]) -> dict[str, float]:
    return {value: count / len(values) for value, count in Counter(values).items()}


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()
