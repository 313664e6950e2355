"""Which releases are loaded under which arm, kept as the release store says: polled, proved, swapped, kept, let go.

A new champion loads beside the old one and takes over once it is proved; one that fails leaves the old one serving. The
release before stays loaded for a while, so that going back is immediate. Nothing waits for a load: while one goes on, the
store is looked at as ever, and a release that is in memory already takes over at once.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tunectl.artifacts.records import Trial
from tunectl.core import log
from tunectl.core.errors import ArtifactError, EnvironmentFailure, TunectlError
from tunectl.release.store import Served
from tunectl.services.server.resident import Engines, Resident, opened
from tunectl.serving.arms import Arm


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the store says should be loaded."""

    champion: str | None
    trial: Trial | None

    def release(self, arm: Arm) -> str | None:
        """The release that an arm should have."""
        if arm == "challenger":
            return self.trial.release if self.trial is not None else None
        return self.champion


class Residents:
    """The arms of one server; belongs to its event loop."""

    def __init__(
        self,
        store: Served,
        engines: Engines,
        *,
        seed: Path | None,
        base: bool,
        observe: float,
        changed: Callable[[], None],
    ) -> None:
        """Nothing is loaded yet: ``follow`` or ``look`` begins that.

        seed     the release that the Bento brought, served until the store has a champion
        base     whether the base model is an arm as well
        observe  seconds for which the release before stays in memory after a swap
        changed  called after every change of ``loaded``
        """
        self._store, self._engines, self._seed = store, engines, seed
        self._arms: tuple[Arm, ...] = ("champion", "challenger", "base") if base else ("champion", "challenger")
        self._observe, self._changed = observe, changed
        self.loaded: dict[Arm, Resident] = {}
        """Champion and challenger may be one and the same."""
        self.trial: Trial | None = None
        self.trouble: dict[Arm, str] = {}
        """Why an arm is not what it should be."""
        self._goal: dict[Arm, str | None] = {}
        self._refused: dict[tuple[Arm, str], tuple[object, str]] = {}
        self._resting: dict[str, tuple[Resident, float]] = {}
        self._loading: dict[tuple[Arm, str], asyncio.Task[None]] = {}
        self._turn = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def ready(self) -> bool:
        """Whether a champion answers."""
        return "champion" in self.loaded

    async def follow(self, every: float) -> None:
        """Look at the store again and again, for ever."""
        while True:
            await self.look()
            await asyncio.sleep(every)

    async def look(self) -> None:
        """Bring what is loaded in line with the store, as far as that needs no load; begin the loads that it needs."""
        try:
            wanted = await asyncio.to_thread(self._wanted)
        except (TunectlError, OSError) as error:
            self._note("champion", f"the release store cannot be read: {error}")
            return
        for arm in self._arms:
            self._goal[arm] = wanted.release(arm)
            self._settle(arm, wanted.release(arm))
        self.trial = wanted.trial
        self._let_go(time.monotonic())

    async def loads(self) -> None:
        """Wait for the loads that were begun."""
        while self._loading:
            await asyncio.gather(*self._loading.values())

    def _wanted(self) -> Wanted:
        pointer = self._store.champion()
        return Wanted(pointer.release if pointer else self._seed.name if self._seed else None, self._store.trial())

    def _settle(self, arm: Arm, release: str | None) -> None:
        now = self.loaded.get(arm)
        if release is None:
            if arm == "champion":
                self._note(
                    arm, f"there is no champion in {self._store.place}; promote a release: tunectl release promote ID"
                )
            else:
                self._rest(arm)
                self.trouble.pop(arm, None)
            return
        if now is not None and now.id == release:
            if now.pipeline.broken is None:
                self.trouble.pop(arm, None)
                return
            self._drop(arm, now)
        found = self._at_hand(arm, release)
        if found is not None:
            self._swap(arm, found)
        elif (arm, release) not in self._loading:
            self._begin(arm, release)

    def _at_hand(self, arm: Arm, release: str) -> Resident | None:
        """A release that is in memory already: as the other arm, or at rest. The base is never another arm's."""
        if arm == "base":
            return None
        held = [one for other, one in self.loaded.items() if other != "base"]
        held += [one for name, (one, _) in self._resting.items() if name == release]
        return next((one for one in held if one.id == release and one.pipeline.broken is None), None)

    def _begin(self, arm: Arm, release: str) -> None:
        """Load in a task of its own, unless these very files were refused before."""
        folder = self._folder(release)
        stamp = _stamp(folder)
        before = self._refused.get((arm, release))
        if before is not None and before[0] == stamp:
            self.trouble[arm] = before[1]
            return
        self._loading[(arm, release)] = asyncio.create_task(self._load(arm, release, folder, stamp))

    async def _load(self, arm: Arm, release: str, folder: Path, stamp: object) -> None:
        """Load, prove, and put in its place what is still wanted by then. One load at a time: each takes all threads."""
        try:
            async with self._turn:
                if self._goal.get(arm) != release or self._at_hand(arm, release) is not None:
                    return  # the next look sees to it
                log.get(__name__).info("loading release %s as %s", release, arm)
                if folder != self._seed:
                    await asyncio.to_thread(self._store.bring, release)
                resident = await opened(folder, self._engines, base=arm == "base")
            if self._goal.get(arm) == release:
                self._swap(arm, resident)
            else:
                self._retire(resident)
        except (TunectlError, OSError) as error:
            if isinstance(error, EnvironmentFailure) and not isinstance(error, ArtifactError):
                self._note(arm, str(error))  # a network, a disk: it may go better next time
            else:
                self._refuse(arm, release, stamp, str(error))
        except Exception as error:  # noqa: BLE001  # a release that makes some library fail must not end the server
            log.get(__name__).exception("release %s cannot be loaded", release)
            self._refuse(arm, release, stamp, f"release {release} cannot be loaded: {type(error).__name__}: {error}")
        finally:
            del self._loading[(arm, release)]

    def _refuse(self, arm: Arm, release: str, stamp: object, reason: str) -> None:
        self._refused[(arm, release)] = (stamp, reason)
        self._note(arm, reason)

    def _folder(self, release: str) -> Path:
        folder = self._store.folder(release)
        if not folder.is_dir() and self._seed is not None and self._seed.name == release:
            return self._seed
        return folder

    def _swap(self, arm: Arm, resident: Resident) -> None:
        self._rest(arm)
        self._resting.pop(resident.id, None)
        self.loaded[arm] = resident
        self.trouble.pop(arm, None)
        proof = resident.proof
        shown = f"; {proof.agreement:.1%} of {proof.tokens} probe tokens agree" if proof else ""
        log.get(__name__).info("release %s answers as %s%s", resident.id, arm, shown)
        self._changed()

    def _rest(self, arm: Arm) -> None:
        """Take an arm's release out of its place; it stays in memory for a while, unless another arm has it as well."""
        old = self.loaded.pop(arm, None)
        if old is None:
            return
        if not any(one is old for one in self.loaded.values()):
            key = old.id if arm != "base" else f"{old.id} base"
            self._resting[key] = (old, time.monotonic() + (self._observe if arm != "base" else 0))
        self._changed()

    def _drop(self, arm: Arm, broken: Resident) -> None:
        """Let go of a pipeline that failed; it is opened anew at once."""
        self._note(arm, f"the engine failed and is started again: {broken.pipeline.broken}")
        del self.loaded[arm]
        self._changed()
        self._retire(broken)

    def _retire(self, resident: Resident) -> None:
        self._tasks.add(task := asyncio.create_task(resident.retire()))
        task.add_done_callback(self._tasks.discard)

    def _let_go(self, now: float) -> None:
        """Close what has rested long enough, and whatever rests beside a newer one."""
        newest = max(self._resting, key=lambda key: self._resting[key][1], default=None)
        for key, (resident, until) in list(self._resting.items()):
            if now >= until or key != newest:
                del self._resting[key]
                self._retire(resident)

    def _note(self, arm: Arm, reason: str) -> None:
        if self.trouble.get(arm) != reason:
            log.get(__name__).error("%s: %s", arm, reason)
        self.trouble[arm] = reason

    async def close(self) -> None:
        """Give everything back; what is being loaded is given up."""
        for task in self._loading.values():
            task.cancel()
        held = {id(one): one for one in (*self.loaded.values(), *(one for one, _ in self._resting.values()))}
        self.loaded.clear()
        self._resting.clear()
        await asyncio.gather(*(asyncio.to_thread(resident.pipeline.close) for resident in held.values()))


def _stamp(folder: Path) -> object:
    """Changes when somebody puts other files there."""
    try:
        return sorted((item.name, item.stat().st_mtime_ns, item.stat().st_size) for item in folder.rglob("*"))
    except OSError:
        return None
