"""``tunectl release canary start|status|stop|plan``: serve a release to a share of the users beside the champion.

With a test (retrain.canary) the retrain controller evaluates the traffic and ends it; without one, you end it.
"""

from __future__ import annotations

import argparse
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from tunectl.backends.storage import open_inference_log
from tunectl.core import user
from tunectl.core.errors import UsageError

if TYPE_CHECKING:
    from tunectl.config.schema.retrain import CanaryConfig
    from tunectl.config.schema.root import TunectlConfig
    from tunectl.registry.release_store import ReleaseRegistry

DAYS = 7
"""Days of traffic from which a plan computes the champion's rate."""
HORIZON = 40_000
"""Identities after which a simulated test ends."""


def add_parser(verb: str, parser: argparse.ArgumentParser) -> None:  # noqa: ARG001 - every verb of release is declared alike
    """Add the arguments of the subcommand ``verb``."""
    parser.add_argument("do", choices=("start", "status", "stop", "plan"))
    parser.add_argument("release", nargs="?", metavar="ID", help="of start: the release to try")
    parser.add_argument(
        "--share",
        type=float,
        metavar="SHARE",
        help="share of the users, instead of retrain.canary.share (with --no-test: 0, only requests that name it)",
    )
    parser.add_argument("--no-test", action="store_true", help="of start: without a test; it runs until canary stop")
    parser.add_argument("--force", action="store_true", help="with --no-test: although a gate failed")
    parser.add_argument("-m", "--message", default="", metavar="TEXT", help="reason, for the release history")
    parser.add_argument(
        "--effect", type=float, default=0.05, metavar="GAIN", help="of plan: the smallest gain to detect (0.05)"
    )
    parser.add_argument(
        "--rate", type=float, metavar="RATE", help="of plan: the champion's rate, instead of the measured one"
    )


def run_canary(args: argparse.Namespace, store: ReleaseRegistry) -> int:
    """Start, show, stop or plan a canary, as ``args.do`` says; return the exit code.

    Raises  UsageError for --force without --no-test.
    """
    from tunectl.artifacts.paths import ProjectPaths
    from tunectl.config.loading import checks

    if args.force and not args.no_test:
        raise UsageError(
            "--force: a canary test needs a release that its gate accepted",
            hint="leave out --force, or start it without a test: --no-test --share 0.1 --force",
        )
    if args.do == "stop":
        return _stop(args, store)
    if args.do == "start" and args.no_test:
        return _start_without_test(args, store)
    layout = ProjectPaths()
    root: TunectlConfig = checks.load_project_config(layout).root
    calls = {"start": _start, "status": _status, "plan": _plan}
    return calls[args.do](args, store, root)


def _require_canary_config(root: TunectlConfig, share: float | None) -> CanaryConfig:
    if root.retrain.canary is None:
        raise UsageError(
            "retrain.canary is null, so no test is declared", hint="declare one as in conf/retrain/default.yaml"
        )
    return root.retrain.canary if share is None else root.retrain.canary.model_copy(update={"share": share})


def _find(args: argparse.Namespace, store: ReleaseRegistry) -> str:
    if args.release is None:
        raise UsageError("ID is missing: which release should be tested?", hint="tunectl release canary start ID")
    return store.find(args.release)


def _author(store: ReleaseRegistry) -> str:
    from tunectl.registry import signature_policy

    return signature_policy.choose_author(store, user.current_user())


def _start(args: argparse.Namespace, store: ReleaseRegistry, root: TunectlConfig) -> int:
    import secrets

    from msgspec import to_builtins
    from msgspec.structs import replace

    from tunectl.backends.system import terminal
    from tunectl.canary.canary_store import CanaryStore
    from tunectl.retraining import canary_run

    name = f"manual-{secrets.token_hex(4)}"
    canary = canary_run.build_canary_record(
        _require_canary_config(root, args.share),
        _find(args, store),
        name=name,
        now=datetime.now(UTC),
        author=_author(store),
        message=args.message,
    )
    result = CanaryStore(store).start(replace(canary, run=None))
    if args.json:
        terminal.print_json(to_builtins(result))
        return 0
    terminal.print_line(
        f"canary {result.id}: {result.challenger} for {result.rules.share:.0%} of the identities, by {result.metric}"
    )
    terminal.print_line("tunectl retrain controller evaluates and ends it; see it with: tunectl release canary status")
    return 0


def _status(args: argparse.Namespace, store: ReleaseRegistry, root: TunectlConfig) -> int:
    from msgspec import to_builtins

    from tunectl.artifacts.paths import ProjectPaths
    from tunectl.backends.system import terminal
    from tunectl.canary import sequential_test
    from tunectl.canary.canary_store import CanaryStore
    from tunectl.retraining import canary_run, report

    canaries = CanaryStore(store)
    result = canaries.running() or next(reversed(canaries.all()), None)
    if result is None:
        terminal.print_json(None) if args.json else terminal.print_line(
            "no canary yet: tunectl release canary start ID"
        )
        return 0
    reading, open_, by_name = result.reading, 0, 0
    with open_inference_log.open_if_exists(root.inference_log, ProjectPaths()) as log:
        if result.ended_at is None and log is not None:
            now = datetime.now(UTC)
            units = canary_run.collect_observations(result, log, now)
            reading = sequential_test.evaluate(units.units, result.rules, over=now >= result.until)
            open_, by_name = units.open, units.by_name
    if args.json:
        facts = to_builtins(reading) if reading else None
        terminal.print_json({**to_builtins(result), "reading": facts, "open": open_, "chosen": by_name})
        return 0
    state = f"ended: {result.decision}" if result.ended_at else f"runs until {result.until:%Y-%m-%d %H:%M} UTC at most"
    rows = [("canary", result.id), ("challenger", result.challenger), ("metric", result.metric), ("state", state)]
    rows += list(report.describe_results(reading)) if reading else []
    rows += [("identities still open", str(open_)), ("requests that named a variant", str(by_name))]
    terminal.table("", ("what", "value"), rows)
    return 0


def _start_without_test(args: argparse.Namespace, store: ReleaseRegistry) -> int:
    """Serve a release beside the champion until a person stops it.

    Raises  CanaryRunningError while a test runs.
    """
    from msgspec import to_builtins

    from tunectl.backends.system import terminal
    from tunectl.canary.canary_store import CanaryStore

    release = _find(args, store)
    CanaryStore(store).refuse_running()
    share = 0.0 if args.share is None else args.share
    result = store.start_canary(release, share=share, author=_author(store), message=args.message, force=args.force)
    if args.json:
        terminal.print_json(to_builtins(result))
        return 0
    terminal.print_line(
        f"challenger {result.release}: model=challenger, and {result.share:.0%} of the users ({store.root})"
    )
    return 0


def _stop(args: argparse.Namespace, store: ReleaseRegistry) -> int:
    """End the running test, or remove the challenger that was started without one."""
    from msgspec import to_builtins

    from tunectl.backends.system import terminal
    from tunectl.canary.canary_store import CanaryStore

    canaries = CanaryStore(store)
    result = canaries.running()
    if result is None:
        stopped = store.stop_canary(author=_author(store), message=args.message)
        facts, sentence = to_builtins(stopped), f"canary of {stopped.release} stopped ({store.root})"
    else:
        ended = canaries.end(result, "running", datetime.now(UTC), None, author=_author(store), message=args.message)
        facts, sentence = (
            to_builtins(ended),
            f"canary {ended.id} ended; the champion {ended.champion} answers everybody",
        )
    terminal.print_json(facts) if args.json else terminal.print_line(sentence)
    return 0


def _plan(args: argparse.Namespace, store: ReleaseRegistry, root: TunectlConfig) -> int:  # noqa: ARG001 - all three are called alike
    """Print how many identities and days the test takes, simulated, at the traffic of the last week."""
    from msgspec import to_builtins

    from tunectl.artifacts.paths import ProjectPaths
    from tunectl.backends.system import terminal
    from tunectl.canary import canary_metrics, power_analysis
    from tunectl.retraining import canary_run

    settings = _require_canary_config(root, args.share)
    now = datetime.now(UTC)
    with open_inference_log.open_if_exists(root.inference_log, ProjectPaths()) as log:
        past = canary_metrics.collect_observations(
            log.inferences(now - timedelta(days=DAYS), now) if log is not None else (),
            log.feedback_of if log is not None else lambda _ids: {},
            metric=settings.metric,
            challenger="",
            attribution=timedelta(hours=min(settings.attribution_hours, 24.0)),
            slow=settings.slow_threshold_seconds,
            now=now,
        )
    units = len(past.units) + past.open
    mean = sum(unit.outcome for unit in past.units) / len(past.units) if past.units else None
    rate = args.rate if args.rate is not None else mean
    if rate is None:
        raise UsageError(
            f"no outcome in {DAYS} days of traffic, so the champion's rate is not known", hint="give it: --rate 0.2"
        )
    rules = canary_run.build_canary_record(settings, "", name="plan", now=now, author="", message="").rules
    result = power_analysis.simulate_power(rules, rate=rate, effect=args.effect, horizon=HORIZON, seed=root.seed)
    days = None if result.most is None or not units else result.most / (units / DAYS)
    if args.json:
        terminal.print_json({**to_builtins(result), "rate": rate, "units_a_day": units / DAYS, "days": days})
        return 0
    rows = [
        ("champion's rate", f"{rate:.3f} ({'given' if args.rate is not None else f'{len(past.units)} identities'})"),
        ("gain to be seen", f"{args.effect:+.3f}"),
        ("identities a day", f"{units / DAYS:.1f}"),
        ("half of the tests end by", f"{result.half or f'more than {HORIZON}'} identities"),
        ("four of five end by", f"{result.most or f'more than {HORIZON}'} identities"),
        ("days for that", "never, at this traffic" if days is None else f"{days:.1f}"),
    ]
    terminal.table("simulated", ("what", "value"), rows)
    if days is not None and days > settings.max_days:
        terminal.print_line(
            f"that is more than retrain.canary.max_days = {settings.max_days:g}: raise the share, or look for a larger gain"
        )
    return 0
