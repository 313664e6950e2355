"""Pages of rows: filters, pages by the index, 100,000 rows within the budget, one row with its way."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from console_projects import MARKUP, NOW, Console, PageFacts, build

from tunectl.artifacts import atomic_io
from tunectl.artifacts.records import AnnotationMetadata, Message, PreferencePair, Source
from tunectl.cli.main import main
from tunectl.console.read_context import ReadContext
from tunectl.console.row_index import RowIndex
from tunectl.console.screens.data import read_data
from tunectl.console.screens.row import read_row
from tunectl.console.screens.rows import read_rows
from tunectl.core.errors import DataError
from tunectl.pipeline import lineage_trace


@pytest.fixture(scope="module")
def context(tmp_path_factory) -> ReadContext:
    return ReadContext(build(tmp_path_factory.mktemp("rows") / "shop", rows=300), NOW)


def test_the_flow_has_every_stage_with_its_reasons(context: ReadContext) -> None:
    found = read_data(context, {})
    assert [step.stage for step in found.steps] == ["ingest", "curate", "split", "sft"]
    assert found.steps[1].rows_in == 307
    assert found.steps[1].rejected == [("exact_duplicate", 4), ("no_text", 3)]
    assert found.lost == []
    assert found.sources == [("briefs.jsonl", 200), ("reviews.csv", 100)]


def test_rejects_are_filtered_by_reason(context: ReadContext) -> None:
    found = read_rows(context, {"stage": "curate", "part": "rejects", "reason": "no_text"})
    assert (found.total, found.rejects) == (3, True)
    assert {row.label for row in found.rows} == {"no_text"}
    assert found.labels == [("exact_duplicate", 4), ("no_text", 3)]
    assert found.rows[0].source == "briefs.jsonl:900"


def test_rows_are_found_by_text_as_it_is_read(context: ReadContext) -> None:
    found = read_rows(context, {"stage": "split", "file": "train.jsonl", "q": f"ad 7. {MARKUP}"})
    assert [row.id for row in found.rows] == ["e-0000000000000007"]


def test_text_is_found_in_capitals_or_not_and_in_no_name_of_a_field(tmp_path: Path) -> None:
    path = tmp_path / "examples.jsonl"
    texts = ("A Café", "an ÄRGER", 'said "So"', "nothing")
    path.write_bytes(
        b"".join(
            msgspec.json.encode({"id": f"E-{at}", "messages": [{"role": "user", "content": text}]}) + b"\n"
            for at, text in enumerate(texts)
        )
    )
    index = RowIndex(path)
    for text, expected in (
        ("CAFÉ", [0]), ("ärger", [1]), ('"so"', [2]), ("e-3", [3]), ("NOTHING", [3]), ("content", []), ("user", []),
    ):  # fmt: skip
        assert list(index.select(text=text)) == expected, text


def test_search_agrees_with_reading_every_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lineage_trace, "BLOCK", 200)  # the matches lie in many blocks
    path = tmp_path / "examples.jsonl"
    texts = ["a", "ADA", "İşte ada", "straße", "ÄDA\nada", "", "b" * 300, "ada ada"] * 9
    rows = [{"id": f"{at}", "fields": {"size": str(at % 2)}, "text": text} for at, text in enumerate(texts)]
    path.write_bytes(b"".join(msgspec.json.encode(row) + b"\n" for row in rows))
    index = RowIndex(path)
    for text in ("ada", "ADA", "äda", "ß", "b", "none"):
        matching = [at for at, inner in enumerate(texts) if text.casefold() in inner.casefold()]
        assert list(index.select(text=text)) == matching, text
        assert index.select(text=text, fields={"size": "1"}) == [at for at in matching if at % 2], text


def test_rows_are_filtered_by_fields(context: ReadContext) -> None:
    query = {"stage": "curate", "file": "examples.jsonl", "field.city": "Decatur"}
    found = read_rows(context, query)
    assert found.total == 100
    assert {row.fields["city"] for row in found.rows} == {"Decatur"}
    assert found.fields == {"city": "Decatur"}
    assert found.choices == [("city", "Decatur")]
    assert read_rows(context, {**query, "q": "ad 7."}).total == 1
    for value in ("Dec", "decatur", "Decatur\n", "(a+)+$", "Decatur" * 10_000):
        assert read_rows(context, {**query, "field.city": value}).total == 0, "a value is compared whole, and as text"
    assert read_rows(context, {**query, "field.name": "Decatur"}).total == 0
    assert read_rows(context, {**query, "field.city": ""}).total == 200
    assert read_rows(context, {"stage": "curate", "part": "rejects", "field.city": "Decatur"}).total == 0


def test_page_twin_and_command_filter_by_the_same_field(
    context: ReadContext, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(context.layout.root)
    console = Console(context.layout)
    address = "/data/rows{}?stage=curate&file=examples.jsonl&field.city=Decatur"
    twin = console.client.get(address.format(".json")).json()
    assert main(["data", "show", "curate", "--file", "examples", "--field", "city=Decatur", "-n", "50", "--json"]) == 0
    assert [row["id"] for row in json.loads(capsys.readouterr().out)] == [row["id"] for row in twin["rows"]]
    page = PageFacts(console.client.get(address.format("")).text)
    assert page.errors == []
    assert "/data/rows?stage=curate&file=examples.jsonl" in page.links, "the filter can be taken away"
    assert f"{address.format('')}&at=50" in page.links, "the next page keeps the filter"
    assert (
        "tunectl data show curate --file examples --field city=Decatur" in console.client.get(address.format("")).text
    )
    odd = console.client.get("/data/rows", params={"stage": "curate", f"field.a&b={MARKUP}#": MARKUP})
    assert PageFacts(odd.text).errors == []
    assert main(["data", "show", "curate", "--field", "Decatur"]) == 2
    assert main(["data", "show", "curate", "--field", "city=Rome", "--find", "x"]) == 0
    assert capsys.readouterr().out.endswith("examples.jsonl: no row holds 'x' and has city=Rome\n")


@pytest.mark.parametrize(("at", "first"), [("", 0), ("50", 50), ("57", 50), ("99999", 150), ("-1", 0), ("x", 0)])
def test_a_page_begins_where_the_address_says(context: ReadContext, at: str, first: int) -> None:
    found = read_rows(context, {"stage": "curate", "file": "examples.jsonl", "at": at})
    assert found.at == first
    assert found.rows[0].id == f"e-{first:016x}"


@pytest.mark.parametrize("query", [{"stage": "nope"}, {"stage": "curate", "file": "../../dvc.yaml"}])
def test_there_is_nothing_but_files_of_rows(context: ReadContext, query: dict[str, str]) -> None:
    with pytest.raises(LookupError):
        read_rows(context, query)


def test_a_row_is_followed_through_the_stages(context: ReadContext) -> None:
    found = read_row(context, {"id": "e-0000000000000007"})
    assert found.source == "briefs.jsonl:8"
    assert [(step.stage, step.what) for step in found.steps] == [
        ("ingest", "kept"),
        ("curate", "kept"),
        ("split", "kept"),
    ]
    assert [(turn.role, turn.learned) for turn in found.turns] == [("user", False), ("answer", True)]
    with pytest.raises(LookupError):
        read_row(context, {"id": "e-of-nobody"})


def test_a_folder_means_all_files_in_it(tmp_path: Path) -> None:
    path = tmp_path / "examples.jsonl"
    files = ("raw/a.txt", "raw/b.txt", "raw.txt", "rawer/a.txt")
    path.write_text(
        "".join(f'{{"id": "{at}", "source": {{"file": "{file}", "row": 1}}}}\n' for at, file in enumerate(files))
    )
    index = RowIndex(path)
    assert list(index.select(source="raw")) == [0, 1]
    assert list(index.select(source="raw.txt")) == [2]


def test_a_line_that_is_no_record_is_named(tmp_path: Path) -> None:
    path = tmp_path / "curate" / "examples.jsonl"
    path.parent.mkdir()
    path.write_text('{"id": "a"}\n{"id"\n')
    with pytest.raises(DataError, match=r"examples\.jsonl:2 is not a record"):
        RowIndex(path)


def test_a_preference_pair_has_its_page(tmp_path: Path) -> None:
    layout = build(tmp_path / "shop")
    pair = PreferencePair(
        "p-1",
        "0" * 24,
        [Message("user", "Write an ad.")],
        [Message("assistant", "Come in.")],
        [Message("assistant", "No.")],
        [AnnotationMetadata(Source("briefs.jsonl", 12))],
    )
    atomic_io.write_rows(layout.artifact("preferences") / "train.jsonl", [pair])
    found = read_row(ReadContext(layout, NOW), {"id": "p-1"})
    assert [(turn.role, turn.text, turn.learned) for turn in found.turns] == [
        ("user", "Write an ad.", False),
        ("chosen", "Come in.", True),
        ("rejected", "No.", True),
    ]
    assert found.source == "briefs.jsonl:12"
