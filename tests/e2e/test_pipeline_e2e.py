"""The pipeline as people run it: real processes, real DVC, the real example rows, and a tiny model."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tunectl.cli.main import main
from tunectl.pipeline.stages import STAGES

ROOT = Path(__file__).parents[2]
PROGRAM = [sys.executable, "-m", "tunectl"]
ALL = {stage.name for stage in STAGES}
pytestmark = pytest.mark.timeout(600)


class Project:
    """A project in a folder of its own, run with a copy of the source so that the code can be edited too."""

    def __init__(self, folder: Path, model: Path) -> None:
        self.root = folder / "project"
        self.source = folder / "src"
        shutil.copytree(ROOT / "src", self.source, ignore=shutil.ignore_patterns("__pycache__"))
        self.root.mkdir()
        for name in ("conf", "dvc.yaml", ".dvcignore", ".dvc"):
            kind = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
            kind(
                ROOT / name,
                self.root / name,
                **({"ignore": shutil.ignore_patterns("cache", "tmp")} if (ROOT / name).is_dir() else {}),
            )
        (self.root / "data").mkdir()
        rows = (ROOT / "examples/local_lens/data/new_clients.jsonl").read_text().splitlines()
        (self.root / "data" / "first.jsonl").write_text("\n".join(rows[:100]) + "\n")
        self.more = "\n".join(rows[100:140]) + "\n"
        subprocess.run(["git", "init", "-q"], cwd=self.root, check=True)
        self.words = ["experiment=smoke", "data.path=data", f"model.source.path={model}"]

    @property
    def environment(self) -> dict[str, str]:
        scripts = str(Path(sys.executable).parent)
        return {
            **os.environ,
            "PYTHONPATH": str(self.source),
            "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}",
            "HF_HUB_OFFLINE": "1",
            "DVC_NO_ANALYTICS": "1",
            "DO_NOT_TRACK": "1",
        }

    def run(self, *words: str, allowed: set[int] | None = None) -> subprocess.CompletedProcess[str]:
        done = subprocess.run([*PROGRAM, *words], cwd=self.root, env=self.environment, capture_output=True, text=True)
        assert done.returncode in ({0} if allowed is None else allowed), done.stdout[-3000:] + done.stderr[-3000:]
        return done

    def repro(self, *words: str) -> set[str]:
        """Run ``tunectl repro``; returns the stages that ran. A verdict of no is fine: the model is tiny."""
        done = self.run("repro", *words, allowed={0, 3})
        return set(re.findall(r"Running stage '(\w+)'", done.stdout + done.stderr)) - {"compose"}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Project:
    made = Project(tmp_path_factory.mktemp("e2e"), tiny_model)
    assert made.repro(*made.words) == ALL
    return made


def test_every_stage_left_a_manifest_numbers_and_an_account_that_adds_up(project: Project) -> None:
    for name in ALL:
        assert (project.root / "artifacts" / name / "manifest.json").is_file(), name
        assert json.loads((project.root / "artifacts/metrics" / f"{name}.json").read_text())["seconds"] >= 0
    assert "</html>" in (project.root / "artifacts/evaluate/report.html").read_text()
    project.run("data", "counts")


def test_nothing_changed_nothing_runs(project: Project) -> None:
    assert project.repro() == set()
    found = json.loads(project.run("status", "--json").stdout)
    assert {row["state"] for row in found["stages"]} <= {"up to date", "switched off"}
    loop = found["status"]
    assert (loop["monitor"], loop["controller"], loop["traffic"]) == ("never", "never", None)


LOOKING = (
    "check", "check sft.lora_rank=32", "doctor", "estimate", "estimate sft.epochs=3", "status", "status --json",
    "data counts", "data report", "data inspect", "data show", "data show split", "data rejects", "data refresh",
    "data lineage champion", "log show", "monitor list", "monitor show", "retrain status", "release list", "release show 0",
    "release log", "release diff 0 0", "release verify", "data agreement --json", "data agreement --stage --json",
    "explain champion", "explain data/first.jsonl:1", "sweep show", "submit status", "log verify",
)  # fmt: skip
"""Verbs that look; whether there is something to see does not matter here."""


def digest_files(root: Path) -> dict[str, str]:
    """SHA-256 of every file that Git or DVC may track; the page that `data report` is for is ignored by both."""
    kept = (path for path in root.rglob("*") if path.is_file())
    names = {path: path.relative_to(root) for path in kept}
    return {
        str(name): hashlib.sha256(path.read_bytes()).hexdigest()
        for path, name in names.items()
        if name.parts[0] not in {".tunectl", ".git", ".dvc"} and name.name != "data_report.html"
    }


def test_looking_changes_no_file(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project.root)
    before = digest_files(project.root)
    changed = {}
    for words in LOOKING:
        main(words.split())
        after = digest_files(project.root)
        if after != before:
            changed[words] = sorted({name for name, _ in after.items() ^ before.items()})
            before = after
    assert not changed


def append(name: str, text: str) -> Callable[[Project], None]:
    def edit(project: Project) -> None:
        path = (project.source if name.startswith("tunectl/") else project.root) / name
        path.write_text(path.read_text() + text)

    return edit


def add_raw_file(project: Project) -> None:
    (project.root / "data/second.jsonl").write_text(project.more)


EDITS: list[tuple[str, Callable[[Project], None] | str, set[str]]] = [
    ("a comment in YAML", append("conf/sft/lora.yaml", "# a remark\n"), set()),
    ("a comment in a stage's code", append("tunectl/pipeline/stages/evaluate.py", "# a remark\n"), set()),
    ("a key of the last stage", "package.reference_responses=3", {"package"}),
    (
        "a statement in a stage's code",
        append("tunectl/pipeline/stages/evaluate.py", "_MARK = 1\n"),
        {"evaluate", "package"},
    ),
    (
        "a statement in code that only one stage reaches",
        append("tunectl/packaging/model_card.py", "_MARK = 1\n"),
        {"package"},
    ),
    (
        "a key of fine-tuning",
        "sft.learning_rate=0.002",
        {"sft", "preferences", "reward", "align", "evaluate", "package"},
    ),
    ("a raw file", add_raw_file, ALL - {"model", "feedback"}),
]


@pytest.mark.parametrize(
    ("edit", "expected"), [(edit, expected) for _, edit, expected in EDITS], ids=[name for name, _, _ in EDITS]
)
def test_an_edit_reruns_exactly_what_it_touches(
    project: Project, edit: Callable[[Project], None] | str, expected: set[str]
) -> None:
    if isinstance(edit, str):
        assert project.repro(edit) == expected
        assert edit in (project.root / "conf/overrides.yaml").read_text()
    else:
        edit(project)
        assert project.repro() == expected


def test_bare_dvc_repro_sees_an_edit_of_the_yaml(project: Project) -> None:
    recorded = project.root / "conf/overrides.yaml"
    assert "package.reference_responses=3" in recorded.read_text()
    recorded.write_text(recorded.read_text().replace("package.reference_responses=3", "package.reference_responses=4"))
    done = subprocess.run(
        [sys.executable, "-m", "dvc", "repro"],
        cwd=project.root,
        env=project.environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert set(re.findall(r"Running stage '(\w+)'", done.stdout + done.stderr)) == {"compose", "package"}


def test_a_mistake_is_reported_before_anything_is_recorded_or_run(project: Project) -> None:
    before = (project.root / "conf/overrides.yaml").read_text()
    done = project.run("repro", "sft.epohcs=2", allowed={2})
    assert "sft.epohcs" in done.stderr
    assert "did you mean sft.epochs" in done.stderr
    assert (project.root / "conf/overrides.yaml").read_text() == before


def test_two_runs_at_once_are_refused(project: Project) -> None:
    from tunectl.artifacts import lock
    from tunectl.artifacts.paths import ProjectPaths

    with lock.file_lock(ProjectPaths(project.root).repro_lock, "tunectl repro"):
        done = project.run("repro", allowed={5})
    assert f"another run is working in this project: tunectl repro, process {os.getpid()}, since " in done.stderr


def test_a_corrupted_artifact_is_named_and_rebuilt(project: Project) -> None:
    path = project.root / "artifacts/split/train.jsonl"
    good = path.read_bytes()
    path.unlink()
    path.write_bytes(good[:-10])
    done = project.run("run", "sft", allowed={5})
    assert "artifacts/split/train.jsonl is corrupted: its SHA-256 is not the recorded " in done.stderr
    path.write_bytes(good)


def test_an_artifact_of_another_config_is_refused(project: Project) -> None:
    path = project.root / "artifacts/config/split.json"
    kept = path.read_text()
    record = json.loads(kept)
    record["settings"]["seed"] += 1
    path.write_text(json.dumps(record))
    done = project.run("run", "sft", allowed={5})
    assert (
        "artifacts/split was made from another configuration or other code than artifacts/config/split.json holds now"
        in done.stderr
    )
    path.write_text(kept)


def test_a_failed_stage_leaves_no_half_artifact_and_its_own_exit_code(project: Project) -> None:
    shutil.copy(project.root / "data/first.jsonl", project.root / "kept.jsonl")
    path = project.root / "data/first.jsonl"
    path.write_text("not json\n" * 300)
    done = project.run("repro", allowed={2})
    assert "rows were rejected; the limit is" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list((project.root / ".tunectl/tmp").glob("*"))
    shutil.move(project.root / "kept.jsonl", path)
    project.repro()


def test_kill_in_the_middle_of_training_goes_on_from_the_last_checkpoint(project: Project) -> None:
    words = [*PROGRAM, "repro", "sft.epochs=5", "sft.save_steps=2", "sft.early_stopping=null"]
    process = subprocess.Popen(
        words,
        cwd=project.root,
        env=project.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    work = project.root / ".tunectl/work"
    deadline = time.monotonic() + 240
    while not list(work.glob("sft-*/checkpoint-*/complete*")) and not list(work.glob("sft-*/**/complete*")):
        assert time.monotonic() < deadline, "no checkpoint was written"
        assert process.poll() is None, "the run ended before it was killed"
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (project.root / "artifacts/sft/manifest.json").exists()
    done = project.run("repro", "--to", "sft")
    assert re.search(r"(resum|goes on|going on|continu)\w* .*step \d+", done.stdout + done.stderr, re.IGNORECASE), (
        done.stderr[-2000:]
    )
    assert (project.root / "artifacts/sft/manifest.json").is_file()
