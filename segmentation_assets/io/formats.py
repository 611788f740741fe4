"""Readers of the formats that files of sessions come in.

What belongs here: bytes of a file to rows with the file's own names, one reader a format, none of which holds more than
a piece of the file. What does not: finding out which format it is, what the names mean (importing), joining rows (ubi).
"""

import csv
import gzip
import io
import json
import re
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from segmentation_assets.core.values import encodable

RAW_LENGTH = 2_000
"""Characters kept of something that cannot be read as a row."""

_REFILL = 1 << 16  # characters of JSON read at a time
_LONGEST_LINE = 1 << 24  # no row is longer; a file without line ends must not fill the memory
_LONGEST_CELL_LINES = 100  # lines a quoted CSV cell may span; more is a quote that was never closed

Row = dict[str, Any] | str
"""A row with the file's names, or the raw text of one that cannot be read."""

Rows = Iterator[tuple[object, Row]]
"""Rows in order, each with the id the file's format gives it outside of the row, or None."""

# ----------------------------------------------------------------------------------------------------------------- text


def binary(path: Path) -> gzip.GzipFile | io.BufferedReader:
    """Open a file for reading, unpacked where it is gzip."""
    with path.open("rb") as raw:
        compressed = raw.read(2) == b"\x1f\x8b"
    return gzip.open(path, "rb") if compressed else path.open("rb")


def on_error(encoding: str) -> str:
    """What becomes of bytes that are no text in an encoding, as the name of a codec's error handler."""
    # Bytes that are no UTF-8 survive as lone surrogates, by which their row is recognised. Other encodings cannot.
    return "surrogateescape" if plain_name(encoding) in ("utf8", "utf8sig", "ascii", "usascii") else "replace"


def plain_name(name: str) -> str:
    """A name by which it is compared: lower case, letters and digits only."""
    return re.sub(r"[\W_]+", "", name.lower())


def _lines(path: Path, encoding: str) -> Iterator[str]:
    """The lines of a text file with their ends; of a line longer than any row only the beginning."""
    with io.TextIOWrapper(binary(path), encoding, on_error(encoding), newline="\n") as text:
        first = True
        while line := text.readline(_LONGEST_LINE):
            if first:
                line, first = line.removeprefix("\ufeff"), False
            yield line
            while len(line) >= _LONGEST_LINE and not line.endswith("\n"):
                line = text.readline(_LONGEST_LINE)


def _chunks(path: Path, encoding: str) -> Iterator[str]:
    """A text file in pieces, for JSON that may be one endless line."""
    with io.TextIOWrapper(binary(path), encoding, on_error(encoding), newline="\n") as text:
        first = True
        while chunk := text.read(1 << 16):
            yield chunk.removeprefix("\ufeff") if first else chunk
            first = False


# ----------------------------------------------------------------------------------------------------------------- JSON


def json_rows(path: Path, encoding: str) -> Rows:
    """The rows of a JSON array, or of objects one after the other."""
    for value in json_values(_chunks(path, encoding)):
        yield _unwrapped(None, value)


def ndjson_rows(path: Path, encoding: str) -> Rows:
    """The rows of a file with an object a line, with Elasticsearch's action lines or without."""
    action: dict[str, Any] | None = None
    dangling = ""
    for line in _lines(path, encoding):
        if not line.strip():
            continue
        value = json_object(line)
        if value is not None and action is None and (found := bulk_action(value)) is not None:
            action, dangling = found, line
            continue
        if action is not None and value is not None and bulk_action(value) is not None:
            yield None, _raw(dangling)  # an action without its document
            action, dangling = bulk_action(value), line
            continue
        yield _unwrapped((action or {}).get("_id"), _raw(line) if value is None else value)
        action = None
    if action is not None:
        yield None, _raw(dangling)


def json_object(line: str) -> dict[str, Any] | None:
    """The object that a line holds, or None."""
    value = parsed(line)
    return value if isinstance(value, dict) else None


def parsed(line: str) -> object:
    """The JSON value that a line holds; None also where it holds none."""
    try:
        line.encode()  # lone surrogates here are bytes that were no text, see on_error
        return json.loads(line)
    except (ValueError, RecursionError):  # ValueError also for numbers of thousands of digits
        return None


def bulk_action(value: dict[str, Any]) -> dict[str, Any] | None:
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


def json_values(chunks: Iterator[str]) -> Iterator[object]:
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
                    yield value if encodable(buffer[at:end]) else _raw(buffer[at:end])
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


# ---------------------------------------------------------------------------------------------------------- CSV and TSV


def split_cells(line: str, separator: str) -> list[str]:
    """The cells of one line, without the white space around them."""
    try:
        cells = next(_csv_reader(iter([line]), separator), [])
    except csv.Error:
        cells = line.split(separator)
    return [cell.strip() for cell in cells]


def cell_rows(path: Path, encoding: str, delimiter: str, names: Sequence[str] | None, *, quoted: bool) -> Rows:
    """The rows of a file of cells.

    Args:
        path: the file.
        encoding: of its text.
        delimiter: between cells.
        names: of the cells; None: the first row holds them.
        quoted: whether a cell may stand in quotes, with line ends in it.
    """
    source = _Pushback(line for line in _lines(path, encoding))
    header = list(names) if names else None
    while True:
        row, text, consumed = _next_row(source, delimiter, quoted, len(header) if header else None)
        if consumed == 0:
            return
        if not text.strip():
            continue
        if header is None:
            header = [cell.strip() for cell in row or []]
        elif row is None or any(cell.strip() for cell in row[len(header) :]) or not encodable(text):
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


# -------------------------------------------------------------------------------------------------------------- Parquet


def parquet_rows(path: Path) -> Rows:
    """The rows of a Parquet file, as values that JSON can hold."""
    with pq.ParquetFile(path) as parquet:
        for batch in parquet.iter_batches(batch_size=8_192):
            columns = {name: _column(column) for name, column in zip(batch.schema.names, batch.columns, strict=True)}
            for values in zip(*columns.values(), strict=True):
                yield None, dict(zip(columns, values, strict=True))


def _column(column: pa.Array) -> list[Any]:
    kind = column.type
    convert = _nested_value if pa.types.is_nested(kind) and _foreign_to_json(kind) else _plain_value
    try:
        if pa.types.is_timestamp(kind):
            # Python's times have no nanoseconds, and the names of zones are not known everywhere.
            column = column.cast(pa.timestamp("us", "UTC" if kind.tz else None), safe=kind.unit != "ns")
        return [convert(value) for value in column.to_pylist()]
    except (ValueError, OverflowError):  # one value is beyond what Python can hold: find out which
        return [_scalar(scalar, convert) for scalar in column]


def _foreign_to_json(kind: pa.DataType) -> bool:
    """Whether there may be values of it, or in it, that JSON cannot hold."""
    if pa.types.is_nested(kind):
        return any(_foreign_to_json(kind.field(place).type) for place in range(kind.num_fields))
    known = (pa.types.is_temporal, pa.types.is_decimal, pa.types.is_binary, pa.types.is_large_binary)
    return any(is_one(kind) for is_one in known)


def _scalar(scalar: Any, convert: Callable[[object], object]) -> object:
    try:
        return convert(scalar.as_py())
    except (ValueError, OverflowError):
        if pa.types.is_string(scalar.type) or pa.types.is_large_string(scalar.type):
            return bytes(scalar.as_buffer()).decode("utf-8", "surrogateescape")
        return f"{getattr(scalar, 'value', None)} ({scalar.type})"


def _plain_value(value: object) -> object:
    """What JSON can hold: ISO text for a time, seconds for a span of it, a number for a decimal; text for bytes (older
    writers do not mark their text as such).
    """
    if isinstance(value, date):  # every datetime is one
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, Decimal):
        # Databases export whole numbers so, ids among them, with more digits than a float has.
        return int(value) if value.as_tuple().exponent == 0 else float(value)
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    return value


def _nested_value(value: object) -> object:
    if isinstance(value, dict):
        return {name: _nested_value(item) for name, item in value.items()}
    if isinstance(value, list | tuple):  # a map's entries are tuples
        return [_nested_value(item) for item in value]
    return _plain_value(value)
