"""The page of the Python API: the few functions and classes that a notebook or a program imports. See ``generate_reference``."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from importlib import import_module
from typing import Any, Final, NamedTuple

from reference_settings import strip_roles

from tunectl.artifacts.paths import ProjectPaths

INTRO: Final = """# Python API

What a notebook, a script or another program imports. Each command of `tunectl` is a thin call into the same code. These names are kept:
a change of one stands in the [changes](../../CHANGELOG.md). Everything else may change without a word.

All of it raises errors of [`tunectl.core.errors`](errors.md), whose `message` and `hint` are what the commands print.
"""


class Group(NamedTuple):
    """Entry points that are used together."""

    title: str
    text: str
    example: str
    """A block of Python that a test runs in a fresh project."""
    names: tuple[str, ...]
    """``module:name`` below ``tunectl``."""


GROUPS: Final = (
    Group(
        "Settings",
        "The resolved settings of a project, checked as `tunectl check` does; its paths are listed in [Files](files.md).",
        """from pathlib import Path

from tunectl.artifacts.paths import ProjectPaths
from tunectl.config.loading.checks import load_project_config

project = ProjectPaths(Path())
settings = load_project_config(project, ["sft.learning_rate=1e-4"]).root
assert settings.sft.learning_rate == 1e-4
""",
        ("artifacts.paths:ProjectPaths", "config.loading.checks:load_project_config"),
    ),
    Group(
        "Rows",
        "Every JSON-lines file of `artifacts/` is read and written as records of one class: whole, or not at all.",
        """from tunectl.artifacts.atomic_io import read_rows, write_rows
from tunectl.artifacts.records import Example, Message, ReferenceAnswer, Source

place = Source("ads.csv", 1)
row = Example("e-1", place, [Message("user", "An ad for a cafe")], [ReferenceAnswer("Come in!", place)])
write_rows(Path("examples.jsonl"), [row])
assert list(read_rows(Path("examples.jsonl"), Example)) == [row]
""",
        ("artifacts.atomic_io:read_rows", "artifacts.atomic_io:write_rows", "artifacts.records:Example"),
    ),
    Group(
        "Stages, runs and results",
        "What was built, from what, and what came of it.",
        """from tunectl.pipeline.run_ledger import list_runs
from tunectl.pipeline.stage_status import list_stage_status

states = {stage.stage: stage.state for stage in list_stage_status(project)}
assert states["sft"] == "not built"
assert list_runs(project) == []
""",
        (
            "pipeline.stage_status:list_stage_status",
            "pipeline.runner:run_stage",
            "pipeline.run_ledger:list_runs",
            "pipeline.run_ledger:read_run",
            "evaluation.results:load",
            "evaluation.paired_comparison:compare_runs",
        ),
    ),
    Group(
        "Releases",
        "The registry of a project: what was packaged, what is champion, who decided it and why.",
        """from tunectl.registry.release_store import ReleaseRegistry

registry = ReleaseRegistry(project.releases)
assert registry.ids() == []
assert registry.champion() is None
""",
        ("registry.release_store:ReleaseRegistry",),
    ),
    Group(
        "Inference log",
        "What people asked, what was answered, and what they said of it; masked.",
        """from tunectl.backends.storage.open_inference_log import open_if_exists

with open_if_exists(settings.inference_log, project) as log:
    assert log is None  # nothing was served yet
""",
        ("backends.storage.open_inference_log:open_if_exists", "inference_log.log_store:InferenceLog"),
    ),
    Group(
        "Engines",
        "What an engine of your own implements; `serve.engine` names the one that serves.",
        "",
        ("generation.engine:Engine", "generation.engine:EngineSession"),
    ),
)


def render_python() -> str:
    """Return one section a group: its example, and each entry point with signature and docstring."""
    text = INTRO
    for group in GROUPS:
        text += f"\n## {group.title}\n\n{group.text}\n"
        if group.example:
            text += f"\n```python\n{group.example}```\n"
        for entry in group.names:
            text += render_entry(entry)
    return text


def render_entry(entry: str) -> str:
    """Return the section of one function or class."""
    module, name = entry.split(":")
    found = getattr(import_module(f"tunectl.{module}"), name)
    head = f"\n### {name}\n\n`from tunectl.{module} import {name}`\n"
    if not inspect.isclass(found):
        return head + f"\n```text\n{render_signature(name, found)}\n```\n\n{render_prose(found)}\n"
    text = head + f"\n{render_prose(found)}\n"
    methods = list(iter_methods(found))
    if methods:
        rows = "".join(f"\n- `{signature}`: {words}" for signature, words in methods)
        text += f"{rows}\n"
    return text


def render_signature(name: str, function: Any) -> str:
    """Return the signature as one types it, without the quotes of annotations."""
    return f"{name}{inspect.signature(function)}".replace("'", "")


def iter_methods(found: type[Any]) -> Iterator[tuple[str, str]]:
    """Yield signature and first sentence of each public method and property that the class defines."""
    for name, value in vars(found).items() if found is not ProjectPaths else ():  # its paths are a page of their own
        function = value.fget if isinstance(value, property) else value
        if name.startswith("_") or not inspect.isfunction(function) or not function.__doc__:
            continue
        words = strip_roles(re.split(r"\n\n|  Raises", inspect.getdoc(function) or "")[0])
        signature = name if isinstance(value, property) else render_signature(name, function)
        yield signature.replace("(self, ", "(").replace("(self)", "()"), words


def render_prose(found: Any) -> str:
    """Return the docstring as Markdown: paragraphs, and what it takes, returns and raises as a list."""
    lines = []
    for part in (inspect.getdoc(found) or "").split("\n\n"):
        head = re.match(r"(Args|Returns|Raises|Reads|Writes)\b:?\s+", part)
        words = strip_roles(part)
        lines.append(f"{head[1]}: {words[len(head[1]) :].lstrip(': ')}" if head else words)
    return "\n\n".join(lines)
