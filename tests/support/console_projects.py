"""Projects for the console: empty, initialized, built in part, and one with every kind of record; and an application to ask."""

from __future__ import annotations

import hashlib
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import console_records
from conf_copy import copy_conf
from starlette.testclient import TestClient

from tunectl.access.api_keys import KeyStore
from tunectl.access.guard import list_hosts
from tunectl.artifacts import atomic_io, manifest, row_counts
from tunectl.artifacts.paths import ProjectPaths
from tunectl.artifacts.records import Document, Example, Message, ReferenceAnswer, RejectedRow, Source
from tunectl.console.console_app import ConsoleApp
from tunectl.console.console_guard import ConsoleGuard
from tunectl.console.console_sessions import SignIn, locate_link_file
from tunectl.console.recorded_project import Recording
from tunectl.pipeline import code_digest, run_ledger
from tunectl.pipeline.stages import STAGES
from tunectl.registry.release_manifest import BuildFacts, RecordedVerdict
from tunectl.registry.release_store import ReleaseRegistry

ROOT = Path(__file__).parents[2]
NOW = datetime(2026, 11, 27, 22, 0, tzinfo=UTC)
WINDOW = "c" * 16
DECIDED = f"/decisions/{'b' * 12}-1"
MAX_QUERIES = 8
"""Addresses of one page that a crawl opens: filters go together in thousands of ways."""
MARKUP = "<script>alert(1)</script><img src=x onerror=alert(2)>\u202e"
"""What a stranger writes into every field that is theirs."""


def initialize(folder: Path) -> ProjectPaths:
    """A project as ``tunectl init`` leaves it, without data."""
    folder.mkdir(parents=True, exist_ok=True)
    copy_conf(folder)
    shutil.copy(ROOT / "dvc.yaml", folder / "dvc.yaml")
    layout = ProjectPaths(folder)
    atomic_io.write_bytes(layout.cache / "code.json", remember_code_digests())
    return layout


@cache
def remember_code_digests() -> bytes:
    """What ``.tunectl/cache/code.json`` holds once the code was read, which takes seconds."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "code.json"
        code_digest.stage_code_digests({one.name: [one.module, one.settings.partition(":")[0]] for one in STAGES}, path)
        return path.read_bytes()


def build(folder: Path, *, rows: int = 60) -> ProjectPaths:
    """A project with data stages, a verdict, two releases and a champion."""
    layout = initialize(folder)
    console_records.add_evaluation(folder, 25)
    _write_data(layout, rows)
    for stage, passed, reason in (
        ("evaluate", True, f"Tuned is better: +12.8 BLEU. {MARKUP}"),
        ("reward", False, "The reward model does not know what people prefer."),
    ):
        _finish(layout, stage, {"verdict.json": {"passed": passed, "verdict": "x", "reason": reason}})
    atomic_io.write_json(
        layout.failure, {"stage": "package", "exit_code": 5, "message": f"no space {MARKUP}", "hint": "free some"}
    )
    counts = row_counts.RowCounts("sft", 50, 50)
    _finish(layout, "sft", {row_counts.ROW_COUNTS: counts})
    atomic_io.write_rows(layout.artifact("sft") / row_counts.REJECTS, [])
    atomic_io.write_json(layout.metrics("sft"), {"steps": 11, "validation_loss": 1.493, "seconds": 99.25})
    _write_releases(layout)
    champion = ReleaseRegistry(layout.releases).ids()[-1]
    console_records.add_traffic(folder, champion)
    console_records.add_drift(folder, champion)
    console_records.add_retrains(folder, champion)
    console_records.add_judgments(folder)
    console_records.add_jobs(folder, console_records.add_runs(folder)[0])
    console_records.add_keys(folder)
    return layout


def _write_data(layout: ProjectPaths, rows: int) -> None:
    documents = [
        Document(
            f"d-{at:016x}",
            f"Review {at} of a cafe. {MARKUP}",
            Source("reviews.csv", at + 1),
            "reviews",
            {"city": "Atlanta"},
        )
        for at in range(rows // 3)
    ]
    examples = [
        Example(
            f"e-{at:016x}",
            Source("briefs.jsonl", at + 1),
            [Message("user", f"Write ad {at}. {MARKUP}")],
            [ReferenceAnswer(f"Come to cafe {at}. {MARKUP}", Source("briefs.jsonl", at + 1))],
            kind="briefs",
            fields={"city": "Decatur" if at % 2 else "Atlanta"},
        )
        for at in range(rows - len(documents))
    ]
    rejects = [
        RejectedRow(
            Source("briefs.jsonl", 900 + at),
            "exact_duplicate" if at % 3 else "no_text",
            f"same as {at} {MARKUP}",
            MARKUP,
        )
        for at in range(7)
    ]
    for stage in ("ingest", "curate"):
        _finish(layout, stage, {}, rows={"documents.jsonl": documents, "examples.jsonl": examples}, rejects=rejects)
    train, test = examples[:-10], examples[-10:]
    parts = {"train.jsonl": train, "validation.jsonl": [], "test.jsonl": test, "documents.jsonl": documents}
    _finish(layout, "split", {}, rows=parts, rejects=[])


def _finish(
    layout: ProjectPaths,
    stage: str,
    files: dict[str, Any],
    rows: dict[str, list[Any]] | None = None,
    rejects: list[RejectedRow] | None = None,
) -> None:
    folder = layout.artifact(stage)
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        atomic_io.write_json(folder / name, content)
    if rows is not None:
        counter = row_counts.RowCounter(stage)
        count = sum(map(len, rows.values()))
        counter.read(count + len(rejects or []))
        counter.keep(count)
        for reject in rejects or []:
            counter.reject(reject)
        for name, records in rows.items():
            atomic_io.write_rows(folder / name, records)
        row_counts.save(counter, folder, records_out=count, max_rejected_share=1.0, setting="x")
    manifest.write(folder, manifest.Manifest(stage, "0" * 64))
    atomic_io.write_json(layout.metrics(stage), {"seconds": 1.25})


def _write_releases(layout: ProjectPaths) -> None:
    store = ReleaseRegistry(layout.releases)
    for number, passed in ((1, True), (2, True), (3, False)):
        source = layout.root / f"release-{number}"
        source.mkdir()
        (source / "MODEL_CARD.md").write_text(f"# release {number}\n")
        verdict = RecordedVerdict(passed, "better" if passed else "worse", f"reason {number} {MARKUP}")
        facts = BuildFacts("shop", "openvino", "merged", {"bleu": 20.0 + number}, {"evaluate": verdict})
        store.add(source, facts, author="ada", message=f"build {number} {MARKUP}")
        shutil.rmtree(source)
    first, second = store.ids()[:2]
    store.promote(first, author="ada", message=f"the first {MARKUP}")
    store.promote(second, author="grace", message="better answers")


class Console:
    """An application on a project, and a browser that is signed in to it."""

    def __init__(
        self,
        layout: ProjectPaths,
        *,
        acts: bool = True,
        keys: KeyStore | None = None,
        recording: Recording | None = None,
    ) -> None:
        self.layout = layout
        self.sign_in = SignIn(locate_link_file(layout), keys)
        self.sign_in.address = "http://localhost"
        self.app = ConsoleApp(
            layout,
            ConsoleGuard(list_hosts("127.0.0.1"), self.sign_in, acts=acts),
            self.sign_in,
            project="shop",
            clock=lambda: NOW if recording is None else recording.ended_at,
            recording=recording,
        )
        self.application = self.app.build()
        self.client = self.stranger()
        reply = self.post("/enter", secret=self.sign_in.create_link())
        assert reply.status_code == 303, reply.text

    def stranger(self) -> TestClient:
        """A browser that nobody signed in with."""
        return TestClient(self.application, base_url="http://localhost", follow_redirects=False)

    def post(self, path: str, **fields: str) -> Any:
        """Send a form as this console's own page does."""
        return self.client.post(
            path, data=fields, headers={"Origin": "http://localhost", "Sec-Fetch-Site": "same-origin"}
        )


def read_form(console: Console, path: str) -> dict[str, str]:
    """What the form of an act carries along."""
    page = console.client.get(path)
    assert page.status_code == 200, page.text[-500:]
    return dict(re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)"', page.text))


def digest_project(folder: Path) -> dict[str, str]:
    """Every file of a project but caches, by its digest."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and not path.relative_to(folder).as_posix().startswith((".tunectl/cache/", ".tunectl/console/"))
    }


class PageFacts(HTMLParser):
    """Reads a page as a browser would, and notes what must not be there."""

    VOID = frozenset(
        ["area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"]
    )
    SHAPES = frozenset(["path", "rect", "circle", "line", "polyline", "polygon", "ellipse", "use"])

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.errors: list[str] = []
        self.headings = 0
        self.title = ""
        self.links: list[str] = []
        self.ids: list[str] = []
        self.forms: list[dict[str, str]] = []
        self.feed(text)
        self.close()
        self.errors += [f"<{tag}> is not closed" for tag in self.open]
        self.errors += [
            f"id {name} stands twice" for name in sorted({one for one in self.ids if self.ids.count(one) > 1})
        ]

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        self._note(tag, dict(attrs))

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self._note(tag, dict(attrs))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open[-1] != tag:
            self.errors.append(f"</{tag}> closes {self.open[-1:] or 'nothing'}")
        else:
            self.open.pop()

    def handle_data(self, data: str) -> None:
        if self.open[-1:] == ["title"] and "svg" not in self.open:
            self.title += data
        if self.open[-1:] in (["script"], ["style"]) and data.strip():
            self.errors.append(f"inline {self.open[-1]}: {data[:40]}")

    def _note(self, tag: str, attributes: dict[str, str]) -> None:
        self.headings += tag == "h1"
        if "id" in attributes:
            self.ids.append(attributes["id"])
        for name, value in attributes.items():
            if name == "style" or name.startswith("on"):
                self.errors.append(f"<{tag} {name}>")
            # Only a link that says so leads to another place: to the tracker of the project, which its settings name.
            tracker = (
                tag == "a" and attributes.get("rel") == "external noreferrer" and str(value).startswith("https://")
            )
            if name in {"href", "src", "action"} and not str(value).startswith(("/", "#")) and not tracker:
                self.errors.append(f"<{tag} {name}={value}> leads to another place")
        if tag == "a" and attributes.get("rel") != "external noreferrer":
            self.links.append(attributes.get("href", ""))


def name_path(address: str) -> str:
    return address.partition("?")[0]


def crawl(
    console: Console, kind_of: Callable[[str], str] = name_path, most: int = MAX_QUERIES
) -> Iterator[tuple[str, Any]]:
    """Every page that links lead to from Home, with its answer, at most so many of a kind; GET alone."""
    waiting, known = ["/"], {"/"}
    opened: Counter[str] = Counter()
    while waiting:
        path = waiting.pop(0)
        reply = console.client.get(path)
        yield path, reply
        if not reply.headers.get("content-type", "").startswith("text/html"):
            continue
        for link in PageFacts(reply.text).links:
            address = link.partition("#")[0]
            kind = kind_of(address)
            if address and address not in known and opened[kind] < most:
                opened[kind] += 1
                known.add(address)
                waiting.append(address)


def list_paths(folder: Path) -> list[str]:
    """One address or more of every screen and act of the project of ``build``, with a sweep; ``/canary/stop`` needs a canary."""
    release = ReleaseRegistry(folder / ".tunectl" / "releases").ids()[0]
    rows = [
        "/data/rows?stage=curate",
        "/data/rows?stage=curate&part=rejects&reason=no_text",
        "/data/rows?stage=curate&file=examples.jsonl&field.city=Decatur",
        "/data/rows/e-0000000000000007",
    ]
    acts = [f"/releases/{release}", f"/releases/{release}/promote", "/rollback", f"/releases/{release}/canary"]
    keys = [f"/settings/keys/{verb}" for verb in ("add", "app/disable", "app/enable", "app/remove")]
    record = run_ledger.list_runs(ProjectPaths(folder))[0]
    more = [
        "/runs",
        f"/runs/{record}/note",
        "/runs/compare",
        "/runs/compare?metric=checks&sort=gain",
        "/jobs",
        "/sweeps",
        "/sweeps/demo",
        "/results",
        "/results/answers",
        "/results/evaluate",
        "/people",
        "/people/prepare",
        "/people/prepare/stop",
        "/play",
        "/explain?id=champion",
    ]
    more += [
        "/live",
        f"/live?person={1:032x}",
        "/live/chatcmpl-0000",
        "/live/chatcmpl-0000/erase",
        "/drift",
        f"/drift/{WINDOW}",
        f"/drift/{WINDOW}/set-reference",
        "/decisions",
    ]
    more += [
        "/retrain",
        f"/retrain/{'b' * 12}-1",
        "/retrain/request",
        DECIDED,
        "/settings",
        "/settings/keys",
        *keys,
        "/enter",
    ]
    return [
        "/",
        "/build",
        "/build/plan",
        "/build/start",
        "/build/stop",
        "/build/curate",
        "/build/package",
        "/data",
        *rows,
        "/releases",
        *acts,
        *more,
        "/nothing",
    ]
