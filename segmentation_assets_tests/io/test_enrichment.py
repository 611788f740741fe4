"""Asking others about users: whatever they do, nobody is lost, nothing is asked twice, and no secret gets out."""

import gzip
import json
import logging
import socket
import sqlite3
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import trustme

from segmentation_assets.core.settings import EnrichmentSettings
from segmentation_assets.io.enrichment import (
    GIVE_UP_AFTER,
    IN_FLIGHT,
    MAX_ANSWER,
    Answers,
    EnrichmentFileInvalid,
    EnrichmentInvalid,
    FileEnricher,
    HttpEnricher,
)

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
TOKEN = "s3cr3t-t0ken"


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def enricher(clock: Clock, tmp_path: Path) -> Callable[..., HttpEnricher]:
    """``enricher(url, **settings)``: one that asks there, remembers in the test's folder, and has no time to lose."""

    def make(
        url: str, path: str = "/users/{user_id}", token: str | None = None, now: datetime = NOW, **options: Any
    ) -> HttpEnricher:
        cache = options.pop("cache", tmp_path / "data" / "answers.sqlite")
        in_flight = options.pop("in_flight", IN_FLIGHT)
        settings = EnrichmentSettings(url=url + path, **{"per_second": 1000.0, "timeout": 10.0, **options})
        return HttpEnricher(settings, token, cache, now=now, clock=clock, sleep=clock.sleep, in_flight=in_flight)

    return make


@pytest.fixture
def dead_url() -> str:
    """An address where nobody listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{listener.getsockname()[1]}"


def user_of(request: Any) -> str:
    return unquote(request.path.rpartition("/")[2])


# --- a file -----------------------------------------------------------------------------------------------------------

WANTED = ["u1", "u2", "u3"]
CSV = "user_id,age,location\nu1,34,Bonn\nu2,,\n"
FOUND = {
    "u1": {"user_id": "u1", "age": "34", "location": "Bonn"},
    "u2": {"user_id": "u2", "age": "", "location": ""},
}


@pytest.mark.parametrize(
    "content",
    [
        CSV.encode(),
        CSV.replace("\n", "\r\n").encode(),
        b"\xef\xbb\xbf" + CSV.encode(),
        CSV.replace(",", ";").encode(),
        CSV.replace(",", "|").encode(),
        CSV.replace(",", "\t").encode(),
        CSV.replace(",", "\t").encode("utf-16"),
        gzip.compress(CSV.encode()),
        CSV.replace("Bonn", '"Bonn"').encode(),
    ],
)
def test_a_table_of_text_is_read_whatever_separates_it(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "crm.csv"
    path.write_bytes(content)
    found = FileEnricher(path).look_up(WANTED)
    assert (found.found, found.failed, +found.set_aside) == (FOUND, {}, Counter())
    assert FileEnricher(path).name == "file crm.csv"


def test_ids_of_digits_stay_text(tmp_path: Path) -> None:
    path = tmp_path / "crm.csv"
    path.write_text("user_id,age\n007,34\n7,35\n")
    assert set(FileEnricher(path).look_up(["007"]).found) == {"007"}


@pytest.mark.parametrize("unpacked", [True, False])
def test_objects_a_line_are_read(tmp_path: Path, unpacked: bool) -> None:
    path = tmp_path / "crm.ndjson"
    text = b'{"user_id": 1, "age": 3}\n\nno json\n[1]\n{"user_id": "u2", "age": {"years": 3}}\n'
    path.write_bytes(text if unpacked else gzip.compress(text))
    found = FileEnricher(path).look_up(["1", "u2"])
    assert found.found == {"1": {"user_id": 1, "age": 3}, "u2": {"user_id": "u2", "age": {"years": 3}}}
    assert +found.set_aside == Counter(not_an_object=2)


def test_parquet_is_read_with_its_types(tmp_path: Path) -> None:
    path = tmp_path / "crm.parquet"
    columns = {
        "user_id": pa.array([1, 2], pa.int64()),
        "age": pa.array([34.5, None]),
        "signup_date": pa.array([date(2024, 2, 3), None]),
        "subscription_date": pa.array([1, None], pa.timestamp("ns", tz="Europe/Berlin")),
        "gender": pa.array(["f", "m"]).dictionary_encode(),
    }
    pq.write_table(pa.table(columns), path)
    found = FileEnricher(path).look_up(["1", "2"]).found
    assert found["1"] == {
        "user_id": 1,
        "age": 34.5,
        "signup_date": "2024-02-03",
        "subscription_date": "1970-01-01T00:00:00+00:00",
        "gender": "f",
    }
    assert found["2"]["age"] is None


def test_rows_of_a_file_are_all_accounted_for(tmp_path: Path) -> None:
    path = tmp_path / "crm.csv"
    path.write_bytes(b"user_id,age\nu1,1\nu1,2\nstranger,3\n ,4\nu2,5,too,much\n\xff,6\n")
    found = FileEnricher(path).look_up(WANTED)
    assert found.found == {"u1": {"user_id": "u1", "age": "2"}}
    assert +found.set_aside == Counter(duplicate_user=1, not_in_sessions=1, no_user=1, not_an_object=2)


def test_reading_a_long_file_says_how_far_it_is(tmp_path: Path) -> None:
    path = tmp_path / "crm.csv"
    path.write_text("user_id\n" + "".join(f"u{n}\n" for n in range(20_001)))
    said: list[tuple[int, int | None]] = []
    FileEnricher(path).look_up(WANTED, lambda done, total: said.append((done, total)))
    assert said == [(10_000, None), (20_000, None)]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "is empty"),
        (b" \n", "is empty"),
        (b"customer,age\nu1,3\n", "has no column user_id"),
        (b"jane.doe@mail.example,34\n", None),  # one line without a header: no row
        (b"jane.doe@mail.example,34\nu2,35\n", "has no column user_id"),
        (b'{"user": 1}\n', "has no column user_id"),
        (b"PAR1 and no more", "cannot be read to its end"),
        (gzip.compress(CSV.encode() * 1000)[:-20], "cannot be read to its end"),
    ],
)
def test_a_file_that_cannot_be_used_says_why_without_showing_what_is_in_it(
    tmp_path: Path, content: bytes, problem: str | None
) -> None:
    path = tmp_path / "crm"
    path.write_bytes(content)
    if problem is None:
        assert FileEnricher(path).look_up(WANTED).found == {}
        return
    with pytest.raises(EnrichmentFileInvalid, match=problem) as raised:
        FileEnricher(path).look_up(WANTED)
    assert "jane" not in str(raised.value)
    assert raised.value.cure


def test_a_file_that_is_not_there_is_said_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(EnrichmentFileInvalid, match="There is no file"):
        FileEnricher(tmp_path / "absent.csv")


# --- a service: its answers -------------------------------------------------------------------------------------------


def test_what_a_service_answers_is_what_is_known(serve, answer, enricher) -> None:
    known = {"u1": {"age": 34, "gender": "f", "password": "hunter2"}, "u2": {}}
    server = serve(lambda r: answer.of(200, known[user_of(r)]) if user_of(r) in known else answer.of(404, {}))
    found = enricher(server.url).look_up(["u1", "u2", "u3"])
    # Only attributes are taken over, whatever else is said about somebody.
    assert found == Answers(found={"u1": {"age": 34, "gender": "f"}, "u2": {}}, unknown={"u3"})
    assert {r.method for r in server.requests} == {"GET"}
    assert {r.path for r in server.requests} == {"/users/u1", "/users/u2", "/users/u3"}
    assert all("authorization" not in r.headers for r in server.requests)


def test_a_gone_user_is_unknown(serve, answer, enricher) -> None:
    assert enricher(serve(lambda _: answer.of(410, {})).url).look_up(["u"]) == Answers(unknown={"u"})


def test_compressed_answers_are_read(serve, answer, enricher) -> None:
    server = serve(lambda _: answer(200, gzip.compress(b'{"age": 3}'), {"Content-Encoding": "gzip"}))
    assert enricher(server.url).look_up(["u"]).found == {"u": {"age": 3}}


def test_any_id_fits_into_the_address(serve, answer, enricher) -> None:
    users = ["a/b", "../admin", "ä ö", "x?y=1&z#f", "100%", "{user_id}", "…", "a\nb"]
    server = serve(lambda r: answer.of(200, {"location": unquote(r.path.partition("/users/")[2])}))
    found = enricher(server.url).look_up(users)
    assert found.found == {user: {"location": user} for user in users}
    in_query = enricher(server.url, "/find?id={user_id}&all=1", cache=None).look_up(["a&b=c"])
    assert not in_query.failed
    assert server.requests[-1].path == "/find?id=a%26b%3Dc&all=1"


def test_an_id_that_would_lead_elsewhere_is_not_asked_about(serve, answer, enricher) -> None:
    server = serve(lambda _: answer.of(200, {"age": 3}))
    found = enricher(server.url).look_up([".", "..", "..."])
    assert set(found.failed) == {".", ".."}
    assert [r.path for r in server.requests] == ["/users/..."]


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        (200, b"<html>", "the answer is no JSON"),
        (200, b"", "the answer is no JSON"),
        (200, b"\xff\xfe\xff", "the answer is no JSON"),
        (200, b"[" * 200_000, "the answer is no JSON"),
        (200, b"[1]", "the answer is no JSON object"),
        (200, b"null", "the answer is no JSON object"),
        (200, b" " * (MAX_ANSWER + 1), "the answer is too long"),
        (204, b"", "answered 204"),
        (400, b"{}", "answered 400"),
        (401, b"{}", "answered 401"),
        (304, b"", "answered 304"),
    ],
)
def test_an_answer_that_is_none_is_a_failure_and_not_asked_for_again(
    serve, answer, enricher, status: int, body: bytes, reason: str
) -> None:
    server = serve(lambda _: answer(status, body, {}))
    assert enricher(server.url).look_up(["u"]).failed == {"u": reason}
    assert len(server.requests) == 1


# --- a service: failures ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_a_service_that_fails_once_is_asked_again(serve, answer, enricher, clock: Clock, status: int) -> None:
    answers = iter([answer.of(status, {}), answer.of(200, {"age": 3})])
    found = enricher(serve(lambda _: next(answers)).url).look_up(["u"])
    assert found == Answers(found={"u": {"age": 3}})
    assert sum(clock.slept) >= 0.5  # the back-off


def test_each_attempt_waits_longer_and_there_are_as_many_as_the_settings_say(
    serve, answer, enricher, clock: Clock
) -> None:
    server = serve(lambda _: answer.of(500, {}))
    assert enricher(server.url, retries=3).look_up(["u"]).failed == {"u": "answered 500"}
    assert len(server.requests) == 4
    waits = [seconds for seconds in clock.slept if seconds > 0.01]
    assert waits == sorted(waits)
    assert waits[0] < waits[-1]


def test_a_service_that_asks_for_patience_gets_it(serve, answer, enricher, clock: Clock) -> None:
    began: list[float] = []

    def handle(_: Any) -> Any:
        began.append(clock.now)
        return answer.of(429, {}, **{"Retry-After": "7"}) if len(began) == 1 else answer.of(200, {"age": 3})

    found = enricher(serve(handle).url, in_flight=1).look_up(["u1", "u2", "u3"])
    assert len(found.found) == 3
    assert not found.failed
    assert began[1] - began[0] >= 7  # it is the service that is busy: nobody else is asked about meanwhile


def test_patience_may_be_asked_for_until_a_date(serve, answer, enricher, clock: Clock) -> None:
    later = (datetime.now(UTC) + timedelta(seconds=100)).strftime("%a, %d %b %Y %H:%M:%S GMT")
    answers = iter([answer.of(503, {}, **{"Retry-After": later}), answer.of(200, {"age": 3})])
    assert enricher(serve(lambda _: next(answers)).url).look_up(["u"]).found == {"u": {"age": 3}}
    assert 50 < sum(clock.slept) <= 101


@pytest.mark.parametrize("nonsense", ["soon", "", "-5", "9" * 5000])
def test_a_nonsensical_wish_for_patience_ends_too(serve, answer, enricher, nonsense: str) -> None:
    server = serve(lambda _: answer.of(429, {}, **{"Retry-After": nonsense}))
    assert set(enricher(server.url).look_up(["u"]).failed) == {"u"}
    assert len(server.requests) <= 3


def test_a_service_that_wants_more_time_than_there_is_is_left_alone(serve, answer, enricher, clock: Clock) -> None:
    server = serve(lambda _: answer.of(429, {}, **{"Retry-After": "100000"}))
    found = enricher(server.url, in_flight=1, max_seconds=300).look_up(["u1", "u2"])
    assert sorted(found.failed.values()) == ["answered 429", "not asked: no time left"]
    assert sum(clock.slept) < 300


def test_a_slow_service_is_not_waited_for(serve, answer, enricher) -> None:
    release = threading.Event()

    def handle(request: Any) -> Any:
        if user_of(request) == "slow":
            release.wait(30)
        return answer.of(200, {"age": 3})

    server = serve(handle)
    found = enricher(server.url, timeout=0.3, retries=1).look_up(["slow", "quick"])
    release.set()
    assert (found.found, found.failed) == ({"quick": {"age": 3}}, {"slow": "no answer in time"})
    assert sum(user_of(r) == "slow" for r in server.requests) == 2


@pytest.fixture
def dripping() -> Iterator[Callable[[bytes], str]]:
    """``dripping(start)``: the address of a server that sends this, and then a letter now and then for ever."""
    stop, listeners = threading.Event(), []

    def drip(connection: socket.socket, start: bytes) -> None:
        with connection:
            connection.recv(65536)
            try:
                connection.sendall(start)
                while not stop.wait(0.05):
                    connection.sendall(b"x")
            except OSError:
                return

    def accept(listener: socket.socket, start: bytes) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=drip, args=(connection, start), daemon=True).start()

    def serve(start: bytes) -> str:
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)
        threading.Thread(target=accept, args=(listener, start), daemon=True).start()
        return f"http://127.0.0.1:{listener.getsockname()[1]}"

    yield serve
    stop.set()
    for listener in listeners:
        listener.close()


def test_an_answer_that_drips_is_too_slow(dripping, enricher) -> None:
    url = dripping(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    assert enricher(url, timeout=0.3, retries=0).look_up(["u"]).failed == {"u": "no answer in time"}


def test_a_header_that_never_ends_holds_up_nothing_for_longer_than_there_is_time(dripping, tmp_path: Path) -> None:
    url = dripping(b"HTTP/1.1 200 OK\r\nX: ")
    settings = EnrichmentSettings(url=url + "/{user_id}", timeout=0.2, max_seconds=0.3)
    found = HttpEnricher(settings, None, None, now=NOW).look_up(["u1", "u2"])
    assert found.failed == {"u1": "no answer in time", "u2": "no answer in time"}


def test_nobody_there_is_a_failure_for_each_and_no_error(enricher, dead_url: str) -> None:
    assert enricher(dead_url).look_up(["u1", "u2"]).failed == {"u1": "no connection", "u2": "no connection"}


def test_an_unknown_host_is_no_connection(enricher) -> None:
    assert enricher("http://nowhere.invalid", retries=0).look_up(["u"]).failed == {"u": "no connection"}


def test_a_connection_that_is_closed_is_tried_again(serve, answer, enricher) -> None:
    answers = iter([None, answer.of(200, {"age": 3})])
    assert enricher(serve(lambda _: next(answers)).url).look_up(["u"]).found == {"u": {"age": 3}}


def test_an_untrusted_certificate_is_not_tried_again(serve, answer, enricher) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    server = serve(lambda _: answer.of(200, {"age": 3}), context)
    assert enricher(server.url, token=TOKEN).look_up(["u"]).failed == {"u": "no trusted TLS connection"}
    assert server.requests == []


def test_a_service_that_is_down_is_given_up_after_some_attempts(serve, answer, enricher) -> None:
    server = serve(lambda _: answer.of(500, {}))
    users = [f"u{n:04d}" for n in range(1000)]
    found = enricher(server.url).look_up(users)
    assert set(found.failed) == set(users)
    assert GIVE_UP_AFTER <= len(server.requests) <= GIVE_UP_AFTER + IN_FLIGHT
    assert found.remarks == [f"not asked: {GIVE_UP_AFTER} requests in a row failed"]


def test_nobody_is_lost_where_three_in_ten_fail(serve, answer, enricher) -> None:
    """A whole run of ids is refused, the worst case for giving up: they are asked about in no order."""
    users = [f"u{n:04d}" for n in range(1000)]
    refused = set(users[:300])
    server = serve(lambda r: answer.of(400, {}) if user_of(r) in refused else answer.of(200, {"age": 3}))
    said: list[tuple[int, int | None]] = []
    found = enricher(server.url).look_up(users, lambda done, total: said.append((done, total)))
    assert set(found.failed) == refused
    assert set(found.found) == set(users) - refused
    assert not found.remarks
    assert said == [(n, 1000) for n in range(1, 1001)]
    assert Counter(map(user_of, server.requests)) == Counter(users)


def test_redirects_are_followed_a_few_times(serve, answer, enricher) -> None:
    server = serve(
        lambda r: answer.of(200, {"age": 3}) if r.path == "/there" else answer.of(302, {}, Location="/there")
    )
    assert enricher(server.url).look_up(["u"]).found == {"u": {"age": 3}}
    loop = serve(lambda r: answer.of(302, {}, Location=r.path))
    assert enricher(loop.url).look_up(["u"]).failed == {"u": "redirected too often"}
    assert len(loop.requests) == 4
    odd = serve(lambda _: answer.of(302, {}, Location="file:///etc/passwd"))
    assert enricher(odd.url).look_up(["u"]).failed == {"u": "the request could not be made"}


# --- a service: rate and time -----------------------------------------------------------------------------------------


def test_requests_come_at_the_rate_that_is_allowed(serve, answer, enricher, clock: Clock) -> None:
    began: list[float] = []

    def handle(_: Any) -> Any:
        began.append(clock.now)
        return answer.of(200, {}) if len(began) % 3 else answer.of(500, {})  # attempts count as well

    enricher(serve(handle).url, per_second=4, in_flight=1).look_up([f"u{n}" for n in range(20)])
    assert len(began) > 20
    assert min(later - earlier for earlier, later in pairwise(began)) >= 0.25 - 1e-9


def test_many_at_a_time_do_not_exceed_the_rate(serve, answer, enricher, clock: Clock) -> None:
    server = serve(lambda _: answer.of(200, {}))
    started = clock.now
    enricher(server.url, per_second=10).look_up([f"u{n}" for n in range(31)])
    assert clock.now - started == pytest.approx(3.0)


def test_a_few_requests_are_under_way_at_a_time(serve, answer, enricher) -> None:
    together = threading.Barrier(3)

    def handle(_: Any) -> Any:
        together.wait(20)  # answered only when three have come
        return answer.of(200, {"age": 3})

    found = enricher(serve(handle).url, in_flight=3, timeout=20).look_up([f"u{n}" for n in range(9)])
    assert len(found.found) == 9


def test_when_the_time_is_over_the_others_are_left_and_not_always_the_same_ones(
    serve, answer, enricher, clock: Clock
) -> None:
    server = serve(lambda _: answer.of(200, {"age": 3}))
    users = [f"u{n:03d}" for n in range(100)]

    def run(now: datetime) -> Answers:
        return enricher(server.url, per_second=10, max_seconds=2, cache=None, now=now).look_up(users)

    first = run(NOW)
    assert set(first.found) | set(first.failed) == set(users)
    assert len(first.found) == 20
    assert set(first.failed.values()) == {"not asked: no time left"}
    assert run(NOW).found.keys() == first.found.keys()
    assert run(NOW + timedelta(days=1)).found.keys() != first.found.keys()


def test_what_was_answered_in_one_run_need_not_be_asked_in_the_next(serve, answer, enricher) -> None:
    server = serve(lambda _: answer.of(200, {"age": 3}))
    users = [f"u{n:03d}" for n in range(50)]
    missing = [
        len(enricher(server.url, per_second=10, max_seconds=2, now=NOW + timedelta(hours=n)).look_up(users).failed)
        for n in range(3)
    ]
    assert missing == [30, 10, 0]


# --- a service: what is remembered ------------------------------------------------------------------------------------


def test_answers_are_remembered_those_that_nothing_is_known_too(serve, answer, enricher) -> None:
    server = serve(lambda r: answer.of(200, {"age": 3}) if user_of(r) == "u1" else answer.of(404, {}))
    first = enricher(server.url).look_up(["u1", "u2"])
    again = enricher(server.url, now=NOW + timedelta(days=29)).look_up(["u1", "u2"])
    assert first == again == Answers(found={"u1": {"age": 3}}, unknown={"u2"})
    assert len(server.requests) == 2


def test_answers_expire(serve, answer, enricher) -> None:
    ages = iter([3, 4])
    server = serve(lambda _: answer.of(200, {"age": next(ages)}))
    enricher(server.url).look_up(["u"])
    again = enricher(server.url, now=NOW + timedelta(days=31)).look_up(["u"])
    assert again == Answers(found={"u": {"age": 4}})


def test_an_answer_from_the_future_is_not_trusted(serve, answer, enricher) -> None:
    server = serve(lambda _: answer.of(200, {"age": 3}))
    enricher(server.url, now=NOW + timedelta(days=1)).look_up(["u"])
    enricher(server.url).look_up(["u"])
    assert len(server.requests) == 2


def test_an_expired_answer_is_better_than_none(serve, answer, enricher) -> None:
    answers: dict[str, Any] = {"u1": answer.of(200, {"age": 3}), "u2": answer.of(404, {})}
    server = serve(lambda r: answers.get(user_of(r), answer.of(500, {})))
    enricher(server.url).look_up(["u1", "u2"])
    answers.clear()
    found = enricher(server.url, now=NOW + timedelta(days=99), retries=0).look_up(["u1", "u2", "u3"])
    assert found == Answers(
        found={"u1": {"age": 3}},
        unknown={"u2"},
        failed=dict.fromkeys(["u1", "u2", "u3"], "answered 500"),
        outdated={"u1", "u2"},
    )


def test_who_was_never_asked_about_comes_before_who_has_expired(serve, answer, enricher) -> None:
    server = serve(lambda _: answer.of(200, {"age": 3}))
    old, new = [f"old{n}" for n in range(10)], [f"new{n}" for n in range(10)]
    enricher(server.url).look_up(old)
    found = enricher(server.url, now=NOW + timedelta(days=99), per_second=10, max_seconds=1).look_up(old + new)
    assert set(found.found) == {*old, *new}
    assert found.outdated == set(old) == set(found.failed)


def test_a_failure_is_not_remembered(serve, answer, enricher) -> None:
    answers = iter([answer.of(400, {}), answer.of(200, {"age": 3})])
    server = serve(lambda _: next(answers))
    assert enricher(server.url).look_up(["u"]).failed
    assert enricher(server.url).look_up(["u"]).found == {"u": {"age": 3}}


def test_another_service_has_its_own_answers(serve, answer, enricher) -> None:
    one, other = (serve(lambda _, age=age: answer.of(200, {"age": age})) for age in (1, 2))
    assert enricher(one.url).look_up(["u"]).found == {"u": {"age": 1}}
    assert enricher(other.url).look_up(["u"]).found == {"u": {"age": 2}}


@pytest.mark.parametrize("forgetful", [{"cache_days": 0}, {"cache": None}])
def test_nothing_is_remembered_where_that_is_asked_for(
    serve, answer, enricher, tmp_path: Path, forgetful: dict[str, Any]
) -> None:
    server = serve(lambda _: answer.of(200, {"age": 3}))
    for _ in range(2):
        enricher(server.url, **forgetful).look_up(["u"])
    assert len(server.requests) == 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"no database " * 500, None])
def test_a_file_of_answers_that_is_no_such_file_costs_only_the_memory(
    serve, answer, enricher, tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "answers.sqlite"
    path.mkdir() if content is None else path.write_bytes(content)
    server = serve(lambda _: answer.of(200, {"age": 3}))
    found = enricher(server.url, cache=path).look_up(["u"])
    assert found.found == {"u": {"age": 3}}
    assert "answers are not remembered" in found.remarks[0]
    assert content is None or path.read_bytes() == content


def test_an_answer_that_cannot_be_read_back_is_asked_for_again(serve, answer, enricher, tmp_path: Path) -> None:
    server = serve(lambda _: answer.of(200, {"age": 3}))
    path = tmp_path / "answers.sqlite"
    enricher(server.url, cache=path).look_up(["u"])
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE answers SET record = '{'")
    connection.close()
    assert enricher(server.url, cache=path).look_up(["u"]).found == {"u": {"age": 3}}
    assert len(server.requests) == 2


def test_many_users_are_remembered(serve, answer, enricher) -> None:
    server = serve(lambda r: answer.of(200, {"location": user_of(r)}))
    users = [f"u{n}" for n in range(1201)]  # more than one question to the file holds
    enricher(server.url).look_up(users)
    asked = len(server.requests)
    again = enricher(server.url).look_up(users)
    assert again.found == {user: {"location": user} for user in users}
    assert len(server.requests) == asked == 1201


def test_what_is_remembered_is_readable_by_its_owner_alone_and_names_nobody(
    serve, answer, enricher, tmp_path: Path
) -> None:
    server = serve(lambda _: answer.of(200, {"age": 3}))
    path = tmp_path / "data" / "answers.sqlite"
    enricher(server.url, cache=path).look_up(["jane.doe@mail.example"])
    assert path.stat().st_mode & 0o077 == 0
    assert b"jane.doe" not in b"".join(each.read_bytes() for each in path.parent.iterdir())


# --- secrets ----------------------------------------------------------------------------------------------------------


def test_the_token_goes_to_the_service_and_to_nobody_else(serve, answer, enricher) -> None:
    other = serve(lambda _: answer.of(200, {"age": 3}))
    server = serve(
        lambda r: {
            "away": answer.of(302, {}, Location=f"{other.url}/elsewhere"),
            "near": answer.of(302, {}, Location="/users/here"),
        }.get(user_of(r), answer.of(200, {"age": 4}))
    )
    found = enricher(server.url, token=f" {TOKEN}\n").look_up(["away", "near", "u"])
    assert found.found == {"away": {"age": 3}, "near": {"age": 4}, "u": {"age": 4}}
    assert {r.headers["authorization"] for r in server.requests} == {f"Bearer {TOKEN}"}
    assert [r.headers.get("authorization") for r in other.requests] == [None]


def test_neither_token_nor_id_gets_into_answers_logs_or_the_file_of_answers(
    serve, answer, enricher, dead_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: Any
) -> None:
    user = "jane.doe@mail.example"
    told = {"note": TOKEN, "user_id": user, "age": 3}

    def unkind(request: Any) -> Any:
        """Says what it was told, in every way there is."""
        return next(kinds)(request)

    kinds = iter(
        [
            lambda _: answer.of(500, told, **{"X-Echo": TOKEN}),
            lambda r: answer.of(302, told, Location=f"{r.path}/{TOKEN}"),
            lambda _: answer(200, f"no JSON {TOKEN}".encode(), {"Bad header " + TOKEN: TOKEN}),
            lambda _: answer.of(429, told, **{"Retry-After": TOKEN}),
            lambda _: None,
            lambda _: answer.of(200, told),
        ]
    )
    path = tmp_path / "answers.sqlite"
    shown: list[str] = []
    with caplog.at_level(logging.DEBUG):
        logging.getLogger("urllib3").setLevel(logging.DEBUG)
        try:
            server = serve(unkind)
            for url in [dead_url, server.url, server.url, server.url]:
                made = enricher(url, token=TOKEN, cache=path, timeout=1)
                shown += [made.name, repr(made), repr(made.look_up([user]).failed.values())]
        finally:
            logging.getLogger("urllib3").setLevel(logging.NOTSET)
    assert next(kinds, None) is None  # all of it happened
    stored = b"".join(each.read_bytes() for each in tmp_path.iterdir()).decode("latin-1")
    out, err = capfd.readouterr()
    everything = "\n".join([*shown, caplog.text, stored, out, err])
    assert TOKEN not in everything
    assert "jane" not in everything


def test_others_who_use_the_same_library_keep_their_logs(
    serve, answer, enricher, caplog: pytest.LogCaptureFixture
) -> None:
    enricher(serve(lambda _: answer.of(200, {})).url).look_up(["u"])
    with caplog.at_level(logging.DEBUG):
        logging.getLogger("urllib3.connectionpool").warning("something of theirs")
    assert "something of theirs" in caplog.text


@pytest.mark.parametrize("token", ["line\nbreak", "tökén", "nul\0"])
def test_a_token_that_cannot_be_one_is_refused_without_being_shown(enricher, token: str) -> None:
    with pytest.raises(EnrichmentInvalid) as raised:
        enricher("http://localhost", token=token)
    assert token not in str(raised.value)
    assert raised.value.__cause__ is None


@pytest.mark.parametrize("token", [None, "", "  "])
def test_no_token_is_no_header(serve, answer, enricher, token: str | None) -> None:
    server = serve(lambda _: answer.of(200, {}))
    enricher(server.url, token=token).look_up(["u"])
    assert "authorization" not in server.requests[0].headers


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("https://crm.example/users", r"has no \{user_id\}"),
        ("https://crm.example/#{user_id}", r"has no \{user_id\}"),
        ("https://{user_id}.crm.example/", r"has no \{user_id\}"),  # whoever names himself would choose the host
        ("https://{user_id}.crm.example/{user_id}", r"has no \{user_id\}"),
        ("ftp://crm.example/{user_id}", "does not begin with http"),
        ("file:///etc/{user_id}", "does not begin with http"),
        ("crm.example/{user_id}", "does not begin with http"),
        ("http:///{user_id}", "does not begin with http"),
        ("http://[::1/{user_id}", "cannot be understood"),
        ("http://host:port/{user_id}", "cannot be understood"),
        ("https://me:s3cr3t@crm.example/{user_id}", "user name or password"),
    ],
)
def test_an_address_that_cannot_be_right_is_refused(url: str, problem: str) -> None:
    with pytest.raises(EnrichmentInvalid, match=problem) as raised:
        HttpEnricher(EnrichmentSettings(url=url), TOKEN, None, now=NOW)
    assert "s3cr3t" not in str(raised.value)
    assert raised.value.cure


def test_of_the_address_only_scheme_and_host_are_shown() -> None:
    settings = EnrichmentSettings(url="https://CRM.example:8443/v1/{user_id}?api_key=s3cr3t")
    assert HttpEnricher(settings, None, None, now=NOW).name == "https://crm.example:8443"
    settings = EnrichmentSettings(url="http://[::1]/{user_id}")
    assert HttpEnricher(settings, None, None, now=NOW).name == "http://[::1]"


def test_time_really_passes_by_default(serve, answer) -> None:
    """The clock and the sleep that nobody injects are those of the machine."""
    server = serve(lambda _: answer.of(200, {"age": 3}))
    settings = EnrichmentSettings(url=server.url + "/{user_id}", per_second=50)
    started = time.monotonic()
    found = HttpEnricher(settings, None, None, now=NOW).look_up([f"u{n}" for n in range(6)])
    assert len(found.found) == 6
    assert time.monotonic() - started >= 5 / 50


def test_connections_are_used_again(serve, answer, enricher) -> None:
    server = serve(lambda _: answer.of(200, {"age": 3}))
    server_ports: set[Any] = set()
    accept = server._http.get_request

    def counted() -> Any:
        connection, address = accept()
        server_ports.add(address)
        return connection, address

    server._http.get_request = counted
    enricher(server.url, in_flight=1).look_up([json.dumps(n) for n in range(20)])
    assert len(server.requests) == 20
    assert len(server_ports) == 1
