"""Estimate tokens, memory and minutes of each stage before a run. Pure arithmetic.

Every constant says where it was measured. Ratios hold on other machines; speeds come from one layer timed on
this machine, or from the last run of a stage.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tunectl.backends.modeling.layer_benchmark import Speed
from tunectl.config.schema.align import Grpo, NoAlign, Rloo
from tunectl.config.schema.cpt import LoraCpt
from tunectl.config.schema.evaluate import BeamSearch
from tunectl.config.schema.package import NoPackage
from tunectl.config.schema.preferences import BracketedAttributes, PreferencesConfig
from tunectl.config.schema.reward import RewardModelConfig
from tunectl.pipeline import curation_rates

if TYPE_CHECKING:
    from tunectl.config.schema.root import TunectlConfig

LEARN_FACTOR = 1.0
"""Time of a real LoRA step over the timed layer: norms, rotary positions, padding and optimizer cost about what our own kernels save.
Measured: 65 microseconds per layer and token give 480 tokens/s for SmolLM2-135M; E2E ran at 400 to 630 on the same 2 cores."""
READ_FACTOR = 1.3
"""Time of really reading prompts and references, over that of the timed layer."""
WRITE_FACTOR = 1.7
"""The same factor for generation: the cache grows, tokens are sampled, Python runs between layers. Measured on 2 cores with AMX: 282 tokens/s at
24 rows and 394 at 48, where the layer alone would give 475 and 660."""
START_SECONDS = 9.0
"""Start of a stage that loads torch and a model: 6 s of imports, the rest for 135M weights."""
LIGHT_SECONDS = 0.4
"""Start of a stage that loads neither: Python and the data libraries."""
GGUF_SECONDS_A_PARAMETER = 17 / 135e6
"""Loading quantized weights, unpacking and writing them, start included; 16 to 28 s for 135M."""
EXPORT_SECONDS_A_PARAMETER = 20 / 135e6
"""int8 files for OpenVINO: 20 s for 135M, the libraries' start included."""
DOWNLOAD_BYTES_A_SECOND = 10e6
"""Speed of a usual connection; a cached file takes no time."""
PAGE_SECONDS = {"html": 0.004, "pdf": 0.008, "docx": 0.02}
"""Seconds to read one file of these types; rows of tables take ROW_SECONDS. Measured on Local Lens except for docx: 63 short pages, 32
one-page flyers and 1,736 rows in 0.5 to 0.8 s."""
ROW_SECONDS = 2e-5
CURATE_SECONDS_A_CHARACTER = 3e-6
"""Repair, language and personal data; two thirds of it are for finding names. Local Lens, 0.7 million characters: 1.6 to 1.8 s."""
TEMPLATE_TOKENS, ANSWER_TOKENS = 30, 2
"""Tokens that a chat template adds to an input (roles, turn marks, a default system text) and to an answer (its end of turn)."""
FRAMEWORK_BYTES, LIGHT_BYTES = 1.2e9, 0.4e9
"""Memory of Python with torch and transformers loaded, and with the data libraries alone."""
SLOWER = {"dora": 1.35, "qlora": 1.5}
"""Time of a step over that of plain LoRA: DoRA normalizes every weight, QLoRA unpacks it (torchtune's and LLaMA-Factory's own figures)."""
CHECKPOINTING = 1.33
"""Forward, forward again and backward, over forward and backward."""
LOADS, SYSTEMS = 2, 3
"""Models that evaluate loads (base, tuned) and systems that generate (base, prompted, tuned); the aligned one is added."""
UNTUNED_LENGTH = 0.6
"""Length of an untuned model's answer over evaluate.decoding.max_new_tokens: 38 of 64 on E2E; some generate until they are cut."""


@dataclass(frozen=True, slots=True)
class DatasetSize:
    """Rows, documents, answers and characters of the declared sources, counted or extrapolated from a sample."""

    files: dict[str, int]
    """Number of files by type."""
    rows: int
    documents: int
    document_characters: int
    inputs: int
    """Examples after references of one input were merged."""
    input_characters: int
    answers: int
    answer_characters: int
    characters_a_token: float
    counted: bool
    """False where a sample was extrapolated."""


@dataclass(frozen=True, slots=True)
class ModelShape:
    """Size of the base model, from which tokens are converted to time and memory."""

    parameters: int
    layers: int
    source: str
    """Where the shape is from: model_spec.json, the model's folder, or the number of parameters in its name."""
    download_bytes: int
    fit_bytes: int
    """Memory of a LoRA step with these settings, weights included."""


@dataclass(frozen=True, slots=True)
class Machine:
    """Speed of this machine, by which tokens are converted to minutes."""

    speed: Speed
    source: str
    """Where the speed is from: measured now, or assumed."""
    train_tokens_a_second: float | None
    """Speed of the last sft run with this model, time of validation included; None where there is none."""
    seconds: dict[str, float]
    """Seconds of each stage's last run with this model; none of a stage that was switched off then."""


@dataclass(frozen=True, slots=True)
class StageCost:
    """Estimated tokens, memory and minutes of one stage: a row of ``tunectl estimate``."""

    stage: str
    tokens: int | None
    """Tokens read or generated by the model; None for stages without a model."""
    memory_bytes: int
    """Peak memory in bytes."""
    minutes: float
    basis: str
    """Basis of the estimate, as text."""


def estimate(
    root: TunectlConfig, amounts: DatasetSize, size: ModelShape, machine: Machine, *, safety_questions: int
) -> list[StageCost]:
    """Return one estimate per stage, in the order of the pipeline; ``safety_questions`` is the number of safety prompts that evaluate asks."""
    return [
        _estimate_model(root, size),
        _estimate_ingest(amounts),
        StageCost("feedback", None, int(LIGHT_BYTES), LIGHT_SECONDS / 60, "what inference_log/window.json names"),
        _estimate_curate(root, amounts),
        _estimate_split(amounts),
        _estimate_cpt(root, amounts, size, machine),
        _estimate_sft(root, amounts, size, machine),
        _estimate_preferences(root, amounts, size, machine),
        _estimate_reward(root, amounts, size, machine),
        _estimate_align(root, amounts, size, machine),
        _estimate_evaluate(root, amounts, size, machine, safety_questions),
        _estimate_package(root, amounts, size, machine),
    ]


def train_speed(root: TunectlConfig, size: ModelShape, machine: Machine) -> float:
    """Return the training speed in tokens per second (prompt and answer): that of the last run, else estimated from one timed layer."""
    if machine.train_tokens_a_second is not None:
        return machine.train_tokens_a_second
    slower = SLOWER.get(root.sft.method, 1.0) * (CHECKPOINTING if root.hardware.gradient_checkpointing else 1.0)
    # About half of the tokens are answers; the output layer runs on those alone, forward and backward.
    a_token = size.layers * machine.speed.learn * LEARN_FACTOR * slower + 1.5 * machine.speed.head
    return 1 / a_token


def prefill_seconds(tokens: float, size: ModelShape, machine: Machine) -> float:
    """Return the seconds to process ``tokens`` tokens of prompts or references, without generating any (prefill)."""
    return tokens * size.layers * machine.speed.read * READ_FACTOR


def decode_seconds(rows: float, new: float, batch: int, size: ModelShape, machine: Machine) -> float:
    """Return the seconds to generate ``new`` tokens in each of ``rows`` answers, ``batch`` answers at a time.

    The time of a step is linear in the number of rows, fitted to two timed batches.
    """
    if not rows:
        return 0.0
    speed = machine.speed
    a_row = max(0.0, (speed.write_batch - speed.write_one) / max(1, speed.batch - 1))
    together = min(rows, batch)
    step = (speed.write_one + a_row * (together - 1)) * size.layers * WRITE_FACTOR + together * speed.head
    return math.ceil(rows / batch) * new * step


def _estimate_model(root: TunectlConfig, size: ModelShape) -> StageCost:
    source = root.model.source
    seconds = LIGHT_SECONDS + (0 if source.method == "folder" else size.download_bytes / DOWNLOAD_BYTES_A_SECOND)
    if source.method == "wheel":
        seconds += GGUF_SECONDS_A_PARAMETER * size.parameters
    basis = f"{size.parameters / 1e6:.0f}M parameters ({size.source}); a download in cache takes no time"
    return StageCost("model", None, int(FRAMEWORK_BYTES + 6 * size.parameters), seconds / 60, basis)


def _estimate_ingest(amounts: DatasetSize) -> StageCost:
    pages = sum(PAGE_SECONDS.get(kind, 0.002) * count for kind, count in amounts.files.items())
    seconds = LIGHT_SECONDS + pages + amounts.rows * ROW_SECONDS
    files = sum(amounts.files.values())
    source = "counted" if amounts.counted else "from a sample"
    basis = f"{files} files, {amounts.rows} rows ({source}): {amounts.documents} documents, {amounts.answers} answers"
    return StageCost("ingest", None, int(LIGHT_BYTES), seconds / 60, basis)


def _estimate_curate(root: TunectlConfig, amounts: DatasetSize) -> StageCost:
    characters = amounts.document_characters + amounts.input_characters + amounts.answer_characters
    share, note = (1.0, ", personal data looked for") if root.curate.pii is not None else (1 / 3, "")
    seconds = LIGHT_SECONDS + share * CURATE_SECONDS_A_CHARACTER * characters
    memory = LIGHT_BYTES + curation_rates.estimate_memory(amounts.documents + amounts.inputs, characters)
    return StageCost("curate", None, int(memory), seconds / 60, f"{characters / 1e6:.1f}M characters{note}")


def _estimate_split(amounts: DatasetSize) -> StageCost:
    seconds = LIGHT_SECONDS + amounts.answers * 1e-4
    characters = amounts.document_characters + amounts.input_characters + amounts.answer_characters
    return StageCost("split", None, int(LIGHT_BYTES + 12 * characters), seconds / 60, f"{amounts.inputs} inputs")


def _estimate_cpt(root: TunectlConfig, amounts: DatasetSize, size: ModelShape, machine: Machine) -> StageCost:
    cpt = root.cpt.root
    if not isinstance(cpt, LoraCpt):
        return StageCost("cpt", 0, int(LIGHT_BYTES), LIGHT_SECONDS / 60, "switched off")
    tokens = int(amounts.document_characters / amounts.characters_a_token * cpt.epochs)
    speed = train_speed(root, size, machine)
    basis = f"{cpt.epochs:g} epochs at {speed:.0f} tokens/s"
    return StageCost("cpt", tokens, _fit_bytes(size), (START_SECONDS * 2 + tokens / speed) / 60, basis)


def sft_tokens(root: TunectlConfig, amounts: DatasetSize) -> tuple[int, int]:
    """Return (tokens that sft trains on in all epochs, tokens that it reads in validation): prompt and answer together, without padding."""
    prompts = amounts.input_characters / amounts.characters_a_token + TEMPLATE_TOKENS * amounts.inputs
    answers = amounts.answer_characters / amounts.characters_a_token + ANSWER_TOKENS * amounts.answers
    if not root.sft.prefix_sharing and amounts.inputs:
        prompts *= amounts.answers / amounts.inputs
    shares, epochs = root.split.shares, root.sft.epochs
    learned = (prompts + answers) * shares.train * epochs
    inputs = amounts.inputs * shares.validation
    measured = min(1.0, (root.sft.max_eval_samples or inputs) / inputs) if inputs else 0.0
    validated = (prompts + answers) * shares.validation * measured * root.sft.evals_per_epoch * epochs
    return int(learned), int(validated)


def _estimate_sft(root: TunectlConfig, amounts: DatasetSize, size: ModelShape, machine: Machine) -> StageCost:
    learned, validated = sft_tokens(root, amounts)
    speed = train_speed(root, size, machine)
    seconds = START_SECONDS + learned / speed
    if machine.train_tokens_a_second is None:  # a speed that was reached counts the time of validation too
        seconds += prefill_seconds(validated, size, machine)
    stop = ", less where early stopping ends it" if root.sft.early_stopping is not None else ""
    source = "reached last time" if machine.train_tokens_a_second is not None else machine.source
    basis = f"{root.sft.epochs:g} epochs at {speed:.0f} tokens/s ({source}){stop}"
    return StageCost("sft", learned + validated, _fit_bytes(size), seconds / 60, basis)


def _estimate_preferences(root: TunectlConfig, amounts: DatasetSize, size: ModelShape, machine: Machine) -> StageCost:
    cfg = root.preferences.root
    simulated = cfg.simulated if isinstance(cfg, PreferencesConfig) else None
    if simulated is None:
        basis = "declared sources and collected judgments" if isinstance(cfg, PreferencesConfig) else "switched off"
        return StageCost("preferences", None, int(LIGHT_BYTES), LIGHT_SECONDS / 60, basis)
    most = int(amounts.inputs * root.split.shares.train) + 1
    inputs = min(simulated.inputs.train, most) + simulated.inputs.validation + simulated.inputs.test
    prompt, answer = _lengths(amounts)
    answer, rows = min(answer, simulated.decoding.max_new_tokens), inputs * simulated.answers
    seconds = START_SECONDS + prefill_seconds(rows * prompt, size, machine)
    seconds += decode_seconds(rows, answer, root.hardware.generate_batch, size, machine)
    memory = (
        FRAMEWORK_BYTES + 2 * size.parameters + root.hardware.generate_batch * (prompt + answer) * size.layers * 2e3
    )
    basis = f"{simulated.answers} sampled answers to each of {inputs} inputs"
    return StageCost("preferences", int(rows * (prompt + answer)), int(memory), seconds / 60, basis)


def estimate_pairs(root: TunectlConfig, amounts: DatasetSize) -> tuple[int, int, float, str]:
    """Return (training pairs, validation pairs, tokens per pair, description); with a simulated annotator, inputs with all answers are counted, not pairs."""
    prompt, answer = _lengths(amounts)
    cfg = root.preferences.root
    if isinstance(cfg, PreferencesConfig) and cfg.contrast is not None:
        attributes, result = cfg.contrast.attributes, cfg.contrast.max_pairs
        masked_share = attributes.masked_attribute_share if isinstance(attributes, BracketedAttributes) else 0.0
        tokens = 2 * answer + prompt * (masked_share + (1 - masked_share) / cfg.contrast.max_pairs_per_input)
        return result.train, result.validation, tokens, "pairs made of references"
    if isinstance(cfg, PreferencesConfig) and cfg.simulated is not None:
        tokens = prompt + cfg.simulated.answers * min(answer, cfg.simulated.decoding.max_new_tokens)
        return cfg.simulated.inputs.train, cfg.simulated.inputs.validation, tokens, "inputs with all their answers"
    return 1000, 200, prompt + 2 * answer, "pairs, assumed: people's are counted by preferences"


def _lengths(amounts: DatasetSize) -> tuple[float, float]:
    """Return mean tokens of an input and of an answer, with those that the template adds."""
    prompt = TEMPLATE_TOKENS + amounts.input_characters / max(amounts.inputs, 1) / amounts.characters_a_token
    answer = ANSWER_TOKENS + amounts.answer_characters / max(amounts.answers, 1) / amounts.characters_a_token
    return prompt, answer


def _estimate_reward(root: TunectlConfig, amounts: DatasetSize, size: ModelShape, machine: Machine) -> StageCost:
    """Estimate the reward stage. The number of pairs is known where they are made from references; else a thousand are assumed in a first run."""
    reward = root.reward.root
    if not isinstance(reward, RewardModelConfig):
        return StageCost("reward", 0, int(LIGHT_BYTES), LIGHT_SECONDS / 60, "switched off")
    models = reward.ensemble_size + (reward.evaluation_model is not None)
    if "reward" in machine.seconds:
        seconds, basis = machine.seconds["reward"], "as long as last time"
        return StageCost("reward", None, _fit_bytes(size), seconds / 60, f"{models} models, {basis}")
    train, held_out, tokens, what = estimate_pairs(root, amounts)
    train, held_out = (
        min(train, reward.max_pairs.train or train),
        min(held_out, reward.max_pairs.validation or held_out),
    )
    share = reward.evaluation_model.share if reward.evaluation_model is not None else 0.0
    learned = tokens * train * reward.epochs * (reward.ensemble_size * (1 - share) + share)
    evaluated = tokens * held_out * models * (reward.evals_per_epoch * reward.epochs + 3)  # before, after, and test
    seconds = (models + 1) * START_SECONDS + learned / train_speed(root, size, machine)
    seconds += prefill_seconds(evaluated, size, machine)
    basis = f"{models} models, {train} {what}"
    return StageCost("reward", int(learned + evaluated), _fit_bytes(size), seconds / 60, basis)


def _estimate_align(root: TunectlConfig, amounts: DatasetSize, size: ModelShape, machine: Machine) -> StageCost:
    """Estimate the align stage: a step generates answers, scores them, reads them with sft, and trains; a validation generates, scores and reads twice."""
    align = root.align.root
    if isinstance(align, NoAlign):
        return StageCost("align", 0, int(LIGHT_BYTES), LIGHT_SECONDS / 60, "switched off")
    prompt, answer = _lengths(amounts)
    answer = min(answer, align.max_new_tokens)
    batch, validation = root.hardware.generate_batch, align.validation
    if not isinstance(align, Rloo | Grpo):
        if "align" in machine.seconds:
            return StageCost("align", None, _fit_bytes(size), machine.seconds["align"] / 60, "as long as last time")
        count, _, tokens, what = estimate_pairs(root, amounts)
        seconds = START_SECONDS + 1.5 * count * tokens * align.epochs / train_speed(root, size, machine)
        return StageCost("align", None, _fit_bytes(size), seconds / 60, f"for {count:,} {what}")
    rows = align.prompts_per_step * align.num_generations
    tokens = align.prompts_per_step * prompt + rows * answer
    step = decode_seconds(rows, answer, 2 * batch, size, machine) + 2 * prefill_seconds(tokens, size, machine)
    step += tokens / train_speed(root, size, machine)
    validation_seconds = decode_seconds(validation.inputs, answer, batch, size, machine)
    validation_seconds += 3 * prefill_seconds(validation.inputs * (prompt + answer), size, machine)
    seconds = START_SECONDS + align.steps * step + (2 + align.steps // validation.eval_steps) * validation_seconds
    basis = f"{align.steps} steps of {rows} answers, {step:.0f} s each, {machine.source}; less where it stops early"
    return StageCost("align", int(align.steps * tokens), _fit_bytes(size), seconds / 60, basis)


def _fit_bytes(size: ModelShape) -> int:
    return int(FRAMEWORK_BYTES + size.fit_bytes)


def _estimate_evaluate(
    root: TunectlConfig, amounts: DatasetSize, size: ModelShape, machine: Machine, safety_questions: int
) -> StageCost:
    cfg, decoding = root.evaluate, root.evaluate.decoding
    beams = decoding.beams if isinstance(decoding, BeamSearch) else 1
    prompt, answer = _lengths(amounts)
    untuned = max(UNTUNED_LENGTH * decoding.max_new_tokens, min(answer, decoding.max_new_tokens))
    tuned = min(answer, decoding.max_new_tokens)
    inputs = max(1, int(amounts.inputs * root.split.shares.test))
    inputs = min(inputs, cfg.max_inputs) if cfg.max_inputs is not None else inputs
    aligned = int(root.align.root.method != "none")
    loads, systems = LOADS + aligned, SYSTEMS + aligned
    # (answers, tokens read a prompt, new tokens an answer): base, best prompt, tuned and aligned, then the search.
    example = prompt + answer
    shots = max(cfg.prompts.shots) if cfg.prompts is not None else 0
    work = [(inputs, prompt, untuned), (inputs, prompt + shots * example, tuned)]
    work += [(inputs, prompt, tuned)] * (1 + aligned)
    spent = 0.0
    for count, shared in _list_prompt_candidates(root):
        searched_inputs = min(cfg.prompts.inputs, inputs) if cfg.prompts is not None else 0
        spent += searched_inputs * (prompt + count * example + decoding.max_new_tokens)
        if cfg.prompts is not None and spent <= cfg.prompts.max_tokens:
            # Examples that are the same for all inputs are read once.
            work.append((searched_inputs, prompt + count * example / (searched_inputs if shared else 1), untuned))
    if cfg.safety is not None:
        questions = safety_questions + len(cfg.safety.planted_secrets)
        work += [(questions, TEMPLATE_TOKENS + 15, cfg.safety.max_new_tokens)] * loads
    tokens_in = sum(rows * size_in for rows, size_in, _ in work) + systems * inputs * cfg.max_references * (answer + 2)
    tokens_in += 2 * aligned * inputs * example  # the reward judge reads the answers of tuned and aligned
    tokens_out = sum(rows * size_out for rows, _, size_out in work)
    batch = max(1, root.hardware.generate_batch // beams)
    seconds = loads * START_SECONDS + prefill_seconds(tokens_in, size, machine)
    seconds += sum(decode_seconds(rows * beams, new, batch * beams, size, machine) for rows, _, new in work)
    seconds += decode_seconds(systems * cfg.latency_inputs, untuned, 1, size, machine)
    cache = root.hardware.generate_batch * (prompt + untuned) * size.layers * 2e3
    memory = FRAMEWORK_BYTES + 2 * size.parameters + cache
    basis = f"{inputs} test inputs, {len(work)} rounds of answers, {root.hardware.generate_batch} at a time"
    return StageCost("evaluate", int(tokens_in + tokens_out), int(memory), seconds / 60, basis)


def _estimate_package(root: TunectlConfig, amounts: DatasetSize, size: ModelShape, machine: Machine) -> StageCost:
    """Estimate the package stage: two models generate and read the probes; the engine answers the evaluation and the reference."""
    cfg = root.package.root
    if isinstance(cfg, NoPackage):
        return StageCost("package", None, int(LIGHT_BYTES), LIGHT_SECONDS / 60, "switched off")
    prompt, answer = _lengths(amounts)
    tests = min(root.evaluate.max_inputs or amounts.inputs, max(1, int(amounts.inputs * root.split.shares.test)))
    prompts = (
        (tests if cfg.parity.inputs is None else cfg.parity.inputs) + cfg.reference_responses + 2 * cfg.parity.prompts
    )
    seconds = 5 * START_SECONDS + EXPORT_SECONDS_A_PARAMETER * size.parameters
    tokens, memory = int(prompts * (prompt + answer)), int(FRAMEWORK_BYTES + 8 * size.parameters)
    seconds += prefill_seconds(tokens, size, machine)
    seconds += decode_seconds(prompts, answer, root.hardware.generate_batch, size, machine)
    basis = f"export for {cfg.engine}, {cfg.weights}; {int(prompts)} answers of proof and reference"
    return StageCost("package", tokens, memory, seconds / 60, basis)


def _list_prompt_candidates(root: TunectlConfig) -> list[tuple[int, bool]]:
    """Return the number of worked examples of each prompt in the search, and whether all inputs get the same ones."""
    prompts = root.evaluate.prompts
    if prompts is None:
        return []
    costs = [
        (count, selection == "random")
        for count in sorted(prompts.shots)
        for selection in (prompts.selection if count else ("random",))
    ]
    return costs * len(prompts.systems)
