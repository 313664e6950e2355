"""Generations that learn from themselves, and one person who says a lot (faults 29, 30), through the real rules of feedback.

The model is a toy: shares of so many sentences, learned by counting, and sharpened when it speaks, as greedy decoding does. What
becomes a training row is decided by ``live.feedback`` alone.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

from scenarios.fault_result import FaultResult
from tunectl.artifacts.records import Feedback, InferenceRecord
from tunectl.inference_log import feedback
from tunectl.inference_log.feedback import FeedbackRules, FeedbackSelection

SENTENCES = 120
SHARPER = 1.6
"""Exponent of the shares when the model speaks."""
AT = datetime(2026, 5, 1, tzinfo=UTC)
RULES = FeedbackRules(
    quarantine=timedelta(hours=24),
    per_user=20,
    per_annotator=50,
    annotator_share=0.34,
    per_prompt=3,
    model_text_share=0.5,
    holdout=0.0,
)
"""As conf/feedback/default.yaml; nothing is held back here."""
OPEN = FeedbackRules(
    quarantine=timedelta(0),
    per_user=10**6,
    per_annotator=10**6,
    annotator_share=1.0,
    per_prompt=10**6,
    model_text_share=1.0,
    holdout=0.0,
)
"""No cap at all."""
SPAM = "BUY NOW"
Model = Mapping[str, float]


def truth() -> dict[str, float]:
    """What people would write: few sentences often, many rarely."""
    raw = {f"sentence {place}": 1 / (place + 3) for place in range(SENTENCES)}
    total = sum(raw.values())
    return {text: share / total for text, share in raw.items()}


def fitted(rows: Sequence[str]) -> dict[str, float]:
    """Shares by counting, a little for what was never seen."""
    counts = Counter(rows)
    total = len(rows) + 0.05 * SENTENCES
    return {text: (counts[text] + 0.05) / total for text in truth()}


def spoken(model: Model, dice: random.Random, count: int) -> list[str]:
    """What a model says."""
    weights = [share**SHARPER for share in model.values()]
    return dice.choices(list(model), weights, k=count)


def diversity(texts: Sequence[str]) -> float:
    """Effective number of sentences: the exponential of the entropy."""
    counts = Counter(texts)
    return math.exp(-sum(n / len(texts) * math.log(n / len(texts)) for n in counts.values()))


def golden(model: Model, held: Sequence[str]) -> float:
    """Mean log-probability of people's own sentences, nats."""
    return sum(math.log(model[text]) for text in held) / len(held)


def generation(
    model: Model, dice: random.Random, people: Sequence[str], number: int, rules: FeedbackRules
) -> FeedbackSelection:
    """One round of live traffic: a third of the answers is approved of, some are written anew."""
    inferences, said = [], {}
    for place, answer in enumerate(spoken(model, dice, 600)):
        name = f"g{number}-{place}"
        inferences.append(inference(name, f"question {number} {place}", answer, user=f"u{place % 200}"))
        if place % 3 == 0:
            kind, value = ("edit", dice.choice(people)) if place % 12 == 0 else ("thumb", "up")
            said[name] = [Feedback(f"f-{name}", name, kind, value, AT - timedelta(days=2), f"a{place % 40}")]
    return feedback.select_examples(inferences, said, rules, at=AT)


def inference(name: str, question: str, answer: str, *, user: str) -> InferenceRecord:
    """An answered question, some days ago."""
    at = AT - timedelta(days=3)
    asked = {"messages": [{"role": "user", "content": question}]}
    told = {"choices": [{"message": {"role": "assistant", "content": answer}}]}
    return InferenceRecord(name, at, "champion", "r", "t", asked, user, finished_at=at, response=told)


def texts(found: FeedbackSelection) -> list[str]:
    """What is learned."""
    return [example.inference.response["choices"][0]["message"]["content"] for example in found.examples]


def five(*, count: int = 5, seed: int = 29) -> FaultResult:
    """Five generations with the caps and the people's rows in every mix, and five that learn from themselves alone."""
    found = FaultResult(29, "self-training generations", "diversity and golden score do not fall with the cap")
    dice = random.Random(seed)
    human = dice.choices(list(truth()), list(truth().values()), k=800)
    held = dice.choices(list(truth()), list(truth().values()), k=400)
    paths: dict[str, list[tuple[float, float]]] = {}
    for name, rules, base in (("with", RULES, human), ("without", OPEN, [])):
        model = fitted(human)
        paths[name] = [(diversity(spoken(model, dice, 2000)), golden(model, held))]
        for number in range(count):
            selection = generation(model, dice, human, number, rules)
            own = sum(example.kind == "approved" for example in selection.examples)
            if rules is RULES:
                found.require(
                    own <= rules.model_text_share * len(selection.examples),
                    f"generation {number}: {own} of {len(selection.examples)} rows are its own",
                )
            model = fitted([*base, *texts(selection)])
            paths[name].append((diversity(spoken(model, dice, 2000)), golden(model, held)))
    for name, path in paths.items():
        found.figures[f"{name}_cap"] = ", ".join(f"{kinds:.0f} at {score:.2f}" for kinds, score in path)
    first, last = paths["with"][0], paths["with"][-1]
    found.require(last[0] >= 0.9 * first[0], f"diversity falls from {first[0]:.1f} to {last[0]:.1f} with the cap")
    found.require(
        last[1] >= first[1] - 0.05, f"the golden score falls from {first[1]:.2f} to {last[1]:.2f} with the cap"
    )
    found.require(
        paths["without"][-1][0] < 0.7 * first[0], "without the cap nothing falls, so this scenario tests nothing"
    )
    return found


def poisoned(share: float, *, count: int = 1000, young: bool = False) -> FeedbackSelection:
    """One person writes spam under so large a share of all that is said; ``young``: just now."""
    inferences, said = [], {}
    for place in range(count):
        name = f"x{place}"
        inferences.append(inference(name, f"question {place}", f"answer {place}", user=f"u{place % 300}"))
        bad = place < share * count
        at = AT - (timedelta(hours=1) if bad and young else timedelta(days=2))
        value = SPAM if bad else f"a better answer {place}"
        said[name] = [Feedback(f"f{place}", name, "edit", value, at, "mallory" if bad else f"a{place % 60}")]
    return feedback.select_examples(inferences, said, RULES, at=AT)


def poison() -> FaultResult:
    """5 % and much more of one person's spam; the same, an hour old; and under many names."""
    found = FaultResult(
        30,
        "poisoned feedback of one user",
        "held under the configured share, and nothing of it before the quarantine is over",
    )
    for share in (0.05, 0.3, 0.8, 0.99):
        rows = texts(poisoned(share))
        spam = rows.count(SPAM)
        found.figures[f"{share:.0%}_said"] = f"{spam / len(rows):.1%} of {len(rows)} rows" if rows else "no rows"
        found.require(spam <= RULES.annotator_share * len(rows), f"{share:.0%} said: {spam} of {len(rows)} rows")
        found.require(spam <= RULES.per_annotator, f"{share:.0%} said: {spam} rows of one person")
    young = poisoned(0.05, young=True)
    found.require(SPAM not in texts(young), "what was said an hour ago is learned")
    found.require(young.reasons.get("quarantined", 0) == 50, f"left out: {young.reasons}")
    return found
