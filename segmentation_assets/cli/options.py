"""Options that several groups of verbs share.

What belongs here: their names and help. What does not: verbs.
"""

from pathlib import Path
from typing import Annotated

import typer

DataDirOption = Annotated[
    Path | None,
    typer.Option(
        "--data-dir", help="Folder for everything kept on this machine. Default: $SEGMENTS_HOME, else your data folder."
    ),
]
ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config", help="Settings file (YAML). Default: $SEGMENTS_CONFIG, else segments.yaml in the data folder."
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object on stdout, nothing else.")]
