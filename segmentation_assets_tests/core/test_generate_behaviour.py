"""The behaviour in the generated log: repeatable, consistent within itself, and of personas that differ as named."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from statistics import mean, median

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segmentation_assets.core import generate_behaviour as behaving
from segmentation_assets.core.details import EVENT_TYPES, columns, find
from segmentation_assets.core.generate import Generated, generate_sessions
from segmentation_assets.core.moments import parse_timestamp
from segmentation_assets.core.sessions import check_document
from segmentation_assets.core.users.attributes import ATTRIBUTES_SCHEMA, CheckedAttributes, check_attributes

END = datetime(2025, 6, 1, 12, tzinfo=UTC)
LOYAL, SENSITIVE, BROWSER, SPENDER, MISSION = (persona.name for persona in behaving.PERSONAS)
OPTIONAL = {"duration", "device", "country", "region", "referrer"}


@pytest.fixture(scope="module")
def log() -> Generated:
    return generate_sessions(20_000, 42, END, behaviour=True, sessions_per_user=10)


@pytest.fixture(scope="module")
def documents(log: Generated) -> list[dict]:
    return list(log.documents)


@pytest.fixture(scope="module")
def personas(log: Generated) -> dict[str, str]:
    users = log.truth.users
    return dict(zip(users["user_id"].to_pylist(), users["persona"].to_pylist(), strict=True))


@pytest.fixture(scope="module")
def users(documents: list[dict], personas: dict[str, str]) -> dict[str, list[list[dict]]]:
    """For each persona the sessions of each of its users."""
    by_user: dict[str, list[dict]] = defaultdict(list)
    for document in documents:
        by_user[document["user_id"]].append(document)
    groups: dict[str, list[list[dict]]] = defaultdict(list)
    for user, sessions in by_user.items():
        groups[personas[user]].append(sessions)
    return groups


@given(
    n=st.integers(0, 300),
    seed=st.integers(0, 2**63),
    days=st.integers(1, 400),
    mean_sessions=st.none() | st.floats(1, 60),
    bots=st.sampled_from([0.0, 0.3]),
)
@settings(max_examples=40, deadline=None)
def test_any_log_with_behaviour_is_whole_and_lies_within_its_window(
    n: int, seed: int, days: int, mean_sessions: float | None, bots: float
) -> None:
    made = generate_sessions(n, seed, END, days, behaviour=True, sessions_per_user=mean_sessions, bots=bots)
    documents = list(made.documents)
    assert len(documents) == len({d["session_id"] for d in documents}) == n
    begins = [parse_timestamp(d["timestamp"]) for d in documents]
    assert begins == sorted(begins)
    for document, begin in zip(documents, begins, strict=True):
        assert isinstance(check_document(document, END), tuple)
        assert END - timedelta(days=days) <= begin
        moments = [parse_timestamp(event["timestamp"]) for event in document["events"]]
        assert moments[0] == begin
        assert moments == sorted(moments)
        assert moments[-1] <= END
        if "duration" in document:
            assert moments[-1] <= begin + timedelta(seconds=document["duration"]) <= END
    assert set(made.truth.users["persona"].to_pylist()) <= {*(p.name for p in behaving.PERSONAS), behaving.BOT.name}


def test_the_same_seed_gives_the_same_behaviour_truth_and_attributes(log: Generated, documents: list[dict]) -> None:
    again = generate_sessions(20_000, 42, END, behaviour=True, sessions_per_user=10)
    assert list(again.documents) == documents
    assert again.truth.users.equals(log.truth.users)
    assert list(again.attributes) == list(log.attributes)


def test_another_seed_gives_other_behaviour() -> None:
    one, two = ([d["events"] for d in generate_sessions(300, seed, END, behaviour=True).documents] for seed in (1, 2))
    assert not {json.dumps(events) for events in one} & {json.dumps(events) for events in two}


@pytest.mark.parametrize("at_once", [7, 1_000])
def test_how_many_sessions_are_made_at_a_time_changes_nothing(monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    whole = list(generate_sessions(3_000, 5, END, behaviour=True, bots=0.02).documents)
    monkeypatch.setattr(behaving, "AT_ONCE", at_once)
    assert list(generate_sessions(3_000, 5, END, behaviour=True, bots=0.02).documents) == whole


def test_every_user_has_a_persona_and_the_personas_have_their_shares(personas: dict[str, str]) -> None:
    shares = {name: count / len(personas) for name, count in Counter(personas.values()).items()}
    assert shares == pytest.approx({persona.name: persona.share for persona in behaving.PERSONAS}, abs=0.003)


def test_the_truth_never_shows_in_the_documents(documents: list[dict]) -> None:
    allowed = {"session_id", "user_id", "search_query", "clicked_product_ids", "timestamp", "events", *OPTIONAL}
    assert {name for document in documents for name in document} == allowed
    text = json.dumps(documents)
    assert not any(persona.name in text for persona in behaving.PERSONAS)


def test_the_personas_have_the_tastes_of_everybody_but_the_price_sensitive_hunt_bargains(log: Generated) -> None:
    people = log.truth.users.to_pylist()
    assert mean(row["taste"] == "bargains" for row in people) == pytest.approx(0.235, abs=0.01)
    hunters = {
        name: mean(r["taste"] == "bargains" for r in people if r["persona"] == name) for name in (SENSITIVE, LOYAL)
    }
    assert hunters[SENSITIVE] > 2 * hunters[LOYAL]
    for name in (LOYAL, BROWSER, SPENDER, MISSION):
        tastes = Counter(row["taste"] for row in people if row["persona"] == name)
        assert tastes["electronics"] / tastes.total() == pytest.approx(0.29, abs=0.06)


@pytest.mark.parametrize("sessions_per_user", [1, 3, 15])
def test_users_have_as_many_sessions_on_average_as_asked_for(sessions_per_user: float) -> None:
    made = generate_sessions(30_000, 3, END, behaviour=True, sessions_per_user=sessions_per_user)
    assert 30_000 / len(made.truth.users) == pytest.approx(sessions_per_user, rel=0.04)


# --- events -----------------------------------------------------------------------------------------------------------


def test_every_detail_can_be_used(documents: list[dict]) -> None:
    table = columns(find(documents), len(documents))
    assert set(table.column_names) == {"events", *OPTIONAL}  # none dropped
    assert len(table["events"].combine_chunks().flatten()) == sum(1 for _ in _events(documents))


def test_each_session_begins_with_one_search_and_its_clicks_are_those_of_the_document(documents: list[dict]) -> None:
    for document in documents:
        kinds = [event["event_type"] for event in document["events"]]
        assert kinds[0] == "search"
        assert kinds.count("search") == 1
        clicks = [event["product_id"] for event in document["events"] if event["event_type"] == "click"]
        assert clicks == document["clicked_product_ids"]
    assert {e["event_type"] for e in _events(documents)} == set(EVENT_TYPES) - {"impression"}


def test_only_what_was_looked_at_is_put_into_the_cart_and_only_that_is_ordered(documents: list[dict]) -> None:
    for document in documents:
        earlier: dict[str, set[str]] = defaultdict(set)
        for event in document["events"]:
            product = event.get("product_id")
            if event["event_type"] == "view":
                # A product that was clicked is looked at once, and so is one that was not.
                assert product not in earlier["view"]
            elif event["event_type"] == "add_to_cart":
                assert product in earlier["view"]
            elif event["event_type"] == "purchase":
                assert product in earlier["add_to_cart"]
            if product is not None:
                earlier[event["event_type"]].add(product)
        assert earlier["click"] <= earlier["view"]


def test_events_carry_what_belongs_to_them(documents: list[dict]) -> None:
    common = {"event_type", "timestamp"}
    product = common | {"product_id", "category", "price"}
    expected = {
        "search": common,
        "click": product,
        "view": product,
        "add_to_cart": product | {"quantity"},
        "purchase": product | {"quantity", "transaction_id"},
    }
    for event in _events(documents):
        assert set(event) == expected[event["event_type"]]
        assert event.get("price", 1) > 0
        assert event.get("quantity", 1) in (1, 2)


def test_an_order_is_one_transaction_of_one_moment_and_may_hold_several_things(documents: list[dict]) -> None:
    orders: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for document in documents:
        for event in document["events"]:
            if event["event_type"] == "purchase":
                orders[event["transaction_id"]].append((document["session_id"], event["timestamp"]))
    assert orders
    assert all(len(set(places)) == 1 for places in orders.values())
    assert len({places[0][0] for places in orders.values()}) == len(orders)  # at most one order a session
    assert 0.02 < mean(len(places) > 1 for places in orders.values()) < 0.5


def test_a_product_has_one_price_and_one_category_always(documents: list[dict]) -> None:
    facts: dict[str, set[tuple[float, str]]] = defaultdict(set)
    for event in _events(documents):
        if "product_id" in event:
            facts[event["product_id"]].add((event["price"], event["category"]))
    assert len(facts) > 1_000
    assert all(len(fact) == 1 for fact in facts.values())
    elsewhere = generate_sessions(2_000, 7, END, behaviour=True).documents
    for event in _events(elsewhere):
        if event.get("product_id") in facts:
            assert facts[event["product_id"]] == {(event["price"], event["category"])}


def test_prices_are_those_of_the_type_of_product(documents: list[dict]) -> None:
    seen: dict[str, list[float]] = defaultdict(list)
    for document in documents:
        for event in document["events"]:
            if event["event_type"] == "click":
                seen[document["search_query"]].append(event["price"])
    cables, laptops, sofas, mugs = (
        median(price for query, prices in seen.items() if word in query for price in prices)
        for word in ("usb cable", "laptop", "sofa", "mug")
    )
    assert 4 < cables < 25 < 400 < laptops < 1_500
    assert 6 < mugs < 30 < 350 < sofas < 1_500
    assert all(price == round(price, 2) for prices in seen.values() for price in prices)


def test_what_is_ordered_fits_what_was_searched_for(log: Generated, documents: list[dict]) -> None:
    fits = []
    for document, meant in zip(documents, log.truth.sessions["category"].to_pylist(), strict=True):
        if meant is not None:
            fits += [e["category"] == meant for e in document["events"] if e["event_type"] == "purchase"]
    assert len(fits) > 1_000
    assert mean(fits) > 0.95
    assert mean(fits) < 1  # now and then something else catches the eye


def test_orders_follow_the_users_taste(log: Generated, documents: list[dict]) -> None:
    taste = dict(zip(log.truth.users["user_id"].to_pylist(), log.truth.users["taste"].to_pylist(), strict=True))
    bought = Counter(
        (taste[d["user_id"]], e["category"]) for d in documents for e in d["events"] if e["event_type"] == "purchase"
    )
    for wanted in ("electronics", "fashion", "home", "sport", "beauty"):
        counts = {category: count for (own, category), count in bought.items() if own == wanted}
        assert counts[wanted] / sum(counts.values()) > 0.75


def test_some_details_were_not_recorded(documents: list[dict]) -> None:
    missing = {name: mean(name not in document for document in documents) for name in OPTIONAL - {"referrer"}}
    assert missing == pytest.approx({"duration": 0.03, "device": 0.02, "country": 0.02, "region": 0.05}, abs=0.006)
    assert {d["device"] for d in documents if "device" in d} == set(behaving.DEVICES)
    assert all("country" in d for d in documents if "region" in d)
    assert 0.2 < mean("referrer" not in d for d in documents) < 0.8  # nobody sent them
    assert all(None not in d.values() for d in documents)


def test_users_stay_in_their_country_and_mostly_on_one_device(documents: list[dict]) -> None:
    countries: dict[str, set[str]] = defaultdict(set)
    devices: dict[str, list[str]] = defaultdict(list)
    for document in documents:
        if "country" in document:
            countries[document["user_id"]].add(document["country"])
        if "device" in document:
            devices[document["user_id"]].append(document["device"])
    assert all(len(names) == 1 for names in countries.values())
    often = [Counter(names).most_common(1)[0][1] / len(names) for names in devices.values() if len(names) >= 10]
    assert mean(often) > 0.8


# --- personas ---------------------------------------------------------------------------------------------------------


def test_loyal_enthusiasts_come_most_buy_most_and_spend_most(users: dict[str, list[list[dict]]]) -> None:
    visits = {name: mean(len(sessions) for sessions in people) for name, people in users.items()}
    orders = {name: mean(sum(map(_orders, sessions)) for sessions in people) for name, people in users.items()}
    spent = {name: mean(sum(map(_spent, sessions)) for sessions in people) for name, people in users.items()}
    for measure in (visits, orders, spent):
        assert max(measure, key=measure.get) == LOYAL
    since = {
        name: median((END - parse_timestamp(sessions[-1]["timestamp"])).days for sessions in people)
        for name, people in users.items()
    }
    assert min(since, key=since.get) == LOYAL


def test_price_sensitive_shoppers_look_at_much_compare_in_the_cart_and_buy_cheap(
    users: dict[str, list[list[dict]]],
) -> None:
    carts = {name: _each_session(people, "add_to_cart") for name, people in users.items()}
    assert max(carts, key=carts.get) == SENSITIVE
    views = {name: _each_session(people, "view") for name, people in users.items()}
    assert set(sorted(views, key=views.get)[-2:]) == {SENSITIVE, BROWSER}
    paid = {name: median(_paid(people)) for name, people in users.items() if name != BROWSER}
    assert min(paid, key=paid.get) == SENSITIVE
    cheapest = {}
    for name in (SENSITIVE, LOYAL):
        compared = [
            session for sessions in users[name] for session in sessions if _orders(session) and _carted(session) > 1
        ]
        cheapest[name] = mean(
            {e["price"] for e in s["events"] if e["event_type"] == "purchase"}
            == {min(e["price"] for e in s["events"] if e["event_type"] == "add_to_cart")}
            for s in compared
        )
    assert cheapest[SENSITIVE] > 0.75
    assert cheapest[LOYAL] < 0.5


def test_window_browsers_look_and_hardly_ever_buy(users: dict[str, list[list[dict]]]) -> None:
    orders = {name: mean(_orders(s) for sessions in people for s in sessions) for name, people in users.items()}
    assert min(orders, key=orders.get) == BROWSER
    assert orders[BROWSER] < 0.03
    assert _each_session(users[BROWSER], "view") > 1.3 * _each_session(users[LOYAL], "view")
    clicks = {
        name: mean(bool(s["clicked_product_ids"]) for sessions in people for s in sessions)
        for name, people in users.items()
    }
    assert min(clicks, key=clicks.get) == BROWSER


def test_occasional_big_spenders_come_rarely_and_pay_most(users: dict[str, list[list[dict]]]) -> None:
    everybody = [sessions for people in users.values() for sessions in people]
    assert mean(map(len, users[SPENDER])) < 0.7 * mean(map(len, everybody))
    paid = {name: median(_paid(people)) for name, people in users.items()}
    assert max(paid, key=paid.get) == SPENDER
    devices = {
        name: mean(s.get("device") == "desktop" for sessions in people for s in sessions)
        for name, people in users.items()
    }
    assert max(devices, key=devices.get) == SPENDER


def test_mission_buyers_come_least_stay_shortly_and_mostly_buy(users: dict[str, list[list[dict]]]) -> None:
    visits = {name: mean(map(len, people)) for name, people in users.items()}
    stays = {
        name: mean(s["duration"] for sessions in people for s in sessions if "duration" in s)
        for name, people in users.items()
    }
    orders = {name: mean(_orders(s) for sessions in people for s in sessions) for name, people in users.items()}
    assert min(visits, key=visits.get) == MISSION
    assert min(stays, key=stays.get) == MISSION
    assert max(orders, key=orders.get) == MISSION
    assert orders[MISSION] > 0.4
    hours = [parse_timestamp(s["timestamp"]).hour for sessions in users[MISSION] for s in sessions]
    late = [parse_timestamp(s["timestamp"]).hour for sessions in users[BROWSER] for s in sessions]
    assert mean(8 <= hour < 16 for hour in hours) > mean(8 <= hour < 16 for hour in late) + 0.1


def test_users_of_a_persona_differ_and_so_do_their_sessions(users: dict[str, list[list[dict]]]) -> None:
    for people in users.values():
        counts = [len(sessions) for sessions in people]
        assert np.std(counts) > 0.2 * np.mean(counts)
        stays = [[s["duration"] for s in sessions if "duration" in s] for sessions in people]
        assert all(len(set(own)) > 1 for own in stays if len(own) > 3)
    browsed = [sum(map(_orders, sessions)) for sessions in users[BROWSER]]
    assert 0 < mean(map(bool, browsed)) < 0.3  # a few of those who only look do buy


def test_what_users_do_tells_their_personas_after_many_visits_and_not_after_one() -> None:
    from sklearn.cluster import KMeans
    from sklearn.metrics import adjusted_rand_score
    from sklearn.preprocessing import StandardScaler

    def found(sessions_per_user: int) -> float:
        made = generate_sessions(1_500 * sessions_per_user, 1, END, behaviour=True, sessions_per_user=sessions_per_user)
        rows: dict[str, list[tuple[float, ...]]] = defaultdict(list)
        for session in made.documents:
            prices = [event["price"] for event in session["events"] if "price" in event]
            rows[session["user_id"]].append(
                (
                    _orders(session),
                    bool(session["clicked_product_ids"]),
                    session.get("duration", 150.0),
                    sum(event["event_type"] == "view" for event in session["events"]),
                    _carted(session),
                    np.mean(np.log(prices)) if prices else 4.0,
                    _spent(session),
                )
            )
        table = np.array([[len(own), *np.mean(own, axis=0)] for own in rows.values()])
        table[:, [0, 3, 4, 5, 7]] = np.log1p(table[:, [0, 3, 4, 5, 7]])
        labels = KMeans(5, n_init=5, random_state=0).fit_predict(StandardScaler().fit_transform(table))
        truth = dict(zip(*(made.truth.users[name].to_pylist() for name in ("user_id", "persona")), strict=True))
        return adjusted_rand_score([truth[user] for user in rows], labels)

    assert found(20) > 0.8
    assert found(1) < 0.3


# --- bots -------------------------------------------------------------------------------------------------------------


def test_bots_come_only_when_asked_for_and_repeat_one_query_hundreds_of_times_within_an_hour(
    personas: dict[str, str],
) -> None:
    assert "bot" not in personas.values()
    made = generate_sessions(20_000, 1, END, behaviour=True, bots=0.01)
    truth = dict(zip(*(made.truth.users[name].to_pylist() for name in ("user_id", "persona")), strict=True))
    machines: dict[str, list[dict]] = defaultdict(list)
    for document in made.documents:
        if truth[document["user_id"]] == "bot":
            machines[document["user_id"]].append(document)
    assert len(machines) / len(truth) == pytest.approx(0.01, abs=0.003)
    whole = [sessions for sessions in machines.values() if len(sessions) >= behaving.BOT_SESSIONS[0]]
    assert len(whole) >= len(machines) - 1  # the last user of the log loses what is too many
    for sessions in whole:
        times = [parse_timestamp(session["timestamp"]) for session in sessions]
        assert times[-1] - times[0] < timedelta(hours=1.2)
        assert len({session["search_query"] for session in sessions}) == 1
        assert not any(map(_orders, sessions))
    assert not {record["user_id"] for record in made.attributes} & set(machines)


# --- attributes -------------------------------------------------------------------------------------------------------


def test_most_users_have_an_account_that_is_older_than_their_first_session(
    log: Generated, documents: list[dict], personas: dict[str, str]
) -> None:
    first: dict[str, datetime] = {}
    for document in documents:
        first.setdefault(document["user_id"], parse_timestamp(document["timestamp"]))
    records = list(log.attributes)
    known = [record["user_id"] for record in records]
    assert len(known) == len(set(known))
    assert 0.7 < len(known) / len(personas) < 0.95
    for record in records:
        checked = check_attributes(record, END)
        assert isinstance(checked, CheckedAttributes)
        assert not checked.dropped
        assert set(record) <= set(ATTRIBUTES_SCHEMA.names)
        signup = parse_timestamp(record["signup_date"])
        assert signup < first[record["user_id"]]
        if "subscription_date" in record:
            assert signup <= parse_timestamp(record["subscription_date"]) <= END
        assert 18 <= record.get("age", 18) <= 88
        assert record.get("gender", "other") in behaving.GENDERS
    for name, share in {"age": 0.12, "gender": 0.08, "location": 0.05}.items():
        assert mean(name not in record for record in records) == pytest.approx(share, abs=0.03)


def test_loyal_users_subscribe_and_one_visit_shoppers_are_often_guests(
    log: Generated, personas: dict[str, str]
) -> None:
    records = {record["user_id"]: record for record in log.attributes}
    known = {
        name: mean(user in records for user, persona in personas.items() if persona == name)
        for name in (LOYAL, MISSION)
    }
    assert known[LOYAL] > 0.95
    assert known[MISSION] < 0.7
    subscribed = {
        name: mean("subscription_date" in record for user, record in records.items() if personas[user] == name)
        for name in (LOYAL, SENSITIVE, BROWSER, SPENDER, MISSION)
    }
    assert max(subscribed, key=subscribed.get) == LOYAL
    assert subscribed[LOYAL] > 0.5
    assert min(subscribed, key=subscribed.get) == MISSION


def test_users_live_where_they_search_from(log: Generated, documents: list[dict]) -> None:
    located = {record["user_id"]: record["location"] for record in log.attributes if "location" in record}
    agree = [
        f"{d['region']}, {d['country']}" == located[d["user_id"]]
        for d in documents
        if "region" in d and d["user_id"] in located
    ]
    assert 0.94 < mean(agree) < 1


def _events(documents: Iterator[dict] | list[dict]) -> Iterator[dict]:
    return (event for document in documents for event in document["events"])


def _orders(session: dict) -> bool:
    return any(event["event_type"] == "purchase" for event in session["events"])


def _carted(session: dict) -> int:
    return sum(event["event_type"] == "add_to_cart" for event in session["events"])


def _spent(session: dict) -> float:
    return sum(event["price"] * event["quantity"] for event in session["events"] if event["event_type"] == "purchase")


def _paid(people: list[list[dict]]) -> list[float]:
    """Prices of all that was bought."""
    return [
        event["price"]
        for sessions in people
        for session in sessions
        for event in session["events"]
        if event["event_type"] == "purchase"
    ]


def _each_session(people: list[list[dict]], kind: str) -> float:
    return mean(
        sum(event["event_type"] == kind for event in session["events"]) for sessions in people for session in sessions
    )
