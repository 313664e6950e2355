"""Whatever is written in a format is read back the same, and no row is lost whatever it holds."""

from __future__ import annotations

import csv
import io
import json
import time
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tunectl.artifacts.records import Document, Message, RejectedRow, Source
from tunectl.artifacts.row_counts import RowCounter
from tunectl.config.schema.ingest import FileSource
from tunectl.core.errors import DataError
from tunectl.data.formats import preference_formats
from tunectl.data.readers import csv_reader
from tunectl.data.readers.example_collector import ExampleReader
from tunectl.data.readers.file_discovery import SourceFile
from tunectl.data.readers.json_reader import read_json, read_json_lines
from tunectl.data.readers.row import RawRow
from tunectl.data.readers.text_reader import read_lines, usable_charset

VALUES = yaml.safe_load(Path("conf/ingest/source/files.yaml").read_text())
QUICK = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
said = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=40).filter(str.strip)
pairs = st.lists(st.tuples(said, said), min_size=1, max_size=4)


def reading(**changes):
    return FileSource(**{**VALUES, "path": "x", **changes})


def collect(tmp_path, items, kind="jsonl", share=1.0, **changes):
    out = []
    tally = RowCounter("ingest")
    collector = ExampleReader(
        "x", reading(**changes), "f", folder=tmp_path, tally=tally, emit=out.append, max_rejected_share=share
    )
    collector.read_file(SourceFile(Path("f"), "f", kind), items)
    report = collector.finish()
    return out, tally.finish(records_out=len(out)), report


def as_messages(talk):
    return [
        {"role": role, "content": text} for pair in talk for role, text in zip(("user", "assistant"), pair, strict=True)
    ]


WRITERS = {
    "messages": lambda talk: {"messages": as_messages(talk)},
    "messages_in_a_cell": lambda talk: {"messages": json.dumps(as_messages(talk))},
    "content_parts": lambda talk: {
        "messages": [{**turn, "content": [{"type": "text", "text": turn["content"]}]} for turn in as_messages(talk)]
    },
    "sharegpt": lambda talk: {
        "conversations": [
            {"from": "human" if turn["role"] == "user" else "gpt", "value": turn["content"]}
            for turn in as_messages(talk)
        ]
    },
    "sharegpt_pairs": lambda talk: {"conversation": [{"human": human, "assistant": answer} for human, answer in talk]},
    "prompt_completion": lambda talk: {"prompt": as_messages(talk)[:-1], "completion": as_messages(talk)[-1:]},
    "alpaca": lambda talk: {
        "instruction": talk[-1][0],
        "output": talk[-1][1],
        "history": [list(pair) for pair in talk[:-1]],
    },
    "query_response": lambda talk: {
        "query": talk[-1][0],
        "response": talk[-1][1],
        "history": [list(pair) for pair in talk[:-1]],
    },
    "production_log": lambda talk: {
        "request": {"messages": as_messages(talk)[:-1]},
        "response": {"choices": [{"message": as_messages(talk)[-1]}]},
    },
}


@pytest.mark.parametrize("name", WRITERS)
@QUICK
@given(talk=pairs)
@example(talk=[("Cities?", '["Paris", "Rome"]')])
@example(talk=[('[{"city": "Paris"}]', '{"city": "Paris"}')])
def test_every_format_reads_back_the_conversation_that_was_written(tmp_path, name, talk):
    path = tmp_path / "f.jsonl"
    path.write_text(json.dumps(WRITERS[name](talk)) + "\n")
    file = SourceFile(path, "f", "jsonl")
    (found,), account, _ = collect(tmp_path, read_json_lines(file, reading()))
    assert [(turn.role, turn.content) for turn in found.messages] == [
        (turn["role"], turn["content"]) for turn in as_messages(talk)[:-1]
    ]
    assert [answer.text for answer in found.answers] == [talk[-1][1]]
    assert found.source == Source("f", 1)
    assert (account.rows_in, account.kept) == (1, 1)


plain = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**53), 2**53),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=8),
)
words = st.sampled_from(
    [
        "messages",
        "conversations",
        "prompt",
        "completion",
        "text",
        "instruction",
        "output",
        "segments",
        "input_ids",
        "labels",
        "role",
        "content",
        "x",
    ]
)
junk = st.recursive(
    plain, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3), max_leaves=8
)
lines = st.one_of(junk.map(json.dumps), st.text(st.characters(codec="utf-8", exclude_characters="\n\r\0"), max_size=20))


@QUICK
@given(rows=st.lists(lines, max_size=12), good=st.integers(1, 3))
def test_no_row_is_lost_whatever_it_holds(tmp_path, rows, good):
    whole = json.dumps({"messages": as_messages([("a", "b")])})
    text = "\n".join([whole] * (len(rows) + good) + rows)
    path = tmp_path / "junk.jsonl"
    path.write_text(text, encoding="utf-8", newline="")
    expected = sum(1 for line in text.split("\n") if line.strip())
    out, account, report = collect(tmp_path, read_json_lines(SourceFile(path, "f", "jsonl"), reading()))
    assert account.rows_in == expected == report.rows
    assert account.rows_in == account.kept + sum(account.rejected.values())
    assert sum(len(item.answers) for item in out if not isinstance(item, Document)) <= account.kept


@QUICK
@given(
    rows=st.lists(junk, max_size=6),
    name=st.sampled_from(["messages", "alpaca", "tokens", "segments", "production_log"]),
)
def test_junk_under_a_pinned_format_is_rejected_or_refused_with_its_row(tmp_path, rows, name):
    items = [RawRow(Source("f", at), row if isinstance(row, dict) else {"x": row}) for at, row in enumerate(rows, 1)]
    refused = ""
    try:
        _, account, _ = collect(tmp_path, items, format=name)
    except DataError as error:
        refused = error.message
    if refused:
        assert refused.startswith("ingest.sources.x: ")
    else:
        assert account.rows_in == len(rows) == account.kept + sum(account.rejected.values())


cells = st.text(st.characters(codec="utf-8", exclude_characters="\0\r"), max_size=12)


@QUICK
@given(
    body=st.lists(st.tuples(cells, cells, cells), min_size=3, max_size=8),
    delimiter=st.sampled_from(list(csv_reader.DELIMITERS)),
    end=st.sampled_from(["\n", "\r\n"]),
    quoting=st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL, csv.QUOTE_NONNUMERIC]),
)
def test_every_dialect_reads_back(body, delimiter, end, quoting):
    out = io.StringIO()
    writer = csv.writer(out, delimiter=delimiter, quoting=quoting, lineterminator=end)
    writer.writerows([("first", "second", "third"), *body])
    dialect = csv_reader.detect_dialect(out.getvalue())
    assert dialect == csv_reader.CsvDialect(delimiter, "doubled")
    found = list(csv_reader.rows(dialect, io.StringIO(out.getvalue(), newline=""), "f"))
    assert [tuple(row.columns.values()) for row in found] == body
    assert [row.source.row for row in found] == list(range(1, len(body) + 1))


@QUICK
@given(body=st.lists(st.tuples(said, said), min_size=2, max_size=6))
def test_quotes_after_a_backslash_read_back(body):
    body = [tuple(cell.replace("\r", " ").replace("\n", " ") for cell in row) for row in body]
    quoted = [
        tuple('"' + cell.replace("\\", "\\\\").replace('"', '\\"') + '"' for cell in row)
        for row in [('say "it"', "b, c"), *body]
    ]
    text = "a,b\n" + "".join(",".join(row) + "\n" for row in quoted)
    dialect = csv_reader.detect_dialect(text)
    if dialect.quotes == "escaped":  # with doubled quotes the table may read as well, and that is the usual meaning
        assert [tuple(row.columns.values()) for row in csv_reader.rows(dialect, io.StringIO(text, newline=""), "f")][
            1:
        ] == body


@QUICK
@given(text=st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=120), tabs=st.booleans())
def test_any_text_as_a_table_gives_rows_or_rejects(text, tabs):
    try:
        found = list(
            csv_reader.rows(
                csv_reader.detect_dialect(text, among="\t" if tabs else csv_reader.DELIMITERS),
                io.StringIO(text, newline=""),
                "f",
            )
        )
    except DataError:
        return
    assert [item.source.row for item in found] == list(range(1, len(found) + 1))
    assert all(isinstance(item, RawRow | RejectedRow) for item in found)


def test_a_broken_quote_loses_no_following_rows():
    text = 'a,b\n1,2\n"3,4\n5,6\n7,"8"x\n9,10\n'
    found = list(csv_reader.rows(csv_reader.CsvDialect(",", "doubled"), io.StringIO(text, newline=""), "f"))
    assert [item.reason if isinstance(item, RejectedRow) else tuple(item.columns.values()) for item in found] == [
        ("1", "2"),
        "broken_quotes",
        ("5", "6"),
        "broken_quotes",
        ("9", "10"),
    ]


def test_lines_that_all_leave_a_quote_open_take_linear_time():
    text = "a,b\n" + 'a","z\n' * 50_000
    started = time.process_time()
    found = list(csv_reader.rows(csv_reader.CsvDialect(",", "doubled"), io.StringIO(text, newline=""), "f"))
    assert time.process_time() - started < 5
    assert [(item.source.row, item.reason) for item in found] == [(row, "broken_quotes") for row in range(1, 50_001)]


def test_a_transcript_of_many_turns_takes_linear_time():
    """Turns of one speaker are joined, whatever their number."""
    text = "\n\nHuman: a" * 600_000
    started = time.process_time()
    (turn,) = preference_formats._transcript(RawRow(Source("f", 1), {"chosen": text}), "chosen")
    assert time.process_time() - started < 5
    assert turn == Message("user", "\n\n".join("a" * 600_000))


def test_an_open_quote_takes_no_more_lines_than_the_cells_of_a_row_may_fill(monkeypatch):
    monkeypatch.setattr(csv, "field_size_limit", lambda: 100)
    lines = iter(["a,b\n", *['a","z\n'] * 1000, "1,2\n"])
    rows = csv_reader.rows(csv_reader.CsvDialect(",", "doubled"), lines, "f")
    assert next(rows).reason == "broken_quotes"
    assert len(list(lines)) > 900


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a,b\n1,2\n", "comma between cells, doubled quotes"),
        ("a;b\n1,5;2,5\n", "semicolon between cells, doubled quotes"),
        ('a\tb\n"x" y\tz\n', "tab between cells, quotes as plain characters"),
        ('a,b\n"say \\"it\\", he said",x\n', "comma between cells, quotes after a backslash"),
        ("only\nlines\n", "comma between cells, doubled quotes"),
    ],
)
def test_dialects_in_words(text, words):
    assert str(csv_reader.detect_dialect(text)) == words


@QUICK
@given(rows=st.lists(st.dictionaries(said, plain, min_size=1, max_size=3), min_size=1, max_size=5), wrap=st.booleans())
def test_json_lists_read_back(tmp_path, rows, wrap):
    path = tmp_path / "f.json"
    path.write_text(json.dumps({"version": 1, "data": rows} if wrap else rows))
    found = list(read_json(SourceFile(path, "f", "json"), reading()))
    assert [item.columns for item in found] == rows
    assert [item.source.row for item in found] == list(range(1, len(rows) + 1))


def test_json_lines_called_json_and_single_objects(tmp_path):
    path = tmp_path / "f.json"
    path.write_text('{"a": 1}\n{"a": 2}\n')
    assert [item.columns for item in read_json(SourceFile(path, "f", "json"), reading())] == [{"a": 1}, {"a": 2}]
    path.write_text('{"messages": [{"role": "user", "content": "a"}]}')
    (row,) = read_json(SourceFile(path, "f", "json"), reading())
    assert list(row.columns) == ["messages"]
    path.write_text("{broken")
    (reject,) = read_json(SourceFile(path, "f", "json"), reading())
    assert (reject.reason, reject.sample) == ("not_json", "{broken")


@pytest.mark.parametrize(
    ("label", "meant"),
    [
        ("UTF-8", None),
        ("latin-1", "cp1252"),
        ("'us-ascii'", "cp1252"),
        ("koi8-r", "koi8-r"),
        ("utf-16", None),
        ("hex", None),
        ("", None),
        ("klingon", None),
        ("gb2312", "gb18030"),
        ("Shift_JIS", "cp932"),
        ("iso-8859-15", "iso8859-15"),
        ("undefined", None),
        ("punycode", None),
        ("utf-7", None),
        ("unicode_escape", None),
        ("a\0b", None),
        ("\udc80", None),
    ],
)
def test_labels_of_encodings_mean_what_browsers_make_of_them(label, meant):
    assert usable_charset(label) == meant


@pytest.mark.parametrize(
    ("row", "detail"),
    [
        ('{"text": "a \\ud800 b", "x": NaN}', "unexpected end of escaped utf-16 surrogate pair"),
        ('{"text": "a", "x": NaN, "n": ' + "[" * 100 + "]" * 100 + "}", "the row nests deeper than 100 levels"),
        ('{"text": "a", "n": ' + "[" * 900 + "]" * 900 + "}", "the row nests deeper than 100 levels"),
        ('{"text": "a", "x": NaN, "n": ' + "9" * 5000 + "}", ""),
    ],
)
def test_what_no_record_can_hold_is_a_reject_also_beside_missing_numbers(tmp_path, row, detail):
    path = tmp_path / "f.json"
    for text, read in ((f"{row}\n", read_json_lines), (f"[{row}]", read_json), (f"{row}\n\n{row}", read_json)):
        path.write_text(text)
        found = list(read(SourceFile(path, "f", "json"), reading()))
        assert {item.reason for item in found} == {"not_json"}
        assert detail in found[0].detail or text[0] == "["


def test_missing_numbers_are_null_and_text_about_them_stays(tmp_path):
    path = tmp_path / "f.json"
    row = '{"a": NaN, "b": [-Infinity, 1], "c": "x, NaN \\" : Infinity", "d\\\\": Infinity}'
    want = {"a": None, "b": [None, 1], "c": 'x, NaN " : Infinity', "d\\": None}
    for text, read in (
        (f"{row}\n{row}\n", read_json_lines),
        (f"[{row}]", read_json),
        (row.replace(", ", ",\n", 1) * 2, read_json),
    ):
        path.write_text(text)
        assert next(read(SourceFile(path, "f", "json"), reading())).columns == want


def test_lines_of_text_keep_their_numbers(tmp_path):
    path = tmp_path / "f.txt"
    path.write_text("one\n\n  two\n")
    found = list(read_lines(SourceFile(path, "f", "lines"), reading()))
    assert [(row.source.row, row.columns["text"]) for row in found] == [(1, "one"), (3, "  two")]
