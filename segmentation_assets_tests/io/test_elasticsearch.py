"""Connecting, and one clear error for each thing that can be wrong."""

import ssl
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
import trustme
from elasticsearch import Elasticsearch

from segmentation_assets.errors import SegmentsError
from segmentation_assets.io.elasticsearch import (
    CertificateRefused,
    ClusterError,
    ClusterTimeout,
    ClusterUnreachable,
    Connection,
    ConnectionInvalid,
    CredentialsRefused,
    IndexMissing,
    MissingPrivilege,
    ReadOnly,
    WrongServerVersion,
    check_server,
    connect,
    errors_explained,
    open_client,
    redact,
    shorten,
)

SECRET = "s3cr3t-pass/word"
NODES = {"nodes": {"abc": {"version": "9.5.3"}}}


def security_error(status: int, reason: str) -> dict:
    """The body of a real Elasticsearch 9 with security on."""
    cause = {"type": "security_exception", "reason": reason}
    if status == 401:
        cause["header"] = {"WWW-Authenticate": ['Basic realm="security", charset="UTF-8"', "ApiKey"]}
    return {"error": {"root_cause": [cause], **cause}, "status": status}


def media_type_error(ours: int, theirs: int) -> dict:
    cause = {"type": "media_type_header_exception", "reason": "Invalid media-type value on headers [Accept]"}
    inner = {
        "type": "status_exception",
        "reason": f"Accept version must be either version {theirs} or {theirs - 1}, but found {ours}. "
        f"Accept=application/vnd.elasticsearch+json; compatible-with={ours}",
    }
    return {"error": {"root_cause": [cause], **cause, "caused_by": inner}, "status": 400}


def everything_said(error: BaseException) -> str:
    return str(error) + repr(error) + "".join(traceback.format_exception(error))


# --- settings -------------------------------------------------------------------------------------------------------


def test_credentials_in_a_url_are_split_off_decoded_and_never_shown():
    connection = Connection(("https://elastic:s3cr3t-pass%2Fword@es.example:9243/prefix/",))
    assert connection.hosts == ("https://es.example:9243/prefix",)
    assert (connection.username, connection.password) == ("elastic", SECRET)
    assert "s3cr3t" not in repr(connection)


def test_secrets_are_not_in_the_representation():
    assert "k3y" not in repr(Connection(("http://a:1",), api_key="k3y"))
    assert SECRET not in repr(Connection(("http://a:1",), username="u", password=SECRET))


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("http://a", "http://a:80"),
        ("https://a", "https://a:443"),
        ("https://A.example:9200/", "https://a.example:9200"),
        ("http://[::1]:9200", "http://[::1]:9200"),
    ],
)
def test_hosts_get_the_ports_that_urls_imply(host, expected):
    assert Connection((host,)).hosts == (expected,)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"hosts": ()}, "No Elasticsearch host"),
        ({"hosts": ("localhost:9200",)}, "no scheme"),
        ({"hosts": (f"u:{SECRET}@localhost:9200",)}, "no scheme"),
        ({"hosts": ("ftp://localhost:9200",)}, "ftp"),
        ({"hosts": ("http://:9200",)}, "without a host name"),
        ({"hosts": (f"http://u:{SECRET}@a:port",)}, "cannot be understood"),
        ({"hosts": ("http://a:1/?pretty",)}, "query"),
        ({"hosts": ("http://u:a@h:1", "http://u:b@i:1")}, "different credentials"),
        ({"hosts": ("http://u:a@h:1",), "username": "u", "password": SECRET}, "twice"),
        ({"hosts": ("http://u:a@h:1",), "api_key": SECRET}, "Both"),
        ({"hosts": ("http://a:1",), "api_key": SECRET, "username": "u", "password": "p"}, "Both"),
        ({"hosts": ("http://a:1",), "api_key": SECRET + "\n"}, "characters"),
        ({"hosts": ("http://a:1",), "username": "u"}, "without a password"),
        ({"hosts": ("http://a:1",), "password": SECRET}, "without a user name"),
        ({"hosts": ("https://a:1",), "ca_certs": "/does/not/exist.pem"}, "does not exist"),
        ({"hosts": ("http://a:1",), "request_timeout": 0.0}, "make no sense"),
    ],
)
def test_settings_that_cannot_work_are_refused_before_any_request(settings, says):
    with pytest.raises(ConnectionInvalid, match=says) as caught:
        Connection(**settings)
    assert caught.value.cure
    assert SECRET not in everything_said(caught.value).replace(repr(settings), "")


def test_a_ca_file_that_is_no_certificate_is_refused(tmp_path: Path):
    path = tmp_path / "ca.p12"
    path.write_bytes(b"\x30\x82\x0a")
    with pytest.raises(ConnectionInvalid, match="PEM"):
        Connection(("https://a:1",), ca_certs=str(path))


def test_empty_environment_values_count_as_absent():
    assert Connection(("http://a:1",), api_key="", username="", password="", ca_certs="").username is None


@pytest.mark.parametrize(
    ("settings", "header"),
    [
        ({"api_key": "aWQ6a2V5"}, "ApiKey aWQ6a2V5"),
        ({"api_key": "id:key"}, "ApiKey aWQ6a2V5"),
        ({"username": "u", "password": "pä"}, "Basic dTpww6Q="),
        ({}, None),
    ],
)
def test_credentials_are_sent_as_elasticsearch_expects_them(serve, answer_of, settings, header):
    server = serve(lambda _: answer_of(200, NODES))
    connect(Connection((server.url,), **settings)).close()
    assert server.requests[0].headers.get("authorization") == header


@pytest.fixture
def answer_of(answer):
    return answer.of


# --- a real server --------------------------------------------------------------------------------------------------


def test_the_real_node_is_verified_without_a_root_endpoint(elasticsearch_url: str):
    with connect(Connection((elasticsearch_url,))) as client:
        assert (check_server(client) or "").startswith("9.")


def test_compression_works_with_the_real_node(es: Elasticsearch, elasticsearch_url: str):
    with connect(Connection((elasticsearch_url,), http_compress=True)) as client:
        client.index(index="squeezed", id="1", document={"text": "x" * 5000})
        assert client.get(index="squeezed", id="1")["_source"]["text"] == "x" * 5000


def test_a_missing_index_is_named(es: Elasticsearch):
    with pytest.raises(IndexMissing, match="'nope'"), errors_explained(es):
        es.search(index="nope")


@pytest.mark.parametrize(
    ("block", "says"),
    [("read_only", "read-only"), ("read_only_allow_delete", "disk is nearly full"), ("write", "write")],
)
def test_a_read_only_index_is_told_apart_from_a_missing_privilege(es: Elasticsearch, block, says):
    es.indices.create(index="blocked", settings={f"index.blocks.{block}": True})
    try:
        with pytest.raises(ReadOnly, match=says) as caught, errors_explained(es, "write blocked"):
            es.options(max_retries=0).index(index="blocked", document={"a": 1})
    finally:
        es.indices.put_settings(index="blocked", settings={f"index.blocks.{block}": None})
    assert "blocked" in caught.value.problem
    assert caught.value.cure


def test_any_other_refusal_keeps_status_type_and_a_short_reason(es: Elasticsearch):
    with pytest.raises(ClusterError, match=r"400 to try: .*exception: .{1,300}\.$"), errors_explained(es, "try"):
        es.search(index="*", query={"match": {"a": {"no_such_option_" + "x" * 900: 1}}})


def test_a_clear_error_passes_unchanged(es: Elasticsearch):
    original = SegmentsError("mine")
    with pytest.raises(SegmentsError) as caught, errors_explained(es):
        raise original
    assert caught.value is original


def test_other_exceptions_are_not_touched():
    with pytest.raises(ZeroDivisionError), errors_explained():
        1 / 0  # noqa: B018


# --- not reachable --------------------------------------------------------------------------------------------------


def test_a_closed_port_is_unreachable_and_no_secret_is_told(unused_port: int):
    with pytest.raises(ClusterUnreachable, match=rf"127\.0\.0\.1:{unused_port} .connection refused") as caught:
        connect(Connection((f"http://elastic:{SECRET.replace('/', '%2F')}@127.0.0.1:{unused_port}",)))
    assert "s3cr3t" not in everything_said(caught.value)


def test_an_unknown_host_name_is_unreachable():
    with pytest.raises(ClusterUnreachable, match="unknown host name"):
        connect(Connection(("http://no-such-host.invalid:9200",), max_retries=0))


def test_a_server_that_hangs_up_is_unreachable(serve):
    with pytest.raises(ClusterUnreachable, match="closed the connection"):
        connect(Connection((serve(lambda _: None).url,), max_retries=0))


def test_a_server_that_does_not_answer_in_time(serve):
    server = serve(lambda _: time.sleep(3))
    with pytest.raises(ClusterTimeout, match="in time"):
        connect(Connection((server.url,), request_timeout=0.2, max_retries=0))


@pytest.fixture
def unused_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# --- answers only a secured or another server gives ------------------------------------------------------------------


def test_refused_credentials(serve, answer_of):
    reason = "unable to authenticate user [elastic] for REST request [/_nodes/_local]"
    server = serve(lambda _: answer_of(401, security_error(401, reason)))
    with pytest.raises(CredentialsRefused) as caught:
        connect(Connection((server.url,), username="elastic", password=SECRET))
    assert server.url in caught.value.problem
    assert SECRET not in everything_said(caught.value)


def test_a_key_that_may_not_monitor_the_cluster_can_still_connect(serve, answer_of):
    reason = (
        "action [cluster:monitor/nodes/info] is unauthorized for API key id [x] of user [u], "
        "this action is granted by the cluster privileges [monitor,manage,all]"
    )
    server = serve(lambda _: answer_of(403, security_error(403, reason)))
    with connect(Connection((server.url,), api_key="id:key")) as client:
        assert check_server(client) is None


def test_a_missing_privilege_names_the_action_the_indices_and_what_grants_it(serve, answer_of):
    reason = (
        "action [indices:data/write/bulk[s]] is unauthorized for API key id [VuaCf] of user [svc] "
        "on indices [user_segments-2026], "
        "this action is granted by the index privileges [create_doc,create,index,write,all]"
    )
    server = serve(lambda _: answer_of(403, security_error(403, reason)))
    client = open_client(Connection((server.url,)))
    with pytest.raises(MissingPrivilege) as caught, errors_explained(client, "publish user_segments"):
        client.count(index="user_segments-2026")
    assert "indices:data/write/bulk[s] on user_segments-2026 to publish user_segments" in caught.value.problem
    assert "create_doc, create, index, write, all" in caught.value.cure


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (400, media_type_error(9, 8)),
        (
            406,
            {"error": "Content-Type header [application/vnd.elasticsearch+json; compatible-with=9] is not supported"},
        ),
        (200, {"nodes": {"a": {"version": "8.19.2"}}}),
        (200, {"nodes": {"a": {"version": "10.0.0"}}}),
    ],
)
def test_another_major_version_of_the_server_is_told(serve, answer_of, status, body):
    server = serve(lambda _: answer_of(status, body))
    with pytest.raises(WrongServerVersion, match=r"server 9\.x") as caught:
        connect(Connection((server.url,)))
    assert server.url in caught.value.problem


@pytest.mark.parametrize(
    ("body", "kind"),
    [(b'{"nodes":{}}', "application/json"), (b"<html>Welcome</html>", "text/html"), (b"{", "application/json")],
)
def test_something_that_is_not_elasticsearch_is_told(serve, answer_of, body, kind):
    def handle(_):
        answer = answer_of(200, {})
        answer.body, answer.headers = body, {"Content-Type": kind}
        return answer

    with pytest.raises(WrongServerVersion, match="does not identify itself"):
        connect(Connection((serve(handle).url,)))


def test_a_cluster_that_is_not_ready_is_an_error_with_its_reason(serve, answer_of):
    body = {"error": {"type": "master_not_discovered_exception", "reason": None}, "status": 503}
    with pytest.raises(ClusterError, match=r"503 .*master_not_discovered_exception.*try again later"):
        connect(Connection((serve(lambda _: answer_of(503, body)).url,), max_retries=0))


# --- certificates ---------------------------------------------------------------------------------------------------


@pytest.fixture
def tls(serve, answer_of, tmp_path: Path) -> Callable[..., tuple[str, str]]:
    """A function that starts a TLS server and returns (url, CA file)."""

    def start(*names: str, expires=None) -> tuple[str, str]:
        ca = trustme.CA()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        ca.issue_cert(*names, not_after=expires).configure_cert(context)
        file = tmp_path / "ca.pem"
        ca.cert_pem.write_to_path(file)
        return serve(lambda _: answer_of(200, NODES), context).url, str(file)

    return start


def test_a_certificate_is_accepted_with_its_ca_and_refused_without(tls):
    url, ca = tls("127.0.0.1")
    connect(Connection((url,), ca_certs=ca)).close()
    with pytest.raises(CertificateRefused, match="not trusted") as caught:
        connect(Connection((url,)))
    assert "ca_certs" in caught.value.cure


@pytest.mark.filterwarnings("error")
def test_verification_can_be_switched_off_without_a_warning_a_request(tls):
    url, _ = tls("127.0.0.1")
    connect(Connection((url,), verify_certs=False)).close()


def test_a_certificate_for_another_name_is_refused(tls):
    url, ca = tls("es.example")
    with pytest.raises(CertificateRefused, match=r"another (address|host name)"):
        connect(Connection((url,), ca_certs=ca))


def test_an_expired_certificate_is_refused(tls):
    from datetime import UTC, datetime

    url, ca = tls("127.0.0.1", expires=datetime(2020, 1, 1, tzinfo=UTC))
    with pytest.raises(CertificateRefused, match="expired"):
        connect(Connection((url,), ca_certs=ca))


def test_https_to_a_port_without_tls(serve, answer_of):
    url = serve(lambda _: answer_of(200, NODES)).url.replace("http://", "https://")
    with pytest.raises(CertificateRefused, match="does not speak TLS"):
        connect(Connection((url,), max_retries=0))


def test_http_to_a_port_with_tls_hints_at_https(tls):
    url, _ = tls("127.0.0.1")
    with pytest.raises(ClusterUnreachable) as caught:
        connect(Connection((url.replace("https://", "http://"),), max_retries=0))
    assert "https://" in caught.value.cure


# --- words ----------------------------------------------------------------------------------------------------------


def test_redacted_ids_can_be_compared_but_not_read():
    assert redact("user-12345") == redact("user-12345") != redact("user-12346")
    assert "user-12345" not in redact("user-12345")
    assert redact("user-12345").startswith("us~")


def test_shortened_text_is_one_line_without_credentials():
    text = shorten("a\n b http://elastic:pw@host:9200 " + "x" * 900, 80)
    assert len(text) == 80
    assert text.startswith("a b http://***@host:9200")
