"""What the terminal shows: progress on stderr, results on stdout.

What belongs here: consoles, tables, errors. What does not: knowing what to show (report).
"""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from segmentation_assets.errors import SegmentsError

err = Console(stderr=True, highlight=False)
out = Console(highlight=False)

_as_json = False


def answer_in_json(wanted: bool) -> None:
    """Say that stdout belongs to one JSON object; an error then becomes that object."""
    global _as_json
    _as_json = wanted


def print_json(value: Any) -> None:
    """Write one object to stdout."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False, indent=2, default=str) + "\n")


def report_error(error: SegmentsError) -> None:
    """Show a problem and its cure."""
    err.print(f"[bold red]Error:[/] {escape(_printable(error.problem))}", soft_wrap=True)
    if error.cure:
        err.print(f"[bold]What to do:[/] {escape(_printable(error.cure))}", soft_wrap=True)
    if _as_json:
        print_json({"error": {"type": type(error).__name__, "problem": error.problem, "cure": error.cure}})


def say(text: str) -> None:
    """A line of progress."""
    err.print(escape(_printable(text)), style="dim", soft_wrap=True)


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]], numeric: Sequence[str] = ()) -> Table:
    """A table; nothing in it is read as markup, for queries come from strangers."""
    result = Table(title=title, title_justify="left", title_style="bold", header_style="bold")
    for column in columns:
        # names and numbers stay whole; the last columns hold the prose that may wrap
        whole = column in numeric or column in columns[:2]
        result.add_column(column, justify="right" if column in numeric else "left", overflow="fold", no_wrap=whole)
    for row in rows:
        result.add_row(*(escape(_printable(str(cell))) for cell in row))
    return result


def _printable(text: str) -> str:
    """Control characters in somebody's query must not reach the terminal."""
    return "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text)


@contextmanager
def counting(what: str) -> Iterator[Callable[[int, int | None], None]]:
    """A bar for a known total, a running count for an unknown one; with rate and remaining time."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=err, transient=True) as progress:
        task = progress.add_task(what, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)
