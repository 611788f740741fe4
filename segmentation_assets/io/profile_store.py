"""The documents of ``user_profiles``.

What belongs here: publishing profiles, and reading one. What does not: what a profile holds (core.users.profiles), how
publishing is made safe (publishing).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from elasticsearch import Elasticsearch, NotFoundError

from segmentation_assets.core.settings import ProfileSettings
from segmentation_assets.core.users.profiles import UserProfiles, documents
from segmentation_assets.errors import SegmentsError
from segmentation_assets.io.elasticsearch import IndexMissing, errors_explained
from segmentation_assets.io.publishing import publish
from segmentation_assets.io.templates import profile_template


class UserUnknownError(SegmentsError):
    """There is no profile of this user."""


@dataclass(frozen=True)
class PublishedProfiles:
    """What was published.

    Attributes:
        alias: what consumers read.
        index: the index behind it.
        documents: how many it holds, one a user.
        previous: the index the alias led to before, if any.
        removed: older or unfinished indices that were removed.
        model_version: of the behaviour model.
    """

    alias: str
    index: str
    documents: int
    previous: str | None
    removed: list[str]
    model_version: str


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
    return PublishedProfiles(
        alias=published.alias,
        index=published.index,
        documents=published.documents,
        previous=published.previous,
        removed=[*published.removed, *published.leftovers_removed],
        model_version=profiles.model_version,
    )


def profile_of(client: Elasticsearch, alias: str, user_id: str) -> Mapping[str, Any]:
    """The profile of one user, as readers see it.

    Raises:
        IndexMissing: no profiles were published yet.
        UserUnknownError: there is none of this user.
        SegmentsError: see ``io.elasticsearch``.
    """
    with errors_explained(client, f"read {alias}"):
        try:
            found = client.get(index=alias, id=user_id)
        except NotFoundError as error:
            if isinstance(error.body, dict) and error.body.get("found") is False:
                raise UserUnknownError(
                    f"There is no profile of this user in {alias}.",
                    "Is the id as in user_sessions, and were profiles published since the user came?",
                ) from None
            raise IndexMissing(
                f"There is no index or alias '{alias}'.", "Publish profiles first: `segments run --users`."
            ) from None
    source: Mapping[str, Any] = found["_source"]
    return source
