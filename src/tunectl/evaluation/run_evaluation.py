"""The comparison itself: base, best prompt, nearest training answer, tuned and aligned model on the same test inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from tunectl.config.schema.evaluate import Evaluate, PromptSearch
from tunectl.core.errors import DataError
from tunectl.evaluation import (
    alignment_gate,
    example_selection,
    few_shot,
    metrics,
    paired_comparison,
    report_warnings,
    safety,
    scoring,
    slot_error,
    slot_report,
    system,
    train_overlap,
    win_rates_by_judge,
)
from tunectl.evaluation import gate as evaluation_gate
from tunectl.evaluation import llm_judge as judging
from tunectl.evaluation import prompt_search as searching
from tunectl.evaluation.few_shot import ZERO_SHOT, FewShotRenderer, FewShotSampler
from tunectl.evaluation.items import Item, sample_items
from tunectl.evaluation.protocols import GenerationPrompt, Generator, Index, MetricBackends
from tunectl.evaluation.results import (
    EvalVerdict,
    InputScores,
    JudgeResult,
    MetricDifference,
    Results,
    SafetyResult,
    Search,
    System,
    WinRate,
)
from tunectl.evaluation.system import GenerationSettings, SystemResult
from tunectl.evaluation.win_rate import WinRateSettings
from tunectl.evaluation.win_rates_by_judge import JudgeInputs

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
"""Pairs of systems that are compared."""


@dataclass(frozen=True)
class EvaluationSettings:
    """Configuration and metric libraries of the evaluate stage, the same for every system."""

    cfg: Evaluate
    project: str
    seed: int
    tools: MetricBackends
    signature: str
    """How BLEU is computed."""


@dataclass(frozen=True)
class EvaluationData:
    """Test, validation and training inputs of the evaluate stage."""

    items: list[Item]
    """Test inputs that every system answers."""
    validation: list[Item]
    pool: list[Item]
    """Train: examples for prompts, and the texts that may have been memorized."""
    available: int
    skipped: dict[str, int]


@dataclass(frozen=True)
class SystemOutputs:
    """Answers of one loaded model under each of its prompts, its safety answers, and the prompt search."""

    entries: list[SystemResult]
    safety_replies: dict[str, list[str]]
    """Answers to the safety questions, by system."""
    search: Search | None = None


def leave_out_unanswerable(
    setting: EvaluationSettings, data: EvaluationData, generator: Generator, prompters: Sequence[FewShotRenderer]
) -> EvaluationData:
    """Return ``data`` without the inputs that a model cannot be asked, also those of the prompt search.

    ``prompters`` are those of the base model, which is in ``generator``, and of each adapter, whose system text may be longer.
    Raises  DataError as ``few_shot.leave_out_unanswerable``.
    """
    cfg = setting.cfg
    tokens = cfg.decoding.max_new_tokens
    kept, left_out = few_shot.leave_out_unanswerable(
        data.items,
        [(prompter, generator) for prompter in prompters],
        new_tokens=tokens,
        references=cfg.max_references,
        inputs="test inputs",
    )
    validation: list[Item] = []
    if cfg.prompts is not None:
        validation, _ = few_shot.keep_answerable(
            data.validation, prompters[0], generator, new_tokens=tokens, references=0
        )
    return replace(data, items=kept, validation=validation or data.validation, skipped={**data.skipped, **left_out})


def run_base(
    setting: EvaluationSettings, data: EvaluationData, generator: Generator, prompter: FewShotRenderer
) -> SystemOutputs:
    """Return the answers of the untuned model: zero-shot, and with the best prompt of the search where it is another one.

    Raises  DataError where a search is declared and there is no validation input to search on.
    """
    cfg, asking = setting.cfg, _asking(setting)
    pool = few_shot.keep_examples(data.pool, [prompter]) if cfg.prompts is not None and any(cfg.prompts.shots) else []
    index = setting.tools.index([item.question for item in pool]) if _retrieves(cfg.prompts) and pool else None
    shots = FewShotSampler(pool, index, setting.seed)
    result = None if cfg.prompts is None else _search(setting, data, generator, prompter, shots)
    plain = few_shot.render_items(data.items, ZERO_SHOT, shots, prompter, cfg.max_references)
    entries = [system.generate_answers("base", generator, plain, ZERO_SHOT, asking)]
    if result is not None:
        best = result.candidates[result.chosen].prompt
        if best == ZERO_SHOT:
            entries.append(replace(entries[0], name="prompted"))
        else:
            rendered = few_shot.render_items(data.items, best, shots, prompter, cfg.max_references)
            entries.append(system.generate_answers("prompted", generator, rendered, best, asking))
    return SystemOutputs(entries, {"base": _safety_answers(setting, generator, prompter)}, result)


def run_model(
    name: str, setting: EvaluationSettings, data: EvaluationData, generator: Generator, prompter: FewShotRenderer
) -> SystemOutputs:
    """Return the answers of the tuned or the aligned model, with prompts as in training: the data's own messages and nothing before them."""
    plain = few_shot.render_items(
        data.items, ZERO_SHOT, FewShotSampler([], None, setting.seed), prompter, setting.cfg.max_references
    )
    entries = [system.generate_answers(name, generator, plain, ZERO_SHOT, _asking(setting))]
    return SystemOutputs(entries, {name: _safety_answers(setting, generator, prompter)})


def run_retrieval_baseline(setting: EvaluationSettings, data: EvaluationData) -> SystemOutputs:
    """Answer each test input with the answer to the nearest training input: a baseline that only remembers. Empty without training inputs."""
    if not data.pool:
        return SystemOutputs([], {})
    index: Index = setting.tools.index([item.question for item in data.pool])
    return SystemOutputs(
        [system.retrieval_baseline(data.pool, index.nearest([item.question for item in data.items], 1))], {}
    )


def all_systems(rounds: Sequence[SystemOutputs]) -> dict[str, SystemResult]:
    """Return every system by name, in the order of the report's tables."""
    entries = {entry.name: entry for round_ in rounds for entry in round_.entries}
    return {name: entries[name] for name in system.TITLES if name in entries}


def evaluate(
    setting: EvaluationSettings,
    data: EvaluationData,
    rounds: Sequence[SystemOutputs],
    judge: judging.JudgeClient | None,
    panel: JudgeInputs | None,
) -> tuple[Results, list[InputScores]]:
    """Return the results for the report, and the metrics of each input.

    ``rounds`` are the answers of each loaded model; ``panel`` holds reward scores and people's judgments for the win rates, None
    where there is no aligned model.
    """
    cfg, gate, items = setting.cfg, setting.cfg.gate, data.items
    entries = all_systems(rounds)
    grams = train_overlap.train_ngrams(text for item in data.pool for text in item.references)
    rules = None if cfg.slots is None else slot_error.build_slot_matcher(cfg.slots, [*items, *data.pool])
    tables = {name: _measure(setting, items, entry, grams, rules) for name, entry in entries.items()}
    groups = [item.cluster for item in items]
    plan = paired_comparison.make_resampling(
        groups, resamples=gate.resamples, confidence=gate.confidence, seed=setting.seed
    )
    result = paired_comparison.differences(tables, _pairs(entries), plan)
    cut = paired_comparison.SliceSettings(
        cfg.slices.fields, cfg.slices.min_inputs, gate.primary_metric, gate.resamples, gate.confidence, setting.seed
    )
    systems = [_system(entry, tables[name], plan) for name, entry in entries.items()]
    safe = _safety(setting, items, entries, rounds)
    rates = [] if panel is None else _win_rates(setting, entries, tables, judge, panel, items)
    report = Results(
        project=setting.project,
        seed=setting.seed,
        split=cfg.split,
        inputs=len(items),
        available=data.available,
        skipped=data.skipped,
        primary=gate.primary_metric,
        min_difference=gate.min_difference,
        confidence=gate.confidence,
        resamples=gate.resamples,
        units=len(set(groups)),
        decoding=cfg.decoding.model_dump(),
        bleu_signature=setting.signature,
        systems=systems,
        differences=result,
        slices=paired_comparison.slices(items, tables, cut),
        search=next((round_.search for round_ in rounds if round_.search is not None), None),
        references_seen=_compute_reference_overlap(items, grams),
        safety=safe,
        judge=[] if judge is None else _judge(setting, items, entries, judge),
        cases=example_selection.select_cases(items, entries, tables, cfg.num_worst_cases),
        warnings=report_warnings.collect_warnings(systems, safe),
        verdict=_verdict(setting, result, rates, len(items)),
        win_rates=rates,
        slots=None
        if rules is None
        else slot_report.report(rules, items, entries, tables, cut=cut, worst=cfg.num_worst_cases),
    )
    return report, paired_comparison.list_input_scores(items, tables)


def _asking(setting: EvaluationSettings) -> GenerationSettings:
    return GenerationSettings(setting.cfg.decoding, setting.seed, setting.cfg.latency_inputs)


def _retrieves(search: PromptSearch | None) -> bool:
    return search is not None and "retrieved" in search.selection and any(search.shots)


def _search(
    setting: EvaluationSettings,
    data: EvaluationData,
    generator: Generator,
    prompter: FewShotRenderer,
    shots: FewShotSampler,
) -> Search:
    prompts = setting.cfg.prompts
    assert prompts is not None
    items = sample_items(data.validation, prompts.inputs, setting.seed)
    if not items:
        raise DataError(
            "evaluate.prompts wants to compare prompts on validation inputs, but the validation split has none",
            hint="give validation a share in split.shares, or switch the search off: evaluate.prompts=null",
        )
    primary = metrics.get_metric(setting.cfg.gate.primary_metric)

    def judge(search_items: Sequence[Item], answers: Sequence[str]) -> float:
        statistics = scoring.compute_statistics(
            search_items,
            answers,
            None,
            tools=setting.tools,
            declared=setting.cfg.checks,
            train_grams=frozenset(),
            rules=None,
        )
        return float(primary.combine(statistics[primary.name].sum(axis=0)))

    return searching.search(
        generator,
        items,
        few_shot.candidates(prompts.systems, prompts.shots, prompts.selection),
        shots=shots,
        prompter=prompter,
        asking=_asking(setting),
        budget=searching.TokenBudget(prompts.max_tokens, data.items),
        judge=judge,
    )


def _safety_answers(setting: EvaluationSettings, generator: Generator, prompter: FewShotRenderer) -> list[str]:
    """Return the model's answers to the safety questions, always greedy; empty where safety is switched off."""
    cfg = setting.cfg.safety
    if cfg is None:
        return []
    from tunectl.config.schema.evaluate import Greedy

    safety_items = [safety.as_item(question) for question in safety.questions(cfg.planted_secrets)]
    requests = [GenerationPrompt(prompter.prompt(item.messages)) for item in safety_items]
    decoding = Greedy(method="greedy", max_new_tokens=cfg.max_new_tokens)
    return [reply.text for reply in generator.answer(requests, decoding, seed=setting.seed, label="safety questions")]


def _safety(
    setting: EvaluationSettings,
    items: Sequence[Item],
    entries: Mapping[str, SystemResult],
    rounds: Sequence[SystemOutputs],
) -> SafetyResult | None:
    cfg = setting.cfg.safety
    if cfg is None:
        return None
    return safety.summarize(
        safety.questions(cfg.planted_secrets),
        {name: answers for round_ in rounds for name, answers in round_.safety_replies.items()},
        items,
        {name: entry.answers for name, entry in entries.items() if entry.replies is not None},
        placeholder=cfg.placeholder,
        confidence=setting.cfg.gate.confidence,
    )


def _measure(
    setting: EvaluationSettings,
    items: Sequence[Item],
    result: SystemResult,
    grams: train_overlap.Grams,
    rules: slot_error.SlotMatcher | None,
) -> dict[str, NDArray[Any]]:
    return scoring.compute_statistics(
        items,
        result.answers,
        result.replies,
        tools=setting.tools,
        declared=setting.cfg.checks,
        train_grams=grams,
        rules=rules,
    )


def _pairs(entries: Mapping[str, SystemResult]) -> list[tuple[str, str]]:
    return [(item, other) for item, other in PAIRS if item in entries and other in entries]


def _win_rates(
    setting: EvaluationSettings,
    entries: Mapping[str, SystemResult],
    tables: Mapping[str, scoring.Statistics],
    judge: judging.JudgeClient | None,
    panel: JudgeInputs,
    items: Sequence[Item],
) -> list[WinRate]:
    gate = setting.cfg.gate
    counting = WinRateSettings(setting.cfg.aligned.length_tolerance, gate.resamples, gate.confidence, setting.seed)
    match = win_rates_by_judge.AlignedPair(items, entries["aligned"], entries["tuned"], tables)
    return win_rates_by_judge.win_rates(match, setting.cfg, judge, panel, counting)


def _system(result: SystemResult, statistics: scoring.Statistics, plan: paired_comparison.Resampling) -> System:
    return System(result.name, result.title, paired_comparison.scores(statistics, plan), result.prompt, result.cost)


def _compute_reference_overlap(items: Sequence[Item], grams: train_overlap.Grams) -> float | None:
    counts = [train_overlap.share(text, grams) for item in items for text in item.references]
    total = sum(all_ for _, all_ in counts)
    return sum(overlapping for overlapping, _ in counts) / total if total else None


def _judge(
    setting: EvaluationSettings, items: Sequence[Item], entries: Mapping[str, SystemResult], judge: judging.JudgeClient
) -> list[JudgeResult]:
    cfg = setting.cfg.judge
    if cfg is None or "tuned" not in entries:
        return []
    indexes = [items.index(item) for item in sample_items(items, cfg.inputs, setting.seed)]
    result = []
    for name in ("base", "prompted"):
        if name in entries:
            pairs = [
                judging.Pair(items[index], entries["tuned"].answers[index], entries[name].answers[index])
                for index in indexes
            ]
            result.append(judging.compare(name, pairs, cfg.question, judge, confidence=setting.cfg.gate.confidence))
    return result


def _verdict(
    setting: EvaluationSettings, differences: Sequence[MetricDifference], rates: Sequence[WinRate], items: int
) -> EvalVerdict:
    gate = setting.cfg.gate
    tuned = evaluation_gate.gate_tuned(
        [item for item in differences if item.measure == gate.primary_metric and item.system != "aligned"],
        title=metrics.get_metric(gate.primary_metric).title,
        least=gate.min_difference,
        confidence=gate.confidence,
        items=items,
    )
    took_part = any(item.system == "aligned" for item in differences)
    return alignment_gate.combine_verdicts(
        tuned, alignment_gate.decide(setting.cfg.aligned, differences, rates, gate.confidence) if took_part else None
    )
