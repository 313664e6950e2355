"""Ed25519 signatures of releases and pointers, and the file of the keys that a server trusts.

A key has one of two roles: ``release`` vouches for weights, ``pointer`` may say which release is champion or challenger. Who signs
holds the private key (PEM, mode 0600); who serves holds public keys alone, in a file that is read again whenever it changes.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import stat
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NamedTuple

from msgspec import Meta, Struct, convert, structs

from tunectl.artifacts import atomic_io
from tunectl.artifacts.canary_state import Signature
from tunectl.artifacts.lock import folder_lock
from tunectl.artifacts.record_format import RecordFormat
from tunectl.core import logging_setup
from tunectl.core.errors import DataError, InfrastructureError, TunectlError, UsageError
from tunectl.core.optional import import_optional

KeyRole = Literal["release", "pointer"]
SignatureStatus = Literal["trusted", "revoked", "untrusted"]
RELEASE_KEY_ENV: Final = "TUNECTL_RELEASE_KEY"
POINTER_KEY_ENV: Final = "TUNECTL_POINTER_KEY"
"""Environment variables that name the file of a private key."""
TRUSTED_KEYS_ENV: Final = "TUNECTL_TRUSTED_KEYS"


TrustedKeyName = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9_.-]{0,63}(?!\n)$")]


class TrustedKey(Struct, frozen=True):
    """A public key in the file of trusted keys, its role, and whether it is revoked."""

    name: TrustedKeyName
    role: KeyRole
    public_key: Annotated[str, Meta(pattern=r"^[A-Za-z0-9+/]{43}=(?!\n)$")]
    """32 bytes, base64."""
    created_at: datetime
    revoked_at: datetime | None = None
    """When the key was revoked; its signatures are no longer trusted. Null: it is trusted."""

    @property
    def key_id(self) -> str:
        """SHA-256 of the public key, in hexadecimal."""
        return hashlib.sha256(base64.b64decode(self.public_key)).hexdigest()


class _TrustedKeysFile(Struct, frozen=True):
    keys: list[TrustedKey]


TRUSTED_KEYS_FILE: Final = RecordFormat("file of trusted keys", ())


class SignatureCheck(NamedTuple):
    """Whether a message has a valid signature of a trusted key, and why not."""

    status: SignatureStatus
    reason: str
    """Name of the signing key, or what is wrong."""


class SigningKey:
    """An Ed25519 private key that signs releases or pointers."""

    def __init__(self, private: Any) -> None:
        """``private`` is the library's Ed25519PrivateKey."""
        self._private = private
        raw: bytes = private.public_key().public_bytes_raw()
        self.public_key = base64.b64encode(raw).decode()
        self.key_id = hashlib.sha256(raw).hexdigest()

    def sign(self, message: bytes) -> Signature:
        """Return the signature of a message's bytes."""
        return Signature(self.key_id, base64.b64encode(self._private.sign(message)).decode())


def _load_serialization() -> Any:
    return import_optional("cryptography.hazmat.primitives.serialization", extra="sign")


def _load_ed25519() -> Any:
    return import_optional("cryptography.hazmat.primitives.asymmetric.ed25519", extra="sign")


def generate_key(path: Path) -> SigningKey:
    """Create a private key in a new file of mode 0600 and return it.

    Raises  UsageError where the file exists: a key is never replaced.
    """
    serialization = _load_serialization()
    private = _load_ed25519().Ed25519PrivateKey.generate()
    content = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    try:
        created = atomic_io.create_exclusive(path, content, mode=0o600)
    except OSError as error:
        raise atomic_io.write_error(path, error) from error
    if not created:
        raise UsageError(f"{path} already exists", hint="keys are never replaced: name another file")
    return SigningKey(private)


def load_key(path: Path) -> SigningKey:
    """Return the private key in a file.

    Raises  InfrastructureError for a file that cannot be read, or that others can read; DataError for one that holds no such key.
    """
    try:
        content, rights = path.read_bytes(), stat.S_IMODE(path.stat().st_mode)
    except OSError as error:
        raise InfrastructureError(
            f"{path}, a private key, cannot be read: {error.strerror}",
            hint="check the path and its permissions; new key: tunectl release keygen NAME --role release (or pointer)",
        ) from error
    if rights & 0o077:
        raise InfrastructureError(
            f"{path} is a private key, and others may read it (mode {rights:o})",
            hint=f"run: chmod 600 {path}; if other people have an account on this machine, make a new key",
        )
    try:
        private = _load_serialization().load_pem_private_key(content, None)
    except (ValueError, TypeError) as error:
        raise DataError(
            f"{path} is not an unencrypted private key in PEM",
            hint="remove its password (openssl pkey), or make another: tunectl release keygen NAME --role release (or pointer)",
        ) from error
    if not hasattr(private, "sign") or type(private).__name__ != "Ed25519PrivateKey":
        raise DataError(
            f"{path} holds a key of another kind than Ed25519",
            hint="make one: tunectl release keygen NAME --role release",
        )
    return SigningKey(private)


def load_named_key(variable: str) -> SigningKey | None:
    """Return the private key in the file that the environment variable ``variable`` names; None where it is not set."""
    named = os.environ.get(variable)
    return load_key(Path(named)) if named else None


def _verify(key: TrustedKey, message: bytes, signature: Signature) -> bool:
    ed25519 = _load_ed25519()
    invalid: type[Exception] = import_optional("cryptography.exceptions", extra="sign").InvalidSignature
    try:
        public = ed25519.Ed25519PublicKey.from_public_bytes(base64.b64decode(key.public_key))
        public.verify(base64.b64decode(signature.value, validate=True), message)
    except (invalid, binascii.Error, ValueError):
        return False
    return True


def check_signatures(
    message: bytes, signatures: Iterable[Signature], role: KeyRole, keys: Iterable[TrustedKey]
) -> SignatureCheck:
    """Return whether ``message`` has a valid signature by a trusted key with this role that is not revoked, and why not.

    Of each key one signature is verified, the last: whoever wrote the message may have put any number of them beside it.
    """
    trusted, candidates = list(keys), list({signature.key_id: signature for signature in signatures}.values())
    valid = [
        key
        for signature in candidates
        for key in trusted
        if key.role == role and key.key_id == signature.key_id and _verify(key, message, signature)
    ]
    good = [key.name for key in valid if key.revoked_at is None]
    if good:
        return SignatureCheck("trusted", f"signed by {good[0]}")
    if valid:
        return SignatureCheck("revoked", f"signed by {valid[0].name}, whose key was revoked")
    if not candidates:
        return SignatureCheck("untrusted", "is not signed")
    if not {signature.key_id for signature in candidates} & {key.key_id for key in trusted if key.role == role}:
        return SignatureCheck("untrusted", f"is signed by no trusted key of role {role}")
    return SignatureCheck("untrusted", "was altered: its signature does not fit")


def check_key_name(name: str) -> None:
    """Check that ``name`` may be the name of a trusted key.

    Raises  msgspec.ValidationError.
    """
    convert(name, TrustedKeyName)


def read_trusted_keys(path: Path) -> list[TrustedKey]:
    """Return the entries of a file of trusted keys.

    Raises  InfrastructureError where it cannot be read; DataError where it is not a file of trusted keys.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InfrastructureError(
            f"serve.trusted_keys_file: {path} cannot be read: {error.strerror}",
            hint="check the path and its permissions; tunectl release keygen NAME --role release (or pointer) makes the file",
        ) from error
    try:
        return TRUSTED_KEYS_FILE.decode(content, _TrustedKeysFile, str(path)).keys
    except atomic_io.NOT_JSON as error:
        raise DataError(
            f"{path} is not a file of trusted keys: {error}", hint="restore it from Git or a backup"
        ) from error


def add_trusted_key(path: Path, key: TrustedKey) -> None:
    """Add a key to the file of trusted keys, which is made where it is absent.

    Raises  UsageError where the name is taken.
    """
    with folder_lock(path):
        keys = read_trusted_keys(path) if path.exists() else []
        if any(entry.name == key.name for entry in keys):
            raise UsageError(f"{path}: there is a key {key.name} already", hint="choose another name")
        TRUSTED_KEYS_FILE.write(path, _TrustedKeysFile([*keys, key]))


def revoke_trusted_key(path: Path, name: str) -> None:
    """Revoke a key, also where the file has it under other names. Its entry stays, so that "signed by a revoked key" differs from "not signed".

    Raises  UsageError where there is no such key.
    """
    with folder_lock(path):
        keys = read_trusted_keys(path)
        if all(entry.name != name for entry in keys):
            names = ", ".join(entry.name for entry in keys) or "none"
            raise UsageError(f"{path}: no key {name}; there are: {names}", hint="give one of these names")
        # by the key's bytes: base64 has several texts for them
        now, revoked = datetime.now(UTC), {entry.key_id for entry in keys if entry.name == name}
        changed = [
            structs.replace(entry, revoked_at=now) if entry.key_id in revoked and entry.revoked_at is None else entry
            for entry in keys
        ]
        TRUSTED_KEYS_FILE.write(path, _TrustedKeysFile(changed))


class TrustStore:
    """Trusted keys of a running program, read again when their file changes. An invalid change is logged, and the last valid keys stay."""

    def __init__(self, path: Path) -> None:
        """Read the file. Raises  InfrastructureError, DataError where it cannot be used; MissingExtraError without cryptography."""
        _load_ed25519()
        self.path = path
        self._stamp = self._read_stamp()
        self._keys = read_trusted_keys(path)

    def list_keys(self) -> list[TrustedKey]:
        """Return the entries of the file as it is now; the last valid ones where it is broken."""
        stamp = self._read_stamp()
        if stamp != self._stamp:
            try:
                self._keys = read_trusted_keys(self.path)
            except TunectlError as error:
                logging_setup.get_logger(__name__).error("the old trusted keys stay: %s", error)
            self._stamp = stamp
        return self._keys

    def check(self, message: bytes, signatures: Iterable[Signature], role: KeyRole) -> SignatureCheck:
        """Return whether ``message`` has a valid signature of a trusted key with this role now, and why not."""
        return check_signatures(message, signatures, role, self.list_keys())

    def _read_stamp(self) -> tuple[int, int, int] | None:
        try:
            status = self.path.stat()
        except OSError:
            return None
        return status.st_ino, status.st_size, status.st_mtime_ns
