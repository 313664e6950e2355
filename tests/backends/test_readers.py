"""HTML, PDF, DOCX, Parquet, Arrow and guessed encodings, through the real libraries."""

from __future__ import annotations

import os
import struct
import sys
import zlib
from io import BytesIO
from pathlib import Path

import pytest
import yaml

from tunectl.artifacts.records import RejectedRow
from tunectl.backends.readers import reader_process
from tunectl.backends.readers.docx_reader import read_docx
from tunectl.backends.readers.html_reader import read_html
from tunectl.backends.readers.pdf_reader import read_pdf
from tunectl.backends.readers.reader_process import make_child_reader
from tunectl.backends.text.encoding_detection import detect_encoding
from tunectl.config.schema.ingest import FileSource
from tunectl.core.errors import DataError, MissingExtraError
from tunectl.data.readers.file_discovery import SourceFile
from tunectl.data.readers.text_reader import DecodeError

VALUES = yaml.safe_load(Path("conf/ingest/source/files.yaml").read_text())
READING = FileSource(**{**VALUES, "path": "x"})
PAGE = """<!DOCTYPE html><html lang="en"><head><title>Peach Tree Bakery</title>
<meta name="neighbourhood" content="Midtown"><meta name="author" content="Ann Lee">{meta}</head><body>
<nav><a href="/">Home</a> <a href="/about">About us</a></nav>
<div class="cookie-banner">We use cookies. Accept all cookies?</div>
<main><article><h1>Peach Tree Bakery</h1>
<p>Our sourdough is baked at four in the morning, every morning, in a brick oven that Ann built with her own hands.</p>
<p>Caf\u00e9 au lait costs three dollars, and a second cup is free for neighbours who bring their own mug along.</p>
</article></main><footer>Copyright 2024. All rights reserved.</footer></body></html>"""

read_parquet, read_arrow = make_child_reader("parquet"), make_child_reader("arrow")


def read(reader, path, reading=READING):
    return list(reader(SourceFile(path, path.name, path.suffix[1:]), reading))


def test_html_main_text_metadata_and_meta_tags(tmp_path):
    page = tmp_path / "bakery.html"
    page.write_text(PAGE.format(meta='<meta charset="utf-8">'), encoding="utf-8")
    (row,) = read(read_html, page)
    text = row.columns["text"]
    assert "brick oven that Ann built" in text
    assert "Café au lait costs three dollars" in text
    assert "cookies" not in text
    assert "Home" not in text
    assert row.columns["title"] == "Peach Tree Bakery"
    assert row.columns["neighbourhood"] == "Midtown"
    assert row.columns["author"] == "Ann Lee"
    assert (row.source.file, row.source.row) == ("bakery.html", 0)


def test_html_in_the_encoding_that_it_declares(tmp_path):
    page = tmp_path / "old.html"
    page.write_bytes(PAGE.format(meta='<meta charset="iso-8859-1">').encode("latin-1"))
    assert "Café au lait" in read(read_html, page)[0].columns["text"]


@pytest.mark.parametrize(
    ("before", "encoding"),
    [("<?xml version='1.0' encoding='ISO-8859-1'?>", "latin-1"), ('<?xml version="1.0"?>', "utf-16")],
)
def test_xml_declaration_and_byte_order_mark_tell_the_encoding(tmp_path, before, encoding):
    page = tmp_path / "page.xhtml"
    page.write_bytes(f"{before}<html><body><p>The café is open.</p></body></html>".encode(encoding))
    assert read(read_html, page)[0].columns["text"] == "The café is open."


def test_html_in_another_encoding_than_it_declares(tmp_path):
    page = tmp_path / "wrong.html"
    page.write_bytes(PAGE.format(meta='<meta charset="utf-8">').encode("latin-1"))
    with pytest.raises(DecodeError) as caught:
        read(read_html, page)
    assert caught.value.what.endswith("(0xe9) is not UTF-8")


def test_short_page_keeps_its_text(tmp_path):
    page = tmp_path / "flyer.html"
    page.write_text("<html><body><p>Jazz tonight at nine.</p></body></html>")
    assert read(read_html, page)[0].columns["text"].strip() == "Jazz tonight at nine."


@pytest.mark.parametrize(
    ("html", "text"),
    [
        (
            "<?xml version='1.0' encoding='utf-8'?><!DOCTYPE html><html><body><p>XHTML here.</p></body></html>",
            "XHTML here.",
        ),
        ("<p>A fragment.</p><p>And more &amp; more.</p>", "A fragment.\nAnd more & more."),
        ("<table><tr><td>Soup</td><td>$4</td></tr></table><ul><li>Mon 9-5</li></ul>", "Soup\n$4\nMon 9-5"),
        ("<p>A fragment of one element.</p>", "A fragment of one element."),
        ("<!-- made by hand --><div>One <b>box</b></div>", "One box"),
        ("Open<br>daily", "Open\ndaily"),
        ("<html><p>No body here.</p></html>", "No body here."),
        ("no tags at all", "no tags at all"),
    ],
)
def test_pages_of_every_kind_keep_their_text(tmp_path, html, text):
    page = tmp_path / "page.html"
    page.write_text(html)
    (row,) = read(read_html, page)
    assert [word for word in row.columns["text"].split() if word not in {"|", "-"}] == text.split()


def test_page_of_pictures_and_empty_page(tmp_path):
    page = tmp_path / "pictures.html"
    page.write_text('<html><body><img src="flyer.png"></body></html>')
    (reject,) = read(read_html, page)
    assert (reject.reason, reject.detail) == ("image_without_text", "the page shows pictures, and no text")
    page.write_text("<html><body> </body></html>")
    (reject,) = read(read_html, page)
    assert (reject.reason, reject.detail) == ("no_text", "the page holds no text")


def pdf(path, pages, *, password=None, picture=False):
    from reportlab.lib.pdfencrypt import StandardEncryption
    from reportlab.lib.utils import ImageReader
    from reportlab.pdfgen.canvas import Canvas

    encrypt = None if password is None else StandardEncryption(password, ownerPassword="owner", strength=128)
    canvas = Canvas(str(path), encrypt=encrypt)
    canvas.setTitle("Flyer")
    for lines in pages:
        for at, line in enumerate(lines):
            canvas.drawString(72, 720 - 14 * at, line)
        if picture and not lines:
            canvas.drawImage(ImageReader(BytesIO(png())), 72, 400, 100, 100)
        canvas.showPage()
    canvas.save()


def png():
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 2, 2, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(b"\0" + b"\xff" * 6 + b"\0" + b"\xff" * 6))
        + chunk(b"IEND", b"")
    )


def test_pdf_page_by_page(tmp_path):
    path = tmp_path / "flyer.pdf"
    pdf(path, [["Jazz on the Beltline", "Friday at nine"], ["Free entry"], []])
    first, second, third = read(read_pdf, path)
    assert first.columns["text"].split("\n") == ["Jazz on the Beltline", "Friday at nine"]
    assert (first.columns["title"], first.columns["page"], first.source.row) == ("Flyer", 1, 1)
    assert (second.columns["text"], second.source.row) == ("Free entry", 2)
    assert (third.reason, third.detail, third.source.row) == ("no_text", "page 3 of 3 holds no text", 3)


def test_scanned_pdf(tmp_path):
    path = tmp_path / "scan.pdf"
    pdf(path, [[]], picture=True)
    (reject,) = read(read_pdf, path)
    assert (reject.reason, reject.detail) == ("image_without_text", "page 1 of 1 is a picture; run OCR on it first")


def test_pdf_with_a_password(tmp_path):
    path = tmp_path / "secret.pdf"
    pdf(path, [["hidden"]], password="open sesame")
    (reject,) = read(read_pdf, path)
    assert (reject.reason, reject.detail) == ("encrypted", "the file asks for a password")


def test_pdf_locked_for_changes_only(tmp_path):
    path = tmp_path / "locked.pdf"
    pdf(path, [["open to read"]], password="")
    assert read(read_pdf, path)[0].columns["text"] == "open to read"


@pytest.mark.parametrize("content", [b"", b"not a pdf at all", b"%PDF-1.7\n1 0 obj\n<<"])
def test_unreadable_pdf(tmp_path, content):
    path = tmp_path / "broken.pdf"
    path.write_bytes(content)
    (reject,) = read(read_pdf, path)
    assert (reject.reason, bool(reject.detail)) == ("unreadable", True)


def test_docx_paragraphs_and_tables_in_order(tmp_path):
    import docx

    document = docx.Document()
    document.core_properties.title = "Menu"
    document.core_properties.author = "Ann"
    document.add_heading("Menu", 1)
    document.add_paragraph("All day long.")
    table = document.add_table(rows=2, cols=2)
    for at, cell in enumerate(["Soup", "$4", "Pie", "$5"]):
        table.cell(at // 2, at % 2).text = cell
    document.add_paragraph("See you.")
    path = tmp_path / "menu.docx"
    document.save(str(path))
    (row,) = read(read_docx, path)
    assert row.columns["text"] == "Menu\n\nAll day long.\n\nSoup | $4\nPie | $5\n\nSee you."
    assert (row.columns["title"], row.columns["author"]) == ("Menu", "Ann")


def test_docx_without_text_with_pictures_and_broken(tmp_path):
    import docx

    path = tmp_path / "empty.docx"
    docx.Document().save(str(path))
    assert read(read_docx, path)[0].reason == "no_text"
    document = docx.Document()
    document.add_picture(BytesIO(png()))
    document.save(str(path))
    assert read(read_docx, path)[0].reason == "image_without_text"
    path.write_bytes(b"PK\x03\x04 but no more")
    (reject,) = read(read_docx, path)
    assert isinstance(reject, RejectedRow)
    assert reject.reason == "unreadable"


def test_parquet_and_arrow(tmp_path):
    import pyarrow as pa
    import pyarrow.feather
    import pyarrow.parquet

    table = pa.table({"messages": [[{"role": "user", "content": "a"}], None], "n": [1, 2]})
    expected = [{"messages": [{"role": "user", "content": "a"}], "n": 1}, {"messages": None, "n": 2}]
    pyarrow.parquet.write_table(table, tmp_path / "f.parquet")
    pyarrow.feather.write_feather(table, str(tmp_path / "f.feather"))
    with pa.OSFile(str(tmp_path / "f.arrow"), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    for reader, name in ((read_parquet, "f.parquet"), (read_arrow, "f.feather"), (read_arrow, "f.arrow")):
        found = read(reader, tmp_path / name)
        assert [row.columns for row in found] == expected
        assert [row.source.row for row in found] == [1, 2]


@pytest.mark.parametrize(("reader", "what"), [(read_parquet, "Parquet"), (read_arrow, "Arrow")])
def test_broken_parquet_and_arrow(tmp_path, reader, what):
    path = tmp_path / "f.bin"
    path.write_bytes(b"PAR1 no more of it")
    with pytest.raises(DataError, match=f"^f.bin cannot be read as {what}: "):
        read(reader, path)


@pytest.mark.parametrize(
    ("reader", "library"),
    [
        (read_html, "trafilatura"),
        (read_pdf, "pypdf"),
        (read_docx, "docx"),
    ],
)
def test_a_missing_library_is_named_with_its_pip_line(tmp_path, monkeypatch, reader, library):
    for name in [name for name in sys.modules if name.partition(".")[0] == library]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, library, None)
    path = tmp_path / "f.html"
    path.write_bytes(b"%PDF-1.7 <html><body>text</body></html>" if reader is read_pdf else b"<html>text</html>")
    with pytest.raises(MissingExtraError) as caught:
        read(reader, path)
    assert caught.value.message == f"{library} is not installed, and this needs it"
    assert caught.value.hint == "pip install 'tunectl-lm[data]'"


@pytest.mark.parametrize("reader", [read_parquet, read_arrow])
def test_a_library_that_the_child_lacks_is_named_with_its_pip_line(tmp_path, monkeypatch, reader):
    absent = tmp_path / "absent" / "pyarrow.py"
    absent.parent.mkdir()
    absent.write_text("raise ModuleNotFoundError(\"No module named 'pyarrow'\", name='pyarrow')\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(absent.parent), os.environ.get("PYTHONPATH", "")]))
    reader_process.end_children()
    (tmp_path / "f.parquet").write_bytes(b"PAR1")
    with pytest.raises(MissingExtraError) as caught:
        read(reader, tmp_path / "f.parquet")
    reader_process.end_children()
    assert caught.value.message == "pyarrow is not installed, and this needs it"
    assert caught.value.hint == "pip install 'tunectl-lm[data]'"


@pytest.mark.parametrize(
    ("text", "encoding", "accepted"),
    [
        (
            "Der Käse schmeckt würzig, die Brötchen sind frisch und die Straße ist schön. " * 20,
            "cp1252",
            {"cp1252", "cp1250", "latin_1"},
        ),
        ("Сыр очень вкусный, булочки всегда свежие и мягкие. " * 20, "cp1251", {"cp1251"}),
        ("plain text for everybody " * 20, "utf-16", {"utf_16"}),
    ],
)
def test_guessed_encodings(tmp_path, text, encoding, accepted):
    path = tmp_path / "f.txt"
    path.write_bytes(text.encode(encoding))
    assert detect_encoding(SourceFile(path, "f.txt", "text"), 0) in accepted
