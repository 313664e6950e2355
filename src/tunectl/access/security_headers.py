"""The headers of every response of every service: what browsers may do with it."""

from __future__ import annotations

from typing import Final

_FRAMES: Final = "frame-ancestors 'none'; base-uri 'none'"
PLAIN_POLICY: Final = f"default-src 'none'; img-src 'self' data:; form-action 'self'; {_FRAMES}"
"""Content-Security-Policy of every response that sets no other: neither script nor style."""
APP_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    f"form-action 'self'; {_FRAMES}"
)
"""Content-Security-Policy of pages with script and style in separate files: console, annotation and arena."""
SANDBOX_POLICY: Final = (
    "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; "
    f"img-src data: blob:; font-src data:; worker-src blob:; form-action 'none'; {_FRAMES}"
)
"""Content-Security-Policy of Evidently's reports, which bring their own scripts: they run as if from another site, and reach nothing."""
SECURITY_HEADERS: Final = {
    "Content-Security-Policy": PLAIN_POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cache-Control": "no-store",
}
"""Default headers. Referrer-Policy does not remove the referrer: a form would then send ``Origin: null``."""
HSTS: Final = (b"strict-transport-security", b"max-age=31536000")
"""For every response over HTTPS: browsers use only HTTPS for a year."""
ASGI_HEADERS: Final = tuple((name.lower().encode(), value.encode()) for name, value in SECURITY_HEADERS.items())
"""``SECURITY_HEADERS`` in the form that ASGI takes."""


def build_page_policy(style_hash: str) -> str:
    """Return the Content-Security-Policy of a page without script whose style sheet is inside it.

    Args:
        style_hash: Digest of the one style sheet that it may have, as ``sha256-...``.
    """
    return f"default-src 'none'; style-src '{style_hash}'; img-src 'self' data:; form-action 'self'; {_FRAMES}"
