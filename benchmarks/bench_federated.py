"""Federated training on E2E in three unequal parts, beside one fit on all of it and one on each part alone.

    make bench-federated                        (about three hours on two quiet cores; goes on where it stopped)
    python benchmarks/bench_federated.py --model FOLDER --rounds 2 --steps 4 --inputs 6 sft.max_length=600     (to try it)

All fits take the same number of optimizer steps in all: rounds x local steps. Every adapter goes through the stages sft (which only
checks it) and evaluate of one project, so all answer the same test inputs with the same decoding. BLEU with the bootstrap interval of
evaluate. With --keep every variant is a row of results/bench_federated.jsonl as soon as it is judged; one that has a row with these
settings is not fitted again, so the table can be finished on another day and machine. The last line is JSON.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from hardware_info import machine, versions

ROOT = Path(__file__).parents[1]
ROWS = ROOT / "benchmarks" / "results" / "bench_federated.jsonl"
E2E = ROOT.parent / "shared" / "data" / "e2e" / "devset.csv"
SHARES = (0.6, 0.3, 0.1)
UP_TO_CPT = ("compose", "model", "ingest", "feedback", "curate", "split", "cpt")
JUDGED = ("compose", "sft", "preferences", "reward", "align", "evaluate")


def build(layout, words: Sequence[str]) -> None:
    """Make the project, and its stages up to split."""
    from tunectl.config.loading import override_file
    from tunectl.pipeline import runner

    shutil.copytree(ROOT / "conf", layout.conf, dirs_exist_ok=True)
    override_file.save_overrides(layout, override_file.merge_overrides([], words))
    for stage in UP_TO_CPT:
        runner.execute_stage(layout, stage)


def fit_alone(federation, name: str, part, steps: int) -> Path:
    """Fit on one part by the project's own trainer; returns the folder of the adapter."""
    from tunectl.artifacts.row_counts import RowCounter
    from tunectl.backends.federated import local_fit
    from tunectl.backends.trainers.sft_trainer import SftTrainer
    from tunectl.pipeline import federate_rows, federate_run
    from tunectl.training import fit_request, train_args
    from tunectl.training.prefix_sharing import PackedRow

    folder = federation.folder / f"alone-{name}"
    out = folder / "result"
    if (out / "done").is_file():
        return out
    federate_run.prepare_client(federation, folder, name, part, "127.0.0.1:1")
    rows, _ = fit_request.read_rows(folder, PackedRow)
    validation = federate_rows.pack_examples(part[1], federation.base, federation.root.sft, RowCounter("federate"))
    root = federation.root
    plan = train_args.from_sft_config(root.sft, seed=root.seed, profile=root.hardware, project=root.project)
    plan = replace(
        plan, epochs=local_fit.epochs_for(rows, plan, steps=steps), evals_per_epoch=1, patience=None, keep_last=True
    )
    shutil.rmtree(out, ignore_errors=True)
    SftTrainer().fit(plan, model=federation.base, train=rows, validation=validation, out=out, work=folder / "work")
    (out / "done").touch()
    return out


def digest_settings(layout, rounds: int, steps: int) -> str:
    """Digest of what the fits and their judgment depend on. Of a file counts what is in it, not where it lies; the adapter that is judged does not."""

    def clean(value: Any) -> Any:
        if isinstance(value, dict):
            return {
                key: read_digest(item) if key == "path" else clean(item)
                for key, item in value.items()
                if key != "adapter"
            }
        return [clean(item) for item in value] if isinstance(value, list) else value

    def read_digest(path: str) -> str | None:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest() if path and Path(path).is_file() else None

    digest = hashlib.sha256(json.dumps([rounds, steps, SHARES]).encode())
    for stage in ("ingest", "curate", "split", "model", "sft", "evaluate"):
        settings = json.loads((layout.root / "artifacts" / "config" / f"{stage}.json").read_text())["settings"]
        digest.update(json.dumps([stage, clean(settings)], sort_keys=True).encode())
    return digest.hexdigest()[:12]


def judge(layout, rows: Path, about: dict[str, object], name: str, fit: Callable[[], Path]) -> dict[str, Any]:
    """Fit, and take the adapter through sft and evaluate; its row. One that is in ``rows`` with the same settings is read there."""
    from tunectl.config.loading import override_file
    from tunectl.evaluation import results
    from tunectl.pipeline import runner

    earlier = [json.loads(line) for line in rows.read_text().splitlines()] if rows.is_file() else []
    row = next((one for one in earlier if (one["variant"], one["settings"]) == (name, about["settings"])), None)
    if row is None:
        adapter = fit().absolute()
        recorded = override_file.load_overrides(layout)
        override_file.save_overrides(layout, override_file.merge_overrides(recorded, [f"sft.adapter={adapter}"]))
        try:
            for stage in JUDGED:
                runner.execute_stage(layout, stage)
        finally:
            override_file.save_overrides(layout, recorded)
        evaluation = results.load(layout.artifact("evaluate") / results.NAME)
        scores = {system.name: system.scores["bleu"] for system in evaluation.systems if "bleu" in system.scores}
        bleu = {who: [round(scores[who].value, 2), scores[who].low, scores[who].high] for who in ("tuned", "base")}
        row = {"variant": name, **about, "day": time.strftime("%Y-%m-%d"), "inputs": evaluation.inputs, **bleu}
        with rows.open("a") as file:
            file.write(json.dumps(row) + "\n")
    print(describe(name, row["tuned"]), flush=True)
    return row


def forget_adapter(layout) -> None:
    """Take back what a run that was killed while it evaluated has left in the overrides."""
    from tunectl.config.loading import override_file

    recorded = override_file.load_overrides(layout)
    override_file.save_overrides(layout, [one for one in recorded if not one.text.startswith("sft.adapter=")])


def describe(name: str, bleu: Sequence[float]) -> str:
    """A line of the table: BLEU with its interval."""
    value, low, high = bleu
    return f"{name:<22} {value:6.2f}  {low:6.2f} to {high:6.2f}"


def measure(layout, rows: Path, rounds: int, steps: int) -> list[dict[str, Any]]:
    """The rows of all variants; the federated one by each average."""
    from tunectl.pipeline import federate_rows, federate_run

    shares = f"federate.simulate.shares=[{', '.join(map(str, SHARES))}]"
    common = [f"federate.rounds={rounds}", f"federate.local_steps={steps // rounds}", shares, "federate.port=0"]
    federation = federate_run.open_federation(layout, [*common, "federate.name=alone"])
    everything = federate_rows.read_examples(layout)
    parts = federate_rows.partition(everything, SHARES, federation.root.seed)
    about = {
        "settings": digest_settings(layout, rounds, steps),
        "rounds": rounds,
        "steps": steps,
        "answers": [sum(len(item.answers) for item in part[0]) for part in parts],
        "machine": machine(),
        "versions": versions("tunectl-lm", "torch", "peft", "trl"),
    }
    add = partial(judge, layout, rows, about)
    result = [add("pooled", partial(fit_alone, federation, "pooled", everything, steps))]
    for number, part in enumerate(parts, 1):
        fit = partial(fit_alone, federation, f"part-{number}", part, steps)
        result.append(add(f"part {number} alone", fit))
    for average in ("fedavg", "product"):
        own = federate_run.open_federation(layout, [*common, f"federate.name={average}", f"federate.average={average}"])
        result.append(add(f"federated, {average}", partial(federate_run.simulate, own, print)))
    print(describe("base", result[0]["base"]), flush=True)
    return result


def main() -> None:
    """Measure, print, and with --keep write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--e2e", type=Path, default=E2E, help="CSV with mr and ref")
    parser.add_argument("--model", type=Path, help="model folder (default: SmolLM2-135M, as conf/model says)")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--steps", type=int, default=240, help="optimizer steps of each fit in all")
    parser.add_argument("--inputs", type=int, help="test inputs (default: all)")
    parser.add_argument(
        "--folder", type=Path, default=Path(tempfile.gettempdir()) / "bench_federated", help="goes on there"
    )
    parser.add_argument("--keep", action="store_true", help=f"append to {ROWS.relative_to(ROOT)}")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="of the project, when it is made")
    args = parser.parse_args()
    from tunectl.artifacts.paths import ProjectPaths

    words = [
        "experiment=e2e",
        f"data.path={args.e2e.absolute()}",
        "split.shares={train: 0.8, validation: 0.04, test: 0.16}",
        "evaluate.prompts=null",
        "evaluate.max_references=0",
        "evaluate.latency_inputs=0",
        "package=none",
        "inference_log=default",
        "retrain=default",
    ]
    words += ["model=folder", f"model.source.path={args.model.absolute()}"] if args.model else []
    words += [f"evaluate.max_inputs={args.inputs}"] if args.inputs else []
    words += args.overrides
    args.folder.mkdir(parents=True, exist_ok=True)
    os.chdir(args.folder)
    layout, started = ProjectPaths(), time.monotonic()
    if not (layout.artifact("cpt") / "manifest.json").is_file():
        build(layout, words)
    forget_adapter(layout)
    result = measure(layout, ROWS if args.keep else args.folder / "rows.jsonl", args.rounds, args.steps)
    print(f"{time.monotonic() - started:.0f} s", file=sys.stderr)
    print(json.dumps({"benchmark": "federated", "variants": result}))


if __name__ == "__main__":
    main()
