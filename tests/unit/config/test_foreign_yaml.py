"""A file that a stranger wrote sets what its importer takes over, and nothing else; it ends within a second."""

from __future__ import annotations

import time
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tunectl.config.loading import foreign_import, foreign_yaml
from tunectl.config.loading.foreign_keys import ImportedConfig
from tunectl.core.errors import UsageError

BREAKS = ("\n", "\r", "\r\n", "\x85", "\u2028", "\u2029", "\x0b", "\x0c", "\x1b[2J", "\0", "\ufeff")
LINE = "live:\n  url: postgresql://evil.example/steal\n#"
TEXTS = st.text(max_size=60) | st.builds(
    lambda *parts: "".join(parts), st.text(max_size=9), st.sampled_from(BREAKS), st.just(LINE), st.text(max_size=9)
)
IMPORTERS = {
    "llama-factory": lambda theirs: foreign_import.import_llama_factory(theirs, {}),
    "axolotl": foreign_import.import_axolotl,
}
BASE = {
    "llama-factory": {"model_name_or_path": "x/y", "stage": "sft"},
    "axolotl": {"base_model": "x/y", "adapter": "lora"},
}
OF_THEIRS = {
    "llama-factory": ["model_name_or_path", "model_revision", "template", "output_dir", "dataset", "optim", "zzz"],
    "axolotl": ["base_model", "revision_of_model", "chat_template", "output_dir", "optimizer", "eot_tokens", "zzz"],
}


def _tree(draft: ImportedConfig) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for name, value in draft.values.items():
        here = tree
        *above, last = name.split(".")
        for part in above:
            here = here.setdefault(part, {})
        here[last] = value
    return tree


def _settings_of(text: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(text) or {}
    found.pop("defaults", None)
    return found


@pytest.mark.parametrize("tool", IMPORTERS)
@given(st.data())
@settings(max_examples=50, deadline=None)
def test_the_experiment_holds_the_draft_and_nothing_else(tool: str, data: st.DataObject) -> None:
    keys = st.sampled_from(OF_THEIRS[tool]) | TEXTS
    theirs = BASE[tool] | data.draw(st.dictionaries(keys, TEXTS | st.lists(TEXTS, max_size=2), max_size=4))
    draft = IMPORTERS[tool](theirs)
    written = foreign_yaml.to_experiment_yaml(draft, data.draw(TEXTS), "imported")
    assert _settings_of(written) == _tree(draft)


def test_a_key_with_a_line_break_stays_in_its_comment() -> None:
    draft = foreign_import.import_axolotl({**BASE["axolotl"], f"zzz\n{LINE}": 1})
    assert "live" not in _settings_of(foreign_yaml.to_experiment_yaml(draft, "theirs.yml", "imported"))


@pytest.mark.parametrize("tool", IMPORTERS)
def test_a_value_that_would_be_read_as_another_setting_is_listed_and_left_out(tool: str) -> None:
    theirs = {**BASE[tool], "output_dir": "a${serve.registry}"}
    theirs[next(iter(BASE[tool]))] = "./${inference_log.url}"
    draft = IMPORTERS[tool](theirs)
    written = foreign_yaml.to_experiment_yaml(draft, "theirs.yml", "imported")
    assert "${" not in str(_settings_of(written))
    assert not [word for word in foreign_yaml.to_overrides(draft) if "${" in word]
    assert [one.value for one in draft.dropped if "another setting of yours" in one.reason]


def test_long_values_stay_on_one_line() -> None:
    draft = ImportedConfig({})
    draft.set("a.b.c", "word " * 5000 + "\n...\n end")
    draft.set("a.b.d", ["word " * 5000, "\n"])
    written = foreign_yaml.to_experiment_yaml(draft, "theirs.yml", "imported")
    assert _settings_of(written) == _tree(draft)
    assert len(written.splitlines()) == 7


def _bomb(merge: str) -> str:
    lines = ["a0: &a0 " + ("{x: 1}" if merge else "[x,x,x,x,x,x,x,x,x]")]
    for level in range(1, 9):
        names = ",".join([f"*a{level - 1}"] * 9)
        lines.append(f"a{level}: &a{level} " + ("{" + merge + f": [{names}]}}" if merge else f"[{names}]"))
    return "\n".join([*lines, "base_model: x"])


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (_bomb(""), "with its aliases written out"),
        (_bomb("<<"), "with its aliases written out"),
        ("a: &a [*a]", "with its aliases written out"),
        ("a: &a " + "x" * 20_000 + "\nb: [*a, *a, *a, *a, *a]", "with its aliases written out"),
        ("a: " + "x" * 100_000, "100003 characters"),
        ("a: " + "[" * 20_000, "nested too deeply"),
        ("a: " + "[" * 20_000 + "]" * 20_000, "nested too deeply"),
        ("a: " + "[" * 600 + "]" * 600, "nested too deeply"),
        ("a: " + "1" * 5000, "a value cannot be read"),
        ("a: 0x" + "f" * 4000, "a whole number of 4002 characters"),
        ("a: " + "1:" * 200 + "1.0", "a value cannot be read"),
        ("a: 2001-99-99", "a value cannot be read"),
        ("", "must be a mapping"),
    ],
    ids=range(13),
)
def test_what_is_no_file_of_settings_is_refused_within_a_second(text: str, told: str) -> None:
    begun = time.process_time()
    with pytest.raises(UsageError, match=told):
        foreign_yaml.load_yaml(text, "theirs.yml")
    assert time.process_time() - begun < 1


def test_plain_aliases_are_read() -> None:
    found = foreign_yaml.load_yaml("a: &a {b: [1, 2]}\nc: *a\nd: {<<: *a, e: 3}", "theirs.yml")
    assert found == {"a": {"b": [1, 2]}, "c": {"b": [1, 2]}, "d": {"b": [1, 2], "e": 3}}
