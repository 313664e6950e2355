"""Learning from rewards through TRL: a known reward rises, gradients are TRL's own, runs resume, and what goes wrong."""

import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

from tunectl.artifacts.records import Message
from tunectl.backends import policy_look, policy_turn, trl_loop, trl_policy, trl_policy_trainer
from tunectl.backends.trl_policy import TrlPolicy
from tunectl.chat import contract
from tunectl.config.align import Grpo, Rloo
from tunectl.config.profile import Profile
from tunectl.training.policy import Judges, Marked, PolicyData, PolicyPlan, Question

torch = pytest.importorskip("torch")
CONF = Path(__file__).parents[2] / "conf" / "align"
WANTED = 70
"""The token that the reward of these tests likes."""


def profile(**changes):
    values = {
        "device": "cpu",
        "threads": 1,
        "dtype": "float32",
        "train_tokens": 256,
        "generate_batch": 16,
        "gradient_checkpointing": False,
    }
    return Profile(**{**values, **changes})


def settings(method="rloo", **changes):
    kind = {"rloo": Rloo, "grpo": Grpo}[method]
    values = yaml.safe_load((CONF / f"{method}.yaml").read_text())
    watch = values["watch"] | {"every": 4, "inputs": 4, "samples": 2, "resamples": 200, "tolerance": 100}
    small = {
        "steps": 8,
        "prompts_per_step": 2,
        "answers_per_prompt": 4,
        "max_new_tokens": 16,
        "learning_rate": 0.003,
        "checkpoint_steps": 3,
        "warmup": 0.0,
        "watch": watch | changes.pop("watch", {}),
    }
    return kind.model_validate({**values, **small, **changes})


def plan(method="rloo", *, seed=5, machine=None, **changes):
    return PolicyPlan(settings(method, **changes), seed, machine or profile(), "test")


def question(number):
    ids = (1, 30 + number % 9, 40, 41 + number % 5, 1)
    return Question(f"q{number}", (Message("user", f"Say {number}"),), f"prompt {number}", ids, ("reference",), {})


def liked(ids):
    return 3 * (WANTED in ids) - 0.5 * len(ids)


class Likes:
    """Reward: the wanted token, and few words."""

    def __init__(self, value=None):
        self.value = value
        self.asked = 0

    def score(self, questions, answers, *, fixed=False):
        self.asked += 1
        if self.value is not None:
            return [self.value(self.asked, answer) for answer in answers]
        return [
            Marked(liked(answer.ids), {"likes": liked(answer.ids)}) if answer.finished else Marked(math.nan, {})
            for answer in answers
        ]


class Steady:
    name = "chrf"

    def __call__(self, questions, answers):
        return np.ones((len(answers), 2))

    @staticmethod
    def combine(sums):
        return 50 * sums[..., 0] / sums[..., 1]


def judges(**changes):
    return Judges(changes.get("rewards", Likes()), changes.get("measure", Steady()))


DATA = PolicyData([question(number) for number in range(6)], (), (), [question(number) for number in range(20, 24)])


@pytest.fixture(scope="module")
def start(tiny_model, tmp_path_factory):
    """A model folder that answers with a few letters and then ends its turn, and an adapter of sft on it."""
    import peft
    import transformers
    from safetensors.torch import save_model

    folder = tmp_path_factory.mktemp("policy")
    model, sft = folder / "model", folder / "sft"
    shutil.copytree(tiny_model, model)
    base = transformers.AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    teach_to_end(base)
    save_model(base, str(model / "model.safetensors"), metadata={"format": "pt"})
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(1)
        adapted = peft.get_peft_model(
            base, peft.LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=8, target_modules="all-linear")
        )
        for name, weights in adapted.named_parameters():
            if "lora_B" in name:
                weights.normal_(0, 0.02)
    trl_loop.save(adapted, {}, sft, contract.load(model))
    contract.save(contract.load(model), sft)
    return model, sft


def teach_to_end(model):
    """One to four letters, then the end of turn."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=0.01)
    random = torch.Generator().manual_seed(2)
    for _ in range(80):
        asked = torch.tensor([question(number).ids for number in range(8)])
        said = torch.randint(65, 75, (8, 5), generator=random)
        said[torch.arange(5)[None] >= torch.randint(1, 5, (8, 1), generator=random)] = 2
        ids = torch.cat([asked, said], dim=1)
        labels = ids.clone()
        labels[:, :5] = -100
        optimiser.zero_grad()
        model(input_ids=ids, labels=labels).loss.backward()
        optimiser.step()


def fit(start, tmp_path, chosen=None, name="out", **changes):
    model, sft = start
    out = tmp_path / name
    out.mkdir(exist_ok=True)
    return TrlPolicy().fit(
        chosen or plan(),
        model=model,
        sft=sft,
        data=changes.pop("data", DATA),
        judges=judges(**changes),
        out=out,
        work=tmp_path / f"{name}-work",
    )


def test_a_known_reward_rises(start, tmp_path):
    found = fit(start, tmp_path, plan(steps=40, prompts_per_step=4, watch={"every": 20}))
    first, last = found.history[:5], found.history[-5:]
    assert sum(point.reward for point in last) / 5 > sum(point.reward for point in first) / 5 + 1
    assert (found.steps, found.planned_steps, found.answers, found.stopped) == (40, 40, 640, None)
    assert [item.step for item in found.looks] == [0, 20, 40]
    assert found.looks[0].kl == pytest.approx(0, abs=1e-5)
    assert found.best_step == 40
    assert found.looks[-1].reward > found.looks[0].reward
    assert {sample.step for sample in found.samples} == {0, 20, 40}
    assert set(found.seconds) == {"generate", "reward", "reference", "learn", "watch"}


def gradient_of(model):
    return {name: weights.grad.clone() for name, weights in model.named_parameters() if weights.requires_grad}


def ours(start, tmp_path, chosen, *, move=0.0):
    """One step of ours without the optimiser: its gradients, its trainer, and the model."""
    model_folder, sft = start
    model, tokenizer = trl_policy.loaded(chosen, model_folder, sft)
    trainer = trl_policy_trainer.made(chosen, chosen.settings, model, tokenizer, tmp_path / "w")
    policy = trl_policy.prepared(chosen, model, tokenizer, DATA)
    shift(model, move)
    run = policy_turn.PolicyRun(
        chosen, chosen.settings, policy, DATA, judges(), [(0, 1)], policy_look.PolicyState(), policy_turn.Turn(0, [])
    )
    trainer.run = run
    trainer.current_gradient_accumulation_steps = 1
    trainer.create_optimizer_and_scheduler(1)
    model.zero_grad()
    loss = trainer.training_step(model, {"numbers": (0, 1)})
    return float(loss), gradient_of(model), run


def shift(model, move):
    """Move the policy away from sft, the same way each time."""
    random = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for name, weights in model.named_parameters():
            if "lora_B.default" in name:
                weights.add_(move * torch.randn(weights.shape, generator=random))


def theirs(start, tmp_path, chosen, run, *, move=0.0):
    """The step of plain TRL on the answers of ``run``: its loss and gradients."""
    import datasets
    import trl
    from peft import PeftModel

    from tunectl.backends import hf_model
    from tunectl.backends.trl_policy_arguments import arguments

    model_folder, sft = start
    found = hf_model.load(model_folder, adapter=None, profile=chosen.profile)
    model = PeftModel.from_pretrained(found.model, sft, is_trainable=True)
    kind = trl.RLOOTrainer if isinstance(chosen.settings, Rloo) else trl.GRPOTrainer

    class Plain(kind):
        def _tokenize_prompts(self, prompts):
            return [list(asked.ids) for asked in run.turn.questions], None, {}

        def _generate_single_turn(self, *args, **kwargs):
            ids = [list(line.answer) for line in run.turn.lines]
            return ids if kind is trl.RLOOTrainer else (ids, None)

    def reward(completion_ids, **kwargs):
        totals = [mark.total for mark in run.turn.marks]
        return [None if math.isnan(total) else total for total in totals]

    trainer = Plain(
        model=model,
        reward_funcs=[reward],
        args=arguments(chosen, chosen.settings, tmp_path / "t"),
        train_dataset=datasets.Dataset.from_list([{"prompt": ""}]),
        processing_class=found.tokenizer,
    )
    shift(model, move)
    trainer.current_gradient_accumulation_steps = 1
    model.train()
    batch = trainer._generate_and_score_completions([{"prompt": asked.text} for asked in run.turn.questions])
    loss = trainer.compute_loss(model, batch)
    loss.backward()
    return float(loss), gradient_of(model)


@pytest.mark.parametrize(
    ("method", "changes"),
    [
        ("rloo", {}),
        ("rloo", {"normalise_advantages": True, "temperature": 0.7}),
        ("grpo", {"beta": 0.3}),
        ("grpo", {"loss": "dapo", "scale_rewards": "group"}),
        ("grpo", {"loss": "bnpo", "scale_rewards": "batch", "beta": 0.0}),
        ("grpo", {"loss": "grpo"}),
    ],
)
def test_our_step_has_the_gradient_of_plain_trl_on_the_same_answers(start, tmp_path, method, changes):
    chosen = plan(method, answers_per_prompt=24, max_new_tokens=4, machine=profile(train_tokens=64), **changes)
    loss, grads, run = ours(start, tmp_path, chosen, move=0.02)
    assert len(policy_turn.parts(run)) > 1
    cut = sum(not line.finished for line in run.turn.lines)
    assert 0 < cut < len(run.turn.lines)
    their_loss, their_grads = theirs(start, tmp_path, chosen, run, move=0.02)
    assert loss == pytest.approx(their_loss, abs=1e-4)
    assert grads.keys() == their_grads.keys()
    assert max(float(grad.abs().max()) for grad in grads.values()) > 1e-4
    for name, grad in grads.items():
        torch.testing.assert_close(grad, their_grads[name], rtol=2e-3, atol=1e-5)
