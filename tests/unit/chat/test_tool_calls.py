"""Tool calls as text and back, and how templates with and without a form of their own render and mask them."""

import json
import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunectl.artifacts.records import Example, Message, ReferenceAnswer, Segment, Source
from tunectl.chat import builtin_templates, tool_calls
from tunectl.chat.loss_mask import LossMasker
from tunectl.chat.template import Template
from tunectl.chat.tokenizer import Tokenizer
from tunectl.core.errors import DataError

PLACE = Source("in.jsonl", 3)
ASK = Message("user", "Weather?")
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
CALL = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": {"city": "Paris"}}}
WRITTEN = '<tool_call>\n{"name": "weather", "arguments": {"city": "Paris"}}\n</tool_call>'
OWN = (
    "{% if tools %}TOOLS{% for tool in tools %}{{ tool.function.name }}{% endfor %}|{% endif %}"
    "{% for m in messages %}{{ m.role }}:{{ m.content }}{% for call in m.tool_calls or [] %}"
    "CALL {{ call.function.name }} {{ call.function.arguments | tojson }}{% endfor %}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)
"""A template with a form of its own for tools, calls and results."""
NONE = "{% for m in messages %}{{ m.role }}:{{ m.content }}<|im_end|>{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
calls = st.lists(
    st.builds(
        lambda name, arguments: {"name": name, "arguments": arguments},
        st.text(min_size=1),
        st.dictionaries(st.text(), json_values, max_size=3),
    ),
    min_size=1,
    max_size=3,
)


@pytest.mark.parametrize(
    "arguments",
    [
        "{1, 2}",
        'b"q"',
        "...",
        "1+2j",
        "{(1, 2): 1}",
        "NaN",
        "1e999",
        '"\\ud800"',
        "[" * 101 + "]" * 101,
        "[" * 900 + "]" * 900,
    ],
)
def test_a_call_that_json_cannot_hold_is_content(arguments):
    for text in (
        f'<tool_call>{{"name": "f", "arguments": {{"a": {arguments}}}}}</tool_call>',
        f"""<tool_call>{{'name': 'f', 'arguments': '{{"a": {arguments}}}'}}</tool_call>""",
    ):
        assert tool_calls.parse_tool_calls(text) == (text, [])
    name = '<tool_call>{"name": "\\ud800", "arguments": {}}</tool_call>'
    assert tool_calls.parse_tool_calls(name) == (name, [])


def test_python_literals_become_values_of_json():
    text = "<tool_call>{'name': 'f', 'arguments': {'a': (1, None), 2: True}}</tool_call>"
    (call,) = tool_calls.parse_tool_calls(text)[1]
    assert call["function"] == {"name": "f", "arguments": {"a": [1, None], "2": True}}


@given(said=st.sampled_from(["", "Let me look.", "Two\nlines"]), called=calls)
def test_what_is_written_is_read_again(said, called):
    wrapped = [{"type": "function", "function": call} for call in called]
    answer = tool_calls.to_answer(Message("assistant", said, tool_calls=wrapped), PLACE)
    again = tool_calls.to_message(answer)
    assert again.content == said
    assert [call["function"] for call in again.tool_calls] == called
    assert tool_calls.to_answer(again, PLACE) == answer


@pytest.mark.parametrize(
    "text",
    [
        "no call",
        f"{WRITTEN} and then more",
        "<tool_call>{city}</tool_call>",
        '<tool_call>{"name": 5}</tool_call>',
        '<tool_call>["weather"]</tool_call>',
        '<tool_call>{"name": "f", "arguments": [1]}</tool_call>',
        "<tool_call>",
    ],
)
def test_what_is_no_call_is_said(text):
    assert tool_calls.parse_tool_calls(text) == (text, [])


def as_a_pattern_says(text):
    """What a text says, its calls behind it; in cubic time, so for short texts."""
    call = re.compile(r"<tool_call>\s*(.*?)\s*</tool_call>", re.DOTALL)
    found = list(call.finditer(text))
    if not found or call.sub("", text[found[0].start() :]).strip():
        return text, []
    calls = [tool_calls._call(match[1], f"call{number:05d}") for number, match in enumerate(found)]
    return (text, []) if None in calls else (text[: found[0].start()].rstrip(), calls)


PIECES = ["<tool_call>", "</tool_call>", " ", "\n", "\x1c", "\u2003", "<", "tool_call>", "x", '{"name": "f"}']


@given(st.lists(st.sampled_from(PIECES), max_size=12).map("".join))
def test_calls_are_those_between_the_nearest_tags(text):
    assert tool_calls.parse_tool_calls(text) == as_a_pattern_says(text)


@pytest.mark.parametrize(
    "text",
    [
        "<tool_call>" + " " * 100_000,
        "<tool_call>\n" * 10_000,
        "<tool_call>" + " " * 100_000 + "x</tool_call>",
        "<tool_call></tool_call>" * 5_000,
        "<tool_call>" + " {" * 50_000 + "</tool_call>",
        "</tool_call>" * 10_000,
    ],
    ids=["blanks", "openings", "blanks inside", "pairs", "braces", "ends"],
)
def test_no_answer_holds_its_reader_up(text):
    began = time.perf_counter()
    assert tool_calls.parse_tool_calls(text) == (text, [])
    assert time.perf_counter() - began < 0.5


def test_a_plain_answer_that_looks_like_a_call_stays_text():
    assert tool_calls.to_message(ReferenceAnswer(WRITTEN, PLACE)) == Message("assistant", WRITTEN)


@pytest.mark.parametrize(
    ("text", "bare"),
    [
        ("sun", "sun"),
        ("<tool_response>\nsun\n</tool_response>", "sun"),
        ("<tool_response>a</tool_response>\n<tool_response>b</tool_response>",) * 2,
        ("<tool_response>a",) * 2,
    ],
)
def test_results_without_their_tags(text, bare):
    assert tool_calls.strip_result_tags(text) == bare


def test_a_template_with_tools_writes_them_itself():
    chat = Template(OWN)
    assert (chat.renders_tool_calls, chat.renders_tools) == (True, True)
    assert chat.renders_other_tool_calls  # CALL weather {...}
    text = chat.render([ASK, Message("assistant", "", tool_calls=[CALL]), Message("tool", "sun")], tools=[TOOL])
    assert text == (
        'TOOLSweather|user:Weather?<|im_end|>assistant:CALL weather {"city": "Paris"}<|im_end|>tool:sun<|im_end|>'
    )


def test_a_template_without_tools_gets_them_as_text():
    chat = Template(NONE)
    assert (chat.renders_tool_calls, chat.renders_tools) == (False, False)
    assert not chat.renders_other_tool_calls
    results = [Message("tool", "sun"), Message("tool", "wind")]
    text = chat.render([ASK, Message("assistant", "Let me look.", tool_calls=[CALL]), *results], tools=[TOOL])
    offer = tool_calls.OFFER.format(tools=json.dumps(TOOL))
    assert text == (
        f"system:{offer}<|im_end|>user:Weather?<|im_end|>assistant:Let me look.\n{WRITTEN}<|im_end|>"
        "user:<tool_response>\nsun\n</tool_response>\n<tool_response>\nwind\n</tool_response><|im_end|>"
    )
    assert '<tool_call>\n{"name": "...", "arguments": {...}}\n</tool_call>' in offer


def test_offered_tools_join_the_system_text_and_are_not_said_twice():
    chat = Template(NONE)
    offer = tool_calls.OFFER.format(tools=json.dumps(TOOL))
    assert chat.render([Message("system", "Be brief."), ASK], tools=[TOOL]).startswith(f"system:Be brief.\n\n{offer}<|")
    told = Message("system", "You may call <tools>[weather]</tools>")
    assert chat.render([told, ASK], tools=[TOOL]) == f"system:{told.content}<|im_end|>user:Weather?<|im_end|>"


def test_a_template_that_refuses_the_role_tool_has_no_calls():
    source = "{% for m in messages %}{% if m.role == 'tool' %}{{ raise_exception('no') }}{% endif %}{{ m.content }}{% endfor %}"
    assert Template(source).render([ASK, Message("assistant", "", tool_calls=[CALL]), Message("tool", "sun")]) == (
        f"Weather?{WRITTEN}<tool_response>\nsun\n</tool_response>"
    )


@pytest.fixture(scope="module")
def tokenizer(tiny_model):
    return Tokenizer(tiny_model)


def learned(tokenizer, source, example, **changes):
    """Learned runs of the first answer's whole sequence, as text."""
    chosen = {"end_of_turn": 2, "train_on": "answer", **changes}
    (found,) = LossMasker(Template(source, "", "<|im_end|>"), tokenizer, **chosen).mask([example])
    ids = found.prompt.ids + found.answers[0].ids
    flags = [False, *found.prompt.trained, *found.answers[0].trained, False]
    edges = [place for place in range(len(ids) + 1) if flags[place] != flags[place + 1]]
    return [tokenizer.text_of(ids[start:end]) for start, end in zip(edges[::2], edges[1::2], strict=True)]


def call_example(*before):
    answer = tool_calls.to_answer(Message("assistant", "Let me look.", tool_calls=[CALL]), PLACE)
    return Example("e", PLACE, [*before, ASK], [answer], tools=[TOOL])


@pytest.mark.parametrize("source", [NONE, builtin_templates.get_template("chatml")], ids=["prefixes", "marks"])
def test_a_final_call_is_learned_as_text(tokenizer, source):
    assert learned(tokenizer, source, call_example()) == [f"Let me look.\n{WRITTEN}<|im_end|>"]


def test_a_final_call_is_learned_in_the_form_of_the_template(tokenizer):
    wanted = 'Let me look.CALL weather {"city": "Paris"}<|im_end|>'
    assert learned(tokenizer, OWN, call_example()) == [wanted]
    earlier = [ASK, Message("assistant", "", tool_calls=[CALL], train=True), Message("tool", "sun")]
    earlier += [Message("assistant", "Sunny.", train=False)]
    found = learned(tokenizer, OWN, call_example(*earlier))
    assert found == ['CALL weather {"city": "Paris"}<|im_end|>', wanted]


FIRST = [Segment("Sun", train=True), Segment("ny.", train=False)]
LAST = [Segment(" Sun", train=False), Segment("ny. ", train=True)]


@pytest.mark.parametrize(
    "source",
    [NONE, builtin_templates.get_template("chatml"), NONE.replace("m.content", "m.content | trim")],
    ids=["prefixes", "marks", "trimmed"],
)
def test_parts_of_an_answer_and_of_an_earlier_turn(tokenizer, source):
    answers = [ReferenceAnswer(" Sunny. ", PLACE, parts=LAST)]
    final = Example("e", PLACE, [ASK], answers)
    end = "" if "trim" in source else " "
    assert learned(tokenizer, source, final) == [f"ny.{end}<|im_end|>"]
    earlier = Message("assistant", "Sunny.", parts=FIRST)
    both = Example("e", PLACE, [ASK, earlier, ASK], answers)
    assert learned(tokenizer, source, both) == [f"ny.{end}<|im_end|>"]
    assert learned(tokenizer, source, both, train_on="assistant") == ["Sun", f"ny.{end}<|im_end|>"]


def test_the_end_of_a_turn_is_not_learned_behind_a_part_that_is_not(tokenizer):
    assert learned(tokenizer, NONE, Example("e", PLACE, [ASK], [ReferenceAnswer("Sunny.", PLACE, parts=FIRST)])) == [
        "Sun"
    ]


def test_parts_that_the_template_changes_are_an_error(tokenizer):
    with pytest.raises(DataError) as caught:
        learned(
            tokenizer,
            NONE.replace("m.content", "m.content | upper"),
            Example("e", PLACE, [ASK], [ReferenceAnswer("Sunny.", PLACE, parts=FIRST)]),
        )
    assert caught.value.message == (
        "in.jsonl:3: only some segments of this turn are trained, but the chat template changes the turn's text, "
        "so the segments cannot be located: "
        "'user:WEATHER?<|im_end|>assistant:SUNNY.<|im_end|>'"
    )
    assert (
        caught.value.hint
        == "give the row as segments (each with text and label), or set one train flag for the whole turn"
    )


def test_many_results_in_a_row_are_joined_once(monkeypatch):
    joined = []
    own = tool_calls.replace
    monkeypatch.setattr(tool_calls, "replace", lambda turn, **new: joined.append(1) or own(turn, **new))
    results = [Message("tool", f"r{number}") for number in range(50)]
    turns = tool_calls.inline_tools([ASK, *results, ASK, *results], [], own_calls=False, own_tools=True)
    body = "\n".join(f"<tool_response>\nr{number}\n</tool_response>" for number in range(50))
    assert turns == [ASK, Message("user", body), ASK, Message("user", body)]
    assert not joined


def test_a_template_that_writes_calls_between_tags_is_read() -> None:
    source = (
        "{% for message in messages %}{{ message['role'] }}:{{ message['content'] }}{% for call in message['tool_calls'] or [] %}"
        "<tool_call>\n{{ call['function'] | tojson }}\n</tool_call>{% endfor %}<|im_end|>{% endfor %}"
    )
    chat = Template(source)
    assert chat.renders_tool_calls
    assert not chat.renders_other_tool_calls
