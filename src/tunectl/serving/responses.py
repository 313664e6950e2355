"""Types of the server's responses: for its OpenAPI document, and for tests that validate every response.

The server itself encodes them in ``response_encoding.py``, since most of a stream is the same bytes again and again.
"""

from __future__ import annotations

from typing import Any, Literal

from msgspec import UNSET, Struct, UnsetType, field

from tunectl.access.api_errors import ErrorBody
from tunectl.artifacts.canary_state import Variant
from tunectl.serving.response_encoding import Finish


class Error(Struct, frozen=True, forbid_unknown_fields=True):
    """Body of every response whose status is not 2xx."""

    error: ErrorBody


class Usage(Struct, frozen=True, forbid_unknown_fields=True):
    """Numbers of prompt and answer tokens of a request."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class CallFunction(Struct, frozen=True, forbid_unknown_fields=True):
    """Name of the called tool, with its arguments as JSON text."""

    name: str
    arguments: str


class ToolCall(Struct, frozen=True):
    """One tool call in an assistant's message."""

    type: Literal["function"]
    function: CallFunction
    id: str | UnsetType = UNSET
    index: int | UnsetType = UNSET
    """Index of the call in a stream."""


class AssistantMessage(Struct, frozen=True, forbid_unknown_fields=True):
    """Message of the assistant in a chat response: text, tool calls, or both."""

    role: Literal["assistant"]
    content: str | None
    refusal: None = None
    tool_calls: list[ToolCall] | UnsetType = UNSET


class TokenLogprob(Struct, frozen=True, forbid_unknown_fields=True):
    """One token of an answer with its natural log-probability."""

    token: str
    logprob: float
    bytes: list[int]
    top_logprobs: list[Any]


class ChatLogprobs(Struct, frozen=True, forbid_unknown_fields=True):
    """Log-probabilities of the tokens of a chat answer."""

    content: list[TokenLogprob]
    refusal: None


class TextLogprobs(Struct, frozen=True, forbid_unknown_fields=True):
    """Log-probabilities of the tokens of a text completion."""

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]]
    text_offset: list[int]


class ChatChoice(Struct, frozen=True, forbid_unknown_fields=True):
    """One answer in a chat response."""

    index: int
    finish_reason: Finish
    logprobs: ChatLogprobs | None
    message: AssistantMessage


class TextChoice(Struct, frozen=True, forbid_unknown_fields=True):
    """One continuation in a text completion response."""

    index: int
    finish_reason: Finish
    logprobs: TextLogprobs | None
    text: str


class ChatCompletion(Struct, frozen=True, forbid_unknown_fields=True):
    """Response of ``/v1/chat/completions`` that is not streamed."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    system_fingerprint: str
    """Id of the release."""
    choices: list[ChatChoice]
    usage: Usage


class TextCompletion(Struct, frozen=True, forbid_unknown_fields=True):
    """Response of ``/v1/completions`` that is not streamed."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[TextChoice]
    usage: Usage


class ModelEntry(Struct, frozen=True, forbid_unknown_fields=True):
    """Entry of ``GET /v1/models`` for one name that a request may use."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    root: str
    """The model or release with that name."""
    parent: str | None
    """The base model."""
    release: str
    variant: Variant
    revision: str | UnsetType | None = UNSET
    served: bool | UnsetType = UNSET
    """False: the name is listed, but not served."""


class Models(Struct, frozen=True, forbid_unknown_fields=True):
    """Response of ``GET /v1/models``: all names that a request may use."""

    object: Literal["list"]
    data: list[ModelEntry]


class FeedbackAccepted(Struct, frozen=True, forbid_unknown_fields=True):
    """Response to feedback: its id, and whether it was new."""

    id: str
    new: bool
    """False: it was known already."""


class Liveness(Struct, frozen=True, forbid_unknown_fields=True):
    """Response of ``GET /healthz`` and ``GET /livez``: the process is alive."""

    status: Literal["alive"]


class VariantState(Struct, frozen=True, forbid_unknown_fields=True):
    """Loaded release of a variant in ``GET /readyz``, with the result of its adapter proof."""

    release: str
    agreement: float | UnsetType = UNSET
    """Share of probe tokens that are equal to the training side's."""
    logprob_gap: float | UnsetType = UNSET
    """Mean difference of log-probabilities, nats."""
    as_base: int | UnsetType = UNSET
    """Probes answered as the base model answers."""
    probes: int | UnsetType = UNSET


class Readiness(Struct, frozen=True, forbid_unknown_fields=True):
    """Response of ``GET /readyz``: whether requests are answered, by which releases, and why not."""

    ready: bool
    variants: dict[Variant, VariantState]
    reason: str | UnsetType = UNSET
    problems: dict[Variant, str] = field(default_factory=dict)
    """Why a variant does not have the wanted release."""
