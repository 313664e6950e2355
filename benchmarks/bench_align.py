"""Seconds a step of RLOO: ours beside TRL's RLOOTrainer as it comes, and beside the same tuned by hand.

    python benchmarks/bench_align.py [--model DIR] [--steps 4]

Every system gets the same base, the same adapter to go on from, the same reward model, the same prompts in the same order, and
the same settings: answers a prompt, longest answer, temperature, beta, learning rate. Each runs in a process of its own, one
after another. The first step warms up and is not counted. Where time goes is measured in every system by the same four
words: generate, reward, reference (all passes before the one that learns), learn.

The task is made up here (attributes of a restaurant to a sentence), the adapter is tuned on it for a moment by the product
itself, so that answers end by themselves, and the reward model is this very model with a random adapter and head: it costs
what a real one costs, and its rewards mean nothing. The last line is JSON.
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
    "tunectl": "tunectl, align=rloo hardware=cpu",
    "trl_tuned": "TRL tuned by hand: bf16 weights, no checkpointing",
    "trl_defaults": "TRL RLOOTrainer as it comes: fp32 weights under bf16 autocast, gradient checkpointing",
}
PROMPTS, ANSWERS, LONGEST, RATE, BETA, SEED, RANK = 4, 8, 48, 3e-5, 0.05, 7, 16


def main() -> None:
    """Run every system, or one of them as a child."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="model folder; without it the embedded base model is fetched")
    parser.add_argument("--steps", type=int, default=4, help="steps of each system, the first not counted (4)")
    parser.add_argument("--child", nargs=2, metavar=("SYSTEM", "FOLDER"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.steps < 2:
        parser.error("--steps must be 2 or more: the first one only warms up")
    if args.child:
        print(json.dumps(child(args.child[0], Path(args.child[1]), args.model, args.steps)))
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        model = args.model or bench_inputs.build_base_model(folder)
        prepare(model, folder)
        runs = {name: one(name, model, folder, args.steps) for name in SYSTEMS}
    print(json.dumps(summary(args, runs)))


def summary(args: argparse.Namespace, runs: dict[str, dict]) -> dict[str, object]:
    """The last line."""
    seconds = {name: run["seconds_a_step"] for name, run in runs.items()}
    tokens = {name: run["answer_tokens_a_second"] for name, run in runs.items()}
    return {
        "benchmark": "align",
        "machine": machine(),
        "versions": versions("torch", "transformers", "trl", "peft", "tunectl-lm"),
        "settings": {
            "prompts": PROMPTS,
            "answers_per_prompt": ANSWERS,
            "max_new_tokens": LONGEST,
            "learning_rate": RATE,
            "beta": BETA,
            "steps": args.steps,
            "task": "made up; reward model with random adapter and head",
        },
        "systems": SYSTEMS,
        "runs": runs,
        "ratios": {
            "over_trl_defaults": round(seconds["trl_defaults"] / seconds["tunectl"], 2),
            "over_trl_tuned": round(seconds["trl_tuned"] / seconds["tunectl"], 2),
            "over_trl_defaults_in_answer_tokens_a_second": round(tokens["tunectl"] / tokens["trl_defaults"], 2),
            "over_trl_tuned_in_answer_tokens_a_second": round(tokens["tunectl"] / tokens["trl_tuned"], 2),
        },
    }


def one(name: str, model: Path, folder: Path, steps: int) -> dict:
    """One system in a fresh process."""
    words = [sys.executable, __file__, "--model", str(model), "--steps", str(steps), "--child", name, str(folder)]
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
    parts = ", ".join(f"{part} {seconds:.2f}" for part, seconds in result["parts"].items())
    print(
        f"{name:13} {result['seconds_a_step']:6.2f} s a step ({parts}), {result['tokens_an_answer']:.1f} tokens an answer",
        flush=True,
    )
    return result


NAMES = (
    "Alimentum",
    "The Vaults",
    "Blue Spice",
    "The Mill",
    "Loch Fyne",
    "Zizzi",
    "Aromi",
    "Cocum",
    "Strada",
    "Giraffe",
)
KINDS, FOODS = ("pub", "restaurant", "coffee shop"), ("Chinese", "Italian", "Indian", "French", "English")
AREAS, PRICES = ("riverside", "city centre"), ("cheap", "moderate", "high")


def pairs() -> list[tuple[str, str]]:
    """Inputs with one answer each, in a seeded order."""
    every = [
        (
            f"name[{name}], eatType[{kind}], food[{food}], priceRange[{price}], area[{area}]",
            f"{name} is a {kind} in the {area} area that serves {food} food at {price} prices.",
        )
        for name in NAMES
        for kind in KINDS
        for food in FOODS
        for price in PRICES
        for area in AREAS
    ]
    random.Random(SEED).shuffle(every)
    return every[:200]


def prepare(model: Path, folder: Path) -> None:
    """The adapter to go on from, and the reward model in the product's layout and as a plain folder."""
    import yaml

    from tunectl.artifacts.records import Example, Message, ReferenceAnswer, Source
    from tunectl.backends.trainers.sft_trainer import SftTrainer
    from tunectl.chat import model_spec, template
    from tunectl.chat.loss_mask import LossMasker
    from tunectl.chat.tokenizer import Tokenizer
    from tunectl.config.schema.sft import Sft
    from tunectl.training import prefix_sharing
    from tunectl.training.train_args import from_sft_config

    agreed = model_spec.load(model)
    masker = LossMasker(template.load(model), Tokenizer(model), end_of_turn=agreed.eot_token.id, train_on="answer")
    source = Source("benchmark", 1)
    examples = [
        Example(str(n), source, [Message("user", question)], [ReferenceAnswer(answer, source)])
        for n, (question, answer) in enumerate(pairs())
    ]
    result = [row for item in masker.mask(examples) for row in prefix_sharing.pack_example(item, share=False, limit=1)]
    section = yaml.safe_load((ROOT / "conf/sft/lora.yaml").read_text())
    quiet = {
        "epochs": 1,
        "evals_per_epoch": 1,
        "early_stopping": None,
        "save_steps": 10_000,
        "lora_rank": RANK,
        "lora_alpha": 2 * RANK,
    }
    plan = from_sft_config(
        Sft.model_validate({**section, **quiet}),
        seed=SEED,
        profile=bench_inputs.load_cpu_profile(),
        project="benchmark",
    )
    sft = folder / "sft"
    SftTrainer().fit(
        plan, model=model, train=result[:160], validation=result[160:164], out=sft, work=folder / "sft-work"
    )
    model_spec.save(agreed, sft)
    reward_model(model, sft, folder)


def reward_model(model: Path, sft: Path, folder: Path) -> None:
    """A random adapter and head on base and sft."""
    import peft
    import torch

    from tunectl.backends.modeling import reward_forward

    loaded = reward_forward.build(model, sft, bench_inputs.load_cpu_profile(), seed=SEED)
    torch.manual_seed(SEED)
    adapted = peft.get_peft_model(
        loaded.model, peft.LoraConfig(task_type="SEQ_CLS", r=RANK, lora_alpha=2 * RANK, target_modules="all-linear")
    )
    with torch.no_grad():
        for name, weights in adapted.named_parameters():
            if "lora_B" in name:
                weights.normal_(0, 0.01)
    adapted.save_pretrained(folder / "reward")
    whole = adapted.merge_and_unload().float()
    whole.config.pad_token_id = loaded.tokenizer.pad_token_id
    whole.save_pretrained(folder / "reward-whole")
    loaded.tokenizer.save_pretrained(folder / "reward-whole")


def questions(model: Path) -> list:
    """The inputs, rendered."""
    from tunectl.artifacts.records import Message
    from tunectl.chat import template
    from tunectl.chat.tokenizer import Tokenizer
    from tunectl.training.rl.rl_types import Prompt

    renderer, tokenizer = template.load(model), Tokenizer(model)
    result = []
    for number, (question, answer) in enumerate(pairs()):
        messages = (Message("user", question),)
        text = renderer.render(messages, add_generation_prompt=True)
        result.append(Prompt(str(number), messages, text, tuple(tokenizer.encode([text])[0].ids), (answer,), {}))
    return result


def settings(steps: int):
    """conf/align/rloo.yaml with the values that every system gets."""
    import yaml

    from tunectl.config.schema.align import Rloo

    declared = yaml.safe_load((ROOT / "conf/align/rloo.yaml").read_text())
    shared = {
        "steps": steps,
        "prompts_per_step": PROMPTS,
        "num_generations": ANSWERS,
        "max_new_tokens": LONGEST,
        "learning_rate": RATE,
        "beta": BETA,
        "warmup_ratio": 0.0,
        "save_steps": 10_000,
    }
    return Rloo.model_validate({**declared, **shared, "validation": {**declared["validation"], "eval_steps": 10_000}})


def child(system: str, folder: Path, model: Path, steps: int) -> dict:
    """One run of one system."""
    return ours(folder, model, steps) if system == "tunectl" else theirs(system, folder, model, steps)


def figures(seconds: list[float], parts: dict[str, float], lengths: list[int], steps: int) -> dict:
    """Return the figures of a run."""
    middle = statistics.median(seconds[1:])
    mean = statistics.fmean(lengths)
    return {
        "seconds_a_step": round(middle, 3),
        "seconds": [round(value, 3) for value in seconds],
        "parts": {name: round(value / steps, 3) for name, value in parts.items()},
        "tokens_an_answer": round(mean, 2),
        "answer_tokens_a_second": round(mean * PROMPTS * ANSWERS / middle, 1),
    }


def ours(folder: Path, model: Path, steps: int) -> dict:
    """Our trainer, with the reward model behind the product's own reader."""
    from tunectl.backends.modeling.reward_scorer import RewardScorer
    from tunectl.backends.trainers import rollout
    from tunectl.backends.trainers.online_rl import OnlineRlTrainer
    from tunectl.backends.wiring import align
    from tunectl.training.reward.reward_artifacts import Ensemble
    from tunectl.training.rl.reward_functions import RewardFunction
    from tunectl.training.rl.rl_types import PolicyData, RewardFunctions, RlArgs

    config, prompts = settings(steps), questions(model)
    ensemble = Ensemble(seeds=[SEED], weights=[""], centers=[0.0], scale=1.0, pairs=0, prompts=0)
    reward = RewardScorer(model, folder / "sft", [folder / "reward"], ensemble, bench_inputs.load_cpu_profile())
    tools = align.build_backend()
    rewards = RewardFunction(config.rewards, checked=tools.checked, model=reward)
    lengths: list[int] = []
    accept = rollout.add_completions

    def note_lengths(run, lines):
        lengths.extend(len(line.answer) for line in lines)
        accept(run, lines)

    rollout.add_completions = note_lengths
    out = folder / "ours"
    out.mkdir()
    aligned = OnlineRlTrainer().fit(
        RlArgs(config, SEED, bench_inputs.load_cpu_profile(), "benchmark"),
        model=model,
        sft=folder / "sft",
        data=PolicyData(prompts, (), (), prompts[:2]),
        judges=RewardFunctions(rewards, tools.measure(config.validation.metric)),
        out=out,
        work=folder / "ours-work",
    )
    parts = {name: aligned.seconds[name] for name in ("generate", "reward", "reference", "learn")}
    return figures([point.seconds for point in aligned.history], parts, lengths, steps)


def theirs(system: str, folder: Path, model: Path, steps: int) -> dict:
    """TRL's trainer on the same adapter, prompts and reward model."""
    import datasets
    import torch
    import transformers
    import trl
    from peft import PeftModel

    from tunectl.training.rl import rollout_order

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    tuned = system == "trl_tuned"
    dtype = torch.bfloat16 if tuned else torch.float32
    prompts = questions(model)
    order = [
        number
        for numbers in rollout_order.prompts_per_step(len(prompts), steps=steps, each=PROMPTS, seed=SEED)
        for number in numbers
    ]
    base = transformers.AutoModelForCausalLM.from_pretrained(model, dtype=dtype)
    reward = transformers.AutoModelForSequenceClassification.from_pretrained(folder / "reward-whole", dtype=dtype)
    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    own: dict = {"bf16": False, "gradient_checkpointing": False} if tuned else {}
    args = trl.RLOOConfig(
        output_dir=str(folder / f"{system}-work"),
        per_device_train_batch_size=PROMPTS * ANSWERS,
        num_generations=ANSWERS,
        max_completion_length=LONGEST,
        learning_rate=RATE,
        lr_scheduler_type="constant",
        beta=BETA,
        temperature=1.0,
        reward_clip_range=(-3.0, 3.0),
        mask_truncated_completions=True,
        max_steps=steps,
        shuffle_dataset=False,
        seed=SEED,
        use_cpu=True,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
        logging_steps=1000,
        **own,
    )
    trainer = build_timed_trainer(trl.RLOOTrainer)(
        model=PeftModel.from_pretrained(base, folder / "sft", is_trainable=True),
        reward_funcs=[reward.eval()],
        reward_processing_classes=[transformers.AutoTokenizer.from_pretrained(folder / "reward-whole")],
        args=args,
        train_dataset=datasets.Dataset.from_list([{"prompt": prompts[number].text} for number in order]),
        processing_class=tokenizer,
    )
    trainer.train()
    parts = dict(trainer.parts)
    parts["learn"] = sum(trainer.seconds) - sum(parts.values())
    return figures(trainer.seconds, parts, trainer.lengths, steps)


def build_timed_trainer(kind):
    """TRL's class with a clock around its own parts."""
    import torch

    class Timed(kind):
        """``parts``: seconds of each part; ``seconds``: of each step; ``lengths``: tokens of each generated answer."""

        def __init__(self, *args, **kwargs):
            self.parts = {"generate": 0.0, "reward": 0.0, "reference": 0.0}
            self.seconds, self.lengths = [], []
            super().__init__(*args, **kwargs)

        def _time(self, part, work, *args, **kwargs):
            start = time.perf_counter()
            path = work(*args, **kwargs)
            self.parts[part] += time.perf_counter() - start
            return path

        def _generate_single_turn(self, *args, **kwargs):
            result = self._time("generate", super()._generate_single_turn, *args, **kwargs)
            self.lengths += [len(ids) for ids in result]
            return result

        def _calculate_rewards(self, *args, **kwargs):
            return self._time("reward", super()._calculate_rewards, *args, **kwargs)

        def _get_per_token_logps_and_entropies(self, *args, **kwargs):
            inner = super()._get_per_token_logps_and_entropies
            return (
                inner(*args, **kwargs) if torch.is_grad_enabled() else self._time("reference", inner, *args, **kwargs)
            )

        def training_step(self, *args, **kwargs):
            """One step, its seconds noted."""
            start = time.perf_counter()
            result = super().training_step(*args, **kwargs)
            self.seconds.append(time.perf_counter() - start)
            return result

    return Timed


if __name__ == "__main__":
    main()
