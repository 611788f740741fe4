"""One-shot: what a new Elasticsearch needs before Kibana and the code location can log in.

Sets the password of ``kibana_system`` and keeps one API key a role, with the privileges in ``api_keys.json`` and no
others. Safe to run again: a key that still works is kept, and given the privileges of the file if those have changed.
Standard library only. No password or key is ever printed.
"""

import base64
import http.client
import json
import logging
import os
import ssl
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

log = logging.getLogger("setup")

STARTING = {401, 429, 502, 503}  # while a node starts, its security index may not answer yet: 401 is not final either


class SetupError(Exception):
    """What stops the setup, in a sentence that can be shown."""


class Cluster:
    """Just enough of an HTTP client: one JSON request, one JSON answer."""

    def __init__(self, url: str, ca_certs: str | None, authorization: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise SetupError("ELASTICSEARCH_URL must look like https://host:9200.")
        self._host = parts.hostname
        self._port = parts.port or 9200
        self._tls = ssl.create_default_context(cafile=ca_certs) if parts.scheme == "https" else None
        self._headers = {"Authorization": authorization, "Content-Type": "application/json"}

    def call(self, method: str, path: str, body: object | None = None) -> tuple[int, dict[str, Any]]:
        """Send one request and return the status and the decoded answer, whatever the status is."""
        connection: http.client.HTTPConnection
        if self._tls is None:
            connection = http.client.HTTPConnection(self._host, self._port, timeout=30)
        else:
            connection = http.client.HTTPSConnection(self._host, self._port, timeout=30, context=self._tls)
        try:
            connection.request(method, path, None if body is None else json.dumps(body), self._headers)
            response = connection.getresponse()
            text = response.read()
        finally:
            connection.close()
        try:
            answer = json.loads(text or b"{}")
        except ValueError:
            answer = {}
        return response.status, answer if isinstance(answer, dict) else {}

    def must(self, method: str, path: str, body: object | None = None) -> dict[str, Any]:
        """Send one request and return its answer; anything but success ends the setup."""
        status, answer = self.call(method, path, body)
        if status >= 300:
            error = answer.get("error")
            cause = error.get("type", "") if isinstance(error, dict) else ""
            raise SetupError(f"{method} {path} was answered with {status} {cause}".rstrip() + ".")
        return answer


def wait_until_ready(cluster: Cluster, seconds: float) -> None:
    """Return once the cluster can serve requests, or say what it answered last."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            status, _ = cluster.call("GET", "/_cluster/health?wait_for_status=yellow&timeout=5s")
        except ssl.SSLCertVerificationError as error:
            raise SetupError(
                f"The server's certificate does not match ELASTICSEARCH_CA_CERTS: {error.verify_message}."
            ) from None
        except (OSError, http.client.HTTPException) as error:
            last = f"no connection ({type(error).__name__})"
        else:
            if status == 200:
                return
            if status not in STARTING and status != 408:
                raise SetupError(f"Elasticsearch answered the health request with {status}.")
            last = f"status {status}"
        if time.monotonic() > deadline:
            cure = ""
            if last == "status 401":
                cure = (
                    " ELASTIC_PASSWORD is not the password this cluster was first started with: put that one back in"
                    " .env, or change the cluster's with elasticsearch-reset-password in its container."
                )
            raise SetupError(f"Elasticsearch was not ready within {seconds:.0f} s; the last try gave {last}.{cure}")
        time.sleep(min(2.0, seconds / 10))


def works(url: str, ca_certs: str | None, encoded: str) -> str | None:
    """Return the id of the key if the cluster accepts it, else nothing."""
    status, answer = Cluster(url, ca_certs, f"ApiKey {encoded}").call("GET", "/_security/_authenticate")
    if status == 401:
        return None
    if status != 200:
        raise SetupError(f"Trying the stored API key was answered with {status}.")
    key = answer.get("api_key", {})
    return str(key.get("id", "")) or None


def store(path: Path, text: str) -> None:
    """Put a secret in a file that only its owner can read, never half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.new")
    temporary.unlink(missing_ok=True)
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def ensure_key(admin: Cluster, url: str, ca_certs: str | None, request: dict[str, Any], path: Path) -> None:
    """Leave in ``path`` a key that works and has the privileges of ``request``."""
    name, roles = request["name"], request["role_descriptors"]
    encoded = path.read_text(encoding="ascii").strip() if path.exists() else ""
    key_id = works(url, ca_certs, encoded) if encoded else None
    if key_id:
        updated = admin.must("PUT", f"/_security/api_key/{key_id}", {"role_descriptors": roles}).get("updated")
        log.info("API key %s kept%s.", name, ", its privileges brought up to date" if updated else "")
    else:
        # The keys of earlier volumes: nobody holds them any more. 404: there was none.
        status, _ = admin.call("DELETE", "/_security/api_key", {"name": name, "owner": True})
        if status not in {200, 404}:
            raise SetupError(f"Invalidating the earlier keys named {name} was answered with {status}.")
        encoded = str(admin.must("POST", "/_security/api_key", request)["encoded"])
        store(path, encoded)
        log.info("API key %s made.", name)

    wanted = [role for descriptor in roles.values() for role in descriptor["indices"]]
    cluster = sorted({privilege for descriptor in roles.values() for privilege in descriptor["cluster"]})
    answer = Cluster(url, ca_certs, f"ApiKey {encoded}").must(
        "POST", "/_security/user/_has_privileges", {"cluster": cluster, "index": wanted}
    )
    if not answer.get("has_all_requested"):
        raise SetupError(f"The API key {name} lacks privileges it was made with.")


def main() -> int:
    """Run the setup from the environment; 0 if everything is in place."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    requests = json.loads(Path(__file__).with_name("api_keys.json").read_text(encoding="utf-8"))
    try:
        url = os.environ["ELASTICSEARCH_URL"]
        folder = Path(os.environ["API_KEY_DIR"])
        password = os.environ["ELASTIC_PASSWORD"]
        kibana_password = os.environ["KIBANA_SYSTEM_PASSWORD"]
    except KeyError as error:
        log.error("%s is not set.", error.args[0])
        return 1
    ca_certs = os.environ.get("ELASTICSEARCH_CA_CERTS") or None
    seconds = float(os.environ.get("SETUP_TIMEOUT_SECONDS", "300"))
    try:
        basic = base64.b64encode(f"elastic:{password}".encode()).decode()
        admin = Cluster(url, ca_certs, f"Basic {basic}")
        wait_until_ready(admin, seconds)
        admin.must("POST", "/_security/user/kibana_system/_password", {"password": kibana_password})
        log.info("Password of kibana_system set.")
        for role, request in requests.items():
            ensure_key(admin, url, ca_certs, request, folder / f"{role}.key")
    except SetupError as error:
        log.error("%s", error)
        return 1
    except (OSError, http.client.HTTPException) as error:
        log.error("The setup stopped: %s.", error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
