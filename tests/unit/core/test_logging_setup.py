"""What a muted logger leaves out."""

from __future__ import annotations

import pytest

from tunectl.core import logging_setup


def test_a_muted_logger_says_errors_alone_and_speaks_again_afterwards(caplog: pytest.LogCaptureFixture) -> None:
    reader = logging_setup.get_logger("tunectl.data.readers.csv_reader")
    with caplog.at_level("INFO", logger="tunectl"):
        with logging_setup.mute("tunectl.data"):
            reader.info("comma between cells")
            reader.error("broken")
        reader.info("tab between cells")
    assert [record.getMessage() for record in caplog.records] == ["broken", "tab between cells"]
