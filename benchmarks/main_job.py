"""The whole main job beside the textbook script and beside what Elasticsearch itself needs, in one run on one node.

python -m benchmarks.main_job [--sessions 1000000] [--n-init 1] [--skip textbook] [--json] [--results FILE]

An embedded node is started in a folder of its own and filled with generated sessions. Then, each in a process of its
own, one after the other:

- floor: the server's own limit. Reading: two slices, bytes not parsed. Writing: bytes made beforehand, the same
  documents into the same kind of index, with the refresh that makes them visible.
- textbook: helpers.scan, DataFrame, TfidfVectorizer, KMeans, the taxonomy's keywords in the ten heaviest terms of a
  centre, helpers.bulk, refresh. Three fields a document, no checks.
- core, method kmeans and the default: this product without Dagster, with all checks and the publish guard.
- core, kmeans, few fields: the same with `publish.fields: []`, so that a document has the textbook's three and its id.
- dagster, the same two: `segments run` on the same node, storage of intermediate data and pictures included.
- dagster, default, 1% more: the same again after 1% new sessions came; then everything once more from the beginning
  (`--full`), which must give the very same documents, segments included.

Wall and CPU seconds of the client by stage, CPU seconds of the node, and the highest resident memory of the client.
The digest is of (user_id, search_query) of every document written, whatever their order, and must be the same for all;
after 1% more, of segment, cluster and confidence too.
"""

import argparse
import hashlib
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from elasticsearch import Elasticsearch, helpers

from benchmarks.generated import END
from segmentation_assets.core import quality
from segmentation_assets.core.generate import generate_sessions
from segmentation_assets.core.labels import label, shipped_taxonomy
from segmentation_assets.core.model import fit
from segmentation_assets.core.settings import Settings
from segmentation_assets.core.vectorize import vectorize
from segmentation_assets.io import bulk, ndjson
from segmentation_assets.io.point_in_time import PAGE_SIZE
from segmentation_assets.io.segment_store import publish_segments
from segmentation_assets.io.session_reader import SLICES, read_sessions
from segmentation_assets.io.snapshot import undecoded
from segmentation_assets.io.templates import create_index, ensure_template, segment_template, session_template
from segmentation_assets.local.elasticsearch import EmbeddedElasticsearch
from segmentation_assets.paths import HOME_VARIABLE, DataDir

AT_ONCE = 1_000_000
"""Sessions generated with one seed; more are generated with the next."""

READ, VECTORS, CLUSTERS, LABELS, WRITE = "read", "TF-IDF", "clusters", "labels and checks", "write"


@dataclass
class Part:
    """What one way of doing it cost.

    Attributes:
        name: of the way.
        wall: seconds by stage.
        cpu: seconds of the client by stage, all threads.
        node_cpu: seconds of the node, all stages, and of reading it all once more for the digest.
        peak_mb: highest resident memory of the client.
        documents: written.
        digest: of what was written.
    """

    name: str
    wall: dict[str, float] = field(default_factory=dict)
    cpu: dict[str, float] = field(default_factory=dict)
    node_cpu: float = 0.0
    peak_mb: float = 0.0
    documents: int = 0
    digest: str = ""

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time what is inside."""
        wall, cpu = time.perf_counter(), time.process_time()
        yield
        self.wall[name] = self.wall.get(name, 0.0) + time.perf_counter() - wall
        self.cpu[name] = self.cpu.get(name, 0.0) + time.process_time() - cpu

    @property
    def total(self) -> float:
        """Wall seconds of all stages."""
        return sum(self.wall.values())


def main() -> None:
    """Print a Markdown table, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sessions", type=int, default=1_000_000)
    parser.add_argument("--n-init", type=int, default=1, help="starts of k-means, the textbook's as well as ours")
    parser.add_argument("--skip", action="append", default=[], help="a way to leave out, by the beginning of its name")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--results", type=Path, help="JSON file to note the results in, for benchmarks.growth")
    options = parser.parse_args()
    ways: dict[str, tuple[Callable[..., Part], tuple[Any, ...]]] = {
        "floor": (floor, ()),
        "textbook": (textbook, (options.n_init,)),
        "core, kmeans": (core, ("kmeans", options.n_init)),
        "core, kmeans, few fields": (core, ("kmeans", options.n_init, [])),
        "core, default": (core, ("consensus", 10)),
        "dagster, kmeans": (dagster, ("kmeans", options.n_init)),
        "dagster, default": (dagster, ("consensus", 10)),
        "dagster, default, 1% more": (dagster, ("consensus", 10)),
        "dagster, default, 1% more, in full": (dagster, ("consensus", 10, True)),
    }
    chosen = {name: way for name, way in ways.items() if not any(name.startswith(skip) for skip in options.skip)}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        with EmbeddedElasticsearch(DataDir(root / "node")).acquire() as lease:
            _say(f"seeding {options.sessions:,} sessions")
            queries = seed(lease.url, options.sessions)
            node = _node(lease.url)
            floor_of(lease.url, root, 20_000)  # nobody pays for the node's compiler but the first
            parts = []
            for name, (way, arguments) in chosen.items():
                if name.endswith("1% more"):
                    seed(lease.url, max(options.sessions // 100, 1), first=False)
                _say(name)
                before = _cpu(node)
                part = _apart(way, lease.url, root, name, *arguments)
                part.node_cpu = _cpu(node) - before
                parts.append(part)
    for wanted in (False, True):
        digests = {part.name: part.digest for part in parts if ("1% more" in part.name) == wanted}
        if len(set(digests.values())) > 1:
            raise SystemExit(f"Not the same was written: {digests}")
    if options.results:
        record(options.results, options.sessions, queries, parts)
    if options.json:
        print(json.dumps([asdict(part) for part in parts], indent=1))
        return
    _show(options.sessions, queries, parts)


# --- the ways ---------------------------------------------------------------------------------------------------------


def floor(url: str, root: Path, name: str) -> Part:
    """What the server needs to hand out and take in the documents."""
    return floor_of(url, root, None, name)


def floor_of(url: str, root: Path, documents: int | None, name: str = "floor") -> Part:
    """See ``floor``; of so many documents only, where a number is given."""
    part = Part(name)
    with Elasticsearch(url, request_timeout=120) as client:
        with part.stage(READ):
            _raw_read(client, documents)
        index = "floor-1"
        client.indices.delete(index=index, ignore_unavailable=True)
        template = segment_template("floor")
        ensure_template(client, template)
        rows = (
            pq.read_table(root / "documents.parquet") if (root / "documents.parquet").exists() else _documents(client)
        )
        pq.write_table(rows, root / "documents.parquet")
        constants = {"model_version": "0123456789ab", "published_at": END}
        made = ndjson.in_batches(rows.slice(0, documents), "session_id", constants)
        bodies = [batch.body() for batch in made]
        create_index(client, index, template, settings={"refresh_interval": "-1"}, meta={"owner": "benchmark"})
        with part.stage(WRITE):
            with ThreadPoolExecutor(bulk.IN_FLIGHT) as pool:
                for _ in pool.map(lambda body: client.bulk(index=index, operations=body, filter_path="errors"), bodies):
                    pass
            client.indices.refresh(index=index)
        part.documents, part.digest = _digest(client, index) if documents is None else (0, "")
        client.indices.delete(index=index)
    return part


def textbook(url: str, root: Path, name: str, n_init: int) -> Part:
    """The script as everybody writes it."""
    import pandas as pd
    from sklearn.cluster import KMeans
    from sklearn.feature_extraction.text import TfidfVectorizer

    part, index = Part(name), "textbook-1"
    client = Elasticsearch(url, request_timeout=120)
    with part.stage(READ):
        hits = [hit["_source"] for hit in helpers.scan(client, index="user_sessions", size=1000)]
        frame = pd.DataFrame(hits)
    with part.stage(VECTORS):
        vectorizer = TfidfVectorizer()
        matrix = vectorizer.fit_transform(frame["search_query"])
    with part.stage(CLUSTERS):
        model = KMeans(n_clusters=5, n_init=n_init, random_state=42).fit(matrix)
    with part.stage(LABELS):
        terms = vectorizer.get_feature_names_out()
        taxonomy = shipped_taxonomy().segments
        names = {}
        for cluster, center in enumerate(model.cluster_centers_):
            top = {terms[i] for i in center.argsort()[::-1][:10]}
            hits_by = {segment: len(top & set(entry.keywords)) for segment, entry in taxonomy.items()}
            best = max(hits_by, key=lambda segment: hits_by[segment])
            names[cluster] = best if hits_by[best] else "other"
        frame["segment"] = [names[cluster] for cluster in model.labels_]
    with part.stage(WRITE):
        helpers.bulk(
            client,
            (
                {"_index": index, "user_id": row.user_id, "search_query": row.search_query, "segment": row.segment}
                for row in frame.itertuples()
            ),
        )
        client.indices.refresh(index=index)
    part.documents, part.digest = _digest(client, index)
    client.indices.delete(index=index)
    return part


def core(url: str, root: Path, name: str, method: str, n_init: int, fields: list[str] | None = None) -> Part:
    """This product without Dagster: the very functions that the assets call, checks and guard included."""
    import sklearn.cluster  # noqa: F401  # as the textbook's, before the clock starts

    part = Part(name)
    chosen = {"clusters": {"method": method, "n_init": n_init}, "publish": {} if fields is None else {"fields": fields}}
    settings = Settings.model_validate(chosen)
    checks = settings.checks.model_copy(update={"cluster_balance": _any_balance(settings)})
    client = Elasticsearch(url, request_timeout=120)
    with part.stage(READ):
        sessions = read_sessions(client, "user_sessions", now=END)
    with part.stage(VECTORS):
        tfidf = vectorize(sessions.table["search_query"], settings.vectors.for_method(settings.clusters.method))
    with part.stage(CLUSTERS):
        model = fit(tfidf, sessions.user_numbers(), settings.clusters)
    with part.stage(LABELS):
        labeled = label(sessions, tfidf, model, shipped_taxonomy(), settings.labels)
        quality.require_publishable(quality.publish_gate(labeled, checks))
    with part.stage(WRITE):
        publish = settings.publish.model_copy(update={"alias": "core"})
        done = publish_segments(client, labeled, publish, run_id="benchmark", now=END)
    part.documents, part.digest = _digest(client, done.index)
    client.indices.delete(index=done.index)
    return part


def _any_balance(settings: Settings) -> Any:
    """Bounds that let the textbook's clusters through: they are what is timed here, not what is served."""
    return settings.checks.cluster_balance.model_copy(update={"max_share": 1.0, "min_share": 0.0})


def dagster(url: str, root: Path, name: str, method: str, n_init: int, full: bool = False) -> Part:
    """``segments run``, a process of its own."""
    part = Part(name)
    home = root / f"home-{method}"
    home.mkdir(exist_ok=True)
    (home / "segments.yaml").write_text(
        f"clusters: {{method: {method}, n_init: {n_init}}}\n"
        "checks: {cluster_balance: {max_share: 1.0, min_share: 0.0}}\n"
        f"publish: {{alias: dagster-{method}}}\n",
        "utf-8",
    )
    environment = {**os.environ, "ELASTICSEARCH_URL": url, HOME_VARIABLE: str(home)}
    environment.pop("DAGSTER_HOME", None)
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "segmentation_assets", "run", "--json", "--config", str(home / "segments.yaml")]
        + ["--full"] * full,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    watch = _Watch(psutil.Process(process.pid))
    out, error = process.communicate()
    whole = time.perf_counter() - started
    if process.returncode:
        raise SystemExit(f"segments run failed ({process.returncode}): {error[-2000:]}")
    seconds = json.loads(out)["seconds"]
    names = dict(zip(seconds, (READ, VECTORS, CLUSTERS, LABELS, WRITE), strict=False))
    part.wall = {names.get(step, step): value for step, value in seconds.items() if step in names}
    part.wall["start, checks, stop"] = whole - sum(part.wall.values())
    part.cpu, part.peak_mb = {"all": watch.cpu}, watch.peak_mb
    client = Elasticsearch(url, request_timeout=120)
    index = next(iter(client.indices.get_alias(name=f"dagster-{method}").body))
    again = "1% more" in name
    part.documents, part.digest = _digest(client, index, ["segment", "cluster", "confidence"] if again else [])
    if method == "kmeans":
        client.indices.delete(index=index)
    return part


# --- the sessions -----------------------------------------------------------------------------------------------------


def seed(url: str, n: int, first: bool = True) -> int:
    """Write generated sessions into ``user_sessions``, a new one at first; gives the number of distinct queries."""
    distinct: set[str] = set()
    with Elasticsearch(url, request_timeout=120) as client:
        if first:
            template = session_template("user_sessions")
            ensure_template(client, template)
            create_index(client, "user_sessions", template, settings={"refresh_interval": "-1"}, meta={})
        for number, start in enumerate(range(0, n, AT_ONCE)):
            documents = generate_sessions(min(AT_ONCE, n - start), number + (1 if first else 1001), END).documents
            while rows := list(islice(documents, 20_000)):
                distinct.update(row["search_query"] for row in rows)
                lines = ((row["session_id"], bulk.index_line(row["session_id"], bulk.to_json(row))) for row in rows)
                bulk.write(client, "user_sessions", bulk.in_batches(lines), on_batch=lambda *_: None)
        client.indices.put_settings(index="user_sessions", settings={"index.refresh_interval": None})
        client.indices.refresh(index="user_sessions")
    return len(distinct)


def _documents(client: Elasticsearch) -> pa.Table:
    """Segment documents of all sessions, with segments by chance: their bytes are what is timed."""
    table = read_sessions(client, "user_sessions", now=END).table
    n = table.num_rows
    names = pa.array(["tech_enthusiast", "budget_buyer", "other"])
    return (
        table.drop_columns(["clicked_product_ids"])
        .append_column("cluster", pa.array([i % 5 for i in range(n)], pa.int32()))
        .append_column("segment", names.take(pa.array([i % 3 for i in range(n)])))
        .append_column("confidence", pa.array([(i % 97) / 97 for i in range(n)], pa.float32()))
    )


def _raw_read(client: Elasticsearch, documents: int | None) -> None:
    raw = undecoded(client)
    pit = client.open_point_in_time(index="user_sessions", keep_alive="2m")["id"]

    def part(number: int) -> None:
        after, seen = None, 0
        while documents is None or seen < documents:
            answer = raw.search(
                pit={"id": pit, "keep_alive": "2m"},
                size=PAGE_SIZE,
                sort=["_shard_doc"],
                search_after=after,
                slice={"id": number, "max": SLICES},
                track_total_hits=False,
            ).body
            if not isinstance(answer, bytes):
                return
            tail = answer[answer.rfind(b'"sort":[') + 8 :]
            if answer.rfind(b'"sort":[') < 0:
                return
            after, seen = [int(tail[: tail.index(b"]")])], seen + PAGE_SIZE

    with ThreadPoolExecutor(SLICES) as pool:
        for _ in pool.map(part, range(SLICES)):
            pass
    client.close_point_in_time(id=pit)


def _digest(client: Elasticsearch, index: str, more: Sequence[str] = ()) -> tuple[int, str]:
    """Number of documents, and a digest of their users, queries and more, that does not depend on their order."""
    total, n = 0, 0
    fields = ["user_id", "search_query", *more]
    for hit in helpers.scan(client, index=index, size=5000, _source=fields):
        text = "\0".join(str(hit["_source"][name]) for name in fields).encode()
        total = (total + int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")) % 2**64
        n += 1
    return n, f"{total:016x}"


# --- measuring --------------------------------------------------------------------------------------------------------


def _apart(way: Callable[..., Part], *arguments: Any) -> Part:
    """Run a way in a fresh process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_with_peak, (way, arguments))


def _with_peak(way: Callable[..., Part], arguments: tuple[Any, ...]) -> Part:
    watch = _Watch(psutil.Process())
    part = way(*arguments)
    part.peak_mb = part.peak_mb or watch.peak_mb
    return part


class _Watch:
    """Highest resident memory and CPU seconds so far of a process, watched from the side until it ends."""

    def __init__(self, process: psutil.Process) -> None:
        self._process = process
        self.peak_mb = self.cpu = 0.0
        threading.Thread(target=self._follow, daemon=True).start()

    def _follow(self) -> None:
        while True:
            try:
                self.peak_mb = max(self.peak_mb, self._process.memory_info().rss / 1e6)
                self.cpu = _cpu(self._process)
            except psutil.Error:
                return
            time.sleep(0.05)


def _node(url: str) -> psutil.Process:
    port = int(url.rsplit(":", 1)[1])
    for process in psutil.process_iter(["name"]):
        try:
            if any(c.laddr.port == port and c.status == psutil.CONN_LISTEN for c in process.net_connections("tcp")):
                return process
        except psutil.Error:
            continue
    raise SystemExit("the node's process was not found")


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _say(text: str) -> None:
    print(f"[{datetime.now():%H:%M:%S}] {text}", file=sys.stderr, flush=True)


def record(file: Path, sessions: int, queries: int, parts: list[Part]) -> None:
    """Note the results under their size, beside those of other sizes."""
    known = json.loads(file.read_text("utf-8")) if file.exists() else {}
    known[str(sessions)] = {"queries": queries, "parts": [asdict(part) for part in parts]}
    file.write_text(json.dumps(dict(sorted(known.items(), key=lambda item: int(item[0]))), indent=1) + "\n", "utf-8")


def _show(sessions: int, queries: int, parts: list[Part]) -> None:
    print(f"{sessions:,} sessions, {queries:,} distinct queries.\n")
    stages = list(dict.fromkeys(stage for part in parts for stage in part.wall))
    print(f"| way | {' | '.join(stages)} | total s | client CPU s | node CPU s | peak MB | to floor | documents |")
    print("|---" * (len(stages) + 7) + "|")
    base = next((part.total for part in parts if part.name == "floor"), None)
    for part in parts:
        cells = [f"{part.wall[stage]:.2f}" if stage in part.wall else "" for stage in stages]
        ratio = f"{part.total / base:.2f}" if base else ""
        print(
            f"| {part.name} | {' | '.join(cells)} | {part.total:.2f} | {sum(part.cpu.values()):.2f} "
            f"| {part.node_cpu:.2f} | {part.peak_mb:.0f} | {ratio} | {part.documents:,} |"
        )
    by_name = {part.name: part for part in parts}
    if "textbook" in by_name and "core, kmeans" in by_name:
        ratio = by_name["textbook"].total / by_name["core, kmeans"].total
        print(f"\nThe textbook script takes {ratio:.1f} times as long.")
    print(f"Digests of what was written: {', '.join(sorted({part.digest for part in parts}))}.")


if __name__ == "__main__":
    main()
