"""Data sets of the Hub: read in the child with limits, and what their files or their README.md do ends in a declared error."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
from datetime import date
from pathlib import Path

import pytest
import yaml

from tunectl.artifacts.records import RejectedRow, Source
from tunectl.backends.readers import reader_process
from tunectl.backends.readers.reader_process import end_children, read_hub_in_child
from tunectl.config.schema.ingest import HubDataset
from tunectl.core.errors import DataError, InfrastructureError

pytest.importorskip("datasets")
VALUES = yaml.safe_load(Path("conf/ingest/source/hub.yaml").read_text())
CANNOT = "the data set ./set cannot be read (revision main, subset None, split None): "


@pytest.fixture(autouse=True, scope="module")
def offline(tmp_path_factory):
    """A child that cannot ask the Hub, for all tests: it needs seconds to start, and reads a folder as datasets reads the Hub."""
    end_children()
    folder = tmp_path_factory.mktemp("hub")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setenv("HF_DATASETS_TRUST_REMOTE_CODE", "1")
        patch.setenv("HF_HOME", str(folder / "hf"))
        patch.chdir(folder)
        yield folder
    end_children()


@pytest.fixture(autouse=True)
def empty_set(offline):
    shutil.rmtree("set", ignore_errors=True)
    Path("set").mkdir()


@pytest.fixture
def new_child():
    end_children()
    yield
    end_children()


def hub(name="./set", **changes):
    return HubDataset(**{**VALUES, "id": name, "revision": "main", **changes})


def read(**changes):
    return list(read_hub_in_child(hub(**changes)))


def write_rows(rows, **columns):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"text": [f"row {number}" for number in range(rows)], **columns}), "set/train.parquet")


def write_card(text):
    Path("set/README.md").write_text(f"---\n{text}\n---\n")


def find_child() -> int:
    (found,) = reader_process._idle
    return found._process.pid


def test_hub_out_of_reach_says_how_to_make_a_copy():
    with pytest.raises(InfrastructureError) as caught:
        read(name="nobody/nothing", revision="abc123")
    assert caught.value.message.startswith("the Hub cannot be reached for the data set nobody/nothing: ")
    assert caught.value.hint == (
        "make a local copy where the Hub can be reached, with: hf download nobody/nothing --repo-type dataset "
        "--revision abc123 --local-dir data/nothing; then declare method: files, path: data/nothing"
    )


def test_rows_of_a_data_set_with_its_splits():
    Path("set/train.jsonl").write_text('{"prompt": "a", "completion": "b"}\n{"prompt": "c", "completion": "d"}\n')
    Path("set/test.jsonl").write_text('{"prompt": "e", "completion": "f"}\n')
    found = read()
    assert [(row.columns["split"], row.columns["prompt"], row.source.row) for row in found] == [
        ("train", "a", 1),
        ("train", "c", 2),
        ("test", "e", 1),
    ]
    assert found[0].source.file == "hf://datasets/./set@main/train"
    (only,) = read(split="test")
    assert only.columns == {"prompt": "e", "completion": "f"}
    with pytest.raises(DataError) as caught:
        read(split="banana")
    assert "split banana" in caught.value.message


def test_a_data_set_is_read_in_the_child_and_this_process_does_not_import_datasets():
    write_rows(3)
    code = f"""
import sys
from tunectl.backends.readers.reader_process import read_hub_in_child
from tunectl.config.schema.ingest import HubDataset
print(len(list(read_hub_in_child(HubDataset(**{hub().model_dump()!r})))), "datasets" in sys.modules, "pyarrow" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["3", "False", "False"]


def test_values_are_those_of_the_files_and_a_column_split_is_kept():
    own = ["b"] * 1000
    write_rows(1000, day=[date(2026, 3, 9)] * 1000, turns=[[{"role": "user", "content": "hi"}]] * 1000, split=own)
    rows = read()
    assert [row.source.row for row in rows] == list(range(1, 1001))
    assert rows[999].columns == {
        "text": "row 999",
        "day": date(2026, 3, 9),
        "turns": [{"role": "user", "content": "hi"}],
        "split": "b",
    }


def test_a_value_of_mixed_types_is_an_object_also_where_it_is_long():
    long = "x" * 300
    Path("set/train.jsonl").write_text(f'{{"a": [{{"b": 0}}, {{"b": "{long}"}}]}}\n')
    write_card("dataset_info:\n  features:\n  - name: a\n    list:\n      dtype: json")
    (row,) = read(limits={"max_rows": 10, "max_characters": 100}, split="train")
    assert row.columns == {"a": [{"b": 0}, {"b": long}]}


def test_a_row_that_is_larger_than_a_row_may_be_is_a_reject_and_the_next_ones_are_read():
    most = reader_process.limit_frame(1000)
    write_rows(3, notes=[["a" * 1000] * count for count in (1, most // 1000 + 1, 1)])
    first, reject, last = read(limits={"max_rows": 10, "max_characters": 1000})
    assert (first.source.row, last.source.row, last.columns["text"]) == (1, 3, "row 2")
    assert isinstance(reject, RejectedRow)
    assert (reject.source, reject.reason) == (Source("hf://datasets/./set@main/train", 2), "too_long")


def test_a_child_that_dies_is_an_error_that_names_the_data_set_and_the_row():
    write_rows(200_000)
    rows = read_hub_in_child(hub())
    next(rows)
    children = subprocess.check_output(["pgrep", "-P", str(os.getpid()), "-f", "reader_process"]).split()
    os.kill(int(children[0]), signal.SIGKILL)
    with pytest.raises(DataError) as caught:
        list(rows)
    assert caught.value.message.startswith(f"{CANNOT}after row ")
    assert caught.value.message.endswith(
        " of hf://datasets/./set@main/train: the process that reads it crashed (exit status -9)"
    )
    assert "set id, revision, subset and split of this source" in (caught.value.hint or "")
    write_rows(2)
    assert len(read()) == 2


def test_a_data_set_that_takes_too_long_is_an_error(monkeypatch):
    write_rows(1)
    read()
    monkeypatch.setattr(reader_process, "MAX_HUB_SILENT_SECONDS", 1.0)
    os.kill(find_child(), signal.SIGSTOP)
    with pytest.raises(DataError) as caught:
        read()
    assert caught.value.message == f"{CANNOT}reading its next rows took more than 1 s"


def test_processor_time_is_limited_and_grows_with_the_batches(monkeypatch, new_child):
    write_rows(256 * 40)
    read()
    soft, _ = resource.prlimit(find_child(), resource.RLIMIT_CPU)
    assert 640 <= soft < 700
    end_children()
    monkeypatch.setattr(reader_process, "MAX_CPU_SECONDS", 0)
    with pytest.raises(DataError) as caught:
        read()
    assert caught.value.message.startswith(CANNOT)
    assert "of processor time" in caught.value.message


def test_a_data_set_that_takes_too_much_memory_is_an_error(monkeypatch, new_child):
    import pyarrow as pa
    import pyarrow.parquet as pq

    monkeypatch.setattr(reader_process, "MAX_MEMORY_BYTES", 2 << 30)
    packed = pa.DictionaryArray.from_arrays(pa.array([0] * 256, pa.int32()), pa.array(["a" * (8 << 20)]))
    pq.write_table(pa.table({"text": packed}), "set/train.parquet", compression="zstd")
    assert Path("set/train.parquet").stat().st_size < 100_000
    with pytest.raises(DataError) as caught:
        read()
    assert caught.value.message == f"{CANNOT}reading it took more than 2048 MiB of memory"


def test_a_broken_file_is_an_error():
    Path("set/train.parquet").write_bytes(b"nothing of the kind")
    with pytest.raises(DataError) as caught:
        read()
    assert caught.value.message.startswith(CANNOT)


@pytest.mark.parametrize("name", ["{folder}/secret.txt", "../secret.txt"])
def test_a_data_set_reads_no_file_of_this_machine(offline, name):
    (offline / "secret.txt").write_text("the secret")
    Path("set/train.txt").write_text("row")
    assert [row.columns["text"] for row in read()] == ["row"]
    write_card(f"configs:\n- config_name: default\n  data_files: {name.format(folder=offline)}")
    with pytest.raises(DataError) as caught:
        read()
    assert caught.value.message.startswith("the data set ./set (revision main) names a file outside of it: ")
    assert caught.value.message.endswith("secret.txt")


def test_a_picture_of_a_row_is_not_opened(offline):
    Path("set/train.jsonl").write_text('{"text": "a", "picture": {"path": "%s", "bytes": null}}\n' % (offline / "x"))
    write_card("dataset_info:\n  features:\n  - name: text\n    dtype: string\n  - name: picture\n    dtype: image")
    (row,) = read(split="train")
    assert row.columns == {"text": "a", "picture": {"bytes": None, "path": str(offline / "x")}}


def test_a_data_set_runs_no_code_of_its_own():
    write_rows(1)
    Path("set/set.py").write_text("open('ran', 'w')")
    with pytest.raises(DataError) as caught:
        read()
    assert caught.value.message.startswith(f"{CANNOT}Dataset scripts are no longer supported")
    assert not Path("ran").exists()
    environment = Path(f"/proc/{find_child()}/environ").read_bytes().split(b"\0")
    assert b"HF_DATASETS_TRUST_REMOTE_CODE=0" in environment
