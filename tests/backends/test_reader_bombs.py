"""Files of a few kilobytes that unpack to hundreds of megabytes, or nest a hundred thousand deep: one reject each, at once."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
import yaml

from tunectl.artifacts.records import RejectedRow
from tunectl.backends.readers import source_rows
from tunectl.backends.readers.docx_reader import read_docx
from tunectl.config.schema.ingest import FileSource
from tunectl.core.errors import DataError
from tunectl.data.readers import json_reader
from tunectl.data.readers.csv_reader import read_table
from tunectl.data.readers.file_discovery import OPENERS, SourceFile, file_type
from tunectl.data.readers.json_reader import read_json, read_json_lines
from tunectl.data.readers.text_reader import read_markdown, read_text

VALUES = yaml.safe_load(Path("conf/ingest/source/files.yaml").read_text())
MEGABYTE = 1_000_000
READERS = {
    "text": read_text,
    "markdown": read_markdown,
    "csv": read_table,
    "jsonl": read_json_lines,
    "json": read_json,
    "docx": read_docx,
}
DEEP = 100_000


def read(path, limit=MEGABYTE, **limits):
    limits = {**VALUES["limits"], "max_file_bytes": limit, **limits}
    reading = FileSource(**{**VALUES, "path": "x", "limits": limits})
    return list(source_rows.rows(SourceFile(path, path.name, file_type(path)), reading, "s", READERS))


@pytest.mark.parametrize("pack", [gzip.open, bz2.open, lzma.open])
@pytest.mark.parametrize(
    ("name", "line"), [("x.txt", b"a" * 99 + b"\n"), ("x.jsonl", b'{"a":1}\n'), ("x.csv", b"a,b\n")]
)
def test_a_compressed_file_is_measured_unpacked(tmp_path, pack, name, line):
    path = tmp_path / f"{name}{next(end for end, opener in OPENERS.items() if opener is pack)}"
    with pack(path, "wb") as stream:
        stream.write(line * (3 * MEGABYTE // len(line)))
    assert path.stat().st_size < MEGABYTE
    (reject,) = read(path)
    assert (reject.reason, reject.detail.partition(" bytes ")[2]) == (
        "file_too_big",
        "hold more than limits.max_file_bytes, 1000000",
    )


def test_a_compressed_file_of_just_the_limit_is_read(tmp_path):
    path = tmp_path / "x.txt.gz"
    path.write_bytes(gzip.compress(b"a" * 1000))
    assert [row.columns["text"] for row in read(path, 1000)] == ["a" * 1000]
    (reject,) = read(path, 999)
    assert reject.reason == "file_too_big"


@pytest.mark.parametrize("name", ["x.txt.gz", "x.md.gz", "x.jsonl.gz", "x.json.gz", "x.csv.gz", "long.txt"])
def test_the_limits_of_the_recipe_bound_memory(tmp_path, name):
    """142 KiB that unpack to 150 MB, and a long text, with ``max_file_bytes`` of conf/: both took twice their content."""
    path = tmp_path / name
    with gzip.open(path, "wb") if path.suffix == ".gz" else path.open("wb") as stream:
        for _ in range(150):
            stream.write(b"a" * MEGABYTE)
    code = """
import resource, sys
from pathlib import Path
import test_reader_bombs
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
(reject,) = test_reader_bombs.read(Path(sys.argv[1]), 10**9)
print(reject.reason, reject.detail, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before >> 10, sep="|")
"""
    paths = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    reason, detail, megabytes = done.stdout.strip().split("|")
    if name == "long.txt":
        assert (reason, "has more than 1000000 characters" in detail) == ("too_long", True)
    else:
        assert (reason, "unpack to more than 200 times as much" in detail) == ("file_too_big", True)
    assert int(megabytes) < 50


def test_a_small_text_of_equal_lines_is_read_packed(tmp_path):
    path = tmp_path / "x.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"text": "a"}\n' * 500_000))
    assert path.stat().st_size * 200 < 7 * MEGABYTE
    assert len(read(path, 10**9)) == 500_000


def test_a_compressed_file_that_is_cut_off_says_so(tmp_path):
    path = tmp_path / "x.txt.gz"
    path.write_bytes(gzip.compress(bytes(range(32, 120)) * 100)[:-9])
    (reject,) = read(path)
    assert reject.reason == "unreadable"


def docx_bomb(path, paragraphs):
    docx = pytest.importorskip("docx")
    plain = path.with_name("plain.docx")
    docx.Document().save(plain)
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as target:
        for name in source.namelist():
            data = source.read(name)
            if name == "word/document.xml":
                one = b"<w:p><w:r><w:t>a</w:t></w:r></w:p>"
                data = data.replace(b"<w:body>", b"<w:body>" + one * paragraphs)
            target.writestr(name, data)
    return path


@pytest.mark.parametrize(
    ("limit", "told"), [(10**9, "more than 200 times as much"), (MEGABYTE, "limits.max_file_bytes is")]
)
def test_a_document_is_measured_before_it_is_unpacked(tmp_path, limit, told):
    path = docx_bomb(tmp_path / "bomb.docx", 90_000)  # 3 MiB of XML in 47 KiB
    begun = time.process_time()
    (reject,) = read(path, limit)
    assert (reject.reason, told in reject.detail) == ("file_too_big", True)
    assert time.process_time() - begun < 1


def test_a_document_of_many_paragraphs_is_read(tmp_path):
    (row,) = read(docx_bomb(tmp_path / "long.docx", 500))
    assert row.columns["text"].count("a") == 500


ROW = '{"text": "a, b]}", "of": [1, {"x": [2, 3]}]}'


@pytest.mark.parametrize(
    ("begin", "item", "between", "end"),
    [("[", ROW, ",", "]"), ('{"rows": [', ROW, ",", "]}"), ("{\n}", "{}", "\n", ""), ("{", '"k": 0', ",", "}")],
    ids=["list", "wrapped", "one after the other", "keys"],
)
def test_json_of_more_values_than_rows_is_not_read(tmp_path, monkeypatch, begin, item, between, end):
    """Each takes up to 40 times its letters: four megabytes of a compressed file would take all memory."""
    monkeypatch.setattr(json_reader, "_FEW_VALUES", 1)
    path = tmp_path / "x.json"
    for count in (9, 100):
        path.write_text(begin + between.join([item] * count) + end)
        assert len(read(path, max_rows=count + 1)) in (1, count, count + 1)
        with pytest.raises(
            DataError, match=rf"^x.json holds more than {count - 1} values, the most that limits.max_rows = "
        ):
            read(path, max_rows=count - 1)


def test_keys_of_a_row_and_turns_of_a_conversation_are_no_rows(tmp_path):
    path = tmp_path / "x.json"
    path.write_text(f"[{','.join(['{' + ','.join(f'{chr(34)}k{n}{chr(34)}: 1' for n in range(6)) + '}'] * 3)}]")
    assert len(read(path, max_rows=5)) == 3


@pytest.mark.parametrize("name", ["x.jsonl", "x.json"])
def test_a_row_of_json_is_measured_before_it_is_decoded(tmp_path, name):
    path = tmp_path / name
    rows = ['{"text": "a"}', f'{{"text": "b", "more": [{"[]," * 20_000}0]}}', '{"text": "c"}']
    path.write_text("\n".join(rows) if name == "x.jsonl" else f"[{','.join(rows)}]")
    first, long, last = read(path, max_characters=1000)
    assert (first.columns, last.columns) == ({"text": "a"}, {"text": "c"})
    assert long.reason == "too_long"
    assert long.detail.startswith("the row has 6002")
    assert long.detail.endswith(" bytes, the most is 32000; raise limits.max_characters of the source")


@pytest.mark.parametrize("end", ["json", "jsonl"])
@pytest.mark.parametrize(
    "text",
    [
        "[" * DEEP,
        "[" * DEEP + "]" * DEEP,
        '{"a":' * DEEP + "1" + "}" * DEEP,
        '{"a":' * DEEP + "1" + "}" * DEEP + "\n{}\n",
        '[{"messages":' + "[" * DEEP + "]" * DEEP + "}]",
        '[{"messages":' + "[" * DEEP,
    ],
    ids=["open", "closed", "object", "lines", "rows", "open_rows"],
)
def test_deep_json_is_rejected(tmp_path, end, text):
    path = tmp_path / f"x.{end}"
    path.write_text(text)
    found = read(path)
    assert "not_json" in [row.reason for row in found if isinstance(row, RejectedRow)]
