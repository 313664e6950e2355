"""The report of a reward model: one page, nothing from outside, nothing of the data read as HTML."""

import re

from tunectl.backends.reports import reward
from tunectl.training.protocols import LogPoint
from tunectl.training.reward import reward_gate
from tunectl.training.reward import reward_metrics as measures
from tunectl.training.reward.reward_artifacts import Fit, LengthBaseline, MisrankedPair, RewardResults

HOW = measures.IntervalSettings(confidence=0.95, resamples=200, bins=10, seed=1)


def results(*, sign=1.0, **changes):
    gaps = [sign * (number % 7 - 1.0) for number in range(70)]
    prompts = [str(number // 2) for number in range(70)]
    test = measures.measure(gaps, prompts, HOW)
    length = measures.measure([0.0] * 70, prompts, HOW)
    gain = measures.accuracy_gain(gaps, [0.0] * 70, prompts, HOW)
    around = reward_gate.GateContext(1200, 0.3, 0.69, 100, 0.4, 0.62)
    values = {
        "project": "test",
        "seed": 17,
        "confidence": 0.95,
        "resamples": 200,
        "available": [1200, 70, 70],
        "train_pairs": 840,
        "train_prompts": 420,
        "test": test,
        "validation": test,
        "length_only": LengthBaseline(0.0, length.accuracy, length.log_loss, None, None),
        "gain_over_length": gain,
        "judge": test,
        "members_alone": [test.accuracy, test.accuracy],
        "slices": measures.slices(gaps, prompts, [{"kind": "ab"[n % 2]} for n in range(70)], HOW, most=5),
        "worst": [MisrankedPair("p1", "user: <b>Say</b> it", "good <script>", "bad & worse", -1.5, 0.25)],
        "fits": [Fit("members/0", 17, 60, 75, 50, 0.3, 0.7, 120_000, 5_000_000, shared_prompts=True)],
        "verdict": reward_gate.decide(test, length.accuracy, gain, around),
    }
    return RewardResults(**{**values, **changes})


CURVE = [LogPoint(10, 1, 0.6, None, 1e-4, 400.0), LogPoint(20, 1, 0.5, 0.55, 0.0, 400.0)]


def test_the_page_stands_alone_and_equal_results_give_equal_bytes():
    page = reward.page(results(), CURVE)
    assert page == reward.page(results(), CURVE)
    assert not re.search(r"(?:src|href)=[\"'](?!#)", page)
    assert "<script" not in page
    assert "good &lt;script&gt;" in page
    assert "&lt;b&gt;Say&lt;/b&gt; it" in page
    assert page.count("<svg") == 4
    for words in ("Member 1, test", "Judge, test", "50 of 60 (75 planned)", "-1.50 against +0.25"):
        assert words in page
    assert '<p class="verdict good">' in page
    assert "What would help" not in page


def test_a_no_says_what_would_help():
    found = results(sign=-1.0)
    page = reward.page(found, CURVE)
    assert '<p class="verdict bad">The reward model knows no more than chance' in page
    assert page.count("<li>") >= len(found.verdict.helps) + len(found.verdict.evidence)
    assert "People agree weakly" in page


def test_what_is_not_there_is_left_out():
    page = reward.page(results(judge=None, slices=[], worst=[], members_alone=[]), [])
    for words in ("Judge, test", "Kinds and fields", "Worst judged", "Member 0", "Loss by step"):
        assert words not in page
