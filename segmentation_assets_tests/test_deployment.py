"""The docker compose deployment, as far as it can be tried without a container engine."""

import json
import os
import re
import shutil
import ssl
import stat
import subprocess
import sys
import threading
import tomllib
from base64 import b64encode
from collections.abc import Iterator
from http.client import HTTPSConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from sqlalchemy import create_engine

from segmentation_assets.defs.resources import ENVIRONMENT, _fields

ROOT = Path(__file__).resolve().parent.parent
OPTIONAL = ("SEGMENTS_ENRICHMENT_TOKEN",)
"""Secrets that a deployment may do without."""

PASSWORD = "elastic-password-of-the-test"
KIBANA_PASSWORD = "kibana-password-of-the-test"

compose: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
services: dict[str, dict[str, Any]] = compose["services"]
api_keys: dict[str, Any] = json.loads((ROOT / "docker" / "api_keys.json").read_text(encoding="utf-8"))

needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")


class TestCompose:
    """docker-compose.yml and the files beside it agree with each other and with the package."""

    def test_every_image_is_pinned_to_a_full_version(self) -> None:
        bases = re.findall(r"^FROM (\S+)", (ROOT / "docker" / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)
        images = [service["image"] for service in services.values()] + bases
        assert len(bases) == 2
        for image in images:
            assert re.search(r":v?\d+\.\d+(\.\d+)?(-[a-z-]+)?$", image), image

    def test_elasticsearch_kibana_and_the_embedded_node_have_one_version(self) -> None:
        jars = json.loads((ROOT / "segmentation_assets" / "local" / "jars.lock.json").read_text(encoding="utf-8"))
        (embedded,) = [
            jar["version"] for jar in jars if (jar["group"], jar["artifact"]) == ("org.elasticsearch", "elasticsearch")
        ]
        assert services["elasticsearch"]["image"] == f"elasticsearch:{embedded}"
        assert services["kibana"]["image"] == f"kibana:{embedded}"

    def test_our_image_has_the_version_of_the_project(self) -> None:
        version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
        ours = {service["image"] for service in services.values() if service["image"].startswith("segmentation-assets")}
        assert ours == {f"segmentation-assets:{version}"}

    def test_no_secret_has_a_default(self) -> None:
        for name, service in services.items():
            for variable, value in (service.get("environment") or {}).items():
                if re.search(r"PASSWORD|ENCRYPTIONKEY|SECRET|TOKEN", variable):
                    asked = re.fullmatch(r"\$\{([A-Z_]+):(?:\?set \1 in \.env|-)\}", value)
                    assert asked, f"{name}: {variable}"
                    assert value.endswith(":-}") == (variable in OPTIONAL), f"{name}: {variable}"

    def test_an_optional_secret_reaches_the_code_location_alone_and_is_documented(self) -> None:
        known = {variable for fields in ENVIRONMENT.values() for variable in fields.values()}
        page = (ROOT / "docs" / "deployment.md").read_text(encoding="utf-8")
        for variable in OPTIONAL:
            holders = [name for name, service in services.items() if variable in (service.get("environment") or {})]
            assert holders == ["code-location"]
            assert variable in known
            assert f"`{variable}" in page

    def test_an_optional_secret_that_is_not_set_is_as_if_it_were_not_there(self) -> None:
        """Compose gives the service an empty variable."""
        assert _fields(dict.fromkeys(OPTIONAL, ""), str)["settings"] == {}
        assert _fields(dict.fromkeys(OPTIONAL, "secret"), str)["settings"] == {"enrichment_token": OPTIONAL[0]}

    def test_the_example_env_file_names_every_required_variable_and_fills_none(self) -> None:
        required = set(re.findall(r"\$\{([A-Z_]+):\?", (ROOT / "docker-compose.yml").read_text(encoding="utf-8")))
        lines = (ROOT / ".env.example").read_text(encoding="utf-8").splitlines()
        settings = [line for line in lines if line and not line.startswith("#")]
        assert set(settings) == {f"{variable}=" for variable in required}

    def test_every_service_has_a_health_check_or_is_a_one_shot(self) -> None:
        one_shots = {name for name, service in services.items() if service.get("restart") == "no"}
        assert one_shots == {"certificates", "setup", "import", "keys"}
        for name, service in services.items():
            assert ("healthcheck" in service) == (name not in one_shots), name

    def test_what_is_waited_for_can_be_reached(self) -> None:
        for name, service in services.items():
            for other, how in service.get("depends_on", {}).items():
                wanted = "service_healthy" if "healthcheck" in services[other] else "service_completed_successfully"
                assert how == {"condition": wanted}, f"{name} -> {other}"

    def test_ports_are_published_on_loopback_only(self) -> None:
        published = [port for service in services.values() for port in service.get("ports", [])]
        assert len(published) == 9
        assert all(port.startswith("127.0.0.1:") for port in published)

    def test_every_volume_is_named_and_declared(self) -> None:
        used = {volume.split(":")[0] for service in services.values() for volume in service.get("volumes", [])}
        assert used == set(compose["volumes"])

    def test_only_those_who_need_elasticsearch_can_reach_it(self) -> None:
        assert {name for name, service in services.items() if "search" in service.get("networks", [])} == {
            "elasticsearch",
            "kibana",
            "setup",
            "code-location",
            "import",
            "stream",
            "serve",
        }
        holders = {
            name
            for name, service in services.items()
            if any(v.startswith("api_keys:") for v in service.get("volumes", []))
        }
        assert holders == {"setup", "code-location", "import", "stream", "serve"}

    def test_every_service_uses_a_key_that_is_made_and_no_two_share_one(self) -> None:
        variable = "ELASTICSEARCH_API_KEY_FILE"
        used = [service["environment"][variable] for service in services.values() if variable in _environment(service)]
        assert sorted(used) == sorted(f"/run/segments/{role}.key" for role in api_keys)

    def test_what_only_streams_need_is_started_only_when_asked_for(self) -> None:
        live = {name for name, service in services.items() if service.get("profiles") == ["live"]}
        assert live == {"kafka", "redis", "mosquitto", "stream", "keys", "serve", "prometheus", "grafana"}
        for name in set(services) - live:
            assert not live & set(services[name].get("depends_on", {})), name

    def test_the_stream_the_api_and_the_assets_mean_one_store(self) -> None:
        named = {name: service["environment"]["SEGMENTS_REDIS_URL"] for name, service in services.items()
                 if "SEGMENTS_REDIS_URL" in _environment(service)}  # fmt: skip
        assert set(named) == {"code-location", "stream", "serve"}
        assert len(set(named.values())) == 1
        assert all({"live"} <= set(services[name]["networks"]) for name in named)

    def test_the_store_forgets_nobody_for_want_of_memory_and_writes_everything_down(self) -> None:
        command = services["redis"]["command"]
        assert dict(zip(command[1::2], command[2::2], strict=True)) == {
            "--appendonly": "yes",
            "--appendfsync": "everysec",
            "--save": "",
            "--maxmemory-policy": "noeviction",
        }

    def test_keys_of_the_api_are_kept_where_only_the_api_reads_them(self) -> None:
        def holders(volume: str) -> dict[str, bool]:
            """Service to whether it may write."""
            return {
                name: not mount.endswith(":ro")
                for name, service in services.items()
                for mount in service.get("volumes", [])
                if mount.startswith(f"{volume}:")
            }

        assert holders("serve_keys") == {"keys": True, "serve": False}
        assert holders("metrics_key") == {"keys": True, "prometheus": False}
        assert services["keys"]["network_mode"] == "none"
        environment = services["serve"]["environment"]
        assert environment["SEGMENTS_API_KEYS"] == services["keys"]["environment"]["SEGMENTS_API_KEYS"]

    def test_prometheus_asks_where_they_listen_with_the_key_that_is_made_for_it(self) -> None:
        asked = yaml.safe_load((ROOT / "docker" / "prometheus.yml").read_text(encoding="utf-8"))["scrape_configs"]
        stream, serve = asked
        (found,) = stream["dns_sd_configs"]
        (name,) = found["names"]
        assert f"--metrics-port={found['port']}" in services[name]["command"]
        assert "--metrics-host=0.0.0.0" in services[name]["command"]
        (target,) = serve["static_configs"][0]["targets"]
        host, port = target.split(":")
        assert f"--port={port}" in services[host]["command"]
        assert serve["authorization"]["credentials_file"] == services["keys"]["environment"]["METRICS_KEY"]
        dockerfile = (ROOT / "docker" / "Dockerfile").read_text(encoding="utf-8")
        (group,) = services["prometheus"]["group_add"]
        assert f"groupadd --gid {group} segments" in dockerfile

    def test_every_file_that_is_mounted_is_there_and_used(self) -> None:
        used = {config["source"] for service in services.values() for config in service.get("configs", [])}
        assert used == set(compose["configs"])
        for name, config in compose["configs"].items():
            assert "content" in config or (ROOT / config["file"]).is_file(), name

    def test_the_image_has_every_extra_that_a_service_needs(self) -> None:
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        (named,) = re.findall(r"for extra in (\([^)]*\))", (ROOT / "docker" / "Dockerfile").read_text(encoding="utf-8"))
        installed = re.findall(r'"(\w+)"', named)
        assert installed == ["postgres", "stream", "serve"]
        assert set(installed) <= set(extras["optional-dependencies"])

    def test_only_the_certificates_are_made_as_root(self) -> None:
        assert [name for name, service in services.items() if "user" in service] == ["certificates"]
        assert services["certificates"]["network_mode"] == "none"
        users = re.findall(r"^USER (\S+)", (ROOT / "docker" / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)
        assert users == ["segments"]

    def test_the_code_location_has_one_name_and_one_port_everywhere(self) -> None:
        settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["dagster"]
        local = yaml.safe_load((ROOT / "workspace.yaml").read_text(encoding="utf-8"))["load_from"][0]["python_module"]
        server = yaml.safe_load((ROOT / "docker" / "workspace.yaml").read_text(encoding="utf-8"))["load_from"][0][
            "grpc_server"
        ]
        command = services["code-location"]["command"]

        assert local["location_name"] == server["location_name"] == settings["code_location_name"]
        assert f"--location-name={settings['code_location_name']}" in command
        assert f"--module-name={settings['module_name']}" in command
        assert local["module_name"] == settings["module_name"]
        assert server["host"] in services
        assert f"--port={server['port']}" in command
        assert f"--port={server['port']}" in services["code-location"]["healthcheck"]["test"]

    def test_the_image_gets_every_file_it_copies(self) -> None:
        dockerfile = (ROOT / "docker" / "Dockerfile").read_text(encoding="utf-8")
        allowed = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
        copied = [
            source
            for line in re.findall(r"^COPY (?!--from)(.+)$", dockerfile, re.MULTILINE)
            for source in line.split()[:-1]
        ]
        assert copied
        for source in copied:
            assert (ROOT / source).exists(), source
            assert f"!{source}" in allowed

    @pytest.mark.skipif(
        subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode != 0
        if shutil.which("docker")
        else True,
        reason="the compose plugin is not installed",
    )
    def test_compose_itself_accepts_the_file_once_the_secrets_are_set(self, tmp_path: Path) -> None:
        required = (ROOT / ".env.example").read_text(encoding="utf-8")
        filled = tmp_path / "filled.env"
        filled.write_text(re.sub(r"^([A-Z_]+)=$", r"\1=" + "0" * 48, required, flags=re.MULTILINE), encoding="utf-8")
        for path, accepted in [(filled, True), (ROOT / ".env.example", False)]:
            command = ["docker", "compose", "--env-file", str(path), "--profile", "*", "config", "--quiet"]
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
            assert (done.returncode == 0) == accepted, done.stderr


class TestDagsterInstance:
    """docker/dagster.yaml is one that Dagster takes."""

    def test_dagster_accepts_every_setting(self, tmp_path: Path) -> None:
        pytest.importorskip("dagster_postgres", reason="the postgres extra is not installed")
        from dagster._core.instance.ref import InstanceRef
        from dagster_postgres import DagsterPostgresStorage

        shutil.copy(ROOT / "docker" / "dagster.yaml", tmp_path / "dagster.yaml")
        ref = InstanceRef.from_dir(str(tmp_path))

        assert ref.storage_data is not None
        config = ref.storage_data.config_dict
        assert ref.storage_data.class_name == DagsterPostgresStorage.__name__
        assert set(config) == {"postgres_db"}
        assert ref.settings["concurrency"]["runs"]["max_concurrent_runs"] == 1

    def test_the_database_driver_is_the_one_that_is_installed(self) -> None:
        """SQLAlchemy 2.1 looks for psycopg unless another is named; dagster-postgres brings psycopg2."""
        utils = pytest.importorskip("dagster_postgres.utils", reason="the postgres extra is not installed")
        settings = yaml.safe_load((ROOT / "docker" / "dagster.yaml").read_text(encoding="utf-8"))
        database = settings["storage"]["postgres"]["postgres_db"]
        given = {name: "x" if isinstance(value, dict) else value for name, value in database.items()}
        engine = create_engine(utils.pg_url_from_config({"postgres_db": given}))
        assert engine.dialect.driver == "psycopg2"

    def test_its_environment_is_given_to_every_service_of_dagster(self) -> None:
        text = (ROOT / "docker" / "dagster.yaml").read_text(encoding="utf-8")
        read = set(re.findall(r"env: (\w+)", text))
        assert len(read) == 4
        for name in ("code-location", "webserver", "daemon"):
            assert read <= set(services[name]["environment"]), name
            assert "dagster" in [config["source"] for config in services[name]["configs"]]


def _environment(service: dict[str, Any]) -> dict[str, Any]:
    return service.get("environment") or {}


class TestPrivileges:
    """docker/api_keys.json: no more than docs/deployment.md explains."""

    def test_the_documentation_lists_exactly_these_privileges(self) -> None:
        documented: set[tuple[str, str, str]] = set()
        page = (ROOT / "docs" / "deployment.md").read_text(encoding="utf-8")
        for row in re.findall(r"^\| (pipeline|import|stream|serve) \| ([^|]+) \| ([^|]+) \|", page, re.MULTILINE):
            key, where, privileges = row
            for place in re.findall(r"`([^`]+)`", where) or ["cluster"]:
                documented |= {(key, place, privilege) for privilege in re.findall(r"`([^`]+)`", privileges)}

        granted: set[tuple[str, str, str]] = set()
        for key, request in api_keys.items():
            for descriptor in request["role_descriptors"].values():
                granted |= {(key, "cluster", privilege) for privilege in descriptor["cluster"]}
                for entry in descriptor["indices"]:
                    granted |= {(key, name, privilege) for name in entry["names"] for privilege in entry["privileges"]}
        assert documented == granted

    def test_a_run_cannot_change_sessions_and_an_import_cannot_touch_segments(self) -> None:
        for request in api_keys.values():
            for descriptor in request["role_descriptors"].values():
                assert set(descriptor) == {"cluster", "indices"}
                assert set(descriptor["cluster"]) <= {"monitor", "manage_index_templates"}
        (pipeline,) = api_keys["pipeline"]["role_descriptors"].values()
        sessions, segments = pipeline["indices"]
        assert sessions == {
            "names": ["user_sessions", "user_sessions_rejected", "user_attributes"],
            "privileges": ["read", "view_index_metadata"],
        }
        assert segments["names"] == ["user_segments", "user_segments-*", "user_profiles", "user_profiles-*"]
        (importing,) = api_keys["import"]["role_descriptors"].values()
        assert [entry["names"] for entry in importing["indices"]] == [["user_sessions", "user_sessions_rejected"]]

    def test_the_stream_changes_documents_and_no_index_and_the_api_only_reads_profiles(self) -> None:
        (streaming,) = api_keys["stream"]["role_descriptors"].values()
        (serving,) = api_keys["serve"]["role_descriptors"].values()
        assert streaming["cluster"] == serving["cluster"] == ["monitor"]
        (published,) = streaming["indices"]
        assert published["privileges"] == ["read", "view_index_metadata", "write"]
        assert not [name for name in published["names"] if name.startswith("user_sessions")]
        assert serving["indices"] == [{"names": ["user_profiles", "user_profiles-*"], "privileges": ["read"]}]


class SecurityApi(ThreadingHTTPServer):
    """As much of Elasticsearch's security API as the setup uses, with a memory of what it was asked."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        super().__init__(("127.0.0.1", 0), SecurityApiHandler)
        if context is not None:
            self.socket = context.wrap_socket(self.socket, server_side=True)
        self.scheme = "http" if context is None else "https"
        self.password = PASSWORD
        self.keys: dict[str, dict[str, Any]] = {}
        self.asked: list[tuple[str, str, Any]] = []
        self.unready = 0
        self.lacking = False
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.server_address[1]}"

    def changes(self) -> list[str]:
        """The requests that change something, without the ids."""
        return [
            f"{method} {_without_id(path)}"
            for method, path, _ in self.asked
            if method != "GET" and "_has_privileges" not in path
        ]

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that breaks off the TLS handshake is part of a test, not news."""


def _without_id(path: str) -> str:
    return re.sub(r"(?<=/api_key/).+", "ID", path)


class SecurityApiHandler(BaseHTTPRequestHandler):
    server: SecurityApi

    def _answer(self) -> tuple[int, dict[str, Any]]:
        server, authorization = self.server, self.headers.get("Authorization", "")
        length = int(self.headers.get("Content-Length") or 0)
        body: Any = json.loads(self.rfile.read(length)) if length else None
        server.asked.append((self.command, self.path, body))
        key = next((key for key in server.keys.values() if authorization == f"ApiKey {key['encoded']}"), None)
        admin = authorization == "Basic " + b64encode(f"elastic:{server.password}".encode()).decode()
        if not admin and key is None:
            return 401, {"error": {"type": "security_exception"}}
        if self.path.startswith("/_cluster/health"):
            server.unready -= 1
            return (503, {}) if server.unready >= 0 else (200, {"status": "green"})
        match self.command, _without_id(self.path):
            case "GET", "/_security/_authenticate":
                return 200, {"api_key": {"id": key["id"]}} if key else {}
            case "POST", "/_security/user/_has_privileges" if key:
                return 200, {"has_all_requested": not server.lacking}
            case "POST", "/_security/user/kibana_system/_password" if admin:
                return 200, {}
            case "POST", "/_security/api_key" if admin:
                number = len(server.asked)
                made = {"id": f"id{number}", "encoded": f"encoded-key-{number}", **body}
                server.keys[made["id"]] = made
                return 200, {"id": made["id"], "encoded": made["encoded"]}
            case "PUT", "/_security/api_key/ID" if admin:
                known = server.keys[self.path.rsplit("/", 1)[1]]
                updated = known["role_descriptors"] != body["role_descriptors"]
                known.update(body)
                return 200, {"updated": updated}
            case "DELETE", "/_security/api_key" if admin:
                gone = [id for id, key in server.keys.items() if key["name"] == body["name"]]
                for id in gone:
                    del server.keys[id]
                return (200, {"invalidated_api_keys": gone}) if gone else (404, {})
        return 403, {"error": {"type": "security_exception"}}

    def _respond(self) -> None:
        status, answer = self._answer()
        payload = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    do_GET = do_POST = do_PUT = do_DELETE = _respond

    def log_message(self, format: str, *args: object) -> None:
        """Keep the test's output clean."""


@pytest.fixture
def cluster() -> Iterator[SecurityApi]:
    with SecurityApi() as server:
        yield server
        server.shutdown()


def run_setup(server: SecurityApi, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run docker/setup.py as the container does; no secret may ever be in what it prints."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "docker" / "setup.py")],
        env={
            "PATH": os.environ["PATH"],
            "ELASTICSEARCH_URL": server.url,
            "ELASTIC_PASSWORD": PASSWORD,
            "KIBANA_SYSTEM_PASSWORD": KIBANA_PASSWORD,
            "API_KEY_DIR": str(folder),
            "SETUP_TIMEOUT_SECONDS": "1",
            **environment,
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    printed = done.stdout + done.stderr
    assert "Traceback" not in printed
    for secret in [PASSWORD, KIBANA_PASSWORD, *(key["encoded"] for key in server.keys.values())]:
        assert secret not in printed
    return done


class TestSetup:
    """docker/setup.py against a server that plays Elasticsearch's security API."""

    def test_a_new_cluster_gets_a_kibana_password_and_one_key_a_role(
        self, cluster: SecurityApi, tmp_path: Path
    ) -> None:
        assert run_setup(cluster, tmp_path).returncode == 0
        assert ("POST", "/_security/user/kibana_system/_password", {"password": KIBANA_PASSWORD}) in cluster.asked
        assert {key["name"]: key["role_descriptors"] for key in cluster.keys.values()} == {
            request["name"]: request["role_descriptors"] for request in api_keys.values()
        }
        stored = {path.name: path for path in tmp_path.iterdir()}
        assert set(stored) == {"pipeline.key", "import.key", "stream.key", "serve.key"}
        for role, request in api_keys.items():
            path = stored[f"{role}.key"]
            (made,) = [key for key in cluster.keys.values() if key["name"] == request["name"]]
            assert path.read_text() == made["encoded"]
            assert stat.S_IMODE(path.stat().st_mode) == 0o600

    def test_a_second_start_makes_nothing_new(self, cluster: SecurityApi, tmp_path: Path) -> None:
        run_setup(cluster, tmp_path)
        keys = {path.name: path.read_text() for path in tmp_path.iterdir()}
        cluster.asked.clear()
        assert run_setup(cluster, tmp_path).returncode == 0
        assert {path.name: path.read_text() for path in tmp_path.iterdir()} == keys
        assert cluster.changes() == [
            "POST /_security/user/kibana_system/_password",
            *["PUT /_security/api_key/ID"] * 4,
        ]

    def test_changed_privileges_reach_the_key_that_is_in_use(self, cluster: SecurityApi, tmp_path: Path) -> None:
        run_setup(cluster, tmp_path)
        for key in cluster.keys.values():
            key["role_descriptors"] = {"old": {"cluster": ["all"], "indices": []}}
        assert "brought up to date" in run_setup(cluster, tmp_path).stdout
        assert [key["role_descriptors"] for key in cluster.keys.values()] == [
            request["role_descriptors"] for request in api_keys.values()
        ]

    def test_a_key_the_cluster_refuses_is_replaced_and_its_namesakes_removed(
        self, cluster: SecurityApi, tmp_path: Path
    ) -> None:
        run_setup(cluster, tmp_path)
        (tmp_path / "pipeline.key").write_text("from-another-cluster")
        assert run_setup(cluster, tmp_path).returncode == 0
        assert len(cluster.keys) == len(api_keys)
        assert (tmp_path / "pipeline.key").read_text() in {key["encoded"] for key in cluster.keys.values()}

    def test_it_waits_for_a_cluster_that_is_still_starting(self, cluster: SecurityApi, tmp_path: Path) -> None:
        cluster.unready = 3
        assert run_setup(cluster, tmp_path, SETUP_TIMEOUT_SECONDS="3").returncode == 0

    def test_a_wrong_password_ends_with_the_cure(self, cluster: SecurityApi, tmp_path: Path) -> None:
        cluster.password = "the-first-one"
        done = run_setup(cluster, tmp_path)
        assert done.returncode == 1
        assert "ELASTIC_PASSWORD is not the password" in done.stdout
        assert not list(tmp_path.iterdir())

    def test_a_key_without_its_privileges_fails_the_setup(self, cluster: SecurityApi, tmp_path: Path) -> None:
        cluster.lacking = True
        done = run_setup(cluster, tmp_path)
        assert done.returncode == 1
        assert "lacks privileges" in done.stdout

    def test_a_missing_variable_is_named(self, cluster: SecurityApi, tmp_path: Path) -> None:
        done = subprocess.run(
            [sys.executable, str(ROOT / "docker" / "setup.py")],
            env={"PATH": os.environ["PATH"], "ELASTICSEARCH_URL": cluster.url, "API_KEY_DIR": str(tmp_path)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 1
        assert done.stdout == "ELASTIC_PASSWORD is not set.\n"


@pytest.fixture
def tls(tmp_path: Path) -> dict[str, str]:
    """The folders that docker/certificates.sh fills, as its environment names them."""
    folders = {"TLS_PUBLIC": tmp_path / "public", "TLS_PRIVATE": tmp_path / "private"}
    for folder in folders.values():
        folder.mkdir()
    return {"PATH": os.environ["PATH"], **{name: str(folder) for name, folder in folders.items()}}


def make_certificates(environment: dict[str, str], **more: str) -> str:
    return subprocess.run(
        ["sh", str(ROOT / "docker" / "certificates.sh")],
        env={**environment, **more},
        capture_output=True,
        text=True,
        check=True,
    ).stdout


@needs_openssl
class TestCertificates:
    """docker/certificates.sh."""

    def test_the_setup_trusts_this_authority_and_no_other(self, tls: dict[str, str], tmp_path: Path) -> None:
        make_certificates(tls)
        private = Path(tls["TLS_PRIVATE"])
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(private / "elasticsearch.crt", private / "elasticsearch.key")
        with SecurityApi(context) as server:
            ca = str(Path(tls["TLS_PUBLIC"]) / "ca.crt")
            assert run_setup(server, tmp_path / "keys", ELASTICSEARCH_CA_CERTS=ca).returncode == 0
            refused = run_setup(server, tmp_path / "others")
            server.shutdown()
        assert refused.returncode == 1
        assert "certificate does not match" in refused.stdout

    def test_it_holds_under_the_strictest_verification(self, tls: dict[str, str]) -> None:
        make_certificates(tls)
        private = Path(tls["TLS_PRIVATE"])
        server_side = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        server_side.load_cert_chain(private / "elasticsearch.crt", private / "elasticsearch.key")
        client = ssl.create_default_context(cafile=str(Path(tls["TLS_PUBLIC"]) / "ca.crt"))
        client.verify_flags |= ssl.VERIFY_X509_STRICT
        with SecurityApi(server_side) as server:
            connection = HTTPSConnection("localhost", server.server_address[1], context=client, timeout=10)
            connection.request("GET", "/")
            assert connection.getresponse().status == 401
            connection.close()
            server.shutdown()

    def test_a_valid_certificate_is_kept_and_one_near_its_end_renewed(self, tls: dict[str, str]) -> None:
        certificate = Path(tls["TLS_PRIVATE"]) / "elasticsearch.crt"
        assert make_certificates(tls, TLS_DAYS="10").startswith("Certificate made")
        short = certificate.read_bytes()
        assert make_certificates(tls).startswith("Certificate made")
        long = certificate.read_bytes()
        assert short != long
        assert make_certificates(tls).startswith("Certificate kept")
        assert certificate.read_bytes() == long

    def test_the_private_key_is_for_the_server_alone_and_the_authoritys_is_not_kept(self, tls: dict[str, str]) -> None:
        make_certificates(tls)
        public, private = Path(tls["TLS_PUBLIC"]), Path(tls["TLS_PRIVATE"])
        assert [path.name for path in public.iterdir()] == ["ca.crt"]
        assert {path.name for path in private.iterdir()} == {"ca.crt", "elasticsearch.crt", "elasticsearch.key"}
        assert stat.S_IMODE((private / "elasticsearch.key").stat().st_mode) == 0o640
        assert stat.S_IMODE(private.stat().st_mode) == 0o750


class TestLiveKeys:
    """docker/live_keys.py, with the keys as the API reads them."""

    def run(self, folder: Path) -> str:
        pytest.importorskip("fastapi", reason="the extra serve is not installed")
        environment = {
            "PATH": os.environ["PATH"],
            "SEGMENTS_API_KEYS": str(folder / "keys.yaml"),
            "METRICS_KEY": str(folder / "key"),
        }
        command = [sys.executable, str(ROOT / "docker" / "live_keys.py")]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60)
        assert (folder / "key").read_text() not in done.stdout + done.stderr
        return done.stdout

    def owner(self, folder: Path, key: str) -> tuple[str, set[str]] | None:
        from segmentation_assets.serving.keys import ApiKeys

        entry = ApiKeys.load(folder / "keys.yaml").owner(key)
        return None if entry is None else (entry.name, set(entry.scopes))

    def test_prometheus_gets_a_key_for_metrics_alone_which_a_second_start_keeps(self, tmp_path: Path) -> None:
        assert "made" in self.run(tmp_path)
        key = (tmp_path / "key").read_text()
        assert self.owner(tmp_path, key) == ("prometheus", {"metrics"})
        assert "kept" in self.run(tmp_path)
        assert (tmp_path / "key").read_text() == key

    def test_a_key_that_was_lost_is_replaced_and_those_of_others_stay(self, tmp_path: Path) -> None:
        from segmentation_assets.serving.keys import new_key

        self.run(tmp_path)
        lost = (tmp_path / "key").read_text()
        shop = new_key("shop", ["read"])
        with (tmp_path / "keys.yaml").open("a") as file:
            file.write(shop.entry)
        (tmp_path / "key").unlink()
        assert "made" in self.run(tmp_path)
        assert self.owner(tmp_path, (tmp_path / "key").read_text()) == ("prometheus", {"metrics"})
        assert self.owner(tmp_path, lost) is None
        assert self.owner(tmp_path, shop.key) == ("shop", {"read"})

    def test_the_group_may_read_the_key_and_nobody_but_the_owner_the_file_of_keys(self, tmp_path: Path) -> None:
        self.run(tmp_path)
        assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o640
        assert stat.S_IMODE((tmp_path / "keys.yaml").stat().st_mode) == 0o600


class TestWithSecrets:
    """docker/with-secrets, the entry point of the image."""

    def run(self, **environment: str) -> subprocess.CompletedProcess[str]:
        command = [
            "sh",
            str(ROOT / "docker" / "with-secrets"),
            "sh",
            "-c",
            'printf %s "${ELASTICSEARCH_API_KEY-unset}"',
        ]
        return subprocess.run(
            command, env={"PATH": os.environ["PATH"], **environment}, capture_output=True, text=True, check=False
        )

    def test_the_key_is_read_from_its_file(self, tmp_path: Path) -> None:
        (tmp_path / "k").write_text("the-key\n")
        assert self.run(ELASTICSEARCH_API_KEY_FILE=str(tmp_path / "k")).stdout == "the-key"

    def test_a_key_in_the_environment_goes_first(self, tmp_path: Path) -> None:
        (tmp_path / "k").write_text("the-key")
        done = self.run(ELASTICSEARCH_API_KEY_FILE=str(tmp_path / "k"), ELASTICSEARCH_API_KEY="mine")
        assert done.stdout == "mine"

    def test_without_a_file_nothing_is_exported(self) -> None:
        assert self.run().stdout == "unset"

    def test_a_missing_file_says_where_to_look(self, tmp_path: Path) -> None:
        done = self.run(ELASTICSEARCH_API_KEY_FILE=str(tmp_path / "none"))
        assert done.returncode == 1
        assert "docker compose logs setup" in done.stderr


class TestWorkflows:
    """The GitHub Actions workflows: ours, and the example for a user's repository."""

    ours = ROOT / ".github" / "workflows" / "ci.yml"
    example = ROOT / "examples" / "github-actions" / "segments-check.yml"

    @pytest.mark.parametrize("path", [ours, example], ids=["ci", "example"])
    def test_actions_are_pinned_by_major_version_and_may_only_read(self, path: Path) -> None:
        workflow = yaml.safe_load(path.read_text(encoding="utf-8"))
        steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
        used = [step["uses"] for step in steps if "uses" in step]
        assert used
        assert all(re.fullmatch(r"actions/[a-z-]+@v\d+", action) for action in used)
        assert workflow["permissions"] == {"contents": "read"}
        assert all("timeout-minutes" in job for job in workflow["jobs"].values())

    def test_ours_runs_what_a_contributor_runs(self) -> None:
        workflow = yaml.safe_load(self.ours.read_text(encoding="utf-8"))
        commands = [step["run"] for job in workflow["jobs"].values() for step in job["steps"] if "run" in step]
        assert commands == ["bash .ci/run", "bash .ci/run newest"]

    def test_what_is_cached_is_fetched_anew_when_any_list_of_jars_changes(self) -> None:
        workflow = yaml.safe_load(self.ours.read_text(encoding="utf-8"))
        caches = [step["with"] for job in workflow["jobs"].values() for step in job["steps"]
                  if step.get("uses", "").startswith("actions/cache@")]  # fmt: skip
        assert len(caches) == len(workflow["jobs"])
        lists = {path.name for path in (ROOT / "segmentation_assets" / "local").glob("*.lock.json")}
        assert lists == {"jars.lock.json", "kafka_jars.lock.json"}
        for cache in caches:
            (pattern,) = re.findall(r"hashFiles\('([^']+)'\)", cache["key"])
            assert {path.name for path in ROOT.glob(pattern)} == lists

    def test_the_example_gates_on_the_checks_and_keeps_the_report(self) -> None:
        steps = yaml.safe_load(self.example.read_text(encoding="utf-8"))["jobs"]["segments"]["steps"]
        commands = "\n".join(step.get("run", "") for step in steps)
        assert "segments run --json > segments.json" in commands
        assert "segments check --junit segments-checks.xml" in commands
        (upload,) = [step for step in steps if step.get("uses", "").startswith("actions/upload-artifact@")]
        assert upload["with"]["path"].split() == ["segments.json", "segments-checks.xml"]

    def test_the_example_publishes_a_pull_request_under_another_alias(self, tmp_path: Path) -> None:
        steps = yaml.safe_load(self.example.read_text(encoding="utf-8"))["jobs"]["segments"]["steps"]
        (step,) = [step for step in steps if step.get("if") == "github.event_name == 'pull_request'"]
        settings = tmp_path / "segments.yaml"
        settings.write_text("labels: {taxonomy: taxonomy.yaml}\npublish: {keep: 7}\n", encoding="utf-8")
        environment = {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "SEGMENTS_CONFIG": str(settings),
            "GITHUB_ENV": str(tmp_path / "env"),
        }
        subprocess.run(["bash", "-ec", step["run"]], env=environment, check=True, timeout=60)
        assert (tmp_path / "env").read_text() == f"SEGMENTS_CONFIG={tmp_path / 'trial.yaml'}\n"
        assert yaml.safe_load((tmp_path / "trial.yaml").read_text()) == {
            "labels": {"taxonomy": "taxonomy.yaml"},
            "publish": {"keep": 7, "alias": "user_segments_trial"},
        }
