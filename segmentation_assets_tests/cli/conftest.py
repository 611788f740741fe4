"""The ``segments`` command as its users run it: another process, another data folder, a real node.

What belongs here: fixtures for tests of cli. What does not: tests.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from elasticsearch import Elasticsearch

from segmentation_assets.cli import main, terminal
from segmentation_assets.local.elasticsearch import EmbeddedElasticsearch
from segmentation_assets.paths import HOME_VARIABLE, DataDir


class Segments:
    """The command on one data folder."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self.data = DataDir(folder)
        self.environment = environment

    def start(self, *arguments: str | Path, **options: Any) -> subprocess.Popen[str]:
        """Start a command and leave it running, in a session of its own, as a terminal would."""
        environment = {k: v for k, v in os.environ.items() if k not in (HOME_VARIABLE, "COLUMNS")}
        return subprocess.Popen(
            [sys.executable, "-m", "segmentation_assets", *map(str, arguments)],
            env={**environment, HOME_VARIABLE: str(self.data.root), "COLUMNS": "200", **self.environment},
            stdin=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
            **options,
        )

    def __call__(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """Run a command to its end. Whatever happens, nobody may see a traceback."""
        process = self.start(*arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            out, err = process.communicate(timeout=200)
        except BaseException:
            process.kill()
            raise
        assert "Traceback" not in out + err, out + err
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def at_once(self, capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """The same within this process, where nothing has to be imported anew. What is not an exit is a traceback."""
        with pytest.MonkeyPatch.context() as patch:
            for name in ("DAGSTER_HOME", "SEGMENTS_CONFIG"):
                patch.setenv(name, "")  # remembered, and put back
                patch.delenv(name)
            for name, value in {HOME_VARIABLE: str(self.data.root), "COLUMNS": "200", **self.environment}.items():
                patch.setenv(name, value)
            patch.setattr(sys, "argv", ["segments", *map(str, arguments)])
            patch.setattr(terminal, "_as_json", False)
            for console in (terminal.out, terminal.err):  # they keep the width of the moment they were made
                patch.setattr(console, "_width", None)
            capsys.readouterr()
            with pytest.raises(SystemExit) as exited:
                main()
            out, err = capsys.readouterr()
        return subprocess.CompletedProcess(list(map(str, arguments)), int(exited.value.code or 0), out, err)

    def ok(self, *arguments: str | Path) -> str:
        """Run a command that must succeed; gives stdout."""
        done = self(*arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def json(self, *arguments: str | Path, code: int = 0) -> Any:
        """Run a command with --json: stdout is one object and nothing else."""
        done = self(*arguments, "--json")
        assert done.returncode == code, done.stdout + done.stderr
        return json.loads(done.stdout)

    def processes(self) -> list[psutil.Process]:
        """All processes that work on this data folder, whoever started them."""
        found = []
        for process in psutil.process_iter():
            try:
                ours = process.environ().get(HOME_VARIABLE) == str(self.data.root)
                if ours and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def end(self) -> None:
        """Kill whatever still works on this data folder."""
        for process in self.processes():
            process.kill()


@pytest.fixture(scope="session")
def segments_at() -> type[Segments]:
    """Makes the command on a data folder; whoever uses it calls ``end`` afterwards."""
    return Segments


@pytest.fixture
def segments(tmp_path: Path) -> Iterator[Segments]:
    """The command on an empty data folder."""
    command = Segments(tmp_path / "data")
    yield command
    command.end()


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Segments, subprocess.CompletedProcess[str]]]:
    """`segments demo --json --keep` and its result: one data folder and node for the tests of a module."""
    command = Segments(tmp_path_factory.mktemp("demo") / "data")
    done = command("demo", "--json", "--keep")
    yield command, done
    command.end()


@pytest.fixture
def shop(demo: tuple[Segments, subprocess.CompletedProcess[str]]) -> Segments:
    """The command on the data folder of the demo, its node running."""
    return demo[0]


@pytest.fixture
def client(shop: Segments) -> Iterator[Elasticsearch]:
    """A client on the demo's node."""
    url = EmbeddedElasticsearch(shop.data).url()
    assert url is not None
    with Elasticsearch(url, request_timeout=60) as opened:
        yield opened


@pytest.fixture
def elsewhere(shop: Segments, tmp_path: Path) -> Segments:
    """The command on an empty data folder and the demo's node by its URL, as if it were somebody's cluster."""
    url = EmbeddedElasticsearch(shop.data).url()
    return Segments(tmp_path / "elsewhere", ELASTICSEARCH_URL=str(url))
