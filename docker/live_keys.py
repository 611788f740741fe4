"""One-shot of the profile "live": the key that Prometheus asks the API with.

What belongs here: that one key. What does not: those of people and programs, which ``segments serve new-key`` makes and
which stay as they are (docs/deployment.md). A key that is there and known is kept. Prints no secret.
"""

import os
import sys
from pathlib import Path

import yaml

from segmentation_assets.serving.keys import ApiKeys, new_key

NAME = "prometheus"


def main() -> None:
    """Leave the key's entry in the file of keys, and the key where Prometheus alone reads it."""
    entries, secret = Path(os.environ["SEGMENTS_API_KEYS"]), Path(os.environ["METRICS_KEY"])
    if entries.exists() and secret.exists() and ApiKeys.load(entries).owner(secret.read_text(encoding="utf-8")):
        sys.stdout.write("The key of Prometheus is kept.\n")
        return
    made = new_key(NAME, ["metrics"])
    known = yaml.safe_load(entries.read_text(encoding="utf-8")) if entries.exists() else None
    others = [entry for entry in known or [] if entry["name"] != NAME]
    # The key first: without its entry it opens nothing, and the next start makes another.
    _write(secret, made.key, 0o640)
    _write(entries, yaml.safe_dump([*others, *yaml.safe_load(made.entry)], sort_keys=False, allow_unicode=True), 0o600)
    sys.stdout.write("The key of Prometheus is made.\n")


def _write(path: Path, text: str, mode: int) -> None:
    """The whole file or the one before."""
    beside = path.with_name(path.name + ".new")
    beside.unlink(missing_ok=True)
    with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w", encoding="utf-8") as file:
        file.write(text)
    beside.replace(path)


if __name__ == "__main__":
    main()
