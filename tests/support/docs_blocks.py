"""Parsers for sybil that run the console and YAML blocks of a page, one after the other, in the project of that page.

A block runs as it stands. Its fence says so where it does not: ```` ```console shown ````, for what builds for minutes, serves until it is
stopped, or asks another host. ```` ```console recorded ```` runs in a copy of the recorded project of ``tunectl demo``, whatever ran before.

- console: each ``$`` line is called in this process; ``tunectl``, ``cd``, ``export`` and ``cat`` are known. The lines below it are what
  it must print, where there are any; ``...`` stands for anything. A command that shows ``tunectl: `` must fail, any other succeed.
- YAML: the first line is a comment that names the file, ``# conf/sft/small.yaml``; the file is written, and composed with that choice.
  A file beside conf/ is written, for the commands below it.
- Python: sybil's own evaluator.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import tempfile
from collections.abc import Iterator
from pathlib import Path

from sybil import Document, Example
from sybil.parsers.markdown import CodeBlockParser, PythonCodeBlockParser

from tunectl.cli.main import main
from tunectl.console import recorded_project

CONF = Path(__file__).parents[2] / "conf"
RUN = ("console", "yaml", "python")
FENCE = re.compile(r"^ *```(\w+)([^\n]*)\n", re.MULTILINE)


def parse_page(path: Path) -> Document:
    """Return a page as sybil reads it; blocks that are only shown are no examples of it."""
    return Document.parse(
        str(path),
        CodeBlockParser(language="console", evaluator=run_console),
        CodeBlockParser(language="console recorded", evaluator=run_recorded),
        CodeBlockParser(language="yaml", evaluator=compose_yaml),
        PythonCodeBlockParser(),
    )


def split_commands(text: str) -> Iterator[tuple[str, str]]:
    """Yield each command of a console block, its continued lines joined, and what is shown below it."""
    for part in re.split(r"^\$ ", text.replace("\\\n", " "), flags=re.MULTILINE)[1:]:
        command, _, shown = part.partition("\n")
        yield command, shown


def run_console(example: Example) -> str | None:
    """Run the commands of a block; the text of what differs, or None."""
    for command, shown in split_commands(example.parsed):
        output, code = "", 0
        for words in split_words(command):
            printed, code = call(words)
            output += printed
        expected_failure = shown.startswith("tunectl: ")
        if (code != 0) is not expected_failure:
            return f"$ {command}\nexit code {code}\n{output}"
        if shown and not matches(shown, output):
            return f"$ {command}\nshown:\n{shown}\nprinted:\n{output}"
    return None


def run_recorded(example: Example) -> str | None:
    """Run the commands of a block in a new copy of the recorded project; the text of what differs, or None."""
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        layout, _ = recorded_project.unpack(Path(folder), CONF)
        for path in (log := layout.state_dir / "inference_log", *log.iterdir()):
            path.chmod(path.stat().st_mode & 0o700)  # else the first command says that it did so
        return run_console(example)


def split_words(command: str) -> list[list[str]]:
    """Return the words of each command of a line that ``&&`` joins."""
    commands: list[list[str]] = [[]]
    for word in shlex.split(command, comments=True):
        if word == "&&":
            commands.append([])
        else:
            commands[-1].append(word)
    return commands


def call(words: list[str]) -> tuple[str, int]:
    """Do what a command says; its output and its exit code."""
    name, rest = words[0], words[1:]
    if name == "cd":
        os.chdir(rest[0])
    elif name == "export":
        os.environ.update(word.split("=", 1) for word in rest)
    elif name == "cat":
        return "".join(Path(word).read_text(encoding="utf-8") for word in rest), 0
    elif name == "tunectl":
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            code = main(rest)
        return printed.getvalue(), code
    else:
        return f"{name}: not known here; mark the block: ```console shown\n", 127
    return "", 0


def matches(shown: str, output: str) -> bool:
    """Whether the output is what is shown, where ``...`` stands for anything; ends of lines do not count."""
    strip = (
        [line.rstrip() for line in shown.strip().splitlines()],
        [line.rstrip() for line in output.strip().splitlines()],
    )
    pattern = ".*".join(re.escape(part) for part in "\n".join(strip[0]).split("..."))
    return re.fullmatch(pattern, "\n".join(strip[1]), re.DOTALL) is not None


def compose_yaml(example: Example) -> str | None:
    """Write the file that the first line names, and compose the configuration with it; the errors, or None."""
    place = re.match(r"# ((?:conf/([\w/]+)/)?([\w-]+)\.ya?ml)\b", example.parsed)
    if place is None:
        return "the first line names no file; name it, or mark the block: ```yaml shown"
    path, group, choice = place.groups()
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(example.parsed, encoding="utf-8")
    if group is None:
        return None
    output, code = call(["tunectl", "check", f"{group}={choice}"])
    return f"{path}: {output}" if code else None


def list_fences(text: str) -> list[tuple[int, str, str]]:
    """Return line, language and mark of each block of a page."""
    fences = []
    inside = False
    for number, line in enumerate(text.splitlines(), start=1):
        match = re.match(r" *```(\w*)(.*)$", line)
        if match is None:
            continue
        if inside:
            inside = False
        else:
            inside = True
            fences.append((number, match[1], match[2].strip()))
    return fences
