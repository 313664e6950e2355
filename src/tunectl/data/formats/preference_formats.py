"""Formats of preferences: two answers of which one is better, or one answer that is labeled good or bad."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import groupby
from typing import Any, NamedTuple

from msgspec import Struct

from tunectl.artifacts.records import Choice, Message
from tunectl.config.schema.preferences import PreferenceColumns
from tunectl.data.formats.instruction import alpaca_input, history, is_json_data
from tunectl.data.readers.conversation import parse_message, with_system
from tunectl.data.readers.row import (
    FormatMismatchError,
    RawRow,
    RowError,
    format_column_names,
    get_column,
    kind,
    list_of,
    optional_text,
    scalar,
    text_of,
)

ASKED = ("question", "instruction", "input", "query")
"""Columns of the input in Axolotl's named types (intel, argilla, icr) and swift."""
BETTER, WORSE = ("chosen", "chosen_response"), ("rejected", "rejected_response")
_SPEAKER = re.compile(r"(?:^|\n\n)(Human|Assistant):")
_YES, _NO = frozenset({"true", "1", "yes", "good", "thumbs_up"}), frozenset({"false", "0", "no", "bad", "thumbs_down"})


class ParsedPreference(Struct, frozen=True):
    """A row of preferences after parsing: prompt turns, one or two answers, and which is better."""

    turns: list[Message]
    """The conversation before the answers."""
    answers: list[list[Message]]
    """The better and the worse answer, or a single labeled one."""
    choice: Choice


class PreferenceFormat(NamedTuple):
    """A supported format of preferences: how it is recognized and parsed."""

    name: str
    expects: str
    """Description of its columns for people."""
    fits: Callable[[dict[str, Any]], bool]
    """Returns whether a row with these columns (absent and null ones left out) may have this format."""
    parse: Callable[[RawRow], ParsedPreference]


def transcripts(row: RawRow) -> ParsedPreference:
    r"""Return a parsed row with ``chosen`` and ``rejected``: whole transcripts with ``\n\nHuman:`` and ``\n\nAssistant:`` (HH-RLHF).

    Raises  FormatMismatchError when one is not such a text; RowError ``different_prompts`` when they begin with different questions.
    """
    return _split_common_prefix(*(_transcript(row, name) for name in ("chosen", "rejected")))


def _transcript(row: RawRow, name: str) -> list[Message]:
    text = text_of(row.columns, name)
    matches = list(_SPEAKER.finditer(text))
    if not matches or text[: matches[0].start()].strip():
        raise FormatMismatchError(f"column {name!r} does not begin with Human: or Assistant:")
    ends = [item.start() for item in matches[1:]] + [len(text)]
    return _merge_adjacent_turns(
        [
            Message("user" if item[1] == "Human" else "assistant", text[item.end() : end].strip())
            for item, end in zip(matches, ends, strict=True)
        ]
    )


def _merge_adjacent_turns(turns: list[Message]) -> list[Message]:
    """Join consecutive turns of one speaker; HH has a few."""
    return [
        Message(role, "\n\n".join(filter(None, (turn.content for turn in same))))
        for role, same in groupby(turns, key=lambda turn: turn.role)
    ]


def explicit_prompt(row: RawRow) -> ParsedPreference:
    """Return a parsed row with ``prompt`` (or ``messages``), ``chosen``, ``rejected``: texts or messages; TRL, UltraFeedback, Axolotl.

    Where answers repeat the prompt's messages at their start, these are removed.
    """
    name = "prompt" if row.columns.get("prompt") is not None else "messages"
    before = _conversation(get_column(row.columns, name), name, "user")
    better, worse = (
        _remove_prompt(before, _conversation(row.columns.get(side), side, "assistant"))
        for side in ("chosen", "rejected")
    )
    return _build_pair(row, before, better, worse)


def implicit_prompt(row: RawRow) -> ParsedPreference:
    """Return a parsed row with ``chosen`` and ``rejected`` alone; their common beginning is the prompt: message lists, or texts (TRL)."""
    better, worse = (row.columns.get(name) for name in ("chosen", "rejected"))
    if isinstance(better, str) and isinstance(worse, str) and not better.lstrip().startswith("[{"):
        return _common_text(better, worse)
    return _split_common_prefix(
        _conversation(better, "chosen", "assistant"), _conversation(worse, "rejected", "assistant")
    )


def _common_text(better: str, worse: str) -> ParsedPreference:
    length = next(
        (index for index, (first, other) in enumerate(zip(better, worse, strict=False)) if first != other),
        min(len(better), len(worse)),
    )
    if not better[:length].strip():
        raise RowError(
            "different_prompts",
            "chosen and rejected have no text in common at their beginning; both must begin with the same prompt",
        )
    if length < min(len(better), len(worse)):
        length = max(better.rfind(sign, 0, length) for sign in " \n") + 1  # not in the middle of a word
    if not better[:length].strip():
        raise RowError(
            "different_prompts",
            "chosen and rejected have no whole word in common at their beginning; both must begin with the same prompt",
        )
    prompt, ends = better[:length].strip(), (better[length:].strip(), worse[length:].strip())
    return ParsedPreference([Message("user", prompt)], [[Message("assistant", end)] for end in ends], "first")


def sharegpt_pair(row: RawRow) -> ParsedPreference:
    """Return a parsed row with ``conversations`` and ``chosen``, ``rejected`` as ``{from, value}`` (LLaMA-Factory, ranking)."""
    before = _conversation(list_of(row.columns, "conversations"), "conversations", "user")
    better, worse = (_conversation(row.columns.get(name), name, "assistant") for name in ("chosen", "rejected"))
    return _build_pair(row, before, better, worse)


def messages_rejected(row: RawRow) -> ParsedPreference:
    """Return a parsed row: ``messages`` that end with the better answer, and ``rejected_response`` or ``rejected_messages`` (swift)."""
    conversation = _conversation(list_of(row.columns, "messages"), "messages", "user")
    if not conversation:
        raise RowError("empty_turn", "messages is an empty list; it must hold the prompt and the better answer")
    if row.columns.get("rejected_messages") is not None:
        other = _conversation(row.columns["rejected_messages"], "rejected_messages", "assistant")
        if other and other[0].role == "assistant" and conversation[0].role != "assistant":  # the answer alone
            return _build_pair(row, conversation[:-1], conversation[-1:], other)
        return _split_common_prefix(conversation, other)
    if conversation[-1].role != "assistant":
        raise RowError(
            "last_turn_not_assistant",
            f"the last of {len(conversation)} messages is {conversation[-1].role}; it must be assistant, the better answer",
        )
    rejected = get_column(row.columns, "rejected_response")
    if isinstance(rejected, list) and len(rejected) == 1:
        rejected = rejected[0]
    return _build_pair(
        row, conversation[:-1], conversation[-1:], _conversation(rejected, "rejected_response", "assistant")
    )


def axolotl_pair(row: RawRow) -> ParsedPreference:
    """Return a parsed row: ``question``, ``instruction``, ``input`` or ``query``, with ``chosen``/``rejected``, also with the ending ``_response``.

    Axolotl's intel, argilla and icr types, and LLaMA-Factory's alpaca with ranking (``instruction``, ``input``, ``history``).
    """
    better = _conversation(*_first(row, BETTER), "assistant")
    worse = _conversation(*_first(row, WORSE), "assistant")
    if not any(row.columns.get(name) is not None for name in ASKED):
        return _split_common_prefix(better, worse)
    before = _read_prompt(row)
    return _build_pair(row, before, _remove_prompt(before, better), _remove_prompt(before, worse))


def parse_unpaired(row: RawRow) -> ParsedPreference:
    """Return a parsed row: ``prompt`` (or ``question``, ``instruction``, ``input``), ``completion`` (or ``response``), ``label`` (TRL, Axolotl KTO)."""
    has_prompt = row.columns.get("prompt") is not None
    before = _conversation(row.columns["prompt"], "prompt", "user") if has_prompt else _read_prompt(row)
    answer = _conversation(*_first(row, ("completion", "response", "output")), "assistant")
    return _read_lone_answer(row, before, _remove_prompt(before, answer))


def parse_unpaired_messages(row: RawRow) -> ParsedPreference:
    """Return a parsed row: ``messages`` that end with an answer, and ``label`` (swift)."""
    conversation = _conversation(list_of(row.columns, "messages"), "messages", "user")
    return _read_lone_answer(row, conversation[:-1], conversation[-1:])


def parse_unpaired_sharegpt(row: RawRow) -> ParsedPreference:
    """Return a parsed row: ``conversations`` that end with an answer, and ``kto_tag`` (LLaMA-Factory)."""
    conversation = _conversation(list_of(row.columns, "conversations"), "conversations", "user")
    return _read_lone_answer(row, conversation[:-1], conversation[-1:])


def parse_declared_columns(row: RawRow, columns: PreferenceColumns) -> ParsedPreference:
    """Return a row parsed by the columns that the source's ``columns`` setting names.

    Raises  FormatMismatchError when one of them is absent.
    """
    better, worse = (
        _conversation(_present(row, name or usual), name or usual, "assistant")
        for name, usual in ((columns.chosen, "chosen"), (columns.rejected, "rejected"))
    )
    if columns.prompt is None:
        return _split_common_prefix(better, worse)
    before = _conversation(_present(row, columns.prompt), columns.prompt, "user")
    return _build_pair(row, before, _remove_prompt(before, better), _remove_prompt(before, worse))


def _present(row: RawRow, name: str) -> Any:
    value = get_column(row.columns, name)
    if value is None:
        raise FormatMismatchError(f"no column {name!r}; there are {format_column_names(row.columns)}")
    return value


def _first(row: RawRow, choices: tuple[str, ...]) -> tuple[Any, str]:
    name = next((name for name in choices if row.columns.get(name) is not None), choices[0])
    return _present(row, name), name


def _read_prompt(row: RawRow) -> list[Message]:
    if row.columns.get("instruction") is not None:
        prompt = alpaca_input(row.columns)
    else:
        prompt = text_of(row.columns, next((name for name in ASKED if row.columns.get(name) is not None), ASKED[0]))
    return [*history(row.columns), Message("user", prompt)]


def _conversation(value: Any, name: str, role: str) -> list[Message]:
    """Return a text as one turn of ``role``; a message, or a list of them (also as JSON), unchanged."""
    plain = scalar(value)
    if plain is not None and (not plain.lstrip().startswith(("[{", '{"')) or is_json_data(plain)):
        return [parse_message({"role": role, "content": plain}, 1)]
    if isinstance(value, dict):
        return [parse_message(value, 1)]
    if plain is not None and plain.lstrip().startswith("{"):
        value = f"[{plain}]"
    return [parse_message(item, number) for number, item in enumerate(list_of({name: value}, name), 1)]


def _remove_prompt(before: list[Message], answer: list[Message]) -> list[Message]:
    """Return an answer without the prompt that it repeats at its start."""
    turns = [item for item in answer if item.role != "system"] if before and before[0].role != "system" else answer
    if len(turns) > len(before) and [(t.role, t.content) for t in turns[: len(before)]] == [
        (t.role, t.content) for t in before
    ]:
        return turns[len(before) :]
    return answer


def _split_common_prefix(better: list[Message], worse: list[Message]) -> ParsedPreference:
    """Split two whole conversations where they begin to differ, but not after their last answer."""
    same = 0
    while same < min(len(better), len(worse)) - 1 and better[same] == worse[same]:
        same += 1
    if not same:
        raise RowError(
            "different_prompts", "chosen and rejected do not begin with the same turn; both must begin with the prompt"
        )
    if better[same].role == "user" and worse[same].role == "user":
        raise RowError(
            "different_prompts",
            f"turn {same + 1}, of the user, differs between chosen and rejected; only turns of the assistant may differ",
        )
    return ParsedPreference(better[:same], [better[same:], worse[same:]], "first")


def _build_pair(row: RawRow, before: list[Message], better: list[Message], worse: list[Message]) -> ParsedPreference:
    return ParsedPreference(with_system(before, _system(row)), [better, worse], "first")


def _system(row: RawRow) -> str | None:
    return optional_text(row.columns, "system") or optional_text(row.columns, "system_prompt")


def _read_lone_answer(row: RawRow, before: list[Message], answer: list[Message]) -> ParsedPreference:
    name = "kto_tag" if row.columns.get("kto_tag") is not None else "label"
    text = scalar(row.columns.get(name))
    label = "" if text is None else text.strip().lower()
    if label not in _YES | _NO:
        shown_value = kind(row.columns.get(name)) if text is None else repr(text)
        raise RowError("bad_label", f"{name} is {shown_value}; allowed are true and false")
    return ParsedPreference(with_system(before, _system(row)), [answer], "good" if label in _YES else "bad")
