"""Training with differential privacy: DP-SGD over people or sources, with Opacus' sampler, clipping, noise and accountant.

Opacus clips the gradient of each *sample*. Here a sample is a unit with all of its rows, so each unit has its own backward passes:
its gradient is that of a usual training on that unit alone, whatever kernels compute it. A prompt is shared within a unit only.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import msgspec

from tunectl.artifacts import private_files
from tunectl.artifacts.privacy_budget import PrivacyBudget
from tunectl.backends.modeling import batching, training_checkpoint
from tunectl.backends.modeling.process_group import ProcessGroup
from tunectl.backends.modeling.training_run import TrainingRun
from tunectl.config.schema.sft import Privacy
from tunectl.core.errors import DataError, UsageError
from tunectl.core.optional import import_optional
from tunectl.training import batch_schedule, fit_request
from tunectl.training.batch_schedule import OptimizerStep
from tunectl.training.prefix_sharing import PackedRow
from tunectl.training.train_args import TrainingArgs

MIN_DELTA_SHARE = 0.1
"""Delta where none is declared, in shares of 1 / units: with delta = 1 / units, publishing one whole unit would be allowed."""
LOCATIONS = frozenset({"init_adapter", "noise_key_file", "noise_key_env"})
"""Settings that only say where something is: the same training in another folder has the same noise."""


@dataclass
class PrivateRun(TrainingRun):
    """State of a DP-SGD training: each step samples units (people or sources), clips the gradient of each, and adds noise."""

    privacy: Privacy = None  # type: ignore[assignment]  # a field after fields with defaults
    units: int = 0
    sample_rate: float = 0.0
    noise_multiplier: float = 0.0
    delta: float = 0.0
    key: bytes = b""
    optimizer: Any = None
    """Opacus' optimizer: clips, sums, adds noise. The step itself is the trainer's."""
    accountant: Any = field(default=None)

    def learn(self, step: OptimizerStep, backward: Any) -> float:
        """Set the gradient to the noisy mean gradient of the units of ``step``; return the mean of their losses (nats)."""
        losses = []
        self.optimizer.zero_grad(set_to_none=True)
        for _, batches in groupby(step.batches, key=lambda group: self.rows[group[0]].unit):
            losses.append(self._learn_unit(list(batches), backward))
            self._take_gradients(1)
        if not losses:  # no unit was sampled: the step adds noise only; skipping it would reveal that nobody was in it
            self._take_gradients(0)
        device = next(iter(self.optimizer.params)).device
        self.optimizer.generator = _generator(self.key, "noise", self._steps_done(), device)
        self.optimizer.add_noise()
        self.optimizer.scale_grad()
        self.accountant.history = list(self.state.accountant)
        self.accountant.step(noise_multiplier=self.noise_multiplier, sample_rate=self.sample_rate)
        self.state.accountant = [tuple(entry) for entry in self.accountant.history]
        return sum(losses) / len(losses) if losses else (self.last_good or (0, 0.0))[1]

    def _learn_unit(self, batches: Sequence[Sequence[int]], backward: Any) -> float:
        """Forward and backward over all rows of one unit; the mean loss of its learned tokens (nats)."""
        parts = [self.route.batch([self.rows[number] for number in group]) for group in batches]
        weight, total = sum(float(part.weights.sum()) for part in parts), 0.0
        for part in parts:
            loss = batching.cross_entropy_loss(self.route, part, smoothing=self.plan.label_smoothing) / weight
            backward(loss)
            total += float(loss.detach())
        return total

    def _take_gradients(self, samples: int) -> None:
        """Pass the current gradients to Opacus as those of one sample, or of none."""
        for weights in self.optimizer.params:
            gradient = weights.new_zeros(weights.shape) if weights.grad is None else weights.grad.detach()
            weights.grad_sample = gradient.expand(samples, *weights.shape)
            weights.grad = None
        self.optimizer.clip_and_accumulate()

    def _steps_done(self) -> int:
        return sum(count for _, _, count in self.state.accountant)

    def budget(self) -> PrivacyBudget:
        """Return the privacy budget (epsilon, delta) that the steps so far have spent."""
        self.accountant.history = list(self.state.accountant)
        with _quiet_opacus():
            epsilon = float(self.accountant.get_epsilon(delta=self.delta)) if self.noise_multiplier else None
        return PrivacyBudget(
            unit=self.privacy.unit,
            units=self.units,
            epsilon=epsilon,
            delta=self.delta,
            noise_multiplier=self.noise_multiplier,
            max_grad_norm=self.privacy.max_grad_norm,
            sample_rate=self.sample_rate,
            steps=self._steps_done(),
            accountant=self.privacy.accountant,
        )


def check(privacy: Privacy, rows: Sequence[PackedRow], group: ProcessGroup) -> None:
    """Refuse settings and data that a private training does not support, before a model is loaded.

    Raises  UsageError for several processes, and for settings that the number of units does not allow; DataError for too few units.
    """
    if group.world_size > 1:
        raise UsageError(
            f"sft.privacy works in one process only, but launch starts {group.world_size}",
            hint="set launch=local, or sft.privacy=null",
        )
    units = len({row.unit for row in rows})
    if units < privacy.min_units:
        raise DataError(
            f"sft.privacy: the training rows are of {units} {privacy.unit}{'' if units == 1 else 's'}, "
            f"and sft.privacy.min_units is {privacy.min_units}",
            hint="add data of more of them; with so few the noise hides what they have in common (lower min_units to try)",
        )
    if privacy.expected_batch_size > units:
        raise UsageError(
            f"sft.privacy.expected_batch_size is {privacy.expected_batch_size:g}, but the training rows are of {units} units ({privacy.unit})",
            hint=f"set it to {units} at most; a hundredth of the units is usual",
        )
    if privacy.target_delta is not None and privacy.target_delta >= 1 / units:
        raise UsageError(
            f"sft.privacy.target_delta is {privacy.target_delta:g}; with {units} units it must be below 1 / {units}, "
            "or it does not protect a single one",
            hint=f"set it to {MIN_DELTA_SHARE / units:.1e}, or to null",
        )


def build(
    plan: TrainingArgs,
    privacy: Privacy,
    train: list[PackedRow],
    validation: list[PackedRow],
    route: batching.ForwardPath,
    model: Any,
    *,
    base: str,
) -> PrivateRun:
    """Return the state of a private training, with the units of all steps sampled and the noise that ``target_epsilon`` needs.

    ``base`` is the SHA-256 of the weights of the base model.
    Raises  UsageError where no noise reaches that epsilon; InfrastructureError where the key cannot be read; MissingExtraError.
    """
    optimizers = import_optional("opacus.optimizers", extra="private")
    accountants = import_optional("opacus.accountants", extra="private")
    torch = import_optional("torch", extra="train")
    units = list(dict.fromkeys(row.unit for row in train))
    rate = privacy.expected_batch_size / len(units)
    steps = max(1, round(plan.epochs / rate))
    delta = privacy.target_delta or MIN_DELTA_SHARE / len(units)
    noise = find_noise_multiplier(privacy, sample_rate=rate, steps=steps, delta=delta)
    key = derive_key(load_noise_key(privacy), plan, train, base=base, noise_multiplier=noise)
    trained = [weights for weights in model.parameters() if weights.requires_grad]
    return PrivateRun(
        plan,
        train,
        _draw_steps(train, units, rate, steps, tokens=plan.profile.train_batch_tokens, key=key),
        validation,
        route,
        training_checkpoint.TrainerState(),
        privacy=privacy,
        units=len(units),
        sample_rate=rate,
        noise_multiplier=noise,
        delta=delta,
        key=key,
        optimizer=optimizers.DPOptimizer(
            torch.optim.SGD(trained, lr=0.0),  # this optimizer never steps
            noise_multiplier=noise,
            max_grad_norm=privacy.max_grad_norm,
            expected_batch_size=privacy.expected_batch_size,
        ),
        accountant=accountants.create_accountant(mechanism=privacy.accountant),
    )


def derive_key(
    secret: bytes, plan: TrainingArgs, train: Sequence[PackedRow], *, base: str, noise_multiplier: float
) -> bytes:
    """Return the key of the noise and the draws of one training: from the secret, and from all that the training computes with.

    Epsilons of several trainings add up only where their noise is independent: with the same noise, two adapters whose data differ in one
    unit would differ by what that unit adds. A repeated or resumed training gets the same key.
    """
    settings = fit_request.encode_plan(plan)
    privacy = settings["privacy"] or {}
    content = (
        {name: value for name, value in settings.items() if name not in {"privacy", *LOCATIONS}},
        {name: value for name, value in privacy.items() if name not in LOCATIONS},
        noise_multiplier,
        base,
        train,
    )
    digest = hashlib.sha256(msgspec.msgpack.encode(content)).hexdigest()
    return hmac.new(secret, f"training {digest}".encode(), hashlib.sha256).digest()


def find_noise_multiplier(privacy: Privacy, *, sample_rate: float, steps: int, delta: float) -> float:
    """Return the declared noise multiplier, or the smallest that keeps epsilon of ``steps`` steps below ``target_epsilon``.

    ``sample_rate`` is the probability that a unit is in a step; ``delta`` the probability with which epsilon may not hold.
    Raises  UsageError where none does.
    """
    if privacy.noise_multiplier is not None:
        return privacy.noise_multiplier
    search = import_optional("opacus.accountants.utils", extra="private").get_noise_multiplier
    target = float(privacy.target_epsilon or 0.0)
    try:
        with _quiet_opacus():
            result = search(
                target_epsilon=target,
                target_delta=delta,
                sample_rate=sample_rate,
                steps=steps,
                accountant=privacy.accountant,
                epsilon_tolerance=min(0.01, target / 100),
            )
    except (ValueError, ArithmeticError, RuntimeError) as error:
        raise UsageError(
            f"sft.privacy.target_epsilon = {target:g} cannot be reached in {steps} steps that draw {sample_rate:.2%} of the units each, "
            f"at delta {delta:.1e}: {error}",
            hint="raise target_epsilon, lower sft.epochs, or take sft.privacy.accountant=rdp",
        ) from error
    return float(result)


@contextmanager
def _quiet_opacus() -> Iterator[None]:
    """Hide warnings about orders and integrals of the accountants: their bounds hold, but may not be the tightest."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield


def load_noise_key(privacy: Privacy, environment: Mapping[str, str] = os.environ) -> bytes:
    """Return the secret key for noise and sampling: from the environment, else from its file, which is created for its owner only.

    Raises  InfrastructureError where the key could be guessed, or its file cannot be made or read.
    """
    return private_files.load_secret_key(
        Path(privacy.noise_key_file),
        environment.get(privacy.noise_key_env),
        variable=privacy.noise_key_env,
        risk="the noise",
        hint="write 64 random hexadecimal digits into it",
    )


def _draw_steps(
    rows: Sequence[PackedRow], units: Sequence[str], rate: float, steps: int, *, tokens: int, key: bytes
) -> list[OptimizerStep]:
    """Return all steps: each samples every unit with probability ``rate`` (Poisson sampling); batches hold rows of one unit."""
    sampler = import_optional("opacus.utils.uniform_sampler", extra="private").UniformWithReplacementSampler
    members: dict[str, list[int]] = {unit: [] for unit in units}
    for number, row in enumerate(rows):
        members[row.unit].append(number)
    batches = [batch_schedule.token_batches(rows, members[unit], tokens) for unit in units]
    result = []
    for step in range(steps):
        sample = next(
            iter(
                sampler(
                    num_samples=len(units), sample_rate=rate, steps=1, generator=_generator(key, "draw", step, "cpu")
                )
            )
        )
        result.append(OptimizerStep(tuple(batch for unit in sample for batch in batches[unit]), int(step * rate) + 1))
    return result


def _generator(key: bytes, purpose: str, step: int, device: Any) -> Any:
    """Return a separate generator for each step, so that a resumed training draws the same numbers."""
    digest = hmac.new(key, f"{purpose} {step}".encode(), hashlib.sha256).digest()
    torch = import_optional("torch", extra="train")
    return torch.Generator(device=device).manual_seed(int.from_bytes(digest[:8], "big") >> 1)
