"""Rows of pairs for a reward model: the answers of one prompt side by side, and which answer is better.

The common beginning of a row's answers, the prompt first, is read once. A reward is read at an answer's last token, its end
of turn. Rows drop the last token of an answer, because it predicts nothing: so one more token is added.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from math import sqrt

from tunectl.artifacts.records import Example, Message, PreferencePair, RejectedRow, truncate
from tunectl.artifacts.reject_reasons import RejectReason
from tunectl.artifacts.row_counts import RowCounter
from tunectl.chat import tool_calls
from tunectl.chat.loss_mask import LossMasker, TokenizedExample, TokenSpan, mask_each
from tunectl.core.errors import DataError
from tunectl.core.hashing import hash_to_bytes
from tunectl.training.prefix_sharing import ROW_TOKENS, PackedRow

CHUNK = 256
"""Pairs that are tokenized together."""
MAX_SHARED_TOKENS = 2 * ROW_TOKENS
"""Length up to which the pairs of a prompt share a row: where they are split, answers in both parts are read twice."""
FILLER_TOKEN = 0
"""Token that is added after the last token of an answer; its output is not used."""


@dataclass(frozen=True, slots=True)
class TokenizedPair:
    """A preference pair with the token ids of its two answers, each with the prompt before it."""

    pair: PreferencePair
    chosen: tuple[int, ...]
    rejected: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class PairIndex:
    """A preference pair as two indices into the answers of a PromptGroup."""

    chosen: int
    """Index of the better answer among the answers of the group."""
    rejected: int
    margin: float
    """0 where there is none, or margins are not used."""
    pair: int
    """Index of the pair in the list from which the groups were made."""


@dataclass(frozen=True, slots=True)
class PromptGroup:
    """All answers to one prompt that are read together, and the preference pairs among them."""

    rows: tuple[PackedRow, ...]
    """One row for all answers, or one row for each."""
    pairs: tuple[PairIndex, ...]

    @property
    def branches(self) -> tuple[TokenSpan, ...]:
        """The tokens of the answers; ``PairIndex`` counts them in this order."""
        return tuple(branch for row in self.rows for branch in row.branches)

    @property
    def length(self) -> int:
        """Number of tokens that the group takes in a batch as wide as its own longest row."""
        return len(self.rows) * max(row.length for row in self.rows)

    @property
    def tokens(self) -> int:
        """Number of tokens that the model reads."""
        return sum(row.length for row in self.rows)

    @property
    def unshared_tokens(self) -> int:
        """Number of tokens if each answer of every pair had its own copy of the prompt."""
        sizes = [len(row.prompt.ids) + len(branch.ids) - 1 for row in self.rows for branch in row.branches]
        return sum(sizes[pair.chosen] + sizes[pair.rejected] for pair in self.pairs)


def tokenize_pairs(
    pairs: Iterable[PreferencePair], masker: LossMasker, *, max_tokens: int, tally: RowCounter
) -> list[TokenizedPair]:
    """Return ``pairs`` as tokens; ``tally`` counts each pair once.

    Rejected are pairs with an answer that is ``too_long`` with its prompt, that is ``no_answer`` (its last turn is not the
    assistant's), that ``template_refuses``, or that is the ``same_answer`` once the template has trimmed both. Nothing is cut.
    """
    result = []
    rest = iter(pairs)
    while chunk := list(islice(rest, CHUNK)):
        tally.read(len(chunk))
        sound = [pair for pair in chunk if _ends_with_an_answer(pair, tally)]
        sides = [(pair, side) for pair in sound for side in (pair.chosen, pair.rejected)]
        sequences = _sequences(masker, sides, max_tokens)
        for number, pair in enumerate(sound):
            chosen, rejected = sequences[2 * number : 2 * number + 2]
            if isinstance(chosen, DataError):
                tally.reject(_reject(pair, "template_refuses", chosen.message))
                continue
            if isinstance(rejected, DataError):
                tally.reject(_reject(pair, "template_refuses", rejected.message))
                continue
            item = TokenizedPair(pair, chosen, rejected)
            if _fits(item, max_tokens, tally):
                tally.keep()
                result.append(item)
    return result


def _ends_with_an_answer(pair: PreferencePair, tally: RowCounter) -> bool:
    for side in (pair.chosen, pair.rejected):
        if not side or side[-1].role != "assistant":
            tally.reject(_reject(pair, "no_answer", "an answer does not end with a turn of the assistant"))
            return False
    return True


def _fits(item: TokenizedPair, max_tokens: int, tally: RowCounter) -> bool:
    longest = max(len(item.chosen), len(item.rejected))
    if longest > max_tokens:
        tally.reject(_reject(item.pair, "too_long", f"{longest} tokens; the limit is {max_tokens}"))
        return False
    if item.chosen == item.rejected:
        tally.reject(
            _reject(item.pair, "same_answer", "the chat template makes the same tokens of chosen and rejected")
        )
        return False
    return True


def _reject(pair: PreferencePair, reason: RejectReason, detail: str) -> RejectedRow:
    return RejectedRow(
        pair.annotations[0].source, reason, detail, truncate(pair.chosen[-1].content if pair.chosen else "")
    )


def _sequences(
    masker: LossMasker, sides: Sequence[tuple[PreferencePair, Sequence[Message]]], max_tokens: int
) -> list[tuple[int, ...] | DataError]:
    """Return whole sequences up to and including the end of the final turn, or why the template does not render one."""
    examples = []
    for pair, side in sides:
        source = pair.annotations[0].source
        answers = [tool_calls.to_answer(side[-1], source)]
        examples.append(
            Example(pair.id, source, messages=[*pair.messages, *side[:-1]], answers=answers, tools=pair.tools)
        )
    masked = mask_each(masker, examples, max_tokens=max_tokens)
    return [item if isinstance(item, DataError) else answer_sequences(item)[0] for item in masked]


def answer_sequences(masked: TokenizedExample) -> list[tuple[int, ...]]:
    """Return the token ids of each answer, with the prompt's before them."""
    return [(*masked.prompt.ids, *answer.ids) for answer in masked.answers]


def build_row(sequences: Sequence[tuple[int, ...]]) -> PackedRow:
    """Return one row from whole sequences (prompt and answer); their common beginning becomes the row's prompt.

    Each answer keeps at least its last token.
    """
    first, most = sequences[0], min(map(len, sequences)) - 1
    cut = next((index for index in range(most) if any(item[index] != first[index] for item in sequences)), most)
    branches = []
    for item in sequences:
        ids = [*item[cut:], FILLER_TOKEN]
        branches.append(TokenSpan(ids, [False] * (len(ids) - 1) + [True]))
    return PackedRow(TokenSpan(list(first[:cut]), [False] * cut), tuple(branches), 1.0)


def pack_sequences(sequences: Sequence[tuple[int, ...]], *, share: bool) -> list[tuple[PackedRow, tuple[int, ...]]]:
    """Return (row, indices of its answers) for the whole sequences of one prompt; with ``share`` off, each answer has its own row."""
    parts: list[list[int]] = []
    for index in range(len(sequences)):
        if share and parts and build_row([sequences[index] for index in (*parts[-1], index)]).length <= ROW_TOKENS:
            parts[-1].append(index)
        else:
            parts.append([index])
    return [(build_row([sequences[index] for index in part]), tuple(part)) for part in parts]


def group_pairs(items: Sequence[TokenizedPair], *, share: bool, margins: bool) -> list[PromptGroup]:
    """Return the pairs grouped by prompt, as many as fit a row; with ``share`` off, each answer has a row of its own.

    An answer that several pairs of a group name is read once. With ``margins`` off, all margins are 0.
    """
    groups: dict[str, list[int]] = defaultdict(list)
    for number, item in enumerate(items):
        groups[item.pair.prompt].append(number)
    parts = (part for numbers in groups.values() for part in _parts(items, numbers))
    return [_bundle(items, part, share=share, margins=margins) for part in parts]


def _parts(items: Sequence[TokenizedPair], numbers: Sequence[int]) -> Iterator[list[int]]:
    """Split the pairs of one prompt so that each part fits a row, or is one pair."""
    part: list[int] = []
    for number in numbers:
        if part and build_row(_answers(items, [*part, number])).length > MAX_SHARED_TOKENS:
            yield part
            part = []
        part.append(number)
    yield part


def _answers(items: Sequence[TokenizedPair], numbers: Sequence[int]) -> list[tuple[int, ...]]:
    """Return the different answers of some pairs, in order of appearance."""
    return list(dict.fromkeys(side for number in numbers for side in (items[number].chosen, items[number].rejected)))


def _bundle(items: Sequence[TokenizedPair], numbers: Sequence[int], *, share: bool, margins: bool) -> PromptGroup:
    answers = _answers(items, numbers)
    pairs = tuple(
        PairIndex(
            answers.index(items[number].chosen),
            answers.index(items[number].rejected),
            (items[number].pair.margin or 0.0) if margins else 0.0,
            number,
        )
        for number in numbers
    )
    rows = (build_row(answers),) if share else tuple(build_row([answer]) for answer in answers)
    return PromptGroup(rows, pairs)


def split_answers(groups: Sequence[PromptGroup]) -> list[PromptGroup]:
    """Return the groups with one row per answer, so that the prompt is repeated."""
    return [
        PromptGroup(
            tuple(build_row([(*row.prompt.ids, *branch.ids[:-1])]) for row in bundle.rows for branch in row.branches),
            bundle.pairs,
        )
        for bundle in groups
    ]


def subsample_prompts(pairs: Sequence[PreferencePair], maximum: int | None, seed: int) -> list[PreferencePair]:
    """Draw whole prompts with ``seed`` until ``maximum`` pairs are reached, and return their pairs in the order of ``pairs``.

    ``maximum`` None is no limit. The first prompt drawn is kept even where it alone has more pairs.
    """
    if maximum is None or len(pairs) <= maximum:
        return list(pairs)
    counts = Counter(pair.prompt for pair in pairs)
    prompts: set[str] = set()
    room = maximum
    for prompt in sorted(counts, key=lambda name: position(name, f"drawn {seed}")):
        if counts[prompt] <= room or not prompts:
            prompts.add(prompt)
            room -= counts[prompt]
    return [pair for pair in pairs if pair.prompt in prompts]


def position(prompt: str, line: str) -> bytes:
    """Return a pseudorandom sort key for ``prompt``, the same in every run; another ``line`` gives another order, as a seed does."""
    return hash_to_bytes(f"{line} {prompt}")


@dataclass(frozen=True, slots=True)
class MeanStd:
    """Mean (``center``) and standard deviation (``scale``) of scores."""

    center: float
    scale: float


def mean_std(scores: Sequence[float]) -> MeanStd:
    """Return mean and standard deviation of ``scores``; a deviation of 0 becomes 1, so that dividing by it changes nothing."""
    center = sum(scores) / len(scores)
    deviation = sqrt(sum((score - center) ** 2 for score in scores) / len(scores))
    return MeanStd(center, deviation or 1.0)
