"""Liveness proof of an adapter: the engine must follow answers that the training side generated.

A probe is asked greedily, on the call that serves requests. Where the engine takes another token it is put back on the
training side's, so one near tie does not spoil what follows; each such place is counted. Probes were chosen so that the
base model answers otherwise, so an engine that ignores the adapter takes the base's way and is told by it. An adapter that
changes little is told by log-probabilities: those of an engine that ignores it are nearer to the base's than to the tuned model's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import isfinite
from statistics import fmean

from msgspec import Struct


class Probe(Struct, frozen=True):
    """What the training side wrote."""

    prompt: list[int]
    answer: list[int]
    """The tuned model's greedy tokens."""
    logprobs: list[float]
    """Nats, one a token of ``answer``."""
    base: list[int]
    """The base model's greedy tokens."""
    under_base: list[float]
    """Nats of the tokens of ``answer`` under the base model."""


class ProbeLimits(Struct, frozen=True):
    """How far an engine may be off."""

    agreement: float
    """Least share of tokens that are the engine's own first choice, 0 to 1."""
    logprob: float
    """Greatest mean absolute difference of log-probabilities, nats."""


class ProbeReport(Struct, frozen=True):
    """What the walks showed."""

    holds: bool
    reason: str
    """Why not; empty where it holds."""
    agreement: float
    logprob_gap: float
    """Nats, over the tokens on which both agree."""
    as_base: int
    """Probes that were answered as the base answers."""
    probes: int
    tokens: int


@dataclass(slots=True)
class ProbeRun:
    """One probe on its way. Ask for ``prompt`` and ``room``, then ``feed`` what came; until ``over``."""

    probe: Probe
    stops: frozenset[int]
    at: int = 0
    """Tokens of the probe's answer that have been looked at."""
    agreed: int = 0
    """Those of them that the engine chose as well."""
    gaps: list[float] = field(default_factory=list)
    """Nats from the tuned model, of each token on which both agree."""
    base_gaps: list[float] = field(default_factory=list)
    """The same from the base model."""
    free: list[int] | None = None
    """What the engine said before it was put back for the first time."""

    @property
    def over(self) -> bool:
        """Whether all tokens were seen."""
        return self.at >= len(self.probe.answer)

    @property
    def prompt(self) -> list[int]:
        """The tokens to go on from."""
        return [*self.probe.prompt, *self.probe.answer[: self.at]]

    @property
    def room(self) -> int:
        """How many tokens to ask for."""
        return len(self.probe.answer) - self.at

    @property
    def missed(self) -> int:
        """Tokens at which the engine went another way."""
        return self.at - self.agreed

    @property
    def as_base(self) -> bool:
        """Whether the engine, left alone, said what the base says."""
        tokens = self.free or []
        bare = [token for token in self.probe.base if token not in self.stops]
        return bool(tokens) and tokens == bare[: len(tokens)] and tokens != self.probe.answer[: len(tokens)]

    def feed(self, ids: Sequence[int], logprobs: Sequence[float]) -> None:
        """Take the engine's next tokens, without the stop token that ended the answer."""
        if self.free is None:
            self.free = list(ids)
        for token, logprob in zip(ids, logprobs, strict=True):
            expected = self.at
            self.at += 1
            if token != self.probe.answer[expected]:
                return
            self.agreed += 1
            self.gaps.append(abs(logprob - self.probe.logprobs[expected]))
            self.base_gaps.append(abs(logprob - self.probe.under_base[expected]))
        if not self.over:  # it stopped here
            self.agreed += self.probe.answer[self.at] in self.stops
            self.at += 1


def count_allowed_mismatches(probes: Sequence[Probe], limits: ProbeLimits) -> int:
    """Return how many tokens of all probes together may go another way."""
    total = sum(len(probe.answer) for probe in probes)
    return int(total * (1 - limits.agreement) + 1e-9)


def evaluate_probes(walks: Sequence[ProbeRun], limits: ProbeLimits) -> ProbeReport:
    """Return the verdict over walks that are over, or that were given up because too many tokens went another way."""
    compared = sum(walk.at for walk in walks)
    agreement = sum(walk.agreed for walk in walks) / compared if compared else 0.0
    gaps = [gap for walk in walks for gap in walk.gaps]
    broken = not all(map(isfinite, gaps))
    gap = fmean(gaps) if gaps and not broken else 0.0
    from_base = fmean([base_gap for walk in walks for base_gap in walk.base_gaps]) if gaps and not broken else 0.0
    as_base = sum(walk.as_base for walk in walks)
    report = ProbeReport(True, "", agreement, gap, as_base, len(walks), compared)
    reason = (
        "the engine gives log-probabilities that are no numbers"
        if broken
        else _reason(report, limits, from_base, agreed=bool(gaps))
    )
    return ProbeReport(not reason, reason, agreement, gap, as_base, len(walks), compared)


def _reason(report: ProbeReport, limits: ProbeLimits, from_base: float, *, agreed: bool) -> str:
    if not report.probes:
        return "the contract has no probes, so nothing proves that the adapter is applied"
    measured = f"{report.agreement:.1%} of {report.tokens} probe tokens agree with the training side, at least {limits.agreement:.1%} must"
    if report.as_base == report.probes:
        return (
            f"the adapter is not applied: all {report.probes} probes are answered as the base model answers; {measured}"
        )
    if agreed and from_base < report.logprob_gap:
        return (
            f"the adapter is not applied: log-probabilities are {from_base:.3f} nat from the base model's and "
            f"{report.logprob_gap:.3f} from the tuned model's; {measured}"
        )
    if report.agreement < limits.agreement or not agreed:
        return f"these are not the weights that were tested: {measured} ({report.as_base} of {report.probes} probes sound like the base)"
    if report.logprob_gap > limits.logprob:
        return (
            f"these are not the weights that were tested: log-probabilities differ by {report.logprob_gap:.3f} nat on average, "
            f"at most {limits.logprob:.3f} is allowed"
        )
    return ""
