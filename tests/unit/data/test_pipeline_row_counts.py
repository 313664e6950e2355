import pytest

from tunectl.artifacts import atomic_io
from tunectl.artifacts.records import Document, Example, ReferenceAnswer, RejectedRow, Source
from tunectl.artifacts.row_counts import RowCounter, save
from tunectl.cli.main import main
from tunectl.core.errors import ArtifactError
from tunectl.data.pipeline_row_counts import problems, stage_row_counts


def build(folder, stage, rows_in, reasons, files):
    tally = RowCounter(stage)
    tally.read(rows_in)
    tally.keep(rows_in - len(reasons))
    for number, reason in enumerate(reasons, 1):
        tally.reject(RejectedRow(Source("raw.csv", number), reason, sample=f"row {number}"))
    for name, rows in files.items():
        atomic_io.write_rows(folder / name, rows)
    save(tally, folder, records_out=sum(map(len, files.values())), max_rejected_share=1.0, setting="x")


def document(number):
    return Document(f"d{number}", f"text {number}", Source("raw.csv", number))


def example(number):
    return Example(f"e{number}", Source("raw.csv", number))


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "artifacts"
    build(
        root / "ingest",
        "ingest",
        10,
        ["not_json"],
        {"documents.jsonl": [document(n) for n in range(3)], "examples.jsonl": [example(n) for n in range(5)]},
    )
    build(
        root / "curate",
        "curate",
        8,
        ["exact_duplicate"] * 2,
        {"documents.jsonl": [document(n) for n in range(2)], "examples.jsonl": [example(n) for n in range(4)]},
    )
    parts = {
        "train.jsonl": [example(n) for n in range(2)],
        "validation.jsonl": [example(3)],
        "test.jsonl": [example(4)],
        "documents.jsonl": [document(1)],
    }
    build(root / "split", "split", 6, ["leaks_into_test"], parts)
    return root


def folders(root):
    return {stage: root / stage for stage in ("model", "ingest", "curate", "split", "sft")}


def test_every_row_is_accounted_for(project, capsys):
    lines = stage_row_counts(folders(project))
    assert [(line.stage, line.rows_in, line.kept, line.records_out) for line in lines] == [
        ("ingest", 10, 9, 8),
        ("curate", 8, 6, 6),
        ("split", 6, 5, 5),
    ]
    assert problems(lines) == []
    assert main(["data", "counts"]) == 0
    assert "every row is accounted for" in capsys.readouterr().out


def test_tuning_counts_answers(project):
    answer = ReferenceAnswer("a", Source("raw.csv"))
    atomic_io.write_rows(
        project / "split" / "train.jsonl", [Example("e1", Source("raw.csv"), answers=[answer] * 3), example(2)]
    )
    build(project / "sft", "sft", 5, ["too_long"], {})
    assert problems(stage_row_counts(folders(project))) == []
    build(project / "sft", "sft", 4, ["too_long"], {})
    assert problems(stage_row_counts(folders(project))) == [
        f"{project}/sft: 4 rows in, but split wrote 5 answers (train.jsonl + validation.jsonl in {project}/split)"
    ]


def test_a_lost_row_is_found_and_named(project, capsys):
    atomic_io.write_rows(project / "ingest" / "documents.jsonl", [document(n) for n in range(4)])
    assert main(["data", "counts", "--json"]) == 3
    assert capsys.readouterr().err == (
        "tunectl: rows are unaccounted for:\n"
        "  artifacts/ingest: 9 records in its files, but row_counts.json says 8\n"
        "  artifacts/curate: 8 rows in, but ingest wrote 9 (documents.jsonl + examples.jsonl in artifacts/ingest)\n"
        "  rebuild from there: tunectl repro --force --to ingest\n  more: tunectl docs rows-are-unaccounted-for\n"
    )


def test_a_cut_list_of_rejects_is_found(project):
    atomic_io.write_rows(project / "curate" / "rejects.jsonl", [RejectedRow(Source("raw.csv", 1), "exact_duplicate")])
    assert problems(stage_row_counts(folders(project))) == [
        f"{project}/curate/rejects.jsonl: 1 rows of reason exact_duplicate, but row_counts.json says 2"
    ]


def test_a_sum_that_does_not_hold(project):
    path = project / "split" / "row_counts.json"
    path.write_text(path.read_text().replace('"kept": 5', '"kept": 4'))
    assert problems(stage_row_counts(folders(project))) == [f"{path}: 6 rows in, but 4 kept + 1 rejected = 5"]


def test_nothing_built(tmp_path):
    with pytest.raises(
        ArtifactError,
        match=rf"^no row_counts\.json in {tmp_path}/\*: no stage has run yet\n  run: tunectl repro --to split$",
    ):
        stage_row_counts({"ingest": tmp_path / "ingest"})


def test_rejects_by_reason(project, capsys):
    assert main(["data", "rejects"]) == 0
    assert "exact_duplicate" in capsys.readouterr().out
    assert main(["data", "rejects", "--reason", "not_json", "--json"]) == 0
    assert '"sample": "row 1"' in capsys.readouterr().out
    assert main(["data", "rejects", "--reason", "no_json"]) == 2
    assert capsys.readouterr().err.startswith(
        "tunectl: no_json: no row was rejected for this reason; reasons that occur: exact_duplicate, leaks_into_test, not_json\n"
    )
    assert main(["data", "rejects", "--stage", "splot"]) == 2


def test_show(project, capsys):
    assert main(["data", "show", "curate", "--file", "documents", "-n", "1"]) == 0
    out = capsys.readouterr().out
    assert "text 0" in out
    assert "text 1" not in out
    assert main(["data", "show", "split", "--file", "documents", "--find", "no such text"]) == 0
    assert capsys.readouterr().out == "artifacts/split/documents.jsonl: no row holds 'no such text'\n"
    assert main(["data", "show", "split", "--file", "examples"]) == 2
    assert capsys.readouterr().err.startswith(
        "tunectl: --file examples: split has no such file; it has train, validation, test, documents\n"
    )
