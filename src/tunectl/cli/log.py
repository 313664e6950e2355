"""The inference log: requests and answers of served models, with feedback.

tunectl log                              counts, metrics of the servers, and the newest inferences
tunectl log show --id chatcmpl-...       one inference with its feedback; the beginning of the id is enough
tunectl log export --shape chat          a fine-tuning file; --shape flywheel: a log of the NVIDIA data flywheel
tunectl log erase --user NAME            delete all data of one user now
tunectl log prune [--days 90]            delete what is older
tunectl log purge                        rewrite the database, so that no deleted data remains in its files or in reports
tunectl log verify                       read the whole log and say what is damaged; servers may go on
tunectl log migrate                      bring the log of an older tunectl to this one's folder, tables and columns

The text was redacted before it was written. Times: 2026-03-01, 2026-03-01T12:00+01:00, or 7d and 12h for "ago". For the server in
a container: docker exec NAME python -m tunectl log VERB.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from tunectl.artifacts.paths import ProjectPaths
from tunectl.backends.storage import open_inference_log
from tunectl.cli import log_erase, log_migrate, log_verify, time_args
from tunectl.cli.number_args import parse_count
from tunectl.core.errors import DataError
from tunectl.inference_log import erasure
from tunectl.inference_log.export import Shape

if TYPE_CHECKING:
    from tunectl.artifacts.records import Feedback, InferenceRecord
    from tunectl.cli.log_erase import LogSettings
    from tunectl.inference_log.log_store import InferenceLog

VERBS = ("show", "export", "erase", "prune", "purge", "verify", "migrate")
COLUMNS = (
    "id",
    "accepted",
    "variant",
    "release",
    "user",
    "tokens",
    "finish",
    "seconds",
    "feedback",
    "prompt",
    "answer",
)
PREVIEW = 40
"""Characters of a text in the table."""
ID = len("chatcmpl-") + 8
"""Characters of an id in the table: enough to identify it."""


def add(parser: argparse.ArgumentParser) -> None:
    """Add the subcommands of ``tunectl log``, each with its own arguments, to ``parser``."""
    parser.set_defaults(verb="show", id=None, number=10, since=None, until=None, release=None, variant=None, hash=None)
    parser.add_argument("--json", action="store_true", help="print JSON")
    verbs = parser.add_subparsers(dest="verb", metavar="|".join(VERBS))
    show = verbs.add_parser(
        "show", help="counts, metrics of servers and monitor, and the newest inferences, or one of them"
    )
    show.add_argument("--id", help="print this inference in full; the beginning of its id is enough")
    show.add_argument("-n", "--number", type=parse_count, default=10, metavar="N", help="inferences to print (10)")
    show.add_argument(
        "--hash", metavar="HEX", help="only inferences of this person: the keyed hash in `log show --json`"
    )
    export = verbs.add_parser("export", help="write finished inferences as JSON lines")
    export.add_argument(
        "--shape", choices=get_args(Shape), required=True, help="flywheel: a log; chat: for fine-tuning"
    )
    export.add_argument("--approved", action="store_true", help="only answers that users approved, with their edits")
    export.add_argument(
        "--out", type=Path, metavar="FILE", help="the file to write (.tunectl/cache/inference_log/SHAPE.jsonl)"
    )
    for verb in (show, export):
        verb.add_argument("--since", metavar="TIME", help="accepted at or after")
        verb.add_argument("--until", metavar="TIME", help="accepted before")
        verb.add_argument("--release", metavar="ID", help="answered by this release")
        verb.add_argument("--variant", dest="variant", help="champion, challenger or base")
    erase = verbs.add_parser("erase", help="delete all data of one user now", description=erasure.LIMIT)
    who = erase.add_mutually_exclusive_group(required=True)
    who.add_argument("--user", metavar="NAME", help="as the client called them (OpenAI's field user)")
    who.add_argument("--key", metavar="NAME", help="everything sent with this key, for any user")
    who.add_argument("--hash", metavar="HEX", help="the hash that `tunectl log show` prints")
    prune = verbs.add_parser(
        "prune",
        help="delete rows older than inference_log.retention_days, and old snapshots of runs that were not promoted",
    )
    prune.add_argument("--days", type=int, metavar="N", help="instead of inference_log.retention_days")
    purge = verbs.add_parser(
        "purge", help="rewrite the database and delete exports, so that no deleted data remains on disk"
    )
    migrate = verbs.add_parser(
        "migrate",
        help="migrate the log of an older version to the current folder, tables and columns; stop its processes first",
    )
    verify = verbs.add_parser("verify", help="read the whole log and say what is damaged; exit 5 where something is")
    for verb in (show, export, erase, prune, purge, verify, migrate):
        verb.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Open the inference log and run the subcommand of ``tunectl log``; return its exit code.

    Raises  DataError where nothing was logged yet, or an id is not known; UsageError for a time that cannot be read.
    """
    layout = ProjectPaths()
    root = load_settings(layout)
    if args.verb == "migrate":
        return log_migrate.run(args, layout, root)
    if args.verb == "verify":
        return log_verify.run(args, layout, root)
    with open_inference_log.open_existing(root.inference_log, layout) as store:
        code: int = _CALLS[args.verb or "show"](args, layout, root, store)
    return code


def load_settings(layout: ProjectPaths) -> LogSettings:
    """Return the settings of the project, or inside a Bento, which has no ``conf/`` and no Hydra, those of its server."""
    from tunectl.serving import server_settings

    if not layout.conf.is_dir() and server_settings.settings_path().is_file():
        return server_settings.settings()
    from tunectl.config.loading import checks

    return checks.load_project_config(layout).root


def _show(args: argparse.Namespace, layout: ProjectPaths, root: LogSettings, store: InferenceLog) -> int:
    from msgspec import to_builtins

    from tunectl.backends.system import terminal
    from tunectl.config.schema.root import TunectlConfig
    from tunectl.status import service_metrics

    if args.id is not None:
        return _show_one(args, store)
    counts = store.counts(time_args.parse_time(args.since), time_args.parse_time(args.until))
    newest = _newest(args, store)
    feedback_by_inference = store.feedback_of([item.id for item in newest])
    services = service_metrics.ServiceFigures()
    if isinstance(root, TunectlConfig):  # inside a Bento there is no section console
        services = service_metrics.read_service_figures(layout, root)
    if args.json:
        rows = [
            {**to_builtins(item), "feedback": to_builtins(feedback_by_inference.get(item.id, []))} for item in newest
        ]
        terminal.print_json({"counts": to_builtins(counts), "newest": rows, "services": to_builtins(services)})
        return 0
    opinions = ", ".join(f"{count} {kind}" for kind, count in counts.feedback.items()) or "none"
    terminal.print_line(
        f"{counts.inferences} inferences, {counts.finished} finished, {counts.erased} erased, {counts.users} users; feedback: {opinions}"
    )
    for line in service_metrics.describe_services(services):
        terminal.print_line(line)
    if newest:
        terminal.table("", COLUMNS, [_row(item, feedback_by_inference.get(item.id, [])) for item in newest])
    return 0


def _newest(args: argparse.Namespace, store: InferenceLog) -> list[InferenceRecord]:
    since, until = time_args.parse_time(args.since), time_args.parse_time(args.until)
    return store.newest(args.number, since, until, release=args.release, variant=args.variant, user_hash=args.hash)


def _select_inferences(args: argparse.Namespace, store: InferenceLog) -> Iterator[InferenceRecord]:
    return store.inferences(
        time_args.parse_time(args.since), time_args.parse_time(args.until), release=args.release, variant=args.variant
    )


def _show_one(args: argparse.Namespace, store: InferenceLog) -> int:
    from msgspec import to_builtins

    from tunectl.backends.system import terminal

    inference = open_inference_log.inference(store, args.id)
    if inference is None:
        raise DataError(f"inference {args.id!r} is not in the inference log", hint="tunectl log show lists the newest")
    computed = "computed" if inference.mean_logprob is not None else "not computed"
    terminal.print_json(
        {
            **to_builtins(inference),
            "logprobs": computed,
            "feedback": to_builtins(store.feedback_of([inference.id]).get(inference.id, [])),
        }
    )
    return 0


def _row(inference: InferenceRecord, feedback: list[Feedback]) -> tuple[Any, ...]:
    from tunectl.artifacts.records import truncate
    from tunectl.backends.system import terminal
    from tunectl.monitoring import window

    tokens = "" if inference.completion_tokens is None else f"{inference.prompt_tokens}+{inference.completion_tokens}"
    return (
        inference.id[:ID],
        f"{inference.accepted_at:%m-%d %H:%M:%S}",
        inference.variant,
        inference.release[:8],
        (inference.user_hash or "")[:8],
        tokens,
        inference.finish_reason or "running",
        "" if inference.latency_seconds is None else f"{inference.latency_seconds:.2f}",
        " ".join(f"{each.kind}" for each in feedback),
        *(
            terminal.strip_control(truncate(text, PREVIEW))
            for text in (window.last_user_text(inference), window.answer_text(inference) or "")
        ),
    )


def _export(args: argparse.Namespace, layout: ProjectPaths, root: LogSettings, store: InferenceLog) -> int:
    from tunectl.artifacts import atomic_io, private_files
    from tunectl.backends.system import terminal
    from tunectl.inference_log import export as inference_log_export

    out: Path = args.out or layout.inference_log_exports / f"{args.shape}.jsonl"
    export = inference_log_export.Export(args.shape, workload=root.project, approved_only=args.approved)
    if args.out is None:
        private_files.make_folder(out.parent)
    rows = export.rows(_select_inferences(args, store), store.feedback_of)
    count = atomic_io.write_rows(out, rows, private_files.FILE)
    if args.json:
        terminal.print_json({"file": str(out), "rows": count, "left_out": dict(export.left_out)})
        return 0
    why = ", ".join(f"{number} {reason.replace('_', ' ')}" for reason, number in sorted(export.left_out.items()))
    terminal.print_line(f"{out}: {count} rows" + (f"; left out: {why}" if why else ""))
    if args.shape == "chat" and not args.approved and count:
        terminal.print_line(
            "These answers are the model's own: before it is trained on them, export only what people approved (--approved)."
        )
    return 0


_CALLS: dict[str, Callable[[argparse.Namespace, ProjectPaths, LogSettings, InferenceLog], int]] = {
    "show": _show,
    "export": _export,
    "erase": log_erase.erase,
    "prune": log_erase.prune,
    "purge": log_erase.vacuum,
}
