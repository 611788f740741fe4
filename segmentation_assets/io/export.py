"""Published segments, profiles and lists of users as files for other tools.

What belongs here: reading what is behind a published alias page by page, and writing rows as CSV, Parquet or NDJSON.
What does not: what a profile holds (core.users.profiles), publishing it (publishing), options (cli.export).

A file is written beside its place and moved there when it is complete, so it is whole or not there at all. Memory does
not grow with the number of documents: one page of them is held at a time.
"""

import csv
import io
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any, BinaryIO, Literal

import pyarrow as pa
from elasticsearch import ApiError, Elasticsearch, NotFoundError

from segmentation_assets.core.moments import parse_timestamp
from segmentation_assets.errors import SegmentsError
from segmentation_assets.io.elasticsearch import errors_explained
from segmentation_assets.io.point_in_time import KEEP_ALIVE, ShortRead, close_point_in_time, open_point_in_time

Format = Literal["csv", "parquet", "ndjson"]

FORMATS: tuple[Format, ...] = ("csv", "parquet", "ndjson")

PAGE = 5_000
"""Documents in one answer, and rows in one row group of Parquet."""

USER_FIELDS = ("user_id", "segment", "persona", "loyalty_tier", "rules")
"""Columns of a list of users; all of them always, so that what reads the list finds them."""

_FIRST = (
    *("session_id", "user_id", "timestamp", "search_query", "segment", "persona", "cluster", "confidence"),
    *("loyalty_tier", "loyalty_index", "rfm", "rules"),
)  # the other columns follow by name, those of objects last
_NAMES_SHOWN = 50
_MOMENT = pa.timestamp("ms", tz="UTC")
_TYPES: Mapping[str, pa.DataType] = {
    **dict.fromkeys(("float", "double", "half_float", "scaled_float"), pa.float64()),
    **dict.fromkeys(("long", "integer", "short", "byte"), pa.int64()),
    **dict.fromkeys(("date", "date_nanos"), _MOMENT),
    "boolean": pa.bool_(),
}  # any other type of field is a column of text

Progress = Callable[[int, int | None], None]


class TargetExists(SegmentsError):
    """There is a file of that name, and it was not said that it may be replaced."""


class ExportFailed(SegmentsError):
    """The file cannot be written in that form or to that place."""


class NothingPublished(SegmentsError):
    """Nothing is behind the alias."""


class UnknownGroup(SegmentsError):
    """No user is in a segment, persona or rule of that name."""


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        rows: how many.
        format: one of ``FORMATS``.
        target: the file; None: standard output.
        columns: of a CSV or Parquet file, in order; none for NDJSON, where each row has its own.
        escaped: cells of a CSV that got an apostrophe, see ``export``.
        absent: fields that could have been exported and that none of the rows has; no columns, save in a list of users.
        left_out: fields of rows that no column was made for, because the index does not know them.
    """

    rows: int
    format: Format
    target: Path | None
    columns: tuple[str, ...] = ()
    escaped: int = 0
    absent: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()


# --- writing ----------------------------------------------------------------------------------------------------------


def export(
    rows: Iterable[Mapping[str, Any]],
    columns: pa.Schema,
    target: Path | None,
    format: Format,
    *,
    force: bool = False,
    stdout: BinaryIO | None = None,
) -> Exported:
    """Write rows to a file, all of them or none.

    CSV (RFC 4180, UTF-8, a header) and Parquet are flat: a field of an object is a column with a dotted name
    (``features.recency_days``). In a CSV, several values in one cell are separated by ``|``, or are a JSON array where
    one of them holds that sign; nothing at all is an empty cell. NDJSON is the documents as they are.

    Formulas: a spreadsheet would run a cell of text that begins with ``=``, ``+``, ``-``, ``@``, a tab or a line end
    (or the full-width forms of those signs), and queries come from strangers. Such a cell gets an apostrophe in front;
    numbers, negative ones as well, stay as they are. Source: OWASP, CSV Injection
    (https://owasp.org/www-community/attacks/CSV_Injection). Where ids may begin like that, Parquet and NDJSON are
    exact.

    Args:
        rows: documents, nested or not.
        columns: names (dotted) and types of the columns of CSV and Parquet.
        target: where to; None: standard output, which Parquet cannot be written to.
        format: one of ``FORMATS``.
        force: replace a file that is there.
        stdout: instead of the standard output of this process.

    Raises:
        TargetExists: there is such a file, and not ``force``; nothing was read.
        ExportFailed: the place cannot be written to, or a value does not fit its column.
    """
    check_target(target, format, force=force)
    writer = _Writer(columns)
    with _place(target, stdout or sys.stdout.buffer, force=force) as file:
        if format == "ndjson":
            writer.as_ndjson(rows, file)
        elif format == "csv":
            writer.as_csv(rows, file)
        else:
            writer.as_parquet(rows, file)
    names = () if format == "ndjson" else tuple(columns.names)
    return Exported(writer.rows, format, target, names, writer.escaped, (), tuple(sorted(writer.left_out)))


def check_target(target: Path | None, format: str, *, force: bool = False) -> None:
    """Refuse what could not be written, before anything is read. See ``export``."""
    if format not in FORMATS:
        raise ExportFailed(f"There is no format {format!r}.", f"Use one of {', '.join(FORMATS)}.")
    if target is None:
        if format == "parquet":
            raise ExportFailed("Parquet cannot be written to standard output.", "Name a file with --output.")
        return
    if os.path.isdir(target):  # unlike Path.is_dir, no error of its own for a name that cannot be
        raise ExportFailed(f"{target} is a folder.", "Name a file in it.")
    if not os.path.isdir(target.parent):
        raise ExportFailed(f"There is no folder {target.parent}.", "Make it, or name a file elsewhere.")
    if os.path.lexists(target) and not force:
        raise TargetExists(f"{target} is there already.", "Name another file, or replace this one with --force.")


@contextmanager
def _place(target: Path | None, stdout: BinaryIO, *, force: bool) -> Iterator[BinaryIO]:
    if target is None:
        yield stdout
        stdout.flush()
        return
    part = target.with_name(f".{target.name[:40]}.{os.getpid()}.part")
    try:
        try:
            with part.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            check_target(target, "csv", force=force)  # somebody may have written it meanwhile
            part.replace(target)
        finally:
            with suppress(FileNotFoundError):
                part.unlink()
    except OSError as error:
        raise ExportFailed(
            f"{target} could not be written: {error.strerror or error}.",
            "Check the place: rights, and room on the disk.",
        ) from error


class _Writer:
    """Writes rows in one form or another, and counts."""

    def __init__(self, columns: pa.Schema) -> None:
        self._columns = columns
        self._leaves = frozenset(columns.names)
        self.rows = 0
        self.escaped = 0
        self.left_out: set[str] = set()

    def as_ndjson(self, rows: Iterable[Mapping[str, Any]], file: BinaryIO) -> None:
        for row in rows:
            self.rows += 1
            file.write(_json(row).encode() + b"\n")

    def as_csv(self, rows: Iterable[Mapping[str, Any]], file: BinaryIO) -> None:
        text = io.TextIOWrapper(file, "utf-8", newline="", write_through=False)
        try:
            writer = csv.writer(text, lineterminator="\r\n")
            writer.writerow([self._safe(name) for name in self._columns.names])
            for row in rows:
                self.rows += 1
                flat = self._flat(row)
                writer.writerow([self._cell(flat.get(name)) for name in self._columns.names])
        finally:
            text.flush()
            text.detach()  # the file is closed by whoever opened it

    def as_parquet(self, rows: Iterable[Mapping[str, Any]], file: BinaryIO) -> None:
        import pyarrow.parquet as pq

        with pq.ParquetWriter(file, self._columns, compression="zstd") as writer:
            rows = iter(rows)
            while batch := [self._flat(row) for row in islice(rows, PAGE)]:
                self.rows += len(batch)
                arrays = [_array([row.get(part.name) for row in batch], part) for part in self._columns]
                writer.write_batch(pa.record_batch(arrays, schema=self._columns))

    def _flat(self, row: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
        """The row's values by column."""
        flat: dict[str, Any] = {}
        for key, value in row.items():
            name = f"{prefix}{key}"
            if name in self._leaves:
                flat[name] = value
            elif isinstance(value, Mapping):
                flat.update(self._flat(value, f"{name}."))
            elif value is not None and value != []:
                self.left_out.add(name)
        return flat

    def _cell(self, value: object) -> object:
        if value is None:
            return ""
        if isinstance(value, bool):
            return "true" if value else "false"
        return value if isinstance(value, int | float) else self._safe(_as_text(value))

    def _safe(self, text: str) -> str:
        if not text.startswith(_FORMULA) or _NUMBER.fullmatch(text):
            return text
        self.escaped += 1
        return f"'{text}"


_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
_NUMBER = re.compile(r"-?\d+(\.\d+)?", re.ASCII)
_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def _as_text(value: object) -> str:
    """The text of a value; several values are joined."""
    if isinstance(value, str):
        return value
    if isinstance(value, list) and not any(isinstance(item, list | dict) for item in value):
        texts = ["" if item is None else item if isinstance(item, str) else _json(item) for item in value]
        # What could not be taken apart again is said in a way that can.
        if not any("|" in text or not text or text.startswith("[") for text in texts):
            return "|".join(texts)
    return _json(value)


def _array(values: list[Any], column: pa.Field) -> pa.Array:
    kind = column.type.value_type if pa.types.is_list(column.type) else column.type
    if pa.types.is_string(kind) or pa.types.is_floating(kind):  # of a whole number Arrow would drop the fraction
        with suppress(pa.ArrowException, TypeError, ValueError, OverflowError):
            return pa.array(values, column.type)
    return pa.array([_fitted(value, column) for value in values], column.type)


def _fitted(value: Any, column: pa.Field) -> Any:
    """A value as its column holds it."""
    kind = column.type
    try:
        if pa.types.is_list(kind):
            values = value if isinstance(value, list) or value is None else [value]
            return None if values is None else [_scalar(item, kind.value_type) for item in values]
        return _scalar(value, kind)
    except (KeyError, TypeError, ValueError):
        what = "several values" if isinstance(value, list) else "a value of another kind"
        raise ExportFailed(
            f"The field {column.name} holds {what} in some documents, which no column of type {kind} can.",
            "Export as NDJSON, which keeps documents as they are.",
        ) from None


def _scalar(value: Any, kind: pa.DataType) -> Any:
    if value is None:
        return None
    if pa.types.is_string(kind):
        return _as_text(value)
    if pa.types.is_timestamp(kind):
        moment = parse_timestamp(value)
        if moment is None:
            raise ValueError(value)
        return moment
    if pa.types.is_boolean(kind):
        return value if isinstance(value, bool) else {"true": True, "false": False, "": False}[value]
    number = float(value) if pa.types.is_floating(kind) else int(value)
    if isinstance(value, float) and number != value:  # a whole number is asked for
        raise ValueError(value)
    return number


# --- reading ----------------------------------------------------------------------------------------------------------


def export_segments(
    client: Elasticsearch,
    alias: str,
    target: Path | None,
    format: Format,
    *,
    segment: str | None = None,
    force: bool = False,
    on_progress: Progress | None = None,
    stdout: BinaryIO | None = None,
) -> Exported:
    """Export the segment of every session, in the order of the index.

    Args:
        client: the client.
        alias: where segments are published.
        target: see ``export``, as are ``format``, ``force`` and ``stdout``.
        format: one of ``FORMATS``.
        segment: only sessions in it.
        force: replace a file that is there.
        on_progress: called with the number read so far and how many there are.
        stdout: instead of the standard output of this process.

    Raises:
        NothingPublished: there is no such alias.
        UnknownGroup: no session is in that segment.
        ShortRead: the documents could not be read to their end; nothing was written to the target.
        SegmentsError: see ``export`` and ``io.elasticsearch``.
    """
    wanted = _Wanted(alias, {"segment": segment}, order=["_shard_doc"])
    return _export(client, wanted, target, format, force, on_progress, stdout)


def export_profiles(
    client: Elasticsearch,
    alias: str,
    target: Path | None,
    format: Format,
    *,
    segment: str | None = None,
    persona: str | None = None,
    rule: str | None = None,
    fields: tuple[str, ...] | None = None,
    force: bool = False,
    on_progress: Progress | None = None,
    stdout: BinaryIO | None = None,
) -> Exported:
    """Export profiles by user_id, with everything in them or some of it. See ``export_segments``.

    Args:
        client: the client.
        alias: where profiles are published.
        target: see ``export``.
        format: one of ``FORMATS``.
        segment: only users whose segment it is.
        persona: only users of this name.
        rule: only users in this rule segment, among others.
        fields: only these; ``USER_FIELDS`` for who is in which group. None: all.
        force: replace a file that is there.
        on_progress: called with the number read so far and how many there are.
        stdout: instead of the standard output of this process.
    """
    groups = {"segment": segment, "persona": persona, "rules": rule}
    wanted = _Wanted(alias, groups, order=["user_id"], fields=fields)
    return _export(client, wanted, target, format, force, on_progress, stdout)


@dataclass(frozen=True)
class _Wanted:
    """Which documents, in which order, and which of their fields (None: all that there are)."""

    alias: str
    groups: Mapping[str, str | None]
    order: Sequence[str]
    fields: tuple[str, ...] | None = None

    @property
    def query(self) -> dict[str, Any]:
        terms = [{"term": {name: value}} for name, value in self.groups.items() if value is not None]
        return {"bool": {"filter": terms}} if terms else {"match_all": {}}


def _export(
    client: Elasticsearch,
    wanted: _Wanted,
    target: Path | None,
    format: Format,
    force: bool,
    on_progress: Progress | None,
    stdout: BinaryIO | None,
) -> Exported:
    check_target(target, format, force=force)
    with errors_explained(client, f"read {wanted.alias}"), _Published(client, wanted.alias) as published:
        total = published.count(wanted.query)
        if not total:
            _check_groups(published, wanted)
        columns, absent = published.columns(wanted)
        pages = published.pages(wanted, total, on_progress)
        first = next(pages, [])
        columns = _with_lists(columns, first)
        rows = chain(first, chain.from_iterable(pages))
        done = export(rows, columns, target, format, force=force, stdout=stdout)
    return replace(done, absent=absent)


class _Published:
    """What is behind an alias, as it is at one moment."""

    def __init__(self, client: Elasticsearch, alias: str) -> None:
        self._client = client
        self._alias = alias

    def __enter__(self) -> "_Published":
        try:
            found = self._client.indices.get_mapping(index=self._alias).body
            self._pit = open_point_in_time(self._client, self._alias)
        except NotFoundError:
            raise NothingPublished(
                f"Nothing is published under '{self._alias}'.",
                "Publish first: `segments run`, or `segments run --users` for profiles and users.",
            ) from None
        self._mappings = [described["mappings"].get("properties", {}) for described in found.values()]
        return self

    def __exit__(self, *_: object) -> None:
        close_point_in_time(self._client, self._pit)

    def count(self, query: Mapping[str, Any]) -> int:
        return int(self._search(query=query, size=0, track_total_hits=True)["hits"]["total"]["value"])

    def groups(self, name: str) -> list[str]:
        """The most frequent values of a field."""
        terms = {"found": {"terms": {"field": name, "size": _NAMES_SHOWN}}}
        answer = self._search(size=0, track_total_hits=False, aggregations=terms)
        return [str(bucket["key"]) for bucket in answer["aggregations"]["found"]["buckets"]]

    def columns(self, wanted: _Wanted) -> tuple[pa.Schema, tuple[str, ...]]:
        """The columns of what is wanted, and the fields that none of it has."""
        known: dict[str, pa.DataType] = {}
        for properties in self._mappings:
            known.update(_leaves(properties))
        names = wanted.fields or tuple(sorted(known, key=_place_of))
        asked = {str(place): {"exists": {"field": name}} for place, name in enumerate(names)}
        there: Mapping[str, Any] = {}
        if asked:
            answer = self._search(
                query=wanted.query,
                size=0,
                track_total_hits=False,
                aggregations={"fields": {"filters": {"filters": asked}}},
            )
            there = answer["aggregations"]["fields"]["buckets"]
        absent = tuple(name for place, name in enumerate(names) if not there[str(place)]["doc_count"])
        kept = names if wanted.fields else [name for name in names if name not in absent]
        return pa.schema([(name, known.get(name, pa.string())) for name in kept]), absent

    def pages(self, wanted: _Wanted, total: int, on_progress: Progress | None) -> Iterator[list[dict[str, Any]]]:
        """The documents, some at a time."""
        after, done = None, 0
        while True:
            answer = self._search(
                query=wanted.query,
                size=PAGE,
                sort=list(wanted.order),
                search_after=after,
                track_total_hits=False,
                source=list(wanted.fields) if wanted.fields else True,
            )
            hits = answer["hits"]["hits"]
            if hits:
                done += len(hits)
                after = hits[-1]["sort"]
                yield [hit["_source"] for hit in hits]
                if on_progress is not None:
                    on_progress(done, total)
            if len(hits) < PAGE:
                break
        if done != total:
            raise ShortRead(f"{done:,} of {total:,} documents of {self._alias} were read.", "Run the export again.")

    def _search(self, **request: Any) -> dict[str, Any]:
        try:
            answer = dict(
                self._client.search(
                    pit={"id": self._pit, "keep_alive": KEEP_ALIVE}, allow_partial_search_results=False, **request
                )
            )
        except ApiError as error:
            if error.meta.status == 404:
                raise ShortRead(
                    f"What was published under {self._alias} is no longer there, or was read too slowly.",
                    "Run the export again.",
                ) from error
            raise
        if answer.get("timed_out") or answer.get("_shards", {}).get("failed"):
            raise ShortRead(f"Not all of {self._alias} answered.", "Run the export again when the cluster is healthy.")
        self._pit = str(answer.get("pit_id", self._pit))
        return answer


def _check_groups(published: _Published, wanted: _Wanted) -> None:
    """Where nobody is in a group, say which groups there are. Nobody in several at once is an answer."""
    for name, value in wanted.groups.items():
        if value is not None and not published.count({"term": {name: value}}):
            found = ", ".join(f"'{group}'" for group in published.groups(name)) or "none"
            what = {"rules": "rule segment"}.get(name, name)
            raise UnknownGroup(f"There is no {what} '{value}' in {wanted.alias}.", f"There are: {found}.")


def _leaves(properties: Mapping[str, Any], prefix: str = "") -> dict[str, pa.DataType]:
    """Dotted name to type of every field that a document can hold."""
    found: dict[str, pa.DataType] = {}
    for name, described in properties.items():
        kind = described.get("type", "object")
        if kind == "object" and described.get("properties"):
            found.update(_leaves(described["properties"], f"{prefix}{name}."))
        elif kind != "alias":  # another name of a field, not in documents
            found[f"{prefix}{name}"] = _TYPES.get(kind, pa.string())
    return found


def _place_of(name: str) -> tuple[int, int, str]:
    return _FIRST.index(name) if name in _FIRST else len(_FIRST), name.count("."), name


def _with_lists(columns: pa.Schema, documents: Sequence[Mapping[str, Any]]) -> pa.Schema:
    """The columns, those as lists that hold lists in the first documents: Elasticsearch's mapping does not tell.

    Where a list comes up only later, a column of text holds its values joined, as in a CSV.
    """
    writer = _Writer(columns)
    several: set[str] = set()
    plain: set[str] = set()
    for document in documents:
        for name, value in writer._flat(document).items():
            if isinstance(value, list):
                several.add(name)
                if any(isinstance(item, list | dict) for item in value):
                    plain.add(name)
    return pa.schema(
        [part.with_type(pa.list_(part.type)) if part.name in several - plain else part for part in columns]
    )
