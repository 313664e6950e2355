"""Tokens a second by the number of cards: sft by torchrun, beside TRL's SFTTrainer started by accelerate.

    python benchmarks/scale_cards.py MODEL [--counts 1 2 4 8] [--steps 40] [--device cpu]

Both train a LoRA of the same rank on the same rows, of random tokens and of lengths from 64 to 512, with the same rows a step over all
cards; TRL's rows a card are a step's divided by the cards. Start and validation are not counted. With ``--device cpu`` the
processes share the cores: that shows that the benchmark runs, and no scaling. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROWS_A_STEP, RANK, RATE, SEED = 32, 16, 1e-4, 5
SHORTEST, LONGEST = 64, 512


class NoCardError(Exception):
    """There is nothing to measure on, and why."""


def main() -> None:
    """Measure each number of cards, or be one process of the peer."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="folder of a model")
    parser.add_argument("--counts", type=int, nargs="+", help="numbers of cards (1, 2, 4 ... up to all)")
    parser.add_argument("--steps", type=int, default=40, help="optimizer steps of each fit (40)")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--as-peer", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.as_peer:
        fit_peer(args.model, args.steps, args.device, args.as_peer)
        return
    try:
        print(json.dumps(measure(args.model, args.counts, args.steps, args.device)))
    except NoCardError as error:
        sys.exit(str(error))


def measure(model: Path, counts: list[int] | None, steps: int, device: str = "cuda") -> dict[str, object]:
    """Tokens a second of both systems by number of cards, and how much of the ideal each reaches.

    Raises  NoCardError where there is no card.
    """
    import torch

    cards = torch.cuda.device_count()
    if device == "cuda" and not cards:
        raise NoCardError("skipped: torch sees no CUDA card")
    counts = counts or [2**power for power in range(cards.bit_length()) if 2**power <= cards]
    rates: dict[str, dict[int, float]] = {"tunectl": {}, "trl_accelerate": {}}
    for count in counts:
        with tempfile.TemporaryDirectory() as scratch:
            rates["tunectl"][count] = fit_own(model, Path(scratch), steps, device, count)
            rates["trl_accelerate"][count] = start_peer(model, Path(scratch), steps, device, count)
        ours, theirs = (rates[name][count] for name in rates)
        print(
            f"{count} cards: tunectl {ours:.0f} tokens/s, TRL with accelerate {theirs:.0f} ({ours / theirs:.2f} times)"
        )
    first = counts[0]
    scaling = {
        name: {count: round(rate * first / (by_count[first] * count), 3) for count, rate in by_count.items()}
        for name, by_count in rates.items()
    }
    name = torch.cuda.get_device_name(0) if device == "cuda" else "cpu"
    return {"device": name, "tokens_per_second": rates, "scaling": scaling}


def draw_rows(model: Path, count: int) -> list[list[int]]:
    """Rows of random tokens, the same for both systems."""
    size = json.loads((model / "config.json").read_text())["vocab_size"]
    chance = random.Random(SEED)
    return [[chance.randrange(size) for _ in range(chance.randint(SHORTEST, LONGEST))] for _ in range(count)]


def fit_own(model: Path, scratch: Path, steps: int, device: str, count: int) -> float:
    """Tokens a second of ``steps`` steps by torchrun."""
    from tunectl.backends.launchers.torchrun_launcher import TorchrunLauncher
    from tunectl.chat.loss_mask import TokenSpan
    from tunectl.config.schema.hardware import HardwareProfile
    from tunectl.config.schema.launch import TorchrunLaunch
    from tunectl.training.fit_request import FitJob
    from tunectl.training.prefix_sharing import PackedRow
    from tunectl.training.train_args import LoraArgs, TrainingArgs

    threads = None if device == "cuda" else max(1, len(os.sched_getaffinity(0)) // count)
    profile = HardwareProfile(
        device=device,
        threads=threads,
        dtype="auto",
        train_batch_tokens=16384,
        generate_batch=8,
        gradient_checkpointing=False,
    )
    plan = TrainingArgs(
        label="sft",
        adapter=LoraArgs("lora", RANK, 2 * RANK, 0.0, "all-linear"),
        epochs=1,
        batch_size=ROWS_A_STEP,
        optimizer="adamw",
        learning_rate=RATE,
        lr_scheduler="linear",
        warmup_ratio=0.0,
        weight_decay=0.0,
        max_grad_norm=1.0,
        label_smoothing=0.0,
        neftune_noise_alpha=None,
        ema_decay=None,
        prefix_sharing=False,
        evals_per_epoch=1,
        patience=None,
        min_delta=0.0,
        save_steps=100_000,
        seed=SEED,
        project="bench",
        profile=profile,
    )
    rows = [
        PackedRow(TokenSpan(ids[:8], [False] * 8), (TokenSpan(ids[8:], [True] * (len(ids) - 8)),), 1.0)
        for ids in draw_rows(model, ROWS_A_STEP * steps + 4)
    ]
    settings = TorchrunLaunch(
        method="torchrun",
        nproc_per_node=count,
        nnodes=1,
        rdzv_endpoint=None,
        storage_path=None,
        max_restarts=0,
        shard="none",
        collective_timeout_seconds=600,
    )
    job = FitJob("sft", plan, model, None, rows[4:], rows[:4], scratch / "out", scratch / "work")
    result = TorchrunLauncher(settings).run(job).result
    return float(result.tokens / result.seconds)


def start_peer(model: Path, scratch: Path, steps: int, device: str, count: int) -> float:
    """Tokens a second of TRL's trainer on ``count`` processes of accelerate."""
    words = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", str(count), "--num_machines", "1"]
    words += ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
    words += ["--cpu"] if device == "cpu" else []
    words += ["--multi_gpu"] if device == "cuda" and count > 1 else []
    result = scratch / "peer.json"
    words += [__file__, str(model), "--steps", str(steps), "--device", device, "--as-peer", str(result)]
    threads = max(1, len(os.sched_getaffinity(0)) // count)
    subprocess.run(words, check=True, env={**os.environ, "OMP_NUM_THREADS": str(threads)})
    return float(json.loads(result.read_text())["tokens_per_second"])


def fit_peer(model: Path, steps: int, device: str, result: Path) -> None:
    """One process of TRL's trainer; the first one writes the rate."""
    import datasets
    import torch
    from peft import LoraConfig
    from transformers import AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    processes = int(os.environ.get("WORLD_SIZE", "1"))
    rows = draw_rows(model, ROWS_A_STEP * steps + 4)[4:]
    data = [{"input_ids": ids, "labels": [-100] * 8 + ids[8:]} for ids in rows]
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    config = SFTConfig(
        output_dir=str(result.with_suffix(".work")),
        per_device_train_batch_size=ROWS_A_STEP // processes,
        max_steps=steps,
        learning_rate=RATE,
        seed=SEED,
        bf16=False,
        use_cpu=device == "cpu",
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
        logging_steps=1000,
        gradient_checkpointing=False,
        max_length=None,
        ddp_find_unused_parameters=False,
        model_init_kwargs={"dtype": dtype},
        dataset_kwargs={"skip_prepare_dataset": True},
    )
    trainer = SFTTrainer(
        model=str(model),
        args=config,
        train_dataset=datasets.Dataset.from_list(data),
        processing_class=AutoTokenizer.from_pretrained(model),
        peft_config=LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules="all-linear", task_type="CAUSAL_LM"),
    )
    start = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - start
    if trainer.is_world_process_zero():
        result.write_text(json.dumps({"tokens_per_second": sum(map(len, rows)) / seconds}))


if __name__ == "__main__":
    main()
