"""``make demo``: what goes into the record, and that the same files give the same bytes."""

from __future__ import annotations

import tarfile
from pathlib import Path

import loop_demo_fixtures  # noqa: F401  makes the example importable
import pytest
import record_demo

from tunectl.core.errors import DataError, UsageError


def write(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)


def test_weights_keys_and_temporary_files_are_left_out(tmp_path: Path) -> None:
    kept = ["artifacts/sft/history.csv", "artifacts/sft/manifest.json", "artifacts/model/config.json"]
    write(tmp_path, *kept, "artifacts/sft/adapter_model.safetensors", "artifacts/model/tokenizer.json")
    write(tmp_path, "artifacts/package/bento/src/x.py", "artifacts/package/release/model/openvino_model.bin")
    assert sorted(kept) == [
        path.relative_to(tmp_path).as_posix() for path in record_demo.list_files(tmp_path, "artifacts")
    ]
    assert not {".tunectl/keys.json", ".tunectl/retrain", ".tunectl/retrain/token", ".tunectl"} & {
        *record_demo.LOOP_FILES,
        *record_demo.BUILD_FILES,
    }


def test_the_same_files_give_the_same_bytes(tmp_path: Path) -> None:
    write(tmp_path / "one", "b/two.txt", "a.txt")
    write(tmp_path / "other", "a.txt", "b/two.txt")
    (tmp_path / "other" / "a.txt").chmod(0o600)
    for name in ("one", "other"):
        record_demo.pack(tmp_path / name, tmp_path / f"{name}.tar.xz")
    assert (tmp_path / "one.tar.xz").read_bytes() == (tmp_path / "other.tar.xz").read_bytes()
    with tarfile.open(tmp_path / "one.tar.xz") as archive:
        assert archive.getnames() == ["a.txt", "b/two.txt"]


def test_a_file_with_a_path_of_this_machine_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "record", "fine.txt")
    (tmp_path / "record" / "log.txt").write_text("see /checkout/of/somebody/file")
    with pytest.raises(DataError, match=r"^log\.txt names /checkout/of/somebody"):
        record_demo.refuse_paths(tmp_path / "record", Path("/checkout/of/somebody"))


def test_without_a_loop_the_error_says_what_to_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["record_demo.py", "--root", str(tmp_path)])
    with pytest.raises(UsageError) as caught:
        record_demo.main()
    assert caught.value.hint == "make run && make loop"
