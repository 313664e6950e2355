"""The generated pages of docs/reference/ say what the code says."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [
    "commands.md",
    "errors.md",
    "files.md",
    "http.md",
    "metrics.md",
    "other-tools.md",
    "python.md",
    "reject-reasons.md",
    "routes.md",
    "settings.md",
]


@pytest.fixture(scope="module")
def rendered() -> dict[str, str]:
    sys.path.insert(0, str(ROOT / "docs"))  # the two scripts import each other as scripts do
    try:
        from generate_reference import render_pages

        return render_pages()
    finally:
        sys.path.remove(str(ROOT / "docs"))


def test_these_pages_are_generated(rendered):
    assert sorted(rendered) == PAGES


@pytest.mark.parametrize("name", PAGES)
def test_the_page_is_what_the_code_says(name, rendered):
    committed = (ROOT / "docs" / "reference" / name).read_text(encoding="utf-8")
    new = sorted(set(rendered[name].splitlines()) - set(committed.splitlines()))
    assert rendered[name] == committed, f"docs/reference/{name} is stale: run make docs-reference; new lines: {new}"


def test_every_section_verb_and_exit_code_has_an_entry(rendered):
    from tunectl.cli.main import VERBS
    from tunectl.config.schema.root import TunectlConfig

    assert [name for name in TunectlConfig.model_fields if f"\n## {name}\n" not in rendered["settings.md"]] == []
    assert [verb.name for verb in VERBS if f"\n## tunectl {verb.name}\n" not in rendered["commands.md"]] == []
    assert all(f"\n| {code} | " in rendered["errors.md"] for code in (0, 1, 2, 3, 4, 5))


def test_values_are_those_of_conf(rendered):
    assert "| `sft.lora_rank` | a whole number from 1 to 1024 | `16` |" in rendered["settings.md"]


def test_labels_are_known_before_a_series_is(rendered):
    assert any(
        line.startswith("| `tunectl_drift_score` | gauge | `signal` |") for line in rendered["metrics.md"].splitlines()
    )
