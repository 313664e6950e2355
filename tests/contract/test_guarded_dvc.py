"""DVC is called with its guards, which replace what is there: another DVC, or a call past them, is seen at once."""

from __future__ import annotations

import hashlib
import inspect
import re
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
REPLACED = {
    ("dvc_data.hashfile.tree", "Tree.from_list"): "a560d20c221dc8df",
    ("dvc_data.hashfile.tree", "Tree.load"): "01b009dfaec7e085",
    ("dvc_data.hashfile.hash_info", "HashInfo.from_dict"): "9a1ec1397fe55839",
    ("dvc.stage.cache", "StageCache._load"): "387d30ed46756308",
    ("dvc.stage.cache", "StageCache.restore"): "c7e43f44087e4b85",
    ("dvc.stage.cache", "StageCache.transfer"): "b17b3e5ad4ab32b3",
    ("dvc.stage.loader", "StageLoader.fill_from_lock"): "da565947ec83278b",
    ("dvc.output", "Output._compute_hash_info_from_meta"): "7d2f347891886a16",
    ("dvc.utils.serialize._common", "_dump_data"): "e5c82405acfc8ccb",
    ("dvc.utils.serialize._common", "_modify_data"): "5d8432d4d3002a03",
    ("dvc.utils.serialize._yaml", "dump_yaml"): "5a3b25f72ee0bdee",
}
"""First 16 digits of the SHA-256 of the source of what the guards replace, and of what they rely on: who calls it, and which fact becomes the digest."""
HARMLESS = {"init", "config", "cache"}
"""Commands of DVC that read nothing of a remote or of the cache, so they may run without the guards."""
PLACES = ("src", "examples", "monitoring", ".github", ".ci", "Makefile", "dvc.yaml", "bento.dockerfile.j2")
CALL = re.compile(
    r"""(?:["']-m["'],\s*|\[)["']dvc["'],\s*["'](\w+)|^[ \t]*(?:run: )?(?:[$@] ?)?dvc (\w+) [^,.]*$""", re.MULTILINE
)
"""DVC in a list of words, and at the beginning of a line of a script."""


def read_source(module: str, name: str) -> str:
    found = import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    return inspect.getsource(found)


@pytest.mark.parametrize(("module", "name"), REPLACED, ids=lambda text: text.rpartition(".")[2])
def test_the_guards_replace_what_they_were_written_for(module: str, name: str) -> None:
    pytest.importorskip("dvc")
    digest = hashlib.sha256(read_source(module, name).encode()).hexdigest()[:16]
    assert digest == REPLACED[module, name], (
        f"{module}: {name} differs in dvc {version('dvc')}, dvc-data {version('dvc-data')}. Read it beside "
        "backends/vcs/guarded_dvc.py: is every list of a folder still read by Tree.from_list, every run of the run cache by "
        "StageCache._load, every file of it copied by StageCache.transfer, every YAML file written by _dump_data, and which key of an entry "
        "becomes its digest? "
        f"Run tests/backends/test_dvc_repo.py; then write {digest} here."
    )


def test_nothing_of_ours_calls_dvc_past_its_guards() -> None:
    paths = [
        path for place in PLACES for path in ((ROOT / place).rglob("*") if (ROOT / place).is_dir() else [ROOT / place])
    ]
    texts = {
        path.relative_to(ROOT): path.read_text(encoding="utf-8")
        for path in paths
        if path.suffix in {".py", ".sh", ".yml", ".yaml", ".j2", ""} and path.is_file()
    }
    calls = {(str(name), "".join(words)) for name, text in texts.items() for words in CALL.findall(text)}
    assert {place for place, word in calls if word not in HARMLESS} == set(), (
        "say tunectl dvc, or dvc_repo.build_command"
    )
    assert {word for _, word in calls} == HARMLESS, "the pattern finds the calls that there are"


@pytest.mark.parametrize(
    "line", ["  dvc pull --quiet", "dvc push --run-cache x", "      run: dvc pull -r far", '["dvc", "fetch"]']
)
def test_a_call_past_the_guards_is_found(line: str) -> None:
    (words,) = CALL.findall(line)
    assert "".join(words) in {"pull", "push", "fetch"}
