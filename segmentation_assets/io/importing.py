"""Reading search sessions from files, whatever they are called there.

What belongs here: finding out what a file is, and turning its rows into documents with our field names. What does not:
deciding whether a document is usable (core.sessions) and writing it anywhere (io.session_store). So nothing is repaired
and nothing is left out here: a value that cannot be used goes on as it is and is set aside later, with its reason.
"""

import csv
import gzip
import hashlib
import io
import json
import re
import zlib
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from segmentation_assets.core.sessions import parse_timestamp
from segmentation_assets.errors import SegmentsError

FIELDS = ("session_id", "user_id", "search_query", "clicked_product_ids", "timestamp")
REQUIRED = ("user_id", "search_query", "timestamp")

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

RAW_LENGTH = 2_000
"""Characters kept of something that cannot be read as a row."""

_SAMPLE = 1 << 20  # how much of a file is looked at to find out what it is
_SAMPLE_ROWS = 1_000
_REFILL = 1 << 16  # characters of JSON read at a time
_NAMES_SHOWN = 40
_LONGEST_LINE = 1 << 24  # no row is longer; a file without line ends must not fill the memory
_LONGEST_CELL_LINES = 100  # lines a quoted CSV cell may span; more is a quote that was never closed
_CLICK_ACTIONS = frozenset({"click", "item_click", "product_click"})
_EXCITE_COLUMNS = ("user_id", "timestamp", "search_query")
_EXCITE_TIME = "%y%m%d%H%M%S"
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


@dataclass
class ImportCounts:
    """What has been read so far.

    Attributes:
        records: rows handed on.
        unreadable: of these, rows that could not be read at all.
        identical: of these, rows without an id of their own that equal an earlier one; each still gets its own id.
        events: UBI events read (they are no records).
        clicks_joined: UBI clicks that belong to a query of the file.
        clicks_unmatched: UBI clicks on a query that is not in the file.
    """

    records: int = 0
    unreadable: int = 0
    identical: int = 0
    events: int = 0
    clicks_joined: int = 0
    clicks_unmatched: int = 0


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
        convert = _converter(self.plan.timestamp_format)
        cells = self.plan.format in ("csv", "tsv", "excite")
        try:
            for own_id, row in _rows(self.plan, self.counts):
                record = _record(own_id, row, self.plan.columns, convert, cells, seen)
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
        mapping: our field name -> the column or (dotted) JSON field that holds it.
        timestamp_format: ``iso``, ``epoch_second``, ``epoch_millis`` or a strptime pattern. Without a zone it is UTC.
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
    if unknown := [name for name in mapping if name not in FIELDS]:
        raise UnknownColumn(f"There is no field {unknown[0]!r} in a session.", f"Map one of {', '.join(FIELDS)}.")
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
    if timestamp_format is None and chosen != "ubi":
        timestamp_format = _likely_time_format(sample, found.get("timestamp"), assumed)
    return ImportPlan(path, chosen, found, timestamp_format or "iso", tuple(assumed), separator, header, file.encoding)


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
        with _binary(path) as stream:
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
        text = data.decode(encoding, _on_error(encoding)).removeprefix("\ufeff")
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


def _binary(path: Path) -> gzip.GzipFile | io.BufferedReader:
    with path.open("rb") as raw:
        compressed = raw.read(2) == b"\x1f\x8b"
    return gzip.open(path, "rb") if compressed else path.open("rb")


def _on_error(encoding: str) -> str:
    # Bytes that are no UTF-8 survive as lone surrogates, by which their row is recognised. Other encodings cannot.
    return "surrogateescape" if _plain(encoding) in ("utf8", "utf8sig", "ascii", "usascii") else "replace"


def _lines(plan_path: Path, encoding: str) -> Iterator[str]:
    """The lines of a text file with their ends; of a line longer than any row only the beginning."""
    with io.TextIOWrapper(_binary(plan_path), encoding, _on_error(encoding), newline="\n") as text:
        first = True
        while line := text.readline(_LONGEST_LINE):
            if first:
                line, first = line.removeprefix("\ufeff"), False
            yield line
            while len(line) >= _LONGEST_LINE and not line.endswith("\n"):
                line = text.readline(_LONGEST_LINE)


def _chunks(path: Path, encoding: str) -> Iterator[str]:
    """A text file in pieces, for JSON that may be one endless line."""
    with io.TextIOWrapper(_binary(path), encoding, _on_error(encoding), newline="\n") as text:
        first = True
        while chunk := text.read(1 << 16):
            yield chunk.removeprefix("\ufeff") if first else chunk
            first = False


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
        objects = [value for value in map(_object, whole) if value is not None]
        if not objects:
            return "json" if isinstance(next(_values(iter([file.text])), None), dict) else "ndjson"
        documents = [value for value in objects if _action(value) is None]
        if _action(objects[0]) is not None:
            return "ubi" if _looks_like_ubi(documents) else "bulk"
        return "ubi" if _looks_like_ubi(documents) else "ndjson"
    whole = lines if file.whole or len(lines) == 1 else lines[:-1]
    if sum(bool(_EXCITE_LINE.fullmatch(line)) for line in whole) > len(whole) / 2:
        return "excite"
    best, separator = max((_header_fit(lines[0], separator, mapping), separator) for separator in "\t,;|")
    if best >= 2:
        return "tsv" if separator == "\t" else "csv"
    if sum(_object(line) is not None for line in whole) > len(whole) / 2:
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
    cells = _split(line, separator)
    return sum(
        (mapping or {}).get(name) in cells or any(_same(cell, known) for cell in cells for known in SYNONYMS[name])
        for name in FIELDS
    )


def _likeliest_delimiter(file: _File, columns: Sequence[str] | None, mapping: Mapping[str, str]) -> str:
    first = next(line for line in (file.text or "").splitlines() if line.strip())
    if columns:
        return max(",;|\t", key=lambda s: -abs(len(_split(first, s)) - len(columns)))
    return max(",;|\t", key=lambda s: (_header_fit(first, s, mapping), first.count(s)))


def _split(line: str, separator: str) -> list[str]:
    try:
        cells = next(_csv_reader(iter([line]), separator), [])
    except csv.Error:
        cells = line.split(separator)
    return [cell.strip() for cell in cells]


def _same(name: str, known: str) -> bool:
    return _plain(name) == _plain(known)


def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", "", name.lower())


def _looks_like_ubi(documents: list[dict[str, Any]]) -> bool:
    return any(_is_ubi_query(row) or _is_ubi_event(row) for row in documents)


def _is_ubi_query(row: Mapping[str, Any]) -> bool:
    return "query_id" in row and "user_query" in row and "action_name" not in row


def _is_ubi_event(row: Mapping[str, Any]) -> bool:
    return "action_name" in row and "query_id" in row


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
    if plan.format in ("csv", "tsv", "excite"):
        names = dict.fromkeys(plan.header or _split(_first_line(file), plan.delimiter))
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
        assumed.append("Clicks are joined with their query on query_id; a user is a client_id.")
        return {**usual, "timestamp": "timestamp", "clicked_product_ids": "clicked_product_ids", **mapping}
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
        elif format in ("ndjson", "bulk", "json"):
            found[field_name] = field_name  # JSON rows may have it later on
    return found


def _likely_time_format(sample: _Sample, column: str | None, assumed: list[str]) -> str | None:
    """Epoch seconds would be taken for milliseconds, in January 1970, and nobody would notice."""
    values = [value for row in sample.rows if column and (value := _value(row, column)) not in (None, "")]
    seconds = [
        isinstance(value, str | int | float)
        and not isinstance(value, bool)
        and re.fullmatch(r"\d{9,10}(\.\d+)?", str(value).strip()) is not None
        for value in values
    ]
    if values and sum(seconds) > len(values) / 2:
        assumed.append("Times are seconds since 1970 (epoch_second).")
        return "epoch_second"
    return None


# ----------------------------------------------------------------------------------------------------------------- rows

Row = dict[str, Any] | str
"""A row with the file's names, or the raw text of one that cannot be read."""


def _rows(plan: ImportPlan, counts: ImportCounts, sampling: bool = False) -> Iterator[tuple[object, Row]]:
    """The rows in order, each with the id the file's format gives it outside of the row, or None."""
    if plan.format == "parquet":
        return _parquet_rows(plan.path)
    if plan.format == "ubi":
        return _ubi_rows(plan, counts, sampling)
    if plan.format in ("csv", "tsv", "excite"):
        return _cell_rows(plan)
    return _json_rows(plan)


def _json_rows(plan: ImportPlan) -> Iterator[tuple[object, Row]]:
    lines = _lines(plan.path, plan.encoding)
    if plan.format == "json":
        for value in _values(_chunks(plan.path, plan.encoding)):
            yield _unwrapped(None, value)
        return
    action: dict[str, Any] | None = None
    dangling = ""
    for line in lines:
        if not line.strip():
            continue
        value = _object(line)
        if value is not None and action is None and (found := _action(value)) is not None:
            action, dangling = found, line
            continue
        if action is not None and value is not None and _action(value) is not None:
            yield None, _raw(dangling)  # an action without its document
            action, dangling = _action(value), line
            continue
        yield _unwrapped((action or {}).get("_id"), _raw(line) if value is None else value)
        action = None
    if action is not None:
        yield None, _raw(dangling)


def _object(line: str) -> dict[str, Any] | None:
    value = _parsed(line)
    return value if isinstance(value, dict) else None


def _parsed(line: str) -> object:
    try:
        line.encode()  # lone surrogates here are bytes that were no text, see _on_error
        return json.loads(line)
    except (ValueError, RecursionError):  # ValueError also for numbers of thousands of digits
        return None


def _action(value: dict[str, Any]) -> dict[str, Any] | None:
    """The body of a bulk action line, or None for anything else."""
    if len(value) != 1:
        return None
    (name, body), *_ = value.items()
    if name not in ("index", "create") or not isinstance(body, dict):
        return None
    known = {
        "routing",
        "pipeline",
        "require_alias",
        "dynamic_templates",
        "if_seq_no",
        "if_primary_term",
        "list_executed_pipelines",
    }
    return body if all(key.startswith("_") or key in known for key in body) else None


def _unwrapped(own_id: object, value: object) -> tuple[object, Row]:
    """An exported hit, {"_id": .., "_source": {..}}, is its source."""
    if isinstance(value, dict) and "_id" in value and isinstance(value.get("_source"), dict):
        return value["_id"], value["_source"]
    if isinstance(value, dict):
        return own_id, value
    return None, value if isinstance(value, str) else _raw(json.dumps(value, default=str))


def _raw(text: str) -> str:
    """Text fit to be stored: shortened, and with what was no text replaced."""
    return text.strip()[:RAW_LENGTH].encode("utf-8", "surrogateescape").decode("utf-8", "replace")


_START = re.compile(r"\s*\[?[\s,\]]*")
_BETWEEN = re.compile(r"[\s,\]]*")
_NUMBER_END = re.compile(r"[\d.eE+-]{0,19}")
_NEXT_OBJECT = re.compile(r"[}\]]\s*,?\s*(?=\{)|\n\s*(?=\{)")


def _values(chunks: Iterator[str]) -> Iterator[object]:
    """The values of a JSON array, or of objects that follow each other, without holding more than one of them.

    Where one cannot be read its text is given, and it goes on at what looks like the next object.
    """
    decoder = json.JSONDecoder()
    buffer, at, ended, gap = "", 0, False, _START
    while True:
        if found := gap.match(buffer, at):
            at = found.end()
            gap = _BETWEEN if "[" in found.group() else gap  # the array is opened once
        if at >= len(buffer):
            if ended:
                return
        else:
            gap = _BETWEEN
            try:
                value, end = decoder.raw_decode(buffer, at)
                # A number may go on in the next chunk.
                if ended or isinstance(value, dict | list | str) or not _NUMBER_END.fullmatch(buffer[end : end + 20]):
                    yield value if _encodable(buffer[at:end]) else _raw(buffer[at:end])
                    at = end
                    continue
            except (ValueError, RecursionError):
                if ended or len(buffer) - at >= _LONGEST_LINE:
                    following = _NEXT_OBJECT.search(buffer, at + 1)
                    end = following.end() if following else len(buffer)
                    yield _raw(buffer[at:end])
                    at = end
                    continue
        parts, wanted = [buffer[at:]], max(_REFILL, len(buffer) - at)  # as much again: a long value stays linear
        at = 0
        while wanted > 0 and not ended:
            chunk = next(chunks, "")
            ended = not chunk
            wanted -= len(chunk)
            parts.append(chunk)
        buffer = "".join(parts)


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _cell_rows(plan: ImportPlan) -> Iterator[tuple[object, Row]]:
    quoted = plan.format == "csv"
    source = _Pushback(line for line in _lines(plan.path, plan.encoding))
    header = list(plan.header) if plan.header else None
    while True:
        row, text, consumed = _next_row(source, plan.delimiter, quoted, len(header) if header else None)
        if consumed == 0:
            return
        if not text.strip():
            continue
        if header is None:
            header = [cell.strip() for cell in row or []]
        elif row is None or any(cell.strip() for cell in row[len(header) :]) or not _encodable(text):
            yield None, _raw(text)
        else:
            # Too few cells: the rest is absent. A cell without anything in it says that there is nothing.
            yield None, dict(zip(header, row, strict=False))


class _Pushback(Iterator[str]):
    """Lines that can be given back."""

    def __init__(self, lines: Iterator[str]) -> None:
        self._lines = lines
        self._back: deque[str] = deque()

    def __next__(self) -> str:
        return self._back.popleft() if self._back else next(self._lines)

    def give_back(self, lines: Sequence[str]) -> None:
        self._back.extendleft(reversed(lines))


def _next_row(source: _Pushback, delimiter: str, quoted: bool, width: int | None) -> tuple[list[str] | None, str, int]:
    """The cells of the next row (None: unreadable), its text, and how many lines it took.

    A quote that is never closed would swallow the rows that follow: such a row is only its first line.
    """
    if not quoted:
        line = next(source, None)
        return ([], "", 0) if line is None else (line.rstrip("\r\n").split(delimiter), line, 1)
    taken: list[str] = []
    ended = False

    def feed() -> Iterator[str]:
        nonlocal ended
        while len(taken) < _LONGEST_CELL_LINES:
            line = next(source, None)
            if line is None:
                ended = True
                return
            taken.append(line)
            yield line

    try:
        row: list[str] | None = next(_csv_reader(feed(), delimiter), [])
    except csv.Error:
        row = None
    suspect = len(taken) > 1 or (ended and taken)
    if suspect and (row is None or (width or len(row)) != len(row) or _left_open(taken, delimiter)):
        source.give_back(taken[1:])
        return None, taken[0], 1
    return row, "".join(taken), len(taken)


def _left_open(lines: list[str], delimiter: str) -> bool:
    try:
        next(csv.reader(iter(lines), delimiter=delimiter, skipinitialspace=True, strict=True), None)
    except csv.Error:
        return True
    return False


def _csv_reader(lines: Iterator[str], delimiter: str) -> Iterator[list[str]]:
    return csv.reader(lines, delimiter=delimiter, skipinitialspace=True)


def _parquet_rows(path: Path) -> Iterator[tuple[object, Row]]:
    with pq.ParquetFile(path) as parquet:
        for batch in parquet.iter_batches(batch_size=8_192):
            columns = {name: _column(column) for name, column in zip(batch.schema.names, batch.columns, strict=True)}
            for values in zip(*columns.values(), strict=True):
                yield None, dict(zip(columns, values, strict=True))


def _column(column: pa.Array) -> list[Any]:
    kind = column.type
    try:
        if pa.types.is_timestamp(kind):
            # Python's times have no nanoseconds, and the names of zones are not known everywhere.
            column = column.cast(pa.timestamp("us", "UTC" if kind.tz else None), safe=kind.unit != "ns")
        return [_plain_value(value) for value in column.to_pylist()]
    except (ValueError, OverflowError):  # one value is beyond what Python can hold: find out which
        return [_scalar(scalar) for scalar in column]


def _scalar(scalar: Any) -> object:
    try:
        return _plain_value(scalar.as_py())
    except (ValueError, OverflowError):
        if pa.types.is_string(scalar.type) or pa.types.is_large_string(scalar.type):
            return bytes(scalar.as_buffer()).decode("utf-8", "surrogateescape")
        return f"{getattr(scalar, 'value', None)} ({scalar.type})"


def _plain_value(value: object) -> object:
    """What JSON can hold: ISO text for a time; text for bytes (older writers do not mark their text as such)."""
    if isinstance(value, date):  # every datetime is one
        return value.isoformat()
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    return value


# ------------------------------------------------------------------------------------------------------------------ UBI


def _ubi_rows(plan: ImportPlan, counts: ImportCounts, sampling: bool) -> Iterator[tuple[object, Row]]:
    """The queries with their clicks. The file is read twice, so that only the clicks are held, wherever they stand."""
    clicks: dict[str, list[object]] = {}
    for _, row in () if sampling else _json_rows(plan):
        if isinstance(row, dict) and _is_ubi_event(row):
            counts.events += 1
            if (product := _clicked(row)) is not None:
                clicks.setdefault(str(row["query_id"]), []).append(product)
                counts.clicks_unmatched += 1
    joined: set[str] = set()
    queries = 0
    for own_id, row in _json_rows(plan):
        if isinstance(row, dict):
            if _is_ubi_event(row):
                continue
            query, response = row.get("query_id"), row.get("query_response_id")
            products = clicks.get(str(query), [])
            if products and str(query) not in joined:
                joined.add(str(query))
                counts.clicks_joined += len(products)
                counts.clicks_unmatched -= len(products)
            # One search can take several requests (results, facets, suggestions) under one query_id. UBI tells them
            # apart by the response, so the id does too; each of them led to the clicks.
            key = f"{query}:{response}" if query and response else query or own_id
            row = {**row, "session_id": key, "clicked_product_ids": list(products)}
        queries += 1
        yield None, row
    if not queries and not sampling:
        raise NoColumnFor(
            f"{plan.path} holds {counts.events:,} UBI events and no query.",
            "Export ubi_queries as well, into the same file: who searched for what is in there.",
        )


def _clicked(event: dict[str, Any]) -> object:
    """The product a click event is about, or None. An impression, a filter or a click somewhere on the page is none."""
    if event["action_name"] not in _CLICK_ACTIONS:
        return None
    attributes = event.get("event_attributes")
    target = attributes.get("object") if isinstance(attributes, dict) else None
    return target.get("object_id") if isinstance(target, dict) else None


# -------------------------------------------------------------------------------------------------------------- records


def _record(
    own_id: object,
    row: Row,
    columns: Mapping[str, str],
    convert: "_Converter",
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
    if cells and "clicked_product_ids" in document:
        document["clicked_product_ids"] = _clicks_in(document["clicked_product_ids"])
    if document.get("timestamp") is not None:
        document["timestamp"] = convert(document["timestamp"])
    key = next((key for key in (document.pop("session_id", None), own_id) if not _blank(key)), None)
    if key is None:
        return ImportRecord(seen.name(_identity(document)), document)
    return ImportRecord(key, {"session_id": key, **document})


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
            value = _parsed(text)
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


@dataclass(frozen=True)
class _Converter:
    """Turns a time in the file's format into ISO text; what is no such time stays recognisably none."""

    format: str
    _epoch: datetime = field(default=datetime(1970, 1, 1, tzinfo=UTC), repr=False)

    def __call__(self, value: object) -> object:
        if self.format == "iso":
            return value
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


def _converter(timestamp_format: str) -> _Converter:
    if timestamp_format not in ("iso", "epoch_second", "epoch_millis"):
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
