"""Commands and settings that the documents show are ones that there are."""

import re
import shlex
from importlib import import_module
from pathlib import Path

import pytest

from tunectl.cli.main import VERBS, MixedArgumentParser
from tunectl.config.loading.foreign_keys import KEYS
from tunectl.config.schema.root import TunectlConfig

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    *sorted(page for page in (ROOT / "docs").rglob("*.md") if page.parent.name not in {"reference", "decisions"}),
]
TOOLS = ("llama_factory", "axolotl")
SETTINGS = (ROOT / "docs" / "reference" / "settings.md").read_text(encoding="utf-8")


def find_commands() -> list[tuple[str, str]]:
    """Page and text of each command line that begins with ``$ tunectl``, and of each one in a sentence."""
    commands = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8").replace("\\\n", " ")
        lines = re.findall(r"^\$ (tunectl .*)$", text, re.MULTILINE)
        lines += [line for line in re.findall(r"`(tunectl [^`\n]+)`", text) if "VERB" not in line]
        name = str(page.relative_to(ROOT))
        commands += [
            (name, part.partition(" #")[0].strip()) for line in lines for part in line.split("&&") if "tunectl" in part
        ]
    return commands


def parse(words: list[str]) -> None:
    """Parse a command line as the verb does; SystemExit where it would not be accepted."""
    verb = next((verb for verb in VERBS if verb.name == words[0]), None)
    assert verb is not None, f"tunectl {words[0]}: no such verb"
    module = import_module(verb.module)
    parser = MixedArgumentParser(prog=f"tunectl {verb.name}")
    parser.add_argument("--verbose", action="store_true")
    module.add(parser)
    parser.parse_args(words[1:])


@pytest.mark.parametrize(("page", "line"), sorted(set(find_commands())))
def test_a_command_in_the_documents_is_accepted(page, line, capsys):
    words = shlex.split(line, comments=True)[1:]
    if len(words) == 1 and words[0] in {"data", "release", "log", "import", "federate"}:
        return  # named in a sentence, as a whole
    try:
        parse(words)
    except SystemExit:
        pytest.fail(f"{page}: {line}: {capsys.readouterr().err.strip().splitlines()[-1]}")


def test_settings_in_the_documents_exist():
    sections = "|".join(TunectlConfig.model_fields)
    unknown = [
        f"{page.relative_to(ROOT)}: {key}"
        for page in PAGES
        for key in re.findall(rf"`(?:tunectl \w+ )?((?:{sections})\.[a-z0-9_.<>]+)", page.read_text(encoding="utf-8"))
        if not key.endswith((".py", ".yaml", ".json")) and f"`{key}" not in SETTINGS
    ]
    assert unknown == []


def test_the_page_for_newcomers_agrees_with_the_importer():
    """Each row of its table of keys is one that ``tunectl import`` knows, with the same setting here."""
    text = (ROOT / "docs" / "guides" / "coming_from.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (?:`(\w+)`)? ?\| (?:`(\w+)`)? ?\| `([\w.]+)` \|", text, re.MULTILINE)
    assert len(rows) >= 15
    known = {(tool, name): key.ours for key in KEYS for tool in TOOLS for name in getattr(key, tool).split()}
    wrong = [
        (name, ours)
        for llama_factory, axolotl, ours in rows
        for tool, name in (("llama_factory", llama_factory), ("axolotl", axolotl))
        if name and known.get((tool, name)) != ours
    ]
    assert wrong == []
    settings = set(re.findall(r"^\| `([\w.<>]+)` \|", SETTINGS, re.MULTILINE))
    assert {ours for _, _, ours in rows} - settings == set()
