"""Several commands with one log, and nothing of them left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tunectl.backends.system.child_group import ChildGroup

SLEEP = "import time; print('ready', flush=True); time.sleep(60)"
STUBBORN = (
    "import signal, time; [signal.signal(n, signal.SIG_IGN) for n in (signal.SIGINT, signal.SIGTERM)]\n"
    "print('ready', flush=True); time.sleep(60)"
)


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def wait_for(lines: list[str], text: str) -> None:
    end = time.monotonic() + 20
    while text not in lines:
        assert time.monotonic() < end, lines
        time.sleep(0.02)


def test_lines_stand_behind_names_on_the_terminal_and_in_the_log(tmp_path: Path) -> None:
    lines: list[str] = []
    log = tmp_path / "state" / "up.log"
    with ChildGroup(tmp_path, log, lines.append) as children:
        children.start("one", python("print('first'); import sys; sys.stderr.write('second\\n')"))
        children.start("two", python("import sys; sys.exit(3)"))
        assert (children.wait("one"), children.wait("two")) == (0, 3)
    assert sorted(line for line in lines if line.startswith("one ")) == ["one      first", "one      second"]
    assert sorted(line[9:] for line in log.read_text().splitlines()) == sorted(lines)
    with ChildGroup(tmp_path, log, lines.append):
        pass
    assert log.read_text() == ""
    assert log.with_suffix(".previous").read_text()


def test_one_that_ends_while_another_is_waited_for_is_named(tmp_path: Path) -> None:
    lines: list[str] = []
    with ChildGroup(tmp_path, tmp_path / "up.log", lines.append) as children:
        children.start("console", python("import sys; sys.exit(5)"))
        children.start("build", python("import time; time.sleep(1.5)"))
        assert children.wait("build") == 0
        children.start("serve", python("import time; time.sleep(0.3); raise SystemExit(2)"))
        assert children.wait_all() == 5
    assert [line for line in lines if "ended" in line] == [
        "console  ended with exit code 5",
        "serve    ended with exit code 2",
    ]


@pytest.mark.parametrize("code", [SLEEP, STUBBORN], ids=["kind", "stubborn"])
def test_all_end_with_the_block(tmp_path: Path, code: str) -> None:
    lines: list[str] = []
    with ChildGroup(tmp_path, tmp_path / "up.log", lines.append, 0.5) as children:
        children.start("a", python(code))
        children.start("b", python(code))
        wait_for(lines, "a        ready")
        wait_for(lines, "b        ready")
    assert children.list_running() == []
    assert not processes_with(tmp_path)


def test_they_end_when_the_parent_is_killed(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from tunectl.backends.system.child_group import ChildGroup\n"
        "with ChildGroup(Path('.'), Path('up.log'), print) as children:\n"
        f"    children.start('a', [sys.executable, '-c', {SLEEP!r}])\n"
        "    time.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, "-u", "-c", code], cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    assert parent.stdout.readline() == "a        ready\n"
    assert processes_with(tmp_path)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    end = time.monotonic() + 10
    while processes_with(tmp_path):
        assert time.monotonic() < end
        time.sleep(0.05)


def processes_with(folder: Path) -> list[int]:
    """Living processes that work in ``folder``, but for this one."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            if place.joinpath("cwd").resolve(strict=True) == folder.resolve() and int(place.name) != os.getpid():
                found.append(int(place.name))
        except OSError:
            continue
    return found
