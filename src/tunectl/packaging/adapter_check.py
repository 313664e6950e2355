"""Prove that an engine applies the adapter: it must follow answers that the training side generated.

A probe is generated greedily, by the call that serves requests. Where the engine takes another token, generation continues from the
training side's token, so that one near tie does not affect the rest; each such position is counted. Probes were chosen so that the
base model answers differently, so an engine that ignores the adapter follows the base's answer and is detected. An adapter that
changes little is detected by log-probabilities: those of an engine that ignores it are nearer to the base's than to the tuned model's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import isfinite
from statistics import fmean

from msgspec import Struct


class Probe(Struct, frozen=True):
    """A prompt with the answers of tuned and base model on the training side, and their log-probabilities."""

    prompt: list[int]
    answer: list[int]
    """The tuned model's greedy tokens."""
    logprobs: list[float]
    """Nats, one per token of ``answer``."""
    base: list[int]
    """The base model's greedy tokens."""
    under_base: list[float]
    """Nats of the tokens of ``answer`` under the base model."""


class ProbeLimits(Struct, frozen=True):
    """Largest allowed difference between an engine and the training side."""

    agreement: float
    """Least share of tokens that are the engine's own first choice, 0 to 1."""
    logprob: float
    """Greatest mean absolute difference of log-probabilities, nats."""


class ProbeReport(Struct, frozen=True):
    """Result of all probes: whether the engine applies the adapter, and how far it agrees with the training side."""

    holds: bool
    reason: str
    """Why it failed; empty where it passed."""
    agreement: float
    logprob_gap: float
    """Nats, over the tokens on which both agree."""
    as_base: int
    """Number of probes that were answered as the base model answers."""
    probes: int
    tokens: int


@dataclass(slots=True)
class ProbeRun:
    """Comparison of an engine with the recorded answer of one probe.

    While it is not ``over``, the caller generates at most ``room`` tokens from ``prompt`` and passes them to ``feed``, which counts
    those that agree.
    """

    probe: Probe
    stops: frozenset[int]
    at: int = 0
    """Number of tokens of the probe's answer that were compared so far."""
    matches: int = 0
    """Number of those that were the engine's greedy choice as well."""
    gaps: list[float] = field(default_factory=list)
    """Nats from the tuned model, of each token on which both agree."""
    base_gaps: list[float] = field(default_factory=list)
    """Nats from the base model, of each token on which both agree."""
    free: list[int] | None = None
    """The engine's first continuation, from the start of the answer; None before it."""

    @property
    def over(self) -> bool:
        """Whether all tokens of the probe's answer were compared."""
        return self.at >= len(self.probe.answer)

    @property
    def prompt(self) -> list[int]:
        """Token ids from which the engine continues."""
        return [*self.probe.prompt, *self.probe.answer[: self.at]]

    @property
    def room(self) -> int:
        """Number of tokens that the engine should generate next."""
        return len(self.probe.answer) - self.at

    @property
    def missed(self) -> int:
        """Number of compared tokens at which the engine's greedy choice was not the token of the probe's answer."""
        return self.at - self.matches

    @property
    def as_base(self) -> bool:
        """Whether the engine's first continuation is that of the base model."""
        tokens = self.free or []
        bare = [token for token in self.probe.base if token not in self.stops]
        return bool(tokens) and tokens == bare[: len(tokens)] and tokens != self.probe.answer[: len(tokens)]

    def feed(self, ids: Sequence[int], logprobs: Sequence[float]) -> None:
        """Compare the engine's next tokens (without the stop token that ended the answer) and their log-probabilities in nats."""
        if self.free is None:
            self.free = list(ids)
        for token, logprob in zip(ids, logprobs, strict=True):
            expected = self.at
            self.at += 1
            if token != self.probe.answer[expected]:
                return
            self.matches += 1
            self.gaps.append(abs(logprob - self.probe.logprobs[expected]))
            self.base_gaps.append(abs(logprob - self.probe.under_base[expected]))
        if not self.over:  # it stopped here
            self.matches += self.probe.answer[self.at] in self.stops
            self.at += 1


def count_allowed_mismatches(probes: Sequence[Probe], limits: ProbeLimits) -> int:
    """Return how many tokens of all probes together may differ."""
    total = sum(len(probe.answer) for probe in probes)
    return int(total * (1 - limits.agreement) + 1e-9)


def evaluate_probes(walks: Sequence[ProbeRun], limits: ProbeLimits) -> ProbeReport:
    """Return the result over complete probes, or those that were stopped because too many tokens differed."""
    compared = sum(walk.at for walk in walks)
    agreement = sum(walk.matches for walk in walks) / compared if compared else 0.0
    gaps = [gap for walk in walks for gap in walk.gaps]
    broken = not all(map(isfinite, gaps))
    gap = fmean(gaps) if gaps and not broken else 0.0
    from_base = fmean([base_gap for walk in walks for base_gap in walk.base_gaps]) if gaps and not broken else 0.0
    as_base = sum(walk.as_base for walk in walks)
    report = ProbeReport(True, "", agreement, gap, as_base, len(walks), compared)
    reason = (
        "the engine gives log-probabilities that are no numbers"
        if broken
        else _reason(report, limits, from_base, has_matches=bool(gaps))
    )
    return ProbeReport(not reason, reason, agreement, gap, as_base, len(walks), compared)


def _reason(report: ProbeReport, limits: ProbeLimits, from_base: float, *, has_matches: bool) -> str:
    if not report.probes:
        return "the contract has no probes, so nothing proves that the adapter is applied"
    measured = f"{report.agreement:.1%} of {report.tokens} probe tokens agree with the training side, at least {limits.agreement:.1%} must"
    if report.as_base == report.probes:
        return (
            f"the adapter is not applied: all {report.probes} probes are answered as the base model answers; {measured}"
        )
    if has_matches and from_base < report.logprob_gap:
        return (
            f"the adapter is not applied: log-probabilities are {from_base:.3f} nat from the base model's and "
            f"{report.logprob_gap:.3f} from the tuned model's; {measured}"
        )
    if report.agreement < limits.agreement or not has_matches:
        return f"these are not the weights that were tested: {measured} ({report.as_base} of {report.probes} probes sound like the base)"
    if report.logprob_gap > limits.logprob:
        return (
            f"these are not the weights that were tested: log-probabilities differ by {report.logprob_gap:.3f} nat on average, "
            f"at most {limits.logprob:.3f} is allowed"
        )
    return ""
