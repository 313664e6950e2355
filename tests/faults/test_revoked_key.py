"""A release key that is revoked in mid-canary, with a real server."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from scenarios import revoked_keys
from scenarios.fault_report import assert_targets_met

from tunectl.registry.release_store import ReleaseRegistry

pytestmark = pytest.mark.timeout(600)


def test_a_key_is_revoked_between_canary_and_promotion(releases: tuple[Path, str, str], tmp_path: Path) -> None:
    source, champion, challenger = releases
    shutil.copytree(source, tmp_path / "store")
    assert_targets_met(
        revoked_keys.revoke_in_canary(tmp_path, ReleaseRegistry(tmp_path / "store"), champion, challenger)
    )
