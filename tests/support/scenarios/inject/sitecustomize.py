"""Read by a server's Python at its start (PYTHONPATH): makes its engine hang and its disk slow while a file says so.

TUNECTL_INJECT names a folder. ``hang`` in it: no step of the engine returns. ``slow`` in it: every transaction of the live
store takes as many seconds more as it says. ``most`` is written there: the most answers that the engine ever held at once.
"""

import os
import time
from pathlib import Path

folder = Path(os.environ["TUNECTL_INJECT"])


def wrap_engine() -> None:
    from tunectl.backends.engines.transformers_engine import TransformersSession

    step, most = TransformersSession._step, 0

    def slow_step(self, running):
        nonlocal most
        if len(self._active) > most:
            most = len(self._active)
            (folder / "most").write_text(str(most))
        while (folder / "hang").exists():
            time.sleep(0.01)
        return step(self, running)

    TransformersSession._step = slow_step


def wrap_store() -> None:
    from tunectl.backends.storage.inference_log_sql import SqlInferenceLog

    write = SqlInferenceLog.write

    def slow_write(self, entries):
        slow = folder / "slow"
        if slow.exists():
            time.sleep(float(slow.read_text()))
        return write(self, entries)

    SqlInferenceLog.write = slow_write


wrap_engine()
wrap_store()
