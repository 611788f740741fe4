"""The verbs of the ``segments`` command.

What belongs here: one short function for each verb. What does not: logic of its own.
"""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from segmentation_assets import __version__
from segmentation_assets.cli import session
from segmentation_assets.cli.export import export_app
from segmentation_assets.cli.models import models_app
from segmentation_assets.cli.options import ConfigOption, DataDirOption, JsonOption
from segmentation_assets.cli.replay import replay
from segmentation_assets.cli.serve import serve_app
from segmentation_assets.cli.services import services_app
from segmentation_assets.cli.stream import stream
from segmentation_assets.cli.taxonomy import taxonomy_app
from segmentation_assets.cli.terminal import answer_in_json, counting, err, out, print_json, say, table
from segmentation_assets.cli.users import explain, kibana, report, rules
from segmentation_assets.errors import SegmentsError
from segmentation_assets.paths import DataDir

app = typer.Typer(
    name="segments",
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # a traceback with locals could show a password
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="""Turn the search sessions a shop keeps in Elasticsearch into user segments.

    Without ELASTICSEARCH_URL everything runs on an embedded, real Elasticsearch on this machine.

    Examples:

      [bold]segments demo[/]                          the whole thing, on generated sessions

      [bold]segments import searches.csv --map search_query=q[/]

      [bold]segments run[/]                           materialize the asset graph

      [bold]segments dev[/]                           the same in the Dagster UI
    """,
)
elasticsearch_app = typer.Typer(no_args_is_help=True, help="The embedded Elasticsearch: start, stop, status, url.")
app.add_typer(elasticsearch_app, name="elasticsearch")
app.add_typer(models_app, name="models")
app.add_typer(taxonomy_app, name="taxonomy")
app.add_typer(export_app, name="export")
app.add_typer(services_app, name="services")
app.add_typer(serve_app, name="serve")
app.command()(report)
app.command()(explain)
app.command()(rules)
app.command()(kibana)
app.command()(stream)
app.command()(replay)

IndexOption = Annotated[
    str | None, typer.Option("--index", help="Index to write to. Default: sessions.index of the settings.")
]


def _version(wanted: bool) -> None:
    if wanted:
        out.print(f"segments {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


@app.command()
def demo(
    sessions: Annotated[
        int, typer.Option(min=1, max=50_000_000, help="Sessions to generate when there are none yet.")
    ] = 1_000,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the generated sessions.")] = 42,
    json: JsonOption = False,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the embedded Elasticsearch running.")] = False,
    data_dir: DataDirOption = None,
    config: ConfigOption = None,
) -> None:
    """Run the main job from nothing: sessions, segments, checks, published.

    Examples:

      [bold]segments demo[/]

      [bold]segments demo --sessions 20000 --seed 7 --data-dir /tmp/try --json[/]
    """
    answer_in_json(json)
    default = DataDir.resolve()  # what a command without --data-dir will use
    data = session.use_data_dir(data_dir, config)
    with session.server(data, keep=keep, run=True):
        if session.is_embedded():
            _seed_if_empty(data, sessions, seed)
        code = _run({"ops": {"raw_sessions": {"config": {"generate_when_empty": False}}}}, json)
        if not json:
            _how_to_open(data, default)
    raise typer.Exit(code)


def _number_of_clusters(value: str | None) -> str | None:
    if value is not None and value != "auto" and not (value.isdecimal() and int(value) >= 2):
        raise typer.BadParameter("a number from 2 on, or 'auto'")
    return value


def _method(value: str | None) -> str | None:
    from segmentation_assets.core.settings import Method

    if value is not None and value not in get_args(Method):
        raise typer.BadParameter(f"one of {', '.join(get_args(Method))}")
    return value


@app.command()
def run(
    k: Annotated[
        str | None,
        typer.Option(
            callback=_number_of_clusters, help="Number of clusters, or 'auto', instead of what the settings say."
        ),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(callback=_method, help="'consensus', 'lsa', 'kmeans', .., instead of what the settings say."),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Seed of the clustering, instead of what the settings say.")
    ] = None,
    full: Annotated[
        bool,
        typer.Option(
            "--full", help="Read all sessions, compare a new model, write all segments; not only what is new."
        ),
    ] = False,
    with_users: Annotated[
        bool,
        typer.Option("--users", help="Go on to users: features, scores, personas, profiles and the report."),
    ] = False,
    json: JsonOption = False,
    data_dir: DataDirOption = None,
    config: ConfigOption = None,
) -> None:
    """Materialize the asset graph on the sessions that are there.

    Only sessions written since the last run are read, and only segments that changed are written, where that gives what
    a full run gives.

    Exit code 0: published. 1: a check stopped it, or something failed; it says what.

    Examples:

      [bold]segments run[/]

      [bold]segments run --users[/]                  and the profile of every user

      [bold]ELASTICSEARCH_URL=https://es:9200 ELASTICSEARCH_API_KEY=... segments run --json[/]
    """
    answer_in_json(json)
    data = session.use_data_dir(data_dir, config)
    wanted = {name: value for name, value in {"k": k, "method": method, "seed": seed}.items() if value is not None}
    with session.server(data, run=True):
        ops = {
            "raw_sessions": {"config": {"generate_when_empty": False, "read_all": full}},
            "tfidf_matrix": {"config": {"method": method} if method else {}},
            "kmeans_model": {"config": {**wanted, **({"refit_share": 0.0} if full else {})}},
            "es_user_segments": {"config": {"write_all": full}},
        }
        raise typer.Exit(_run({"ops": ops}, json, users=with_users))


@app.command()
def check(
    json: JsonOption = False,
    junit: Annotated[Path | None, typer.Option(help="Write a JUnit XML report here.")] = None,
    data_dir: DataDirOption = None,
    config: ConfigOption = None,
) -> None:
    """Evaluate every asset check on what was last materialized; for CI.

    Exit code 0 only if every check of severity ERROR passed, blocking or not.

    Examples:

      [bold]segments run && segments check --junit checks.xml[/]
    """
    answer_in_json(json)
    data = session.use_data_dir(data_dir, config)
    with session.server(data):
        raise typer.Exit(_run(None, json, junit))


@app.command()
def seed(
    sessions: Annotated[int, typer.Option(min=1, max=50_000_000, help="How many sessions.")] = 1_000,
    seed: Annotated[int, typer.Option(min=0, help="Same seed (and end), same sessions.")] = 42,
    end: Annotated[
        datetime | None, typer.Option(formats=["%Y-%m-%d"], help="The day they end before (UTC). Default: today.")
    ] = None,
    behaviour: Annotated[
        bool, typer.Option(help="With events, durations, devices and places; on the embedded node also attributes.")
    ] = True,
    sessions_per_user: Annotated[float | None, typer.Option(min=1, help="Mean. Default: about 4.5.")] = None,
    index: IndexOption = None,
    data_dir: DataDirOption = None,
    config: ConfigOption = None,
) -> None:
    """Generate realistic sessions and write them to the index.

    Examples:

      [bold]segments seed --sessions 100000 --seed 7[/]

      [bold]segments seed --sessions 200000 --sessions-per-user 20[/]     users that show how they behave
    """
    if end is not None and end.replace(tzinfo=UTC) > datetime.now(UTC):
        raise SegmentsError(
            f"--end {end:%Y-%m-%d} is in the future.", "Sessions have happened: name a day up to today."
        )
    data = session.use_data_dir(data_dir, config)
    with session.server(data):
        from segmentation_assets.defs.resources import resolved_resources
        from segmentation_assets.io.seeding import seed_sessions

        elasticsearch, settings, _ = resolved_resources()
        chosen = settings.load()
        target = index or chosen.sessions.index
        with elasticsearch.client() as client, counting(f"writing {target}") as progress:
            summary = seed_sessions(
                client, target, data, sessions=sessions, seed=seed, now=datetime.now(UTC),
                end=end.replace(tzinfo=UTC) if end else None, behaviour=behaviour,
                sessions_per_user=sessions_per_user,
                # Somebody's cluster may have real ones.
                attributes_index=chosen.attributes.index if elasticsearch.embedded else None, on_progress=progress,
            )  # fmt: skip
    out.print(
        f"{target}: {summary.created:,} sessions written, {summary.updated + summary.unchanged:,} were there already.",
        markup=False,
    )
    out.print(f"Which taste and persona was meant lies in {data.truth}.", soft_wrap=True, markup=False)


@app.command("import")
def import_(
    path: Annotated[
        Path, typer.Argument(help="NDJSON, CSV, TSV, Parquet, OpenSearch UBI (bulk NDJSON) or the Excite log; .gz too.")
    ],
    format: Annotated[
        str | None, typer.Option(help="ndjson, csv, tsv, parquet, ubi or excite. Default: found out from the content.")
    ] = None,
    map: Annotated[
        list[str] | None, typer.Option(help="FIELD=COLUMN, e.g. search_query=q. May be given several times.")
    ] = None,
    columns: Annotated[
        str | None, typer.Option(help="Comma-separated names of the columns of a CSV or TSV that has no header.")
    ] = None,
    timestamp_format: Annotated[
        str | None,
        typer.Option(help="epoch_second, epoch_millis, or a pattern such as '%d.%m.%Y %H:%M'. Default: ISO 8601."),
    ] = None,
    index: IndexOption = None,
    json: JsonOption = False,
    data_dir: DataDirOption = None,
    config: ConfigOption = None,
) -> None:
    """Load sessions from a file; what cannot be used is set aside with its reason.

    Importing the same file again changes nothing.

    Examples:

      [bold]segments import sessions.ndjson[/]

      [bold]segments import log.csv --map user_id=customer --map search_query=q --timestamp-format '%Y-%m-%d
      %H:%M:%S'[/]

      [bold]segments import ubi.ndjson[/]             OpenSearch UBI 1.3: queries joined with their events
    """
    from segmentation_assets.cli.importing import import_file

    answer_in_json(json)
    data = session.use_data_dir(data_dir, config)
    with session.server(data):
        names = [name.strip() for name in columns.split(",")] if columns else None
        import_file(path, format, map or [], names, timestamp_format, index, json)


@app.command()
def rejected(
    forget: Annotated[bool, typer.Option("--forget", help="Delete them, so that they no longer count.")] = False,
    source: Annotated[str | None, typer.Option(help="Only those of this source, as the list names it.")] = None,
    index: IndexOption = None,
    data_dir: DataDirOption = None,
    config: ConfigOption = None,
) -> None:
    """Show what imports have set aside, by source and reason; with --forget delete it.

    Examples:

      [bold]segments rejected[/]

      [bold]segments rejected --forget --source /data/wrong.csv[/]
    """
    data = session.use_data_dir(data_dir, config)
    with session.server(data):
        from segmentation_assets.defs.resources import resolved_resources
        from segmentation_assets.io.session_store import forget_rejected, rejected_sources

        elasticsearch, settings, _ = resolved_resources()
        target = index or settings.load().sessions.index
        with elasticsearch.client() as client:
            if forget:
                out.print(
                    f"Forgot {forget_rejected(client, target, source):,} rejected records of {target}.", markup=False
                )
                return
            found = [entry for entry in rejected_sources(client, target) if source in (None, entry.source)]
    rows = [
        [entry.source, f"{sum(entry.rejected.values()):,}", ", ".join(f"{r} {n:,}" for r, n in entry.rejected.items())]
        for entry in found
    ]
    out.print(table(f"Set aside by imports into {target}", ["source", "records", "reasons"], rows, numeric=["records"]))


@app.command()
def dev(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the Dagster UI.")] = 3000,
    host: Annotated[str, typer.Option(help="Address the UI listens on.")] = "127.0.0.1",
    data_dir: DataDirOption = None,
    config: ConfigOption = None,
) -> None:
    """Open the Dagster UI on the same data.

    Examples:

      [bold]segments dev[/]

      [bold]segments dev --port 3100 --data-dir /tmp/try[/]
    """
    from segmentation_assets.cli.dev import serve

    data = session.use_data_dir(data_dir, config)
    with session.server(data):
        raise typer.Exit(serve(data, host, port))


@app.command()
def rollback(
    to: Annotated[str | None, typer.Option(help="Index to go back to. Default: the one published before.")] = None,
    profiles: Annotated[bool, typer.Option("--profiles", help="Of user profiles, instead of segments.")] = False,
    data_dir: DataDirOption = None,
    config: ConfigOption = None,
) -> None:
    """Point readers at segments, or profiles, published earlier.

    Examples:

      [bold]segments rollback[/]

      [bold]segments rollback --profiles[/]
    """
    data = session.use_data_dir(data_dir, config)
    with session.server(data):
        from segmentation_assets.defs.resources import resolved_resources
        from segmentation_assets.io.models import mark_serving
        from segmentation_assets.io.profile_store import mark_served
        from segmentation_assets.io.publishing import rollback as go_back

        elasticsearch, settings, storage = resolved_resources()
        with elasticsearch.client() as client:
            chosen = settings.load()
            state = go_back(client, chosen.profiles.alias if profiles else chosen.publish.alias, to)
        # The next model takes its cluster ids from it, and is compared with what it published.
        version = str(state.meta.get("model_version"))
        if profiles:
            mark_served(storage.store, version)
        else:
            mark_serving(storage.store, version, str(state.meta.get("run_id")))
    out.print(f"{state.alias} now leads to {state.index} ({state.documents:,} documents).", soft_wrap=True)


@app.command()
def doctor(json: JsonOption = False, data_dir: DataDirOption = None, config: ConfigOption = None) -> None:
    """Look at versions, server, credentials, indices, disk and memory: a verdict and a cure for each.

    Exit code 1 if something is wrong.

    Examples:

      [bold]segments doctor[/]
    """
    from segmentation_assets.cli.doctor import examine

    answer_in_json(json)
    raise typer.Exit(examine(session.use_data_dir(data_dir, config), json))


@app.command()
def evaluate(
    files: Annotated[list[Path], typer.Argument(help="Labelled texts: label, tab, text on each line; no header.")],
    method: Annotated[list[str] | None, typer.Option(help="May be given several times. Default: every method.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds of the clustering: 0, 1, ..")] = 5,
    k: Annotated[int | None, typer.Option(min=2, help="Number of clusters. Default: that of the labels.")] = None,
    users: Annotated[bool, typer.Option("--users", help="Also users composed from the texts.")] = False,
    json: Annotated[bool, typer.Option("--json", help="One JSON list on stdout, nothing else.")] = False,
) -> None:
    """Measure the methods on texts whose classes are known. Needs no Elasticsearch.

    Examples:

      [bold]segments evaluate snips7.tsv[/]

      [bold]segments evaluate a.tsv b.tsv --method kmeans --users --json[/]
    """
    from segmentation_assets.cli.evaluate import evaluate as measure

    answer_in_json(json)
    measure(files, method or [], seeds=seeds, k=k, users=users, as_json=json)


@elasticsearch_app.command()
def start(data_dir: DataDirOption = None) -> None:
    """Start the embedded Elasticsearch and leave it running until `segments elasticsearch stop`.

    Examples:

      [bold]segments elasticsearch start[/]
    """
    node = _node(data_dir)
    lease = node.acquire(keep=True, on_progress=say)
    lease.release()
    out.print(f"Elasticsearch {lease.version} runs at {lease.url}", soft_wrap=True)


@elasticsearch_app.command()
def stop(data_dir: DataDirOption = None) -> None:
    """Stop the embedded Elasticsearch, whoever started it.

    Examples:

      [bold]segments elasticsearch stop[/]
    """
    out.print("Stopped." if _node(data_dir).stop() else "It was not running.")


@elasticsearch_app.command()
def status(json: JsonOption = False, data_dir: DataDirOption = None) -> None:
    """Say whether the embedded Elasticsearch runs, and where. Exit code 3 if it does not.

    Examples:

      [bold]segments elasticsearch status --json[/]
    """
    from dataclasses import asdict

    answer_in_json(json)
    found = _node(data_dir).status()
    if json:
        print_json(asdict(found))
    else:
        for name, value in asdict(found).items():
            if value is not None:
                out.print(f"{name}: {value}", soft_wrap=True, markup=False)
    raise typer.Exit(0 if found.state == "running" else 3)


@elasticsearch_app.command()
def url(data_dir: DataDirOption = None) -> None:
    """Print the address of the running embedded Elasticsearch.

    Examples:

      [bold]curl $(segments elasticsearch url)/_cat/indices[/]
    """
    found = _node(data_dir).url()
    if found is None:
        raise SegmentsError(
            "The embedded Elasticsearch is not running.", "Start it with `segments elasticsearch start`."
        )
    out.print(found, soft_wrap=True)


def _node(data_dir: Path | None):  # type: ignore[no-untyped-def]  # imported late
    from segmentation_assets.local.elasticsearch import EmbeddedElasticsearch

    return EmbeddedElasticsearch(session.use_data_dir(data_dir))


def _seed_if_empty(data: DataDir, sessions: int, seed: int) -> None:
    from segmentation_assets.defs.resources import resolved_resources
    from segmentation_assets.io.seeding import seed_when_empty

    elasticsearch, settings, _ = resolved_resources()
    chosen = settings.load()
    index, attributes = chosen.sessions.index, chosen.attributes.index if elasticsearch.embedded else None
    with elasticsearch.client() as client:
        written = seed_when_empty(client, index, data, datetime.now(UTC), sessions, seed, attributes_index=attributes)
    say(
        f"Generated {written:,} sessions into {index} (seed {seed})."
        if written
        else f"Using the sessions that are in {index}; none were generated."
    )


def _run(run_config: dict[str, Any] | None, as_json: bool, junit: Path | None = None, *, users: bool = False) -> int:
    """Run the graph, or only its checks where ``run_config`` is None; returns the exit code."""
    from segmentation_assets.cli import report, runs
    from segmentation_assets.defs.resources import resolved_resources

    elasticsearch, settings, storage = resolved_resources()
    alias = settings.load().publish.alias  # a mistake in the settings file is said before anything runs
    settings.taxonomy()
    if users:
        settings.rules()
        settings.persona_names()
    with runs.instance() as instance:
        if run_config is None:
            storage.store.require(runs.ASSETS[0])
            stored = [asset for asset in runs.ASSETS + runs.USER_ASSETS if storage.store.path(asset).exists()]
            done = runs.evaluate_checks(instance, stored)
        else:
            done = runs.materialize(run_config, instance, users=users)
    with elasticsearch.client() as client:
        result = report.collect(
            done, storage.store, client, alias, elasticsearch.embedded, checks_only=run_config is None
        )
    if junit is not None:
        report.write_junit(junit, done)
    if as_json:
        print_json(result)
    else:
        report.show(result)
    failed = not done.success or done.failed_errors
    if failed:
        report.show_failure(result)
    return 1 if failed else 0


def _how_to_open(data: DataDir, default: DataDir) -> None:
    import shlex

    option = "" if data == default else f" --data-dir {shlex.quote(str(data.root))}"
    err.print(f"Open the Dagster UI on it: segments dev{option}", soft_wrap=True, markup=False)
