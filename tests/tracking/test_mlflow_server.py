"""``tunectl track sync`` against a real MLflow server on SQLite: runs, children, curves, digests, files, and the registry."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conf_copy import copy_conf
from mlflow_server import ROOT, MlflowServer, ensure_client, ensure_server
from msgspec.structs import replace

from tunectl.registry.release_manifest import BuildFacts
from tunectl.registry.release_store import ReleaseRegistry
from tunectl.tracking import spool
from tunectl.tracking.build_record import BuildRecord, StageRecord

pytestmark = pytest.mark.slow
CURVE = [(step, 3.0 / step) for step in range(1, 1201)]
RECORD = BuildRecord(
    id="20261127T120000-abc123",
    project="shop",
    started=1_795_000_000.0,
    seconds=12.5,
    exit_code=0,
    tags={"git.commit": "c" * 40},
    params={"seed": "17", "sft.lora_rank": "8"},
    metrics={"bleu": 45.5, "bleu_low": 44.0, "bleu_high": 47.0},
    digests={"split": "d" * 32 + ".dir"},
    stages=[StageRecord(name="sft", metrics={"validation_loss": 1.5}, curves={"loss": CURVE})],
)
ASK = """
import json, sys, mlflow
client = mlflow.MlflowClient(sys.argv[1])
found = []
for experiment in client.search_experiments():
    for run in client.search_runs([experiment.experiment_id], max_results=1000):
        files = [file.path for file in client.list_artifacts(run.info.run_id)]
        inputs = [(one.dataset.name, one.dataset.digest) for one in run.inputs.dataset_inputs]
        loss = len(client.get_metric_history(run.info.run_id, "loss"))
        found.append({"experiment": experiment.name, "status": run.info.status, "params": run.data.params, "tags": run.data.tags,
                      "metrics": run.data.metrics, "id": run.info.run_id, "files": files, "inputs": inputs, "loss": loss})
models = {}
for model in client.search_registered_models():
    versions = client.search_model_versions(f"name='{model.name}'")
    aliases = client.get_registered_model(model.name).aliases
    models[model.name] = {"versions": {str(v.version): v.tags["release"] for v in versions}, "aliases": {a: str(v) for a, v in aliases.items()}}
    models[model.name]["sources"] = [version.source for version in versions]
print(json.dumps({"runs": found, "models": models}))
"""


@pytest.fixture(scope="module")
def python() -> Path:
    """The environment of whoever sends: it has MLflow's client alone."""
    return ensure_client()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    found = MlflowServer(ensure_server(), tmp_path_factory.mktemp("mlflow"))
    try:
        yield found
    finally:
        found.stop()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "shop"
    folder.mkdir()
    copy_conf(folder)
    (folder / "report.html").write_text("<html>the report</html>")
    spool.save(folder / ".tunectl" / "track" / "spool", RECORD, [(folder / "report.html", "evaluate/report.html")])
    return folder


def tunectl(python: Path, folder: Path, *words: str, code: int = 0, **environment: str) -> str:
    done = subprocess.run(
        [str(python), "-m", "tunectl", "track", *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == code, done.stdout
    return done.stdout


def sync(python: Path, folder: Path, server: MlflowServer, name: str, *words: str) -> str:
    given = ["track.to=[mlflow]", f"track.uri={server.uri}", f"track.experiment={name}", *words]
    return tunectl(python, folder, "sync", *given)


def ask(server: MlflowServer, experiment: str = "") -> dict[str, Any]:
    done = subprocess.run([str(server.python), "-c", ASK, server.uri], capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    found["runs"] = [run for run in found["runs"] if run["experiment"] == experiment]
    return found


def test_the_sender_has_the_client_alone(python: Path) -> None:
    text = "from importlib.metadata import distributions as d; print(*(one.name for one in d()))"
    done = subprocess.run([str(python), "-c", text], capture_output=True, text=True, check=True)
    names = done.stdout.split()
    assert "mlflow-skinny" in names
    assert "mlflow" not in names


def test_a_build_is_a_run_with_a_child_a_stage(python: Path, server: MlflowServer, project: Path) -> None:
    assert f"build {RECORD.id} sent to mlflow" in sync(python, project, server, "shop")
    runs = {run["tags"]["mlflow.runName"]: run for run in ask(server, "shop")["runs"]}
    parent, child = runs[f"shop-{RECORD.id}"], runs["sft"]
    sent = json.loads((project / ".tunectl" / "track" / "sent" / f"{RECORD.id}.json").read_text())
    assert re.fullmatch(rf"{server.uri}/#/experiments/\d+/runs/[0-9a-f]{{32}}", sent["mlflow"])
    assert parent["status"] == "FINISHED"
    assert parent["params"] == {"seed": "17", "sft.lora_rank": "8"}
    assert parent["metrics"] == {"bleu": 45.5, "bleu_low": 44.0, "bleu_high": 47.0}
    assert parent["tags"]["git.commit"] == "c" * 40
    assert parent["inputs"] == [["split", RECORD.digests["split"]]]
    assert parent["files"] == ["evaluate"]
    assert child["tags"]["mlflow.parentRunId"] == parent["id"]
    assert child["metrics"]["validation_loss"] == 1.5
    assert child["loss"] == len(CURVE)
    assert not list((project / ".tunectl" / "track" / "spool").glob("2*"))


def test_what_was_sent_is_not_doubled_and_what_was_cut_off_is_sent_anew(
    python: Path, server: MlflowServer, project: Path
) -> None:
    sync(python, project, server, "again")
    place = project / ".tunectl" / "track" / "spool"
    spool.save(place, RECORD, [])
    sync(python, project, server, "again")
    assert len(ask(server, "again")["runs"]) == 2
    half = replace(RECORD, id="half")
    spool.save(place, half, [])
    text = "import sys, mlflow; c = mlflow.MlflowClient(sys.argv[1]); e = c.get_experiment_by_name('again'); c.create_run(e.experiment_id, tags={'tunectl.build': 'half'})"
    subprocess.run([str(server.python), "-c", text, server.uri], check=True)
    sync(python, project, server, "again")
    runs = [run for run in ask(server, "again")["runs"] if run["tags"].get("tunectl.build") == "half"]
    assert [run["tags"].get("tunectl.complete") for run in runs] == ["true"]


def test_a_failed_build_and_a_pruned_trial_have_their_status(python: Path, server: MlflowServer, project: Path) -> None:
    place = project / ".tunectl" / "track" / "spool"
    for name, code in (("failed", 5), ("pruned", 75), ("refused", 3)):
        spool.save(place, replace(RECORD, id=name, exit_code=code, stages=[]), [])
    sync(python, project, server, "codes")
    found = {run["tags"].get("tunectl.build"): run["status"] for run in ask(server, "codes")["runs"]}
    assert (found["failed"], found["pruned"], found["refused"]) == ("FAILED", "KILLED", "FINISHED")


def test_a_server_that_is_not_there_leaves_the_build_in_the_spool(python: Path, project: Path) -> None:
    started = time.monotonic()
    words = ["sync", "track.to=[mlflow]", "track.uri=http://127.0.0.1:9", "track.timeout_seconds=2"]
    text = tunectl(python, project, *words, code=5)
    assert "tunectl: sending to MLflow failed: " in text
    assert time.monotonic() - started < 90
    assert "1 builds wait for mlflow" in tunectl(python, project, "status", "track.to=[mlflow]")


def add_releases(project: Path, scratch: Path) -> tuple[ReleaseRegistry, list[str]]:
    """Two releases in the registry of the project."""
    store, made = ReleaseRegistry(project / ".tunectl" / "releases"), []
    for name in ("first", "second"):
        folder = scratch / name
        folder.mkdir()
        (folder / "contract.json").write_text(json.dumps({"name": name}))
        made.append(store.add(folder, BuildFacts("shop", "transformers", "adapter", metrics={"bleu": 40.0})).id)
    return store, made


def test_releases_are_versions_and_aliases_follow_our_registry(
    python: Path, server: MlflowServer, project: Path, tmp_path: Path
) -> None:
    store, made = add_releases(project, tmp_path)
    words = ("track.registered_model=ads",)

    def aliases() -> dict[str, str]:
        sync(python, project, server, "releases", *words)
        model = ask(server, "releases")["models"]["ads"]
        return {alias: model["versions"][version] for alias, version in model["aliases"].items()}

    store.promote(made[0], author="me", message="the first")
    assert aliases() == {"champion": made[0]}
    store.start_canary(made[1], author="me", message="try it", share=0.5, salt="s")
    assert aliases() == {"champion": made[0], "challenger": made[1]}
    store.stop_canary(author="me", message="enough")
    store.promote(made[1], author="me", message="better")
    assert aliases() == {"champion": made[1]}
    store.rollback(author="me", message="worse after all")
    assert aliases() == {"champion": made[0]}
    model = ask(server, "releases")["models"]["ads"]
    assert sorted(model["versions"].values()) == sorted(made)
    assert all(source.endswith("/release") for source in model["sources"])


SIGNATURE = """
import json, sys, mlflow
mlflow.set_tracking_uri(sys.argv[1])
version = mlflow.MlflowClient(sys.argv[1]).search_model_versions("name='signed'")[0]
model = mlflow.models.Model.load(version.source)
found = {"inputs": model.signature.inputs.to_dict(), "outputs": model.signature.outputs.to_dict(), "flavors": model.flavors}
print(json.dumps(found))
"""


def test_mlflow_reads_the_signature_of_a_version(
    python: Path, server: MlflowServer, project: Path, tmp_path: Path
) -> None:
    store, (first, _) = add_releases(project, tmp_path)
    store.promote(first, author="me", message="the first")
    sync(python, project, server, "signature", "track.registered_model=signed")
    done = subprocess.run([str(server.python), "-c", SIGNATURE, server.uri], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["inputs"] == [{"type": "string", "name": "prompt", "required": True}]
    assert found["outputs"] == [{"type": "string", "name": "answer", "required": True}]
    assert list(found["flavors"]) == ["tunectl"]


def test_the_verbs_of_release_move_the_aliases_by_themselves(
    python: Path, server: MlflowServer, project: Path, tmp_path: Path
) -> None:
    _, (first, second) = add_releases(project, tmp_path)
    settings = ["track.to=[mlflow]", f"track.uri={server.uri}", "track.registered_model=verbs"]
    (project / "conf" / "overrides.yaml").write_text(json.dumps(settings))

    def release(*words: str, expected: dict[str, str]) -> None:
        run = [str(python), "-m", "tunectl", "release", *words, "--message", "because"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
        done = subprocess.run(run, cwd=project, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        end, found = time.monotonic() + 120, {}
        while found != expected:
            log = project / ".tunectl" / "track" / "sync.log"
            assert time.monotonic() < end, (found, log.read_text())
            time.sleep(0.5)
            model = ask(server)["models"].get("verbs", {"aliases": {}})
            found = {alias: model["versions"][version] for alias, version in model["aliases"].items()}

    release("promote", first, "--force", expected={"champion": first})
    release(
        "canary",
        "start",
        second,
        "--no-test",
        "--force",
        "--share",
        "0.5",
        expected={"champion": first, "challenger": second},
    )
    release("canary", "stop", expected={"champion": first})
    release("promote", second, "--force", expected={"champion": second})
    release("rollback", expected={"champion": first})


ENDS = """
import json, struct, sys
from pathlib import Path
from wandb.proto.wandb_internal_pb2 import Record
BLOCK, HEADER = 32768, 7
def iterate(data):  # LevelDB's log, after a header of seven bytes
    place, parts = HEADER, b""
    while place + HEADER <= len(data):
        if BLOCK - place % BLOCK < HEADER:
            place += BLOCK - place % BLOCK
            continue
        _, size, kind = struct.unpack("<IHB", data[place : place + HEADER])
        parts += data[place + HEADER : place + HEADER + size]
        place += HEADER + size
        if kind in (1, 4):  # whole, or the last part
            yield parts
            parts = b""
found = {}
for path in sys.argv[1:]:
    for data in iterate(Path(path).read_bytes()):
        record = Record.FromString(data)
        if record.HasField("run"):
            name = record.run.run_id
        if record.HasField("exit"):
            found[name] = record.exit.exit_code
print(json.dumps(found))
"""


def test_wandb_has_the_end_of_a_build(python: Path, project: Path) -> None:
    for name, code in (("failed", 5), ("refused", 3)):
        spool.save(
            project / ".tunectl" / "track" / "spool",
            replace(RECORD, id=name, exit_code=code, stages=[], metrics={}),
            [],
        )
    tunectl(python, project, "sync", "track.to=[wandb]", "track.experiment=shop", WANDB_MODE="offline")
    files = sorted(map(str, (project / ".tunectl" / "track" / "wandb" / "wandb").glob("offline-run-*/*.wandb")))
    done = subprocess.run([str(python), "-c", ENDS, *files], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == {RECORD.id: 0, f"{RECORD.id}-sft": 0, "failed": 5, "refused": 0}


def test_wandb_keeps_a_build_offline(python: Path, project: Path) -> None:
    text = tunectl(python, project, "sync", "track.to=[wandb]", "track.experiment=shop", WANDB_MODE="offline")
    assert f"build {RECORD.id} sent to wandb" in text
    sent = json.loads((project / ".tunectl" / "track" / "sent" / f"{RECORD.id}.json").read_text())
    assert sent == {"wandb": ""}, "offline there is no page of it"
    runs = sorted(path.name for path in (project / ".tunectl" / "track" / "wandb" / "wandb").glob("offline-run-*"))
    assert [name.partition("-")[2].split("-", 2)[2] for name in runs] == [RECORD.id, f"{RECORD.id}-sft"]
