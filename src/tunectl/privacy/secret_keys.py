"""Find keys, tokens and passwords: by the form that their issuer gives them, or by the words before them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import chain
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
# By what stands in every key of an issuer; a text without it is not searched for the key.
_BY_MARK: Final = {
    "xapp-": r"(?<!\w)xapp-\d-[A-Za-z0-9\-]{10,255}",  # Slack
    "hooks.slack.com/": r"hooks\.slack\.com/(?:services|workflows|triggers)/[\w/\-]{16,255}",
    "/api/webhooks/": r"discord(?:app)?\.com/api/webhooks/\d{15,22}/[\w\-]{30,128}",
    ":AA": r"(?<!\d)\d{8,10}:AA[\w\-]{32,34}(?![\w\-])",  # Telegram
    "key-": r"(?<!\w)key-[0-9a-f]{32}(?!\w)",  # Mailgun
    "-us": r"(?<!\w)[0-9a-f]{32}-us\d{1,2}(?!\w)",  # Mailchimp
    "shp": r"(?<!\w)shp(?:at|ca|pa|ss)_[0-9a-fA-F]{32}",  # Shopify
    "sq0": r"(?<!\w)sq0(?:atp|csp|idp)-[\w\-]{20,64}",  # Square
    "EAA": r"(?<![A-Za-z0-9])EAA[A-Za-z0-9]{20,255}",  # Square, Facebook
    "dckr_pat_": r"dckr_pat_[\w\-]{20,64}",
    "dapi": r"(?<!\w)dapi[0-9a-f]{32}(?:-\d)?",  # Databricks
    "_v1_": r"(?<!\w)do[oprt]_v1_[a-f0-9]{64}",  # DigitalOcean
    ".atlasv1.": r"(?<!\w)[A-Za-z0-9]{14}\.atlasv1\.[\w\-]{60,80}",  # Terraform
    "hv": r"(?<!\w)hv[sbr]\.[\w\-]{24,255}",  # Vault
    "s.": r"(?<![\w.])s\.[A-Za-z0-9]{24}(?![\w.])",  # Vault, before 1.10
    "gl": r"(?<!\w)(?:glsa_[A-Za-z0-9]{32}[_\-][0-9a-f]{8}|glc_[A-Za-z0-9+/=]{32,400}"  # Grafana
    r"|gl(?:rt|dt|ptt|cbt|soat|ft|imt|agent|oas)-[\w\-]{20,64})",  # GitLab
    "GR1348941": r"GR1348941[\w\-]{20,40}",
    "NR": r"(?<!\w)NR(?:AK|JS|II|IQ|RA)-[A-Za-z0-9\-]{19,64}",  # New Relic
    "HRKU-": r"HRKU-[\w\-]{30,80}",  # Heroku
    "lin_": r"(?<!\w)lin_(?:api|oauth)_[A-Za-z0-9]{40,64}",  # Linear
    "ntn_": r"(?<!\w)ntn_[A-Za-z0-9]{40,64}",  # Notion
    "secret_": r"(?<!\w)secret_[A-Za-z0-9]{43,50}",
    "pat": r"(?<!\w)pat[A-Za-z0-9]{14,17}\.[a-f0-9]{64}",  # Airtable
    "AT": r"(?<!\w)(?:ATATT|ATCTT)[\w\-=]{50,255}|(?<!\w)ATBB[A-Za-z0-9]{28,40}",  # Atlassian
    "PMAK-": r"PMAK-[a-f0-9]{24}-[a-f0-9]{34}",  # Postman
    "sbp_": r"(?<!\w)sbp_[a-f0-9]{40}",  # Supabase
    "pscale_": r"pscale_(?:tkn|pw|oauth)_[\w\-.=]{32,64}",  # PlanetScale
    "gsk_": r"(?<!\w)gsk_[A-Za-z0-9]{40,64}",  # Groq
    "r8_": r"(?<!\w)r8_[A-Za-z0-9]{30,40}",  # Replicate
    "pplx-": r"(?<!\w)pplx-[A-Za-z0-9]{40,64}",
    "xai-": r"(?<!\w)xai-[A-Za-z0-9]{30,90}",
    "fo1_": r"(?<!\w)fo1_[\w\-]{40,64}",  # Fly
    "LTAI": r"(?<!\w)LTAI[A-Za-z0-9]{12,24}",  # Alibaba
    "AKID": r"(?<!\w)AKID[A-Za-z0-9]{13,40}",  # Tencent
    "AQVN": r"(?<!\w)AQVN[\w\-]{30,40}",  # Yandex
    "AGE-SECRET-KEY-": r"AGE-SECRET-KEY-1[A-Z0-9]{50,64}",
    "ops_eyJ": r"ops_eyJ[\w\-+/=]{40,4096}",  # 1Password
    "rubygems_": r"rubygems_[a-f0-9]{48}",
    "cio": r"(?<!\w)cio[A-Za-z0-9]{32,40}(?!\w)",  # crates.io
    "oy2": r"(?<!\w)oy2[a-z0-9]{43,50}(?!\w)",  # NuGet
    "1//0": r"(?<!\w)1//0[\w\-]{40,255}",  # Google
    "v1.0-": r"(?<!\w)v1\.0-[a-f0-9]{24}-[a-f0-9]{140,150}",  # Cloudflare
    "SK": r"(?<!\w)SK[0-9a-f]{32}(?!\w)",  # Twilio
    "AC": r"(?<!\w)AC[0-9a-f]{32}(?!\w)",
}
_BITCOIN = re.compile(r"(?<![A-Za-z0-9])[5KL][1-9A-HJ-NP-Za-km-z]{50,51}(?![A-Za-z0-9])")
_AMAZON = re.compile(r"(?<![A-Za-z0-9/+=])[A-Za-z0-9/+]{40,44}(?![A-Za-z0-9/+=])")
_SCHEME = re.compile(
    r"(authorization[\"']?\s{0,3}[:=]\s{0,3}[\"']?)?\b(Bearer|Basic|Token|ApiKey)[ \t]{1,4}([A-Za-z0-9._~+/\-]{12,4096}={0,2})",
    re.IGNORECASE,
)
_WORDS: Final = (
    r"secret|token|api[_\- ]?key|access[_\-]?key|account[_\-]?key|private[_\-]?key|auth[_\-]?key|passw(?:or)?d|passphrase|pwd|credential|"
    r"passwort|kennwort|mot[ _]de[ _]passe|contrase[ñn]a|senha|wachtwoord"
)
_BEGINNINGS: Final = (
    *(
        "secret",
        "token",
        "key",
        "pass",
        "pwd",
        "credential",
        "kennwort",
        "mot de",
        "mot_de",
        "contrase",
        "senha",
        "wachtwoord",
    ),
    *("cookie", "curl", "mysql"),
)
"""A text with none of these has no secret behind a word."""
_ASSIGNED = re.compile(
    rf"(?:{_WORDS})s?(?:[_\-]\w{{1,20}}){{0,2}}[\"']?\s{{0,3}}(?:=>|[:=]|\b(?:is|ist|es|est)\b)\s{{0,3}}(?:<(?:b|code|em|i|kbd|strong|tt)>)?"
    r"(?:\"([^\"\n]{4,512})\"|'([^'\n]{4,512})'|[\"']?([^\s\"'<>\[\](){},;&\\]{6,512}))",
    re.IGNORECASE,
)
# | password | x | of Markdown, <password>x</password>, <add key="password" value="x"/>, --password x, login ada password x (.netrc), -u ada:x
_WRITTEN_ELSEWHERE = re.compile(
    rf"\|[ \t]{{0,20}}(?:{_WORDS})[ \t]{{0,40}}\|[ \t]{{0,20}}`?([^\s|`]{{8,512}})"
    rf"|<(?:\w{{1,20}}:)?(?:{_WORDS})>([^<>\s]{{4,512}})<"
    rf"|[\"'](?:{_WORDS})[\"']\s{{1,3}}value\s{{0,2}}=\s{{0,2}}[\"']([^\"'\s]{{4,512}})[\"']"
    rf"|(?<!\w)--(?:{_WORDS})[ =][\"']?([^\s\"']{{4,512}})"
    r"|\blogin\s{1,3}\S{1,64}\s{1,8}password\s{1,3}(\S{4,512})"
    r"|\bcurl\b[^\n]{0,200}?\s(?:-u|--user)\s{1,2}[\"']?[^\s:\"']{1,64}:([^\s\"']{4,512})"
    r"|\bmysql\w{0,10}\b[^\n]{0,200}?\s-p([^\s\"']{4,512})"
    r"|\bsshpass\s{1,2}-p\s{0,2}[\"']?([^\s\"']{4,512})"
    r"|\b(?:set-)?cookie:\s{0,3}[\w\-]{1,64}=([^\s;\"',]{12,4096})",
    re.IGNORECASE,
)
_PHRASE = re.compile(
    r"[A-Za-z][a-z]{1,11}(?:-[a-z]{2,12}){0,6}-(?:of|the|and|or|to|in|for|on|by|with|at|as|per)(?:-[a-z]{2,12}){1,6}"
)
"""Words of prose joined by hyphens; without such a small word among them they may be a passphrase."""
_NOUN = re.compile(r"[A-Za-z][a-z]{3,16}(?:tion|sion|ing|ment|ness|ity|ance|ence|ism|ics)s?(?:19|20)\d\d")
"""An abstract noun with a year behind it: Token classification2024."""
_PROSE_WORD: Final = r"(?:[A-Z]?[a-z]{2,20}(?:[A-Z][a-z]{2,20}){0,2}|[A-Z]{1,8})(?:-[a-z]{2,20}){0,2}"
_ALTERNATIVES = re.compile(rf"{_PROSE_WORD}(?:/{_PROSE_WORD}){{1,8}}")
"""Words of prose joined by slashes, without digits: basic Python/JavaScript/SQL."""
_STATEMENT = re.compile(
    r"(?:secret|token)s?\s{1,3}is\s{1,3}(?:version|revision|release|draft|step|stage|phase|round|level|part|chapter|section|number"
    r"|page|option)\d{1,2}",
    re.IGNORECASE,
)
"""The secret is version2 of the recipe; any other word with a digit may be a password."""
_LONGEST_WORD = re.compile(r"[a-z]{8}")
_MAX_SLASHES: Final = 2
"""A random key has seldom more; a path has."""
_PUTTY = re.compile(r"(?<=Private-Lines:)[ \t]{0,4}\d{1,4}\s")
_BEGIN, _END, _DASHES = "-----BEGIN ", "-----END ", "-----"
_LONG_TOKEN: Final = 20
"""Letters of a token behind Bearer or Basic that counts without a digit."""
_LONGEST_HEAD: Final = 64
"""Most letters of the first line of a private key."""


def find_secrets(text: str, tools: PiiResources) -> Iterator[PiiSpan]:  # noqa: ARG001 one signature for all finders
    """Yield keys of clouds and services, bearer tokens, private keys, and the value after a word such as *password*.

    After a word a value counts when it has both letters and digits: *password: required* contains none.
    """
    yield from _find_private_keys(text)
    for match in chain(_ISSUED.finditer(text), _BITCOIN.finditer(text), find_marked_keys(text)):
        if any(map(str.isdigit, match[0])):
            yield PiiSpan("secret", *match.span(), match[0])
    for match in _AMAZON.finditer(text):
        if _is_random(match[0]):
            yield PiiSpan("secret", *match.span(), match[0])
    lowered = text.casefold()
    named = [_ASSIGNED, _WRITTEN_ELSEWHERE] if any(word in lowered for word in _BEGINNINGS) else []
    for match in chain.from_iterable(pattern.finditer(text) for pattern in (*named, _SCHEME)):
        group = match.lastindex or 0
        value, start = match[group].rstrip(".!?"), match.start(group)
        mixed = any(map(str.isdigit, value)) and any(map(str.isalpha, value))
        if match.re is _SCHEME and _is_prose(match, value):
            continue
        if match.re is _ASSIGNED and _STATEMENT.fullmatch(match[0].rstrip(".!?")):
            continue
        if mixed or (match.re is _SCHEME and len(value) >= _LONG_TOKEN):
            yield PiiSpan("secret", start, start + len(value), value)


def _is_prose(match: re.Match[str], value: str) -> bool:
    """Say whether ``value`` behind the word Bearer, Basic or Token is part of a sentence; in a header or in quotes it is none."""
    scheme = match[2].casefold()
    if match[1] or scheme == "apikey" or match.string[match.end() : match.end() + 1] in {'"', "'", "`", "\\"}:
        return False
    if _PHRASE.fullmatch(value):
        return True
    return scheme != "bearer" and bool(_NOUN.fullmatch(value) or _ALTERNATIVES.fullmatch(value))


def find_marked_keys(text: str) -> Iterator[re.Match[str]]:
    """Yield keys of issuers whose keys contain a fixed string; the pattern is matched only where that string is in ``text``, for speed."""
    for mark, pattern in _BY_MARK.items():
        if mark in text:
            yield from re.finditer(pattern, text)


def _is_random(text: str) -> bool:
    """Say whether a text looks like a secret access key of Amazon: letters of both cases, digits and signs, few of them twice.

    A path has more slashes, or whole words.
    """
    signs, digits = any(sign in text for sign in "/+"), sum(map(str.isdigit, text))
    return (
        signs
        and digits >= 1
        and any(map(str.islower, text))
        and any(map(str.isupper, text))
        and len(set(text)) >= 20
        and text.count("/") <= _MAX_SLASHES
        and not _LONGEST_WORD.search(text)
    )


def _find_private_keys(text: str) -> Iterator[PiiSpan]:
    """Yield private keys in PEM; one without an end extends to the end of the text."""
    start = text.find(_BEGIN)
    while start >= 0:
        head = text.find(_DASHES, start + len(_BEGIN), start + _LONGEST_HEAD)
        if head < 0 or not text.endswith(("PRIVATE KEY", "PRIVATE KEY BLOCK"), start, head):
            start = text.find(_BEGIN, start + 1)
            continue
        foot = text.find(_END, head)
        close = text.find(_DASHES, foot + len(_END), foot + _LONGEST_HEAD) if foot >= 0 else -1
        end = close + len(_DASHES) if close >= 0 else len(text)
        yield PiiSpan("secret", start, end, text[start:end])
        start = text.find(_BEGIN, end)
    end = 0
    for match in _PUTTY.finditer(text):
        if match.start() >= end:
            close = text.find("Private-MAC:", match.end())
            end = close if close >= 0 else len(text)
            yield PiiSpan("secret", match.end(), end, text[match.end() : end])
