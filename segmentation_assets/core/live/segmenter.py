"""From events to segments: one micro-batch of events, the states of their users, one model.

What belongs here: which segment a user is in, when a user is looked at anew, and what has changed by it. What does not:
reading events and keeping states (streaming, io).

The query segment is looked at after every event, since that costs nothing: it is the segment of most of the user's
sessions, by the very rule of the batch side (``labels.dominant_segments``). The behaviour cluster is looked at when the
user's behaviour has moved by more than the bound since the last time (``change``), or the model is another one.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from segmentation_assets.core.live.change import has_changed, remember
from segmentation_assets.core.live.events import Event
from segmentation_assets.core.live.features import Prices, live_features
from segmentation_assets.core.live.model import LiveModel
from segmentation_assets.core.live.state import APPLIED, CLICKED, CONVERTED, DUPLICATE, SEARCHED, UserState, apply
from segmentation_assets.core.taxonomy import OTHER
from segmentation_assets.core.users.clustering import NOISE, assign
from segmentation_assets.core.users.preprocessing import transform

REMEMBERED_QUERIES = 200_000
"""Queries whose cluster is remembered; beyond that all are forgotten and learnt again."""

WEIGHTS: Mapping[str, int] = {"view": 1, "click": 2, "add_to_cart": 5, "purchase": 10}
"""How much an event says for a product when products are ranked."""

_HOUR = 3_600_000


class Change(msgspec.Struct, frozen=True, gc=False):
    """A user who is in another segment, or another behaviour cluster, than before.

    Attributes:
        user_id: who.
        at: moment of the event that did it, milliseconds.
        segment: now; empty as long as there was no search.
        previous: segment before; empty for a user who had none.
        cluster: of behaviour now; -1 none, -2 not looked for.
        previous_cluster: likewise.
        persona: its name; empty where there is none.
        model: version of the model.
        session_id: of the user's latest search in the micro-batch; None where there was none.
        search_query: of that search.
        session_segment: the segment of that query by itself.
        session_at: moment of that search, milliseconds.
    """

    user_id: str
    at: int
    segment: str
    previous: str
    cluster: int
    previous_cluster: int
    persona: str
    model: str
    session_id: str | None = None
    search_query: str | None = None
    session_segment: str | None = None
    session_at: int | None = None


@dataclass
class Outcome:
    """What a micro-batch led to.

    Attributes:
        touched: users with a new state, each once.
        changes: of segments and behaviour clusters, at most one a user.
        duplicates: events that were there before.
        late: places in the batch of events that came too late.
        applied: events that counted.
        segmented: users who were looked at anew because their behaviour moved.
        products: (segment of the user, hour since 1970, product) to its weight.
    """

    touched: list[str] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    duplicates: int = 0
    late: list[int] = field(default_factory=list)
    applied: int = 0
    segmented: int = 0
    products: Counter[tuple[str, int, str]] = field(default_factory=Counter)


class Clusters(Protocol):
    """Online clusters, as far as they are asked here; see ``core.live.online``."""

    def learn(self, rows: NDArray[np.float64], at: NDArray[np.int64]) -> None:
        """Take (n, d) rows in."""

    def assignable(self) -> tuple[NDArray[np.float64], NDArray[np.int32], NDArray[np.float64]]:
        """Points (m, d), their cluster ids (m,) and reach (m,), for ``clustering.assign``."""


class Segmenter:
    """Segments users by one model.

    Args:
        model: of the batch side.
        lateness: milliseconds that an event may be behind its user's latest.
        bound: change from which a user is looked at anew, 0..1.
        online: clusters that go on learning; None: those of the model.
    """

    def __init__(self, model: LiveModel, lateness: int, bound: float, online: Clusters | None = None) -> None:
        self.model = model
        self.lateness = lateness
        self.bound = bound
        self.online = online
        self._clusters: dict[str, int] = {}
        self._prices = None if model.prices is None or not model.prices.num_rows else Prices(model.prices)
        behaviour = model.behaviour
        self._columns = [] if behaviour is None else [step.feature for step in behaviour.preprocessing.numeric]

    def clusters_of(self, queries: Iterable[str]) -> dict[str, int]:
        """The cluster of each query, -1 for none; grows with every call, do not change it."""
        unknown = [query for query in dict.fromkeys(queries) if query not in self._clusters]
        if unknown:
            if len(self._clusters) > REMEMBERED_QUERIES:
                self._clusters = {}  # another one: somebody may be using what was given before
                return self.clusters_of(queries)
            labels, _ = self.model.queries.predict(unknown)
            self._clusters.update(zip(unknown, labels.tolist(), strict=True))
        return self._clusters

    def segment_of(self, cluster: int) -> str:
        """The segment of a cluster of queries."""
        return self.model.segments.get(cluster, OTHER)

    def process(self, events: Sequence[Event], states: dict[str, UserState]) -> Outcome:
        """Apply events in their order.

        Args:
            events: checked.
            states: user to state, of every user of the events who has one; changed, and grown by new users.
        """
        outcome = Outcome()
        clusters = self.clusters_of([event.search_query for event in events if event.search_query is not None])
        last: dict[str, Event] = {}
        searched: dict[str, Event] = {}
        lateness, version = self.lateness, self.model.version
        products = outcome.products
        ranks = self._prices
        for place, event in enumerate(events):
            user = event.user_id
            state = states.get(user)
            if state is None:
                state = states[user] = UserState()
            elif state.model != version and user not in last:
                self._translate(state)
            query = event.search_query
            level = -1.0
            if event.price is not None and ranks is not None:
                level = ranks.level(event.category, event.price)
            done = apply(state, event, lateness, clusters[query] if query is not None else NOISE, level)
            if done == APPLIED:
                outcome.applied += 1
                last[user] = event
                if query is not None:
                    searched[user] = event
                weight = WEIGHTS.get(event.event_type)
                if weight is not None and event.product_id is not None:
                    products[(state.segment or OTHER, event.timestamp // _HOUR, event.product_id)] += weight
            elif done == DUPLICATE:
                outcome.duplicates += 1
            else:
                outcome.late.append(place)
        outcome.touched = list(last)
        self._segment(last, searched, states, clusters, outcome)
        return outcome

    def _segment(
        self,
        last: Mapping[str, Event],
        searched: Mapping[str, Event],
        states: Mapping[str, UserState],
        clusters: Mapping[str, int],
        outcome: Outcome,
    ) -> None:
        before: dict[str, tuple[str, int]] = {}
        moved: list[str] = []
        version, bound = self.model.version, self.bound
        for user, event in last.items():
            state = states[user]
            state.sequence += 1
            before[user] = state.segment, state.cluster
            segment = self.dominant(state)
            if segment != state.segment:
                state.before = _before(state) if state.segment else [0, 0, 0]
                state.segment, state.since = segment, searched.get(user, event).timestamp
            if state.model != version or has_changed(state, bound):
                moved.append(user)
        if moved:
            self._look_anew([states[user] for user in moved], moved)
            outcome.segmented = len(moved)
        for user, (segment, cluster) in before.items():
            state = states[user]
            if state.segment == segment and state.cluster == cluster:
                continue
            search = searched.get(user)
            query = None if search is None else search.search_query
            outcome.changes.append(
                Change(
                    user_id=user,
                    at=last[user].timestamp if state.segment == segment else state.since,
                    segment=state.segment,
                    previous=segment,
                    cluster=state.cluster,
                    previous_cluster=cluster,
                    persona=self.model.personas.get(state.cluster, ""),
                    model=version,
                    session_id=None if search is None else search.session_id or search.event_id,
                    search_query=query,
                    session_segment=None if query is None else self.segment_of(clusters[query]),
                    session_at=None if search is None else search.timestamp,
                )
            )

    def dominant(self, state: UserState) -> str:
        """The segment of most sessions; see ``labels.dominant_segments`` for ties. Empty without a session."""
        interests = state.interests
        segments = self.model.segments
        if len(interests) == 1:
            return segments.get(next(iter(interests)), OTHER)
        found: dict[str, tuple[int, int]] = {}
        for cluster, (sessions, latest) in interests.items():
            name = segments.get(cluster, OTHER)
            known = found.get(name)
            found[name] = (sessions, latest) if known is None else (known[0] + sessions, max(known[1], latest))
        if not found:
            return ""
        return min(found, key=lambda name: (-found[name][0], name == OTHER, -found[name][1], name))

    def behaviour(
        self, states: Sequence[UserState], users: Sequence[str], end: int | None = None
    ) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Behaviour cluster (-1 none) and confidence of users, (n,) each, by the code of the batch side.

        Args:
            states: (n,).
            users: (n,) their ids.
            end: see ``live_features``.

        Raises:
            ValueError: the model has no behaviour clusters.
        """
        return self._assigned(self.rows(states, users, end))

    def rows(self, states: Sequence[UserState], users: Sequence[str], end: int | None = None) -> NDArray[np.float64]:
        """(n, d) rows that behaviour clusters are found in."""
        if self.model.behaviour is None:
            raise ValueError("the model has no behaviour clusters")
        steps = self.model.behaviour.preprocessing
        wanted = bool(steps.categorical)
        table, traits = live_features(states, users, self.model.segments, end, self._columns, wanted)
        return transform(steps, table, traits)

    def _assigned(self, rows: NDArray[np.float64]) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        model = self.model.behaviour
        assert model is not None  # rows() was asked first
        if self.online is not None:
            points, ids, reach = self.online.assignable()
            return assign(rows, points, ids, reach)
        # By place, not by id, as behaviour.predict does: of equally near clusters the first one is taken.
        order = np.argsort(model.cluster_ids)
        place = order[np.searchsorted(model.cluster_ids, model.point_clusters, sorter=order)].astype(np.int32)
        index, confidence = assign(rows, model.points, place, model.reach)
        labels = np.full(len(index), NOISE, np.int32)
        labels[index >= 0] = model.cluster_ids[index[index >= 0]]
        return labels, confidence

    def _look_anew(self, states: list[UserState], users: list[str]) -> None:
        if self.model.behaviour is not None:
            rows = self.rows(states, users)
            if self.online is not None:
                self.online.learn(rows, np.array([state.latest for state in states], np.int64))
            labels, confidence = self._assigned(rows)
            for state, label, sure in zip(states, labels.tolist(), confidence.tolist(), strict=True):
                state.cluster, state.confidence = label, sure
        for state in states:
            state.model = self.model.version
            remember(state)

    def _translate(self, state: UserState) -> None:
        """Count a user's sessions by the clusters of this model.

        Those whose queries are remembered are assigned anew. Of the others the cluster is known by its id, which stays
        from model to model as long as the cluster does; if it is gone, they are in none.
        """
        clusters = self.clusters_of([query for _, query, _ in state.queries])
        interests = {cluster: list(found) for cluster, found in state.interests.items()}
        for _, _, old in state.queries:
            interests[old][0] -= 1
        earlier = state.queries[-1][0] if state.queries else state.latest  # the others were before all remembered ones
        merged: dict[int, list[int]] = {}
        for cluster, (sessions, latest) in interests.items():
            if sessions > 0:
                known = cluster in self.model.segments
                _add(merged, cluster if known else NOISE, sessions, min(latest, earlier))
        renamed = []
        for at, query, _ in state.queries:
            cluster = clusters[query]
            _add(merged, cluster, 1, at)
            renamed.append((at, query, cluster))
        state.interests = merged
        state.queries = renamed


def _before(state: UserState) -> list[int]:
    """Visits, and those with a click and with a purchase, but for the latest one, which brought the change.

    As of the end of the step: where a step has several visits of a user, as when stored sessions are replayed at a
    great speed-up, all but the last of them count as before.
    """
    # Of a visit whose search nobody saw, nothing was counted.
    flags = next((session[4] for session in reversed(state.recent_sessions) if session[4] & SEARCHED), 0)
    visit, clicked, converted = bool(flags & SEARCHED), bool(flags & CLICKED), bool(flags & CONVERTED)
    return [state.visits - visit, state.clicked - clicked, state.converted - converted]


def _add(interests: dict[int, list[int]], cluster: int, sessions: int, latest: int) -> None:
    found = interests.setdefault(cluster, [0, latest])
    found[0] += sessions
    found[1] = max(found[1], latest)
