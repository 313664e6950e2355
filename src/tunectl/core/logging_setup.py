"""Logging for the whole program: one logger tree, ``tunectl``, set up once by the command line or a service."""

from __future__ import annotations

import json
import logging
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from tunectl.core.control_codes import replace_control_codes

_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}


def get_logger(name: str) -> logging.Logger:
    """Return the logger of one module; pass ``__name__``."""
    return logging.getLogger(name)


class JsonFormatter(logging.Formatter):
    """One JSON object per line: UTC time, level, logger, text, and whatever was passed as ``extra``."""

    def format(self, record: logging.LogRecord) -> str:
        """Return one record as a line of JSON; ``extra`` fields become keys of the object."""
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line = {"at": f"{stamp}.{int(record.msecs):03d}Z", "level": record.levelname.lower(), "logger": record.name}
        line["text"] = record.getMessage()
        line.update({key: value for key, value in vars(record).items() if key not in _FIELDS})
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return replace_control_codes(json.dumps(line, default=str, ensure_ascii=False))


class PlainFormatter(logging.Formatter):
    """Formats a log record as text for people, without codes that control their terminal. Its further lines are indented.

    So a text from outside, of an alert for example, cannot look like a record of its own.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return one record as text."""
        return replace_control_codes(super().format(record)).replace("\n", "\n  ")


def configure_logging(*, level: str = "info", json_lines: bool = False) -> None:
    """Send tunectl's log to stderr: plain text for people, JSON lines for services. Safe to call again.

    Python warnings are left out unless ``level`` is debug: libraries warn of what they deprecate, and users cannot act on that.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if json_lines else PlainFormatter("%(message)s"))
    root = logging.getLogger("tunectl")
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    root.propagate = False
    if level != "debug":
        warnings.simplefilter("ignore")


@contextmanager
def mute(name: str) -> Iterator[None]:
    """Leave out what the logger ``name`` and those below it say, errors apart, while the block runs."""
    log = get_logger(name)
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)
