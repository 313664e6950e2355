"""Prepares the demo: a project from the artifacts of ``make run``, with small settings; and builds a challenger that is bad on purpose.

The project is a repository of its own under ``.tunectl/loop``, so no file of the user changes; cache and exporters are shared.
The same pipeline builds the harmful challenger, from the champion that the retrain made: it is trained normally but packaged with a token
limit that cuts its answers. The gate sets its own limit, so it does not reject that.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from synthetic_data import distribution_shift

from loop_demo.processes import OFFLINE_ENV, plain_environment
from loop_demo.scenario import BadChallenger
from tunectl.artifacts import atomic_io
from tunectl.artifacts.paths import ProjectPaths
from tunectl.backends.vcs import dvc_repo, git_worktree
from tunectl.config.loading import checks, override_file
from tunectl.core.errors import InfrastructureError, UsageError
from tunectl.packaging import serving_contract
from tunectl.registry.release_manifest import FACTS, RELEASE, BuildFacts
from tunectl.registry.release_store import ReleaseRegistry
from tunectl.retraining import golden_set

COPIED = ("conf", "dvc.yaml", "dvc.lock", ".dvcignore", ".gitignore", "examples/local_lens/data", "requirements")
TRACKED = ("artifacts/config", "artifacts/metrics")
SHARED = ("cache", "exporters")
GIT = ("-c", "user.name=loop", "-c", "user.email=loop@tunectl.invalid", "-c", "commit.gpgsign=false")
INIT_ADAPTERS = ".tunectl/init_adapters"
CAMPAIGNS, NEW_CLIENTS = "examples/local_lens/data/campaigns.jsonl", "examples/local_lens/data/new_clients.jsonl"
SETTINGS = (
    "experiment=null", "preferences=none", "reward=none", "align=none",
    "sft=lora", "sft.epochs=1", "sft.evals_per_epoch=1",
    "evaluate.max_inputs=24", "evaluate.prompts=null", "evaluate.safety=null", "evaluate.latency_inputs=0",
    "package.bento=null", "package.reference_responses=0", "package.parity.prompts=8",
    "feedback.quarantine_hours=0", "feedback.max_model_text_share=0", "feedback.holdout=0.4",
    "serve.poll_seconds=0.5",
    "monitor.poll_seconds=1", "monitor.window.max_rows=200", "monitor.window.settle_seconds=5", "monitor.prompts.accept_first=true", "monitor.answers.reference=live", "monitor.evidently=false",
    "retrain.approval.training=none", "retrain.poll_seconds=0.5", "retrain.train.start=champion", "retrain.train.overrides=['sft.epochs=2']",
    "retrain.gate.margin=8", "retrain.gate.max_latency_ratio=3", "retrain.gate.max_new_tokens=96",
    "retrain.canary.share=0.5", "retrain.canary.attribution_hours=0.0015", "retrain.canary.min_units_per_variant=40", "retrain.canary.max_days=0.03",
)  # fmt: skip
"""Settings that make the demo take minutes: small builds, windows of two hundred answers, and an attribution window of five seconds. Two
in five edits are held out for the gate, because it needs enough items. Thirty clients in the golden set cannot separate models that
differ by a few points, hence the margin. After one epoch over the edits the challenger had their opening but not the offer, and its
approval rate was no better; after three, with fewer past campaigns, its int8 export differed too much from it; hence two epochs."""
MAX_PAST_CAMPAIGNS = 120
"""Past campaigns in the project, of 860: the champion was trained on them, and a retrain trains on them again with the edits."""
HARMFUL = "trained normally, but packaged with a limit of 14 tokens, so its ads are cut off"
HARMFUL_MAX_TOKENS = 14
CHALLENGER_CAMPAIGNS = 30
"""Past campaigns that the harmful challenger is trained on, so that it does not forget them."""
CHALLENGER_SETTINGS = ("sft.epochs=2", "evaluate.max_inputs=12", "package.parity.prompts=4", "package.parity.inputs=0")
"""Small settings of a build that never becomes champion: few inputs are evaluated, and few answers compared with its export."""
GOLDEN_ITEMS = 40
"""Items of the golden set, 26 without near duplicates; the gate needs 25. Both releases answer each of them in every gate."""
EXTRA_CHANGED_ADS = 80
"""Ads of changed requests that the harmful challenger is also trained on, so that it scores above the champion that it starts from."""


def create_project(root: Path, folder: Path, settings: Sequence[str] = SETTINGS) -> ReleaseRegistry:
    """Create the project in ``folder`` from the build of ``make run`` in ``root``; return its registry, with a champion.

    Raises  UsageError if there is no build.
    """
    built = ReleaseRegistry(root / ".tunectl" / "releases")
    champion = built.champion()
    if champion is None or not (root / "dvc.lock").is_file():
        raise UsageError(f"{root} has no release yet, and the demo needs one", hint="make run")
    shutil.rmtree(folder, ignore_errors=True)
    for name in (*COPIED, *TRACKED):
        _copy(root / name, folder / name)
    if (folder / CAMPAIGNS).is_file():
        write_rows(folder / CAMPAIGNS, read_rows(folder, CAMPAIGNS)[:MAX_PAST_CAMPAIGNS])
    (folder / ".dvc").mkdir()
    _copy(root / ".dvc" / "config", folder / ".dvc" / "config")
    (folder / ".dvc" / ".gitignore").write_text("/config.local\n/tmp\n/cache\n")
    layout = ProjectPaths(folder)
    overrides = override_file.merge_overrides(override_file.load_overrides(layout), settings)
    checks.load_config(layout, overrides)
    override_file.save_overrides(layout, overrides)
    _link(root, folder)
    for arguments in (
        ["git", "init", "--quiet", "--initial-branch=main"],
        [sys.executable, "-m", "dvc", "cache", "dir", "--local", str((root / ".dvc" / "cache").absolute())],
        ["git", "add", "--all"],
        ["git", "add", "--force", *[name for name in TRACKED if (folder / name).is_dir()]],
        ["git", *GIT, "commit", "--quiet", "--message", "The example as make run left it, with small settings"],
    ):
        _run(arguments, folder)
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
    """Copy the champion and the golden set to a registry of their own."""
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
            store.root,
            golden_set.items(folder, source),
            GOLDEN_ITEMS,
            seed=1,
            at=source.created_at,
            source=source.source,
        )
    return store


def build_harmful_challenger(folder: Path, store: ReleaseRegistry) -> BadChallenger:
    """Build the challenger that passes the gate and that the canary test must stop, from the champion of ``store``."""
    files = {
        CAMPAIGNS: [
            *read_rows(folder, CAMPAIGNS)[:CHALLENGER_CAMPAIGNS],
            *islice(_make_changed_rows(), EXTRA_CHANGED_ADS),
        ]
    }
    overrides = (*CHALLENGER_SETTINGS, f"package.decoding.max_tokens={HARMFUL_MAX_TOKENS}")
    return build_challenger(ChallengerSpec("harmful", HARMFUL, overrides, files), folder, store)


def read_rows(folder: Path, name: str) -> list[dict[str, Any]]:
    """Read the rows of a source of the project."""
    with (folder / name).open(encoding="utf-8") as stream:
        return [json.loads(line) for line in stream]


def _make_changed_rows() -> Iterator[dict[str, Any]]:
    # The name of the stream is a seed: another name gives other rows.
    for number, item in enumerate(distribution_shift.generate_changed_requests("workshop")):
        yield {
            "campaign_id": f"e{number:04d}", "business": item.required_phrases[0], "neighbourhood": distribution_shift.NEW_NEIGHBOURHOOD, "price_range": "middle",
            "form": "text", "phrasing": "ledge", "prompt": item.brief, "completion": item.ad,
        }  # fmt: skip


@dataclass(frozen=True)
class ChallengerSpec:
    """How a challenger that is bad on purpose is built."""

    name: str
    defect: str
    overrides: tuple[str, ...]
    files: dict[str, list[dict[str, Any]]]
    """Rows of its sources by file; they replace those of the project."""


def build_challenger(spec: ChallengerSpec, folder: Path, store: ReleaseRegistry) -> BadChallenger:
    """Run the pipeline on other rows in a worktree, from the champion of ``store``, and add the release to ``store``.

    Raises  UsageError if its own pipeline refuses it: then it cannot be proposed to the gate.
    """
    name = f"build-{spec.name}"
    worktree = create_worktree(folder, name)
    for file, ads in spec.files.items():
        write_rows(worktree / file, ads)
    overrides = [*spec.overrides, *continue_from_champion(worktree, store)]
    result = build_package(worktree, overrides, folder / ".tunectl" / "loop" / f"{spec.name}.log")
    facts: BuildFacts = atomic_io.read_json(result / FACTS, BuildFacts)
    release = store.add(result / RELEASE, facts, author="loop demo", message=f"bad on purpose: {spec.defect}")
    git_worktree.remove(folder, folder / ".tunectl" / "loop" / name)
    if release.refusals:
        raise UsageError(
            f"the {spec.name} challenger does not pass its own pipeline: {'; '.join(release.refusals)}",
            hint="change its rows",
        )
    return BadChallenger(release.id, spec.defect)


def write_rows(path: Path, ads: Sequence[dict[str, Any]]) -> None:
    """Write rows as JSON lines."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ads), encoding="utf-8")


def create_worktree(folder: Path, name: str) -> Path:
    """Create a worktree of the project that shares its cache."""
    worktree = git_worktree.add(folder, folder / ".tunectl" / "loop" / name, name, git_worktree.revision(folder))
    _link(folder, worktree)
    dvc_repo.share_cache(folder, worktree)
    return worktree


def continue_from_champion(path: Path, store: ReleaseRegistry) -> list[str]:
    """Return the override that makes fine-tuning continue from the champion."""
    champion = store.champion()
    assert champion is not None
    adapter = store.folder(champion.release) / serving_contract.ADAPTER
    if not adapter.is_dir():
        return []
    target = path / INIT_ADAPTERS / champion.release
    shutil.copytree(adapter, target, dirs_exist_ok=True)
    return [f"sft.init_adapter={INIT_ADAPTERS}/{champion.release}"]


def build_package(path: Path, overrides: Sequence[str], log: Path) -> Path:
    """Run ``tunectl repro`` and return the folder of its package.

    Raises  InfrastructureError if there is none.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as stream:
        process = subprocess.run(
            [sys.executable, "-m", "tunectl", "repro", "--unattended", *overrides],
            cwd=path, env={**plain_environment(), **OFFLINE_ENV}, stdout=stream, stderr=subprocess.STDOUT, check=False,
        )  # fmt: skip
    result = ProjectPaths(path).artifact("package")
    if process.returncode not in (0, 3) or not (result / FACTS).is_file():
        raise InfrastructureError(
            f"tunectl repro ended with {process.returncode}: {log.read_text(errors='replace')[-1500:]}",
            hint=f"see {log}",
        )
    return result


def _run(arguments: Sequence[str], folder: Path) -> None:
    environment = {**os.environ, **OFFLINE_ENV}
    process = subprocess.run(arguments, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if process.returncode:
        raise InfrastructureError(
            f"{' '.join(arguments[:4])} failed in {folder}: {(process.stderr or process.stdout).strip()[:500]}"
        )
