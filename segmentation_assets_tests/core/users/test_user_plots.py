"""Pictures of users: what they show, in both forms, for whatever can occur."""

import dataclasses
import warnings
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch, Rectangle
from report_data import clusters, make_features, make_model, make_personas, make_rows, make_rules, make_scores

from segmentation_assets.core import plots, user_plots
from segmentation_assets.core.plots import Form
from segmentation_assets.core.users.behaviour import BehaviourModel
from segmentation_assets.core.users.cleaning import CleaningAccount
from segmentation_assets.core.users.features import UserFeatures
from segmentation_assets.core.users.imputation import Imputation
from segmentation_assets.core.users.personas import NOISE_NAME, Persona, Personas, Trait
from segmentation_assets.core.users.rules import Overlap, RuleReport, RuleSegments
from segmentation_assets.core.users.scores import SCORES_SCHEMA, UserScores

FORMS: tuple[Form, ...] = ("png", "svg")
AWKWARD = "$a_b$ \\frac{1}{2} <script>&\"' {{ x }} 鍵盤 👗 " + "w" * 90


@pytest.fixture(autouse=True)
def silence_is_asked_for() -> Iterator[None]:
    """A warning, such as that of a missing glyph, is a failure."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def is_picture(picture: bytes, form: Form) -> bool:
    if form == "png":
        return picture.startswith(b"\x89PNG\r\n\x1a\n") and len(picture) > 1000
    return ET.fromstring(picture).tag == "{http://www.w3.org/2000/svg}svg"


def words_of(svg: bytes) -> list[str]:
    return [text.text or "" for text in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


def draw_all(labels: np.ndarray, form: Form) -> list[bytes]:
    features, model, personas = make_features(labels), make_model(labels), make_personas(labels)
    scores, rules = make_scores(features), make_rules(len(labels))
    names = user_plots.cluster_names(model, personas)
    return [
        user_plots.feature_boxes(features, model, names, user_plots.chosen_features(features, personas), form),
        user_plots.user_map(make_rows(labels), model, names, form),
        user_plots.rfm_map(scores, form=form),
        user_plots.rfm_map(scores, features, "spend", form),
        user_plots.loyalty(scores, form),
        user_plots.k_distances(np.linspace(0.1, 2, len(labels)), 0.7, form),
        user_plots.cluster_sizes(personas, form),
        user_plots.rule_sizes(rules, form),
        user_plots.rule_overlaps(rules, form),
        user_plots.segment_shares(personas, form),
    ]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("n", [1, 60])
def test_every_picture_is_one_in_both_forms_even_of_a_single_user(form: Form, n: int) -> None:
    assert all(is_picture(picture, form) for picture in draw_all(clusters(60)[:n], form))


def test_the_same_users_are_the_same_svg() -> None:
    assert draw_all(clusters(40), "svg") == draw_all(clusters(40), "svg")


def nobody() -> tuple[UserFeatures, BehaviourModel, Personas, UserScores, RuleSegments]:
    none = np.empty(0, np.int32)
    model = dataclasses.replace(make_model(none), cluster_ids=none, noise=0, sizes=[])
    scores = UserScores(SCORES_SCHEMA.empty_table(), {}, {}, "sessions")
    rules = RuleSegments(pa.table({"user_id": pa.array([], pa.string())}), [], [])
    return make_features(none), model, Personas([], "v"), scores, rules


@pytest.mark.parametrize("form", FORMS)
def test_a_picture_of_nothing_says_so(form: Form, drawn: list[Figure]) -> None:
    features, model, personas, scores, rules = nobody()
    empty = CleaningAccount(0, 0)
    draw: list[Callable[[], bytes]] = [
        lambda: user_plots.feature_boxes(features, model, {}, ["spend"], form),
        lambda: user_plots.feature_boxes(features, model, {}, [], form),
        lambda: user_plots.user_map(np.empty((0, 3)), model, {}, form),
        lambda: user_plots.rfm_map(scores, form=form),
        lambda: user_plots.loyalty(scores, form),
        lambda: user_plots.k_distances(np.array([np.nan]), None, form),
        lambda: user_plots.cluster_sizes(personas, form),
        lambda: user_plots.rule_sizes(rules, form),
        lambda: user_plots.rule_overlaps(rules, form),
        lambda: user_plots.cleaning_bars(empty, form),
        lambda: user_plots.segment_shares(personas, form),
    ]
    for number, function in enumerate(draw):
        assert is_picture(function(), form)
        said = [text.get_text() for text in drawn[number].axes[0].texts]
        assert len(said) == 1
        assert said[0].startswith("No")


def one_card(cluster: int, name: str, users: int, share: float, **more: Any) -> Persona:
    return Persona(cluster, name, None, [], users, share, [], **more)


@pytest.mark.parametrize("form", FORMS)
def test_text_from_people_is_drawn_as_it_stands(form: Form) -> None:
    labels = clusters(30)
    features, model = make_features(labels), make_model(labels)
    column = f"category_share:{AWKWARD}"
    table = features.table.rename_columns(
        [column if name == "category_share:Shoes" else name for name in features.table.column_names]
    )
    cards = [one_card(0, AWKWARD, 5, 0.5, segments={AWKWARD: 1.0}), one_card(1, "_hidden", 5, 0.5)]
    personas = Personas(cards, "v")
    names = user_plots.cluster_names(model, personas)
    rules = RuleSegments(pa.table({}), [RuleReport(AWKWARD, 3, 0.1)], [])
    account = CleaningAccount(9, 8, {AWKWARD: 1}, imputations=[Imputation(AWKWARD, "mode", AWKWARD, 2)])
    pictures = [
        user_plots.feature_boxes(dataclasses.replace(features, table=table), model, names, [column], form),
        user_plots.user_map(make_rows(labels), model, names, form),
        user_plots.cluster_sizes(personas, form),
        user_plots.segment_shares(personas, form),
        user_plots.rule_sizes(rules, form),
        user_plots.rule_overlaps(rules, form),
        user_plots.cleaning_bars(account, form),
    ]
    assert all(is_picture(picture, form) for picture in pictures)
    if form == "svg":
        assert any("<script>" in word for word in words_of(pictures[2]))
        assert "_hidden" in words_of(pictures[1])  # which matplotlib would leave out of a legend


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
@settings(deadline=None, max_examples=15)
def test_any_name_is_an_svg_that_can_be_read(name: str) -> None:
    assert is_picture(user_plots.cluster_sizes(Personas([one_card(0, name, 3, 1.0)], "v"), "svg"), "svg")


def test_a_cluster_has_one_colour_everywhere_and_noise_is_grey(drawn: list[Figure]) -> None:
    colors = user_plots.cluster_colors([7, 0, -1, 3])
    assert colors == {0: plots.PALETTE[0], 3: plots.PALETTE[1], 7: plots.PALETTE[2], -1: plots.GREY}
    labels = clusters(60)
    user_plots.cluster_sizes(make_personas(labels))
    bars = [patch for patch in drawn[0].axes[0].patches if isinstance(patch, Rectangle)]
    assert len({bar.get_facecolor() for bar in bars}) == 6


def test_a_box_shows_quartiles_of_the_users_who_have_a_value_and_are_not_marked(drawn: list[Figure]) -> None:
    labels = np.array([0] * 7 + [1, -1], np.int32)
    features = make_features(labels)
    spend = pa.array([1.0, 2.0, 3.0, 4.0, 5.0, None, 999.0, 8.0, 50.0])
    place = features.table.schema.get_field_index("average_spend")
    table = features.table.set_column(place, "average_spend", spend)
    noise = pa.array([[]] * 6 + [["bot_rate"]] + [[]] * 2, pa.list_(pa.string()))
    features = dataclasses.replace(features, table=table, noise=features.noise.set_column(1, "noise", noise))
    model = dataclasses.replace(make_model(labels), cluster_ids=np.array([0, 1], np.int32), sizes=[7, 1])
    user_plots.feature_boxes(features, model, {0: "many", 1: "one", -1: NOISE_NAME}, ["average_spend"])
    axes = drawn[0].axes[0]
    shown = [label.get_text() for label in axes.get_yticklabels()]
    assert shown == ["many (5)", "one (1)", "Unlike any group (1)"]
    box = next(patch for patch in axes.patches if isinstance(patch, PathPatch))
    assert box.get_path().vertices[:, 0].min() == pytest.approx(2.0)
    assert box.get_path().vertices[:, 0].max() == pytest.approx(4.0)
    assert axes.get_xlabel() == "money"
    assert axes.get_title(loc="left") == "Average spend"
    assert axes.get_xlim()[0] == 0


def test_a_feature_that_nobody_of_a_cluster_has_leaves_a_gap(drawn: list[Figure]) -> None:
    labels = np.array([0, 0, 1], np.int32)
    features = make_features(labels)
    place = features.table.schema.get_field_index("average_spend")
    table = features.table.set_column(place, "average_spend", pa.array([1.0, 2.0, None]))
    model = dataclasses.replace(make_model(labels), cluster_ids=np.array([0, 1], np.int32))
    user_plots.feature_boxes(dataclasses.replace(features, table=table), model, {}, ["average_spend", "unknown"])
    axes = drawn[0].axes
    assert len(axes) == 1  # a column that is not there is left out
    assert [label.get_text() for label in axes[0].get_yticklabels()] == ["0 (2)", "1 (0)"]
    assert len([patch for patch in axes[0].patches if isinstance(patch, PathPatch)]) == 1


def test_the_features_shown_are_those_with_the_largest_effects_in_the_order_of_the_table() -> None:
    features = make_features(clusters(60))
    traits = [
        Trait("spend", -2.0, 0, 0, ""), Trait("views", 0.4, 0, 0, ""), Trait("category_share:Shoes", 1.0, 0, 0, ""),
        Trait("gone", 9.0, 0, 0, ""),
    ]  # fmt: skip
    personas = Personas([Persona(0, "x", None, [], 1, 1.0, traits)], "v")
    assert user_plots.chosen_features(features, personas, 2) == ["spend", "category_share:Shoes"]
    without = user_plots.chosen_features(features, None, 3)
    assert without == ["sessions_per_week", "recency_days", "purchases_per_month"]
    assert all(":" not in name for name in user_plots.chosen_features(features, None, 99))


def test_a_share_that_next_to_nobody_has_is_not_shown_even_as_a_trait() -> None:
    features = make_features(clusters(60))
    rare = pa.array([0.5] * 2 + [0.0] * 58)
    features = dataclasses.replace(features, table=features.table.append_column("device_share:Anna's", rare))
    traits = [Trait("device_share:Anna's", 5.0, 0, 0, ""), Trait("spend", 1.0, 0, 0, "")]
    personas = Personas([Persona(0, "x", None, [], 1, 1.0, traits)], "v")
    assert user_plots.chosen_features(features, personas, 1) == ["spend"]


def test_the_map_of_users_shows_each_once_and_a_sample_of_many(
    drawn: list[Figure], monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = clusters(60)
    model = make_model(labels)
    names = user_plots.cluster_names(model)
    user_plots.user_map(make_rows(labels), model, names)
    monkeypatch.setattr(user_plots, "MAP_USERS", 25)
    user_plots.user_map(make_rows(labels), model, names)
    everybody, some = ([len(points.get_offsets()) for points in figure.axes[0].collections] for figure in drawn)
    assert sum(everybody) == 60
    assert sum(some) == 25
    assert drawn[1].axes[0].get_title(loc="left").startswith("25 of 60 users")
    legend = [text.get_text() for text in drawn[0].axes[0].get_legend().get_texts()]
    assert set(legend) == {"cluster 0", "cluster 1", "cluster 2", "cluster 3", "cluster 7", NOISE_NAME}


def test_the_components_are_those_of_most_variance(drawn: list[Figure]) -> None:
    labels = np.array([0, 0, 0, 0], np.int32)
    rows = np.array([[0.0, 0.0, 3.0], [0.0, 0.0, -3.0], [1.0, 0.0, 0.0], [-1.0, 0.0, 0.0]])
    user_plots.user_map(rows, make_model(labels), {})
    axes = drawn[0].axes[0]
    assert axes.get_xlabel() == "first component: 90% of the differences"  # 18 of 20
    assert axes.get_ylabel() == "second component: 10%"
    at = np.asarray(axes.collections[0].get_offsets())
    assert at == pytest.approx(np.array([[3.0, 0.0], [-3.0, 0.0], [0.0, 1.0], [0.0, -1.0]]))


def scores(rows: list[tuple[int | None, int | None, float, str]], groups: int = 5) -> UserScores:
    users = [f"u{number}" for number in range(len(rows))]
    recency, frequency, index, tier = (list(column) for column in zip(*rows, strict=True))
    table = pa.table([users, recency, frequency, [None] * len(rows), ["x"] * len(rows), index, tier], SCORES_SCHEMA)
    return UserScores(table, {"monetary": "nothing was bought"}, {"recency": 0.5, "frequency": 0.5}, "sessions", groups)


def cells(figure: Figure) -> dict[tuple[float, float], str]:
    """What stands in which cell, by (column, row) from the upper left."""
    return {text.get_position(): text.get_text() for text in figure.axes[0].texts}


def test_the_heat_map_counts_users_with_the_latest_on_top(drawn: list[Figure]) -> None:
    some = scores([(3, 1, 1.0, "a"), (3, 1, 1.0, "a"), (1, 3, 1.0, "a"), (None, 2, 1.0, "a")], 3)
    user_plots.rfm_map(some)
    assert cells(drawn[0]) == {(0, 0): "2", (2, 2): "1"}
    axes = drawn[0].axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["3", "2", "1"]
    assert "by sessions" in axes.get_xlabel()
    strong, weak = (patch.get_alpha() for patch in axes.patches)
    assert strong > weak


def test_the_map_has_all_groups_whoever_is_in_them(drawn: list[Figure]) -> None:
    """Of few users nobody may have the best score: 4 of 5 is not 'just now'."""
    user_plots.rfm_map(scores([(4, 2, 1.0, "a")]))
    axes = drawn[0].axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["5", "4", "3", "2", "1"]
    assert axes.get_ylabel() == "recency score (5 = just now)"
    assert cells(drawn[0]) == {(1, 1): "1"}


def test_scores_that_do_not_say_how_many_groups_there_are_are_drawn(drawn: list[Figure]) -> None:
    user_plots.rfm_map(scores([(9, 7, 1.0, "a")]))
    assert cells(drawn[0]) == {(6, 0): "1"}


def test_a_cell_can_be_the_mean_spend_whatever_the_order_of_the_users(drawn: list[Figure]) -> None:
    some = scores([(1, 1, 1.0, "a"), (1, 1, 1.0, "a"), (1, 2, 1.0, "a"), (2, 2, 1.0, "a")], 2)
    features = make_features(np.zeros(4, np.int32))
    table = pa.table({"user_id": ["u3", "u2", "u1", "u0"], "spend": [None, 7.0, 30.0, 10.0]})
    user_plots.rfm_map(some, dataclasses.replace(features, table=table), "spend")
    assert cells(drawn[0]) == {(0, 1): "20", (1, 1): "7"}  # (10 + 30) / 2; no spend, no cell


def test_a_cell_that_cannot_be_is_refused() -> None:
    some = scores([(1, 1, 1.0, "a")])
    with pytest.raises(ValueError, match="'users' or 'spend'"):
        user_plots.rfm_map(some, cell="money")
    with pytest.raises(ValueError, match="spend"):
        user_plots.rfm_map(some, None, "spend")


def test_tiers_rise_and_every_user_is_in_a_bar(drawn: list[Figure]) -> None:
    some = scores([(1, 1, 90.0, "a top"), (1, 1, 10.0, "z low"), (1, 1, 12.0, "z low"), (1, 1, 100.0, "a top")])
    assert user_plots.loyalty_tiers(some) == [("z low", 2), ("a top", 2)]
    user_plots.loyalty(some)
    axes = drawn[0].axes[0]
    assert sum(bar.get_height() for bar in axes.patches) == 4
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["z low: 2 (50%)", "a top: 2 (50%)"]


def test_the_distances_are_a_rising_curve_with_the_share_below_eps(drawn: list[Figure]) -> None:
    user_plots.k_distances(np.array([3.0, 1.0, 2.0, np.inf, 4.0]), 2.5)
    axes = drawn[0].axes[0]
    assert axes.lines[0].get_ydata().tolist() == [1, 2, 3, 4]
    assert axes.texts[0].get_text() == "suggested eps = 2.5: 50% of the users below"
    assert axes.get_ylim()[0] == 0


def test_a_rule_that_was_not_applied_says_so(drawn: list[Figure]) -> None:
    report = [RuleReport("one", 30, 0.3), RuleReport("two", 0, 0.0, "no purchase was recorded")]
    user_plots.rule_sizes(RuleSegments(pa.table({}), report, []))
    axes = drawn[0].axes[0]
    assert [text.get_text().strip() for text in axes.texts] == ["30 (30%)", "not applied"]
    assert axes.get_xlim()[0] == 0  # bars are compared by their lengths


def test_an_overlap_is_a_part_of_the_rule_of_its_row(drawn: list[Figure]) -> None:
    report = [RuleReport("small", 10, 0.1), RuleReport("large", 40, 0.4), RuleReport("nobody", 0, 0.0)]
    user_plots.rule_overlaps(RuleSegments(pa.table({}), report, [Overlap("small", "large", 8)]))
    assert [label.get_text() for label in drawn[0].axes[0].get_yticklabels()] == ["1  large", "2  small"]
    assert cells(drawn[0]) == {(1, 0): "20", (0, 1): "80"}


def test_what_was_set_aside_is_a_part_of_what_came_in(drawn: list[Figure]) -> None:
    account = CleaningAccount(
        200, 190, {"duplicate_session": 10}, 1_000, 999, {"duplicate_event": 1},
        [Imputation("duration", "mean", 3.0, 19), Imputation("device", "none", None, 0)],
    )  # fmt: skip
    user_plots.cleaning_bars(account)
    axes = drawn[0].axes[0]
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == ["sessions: duplicate session", "events: duplicate event", "duration filled in"]
    assert [text.get_text().strip() for text in axes.texts] == ["10 (5.0%)", "1 (0.1%)", "19 (10%)"]
    assert [bar.get_width() for bar in axes.patches] == pytest.approx([0.05, 0.001, 0.1])


def test_segments_beyond_the_columns_are_added_up(drawn: list[Figure], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(user_plots, "MAP_COLUMNS", 1)
    cards = [one_card(0, "a", 10, 0.5, segments={"x": 0.7, "y": 0.2, "z": 0.1}), one_card(-1, NOISE_NAME, 1, 0.1)]
    user_plots.segment_shares(Personas(cards, "v"))
    axes = drawn[0].axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["x", "all others"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a"]  # who has no segments has no row
    assert cells(drawn[0]) == {(0, 0): "70%", (1, 0): "30%"}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"), (0.25, "0.25"), (0.00001, "0.00001"), (12.34, "12.3"), (99.96, "100"), (940, "940"),
        (9_400, "9,400"), (9_999.6, "10k"), (94_000, "94k"), (123_456, "123k"), (999_600, "1M"), (1.2e6, "1.2M"),
        (3.456e9, "3.46B"), (1e12, "1T"), (1e16, "10,000T"), (-94_000, "-94k"),
    ],
)  # fmt: skip
def test_a_number_fits_into_a_cell(value: float, text: str, drawn: list[Figure]) -> None:
    features = dataclasses.replace(
        make_features(np.zeros(1, np.int32)), table=pa.table({"user_id": ["u0"], "spend": [float(value)]})
    )
    user_plots.rfm_map(scores([(1, 1, 1.0, "a")], 1), features, "spend")
    assert cells(drawn[0]) == {(0, 0): text}


def test_an_svg_has_its_title_beside_the_picture_and_a_png_in_it(drawn: list[Figure]) -> None:
    personas = make_personas(clusters(60))
    user_plots.cluster_sizes(personas)
    svg = ET.fromstring(user_plots.cluster_sizes(personas, "svg"))
    assert drawn[0].axes[0].get_title(loc="left") == "Users by persona"
    assert drawn[1].axes[0].get_title(loc="left") == ""
    assert svg.findtext("{http://www.w3.org/2000/svg}title") == "Users by persona"
    assert "Window Browsers" in words_of(ET.tostring(svg))
