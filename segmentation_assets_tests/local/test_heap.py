"""The heap fits the machine, and can be overridden."""

import pytest

from segmentation_assets.errors import SegmentsError
from segmentation_assets.local import heap

GIGABYTE = 1024**3


@pytest.mark.parametrize(
    ("memory", "megabytes"), [(1, 512), (2, 512), (4, 512), (8, 1024), (12, 1536), (16, 2048), (256, 2048)]
)
def test_an_eighth_of_the_memory_within_512_mb_and_2_gb(memory: int, megabytes: int) -> None:
    assert heap.heap_for(memory * GIGABYTE) == megabytes


def test_a_container_limit_counts(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    limit = tmp_path / "memory.max"
    limit.write_text(f"{6 * GIGABYTE}\n")
    monkeypatch.setattr(heap, "_CONTAINER_LIMIT", limit)
    monkeypatch.setattr(heap.psutil, "virtual_memory", lambda: type("Memory", (), {"total": 64 * GIGABYTE}))
    assert heap.heap_megabytes() == 768
    limit.write_text("max\n")
    assert heap.heap_megabytes() == 2048


@pytest.mark.parametrize(("text", "megabytes"), [("1g", 1024), ("768m", 768), (" 512M ", 512), ("1GB", 1024)])
def test_the_variable_overrides(text: str, megabytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(heap.HEAP_VARIABLE, text)
    assert heap.heap_megabytes() == megabytes


@pytest.mark.parametrize("text", ["lots", "1", "64m", "0g", "-1g", "1.5g", "1g -XX:+Evil", "99999g"])
def test_a_wrong_size_is_refused_by_name(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(heap.HEAP_VARIABLE, text)
    with pytest.raises(SegmentsError, match=heap.HEAP_VARIABLE):
        heap.heap_megabytes()
