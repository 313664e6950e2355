"""OpenAI's requests, validated strictly: types and limits in one pass; unsupported parameters are refused by name."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct

from tunectl.access.api_errors import ApiError
from tunectl.core.json_depth import exceeds_depth
from tunectl.generation.chat_message import ChatMessage

MOST_STOPS = 16
MOST_SCHEMA = 65_536
"""Most bytes of a JSON Schema."""
Temperature = Annotated[float, Meta(ge=0, le=2)]
TopP = Annotated[float, Meta(ge=0, le=1)]
Penalty = Annotated[float, Meta(ge=-2, le=2)]
Count = Annotated[int, Meta(ge=1, le=1_000_000)]
Seed = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
Stop = Annotated[str, Meta(min_length=1, max_length=200)]
Id = Annotated[int, Meta(ge=0, le=2**31 - 1)]
PrintableId = Annotated[str, Meta(min_length=1, max_length=100, pattern=r"^[!-~]+(?!\n)$")]
"""An id: printable ASCII without blanks, so that every store accepts it."""
MetadataKey = Annotated[str, Meta(max_length=64)]
MetadataValue = Annotated[str, Meta(max_length=512)]
"""Limit as in OpenAI's API."""
R = TypeVar("R")


class SchemaFormat(Struct, frozen=True):
    """The object ``json_schema`` of a response format, as in OpenAI's API."""

    name: Annotated[str, Meta(max_length=200)] = "answer"
    schema: dict[str, Any] = {}
    strict: bool | None = None
    description: str | None = None


class ResponseFormat(Struct, frozen=True):
    """The parameter ``response_format`` of OpenAI's API."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: SchemaFormat | None = None


class StreamOptions(Struct, frozen=True):
    """The parameter ``stream_options`` of OpenAI's API."""

    include_usage: bool | None = None


class Common(Struct, frozen=True, kw_only=True):
    """Parameters that chat and text completion requests share. Null means absent."""

    model: Annotated[str, Meta(min_length=1, max_length=200)]
    max_tokens: Count | None = None
    temperature: Temperature | None = None
    top_p: TopP | None = None
    """0 is greedy, as a temperature of 0 is."""
    n: Annotated[int, Meta(ge=1, le=128)] | None = None
    stop: Stop | Annotated[list[Stop], Meta(max_length=MOST_STOPS)] | None = None
    seed: Seed | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    response_format: ResponseFormat | None = None
    user: Annotated[str, Meta(max_length=512)] | None = None
    metadata: Annotated[dict[MetadataKey, MetadataValue], Meta(max_length=16)] | None = None
    logit_bias: dict[str, float] | None = None
    ignore_eos: bool | None = None
    """vLLM's parameter: generate ``max_tokens`` tokens in any case, so that load tests compare equal lengths."""

    @property
    def stops(self) -> tuple[str, ...]:
        """The stop texts as a tuple, whether given as one text or as a list."""
        if self.stop is None:
            return ()
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)

    @property
    def with_usage(self) -> bool:
        """Whether the stream ends with a chunk of token counts (OpenAI's ``usage``)."""
        return bool(self.stream_options and self.stream_options.include_usage)

    @property
    def session(self) -> str | None:
        """``metadata.session``, which groups the inferences of one conversation; None if absent."""
        result = (self.metadata or {}).get("session")
        return result[:200] if result is not None else None


class ChatRequest(Common, frozen=True, kw_only=True):
    """Body of ``POST /v1/chat/completions``: OpenAI's parameters."""

    messages: Annotated[list[ChatMessage], Meta(min_length=1, max_length=10_000)]
    max_completion_tokens: Count | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: Any = None
    parallel_tool_calls: bool | None = None
    """False: an answer has one tool call at most; what the model writes beyond is left out."""
    functions: list[Any] | None = None
    modalities: list[str] | None = None
    audio: Any = None

    @property
    def limit(self) -> int | None:
        """Most new tokens, under either of its two names; None if absent."""
        return self.max_completion_tokens if self.max_completion_tokens is not None else self.max_tokens

    @property
    def offers_tools(self) -> bool:
        """Whether the answer may call tools."""
        return bool(self.tools) and self.tool_choice != "none"


class CompletionRequest(Common, frozen=True, kw_only=True):
    """Body of ``POST /v1/completions``: OpenAI's parameters."""

    prompt: (
        str
        | Annotated[list[str | Id | Annotated[list[Id], Meta(min_length=1)]], Meta(min_length=1, max_length=100_000)]
    )
    logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    echo: bool | None = None
    suffix: str | None = None
    best_of: int | None = None

    @property
    def limit(self) -> int | None:
        """Most new tokens; None if absent."""
        return self.max_tokens

    @property
    def prompts(self) -> list[str | list[int]]:
        """The prompts, each as text or as token ids, from any of the four forms of ``prompt``.

        Raises  ApiError for a list that mixes kinds.
        """
        prompt = self.prompt
        if isinstance(prompt, str):
            return [prompt]
        kinds = {type(item) for item in prompt}
        if kinds == {int}:
            return [[item for item in prompt if isinstance(item, int)]]
        if len(kinds) > 1:
            raise ApiError("prompt mixes texts, token ids and lists of token ids; send one kind", param="prompt")
        return [item for item in prompt if not isinstance(item, int)]


class FeedbackRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """Body of ``POST /v1/feedback``: a person's feedback on an answer, or a click. The same id twice from one key counts once."""

    inference_id: PrintableId
    """``id`` of the response."""
    kind: Literal["thumb", "rating", "preference", "click", "conversion", "edit"]
    value: Any
    """thumb: up or down. rating: 1 to 5. preference: {other: id of an inference, choice: first, second, both_good or both_bad}, first
    being inference_id. edit: the better text. click: what was clicked, or null. conversion: its worth, or null."""
    id: PrintableId | None = None
    """Null: derived from the rest, so that a repeated call counts once."""
    annotator: Annotated[str, Meta(max_length=200)] | None = None
    at: Annotated[str, Meta(max_length=40)] | None = None
    """UTC, ISO 8601. Null: now."""


_PATH = re.compile(r" - at `(?:key in )?\$([^`]*)`$")


def parse(body: bytes, shape: type[R], *, depth: int) -> R:
    """Return the request body as a validated ``shape``; JSON nested deeper than ``depth`` is refused.

    Raises  ApiError that names the parameter, for what is not JSON, too deep, or has another type or bound.
    """
    check_depth(body, depth)
    try:
        return msgspec.json.decode(body, type=shape)
    except msgspec.ValidationError as error:
        text = str(error)
        match = _PATH.search(text)
        location = match[1].lstrip(".") if match else ""
        reason = _PATH.sub("", text)
        if (missing := re.search(r"missing required field `(\w+)`", reason)) is not None:
            location = f"{location}.{missing[1]}".lstrip(".")
            reason = "is required"
        raise ApiError(f"{location or 'the body'}: {reason}", param=location or None) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ApiError(f"the body is not JSON: {error}") from error


def select_known_fields(body: bytes, shape: type[ChatRequest] | type[CompletionRequest]) -> dict[str, Any]:
    """Return the fields of a request body that ``shape`` declares, as sent, for the inference log; other fields are left out.

    Raises  ApiError where another field is not valid JSON, which ``parse`` does not notice.
    """
    try:
        content = msgspec.json.decode(body, type=dict[str, Any])
        return {name: value for name, value in content.items() if name in shape.__struct_fields__}
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ApiError(f"the body is not JSON: {error}") from error


def check_depth(body: bytes, depth: int) -> None:
    """Check that the JSON ``body`` is nested at most ``depth`` levels deep, before it is parsed. Raises  ApiError otherwise."""
    if exceeds_depth(body, depth):
        raise ApiError(f"the JSON of the body nests deeper than {depth} levels; send a flatter one")


def check_supported(request: ChatRequest | CompletionRequest) -> None:
    """Check that a request sets no unsupported parameter that would change the answer. Raises  ApiError that names it.

    Log-probabilities of alternative tokens are refused, since the engine returns that of the chosen token only.
    """
    unsupported = " is not supported here; "
    chosen_only = ", since the engine gives the log-probability of the chosen token only"
    wrong = [("logit_bias", bool(request.logit_bias), f"{unsupported}leave it out")]
    if isinstance(request, ChatRequest):
        refused_choice = bool(request.tools) and request.tool_choice not in (None, "auto", "none")
        structured = request.response_format is not None and request.response_format.type != "text"
        wrong += [
            ("functions", bool(request.functions), f"{unsupported}use tools"),
            ("tool_choice", refused_choice, " = {}: must be auto or none"),
            (
                "response_format",
                structured and request.offers_tools,
                " is not supported beside tools, which it would keep the model from calling; leave one of them out",
            ),
            (
                "modalities",
                (request.modalities or ["text"]) != ["text"],
                ' = {}: must be ["text"]; this model writes text',
            ),
            ("audio", request.audio is not None, f"{unsupported}this model writes text; leave it out"),
            ("top_logprobs", (request.top_logprobs or 0) > 0, f" = {{}}: must be 0{chosen_only}"),
        ]
    else:
        wrong += [
            ("echo", bool(request.echo), f"{unsupported}leave it out"),
            ("suffix", bool(request.suffix), f"{unsupported}leave it out"),
            (
                "best_of",
                request.best_of not in (None, request.n or 1),
                " = {}: must be n; ask for n answers and choose",
            ),
            ("logprobs", (request.logprobs or 0) > 1, f" = {{}}: must be 0 or 1{chosen_only}"),
        ]
    for param, bad, text in wrong:
        if bad:
            value = msgspec.json.encode(getattr(request, param))[:80].decode(errors="replace")
            raise ApiError(param + text.format(value), param=param, code="unsupported_parameter")


def schema_of(format_: ResponseFormat | None) -> str | None:
    """Return the JSON Schema, as JSON text, that the answer must fit; None if any text is allowed.

    Raises  ApiError for a schema that is absent or too large.
    """
    if format_ is None or format_.type == "text":
        return None
    if format_.type == "json_object":
        return '{"type":"object"}'
    if format_.json_schema is None:
        raise ApiError(
            "response_format.json_schema is required where its type is json_schema; send {name, schema}",
            param="response_format.json_schema",
        )
    text = msgspec.json.encode(format_.json_schema.schema)
    if len(text) > MOST_SCHEMA:
        raise ApiError(
            f"response_format.json_schema has {len(text)} bytes; send one of at most {MOST_SCHEMA}",
            param="response_format.json_schema",
        )
    return text.decode()
