"""The report as a page: what it says, what it says where a part is missing, and that nobody's text becomes code."""

import dataclasses
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from html.parser import HTMLParser
from itertools import pairwise

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from report_data import END, clusters, make_churn, make_features, make_model, make_report_data

from segmentation_assets.core import plots
from segmentation_assets.core.churn import Churn
from segmentation_assets.core.labels import ASSIGNMENT_SCHEMA, ClusterLabel, LabeledSegments
from segmentation_assets.core.quality import CheckOutcome
from segmentation_assets.core.report.page import SOURCES, ReportData, render
from segmentation_assets.core.report.picture import inline
from segmentation_assets.core.report.wording import (
    breakable,
    capitalised,
    count,
    day,
    moment,
    number,
    percent,
    sentence,
)
from segmentation_assets.core.sessions import Intake
from segmentation_assets.core.settings import PersonaSettings
from segmentation_assets.core.users.attributes import AttributesAccount
from segmentation_assets.core.users.cleaning import CleaningAccount
from segmentation_assets.core.users.imputation import Imputation
from segmentation_assets.core.users.personas import NameTable, Persona, Personas, Trait, describe
from segmentation_assets.core.users.rules import RuleReport, RuleSegments
from segmentation_assets.core.users.scores import SCORES_SCHEMA, UserScores

HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "{{ 7 * 7 }}{% raw %}",
    "javascript:alert(1)",
    "</style></title></svg><svg onload=alert(1)>",
    "<!-- --> ]]> &amp; url(#p1-a) https://example.org/x.png",
)
VOID = {"meta", "br", "img", "wbr", "link", "input", "hr"}
SVG = {"svg", "g", "path", "use", "defs", "clipPath".lower(), "rect", "text"}
HTML = {
    *("html", "head", "meta", "title", "style", "body", "a", "header", "main", "nav", "section", "article", "div"),
    *(
        "h1",
        "h2",
        "h3",
        "h4",
        "p",
        "ul",
        "li",
        "dl",
        "dt",
        "dd",
        "table",
        "caption",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
    ),
    *("span", "strong", "code", "figure", "figcaption", "details", "summary", "time", "wbr"),
}


class Page(HTMLParser):
    """What a browser would see: elements, attributes, text; whether all that is opened is closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join("".join(self.texts).split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def data() -> ReportData:
    return make_report_data(300)


@pytest.fixture(scope="module")
def html(data: ReportData) -> str:
    return render(data)


@pytest.fixture(scope="module")
def page(html: str) -> Iterator[Page]:
    return Page(html)


def test_the_page_is_whole_and_its_parts_are_known(page: Page) -> None:
    assert page.open == []
    assert {tag for tag, _ in page.elements} <= HTML | SVG


def test_every_section_has_a_heading_and_a_link_to_it(page: Page) -> None:
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))  # those of the pictures included
    links = [str(attributes["href"]) for attributes in page.all("a")]
    assert all(link.startswith("#") and link[1:] in ids for link in links)
    assert all(section["aria-labelledby"] in ids for section in page.all("section"))
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-4]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))


def test_references_within_a_picture_stay_within_it(page: Page) -> None:
    ids = {attributes["id"] for _, attributes in page.elements if "id" in attributes}
    used = [str(attributes["href"])[1:] for attributes in page.all("use")]
    clips = [str(found["clip-path"])[5:-1] for _, found in page.elements if "clip-path" in found]
    assert used
    assert clips
    assert set(used) | set(clips) <= ids


def test_pictures_and_tables_are_named_for_those_who_do_not_see_them(page: Page) -> None:
    pictures = page.all("svg")
    assert len(pictures) >= 12
    assert all(picture["role"] == "img" and picture["aria-label"] for picture in pictures)
    assert len(page.all("table")) == len(page.all("caption"))
    assert all(head["scope"] in ("col", "row") for head in page.all("th"))


def test_nothing_is_fetched_or_run(html: str, page: Page) -> None:
    assert not {tag for tag, _ in page.elements} & {"script", "img", "link", "iframe", "object", "image", "form"}
    for _, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on") or name in ("src", "srcset", "action")]
    (policy,) = (meta["content"] for meta in page.all("meta") if meta.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'; style-src 'unsafe-inline'; img-src data:")
    assert not re.search(r"@import|url\((?!#)|https?:", html)


def test_the_headlines_are_the_numbers_of_the_data(data: ReportData, page: Page) -> None:
    assert "300 users" in page.text.replace("users 300", "300 users")
    assert "3 of 4" in page.text
    assert "9,610" in page.text
    assert "Sessions from 2025-03-01 to 2025-05-30." in page.text
    assert "Made on 2025-05-30 20:30 UTC." in page.text
    changed = 380 + 210 + 90
    assert data.churn is not None
    assert f"{changed / data.churn.users:.1%} of the 9,110 users" in page.text


def test_every_persona_is_there_with_its_sentences_and_queries(data: ReportData, page: Page) -> None:
    assert data.personas is not None
    assert len(page.all("article")) == len(data.personas.cards)
    for card in data.personas.cards:
        for text in (card.name, *card.queries, *(trait.sentence for trait in card.traits)):
            assert text in page.text


def test_a_persona_has_the_colour_of_its_cluster_in_the_pictures(page: Page) -> None:
    colors = [re.sub(r".*var\(--(\w+)\).*", r"\1", str(card["style"])) for card in page.all("article")]
    assert colors == ["c0", "c1", "c2", "c3", "c4", "muted"]


def test_accounts_checks_and_what_is_absent_are_told(page: Page) -> None:
    for text in (
        "duplicate session", "age: not in 0..130", "time-out", "left missing", "bot rate",
        "no event puts a product into the cart", "the largest cluster holds 61.2% of the sessions, over 60.0%",
        "! warning", "✓ passed", "session duration, for clusters", "Loyalty tiers",
    ):  # fmt: skip
        assert text in page.text


def test_no_user_is_named(html: str) -> None:
    assert "private-user" not in html


def test_the_report_is_small_and_the_same_for_the_same_data(data: ReportData, html: str) -> None:
    assert len(html.encode()) < 1_000_000
    assert render(data) == html


def test_only_colours_of_the_page_are_in_its_pictures(page: Page) -> None:
    drawn = [str(found["style"]) for tag, found in page.elements if tag in SVG and "style" in found]
    assert drawn
    assert not [style for style in drawn if re.search(r"#[0-9a-f]{3,6}\b|font-family|rgb", style)]


@pytest.mark.parametrize("part", SOURCES)
def test_a_missing_part_is_a_sentence_that_says_what_to_do(part: str, data: ReportData) -> None:
    page = Page(render(ReportData(END, **{part: getattr(data, part)})))
    assert page.open == []
    for asset in SOURCES.values():
        missing = any(name != part for name, made_by in SOURCES.items() if made_by == asset)
        assert (f"not there yet: materialize {asset}," in page.text) == missing


def test_a_device_that_one_user_has_named_is_nowhere_in_the_page(data: ReportData) -> None:
    assert data.features is not None
    assert data.behaviour is not None
    name = "device_share:Anna's iPhone 15"
    rare = np.zeros(data.features.table.num_rows)
    rare[0] = 1.0
    features = dataclasses.replace(data.features, table=data.features.table.append_column(name, [rare]))
    left_out = {name: "the same for all but 1 of 300 users", "category_share:Shoes": "constant"}
    steps = dataclasses.replace(data.behaviour.preprocessing, left_out=left_out)
    model = dataclasses.replace(data.behaviour, preprocessing=steps)
    personas = describe(features, model, NameTable(), PersonaSettings(min_effect=0))
    page = Page(render(dataclasses.replace(data, features=features, behaviour=model, personas=personas)))
    assert "Anna" not in page.text
    assert "device share, of fewer than 3 users, for clusters" in page.text
    assert "category share: Shoes, for clusters" in page.text


def test_clusters_of_other_features_have_no_map_and_it_is_said_why(data: ReportData) -> None:
    page = Page(render(ReportData(END, behaviour=data.behaviour)))
    assert "There is no map of the users, because" in page.text


def test_a_report_of_nothing_is_a_page() -> None:
    page = Page(render(ReportData(END)))
    assert page.open == []
    assert "There are no results yet" in page.text
    assert all(f"not there yet: materialize {asset}," in page.text for asset in SOURCES.values())
    assert not page.all("svg")


def test_a_report_of_empty_parts_is_a_page() -> None:
    none = np.empty(0, np.int32)
    columns = ["segment", "users", "sessions", "share", "clusters", "keywords", "sample_queries"]
    model = dataclasses.replace(make_model(none), cluster_ids=none, noise=0, sizes=[])
    data = ReportData(
        END, segments=pd.DataFrame([], columns=columns), churn=Churn("v"), features=make_features(none),
        scores=UserScores(SCORES_SCHEMA.empty_table(), {}, {}, "sessions"), rules=RuleSegments(None, [], []),
        behaviour=model, rows=np.empty((0, 2)), personas=Personas([], "v"), cleaning=CleaningAccount(0, 0),
        attributes=AttributesAccount(), intake=Intake(0, 0), checks=[],
    )  # fmt: skip
    page = Page(render(data))
    assert page.open == []
    assert "No group of users was found." in page.text
    assert "No check was run." in page.text


def test_a_report_of_one_user_is_a_page() -> None:
    assert Page(render(make_report_data(1))).open == []


def test_nothing_published_before_is_said(data: ReportData) -> None:
    assert "Nothing was published before" in Page(render(dataclasses.replace(data, churn=Churn(None)))).text
    assert "Nobody measured who changed segment" in Page(render(dataclasses.replace(data, churn=None))).text
    asked = dataclasses.replace(make_churn(), asked=["clusters.k"])
    assert "Settings that were changed since: clusters.k." in Page(render(dataclasses.replace(data, churn=asked))).text


def hostile(text: str) -> ReportData:
    """A report in which a text stands wherever people's text can stand."""
    labels = clusters(40)
    features = make_features(labels)
    table = features.table.rename_columns(
        [f"category_share:{text}" if name == "category_share:Shoes" else name for name in features.table.column_names]
    )
    trait = Trait(f"category_share:{text}", 1.0, 1.0, 0.0, text)
    card = Persona(
        0, text, text, [text], 3, 0.5, [trait], {trait.feature: {"mean": 1.0}}, [text], {text: 1.0}
    )  # fmt: skip
    scores = UserScores(
        SCORES_SCHEMA.empty_table().from_pylist(
            [
                {"user_id": "u", "recency_score": 1, "frequency_score": 1, "loyalty_index": 3.0, "loyalty_tier": tier}
                for tier in (text, "another")
            ],
            schema=SCORES_SCHEMA,
        ),
        {text: text}, {text: 1.0}, text,
    )  # fmt: skip
    summary = pd.DataFrame(
        [{"segment": text, "users": 1, "sessions": 1, "share": 1.0, "clusters": [0], "keywords": [text],
          "sample_queries": [text]}]
    )  # fmt: skip
    label = ClusterLabel(0, text, 1, 1, 1.0, {}, None, 0.0, {text: 0.5}, [text])
    labeled = LabeledSegments(ASSIGNMENT_SCHEMA.empty_table(), [label], "v", 0, Intake(0, 0))
    flow = dataclasses.replace(make_churn().flows[-1], before=text, now="b")
    return ReportData(
        END, title=text, segments=summary, churn=dataclasses.replace(make_churn(), flows=[flow], asked=[text]),
        query_map=plots.cluster_terms(labeled, "svg"),
        features=dataclasses.replace(features, table=table, absent={text: text}),
        scores=scores, rules=RuleSegments(None, [RuleReport(text, 0, 0.0, text), RuleReport(text + "2", 3, 1.0)], []),
        behaviour=make_model(labels), personas=Personas([card], "v"),
        cleaning=CleaningAccount(
            2, 1, {text: 1}, 2, 1, {text: 1}, [Imputation(text, "mode", text, 1)], [text], {text: 1}
        ),
        attributes=AttributesAccount(2, 1, {text: 1}, {text: 1}, {text: 1}, [text]), intake=Intake(2, 1, {text: 1}),
        checks=[CheckOutcome(text, False, "ERROR", {text: text}, text)],
    )  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE)
def test_what_people_type_is_text_wherever_it_stands(text: str) -> None:
    html = render(hostile(text))
    page = Page(html)
    assert page.open == []
    assert {tag for tag, _ in page.elements} <= HTML | SVG
    for _, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on") or name == "src"]
        assert str(attributes.get("href", "#")).startswith("#")
        assert "alert" not in str(attributes.get("style", ""))
    assert page.text.count(" ".join(text.split())) > 20
    assert "49" not in page.text  # nothing was worked out


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=30))
@settings(deadline=None, max_examples=3)
def test_any_text_leaves_the_page_whole(text: str) -> None:
    assert Page(render(hostile(text))).open == []


def test_moments_are_in_utc_and_need_a_time_zone(data: ReportData) -> None:
    east = timezone(timedelta(hours=5))
    assert moment(datetime(2025, 1, 1, 3, 30, tzinfo=east)) == "2024-12-31 22:30 UTC"
    assert day(datetime(2025, 1, 1, 3, 30, tzinfo=east)) == "2024-12-31"
    naive = datetime(2025, 1, 1)
    with pytest.raises(ValueError, match="no time zone"):
        render(ReportData(naive))
    with pytest.raises(ValueError, match="no time zone"):
        render(ReportData(END, window=(END, naive)))


@pytest.mark.parametrize(
    ("share", "text"),
    [(0, "0%"), (0.0004, "<0.1%"), (0.004, "0.4%"), (0.34, "34%"), (0.0999, "10%"), (0.999, ">99%"), (1, "100%")],
)
def test_a_share_is_never_rounded_to_nothing_or_to_all(share: float, text: str) -> None:
    assert percent(share) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (3, "3"), (3.0, "3"), (0.61234, "0.612"), (12_345.6, "12,346"), (float("nan"), "not defined"), ("x", "x"),
        (999.96, "1,000"), (99.96, "100"), (0.00001, "0.00001"), (-0.000123456, "-0.000123"), (0, "0"), (True, "True"),
        (float("inf"), "not defined"), (1234567, "1,234,567"), (1e16, "10,000,000,000,000,000"),
    ],
)  # fmt: skip
def test_a_number_has_three_digits_and_its_thousands_apart(value: object, text: str) -> None:
    assert number(value) == text


def test_words_of_the_page() -> None:
    assert count(1234567) == "1,234,567"
    assert capitalised("days of iPhone") == "Days of iPhone"
    assert sentence("price times quantity") == "Price times quantity."
    assert breakable("a_<b>") == "a_<wbr>&lt;b&gt;"


def test_a_picture_brings_nothing_but_a_drawing() -> None:
    evil = (
        b'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="0 0 9 9" '
        b'onload="a()"><title>what</title><script>a()</script><style>*{}</style><image href="http://x/"/>'
        b'<foreignObject><p>x</p></foreignObject><a href="javascript:a()"><text>in</text></a>'
        b'<use xlink:href="http://x/#a"/><use xlink:href="#m1" x="1.23456"/><path id="m1" d="M 0.12345 1&#10;L 2 3" '
        b'style="fill: #2563eb; background: url(http://x/); font: 12px Arial" clip-path="url(#c)"/>'
        b'<text id="t" style="font-size: 9px; font-family: Arial">1 &lt; 2 # url(#c)</text></svg>'
    )
    found = inline(evil, "p1-", "an alternative")
    root = ET.fromstring(found.markup)
    assert found.title == "what"
    assert root.attrib["aria-label"] == "an alternative"
    assert {element.tag for element in root.iter()} == {"svg", "use", "path", "text"}
    path = root.find("path")
    assert path is not None
    assert path.attrib == {
        "id": "p1-m1", "d": "M 0.12 1 L 2 3", "style": "fill:var(--c0);font-size:12px", "clip-path": "url(#p1-c)",
    }  # fmt: skip
    assert [use.attrib for use in root.iter("use")] == [{}, {"href": "#p1-m1", "x": "1.23"}]
    assert root.findtext("text") == "1 < 2 # url(#c)"


def test_two_pictures_of_one_thing_have_no_id_in_common() -> None:
    svg = plots.user_flows(make_churn(), "svg")
    ids = [{found.attrib.get("id") for found in ET.fromstring(inline(svg, prefix).markup).iter()} for prefix in "ab"]
    assert ids[0] & ids[1] == {None}


def test_pictures_of_sessions_and_segments_can_be_svg_too() -> None:
    stamps = pd.Series(pd.to_datetime(["2025-05-01", "2025-05-02"], utc=True))
    assert inline(plots.sessions_over_time(stamps, "svg"), "a").title == "Sessions over time"
    summary = pd.DataFrame({"segment": ["a"], "users": [1], "sessions": [2], "share": [1.0]})
    found = inline(plots.segment_sizes(summary, "svg"), "a")
    assert found.title == "Sessions and users by segment"
    assert "2 sessions (100%)" in found.markup


@pytest.mark.parametrize(("sessions", "warned"), [(1.0, True), (4.0, True), (5.0, False), (30.0, False)])
def test_who_has_hardly_come_is_said_to_tell_little(sessions: float, warned: bool) -> None:
    data = make_report_data()
    assert data.features is not None
    table = data.features.table
    place = table.column_names.index("sessions")
    few = table.set_column(place, "sessions", pa.array(np.full(len(table), sessions)))
    page = render(dataclasses.replace(data, features=dataclasses.replace(data.features, table=few)))
    assert f"Half of the users have {sessions:.0f} sessions or fewer." in page
    assert ("names are guesses" in page) == warned
