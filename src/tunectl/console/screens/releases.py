"""Screen Releases: the champions over time (who, why, how long), then every release with its verdict."""

from __future__ import annotations

from datetime import datetime

from msgspec import Struct, field

from tunectl.artifacts.canary_state import CanaryState
from tunectl.console.read_context import ProblemList, ReadContext
from tunectl.console.server_state import ServerState, ask_servers
from tunectl.registry.release_manifest import RecordedVerdict, ReleaseManifest
from tunectl.registry.release_state import ChampionPointer, ReleaseEvent, swap_entries
from tunectl.registry.release_store import ReleaseRegistry


class ChampionEntry(Struct, frozen=True):
    """A period in which a release was the champion: who made it so, when, why, and until when."""

    release: str
    action: str
    """promote or rollback."""
    since: str
    until: str | None
    """End of the period; None: it is the champion now."""
    seconds: float
    author: str
    message: str


class ReleaseSummary(Struct, frozen=True):
    """Verdicts, metrics and role of a release, in the list and at the top of its page."""

    id: str
    role: str
    """champion, previous, challenger, or empty."""
    created_at: str
    engine: str
    bytes: int
    passed: bool
    verdicts: dict[str, RecordedVerdict]
    metrics: dict[str, float]
    parent: str | None
    git: str | None
    damaged: str = ""
    """Why it cannot be read."""


class ReleasesScreen(Struct, frozen=True):
    """Content of the screen Releases: champion, canary, the champions over time, and all releases."""

    champion: ChampionPointer | None
    canary: CanaryState | None
    reigns: list[ChampionEntry]
    """Periods of the champions, the newest first."""
    releases: list[ReleaseSummary]
    """All releases of the registry."""
    servers: list[ServerState] = field(default_factory=list)
    """Those of ``console.servers``."""
    problems: dict[str, str] = field(default_factory=dict)


def read_releases(
    context: ReadContext,
    query: object,  # noqa: ARG001 - every reader is called alike
    store: ReleaseRegistry | None = None,
) -> ReleasesScreen:
    """Return all releases, the newest first, with champion, canary and history, from ``store`` or the project's registry."""
    problems, store = ProblemList(), store or ReleaseRegistry(context.layout.releases)
    champion = problems.attempt("champion", store.champion, None)
    canary = problems.attempt("canary", store.canary, None)
    events = problems.attempt("history", store.log, list[ReleaseEvent]())
    names = problems.attempt("releases", store.ids, list[str]())
    roles = name_roles(champion, canary)
    return ReleasesScreen(
        champion,
        canary,
        list_reigns(events, context.now),
        [summarize_release(store, name, roles) for name in reversed(names)],
        ask_configured_servers(context, champion.release if champion else None, problems),
        problems.problems,
    )


def ask_configured_servers(context: ReadContext, champion: str | None, problems: ProblemList) -> list[ServerState]:
    """Return the state of each server of ``console.servers``; none for a terminal, which reads these screens, too, and asks nobody."""
    settings = problems.attempt("settings", context.load_settings, None) if context.visitor else None
    return ask_servers(settings.console.servers, champion) if settings else []


def name_roles(champion: ChampionPointer | None, canary: CanaryState | None) -> dict[str, str]:
    """Return the role (champion, previous or challenger) of each release that has one, by release."""
    roles = {canary.release: "challenger"} if canary else {}
    if champion is not None:
        roles |= {champion.previous: "previous"} if champion.previous else {}
        roles[champion.release] = "champion"
    return roles


def list_reigns(events: list[ReleaseEvent], now: datetime) -> list[ChampionEntry]:
    """Return when each release was the champion, the newest period first."""
    swaps = swap_entries(events)
    ends = [*(swap.created_at for swap in swaps[1:]), None]
    reigns = []
    for swap, end in zip(swaps, ends, strict=False):  # without a swap there is one end too many
        until = datetime.fromisoformat(end) if end else now
        seconds = max(0.0, (until - datetime.fromisoformat(swap.created_at)).total_seconds())
        reigns.append(
            ChampionEntry(swap.release, swap.action, swap.created_at, end, seconds, swap.author, swap.message)
        )
    return reigns[::-1]


def summarize_release(store: ReleaseRegistry, name: str, roles: dict[str, str]) -> ReleaseSummary:
    """Return the summary of a release; one that cannot be read has the reason in ``damaged``. ``roles``: as of ``name_roles``."""
    problems = ProblemList()
    release: ReleaseManifest | None = problems.attempt(name, lambda: store.manifest(name), None)
    role = roles.get(name, "")
    if release is None:
        return ReleaseSummary(name, role, "", "", 0, False, {}, {}, None, None, problems.problems[name])
    return ReleaseSummary(
        name,
        role,
        release.created_at,
        release.engine,
        release.bytes,
        not release.refusals,
        release.verdicts,
        release.metrics,
        release.parent,
        release.git,
    )
