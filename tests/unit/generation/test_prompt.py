"""From a request to token ids: equal to what training renders, and each refusal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tunectl.access.api_errors import ApiError
from tunectl.chat import template
from tunectl.chat.tokenizer import Tokenizer
from tunectl.generation import prompt
from tunectl.generation.chat_message import ChatMessage, ContentPart


@pytest.fixture(scope="module")
def prompts(tiny_model: Path) -> prompt.PromptRenderer:
    return prompt.PromptRenderer(template.load(tiny_model), Tokenizer(tiny_model))


def test_a_conversation_has_the_ids_that_transformers_gives_it(
    prompts: prompt.PromptRenderer, tiny_model: Path
) -> None:
    transformers = pytest.importorskip("transformers")
    turns = [
        ChatMessage("system", "Be brief."),
        ChatMessage("user", "Où est le café? 🦊\n"),
        ChatMessage("assistant", "Là."),
        ChatMessage("user", "Merci"),
    ]
    theirs = transformers.AutoTokenizer.from_pretrained(tiny_model)
    wanted = theirs.apply_chat_template(
        [{"role": turn.role, "content": turn.content} for turn in turns],
        add_generation_prompt=True,
        return_dict=False,
    )
    assert prompts.chat(prompt.messages(turns)) == wanted


def test_every_token_gives_back_its_bytes(prompts: prompt.PromptRenderer) -> None:
    text = "Où est le café? 🦊 <|im_end|>"
    ids = prompts.tokenizer.ids(text)
    assert b"".join(map(prompts.tokenizer.bytes_of, ids)).decode() == text.removesuffix("<|im_end|>")
    assert prompts.tokenizer.bytes_of(prompts.tokenizer.size) == b""


def test_developers_are_systems_and_arguments_become_objects() -> None:
    call = {"id": "c1", "function": {"name": "find", "arguments": '{"town": "Rome"}'}}
    found = prompt.messages(
        [
            ChatMessage("developer", [ContentPart("text", "Be "), ContentPart("text", "brief.")]),
            ChatMessage("assistant", tool_calls=[call]),
        ]
    )
    assert (found[0].role, found[0].content) == ("system", "Be brief.")
    assert found[1].tool_calls == [
        {"id": "c1", "type": "function", "function": {"name": "find", "arguments": {"town": "Rome"}}}
    ]


def test_results_of_parallel_calls_come_in_the_order_of_the_calls() -> None:
    def results(*ids: str | None) -> list[str]:
        calls = [{"id": name, "function": {"name": "find", "arguments": "{}"}} for name in ("a", "b", "c")]
        turns = [ChatMessage("user", "go"), ChatMessage("assistant", tool_calls=calls)]
        turns += [ChatMessage("tool", f"of {name}", tool_call_id=name) for name in ids]
        return [turn.content for turn in prompt.messages([*turns, ChatMessage("user", "next")])][2:]

    assert results("c", "a", "b") == ["of a", "of b", "of c", "next"]
    assert results("x", "b", "a") == ["of a", "of b", "of x", "next"]
    assert results(None, None) == ["of None", "of None", "next"]
    with pytest.raises(ApiError, match=r"messages\[3\]"):  # the number is the one that the client sent
        prompt.messages(
            [
                ChatMessage("assistant", tool_calls=[{"id": "a", "function": {"name": "f"}}]),
                ChatMessage("user", "and"),
                ChatMessage("tool", "1", tool_call_id="b"),
                ChatMessage("tool", tool_call_id="a"),
            ]
        )


@pytest.mark.parametrize(
    ("turn", "text"),
    [
        (ChatMessage("user"), "messages[0].content is required in a message without tool_calls"),
        (
            ChatMessage("user", [ContentPart("image_url")]),
            "messages[0].content has a part of type 'image_url'; this model reads only text",
        ),
        (
            ChatMessage("assistant", tool_calls=[{}]),
            "messages[0].tool_calls: each call must have function.name, a text",
        ),
        (
            ChatMessage("assistant", tool_calls=[{"function": {"name": "find", "arguments": "{"}}]),
            "messages[0].tool_calls: function.arguments must be a JSON object",
        ),
        (
            ChatMessage("assistant", tool_calls=[{"function": {"name": "find", "arguments": "[]"}}]),
            "messages[0].tool_calls: function.arguments must be a JSON object",
        ),
    ],
)
def test_turns_that_cannot_be_read(turn: ChatMessage, text: str) -> None:
    with pytest.raises(ApiError) as caught:
        prompt.messages([turn])
    assert (caught.value.fault.message, caught.value.status) == (text, 400)


@pytest.mark.parametrize("given", ["", []])
def test_nothing_to_go_on_from(prompts: prompt.PromptRenderer, given: Any) -> None:
    with pytest.raises(ApiError, match="prompt is empty; send at least one token"):
        prompts.encode_text(given)


def test_an_id_that_the_model_does_not_have(prompts: prompt.PromptRenderer) -> None:
    size = prompts.tokenizer.size
    with pytest.raises(ApiError, match=f"prompt holds the token id {size}; ids of this model are 0 to {size - 1}"):
        prompts.encode_text([1, size])


def test_room_for_an_answer() -> None:
    assert prompt.max_new_tokens(10, None, usual=64, context=512) == 64
    assert prompt.max_new_tokens(500, None, usual=64, context=512) == 12
    assert prompt.max_new_tokens(500, 12, usual=64, context=512) == 12
    for size, wanted, param in [(512, None, "messages"), (600, 5, "messages"), (500, 13, "max_tokens")]:
        with pytest.raises(ApiError) as caught:
            prompt.max_new_tokens(size, wanted, usual=64, context=512)
        assert (caught.value.fault.param, caught.value.fault.code) == (param, "context_length_exceeded")
