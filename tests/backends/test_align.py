"""The report of the align stage, drawn from a made-up curve."""

import math
import re
from html.parser import HTMLParser

from tunectl.backends.reports import align
from tunectl.config.schema.align import Dpo, Rloo
from tunectl.training.rl.rl_types import RlResult, Sample, StepMetrics, ValidationPoint

WATCH = {
    "eval_steps": 20,
    "inputs": 64,
    "metric": {"method": "score", "name": "chrf"},
    "tolerance": 1.0,
    "confidence": 0.95,
    "resamples": 1000,
    "samples": 3,
}
LEARNING = {
    "learning_rate": 5e-5,
    "lr_scheduler": "linear",
    "warmup_ratio": 0.1,
    "weight_decay": 0.0,
    "max_grad_norm": 1.0,
    "save_steps": 10,
    "validation": WATCH,
    "max_new_tokens": 64,
    "max_rejected_share": 0.1,
}
RLOO = Rloo(
    **LEARNING,
    method="rloo",
    steps=120,
    prompts="train",
    max_inputs=None,
    prompts_per_step=8,
    num_generations=4,
    temperature=1.0,
    top_p=1.0,
    max_kl=50.0,
    rewards=(
        {"method": "reward_model", "weight": 1.0, "normalize": "none", "clip": 3.0, "uncertainty_penalty": 0.0},
        {"method": "repetition", "weight": 0.5, "normalize": "none", "clip": None, "size": 3},
    ),
    vllm=None,
    beta=0.05,
    normalize_advantages=False,
)
DPO = Dpo(
    **LEARNING,
    method="dpo",
    epochs=1,
    max_length=512,
    beta=0.1,
    loss="sigmoid",
    label_smoothing=0.0,
    ld_alpha=None,
    batch_size=16,
)
QUESTION = (
    "name[The Cricketers], eatType[coffee shop], food[Chinese], priceRange[£20-25], area[riverside], near[All Bar One]"
)


def reward_at(step: int) -> float:
    """The mean reward of greedy answers."""
    return 0.1 + 1.1 * (1 - math.exp(-step / 50))


def look_at(step: int, *, hacked: bool, judged: bool) -> ValidationPoint:
    """What validation finds after ``step``."""
    reward, change = reward_at(step), step / 100 - (0.0004 * step**2 if hacked else 0)
    return ValidationPoint(
        step=step,
        reward=reward,
        reward_low=reward - (0.12 if step else 0),
        reward_high=reward + (0.12 if step else 0),
        metric=55.0 + change,
        metric_change=change,
        metric_low=change - (0.6 if step else 0),
        metric_high=change + (0.6 if step else 0),
        kl=4.0 * (step / 120) ** 1.3,
        length=24 + step / (8 if hacked else 60),
        repetition=0.01 + (step / 1200 if hacked else 0),
        spread=0.9 - step / 300,
        truncated=0.0 if step < 100 or not hacked else 0.14,
        within=change >= -1.0,
        held_out_loss=0.69 - step / 1000 if judged else None,
        held_out_accuracy=0.5 + step / 400 if judged else None,
    )


def sample_at(step: int, number: int) -> Sample:
    """One answer of a look, with HTML in it from step 60 on."""
    early, late = "The Cricketers is a Chinese coffee shop.", f"Take {number} after {step} steps <b>of</b> it."
    reward = None if step == 120 else reward_at(step)
    references = ["One reference.", "Another."]
    return Sample(step, f"v{number}", QUESTION, early if step < 60 else late, reward, {}, references)


def metrics_at(step: int, *, hacked: bool, judged: bool) -> StepMetrics:
    """What training reports of ``step``."""
    return StepMetrics(
        step=step,
        loss=0.1,
        learning_rate=5e-5,
        reward=0.2 + 0.9 * (1 - math.exp(-step / 50)) + 0.1 * math.sin(step),
        reward_spread=None if judged else 0.8 * math.exp(-step / (30 if hacked else 200)),
        kl=0.03 * step,
        length=24.0,
        truncated=0.0,
        seconds=24.0,
    )


def curve(*, hacked: bool = False, judged: bool = False, best: int = 80) -> RlResult:
    """120 steps with a look every 20; with ``hacked`` the measure falls in the end."""
    steps = range(0, 121, 20)
    return RlResult(
        steps=120,
        planned_steps=120 if not hacked else 150,
        best_step=best,
        stopped="at step 120 the reward had risen while chrf had fallen" if hacked else None,
        answers=3840,
        seconds={"generate": 1200.0, "reward": 300.0, "reference": 250.0, "learn": 900.0, "validation": 350.0},
        trainable=4_884_480,
        history=tuple(metrics_at(step, hacked=hacked, judged=judged) for step in range(1, 121)),
        validation=tuple(look_at(step, hacked=hacked, judged=judged) for step in steps),
        samples=tuple(sample_at(step, number) for step in steps for number in range(3)),
    )


class Text(HTMLParser):
    """Tags that were left open, and addresses that the page would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.open, self.fetched = [], []

    def handle_starttag(self, tag, attrs):
        """Push ``tag``; note what it links to."""
        if tag not in {"meta", "br", "img", "link", "path", "use", "rect"}:
            self.open.append(tag)
        self.fetched += [value for name, value in attrs if name in {"src", "href"} and value and value[0] != "#"]

    def handle_endtag(self, tag):
        """Pop up to ``tag``."""
        if tag in self.open:
            while self.open.pop() != tag:
                pass


def test_the_page_says_what_was_done_and_shows_every_curve():
    found = align.page(project="cards", settings=RLOO, aligned=curve())
    parsed = Text()
    parsed.feed(found)
    assert parsed.open == []
    assert parsed.fetched == []
    assert found.count("<svg") == 9  # seven of looks, two of training
    assert "Reward +0.88 (+0.76 to +1.00) over sft at step 80, while chrF moved by +0.8 (+0.2 to +1.4)." in found
    assert '<p class="verdict good">' in found
    assert "note warn" not in found
    assert "The weights of step 80 were kept." in found
    assert "the reward model × 1, a penalty for repeating 3 words × 0.5" in found  # noqa: RUF001
    assert "square root of KL" in found


def test_answers_stand_beside_their_rewards_and_are_escaped():
    found = align.page(project="cards", settings=RLOO, aligned=curve())
    assert found.count("<details") == 3
    assert "<b>Answer of sft</b>, reward 0.10</p>" in found
    assert "<b>Step 20</b>, reward 0.46, as before" in found
    assert "<b>Step 80</b>, kept, reward 0.98" in found
    assert "<b>Step 120</b>, cut, so without reward" in found
    assert "Take 1 after 60 steps &lt;b&gt;of&lt;/b&gt; it." in found


def test_a_hacked_reward_is_on_top():
    found = align.page(project="cards", settings=RLOO, aligned=curve(hacked=True, best=120))
    notes = re.findall(r'<div class="note warn"><p>(.*?)</p>', found)
    assert [note.split(":")[0] for note in notes] == [
        "Reward hacking suspected",
        "Answers grew longer",
        "Repetition grew",
        "The spread of rewards collapsed",
        "14 % of the answers were cut at 64 tokens at step 120",
    ]
    assert "Stopped early: at step 120 the reward had risen while chrf had fallen." in found


def test_weights_of_sft_are_named_where_they_are_kept():
    found = align.page(project="cards", settings=RLOO, aligned=curve(hacked=True, best=0))
    assert '<p class="verdict warn">The weights of sft were kept: no later ones were better.' in found
    assert "The weights of step 0 were kept (those of sft)." in found


def test_judgments_that_were_held_out_have_a_curve():
    found = align.page(project="cards", settings=DPO, aligned=curve(judged=True))
    assert "Loss on held-out judgments from 0.690 to 0.610, 70 % of the pairs ranked right, at step 80" in found
    assert "Judgments that were held out" in found
    assert "its reward is beta (0.1) times how much likelier it has become" in found
    assert found.count("<svg") == 9


def test_a_measure_that_fell_is_named_where_nothing_is_rewarded():
    found = align.page(project="cards", settings=DPO, aligned=curve(judged=True, hacked=True))
    assert "Answers got worse by the independent measure: by step 60, chrF had moved by -0.8 (-1.4 to -0.2)." in found
    assert "Reward hacking" not in found


def test_without_held_out_judgments_no_gain_is_claimed():
    found = align.page(project="cards", settings=DPO, aligned=curve())
    assert "No judgments were held out, so no gain can be shown, while chrF moved by +0.8 (+0.2 to +1.4)." in found
    assert '<p class="verdict warn">' in found
