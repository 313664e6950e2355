"""Which addresses pages come from, and for how long; names and public addresses lead to loopback servers."""

from __future__ import annotations

import contextlib
import math
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tunectl.artifacts.records import RejectedRow
from tunectl.backends.readers.web_connection import is_public
from tunectl.backends.readers.web_fetch import Fetcher
from tunectl.config.schema.ingest import Fetch

PUBLIC = "93.184.216.34"
OTHER = "8.8.8.8"
SECRET = b"SECRET of the metadata service"


class Server:
    """A loopback server: path to status, headers and body; robots.txt allows all unless it is set."""

    def __init__(self, answers):
        self.answers = {"/robots.txt": (404, {}, b""), **answers}
        self.hosts = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                server.hosts.append(self.headers["Host"])
                status, headers, body = server.answers.get(self.path, server.answers.get("*", (404, {}, b"")))
                self.send_response(status)
                for key, value in headers.items():
                    self.send_header(key, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_port
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self.thread.start()

    def close(self):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


class Network:
    """A resolver and a dialer: ``PUBLIC`` and ``OTHER`` lead to ``outside``, every other address to ``inside``."""

    def __init__(self, monkeypatch):
        self.outside = Server({})
        self.inside = Server({"*": (200, {"Content-Type": "text/plain"}, SECRET)})
        self.names = {"public.example": [[PUBLIC]], "other.example": [[OTHER]]}
        self.asked = []
        self.dialed = []
        self.port = None
        self.resolve, self.dial = socket.getaddrinfo, socket.create_connection
        monkeypatch.setattr(socket, "getaddrinfo", self.getaddrinfo)
        monkeypatch.setattr(socket, "create_connection", self.create_connection)

    def getaddrinfo(self, host, port, *args, **kwargs):
        name = host.decode() if isinstance(host, bytes) else host
        if name not in self.names:
            return self.resolve(host, port, *args, **kwargs)
        self.asked.append(name)
        answers = self.names[name]
        found = answers.pop(0) if len(answers) > 1 else answers[0]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in found]

    def create_connection(self, address, timeout=None, source_address=None, **kwargs):
        host = socket.getaddrinfo(*address, type=socket.SOCK_STREAM)[0][4][0]
        self.dialed.append(host)
        port = self.outside.port if host in {PUBLIC, OTHER} else self.inside.port
        return self.dial(("127.0.0.1", self.port or port), timeout)


@pytest.fixture
def network(monkeypatch):
    made = Network(monkeypatch)
    yield made
    made.outside.close()
    made.inside.close()


def get(tmp_path, *urls, timeout=5.0, retries=0, sleeps=None, **changes):
    manners = Fetch(
        **{"user_agent": "t", "delay_seconds": 0, "allow_private": False, **changes},
        timeout_seconds=timeout,
        retries=retries,
    )
    sleep = (lambda _: None) if sleeps is None else sleeps.append
    with Fetcher(manners, tmp_path / "cache", 10_000, sleep=sleep) as guest:
        return [guest.get(url) for url in urls]


HIDDEN = [
    "127.0.0.1",
    "[::1]",
    "[::ffff:127.0.0.1]",
    "[64:ff9b::7f00:1]",
    "[2002:7f00:1::]",
    "[::7f00:1]",
    "[::ffff:0:7f00:1]",
    "169.254.169.254",
    "10.0.0.1",
    "100.100.100.200",
    "0.0.0.0",
    "2130706433",
    "127.1",
]


@pytest.mark.parametrize("host", HIDDEN)
def test_a_redirect_to_an_address_that_is_not_public_is_refused(tmp_path, network, host):
    network.outside.answers["/a"] = (302, {"Location": f"http://{host}/latest/meta-data/iam"}, b"")
    (found,) = get(tmp_path, "http://public.example/a")
    assert isinstance(found, RejectedRow)
    assert found.reason == "private_address"
    assert found.detail.endswith("which is no public address; fetch.allow_private: true allows it")
    assert network.inside.hosts == []


def test_a_name_that_leads_inside_is_refused_however_many_addresses_it_has(tmp_path, network):
    network.names["inside.example"] = [["10.0.0.1"]]
    network.names["mixed.example"] = [[PUBLIC, "127.0.0.1"]]
    network.outside.answers["/a"] = (302, {"Location": "http://inside.example/a"}, b"")
    urls = ("http://inside.example/a", "http://public.example/a", "http://mixed.example/a")
    assert [one.reason for one in get(tmp_path, *urls)] == ["private_address"] * 3
    assert (network.inside.hosts, set(network.dialed)) == ([], {PUBLIC})


def test_a_name_is_resolved_once_for_a_connection_and_checked_at_each(tmp_path, network):
    network.names["rebind.example"] = [[PUBLIC], ["127.0.0.1"]]
    network.outside.answers["/robots.txt"] = (404, {"Connection": "close"}, b"")
    network.outside.answers["/a"] = (200, {}, b"open")
    (found,) = get(tmp_path, "http://rebind.example/a")
    assert found.reason == "private_address"
    assert (network.dialed, network.asked) == ([PUBLIC], ["rebind.example"] * 2)
    assert (network.outside.hosts, network.inside.hosts) == (["rebind.example"], [])


def test_robots_that_lead_inside_are_refused(tmp_path, network):
    network.outside.answers["/robots.txt"] = (302, {"Location": "http://127.0.0.1/robots.txt"}, b"")
    network.outside.answers["/a"] = (200, {}, b"open")
    assert get(tmp_path, "http://public.example/a")[0].reason == "private_address"
    assert network.inside.hosts == []


def test_public_pages_are_fetched_under_their_name(tmp_path, network):
    network.outside.answers["/a"] = (302, {"Location": "http://other.example/b"}, b"")
    network.outside.answers["/b"] = (200, {"Content-Type": "text/plain"}, b"open")
    (found,) = get(tmp_path, "http://public.example/a")
    assert found.path.read_bytes() == b"open"
    assert network.outside.hosts == ["public.example"] * 2 + ["other.example"] * 2
    assert set(network.dialed) == {PUBLIC, OTHER}


def test_private_pages_are_fetched_where_the_setting_allows_it(tmp_path, network):
    (found,) = get(tmp_path, "http://10.0.0.1/a", allow_private=True)
    assert found.path.read_bytes() == SECRET


def test_an_address_that_does_not_answer_gives_way_to_the_next(tmp_path, network, monkeypatch):
    network.names["two.example"] = [[OTHER, PUBLIC]]
    network.outside.answers["/a"] = (200, {}, b"open")
    through = socket.create_connection

    def dial(address, *args, **kwargs):
        if address[0] == OTHER:
            raise ConnectionRefusedError(111, "Connection refused")
        return through(address, *args, **kwargs)

    monkeypatch.setattr(socket, "create_connection", dial)
    assert get(tmp_path, "http://two.example/a")[0].path.read_bytes() == b"open"


def test_proxies_of_the_environment_are_not_used(tmp_path, network, monkeypatch):
    for name in ("http_proxy", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{network.inside.port}")
    network.outside.answers["/a"] = (200, {}, b"open")
    assert get(tmp_path, "http://public.example/a")[0].path.read_bytes() == b"open"


@pytest.fixture
def raw(network):
    """A server of bytes: ``serve(answer)`` lets ``answer`` write to every connection after its first bytes came."""
    listener = socket.create_server(("127.0.0.1", 0))
    network.port = listener.getsockname()[1]
    heard = []

    def serve(answer):
        def talk(line):
            with line:
                heard.append(line.recv(65536))
                with contextlib.suppress(OSError):  # the fetcher has hung up
                    answer(line, heard[-1])

        def run():
            while True:
                try:
                    line, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=talk, args=(line,), daemon=True).start()

        threading.Thread(target=run, daemon=True).start()
        return heard

    yield serve
    listener.close()


def test_tls_asks_for_the_name(tmp_path, raw):
    heard = raw(lambda line, said: None)
    assert get(tmp_path, "https://public.example/a")[0].reason == "unreachable"
    assert b"public.example" in heard[0]


@pytest.mark.parametrize("head", [b"", b"HTTP/1.1 200 OK\r\n\r\n"], ids=["in the headers", "in the body"])
def test_a_server_that_sends_slowly_is_abandoned_at_the_deadline(tmp_path, raw, head):
    def drip(line, said):
        if said.startswith(b"GET /robots.txt"):
            line.sendall(b"HTTP/1.1 404 No\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
            return
        line.sendall(head)
        for byte in b"H" * 30 if head else b"HTTP/1.1 200 OK\r\nX: " + b"a" * 30:
            line.sendall(bytes([byte]))
            time.sleep(0.1)

    raw(drip)
    start = time.monotonic()
    (found,) = get(tmp_path, "http://public.example/a", timeout=0.3, retries=3)
    assert time.monotonic() - start < 2.0
    assert (found.reason, found.detail) == ("unreachable", "the response was not complete after 0.9 s")


@pytest.mark.parametrize("asked", ["1e308", "31536000", "61"])
def test_a_crawl_delay_that_nobody_waits_for_is_refused(tmp_path, network, asked):
    network.outside.answers["/robots.txt"] = (200, {}, f"User-agent: *\nCrawl-delay: {asked}\n".encode())
    network.outside.answers["*"] = (200, {}, b"open")
    sleeps = []
    found = get(tmp_path, "http://public.example/a", "http://public.example/b", sleeps=sleeps)
    assert [getattr(one, "reason", "fetched") for one in found] == ["robots_disallowed"] * 2
    assert found[0].detail == (
        f"http://public.example/robots.txt asks for a pause of {float(asked):g} s between pages; the longest accepted is 60 s (fetch.delay_seconds raises it)"
    )
    assert sleeps == []


@pytest.mark.parametrize("asked", ["inf", "nan", "1e400"])
def test_a_crawl_delay_that_is_no_number_is_never_waited(tmp_path, network, monkeypatch, asked):
    """Versions of protego differ: some give such a number, which is refused; others leave the line out."""
    network.outside.answers["/robots.txt"] = (200, {}, f"User-agent: *\nCrawl-delay: {asked}\n".encode())
    network.outside.answers["*"] = (200, {}, b"open")
    urls = ("http://public.example/a", "http://public.example/b")
    sleeps = []
    found = get(tmp_path, *urls, sleeps=sleeps)
    assert {getattr(one, "reason", "fetched") for one in found} <= {"fetched", "robots_disallowed"}
    monkeypatch.setattr("protego.Protego.crawl_delay", lambda *_: float(asked))
    assert [getattr(one, "reason", "fetched") for one in get(tmp_path, *urls, sleeps=sleeps)] == [
        "robots_disallowed"
    ] * 2
    assert sleeps == []


@pytest.mark.parametrize("asked", ["60", "-5"])
def test_a_crawl_delay_of_a_minute_is_waited(tmp_path, network, asked):
    network.outside.answers["/robots.txt"] = (200, {}, f"User-agent: *\nCrawl-delay: {asked}\n".encode())
    network.outside.answers["*"] = (200, {}, b"open")
    sleeps = []
    found = get(tmp_path, "http://public.example/a", "http://public.example/b", sleeps=sleeps)
    assert [one.path.read_bytes() for one in found] == [b"open"] * 2
    assert all(math.isclose(wait, 60, abs_tol=2) for wait in sleeps)
    assert bool(sleeps) == (asked == "60")


@pytest.mark.parametrize(
    "location", ["http://[bad/", "http://public.example:99999/", "http://" + "a" * 64 + ".example/"]
)
def test_a_redirect_to_no_address_is_a_reject(tmp_path, network, location):
    network.outside.answers["/a"] = (302, {"Location": location}, b"")
    found = get(tmp_path, "http://public.example/a", "http://[bad/")
    assert found[0].reason in {"http_error", "unreachable"}
    assert (found[1].reason, found[1].detail) == ("http_error", "http://[bad/ is not an http or https address")


@pytest.mark.parametrize("said", ["²", "Mon, 01 Jan 99999999999999999999 00:00:00 GMT"])
def test_a_broken_retry_after_is_none(tmp_path, network, said):
    network.outside.answers["/a"] = (503, {"Retry-After": said}, b"")
    assert get(tmp_path, "http://public.example/a", retries=1)[0].detail == "HTTP status 503"


@pytest.mark.parametrize(
    ("address", "public"),
    [
        (PUBLIC, True),
        ("2606:2800:220:1:248:1893:25c8:1946", True),
        ("::ffff:93.184.216.34", True),
        ("64:ff9b::5db8:d822", True),
        ("64:ff9b::a00:1", False),
        ("::ffff:10.0.0.1", False),
        ("fe80::1%1", False),
        ("fd00::1", False),
        ("192.168.1.1", False),
        ("224.0.1.1", False),
        ("ff0e::1", False),
        ("::", False),
        ("::1", False),
        ("::127.0.0.1", False),
        ("::10.0.0.1", False),
        ("::a9fe:a9fe", False),
        ("::ffff:0:127.0.0.1", False),
        ("64:ff9b:1::7f00:1", False),
        ("64:ff9b::c000:c0", False),
        ("fec0::1", False),
        ("5f00::1", False),
        ("4000::1", False),
        ("3fff::1", False),
        ("2001:db8::1", False),
        ("2001:0:7f00:1::", False),
        ("2002:5db8:d822::1", False),
        ("192.0.0.8", False),
        ("192.0.0.192", False),
        ("192.88.99.1", False),
        ("168.63.129.16", False),
        ("168.63.129.17", True),
        ("2001:4860:4860::8888", True),
        ("2a00:1450::1", True),
    ],
)
def test_is_public(address, public):
    assert is_public(address) is public
