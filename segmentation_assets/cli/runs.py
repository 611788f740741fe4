"""Runs of the asset graph from the terminal, through Dagster, on its persistent instance.

What belongs here: starting a run, following it, collecting what it recorded. What does not: showing it (report).
"""

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import dagster as dg
from dagster import AssetCheckEvaluation
from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

from segmentation_assets.cli.terminal import err
from segmentation_assets.definitions import build_definitions
from segmentation_assets.defs.automation import everything, segmentation
from segmentation_assets.defs.failures import cause_of
from segmentation_assets.errors import SegmentsError

ASSETS = ("raw_sessions", "tfidf_matrix", "kmeans_model", "labeled_segments", "es_user_segments")
USER_ASSETS = (
    "clean_sessions",
    "user_attributes",
    "user_features",
    "user_scores",
    "rule_segments",
    "behaviour_clusters",
    "personas",
    "es_user_profiles",
    "segmentation_report",
)


@dataclass(frozen=True)
class CheckVerdict:
    """An asset check's evaluation, as recorded."""

    name: str
    asset: str
    passed: bool
    severity: str
    blocking: bool
    values: dict[str, Any]
    message: str = ""


@dataclass
class RunReport:
    """What a run recorded.

    Attributes:
        run_id: Dagster's.
        success: whether every step succeeded.
        seconds: by step.
        checks: evaluations, in the order of the graph.
        failures: step to what it said, for steps that failed by themselves (not by a blocking check).
        skipped: assets that were not reached.
        unevaluated: (asset, check) of checks whose asset was never materialized, where only checks were asked for.
        wanted: assets that were asked for.
    """

    run_id: str
    success: bool
    seconds: dict[str, float] = field(default_factory=dict)
    checks: list[CheckVerdict] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)
    unevaluated: list[tuple[str, str]] = field(default_factory=list)
    wanted: tuple[str, ...] = ASSETS

    @property
    def failed_errors(self) -> list[CheckVerdict]:
        """Checks of severity ERROR that failed, blocking or not."""
        return [check for check in self.checks if not check.passed and check.severity == "ERROR"]


def materialize(run_config: dict[str, Any], instance: dg.DagsterInstance, *, users: bool = False) -> RunReport:
    """Materialize the main job, or with ``users`` everything, with progress on the terminal."""
    launch = _launch_tags()
    job, wanted = (everything, ASSETS + USER_ASSETS) if users else (segmentation, ASSETS)
    with _following(instance, launch):
        # Not execute_in_process, which keeps what every asset returned until the end of the run.
        result = dg.execute_job(
            dg.build_reconstructable_job(__name__, job_of_graph.__name__, (f"{job.name} {launch[_LAUNCH]}",)),
            instance=instance,
            run_config={**run_config, **_QUIET},
            tags=launch,
        )
    return _collect(result, wanted)


def job_of_graph(name_and_launch: str) -> dg.JobDefinition:
    """A job of the graph, from where Dagster finds it again.

    Args:
        name_and_launch: name of the job, a space, and of what launch it is: Dagster keeps a job it has found for as
            long as the argument is the same, and another launch in this process may have another environment.
    """
    return build_definitions().resolve_job_def(name_and_launch.partition(" ")[0])


def evaluate_checks(instance: dg.DagsterInstance, stored: list[str]) -> RunReport:
    """Evaluate the asset checks of what is stored, materializing nothing; the others' are ``unevaluated``."""
    checks_only = dg.define_asset_job(
        "checks", selection=dg.AssetSelection.checks_for_assets(*map(dg.AssetKey, stored))
    )
    definitions = build_definitions()
    job = dg.Definitions.merge(definitions, dg.Definitions(jobs=[checks_only])).resolve_job_def("checks")
    launch = _launch_tags()
    with _following(instance, launch):
        result = job.execute_in_process(run_config=_QUIET, instance=instance, raise_on_error=False, tags=launch)
    # Whoever never asked for users is not told that their checks are missing.
    wanted = ASSETS + USER_ASSETS if set(stored) & set(USER_ASSETS) else ASSETS
    report = _collect(result, wanted)
    report.unevaluated = [
        (key.asset_key.path[-1], key.name)
        for key in sorted(definitions.resolve_asset_graph().asset_check_keys)
        if key.asset_key.path[-1] in set(wanted) - set(stored)
    ]
    return report


@contextmanager
def instance() -> Iterator[dg.DagsterInstance]:
    """The persistent Dagster instance of DAGSTER_HOME.

    Raises:
        SegmentsError: it cannot be opened.
    """
    try:
        opened = dg.DagsterInstance.get()
    except Exception as error:  # noqa: BLE001  # whatever Dagster says of its own configuration, the user has to see
        raise SegmentsError(
            f"Dagster's instance cannot be opened: {' '.join(str(error).split())[:400]}",
            "Check DAGSTER_HOME and its dagster.yaml.",
        ) from None
    with opened:
        yield opened


_KNOWN = frozenset(ASSETS + USER_ASSETS)
_LAUNCH = "segments/launch"
_QUIET: dict[str, Any] = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


def _launch_tags() -> dict[str, str]:
    """Tags by which a run that is about to be started is known."""
    return {"segments/started_by": "cli", _LAUNCH: str(uuid4())}


def _collect(result: dg.ExecuteInProcessResult | dg.JobExecutionResult, wanted: tuple[str, ...]) -> RunReport:
    report = RunReport(result.run_id, result.success, wanted=wanted)
    reached = set()
    for event in result.all_events:
        step = event.step_key or ""
        if event.is_step_success:
            report.seconds[step] = round(event.step_success_data.duration_ms / 1000, 3)
            reached.add(step)
        elif event.is_step_failure:
            reached.add(step)
            error = cause_of(event.step_failure_data.error)
            if not error.startswith("DagsterAssetCheckFailedError"):
                report.failures[step] = error
        elif event.event_type_value == "ASSET_CHECK_EVALUATION":
            evaluation = event.asset_check_evaluation_data
            report.checks.append(verdict(evaluation))
    report.skipped = [asset for asset in wanted if asset not in reached]
    return report


def verdict(evaluation: AssetCheckEvaluation) -> CheckVerdict:
    """A recorded evaluation in plain values."""
    severity = evaluation.severity.value
    return CheckVerdict(
        name=evaluation.check_name,
        asset=evaluation.asset_key.path[-1],
        passed=evaluation.passed,
        severity=severity,
        blocking=bool(evaluation.blocking) and severity == "ERROR",
        values={
            name: value.value
            for name, value in evaluation.metadata.items()
            if isinstance(value.value, int | float | str)
        },
        message=evaluation.description or "",
    )


@contextmanager
def _following(instance: dg.DagsterInstance, launch: dict[str, str]) -> Iterator[None]:
    """Show each step of the run with these tags as it starts and ends, read from the event log as the UI does."""
    over = threading.Event()

    def follow() -> None:
        cursor, running, run_id = None, "", None
        with Live(Text(""), console=err, transient=True, refresh_per_second=8) as live:
            last = False
            while not last:
                last = over.wait(0.25)
                if run_id is None:
                    run_id = next(iter(instance.get_run_ids(dg.RunsFilter(tags=launch), limit=1)), None)
                if run_id is None:
                    continue
                page = instance.get_records_for_run(run_id, cursor=cursor, limit=500)
                cursor = page.cursor
                for line, step in _lines([record.event_log_entry for record in page.records], running):
                    running = step
                    if line:
                        err.print(line)
                live.update(Spinner("dots", text=f" {running}") if running else Text(""))

    thread = threading.Thread(target=follow, name="run-progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(timeout=10)


def _lines(entries: Iterable[Any], running: str) -> Iterator[tuple[Text | None, str]]:
    for entry in entries:
        event = entry.dagster_event
        step = entry.step_key or ""
        if event is None:
            if step in _KNOWN and running:  # what the asset logged itself
                yield None, f"{step}: {entry.user_message[:100]}"
        elif event.is_step_start and step in _KNOWN:
            yield None, step
        elif event.is_step_success and step in _KNOWN:
            yield (
                Text.assemble(("  done ", "green"), f"{step:<19} {event.step_success_data.duration_ms / 1000:6.2f} s"),
                "",
            )
        elif event.event_type_value == "ASSET_CHECK_EVALUATION":
            check = verdict(event.asset_check_evaluation_data)
            mark = (
                ("  ok   ", "green")
                if check.passed
                else ("  FAIL ", "bold red")
                if check.severity == "ERROR"
                else ("  warn ", "yellow")
            )
            yield Text.assemble(mark, f"  {check.name}", f": {check.message}" if check.message else ""), running
        elif event.is_step_failure and step in _KNOWN:
            yield Text.assemble(("  FAIL ", "bold red"), step), ""
