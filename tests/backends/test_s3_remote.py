"""S3 as a remote of DVC and as the registry's address: moto's server, with a bad key, a slow and a failing one."""

from __future__ import annotations

import http.server
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import moto_server
import pytest
import s3fs

from tunectl.backends.storage.object_store import FsspecObjectStore
from tunectl.backends.vcs import dvc_remote, dvc_repo
from tunectl.core.errors import ArtifactError, InfrastructureError, MissingExtraError
from tunectl.registry import protocols

PIPELINE = """
stages:
  split:
    cmd: tr a-z A-Z < rows > upper && echo 1 > metrics.json
    deps: [rows]
    outs: [upper]
    metrics: [metrics.json: {cache: false}]
"""


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with moto_server.serve_bucket(monkeypatch) as name:
        yield name


def make_project(folder: Path, bucket: str) -> Path:
    (folder / ".dvc").mkdir(parents=True)
    text = f"[core]\n    no_scm = true\n    remote = far\n['remote \"far\"']\n    url = s3://{bucket}/shop\n"
    (folder / ".dvc" / "config").write_text(text)
    (folder / "dvc.yaml").write_text(PIPELINE)
    (folder / "rows").write_text("hello\n")
    return folder


def dvc(folder: Path, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "dvc", *words],
        cwd=folder,
        env={**os.environ, "DVC_NO_ANALYTICS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_a_key_of_the_run_cache_that_leads_elsewhere_is_refused(bucket: str, tmp_path: Path) -> None:
    root = make_project(tmp_path / "one" / "two" / "project", bucket)
    with s3fs.S3FileSystem().open(f"{bucket}/shop/runs/../../../../../escaped", "wb") as stream:
        stream.write(b"from outside")
    with pytest.raises(InfrastructureError, match="leads elsewhere; check who may write to the remote"):
        dvc_remote.fetch_runs(root, "far")
    assert not list(tmp_path.rglob("escaped"))


def test_the_cache_of_runs_goes_to_s3_and_another_machine_runs_nothing(bucket: str, tmp_path: Path) -> None:
    there, here = make_project(tmp_path / "there", bucket), make_project(tmp_path / "here", bucket)
    dvc(there, "repro")
    (there / "tunectl-job").mkdir()
    (there / "tunectl-job" / "metrics.json").write_bytes((there / "metrics.json").read_bytes())
    dvc(there, "add", "--quiet", "tunectl-job")
    remote = dvc_remote.read_remote(there, None)
    dvc_remote.push(there, remote, ["split", "tunectl-job.dvc"])
    dvc_remote.fetch_runs(here, remote)
    assert dvc_repo.restore(here, ["split"]) == 0
    assert (here / "upper").read_text() == "HELLO\n"
    assert "didn't change, skipping" in dvc(here, "repro")


def test_a_bad_key_is_said_by_dvc_and_by_the_registry(bucket: str, tmp_path: Path) -> None:
    folder = make_project(tmp_path / "shop", bucket)
    dvc(folder, "repro")
    store = FsspecObjectStore(f"s3://{bucket}/releases")
    moto_server.set_open_requests("0")
    with pytest.raises(InfrastructureError, match=r"dvc push failed: .*(Access Key Id|Forbidden|forbidden)") as caught:
        dvc_remote.push(folder, "far", ["split"])
    assert "keys" in caught.value.hint
    with pytest.raises(
        InfrastructureError, match=rf"s3://{bucket}/releases/champion/1\.json: .*(Access Key Id|Forbidden)"
    ):
        store.read("champion/1.json")
    with pytest.raises(InfrastructureError, match=r"Access Key Id|Forbidden"):
        store.create("champion/1.json", b"{}")


def test_more_than_is_declared_is_not_brought_from_s3(bucket: str, tmp_path: Path) -> None:
    store = FsspecObjectStore(f"s3://{bucket}/releases")
    store.write("champion/000001.json", b" " * (protocols.MAX_RECORD_BYTES + 1))
    with pytest.raises(ArtifactError, match=r"champion/000001\.json has more than 1,000,000 bytes"):
        store.read("champion/000001.json")
    content = bytes(range(256)) * 80_000
    store.write("releases/a/weights", content)
    with pytest.raises(
        ArtifactError, match=rf"s3://{bucket}/releases/releases/a/weights has more than the 20,479,999 bytes"
    ):
        store.fetch("releases/a/weights", tmp_path / "weights", len(content) - 1)
    assert not (tmp_path / "weights").exists()
    assert store.fetch("releases/a/weights", tmp_path / "weights", len(content)) == len(content)
    assert (tmp_path / "weights").read_bytes() == content
    store.remove("releases/a/weights")
    with pytest.raises(FileNotFoundError):
        store.fetch("releases/a/weights", tmp_path / "weights", 1)


class _Failing(http.server.BaseHTTPRequestHandler):
    """Answers every request with 503."""

    def do_GET(self) -> None:
        body = b"<Error><Code>ServiceUnavailable</Code><Message>Please try again later</Message></Error>"
        self.send_response(503)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_PUT = do_HEAD = do_POST = do_GET

    def log_message(self, *_: object) -> None:
        pass


class _Silent(_Failing):
    """Takes requests and does not answer."""

    def do_GET(self) -> None:
        time.sleep(20)
        self.close_connection = True

    do_PUT = do_HEAD = do_POST = do_GET


@pytest.fixture(params=[_Failing, _Silent])
def broken(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[type]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), request.param)
    server.daemon_threads = True
    server.block_on_close = False
    threading.Thread(target=server.serve_forever, daemon=True).start()
    moto_server.set_address(monkeypatch, f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr(s3fs.S3FileSystem, "read_timeout", 1)
    yield request.param
    server.shutdown()
    server.server_close()
    s3fs.S3FileSystem.clear_instance_cache()


def test_a_store_that_fails_or_does_not_answer_is_an_error_in_bounded_time(broken: type) -> None:
    store = FsspecObjectStore("s3://bucket/releases")
    reason = "try again later" if broken is _Failing else "[Rr]ead timeout"
    started = time.monotonic()
    with pytest.raises(InfrastructureError, match=rf"s3://bucket/releases/champion/1\.json: .*{reason}") as caught:
        store.read("champion/1.json")
    assert time.monotonic() - started < 15  # s3fs alone asks five times, with pauses of 15 s and more between
    assert "check the address, the network" in caught.value.hint
    with pytest.raises(InfrastructureError, match="releases"):
        store.names("champion")


def test_dvc_at_a_store_that_fails_or_does_not_answer_is_an_error_in_bounded_time(
    broken: type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dvc_remote, "MAX_SECONDS", 300 if broken is _Failing else 5)
    folder = make_project(tmp_path / "shop", "bucket")
    dvc(folder, "repro")
    calls = {
        "push": lambda: dvc_remote.push(folder, "far", ["split"]),
        "fetch": lambda: dvc_remote.fetch_runs(folder, "far"),
    }
    for name, call in calls.items():
        reason = "failed: .*(try again later|Service Unavailable)" if broken is _Failing else "did not end within 5 s"
        started = time.monotonic()
        with pytest.raises(InfrastructureError, match=rf"dvc {name} {reason}"):
            call()
        assert time.monotonic() - started < (60 if broken is _Failing else 15)


@pytest.mark.parametrize(("kind", "extra"), [("gs", "gs"), ("azure", "azure")])
def test_a_remote_whose_driver_is_missing_names_the_extra(kind: str, extra: str, tmp_path: Path) -> None:
    folder = make_project(tmp_path / "shop", "bucket")
    text = (folder / ".dvc" / "config").read_text().replace("s3://", f"{kind}://")
    (folder / ".dvc" / "config").write_text(text)
    with pytest.raises(MissingExtraError, match=f"dvc_{extra} is not installed") as caught:
        dvc_remote.read_remote(folder, None)
    assert f"[{extra}]" in caught.value.hint
