"""``segments stream``: the process that keeps segments true while users act.

What belongs here: from options to a worker and its helpers, and a line of progress. What does not: the work
(streaming).
"""

import logging
import os
import signal
import socket
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated, Any
from uuid import uuid4

import typer

from segmentation_assets.cli import session
from segmentation_assets.cli.options import ConfigOption, DataDirOption, JsonOption
from segmentation_assets.cli.terminal import answer_in_json, print_json, say

if TYPE_CHECKING:
    from segmentation_assets.core.settings import Settings
    from segmentation_assets.io.live_store import StateStore
    from segmentation_assets.io.streams.base import Sink
    from segmentation_assets.paths import DataDir
    from segmentation_assets.streaming.metrics import Metrics
    from segmentation_assets.streaming.telling import Deliver, Teller
    from segmentation_assets.streaming.worker import Worker

SHOW_SECONDS = 10.0


def stream(
    name: Annotated[
        str | None,
        typer.Option(help="Name of this worker; a second one on a machine needs it. Default: its host's."),
    ] = None,
    publish_model: Annotated[
        bool,
        typer.Option(
            "--publish-model", help="Publish the newest stored model first; done anyway where there is none yet."
        ),
    ] = False,
    elasticsearch: Annotated[
        bool | None,
        typer.Option(
            "--elasticsearch/--no-elasticsearch", help="Write changes there, instead of what the settings say."
        ),
    ] = None,
    metrics_port: Annotated[
        int | None, typer.Option(min=0, max=65_535, help="Serve Prometheus metrics on this port of this machine.")
    ] = None,
    metrics_host: Annotated[str, typer.Option(help="Address that metrics are served on.")] = "127.0.0.1",
    until_idle: Annotated[
        float | None, typer.Option(min=0.1, help="End after so many seconds without an event; for scripts.")
    ] = None,
    json: JsonOption = False,
    data_dir: DataDirOption = None,
    config: ConfigOption = None,
) -> None:
    """Segment users while events come in, until stopped.

    Start as many workers as there are partitions; they share the events. Addresses: SEGMENTS_KAFKA (or
    SEGMENTS_MQTT_URL) and SEGMENTS_REDIS_URL, else what `segments services start` has started.

    Examples:

      [bold]segments services start[/]

      [bold]segments stream[/]

      [bold]segments stream --metrics-port 9108 --name worker-2[/]
    """
    from segmentation_assets.defs.resources import resolved_resources
    from segmentation_assets.io.live_store import open_store
    from segmentation_assets.io.streams.opening import open_sink, open_source
    from segmentation_assets.streaming.addresses import REDIS, address_of, namespace_of, with_local
    from segmentation_assets.streaming.metrics import Metrics
    from segmentation_assets.streaming.worker import Worker

    answer_in_json(json)
    data = session.use_data_dir(data_dir, config)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("elastic_transport").setLevel(logging.ERROR)
    settings = resolved_resources()[1].load()
    worker_name = name or socket.gethostname()
    with ExitStack() as stack:
        store = open_store(address_of(REDIS, data, os.environ), namespace_of(os.environ))
        stack.callback(store.close)
        _have_a_model(store, data, publish_model)
        environment = with_local(settings.stream.source, data, os.environ)
        sink, telling = open_sink(settings.stream, environment), open_sink(settings.stream, environment)
        stack.callback(sink.close)
        stack.callback(telling.close)
        source = open_source(settings.stream, environment)
        metrics = Metrics()
        stack.callback(metrics.close)
        if metrics_port is not None:
            port = metrics.start_http(metrics_port, metrics_host)
            say(f"metrics: http://{metrics_host}:{port}/metrics" if port else "metrics need the extra [stream]")
        worker = Worker(source, store, sink, settings.stream, worker_name, metrics)
        tellers = _tellers(store, telling, settings, data, f"{worker_name}-{uuid4()}", elasticsearch, metrics, stack)
        for teller in tellers:
            teller.start()
            stack.callback(teller.join, 10.0)
            stack.callback(teller.stop)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: worker.stop())
        say(f"worker {worker_name} reads {settings.stream.topic} from {settings.stream.source}; end it with Ctrl-C")
        stack.enter_context(_Progress(worker))
        worker.run(until_idle)
        said = metrics.said()
    if json:
        print_json({**said, "worker": worker_name, "seconds_of_work": round(worker.seconds_of_work, 3)})
    else:
        say(f"ended: {_line(said)}")


def _have_a_model(store: "StateStore", data: "DataDir", publish_model: bool) -> None:
    """Publish what a run has stored, if that was asked for or nothing is published yet."""
    from segmentation_assets.io.artifacts import ArtifactMissingError, ArtifactStore
    from segmentation_assets.io.live_models import from_artifacts, publish

    if store.current_model() is not None and not publish_model:
        return
    try:
        model, note = from_artifacts(ArtifactStore(data.storage))
    except ArtifactMissingError:
        if publish_model:
            raise
        return  # the worker says what to do
    if note:
        say(note)
    publish(store, model, round(time.time() * 1000))
    say(f"published model {model.version}")


def _tellers(
    store: "StateStore",
    sink: "Sink",
    settings: "Settings",
    data: "DataDir",
    owner: str,
    asked: bool | None,
    metrics: "Metrics",
    stack: ExitStack,
) -> "list[Teller]":
    from segmentation_assets.streaming.telling import Teller, to_elasticsearch, to_topic

    def teller(place: str, deliver: "Deliver") -> Teller:
        return Teller(place, store, deliver, owner, lambda waiting: metrics.sink_lag({place: waiting}))

    tellers = [teller("topic", to_topic(sink, settings.stream.changes))]
    if asked is False or (asked is None and not settings.stream.elasticsearch):
        return tellers
    if session.is_embedded():
        from segmentation_assets.local.elasticsearch import EmbeddedElasticsearch

        if EmbeddedElasticsearch(data).url() is None and asked is None:
            say("changes are not written to Elasticsearch: ELASTICSEARCH_URL is not set, and the embedded one is off")
            return tellers
    from segmentation_assets.defs.resources import resolved_resources

    stack.enter_context(session.server(data))
    client = stack.enter_context(resolved_resources()[0].client())
    return [*tellers, teller("elasticsearch", to_elasticsearch(client, settings))]


class _Progress:
    """A line now and then about how it goes."""

    def __init__(self, worker: "Worker") -> None:
        import threading

        self._worker = worker
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._show, name="progress", daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _show(self) -> None:
        while not self._ended.wait(SHOW_SECONDS):
            say(_line(self._worker.metrics.said()))


def _line(said: dict[str, Any]) -> str:
    parts = [f"{said.get('events', 0):,} events", f"{said.get('events_per_second', 0):,.0f}/s"]
    parts += [f"{name} {said[name]:,}" for name in ("dead", "late", "duplicates") if said.get(name)]
    if said.get("p99_ms") is not None:
        parts.append(f"p50 {said['p50_ms']:.0f} ms, p99 {said['p99_ms']:.0f} ms")
    if said.get("lag") is not None:
        parts.append(f"lag {said['lag']:,}")
    return ", ".join(parts)
