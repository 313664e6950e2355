"""`tunectl serve keys`: make, disable, enable, remove, list and audit keys."""

from __future__ import annotations

import argparse
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import msgspec

from tunectl.access import api_keys
from tunectl.access.api_keys import ApiKey
from tunectl.access.scopes import SCOPES, KeyScope
from tunectl.artifacts.paths import ProjectPaths
from tunectl.core.errors import UsageError

if TYPE_CHECKING:
    from tunectl.console.screens.settings import KeyRow

VERBS = ("add", "disable", "enable", "remove", "list", "audit")
USUAL: tuple[KeyScope, ...] = ("chat", "feedback")
UNUSED_DAYS = 90
"""Days after which the audit warns of an unused key."""
COLUMNS = ["name", "scopes", "per minute", "at once", "tokens per minute", "expires", "state", "hash", "made"]


def run(args: argparse.Namespace) -> int:
    """Run the subcommand of ``tunectl serve keys``; return its exit code.

    Raises  UsageError for an unknown subcommand, name or scope.
    """
    verb, *rest = args.arguments[1:] or ["list"]
    names = [argument for argument in rest if "=" not in argument]
    if verb not in VERBS or len(names) != (verb not in ("list", "audit")):
        raise UsageError(
            f"tunectl serve {' '.join(args.arguments)}: say one of keys add|disable|enable|remove NAME, keys list, keys audit",
            hint="tunectl serve --help explains them",
        )
    path = find_path([argument for argument in rest if "=" in argument])
    if verb in ("list", "audit"):
        return _list(path, as_json=args.json) if verb == "list" else _audit(path, as_json=args.json)
    return _add(path, names[0], args) if verb == "add" else _change(path, verb, names[0])


def find_path(overrides: list[str]) -> Path:
    """Return the path of the file of keys: the one that the environment names, else that of the configuration."""
    if os.environ.get(api_keys.KEYS_ENV):
        return Path(os.environ[api_keys.KEYS_ENV])
    from tunectl.config.loading import checks

    layout = ProjectPaths()
    return layout.root / checks.load_project_config(layout, overrides).root.serve.keys_file


def _add(path: Path, name: str, args: argparse.Namespace) -> int:
    from tunectl.backends.system import terminal

    scopes, now = args.scope or list(USUAL), datetime.now(UTC)
    wrong = next((scope for scope in scopes if scope not in SCOPES), None)
    if wrong is not None:
        raise UsageError(f"--scope {wrong}: no such scope; allowed are {', '.join(SCOPES)}")
    if args.days is not None and not 1 <= args.days <= 36_500:
        raise UsageError(f"--days {args.days}: must be from 1 to 36500")
    secret, entry = api_keys.create_key(
        name,
        cast("list[KeyScope]", scopes),
        args.per_minute,
        now,
        expires_at=None if args.days is None else now + timedelta(days=args.days),
        max_concurrency=args.max_concurrency,
        tokens_per_minute=args.tokens_per_minute,
    )
    try:
        msgspec.convert(msgspec.to_builtins(entry), ApiKey)
    except msgspec.ValidationError as error:
        raise UsageError(
            f"tunectl serve keys add {name}: {error}",
            hint="a name is 1 to 64 of a-z 0-9 . _ - and begins with a letter or digit; limits are 1 or more",
        ) from error
    api_keys.add(path, entry)
    if args.json:
        view = msgspec.to_builtins(entry)
        terminal.print_json(
            {"name": name, "key": secret, **{key: view[key] for key in view if key not in ("name", "sha256")}}
        )
    else:
        terminal.print_line(f"{secret}\nfor {name}: {', '.join(scopes)}. Shown once: {path} holds only its hash.")
    return 0


def _change(path: Path, verb: str, name: str) -> int:
    from tunectl.backends.system import terminal

    if verb == "remove":
        api_keys.remove(path, name)
    else:
        api_keys.set_enabled(path, name, enabled=verb == "enable")
    outcome = {"remove": "is removed", "disable": "is disabled", "enable": "is enabled"}[verb]
    terminal.print_line(f"{name} {outcome}; running servers see it within a second")
    return 0


def _list(path: Path, *, as_json: bool) -> int:
    from tunectl.backends.system import terminal
    from tunectl.console.screens import settings

    screen = settings.describe_keys(path, ProjectPaths().root, datetime.now(UTC))
    if as_json:
        terminal.print_json(msgspec.to_builtins(screen))
        return 0
    terminal.table(str(path), COLUMNS, [_row(key) for key in screen.keys])
    return 0


def _row(key: KeyRow) -> list[Any]:
    return [
        key.name,
        ", ".join(key.scopes),
        key.per_minute or "-",
        key.max_concurrency or "-",
        key.tokens_per_minute or "-",
        f"{key.expires_at:%Y-%m-%d}" if key.expires_at else "never",
        key.refused or "works",
        key.fingerprint,
        f"{key.created_at:%Y-%m-%d %H:%M}",
    ]


def _audit(path: Path, *, as_json: bool) -> int:
    """Return a row for each key, with its last use from the inference log."""
    from tunectl.backends.storage import open_inference_log
    from tunectl.backends.system import terminal
    from tunectl.cli.log import load_settings
    from tunectl.inference_log import pseudonyms

    layout = ProjectPaths()
    root = load_settings(layout)
    hash_key = pseudonyms.load_hash_key(root.inference_log, layout.root, make=False)
    with open_inference_log.open_existing(root.inference_log, layout) as store:
        pseudonyms.check_hash_key(store, root.inference_log, hash_key)
        uses = store.last_uses()
    result = [
        (entry, uses.get(pseudonyms.pseudonymize(pseudonyms.key_holder_name(entry.name), hash_key)))
        for entry in api_keys.read(path)
    ]
    if as_json:
        terminal.print_json(
            [
                {
                    "name": entry.name,
                    "scopes": entry.scopes,
                    "last_used": used.isoformat() if used else None,
                    "remarks": find_remarks(entry, used),
                }
                for entry, used in result
            ]
        )
        return 0
    rows = [
        [
            entry.name,
            ", ".join(entry.scopes),
            f"{used:%Y-%m-%d %H:%M}" if used else "never",
            "; ".join(find_remarks(entry, used)),
        ]
        for entry, used in result
    ]
    terminal.table(str(path), ["name", "scopes", "last used", "remarks"], rows)
    return 0


def find_remarks(entry: ApiKey, used: datetime | None) -> list[str]:
    """Return warnings about a key; ``used`` is the time of its last request or feedback, None for never."""
    now = datetime.now(UTC)
    result = [reason] if (reason := api_keys.explain_refusal(entry, now)) is not None else []
    if "admin" in entry.scopes:
        result.append("may do everything, without limits")
    if entry.expires_at is None:
        result.append("never expires")
    if {"chat", "feedback"} & set(entry.scopes) and (used or entry.created_at) < now - timedelta(days=UNUSED_DAYS):
        result.append(f"not used for {UNUSED_DAYS} days")
    return result
