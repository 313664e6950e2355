"""A release key is revoked between canary and promotion (fault 34): what serves goes on, nobody is promoted, a restart skips it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from serving_process import Server

from scenarios.fault_result import FaultResult
from scenarios.load_patterns import CHAT, chat
from tunectl.access import signatures
from tunectl.access.signatures import TrustedKey, TrustStore
from tunectl.core.errors import GateError
from tunectl.registry import release_statement
from tunectl.registry.release_store import ReleaseRegistry

ROLES = {"ci": "release", "stolen": "release", "ops": "pointer"}


@contextmanager
def _pointer_key(path: Path) -> Iterator[None]:
    before = os.environ.get(signatures.POINTER_KEY_ENV)
    os.environ[signatures.POINTER_KEY_ENV] = str(path)
    try:
        yield
    finally:
        del os.environ[signatures.POINTER_KEY_ENV]
        if before is not None:
            os.environ[signatures.POINTER_KEY_ENV] = before


def _serves(body: Mapping[str, Any]) -> dict[str, str]:
    variants = body.get("variants", {})
    return {name: variants[name]["release"] for name in ("champion", "challenger") if name in variants}


def revoke_in_canary(folder: Path, store: ReleaseRegistry, champion: str, challenger: str) -> FaultResult:
    """Serve both, revoke the key that signed the challenger, try to promote it, restart the server, and sign again."""
    found = FaultResult(
        34, "revoked key", "what serves goes on; no promotion, and no load after a restart, until it is signed again"
    )
    path = folder / "trusted.json"
    for name, role in ROLES.items():
        key = signatures.generate_key(folder / f"{name}.key")
        signatures.add_trusted_key(path, TrustedKey(name, role, key.public_key, datetime.now(UTC)))
    for release, name in ((champion, "ci"), (challenger, "stolen")):
        release_statement.sign_release(store.folder(release), signatures.load_key(folder / f"{name}.key"))
    store.trust = TrustStore(path)
    with _pointer_key(folder / "ops.key"):
        store.promote(challenger, author="ops", message="so that the next one is signed, too")
        store.promote(champion, author="ops", message="the champion")
        store.start_canary(challenger, share=0.5, author="ops", message="try")
        env = {"TUNECTL_REGISTRY": str(store.root), signatures.TRUSTED_KEYS_ENV: str(path)}
        server = Server(folder / "server", env=env)
        try:
            _play(found, server, store, path, champion, challenger)
        finally:
            server.stop()
    return found


def _play(
    found: FaultResult, server: Server, store: ReleaseRegistry, path: Path, champion: str, challenger: str
) -> None:
    both = {"champion": champion, "challenger": challenger}
    reason = f"release {challenger}: signed by stolen, whose key was revoked"
    body = server.wait(lambda _, body: _serves(body) == both, 240)
    found.require("status" not in body, f"before: {body}")
    signatures.revoke_trusted_key(path, "stolen")
    body = server.wait(lambda _, body: body.get("status") == "degraded")
    found.require(body["ready"] and _serves(body) == both, f"revoked: {body}")
    found.require(reason in body["problems"].get("registry", ""), f"its reason: {body['problems']}")
    try:
        store.promote(challenger, author="ops", message="it won")
        found.require(False, "it was promoted")
    except GateError as error:
        found.require(error.message == reason, f"refused for: {error.message}")
    status = server.call(CHAT, chat(4, stream=False))[0]
    found.require(status == 200, f"a request was answered with {status}")
    server.stop()
    server.start()
    body = server.wait(lambda ready, body: ready and body.get("status") == "degraded", 240)
    found.require(_serves(body) == {"champion": champion}, f"after a restart: {body}")
    release_statement.sign_release(store.folder(challenger), signatures.load_key(path.parent / "ci.key"))
    server.wait(lambda _, body: _serves(body) == both)
    store.promote(challenger, author="ops", message="it won")
    body = server.wait(lambda _, body: _serves(body) == {"champion": challenger})
    found.require("status" not in body, f"signed again: {body}")
