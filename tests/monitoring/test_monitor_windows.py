"""A look that fails is counted, whatever it is that fails: the exporter outlives it."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace

import pytest
from drift_fixtures import at

from tunectl.artifacts.records import DriftWindow
from tunectl.core.errors import ArtifactError, InfrastructureError, MissingExtraError
from tunectl.monitoring.monitor_metrics import DriftMetrics
from tunectl.services import monitor

GOES_WELL = {"champion": lambda: None, "find_latest_window": lambda: None, "run_once": lambda _closed: []}


def make_monitor(**broken):
    calls = {name: SimpleNamespace(run=call) for name, call in {**GOES_WELL, **broken}.items()}
    releases = SimpleNamespace(champion=calls["champion"].run)
    return SimpleNamespace(
        releases=releases, find_latest_window=calls["find_latest_window"].run, run_once=calls["run_once"].run
    )


def raising(error: Exception):
    def fail(*_):
        raise error

    return fail


def errors(metrics: DriftMetrics) -> float:
    lines = metrics.render().decode().splitlines()
    return next(float(line.rsplit(" ", 1)[1]) for line in lines if 'evaluations_total{verdict="error"}' in line)


@pytest.mark.parametrize("part", ["champion", "find_latest_window", "run_once"])
@pytest.mark.parametrize(
    "error", [ArtifactError("champion.json was cut off"), InfrastructureError("no server"), ZeroDivisionError()]
)
def test_a_look_that_fails_is_counted(part: str, error: Exception) -> None:
    metrics = DriftMetrics(3)
    monitor.run_once(make_monitor(**{part: raising(error)}), metrics)
    assert errors(metrics) == 1.0
    assert "tunectl_drift_last_success_timestamp_seconds 0.0" in metrics.render().decode()
    monitor.run_once(make_monitor(), metrics)
    assert errors(metrics) == 1.0
    assert "tunectl_drift_last_success_timestamp_seconds 0.0" not in metrics.render().decode()


def test_a_library_that_is_not_there_ends_it() -> None:
    with pytest.raises(MissingExtraError):
        monitor.run_once(make_monitor(run_once=raising(MissingExtraError("numpy"))), DriftMetrics(3))


def test_a_calibration_is_shown_for_the_references_that_it_measured(tmp_path: Path) -> None:
    from tunectl.artifacts import atomic_io
    from tunectl.artifacts.paths import ProjectPaths
    from tunectl.monitoring.self_calibration import Calibration, CalibrationRow

    layout = ProjectPaths(tmp_path)
    figure = CalibrationRow("nothing", "prompt", 300, 500, 400, {}, (0.03, 0.02, 0.05), (0.05, 0.03, 0.07), None, None)

    def shown(*before) -> list[CalibrationRow]:
        return monitor._calibration(layout, SimpleNamespace(list_closed_windows=lambda: list(before)))

    window = SimpleNamespace(release="r", reference="p")
    assert shown(window) == []
    atomic_io.write_json(
        layout.calibration, Calibration("2026-03-01", "r", {"prompt": "p", "answer": "r"}, "static", [figure])
    )
    assert shown(window) == [figure]
    assert shown() == []
    assert shown(window, SimpleNamespace(release="r", reference="q")) == []
    assert shown(SimpleNamespace(release="s", reference="p")) == []
    layout.calibration.write_text("{")
    assert shown(window) == []


def window(verdict: str, evidence: float) -> DriftWindow:
    name = "a" * 16
    return DriftWindow(
        name, at(1), at(2), 300, verdict, verdict == "drift", name, name, reason=verdict, evidence=evidence
    )


@pytest.mark.parametrize(
    ("closed", "code"),
    [
        ([], 0),
        ([window("ok", 2)], 0),
        ([window("insufficient", 0)], 0),
        ([window("drift", 3)], 3),
        ([window("drift", 3), window("insufficient", 3)], 3),
        ([window("drift", 3), window("ok", 0)], 0),
        ([window("error", 0)], 1),
        ([window("error", 1), window("ok", 0)], 1),
    ],
)
def test_what_a_look_for_cron_ends_with(closed: list[DriftWindow], code: int) -> None:
    """Nobody reads the table: a window that could not be examined must not end like a quiet one."""
    from tunectl.cli import monitor_windows

    assert monitor_windows.print_windows(Namespace(json=False), closed) == code


def test_strip_control_replaces_control_codes() -> None:
    from tunectl.backends.system import terminal

    assert terminal.strip_control("a\x1b[2Jb\x9bc é") == "a\N{REPLACEMENT CHARACTER}[2Jb\N{REPLACEMENT CHARACTER}c é"
