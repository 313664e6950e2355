"""Signed statements about releases: in-toto statements in DSSE envelopes, ``<id>.intoto.json`` beside the folder of the release.

The subjects are all files with their full SHA-256; the predicate has the digest over all of them, the verdicts of the gates, the
lineage, and the commit of the project, which the first version left out. Pointers and canaries have that digest and their own signature, by a key of role pointer.

https://github.com/in-toto/attestation/tree/main/spec/v1 and https://github.com/secure-systems-lab/dsse
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
from msgspec import Struct, field, structs

from tunectl.access import signatures
from tunectl.access.signatures import SignatureCheck, SignatureStatus, SigningKey, TrustStore
from tunectl.artifacts import atomic_io
from tunectl.artifacts.canary_state import CanaryState, Signature
from tunectl.core.errors import ArtifactError, GateError
from tunectl.registry import release_manifest, release_state
from tunectl.registry.release_manifest import ReleaseManifest
from tunectl.registry.release_state import ChampionPointer, ReleaseEvent

ENDING: Final = ".intoto.json"
STATEMENT_TYPE: Final = "https://in-toto.io/Statement/v1"
FIRST_PREDICATE_TYPE: Final = "urn:tunectl:release:v1"
PREDICATE_TYPE: Final = "urn:tunectl:release:v2"
PAYLOAD_TYPE: Final = "application/vnd.in-toto+json"
POINTER_TYPE: Final = "application/vnd.tunectl.pointer+json"


class StatementSubject(Struct, frozen=True):
    """One file of a release and its SHA-256 in a statement."""

    name: str
    digest: dict[str, str]


class ReleaseStatement(Struct, frozen=True):
    """An in-toto statement about a release: its files, verdicts, lineage and commit; a release key signs it."""

    type: str = field(name="_type")
    subject: list[StatementSubject]
    predicateType: str  # noqa: N815  in-toto's word
    predicate: dict[str, Any]


class EnvelopeSignature(Struct, frozen=True):
    """A signature over the envelope's payload, base64, and the id of its key."""

    keyid: str
    sig: str


class SignedEnvelope(Struct, frozen=True):
    """A DSSE envelope: the statement in base64 with its signatures."""

    payloadType: str  # noqa: N815  DSSE's word
    payload: str
    signatures: list[EnvelopeSignature]


class StatementCheck(NamedTuple):
    """Result of ``check_statement``: status of the signature, the reason, and the statement where it is trusted."""

    status: SignatureStatus
    reason: str
    statement: ReleaseStatement | None = None
    """The statement; None where no trusted key signed it."""


def build_statement(manifest: ReleaseManifest, predicate_type: str = PREDICATE_TYPE) -> ReleaseStatement:
    """Return the unsigned in-toto statement about a release; ``predicate_type``: its version. The same manifest gives the same statement."""
    facts = msgspec.to_builtins(manifest)
    names = ["id", "project", "engine", "layout", "bytes", "metrics", "verdicts", "lineage"]
    if predicate_type != FIRST_PREDICATE_TYPE:
        names.append("git")
    predicate = {"digest": release_manifest.content_digest(manifest.files), **{name: facts[name] for name in names}}
    subjects = [StatementSubject(name, {"sha256": sha256}) for name, sha256 in sorted(manifest.files.items())]
    return ReleaseStatement(STATEMENT_TYPE, subjects, predicate_type, predicate)


def encode_pre_authentication(kind: str, payload: bytes) -> bytes:
    """Return the bytes that are signed: the pre-authentication encoding (PAE) of DSSE."""
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind.encode(), len(payload), payload)


def statement_path(folder: Path) -> Path:
    """Return the path of the signed statement about the release in ``folder``: ``ID.intoto.json`` beside it."""
    return folder.parent / f"{folder.name}{ENDING}"


def sign_release(folder: Path, key: SigningKey) -> Path:
    """Write the signed statement of a release (in-toto) to ``ID.intoto.json`` beside it and return that path; others' signatures of it are kept.

    Raises  ArtifactError for a damaged release, which is not signed.
    """
    wrong = release_manifest.verify(folder)
    if wrong:
        raise ArtifactError(
            f"release {folder.name} is damaged: {'; '.join(wrong)}",
            hint="nothing was signed; package it again: tunectl repro",
        )
    payload = msgspec.json.encode(build_statement(release_manifest.load(folder)), order="deterministic")
    path, encoded = statement_path(folder), base64.b64encode(payload).decode()
    others: list[EnvelopeSignature] = []
    if path.is_file():
        existing = _decode_envelope(path.read_bytes())
        if existing is not None and existing.payload == encoded:
            others = [entry for entry in existing.signatures if entry.keyid != key.key_id]
    signature = key.sign(encode_pre_authentication(PAYLOAD_TYPE, payload))
    envelope = SignedEnvelope(PAYLOAD_TYPE, encoded, [*others, EnvelopeSignature(signature.key_id, signature.value)])
    atomic_io.write_bytes(path, msgspec.json.encode(envelope) + b"\n")
    return path


def merge_signatures(content: bytes, existing: bytes | None) -> bytes:
    """Return the envelope ``existing`` with the signatures of ``content``, or ``content`` where it is another statement or none.

    Of a key that signed both, the signature in ``content`` is taken.
    """
    own, other = _decode_envelope(content), _decode_envelope(existing or b"")
    if own is None or other is None or (own.payloadType, own.payload) != (other.payloadType, other.payload):
        return content
    signed = {entry.keyid: entry for entry in (*other.signatures, *own.signatures)}
    if list(signed.values()) == other.signatures:
        return existing or content
    return msgspec.json.encode(structs.replace(other, signatures=list(signed.values()))) + b"\n"


def sign_by_environment(folder: Path) -> None:
    """Sign the release in ``folder`` where the environment variable TUNECTL_RELEASE_KEY names a key; else do nothing."""
    key = signatures.load_named_key(signatures.RELEASE_KEY_ENV)
    if key is not None:
        sign_release(folder, key)


def check_statement(content: bytes | None, release: str, trust: TrustStore) -> StatementCheck:
    """Return the signature status of the statement ``content`` about ``release``, and the statement where a trusted key signed it."""
    if content is None:
        return StatementCheck("untrusted", f"release {release} is not signed")
    envelope = _decode_envelope(content)
    try:
        payload = base64.b64decode(envelope.payload, validate=True) if envelope is not None else b""
        statement = msgspec.json.decode(payload, type=ReleaseStatement)
    except (binascii.Error, *atomic_io.NOT_JSON):
        statement = None
    if envelope is None or statement is None or envelope.payloadType != PAYLOAD_TYPE:
        return StatementCheck("untrusted", f"the statement about release {release} is malformed")
    signed = [Signature(entry.keyid, entry.sig) for entry in envelope.signatures]
    status, reason = trust.check(encode_pre_authentication(PAYLOAD_TYPE, payload), signed, "release")
    if status == "untrusted":
        return StatementCheck(status, f"release {release} {reason}")
    known = statement.type == STATEMENT_TYPE and statement.predicateType in (FIRST_PREDICATE_TYPE, PREDICATE_TYPE)
    if not known or statement.predicate.get("id") != release:
        return StatementCheck("untrusted", f"the statement beside release {release} is about another one")
    return StatementCheck(status, f"release {release}: {reason}", statement)


def find_differences(manifest: ReleaseManifest, statement: ReleaseStatement) -> list[str]:
    """Return the names of the facts (files, verdicts, lineage, ...) in which a manifest differs from the statement about it.

    A statement of the first version says nothing about the commit.
    """
    own = build_statement(manifest, statement.predicateType)
    result = [] if own.subject == statement.subject else ["files"]
    names = sorted({*own.predicate, *statement.predicate})
    return result + [name for name in names if own.predicate.get(name) != statement.predicate.get(name)]


def is_same_build(own: ReleaseManifest, stored: ReleaseManifest) -> bool:
    """Return whether the two manifests agree in all that a signed statement covers, so that the builder of ``own`` may sign ``stored``.

    Where ``stored`` was built from no commit or a dirty tree, the commits are not compared.
    """
    if not release_manifest.is_committed(stored.git):
        own = structs.replace(own, git=stored.git)
    return not find_differences(own, build_statement(stored))


def check_manifest(manifest: ReleaseManifest, digest: str | None, statement: ReleaseStatement | None) -> None:
    """Check that a release has the ``digest`` in the pointer to it, and the facts in its signed statement (None: not compared).

    The seed of a Bento names no commit, and is the same release as the one in the registry: no commit differs from none here.
    Raises  GateError where either differs.
    """
    actual = release_manifest.content_digest(manifest.files)
    if digest is not None and actual != digest:
        raise GateError(
            f"release {manifest.id} has the digest {actual[:20]}…, and its pointer names {digest[:20]}…",
            hint="another release took its name: restore the store, and check who may write there",
        )
    differences = find_differences(manifest, statement) if statement is not None else []
    if statement is not None and None in (manifest.git, statement.predicate.get("git")):
        differences = [name for name in differences if name != "git"]
    if differences:
        raise GateError(
            f"release {manifest.id} is not what was signed: {', '.join(differences)} differ",
            hint="if nobody changed it on purpose, restore it from a backup and check who may write there; else sign it: "
            f"tunectl release sign {manifest.id}",
        )


def encode_pointer(pointer: ChampionPointer | CanaryState) -> bytes:
    """Return the bytes of a pointer that are signed: all fields but the signature, among them the release that a rollback would restore."""
    plain = msgspec.to_builtins(pointer)
    payload = {name: value for name, value in plain.items() if name != "signature"}
    payload["kind"] = "champion" if isinstance(pointer, ChampionPointer) else "canary"
    return encode_pre_authentication(POINTER_TYPE, msgspec.json.encode(payload, order="sorted"))


def sign_champion(pointer: ChampionPointer, key: SigningKey | None) -> ChampionPointer:
    """Return the pointer with a signature; without a key unchanged."""
    return structs.replace(pointer, signature=key.sign(encode_pointer(pointer))) if key is not None else pointer


def sign_swap(pointer: ChampionPointer, before: Sequence[ReleaseEvent], key: SigningKey | None) -> ChampionPointer:
    """Return the pointer, signed, after setting ``previous`` to the release that a rollback would restore by the history ``before``."""
    after = release_state.champion_of([*before, release_state.entry_of(pointer, before)])
    return sign_champion(structs.replace(pointer, previous=after.previous if after else None), key)


def find_forged_swap(
    entries: Sequence[ReleaseEvent], trust: TrustStore, known_count: int = 0, *, force: bool = False
) -> ReleaseEvent | None:
    """Return the first promotion or rollback without a trusted signature for its place in the history, or out of sequence; None: all are valid.

    All are checked before a history is adopted, because a later rollback may restore the release of any of them.

    Args:
        entries: the history.
        trust: the trusted keys.
        known_count: number of events at its beginning that the registry has already: their signatures are not checked again.
        force: accept signatures of keys that were revoked since, and events without a signature before the first signed one.
    """
    signed, sequence = False, 0
    for number, entry, pointer in release_state.iter_champions(entries):
        signed = signed or entry.signature is not None
        if pointer is None or pointer.sequence <= sequence:
            return entry
        sequence = pointer.sequence
        if number <= known_count:
            continue
        status = check_pointer(pointer, trust).status
        if status != "trusted" and not (force and (status == "revoked" or not signed)):
            return entry
    return None


def sign_canary(state: CanaryState, key: SigningKey | None) -> CanaryState:
    """Return the canary with a signature; without a key unchanged."""
    return structs.replace(state, signature=key.sign(encode_pointer(state))) if key is not None else state


def check_pointer(pointer: ChampionPointer | CanaryState, trust: TrustStore) -> SignatureCheck:
    """Return the status of the signature of a pointer."""
    signed = [pointer.signature] if pointer.signature is not None else []
    return trust.check(encode_pointer(pointer), signed, "pointer")


def _decode_envelope(content: bytes) -> SignedEnvelope | None:
    try:
        return msgspec.json.decode(content, type=SignedEnvelope)
    except atomic_io.NOT_JSON:
        return None
