"""Where things lie on this machine: one place that knows the layout of the data and cache folders.

What belongs here: folder names. What does not: reading or writing what lies in them.
"""

import os
from dataclasses import dataclass
from pathlib import Path

import platformdirs

APP = "segmentation-assets"
HOME_VARIABLE = "SEGMENTS_HOME"


@dataclass(frozen=True)
class DataDir:
    """The folder that holds everything one installation keeps between runs."""

    root: Path

    @classmethod
    def resolve(cls, root: str | Path | None = None) -> "DataDir":
        """Use ``root``, else ``$SEGMENTS_HOME``, else the user's data folder. Read when called, never at import."""
        chosen = root or os.environ.get(HOME_VARIABLE) or platformdirs.user_data_dir(APP, appauthor=False)
        return cls(Path(chosen).expanduser().absolute())

    @property
    def elasticsearch(self) -> Path:
        """Home, data, logs and state of the embedded Elasticsearch node."""
        return self.root / "elasticsearch"

    @property
    def dagster(self) -> Path:
        """DAGSTER_HOME of the ``segments`` command."""
        return self.root / "dagster"

    @property
    def storage(self) -> Path:
        """What the assets store between steps: Parquet, npz, JSON."""
        return self.root / "storage"

    @property
    def reports(self) -> Path:
        """Pages for people."""
        return self.root / "reports"

    @property
    def answers(self) -> Path:
        """What others answered about users, to be asked less often."""
        return self.root / "answers.sqlite"

    @property
    def truth(self) -> Path:
        """Ground truth of generated sessions (never in the index)."""
        return self.root / "truth"


def cache_dir() -> Path:
    """The user's cache folder: downloads that can be fetched again."""
    return Path(platformdirs.user_cache_dir(APP, appauthor=False)).absolute()
