"""Promote a release, roll back, start a canary without a test, stop one with or without: each with its consequences, a name, and a reason."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from msgspec import Struct

from tunectl.canary.canary_store import CanaryRunningError, CanaryStore
from tunectl.console.acts.act_errors import ConflictError, require_reason
from tunectl.console.read_context import NotFoundError, ProblemList, ReadContext
from tunectl.core.errors import UsageError
from tunectl.pipeline import trusted_keys
from tunectl.registry import release_state
from tunectl.registry.release_store import ChampionMovedError, ReleaseRegistry

LOCK_TIMEOUT_SECONDS = 5.0
"""Seconds that a change waits for another one."""


class SwapPreview(Struct, frozen=True):
    """Content of the confirmation page of a promotion, rollback, or start or end of a canary."""

    sentence: str
    consequences: list[str]
    refusals: list[str]
    """Checks of gates that failed; then no button is shown, and the act can only be forced on the command line."""
    button: str
    command: str
    sequence: int
    """Sequence of the champion pointer that was shown."""
    canary: str
    """Start of the canary that was shown; empty: there was none."""
    asks_share: bool = False
    dangerous: bool = False


def show_promotion(context: ReadContext, query: Mapping[str, str]) -> SwapPreview:
    """Return the confirmation page of promoting the release ``query["release"]``.

    Raises  NotFoundError for a release that the registry does not have.
    """
    store, name = _open(context), query["release"]
    if name not in store.ids():
        raise NotFoundError(name)
    champion, manifest = store.champion(), store.manifest(name)
    before = (
        f"{champion.release} stops being the champion and can be rolled back to."
        if champion
        else "It is the first champion."
    )
    none: list[str] = []
    servers = ProblemList().attempt("settings", lambda: context.load_settings().console.servers, none)
    consequences = [
        before,
        "Servers that look at this registry load it by themselves, prove that it answers, and then switch.",
        f"The next page says which of these have switched: {', '.join(servers)}."
        if servers
        else "No server is named in console.servers, so the console cannot say which have switched.",
        f"It takes {manifest.bytes / 1e6:.0f} MB on each of them.",
    ]
    if champion is not None and champion.release == name:
        consequences = ["It is the champion already; nothing changes."]
    return SwapPreview(
        f"Everybody will be answered by release {name}.",
        consequences,
        manifest.refusals,
        "Promote",
        f"tunectl release promote {name}",
        *_describe_state(store),
    )


def promote(context: ReadContext, form: Mapping[str, str]) -> str:
    """Make the release ``form["release"]`` the champion; return the path to go to.

    Raises  NotFoundError for an unknown release; UsageError without a reason; ConflictError where the registry changed meanwhile.
    """
    store, name = _open(context), form["release"]
    if name not in store.ids():
        raise NotFoundError(name)
    reason = require_reason(form)
    with _report_conflict():
        store.promote(name, author=context.visitor, message=reason, after=_sequence(form))
    _update_tracker(context)
    return f"/releases/{name}"


def show_rollback(context: ReadContext, query: object) -> SwapPreview:  # noqa: ARG001 - every act is shown alike
    """Return the confirmation page of a rollback.

    Raises  NotFoundError where there is no previous champion.
    """
    store = _open(context)
    champion = store.champion()
    if champion is None or champion.previous is None:
        raise NotFoundError("previous")
    return SwapPreview(
        f"Everybody will be answered by release {champion.previous} again.",
        [
            f"{champion.release} stops being the champion; it stays in the registry and can be promoted again.",
            "Servers switch within seconds where they still hold that release.",
        ],
        [],
        "Roll back",
        "tunectl release rollback",
        *_describe_state(store),
        dangerous=True,
    )


def roll_back(context: ReadContext, form: Mapping[str, str]) -> str:
    """Make the previous champion the champion again; return the path to go to.

    Raises  UsageError without a reason; ConflictError where the registry changed meanwhile.
    """
    store, reason = _open(context), require_reason(form)
    with _report_conflict():
        event = store.rollback(author=context.visitor, message=reason, after=_sequence(form))
    _update_tracker(context)
    return f"/releases/{event.release}"


def show_canary_start(context: ReadContext, query: Mapping[str, str]) -> SwapPreview:
    """Return the confirmation page of starting a canary with the release ``query["release"]``.

    Raises  NotFoundError for a release that the registry does not have; ConflictError while a canary is tested.
    """
    store, name = _open(context), query["release"]
    if name not in store.ids():
        raise NotFoundError(name)
    with _report_conflict():
        CanaryStore(store).refuse_running()
    canary = store.canary()
    ends = [f"The canary of {canary.release} ends."] if canary else []
    return SwapPreview(
        f"A share of the identities will be answered by release {name}, the others by the champion.",
        [
            *ends,
            "The same identity always gets the same of the two.",
            "No test decides here: it stays until somebody stops it or promotes it. With a test: tunectl release canary start.",
        ],
        store.manifest(name).refusals,
        "Start the canary",
        f"tunectl release canary start {name} --no-test --share 0.1",
        *_describe_state(store),
        asks_share=True,
    )


def start_canary(context: ReadContext, form: Mapping[str, str]) -> str:
    """Start a canary with the release ``form["release"]`` on ``form["share"]`` percent of the users; return the path to go to.

    Raises  NotFoundError for an unknown release; UsageError without a reason, or for a share that is not a number; ConflictError
            where the registry changed meanwhile, or a canary is tested.
    """
    store, name = _open(context), form["release"]
    if name not in store.ids():
        raise NotFoundError(name)
    reason = require_reason(form)
    try:
        share = float(form.get("share", "")) / 100
    except ValueError as error:
        raise UsageError(f"share = {form.get('share', '')[:40]!r}: must be a number from 0 to 100") from error
    form_state = (_sequence(form), form.get("canary", ""))
    with _report_conflict():
        CanaryStore(store).refuse_running()
        store.start_canary(name, share=share, author=context.visitor, message=reason, expected=form_state)
    _update_tracker(context)
    return f"/releases/{name}"


def show_canary_stop(context: ReadContext, query: object) -> SwapPreview:  # noqa: ARG001 - every act is shown alike
    """Return the confirmation page of removing the challenger.

    Raises  NotFoundError where there is none.
    """
    store = _open(context)
    canary = store.canary()
    if canary is None:
        raise NotFoundError("canary")
    test = CanaryStore(store).running()
    return SwapPreview(
        f"Nobody will be answered by release {canary.release} any more; everybody gets the champion.",
        [*(["Its test ends without a decision."] if test else []), "The release stays in the registry."],
        [],
        "Stop the canary",
        "tunectl release canary stop",
        *_describe_state(store),
    )


def stop_canary(context: ReadContext, form: Mapping[str, str]) -> str:
    """Remove the challenger, so that the champion answers all requests, and end its test; return the path to go to.

    Raises  UsageError without a reason; ConflictError where the registry changed meanwhile.
    """
    store, reason = _open(context), require_reason(form)
    form_state = (_sequence(form), form.get("canary", ""))
    canaries = CanaryStore(store)
    test, author = canaries.running(), context.visitor
    with _report_conflict():
        if test is None:
            release = store.stop_canary(author=author, message=reason, expected=form_state).release
        else:
            release = test.challenger
            canaries.end(test, "running", context.now, None, author=author, message=reason, expected=form_state)
    _update_tracker(context)
    return f"/releases/{release}"


def _open(context: ReadContext) -> ReleaseRegistry:
    trust = trusted_keys.open_trust(context.layout)
    if context.recording is not None:
        from tunectl.console.recorded_project import RecordedRegistry

        return RecordedRegistry(context.layout.releases, LOCK_TIMEOUT_SECONDS, trust)
    return ReleaseRegistry(context.layout.releases, LOCK_TIMEOUT_SECONDS, trust)


def _update_tracker(context: ReadContext) -> None:
    """Update the tracker's names of champion and challenger, as ``tunectl release`` does."""
    from tunectl.pipeline.build_tracking import mirror_releases

    if context.recording is None:
        mirror_releases(context.layout)


def _describe_state(store: ReleaseRegistry) -> tuple[int, str]:
    """Return the state that a form carries, to detect a change since."""
    canary = store.canary()
    return release_state.count_swaps(store.log()), canary.started_at if canary else ""


def _sequence(form: Mapping[str, str]) -> int:
    text = form.get("sequence", "")
    if not text.isdecimal() or len(text) > 12:
        raise UsageError(
            "the form lacks the sequence of the champion that was shown (a number of 1 to 12 digits)",
            hint="open the page again",
        )
    return int(text)


@contextmanager
def _report_conflict() -> Iterator[None]:
    """Turn a registry that has moved into the refusal that a page shows."""
    try:
        yield
    except ChampionMovedError as error:
        raise ConflictError(error.message, hint="check the champion on the page Releases, then decide again") from error
    except CanaryRunningError as error:
        raise ConflictError(error.message, hint="wait for its end, or stop it on the page Releases") from error
