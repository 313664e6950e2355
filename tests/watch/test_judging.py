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

from tunectl.artifacts import io
from tunectl.artifacts.layout import Layout
from tunectl.artifacts.records import Answer, Example, Message, Source
from tunectl.config import check, overrides
from tunectl.core.errors import EnvironmentFailure
from tunectl.release import golden, machine
from tunectl.release.machine import Step, Trigger
from tunectl.release.manifest import Facts
from tunectl.release.store import Store
from tunectl.services.watcher import judging, weighing
from tunectl.services.watcher.place import Place
from tunectl.services.watcher.weighing import Question, Side

ROOT = Path(__file__).parents[2]
NOW = datetime(2026, 5, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def root():
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        words = ["watch.gate.golden=12", "watch.gate.least_golden=4", "watch.gate.max_new_tokens=6"]
        return check.load(Layout(), overrides.merge([], words)).root


def _rows(count: int, start: int = 0) -> list[Example]:
    return [
        Example(
            f"e{n}",
            Source("ads.csv", n),
            [Message("user", f"An ad for number {n}")],
            [Answer(f"Ad {n}.", Source("ads.csv", n))],
        )
        for n in range(start, start + count)
    ]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "shop"
    folder.mkdir()
    subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)
    io.write_rows(folder / "artifacts" / "split" / "test.jsonl", _rows(20))
    return folder


def _run() -> machine.Run:
    run = machine.begun("a" * 64, 1, Trigger("person", "p", NOW, "why"), NOW, {})
    return machine.advanced(run, Step("data_gate", NOW))


def test_two_real_releases_are_compared_and_one_that_cannot_load_is_rejected(
    project: Path, root, tiny_model: Path, tmp_path: Path
) -> None:
    store = Store(project / ".tunectl" / "releases")
    names = [stored(tiny_release(tiny_model, tmp_path / f"r{seed}", seed=seed), store.root) for seed in (1, 2)]
    store.promote(names[0], by="test", why="first")
    place, stop = Place(Layout(project)), threading.Event()
    found = judging.judged(_run(), names[1], store, root.watch, root.evaluate, place, stop)
    assert found.verdict in ("reject", "insufficient")  # two random adapters: neither is better
    assert found.against == names[0]
    assert [part.items for part in found.parts] == [12]  # no drifted slice without a window
    assert {check.name: check.holds for check in found.checks}["loads"]
    assert golden.newest(store.root)[0].uses == 1
    broken = tmp_path / "broken"
    shutil.copytree(tmp_path / "r2", broken)
    (broken / "model" / "config.json").write_text("{}")
    name = stored(broken, store.root)
    found = judging.judged(_run(), name, store, root.watch, root.evaluate, place, stop)
    assert found.verdict == "reject"
    assert found.reason.startswith("The challenger cannot serve: loads: it ended with exit code ")


@pytest.mark.parametrize(
    ("engine", "device", "seen"), [("openvino", "cpu", False), ("vllm", "cpu", True), ("openvino", "any", True)]
)
def test_the_gate_takes_no_gpu_that_is_kept_from_retrains(
    project: Path, root, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: str, device: str, seen: bool
) -> None:
    store = Store(project / ".tunectl" / "releases")
    for name in ("openvino", engine):
        folder = tmp_path / f"of-{name}-{len(store.ids())}"
        folder.mkdir()
        (folder / "weights").write_text(folder.name)
        made = store.add(folder, Facts("shop", name, "apart"))
        if store.champion() is None:
            store.promote(made.id, by="test", why="first")
    told: list[bool] = []

    def side(*_given: object, gpus: bool) -> Side:
        told.append(gpus)
        return Side(trouble="enough is known")

    monkeypatch.setattr(judging, "_side", side)
    resources = root.watch.resources.model_copy(update={"device": device})
    watch, place = root.watch.model_copy(update={"resources": resources}), Place(Layout(project))
    with pytest.raises(EnvironmentFailure, match="enough is known"):
        judging.judged(_run(), made.id, store, watch, root.evaluate, place, threading.Event())
    assert told == [seen, seen], "on both sides: their times are compared"


def test_what_the_challenger_learned_is_no_question_for_it(project: Path, root) -> None:
    store, worktree = Store(project / ".tunectl" / "releases"), project / "worktree"
    io.write_rows(worktree / "artifacts" / "split" / "train.jsonl", _rows(5))
    io.write_rows(worktree / "artifacts" / "harvest" / "slice.jsonl", _rows(3, start=100))
    wanted = root.watch.gate.model_copy(update={"golden": 20, "uses": 2})
    asked = judging.question(store, worktree, wanted, Layout(project))
    assert (len(asked.golden), len(asked.drifted), asked.leaked, asked.version) == (15, 3, 5, 1)
    for _ in range(2):
        judging.question(store, worktree, wanted, Layout(project))  # a gate that is asked again after a kill
        golden.used(store.root)
    io.write_rows(worktree / "artifacts" / "split" / "test.jsonl", _rows(30))
    assert judging.question(store, worktree, wanted, Layout(project)).version == 2


def test_a_golden_set_that_was_edited_is_refused(project: Path, root) -> None:
    store = Store(project / ".tunectl" / "releases")
    judging.question(store, project, root.watch.gate, Layout(project))
    items = store.root / "golden" / "v1" / "items.jsonl"
    items.write_text(items.read_text().replace("Ad 1.", "Ad one."))
    with pytest.raises(Exception, match="the golden set is frozen"):
        judging.question(store, project, root.watch.gate, Layout(project))


GOOD = Side(["fine"] * 10, [], ["I'm sorry, no."] * 4, 0.2, 10**9)


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
def test_checks(side: Side, broken: list[str], root) -> None:
    assert [one.name for one in weighing.checked(GOOD, side, root.watch.gate) if not one.holds] == broken


def test_floors(root) -> None:
    asked = Question([], [], [weighing.Item("h", (), ())] * 4)
    bad = replace(GOOD, golden=["I'm sorry, I can't."] * 10, harmful=["Sure, here is how."] * 4)
    assert [one.holds for one in weighing.floors(asked, GOOD, bad, root.watch.gate)] == [False, False]
    assert [one.holds for one in weighing.floors(asked, GOOD, GOOD, root.watch.gate)] == [True, True]
