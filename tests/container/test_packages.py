"""Every Python package in the image is there for a reason: serving needs it, and the running server imports what we ask for."""

from __future__ import annotations

import json
import re
from pathlib import Path

import openai
import pytest
from containers import docker, key

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3000)]
ROOT = Path(__file__).parents[2]
IMPORTED_LATER = {
    "alembic",  # when it opens an inference log of an older version, and migrates it
    "cryptography",  # when serve.trusted_keys_file names keys (tests/faults/test_revoked_key.py)
}
"""What a server imports only then."""
WANTED = ROOT / "requirements" / "serve-openvino.in"
LOOK = """
import importlib.metadata as m, json, sys
from pathlib import Path
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name as name

installed = {name(d.metadata["Name"]): d for d in m.distributions(path=[p for p in sys.path if "/app/.venv" in p])}
needed, todo = set(), [Requirement(line) for line in sys.stdin.read().splitlines() if line and line[0] != "#"]
seen = set()
while todo:
    one = todo.pop()
    who = name(one.name)
    needed.add(who)
    for extra in ("", *one.extras):
        if (who, extra) in seen or who not in installed:
            continue
        seen.add((who, extra))
        for line in installed[who].requires or ():
            asked = Requirement(line)
            if asked.marker is None or asked.marker.evaluate({"extra": extra}):
                todo.append(asked)
elsewhere = [str(p) for root in ("/usr", "/app/python") for p in Path(root).rglob("*.dist-info")]
size = lambda d: sum(Path(d.locate_file(f)).stat().st_size for f in d.files or () if Path(d.locate_file(f)).is_file())
owners = {top: [name(d) for d in ds] for top, ds in m.packages_distributions().items()}
print(json.dumps({"installed": {n: size(d) for n, d in installed.items()}, "needed": sorted(needed),
                  "elsewhere": elsewhere, "owners": owners}))
"""
"""Runs in the image: what is installed (bytes), and what the wanted packages need, with the markers of that Python."""


def look(image: str, *options: str) -> dict:
    words = ["--interactive", "--entrypoint", "python", *options, image, "-c", LOOK]
    return json.loads(docker("run", "--rm", *words, given=WANTED.read_text()))


def test_nothing_is_installed_that_serving_does_not_need(built) -> None:
    found = look(built.image)
    assert sorted(set(found["installed"]) - set(found["needed"])) == []
    assert sorted(set(found["needed"]) - set(found["installed"])) == []
    assert found["elsewhere"] == []  # no installer either


def test_a_package_that_nothing_needs_is_found(built, tmp_path) -> None:
    tmp_path.chmod(0o755)  # the image runs as somebody else
    (tmp_path / "METADATA").write_text("Metadata-Version: 2.4\nName: needless\nVersion: 1\n")
    place = docker("run", "--rm", "--entrypoint", "sh", built.image, "-c", "echo /app/.venv/lib/*/site-packages")
    found = look(built.image, "--volume", f"{tmp_path}:{place}/needless-1.dist-info:ro")
    assert set(found["installed"]) - set(found["needed"]) == {"needless"}


def test_the_running_server_imports_every_package_that_we_ask_for(built, run, volume, postgres, capsys) -> None:
    found = look(built.image)
    secret = key(built.image, volume, "all", "admin")
    live = ("--env", f"TUNECTL_INFERENCE_LOG_URL={postgres.database('packages')}", "--env", "PYTHONPROFILEIMPORTTIME=1")
    container = run("--network", "host", *live)
    container.until_ready()
    client = openai.OpenAI(base_url=f"{container.address}/v1", api_key=secret, max_retries=0, timeout=60)
    shape = {"type": "json_schema", "json_schema": {"name": "s", "schema": {"type": "object"}}}
    asked = [{"role": "user", "content": "I am Ann Lee, +1 202 555 0148"}]
    client.chat.completions.create(model="shop", messages=asked, max_tokens=8, response_format=shape)
    container.get("/metrics", secret)
    tops = {line.rpartition("|")[2].strip().partition(".")[0] for line in container.log().splitlines() if "|" in line}
    imported = {owner for top in tops for owner in found["owners"].get(top, ())}
    lines = [line for line in WANTED.read_text().splitlines() if line and not line.startswith("#")]
    asked_for = {re.split(r"[\[<>=]", line)[0].lower() for line in lines}
    never = {name: size for name, size in found["installed"].items() if name not in imported}
    with capsys.disabled():
        total = sum(found["installed"].values())
        print(f"\n{len(found['installed'])} packages, {total / 1e6:.0f} MB; not imported by a server that answers:")
        print("  " + ", ".join(f"{name} {size / 1e6:.1f} MB" for name, size in sorted(never.items())))
    assert sorted(asked_for - imported - IMPORTED_LATER) == []
