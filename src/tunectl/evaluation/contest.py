"""The comparison itself: base, best prompt, nearest training answer, tuned and aligned model on the same test inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from tunectl.config.evaluate import Evaluate, PromptSearch
from tunectl.core.errors import DataError
from tunectl.evaluation import (
    aligned,
    cases,
    compare,
    entry,
    measures,
    overlap,
    pairwise,
    prompts,
    safety,
    scoring,
    slot_report,
    slots,
    verdict,
    warnings,
)
from tunectl.evaluation import judge as judging
from tunectl.evaluation import search as searching
from tunectl.evaluation.entry import Asking, Entry
from tunectl.evaluation.generator import Generator, Request
from tunectl.evaluation.items import Item, drawn
from tunectl.evaluation.pairwise import Panel
from tunectl.evaluation.prompts import ZERO_SHOT, Prompter, Shots
from tunectl.evaluation.results import (
    Difference,
    Judged,
    Results,
    Safety,
    Search,
    System,
    Verdict,
    WinRate,
)
from tunectl.evaluation.scorer import Index, Tools
from tunectl.evaluation.win_rate import Counting

if TYPE_CHECKING:
    from numpy.typing import NDArray

PAIRS = (
    ("tuned", "base"),
    ("tuned", "prompted"),
    ("tuned", "nearest"),
    ("prompted", "base"),
    ("nearest", "base"),
    ("aligned", "tuned"),
    ("aligned", "base"),
    ("aligned", "prompted"),
)
"""Who is compared with whom."""


@dataclass(frozen=True)
class Setting:
    """What holds for the whole comparison."""

    cfg: Evaluate
    project: str
    seed: int
    tools: Tools
    signature: str
    """How BLEU is computed."""


@dataclass(frozen=True)
class Data:
    """The inputs of the comparison."""

    items: list[Item]
    """Test inputs that every system answers."""
    validation: list[Item]
    pool: list[Item]
    """Train: examples for prompts, and the texts that may have been memorised."""
    available: int
    skipped: dict[str, int]


@dataclass(frozen=True)
class Round:
    """What one loaded model contributed."""

    entries: list[Entry]
    told: dict[str, list[str]]
    """Answers to the safety questions, by system."""
    search: Search | None = None


def base_round(setting: Setting, data: Data, generator: Generator, prompter: Prompter) -> Round:
    """The untuned model: zero-shot, the prompt search, and the best prompt where it is not the zero-shot one.

    Raises  DataError where a search is declared and there is no validation input to search on.
    """
    cfg, asking = setting.cfg, _asking(setting)
    index = (
        setting.tools.index([item.question for item in data.pool]) if _retrieves(cfg.prompts) and data.pool else None
    )
    shots = Shots(data.pool, index, setting.seed)
    found = None if cfg.prompts is None else _search(setting, data, generator, prompter, shots)
    plain = prompts.ready(data.items, ZERO_SHOT, shots, prompter, cfg.references)
    entries = [entry.answered("base", generator, plain, ZERO_SHOT, asking)]
    if found is not None:
        best = found.candidates[found.chosen].prompt
        if best == ZERO_SHOT:
            entries.append(replace(entries[0], name="prompted"))
        else:
            rendered = prompts.ready(data.items, best, shots, prompter, cfg.references)
            entries.append(entry.answered("prompted", generator, rendered, best, asking))
    return Round(entries, {"base": _safety_answers(setting, generator, prompter)}, found)


def trained_round(name: str, setting: Setting, data: Data, generator: Generator, prompter: Prompter) -> Round:
    """The tuned or the aligned model, asked as it was trained: the data's own messages and nothing before them."""
    plain = prompts.ready(data.items, ZERO_SHOT, Shots([], None, setting.seed), prompter, setting.cfg.references)
    entries = [entry.answered(name, generator, plain, ZERO_SHOT, _asking(setting))]
    return Round(entries, {name: _safety_answers(setting, generator, prompter)})


def nearest_round(setting: Setting, data: Data) -> Round:
    """The answer of the nearest training input: what pure memory would give. Empty without training inputs."""
    if not data.pool:
        return Round([], {})
    index: Index = setting.tools.index([item.question for item in data.pool])
    return Round([entry.copied(data.pool, index.nearest([item.question for item in data.items], 1))], {})


def played(rounds: Sequence[Round]) -> dict[str, Entry]:
    """Every competitor, in the order of the tables."""
    entries = {one.name: one for round_ in rounds for one in round_.entries}
    return {name: entries[name] for name in entry.TITLES if name in entries}


def conclude(
    setting: Setting, data: Data, rounds: Sequence[Round], ask: judging.Asker | None, panel: Panel | None
) -> Results:
    """Measure, compare, cut into slices, decide; ``panel`` is None where there is no aligned model."""
    cfg, gate, items = setting.cfg, setting.cfg.gate, data.items
    entries = played(rounds)
    seen = overlap.seen_set(text for item in data.pool for text in item.references)
    rules = None if cfg.slots is None else slots.rules(cfg.slots, [*items, *data.pool])
    tables = {name: _measure(setting, items, one, seen, rules) for name, one in entries.items()}
    groups = [item.cluster for item in items]
    plan = compare.resampling(groups, resamples=gate.resamples, confidence=gate.confidence, seed=setting.seed)
    found = compare.differences(tables, _pairs(entries), plan)
    cut = compare.Cut(cfg.slices.fields, cfg.slices.small, gate.primary, gate.resamples, gate.confidence, setting.seed)
    systems = [_system(one, tables[name], plan) for name, one in entries.items()]
    safe = _safety(setting, items, entries, rounds)
    rates = [] if panel is None else _win_rates(setting, entries, tables, ask, panel, items)
    return Results(
        project=setting.project,
        seed=setting.seed,
        inputs=len(items),
        available=data.available,
        skipped=data.skipped,
        primary=gate.primary,
        min_difference=gate.min_difference,
        confidence=gate.confidence,
        resamples=gate.resamples,
        units=len(set(groups)),
        decoding=cfg.decoding.model_dump(),
        bleu_signature=setting.signature,
        systems=systems,
        differences=found,
        slices=compare.slices(items, tables, cut),
        search=next((round_.search for round_ in rounds if round_.search is not None), None),
        references_seen=_seen(items, seen),
        safety=safe,
        judge=[] if ask is None else _judge(setting, items, entries, ask),
        cases=cases.chosen(items, entries, tables, cfg.worst),
        warnings=warnings.of(systems, safe),
        verdict=_verdict(setting, found, rates, len(items)),
        win_rates=rates,
        slots=None if rules is None else slot_report.report(rules, items, entries, tables, cut=cut, worst=cfg.worst),
    )


def _asking(setting: Setting) -> Asking:
    return Asking(setting.cfg.decoding, setting.seed, setting.cfg.latency_inputs)


def _retrieves(wanted: PromptSearch | None) -> bool:
    return wanted is not None and "retrieved" in wanted.selection and any(wanted.shots)


def _search(setting: Setting, data: Data, generator: Generator, prompter: Prompter, shots: Shots) -> Search:
    wanted = setting.cfg.prompts
    assert wanted is not None
    items = drawn(data.validation, wanted.inputs, setting.seed)
    if not items:
        raise DataError(
            "evaluate.prompts wants to compare prompts on validation inputs, but the validation split has none",
            hint="give validation a share in split.shares, or switch the search off: evaluate.prompts=null",
        )
    primary = measures.find(setting.cfg.gate.primary)

    def judge(asked: Sequence[Item], answers: Sequence[str]) -> float:
        statistics = scoring.measure(
            asked, answers, None, tools=setting.tools, declared=setting.cfg.checks, seen=frozenset(), rules=None
        )
        return float(primary.combine(statistics[primary.name].sum(axis=0)))

    return searching.search(
        generator,
        items,
        prompts.candidates(wanted.systems, wanted.shots, wanted.selection),
        shots=shots,
        prompter=prompter,
        asking=_asking(setting),
        budget=searching.Budget(wanted.max_tokens),
        judge=judge,
    )


def _safety_answers(setting: Setting, generator: Generator, prompter: Prompter) -> list[str]:
    """The model's answers to the safety questions, always greedy; empty where safety is switched off."""
    cfg = setting.cfg.safety
    if cfg is None:
        return []
    from tunectl.config.evaluate import Greedy

    asked = [safety.as_item(question) for question in safety.questions(cfg.canaries)]
    requests = [Request(prompter.prompt(item.messages)) for item in asked]
    how = Greedy(method="greedy", max_new_tokens=cfg.max_new_tokens)
    return [reply.text for reply in generator.answer(requests, how, seed=setting.seed, label="safety questions")]


def _safety(
    setting: Setting, items: Sequence[Item], entries: Mapping[str, Entry], rounds: Sequence[Round]
) -> Safety | None:
    cfg = setting.cfg.safety
    if cfg is None:
        return None
    return safety.summarise(
        safety.questions(cfg.canaries),
        {name: answers for round_ in rounds for name, answers in round_.told.items()},
        items,
        {name: one.answers for name, one in entries.items() if one.replies is not None},
        placeholder=cfg.placeholder,
        confidence=setting.cfg.gate.confidence,
    )


def _measure(
    setting: Setting, items: Sequence[Item], one: Entry, seen: overlap.Grams, rules: slots.Rules | None
) -> dict[str, NDArray[Any]]:
    return scoring.measure(
        items, one.answers, one.replies, tools=setting.tools, declared=setting.cfg.checks, seen=seen, rules=rules
    )


def _pairs(entries: Mapping[str, Entry]) -> list[tuple[str, str]]:
    return [(one, other) for one, other in PAIRS if one in entries and other in entries]


def _win_rates(
    setting: Setting,
    entries: Mapping[str, Entry],
    tables: Mapping[str, scoring.Statistics],
    ask: judging.Asker | None,
    panel: Panel,
    items: Sequence[Item],
) -> list[WinRate]:
    gate = setting.cfg.gate
    how = Counting(setting.cfg.aligned.close, gate.resamples, gate.confidence, setting.seed)
    match = pairwise.Match(items, entries["aligned"], entries["tuned"], tables)
    return pairwise.rates(match, setting.cfg, ask, panel, how)


def _system(one: Entry, statistics: scoring.Statistics, plan: compare.Resampling) -> System:
    return System(one.name, one.title, compare.scores(statistics, plan), one.prompt, one.cost)


def _seen(items: Sequence[Item], seen: overlap.Grams) -> float | None:
    counts = [overlap.share(text, seen) for item in items for text in item.references]
    total = sum(all_ for _, all_ in counts)
    return sum(known for known, _ in counts) / total if total else None


def _judge(setting: Setting, items: Sequence[Item], entries: Mapping[str, Entry], ask: judging.Asker) -> list[Judged]:
    cfg = setting.cfg.judge
    if cfg is None or "tuned" not in entries:
        return []
    places = [items.index(item) for item in drawn(items, cfg.inputs, setting.seed)]
    found = []
    for name in ("base", "prompted"):
        if name in entries:
            pairs = [
                judging.Pair(items[place], entries["tuned"].answers[place], entries[name].answers[place])
                for place in places
            ]
            found.append(judging.compare(name, pairs, cfg.question, ask, confidence=setting.cfg.gate.confidence))
    return found


def _verdict(setting: Setting, found: Sequence[Difference], rates: Sequence[WinRate], items: int) -> Verdict:
    gate = setting.cfg.gate
    tuned = verdict.decide(
        [one for one in found if one.measure == gate.primary and one.system != "aligned"],
        title=measures.find(gate.primary).title,
        least=gate.min_difference,
        confidence=gate.confidence,
        items=items,
    )
    took_part = any(one.system == "aligned" for one in found)
    return aligned.joined(
        tuned, aligned.decide(setting.cfg.aligned, found, rates, gate.confidence) if took_part else None
    )
