"""The inference log as tunectl 0.1 left it (``tests/data/version_0_1``), and what is expected of it in today's words."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from version_0_1 import DATA

EXPECTED: dict[str, Any] = json.loads((DATA / "expected.json").read_text())
INFERENCE = {"arm": "variant", "latency": "latency_seconds", "forgotten_at": "erased_at"}
FEEDBACK = {"exchange_id": "inference_id", "at": "created_at"}
ERASED = {"zoe-own", "about-zoe", "zoe-other", "late-zoe"}
"""Feedback that was erased. ``click-2`` and ``conversion-2`` have no value either, and were not."""
SIGNAL = {"adjusted": "adjusted_p_value", "floor": "effect_floor", "moved": "shifted"}
WINDOW = {"required": "required_windows", "moved": "shifted", "slices": "segments", "last": "previous_p_values"}
KINDS = {"salt": "hash_key", "forgotten": "erased", "retained": "pruned", "reference_accepted": "reference_set"}
EVENT = {"exchanges": "inferences", "opinions": "feedback", "by": "author", "why": "message"}


def copy_project(folder: Path) -> Path:
    """Copy what 0.1 left of a project's live traffic; returns the project."""
    shutil.copytree(DATA / "project" / "dot_tunectl" / "live", folder / ".tunectl" / "live")
    shutil.copytree(DATA / "project" / "live", folder / "live")
    return folder


def copy_database(folder: Path) -> str:
    """Copy the SQLite file of 0.1 alone; returns its address."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(DATA / "project" / "dot_tunectl" / "live" / "live.sqlite", folder / "log.sqlite")
    return f"sqlite:///{folder}/log.sqlite"


def restore_database(url: str) -> str:
    """Fill an empty PostgreSQL database with the dump of 0.1."""
    import psycopg

    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute((DATA / "live_postgres.sql").read_text())
    return url


def rename(row: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    return {names.get(name, name): value for name, value in row.items()}


def expected_windows() -> list[dict[str, Any]]:
    """The rows of ``windows`` in today's words; the one that is not the monitor's keeps its own."""
    found = []
    for row in EXPECTED["live"]["windows"]:
        body = row["body"]
        if "verdict" in body:
            body = rename(body, WINDOW)
            if "signals" in body:
                body["signals"] = {name: rename(one, SIGNAL) for name, one in body["signals"].items()}
        found.append({**rename(row, {"made_at": "created_at"}), "body": body})
    return found


def expected_events() -> list[dict[str, Any]]:
    found = []
    for row in EXPECTED["live"]["events"]:
        body = rename(row["body"], EVENT)
        if "window" in body:
            body["windows"] = [body.pop("window")]
        if body.get("state") == "rolled_back":
            body["state"] = "withdrawn"
        kind = KINDS.get(row["kind"], row["kind"])
        name = "hash_key" if row["id"] == "salt" else row["id"]
        found.append({"id": name, "created_at": row["at"], "kind": kind, "body": body})
    return found
