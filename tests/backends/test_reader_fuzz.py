"""Readers on broken files of every kind: only rows, rejects and declared errors come out, whatever the bytes are.

TUNECTL_FUZZ: how many files are drawn for each kind, 30 by default.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tunectl.artifacts.records import RejectedRow
from tunectl.backends.readers import source_rows
from tunectl.backends.readers.reader_process import end_children
from tunectl.config.schema.ingest import FileSource
from tunectl.core.errors import TunectlError
from tunectl.data.readers.file_discovery import SourceFile
from tunectl.data.readers.row import RawRow
from tunectl.pipeline.stages.ingest import READERS

pytestmark = pytest.mark.slow

VALUES = yaml.safe_load(Path("conf/ingest/source/files.yaml").read_text())
READING = FileSource(**{**VALUES, "path": "x", "limits": {**VALUES["limits"], "max_file_bytes": 2_000_000}})
COUNT = int(os.environ.get("TUNECTL_FUZZ", "30"))
ROWS = [
    {"text": f"Jazz on Friday {number}", "label": None, "turns": [{"role": "user", "content": "hi"}]}
    for number in range(9)
]


def build_pdf() -> bytes:
    from reportlab.pdfgen.canvas import Canvas

    data = io.BytesIO()
    canvas = Canvas(data)
    for number in range(3):
        canvas.drawString(72, 720, f"Jazz {number}")
        canvas.showPage()
    canvas.save()
    return data.getvalue()


def build_docx() -> bytes:
    import docx

    data = io.BytesIO()
    document = docx.Document()
    document.add_paragraph("See you.")
    document.add_table(rows=2, cols=2).cell(0, 0).text = "Soup"
    document.save(data)
    return data.getvalue()


def build_table(kind: str) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table, data = pa.Table.from_pylist(ROWS), io.BytesIO()
    if kind == "parquet":
        pq.write_table(table, data)
    else:
        with pa.ipc.new_file(data, table.schema) as stream:
            stream.write_table(table)
    return data.getvalue()


LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
FILES: dict[str, Callable[[], bytes]] = {
    "pdf": build_pdf,
    "docx": build_docx,
    "parquet": lambda: build_table("parquet"),
    "arrow": lambda: build_table("arrow"),
    "html": lambda: (
        b"<html><head><title>A</title></head><body><p>Jazz on Friday.</p><table><tr><td>1</table></body></html>"
    ),
    "markdown": lambda: b"---\ntitle: A\ntags: [a, b]\n---\n# Jazz\n\n* on *Friday*\n",
    "text": "Jazz am Freitag, schön.\n".encode,
    "lines": lambda: b"Jazz\nam\nFreitag\n",
    "csv": lambda: b'text,label\n"Jazz, on\nFriday",1\nx,2\n',
    "tsv": lambda: b"text\tlabel\nJazz\t1\n",
    "json": lambda: json.dumps(ROWS).encode(),
    "jsonl": lambda: LINES,
}
NAMES = {"markdown": "x.md", "text": "x.txt", "lines": "x.txt"}
PIECES = [
    b"",
    b"\0",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"[" * 2000,
    b'{"a":' * 2000,
    b'"',
    b"9" * 400,
    b"\r",
    b"<",
    b"&#0;",
    b"\x1f\x8b",
    b"PK\x03\x04",
]


def break_bytes(data: bytes, places: list[tuple[int, int, bytes]]) -> bytes:
    """``data`` with some of its stretches replaced."""
    for place, length, piece in places:
        start = place % (len(data) + 1)
        data = data[:start] + piece + data[start + length :]
    return data


@pytest.fixture(scope="module", autouse=True)
def _no_child_stays():
    yield
    end_children()


def test_every_reader_is_here():
    assert FILES.keys() == READERS.keys()


@pytest.mark.parametrize("kind", FILES)
def test_only_rows_rejects_and_declared_errors_come_out(kind, tmp_path):
    good = FILES[kind]()
    path = tmp_path / NAMES.get(kind, f"x.{kind}")

    def read(data: bytes, place: Path = path) -> list[RawRow | RejectedRow]:
        place.write_bytes(data)
        return list(source_rows.rows(SourceFile(place, place.name, kind), READING, "s", READERS))

    assert any(isinstance(row, RawRow) for row in read(good))

    @settings(max_examples=COUNT, deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None)
    @given(
        st.binary(max_size=300)
        | st.builds(
            break_bytes,
            st.just(good),
            st.lists(
                st.tuples(st.integers(0, 10**6), st.integers(0, 200), st.sampled_from(PIECES) | st.binary(max_size=20)),
                max_size=4,
            ),
        ),
        st.booleans(),
    )
    def drawn(data: bytes, packed: bool) -> None:
        place = path.with_name(path.name + ".gz") if packed and kind not in ("docx", "parquet", "arrow") else path
        started = time.monotonic()
        try:
            rows = read(gzip.compress(data) if place != path else data, place)
        except TunectlError as error:
            assert error.message  # noqa: PT017  any of them may come, or none
        else:
            assert all(isinstance(row, RawRow) or (row.reason and row.detail) for row in rows)
        assert time.monotonic() - started < 30

    drawn()
