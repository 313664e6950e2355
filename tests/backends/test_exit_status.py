"""How a child process ended, in an error: a signal has its name, and a kill for memory has advice."""

from __future__ import annotations

from pathlib import Path

import pytest

from tunectl.artifacts import atomic_io
from tunectl.backends.launchers import agent_process, torchrun_agent
from tunectl.backends.launchers.torchrun_agent import AgentSettings, FailedRank
from tunectl.backends.system.exit_status import describe_exit, suggest_after_kill


@pytest.mark.parametrize(("code", "text"), [(0, "exit code 0"), (3, "exit code 3"), (-9, "SIGKILL"), (-11, "SIGSEGV")])
def test_an_end_is_an_exit_code_or_the_name_of_a_signal(code: int, text: str) -> None:
    assert describe_exit(code) == text


def test_only_a_kill_has_advice_about_memory() -> None:
    assert suggest_after_kill(-9, "lower it") == "SIGKILL mostly means that memory ran out: lower it; "
    assert [suggest_after_kill(code, "lower it") for code in (0, 1, -15)] == ["", "", ""]


def agent(folder: Path) -> AgentSettings:
    return AgentSettings(
        nnodes=1,
        nproc_per_node=2,
        run_id="one",
        rdzv_endpoint="127.0.0.1:0",
        is_host=True,
        max_restarts=1,
        join_timeout_seconds=5,
        local_addr="127.0.0.1",
        worker=[],
        fit=str(folder),
    )


def test_a_rank_that_was_killed_has_the_settings_that_lower_its_memory(tmp_path: Path) -> None:
    atomic_io.write_json(tmp_path / torchrun_agent.FAILED, FailedRank(1, -9))
    error = agent_process.describe_failure(tmp_path, 1, agent(tmp_path), "sft")
    assert error.message == "sft: rank 1 ended with SIGKILL, and launch.max_restarts is 1"
    assert "lower hardware.train_batch_tokens or launch.nproc_per_node; logs of all ranks are in" in error.hint


def test_an_agent_that_ends_alone_has_its_exit_code_and_its_log(tmp_path: Path) -> None:
    error = agent_process.describe_failure(tmp_path, 5, agent(tmp_path), "sft")
    assert error.message == "sft: the torchrun agent ended with exit code 5 before its ranks"
    assert "agent.log" in error.hint
