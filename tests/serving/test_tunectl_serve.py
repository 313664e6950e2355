"""`tunectl serve`, typed in a project: the key that it prints opens everything it names, and keys change while it runs."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest
from serving_process import TypedServer

from tunectl.registry.release_store import ReleaseRegistry


@pytest.mark.timeout(400)
def test_from_one_command_to_an_answer(store: ReleaseRegistry, releases: tuple[Path, str, str], tmp_path: Path) -> None:
    server = TypedServer(tmp_path / "project", store.root)
    try:
        said = server.until_ready(240)
        assert said["variants"]["champion"]["release"] == releases[1]
        told = server.log.read_text()
        first = re.search(r"^key +(tk-\S+) +\(named first; shown once\)$", told, re.MULTILINE)[1]
        for what, path in (("docs", "/docs"), ("arena", "/arena"), ("metrics", "/metrics"), ("ready", "/readyz")):
            assert f"{what:<8} {server.address}{path}\n" in told
            assert server.call(path, key=first)[0] == 200
        hi = {"model": "local_lens", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 3}
        assert server.call("/v1/chat/completions", hi, key=first)[0] == 200
        assert first not in (server.folder / ".tunectl" / "keys.json").read_text()
        made = json.loads(server.run("serve", "keys", "add", "shop", "--scope", "chat", "--json"))["key"]
        time.sleep(1.2)  # the file of keys is looked at once a second
        assert server.call("/v1/chat/completions", hi, key=made)[0] == 200
        assert server.call("/metrics", key=made)[0] == 403
        server.run("serve", "keys", "remove", "shop")
        time.sleep(1.2)
        assert server.call("/v1/models", key=made)[0] == 401
        assert first not in server.log.read_text().replace(told, "")  # said once, and never logged
    finally:
        assert server.stop(seconds=90) == 0
