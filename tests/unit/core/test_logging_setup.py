"""What a muted logger leaves out, and what becomes of warnings."""

from __future__ import annotations

import warnings

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


@pytest.mark.parametrize(("level", "count"), [("info", 0), ("error", 0), ("debug", 1)])
def test_warnings_of_libraries_are_left_out(level: str, count: int) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        logging_setup.configure_logging(level=level)
        warnings.warn("an old name", FutureWarning, stacklevel=1)
    logging_setup.configure_logging()
    assert len(caught) == count
