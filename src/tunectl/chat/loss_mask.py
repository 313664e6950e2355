"""Choose the tokens of an example that are trained on.

Only the assistant's turns are, including the token that ends them. Where a template marks generated text, the marks are used;
one without marks is rendered up to each turn, and what the turn adds belongs to it. Masks are by position and length, never by
token id: pad, end of text and end of turn may share one.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from tunectl.artifacts.records import Example, Message, ReferenceAnswer
from tunectl.chat import tool_calls
from tunectl.chat.literal_tokens import guard_parts
from tunectl.chat.template import Template, TemplateRefusedError
from tunectl.chat.tokenizer import Encoding, Tokenizer
from tunectl.core.errors import DataError

TrainOn = Literal["final_answer", "assistant"]
UNTRAINED = -100
"""Label of a pre-tokenized token that is not trained on."""


@dataclass(frozen=True, slots=True)
class TokenSpan:
    """Consecutive tokens, and whether each is trained on."""

    ids: list[int]
    trained: list[bool]


@dataclass(frozen=True, slots=True)
class TokenizedExample:
    """One example as tokens: the common beginning of its answers, and the rest of each answer.

    The whole sequence of answer ``i`` is ``prompt.ids + answers[i].ids``. Where the tokenizer joins the end of the prompt
    with the start of an answer, nothing is shared: the prompt is empty and each answer holds its whole sequence.
    """

    example: Example
    prompt: TokenSpan
    answers: tuple[TokenSpan, ...]


@dataclass(frozen=True, slots=True)
class _RenderedText:
    """One rendered sequence, the [start, end) characters that are trained on, and where the final answer starts."""

    text: str
    learned: list[tuple[int, int]]
    answer: int


class LossMasker:
    """Converts examples to tokens with a loss mask, many at a time."""

    def __init__(self, template: Template, tokenizer: Tokenizer, *, end_of_turn: int, train_on: TrainOn) -> None:
        """``end_of_turn`` is the id of the token that closes an answer; ``train_on`` decides for messages without a train flag."""
        self._template = template
        self._tokenizer = tokenizer
        self._end = end_of_turn
        self._train_on = train_on

    @property
    def vocabulary_size(self) -> int:
        """Number of token ids that there are: all are below it."""
        return self._tokenizer.size

    def mask(self, examples: Sequence[Example], *, max_tokens: int | None = None) -> list[TokenizedExample]:
        """Return the tokens of each example, in the same order.

        Where all answers of an example are longer than ``max_tokens`` with their prompt, the mask may leave out the turns before the
        answer, since without marks each of them costs a rendering of the conversation; the tokens are the same.

        Raises  DataError where the chat template renders the same turns differently with a further turn after them; shows both texts.
        """
        texts = [[] if example.tokens else self._texts(example) for example in examples]
        encoded = iter(self._tokenizer.encode([item.text for group in texts for item in group]))
        masked = []
        for example, group in zip(examples, texts, strict=True):
            if example.tokens is not None:
                trained = [label != UNTRAINED for label in example.tokens.labels]
                masked.append(
                    TokenizedExample(example, TokenSpan([], []), (TokenSpan(list(example.tokens.ids), trained),))
                )
                continue
            pieces = self._pieces(example, group, [next(encoded) for _ in group], max_tokens)
            masked.append(_split_shared_prefix(example, pieces))
        return masked

    def _texts(self, example: Example) -> list[_RenderedText]:
        if example.segments:
            return [_segments(example)]
        if self._template.marks_generation:
            return [self._render_with_generation_marks(example, answer) for answer in example.answers]
        return [self._render_answer(example, answer) for answer in example.answers]

    def _render_with_generation_marks(self, example: Example, answer: ReferenceAnswer) -> _RenderedText:
        """Use the parts that the template marks as generated: they are the assistant's turns, in order."""
        messages = [*example.messages, tool_calls.to_message(answer)]
        rendered = self._template.render_marked(messages, tools=example.tools)
        turns = [message for message in messages if message.role == "assistant"]
        if len(rendered.generated) != len(turns):
            raise DataError(
                f"{example.source.location}: the chat template marks {len(rendered.generated)} generated parts in a conversation "
                f"with {len(turns)} assistant turns",
                hint="in the chat template, put {% generation %} ... {% endgeneration %} around each assistant turn and its end token, or remove the marks",
            )
        is_learned = [self._learns(message, final=message is turns[-1]) for message in turns]
        spans = zip(turns, rendered.generated, is_learned, strict=True)
        learned = [
            part
            for turn, span, trained in spans
            if trained
            for part in _spans(self._template.special, example, turn, rendered.text, *span)
        ]
        return _RenderedText(rendered.text, learned, rendered.generated[-1][0])

    def _render_answer(self, example: Example, answer: ReferenceAnswer) -> _RenderedText:
        """Render the conversation up to the answer, and again with it: the difference belongs to the answer."""
        final = tool_calls.to_message(answer)
        opened, closed = self._turn(example, example.messages, final)
        learned = _spans(self._template.special, example, final, closed, len(opened), len(closed))
        return _RenderedText(closed, learned, len(opened))

    def _find_earlier_turns(self, example: Example) -> list[tuple[int, int]]:
        """Return the characters of the turns before the answer that are trained on, found as those of the answer are."""
        before: list[tuple[int, int]] = []
        for index, message in enumerate(example.messages):
            if message.role == "assistant" and self._learns(message, final=False):
                opened, closed = self._turn(example, example.messages[:index], message)
                before += _spans(self._template.special, example, message, closed, len(opened), len(closed))
        return before

    def _turn(self, example: Example, messages: Sequence[Message], turn: Message) -> tuple[str, str]:
        """Return the text before an assistant turn, and the text with it."""
        opened = self._template.render(messages, add_generation_prompt=True, tools=example.tools)
        closed = self._template.render([*messages, turn], tools=example.tools)
        if not closed.startswith(opened):
            index = next((i for i, (a, b) in enumerate(zip(opened, closed, strict=False)) if a != b), len(closed))
            raise DataError(
                f"{example.source.location}: the chat template renders the text before turn {len(messages) + 1} (assistant) in two "
                f"ways, which differ at character {index}\n"
                f"    before the answer: {_around(opened, index)}\n"
                f"    with the answer:   {_around(closed, index)}",
                hint="mark what is generated in the template: {% generation %} ... {% endgeneration %}",
            )
        return opened, closed

    def _learns(self, message: Message, *, final: bool) -> bool:
        if message.train is not None:
            return message.train
        return final or self._train_on == "assistant"

    def _pieces(
        self, example: Example, texts: Sequence[_RenderedText], encoded: Sequence[Encoding], max_tokens: int | None
    ) -> list[tuple[TokenSpan, int]]:
        """Return each text as tokens; the earlier turns of a template without marks are looked for only where a text fits."""
        pieces = [self._piece(text, item) for text, item in zip(texts, encoded, strict=True)]
        if example.segments or self._template.marks_generation:
            return pieces
        if max_tokens is not None and all(len(piece.ids) > max_tokens and any(piece.trained) for piece, _ in pieces):
            return pieces
        before = self._find_earlier_turns(example)
        if not before:
            return pieces
        whole = [replace(text, learned=[*before, *text.learned]) for text in texts]
        return [self._piece(text, item) for text, item in zip(whole, encoded, strict=True)]

    def _piece(self, text: _RenderedText, encoded: Encoding) -> tuple[TokenSpan, int]:
        """Return tokens with their mask, and the number of tokens before the answer."""
        trained = [False] * len(encoded.ids)
        order = sorted(range(len(encoded.ids)), key=lambda index: encoded.offsets[index][0])
        starts = [encoded.offsets[index][0] for index in order]
        for start, end in text.learned:
            near = order[bisect_left(starts, start) : bisect_left(starts, end)]
            inside = sorted(index for index in near if encoded.offsets[index][0] < encoded.offsets[index][1] <= end)
            if not self._template.marks_generation:
                inside = self._up_to_end(encoded.ids, inside)
            for index in inside:
                trained[index] = True
        last = max((index for index, flag in enumerate(trained) if flag), default=len(trained) - 1)
        parts = sum(1 for _, end in encoded.offsets if end <= text.answer)
        return TokenSpan(encoded.ids[: last + 1], trained[: last + 1]), min(parts, last)

    def _up_to_end(self, ids: list[int], inside: list[int]) -> list[int]:
        """Cut what a template writes after the end of a turn, such as a line break: the model does not generate it."""
        ends = [position for position, index in enumerate(inside) if ids[index] == self._end]
        return inside[: ends[-1] + 1] if ends else inside


def mask_each(
    masker: LossMasker, examples: Sequence[Example], *, max_tokens: int | None = None
) -> list[TokenizedExample | DataError]:
    """Return what ``mask`` returns of each example, or why the chat template refuses it: one row must not end a stage.

    Raises  DataError where the template itself is at fault, as ``mask``.
    """
    try:
        return [*masker.mask(examples, max_tokens=max_tokens)]
    except TemplateRefusedError as error:
        if len(examples) == 1:
            return [DataError(error.message, hint=error.hint)]  # without a traceback, which holds all that the call did
    half = len(examples) // 2
    return [
        masked
        for some in (examples[:half], examples[half:])
        for masked in mask_each(masker, some, max_tokens=max_tokens)
    ]


def _split_shared_prefix(example: Example, pieces: list[tuple[TokenSpan, int]]) -> TokenizedExample:
    """Split the common beginning of all sequences from their answers."""
    first, length = pieces[0]
    same = all(
        count == length
        and piece.ids[:length] == first.ids[:length]
        and piece.trained[:length] == first.trained[:length]
        for piece, count in pieces
    )
    cut = length if same else 0
    answers = tuple(TokenSpan(piece.ids[cut:], piece.trained[cut:]) for piece, _ in pieces)
    return TokenizedExample(example, TokenSpan(first.ids[:cut], first.trained[:cut]), answers)


def _spans(
    special: Sequence[str], example: Example, turn: Message, text: str, start: int, end: int
) -> list[tuple[int, int]]:
    """Return the trained characters of a turn at [start, end): all, or the parts that are flagged.

    What follows the last part, first of all the end of the turn, is trained with it.
    Raises  DataError where the template changes the text, so that the parts are not found again.
    """
    if not turn.parts:
        return [(start, end)]
    guarded_parts = guard_parts([part.text for part in turn.parts], special)
    joined = "".join(guarded_parts)
    inside = joined.strip()  # templates may trim
    offset = text.find(inside, start, end) - (len(joined) - len(joined.lstrip()))
    if text.find(inside, start, end) < 0:
        raise DataError(
            f"{example.source.location}: only some segments of this turn are trained, but the chat template changes the turn's "
            "text, so the segments cannot be located: "
            f"{_around(text, start)}",
            hint="give the row as segments (each with text and label), or set one train flag for the whole turn",
        )
    spans = []
    for part, guarded in zip(turn.parts, guarded_parts, strict=True):
        if part.train:
            spans.append((max(offset, start), min(offset + len(guarded), end)))
        offset += len(guarded)
    if turn.parts[-1].train:
        spans[-1] = (spans[-1][0], end)
    return spans


def _segments(example: Example) -> _RenderedText:
    learned = []
    position = 0
    for segment in example.segments:
        if segment.train:
            learned.append((position, position + len(segment.text)))
        position += len(segment.text)
    return _RenderedText("".join(segment.text for segment in example.segments), learned, 0)


def _around(text: str, index: int, width: int = 40) -> str:
    return repr(text[max(0, index - width) : index + width])
