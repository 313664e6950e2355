"""The headers of every response of every service: what browsers may do with it."""

from __future__ import annotations

from typing import Final

_FRAMES: Final = "frame-ancestors 'none'; base-uri 'none'"
PLAIN_POLICY: Final = f"default-src 'none'; img-src 'self' data:; form-action 'self'; {_FRAMES}"
"""Of everything that says nothing else: neither script nor style."""
APP_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    f"form-action 'self'; {_FRAMES}"
)
"""Of a page with script and style in files of its own: console, annotation and arena."""
SANDBOX_POLICY: Final = (
    "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; "
    f"img-src data: blob:; font-src data:; worker-src blob:; form-action 'none'; {_FRAMES}"
)
"""Of Evidently's reports, which bring scripts of their own: they run as if they came from another site, and reach nothing."""
SECURITY_HEADERS: Final = {
    "Content-Security-Policy": PLAIN_POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cache-Control": "no-store",
}
"""Of everything that says nothing else. The referrer is not left out: a form would then send ``Origin: null``."""
HSTS: Final = (b"strict-transport-security", b"max-age=31536000")
"""Of every answer over HTTPS: browsers come by HTTPS alone for a year."""
ASGI_HEADERS: Final = tuple((name.lower().encode(), value.encode()) for name, value in SECURITY_HEADERS.items())
"""The same, as ASGI takes them."""


def build_page_policy(style_hash: str) -> str:
    """Return the policy of a page without script whose style is part of it.

    Args:
        style_hash: Digest of the one style sheet that it may have, as ``sha256-...``.
    """
    return f"default-src 'none'; style-src '{style_hash}'; img-src 'self' data:; form-action 'self'; {_FRAMES}"
