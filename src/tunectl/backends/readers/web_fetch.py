"""httpx and protego: fetch web pages politely.

robots.txt is obeyed (RFC 9309: where it cannot be read nothing is fetched, a missing one allows all), one host gets one
request at a time with a pause between them, an unchanged page comes from the cache (conditional requests), and a
busy server is not asked again for as long as it says. Connections are those of ``web_connection``: to public addresses,
for a limited time.
"""

from __future__ import annotations

import re
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import msgspec
from msgspec import Struct

from tunectl.artifacts import atomic_io
from tunectl.artifacts.records import RejectedRow, Source
from tunectl.backends.readers.web_connection import CheckedBackend, CheckedTransport, Deadline, FetchRefusedError
from tunectl.config.schema.ingest import Fetch
from tunectl.core import logging_setup
from tunectl.core.optional import import_optional
from tunectl.data.readers.file_discovery import SourceFile, file_type
from tunectl.data.readers.text_reader import usable_charset

BUSY = frozenset({429, 500, 502, 503, 504})
MOVED = frozenset({301, 302, 303, 307, 308})
HOPS = 5
"""Largest number of redirects of one address."""
MAX_WAIT_SECONDS = 120.0
"""Longest wait in seconds that a server may ask for; a longer one is a reject."""
CRAWL_DELAY_SECONDS = 60.0
"""Longest pause in seconds that a robots.txt may ask for, unless ``fetch.delay_seconds`` is longer; a longer one is a reject."""
DEADLINE_FACTOR = 3.0
"""A whole response may take this many times ``fetch.timeout_seconds``, which is for one read."""
ROBOTS_BYTES = 512_000
"""Bytes of a robots.txt that are read; RFC 9309 asks for at least 500 KiB."""
PLAIN = frozenset({"", "identity"})
ENCODINGS = PLAIN | {"gzip", "x-gzip", "deflate"}
"""Content encodings that are unpacked: one layer of zlib's."""
CONTENT_TYPES = {
    "text/html": "html",
    "application/xhtml+xml": "html",
    "application/pdf": "pdf",
    "text/plain": "text",
    "text/markdown": "markdown",
    "text/csv": "csv",
    "text/tab-separated-values": "tsv",
    "application/json": "json",
    "application/x-ndjson": "jsonl",
    "application/jsonl": "jsonl",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": "docx",
}
_AGENT = re.compile(r"\s*user(?:-|\s*)agent(?=[\s:])[\s:]*", re.IGNORECASE)
"""Beginning of a line of robots.txt that names a robot, in all spellings that protego accepts."""
_log = logging_setup.get_logger(__name__)


def parse_robots(text: str, token: str) -> Any:
    """Return protego's rules of a robots.txt for the robot named ``token``.

    All other robots get one name: protego copies each rule for each name of its group, so 512 kB of names and rules took gigabytes.
    """
    lines, token = text.splitlines(), token.lower()
    for number, line in enumerate(lines):
        match = _AGENT.match(line)
        value = line[match.end() :].partition("#")[0].strip().lower() if match else ""
        if value:
            name = value.replace("*", "")  # as protego does
            lines[number] = f"User-agent: {(name or '*') if name in token else f'{token}-other'}"
    return import_optional("protego", extra="data").Protego.parse("\n".join(lines))


class CacheEntry(Struct, frozen=True):
    """Metadata of a cached page: its address, and the response headers that decide how it is decoded and revalidated."""

    url: str
    type: str | None
    charset: str | None = None
    etag: str | None = None
    modified: str | None = None


@dataclass(frozen=True, slots=True)
class FetchResponse:
    """Response of a server: status, headers with lower-case names, and at most the allowed bytes of the body."""

    status: int
    headers: dict[str, str]
    body: bytes


class Fetcher:
    """Fetches pages into a cache folder; one per run, so that pauses and robots.txt are kept per host."""

    def __init__(
        self, manners: Fetch, cache: Path, max_bytes: int, *, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._manners = manners
        self._cache = cache
        self._max_bytes = max_bytes
        self._sleep = sleep
        self._free_at: dict[str, float] = {}
        self._robots: dict[str, Any] = {}
        self._silent: dict[str, FetchRefusedError] = {}
        self._httpx = import_optional("httpx", extra="data")
        self._deadline = Deadline(DEADLINE_FACTOR * manners.timeout_seconds)
        self._client = self._httpx.Client(
            headers={"User-Agent": manners.user_agent, "Accept-Encoding": "gzip"},
            timeout=manners.timeout_seconds,
            follow_redirects=False,
            trust_env=False,  # a proxy from the environment would bypass the check of addresses
            transport=CheckedTransport(
                self._httpx, CheckedBackend(self._deadline, allow_private=manners.allow_private)
            ),
        )

    def __enter__(self) -> Fetcher:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def get(self, url: str) -> SourceFile | RejectedRow:
        """Return the page at ``url`` as a file in the cache, newly fetched or confirmed to be unchanged.

        A RejectedRow has the reason ``robots_disallowed``, ``http_error``, ``unreachable``, ``file_too_big``,
        ``too_many_redirects`` or ``private_address``. If the server cannot be reached or is too slow, a page that was fetched
        before comes from the cache, with a warning.
        """
        try:
            _require_web_address(url)
        except FetchRefusedError as refusal:
            return RejectedRow(Source(_escape(url)), refusal.reason, refusal.detail)
        body = self.cache_path(url)
        note = body.with_suffix(".json")
        entry: CacheEntry | None = None
        if note.is_file() and body.is_file():
            try:
                entry = msgspec.json.decode(note.read_bytes(), type=CacheEntry)
            except atomic_io.NOT_JSON:  # a cache entry may be incomplete after a kill; the page is fetched again
                entry = None
        try:
            final, answer = self._follow(url, entry)
        except FetchRefusedError as refusal:
            if refusal.reason != "unreachable" or entry is None:
                return RejectedRow(Source(url), refusal.reason, refusal.detail)
            _log.warning("%s: %s; the copy fetched before is used", url, refusal.detail)
        else:
            if answer.status != 304 or entry is None:
                entry = _describe(final, answer)
                atomic_io.write_bytes(body, answer.body)
                atomic_io.write_json(note, entry)
        return SourceFile(body, url, entry.type, {"charset": entry.charset} if entry.charset else {})

    def cache_path(self, url: str) -> Path:
        """Return the path of the file in which the cache keeps the page at ``url``; absent if it was not fetched yet."""
        return self._cache / f"{atomic_io.sha256_json(url)}.body"

    def _follow(self, url: str, entry: CacheEntry | None) -> tuple[str, FetchResponse]:
        conditions = {}
        if entry is not None:
            conditions = {"If-None-Match": entry.etag or "", "If-Modified-Since": entry.modified or ""}
        headers = {key: value for key, value in conditions.items() if value}
        address = _require_web_address(url)
        for _ in range(HOPS + 1):
            self._require_allowed(address)
            answer = self._send_with_retries(address, headers)
            if answer.status not in MOVED:
                break
            address = _require_web_address(address, answer.headers.get("location", ""))
        else:
            raise FetchRefusedError("too_many_redirects", f"more than {HOPS} redirects, the last to {address}")
        if answer.status != 200 and not (answer.status == 304 and entry is not None):
            raise FetchRefusedError("http_error", f"HTTP status {answer.status}")
        return address, answer

    def _require_allowed(self, url: str) -> None:
        parts = urlsplit(url)
        origin = f"{parts.scheme}://{parts.netloc}"
        if origin in self._silent:
            raise self._silent[origin]
        if origin not in self._robots:
            try:
                self._robots[origin] = self._read_robots(origin)
            except FetchRefusedError as refusal:
                self._silent[origin] = refusal
                raise
        if not self._robots[origin].can_fetch(url, self._token):
            raise FetchRefusedError("robots_disallowed", f"{origin}/robots.txt does not allow {parts.path or '/'}")

    @property
    def _token(self) -> str:
        """Our name in robots.txt: the first word of the user agent, without its version."""
        return self._manners.user_agent.split()[0].partition("/")[0]

    def _read_robots(self, origin: str) -> Any:
        address = f"{origin}/robots.txt"
        for _ in range(HOPS + 1):
            answer = self._send_with_retries(address, {}, limit=ROBOTS_BYTES)
            if answer.status not in MOVED:
                break
            address = _require_web_address(address, answer.headers.get("location", ""))
        if answer.status >= 500:
            raise FetchRefusedError(
                "unreachable",
                f"{origin}/robots.txt answered with status {answer.status}, so none of its pages may be fetched now; try again later",
            )
        text = answer.body.decode(errors="replace") if answer.status == 200 else ""
        rules = parse_robots(text, self._token)
        delay = float(rules.crawl_delay(self._token) or 0)
        if not delay <= max(
            CRAWL_DELAY_SECONDS, self._manners.delay_seconds
        ):  # with this comparison NaN is refused, too
            raise FetchRefusedError(
                "robots_disallowed",
                f"{origin}/robots.txt asks for a pause of {delay:g} s between pages; the longest accepted is "
                f"{max(CRAWL_DELAY_SECONDS, self._manners.delay_seconds):g} s (fetch.delay_seconds raises it)",
            )
        return rules

    def _send_with_retries(self, url: str, headers: dict[str, str], *, limit: int | None = None) -> FetchResponse:
        """Send a request, and retry where the server is busy or the connection breaks."""
        tries = self._manners.retries + 1
        for attempt in range(tries):
            last = attempt == tries - 1
            try:
                answer = self._ask(url, headers, limit)
            except self._httpx.HTTPError as error:
                if last:
                    raise FetchRefusedError("unreachable", f"{type(error).__name__}: {error}") from error
                self._sleep(min(2.0**attempt, MAX_WAIT_SECONDS))
                continue
            if answer.status not in BUSY or last:
                return answer
            wait = _parse_retry_after(answer)
            if wait is not None and wait > MAX_WAIT_SECONDS:
                raise FetchRefusedError(
                    "http_error",
                    f"HTTP status {answer.status}: the server asks to wait {wait:.0f} s, the longest wait is {MAX_WAIT_SECONDS:.0f} s",
                )
            self._sleep(wait if wait is not None else 2.0**attempt)
        raise AssertionError("the last try returns or raises")

    def _ask(self, url: str, headers: dict[str, str], limit: int | None) -> FetchResponse:
        self._wait_for(url)
        self._deadline.restart()
        most = limit or self._max_bytes
        try:
            with self._client.stream("GET", url, headers=headers) as response:
                named = {key.lower(): value for key, value in response.headers.items()}
                encoding = named.get("content-encoding", "") if response.status_code == 200 else ""
                body = b"".join(_unpack(response.iter_raw(), encoding, most + 1))
                if len(body) > most and limit is None:
                    raise FetchRefusedError(
                        "file_too_big", f"the page has more than {most} bytes (limits.max_file_bytes)"
                    )
                return FetchResponse(response.status_code, named, body[:most])
        except (self._httpx.InvalidURL, UnicodeError) as error:  # httpx reads the address of a redirect, too
            raise FetchRefusedError(
                "http_error",
                f"{url} redirects to a malformed address ({error}); declare the page's final address instead",
            ) from error
        finally:
            self._free_at[urlsplit(url).netloc] = time.monotonic() + self._pause(url)

    def _pause(self, url: str) -> float:
        parts = urlsplit(url)
        rules = self._robots.get(f"{parts.scheme}://{parts.netloc}")
        delay = None if rules is None else rules.crawl_delay(self._token)
        return max(self._manners.delay_seconds, float(delay or 0))

    def _wait_for(self, url: str) -> None:
        wait = self._free_at.get(urlsplit(url).netloc, 0.0) - time.monotonic()
        if wait > 0:
            self._sleep(wait)


def _require_web_address(base: str, location: str | None = None) -> str:
    """Return the address that ``location`` means on the page ``base``; ``base`` itself without one.

    Raises  FetchRefusedError ``http_error`` where it is no web address.
    """
    httpx = import_optional("httpx", extra="data")
    address = base if location is None else location
    try:
        address = urljoin(base, address)
        if urlsplit(address).scheme in {"http", "https"} and httpx.URL(address).host is not None:
            return address
    except (ValueError, httpx.InvalidURL):  # brackets without an IPv6 address, invalid IDNA names, lone surrogates
        pass
    moved, address = location is not None, _escape(address)
    raise FetchRefusedError(
        "http_error",
        f"the page moved to {address}, which is not an http or https address"
        if moved
        else f"{address} is not an http or https address",
    )


def _escape(address: str) -> str:
    """Return an address that can be written down: lone surrogates are no UTF-8."""
    return address.encode(errors="backslashreplace").decode()


def _unpack(chunks: Iterator[bytes], encoding: str, limit: int) -> Iterator[bytes]:
    """Yield the first ``limit`` bytes of a body, unpacked; never more of it is in memory.

    Only the one layer of gzip that is asked for, or of deflate, is taken off: layers multiply.

    Raises  FetchRefusedError ``http_error`` for any other encoding.
    """
    encoding = encoding.strip().lower()
    if encoding not in ENCODINGS:
        raise FetchRefusedError(
            "http_error", f"the Content-Encoding of the page is {encoding[:100]}; only gzip and deflate can be read"
        )
    unpacker = None if encoding in PLAIN else zlib.decompressobj(zlib.MAX_WBITS | 32)  # 32: gzip or zlib header
    for chunk in chunks:
        try:
            part = chunk[:limit] if unpacker is None else unpacker.decompress(chunk, limit)
        except zlib.error as error:
            raise FetchRefusedError("http_error", f"the body of the page is not valid {encoding}: {error}") from error
        yield part
        limit -= len(part)
        if limit == 0 or (
            unpacker is not None and unpacker.eof
        ):  # zlib keeps, and copies, all that comes behind its end
            return


def _describe(url: str, answer: FetchResponse) -> CacheEntry:
    kind, _, rest = answer.headers.get("content-type", "").partition(";")
    label = rest.lower().partition("charset=")[2].partition(";")[0]
    result = CONTENT_TYPES.get(kind.strip().lower()) or file_type(Path(urlsplit(url).path))
    return CacheEntry(
        url,
        result,
        charset=usable_charset(label),
        etag=answer.headers.get("etag"),
        modified=answer.headers.get("last-modified"),
    )


def _parse_retry_after(answer: FetchResponse) -> float | None:
    """Return the seconds of a Retry-After header, which is a number or a date; None without one."""
    value = answer.headers.get("retry-after", "").strip()
    if value.isascii() and value.isdigit():
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time()) if value else None
    except (ValueError, OverflowError):
        return None
