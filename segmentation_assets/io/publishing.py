"""Publishing: documents go into a new index, are verified there, and then an alias is moved to it in one step.

What belongs here: everything between a table of documents and the alias that consumers read, for any such alias. What
does not: what is published, and whether it may be (the checks' numbers are the business of core.quality).

Life of an index: ``building`` while documents go in; ``complete`` once verified; then the alias moves, and
``published_at`` is noted, which makes it a place to roll back to. One that never got that far and whose writer is gone
is rubbish.

Where it is known what readers see, and most of it stays as it is, the new index begins as a clone of that one (links
to the same files, no copy) and only the difference is written. What it is known by: the digest of the documents, noted
when they were published, and that nothing was written to the index since.
"""

import json
import logging
import os
import re
import socket
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any, Self

import numpy as np
import psutil
import pyarrow as pa
from elasticsearch import ApiError, BadRequestError, Elasticsearch, NotFoundError, TransportError
from numpy.typing import NDArray

from segmentation_assets.core.difference import content, difference
from segmentation_assets.errors import SegmentsError
from segmentation_assets.io import bulk, ndjson
from segmentation_assets.io.elasticsearch import NEWEST_WRITE, errors_explained, explain, newest_write, redact
from segmentation_assets.io.templates import OWNER, IndexTemplate, create_index, ensure_template

SAMPLE = 20
"""Documents read back and compared before the alias moves."""

_CLONING = 15
"""Seconds that a clone may take. It links files; what takes longer has no place to go."""

HEARTBEAT = timedelta(minutes=5)
CLONED_UP_TO = 0.3
"""Share of the documents that may differ for the new index to begin as a clone. What is replaced or removed stays in
the clone's files until Elasticsearch merges them."""

ABANDONED = timedelta(hours=1)
"""A writer on another machine that has given no sign for so long is gone."""

_SWAP_ATTEMPTS = 20
_log = logging.getLogger(__name__)
_being_built: set[str] = set()  # by this process; a left-over of ours that is not in here has no writer
_being_built_lock = threading.Lock()

Progress = Callable[[int, int | None], None]


class AliasTaken(SegmentsError):
    """The name is, or leads to, an index that this project did not make."""


class VerificationFailed(SegmentsError):
    """What the index holds is not what was to be published; the alias was not moved."""


class NothingToRollBackTo(SegmentsError):
    """There is no earlier index, or the one asked for cannot be used."""


@dataclass(frozen=True)
class PublishedIndex:
    """An index made by ``publish``.

    Attributes:
        name: of the index.
        meta: its ``_meta``: run_id, model_version, status, created_at, published_at and whatever the caller added.
        live: whether the alias leads to it.
        other_aliases: further aliases; such an index is never removed.
    """

    name: str
    meta: Mapping[str, Any]
    live: bool
    other_aliases: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether it was verified and published, so that one can roll back to it."""
        noted = self.meta.get("status") == "complete" and (self.live or bool(self.meta.get("published_at")))
        return bool(noted) and not self._bare_clone

    @property
    def _bare_clone(self) -> bool:
        """Whether its notes are still those of the index that it is a clone of."""
        return str(self.meta.get("index", self.name)) != self.name

    @property
    def _order(self) -> tuple[str, str]:
        return str(self.meta.get("created_at", "")), self.name


@dataclass(frozen=True)
class PublishedState:
    """What is behind the alias now."""

    alias: str
    index: str
    documents: int
    meta: Mapping[str, Any]


@dataclass(frozen=True)
class Published:
    """The result of publishing.

    Attributes:
        alias: what consumers read.
        index: the new index.
        documents: how many it holds.
        previous: the index the alias led to before, if any.
        removed: older indices removed, beyond the number to keep.
        leftovers_removed: unfinished indices of killed runs that were removed.
        live: False when another publisher finished a moment later and the alias leads to its index.
        written: documents written or removed for it; fewer than ``documents`` where the others were there already.
    """

    alias: str
    index: str
    documents: int
    previous: str | None
    removed: tuple[str, ...] = ()
    leftovers_removed: tuple[str, ...] = ()
    live: bool = True
    written: int = 0


@dataclass(frozen=True)
class PublishedDocuments:
    """What was published, as it is remembered.

    Attributes:
        alias: what consumers read.
        index: the index behind it.
        documents: how many it holds.
        previous: the index the alias led to before, if any.
        removed: older or unfinished indices that were removed.
        model_version: the model that made what the documents say.
        written: documents written or removed for it; fewer than it holds where the others were there already.
    """

    alias: str
    index: str
    documents: int
    previous: str | None
    removed: list[str]
    model_version: str
    written: int = 0

    @classmethod
    def of(cls, published: Published, model_version: str) -> Self:
        """What ``publish`` did, of documents made by a model."""
        return cls(
            alias=published.alias,
            index=published.index,
            documents=published.documents,
            previous=published.previous,
            removed=[*published.removed, *published.leftovers_removed],
            model_version=model_version,
            written=published.written,
        )


def publish(
    client: Elasticsearch,
    alias: str,
    documents: Iterable[Mapping[str, Any]] | pa.Table,
    *,
    id_field: str,
    expected: int,
    meta: Mapping[str, Any],
    constants: Mapping[str, Any] | None = None,
    before: pa.Table | None = None,
    at_writing: Collection[str] = (),
    template: IndexTemplate,
    keep: int = 3,
    batch_documents: int = bulk.BATCH_DOCUMENTS,
    in_flight: int = bulk.IN_FLIGHT,
    retry: bulk.Retry | None = None,
    on_progress: Progress | None = None,
) -> Published:
    """Publish documents under an alias: all of them, verified, or nothing.

    Whatever goes wrong, an interrupt included, the alias stays where it was and the new index is removed. A process
    that is killed leaves an index that no alias leads to; the next ``publish`` removes it.

    Args:
        client: the client.
        alias: what consumers read. Indices are called ``<alias>-<time>-<run>``.
        documents: mappings, or a table with a column for each field, the ids all different (the quick way).
        id_field: the field that is also the document's id.
        expected: how many documents there are; another number is an error.
        meta: kept in the index's ``_meta``: ``run_id`` and ``model_version`` at least, JSON values.
        constants: fields that are the same in every document.
        before: a table that was published under this alias. If it is what readers see still, only the difference is
            written.
        at_writing: constants that say when a document was written, so that one which stays as it is keeps its own.
        template: mapping and settings of the index.
        keep: how many published indices to keep, this one included.
        batch_documents: documents in one request.
        in_flight: requests at a time.
        retry: back-off when the cluster is busy.
        on_progress: called with the number written so far and ``expected``.

    Raises:
        AliasTaken: the alias is a concrete index or leads to somebody else's; nothing was written.
        BulkFailed: documents were refused.
        VerificationFailed: the numbers or a sample read back differ.
        SegmentsError: see ``io.elasticsearch`` and ``io.templates``.
    """
    if keep < 1:
        raise ValueError("keep counts the published index itself: at least 1")
    with errors_explained(client, f"publish {alias}"):
        previous = _live(client, alias)
        leftovers = _tidy(client, alias)
        ensure_template(client, template)
        constants = constants or {}
        marks: dict[str, str] = {}
        change = None
        if isinstance(documents, pa.Table) and not ndjson.fits(documents.schema):
            documents = documents.to_pylist()
        if isinstance(documents, pa.Table):
            fixed = {name: None if name in at_writing else value for name, value in constants.items()}
            marks = {"content": content(documents), "constants": bulk.to_json(fixed).decode()}
            if before is not None and previous is not None:
                change = _change(client, previous, before, documents, marks["constants"], id_field, template)
        with _NewIndex(client, alias, template, meta, previous.name if previous and change else None) as new:
            how = _How(constants, id_field, batch_documents, in_flight, retry, on_progress)
            if change is not None and new.cloned:
                sample = _write_change(new, change, how)
            else:
                change = None
                sample = _write(new, documents, expected, how)
            newest = _verify(client, new.name, expected, sample, () if change is None else at_writing)
            new.mark(status="complete", newest_write=newest, **marks)
            _swap(client, alias, new.name)
            new.keep()
        # From here on the new index is what consumers read: nothing below may undo that.
        live, removed = True, []
        try:
            new.mark(published_at=_now())
            found = _live(client, alias)
            live = found is not None and found.name == new.name
            removed = _prune(client, alias, keep)
        except (ApiError, TransportError) as error:
            # Readers have the new index, so this is no failure; the next publish tidies up.
            _log.warning("Published %s, but could not tidy up after it: %s", new.name, _brief(error))
    return Published(
        alias,
        new.name,
        expected,
        previous.name if previous else None,
        tuple(removed),
        tuple(leftovers),
        live,
        expected if change is None else change.size,
    )


def published_state(client: Elasticsearch, alias: str) -> PublishedState | None:
    """Return what the alias leads to, or None when nothing was published yet.

    Raises:
        AliasTaken: the name is, or leads to, an index that this project did not make.
        SegmentsError: see ``io.elasticsearch``.
    """
    with errors_explained(client, f"look at {alias}"):
        live = _live(client, alias)
        if live is None:
            return None
        return PublishedState(alias, live.name, int(client.count(index=live.name)["count"]), live.meta)


def list_published(client: Elasticsearch, alias: str) -> list[PublishedIndex]:
    """Return the indices made for this alias, the newest first, unfinished ones included (see ``complete``).

    Raises:
        SegmentsError: see ``io.elasticsearch``.
    """
    with errors_explained(client, f"list the indices of {alias}"):
        return _ours(client, alias)


def rollback(client: Elasticsearch, alias: str, to: str | None = None) -> PublishedState:
    """Move the alias back to an earlier index, in one step.

    Args:
        client: the client.
        alias: what consumers read.
        to: name of the index; None: the one published before the current one.

    Raises:
        NothingToRollBackTo: there is none, or ``to`` is not a published index of this alias.
        AliasTaken: the alias is somebody else's.
        SegmentsError: see ``io.elasticsearch``.
    """
    with errors_explained(client, f"roll {alias} back"):
        live = _live(client, alias)
        candidates = [index for index in _ours(client, alias) if index.complete]
        names = ", ".join(index.name for index in candidates) or "none"
        if to is not None:
            if to not in {index.name for index in candidates}:
                raise NothingToRollBackTo(f"'{to}' is not a published index of '{alias}'.", f"There are: {names}.")
        else:
            earlier = [index for index in candidates if live is None or index._order < live._order]
            if not earlier:
                raise NothingToRollBackTo(
                    f"There is nothing before the current index of '{alias}'.", f"There are: {names}."
                )
            to = earlier[0].name
        _swap(client, alias, to)
        state = published_state(client, alias)
    if state is None:
        raise VerificationFailed(f"The alias '{alias}' was removed while it was rolled back.", "Try again.")
    return state


# --- the alias ------------------------------------------------------------------------------------------------------


def _behind(client: Elasticsearch, alias: str) -> dict[str, Mapping[str, Any]]:
    """``_meta`` of the indices that the alias leads to; none of them somebody else's."""
    try:
        found = client.indices.get(index=alias, features="mappings", expand_wildcards="none").body
    except NotFoundError:
        return {}
    if alias in found:
        raise AliasTaken(
            f"'{alias}' is an index, not an alias; publishing needs the name as an alias.",
            "Rename or remove that index, or configure another alias.",
        )
    metas: dict[str, Mapping[str, Any]] = {
        name: described.get("mappings", {}).get("_meta", {}) for name, described in found.items()
    }
    foreign = sorted(name for name, meta in metas.items() if not _is_ours(meta, alias))
    if foreign:
        raise AliasTaken(
            f"The alias '{alias}' leads to {', '.join(foreign)}, which this project did not make.",
            "Remove it from the alias, or configure another alias.",
        )
    return metas


def _is_ours(meta: Mapping[str, Any], alias: str) -> bool:
    return meta.get("owner") == OWNER and meta.get("alias") == alias


def _live(client: Elasticsearch, alias: str) -> PublishedIndex | None:
    indices = [PublishedIndex(name, meta, live=True) for name, meta in _behind(client, alias).items()]
    return max(indices, key=lambda index: index._order, default=None)


def _swap(client: Elasticsearch, alias: str, target: str) -> None:
    """Let the alias lead to ``target`` alone, in one step, whoever else is doing the same.

    Compare and swap: the request removes what the alias was seen to lead to, on condition that it still does
    (``must_exist``), so of two publishers one succeeds and the other looks again. Only the very first swap has nothing
    to remove; two of those meet behind the alias, which the look afterwards finds and repairs.
    """
    done = False
    for _ in range(_SWAP_ATTEMPTS):
        now = set(_behind(client, alias))
        # Ours was there and is not: somebody published after us, and the last one wins.
        if now == {target} or (done and target not in now):
            return
        actions: list[dict[str, Any]] = [
            {"remove": {"index": name, "alias": alias, "must_exist": True}} for name in sorted(now - {target})
        ]
        actions.append({"add": {"index": target, "alias": alias, "is_write_index": False}})
        try:
            client.indices.update_aliases(actions=actions)
            done = True
        except NotFoundError as error:
            if "aliases_not_found_exception" not in str(error.body) and f"[{target}]" in str(error.body):
                raise
    raise VerificationFailed(
        f"The alias '{alias}' could not be moved to {target}: others keep changing it.",
        "Publish from one place at a time.",
    )


# --- the new index --------------------------------------------------------------------------------------------------


class _NewIndex:
    """An index that is removed on the way out unless ``keep`` was called.

    Attributes:
        cloned: whether it holds what the index holds that it was to begin as.
    """

    def __init__(
        self,
        client: Elasticsearch,
        alias: str,
        template: IndexTemplate,
        meta: Mapping[str, Any],
        begins_as: str | None = None,
    ) -> None:
        self.client = client
        self.name = ""
        self.cloned = False
        self._begins_as = begins_as
        self._alias = alias
        self._template = template
        self._keep = False
        self._sign = datetime.now(UTC)
        created = self._sign.isoformat(timespec="microseconds")
        # The caller's entries first: they cannot pass for the ones that ownership rests on.
        self._meta: dict[str, Any] = {
            **template.mappings.get("_meta", {}),
            **json.loads(bulk.to_json(dict(meta))),
            "owner": OWNER,
            "alias": alias,
            "status": "building",
            "writer": _myself(),
            "created_at": created,
            "alive_at": created,
        }

    def __enter__(self) -> "_NewIndex":
        run = re.sub(r"[^a-z0-9]", "", str(self._meta.get("run_id", "")).lower())[:8] or "run"
        stem = f"{self._alias}-{self._sign:%Y%m%d%H%M%S}-{run}"
        for attempt in count(1):
            self.name = stem if attempt == 1 else f"{stem}-{attempt}"
            with _being_built_lock:
                if self.name in _being_built:
                    continue
                _being_built.add(self.name)
            self._meta["index"] = self.name
            try:
                if self._begins_as:
                    self._clone(self._begins_as)
                if not self.cloned:
                    # Refreshed once, at the end: half the work for the server.
                    create_index(
                        self.client, self.name, self._template, settings={"refresh_interval": "-1"}, meta=self._meta
                    )
                return self
            except BadRequestError as error:
                self._forget()
                if "resource_already_exists_exception" not in str(error.body):
                    raise
            except BaseException:
                self._remove()  # it may have been created before the answer was lost
                self._forget()
                raise
        raise AssertionError("unreachable")

    def __exit__(self, *_: object) -> None:
        try:
            if not self._keep:
                self._remove()
        finally:
            self._forget()

    def _clone(self, source: str) -> None:
        """Begin as another index, which takes no writes meanwhile; where the cluster cannot, this one is not there.

        A process killed before the notes are replaced leaves an index with those of another (``_bare_clone``), and one
        killed a moment earlier a write block on an index that nobody writes to.
        """
        # Asked once, and for less time than the client waits: after a lost answer nobody knows whether it is there.
        indices = self.client.options(max_retries=0, request_timeout=2 * _CLONING).indices
        try:
            found = indices.get_settings(index=source, name="index.blocks.write")
            blocked = any(described["settings"] for described in found.values())
            indices.put_settings(index=source, settings={"index.blocks.write": True})
            try:
                answer = indices.clone(index=source, target=self.name, timeout=f"{_CLONING}s")
            finally:
                if not blocked:
                    self._unblock(source)
            if not answer.get("shards_acknowledged"):
                raise VerificationFailed(f"{self.name} was not ready in {_CLONING} seconds.", "")
            indices.put_mapping(index=self.name, meta=self._meta)
            indices.put_settings(index=self.name, settings={"index.blocks.write": None, "index.refresh_interval": "-1"})
            self.cloned = True
        except (ApiError, TransportError, VerificationFailed) as error:  # no room beside its files, no privilege, ..
            if isinstance(error, BadRequestError) and "resource_already_exists_exception" in str(error.body):
                raise
            _log.warning("All documents are written: %s could not be cloned (%s)", source, _brief(error))
            self.client.indices.delete(index=self.name, ignore_unavailable=True)

    def _unblock(self, index: str) -> None:
        try:
            self.client.indices.put_settings(index=index, settings={"index.blocks.write": None})
        except (ApiError, TransportError) as error:  # only the stream would write to it, and it tries again
            _log.warning("Could not lift the write block of %s: %s", index, _brief(error))

    def _forget(self) -> None:
        with _being_built_lock:
            _being_built.discard(self.name)

    def keep(self) -> None:
        self._keep = True

    def mark(self, **entries: str | int) -> None:
        """Note something in ``_meta``, which Elasticsearch replaces as a whole."""
        self._meta.update(entries)
        self.client.indices.put_mapping(index=self.name, meta=self._meta)

    def heartbeat(self) -> None:
        """Give other machines a sign of life now and then."""
        now = datetime.now(UTC)
        if now - self._sign >= HEARTBEAT:
            self._sign = now
            self.mark(alive_at=now.isoformat(timespec="microseconds"))

    def _remove(self) -> None:
        try:
            if self.name in _behind(self.client, self._alias):
                return  # the swap went through although its answer got lost
            self.client.indices.delete(index=self.name, ignore_unavailable=True)
        except Exception as error:  # noqa: BLE001 - what went wrong first is what the user has to know
            _log.warning(
                "Could not remove the unfinished index %s (the next publish will): %s", self.name, _brief(error)
            )


@dataclass(frozen=True)
class _How:
    """How documents are written; see ``publish``."""

    constants: Mapping[str, Any]
    id_field: str
    batch_documents: int
    in_flight: int
    retry: bulk.Retry | None
    on_progress: Progress | None


def _write(
    new: _NewIndex, documents: Iterable[Mapping[str, Any]] | pa.Table, expected: int, how: _How
) -> dict[str, bytes]:
    """Write everything and return a spread sample as it was sent."""
    if isinstance(documents, pa.Table):
        came = documents.num_rows
        sample = _spread(documents, how)
        repeated = _send(new, _of_columns(documents, how), expected, how)
    else:
        seen = _Sample(expected)
        batches = bulk.in_batches(_one_by_one(documents, how, new.name, seen), how.batch_documents)
        repeated = _send(new, batches, expected, how)
        came, sample = seen.came, seen.documents
    if came != expected or repeated:
        raise VerificationFailed(
            f"{came} documents came for {new.name}, {repeated} of them with an id that came before; "
            f"{expected} were expected.",
            "Materialize the labelled segments again.",
        )
    return sample


def _send(
    new: _NewIndex,
    batches: Iterable[bulk.Batch],
    expected: int,
    how: _How,
    written: int = 0,
    *,
    missing_ok: bool = False,
) -> int:
    """Send the batches, after so many written before; gives the number of entries that a later one replaced."""
    repeated = 0

    def on_batch(batch: bulk.Batch, results: list[str]) -> None:
        nonlocal written, repeated
        written += len(results)
        repeated += batch.superseded
        new.heartbeat()
        if how.on_progress is not None:
            how.on_progress(written, expected)

    bulk.write(
        new.client,
        new.name,
        batches,
        on_batch=on_batch,
        in_flight=how.in_flight,
        retry=how.retry,
        missing_ok=missing_ok,
    )
    return repeated


@dataclass(frozen=True)
class _Change:
    """What makes the documents of the table before those of the table now."""

    now: pa.Table
    rows: NDArray[np.int64]
    gone: pa.Array

    @property
    def size(self) -> int:
        return len(self.rows) + len(self.gone)


def _change(
    client: Elasticsearch,
    live: PublishedIndex,
    before: pa.Table,
    now: pa.Table,
    constants: str,
    id_field: str,
    template: IndexTemplate,
) -> _Change | None:
    """What is to be written to a clone of the live index; None where that is not certain, or nearly all of it."""
    meta = live.meta
    if (
        meta.get("constants") != constants
        or meta.get("version") != template.mappings.get("_meta", {}).get("version")
        or not before.schema.equals(now.schema)
        or meta.get("newest_write") != _newest_write(client, live.name)
        or int(client.count(index=live.name)["count"]) != before.num_rows
        or meta.get("content") != content(before)
    ):
        return None
    rows, gone = difference(before, now, id_field)
    change = _Change(now, rows, gone)
    return change if change.size <= CLONED_UP_TO * now.num_rows else None


def _newest_write(client: Elasticsearch, index: str) -> int:
    """The highest sequence number in an index; -1 where it has none."""
    newest = newest_write(client.search(index=index, allow_partial_search_results=False, **NEWEST_WRITE).body)
    return -1 if newest is None else newest


def _write_change(new: _NewIndex, change: _Change, how: _How) -> dict[str, bytes]:
    """Write and remove what differs; gives a sample of all documents, those that stay as they are included."""
    written = change.now.take(pa.array(change.rows))
    _send(new, _of_columns(written, how), change.size, how)
    gone = ((key, bulk.delete_line(key)) for key in change.gone.to_pylist())
    # Of a batch that is sent once more, because its answer was lost, the documents may be gone already.
    _send(new, bulk.in_batches(gone, how.batch_documents), change.size, how, len(change.rows), missing_ok=True)
    return _spread(change.now, how) | _spread(written, how)


def _spread(table: pa.Table, how: _How) -> dict[str, bytes]:
    """Documents as they are sent, spread over a table, to compare with what is read back."""
    rows = table.take(pa.array(range(0, table.num_rows, max(1, table.num_rows // SAMPLE)), pa.int64()))
    return {
        batch.key(place): batch.body([place]).split(b"\n")[1]
        for batch in _of_columns(rows, how)
        for place in range(len(batch))
    }


class _Sample:
    """The same of documents that come one by one."""

    def __init__(self, expected: int) -> None:
        self.expected = expected
        self.step = max(1, expected // SAMPLE)
        self.came = 0
        self.documents: dict[str, bytes] = {}


def _one_by_one(
    documents: Iterable[Mapping[str, Any]], how: _How, index: str, sample: _Sample
) -> Iterator[tuple[str, bytes]]:
    for document in documents:
        key, source = str(document[how.id_field]), bulk.to_json({**document, **how.constants})
        if sample.came % sample.step == 0 or key in sample.documents:
            sample.documents[key] = source
        sample.came += 1
        if sample.came > sample.expected:
            raise VerificationFailed(
                f"There are more than the {sample.expected} documents expected for {index}.",
                "Publish from one run only.",
            )
        yield key, bulk.index_line(key, source)


def _of_columns(table: pa.Table, how: _How) -> Iterator[bulk.Lines]:
    return ndjson.in_batches(table, how.id_field, how.constants, how.batch_documents)


def _verify(
    client: Elasticsearch, index: str, expected: int, sample: Mapping[str, bytes], at_writing: Collection[str]
) -> int:
    """See that the index holds so many documents, and these; gives its highest sequence number."""
    client.indices.refresh(index=index)
    held = int(client.count(index=index)["count"])
    if held != expected:
        raise VerificationFailed(
            f"{index} holds {held} documents, {expected} were written.", "Are all ids different? Then run again."
        )
    if sample:
        for found in client.mget(index=index, ids=list(sample))["docs"]:
            if not found.get("found") or _but(found["_source"], at_writing) != _but(
                json.loads(sample[found["_id"]]), at_writing
            ):
                raise VerificationFailed(
                    f"A document read back from {index} is not what was written (id {redact(found['_id'])}).",
                    "Is an ingest pipeline changing documents of that name?",
                )
    client.indices.put_settings(index=index, settings={"index.refresh_interval": None})
    return _newest_write(client, index)


def _but(document: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    return {name: value for name, value in document.items() if name not in names}


# --- what is no longer needed ---------------------------------------------------------------------------------------


def _ours(client: Elasticsearch, alias: str) -> list[PublishedIndex]:
    """Indices made for this alias, the newest first."""
    try:
        found = client.indices.get(index=f"{alias}-*", features="aliases,mappings").body
    except NotFoundError:
        return []
    indices = []
    for name, described in found.items():
        meta, aliases = described.get("mappings", {}).get("_meta", {}), described.get("aliases", {})
        if _is_ours(meta, alias):
            others = tuple(sorted(set(aliases) - {alias}))
            indices.append(PublishedIndex(name, meta, alias in aliases, others))
    return sorted(indices, key=lambda index: index._order, reverse=True)


def _tidy(client: Elasticsearch, alias: str) -> list[str]:
    """Finish what killed runs left: note that a live index is live, remove unfinished ones without a writer."""
    removed = []
    for index in _ours(client, alias):
        if index.live:
            if not index.meta.get("published_at"):
                client.indices.put_mapping(index=index.name, meta={**index.meta, "published_at": _now()})
        elif index.other_aliases:
            continue
        elif index._bare_clone:
            if _old_enough(client, index.name):
                removed += _remove(client, index.name)
        elif not index.meta.get("published_at") and not _has_writer(index):
            removed += _remove(client, index.name)
    return removed


def _prune(client: Elasticsearch, alias: str, keep: int) -> list[str]:
    """Remove published indices beyond the newest ``keep``; never the live one, nor one with an alias of its own."""
    published = [index for index in _ours(client, alias) if index.complete]
    kept = [index for index in published if index.live]
    removed = []
    for index in published:
        if index.live:
            continue
        if len(kept) < keep:
            kept.append(index)
        elif not index.other_aliases:
            removed += _remove(client, index.name)
    return removed


def _remove(client: Elasticsearch, index: str) -> list[str]:
    try:
        client.indices.delete(index=index)
    except NotFoundError:
        return []  # somebody else was quicker
    except ApiError as error:
        # Consumers are served all the same; the next publish tries again.
        _log.warning("Could not remove the old index %s: %s", index, _brief(error))
        return []
    return [index]


def _has_writer(index: PublishedIndex) -> bool:
    """Whether somebody may still be writing this index."""
    writer = index.meta.get("writer") or {}
    if writer.get("host") != socket.gethostname():
        return datetime.now(UTC) - _sign_of_life(index.meta) < ABANDONED
    pid = int(writer.get("pid", -1))
    if pid == os.getpid():
        with _being_built_lock:
            return index.name in _being_built
    try:
        process = psutil.Process(pid)
        # The number alone may belong to another process by now.
        return process.status() != psutil.STATUS_ZOMBIE and abs(process.create_time() - float(writer["started"])) < 2
    except (psutil.NoSuchProcess, KeyError, ValueError):
        return False
    except psutil.AccessDenied:
        return True


def _old_enough(client: Elasticsearch, index: str) -> bool:
    """Whether nobody can be about to write the notes of a clone any more."""
    try:
        found = client.indices.get_settings(index=index, name="index.creation_date")[index]["settings"]["index"]
    except NotFoundError:
        return False
    made = datetime.fromtimestamp(int(found["creation_date"]) / 1000, UTC)
    return datetime.now(UTC) - made > timedelta(seconds=20 * _CLONING)


def _sign_of_life(meta: Mapping[str, Any]) -> datetime:
    try:
        return datetime.fromisoformat(str(meta.get("alive_at") or meta.get("created_at")))
    except ValueError:
        return datetime(1970, 1, 1, tzinfo=UTC)


def _myself() -> dict[str, Any]:
    process = psutil.Process()
    return {"host": socket.gethostname(), "pid": process.pid, "started": round(process.create_time(), 2)}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")


def _brief(error: Exception) -> str:
    return error.problem if isinstance(error, SegmentsError) else explain(error).problem
