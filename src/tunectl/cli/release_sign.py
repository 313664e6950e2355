"""``tunectl release keygen|sign|revoke``: keys that sign releases and pointers, and their signatures."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from tunectl.core.errors import UsageError

if TYPE_CHECKING:
    from tunectl.registry.release_store import ReleaseRegistry

ROLES = ("release", "pointer")
TRUSTED = Path(".tunectl/trusted_keys.json")
"""File of public keys where no setting names one."""


def add_parser(verb: str, parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the subcommand ``verb``."""
    if verb == "sign":
        parser.add_argument("releases", nargs="*", metavar="ID", help="(all)")
        parser.add_argument("--key", metavar="FILE", help="private key (the file that TUNECTL_RELEASE_KEY names)")
        return
    parser.add_argument("name", metavar="NAME", help="of the key, in the file of trusted keys")
    if verb == "keygen":
        parser.add_argument(
            "--role", choices=ROLES, required=True, help="release: vouches for weights; pointer: may move the champion"
        )
        parser.add_argument("--out", metavar="FILE", help="for the private key (.tunectl/NAME.key)")
    parser.add_argument(
        "--trusted", metavar="FILE", help=f"file of trusted keys (serve.trusted_keys_file, else {TRUSTED})"
    )


def _find_trusted_file(named: str | None) -> Path:
    from tunectl.artifacts.paths import ProjectPaths
    from tunectl.pipeline import trusted_keys

    return Path(named) if named else trusted_keys.find_trusted_keys_file(ProjectPaths()) or TRUSTED


def run_keygen(args: argparse.Namespace, _store: ReleaseRegistry) -> int:
    """Write a new private key to a file, and add its public key to the file of trusted keys; return the exit code."""
    from datetime import UTC, datetime

    import msgspec

    from tunectl.access import signatures
    from tunectl.backends.system import terminal

    out, trusted = Path(args.out or f".tunectl/{args.name}.key"), _find_trusted_file(args.trusted)
    keys = signatures.read_trusted_keys(trusted) if trusted.exists() else []
    try:
        signatures.check_key_name(args.name)
    except msgspec.ValidationError as error:
        raise UsageError(
            f"tunectl release keygen {args.name}: {error}", hint="a name is 1 to 64 of a-z 0-9 . _ -"
        ) from error
    if any(entry.name == args.name for entry in keys):
        raise UsageError(f"{trusted}: there is a key {args.name} already", hint="choose another name")
    key = signatures.generate_key(out)
    entry = signatures.TrustedKey(args.name, args.role, key.public_key, datetime.now(UTC))
    signatures.add_trusted_key(trusted, entry)
    if args.json:
        terminal.print_json({"name": args.name, "role": args.role, "key_id": key.key_id, "key": str(out)})
        return 0
    variable = signatures.RELEASE_KEY_ENV if args.role == "release" else signatures.POINTER_KEY_ENV
    terminal.print_line(f"{out} is the private key: keep it, and copy it to no server. {trusted} has the public one.")
    terminal.print_line(f"whoever signs: export {variable}={out}; servers: serve.trusted_keys_file={trusted}")
    return 0


def run_revoke(args: argparse.Namespace, _store: ReleaseRegistry) -> int:
    """Revoke a key in the file of trusted keys, so that servers load no more of what it signed; return the exit code."""
    from tunectl.access import signatures
    from tunectl.backends.system import terminal

    trusted = _find_trusted_file(args.trusted)
    signatures.revoke_trusted_key(trusted, args.name)
    if args.json:
        terminal.print_json({"name": args.name, "revoked": True})
        return 0
    terminal.print_line(
        f"{args.name} is revoked in {trusted}; what serves goes on, and is loaded no more: sign and promote what should serve"
    )
    return 0


def run_sign(args: argparse.Namespace, store: ReleaseRegistry) -> int:
    """Sign releases: write ``ID.intoto.json`` (in-toto: digests of all files, verdicts, lineage, commit) beside each; return the exit code.

    ``args.releases``: the releases to sign; empty: all of the registry.
    """
    from tunectl.access import signatures
    from tunectl.backends.system import terminal
    from tunectl.registry import release_statement

    key = signatures.load_key(Path(args.key)) if args.key else signatures.load_named_key(signatures.RELEASE_KEY_ENV)
    if key is None:
        raise UsageError(
            "no key to sign with",
            hint=f"--key FILE, or export {signatures.RELEASE_KEY_ENV}=FILE of a key of role release",
        )
    signed = {}
    for release in [store.find(start) for start in args.releases] or store.ids():
        signed[release] = str(release_statement.sign_release(store.folder(release), key))
    if args.json:
        terminal.print_json(signed)
        return 0
    for release, path in signed.items():
        terminal.print_line(f"{release}: signed, {path}")
    return 0
