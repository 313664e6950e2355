"""Prefix sharing: rows with one prompt and several of its answers.

Each answer attends to the prompt and to itself only, and its positions continue from the end of the prompt. So logits and
gradients equal those of separate rows, and the prompt is computed once instead of once per answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from tunectl.chat.loss_mask import TokenizedExample, TokenSpan

ROW_TOKENS = 384
"""Length up to which answers share a row: attention costs its square, and longer rows share hardly more."""


@dataclass(frozen=True, slots=True)
class PackedRow:
    """One row of a batch as tokens: a prompt and one or more of its answers (branches)."""

    prompt: TokenSpan
    branches: tuple[TokenSpan, ...]
    weight: float
    """Weight of each trained token in the loss."""
    unit: str = ""
    """In differentially private training: the person or source from which all answers of the row come."""

    @property
    def length(self) -> int:
        """Number of tokens that the model reads; the last token of a branch is only predicted."""
        return len(self.prompt.ids) + sum(len(branch.ids) - 1 for branch in self.branches)

    @property
    def target_tokens(self) -> int:
        """Number of tokens in the loss. A trained token of the prompt counts once per answer, as in separate rows."""
        return sum(self.prompt.trained[1:]) * len(self.branches) + sum(map(self._count_target_tokens, self.branches))

    @property
    def unshared_tokens(self) -> int:
        """Number of tokens that the same answers have in separate rows, the prompt repeated; other trainers count these."""
        return sum(len(self.prompt.ids) + len(branch.ids) for branch in self.branches)

    def _count_target_tokens(self, branch: TokenSpan) -> int:
        return sum(branch.trained if self.prompt.ids else branch.trained[1:])  # nothing predicts a first token


def pack_example(masked: TokenizedExample, *, share: bool, limit: int) -> list[PackedRow]:
    """Return the rows of one example; with ``share``, its answers share rows of up to ``limit`` tokens, else each has its own.

    Answers are spread evenly over the rows, so that the last row is not nearly empty.
    """
    base = PackedRow(masked.prompt, (), masked.example.weight)
    if not share or not masked.prompt.ids:
        return [replace(base, branches=(answer,)) for answer in masked.answers]
    room = max(1, limit - len(masked.prompt.ids))
    total = sum(len(answer.ids) for answer in masked.answers)
    count = min(len(masked.answers), -(-total // room))
    return [replace(base, branches=masked.answers[start::count]) for start in range(count)]


def one_answer_per_row(rows: Iterable[PackedRow]) -> list[PackedRow]:
    """Return the rows split so that each has one answer, with the prompt repeated."""
    return [replace(row, branches=(branch,)) for row in rows for branch in row.branches]


@dataclass(frozen=True, slots=True)
class PaddedBatch:
    """Several rows as plain lists, padded on the right to one length; trainers convert them to tensors.

    ``ids``, ``positions`` and ``branch`` are (rows, length); ``branch`` is 0 in the prompt, 1.. in answers, -1 in padding.
    ``sources`` are indices into the flattened (rows x length) hidden states that predict ``targets``, with ``weights``.
    """

    ids: list[list[int]]
    positions: list[list[int]]
    branch: list[list[int]]
    sources: list[int]
    targets: list[int]
    weights: list[float]

    @property
    def branched(self) -> bool:
        """Whether any row holds more than one answer, so that a mask is needed beyond the causal one."""
        return any(2 in row for row in self.branch)


def collate(rows: Sequence[PackedRow]) -> PaddedBatch:
    """Return ``rows`` padded to one rectangle, with positions, branches, and the targets of the loss."""
    width = max(row.length for row in rows)
    flat = PaddedBatch([], [], [], [], [], [])
    for number, row in enumerate(rows):
        _append_row(row, number * width, width, flat)
    return flat


def _append_row(row: PackedRow, start: int, width: int, flat: PaddedBatch) -> None:
    size = len(row.prompt.ids)
    ids, positions, branch = list(row.prompt.ids), list(range(size)), [0] * size
    for index in range(1, size):
        if row.prompt.trained[index]:
            # separate rows would predict this token once per answer
            _predict(flat, start + index - 1, row.prompt.ids[index], row.weight * len(row.branches))
    for number, piece in enumerate(row.branches, 1):
        offset = len(ids)
        for index, (token, trained) in enumerate(zip(piece.ids, piece.trained, strict=True)):
            source = offset + index - 1 if index else size - 1  # the prompt's end predicts every answer's first token
            if trained and source >= 0 and (index or size):
                _predict(flat, start + source, token, row.weight)
        # Nothing is predicted from an answer's last token, so it is not read; positions of each answer start after the prompt
        ids += piece.ids[:-1]
        positions += range(size, size + len(piece.ids) - 1)
        branch += [number] * (len(piece.ids) - 1)
    rest = width - len(ids)
    flat.ids.append(ids + [0] * rest)
    flat.positions.append(positions + [0] * rest)
    flat.branch.append(branch + [-1] * rest)


def _predict(flat: PaddedBatch, source: int, target: int, weight: float) -> None:
    flat.sources.append(source)
    flat.targets.append(target)
    flat.weights.append(weight)
