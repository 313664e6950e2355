"""The ingest stage: records, accounts, decisions, and every error with its exact words."""

from __future__ import annotations

import csv
import gzip
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from tunectl.artifacts import atomic_io, row_counts
from tunectl.artifacts.paths import ProjectPaths
from tunectl.artifacts.records import Document, Example, RejectedRow, Source
from tunectl.backends.readers.web_fetch import Fetcher
from tunectl.config.loading import checks
from tunectl.config.loading.override_parsing import Override
from tunectl.config.schema.ingest import IngestStage
from tunectl.core.errors import DataError
from tunectl.data.readers.file_discovery import SourceFile
from tunectl.pipeline.stages import ingest

ROOT = Path.cwd()
CORPORA = ROOT / "tests" / "data" / "corpora"
CONF = {
    name: yaml.safe_load((ROOT / f"conf/ingest/source/{name}.yaml").read_text()) for name in ("files", "urls", "hub")
}


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out").mkdir()
    return tmp_path


def source(base="files", **changes):
    values = dict(CONF[base])
    for name, value in changes.items():
        values[name] = {**values[name], **value} if isinstance(value, dict) and name != "fields" else value
    return values


def run(share=0.2, **sources):
    settings = IngestStage(ingest={"sources": sources, "max_rejected_share": share})
    return ingest.run(settings, ingest.Inputs(), ingest.Outputs(artifact=Path("out")))


def fails(**sources):
    with pytest.raises(DataError) as caught:
        run(**sources)
    return caught.value.message, caught.value.hint


def documents():
    return list(atomic_io.read_rows(Path("out/documents.jsonl"), Document))


def examples():
    return list(atomic_io.read_rows(Path("out/examples.jsonl"), Example))


def rejects():
    return list(atomic_io.read_rows(Path("out/rejects.jsonl"), RejectedRow))


def write(name, text):
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())


def jsonl(name, rows):
    write(name, "".join(json.dumps(row) + "\n" for row in rows))


# What comes out


def test_a_folder_of_everything_with_an_account():
    write(
        "raw/midtown/page.html",
        "<html><body><article><p>The bakery opens at seven every day.</p></article></body></html>",
    )
    write("raw/midtown/note.md", "---\ntitle: A note\nneighbourhood: Midtown\n---\n# Note\n\nText.\n")
    write("raw/east/memo.txt", "A memo.")
    write("raw/picture.png", b"\x89PNG\r\n")
    write("raw/program.xyz", b"\x00")
    write("raw/.hidden.txt", "never read")
    write("raw/post.jsonl", '{"text": "Brunch!"}\n\n{broken\n[1]\n')
    jsonl(
        "raw/chat.jsonl", [{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}]
    )
    metrics = run(share=0.5, raw=source(path="raw", fields={"where": "folder"}))
    assert (metrics.sources, metrics.files, metrics.rows_in, metrics.kept) == (1, 7, 9, 5)
    assert (metrics.documents, metrics.examples, metrics.answers) == (4, 1, 1)
    assert metrics.rejected == {"image_without_text": 1, "not_an_object": 1, "not_json": 1, "unknown_type": 1}
    found = {item.source.file: item for item in documents()}
    assert found["raw/midtown/note.md"].text == "# Note\n\nText.\n"
    assert found["raw/midtown/note.md"].fields == {"where": "midtown"}
    assert found["raw/post.jsonl"].source == Source("raw/post.jsonl", 1)
    assert {item.kind for item in documents()} == {"raw"}
    account = row_counts.load(Path("out"))
    assert account.rows_in == account.kept + sum(account.rejected.values())
    assert account.records_out == 5
    broken = next(item for item in rejects() if item.reason == "not_json")
    assert (broken.source, broken.sample) == (Source("raw/post.jsonl", 3), "{broken")


def test_decisions_are_printed_and_written(caplog):
    jsonl("a/one.jsonl", [{"instruction": "Hi", "output": "Hello", "stars": 5}])
    jsonl("a/two.jsonl", [{"instruction": "Ho", "output": "Hello"}])
    with caplog.at_level("INFO", "tunectl"):
        run(chats=source(path="a"))
    assert (
        "chats: a/one.jsonl is read as examples, alpaca (columns instruction, output, stars); not used: stars"
        in caplog.messages
    )
    assert "chats: 2 rows, 2 kept, 0 rejected; 0 documents, 2 examples with 2 answers" in caplog.messages
    found = atomic_io.read_json(Path("out/decisions.json"))
    assert found["chats"]["read_as"] == [
        {
            "type": "jsonl",
            "format": "alpaca",
            "holds": "examples",
            "why": "columns instruction, output, stars",
            "first_file": "a/one.jsonl",
            "unused": ["stars"],
            "files": 2,
        }
    ]


def test_references_of_one_input_become_one_example():
    write("e2e.csv", "mr,ref\n1,a\n2,b\n1,c\n")
    metrics = run(table=source(path="e2e.csv", columns={"prompt": ["mr"], "answer": "ref"}))
    assert (metrics.rows_in, metrics.kept, metrics.examples, metrics.answers) == (3, 3, 2, 3)
    first, second = examples()
    assert [(item.text, item.source.row) for item in first.answers] == [("a", 1), ("c", 3)]
    assert (first.source.row, second.source.row) == (1, 2)
    run(table=source(path="e2e.csv", columns={"prompt": ["mr"], "answer": "ref"}, merge_references=False))
    assert len(examples()) == 3
    assert len({item.id for item in examples()}) == 3


def test_template_and_system_text_around_a_table():
    write("e2e.csv", "mr,ref\nname[X],X is nice.\n")
    prompt = {"template": "Describe this place: {mr}", "system": "You write for a guide."}
    run(table=source(path="e2e.csv", columns={"prompt": ["mr"], "answer": "ref"}, prompt=prompt))
    (found,) = examples()
    assert [(turn.role, turn.content) for turn in found.messages] == [
        ("system", "You write for a guide."),
        ("user", "Describe this place: name[X]"),
    ]


def test_the_same_sources_give_the_same_bytes():
    jsonl("a.jsonl", [{"prompt": str(at % 3), "completion": str(at)} for at in range(9)])
    run(a=source(path="a.jsonl"))
    before = Path("out/examples.jsonl").read_bytes()
    run(a=source(path="a.jsonl"))
    assert Path("out/examples.jsonl").read_bytes() == before


def test_compressed_tables_and_globs():
    Path("data").mkdir()
    with gzip.open("data/a.csv.gz", "wt") as stream:
        stream.write("prompt,completion\na,b\n")
    write("data/deep/b.csv", "prompt,completion\nc,d\n")
    assert run(x=source(path="data/**/*.csv*")).examples == 2


def test_encoding_of_a_table_can_be_declared():
    write("k.csv", "prompt,completion\nKäse?,Würzig\n".encode("cp1252"))
    run(x=source(path="k.csv", encoding="cp1252"))
    assert examples()[0].answers[0].text == "Würzig"


def test_utf_16_with_and_without_a_mark():
    text = "prompt,completion\na,Würzig\n"
    write("k.csv", text.encode("utf-16-le"))
    run(x=source(path="k.csv", encoding="utf-16-le"))
    assert examples()[0].answers[0].text == "Würzig"
    write("k.csv", text.encode("utf-16"))
    message, hint = fails(x=source(path="k.csv"))
    assert message == "ingest.sources.x: k.csv: byte 0 (0xff) is not UTF-8; it seems to be utf_16"
    assert hint == "set ingest.sources.x.encoding=utf_16, or write the file as UTF-8"
    run(x=source(path="k.csv", encoding="utf_16"))
    assert examples()[0].answers[0].text == "Würzig"


def test_word_and_pdf_and_parquet_in_one_folder():
    import docx
    import pyarrow as pa
    import pyarrow.parquet
    from reportlab.pdfgen.canvas import Canvas

    Path("mix").mkdir()
    document = docx.Document()
    document.add_paragraph("A letter.")
    document.save("mix/letter.docx")
    canvas = Canvas("mix/flyer.pdf")
    canvas.drawString(72, 700, "Jazz tonight")
    canvas.save()
    pyarrow.parquet.write_table(pa.table({"question": ["a"], "answer": ["b"]}), "mix/qa.parquet")
    run(mix=source(path="mix"))
    assert {item.text for item in documents()} == {"A letter.", "Jazz tonight"}
    assert examples()[0].answers[0].text == "b"


def test_declared_pages_come_through_the_cache(project, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            known = {"/page": b"<html><body><article><p>The market is on Saturday morning.</p></article></body></html>"}
            body = known.get(self.path)
            self.send_response(200 if body else 404)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        base = f"http://127.0.0.1:{server.server_port}"
        urls = [f"{base}/page", f"{base}/gone"]
        fetch = {"delay_seconds": 0.0, "retries": 0, "allow_private": True}
        metrics = run(share=0.5, web=source("urls", urls=urls, fetch=fetch))
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert (metrics.rows_in, metrics.kept, metrics.rejected) == (2, 1, {"http_error": 1})
    (found,) = documents()
    assert (found.text, found.source) == ("The market is on Saturday morning.", Source(urls[0]))
    assert (project / ".tunectl/cache/pages").is_dir()


@pytest.mark.parametrize(("pinned", "kept"), [(None, None), ("split", "test")])
def test_a_fetched_page_does_not_choose_its_split(monkeypatch, tmp_path, pinned, kept):
    (tmp_path / "page").write_text("---\nask: When?\nsplit: test\n---\nOn Saturday morning, at nine.\n")
    page = SourceFile(tmp_path / "page", "https://example.org/page", "markdown")
    monkeypatch.setattr(Fetcher, "get", lambda self, url: page)
    columns = {"prompt": ["ask"], "answer": "text", "split": pinned}
    run(web=source("urls", urls=["https://example.org/page"], holds="examples", columns=columns))
    (found,) = examples()
    assert (found.messages[-1].content, found.split) == ("When?", kept)


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("json", '{"nothing": "of a known format"}'),
        ("jsonl", '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}'),
        ("csv", 'question,answer,split\nWhen?,"On'),
        ("parquet", "PAR1 and no more"),
    ],
)
def test_a_fetched_page_is_no_table_unless_that_is_declared(monkeypatch, tmp_path, kind, body):
    """Whose page it is labels it: as a table it could end ingest, and choose its split."""
    (tmp_path / "table").write_text(body)
    (tmp_path / "page").write_text("Open on Sundays.")
    pages = {
        "https://example.org/a": SourceFile(tmp_path / "table", "https://example.org/a", kind),
        "https://example.org/b": SourceFile(tmp_path / "page", "https://example.org/b", "text"),
    }
    monkeypatch.setattr(Fetcher, "get", lambda self, url: pages[url])
    run(share=0.5, web=source("urls", urls=list(pages)))
    assert [item.text for item in documents()] == ["Open on Sundays."]
    (reject,) = rejects()
    assert (reject.source, reject.reason) == (Source("https://example.org/a"), "undeclared_table")
    assert reject.detail == (
        f"the page is sent as {kind}, a table; read tables of the web from a source that says so: ingest.sources.web.type={kind}"
    )


@pytest.mark.parametrize(
    ("url", "kind"), [("https://example.org/data.CSV?v=2", "auto"), ("https://example.org/data", "csv")]
)
def test_a_fetched_table_is_read_where_it_is_declared(monkeypatch, tmp_path, url, kind):
    (tmp_path / "table").write_text("question,answer\nWhen?,On Sunday\n")
    monkeypatch.setattr(Fetcher, "get", lambda self, url: SourceFile(tmp_path / "table", url, "csv"))
    run(web=source("urls", urls=[url], type=kind, holds="examples"))
    assert [item.answers[0].text for item in examples()] == ["On Sunday"]


def test_a_data_set_of_the_hub_keeps_its_splits(monkeypatch):
    pytest.importorskip("datasets")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    jsonl("set/train.jsonl", [{"question": "a", "answer": "b"}, {"question": "c", "answer": "d"}])
    jsonl("set/test.jsonl", [{"question": "a", "answer": "e"}])
    metrics = run(set=source("hub", id="./set", revision="main"))
    assert (metrics.rows_in, metrics.examples) == (3, 3)
    assert [(item.split, item.answers[0].text) for item in examples()] == [
        ("train", "b"),
        ("train", "d"),
        ("test", "e"),
    ]
    assert examples()[2].source == Source("hf://datasets/./set@main/test", 1)


# Mistakes, in their exact words


def test_missing_folder():
    assert fails(pages=source(path="data/pages")) == (
        "ingest.sources.pages.path = data/pages: there is no such file or folder",
        "paths are relative to the project, where dvc.yaml is",
    )


def test_empty_folder_and_glob_without_a_match():
    Path("data/pages").mkdir(parents=True)
    assert fails(pages=source(path="data/pages")) == (
        "ingest.sources.pages.path = data/pages: the folder is empty",
        "put the raw files there",
    )
    assert fails(pages=source(path="data/*.html")) == (
        "ingest.sources.pages.path = data/*.html: no file matches",
        "a glob is relative to the project; ** goes into folders",
    )


def test_empty_file():
    write("a.csv", "")
    write("b.txt", "\n")
    assert fails(a=source(path="a.csv")) == (
        "ingest.sources.a: a.csv holds no rows",
        "put data there, or take the source out",
    )
    assert fails(b=source(path="b.txt")) == (
        "ingest.sources.b: the one row of b.txt was rejected; the limit is 20%\n          1  no_text: first b.txt the file has no text",
        "fix the data, or take the source out of ingest.sources",
    )


def test_folder_without_known_kinds():
    write("d/a.xyz", "x")
    write("d/b.bin", "x")
    message, hint = fails(d=source(path="d"))
    assert message == "ingest.sources.d.path = d: none of its 2 files is of a known kind (.bin, .xyz)"
    assert hint.startswith("known are .html .htm")
    assert hint.endswith("for a file of another name, set ingest.sources.d.type")
    assert (
        fails(d=source(path="d/a.xyz"))[0]
        == "ingest.sources.d.path = d/a.xyz: the kind of this file is not known (.xyz)"
    )


def test_unreadable_pdf():
    write("flyers/a.pdf", b"this is no PDF")
    message, _ = fails(flyers=source(path="flyers"))
    assert message == (
        "ingest.sources.flyers: the one row of flyers was rejected; the limit is 20%\n"
        "          1  unreadable: first flyers/a.pdf it is not a PDF: it does not begin with %PDF-"
    )


def test_wrong_columns():
    write("e2e.csv", "mr,ref\nname[X],X is nice.\n")
    message, hint = fails(table=source(path="e2e.csv", columns={"prompt": ["MR"], "answer": "ref"}))
    assert message == (
        "ingest.sources.table: read as columns (pinned: MR, ref), but e2e.csv:1 does not fit: no column 'MR'; "
        "there are mr, ref; did you mean mr?\n"
        '    the row: {"mr":"name[X]","ref":"X is nice."}\n'
        "    columns expects: MR, ref"
    )
    assert hint.endswith("or the columns: ingest.sources.table.columns.prompt and .answer")


def test_columns_that_say_nothing():
    write("e2e.csv", "facts,said\nname[X],X is nice.\n")
    assert fails(table=source(path="e2e.csv")) == (
        'ingest.sources.table: the columns of e2e.csv:1 fit no format that is known: facts, said\n    {"facts":"name[X]","said":"X is nice."}',
        (
            "say which columns they are: ingest.sources.table.columns.prompt=[facts] ingest.sources.table.columns.answer=said; or for raw text: "
            "ingest.sources.table.columns.text=[<column>]"
        ),
    )


def test_a_wrong_pin_shows_the_first_offending_row():
    jsonl("a.jsonl", [{"prompt": "a", "completion": "b"}])
    message, _ = fails(a=source(path="a.jsonl", format="messages"))
    assert message == (
        "ingest.sources.a: read as messages (pinned), but a.jsonl:1 does not fit: no column 'messages'; there are prompt, "
        'completion\n    the row: {"prompt":"a","completion":"b"}\n    messages expects: messages: [{role, content}]'
    )


def test_a_guess_that_later_rows_belie():
    good = [{"prompt": "a", "completion": str(at)} for at in range(100)]
    bad = [{"question": "a", "reply": "b"}] * 40
    jsonl("a.jsonl", good + bad)
    message, _ = fails(a=source(path="a.jsonl"))
    assert message.startswith(
        "ingest.sources.a: read as prompt_completion (columns prompt, completion), but a.jsonl:101 does not fit: no column "
        "'prompt'; there are question, reply\n"
    )
    jsonl("a.jsonl", good + bad[:20])
    assert run(a=source(path="a.jsonl")).rejected == {"wrong_columns": 20}


def test_documents_declared_where_examples_are():
    jsonl("a.jsonl", [{"prompt": "a", "completion": "b"}])
    assert fails(a=source(path="a.jsonl", holds="documents")) == (
        (
            "ingest.sources.a: holds is documents, but a.jsonl:1 looks like prompt_completion (columns prompt, completion)\n"
            '    {"prompt":"a","completion":"b"}'
        ),
        "let holds be examples, or say where the text is: ingest.sources.a.columns.text=[<column>]",
    )


def test_preferences_are_refused():
    jsonl("hh.jsonl", [{"chosen": "a", "rejected": "b"}])
    message, hint = fails(hh=source(path="hh.jsonl"))
    assert message == (
        "ingest.sources.hh: hh.jsonl:1 holds pairs of a better and a worse answer (chosen, rejected), which supervised "
        'tuning cannot learn from\n    {"chosen":"a","rejected":"b"}'
    )
    where = (
        "ingest takes documents and examples; preferences are declared in a section of their own: preferences.sources; "
    )
    assert hint == f"{where}take this source out of ingest.sources"
    jsonl("dpo.jsonl", [{"prompt": "q", "chosen": "a", "rejected": "b"}])
    pins = "or learn from its better answers: ingest.sources.x.columns.prompt=[prompt] ingest.sources.x.columns.answer=chosen"
    assert fails(x=source(path="dpo.jsonl"))[1] == f"{where}take this source out of ingest.sources, {pins}"
    assert run(x=source(path="dpo.jsonl", columns={"prompt": ["prompt"], "answer": "chosen"})).examples == 1


def test_prompts_without_answers_are_refused():
    jsonl("rl.jsonl", [{"prompt": "q", "difficulty": 3}])
    message, hint = fails(x=source(path="rl.jsonl"))
    assert message == (
        "ingest.sources.x: rl.jsonl:1 holds prompts without answers (prompt), which supervised tuning cannot learn from\n"
        '    {"prompt":"q","difficulty":3}'
    )
    assert hint == (
        "ingest takes documents and examples; prompts to practice on are not among them yet; take this source out of "
        "ingest.sources"
    )


def test_wrong_encoding_of_a_table():
    text = (
        "prompt,completion\n" + "Wie schmeckt der Käse?,Der Käse schmeckt würzig und die Brötchen sind frisch.\n" * 30
    )
    write("k.csv", text.encode("cp1252"))
    message, hint = fails(k=source(path="k.csv"))
    assert message.startswith("ingest.sources.k: k.csv: byte 36 (0xe4) is not UTF-8; it seems to be cp125")
    assert hint.startswith("set ingest.sources.k.encoding=cp125")
    assert hint.endswith(", or write the file as UTF-8")


def test_wrong_encoding_far_inside_a_file():
    text = "prompt,completion\n" + f"{'a' * 999},b\n" * 3000 + "Käse,x\n"
    write("k.csv", text.encode("latin-1"))
    assert f": byte {text.index('ä')} (0xe4) is not UTF-8" in fails(k=source(path="k.csv"))[0]


def test_a_file_of_lines_that_breaks_in_the_middle_is_an_error():
    write("k.txt", ("a line of it\n" * 3000 + "Käse\n").encode("latin-1"))
    message, hint = fails(k=source(path="k.txt", type="lines"))
    assert message.startswith("ingest.sources.k: k.txt: byte ")
    assert "is not UTF-8" in message
    assert hint.startswith("set ingest.sources.k.encoding=")
    write("z.txt.gz", gzip.compress(bytes(range(32, 120)) * 100)[:-9])
    assert fails(z=source(path="z.txt.gz", type="lines"))[0].startswith("ingest.sources.z: z.txt.gz")


def test_wrong_encoding_of_one_page_is_a_reject():
    write("d/a.txt", "Käse ist würzig und schmeckt den Gästen.".encode("cp1252"))
    write("d/b.txt", "fine")
    run(share=0.5, d=source(path="d"))
    (found,) = rejects()
    assert (found.source.file, found.reason) == ("d/a.txt", "wrong_encoding")
    assert found.detail.startswith("byte 1 (0xe4) is not UTF-8")


def test_a_binary_file_named_csv():
    write("book.csv", b"PK\x03\x04\x14\x00\x06\x00")
    assert fails(book=source(path="book.csv")) == (
        "ingest.sources.book: book.csv is read as csv, but it is a ZIP, XLSX or DOCX file",
        "export it as text, give it its right extension, or take it out of the source",
    )
    write("book.csv", b"a,b\n\x00\x01,c\n")
    assert fails(book=source(path="book.csv"))[0].endswith("but it is a binary file (it holds zero bytes)")


def test_a_binary_file_named_txt_is_a_reject():
    write("d/a.txt", b"%PDF-1.7 ...")
    write("d/b.txt", "fine")
    run(share=0.5, d=source(path="d"))
    assert [(item.reason, item.detail) for item in rejects()] == [("binary_file", "it is a PDF file")]


def test_a_compressed_file_that_was_cut_off():
    whole = gzip.compress(b"prompt,completion\n" + b"a,b\n" * 50_000)
    write("a.csv.gz", whole[: len(whole) // 2])
    assert fails(a=source(path="a.csv.gz")) == (
        "ingest.sources.a: a.csv.gz cannot be unpacked: Compressed file ended before the end-of-stream marker was reached",
        "it was cut off, or has a wrong name; copy it again",
    )
    write("d/a.txt.gz", b"not packed at all")
    write("d/b.txt", "fine")
    run(share=0.5, d=source(path="d"))
    assert rejects()[0].reason == "unreadable"


def test_a_readme_among_examples_is_not_learned_from():
    jsonl("d/a.jsonl", [{"prompt": str(at), "completion": "b"} for at in range(9)])
    write("d/README.md", "About this data.")
    assert run(d=source(path="d", holds="examples")).rejected == {"not_an_example": 1}
    assert rejects()[0].detail == "d/README.md is raw text; set format: text to learn from it as it is"
    assert run(d=source(path="d/README.md", holds="examples", format="text")).examples == 1


def test_one_odd_file_among_many_is_a_reject():
    for at in range(9):
        jsonl(f"d/{at}.jsonl", [{"prompt": str(at), "completion": "b"}])
    jsonl("d/0.jsonl", [{"prompt": [1], "completion": "b"}])
    assert run(d=source(path="d")).rejected == {"wrong_columns": 1}


def test_all_rows_rejected():
    jsonl("a.jsonl", [{"prompt": "a", "completion": ""}, {"prompt": "", "completion": "b"}])
    assert fails(a=source(path="a.jsonl")) == (
        (
            "ingest.sources.a: all 2 rows of a.jsonl were rejected; the limit is 20%\n"
            "          2  empty_turn: first a.jsonl:1 turn 2 (assistant) is empty"
        ),
        "fix the data, or take the source out of ingest.sources",
    )


def test_more_rejected_than_allowed_and_yaml_that_allows_it():
    jsonl("a.jsonl", [{"prompt": "a", "completion": "b"}] * 3 + [{"prompt": "a", "completion": ""}])
    assert fails(a=source(path="a.jsonl")) == (
        (
            "ingest: 25.0% of 4 rows were rejected; the limit is 20%\n"
            "          1  empty_turn: first a.jsonl:4 turn 2 (assistant) is empty"
        ),
        "fix the data, or allow more: ingest.max_rejected_share=<share from 0 to 1>",
    )
    assert run(share=0.25, a=source(path="a.jsonl")).kept == 3


def test_limits():
    for name in "abc":
        write(f"d/{name}.txt", name * 100)
    assert fails(d=source(path="d", limits={"max_files": 2})) == (
        "ingest.sources.d.limits.max_files = 2: d holds 3 files",
        "raise ingest.sources.d.limits.max_files, or name fewer files in ingest.sources.d.path",
    )
    assert fails(d=source(path="d", limits={"max_rows": 2})) == (
        "ingest.sources.d.limits.max_rows = 2: the files of this source up to d/c.txt have more rows",
        "raise the limit, or declare fewer files under path",
    )
    assert fails(d=source(path="d", limits={"max_file_bytes": 99}))[0].endswith(
        "3  file_too_big: first d/a.txt 100 bytes; limits.max_file_bytes is 99"
    )
    assert fails(d=source(path="d", limits={"max_characters": 99}))[0].endswith(
        "3  too_long: first d/a.txt the file has more than 99 characters of text; raise limits.max_characters"
    )


def test_a_field_that_no_row_has():
    write("r.csv", "text,neighborhood\nGood pie,Midtown\n")
    assert fails(r=source(path="r.csv", fields={"where": "neighbourhood"})) == (
        "ingest.sources.r.fields.where = neighbourhood: no row has a value there; there are text, neighborhood",
        "did you mean neighborhood?",
    )


def test_header_with_a_name_twice():
    write("r.csv", "text,text\na,b\n")
    assert fails(r=source(path="r.csv")) == ("r.csv: the header names text twice", "rename one of the columns")


def test_one_broken_file_of_many_rejects_its_rows_only():
    write("r.csv", "text,n\nGood pie,1\nToo,many,cells\nNice,2\nGood,3\nGreat,4\nFine,5\n")
    assert run(r=source(path="r.csv")).rejected == {"wrong_cell_count": 1}
    assert (rejects()[0].source.row, rejects()[0].detail) == (2, "3 cells, the header has 2")


# The schema


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"format": "columns"}, "format is columns, but no column is set"),
        ({"columns": {"prompt": ["a"]}}, "prompt and answer go together, and answer is null; set both or neither"),
        (
            {"columns": {"text": ["a"], "prompt": ["a"], "answer": "b"}},
            "text (of documents) and prompt (of examples) are both set",
        ),
        ({"columns": {"system": "a"}}, "system is a, and prompt and answer are null"),
        (
            {"columns": {"prompt": ["a"], "answer": "b"}, "holds": "documents"},
            "columns.prompt and columns.answer are set; set columns.text instead",
        ),
        (
            {"columns": {"text": ["a"]}, "format": "alpaca"},
            "format is alpaca, and columns.text or columns.prompt is set",
        ),
        ({"encoding": "klingon"}, "'klingon' is not an encoding"),
        ({"encoding": "hex"}, "'hex' is not an encoding"),
        ({"prompt": {"template": "no place"}}, "needs a placeholder"),
        ({"prompt": {"template": "open {brace"}}, "write a plain brace twice"),
        ({"prompt": {"template": "{a!r}"}}, "may only name columns"),
    ],
)
def test_pins_that_contradict_each_other(changes, words):
    with pytest.raises(ValidationError) as caught:
        IngestStage(ingest={"sources": {"x": source(path="a", **changes)}, "max_rejected_share": 0.2})
    assert words in str(caught.value)


@pytest.mark.parametrize("option", ["documents", "table"])
def test_the_general_options_compose(option):
    found = checks.load_config(
        ProjectPaths(ROOT), [Override.from_cli(f"ingest={option}"), Override.from_cli("data.path=raw")]
    ).root
    assert [item.path for item in found.ingest.sources.values()] == ["raw"]


def test_addresses_must_be_of_the_web():
    with pytest.raises(ValidationError):
        IngestStage(ingest={"sources": {"x": source("urls", urls=["file:///etc/passwd"])}, "max_rejected_share": 0.2})


# The real thing


def test_e2e_is_547_examples_of_4672_rows():
    metrics = run(e2e=source(path=str(CORPORA / "e2e_devset.csv.gz"), columns={"prompt": ["mr"], "answer": "ref"}))
    assert (metrics.rows_in, metrics.kept, metrics.examples, metrics.answers) == (4672, 4672, 547, 4672)
    with gzip.open(CORPORA / "e2e_devset.csv.gz", "rt", newline="") as stream:
        rows = list(csv.DictReader(stream))
    for item in examples():
        for answer in item.answers:
            assert rows[answer.source.row - 1] == {"mr": item.messages[0].content, "ref": answer.text}


def test_transcripts_in_the_form_of_hh_are_refused_as_preferences():
    asked = "\n\nHuman: Is the mill open today?\n\nAssistant:"
    row = {"chosen": f"{asked} Yes, until five.", "rejected": f"{asked} Who knows."}
    with gzip.open("harmless.jsonl.gz", "wt") as stream:
        stream.write(f"{json.dumps(row)}\n" * 3)
    message, _ = fails(hh=source(path="harmless.jsonl.gz"))
    assert "harmless.jsonl.gz:1 holds pairs of a better and a worse answer (chosen, rejected)" in message


def test_reviews_are_documents_with_their_rating():
    metrics = run(reviews=source(path=str(CORPORA / "product_reviews.csv.gz"), fields={"mood": "sentiment"}))
    assert (metrics.documents, metrics.kept) == (1200, 1200)
    assert all("mood" in item.fields for item in documents())
