"""Reading search sessions from files, whatever they are called there.

What belongs here: finding out what a file is, and turning its rows into documents with our field names. What does not:
reading formats (io.formats), joining the queries and events of UBI (io.ubi), deciding whether a document is usable
(core.sessions, core.details) and writing it anywhere (io.session_store). So nothing is repaired and nothing is left out
here: a value that cannot be used goes on as it is and is set aside later, with its reason.
"""

import gzip
import hashlib
import io
import json
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from segmentation_assets.core import details
from segmentation_assets.core.moments import parse_timestamp
from segmentation_assets.core.sessions import usable_query
from segmentation_assets.core.values import usable_id
from segmentation_assets.errors import SegmentsError
from segmentation_assets.io import ubi
from segmentation_assets.io.formats import (
    Row,
    Rows,
    binary,
    bulk_action,
    cell_rows,
    json_object,
    json_rows,
    json_values,
    ndjson_rows,
    on_error,
    parquet_rows,
    parsed,
    plain_name,
    split_cells,
)

FIELDS = ("session_id", "user_id", "search_query", "clicked_product_ids", "timestamp")
REQUIRED = ("user_id", "search_query", "timestamp")

DETAILS = (*details.FIELDS, "events")
"""What a session may have beside these. Such a column is taken where it has just this name; cells hold no events."""

FORMATS = ("ndjson", "bulk", "json", "ubi", "csv", "tsv", "excite", "parquet")
"""ndjson: an object a line; bulk: the same with Elasticsearch's action lines; json: an array, or objects one after the
other; ubi: OpenSearch User Behavior Insights 1.3; excite: the log of 1997, which has no header."""

SYNONYMS: dict[str, tuple[str, ...]] = {
    "session_id": ("session_id", "search_id", "query_id", "event_id", "_id", "id"),
    "user_id": (
        *("user_id", "user", "uid", "customer_id", "customer", "client_id", "client", "visitor_id", "visitor"),
        *("shopper_id", "member_id", "account_id", "anon_id", "username", "cookie_id"),
    ),
    "search_query": (
        *("search_query", "query", "q", "user_query", "query_text", "search", "search_term", "search_text"),
        *("search_phrase", "keywords", "keyword", "term", "phrase"),
    ),
    "clicked_product_ids": (
        *("clicked_product_ids", "clicked_products", "clicked_ids", "clicked", "clicks", "click", "product_ids"),
        *("products", "item_ids", "items"),
    ),
    "timestamp": (
        *("timestamp", "@timestamp", "time", "ts", "date_time", "date", "created_at", "event_time", "query_time"),
        *("search_time", "searched_at", "occurred_at"),
    ),
}
"""Names a field goes by elsewhere, the likeliest first. Case and punctuation do not matter."""

_SAMPLE = 1 << 20  # how much of a file is looked at to find out what it is
_SAMPLE_ROWS = 1_000
_OF_CELLS = ("csv", "tsv", "excite")
_OF_JSON = ("ndjson", "bulk", "json")
_NAMES_SHOWN = 40
_EXCITE_COLUMNS = ("user_id", "timestamp", "search_query")
_EXCITE_TIME = "%y%m%d%H%M%S"
_SECONDS = re.compile(r"\d{9,10}(\.\d+)?")  # since 1970: from 1973 to 2286; as milliseconds the spring of 1970
_EXCITE_LINE = re.compile(r"[0-9A-Fa-f]{16}\t\d{12}\t[^\t]*")


class ImportFileError(SegmentsError):
    """The file cannot be opened, or ends before it should."""


class EmptyFile(SegmentsError):
    """There is nothing in the file."""


class UnknownFormat(SegmentsError):
    """It could not be found out how to read the file."""


class UnknownColumn(SegmentsError):
    """A mapping names a column that is not there, or a field that we do not have."""


class NoColumnFor(SegmentsError):
    """No column can be recognised as the user, the query or the time."""


class ImportRecord(NamedTuple):
    """One row of the file.

    Attributes:
        session_id: the id in the file as it is there, else one made from the content and so the same at every import.
        document: our field names with the file's values; or text, when the row could not be read at all.
    """

    session_id: object
    document: object


@dataclass(frozen=True)
class ImportPlan:
    """How a file is read.

    Attributes:
        path: the file.
        format: one of ``FORMATS``.
        columns: our field name -> the name in the file. A field that is missing here is absent.
        timestamp_format: ``iso`` (values go on as they are), ``epoch_second``, ``epoch_millis`` or a strptime pattern.
        timestamp_guessed: whether nobody said so. A guess costs no value: one that is not in the format stays as it is.
        assumed: what was found out or guessed and not said, in sentences for people.
        delimiter: between the cells of a CSV.
        header: the names of the cells when the file does not hold them.
        encoding: of the text.
    """

    path: Path
    format: str
    columns: dict[str, str]
    timestamp_format: str = "iso"
    assumed: tuple[str, ...] = ()
    delimiter: str = ","
    header: tuple[str, ...] | None = None
    encoding: str = "utf-8"
    timestamp_guessed: bool = False


@dataclass
class ImportCounts(ubi.EventCounts):
    """What has been read so far; of UBI also what became of the events, which are no records.

    Attributes:
        records: rows handed on.
        unreadable: of these, rows that could not be read at all.
        identical: of these, rows without an id of their own that equal an earlier one; each still gets its own id.
    """

    records: int = 0
    unreadable: int = 0
    identical: int = 0


class Reading(Iterator[ImportRecord]):
    """The records of a file, read while iterating.

    Attributes:
        plan: how the file is read, with what was assumed.
        counts: complete when the iteration is.
    """

    def __init__(self, plan: ImportPlan) -> None:
        self.plan = plan
        self.counts = ImportCounts()
        self._records = self._read()

    def __next__(self) -> ImportRecord:
        return next(self._records)

    def _read(self) -> Iterator[ImportRecord]:
        seen = _Seen()
        times = _Times.of(self.plan)
        cells = self.plan.format in _OF_CELLS
        try:
            for own_id, row in _rows(self.plan, self.counts):
                record = _record(own_id, row, self.plan.columns, times, cells, seen)
                self.counts.records += 1
                self.counts.identical = seen.repeated
                self.counts.unreadable += not isinstance(record.document, dict)
                yield record
        except (EOFError, zlib.error, gzip.BadGzipFile, pa.ArrowException, OSError) as error:
            raise ImportFileError(
                f"{self.plan.path} could not be read to its end: {error}. {self.counts.records:,} records were read.",
                "The file is damaged or was cut short: copy it again and repeat the import (nothing gets in twice).",
            ) from error


def read_file(
    path: str | Path,
    *,
    format: str | None = None,
    mapping: Mapping[str, str] | None = None,
    timestamp_format: str | None = None,
    columns: Sequence[str] | None = None,
    delimiter: str | None = None,
    encoding: str | None = None,
) -> Reading:
    """Read search sessions from a file. What is not said is found out from its content.

    Args:
        path: a file; text may be compressed with gzip.
        format: one of ``FORMATS``.
        mapping: our field name, of ``FIELDS`` or ``DETAILS``, -> the column or (dotted) JSON field that holds it.
        timestamp_format: ``iso``, ``epoch_second``, ``epoch_millis`` or a strptime pattern, of all times in the file.
            Without a zone it is UTC. Not given: ISO or milliseconds, save what can only be seconds since 1970.
        columns: names of the cells of a CSV or TSV that has no header.
        delimiter: between the cells of a CSV.
        encoding: of text; default UTF-8, or UTF-16 when the file begins with its mark.

    Returns:
        An iterator of records, with ``plan`` (what was assumed) and ``counts``. What was said is checked before it is
        returned; the rows are read while iterating.

    Raises:
        SegmentsError: one of this module's, with the cause and what to do.
    """
    return Reading(
        plan_import(
            path,
            format=format,
            mapping=mapping,
            timestamp_format=timestamp_format,
            columns=columns,
            delimiter=delimiter,
            encoding=encoding,
        )
    )


def detect_format(path: str | Path) -> str:
    """Return the one of ``FORMATS`` that the content of the file looks like.

    Raises:
        SegmentsError: there is no such file, it is empty, or it is none of them.
    """
    return _detect(_look_at(Path(path), None), None, None)


# ----------------------------------------------------------------------------------------------- finding out what it is


def plan_import(
    path: str | Path,
    *,
    format: str | None = None,
    mapping: Mapping[str, str] | None = None,
    timestamp_format: str | None = None,
    columns: Sequence[str] | None = None,
    delimiter: str | None = None,
    encoding: str | None = None,
) -> ImportPlan:
    """Decide how to read a file without reading more than its beginning. See ``read_file``."""
    path = Path(path)
    mapping = dict(mapping or {})
    if unknown := [name for name in mapping if name not in (*FIELDS, *DETAILS)]:
        raise UnknownColumn(
            f"There is no field {unknown[0]!r} in a session.", f"Map one of {', '.join((*FIELDS, *DETAILS))}."
        )
    if format is not None and format not in FORMATS:
        raise UnknownFormat(f"There is no format {format!r}.", f"Use one of {', '.join(FORMATS)}.")
    if delimiter is not None and len(delimiter) != 1:
        raise UnknownFormat(f"The delimiter must be one character, not {delimiter!r}.", "Use for example ';'.")
    _converter(timestamp_format or "iso")  # a wrong pattern is better refused now
    file = _look_at(path, encoding)
    assumed: list[str] = []
    chosen = format or _detect(file, columns, mapping, delimiter)
    if format is None:
        assumed.append(f"The format is {chosen}.")
    if file.text is None and chosen != "parquet":
        raise UnknownFormat(f"{path} is a Parquet file, not {chosen}.", "Leave the format out.")
    if file.text is not None and chosen == "parquet":
        raise UnknownFormat(f"{path} is no Parquet file.", "Leave the format out, or name another one.")

    header: tuple[str, ...] | None = None
    separator = delimiter or ","
    if chosen == "excite":
        header, separator = _EXCITE_COLUMNS, "\t"
        timestamp_format = timestamp_format or _EXCITE_TIME
    elif chosen in ("csv", "tsv"):
        separator = delimiter or ("\t" if chosen == "tsv" else _likeliest_delimiter(file, columns, mapping))
        header = tuple(columns) if columns else None
        if not columns and separator != ("\t" if chosen == "tsv" else ",") and delimiter is None:
            assumed.append(f"Cells are separated by {separator!r}.")
    sample = _sample_rows(ImportPlan(path, chosen, {}, "iso", (), separator, header, file.encoding), file)
    if not sample.seen and chosen != "ubi":
        raise EmptyFile(f"{path} has no rows.", "Check the export that wrote it.")
    found = _find_columns(path, chosen, sample, mapping, assumed)
    guessed = timestamp_format is None
    if timestamp_format is None:
        timestamp_format = _likely_time_format(sample, found, assumed)
    return ImportPlan(path, chosen, found, timestamp_format, tuple(assumed), separator, header, file.encoding, guessed)


@dataclass(frozen=True)
class _File:
    path: Path
    text: str | None  # the beginning; None: Parquet
    encoding: str
    whole: bool  # text is all of it


def _look_at(path: Path, encoding: str | None) -> _File:
    try:
        if path.is_dir():
            raise ImportFileError(f"{path} is a folder.", "Name one file; import several one after the other.")
        if not path.exists():
            raise ImportFileError(f"There is no file {path}.", "Check the name.")
        if not path.is_file():
            raise ImportFileError(f"{path} is no ordinary file.", "Write the data to a file first: it is read twice.")
        with path.open("rb") as raw:
            magic = raw.read(4)
        if magic == b"PAR1":
            return _File(path, None, "utf-8", False)
        if magic[:2] == b"PK":
            raise UnknownFormat(f"{path} is a ZIP archive or an Excel workbook.", "Unpack it, or save it as CSV.")
        with binary(path) as stream:
            data = _read_up_to(stream, _SAMPLE)
    except OSError as error:
        raise ImportFileError(f"{path} could not be read: {error.strerror or error}.", "Check its rights.") from error
    except (EOFError, zlib.error) as error:
        raise ImportFileError(f"{path} is not a complete gzip file: {error}.", "Copy or download it again.") from error
    if not data.strip():
        raise EmptyFile(f"{path} is empty.", "Check the export that wrote it.")
    if encoding is None:
        encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8"
    try:
        text = data.decode(encoding, on_error(encoding)).removeprefix("\ufeff")
    except LookupError:
        raise UnknownFormat(f"There is no encoding {encoding!r}.", "Use for example utf-8 or latin-1.") from None
    if not text.strip():
        raise EmptyFile(f"{path} is empty.", "Check the export that wrote it.")
    if text.count("\0") > len(text) / 10:
        raise UnknownFormat(f"{path} is no text and no Parquet file.", f"Convert it to one of {', '.join(FORMATS)}.")
    return _File(path, text, encoding, len(data) < _SAMPLE)


def _read_up_to(stream: gzip.GzipFile | io.BufferedReader, size: int) -> bytes:
    parts = []
    while size > 0 and (part := stream.read(size)):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _detect(
    file: _File,
    columns: Sequence[str] | None,
    mapping: Mapping[str, str] | None,
    delimiter: str | None = None,
) -> str:
    if file.text is None:
        return "parquet"
    lines = [line for line in file.text.splitlines() if line.strip()][:_SAMPLE_ROWS]
    if columns or delimiter:
        return "tsv" if delimiter == "\t" or (delimiter is None and "\t" in lines[0]) else "csv"
    start = file.text.lstrip()[:1]
    if start == "[":
        return "json"
    if start == "{":
        whole = lines if file.whole or len(lines) == 1 else lines[:-1]
        objects = [value for value in map(json_object, whole) if value is not None]
        if not objects:
            return "json" if isinstance(next(json_values(iter([file.text])), None), dict) else "ndjson"
        documents = [value for value in objects if bulk_action(value) is None]
        if bulk_action(objects[0]) is not None:
            return "ubi" if ubi.looks_like_ubi(documents) else "bulk"
        return "ubi" if ubi.looks_like_ubi(documents) else "ndjson"
    whole = lines if file.whole or len(lines) == 1 else lines[:-1]
    if sum(bool(_EXCITE_LINE.fullmatch(line)) for line in whole) > len(whole) / 2:
        return "excite"
    best, separator = max((_header_fit(lines[0], separator, mapping), separator) for separator in "\t,;|")
    if best >= 2:
        return "tsv" if separator == "\t" else "csv"
    if sum(json_object(line) is not None for line in whole) > len(whole) / 2:
        return "ndjson"  # its first line is damaged
    count = {separator: lines[0].count(separator) + 1 for separator in "\t,;|"}
    separator = max(count, key=lambda s: count[s])
    raise UnknownFormat(
        f"{file.path} is none of the known formats: its first line is no JSON, and of its {count[separator]} cells "
        f"(separated by {separator!r}) fewer than two are column names that are known.",
        "When there is no header, say which columns there are (user_id,timestamp,search_query); else map their names "
        "(search_query=q).",
    )


def _header_fit(line: str, separator: str, mapping: Mapping[str, str] | None) -> int:
    """How many of our fields a line names when taken as a header."""
    cells = split_cells(line, separator)
    return sum(
        (mapping or {}).get(name) in cells or any(_same(cell, known) for cell in cells for known in SYNONYMS[name])
        for name in FIELDS
    )


def _likeliest_delimiter(file: _File, columns: Sequence[str] | None, mapping: Mapping[str, str]) -> str:
    first = next(line for line in (file.text or "").splitlines() if line.strip())
    if columns:
        return max(",;|\t", key=lambda s: -abs(len(split_cells(first, s)) - len(columns)))
    return max(",;|\t", key=lambda s: (_header_fit(first, s, mapping), first.count(s)))


def _same(name: str, known: str) -> bool:
    return plain_name(name) == plain_name(known)


@dataclass(frozen=True)
class _Sample:
    rows: list[dict[str, Any]]
    names: list[str]
    seen: bool  # there is something, readable or not


def _sample_rows(plan: ImportPlan, file: _File) -> _Sample:
    """The first rows that can be read, and the names of all their columns."""
    rows: list[dict[str, Any]] = []
    names: dict[str, None] = {}
    seen = False
    if plan.format == "parquet":
        try:
            with pq.ParquetFile(plan.path) as parquet:
                names = dict.fromkeys(parquet.schema_arrow.names)
        except (pa.ArrowException, OSError) as error:
            raise ImportFileError(f"{plan.path} is a damaged Parquet file: {error}.", "Copy it again.") from error
    if plan.format in _OF_CELLS:
        names = dict.fromkeys(plan.header or split_cells(_first_line(file), plan.delimiter))
    try:
        for number, (own_id, row) in enumerate(_rows(plan, ImportCounts(), sampling=True)):
            if number >= _SAMPLE_ROWS:
                break
            seen = True
            if isinstance(row, dict):
                if own_id is not None:
                    row = {"_id": own_id, **row}
                rows.append(row)
                names.update(dict.fromkeys(row))
            elif plan.format in ("csv", "tsv", "parquet"):
                rows.append({})
    except (EOFError, zlib.error, pa.ArrowException, OSError):
        seen = True  # said again, with what was read before, when the rows are read
    return _Sample(rows, list(names), seen)


def _first_line(file: _File) -> str:
    return next(line for line in (file.text or "").splitlines() if line.strip())


def _find_columns(
    path: Path, format: str, sample: _Sample, mapping: Mapping[str, str], assumed: list[str]
) -> dict[str, str]:
    there = ", ".join(sample.names[:_NAMES_SHOWN]) + (", ..." if len(sample.names) > _NAMES_SHOWN else "") or "none"
    for field_name, column in mapping.items():
        if column not in sample.names and all(_value(row, column) is None for row in sample.rows):
            raise UnknownColumn(
                f"{path} has no column {column!r} to take {field_name} from.", f"The columns are: {there}."
            )
    if format == "ubi":
        usual = {"session_id": "session_id", "user_id": "client_id", "search_query": "user_query"}
        assumed.append("Events are joined with their query on query_id; a user is a client_id.")
        joined = {"timestamp": "timestamp", "clicked_product_ids": "clicked_product_ids", "events": "events"}
        return {**usual, **joined, **mapping}
    found: dict[str, str] = {}
    taken = set(mapping.values())
    for field_name in FIELDS:
        if field_name in mapping:
            found[field_name] = mapping[field_name]
            continue
        candidates = [
            column
            for known in SYNONYMS[field_name]
            for column in sorted(sample.names, key=lambda name: name != known)
            if _same(column, known) and column not in taken
        ]
        candidates = list(dict.fromkeys(candidates))
        if candidates:
            found[field_name] = candidates[0]
            taken.add(candidates[0])
            if candidates[0] != field_name:
                rather = f" (there is also {', '.join(candidates[1:])})" if len(candidates) > 1 else ""
                assumed.append(f"{field_name} is the column {candidates[0]!r}{rather}.")
        elif field_name in REQUIRED and sample.rows:
            raise NoColumnFor(
                f"{path} has no column that is known to hold the {field_name}.",
                f"Map one of its columns: {field_name}=COLUMN. The columns are: {there}.",
            )
        elif format in _OF_JSON:
            found[field_name] = field_name  # JSON rows may have it later on
    for name in DETAILS:
        if name in mapping:
            found[name] = mapping[name]
        elif name not in taken and (format in _OF_JSON or (name in sample.names and not _cells(format, name))):
            found[name] = name
    return found


def _cells(format: str, name: str) -> bool:
    """Whether it is the cell of a text, which cannot hold events."""
    return name == "events" and format in _OF_CELLS


def _likely_time_format(sample: _Sample, columns: Mapping[str, str], assumed: list[str]) -> str:
    """Epoch seconds would be taken for milliseconds, in January 1970, and nobody would notice."""

    def values(name: str) -> list[Any]:
        found = (_value(row, columns[name]) for row in sample.rows if name in columns)
        return [value for value in found if value not in (None, "")]

    times = values("timestamp")
    if times and sum(map(_is_seconds, times)) > len(times) / 2:
        assumed.append("Times are seconds since 1970 (epoch_second).")
        return "epoch_second"
    lists = [events for events in values("events") if isinstance(events, list)]
    of_events = [event.get("timestamp") for events in lists for event in events if isinstance(event, dict)]
    if any(map(_is_seconds, (*values("start"), *values("end"), *of_events))):
        assumed.append("Times of start, end and events that are numbers of 9 or 10 digits are seconds since 1970.")
    return "iso"


def _is_seconds(value: object) -> bool:
    number = isinstance(value, str | int | float) and not isinstance(value, bool)
    return number and _SECONDS.fullmatch(str(value).strip()) is not None


# ----------------------------------------------------------------------------------------------------------------- rows


def _rows(plan: ImportPlan, counts: ImportCounts, sampling: bool = False) -> Rows:
    """The rows in order, each with the id the file's format gives it outside of the row, or None."""
    if plan.format == "parquet":
        return parquet_rows(plan.path)
    if plan.format in _OF_CELLS:
        return cell_rows(plan.path, plan.encoding, plan.delimiter, plan.header, quoted=plan.format == "csv")
    if plan.format == "json":
        return json_rows(plan.path, plan.encoding)
    rows = ndjson_rows(plan.path, plan.encoding)
    if plan.format != "ubi":
        return rows
    if sampling:
        return ((own_id, row) for own_id, row in rows if not (isinstance(row, dict) and ubi.is_event(row)))
    return _joined(plan, counts)


def _joined(plan: ImportPlan, counts: ImportCounts) -> Rows:
    queries = 0
    for row in ubi.join(partial(ndjson_rows, plan.path, plan.encoding), counts, _as_session(plan)):
        queries += 1
        yield (row["session_id"] if isinstance(row, dict) else None), row
    if not queries:
        raise NoColumnFor(
            f"{plan.path} holds {counts.events:,} UBI events and no query.",
            "Export ubi_queries as well, into the same file: who searched for what is in there.",
        )


def _as_session(plan: ImportPlan) -> ubi.AsSession:
    """What ``_record`` and ``core.sessions`` will find in a query of UBI, as far as it can keep it from being one."""
    convert = _Times.of(plan).timestamp

    def session(row: Mapping[str, Any]) -> tuple[datetime, str] | None:
        user, query, time = (_value(row, plan.columns[name]) for name in REQUIRED)
        key = usable_id(_first_that_is_one(_value(row, plan.columns["session_id"]), row["session_id"]))
        if key is None or usable_id(user) is None or usable_query(query) is None:
            return None
        moment = parse_timestamp(convert(time))
        return None if moment is None else (moment, key)

    return session


# -------------------------------------------------------------------------------------------------------------- records


def _record(
    own_id: object,
    row: Row,
    columns: Mapping[str, str],
    times: "_Times",
    cells: bool,
    seen: "_Seen",
) -> ImportRecord:
    if not isinstance(row, dict):
        return ImportRecord(seen.name(["unreadable", row]), row)
    document: dict[str, Any] = {}
    for name, column in columns.items():
        value = _value(row, column, _ABSENT)
        if value is not _ABSENT:
            document[name] = value
    if cells:
        # A cell without anything in it says that there is nothing; of the fields that must be there a reason says it.
        document = {name: value for name, value in document.items() if name not in DETAILS or not _blank(value)}
        if "clicked_product_ids" in document:
            document["clicked_product_ids"] = _clicks_in(document["clicked_product_ids"])
    for name, convert in (("timestamp", times.timestamp), ("start", times.others), ("end", times.others)):
        if document.get(name) is not None:
            document[name] = convert(document[name])
    if "events" in document:
        document["events"] = _with_times(document["events"], times.others)
    key = _first_that_is_one(document.pop("session_id", None), own_id)
    if key is None:
        return ImportRecord(seen.name(_identity(document)), document)
    return ImportRecord(key, {"session_id": key, **document})


def _with_times(events: object, convert: "_Convert") -> object:
    """Events with their times converted; whatever is no list of objects stays as it is."""
    if not isinstance(events, list) or convert is _unchanged:
        return events
    return [
        {**event, "timestamp": convert(event["timestamp"])}
        if isinstance(event, dict) and event.get("timestamp") is not None
        else event
        for event in events
    ]


def _first_that_is_one(*keys: object) -> object:
    """The first id that is not blank; None where all are."""
    return next((key for key in keys if not _blank(key)), None)


def _blank(key: object) -> bool:
    return key is None or (isinstance(key, str) and not key.strip())


_ABSENT = object()


def _value(row: Mapping[str, Any], column: str, absent: object = None) -> Any:
    """The value of a column, or of a dotted path into nested objects."""
    if column in row:
        return row[column]
    value: Any = row
    for part in column.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return absent
        value = value[part]
    return value


def _clicks_in(cell: str) -> object:
    """The ids in one cell: a JSON array, or separated by one of | ; and , (the first of these that occurs)."""
    cell = cell.strip()
    if cell.startswith("["):
        # Python's way of writing a list is close to JSON's.
        for text in (cell, cell.replace("'", '"')):
            value = parsed(text)
            if isinstance(value, list):
                return value
        return [{"unreadable": cell}]  # to be set aside: it must not become one strange product
    separator = next((s for s in "|;," if s in cell), None)
    parts = cell.split(separator) if separator else [cell]
    return [part.strip() for part in parts if part.strip()]


def _identity(document: Mapping[str, Any]) -> list[object]:
    """Who searched what and when, in one spelling, so that the same log as CSV and as Parquet has the same ids."""
    user, query, time = (document.get(name) for name in ("user_id", "search_query", "timestamp"))
    moment = parse_timestamp(time)
    return [
        str(user).strip() if isinstance(user, str | int) and not isinstance(user, bool) else user,
        " ".join(query.split()) if isinstance(query, str) else query,
        moment.isoformat(timespec="milliseconds") if moment else time,
    ]


_IDENTITY = json.JSONEncoder(sort_keys=True, default=repr)  # made once: json.dumps makes one a call


class _Seen:
    """Names rows that have no id of their own, and counts how often the same one occurred before.

    Held are 8 bytes a row: a sorted array of hashes, with the latest in a set until there are enough to be merged.
    """

    _ENOUGH = 200_000

    def __init__(self) -> None:
        self._old = np.zeros(0, np.uint64)
        self._new: set[int] = set()
        self._again: Counter[int] = Counter()
        self.repeated = 0

    def name(self, identity: object) -> str:
        """32 hexadecimal digits of what the row says and its number among the identical ones."""
        text = _IDENTITY.encode(identity)
        digest = hashlib.sha256(text.encode())
        mark = int.from_bytes(digest.digest()[:8], "big")
        if mark in self._new or self._is_old(mark):
            self._again[mark] += 1
            self.repeated += 1
            digest = hashlib.sha256(f"{text} {self._again[mark]}".encode())
        else:
            self._new.add(mark)
            if len(self._new) >= self._ENOUGH:
                self._old = np.sort(np.concatenate([self._old, np.fromiter(self._new, np.uint64)]), kind="stable")
                self._new.clear()
        return digest.hexdigest()[:32]

    def _is_old(self, mark: int) -> bool:
        if not len(self._old):
            return False
        at = int(np.searchsorted(self._old, np.uint64(mark)))
        return at < len(self._old) and int(self._old[at]) == mark


# ---------------------------------------------------------------------------------------------------------------- times


_Convert = Callable[[object], object]


@dataclass(frozen=True)
class _Times:
    """How times are converted.

    Attributes:
        timestamp: that of a session.
        others: start, end, and those of events. They may have come from elsewhere, and be in another format.
    """

    timestamp: _Convert
    others: _Convert

    @classmethod
    def of(cls, plan: ImportPlan) -> Self:
        if plan.timestamp_guessed:
            return cls(_from_seconds if plan.timestamp_format == "epoch_second" else _unchanged, _from_seconds)
        convert = _converter(plan.timestamp_format)
        return cls(convert, convert)


def _unchanged(value: object) -> object:
    return value


def _from_seconds(value: object) -> object:
    """ISO text for what looks like seconds since 1970; anything else stays as it is."""
    return _EPOCH_SECONDS(value) if _is_seconds(value) else value


@dataclass(frozen=True)
class _Converter:
    """Turns a time in the file's format into ISO text; what is no such time stays recognisably none."""

    format: str
    _epoch: datetime = field(default=datetime(1970, 1, 1, tzinfo=UTC), repr=False)

    def __call__(self, value: object) -> object:
        moment = self._parse(value)
        if moment is not None:
            return moment.isoformat()
        # Not in the format that was said. If it would pass as another kind of time (a long number as milliseconds),
        # it would get in with a wrong date; so it says what is the matter with it.
        return value if parse_timestamp(value) is None else f"{value} (not {self.format})"

    def _parse(self, value: object) -> datetime | None:
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            return None
        try:
            if self.format in ("epoch_second", "epoch_millis"):
                return self._epoch + timedelta(
                    **{"seconds" if self.format == "epoch_second" else "milliseconds": float(value)}
                )
            moment = datetime.strptime(str(value).strip(), self.format)
        except (ValueError, OverflowError):
            return None
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)


_EPOCH_SECONDS = _Converter("epoch_second")


def _converter(timestamp_format: str) -> _Convert:
    if timestamp_format == "iso":
        return _unchanged
    if timestamp_format not in ("epoch_second", "epoch_millis"):
        now = datetime(2001, 2, 3, 4, 5, 6, tzinfo=UTC)
        try:
            if "%" not in timestamp_format:
                raise ValueError("it has no %")
            datetime.strptime(now.strftime(timestamp_format), timestamp_format)
        except ValueError as error:
            raise UnknownFormat(
                f"{timestamp_format!r} is no format of a time: {error}.",
                "Use iso, epoch_second, epoch_millis or a pattern such as %d/%m/%Y %H:%M:%S.",
            ) from None
    return _Converter(timestamp_format)
