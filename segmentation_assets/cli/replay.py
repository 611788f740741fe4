"""``segments replay``.

What belongs here: from options to a replay, and the account of it. What does not: the replay (io.replay).
"""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from segmentation_assets.cli import session
from segmentation_assets.cli.options import ConfigOption, DataDirOption, JsonOption
from segmentation_assets.cli.terminal import answer_in_json, counting, out, print_json, say
from segmentation_assets.errors import SegmentsError
from segmentation_assets.paths import DataDir

if TYPE_CHECKING:
    from segmentation_assets.core.live.events import Event

_INTERRUPTED = 130  # what a shell gives for Ctrl-C


def replay(
    path: Annotated[
        Path | None,
        typer.Argument(help="A file of sessions, as `segments import` takes it. Default: the sessions of the index."),
    ] = None,
    generate: Annotated[
        int | None, typer.Option(min=1, max=50_000_000, help="Send so many generated sessions instead.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the generated sessions.")] = 42,
    index: Annotated[
        str | None, typer.Option("--index", help="Index to read. Default: sessions.index of the settings.")
    ] = None,
    rate: Annotated[float | None, typer.Option(min=0.001, help="Events a second. Default: as fast as can be.")] = None,
    speed: Annotated[float | None, typer.Option(min=0.001, help="Times as fast as it happened.")] = None,
    now: Annotated[
        bool, typer.Option("--now", help="As visits of today: all times are moved so that the last event is now.")
    ] = False,
    to: Annotated[
        str | None, typer.Option(help="kafka or mqtt. Default: what the settings read from, if it is one of these.")
    ] = None,
    topic: Annotated[str | None, typer.Option(help="Topic to send to. Default: stream.topic of the settings.")] = None,
    partitions: Annotated[int, typer.Option(min=1, max=10_000, help="Of a Kafka topic that is not there yet.")] = 4,
    json: JsonOption = False,
    data_dir: DataDirOption = None,
    config: ConfigOption = None,
) -> None:
    """Send stored sessions as the events they were made of, in the order of time; Ctrl-C ends it.

    To send them again changes nothing, for events are known by their ids; with --now they are events of new visits.

    Examples:

      [bold]segments replay --speed 3600[/]                  an hour in each second

      [bold]segments replay --generate 100000 --rate 2000 --now[/]

      [bold]segments replay sessions.ndjson --to mqtt[/]
    """
    from segmentation_assets.defs.resources import resolved_resources
    from segmentation_assets.io import replay as replaying
    from segmentation_assets.io.streams.opening import kafka_config, open_sink
    from segmentation_assets.streaming.addresses import KAFKA, with_local

    if rate is not None and speed is not None:
        raise typer.BadParameter("either --rate or --speed")
    if path is not None and generate is not None:
        raise typer.BadParameter("either a file or --generate")
    if to not in (None, "kafka", "mqtt"):
        raise typer.BadParameter("kafka or mqtt", param_hint="--to")
    answer_in_json(json)
    data = session.use_data_dir(data_dir, config)
    settings = resolved_resources()[1].load()
    kind = to or (settings.stream.source if settings.stream.source in ("kafka", "mqtt") else "kafka")
    target = topic or settings.stream.topic
    environment = with_local(kind, data, os.environ)
    sink = open_sink(settings.stream.model_copy(update={"source": kind}), environment)
    try:
        if kind == "kafka":
            from segmentation_assets.io.streams.kafka import ensure_topic

            ensure_topic(environment[KAFKA], target, partitions, kafka_config(environment))
        moment = datetime.now(UTC)
        events = _generated(generate, seed, moment) if generate else _stored(path, index, data, moment)
        shift = 0
        if now:
            last = replaying.last_moment(events())
            shift = 0 if last is None else round(datetime.now(UTC).timestamp() * 1000) - last
        chosen = replaying.shifted(events(), shift) if now else events()
        stop = threading.Event()
        with counting(f"sending to {target}") as progress, _Interruptible(stop):
            done = replaying.replay(
                chosen, sink, target, rate=rate, speed=speed, stop=stop, on_progress=lambda n: progress(n, None)
            )
    finally:
        sink.close()
    said = {"topic": target, "to": kind, "events": done.events, "seconds": round(done.seconds, 3)}
    began, ended = (None if at is None else _iso(at) for at in (done.first, done.last))
    if json:
        print_json({**said, "rate": round(done.rate, 1), "first": began, "last": ended, "complete": done.complete})
    else:
        span = f", of {began} to {ended}" if began else ""
        out.print(
            f"{done.events:,} events sent to {target} ({kind}) in {done.seconds:,.1f} s, {done.rate:,.0f} a second"
            f"{span}{'' if done.complete else '; stopped before the end'}.",
            markup=False,
            soft_wrap=True,
        )
    if not done.complete:
        raise typer.Exit(_INTERRUPTED)


def _generated(sessions: int, seed: int, now: datetime) -> "Callable[[], Iterator[Event]]":
    from segmentation_assets.core.generate import generate_sessions
    from segmentation_assets.io.replay import events_in_order
    from segmentation_assets.io.seeding import last_midnight

    made = generate_sessions(sessions, seed, last_midnight(now), behaviour=True)
    return lambda: events_in_order(made.documents)


def _stored(path: Path | None, index: str | None, data: DataDir, now: datetime) -> "Callable[[], Iterator[Event]]":
    from segmentation_assets.io.replay import events_in_order, sessions_of_table, table_of_records

    if path is not None:
        from segmentation_assets.io.importing import read_file

        reading = read_file(path)
        for sentence in reading.plan.assumed:
            say(sentence)
        table, set_aside = table_of_records(reading, now)
        if set_aside:
            say("cannot be used: " + ", ".join(f"{reason} {n:,}" for reason, n in sorted(set_aside.items())))
    else:
        from segmentation_assets.defs.resources import resolved_resources
        from segmentation_assets.io.session_reader import read_sessions

        with session.server(data):
            elasticsearch, settings, _ = resolved_resources()
            wanted = index or settings.load().sessions.index
            with elasticsearch.client() as client, counting(f"reading {wanted}") as progress:
                table = read_sessions(client, wanted, now=now, on_progress=progress).table
    if not table.num_rows:
        raise SegmentsError(f"There are no usable sessions in {path or index}.", "Name another file or index.")
    return lambda: events_in_order(sessions_of_table(table))


class _Interruptible:
    """Ctrl-C and SIGTERM set the event while inside; a second one ends the process as ever."""

    def __init__(self, stop: threading.Event) -> None:
        self._stop = stop

    def __enter__(self) -> None:
        self._before = {number: signal.signal(number, self._told) for number in (signal.SIGINT, signal.SIGTERM)}

    def __exit__(self, *_: object) -> None:
        self._restore()

    def _told(self, _number: int, _frame: FrameType | None) -> None:
        self._stop.set()
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


def _iso(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
