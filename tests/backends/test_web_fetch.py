"""Polite fetching, against a loopback server that writes down every request."""

from __future__ import annotations

import gzip
import itertools
import resource
import threading
import time
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from protego import Protego

from tunectl.artifacts.records import RejectedRow
from tunectl.backends.readers import web_fetch
from tunectl.backends.readers.web_fetch import Fetcher
from tunectl.config.schema.ingest import Fetch

AGENT = "tunectl-test/1.0 (+https://example.org/contact)"


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


class Site:
    """What a server answers: path to a list of (status, headers, body), the last of which stays."""

    def __init__(self):
        self.answers = {"/robots.txt": [(404, {}, b"")]}
        self.requests = []

    def __enter__(self):
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                site.requests.append((self.path, dict(self.headers), time.monotonic()))
                answers = site.answers.get(self.path, [(404, {}, b"")])
                status, headers, body = answers.pop(0) if len(answers) > 1 else answers[0]
                if headers.get("ETag") and self.headers.get("If-None-Match") == headers["ETag"]:
                    status, body = 304, b""
                self.send_response(status)
                for key, value in headers.items():
                    self.send_header(key, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()

    def paths(self):
        return [path for path, _, _ in self.requests]


@pytest.fixture
def site():
    with Site() as running:
        yield running


def fetcher(tmp_path, *, sleeps=None, max_bytes=10_000, delay=0.0, retries=2):
    manners = Fetch(user_agent=AGENT, delay_seconds=delay, timeout_seconds=5.0, retries=retries, allow_private=True)
    sleep = time.sleep if sleeps is None else sleeps.append
    return Fetcher(manners, tmp_path / "cache", max_bytes, sleep=sleep)


HTML = {"Content-Type": "text/html; charset=utf-8"}


def test_a_page_is_fetched_with_our_name_after_robots(tmp_path, site):
    site.answers["/a"] = [(200, HTML, b"<p>hello</p>")]
    with fetcher(tmp_path) as guest:
        found = guest.get(f"{site.url}/a")
    assert (found.name, found.type, found.path.read_bytes()) == (f"{site.url}/a", "html", b"<p>hello</p>")
    assert site.paths() == ["/robots.txt", "/a"]
    assert {headers["User-Agent"] for _, headers, _ in site.requests} == {AGENT}


@pytest.mark.parametrize(
    ("robots", "forbidden"),
    [
        ("User-agent: Tunectl\nDisallow: /a", "/a"),
        ("USER AGENT tunectl # us\nDisallow: /a", "/a"),
        ("useragent: tune*ctl\nDisallow: /a", "/a"),
        ("User-agent: one\nUser-agent: *\nUser-agent: two\nDisallow: /a", "/a"),
        ("User-agent: one\nDisallow: /b\n\nUser-agent: tunectl\nUser-agent: two\nDisallow: /a", "/a"),
        ("User-agent: one\nUser-agent: two\nDisallow: /", None),
        ("User-agent: *\nDisallow: /\n\nUser-agent: tunectl\nDisallow: /a", "/a"),
        ("User-agent:\nDisallow: /a", None),
        ("User-agents: tunectl\nDisallow: /a", None),
    ],
)
def test_rules_for_other_robots_are_one_group_and_ours_are_ours(robots, forbidden):
    rules = web_fetch.parse_robots(robots, "tunectl")
    plain = Protego.parse(robots)
    for path in ("/a", "/b", "/c"):
        allowed = rules.can_fetch(f"http://h{path}", "tunectl")
        assert allowed == plain.can_fetch(f"http://h{path}", "tunectl") == (path != forbidden)


def test_robots_is_obeyed_and_asked_once(tmp_path, site):
    site.answers["/robots.txt"] = [(200, {}, b"User-agent: tunectl-test\nDisallow: /private\n")]
    site.answers["/open"] = [(200, HTML, b"x")]
    with fetcher(tmp_path) as guest:
        refused = guest.get(f"{site.url}/private/a")
        guest.get(f"{site.url}/open")
    assert isinstance(refused, RejectedRow)
    assert (refused.reason, refused.detail) == (
        "robots_disallowed",
        f"{site.url}/robots.txt does not allow /private/a",
    )
    assert site.paths() == ["/robots.txt", "/open"]


def test_robots_out_of_order_means_no_and_is_not_asked_again(tmp_path, site):
    site.answers["/robots.txt"] = [(503, {}, b"")]
    with fetcher(tmp_path, sleeps=[], retries=0) as guest:
        first, second = guest.get(f"{site.url}/a"), guest.get(f"{site.url}/b")
    assert first.reason == second.reason == "unreachable"
    assert (
        first.detail
        == f"{site.url}/robots.txt answered with status 503, so none of its pages may be fetched now; try again later"
    )
    assert site.paths() == ["/robots.txt"]


def test_pause_between_requests_to_one_host(tmp_path, site):
    for path in ("/a", "/b"):
        site.answers[path] = [(200, HTML, b"x")]
    with fetcher(tmp_path, delay=0.15) as guest:
        guest.get(f"{site.url}/a")
        guest.get(f"{site.url}/b")
    times = [at for _, _, at in site.requests]
    assert all(later - earlier >= 0.14 for earlier, later in itertools.pairwise(times))


def test_crawl_delay_of_robots_wins_over_a_shorter_pause(tmp_path, site):
    site.answers["/robots.txt"] = [(200, {}, b"User-agent: *\nCrawl-delay: 7\n")]
    site.answers["/a"] = [(200, HTML, b"x")]
    site.answers["/b"] = [(200, HTML, b"x")]
    sleeps = []
    with fetcher(tmp_path, sleeps=sleeps) as guest:
        guest.get(f"{site.url}/a")
        guest.get(f"{site.url}/b")
    assert [wait for wait in sleeps if wait > 6]


def test_an_unchanged_page_comes_from_the_cache(tmp_path, site):
    site.answers["/a"] = [(200, {**HTML, "ETag": '"one"', "Last-Modified": "Mon, 01 Jan 2024 00:00:00 GMT"}, b"body")]
    with fetcher(tmp_path) as guest:
        guest.get(f"{site.url}/a")
    with fetcher(tmp_path) as guest:
        found = guest.get(f"{site.url}/a")
    asked = site.requests[-1][1]
    assert (asked["If-None-Match"], asked["If-Modified-Since"]) == ('"one"', "Mon, 01 Jan 2024 00:00:00 GMT")
    assert found.path.read_bytes() == b"body"
    site.answers["/a"] = [(200, {**HTML, "ETag": '"two"'}, b"new body")]
    with fetcher(tmp_path) as guest:
        assert guest.get(f"{site.url}/a").path.read_bytes() == b"new body"


def test_a_page_with_a_broken_cache_entry_is_fetched_again(tmp_path, site):
    site.answers["/a"] = [(200, {**HTML, "ETag": '"one"'}, b"body")]
    with fetcher(tmp_path) as guest:
        guest.get(f"{site.url}/a")
    for note in (tmp_path / "cache").glob("*.json"):
        note.write_text("{")
    with fetcher(tmp_path) as guest:
        assert guest.get(f"{site.url}/a").path.read_bytes() == b"body"
    assert "If-None-Match" not in site.requests[-1][1]


def test_a_busy_server_is_retried_after_its_retry_after(tmp_path, site):
    site.answers["/a"] = [(429, {"Retry-After": "9"}, b""), (503, {}, b""), (200, HTML, b"at last")]
    sleeps = []
    with fetcher(tmp_path, sleeps=sleeps) as guest:
        assert guest.get(f"{site.url}/a").path.read_bytes() == b"at last"
    assert sleeps == [9.0, 2.0]


def test_a_server_that_stays_busy_is_a_reject(tmp_path, site):
    site.answers["/a"] = [(503, {}, b"")]
    site.answers["/b"] = [(503, {"Retry-After": "3600"}, b"")]
    with fetcher(tmp_path, sleeps=[]) as guest:
        assert (guest.get(f"{site.url}/a").reason, guest.get(f"{site.url}/a").detail) == (
            "http_error",
            "HTTP status 503",
        )
        assert (
            guest.get(f"{site.url}/b").detail
            == "HTTP status 503: the server asks to wait 3600 s, the longest wait is 120 s"
        )


def test_missing_page(tmp_path, site):
    with fetcher(tmp_path) as guest:
        reject = guest.get(f"{site.url}/nothing")
    assert (reject.reason, reject.detail, reject.source.file) == (
        "http_error",
        "HTTP status 404",
        f"{site.url}/nothing",
    )


def test_redirects_are_followed_under_the_rules_of_where_they_lead(tmp_path, site):
    site.answers["/robots.txt"] = [(200, {}, b"User-agent: *\nDisallow: /private\n")]
    site.answers["/old"] = [(301, {"Location": "/new"}, b"")]
    site.answers["/new"] = [(200, HTML, b"moved")]
    site.answers["/trap"] = [(302, {"Location": "/private"}, b"")]
    site.answers["/loop"] = [(302, {"Location": "/loop"}, b"")]
    site.answers["/file"] = [(302, {"Location": "file:///etc/passwd"}, b"")]
    with fetcher(tmp_path) as guest:
        assert guest.get(f"{site.url}/old").path.read_bytes() == b"moved"
        assert guest.get(f"{site.url}/trap").reason == "robots_disallowed"
        assert guest.get(f"{site.url}/loop").reason == "too_many_redirects"
        assert (
            guest.get(f"{site.url}/file").detail
            == "the page moved to file:///etc/passwd, which is not an http or https address"
        )


def test_too_big(tmp_path, site):
    site.answers["/a"] = [(200, HTML, b"x" * 11)]
    with fetcher(tmp_path, max_bytes=10) as guest:
        reject = guest.get(f"{site.url}/a")
    assert (reject.reason, reject.detail) == ("file_too_big", "the page has more than 10 bytes (limits.max_file_bytes)")


def squeeze(megabytes, window):
    """So many megabytes of zeros, as gzip (window 31) or zlib (15)."""
    packer = zlib.compressobj(9, zlib.DEFLATED, window)
    return b"".join([*(packer.compress(bytes(1 << 20)) for _ in range(megabytes)), packer.flush()])


@pytest.mark.parametrize("robots", [False, True])
@pytest.mark.parametrize("layers", [("gzip",), ("gzip", "gzip"), ("deflate", "gzip")])
def test_a_response_that_unpacks_to_hundreds_of_megabytes_is_one_reject(tmp_path, site, layers, robots):
    body = squeeze(200, 15 if layers[0] == "deflate" else 31)
    for _ in layers[1:]:
        body = gzip.compress(body)
    site.answers["/robots.txt" if robots else "/a"] = [(200, {"Content-Encoding": ", ".join(layers)}, body)]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with fetcher(tmp_path) as guest:
        found = guest.get(f"{site.url}/a")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20 << 10
    # A robots.txt of zeros forbids nothing, and what is behind its first bytes is not read: the page is not there.
    expected = "http_error" if len(layers) > 1 or robots else "file_too_big"
    assert (type(found), found.reason) == (RejectedRow, expected)


@pytest.mark.parametrize(("encoding", "window"), [("gzip", 31), ("GZIP", 31), ("deflate", 15), ("identity", None)])
def test_one_layer_of_compression_is_taken_off(tmp_path, site, encoding, window):
    body = b"hello" if window is None else zlib.compress(b"hello", wbits=window)
    site.answers["/a"] = [(200, {"Content-Encoding": encoding, **HTML}, body)]
    with fetcher(tmp_path) as guest:
        found = guest.get(f"{site.url}/a")
    assert found.path.read_bytes() == b"hello"
    assert {headers["Accept-Encoding"] for _, headers, _ in site.requests} == {"gzip"}


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip"])
def test_a_body_that_cannot_be_unpacked_is_a_reject(tmp_path, site, encoding):
    site.answers["/a"] = [(200, {"Content-Encoding": encoding}, b"<p>no gzip</p>")]
    with fetcher(tmp_path) as guest:
        found = guest.get(f"{site.url}/a")
    assert (found.reason, encoding in found.detail) == ("http_error", True)


ODD = [
    "http://[::1",
    "http://[v1.x]/",
    "http://x:99999/",
    "http://x:-1/",
    "http://x:a/",
    "http://\u2100/",
    "http://a\0b/",
    f"http://{'a' * 300}/",
    "http://.../",
    "http://xn--a/",
    "http://\xdf\u3002/",
    "http:///x",
    "http://@/",
    "http://a b/",
    "http://[::1%25lo]/",
    "http://127.0.0.1\\@example.invalid/",
    "http://\u2460\u2461\u2466.\u24ea.\u24ea.\u2460/",
    "http://%31%32%37.0.0.1/",
    "http://a\r\nb/",
    "http://\ud800/",
    "http://example.invalid/\ud800",
]


@pytest.mark.parametrize("address", ODD, ids=ascii)
def test_an_odd_address_is_a_reject_where_it_is_declared(tmp_path, address):
    with fetcher(tmp_path, retries=0) as guest:
        found = guest.get(address)
    assert found.reason in {"http_error", "unreachable"}
    found.detail.encode()
    found.source.file.encode()


@pytest.mark.parametrize("robots", [False, True])
@pytest.mark.parametrize("address", [one for one in ODD if one.isascii() and one.isprintable()])
def test_an_odd_address_is_a_reject_where_a_page_moves_to_it(tmp_path, site, address, robots):
    site.answers["/robots.txt" if robots else "/a"] = [(302, {"Location": address}, b"")]
    with fetcher(tmp_path, retries=0) as guest:
        found = guest.get(f"{site.url}/a")
    assert found.reason in {"http_error", "unreachable"}


def test_out_of_reach_is_a_reject_or_the_copy_fetched_before(tmp_path, caplog):
    with Site() as running:
        running.answers["/a"] = [(200, HTML, b"kept")]
        with fetcher(tmp_path) as guest:
            guest.get(f"{running.url}/a")
        url = running.url
    with fetcher(tmp_path, sleeps=[], retries=1) as guest, caplog.at_level("WARNING", "tunectl"):
        assert guest.get(f"{url}/a").path.read_bytes() == b"kept"
        assert guest.get(f"{url}/b").reason == "unreachable"
    assert "the copy fetched before is used" in caplog.text


@pytest.mark.parametrize(
    ("headers", "path", "kind"),
    [
        ({"Content-Type": "application/pdf"}, "/a", "pdf"),
        ({"Content-Type": "text/csv; charset=latin-1"}, "/a", "csv"),
        ({"Content-Type": "application/octet-stream"}, "/a.jsonl", "jsonl"),
        ({"Content-Type": "image/png"}, "/a", None),
    ],
)
def test_kind_by_content_type_then_by_name(tmp_path, site, headers, path, kind):
    site.answers[path] = [(200, headers, b"x")]
    with fetcher(tmp_path) as guest:
        found = guest.get(f"{site.url}{path}")
    assert found.type == kind
    assert found.columns == ({"charset": "cp1252"} if "latin-1" in headers["Content-Type"] else {})


def test_what_follows_the_end_of_a_packed_body_is_not_kept():
    """zlib keeps all of it, and copies it with each part that comes."""
    parts = iter([gzip.compress(b"hello"), *[b"x" * 65_536] * 1000])
    assert b"".join(web_fetch._unpack(parts, "gzip", 10_000)) == b"hello"
    assert len(list(parts)) > 990
