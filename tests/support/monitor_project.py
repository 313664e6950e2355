"""A project with a tiny encoder, a champion and live traffic, and the real `tunectl monitor` on it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from datetime import UTC, datetime, timedelta
from pathlib import Path

from conf_copy import copy_conf
from drift_fixtures import TOPICS, inference, release, rows
from serving_process import ROOT, free_port

from tunectl.artifacts import atomic_io
from tunectl.backends.storage import inference_log_sql

URL = "sqlite:///.tunectl/inference_log/inference_log.sqlite"
RELEASE = "0123456789abcdef"


def tiny_encoder(folder: Path) -> str:
    """Write an encoder with random weights; returns the SHA-256 of them."""
    import tokenizers
    import torch
    import transformers

    spelled = "[PAD] [UNK] [CLS] [SEP] good great bad fine like"
    words = [*spelled.split(), *(word for some in TOPICS.values() for word in some)]
    made = tokenizers.Tokenizer(
        tokenizers.models.WordPiece({word: place for place, word in enumerate(words)}, unk_token="[UNK]")
    )
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    folder.mkdir(parents=True, exist_ok=True)
    made.save(str(folder / "tokenizer.json"))
    torch.manual_seed(1)
    config = transformers.BertConfig(
        vocab_size=len(words), hidden_size=320, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
    )
    transformers.BertModel(config).save_pretrained(folder)
    return atomic_io.sha256_path(folder / "model.safetensors")


class Project:
    """A project folder, and monitors that run in it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        copy_conf(folder)
        digest = tiny_encoder(folder / ".tunectl" / "cache" / "embeddings" / "tiny-1.0")
        release(folder / ".tunectl" / "releases", rows=200)
        self.words = [
            f"monitor.port={self.port}",
            "monitor.poll_seconds=0.2",
            "monitor.window.max_rows=120",
            "monitor.encoder.package=tiny",
            "monitor.encoder.version='1.0'",
            f"monitor.encoder.sha256={digest}",
            "monitor.prompts.accept_first=true",
        ]
        self.begin = datetime.now(UTC) - timedelta(hours=6)
        self.served = 0

    def serve(self, count: int, topics: tuple[str, ...] = ("garden", "bike")) -> None:
        """So many inferences, a second apart, some hours ago."""
        found = []
        for row in rows(count, 1000 + self.served, topics):
            accepted = self.begin + timedelta(seconds=self.served)
            self.served += 1
            found.append(inference(row, f"chatcmpl-{self.served}", accepted, RELEASE))
        with inference_log_sql.open_log(URL, self.folder) as store:
            store.write(found)

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "tunectl", "monitor", *words, *self.words]

    def run(self, *words: str, before: tuple[str, ...] = (), timeout: float = 250) -> subprocess.CompletedProcess[str]:
        """One verb to its end."""
        return subprocess.run(
            [*before, *self.command(*words)], cwd=self.folder, env=self.environment(), capture_output=True, text=True,
            timeout=timeout,
        )  # fmt: skip

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        """A monitor that watches; its output goes to the file ``log``."""
        with (self.folder / "log").open("ab") as log:
            return subprocess.Popen(
                self.command(*words), cwd=self.folder, env=self.environment(), stdout=log, stderr=log
            )

    def environment(self) -> dict[str, str]:
        paths = os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
        return {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

    def get(self, path: str, key: str | None = None) -> tuple[int, str]:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        try:
            asked = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", headers=headers)
            with urllib.request.urlopen(asked, timeout=20) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def sample(self, name: str) -> float | None:
        """One number of /metrics; None where there is none, or nobody answers."""
        try:
            lines = self.get("/metrics")[1].splitlines()
        except OSError:
            return None
        return next((float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(f"{name} ")), None)

    def wait(self, name: str, value: float, seconds: float = 200) -> None:
        """Until a number of /metrics has that value."""
        end = time.monotonic() + seconds
        while self.sample(name) != value:
            assert time.monotonic() < end, (
                f"{name} is {self.sample(name)}, not {value}: {(self.folder / 'log').read_text()}"
            )
            time.sleep(0.2)

    def windows(self) -> list[dict]:
        """As `tunectl monitor list --json` says, the oldest first."""
        done = self.run("list", "--json", "-n", "100")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)["windows"][::-1]
