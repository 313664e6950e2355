"""A policy that answers with a few letters, and plans that learn from rewards in a second: what tests of aligning share."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import tiny_fits
import yaml

from tunectl.artifacts import atomic_io
from tunectl.artifacts.records import Message
from tunectl.backends.modeling import peft_adapter
from tunectl.backends.modeling.decoding import GenerationState
from tunectl.backends.trainers.reward_trainer import RewardModelTrainer
from tunectl.backends.trainers.rollout_generation import RolloutGenerator
from tunectl.chat import model_spec
from tunectl.chat.loss_mask import TokenSpan
from tunectl.config.schema.align import Dpo, Grpo, Kto, Rloo
from tunectl.config.schema.hardware import HardwareProfile
from tunectl.training.fit_request import FitJob
from tunectl.training.prefix_sharing import PackedRow
from tunectl.training.reward.reward_artifacts import Ensemble, RewardFacts
from tunectl.training.rl.preference_batches import LabeledCompletions
from tunectl.training.rl.rl_types import PolicyData, Prompt, RlArgs, RlResult

CONF = Path(__file__).parents[2] / "conf" / "align"
WANTED = 70
"""The token that the reward of some tests likes."""


def profile(**changes):
    values = {
        "device": "cpu",
        "threads": 1,
        "dtype": "float32",
        "train_batch_tokens": 256,
        "generate_batch": 16,
        "gradient_checkpointing": False,
    }
    return HardwareProfile(**{**values, **changes})


def settings(method="rloo", **changes):
    kind = {"rloo": Rloo, "grpo": Grpo, "dpo": Dpo, "kto": Kto}[method]
    values = yaml.safe_load((CONF / f"{method}.yaml").read_text())
    watch = values["validation"] | {"eval_steps": 4, "inputs": 4, "samples": 2, "resamples": 200, "tolerance": 100}
    small = {
        "steps": 8,
        "prompts_per_step": 2,
        "num_generations": 4,
        "max_new_tokens": 16,
        "learning_rate": 0.003,
        "save_steps": 3,
        "warmup_ratio": 0.0,
        "validation": watch | changes.pop("validation", {}),
    }
    if kind in (Dpo, Kto):
        small = {name: small[name] for name in ("max_new_tokens", "save_steps", "warmup_ratio", "validation")}
        small |= {"epochs": 2, "batch_size": 6, "learning_rate": 0.005}
    return kind.model_validate({**values, **small, **changes})


def plan(method="rloo", *, seed=5, machine=None, **changes):
    return RlArgs(settings(method, **changes), seed, machine or profile(), "test")


def question(number):
    ids = (1, 30 + number % 9, 40, 41 + number % 5, 1)
    return Prompt(f"q{number}", (Message("user", f"Say {number}"),), f"prompt {number}", ids, ("reference",), {})


DATA = PolicyData([question(number) for number in range(6)], (), (), [question(number) for number in range(20, 24)])


def prompt_of(number):
    return [1, 40, 60 + number % 20, 50]


def judged(count, start=0):
    """People like an answer that says the letter twice better than one that says another letter; lengths differ."""
    found = []
    for number in range(start, start + count):
        letter = 60 + number % 20
        good = [letter] * (2 + number % 3) + [2]
        bad = [letter + 3] * (1 + number % 4) + [2]
        branches = tuple(TokenSpan(ids, [True] * len(ids)) for ids in (good, bad))
        found.append(
            LabeledCompletions(PackedRow(TokenSpan(prompt_of(number), [False] * 4), branches, 1.0), (True, False), None)
        )
    return found


def marked(count, start=0):
    """The same answers, marked one by one: three of four inputs have a single one."""
    found = []
    for number, item in enumerate(judged(count, start)):
        if number % 4 == 3:
            found.append(item)
            continue
        side = number % 2
        row = replace(item.row, branches=(item.row.branches[side],))
        found.append(LabeledCompletions(row, (side == 0,), None))
    return found


LENGTH = {
    "method": "length",
    "weight": 3,
    "normalize": "step",
    "clip": 1.0,
    "min_tokens": 2,
    "max_tokens": 2,
    "soft": 4,
}
PAIRS = PolicyData((), judged(13), judged(5, start=30), DATA.validation)
MARKS = PolicyData((), marked(14), marked(6, start=30), DATA.validation)
REPETITION = {"method": "repetition", "weight": 1, "normalize": "none", "clip": None, "size": 1}
MODEL = {"method": "reward_model", "weight": 1, "normalize": "none", "clip": None, "uncertainty_penalty": 0.0}
TERMS = [LENGTH, REPETITION]
"""A reward without a model, one part of it normalized by all answers of a step."""


def build_policy(tiny_model, folder):
    """Write a model folder that answers with a few letters and then ends its turn, and an adapter of sft on it."""
    import peft
    import torch
    import transformers
    from safetensors.torch import save_file

    model, sft = folder / "model", folder / "sft"
    torch.set_num_threads(1)  # as the fits; on a busy machine threads that wait for each other take minutes for this
    shutil.copytree(tiny_model, model)
    base = transformers.AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    teach_to_end(base)
    own = {name: weights for name, weights in base.state_dict().items() if name != "lm_head.weight"}  # tied
    save_file(own, str(model / "model.safetensors"), metadata={"format": "pt"})
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(1)
        adapted = peft.get_peft_model(
            base, peft.LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=8, target_modules="all-linear")
        )
        for name, weights in adapted.named_parameters():
            if "lora_B" in name:
                weights.normal_(0, 0.02)
    peft_adapter.save_adapter(adapted, {}, sft, model_spec.load(model))
    model_spec.save(model_spec.load(model), sft)
    return model, sft


def teach_to_end(model):
    """One to four letters, then the end of turn."""
    import torch

    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    random = torch.Generator().manual_seed(2)
    for _ in range(80):
        asked = torch.tensor([question(number).ids for number in range(8)])
        said = torch.randint(65, 75, (8, 5), generator=random)
        said[torch.arange(5)[None] >= torch.randint(1, 5, (8, 1), generator=random)] = 2
        ids = torch.cat([asked, said], dim=1)
        labels = ids.clone()
        labels[:, :5] = -100
        optimizer.zero_grad()
        model(input_ids=ids, labels=labels).loss.backward()
        optimizer.step()


def build_reward(start, folder: Path) -> Path:
    """Write a reward model of one member, learned in a second."""
    model, sft = start
    job = tiny_fits.reward_job(model, sft, folder)
    member = folder / "reward" / "members" / "0"
    RewardModelTrainer().fit(
        job.plan, model=model, sft=sft, train=job.train, validation=job.validation, out=member, work=job.work
    )
    base = model_spec.load(model)
    weights = [atomic_io.sha256_path(path / "adapter_model.safetensors") for path in (sft, member)]
    members = Ensemble([5], weights[1:], [0.1], 0.5, 16, 5)
    facts = RewardFacts(base.weights_sha256, weights[0], base.template_sha256, 400, members, None, 5, 5)
    atomic_io.write_json(folder / "reward" / "reward.json", facts)
    return folder / "reward"


def policy_job(start, folder, chosen=None, reward=None, data=DATA, **changes) -> FitJob:
    """A fit of a policy below ``folder``; without ``reward`` its reward needs no model."""
    model, sft = start
    chosen = chosen or plan(rewards=TERMS, prompts_per_step=3, **changes)
    return FitJob("align", chosen, model, sft, [data], (), folder / "out", folder / "work", reward)


def fit_here(job: FitJob, group=None) -> RlResult:
    """Carry out a fit of a policy in this process, with the rewards and the measure that its settings declare."""
    from tunectl.backends.wiring import align

    job.out.mkdir(parents=True)
    settings, tools = job.plan.settings, align.build_backend()
    model = tools.reward(job.model, job.sft, job.reward, job.plan.profile) if job.reward else None
    trainer = align.build_trainer(settings, group) if group else align.build_trainer(settings)
    given = {"model": job.model, "sft": job.sft, "data": job.train[0], "out": job.out, "work": job.work}
    return trainer.fit(job.plan, judges=align.build_judges(settings, tools, model), **given)


def take_answers_from(path: Path) -> None:
    """Let policies answer from a file: prompt to answers, each a list of tokens."""
    answers = json.loads(path.read_text())

    def sample_completions(self, questions, copies, sampling, seeds):
        asked = [(question, answers[question.id][number]) for question in questions for number in range(copies)]
        return [GenerationState(list(question.ids), list(ids), finished=ids[-1] == 2) for question, ids in asked]

    RolloutGenerator.sample_completions = sample_completions
