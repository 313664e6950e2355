"""The ingest stage on files as they come: other programs' habits, wrong names, links, half-empty tables."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import yaml

from tunectl.artifacts import atomic_io
from tunectl.artifacts.paths import ProjectPaths
from tunectl.artifacts.records import Document, Example, RejectedRow
from tunectl.config.schema.ingest import IngestStage
from tunectl.core.errors import DataError
from tunectl.data.readers.file_discovery import find_outside, glob_files
from tunectl.pipeline.stages import compose, ingest

FILES = yaml.safe_load((Path.cwd() / "conf/ingest/source/files.yaml").read_text())
ASK = {"role": "user", "content": "Hi"}
SAY = {"role": "assistant", "content": "Yo"}


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out").mkdir()
    return tmp_path


def write(name, content):
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def run(path="raw", share=0.2, **changes):
    """Ingest one source."""
    source = {**FILES, "path": path, **changes}
    settings = IngestStage(ingest={"sources": {"x": source}, "max_rejected_share": share})
    return ingest.run(settings, ingest.Inputs(), ingest.Outputs(artifact=Path("out")))


def pairs():
    rows = atomic_io.read_rows(Path("out/examples.jsonl"), Example)
    return [(row.messages[-1].content, [answer.text for answer in row.answers]) for row in rows]


def rejects():
    return [
        (row.source.file, row.reason, row.detail) for row in atomic_io.read_rows(Path("out/rejects.jsonl"), RejectedRow)
    ]


TABLE = "prompt,completion\nHi,Hello\nHow?,So\n"
OBJECTS = [{"prompt": "Hi", "completion": "Hello"}, {"prompt": "How?", "completion": "So"}]
WANTED = [("Hi", ["Hello"]), ("How?", ["So"])]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("excel.csv", "sep=;\r\nprompt;completion\r\nHi;Hello\r\nHow?;So\r\n"),
        ("excel.csv", "\ufeffsep=|\nprompt|completion\nHi|Hello\nHow?|So\n"),
        ("mac.csv", TABLE.replace("\n", "\r")),
        ("windows.csv", "\ufeff" + TABLE.replace("\n", "\r\n")),
        ("capitals.csv", TABLE.replace("prompt,completion", " Prompt , COMPLETION ")),
        ("list.jsonl", json.dumps(OBJECTS)),
        ("list.jsonl", json.dumps(OBJECTS, indent=1)),
        ("list.jsonl", "[" + ",\n".join(map(json.dumps, OBJECTS)) + "]\n"),
        ("pretty.jsonl", "\n\n".join(json.dumps(row, indent=2) for row in OBJECTS)),
        ("pretty.json", "\n".join(json.dumps(row, indent=2) for row in OBJECTS)),
        ("python.json", json.dumps([{**row, "score": float("nan")} for row in OBJECTS])),
        ("python.jsonl", "\n".join(json.dumps({**row, "score": float("inf")}) for row in OBJECTS)),
        ("blank.ndjson", "\ufeff\r\n" + "\r\n \r\n".join(map(json.dumps, OBJECTS)) + "\r\n\r\n"),
    ],
)
def test_tables_as_other_programs_write_them(name, content):
    write(name, content)
    assert run(name).kept == 2
    assert pairs() == WANTED
    assert [row.source.row for row in atomic_io.read_rows(Path("out/examples.jsonl"), Example)] in ([1, 2], [2, 4])


@pytest.mark.parametrize(
    "content", ["[1, 2", "[\n{]", '{\n"prompt": "a"\n', '[\n"a" "b"]', '{"prompt": "q", "completion": "a"}\n{']
)
@pytest.mark.parametrize("name", ["f.json", "f.jsonl"])
def test_broken_json_is_named(name, content):
    write(f"raw/{name}", content)
    write("raw/b.csv", TABLE)
    run(share=1.0)
    assert {reason for _, reason, _ in rejects()} <= {"not_json", "not_an_object", "wrong_columns"}
    assert rejects()
    assert set(map(str, WANTED)) <= set(map(str, pairs()))


def test_a_cell_over_the_limit_is_too_long_and_takes_nothing_along():
    write("f.csv", f'prompt,completion\nHi,Hello\nlong,"{"x" * 50}"\nHow?,So\n')
    run("f.csv", share=1.0, limits={**FILES["limits"], "max_characters": 20})
    assert rejects() == [("f.csv", "too_long", "a cell is longer than limits.max_characters, 20")]
    assert pairs() == WANTED


@pytest.mark.parametrize(
    "row",
    [
        {"conversation": [ASK, SAY], "model": "m"},
        {"Messages": [ASK, SAY]},
        {"messages": [{"role": "user", "text": "Hi"}, {"role": "assistant", "text": "Yo"}]},
        {"conversation": json.dumps([ASK, SAY])},
    ],
)
def test_conversations_of_other_spellings(row):
    write("f.jsonl", json.dumps(row))
    run("f.jsonl")
    assert pairs() == [("Hi", ["Yo"])]


def test_a_turn_without_anything_said_shows_what_it_has():
    write("f.jsonl", json.dumps({"messages": [{"role": "user", "words": "Hi"}, SAY]}))
    with pytest.raises(DataError) as caught:
        run("f.jsonl")
    assert "turn 1 has neither content nor value; it has role, words" in caught.value.message


def test_preferences_in_capitals_are_refused_too():
    write("f.csv", "Prompt,Chosen,Rejected\na,b,c\n")
    with pytest.raises(DataError) as caught:
        run("f.csv")
    assert "f.csv:1 holds pairs of a better and a worse answer" in caught.value.message


def test_columns_to_pin_are_those_with_text():
    write("f.csv", ",facts,said\n0,name[A],A is nice\n")
    with pytest.raises(DataError) as caught:
        run("f.csv")
    assert caught.value.hint == (
        "say which columns they are: ingest.sources.x.columns.prompt=[facts] ingest.sources.x.columns.answer=said; or for raw text: "
        "ingest.sources.x.columns.text=[<column>]"
    )


@pytest.mark.parametrize(
    ("text", "encoding", "seems"),
    [
        ("# Café\n", "latin-1", "cp1252"),
        ("prompt,completion\nCafé,Größe\n", "cp1252", "cp1252"),
        ("Сыр вкусный, булочки свежие.", "cp1251", "cp1251"),
        ("Zażółć gęślą jaźń, pójdź kińże tę chmurność w głąb flaszy. Świeże bułki i ser. " * 9, "cp1250", "cp1250"),
    ],
)
def test_what_an_encoding_seems_to_be(text, encoding, seems):
    write("raw/f.txt", text.encode(encoding))
    write("raw/g.txt", "fine")
    run(share=1.0)
    assert rejects()[0][2].endswith(f"it seems to be {seems}")


def test_folders_behind_links_are_read_once_and_circles_end():
    write("raw/here/a.txt", "one")
    write("elsewhere/b.txt", "two")
    Path("raw/here/up").symlink_to("..")
    Path("raw/again").symlink_to("here")
    Path("raw/there").symlink_to("../elsewhere")
    Path("raw/self.txt").symlink_to("self")
    Path("raw/dead.txt").symlink_to("/nowhere/c.txt")
    run(share=1.0)
    found = [(row.source.file, row.text) for row in atomic_io.read_rows(Path("out/documents.jsonl"), Document)]
    assert found == [("raw/here/a.txt", "one"), ("raw/there/b.txt", "two")]
    gone = "it is a link to a file that is not there"
    assert rejects() == [("raw/dead.txt", "unreadable", gone), ("raw/self.txt", "unreadable", gone)]


def test_links_out_of_the_project_are_not_read(tmp_path_factory):
    outside = tmp_path_factory.mktemp("home")
    (outside / "id_rsa").write_text("PRIVATE KEY")
    (outside / "folder").mkdir()
    (outside / "folder" / "notes.txt").write_text("PRIVATE NOTES")
    cached = outside / "files" / "md5" / "ab" / ("c" * 30)
    cached.parent.mkdir(parents=True)
    cached.write_text("of DVC's cache")
    write("raw/a.txt", "one")
    Path("raw/b.txt").symlink_to(cached)
    Path("raw/notes.txt").symlink_to(outside / "id_rsa")
    Path("raw/more").symlink_to(outside / "folder")
    run(share=1.0)
    found = [(row.source.file, row.text) for row in atomic_io.read_rows(Path("out/documents.jsonl"), Document)]
    assert found == [("raw/a.txt", "one"), ("raw/b.txt", "of DVC's cache")]
    assert rejects() == [
        ("raw/more/notes.txt", "link_outside", f"it is a link to {outside / 'folder' / 'notes.txt'}"),
        ("raw/notes.txt", "link_outside", f"it is a link to {outside / 'id_rsa'}"),
    ]
    Path("elsewhere").symlink_to(outside / "folder")
    assert find_outside(Path("elsewhere/notes.txt"), "elsewhere", Path()) is None, (
        "the project declares the link itself"
    )
    assert find_outside(Path("raw/notes.txt"), "raw/*.txt", Path()) == outside / "id_rsa"
    assert find_outside(outside / "folder" / "notes.txt", str(outside / "fol*"), Path()) is None


@pytest.mark.parametrize("declared", ["raw", "."])
def test_a_link_to_what_the_project_hides_is_not_read(declared):
    write(".env", "KEY=1")
    write(".tunectl/retrain/secret", "s" * 64)
    write(".dvc/cache/files/md5/ab/" + "c" * 30, "of DVC's cache")
    write("notes/a.txt", "one")
    for name, target in (
        ("env", ".env"),
        ("key", ".tunectl/retrain/secret"),
        ("cached", ".dvc/cache/files/md5/ab/" + "c" * 30),
        ("plain", "notes/a.txt"),
    ):
        write("raw/b.txt", "two")
        Path(f"raw/{name}.txt").symlink_to(f"../{target}")
    found = {path.name for path in Path("raw").iterdir() if find_outside(path, declared, Path()) is not None}
    assert found == {"env.txt", "key.txt"}


def test_a_link_to_nothing_can_be_composed_and_a_file_that_appears_behind_it_is_seen(project):
    write("raw/a.txt", "one")
    Path("raw/b.txt").symlink_to("../later.txt")
    digests = compose._Digests(ProjectPaths().cache / "digests.json")
    before = digests.digest_path(project, "raw")
    write("later.txt", "two")
    assert before is not None
    assert digests.digest_path(project, "raw") != before


@pytest.mark.parametrize("path", ["raw", "raw/**/*.txt"])
def test_a_name_that_is_not_utf_8_is_refused(path):
    write("raw/a.txt", "text")
    write(os.fsdecode(b"raw/caf\xe9/b.txt"), "text")
    with pytest.raises(DataError, match=r"caf\\udce9/b.txt': the name of this file or folder is not UTF-8"):
        glob_files(path, Path.cwd(), "path")


def test_hidden_folders_stay_hidden_from_globs():
    for name in ("raw/a.txt", "raw/.git/b.txt", "raw/deep/.c.txt", "raw/deep/d.txt"):
        write(name, "text")
    for path in ("raw", "raw/**/*.txt", "raw/**"):
        found = [item.relative_to(Path.cwd()).as_posix() for item in glob_files(path, Path.cwd(), "path")]
        assert found == ["raw/a.txt", "raw/deep/d.txt"], path


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "the file is empty"),
        (
            b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1",
            "it is an old or a protected Office file; save it as DOCX without a password",
        ),
        (b"just text", "it is not a Word document (DOCX) but text"),
        (b"%PDF-1.7", "it is not a Word document (DOCX) but a PDF file"),
    ],
)
def test_a_word_document_that_is_none(content, what):
    write("raw/a.docx", content)
    write("raw/b.txt", "fine")
    run(share=1.0)
    assert rejects() == [("raw/a.docx", "unreadable", what)]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("f.csv", "input,reference\nHi,Hello\nHi,Hey\n"),
        ("f.csv", "\ufeffMR;ref\r\nHi;Hello\r\nHi;Hey\r\n"),
        ("f.jsonl", '{"prompt": "Hi", "references": ["Hello", "Hey"]}'),
        ("f.json", '[{"inputs": "Hi", "targets": ["Hello", "Hey"]}]'),
    ],
)
def test_inputs_with_several_references(name, content):
    write(name, content)
    run(name)
    assert pairs() == [("Hi", ["Hello", "Hey"])]
