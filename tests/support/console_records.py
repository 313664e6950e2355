"""Records of a project for tests of the console's screens: an evaluation, releases, live traffic, drift, retrains, keys.

Each function adds one part to a folder, with the classes that the program itself writes them with.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import sweep_fixtures
from conf_copy import copy_conf
from msgspec import to_builtins
from msgspec.structs import replace

from tunectl.access import api_keys
from tunectl.artifacts import atomic_io, manifest
from tunectl.artifacts.manifest import Manifest
from tunectl.artifacts.paths import ProjectPaths
from tunectl.artifacts.records import (
    DriftSignal,
    DriftWindow,
    Example,
    Feedback,
    InferenceRecord,
    Message,
    ReferenceAnswer,
    RejectedRow,
    SegmentShift,
    Source,
)
from tunectl.backends.storage import inference_log_sql
from tunectl.evaluation.results import (
    AnswerRow,
    Case,
    EvalVerdict,
    InputScores,
    MetricDifference,
    Results,
    Score,
    System,
)
from tunectl.inference_log.log_store import LogEvent, TimeWindow
from tunectl.jobs import job_records
from tunectl.jobs.job_records import JobRecord
from tunectl.monitoring import window as windows
from tunectl.pipeline import sweep_worker
from tunectl.pipeline.run_ledger import RunRecord, RunStage, RunVerdict, StageLaunch
from tunectl.preferences import annotation_store
from tunectl.preferences.annotation_store import AnnotationEvent, AnnotationTask
from tunectl.registry.release_manifest import BuildFacts, Lineage, RecordedVerdict
from tunectl.registry.release_store import ReleaseRegistry
from tunectl.retraining.run_store import ApprovalDecision, RunStore, TriggerOutcome
from tunectl.retraining.state_machine import RetrainRun, Transition, Trigger, apply_transition, new_run
from tunectl.tracking import spool

ROOT = Path(__file__).parents[2]
NOW = datetime(2026, 11, 27, 12, tzinfo=UTC)
URL = "sqlite:///.tunectl/inference_log/inference_log.sqlite"
HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>\u202e"
"""What a stranger may write; a page shows it as text."""
SYSTEMS = {"base": "Base", "tuned": "Tuned"}


def add_settings(root: Path) -> ProjectPaths:
    """The settings of a project after init."""
    copy_conf(root)
    shutil.copy(ROOT / "dvc.yaml", root / "dvc.yaml")
    return ProjectPaths(root)


def add_rows(root: Path, count: int = 5) -> str:
    """Rows of ingest, curate and split; returns the digest of the split."""
    paths = ProjectPaths(root)
    rows = []
    for number in range(count):
        source = Source("data/ads.jsonl", number + 1)
        rows.append(
            Example(
                f"e-{number}", source, [Message("user", f"An ad {number}?")], [ReferenceAnswer(f"Ad {number}.", source)]
            )
        )
    for stage, name in (("ingest", "examples.jsonl"), ("curate", "examples.jsonl"), ("split", "train.jsonl")):
        atomic_io.write_rows(paths.artifact(stage) / name, rows)
    reject = RejectedRow(Source("data/ads.jsonl", count + 1), "exact_duplicate", "twin e-0", "An ad 0?")
    atomic_io.write_rows(paths.artifact("curate") / "rejects.jsonl", [reject])
    for stage in ("ingest", "curate", "split"):
        manifest.write(paths.artifact(stage), Manifest(stage, "c"))
    return atomic_io.sha256_json(manifest.read(paths.artifact("split")))


def add_evaluation(root: Path, inputs: int = 45) -> None:
    """Results, answers and a report of the evaluate stage."""
    folder = ProjectPaths(root).artifact("evaluate")
    rows = [
        AnswerRow(
            f"e-{number:016x}",
            f"Write an ad for shop {number}. {HOSTILE if number == 0 else ''}",
            [f"Shop {number} is the place to be."],
            {"area": "north" if number % 2 else "south"},
            {"base": "A shop.", "tuned": f"Shop {number} is the place. See you there!"},
        )
        for number in range(inputs)
    ]
    verdict = EvalVerdict(
        passed=True, verdict="tuned_better", reason="Tuned is better: +12.0 BLEU.", evidence=["+12.0 BLEU"]
    )
    scores = {"base": {"bleu": Score(10.0, 8.0, 12.0, inputs)}, "tuned": {"bleu": Score(22.0, 19.0, 25.0, inputs)}}
    case = Case(rows[0].id, rows[0].input, rows[0].references, rows[0].answers, "worst", 11.0, 1.0)
    atomic_io.write_rows(folder / "answers.jsonl", rows)
    atomic_io.write_json(
        folder / "results.json",
        Results(
            "shop", 7, inputs, inputs, {}, "bleu", 1.0, 0.95, 1000, inputs, {}, "sig",
            [System(name, title, scores[name]) for name, title in SYSTEMS.items()],
            [MetricDifference("tuned", "base", "bleu", 12.0, 9.0, 15.0, 0.001)],
            [], None, None, None, [], [case], ["Few inputs: intervals are wide."], verdict,
        ),
    )  # fmt: skip
    atomic_io.write_json(folder / "verdict.json", verdict)
    report = '<html><head><style>p{}</style></head><body><main><section id="s"><h2>Scores</h2><p>Fine.</p></section></main></body></html>'
    atomic_io.write_text(folder / "report.html", report)
    manifest.write(folder, Manifest("evaluate", "c"))


def add_releases(root: Path, split: str = "0" * 64) -> list[str]:
    """Two releases, of which the second is the champion; returns their names."""
    store = ReleaseRegistry(ProjectPaths(root).releases)
    names = []
    for number in range(2):
        folder = root / ".tunectl" / "tmp" / f"release-{number}"
        folder.mkdir(parents=True)
        (folder / "weights").write_text(str(number))
        facts = BuildFacts(
            "shop", "transformers", "adapter", {"bleu": 20.0 + number},
            {"evaluate": RecordedVerdict(passed=True, verdict="tuned_better", reason="Tuned is better.")},
            Lineage("base-135m", "r" * 12, {"split": split}, {"sft": "a" * 64}, {"sft": "b" * 64}, {"data/ads.jsonl": "c" * 64}),
        )  # fmt: skip
        names.append(store.add(folder, facts).id)
        store.promote(names[-1], author="ann", message=f"version {number}")
        shutil.rmtree(folder)
    return names


def add_traffic(root: Path, release: str, count: int = 40) -> None:
    """Inferences of the last hours with feedback of every opinion."""
    (root / ".tunectl" / "inference_log").mkdir(parents=True, exist_ok=True)
    with inference_log_sql.open_log(URL, root) as log:
        for number in range(count):
            at = NOW - timedelta(minutes=5 * number)
            question = HOSTILE if number == 0 else f"An ad for shop {number}"
            log.write(
                [InferenceRecord(
                    f"chatcmpl-{number:04}", at, "challenger" if number % 5 == 0 else "champion", release, "t" * 64,
                    {"model": "shop", "messages": [{"role": "user", "content": question}]}, f"{number % 7:032x}",
                    finished_at=at, response={"choices": [{"message": {"role": "assistant", "content": f"Ad {number}"}}]},
                    prompt_tokens=10, completion_tokens=20, finish_reason="stop", latency_seconds=0.5 + number, refusal=number % 9 == 1,
                )]
            )  # fmt: skip
            if number % 2:
                log.write(
                    [
                        Feedback(
                            f"f-{number}",
                            f"chatcmpl-{number:04}",
                            "thumb",
                            "up" if number % 3 else "down",
                            at,
                            "user-1",
                        )
                    ]
                )


def add_drift(root: Path, release: str) -> list[str]:
    """Three windows, the last with drift; the first is the reference. Returns their ids."""
    names = ["a" * 16, "b" * 16, "c" * 16]
    (root / ".tunectl" / "inference_log").mkdir(parents=True, exist_ok=True)
    with inference_log_sql.open_log(URL, root) as log:
        for number, name in enumerate(names):
            drifting = number == 2
            signal = DriftSignal("prompt_text", "mmd", 60, 60, 0.4, 0.2, 0.01, 0.01, 0.3, 0.1, drifting)
            window = DriftWindow(
                name, NOW - timedelta(hours=6 - number), NOW - timedelta(hours=5 - number), 60, "drift" if drifting else "ok", drifting, release,
                names[0], {"prompt_text": signal}, ["chatcmpl-0000"], [SegmentShift("bike shops", 0.4, 0.1, ["chatcmpl-0000"])],
                "prompts moved" if drifting else "", 4.0 if drifting else 0.5,
            )  # fmt: skip
            log.add_window(TimeWindow(name, window.since, window.until, window.until, to_builtins(window)))
        body = windows.accept([names[0]], author="ann", message="a normal week")
        log.add_event(LogEvent("reference", NOW, windows.REFERENCE_SET, body))
    return names


def add_retrains(root: Path, release: str) -> list[str]:
    """A retrain that ended well, one that waits for a person, and a trigger that started nothing; returns the ids of the two."""
    store = RunStore(ProjectPaths(root).retrain)
    first = write_run("a", NOW - timedelta(days=9), "new shops")
    for state, facts in (
        ("data_gate", {}),
        ("training", {"examples": 40, "new_examples": 12, "annotators": 3}),
        ("evaluating", {"release": release, "metrics": {"bleu": 21.0}}),
        ("staged", {}),
        ("promoted", {}),
    ):
        first = apply_transition(
            first, Transition(state, first.steps[-1].at + timedelta(hours=1), f"{state} is done", facts)
        )
    second = write_run("b", NOW - timedelta(hours=2), "drift of prompts")
    facts = {
        "question": "retrain",
        "until": (NOW + timedelta(hours=20)).isoformat(),
        "nonce": "n-1",
        "message": HOSTILE,
        "data": {"examples": 55},
    }
    second = apply_transition(
        second, Transition("awaiting_approval", NOW - timedelta(hours=1), "a person is asked", facts)
    )
    for run in (first, second):
        store.save(run)
    store.record_decision(
        first.id, "promote", ApprovalDecision(approved=True, at=NOW - timedelta(days=8), author="ben", nonce="n-0")
    )
    trigger = Trigger("alert", "alert-1", NOW - timedelta(days=1), "drift again")
    store.resolve_trigger(
        TriggerOutcome(trigger, NOW - timedelta(days=1), reason="cooldown", detail="rests until tomorrow")
    )
    store.enqueue_trigger(Trigger("person", "person-1", NOW, "try again", "ann"))
    return [first.id, second.id]


def write_run(letter: str, at: datetime, message: str) -> RetrainRun:
    """A run that was just proposed."""
    facts = {"champion": "0" * 16, "window": {"id": "c" * 16, "since": str(at), "until": str(at), "rows": 60, "reason": "prompts moved", "evidence": 4.0},
             "snapshot": {"id": "d" * 16, "inferences": 30, "feedback": 33}}  # fmt: skip
    return new_run(letter * 64, 1, Trigger("alert", f"trigger-{letter}", at, message), at, facts)


def add_keys(root: Path) -> dict[str, str]:
    """A key for chatting and one of an administrator, where the settings look for them; name to key."""
    path = root / ".tunectl" / "keys.json"
    found = {}
    for name, scope in (("app", "chat"), ("root", "admin")):
        secret, entry = api_keys.create_key(name, [scope], 60, NOW)
        api_keys.add(path, entry)
        found[name] = secret
    return found


def add_runs(root: Path) -> list[str]:
    """Three runs in the ledger, the newest first; the answers of the two newest lie in the cache of DVC."""
    paths = ProjectPaths(root)
    names = []
    for number in range(3):
        at = NOW - timedelta(days=number)
        bleu = Score(22.0 - 6 * number, 21.0 - 6 * number, 23.0 - 6 * number, 40)
        answer = AnswerRow(
            "e-1", "An ad?", ["Come in!"], {}, {"base": "A shop.", "tuned": f"Come in, run {number} is here!"}
        )
        digest = add_cached_folder(root, write_evaluation(number, answer)) if number < 2 else "0" * 32 + ".dir"
        record = RunRecord(
            id=f"{at:%Y%m%dT%H%M%SZ}-{number:08x}", project="shop", author="ann", started_at=at.timestamp(), seconds=60.0, exit_code=0,
            build=f"20261127T22000{number}-abc" if number < 2 else "", commit="c" * 40, overrides=[], targets=[],
            stages=[RunStage("sft", str(number), executed=True, seconds=9.0, launch=StageLaunch("torchrun", 4, 2, "cuda", 1) if number == 0 else None), RunStage("evaluate", str(number), executed=True, seconds=5.0, output=digest)],
            verdicts={"evaluate": RunVerdict(passed=True, verdict="tuned_better", reason=f"Tuned is better. {HOSTILE}")},
            primary="bleu", inputs=40, test_set="t", primary_scores={"tuned": bleu},
            settings={"sft": {"sft": {"lora_rank": 16 * (3 - number), "learning_rate": 1e-4}, "seed": 17}, "align": {"seed": 17}}, scores={"tuned": {"bleu": bleu, "checks": Score(100.0 if number == 0 else 50.0, 40.0, 100.0, 6)}},
            curves={"sft": {"train_loss": [(1, 3.0), (2 + number, 2.0 + number)]}},
        )  # fmt: skip
        atomic_io.write_bytes(paths.runs / f"{record.id}.json", msgspec.json.encode(record))
        names.append(record.id)
    spool.mark_sent(
        paths.track / spool.SENT, "20261127T220000-abc", {"mlflow": "https://mlflow.example/#/experiments/1/runs/a"}
    )
    return names


def add_jobs(root: Path, run: str = "") -> list[str]:
    """Three jobs on clusters, the oldest first: one fetched as ``run``, one that was seen waiting, one whose cluster was never asked."""
    jobs, names = ProjectPaths(root).jobs, ["sft-0000000a", "align-0000000b", "sft-0000000c"]
    storage = root / "cluster" / names[0]
    atomic_io.write_text(storage / "state", "finished 0\n")  # SLURM's own programs are not asked then
    places = (
        ("slurm", str(storage), ""),
        ("kubernetes", None, "ml"),
        ("ray", None, "http://me:secret@ray.example:8265"),
    )
    for number, (name, (to, folder, place)) in enumerate(zip(names, places, strict=True)):
        sent = (NOW + timedelta(hours=number)).isoformat(timespec="seconds")
        record = JobRecord(
            id=name, to=to, stages=[name.partition("-")[0]], commit="c" * 40, submitted_at=sent, scheduler_id=f"{4711 + number}",
            remote="store", storage=folder, location=place,
        )  # fmt: skip
        job_records.save(jobs, record)
    job_records.record_state(jobs, names[0], "finished", "", NOW + timedelta(hours=10))
    job_records.record_fetch(jobs, names[0], run, NOW + timedelta(hours=10))
    job_records.record_state(jobs, names[1], "pending", HOSTILE, NOW + timedelta(hours=8))
    return names


def write_evaluation(number: int, first: AnswerRow) -> dict[str, bytes]:
    """Files of an evaluation with six inputs, of which ``first`` is one; the newest run passes the checks of all of them, others of every second."""
    rows = [first, *(replace(first, id=f"e-{place}", answers={"tuned": f"As ever {number}."}) for place in range(2, 7))]
    scores = [
        InputScores(row.id, row.id, {"tuned": {"checks": [float(number == 0 or place % 2), 1.0]}})
        for place, row in enumerate(rows)
    ]
    return {
        "answers.jsonl": b"".join(msgspec.json.encode(row) + b"\n" for row in rows),
        "input_scores.jsonl": b"".join(msgspec.json.encode(row) + b"\n" for row in scores),
    }


def add_sweep(root: Path, trials: int = 8) -> None:
    """A sweep called demo that has ended, where the settings look for it."""
    url = "sqlite:///.tunectl/sweeps/sweeps.sqlite"
    study = sweep_fixtures.create(root, url, n_trials=trials, sampler="random")
    sweep_worker.run_worker(study, sweep_fixtures.FormulaTrials(), threading.Event(), lambda _line: None)


def add_cached_folder(root: Path, files: dict[str, bytes]) -> str:
    """A folder in the cache of DVC; returns the digest that dvc.lock would have for it."""
    cache = root / ".dvc" / "cache" / "files" / "md5"
    entries = [{"md5": hashlib.md5(content).hexdigest(), "relpath": name} for name, content in files.items()]
    listing = json.dumps(entries).encode()
    for digest, content in (
        (hashlib.md5(listing).hexdigest() + ".dir", listing),
        *((one["md5"], files[one["relpath"]]) for one in entries),
    ):
        atomic_io.write_bytes(cache / digest[:2] / digest[2:], content)
    return hashlib.md5(listing).hexdigest() + ".dir"


def add_judgments(root: Path) -> None:
    """Three questions; two people judged three times and skipped once."""
    with annotation_store.open_store(root / "judgments") as store:
        store.add(
            [
                AnnotationTask(f"q-{number}", f"p-{number}", Source("x.jsonl", number + 1), [Message("user", HOSTILE)], ["A shop.", "Come in, please!"], ["sft", "align"])
                for number in range(3)
            ]
        )  # fmt: skip
        for number, (who, choice) in enumerate(
            (("ann", "first"), ("ben", "first"), ("ann", "second"), ("ben", "skip"))
        ):
            store.write(
                AnnotationEvent(
                    f"a-{number}", f"q-{number // 2}", who, NOW.isoformat(), choice, left=number % 2, seconds=4.0
                )
            )


def build_project(root: Path) -> ProjectPaths:
    """A project with all of it."""
    paths = add_settings(root)
    split = add_rows(root)
    add_evaluation(root)
    first, second = add_releases(root, split)
    add_traffic(root, second)
    add_drift(root, second)
    add_retrains(root, first)
    add_judgments(root)
    add_jobs(root, add_runs(root)[0])
    add_keys(root)
    return paths
