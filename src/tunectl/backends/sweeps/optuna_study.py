"""Wrapper of Optuna: a sweep is a study; workers ask for trials and report how they ended.

A claimed trial stays the same trial until it has ended: where its worker dies, another one takes it over, under the
same number. So every set of values ends in exactly one finished or pruned trial. Claiming a trial (asking, taking
over, reporting) happens under one lock per storage: a file beside an SQLite file, an advisory lock of PostgreSQL.
"""

from __future__ import annotations

import math
import threading
import time
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec

from tunectl.backends.sweeps import optuna_storage, trial_pruning, trial_queue
from tunectl.backends.sweeps.trial_queue import START
from tunectl.config.schema.sweep import Sweep
from tunectl.core import logging_setup
from tunectl.core.errors import UsageError
from tunectl.core.optional import import_optional
from tunectl.sweeps import search_space
from tunectl.sweeps.trial_records import (
    SweepConfirmation,
    SweepDefinition,
    SweepSummary,
    TrialClaim,
    TrialOutcome,
    TrialSummary,
)

_log = logging_setup.get_logger(__name__)
DEFINITION = "definition"
STOPPED = "stopped"
DEADLINE = "deadline"
LEASE = "lease"
CONFIRMATION = "confirmation"
OVERRIDES = "overrides"
OUTCOME = "outcome"
IMPORTANCE = "importance"
LOCK_TIMEOUT_SECONDS = 600.0
"""Seconds to wait for the lock of a storage; it is held for a fraction of a second."""
MISSING_BEATS = 3
"""Heartbeats that a worker may miss."""


class TrialLease(msgspec.Struct, frozen=True, kw_only=True):
    """The worker that runs a trial, and its number of attempts; stored in the trial's attributes."""

    owner: str = ""
    """Empty where the trial was released, or no worker has begun it."""
    attempt: int = 0


def _lease(trial: Any) -> TrialLease:
    return msgspec.convert(trial.user_attrs.get(LEASE, {}), TrialLease)


class SweepStudy:
    """One sweep and its trials, stored as an Optuna study that all workers of the sweep share."""

    def __init__(self, study: Any, storage: Any, definition: SweepDefinition) -> None:
        self._study = study
        self._storage = storage
        self.definition = definition
        self.section = Sweep.model_validate(definition.section)

    @property
    def name(self) -> str:
        """Name of the sweep, ``sweep.name``."""
        return self.section.name

    @property
    def url(self) -> str:
        """Address of the sweep's storage, with the password."""
        return optuna_storage.render_url(self._storage)

    def claim(self, worker: str) -> TrialClaim | None:
        """Return the next trial for ``worker``: one whose worker died, else a new one; None if there is none at this moment."""
        with self._exclusive():
            for trial in self._list_orphans():
                attempts = _lease(trial).attempt
                if attempts >= self.section.max_attempts:
                    reason = f"its worker died {attempts} times"
                    self._record_outcome(trial._trial_id, TrialOutcome(state="failed", reason=reason))  # noqa: SLF001
                    continue
                return self._begin(trial.number, trial._trial_id, worker, attempts + 1)  # noqa: SLF001
            if self._is_stopped() or not self._has_room():
                return None
            number = self._next_number()
            with _quiet():
                self._study.sampler = self._sampler(number)
                trial = self._study.ask()
            return self._begin(trial.number, trial._trial_id, worker, 1)  # noqa: SLF001

    def is_finished(self) -> bool:
        """Return whether no trial is running and none will start."""
        with self._exclusive():
            open_trials = [trial for trial in self._trials() if trial.state.name == "RUNNING"]
            return not open_trials and (self._is_stopped() or not self._has_room())

    def finish(self, claim: TrialClaim, worker: str, outcome: TrialOutcome) -> bool:
        """Record how a trial ended; return False if another worker has taken it over: then ``outcome`` is ignored."""
        with self._exclusive():
            trial = self._storage.get_trial(claim.id)
            if trial.state.is_finished() or _lease(trial).owner != worker:
                return False
            self._record_outcome(claim.id, outcome)
            if outcome.state == "complete":  # for those who read the storage without Optuna
                self._study.set_user_attr(IMPORTANCE, self._importance())
            return True

    def release(self, claim: TrialClaim, worker: str) -> None:
        """Give up an unfinished trial, so that the next worker can claim it without waiting for missed heartbeats."""
        with self._exclusive():
            trial = self._storage.get_trial(claim.id)
            if not trial.state.is_finished() and _lease(trial).owner == worker:
                self._set_lease(claim.id, TrialLease(attempt=claim.attempt - 1))

    @contextmanager
    def beat(self, claim: TrialClaim) -> Iterator[None]:
        """Send heartbeats for the trial while the block runs."""
        ended = threading.Event()
        optuna = import_optional("optuna", extra="sweep")

        def repeat() -> None:
            while not ended.wait(self.section.heartbeat_seconds):
                with suppress(optuna.exceptions.OptunaError):  # the database may be away for a moment
                    self._storage.record_heartbeat(claim.id)

        thread = threading.Thread(target=repeat, name="sweep-heartbeat", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    @property
    def confirmation(self) -> SweepConfirmation | None:
        """Comparison of the best trial with the current settings on the test split; None if it was not made yet."""
        stored = self._study.user_attrs.get(CONFIRMATION)
        return msgspec.convert(stored, SweepConfirmation) if stored is not None else None

    def set_confirmation(self, confirmation: SweepConfirmation) -> None:
        """Store the comparison of the best trial with the current settings on the test split."""
        self._study.set_user_attr(CONFIRMATION, msgspec.to_builtins(confirmation))

    def set_stopped(self, stopped: bool) -> None:
        """Tell all workers to start no more trials, or with False to start trials again."""
        self._study.set_user_attr(STOPPED, stopped)

    def set_limits(self, section: Sweep, deadline: float | None) -> None:
        """Apply the settings that may change while a sweep runs, such as the number of trials.

        ``deadline``: seconds since 1970 at which no new trial begins any more.
        """
        self.section = section
        changed = msgspec.structs.replace(self.definition, section=section.model_dump(mode="json"))
        self.definition = changed
        self._study.set_user_attr(DEFINITION, msgspec.to_builtins(changed))
        self._study.set_user_attr(DEADLINE, deadline)

    def summarize(self) -> SweepSummary:
        """Return the definition, trials, best trials and confirmation of the sweep as they are now."""
        trials = [self._summarize_trial(trial) for trial in self._trials()]
        complete = any(trial.state == "complete" for trial in trials)
        best = sorted(trial.number for trial in self._study.best_trials) if complete else []
        return SweepSummary(
            name=self.name,
            definition=self.definition,
            stopped=self._is_stopped(),
            trials=trials,
            best=best if len(self.section.objective) > 1 else best[:1],
            confirmation=self.confirmation,
            importance=self._importance(),
        )

    def stage_note(self, claim: TrialClaim) -> dict[str, Any]:
        """Return JSON values with which the process of a stage can report its validation losses to this trial."""
        return {
            "storage": self.url,
            "study": self.name,
            "trial": claim.id,
            "pruner": trial_pruning.describe_pruner(self.section.pruner),
            "maximize": self.section.objective[0].direction == "maximize",
        }

    def _begin(self, number: int, trial_id: int, worker: str, attempt: int) -> TrialClaim:
        """Mark a trial as ours, and choose its values where that was not done before."""
        self._storage.record_heartbeat(trial_id)
        self._set_lease(trial_id, TrialLease(owner=worker, attempt=attempt))
        trial = self._storage.get_trial(trial_id)
        overrides = trial.user_attrs.get(OVERRIDES)
        if overrides is None:
            overrides = self._suggest(number, trial_id, trial)
            self._storage.set_trial_user_attr(trial_id, OVERRIDES, overrides)
        start = bool(trial.user_attrs.get(START))
        return TrialClaim(number=number, id=trial_id, overrides=overrides, attempt=attempt, start=start)

    def _set_lease(self, trial_id: int, lease: TrialLease) -> None:
        self._storage.set_trial_user_attr(trial_id, LEASE, msgspec.to_builtins(lease))

    def _suggest(self, number: int, trial_id: int, trial: Any) -> list[str]:
        optuna = import_optional("optuna", extra="sweep")
        only = None
        if trial.user_attrs.get(START):
            only = frozenset(trial.system_attrs.get("fixed_params", {}))
        with _quiet():
            self._study.sampler = self._sampler(number)
            values = search_space.suggest_values(self.section, optuna.trial.Trial(self._study, trial_id), only)
        if trial.user_attrs.get(START):
            return []  # the trial has the current settings
        return [search_space.format_override(key, value) for key, value in values.items()]

    def _record_outcome(self, trial_id: int, outcome: TrialOutcome) -> None:
        """Record the outcome before the trial ends: after a kill between the two, the next worker ends it the same way."""
        optuna = import_optional("optuna", extra="sweep")
        states = optuna.trial.TrialState
        state = {"complete": states.COMPLETE, "pruned": states.PRUNED, "failed": states.FAIL}[outcome.state]
        self._storage.set_trial_user_attr(trial_id, OUTCOME, msgspec.to_builtins(outcome))
        number = self._storage.get_trial(trial_id).number
        with _quiet():
            self._study.sampler = self._sampler(number)
            self._study.tell(number, outcome.values if outcome.state == "complete" else None, state=state)

    def _list_orphans(self) -> list[Any]:
        """List running trials without a worker: released, without a heartbeat for too long, or not begun when it died."""
        with _quiet():
            stale = set(self._storage._get_stale_trial_ids(self._study._study_id))  # noqa: SLF001
        return [
            trial
            for trial in self._trials()
            if trial.state.name == "RUNNING" and (not _lease(trial).owner or trial._trial_id in stale)  # noqa: SLF001
        ]

    def _has_room(self) -> bool:
        trials = self._trials()
        waiting = sum(1 for trial in trials if trial.state.name == "WAITING")
        started = len(trials) - waiting - trial_queue.count_repeated(trials)
        return started < self.section.n_trials and (waiting > 0 or self.section.sampler != "grid")

    def _next_number(self) -> int:
        trials = self._trials()
        return next((trial.number for trial in trials if trial.state.name == "WAITING"), len(trials))

    def _is_stopped(self) -> bool:
        attributes = self._study.user_attrs
        deadline = attributes.get(DEADLINE)
        return bool(attributes.get(STOPPED, False)) or (deadline is not None and time.time() > deadline)

    def _trials(self) -> list[Any]:
        result: list[Any] = self._study.get_trials(deepcopy=False)
        return result

    def _sampler(self, number: int) -> Any:
        """Return a sampler with a separate seed for each trial, so that a restarted worker chooses as one that was never stopped."""
        seed = zlib.crc32(f"{self.definition.seed}:{number}".encode())
        samplers = import_optional("optuna", extra="sweep").samplers
        if self.section.sampler == "tpe":
            return samplers.TPESampler(
                seed=seed, multivariate=True, group=bool(self.section.only_if), constant_liar=True
            )
        if self.section.sampler == "gp":
            return samplers.GPSampler(seed=seed, deterministic_objective=True)
        if self.section.sampler == "nsgaii":
            return samplers.NSGAIISampler(seed=seed)
        return samplers.RandomSampler(seed=seed)

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        with (
            optuna_storage.report_outage(self.url),
            optuna_storage.lock_storage(self._storage, self.name, LOCK_TIMEOUT_SECONDS),
        ):
            yield

    def _importance(self) -> dict[str, float]:
        optuna = import_optional("optuna", extra="sweep")
        ended = [
            trial for trial in self._trials() if trial.state.name == "COMPLETE" and not trial.user_attrs.get(START)
        ]
        if len(ended) < 4:
            return {}
        target = (lambda trial: trial.values[0]) if len(self.section.objective) > 1 else None
        try:
            with _quiet():
                param_importances = optuna.importance.get_param_importances(
                    self._study, evaluator=optuna.importance.PedAnovaImportanceEvaluator(), target=target
                )
        except (ValueError, RuntimeError) as error:  # no setting varies between two trials
            _log.debug("no importance: %s", error)
            return {}
        return {name: round(float(share), 4) for name, share in param_importances.items() if math.isfinite(share)}

    def _summarize_trial(self, trial: Any) -> TrialSummary:
        outcome = msgspec.convert(trial.user_attrs.get(OUTCOME, {"state": "failed"}), TrialOutcome)
        ended = trial.state.is_finished()
        state: Any = {"FAIL": "failed"}.get(trial.state.name, trial.state.name.lower())
        return TrialSummary(
            number=trial.number,
            state=state,
            values=[float(value) for value in trial.values] if trial.state.name == "COMPLETE" else None,
            settings={key: search_space.decode_choice(value) for key, value in trial.params.items()},
            overrides=list(trial.user_attrs.get(OVERRIDES, ())),
            start=bool(trial.user_attrs.get(START)),
            attempts=_lease(trial).attempt,
            steps=max(trial.intermediate_values, default=0),
            seconds=outcome.seconds if ended else None,
            stages=outcome.stages,
            reused=outcome.reused,
            reason=outcome.reason if ended else "",
        )


def create_study(url: str, definition: SweepDefinition, root: Path, start: dict[str, Any] | None) -> SweepStudy:
    """Return the sweep at ``url`` of the name in ``definition``, created if it is absent.

    ``start``: the settings of the first trial, None for none. An existing sweep repeats that trial where it has failed.
    Raises  UsageError where it exists with another space, objective, seed or overrides; InfrastructureError where the storage cannot be reached.
    """
    optuna = import_optional("optuna", extra="sweep")
    section = Sweep.model_validate(definition.section)
    storage = optuna_storage.open_storage(url, root, section.heartbeat_seconds, MISSING_BEATS)
    with optuna_storage.lock_storage(storage, section.name, LOCK_TIMEOUT_SECONDS), _quiet():
        study = optuna.create_study(
            study_name=section.name,
            storage=storage,
            directions=[goal.direction for goal in section.objective],
            load_if_exists=True,
        )
        stored = study.user_attrs.get(DEFINITION)
        if stored is None:
            trial_queue.enqueue_first(study, section, start)
            study.set_user_attr(DEFINITION, msgspec.to_builtins(definition))
            return SweepStudy(study, storage, definition)
        result = msgspec.convert(stored, SweepDefinition)
        difference = result.describe_difference(definition)
        if difference:
            raise UsageError(
                f"sweep {section.name} has trials already, and this one differs in {difference}",
                hint=f"give it another name: sweep.name={section.name}_2",
            )
        trial_queue.repeat_start(study)
    return SweepStudy(study, storage, result)


def open_study(url: str, name: str, root: Path) -> SweepStudy:
    """Return the existing sweep ``name`` in the storage at ``url``; ``root`` is the folder of a relative SQLite path.

    Raises  UsageError naming the existing sweeps; InfrastructureError where the storage cannot be reached.
    """
    optuna = import_optional("optuna", extra="sweep")
    probe = optuna_storage.open_storage(url, root, 60, MISSING_BEATS)
    names = optuna.get_all_study_names(probe)
    if name not in names:
        raise UsageError(
            f"there is no sweep {name}; the storage has {', '.join(sorted(names)) or 'no sweep yet'}",
            hint="give one of these names" if names else "start one: tunectl sweep run",
        )
    with _quiet():
        study = optuna.load_study(study_name=name, storage=probe)
    definition = msgspec.convert(study.user_attrs[DEFINITION], SweepDefinition)
    beat = int(definition.section["heartbeat_seconds"])
    storage = optuna_storage.open_storage(url, root, beat, MISSING_BEATS)
    with _quiet():
        return SweepStudy(optuna.load_study(study_name=name, storage=storage), storage, definition)


def list_sweeps(url: str, root: Path) -> list[str]:
    """Return the names of the sweeps in the storage at ``url``, sorted; ``root`` is the folder of a relative SQLite path.

    Raises  InfrastructureError where the storage cannot be reached; MissingExtraError.
    """
    optuna = import_optional("optuna", extra="sweep")
    return sorted(optuna.get_all_study_names(optuna_storage.open_storage(url, root, 60, MISSING_BEATS)))


@contextmanager
def _quiet() -> Iterator[None]:
    """Mute Optuna's warnings about its own interfaces: heartbeats in its ask-and-tell interface, and experimental samplers."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
