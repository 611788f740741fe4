"""Everything that the report is made of, made up: users of five kinds, for the tests of pictures and page.

What belongs here: synthetic results. What does not: tests.
"""

from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from segmentation_assets.core import plots
from segmentation_assets.core.churn import Churn, Flow
from segmentation_assets.core.labels import LabeledSegments, Taxonomy, label, summarize
from segmentation_assets.core.model import fit
from segmentation_assets.core.quality import CheckOutcome
from segmentation_assets.core.report.page import ReportData
from segmentation_assets.core.sessions import Intake, SessionBuilder
from segmentation_assets.core.settings import ClusterSettings, LabelSettings, VectorSettings
from segmentation_assets.core.users.attributes import AttributesAccount
from segmentation_assets.core.users.behaviour import BehaviourModel, Stability
from segmentation_assets.core.users.cleaning import CleaningAccount
from segmentation_assets.core.users.features import UserFeatures
from segmentation_assets.core.users.imputation import Imputation
from segmentation_assets.core.users.personas import NOISE_NAME, Persona, Personas, Trait
from segmentation_assets.core.users.preprocessing import Preprocessing
from segmentation_assets.core.users.rules import Overlap, RuleReport, RuleSegments
from segmentation_assets.core.users.scores import SCORES_SCHEMA, UserScores
from segmentation_assets.core.vectorize import vectorize

START = datetime(2025, 3, 1, tzinfo=UTC)
END = datetime(2025, 5, 30, 18, 30, tzinfo=UTC)
NAMES = ("Window Browsers", "Loyal Enthusiasts", "Price-Sensitive Shoppers", "Occasional Big Spenders", "Newcomers")
SHARES = (0.34, 0.22, 0.2, 0.13, 0.09, 0.02)
QUERIES = (
    ("running shoes", "trail shoes", "red dress", "summer dress"),
    ("gaming laptop", "usb c dock", "mechanical keyboard", "4k monitor", "noise cancelling headphones"),
    ("cheap phone case", "clearance tv", "discount sneakers", "tv under 200"),
    ("leather sofa", "espresso machine", "oak dining table"),
    ("gift card", "birthday gift", "store near me"),
)
SEGMENTS = ("fashion_oriented", "tech_enthusiast", "budget_buyer", "home_and_garden", "other")


def user_ids(n: int) -> pa.Array:
    return pa.array([f"private-user-{number:05}" for number in range(n)])


def clusters(n: int) -> NDArray[np.int32]:
    """(n,) ids 0, 1, 2, 3, 7 and -1, in ``SHARES``, shuffled."""
    ids = np.array([0, 1, 2, 3, 7, -1], np.int32)
    bounds = (np.cumsum(SHARES) * n).round().astype(int)
    return np.random.default_rng(5).permutation(ids[np.searchsorted(bounds, np.arange(n), side="right").clip(0, 5)])


def make_features(labels: NDArray[np.int32]) -> UserFeatures:
    random = np.random.default_rng(7)
    n = len(labels)
    kind = np.searchsorted([0, 1, 2, 3, 7], labels.clip(0))

    def around(*means: float) -> NDArray[np.float64]:
        return random.gamma(2.0, np.array(means)[kind] / 2.0, n)

    purchases = random.poisson(np.array([0.1, 6.0, 2.0, 1.2, 0.6])[kind]).astype(np.float64)
    spend = purchases * around(30, 60, 18, 420, 40)
    share = random.dirichlet([1.0, 2.0, 1.0], n)
    columns: dict[str, NDArray[np.float64]] = {
        "sessions": around(6, 22, 12, 4, 2).round() + 1,
        "sessions_per_week": around(0.8, 2.9, 1.4, 0.4, 1.1),
        "recency_days": around(20, 4, 12, 45, 3),
        "click_through": random.beta(2 + kind, 4, n),
        "views": around(40, 70, 30, 14, 6).round(),
        "purchases": purchases,
        "purchases_per_month": purchases / 3,
        "spend": spend,
        "average_spend": np.divide(spend, purchases, out=np.full(n, np.nan), where=purchases > 0),
        "price_level": random.beta(2, np.array([2, 2, 6, 1, 2])[kind], n),
        "category_share:Shoes": share[:, 0],
        "category_share:Electronics": share[:, 1],
        "category_share:other": share[:, 2],
    }
    users = user_ids(n)
    table = {"user_id": users}
    table |= {name: pa.array(values, pa.float64(), from_pandas=True) for name, values in columns.items()}
    noise = [["bot_rate"] if number % 97 == 5 else [] for number in range(n)]
    groups = {"visits": ["sessions", "sessions_per_week", "recency_days", "views"], "clicks": ["click_through"]}
    return UserFeatures(
        table=pa.table(table),
        traits=pa.table({"user_id": users, "device": pa.array(["mobile"] * n)}),
        groups=groups,
        absent={"carts": "no event puts a product into the cart", "duration": "no session has a duration"},
        outliers=pa.table(
            {"user_id": users, "feature": ["spend"] * n, "value": [9e3] * n, "low": [0.0] * n, "high": [700.0] * n}
        ).slice(0, 2),
        noise=pa.table({"user_id": users, "noise": pa.array(noise, pa.list_(pa.string()))}),
        start=START,
        end=END,
    )


def make_model(labels: NDArray[np.int32]) -> BehaviourModel:
    ids = np.array([0, 1, 2, 3, 7], np.int32)
    return BehaviourModel(
        version="0123456789abcdef",
        method="hdbscan",
        preprocessing=Preprocessing([], [], {"session_duration": "absent", "region": "constant"}),
        points=np.zeros((5, 3)),
        point_clusters=ids,
        reach=np.full(5, np.inf),
        cluster_ids=ids,
        next_id=8,
        users=user_ids(len(labels)),
        labels=labels,
        confidence=np.full(len(labels), 0.5, np.float32),
        sizes=[int((labels == cluster).sum()) for cluster in ids],
        noise=int((labels == -1).sum()),
        fitted_on=len(labels) - 5,
        stability=Stability(0.41, [0.86, 0.91, 0.88], 0.883),
        details={"eps": 0.8},
        previous_version="fedcba9876543210",
        kept=[0, 1, 2, 3],
    )


def make_rows(labels: NDArray[np.int32], dimensions: int = 6) -> NDArray[np.float64]:
    """Users as a clusterer may see them, each around the middle of its cluster."""
    random = np.random.default_rng(11)
    middles = random.normal(0, 2.2, (9, dimensions))
    return middles[labels] + random.normal(0, np.where(labels < 0, 3.0, 0.8)[:, None], (len(labels), dimensions))


def make_personas(labels: NDArray[np.int32]) -> Personas:
    sentences = (
        (
            Trait("views", 1.4, 41.0, 22.0, "Looks at 41 products; others at 22."),
            Trait("purchases_per_month", -1.1, 0.03, 0.9, "Places 0.03 orders a month; others 0.9."),
            Trait("click_through", -0.4, 0.3, 0.45, "Clicks on something in 30% of the sessions; others in 45%."),
        ),
        (
            Trait("purchases_per_month", 2.6, 2.0, 0.3, "Places 2.0 orders a month; others 0.3."),
            Trait("sessions_per_week", 1.3, 2.9, 0.9, "Comes 2.9 times a week; others 0.9 times."),
            Trait("recency_days", -0.9, 4.0, 18.0, "Was last seen 4 days ago; others 18 days ago."),
        ),
        (Trait("price_level", -1.2, 0.24, 0.55, "Looks at cheap products: price level 0.24; others 0.55."),),
        (
            Trait("average_spend", 3.1, 420.0, 35.0, "Spends 420 on an order; others 35."),
            Trait("recency_days", 1.1, 45.0, 11.0, "Was last seen 45 days ago; others 11 days ago."),
        ),
        (),
    )
    cards = []
    for place, cluster in enumerate([0, 1, 2, 3, 7]):
        users = int((labels == cluster).sum())
        mix = np.roll([0.62, 0.17, 0.11, 0.07, 0.03], place)
        statistics = {
            trait.feature: {
                "count": users, "mean": trait.mean, "std": 1.0, "min": 0.0, "q1": trait.mean / 2,
                "median": trait.mean * 0.8, "q3": trait.mean * 1.4, "max": trait.mean * 9,
            }
            for trait in sentences[place]
        }  # fmt: skip
        cards.append(
            Persona(
                cluster, NAMES[place], "rule" if place < 4 else None,
                [f"{trait.feature.replace('_', ' ')}: effect {trait.effect:+.1f}" for trait in sentences[place][:2]],
                users, users / len(labels), list(sentences[place]), statistics, list(QUERIES[place]),
                dict(sorted(zip(SEGMENTS, mix.tolist(), strict=True), key=lambda item: -item[1])),
            )
        )  # fmt: skip
    lost = int((labels == -1).sum())
    cards.append(Persona(-1, NOISE_NAME, None, [], lost, lost / len(labels), []))
    return Personas(cards, "0123456789abcdef")


def make_scores(features: UserFeatures) -> UserScores:
    def ranked(name: str, sign: int = 1) -> NDArray[np.float64]:
        values = sign * features.table[name].to_numpy()
        return (np.argsort(np.argsort(values, kind="stable")) + 0.5) / len(values)

    parts = [ranked("recency_days", -1), ranked("purchases"), ranked("spend")]
    scores = [np.ceil(part * 5).astype(np.int64) for part in parts]
    index = 100 * (0.3 * parts[0] + 0.4 * parts[1] + 0.3 * parts[2])
    tiers = np.array(["bronze", "silver", "gold", "platinum"])[np.searchsorted([40, 65, 85], index, side="right")]
    table = pa.table(
        [
            features.table["user_id"], *map(pa.array, scores),
            pa.array(["".join(map(str, row)) for row in zip(*scores, strict=True)]), pa.array(index), pa.array(tiers),
        ],
        schema=SCORES_SCHEMA,
    )  # fmt: skip
    return UserScores(table, {}, {"recency": 0.3, "frequency": 0.4, "monetary": 0.3}, "purchases")


def make_rules(n: int) -> RuleSegments:
    sizes = {
        "frequent_buyers": 0.12,
        "browsers": 0.31,
        "lapsed_customers": 0.2,
        "big_spenders": 0.06,
        "new_users": 0.09,
    }
    report = [RuleReport(name, int(share * n), share) for name, share in sizes.items()]
    report.append(RuleReport("cart_abandoners", 0, 0.0, "no event puts a product into the cart"))
    overlaps = [
        Overlap("browsers", "lapsed_customers", int(0.11 * n)),
        Overlap("frequent_buyers", "big_spenders", int(0.04 * n)),
        Overlap("browsers", "new_users", int(0.03 * n)),
    ]
    rules = pa.array([[] for _ in range(n)], pa.list_(pa.string()))
    return RuleSegments(pa.table({"user_id": user_ids(n), "rules": rules}), report, overlaps)


def make_segments(extra: str = "") -> tuple[pd.DataFrame, bytes, LabeledSegments]:
    """The summary, the map as SVG, and what both are made of; ``extra`` is a query that somebody typed, often."""
    taxonomy = Taxonomy.model_validate(
        {
            "segments": {
                "fashion_oriented": {"keywords": ["dress", "shoes", "sneakers"]},
                "tech_enthusiast": {"keywords": ["laptop", "keyboard", "monitor", "usb"]},
                "budget_buyer": {"keywords": ["cheap", "discount", "clearance"]},
                "home_and_garden": {"keywords": ["sofa", "espresso", "table"]},
            }
        }
    )
    random = np.random.default_rng(3)
    builder = SessionBuilder(END)
    words = ("", "new ", "best ", "blue ", "black ", "used ", "kids ", "mens ")
    for number in range(900):
        kind = min(number % 9 // 2, 4)
        query = words[random.integers(8)] + QUERIES[kind][random.integers(len(QUERIES[kind]))]
        if extra and number % 5 == 0:
            query = extra
        source = {"user_id": f"private-user-{number % 300:05}", "search_query": query, "timestamp": "2025-05-01"}
        builder.add(f"s{number:04}", source)
    sessions = builder.finish()
    tfidf = vectorize(sessions.table["search_query"], VectorSettings())
    model = fit(tfidf, sessions.user_numbers(), ClusterSettings(k=5))
    labeled = label(sessions, tfidf, model, taxonomy, LabelSettings())
    return summarize(labeled), plots.query_map(tfidf, model, labeled, 1, "svg"), labeled


def make_churn() -> Churn:
    flows = [
        Flow("fashion_oriented", "fashion_oriented", 3900), Flow("tech_enthusiast", "tech_enthusiast", 2610),
        Flow("budget_buyer", "budget_buyer", 1500), Flow("other", "other", 420),
        Flow("other", "home_and_garden", 380, 20, 360), Flow("fashion_oriented", "budget_buyer", 210, 190, 20),
        Flow("budget_buyer", "tech_enthusiast", 90, 80, 10),
    ]  # fmt: skip
    return Churn("fedcba", sum(flow.users for flow in flows), 640, 215, flows)


def make_report_data(n: int = 1_200, extra: str = "") -> ReportData:
    """A report with every part there."""
    labels = clusters(n)
    features = make_features(labels)
    summary, svg, _ = make_segments(extra)
    rows = make_rows(labels)
    return ReportData(
        generated_at=END + timedelta(hours=2),
        segments=summary,
        churn=make_churn(),
        query_map=svg,
        features=features,
        scores=make_scores(features),
        rules=make_rules(n),
        behaviour=make_model(labels),
        rows=rows,
        k_distances=np.sort(np.linalg.norm(rows, axis=1)) ** 2 / 20,
        eps=1.9,
        personas=make_personas(labels),
        cleaning=CleaningAccount(
            sessions_read=9_640,
            sessions_used=9_610,
            sessions_set_aside={"duplicate_session": 30},
            events_read=41_200,
            events_used=40_902,
            events_set_aside={"duplicate_event": 270, "duplicate_transaction": 28},
            imputations=[
                Imputation("duration", "median", 184.5, 811),
                Imputation("device", "unknown", "Unknown", 120),
                Imputation("referrer", "none", None, 0),
            ],
            absent=["region", "country"],
            noise={"bot_rate": 11, "internal_user": 2},
        ),
        attributes=AttributesAccount(
            1_400, 1_150, {"not_in_sessions": 248, "no user_id": 2}, {"age: not in 0..130": 9}, {"time-out": 14},
            ["the index user_attributes: 900 users", "the file crm.csv: 250 users"],
        ),
        intake=Intake(9_702, 9_640, {"empty query": 41, "no timestamp": 21}, {"empty query": ["private-user-doc-1"]}),
        checks=[
            CheckOutcome("sessions_accounted", True, "ERROR", {"read": 9702, "kept": 9640, "set_aside": 62}),
            CheckOutcome(
                "cluster_balance", False, "WARN", {"largest_share": 0.612, "max_largest_share": 0.6},
                "the largest cluster holds 61.2% of the sessions, over 60.0%",
            ),
            CheckOutcome("label_coverage", True, "WARN", {"labelled_share": 0.934, "min_labelled_share": 0.7}),
            CheckOutcome("user_churn", True, "ERROR", {"changed_share": 0.07, "max_changed_share": 0.3}),
        ],
    )  # fmt: skip
