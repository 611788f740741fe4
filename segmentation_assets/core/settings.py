"""Every knob of the product in one validated model, with its default and its meaning.

What belongs here: names, defaults, ranges. What does not: secrets and addresses (those are the Elasticsearch
resource's), reading files (io/) or the environment.
"""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Share = Annotated[float, Field(ge=0, le=1)]
Severity = Literal["ERROR", "WARN"]
Method = Literal["lsa", "spherical", "kmeans"]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SessionSettings(_Section):
    """Which sessions are read."""

    index: str = Field("user_sessions", min_length=1, description="Index or alias that holds the sessions.")
    start: datetime | None = Field(
        None, description="Only sessions at or after this time (ISO 8601; no zone means UTC)."
    )
    end: datetime | None = Field(None, description="Only sessions before this time.")

    @field_validator("start", "end", mode="before")
    @classmethod
    def _not_a_number(cls, value: Any) -> Any:
        # pydantic takes a number for seconds since 1970: `start: 2024` would be half an hour past midnight.
        if isinstance(value, int | float) or (isinstance(value, str) and value.strip().lstrip("+-").isdigit()):
            raise ValueError("write a date, as in 2024-01-31 or 2024-01-31T12:00:00Z")
        return value

    @field_validator("start", "end")
    @classmethod
    def _aware(cls, value: datetime | None) -> datetime | None:
        return value.replace(tzinfo=UTC) if value is not None and value.tzinfo is None else value

    @model_validator(mode="after")
    def _window(self) -> "SessionSettings":
        if self.start and self.end and self.start >= self.end:
            raise ValueError("start must be before end")
        return self


class VectorSettings(_Section):
    """How queries become TF-IDF rows."""

    ngram_max: int = Field(1, ge=1, le=3, description="Longest word n-gram that is a term.")
    min_df: int = Field(1, ge=1, description="A term must occur in at least this many sessions.")
    max_terms: int = Field(50_000, ge=2, description="Keep at most this many terms, the most frequent first.")
    drop_function_words: bool = Field(True, description="Leave out words like 'for', 'with', 'und', 'pour'.")


class ClusterSettings(_Section):
    """How rows become clusters."""

    method: Method = Field(
        "lsa",
        description="'lsa': k-means of queries by the interests of the users who search for them (latent semantic "
        "analysis); 'spherical': k-means of TF-IDF rows by cosine; 'kmeans': the textbook recipe, KMeans of the same.",
    )
    k: int | Literal["auto"] = Field(
        5, description="Number of clusters, or 'auto' to choose one between k_min and k_max."
    )
    k_min: int = Field(3, ge=2, description="Smallest k that 'auto' tries.")
    k_max: int = Field(12, ge=2, le=100, description="Largest k that 'auto' tries.")
    components: int = Field(20, ge=2, le=300, description="Dimensions of the space of 'lsa'.")
    n_init: int = Field(10, ge=1, le=100, description="Starts; the best one is kept.")
    seed: int = Field(42, ge=0, le=2**32 - 1, description="Seed of every random choice.")

    @model_validator(mode="after")
    def _range(self) -> "ClusterSettings":
        if isinstance(self.k, int) and self.k < 2:
            raise ValueError("k must be at least 2, or 'auto'")
        if self.k_min > self.k_max:
            raise ValueError("k_min must not be greater than k_max")
        return self


class LabelSettings(_Section):
    """How clusters get their names."""

    taxonomy: str | None = Field(
        None, description="Path of a taxonomy YAML file; relative to the settings file. None: the shipped one."
    )
    min_share: Share = Field(
        0.35, description="Share of a cluster's sessions that must hold a keyword of the segment it is named by."
    )


class SessionValidityBounds(_Section):
    """Bounds of the check ``session_validity``."""

    max_set_aside_share: Share = Field(0.25, description="Largest share of documents that may be set aside.")
    severity: Severity = "ERROR"


class ClusterBalanceBounds(_Section):
    """Bounds of the check ``cluster_balance``."""

    max_share: Share = Field(0.6, description="Largest share of the clustered sessions that one cluster may hold.")
    min_share: Share = Field(0.01, description="Smallest share of the clustered sessions that a cluster must hold.")
    max_unclustered_share: Share = Field(0.2, description="Largest share of sessions without a single known term.")
    severity: Severity = "ERROR"


class LabelCoverageBounds(_Section):
    """Bounds of the check ``label_coverage``."""

    min_session_share: Share = Field(
        0.3, description="Share of sessions that must be in a named segment (not 'other')."
    )
    min_user_share: Share = Field(0.3, description="Share of users whose dominant segment must be a named one.")
    severity: Severity = Field(
        "WARN",
        description="WARN: shown, never stops. `other` is an honest answer while a taxonomy is being written. "
        "ERROR: stops publishing.",
    )


class CheckSettings(_Section):
    """Bounds of the asset checks; the publish guard compares the same numbers with the same bounds."""

    session_validity: SessionValidityBounds = SessionValidityBounds()
    cluster_balance: ClusterBalanceBounds = ClusterBalanceBounds()
    label_coverage: LabelCoverageBounds = LabelCoverageBounds()


class PublishSettings(_Section):
    """Where segments go."""

    alias: str = Field("user_segments", min_length=1, description="Alias that readers use.")
    keep: int = Field(3, ge=1, le=100, description="Published indices kept, the current one included, for rollback.")


class AutomationSettings(_Section):
    """When runs are requested."""

    new_sessions: int = Field(500, ge=1, description="The sensor requests a run after this many new sessions.")


class Settings(_Section):
    """All settings."""

    sessions: SessionSettings = SessionSettings()
    vectors: VectorSettings = VectorSettings()
    clusters: ClusterSettings = ClusterSettings()
    labels: LabelSettings = LabelSettings()
    checks: CheckSettings = CheckSettings()
    publish: PublishSettings = PublishSettings()
    automation: AutomationSettings = AutomationSettings()
