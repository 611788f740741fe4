"""The checks of the user side: numbers, bounds, verdicts.

What belongs here: one function a check, as in core.quality, whose outcomes these are. What does not: Dagster, bounds.
"""

from segmentation_assets.core.labels import LabeledSegments
from segmentation_assets.core.quality import CheckOutcome, judged, publish_gate
from segmentation_assets.core.settings import BehaviourStabilityBounds, CheckSettings, NoiseBounds
from segmentation_assets.core.users.behaviour import BehaviourModel
from segmentation_assets.core.users.cleaning import CleaningAccount, CleanSessions


def cleaning_accounted(account: CleaningAccount) -> CheckOutcome:
    """Nothing is lost while cleaning: what came in is used or set aside with a reason, sessions and events."""
    problems = []
    values: dict[str, float | int | str] = {}
    for what, read, used, aside in (
        ("sessions", account.sessions_read, account.sessions_used, account.sessions_set_aside),
        ("events", account.events_read, account.events_used, account.events_set_aside),
    ):
        values |= {f"{what}_read": read, f"{what}_used": used, f"{what}_set_aside": sum(aside.values())}
        values |= {f"{what}_{reason}": n for reason, n in sorted(aside.items())}
        missing = read - used - sum(aside.values())
        if missing:
            problems.append(
                f"{read} {what} came in, {used} are used and {sum(aside.values())} set aside: "
                f"{abs(missing)} unaccounted"
            )
    return judged("cleaning_accounted", "ERROR", values, problems)


def noise_share(clean: CleanSessions, bounds: NoiseBounds) -> CheckOutcome:
    """Not too many users behave like machines or are our own people."""
    users, noise = clean.users.num_rows, clean.account.noise
    marked = sum(1 for reasons in clean.users["noise"].to_pylist() if reasons)
    share = marked / users if users else 0.0
    problems = []
    if share > bounds.max_share:
        reasons = ", ".join(f"{reason} {n}" for reason, n in sorted(noise.items(), key=lambda item: -item[1]))
        problems.append(f"{share:.1%} of the users are marked as noise, over {bounds.max_share:.1%} ({reasons})")
    return judged(
        "noise_share",
        bounds.severity,
        {
            "users": users,
            "marked": marked,
            "share": round(share, 6),
            "max_share": bounds.max_share,
            **{f"noise_{reason}": n for reason, n in sorted(noise.items())},
        },
        problems,
    )


def behaviour_stability(model: BehaviourModel, bounds: BehaviourStabilityBounds) -> CheckOutcome:
    """The behaviour clusters are found again in other samples, lie apart, and hold most users."""
    users = len(model.labels)
    outside = model.noise / users if users else 1.0
    agreement, silhouette = model.stability.agreement, model.stability.silhouette
    problems = []
    if agreement is not None and agreement < bounds.min_agreement:
        problems.append(
            f"clusterings of other samples agree by {agreement:.2f} (adjusted Rand index), under "
            f"{bounds.min_agreement:.2f}"
        )
    if silhouette is None:
        found = "is 1 cluster" if len(model.sizes) == 1 else f"are {len(model.sizes) or 'no'} clusters"
        problems.append(f"there {found}, so nothing to tell apart")
    elif silhouette < bounds.min_silhouette:
        problems.append(f"the silhouette is {silhouette:.2f}, under {bounds.min_silhouette:.2f}")
    if outside > bounds.max_unclustered_share:
        problems.append(f"{outside:.1%} of the users are in no cluster, over {bounds.max_unclustered_share:.1%}")
    return judged(
        "behaviour_stability",
        bounds.severity,
        {
            "clusters": len(model.sizes),
            "agreement": "not measured" if agreement is None else round(agreement, 4),
            "min_agreement": bounds.min_agreement,
            "silhouette": "not defined" if silhouette is None else round(silhouette, 4),
            "min_silhouette": bounds.min_silhouette,
            "unclustered_share": round(outside, 6),
            "max_unclustered_share": bounds.max_unclustered_share,
        },
        problems,
    )


def profiles_complete(users: int, published: int) -> CheckOutcome:
    """What readers see is every user of the sessions."""
    return judged(
        "profiles_complete",
        "ERROR",
        {"users": users, "published": published},
        [f"{users} users have a profile, but readers see {published}"] if users != published else [],
    )


def users_agree(clean: CleanSessions, model: BehaviourModel, labeled: LabeledSegments) -> CheckOutcome:
    """Everybody in the sessions was labelled and assigned, and nobody else: all three are of the same run."""
    users = clean.users["user_id"].combine_chunks()
    others = {
        "labelled segments": (labeled.users["user_id"].combine_chunks(), "raw_sessions"),
        "behaviour clusters": (model.users, "clean_sessions"),
    }
    problems = [
        f"the sessions have {len(users)} users, and the {what} {len(found)}, not all of them the same: materialize "
        f"everything from {root} on"
        for what, (found, root) in others.items()
        if not users.equals(found)
    ]
    values: dict[str, float | int | str] = {"users": len(users)}
    return judged("users_agree", "ERROR", values | {what: len(found) for what, (found, _) in others.items()}, problems)


def profile_gate(
    clean: CleanSessions, model: BehaviourModel, labeled: LabeledSegments, checks: CheckSettings
) -> list[CheckOutcome]:
    """The outcomes that must hold before profiles are published, computed from the data that they are made of."""
    return [
        cleaning_accounted(clean.account),
        users_agree(clean, model, labeled),
        noise_share(clean, checks.noise_share),
        behaviour_stability(model, checks.behaviour_stability),
        *publish_gate(labeled, checks),
    ]
