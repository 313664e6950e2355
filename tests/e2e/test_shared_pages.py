"""Pages that other programs than the console serve, and reports: the same frame and style sheet, in a real browser under their real policy."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import console_records
import msgspec
import pytest
from playwright.sync_api import Browser, Page

from tunectl.access import guard
from tunectl.access.api_keys import KeyStore
from tunectl.annotation import annotate_app
from tunectl.annotation.active_sampling import QueuePolicy
from tunectl.annotation.annotate_app import AnnotateAppConfig
from tunectl.annotation.annotation_queue import AnnotationQueue
from tunectl.artifacts.paths import ProjectPaths
from tunectl.artifacts.records import DriftWindow, Message, Source
from tunectl.backends.reports import evaluate, render
from tunectl.backends.storage import inference_log_sql
from tunectl.backends.web import bounded_http
from tunectl.console import recorded_project
from tunectl.evaluation.results import Results
from tunectl.monitoring import drift_page
from tunectl.monitoring.http_api import MonitorApi, PageProviders
from tunectl.preferences import annotation_store
from tunectl.preferences.annotation_store import AnnotationTask
from tunectl.retraining import signed_links
from tunectl.retraining.approval_pages import ApprovalPages
from tunectl.retraining.run_store import RunStore
from tunectl.retraining.signed_links import ApprovalToken
from tunectl.retraining.webhook_api import RetrainApi, RetrainSecrets

AXE = (Path(__file__).parents[1] / "data" / "axe-core" / "axe.min.js").read_text()
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
FLAGS = ["--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--no-sandbox"]
LOOKS = {"wide-light": ((1280, 850), "light"), "phone-dark": ((390, 844), "dark"), "narrow": ((320, 640), "light")}
ADVICE = "Password forms should have"
"""What Chromium says of a form that asks for a key and for no name."""


@pytest.fixture(scope="module")
def addresses(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Where each page lies, served by the real applications."""
    root = tmp_path_factory.mktemp("shop")
    with ExitStack() as stack:
        yield {
            "report": write_report(tmp_path_factory.mktemp("recorded")),
            **serve_monitor(root, stack),
            **serve_retrain(root, stack),
            "annotate": serve_annotate(root, stack),
        }


def write_report(folder: Path) -> str:
    paths, _recording = recorded_project.unpack(folder, Path(__file__).parents[2] / "conf")
    results = msgspec.json.decode((paths.artifact("evaluate") / "results.json").read_bytes(), type=Results)
    history, split = folder / "artifacts/plots/sft/history.csv", paths.artifact("split") / "report.json"
    page = folder / "page.html"
    page.write_text(evaluate.page(results, history=history, split=split))
    return page.as_uri()


def serve_monitor(root: Path, stack: ExitStack) -> dict[str, str]:
    names = console_records.add_drift(root, "0" * 16)
    with inference_log_sql.open_log(console_records.URL, root) as log:
        windows = {item.id: msgspec.convert(item.body, DriftWindow) for item in log.windows()}
    pages = PageProviders(
        lambda: b"",
        lambda: drift_page.render_index("shop", list(windows.values()), set()),
        lambda name: drift_page.render_window("shop", windows[name], {}, set()),
        lambda: b"[]",
        root,
    )
    service = MonitorApi("127.0.0.1", 0, root / "keys.json", pages)
    service.open()
    stack.callback(service.close)
    address = f"http://127.0.0.1:{service.port}"
    return {"windows": f"{address}/", "window": f"{address}/windows/{names[2]}"}


def serve_retrain(root: Path, stack: ExitStack) -> dict[str, str]:
    ended, waiting = console_records.add_retrains(root, "0" * 16)
    store, secret = RunStore(ProjectPaths(root).retrain), b"s" * 64
    service = RetrainApi(
        store,
        ApprovalPages(store, SimpleNamespace(all=list), "shop", secret, lambda: "18 minutes"),
        lambda: b"",
        secrets=RetrainSecrets("token", KeyStore(root / "keys.json", 1.0), None),
        alert_names=(),
        nudge=lambda: None,
        address="127.0.0.1",
        port=0,
    )
    service.open()
    stack.callback(service.close)
    address = f"http://127.0.0.1:{service.port}"
    link = signed_links.sign(ApprovalToken(waiting, "retrain", int(time.time()) + 3600, "n-1"), secret)
    return {
        "retrains": f"{address}/",
        "retrain": f"{address}/runs/{ended}",
        "decide": f"{address}/decide/{link}",
    }


def serve_annotate(root: Path, stack: ExitStack) -> str:
    store = stack.enter_context(annotation_store.open_store(root / "judgments"))
    question = [Message("user", "Write an ad for cafe 1. It is in Midtown, cheap, and open late.")]
    answers = ["Cafe 1 pours until two. " + "Come by. " * 20, "Visit cafe 1 today! " * 5]
    store.add([AnnotationTask("q1", "p1", Source("t"), question, answers, ["a", "b"])])
    queue = AnnotationQueue(store, QueuePolicy(0, 0, 1, 1))
    config = AnnotateAppConfig("shop", ("friendly", "right length"), None, guard.list_hosts("127.0.0.1"), lambda: None)
    listening = annotate_app.listen("127.0.0.1", 0)
    server = bounded_http.build_server(annotate_app.application(queue, config))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()

    def stop() -> None:
        server.should_exit = True
        thread.join(timeout=10)

    stack.callback(stop)
    return f"http://127.0.0.1:{listening.getsockname()[1]}/"


def find_faults(page: Page, look: str) -> list[str]:
    page.evaluate(AXE)
    found = page.evaluate("rules => axe.run(document, {runOnly: rules})", RULES)["violations"]
    faults = [f"{item['id']}: {item['nodes'][0]['html'][:120]}" for item in found]
    if page.evaluate("document.documentElement.scrollWidth > innerWidth"):
        faults.append(f"scrolls sideways, {look}")
    if page.locator("h1").count() != 1:
        faults.append("not one h1")
    sheet = page.evaluate("getComputedStyle(document.documentElement).getPropertyValue('--link-shade')")
    if not sheet.strip() or page.locator("style").count() + page.locator("link[rel=stylesheet]").count() != 1:
        faults.append("not the one style sheet")
    return faults


@pytest.mark.parametrize("look", LOOKS)
def test_every_page_has_the_one_look_and_keeps_its_policy(
    addresses: dict[str, str], browser: Browser, look: str
) -> None:
    (width, height), scheme = LOOKS[look]
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
    page, messages = context.new_page(), []
    page.on("console", lambda message: messages.append(message.text) if ADVICE not in message.text else None)
    page.on("pageerror", lambda error: messages.append(str(error)))
    page.on(
        "request",
        lambda request: None if request.url.startswith(("http://127.0.0.1", "file:")) else messages.append(request.url),
    )
    faults = {}
    for name, address in addresses.items():
        page.goto(address)
        faults[name] = find_faults(page, look)
    page.fill("[name=name]", "Ada")  # the door of annotate was the last
    page.keyboard.press("Enter")
    page.wait_for_selector("#count")
    faults["question"] = find_faults(page, look)
    context.close()
    assert {name: found for name, found in faults.items() if found} == {}
    assert messages == []


def test_a_service_allows_its_style_sheet_by_digest_alone(addresses: dict[str, str], browser: Browser) -> None:
    page = browser.new_page()
    for name in ("windows", "decide"):
        response = page.goto(addresses[name])
        assert response is not None
        policy = response.headers["content-security-policy"]
        assert f"style-src '{render.hash_style()}'" in policy
        assert "unsafe" not in policy
        assert "script-src" not in policy
    page.close()
