"""``segments evaluate``: how right are the clusters of labelled texts, by method.

What belongs here: reading the files, a process for each measurement with its seconds and megabytes, and the tables.
What does not: composing users and comparing with the truth (core.evaluation).
"""

import multiprocessing
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import fmean

import psutil
import typer

from segmentation_assets.cli.terminal import counting, out, print_json, say, table
from segmentation_assets.core.clustering import METHODS, available
from segmentation_assets.core.encoder import CURE, missing
from segmentation_assets.core.evaluation import (
    QUERIES_PER_USER,
    Agreement,
    Case,
    LabelledFileError,
    LabelledTexts,
    LabelScores,
    agreement,
    joined,
    judge_keywords,
    keywords,
    parse_labelled,
    segment,
    session_case,
    session_clusters,
    user_case,
    user_clusters,
)
from segmentation_assets.core.settings import ClusterSettings, Settings
from segmentation_assets.errors import SegmentsError

TEXTBOOK = "kmeans"
JOINED = "kmeans_joined"
"""The textbook recipe with users as documents: all queries of a user joined into one text, then ``TEXTBOOK``. Only at
user level."""


class EvaluationError(SegmentsError):
    """A measurement could not be made."""


@dataclass(frozen=True)
class Row:
    """What was measured of one method on one file at one level; means over the seeds unless said otherwise.

    Attributes:
        file: as it was named.
        method: name in ``METHODS``, or ``JOINED``.
        k: clusters asked for.
        level: "session", or "users_5" for users of five queries each (``core.evaluation.user_case``).
        default: whether it is the method used when nothing is chosen.
        seeds: seeds 0 .. seeds - 1; of users, where they are composed, and of the clustering.
        acc: accuracy x 100 after the best matching of clusters and classes (``core.evaluation.Agreement``).
        acc_min: the worst seed's.
        acc_max: the best seed's.
        nmi: normalised mutual information x 100.
        ari: adjusted Rand index x 100.
        members: sessions, or users at user level.
        sizes: members of each cluster, largest first, with the first seed.
        largest: share of the members in the largest cluster x 100.
        unclustered: share of the members in no cluster x 100.
        cpu_seconds: CPU time of vectorizing and fitting, over all threads, for one seed.
        peak_mb: most resident memory that the process ever held, less what it held before the first seed; 10**6 bytes,
            over all seeds. What the process had and no longer used counts as free.
        label_acc: the following are ``core.evaluation.LabelScores`` x 100; None at user level.
        label_coverage: classes that some cluster's keywords stand for.
        label_top1: classes named by the first keyword.
        label_top5: classes named by the first five keywords.
        label_diversity: different ones among all keywords.
    """

    file: str
    method: str
    k: int
    level: str
    default: bool
    seeds: int
    acc: float
    acc_min: float
    acc_max: float
    nmi: float
    ari: float
    members: int
    sizes: list[int]
    largest: float
    unclustered: float
    cpu_seconds: float
    peak_mb: float
    label_acc: float | None
    label_coverage: float | None
    label_top1: float | None
    label_top5: float | None
    label_diversity: float | None


@dataclass(frozen=True)
class Task:
    """One row to be measured.

    Attributes:
        file: what the row says.
        data: texts and truth.
        method: name in ``METHODS``, or ``JOINED``.
        k: clusters.
        queries_per_user: None at session level.
        seeds: how many.
    """

    file: str
    data: LabelledTexts
    method: str
    k: int
    queries_per_user: int | None
    seeds: int


def evaluate(
    paths: Sequence[Path],
    methods: Sequence[str],
    *,
    seeds: int,
    k: int | None,
    users: bool,
    as_json: bool,
) -> None:
    """Measure and show.

    Raises:
        SegmentsError: a file cannot be read (``read_labelled``), or a method that was asked for cannot run.
    """
    for name in methods:
        if name not in METHODS:
            raise typer.BadParameter(f"{name!r} is not one of {', '.join(METHODS)}.", param_hint="--method")
    files = {str(path): read_labelled(path) for path in paths}  # every mistake is said before anything is measured
    levels: list[int | None] = [None, *(QUERIES_PER_USER if users else ())]
    if not methods and (absent := [name for name in METHODS if name not in available()]):
        say(f"{', '.join(absent)} is left out: {', '.join(missing())} not installed. {CURE}")
    tasks = plan(files, methods, levels, k=k, seeds=seeds)
    with counting("evaluating") as progress:
        rows = measure_all(tasks, required={*methods, default_method()}, on_progress=progress)
    if as_json:
        print_json([asdict(row) for row in rows])
    else:
        _show(rows)
        say(f"* is the method used when none is chosen ({default_method()}).")


def default_method() -> str:
    """The method that is used when nothing is chosen."""
    return Settings().clusters.method


def read_labelled(path: Path) -> LabelledTexts:
    """Read a file of label TAB text.

    Raises:
        LabelledFileError: it cannot be read, or see ``parse_labelled``.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise LabelledFileError(
            f"{path} cannot be read: {error.strerror}.", "Name a file with a label, a tab and a text on each line."
        ) from None
    return parse_labelled(content, str(path))


def plan(
    files: dict[str, LabelledTexts],
    methods: Sequence[str],
    levels: Sequence[int | None],
    *,
    k: int | None,
    seeds: int,
) -> list[Task]:
    """The rows to measure: each file at each level with each method, all that can run here where none is named.

    Args:
        files: name to texts.
        methods: names in ``METHODS``.
        levels: queries a user; None is session level. At user level ``JOINED`` is measured as well.
        k: clusters; None for the number of labels of each file.
        seeds: how many.
    """
    names = list(dict.fromkeys(methods or available()))
    return [
        Task(file, data, method, len(data.classes) if k is None else k, level, seeds)
        for file, data in files.items()
        for level in levels
        for method in (names if level is None else [*names, JOINED])
    ]


def measure_all(
    tasks: Sequence[Task], *, required: set[str], on_progress: Callable[[int, int | None], None]
) -> list[Row]:
    """Measure one after the other, each in a process of its own.

    A method that is not required and cannot run, on this machine or with these texts, is left out, and said so.

    Raises:
        SegmentsError: a required method cannot run.
    """
    rows = []
    for done, task in enumerate(tasks):
        on_progress(done, len(tasks))
        try:
            rows.append(_in_own_process(task))
        except SegmentsError as error:
            if task.method in required:
                raise
            say(f"{task.method} is left out of {task.file}, {_level(task)}: {error.problem} {error.cure}")
    on_progress(len(tasks), len(tasks))
    return rows


def measure(task: Task) -> Row:
    """Measure one row, in this process.

    Only vectorizing and fitting count as CPU time; the first seed's holds whatever the method loads when first used.

    Raises:
        SegmentsError: see ``core.evaluation.segment``.
    """
    default = Settings()
    found: list[Agreement] = []
    labels: list[LabelScores] = []
    seconds = []
    case = _case(task, 0)
    members = len(case.truth)
    before = psutil.Process().memory_info().rss
    for seed in range(task.seeds):
        case = _case(task, seed) if task.queries_per_user else case  # sessions are the same with every seed
        clusters = ClusterSettings.model_validate(
            default.clusters.model_dump()
            | {"method": TEXTBOOK if task.method == JOINED else task.method, "k": task.k, "seed": seed}
        )
        started = time.process_time()
        tfidf, model = segment(case, default.vectors, clusters)
        seconds.append(time.process_time() - started)
        of_session, confidence = session_clusters(tfidf, model)
        found.append(agreement(case.truth, user_clusters(case.users, of_session, confidence)))
        if task.queries_per_user is None:
            labels.append(judge_keywords(task.data, tfidf, of_session, keywords(tfidf, model)))
    peak = max(peak_bytes() - before, 0)
    return Row(
        file=task.file,
        method=task.method,
        k=task.k,
        level=_level(task),
        default=task.method == default.clusters.method,
        seeds=task.seeds,
        acc=_percent([a.accuracy for a in found]),
        acc_min=_percent([min(a.accuracy for a in found)]),
        acc_max=_percent([max(a.accuracy for a in found)]),
        nmi=_percent([a.nmi for a in found]),
        ari=_percent([a.ari for a in found]),
        members=members,
        sizes=found[0].sizes,
        largest=_percent([max(a.sizes, default=0) / members for a in found]),
        unclustered=_percent([a.unclustered / members for a in found]),
        cpu_seconds=round(fmean(seconds), 3),
        peak_mb=round(peak / 1e6, 1),
        label_acc=_percent([s.class_accuracy for s in labels]) if labels else None,
        label_coverage=_percent([s.classes_covered for s in labels]) if labels else None,
        label_top1=_percent([s.name_in_top1 for s in labels]) if labels else None,
        label_top5=_percent([s.name_in_top5 for s in labels]) if labels else None,
        label_diversity=_percent([s.diversity for s in labels]) if labels else None,
    )


def _case(task: Task, seed: int) -> Case:
    if task.queries_per_user is None:
        return session_case(task.data)
    case = user_case(task.data, task.queries_per_user, seed)
    return joined(case) if task.method == JOINED else case


def _level(task: Task) -> str:
    return "session" if task.queries_per_user is None else f"users_{task.queries_per_user}"


def _percent(shares: Sequence[float]) -> float:
    return round(100 * fmean(shares), 2)


def peak_bytes() -> int:
    """The most resident memory this process ever held.

    Linux hands the peak of the process that started this one down to ``getrusage``; VmHWM begins anew.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _in_own_process(task: Task) -> Row:
    """Measure where nothing has been used before, so that one method's memory and caches are not another's."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_answer, args=(task, sender))
    child.start()
    sender.close()  # the child has its own; without this its end would go unnoticed
    try:
        answer = receiver.recv()
    except EOFError:
        child.join()
        raise EvaluationError(
            f"Measuring {task.method} on {task.file}, {_level(task)}, ended without a result "
            f"(exit code {child.exitcode}).",
            "If the exit code is -9, memory ran out: measure a part of the file. Else see what is said above.",
        ) from None
    finally:
        child.kill()
        child.join()
        receiver.close()
    if isinstance(answer, SegmentsError):
        raise answer
    assert isinstance(answer, Row)
    return answer


def _answer(task: Task, sender: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to hear, and it ends this process
    try:
        sender.send(measure(task))
    except SegmentsError as error:
        sender.send(error)


def _show(rows: Sequence[Row]) -> None:
    for (file, level), some in groupby(rows, key=lambda row: (row.file, row.level)):
        group = list(some)
        first = group[0]
        members = "sessions" if level == "session" else f"users of {level.removeprefix('users_')} queries"
        columns = ["method", "acc", "min..max", "NMI", "ARI", "largest", "CPU s", "MB"]
        out.print(
            table(
                f"{Path(file).name}: {first.members:,} {members}, k={first.k}, seeds: {first.seeds}; shares x100",
                columns,
                [
                    [
                        _named(row),
                        f"{row.acc:.1f}",
                        f"{row.acc_min:.0f}..{row.acc_max:.0f}",
                        f"{row.nmi:.1f}",
                        f"{row.ari:.1f}",
                        f"{row.largest:.0f}",
                        f"{row.cpu_seconds:.2f}",
                        f"{row.peak_mb:.0f}",
                    ]
                    for row in group
                ],
                numeric=columns[1:],
            )
        )
        if level == "session":
            columns = ["keywords of", "class", "covered", "name 1st", "name in 5", "different"]
            out.print(
                table(
                    "", columns, [[_named(r), *(f"{v:.1f}" for v in label_numbers(r))] for r in group],
                    numeric=columns[1:],
                )
            )  # fmt: skip


def _named(row: Row) -> str:
    return f"{row.method} *" if row.default else row.method


def label_numbers(row: Row) -> list[float]:
    """What there is of the numbers of ``core.evaluation.LabelScores``, in their order."""
    numbers = (row.label_acc, row.label_coverage, row.label_top1, row.label_top5, row.label_diversity)
    return [number for number in numbers if number is not None]
