"""Messages to people who look at no page: JSON with a field ``text``, as Slack, Teams and Mattermost take it."""

from __future__ import annotations

import json
import os
import urllib.request

from tunectl.core import logging_setup

_log = logging_setup.get_logger(__name__)
SECONDS = 10
"""Longest wait for whoever takes a message."""


def notify(words: str, project: str, variable: str) -> None:
    """Log a message, and send it where the environment variable holds an address; what cannot be delivered is only logged.

    Nothing depends on it: what waits for people also stands in ``tunectl status``.
    """
    _log.info("%s", words)
    url = os.environ.get(variable)
    if not url:
        return
    body = json.dumps({"text": f"{project}: {words}"}).encode()
    try:
        request = urllib.request.Request(url, body, {"Content-Type": "application/json"})  # noqa: S310  the user's own address
        with urllib.request.urlopen(request, timeout=SECONDS):  # noqa: S310
            pass
    except (OSError, ValueError) as error:  # a ValueError: what the variable holds is no address
        _log.error("the message was not delivered: %s", error)
