"""From features to rows: by hand where numbers are few, as properties where they can be anything."""

import json
from dataclasses import asdict
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segmentation_assets.core.settings import BehaviourSettings
from segmentation_assets.core.users.features import FEATURES, UserFeatures
from segmentation_assets.core.users.preprocessing import (
    DEFAULT_FEATURES,
    CategoricalStep,
    NoFeaturesError,
    NumericStep,
    Preprocessing,
    UnknownFeatureError,
    fit_preprocessing,
    transform,
)


def measured(
    numbers: dict[str, list[float | None]],
    traits: dict[str, list[str | None] | list[float | None]] | None = None,
    absent: dict[str, str] | None = None,
) -> UserFeatures:
    n = len(next(iter([*numbers.values(), *(traits or {}).values()])))
    users = pa.array([f"u{i:05}" for i in range(n)])
    return UserFeatures(
        table=pa.table({"user_id": users} | {name: pa.array(values, pa.float64()) for name, values in numbers.items()}),
        traits=pa.table({"user_id": users} | {name: pa.array(values) for name, values in (traits or {}).items()}),
        groups={},
        absent=absent or {},
        outliers=pa.table({}),
        noise=pa.table({"user_id": users, "noise": pa.array([[]] * n, pa.list_(pa.string()))}),
        start=datetime(2024, 1, 1, tzinfo=UTC),
        end=datetime(2024, 3, 1, tzinfo=UTC),
    )


def everybody(features: UserFeatures) -> np.ndarray:
    return np.ones(features.table.num_rows, np.bool_)


def fit(found: UserFeatures, /, **chosen: object) -> Preprocessing:
    return fit_preprocessing(found, BehaviourSettings.model_validate(chosen), everybody(found))


def rows_of(found: UserFeatures, /, **chosen: object) -> np.ndarray:
    return transform(fit(found, **chosen), found.table, found.traits)


DOUBLING = [0.0, 1, 3, 7]  # log(1 + x) is 0, 1, 2 and 3 times log 2


def test_counts_and_times_are_logged_and_standardised() -> None:
    # mean 1.5 and standard deviation sqrt(1.25), in units of log 2
    rows = rows_of(measured({"recency_days": DOUBLING}))
    assert rows[:, 0] == pytest.approx(np.array([-1.5, -0.5, 0.5, 1.5]) / np.sqrt(1.25))


def test_shares_and_ranks_are_not_logged() -> None:
    # mean 0.5, standard deviation sqrt((0.25 + 0.25 + 0 + 0) / 4)
    for name in ("click_through", "conversion", "price_level"):
        rows = rows_of(measured({name: [0.0, 1, 0.5, 0.5]}))
        assert rows[:, 0] == pytest.approx(np.array([-0.5, 0.5, 0, 0]) / np.sqrt(0.125))


def test_minmax_ends_at_0_and_1() -> None:
    rows = rows_of(measured({"views": DOUBLING}), scaling="minmax")
    assert rows[:, 0] == pytest.approx([0, 1 / 3, 2 / 3, 1])


def test_robust_scaling_goes_by_median_and_quartiles() -> None:
    # median 1.5, quartiles 0.75 and 2.25, in units of log 2; a normal distribution has 1.349 deviations between them
    rows = rows_of(measured({"views": DOUBLING}), scaling="robust")
    assert rows[:, 0] == pytest.approx(np.array([-1.5, -0.5, 0.5, 1.5]) / (1.5 / 1.349))


def test_robust_scaling_of_what_most_users_have_alike_falls_back_to_the_standard_deviation() -> None:
    values = [0.0] * 8 + [1.0, 1.0]
    rows = rows_of(measured({"click_through": values}), scaling="robust")
    assert rows[:, 0] == pytest.approx(np.array(values) / 0.4)  # sqrt(0.2 * 0.8)


def test_who_never_bought_spends_nothing_an_order_and_else_a_missing_value_is_the_median() -> None:
    step = {
        step.feature: step
        for step in fit(measured({"average_spend": [None, None, 9, 99], "price_level": [None, 0.1, 0.5, 0.6]})).numeric
    }
    assert step["average_spend"].fill == 0
    assert step["price_level"].fill == 0.5
    rows = rows_of(measured({"average_spend": [None, 0, 9, 99]}))
    assert rows[0, 0] == rows[1, 0]


def test_a_value_far_out_is_drawn_to_the_bound_unless_winsorising_is_off() -> None:
    values = [*np.linspace(0.2, 0.4, 299).tolist(), 50.0]
    features = measured({"click_through": values})
    drawn, free = rows_of(features)[:, 0], rows_of(features, winsorise=False)[:, 0]
    assert drawn.max() < 5
    assert free.max() > 15
    # Quartiles about 0.25 and 0.35: nothing from 0.1 to 0.5 is drawn in.
    step = fit(features).numeric[0]
    assert (step.low, step.high) == (pytest.approx(0.1, abs=0.01), pytest.approx(0.5, abs=0.01))


def test_the_tenth_of_the_users_who_buy_is_not_flattened_by_the_others_who_do_not() -> None:
    features = measured({"purchases_per_month": [0.0] * 90 + [float(i) for i in range(1, 11)]})
    step = fit(features).numeric[0]
    assert step.high == pytest.approx(9)  # the hundredth user is beyond both the fence, 0, and the outer half percent
    rows = rows_of(features)[90:, 0]
    assert (np.diff(rows[:9]) > 0).all()
    assert rows[9] == rows[8]


def test_a_feature_in_which_next_to_nobody_differs_is_left_out_and_it_is_said_how_few() -> None:
    features = measured({"views": DOUBLING * 100, "add_to_carts": [0.0] * 399 + [5.0]})
    found = fit(features)
    assert [step.feature for step in found.numeric] == ["views"]
    assert found.left_out["add_to_carts"] == "the same for all but 1 of 400 users"
    assert "add_to_carts" not in fit(features, winsorise=False).left_out


def test_what_is_constant_or_absent_is_left_out_with_the_reason() -> None:
    features = measured(
        {"views": DOUBLING, "conversion": [0.3] * 4, "session_duration": [None] * 4},
        absent={"purchases": "no purchase was recorded", "price_level": "no price is known"},
    )
    left_out = fit(features).left_out
    assert left_out["conversion"] == "constant"
    assert left_out["session_duration"] == "no user has a value"
    assert left_out["average_spend"] == "no purchase was recorded"
    assert left_out["price_level"] == "no price is known"
    assert left_out["recency_days"] == "the data have no such column"


def test_without_a_choice_the_shipped_features_that_are_there_are_taken() -> None:
    assert set(DEFAULT_FEATURES) <= {feature.name for feature in FEATURES}
    features = measured(dict.fromkeys([*DEFAULT_FEATURES, "spend", "tenure_days"], DOUBLING))
    assert [step.feature for step in fit(features).numeric] == list(DEFAULT_FEATURES)
    assert fit(features).left_out == {}


def test_the_chosen_features_are_taken_once_each_in_the_order_of_the_choice() -> None:
    features = measured({"views": DOUBLING, "spend": DOUBLING}, {"device": ["a", "b", "a", "b"]})
    found = fit(features, features=("spend", "device", "views", "spend"))
    assert [step.feature for step in found.numeric] == ["spend", "views"]
    assert [step.trait for step in found.categorical] == ["device"]


def test_a_feature_that_does_not_exist_is_refused_with_those_that_do() -> None:
    with pytest.raises(UnknownFeatureError, match="'shoe_size', which is not measured") as error:
        fit(measured({"views": DOUBLING}), features=("views", "shoe_size"))
    assert "recency_days" in error.value.cure
    assert "device" in error.value.cure


def test_a_share_that_this_data_has_not_is_absent_not_unknown() -> None:
    features = measured({"views": DOUBLING}, absent={"categories": "no event has a category"})
    left_out = fit(features, features=("views", "category_share", "category_share:Shoes", "age")).left_out
    assert left_out == {
        "category_share": "no event has a category",
        "category_share:Shoes": "no event has a category",
        "age": "the data have no such column",
    }


def test_nothing_left_to_cluster_by_is_an_error_with_every_reason() -> None:
    with pytest.raises(NoFeaturesError, match=r"4 users by, all 2 features.*views: constant.*spend: the data have no"):
        fit(measured({"views": [1.0] * 4}), features=("views", "spend"))


def test_the_columns_of_a_share_together_count_as_one_feature() -> None:
    shares = {f"hour_share:{hour:02}": [float(i == hour) for i in range(4)] for hour in range(4)}
    features = measured(shares | {"hour_share:04": [0.0] * 4, "click_through": [0.0, 1, 0, 1]})
    found = fit(features, features=("hour_share", "click_through"))
    assert [step.weight for step in found.numeric] == [0.5] * 4 + [1.0]  # four of five columns are not constant
    rows = transform(found, features.table, features.traits)
    squared = ((rows[:, None, :4] - rows[None, :, :4]) ** 2).sum(axis=2)
    assert squared.sum() / 16 == pytest.approx(2)  # of two users drawn at random, as of any standardised column


def test_frequent_categories_have_a_column_and_the_others_share_one() -> None:
    devices: list[str | None] = ["phone"] * 5 + ["desktop"] * 3 + ["tablet"] + [None]
    features = measured({"views": DOUBLING * 2 + [0.0, 1.0]}, {"device": devices})
    found = fit(features, features=("device",), max_categories=2)
    assert found.categorical == [CategoricalStep("device", "Unknown", ["phone", "desktop"], rare=True)]
    rows = transform(found, features.table, features.traits)
    assert rows.tolist() == [[1, 0, 0]] * 5 + [[0, 1, 0]] * 3 + [[0, 0, 1]] * 2
    found = fit(features, features=("device",), min_category_share=0.3)
    assert found.categorical[0].categories == ["phone", "desktop"]
    found = fit(features, features=("device",))
    assert found.categorical[0].categories == ["phone", "desktop", "Unknown", "tablet"]  # equals in order of the name
    assert not found.categorical[0].rare


def test_a_category_never_seen_is_rare_or_none() -> None:
    features = measured({}, {"device": ["phone", "phone", "desktop", "tv"]})
    later = measured({}, {"device": ["watch"]})
    with_rare = fit(features, features=("device",), max_categories=2)
    assert transform(with_rare, later.table, later.traits).tolist() == [[0, 0, 1]]
    without = fit(features, features=("device",))
    assert transform(without, later.table, later.traits).tolist() == [[0, 0, 0]]


def test_a_trait_that_everybody_has_alike_or_differently_is_left_out() -> None:
    features = measured({"views": DOUBLING}, {"country": ["DE"] * 4, "location": ["a", "b", "c", "d"]})
    left_out = fit(features, features=("views", "country", "location"), min_category_share=0.5).left_out
    assert left_out == {"country": "constant", "location": "none of its 4 categories is frequent enough"}


def test_a_trait_that_is_a_number_becomes_one_column() -> None:
    features = measured({}, {"age": [20.0, 40.0, None, 30.0], "signup_days": [0.0, 1.0, 3.0, 7.0]})
    age, signup = fit(features, features=("age", "signup_days")).numeric
    assert (age.fill, age.log) == (30, False)
    assert signup.log


def test_two_users_of_different_devices_are_no_further_apart_than_the_ends_of_a_range() -> None:
    features = measured({"views": DOUBLING}, {"device": ["a", "b", "a", "b"]})
    rows = rows_of(features, features=("views", "device"), scaling="minmax")
    assert ((rows[0] - rows[3]) ** 2).tolist() == pytest.approx([1, 0.5, 0.5])


def test_users_who_do_not_count_are_transformed_but_change_nothing() -> None:
    values, devices = [0.0, 1, 3, 7], ["a", "b", "a", "b"]
    alone = fit(measured({"views": values}, {"device": devices}), features=("views", "device"))
    features = measured({"views": [*values, 9e5]}, {"device": [*devices, "bot"]})
    among = np.array([True] * 4 + [False])
    found = fit_preprocessing(features, BehaviourSettings(features=("views", "device")), among)
    assert found == alone
    assert transform(found, features.table, features.traits).shape == (5, 3)


def test_a_column_that_is_gone_later_is_filled() -> None:
    found = fit(measured({"views": DOUBLING, "spend": DOUBLING}), features=("views", "spend"))
    later = measured({"spend": [3.0]})
    [[views, _]] = transform(found, later.table, later.traits).tolist()
    assert views == pytest.approx(0, abs=0.3)  # the median of 0, 1, 3 and 7 is 2, next to the mean of the logarithms


def test_a_fitted_pipeline_survives_json() -> None:
    found = fit(measured({"views": DOUBLING}, {"device": ["a", "b", "a", "b"]}), features=("views", "device", "spend"))
    stored = json.loads(json.dumps(asdict(found)))
    steps = [NumericStep(**step) for step in stored["numeric"]], [CategoricalStep(**s) for s in stored["categorical"]]
    assert Preprocessing(*steps, stored["left_out"]) == found


anything = st.one_of(st.none(), st.floats(), st.floats(0, 100), st.sampled_from([0.0, 0.0, 1.0, 1e300, -5.0]))
tables = st.integers(2, 25).flatmap(
    lambda n: st.tuples(
        st.lists(anything, min_size=n, max_size=n),
        st.lists(anything, min_size=n, max_size=n),
        st.lists(st.sampled_from(["a", "b", "c", "", None]), min_size=n, max_size=n),
    )
)
CHOSEN = ("views", "click_through", "device")
scalings = st.sampled_from(["standard", "minmax", "robust"])


@given(tables, scalings, st.booleans())
@settings(deadline=None, max_examples=150)
def test_rows_are_finite_and_a_user_alone_gets_the_same_bits_as_among_all(
    columns: tuple[list, list, list], scaling: str, winsorise: bool
) -> None:
    features = measured({"views": columns[0], "click_through": columns[1]}, {"device": columns[2]})
    try:
        found = fit(features, features=CHOSEN, scaling=scaling, winsorise=winsorise)
    except NoFeaturesError:
        return
    rows = transform(found, features.table, features.traits)
    assert rows.dtype == np.float64
    assert np.isfinite(rows).all()
    assert np.isfinite((rows**2).sum())
    for i in range(len(rows)):
        alone = transform(found, features.table.slice(i, 1), features.traits.slice(i, 1))
        assert alone.tobytes() == rows[i].tobytes()


@given(tables, scalings, st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=75)
def test_the_order_of_the_users_does_not_change_a_bit(
    columns: tuple[list, list, list], scaling: str, chance: object
) -> None:
    order = list(range(len(columns[0])))
    chance.shuffle(order)
    found = []
    for places in (range(len(order)), order):
        views, clicks, devices = ([column[i] for i in places] for column in columns)
        features = measured({"views": views, "click_through": clicks}, {"device": devices})
        try:
            found.append(fit(features, features=CHOSEN, scaling=scaling))
        except NoFeaturesError:
            found.append(None)
    assert found[0] == found[1]


def test_many_users_alone_or_among_all_have_the_same_bits() -> None:
    """Long enough for whatever a processor computes several at a time."""
    values = np.random.default_rng(1).lognormal(size=1_003).tolist()
    features = measured({"views": values, "spend": values[::-1]})
    found = fit(features, features=("views", "spend"))
    rows = transform(found, features.table, features.traits)
    for i in range(0, 1_003, 59):
        assert transform(found, features.table.slice(i, 1), features.traits.slice(i, 1)).tobytes() == rows[i].tobytes()
