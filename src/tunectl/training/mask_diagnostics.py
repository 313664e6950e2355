"""Check the training data: which tokens are trained, and common mistakes."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct, field

from tunectl.artifacts.records import Example
from tunectl.chat.loss_mask import TokenizedExample, TokenSpan
from tunectl.chat.model_spec import ModelSpec
from tunectl.chat.tokenizer import Tokenizer
from tunectl.core.errors import DataError
from tunectl.training import prefix_sharing
from tunectl.training.sft.report import TokenView, example_tokens

ExampleSpans = Sequence[tuple[TokenizedExample, TokenSpan]]


class DiagnosticCheck(Struct, frozen=True):
    """Result of one check of the loss mask: its name, whether it passed, and a sentence for people."""

    name: str
    ok: bool
    text: str
    """The finding, with numbers and the location of the first case."""


class DataDiagnostics(Struct, frozen=True):
    """Result of ``tunectl data inspect``: token counts of the training data, the findings, and one example token by token."""

    examples: int
    answers: int
    prompt_tokens: float
    """Mean tokens of a prompt."""
    answer_tokens: float
    """Mean tokens of an answer."""
    longest: int
    """Tokens of the longest prompt with one answer."""
    trained_share: float
    """Trained tokens over all tokens; the prompt is counted once per answer."""
    system: str | None
    findings: list[DiagnosticCheck]
    shown: list[TokenView]
    """The tokens of one example as the training collator arranges them."""
    source: str = field(name="place")
    """File and row of that example."""

    @property
    def healthy(self) -> bool:
        """Whether every check of the loss mask passed."""
        return all(finding.ok for finding in self.findings)


def run_diagnostics(
    masked: Sequence[TokenizedExample],
    tokenizer: Tokenizer,
    contract: ModelSpec,
    *,
    max_tokens: int,
    max_share: float,
    system: str | None,
    which: int,
) -> DataDiagnostics:
    """Check the loss masks of all examples; return the diagnostics, with the tokens of example ``which`` (0-based).

    ``contract`` is the base model's spec, with its end-of-turn and BOS tokens. ``max_tokens`` is the longest prompt with answer that is
    trained; ``max_share`` the share of longer ones that is allowed. ``system`` is only shown.
    """
    answers = [(item, answer) for item in masked for answer in item.answers]
    lengths = [len(item.prompt.ids) + len(answer.ids) for item, answer in answers]
    trained = sum(sum(item.prompt.trained) + sum(answer.trained) for item, answer in answers)
    example = masked[which]
    row = prefix_sharing.pack_example(example, share=False, limit=1)[0]
    findings = [
        _check_trained(answers),
        _check_end_of_turn(answers, contract),
        _check_double_bos(answers, contract),
        _check_length(answers, lengths, max_tokens, max_share),
    ]
    return DataDiagnostics(
        examples=len(masked),
        answers=len(answers),
        prompt_tokens=round(sum(len(item.prompt.ids) for item, _ in answers) / len(answers), 1),
        answer_tokens=round(sum(len(answer.ids) for _, answer in answers) / len(answers), 1),
        longest=max(lengths),
        trained_share=round(trained / sum(lengths), 4),
        system=system,
        findings=findings,
        shown=example_tokens(row, tokenizer),
        source=example.example.source.location,
    )


def check_rendered(refused: Sequence[tuple[Example, DataError]], total: int, share: float) -> DiagnosticCheck:
    """Return the check that the chat template renders the examples; ``refused`` are those of ``total`` that it does not.

    ``share`` is the share of them that is allowed.
    """
    name = "the chat template renders the conversations"
    if not refused:
        return DiagnosticCheck(name, ok=True, text="it refuses none")
    example, error = refused[0]
    text = f"{len(refused)} of {total} examples are refused and would be left out (the limit is {share:.0%}); the first is {example.source.location}: {error.message}"
    return DiagnosticCheck(name, ok=len(refused) <= share * total, text=text)


def _finding(
    name: str, bad: ExampleSpans, total: int, good: str, wrong: str, *, ok: bool | None = None
) -> DiagnosticCheck:
    if not bad:
        return DiagnosticCheck(name, ok=True, text=good)
    text = f"{len(bad)} of {total} answers {wrong}; the first is {bad[0][0].example.source.location}"
    return DiagnosticCheck(name, ok=False if ok is None else ok, text=text)


def _check_trained(answers: ExampleSpans) -> DiagnosticCheck:
    bad = [(item, answer) for item, answer in answers if not any(answer.trained) and not any(item.prompt.trained)]
    return _finding(
        "something is trained", bad, len(answers), "every answer has trained tokens", "have no trained token at all"
    )


def _check_end_of_turn(answers: ExampleSpans, contract: ModelSpec) -> DiagnosticCheck:
    """Check that the end of turn is trained: a model that never learns it does not stop. Segments and token rows declare themselves what is trained."""
    bad = []
    for item, answer in answers:
        if item.example.answers and any(answer.trained):
            last = max(index for index, flag in enumerate(answer.trained) if flag)
            if answer.ids[last] != contract.eot_token.id:
                bad.append((item, answer))
    end = contract.eot_token.text
    return _finding(
        "the end of turn is trained",
        bad,
        len(answers),
        f"every answer ends with {end}, and it is trained",
        f"do not train {end} at their end, so the model would not learn to stop",
    )


def _check_double_bos(answers: ExampleSpans, contract: ModelSpec) -> DiagnosticCheck:
    bad = []
    if contract.bos is not None:
        for item, answer in answers:
            if (item.prompt.ids + answer.ids)[:2] == [contract.bos.id] * 2:
                bad.append((item, answer))
    return _finding(
        "no doubled begin of text",
        bad,
        len(answers),
        "no row begins with two begin-of-text tokens",
        "begin with two begin-of-text tokens",
    )


def _check_length(answers: ExampleSpans, lengths: Sequence[int], limit: int, share: float) -> DiagnosticCheck:
    bad = [pair for pair, length in zip(answers, lengths, strict=True) if length > limit]
    ok = len(bad) <= share * len(answers)
    return _finding(
        "answers fit",
        bad,
        len(answers),
        f"every prompt with its answer fits sft.max_length = {limit}",
        f"are longer than sft.max_length = {limit} and would be left out (the limit is {share:.0%})",
        ok=ok,
    )
