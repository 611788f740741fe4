"""What sets a cluster of users apart, in numbers and in plain words, and a name for it.

What belongs here: traits, statistics, the table of names and how it is applied. What does not: finding the clusters
(behaviour), the shipped table (personas.yaml).
"""

from dataclasses import dataclass, field

NOISE_NAME = "Unlike any group"
"""What users in no cluster are called: a group with a name, never dropped."""


@dataclass(frozen=True)
class Trait:
    """A feature in which a cluster differs from everybody else.

    Attributes:
        feature: its name.
        effect: Cohen's d against the other users, positive where the cluster has more.
        mean: of the cluster.
        rest: mean of the others.
        sentence: the same in plain words.
    """

    feature: str
    effect: float
    mean: float
    rest: float
    sentence: str


@dataclass(frozen=True)
class Persona:
    """A cluster of users as somebody one can talk about.

    Attributes:
        cluster: its id; -1 for the users in no cluster.
        name: from the table of names, or descriptive. No two clusters have the same.
        rule: the entry of the table that gave the name; None where it is descriptive.
        evidence: what the name rests on, in words.
        users: how many.
        share: of all users, 0..1.
        traits: what sets it apart, strongest first.
        statistics: feature to count, mean, std, min, q1, median, q3, max over its users that have a value.
        queries: sample queries, none of them typed by one user alone.
        segments: query segment to its share of the cluster's users (their dominant one), largest first.
    """

    cluster: int
    name: str
    rule: str | None
    evidence: list[str]
    users: int
    share: float
    traits: list[Trait]
    statistics: dict[str, dict[str, float]] = field(default_factory=dict)
    queries: list[str] = field(default_factory=list)
    segments: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Personas:
    """A persona for each cluster.

    Attributes:
        cards: largest first, the users in no cluster last.
        model_version: of the behaviour model.
    """

    cards: list[Persona]
    model_version: str
