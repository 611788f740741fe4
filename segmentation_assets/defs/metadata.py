"""Values as Dagster metadata that people look at: pictures, tables, check verdicts.

What belongs here: conversion to metadata. What does not: making the numbers or drawing the pictures.
"""

import base64
from collections.abc import Iterable, Mapping
from typing import Any

import dagster as dg

from segmentation_assets.core.quality import CheckOutcome


def picture(png: bytes, alt: str) -> dg.MarkdownMetadataValue:
    """A PNG shown in place, with nothing to fetch."""
    return dg.MetadataValue.md(f"![{alt}](data:image/png;base64,{base64.b64encode(png).decode()})")


def table(rows: Iterable[Mapping[Any, Any]], columns: Mapping[str, str]) -> dg.TableMetadataValue:
    """Rows as a table.

    Args:
        rows: mappings from column name to value; lists are joined, floats rounded.
        columns: column name to Dagster type ('string', 'int', 'float').
    """
    return dg.MetadataValue.table(
        records=[dg.TableRecord({name: _cell(row.get(name)) for name in columns}) for row in rows],
        schema=dg.TableSchema(columns=[dg.TableColumn(name, kind) for name, kind in columns.items()]),
    )


def check_result(outcome: CheckOutcome) -> dg.AssetCheckResult:
    """A core verdict as an asset check result; the numbers and bounds become metadata."""
    return dg.AssetCheckResult(
        passed=outcome.passed,
        severity=dg.AssetCheckSeverity[outcome.severity],
        description=outcome.message or None,
        metadata=dict(outcome.values),
    )


def _cell(value: Any) -> str | int | float | bool | None:
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    if isinstance(value, float):
        return round(value, 4)
    return value if isinstance(value, str | int | bool) or value is None else str(value)
