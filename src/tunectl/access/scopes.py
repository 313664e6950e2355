"""What a key may do: every scope of every service, once. Routes, help, docs and the console read this list."""

from __future__ import annotations

from typing import Final, Literal, get_args

KeyScope = Literal["chat", "feedback", "scrape", "look", "annotate", "operate", "decide", "acts_for", "admin"]
SCOPES: Final[tuple[KeyScope, ...]] = get_args(KeyScope)
SCOPE_MEANINGS: Final[dict[KeyScope, str]] = {
    "chat": "answers and models",
    "feedback": "verdicts on answers, from which models may learn",
    "scrape": "metrics",
    "look": "pages and reports, which show texts",
    "annotate": "the page on which people compare answers",
    "operate": "begin, stop and retry builds, evaluations and retrains; send alerts",
    "decide": "approve a retrain; promote, reject and roll back releases",
    "acts_for": "name people who each count, for applications that speak for many users",
    "admin": "all of these, and keys",
}
"""What a key of that scope opens, for help and docs."""
