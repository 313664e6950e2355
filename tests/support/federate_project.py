"""A project with a tiny model and a few hundred short rows, built up to split: what a federation needs."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from conf_copy import copy_conf

from tunectl.artifacts.paths import ProjectPaths
from tunectl.config.loading import override_file
from tunectl.pipeline import runner

WORDS = (
    "model=folder", "ingest=table", "data.path=rows.jsonl", "ingest.sources.table.fields={user: user}", "feedback=none", "curate=none",
    "split=default", "split.leakage=null", "cpt=none", "preferences=none", "reward=none", "align=none", "evaluate=default",
    "package=transformers", "inference_log=default", "retrain=default", "hardware.threads=1", "hardware.dtype=float32",
    "sft.lora_rank=4", "sft.lora_alpha=8", "sft.batch_size=8", "sft.learning_rate=3.0e-2", "sft.max_length=256",
    "evaluate.max_inputs=6", "evaluate.decoding.max_new_tokens=8", "evaluate.latency_inputs=0", "evaluate.prompts=null", "evaluate.safety=null",
    "evaluate.gate.resamples=200", "package.bento=null", "package.probing.prompts=2", "package.probing.fixtures=2", "package.probing.max_tokens=8",
    "package.parity.prompts=4", "package.parity.max_tokens=8", "package.reference_responses=2",
    "federate.rounds=2", "federate.local_steps=4", "federate.port=0", "federate.min_clients=2",
)  # fmt: skip


def build(folder: Path, model: Path, *, rows: int = 90) -> ProjectPaths:
    """Make the project in ``folder``, which has to be the current one, and run its stages up to cpt."""
    copy_conf(folder)
    lines = [
        {"prompt": f"Say {number % 30}, {number}!", "completion": f"it is {number % 30}", "user": f"user {number % 15}"}
        for number in range(rows)
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    layout = ProjectPaths()
    override_file.save_overrides(layout, override_file.merge_overrides([], [*WORDS, f"model.source.path={model}"]))
    for stage in ("compose", "model", "ingest", "feedback", "curate", "split", "cpt"):
        runner.execute_stage(layout, stage)
    return layout


def make_certificates(folder: Path) -> None:
    """A CA, and a certificate of a server on loopback that it signed: the lines of docs/guides/federated.md."""
    for line in (
        "openssl req -x509 -newkey rsa:2048 -nodes -days 30 -subj /CN=ca -keyout ca.key -out ca.pem",
        "openssl req -newkey rsa:2048 -nodes -subj /CN=localhost -addext subjectAltName=IP:127.0.0.1 -keyout server.key -out server.csr",
        "openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 -copy_extensions copy -out server.pem",
    ):
        subprocess.run(line.split(), cwd=folder, check=True, capture_output=True)
