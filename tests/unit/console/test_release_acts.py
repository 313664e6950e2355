"""Acts on releases: consequences first, a reason, the name of who did it, 409 where somebody was quicker, scopes."""

from __future__ import annotations

import re
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml
from console_projects import Console, build, digest_project
from msgspec.structs import replace

from tunectl.access import signatures
from tunectl.access.signatures import TrustedKey, TrustStore
from tunectl.canary.canary_store import CanaryStore
from tunectl.config.schema.retrain import CanaryConfig
from tunectl.console.act_table import ACTS
from tunectl.console.console_sessions import Visitor
from tunectl.pipeline import build_tracking
from tunectl.registry import release_statement
from tunectl.registry.release_store import ReleaseRegistry
from tunectl.retraining.canary_run import build_canary_record

ROOT = Path(__file__).parents[3]
OWN = {"Origin": "http://localhost", "Sec-Fetch-Site": "same-origin"}


@pytest.fixture
def console(tmp_path: Path) -> Console:
    return Console(build(tmp_path / "shop"))


def registry(console: Console) -> ReleaseRegistry:
    return ReleaseRegistry(console.layout.releases)


def hidden_fields(page: str) -> dict[str, str]:
    return dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', page))


def test_a_promotion_shows_what_happens_and_is_recorded_with_name_and_reason(console: Console) -> None:
    store = registry(console)
    first, second, _ = store.ids()
    page = console.client.get(f"/releases/{first}/promote")
    assert f"{second} stops being the champion" in page.text
    reply = console.post(f"/releases/{first}/promote", reason="it was better", **hidden_fields(page.text))
    assert (reply.status_code, reply.headers["location"]) == (303, f"/releases/{first}")
    champion = store.champion()
    assert (champion.release, champion.message, champion.previous) == (first, "it was better", second)
    assert champion.author == console.sign_in.find(next(iter(console.client.cookies.values()))).name


def test_where_servers_check_signatures_an_act_is_signed_or_refused(
    console: Console, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, path = registry(console), tmp_path / "trusted.json"
    first, second, _ = store.ids()
    for name, role in (("ci", "release"), ("ops", "pointer")):
        key = signatures.generate_key(tmp_path / f"{name}.key")
        signatures.add_trusted_key(path, TrustedKey(name, role, key.public_key, datetime.now(UTC)))
    monkeypatch.setenv(signatures.TRUSTED_KEYS_ENV, str(path))
    monkeypatch.setenv(signatures.POINTER_KEY_ENV, str(tmp_path / "ops.key"))
    shown = hidden_fields(console.client.get(f"/releases/{first}/promote").text)
    reply = console.post(f"/releases/{first}/promote", reason="it was better", **shown)
    assert f"release {first} is not signed" in reply.text
    assert store.champion().release == second
    release_statement.sign_release(store.folder(first), signatures.load_key(tmp_path / "ci.key"))
    reply = console.post(f"/releases/{first}/promote", reason="it was better", **shown)
    assert reply.status_code == 303
    assert release_statement.check_pointer(store.champion(), TrustStore(path)).reason == "signed by ops"


def test_two_people_and_one_button(console: Console) -> None:
    store = registry(console)
    first, second, _ = store.ids()
    shown = hidden_fields(console.client.get("/rollback").text)
    store.promote(first, author="somebody", message="quicker")
    reply = console.post("/rollback", reason="too slow", **shown)
    assert reply.status_code == 409
    assert "somebody else changed the champion" in reply.text
    assert store.champion().release == first
    stale = console.post(f"/releases/{second}/promote", reason="x", **shown)
    assert stale.status_code == 409


@pytest.mark.parametrize("act", ["rollback", "canary", "canary/stop"])
def test_two_who_press_at_the_same_time_do_it_once(console: Console, monkeypatch: pytest.MonkeyPatch, act: str) -> None:
    """Somebody else's change falls between what a form says and the lock: it is looked at once the lock is held."""
    store = registry(console)
    first = store.ids()[0]
    if act == "canary/stop":
        store.start_canary(first, share=0.1, author="ada", message="try")
    path = f"/releases/{first}/canary" if act == "canary" else f"/{act}"
    shown = hidden_fields(console.client.get(path).text)
    hold_lock = ReleaseRegistry.hold_lock

    def come_second(self: ReleaseRegistry, description: str) -> AbstractContextManager[None]:
        monkeypatch.setattr(ReleaseRegistry, "hold_lock", hold_lock)
        if act == "rollback":
            store.promote(first, author="grace", message="quicker")
        else:
            store.start_canary(first, share=0.5, author="grace", message="quicker")
        return hold_lock(self, description)

    monkeypatch.setattr(ReleaseRegistry, "hold_lock", come_second)
    assert console.post(path, reason="too late", share="10", **shown).status_code == 409
    assert store.log()[-1].message == "quicker"


def test_a_rollback_goes_back(console: Console) -> None:
    store = registry(console)
    first = store.ids()[0]
    shown = hidden_fields(console.client.get("/rollback").text)
    assert console.post("/rollback", reason="answers got worse", **shown).headers["location"] == f"/releases/{first}"
    assert store.champion().action == "rollback"
    assert console.client.get("/rollback").status_code == 404  # nothing lies below


def test_a_canary_starts_and_stops(console: Console) -> None:
    store = registry(console)
    first = store.ids()[0]
    shown = hidden_fields(console.client.get(f"/releases/{first}/canary").text)
    wrong = console.post(f"/releases/{first}/canary", reason="try", share="many", **shown)
    assert wrong.status_code == 422
    assert console.post(f"/releases/{first}/canary", reason="try", share="10", **shown).status_code == 303
    assert store.canary().share == 0.1
    shown = hidden_fields(console.client.get("/canary/stop").text)
    assert console.post("/canary/stop", reason="enough", **shown).status_code == 303
    assert store.canary() is None


def test_the_tracker_follows_each_act_and_no_refused_one(console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[object] = []
    monkeypatch.setattr(build_tracking, "mirror_releases", told.append)
    first, second, _ = registry(console).ids()

    def act(path: str, **fields: str) -> list[object]:
        told.clear()
        console.post(path, **{"reason": "try", **hidden_fields(console.client.get(path).text), **fields})
        return list(told)

    assert act(f"/releases/{first}/promote", reason="") == []
    for path, fields in (
        (f"/releases/{first}/promote", {}),
        ("/rollback", {}),
        (f"/releases/{first}/canary", {"share": "10"}),
        ("/canary/stop", {}),
    ):
        assert act(path, **fields) == [console.layout], path
    assert (registry(console).champion().release, registry(console).canary()) == (second, None)


def test_a_canary_with_a_test_is_stopped_with_it_and_replaced_by_nobody(console: Console) -> None:
    """The retrain controller serves the challenger of every test that runs: one that only the registry forgot would come back."""
    canaries = CanaryStore(registry(console))
    first, _, third = canaries.store.ids()
    now = datetime.now(UTC)
    config = CanaryConfig.model_validate(
        yaml.safe_load((ROOT / "conf/retrain/default.yaml").read_text(encoding="utf-8"))["canary"]
    )
    record = build_canary_record(config, first, name="manual-1", now=now, author="Ann", message="try")
    canaries.start(replace(record, run=None))
    refused = console.client.get(f"/releases/{third}/canary")
    assert (refused.status_code, f"canary manual-1 has been testing {first}" in refused.text) == (409, True)
    assert 'href="/releases">Back' in refused.text
    page = console.client.get("/canary/stop").text
    assert "Its test ends without a decision." in page
    shown = hidden_fields(page)
    reply = console.post(f"/releases/{third}/canary", reason="try", share="10", **shown)
    assert (reply.status_code, canaries.store.canary().release) == (409, first)
    assert console.post("/canary/stop", reason="too slow", **{**shown, "canary": "another"}).status_code == 409
    assert console.post("/canary/stop", reason="too slow", **shown).headers["location"] == f"/releases/{first}"
    (ended,) = canaries.all()
    assert (ended.decision, canaries.store.canary(), canaries.repair()) == ("running", None, False)
    assert "too slow" in canaries.store.log()[-1].message


def test_back_leads_to_what_can_be_shown(console: Console) -> None:
    first = registry(console).ids()[0]
    path = f"/releases/{first}/promote"
    without_reason = console.post(path, reason="", **hidden_fields(console.client.get(path).text))
    assert f'href="{path}">Back' in without_reason.text  # the form can be filled again
    moved = console.post(path, reason="x", sequence="0", canary="")
    assert (moved.status_code, 'href="/releases">Back' in moved.text) == (409, True)


def test_a_gate_is_not_passed_by_a_button(console: Console) -> None:
    refused = registry(console).ids()[2]
    page = console.client.get(f"/releases/{refused}/promote").text
    assert "A gate failed" in page
    assert '<button class="primary">' not in page
    champion = registry(console).champion()
    reply = console.post(f"/releases/{refused}/promote", reason="all the same", sequence=str(champion.sequence))
    assert reply.status_code == 422
    assert registry(console).champion() == champion


@pytest.mark.parametrize("reason", ["", "   ", "x" * 501])
def test_without_a_reason_nothing_happens(console: Console, reason: str) -> None:
    before = digest_project(console.layout.root)
    first = registry(console).ids()[0]
    assert console.post(f"/releases/{first}/promote", reason=reason, sequence="2").status_code == 422
    assert digest_project(console.layout.root) == before


@pytest.mark.parametrize("act", ACTS, ids=lambda act: act.path)
def test_each_act_needs_its_scope_its_page_and_a_session(console: Console, act: object) -> None:
    path = act.path.replace("{release}", registry(console).ids()[0])
    before = digest_project(console.layout.root)
    fields = {"reason": "x", "sequence": "2", "share": "10"}
    assert console.stranger().post(path, data=fields, headers=OWN).status_code == 401
    assert console.client.post(path, data=fields, headers={"Origin": "http://evil.example"}).status_code == 403
    console.app.guard.identify = lambda _request: Visitor("looker", frozenset({"look"}))  # type: ignore[method-assign]
    assert console.post(path, **fields).status_code == 403
    assert digest_project(console.layout.root) == before


def test_a_console_that_only_shows_does_nothing(tmp_path: Path) -> None:
    console = Console(build(tmp_path / "shop"), acts=False)
    first = registry(console).ids()[0]
    assert "/promote" not in console.client.get(f"/releases/{first}").text
    assert console.post(f"/releases/{first}/promote", reason="x", sequence="2").status_code == 403
