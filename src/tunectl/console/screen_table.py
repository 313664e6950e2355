"""The screens of the console: the one table from which routes, JSON addresses, navigation and tests are made.

A new screen is a file in ``screens/``, a template, and a line here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from tunectl.access.scopes import KeyScope
from tunectl.console.read_context import ReadContext
from tunectl.console.screens import (
    answers,
    build,
    compare,
    data,
    drift,
    explain,
    home,
    jobs,
    live,
    people,
    plan,
    play,
    release,
    releases,
    results,
    retrain,
    row,
    rows,
    run_curve,
    runs,
    settings,
    stage,
    sweeps,
)

Query = Mapping[str, str]
"""The query parameters of an address, and the variable parts of its path."""


class Screen(NamedTuple):
    """One page of the console: its route, title, template, reader and scope; the same content is served as JSON."""

    path: str
    """``{name}`` stands for one part; the JSON is at the same path with ``.json`` (``/home.json`` for ``/``)."""
    title: str
    template: str
    """File name in ``templates/``."""
    read: Callable[[ReadContext, Query], Any]
    """Returns the struct that the page shows; raises NotFoundError where there is no such thing."""
    scope: KeyScope = "look"
    group: str = ""
    """Group of the navigation; empty: the screen is not listed, and reached from another one."""
    parent: str = ""
    """Path of the screen that is highlighted in the navigation while this one is open; empty: its own."""


SCREENS: Final[tuple[Screen, ...]] = (
    Screen("/", "Home", "home.html", home.read_home, group="Project"),
    Screen("/build", "Build", "build.html", build.read_build, group="Project"),
    Screen("/build/plan", "What a build would do", "plan.html", plan.read_plan, parent="/build"),
    Screen("/build/{stage}", "Stage", "stage.html", stage.read_stage, parent="/build"),
    Screen("/data", "Data", "data.html", data.read_data, group="Project"),
    Screen("/data/rows", "Rows", "rows.html", rows.read_rows, parent="/data"),
    Screen("/data/rows/{id}", "Row", "row.html", row.read_row, parent="/data"),
    Screen("/runs", "Runs", "runs.html", runs.read_runs, group="Project"),
    Screen("/runs/compare", "Compare runs", "compare.html", compare.read_compare, parent="/runs"),
    Screen("/runs/curve/{stage}/{figure}", "Curve", "curve.html", run_curve.read_run_curve, parent="/runs"),
    Screen("/jobs", "Jobs on a cluster", "jobs.html", jobs.read_jobs, parent="/runs"),
    Screen("/sweeps", "Sweeps", "sweeps.html", sweeps.read_sweeps, parent="/runs"),
    Screen("/sweeps/{sweep}", "Sweep", "sweep_trials.html", sweeps.read_sweep, parent="/runs"),
    Screen("/results", "Results", "results.html", results.read_results, group="Project"),
    Screen("/results/answers", "Answers", "answers.html", answers.read_answers, parent="/results"),
    Screen("/results/{report}", "Report", "report.html", results.read_report, parent="/results"),
    Screen("/people", "People", "people.html", people.read_people, group="Project"),
    Screen("/explain", "Explain", "explain.html", explain.read_explain, group="Project"),
    Screen("/settings", "Settings", "settings.html", settings.read_settings, group="Project"),
    Screen("/settings/keys", "Keys", "keys.html", settings.read_keys, parent="/settings"),
    Screen("/play", "Play", "play.html", play.read_play, group="Production"),
    Screen("/releases", "Releases", "releases.html", releases.read_releases, group="Production"),
    Screen("/releases/{release}", "Release", "release.html", release.read_release, parent="/releases"),
    Screen("/live", "Live", "live.html", live.read_live, group="Production"),
    Screen("/live/{inference}", "One request", "inference.html", live.read_inference, parent="/live"),
    Screen("/drift", "Drift", "drift.html", drift.read_drift, group="Production"),
    Screen("/drift/{window}", "Drift window", "drift_window.html", drift.read_drift_window, parent="/drift"),
    Screen("/retrain", "Retrain", "retrain.html", retrain.read_retrain, group="Production"),
    Screen("/retrain/{run}", "One retrain", "retrain_run.html", retrain.read_retrain_run, parent="/retrain"),
    Screen("/decisions", "Decisions", "decisions.html", retrain.read_decisions, group="Production"),
)


def json_path(path: str) -> str:
    """Return the path of a screen's JSON: ``/build.json`` for ``/build``."""
    return "/home.json" if path == "/" else f"{path}.json"
