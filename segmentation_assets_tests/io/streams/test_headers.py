"""Brokers without headers get them beside the value, whatever its bytes are."""

import base64
import json

from hypothesis import given
from hypothesis import strategies as st

from segmentation_assets.io.streams.base import with_headers


@given(st.binary(), st.dictionaries(st.text(st.characters(codec="utf-8")), st.text(st.characters(codec="utf-8"))))
def test_value_and_headers_can_be_had_back(value: bytes, headers: dict[str, str]) -> None:
    sent = with_headers(value, headers)
    if not headers:
        assert sent == value
        return
    said = json.loads(sent)
    assert said["headers"] == headers
    found = said["value"].encode() if "value" in said else base64.b64decode(said["value_base64"])
    assert found == value
