"""Rows of judged answers: the two answers of a pair, or the labeled answers of one input, side by side after their prompt.

Only the assistant's text after the prompt is trained on. The prompt is the common beginning of the answers, so it is read once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple, TypeVar

from msgspec.structs import replace

from tunectl.artifacts.records import Example, LabeledCompletion, Message, PreferencePair, RejectedRow, truncate
from tunectl.artifacts.reject_reasons import RejectReason
from tunectl.artifacts.row_counts import RowCounter
from tunectl.chat import tool_calls
from tunectl.chat.loss_mask import LossMasker, TokenSpan, mask_each
from tunectl.config.schema.align import Dpo, Kto
from tunectl.core import logging_setup
from tunectl.core.errors import DataError
from tunectl.training.prefix_sharing import ROW_TOKENS, PackedRow

_log = logging_setup.get_logger(__name__)
R = TypeVar("R", PreferencePair, LabeledCompletion)
CHUNK = 256
"""Pairs or labeled answers that are tokenized together."""
_NO_ANSWER: tuple[RejectReason, str] = "no_answer", "it does not end with a turn of the assistant"


@dataclass(frozen=True, slots=True)
class LabeledCompletions:
    """Answers to one input as one row of tokens, each labeled good or bad."""

    row: PackedRow
    """The prompt, never trained on, and the answers; for a pair: chosen, then rejected."""
    good: tuple[bool, ...]
    """Labels, one per answer."""
    margin: float | None
    """Margin of a pair, where the data has one."""


class PreferenceSplit(NamedTuple):
    """Preference pairs and labeled answers of one split (train or validation)."""

    pairs: Sequence[PreferencePair]
    marks: Sequence[LabeledCompletion]


def build_rows(
    settings: Dpo | Kto, train: PreferenceSplit, validation: PreferenceSplit, masker: LossMasker, tally: RowCounter
) -> tuple[list[LabeledCompletions], list[LabeledCompletions]]:
    """Return the training records and the held-out records; the latter may be empty.

    dpo takes pairs. kto takes labeled answers, and pairs as a good and a bad answer each.
    Raises  DataError where there is nothing to train on, or kto would get only good or only bad answers.
    """
    is_kto = isinstance(settings, Kto)
    _refuse_none(settings, train)
    if is_kto:
        _log.info(
            "align: %d labeled answers, and %d pairs as a good and a bad answer each",
            len(train.marks),
            len(train.pairs),
        )

    def rows(part: PreferenceSplit) -> list[LabeledCompletions]:
        marks = part.marks if is_kto else ()
        return [
            *rows_of_labeled_answers(marks, masker, max_tokens=settings.max_length, tally=tally),
            *rows_of_pairs(part.pairs, masker, max_tokens=settings.max_length, tally=tally),
        ]

    result = rows(train)
    if not result:
        first = next(iter(tally.rejects))
        raise DataError(
            f"align: none of the {tally.rows_in} {'judgments' if is_kto else 'pairs'} of the training part can be learned "
            f"from; the first is rejected as {first.reason} ({first.detail})",
            hint=f"if they are too long, raise align.max_length (now {settings.max_length}); else add other judgments to preferences.sources",
        )
    _refuse_one_kind(result)
    return result, rows(validation)


def _refuse_none(settings: Dpo | Kto, train: PreferenceSplit) -> None:
    if train.pairs or (isinstance(settings, Kto) and train.marks):
        return
    missing = "neither labeled answers nor pairs" if isinstance(settings, Kto) else "no pairs"
    raise DataError(
        f"align: {settings.method} learns from collected judgments, and preferences has {missing} in its training part",
        hint="collect some with: tunectl annotate, or declare a file in preferences.sources; or use: align=none",
    )


def _refuse_one_kind(completions: Sequence[LabeledCompletions]) -> None:
    kinds = [good for completion in completions for good in completion.good]
    if len(set(kinds)) > 1:
        return
    only, other = ("good", "bad") if kinds[0] else ("bad", "good")
    raise DataError(
        f"align: kto learns from good and bad answers, and all {len(kinds)} labeled answers of the training part are {only}",
        hint=f"add answers labeled {other} to preferences.sources, or add pairs and use: align=dpo",
    )


def rows_of_pairs(
    pairs: Sequence[PreferencePair], masker: LossMasker, *, max_tokens: int, tally: RowCounter
) -> list[LabeledCompletions]:
    """Return one row of tokens per pair; ``tally`` counts each pair once.

    Rejected are pairs with an answer that is ``no_answer`` (its last turn is not the assistant's), that is ``too_long`` with
    its prompt, that has ``nothing_trained``, that ``template_refuses``, or that is the ``same_answer`` once the template has trimmed both.
    """
    result = []
    for pair, (chosen, rejected) in _read(pairs, lambda pair: (pair.chosen, pair.rejected), masker, max_tokens, tally):
        if chosen.ids == rejected.ids:
            reason = "the chat template makes the same tokens of both answers"
            tally.reject(
                RejectedRow(pair.annotations[0].source, "same_answer", reason, truncate(pair.chosen[-1].content))
            )
            continue
        tally.keep()
        result.append(LabeledCompletions(_row((chosen, rejected)), (True, False), pair.margin))
    return result


def rows_of_labeled_answers(
    marks: Sequence[LabeledCompletion], masker: LossMasker, *, max_tokens: int, tally: RowCounter
) -> list[LabeledCompletions]:
    """Return the labeled answers of one input in one row, or in several where they are long; ``tally`` counts each answer.

    Rejected are answers that are ``no_answer``, ``too_long`` with their prompt, have ``nothing_trained``, or that ``template_refuses``.
    """
    groups: dict[str, list[tuple[TokenSpan, bool]]] = {}
    for mark, (piece,) in _read(marks, lambda mark: (mark.completion,), masker, max_tokens, tally):
        tally.keep()
        groups.setdefault(mark.prompt, []).append((piece, mark.label))
    return [completions for group in groups.values() for completions in _side_by_side(group)]


def _read(
    records: Sequence[R],
    sides: Callable[[R], tuple[Sequence[Message], ...]],
    masker: LossMasker,
    max_tokens: int,
    tally: RowCounter,
) -> Iterator[tuple[R, tuple[TokenSpan, ...]]]:
    """Yield records with the whole sequence of each side; those that do not fit are rejected."""
    rest = iter(records)
    while chunk := list(islice(rest, CHUNK)):
        tally.read(len(chunk))
        sound = [record for record in chunk if all(side and side[-1].role == "assistant" for side in sides(record))]
        examples = [_example(record, side) for record in sound for side in sides(record)]
        pieces = iter(_pieces(masker, examples, max_tokens))
        tokenized = {id(record): tuple(next(pieces) for _ in sides(record)) for record in sound}
        for record in chunk:
            sequences = tokenized.get(id(record), ())
            result = tuple(piece for piece in sequences if isinstance(piece, TokenSpan))
            errors = [piece for piece in sequences if isinstance(piece, DataError)]
            reason: tuple[RejectReason, str] | None = _NO_ANSWER
            if sequences:
                reason = ("template_refuses", errors[0].message) if errors else _refusal(result, max_tokens)
            if reason is None:
                yield record, result
            else:
                last = next((side[-1].content for side in sides(record) if side), "")
                tally.reject(RejectedRow(record.annotations[0].source, *reason, truncate(last)))


def _side_by_side(group: list[tuple[TokenSpan, bool]]) -> Iterator[LabeledCompletions]:
    """Distribute the answers of one input evenly to as many rows as their length needs."""
    prompt = len(_row([piece for piece, _ in group]).prompt.ids)
    total = sum(len(piece.ids) - prompt for piece, _ in group)
    count = min(len(group), -(-total // max(1, ROW_TOKENS - prompt)))
    for start in range(max(1, count)):
        some = group[start :: max(1, count)]
        yield LabeledCompletions(_row([piece for piece, _ in some]), tuple(good for _, good in some), None)


def kto_mismatched_pairs(rows: Sequence[PackedRow]) -> list[PackedRow]:
    """Return each row's prompt with the answers of the last row before it that has another prompt (before the first comes the last).

    KTO estimates its KL on answers that do not belong to their prompts (Ethayarajh et al., arXiv 2402.01306, section 4.1).
    """
    result = []
    for number, row in enumerate(rows):
        before = (rows[number - back] for back in range(1, len(rows)))
        other = next((each for each in before if each.prompt.ids != row.prompt.ids), rows[number - 1])
        result.append(PackedRow(row.prompt, other.branches, row.weight))
    return result


def _example(record: PreferencePair | LabeledCompletion, answer: Sequence[Message]) -> Example:
    """Return one answer as an example: of the turns before the final one, only the answer's own are trained on."""
    before = [replace(message, train=False) for message in record.messages]
    between = [replace(message, train=message.role == "assistant") for message in answer[:-1]]
    source = record.annotations[0].source
    final = tool_calls.to_answer(answer[-1], source)
    return Example(record.id, source, messages=[*before, *between], answers=[final], tools=record.tools)


def _pieces(masker: LossMasker, examples: Sequence[Example], max_tokens: int) -> list[TokenSpan | DataError]:
    """Return whole sequences, or why the template does not render one."""
    return [
        masked
        if isinstance(masked, DataError)
        else TokenSpan(masked.prompt.ids + masked.answers[0].ids, masked.prompt.trained + masked.answers[0].trained)
        for masked in mask_each(masker, examples, max_tokens=max_tokens)
    ]


def _refusal(pieces: Sequence[TokenSpan], max_tokens: int) -> tuple[RejectReason, str] | None:
    length = max(len(piece.ids) for piece in pieces)
    if length > max_tokens:
        return "too_long", f"{length} tokens; the limit is {max_tokens}"
    if not all(any(piece.trained[1:]) for piece in pieces):
        return "nothing_trained", "no token of it is learned from"
    return None


def _row(pieces: Sequence[TokenSpan]) -> PackedRow:
    """Pack answers into one row; their common tokens before the first trained one are its prompt."""
    first = pieces[0]
    most = min(piece.trained.index(True) for piece in pieces)
    same = (index for index in range(most) if any(piece.ids[index] != first.ids[index] for piece in pieces[1:]))
    cut = next(same, most)
    branches = tuple(TokenSpan(piece.ids[cut:], piece.trained[cut:]) for piece in pieces)
    return PackedRow(TokenSpan(first.ids[:cut], [False] * cut), branches, 1.0)
