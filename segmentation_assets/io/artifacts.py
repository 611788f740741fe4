"""Intermediate results on disk, in open formats that cannot run code when loaded: Parquet, npz, npy and JSON.

What belongs here: saving and loading a dataclass field by field, and keeping versions with one atomic 'current'. What
does not: what the fields mean. A new result type needs no code here as long as its fields are Arrow tables or arrays,
numeric NumPy arrays, SciPy CSR matrices, or anything JSON can hold.
"""

import json
import os
import shutil
import time
from collections.abc import Callable, Collection
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, get_origin, get_type_hints
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import TypeAdapter
from scipy.sparse import csr_matrix, load_npz, save_npz

from segmentation_assets.errors import SegmentsError

T = TypeVar("T")

KEEP_VERSIONS = 10
"""Stored versions of one asset; older ones are removed."""

_JSON = "fields.json"
_ROW_GROUP = 131_072
"""Rows that are compressed, and later unpacked, at a time: what that takes beside the table itself."""

_ABANDONED = 24 * 3600.0
"""Seconds after which an unfinished version cannot be one that somebody is still writing."""


class ArtifactMissingError(SegmentsError):
    """Nothing is stored under this name."""


class ArtifactUnreadableError(SegmentsError):
    """What is stored cannot be read by this version of the package."""


def save_artifact(value: Any, folder: Path) -> None:
    """Write a dataclass to a new folder, one file for each array or table and one JSON file for the rest."""
    if not is_dataclass(value) or isinstance(value, type):
        raise TypeError(f"only dataclass instances can be stored, not {type(value).__name__}")
    folder.mkdir(parents=True)
    hints = get_type_hints(type(value))
    plain: dict[str, Any] = {}
    for field in fields(value):
        item = getattr(value, field.name)
        if isinstance(item, pa.Table):
            _write_parquet(item, folder / f"{field.name}.parquet")
        elif isinstance(item, pa.Array):
            _write_parquet(pa.table({field.name: item}), folder / f"{field.name}.parquet")
        elif isinstance(item, csr_matrix):
            save_npz(folder / f"{field.name}.npz", item, compressed=False)
        elif isinstance(item, np.ndarray):
            np.save(folder / f"{field.name}.npy", item, allow_pickle=False)
        else:
            plain[field.name] = TypeAdapter(hints[field.name]).dump_python(item, mode="json")
    (folder / _JSON).write_text(json.dumps(plain, ensure_ascii=False, indent=1), "utf-8")


def _write_parquet(table: pa.Table, file: Path) -> None:
    pq.write_table(table, file, compression="zstd", row_group_size=_ROW_GROUP)


def load_artifact(kind: type[T], folder: Path, *, when_used: bool = False, columns: Collection[str] | None = None) -> T:
    """Read what ``save_artifact`` wrote; a field that was added since, and has a default, takes it.

    Args:
        kind: the dataclass.
        folder: where it lies.
        when_used: read tables and arrays when they are first looked at. A check that compares one number then costs
            no table. Something damaged is then noticed then.
        columns: with ``when_used``, the only columns of tables that are read, of those that they have; None: all.

    Raises:
        ArtifactUnreadableError: files or fields are missing or of another shape.
    """
    try:
        plain = json.loads((folder / _JSON).read_text("utf-8"))
        hints = get_type_hints(kind)
        added = {f.name for f in fields(kind) if _has_default(f) and not _is_stored(f.name, folder, plain)}  # type: ignore[arg-type]
        # What an older version wrote is read at once: a default may depend on what else there is.
        later = {name for name in hints if when_used and name not in plain and not added}
        now = hints.keys() - added - later
        found = {name: _load_field(name, hints[name], folder, plain) for name in now}
        return _partly_read(kind, found, folder, columns) if later else kind(**found)
    except Exception as error:  # a damaged file makes the formats' readers raise nearly anything
        raise _unreadable(kind, folder, error) from error


def _partly_read(kind: type[T], found: dict[str, Any], folder: Path, columns: Collection[str] | None) -> T:
    """The dataclass with these fields; the others are read when they are asked for."""
    made: T = object.__new__(_reading_when_used(kind))  # type: ignore[arg-type]
    made.__dict__.update(found)
    made.__dict__["_stored_in"] = folder
    made.__dict__["_columns"] = columns
    return made


@cache
def _reading_when_used(kind: type[Any]) -> type[Any]:
    def read(self: Any, name: str) -> Any:
        if name not in kind.__dataclass_fields__:
            raise AttributeError(name)
        value = load_field(kind, name, self.__dict__["_stored_in"], self.__dict__["_columns"])
        self.__dict__[name] = value
        return value

    return type(kind.__name__, (kind,), {"__getattr__": read, "__doc__": kind.__doc__})


def load_field(kind: type[Any], field: str, folder: Path, columns: Collection[str] | None = None) -> Any:
    """Read one field of what ``save_artifact`` wrote; of a table some columns, of those that it has.

    Raises:
        ArtifactUnreadableError: see ``load_artifact``.
    """
    try:
        plain = json.loads((folder / _JSON).read_text("utf-8"))
        return _load_field(field, get_type_hints(kind)[field], folder, plain, columns)
    except Exception as error:  # a damaged file makes the formats' readers raise nearly anything
        raise _unreadable(kind, folder, error) from error


def _unreadable(kind: type[Any], folder: Path, error: Exception) -> ArtifactUnreadableError:
    return ArtifactUnreadableError(
        f"What is stored in {folder} cannot be read as {kind.__name__} ({type(error).__name__}).",
        "It was written by another version, or damaged: materialize the asset again.",
    )


def _has_default(field: Field[Any]) -> bool:
    return field.default is not MISSING or field.default_factory is not MISSING


def _is_stored(name: str, folder: Path, plain: dict[str, Any]) -> bool:
    return name in plain or any((folder / f"{name}.{ending}").exists() for ending in ("parquet", "npz", "npy"))


def _load_field(
    name: str, hint: Any, folder: Path, plain: dict[str, Any], columns: Collection[str] | None = None
) -> Any:
    parquet = folder / f"{name}.parquet"
    if hint is pa.Table:
        wanted = [column for column in pq.read_schema(parquet).names if columns is None or column in columns]
        return pq.read_table(parquet, columns=wanted)
    if hint is pa.Array:
        return pq.read_table(parquet)[name].combine_chunks()
    if hint is csr_matrix:
        return csr_matrix(load_npz(folder / f"{name}.npz"))
    if get_origin(hint) is np.ndarray:
        with (folder / f"{name}.npy").open("rb") as file:
            return np.lib.format.read_array(file, allow_pickle=False)
    return TypeAdapter(hint).validate_python(plain[name])


class ArtifactStore:
    """Versions of named results below one folder: ``<base>/<name>/<version>/``, and ``<base>/<name>/current``.

    A version is written beside and renamed, and ``current`` is replaced in one step, so a reader sees a whole version
    or the one before, whatever is killed when.

    Args:
        base: the folder; made when first written to.
    """

    def __init__(self, base: Path) -> None:
        self.base = base

    def path(self, name: str) -> Path:
        """The link to the current version of ``name``."""
        return self.base / name / "current"

    def save(self, name: str, version: str, value: Any) -> Path:
        """Store a new version and make it the current one; returns its folder.

        A version that is there already (the same step tried again within one run) stays as it is while it may be read,
        and the new one goes beside it as ``<version>.2``.
        """
        home = self.base / name
        home.mkdir(parents=True, exist_ok=True)
        building = home / f".building-{uuid4().hex}"
        try:
            save_artifact(value, building)
            target, attempt = home / version, 1
            while target.exists():
                attempt += 1
                target = home / f"{version}.{attempt}"
            building.rename(target)
        finally:
            shutil.rmtree(building, ignore_errors=True)
        self.mark(name, "current", target)
        self._prune(home)
        return target

    def load(self, name: str, kind: type[T], *, when_used: bool = False, columns: Collection[str] | None = None) -> T:
        """Read the current version; see ``load_artifact`` for ``when_used`` and ``columns``.

        Raises:
            ArtifactMissingError: nothing was stored yet.
            ArtifactUnreadableError: see ``load_artifact``.
        """
        self.require(name)
        return load_artifact(kind, self.path(name).resolve(), when_used=when_used, columns=columns)

    def load_field(self, name: str, kind: type[Any], field: str) -> Any:
        """Read one field of the current version, without the tables beside it; raises as ``load``."""
        self.require(name)
        return load_field(kind, field, self.path(name).resolve())

    def require(self, name: str) -> None:
        """See that something is stored.

        Raises:
            ArtifactMissingError: nothing was stored yet.
        """
        if not self.path(name).exists():
            raise ArtifactMissingError(
                f"{name} has not been materialized yet (nothing in {self.base / name}).", "Run `segments run` first."
            )

    def history(self, name: str) -> list[Path]:
        """Folders of the stored versions, newest first."""
        home = self.base / name
        if not home.is_dir():
            return []
        versions = [p for p in home.iterdir() if p.is_dir() and not p.is_symlink() and not p.name.startswith(".")]
        return sorted(versions, key=lambda p: (_written(p / _JSON), p.name), reverse=True)

    def mark(self, name: str, mark: str, version: Path) -> None:
        """Let the link ``<base>/<name>/<mark>`` lead to a stored version, which is kept for as long as it does."""
        link = self.base / name / f".current-{uuid4().hex}"
        link.symlink_to(version.name, target_is_directory=True)
        os.replace(link, self.base / name / mark)

    def marked(self, name: str, mark: str) -> Path | None:
        """The version a mark leads to; None where there is no such mark."""
        link = self.base / name / mark
        return link.resolve() if link.exists() else None

    def _prune(self, home: Path) -> None:
        marked = {path.resolve() for path in home.iterdir() if path.is_symlink()}
        for old in self.history(home.name)[KEEP_VERSIONS:]:
            if old.resolve() not in marked:
                shutil.rmtree(old, ignore_errors=True)
        for leftover in [*home.glob(".building-*"), *home.glob(".current-*")]:  # of a process that was killed
            if _written(leftover) < time.time_ns() - _ABANDONED * 1e9:
                if leftover.is_symlink():
                    leftover.unlink(missing_ok=True)
                else:
                    shutil.rmtree(leftover, ignore_errors=True)


def last_of(store: ArtifactStore, name: str, kind: type[T], warn: Callable[[str], None]) -> T | None:
    """What is stored under a name, to go on from; None where there is none or it cannot be read, which is told.

    Its tables are read when they are looked at.
    """
    try:
        return store.load(name, kind, when_used=True)
    except ArtifactMissingError:
        return None
    except ArtifactUnreadableError as error:
        warn(str(error))
        return None


def serving_or_last(store: ArtifactStore, name: str, mark: str, kind: type[T], warn: Callable[[str], None]) -> T | None:
    """The version with a mark, or the latest one while none has it; None where there is none.

    Args:
        store: where it lies.
        name: of the results.
        mark: on the version that readers are served by. Others may have been stopped by a check.
        kind: the dataclass.
        warn: told when a version cannot be read (it is then passed over).
    """
    marked = store.marked(name, mark)
    for folder in ([marked] if marked else []) + store.history(name):
        try:
            return load_artifact(kind, folder)
        except ArtifactUnreadableError as error:
            warn(str(error))
    return None


def _written(path: Path) -> int:
    """When it was written, in nanoseconds; 0 for what is not there, or not any more."""
    try:
        return path.lstat().st_mtime_ns
    except FileNotFoundError:
        return 0
