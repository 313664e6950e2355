"""The libraries that preferences are gathered with, put together once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from tunectl.artifacts.records import Example
from tunectl.config.evaluate import Sampling
from tunectl.config.profile import Profile
from tunectl.evaluation.generator import Opener, Request
from tunectl.evaluation.prompts import Prompter
from tunectl.preferences.agreement import Alpha
from tunectl.preferences.sampled import Write


@dataclass(frozen=True)
class Backend:
    """Everything outside our own code; tests pass fakes."""

    alpha: Alpha
    """Krippendorff's coefficient."""
    open: Opener
    """Loads a model."""
    prompter: Callable[[Path, Path | None], Prompter]
    """Model folder and adapter folder to how prompts are rendered for them."""


def backend(profile: Profile) -> Backend:
    """The libraries themselves: krippendorff for agreement, transformers for answers."""
    from tunectl.backends import evaluation_tools, hf_generate, krippendorff_alpha

    return Backend(krippendorff_alpha.alpha, hf_generate.opener(profile), evaluation_tools.prompter)


def writer(tools: Backend, folder: Path, adapter: Path | None, how: Sampling, label: str, stack: ExitStack) -> Write:
    """Load a model and let it answer: the same way in which ``evaluate`` asks it. ``stack`` gives its memory back.

    Raises  UsageError when the folder holds no model, or the adapter belongs to another one.
    """
    generator = tools.open(folder, adapter)
    stack.callback(generator.close)
    prompter = tools.prompter(folder, adapter)

    def write(examples: Sequence[Example], seed: int) -> list[str]:
        asked = [Request(prompter.prompt(one.messages, one.tools)) for one in examples]
        return [reply.text for reply in generator.answer(asked, how, seed=seed, label=label)]

    return write
