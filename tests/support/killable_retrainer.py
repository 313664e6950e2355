"""The watcher, with a gate that needs no engine: it says what VERDICT says. Words: ``once``, then overrides.

CUT=N in the environment: the power fails after N changes of files, counted from the beginning of a promotion.
"""

import os
import sys
from pathlib import Path

import power_cut
from retrain_project import overrides

from tunectl.artifacts.paths import ProjectPaths
from tunectl.config.loading import checks
from tunectl.config.loading import override_file as recorded
from tunectl.core.errors import TunectlError
from tunectl.retraining import promotion_gate
from tunectl.retraining.local_activities import LocalActivities
from tunectl.services import retrain_controller

LocalActivities.judge = lambda self, run, stop: promotion_gate.GateVerdict(
    os.environ.get("VERDICT", "promote"), "as the test says"
)  # type: ignore[method-assign]
if "CUT" in os.environ:
    promote = LocalActivities.promote

    def cut(self, run, why, now):
        power_cut.install(int(os.environ["CUT"]))
        return promote(self, run, why, now)

    LocalActivities.promote = cut  # type: ignore[method-assign]
layout = ProjectPaths(Path())
given = recorded.merge_overrides(recorded.load_overrides(layout), [*overrides(), *sys.argv[2:]])
try:
    retrain_controller.run(layout, checks.load_config(layout, given).root, cost="nothing", once=sys.argv[1] == "once")
except TunectlError as error:  # as the command line does
    sys.stderr.write(f"{error}\n")
    sys.exit(error.exit_code)
