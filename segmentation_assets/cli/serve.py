"""``segments serve``: the API, and keys for it.

What belongs here: from options and environment to a store, keys and a port. What does not: the API (serving).
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from segmentation_assets.cli import session
from segmentation_assets.cli.options import ConfigOption, DataDirOption, JsonOption
from segmentation_assets.cli.terminal import answer_in_json, err, out, print_json, say
from segmentation_assets.errors import MissingExtraError, SegmentsError
from segmentation_assets.paths import DataDir

if TYPE_CHECKING:
    from elasticsearch import Elasticsearch

    from segmentation_assets.io.live_store import StateStore

KEYS_VARIABLE = "SEGMENTS_API_KEYS"

serve_app = typer.Typer(
    invoke_without_command=True, help="The API: segments and profiles of users over HTTP, while they change."
)


@serve_app.callback()
def serve(
    context: typer.Context,
    host: Annotated[
        str, typer.Option(help="Address to listen on. Others than this machine's need keys.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0: any free one.")] = 8080,
    keys: Annotated[
        Path | None, typer.Option(help=f"File of API keys. Default: ${KEYS_VARIABLE}; else only this machine may ask.")
    ] = None,
    data_dir: DataDirOption = None,
    config: ConfigOption = None,
) -> None:
    """Serve segments and profiles from the stream's state (SEGMENTS_REDIS_URL, else the Redis of this data folder).

    The page /live shows the stream; /v1/openapi.json describes the API. Ends at SIGTERM or Ctrl-C.

    Examples:

      [bold]segments serve[/]                                              http://127.0.0.1:8080/live

      [bold]segments serve new-key --name shop --scope read >> keys.yaml[/]

      [bold]segments serve --host 0.0.0.0 --keys keys.yaml[/]
    """
    if context.invoked_subcommand is not None:
        return
    data = session.use_data_dir(data_dir, config)
    _require_extra()
    import logging

    from segmentation_assets.defs.resources import resolved_resources
    from segmentation_assets.io.live_store import open_store
    from segmentation_assets.serving.app import create_app
    from segmentation_assets.serving.keys import ApiKeys
    from segmentation_assets.serving.profiles import ProfileReader
    from segmentation_assets.serving.run import require_safe
    from segmentation_assets.serving.run import serve as listen
    from segmentation_assets.streaming.addresses import REDIS, address_of, namespace_of

    known = ApiKeys.load(_key_file(keys))
    require_safe(host, known.required)
    settings = resolved_resources()[1].load()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    if not known.required:
        say("No API keys: only programs on this machine are answered. Others: segments serve new-key --help")
    url = address_of(REDIS, data, os.environ)
    try:
        store: StateStore = open_store(url, namespace_of(os.environ))
    except ValueError as error:
        raise SegmentsError(f"{REDIS} cannot be used: {error}.", "Write it as redis://host:6379/0.") from None
    client = _elasticsearch(data) if settings.serve.fallback else None
    try:
        reader = None if client is None else ProfileReader(client, settings.profiles.alias)
        app = create_app(store, settings.serve, settings.stream, known, reader)
        listen(app, host, port, lambda url: say(f"{url}/live   (Ctrl-C ends it)"))
    finally:
        store.close()
        if client is not None:
            client.close()


@serve_app.command("new-key")
def new_key(
    name: Annotated[str, typer.Option(help="Whose it is. Limits count by name.")],
    scope: Annotated[list[str], typer.Option(help="read, assign, stream or metrics. May be given several times.")],
    json: JsonOption = False,
) -> None:
    """Make an API key. The key is shown this once, on stderr; its entry goes to stdout, for the file of keys.

    Examples:

      [bold]segments serve new-key --name shop --scope read --scope stream >> keys.yaml[/]
    """
    answer_in_json(json)
    _require_extra()
    from segmentation_assets.serving.keys import SCOPES
    from segmentation_assets.serving.keys import new_key as make

    chosen = [known for known in SCOPES if known in scope]
    if len(chosen) < len(set(scope)):
        raise typer.BadParameter(f"one of {', '.join(SCOPES)}", param_hint="--scope")
    made = make(name, chosen)
    if json:
        print_json({"name": name, "scopes": chosen, "key": made.key, "entry": made.entry})
        return
    err.print(f"The key, which is shown only now: {made.key}", soft_wrap=True, markup=False)
    out.print(made.entry, soft_wrap=True, markup=False, end="")


def _require_extra() -> None:
    from importlib.util import find_spec

    if any(find_spec(name) is None for name in ("fastapi", "uvicorn")):
        raise MissingExtraError("segments serve", "serve")


def _key_file(asked: Path | None) -> Path | None:
    named = asked or os.environ.get(KEYS_VARIABLE)
    return Path(named).expanduser() if named else None


def _elasticsearch(data: DataDir) -> "Elasticsearch | None":
    """A client, not yet connected: the API works without. None where no cluster is named and no node runs here."""
    from segmentation_assets.defs.resources import resolved_resources
    from segmentation_assets.io.elasticsearch import Connection, open_client

    if not session.is_embedded():
        return open_client(resolved_resources()[0].connection())
    from segmentation_assets.local.elasticsearch import EmbeddedElasticsearch

    url = EmbeddedElasticsearch(data).url()
    return None if url is None else open_client(Connection((url,)))
