"""Flower's client without Flower: what is kept of a local training that fails."""

import sys
from pathlib import Path

import numpy as np
import pytest

from tunectl.backends.federated import flower_client
from tunectl.federated.exchange import ClientTask, RoundRequest


def test_the_whole_output_of_a_failed_fit_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fit = [sys.executable, "-c", "print('step 1'); raise SystemExit('row 7 is broken\\nout of memory')"]
    task = ClientTask("client-1", "127.0.0.1:9", None, "TOKEN", 1, fit, [], 2, "base")
    weights = {"lora_A": np.zeros((1, 1), np.float32)}
    with pytest.raises(
        OSError, match=r"the fit of round 3 failed: out of memory; its whole output is in round-3/output\.txt"
    ):
        flower_client.fit_locally(tmp_path, task, RoundRequest(number=3, rounds=4, local_steps=2), weights)
    log = tmp_path / "round-3" / "output.txt"
    assert log.read_text(encoding="utf-8").split("\n")[:3] == ["step 1", "row 7 is broken", "out of memory"]
    assert str(log) in capsys.readouterr().out
