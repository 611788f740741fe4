"""``segments services``: the servers that run on this machine.

What belongs here: what is shown about them. What does not: how they are run (``local``).
"""

import shlex
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from segmentation_assets.cli import session
from segmentation_assets.cli.options import DataDirOption, JsonOption
from segmentation_assets.cli.terminal import answer_in_json, err, out, print_json, say, table
from segmentation_assets.errors import SegmentsError

if TYPE_CHECKING:
    from segmentation_assets.local.service import LocalService, ServiceStatus

services_app = typer.Typer(
    no_args_is_help=True, help="Kafka, Redis, MQTT and Elasticsearch on this machine: start, stop, status."
)
_COLUMNS = ["service", "state", "address", "pid", "MB", "log"]

NamesArgument = Annotated[
    list[str] | None, typer.Argument(metavar="[kafka] [redis] [mqtt] [elasticsearch]", show_default=False)
]


@services_app.command()
def start(names: NamesArgument = None, json: JsonOption = False, data_dir: DataDirOption = None) -> None:
    """Start servers and leave them running until `segments services stop`. Without names: kafka, redis, elasticsearch.

    They listen on 127.0.0.1 only, and keep what they hold in the data folder. On stdout, unless --json is given: the
    variables that lead other programs to them.

    Examples:

      [bold]segments services start[/]

      [bold]segments services start kafka redis mqtt[/]

      [bold]eval "$(segments services start)"[/]         and set the variables in this shell
    """
    from segmentation_assets.local.services import DEFAULT

    answer_in_json(json)
    services = _chosen(names or DEFAULT, data_dir)
    running = [service.start(say) for service in services]
    found = [service.status() for service in services]
    variables = {service.variable: one.url for service, one in zip(services, running, strict=True) if service.variable}
    if json:
        print_json({"services": _as_records(found), "environment": variables})
        return
    _show(found, to_stderr=True)
    for variable, url in variables.items():
        out.print(f"export {variable}={shlex.quote(url)}", soft_wrap=True, markup=False)


@services_app.command()
def stop(names: NamesArgument = None, json: JsonOption = False, data_dir: DataDirOption = None) -> None:
    """Stop servers, whoever started them. Without names: all. What they hold stays for the next start.

    Examples:

      [bold]segments services stop[/]
    """
    answer_in_json(json)
    services = _chosen(names, data_dir)
    ran = {service.name: service.stop() for service in services}
    if json:
        print_json({"stopped": ran})
        return
    rows = [[name, "stopped" if was else "was not running"] for name, was in ran.items()]
    out.print(table("Services", ["service", "result"], rows))


@services_app.command()
def status(names: NamesArgument = None, json: JsonOption = False, data_dir: DataDirOption = None) -> None:
    """Say which servers run, and where; of one that was killed, how its log ends.

    Exit code 3 if one of those named does not run; without names, if none runs or one was killed.

    Examples:

      [bold]segments services status[/]

      [bold]segments services status kafka --json[/]
    """
    answer_in_json(json)
    found = [service.status() for service in _chosen(names, data_dir)]
    if json:
        print_json({"services": _as_records(found)})
    else:
        _show(found)
        for one in found:
            if one.state == "dead":
                err.print(f"{one.name} was killed. The end of its log, {one.log}:", soft_wrap=True, markup=False)
                for line in one.log_tail:
                    say(f"  {line}")
    states = [one.state for one in found]
    well = all(state == "running" for state in states) if names else "running" in states and "dead" not in states
    raise typer.Exit(0 if well else 3)


def _chosen(names: Sequence[str] | None, data_dir: Path | None) -> "list[LocalService]":
    """The services of these names, each once; all when there are none."""
    from segmentation_assets.local.services import ALL

    for name in names or ():
        if name not in ALL:
            raise SegmentsError(f"There is no service {name!r}.", f"Name some of {', '.join(ALL)}.")
    data = session.use_data_dir(data_dir)
    return [ALL[name](data) for name in dict.fromkeys(names or ALL)]


def _as_records(found: "list[ServiceStatus]") -> list[dict[str, object]]:
    return [asdict(one) for one in found]


def _show(found: "list[ServiceStatus]", *, to_stderr: bool = False) -> None:
    rows = [
        [
            one.name,
            one.state,
            one.address or "",
            one.pid or "",
            f"{one.resident_bytes / 1e6:.0f}" if one.resident_bytes else "",
            one.log,
        ]
        for one in found
    ]
    (err if to_stderr else out).print(table("Services", _COLUMNS, rows, numeric=["pid", "MB"]))
