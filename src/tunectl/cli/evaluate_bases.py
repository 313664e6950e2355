"""``tunectl evaluate --bases``: candidate base models on the validation split, before anyone tunes."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tunectl.artifacts import manifest
from tunectl.artifacts.paths import ProjectPaths
from tunectl.core.errors import DataError, UsageError

if TYPE_CHECKING:
    from tunectl.config.schema.root import TunectlConfig
    from tunectl.evaluation.base_model_comparison import BaseEvalSetup

INPUTS = 32
"""Number of validation inputs without ``--limit``."""
_HUB = re.compile(r"^([\w.-]+/[\w.-]+?)(?:@([0-9a-f]{40}))?$")


def compare(args: argparse.Namespace, overrides: Sequence[str]) -> None:
    """Fetch each base model, generate and score answers to the validation split, and print a table, the best first.

    Raises  UsageError for a name that is not a model; DataError where the validation split has no usable input.
    """
    import msgspec

    from tunectl.backends.system import terminal
    from tunectl.backends.wiring import evaluation
    from tunectl.chat import model_spec
    from tunectl.cli.evaluate_file import print_left_out
    from tunectl.config.loading import checks
    from tunectl.evaluation import base_model_comparison

    layout = ProjectPaths()
    names = [name for name in args.bases.split(",") if name]
    if not names:
        raise UsageError("--bases names no model", hint="for example: --bases smollm2_135m,DIR,owner/name@COMMIT")
    root = checks.load_project_config(layout, overrides).root
    folders = {name: resolve_base(layout, name, overrides) for name in names}
    backend = evaluation.build_backend(root.hardware, None)
    setup = _setup(args, layout, root, list(folders.values()))
    results = []
    for name, folder in folders.items():
        generator = backend.open(folder, None)
        try:
            zero, few, speed = base_model_comparison.evaluate_base(setup, generator, backend.prompter(folder, None))
        finally:
            generator.close()
        facts = model_spec.load(folder)
        size = sum(item.stat().st_size for item in folder.glob("*.safetensors")) / 1e6
        results.append(
            base_model_comparison.BaseModelResult(
                name, facts.parameters, round(size, 1), facts.license, zero, few, speed
            )
        )
    ranked = base_model_comparison.rank(results, setup.primary)
    result = base_model_comparison.Bases(
        len(setup.items), setup.skipped, setup.shots, setup.primary, setup.confidence, ranked
    )
    if args.json:
        terminal.print_json(msgspec.to_builtins(result))
        return
    columns, rows = base_model_comparison.format_table(result)
    terminal.table("base models", columns, rows, caption=f"{len(setup.items)} validation inputs, nothing tuned")
    print_left_out(setup.skipped)


def resolve_base(layout: ProjectPaths, name: str, overrides: Sequence[str]) -> Path:
    """Return the model folder that ``name`` means: an option of conf/model, a folder, or a Hub id with its commit.

    Raises  UsageError for anything else.
    """
    from tunectl.config.loading import checks
    from tunectl.config.loading.override_parsing import list_options
    from tunectl.config.schema.model import BaseModelConfig, HubModel
    from tunectl.pipeline.model_choice import from_folder, prepare_model

    options = list_options(layout.conf, "model")
    if name in options:
        return prepare_model(layout, checks.load_project_config(layout, [*overrides, f"model={name}"]).root.model)
    if Path(name).is_dir():
        return from_folder(layout, Path(name))
    match = _HUB.match(name)
    if match is None:
        raise UsageError(
            f"--bases {name}: neither an option of conf/model ({', '.join(options)}), nor a folder, nor a Hub id",
            hint="a Hub id looks like owner/name@COMMIT",
        )
    if match.group(2) is None:
        raise UsageError(
            f"--bases {name}: no such folder, and a Hub id needs its commit, because a branch can move",
            hint=f"write {name}@COMMIT with the 40 characters of the commit hash",
        )
    source = HubModel(method="hub", repo=match.group(1), revision=match.group(2), sha256=None)
    return prepare_model(
        layout, BaseModelConfig(source=source, chat_template=None, eot_token=None, system=None, license=None)
    )


def _setup(
    args: argparse.Namespace, layout: ProjectPaths, root: TunectlConfig, folders: Sequence[Path]
) -> BaseEvalSetup:
    from tunectl.artifacts import atomic_io
    from tunectl.artifacts.records import Example
    from tunectl.backends.wiring import evaluation
    from tunectl.cli.evaluate_file import options_from_args
    from tunectl.evaluation import base_model_comparison, few_shot, items
    from tunectl.evaluation.system import GenerationSettings
    from tunectl.pipeline.file_evaluation_runner import choose_decoding

    split = layout.artifact("split")
    manifest.read(split)
    validation, unusable = items.from_examples(atomic_io.read_rows(split / "validation.jsonl", Example))
    if not validation:
        raise DataError(
            f"{split / 'validation.jsonl'} holds no input with a reference answer",
            hint="add examples with answers, or raise split.shares.validation",
        )
    pool, _ = items.from_examples(atomic_io.read_rows(split / "train.jsonl", Example))
    cfg = root.evaluate
    gate = cfg.gate
    asking = GenerationSettings(choose_decoding(options_from_args(args), root), root.seed, 0)
    prompters = [evaluation.prompter(folder, None) for folder in folders]
    kept, left_out = few_shot.leave_out_unanswerable(
        items.sample_items(validation, args.limit or INPUTS, root.seed),
        zip(prompters, map(evaluation.token_counter, folders), strict=True),
        new_tokens=asking.how.max_new_tokens,
        references=cfg.max_references,
        inputs="validation inputs",
    )
    return base_model_comparison.BaseEvalSetup(
        items=kept,
        skipped=unusable | left_out,
        pool=few_shot.keep_examples(pool, prompters),
        shots=max(cfg.prompts.shots) if cfg.prompts is not None else 3,
        asking=asking,
        tools=evaluation.tools(),
        primary="bleu" if gate.primary_metric == "checks" else gate.primary_metric,
        references=cfg.max_references,
        resamples=gate.resamples,
        confidence=gate.confidence,
    )
