"""Text of documents, alerts and users reaches a terminal without its codes: tables, lines, JSON, errors and logs."""

from __future__ import annotations

import json

import pytest

from tunectl.backends.system import terminal
from tunectl.cli import main
from tunectl.core import logging_setup
from tunectl.core.control_codes import replace_control_codes
from tunectl.core.errors import UsageError

EVIL = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202eevil\r"
CODES = set("\x1b\x07\x9b\u202e\r")


def test_line_ends_tabs_and_letters_stay() -> None:
    kept = "a\tb\nc  é 漢 \N{NO-BREAK SPACE} \N{ZERO WIDTH JOINER} 🎉"
    assert replace_control_codes(kept) == kept
    assert replace_control_codes(EVIL) == "�]0;owned��[2J�31m�evil�"


def test_nothing_that_is_printed_steers_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.table(EVIL, ("a",), [(EVIL,), (1,)])
    terminal.print_line(EVIL)
    terminal.print_marked([(EVIL, True), ("b", False)])
    terminal.print_json({"a": EVIL})
    main._report(UsageError(EVIL, hint=EVIL))
    found = capsys.readouterr()
    assert "owned" in found.out
    assert not CODES & set(found.out + found.err)


def test_json_stays_json(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.print_json({"a": "\x1b[2J\x9b"})
    assert json.loads(capsys.readouterr().out) == {"a": "\x1b[2J�"}


@pytest.mark.parametrize("json_lines", [True, False])
def test_logs(capsys: pytest.CaptureFixture[str], json_lines: bool) -> None:
    logging_setup.configure_logging(json_lines=json_lines)
    logging_setup.get_logger("tunectl.test").error("an alert says %s", EVIL)
    assert not CODES & set(capsys.readouterr().err)


@pytest.mark.parametrize("json_lines", [True, False])
def test_no_text_becomes_a_record_of_its_own(capsys: pytest.CaptureFixture[str], json_lines: bool) -> None:
    logging_setup.configure_logging(json_lines=json_lines)
    logging_setup.get_logger("tunectl.test").error("an alert says %s", "drift\nretrain 0123456789ab-1: promoted")
    lines = capsys.readouterr().err.splitlines()
    assert not any(line.startswith("retrain") for line in lines)
    assert "retrain 0123456789ab-1: promoted" in lines[-1]
