"""Read sweeps by SQL from the tables that Optuna keeps in the storage: Optuna is not imported, and nothing is written."""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import msgspec

from tunectl.backends.sweeps.optuna_storage import DRIVER, SQLITE
from tunectl.core.errors import InfrastructureError
from tunectl.core.optional import import_optional, require_installed
from tunectl.core.url_credentials import hide_credentials
from tunectl.sweeps import search_space
from tunectl.sweeps.trial_records import (
    SweepConfirmation,
    SweepDefinition,
    SweepSummary,
    TrialOutcome,
    TrialState,
    TrialSummary,
)

CONNECT_TIMEOUT_SECONDS: Final = 5
STATES: Final[dict[str, TrialState]] = {
    "WAITING": "waiting",
    "RUNNING": "running",
    "COMPLETE": "complete",
    "PRUNED": "pruned",
    "FAIL": "failed",
}
INFINITE: Final = {"INF_POS": float("inf"), "INF_NEG": float("-inf")}
RowQuery = Callable[[str, int], Sequence[Sequence[Any]]]
"""Return the rows of a statement, in which ``:study`` stands for Optuna's number of the sweep."""
STUDIES: Final = "SELECT study_id, study_name FROM studies ORDER BY study_id DESC"
DIRECTIONS: Final = "SELECT objective, direction FROM study_directions WHERE study_id = :study ORDER BY objective"
ATTRIBUTES: Final = "SELECT key, value_json FROM study_user_attributes WHERE study_id = :study"
TRIALS: Final = "SELECT trial_id, number, state FROM trials WHERE study_id = :study ORDER BY number"
VALUES: Final = """SELECT trial_id, objective, value, value_type
    FROM trial_values JOIN trials USING (trial_id) WHERE study_id = :study"""
SETTINGS: Final = """SELECT trial_id, param_name, param_value, distribution_json
    FROM trial_params JOIN trials USING (trial_id) WHERE study_id = :study"""
FACTS: Final = """SELECT trial_id, key, value_json
    FROM trial_user_attributes JOIN trials USING (trial_id) WHERE study_id = :study"""
STEPS: Final = """SELECT trial_id, max(step)
    FROM trial_intermediate_values JOIN trials USING (trial_id) WHERE study_id = :study GROUP BY trial_id"""


def find_file(url: str, root: Path) -> Path | None:
    """Return the path of an SQLite storage's file; None for a database server."""
    return (root / url.removeprefix(SQLITE)).absolute() if url.startswith(SQLITE) else None


def list_sweeps(url: str, root: Path) -> list[str]:
    """Return the names of all sweeps in a storage, the newest first; empty if there is no storage yet.

    Raises  InfrastructureError where it cannot be read; MissingExtraError for PostgreSQL without its driver.
    """
    file = find_file(url, root)
    if file is not None and not file.is_file():
        return []
    with _open(url, file) as query:
        return [name for _, name in query(STUDIES, 0)]


def read_sweep(url: str, root: Path, name: str, now: float) -> SweepSummary | None:
    """Return the current state of the sweep ``name``; None if there is none of that name.

    Args:
        url: Address of the storage.
        root: The project, in which a relative SQLite file lies.
        name: ``sweep.name``.
        now: Seconds since 1970: after its deadline a sweep is stopped.

    Raises  InfrastructureError where it cannot be read; MissingExtraError for PostgreSQL without its driver.
    """
    file = find_file(url, root)
    if file is not None and not file.is_file():
        return None
    with _open(url, file) as query:
        studies = {title: int(number) for number, title in query(STUDIES, 0)}
        if name not in studies:
            return None
        study = studies[name]
        attributes = {key: json.loads(value) for key, value in query(ATTRIBUTES, study)}
        if "definition" not in attributes:  # between creation of the study and its attributes
            return None
        directions = [way == "MAXIMIZE" for _, way in query(DIRECTIONS, study)]
        trials = list(_read_trials(query, study))
    confirmation, deadline = attributes.get("confirmation"), attributes.get("deadline")
    best = find_best(trials, directions)
    return SweepSummary(
        name=name,
        definition=msgspec.convert(attributes["definition"], SweepDefinition),
        stopped=bool(attributes.get("stopped", False)) or (deadline is not None and now > deadline),
        trials=trials,
        best=best if len(directions) > 1 else best[:1],
        confirmation=None if confirmation is None else msgspec.convert(confirmation, SweepConfirmation),
        importance=attributes.get("importance", {}),
    )


def find_best(trials: Sequence[TrialSummary], maximize: Sequence[bool]) -> list[int]:
    """Return the numbers of the trials that no other trial beats in every objective (the Pareto front).

    ``maximize``: for each objective whether higher is better.
    """
    signs = [-1.0 if more else 1.0 for more in maximize]
    ended = {
        trial.number: tuple(sign * value for sign, value in zip(signs, trial.values, strict=True))
        for trial in trials
        if trial.values is not None
    }
    return sorted(
        number for number, values in ended.items() if not any(_dominates(other, values) for other in ended.values())
    )


def _dominates(other: Sequence[float], values: Sequence[float]) -> bool:
    return other != values and all(first <= second for first, second in zip(other, values, strict=True))


def _read_trials(query: RowQuery, study: int) -> Iterator[TrialSummary]:
    values: dict[int, list[tuple[int, float]]] = defaultdict(list)
    for trial, objective, value, kind in query(VALUES, study):
        values[trial].append((objective, INFINITE.get(kind) or float(value)))
    settings: dict[int, dict[str, Any]] = defaultdict(dict)
    for trial, key, value, distribution in query(SETTINGS, study):
        settings[trial][key] = _decode(value, json.loads(distribution))
    attributes: dict[int, dict[str, Any]] = defaultdict(dict)
    for trial, key, text in query(FACTS, study):
        attributes[trial][key] = json.loads(text)
    steps = {int(row[0]): int(row[1]) for row in query(STEPS, study)}
    for trial, number, state in query(TRIALS, study):
        objective_values = [value for _, value in sorted(values[trial])]
        yield _build_trial(
            number, STATES[state], objective_values, settings[trial], attributes[trial], steps.get(trial, 0)
        )


def _build_trial(
    number: int,
    state: TrialState,
    values: list[float],
    settings: dict[str, Any],
    attributes: dict[str, Any],
    steps: int,
) -> TrialSummary:
    outcome = msgspec.convert(attributes.get("outcome", {"state": "failed"}), TrialOutcome)
    ended = state not in ("waiting", "running")
    return TrialSummary(
        number=number,
        state=state,
        values=values if state == "complete" else None,
        settings=settings,
        overrides=list(attributes.get("overrides", ())),
        start=bool(attributes.get("start")),
        attempts=int(attributes.get("lease", {}).get("attempt", 0)),
        steps=steps,
        seconds=outcome.seconds if ended else None,
        stages=outcome.stages,
        reused=outcome.reused,
        reason=outcome.reason if ended else "",
    )


def _decode(value: float, distribution: dict[str, Any]) -> Any:
    """Return a suggested value: the storage keeps a number for each, which may stand for a choice."""
    kind, facts = distribution["name"], distribution["attributes"]
    if kind == "CategoricalDistribution":
        return search_space.decode_choice(facts["choices"][int(value)])
    return int(value) if kind == "IntDistribution" else float(value)


@contextmanager
def _open(url: str, file: Path | None) -> Iterator[RowQuery]:
    try:
        with _connect_file(file) if file is not None else _connect_server(url) as query:
            yield query
    except sqlite3.Error as error:
        raise InfrastructureError(
            f"sweep.storage {hide_credentials(url)} cannot be read: {error}",
            hint="if it is a file of another program, set sweep.storage to another one; if it is damaged, restore or delete it",
        ) from error


@contextmanager
def _connect_file(file: Path) -> Iterator[RowQuery]:
    address = f"file:{quote(str(file))}?mode=ro"
    with closing(sqlite3.connect(address, uri=True, timeout=CONNECT_TIMEOUT_SECONDS)) as connection:
        yield lambda text, study: connection.execute(text, {"study": study}).fetchall()


@contextmanager
def _connect_server(url: str) -> Iterator[RowQuery]:
    sql, errors = (import_optional(name, extra="sweep") for name in ("sqlalchemy", "sqlalchemy.exc"))
    require_installed("psycopg", extra="postgres")
    try:
        engine = sql.create_engine(
            DRIVER + url.partition("://")[2],
            connect_args={"connect_timeout": CONNECT_TIMEOUT_SECONDS},
            poolclass=sql.NullPool,
        )
        with engine.connect() as connection:
            yield lambda text, study: connection.execute(
                sql.text(text), {"study": study} if ":study" in text else {}
            ).fetchall()
    except errors.SQLAlchemyError as error:
        reason = " ".join(str(getattr(error, "orig", None) or error).split())[:300]
        raise InfrastructureError(
            f"sweep.storage {hide_credentials(url)} cannot be read: {reason}",
            hint="check sweep.storage and the variable that sweep.storage_env names, and that the database is up",
        ) from error
