"""How this project talks to Elasticsearch: one connection, and errors that say what is wrong and what to do.

What belongs here: opening and checking the official client, and turning what it raises into one clear error each, with
no secret in it. What does not: what is read or written (session_store, publishing), where settings come from (nothing
here reads the environment).
"""

import base64
import hashlib
import logging
import re
import ssl
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

from elasticsearch import (
    ApiError,
    ConnectionTimeout,
    Elasticsearch,
    SerializationError,
    SSLError,
    TransportError,
    UnsupportedProductError,
)
from elasticsearch import ConnectionError as EsConnectionError
from elasticsearch import __version__ as client_version

from segmentation_assets.errors import SegmentsError

CLIENT_MAJOR: int = client_version[0]
"""The server must have the same major version as the client library."""

_REASON_LENGTH = 300


class ConnectionInvalid(SegmentsError):
    """The connection settings contradict each other or cannot work."""


class ClusterUnreachable(SegmentsError):
    """No answer from any host."""


class CredentialsRefused(SegmentsError):
    """The cluster does not know these credentials (401)."""


class CertificateRefused(SegmentsError):
    """TLS failed: the certificate of the cluster is not trusted, or one side does not speak TLS."""


class WrongServerVersion(SegmentsError):
    """The server is not an Elasticsearch of the client's major version."""


class MissingPrivilege(SegmentsError):
    """The credentials are right but not allowed to do this (403)."""


class ReadOnly(SegmentsError):
    """A block on the cluster or index refuses writes."""


class ClusterTimeout(SegmentsError):
    """The cluster was reached but did not answer in time."""


class ClusterError(SegmentsError):
    """Any other refusal by the cluster."""


class IndexMissing(SegmentsError):
    """There is no index or alias of that name."""


class IndexEmpty(SegmentsError):
    """The index is there but holds nothing (in the time window asked for)."""


@dataclass(frozen=True)
class Connection:
    """Where the cluster is and how to log in. Secrets never show in ``repr``.

    Credentials inside a URL (``https://user:password@host``) are taken out of it and used as user name and password.

    Attributes:
        hosts: URLs with scheme; without a port 443 (https) or 80 (http) is meant, as everywhere on the web.
        api_key: the encoded form, or ``id:key``. Not together with a user name.
        username: for basic authentication, with ``password``.
        password: see ``username``.
        ca_certs: PEM file with the certificate authority that signed the cluster's certificate; None: the system's.
        verify_certs: False accepts any certificate: only for experiments.
        request_timeout: seconds for one request.
        max_retries: how often a request is repeated on another or the same host after a connection failure, 429 or 50x.
        http_compress: gzip requests and ask for gzipped answers: pays over slow networks, costs on fast ones.

    Raises:
        ConnectionInvalid: contradicting or impossible settings.
    """

    hosts: tuple[str, ...]
    api_key: str | None = field(default=None, repr=False)
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    ca_certs: str | None = None
    verify_certs: bool = True
    request_timeout: float = 30.0
    max_retries: int = 3
    http_compress: bool = False

    def __post_init__(self) -> None:
        if not self.hosts:
            raise ConnectionInvalid(
                "No Elasticsearch host is given.", "Give at least one URL, as in https://host:9200."
            )
        split = [_split_host(host.strip()) for host in self.hosts]
        object.__setattr__(self, "hosts", tuple(url for url, _ in split))
        found = {credentials for _, credentials in split if credentials is not None}
        if len(found) > 1:
            raise ConnectionInvalid(
                "The host URLs hold different credentials.", "All hosts belong to one cluster: use one."
            )
        # An unset environment variable often arrives as an empty string.
        for name in ("api_key", "username", "password", "ca_certs"):
            object.__setattr__(self, name, getattr(self, name) or None)
        if found:
            credentials = found.pop()
            if self.username is not None and (self.username, self.password) != credentials:
                raise ConnectionInvalid(
                    "Credentials are given twice: in the URL and as user name and password.", "Remove those in the URL."
                )
            object.__setattr__(self, "username", credentials[0])
            object.__setattr__(self, "password", credentials[1])
        if self.api_key is not None and (self.username is not None or self.password is not None):
            raise ConnectionInvalid(
                "Both an API key and a user name or password are given.",
                "Remove one of them; the API key is the better one.",
            )
        if self.api_key is not None and not (self.api_key.isascii() and self.api_key.isprintable()):
            raise ConnectionInvalid(
                "The API key holds characters that no API key has.", "Copy its 'encoded' value again, in full."
            )
        if (self.username is None) != (self.password is None):
            missing = "password" if self.password is None else "user name"
            raise ConnectionInvalid(f"Basic authentication without a {missing}.", "Give both user name and password.")
        if self.request_timeout <= 0 or self.max_retries < 0:
            raise ConnectionInvalid(
                f"Timeout {self.request_timeout} s and {self.max_retries} retries make no sense.",
                "The timeout must be over 0, retries 0 or more.",
            )
        if self.ca_certs is not None:
            _check_ca(self.ca_certs)

    @property
    def _tls(self) -> bool:
        return any(host.startswith("https://") for host in self.hosts)


def _split_host(host: str) -> tuple[str, tuple[str, str] | None]:
    """Return the URL without credentials, and the credentials. Errors show the host only without them."""
    shown = host.rpartition("@")[2][:200]
    cure = "Write it as http://host:9200 or https://host:9200."
    if "://" not in host:
        raise ConnectionInvalid(f"Elasticsearch URL '{shown}' has no scheme.", cure)
    try:
        parts = urlsplit(host)
        port = parts.port
    except ValueError:
        raise ConnectionInvalid(f"Elasticsearch URL '{shown}' cannot be understood.", cure) from None
    if parts.scheme not in ("http", "https"):
        raise ConnectionInvalid(f"Elasticsearch URL with scheme '{parts.scheme}': only http and https work.", cure)
    if not parts.hostname:
        raise ConnectionInvalid("Elasticsearch URL without a host name.", cure)
    if parts.query or parts.fragment:
        raise ConnectionInvalid(f"Elasticsearch URL of {parts.hostname} with a query or fragment.", cure)
    name = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    port = port or (443 if parts.scheme == "https" else 80)
    url = urlunsplit((parts.scheme, f"{name}:{port}", parts.path.rstrip("/"), "", ""))
    if parts.username is None and parts.password is None:
        return url, None
    return url, (unquote(parts.username or ""), unquote(parts.password or ""))


def _check_ca(ca_certs: str) -> None:
    path = Path(ca_certs)
    if not path.is_file():
        raise ConnectionInvalid(f"The CA certificate file {ca_certs} does not exist.", "Give the path of a PEM file.")
    try:
        ssl.create_default_context(cafile=str(path))
    except (ssl.SSLError, OSError, ValueError) as error:
        raise ConnectionInvalid(
            f"The CA certificate file {ca_certs} cannot be read as PEM ({type(error).__name__}).",
            "It must hold '-----BEGIN CERTIFICATE-----'; a PKCS12 file (.p12) has to be converted with openssl first.",
        ) from None


def open_client(connection: Connection) -> Elasticsearch:
    """Make the client without a single request: for callers that want to check, or not, on their own."""
    options: dict[str, Any] = {
        "request_timeout": connection.request_timeout,
        "max_retries": connection.max_retries,
        "http_compress": connection.http_compress,
    }
    if connection.api_key is not None:
        key = connection.api_key
        options["api_key"] = _encoded(key) if ":" in key else key
    if connection.username is not None and connection.password is not None:
        options["basic_auth"] = _encoded(f"{connection.username}:{connection.password}")
    if connection._tls:
        options["verify_certs"] = connection.verify_certs
        if not connection.verify_certs:
            options["ssl_show_warn"] = False  # chosen by the user, said in the docs; not once a request
        elif connection.ca_certs is not None:
            options["ca_certs"] = connection.ca_certs
    transport_log = logging.getLogger("elastic_transport")
    if transport_log.level == logging.NOTSET:
        # It writes a whole traceback for each attempt; what that comes to is said once, by the error.
        transport_log.setLevel(logging.ERROR)
    return Elasticsearch(list(connection.hosts), **options)


def _encoded(pair: str) -> str:
    """Base64 as the client would make it, but from UTF-8: the client's own raises for anything beyond ASCII."""
    return base64.b64encode(pair.encode()).decode("ascii")


def connect(connection: Connection) -> Elasticsearch:
    """Open the client and make sure that it works: reachable, certificate, credentials, server version.

    A key without the cluster privilege ``monitor`` is not told the server's version; the check then rests on the server
    having accepted the client's compatibility header, and nothing is refused that could work.

    Raises:
        ClusterUnreachable: no host answers.
        CertificateRefused: TLS cannot be set up.
        CredentialsRefused: unknown or missing credentials.
        WrongServerVersion: not an Elasticsearch of this client's major version.
        ClusterTimeout: no answer in time.
        ClusterError: the cluster answers, but with something else.
    """
    client = open_client(connection)
    try:
        check_server(client)
    except BaseException:
        client.close()
        raise
    return client


def check_server(client: Elasticsearch) -> str | None:
    """Check what ``connect`` promises; return the server's version, or None if the credentials may not know it.

    Raises:
        SegmentsError: see ``connect``.
    """
    with errors_explained(client, "check the connection"):
        version = server_version(client)
    if version is not None and version.partition(".")[0] != str(CLIENT_MAJOR):
        raise _wrong_version(f"The server at {_where(client)} is Elasticsearch {version}.")
    return version


def server_version(client: Elasticsearch) -> str | None:
    """Return the version of the node that answers, or None when the credentials may not see it.

    Not ``client.info()``: the embedded node has no ``GET /``. A 403 is an answer from a server that knows us.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "security is off" is the business of whoever runs the cluster
            answer = client.nodes.info(node_id="_local", metric="_none", filter_path="nodes.*.version")
            nodes = answer.get("nodes") or client.nodes.info(filter_path="nodes.*.version").get("nodes", {})
    except ApiError as error:
        if error.meta.status == 403 and _error_type(error) == "security_exception":
            return None
        raise
    return min((str(node["version"]) for node in nodes.values()), default=None)


@contextmanager
def errors_explained(client: Elasticsearch | None = None, doing: str = "") -> Iterator[None]:
    """Turn whatever the client raises inside into exactly one clear error; a ``SegmentsError`` passes unchanged.

    Args:
        client: names the hosts in the message.
        doing: what was being attempted, as in "write user_segments", for the message.

    Raises:
        SegmentsError: one of the classes of this module.
    """
    try:
        yield
    except (ApiError, TransportError, UnsupportedProductError) as error:
        raise explain(error, client, doing) from error


def explain(error: Exception, client: Elasticsearch | None = None, doing: str = "") -> SegmentsError:
    """The clear error for an exception of the client, see ``errors_explained``."""
    where, to = _where(client), f" to {doing}" if doing else ""
    if isinstance(error, UnsupportedProductError | SerializationError):
        return _wrong_version(
            f"What answers at {where} does not identify itself as Elasticsearch {CLIENT_MAJOR} "
            "(another product, a proxy, or a version before 7.14)."
        )
    if isinstance(error, ApiError):
        return _explain_answer(error, where, to)
    if isinstance(error, SSLError):
        return _explain_tls(error, where)
    if isinstance(error, ConnectionTimeout):
        return ClusterTimeout(
            f"Elasticsearch at {where} did not answer in time{to}.",
            "Raise the request timeout, or look at the cluster's load.",
        )
    if isinstance(error, EsConnectionError):
        # Nothing but the kind of failure: the texts below hold object addresses and repeat themselves.
        return ClusterUnreachable(
            f"No Elasticsearch answers at {where} ({_network_cause(error)}).",
            "Check the URL, that the cluster is up, and that no firewall is between; a cluster with TLS needs https://.",
        )
    return ClusterError(f"Elasticsearch at {where} could not be used{to}: {shorten(str(error))}.", "")


def explain_item(index: str, status: int, error: Mapping[str, Any]) -> SegmentsError | None:
    """The clear error for a failed item of a bulk answer when its cause is not in the document, else None."""
    kind, reason = str(error.get("type", "")), str(error.get("reason", ""))
    if kind == "cluster_block_exception":
        return _read_only(reason)
    if kind == "security_exception" or status == 403:
        return _missing_privilege(reason, f" to write {index}")
    return None


NEWEST_WRITE: Mapping[str, Any] = {
    "size": 0,
    "track_total_hits": False,
    "aggregations": {"newest": {"max": {"field": "_seq_no"}}},
}
"""A search for the highest sequence number among what it finds."""


def newest_write(answer: Mapping[str, Any]) -> int | None:
    """What ``NEWEST_WRITE`` found; None where there is no document."""
    value = answer["aggregations"]["newest"]["value"]
    return None if value is None else int(value)


def shorten(text: str, length: int = _REASON_LENGTH) -> str:
    """One line of at most ``length`` characters, with credentials inside URLs blanked."""
    line = re.sub(r"//[^/@\s]+@", "//***@", " ".join(text.split()))
    return line if len(line) <= length else line[: length - 3] + "..."


def redact(identifier: str) -> str:
    """Enough of an id to tell and find it, not enough to know it: two characters and a short hash."""
    return f"{identifier[:2]}~{hashlib.sha256(identifier.encode(errors='replace')).hexdigest()[:10]}"


def _where(client: Elasticsearch | None) -> str:
    if client is None:
        return "the configured address"
    return ", ".join(sorted(shorten(node.base_url) for node in client.transport.node_pool.all()))


def _error_of(error: ApiError) -> dict[str, Any]:
    body = error.body
    found = body.get("error") if isinstance(body, dict) else None
    if isinstance(found, dict):
        return found
    return {"reason": str(found if found is not None else body)}


def _error_type(error: ApiError) -> str:
    return str(_error_of(error).get("type", ""))


def _reason(found: Mapping[str, Any]) -> str:
    """The most telling reason of an error body: that of the innermost cause."""
    texts = [str(found.get("reason") or "")]
    cause = found.get("caused_by")
    while isinstance(cause, dict) and len(texts) < 10:
        texts.append(str(cause.get("reason") or ""))
        cause = cause.get("caused_by")
    return next((text for text in reversed(texts) if text), "no reason given")


def _explain_answer(error: ApiError, where: str, to: str) -> SegmentsError:
    status, found = error.meta.status, _error_of(error)
    kind, reason = str(found.get("type", "")), _reason(found)
    if kind == "media_type_header_exception" or (status in (400, 406) and "compatible-with" in str(error.body)):
        accepted = re.search(r"must be either version (\d+) or (\d+)", str(error.body))
        says = f" It speaks version {accepted[1]}." if accepted else ""
        return _wrong_version(f"The server at {where} refuses a client of version {CLIENT_MAJOR}.{says}")
    if status == 401:
        return CredentialsRefused(
            f"Elasticsearch at {where} refuses the credentials, or needs some and got none (401).",
            "Check the API key (expired? of another cluster?) or user name and password.",
        )
    if kind == "cluster_block_exception":
        return _read_only(reason)
    if status == 403:
        return _missing_privilege(reason, to)
    if kind == "index_not_found_exception":
        name = str(found.get("resource.id") or found.get("index") or "")
        return IndexMissing(f"There is no index or alias '{shorten(name, 100)}' at {where}.", "Check the name.")
    if status in (408, 504) or kind in ("process_cluster_event_timeout_exception", "timeout_exception"):
        return ClusterTimeout(
            f"Elasticsearch at {where} ran into its own timeout{to}.", "Look at the cluster's load; try again."
        )
    cure = "The cluster is busy or not all of it is up: try again later." if status in (429, 502, 503) else ""
    return ClusterError(
        f"Elasticsearch at {where} answered {status}{to}: {kind or 'no error type'}: {shorten(reason)}.", cure
    )


def _causes(error: BaseException) -> str:
    """All that is known: the client keeps the text in different places when it tried once and when it tried again."""
    texts, seen = [], error
    for _ in range(5):
        texts.append(str(getattr(seen, "message", "") or seen))
        if seen.__cause__ is None:
            break
        seen = seen.__cause__
    return "; ".join(dict.fromkeys(texts))


def _explain_tls(error: Exception, where: str) -> CertificateRefused:
    text = _causes(error).lower()
    for sign, what, cure in (
        ("wrong_version_number", "it does not speak TLS there", "Use http:// or the port that speaks TLS."),
        ("record layer failure", "it does not speak TLS there", "Use http:// or the port that speaks TLS."),
        ("doesn't match", "the certificate is for another host name", "Use the name that is in the certificate."),
        ("hostname mismatch", "the certificate is for another host name", "Use the name that is in the certificate."),
        ("ip address mismatch", "the certificate is for another address", "Use the name that is in the certificate."),
        ("has expired", "the certificate has expired", "Renew it."),
        ("not yet valid", "the certificate is not valid yet", "Check the clocks."),
        ("self-signed", "it is self-signed and not trusted", "Give the CA's certificate (ca_certs)."),
        ("self signed", "it is self-signed and not trusted", "Give the CA's certificate (ca_certs)."),
        ("unable to get local issuer", "its issuer is not trusted", "Give the CA's certificate (ca_certs)."),
    ):
        if sign in text:
            return CertificateRefused(f"No trusted TLS connection with {where}: {what}.", cure)
    return CertificateRefused(
        f"No TLS connection with {where}: {shorten(_causes(error), 200)}.", "Check certificate and ca_certs."
    )


def _network_cause(error: Exception) -> str:
    text = _causes(error).lower()
    for sign, what in (
        ("connection refused", "connection refused"),
        ("name or service not known", "unknown host name"),
        ("name resolution", "unknown host name"),
        ("nodename nor servname", "unknown host name"),
        ("no address associated", "unknown host name"),
        ("failed to resolve", "unknown host name"),
        ("no route to host", "no route to the host"),
        ("network is unreachable", "network unreachable"),
        ("connection reset", "it closed the connection"),
        ("remotedisconnected", "it closed the connection"),
        ("connection aborted", "it closed the connection"),
        ("broken pipe", "it closed the connection"),
    ):
        if sign in text:
            return what
    return "connection failed"


def _wrong_version(problem: str) -> WrongServerVersion:
    return WrongServerVersion(
        problem,
        f"The elasticsearch client installed here is version {CLIENT_MAJOR} and needs a server {CLIENT_MAJOR}.x: "
        "use such a cluster, or a release of this project made for the server's major version.",
    )


def _missing_privilege(reason: str, to: str) -> MissingPrivilege:
    action = re.search(r"action \[((?:[^\[\]]|\[\w\])+)\]", reason)
    indices = re.search(r"on (?:restricted )?indices \[([^\]]*)\]", reason)
    granted = re.search(r"granted by the (\w+) privileges? \[([^\]]*)\]", reason)
    what = f"the action {action[1]}" if action else "this"
    on = f" on {shorten(indices[1], 100)}" if indices else ""
    cure = "Grant it to the user or API key."
    if granted:
        cure = f"Grant one of the {granted[1]} privileges {granted[2].replace(',', ', ')} to the user or API key."
    return MissingPrivilege(f"The credentials are not allowed {what}{on}{to} (403).", cure)


def _read_only(reason: str) -> ReadOnly:
    index = re.search(r"index \[([^\]]+)\]", reason)
    name = f"Index {index[1]}" if index else "The cluster"
    if "flood-stage" in reason or "read-only-allow-delete" in reason:
        return ReadOnly(
            f"{name} is read-only because the cluster's disk is nearly full (flood-stage watermark).",
            "Free disk space; Elasticsearch then lifts the block by itself.",
        )
    block = re.search(r"\[\w+/\d+/([^\]]+)\]", reason)
    return ReadOnly(
        f"{name} refuses this because of a block: {shorten(block[1] if block else reason, 150)}.",
        "Remove the block (index.blocks.* or cluster.blocks.* settings).",
    )
