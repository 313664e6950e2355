"""promtool and amtool on what is committed."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import prometheus_stack
import pytest
from prometheus_stack import AMTOOL, MONITORING, NOT_INSTALLED, PROMTOOL

pytestmark = pytest.mark.skipif(not prometheus_stack.INSTALLED, reason=NOT_INSTALLED)
TESTS = sorted((MONITORING / "prometheus" / "tests").glob("*.yml"))


def run(*words: str) -> str:
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:]
    return done.stdout


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.stem)
def test_alerts_fire_keep_still_and_clear(path: Path) -> None:
    run(PROMTOOL, "test", "rules", str(path))


def test_promtool_has_nothing_to_say_about_the_rules() -> None:
    run(
        PROMTOOL,
        "check",
        "rules",
        "--lint-fatal",
        *map(str, sorted((MONITORING / "prometheus" / "rules").glob("*.yml"))),
    )


def test_a_mistake_in_a_rule_is_found(tmp_path: Path) -> None:
    """That is, the tests test: two windows are made enough, and the alert fires too early."""
    shutil.copytree(MONITORING / "prometheus", tmp_path / "p")
    rules = tmp_path / "p" / "rules" / "drift.yml"
    wrong = rules.read_text().replace(
        "expr: tunectl_drift_evidence >= tunectl_drift_evidence_required",
        "expr: tunectl_drift_evidence >= tunectl_drift_evidence_required - 1",
    )
    assert wrong != rules.read_text()
    rules.write_text(wrong)
    done = subprocess.run([PROMTOOL, "test", "rules", str(tmp_path / "p" / "tests" / "drift.yml")], capture_output=True)
    assert done.returncode != 0


def test_configurations_are_read() -> None:
    run(PROMTOOL, "check", "config", "--syntax-only", str(MONITORING / "prometheus" / "prometheus.yml"))
    run(AMTOOL, "check-config", str(MONITORING / "alertmanager" / "alertmanager.yml"))


@pytest.mark.parametrize(
    ("labels", "receiver"),
    [
        (("alertname=TunectlDriftSustained", "severity=ticket"), "tunectl-retrain"),
        (("alertname=TunectlDriftJobStale", "severity=ticket"), "people"),
        (("alertname=TunectlServiceDown", "severity=page"), "people"),
        (("alertname=SomethingElse",), "people"),
    ],
)
def test_who_hears_of_what(labels: tuple[str, ...], receiver: str) -> None:
    config = str(MONITORING / "alertmanager" / "alertmanager.yml")
    assert run(AMTOOL, "config", "routes", "test", f"--config.file={config}", *labels).strip() == receiver
