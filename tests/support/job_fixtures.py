"""Jobs as ``conf/submit`` describes them, and programs that note what a job's script calls."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import yaml

from tunectl.config.schema.submit import Submit
from tunectl.jobs.job_spec import JobSpec

ROOT = Path(__file__).parents[2]
NASTY = (
    "plain",
    "two words",
    "it's",
    'say "hi"',
    "$(touch pwned)",
    "`touch pwned`",
    "a;touch pwned",
    "a && touch pwned",
    "-rf",
    "*",
    "ünï",
    "back\\slash",
    "100%j",
    "{brace}",
    "key: [value] # no",
    "@ID@",
)
"""What somebody may call a folder or a project: none of it may run."""
_PROGRAM = """#!{python}
import json, os, signal, sys, time
name, words = os.path.basename(sys.argv[0]), sys.argv[1:]
def note(**facts):
    with open(os.environ["NOTES"], "a") as stream:
        stream.write(json.dumps([name, *words, facts] if facts else [name, *words]) + "\\n")
note()
if name == "git" and words[0] == "clone":
    os.makedirs(words[-1] + "/sub")
if [name, *words[:1]] == ["tunectl", "repro"] and os.environ.get("WAIT"):
    def interrupt(*_):
        note(got="SIGINT")
        sys.exit(130)
    signal.signal(signal.SIGINT, interrupt)
    open(os.environ["WAIT"], "w").close()
    time.sleep(60)
codes = json.loads(os.environ.get("CODES", "{{}}"))
sys.exit(codes.get(" ".join([name, *words[: 2 if words[0] == "dvc" else 1]]), 0))
"""


def build_section(**changes: Any) -> Submit:
    """The section of the default file with other values."""
    values = yaml.safe_load((ROOT / "conf" / "submit" / "default.yaml").read_text())
    for key, value in changes.items():
        if isinstance(values[key], dict):
            values[key] |= value
        else:
            values[key] = value
    return Submit.model_validate(values)


def build_spec(section: Submit | None = None, **changes: Any) -> JobSpec:
    """A job that builds sft."""
    facts: dict[str, Any] = {
        "id": "sft-0123abcd",
        "stages": ("sft",),
        "inputs": ("sft",),
        "fits": ("cpt", "sft"),
        "commit": "c" * 40,
        "repository": "/srv/shop.git",
        "folder": "",
        "remote": "store",
        "overrides": (),
        "section": section or build_section(storage_path="/shared"),
    }
    return JobSpec(**facts | changes)


def install_programs(folder: Path) -> Path:
    """Write programs that note their arguments in ``$NOTES`` and end with the codes of ``$CODES``."""
    folder.mkdir()
    for name in ("git", "dvc", "tunectl", "scontrol", "srun"):
        path = folder / name
        path.write_text(_PROGRAM.format(python=sys.executable))
        path.chmod(0o755)
    return folder


def read_notes(path: Path) -> list[list[str]]:
    """The calls, in order."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
