"""``tunectl release experiment start|status|stop|plan``: a release on a share of the live traffic, as watch.canary declares it."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from tunectl.cli import live_store, typist
from tunectl.core.errors import UsageError

if TYPE_CHECKING:
    from tunectl.config.root import Root
    from tunectl.config.watch import WatchCanary
    from tunectl.release.store import Store

DAYS = 7
"""Of live traffic that a plan looks back on."""
HORIZON = 40_000
"""Identities after which a simulated experiment is given up."""


def declare(verb: str, parser: argparse.ArgumentParser) -> None:  # noqa: ARG001 - every verb of release is declared alike
    """Declare the words of this verb."""
    parser.add_argument("do", choices=("start", "status", "stop", "plan"))
    parser.add_argument("release", nargs="?", metavar="ID", help="of start: the challenger")
    parser.add_argument(
        "--share", type=float, metavar="SHARE", help="of the identities, in place of watch.canary.share"
    )
    parser.add_argument("--why", default="", metavar="TEXT", help="kept in the record")
    parser.add_argument(
        "--effect", type=float, default=0.05, metavar="GAIN", help="of plan: the gain to be seen (0.05)"
    )
    parser.add_argument(
        "--rate", type=float, metavar="RATE", help="of plan: the champion's rate, in place of what was measured"
    )


def run_experiment(args: argparse.Namespace, store: Store) -> int:
    """Do what was asked."""
    from tunectl.artifacts.layout import Layout
    from tunectl.config import check, overrides

    layout = Layout()
    root: Root = check.load(layout, overrides.replay(layout)).root
    does = {"start": _start, "status": _status, "stop": _stop, "plan": _plan}
    return does[args.do](args, store, root)


def _declared(root: Root, share: float | None) -> WatchCanary:
    if root.watch.canary is None:
        raise UsageError("watch.canary is null, so no experiment is declared", hint="declare it in conf/watch/")
    return root.watch.canary if share is None else root.watch.canary.model_copy(update={"share": share})


def _start(args: argparse.Namespace, store: Store, root: Root) -> int:
    import secrets

    from msgspec.structs import replace

    from tunectl.backends import terminal
    from tunectl.release.store import plain
    from tunectl.release.trials import Trials
    from tunectl.services.watcher import trying

    if args.release is None:
        raise UsageError("which release is the challenger?", hint="tunectl release experiment start ID")
    name = f"manual-{secrets.token_hex(4)}"
    wanted = trying.experiment(
        _declared(root, args.share),
        store.find(args.release),
        name=name,
        now=datetime.now(UTC),
        by=typist.name(),
        why=args.why,
    )
    made = Trials(store).start(replace(wanted, run=None))
    if args.json:
        terminal.print_json(plain(made))
        return 0
    terminal.say(
        f"experiment {made.id}: {made.challenger} for {made.rules.share:.0%} of the identities, by {made.measure}"
    )
    terminal.say("tunectl watch looks at it and ends it; see it with: tunectl release experiment status")
    return 0


def _status(args: argparse.Namespace, store: Store, root: Root) -> int:
    from tunectl.artifacts.layout import Layout
    from tunectl.backends import terminal
    from tunectl.release import experiment, story
    from tunectl.release.store import plain
    from tunectl.release.trials import Trials
    from tunectl.services.watcher import trying

    trials = Trials(store)
    found = trials.running() or next(reversed(trials.all()), None)
    if found is None:
        terminal.print_json(None) if args.json else terminal.say(
            "no experiment yet: tunectl release experiment start ID"
        )
        return 0
    reading, open_, chosen = found.reading, 0, 0
    with live_store.kept(root.live, Layout()) as live:
        if found.ended is None and live is not None:
            now = datetime.now(UTC)
            units = trying.collected(found, live, now)
            reading = experiment.read(units.units, found.rules, over=now >= found.until)
            open_, chosen = units.open, units.chosen
    if args.json:
        told = plain(reading) if reading else None
        terminal.print_json({**plain(found), "reading": told, "open": open_, "chosen": chosen})
        return 0
    state = f"ended: {found.decision}" if found.ended else f"runs until {found.until:%Y-%m-%d %H:%M} UTC at most"
    rows = [("experiment", found.id), ("challenger", found.challenger), ("measure", found.measure), ("state", state)]
    rows += list(story.readings(reading)) if reading else []
    rows += [("identities still open", str(open_)), ("requests that named an arm", str(chosen))]
    terminal.table("", ("what", "value"), rows)
    return 0


def _stop(args: argparse.Namespace, store: Store, root: Root) -> int:  # noqa: ARG001 - all four are called alike
    from tunectl.backends import terminal
    from tunectl.release.store import plain
    from tunectl.release.trials import Trials

    trials = Trials(store)
    found = trials.running()
    if found is None:
        raise UsageError(f"{store.root}: no experiment runs", hint="tunectl release experiment status")
    ended = trials.end(found, "running", datetime.now(UTC), None)
    if args.json:
        terminal.print_json(plain(ended))
    else:
        terminal.say(f"experiment {ended.id} ended; the champion {ended.champion} answers everybody")
    return 0


def _plan(args: argparse.Namespace, store: Store, root: Root) -> int:  # noqa: ARG001 - all four are called alike
    """How many identities and days it takes, simulated, at the traffic of the last week."""
    from tunectl.artifacts.layout import Layout
    from tunectl.backends import terminal
    from tunectl.release import outcomes, planning
    from tunectl.release.store import plain
    from tunectl.services.watcher import trying

    wanted = _declared(root, args.share)
    now = datetime.now(UTC)
    with live_store.kept(root.live, Layout()) as live:
        past = outcomes.collect(
            live.exchanges(now - timedelta(days=DAYS), now) if live is not None else (),
            live.feedback_of if live is not None else lambda _ids: {},
            measure=wanted.measure,
            challenger="",
            attribution=timedelta(hours=min(wanted.attribution_hours, 24.0)),
            slow=wanted.slow_seconds,
            now=now,
        )
    units = len(past.units) + past.open
    mean = sum(unit.outcome for unit in past.units) / len(past.units) if past.units else None
    rate = args.rate if args.rate is not None else mean
    if rate is None:
        raise UsageError(
            f"no outcome in {DAYS} days of traffic, so the champion's rate is not known", hint="give it: --rate 0.2"
        )
    rules = trying.experiment(wanted, "", name="plan", now=now, by="", why="").rules
    found = planning.plan(rules, rate=rate, effect=args.effect, horizon=HORIZON, seed=root.seed)
    days = None if found.most is None or not units else found.most / (units / DAYS)
    if args.json:
        terminal.print_json({**plain(found), "rate": rate, "units_a_day": units / DAYS, "days": days})
        return 0
    rows = [
        ("champion's rate", f"{rate:.3f} ({'given' if args.rate is not None else f'{len(past.units)} identities'})"),
        ("gain to be seen", f"{args.effect:+.3f}"),
        ("identities a day", f"{units / DAYS:.1f}"),
        ("half of the experiments end by", f"{found.half or f'more than {HORIZON}'} identities"),
        ("four of five end by", f"{found.most or f'more than {HORIZON}'} identities"),
        ("days for that", "never, at this traffic" if days is None else f"{days:.1f}"),
    ]
    terminal.table("simulated", ("what", "value"), rows)
    if days is not None and days > wanted.days:
        terminal.say(
            f"that is more than watch.canary.days = {wanted.days:g}: raise the share, or look for a larger gain"
        )
    return 0
