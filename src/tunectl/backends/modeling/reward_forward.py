"""Compute rewards of answers, and a loss of rewards: the one forward pass that training, validation and scoring share."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunectl.backends.modeling import batching, model_loader
from tunectl.backends.modeling.model_loader import LoadedModel
from tunectl.config.schema.hardware import HardwareProfile
from tunectl.core.errors import UsageError
from tunectl.core.optional import import_optional
from tunectl.training.prefix_sharing import PackedRow
from tunectl.training.reward.pair_batches import PromptGroup, split_answers

CLOSE = 0.1
"""Largest distance of hidden states, relative to their length: bfloat16 rounds within 0.02; answers that attend to each other differ by more."""


@dataclass(frozen=True, slots=True)
class RewardRoute:
    """Functions that compute a reward model's rewards: the forward path of its decoder, and its score head."""

    route: batching.ForwardPath
    head: Any
    """Hidden states (answers, hidden size) of the last tokens, float32, to rewards (answers, 1)."""


def build(
    folder: Path, adapter: Path, profile: HardwareProfile, *, seed: int, device: str | None = None
) -> LoadedModel:
    """Return the model in ``folder`` with ``adapter`` merged in, and a new score head in place of its output layer.

    The sum is made in float32 and rounded once. ``seed`` draws the head, in float32, as transformers would. ``device`` is where the
    weights go, by default that of ``profile``.
    Raises  ArtifactError where a file is absent or does not fit; UsageError where transformers has no sequence classifier of this architecture.
    """
    torch = import_optional("torch", extra="train")
    transformers = import_optional("transformers", extra="train")
    precise = profile.model_copy(update={"dtype": "float32"})
    loaded = model_loader.load(folder, adapter=adapter, profile=precise, device=device)
    causal = loaded.model.merge_and_unload().to(model_loader.dtype(profile))
    config = copy.copy(causal.config)
    config.num_labels = 1
    try:
        with torch.device("meta"):
            model = transformers.AutoModelForSequenceClassification.from_config(config)
    except ValueError as error:
        raise UsageError(
            f"transformers has no sequence-classification class for {type(causal).__name__}: {str(error).splitlines()[0]}",
            hint="set model.source to another base model, or switch the reward model off: reward=none",
        ) from error
    if not isinstance(getattr(model, "score", None), torch.nn.Linear):
        raise UsageError(
            f"{type(model).__name__} has no linear layer called score, so no reward can be read from it",
            hint="set model.source to another base model, or switch the reward model off: reward=none",
        )
    setattr(model, model.base_model_prefix, causal.base_model)
    model.score = torch.nn.Linear(config.get_text_config().hidden_size, 1, bias=False, dtype=torch.float32)
    spread = getattr(config.get_text_config(), "initializer_range", 0.02)
    torch.nn.init.normal_(model.score.weight, std=spread, generator=torch.Generator().manual_seed(seed))
    return LoadedModel(model.to(device or profile.device).eval(), loaded.tokenizer)


def route_of(model: Any, *, autocast: bool) -> RewardRoute:
    """Return the forward path of a (peft) reward model that ``build`` made; ``autocast`` computes in bfloat16 where adapter layers mix types."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    return RewardRoute(batching.forward_path(model, plain_head=True, autocast=autocast), base.score)


def rewards_of(route: RewardRoute, rows: Sequence[PackedRow]) -> Any:
    """Return the raw rewards (before normalization) of all answers of ``rows`` in their order; (answers,) float32."""
    return route.head(_ends(route, rows))[:, 0]


def _ends(route: RewardRoute, rows: Sequence[PackedRow]) -> Any:
    """Return hidden states of the last token of each answer; (answers, hidden size) float32."""
    batch = route.route.batch(rows)
    with route.route.autocast:
        hidden = route.route.decoder(
            input_ids=batch.ids, position_ids=batch.positions, attention_mask=batch.mask, use_cache=False
        ).last_hidden_state
    return hidden.flatten(0, 1)[batch.sources].float()


def loss_of(route: RewardRoute, bundles: Sequence[PromptGroup], *, center_weight: float | None) -> Any:
    """Return the sum over all pairs of ``bundles`` of -log P(the chosen answer wins by its margin), in nats; a float32 scalar.

    Source: Bradley and Terry (1952); margins as in arXiv 2307.09288; ``center_weight`` is the weight of the added term
    (sum of both rewards) squared, arXiv 2312.09244 eq. 2; None: no such term.
    """
    torch = import_optional("torch", extra="train")
    rewards = rewards_of(route, [row for bundle in bundles for row in bundle.rows])
    chosen, rejected, margins = [], [], []
    start = 0
    for bundle in bundles:
        chosen += [start + pair.chosen for pair in bundle.pairs]
        rejected += [start + pair.rejected for pair in bundle.pairs]
        margins += [pair.margin for pair in bundle.pairs]
        start += len(bundle.branches)
    better, worse = rewards[chosen], rewards[rejected]
    gap = better - worse - torch.tensor(margins, dtype=torch.float32, device=rewards.device)
    loss = -torch.nn.functional.logsigmoid(gap).sum()
    return loss if center_weight is None else loss + center_weight * (better + worse).square().sum()


def supports_side_by_side(route: RewardRoute, bundles: Sequence[PromptGroup]) -> bool:
    """Return whether answers packed in one row do not attend to each other in this model, measured on a real row."""
    torch = import_optional("torch", extra="train")
    shared = [bundle for bundle in bundles if len(bundle.rows) == 1 and len(bundle.branches) > 1]
    if not shared:
        return True
    shortest = min(shared, key=lambda bundle: bundle.length)
    with torch.no_grad():
        together, apart = (_ends(route, some.rows) for some in (shortest, split_answers([shortest])[0]))
    return bool(((together - apart).norm(dim=1) < CLOSE * apart.norm(dim=1)).all())
