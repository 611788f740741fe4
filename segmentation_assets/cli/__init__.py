"""The ``segments`` command.

What belongs here: words on the command line, and what the terminal shows. What does not: any work that a run in the
Dagster
UI would need as well. Heavy imports stay inside the commands, so that ``segments --help`` is quick.
"""

import sys


def main() -> None:
    """Run the command line; a user's mistake is one error with its cure, never a traceback."""
    from segmentation_assets.cli.app import app
    from segmentation_assets.cli.terminal import report_error
    from segmentation_assets.errors import SegmentsError

    try:
        app()
    except SegmentsError as error:
        report_error(error)
        sys.exit(1)
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)  # noqa: T201
        sys.exit(130)
