"""Whoever is killed, in whatever order: nothing that a retrain started is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tunectl.backends.system import exit_status, supervised_process
from tunectl.backends.system.process_guard import STOPPED
from tunectl.backends.system.supervised_process import LATE, ProcessLimits

TREE = """
import os, subprocess, sys, time
subprocess.Popen([sys.executable, "-c", "import os, time; open(%r, 'w').write(str(os.getpid())); time.sleep(60)"])
subprocess.Popen([sys.executable, "-c", "import os, time; open(%r, 'w').write(str(os.getpid())); time.sleep(60)"], start_new_session=True)
time.sleep(60)
"""
PARENT = """
import os, sys, threading
from pathlib import Path
from tunectl.backends.system import supervised_process
supervised_process.run([sys.executable, "-c", sys.argv[1]], cwd=Path("."), environment=os.environ, mark=sys.argv[2],
    log=Path(sys.argv[3]), stop=threading.Event(), limits=supervised_process.ProcessLimits(60))
"""


def _tree(folder: Path) -> tuple[str, list[Path]]:
    files = [folder / "child", folder / "own_session"]
    return TREE % tuple(str(file) for file in files), files


def _pids(files: list[Path], most: float = 60) -> list[int]:
    end = time.monotonic() + most
    while time.monotonic() < end:
        if all(file.is_file() and file.read_text() for file in files):
            return [int(file.read_text()) for file in files]
        time.sleep(0.05)
    raise AssertionError("the tree did not start")


def _gone(pids: list[int], most: float = 20) -> bool:
    end = time.monotonic() + most
    while any(exit_status.is_running(pid) for pid in pids) and time.monotonic() < end:
        time.sleep(0.05)
    return not any(exit_status.is_running(pid) for pid in pids)


def test_gpus_are_hidden_where_it_may_take_none(tmp_path: Path) -> None:
    words, told = [sys.executable, "-c", "import os; print(os.environ.get('CUDA_VISIBLE_DEVICES'))"], []
    for gpus in (False, True):
        supervised_process.run(
            words,
            cwd=tmp_path,
            environment={**os.environ, "CUDA_VISIBLE_DEVICES": "0"},
            mark="a",
            log=tmp_path / f"{gpus}.txt",
            stop=threading.Event(),
            limits=ProcessLimits(60, gpus=gpus),
        )
        told.append((tmp_path / f"{gpus}.txt").read_text().strip())
    assert told == ["", "0"]


def test_exit_code_and_words_come_back(tmp_path: Path) -> None:
    words = [sys.executable, "-c", "print('hello'); raise SystemExit(3)"]
    code = supervised_process.run(
        words,
        cwd=tmp_path,
        environment=os.environ,
        mark="a",
        log=tmp_path / "log",
        stop=threading.Event(),
        limits=ProcessLimits(60, nice=3, threads=1),
    )
    assert (code, (tmp_path / "log").read_text()) == (3, "hello\n")


LOOK = """
import os
from pathlib import Path
place = Path("/proc/self/autogroup")
group = place.read_text().split() if place.is_file() else []
print(os.nice(0), group[-1] if group else os.nice(0), len(os.sched_getaffinity(0)), os.environ["OMP_NUM_THREADS"])
print(Path("/proc/self/oom_score_adj").read_text())
"""


def test_what_it_runs_stands_back_for_other_sessions(tmp_path: Path) -> None:
    words = [sys.executable, "-c", f"import subprocess, sys; subprocess.run([sys.executable, '-c', {LOOK!r}])"]
    log, nice = tmp_path / "log", min(19, os.nice(0) + 4)
    limits = ProcessLimits(60, nice=4, threads=1)
    told = {"cwd": tmp_path, "environment": os.environ, "mark": "b", "stop": threading.Event(), "limits": limits}
    assert supervised_process.run(words, log=log, **told) == 0
    assert log.read_text().split() == [str(nice), str(nice), "1", "1", "500"], "a child of a child, too"


@pytest.mark.parametrize("how", ["stop", "late"])
def test_a_run_that_is_ended_leaves_nobody(tmp_path: Path, how: str) -> None:
    script, files = _tree(tmp_path)
    stop = threading.Event()
    if how == "stop":
        threading.Thread(target=lambda: (_pids(files), stop.set())).start()
    code = supervised_process.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        environment=os.environ,
        mark=str(tmp_path),
        log=tmp_path / "log",
        stop=stop,
        limits=ProcessLimits(60 if how == "stop" else 4),
    )
    assert code == (STOPPED if how == "stop" else LATE)
    assert _gone([int(file.read_text()) for file in files if file.is_file()])


@pytest.mark.parametrize("victims", ["parent", "guard", "both"])
def test_kill_nine_of_us_of_the_guard_or_of_both(tmp_path: Path, victims: str) -> None:
    script, files = _tree(tmp_path)
    mark = str(tmp_path)
    parent = subprocess.Popen([sys.executable, "-c", PARENT, script, mark, str(tmp_path / "log")])
    try:
        pids = _pids(files)
        guard = int(subprocess.check_output(["ps", "-o", "pid=", "--ppid", str(parent.pid)]).split()[0])
        for pid in {"parent": [parent.pid], "guard": [guard], "both": [parent.pid, guard]}[victims]:
            os.kill(pid, signal.SIGKILL)
        if victims != "guard":  # what left the group on its own is found by its mark, by the next watcher
            assert _gone(pids[:1]) or victims == "both"
            supervised_process.kill_marked(mark)
        else:
            parent.wait(30)
        assert _gone(pids)
    finally:
        parent.kill()
        parent.wait()
