"""Every known format that fits supervised tuning, end to end: a file, ingest, the mask of a real tokenizer, one fit."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from tunectl.artifacts import atomic_io
from tunectl.artifacts.records import Example
from tunectl.chat import model_spec, template
from tunectl.chat.loss_mask import LossMasker, TokenizedExample
from tunectl.chat.tokenizer import Tokenizer
from tunectl.config.schema.ingest import IngestStage
from tunectl.config.schema.sft import SftStage
from tunectl.pipeline.stages import ingest, sft

ROOT = Path(__file__).parents[2]
END = "<|im_end|>"
ASK = {"role": "user", "content": "Weather?"}
SAY = {"role": "assistant", "content": "Sunny."}
CALL = {"name": "weather", "arguments": {"city": "Paris"}}
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}
OPENAI_CALL = {"id": "call_1", "type": "function", "function": {**CALL, "arguments": json.dumps(CALL["arguments"])}}
WRITTEN = '<tool_call>\n{"name": "weather", "arguments": {"city": "Paris"}}\n</tool_call>'


@dataclass(frozen=True)
class Case:
    """Rows of one format, how they are read, and what the model is asked to learn of them."""

    format: str
    rows: list[dict[str, Any]]
    learned: list[str]
    """Of each answer in turn, the learned runs."""
    shown: tuple[str, ...] = ()
    """Texts that stand before what is learned first."""
    ending: str = "jsonl"
    settings: dict[str, Any] = field(default_factory=dict)


CASES = {
    "text": Case("text", [{"text": "Once upon a time."}], ["Once upon a time."]),
    "prompt and completion": Case(
        "prompt_completion", [{"prompt": "Weather?", "completion": "Sunny."}], [f"Sunny.{END}"], ("Weather?",)
    ),
    "prompt and completion as messages": Case(
        "prompt_completion", [{"prompt": [ASK, SAY, ASK], "completion": [SAY]}], [f"Sunny.{END}"], ("Sunny.",)
    ),
    "alpaca": Case(
        "alpaca",
        [
            {
                "instruction": "Say it.",
                "input": "Now",
                "output": "It.",
                "system": "Be brief.",
                "history": [["Hi", "Hello"]],
            }
        ],
        [f"It.{END}"],
        ("Be brief.", "Hi", "Hello", "Say it.\nNow"),
    ),
    "alpaca with response": Case(
        "alpaca", [{"instruction": "Say it.", "input": "", "response": "It."}], [f"It.{END}"], ("Say it.",)
    ),
    "question and answer": Case("query_response", [{"question": "Who?", "answer": "Me."}], [f"Me.{END}"], ("Who?",)),
    "openorca": Case(
        "openorca",
        [{"system_prompt": "Be brief.", "question": "Who?", "response": "Me."}],
        [f"Me.{END}"],
        ("Be brief.", "Who?"),
    ),
    "article, question and answer": Case(
        "article_question",
        [{"article": "It was me.", "question": "Who?", "answer": "You."}],
        [f"You.{END}"],
        ("It was me.\n\nWho?",),
    ),
    "query and response": Case(
        "query_response",
        [{"query": "Who?", "response": "Me.", "history": [["Hi", "Hello"]], "system": "Be brief."}],
        [f"Me.{END}"],
        ("Be brief.", "Hi", "Hello", "Who?"),
    ),
    "swift's other names": Case(
        "query_response", [{"problem": "1+1", "solution": "2", "answer_key": "B"}], [f"2{END}"], ("1+1",)
    ),
    "several targets": Case(
        "query_response",
        [{"question": "Capital?", "targets": ["Paris", "paris"]}],
        [f"Paris{END}", f"paris{END}"],
        ("Capital?",),
    ),
    "openai messages": Case(
        "messages",
        [{"messages": [{"role": "system", "content": "Be brief."}, ASK, SAY]}],
        [f"Sunny.{END}"],
        ("Be brief.", "Weather?"),
    ),
    "a tool call on the way": Case(
        "messages",
        [
            {
                "messages": [
                    ASK,
                    {"role": "assistant", "content": None, "tool_calls": [OPENAI_CALL]},
                    {"role": "tool", "tool_call_id": "call_1", "content": "sun"},
                    SAY,
                ],
                "tools": json.dumps([TOOL]),
            }
        ],
        [f"Sunny.{END}"],
        ('"name": "weather"', "Weather?", WRITTEN, "<tool_response>\nsun\n</tool_response>"),
    ),
    "a tool call at the end": Case(
        "messages",
        [{"messages": [ASK, {"role": "assistant", "tool_calls": [OPENAI_CALL]}], "tools": [TOOL]}],
        [f"{WRITTEN}{END}"],
        ("<tools>", "Weather?"),
    ),
    **{
        f"turns with {key}": Case(
            "messages",
            [
                {
                    "messages": [
                        ASK,
                        {**SAY, key: 1},
                        ASK,
                        {"role": "assistant", "content": "Rainy.", key: 0},
                        ASK,
                        {"role": "assistant", "content": "Windy.", key: 1},
                    ]
                }
            ],
            [f"Sunny.{END}|Windy.{END}"],
            ("Weather?",),
        )
        for key in ("train", "loss", "weight")
    },
    "sharegpt": Case(
        "sharegpt",
        [
            {
                "conversations": [{"from": "human", "value": "Weather?"}, {"from": "gpt", "value": "Sunny."}],
                "system": "Be brief.",
            }
        ],
        [f"Sunny.{END}"],
        ("Be brief.", "Weather?"),
    ),
    "sharegpt with tools": Case(
        "sharegpt",
        [
            {
                "conversations": [
                    {"from": "human", "value": "Weather?"},
                    {"from": "function_call", "value": json.dumps(CALL)},
                    {"from": "observation", "value": "sun"},
                    {"from": "gpt", "value": "Sunny."},
                ],
                "tools": json.dumps([TOOL["function"]]),
            },
            {
                "conversations": [
                    {"from": "human", "value": "Weather there?"},
                    {"from": "function_call", "value": json.dumps(CALL)},
                ],
                "tools": json.dumps([TOOL["function"]]),
            },
        ],
        [f"Sunny.{END}", f"{WRITTEN}{END}"],
        ("<tools>", "Weather?"),
    ),
    "sharegpt with calls as text": Case(
        "sharegpt",
        [
            {
                "conversations": [
                    {"from": "system", "value": "You may call: <tools>[weather]</tools>"},
                    {"from": "human", "value": "Weather?"},
                    {"from": "gpt", "value": WRITTEN},
                    {"from": "tool", "value": "<tool_response>\nsun\n</tool_response>"},
                    {"from": "gpt", "value": "Sunny."},
                ]
            }
        ],
        [f"Sunny.{END}"],
        (WRITTEN, "<tool_response>\nsun\n</tool_response>"),
    ),
    "sharegpt of swift": Case(
        "sharegpt_pairs",
        [{"conversation": [{"human": "Hi", "assistant": "Hello"}, {"human": "Weather?", "assistant": "Sunny."}]}],
        [f"Sunny.{END}"],
        ("Hi", "Hello", "Weather?"),
    ),
    "content parts": Case(
        "messages",
        [{"messages": [ASK, {"role": "assistant", "content": [{"type": "text", "text": "Sunny."}]}]}],
        [f"Sunny.{END}"],
        ("Weather?",),
    ),
    "content parts with train flags": Case(
        "messages",
        [
            {
                "messages": [
                    ASK,
                    {
                        "role": "assistant",
                        "content": [
                            {"type": "text", "text": "Well, ", "train": False},
                            {"type": "text", "text": "sunny.", "train": True},
                        ],
                    },
                ]
            }
        ],
        [f"sunny.{END}"],
        ("Weather?", "Well, "),
    ),
    "segments": Case(
        "segments",
        [{"segments": [{"text": "Q: who? ", "label": False}, {"text": "Me.", "label": True}]}],
        ["Me."],
        ("Q: who? ",),
    ),
    "production log": Case(
        "production_log",
        [
            {
                "timestamp": 1,
                "workload_id": "w",
                "client_id": "c",
                "request": {"model": "m", "messages": [ASK]},
                "response": {"choices": [{"message": SAY}]},
            }
        ],
        [f"Sunny.{END}"],
        ("Weather?",),
    ),
    "pre-tokenized": Case(
        "tokens",
        [{"input_ids": [42, 75, 3], "attention_mask": [1, 1, 1], "labels": [-100, 75, 3]}],
        ["i!"],
    ),
    "chosen columns of a CSV file": Case(
        "columns",
        [
            {"who": "Ann", "what": "Hi", "reply": "Hello", "rule": "Be brief."},
            {"who": "Ann", "what": "Weather?", "reply": "Sunny.", "rule": ""},
        ],
        [f"Hello{END}", f"Sunny.{END}"],
        ("Be brief.", "Ann\n\nHi"),
        ending="csv",
        settings={
            "columns": {
                "prompt": ["who", "what"],
                "answer": "reply",
                "system": "rule",
            }
        },
    ),
    "chosen columns of a Parquet file": Case(
        "columns",
        [{"mr": "name[X]", "ref": "X."}],
        [f"X.{END}"],
        ("name[X]",),
        ending="parquet",
        settings={"columns": {"prompt": ["mr"], "answer": "ref"}},
    ),
}


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def written(name: str, case: Case) -> Path:
    """The rows as a file of the kind that the case wants."""
    path = Path(f"{name.replace(' ', '_').replace(chr(39), '')}.{case.ending}")
    if case.ending == "csv":
        with path.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, list(case.rows[0]))
            writer.writeheader()
            writer.writerows(case.rows)
    elif case.ending == "parquet":
        pyarrow = pytest.importorskip("pyarrow")
        pytest.importorskip("pyarrow.parquet").write_table(pyarrow.Table.from_pylist(case.rows), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in case.rows))
    return path


def taken(name: str, case: Case) -> list[Example]:
    """What ingest makes of the file; nothing may be lost, and the format is the one that is meant."""
    values = yaml.safe_load((ROOT / "conf/ingest/source/files.yaml").read_text())
    columns = {**values["columns"], **case.settings.get("columns", {})}
    source = {**values, "path": str(written(name, case)), "holds": "examples", "columns": columns}
    out = Path("out") / name.replace(" ", "_")
    out.mkdir(parents=True)
    stage = IngestStage.model_validate({"ingest": {"sources": {"x": source}, "max_rejected_share": 0.5}})
    ingest.run(stage, ingest.Inputs(), ingest.Outputs(artifact=out))
    decided = json.loads((out / "decisions.json").read_text())
    assert case.format in json.dumps(decided)
    return list(atomic_io.read_rows(out / "examples.jsonl", Example))


def masker(model: Path) -> LossMasker:
    end = model_spec.load(model).eot_token.id
    return LossMasker(template.load(model), Tokenizer(model), end_of_turn=end, train_on="answer")


def sequences(tokenizer: Tokenizer, masked: list[TokenizedExample]) -> list[tuple[str, str]]:
    """Of each answer: what is learned (runs apart by '|'), and the text up to there."""
    found = []
    for item in masked:
        for answer in item.answers:
            ids, flags = item.prompt.ids + answer.ids, item.prompt.trained + answer.trained
            edges = [at for at, flag in enumerate(flags) if flag != (flags[at - 1] if at else False)] + [len(ids)]
            runs = [tokenizer.text_of(ids[a:b]) for a, b in zip(edges[:-1:2], edges[1::2], strict=True)]
            found.append(("|".join(runs), tokenizer.text_of(ids[: edges[0]])))
    return found


@pytest.mark.parametrize("name", CASES)
def test_a_file_of_this_format_is_learned_as_meant(name, tiny_model):
    case = CASES[name]
    masked = masker(tiny_model).mask(taken(name, case))
    found = sequences(Tokenizer(tiny_model), masked)
    assert [learned for learned, _ in found] == case.learned
    assert all(text in found[0][1] for text in case.shown), found[0][1]


def test_the_users_own_split_is_kept():
    rows = [{"prompt": name, "completion": "b", "split": name.upper()} for name in ("train", "validation", "test")]
    case = Case("prompt_completion", rows, [])
    assert [item.split for item in taken("own split", case)] == ["train", "validation", "test"]


def test_all_of_them_train(tiny_model, tmp_path):
    pytest.importorskip("torch")
    every = [example for name, case in CASES.items() for example in taken(name, case)]
    atomic_io.write_rows(tmp_path / "split" / "train.jsonl", every)
    atomic_io.write_rows(tmp_path / "split" / "validation.jsonl", every)
    atomic_io.write_json(tmp_path / "cpt" / "passed_through.json", {"reason": "off"})
    section = yaml.safe_load((ROOT / "conf/sft/lora.yaml").read_text())
    section |= {"learning_rate": 0.005, "lora_rank": 2, "target_modules": ["q_proj", "v_proj"], "early_stopping": None}
    profile = yaml.safe_load((ROOT / "conf/hardware/cpu.yaml").read_text())
    cfg = SftStage.model_validate({"sft": section, "seed": 3, "hardware": profile, "project": "test"})
    for folder in ("artifact", "plots"):
        (tmp_path / folder).mkdir()
    outputs = sft.Outputs(tmp_path / "artifact", tmp_path / "plots", tmp_path / "work")
    found = sft.run(cfg, sft.Inputs(tiny_model, tmp_path / "split", tmp_path / "cpt"), outputs)
    assert found.rejected == 0
    assert found.answers == sum(len(case.learned) for case in CASES.values())
    assert found.validation_loss < found.validation_loss_before
