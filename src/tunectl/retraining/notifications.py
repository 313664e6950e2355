"""Notifications as JSON with a field ``text``, the format of Slack, Teams and Mattermost.

The text may come from outside (an alert, an error message), and Slack reads ``<...>`` as a mention or a link, so ``&``, ``<`` and
``>`` are entities, as Slack asks for; the others show them as what they stand for.
"""

from __future__ import annotations

import html
import http.client
import json
import os
import urllib.error
import urllib.request

from tunectl.core import logging_setup

_log = logging_setup.get_logger(__name__)
SECONDS = 10
"""Longest wait in seconds for the receiver of a message."""


def notify(message: str, project: str, variable: str, link: str = "") -> None:
    """Log ``message``, and post it to the URL in the environment variable ``variable``; a failed delivery is only logged.

    ``link``: signed approval link, sent below the text and never logged, since logs have more readers than approvals.
    Nothing depends on the delivery: ``tunectl status`` shows pending approvals, too.
    """
    _log.info("%s%s", message, " (tunectl status shows the link)" if link else "")
    url = os.environ.get(variable)
    if not url:
        return
    text = f"{project}: {message}\n{link}" if link else f"{project}: {message}"
    body = json.dumps({"text": html.escape(text, quote=False)}).encode()
    try:
        request = urllib.request.Request(url, body, {"Content-Type": "application/json"})  # noqa: S310  the user's own address
        with urllib.request.urlopen(request, timeout=SECONDS):  # noqa: S310
            pass
    except (OSError, ValueError, http.client.HTTPException) as error:
        _log.error("the message was not delivered to the address in %s: %s", variable, _explain(error))


def _explain(error: Exception) -> str:
    """Return the cause of a failed delivery without the address: its path is the secret of the channel."""
    if isinstance(error, urllib.error.HTTPError):
        return f"status {error.code}"
    if isinstance(error, ValueError | http.client.InvalidURL):
        return "it holds no web address"
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(reason, OSError) and reason.strerror:
        return reason.strerror
    return type(reason if isinstance(reason, Exception) else error).__name__
