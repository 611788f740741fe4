"""The report: put together from what the assets stored, and written as a file.

What belongs here: which stored results make a report. What does not: how it looks (core.report).
"""

import os
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TypeVar
from uuid import uuid4

from segmentation_assets.core import plots, quality
from segmentation_assets.core.labels import LabeledSegments, assigned, summarize, to_pass_on
from segmentation_assets.core.model import ClusterModel
from segmentation_assets.core.report.page import ReportData, render
from segmentation_assets.core.sessions import Intake, Sessions
from segmentation_assets.core.settings import Settings
from segmentation_assets.core.users import quality as user_quality
from segmentation_assets.core.users.attributes import UserAttributes
from segmentation_assets.core.users.behaviour import BehaviourModel
from segmentation_assets.core.users.cleaning import CleanSessions
from segmentation_assets.core.users.clustering.dbscan import suggest_eps
from segmentation_assets.core.users.features import UserFeatures, marked
from segmentation_assets.core.users.personas import TYPED_BY, Personas
from segmentation_assets.core.users.preprocessing import transform
from segmentation_assets.core.users.rules import RuleSegments
from segmentation_assets.core.users.scores import UserScores
from segmentation_assets.core.vectorize import TfidfMatrix
from segmentation_assets.errors import SegmentsError
from segmentation_assets.io.artifacts import ArtifactMissingError, ArtifactStore

T = TypeVar("T")


class ReportNotWrittenError(SegmentsError):
    """The file cannot be written."""


@dataclass(frozen=True)
class WrittenReport:
    """A report that was written.

    Attributes:
        path: of the file.
        size: of it, in bytes.
    """

    path: str
    size: int


def collect_report(store: ArtifactStore, settings: Settings, now: datetime) -> ReportData:
    """What is stored, as a report; what was never materialized is left out.

    Args:
        store: where the assets' results lie.
        settings: for the bounds of the checks, and the seed of the map.
        now: aware datetime.

    Raises:
        ArtifactUnreadableError: something stored cannot be read.
    """

    def stored(name: str, kind: type[T]) -> T | None:
        try:
            return store.load(name, kind, when_used=True)
        except ArtifactMissingError:
            return None

    labeled = stored("labeled_segments", LabeledSegments)
    model = stored("kmeans_model", ClusterModel)
    tfidf = stored("tfidf_matrix", TfidfMatrix)
    clean = stored("clean_sessions", CleanSessions)
    features = stored("user_features", UserFeatures)
    behaviour = stored("behaviour_clusters", BehaviourModel)
    attributes = stored("user_attributes", UserAttributes)
    known = stored("personas", Personas)
    intake = _intake(store)
    rows = None
    if behaviour and features and features.table["user_id"].combine_chunks().equals(behaviour.users):
        rows = transform(behaviour.preprocessing, features.table, features.traits)
    distances = eps = None
    if rows is not None and features and behaviour and behaviour.method == "dbscan" and (~marked(features)).any():
        eps, distances = suggest_eps(rows[~marked(features)], settings.behaviour.min_samples)
        eps = behaviour.details.get("eps", eps)
    # A run that stopped half-way leaves results of two runs; what does not belong together is left out. And the page
    # may be passed on, so it shows only what several people typed.
    shown, query_map = None, None
    if labeled and tfidf and model and labeled.model_version == model.version and assigned(model, tfidf):
        shown = to_pass_on(labeled, tfidf, TYPED_BY)
        query_map = plots.query_map(tfidf, model, shown, settings.clusters.seed, form="svg")
    return ReportData(
        generated_at=now,
        segments=summarize(shown) if shown else None,
        churn=labeled.churn if labeled else None,
        query_map=query_map,
        features=features,
        scores=stored("user_scores", UserScores),
        rules=stored("rule_segments", RuleSegments),
        behaviour=behaviour,
        rows=rows,
        k_distances=distances,
        eps=eps,
        personas=known if known and behaviour and known.model_version == behaviour.version else None,
        cleaning=clean.account if clean else None,
        attributes=attributes.account if attributes else None,
        intake=intake,
        checks=_checks(intake, model, labeled, clean, behaviour, settings),
    )


def _intake(store: ArtifactStore) -> Intake | None:
    try:
        found: Intake = store.load_field("raw_sessions", Sessions, "intake")
    except ArtifactMissingError:
        return None
    return found


def _checks(
    intake: Intake | None,
    model: ClusterModel | None,
    labeled: LabeledSegments | None,
    clean: CleanSessions | None,
    behaviour: BehaviourModel | None,
    settings: Settings,
) -> list[quality.CheckOutcome]:
    """The outcomes of what is there, by the same functions as the asset checks."""
    bounds = settings.checks
    outcomes: list[quality.CheckOutcome] = []
    if intake:
        outcomes += [quality.sessions_accounted(intake), quality.session_validity(intake, bounds.session_validity)]
    if model:
        outcomes.append(quality.cluster_balance(model.sizes, model.unclustered, bounds.cluster_balance))
    if labeled:
        outcomes.append(quality.label_coverage(labeled, bounds.label_coverage))
        outcomes.append(quality.user_churn(labeled.churn, bounds.user_churn))
    if clean:
        outcomes.append(user_quality.cleaning_accounted(clean.account))
        outcomes.append(user_quality.noise_share(clean, bounds.noise_share))
    if behaviour:
        outcomes.append(user_quality.behaviour_stability(behaviour, bounds.behaviour_stability))
    return outcomes


def write_report(data: ReportData, path: Path) -> WrittenReport:
    """Write the page, beside and renamed: a reader sees the whole of it or the one before.

    Raises:
        ReportNotWrittenError: the folder cannot be made or written to.
    """
    page = render(data).encode()
    path = path.absolute()
    beside = path.parent / f".{path.name}-{uuid4().hex}"  # the name of a folder above may be empty
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.write_bytes(page)
        os.replace(beside, path)
    except OSError as error:
        raise ReportNotWrittenError(
            f"The report cannot be written to {path}: {error.strerror}.", "Choose another file with --output."
        ) from None
    finally:
        with suppress(OSError):  # it is there after a failure only, and not after every one
            beside.unlink()
    return WrittenReport(str(path), len(page))
