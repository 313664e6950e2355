"""The table of verbs, exit codes, and what a mistake prints."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tunectl.cli import data
from tunectl.cli import main as cli
from tunectl.core.errors import ConfigError, GateError, InfrastructureError, MissingExtraError, TunectlError, UsageError
from tunectl.core.optional import import_optional, require_installed


def test_help_lists_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"\n  {verb.name} " in text for verb in cli.VERBS)


@pytest.mark.parametrize(
    "words", [[verb.name] for verb in cli.VERBS] + [["data", verb] for verb in data.VERBS], ids=" ".join
)
def test_every_verb_explains_itself(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main([*words, "--help"])
    assert caught.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: tunectl {' '.join(words)} ")


def test_an_unknown_verb_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["chekc"]) == 2
    text = capsys.readouterr().err
    assert text.startswith("tunectl: chekc: no such verb; there are demo, init, check, estimate, repro,")
    assert text.endswith("  did you mean check?\n  more: tunectl docs no-such-verb-there-are\n")


def test_an_unknown_stage_names_the_nearest(
    capsys: pytest.CaptureFixture[str], tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["run", "ingets"]) == 2
    assert capsys.readouterr().err == (
        "tunectl: ingets: no such stage; there are compose, model, ingest, feedback, curate, split, cpt, sft, preferences, reward, align, evaluate, package\n  did you mean ingest?\n  more: tunectl docs no-such-stage-there-are\n"
    )


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (TunectlError("x"), 1),
        (ConfigError(["x"]), 2),
        (UsageError("x"), 2),
        (GateError("x"), 3),
        (MissingExtraError("x"), 4),
        (InfrastructureError("x"), 5),
    ],
)
def test_exit_codes(error: TunectlError, code: int) -> None:
    assert error.exit_code == code


def test_a_missing_extra_says_the_pip_line() -> None:
    told = "no_such_library is not installed, and this needs it\n  pip install 'tunectl-lm[train]'"
    with pytest.raises(MissingExtraError) as caught:
        import_optional("no_such_library.part", extra="train")
    assert str(caught.value) == told
    with pytest.raises(MissingExtraError) as caught:
        require_installed("no_such_library", extra="train")
    assert str(caught.value) == told


def test_what_is_installed_is_not_imported() -> None:
    require_installed("this", extra="train")
    assert "this" not in sys.modules


@pytest.mark.parametrize(
    ("error", "says"),
    [(MemoryError(), "out of memory"), (OSError(28, "No space left on device", "/x"), "/x: No space left on device")],
)
def test_the_machine_says_no(
    error: Exception, says: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_words: list[str]) -> int:
        raise error

    monkeypatch.setattr(cli, "_dispatch", fail)
    assert cli.main(["check"]) == 5
    assert says in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [(["run", "sft"], "\nstopped; run the same command again to resume\n"), (["demo"], "\nstopped\n")],
)
def test_ctrl_c_is_clean(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, words: list[str], said: str
) -> None:
    def stop(_words: list[str]) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_dispatch", stop)
    assert cli.main(words) == 130
    assert capsys.readouterr().err == said


@pytest.mark.parametrize(
    ("typed", "offered"),
    [("repro --to ev", "evaluate"), ("run ev", "evaluate"), ("repro ev", ""), ("esti", "estimate")],
)
def test_bash_completes_verbs_and_stages(
    typed: str, offered: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["completions", "bash"]) == 0
    words = f"COMP_WORDS=(tunectl {typed}); COMP_CWORD={len(typed.split())}; _tunectl; echo ${{COMPREPLY[*]}}"
    script = f"{capsys.readouterr().out}\n{words}"
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == offered


def test_fish_gets_lines_whose_quotes_are_closed(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["completions", "fish"]) == 0
    for line in capsys.readouterr().out.splitlines():
        assert line.replace("\\'", "").count("'") % 2 == 0, line


def test_compose_is_no_target(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["repro", "--to", "compose"]) == 2
    assert "compose: is no stage of its own, it runs before every other one\n  leave it out" in capsys.readouterr().err
