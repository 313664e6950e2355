"""The watcher, with a gate that needs no engine: it says what VERDICT says. Words: ``once``, then overrides.

CUT=N in the environment: the power fails after N changes of files, counted from the beginning of a promotion.
"""

import os
import sys
from pathlib import Path

import cutting
from watch_project import overrides

from tunectl.artifacts.layout import Layout
from tunectl.config import check
from tunectl.config import overrides as recorded
from tunectl.core.errors import TunectlError
from tunectl.release import gate
from tunectl.services import watch
from tunectl.services.watcher.work import Work

Work.judge = lambda self, run, stop: gate.Verdict(os.environ.get("VERDICT", "promote"), "as the test says")  # type: ignore[method-assign]
if "CUT" in os.environ:
    promote = Work.promote

    def cut(self, run, why, now):
        cutting.install(int(os.environ["CUT"]))
        return promote(self, run, why, now)

    Work.promote = cut  # type: ignore[method-assign]
layout = Layout(Path())
given = recorded.merge(recorded.replay(layout), [*overrides(), *sys.argv[2:]])
try:
    watch.run(layout, check.load(layout, given).root, cost="nothing", once=sys.argv[1] == "once")
except TunectlError as error:  # as the command line does
    sys.stderr.write(f"{error}\n")
    sys.exit(error.exit_code)
