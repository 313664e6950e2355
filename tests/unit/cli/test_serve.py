"""`tunectl serve` says what stands in its way before it becomes the server."""

from __future__ import annotations

import socket
from pathlib import Path
from types import SimpleNamespace

import pytest
from serving_process import settings

from tunectl.access import api_keys
from tunectl.backends.storage import inference_log_sql
from tunectl.cli import serve
from tunectl.config.schema.inference_log import InferenceLogConfig
from tunectl.config.schema.serve import Serve
from tunectl.core.errors import InfrastructureError, UsageError


def root(url: str = "sqlite:///inference_log.sqlite", **section: object) -> SimpleNamespace:
    given = settings(inference_log__url=url, **section)
    return SimpleNamespace(
        inference_log=InferenceLogConfig.model_validate(given["inference_log"], strict=True),
        serve=Serve.model_validate(given["serve"], strict=True),
    )


def test_a_live_store_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(InfrastructureError, match="file") as caught:
        serve._refuse_unkept(root("sqlite:///file/inference_log.sqlite"))
    assert caught.value.exit_code == 5
    serve._refuse_unkept(root("sqlite:///inference_log.sqlite"))
    with (
        inference_log_sql.open_log("sqlite:///inference_log.sqlite", Path(), serving=True),
        pytest.raises(InfrastructureError, match=r"inference_log\.sqlite: another server writes to this inference log"),
    ):
        serve._refuse_unkept(root("sqlite:///inference_log.sqlite"))


def test_a_live_store_of_servers_with_another_salt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for hash_key in ("0123456789abcdef", "0123456789abcdef", "fedcba9876543210"):
        monkeypatch.setenv("TUNECTL_HASH_KEY", hash_key)
        if hash_key.startswith("0"):
            serve._refuse_unkept(root())
            continue
        with pytest.raises(InfrastructureError, match="hashed with another key"):
            serve._refuse_unkept(root())


@pytest.mark.parametrize(
    ("address", "shown"), [("127.0.0.1", "127.0.0.1"), ("localhost", "localhost"), ("::1", "[::1]")]
)
def test_it_says_where_everything_is(
    address: str, shown: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TUNECTL_KEYS", raising=False)
    here = root(host=address, port=3123)
    secret = serve._first_key(here)
    serve._print_addresses(here, secret)
    out = capsys.readouterr().out
    for what, path in (("OpenAI", "/v1"), ("docs", "/docs"), ("arena", "/arena"), ("metrics", "/metrics")):
        assert f"{what:<8} http://{shown}:3123{path}\n" in out
    assert f"key      {secret}   (named first; shown once)" in out
    key_store = api_keys.KeyStore(Path(here.serve.keys_file), 1.0)
    key_store.load()
    assert key_store.key(secret, "scrape", 0).name == "first"
    assert serve._first_key(here) is None
    serve._print_addresses(here, None)
    assert f"key      one of {here.serve.keys_file}; another: tunectl serve keys add NAME" in capsys.readouterr().out


def test_a_port_that_is_taken_and_a_store_without_a_champion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TUNECTL_REGISTRY", raising=False)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InfrastructureError) as caught:
            serve._refuse_taken(root(port=port))
    assert caught.value.message == f"serve.port = {port}: 127.0.0.1:{port} is taken by another program"
    with pytest.raises(UsageError, match="no release is champion; there are: none"):
        serve._refuse_nothing(root(registry="releases"))
