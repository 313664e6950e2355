"""Add, disable, enable and remove keys. A new key is shown once. Who did what, and why, stands in the log of the console."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Final, cast, get_args

import msgspec
from msgspec import structs

from tunectl.access import api_keys
from tunectl.access.api_keys import ApiKey
from tunectl.access.scopes import SCOPE_MEANINGS, KeyScope
from tunectl.console.act_page import REASON, ActButton, ActField, ActPage, check_unchanged
from tunectl.console.acts.act_errors import ConflictError, require_reason
from tunectl.console.read_context import NotFoundError, ReadContext
from tunectl.core import logging_setup
from tunectl.core.errors import UsageError

LOGGED: Final = structs.replace(REASON, help="It stands in the log of the console, with your name.")
BACK: Final = "/settings/keys"
MAX_DAYS: Final = 36_500
ENABLED: Final = {True: "works", False: "disabled"}


def _find_key(context: ReadContext, form: Mapping[str, str]) -> ApiKey:
    entry = next((key for key in api_keys.read(context.find_keys_file()) if key.name == form.get("key", "")), None)
    if entry is None:
        raise NotFoundError(form.get("key", ""))
    return entry


def read_add(context: ReadContext, form: Mapping[str, str]) -> ActPage:  # noqa: ARG001 - every act is read alike
    """Return the page with the form for a new API key: name, scopes, days of validity, requests per minute, reason."""
    scopes = [ActField(f"scope_{scope}", scope, "checkbox", help=SCOPE_MEANINGS[scope]) for scope in get_args(KeyScope)]
    return ActPage(
        "Add a key",
        ["Whoever has the key may do what is ticked below. The key is shown once; the file holds only its hash."],
        fields=[
            ActField("name", "Name", help="Of the person or program: 1 to 64 of a-z 0-9 . _ -", required=True),
            *scopes,
            ActField("days", "Good for so many days", help="Empty: for ever."),
            ActField("per_minute", "Requests a minute", help="Empty: what the settings say."),
            LOGGED,
        ],
        scope="admin",
        buttons=[ActButton("yes", "Add the key")],
        back=BACK,
        command="tunectl serve keys add NAME",
    )


def perform_add(context: ReadContext, form: Mapping[str, str]) -> ActPage:
    """Create a key and return the page that shows it once.

    Raises  ConflictError for a name that is taken; UsageError for no name, no scope, no reason, or a number that is none.
    """
    name = form.get("name", "").strip()
    scopes = [scope for scope in get_args(KeyScope) if form.get(f"scope_{scope}") == "on"]
    if not scopes:
        raise UsageError("no scope is ticked, so the key would open nothing", hint="tick one scope or more")
    days, limit = _parse_count(form, "days"), _parse_count(form, "per_minute")
    more: dict[str, Any] = {}
    if days is not None:
        more["expires_at"] = context.now + timedelta(days=min(days, MAX_DAYS))
    secret, entry = api_keys.create_key(name, cast("list[KeyScope]", scopes), limit, context.now, **more)
    try:
        msgspec.convert(msgspec.to_builtins(entry), ApiKey)
    except msgspec.ValidationError as error:
        raise UsageError(
            f"{name[:80]!r} cannot be the name of a key: {error}",
            hint="a name is 1 to 64 of a-z 0-9 . _ - and begins with a letter or digit",
        ) from error
    with _change(context, form, "added", name):
        api_keys.add(context.find_keys_file(), entry)
    return ActPage(
        f"The key {name}",
        ["Copy it now: it is not shown again.", f"It may: {', '.join(scopes)}."],
        back=BACK,
        secret=secret,
    )


def _parse_count(form: Mapping[str, str], name: str) -> int | None:
    text = form.get(name, "").strip()
    if not text:
        return None
    if not text.isascii() or not text.isdecimal() or not 1 <= len(text) <= 6 or int(text) < 1:
        raise UsageError(f"{name} is {text[:40]!r}; it must be a whole number of 1 or more, or empty")
    return int(text)


def _ask(context: ReadContext, form: Mapping[str, str], verb: str, consequence: str, *, danger: bool) -> ActPage:
    key = _find_key(context, form)
    return ActPage(
        f"{verb.capitalize()} the key {key.name}",
        [consequence],
        facts=[("may", ", ".join(key.scopes)), ("made", f"{key.created_at:%Y-%m-%d}"), ("state", ENABLED[key.enabled])],
        fields=[LOGGED],
        state={"hash": key.sha256[:12], "state": ENABLED[key.enabled]},
        scope="admin",
        buttons=[ActButton("yes", f"{verb.capitalize()} it", "danger" if danger else "primary")],
        back=BACK,
        command=f"tunectl serve keys {verb} {key.name}",
    )


def _check(context: ReadContext, form: Mapping[str, str]) -> str:
    key = _find_key(context, form)
    check_unchanged(form, {"hash": key.sha256[:12], "state": ENABLED[key.enabled]})
    return key.name


@contextmanager
def _change(context: ReadContext, form: Mapping[str, str], verb: str, name: str) -> Iterator[None]:
    """Do the change of the block for a reason, and log it.

    Raises  UsageError without a reason; ConflictError where the file of keys no longer allows it: somebody was quicker.
    """
    reason = require_reason(form)
    try:
        yield
    except UsageError as error:
        raise ConflictError(error.message, hint=error.hint) from error
    logging_setup.get_logger(__name__).info("%s %s the key %s: %s", context.visitor, verb, name, reason)


def read_disable(context: ReadContext, form: Mapping[str, str]) -> ActPage:
    """Return the confirmation page of disabling the key ``form["key"]``."""
    consequence = "Within a second it opens nothing: programs that use it are refused, sessions of it end. It can be enabled again."
    return _ask(context, form, "disable", consequence, danger=True)


def read_enable(context: ReadContext, form: Mapping[str, str]) -> ActPage:
    """Return the confirmation page of enabling the key ``form["key"]``."""
    return _ask(context, form, "enable", "Within a second it opens again what is listed here.", danger=False)


def read_remove(context: ReadContext, form: Mapping[str, str]) -> ActPage:
    """Return the confirmation page of removing the key ``form["key"]``."""
    consequence = "Within a second it opens nothing, and it cannot be brought back: make a new one instead."
    return _ask(context, form, "remove", consequence, danger=True)


def perform_disable(context: ReadContext, form: Mapping[str, str]) -> str:
    """Disable the key ``form["key"]``; return the path to go to.

    Raises  NotFoundError for an unknown key; ConflictError where the key changed meanwhile; UsageError without a reason.
    """
    name = _check(context, form)
    with _change(context, form, "disabled", name):
        api_keys.set_enabled(context.find_keys_file(), name, enabled=False)
    return BACK


def perform_enable(context: ReadContext, form: Mapping[str, str]) -> str:
    """Enable the key ``form["key"]``; return the path to go to.

    Raises  NotFoundError for an unknown key; ConflictError where the key changed meanwhile; UsageError without a reason.
    """
    name = _check(context, form)
    with _change(context, form, "enabled", name):
        api_keys.set_enabled(context.find_keys_file(), name, enabled=True)
    return BACK


def perform_remove(context: ReadContext, form: Mapping[str, str]) -> str:
    """Remove the key ``form["key"]``; return the path to go to.

    Raises  NotFoundError for an unknown key; ConflictError where the key changed meanwhile; UsageError without a reason.
    """
    name = _check(context, form)
    with _change(context, form, "removed", name):
        api_keys.remove(context.find_keys_file(), name)
    return BACK
