"""All formats of preferences in one table, and detection of the format of a row."""

from __future__ import annotations

from typing import Any

from tunectl.data.formats import preference_formats as read
from tunectl.data.formats.preference_formats import ASKED, PreferenceFormat

PAIR = ("chosen", "rejected")


def _has(columns: dict[str, Any], *names: str) -> bool:
    return all(name in columns for name in names)


def _any(columns: dict[str, Any], *names: str) -> bool:
    return any(name in columns for name in names)


def _has_transcripts(columns: dict[str, Any]) -> bool:
    """Return whether both are whole transcripts; a ``prompt`` beside them repeats their beginning."""
    return all(
        isinstance(columns.get(name), str) and columns[name].lstrip().startswith(("Human:", "Assistant:"))
        for name in PAIR
    )


def _has_label(columns: dict[str, Any]) -> bool:
    return _any(columns, "label", "kto_tag")


PREFERENCE_FORMATS: tuple[PreferenceFormat, ...] = (
    PreferenceFormat(
        "transcripts", "chosen and rejected, transcripts with Human: and Assistant:", _has_transcripts, read.transcripts
    ),
    PreferenceFormat(
        "messages_rejected",
        "messages with rejected_response or rejected_messages",
        lambda columns: "messages" in columns and _any(columns, "rejected_response", "rejected_messages"),
        read.messages_rejected,
    ),
    PreferenceFormat(
        "sharegpt_pair",
        "conversations, chosen, rejected",
        lambda columns: _has(columns, "conversations", *PAIR),
        read.sharegpt_pair,
    ),
    PreferenceFormat(
        "explicit",
        "prompt (or messages), chosen, rejected",
        lambda columns: _has(columns, *PAIR) and _any(columns, "prompt", "messages"),
        read.explicit_prompt,
    ),
    PreferenceFormat(
        "axolotl_pair",
        f"one of {', '.join(ASKED)} with chosen and rejected; or chosen_response and rejected_response",
        lambda columns: (
            (_has(columns, *PAIR) and _any(columns, *ASKED)) or _has(columns, "chosen_response", "rejected_response")
        ),
        read.axolotl_pair,
    ),
    PreferenceFormat(
        "implicit",
        "chosen and rejected, with a common beginning",
        lambda columns: _has(columns, *PAIR),
        read.implicit_prompt,
    ),
    PreferenceFormat(
        "marked_sharegpt",
        "conversations, kto_tag",
        lambda columns: "conversations" in columns and _has_label(columns),
        read.parse_unpaired_sharegpt,
    ),
    PreferenceFormat(
        "marked_messages",
        "messages, label",
        lambda columns: "messages" in columns and _has_label(columns),
        read.parse_unpaired_messages,
    ),
    PreferenceFormat(
        "marked",
        f"prompt (or {', '.join(ASKED)}), completion, label",
        lambda columns: (
            _has_label(columns)
            and _any(columns, "prompt", *ASKED)
            and _any(columns, "completion", "response", "output")
        ),
        read.parse_unpaired,
    ),
)
"""More specific formats come first: the first that fits is taken."""


def get_format(name: str) -> PreferenceFormat:
    """Return the preference format called ``name``; the settings schema allows no other name."""
    return next(item for item in PREFERENCE_FORMATS if item.name == name)


def detect_format(columns: dict[str, Any]) -> PreferenceFormat | None:
    """Return the preference format of a row with these columns; None where none fits."""
    present = {name: value for name, value in columns.items() if value is not None}
    return next((item for item in PREFERENCE_FORMATS if item.fits(present)), None)
