"""Errors of acts that were not performed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from tunectl.core.errors import GateError, UsageError

MAX_REASON: Final = 500


class ConflictError(GateError):
    """The state has changed since the confirmation page was shown, so the act was not performed (HTTP 409)."""


def require_reason(form: Mapping[str, str]) -> str:
    """Return the reason that a form's ``reason`` field gives.

    Raises  UsageError where it is empty or too long.
    """
    reason = " ".join(form.get("reason", "").split())
    if not 1 <= len(reason) <= MAX_REASON:
        raise UsageError(
            f"a reason has 1 to {MAX_REASON} characters; this one has {len(reason)}",
            hint="say why, in a sentence",
        )
    return reason
