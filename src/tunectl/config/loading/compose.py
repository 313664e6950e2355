"""Compose ``conf/`` and overrides to one plain tree. The only file that imports Hydra and OmegaConf.

Hydra reads the defaults lists and merges the chosen files. Overrides of values are applied afterwards, so that a key that
does not exist is reported by the check with all other mistakes, and Hydra's advice to add a ``+`` is never seen.
"""

from __future__ import annotations

import hashlib
import os
import re
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from typing import Any

from yaml import YAMLError

from tunectl.config.loading.override_parsing import (
    Override,
    OverrideError,
    apply_override,
    classify_overrides,
    list_options,
    unknown_option,
)
from tunectl.config.loading.provenance import (
    KeyPath,
    Provenance,
    ValueOrigin,
    comment_above,
    format_value,
    iter_leaves,
    key_lines,
    to_dotted_key,
)
from tunectl.core.errors import ConfigError, UsageError

_ONE_AT_A_TIME = threading.Lock()
"""Hydra keeps the folder in a variable of the process, so two threads would use each other's folder, or fail."""
_ROUNDS = 16
_FROM_HYDRA = (ValueError, TypeError, AttributeError, LookupError, AssertionError)
"""What Hydra also raises for files of an unexpected form: a defaults list that is not a list, a broken ``@package`` line."""
_UNREADABLE = (YAMLError, UnicodeDecodeError, RecursionError)
NOTHING = "nothing was run"
"""The last line of every report of mistakes."""


@dataclass(frozen=True, slots=True)
class ComposedConfig:
    """The merged configuration before validation: the tree, the origin of each value, and mistakes found so far."""

    tree: dict[str, Any]
    """Plain values, interpolations resolved."""
    origins: Provenance
    problems: tuple[OverrideError, ...]
    choices: dict[str, str]
    """The chosen option of each group."""


def compose(conf: Path, overrides: Sequence[Override] = ()) -> ComposedConfig:
    """Return the merged tree of ``conf/config.yaml`` and ``overrides``, later ones over earlier ones, with the origin of each value.

    Mistakes that still leave a tree are collected in ``problems``.
    Raises  UsageError where there is no ``conf/config.yaml``; ConfigError for YAML that cannot be read.
    """
    if not (conf / "config.yaml").is_file():
        raise UsageError(
            f"{conf / 'config.yaml'} does not exist, so this is not a project's folder",
            hint="go to the folder that holds conf/ and dvc.yaml, or make a project: tunectl init DIR",
        )
    problems: list[OverrideError] = []
    groups, values = classify_overrides(conf, overrides, problems, _value)
    raw, files, choices = _hydra(conf, groups, problems)
    origins = Provenance()
    try:
        lines = {file: key_lines(conf / file, _display_path(conf, file)) for file, _ in files}
    except _UNREADABLE as error:  # Hydra's YAML parser takes what this one refuses
        raise ConfigError(_yaml_mistakes(conf) or [str(error)], hint=NOTHING) from error
    for file, package in files:
        origins.merge(package, {path: hit for path, hit in lines[file].items() if path[0] != "defaults"})
    problems += _find_recipe_problems(conf, lines, origins)
    for override, path, value in values:
        apply_override(raw, origins, override, path, value, problems)
    tree = _resolve(conf, raw, origins, problems)
    return ComposedConfig(tree, origins, tuple(problems), choices)


def _value(text: str) -> Any:
    """Return an override's value by Hydra's grammar; unquoted text that the grammar cannot parse is taken as text.

    Raises  ValueError for broken brackets and quotes, and for sweeps.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        parsed = OverridesParser.create().parse_override(f"key={text}")
    except HydraException as error:
        if text[:1] in {"[", "{", "'", '"'} or "${" in text:
            raise ValueError("the value cannot be read; check its brackets, quotes and commas") from error
        return text
    if parsed.is_sweep_override():
        quoted = f"'{text}'"
        raise ValueError(f"one override takes one value; a list is [{text}], a text with commas is {quoted}")
    return _unquote(parsed.value())


def _unquote(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _unquote(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_unquote(inner) for inner in value]
    return getattr(value, "text", value)  # Hydra wraps quoted text


def _hydra(
    conf: Path, groups: dict[str, Override], problems: list[OverrideError]
) -> tuple[dict[str, Any], list[tuple[str, KeyPath]], dict[str, str]]:
    """Return the merged but unresolved tree, and the files in the order in which they were merged."""
    from hydra.errors import HydraException, MissingConfigException
    from omegaconf.errors import OmegaConfBaseException

    choices = {group: override.text.partition("=")[2].strip() for group, override in groups.items()}
    undone = [f"~{group}" for group, option in choices.items() if option == "null" and _in_recipe(conf, group)]
    choices = {group: option for group, option in choices.items() if option != "null"}
    for _ in range(_ROUNDS):
        try:
            return _compose_once(conf, undone + [f"{group}={option}" for group, option in choices.items()])
        except MissingConfigException as error:
            # Go on with another option, so that the other mistakes are found too.
            group, _, option = str(error.missing_cfg_file).rpartition("/")
            options = list_options(conf, group) if group and (conf / group).is_dir() else []
            problems.append(OverrideError((group,), _missing_file(conf, group, option, options)))
            if not options or group in choices:
                raise _stop(problems) from error
            choices[group] = (get_close_matches(option, options, 1, 0.0) or options)[0]
        except _UNREADABLE as error:
            raise ConfigError(_yaml_mistakes(conf) or [str(error)], hint=NOTHING) from error
        except (HydraException, OmegaConfBaseException, *_FROM_HYDRA) as error:
            raise _stop([*problems, OverrideError((), _describe_composition_error(conf, error))]) from error
    raise _stop(problems)


def _in_recipe(conf: Path, group: str) -> bool:
    """Return whether config.yaml picks a file of ``group``."""
    lines = key_lines(conf / "config.yaml", "")
    return any(path[0] == "defaults" and path[-1] == group and value != "null" for path, (value, _) in lines.items())


def _stop(problems: Sequence[OverrideError]) -> ConfigError:
    return ConfigError(list(dict.fromkeys(problem.text for problem in problems)), hint=NOTHING)


def _compose_once(conf: Path, choices: list[str]) -> tuple[dict[str, Any], list[tuple[str, KeyPath]], dict[str, str]]:
    tree, files, options = _merge_files(_ConfFolder.read(conf), tuple(choices))
    return deepcopy(tree), files, options


@dataclass(frozen=True)
class _ConfFolder:
    """A folder that compares equal to any other with the same files."""

    digest: str
    path: Path = field(compare=False)

    @classmethod
    def read(cls, conf: Path) -> _ConfFolder:
        digest = hashlib.sha256()
        for folder, _, names in sorted(os.walk(conf, followlinks=True)):
            for name in sorted(names):
                if name.endswith((".yaml", ".yml")):
                    file = Path(folder, name)
                    digest.update(f"{file.relative_to(conf)}\0".encode())
                    with suppress(OSError):  # Hydra tells it where the file is one of those chosen
                        digest.update(hashlib.sha256(file.read_bytes()).digest())
        return cls(digest.hexdigest(), conf)


@lru_cache(
    maxsize=64
)  # Hydra takes half a second; a console, a sweep, or a test asks for the same files again and again
def _merge_files(
    folder: _ConfFolder, choices: tuple[str, ...]
) -> tuple[dict[str, Any], list[tuple[str, KeyPath]], dict[str, str]]:
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.types import RunMode
    from omegaconf import OmegaConf

    where, overrides = str(folder.path.resolve()), list(choices)
    with _ONE_AT_A_TIME, initialize_config_dir(where, version_base="1.3"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about a defaults list without _self_, which _find_recipe_problems reports
        loader = GlobalHydra.instance().config_loader()
        merge_order = _note_merged_files(loader)
        composed = hydra_compose("config", overrides, return_hydra_config=True)
        order = merge_order or loader.compute_defaults_list("config", overrides, RunMode.RUN).defaults
        options = {str(key): str(value) for key, value in composed.hydra.runtime.choices.items() if value is not None}
    tree: Any = OmegaConf.to_container(composed, resolve=False)
    del tree["hydra"]
    files = [
        (f"{item.config_path}.yaml", tuple((item.package or "").split(".")) if item.package else ())
        for item in order
        if item.config_path is not None and not item.config_path.startswith("hydra/")
    ]
    return tree, files, {group: option for group, option in options.items() if not group.startswith("hydra/")}


def _note_merged_files(loader: Any) -> list[Any]:
    """Return a list that fills with Hydra's files in the order in which ``loader`` merges them.

    Hydra does not keep its list, and to compute it a second time takes a third of the whole time. The method is private in
    Hydra: with a version without it the list stays empty, and is computed a second time.
    """
    order: list[Any] = []
    merge = getattr(loader, "_compose_config_from_defaults_list", None)
    if merge is not None:

        def note_and_merge(defaults: list[Any], repo: Any) -> Any:
            order.extend(defaults)
            return merge(defaults=defaults, repo=repo)

        loader._compose_config_from_defaults_list = note_and_merge  # noqa: SLF001  said above
    return order


def _find_recipe_problems(
    conf: Path, lines: Mapping[str, Mapping[KeyPath, tuple[Any, ValueOrigin]]], origins: Provenance
) -> Iterator[OverrideError]:
    """Yield a problem for a recipe without ``_self_``, and for settings of Hydra itself, which are ignored."""
    own = [value for path, (value, _) in lines["config.yaml"].items() if path[0] == "defaults"]
    if own and "_self_" not in own:
        text = (
            "the defaults list lacks _self_; add - _self_ where this file's own values shall apply, usually at the end"
        )
        yield OverrideError((), f"{conf.name}/config.yaml: {text}")
    where = origins.by_path.get(("hydra",))
    if where is not None:
        yield OverrideError(("hydra",), f"hydra ({where}): settings of Hydra itself have no effect here; remove them")


def _missing_file(conf: Path, group: str, option: str, options: Sequence[str]) -> str:
    where = _defaults_line(conf, option)
    if not options:
        return f"{where}there is no folder {conf.name}/{group or option}, though a defaults list names it"
    return f"{where}{unknown_option(conf, group, option, options)}"


def _defaults_line(conf: Path, option: str) -> str:
    """Return the place where a defaults list names ``option``, as a prefix for a message."""
    for file in [conf / "config.yaml", *sorted(conf.rglob("*.yaml"))]:
        path_text = _display_path(conf, file.relative_to(conf).as_posix())
        with suppress(*_UNREADABLE):  # another file of the folder, which nobody may have chosen
            for path, (value, origin) in key_lines(file, path_text).items():
                if path[0] == "defaults" and value == option:
                    return f"{origin}: "
    return ""


def _yaml_mistakes(conf: Path) -> list[str]:
    """Return every file below ``conf/`` that is not YAML, each with line and column."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    result = []
    for file in sorted(conf.rglob("*.yaml")):
        path_text = _display_path(conf, file.relative_to(conf).as_posix())
        try:
            OmegaConf.load(file)
            key_lines(file, path_text)
        except YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            location = f"{path_text}:{mark.line + 1}:{mark.column + 1}" if mark is not None else path_text
            result.append(f"{location}: not YAML: {getattr(error, 'problem', None) or error}")
        except UnicodeDecodeError as error:
            result.append(f"{path_text}: not UTF-8 text: byte {error.object[error.start]:#04x} at {error.start}")
        except RecursionError:
            result.append(f"{path_text}: has too many levels, or an alias (*NAME) inside of what it names")
        except OmegaConfBaseException as error:
            result.append(f"{path_text}: {str(error).splitlines()[0]}")
        except OSError as error:
            result.append(f"{path_text}: {error.strerror}")
    return result


def _describe_composition_error(conf: Path, error: Exception) -> str:
    """Return Hydra's reason without its advice, and with the underlying cause."""
    text = " ".join(str(error.__cause__ or error).split())
    text = re.sub(r"To append to your (config|default list) use \S+", "", text)
    return f"{conf.name}/: cannot be composed: {text.strip().rstrip('.')}"


def _resolve(conf: Path, raw: dict[str, Any], origins: Provenance, problems: list[OverrideError]) -> dict[str, Any]:
    """Resolve interpolations; what cannot be resolved is noted and becomes null."""
    from omegaconf import OmegaConf
    from omegaconf.errors import InterpolationToMissingValueError, OmegaConfBaseException

    config = OmegaConf.create(raw)
    references = " ".join(str(value) for _, value in iter_leaves(raw) if isinstance(value, str) and "${" in value)
    for path, value in list(iter_leaves(raw)):
        where = origins.find(path)
        if "_target_" in path:
            problems.append(
                OverrideError(
                    path,
                    f"{to_dotted_key(path)} = {format_value(value)} ({where}): _target_ is not allowed, since YAML must not run Python code; remove it",
                )
            )
        elif value == "???":
            problems.append(OverrideError(path, _explain_missing_value(conf, path, where)))
        elif isinstance(value, str) and _calls_resolver(value):
            text = "only ${other.setting} is allowed; a resolver would make the same YAML mean different things"
            problems.append(OverrideError(path, f"{to_dotted_key(path)} = {format_value(value)} ({where}): {text}"))
        elif isinstance(value, str) and "${" in value:
            try:
                resolved = _follow(config, path)
                _put(
                    raw,
                    path,
                    OmegaConf.to_container(resolved, resolve=True) if OmegaConf.is_config(resolved) else resolved,
                )
                continue
            except InterpolationToMissingValueError:
                problems.append(OverrideError(path, ""))  # the missing value itself is reported
            except OmegaConfBaseException:
                problems.append(OverrideError(path, _explain_missing_target(raw, path, value, where)))
        elif len(path) > 1 and path[0] == "data" and f"${{{to_dotted_key(path)}}}" not in references:
            text = f"it has no effect, since no setting refers to ${{{to_dotted_key(path)}}}; remove it, or correct its name"
            problems.append(OverrideError(path, f"{to_dotted_key(path)} = {format_value(value)} ({where}): {text}"))
            continue
        else:
            continue
        _put(raw, path, None)
    return raw


def _calls_resolver(text: str) -> bool:
    """Return whether a ``${...}`` of ``text`` has a colon, as ``${oc.env:HOME}``; what stands before it may be a reference itself."""
    depth = 0
    for index, letter in enumerate(text):
        if text.startswith("${", index):
            depth += 1
        elif depth and letter == ":":
            return True
        elif depth and letter == "}":
            depth -= 1
    return False


def _explain_missing_value(conf: Path, path: KeyPath, origin: ValueOrigin | None) -> str:
    """Return the message for a value that the user must give; the comment above it in the file describes it."""
    text = f"{to_dotted_key(path)}: must be given ({origin}): {to_dotted_key(path)}=<value>"
    if origin is None or not origin.file.endswith(".yaml") or not origin.line:
        return text
    note = comment_above(conf.parent / origin.file, origin.line)
    return f"{text}\n    {note}" if note else text


def _explain_missing_target(raw: dict[str, Any], path: KeyPath, value: str, origin: ValueOrigin | None) -> str:
    """Return the message for an interpolation without a target, with the nearest existing key."""
    start = f"{to_dotted_key(path)} = {format_value(value)} ({origin})"
    targets = [part.partition("${")[2].strip() for part in value.split("}")[:-1] if "${" in part]
    names = [to_dotted_key(leaf) for leaf, _ in iter_leaves(raw)]
    for target in targets:
        if target.split(".")[0] in raw and raw[target.split(".")[0]] is None:
            return f"{start}: {target} is not set; give it: {target}=<value>"
        near = get_close_matches(target, names, 1)
        if target not in names and near:
            return f"{start}: there is no {target}; did you mean ${{{near[0]}}}?"
    return f"{start}: cannot be resolved; it must name another setting, for example ${{seed}}"


def _follow(config: Any, path: KeyPath) -> Any:
    for part in path:
        config = config[part]
    return config


def _put(raw: Any, path: KeyPath, value: Any) -> None:
    for part in path[:-1]:
        raw = raw[part]
    raw[path[-1]] = value


def _display_path(conf: Path, file: str) -> str:
    return f"{conf.name}/{file}"
