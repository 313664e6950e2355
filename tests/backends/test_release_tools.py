"""GTO tags in a real Git repository, the Hub's protocol over loopback, and the exporter environment's own rules."""

import json
import shutil
import socket
import subprocess
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tunectl.backends.export import exporter_env
from tunectl.backends.storage import hub_upload
from tunectl.backends.vcs import gto_tags
from tunectl.core.errors import InfrastructureError, UsageError


@pytest.fixture
def repository(tmp_path):
    for words in (
        ["init", "-q", "-b", "main"], ["config", "user.email", "a@b"], ["config", "user.name", "a"],
        ["commit", "-q", "--allow-empty", "-m", "one"],
    ):  # fmt: skip
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=tmp_path, check=True, capture_output=True, text=True)
    return tmp_path, done.stdout.strip()


def test_a_release_gets_one_version_and_the_champion_its_stage(repository):
    root, commit = repository
    assert gto_tags.register(root, "local_lens", release="abc", commit=commit, stage=None) == ["local-lens@v0.0.1"]
    again = gto_tags.register(root, "local_lens", release="abc", commit=commit, stage="champion")
    assert again == ["local-lens#champion#1"]
    subprocess.run(["git", "commit", "-q", "--allow-empty", "-m", "two"], cwd=root, check=True)
    done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, check=True, capture_output=True, text=True)
    made = gto_tags.register(root, "local_lens", release="def", commit=done.stdout.strip(), stage="champion")
    assert made == ["local-lens#champion#2", "local-lens@v0.0.2"]


def test_what_cannot_be_tagged_is_refused(repository):
    root, commit = repository
    with pytest.raises(UsageError, match="release abc was made outside Git, so there is no commit to tag"):
        gto_tags.register(root, "demo", release="abc", commit=None, stage=None)
    with pytest.raises(UsageError, match=f"made from changes that are not committed \\(on top of {commit[:12]}\\)"):
        gto_tags.register(root, "demo", release="abc", commit=f"{commit}-dirty", stage=None)


@pytest.mark.parametrize(("project", "commit"), [("demo", "--help"), ("--help", "HEAD")])
def test_a_manifest_of_somebody_else_gives_gto_no_option(repository, project, commit):
    root, _ = repository
    with pytest.raises(InfrastructureError, match="gto"):
        gto_tags.register(root, project, release="abc", commit=commit, stage=None)


class Hub(BaseHTTPRequestHandler):
    """As much of the Hub as an upload asks for."""

    def _send(self, value, code=200):
        body = json.dumps(value).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        self._send({"id": "me/demo", "sha": "0" * 40, "siblings": []})

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.seen.append((self.path, body))
        if self.server.refuse:
            self._send({"error": "no right to write"}, 403)
        elif self.path.endswith("/repos/create"):
            self._send({"url": f"http://127.0.0.1:{self.server.server_address[1]}/me/demo", "name": "me/demo"})
        elif "/preupload/" in self.path:
            names = [one["path"] for one in json.loads(body)["files"]]
            self._send({"files": [{"path": name, "uploadMode": "regular", "shouldIgnore": False} for name in names]})
        else:
            self._send(
                {
                    "commitUrl": f"http://127.0.0.1:{self.server.server_address[1]}/me/demo/commit/1",
                    "commitOid": "1" * 40,
                    "success": True,
                }
            )

    def log_message(self, *_):
        pass


@pytest.fixture
def hub(monkeypatch):
    import huggingface_hub.constants as constants

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.seen, server.refuse = [], False
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    address = f"http://127.0.0.1:{server.server_address[1]}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def release(tmp_path) -> Path:
    folder = tmp_path / "release"
    for name in ("adapter/adapter_config.json", "tokenizer/tokenizer.json", "contract.json", "MODEL_CARD.md"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("{}")
    return folder


def test_adapter_tokenizer_and_card_go_to_the_hub(hub, release, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    assert hub_upload.upload(release, "me/demo", private=True, message="m").endswith("/me/demo/commit/1")
    created = json.loads(hub.seen[0][1])
    assert (created["name"], created["organization"]) == ("demo", "me")
    assert created.get("private") or created.get("visibility") == "private"
    commit = [json.loads(line) for line in hub.seen[-1][1].splitlines()]
    files = {one["value"]["path"] for one in commit if one["key"] == "file"}
    assert files == {"README.md", "serving_contract.json", "adapter_config.json", "tokenizer.json"}


def test_what_the_hub_refuses_is_reported(hub, release):
    hub.refuse = True
    with pytest.raises(UsageError, match="the Hub refuses me/demo: "):
        hub_upload.upload(release, "me/demo", private=True, message="m")
    with pytest.raises(UsageError, match="the Hub refuses a/b/c: "):
        hub_upload.upload(release, "a/b/c", private=True, message="m")


def test_a_hub_that_does_not_answer_is_the_connections_fault(hub, release, monkeypatch):
    import huggingface_hub.constants as constants

    with socket.create_server(("127.0.0.1", 0)) as door:
        port = door.getsockname()[1]
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{port}")
    with pytest.raises(InfrastructureError, match="me/demo cannot be pushed: "):
        hub_upload.upload(release, "me/demo", private=True, message="m")


def test_an_environment_that_is_named_must_be_there(monkeypatch, tmp_path):
    monkeypatch.setenv("TUNECTL_EXPORTER", str(tmp_path / "python"))
    with pytest.raises(InfrastructureError, match=r"TUNECTL_EXPORTER = .*: there is no such file"):
        exporter_env.ensure_interpreter(tmp_path)


def test_an_environment_is_made_once_and_again_where_it_is_half(monkeypatch, tmp_path):
    monkeypatch.delenv("TUNECTL_EXPORTER", raising=False)
    empty = tmp_path / "export.txt"
    empty.write_text("# nothing\n")
    shutil.copy(exporter_env.lock_file().with_name("install.py"), tmp_path)
    monkeypatch.setattr(exporter_env, "lock_file", lambda name="": empty)
    tool = replace(exporter_env.EXPORTER, before=())  # test_install.py has torch, which takes a minute
    made = exporter_env.ensure_interpreter(tmp_path / "exporters", tool)
    assert made.is_file()
    before = (made.parents[1] / ".ready").stat().st_mtime_ns
    assert exporter_env.ensure_interpreter(tmp_path / "exporters") == made
    assert (made.parents[1] / ".ready").stat().st_mtime_ns == before
    assert (
        exporter_env.run_in_env(["-c", "import tunectl; print('here')"], "asking", exporters=tmp_path / "exporters")
        == "here\n"
    )
    with pytest.raises(InfrastructureError, match="asking failed: ZeroDivisionError"):
        exporter_env.run_in_env(["-c", "1/0"], "asking", exporters=tmp_path / "exporters")
    shutil.rmtree(made.parents[1])
    empty.write_text("no-such-package-of-tunectl @ file:///nowhere\n")
    with pytest.raises(
        InfrastructureError, match=r"the exporter environment cannot be made: installing export.txt failed: "
    ):
        exporter_env.ensure_interpreter(tmp_path / "exporters", tool)
    assert not list((tmp_path / "exporters").glob("*/.ready"))


def test_the_error_of_a_child_is_reported_with_the_lines_that_it_announces():
    stderr = "Traceback (most recent call last):\nInfrastructureError: out/release: the engine openvino failed on prompt 1 of 2: Exception from a.cpp:224:\n"
    stderr += "Exception from src/node.cpp:823:\n[CPU] node q_proj could not create a primitive\n  its log lines above may say more\n"
    assert (
        exporter_env.error_line(stderr)
        == "Exception from src/node.cpp:823: [CPU] node q_proj could not create a primitive"
    )
    assert exporter_env.error_line("warning\nValueError: no such file\n  at exit\n") == "ValueError: no such file"
    assert exporter_env.error_line("killed\n") == "killed"
    assert exporter_env.error_line("") == ""
