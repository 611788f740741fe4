"""Templates are installed when needed, and never at the cost of somebody else's."""

import pytest
from elasticsearch import BadRequestError, Elasticsearch

from segmentation_assets.io.templates import (
    IndexTemplate,
    TemplateConflict,
    attributes_template,
    ensure_template,
    profile_template,
    rejected_template,
    segment_template,
    session_template,
)

_SHIPPED = [session_template(), rejected_template(), segment_template(), attributes_template(), profile_template()]


def installed(es: Elasticsearch, name: str) -> dict:
    return es.indices.get_index_template(name=name)["index_templates"][0]["index_template"]


def version(template: IndexTemplate, number: int) -> IndexTemplate:
    return IndexTemplate(template.name, {**template.body, "version": number})


@pytest.mark.parametrize("template", _SHIPPED)
def test_the_shipped_templates_are_accepted_strict_and_versioned(es: Elasticsearch, template):
    assert ensure_template(es, template)
    found = installed(es, template.name)
    assert found["version"] >= 1
    assert found["_meta"]["owner"] == "segmentation-assets"
    assert found["template"]["mappings"]["dynamic"] == "strict"
    assert found["template"]["settings"]["index"] == {"number_of_shards": "1", "auto_expand_replicas": "0-1"}
    assert not ensure_template(es, template)


def test_an_index_somebody_creates_gets_the_mapping(es: Elasticsearch):
    ensure_template(es, session_template())
    es.index(index="user_sessions", document={"session_id": "a", "timestamp": "2026-01-01"})
    with pytest.raises(BadRequestError, match="strict_dynamic_mapping_exception"):
        es.index(index="user_sessions", document={"unknown": 1})


def test_an_older_version_is_replaced_and_a_newer_one_is_not(es: Elasticsearch):
    ensure_template(es, version(session_template(), 2))
    assert not ensure_template(es, session_template())
    assert installed(es, session_template().name)["version"] == 2
    assert ensure_template(es, version(session_template(), 3))
    assert installed(es, session_template().name)["version"] == 3


def test_two_index_names_share_the_template(es: Elasticsearch):
    ensure_template(es, version(session_template("shop_a"), 2))
    assert ensure_template(es, session_template("shop_b"))
    found = installed(es, session_template().name)
    assert (found["index_patterns"], found["version"]) == (["shop_a", "shop_b"], 2)


def test_a_foreign_template_of_the_same_name_is_not_overwritten(es: Elasticsearch):
    name = session_template().name
    es.indices.put_index_template(name=name, index_patterns=["theirs"], version=0)
    with pytest.raises(TemplateConflict, match="did not make"):
        ensure_template(es, session_template())
    assert installed(es, name)["index_patterns"] == ["theirs"]


def test_a_template_that_claims_the_same_indices_is_named(es: Elasticsearch):
    es.indices.put_index_template(name="segmentation-theirs", index_patterns=["user_*"], priority=200)
    with pytest.raises(TemplateConflict, match=r"segmentation-theirs => \[user_\*\]"):
        ensure_template(es, session_template())


def test_the_package_gives_copies(es: Elasticsearch):
    session_template().mappings["properties"].clear()
    assert session_template().mappings["properties"]
