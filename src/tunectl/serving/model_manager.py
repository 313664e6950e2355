"""Load and swap releases so that the server follows the registry.

A swap has two phases. First the new release is loaded beside the old one, and its adapter proof runs; if either fails, the old
one keeps serving. Then one assignment in the event loop replaces it, so every request is answered by exactly one release. The
old release stays in memory for a while, which makes a rollback immediate. The registry is polled during a load as well, and a
release that is already in memory is used at once.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from math import inf
from pathlib import Path

from tunectl.artifacts.canary_state import CanaryState, Variant
from tunectl.core import logging_setup
from tunectl.core.errors import GateError, TunectlError
from tunectl.registry.protocols import RegistryReader
from tunectl.serving import load_backoff
from tunectl.serving.background_threads import run_in_thread
from tunectl.serving.loaded_release import Engines, LoadedRelease, load_release
from tunectl.serving.release_vetting import ReleaseVetting


@dataclass(frozen=True, slots=True)
class DesiredState:
    """The releases that the registry wants loaded as champion and challenger, as of one poll."""

    champion: str | None
    canary: CanaryState | None
    warning: str = ""
    """Why the pointer in the registry is not followed, or what is wrong with the serving release."""
    refusals: Mapping[str, str] = field(default_factory=dict)
    """Releases that must not be loaded, with the reason."""

    def release(self, variant: Variant) -> str | None:
        """Return the release that the registry wants for a variant; None where it wants none."""
        if variant == "challenger":
            return self.canary.release if self.canary is not None else None
        return self.champion


CLOSING = 5.0
"""Seconds for closing old releases when the server stops."""


class ModelManager:
    """Loads, swaps and closes the releases of one server, variant by variant; used only on its event loop."""

    def __init__(
        self,
        store: RegistryReader,
        engines: Engines,
        *,
        bundled: Path | None,
        base: bool,
        standby_seconds: float,
        changed: Callable[[], None],
        silence_seconds: float = inf,
        load_timeout_seconds: float = inf,
    ) -> None:
        """Start without a release; ``follow`` or ``reconcile`` loads.

        bundled               the release in the Bento, served until the store has a champion
        base                  whether the base model is a variant as well
        standby_seconds       seconds for which the previous release stays in memory after a swap
        changed               called after every change of ``loaded``
        silence_seconds       seconds for which an engine with running answers may give no token; then it is opened again
        load_timeout_seconds  seconds in which a release must be loaded and verified; then it is given up, and tried again later
        """
        self._store, self._engines, self._bundled = store, engines, bundled
        self._variants: tuple[Variant, ...] = ("champion", "challenger", "base") if base else ("champion", "challenger")
        self._standby_seconds, self._changed = standby_seconds, changed
        self._silence_seconds, self._load_timeout_seconds = silence_seconds, load_timeout_seconds
        self.loaded: dict[Variant, LoadedRelease] = {}
        """Champion and challenger may be the same release."""
        self.canary: CanaryState | None = None
        self.trouble: dict[Variant, str] = {}
        """Why a variant does not have the wanted release."""
        self.warning = ""
        """Why the registry's pointer is not followed; empty where it is."""
        self.vetting = ReleaseVetting(store, bundled)
        """Which pointer is followed, and what may be loaded."""
        self._registry_refusals: Mapping[str, str] = {}
        self._goal: dict[Variant, str | None] = {}
        self._refusals = load_backoff.LoadBackoff()
        self._resting: dict[str, tuple[LoadedRelease, float]] = {}
        self._loading: dict[tuple[Variant, str], asyncio.Task[None]] = {}
        self._turn = asyncio.Lock()
        """Lock of the loads: each load takes all threads."""
        self._bringing: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        """Locks of the downloads: two variants may want the same release."""
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def ready(self) -> bool:
        """Whether a champion is loaded."""
        return "champion" in self.loaded

    async def run_forever(self, every: float) -> None:
        """Poll the registry every ``every`` seconds until cancelled."""
        while True:
            await self.reconcile()
            await asyncio.sleep(every)

    async def reconcile(self) -> None:
        """Poll the registry once: swap releases that are in memory, and start the loads that are needed."""
        try:
            desired = await run_in_thread(self._read_desired_state)
        except (TunectlError, OSError) as error:
            self._note("champion", f"the release store cannot be read: {error}")
            self._reopen_failed()
            self._let_go(time.monotonic())
            return
        if desired.warning and desired.warning != self.warning:
            logging_setup.get_logger(__name__).error("%s", desired.warning)
        self.warning, self._registry_refusals = desired.warning, desired.refusals
        for variant in self._variants:
            release = desired.release(variant)
            if release != self._goal.get(variant):
                self._goal[variant] = release
                self._refusals.forget(variant)
            self._settle(variant, release)
        self.canary = desired.canary
        self._let_go(time.monotonic())

    def _read_desired_state(self) -> DesiredState:
        """Return the current state in the store. A folder that is not mounted any more looks like an empty one: the pointer stays."""
        (pointer, problem), (canary, doubt) = self.vetting.read_pointer(), self.vetting.read_canary()
        now = self.loaded.get("champion")
        champion, reason = self.vetting.choose_champion(pointer, now.id if now is not None else None)
        refusals: dict[str, str] = {}
        if canary is not None and (refusal := self.vetting.find_refusal(canary.release)):
            refusals[canary.release] = refusal
            challenger = self.loaded.get("challenger")
            doubt = doubt or (refusal if challenger is not None and challenger.id == canary.release else "")
        if champion is None and reason:
            refusals[pointer.release if pointer else ""] = reason
            champion = pointer.release if pointer else None
        warning = "; ".join(filter(None, (problem, doubt, reason)))
        return DesiredState(champion, canary, warning, refusals)

    def _reopen_failed(self) -> None:
        """Open failed releases again, by the last known state of the store."""
        for variant, release in self._goal.items():
            now = self.loaded.get(variant)
            if release is not None and (now is None or self._failure(now)):
                self._settle(variant, release)

    def _settle(self, variant: Variant, release: str | None) -> None:
        now = self.loaded.get(variant)
        if release is None:
            if variant == "champion":
                self._note(
                    variant,
                    f"there is no champion in {self._store.location}; promote a release: tunectl release promote ID",
                )
            else:
                self._rest(variant)
                self.trouble.pop(variant, None)
            return
        if now is not None and now.id == release:
            failure = self._failure(now)
            if failure is None:
                self.trouble.pop(variant, None)
                return
            self._drop(variant, now, failure)
        if release in self._registry_refusals:
            self._note(variant, self._registry_refusals[release])
            if variant == "challenger":
                self._rest(variant)
            return
        loaded = self._at_hand(variant, release)
        if loaded is not None:
            self._swap(variant, loaded)
            return
        if variant == "challenger":
            self._rest(variant)  # a request for the challenger must not reach the previous one
        if (variant, release) not in self._loading:
            self._begin(variant, release)

    def _failure(self, loaded_release: LoadedRelease) -> str | None:
        """Return why a release in memory cannot answer any more; None while it can."""
        silence = loaded_release.router.idle_seconds(time.monotonic())
        if loaded_release.engine_session.broken is None and silence >= self._silence_seconds:
            return f"it has said nothing for {silence:.0f} s"
        return loaded_release.engine_session.broken

    def _at_hand(self, variant: Variant, release: str) -> LoadedRelease | None:
        """Return a release that is in memory already, as another variant or as a former one; the base is never shared."""
        if variant == "base":
            return None
        releases_here = [item for other, item in self.loaded.items() if other != "base"]
        releases_here += [resting for name, (resting, _) in self._resting.items() if name == release]
        return next((item for item in releases_here if item.id == release and self._failure(item) is None), None)

    def _begin(self, variant: Variant, release: str) -> None:
        """Load in a separate task, unless the same files have failed before."""
        folder = self._folder(release)
        reason = self._refusals.find_refusal(
            variant, load_backoff.files_stamp(folder), time.monotonic(), idle=not self.ready
        )
        if reason is not None:
            self.trouble[variant] = reason
            return
        self._loading[(variant, release)] = asyncio.create_task(self._load(variant, release, folder))

    async def _load(self, variant: Variant, release: str, folder: Path) -> None:
        """Download, load, verify, and swap in a release if it is still wanted then. Downloads do not delay other loads."""
        stamp = load_backoff.files_stamp(folder)
        try:
            if folder != self._bundled:
                async with self._bringing[release]:
                    await run_in_thread(partial(self._store.fetch, release))
                stamp = load_backoff.files_stamp(folder)
            await run_in_thread(partial(self.vetting.check_files, folder))
            await self._let_champion_load(variant)
            async with self._turn:
                if self._goal.get(variant) != release or self._at_hand(variant, release) is not None:
                    return  # the next poll decides
                logging_setup.get_logger(__name__).info("loading release %s as %s", release, variant)
                loaded_release = await load_release(
                    folder, self._engines, base=variant == "base", load_timeout_seconds=self._load_timeout_seconds
                )
            # The registry may have changed during the load, which takes seconds to minutes: check again before the swap
            if self._goal.get(variant) == release:
                self._swap(variant, loaded_release)
            else:
                self._retire(loaded_release)
        except (TunectlError, OSError) as error:
            lasting = load_backoff.is_permanent(error, folder) and not isinstance(error, GateError)
            self._refuse(variant, release, stamp, str(error), lasting=lasting)
        except Exception as error:  # noqa: BLE001  # a release that makes a library fail must not end the server
            logging_setup.get_logger(__name__).exception("release %s cannot be loaded", release)
            reason = f"release {release} cannot be loaded: {type(error).__name__}: {error}"
            self._refuse(variant, release, stamp, reason, lasting=True)
        finally:
            del self._loading[(variant, release)]

    async def _let_champion_load(self, variant: Variant) -> None:
        """Wait for the load of the first champion: without it no request is answered, so other loads must wait."""
        champion = [task for (name, _), task in self._loading.items() if name == "champion"]
        if variant != "champion" and "champion" not in self.loaded and champion:
            await asyncio.wait(champion)

    def _refuse(self, variant: Variant, release: str, stamp: object, reason: str, *, lasting: bool) -> None:
        if self._goal.get(variant) != release:
            logging_setup.get_logger(__name__).error(
                "%s, which was to be %s a moment ago: %s", release, variant, reason
            )
            return
        self._refusals.add(variant, stamp, reason, time.monotonic(), lasting=lasting)
        self._note(variant, reason)

    def _folder(self, release: str) -> Path:
        folder = self._store.folder(release)
        if not folder.is_dir() and self._bundled is not None and self._bundled.name == release:
            return self._bundled
        return folder

    def _swap(self, variant: Variant, loaded_release: LoadedRelease) -> None:
        self._rest(variant)
        resting = self._resting.pop(loaded_release.id, None)
        if resting is not None and resting[0] is not loaded_release:
            self._retire(resting[0])  # the standby release failed in the meantime
        self.loaded[variant] = loaded_release
        self.trouble.pop(variant, None)
        self._refusals.forget(variant)
        proof = loaded_release.proof
        proof_text = f"; {proof.agreement:.1%} of {proof.tokens} probe tokens agree" if proof else ""
        logging_setup.get_logger(__name__).info("release %s answers as %s%s", loaded_release.id, variant, proof_text)
        self._changed()

    def _rest(self, variant: Variant) -> None:
        """Remove a variant's release; it stays in memory for a while, unless another variant uses it as well.

        A rollback needs the former champion, so a challenger is kept only where no other release is.
        """
        old = self.loaded.pop(variant, None)
        if old is None:
            return
        if not any(item is old for item in self.loaded.values()):
            rests = variant == "champion" or (variant == "challenger" and not self._resting)
            key = old.id if variant != "base" else f"{old.id} base"
            self._resting[key] = (old, time.monotonic() + (self._standby_seconds if rests else 0))
        self._changed()

    def _drop(self, variant: Variant, failed: LoadedRelease, reason: str) -> None:
        """Drop a failed engine; it is opened again at once."""
        self._note(variant, f"the engine failed and is started again: {reason}")
        del self.loaded[variant]
        self._changed()
        self._retire(failed)

    def _retire(self, loaded_release: LoadedRelease) -> None:
        self._tasks.add(task := asyncio.create_task(loaded_release.retire(self._silence_seconds)))
        task.add_done_callback(self._tasks.discard)

    def _let_go(self, now: float) -> None:
        """Close releases that were kept for long enough, and all but the newest one."""
        newest = max(self._resting, key=lambda key: self._resting[key][1], default=None)
        for key, (loaded_release, until) in list(self._resting.items()):
            if now >= until or key != newest:
                del self._resting[key]
                self._retire(loaded_release)

    def _note(self, variant: Variant, reason: str) -> None:
        if self.trouble.get(variant) != reason:
            logging_setup.get_logger(__name__).error("%s: %s", variant, reason)
        self.trouble[variant] = reason

    async def close(self) -> None:
        """Cancel loads and close all releases, when the server stops."""
        given_up = set(self._loading.values())
        for task in given_up:
            task.cancel()
        loaded_releases = {
            id(item): item for item in (*self.loaded.values(), *(item for item, _ in self._resting.values()))
        }
        self.loaded.clear()
        self._resting.clear()
        await asyncio.gather(*(loaded_release.close() for loaded_release in loaded_releases.values()))
        if tasks := self._tasks | given_up:
            await asyncio.wait(tasks, timeout=CLOSING)
