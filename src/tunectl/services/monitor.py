"""The monitor service: checks the inference log for drift at intervals, and serves metrics and pages.

One process per inference log. At run time it needs numpy, a table of word vectors and the inference log; no torch (unless the
encoder itself embeds), no network.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue

from tunectl.access import api_keys
from tunectl.artifacts import atomic_io
from tunectl.artifacts.paths import ProjectPaths
from tunectl.config.schema.monitor import MonitorSettings
from tunectl.core import logging_setup
from tunectl.core.errors import MissingExtraError, TunectlError
from tunectl.monitoring import factory, monitor_metrics
from tunectl.monitoring.drift_monitor import DriftMonitor
from tunectl.monitoring.http_api import MonitorApi, build_pages
from tunectl.monitoring.self_calibration import Calibration, CalibrationRow
from tunectl.monitoring.window import EMPTY


def run(
    settings: MonitorSettings, layout: ProjectPaths, *, started: Callable[[int], None] = lambda _port: None
) -> None:
    """Run the monitor until SIGTERM or SIGINT; ``started`` is called with the port on which it answers.

    A failed check is logged, counted, and tried again: the monitor does not end where the database cannot be reached.
    """
    metrics = monitor_metrics.DriftMetrics(factory.detection_rule(settings).evidence_required)
    stop_signals: SimpleQueue[None] = SimpleQueue()  # a signal handler must not wait for a lock, and an event has one
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: stop_signals.put(None))
    with factory.open_monitor(settings, layout) as drift_monitor:
        drift_monitor.stopped = lambda: not stop_signals.empty()
        with suppress(TunectlError):  # the first check meets the error again, counts it and logs it
            metrics.restore(drift_monitor.find_latest_window())
        keys = api_keys.find_keys_file(layout.root, settings.keys_file)
        api = MonitorApi(
            settings.monitor.host, settings.monitor.port, keys, build_pages(settings, layout, drift_monitor, metrics)
        )
        api.open()
        started(api.port)
        try:
            while stop_signals.empty():
                run_once(drift_monitor, metrics)
                metrics.record_calibration(_calibration(layout, drift_monitor))
                with suppress(Empty):
                    stop_signals.get(timeout=settings.monitor.poll_seconds)
                    break
        finally:
            api.close()


def _calibration(layout: ProjectPaths, drift_monitor: DriftMonitor) -> list[CalibrationRow]:
    """Return the calibration with the references of the newest window."""
    if not layout.calibration.is_file():
        return []
    with suppress(TunectlError):
        calibration: Calibration = atomic_io.read_json(layout.calibration, Calibration)
        about = calibration.release, calibration.references.get("prompt", EMPTY)
        return (
            calibration.figures
            if about in [(one.release, one.reference) for one in drift_monitor.list_closed_windows()[-1:]]
            else []
        )
    return []


def run_once(drift_monitor: DriftMonitor, metrics: monitor_metrics.DriftMetrics) -> None:
    """Run one drift check, and record its success or failure in ``metrics``; errors are logged, not raised."""
    try:
        champion, newest = drift_monitor.releases.champion(), drift_monitor.find_latest_window()
        if champion is not None and newest is None:
            metrics.reset()
        drift_monitor.run_once(metrics.record_window)
    except MissingExtraError:
        raise
    except TunectlError as error:
        logging_setup.get_logger(__name__).error("%s", error)
        metrics.record_failure()
    except Exception:  # noqa: BLE001  whatever a window holds, the next one is checked
        logging_setup.get_logger(__name__).exception("a look at the inference log failed")
        metrics.record_failure()
    else:
        metrics.record_success(time.time())
