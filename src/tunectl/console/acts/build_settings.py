"""Which settings a build may be given in the console: numbers and switches of the recipe, and the options of its groups.

Whoever may build may not choose what is read, where it is sent, with which secrets, and what a gate asks for: such settings hold for
the server, the monitor and the retrain controller, too. They are changed in ``conf/`` or in a terminal.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from typing import Final

from tunectl.artifacts.paths import ProjectPaths
from tunectl.core.errors import UsageError

MAX_CHARACTERS: Final = 2_000
"""Length of all settings together."""
GROUPS: Final = ("experiment", "hardware", "cpt", "sft", "preferences", "reward", "align")
"""Groups of which any file in ``conf/`` may be chosen."""
SECTIONS: Final = ("hardware", "cpt", "sft", "reward", "align")
PROTECTED: Final = ("reward.gate", "sft.privacy")
"""Settings inside ``SECTIONS`` that may not be changed here: the gate of the reward model, and differential privacy."""


def parse_settings(text: str) -> list[str]:
    """Split a text of ``key=value`` words, as typed in the console's build form, into overrides.

    Raises  UsageError for a word that is not key=value, and for a setting that may not be set from the console.
    """
    if len(text) > MAX_CHARACTERS:
        raise UsageError(
            f"settings have at most {MAX_CHARACTERS} characters; these have {len(text)}",
            hint="build in a terminal: tunectl repro key=value ...",
        )
    try:
        overrides = shlex.split(text)
    except ValueError as error:
        raise UsageError(f"settings: {error}", hint="write key=value; quote a value with spaces") from error
    _check_overrides(overrides)
    return overrides


def check_protected(layout: ProjectPaths, overrides: Sequence[str]) -> None:
    """Check that no option of a group changes what ``PROTECTED`` names; a section that an option switches off has none of it.

    Raises  UsageError for an option that does; ConfigError with every mistake of the settings.
    """
    from tunectl.config.loading import checks

    if not any(override.partition("=")[0] in GROUPS for override in overrides):
        return
    trees = [checks.load_project_config(layout, typed).root.model_dump(mode="json") for typed in ((), overrides)]
    for name in PROTECTED:
        section, _, key = name.partition(".")
        before, after = (tree[section] for tree in trees)
        if before.get(key) is not None and key in after and after[key] != before[key]:
            raise UsageError(
                f"settings: {' '.join(overrides)[:200]} would change {name}",
                hint="choose an option that leaves it as it is, or change it in conf/, or with tunectl repro in a terminal",
            )


def _check_overrides(overrides: Sequence[str]) -> None:
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals or override.startswith("-"):
            raise UsageError(f"settings: {override[:80]!r} is not key=value", hint="for example: sft.epochs=2")
        if not is_allowed(key, value):
            raise UsageError(
                f"settings: {key[:80]} = {value[:80]!r} cannot be set in the console",
                hint=f"a build in the console takes seed, numbers and switches of {', '.join(SECTIONS)} (not of "
                f"{', '.join(PROTECTED)}), and options of {', '.join(GROUPS)}; for anything else: conf/, or tunectl repro",
            )


def is_allowed(key: str, value: str) -> bool:
    """Return whether ``key=value`` may be set for a build from the console: seed, numbers and switches of some sections, options of some groups."""
    if key in GROUPS:
        return value.isascii() and value.replace("_", "").isalnum()
    section = key.partition(".")[0]
    protected = any(key == name or key.startswith(f"{name}.") for name in PROTECTED)
    if protected or not (key == "seed" or ("." in key and section in SECTIONS)):
        return False
    try:
        return value in ("true", "false") or math.isfinite(float(value))
    except ValueError:
        return False
