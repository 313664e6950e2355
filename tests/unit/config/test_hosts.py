"""What a program listens on: localhost or an IP address, in every section that has one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tunectl.artifacts.paths import ProjectPaths
from tunectl.config.loading import checks
from tunectl.config.loading.override_parsing import Override
from tunectl.core.errors import TunectlError

LAYOUT = ProjectPaths(Path(__file__).parents[3])


@pytest.mark.parametrize("section", ["annotate", "serve", "monitor", "retrain"])
def test_a_name_is_refused(section: str) -> None:
    with pytest.raises(TunectlError, match=f"{section}: host is shop.example; write localhost or an IP address"):
        checks.load_config(LAYOUT, [Override.from_cli(f"{section}.host=shop.example")])


@pytest.mark.parametrize("section", ["serve", "monitor", "retrain"])
@pytest.mark.parametrize("address", ["localhost", "127.0.0.1", "::1"])
def test_an_address_is_taken(section: str, address: str) -> None:
    root = checks.load_config(LAYOUT, [Override.from_cli(f"{section}.host='{address}'")]).root
    assert getattr(root, section).host == address


@pytest.mark.parametrize(
    "address",
    ["http://shop.example", "http://10.0.0.7:3200", "http://127.0.0.1.shop.example", "http://127.0.0.1@shop.example"],
)
def test_links_that_decide_are_not_sent_unencrypted(address: str) -> None:
    with pytest.raises(TunectlError, match="would get keys unencrypted; write https://"):
        checks.load_config(LAYOUT, [Override.from_cli(f"retrain.approval.url='{address}'")])


@pytest.mark.parametrize(
    "address", ["https://shop.example/loop", "http://localhost:3200", "http://127.0.0.1:3200", "http://[::1]:3200"]
)
def test_links_that_decide_are_encrypted_or_stay_on_this_machine(address: str) -> None:
    root = checks.load_config(LAYOUT, [Override.from_cli(f"retrain.approval.url='{address}'")]).root
    assert root.retrain.approval.url == address
