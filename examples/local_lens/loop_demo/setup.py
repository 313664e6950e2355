"""The stage is built: a project out of the artifacts of ``make run``, small settings, and two challengers that are bad on purpose.

The project is a repository of its own under ``.tunectl/loop``, so nothing of the user's is touched; cache and exporters are shared.
The bad challengers come out of the same pipeline: one learns ads of which the first sentence is left, the other learns well and is
then packaged with a limit that cuts its answers, which a gate that sets its own limit cannot see.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from synthetic_data import distribution_shift

from loop_demo.processes import QUIET, plain_environment
from loop_demo.scenario import Bad
from tunectl.artifacts import atomic_io
from tunectl.artifacts.paths import ProjectPaths
from tunectl.backends.vcs import dvc_repo, git_worktree
from tunectl.config.loading import checks, override_file
from tunectl.core.errors import InfrastructureError, UsageError
from tunectl.packaging import serving_contract
from tunectl.registry.release_manifest import FACTS, RELEASE, BuildFacts
from tunectl.registry.release_store import ReleaseRegistry
from tunectl.retraining import golden_set

Say = Callable[[str], None]
COPIED = ("conf", "dvc.yaml", "dvc.lock", ".dvcignore", ".gitignore", "examples/local_lens/data", "requirements")
TRACKED = ("artifacts/config", "artifacts/metrics")
SHARED = ("cache", "exporters")
GIT = ("-c", "user.name=loop", "-c", "user.email=loop@tunectl.invalid", "-c", "commit.gpgsign=false")
INIT_ADAPTERS = ".tunectl/init_adapters"
CAMPAIGNS, NEW_CLIENTS = "examples/local_lens/data/campaigns.jsonl", "examples/local_lens/data/new_clients.jsonl"
SETTINGS = (
    "experiment=null", "preferences=none", "reward=none", "align=none",
    "sft.epochs=1", "sft.evals_per_epoch=1",
    "evaluate.max_inputs=24", "evaluate.prompts=null", "evaluate.safety=null", "evaluate.latency_inputs=0",
    "package.bento=null", "package.reference_responses=0", "package.parity.prompts=8",
    "feedback.quarantine_hours=0", "feedback.max_model_text_share=0", "feedback.holdout=0.4",
    "serve.poll_seconds=0.5",
    "monitor.poll_seconds=1", "monitor.window.max_rows=200", "monitor.window.settle_seconds=5", "monitor.prompts.accept_first=true", "monitor.answers.reference=live", "monitor.evidently=false",
    "retrain.approval.training=none", "retrain.poll_seconds=0.5", "retrain.train.start=champion", "retrain.train.overrides=['sft.epochs=2']",
    "retrain.gate.margin=8", "retrain.gate.max_latency_ratio=3", "retrain.gate.max_new_tokens=96",
    "retrain.canary.share=0.5", "retrain.canary.attribution_hours=0.0015", "retrain.canary.min_units_per_variant=60", "retrain.canary.max_days=0.03",
)  # fmt: skip
"""What makes it last minutes: small builds, windows of two hundred answers, people who are done after five seconds. Of the few rows that
people write two in five are kept for the gate, so that it can tell; thirty clients of the golden set tell no two models apart that are
nearer than some points, hence the margin. After one pass over their ads the challenger opened as they do and forgot the offer, and
people liked it no better."""
PAST = 80
"""Past campaigns that the project has, of 860: its champion knows them already, and a retrain learns them again beside people's ads."""
POOR = "it learned ads of which the first sentence is left, and its own evaluation is on rows just as short"
HARMFUL = "it learned well, but was packaged with a limit of 14 tokens: its ads break off"
CUT = 14
ROWS = 40
"""Past campaigns that a bad challenger is made of."""
UNSEEN = ("package.parity.inputs=0",)
"""What nobody will look at of a release that never becomes champion."""
GOLDEN_ITEMS = 60
"""Items of the golden set: differences of tens of points need no more, and both releases answer each of them in every gate."""
EDGEWOOD = 160
"""Ads of the changed town that the harmful one learns besides, in more passes: it has to be surely better than what the retrain made."""


def project(root: Path, folder: Path, settings: Sequence[str] = SETTINGS) -> ReleaseRegistry:
    """Make the project in ``folder`` out of what ``make run`` left in ``root``; returns its release store, with a champion.

    Raises  UsageError where nothing was built yet.
    """
    built = ReleaseRegistry(root / ".tunectl" / "releases")
    champion = built.champion()
    if champion is None or not (root / "dvc.lock").is_file():
        raise UsageError(f"{root} has no release yet, so there is nothing to watch", hint="make run")
    shutil.rmtree(folder, ignore_errors=True)
    for name in (*COPIED, *TRACKED):
        _copy(root / name, folder / name)
    if (folder / CAMPAIGNS).is_file():
        write_rows(folder / CAMPAIGNS, rows(folder, CAMPAIGNS)[:PAST])
    (folder / ".dvc").mkdir()
    _copy(root / ".dvc" / "config", folder / ".dvc" / "config")
    (folder / ".dvc" / ".gitignore").write_text("/config.local\n/tmp\n/cache\n")
    layout = ProjectPaths(folder)
    overrides = override_file.merge_overrides(override_file.load_overrides(layout), settings)
    checks.load_config(layout, overrides)
    override_file.save_overrides(layout, overrides)
    _link(root, folder)
    for words in (
        ["git", "init", "--quiet", "--initial-branch=main"],
        [sys.executable, "-m", "dvc", "cache", "dir", "--local", str((root / ".dvc" / "cache").absolute())],
        ["git", "add", "--all"],
        ["git", "add", "--force", *[name for name in TRACKED if (folder / name).is_dir()]],
        ["git", *GIT, "commit", "--quiet", "--message", "The example as make run left it, with small settings"],
    ):
        _run(words, folder)
    return _store_champion(built, champion.release, ReleaseRegistry(layout.releases))


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target)
    elif source.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)


def _link(root: Path, folder: Path) -> None:
    (folder / ".tunectl").mkdir(exist_ok=True)
    for name in SHARED:
        (root / ".tunectl" / name).mkdir(parents=True, exist_ok=True)
        (folder / ".tunectl" / name).symlink_to((root / ".tunectl" / name).absolute(), target_is_directory=True)


def _store_champion(built: ReleaseRegistry, release: str, store: ReleaseRegistry) -> ReleaseRegistry:
    """The champion and the golden set in a store of their own."""
    manifest = built.manifest(release)
    facts = BuildFacts(
        manifest.project, manifest.engine, manifest.layout, manifest.metrics, manifest.verdicts, manifest.lineage
    )
    result = store.add(built.folder(release), facts, author="make run", git=manifest.git)
    store.promote(result.id, author="make run", message="what make run built", force=True)
    golden = golden_set.newest(built.root)
    if golden is not None:
        source, folder = golden
        golden_set.freeze(
            store.root, golden_set.items(folder, source), GOLDEN_ITEMS, seed=1, at=source.created_at, source=source.source
        )
    return store


def poor(folder: Path, store: ReleaseRegistry, path: Path, say: Say) -> Bad:
    """Build the challenger that the gate must reject."""
    past, fresh = rows(folder, CAMPAIGNS)[:ROWS], rows(folder, NEW_CLIENTS)
    job = Job(
        "poor",
        POOR,
        ("sft.epochs=1", *UNSEEN),
        {CAMPAIGNS: keep_first_sentences(past), NEW_CLIENTS: keep_first_sentences(fresh)},
    )
    return Bad(build_challenger(job, folder, store, path, say), POOR)


def harmful(folder: Path, store: ReleaseRegistry, path: Path, say: Say) -> Bad:
    """Build the challenger that passes the gate, and that people must not keep."""
    files = {CAMPAIGNS: [*rows(folder, CAMPAIGNS)[:ROWS], *islice(_edgewood(), EDGEWOOD)]}
    job = Job("harmful", HARMFUL, ("sft.epochs=2", f"package.decoding.max_tokens={CUT}", *UNSEEN), files)
    return Bad(build_challenger(job, folder, store, path, say), HARMFUL)


def rows(folder: Path, name: str) -> list[dict[str, Any]]:
    """The rows of a source of the project."""
    with (folder / name).open(encoding="utf-8") as stream:
        return [json.loads(line) for line in stream]


def keep_first_sentences(ads: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same briefs, each with the first sentence of its ad."""
    return [{**row, "completion": re.split(r"(?<=[.!?])\s", row["completion"], maxsplit=1)[0]} for row in ads]


def _edgewood() -> Iterator[dict[str, Any]]:
    for number, item in enumerate(distribution_shift.generate_changed("workshop")):
        yield {
            "campaign_id": f"e{number:04d}", "business": item.must[0], "neighbourhood": distribution_shift.HOOD, "price_range": "middle",
            "form": "text", "phrasing": "ledge", "prompt": item.brief, "completion": item.ad,
        }  # fmt: skip


@dataclass(frozen=True)
class Job:
    """A challenger that is bad on purpose."""

    name: str
    why: str
    words: tuple[str, ...]
    """Settings."""
    files: dict[str, list[dict[str, Any]]]
    """Rows of its sources by their file, in place of the project's."""

    def key(self, champion: str) -> str:
        """Changes with everything that it is made of."""
        return atomic_io.sha256_json([champion, list(self.words), list(SETTINGS), self.files])[:12]


def build_challenger(job: Job, folder: Path, store: ReleaseRegistry, path: Path, say: Say) -> str:
    """Run the pipeline on other rows in a worktree of its own; the id of the release in ``store``. What was built before lies in ``path``.

    Raises  UsageError where its own pipeline refuses it: then it would not get as far as the gate.
    """
    champion = store.champion()
    result = path / f"{job.name}-{job.key(champion.release if champion else '')}"
    if (result / FACTS).is_file():
        say(f"{job.name} is there from an earlier time: {job.why}")
    else:
        say(f"building {job.name}: {job.why}")
        _build(job, folder, store, result)
    facts: BuildFacts = atomic_io.read_json(result / FACTS, BuildFacts)
    release = store.add(result / RELEASE, facts, author="the workshop", message=f"bad on purpose: {job.why}")
    if release.refusals:
        raise UsageError(
            f"the {job.name} challenger does not pass its own pipeline: {'; '.join(release.refusals)}",
            hint="change its rows",
        )
    return release.id


def _build(job: Job, folder: Path, store: ReleaseRegistry, path: Path) -> None:
    place = bench(folder, f"workshop-{job.name}")
    for name, ads in job.files.items():
        write_rows(place / name, ads)
    result = build_package(
        place, [*job.words, *continue_from_champion(place, store)], folder / ".tunectl" / "loop" / f"{job.name}.log"
    )
    with atomic_io.atomic_directory(path, path.parent / "tmp") as fresh:
        shutil.copytree(result / RELEASE, fresh / RELEASE)
        shutil.copy(result / FACTS, fresh / FACTS)
    git_worktree.remove(folder, folder / ".tunectl" / "loop" / f"workshop-{job.name}")


def write_rows(path: Path, ads: Sequence[dict[str, Any]]) -> None:
    """Rows as JSON lines."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ads), encoding="utf-8")


def bench(folder: Path, name: str) -> Path:
    """A worktree of the project with everything that is built already."""
    place = git_worktree.add(folder, folder / ".tunectl" / "loop" / name, name, git_worktree.revision(folder))
    _link(folder, place)
    dvc_repo.share_cache(folder, place)
    return place


def continue_from_champion(path: Path, store: ReleaseRegistry) -> list[str]:
    """The override that lets fine-tuning go on from the champion."""
    champion = store.champion()
    assert champion is not None
    adapter = store.folder(champion.release) / serving_contract.ADAPTER
    if not adapter.is_dir():
        return []
    target = path / INIT_ADAPTERS / champion.release
    shutil.copytree(adapter, target, dirs_exist_ok=True)
    return [f"sft.init_adapter={INIT_ADAPTERS}/{champion.release}"]


def build_package(path: Path, words: Sequence[str], log: Path) -> Path:
    """The package that ``tunectl repro`` makes there.

    Raises  InfrastructureError where it ends without one.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as stream:
        process = subprocess.run(
            [sys.executable, "-m", "tunectl", "repro", "--unattended", *words],
            cwd=path, env={**plain_environment(), **QUIET}, stdout=stream, stderr=subprocess.STDOUT, check=False,
        )  # fmt: skip
    result = ProjectPaths(path).artifact("package")
    if process.returncode not in (0, 3) or not (result / FACTS).is_file():
        raise InfrastructureError(
            f"tunectl repro ended with {process.returncode}: {log.read_text(errors='replace')[-1500:]}",
            hint=f"see {log}",
        )
    return result


def _run(words: Sequence[str], folder: Path) -> None:
    environment = {**os.environ, **QUIET}
    process = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if process.returncode:
        raise InfrastructureError(
            f"{' '.join(words[:4])} failed in {folder}: {(process.stderr or process.stdout).strip()[:500]}"
        )
