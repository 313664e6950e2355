"""A monitor that is killed, and one whose looks fail, under the real Prometheus with our rules (fault 17)."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import prometheus_stack
from monitor_project import Project
from serving_process import free_port

from scenarios.fault_result import FaultResult

SCALE = 60
"""Times are divided by this: a minute of the rules is a second."""
SPANS = re.compile(r"\b(\d+)(m|h|d)\b")
SECONDS = {"m": 60, "h": 3600, "d": 86400}


def hurried(rules: str) -> str:
    """Our rules with every span and every number of seconds that is compared divided by ``SCALE``."""
    faster = SPANS.sub(lambda found: f"{max(1, int(found[1]) * SECONDS[found[2]] // SCALE)}s", rules)
    return re.sub(r"> (300|900)\b", lambda found: f"> {int(found[1]) // SCALE}", faster)


def stale(folder: Path, *, promises: dict[str, float]) -> FaultResult:
    """``promises``: seconds after which each alert must fire, at the hurried pace."""
    found = FaultResult(
        17,
        "drift job killed, drift job that fails",
        "the alerts fire within two intervals, and every rule has a unit test",
    )
    project = Project(folder / "project")
    project.serve(130)
    targets = {"tunectl-monitor": f"127.0.0.1:{project.port}"}
    config = prometheus_stack.write_prometheus_config(
        folder / "prometheus", targets, {"scrape_key": "open"}, f"127.0.0.1:{free_port()}"
    )
    rules = config.parent / "rules" / "drift.yml"
    rules.write_text(hurried(rules.read_text()))
    monitor = project.start()
    try:
        with prometheus_stack.prometheus(config) as prometheus:
            prometheus_stack.wait(lambda: prometheus.ask("tunectl_drift_last_success_timestamp_seconds > 0"), 300)

            def fires(name: str) -> Callable[[], bool]:
                return lambda: bool(prometheus.ask(f'ALERTS{{alertname="{name}", alertstate="firing"}}'))

            time.sleep(3)
            for name in promises:
                found.require(not fires(name)(), f"{name} fires though all is well")
            pointer = project.folder / ".tunectl" / "releases" / "champion.json"
            whole = pointer.read_bytes()
            pointer.write_bytes(whole[: len(whole) // 2])  # every look fails from now on
            _measure(found, "TunectlDriftJobStale", fires, promises)
            found.require(monitor.poll() is None, "a monitor whose looks fail has ended")
            pointer.write_bytes(whole)
            found.require(_clears(fires("TunectlDriftJobStale")), "TunectlDriftJobStale does not clear")
            monitor.kill()
            monitor.wait()
            _measure(found, "TunectlDriftJobAbsent", fires, promises)
            monitor = project.start()
            found.require(_clears(fires("TunectlDriftJobAbsent")), "TunectlDriftJobAbsent does not clear")
    finally:
        if monitor.poll() is None:
            monitor.kill()
            monitor.wait()
    _tested(found)
    return found


def _measure(
    found: FaultResult,
    name: str,
    fires: Callable[[str], Callable[[], bool]],
    promises: dict[str, float],
) -> None:
    began = time.monotonic()
    try:
        prometheus_stack.wait(fires(name), promises[name] * 4)
    except AssertionError:
        found.require(False, f"{name} does not fire")
    found.require_at_most(f"{name}_s", time.monotonic() - began, promises[name])


def _clears(firing: Callable[[], bool]) -> bool:
    end = time.monotonic() + 120
    while firing() and time.monotonic() < end:
        time.sleep(0.25)
    return not firing()


def _tested(found: FaultResult) -> None:
    """Promtool on every file of tests."""
    count = 0
    for path in sorted((prometheus_stack.MONITORING / "prometheus" / "tests").glob("*.yml")):
        done = subprocess.run(
            [str(prometheus_stack.PROMTOOL), "test", "rules", str(path)], capture_output=True, text=True
        )
        found.require(done.returncode == 0, f"{path.name}: {(done.stdout + done.stderr)[-500:]}")
        count += 1
    found.figures["files_of_rule_tests"] = count
