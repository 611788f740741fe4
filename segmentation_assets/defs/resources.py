"""The resources, and the one place that says which environment variable feeds which field.

What belongs here: resource classes (configuration with a description for each field) and their instances. What does
not:
talking to a server (io/), running one (local/).
"""

import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
from elasticsearch import Elasticsearch
from pydantic import Field, TypeAdapter, ValidationError

from segmentation_assets.core.labels import Taxonomy
from segmentation_assets.core.settings import Settings
from segmentation_assets.core.users.personas import NameTable
from segmentation_assets.core.users.rules import Rules
from segmentation_assets.defs.live_store import StateStoreResource
from segmentation_assets.io import memory
from segmentation_assets.io.artifacts import ArtifactStore
from segmentation_assets.io.elasticsearch import ClusterUnreachable, Connection, connect, errors_explained
from segmentation_assets.io.settings import SettingsError, load_persona_names, load_rules, load_settings, load_taxonomy
from segmentation_assets.local.elasticsearch import EmbeddedElasticsearch, Lease
from segmentation_assets.paths import HOME_VARIABLE, DataDir

ENVIRONMENT = {
    "elasticsearch": {
        "url": "ELASTICSEARCH_URL",
        "api_key": "ELASTICSEARCH_API_KEY",
        "username": "ELASTICSEARCH_USERNAME",
        "password": "ELASTICSEARCH_PASSWORD",
        "ca_certs": "ELASTICSEARCH_CA_CERTS",
        "data_dir": HOME_VARIABLE,
    },
    "settings": {
        "file": "SEGMENTS_CONFIG",
        "data_dir": HOME_VARIABLE,
        "enrichment_token": "SEGMENTS_ENRICHMENT_TOKEN",
    },
    "io_manager": {"data_dir": HOME_VARIABLE},
    "alert": {"webhook_url": "SEGMENTS_ALERT_WEBHOOK"},
    "state_store": {"url": "SEGMENTS_REDIS_URL", "namespace": "SEGMENTS_NAMESPACE", "data_dir": HOME_VARIABLE},
}
"""resource -> field -> environment variable. A variable that is not set leaves the field at its default."""

PLAIN_ENVIRONMENT: dict[str, tuple[str, type]] = {
    "verify_certs": ("ELASTICSEARCH_VERIFY_CERTS", bool),
    "request_timeout": ("ELASTICSEARCH_REQUEST_TIMEOUT", float),
    "max_retries": ("ELASTICSEARCH_MAX_RETRIES", int),
    "http_compress": ("ELASTICSEARCH_HTTP_COMPRESS", bool),
}
"""field of ``elasticsearch`` -> variable and type. No secrets, so their values are read when the definitions are
loaded; ``dg.EnvVar`` knows text and whole numbers only."""

_DATA_DIR = "Folder for everything kept on this machine; the user's data folder when not given."

_held: dict[Path, Lease] = {}


def _embedded_url(data: DataDir) -> str:
    """The embedded node's address, the node started when it is not running.

    The lease is held until this process ends: a run's steps and a sensor's ticks share one node instead of each
    starting
    their own, and the last process to end stops it.
    """
    lease = _held.get(data.root)
    if lease is None or EmbeddedElasticsearch(data).url() is None:
        lease = _held[data.root] = EmbeddedElasticsearch(data).acquire()
    return lease.url


class ElasticsearchResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """An Elasticsearch cluster, or the embedded node when no URL is given."""

    url: str | None = Field(
        None, description="Address, or several separated by commas. Not given: the embedded node on this machine."
    )
    api_key: str | None = Field(
        None, description="API key, as Elasticsearch's 'encoded' value. Not together with username and password."
    )
    username: str | None = Field(None, description="User name for basic authentication.")
    password: str | None = Field(None, description="Password for basic authentication.")
    ca_certs: str | None = Field(
        None,
        description="PEM file of the authority that signed the cluster's certificate; the system's own when not given.",
    )
    verify_certs: bool = Field(
        True, description="Whether the certificate is verified. Switch off only to find an error."
    )
    request_timeout: float = Field(30.0, gt=0, description="Seconds before a request is given up.")
    max_retries: int = Field(
        3, ge=0, description="Further tries after a connection error, a time-out or a 502, 503 or 504."
    )
    http_compress: bool = Field(
        False, description="gzip request bodies. Pays over a slow network, costs time on a fast one."
    )
    data_dir: str | None = Field(None, description=_DATA_DIR)

    @property
    def embedded(self) -> bool:
        """Whether this is the embedded node."""
        return self.url is None

    def connection(self) -> Connection:
        """The address and credentials; starts the embedded node where no URL is given."""
        url = self.url or _embedded_url(DataDir.resolve(self.data_dir))
        return Connection(
            # only at a comma before a scheme: a password in the URL may hold one
            hosts=tuple(part.strip(" ,") for part in re.split(r",\s*(?=[a-z]+://)", url) if part.strip(" ,")),
            api_key=self.api_key if self.url else None,
            username=self.username if self.url else None,
            password=self.password if self.url else None,
            ca_certs=self.ca_certs if self.url else None,
            verify_certs=self.verify_certs,
            request_timeout=self.request_timeout,
            max_retries=self.max_retries,
            http_compress=self.http_compress,
        )

    @contextmanager
    def client(self) -> Iterator[Elasticsearch]:
        """A verified client; whatever goes wrong inside is explained in one error.

        Raises:
            SegmentsError: unreachable, refused credentials, bad certificate, wrong server version, missing privilege,
                read-only, timed out.
        """
        try:
            client = connect(self.connection())
            try:
                with errors_explained():
                    yield client
            finally:
                client.close()
        except ClusterUnreachable:
            lease = None if self.url else _held.get(DataDir.resolve(self.data_dir).root)
            if lease is not None:
                lease.check()  # says that the node died, with the end of its log
            raise


class SettingsResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The settings file, read and validated once a run."""

    file: str | None = Field(
        None,
        description="YAML settings file. Not given: segments.yaml in the data folder, else the defaults.",
    )
    data_dir: str | None = Field(None, description=_DATA_DIR)
    enrichment_token: str | None = Field(
        None, description="Bearer token for attributes.enrichment.url. A secret: set it by dg.EnvVar."
    )

    @property
    def path(self) -> Path | None:
        """The file that is read; None where there is none and the defaults hold."""
        if self.file:
            return Path(self.file).expanduser()
        default = DataDir.resolve(self.data_dir).root / "segments.yaml"
        return default if default.is_file() else None

    def load(self) -> Settings:
        """The settings; see ``io.settings.load_settings``."""
        return load_settings(self.path)

    def taxonomy(self) -> Taxonomy:
        """The taxonomy the settings name; see ``io.settings.load_taxonomy``."""
        return load_taxonomy(self.load(), self.path)

    def rules(self) -> Rules:
        """The rules the settings name; see ``io.settings.load_rules``."""
        return load_rules(self.load(), self.path)

    def persona_names(self) -> NameTable:
        """The table of names the settings name; see ``io.settings.load_persona_names``."""
        return load_persona_names(self.load(), self.path)


class ArtifactIOManager(dg.ConfigurableIOManager):
    """Stores what assets return below ``<data_dir>/storage``, in open formats (``io.artifacts``)."""

    data_dir: str | None = Field(None, description=_DATA_DIR)

    @property
    def store(self) -> ArtifactStore:
        """The store itself, for what is not a plain input: the model before."""
        return ArtifactStore(DataDir.resolve(self.data_dir).storage)

    def handle_output(self, context: dg.OutputContext, obj: Any) -> None:
        """Store a new version, named by the run."""
        path = self.store.save(context.asset_key.path[-1], context.run_id, obj)
        context.add_output_metadata({"stored_at": dg.MetadataValue.path(str(path))})

    def load_input(self, context: dg.InputContext) -> Any:
        """Load the current version, as the type that the asset asks for; of tables the columns that it names."""
        memory.use_the_systems()
        memory.give_back()  # what the step before left
        return self.store.load(
            context.asset_key.path[-1],
            context.dagster_type.typing_type,
            when_used=True,
            columns=context.definition_metadata.get("columns"),
        )


class Alert(dg.ConfigurableResource):  # type: ignore[type-arg]
    """Tells somebody that a run failed. The default writes to Dagster's log; subclass it to tell somebody else."""

    def send(self, subject: str, body: str, log: Any) -> None:
        """Deliver one alert; ``log`` is the sensor's logger."""
        log.error(f"{subject}\n{body}")


class WebhookAlert(Alert):
    """Posts ``{"text": ...}``, which Slack, Mattermost, Teams workflows and most others take."""

    webhook_url: str = Field(description="Where to post. A secret: whoever has it can post.")
    timeout: float = Field(10.0, gt=0, description="Seconds before it is given up.")

    def send(self, subject: str, body: str, log: Any) -> None:
        """Post the alert; a failure to deliver is logged, without the address."""
        import json
        import urllib.request
        from http.client import HTTPException

        super().send(subject, body, log)
        content = json.dumps({"text": f"{subject}\n{body}"}).encode()
        try:
            request = urllib.request.Request(  # noqa: S310  # the address is the operator's own setting
                self.webhook_url, content, {"Content-Type": "application/json"}
            )
            with urllib.request.urlopen(request, timeout=self.timeout):  # noqa: S310
                pass
        except (OSError, ValueError, HTTPException) as error:  # what they say may hold the address
            log.error(f"The alert could not be delivered to the webhook ({type(error).__name__}).")


def build_resources(environment: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The resource instances.

    Of a variable that may hold a secret, only whether it is set is looked at here; its value stays a ``dg.EnvVar``,
    which
    Dagster resolves in the process that runs and never stores or shows.
    """
    fields = _fields(os.environ if environment is None else environment, dg.EnvVar)
    return {
        "elasticsearch": ElasticsearchResource(**fields["elasticsearch"]),
        "settings": SettingsResource(**fields["settings"]),
        "io_manager": ArtifactIOManager(**fields["io_manager"]),
        "alert": WebhookAlert(**fields["alert"]) if fields["alert"] else Alert(),
        "state_store": StateStoreResource(**fields["state_store"]),
    }


def _fields(environment: Mapping[str, str], given: Callable[[str], Any]) -> dict[str, dict[str, Any]]:
    """resource -> field -> what ``given`` says of the variable that feeds it; only of variables that are set."""
    fields: dict[str, dict[str, Any]] = {
        resource: {field: given(name) for field, name in names.items() if environment.get(name)}
        for resource, names in ENVIRONMENT.items()
    }
    fields["elasticsearch"] |= {
        field: _plain(name, environment[name], kind)
        for field, (name, kind) in PLAIN_ENVIRONMENT.items()
        if environment.get(name)
    }
    return fields


def _plain(name: str, text: str, kind: type) -> bool | int | float:
    try:
        return TypeAdapter(kind).validate_python(text)
    except ValidationError:
        words = {bool: "true or false", int: "a whole number", float: "a number"}
        raise SettingsError(f"{name}={text!r} is not {words[kind]}.", "Correct the variable, or unset it.") from None


def resolved_resources() -> tuple[ElasticsearchResource, SettingsResource, ArtifactIOManager]:
    """The same resources outside a run, for the command line: fields hold values instead of references to the
    environment. (Dagster's own way makes an instance for each, a third of a second.)
    """
    fields = _fields(os.environ, os.environ.__getitem__)
    return (
        ElasticsearchResource(**fields["elasticsearch"]),
        SettingsResource(**fields["settings"]),
        ArtifactIOManager(**fields["io_manager"]),
    )
