"""Store of canaries in the registry: at most one runs at a time, and its record is kept.

    <store>/experiments/<id>.json  every canary, replaced atomically while it runs

Start: the record is written first, then the challenger is set. End: the challenger is removed first, so that after a kill there is no
challenger without a record. A challenger that a person started is never changed. A record is changed under the lock and read under
that lock: what a person ended meanwhile stays ended.
"""

from __future__ import annotations

import secrets
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Literal

from msgspec import Struct
from msgspec.structs import replace

from tunectl.artifacts import lock
from tunectl.artifacts.canary_state import CanaryState
from tunectl.artifacts.names import ContentId, RecordName
from tunectl.artifacts.record_format import RecordFormat, rename_keys
from tunectl.canary.canary_metrics import CanaryMetric
from tunectl.canary.sequential_test import CanaryDecision, CanaryResult, SequentialTestRules, validate_rules
from tunectl.core.errors import GateError, UsageError
from tunectl.registry.registry_formats import AUTHORSHIP
from tunectl.registry.release_store import ReleaseRegistry

RECORDS: Final = "experiments"
UNTESTED_HINT: Final = "a canary test needs a release that its gate accepted; without a test: tunectl release canary start {} --no-test --share 0.1 --force"
"""What to do with a release that a gate refused."""
_RULES: Final = {
    "guard_tolerance": "guardrail_tolerance",
    "least": "min_units_per_variant",
    "most": "max_total_units",
}


def upgrade_record(record: dict[str, Any]) -> dict[str, Any]:
    """Return a record of 0.1 with the field names of today. The salt stays: it decides who gets the challenger."""
    result = rename_keys(record, {**AUTHORSHIP, "measure": "metric", "began": "started_at", "ended": "ended_at"})
    return {**result, "rules": rename_keys(result.get("rules", {}), _RULES)}


CANARY_RECORD: Final = RecordFormat("canary", (upgrade_record,))


class CanaryRecord(Struct, frozen=True, omit_defaults=True):
    """Record of one canary: challenger, test rules, period, decision and last result."""

    id: RecordName
    challenger: ContentId
    champion: str
    metric: CanaryMetric
    rules: SequentialTestRules
    attribution_hours: float
    slow_seconds: float
    started_at: datetime
    until: datetime
    """Until when the test may run without a decision."""
    salt: str
    author: str
    message: str
    run: str | None = None
    """The retrain that it belongs to; None: a person started it."""
    ended_at: datetime | None = None
    decision: CanaryDecision | None = None
    """Decision that ended it; ``running`` where a person stopped it before one was reached."""
    reading: CanaryResult | None = None
    """The last result."""


class CanaryRunningError(GateError):
    """Raised where a canary cannot start because the registry has another challenger, which must be stopped first."""


class CanaryStore:
    """Records of canaries in a registry; starting and ending one moves the registry's canary pointer with it."""

    def __init__(self, store: ReleaseRegistry) -> None:
        self.store, self.folder = store, store.root / RECORDS

    def all(self) -> list[CanaryRecord]:
        """Return every canary, the oldest first."""
        if not self.folder.is_dir():
            return []
        canaries: list[CanaryRecord] = [
            CANARY_RECORD.read(path, CanaryRecord) for path in sorted(self.folder.glob("*.json"))
        ]
        return sorted(canaries, key=lambda item: (item.started_at, item.id))

    def running(self) -> CanaryRecord | None:
        """Return the canary that has not ended; None where there is none. At most one runs at a time."""
        return next((item for item in self.all() if item.ended_at is None), None)

    def start(self, canary: CanaryRecord) -> CanaryRecord:
        """Start a canary and return it; with an id that exists already, continue that one, or return it where it has ended.

        Raises  CanaryRunningError while another one runs, or where a person has set a challenger; GateError for a release that a gate refused;
                UsageError for a release that is champion already, a store without a champion, or shares that leave a variant empty;
                ArtifactError for a release that is not there, or is damaged.
        """
        validate_rules(canary.rules)
        pointer = self.store.champion()
        if pointer is None:
            raise UsageError(
                f"{self.store.root} has no champion to compare with", hint="promote one: tunectl release promote ID"
            )
        if pointer.release == canary.challenger:
            raise UsageError(
                f"release {canary.challenger} is the champion already",
                hint="choose another release: tunectl release list",
            )
        self.store.manifest(canary.challenger)
        with self._lock_store():
            before = next((item for item in self.all() if item.id == canary.id), None)
            if before is not None and before.ended_at is not None:
                return before
            self.refuse_running(canary.id)
            result = self.running() or replace(canary, champion=pointer.release)
            state = self.store.canary()
            if state is not None and state.salt != result.salt:
                raise CanaryRunningError(
                    f"{state.release} is challenger already, set by {state.author or 'somebody'}: {state.message or 'no reason given'}",
                    hint="stop it first: tunectl release canary stop",
                )
            self.store.may_serve(result.challenger, hint=UNTESTED_HINT.format(result.challenger))
            self.write(result)
            self._put_up(result)
        return result

    def refuse_running(self, own: str = "") -> None:
        """Raise CanaryRunningError while a canary other than ``own`` is tested: its traffic would no longer be what was declared."""
        other = self.running()
        if other is not None and other.id != own:
            raise CanaryRunningError(
                f"canary {other.id} has been testing {other.challenger} since {other.started_at:%Y-%m-%d %H:%M} UTC",
                hint="wait for its end, or end it: tunectl release canary stop",
            )

    def write(self, canary: CanaryRecord) -> None:
        """Replace the record of a canary."""
        CANARY_RECORD.write(self._path(canary), canary)

    def record_result(self, canary: CanaryRecord, reading: CanaryResult) -> CanaryRecord:
        """Store the result of one evaluation; return the canary as it is now, which somebody may have ended."""
        with self._lock_store():
            now = self._read_record(canary)
            if now.ended_at is None and now.reading != reading:
                now = replace(now, reading=reading)
                self.write(now)
        return now

    def end(
        self,
        canary: CanaryRecord,
        decision: CanaryDecision,
        at: datetime,
        reading: CanaryResult | None,
        *,
        author: str = "",
        message: str = "",
        expected: tuple[int, str] | None = None,
    ) -> CanaryRecord:
        """Remove the challenger from the traffic, then record why; return the canary. An ended one is left unchanged.

        ``author`` (empty: the author of its start) and ``message`` are for the release history. ``expected``, and ChampionMovedError: as of
        ``ReleaseRegistry.stop_canary``.
        """
        with self._lock_store():
            now = self._read_record(canary)
            if self._is_followed(now):
                stop_message = f"canary {now.id} ended: {decision}" + (f"; {message}" if message else "")
                self.store.stop_canary(author=author or now.author, message=stop_message[:1000], expected=expected)
            if now.ended_at is None:
                now = replace(now, ended_at=at, decision=decision, reading=reading or now.reading)
                self.write(now)
        return now

    def _path(self, canary: CanaryRecord) -> Path:
        return self.folder / f"{canary.id}.json"

    def _read_record(self, canary: CanaryRecord) -> CanaryRecord:
        result: CanaryRecord = CANARY_RECORD.read(self._path(canary), CanaryRecord)
        return result

    def repair(self) -> bool:
        """Make the registry's challenger agree with the canary records after a kill; return whether it had to be changed."""
        if self._find_inconsistency() is None:
            return False
        with self._lock_store():
            wrong, running = self._find_inconsistency(), self.running()
            if wrong == "absent" and running is not None:
                self._put_up(running)
            elif wrong == "left over":
                self.store.stop_canary(author="tunectl", message="its canary test has ended")
        return wrong is not None

    def _find_inconsistency(self) -> Literal["absent", "left over"] | None:
        running, state, pointer = self.running(), self.store.canary(), self.store.champion()
        if running is not None:
            is_promoted = pointer is not None and pointer.release == running.challenger  # its end is not written yet
            return "absent" if state is None and not is_promoted else None
        return "left over" if state is not None and any(item.salt == state.salt for item in self.all()) else None

    def _is_followed(self, canary: CanaryRecord) -> bool:
        """Return whether the challenger that servers follow is this canary's."""
        state: CanaryState | None = self.store.canary()
        return state is not None and state.salt == canary.salt

    def _put_up(self, canary: CanaryRecord) -> None:
        if not self._is_followed(canary):
            reason = f"canary {canary.id}: {canary.message}"[:1000]
            self.store.start_canary(
                canary.challenger,
                share=canary.rules.share,
                author=canary.author,
                message=reason,
                salt=canary.salt,
            )

    def _lock_store(self) -> AbstractContextManager[None]:
        return lock.file_lock(
            self.store.root / ".experiment.lock",
            "a canary",
            busy=f"{self.store.root}: another process changes its canary",
            timeout_seconds=self.store.timeout_seconds,
        )


def draw_salt() -> str:
    """Return a random salt, so that the assignments of two canaries are independent."""
    return secrets.token_hex(8)
