"""``tunectl init --from``: what is in somebody's data, and a project that reads it."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import jsonschema
import pytest
import yaml

from tunectl.artifacts import atomic_io
from tunectl.artifacts.paths import ProjectPaths
from tunectl.backends.vcs import project_repo
from tunectl.cli import project_source
from tunectl.cli.main import main
from tunectl.config.loading import checks
from tunectl.config.loading.override_parsing import Override
from tunectl.core.errors import InfrastructureError
from tunectl.pipeline import runner

ROOT = Path(__file__).parents[3]
EXAMPLE = ROOT / "examples" / "local_lens" / "data"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Stand in a folder of one's own; repositories are left to the tests that are about them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(project_repo, "init_repositories", lambda folder: [])


def write_table(path: Path, columns: tuple[str, ...] = ("prompt", "completion"), rows: int = 120) -> None:
    """Ads of the example as a CSV, with two columns worth a slice."""
    lines = (EXAMPLE / "campaigns.jsonl").read_text().splitlines()[:rows]
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow([*columns, "neighbourhood", "price_range", "campaign"])
        for row in map(json.loads, lines):
            cells = [row[name] for name in ("prompt", "completion", "neighbourhood", "price_range", "campaign_id")]
            writer.writerow(cells)


def load(folder: str, *words: str) -> checks.ResolvedConfig:
    return checks.load_config(ProjectPaths(Path(folder)), [Override.from_cli(word) for word in words])


def find_next(text: str) -> list[str]:
    """The words of the command that was proposed."""
    found = re.search(r"^next: cd \S+ && tunectl up (.*?)    ", text, re.MULTILINE)
    assert found, text
    return found[1].split()


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A project made from a table, and what was said of it."""
    folder, out = tmp_path_factory.mktemp("own"), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out):
        patch.chdir(folder)
        patch.setattr(project_repo, "init_repositories", lambda folder: [])
        write_table(Path("ads.csv"))
        assert main(["init", "shop", "--from", "ads.csv"]) == 0
    return folder / "shop", out.getvalue()


def test_a_table_is_declared_with_what_was_detected(shop: tuple[Path, str]) -> None:
    folder, out = shop
    assert "  ads.csv: 1 csv as prompt_completion (columns prompt, completion, " in out
    assert re.search(r"^  rows: 120, \d+ kept, \d+ rejected", out, re.MULTILINE)
    assert "  columns: neighbourhood, price_range kept for slices; not read: campaign\n" in out
    assert re.search(r"^  languages: \d+ en", out, re.MULTILINE)
    assert re.search(r"^  personal data: .*email.*; it is masked$", out, re.MULTILINE)
    source = load(str(folder)).root.ingest.sources["ads"]
    assert (source.path, source.holds, source.type, source.format) == (
        "data/ads.csv", "examples", "csv", "prompt_completion",
    )  # fmt: skip
    assert source.fields == {"neighbourhood": "neighbourhood", "price_range": "price_range"}
    assert (folder / "data" / "ads.csv").read_bytes() == (folder.parent / "ads.csv").read_bytes()
    assert load(str(folder), *find_next(out)).root.evaluate.max_inputs == 32
    assert sorted(item.name for item in folder.parent.iterdir()) == ["ads.csv", "shop"]


def test_the_editor_checks_the_file(shop: tuple[Path, str]) -> None:
    folder, _ = shop
    path = folder / "conf" / "ingest" / "project.yaml"
    first = path.read_text().splitlines()[0]
    schema = json.loads((path.parent / first.removeprefix("# yaml-language-server: $schema=")).read_text())
    jsonschema.validate(yaml.safe_load(path.read_text()), schema)
    bound = json.loads((folder / ".vscode" / "settings.json").read_text())["yaml.schemas"]
    assert bound["./schema/ingest.schema.json"] == ["conf/ingest/*.yaml"]
    assert all((folder / name).is_file() for name in bound)


def test_what_was_declared_goes_through_the_stages_of_data(
    shop: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(shop[0])
    layout = ProjectPaths()
    runner.compose(layout)
    for stage in ("ingest", "feedback", "curate", "split"):
        runner.run_stage(layout, stage)
    rows = (layout.artifact("split") / "train.jsonl").read_text().splitlines()
    assert len(rows) > 60
    assert json.loads(rows[0])["fields"].keys() == {"neighbourhood", "price_range"}


def test_columns_with_other_names_are_asked_for_and_taken(capsys: pytest.CaptureFixture[str]) -> None:
    write_table(Path("ads.csv"), columns=("brief", "ad"), rows=10)
    assert main(["init", "shop", "--from", "ads.csv"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("tunectl: the columns of ")
    assert "ads.csv:1 fit no format that is known: brief, ad, neighbourhood" in error
    assert error.endswith("say which columns they are: --prompt brief --answer ad; or for raw text: --text COLUMN\n")
    assert not Path("shop").exists()
    assert main(["init", "shop", "--from", "ads.csv", "--prompt", "brief", "--answer", "ad"]) == 0
    columns = load("shop").root.ingest.sources["ads"].columns
    assert (columns.prompt, columns.answer) == (["brief"], "ad")
    assert main(["init", "texts", "--from", "ads.csv", "--text", "ad"]) == 0
    out = capsys.readouterr().out
    assert "0 examples with 0 answers" in out
    assert "next: cd texts && tunectl repro --to split" in out
    assert main(["init", "both", "--from", "ads.csv", "--text", "ad", "--prompt", "brief", "--answer", "ad"]) == 2
    assert "--text is about documents" in capsys.readouterr().err
    assert main(["init", "half", "--from", "ads.csv", "--prompt", "brief"]) == 2
    assert "--prompt and --answer go together" in capsys.readouterr().err


def test_a_chat_log(capsys: pytest.CaptureFixture[str]) -> None:
    turns = [
        {"messages": [{"role": "user", "content": f"When do you open on day {n} of the month?"},
                      {"role": "assistant", "content": f"On day {n} we open at nine and close at {n % 5 + 3} in the afternoon."}]}
        for n in range(20)
    ]  # fmt: skip
    atomic_io.write_rows(Path("Chat Log.jsonl"), turns)
    assert main(["init", "shop", "--from", "Chat Log.jsonl"]) == 0
    out = capsys.readouterr().out
    assert "Chat Log.jsonl: 1 jsonl as messages (columns messages)" in out
    assert "20 answers are few" in out
    assert load("shop").root.ingest.sources["chat-log"].path == "data/Chat Log.jsonl"


def test_a_folder_of_pdf_and_pages_stays_a_matter_of_each_file(capsys: pytest.CaptureFixture[str]) -> None:
    Path("raw/deep").mkdir(parents=True)
    for file in [*sorted((EXAMPLE / "flyers").iterdir())[:3], *sorted((EXAMPLE / "web").iterdir())[:3]]:
        shutil.copy(file, "raw/deep")
    Path("raw/.secret").write_text("not copied")
    assert main(["init", "shop", "--from", "raw"]) == 0
    out = capsys.readouterr().out
    assert "raw: 3 pdf as text (kind of file: pdf); 3 html as text (kind of file: html)" in out
    assert "records: 0 examples with 0 answers, 6 documents" in out
    source = load("shop").root.ingest.sources["raw"]
    assert (source.path, source.holds, source.type) == ("data/raw", "auto", "auto")
    assert "# Read as: 3 pdf as text" in Path("shop/conf/ingest/project.yaml").read_text()
    assert not Path("shop/data/raw/.secret").exists()


def test_links_that_lead_out_of_the_data_are_left_out_and_said(capsys: pytest.CaptureFixture[str]) -> None:
    Path("home").mkdir()
    Path("home/id_rsa").write_text("PRIVATE KEY")
    Path("archive/there").mkdir(parents=True)
    write_table(Path("archive/ads.csv"))
    write_table(Path("archive/there/more.csv"))
    Path("archive/again.csv").symlink_to("there/more.csv")
    Path("archive/circle").symlink_to(".")
    Path("archive/notes.txt").symlink_to("../home/id_rsa")
    Path("archive/there/home").symlink_to(Path("home").resolve())
    assert main(["init", "shop", "--from", "archive"]) == 0
    said = capsys.readouterr().out
    assert "links that lead out of it, which are not copied: notes.txt, there/home" in said
    copied = {path.relative_to("shop/data/archive").as_posix() for path in Path("shop/data/archive").rglob("*")}
    assert copied == {"ads.csv", "there", "there/more.csv", "again.csv", "circle"}
    assert Path("shop/data/archive/again.csv").read_text() == Path("archive/there/more.csv").read_text()
    assert not [path for path in Path("shop").rglob("*") if path.is_file() and b"PRIVATE KEY" in path.read_bytes()]


def test_names_of_columns_are_text_whatever_they_hold() -> None:
    """YAML forbids control codes, also in comments, and reads references to settings and to the environment, and missing values."""
    names = ["bell\x07", "csi\x9b", "line\u2028line", "${oc.env:HOME}", "???"]
    with Path("ads.csv").open("w", newline="") as stream:
        rows = [[f"Say {number}", f"It is {number}", *[str(number % 2)] * 5] for number in range(30)]
        csv.writer(stream).writerows([["prompt", "completion", *names], *rows])
    assert main(["init", "shop", "--from", "ads.csv"]) == 0
    assert list(load("shop").root.ingest.sources["ads"].fields.values()) == names[:3]


def test_no_column_is_lost_where_two_names_become_one() -> None:
    names = ["a b", "a-b", "a_b"]
    with Path("ads.csv").open("w", newline="") as stream:
        rows = [[f"Say {number}", f"It is {number}", *[str(number % 2)] * 3] for number in range(30)]
        csv.writer(stream).writerows([["prompt", "completion", *names], *rows])
    assert main(["init", "shop", "--from", "ads.csv"]) == 0
    fields = load("shop").root.ingest.sources["ads"].fields
    assert fields == dict(zip(["a_b", "a_b_2", "a_b_3"], names, strict=True))


def test_the_language_of_the_texts_is_kept(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        {"prompt": f"Schreibe bitte eine kurze Anzeige für den Laden Nummer {n} in der alten Straße.",
         "completion": f"Kommen Sie in unseren schönen Laden Nummer {n * 7}! Wir freuen uns jeden Tag von neun bis sechs Uhr auf Sie."}
        for n in range(40)
    ]  # fmt: skip
    atomic_io.write_rows(Path("anzeigen.jsonl"), rows)
    assert main(["init", "shop", "--from", "anzeigen.jsonl"]) == 0
    assert "languages: 40 de" in capsys.readouterr().out
    assert load("shop").root.curate.language.allowed == ["de"]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("empty.csv", b"", "empty.csv holds no rows"),
        ("head.csv", b"prompt,completion\n", "head.csv holds no rows"),
        ("book.xlsx", b"PK\x03\x04more", "the kind of this file is not known (.xlsx)"),
        ("fake.csv", b"PK\x03\x04more", "is read as csv, but it is a ZIP, XLSX or DOCX file"),
        (
            "pairs.jsonl",
            b'{"prompt": "a", "chosen": "b", "rejected": "c"}\n',
            "which supervised tuning cannot learn from",
        ),
    ],
)
def test_data_that_cannot_be_read_is_an_error_and_leaves_nothing(
    capsys: pytest.CaptureFixture[str], name: str, content: bytes, says: str
) -> None:
    Path(name).write_bytes(content)
    assert main(["init", "shop", "--from", name]) == 2
    assert says in capsys.readouterr().err
    assert [item.name for item in Path().iterdir()] == [name]


def test_an_error_names_the_data_once_and_no_setting(capsys: pytest.CaptureFixture[str]) -> None:
    Path("empty.csv").write_bytes(b"")
    Path("long.txt").write_bytes(b"word " * 300_000)
    for name, hint in (("empty.csv", "  put data there\n"), ("long.txt", "  fix the data\n")):
        assert main(["init", "shop", "--from", name]) == 2
        error = capsys.readouterr().err
        assert error.splitlines()[0].count(name) == 1, error
        assert error.endswith(hint), error
        assert "ingest.sources" not in error
        assert "limit is 100%" not in error


def test_an_encoding_is_named_and_taken(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [f"Schreibe für Geschäft {n};Schöne Grüße aus dem Geschäft {n}" for n in range(20)]
    Path("alt.csv").write_bytes("\n".join(["prompt;completion", *rows]).encode("cp1252"))
    assert main(["init", "shop", "--from", "alt.csv"]) == 2
    assert "add --encoding cp1252, or write the file as UTF-8" in capsys.readouterr().err
    assert main(["init", "shop", "--from", "alt.csv", "--encoding", "CP1252"]) == 0
    assert "20 kept, 0 rejected" in capsys.readouterr().out
    assert load("shop").root.ingest.sources["alt"].encoding == "cp1252"
    assert main(["init", "other", "--from", "alt.csv", "--encoding", "klingon"]) == 2
    assert "there is no such encoding" in capsys.readouterr().err


@pytest.mark.timeout(60)
def test_pipes_are_neither_read_nor_copied(capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo("pipe.csv")
    assert main(["init", "shop", "--from", "pipe.csv"]) == 2
    assert "pipe.csv: this is a pipe or a device" in capsys.readouterr().err
    Path("raw").mkdir()
    os.mkfifo("raw/pipe.csv")
    write_table(Path("raw/ads.csv"), rows=10)
    assert main(["init", "shop", "--from", "raw"]) == 0
    assert [path.name for path in Path("shop/data/raw").iterdir()] == ["ads.csv"]


def test_more_rejected_rows_than_a_build_allows_are_said(capsys: pytest.CaptureFixture[str]) -> None:
    good = [json.dumps({"prompt": f"Say {n}", "completion": f"It is {n}"}) for n in range(10)]
    Path("rows.jsonl").write_text("\n".join([*good, *["{broken"] * 5]))
    assert main(["init", "shop", "--from", "rows.jsonl"]) == 0
    assert "more than 20% of the rows are rejected, so a build stops at ingest" in capsys.readouterr().out


def test_data_that_is_not_there(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    Path("nothing").mkdir()
    assert main(["init", "shop", "--from", "nothing"]) == 2
    assert "nothing: the folder is empty" in capsys.readouterr().err
    assert main(["init", "shop", "--from", "no file"]) == 2
    assert "no file: there is no such file or folder" in capsys.readouterr().err
    Path("a${b}.csv").write_text("prompt,completion\na,b\n")
    assert main(["init", "shop", "--from", "a${b}.csv"]) == 2
    assert "rename the file" in capsys.readouterr().err
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert main(["init", "shop", "--from", "some/dataset"]) == InfrastructureError.exit_code
    assert "some/dataset: there is no such file or folder, and the Hub cannot be asked" in capsys.readouterr().err
    assert not Path("shop").exists()


FAKE_DATASETS = """
import json
from pathlib import Path
from types import SimpleNamespace
import pyarrow

def load_dataset_builder(data_set, *, name, revision):
    with open("asked", "a") as asked:
        asked.write(f"{data_set} {revision}\\n")
    table = pyarrow.Table.from_pylist(json.loads(Path("rows.json").read_text()))
    rows = SimpleNamespace(with_format=lambda kind: rows, iter=lambda batch_size: [table])
    files = {"train": [f"hf://datasets/{data_set}@{revision}/train.parquet"]}
    return SimpleNamespace(
        base_path=f"hf://datasets/{data_set}@{revision}",
        config=SimpleNamespace(data_files=files),
        as_streaming_dataset=lambda split: {"train": rows},
    )
"""
"""The library datasets for the child that reads, which finds it on PYTHONPATH: there is no network in a test."""


def test_a_data_set_of_the_hub_is_read_at_the_commit_that_it_has_now(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    commit = "5" * 40
    lines = (EXAMPLE / "campaigns.jsonl").read_text().splitlines()[:40]
    rows = [{"prompt": row["prompt"], "completion": row["completion"]} for row in map(json.loads, lines)]
    Path("rows.json").write_text(json.dumps(rows))
    (tmp_path / "fake").mkdir()
    (tmp_path / "fake/datasets.py").write_text(FAKE_DATASETS)
    client = SimpleNamespace(dataset_info=lambda name: SimpleNamespace(sha=commit))
    monkeypatch.setattr("huggingface_hub.HfApi", lambda: client)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "fake"))
    assert main(["init", "shop", "--from", "some/dataset"]) == 0
    assert set(Path("asked").read_text().splitlines()) == {f"some/dataset {commit}"}
    (source,) = load("shop").root.ingest.sources.values()
    assert (source.method, source.id, source.revision) == ("hub", "some/dataset", commit)


def test_words_that_contradict_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", "shop", "--from", "x.csv", "--example", "local_lens"]) == 2
    assert "leave one of them out" in capsys.readouterr().err
    assert main(["init", "shop", "--text", "comment"]) == 2
    assert "--text is about the data of --from" in capsys.readouterr().err


def test_large_data_is_read_where_it_lies_and_data_of_the_project_too(monkeypatch: pytest.MonkeyPatch) -> None:
    write_table(Path("ads.csv"), rows=10)
    monkeypatch.setattr(project_source, "MAX_COPY_BYTES", 10)
    assert main(["init", "shop", "--from", "ads.csv"]) == 0
    assert load("shop").root.ingest.sources["ads"].path == str(Path("ads.csv").resolve())
    assert not Path("shop/data/ads.csv").exists()
    Path("here/data").mkdir(parents=True)
    write_table(Path("here/data/ads.csv"), rows=10)
    assert main(["init", "here", "--force", "--from", "here/data/ads.csv"]) == 0
    assert load("here").root.ingest.sources["ads"].path == "data/ads.csv"
    assert Path("here/data/ads.csv").is_file()


def test_data_joins_a_data_folder_that_is_there_and_replaces_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    write_table(Path("ads.csv"), rows=10)
    Path("here/data").mkdir(parents=True)
    Path("here/data/old.txt").write_text("mine")
    assert main(["init", "here", "--force", "--from", "ads.csv"]) == 0
    assert Path("here/data/ads.csv").read_bytes() == Path("ads.csv").read_bytes()
    assert Path("here/data/old.txt").read_text() == "mine"
    Path("there/data").mkdir(parents=True)
    Path("there/data/ads.csv").write_text("mine")
    capsys.readouterr()
    assert main(["init", "there", "--force", "--from", "ads.csv"]) == 2
    assert "there/data/ads.csv cannot be written: something is there already" in capsys.readouterr().err
    assert sorted(item.name for item in Path("there").iterdir()) == ["data"]
    assert Path("there/data/ads.csv").read_text() == "mine"


def test_the_tutorial_takes_at_most_five_commands(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its commands, on a table like the one that it shows: installed already, and up is tests/e2e/test_own_data.py."""
    page = (ROOT / "docs" / "own_data.md").read_text()
    block = re.search(r"```console shown\n(.*?)```", page, re.DOTALL)
    assert block is not None
    commands = [line.removeprefix("$ ") for line in block[1].splitlines()]
    assert len(commands) <= 5
    install, init, enter, up = commands
    assert install.startswith("make install && source .venv/bin/activate ")
    write_table(Path("ads.csv"), rows=200)
    assert main(init.removeprefix("cd .. && tunectl ").split()) == 0
    out = capsys.readouterr().out
    shown = re.search(r"```text\n(.*?)```", page, re.DOTALL)
    assert shown is not None
    assert f"tunectl up {' '.join(find_next(out))}" == up, "the page shows what is proposed"
    monkeypatch.chdir(enter.split()[1])
    root = load(".", *up.split()[2:]).root
    assert root.align.root.method == "none"
