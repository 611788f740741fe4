"""``segments serve`` as a process: it answers, ends at SIGTERM with its streams, and refuses what is not safe."""

import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import httpx
import pytest
import yaml

COMMAND = [sys.executable, "-c", "from typer import Typer; from segmentation_assets.cli.serve import serve_app; "
           "app = Typer(); app.add_typer(serve_app, name='serve'); app()", "serve"]  # fmt: skip


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments], env=os.environ | environment, capture_output=True, text=True, timeout=120
    )


def test_it_serves_until_it_is_told_to_stop_and_then_ends_its_streams(tmp_path: Path, redis_url: str) -> None:
    process = subprocess.Popen(
        [*COMMAND, "--port", "0", "--data-dir", str(tmp_path / "data")],
        env=os.environ | {"SEGMENTS_REDIS_URL": redis_url},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        said = []
        for line in process.stderr:
            said.append(line)
            found = re.search(r"(http://127\.0\.0\.1:\d+)/live", line)
            if found:
                break
        url = found[1]
        rest = []
        drain = threading.Thread(target=lambda: rest.extend(process.stderr))
        drain.start()
        transport = httpx.HTTPTransport(retries=20)
        with httpx.Client(transport=transport) as client:
            assert client.get(f"{url}/health/live").json() == {"status": "live"}
            assert client.get(f"{url}/v1/segments?token=secret-in-the-query").status_code == 200
            with client.stream("GET", f"{url}/v1/changes/stream") as answer:
                lines = answer.iter_lines()
                assert next(lines).startswith("retry")
                process.send_signal(signal.SIGTERM)
                list(lines)
        assert process.wait(60) == 0
        drain.join(30)
        assert any("GET /v1/segments 200" in line for line in rest)
        assert "secret-in-the-query" not in "".join(said + rest)
    finally:
        process.kill()
        process.wait()


def test_without_keys_it_does_not_listen_to_others(tmp_path: Path, redis_url: str) -> None:
    done = run("--host", "0.0.0.0", "--data-dir", str(tmp_path), SEGMENTS_REDIS_URL=redis_url)
    assert done.returncode != 0
    assert "Without API keys" in done.stderr


def test_without_a_store_it_says_what_to_start(tmp_path: Path) -> None:
    done = run("--data-dir", str(tmp_path))
    assert done.returncode != 0
    assert "segments services start redis" in " ".join(done.stderr.split())


@pytest.mark.parametrize("address", ["http://user:secret@127.0.0.1:1", "redis://:secret@127.0.0.1:1/0"])
def test_an_address_that_cannot_be_used_is_said_without_its_password(tmp_path: Path, address: str) -> None:
    done = run("--port", "0", "--data-dir", str(tmp_path), SEGMENTS_REDIS_URL=address)
    assert done.returncode != 0
    assert "secret" not in done.stderr + done.stdout


def test_the_entry_of_a_new_key_goes_to_stdout_and_the_key_does_not() -> None:
    done = run("new-key", "--name", "shop", "--scope", "read", "--scope", "stream")
    assert done.returncode == 0
    (entry,) = yaml.safe_load(done.stdout)
    assert (entry["name"], entry["scopes"]) == ("shop", ["read", "stream"])
    key = re.search(r"seg_\S+", done.stderr)[0]
    assert key not in done.stdout
    refused = run("new-key", "--name", "shop", "--scope", "write")
    assert refused.returncode != 0
