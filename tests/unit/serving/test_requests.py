"""Requests: what is read, what is refused and in which words."""

import json
import time
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunectl.access.api_errors import ApiError
from tunectl.generation.prompt import max_new_tokens, messages
from tunectl.serving import requests
from tunectl.serving.requests import ChatRequest, CompletionRequest

CHOSEN_ONLY = ", since the engine gives the log-probability of the chosen token only"


def chat(**more: object) -> ChatRequest:
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], **more}
    return requests.parse(json.dumps(body).encode(), ChatRequest, depth=32)


def refusal(**more: object) -> tuple[str, str | None]:
    with pytest.raises(ApiError) as caught:
        requests.check_supported(chat(**more))
    return str(caught.value), caught.value.fault.param


def test_a_request_as_the_client_sends_it() -> None:
    found = chat(
        stop=["a", "b"], max_completion_tokens=5, temperature=0, stream_options={"include_usage": True}, n=None
    )
    assert (found.stops, found.limit, found.with_usage, found.n) == (("a", "b"), 5, True, None)
    assert chat(stop="x", max_tokens=3).limit == 3
    assert chat(metadata={"session": "s1"}).session == "s1"
    assert chat(ignore_eos=True).ignore_eos


@pytest.mark.parametrize(
    ("more", "text", "param"),
    [
        ({"temperature": 3}, "temperature: Expected `float` <= 2.0", "temperature"),
        ({"max_tokens": "5"}, "max_tokens: Expected `int | null`, got `str`", "max_tokens"),
        (
            {"messages": [{"role": "robot", "content": ""}]},
            "messages[0].role: Invalid enum value 'robot'",
            "messages[0].role",
        ),
        ({"messages": []}, "messages: Expected `array` of length >= 1", "messages"),
        ({"logit_bias": {"5": 1}}, "logit_bias is not supported here; leave it out", "logit_bias"),
        ({"logprobs": True, "top_logprobs": 2}, f"top_logprobs = 2: must be 0{CHOSEN_ONLY}", "top_logprobs"),
        ({"top_logprobs": 3}, f"top_logprobs = 3: must be 0{CHOSEN_ONLY}", "top_logprobs"),
        ({"functions": [{}]}, "functions is not supported here; use tools", "functions"),
        (
            {"tools": [{}], "response_format": {"type": "json_object"}},
            "response_format is not supported beside tools, which it would keep the model from calling; leave one of them out",
            "response_format",
        ),
        ({"tools": [{}], "tool_choice": "required"}, 'tool_choice = "required": must be auto or none', "tool_choice"),
        (
            {"modalities": ["audio"]},
            'modalities = ["audio"]: must be ["text"]; this model writes text',
            "modalities",
        ),
    ],
)
def test_mistakes(more: dict[str, object], text: str, param: str) -> None:
    assert refusal(**more) == (text, param)


@pytest.mark.parametrize(
    ("more", "text"),
    [
        ({"logprobs": 3}, f"logprobs = 3: must be 0 or 1{CHOSEN_ONLY}"),
        ({"n": 2, "best_of": 3}, "best_of = 3: must be n; ask for n answers and choose"),
        ({"suffix": "x"}, "suffix is not supported here; leave it out"),
    ],
)
def test_mistakes_of_a_completion(more: dict[str, object], text: str) -> None:
    body = json.dumps({"model": "m", "prompt": "hi", **more}).encode()
    with pytest.raises(ApiError) as caught:
        requests.check_supported(requests.parse(body, CompletionRequest, depth=32))
    assert str(caught.value) == text


def test_logprobs_of_the_chosen_token_are_supported() -> None:
    requests.check_supported(chat(logprobs=True, top_logprobs=0))
    for count in (0, 1):
        body = json.dumps({"model": "m", "prompt": "hi", "logprobs": count}).encode()
        requests.check_supported(requests.parse(body, CompletionRequest, depth=32))


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b'{"model": NaN}', b"\xff\xfe", b'{"model":"m","messages":[{"role":"user","content":"\xff"}]}'],
)
def test_bodies_that_are_no_request(body: bytes) -> None:
    with pytest.raises(ApiError) as caught:
        requests.parse(body, ChatRequest, depth=32)
    assert caught.value.status == 400


def test_missing_fields_are_named() -> None:
    with pytest.raises(ApiError, match="model: is required"):
        requests.parse(b'{"messages": [{"role": "user"}]}', ChatRequest, depth=32)


def test_depth_is_bounded_before_anything_is_taken_apart() -> None:
    deep = b'{"model":"m","messages":[],"metadata":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    with pytest.raises(ApiError, match="the JSON of the body nests deeper than 32 levels"):
        requests.parse(deep, ChatRequest, depth=32)


@given(st.text('[]{}\\" a', max_size=60))
def test_brackets_inside_texts_do_not_count(text: str) -> None:
    requests.check_depth(json.dumps({"a": text * 20}).encode(), 1)


def seconds(body: bytes) -> float:
    """Processor time, so that a busy machine changes nothing."""
    began = time.process_time()
    with suppress(ApiError):
        requests.check_depth(body, 32)
    return time.process_time() - began


@pytest.mark.parametrize("unit", [b'\\"', b'"', b'{"', b"\\\\", b"[", b"[]", b'"["', b'"\\', b"\\"])
@pytest.mark.parametrize("start", [b"", b"[]" * 33, b"[]" * 33 + b'"'], ids=["alone", "open", "in a text"])
def test_no_body_holds_the_others_up(unit: bytes, start: bytes) -> None:
    body = start + unit * (1_000_000 // len(unit))
    assert min(seconds(body) for _ in range(3)) < 0.1


def depth_of(value: object) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + max(map(depth_of, inner), default=0)


NESTED = st.recursive(
    st.none() | st.text('[]{}\\" a'),
    lambda inner: st.lists(inner) | st.dictionaries(st.text('[]{}\\"'), inner),
    max_leaves=10,
)


@given(NESTED)
def test_depth_is_that_of_the_value(value: object) -> None:
    body, depth = json.dumps(value).encode(), depth_of(value)
    requests.check_depth(body, depth)
    if depth:
        with pytest.raises(ApiError):
            requests.check_depth(body, depth - 1)


def test_the_four_shapes_of_a_prompt() -> None:
    def prompts(prompt: object) -> list[str | list[int]]:
        return requests.parse(json.dumps({"model": "m", "prompt": prompt}).encode(), CompletionRequest, depth=8).prompts

    assert prompts("a") == ["a"]
    assert prompts([1, 2]) == [[1, 2]]
    assert prompts(["a", "b"]) == ["a", "b"]
    assert prompts([[1], [2, 3]]) == [[1], [2, 3]]
    with pytest.raises(ApiError, match="prompt mixes"):
        prompts(["a", 1])


def test_formats() -> None:
    assert requests.schema_of(chat().response_format) is None
    assert requests.schema_of(chat(response_format={"type": "json_object"}).response_format) == '{"type":"object"}'
    given = chat(response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "integer"}}})
    assert requests.schema_of(given.response_format) == '{"type":"integer"}'
    with pytest.raises(ApiError, match=r"response_format.json_schema is required"):
        requests.schema_of(chat(response_format={"type": "json_schema"}).response_format)


def test_turns_become_messages() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
    turns = [
        {"role": "developer", "content": "be kind"},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {"role": "assistant", "tool_calls": [call]},
    ]
    found = messages(chat(messages=turns).messages)
    assert [(item.role, item.content) for item in found] == [("system", "be kind"), ("user", "ab"), ("assistant", "")]
    assert found[2].tool_calls[0]["function"]["arguments"] == {"a": 1}
    with pytest.raises(
        ApiError, match=r"messages\[0\].content has a part of type 'image_url'; this model reads only text"
    ):
        messages(chat(messages=[{"role": "user", "content": [{"type": "image_url"}]}]).messages)
    with pytest.raises(ApiError, match=r"messages\[0\].content is required"):
        messages(chat(messages=[{"role": "user"}]).messages)


def test_room() -> None:
    assert max_new_tokens(10, None, usual=50, context=100) == 50
    assert max_new_tokens(90, None, usual=50, context=100) == 10
    assert max_new_tokens(90, 10, usual=50, context=100) == 10
    for prompt, wanted in ((90, 11), (100, None), (200, 5)):
        with pytest.raises(ApiError, match="at most 100 tokens together") as caught:
            max_new_tokens(prompt, wanted, usual=50, context=100)
        assert caught.value.fault.code == "context_length_exceeded"


@pytest.mark.parametrize("value", [b'"\xff"', b"1e999"])
def test_what_nobody_knows_must_be_json_all_the_same(value: bytes) -> None:
    body = b'{"model": "m", "prompt": "a", "nobody": %s}' % value
    assert requests.parse(body, CompletionRequest, depth=8).prompt == "a"
    with pytest.raises(ApiError, match="the body is not JSON"):
        requests.select_known_fields(body, ChatRequest)
    assert requests.select_known_fields(b'{"model": "m", "nobody": [1]}', ChatRequest) == {"model": "m"}


@pytest.mark.parametrize(
    ("metadata", "fine"),
    [
        ({f"k{number}": "v" * 512 for number in range(16)}, True),
        ({f"k{number}": "v" for number in range(17)}, False),
        ({"x": "v" * 513}, False),
        ({"x" * 65: "v"}, False),
        ({"x": 1}, False),
        (None, True),
    ],
)
def test_metadata_has_sixteen_short_pairs(metadata, fine):
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "hi"}], "metadata": metadata}).encode()
    if fine:
        assert requests.parse(body, ChatRequest, depth=32).metadata == metadata
        return
    with pytest.raises(ApiError, match="metadata"):
        requests.parse(body, ChatRequest, depth=32)


def test_a_refusal_in_the_history_is_what_the_assistant_said() -> None:
    turns = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": None, "refusal": "I cannot help with that."},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "Nor with this."}]},
    ]
    assert [turn.content for turn in messages(chat(messages=turns).messages)] == [
        "hi",
        "I cannot help with that.",
        "Nor with this.",
    ]


def test_a_response_format_beside_tools_is_taken_where_no_tool_may_be_called() -> None:
    json_object = {"type": "json_object"}
    for more in ({"tool_choice": "none", "response_format": json_object}, {"response_format": {"type": "text"}}):
        requests.check_supported(chat(tools=[{}], **more))
