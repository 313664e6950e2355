"""Screen Play: one input, one column per variant. A server answers where one is declared; else recorded answers of the last evaluation are shown."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Final

from msgspec import Struct, field

from tunectl.artifacts.records import truncate
from tunectl.backends.storage import open_inference_log
from tunectl.console.read_context import ProblemList
from tunectl.console.screens import answers
from tunectl.console.screens.answers import AnswerCard
from tunectl.monitoring import window
from tunectl.registry.release_store import ReleaseRegistry

if TYPE_CHECKING:
    from tunectl.console.read_context import ReadContext

MAX_RECORDED: Final = 40
PREVIEW: Final = 90
ROLES: Final = frozenset(("system", "developer", "user", "assistant"))
"""What can be sent again as text; calls of tools and their results cannot."""


class PlayVariant(Struct, frozen=True):
    """A variant that can answer on the screen Play: champion, challenger or base."""

    name: str
    """Name of the variant in a request."""
    release: str


class RecordedInput(Struct, frozen=True):
    """A test input with recorded answers, offered where no server is declared."""

    id: str
    text: str


class ChatTurn(Struct, frozen=True):
    """Role and content of one message, as sent to a server."""

    role: str
    content: str


class PlayScreen(Struct, frozen=True):
    """Content of the screen Play: the prompt, the servers, and the variants that can answer."""

    servers: list[str] = field(default_factory=list)
    variants: list[PlayVariant] = field(default_factory=list)
    question: str = ""
    replay: str = ""
    """Id of the inference to ask again; empty: none."""
    earlier: list[ChatTurn] = field(default_factory=list)
    """Its messages before the question: the system message and earlier turns. They are sent again."""
    key_env: str = ""
    key_is_set: bool = False
    """Whether that environment variable holds a key for the servers."""
    recorded: list[RecordedInput] = field(default_factory=list)
    card: AnswerCard | None = None
    """The recorded answers to the chosen input."""
    problems: dict[str, str] = field(default_factory=dict)


def read_play(context: ReadContext, query: Mapping[str, str]) -> PlayScreen:
    """Return which variants can answer. ``replay``: an inference to ask again; ``recorded``: a test input; ``q``: a prompt."""
    problems = ProblemList()
    settings = problems.attempt("settings", context.load_settings, None)
    console = settings.console if settings else None
    name = query.get("replay", "")
    earlier, last_question = problems.attempt(
        "inference log", lambda: read_replay(context, name), (list[ChatTurn](), "")
    )
    question = query.get("q", "") or last_question
    inputs = answers.read_inputs(context, problems)[:MAX_RECORDED]
    recorded_id = query.get("recorded", "") or (inputs[0].id if inputs and not (console and console.servers) else "")
    screen = answers.read_answers(context, {"q": recorded_id} if recorded_id else {})
    card = next((one for one in screen.cards if one.id == recorded_id), None)
    return PlayScreen(
        servers=list(console.servers) if console else [],
        variants=problems.attempt("releases", lambda: list(_list_variants(context)), []),
        question=question or (card.input if card and query.get("recorded") else ""),
        replay=name,
        earlier=earlier,
        key_env=console.server_key_env if console else "",
        key_is_set=bool(console and os.environ.get(console.server_key_env)),
        recorded=[RecordedInput(one.id, truncate(one.input, PREVIEW)) for one in inputs],
        card=card,
        problems={**screen.problems, **problems.problems},
    )


def read_replay(context: ReadContext, name: str) -> tuple[list[ChatTurn], str]:
    """Return (the messages before the last prompt of an inference, that prompt); both empty where there is no such inference."""
    if not name:
        return [], ""
    with open_inference_log.open_if_exists(context.load_settings().inference_log, context.layout) as log:
        record = None if log is None else open_inference_log.inference(log, name)
    if record is None:
        return [], ""
    context.log_opened(record.id)
    messages = (record.request or {}).get("messages")
    dialogue = [turn for turn in messages if isinstance(turn, dict)] if isinstance(messages, list) else []
    last = max((at for at, turn in enumerate(dialogue) if turn.get("role") == "user"), default=0)
    turns = [ChatTurn(str(turn.get("role")), window.extract_text(turn.get("content"))) for turn in dialogue[:last]]
    return [turn for turn in turns if turn.role in ROLES and turn.content], window.last_user_text(record)


def _list_variants(context: ReadContext) -> Iterator[PlayVariant]:
    store = ReleaseRegistry(context.layout.releases)
    champion, canary = store.champion(), store.canary()
    if champion is not None:
        yield PlayVariant("champion", champion.release)
    if canary is not None:
        yield PlayVariant("challenger", canary.release)
    if champion is not None:
        yield PlayVariant("base", "")
