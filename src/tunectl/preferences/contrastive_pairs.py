"""Contrastive pairs from human references: an answer to the input is better than an answer to a slightly different input.

Two inputs differ by their attributes: one has another value (``wrong``, if its answer is read as an answer to the first),
lacks one (``missing``) or has one more (``extra``). So the preferred answer is what people wrote about these very facts; no
rule examines the answers.

People leave attributes out, too. A preferred answer that does so would teach that an omission is fine, so of an input's references those
that state most of its attributes are compared, as far as the words tell (``word_evidence``).

Inputs of one split are compared within that split. Where validation or test has too few near inputs, the other of the two and
then train lend rejected texts; a text is used in one split only, so no held-out pair is trained on. Every borrowed text is counted.

Of two differences one may be enough to recognize the worse answer: inputs that lack an attribute mostly have another name, too, and a
model that compares the name never learns what is missing. So from some training pairs one such attribute is removed from the prompt: both
answers then state something that was not asked for, and the other difference decides.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from tunectl.artifacts.records import (
    SPLIT_NAMES,
    AnnotationMetadata,
    Comparison,
    Example,
    Message,
    ReferenceAnswer,
    SplitName,
)
from tunectl.core.errors import DataError
from tunectl.core.hashing import hash_to_bytes
from tunectl.preferences.meaning_representation import remove_attribute
from tunectl.preferences.nearest_inputs import KINDS, AttributeDifference, DifferenceKind, NearestInputs
from tunectl.preferences.word_evidence import WordEvidence

NAME = "contrast"
"""The ``kind`` of such pairs."""
WIDEST = 40
"""Number of attributes of an input from which it is skipped: the combinations without two of them would be too many to list."""
USES = 12
"""How often two inputs may be paired, each time with other texts, before another pair is used for a difference that is still too rare."""
ORDER: tuple[SplitName, ...] = ("test", "validation", "train")
"""Order in which parts choose texts: the smallest part first, which has the fewest."""
SOURCE_PARTS: dict[SplitName, tuple[SplitName, ...]] = {
    "train": (),
    "validation": ("test", "train"),
    "test": ("validation", "train"),
}


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
    incomplete: int = 0
    """Number of references that are not compared, because they seem to leave out more attributes than others of the same input."""

    def format_summary(self, requested: int) -> str:
        """Return the counts as text, beside the ``requested`` number of pairs."""
        kinds = ", ".join(f"{count} {kind}" for kind, count in self.differences.items())
        borrowed = "".join(f"; {count} borrowed from {part}" for part, count in self.borrowed.items())
        alone_note = f"; {self.alone} inputs have none near" if self.alone else ""
        less = f"; {self.withheld} asked without one attribute" if self.withheld else ""
        left = f"; {self.incomplete} references that leave attributes out are not compared" if self.incomplete else ""
        return f"{self.pairs} of {requested} pairs on {self.inputs} inputs ({kinds}{borrowed}{alone_note}{less}{left})"


class Contrasts(NamedTuple):
    """Result of ``sample_pairs``: contrastive pairs (see ``ContrastReport``) of all splits as judgments, and a report per split."""

    judgments: list[Comparison]
    """The first answer is the better one; there is no annotator; the part is set."""
    reports: dict[SplitName, ContrastReport]


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
    texts = {
        record.prompt: [answer.text for answer in record.example.answers]
        for part in SPLIT_NAMES
        for record in parts[part]
    }
    # Learned from train alone: no held-out text decides which pairs are trained on.
    evidence = WordEvidence((record.attributes, text) for record in parts["train"] for text in texts[record.prompt])
    complete = {
        record.prompt: evidence.choose_complete(record.attributes, texts[record.prompt])
        for part in SPLIT_NAMES
        for record in parts[part]
    }
    near = {
        part: NearestInputs([record.attributes for record in parts[part]], rules.differences) for part in SPLIT_NAMES
    }
    for part in ORDER:
        pools = [_Pool(name, parts[name], near[name]) for name in (part, *SOURCE_PARTS[part])]
        sampler = _PairSampler(pools, rules, complete, split_names)
        judgments[part] = list(sampler.sample())
        reports[part] = sampler.build_report(judgments[part])
        if not judgments[part]:
            raise DataError(
                f"preferences.contrast: {part} has {len(parts[part])} inputs with attributes, and none of them has a similar input (at most "
                f"{rules.differences} differing attributes: preferences.contrast.max_differences) whose answers no other split part uses",
                hint="give the part more inputs (split.shares), or name fewer attributes; max_differences may be 1 or 2",
            )
    return Contrasts(
        [pair for part in SPLIT_NAMES for pair in judgments[part]], {part: reports[part] for part in SPLIT_NAMES}
    )


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
    complete: Mapping[str, frozenset[str]]
    """References of each input that may be compared."""
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
        better = self._list_open(record)
        worse = [
            answer for answer in self._list_open(option.record) if _normalize_text(answer.text) not in candidates.own
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

    def _list_open(self, record: PromptRecord) -> list[ReferenceAnswer]:
        """Return the answers of an input that are complete, not empty, and used by no other part."""
        return [
            answer
            for answer in record.example.answers
            if answer.text in self.complete[record.prompt]
            and answer.text.strip()
            and self.part_by_text.get(_normalize_text(answer.text), self.part) == self.part
        ]

    def build_report(self, judgments: Sequence[Comparison]) -> ContrastReport:
        paired = {judgment.prompt for judgment in judgments}
        return ContrastReport(
            pairs=len(judgments),
            inputs=len(paired),
            differences={kind: sum(n for item, n in self.counts.items() if item.kind == kind) for kind in KINDS},
            borrowed=dict(self.borrowed),
            alone=sum(self.pools[0].records[index].prompt not in paired for index in self.candidates),
            withheld=self.withheld,
            incomplete=sum(
                answer.text not in self.complete[record.prompt]
                for record in self.pools[0].records
                for answer in record.example.answers
            ),
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
