"""Find personal data with a fixed form: e-mail and IP addresses, cards, accounts, phones, passwords in URLs.

Each finder starts with a pattern that fails fast; where a checksum or registry exists, it decides. A finder yields
``PiiSpan`` values in reading order.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator

from tunectl.core.url_credentials import CREDENTIAL_KEYS, LONG_CREDENTIAL_KEYS
from tunectl.privacy.resources import PiiResources
from tunectl.privacy.spans import PiiSpan

_URL = re.compile(
    r"\b(?:https?|ftp|ssh|postgres(?:ql)?|mysql|mongodb(?:\+srv)?|redis|amqp):(?:\\?/){2}(?:[^\s<>\"'\\?]|\\/)+"
    r"|\bwww\.(?:[^\s<>\"'\\?]|\\/)+",
    re.IGNORECASE,
)
_SLASHES = re.compile(r":(?:\\?/){2}")  # PHP writes slashes in JSON as \/
_LOGIN = re.compile(r"://([^\s/@:<>\"']*:[^\s/?#<>\"']+)@")
# Addresses of databases have no path before the host, so a slash there belongs to the password.
_DATABASE_LOGIN = re.compile(
    r"\b(?:postgres(?:ql)?|mysql|mariadb|mongodb(?:\+srv)?|rediss?|amqps?|mssql|oracle|clickhouse|kafka):(?:\\?/){2}"
    r"([^\s/@:<>\"']{0,64}:[^\s@<>\"']{1,256})@",
    re.IGNORECASE,
)
_TOKEN = re.compile(
    rf"[?&;](?:{CREDENTIAL_KEYS})=([^\s&#<>\"']{{4,}})|[?&;](?:{LONG_CREDENTIAL_KEYS})=([^\s&#<>\"']{{16,}})",
    re.IGNORECASE,
)
_EMAIL = re.compile(
    r"(?:(?<![\w.%+\-])(?<!//)[\w.%+'\-]{1,255}|\"[^\W_][\w .+\-]{0,62}\")(?:[*`\\]{0,3}@[*`]{0,3}|\s?[\[(]\s?at\s?[\])]\s?)"
    r"(?:[\w\-]{1,63}(?:\.|\s?[\[(]\s?dot\s?[\])]\s?))+[^\W\d_]{2,24}(?![^\W_])",
    re.IGNORECASE,
)
_MARKS = re.compile(r"[*`\\]")  # emphasis and escapes of Markdown around the sign
_AT = re.compile(r"\s?[\[(]\s?at\s?[\])]\s?", re.IGNORECASE)
_DOT = re.compile(r"\s?[\[(]\s?dot\s?[\])]\s?", re.IGNORECASE)
# An image for screens of several times as many pixels: icon@2x.png, logo@1.5x.8f3ab2.webp
_SCALED_IMAGE = re.compile(r"@\d(?:\.\d)?x\.(?:[\w\-]{1,63}\.)?(?:png|jpe?g|webp|gif|svg|avif)\Z")
# With blanks around the sign, as ``ada @ example.org``; not ``thanks @example.org``, which names an account.
_SPACED_EMAIL = re.compile(
    r"(?<![\w.%+\-@/'])([\w%+'\-]{1,64}(?:\.[\w%+'\-]{1,64}){0,4})[ \t]{0,2}@[ \t]{1,2}(?:[\w\-]{1,63}\.){1,4}([^\W\d_]{2,24})(?![\w\-]|[.@]\w)"
)
# In words, as ``ada at example dot org``.
_SPELLED_EMAIL = re.compile(
    r"(?<![\w.%+\-@/'])(\w[\w+\-]{0,63}(?:(?:\.| dot )[\w+\-]{1,64}){0,3}) {1,2}at {1,2}([\w\-]{1,63}(?: {1,2}dot {1,2}[\w\-]{1,63}){0,3}) {1,2}dot {1,2}"
    r"(?:com|org|net|edu|gov|info|biz|io|ai|app|dev|eu|uk|us|ca|au|nz|ie|in|de|at|ch|fr|be|nl|es|pt|it|se|no|dk|fi|pl|cz|mx|br|ar|jp)(?![\w\-])",
    re.IGNORECASE,
)
_MAIL_WORD = re.compile(
    r"mail|writ|contact|reach|address|send|message|repl(?:y|ies)|schreib|kontakt|adress|courriel|correo|escr[ií]b",
    re.IGNORECASE,
)
_MAIL_HOST = re.compile(
    r"(?:gmail|googlemail|yahoo|hotmail|outlook|icloud|proton(?:mail)?|gmx|aol)(?![\w\-])", re.IGNORECASE
)
_NO_MAILBOX = re.compile(
    r"a|all|and|any|are|as|available|be|blog|book|browse|but|buy|by|call|check|click|come|down|find|follow|for|found|free|from|get|go|going|her?e?|him|i|in|is"
    r"|its?|join|just|know|learn|listed|live|look|looking|me|meet|more|my|now|off?|online|only|or|order|our|out|over|play|posted|price|read|register|sale|see|seen"
    r"|she|shop|sign|site|sold|store|that|the|them|there|they|this|today|tomorrow|tonight|up|us|visit|was|watch|we|website|were|with|work|working|works|your?",
    re.IGNORECASE,
)
"""Words before ``at`` and ``@`` that name a place on the web and no mailbox: find us @ example.org."""
_SIGNS = {"at": "@", "dot": "."}
_GAP = r"(?:[\s\-./+,|:]|\s[\s\-+]|\s-\s)"
_IBAN = re.compile(r"(?<![A-Z0-9])[A-Z]{2}\s?\d{2}(?:(?:[\s\-./+|:_]|\s\s)?[A-Z0-9]){11,30}(?![A-Z0-9])", re.IGNORECASE)
_CARD = re.compile(
    rf"(?<![\w.\-])((?:\d[ \-]?){{12,18}}\d|\d{{4}}(?:{_GAP}\d{{4}}){{3}}(?:{_GAP}\d{{3}})?|\d{{4}}{_GAP}\d{{6}}{_GAP}\d{{4,5}})"
    r"(?:\.0{1,2}(?!\d))?(?![\w\-]|\.\d)"
)
# Visa; Mastercard; American Express; Discover; Diners; JCB; Maestro; UnionPay; Mir; RuPay: first digits and lengths.
_ISSUER = re.compile(
    r"(?:5018|5020|5038|5893|6304|6759|676[1-3])\d{8,15}|62\d{14,17}|220[0-4]\d{12}|(?:60|8[12])\d{14}|508[5-9]\d{12}|"
    r"4\d{12}(?:\d{3}(?:\d{3})?)?|5[1-5]\d{14}|2(?:2[2-9]|[3-6]\d|7[01]|720)\d{12,13}|3[47]\d{13}|6(?:011|4[4-9]\d|5\d\d)\d{12}|3(?:0[0-5]|[68]\d)\d{11}|35\d{14}"
)
_SSN = re.compile(
    r"(?<![\w\-])(\d{3}-\d{2}-\d{4})(?![\w\-])"
    r"|\b(?:ssn|social[ _-]security(?:[ _-](?:number|no\.?))?)[\"']?\s{0,3}(?:[:=#]|\bis\b)?\s{0,3}[\"']?"
    r"(\d{3}[ \-./]?\d{2}[ \-./]?\d{4})(?!\w)",
    re.IGNORECASE,
)
_IPV4 = re.compile(r"(?<![\w.\-])(?:\d{1,3}\.){3}\d{1,3}(?![\w\-]|\.\d)")
# Also as code and settings write it: Version=, "version": ", newVersion=", <FileVersion>, Version(". Not: conversion.
_VERSION = re.compile(
    r"(?:(?:\bv|\bver\.?|\bversions?|\brelease|\bbuild|\bfirmware|\bsection|§)[ :]*"
    r"|(?:(?<![a-z])version|(?-i:(?<=[a-z0-9])Version))s?[\"'`]?\s{0,3}[:=<>~^!(]{0,3}\s{0,3}[\"'`]?)$",
    re.IGNORECASE,
)
_IPV6 = re.compile(r"(?<![\w:.])(?:[0-9a-f]{0,4}:){2,7}[0-9a-f]{0,4}(?![\w:])", re.IGNORECASE)
_NANP = re.compile(
    r"(?<![\w.,$€£\-/])(?:(?:\+?1|001)[ .\-]?)?(?:\(\d{3}\)[ .\-]?|\d{3}[ .\-])\d{3}[ .\-]\d{4}(?:\s?(?:x|ext\.?)\s?\d{1,5})?(?![\w\-]|[.,]\d)",
    re.IGNORECASE,
)
_WORDS = (
    "call|phone|tel|telephone|mobile|cell|text|ring|fax|dial|whatsapp|telefon|handy|mobil|anrufen|ruf|tél|téléphone|appelez|"
    "teléfono|móvil|llame|llama|llámanos|telefono|cellulare|telefoon|ligue"
)
_LOCAL = re.compile(rf"\b(?:{_WORDS})\b[^\d\n]{{0,15}}(\d{{3}}[ .\-]\d{{4}})(?![\w\-]|[ .,]\d)", re.IGNORECASE)
# As it is dialed inside most other countries: a 0, then 8 to 11 digits in groups.
_TRUNK = re.compile(
    rf"\b(?:{_WORDS})\b[^\d\n(]{{0,15}}(\(?0(?:[ .\-/()]{{0,2}}\d){{8,11}})(?![\w\-]|[ .,]\d)", re.IGNORECASE
)
# Links that dial: numbers there are people's, though they stand in a URL.
_LINKED = re.compile(
    r"(?:\bwa\.me/|\b(?:t\.me/|signal\.me/\#p/)(?=\+)|\bviber://chat\?number=|\b(?:tel|sms|callto|facetime|whatsapp|skype):(?://)?|[?&;](?:phone|tel|telephone|mobile|cell|msisdn|fax)=)"
    r"(\+?\(?\d(?:[ .\-()]{0,2}\d){6,14})(?!\w)",
    re.IGNORECASE,
)
_PHONE_WORD = re.compile(rf"\b(?:{_WORDS}|sms|number)\b\W*(?:\w+\W+){{0,3}}$", re.IGNORECASE)
_SEVEN_DIGITS = re.compile(r"\d(?:[^\w\n]{0,3}\d){6}")


def find_url_credentials(text: str, tools: PiiResources) -> Iterator[PiiSpan]:  # noqa: ARG001 one signature for all finders
    """Yield login and password, or a token, inside a URL; the rest of the URL is kept."""
    if "=" not in text and "://" not in text:
        return
    for pattern in (_DATABASE_LOGIN, _LOGIN, _TOKEN):
        for match in pattern.finditer(text):
            yield PiiSpan("url_credentials", *match.span(match.lastindex or 0), match[match.lastindex or 0])


def find_emails(text: str, tools: PiiResources) -> Iterator[PiiSpan]:  # noqa: ARG001
    """Yield e-mail addresses, also with (at) and (dot), with blanks around ``@``, or spelled out (``ann at mail dot org``) if unambiguous."""
    if "@" in text or _AT.search(text):
        for match in _EMAIL.finditer(text):
            value = _DOT.sub(".", _AT.sub("@", _MARKS.sub("", match[0]))).casefold()
            if not _SCALED_IMAGE.search(value):
                yield PiiSpan("email", *match.span(), value)
    if "@ " in text or "@\t" in text:
        for match in _SPACED_EMAIL.finditer(text):
            # A title is the next sentence: the cafe @ home.It was
            if _names_mailbox(match[1]) and not match[2].istitle():
                yield PiiSpan("email", *match.span(), "".join(match[0].split()).casefold())
    if " dot " in text.casefold():
        for match in _SPELLED_EMAIL.finditer(text):
            if _names_mailbox(match[1]) and _is_clear_address(text, match):
                value = "".join(_SIGNS.get(word, word) for word in match[0].casefold().split())
                yield PiiSpan("email", *match.span(), value)


def _names_mailbox(name: str) -> bool:
    return _NO_MAILBOX.fullmatch(name) is None and any(map(str.isalpha, name))


def _is_clear_address(text: str, match: re.Match[str]) -> bool:
    """Return whether ``NAME at HOST dot org`` is an address: people also work at such a place, and look at it."""
    start, end = match.span()
    line = text[max(0, start - 60) : start].rpartition("\n")[2] + text[end : end + 60].partition("\n")[0]
    return (
        not match[1].isalpha()
        or _MAIL_HOST.match(match[2]) is not None
        or _MAIL_WORD.search(text[max(0, start - 60) : start]) is not None
        or not any(map(str.isalnum, line))
    )


def find_ibans(text: str, tools: PiiResources) -> Iterator[PiiSpan]:
    """Yield bank accounts with the form of their country and a valid checksum; words after them are not masked."""
    end = 0
    while match := _IBAN.search(text, end):
        run, end = match[0], match.end()
        while len(run) >= 15:
            account = re.sub(r"[\s\-./+|:_]", "", run)
            if tools.iban(account):
                end = match.start() + len(run)  # the pattern may have run into the next account
                yield PiiSpan("iban", match.start(), end, account.upper())
                break
            run = run[:-1].rstrip(" \t\n\r-./+|:_")


def find_card_numbers(text: str, tools: PiiResources) -> Iterator[PiiSpan]:
    """Yield payment card numbers: digits with an issuer's prefix and length, and a valid check digit; also those ending in ``.0``.

    A number with commas, bars or colons inside that also has one of these beside it is skipped, as part of a longer list of numbers.
    """
    for match in _CARD.finditer(text):
        digits, (start, end) = re.sub(r"\D", "", match[1]), match.span()
        before, after = text[max(0, start - 2) : start], text[end : end + 2]
        beside = {sign for sign, digit in ((before[-1:], before[:-1]), (after[:1], after[1:])) if digit.isdigit()}
        if before.endswith(","):
            beside.add(",")
        if (
            not any(sign in match[1] for sign in beside.intersection(",|:"))
            and _ISSUER.fullmatch(digits)
            and tools.card(digits)
        ):
            yield PiiSpan("card", *match.span(), digits)


def find_ssns(text: str, tools: PiiResources) -> Iterator[PiiSpan]:
    """Yield social security numbers of the United States."""
    for match in _SSN.finditer(text):
        digits = re.sub(r"\D", "", match[match.lastindex or 0])
        if tools.ssn(f"{digits[:3]}-{digits[3:5]}-{digits[5:]}"):
            yield PiiSpan("ssn", *match.span(match.lastindex or 0), digits)


def find_ip_addresses(text: str, tools: PiiResources) -> Iterator[PiiSpan]:  # noqa: ARG001
    """Yield IP addresses, except this machine's own (loopback); a version number after the word *version* is not masked."""
    if text.count(".") >= 3:
        for match in _IPV4.finditer(text):
            if _public(match[0]) and not _VERSION.search(text[max(0, match.start() - 24) : match.start()]):
                yield PiiSpan("ip", *match.span(), match[0])
    if text.count(":") >= 2:
        for match in _IPV6.finditer(text):
            if sum(map(str.isalnum, match[0])) >= 4 and _public(match[0]):
                yield PiiSpan("ip", *match.span(), ipaddress.ip_address(match[0]).compressed)


def _public(text: str) -> bool:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    return not (address.is_loopback or address.is_unspecified)


def find_phone_numbers(text: str, tools: PiiResources) -> Iterator[PiiSpan]:
    """Yield phone numbers: written like one of North America, or valid in a declared country, or after a word such as *call*.

    Such words are known in seven languages; a number after one may lack the area code, as in North America, or begin with a
    0, as elsewhere. Bare digits count only after such a word: order numbers look the same.
    """
    if not _SEVEN_DIGITS.search(text):
        return
    spans = [match.span() for match in _NANP.finditer(text)]
    spans += [match.span(1) for pattern in (_LOCAL, _TRUNK) for match in pattern.finditer(text)]
    library = (_without_bracket(text, *span) for span in tools.phones(text))
    spans += [span for span in library if _looks_dialed(text, *span)]
    end = 0
    for start, stop in sorted(spans, key=lambda span: (span[0], -span[1])):
        if start >= end:
            end = stop
            yield PiiSpan("phone", start, stop, _digits(text[start:stop]))


def find_linked_phones(text: str, tools: PiiResources) -> Iterator[PiiSpan]:  # noqa: ARG001
    """Yield numbers in links that dial or open a chat, such as ``tel:`` and ``wa.me/``, and in parameters named after phones."""
    for match in _LINKED.finditer(text):
        yield PiiSpan("phone", *match.span(1), _digits(match[1]))


def _digits(phone: str) -> str:
    """Return the digits of a number, without its extension and the country code of North America."""
    digits = re.sub(r"\D", "", re.split(r"x|ext", phone, maxsplit=1, flags=re.IGNORECASE)[0])
    return re.sub(r"^(?:00)?1(?=\d{10}$)", "", digits)


def _without_bracket(text: str, start: int, end: int) -> tuple[int, int]:
    """Return the span without an opening bracket that is not part of the number: the library includes it, also that of a list."""
    return (start + 1, end) if text[start] == "[" and "]" not in text[start:end] else (start, end)


def _looks_dialed(text: str, start: int, end: int) -> bool:
    raw = text[start:end]
    return not raw.isdigit() or bool(_PHONE_WORD.search(text[max(0, start - 40) : start]))


def find_urls(text: str) -> list[tuple[int, int]]:
    """Return the spans of URLs, up to their parameters: numbers and names in a path belong to a machine, not to a person."""
    if "www." not in text.casefold() and not _SLASHES.search(text):
        return []
    return [match.span() for match in _URL.finditer(text)]
