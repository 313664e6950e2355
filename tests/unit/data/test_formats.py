"""Every instruction format: what a row of it means, how it is recognized, and which mistakes have a name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from tunectl.artifacts.records import Message, Segment, Source, Tokens
from tunectl.config.schema.ingest import FileSource
from tunectl.data.formats.format_registry import FORMATS, UnsupportedFormat, detect_format, find
from tunectl.data.readers.conversation import MAX_TURNS
from tunectl.data.readers.file_discovery import SourceFile
from tunectl.data.readers.format_detection import DetectedFormat, detect
from tunectl.data.readers.record_builder import build_record
from tunectl.data.readers.row import FormatMismatchError, RawRow, RowError, parse_json_value, scalar

VALUES = yaml.safe_load(Path("conf/ingest/source/files.yaml").read_text())
SYSTEM = {"role": "system", "content": "Be brief."}
ASK = {"role": "user", "content": "Weather in Paris?"}
SAY = {"role": "assistant", "content": "Sunny."}
CALL = {"name": "weather", "arguments": {"city": "Paris"}}
TOOL = {"name": "weather", "parameters": {"type": "object"}}


def reading(**changes):
    columns = {**VALUES["columns"], **changes.pop("columns", {})}
    return FileSource(**{**VALUES, "path": "x", "columns": columns, **changes})


def example(row, **changes):
    settings = reading(holds="examples", **changes)
    made = RawRow(Source("f.jsonl", 1), row)
    return build_record(
        made,
        detect(settings, SourceFile(Path("f.jsonl"), "f.jsonl", "jsonl"), [made], "ingest.sources.x"),
        settings,
        "x",
    )


def turns(found):
    return [(item.role, item.content) for item in found.messages], [answer.text for answer in found.answers]


def reason(row, **changes):
    with pytest.raises(RowError) as caught:
        example(row, **changes)
    return caught.value.reason


ROWS = {
    "prompt_completion": {"prompt": "Hi", "completion": "Hello"},
    "alpaca": {"instruction": "Hi", "input": "", "output": "Hello"},
    "openorca": {"id": "1", "system_prompt": "", "question": "Hi", "response": "Hello"},
    "query_response": {"query": "Hi", "response": "Hello", "history": []},
    "messages": {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]},
    "sharegpt": {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]},
    "sharegpt_pairs": {"conversation": [{"human": "Hi", "assistant": "Hello"}]},
    "production_log": {
        "timestamp": 1,
        "workload_id": "w",
        "client_id": "c",
        "request": {"model": "m", "messages": [{"role": "user", "content": "Hi"}]},
        "response": {"choices": [{"message": {"role": "assistant", "content": "Hello"}}]},
    },
}


@pytest.mark.parametrize("name", ROWS)
def test_every_chat_format_is_recognized_and_means_the_same(name):
    found = detect_format(ROWS[name])
    assert found is not None
    assert found.name == name
    assert turns(example(ROWS[name])) == ([("user", "Hi")], ["Hello"])


@pytest.mark.parametrize(
    "name", ["alpaca", "query_response", "messages", "sharegpt", "sharegpt_pairs", "production_log"]
)
def test_lists_and_objects_may_be_json_in_a_cell(name):
    cells = {key: value if isinstance(value, str) else json.dumps(value) for key, value in ROWS[name].items()}
    assert detect_format(cells).name == name
    assert turns(example(cells)) == ([("user", "Hi")], ["Hello"])


@pytest.mark.parametrize(
    ("row", "name"),
    [
        ({"text": "t"}, "text"),
        ({"instruction": "a", "response": "b"}, "alpaca"),
        ({"question": "a", "answer": "b"}, "query_response"),
        ({"problem": "a", "solution": "b", "answer_key": "c"}, "query_response"),
        ({"question": "a", "targets": ["b"]}, "query_response"),
        ({"article": "t", "question": "a", "answer": "b"}, "article_question"),
        ({"instruction": "a", "context": "t", "response": "b", "category": "qa"}, "alpaca"),
        (
            {"id": "1", "context": "t", "question": "a", "answers": {"text": ["b"], "answer_start": [0]}},
            "article_question",
        ),
        ({"segments": [{"text": "a", "label": True}]}, "segments"),
        ({"input_ids": [1], "attention_mask": [1], "labels": [1]}, "tokens"),
        ({"text": "t", "messages": [{"role": "user", "content": "a"}]}, "messages"),
    ],
)
def test_columns_tell_the_format(row, name):
    assert detect_format(row).name == name


@pytest.mark.parametrize(
    ("row", "name"),
    [
        ({"prompt": "a", "chosen": "b", "rejected": "c"}, "preference"),
        ({"chosen": "b", "rejected": "c"}, "preference"),
        (
            {"conversations": [], "chosen": {"from": "gpt", "value": "b"}, "rejected": {"from": "gpt", "value": "c"}},
            "preference",
        ),
        ({"messages": [], "rejected_response": "c"}, "preference"),
        ({"messages": [], "rejected_messages": []}, "preference"),
        ({"instruction": "a", "chosen_response": "b", "rejected_response": "c"}, "preference"),
        ({"question": "a", "chosen": "b", "rejected": "c", "margin": 1.0}, "preference"),
        ({"prompt": "a", "completion": "b", "label": True}, "unpaired"),
        ({"prompt": "a", "completion": "b", "label": "False"}, "unpaired"),
        ({"conversations": [], "kto_tag": False}, "unpaired"),
        ({"messages": [], "label": False}, "unpaired"),
        ({"prompt": "a", "completions": ["b"], "labels": [True]}, "stepwise"),
        ({"prompt": "a"}, "prompt_only"),
    ],
)
def test_preferences_are_recognized_and_refused(row, name):
    found = detect_format(row)
    assert isinstance(found, UnsupportedFormat)
    assert found.name == name


def test_a_text_label_beside_messages_is_no_preference():
    assert detect_format({**ROWS["messages"], "label": "weather"}).name == "messages"


def test_null_columns_of_a_wide_table_do_not_count():
    assert detect_format({**ROWS["messages"], "chosen": None, "rejected": None, "prompt": None}).name == "messages"


def test_nothing_known():
    assert detect_format({"facts": "a", "said": "b"}) is None


def test_names_of_formats_are_those_of_the_schema():
    from typing import get_args

    from tunectl.config.schema.ingest import FormatName

    assert {item.name for item in FORMATS} | {"auto", "columns"} == set(get_args(FormatName))
    assert find("alpaca").name == "alpaca"


def test_alpaca_with_input_system_and_history():
    row = {
        "instruction": "Translate.",
        "input": "chat",
        "output": "cat",
        "system": "Be brief.",
        "history": [["Translate: chien", "dog"]],
    }
    before = [("system", "Be brief."), ("user", "Translate: chien"), ("assistant", "dog"), ("user", "Translate.\nchat")]
    assert turns(example(row)) == (before, ["cat"])


def test_openorca_system_prompt():
    row = {"system_prompt": "Be brief.", "question": "Hi", "response": "Hello"}
    assert turns(example(row)) == ([("system", "Be brief."), ("user", "Hi")], ["Hello"])


def test_article_before_question():
    row = {"article": "A text.", "question": "What?", "answer": "That."}
    assert turns(example(row)) == ([("user", "A text.\n\nWhat?")], ["That."])


def test_context_of_dolly_and_squad_is_not_dropped():
    dolly = {"instruction": "Who?", "context": "Ann baked.", "response": "Ann."}
    assert turns(example(dolly)) == ([("user", "Who?\nAnn baked.")], ["Ann."])
    squad = {"context": "Ann baked.", "question": "Who?", "answers": {"text": ["Ann", "Ann."], "answer_start": [0, 0]}}
    assert turns(example(squad)) == ([("user", "Ann baked.\n\nWho?")], ["Ann", "Ann."])


def test_columns_that_nothing_reads_are_reported():
    def unused(row, **changes):
        return detect(reading(**changes), SourceFile(Path("f"), "f", "csv"), [RawRow(Source("f", 1), row)], "k").unused

    row = {"problem": "a", "solution": "b", "answer": "c", "meta": {"area": "x"}, "split": "train", "note": "d"}
    assert unused(row) == ("answer", "meta", "note")
    assert unused(row, fields={"area": "meta.area"}, prompt={"template": "{note}", "system": None}) == ("answer",)
    pins = {"prompt": ["problem"], "answer": "answer"}
    assert unused(row, columns=pins) == ("solution", "meta", "note")


def test_documents_with_a_text_column_are_read_by_it_whatever_else_is_there():
    made = RawRow(Source("f", 1), {"question": "a", "answer": "b", "text": "raw"})
    found = detect(reading(holds="documents"), SourceFile(Path("f"), "f", "csv"), [made], "k")
    assert (found.format, found.holds) == ("text", "documents")


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (3.0, "3"),
        (1234567.0, "1234567"),
        (0.5, "0.5"),
        (True, "true"),
        (float("nan"), None),
        ([1], None),
        (None, None),
        (7, "7"),
    ],
)
def test_values_as_text(value, shown):
    assert scalar(value) == shown


def test_several_targets_are_several_answers():
    assert turns(example({"question": "Capital?", "targets": ["Paris", "paris"]}))[1] == ["Paris", "paris"]


@pytest.mark.parametrize(
    "answer",
    [
        '["Paris", "Rome"]',
        '[{"entity": "Paris"}]',
        '[{"text": "Paris", "label": "place"}]',
        '[{"name": "Ann", "role": "engineer"}]',
        '[{"from": "Paris", "to": "Rome"}]',
        "[{'entity': 'Paris'}]",
        '[{"entity": "Par',
        '{"city": "Paris"}',
        "[1, 2]",
        "[]",
    ],
)
def test_answers_and_inputs_that_are_json_are_texts(answer):
    for row in (
        {"prompt": "Cities?", "completion": answer},
        {"instruction": "Cities?", "output": answer},
        {"question": "Cities?", "answer": answer},
    ):
        assert turns(example(row)) == ([("user", "Cities?")], [answer])
    assert turns(example({"prompt": answer, "completion": "Paris"})) == ([("user", answer)], ["Paris"])


@pytest.mark.parametrize("name", ["answers", "references", "targets"])
def test_several_answers_may_be_json_in_a_cell(name):
    assert turns(example({"question": "Capital?", name: '["Paris", "paris"]'}))[1] == ["Paris", "paris"]
    assert turns(example({"question": "Capital?", name: '["Paris" is right'}))[1] == ['["Paris" is right']
    pinned = example({"q": "Capital?", "a": {name: '["Paris"]'}}, columns={"prompt": ["q"], "answer": f"a.{name}"})
    assert turns(pinned)[1] == ["Paris"]


def test_message_lists_may_be_json_in_a_cell_of_prompt_and_completion():
    row = {"prompt": json.dumps([SYSTEM, ASK]), "completion": json.dumps([SAY])}
    assert turns(example(row)) == ([("system", "Be brief."), ("user", "Weather in Paris?")], ["Sunny."])
    shared = {"prompt": "Weather in Paris?", "completion": '[{"from": "gpt", "value": "Sunny."}]'}
    assert turns(example(shared)) == ([("user", "Weather in Paris?")], ["Sunny."])


@pytest.mark.parametrize(
    ("completion", "expected"),
    [
        ('[{"role": "narrator", "content": "x"}]', "unknown_role"),
        ('[{"content": "x"}]', "wrong_columns"),
        ('[{"role": "assistant", "content": "x"', "wrong_columns"),
        (["Paris", "Rome"], "wrong_columns"),
    ],
)
def test_message_lists_with_mistakes_are_no_texts(completion, expected):
    assert reason({"prompt": "a", "completion": completion}, format="prompt_completion") == expected


def test_prompt_and_completion_as_message_lists():
    row = {"prompt": [SYSTEM, ASK], "completion": [SAY]}
    assert turns(example(row)) == ([("system", "Be brief."), ("user", "Weather in Paris?")], ["Sunny."])


def test_only_the_completion_is_learned_from():
    found = example({"prompt": [ASK, SAY, ASK], "completion": [SAY, ASK, SAY]})
    assert [item.train for item in found.messages if item.role == "assistant"] == [False, None]


def test_openai_tool_calls_and_tools():
    call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Paris"}'}}
    row = {
        "messages": [
            ASK,
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "content": "sun"},
            SAY,
        ],
        "tools": json.dumps([{"type": "function", "function": TOOL}]),
    }
    found = example(row)
    assert found.messages[1].tool_calls == [{"id": "c1", "type": "function", "function": CALL}]
    assert found.messages[2] == Message("tool", "sun")
    assert found.tools == [{"type": "function", "function": TOOL}]
    assert [answer.text for answer in found.answers] == ["Sunny."]


def test_tool_arguments_may_be_an_object_and_results_too():
    call = {"type": "function", "function": CALL}
    row = {
        "messages": [
            ASK,
            {"role": "assistant", "tool_calls": [call]},
            {"role": "tool", "content": {"sky": "blue"}},
            SAY,
        ]
    }
    found = example(row)
    assert found.messages[1].tool_calls == [call]
    assert found.messages[2].content == '{"sky":"blue"}'


def test_sharegpt_function_call_observation_system_and_tools():
    row = {
        "conversations": [
            {"from": "human", "value": "Weather in Paris?"},
            {"from": "function_call", "value": json.dumps(CALL)},
            {"from": "observation", "value": "sun"},
            {"from": "gpt", "value": "Sunny."},
        ],
        "system": "Be brief.",
        "tools": [TOOL],
    }
    found = example(row)
    assert [item.role for item in found.messages] == ["system", "user", "assistant", "tool"]
    assert found.messages[2].tool_calls == [{"type": "function", "function": CALL}]
    assert found.tools == [{"type": "function", "function": TOOL}]


@pytest.mark.parametrize("key", ["train", "training", "loss", "weight"])
def test_turns_say_whether_they_are_learned_from(key):
    found = example({"messages": [ASK, {**SAY, key: 0}, ASK, {**SAY, key: 1}]})
    assert [item.train for item in found.messages] == [None, False, None]
    assert turns(found)[1] == ["Sunny."]


def test_what_follows_the_last_learned_turn_is_left_off():
    found = example({"messages": [ASK, SAY, ASK, {**SAY, "content": "Rainy.", "train": False}]})
    assert turns(found) == ([("user", "Weather in Paris?")], ["Sunny."])


def test_content_parts():
    parts = [{"type": "text", "text": "Sun"}, {"type": "text", "text": "ny."}]
    assert turns(example({"messages": [ASK, {"role": "assistant", "content": parts}]}))[1] == ["Sunny."]
    flagged = [{**part, "train": False} for part in parts]
    found = example({"messages": [ASK, {"role": "assistant", "content": flagged}, ASK, SAY]})
    assert found.messages[1].train is False
    assert found.messages[1].content == "Sunny."


def part(text, **flag):
    return {"type": "text", "text": text, **flag}


@pytest.mark.parametrize(
    ("parts", "train", "pieces"),
    [
        ([part("a", train=False), part("b", train=True)], None, [("a", False), ("b", True)]),
        ([part("a", loss=1), part("b", loss=0)], None, [("a", True), ("b", False)]),
        ([part("a"), part("b", train=True)], None, [("a", False), ("b", True)]),
        ([part("a"), part("b", train=False)], None, [("a", True), ("b", False)]),
        (["a", part("b", weight=0)], None, [("a", True), ("b", False)]),
        ([part("a", train=True), part("", train=False), part("b", train=True)], True, []),
        ([part("a"), part("b")], None, []),
    ],
)
def test_parts_of_a_turn_say_whether_they_are_learned_from(parts, train, pieces):
    found = example({"messages": [ASK, {"role": "assistant", "content": parts}, ASK, SAY]})
    assert (found.messages[1].content, found.messages[1].train) == ("ab", train)
    assert [(piece.text, piece.train) for piece in found.messages[1].parts] == pieces
    (final,) = example({"messages": [ASK, {"role": "assistant", "content": parts}]}).answers
    assert (final.text, [(piece.text, piece.train) for piece in final.parts]) == ("ab", pieces)


def test_a_turn_that_is_not_learned_from_has_no_learned_parts():
    found = example(
        {"messages": [ASK, {"role": "assistant", "train": False, "content": [part("a", train=True), "b"]}, ASK, SAY]}
    )
    assert (found.messages[1].train, found.messages[1].parts) == (False, [])


WRITTEN = '<tool_call>\n{"name": "weather", "arguments": {"city": "Paris"}}\n</tool_call>'


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [ASK, {"role": "assistant", "content": None, "tool_calls": [{"function": CALL}]}]},
        {
            "messages": [
                ASK,
                {"role": "assistant", "function_call": {"name": "weather", "arguments": '{"city": "Paris"}'}},
            ]
        },
        {"messages": [ASK, {"role": "assistant", "content": WRITTEN}]},
        {
            "conversations": [
                {"from": "human", "value": "Weather in Paris?"},
                {"from": "function_call", "value": json.dumps(CALL)},
            ]
        },
        {
            "conversations": [
                {"from": "human", "value": "Weather in Paris?"},
                {"from": "gpt", "value": f"<tool_call>{CALL}</tool_call>"},  # Python's own way to write an object
            ]
        },
        {"prompt": [ASK], "completion": [{"role": "assistant", "tool_calls": [{"function": CALL}]}]},
        {
            "request": {"messages": [ASK]},
            "response": {"choices": [{"message": {"content": None, "tool_calls": [{"function": CALL}]}}] * 2},
        },
    ],
)
def test_a_final_tool_call_is_the_answer(row):
    found = example({**row, "tools": [TOOL]})
    assert turns(found) == ([("user", "Weather in Paris?")], [WRITTEN])
    assert found.answers[0].calls


def test_hermes_calls_and_results_in_texts_are_calls_and_results():
    found = example(
        {
            "conversations": [
                {"from": "human", "value": "Weather in Paris?"},
                {"from": "gpt", "value": f"Let me look.\n{WRITTEN}"},
                {"from": "tool", "value": "<tool_response>\nsun\n</tool_response>"},
                {"from": "gpt", "value": "Sunny."},
            ]
        }
    )
    assert found.messages[1].content == "Let me look."
    assert found.messages[1].tool_calls == [{"id": "call00000", "type": "function", "function": CALL}]
    assert found.messages[2] == Message("tool", "sun")
    assert turns(found)[1] == ["Sunny."]


def test_several_choices_of_a_log_are_several_answers():
    log = ROWS["production_log"]
    choices = [{"message": {"role": "assistant", "content": text}} for text in ("Hello", "Hi there")]
    assert turns(example({**log, "response": {"choices": choices}}))[1] == ["Hello", "Hi there"]


def test_segments():
    row = {"segments": [{"text": "<s>Hi", "label": False}, {"text": "Hello</s>", "label": True}]}
    assert example(row).segments == [Segment("<s>Hi", train=False), Segment("Hello</s>", train=True)]


def test_tokens_without_their_padding():
    row = {"input_ids": [5, 6, 7, 0], "attention_mask": [1, 1, 1, 0], "labels": [-100, 6, 7, -100]}
    assert example(row).tokens == Tokens([5, 6, 7], [-100, 6, 7])
    assert example({"input_ids": [5, 6]}).tokens == Tokens([5, 6], [5, 6])


def test_text_as_example_is_one_learned_segment():
    assert example({"text": "Once upon a time."}).segments == [Segment("Once upon a time.", train=True)]


@pytest.mark.parametrize(
    ("turn_list", "expected"),
    [
        ([], "empty_turn"),
        ([SAY, ASK], "role_order"),
        ([ASK, ASK, SAY], "role_order"),
        ([ASK, SAY, SYSTEM], "role_order"),
        ([ASK, {"role": "tool", "content": "x"}, SAY], "role_order"),
        ([ASK, {"role": "assistant", "tool_calls": [{"function": CALL}]}, SAY], "role_order"),
        ([ASK, {"role": "assistant", "content": " "}], "empty_turn"),
        ([ASK, {"role": "assistant", "content": None}], "empty_turn"),
        ([ASK, SAY, ASK], "last_turn_not_assistant"),
        ([ASK, {**SAY, "train": False}], "nothing_trained"),
        ([ASK, {**SAY, "weight": 0.5}], "bad_train_flag"),
        ([{"role": "narrator", "content": "x"}, SAY], "unknown_role"),
        (
            [ASK, {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{city"}}]}],
            "tool_arguments_not_json",
        ),
        (
            [ASK, {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "[1]"}}]}],
            "tool_arguments_not_json",
        ),
        ([{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}, SAY], "not_text"),
        ([{"role": "user", "content": [{"type": ["text"], "text": "x"}]}, SAY], "not_text"),
        ([{"role": "user", "content": [{"type": {"a": 1}, "text": "x"}]}, SAY], "not_text"),
        ([ASK, {"role": "assistant", "content": [{"text": "a", "train": "no"}]}], "bad_train_flag"),
        ([ASK, "hello"], "wrong_columns"),
        ([ASK, {"content": "no role"}], "wrong_columns"),
        ([ASK, {"role": "assistant", "content": 5}], "wrong_columns"),
        ([ASK, {"role": "assistant", "tool_calls": [{"function": {"arguments": "{}"}}]}], "wrong_columns"),
    ],
)
def test_mistakes_in_a_conversation_have_names(turn_list, expected):
    assert reason({"messages": turn_list}, format="messages") == expected


def test_a_conversation_has_so_many_turns_at_most():
    assert len(example({"messages": [ASK, SAY] * (MAX_TURNS // 2)}).messages) == MAX_TURNS - 1
    assert reason({"messages": [ASK, SAY] * (MAX_TURNS // 2 + 1)}) == "too_long"


@pytest.mark.parametrize(
    ("row", "pinned", "expected"),
    [
        ({"prompt": "a", "completion": " "}, "auto", "empty_turn"),
        ({"instruction": "a", "output": None, "response": None}, "alpaca", "empty_turn"),
        ({"instruction": "a"}, "alpaca", "wrong_columns"),
        ({"instruction": "a", "output": ["b", {}]}, "alpaca", "wrong_columns"),
        ({"instruction": "a", "output": "b", "history": [["x"]]}, "auto", "wrong_columns"),
        ({"messages": [ASK, SAY], "tools": "{"}, "auto", "tools_not_json"),
        ({"messages": [ASK, SAY], "tools": "[1]"}, "auto", "tools_not_json"),
        ({"messages": "{"}, "messages", "wrong_columns"),
        ({"messages": {"role": "user"}}, "messages", "wrong_columns"),
        ({"conversation": [{"human": "a"}]}, "auto", "wrong_columns"),
        ({"segments": [{"text": "a", "label": False}]}, "auto", "nothing_trained"),
        ({"segments": [{"text": "", "label": True}]}, "auto", "empty_turn"),
        ({"segments": [{"text": "a", "label": "yes"}]}, "auto", "wrong_columns"),
        ({"input_ids": [1, 2], "labels": [1]}, "auto", "wrong_labels"),
        ({"input_ids": [1, -2]}, "auto", "wrong_labels"),
        ({"input_ids": [1, 2**31]}, "auto", "wrong_labels"),
        ({"input_ids": [1], "labels": [10**15]}, "auto", "wrong_labels"),
        ({"input_ids": [1], "labels": [-1]}, "auto", "wrong_labels"),
        ({"input_ids": [1], "labels": [-100]}, "auto", "nothing_trained"),
        ({"input_ids": ["a"]}, "auto", "wrong_columns"),
        ({"request": {"messages": [ASK]}, "response": {"error": "busy"}}, "auto", "no_answer"),
        ({"request": {"messages": [ASK]}, "response": {"choices": [{"message": None}]}}, "auto", "wrong_columns"),
        ({"request": {"messages": [ASK]}, "response": {"choices": [{"message": ["a"]}]}}, "auto", "wrong_columns"),
        ({"request": {}, "response": {"choices": []}}, "auto", "wrong_columns"),
        ({"text": " "}, "auto", "no_text"),
    ],
)
def test_mistakes_in_other_formats_have_names(row, pinned, expected):
    assert reason(row, format=pinned) == expected


def test_a_blank_system_turn_is_none():
    assert turns(example({"messages": [{**SYSTEM, "content": ""}, ASK, SAY]}))[0] == [("user", "Weather in Paris?")]


def test_too_long():
    limits = {**VALUES["limits"], "max_characters": 10}
    assert reason({"prompt": "123456", "completion": "12345"}, limits=limits) == "too_long"
    assert turns(example({"prompt": "12345", "completion": "12345"}, limits=limits))[1] == ["12345"]


@pytest.mark.parametrize(
    ("said", "meant"), [("TRAIN", "train"), ("dev", "validation"), ("Validation", "validation"), ("TEST", "test")]
)
def test_users_own_split(said, meant):
    assert example({"prompt": "a", "completion": "b", "split": said}).split == meant


def test_split_column_of_another_meaning_is_left_alone_unless_pinned():
    row = {"prompt": "a", "completion": "b", "split": "banana"}
    assert example(row).split is None
    assert reason(row, columns={"split": "split"}) == "unknown_split"


def test_pinned_columns_template_system_and_fields():
    row = {"mr": "name[X]", "area": "north", "ref": "X is nice.", "meta": {"price": 3}}
    found = example(
        row,
        columns={"prompt": ["mr", "area"], "answer": "ref"},
        prompt={"template": "Say {{this}}: {prompt} ({meta.price})", "system": "Be brief."},
        fields={"where": "area", "price": "meta.price", "none": "nothing"},
    )
    assert turns(found) == ([("system", "Be brief."), ("user", "Say {this}: name[X]\n\nnorth (3)")], ["X is nice."])
    assert found.fields == {"where": "north", "price": "3"}


def test_template_with_an_unknown_column_is_a_misfit():
    with pytest.raises(
        FormatMismatchError, match=r"no column 'town' for prompt\.template; there are prompt, completion"
    ):
        example({"prompt": "a", "completion": "b"}, prompt={"template": "{town}", "system": None})


def test_ids_follow_from_the_input_where_references_are_merged():
    one, two = example({"prompt": "a", "completion": "b"}), example({"prompt": "a", "completion": "c"})
    assert one.id == two.id
    assert example({"prompt": "b", "completion": "b"}).id != one.id
    alone = example({"prompt": "a", "completion": "b"}, merge_references=False)
    assert alone.id != example({"prompt": "a", "completion": "c"}, merge_references=False).id


def test_decision_is_the_likeliest_of_the_sample():
    rows = [RawRow(Source("f", at), {"odd": 1} if at == 1 else ROWS["messages"]) for at in range(1, 6)]
    found = detect(reading(), SourceFile(Path("f"), "f", "jsonl"), rows, "ingest.sources.x")
    assert isinstance(found, DetectedFormat)
    assert (found.format, found.holds) == ("messages", "examples")


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000])
def test_a_cell_that_is_nested_deeply_is_no_json_and_no_crash(text):
    with pytest.raises(FormatMismatchError, match="messages is text that is not JSON"):
        parse_json_value(text, "messages")
