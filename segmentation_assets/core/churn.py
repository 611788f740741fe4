"""Who changed segment, and why: users before and after a retraining, and the record of what was decided.

What belongs here: the two records that a result carries (``Decision``, ``Churn``), and the arithmetic on users'
segments. What does not: choosing between models, applying one (retrain), bounds (settings).
"""

from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc


@dataclass(frozen=True)
class Decision:
    """Whether a retraining replaced the model, with the numbers it rests on (``retrain.retrain``).

    Attributes:
        kept: True when the previous model stays and only the new sessions were assigned.
        reason: one sentence for people.
        candidate: what the clusters of the newly fitted model tell about the words of these sessions, in nats; None
            where nothing was compared.
        previous: the same of the previous model.
        gain: ``candidate / previous - 1``; None where nothing was compared.
        min_gain: what the gain had to reach.
    """

    kept: bool
    reason: str
    candidate: float | None = None
    previous: float | None = None
    gain: float | None = None
    min_gain: float | None = None

    @property
    def summary(self) -> str:
        """The decision in one line."""
        return f"{'kept the previous model' if self.kept else 'took the new model'}: {self.reason}"

    @property
    def numbers(self) -> dict[str, float]:
        """What was compared, by name; empty where nothing was."""
        named = {"told_by_new_model": self.candidate, "told_by_previous_model": self.previous, "gain": self.gain}
        return {name: round(value, 4) for name, value in named.items() if value is not None}


@dataclass(frozen=True)
class Flow:
    """Users who went from one segment to another, or stayed.

    Attributes:
        before: the segment they were served as.
        now: the segment they would be served as.
        users: how many, ``by_behaviour + by_model`` where the two segments differ.
        by_behaviour: of them, those the previous model would have moved as well.
        by_model: of them, those the previous model would have left where they were.
    """

    before: str
    now: str
    users: int
    by_behaviour: int = 0
    by_model: int = 0


@dataclass(frozen=True)
class Churn:
    """How the users' segments differ from those that readers are served now.

    Attributes:
        previous_version: the model that made what is served; None where nothing was served before.
        users: users present in both, whom all shares are of.
        came: users only in the new result.
        left: users only in the served one.
        flows: every pair of segments with at least one user, the largest first.
        made_with: what the segments were made with, by name of the setting (``retrain.made_with``).
        asked: names of the settings that somebody changed since; empty for a plain retraining.
    """

    previous_version: str | None
    users: int = 0
    came: int = 0
    left: int = 0
    flows: list[Flow] = field(default_factory=list)
    made_with: dict[str, str] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    @property
    def first(self) -> bool:
        """Whether nothing was served before, so that there is nothing to compare with."""
        return self.previous_version is None

    @property
    def by_behaviour(self) -> int:
        """Users whose segment changed, and whom the previous model would have moved as well."""
        return sum(flow.by_behaviour for flow in self.flows)

    @property
    def by_model(self) -> int:
        """Users whose segment changed, and whom the previous model would have left where they were."""
        return sum(flow.by_model for flow in self.flows)

    @property
    def changed_share(self) -> float:
        """Share of the users in both whose segment changed, 0..1."""
        return self._share(self.by_behaviour + self.by_model)

    @property
    def behaviour_share(self) -> float:
        """The part of ``changed_share`` that is due to what users did."""
        return self._share(self.by_behaviour)

    @property
    def model_share(self) -> float:
        """The part of ``changed_share`` that is due to the model or the names it gives."""
        return self._share(self.by_model)

    def _share(self, users: int) -> float:
        return users / self.users if self.users else 0.0


def changed_users(before: pa.Table, now: pa.Table) -> pa.Array:
    """Ids of the users whose segment is another one; both tables as ``measure`` takes them."""
    both = _join(before, now)
    return both["user_id"].filter(pc.not_equal(both["before"], both["now"])).combine_chunks()


def measure(previous_version: str, before: pa.Table, now: pa.Table, replayed: pa.Table) -> Churn:
    """Compare users' segments, and split the change by its cause.

    A user's segment changed when it was ``before`` in what is served and is ``now`` another one. The cause is found by
    replaying: the previous model, with the names it gave its clusters, is applied to the user's new sessions.

    - It gives another segment than before: their behaviour changed. The old model would have moved them too (perhaps
      elsewhere).
    - It gives the segment they had: the model changed. Had it stayed, so would they.

    A user without a replayed segment counts as moved by the model: no number is no excuse for it.

    Args:
        previous_version: the model that made ``before``.
        before: columns user_id and segment, one row a user (``labels.dominant_segments``).
        now: the same of the new result.
        replayed: the same by the previous model on the new sessions; needed for users whose segment changed.

    Returns:
        The churn, with neither ``made_with`` nor ``asked``.
    """
    both = _join(before, now)
    place = pc.index_in(both["user_id"].combine_chunks(), replayed["user_id"].combine_chunks())
    by_old_model = pc.fill_null(pc.not_equal(replayed["segment"].combine_chunks().take(place), both["before"]), False)
    changed = pc.not_equal(both["before"], both["now"])
    counted = both.append_column("behaviour", pc.and_(changed, by_old_model).cast(pa.int64()))
    counted = counted.append_column("changed", changed.cast(pa.int64()))
    flows = counted.group_by(["before", "now"]).aggregate(
        [("user_id", "count"), ("behaviour", "sum"), ("changed", "sum")]
    )
    return Churn(
        previous_version=previous_version,
        users=both.num_rows,
        came=now.num_rows - both.num_rows,
        left=before.num_rows - both.num_rows,
        flows=sorted(
            (
                Flow(
                    flow["before"],
                    flow["now"],
                    flow["user_id_count"],
                    flow["behaviour_sum"],
                    flow["changed_sum"] - flow["behaviour_sum"],
                )
                for flow in flows.to_pylist()
            ),
            key=lambda flow: (-flow.users, flow.before, flow.now),
        ),
    )


def _join(before: pa.Table, now: pa.Table) -> pa.Table:
    """user_id, before and now: the segments of the users in both tables."""
    place = pc.index_in(now["user_id"].combine_chunks(), before["user_id"].combine_chunks())
    there = place.is_valid()
    return pa.table(
        {
            "user_id": now["user_id"].combine_chunks().filter(there),
            "before": before["segment"].combine_chunks().take(place.drop_null()),
            "now": now["segment"].combine_chunks().filter(there),
        }
    )
