"""The preferences stage: every format, accounts, checks, and every mistake in its exact words."""

from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, datetime
from itertools import count, islice
from pathlib import Path

import pytest
import yaml
from conf_copy import copy_conf
from pydantic import ValidationError

from tunectl.annotation import arena
from tunectl.artifacts import atomic_io, row_counts
from tunectl.artifacts.records import (
    Comparison,
    Example,
    LabeledCompletion,
    Message,
    PreferencePair,
    ReferenceAnswer,
    RejectedRow,
    Source,
)
from tunectl.backends.wiring.preferences import PreferencesBackend
from tunectl.cli.main import main
from tunectl.config.schema.preferences import PreferencesStage
from tunectl.core.errors import DataError
from tunectl.evaluation.protocols import GeneratedText
from tunectl.pipeline.stages import preferences
from tunectl.pipeline.stages.compose import list_declared_paths
from tunectl.preferences.annotation_store import AnnotationEvent, AnnotationTask, Retraction, append_vote, open_store
from tunectl.preferences.meaning_representation import remove_attribute
from tunectl.preferences.simulated_annotator import SampledAnswers

ROOT = Path(__file__).parents[2]
HH = ROOT / "tests" / "data" / "corpora" / "hh_harmless.jsonl.gz"
FILES = yaml.safe_load((ROOT / "conf/preferences/source/files.yaml").read_text())
PROFILE = yaml.safe_load((ROOT / "conf/hardware/cpu.yaml").read_text())
INPUTS = preferences.Inputs(*map(Path, ("model", "cpt", "split", "sft", "feedback")))
OUTPUTS = preferences.Outputs(Path("work"), Path("out"))
DEFAULT = {**yaml.safe_load((ROOT / "conf/preferences/default.yaml").read_text()), "collected": None}
FEEDBACK = yaml.safe_load((ROOT / "conf/feedback/default.yaml").read_text())


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("out", "split", "work"):
        (tmp_path / name).mkdir()
    for part in ("train", "validation", "test"):
        (tmp_path / "split" / f"{part}.jsonl").write_text("")
    return tmp_path


def source(path="pairs.jsonl", **changes):
    columns = {**FILES["columns"], **changes.pop("columns", {})}
    return {**FILES, "path": str(path), "columns": columns, **changes}


def run(seed=17, backend=None, feedback=FEEDBACK, **settings):
    cfg = PreferencesStage(preferences={**DEFAULT, **settings}, feedback=feedback, hardware=PROFILE, seed=seed)
    return preferences.run(cfg, INPUTS, OUTPUTS, backend=backend)


def write(rows, name="pairs.jsonl"):
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows))


def imported(rows, **settings):
    write(rows)
    return run(sources={"x": source()}, **settings)


def fails(rows, **settings):
    with pytest.raises(DataError) as caught:
        imported(rows, **settings)
    return caught.value.message, caught.value.hint


def pairs():
    return [
        pair
        for part in ("train", "validation", "test")
        for pair in atomic_io.read_rows(Path(f"out/{part}.jsonl"), PreferencePair)
    ]


def rejects():
    return [
        (one.source.row, one.reason, one.detail) for one in atomic_io.read_rows(Path("out/rejects.jsonl"), RejectedRow)
    ]


def explicit(count=6, **more):
    return [
        {"prompt": f"Question {n}", "chosen": f"A good answer {n}", "rejected": f"Bad {n}", **more}
        for n in range(count)
    ]


def talk(question="Q?", *answers):
    return [{"role": "user", "content": question}, *({"role": "assistant", "content": text} for text in answers)]


GOOD, BAD = "Yes, at ten.", "No idea."
SAME = {
    "explicit texts": {"prompt": "Q?", "chosen": GOOD, "rejected": BAD},
    "explicit message lists": {
        "prompt": talk(),
        "chosen": [{"role": "assistant", "content": GOOD}],
        "rejected": [{"role": "assistant", "content": BAD}],
    },
    "prompt repeated in the answers": {"prompt": "Q?", "chosen": talk("Q?", GOOD), "rejected": talk("Q?", BAD)},
    "message lists as JSON in a cell": {
        "prompt": "Q?",
        "chosen": json.dumps(talk("Q?", GOOD)),
        "rejected": json.dumps(talk("Q?", BAD)),
    },
    "implicit message lists": {"chosen": talk("Q?", GOOD), "rejected": talk("Q?", BAD)},
    "implicit texts": {"chosen": f"Q? {GOOD}", "rejected": f"Q? {BAD}"},
    "HH transcripts": {
        "chosen": f"\n\nHuman: Q?\n\nAssistant: {GOOD}",
        "rejected": f"\n\nHuman: Q?\n\nAssistant: {BAD}",
    },
    "LLaMA-Factory sharegpt": {
        "conversations": [{"from": "human", "value": "Q?"}],
        "chosen": {"from": "gpt", "value": GOOD},
        "rejected": {"from": "gpt", "value": BAD},
    },
    "LLaMA-Factory alpaca": {"instruction": "Q?", "input": "", "chosen": GOOD, "rejected": BAD},
    "swift rejected_response": {"messages": talk("Q?", GOOD), "rejected_response": BAD},
    "swift rejected_messages": {"messages": talk("Q?", GOOD), "rejected_messages": talk("Q?", BAD)},
    "swift rejected_messages, the answer alone": {
        "messages": talk("Q?", GOOD),
        "rejected_messages": [{"role": "assistant", "content": BAD}],
    },
    "Axolotl intel": {"question": "Q?", "chosen": GOOD, "rejected": BAD},
    "Axolotl argilla": {"instruction": "Q?", "chosen_response": GOOD, "rejected_response": BAD},
    "Axolotl icr": {"input": "Q?", "chosen": GOOD, "rejected": BAD},
    "Axolotl chat_template": {
        "messages": talk(),
        "chosen": {"role": "assistant", "content": GOOD},
        "rejected": {"role": "assistant", "content": BAD},
    },
}


def test_answers_and_inputs_that_are_json_are_texts():
    rows = [
        {
            "prompt": json.dumps({"name": f"Cafe {n}"}),
            "chosen": json.dumps({"city": "Paris"}),
            "rejected": ('[{"city": 1}]', '{"city": "Par', '[{"text": "Rome", "label": "city"}]')[n % 3],
        }
        for n in range(3)
    ]
    assert imported(rows).pairs == 3
    assert {(pair.chosen[0].content, pair.rejected[0].content) for pair in pairs()} == {
        ('{"city": "Paris"}', '[{"city": 1}]'),
        ('{"city": "Paris"}', '{"city": "Par'),
        ('{"city": "Paris"}', '[{"text": "Rome", "label": "city"}]'),
    }
    assert {pair.messages[0].content for pair in pairs()} == {row["prompt"] for row in rows}


TOOL = {"type": "function", "function": {"name": "hours", "parameters": {"type": "object"}}}
CALL = {"type": "function", "function": {"name": "hours", "arguments": {"shop": "Peach"}}}


def test_tools_and_tool_calls_are_kept_and_name_the_input_as_in_split():
    calling = {"role": "assistant", "content": "", "tool_calls": [CALL]}
    asked = [Message("user", "Question 0")]
    known = Example("e", Source("s"), asked, [ReferenceAnswer("x", Source("s"))], tools=[TOOL])
    atomic_io.write_rows(Path("split/test.jsonl"), [known])
    rows = [{**row, "chosen": [calling], "rejected": "Bad", "tools": json.dumps([TOOL])} for row in explicit(8)]
    rows.append({**rows[0], "chosen": f"<tool_call>\n{json.dumps(CALL['function'])}\n</tool_call>", "rejected": "No"})
    assert imported(rows).pairs == 9
    for pair in pairs():
        (turn,) = pair.chosen
        assert [call["function"] for call in turn.tool_calls] == [CALL["function"]]
        assert (turn.content, pair.tools) == ("", [TOOL])
        assert (pair.split == "test") >= (
            pair.messages == asked
        )  # not learned from, because split holds it for the test
    assert sum(pair.messages == asked for pair in pairs()) == 2


@pytest.mark.parametrize("name", SAME)
def test_every_format_means_the_same(name):
    rows = [json.loads(json.dumps(SAME[name]).replace("Q?", f"Q{n}?")) for n in range(3)]
    assert imported(rows).pairs == 3
    found = sorted(pairs(), key=lambda pair: pair.messages[-1].content)
    assert [pair.messages for pair in found] == [[Message("user", f"Q{n}?")] for n in range(3)]
    assert {(pair.chosen[-1].content, pair.rejected[-1].content) for pair in found} == {(GOOD, BAD)}


MARKED = {
    "TRL": {"prompt": "Q?", "completion": GOOD, "label": True},
    "TRL message lists": {"prompt": talk(), "completion": [{"role": "assistant", "content": GOOD}], "label": True},
    "LLaMA-Factory kto_tag": {
        "conversations": [{"from": "human", "value": "Q?"}, {"from": "gpt", "value": GOOD}],
        "kto_tag": "true",
    },
    "swift label": {"messages": talk("Q?", GOOD), "label": 1},
    "Axolotl": {"instruction": "Q?", "completion": GOOD, "label": True},
}


@pytest.mark.parametrize("name", MARKED)
def test_marks_of_single_answers(name):
    rows = [json.loads(json.dumps(MARKED[name]).replace("Q?", f"Q{n}?")) for n in range(3)]
    bad = json.loads(json.dumps(rows[0]).replace(GOOD, BAD).replace("true", "false"))
    bad = {key: 0 if key == "label" else value for key, value in bad.items()}
    assert imported([*rows, bad]).marks == 4
    marks = list(atomic_io.read_rows(Path("out/labeled_completions.jsonl"), LabeledCompletion))
    assert {(mark.completion[-1].content, mark.label) for mark in marks} == {(GOOD, True), (BAD, False)}


def test_margins_names_times_and_tags_are_kept():
    rows = explicit(3, margin="0.5", annotator="Ada", timestamp="2026-11-01", tags="short, true")
    imported([*rows, {**rows[0], "annotator": "Bo", "margin": 1.5, "tags": ["kind"]}])
    judged = [one for one in pairs() if len(one.annotations) == 2]
    assert [one.margin for one in judged] == [1.0]
    votes = judged[0].annotations
    assert [(vote.annotator, vote.created_at, vote.margin, vote.tags) for vote in votes] == [
        ("Ada", "2026-11-01", 0.5, ["short", "true"]),
        ("Bo", "2026-11-01", 1.5, ["kind"]),
    ]
    assert [vote.source for vote in votes] == [Source("pairs.jsonl", 1), Source("pairs.jsonl", 4)]


def test_pinned_columns():
    write([{"q": f"Q{n}", "winner": f"good {n}", "loser": f"bad {n}", "who": "Ada"} for n in range(3)])
    columns = {"prompt": "q", "chosen": "winner", "rejected": "loser", "annotator": "who"}
    assert run(sources={"x": source(columns=columns)}).annotators == 1


def test_switched_off_it_says_so():
    cfg = PreferencesStage(preferences={"method": "none"}, feedback=FEEDBACK, hardware=PROFILE, seed=1)
    found = preferences.run(cfg, INPUTS, OUTPUTS)
    assert found.pairs == 0
    assert sorted(path.name for path in Path("out").iterdir()) == ["passed_through.json"]


# Checks, each with its reason


def test_reasons_and_their_details():
    long = "Please tell me when the little cafe in Midtown opens today"
    rows = [
        *explicit(4),
        {"prompt": "Q", "chosen": "same ", "rejected": " same"},
        {"prompt": "Q", "chosen": "", "rejected": " "},
        {"prompt": long, "chosen": f"{long} At ten.", "rejected": "At ten."},
        {**explicit(1)[0]},
        {"prompt": "Question 9", "chosen": "left", "rejected": "right", "annotator": "Ada"},
        {"prompt": "Question 9", "chosen": "right", "rejected": "left", "annotator": "Ada"},
        {"prompt": "Question 8", "chosen": "left", "rejected": "right", "annotator": "Ada"},
        {"prompt": "Question 8", "chosen": "right", "rejected": "left", "annotator": "Bo"},
        {"prompt": "Q", "chosen": "x", "rejected": "y", "margin": -1},
        {"prompt": [{"role": "alien", "content": "Q"}], "chosen": "x", "rejected": "y"},
        {"chosen": "Human: Q1\n\nAssistant: x", "rejected": "Human: Q2\n\nAssistant: y"},
    ]
    metrics = imported(rows, max_rejected_share=0.95)
    assert sorted(rejects())[:-1] == [
        (5, "same_answer", "chosen and rejected are both 'assistant: same'"),
        (6, "empty_answer", "there is no text in any answer"),
        (7, "prompt_in_answer", f"only answer 1 begins with the prompt {long!r}"),
        (8, "duplicate", "somebody unnamed said the same at pairs.jsonl:1"),
        (9, "contradicts_self", "Ada said otherwise at pairs.jsonl:10"),
        (10, "contradicts_self", "Ada said otherwise at pairs.jsonl:9"),
        (11, "tied", "votes are 1 to 1"),
        (12, "tied", "votes are 1 to 1"),
        (13, "bad_margin", "margin is '-1'; allowed is a number of 0 or more"),
        (14, "unknown_role", sorted(rejects())[9][2]),
    ]
    account = row_counts.load(Path("out"))
    assert (account.rows_in, account.kept, account.records_out, metrics.pairs) == (15, 4, 4, 4)


@pytest.mark.parametrize(
    ("row", "reject"),
    [
        ({"prompt": "Q", "chosen": [], "rejected": "x"}, ("empty_answer", "one answer is an empty list of turns")),
        ({"prompt": "Q", "chosen": "x", "rejected": []}, ("empty_answer", "one answer is an empty list of turns")),
        (
            {"prompt": [], "chosen": "x", "rejected": "y"},
            ("empty_turn", "there is no prompt: no turn comes before the answer"),
        ),
        ({"prompt": "Q", "completion": [], "label": True}, ("empty_answer", "there is no text in any answer")),
    ],
)
def test_empty_lists_are_rejected(row, reject):
    first = {"prompt": "Q", "completion": "fine", "label": True} if "label" in row else explicit(1)[0]
    rows = [{**first, "prompt": f"Question {n}"} for n in range(3)]
    imported([*rows, row])
    assert rejects() == [(4, *reject)]


@pytest.mark.parametrize("rejected", [{"rejected_response": BAD}, {"rejected_messages": talk("Q?", BAD)[1:]}])
def test_messages_that_are_an_empty_list_are_rejected(rejected):
    rows = [{"messages": talk(f"Q{n}?", GOOD), **rejected} for n in range(3)]
    imported([*rows, {"messages": [], **rejected}])
    assert rejects() == [(4, "empty_turn", "messages is an empty list; it must hold the prompt and the better answer")]


def test_the_majority_wins_or_nobody():
    one = {"prompt": "Question 9", "chosen": "left", "rejected": "right"}
    other = {"prompt": "Question 9", "chosen": "right", "rejected": "left"}
    rows = [*explicit(3), *({**one, "annotator": name} for name in "ab"), {**other, "annotator": "c"}]
    imported(rows)
    assert [(row, reason, detail) for row, reason, detail in rejects()] == [(6, "contradicted", "votes are 2 to 1")]
    assert [len(pair.annotations) for pair in pairs() if pair.messages[0].content == "Question 9"] == [2]
    imported(rows, contradictions="drop")
    assert [reason for _, reason, _ in rejects()] == ["contradicted"] * 3


def test_votes_without_a_name_are_counted_where_they_differ():
    one = {"prompt": "Question 9", "chosen": "left", "rejected": "right"}
    imported([*explicit(3), one, one, one, one, {"prompt": "Question 9", "chosen": "right", "rejected": "left"}])
    assert rejects() == [(8, "contradicted", "votes are 4 to 1")]
    assert [pair.chosen[-1].content for pair in pairs() if pair.messages[0].content == "Question 9"] == ["left"]


def test_the_cap_of_an_annotator_keeps_votes_of_others():
    rows = [{**row, "annotator": "Ada" if n < 8 else "Bo"} for n, row in enumerate(explicit(10))]
    imported(rows, max_per_annotator=4)
    assert {detail for _, reason, detail in rejects() if reason == "over_cap"} == {
        "Ada has 8 judgments; rows_per_annotator is 4"
    }
    assert len(pairs()) == 6


def test_inputs_of_split_keep_their_part_and_no_input_is_in_two():
    asked = [Message("user", "Question 0")]
    atomic_io.write_rows(
        Path("split/test.jsonl"), [Example("e", Source("s"), asked, [ReferenceAnswer("x", Source("s"))])]
    )
    imported(
        [
            *explicit(12),
            {"prompt": "Question 0", "chosen": "other", "rejected": "words"},
            {**explicit(1)[0], "rejected": "No"},
        ]
    )
    parts = {}
    for pair in pairs():
        parts.setdefault(pair.messages[-1].content, set()).add(pair.split)
    assert parts["Question 0"] == {"test"}
    assert all(len(found) == 1 for found in parts.values())
    report = atomic_io.read_json(Path("out/report.json"))
    assert report["prompts_of_split"] == {"train": 0, "validation": 0, "test": 1}
    assert report["longer_wins"]["of"] == 13


# Mistakes, in their exact words


def test_empty_pairs():
    rows = [{"prompt": f"Q{n}", "chosen": "", "rejected": ""} for n in range(3)]
    assert fails(rows) == (
        (
            "preferences.sources.x: all 3 rows of pairs.jsonl were rejected; the limit is 50%\n"
            "          3  empty_answer: first pairs.jsonl:1 there is no text in any answer"
        ),
        "fix the data, or take the source out of preferences.sources",
    )


def test_an_empty_file():
    assert fails([]) == ("preferences.sources.x: pairs.jsonl holds no rows", "put data there, or take the source out")


def test_one_annotator_who_contradicts_himself_throughout():
    rows = [{"prompt": f"Q{n}", "chosen": "a", "rejected": "b", "annotator": "Ada"} for n in range(3)]
    rows += [{**row, "chosen": "b", "rejected": "a"} for row in rows]
    assert fails(rows) == (
        (
            "preferences: all 6 rows were rejected, so nothing is left\n"
            "          6  contradicts_self: first pairs.jsonl:1 Ada said otherwise at pairs.jsonl:4"
        ),
        "fix the data, or bring other rows too",
    )


def test_all_pairs_from_one_prompt():
    rows = [{"prompt": "Q", "chosen": f"good {n}", "rejected": f"bad {n}"} for n in range(4)]
    assert fails(rows) == (
        "preferences: validation and test would be empty: there is one input, and each input is in one part only",
        "collect preferences on more inputs; at least one for each of train, validation and test is needed",
    )


@pytest.mark.parametrize(
    ("count", "known", "words"),
    [
        (1, 1, "there is one input, bound to its part by split or by the data"),
        (3, 3, "there are 3 different inputs, all of them bound to their part by split or by the data"),
        (2, 1, "there are 2 different inputs, 1 of them bound to its part by split or by the data"),
    ],
)
def test_inputs_that_split_has_placed_fill_no_other_part(count, known, words):
    placed = [Example(f"e{n}", Source("s"), [Message("user", f"Q{n}")]) for n in range(known)]
    atomic_io.write_rows(Path("split/train.jsonl"), placed)
    rows = [{"prompt": f"Q{n}", "chosen": "good", "rejected": "bad"} for n in range(count)]
    message, _ = fails(rows)
    assert message.partition(": ")[2].partition(": ")[2] == f"{words}, and each input is in one part only"


def test_columns_that_are_no_preferences():
    assert fails([{"prompt": "Q", "answer": "A"}]) == (
        'preferences.sources.x: the columns of pairs.jsonl:1 fit no format of preferences: prompt, answer\n    {"prompt":"Q","answer":"A"}',
        "say which columns they are: preferences.sources.x.columns.prompt, preferences.sources.x.columns.chosen and preferences.sources.x.columns.rejected",
    )


def test_a_wrong_format_shows_the_first_row():
    write([{"prompt": "Q", "chosen": "a", "rejected": "b"}])
    with pytest.raises(DataError) as caught:
        run(sources={"x": source(format="transcripts")})
    assert caught.value.message == (
        "preferences.sources.x: read as transcripts (pinned), but pairs.jsonl:1 does not fit: "
        "column 'chosen' does not begin with Human: or Assistant:\n"
        '    the row: {"prompt":"Q","chosen":"a","rejected":"b"}\n'
        "    transcripts expects: chosen and rejected, transcripts with Human: and Assistant:"
    )


def test_no_judgments_were_collected():
    with pytest.raises(DataError) as caught:
        run(collected="judgments")
    assert (caught.value.message, caught.value.hint) == (
        "preferences.collected = judgments: that folder holds no judgments",
        "collect some: tunectl annotate",
    )


# What the page collected


def said(number, question, choice="first", who="Ada", **more):
    return AnnotationEvent(f"s{number}", question, who, "2026-11-25T10:00:00+00:00", choice, number % 2, 3.5, **more)


def test_what_the_page_collected():
    asked = [
        AnnotationTask(
            f"q{n}",
            f"prompt {n}",
            Source("train.jsonl", n),
            [Message("user", f"Q{n}")],
            [f"good {n}", f"bad {n}"],
            ["a", "b"],
        )
        for n in range(6)
    ]
    check = AnnotationTask(
        "check", "prompt 9", Source("t"), [Message("user", "Q9")], ["right", "wrong"], ["r", "w"], attention=True
    )
    with open_store(Path("judgments")) as store:
        store.add([*asked, check])
        for entry in (
            *(said(n, f"q{n}", tags=["true"]) for n in range(4)),
            said(4, "q4", "both_bad", edit="Better than both"),
            said(5, "q5", "skip"),
            said(6, "q5"),
            Retraction("s6", "Ada", "2026-11-25T10:01:00+00:00"),
            said(7, "check"),
            said(8, "q0", repeat=True),
            said(9, "check", "second", who="Bo"),
            said(10, "q1", "second", who="Bo"),
        ):
            store.write(entry)
    metrics = run(collected="judgments", max_rejected_share=0.6)
    assert metrics.rejected == {
        "attention_check": 2,
        "duplicate": 1,
        "failed_attention": 1,
        "skipped": 1,
        "taken_back": 1,
    }
    assert (metrics.pairs, metrics.marks, metrics.candidates, metrics.annotators) == (4, 2, 1, 2)
    (candidate,) = atomic_io.read_rows(Path("out/candidates.jsonl"), Example)
    assert (candidate.messages, candidate.answers[0].text) == ([Message("user", "Q4")], "Better than both")
    judgment = next(atomic_io.read_rows(Path("out/judgments.jsonl"), Comparison))
    assert (judgment.annotation.annotator, judgment.annotation.created_at, judgment.annotation.tags) == (
        "Ada",
        "2026-11-25T10:00:00+00:00",
        ["true"],
    )
    people = {person["name"]: person for person in atomic_io.read_json(Path("out/report.json"))["agreement"]["people"]}
    assert people["Bo"]["attention"]["value"] == 0
    assert people["Ada"]["with_self"]["value"] == 1


def test_votes_of_the_arena_are_bounded_as_feedback_is_and_a_flood_of_them_ends_no_build():
    def vote(number, who, at="2026-11-25T10:00:00+00:00"):
        task = AnnotationTask(
            f"arena-v{number}", f"prompt {number}", Source("arena"), talk_messages(number), ["good", "bad"], ["a", "b"]
        )
        append_vote(Path("judgments"), task, AnnotationEvent(f"v{number}", task.id, who, at, "second", 0, 3.5))

    for number in range(100):
        vote(number, "eve")
    for number, who in enumerate(["ada"] * 3 + ["bo"] * 3 + ["cy"] * 3, 100):
        vote(number, who)
    vote(200, "eve", "2026-11-27T10:00:00+00:00")
    metrics = run(collected="judgments")
    assert metrics.rejected == {"annotator_share": 16, "quarantined": 1, "user_cap": 80}
    votes = Counter(pair.annotations[0].annotator for pair in pairs())
    assert votes == {"eve": 4, "ada": 3, "bo": 3, "cy": 3}
    assert {pair.kind for pair in pairs()} == {"arena"}
    with pytest.raises(DataError, match="all 110 rows were rejected"):
        run(collected="judgments", feedback={"method": "none"})


def test_a_vote_of_the_arena_on_a_test_input_stays_in_test():
    asked = [Message("user", "Q0")]
    atomic_io.write_rows(
        Path("split/test.jsonl"), [Example("e", Source("s"), asked, [ReferenceAnswer("x", Source("s"))])]
    )
    for number in range(13):
        at = datetime(2026, 11, 27 if number == 12 else 25, 10, tzinfo=UTC)  # the newest vote is too new
        conversation = arena.Conversation(f"person {number % 4}", clock=lambda at=at: at)
        answers = tuple(arena.BattleAnswer(name, f"{name} {number}", f"c{number}") for name in ("one", "two"))
        battle = conversation.compare(conversation.build_messages(f"Q{number}"), answers)
        vote = conversation.decide(battle.id, "left", [], None)
        append_vote(Path("judgments"), vote.task, vote.annotation)
    run(collected="judgments")
    assert {pair.split for pair in pairs() if pair.messages == asked} == {"test"}
    assert {pair.split for pair in pairs()} == {"train", "validation", "test"}


def talk_messages(number):
    return [Message("user", f"Q{number}")]


def test_what_people_wrote_is_kept_where_their_vote_does_not_count():
    asked = [
        AnnotationTask(
            f"q{n}", f"prompt {n}", Source("t", n), [Message("user", f"Q{n}")], [f"good {n}", f"bad {n}"], ["a", "b"]
        )
        for n in range(4)
    ]
    check = AnnotationTask(
        "check", "prompt 9", Source("t"), [Message("user", "Q9")], ["right", "wrong"], [], attention=True
    )
    with open_store(Path("judgments")) as store:
        store.add([*asked, check])
        for entry in (
            *(said(n, f"q{n}") for n in range(4)),
            said(4, "q0", repeat=True, edit="On second thoughts"),
            said(5, "q1", "second", who="Bo", edit="A tie, and this is better"),
            said(6, "check", "second", who="Eve"),
            said(7, "q2", "second", who="Eve", edit="Whatever"),
        ):
            store.write(entry)
    metrics = run(collected="judgments", max_rejected_share=0.9)
    assert metrics.rejected == {"attention_check": 1, "duplicate": 1, "failed_attention": 1, "tied": 2}
    written = {one.answers[0].text for one in atomic_io.read_rows(Path("out/candidates.jsonl"), Example)}
    assert written == {"On second thoughts", "A tie, and this is better"}


def test_the_stage_reruns_for_new_judgments_and_not_for_an_open_page():
    merged = {**DEFAULT, "sources": {"x": source("b.jsonl")}, "collected": "judgments"}
    assert list(list_declared_paths("preferences", {"preferences": merged})) == [
        "b.jsonl",
        "judgments/annotations.jsonl",
        "judgments/tasks.jsonl",
    ]
    assert list(list_declared_paths("preferences", {"preferences": {"method": "none"}})) == []


# Pairs of references


CONTRAST = yaml.safe_load((ROOT / "conf/preferences/e2e.yaml").read_text())["contrast"]


def places(counts=(12, 4, 4)):
    """Inputs with a name, a food and perhaps an area, four references each."""
    number = 0
    for part, size in zip(("train", "validation", "test"), counts, strict=True):
        rows = []
        for _ in range(size):
            area = f", area[{'north' if number % 2 else 'south'}]" if number % 3 else ""
            asked = f"name[Place {number // 4}], food[{'CFI'[number % 3]}]{area}"
            answers = [ReferenceAnswer(f"{asked} in words {turn}", Source("e2e.csv", number)) for turn in range(4)]
            fields = {"food": "CFI"[number % 3], "price": str(number % 5)}
            rows.append(
                Example(f"e{number}", Source("e2e.csv", number), [Message("user", asked)], answers, fields=fields)
            )
            number += 1
        atomic_io.write_rows(Path(f"split/{part}.jsonl"), rows)


def test_pairs_of_references_stay_in_the_parts_of_their_inputs():
    places()
    metrics = run(contrast=CONTRAST)
    report = atomic_io.read_json(Path("out/report.json"))
    assert metrics.pairs == metrics.judgments == sum(report["sizes"].values()) > 60
    assert metrics.annotators == 0
    assert report["agreement"]["judgments"] == 0
    assert {part: made["pairs"] for part, made in report["contrast"].items()} == report["sizes"]
    asked = {
        part: {row.messages[0].content for row in atomic_io.read_rows(Path(f"split/{part}.jsonl"), Example)}
        for part in report["sizes"]
    }
    said, withheld = {}, Counter()
    for pair in pairs():
        whole = pair.chosen[0].content.partition(" in words")[0]
        hidden = [tag.removeprefix("withheld ") for tag in pair.annotations[0].tags if tag.startswith("withheld ")]
        assert whole in asked[pair.split]
        assert pair.messages[0].content == (remove_attribute(whole, hidden[0]) if hidden else whole)
        assert not pair.rejected[0].content.startswith(f"{whole} in words")
        assert pair.annotations[0].tags
        withheld[pair.split] += bool(hidden)
        said.setdefault(pair.split, set()).update({pair.chosen[0].content, pair.rejected[0].content})
    assert not said["train"] & (said["validation"] | said["test"])
    assert {part: made["withheld"] for part, made in report["contrast"].items()} == {"test": 0, **withheld}
    assert withheld["train"] > 20
    assert row_counts.load(Path("out")).rows_in == metrics.judgments


def test_pairs_of_references_by_fields():
    places((20, 10, 10))
    run(contrast={**CONTRAST, "attributes": {"method": "fields", "fields": ["food", "price"]}})
    assert {tag.split()[1] for pair in pairs() for tag in pair.annotations[0].tags} == {"food", "price"}


def test_pairs_of_references_stand_beside_what_people_said():
    places()
    metrics = imported(explicit(6, annotator="Ada"), contrast=CONTRAST)
    assert metrics.annotators == 1
    assert metrics.judgments == metrics.pairs > 66
    assert atomic_io.read_json(Path("out/report.json"))["agreement"]["judgments"] == 6


def test_inputs_without_attributes():
    with pytest.raises(DataError) as caught:
        run(contrast=CONTRAST)
    assert caught.value.message == "preferences.contrast: no input of the stage split has attributes and an answer"


# A simulated annotator


SIMULATED = yaml.safe_load((ROOT / "conf/preferences/local_lens.yaml").read_text())["simulated"]
BRIEF = "Ad wanted | Place {} | tailor | Kirkwood | $ | plain | for commuters | offer: 6 dollars off | facts: 8 chairs"
ADS = (
    "Visit Place {} in Kirkwood: your 6 dollars off wait, and 8 chairs.",
    "Visit Place {} in Kirkwood: 8 chairs.",
    "Place {} is the best.",
    "",
)


class Loaded:
    """A stand-in for the tuned model: it writes the ads in turn."""

    context = None

    def __init__(self, folder, adapter, opened):
        opened.append((str(folder), str(adapter)))

    def answer(self, requests, how, *, seed, label):
        return [
            GeneratedText(ADS[place % len(ADS)].format(item.prompt), 1, 1, 0.0, finished=True)
            for place, item in enumerate(requests)
        ]

    def close(self):
        pass


class Plain:
    """A stand-in for a chat template: the number of the place is the prompt."""

    def prompt(self, messages, tools):
        return messages[-1].content.split(" | ")[1].removeprefix("Place ")


@pytest.fixture
def simulated(tmp_path, monkeypatch):
    monkeypatch.setattr(preferences.contracts, "check_base_matches", lambda adapter, base: None)
    numbers, opened = count(), []
    for part, size in (("train", 12), ("validation", 4), ("test", 4)):
        rows = []
        for number in islice(numbers, size):
            fields = {"business": f"Place {number}", "neighbourhood": "Kirkwood"}
            asked = [Message("user", BRIEF.format(number))]
            rows.append(
                Example(f"e{number}", Source("c", number), asked, [ReferenceAnswer("x", Source("c"))], fields=fields)
            )
        atomic_io.write_rows(Path(f"split/{part}.jsonl"), rows)
    tools = PreferencesBackend(
        lambda ratings: None, lambda *folders: Loaded(*folders, opened), lambda folder, adapter: Plain()
    )
    return lambda **changes: run(
        backend=tools, simulated={**SIMULATED, "answers": 4, "flip_rate": 0, "noise": 0, **changes}
    ), opened


def test_a_simulated_annotator(simulated):
    judge, opened = simulated
    metrics = judge(inputs={"train": 10, "validation": 3, "test": 3})
    assert opened == [("cpt", "sft")]
    assert (metrics.simulated, metrics.pairs, metrics.annotators, metrics.contrasts) == (48, 48, 1, 0)
    report = atomic_io.read_json(Path("out/report.json"))
    assert report["sizes"] == {"train": 30, "validation": 9, "test": 9}
    assert report["simulated"]["unusable"] == 16
    assert [one["name"] for one in report["agreement"]["people"]] == ["Local Lens editor (simulated)"]
    best = next(
        pair for pair in pairs() if "best" in pair.rejected[0].content and "6 dollars" in pair.chosen[0].content
    )
    assert {"names_client", "states_offer", "no_superlatives"} <= set(best.annotations[0].tags)
    assert best.annotations[0].annotator == "Local Lens editor (simulated)"
    assert len(list(atomic_io.read_rows(Path("out/sampled.jsonl"), SampledAnswers))) == 16
    assert not Path("work").exists()


def test_an_adapter_that_is_passed_through_stands_on_the_base_model(simulated):
    judge, opened = simulated
    Path("cpt").mkdir()
    Path("cpt/passed_through.json").write_text("{}")
    judge()
    assert opened == [("model", "sft")]


def test_a_killed_run_keeps_its_answers(simulated, monkeypatch):
    judge, opened = simulated
    with monkeypatch.context() as patched:
        patched.setattr(preferences.simulated_annotator, "annotate", lambda *_: pytest.fail("killed"))
        with pytest.raises(pytest.fail.Exception):
            judge()
    assert judge().simulated == 60
    assert len(opened) == 1


def test_no_input_to_answer(simulated):
    judge, _ = simulated
    Path("split/test.jsonl").write_text("")
    with pytest.raises(DataError) as caught:
        judge()
    assert caught.value.message == "preferences.simulated: split/test.jsonl holds no input to answer"


def test_nobody_at_all():
    with pytest.raises(ValidationError) as caught:
        run()
    assert (
        "sources is empty and collected, contrast and simulated are null, so there are no judgments; set one of them,"
        " or switch the stage off: preferences=none"
    ) in str(caught.value)


def test_names_of_made_judgments_are_taken():
    with pytest.raises(ValidationError) as caught:
        run(sources={"contrast": source()})
    assert "sources names contrast, a name reserved for generated judgments; take another" in str(caught.value)


# Looking at it


def shown(project, capsys, *words):
    (project / "artifacts").mkdir(exist_ok=True)
    if not (project / "artifacts/preferences").exists():
        (project / "out").rename(project / "artifacts/preferences")
    capsys.readouterr()
    assert main(["data", *words]) == 0
    return capsys.readouterr().out


def test_pairs_marks_and_candidates_can_be_looked_at(project, capsys):
    imported(
        [*explicit(4, annotator="Ada", margin=2, tags="true"), {"prompt": "Q", "completion": "fine", "label": True}]
    )
    out = shown(project, capsys, "show", "preferences", "--find", "Question")
    assert "1 vote (Ada)  margin 2  [true]" in out
    assert "rejected  Bad" in out
    everything = json.loads(shown(project, capsys, "show", "preferences", "--json"))
    assert {"chosen", "rejected", "annotations"} <= everything[0].keys()
    assert json.loads(shown(project, capsys, "show", "preferences", "--file", "candidates", "--json")) == []


def test_marks_can_be_looked_at(project, capsys):
    imported([{"prompt": f"Q{n}", "completion": "fine", "label": n > 0} for n in range(4)])
    out = shown(project, capsys, "show", "preferences", "--file", "labeled_completions")
    assert "good  fine" in out
    assert "bad  fine" in out


def test_agreement_of_the_stage_is_of_people(project, capsys):
    copy_conf(project)
    places()
    imported(explicit(4, annotator="Ada"), contrast=CONTRAST)
    found = json.loads(shown(project, capsys, "agreement", "--stage", "--json"))
    assert [(one["name"], one["judgments"]) for one in found["people"]] == [("Ada", 4)]


def test_rejects_and_the_account_list_the_stage(project, capsys):
    imported([*explicit(4), {"prompt": "Q", "chosen": "same", "rejected": "same"}])
    assert "same_answer" in shown(project, capsys, "rejects", "--stage", "preferences")
    (line,) = json.loads(shown(project, capsys, "counts", "--json"))["steps"]
    assert (line["stage"], line["rows_in"], line["kept"], line["rejected"]) == (
        "preferences",
        5,
        4,
        [["same_answer", 1]],
    )


def test_hh_imports_whole():
    hh = yaml.safe_load((ROOT / "conf/preferences/hh.yaml").read_text())
    del hh["defaults"]
    metrics = run(**hh | {"sources": {"hh": source(HH, format="transcripts")}})
    assert (metrics.judgments, metrics.pairs, metrics.rejected) == (300, 300, {})
    assert metrics.longer_wins == pytest.approx(0.523, abs=0.005)
