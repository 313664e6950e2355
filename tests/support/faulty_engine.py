"""An engine for tests of engine processes: repeats its prompt a token at a time, and fails in every way when told to."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

from tunectl.core.errors import ArtifactError
from tunectl.generation.engine import TokenChunk

DIES, BREAKS, SLOW = 666, 667, 668
"""First tokens of prompts: the process dies, the pipeline breaks, a token takes its time."""


class FrailEngine:
    name = "frail"

    def __init__(self, mood: str) -> None:
        self.mood = mood

    def open(self, release: Path, deliver, *, adapter: bool):
        if self.mood == "absent":
            raise ArtifactError(f"{release}: there is nothing, adapter {adapter}", hint="look there")
        if self.mood == "odd":
            raise ZeroDivisionError("no error of ours")
        if self.mood in ("forks", "forks and hangs") and os.fork() == 0:
            time.sleep(600)
        if self.mood in ("hangs", "forks and hangs"):
            time.sleep(600)
        if self.mood == "dead":
            os.kill(os.getpid(), signal.SIGFPE)
        return FrailPipeline(deliver)


class FrailPipeline:
    def __init__(self, deliver) -> None:
        self.broken = None
        self._deliver = deliver
        self._cancelled = set()

    def start(self, number, ask) -> None:
        threading.Thread(target=self._say, args=(number, ask), daemon=True).start()

    def _say(self, number, ask) -> None:
        if ask.prompt[0] == DIES:
            os.kill(os.getpid(), signal.SIGSEGV)
            time.sleep(60)  # another thread may be the one that takes the signal, a moment later
        if ask.prompt[0] == BREAKS:
            self.broken = "a step failed"
            self._deliver([(number, TokenChunk([], [], "failed", "a step failed"))])
            return
        for place, token in enumerate(ask.prompt):
            if ask.prompt[0] == SLOW:
                time.sleep(0.02)
            if number in self._cancelled:
                self._deliver([(number, TokenChunk([], [], "cancelled"))])
                return
            last = place + 1 == len(ask.prompt)
            self._deliver([(number, TokenChunk([token], [-0.5], "length" if last else None))])

    def cancel(self, number) -> None:
        self._cancelled.add(number)

    def close(self) -> None:
        pass
