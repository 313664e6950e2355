"""Training speed: our CPU profile beside TRL's SFTTrainer as it comes, and beside the same tuned by hand.

    python benchmarks/bench_sft.py [--model DIR] [--answers 64] [--seeds 3] [--e2e CSV]

Every system gets the same model, the same answers, the same LoRA, batch size, learning rate and number of steps, each in a
process of its own, one after another in the same order for every seed. Tokens are prompt and answer tokens, padding not
counted, each prompt counted once an answer for everybody. The claim is made on data with one answer a prompt, where nothing
can be shared; with --e2e the same is shown for data with several references an input, where we read each prompt once.
The validation loss of every adapter is measured by one and the same function. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import bench_inputs
from hardware_info import machine, versions

ROOT = Path(__file__).resolve().parents[1]
SYSTEMS = {
    "trl_defaults": "TRL SFTTrainer as it comes: fp32 weights under bf16 autocast, gradient checkpointing",
    "trl_tuned": "TRL tuned by hand: bf16 weights, no checkpointing, batches by length",
    "tunectl": "tunectl, sft=lora hardware=cpu",
}
BATCH, RATE, RANK, VALIDATION = 8, 5e-4, 16, 32


def main() -> None:
    """Run every system for every seed, or one of them as a child."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="model folder; without it the embedded base model is fetched")
    parser.add_argument("--answers", type=int, default=64, help="training answers of one run (64)")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each system on single-answer data (3)")
    parser.add_argument(
        "--e2e", type=Path, default=ROOT.parent / "shared/data/e2e/devset.csv", help="CSV with mr and ref"
    )
    parser.add_argument("--child", nargs=4, metavar=("SYSTEM", "SEED", "DATA", "OUT"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        system, seed, data, out = args.child
        print(json.dumps(child(system, int(seed), Path(data), Path(out), args.model)))
        return
    with tempfile.TemporaryDirectory() as scratch:
        model = args.model or bench_inputs.build_base_model(Path(scratch))
        print(json.dumps(measure(args, model, Path(scratch))))


def measure(args: argparse.Namespace, model: Path, scratch: Path) -> dict[str, object]:
    """All figures, printed as they come."""
    precision, peak = matrix_peak()
    print(f"{precision} matrix product: {peak:.0f} GFLOP/s on {len(os.sched_getaffinity(0))} cores")
    runs: dict[str, list[dict]] = {name: [] for name in SYSTEMS}
    for seed in range(1, args.seeds + 1):
        data = scratch / f"single-{seed}.json"
        data.write_text(json.dumps(single(args.answers, seed)))
        for name in SYSTEMS:
            runs[name].append(one(name, seed, data, scratch, model))
    several: dict[str, dict] = {}
    if args.e2e.is_file():
        data = scratch / "several.json"
        data.write_text(json.dumps(multiple(args.e2e, args.answers)))
        several = {name: one(name, 1, data, scratch, model) for name in SYSTEMS}
    return summary(args, runs, several, precision, peak)


def summary(args: argparse.Namespace, runs: dict, several: dict, precision: str, peak: float) -> dict[str, object]:
    """The last line."""
    middle = {name: statistics.median(run["tokens_per_second"] for run in result) for name, result in runs.items()}
    losses = {name: statistics.mean(run["validation_loss"] for run in result) for name, result in runs.items()}
    per_cpu = {name: statistics.median(run["tokens_per_cpu_second"] for run in result) for name, result in runs.items()}
    flops = statistics.median(run["flops_per_second"] for run in runs["tunectl"])
    return {
        "benchmark": "sft",
        "machine": machine(),
        "versions": versions("torch", "transformers", "trl", "peft", "tunectl-lm"),
        "settings": {"answers": args.answers, "batch": BATCH, "learning_rate": RATE, "rank": RANK, "seeds": args.seeds},
        "systems": SYSTEMS,
        "single_answer": {
            "runs": runs,
            "tokens_per_second": middle,
            "tokens_per_cpu_second": per_cpu,
            "validation_loss": losses,
        },
        "several_references": several,
        "ratios": {
            "over_trl_defaults": round(middle["tunectl"] / middle["trl_defaults"], 2),
            "over_trl_tuned": round(middle["tunectl"] / middle["trl_tuned"], 2),
            "over_trl_defaults_per_cpu_second": round(per_cpu["tunectl"] / per_cpu["trl_defaults"], 2),
            "validation_loss_minus_trl_defaults": round(losses["tunectl"] - losses["trl_defaults"], 4),
            "share_of_peak": round(flops / 1e9 / peak, 3),
            **(
                {
                    "several_references_over_trl_defaults": round(
                        several["tunectl"]["tokens_per_second"] / several["trl_defaults"]["tokens_per_second"], 2
                    )
                }
                if several
                else {}
            ),
        },
        "peak": {"precision": precision, "gflops": round(peak, 1)},
    }


def one(name: str, seed: int, data: Path, scratch: Path, model: Path) -> dict:
    """One system in a fresh process."""
    out = scratch / f"{name}-{seed}-{data.stem}"
    words = [sys.executable, __file__, "--model", str(model), "--child", name, str(seed), str(data), str(out)]
    process = subprocess.run(
        words,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"},
    )
    if process.returncode != 0:
        raise SystemExit(f"{name} failed:\n{process.stderr[-3000:]}")
    result: dict = json.loads(process.stdout.splitlines()[-1])
    print(
        f"{data.stem:9} seed {seed} {name:13} {result['tokens_per_second']:7.1f} tokens/s "
        f"{result['tokens_per_cpu_second']:7.1f} a cpu-second, validation loss {result['validation_loss']:.4f}",
        flush=True,
    )
    return result


def single(count: int, seed: int) -> dict:
    """Briefs with one ad each, out of the bundled example."""
    lines = (ROOT / "examples/local_lens/data/campaigns.jsonl").read_text().splitlines()
    pairs = {}
    for row in map(json.loads, lines):
        prompt, completion = row.get("prompt"), row.get("completion")
        if prompt and completion and len(prompt) + len(completion) < 1200:
            pairs.setdefault(prompt, completion)
    rows = sorted(pairs.items())
    random.Random(seed).shuffle(rows)
    train, held_out = rows[:count], rows[count : count + VALIDATION]
    return {"train": [[p, [c]] for p, c in train], "validation": [[p, [c]] for p, c in held_out]}


def multiple(path: Path, count: int) -> dict:
    """E2E inputs with all their references."""
    import csv

    groups: dict[str, list[str]] = {}
    for row in csv.DictReader(path.open()):
        groups.setdefault(row["mr"], []).append(row["ref"])
    rows = list(groups.items())
    random.Random(1).shuffle(rows)
    train, total = [], 0
    while total < 2 * count:
        train.append(rows.pop())
        total += len(train[-1][1])
    return {"train": train, "validation": rows[:4]}


def matrix_peak() -> tuple[str, float]:
    """GFLOP/s of a 2048 x 2048 matrix product, the best of ten, in the precision that the CPU profile trains in.

    A processor with AVX2 alone trains in float32; a bfloat16 product takes minutes there.
    """
    import torch

    from tunectl.backends.modeling import model_loader

    dtype = model_loader.dtype(bench_inputs.load_cpu_profile())
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    a, b = (torch.randn(2048, 2048).to(dtype) for _ in range(2))
    best = 0.0
    for _ in range(13):
        start = time.perf_counter()
        a @ b
        best = max(best, 2 * 2048**3 / (time.perf_counter() - start) / 1e9)
    return str(dtype).removeprefix("torch."), best


def child(system: str, seed: int, data: Path, out: Path, model: Path) -> dict:
    """Train once and measure the adapter."""
    texts = json.loads(data.read_text())
    train, validation = (mask_pairs(texts[part], model) for part in ("train", "validation"))
    from tunectl.training import prefix_sharing

    apart = [row for item in train for row in prefix_sharing.pack_example(item, share=False, limit=1)]
    tokens = sum(row.unshared_tokens for row in apart)
    fit = fit_tunectl if system == "tunectl" else fit_trl
    seconds, cpu = fit(system, seed, texts, train, model, out)
    layers, head = weights_of(model)
    batch_tokens = (
        tokens
        if system != "tunectl"
        else sum(
            row.length
            for item in train
            for row in prefix_sharing.pack_example(item, share=True, limit=prefix_sharing.ROW_TOKENS)
        )
    )
    flops = 4 * (layers * batch_tokens + head * sum(row.target_tokens for row in apart))
    return {
        "tokens": tokens,
        "seconds": round(seconds, 2),
        "tokens_per_second": round(tokens / seconds, 1),
        "tokens_per_cpu_second": round(tokens / cpu, 1),
        "flops_per_second": flops / seconds,
        "validation_loss": loss_of(out, validation, model),
    }


def mask_pairs(pairs: list, model: Path) -> list:
    """Prompts and answers as our masked tokens."""
    from tunectl.artifacts.records import Example, Message, ReferenceAnswer, Source
    from tunectl.chat import model_spec, template
    from tunectl.chat.loss_mask import LossMasker
    from tunectl.chat.tokenizer import Tokenizer

    masker = LossMasker(
        template.load(model), Tokenizer(model), end_of_turn=model_spec.load(model).eot_token.id, train_on="answer"
    )
    source = Source("benchmark", 1)
    examples = [
        Example(str(i), source, [Message("user", p)], [ReferenceAnswer(a, source) for a in result])
        for i, (p, result) in enumerate(pairs)
    ]
    return masker.mask(examples)


def section():
    """conf/sft/lora.yaml with the rank, batch, rate and number of steps that every system gets; one validation, at the end."""
    import yaml

    from tunectl.config.schema.sft import Sft

    shared = {
        "lora_rank": RANK,
        "lora_alpha": 2 * RANK,
        "epochs": 1,
        "batch_size": BATCH,
        "learning_rate": RATE,
        "warmup_ratio": 0.0,
    }
    quiet = {"evals_per_epoch": 1, "early_stopping": None, "save_steps": 10_000}
    declared = yaml.safe_load((ROOT / "conf/sft/lora.yaml").read_text())
    return Sft.model_validate({**declared, **shared, **quiet})


def fit_tunectl(_system: str, seed: int, _texts: dict, train: list, model: Path, out: Path) -> tuple[float, float]:
    """Our trainer; one epoch, as the peers. Seconds of its steps, without validation."""
    from tunectl.backends.trainers.sft_trainer import SftTrainer
    from tunectl.training import prefix_sharing
    from tunectl.training.train_args import from_sft_config

    result = [
        row for item in train for row in prefix_sharing.pack_example(item, share=True, limit=prefix_sharing.ROW_TOKENS)
    ]
    plan = from_sft_config(section(), seed=seed, profile=bench_inputs.load_cpu_profile(), project="benchmark")
    shortest = min(result, key=lambda row: row.length)  # its validation costs next to nothing; the real one comes later
    start = time.process_time()
    clock = Clock()
    with clock.around():
        fitted = SftTrainer().fit(
            plan, model=model, train=result, validation=[shortest], out=out, work=out.with_suffix(".work")
        )
    assert start <= clock.cpu_end
    return fitted.seconds, clock.cpu


class Clock:
    """CPU seconds between the start and the end of transformers' training loop."""

    cpu = 0.0
    cpu_end = 0.0

    def around(self):
        """Measure every ``Trainer.train`` inside the block."""
        from contextlib import contextmanager

        import transformers

        own = transformers.Trainer.train

        def train(trainer, *args, **kwargs):
            start = time.process_time()
            try:
                return own(trainer, *args, **kwargs)
            finally:
                self.cpu_end = time.process_time()
                self.cpu = self.cpu_end - start

        @contextmanager
        def patch_train():
            transformers.Trainer.train = train
            try:
                yield
            finally:
                transformers.Trainer.train = own

        return patch_train()


def fit_trl(system: str, seed: int, texts: dict, _train: list, model: Path, out: Path) -> tuple[float, float]:
    """TRL on the same pairs in its own conversational format; it tokenizes and masks by itself before the clock starts."""
    import datasets
    import torch
    from peft import LoraConfig
    from transformers import AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    pairs = [
        {"prompt": [{"role": "user", "content": p}], "completion": [{"role": "assistant", "content": a}]}
        for p, result in texts["train"]
        for a in result
    ]
    tuned: dict = {}
    if system == "trl_tuned":
        tuned = {
            "model_init_kwargs": {"dtype": torch.bfloat16},
            "gradient_checkpointing": False,
            "train_sampling_strategy": "group_by_length",
        }
    config = SFTConfig(
        output_dir=str(out.with_suffix(".work")),
        per_device_train_batch_size=BATCH,
        num_train_epochs=1,
        learning_rate=RATE,
        lr_scheduler_type="linear",
        seed=seed,
        use_cpu=True,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
        logging_steps=1000,
        **tuned,
    )
    trainer = SFTTrainer(
        model=str(model),
        args=config,
        train_dataset=datasets.Dataset.from_list(pairs),
        processing_class=AutoTokenizer.from_pretrained(model),
        peft_config=LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules="all-linear", task_type="CAUSAL_LM"),
    )
    start, cpu = time.perf_counter(), time.process_time()
    trainer.train()
    seconds, used = time.perf_counter() - start, time.process_time() - cpu
    trainer.model.save_pretrained(out)
    return seconds, used


def weights_of(model: Path) -> tuple[int, int]:
    """Weights of the layers, and of the output layer."""
    settings = json.loads((model / "config.json").read_text())
    head = settings["vocab_size"] * settings["hidden_size"]
    return json.loads((model / "model_spec.json").read_text())["parameters"] - head, head


def loss_of(adapter: Path, validation: list, model: Path) -> float:
    """Nats a learned token of an adapter, in float32, by one function for all."""
    import torch

    from tunectl.backends.modeling import batching, model_loader
    from tunectl.training import batch_schedule, prefix_sharing

    plain = bench_inputs.load_cpu_profile().model_copy(update={"dtype": "float32"})
    loaded = model_loader.load(model, adapter=adapter, profile=plain).model
    result = [row for item in validation for row in prefix_sharing.pack_example(item, share=False, limit=1)]
    route = batching.forward_path(loaded, plain_head=True, autocast=False)
    with torch.inference_mode():
        total = sum(
            float(batching.cross_entropy_loss(route, route.batch([result[n] for n in group])))
            for group in batch_schedule.token_batches(result, range(len(result)), 2048)
        )
    return round(total / sum(row.target_tokens for row in result), 4)


if __name__ == "__main__":
    main()
