"""Readers in a child: the same rows as in this process, and whatever a file does to the child is a reject."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from datetime import UTC, date, datetime, timedelta
from datetime import time as time_of_day
from decimal import Decimal
from pathlib import Path

import pytest
import yaml

from tunectl.artifacts.records import RejectedRow, Source
from tunectl.backends.readers import reader_process, source_rows
from tunectl.backends.readers.docx_reader import read_docx
from tunectl.backends.readers.html_reader import read_html
from tunectl.backends.readers.pdf_reader import read_pdf
from tunectl.backends.readers.reader_process import end_children, make_child_reader
from tunectl.config.schema.ingest import FileSource
from tunectl.core.errors import DataError
from tunectl.data.readers.file_discovery import SourceFile
from tunectl.data.readers.row import RawRow
from tunectl.pipeline.stages.ingest import READERS

VALUES = yaml.safe_load(Path("conf/ingest/source/files.yaml").read_text())
READING = FileSource(**{**VALUES, "path": "x"})


@pytest.fixture(autouse=True)
def own_child():
    end_children()
    yield
    end_children()


def file(path: Path) -> SourceFile:
    return SourceFile(path, path.name, path.suffix[1:])


def read(path: Path) -> list[RawRow | RejectedRow]:
    return list(make_child_reader(path.suffix[1:])(file(path), READING))


def child() -> int:
    (found,) = reader_process._idle
    return found._process.pid


def write_pdf(path: Path, pages: int, words: str = "Jazz on Friday") -> Path:
    from reportlab.pdfgen.canvas import Canvas

    canvas = Canvas(str(path), pageCompression=1)
    for number in range(pages):
        canvas.drawString(72, 720, f"{words} {number}")
        canvas.showPage()
    canvas.save()
    return path


def write_slow_pdf(path: Path, size: int) -> Path:
    """A page whose text is written in ``size`` pieces."""
    content = b"BT /F1 9 Tf " + b"(ab) Tj 1 0 0 1 9 9 Tm " * size + b"ET"
    parts = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 9 9] /Contents 4 0 R /Resources << >> >>",
        b"<< /Length %d >>\nstream\n%s\nendstream" % (len(content), content),
    ]
    data, places = b"%PDF-1.4\n", []
    for number, part in enumerate(parts, 1):
        places.append(len(data))
        data += b"%d 0 obj\n%s\nendobj\n" % (number, part)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    end = b"trailer\n<< /Size 5 /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF" % len(data)
    path.write_bytes(data + b"xref\n0 5\n0000000000 65535 f \n" + table + end)
    return path


def write_table(path: Path, rows: int) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table(
        {
            "text": [f"row {number}" for number in range(rows)],
            "day": [date(2026, 3, 9)] * rows,
            "at": [datetime(2026, 3, 9, 12, tzinfo=UTC)] * rows,
            "price": [Decimal("1.50")] * rows,
            "raw": [b"\xff\0"] * rows,
            "turns": [[{"role": "user", "content": "hi"}]] * rows,
            "none": [None] * rows,
            "hour": [time_of_day(9, 30)] * rows,
            "length": [timedelta(seconds=90)] * rows,
            "days": [[date(2026, 3, 9), None]] * rows,
        }
    )
    if path.suffix == ".parquet":
        pq.write_table(table, path)
    else:
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as stream:
            stream.write_table(table)
    return path


def test_rows_are_those_of_the_reader_and_one_child_reads_file_after_file(tmp_path):
    import docx

    first = write_pdf(tmp_path / "a.pdf", 3)
    rows = read(first)
    assert rows == list(read_pdf(file(first), READING))
    assert [row.source for row in rows] == [Source("a.pdf", 1), Source("a.pdf", 2), Source("a.pdf", 3)]
    known = child()
    document = docx.Document()
    document.add_paragraph("See you.")
    document.save(str(tmp_path / "b.docx"))
    assert read(tmp_path / "b.docx") == list(read_docx(file(tmp_path / "b.docx"), READING))
    (tmp_path / "c.pdf").write_bytes(b"no pdf")
    assert read(tmp_path / "c.pdf") == list(read_pdf(file(tmp_path / "c.pdf"), READING))
    assert child() == known


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_values_of_a_table_come_as_pyarrow_has_them(tmp_path, kind):
    rows = read(write_table(tmp_path / f"t.{kind}", 1500))
    assert [row.source.row for row in rows] == list(range(1, 1501))
    assert rows[1499].columns == {
        "text": "row 1499",
        "day": date(2026, 3, 9),
        "at": datetime(2026, 3, 9, 12, tzinfo=UTC),
        "price": Decimal("1.50"),
        "raw": b"\xff\0",
        "turns": [{"role": "user", "content": "hi"}],
        "none": None,
        "hour": time_of_day(9, 30),
        "length": timedelta(seconds=90),
        "days": [date(2026, 3, 9), None],
    }
    (tmp_path / f"bad.{kind}").write_bytes(b"nothing of the kind")
    with pytest.raises(DataError, match=r"^bad\.\w+ cannot be read as (Parquet|Arrow): "):
        read(tmp_path / f"bad.{kind}")
    assert len(read(tmp_path / f"t.{kind}")) == 1500


def test_a_child_process_that_dies_gives_one_reject_and_the_next_file_is_read(tmp_path):
    rows = make_child_reader("pdf")(file(write_pdf(tmp_path / "a.pdf", 400, "Jazz " * 2000)), READING)
    first = next(rows)
    assert isinstance(first, RawRow)
    (pid,) = (
        int(one) for one in subprocess.check_output(["pgrep", "-P", str(os.getpid()), "-f", "reader_process"]).split()
    )
    os.kill(pid, signal.SIGKILL)
    *more, last = rows
    assert all(isinstance(row, RawRow) for row in more)
    assert last == RejectedRow(
        Source("a.pdf", len(more) + 2), "unreadable", "the process that reads it crashed (exit status -9)"
    )
    assert len(read(write_pdf(tmp_path / "b.pdf", 2))) == 2
    assert child() != pid


def test_a_file_that_takes_too_long_is_a_reject(tmp_path, monkeypatch):
    read(write_pdf(tmp_path / "a.pdf", 1))
    monkeypatch.setattr(reader_process, "MAX_SILENT_SECONDS", 0.5)
    os.kill(stopped := child(), signal.SIGSTOP)
    started = time.monotonic()
    assert read(tmp_path / "a.pdf") == [
        RejectedRow(Source("a.pdf"), "unreadable", "reading its next rows took more than 0 s")
    ]
    assert time.monotonic() - started < 5
    with pytest.raises(ProcessLookupError):
        os.kill(stopped, 0)


def test_a_file_that_takes_too_much_processor_time_is_a_reject(tmp_path, monkeypatch):
    monkeypatch.setattr(reader_process, "MAX_CPU_SECONDS", 1)
    slow = write_slow_pdf(tmp_path / "slow.pdf", 200_000)
    assert read(slow) == [
        RejectedRow(Source("slow.pdf"), "unreadable", "reading it took more than 1 s of processor time")
    ]


def test_a_file_that_takes_too_much_memory_is_a_reject_or_a_declared_error(tmp_path, monkeypatch):
    import pyarrow as pa
    import pyarrow.parquet as pq

    monkeypatch.setattr(reader_process, "MAX_MEMORY_BYTES", 2 << 30)
    table = pa.table({"text": pa.array(["a" * (1 << 20)] * 1900)})
    path = tmp_path / "bomb.parquet"
    pq.write_table(table, path, compression="zstd", row_group_size=1900, use_dictionary=False)
    assert path.stat().st_size < 2_000_000
    try:
        last = read(path)[-1]
    except DataError as error:
        assert error.message.startswith("bomb.parquet cannot be read as Parquet: ")  # noqa: PT017  either is right
    else:
        assert isinstance(last, RejectedRow)
        assert last.reason == "unreadable"


def test_a_row_that_is_larger_than_a_row_may_be_is_a_reject_and_the_next_ones_are_read(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    limits = READING.limits.model_copy(update={"max_characters": 100_000})
    most = reader_process.limit_frame(100_000)
    assert most < 10_000_000
    wide = [["a" * 100_000] * count for count in (1, most // 100_000 + 1, 1)]
    pq.write_table(pa.table({"text": ["x", "y", "z"], "notes": wide}), tmp_path / "t.parquet")
    first, reject, last = make_child_reader("parquet")(
        file(tmp_path / "t.parquet"), READING.model_copy(update={"limits": limits})
    )
    assert (first.source.row, last.source.row, last.columns["text"]) == (1, 3, "z")
    assert (reject.source, reject.reason) == (Source("t.parquet", 2), "too_long")
    assert re.fullmatch(
        rf"the row has \d+ bytes, the most is {most}; raise limits.max_characters of the source, or split the file",
        reject.detail,
    )
    assert reader_process._idle


def test_a_page_is_cut_behind_the_limit_where_it_is_too_long_all_the_same(tmp_path):
    limits = READING.limits.model_copy(update={"max_characters": 100})
    path = write_pdf(tmp_path / "a.pdf", 1, "Jazz " * 40)
    (row,) = make_child_reader("pdf")(file(path), READING.model_copy(update={"limits": limits}))
    assert len(row.columns["text"]) == 101


def test_a_reader_that_sends_more_than_a_row_may_be_is_a_reject_that_says_what_to_do(tmp_path):
    path = write_pdf(tmp_path / "a.pdf", 1)
    read(path)
    most = reader_process.limit_frame(READING.limits.max_characters)
    assert most < 40_000_000
    known = reader_process._take_child()
    code = f"import struct, sys; sys.stdout.buffer.write(struct.pack('>I', {most + 1})); sys.stdout.flush(); sys.stdin.read()"
    hostile = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, process_group=0
    )
    known.close()
    known._process = hostile
    reader_process._idle.append(known)
    assert read(path) == [
        RejectedRow(
            Source("a.pdf"),
            "unreadable",
            f"a part of it has {most + 1} bytes, the most is {most}; raise limits.max_characters of the source, or split the file",
        )
    ]
    assert hostile.poll() == -signal.SIGKILL
    assert len(read(path)) == 1


def write_packed(path: Path, kind: str, size: int) -> Path:
    """A file of a few kilobytes whose 256 rows share one text of ``size`` MiB."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    text = pa.array(["0" * (size << 20)])
    if kind == "dictionary":
        column = pa.DictionaryArray.from_arrays(pa.array([0] * 256, pa.int32()), text)
    elif kind == "run_end":
        column = pa.RunEndEncodedArray.from_arrays(pa.array([256], pa.int32()), text)
    elif kind == "list":
        packed = pa.DictionaryArray.from_arrays(pa.array([0] * 256, pa.int32()), text)
        column = pa.ListArray.from_arrays(pa.array(range(257), pa.int32()), packed)
    else:
        buffers = text.cast(pa.string_view()).buffers()
        buffers[1] = pa.py_buffer(buffers[1].to_pybytes() * 256)
        column = pa.Array.from_buffers(pa.string_view(), 256, buffers)
    batch = pa.record_batch([column], names=["text"])
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_batches([batch]), path, compression="zstd")
    else:
        options = pa.ipc.IpcWriteOptions(compression="zstd")
        with pa.ipc.new_file(str(path), batch.schema, options=options) as stream:
            stream.write_batch(batch)
    return path


PACKED = """
import resource, sys
from pathlib import Path
from tunectl.backends.readers import source_rows
from tunectl.config.schema.ingest import FileSource
from tunectl.data.readers.file_discovery import SourceFile
import yaml
values = yaml.safe_load(Path("conf/ingest/source/files.yaml").read_text())
path = Path(sys.argv[1])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for row in source_rows.TABLE_READERS[path.suffix[1:]](
    SourceFile(path, path.name, path.suffix[1:]), FileSource(**{**values, "path": "x"})
):
    print(getattr(row, "reason", None) or len(str(row.columns["text"])))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.parametrize(
    ("name", "kind", "size"),
    [
        ("x.arrow", "dictionary", 2),
        ("x.arrow", "run_end", 2),
        ("x.arrow", "view", 2),
        ("x.arrow", "list", 2),
        ("x.parquet", "dictionary", 2),
        ("x.arrow", "dictionary", 200),
        ("x.parquet", "dictionary", 200),
    ],
)
def test_rows_that_share_one_large_text_are_unpacked_in_the_child(tmp_path, name, kind, size):
    path = write_packed(tmp_path / name, kind, size)
    assert path.stat().st_size < 100_000
    done = subprocess.run([sys.executable, "-c", PACKED, str(path)], capture_output=True, text=True, check=True)
    *told, grown = done.stdout.split()
    if size == 2:  # cut where each is too long all the same
        limit = READING.limits.max_characters
        assert [int(one) for one in told] == [limit + 1 + (len("['']") if kind == "list" else 0)] * 256
    else:
        assert told == ["unreadable"]
    assert int(grown) < 50 << 10


def test_a_text_that_is_cut_is_too_long_and_one_of_the_limit_is_whole(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    limit = READING.limits.max_characters
    texts = ["a" * limit, "é" * (limit + 1), "b" * (limit + 5), "", None]
    pq.write_table(pa.table({"text": texts, "n": range(5)}), tmp_path / "t.parquet")
    rows = read(tmp_path / "t.parquet")
    assert [row.columns["n"] for row in rows] == [0, 1, 2, 3, 4]
    assert [row.columns["text"] for row in rows] == [texts[0], texts[1], "b" * (limit + 1), "", None]


def test_rows_left_in_the_middle_end_the_child_and_two_files_at_a_time_have_two(tmp_path):
    path = write_pdf(tmp_path / "a.pdf", 300, "Jazz " * 2000)
    rows = make_child_reader("pdf")(file(path), READING)
    assert isinstance(next(rows), RawRow)
    assert len(read(write_pdf(tmp_path / "b.pdf", 1))) == 1
    rows.close()
    assert len(reader_process._idle) == 1


def test_the_child_ends_with_its_parent(tmp_path):
    write_pdf(tmp_path / "a.pdf", 1)
    code = f"""
import os, signal
from pathlib import Path
import yaml
from tunectl.backends.readers import reader_process, source_rows
from tunectl.config.schema.ingest import FileSource
from tunectl.data.readers.file_discovery import SourceFile
values = yaml.safe_load(Path("conf/ingest/source/files.yaml").read_text())
path = Path({str(tmp_path / "a.pdf")!r})
list(reader_process.make_child_reader("pdf")(SourceFile(path, "a.pdf", "pdf"), FileSource(**{{**values, "path": "x"}})))
print(reader_process._idle[0]._process.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    pid, end = int(done.stdout), time.monotonic() + 10
    while Path(f"/proc/{pid}").exists() and "Z" not in Path(f"/proc/{pid}/stat").read_text().split()[2]:
        assert time.monotonic() < end
        time.sleep(0.05)


def read_page(path: Path) -> list[RawRow | RejectedRow]:
    return list(source_rows.rows(file(path), READING, "s", READERS))


@pytest.mark.parametrize(
    "content",
    [
        '<html><head><meta name="place" content="Chez Marie"></head><body><p>The café is open.</p></body></html>'.encode(),
        '<meta charset="iso-8859-1"><p>The café is open.</p>'.encode("latin-1"),
        b"<html><body><img src=a.png></body></html>",
        b"",
    ],
)
def test_a_page_is_read_by_the_child_as_by_its_reader(tmp_path, content):
    path = tmp_path / "a.html"
    path.write_bytes(content)
    assert read_page(path) == list(read_html(file(path), READING))
    assert child() != os.getpid()


def test_a_page_in_another_encoding_and_one_that_is_no_page_are_rejects(tmp_path):
    for name, content, reason in (
        ("a", b"<p>caf\xe9 au lait</p>", "wrong_encoding"),
        ("b", b"%PDF-1.4", "binary_file"),
    ):
        path = tmp_path / f"{name}.html"
        path.write_bytes(content)
        (reject,) = read_page(path)
        assert (reject.source.file, reject.reason) == (f"{name}.html", reason)


def test_a_page_that_takes_too_long_is_a_reject_and_the_next_one_is_read(tmp_path, monkeypatch):
    good, slow = tmp_path / "good.html", tmp_path / "slow.html"
    good.write_text("<p>The cafe is open.</p>")
    slow.write_text("<html><body>" + "<a href='/x'>word word</a> " * 60_000)
    assert [row.columns["text"] for row in read_page(good)] == ["The cafe is open."]
    monkeypatch.setattr(reader_process, "MAX_SILENT_SECONDS", 5.0)
    (reject,) = read_page(slow)
    assert (reject.reason, reject.detail) == ("unreadable", "reading its next rows took more than 5 s")
    monkeypatch.undo()
    assert [row.columns["text"] for row in read_page(good)] == ["The cafe is open."]


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_one_value_that_python_cannot_hold_costs_no_other_row(tmp_path, kind):
    """A time after the year 9999, a date, a time zone that nobody knows, and a text that is not UTF-8."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    far = [1] * 700 + [2**62] + [1] * 699
    raw = pa.array([b"text"] * 700 + [b"\xff"] + [b"text"] * 699)
    table = pa.table(
        {
            "text": pa.StringArray.from_buffers(1400, *raw.buffers()[1:]),
            "at": pa.array(far).cast(pa.timestamp("us")),
            "day": pa.array([min(value, 2**31 - 1) for value in far], pa.int32()).cast(pa.date32()),
            "zone": pa.array([1] * 1400).cast(pa.timestamp("us", tz="Mars/Phobos")),
        }
    )
    if kind == "parquet":
        pq.write_table(table, tmp_path / "t.parquet")
    else:
        with pa.ipc.new_file(tmp_path / "t.arrow", table.schema) as writer:
            writer.write_table(table, max_chunksize=1000)
    rows = read(tmp_path / f"t.{kind}")
    assert [row.source.row for row in rows] == list(range(1, 1401))
    assert rows[700].columns == {"text": None, "at": None, "day": None, "zone": None}
    assert (rows[1399].columns["text"], rows[1399].columns["day"].year) == ("text", 1970)
