"""Build the libraries that the annotation of preferences needs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from tunectl.artifacts.records import Example
from tunectl.chat.template import TemplateRefusedError
from tunectl.config.schema.evaluate import Sampling
from tunectl.config.schema.hardware import HardwareProfile
from tunectl.evaluation.few_shot import FewShotRenderer
from tunectl.evaluation.protocols import GenerationPrompt, ModelLoader
from tunectl.preferences.agreement import Alpha
from tunectl.preferences.answer_cache import Write


@dataclass(frozen=True)
class PreferencesBackend:
    """The libraries that the collection of preferences calls; tests pass fakes."""

    alpha: Alpha
    """Krippendorff's alpha."""
    open: ModelLoader
    """Loads a model."""
    prompter: Callable[[Path, Path | None], FewShotRenderer]
    """Returns how prompts are rendered for a model folder and an adapter folder."""


def build_backend(profile: HardwareProfile) -> PreferencesBackend:
    """Return the real libraries of the collection: krippendorff for agreement, transformers for answers."""
    from tunectl.backends.modeling import generator as modeling_generator
    from tunectl.backends.text import krippendorff_alpha
    from tunectl.backends.wiring import evaluation

    return PreferencesBackend(krippendorff_alpha.alpha, modeling_generator.model_loader(profile), evaluation.prompter)


def make_answer_writer(
    tools: PreferencesBackend, folder: Path, adapter: Path | None, sampling: Sampling, label: str, stack: ExitStack
) -> Write:
    """Return a function (examples, seed) -> answers of the model in ``folder``, with prompts as in ``evaluate``.

    The answer is empty where the chat template refuses the input, or it leaves no room for an answer in the model's context.
    The model is loaded here; leaving ``stack`` releases its memory.
    Raises  UsageError when the folder holds no model, or the adapter belongs to another one.
    """
    generator = tools.open(folder, adapter)
    stack.callback(generator.close)
    prompter = tools.prompter(folder, adapter)

    def write(examples: Sequence[Example], seed: int) -> list[str]:
        prompts: dict[int, str] = {}
        for index, example in enumerate(examples):
            with suppress(TemplateRefusedError):
                prompts[index] = prompter.prompt(example.messages, example.tools)
        limit = generator.context
        if limit is not None:
            lengths = dict(zip(prompts, generator.lengths(list(prompts.values())), strict=True))
            prompts = {
                index: text for index, text in prompts.items() if lengths[index] + sampling.max_new_tokens <= limit
            }
        requests = [GenerationPrompt(text) for text in prompts.values()]
        replies = generator.answer(requests, sampling, seed=seed, label=label)
        texts = {index: reply.text for index, reply in zip(prompts, replies, strict=True)}
        return [texts.get(index, "") for index in range(len(examples))]

    return write
