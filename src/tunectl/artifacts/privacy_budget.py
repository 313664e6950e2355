"""Privacy budget spent by a differentially private training: ``privacy.json`` in the artifact of sft, absent where it was not private."""

from __future__ import annotations

from pathlib import Path

from msgspec import Struct

from tunectl.artifacts import atomic_io

NAME = "privacy.json"


class PrivacyBudget(Struct, frozen=True):
    """Differential-privacy guarantee (epsilon, delta) of one training, and the numbers that it follows from."""

    unit: str
    """Who is protected: person, or source."""
    units: int
    """People or sources in the training rows."""
    epsilon: float | None
    """Privacy loss of all steps, an upper bound. None: without noise there is no bound."""
    delta: float
    noise_multiplier: float
    """Standard deviation of the noise in multiples of ``max_grad_norm``."""
    max_grad_norm: float
    sample_rate: float
    """Probability with which a step draws a unit."""
    steps: int
    accountant: str

    @property
    def sentence(self) -> str:
        """Epsilon and delta as a sentence, for reports and model cards; says so where no noise was added."""
        if self.epsilon is None:
            return f"Privacy: none, because no noise was added (sft.privacy.noise_multiplier is 0); gradients of each {self.unit} were clipped."
        return f"Privacy: epsilon {self.epsilon:.2f} at delta {self.delta:.1e} for each {self.unit}, of {self.units}."


def load(folder: Path) -> PrivacyBudget | None:
    """Return the privacy budget in an artifact folder of sft; None where the training was not private."""
    if not (folder / NAME).is_file():
        return None
    result: PrivacyBudget = atomic_io.read_json(folder / NAME, PrivacyBudget)
    return result
