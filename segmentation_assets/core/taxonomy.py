"""Which words speak for which segment: the taxonomy, and the form in which its words are compared.

What belongs here: the taxonomy, reading it, folding a word. What does not: finding its keywords in queries (matching),
naming clusters by it (labels), what it lacks (taxonomy_review).
"""

import re
from importlib import resources
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from segmentation_assets.core import tokens
from segmentation_assets.errors import SegmentsError

OTHER = "other"
"""The segment of whatever no name fits: an unnamed cluster, or a query in no cluster."""

WORD = re.compile(r"\w+")


class TaxonomyError(SegmentsError):
    """The taxonomy cannot be used as it is."""


class SegmentEntry(BaseModel):
    """One segment of a taxonomy."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    description: str = ""
    keywords: list[str] = Field(min_length=1)

    @field_validator("keywords", mode="before")
    @classmethod
    def _texts(cls, value: Any) -> Any:
        # YAML reads `on` as true and 4070 as a number: take the digits, refuse the rest by name.
        return (
            [str(item) if isinstance(item, int) and not isinstance(item, bool) else item for item in value]
            if isinstance(value, list)
            else value
        )

    @field_validator("keywords")
    @classmethod
    def _has_words(cls, value: list[str]) -> list[str]:
        for keyword in value:
            if not words(keyword):
                raise ValueError(f"keyword {keyword!r} holds no word")
        return value


class Taxonomy(BaseModel):
    """Which words speak for which segment."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    version: int = 1
    segments: dict[str, SegmentEntry] = Field(min_length=1)

    @field_validator("segments")
    @classmethod
    def _names(cls, value: dict[str, SegmentEntry]) -> dict[str, SegmentEntry]:
        for name in value:
            if not re.fullmatch(r"[a-z0-9_]{1,64}", name) or name == OTHER:
                raise ValueError(
                    f"segment name {name!r}: use lower case letters, digits and underscores, and not {OTHER!r}"
                )
        return value


def parse_taxonomy(text: str, where: str) -> Taxonomy:
    """Read a taxonomy from YAML text.

    Args:
        text: the YAML.
        where: what to call it in an error.

    Raises:
        TaxonomyError: not YAML, or not a taxonomy; names each entry that is wrong.
    """
    cure = "See segmentation_assets/core/taxonomy.yaml for the shipped one with its explanation."
    try:
        return Taxonomy.model_validate(yaml.safe_load(text))
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'top level'}: {e['msg']}" for e in error.errors()[:5])
        raise TaxonomyError(f"The taxonomy {where} cannot be used: {problems}.", cure) from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: what looks like a date and is none
        raise TaxonomyError(
            f"The taxonomy {where} is not valid YAML: {' '.join(str(error).split())[:300]}.", cure
        ) from None


def shipped_taxonomy() -> Taxonomy:
    """The taxonomy that comes with the package."""
    return parse_taxonomy(
        resources.files("segmentation_assets.core").joinpath("taxonomy.yaml").read_text("utf-8"), "taxonomy.yaml"
    )


def words(text: str) -> tuple[str, ...]:
    """Lower-case words in the form in which they are compared: 'Dresses' and 'dress', 'décor' and 'decor' are one."""
    return tuple(fold(word) for word in WORD.findall(text.lower()))


def fold(word: str) -> str:
    """The form in which a lower-case word is compared; it need not be a word itself (``tokens.key``)."""
    return tokens.key(word)
