"""API keys: who may ask what.

What belongs here: the file of keys, making one, telling who a key belongs to. What does not: refusing requests (guard).
The file holds digests, so whoever reads it cannot ask. A key is 32 random bytes, which is why one round of SHA-256 is
enough, where a password would need a slow function.
"""

import hashlib
import hmac
import secrets
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from segmentation_assets.errors import SegmentsError

Scope = Literal["read", "assign", "stream", "metrics"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
VARIABLE = "SEGMENTS_API_KEYS"
PREFIX = "seg_"
"""Begins every key, so that tools that look for leaked secrets can know one."""


class KeyFileError(SegmentsError):
    """The file of keys cannot be used."""


class Entry(BaseModel):
    """A key in the file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[\w .@-]+$")]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", repr=False)]
    scopes: Annotated[frozenset[Scope], Field(min_length=1)]


@dataclass(frozen=True)
class NewKey:
    """A key that was just made, the only time that anybody sees it.

    Attributes:
        key: the secret.
        entry: of the file, as YAML; a list of one, so that it can be appended.
    """

    key: str
    entry: str


def new_key(name: str, scopes: Collection[Scope]) -> NewKey:
    """Make a key.

    Raises:
        KeyFileError: it cannot be called that.
    """
    key = PREFIX + secrets.token_urlsafe(32)
    try:
        entry = Entry(name=name, sha256=_digest(key), scopes=frozenset(scopes))
    except ValidationError:
        raise KeyFileError(
            f"A key cannot be called {name!r} with scopes {sorted(scopes)}.",
            f"Use letters, digits and '.@-_ ', at most 100; scopes are {', '.join(SCOPES)}.",
        ) from None
    chosen = [scope for scope in SCOPES if scope in entry.scopes]
    written = [{"name": name, "sha256": entry.sha256, "scopes": chosen}]
    return NewKey(key, yaml.safe_dump(written, sort_keys=False, allow_unicode=True))


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


class ApiKeys:
    """The keys that are known.

    Args:
        entries: the keys; none: nobody needs one, and only this machine may ask.
        file: where they were read from.
    """

    def __init__(self, entries: Sequence[Entry] = (), file: Path | None = None) -> None:
        self._entries = list(entries)
        self._file = file
        self._read_at = _changed_at(file)
        self.required = file is not None or bool(self._entries)
        """Whether a key is needed. A file without entries lets nobody in."""

    @classmethod
    def load(cls, file: Path | None) -> "ApiKeys":
        """Read a file; without one no key is needed.

        Raises:
            KeyFileError: it is not there, or is no list of entries.
        """
        return cls() if file is None else cls(_read(file), file)

    def refresh(self) -> bool:
        """Read the file again if it changed; whether it was read. One that cannot be used changes nothing.

        Raises:
            KeyFileError: it cannot be used.
        """
        changed = _changed_at(self._file)
        if self._file is None or changed == self._read_at:
            return False
        self._read_at = changed
        self._entries = _read(self._file)
        return True

    def owner(self, key: str) -> Entry | None:
        """Whose key it is. Takes as long for a wrong one as for a right one."""
        digest = hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()
        found = None
        for entry in self._entries:
            if hmac.compare_digest(entry.sha256, digest):
                found = entry
        return found


def _changed_at(file: Path | None) -> tuple[int, int] | None:
    try:
        found = None if file is None else file.stat()
    except OSError:
        return None
    return None if found is None else (found.st_mtime_ns, found.st_size)


_ENTRIES = TypeAdapter(list[Entry])


def _read(file: Path) -> list[Entry]:
    cure = "It is a list of name, sha256 and scopes; `segments serve new-key` prints an entry."
    try:
        written = yaml.safe_load(file.read_text("utf-8"))
    except OSError as error:
        raise KeyFileError(f"The file of API keys {file} cannot be read: {error.strerror}.", cure) from None
    except (yaml.YAMLError, ValueError, RecursionError):  # a date that is none is no YAMLError
        raise KeyFileError(f"The file of API keys {file} is no YAML.", cure) from None
    try:
        entries = _ENTRIES.validate_python([] if written is None else written)
    except ValidationError as error:
        # Without what is written there: somebody may have put the key itself in place of its digest.
        where = "; ".join(
            f"{'/'.join(map(str, e['loc'])) or 'file'}: {e['msg']}" for e in error.errors(include_input=False)[:5]
        )
        raise KeyFileError(f"The file of API keys {file} cannot be used: {where}.", cure) from None
    names = [entry.name for entry in entries]
    if len(set(names)) < len(names):
        raise KeyFileError(f"Two keys in {file} have the same name.", "Give each its own: limits count by name.")
    return entries
