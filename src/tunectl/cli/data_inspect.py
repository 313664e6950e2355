"""``tunectl data inspect``: show which tokens of a real example are trained, with the trainer's own collator, and check for common mistakes.

Reads the finished model (or cpt), split and configuration of sft; nothing is trained. Exit code 3 where a check fails.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import msgspec

from tunectl.artifacts import atomic_io, manifest
from tunectl.artifacts.paths import ProjectPaths
from tunectl.artifacts.records import Example
from tunectl.cli.number_args import parse_count
from tunectl.core.errors import ArtifactError, DataError, GateError, UsageError


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options and positional arguments of ``tunectl data inspect`` to ``parser``."""
    parser.add_argument(
        "--example", type=parse_count, default=0, metavar="N", help="which training example to show, from 0"
    )
    parser.add_argument("--html", type=Path, metavar="FILE", help="also write the result as a page")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")


def run(args: argparse.Namespace) -> int:
    """Print which tokens of an example are trained, and the results of the checks; return the exit code.

    Raises  GateError when a check failed, naming it.
    """
    from tunectl.backends.system import terminal

    result = diagnose_project(ProjectPaths(), which=args.example)
    if args.html is not None:
        atomic_io.write_text(args.html, _page(result))
    if args.json:
        terminal.print_json(msgspec.to_builtins(result) | {"healthy": result.healthy})
    else:
        _show(result)
        if args.html is not None:
            terminal.print_line(f"page: {args.html}")
    if not result.healthy:
        bad = [finding for finding in result.findings if not finding.ok]
        raise GateError("; ".join(f"{finding.name}: failed: {finding.text}" for finding in bad), hint=_HINT)
    return 0


_HINT = "see sft.loss_on, sft.max_length and model.chat_template, then look again: tunectl data inspect"


def diagnose_project(layout: ProjectPaths, *, which: int) -> Any:
    """Return the ``MaskDiagnostics`` of a project's training split: one example in detail, and checks of all of them.

    ``which``: index of the example among those that can be rendered.
    Raises  UsageError where there are fewer; ArtifactError when the model or the split is not there; DataError where the template renders the same turns in two ways, or there are no rows.
    """
    from tunectl.chat import model_spec
    from tunectl.chat.loss_mask import LossMasker, mask_each
    from tunectl.chat.tokenizer import Tokenizer
    from tunectl.pipeline import resolved_config
    from tunectl.training import mask_diagnostics

    settings, _ = resolved_config.load_stage_config(layout, "sft")
    section = settings.sft
    adapted = layout.artifact("cpt")
    passed = (adapted / manifest.PASSED_THROUGH).is_file() or not (adapted / manifest.NAME).is_file()
    base = layout.artifact("model") if passed else adapted
    manifest.read(base)
    spec = model_spec.load(base)
    system = spec.system if section.system is None else section.system
    chat, problem = _load_template(base, system)
    tokenizer = Tokenizer(base)
    masker = LossMasker(chat, tokenizer, end_of_turn=spec.eot_token.id, train_on=section.loss_on)
    examples = list(atomic_io.read_rows(layout.artifact("split") / "train.jsonl", Example))
    if not examples:
        raise DataError(
            "the train split is empty, so there is no example to show", hint="add data, or raise split.shares.train"
        )
    rendered = mask_each(masker, examples)
    refused = [(row, item) for row, item in zip(examples, rendered, strict=True) if isinstance(item, DataError)]
    masked = [item for item in rendered if not isinstance(item, DataError)]
    if not masked:
        raise refused[0][1]
    if which >= len(masked):
        raise UsageError(
            f"--example {which}: there are {len(masked)} examples", hint=f"give a number from 0 to {len(masked) - 1}"
        )
    diagnostics = mask_diagnostics.run_diagnostics(
        masked,
        tokenizer,
        spec,
        max_tokens=section.max_length,
        max_share=section.max_rejected_share,
        system=chat.system,
        which=which,
    )
    fine = mask_diagnostics.DiagnosticCheck(
        "the chat template is the one that the model was set up with",
        ok=True,
        text=f"SHA-256 {spec.template_sha256[:12]}…",
    )
    renders = mask_diagnostics.check_rendered(refused, len(examples), section.max_rejected_share)
    return msgspec.structs.replace(diagnostics, findings=[problem or fine, renders, *diagnostics.findings])


def _load_template(base: Path, system: str | None) -> tuple[Any, Any]:
    """Return the chat template of ``base``, and the failed check where it is not the one of the model; None where it is."""
    from tunectl.chat import template
    from tunectl.chat.literal_tokens import load_special_texts
    from tunectl.training.mask_diagnostics import DiagnosticCheck

    try:
        return template.load(base, system=system), None
    except ArtifactError as error:
        failed = DiagnosticCheck(
            "the chat template is the one that the model was set up with", ok=False, text=error.message
        )
        texts = load_special_texts(base)
        return template.Template((base / template.FILE).read_text(), system=system, special=texts), failed


def _facts(result: Any) -> list[list[str]]:
    return [
        ["examples, answers", f"{result.examples:,}, {result.answers:,}"],
        ["mean tokens of a prompt, of an answer", f"{result.prompt_tokens}, {result.answer_tokens}"],
        ["longest prompt with one answer", f"{result.longest:,} tokens"],
        ["trained share of all tokens", f"{result.trained_share:.1%}"],
        ["system text", "as the chat template does" if result.system is None else repr(result.system)],
    ]


def _checks(result: Any) -> list[list[str]]:
    return [[finding.name, "yes" if finding.ok else "NO", finding.text] for finding in result.findings]


def _show(result: Any) -> None:
    from tunectl.backends.system import terminal

    terminal.table("What the tokens say", ["check", "", "found"], _checks(result))
    terminal.table("", ["what", "value"], _facts(result))
    terminal.print_line(f"One example, {result.source}: trained tokens are green (in plain text: between « and »)")
    terminal.print_marked([(token.text, token.trained) for token in result.shown])


def _page(result: Any) -> str:
    from tunectl.backends.reports import render

    return render.render(
        "data_inspect.html",
        project="the project",
        sections=[("checks", "Checks"), ("tokens", "Tokens")],
        healthy=result.healthy,
        findings=_checks(result),
        facts=_facts(result),
        source=result.source,
        shown=result.shown,
    )
