"""``conf/overrides.yaml``: what ``tunectl repro key=value`` recorded, so that every later run replays it."""

from __future__ import annotations

import re
from collections.abc import Sequence

from tunectl.artifacts import atomic_io
from tunectl.artifacts.paths import ProjectPaths
from tunectl.config.loading.override_parsing import Override
from tunectl.config.loading.provenance import ValueOrigin
from tunectl.core.errors import ConfigError

HEADER = """\
# What `tunectl repro key=value` was given; replayed by every later run and by `dvc repro`, over all other files.
# `tunectl repro --reset-overrides` forgets it.
"""
_REPAIR = "correct that file, or forget what it records: tunectl repro --reset-overrides"
_PLAIN = re.compile(r"^[A-Za-z][\w./-]*=[\w./-]+$")


def load_overrides(layout: ProjectPaths) -> list[Override]:
    """Return the recorded overrides with their lines, oldest first; none where the file is absent or empty.

    Raises  ConfigError naming file and line of what is not a list of ``key=value`` texts.
    """
    import yaml

    path_text = f"{layout.conf.name}/{layout.overrides.name}"
    try:
        with layout.overrides.open(encoding="utf-8") as stream:
            node = yaml.compose(stream, Loader=yaml.SafeLoader)
    except FileNotFoundError:
        return []
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        location = f"{path_text}:{mark.line + 1}" if mark is not None else path_text
        raise ConfigError(
            [f"{location}: not YAML: {getattr(error, 'problem', None) or error}"], hint=_REPAIR
        ) from error
    except UnicodeDecodeError as error:
        text = f"{path_text}: not UTF-8 text: byte {error.object[error.start]:#04x} at {error.start}"
        raise ConfigError([text], hint=_REPAIR) from error
    except RecursionError as error:
        raise ConfigError([f"{path_text}: must be a list of key=value texts"], hint=_REPAIR) from error
    if node is None:
        return []
    if not isinstance(node, yaml.SequenceNode):
        raise ConfigError([f"{path_text}:{node.start_mark.line + 1}: must be a list of key=value texts"], hint=_REPAIR)
    wrong = [item.start_mark.line + 1 for item in node.value if not isinstance(item, yaml.ScalarNode)]
    if wrong:
        lines = [f"{path_text}:{line}: must be one key=value text, for example: - seed=18" for line in wrong]
        raise ConfigError(lines, hint=_REPAIR)
    return [Override(item.value, ValueOrigin(path_text, item.start_mark.line + 1, item.value)) for item in node.value]


def merge_overrides(recorded: Sequence[Override], typed: Sequence[str]) -> list[Override]:
    """Return the recorded overrides followed by the typed ones; a typed one replaces a recorded one of the same key."""
    latest: dict[str, Override] = {}
    for override in [*recorded, *(Override.from_cli(text) for text in typed)]:
        latest.pop(_key(override.text), None)
        latest[_key(override.text)] = override
    return list(latest.values())


def save_overrides(layout: ProjectPaths, overrides: Sequence[Override]) -> None:
    """Replace the content of ``conf/overrides.yaml`` by these overrides, atomically; where nothing changes the file is not written.

    Check them first: nothing is validated here.
    Raises  InfrastructureError where the file cannot be written.
    """
    body = "".join(f"- {_quote_for_yaml(override.text)}\n" for override in overrides) or "[]\n"
    try:
        recorded = [override.text for override in load_overrides(layout)]
        unchanged = layout.overrides.is_file() and recorded == [override.text for override in overrides]
    except ConfigError:  # a damaged file is what --reset-overrides replaces
        unchanged = False
    if not unchanged:
        atomic_io.write_text(layout.overrides, HEADER + body)


def _key(text: str) -> str:
    return text.partition("=")[0].strip()


def _quote_for_yaml(text: str) -> str:
    import yaml

    if _PLAIN.fullmatch(text):  # `match` would take a line end behind it
        return text
    quoted: str = yaml.safe_dump(text, default_style='"', allow_unicode=True, width=1_000_000)
    return quoted.strip()
