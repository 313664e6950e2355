"""Watch for drift alerts, the calendar and people's wishes; rebuild, prove, try and promote, every step on record.

tunectl watch                      work until told to stop
tunectl watch --once               do what there is to do now, then end

Alertmanager and Grafana send their alerts to /webhook with the token in watch.token; people ask with `tunectl repro --reason`.
The pages show the story of each retrain. Drift itself is found by `tunectl monitor`.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from tunectl.artifacts.layout import Layout
from tunectl.core.errors import UsageError

if TYPE_CHECKING:
    from tunectl.config.root import Root

READ: Final = frozenset(("watch", "live", "harvest", "monitor", "serve", "evaluate"))
"""Sections of the configuration that a watcher reads; its builds read what the project has recorded."""


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the words of this verb."""
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="for this watcher alone; nothing is recorded")
    parser.add_argument("--once", action="store_true", help="do what there is to do now, then end")


def run(args: argparse.Namespace) -> int:
    """Check the configuration, then watch."""
    from tunectl.config import check, overrides
    from tunectl.services import watch

    layout = Layout()
    root: Root = check.load(layout, overrides.merge(overrides.replay(layout), args.overrides)).root
    _refuse_builds(args.overrides)
    watch.run(layout, root, cost=_cost(layout), once=args.once)
    return 0


def _refuse_builds(given: Sequence[str]) -> None:
    for text in given:
        if re.split(r"[.=@]", text.lstrip("+~"), maxsplit=1)[0] not in READ:
            raise UsageError(
                f"{text}: a watcher's retrains are built with the settings that the project has recorded, not with its own",
                hint=f"for every build: tunectl repro {text}; for retrains alone: tunectl watch 'watch.train.overrides=[{text}]'",
            )


def _cost(layout: Layout) -> str:
    """What the last build took, in words."""
    from tunectl.artifacts import io
    from tunectl.stages import STAGES

    seconds: list[float] = [
        io.read_json(layout.metrics(stage.name))["seconds"] for stage in STAGES if layout.metrics(stage.name).is_file()
    ]
    return (
        f"about {max(1, round(sum(seconds) / 60))} min, as the last build took" if seconds else "no build was timed yet"
    )


def asked(layout: Layout, reason: str, *, urgent: bool, release: str | None = None) -> tuple[str, bool]:
    """Leave a person's wish for the watcher, a retrain or that ``release`` be tried; its id, and whether a watcher runs."""
    import uuid
    from datetime import UTC, datetime

    from tunectl.artifacts import lock
    from tunectl.cli import typist
    from tunectl.release import book
    from tunectl.release.machine import Trigger

    name = f"person-{uuid.uuid4().hex[:16]}"
    wish = Trigger("person", name, datetime.now(UTC), reason, typist.name(), urgent=urgent, release=release)
    book.Book(layout.retrain).receive(wish)
    return name, lock.taken(layout.retrain / book.LOCK)
