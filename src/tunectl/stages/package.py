"""Stage package: the adapter that won -> a release for one engine, held against the trained model, with its Bento."""

from __future__ import annotations

import random
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tunectl.artifacts import io, manifest
from tunectl.artifacts.records import Example
from tunectl.backends import evaluation_tools, package_tools
from tunectl.chat import contract as chats
from tunectl.chat import template as templates
from tunectl.chat.tokens import FILE as TOKENIZER_FILE
from tunectl.chat.tokens import Tokenizer
from tunectl.config.package import NoPackage, PackageStage, Ship
from tunectl.core import log, progress
from tunectl.core.errors import DataError, UsageError
from tunectl.evaluation import exported, items, results
from tunectl.evaluation.results import AnswerRow, Results
from tunectl.release import card, contract, ollama, probing, quality
from tunectl.release.contract import BaseModel, Defaults, ServingContract, Tolerance
from tunectl.release.lineage import traced
from tunectl.release.manifest import FACTS, RELEASE, Facts, Verdict
from tunectl.release.probing import Asked, Compared
from tunectl.release.quality import Measured, Report
from tunectl.release.sides import Manner, Opened, Said, Tools, Trained

_log = log.get(__name__)


@dataclass(frozen=True, slots=True)
class Inputs:
    """Folders of upstream stages."""

    model: Path
    adapt: Path
    """The further pre-trained model, or a note that there is none."""
    split: Path
    """Validation inputs to ask, and the test inputs of the evaluation."""
    sft: Path
    align: Path
    """The adapter that learned from preferences, or a note that there is none."""
    evaluate: Path
    """Which of them won, by how much, and what they answered."""


@dataclass(frozen=True, slots=True)
class Outputs:
    """Where results go."""

    artifact: Path
    """release/ (what the store takes), facts.json, quality.json, verdict.json, bento/, model.gguf with its Modelfile; or passed_through.json."""
    work: Path


@dataclass(frozen=True, slots=True)
class Metrics:
    """How close the export is to the trained model."""

    engine: str
    route: str
    adapter: str
    passed: bool
    agreement: float | None
    """Share of tokens that are the engine's first choice too."""
    logprob_gap: float | None
    """Mean absolute difference, nats."""
    measures: dict[str, float] = field(default_factory=dict)
    """The evaluation's measure before and after the export, and the release's size in megabytes."""


def run(cfg: PackageStage, inputs: Inputs, outputs: Outputs, *, tools: Tools | None = None) -> Metrics:
    """Choose the adapter, export it, write the contract, prove the export, and build the Bento.

    Reads    see ``Inputs``
    Writes   see ``Outputs``
    Returns  Metrics; a verdict of no is not an error, and then there is no Bento and the store promotes it by force only

    Raises   ArtifactError       the adapter belongs to another base or template
             UsageError          the declared adapter is not there, or the engine cannot hold it
             DataError           there are no validation inputs to ask
             EnvironmentFailure  the exporter environment cannot be made, the exporter or the engine failed
    """
    settings = cfg.package.root
    if isinstance(settings, NoPackage):
        io.write_json(outputs.artifact / manifest.PASSED_THROUGH, {"reason": "package: none"})
        return Metrics("none", "none", "none", True, None, None)
    found: Results = results.load(inputs.evaluate / results.NAME)
    which = _which(settings, inputs, found)
    job = _Job(cfg, settings, inputs, outputs, tools or package_tools.PackageTools(cfg.profile), which)
    chats.refuse_other_base(job.adapter, job.base)
    with progress.bar("package", 4) as shown:
        job.lay_out()
        shown.advance(next="the trained model's answers")
        asked = job.asked()
        tuned, compared = job.compared(asked)
        contract.save(job.contract(asked, compared), job.release)
        shown.advance(next="the engine against it")
        side = job.tools.opened(job.release, job.stops)
        try:
            report = job.with_gguf(job.report(asked, tuned, side, len(compared)))
            shown.advance(next="the reference for drift")
            job.keep_reference(asked, side)
        finally:
            side.close()
        shown.advance()
    facts = job.facts(found, report)
    job.write(facts, report, found)
    _log.info("%s", report.verdict.reason)
    passed = all(one.passed for one in facts.verdicts.values())
    same = report.agreement
    return Metrics(settings.engine, settings.route, which, passed, same.top1, same.gap, facts.metrics)


def _which(settings: Ship, inputs: Inputs, found: Results) -> str:
    """Which adapter is shipped: sft or align.

    Raises  UsageError where align is declared and switched off.
    """
    absent = (inputs.align / manifest.PASSED_THROUGH).is_file()
    if settings.adapter == "align" and absent:
        raise UsageError(
            "package.adapter = align, but align is switched off", hint="align=rloo, or package.adapter=auto"
        )
    if settings.adapter != "auto":
        return settings.adapter
    said = found.verdict.aligned
    if absent or said is None or said.verdict != "aligned_better":
        if not absent:
            _log.info("package: the adapter of sft, because evaluate does not call the aligned one better")
        return "sft"
    return "align"


@dataclass
class _Job:
    """One release in the making."""

    cfg: PackageStage
    settings: Ship
    inputs: Inputs
    outputs: Outputs
    tools: Tools
    which: str

    def __post_init__(self) -> None:
        self.base = self.inputs.model if (self.inputs.adapt / manifest.PASSED_THROUGH).is_file() else self.inputs.adapt
        self.adapter: Path = getattr(self.inputs, self.which)
        self.agreed = chats.load(self.adapter)
        self.release = self.outputs.artifact / RELEASE
        self.merged = self.outputs.work / "merged"
        self.tokenizer = Tokenizer(self.base)
        self.stops = list(
            dict.fromkeys(one.id for one in (self.agreed.end_of_turn, self.agreed.eos) if one is not None)
        )

    def lay_out(self) -> None:
        """Adapter, tokenizer and what the engine loads."""
        adapter, tokenizer = self.release / contract.ADAPTER, self.release / contract.TOKENIZER
        for folder in (adapter, tokenizer):
            folder.mkdir(parents=True)
        for name in ("adapter_model.safetensors", "adapter_config.json"):
            shutil.copyfile(self.adapter / name, adapter / name)
        for name in (TOKENIZER_FILE, templates.FILE):
            shutil.copyfile(self.base / name, tokenizer / name)
        origin = self.base
        if self.settings.route == "merged" or self.settings.gguf is not None:
            self.tools.merge(self.base, self.adapter, self.merged)
        if self.settings.route == "merged":
            origin = self.merged
        engine, weights = self.settings.engine, self.settings.weights
        self.tools.export(origin, self.release / contract.MODEL, engine=engine, weights=weights)

    def asked(self) -> list[Asked]:
        """Validation inputs, rendered, as many as somebody wants; those that leave no room for an answer are left out."""
        settings = self.settings
        rows = [row for row in io.read_rows(self.inputs.split / "validation.jsonl", Example) if row.messages]
        chat = templates.load(self.base, system=self.agreed.system)
        room = max(settings.quality.max_tokens, settings.probing.max_tokens)
        limit = (self.agreed.context or 1 << 30) - room
        texts = [
            (row, chat.render(row.messages, add_generation_prompt=True, tools=row.tools))
            for row in rows
            if not row.tools
        ]
        encoded = self.tokenizer.encode([text for _, text in texts])
        found = [
            Asked(list(row.messages), text, one.ids)
            for (row, text), one in zip(texts, encoded, strict=True)
            if len(one.ids) <= limit
        ]
        if not found:
            raise DataError(
                "package: the validation split has no input to ask that leaves room for an answer",
                hint="bring more data, change split.shares, or lower package.quality.max_tokens",
            )
        random.Random(f"{self.cfg.seed}:package").shuffle(found)  # noqa: S311  an order, not a secret
        return found[: max(settings.quality.prompts, settings.probing.fixtures, settings.reference)]

    def compared(self, asked: Sequence[Asked]) -> tuple[list[Said], list[Compared]]:
        """The trained model's answers to the inputs of the proof, and the probes among them."""
        wanted, probes = self.settings.quality, self.settings.probing
        prompts = [one.ids for one in asked[: wanted.prompts]]
        few = min(len(prompts), 4 * probes.prompts)
        model = self._trained(self.adapter)
        try:
            said = model.answers(prompts, max(wanted.max_tokens, probes.max_tokens))
        finally:
            model.close()
        tuned = [probing.cut(one, probes.max_tokens) for one in said[:few]]
        model = self._trained(None)
        try:
            base = model.answers(prompts[:few], probes.max_tokens)
            under = model.likelihood(prompts[:few], [one.ids for one in tuned], [one.ids for one in tuned])
        finally:
            model.close()
        pairs = [Compared(*row) for row in zip(asked[:few], tuned, base, under, strict=True)]
        return [probing.cut(one, wanted.max_tokens) for one in said], probing.chosen(
            pairs, probes.prompts, least=probes.logprob
        )

    def _trained(self, adapter: Path | None) -> Trained:
        return self.tools.trained(self.base, adapter, self.stops, self.settings.precision)

    def contract(self, asked: Sequence[Asked], compared: Sequence[Compared]) -> ServingContract:
        """What the server must hold."""
        agreed, settings, probes = self.agreed, self.settings, self.settings.probing
        given = settings.decoding
        return ServingContract(
            project=self.cfg.project,
            base=BaseModel(agreed.base, agreed.revision, agreed.weights_sha256, settings.weights),
            adapter_sha256=io.digest(self.release / contract.ADAPTER / "adapter_model.safetensors"),
            template_sha256=agreed.template_sha256,
            end_of_turn=agreed.end_of_turn,
            bos=agreed.bos,
            eos=agreed.eos,
            pad=agreed.pad,
            stop_token_ids=self.stops,
            context_length=agreed.context or 4096,
            engine=settings.engine,
            route=settings.route,
            defaults=Defaults(given.temperature, given.top_p, given.max_tokens),
            system=agreed.system,
            tolerance=Tolerance(probes.logprob, probes.agreement),
            fixtures=[one.fixture for one in asked[: probes.fixtures]],
            probes=[probing.probe(one, (self.text(one.tuned), self.text(one.base))) for one in compared],
        )

    def text(self, said: Said) -> str:
        """An answer without special tokens, as evaluate compares it."""
        return self.tokenizer.text_of([token for token in said.ids if token not in self.tokenizer.special]).strip()

    def report(self, asked: Sequence[Asked], tuned: Sequence[Said], side: Opened, probes: int) -> Report:
        """Hold the engine against the trained model."""
        prompts = [one.ids for one in asked[: len(tuned)]]
        answers = [one.ids for one in tuned]
        readings = side.readings(prompts, answers)
        model = self._trained(self.adapter)
        try:
            own = model.likelihood(prompts, answers, [one.choices for one in readings])
            measured = self._measured(side, model)
        finally:
            model.close()
        found = quality.agreement(answers, readings, own, self.stops)
        bounds = quality.Bounds(self.settings.quality.agreement, self.settings.quality.logprob)
        return Report(found, measured, quality.verdict(found, measured, bounds, probes=probes))

    def _measured(self, side: Opened, model: Trained) -> Measured | None:
        """The evaluation's measure of the engine's answers to its test inputs, beside that of the trained model's."""
        cfg, count = self.cfg.evaluate, self.settings.quality.inputs
        rows = items.from_examples(io.read_rows(self.inputs.split / "test.jsonl", Example))[0]
        wanted = items.drawn(items.drawn(rows, cfg.inputs, self.cfg.seed), count, self.cfg.seed)
        if count == 0 or not wanted:
            return None
        chat = templates.load(self.base, system=self.agreed.system)
        prompts = [
            one.ids
            for one in self.tokenizer.encode(
                [chat.render(item.messages, add_generation_prompt=True, tools=item.tools) for item in wanted]
            )
        ]
        limit, libraries = cfg.decoding.max_new_tokens, evaluation_tools.tools()
        engine = [self.text(one) for one in side.answers(prompts, limit)]
        if cfg.decoding.method == "greedy":
            name = "aligned" if self.which == "align" else "tuned"
            kept = {
                row.id: row.answers[name] for row in io.read_rows(self.inputs.evaluate / results.ANSWERS, AnswerRow)
            }
            before = [kept[item.id] for item in wanted]
        else:  # the engine is asked greedily, so the trained model is as well
            before = [self.text(one) for one in model.answers(prompts, limit)]
        one, other = (exported.score(cfg, libraries, wanted, told, seed=self.cfg.seed) for told in (before, engine))
        if one is None or other is None:
            return None
        low = one.low if one.low is not None else one.value
        return Measured(cfg.gate.primary, len(wanted), one.value, low, other.value)

    def with_gguf(self, report: Report) -> Report:
        """The report, after writing the GGUF file where one is wanted; a file that is another model is not kept."""
        wanted = self.settings.gguf
        if wanted is None:
            return report
        told, out = contract.load(self.release), self.outputs.artifact / "model.gguf"
        found = quality.with_gguf(
            report, self.tools.gguf(self.merged, out, wanted.type, told), told.tolerance.agreement
        )
        if found.verdict.verdict == quality.GGUF_DIFFERS:
            out.unlink()
        else:
            io.write_text(out.with_name(ollama.NAME), ollama.modelfile(told, out.name))
        return found

    def keep_reference(self, asked: Sequence[Asked], side: Opened) -> None:
        """What this release answers to validation inputs, drawn as for a request that says nothing: drift is measured against it."""
        given = self.settings.decoding
        limit = (self.agreed.context or 1 << 30) - given.max_tokens
        some = [one for one in asked if len(one.ids) <= limit][: self.settings.reference]
        how = Manner(given.temperature, given.top_p, self.cfg.seed)
        said = side.answers([one.ids for one in some], given.max_tokens, how)
        rows = [probing.reference(ask.messages, self.text(one), one) for ask, one in zip(some, said, strict=True)]
        io.write_rows(self.release / contract.REFERENCE, rows)

    def facts(self, found: Results, report: Report) -> Facts:
        """What the store keeps beside the files."""
        name = "aligned" if self.which == "align" else "tuned"
        system = found.system(name)
        scores = {measure: one.value for measure, one in system.scores.items()} if system else {}
        metrics = {measure: round(scores[measure], 3) for measure in (found.primary, "chrf") if measure in scores}
        if report.measured is not None:
            metrics[f"{report.measured.measure}_engine"] = round(report.measured.engine, 3)
        metrics |= {"agreement": round(report.agreement.top1, 4), "logprob_gap": round(report.agreement.gap, 4)}
        size = sum(path.stat().st_size for path in self.release.rglob("*") if path.is_file())
        metrics["megabytes"] = round(size / 1e6, 1)
        told = found.verdict
        passed = told.passed or (self.which == "sft" and told.verdict == "tuned_better")
        verdicts = {"evaluate": Verdict(passed, told.verdict, told.reason), "package": report.verdict}
        stages = {one: getattr(self.inputs, one) for one in self.inputs.__dataclass_fields__}
        lineage = traced(self.agreed.base, self.agreed.revision, stages)
        return Facts(self.cfg.project, self.settings.engine, self.settings.route, metrics, verdicts, lineage)

    def write(self, facts: Facts, report: Report, found: Results) -> None:
        """Card, facts, verdict, and what is built of the release."""
        folder = self.outputs.artifact
        told = [(one.title, one.scores[found.primary].value) for one in found.systems if found.primary in one.scores]
        scores = [("system", found.primary), *((title, f"{value:.2f}") for title, value in told)]
        text = card.text(facts, contract.load(self.release), report, licence=self.agreed.licence, scores=scores)
        io.write_text(self.release / contract.CARD, text)
        io.write_json(folder / FACTS, facts)
        io.write_json(folder / "quality.json", report)
        io.write_json(folder / "verdict.json", report.verdict)
        if self.settings.bento is not None and all(one.passed for one in facts.verdicts.values()):
            self.tools.bento(
                self.release, facts, self.settings.bento.name or self.cfg.project, folder / "bento", self.cfg.server
            )
        shutil.rmtree(self.outputs.work, ignore_errors=True)
