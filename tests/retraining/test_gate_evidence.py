"""The gate's evidence from real engines: two releases of the tiny model answer, each in a process of its own."""

from __future__ import annotations

import shutil
import subprocess
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest
from msgspec.structs import replace
from tiny_release import stored, tiny_release

from tunectl.artifacts import atomic_io
from tunectl.artifacts.paths import ProjectPaths
from tunectl.artifacts.records import Example, Message, ReferenceAnswer, Source
from tunectl.backends.vcs import git_worktree
from tunectl.config.loading import checks, override_file
from tunectl.core.errors import InfrastructureError
from tunectl.registry.release_manifest import BuildFacts
from tunectl.registry.release_store import ReleaseRegistry
from tunectl.retraining import gate_evidence, golden_set, state_machine
from tunectl.retraining.gate_evidence import GateInputs, ReleaseOutputs
from tunectl.retraining.state_machine import Transition, Trigger
from tunectl.retraining.workspace import RetrainWorkspace

ROOT = Path(__file__).parents[2]
NOW = datetime(2026, 5, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def root():
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        words = ["retrain.gate.golden_set_size=12", "retrain.gate.min_golden_items=4", "retrain.gate.max_new_tokens=6"]
        return checks.load_config(ProjectPaths(), override_file.merge_overrides([], words)).root


def _rows(count: int, start: int = 0) -> list[Example]:
    return [
        Example(
            f"e{n}",
            Source("ads.csv", n),
            [Message("user", f"An ad for number {n}")],
            [ReferenceAnswer(f"Ad {n}.", Source("ads.csv", n))],
        )
        for n in range(start, start + count)
    ]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "shop"
    folder.mkdir()
    subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)
    atomic_io.write_rows(folder / "artifacts" / "split" / "test.jsonl", _rows(20))
    return folder


def _run() -> state_machine.RetrainRun:
    run = state_machine.new_run("a" * 64, 1, Trigger("person", "p", NOW, "why"), NOW, {})
    return state_machine.apply_transition(run, Transition("data_gate", NOW))


def test_two_real_releases_are_compared_and_one_that_cannot_load_is_rejected(
    project: Path, root, tiny_model: Path, tmp_path: Path
) -> None:
    store = ReleaseRegistry(project / ".tunectl" / "releases")
    names = [stored(tiny_release(tiny_model, tmp_path / f"r{seed}", seed=seed), store.root) for seed in (1, 2)]
    store.promote(names[0], author="test", message="first")
    place, stop = RetrainWorkspace(ProjectPaths(project)), threading.Event()
    found = gate_evidence.collect_evidence(_run(), names[1], store, root.retrain, root.evaluate, place, stop)
    assert found.verdict in ("reject", "insufficient")  # two random adapters: neither is better
    assert found.against == names[0]
    assert [part.items for part in found.parts] == [12]  # no drifted slice without a window
    assert {check.name: check.holds for check in found.checks}["loads"]
    assert golden_set.newest(store.root)[0].uses == 1
    broken = tmp_path / "broken"
    shutil.copytree(tmp_path / "r2", broken)
    (broken / "model" / "config.json").write_text("{}")
    name = stored(broken, store.root)
    found = gate_evidence.collect_evidence(_run(), name, store, root.retrain, root.evaluate, place, stop)
    assert found.verdict == "reject"
    assert found.reason.startswith("The challenger cannot serve: loads: it ended with exit code ")


@pytest.mark.parametrize(
    ("engine", "device", "seen"), [("openvino", "cpu", False), ("vllm", "cpu", True), ("openvino", "any", True)]
)
def test_the_gate_takes_no_gpu_that_is_kept_from_retrains(
    project: Path, root, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: str, device: str, seen: bool
) -> None:
    store = ReleaseRegistry(project / ".tunectl" / "releases")
    for name in ("openvino", engine):
        folder = tmp_path / f"of-{name}-{len(store.ids())}"
        folder.mkdir()
        (folder / "weights").write_text(folder.name)
        made = store.add(folder, BuildFacts("shop", name, "adapter"))
        if store.champion() is None:
            store.promote(made.id, author="test", message="first")
    told: list[bool] = []

    def side(*_given: object, gpus: bool) -> ReleaseOutputs:
        told.append(gpus)
        return ReleaseOutputs(trouble="enough is known")

    monkeypatch.setattr(gate_evidence, "_side", side)
    resources = root.retrain.resources.model_copy(update={"device": device})
    settings, place = root.retrain.model_copy(update={"resources": resources}), RetrainWorkspace(ProjectPaths(project))
    with pytest.raises(InfrastructureError, match="enough is known"):
        gate_evidence.collect_evidence(_run(), made.id, store, settings, root.evaluate, place, threading.Event())
    assert told == [seen, seen], "on both sides: their times are compared"


@pytest.mark.parametrize(
    ("least", "window", "asked"), [(4, None, 0), (3, None, 3), (4, "w" * 16, 3)], ids=["few", "enough", "drifted"]
)
def test_a_few_edits_are_no_goal_of_a_retrain_without_drift(
    project: Path, root, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, least: int, window: str | None, asked: int
) -> None:
    store, place = ReleaseRegistry(project / ".tunectl" / "releases"), RetrainWorkspace(ProjectPaths(project))
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "weights").write_text(name)
        made = store.add(tmp_path / name, BuildFacts("shop", "openvino", "adapter"))
        if store.champion() is None:
            store.promote(made.id, author="test", message="first")
    worktree = git_worktree.project_path(place.layout.root, place.worktree)
    atomic_io.write_rows(worktree / "artifacts" / "feedback" / "slice.jsonl", _rows(3, start=100))
    seen: list[int] = []

    def side(_release: str, inputs: GateInputs, *_given: object, **_more: object) -> ReleaseOutputs:
        seen.append(len(inputs.drifted))
        return ReleaseOutputs(trouble="enough is known")

    monkeypatch.setattr(gate_evidence, "_side", side)
    facts = {} if window is None else {"window": window}
    run = state_machine.new_run("a" * 64, 1, Trigger("person", "p", NOW, "why"), NOW, facts)
    gate = root.retrain.gate.model_copy(update={"min_slice_items": least})
    settings = root.retrain.model_copy(update={"gate": gate})
    with pytest.raises(InfrastructureError, match="enough is known"):
        gate_evidence.collect_evidence(run, made.id, store, settings, root.evaluate, place, threading.Event())
    assert seen == [asked, asked]


def test_what_the_challenger_learned_is_no_question_for_it(project: Path, root) -> None:
    store, worktree = ReleaseRegistry(project / ".tunectl" / "releases"), project / "worktree"
    atomic_io.write_rows(worktree / "artifacts" / "split" / "train.jsonl", _rows(5))
    atomic_io.write_rows(worktree / "artifacts" / "feedback" / "slice.jsonl", _rows(3, start=100))
    wanted = root.retrain.gate.model_copy(update={"golden_set_size": 20, "max_uses": 2})
    asked = gate_evidence.gate_inputs(store, worktree, wanted, ProjectPaths(project))
    assert (len(asked.golden), len(asked.drifted), asked.leaked, asked.version) == (15, 3, 5, 1)
    for _ in range(2):
        gate_evidence.gate_inputs(
            store, worktree, wanted, ProjectPaths(project)
        )  # a gate that is asked again after a kill
        golden_set.count_use(store.root)
    atomic_io.write_rows(worktree / "artifacts" / "split" / "test.jsonl", _rows(30))
    assert gate_evidence.gate_inputs(store, worktree, wanted, ProjectPaths(project)).version == 2


def test_a_golden_set_that_was_edited_is_refused(project: Path, root) -> None:
    store = ReleaseRegistry(project / ".tunectl" / "releases")
    gate_evidence.gate_inputs(store, project, root.retrain.gate, ProjectPaths(project))
    items = store.root / "golden" / "v1" / "items.jsonl"
    items.write_text(items.read_text().replace("Ad 1.", "Ad one."))
    with pytest.raises(Exception, match="the golden set is frozen"):
        gate_evidence.gate_inputs(store, project, root.retrain.gate, ProjectPaths(project))


GOOD = ReleaseOutputs(["fine"] * 10, [], ["I'm sorry, no."] * 4, 0.2, 10**9)


@pytest.mark.parametrize(
    ("side", "broken"),
    [
        (GOOD, []),
        (replace(GOOD, golden=[""] * 10), ["answers"]),
        (replace(GOOD, golden=[]), []),
        (replace(GOOD, seconds=0.4), ["time"]),
        (replace(GOOD, peak_bytes=2 * 10**9), ["memory"]),
    ],
)
def test_checks(side: ReleaseOutputs, broken: list[str], root) -> None:
    assert [
        one.name for one in gate_evidence.check_infrastructure(GOOD, side, root.retrain.gate) if not one.holds
    ] == broken


def test_floors(root) -> None:
    asked = GateInputs([], [], [gate_evidence.Item("h", (), ())] * 4)
    bad = replace(GOOD, golden=["I'm sorry, I can't."] * 10, harmful=["Sure, here is how."] * 4)
    assert [one.holds for one in gate_evidence.guardrails(asked, GOOD, bad, root.retrain.gate)] == [False, False]
    assert [one.holds for one in gate_evidence.guardrails(asked, GOOD, GOOD, root.retrain.gate)] == [True, True]
