"""What the page answers when the disk refuses; everything else of it is tried in a real browser."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import socket

import pytest
from half_uploads import hold_half_uploads, measure_health, serve

from tunectl.annotation import annotate_app
from tunectl.annotation.active_sampling import QueuePolicy
from tunectl.annotation.annotate_app import AnnotateAppConfig
from tunectl.annotation.annotation_queue import AnnotationQueue
from tunectl.artifacts.records import Message, Source
from tunectl.preferences import annotation_store
from tunectl.preferences.annotation_store import AnnotationTask

pytest.importorskip("starlette")


@pytest.fixture
def desk(tmp_path):
    with annotation_store.open_store(tmp_path) as opened:
        opened.add(
            [
                AnnotationTask(f"q{n}", f"p{n}", Source("t"), [Message("user", f"Q{n}")], ["one", "two"], ["a", "b"])
                for n in range(3)
            ]
        )
        yield AnnotationQueue(opened, QueuePolicy(0, 0, 1, 1))


def undone(desk):
    """Status and body of what the page answers when Ada takes something back."""
    from starlette.requests import Request

    request = Request(
        {"type": "http", "method": "POST", "path": "/undo", "headers": [(b"cookie", b"tunectl_annotator=Ada")]}
    )
    page = annotate_app._Routes(desk, AnnotateAppConfig("ads", (), None, None, lambda: None))
    response = asyncio.run(page.undo(request))
    return response.status_code, response.body.decode()


def test_a_full_disk_takes_nothing_back_and_says_so(desk, monkeypatch):
    desk.submit("Ada", desk.get_current_task("Ada").id, "left", [], None)

    def full(descriptor):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(annotation_store.os, "fsync", full)
        status, body = undone(desk)
    assert status == 507
    assert "Not taken back: cannot write " in body
    assert "No space left on device. Your last choice still counts." in body
    assert "1 saved, 2 to go" in body
    assert undone(desk)[0] == 200
    assert desk.progress("Ada").answered == 0


@pytest.fixture
def port(desk):
    with serve(annotate_app.application(desk, AnnotateAppConfig("ads", (), None, None, lambda: None))) as port:
        yield port


def test_a_form_has_a_time_to_arrive(port, monkeypatch):
    monkeypatch.setattr(annotate_app, "FORM_SECONDS", 0.3)
    form = "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 1000\r\n\r\na"
    with socket.create_connection(("127.0.0.1", port), timeout=5) as line:
        line.sendall(f"POST /enter HTTP/1.1\r\nHost: x\r\nOrigin: http://x\r\n{form}".encode())
        reply = http.client.HTTPResponse(line)
        reply.begin()
        assert (reply.status, reply.read().decode()) == (403, annotate_app.REFUSED)


def test_who_leaves_in_the_middle_of_a_form_is_no_error(port, caplog):
    with hold_half_uploads(port, "/enter"):
        pass
    assert ask(port, "/") == 200
    assert "Exception" not in caplog.text


def ask(port, path):
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=5)) as connection:
        connection.request("GET", path)
        return connection.getresponse().status


def test_health_is_told_beside_half_forms(port):
    with hold_half_uploads(port, "/enter"):
        assert measure_health(port, "/") < 1
