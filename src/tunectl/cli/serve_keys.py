"""`tunectl serve keys`: make, withdraw and list keys."""

from __future__ import annotations

import argparse
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

import msgspec

from tunectl.access import api_keys
from tunectl.access.api_keys import KeyScope
from tunectl.artifacts.paths import ProjectPaths
from tunectl.core.errors import UsageError

VERBS = ("add", "revoke", "list")
USUAL: tuple[KeyScope, ...] = ("chat", "feedback")


def run(args: argparse.Namespace) -> int:
    """Do what the words after ``keys`` say.

    Raises  UsageError for another verb, name or scope.
    """
    verb, *rest = args.words[1:] or ["list"]
    names = [word for word in rest if "=" not in word]
    if verb not in VERBS or len(names) != (verb != "list"):
        raise UsageError(
            f"tunectl serve {' '.join(args.words)}: say one of keys add NAME, keys revoke NAME, keys list",
            hint="tunectl serve --help explains them",
        )
    path = _path([word for word in rest if "=" in word])
    if verb == "list":
        return _list(path, as_json=args.json)
    return _add(path, names[0], args) if verb == "add" else _revoke(path, names[0])


def _path(typed: list[str]) -> Path:
    if "TUNECTL_KEYS" in os.environ:
        return Path(os.environ["TUNECTL_KEYS"])
    from tunectl.config.loading import checks, override_file

    layout = ProjectPaths()
    return (
        layout.root
        / checks.load_config(
            layout, override_file.merge_overrides(override_file.load_overrides(layout), typed)
        ).root.serve.keys_file
    )


def _add(path: Path, name: str, args: argparse.Namespace) -> int:
    from tunectl.backends.system import terminal

    scopes = args.scope or list(USUAL)
    wrong = next((scope for scope in scopes if scope not in api_keys.SCOPES), None)
    if wrong is not None:
        raise UsageError(f"--scope {wrong}: there are {', '.join(api_keys.SCOPES)}")
    secret, entry = api_keys.create_key(name, cast("list[KeyScope]", scopes), args.per_minute, datetime.now(UTC))
    try:
        msgspec.convert(msgspec.to_builtins(entry), api_keys.ApiKey)
    except msgspec.ValidationError as error:
        raise UsageError(
            f"tunectl serve keys add {name}: {error}",
            hint="a name is 1 to 64 of a-z 0-9 . _ - and begins with a letter or digit; --per-minute is 1 or more",
        ) from error
    api_keys.add(path, entry)
    if args.json:
        terminal.print_json({"name": name, "key": secret, "scopes": scopes, "per_minute": args.per_minute})
    else:
        terminal.print_line(f"{secret}\nfor {name}: {', '.join(scopes)}. Shown once: {path} holds only its hash.")
    return 0


def _revoke(path: Path, name: str) -> int:
    from tunectl.backends.system import terminal

    api_keys.revoke(path, name)
    terminal.print_line(f"{name} is revoked; running servers refuse it within a second")
    return 0


def _list(path: Path, *, as_json: bool) -> int:
    from tunectl.backends.system import terminal

    found = [api_keys.public_view(entry) for entry in api_keys.read(path)]
    if as_json:
        terminal.print_json(msgspec.to_builtins(found))
        return 0
    rows = [
        [
            one["name"],
            ", ".join(cast("list[str]", one["scopes"])),
            one["per_minute"] or "any",
            one["sha256"],
            str(one["created_at"])[:16],
        ]
        for one in found
    ]
    terminal.table(str(path), ["name", "scopes", "per minute", "hash", "made"], rows)
    return 0
