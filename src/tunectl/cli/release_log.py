"""``tunectl release log``: additions, promotions and rollbacks, the retrains among them, and the whole story of one."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunectl.core.errors import UsageError

if TYPE_CHECKING:
    from tunectl.release.machine import Run
    from tunectl.release.store import Store


def declare(verb: str, parser: argparse.ArgumentParser) -> None:  # noqa: ARG001 - every verb of release is declared alike
    """Declare the words of this verb."""
    parser.add_argument("retrain", nargs="?", metavar="RETRAIN", help="the whole story of this one (or: last)")
    parser.add_argument("--page", type=Path, metavar="FILE", help="write all stories as one HTML page")


def run_log(args: argparse.Namespace, store: Store) -> int:
    """Everything in order, or one story, or a page."""
    from tunectl.artifacts.layout import Layout
    from tunectl.backends import terminal
    from tunectl.release.book import Book
    from tunectl.release.trials import Trials

    book, trials = Book(Layout().retrain), Trials(store)
    if args.page is not None:
        return _page(args, book, trials)
    runs = book.runs()
    if args.retrain is not None:
        return _story(args, _find(runs, args.retrain), trials)
    rows = _rows(store, runs)
    if args.json:
        terminal.print_json(rows)
        return 0
    columns = ("at", "what", "release", "before", "by", "why")
    terminal.table("", columns, [tuple(str(row.get(name) or "") for name in columns) for row in rows])
    if runs:
        terminal.say("the story of one retrain: tunectl release log RETRAIN")
    return 0


def _rows(store: Store, runs: list[Run]) -> list[dict[str, Any]]:
    """Entries of the store's log and the ends of retrains, by time."""
    from tunectl.release.store import plain

    entries = [{**plain(entry), "at": entry.at[:19]} for entry in store.log()]
    for run in runs:
        found = run.facts("evaluating") or run.facts("rejected")
        entries.append(
            {
                "at": run.steps[-1].at.isoformat()[:19],
                "what": f"retrain {run.state}",
                "release": found.get("release", ""),
                "by": run.trigger.kind,
                "why": f"{run.id}: {run.trigger.why}; {run.steps[-1].why}".rstrip("; "),
                "retrain": run.id,
            }
        )
    return sorted(entries, key=lambda row: row["at"])


def _find(runs: list[Run], word: str) -> Run:
    found = runs[-1:] if word == "last" else [run for run in runs if run.id.startswith(word)]
    if len(found) != 1:
        what = "several retrains begin with it" if found else "there is no such retrain"
        names = ", ".join(run.id for run in (found or runs)[-8:]) or "none yet"
        raise UsageError(f"{word}: {what}", hint=f"there are: {names}")
    return found[0]


def _story(args: argparse.Namespace, run: Run, trials: Any) -> int:
    from tunectl.backends import terminal
    from tunectl.release import story
    from tunectl.release.store import plain

    experiment = next((one for one in trials.all() if one.run == run.id), None)
    if args.json:
        terminal.print_json({"retrain": plain(run), "experiment": plain(experiment) if experiment else None})
        return 0
    told = story.told(run, experiment)
    terminal.say(f"retrain {told.id}: {told.state}. {told.end or told.why}")
    for chapter in told.chapters:
        terminal.table(chapter.title, chapter.columns, chapter.rows)
    return 0


def _page(args: argparse.Namespace, book: Any, trials: Any) -> int:
    from tunectl.artifacts import io
    from tunectl.artifacts.layout import Layout
    from tunectl.backends import terminal
    from tunectl.config import check, overrides
    from tunectl.services.watcher.pages import listing

    layout = Layout()
    project = check.load(layout, overrides.replay(layout)).root.project
    io.write_text(args.page, listing(book, trials, project, linked=False))
    if args.json:
        terminal.print_json({"page": str(args.page)})
    else:
        terminal.say(f"page: {args.page}")
    return 0
