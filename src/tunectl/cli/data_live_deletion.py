"""What is deleted of live traffic: at somebody's request, with time, and for good. Words of ``tunectl data live``."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from tunectl.artifacts.layout import Layout
from tunectl.core.errors import UsageError

if TYPE_CHECKING:
    from tunectl.config.harvest import LiveHarvest
    from tunectl.config.root import Root
    from tunectl.config.serve import ServeSettings
    from tunectl.live.store import LiveStore

    Told = Root | ServeSettings

NOBODY = (
    "Nothing was forgotten: nothing is under that name. Names are kept as hashes: spell it as the client did, and give "
    "this command the server's own salt ({variable}, or its file)."
)
LONGEST = 99_999
"""Days that can be counted back."""
LIMIT = (
    "What a model has learned already stays in its weights: train again without these rows, and release that. "
    "Exports elsewhere, backups, and choices made on the arena page (annotate.store, under the person's name) are yours to delete."
)
CACHED = (
    "DVC's cache still has what earlier builds were made of, live text among it: once a build without it is the one in this "
    "folder, and while no retrain runs, dvc gc -w deletes all that this folder does not need."
)


def forget(args: argparse.Namespace, layout: Layout, root: Told, store: LiveStore) -> int:
    """Delete everything of somebody, at once."""
    from tunectl.live import identity

    hashed = args.hash
    if hashed is None:
        salt = identity.salt(root.live, layout.root, make=False)
        identity.refuse_other(store, root.live, salt)
        hashed = identity.hidden(args.user if args.user is not None else identity.holder(args.key), salt)
    found = store.forget(hashed)
    told = (
        f"Forgotten: {found.exchanges} exchanges, {found.opinions} feedback. Their text is gone, and no build takes them "
        f"up. {LIMIT}"
    )
    _say(
        args,
        {"forgotten": found.exchanges, "feedback": found.opinions},
        told if any(found) else NOBODY.format(variable=root.live.salt_variable),
    )
    return 0


def retain(args: argparse.Namespace, layout: Layout, root: Told, store: LiveStore) -> int:
    """Delete what is older than so many days; of frozen windows those that no build needs.

    Raises  UsageError for a number of days that cannot be.
    """
    days = root.live.retention_days if args.days is None else args.days
    if days is None or not 1 <= days <= LONGEST:
        raise UsageError(f"retain: {days} days", hint=f"set live.retention_days, or give --days N of 1 to {LONGEST}")
    before = datetime.now(UTC) - timedelta(days=days)
    count = store.retain(before)
    section = _harvest(root)
    snapshots = 0 if section is None else _fruitless(layout, section, before)
    _say(
        args,
        {"deleted": count, "snapshots": snapshots, "before": before.isoformat()},
        f"{count} exchanges from before {before:%Y-%m-%d} are deleted"
        + (f", and {snapshots} snapshots of retrains that came to nothing" if snapshots else ""),
    )
    return 0


def _harvest(root: Told) -> LiveHarvest | None:
    """Where snapshots lie; None where there are none, or in a container, which retrains nothing."""
    from tunectl.config.harvest import LiveHarvest
    from tunectl.config.root import Root

    section = root.harvest.root if isinstance(root, Root) else None
    return section if isinstance(section, LiveHarvest) else None


def _fruitless(layout: Layout, section: LiveHarvest, before: datetime) -> int:
    """Delete old snapshots, but those of the last build, of a retrain that runs, and of promoted ones (their branch may wait)."""
    from tunectl.live import forgetting, gathering
    from tunectl.release.book import Book

    kept = {one.id for one in gathering.named(layout.root / section.window).snapshots}
    for run in Book(layout.retrain).runs():
        if run.state == "promoted" or not run.ended:
            kept.add(run.facts("proposed").get("snapshot", {}).get("id", ""))
    return forgetting.retain(layout.root / section.snapshots, kept, before)


def purge(args: argparse.Namespace, layout: Layout, root: Told, store: LiveStore) -> int:
    """Rewrite the database and frozen windows, and delete copies, so that nothing deleted is left in files of ours."""
    import shutil

    from tunectl.config.root import Root
    from tunectl.live import forgetting
    from tunectl.services.drift import reports

    store.purge()
    shutil.rmtree(layout.gates, ignore_errors=True)
    shutil.rmtree(layout.live_exports, ignore_errors=True)
    gone, section = f"{layout.live_exports} is deleted", _harvest(root)
    if isinstance(root, Root):
        folder = layout.root / root.monitor.reports
        reports.prune(folder, 0)
        gone = f"{layout.live_exports} and the drift reports in {folder} are deleted"
    words = [f"the database is written anew; {gone}."]
    if section is not None:
        forgetting.purge(layout.root / section.snapshots, store)
        words.append(CACHED)
    _say(args, {"purged": True}, " ".join([*words, LIMIT]))
    return 0


def _say(args: argparse.Namespace, value: dict[str, Any], words: str) -> None:
    from tunectl.backends import terminal

    if args.json:
        terminal.print_json(value)
    else:
        terminal.say(words)
