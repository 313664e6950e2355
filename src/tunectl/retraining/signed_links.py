"""Links by which a person decides: signed, for one question, with an expiry time, used once. Pure.

A link opens a page and changes nothing (mail programs and chats fetch links to preview them); the button on that page does.
Used once means: the run has a decision, so the same link decides nothing any more; ``retraining/run_store.py`` ensures that.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from datetime import UTC, datetime
from typing import Final, Literal

import msgspec
from msgspec import Struct

from tunectl.core.errors import UsageError

ApprovalQuestion = Literal["retrain", "promote"]
QUESTION_TEXTS: Final[dict[ApprovalQuestion, str]] = {
    "retrain": "Retrain the model?",
    "promote": "Make the new model champion?",
}
BUTTONS: Final[dict[ApprovalQuestion, tuple[str, str]]] = {
    "retrain": ("Retrain", "Dismiss"),
    "promote": ("Promote", "Reject"),
}
"""Labels of yes and no for each question."""
LONGEST: Final = 2000
"""Most characters of a token."""


class ApprovalToken(Struct, frozen=True):
    """Content of an approval link: run, approval, expiry time and nonce."""

    run: str
    question: ApprovalQuestion
    until: int
    """Expiry time, Unix seconds."""
    nonce: str


def sign(token: ApprovalToken, secret: bytes) -> str:
    """Return ``token`` as text with its signature (HMAC), for use in a URL."""
    body = msgspec.json.encode(token)
    return f"{_text(body)}.{_text(_mac(body, secret))}"


def address(url: str, token: ApprovalToken, secret: bytes) -> str:
    """Return the approval link with the signed ``token``, below the public ``url`` of the retrain controller."""
    return f"{url.rstrip('/')}/decide/{sign(token, secret)}"


def verify(token: str, secret: bytes, now: datetime) -> ApprovalToken:
    """Verify the signature and expiry time of the text ``token`` from an approval link; return its content.

    Raises  UsageError for a token that was not signed with ``secret``, or has expired.
    """
    try:
        body, mac = (_bytes(part) for part in token[:LONGEST].split("."))
        genuine = hmac.compare_digest(mac, _mac(body, secret))
    except ValueError:
        genuine = False
    if not genuine:
        raise UsageError(
            "this approval link was not signed by this retrain controller",
            hint="open the newest link; tunectl status shows open approvals",
        )
    result = msgspec.json.decode(body, type=ApprovalToken)
    if now.timestamp() > result.until:
        at = datetime.fromtimestamp(result.until, UTC)
        raise UsageError(
            f"this link expired on {at:%Y-%m-%d %H:%M} UTC", hint="tunectl release log shows what was decided"
        )
    return result


def _mac(body: bytes, secret: bytes) -> bytes:
    return hmac.new(secret, b"tunectl link " + body, hashlib.sha256).digest()


def _text(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


def _bytes(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
