"""Signature policy of a registry with trusted keys: refuses unsigned releases, and changes that no server would follow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tunectl.access import signatures
from tunectl.core.errors import GateError
from tunectl.registry import event_log, registry_formats, release_manifest, release_state, release_statement
from tunectl.registry.registry_formats import FORKS
from tunectl.registry.release_state import ReleaseEvent

if TYPE_CHECKING:
    from tunectl.registry.release_store import ReleaseRegistry


def find_signature_problems(store: ReleaseRegistry, release: str) -> list[str]:
    """Return the problems of the signed statement about a release, one sentence each; none where signatures are not checked."""
    if store.trust is None:
        return []
    checked = release_statement.check_statement(store.read_statement(release), release, store.trust)
    if checked.statement is None or checked.status != "trusted":
        return [checked.reason]
    # as it was stored: a later commit is a line of the history, and nobody signs it
    stored = release_manifest.load(store.folder(release))
    differences = release_statement.find_differences(stored, checked.statement)
    return [f"release {release} is not what was signed: {', '.join(differences)} differ"] if differences else []


def describe_signature(store: ReleaseRegistry, release: str) -> str:
    """Return which key signed a release that ``find_signature_problems`` accepted, as text; empty where signatures are not checked.

    The text says so where the commit that the registry shows was added later, without a signature.
    """
    if store.trust is None:
        return ""
    checked = release_statement.check_statement(store.read_statement(release), release, store.trust)
    result = checked.reason.removeprefix(f"release {release}: ")
    if checked.statement is not None and checked.statement.predicateType == release_statement.FIRST_PREDICATE_TYPE:
        return f"{result} before statements covered the commit"
    later = store.manifest(release).git != release_manifest.load(store.folder(release)).git
    return f"{result}, its later commit by nobody" if later else result


def refuse_untrusted(store: ReleaseRegistry, release: str) -> None:
    """Check that a release and the pointer key of this machine are trusted, as servers with the same trusted keys require.

    Raises  GateError.
    """
    if store.trust is None:
        return
    problems = find_signature_problems(store, release)
    if problems:
        raise GateError(
            "; ".join(problems), hint=f"sign it with a key of {store.trust.path}: tunectl release sign {release}"
        )
    refuse_pointer_key(store)


def refuse_pointer_key(store: ReleaseRegistry) -> None:
    """Check that the pointer key of this machine is trusted, so that servers follow its promotions and rollbacks.

    Raises  GateError.
    """
    if store.trust is None:
        return
    key = signatures.load_named_key(signatures.POINTER_KEY_ENV)
    good = {entry.key_id for entry in store.trust.list_keys() if entry.role == "pointer" and entry.revoked_at is None}
    if key is None or key.key_id not in good:
        what = "is not set" if key is None else f"names a key that {store.trust.path} does not trust for pointers"
        raise GateError(
            f"servers follow only a champion pointer that a trusted key signed, and {signatures.POINTER_KEY_ENV} {what}",
            hint=f"export {signatures.POINTER_KEY_ENV}=FILE, with a private key whose role in {store.trust.path} is pointer",
        )


def choose_author(store: ReleaseRegistry, account: str) -> str:
    """Return the author of a pointer's change: the key that signs it where keys are trusted, else the account that runs the command.

    An author cannot be given on the command line; to record on whose behalf somebody acts, use the message (``-m``).
    """
    key = signatures.load_named_key(signatures.POINTER_KEY_ENV) if store.trust is not None else None
    if store.trust is None or key is None:
        return account  # where keys are trusted, the registry refuses a swap without one
    entries = [entry for entry in store.trust.list_keys() if entry.role == "pointer" and entry.key_id == key.key_id]
    return entries[0].name if entries else account


def find_obstacles(store: ReleaseRegistry, entries: Sequence[ReleaseEvent]) -> dict[str, str]:
    """Return the releases that a rollback must skip, with the reason for each: earlier champions, the newest first, up to the first that may serve.

    Reasons: the release is damaged, or no trusted key signed it or its promotion.
    """
    result: dict[str, str] = {}
    for release in reversed(release_state.promotion_stack(entries)[:-1]):
        wrong = (
            store.verify_quickly(release)
            or find_signature_problems(store, release)
            or _find_promotion_problems(store, release, entries)
        )
        if not wrong:
            break
        result[release] = "; ".join(wrong)
    return result


def _find_promotion_problems(store: ReleaseRegistry, release: str, entries: Sequence[ReleaseEvent]) -> list[str]:
    """Return why the history does not show that a release was champion: who may write to an address could have added the line."""
    if store.trust is None:
        return []
    signed, forks = False, _read_forks(store)
    for _, entry, pointer in release_state.iter_champions(entries):
        signed = signed or entry.signature is not None
        if entry.release != release:
            continue
        status = release_statement.check_pointer(pointer, store.trust).status if pointer is not None else "untrusted"
        if status == "trusted":
            return []
        line = registry_formats.EVENT.encode(entry)
        if any((entry.sequence or 0) < sequence and line not in before for sequence, before in forks.items()):
            continue  # it was not made here, and came from an address when a fork was resolved
        if status == "revoked" or (not signed and not store.manifest(release).refusals):
            return []  # its key was good here once; or it is older than the keys, and its gates did not refuse it
    return ["no trusted key signed its promotion"]


def _read_forks(store: ReleaseRegistry) -> dict[int, set[bytes]]:
    """Return the lines of the history of this registry before each fork was resolved, by the sequence that resolved it."""
    paths = [path for path in (store.root / FORKS).glob("*.jsonl") if path.stem.isdecimal()]
    return {int(path.stem): set(map(registry_formats.EVENT.encode, event_log.read_lines(path))) for path in paths}
