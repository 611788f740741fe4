"""Every knob of the product in one validated model, with its default and its meaning.

What belongs here: names, defaults, ranges. What does not: secrets and addresses (those are the Elasticsearch
resource's), reading files (io/) or the environment.
"""

from datetime import UTC, datetime
from itertools import pairwise
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Share = Annotated[float, Field(ge=0, le=1)]
Severity = Literal["ERROR", "WARN"]
OptionalField = Literal["timestamp", "cluster", "confidence", "model_version", "published_at"]
Method = Literal["consensus", "embeddings", "lsa", "mixture", "spherical", "kmeans"]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SessionSettings(_Section):
    """Which sessions are read."""

    index: str = Field("user_sessions", min_length=1, description="Index or alias that holds the sessions.")
    start: datetime | None = Field(
        None, description="Only sessions at or after this time (ISO 8601; no zone means UTC)."
    )
    end: datetime | None = Field(None, description="Only sessions before this time.")
    page_size: int = Field(
        10_000, ge=1, le=10_000, description="Sessions in one answer; what is under way is in memory."
    )
    slices: int = Field(
        2, ge=1, le=64, description="Answers asked for at a time. More help on a cluster of many shards."
    )

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

    text: Literal["auto", "shop", "plain"] = Field(
        "auto",
        description="'shop': plurals, misspellings, units, emoji and text without spaces are read as people mean them; "
        "'plain': the textbook rule, every run of two letters or digits or more in lower case; 'auto': 'plain' for the "
        "method 'kmeans', which then keeps function words as well, 'shop' for all others.",
    )
    ngram_max: int = Field(1, ge=1, le=3, description="Longest word n-gram that is a term.")
    min_df: int = Field(1, ge=1, description="A term must occur in at least this many sessions.")
    max_terms: int = Field(50_000, ge=2, description="Keep at most this many terms, the most frequent first.")
    drop_function_words: bool = Field(True, description="Leave out words like 'for', 'with', 'und', 'pour'.")

    def for_method(self, method: Method) -> "VectorSettings":
        """The same with 'auto' resolved."""
        if self.text != "auto":
            return self
        if method != "kmeans":
            return self.model_copy(update={"text": "shop"})
        keep = {} if "drop_function_words" in self.model_fields_set else {"drop_function_words": False}
        return self.model_copy(update={"text": "plain", **keep})


class ClusterSettings(_Section):
    """How rows become clusters."""

    method: Method = Field(
        "consensus",
        description="What k-means divides. 'consensus': what many partitions of the users' searches agree on; "
        "'embeddings': the same, with a language model of English as a further witness (needs the extra); 'lsa': "
        "the interests of the users who search for a query (latent semantic analysis); 'mixture': memberships in a "
        "mixture model of short texts; 'spherical': TF-IDF rows by cosine; 'kmeans': the textbook recipe, TF-IDF rows "
        "as they are.",
    )
    k: int | Literal["auto"] = Field(
        5, description="Number of clusters, or 'auto' to choose one between k_min and k_max."
    )
    k_min: int = Field(2, ge=2, description="Smallest k that 'auto' tries.")
    k_max: int = Field(40, ge=2, le=100, description="Largest k that 'auto' tries.")
    components: int = Field(20, ge=2, le=300, description="Dimensions of the space of interests.")
    min_confidence: Share = Field(
        0.0,
        description="A query whose nearest cluster is not ahead of the next by this much is in no cluster, and its "
        "segment is 'other'. 0: every query with a known term is in a cluster.",
    )
    n_init: int = Field(10, ge=1, le=100, description="Starts; the best one is kept.")
    seed: int = Field(42, ge=0, le=2**32 - 1, description="Seed of every random choice.")
    retrain: Literal["better", "always"] = Field(
        "better",
        description="'better': a new model replaces the previous one only when it is better by min_gain (or the "
        "settings changed, or the previous one no longer fits the data); else the previous one assigns the new "
        "sessions. 'always': every run replaces it.",
    )
    refit_share: Share = Field(
        0.1,
        description="With 'better': a new model is only fitted, to be compared, once this share of the sessions came "
        "or went since the serving one was fitted or compared; until then that one assigns the new sessions. 0: in "
        "every run.",
    )
    min_gain: float = Field(
        0.05,
        ge=0,
        le=10,
        description="How much more than the previous model's a new model's clusters must tell about the words of the "
        "sessions, as a share, to replace it.",
    )

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
    meaning: Share | None = Field(
        None,
        description="With the extra [embeddings]: a word also counts, a little, for a keyword that it means nearly the "
        "same as, where the cosine of their vectors is at least this; 0.65 is a start. Null: it does not.",
    )
    mixed_share: Share = Field(
        0.2, description="A cluster is reported as mixed when the two best segments both have this share of it."
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


class UserChurnBounds(_Section):
    """Bounds of the check ``user_churn``."""

    max_model_share: Share = Field(
        0.2,
        description="Largest share of users who may change segment because the model changed by retraining alone. 1: "
        "any.",
    )
    max_asked_share: Share = Field(
        1.0,
        description="The same where somebody changed the method, k, the vectors, the labels or the taxonomy since: "
        "whoever does means to change segments.",
    )
    severity: Severity = "ERROR"


class NoiseBounds(_Section):
    """Bounds of the check ``noise_share``."""

    max_share: Share = Field(0.2, description="Largest share of users who may be marked as noise.")
    severity: Severity = "WARN"


class BehaviourStabilityBounds(_Section):
    """Bounds of the check ``behaviour_stability``."""

    min_agreement: float = Field(
        0.5, ge=-1, le=1, description="Least mean adjusted Rand index between clusterings of bootstrap samples."
    )
    min_silhouette: float = Field(0.05, ge=-1, le=1, description="Least mean silhouette.")
    max_unclustered_share: Share = Field(0.5, description="Largest share of users in no cluster.")
    severity: Severity = Field("WARN", description="WARN: shown, never stops. ERROR: stops publishing profiles.")


class LiveHealthBounds(_Section):
    """Bounds of the check ``live_health``."""

    max_lag: int = Field(100_000, ge=0, description="Events waiting.")
    max_dead_share: Share = Field(0.05, description="Share of events that became dead letters.")
    max_p99_seconds: float = Field(1.0, gt=0, description="From an event's arrival at the broker to its segment.")
    severity: Severity = "WARN"


class CheckSettings(_Section):
    """Bounds of the asset checks; the publish guard compares the same numbers with the same bounds."""

    session_validity: SessionValidityBounds = SessionValidityBounds()
    cluster_balance: ClusterBalanceBounds = ClusterBalanceBounds()
    label_coverage: LabelCoverageBounds = LabelCoverageBounds()
    user_churn: UserChurnBounds = UserChurnBounds()
    noise_share: NoiseBounds = NoiseBounds()
    behaviour_stability: BehaviourStabilityBounds = BehaviourStabilityBounds()
    live_health: LiveHealthBounds = LiveHealthBounds()


class PublishSettings(_Section):
    """Where segments go."""

    alias: str = Field("user_segments", min_length=1, description="Alias that readers use.")
    keep: int = Field(3, ge=1, le=100, description="Published indices kept, the current one included, for rollback.")
    fields: frozenset[OptionalField] = Field(
        frozenset(get_args(OptionalField)),
        description="Fields that a document has beside session_id, user_id, search_query and segment. Fewer are "
        "written sooner and take less room.",
    )
    batch_documents: int = Field(5_000, ge=1, le=100_000, description="Documents in one request, 4 MB at most.")
    in_flight: int = Field(
        2,
        ge=1,
        le=64,
        description="Requests at a time; fewer by themselves while the cluster is busy. More help on a "
        "cluster of many nodes.",
    )


NumericImputation = Literal["mean", "median", "none"]
CategoricalImputation = Literal["mode", "unknown", "none"]
Scaling = Literal["standard", "minmax", "robust"]
BehaviourMethod = Literal["kmeans", "dbscan", "hdbscan"]
OnlineMethod = Literal["model", "kmeans", "clustream", "denstream", "dbstream", "hdbscan"]


class EnrichmentSettings(_Section):
    """Somebody who knows more about users, asked once for each."""

    url: str | None = Field(
        None,
        description="Address that is asked, `{user_id}` in it; it answers with a JSON object of attributes, or 404. "
        "A token goes into the variable SEGMENTS_ENRICHMENT_TOKEN, never in here.",
    )
    file: str | None = Field(
        None, description="CSV, NDJSON or Parquet with a column user_id; relative to the settings file."
    )
    timeout: float = Field(5.0, gt=0, le=300, description="Seconds that one answer may take.")
    per_second: float = Field(20.0, gt=0, description="Requests a second, at most.")
    retries: int = Field(2, ge=0, le=10, description="How often a request that failed is repeated.")
    cache_days: float = Field(30.0, ge=0, description="Days for which an answer is remembered. 0: never.")
    max_seconds: float = Field(
        300.0, gt=0, description="After so long no more is asked in this run; who was not reached stays as known."
    )


class AttributeSettings(_Section):
    """What is known about users from elsewhere."""

    index: str = Field("user_attributes", min_length=1, description="Index or alias of attributes; it may be absent.")
    enrichment: EnrichmentSettings = EnrichmentSettings()


class CleaningSettings(_Section):
    """What is wrong with sessions, and what is done about it."""

    impute: dict[str, NumericImputation | CategoricalImputation] = Field(
        {"duration": "median", "device": "unknown", "country": "unknown", "region": "unknown", "referrer": "none"},
        description="How missing values of a session's column are filled where others have one: mean or median for "
        "duration, mode or unknown for text, none to leave them.",
    )
    internal_users: frozenset[str] = Field(
        frozenset(),
        description="Users who are colleagues, monitors or tests: marked, never counted for what is normal.",
    )
    internal_referrers: frozenset[str] = Field(
        frozenset(), description="The same for whoever has a session that came from one of these."
    )
    max_sessions_per_hour: int = Field(60, ge=1, description="More in any hour of the clock is no human.")
    max_duration: float = Field(8 * 3600, gt=0, description="Seconds; a longer session never ended.")
    max_repeats: int = Field(
        100,
        ge=2,
        description="A query that one user typed this often or more, and in half of the sessions, is a machine's.",
    )


class FeatureSettings(_Section):
    """What is measured of a user."""

    max_categories: int = Field(
        20, ge=1, le=200, description="Product categories with a share of their own, the most frequent first."
    )
    outliers: Literal["iqr", "zscore", "none"] = Field(
        "iqr", description="By what an extreme value is told: beyond the quartiles, by deviations, or not at all."
    )
    iqr_factor: float = Field(1.5, gt=0, description="Interquartile ranges beyond the quartiles.")
    zscore: float = Field(3.0, gt=0, description="Standard deviations from the mean.")


class LoyaltyTier(_Section):
    """A tier of the loyalty index."""

    name: str = Field(min_length=1, description="What it is called.")
    from_: float = Field(ge=0, le=100, alias="from", description="Index from which a user is in it.")

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class ScoreSettings(_Section):
    """RFM scores and the loyalty index."""

    groups: int = Field(5, ge=2, le=9, description="Quantile groups of each score; 5: 1 to 5.")
    recency_weight: float = Field(0.3, ge=0, description="Weight of recency in the loyalty index.")
    frequency_weight: float = Field(0.4, ge=0, description="Weight of frequency.")
    monetary_weight: float = Field(0.3, ge=0, description="Weight of monetary value.")
    tiers: tuple[LoyaltyTier, ...] = Field(
        (
            LoyaltyTier(name="bronze", from_=0),
            LoyaltyTier(name="silver", from_=40),
            LoyaltyTier(name="gold", from_=65),
            LoyaltyTier(name="platinum", from_=85),
        ),
        description="Tiers, each from an index on; the first from 0.",
    )

    @model_validator(mode="after")
    def _usable(self) -> "ScoreSettings":
        if self.recency_weight + self.frequency_weight + self.monetary_weight <= 0:
            raise ValueError("at least one weight must be greater than 0")
        starts = [tier.from_ for tier in self.tiers]
        if not starts or starts[0] != 0 or any(a >= b for a, b in pairwise(starts)):
            raise ValueError("tiers must begin at 0 and rise")
        if len({tier.name for tier in self.tiers}) != len(self.tiers):
            raise ValueError("two tiers have the same name")
        return self


class RuleSettings(_Section):
    """Segments by rule."""

    file: str | None = Field(
        None, description="Path of a YAML file of rules; relative to the settings file. None: the shipped ones."
    )


class BehaviourSettings(_Section):
    """How users become behaviour clusters."""

    method: BehaviourMethod = Field(
        "kmeans",
        description="'kmeans': k groups, everybody in one; 'hdbscan': groups of any shape and number, and who fits none"
        "; 'dbscan': the same at one density.",
    )
    k: int | Literal["auto"] = Field(5, description="Number of clusters of k-means, or 'auto'.")
    k_max: int = Field(12, ge=2, le=100, description="Largest k that 'auto' tries.")
    n_init: int = Field(10, ge=1, le=100, description="Starts of k-means; the best one is kept.")
    seed: int = Field(42, ge=0, le=2**32 - 1, description="Seed of every random choice.")
    eps: float | Literal["auto"] = Field(
        "auto",
        description="Distance within which users are neighbours for DBSCAN; auto: the knee of the k-distance curve.",
    )
    min_samples: int = Field(10, ge=1, description="Neighbours that make a user a core of a cluster, itself included.")
    min_cluster_size: int = Field(10, ge=2, description="Users that make a cluster of HDBSCAN.")
    features: tuple[str, ...] | None = Field(
        None, description="Features and traits to cluster by; None: the shipped choice of those that are there."
    )
    scaling: Scaling = Field("standard", description="How features are made comparable.")
    winsorise: bool = Field(True, description="Whether outliers are drawn to the bounds before scaling.")
    max_categories: int = Field(8, ge=1, le=100, description="Categories of a trait with a column of their own.")
    min_category_share: Share = Field(0.02, description="Share of the users below which a category is rare.")
    fit_users: int = Field(
        20_000, ge=100, description="Users that clusters are found in, a sample of all; the others are assigned."
    )
    bootstraps: int = Field(10, ge=0, le=200, description="Clusterings of other samples that it is compared with.")

    @model_validator(mode="after")
    def _range(self) -> "BehaviourSettings":
        if isinstance(self.k, int) and self.k < 2:
            raise ValueError("k must be at least 2, or 'auto'")
        if isinstance(self.eps, float) and self.eps <= 0:
            raise ValueError("eps must be greater than 0, or 'auto'")
        return self


class PersonaSettings(_Section):
    """How behaviour clusters get their names."""

    names: str | None = Field(
        None, description="Path of a YAML table of names; relative to the settings file. None: the shipped one."
    )
    min_effect: float = Field(0.3, ge=0, description="Effect size from which a difference is a trait.")
    traits: int = Field(6, ge=1, le=50, description="Traits shown, the strongest first.")


class ProfileSettings(_Section):
    """Where profiles go."""

    alias: str = Field("user_profiles", min_length=1, description="Alias that readers use.")
    keep: int = Field(3, ge=1, le=100, description="Published indices kept, the current one included, for rollback.")


class OnlineSettings(_Section):
    """Behaviour clusters that follow the stream."""

    method: OnlineMethod = Field(
        "model",
        description="'model': they stay as the batch side found them; 'kmeans': centres that move with the stream; "
        "'clustream': micro-clusters, divided by k-means; 'denstream', 'dbstream': crowds of any shape and number, the "
        "latter one point at a time; 'hdbscan': the batch's crowds, found again in a sample of the recent past.",
    )
    k: int = Field(5, ge=1, le=1_000, description="Clusters of k-means and CluStream where no batch model gives them.")
    seed: int = Field(42, ge=0, le=2**32 - 1, description="Seed of every random choice.")
    half_life: float = Field(
        86_400.0, gt=0, description="Seconds after which a point counts half as much (kmeans, denstream)."
    )
    start_points: int = Field(
        1_000, ge=2, description="Points that are gathered before first clusters, or a first radius, are found in them."
    )
    seed_weight: float = Field(
        100.0, gt=0, description="Points that each cluster of the batch model counts for at the start (kmeans)."
    )
    least_share: float = Field(
        0.01,
        ge=0,
        lt=1,
        description="A cluster that weighs less than this part of the mean cluster is given up (kmeans).",
    )
    micro_clusters: int = Field(
        100, ge=2, le=5_000, description="Micro-clusters of CluStream; the most that DenStream has of each kind."
    )
    boundary_factor: float = Field(
        2.0,
        gt=0,
        description="A micro-cluster of CluStream takes in what is within so many of its root mean square deviations.",
    )
    recent_points: int = Field(
        50,
        ge=1,
        description="The relevance of a micro-cluster of CluStream is the mean time of its last so many points.",
    )
    horizon: float = Field(
        86_400.0,
        gt=0,
        description="Seconds without relevance after which CluStream may drop a micro-cluster, and about the time that "
        "its clusters are of.",
    )
    batch: int = Field(
        1_000, ge=1, description="Points that CluStream assigns at a time; 1 is the definition of its authors."
    )
    macro_every: int = Field(
        10_000, ge=1, description="Points after which micro-clusters are joined into clusters again."
    )
    radius: Annotated[float, Field(gt=0)] | Literal["auto"] = Field(
        "auto",
        description="Radius of a micro-cluster (denstream, dbstream); auto: the knee of the k-distance curve of the "
        "first points.",
    )
    core_weight: float = Field(10.0, gt=1, description="Points that make a micro-cluster dense (denstream, dbstream).")
    potential_share: float = Field(
        0.2, gt=0, le=1, description="Part of core_weight from which DenStream keeps a micro-cluster for long."
    )
    half_life_points: float = Field(
        10_000.0, gt=0, description="Points after which a point counts half as much (dbstream, which knows no time)."
    )
    shared_share: float = Field(
        0.1, gt=0, le=1, description="Part of its points that DBSTREAM's micro-clusters share if they are one cluster."
    )
    window: int = Field(5_000, ge=10, description="Points of the recent past that HDBSCAN looks at.")
    recluster_every: int = Field(20_000, ge=1, description="Points after which HDBSCAN looks again.")
    min_samples: int = Field(10, ge=1, description="Neighbours that make a point a core (hdbscan, radius 'auto').")
    min_cluster_size: int = Field(25, ge=2, description="Points that make a cluster of HDBSCAN.")

    @model_validator(mode="after")
    def _range(self) -> "OnlineSettings":
        if self.core_weight * self.potential_share <= 1:
            raise ValueError("core_weight x potential_share must be greater than 1, or every point is kept for long")
        return self


class StreamSettings(_Section):
    """Events while they happen; addresses and passwords are variables of the environment."""

    source: Literal["kafka", "mqtt", "kinesis", "pubsub"] = Field("kafka", description="Where events come from.")
    topic: str = Field("user_events", min_length=1, description="Topic, or stream or subscription, of events.")
    dead_letters: str = Field("user_events_dead", min_length=1, description="Topic for events that cannot be used.")
    changes: str = Field("segment_changes", min_length=1, description="Topic that changes of segment are told to.")
    group: str = Field("segments", min_length=1, description="Consumer group; workers of one group share the events.")
    batch_events: int = Field(5_000, ge=1, le=100_000, description="Events at most in one step.")
    linger_ms: int = Field(5, ge=0, le=10_000, description="Milliseconds that a step of few events waits for more.")
    lateness_minutes: float = Field(
        60.0,
        ge=0,
        le=2 * 24 * 60,
        description="How far an event may be behind its user's latest. A later one is set aside as a dead letter; a "
        "repeated one is told within this time.",
    )
    state_days: float = Field(90.0, gt=0, description="A user without events for so long is forgotten here.")
    cached_users: int = Field(
        30_000, ge=0, description="Users whose state a worker keeps in memory as well, some 7 kB each."
    )
    change: Share = Field(
        0.2, description="How much behaviour must change in any group for a user to be looked at anew."
    )
    elasticsearch: bool = Field(
        True, description="Whether changes are written to user_profiles and user_segments, in small batches."
    )
    online: OnlineSettings = OnlineSettings()


class DriftSettings(_Section):
    """When the stream says that the model has had its time. The sensor ``behaviour_drift`` compares."""

    max_psi: float = Field(
        0.25, ge=0, description="Population stability index of a feature from which the users are others than before."
    )
    max_changed_share: Share = Field(
        0.5,
        description="Share of active users whose behaviour changed by more than stream.change since they were "
        "last looked at by a run.",
    )
    min_users: int = Field(200, ge=1, description="Active users below which nothing is concluded.")


class ServeSettings(_Section):
    """The API."""

    max_body_bytes: int = Field(1_000_000, ge=1_000, description="Of a request.")
    max_users: int = Field(1_000, ge=1, le=10_000, description="Users in one request, and on one page.")
    per_minute: int = Field(60_000, ge=1, description="Requests a minute of one key.")
    cors_origins: tuple[str, ...] = Field((), description="Origins that browsers may call from; none.")
    fallback: bool = Field(True, description="Whether Elasticsearch answers for users whom Redis does not know.")


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
    attributes: AttributeSettings = AttributeSettings()
    cleaning: CleaningSettings = CleaningSettings()
    features: FeatureSettings = FeatureSettings()
    scores: ScoreSettings = ScoreSettings()
    rules: RuleSettings = RuleSettings()
    behaviour: BehaviourSettings = BehaviourSettings()
    personas: PersonaSettings = PersonaSettings()
    profiles: ProfileSettings = ProfileSettings()
    stream: StreamSettings = StreamSettings()
    drift: DriftSettings = DriftSettings()
    serve: ServeSettings = ServeSettings()
