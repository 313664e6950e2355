"""Credentials in addresses: a login with a password, a token as the login, and secret parameters of the query."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import unquote

CREDENTIAL_KEYS: Final = (
    r"(?:api|access|account|auth|client|master|private|secret|shared|signing|subscription)[_-]?key"
    r"|(?:access|api|auth|id|job|private|refresh)?[_-]?token|jwt|(?:client[_-]?)?secret|(?:x-(?:amz|goog)-)?credential"
    r"|x-(?:amz|goog)-(?:security-token|signature)|(?:db|ssl|user)?password|passwd|pass|pwd|sig|signature"
)
"""Pattern of the names of parameters whose value is a secret."""
LONG_CREDENTIAL_KEYS: Final = r"key|auth|code|sid|session(?:_?id)?"
"""The same, for names that have other meanings: their value is a secret from 16 characters on."""
_NAME: Final = re.compile(r"[?&;#]([^\s?&;#=]{1,128})=")
_VALUE: Final = re.compile(r"[^\s&#]+")
_LONG_VALUE: Final = 16
_CAPITAL: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_SECRET: Final = re.compile(rf"(?:\w*_)?(?:{CREDENTIAL_KEYS})")
_MAYBE_SECRET: Final = re.compile(rf"(?:\w*_)?key|{LONG_CREDENTIAL_KEYS}")
_RUN: Final = re.compile(r"\S+")
_SPACED: Final = re.compile(  # a blank in a password; what looks like a port ends the address
    r"(?<=://)[^\s/:@]{1,64}:(?!//|\*\*\*|\d{1,5}(?:[/?#]|[^\w\s]{0,2}\s))[^\s@]{0,64}(?:[ \t][^\s@:]{0,64}){1,4}@(?:[^\s/@]{0,64}@){0,4}"
)
_NO_LOGIN: Final = re.compile(r"\b(?:file|sqlite)$")
_PORT: Final = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[^:@/]+):(\d{1,5})/[^:]*")
"""Of an address of HTTP whose path has an ``@``."""
_HIGHEST_PORT: Final = 65_535
_LOGIN_ALONE: Final = re.compile(
    r"\b(?:ssh|(?:postgres(?:ql)?|mysql|mariadb)(?:\+\w{1,20})?)$"
)  # who signs in there has a key or a password
_USER: Final = re.compile(
    r"(?!gh[a-z]_|github_pat_|gl[a-z]{2,5}-|(?:sk|rk|pk|tk|hf|npm|pypi|dckr|xox[a-z])[_-])(?=.{1,19}$)[a-z][a-z._+\-]*\d{0,4}",
    re.IGNORECASE,
)
"""A login that is a name and no token: short, no prefix of an issuer, digits only at its end."""


def hide_credentials(text: str) -> str:
    """Return an address, or a text with addresses, with ``***`` in place of the credentials.

    ``https://me:123/secret@h`` is returned unchanged, since ``me`` is the host and 123 the port (RFC 3986, 3.2), as in
    ``https://registry:5000/@scope/pkg``. In a password like this the slash must be percent-encoded: ``123%2Fsecret``.
    """
    return _RUN.sub(lambda run: _hide(run[0]), _SPACED.sub("***@", text)) if "://" in text else text


def has_credentials(text: str) -> bool:
    """Return whether an address, or a text with addresses, contains credentials that ``hide_credentials`` would replace."""
    return hide_credentials(text) != text


def _hide(run: str) -> str:
    """Hide the credentials of ``run``, which has no blanks. A login ends at the last ``@``: a password may contain any character."""
    kind, mark, rest = run.partition("://")
    end = rest.rfind("@")
    if ":" not in rest[: max(end, 0)]:
        end = rest.partition("/")[0].rfind("@")  # no password: behind the host an @ is part of a path
    if mark and end >= 0 and not _is_harmless(kind[-32:], rest[:end]):
        run = f"{kind}{mark}***{rest[end:]}"
    return _hide_parameters(run)


def _is_harmless(scheme: str, login: str) -> bool:
    if login == "git" or _NO_LOGIN.search(scheme):
        return True
    port = _PORT.fullmatch(login) if scheme.endswith(("http", "https")) else None
    if port is not None and int(port[1]) <= _HIGHEST_PORT:
        return True
    user, _, rest = login.partition(":")
    if user == login:
        return login == "***" or bool(_LOGIN_ALONE.search(scheme) or _USER.fullmatch(login))
    return rest == "***"


def _hide_parameters(run: str) -> str:
    """Hide the values of secret parameters, whose names may be percent-encoded."""
    result, end = "", 0
    for match in _NAME.finditer(run):
        name = _CAPITAL.sub("_", unquote(match[1])).replace("-", "_").casefold()
        least = 1 if _SECRET.fullmatch(name) else _LONG_VALUE if _MAYBE_SECRET.fullmatch(name) else 0
        value = _VALUE.match(run, match.end()) if least and match.start() >= end else None
        if value and len(value[0]) >= least:
            result, end = f"{result}{run[end : match.end()]}***", value.end()
    return result + run[end:]
