"""Find keys, tokens and passwords: by the form that their issuer gives them, or by the words before them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from tunectl.privacy.resources import PiiResources
from tunectl.privacy.spans import PiiSpan

# Forms that issuers publish, mostly for scanners like this one.
_ISSUED = re.compile(
    r"(?<![A-Za-z0-9])(?:"
    r"A(?:KIA|SIA|GPA|IDA|ROA|NPA|NVA)[A-Z0-9]{16}(?![A-Za-z0-9])"  # Amazon
    r"|gh[oprsu]_[A-Za-z0-9]{36,255}|github_pat_[A-Za-z0-9_]{22,255}|glpat-[\w\-]{20,64}"
    r"|xox[abeoprs]-[A-Za-z0-9\-]{10,255}|(?:sk|rk|pk)_(?:live|test)_[A-Za-z0-9]{16,255}|whsec_[A-Za-z0-9+/=]{16,255}"
    r"|sk-[A-Za-z0-9_\-]{20,255}"  # OpenAI, Anthropic and those that copy them
    r"|AIza[\w\-]{35}|ya29\.[\w\-]{20,255}|GOCSPX-[\w\-]{20,64}"  # Google
    r"|hf_[A-Za-z0-9]{30,64}|npm_[A-Za-z0-9]{36}|pypi-[\w\-]{16,255}|dop_v1_[a-f0-9]{64}|SG\.[\w\-]{16,64}\.[\w\-]{16,64}"
    r"|tk-[\w\-]{20,64}"  # of this server
    r"|(?<![\w\-])eyJ[\w\-]{8,4096}\.[\w\-]{8,4096}\.[\w\-]{8,4096}"  # JSON Web Token
    r")"
)
_SCHEME = re.compile(r"\b(?:Bearer|Basic|Token|ApiKey)[ \t]{1,4}([A-Za-z0-9._~+/\-]{12,4096}={0,2})", re.IGNORECASE)
_ASSIGNED = re.compile(
    r"(?:secret|token|api[_\- ]?key|access[_\-]?key|account[_\-]?key|private[_\-]?key|passw(?:or)?d|passphrase|pwd|credential)s?"
    r"(?:[_\-]\w{1,20}){0,2}[\"']?\s{0,3}(?:[:=]|\bis\b)\s{0,3}[\"']?([^\s\"'<>\[\](){},;&\\]{6,512})",
    re.IGNORECASE,
)
_BEGIN, _END, _DASHES = "-----BEGIN ", "-----END ", "-----"
_LONGEST_HEAD: Final = 64
"""Most letters of the first line of a private key."""


def find_secrets(text: str, tools: PiiResources) -> Iterator[PiiSpan]:  # noqa: ARG001 one signature for all finders
    """Yield keys of clouds and services, bearer tokens, private keys, and the value after a word such as *password*.

    After a word a value counts when it has both letters and digits: *password: required* contains none.
    """
    yield from _find_private_keys(text)
    for match in _ISSUED.finditer(text):
        if any(map(str.isdigit, match[0])):
            yield PiiSpan("secret", *match.span(), match[0])
    for pattern in (_SCHEME, _ASSIGNED):
        for match in pattern.finditer(text):
            if any(map(str.isdigit, match[1])) and any(map(str.isalpha, match[1])):
                value = match[1].rstrip(".!?")
                yield PiiSpan("secret", match.start(1), match.start(1) + len(value), value)


def _find_private_keys(text: str) -> Iterator[PiiSpan]:
    """Yield private keys in PEM; one without an end extends to the end of the text."""
    start = text.find(_BEGIN)
    while start >= 0:
        head = text.find(_DASHES, start + len(_BEGIN), start + _LONGEST_HEAD)
        if head < 0 or not text.endswith("PRIVATE KEY", start, head):
            start = text.find(_BEGIN, start + 1)
            continue
        foot = text.find(_END, head)
        close = text.find(_DASHES, foot + len(_END), foot + _LONGEST_HEAD) if foot >= 0 else -1
        end = close + len(_DASHES) if close >= 0 else len(text)
        yield PiiSpan("secret", start, end, text[start:end])
        start = text.find(_BEGIN, end)
