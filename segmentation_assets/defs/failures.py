"""What made a step fail, out of what Dagster recorded.

What belongs here: finding the cause that a person has to know. What does not: telling anybody.
"""

import re
from typing import Any


def cause_of(error: Any) -> str:
    """The message of the exception that an asset or resource raised, without the wrappers that Dagster puts around it.

    What that exception was itself raised from is left out: our errors explain it (``ClusterUnreachable`` instead of the
    ``ConnectionRefusedError`` at the very bottom).

    Args:
        error: a ``SerializableErrorInfo``, or None.
    """
    while error is not None and error.cause is not None and (error.cls_name or "").startswith("Dagster"):
        error = error.cause
    text = error.message.strip() if error is not None else "no error was recorded"
    return re.sub(r"^(?:[a-z_]\w*\.)+(?=[A-Z]\w*: )", "", text)
