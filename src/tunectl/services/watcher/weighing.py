"""The gate's decision, given what both releases said: measures, checks and floors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

from msgspec import Struct, field

from tunectl.artifacts.records import Message
from tunectl.backends import evaluation_tools
from tunectl.config.evaluate import Evaluate
from tunectl.config.watch import WatchGate
from tunectl.evaluation import measures, safety, scoring
from tunectl.evaluation.items import Item
from tunectl.release import gate
from tunectl.release.gate import Check, Floor, Limits, Part, Verdict

if TYPE_CHECKING:
    from numpy.typing import NDArray

LOADS = "loads"


class Question(Struct, frozen=True):
    """Everything that both sides are asked."""

    golden: list[Item]
    drifted: list[Item]
    harmful: list[Item]
    leaked: int = 0
    """Golden items that the challenger was trained on: they are left out."""
    version: int = 1
    """Of the golden set."""

    @property
    def asked(self) -> list[list[Message]]:
        """In one list: golden, drifted, harmful."""
        return [list(item.messages) for item in (*self.golden, *self.drifted, *self.harmful)]


class Side(Struct, frozen=True):
    """What one release said."""

    golden: list[str] = field(default_factory=list)
    drifted: list[str] = field(default_factory=list)
    harmful: list[str] = field(default_factory=list)
    seconds: float = 0.0
    """Mean of an answer, asked as many at once as the engine takes."""
    peak_bytes: int = 0
    trouble: str = ""
    """Why it did not answer."""


def weighed(asked: Question, champion: Side, challenger: Side, wanted: WatchGate, evaluate: Evaluate) -> Verdict:
    """The decision, given what both said."""
    settings = evaluate.gate
    limits = Limits(
        wanted.margin,
        wanted.matters,
        wanted.least_golden,
        wanted.least_slice,
        settings.confidence,
        settings.resamples,
    )
    checks = checked(champion, challenger, wanted)
    if challenger.trouble:
        return gate.decide(Part("golden", 0, 0), None, [], checks, limits)
    parts = [
        _part("golden", asked.golden, champion.golden, challenger.golden, evaluate, limits),
        _part("slice", asked.drifted, champion.drifted, challenger.drifted, evaluate, limits),
    ]
    drifted = parts[1] if asked.drifted else None
    return gate.decide(parts[0], drifted, floors(asked, champion, challenger, wanted), checks, limits)


def _part(
    name: Literal["golden", "slice"],
    rows: Sequence[Item],
    champion: Sequence[str],
    challenger: Sequence[str],
    evaluate: Evaluate,
    limits: Limits,
) -> Part:
    if not rows:
        return Part(name, 0, 0)
    primary = evaluate.gate.primary
    tables = []
    for said in (champion, challenger):
        table = scoring.measure(
            rows, said, None, tools=evaluation_tools.tools(), declared=evaluate.checks, seen=frozenset(), rules=None
        )
        tables.append(table[primary])
    groups = [item.cluster for item in rows]
    return gate.compared(name, tables[0], tables[1], groups, _upwards(primary), limits)


def _upwards(primary: str) -> Callable[[NDArray[Any]], NDArray[Any]]:
    """The measure as one of which more is better."""
    measure = measures.find(primary)
    if measure.better == "lower":
        return lambda sums: -measure.combine(sums)
    return measure.combine


def checked(champion: Side, challenger: Side, wanted: WatchGate) -> list[Check]:
    """Whether the challenger can serve."""
    if challenger.trouble:
        return [Check(LOADS, False, challenger.trouble)]
    said = [*challenger.golden, *challenger.drifted]
    spoken = sum(bool(text) for text in said) / len(said) if said else 1.0  # nothing asked is too few, not silence
    most = min(wanted.seconds, wanted.slower * champion.seconds) if champion.seconds else wanted.seconds
    memory = wanted.larger * champion.peak_bytes
    return [
        Check(LOADS, True, "it answers"),
        Check("answers", spoken >= 0.5, f"{spoken:.0%} of the answers say something"),
        Check("time", challenger.seconds <= most, f"{challenger.seconds:.2f} s an answer, {most:.2f} s are allowed"),
        Check(
            "memory",
            challenger.peak_bytes <= memory,
            f"{challenger.peak_bytes / 1e9:.2f} GB, {memory / 1e9:.2f} GB are allowed",
        ),
    ]


def floors(asked: Question, champion: Side, challenger: Side, wanted: WatchGate) -> list[Floor]:
    """What must not get worse: refusals of what should be answered, answers to what should be refused."""
    refused = sum(safety.refuses(text) for text in challenger.golden) / max(len(challenger.golden), 1)
    found = [Floor("share of refusals on the golden set", round(refused, 4), wanted.refusals, most=True)]
    if asked.harmful:
        answered = [
            sum(not safety.refuses(text) for text in side.harmful) / len(asked.harmful)
            for side in (champion, challenger)
        ]
        bound = min(1.0, answered[0] + wanted.harmful)
        found.append(Floor("share of harmful questions answered", round(answered[1], 4), round(bound, 4), most=True))
    return found
