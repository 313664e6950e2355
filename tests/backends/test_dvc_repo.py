"""DVC's list of readers and writers after a kill, and what it keeps."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tunectl.backends.vcs import dvc_remote, dvc_repo, guarded_dvc
from tunectl.core.errors import InfrastructureError, UsageError


def rwlock(root: Path, pid: int) -> Path:
    path = root / ".dvc/tmp/rwlock"
    path.parent.mkdir(parents=True, exist_ok=True)
    info = {"pid": pid, "cmd": "dvc repro"}
    path.write_text(
        json.dumps({"write": {"/p/a.json": info}, "read": {"/p/b": [info, {"pid": os.getpid(), "cmd": "x"}]}})
    )
    return path


def test_a_process_that_nobody_waited_for_is_forgotten_and_a_living_one_is_not(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", "pass"])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and stays a zombie
    path = rwlock(tmp_path, process.pid)
    assert dvc_repo.clear_stale_locks(tmp_path) == 2
    assert json.loads(path.read_text()) == {"write": {}, "read": {"/p/b": [{"pid": os.getpid(), "cmd": "x"}]}}
    process.wait()
    path = rwlock(tmp_path, process.pid)
    assert dvc_repo.clear_stale_locks(tmp_path) == 2


def test_a_list_that_a_kill_cut_off_is_started_again(tmp_path: Path) -> None:
    path = rwlock(tmp_path, 1)
    path.write_text(path.read_text()[:20])
    assert dvc_repo.clear_stale_locks(tmp_path) == 1
    assert not path.exists()
    assert dvc_repo.clear_stale_locks(tmp_path) == 0


def test_a_folder_that_is_no_project_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        dvc_repo.repro(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path} is not a tunectl project: there is no dvc.yaml in it\n"
        "  go to the project's folder, or make one: tunectl init DIR"
    )


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_dvc_and_the_stage_that_it_runs(tmp_path: Path, sent: signal.Signals) -> None:
    quiet = {**os.environ, "DVC_NO_ANALYTICS": "1"}
    for words in (["git", "init", "--quiet"], [sys.executable, "-m", "dvc", "init", "--quiet"]):
        subprocess.run(words, cwd=tmp_path, env=quiet, check=True)
    (tmp_path / "dvc.yaml").write_text("stages:\n  slow:\n    cmd: echo $$ > pid && exec sleep 600\n")
    code = "import sys; from pathlib import Path; from tunectl.backends.vcs import dvc_repo; sys.exit(dvc_repo.repro(Path()))"
    process = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, env=quiet, start_new_session=True)
    pid = tmp_path / "pid"
    for _ in range(600):
        if pid.is_file() and pid.read_text().strip():
            break
        time.sleep(0.1)
    process.send_signal(sent)
    assert process.wait(timeout=60) != 0
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


def test_the_output_of_dvc_and_its_stages_goes_where_the_caller_says(tmp_path: Path) -> None:
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc" / "config").write_text("[core]\n    no_scm = true\n")
    (tmp_path / "dvc.yaml").write_text("stages:\n  loud:\n    cmd: echo to stdout\n")
    code = "from pathlib import Path; from tunectl.backends.vcs import dvc_repo; dvc_repo.repro(Path(), stdout=2); print('{}')"
    run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True, text=True)
    assert run.stdout == "{}\n"
    assert "to stdout" in run.stderr


PULL = [sys.executable, "-m", "tunectl", "dvc", "pull"]


def build_and_push(tmp_path: Path) -> tuple[Path, Path]:
    """Return a project of one stage, built, and its remote, a folder that has its results and its run cache."""
    root, remote = tmp_path / "one" / "two" / "project", tmp_path / "remote"
    (root / ".dvc").mkdir(parents=True)
    remote.mkdir()
    (root / ".dvc" / "config").write_text(
        f"[core]\n    no_scm = true\n    remote = far\n['remote \"far\"']\n    url = {remote}\n"
    )
    (root / "rows").write_text("hello\n")
    (root / "dvc.yaml").write_text(
        "stages:\n  split:\n    cmd: mkdir -p out && tr a-z A-Z < rows > out/upper\n    deps: [rows]\n    outs: [out]\n"
    )
    assert dvc_repo.repro(root) == 0
    dvc_remote.push(root, "far", ["split"])
    return root, remote


def test_the_lock_file_is_replaced_and_never_half_written(tmp_path: Path) -> None:
    root, _ = build_and_push(tmp_path)
    path = root / "dvc.lock"
    before = path.read_bytes()
    with path.open("rb") as opened:
        (root / "rows").write_text("other\n")
        assert dvc_repo.repro(root) == 0
        assert opened.read() == before, "who had opened it reads all of it"
    assert path.read_bytes() != before
    assert path.stat().st_mode & 0o777 == 0o644


def forget(root: Path, *names: str) -> None:
    """Delete the caches of a project and ``names``, as in a new clone."""
    for path in (root / ".dvc" / "cache", root / ".dvc" / "tmp", *(root / name for name in names)):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


@pytest.mark.parametrize("name", ["../../../escaped", "/tmp/escaped", "sub/../../escaped"])
def test_a_list_of_the_remote_that_names_a_file_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    root, remote = build_and_push(tmp_path)
    (listing,) = remote.rglob("*.dir")
    (entry,) = json.loads(listing.read_text())
    listing.chmod(0o644)
    listing.write_text(json.dumps([entry, {**entry, "relpath": name.replace("/tmp", str(tmp_path))}]))
    forget(root, "out")
    assert dvc_repo.restore(root, ["split"]) != 0
    assert not list(tmp_path.rglob("escaped"))


@pytest.mark.parametrize(
    ("name", "digest"),
    [
        ("md5", "../../../../../escaped"),
        ("md5", "ab/../../../escaped"),
        ("sha256", "../../../../../escaped"),  # DVC takes a digest of any name
    ],
)
def test_a_list_of_the_remote_with_what_is_no_digest_is_refused(tmp_path: Path, name: str, digest: str) -> None:
    root, remote = build_and_push(tmp_path)
    (listing,) = remote.rglob("*.dir")
    listing.chmod(0o644)
    listing.write_text(json.dumps([{name: digest, "relpath": "upper"}]))
    forget(root, "out")
    assert dvc_repo.restore(root, ["split"]) != 0
    with pytest.raises(InfrastructureError, match="which is no file below that folder"):
        dvc_remote._call(root, "fetch", "--remote", "far")


@pytest.mark.parametrize(
    "fact",
    [
        {"md5": "../x"},
        {"hash": "md5", "md5": None},
        {"hash": "etag", "etag": "../x"},
        {"hash": "md5", "cloud": {"far": {"md5": "../x"}}},
    ],
)
def test_a_run_of_which_a_digest_is_a_path_is_not_one_of_the_stage(fact: dict[str, object]) -> None:
    whole = {"path": "out", "hash": "md5", "md5": f"{'0' * 32}.dir", "size": 1, "nfiles": 1}
    assert guarded_dvc.is_run_of_stage({"outs": [whole]}, {"out"})
    assert guarded_dvc.is_run_of_stage({"outs": [{"path": "out"}]}, {"out"})
    assert not guarded_dvc.is_run_of_stage({"outs": [{"path": "out", **fact}]}, {"out"})


def test_the_command_for_people_and_jobs_has_the_same_checks(tmp_path: Path) -> None:
    root, remote = build_and_push(tmp_path)
    (listing,) = remote.rglob("*.dir")
    (entry,) = json.loads(listing.read_text())
    listing.chmod(0o644)
    listing.write_text(json.dumps([entry, {**entry, "relpath": "../../../escaped"}]))
    forget(root, "out")
    process = subprocess.run(
        [*PULL, "--run-cache", "--allow-missing", "--with-deps", "--remote", "far", "--", "split"],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert not list(tmp_path.rglob("escaped"))
    assert process.returncode != 0
    assert "the list of a folder names '../../../escaped', which is no file below that folder" in process.stderr


def test_a_run_of_the_remote_with_outputs_of_no_stage_is_not_used(tmp_path: Path) -> None:
    root, remote = build_and_push(tmp_path)
    (run,) = (path for path in (remote / "runs").rglob("*") if path.is_file())
    run.chmod(0o644)
    run.write_text(run.read_text().replace("path: out", "path: conf"))
    forget(root, "out", "dvc.lock")
    dvc_remote.fetch_runs(root, "far")
    assert dvc_repo.restore(root, ["split"]) == 0
    assert (root / "out" / "upper").read_text() == "HELLO\n"
    assert not (root / "conf").exists()
