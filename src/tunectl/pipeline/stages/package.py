"""Stage package: the chosen adapter -> a release for one engine, compared with the trained model, with its Bento."""

from __future__ import annotations

import random
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tunectl.artifacts import atomic_io, manifest, privacy_budget
from tunectl.artifacts.records import Example, Message
from tunectl.backends.wiring import evaluation, packaging
from tunectl.chat import model_spec as chats
from tunectl.chat import template as templates
from tunectl.chat.tokenizer import FILE as TOKENIZER_FILE
from tunectl.chat.tokenizer import Tokenizer
from tunectl.config.schema.package import NoPackage, PackageStage, ReleaseConfig
from tunectl.core import logging_setup, progress
from tunectl.core.errors import DataError, UsageError
from tunectl.evaluation import items, results
from tunectl.evaluation.results import AnswerRow, Results
from tunectl.packaging import model_card, modelfile, parity, serving_contract
from tunectl.packaging import probes as packaging_probes
from tunectl.packaging.parity import EngineScore, ParityReport
from tunectl.packaging.probes import BaseTunedComparison, RenderedConversation
from tunectl.packaging.protocols import GreedyOutput, PackagingBackends, ReleaseSession, SamplingParams, TrainedModel
from tunectl.packaging.serving_contract import BaseModel, DecodingDefaults, RenderFixture, ServingContract, Tolerance
from tunectl.registry.lineage import collect_lineage
from tunectl.registry.release_manifest import FACTS, RELEASE, BuildFacts, RecordedVerdict

_log = logging_setup.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Inputs:
    """Artifact folders that package reads, one per stage."""

    model: Path
    cpt: Path
    """The model of cpt, or passed_through.json where cpt is switched off."""
    split: Path
    """Validation inputs for probes, and the test inputs of the evaluation."""
    sft: Path
    align: Path
    """The adapter of align, or passed_through.json where the stage is switched off."""
    evaluate: Path
    """Verdict, differences and answers of the evaluation."""


@dataclass(frozen=True, slots=True)
class Outputs:
    """Folders that package fills; ``work`` survives a kill."""

    artifact: Path
    """release/ (what the store takes), facts.json, parity.json, verdict.json, bento/, model.gguf with its Modelfile; or passed_through.json."""
    work: Path


@dataclass(frozen=True, slots=True)
class Metrics:
    """Numbers for ``dvc metrics`` of a release: its engine and adapter, and the agreement of its answers with the trained model's."""

    engine: str
    route: str
    adapter: str
    passed: bool
    agreement: float | None
    """Share of tokens that are the engine's first choice too."""
    logprob_gap: float | None
    """Mean absolute difference, nats."""
    measures: dict[str, float] = field(default_factory=dict)
    """The evaluation's metric before and after the export, and the release's size in megabytes."""


def run(cfg: PackageStage, inputs: Inputs, outputs: Outputs, *, tools: PackagingBackends | None = None) -> Metrics:
    """Export the chosen adapter, compare the export with the trained model, and build the Bento if it passes.

    Reads    see ``Inputs``
    Writes   see ``Outputs``
    Returns  Metrics; a failed verdict is not an error: then no Bento is built, and the registry promotes the release only with ``--force``

    Raises   ArtifactError       the adapter belongs to another base or template
             UsageError          the declared adapter is not there, or the engine cannot hold it
             DataError           there are no validation inputs to ask
             InfrastructureError  the exporter environment cannot be made, the exporter or the engine failed
    """
    settings = cfg.package.root
    if isinstance(settings, NoPackage):
        atomic_io.write_json(outputs.artifact / manifest.PASSED_THROUGH, {"reason": "package: none"})
        return Metrics("none", "none", "none", True, None, None)
    result: Results = results.load(inputs.evaluate / results.NAME)
    _refuse_chosen_by(result)
    which = _choose_adapter(settings, inputs, result)
    job = _ReleaseBuilder(cfg, settings, inputs, outputs, tools or packaging.PackagingBackend(cfg.hardware), which)
    chats.check_base_matches(job.adapter, job.base)
    with progress.bar("package", 4) as bar:
        job.lay_out()
        bar.advance(next="the trained model's answers")
        conversations = job.render_conversations()
        tuned, compared = job.collect_answers_and_probes(conversations)
        serving_contract.save(job.contract(conversations, compared), job.release)
        bar.advance(next="the engine against it")
        side = job.tools.open_release(job.release, job.stops)
        try:
            report = job.with_gguf(job.report(conversations, tuned, side, len(compared)))
            bar.advance(next="the reference for drift")
            job.keep_reference(conversations, side)
        finally:
            side.close()
        bar.advance()
    facts = job.facts(result, report)
    job.write(facts, report, result)
    _log.info("%s", report.verdict.reason)
    passed = all(verdict.passed for verdict in facts.verdicts.values())
    same = report.agreement
    return Metrics(settings.engine, settings.layout, which, passed, same.top1, same.gap, facts.metrics)


def _refuse_chosen_by(result: Results) -> None:
    """Raise where the evaluated inputs also chose the checkpoint: the estimate would be biased.

    Raises  UsageError.
    """
    if result.split != "test":
        raise UsageError(
            f"evaluate answered the {result.split} split, by which settings may have been chosen, so no release is made of it",
            hint="judge on test: tunectl repro evaluate.split=test",
        )


def _choose_adapter(settings: ReleaseConfig, inputs: Inputs, result: Results) -> str:
    """Return which adapter is released: sft or align.

    Raises  UsageError where align is declared and switched off.
    """
    absent = (inputs.align / manifest.PASSED_THROUGH).is_file()
    if settings.adapter == "align" and absent:
        raise UsageError(
            "package.adapter = align, but align is switched off (align: none)",
            hint="switch it on, for example align=rloo, or let package choose: package.adapter=auto",
        )
    if settings.adapter != "auto":
        return settings.adapter
    verdict = result.verdict.aligned
    if absent or verdict is None or verdict.verdict != "aligned_better":
        if not absent:
            _log.info("package: the adapter of sft, because evaluate does not call the aligned one better")
        return "sft"
    return "align"


@dataclass
class _ReleaseBuilder:
    """Builds a release from the adapter of the stage ``which``, one method per step."""

    cfg: PackageStage
    settings: ReleaseConfig
    inputs: Inputs
    outputs: Outputs
    tools: PackagingBackends
    which: str

    def __post_init__(self) -> None:
        self.base = self.inputs.model if (self.inputs.cpt / manifest.PASSED_THROUGH).is_file() else self.inputs.cpt
        self.adapter: Path = getattr(self.inputs, self.which)
        self.spec = chats.load(self.adapter)
        self.release = self.outputs.artifact / RELEASE
        self.merged = self.outputs.work / "merged"
        self.tokenizer = Tokenizer(self.base)
        ends = (self.spec.eot_token, self.spec.eos)
        self.stops = list(dict.fromkeys(token.id for token in ends if token is not None))

    def lay_out(self) -> None:
        """Write adapter, tokenizer and the files that the engine loads."""
        adapter, tokenizer = self.release / serving_contract.ADAPTER, self.release / serving_contract.TOKENIZER
        for folder in (adapter, tokenizer):
            folder.mkdir(parents=True)
        for name in ("adapter_model.safetensors", "adapter_config.json"):
            shutil.copyfile(self.adapter / name, adapter / name)
        for name in (TOKENIZER_FILE, templates.FILE):
            shutil.copyfile(self.base / name, tokenizer / name)
        origin = self.base
        if self.settings.layout == "merged" or self.settings.gguf is not None:
            self.tools.merge(self.base, self.adapter, self.merged)
        if self.settings.layout == "merged":
            origin = self.merged
        engine, weights = self.settings.engine, self.settings.weights
        self.tools.export(origin, self.release / serving_contract.MODEL, engine=engine, weights=weights)

    def render_conversations(self) -> list[RenderedConversation]:
        """Render validation inputs, as many as needed, without those that leave no tokens for an answer or that the template refuses."""
        settings = self.settings
        rows = [row for row in atomic_io.read_rows(self.inputs.split / "validation.jsonl", Example) if row.messages]
        chat = templates.load(self.base, system=self.spec.system)
        room = max(settings.parity.max_tokens, settings.probing.max_tokens)
        limit = (self.spec.context or 1 << 30) - room
        texts = [(row, text) for row in rows if not row.tools and (text := chat.try_render(row.messages)) is not None]
        encoded = self.tokenizer.encode([text for _, text in texts])
        result = [
            RenderedConversation(list(row.messages), text, item.ids)
            for (row, text), item in zip(texts, encoded, strict=True)
            if len(item.ids) <= limit
        ]
        if not result:
            raise DataError(
                "package: the validation split has no input to ask that leaves room for an answer",
                hint="bring more data, change split.shares, or lower package.parity.max_tokens",
            )
        random.Random(f"{self.cfg.seed}:package").shuffle(result)  # noqa: S311  an order, not a secret
        return result[: max(settings.parity.prompts, settings.probing.fixtures, settings.reference_responses)]

    def collect_answers_and_probes(
        self, conversations: Sequence[RenderedConversation]
    ) -> tuple[list[GreedyOutput], list[BaseTunedComparison]]:
        """Return the trained model's answers to the probe inputs, and the probes among them."""
        parity_settings, probes = self.settings.parity, self.settings.probing
        prompts = [item.ids for item in conversations[: parity_settings.prompts]]
        few = min(len(prompts), 4 * probes.prompts)
        model = self._load_model(self.adapter)
        try:
            outputs = model.generate(prompts, max(parity_settings.max_tokens, probes.max_tokens))
        finally:
            model.close()
        tuned = [packaging_probes.truncate(item, probes.max_tokens) for item in outputs[:few]]
        model = self._load_model(None)
        try:
            base = model.generate(prompts[:few], probes.max_tokens)
            likelihoods = model.likelihood(prompts[:few], [item.ids for item in tuned], [item.ids for item in tuned])
        finally:
            model.close()
        pairs = [BaseTunedComparison(*row) for row in zip(conversations[:few], tuned, base, likelihoods, strict=True)]
        return [
            packaging_probes.truncate(item, parity_settings.max_tokens) for item in outputs
        ], packaging_probes.select_probes(pairs, probes.prompts, least=probes.max_logprob_diff)

    def _load_model(self, adapter: Path | None) -> TrainedModel:
        return self.tools.load_trained_model(self.base, adapter, self.stops, self.settings.precision)

    def contract(
        self, conversations: Sequence[RenderedConversation], compared: Sequence[BaseTunedComparison]
    ) -> ServingContract:
        """Return the contract that the server must fulfill."""
        spec, settings, probes = self.spec, self.settings, self.settings.probing
        decoding = settings.decoding
        return ServingContract(
            project=self.cfg.project,
            base=BaseModel(spec.base, spec.revision, spec.weights_sha256, settings.weights),
            adapter_sha256=atomic_io.sha256_path(self.release / serving_contract.ADAPTER / "adapter_model.safetensors"),
            template_sha256=spec.template_sha256,
            eot_token=spec.eot_token,
            bos=spec.bos,
            eos=spec.eos,
            pad=spec.pad,
            stop_token_ids=self.stops,
            context_length=spec.context or 4096,
            engine=settings.engine,
            layout=settings.layout,
            defaults=DecodingDefaults(decoding.temperature, decoding.top_p, decoding.max_tokens),
            system=spec.system,
            tolerance=Tolerance(probes.max_logprob_diff, probes.min_token_agreement),
            fixtures=[*(item.fixture for item in conversations[: probes.fixtures]), *self.render_written_tokens()],
            probes=[
                packaging_probes.probe(item, (self.decode_answer(item.tuned), self.decode_answer(item.base)))
                for item in compared
            ],
        )

    def render_written_tokens(self) -> list[RenderFixture]:
        """Return a conversation with special tokens in a message: a server that treated them as such would not become ready."""
        special = self.tokenizer.special_texts
        if not special:
            return []
        messages = [Message("user", f"Is this text: {' '.join((*special[:8], self.spec.eot_token.text))}?")]
        text = templates.load(self.base, system=self.spec.system).render(messages, add_generation_prompt=True)
        return [RenderFixture(messages, text, self.tokenizer.ids(text))]

    def decode_answer(self, output: GreedyOutput) -> str:
        """Return the text of an answer without special tokens, as evaluate compares it."""
        return self.tokenizer.text_of([token for token in output.ids if token not in self.tokenizer.special]).strip()

    def report(
        self,
        conversations: Sequence[RenderedConversation],
        tuned: Sequence[GreedyOutput],
        side: ReleaseSession,
        probes: int,
    ) -> ParityReport:
        """Compare the engine with the trained model."""
        prompts = [item.ids for item in conversations[: len(tuned)]]
        answers = [item.ids for item in tuned]
        readings = side.teacher_force(prompts, answers)
        model = self._load_model(self.adapter)
        try:
            own = model.likelihood(prompts, answers, [reading.choices for reading in readings])
            score = self._score_engine(side, model)
        finally:
            model.close()
        agreement = parity.token_agreement(answers, readings, own, self.stops)
        bounds = parity.ParityBounds(self.settings.parity.min_token_agreement, self.settings.parity.max_logprob_diff)
        return ParityReport(agreement, score, parity.verdict(agreement, score, bounds, probes=probes))

    def _score_engine(self, side: ReleaseSession, model: TrainedModel) -> EngineScore | None:
        """Return the evaluation's metric of the engine's answers to its test inputs, beside that of the trained model's."""
        cfg, count = self.cfg.evaluate, self.settings.parity.inputs
        rows = items.from_examples(atomic_io.read_rows(self.inputs.split / "test.jsonl", Example))[0]
        path, is_greedy = self.inputs.evaluate / results.ANSWERS, cfg.decoding.method == "greedy"
        answers_of: dict[str, dict[str, str]] = {row.id: {} for row in rows}
        if is_greedy or path.is_file():
            answers_of = {row.id: row.answers for row in atomic_io.read_rows(path, AnswerRow)}
        asked_items = [
            item for item in items.sample_items(rows, cfg.max_inputs, self.cfg.seed) if item.id in answers_of
        ]
        sample = items.sample_items(asked_items, count, self.cfg.seed)
        if count == 0 or not sample:
            return None
        chat = templates.load(self.base, system=self.spec.system)
        texts = [chat.render(item.messages, add_generation_prompt=True, tools=item.tools) for item in sample]
        prompts = [encoded.ids for encoded in self.tokenizer.encode(texts)]
        limit, libraries = cfg.decoding.max_new_tokens, evaluation.tools()
        engine = [self.decode_answer(item) for item in side.generate(prompts, limit)]
        if is_greedy:
            name = "aligned" if self.which == "align" else "tuned"
            before = [answers_of[item.id][name] for item in sample]
        else:  # the engine is asked greedily, so the trained model is as well
            before = [self.decode_answer(item) for item in model.generate(prompts, limit)]
        first, other = (
            parity.score_exported(cfg, libraries, sample, answers, seed=self.cfg.seed) for answers in (before, engine)
        )
        if first is None or other is None:
            return None
        low = first.low if first.low is not None else first.value
        return EngineScore(cfg.gate.primary_metric, len(sample), first.value, low, other.value)

    def with_gguf(self, report: ParityReport) -> ParityReport:
        """Return the report, after writing the GGUF file where one is wanted; a file with another model is deleted."""
        settings = self.settings.gguf
        if settings is None:
            return report
        contract, out = serving_contract.load(self.release), self.outputs.artifact / "model.gguf"
        agreement = self.tools.export_gguf(self.merged, out, settings.type, contract)
        updated = parity.with_gguf(report, agreement, contract.tolerance.min_token_agreement)
        if updated.verdict.verdict == parity.GGUF_DIFFERS:
            out.unlink()
        else:
            atomic_io.write_text(out.with_name(modelfile.NAME), modelfile.render_modelfile(contract, out.name))
        return updated

    def keep_reference(self, conversations: Sequence[RenderedConversation], side: ReleaseSession) -> None:
        """Save sampled answers to validation inputs with the default settings: the reference of drift monitoring."""
        decoding = self.settings.decoding
        limit = (self.spec.context or 1 << 30) - decoding.max_tokens
        some = [item for item in conversations if len(item.ids) <= limit][: self.settings.reference_responses]
        sampling = SamplingParams(decoding.temperature, decoding.top_p, self.cfg.seed)
        outputs = side.generate([item.ids for item in some], decoding.max_tokens, sampling)
        rows = [
            packaging_probes.reference(ask.messages, self.decode_answer(item), item)
            for ask, item in zip(some, outputs, strict=True)
        ]
        atomic_io.write_rows(self.release / serving_contract.REFERENCE, rows)

    def facts(self, result: Results, report: ParityReport) -> BuildFacts:
        """Return the facts that the registry stores with the files."""
        name = "aligned" if self.which == "align" else "tuned"
        system = result.system(name)
        scores = {measure: score.value for measure, score in system.scores.items()} if system else {}
        metrics = {measure: round(scores[measure], 3) for measure in (result.primary, "chrf") if measure in scores}
        if report.measured is not None:
            metrics[f"{report.measured.measure}_engine"] = round(report.measured.engine, 3)
        metrics |= {"agreement": round(report.agreement.top1, 4), "logprob_gap": round(report.agreement.gap, 4)}
        private = self.which == "sft" and self.base == self.inputs.model  # a further stage learns without noise
        if private and (budget := privacy_budget.load(self.inputs.sft)) and budget.epsilon is not None:
            metrics["epsilon"] = round(budget.epsilon, 3)
        size = sum(path.stat().st_size for path in self.release.rglob("*") if path.is_file())
        metrics["megabytes"] = round(size / 1e6, 1)
        verdict = result.verdict
        passed = verdict.passed or (self.which == "sft" and verdict.verdict == "tuned_better")
        verdicts = {"evaluate": RecordedVerdict(passed, verdict.verdict, verdict.reason), "package": report.verdict}
        stages = {stage: getattr(self.inputs, stage) for stage in self.inputs.__dataclass_fields__}
        lineage = collect_lineage(self.spec.base, self.spec.revision, stages)
        return BuildFacts(self.cfg.project, self.settings.engine, self.settings.layout, metrics, verdicts, lineage)

    def write(self, facts: BuildFacts, report: ParityReport, result: Results) -> None:
        """Write card, facts, verdict, and what is built from the release."""
        folder = self.outputs.artifact
        measured = [system for system in result.systems if result.primary in system.scores]
        lines = [(system.title, f"{system.scores[result.primary].value:.2f}") for system in measured]
        scores = [("system", result.primary), *lines]
        text = model_card.render_model_card(
            facts, serving_contract.load(self.release), report, license_name=self.spec.license, scores=scores
        )
        atomic_io.write_text(self.release / serving_contract.CARD, text)
        atomic_io.write_json(folder / FACTS, facts)
        atomic_io.write_json(folder / "parity.json", report)
        atomic_io.write_json(folder / "verdict.json", report.verdict)
        if self.settings.bento is not None and all(verdict.passed for verdict in facts.verdicts.values()):
            self.tools.build_bento(
                self.release, facts, self.settings.bento.name or self.cfg.project, folder / "bento", self.cfg.server
            )
        shutil.rmtree(self.outputs.work, ignore_errors=True)
