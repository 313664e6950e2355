"""Credentials in addresses: a login with a password, a token as the login, and secret parameters of the query."""

from __future__ import annotations

import re
from typing import Final

CREDENTIAL_KEYS: Final = (
    r"api[_-]?key|(?:access_|auth_|refresh_|id_|private_|job_)?token|jwt|(?:client_)?secret"
    r"|x-(?:amz|goog)-(?:credential|security-token|signature)|(?:ssl)?password|passwd|pwd|sig|signature"
)
"""Pattern of the names of parameters whose value is a secret."""
LONG_CREDENTIAL_KEYS: Final = r"key|auth|code|sid|session(?:_?id)?"
"""The same, for names that have other meanings: their value is a secret from 16 characters on."""
_PARAMETER: Final = re.compile(
    rf"([?&;#](?:{CREDENTIAL_KEYS})=)[^\s&#]+|([?&;#](?:{LONG_CREDENTIAL_KEYS})=)[^\s&#]{{16,}}", re.IGNORECASE
)
_RUN: Final = re.compile(r"\S+")
_NO_LOGIN: Final = re.compile(r"\b(?:file|sqlite)$")
_LOGIN_ALONE: Final = re.compile(
    r"\b(?:ssh|postgres(?:ql)?(?:\+psycopg)?)$"
)  # who signs in there has a key or a password


def hide_credentials(text: str) -> str:
    """Return an address, or a text with addresses, with ``***`` in place of the credentials."""
    return _RUN.sub(lambda run: _hide(run[0]), text) if "://" in text else text


def has_credentials(text: str) -> bool:
    """Return whether an address, or a text with addresses, carries credentials. An address that can be read both ways does."""
    return hide_credentials(text) != text


def _hide(run: str) -> str:
    """Hide the credentials of ``run``, which has no blanks. A login ends at the last ``@``: a password may contain any character."""
    kind, mark, rest = run.partition("://")
    end = rest.rfind("@")
    if ":" not in rest[: max(end, 0)]:
        end = rest.partition("/")[0].rfind("@")  # no password: behind the host an @ is part of a path
    if mark and end >= 0 and not _is_harmless(kind[-20:], rest[:end]):
        run = f"{kind}{mark}***{rest[end:]}"
    return _PARAMETER.sub(lambda match: f"{match[1] or match[2]}***", run)


def _is_harmless(scheme: str, login: str) -> bool:
    if login == "git" or _NO_LOGIN.search(scheme):
        return True
    user, _, rest = login.partition(":")
    return rest == "***" or (user == login and _LOGIN_ALONE.search(scheme) is not None)
