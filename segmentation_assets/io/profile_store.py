"""The documents of ``user_profiles``, and the behaviour model that they were made with.

What belongs here: publishing profiles, remembering by which model, and reading one. What does not: what a profile
holds (core.users.profiles), how publishing is made safe (publishing).
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from elasticsearch import Elasticsearch, NotFoundError

from segmentation_assets.core.settings import ProfileSettings
from segmentation_assets.core.users.behaviour import BehaviourModel
from segmentation_assets.core.users.profiles import UserProfiles, documents
from segmentation_assets.errors import SegmentsError
from segmentation_assets.io.artifacts import ArtifactStore, ArtifactUnreadableError, load_field, serving_or_last
from segmentation_assets.io.elasticsearch import IndexMissing, errors_explained
from segmentation_assets.io.publishing import PublishedDocuments, publish
from segmentation_assets.io.templates import profile_template

MODEL = "behaviour_clusters"
SERVES = "published"
"""The mark on the model that made the profiles that readers see."""


class UserUnknownError(SegmentsError):
    """There is no profile of this user."""


@dataclass(frozen=True)
class PublishedProfiles(PublishedDocuments):
    """Profiles that were published, one document a user; ``model_version`` is the behaviour model's."""


def publish_profiles(
    client: Elasticsearch,
    profiles: UserProfiles,
    settings: ProfileSettings,
    *,
    run_id: str,
    now: datetime,
    on_progress: Callable[[int, int | None], None] | None = None,
) -> PublishedProfiles:
    """Publish the profile of every user; who is not among them any more has none afterwards.

    What can be raised, and what then stays as it was: see ``publishing.publish``.

    Args:
        client: the client.
        profiles: what to publish.
        settings: where.
        run_id: noted in the index.
        now: aware datetime, the documents' ``published_at``.
        on_progress: called with the number written so far and how many there are.
    """
    published = publish(
        client,
        settings.alias,
        documents(profiles),
        constants={"published_at": now.astimezone(UTC)},
        id_field="user_id",
        expected=profiles.table.num_rows,
        meta={
            "run_id": run_id,
            "model_version": profiles.model_version,
            "segment_model_version": profiles.segment_model_version,
        },
        template=profile_template(settings.alias),
        keep=settings.keep,
        on_progress=on_progress,
    )
    return PublishedProfiles.of(published, profiles.model_version)


def mark_served(store: ArtifactStore, model_version: str) -> None:
    """Remember which stored behaviour model made the profiles that readers see, after a publication."""
    for folder in store.history(MODEL):
        with suppress(ArtifactUnreadableError):
            if load_field(BehaviourModel, "version", folder) == model_version:
                store.mark(MODEL, SERVES, folder)
                return


def model_before(store: ArtifactStore, warn: Callable[[str], None]) -> BehaviourModel | None:
    """The behaviour model that readers are served by, or the latest one while none is; None for the very first.

    A model that a check stopped does not count once one serves: readers never saw its ids.

    Args:
        store: where the assets' results lie.
        warn: told when a stored model cannot be read (it is then passed over).
    """
    return serving_or_last(store, MODEL, SERVES, BehaviourModel, warn)


def profile_of(client: Elasticsearch, alias: str, user_id: str) -> Mapping[str, Any]:
    """The profile of one user, as readers see it.

    Raises:
        IndexMissing: no profiles were published yet.
        UserUnknownError: there is none of this user.
        SegmentsError: see ``io.elasticsearch``.
    """
    unknown = UserUnknownError(
        f"There is no profile of this user in {alias}.",
        "Is the id as in user_sessions, and were profiles published since the user came?",
    )
    if not user_id:  # which the client takes for a mistake in the program
        raise unknown
    with errors_explained(client, f"read {alias}"):
        try:
            found = client.get(index=alias, id=user_id)
        except NotFoundError as error:
            if isinstance(error.body, dict) and error.body.get("found") is False:
                raise unknown from None
            raise IndexMissing(
                f"There is no index or alias '{alias}'.", "Publish profiles first: `segments run --users`."
            ) from None
    source: Mapping[str, Any] = found["_source"]
    return source
