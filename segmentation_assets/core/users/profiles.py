"""One user, one profile: everything known and found about a user, side by side.

What belongs here: joining the results into one row a user, and that row as a document. What does not: computing any of
it, publishing it (io).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from segmentation_assets.core.model import StaleInputError
from segmentation_assets.core.users.attributes import UserAttributes
from segmentation_assets.core.users.behaviour import BehaviourModel
from segmentation_assets.core.users.cleaning import CleanSessions
from segmentation_assets.core.users.features import UserFeatures, of_users
from segmentation_assets.core.users.imputation import MARK
from segmentation_assets.core.users.personas import Personas, clusters_of
from segmentation_assets.core.users.rules import RuleSegments
from segmentation_assets.core.users.scores import UserScores

SEGMENTS = "segment_share"
"""The shares of query segments, which stand beside the segment rather than among the features."""

DECIMALS = 6
"""Decimal places of a number in a document."""

_BATCH = 5_000
_EXACT = 1e9  # a double from here on has fewer decimals than are kept


@dataclass(frozen=True)
class UserProfiles:
    """The profiles.

    Attributes:
        table: a row a user, sorted by user_id. Null is what is not known of a user, and a column is left out where
            nothing was given to make it of. user_id; segment (dominant query segment), segment_share (struct of
            doubles, segment to share); cluster (int32, -1 is none), cluster_confidence (float, 0..1), persona;
            rules (list of text); the columns of ``scores.SCORES_SCHEMA``; features (struct: a double for each feature,
            and for the shares a struct of doubles: ``features.category_share.Shoes``); traits (struct of text, doubles
            and moments: those of the features, and attributes); noise, outliers (features), imputed (columns of
            sessions), lists of text.
        model_version: of the behaviour model.
        segment_model_version: of the model that made the query segments.
        start: first moment of the data window, aware UTC.
        end: last moment.
        absent: group of features, feature, trait or score to why nobody has it.
    """

    table: pa.Table
    model_version: str
    segment_model_version: str
    start: datetime
    end: datetime
    absent: dict[str, str] = field(default_factory=dict)


def build_profiles(
    features: UserFeatures,
    scores: UserScores,
    rules: RuleSegments,
    model: BehaviourModel,
    personas: Personas,
    users_segments: pa.Table | None = None,
    attributes: UserAttributes | None = None,
    *,
    segment_model_version: str = "",
    clean: CleanSessions | None = None,
) -> UserProfiles:
    """Put together what is known about each user: one row for every user of the features, whatever is missing.

    Args:
        features: features and traits.
        scores: RFM and loyalty.
        rules: segments by rule.
        model: behaviour clusters.
        personas: their names, of the same model.
        users_segments: ``labels.USER_SCHEMA``; None, or a user without a row: no query segment.
        attributes: what it holds beyond the traits (the dates) is added to them.
        segment_model_version: of the model that made the query segments; empty where there are none.
        clean: which columns of sessions were filled; None: nothing is said about it.

    Raises:
        StaleInputError: scores, rules, model or personas were not made from these features.
    """
    users, cluster = clusters_of(features, model)
    names = {card.cluster: card.name for card in personas.cards}
    if personas.model_version != model.version or not set(cluster.tolist()) <= set(names):
        raise StaleInputError(
            f"The personas (model {personas.model_version}) are not those of the behaviour model {model.version}.",
            "Materialize the personas again.",
        )
    measured = [name for name in features.table.column_names if name != "user_id"]
    ids, place = np.unique(cluster, return_inverse=True)
    confidence = pa.array(model.confidence, pa.float32()).take(pc.index_in(users, model.users))
    columns: dict[str, pa.Array] = {"user_id": users}
    if users_segments is not None:
        columns["segment"] = _aligned(users_segments, users)["segment"]
    plain: list[str] = []
    shares: dict[str, dict[str, str]] = {}
    for name in measured:
        stem, colon, part = name.partition(":")
        if colon:
            shares.setdefault(stem, {})[name] = part
        else:
            plain.append(name)
    if SEGMENTS in shares:
        columns[SEGMENTS] = _struct(features.table, shares.pop(SEGMENTS))
    columns |= {
        "cluster": pa.array(cluster, pa.int32()),
        "cluster_confidence": confidence,
        "persona": pa.array([names[each] for each in ids.tolist()], pa.string()).take(pa.array(place)),
        "rules": _checked(rules.table, users, "rule segments")["rules"],
    }
    columns |= _checked(scores.table, users, "scores")
    columns["features"] = _nested(
        {name: features.table[name].combine_chunks() for name in plain}
        | {stem: _struct(features.table, parts) for stem, parts in shares.items()},
        len(users),
    )
    columns["traits"] = _traits(features, attributes, users)
    noise = _aligned(features.noise, users)["noise"]
    columns["noise"] = pc.fill_null(noise, pa.scalar([], noise.type))
    columns["outliers"] = _names_of(features.outliers.select(["user_id", "feature"]), users, measured)
    if clean is not None:
        columns["imputed"] = _imputed(clean.sessions, users)
    return UserProfiles(
        pa.table(columns).sort_by("user_id"),
        model.version,
        segment_model_version,
        features.start,
        features.end,
        {**features.absent, **scores.absent},
    )


def documents(profiles: UserProfiles) -> Iterator[dict[str, Any]]:
    """The profiles as documents, in the order of the table: plain text, whole numbers, finite floats, lists, dicts.

    What is not known is left out: a document has no null. An object without a value is left out as well; an empty list
    says that nothing of the kind was found. Floats are rounded to ``DECIMALS`` places, more than the index tells apart;
    moments are ISO 8601 in UTC. A share of 0 is there like any other, so that means over users are right. A name of
    blanks, which Elasticsearch does not take for a field, is put into quotation marks.
    """
    constants = {
        "absent": sorted(profiles.absent),
        "model_version": profiles.model_version,
        "segment_model_version": profiles.segment_model_version or None,
        "window_start": _iso(profiles.start),
        "window_end": _iso(profiles.end),
    }
    constants = {name: value for name, value in constants.items() if value is not None}
    names = profiles.table.column_names
    for batch in profiles.table.to_batches(max_chunksize=_BATCH):
        for row in zip(*(_values(column) for column in batch.columns), strict=True):
            document = {name: value for name, value in zip(names, row, strict=True) if value is not None}
            yield {**document, **constants}


def _aligned(table: pa.Table, users: pa.Array) -> dict[str, pa.Array]:
    """The columns of a table in the order of these users, null where a user has no row."""
    found = of_users(table, users)
    return {name: found[name].combine_chunks() for name in found.column_names if name != "user_id"}


def _checked(table: pa.Table, users: pa.Array, what: str) -> dict[str, pa.Array]:
    """The same of a table that has to be of exactly these users."""
    if table.num_rows != len(users) or pc.index_in(users, table["user_id"].combine_chunks()).null_count:
        raise StaleInputError(
            f"The features ({len(users)} users) and the {what} ({table.num_rows} users) were not made from each other.",
            f"Materialize the features and the {what} again, in one run.",
        )
    return _aligned(table, users)


def _struct(table: pa.Table, names: Mapping[str, str]) -> pa.StructArray:
    """Columns as one, each under the name it is to have."""
    return _nested({name: table[column].combine_chunks() for column, name in names.items()}, table.num_rows)


def _nested(columns: Mapping[str, pa.Array], rows: int) -> pa.StructArray:
    if not columns:
        return pa.nulls(rows, pa.struct([]))
    return pa.StructArray.from_arrays(list(columns.values()), names=list(columns))


def _traits(features: UserFeatures, attributes: UserAttributes | None, users: pa.Array) -> pa.StructArray:
    known = {} if attributes is None else _aligned(attributes.table, users)
    return _nested(known | _aligned(features.traits, users), len(users))


def _names_of(pairs: pa.Table, users: pa.Array, order: Sequence[str]) -> pa.ListArray:
    """A list for each user of the names that a table of user_id and name has for them, in the given order.

    Args:
        pairs: user_id and a second column, in any order.
        users: (n,) ids.
        order: every name that there can be.
    """
    names = pa.array(order, pa.string())
    rows = pc.index_in(pairs.column(0).combine_chunks(), users)
    which = pc.index_in(pairs.column(1).combine_chunks(), names)
    there = pc.and_(rows.is_valid(), which.is_valid())
    keys = rows.filter(there).to_numpy().astype(np.int64) * len(order) + which.filter(there).to_numpy()
    row, column = np.divmod(np.unique(keys), max(len(order), 1))
    offsets = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=len(users)))]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), names.take(pa.array(column)))


def _imputed(sessions: pa.Table, users: pa.Array) -> pa.ListArray:
    """For each user the columns of which at least one session was filled."""
    filled = [name.removesuffix(MARK) for name in sessions.column_names if name.endswith(MARK)]
    empty = pa.table({"user_id": pa.array([], pa.string()), "column": pa.array([], pa.string())})
    pairs = [empty]
    for name in filled:
        whose = pc.unique(sessions["user_id"].filter(sessions[name + MARK]))
        pairs.append(pa.table({"user_id": whose, "column": pa.array([name] * len(whose), pa.string())}))
    return _names_of(pa.concat_tables(pairs), users, filled)


def _values(column: pa.Array) -> list[Any]:
    """The values of a column as a document takes them, None for what is left out."""
    kind = column.type
    if pa.types.is_struct(kind):
        return _objects(column)
    if pa.types.is_floating(kind):
        numbers = column.cast(pa.float64()).to_numpy(zero_copy_only=False)
        known = np.isfinite(numbers)
        small = known & (np.abs(numbers) < _EXACT)
        found = np.array(numbers)
        found[small] = np.round(numbers[small], DECIMALS)
        if known.all():
            return list(found.tolist())
        values = found.astype(object)
        values[~known] = None
        return list(values.tolist())
    if pa.types.is_timestamp(kind):
        moments = column.cast(pa.timestamp("ms", tz=kind.tz)).to_numpy(zero_copy_only=False)
        texts = np.datetime_as_string(moments, unit="ms").tolist()
        return [text + "Z" if there else None for text, there in zip(texts, column.is_valid().to_pylist(), strict=True)]
    return list(column.to_pylist())


def _objects(column: pa.StructArray) -> list[dict[str, Any] | None]:
    """A dict for each row of what it has; None for a row that has nothing."""
    children = column.flatten()
    if not children:
        return [None] * len(column)
    names = [field.name if field.name.strip() else repr(field.name) for field in column.type]
    return [
        {name: value for name, value in zip(names, row, strict=True) if value is not None} or None
        for row in zip(*map(_values, children), strict=True)
    ]


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
