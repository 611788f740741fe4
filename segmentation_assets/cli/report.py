"""What a run came to: as one object for programs, as tables for people, as JUnit XML for CI.

What belongs here: collecting and laying out results. What does not: starting runs.
"""

import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

from elasticsearch import Elasticsearch
from rich.markup import escape

from segmentation_assets.cli.runs import CheckVerdict, RunReport
from segmentation_assets.cli.terminal import err, out, table
from segmentation_assets.core.labels import OTHER, LabeledSegments, summarize
from segmentation_assets.core.sessions import Sessions
from segmentation_assets.core.users.personas import Personas
from segmentation_assets.errors import SegmentsError
from segmentation_assets.io.artifacts import ArtifactMissingError, ArtifactStore
from segmentation_assets.io.elasticsearch import server_version
from segmentation_assets.io.profile_store import PublishedProfiles
from segmentation_assets.io.publishing import PublishedState, published_state
from segmentation_assets.io.report_store import WrittenReport


def collect(
    report: RunReport,
    store: ArtifactStore,
    client: Elasticsearch,
    alias: str,
    embedded: bool,
    checks_only: bool = False,
) -> dict[str, Any]:
    """The result as plain values; what the run did not reach is null or empty."""
    out_of_reach = {asset for asset, _ in report.unevaluated} if checks_only else {*report.skipped, *report.failures}
    reached = set(report.wanted) - out_of_reach
    intake = _load(store, "raw_sessions", Sessions, reached)
    labeled = _load(store, "labeled_segments", LabeledSegments, reached)
    state = published_state(client, alias)
    live = state if "es_user_segments" in reached else None
    cards = _load(store, "personas", Personas, reached)
    last_profiles = _load(store, "es_user_profiles", PublishedProfiles, set(report.wanted))
    profiles = last_profiles if "es_user_profiles" in reached else None
    kept_profiles = published_state(client, last_profiles.alias) if last_profiles and not profiles else None
    page = _load(store, "segmentation_report", WrittenReport, reached)
    return {
        "run_id": report.run_id,
        "success": report.success,
        "sessions": intake.intake.kept if intake else None,
        "read": intake.intake.read if intake else None,
        "set_aside": intake.intake.set_aside if intake else {},
        "users": labeled.users.num_rows if labeled else None,
        "segments": [
            {
                "segment": row["segment"],
                "users": row["users"],
                "sessions": row["sessions"],
                "share": round(row["share"], 6),
                "keywords": row["keywords"],
                "clusters": row["clusters"],
                "sample_queries": row["sample_queries"],
                "suggested_names": _suggested(labeled, row["segment"]),
            }
            for row in (summarize(labeled).to_dict("records") if labeled else [])
        ],
        "clusters": [
            {
                "cluster": entry.cluster,
                "segment": entry.segment,
                "sessions": entry.sessions,
                "users": entry.users,
                "share": round(entry.share, 6),
                "certainty": round(entry.certainty, 6),
                "best": entry.best,
                "runner_up": entry.runner_up,
                "runner_up_share": round(entry.runner_up_share, 6),
                "mixed": entry.mixed,
                "suggested_name": entry.suggested_name,
            }
            for entry in (labeled.labels if labeled else [])
        ],
        "checks": [
            {
                "name": check.name,
                "asset": check.asset,
                "passed": check.passed,
                "severity": check.severity,
                "blocking": check.blocking,
                "values": check.values,
                "message": check.message,
            }
            for check in report.checks
        ],
        "published": _place(live),
        "still_published": _place(None if live else state),
        "personas": [
            {
                "persona": card.name,
                "cluster": card.cluster,
                "users": card.users,
                "share": round(card.share, 6),
                "named_by": card.rule,
                "traits": [trait.sentence for trait in card.traits],
            }
            for card in (cards.cards if cards else [])
        ],
        "profiles": _place(profiles),
        "profiles_still_published": _place(kept_profiles),
        "report": page.path if page else None,
        "unevaluated": [{"asset": asset, "name": name} for asset, name in report.unevaluated],
        "failures": report.failures,
        "elasticsearch": {"url": _url(client), "version": server_version(client), "embedded": embedded},
        "seconds": _by_asset(report),
    }


def _place(published: PublishedState | PublishedProfiles | None) -> dict[str, Any] | None:
    """Where readers find it, and how much."""
    if published is None:
        return None
    return {"alias": published.alias, "index": published.index, "documents": published.documents}


def _suggested(labeled: LabeledSegments | None, segment: str) -> list[str]:
    """What the clusters without a name might be called, the largest first; nothing for a segment that has one."""
    if labeled is None or segment != OTHER:
        return []
    return [entry.suggested_name for entry in labeled.labels if entry.segment == OTHER and entry.suggested_name]


def _by_asset(report: RunReport) -> dict[str, float]:
    """Seconds of each asset; where only checks ran, of its checks."""
    seconds = {asset: report.seconds[asset] for asset in report.wanted if asset in report.seconds}
    if not seconds:
        for check in report.checks:
            spent = report.seconds.get(f"{check.asset}_{check.name}", 0.0)
            seconds[check.asset] = round(seconds.get(check.asset, 0.0) + spent, 3)
    return seconds


def _load(store: ArtifactStore, name: str, kind: type[Any], reached: set[str]) -> Any:
    try:
        return store.load(name, kind, when_used=True) if name in reached else None
    except ArtifactMissingError:
        return None


def _url(client: Elasticsearch) -> str:
    node = next(iter(client.transport.node_pool.all())).config
    return f"{node.scheme}://{node.host}:{node.port}"


def show(result: dict[str, Any]) -> None:
    """Tables of segments and checks, and where the result is."""
    if result["segments"]:
        out.print(segments_table(result))
        for text in _remarks(result):
            out.print(escape(text), soft_wrap=True)
    if result["set_aside"]:
        reasons = ", ".join(
            f"{reason} {n:,}" for reason, n in sorted(result["set_aside"].items(), key=lambda item: -item[1])
        )
        out.print(f"Set aside {sum(result['set_aside'].values()):,} of {result['read']:,} documents: {reasons}")
    if result["personas"]:
        out.print(personas_table(result["personas"]))
    if result["checks"]:
        out.print(checks_table(result["checks"]))
    published = result["published"]
    where = result["elasticsearch"]
    if published:
        out.print(
            f"Published {published['documents']:,} documents to [bold]{escape(published['alias'])}[/] "
            f"(index {escape(published['index'])}) "
            f"on {'the embedded ' if where['embedded'] else ''}Elasticsearch {where['version'] or ''} "
            f"at {where['url']}",
            soft_wrap=True,
        )
    if result["profiles"]:
        profiles = result["profiles"]
        out.print(
            f"Published {profiles['documents']:,} user profiles to [bold]{escape(profiles['alias'])}[/] "
            f"(index {escape(profiles['index'])})",
            soft_wrap=True,
        )
    if result["report"]:
        out.print(f"The report: {escape(result['report'])}", soft_wrap=True)


def _remarks(result: dict[str, Any]) -> list[str]:
    """What a person should know of the clusters behind the segments."""
    remarks = [
        f"Cluster {entry['cluster']} ({entry['segment']}) is mixed: {entry['best']} in {entry['share']:.0%} of its "
        f"{entry['sessions']:,} sessions, {entry['runner_up']} in {entry['runner_up_share']:.0%}."
        for entry in result["clusters"]
        if entry["mixed"]
    ]
    names = [name for row in result["segments"] for name in row["suggested_names"]]
    if names:
        remarks.append(
            f"What is in {OTHER} might be called: {'; '.join(names)}. To draft names: segments taxonomy suggest"
        )
    return remarks


def show_failure(result: dict[str, Any]) -> None:
    """What failed, by how much, and what readers see meanwhile."""
    for check in result["checks"]:
        if not check["passed"] and check["severity"] == "ERROR":
            kind = "blocking check" if check["blocking"] else "check"
            err.print(
                f"[bold red]Failed:[/] {kind} {check['name']} on {check['asset']}: {escape(check['message'])}",
                soft_wrap=True,
            )
    for step, message in result["failures"].items():
        err.print(f"[bold red]Failed:[/] {step}: {escape(message)}", soft_wrap=True)
    for kept in (result["still_published"], result["profiles_still_published"]):
        if kept:
            err.print(
                f"Readers of {kept['alias']} still see what was published before "
                f"({kept['documents']:,} documents in {kept['index']}).",
                soft_wrap=True,
            )
    if result["published"] is None and result["still_published"] is None:
        err.print("Nothing was published.")


def segments_table(result: dict[str, Any]):  # type: ignore[no-untyped-def]  # a rich renderable
    """One row a segment."""
    rows = [
        [
            row["segment"],
            f"{row['users']:,}",
            f"{row['sessions']:,}",
            f"{row['share']:.1%}",
            ", ".join(row["keywords"][:6]),
            "; ".join(row["sample_queries"][:3]),
        ]
        for row in result["segments"]
    ]
    rows.append(["all", f"{result['users']:,}", f"{result['sessions']:,}", "100.0%", "", ""])
    columns = ["segment", "users", "sessions", "share", "top keywords", "sample queries"]
    return table("Segments", columns, rows, numeric=["users", "sessions", "share"])


def personas_table(personas: list[dict[str, Any]]):  # type: ignore[no-untyped-def]
    """One row a persona."""
    rows = [
        [row["persona"], f"{row['users']:,}", f"{row['share']:.1%}", " ".join(row["traits"][:3])] for row in personas
    ]
    return table("Personas", ["persona", "users", "share", "what sets them apart"], rows, numeric=["users", "share"])


def checks_table(checks: list[dict[str, Any]]):  # type: ignore[no-untyped-def]
    """One row a check, with its numbers."""
    rows = [
        [
            "ok" if check["passed"] else "FAILED" if check["severity"] == "ERROR" else "warning",
            check["name"],
            check["severity"] + (", blocking" if check["blocking"] else ""),
            ", ".join(
                f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}"
                for name, value in check["values"].items()
            ),
        ]
        for check in checks
    ]
    return table("Checks", ["", "check", "severity", "numbers and bounds"], rows)


def write_junit(path: Path, report: RunReport) -> None:
    """JUnit XML: a failed ERROR is a failure, a failed WARN passes with its message in system-out.

    Raises:
        SegmentsError: the file cannot be written.
    """
    suite = ET.Element(
        "testsuite",
        name="segments check",
        tests=str(len(report.checks) + len(report.failures) + len(report.unevaluated)),
        failures=str(len(report.failed_errors)),
        errors=str(len(report.failures)),
        skipped=str(len(report.unevaluated)),
    )
    for check in report.checks:
        case = ET.SubElement(
            suite,
            "testcase",
            classname=check.asset,
            name=check.name,
            time=str(report.seconds.get(f"{check.asset}_{check.name}", 0)),
        )
        if not check.passed and check.severity == "ERROR":
            ET.SubElement(case, "failure", message=_xml(check.message), type=check.severity).text = _numbers(check)
        else:
            ET.SubElement(case, "system-out").text = (
                _numbers(check) if check.passed else _xml(f"WARN: {check.message}\n") + _numbers(check)
            )
    for step, message in report.failures.items():
        case = ET.SubElement(suite, "testcase", classname="run", name=step)
        ET.SubElement(case, "error", message=_xml(message), type="run")
    suites = ET.Element("testsuites")
    suites.append(suite)
    for asset, check_name in report.unevaluated:
        case = ET.SubElement(suite, "testcase", classname=asset, name=check_name)
        ET.SubElement(case, "skipped", message=f"{asset} was never materialized")
    tree = ET.ElementTree(suites)
    ET.indent(tree)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        tree.write(path, encoding="utf-8", xml_declaration=True)
    except OSError as error:
        raise SegmentsError(
            f"{path} cannot be written: {error.strerror}.", "Choose another file with --junit."
        ) from None


def _numbers(check: CheckVerdict) -> str:
    return _xml("\n".join(f"{name}: {value}" for name, value in check.values.items()))


def _xml(text: str) -> str:
    """XML 1.0 has no control characters."""
    return "".join(c for c in text if c in "\t\n" or c >= " ")
