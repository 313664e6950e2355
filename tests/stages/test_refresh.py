"""Pages of the web that changed: asked for on loopback, noted for compose, and seen by nothing else."""

from __future__ import annotations

import json
import shutil
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from conf_copy import copy_conf

from tunectl.artifacts import atomic_io
from tunectl.artifacts.paths import ProjectPaths
from tunectl.artifacts.records import Document
from tunectl.cli.main import main
from tunectl.config.loading import override_file
from tunectl.config.loading.override_parsing import Override
from tunectl.pipeline.stages.compose import compose


class Site:
    """Pages by path; each has an ETag that follows its text, and every answer is counted by its status."""

    def __init__(self) -> None:
        self.pages = {"/a": "<p>Open on Monday until nine in the evening.</p>", "/b": "<p>Closed on Sunday.</p>"}
        self.answers: list[tuple[str, int]] = []
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                text = site.pages.get(self.path)
                tag = f'"{text}"' if text else ""
                status = 404 if text is None else 304 if self.headers.get("If-None-Match") == tag else 200
                site.answers.append((self.path, status))
                page = f"<html><body><article>{text}</article></body></html>"
                body = page.encode() if status == 200 else b""
                self.send_response(status)
                self.send_header("Content-Type", "text/html; charset=utf-8")
                self.send_header("ETag", tag)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A project that declares the two pages of a site, in the current folder."""
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("COLUMNS", "200")
    running = Site()
    copy_conf(tmp_path)
    monkeypatch.chdir(tmp_path)
    Path("conf/ingest/web.yaml").write_text(
        "defaults:\n  - source/urls@sources.web\n  - _self_\n"
        f"sources:\n  web:\n    urls: [{running.url}/a, {running.url}/b]\n"
        "    fetch: {delay_seconds: 0.0, retries: 0, allow_private: true}\n"
        "max_rejected_share: 0.6\n"
    )
    override_file.save_overrides(ProjectPaths(), [Override.from_cli("ingest=web")])
    yield running
    running.server.shutdown()
    running.server.server_close()


def refreshed(capsys) -> dict[str, str]:
    """The state of each page by its path."""
    capsys.readouterr()
    assert main(["data", "refresh", "--json"]) == 0
    return {page["url"][-2:]: page["state"] for page in json.loads(capsys.readouterr().out)["pages"]}


def test_only_a_changed_page_moves_the_configuration_of_ingest(site, capsys):
    assert main(["run", "compose"]) == 0
    assert main(["run", "ingest"]) == 0
    assert refreshed(capsys) == {"/a": "unchanged", "/b": "unchanged"}  # as ingest found them
    assert not Path("conf/web_page_digests.json").exists()
    assert compose(ProjectPaths())["written"] == []

    site.pages["/a"] = "<p>Open on Monday until ten in the evening.</p>"
    site.answers.clear()
    assert refreshed(capsys) == {"/a": "changed", "/b": "unchanged"}
    assert [answer for answer in site.answers if answer[0] != "/robots.txt"] == [("/a", 200), ("/b", 304)]
    noted = json.loads(Path("conf/web_page_digests.json").read_text())
    assert set(noted) == {f"{site.url}/a", f"{site.url}/b"}
    assert compose(ProjectPaths())["written"] == ["ingest"]
    assert main(["run", "ingest"]) == 0
    texts = [row.text for row in atomic_io.read_rows(Path("artifacts/ingest/documents.jsonl"), Document)]
    assert texts == ["Open on Monday until ten in the evening.", "Closed on Sunday."]

    assert refreshed(capsys) == {"/a": "unchanged", "/b": "unchanged"}
    shutil.rmtree(".tunectl/cache/pages")  # the note outlives the cache
    assert refreshed(capsys) == {"/a": "unchanged", "/b": "unchanged"}
    assert compose(ProjectPaths())["written"] == []


def test_a_page_that_is_gone_is_reported_and_keeps_its_note(site, capsys):
    assert refreshed(capsys) == {"/a": "new", "/b": "new"}
    before = Path("conf/web_page_digests.json").read_text()
    del site.pages["/b"]
    assert main(["data", "refresh"]) == 0
    said = capsys.readouterr().out
    assert "http_error: HTTP status 404" in said
    assert "0 of 2 pages are new or changed: nothing to read again" in said
    assert Path("conf/web_page_digests.json").read_text() == before
    site.pages["/a"] = "<p>Now on Tuesday.</p>"
    assert main(["data", "refresh"]) == 0
    assert (
        "1 of 2 pages are new or changed: noted in conf/web_page_digests.json; read them with: tunectl repro"
        in capsys.readouterr().out
    )
    assert (
        json.loads(Path("conf/web_page_digests.json").read_text())[f"{site.url}/b"]
        == json.loads(before)[f"{site.url}/b"]
    )


def test_a_project_without_addresses_is_reported(site, capsys):
    override_file.save_overrides(
        ProjectPaths(), [Override.from_cli("ingest=documents"), Override.from_cli("data.path=raw")]
    )
    assert main(["data", "refresh"]) == 2
    assert capsys.readouterr().err == (
        "tunectl: no source in ingest.sources is a list of web addresses, so there is no page to check\n"
        "  changed files are found by tunectl repro; conf/ingest/source/urls.yaml shows how to declare addresses\n  more: tunectl docs no-source-in-ingest-sources-is-a\n"
    )
