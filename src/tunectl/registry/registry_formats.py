"""Upgrade the records of a registry from earlier versions. Upgrades are pure: an object in, the object of the next version out."""

from __future__ import annotations

from typing import Any, Final

from msgspec import Struct

from tunectl.artifacts.canary_state import CanaryState
from tunectl.artifacts.record_format import RecordFormat, rename_keys

RELEASES, CHAMPION, EVENTS, CANARY = "releases", "champion.json", "events.jsonl", "canary.json"
FORKS: Final = "forks"
"""Folder of the histories that this registry had before forks were resolved, each named after the sequence that resolved it."""
OLD_EVENTS, OLD_CANARY = "log.jsonl", "challenger.json"
"""Names of two files of a registry in tunectl 0.1."""
AUTHORSHIP: Final = {"by": "author", "why": "message"}
"""Keys of author and message in every record of 0.1."""
_ACTIONS: Final = {"challenge": "canary_start", "withdraw": "canary_stop"}
LAYOUTS: Final = {"apart": "adapter"}
"""Values of ``layout`` that are called otherwise since 0.1."""
_STAGES: Final = {"adapt": "cpt", "harvest": "feedback"}


def upgrade_pointer(record: dict[str, Any]) -> dict[str, Any]:
    """Return a ``champion.json`` that version 0.1 wrote, converted to the field names of today."""
    return rename_keys(record, {**AUTHORSHIP, "what": "action"})


def upgrade_event(record: dict[str, Any]) -> dict[str, Any]:
    """Return a line of ``log.jsonl`` that version 0.1 wrote, converted to a line of ``events.jsonl`` of today."""
    result = rename_keys(record, {**AUTHORSHIP, "what": "action", "at": "created_at"})
    return {**result, "action": _ACTIONS.get(result.get("action", ""), result.get("action"))}


def upgrade_canary(record: dict[str, Any]) -> dict[str, Any]:
    """Return a ``challenger.json`` that version 0.1 wrote, converted to a ``canary.json`` of today.

    The salt is unchanged: it decides who gets the challenger.
    """
    return rename_keys(record, AUTHORSHIP)


def upgrade_manifest(record: dict[str, Any]) -> dict[str, Any]:
    """Return the ``manifest.json`` of a release that version 0.1 made, converted to the names of stages and layouts of today."""
    result = rename_keys(record, {"route": "layout"})
    result["layout"] = LAYOUTS.get(result.get("layout", ""), result.get("layout"))
    if result.get("verdicts"):
        result["verdicts"] = rename_keys(result["verdicts"], _STAGES)
    if result.get("lineage"):
        parts = ("stages", "configs", "code")
        lineage = result["lineage"]
        result["lineage"] = {**lineage, **{part: rename_keys(lineage.get(part, {}), _STAGES) for part in parts}}
    return result


class RemoteCanary(Struct, frozen=True):
    """Content of ``canary/<number>.json`` behind an address."""

    state: CanaryState | None
    """The canary; None: there is none from then on."""


POINTER: Final = RecordFormat("champion pointer", (upgrade_pointer,))
EVENT: Final = RecordFormat("line of the release history", (upgrade_event,))
CANARY_STATE: Final = RecordFormat("canary state", (upgrade_canary,))
MANIFEST: Final = RecordFormat("release manifest", (upgrade_manifest,))
REMOTE_CANARY: Final = RecordFormat("canary state", (dict,))
"""Version 2, as in the folder; there was no version 1."""
