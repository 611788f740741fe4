"""How much memory the embedded Elasticsearch's Java heap gets.

What belongs here: the rule and its override. What does not: starting anything.
"""

import os
import re
from pathlib import Path

import psutil

from segmentation_assets.errors import SegmentsError

HEAP_VARIABLE = "SEGMENTS_ELASTICSEARCH_HEAP"
_MEBIBYTE = 1024 * 1024
_SMALLEST, _LARGEST = 512, 2048  # MB, when chosen for the machine
_LEAST = 128  # MB; with less the node does not come up
_CONTAINER_LIMIT = Path("/sys/fs/cgroup/memory.max")


def heap_megabytes() -> int:
    """``$SEGMENTS_ELASTICSEARCH_HEAP``, else an eighth of the memory, at least 512 MB and at most 2 GB."""
    wanted = os.environ.get(HEAP_VARIABLE, "").strip()
    return parse_heap(wanted) if wanted else heap_for(_memory_bytes())


def heap_for(memory_bytes: int) -> int:
    """The heap, in MB, on a machine with ``memory_bytes``."""
    return min(max(memory_bytes // 8 // _MEBIBYTE, _SMALLEST), _LARGEST)


def parse_heap(text: str) -> int:
    """Read ``1g`` or ``768m`` as MB."""
    match = re.fullmatch(r"(\d{1,6})\s*([mg])b?", text.strip().lower())
    megabytes = int(match[1]) * (1024 if match[2] == "g" else 1) if match else 0
    if megabytes < _LEAST:
        raise SegmentsError(
            f"{HEAP_VARIABLE} is {text!r}, which is not a heap size of at least {_LEAST} MB.",
            "Write it like 1g or 768m.",
        )
    machine = psutil.virtual_memory().total // _MEBIBYTE
    if megabytes > machine:
        raise SegmentsError(
            f"{HEAP_VARIABLE} is {text!r}, but this machine has {machine} MB of memory.", "Choose a smaller heap."
        )
    return megabytes


def _memory_bytes() -> int:
    """What this process may use: the container's limit counts when it is lower than the machine's memory."""
    machine: int = psutil.virtual_memory().total
    try:
        return min(machine, int(_CONTAINER_LIMIT.read_text()))
    except (OSError, ValueError):  # no cgroup v2, or "max"
        return machine
