"""The index templates of this project: strict, versioned, and never at the cost of somebody else's.

What belongs here: loading the mappings (mappings/*.json) and installing them. What does not: the documents.
"""

import copy
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from elasticsearch import ApiError, AuthorizationException, BadRequestError, Elasticsearch, NotFoundError

from segmentation_assets.errors import SegmentsError
from segmentation_assets.io.elasticsearch import errors_explained, shorten

OWNER = "segmentation-assets"
"""``_meta.owner`` of every template and index that this project creates; nothing without it is changed or removed."""


class TemplateConflict(SegmentsError):
    """An index template of somebody else is in the way."""


@dataclass(frozen=True)
class IndexTemplate:
    """An index template.

    Attributes:
        name: its name in the cluster.
        body: the body of ``PUT _index_template``.
    """

    name: str
    body: Mapping[str, Any]

    @property
    def mappings(self) -> dict[str, Any]:
        """A copy of the mappings, to create an index with."""
        return copy.deepcopy(dict(self.body["template"]["mappings"]))

    @property
    def settings(self) -> dict[str, Any]:
        """A copy of the index settings, to create an index with."""
        return copy.deepcopy(dict(self.body["template"]["settings"]))


def session_template(index: str = "user_sessions") -> IndexTemplate:
    """The template of the index that holds the sessions."""
    return _load("segmentation-user-sessions", "user_sessions", index)


def rejected_template(index: str = "user_sessions_rejected") -> IndexTemplate:
    """The template of the dead-letter index beside the sessions."""
    return _load("segmentation-user-sessions-rejected", "user_sessions_rejected", index)


def segment_template(alias: str = "user_segments") -> IndexTemplate:
    """The template of the indices behind the published alias."""
    return _load("segmentation-user-segments", "user_segments", f"{alias}-*")


def attributes_template(index: str = "user_attributes") -> IndexTemplate:
    """The template of the index that holds what is known about users from elsewhere."""
    return _load("segmentation-user-attributes", "user_attributes", index)


def profile_template(alias: str = "user_profiles") -> IndexTemplate:
    """The template of the indices behind the published alias of profiles."""
    return _load("segmentation-user-profiles", "user_profiles", f"{alias}-*")


def _load(name: str, file: str, pattern: str) -> IndexTemplate:
    return IndexTemplate(name, {**json.loads(_text(file)), "index_patterns": [pattern]})


@cache
def _text(file: str) -> str:
    return resources.files("segmentation_assets.io").joinpath("mappings", f"{file}.json").read_text("utf-8")


def ensure_template(client: Elasticsearch, template: IndexTemplate) -> bool:
    """Install the template when it is absent or an older version of ours; return whether anything was written.

    A newer version (of a newer release) stays. Patterns already installed, for an index of another name, are kept.

    Raises:
        TemplateConflict: the name belongs to somebody else, or another template claims the same indices with the same
            priority.
        SegmentsError: the cluster refuses, see ``errors_explained``.
    """
    body = dict(template.body)
    patterns = set(body["index_patterns"])
    with errors_explained(client, f"install the index template {template.name}"):
        try:
            found = client.indices.get_index_template(name=template.name)["index_templates"][0]["index_template"]
        except NotFoundError:
            found = None
        if found is not None:
            if found.get("_meta", {}).get("owner") != OWNER:
                raise TemplateConflict(
                    f"An index template '{template.name}' exists that this project did not make.",
                    "Rename or remove it; it is not overwritten.",
                )
            installed, covered = int(found.get("version", 0)), set(found["index_patterns"])
            if installed >= int(body["version"]) and patterns <= covered:
                return False
            if installed > int(body["version"]):
                body = {
                    key: found[key]
                    for key in ("priority", "version", "_meta", "template", "allow_auto_create")
                    if key in found
                }
            body["index_patterns"] = sorted(patterns | covered)
        try:
            client.indices.put_index_template(
                name=template.name,
                index_patterns=body["index_patterns"],
                priority=body["priority"],
                version=body["version"],
                meta=body["_meta"],
                template=body["template"],
                allow_auto_create=body.get("allow_auto_create"),
            )
        except BadRequestError as error:
            if "same priority" in str(error.body):
                raise TemplateConflict(
                    f"Another index template claims the same indices as '{template.name}' with the same priority "
                    f"{body['priority']}: {shorten(_conflict(error))}.",
                    "Change the priority or the index patterns of that one.",
                ) from error
            raise
    return True


def _conflict(error: ApiError) -> str:
    found = error.body.get("error", {}) if isinstance(error.body, dict) else {}
    reason = str(found.get("reason", "")) if isinstance(found, dict) else ""
    return reason.partition("matching patterns from existing templates ")[2].partition(" that have")[0] or reason


def create_index(
    client: Elasticsearch, name: str, template: IndexTemplate, *, settings: Mapping[str, Any], meta: Mapping[str, Any]
) -> None:
    """Create an index with the template's mapping.

    The mapping is in the request as well: a higher-priority template of somebody else then cannot weaken it.

    Raises:
        elasticsearch.ApiError: the cluster refuses; ``resource_already_exists_exception`` when it is there.
    """
    mappings = template.mappings
    mappings["_meta"] = {**mappings.get("_meta", {}), **meta}
    client.indices.create(index=name, mappings=mappings, settings={**template.settings, **settings})


def ensure_index(client: Elasticsearch, index: str, template: IndexTemplate) -> None:
    """Create the index when there is none, and give one of an earlier version of ours the fields that came since.

    A user's own mapping stays as it is.

    Raises:
        TemplateConflict: see ``ensure_template``.
        elasticsearch.ApiError: the cluster refuses.
    """
    try:
        found = client.indices.get_mapping(index=index).body  # not exists(): HEAD has no body to explain a refusal
    except NotFoundError:
        found = None
    if found is not None:
        mappings = template.mappings
        for name, described in found.items():
            meta = described["mappings"].get("_meta", {})
            if meta.get("owner") == OWNER and int(meta.get("version", 0)) < mappings["_meta"]["version"]:
                # Without the privilege the index stays as it is, and takes what it took before.
                with suppress(AuthorizationException):
                    client.indices.put_mapping(
                        index=name, properties=mappings["properties"], meta={**meta, **mappings["_meta"]}
                    )
        return
    ensure_template(client, template)
    try:
        create_index(client, index, template, settings={}, meta={})
    except BadRequestError as error:
        if "resource_already_exists_exception" not in str(error.body):  # somebody else was quicker
            raise
