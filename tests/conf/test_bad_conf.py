"""One wrong input a file of ``bad/``, and the exact text that a user must see."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from conf_copy import copy_conf

from tunectl.cli.main import main

CASES = sorted((Path(__file__).parent / "bad").glob("*.txt"))


def _edit(project: Path, line: str) -> None:
    """``edit: FILE | OLD | NEW``; an empty NEW removes the line, an empty OLD the file."""
    name, old, new = (part.strip() for part in line.split("|"))
    path = project / name
    if not old:
        path.unlink()
        return
    text = path.read_text()
    assert old in text, f"{name} does not hold {old!r}"
    rows = [row.replace(old, new) for row in text.splitlines() if new or old not in row]
    path.write_text("\n".join(rows) + "\n")


@pytest.mark.parametrize("case", CASES, ids=[case.stem for case in CASES])
def test_the_user_sees(
    case: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    steps, _, expected = case.read_text().partition("---\n")
    copy_conf(tmp_path)
    (tmp_path / "conf/overrides.yaml").write_text("# recorded\n# overrides\n[]\n")
    monkeypatch.chdir(tmp_path)
    for line in steps.splitlines():
        verb, _, rest = line.partition(": ")
        if verb == "edit":
            _edit(tmp_path, rest)
        else:
            assert verb == "run"
            code = main(shlex.split(rest)[1:])
    seen = capsys.readouterr()
    assert seen.err == expected
    assert seen.out == ""
    assert code == 2
