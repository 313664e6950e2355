"""Contrastive pairs from human references: an answer to the input is better than an answer to a slightly different input.

Two inputs differ by their attributes: one has another value (``wrong``, if its answer is read as an answer to the first),
lacks one (``missing``) or has one more (``extra``). So the preferred answer is what people wrote about these very facts; no
rule examines the answers.

Inputs of one split are compared within that split. Where validation or test has too few near inputs, the other of the two and
then train lend rejected texts; a text is used in one split only, so no held-out pair is trained on. Every borrowed text is counted.

Of two differences one may be enough to recognize the worse answer: inputs that lack an attribute mostly have another name, too, and a
model that compares the name never learns what is missing. So from some training pairs one such attribute is removed from the prompt: both
answers then state something that was not asked for, and the other difference decides.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import combinations, product
from typing import Literal, NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from tunectl.artifacts.records import AnnotationMetadata, Comparison, Example, Message, ReferenceAnswer, SplitName
from tunectl.core.errors import DataError
from tunectl.core.hashing import hash_to_bytes
from tunectl.preferences.meaning_representation import remove_attribute
from tunectl.preferences.prompt_split import PARTS

DifferenceKind = Literal["wrong", "missing", "extra"]
KINDS: tuple[DifferenceKind, ...] = ("wrong", "missing", "extra")
NAME = "contrast"
"""The ``kind`` of such pairs."""
WIDEST = 40
"""Number of attributes of an input from which it is skipped: the combinations without two of them would be too many to list."""
MAX_CANDIDATES = 32
"""Number of inputs examined for each way to remove attributes; of more a sample is drawn by the seed."""
USES = 12
"""How often two inputs may be paired, each time with other texts, before another pair is used for a difference that is still too rare."""
ORDER: tuple[SplitName, ...] = ("test", "validation", "train")
"""Order in which parts choose texts: the smallest part first, which has the fewest."""
SOURCE_PARTS: dict[SplitName, tuple[SplitName, ...]] = {
    "train": (),
    "validation": ("test", "train"),
    "test": ("validation", "train"),
}


class AttributeDifference(NamedTuple):
    """One attribute in which two inputs differ, and how: wrong, missing or extra."""

    kind: DifferenceKind
    name: str


@dataclass(frozen=True, slots=True)
class ContrastRules:
    """Settings of ``preferences.contrast``, with the number of pairs of each split."""

    pairs: Mapping[SplitName, int]
    """Number of pairs of each part at most."""
    per_input: int
    differences: int
    """Most attributes that differ: 1 or 2."""
    kinds: Mapping[DifferenceKind, float]
    """Weight of each kind of difference, in any unit, for every attribute alike; 0 leaves a kind out."""
    seed: int
    withhold: float = 0.0
    """Share of the pairs of train and validation with two differences whose prompt loses a wrong attribute."""


@dataclass(frozen=True, slots=True)
class PromptRecord:
    """An input with its references and attributes; its references are compared with those of similar inputs."""

    prompt: str
    """Digest that equal inputs share."""
    example: Example
    attributes: Mapping[str, str]


class ContrastReport(Struct, frozen=True):
    """Counts of one split's contrastive pairs: pairs made from references alone, the losing one that of a similar input."""

    pairs: int
    inputs: int
    """Number of inputs with a pair."""
    differences: dict[str, int]
    """Number of differences of each kind."""
    borrowed: dict[str, int]
    """Number of losing answers from each other part."""
    alone: int
    """Number of inputs that were tried and have no similar one."""
    withheld: int = 0
    """Number of pairs whose prompt lost one attribute."""

    def format_summary(self, requested: int) -> str:
        """Return the counts as text, beside the ``requested`` number of pairs."""
        kinds = ", ".join(f"{count} {kind}" for kind, count in self.differences.items())
        borrowed = "".join(f"; {count} borrowed from {part}" for part, count in self.borrowed.items())
        alone_note = f"; {self.alone} inputs have none near" if self.alone else ""
        less = f"; {self.withheld} asked without one attribute" if self.withheld else ""
        return f"{self.pairs} of {requested} pairs on {self.inputs} inputs ({kinds}{borrowed}{alone_note}{less})"


class Contrasts(NamedTuple):
    """Result of ``sample_pairs``: contrastive pairs (see ``ContrastReport``) of all splits as judgments, and a report per split."""

    judgments: list[Comparison]
    """The first answer is the better one; there is no annotator; the part is set."""
    reports: dict[SplitName, ContrastReport]


def diff_attributes(own: Mapping[str, str], other: Mapping[str, str]) -> list[AttributeDifference]:
    """Return the attributes that are wrong, missing or extra in ``other`` compared with ``own``, sorted by name."""
    result = []
    for name in sorted(own.keys() | other.keys()):
        if name not in other:
            result.append(AttributeDifference("missing", name))
        elif name not in own:
            result.append(AttributeDifference("extra", name))
        elif own[name] != other[name]:
            result.append(AttributeDifference("wrong", name))
    return result


class NearestInputs:
    """Finds inputs that differ in few attributes, without comparing every pair.

    Two inputs that differ in at most ``most`` attributes have the same remaining attributes once those are removed from either; so
    every input is indexed under each set that is left when up to ``most`` of its attributes are removed.
    """

    def __init__(self, inputs: Sequence[Mapping[str, str]], maximum: int) -> None:
        self._inputs, self._most = inputs, maximum
        self._filed: dict[int, list[int]] = defaultdict(list)
        for index, attributes in enumerate(inputs):
            for rest in _hash_subsets(attributes, maximum):
                self._filed[rest].append(index)

    def find(self, own: Mapping[str, str], rng: random.Random) -> dict[int, list[AttributeDifference]]:
        """Return the inputs that differ from ``own`` in 1 to ``most`` attributes, as differences by index; large groups are sampled."""
        near: dict[int, list[AttributeDifference]] = {}
        for rest in _hash_subsets(own, self._most):
            candidates = self._filed.get(rest, [])
            for index in candidates if len(candidates) <= MAX_CANDIDATES else rng.sample(candidates, MAX_CANDIDATES):
                if index not in near and 1 <= len(diffs := diff_attributes(own, self._inputs[index])) <= self._most:
                    near[index] = diffs
        return near


def _hash_subsets(attributes: Mapping[str, str], maximum: int) -> Iterator[int]:
    """Yield a number for each rest: codes of the remaining attributes, combined independent of their order."""
    codes = [_code(name, attributes[name]) for name in sorted(attributes)]
    total = 0
    for code in codes:
        total ^= code
    for count in range(min(maximum, len(codes)) + 1):
        for codes_away in combinations(codes, count):
            rest = total
            for code in codes_away:
                rest ^= code
            yield rest


@cache
def _code(name: str, value: str) -> int:
    return int.from_bytes(hash_to_bytes(f"{name}\0{value}"))


def build_prompt_records(
    examples: Sequence[tuple[str, Example]], attributes: Sequence[Mapping[str, str]]
) -> list[PromptRecord]:
    """Return one record for each different input, with its answers and attributes. ``examples`` are (digest of the input, example)."""
    records: dict[str, PromptRecord] = {}
    for (prompt, example), own in zip(examples, attributes, strict=True):
        if example.messages and example.answers and 0 < len(own) <= WIDEST:
            records.setdefault(prompt, PromptRecord(prompt, example, own))
    return list(records.values())


def sample_pairs(parts: Mapping[SplitName, Sequence[PromptRecord]], rules: ContrastRules) -> Contrasts:
    """Return contrastive pairs, at most ``rules.pairs`` per split; every input gets one before any gets two, and so on.

    The difference (kind and attribute) that is the rarest so far is tried first, so that rare differences are represented beside
    frequent ones. Where an input has no similar one with that difference, the next rarest is tried.

    Raises  DataError when no input has attributes, or a split has no pair.
    """
    split_names: dict[str, SplitName] = {}
    reports: dict[SplitName, ContrastReport] = {}
    judgments: dict[SplitName, list[Comparison]] = {}
    _refuse_bare(parts)
    near = {part: NearestInputs([record.attributes for record in parts[part]], rules.differences) for part in PARTS}
    for part in ORDER:
        pools = [_Pool(name, parts[name], near[name]) for name in (part, *SOURCE_PARTS[part])]
        sampler = _PairSampler(pools, rules, split_names)
        judgments[part] = list(sampler.sample())
        reports[part] = sampler.build_report(judgments[part])
        if not judgments[part]:
            raise DataError(
                f"preferences.contrast: {part} has {len(parts[part])} inputs with attributes, and none of them has a similar input (at most "
                f"{rules.differences} differing attributes: preferences.contrast.max_differences) whose answers no other split part uses",
                hint="give the part more inputs (split.shares), or name fewer attributes; max_differences may be 1 or 2",
            )
    return Contrasts([pair for part in PARTS for pair in judgments[part]], {part: reports[part] for part in PARTS})


def _refuse_bare(parts: Mapping[SplitName, Sequence[PromptRecord]]) -> None:
    if not any(parts.values()):
        raise DataError(
            "preferences.contrast: no input of the stage split has attributes and an answer",
            hint="bracketed attributes look like name[The Vaults], eatType[pub]; else name fields: "
            "preferences.contrast.attributes={method: fields, fields: [...]}",
        )


class _Pool(NamedTuple):
    """Inputs of one part."""

    part: SplitName
    records: Sequence[PromptRecord]
    near: NearestInputs


@dataclass(slots=True, eq=False)
class _Candidate:
    """An input whose answer may be the worse one."""

    record: PromptRecord
    apart: list[AttributeDifference]
    pool_index: int
    """Index of its pool: 0 is the part itself."""
    uses: int = 0


@dataclass(slots=True)
class _Candidates:
    """Remaining candidates of one input."""

    options: list[_Candidate]
    own: frozenset[str]
    """Answers of the input itself, folded: none of them may be the worse one."""
    used: set[tuple[str, str]] = field(default_factory=set)
    """Texts of its pairs so far."""


@dataclass(slots=True)
class _PairSampler:
    """One part while its pairs are sampled."""

    pools: Sequence[_Pool]
    """Its own, then those of parts that it may borrow from."""
    rules: ContrastRules
    part_by_text: dict[str, SplitName]
    """Part that uses each text (folded)."""
    counts: Counter[AttributeDifference] = field(default_factory=Counter)
    borrowed: Counter[str] = field(default_factory=Counter)
    withheld: int = 0
    candidates: dict[int, _Candidates] = field(default_factory=dict)

    @property
    def part(self) -> SplitName:
        return self.pools[0].part

    def sample(self) -> Iterator[Comparison]:
        rng = random.Random(f"{self.rules.seed} {NAME} {self.part}")  # noqa: S311  (no secret)
        records, target = self.pools[0].records, self.rules.pairs[self.part]
        order = rng.sample(range(len(records)), len(records))
        for _ in range(self.rules.per_input):
            unfinished = []
            for index in order:
                if not target:
                    return
                if index not in self.candidates:
                    self.candidates[index] = self._list_candidates(records[index], rng)
                result = self._build_next(records[index], self.candidates[index], rng)
                if result is not None:
                    unfinished.append(index)
                    target -= 1
                    yield result
            order = unfinished

    def _list_candidates(self, record: PromptRecord, rng: random.Random) -> _Candidates:
        options = []
        for pool_index, pool in enumerate(self.pools):
            result = [
                _Candidate(pool.records[index], differences, pool_index)
                for index, differences in pool.near.find(record.attributes, rng).items()
                if all(self.rules.kinds[item.kind] > 0 for item in differences)
            ]
            options += rng.sample(result, len(result))
        return _Candidates(options, frozenset(_normalize_text(answer.text) for answer in record.example.answers))

    def _build_next(self, record: PromptRecord, candidates: _Candidates, rng: random.Random) -> Comparison | None:
        ordered = sorted(
            {item for option in candidates.options for item in option.apart}, key=lambda item: (self._share(item), item)
        )
        for pool_index, item in product(range(len(self.pools)), ordered):
            while (option := self._choose(candidates, item, pool_index)) is not None:
                texts = self._choose_answers(record, option, candidates, rng)
                option.uses += 1
                if texts is None or option.uses == USES:
                    candidates.options.remove(option)
                if texts is not None:
                    self.counts.update(option.apart)
                    self.borrowed.update([self.pools[pool_index].part] if pool_index else [])
                    return self._mask_attribute(_judgment(record, *texts, option.apart, self.part), option.apart)
        return None

    def _mask_attribute(self, comparison: Comparison, differences: Sequence[AttributeDifference]) -> Comparison:
        """Remove one attribute from the prompt of the declared share of pairs; test pairs stay complete, as a policy will see them."""
        rng = random.Random(f"{self.rules.seed} withhold {comparison.id}")  # noqa: S311  (no secret)
        wrong = [item.name for item in differences if item.kind == "wrong"]
        if self.part == "test" or len(differences) < 2 or not wrong or rng.random() >= self.rules.withhold:
            return comparison
        name, last = rng.choice(wrong), comparison.messages[-1]
        self.withheld += 1
        tags = [f"withheld {name}" if item.name == name else f"{item.kind} {item.name}" for item in differences]
        return replace(
            comparison,
            messages=[*comparison.messages[:-1], replace(last, content=remove_attribute(last.content, name))],
            annotation=replace(comparison.annotation, tags=tags),
        )

    def _share(self, difference: AttributeDifference) -> float:
        return self.counts[difference] / self.rules.kinds[difference.kind]

    def _choose(self, candidates: _Candidates, difference: AttributeDifference, pool_index: int) -> _Candidate | None:
        """Choose a partner with this difference: one that was used rarely, and without another difference that is frequent already."""
        return min(
            (option for option in candidates.options if option.pool_index == pool_index and difference in option.apart),
            key=lambda option: (option.uses, max(self._share(item) for item in option.apart)),
            default=None,
        )

    def _choose_answers(
        self, record: PromptRecord, option: _Candidate, candidates: _Candidates, rng: random.Random
    ) -> tuple[ReferenceAnswer, ReferenceAnswer] | None:
        """Return an answer of either input that no other part uses; the losing one is not an answer of the input itself."""
        better = [answer for answer in record.example.answers if self._is_free(answer)]
        worse = [
            answer
            for answer in option.record.example.answers
            if self._is_free(answer) and _normalize_text(answer.text) not in candidates.own
        ]
        if self.pools[option.pool_index].part in SOURCE_PARTS[self.part][:1] and len(worse) < 2:
            return None  # its last one stays with it
        open_ = [(item, other) for item in better for other in worse if (item.text, other.text) not in candidates.used]
        if not open_:
            return None
        chosen, rejected = rng.choice(open_)
        candidates.used.add((chosen.text, rejected.text))
        self.part_by_text[_normalize_text(chosen.text)] = self.part_by_text[_normalize_text(rejected.text)] = self.part
        return chosen, rejected

    def _is_free(self, answer: ReferenceAnswer) -> bool:
        return bool(answer.text.strip()) and self.part_by_text.get(_normalize_text(answer.text), self.part) == self.part

    def build_report(self, judgments: Sequence[Comparison]) -> ContrastReport:
        paired = {judgment.prompt for judgment in judgments}
        return ContrastReport(
            pairs=len(judgments),
            inputs=len(paired),
            differences={kind: sum(n for item, n in self.counts.items() if item.kind == kind) for kind in KINDS},
            borrowed=dict(self.borrowed),
            alone=sum(self.pools[0].records[index].prompt not in paired for index in self.candidates),
            withheld=self.withheld,
        )


def _judgment(
    record: PromptRecord,
    chosen: ReferenceAnswer,
    rejected: ReferenceAnswer,
    differences: Sequence[AttributeDifference],
    part: SplitName,
) -> Comparison:
    name = hash_to_bytes(f"{record.prompt}\0{chosen.text}\0{rejected.text}").hex()
    return Comparison(
        id=f"j-{name}",
        prompt=record.prompt,
        messages=record.example.messages,
        answers=[[Message("assistant", chosen.text)], [Message("assistant", rejected.text)]],
        choice="first",
        annotation=AnnotationMetadata(chosen.source, tags=[f"{item.kind} {item.name}" for item in differences]),
        kind=NAME,
        fields=record.example.fields,
        split=part,
        systems=["reference", "reference of another input"],
        tools=record.example.tools,
    )


def _normalize_text(text: str) -> str:
    return " ".join(text.casefold().split())
