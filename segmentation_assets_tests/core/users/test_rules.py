"""Rules: the language, what is refused and how, and who is in which segment."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segmentation_assets.core.settings import ScoreSettings
from segmentation_assets.core.users import features as feature_module
from segmentation_assets.core.users.features import FEATURES, TRAITS, UserFeatures
from segmentation_assets.core.users.rules import (
    KNOWN,
    MAX_CONDITIONS,
    MAX_DEPTH,
    MAX_RULES,
    OPERATORS,
    SHARES,
    Overlap,
    RuleReport,
    Rules,
    RulesError,
    apply_rules,
    parse_rules,
    shipped_rules,
)
from segmentation_assets.core.users.scores import SCORES_SCHEMA, UserScores, score

TABLE: dict[str, list[float | None]] = {
    "purchases_per_month": [4, 3, 3.5, 0, 0, 0, 0, 1, 1, 1, *[0] * 10],
    "purchases": [8, 6, 7, 0, 0, 0, 0, 1, 2, 2, *[0] * 10],
    "spend": [800, 700, 600, 0, 0, 0, 0, None, 500, 400, *[0] * 10],
    "views": [9, 9, 9, 3, 5, 2, 0, 1, 3, 3, *[0] * 10],
    "add_to_carts": [9, 9, 9, 0, 1, 2, 0, 1, 3, 3, *[0] * 10],
    "sessions": [9, 8, 7, 6, 5, 4, 9, 2, 1, 1, *[1] * 10],
    "click_through": [1, 1, 1, 0.5, 0.2, 0, 0.1, 1, 1, 1, *[0] * 10],
    "recency_days": [1, 2, 3, 4, 5, 6, 7, 31, 30, 61, 61, 60, 12, 13, 14, 15, 16, 17, 18, 19],
    "tenure_days": [60, 60, 60, 60, 60, 14, 15, 31, 30, 61, 61, *[60] * 9],
    "price_level": [0.9, 0.5, 0.75, 0.25, 0.1, None, None, 0.5, 0.5, 0.5, *[None] * 10],
    "category_share:Shoes": [1, 0.5, 0, *[None] * 17],
}
USERS = [f"u{n:02}" for n in range(20)]
AGES = [17.0, 18.0, 25.0, 25.5, 26.0, None, None, 20.0] + [40.0] * 12
SUBSCRIBED = [30.0, None, 0.0] + [None] * 17
COUNTRIES = ["NO", "DE", "Norway", None, "de", "12"] + ["SE"] * 14


def made(
    table: dict[str, list[Any]] = TABLE,
    traits: dict[str, list[Any]] | None = None,
    absent: dict[str, str] | None = None,
) -> UserFeatures:
    users = pa.array(USERS, pa.string())
    if traits is None:
        traits = {"age": AGES, "subscription_days": SUBSCRIBED, "country": COUNTRIES}
    kinds = {"number": pa.float64(), "text": pa.string()}
    return UserFeatures(
        table=pa.table({"user_id": users} | {name: pa.array(v, pa.float64()) for name, v in table.items()}),
        traits=pa.table({"user_id": users} | {name: pa.array(v, kinds[TRAITS[name]]) for name, v in traits.items()}),
        groups={},
        absent=absent or {},
        outliers=pa.table({"user_id": pa.array([], pa.string())}),
        noise=pa.table({"user_id": users, "noise": pa.array([[]] * 20, pa.list_(pa.string()))}),
        start=datetime(2025, 1, 1, tzinfo=UTC),
        end=datetime(2025, 3, 1, tzinfo=UTC),
    )


FEATURES_OF_20 = made()
SCORES_OF_20 = score(FEATURES_OF_20, ScoreSettings())


def one(when: str, name: str = "a") -> str:
    """A file of one rule."""
    return f"rules:\n  - name: {name}\n    when: {when}\n"


def takes(when: str, features: UserFeatures = FEATURES_OF_20, scores: UserScores = SCORES_OF_20) -> list[int]:
    """The numbers of the users that a condition takes."""
    found = apply_rules(parse_rules(one(when), "my.yaml"), features, scores)
    return [n for n, rules in enumerate(found.table["rules"].to_pylist()) if rules == ["a"]]


def refused(text: str) -> RulesError:
    with pytest.raises(RulesError) as error:
        parse_rules(text, "my.yaml")
    return error.value


@pytest.mark.parametrize(
    ("when", "users"),
    [
        ("{feature: purchases_per_month, above: 3}", [0, 2]),
        ("{feature: purchases_per_month, at_least: 3}", [0, 1, 2]),
        ("{feature: recency_days, below: 3}", [0, 1]),
        ("{feature: recency_days, at_most: 3}", [0, 1, 2]),
        ("{feature: recency_days, between: [3, 5.5]}", [2, 3, 4]),
        ("{feature: recency_days, is: 61}", [9, 10]),
        ("{feature: recency_days, in: [1, 61, 1000]}", [0, 9, 10]),
        ("{feature: spend, missing: true}", [7]),
        ("{feature: price_level, missing: false}", [0, 1, 2, 3, 4, 7, 8, 9]),
        ("{feature: 'category_share:Shoes', at_least: 0.5}", [0, 1]),
        ("{trait: country, is: 'NO'}", [0]),
        ("{trait: country, is: DE}", [1]),
        ("{trait: country, in: [DE, 'NO', '12', Atlantis]}", [0, 1, 5]),
        ("{trait: country, missing: true}", [3]),
        ("{trait: country, missing: false}", [n for n in range(20) if n != 3]),
        ("{trait: age, between: [18, 25]}", [1, 2, 7]),
        ("{trait: subscription_days, missing: false}", [0, 2]),
        ("{score: rfm, is: '555'}", [0]),
        ("{score: monetary_score, missing: true}", [7]),
        ("{score: loyalty_index, at_least: 90}", [0]),
    ],
)
def test_each_operator_by_hand(when: str, users: list[int]) -> None:
    assert takes(when) == users


def test_every_operator_is_among_those_by_hand() -> None:
    marks = test_each_operator_by_hand.pytestmark  # type: ignore[attr-defined]
    asked = " ".join(case[0] for case in marks[0].args[1])
    assert [word for word in OPERATORS if f"{word}:" not in asked] == []


@pytest.mark.parametrize(
    ("when", "users"),
    [
        ("{all: [{feature: views, at_least: 3}, {feature: purchases, is: 0}]}", [3, 4]),
        ("{any: [{feature: recency_days, is: 1}, {trait: country, is: DE}]}", [0, 1]),
        ("{not: {feature: sessions, is: 1}}", [0, 1, 2, 3, 4, 5, 6, 7]),
        ("{all: [{trait: age, below: 26}, {not: {any: [{trait: country, is: DE}, {feature: views, is: 9}]}}]}", [3, 7]),
        ("{any: [{feature: recency_days, is: 2}]}", [1]),
    ],
)
def test_conditions_combine(when: str, users: list[int]) -> None:
    assert takes(when) == users


def test_a_missing_value_meets_no_comparison_and_so_does_meet_its_not() -> None:
    young = takes("{trait: age, at_most: 25}")
    old = takes("{trait: age, above: 25}")
    assert sorted({*range(20)} - {*young, *old}) == [5, 6]
    assert takes("{not: {trait: age, above: 25}}") == sorted([*young, 5, 6])
    assert takes("{all: [{not: {trait: age, above: 25}}, {trait: age, missing: false}]}") == young
    assert 3 in takes("{not: {trait: country, in: [DE, SE]}}")
    assert 3 not in takes("{trait: country, in: [DE, SE]}")


def test_the_shipped_rules_by_hand() -> None:
    found = apply_rules(shipped_rules(), FEATURES_OF_20, SCORES_OF_20)
    by_rule = {
        report.name: [n for n, rules in enumerate(found.table["rules"].to_pylist()) if report.name in rules]
        for report in found.report
    }
    assert by_rule == {
        "frequent_buyers": [0, 2],
        "browsers": [3, 4],
        "cart_abandoners": [4, 5],
        "big_spenders": [0],  # one of the five whose spend is known: 0.9, 0.7, 0.5, 0.3, 0.1 of them
        "loyal": [0, 1, 2],  # indices 92.4, 79.5, 77.1; the next is user 8 of 35.5
        "new_users": [5],
        "lapsed": [7, 9],
        "dormant": [10],
        "find_nothing": [4, 6],
        "low_price_shoppers": [3, 4],
        "high_price_shoppers": [0, 2],
        "young_adults": [1, 2, 7],
        "premium_subscribers": [0, 2],
    }
    assert found.report[0] == RuleReport("frequent_buyers", 2, 0.1)
    assert all(report.unusable is None for report in found.report)
    assert found.table["rules"].to_pylist()[4] == ["browsers", "cart_abandoners", "find_nothing", "low_price_shoppers"]
    assert found.table["rules"].to_pylist()[19] == []
    assert found.overlaps[:3] == [
        Overlap("frequent_buyers", "loyal", 2),
        Overlap("frequent_buyers", "high_price_shoppers", 2),
        Overlap("frequent_buyers", "premium_subscribers", 2),
    ]
    assert Overlap("lapsed", "young_adults", 1) in found.overlaps
    assert Overlap("browsers", "cart_abandoners", 1) in found.overlaps
    users = [overlap.users for overlap in found.overlaps]
    assert users == sorted(users, reverse=True)
    assert min(users) == 1


def test_a_rule_that_asks_for_what_the_data_do_not_have_takes_nobody_and_says_why() -> None:
    few = {name: TABLE[name] for name in ("sessions", "recency_days")}
    features = made(
        few,
        {},
        {"purchases": "no purchase was recorded", "views": "no session has events", "age": "there are no attributes"},
    )
    scores = score(features, ScoreSettings())
    rules = parse_rules(
        """
rules:
  - {name: usable, when: {feature: recency_days, at_most: 2}}
  - {name: of_a_group, when: {any: [{feature: recency_days, at_most: 2}, {feature: purchases_per_month, above: 3}]}}
  - {name: of_several, when: {all: [{feature: views, above: 3}, {feature: spend, is: 0}, {feature: views, below: 9}]}}
  - {name: turned_round, when: {not: {trait: age, above: 25}}}
  - {name: asks_for_missing, when: {feature: spend, missing: true}}
  - {name: of_a_score, when: {score: monetary_score, missing: true}}
  - {name: of_a_share, when: {feature: 'category_share:Gloves', missing: true}}
  - {name: by_sessions, when: {score: frequency_score, at_least: 5}}
""",
        "my.yaml",
    )
    found = apply_rules(rules, features, scores)
    assert {report.name: (report.users, report.unusable) for report in found.report} == {
        "usable": (2, None),
        "of_a_group": (0, "purchases_per_month: no purchase was recorded"),
        "of_several": (0, "views: no session has events; spend: no purchase was recorded"),
        "turned_round": (0, "age: there are no attributes"),
        "asks_for_missing": (0, "spend: no purchase was recorded"),
        "of_a_score": (0, "monetary_score: no purchase was recorded"),
        "of_a_share": (0, "category_share:Gloves: the data have no such column"),
        "by_sessions": (4, None),  # the fifth with most sessions: 9, 9, 8 and 7
    }
    assert found.table["user_id"].to_pylist() == USERS


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (one("{feature: views, abov: 3}"), "line 3, rule 'a', when.abov: there is no word 'abov'. Did you mean above?"),
        (one("{feature: views, xyz: 3}"), "there is no word 'xyz'. Here stand all, any, not, feature,"),
        (one("{feature: views, above: 3, 7: 8}"), "rule 'a', when: there is no word 7"),
        (one("{feature: view, above: 3}"), "line 3, rule 'a', when: there is no feature 'view'. Did you mean views?"),
        (one("{feature: zzz, above: 3}"), "there is no feature 'zzz'. There are sessions, searches,"),
        (one("{trait: countri, is: DE}"), "there is no trait 'countri'. Did you mean country?"),
        (one("{score: loyalty, above: 3}"), "there is no score 'loyalty'. Did you mean loyalty_"),
        (one("{feature: age, above: 3}"), "'age' is a trait, not a feature. Write 'trait: age'."),
        (one("{trait: spend, above: 3}"), "'spend' is a feature, not a trait. Write 'feature: spend'."),
        (one("{feature: category_share, above: 0}"), "'category_share' names no column of category_share"),
        (one("{feature: 'category_share:', above: 0}"), "'category_share:' names no column"),
        (one("{feature: 'hour_share:9', above: 0}"), "'hour_share:9' names no column of hour_share"),
        (one("{feature: 'weekday_share:Monday', above: 0}"), "one of mon, tue, wed, thu, fri, sat, sun."),
        (one("{feature: 'device_shar:tv', above: 0}"), "there is no feature 'device_shar:tv'. Did you mean dev"),
        (one("{score: loyalty_tier, above: 3}"), "loyalty_tier is text, which 'above' cannot compare. Use is,"),
        (one("{trait: country, between: [1, 2]}"), "country is text, which 'between' cannot compare."),
        (one("{trait: country, is: 12}"), "country is text and 12 is a number. Put it in quotes: '12'."),
        (one("{feature: views, in: [1, many]}"), "views is a number and 'many' is text."),
        (one("{trait: country, in: [DE, NO]}"), "when.in: False is neither a number nor text. Put it in"),
        (one("{trait: country, is: 2024-01-31}"), "2024-01-31 is neither a number nor text. Put it in quotes"),
        (one("{feature: views, above: '3'}"), "when.above: '3' is no number. Write a number, without quotes."),
        (one("{feature: views, at_least: yes}"), "when.at_least: True is no number."),
        (one("{feature: views, below: .nan}"), "nan is no number to compare with. Write a finite number."),
        (one("{feature: views, at_most: -.inf}"), "-inf is no number to compare with."),
        (one("{feature: views, is: 1" + "0" * 400 + "}"), "is no number to compare with."),
        (one("{feature: views, between: [3]}"), "[3] is no pair of numbers. Write the lower and the upper bound"),
        (one("{feature: views, between: 3}"), "3 is no pair of numbers."),
        (one("{feature: views, between: [3, 1]}"), "no value lies between 3 and 1. Write the lower bound first."),
        (one("{feature: views, in: []}"), "[] is no list of values. Write a list, as in [gold, platinum]."),
        (one("{feature: views, in: 3}"), "3 is no list of values."),
        (one("{feature: views, missing: 1}"), "'missing' is neither true nor false. Write true or false."),
        (one("{feature: views, above: }"), "None is no number."),
        (one("{feature: views, missing: }"), "'missing' has no value. Write one after the colon"),
        (one("{feature: views}"), "a comparison needs one operator, and has none. Use one of above, at_least,"),
        (one("{feature: views, above: 1, below: 3}"), "needs one operator, and has 'above' and 'below'."),
        (one("{above: 3}"), "a condition needs one feature, trait or score, and has none. Write, for example,"),
        (one("{}"), "a condition needs one feature, trait or score, and has none."),
        (one("{feature: views, score: rfm, is: 1}"), "and has 'feature' and 'score'."),
        (one("{feature: [views], above: 3}"), "when.feature: 'feature' is no text."),
        (one("{all: []}"), "when: 'all' has no value."),
        (one("{not: }"), "when: 'not' has no value."),
        (one("{any: {feature: views, above: 3}}"), "when.any: 'any' is no list. Write a list, each entry with a dash."),
        (one("{not: [{feature: views, above: 3}]}"), "when.not: 'not' is no mapping."),
        (one("{any: [views]}"), "when.any.1: an entry is no mapping."),
        (one("{not: {feature: views, above: 3}, feature: views, above: 3}"), "'not' and 'feature' and 'above' stand"),
        (one("{all: [{feature: views, above: 1}, {feature: views, beyond: 1}]}"), "when.all.2.beyond: there is no"),
        (one("{feature: views, above: 3, feature: purchases}"), "line 3, rule 'a', when.feature: 'feature' stands"),
        (one("views > 3"), "line 3, rule 'a', when: 'when' is no mapping."),
        (one("{feature: views, above: 3}", "Big Spenders"), "rule 'Big Spenders', name: the name cannot be used."),
        (one("{feature: views, above: 3}", '"a\\n"'), "the name cannot be used."),
        (one("{feature: views, above: 3}", "3"), "line 2, rule 1, name: 'name' is no text."),
        (one("{feature: views, above: 3}") + "  - name: b", "rule 'b', when: 'when' is missing. A rule has"),
        (one("{feature: views, above: 3}") + "    wen: 3", "rule 'a', wen: there is no word 'wen'. Did you mean when?"),
        (one("{feature: views, above: 3}") + "  - b", "line 4, rule 2: an entry is no mapping."),
        (one("{feature: views, above: 3}") + one("{feature: views, above: 3}")[7:], "several rules have the name 'a'."),
        ("rules:\n" + one("{feature: views, above: 3}")[7:] * (MAX_RULES + 1), f"more than {MAX_RULES} rules."),
        ("rule: []", "'rules' is missing"),
        ("rules:", "line 1: 'rules' is no list."),
        ("rules: {a: 1, a: 2}", "line 1: 'a' stands twice."),
        ("rules: [{name: a, name: b}]\nrules: []", "'rules' stands twice."),
        ("", "my.yaml cannot be used: the file is no mapping. Write names with values: the file has 'rules:'"),
        ("[]", "the file is no mapping."),
        ("rules: [", "my.yaml are not valid YAML:"),
        ("rules: 2024-13-45", "my.yaml are not valid YAML: month must be in 1..12"),
        ("rules: \x00", "my.yaml are not valid YAML:"),
        ("[" * 5_000, "my.yaml are nested too deep to be read."),
    ],
)
def test_what_cannot_be_used_is_refused_with_the_place_the_cause_and_the_cure(text: str, says: str) -> None:
    error = refused(text)
    assert says in str(error)
    assert "my.yaml" in error.problem
    assert error.cure
    assert len(str(error)) < 2_000
    assert "\n" not in str(error)


def test_every_rule_that_is_wrong_is_named_up_to_five() -> None:
    text = "rules:\n" + "".join(one("{feature: vews, above: 3}", f"r{n}")[7:] for n in range(7))
    error = refused(text)
    assert [f"rule 'r{n}'" in error.problem for n in range(7)] == [True] * 5 + [False] * 2
    assert error.cure.count("Did you mean") == 1


def nested(depth: int) -> str:
    return "{not: " * depth + "{feature: views, above: 3}" + "}" * depth


def test_conditions_nest_to_a_bounded_depth() -> None:
    assert takes(nested(MAX_DEPTH)) == [n for n in range(20) if n not in takes("{feature: views, above: 3}")]
    assert f"rule 'a', when: all, any and not are nested deeper than {MAX_DEPTH}" in str(
        refused(one(nested(MAX_DEPTH + 1)))
    )


def test_a_condition_that_holds_itself_is_nested_too_deep() -> None:
    assert "nested deeper" in str(refused(one("&me {all: [*me]}")))


def test_a_short_text_that_stands_for_very_many_conditions_is_refused() -> None:
    bomb = one("{feature: views, above: 3}").replace("when: ", "when: &c0 ")
    for level in range(1, 5):
        bomb += f"  - {{name: b{level}, when: &c{level} {{all: [{', '.join([f'*c{level - 1}'] * 100)}]}}}}\n"
    assert f"rule 'b2', when: it has more than {MAX_CONDITIONS} conditions" in str(refused(bomb))


def test_parts_of_a_file_may_be_repeated_by_reference_and_merged() -> None:
    text = """
rules:
  - name: one
    when: &busy {feature: views, above: 3}
  - name: other
    when: {not: *busy}
  - name: more
    when: {<<: *busy, above: 5}
"""
    found = parse_rules(text, "my.yaml")
    assert [rule.when.value for rule in (found.rules[0], found.rules[2])] == [3, 5]


def test_text_that_looks_like_a_program_is_text(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    program = f"__import__('pathlib').Path('{trace}').touch()"
    assert takes(f'{{trait: country, is: "{program}"}}') == []
    assert takes(f'{{trait: country, in: ["{program}", "{{0.__class__}}", DE]}}') == [1]
    assert "there is no feature" in str(refused(one(f'{{feature: "{program}", above: 3}}')))
    assert "'when' is no mapping" in str(refused(one(f'"{program}"')))
    assert "is no number" in str(refused(one(f'{{feature: views, above: "{program}"}}')))
    assert "{problem}" in str(refused(one('{feature: "{problem}", above: 3}')))
    assert "not valid YAML" in str(refused(one(f"!!python/object/apply:pathlib.Path ['{trace}']")))
    assert not trace.exists()


def test_no_rules_are_rules() -> None:
    found = apply_rules(parse_rules("rules: []", "my.yaml"), FEATURES_OF_20, SCORES_OF_20)
    assert found.table["rules"].to_pylist() == [[]] * 20
    assert (found.report, found.overlaps) == ([], [])


def test_rules_without_users_take_nobody() -> None:
    nobody = UserFeatures(
        **{
            **vars(FEATURES_OF_20),
            "table": FEATURES_OF_20.table.slice(0, 0),
            "traits": FEATURES_OF_20.traits.slice(0, 0),
            "noise": FEATURES_OF_20.noise.slice(0, 0),
        }
    )
    found = apply_rules(shipped_rules(), nobody, score(nobody, ScoreSettings()))
    assert found.table.num_rows == 0
    assert {(report.users, report.share) for report in found.report} == {(0, 0.0)}


def test_whatever_features_and_scores_can_have_can_be_asked_for() -> None:
    assert KNOWN["trait"] == list(TRAITS)
    assert {feature.name for feature in FEATURES if feature.group in feature_module.SHARES} == set(SHARES)
    columns = [f"hour_share:{hour}" for hour in feature_module.HOURS]
    columns += [f"weekday_share:{day}" for day in feature_module.WEEKDAYS]
    columns += ["device_share:TV & radio: old", "segment_share:budget_buyer", "category_share:other"]
    for name in [*KNOWN["feature"], *columns]:
        assert parse_rules(one(f"{{feature: '{name}', above: 3}}"), "my.yaml").rules[0].when.name == name
    for name in SCORES_SCHEMA.names[1:]:
        assert parse_rules(one(f"{{score: {name}, missing: false}}"), "my.yaml").rules[0].when.source == "score"


COMPARISON = st.builds(
    lambda name, operator, value: {"feature": name, operator: value},
    st.sampled_from(["recency_days", "views", "price_level", "spend"]),
    st.sampled_from(["above", "at_least", "below", "at_most", "is"]),
    st.sampled_from([0, 0.25, 0.5, 3, 9, 30, 61, 500]),
)
CONDITION = st.recursive(
    COMPARISON,
    lambda inner: st.one_of(
        st.builds(lambda part: {"not": part}, inner),
        st.builds(
            lambda word, parts: {word: parts}, st.sampled_from(["all", "any"]), st.lists(inner, min_size=1, max_size=3)
        ),
    ),
    max_leaves=5,
)


def depth(condition: dict[str, Any]) -> int:
    parts = condition.get("all") or condition.get("any") or ([condition["not"]] if "not" in condition else [])
    return 1 + max(map(depth, parts)) if parts else 0


def naive(condition: dict[str, Any], user: int) -> bool:
    """What a condition says of one user, read as it stands."""
    if "not" in condition:
        return not naive(condition["not"], user)
    if "all" in condition:
        return all(naive(part, user) for part in condition["all"])
    if "any" in condition:
        return any(naive(part, user) for part in condition["any"])
    (operator, wanted), value = list(condition.items())[1], TABLE[condition["feature"]][user]
    if value is None:
        return False
    says: dict[str, bool] = {
        "above": value > wanted,
        "at_least": value >= wanted,
        "below": value < wanted,
        "at_most": value <= wanted,
        "is": value == wanted,
    }
    return says[operator]


@given(st.lists(CONDITION.filter(lambda condition: depth(condition) <= MAX_DEPTH), max_size=5), st.randoms())
def test_the_segments_are_what_a_naive_reading_gives_in_any_order_of_the_rows(
    conditions: list[dict[str, Any]], chance: Any
) -> None:
    names = [f"r{n}" for n in range(len(conditions))]
    rules = Rules.model_validate(
        {"rules": [{"name": name, "when": when} for name, when in zip(names, conditions, strict=True)]}
    )

    def shuffled(table: pa.Table) -> pa.Table:
        rows = list(range(table.num_rows))
        chance.shuffle(rows)
        return table.take(rows)

    features = UserFeatures(
        **{
            **vars(FEATURES_OF_20),
            "table": shuffled(FEATURES_OF_20.table),
            "traits": shuffled(FEATURES_OF_20.traits),
        }
    )
    scores = UserScores(**{**vars(SCORES_OF_20), "table": shuffled(SCORES_OF_20.table)})
    found = apply_rules(rules, features, scores)
    expected = [[name for name, when in zip(names, conditions, strict=True) if naive(when, user)] for user in range(20)]
    assert found.table.to_pylist() == [
        {"user_id": user, "rules": taken} for user, taken in zip(USERS, expected, strict=True)
    ]
    assert [report.users for report in found.report] == [sum(name in taken for taken in expected) for name in names]
    both = {
        (one, other): sum(one in taken and other in taken for taken in expected)
        for place, one in enumerate(names)
        for other in names[place + 1 :]
    }
    assert {(overlap.one, overlap.other): overlap.users for overlap in found.overlaps} == {
        pair: users for pair, users in both.items() if users
    }
