"""User states in Redis: one step of a worker is one script, so it happens as a whole or not at all.

What belongs here: the keys, the scripts, and what can go wrong on the way to a server. What does not: what a state is
(core.live.state), the server on this machine (local.redis). Works with Redis 6.2 and later.

A state lies under its user as a header and MessagePack. The header holds what the scripts look at: the sequence, since
when, and the segment. Every segment is a sorted set of its users, all of score 0, so that they are in the order of
their ids.
"""

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from struct import Struct, pack
from typing import Any, cast

import msgspec

from segmentation_assets.core.live.segmenter import Change
from segmentation_assets.core.live.state import UnreadableStateError, UserState, decode
from segmentation_assets.errors import MissingExtraError
from segmentation_assets.io.live_store.base import (
    Claim,
    Commit,
    Conflict,
    Fenced,
    ModelRecord,
    Prepared,
    StoredChange,
    StoredState,
    StoreUnavailable,
)
from segmentation_assets.io.live_store.rules import (
    KEPT_CHANGES,
    MOST_CHANGES,
    POPULAR_SECONDS,
    SINK_SECONDS,
    UNREADABLE,
    UNTOLD_CHANGES,
    as_pair,
    proportional,
)

_NAMESPACE = re.compile(r"[A-Za-z0-9_.-]{1,100}")
_HEADER = Struct(">QQH")
"""Sequence, since when, bytes of the segment's name; the name follows, and then the state."""

# MessagePack: a list, a text, and a text that begins with a header. The server's reader knows no bytes, but its texts
# may hold any.
_LIST = Struct(">BI")
_TEXT = Struct(">BI")
_SIZE = Struct(">I")
_ITEM = Struct(">BIQQH")

_CHUNK = 2_000
"""Keys that are asked for at a time: the server does nothing else meanwhile."""

_MODEL_HEAD = 10
"""Bytes of a stored model that say when it was published."""

_TRIM_STEP = 5_000
"""Changes that are forgotten at a time."""

_DRAWS = 5
"""Times that a sample is drawn where users were met who are gone."""

_SECONDS = 5.0
"""Within which the server has to take a connection, and to answer."""

_BLOCK_SECONDS = 2.0
"""A wait is made of waits of this length, so that a server that is gone is noticed."""

_COMMIT = """
local call, sub = redis.call, string.sub
local rest = cmsgpack.unpack(ARGV[1])
local moves, popular, counts, claims = rest[1], rest[2], rest[3], rest[4]
for i, claim in ipairs(claims) do
  if call('GET', KEYS[2 * i + 3]) ~= claim[1] then return {-1, i} end
end
local expected, states = ARGV[2], cmsgpack.unpack(ARGV[#ARGV])
local none, stale = string.rep('\\0', 8), {}
for i = 1, #states / 2 do
  local held = call('GETRANGE', states[2 * i - 1], '0', '7')
  if held == '' then held = none end
  if held ~= sub(expected, i * 8 - 7, i * 8) then stale[#stale + 1] = i end
end
if #stale > 0 then return stale end
local left, joined = {}, {}
for _, move in ipairs(moves) do
  local key, user, segment = states[2 * move[1] - 1], move[2], move[3]
  local header = call('GETRANGE', key, '16', '17')
  if header ~= '' then
    local size = string.byte(header, 1) * 256 + string.byte(header, 2)
    if size > 0 then
      local before = call('GETRANGE', key, '18', 17 + size)
      left[before] = left[before] or {}
      table.insert(left[before], user)
    end
  end
  if segment ~= '' then
    joined[segment] = joined[segment] or {}
    table.insert(joined[segment], '0')
    table.insert(joined[segment], user)
  end
end
local function many(command, key, found)
  for i = 1, #found, 4000 do call(command, key, unpack(found, i, math.min(i + 3999, #found))) end
end
for segment, found in pairs(left) do many('ZREM', ARGV[4] .. segment, found) end
for segment, found in pairs(joined) do
  many('ZADD', ARGV[4] .. segment, found)
  call('SADD', KEYS[3], segment)
end
local keep = ARGV[3]
for i = 1, #states, 2 do call('SET', states[i], states[i + 1], 'PX', keep) end
local changes = #ARGV - 6
for i = 1, changes do call('XADD', KEYS[2], '*', 'c', ARGV[i + 5]) end
if changes > 0 then
  local most = call('EXISTS', KEYS[4]) == 0 and ARGV[5] or rest[6]
  call('XTRIM', KEYS[2], 'MAXLEN', '~', most)
end
for _, hour in ipairs(popular) do
  local key, found = hour[1], hour[2]
  for i = 1, #found, 2 do call('ZINCRBY', key, found[i], found[i + 1]) end
  call('EXPIRE', key, rest[5])
end
for i = 1, #counts, 2 do call('HINCRBY', KEYS[1], counts[i], counts[i + 1]) end
for i, claim in ipairs(claims) do
  if claim[2] then call('SET', KEYS[2 * i + 4], claim[2]) end
end
return {}
"""
"""KEYS: totals, changes, segments, cursors, (token, position) of each claim ..
ARGV: the rest as MessagePack, expected sequences (8 bytes each), milliseconds to keep, what the keys of segments begin
with, how many changes are kept while there is no sink, changes .., [key, value ..] of the states as MessagePack.
The rest: [place, user, segment] of who moves, [key, [weight, product ..]], [name, count ..], [token, position] of each
claim, seconds that products are known for, how many changes are kept at most.
Gives the places of users whose state is another one, or -1 and the place of a claim that was taken over.

Effects, not the script, are what the server writes down (the default): as one transaction, so also a server that is
killed has all or nothing. States are one argument, since a server and a client both take longer over thousands."""

_MEMBERS = """
local found, gone, last = {}, {}, false
local range = redis.call('ZRANGEBYLEX', KEYS[1], ARGV[1], '+', 'LIMIT', '0', ARGV[2])
for _, user in ipairs(range) do
  local header = redis.call('GETRANGE', ARGV[4] .. user, '8', ARGV[5])
  if string.sub(header, 9) == ARGV[3] then
    found[#found + 1] = user
    found[#found + 1] = string.sub(header, 1, 8)
  else
    gone[#gone + 1] = user
  end
  last = user
end
for i = 1, #gone, 4000 do redis.call('ZREM', KEYS[1], unpack(gone, i, math.min(i + 3999, #gone))) end
return {last, found}
"""
"""KEYS: users of a segment. ARGV: from where, how many, the segment as in a header, what the keys of states begin with,
the last byte of the header."""

_FORGET = """
local gone = {}
for i = 4, #ARGV do
  if redis.call('GETRANGE', ARGV[2] .. ARGV[i], '16', ARGV[3]) ~= ARGV[1] then gone[#gone + 1] = ARGV[i] end
end
if #gone > 0 then redis.call('ZREM', KEYS[1], unpack(gone)) end
return #gone
"""
"""KEYS: users of a segment. ARGV: the segment as in a header, what the keys of states begin with, the last byte of the
header, users."""

_PUBLISH = """
local current, previous = redis.call('GET', KEYS[1]), redis.call('GET', KEYS[2])
redis.call('SET', ARGV[1] .. ARGV[2], ARGV[3])
if current == ARGV[2] then return 0 end
if previous and previous ~= ARGV[2] then redis.call('DEL', ARGV[1] .. previous) end
if current then redis.call('SET', KEYS[2], current) end
redis.call('SET', KEYS[1], ARGV[2])
return 1
"""
"""KEYS: current, previous. ARGV: what the keys of models begin with, version, record."""

_LOCK = """
local held = redis.call('GET', KEYS[1])
if held and held ~= ARGV[1] then return 0 end
if ARGV[2] == '0' then redis.call('DEL', KEYS[1]) else redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2]) end
return 1
"""

_REPORT = """
local now = redis.call('TIME')
redis.call('HSET', KEYS[1], ARGV[1], string.format('%d ', now[1] + ARGV[2]) .. ARGV[3])
for _, name in ipairs(redis.call('HKEYS', KEYS[1])) do
  local till = string.match(redis.call('HGET', KEYS[1], name), '^%d+')
  if tonumber(till) < tonumber(now[1]) then redis.call('HDEL', KEYS[1], name) end
end
return 0
"""

_CURSOR = """
local now = redis.call('TIME')[1]
local held = redis.call('HGET', KEYS[1], ARGV[1])
local id = held and string.match(held, '^%S+') or '0-0'
redis.call('HSET', KEYS[1], ARGV[1], id .. ' ' .. now)
return id
"""

_ADVANCE = """
local function pair(id)
  local a, b = string.match(id, '^(%d+)%-(%d+)')
  return tonumber(a), tonumber(b)
end
local function before(one, other)
  local a, b = pair(one)
  local c, d = pair(other)
  return a < c or (a == c and b < d)
end
local now = redis.call('TIME')[1]
local held = redis.call('HGET', KEYS[1], ARGV[1])
local id = held and string.match(held, '^%S+') or '0-0'
if before(id, ARGV[2]) then id = ARGV[2] end
redis.call('HSET', KEYS[1], ARGV[1], id .. ' ' .. now)
local extra = redis.call('XLEN', KEYS[2]) - ARGV[3]
if extra < tonumber(ARGV[5]) then return 0 end
local told = id
local sinks = redis.call('HVALS', KEYS[1])
for _, sink in ipairs(sinks) do
  local at, heard = string.match(sink, '^(%S+) (%d+)$')
  if now - heard < tonumber(ARGV[4]) and before(at, told) then told = at end
end
local oldest = redis.call('XRANGE', KEYS[2], '-', told, 'COUNT', math.min(extra, ARGV[6]))
if #oldest > 0 then redis.call('XTRIM', KEYS[2], 'MAXLEN', redis.call('XLEN', KEYS[2]) - #oldest) end
return #oldest
"""
"""KEYS: cursors, changes. ARGV: sink, id, changes to keep, seconds after which a sink is gone, from how many on it is
worth the while, how many at a time."""

_POPULAR = """
local asked = {'ZUNION', #KEYS}
for _, key in ipairs(KEYS) do asked[#asked + 1] = key end
asked[#asked + 1] = 'WITHSCORES'
local all, found = redis.call(unpack(asked)), {}
for i = #all - 1, math.max(1, #all - 2 * ARGV[1] + 1), -2 do
  found[#found + 1] = all[i]
  found[#found + 1] = all[i + 1]
end
return found
"""


@dataclass(frozen=True)
class _Prepared(Prepared):
    """A commit as the script takes it.

    Attributes:
        partitions: of the claims.
        users: of the states.
        head: words after the name of the script, but for the last.
        states: the last one; used up when it is written.
    """

    partitions: list[str]
    users: list[str]
    head: list[bytes]
    states: bytearray


class RedisStore:
    """States in a Redis server; see ``StateStore`` for what the methods do.

    Of users whose state was forgotten by its age, the entry in their segment is removed when ``members`` or ``sample``
    come across it; ``sizes`` counts them until then. Users without a segment are in no sample. Reading is tried a
    second time where a connection broke; a commit is not, since it may have happened: claim again, and go on from
    where the store says.

    Args:
        url: ``redis://``, ``rediss://`` or ``unix://``; may hold a password, which goes into no message.
        namespace: begins every key: letters, digits, ``_``, ``.`` and ``-``.

    Raises:
        MissingExtraError: redis is not installed.
        StoreUnavailable: the address makes no sense, nobody answers there, or the server is too old.
        ValueError: of another namespace.
    """

    def __init__(self, url: str, namespace: str = "segments") -> None:
        if not _NAMESPACE.fullmatch(namespace):
            raise ValueError("a namespace has letters, digits, '_', '.' and '-' only")
        try:
            import redis
            from redis.backoff import ConstantBackoff, NoBackoff
            from redis.retry import Retry
        except ImportError:
            raise MissingExtraError("A state store in Redis", "stream") from None
        self._errors: Any = redis
        self._address = "the given address"

        def client(retries: int, seconds: float) -> Any:
            pool = redis.ConnectionPool.from_url(url)
            pool.connection_kwargs |= {  # whatever the address says of these
                "socket_timeout": seconds,
                "socket_connect_timeout": _SECONDS,
                "retry": Retry(ConstantBackoff(0.05) if retries else NoBackoff(), retries),
                "protocol": 2,
                "decode_responses": False,
            }
            pool.connection_class(**pool.connection_kwargs)  # does not connect; it knows whether the options exist
            return redis.Redis(connection_pool=pool)

        try:
            self._client = client(1, _SECONDS)
            self._writing = client(0, _SECONDS)
            self._waiting = client(0, _SECONDS + _BLOCK_SECONDS)
        except (ValueError, TypeError):
            raise StoreUnavailable(
                "The address of the Redis server cannot be understood.",
                "It looks like redis://:password@host:6379/0; in a password write / as %2F, # as %23, @ as %40.",
            ) from None
        self._address = _without_secrets(self._client.connection_pool.connection_kwargs)
        self.namespace = namespace
        self._state_base = f"{namespace}:state:".encode()
        self._segment_base = f"{namespace}:members:"
        self._model_base = f"{namespace}:model:"
        self._commit = self._writing.register_script(_COMMIT)
        self._members = self._client.register_script(_MEMBERS)
        self._forget = self._client.register_script(_FORGET)
        self._publish = self._client.register_script(_PUBLISH)
        self._lock = self._client.register_script(_LOCK)
        self._report = self._client.register_script(_REPORT)
        self._cursor = self._client.register_script(_CURSOR)
        self._advance = self._client.register_script(_ADVANCE)
        self._popular = self._client.register_script(_POPULAR)
        self._tidied: dict[str, int] = {}
        self._check_version()

    def _check_version(self) -> None:
        with self._asking():
            version = str(self._client.info("server").get("redis_version", ""))
        numbers = [int(part) for part in re.findall(r"[0-9]+", version)[:2]]
        if numbers and numbers < [6, 2]:
            raise StoreUnavailable(f"The Redis server at {self._address} is {version}.", "It has to be 6.2 or later.")

    def __repr__(self) -> str:
        return f"RedisStore({self._address!r})"

    @contextmanager
    def _asking(self) -> Iterator[None]:
        """Whatever goes wrong with the server, in words, and without what was sent to it."""
        try:
            yield
        except (self._errors.RedisError, OSError) as error:
            raise self._unavailable(error) from None

    def _unavailable(self, error: Exception) -> StoreUnavailable:
        of = self._errors
        if isinstance(error, (of.AuthenticationError, of.exceptions.NoPermissionError)):
            return StoreUnavailable(
                f"The Redis server at {self._address} refuses us.", "Check user and password in SEGMENTS_REDIS_URL."
            )
        if isinstance(error, of.exceptions.OutOfMemoryError) or "OOM " in str(error)[:200]:
            return StoreUnavailable(
                f"The Redis server at {self._address} has no memory left for writing.",
                "Give it more (maxmemory), or keep states for a shorter time.",
            )
        if isinstance(error, (of.ConnectionError, of.TimeoutError, OSError)):
            return StoreUnavailable(
                f"The Redis server at {self._address} does not answer ({type(error).__name__}).",
                "Start it (`segments services start`), or set SEGMENTS_REDIS_URL to one that runs.",
            )
        code = re.match(r"[A-Z]{2,20}\b", str(error))
        return StoreUnavailable(
            f"The Redis server at {self._address} cannot do it ({code[0] if code else type(error).__name__}).",
            "Look into the log of the server.",
        )

    def _key(self, *parts: str) -> str:
        return ":".join((self.namespace, *parts))

    # --- a worker's side

    def claim(self, partition: str) -> Claim:
        """See ``StateStore``."""
        with self._asking(), self._client.pipeline(transaction=True) as steps:
            steps.incr(self._key("token", partition))
            steps.get(self._key("position", partition))
            token, position = steps.execute()
        return Claim(partition, int(token), None if position is None else position.decode())

    def load(self, users: Sequence[str]) -> dict[str, UserState]:
        """See ``StateStore``. Of a state that cannot be read only the sequence is left, so that it can be replaced."""
        found: dict[str, UserState] = {}
        unreadable = 0
        for user, value in self._values(users):
            try:
                found[user] = _state(value)
            except UnreadableStateError:
                unreadable += 1
                found[user] = UserState(sequence=int.from_bytes(value[:8], "big"))
        if unreadable:
            with self._asking():
                self._client.hincrby(self._key("totals"), UNREADABLE, unreadable)
        return found

    def _values(self, users: Sequence[str]) -> Iterator[tuple[str, bytes]]:
        """What is stored of those users of whom there is something."""
        base = self._state_base
        for start in range(0, len(users), _CHUNK):
            some = users[start : start + _CHUNK]
            with self._asking():
                values = self._client.execute_command("MGET", *[base + user.encode() for user in some])
            for user, value in zip(some, values, strict=True):
                if value is not None:
                    yield user, value

    def commit(self, commit: Commit) -> Conflict | None:
        """See ``StateStore``."""
        return self.write(self.prepare(commit))

    def prepare(self, commit: Commit) -> Prepared:
        """See ``StateStore``."""
        keys = [self._key(name) for name in ("totals", "changes", "segments", "cursors")]
        for claim, _ in commit.positions:
            keys += [self._key("token", claim.partition), self._key("position", claim.partition)]
        expected, states = self._packed(commit.states)
        return _Prepared(
            [claim.partition for claim, _ in commit.positions],
            list(commit.states),
            [
                b"%d" % len(keys),
                *(key.encode() for key in keys),
                self._rest(commit),
                expected,
                b"%d" % (commit.keep_seconds * 1000),
                self._segment_base.encode(),
                b"%d" % UNTOLD_CHANGES,
                *map(msgspec.msgpack.encode, commit.changes),
            ],
            states,
        )

    def write(self, prepared: Prepared) -> Conflict | None:
        """See ``StateStore``."""
        assert isinstance(prepared, _Prepared)
        done = self._send_commit(prepared.head, prepared.states)
        if not done:
            return None
        if done[0] == -1:
            raise Fenced(prepared.partitions[done[1] - 1])
        return Conflict([prepared.users[place - 1] for place in done])

    def _packed(self, states: Mapping[str, UserState]) -> tuple[bytes, bytearray]:
        """The sequences that are expected, 8 bytes each, and [key, value ..] as MessagePack."""
        base, into = self._state_base, msgspec.msgpack.Encoder().encode_into
        text, item = _TEXT.pack, _ITEM.pack
        names: dict[str, bytes] = {}
        expected = []
        packed = bytearray(_LIST.pack(0xDD, 2 * len(states)))
        for user, state in states.items():
            key = base + user.encode()
            segment = state.segment
            name = names.get(segment)
            if name is None:
                name = names[segment] = segment.encode()
            packed += text(0xDB, len(key)) + key
            start = len(packed)
            packed += item(0xDB, 0, state.sequence, state.since, len(name)) + name
            into(state, packed, -1)
            _SIZE.pack_into(packed, start + 1, len(packed) - start - _TEXT.size)
            expected.append(state.sequence - 1)
        return pack(f">{len(expected)}Q", *expected), packed

    def _send_commit(self, head: Sequence[bytes], states: bytearray) -> list[int]:
        """What the script says. Written straight to the connection: the client would copy megabytes three times."""
        size = len(states)
        states += b"\r\n"
        with self._asking():
            for _ in range(2):
                words = [b"EVALSHA", self._commit.sha.encode(), *head]
                parts = [b"*%d\r\n" % (len(words) + 1)]
                parts += [b"$%d\r\n%b\r\n" % (len(word), word) for word in words]
                parts.append(b"$%d\r\n" % size)
                pool = self._writing.connection_pool
                connection = pool.get_connection()
                try:
                    connection.send_packed_command([b"".join(parts), states])
                    return cast("list[int]", connection.read_response())
                except self._errors.exceptions.NoScriptError:
                    self._writing.script_load(_COMMIT)
                finally:
                    pool.release(connection)
            raise StoreUnavailable(
                f"The Redis server at {self._address} does not keep scripts.", "Use a server that has EVALSHA."
            )

    def _rest(self, commit: Commit) -> bytes:
        """What a commit has beside states, as the script takes it."""
        moved = [change for change in commit.changes if change.segment != change.previous]
        places = {user: place for place, user in enumerate(commit.states, 1)} if moved else {}
        products: dict[str, list[object]] = {}
        for (segment, hour, product), weight in commit.products.items():
            products.setdefault(self._key("popular", str(hour), segment), []).extend((weight, product))
        return msgspec.msgpack.encode(
            (
                [(places[change.user_id], change.user_id, change.segment) for change in moved],
                list(products.items()),
                [item for count in commit.counts.items() for item in count],
                [(str(claim.token), position or False) for claim, position in commit.positions],
                POPULAR_SECONDS,
                MOST_CHANGES,
            )
        )

    def _run(self, script: Any, keys: Sequence[str | bytes], values: Sequence[Any]) -> Any:
        with self._asking():
            return script(keys=keys, args=values)

    # --- models

    def publish_model(self, record: ModelRecord) -> None:
        """See ``StateStore``."""
        stored = msgspec.msgpack.encode((record.published_at, record.data))
        keys = [self._key("model-current"), self._key("model-previous")]
        self._run(self._publish, keys, [self._model_base, record.version, stored])

    def current_model(self) -> str | None:
        """See ``StateStore``."""
        with self._asking():
            found = self._client.get(self._key("model-current"))
        return None if found is None else found.decode()

    def model(self, version: str) -> ModelRecord | None:
        """See ``StateStore``."""
        with self._asking():
            found = self._client.get(self._model_base + version)
        if found is None:
            return None
        published_at, data = msgspec.msgpack.decode(found, type=tuple[int, bytes])
        return ModelRecord(version, published_at, data)

    def models(self) -> list[tuple[str, int]]:
        """See ``StateStore``."""
        with self._asking():
            versions = self._client.mget(self._key("model-current"), self._key("model-previous"))
            known = [version.decode() for version in versions if version is not None]
            heads = [self._client.getrange(self._model_base + version, 0, _MODEL_HEAD - 1) for version in known]
        return [(version, _published_at(head)) for version, head in zip(known, heads, strict=True) if head]

    def report_worker(self, worker: str, said: Mapping[str, object], keep_seconds: int = 30) -> None:
        """See ``StateStore``."""
        self._run(self._report, [self._key("workers")], [worker, keep_seconds, msgspec.json.encode(said)])

    def workers(self) -> dict[str, dict[str, object]]:
        """See ``StateStore``."""
        with self._asking(), self._client.pipeline(transaction=False) as steps:
            steps.time()
            steps.hgetall(self._key("workers"))
            (now, _), said = steps.execute()
        found: dict[str, dict[str, object]] = {}
        for worker, text in sorted(said.items()):
            till, _, words = text.partition(b" ")
            if int(till) >= now:
                found[worker.decode()] = msgspec.json.decode(words, type=dict[str, object])
        return found

    # --- readers

    def ping(self) -> bool:
        """See ``StateStore``."""
        try:
            with self._asking():
                return bool(self._client.ping())
        except StoreUnavailable:
            return False

    def members(self, segment: str, cursor: str | None, limit: int) -> tuple[list[tuple[str, int]], str | None]:
        """See ``StateStore``. A user who stays in the segment is on exactly one page, whatever others do meanwhile."""
        tail = _tail(segment)
        found: list[tuple[str, int]] = []
        after = cursor
        while True:
            wanted = min(limit + 1 - len(found), _CHUNK)
            start = "-" if after is None else f"({after}"
            values = [start, wanted, tail, self._state_base, 15 + len(tail)]
            last, pairs = self._run(self._members, [self._segment_base + segment], values)
            found += [
                (user.decode(), int.from_bytes(since, "big"))
                for user, since in zip(pairs[::2], pairs[1::2], strict=True)
            ]
            if len(found) > limit:
                return found[:limit], found[limit - 1][0]
            if last is None:
                return found, None
            after = last.decode()

    def sizes(self) -> dict[str, int]:
        """See ``StateStore``."""
        with self._asking():
            segments = sorted(segment.decode() for segment in self._client.smembers(self._key("segments")))
            with self._client.pipeline(transaction=True) as steps:
                for segment in segments:
                    steps.zcard(self._segment_base + segment)
                numbers = steps.execute()
        return {segment: number for segment, number in zip(segments, numbers, strict=True) if number}

    def changes(self, after: str | None, limit: int, *, newest_first: bool = False) -> list[StoredChange]:
        """See ``StateStore``.

        Raises:
            ValueError: ``after`` is no id of a change.
        """
        if after is not None:
            as_pair(after)
        start = "-" if after is None else f"({after}"
        with self._asking():
            if newest_first:
                found = self._client.xrevrange(self._key("changes"), "+", start, count=limit)
            else:
                found = self._client.xrange(self._key("changes"), start, "+", count=limit)
        return [_stored_change(*entry) for entry in found]

    def wait_changes(self, after: str, limit: int, seconds: float) -> list[StoredChange]:
        """See ``StateStore``.

        Raises:
            ValueError: ``after`` is no id of a change, nor '$'.
        """
        if after == "$":
            newest = self.changes(None, 1, newest_first=True)
            after = newest[0].id if newest else "0-0"
        as_pair(after)
        until = time.monotonic() + seconds
        while True:
            left = min(until - time.monotonic(), _BLOCK_SECONDS)
            with self._asking():
                found = self._waiting.xread({self._key("changes"): after}, count=limit, block=max(1, int(left * 1000)))
            if found:
                return [_stored_change(*entry) for entry in found[0][1]]
            if time.monotonic() >= until:
                return []

    def popular(self, segment: str, hours: Sequence[int], limit: int) -> list[tuple[str, float]]:
        """See ``StateStore``."""
        if not hours or limit < 1:
            return []
        keys = [self._key("popular", str(hour), segment) for hour in dict.fromkeys(hours)]
        found = self._run(self._popular, keys, [limit])
        return [(product.decode(), float(weight)) for product, weight in zip(found[::2], found[1::2], strict=True)]

    def totals(self) -> dict[str, int]:
        """See ``StateStore``."""
        with self._asking():
            found = self._client.hgetall(self._key("totals"))
        return {name.decode(): int(count) for name, count in sorted(found.items())}

    def tidy(self, users: int) -> int:
        """See ``StateStore``. Goes on where the last call ended."""
        gone = 0
        for segment in self.sizes():
            key, tail = self._segment_base + segment, _tail(segment)
            with self._asking():
                self._tidied[segment], found = self._client.zscan(key, self._tidied.get(segment, 0), count=users)
            names = [user for user, _ in found]
            if names:
                gone += self._run(self._forget, [key], [tail, self._state_base, 15 + len(tail), *names])
        return gone

    def sample(self, users: int) -> list[StoredState]:
        """See ``StateStore``. Of every segment a part that is as large as the segment's share of all."""
        found: dict[str, UserState] = {}
        for _ in range(_DRAWS):
            gone = 0
            for segment, number in proportional(self.sizes(), users).items():
                if number:
                    gone += self._draw(segment, number, found)
            if not gone:
                break
        return [StoredState(user, state) for user, state in list(found.items())[:users]]

    def _draw(self, segment: str, number: int, found: dict[str, UserState]) -> int:
        """Add users of a segment drawn by chance; returns how many were met who are not in it any more."""
        key, tail = self._segment_base + segment, _tail(segment)
        with self._asking():
            drawn = [user.decode() for user in self._client.zrandmember(key, number)]
        values = dict(self._values(drawn))
        gone = [user for user in drawn if values.get(user, b"")[16 : 16 + len(tail)] != tail]
        for user, value in values.items():
            try:
                found[user] = _state(value)
            except UnreadableStateError:
                continue
        for start in range(0, len(gone), _CHUNK):
            some = gone[start : start + _CHUNK]
            self._run(self._forget, [key], [tail, self._state_base, 15 + len(tail), *some])
        return len(gone)

    # --- what else a worker keeps

    def keep(self, name: str, data: bytes, seconds: float | None = None) -> None:
        """See ``StateStore``."""
        with self._asking():
            self._client.set(self._key("kept", name), data, ex=None if seconds is None else max(1, round(seconds)))

    def kept(self, name: str) -> bytes | None:
        """See ``StateStore``."""
        with self._asking():
            found: bytes | None = self._client.get(self._key("kept", name))
        return found

    # --- told on

    def cursor(self, sink: str) -> str | None:
        """See ``StateStore``. Who asks is a sink: what it has not told on is kept from now on.

        One that has neither asked nor told anything on for seven days is none any more.
        """
        found = str(self._run(self._cursor, [self._key("cursors")], [sink]).decode())
        return None if found == "0-0" else found

    def advance(self, sink: str, change_id: str) -> None:
        """See ``StateStore``. A cursor never goes back.

        Raises:
            ValueError: it is no id of a change.
        """
        as_pair(change_id)
        keys = [self._key("cursors"), self._key("changes")]
        values = [sink, change_id, KEPT_CHANGES, SINK_SECONDS, KEPT_CHANGES // 10, _TRIM_STEP]
        self._run(self._advance, keys, values)

    def lock(self, name: str, owner: str, seconds: int) -> bool:
        """See ``StateStore``."""
        return bool(self._run(self._lock, [self._key("lock", name)], [owner, seconds]))

    def close(self) -> None:
        """See ``StateStore``."""
        for client in (self._client, self._writing, self._waiting):
            client.connection_pool.disconnect()


def _published_at(head: bytes) -> int:
    """The first of the two things in a stored model; the second one, its data, is megabytes."""
    unpacker = msgspec.msgpack.Decoder(int)
    for size in range(2, len(head) + 1):  # one byte says that it is a list, up to nine hold the number
        with suppress(msgspec.MsgspecError):
            return unpacker.decode(head[1:size])
    raise StoreUnavailable("A model in the store cannot be read.", "Publish it: `segments stream --publish-model`.")


def _without_secrets(address: Mapping[str, Any]) -> str:
    if "path" in address:
        return str(address["path"])
    return f"{address.get('host', 'localhost')}:{address.get('port', 6379)}"


def _tail(segment: str) -> bytes:
    """The end of the header of a state in a segment."""
    name = segment.encode()
    return len(name).to_bytes(2, "big") + name


def _state(value: bytes) -> UserState:
    """Raises UnreadableStateError."""
    if len(value) < _HEADER.size:
        raise UnreadableStateError("no user state")
    return decode(value[_HEADER.size + _HEADER.unpack_from(value)[2] :])


def _stored_change(place: bytes, fields: Mapping[bytes, bytes]) -> StoredChange:
    return StoredChange(place.decode(), msgspec.msgpack.decode(fields[b"c"], type=Change))
