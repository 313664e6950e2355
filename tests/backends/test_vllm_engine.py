"""vLLM's seam, with a library in its place that answers as vLLM 0.32 does: what is asked of it, and that nobody waits for ever."""

from __future__ import annotations

import asyncio
import sys
import threading
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from delivery_recorder import Heard

from tunectl.artifacts import atomic_io
from tunectl.backends.engines import vllm_engine
from tunectl.core.errors import ArtifactError, UsageError
from tunectl.generation.engine import GenerationRequest

DIES, ENDLESS, FAILS, STOPS_SHORT, REFUSED = 666, 667, 668, 669, 670
"""First tokens of prompts: the engine dies; the answer has no end; it ends by an error; no more comes, and no reason; it is not taken."""
MADE: list[AsyncLLM] = []
"""Every engine of a test."""


class Record:
    """Keeps its keyword arguments."""

    def __init__(self, *given: Any, **named: Any) -> None:
        self.given = given
        self.__dict__.update(named)


class AsyncLLM:
    """Repeats its prompt, two tokens a step."""

    @classmethod
    def from_engine_args(cls, arguments: Record) -> AsyncLLM:
        if arguments.model.endswith("broken/model"):
            raise RuntimeError("no weights there")
        MADE.append(engine := cls())
        engine.arguments, engine.asked, engine.errored, engine.ended = arguments, [], False, False
        return engine

    async def generate(self, prompt: dict, sampling: Record, number: str, *, lora_request: Record | None):
        self.asked.append((prompt, sampling, number, lora_request))
        ids = prompt["prompt_token_ids"]
        if ids[0] == DIES:
            self.errored = True
            raise RuntimeError("EngineCore died")
        if ids[0] == REFUSED:
            raise ValueError("the grammar has a rule without an end")
        while ids[0] == ENDLESS:
            yield self._out(sampling, [1], None)
            await asyncio.sleep(0.01)
        if ids[0] in (FAILS, STOPS_SHORT):
            yield self._out(sampling, [1], "error" if ids[0] == FAILS else None)
            return
        for start in range(0, len(ids), 2):
            some = ids[start : start + 2]
            last = start + 2 >= len(ids)
            reason = ("stop" if some[-1] in sampling.stop_token_ids else "length") if last else None
            yield self._out(sampling, some, reason)

    def _out(self, sampling: Record, ids: list[int], reason: str | None) -> SimpleNamespace:
        nats = None if sampling.logprobs is None else [{token: SimpleNamespace(logprob=-0.5)} for token in ids]
        one = SimpleNamespace(token_ids=tuple(ids), logprobs=nats, finish_reason=reason)
        return SimpleNamespace(outputs=[one], finished=reason is not None)

    def shutdown(self) -> None:
        self.ended = True
        if self.errored:
            raise RuntimeError("it is dead already")


@pytest.fixture(autouse=True)
def library(monkeypatch: pytest.MonkeyPatch) -> None:
    contents: dict[str, dict[str, Any]] = {
        "vllm": {"SamplingParams": Record},
        "vllm.platforms": {"current_platform": SimpleNamespace(device_type="cpu")},
        "vllm.engine": {},
        "vllm.engine.arg_utils": {"AsyncEngineArgs": Record},
        "vllm.v1": {},
        "vllm.v1.engine": {},
        "vllm.v1.engine.async_llm": {"AsyncLLM": AsyncLLM},
        "vllm.lora": {},
        "vllm.lora.request": {"LoRARequest": Record},
        "vllm.sampling_params": {
            "StructuredOutputsParams": Record,
            "RequestOutputKind": SimpleNamespace(DELTA="delta"),
        },
    }
    for name, held in contents.items():
        module = ModuleType(name)
        module.__dict__.update(held)
        monkeypatch.setitem(sys.modules, name, module)
    MADE.clear()


@pytest.fixture
def release(tmp_path: Path) -> Path:
    atomic_io.write_json(tmp_path / "release" / "adapter" / "adapter_config.json", {"r": 20, "lora_alpha": 40})
    return tmp_path / "release"


def opened(release: Path, *, adapter: bool = True):
    heard = Heard()
    return vllm_engine.VllmEngine(running=4, batch_tokens=512).open(release, heard, adapter=adapter), heard


def ask(*prompt: int, **values: Any) -> GenerationRequest:
    return GenerationRequest(
        **{
            "prompt": list(prompt),
            "max_tokens": 9,
            "temperature": 0.5,
            "top_p": 0.9,
            "stop_ids": frozenset({2}),
            **values,
        }
    )


@pytest.mark.parametrize(
    ("prompt", "why"), [(FAILS, "vLLM ended it: error"), (STOPS_SHORT, "vLLM ended it without a reason")]
)
def test_an_answer_that_vllm_gives_up_has_an_end(release: Path, prompt: int, why: str) -> None:
    session, heard = opened(release)
    session.start(1, ask(prompt))
    last = heard.ended(1)[-1]
    assert (last.end, last.why, session.broken) == ("failed", why, None)
    session.close()


def test_a_request_that_vllm_does_not_take_is_refused(release: Path) -> None:
    session, heard = opened(release)
    session.start(1, ask(REFUSED))
    last = heard.ended(1)[-1]
    assert (last.end, last.why, session.broken) == ("refused", "the grammar has a rule without an end", None)
    session.close()


@pytest.mark.parametrize("device", ["xpu", "tpu"])
def test_a_device_that_nobody_ran_is_refused_before_vllm_starts(
    release: Path, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules["vllm.platforms"].current_platform, "device_type", device)
    with pytest.raises(UsageError) as error:
        opened(release)
    assert error.value.message == (
        f"vLLM is installed for the device {device}; the engine vllm runs on cpu, cuda, and nothing was run elsewhere"
    )
    assert MADE == []


def test_the_adapter_goes_by_its_name_with_every_request(release: Path) -> None:
    session, heard = opened(release)
    session.start(1, ask(5, 6, 7, presence=0.5, frequency=0.25))
    pieces = heard.ended(1)
    assert [token for piece in pieces for token in piece.ids] == [5, 6, 7]
    assert [piece.end for piece in pieces] == [None, "length"]
    assert {nat for piece in pieces for nat in piece.logprobs} == {-0.5}
    session.start(2, ask(5, 6, 7, 2, schema='{"type":"null"}'))
    assert [piece.ids for piece in heard.ended(2)] == [[5, 6], [7]]  # the stop token is not told
    assert heard.pieces[2][-1].end == "stop"
    (engine,) = MADE
    for _, _, _, lora in engine.asked:
        assert lora.given == ("adapter", 1, str(release / "adapter"))
    _, sampling, _, _ = engine.asked[0]
    assert (sampling.temperature, sampling.top_p, sampling.max_tokens) == (0.5, 0.9, 9)
    assert (sampling.presence_penalty, sampling.frequency_penalty) == (0.5, 0.25)
    assert (sampling.stop_token_ids, sampling.ignore_eos, sampling.output_kind) == ([2], False, "delta")
    assert engine.asked[1][1].structured_outputs.grammar.startswith('root ::= "null"')
    assert engine.arguments.logprobs_mode == "processed_logprobs"
    session.close()
    session.close()
    assert engine.ended


@pytest.mark.parametrize(("device", "seed"), [("cuda", 3), ("cpu", None)])
def test_a_seed_is_handed_over_on_a_gpu_only(
    release: Path, device: str, seed: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """vLLM's CPU build dies of one when the prompt is read in several steps, and everybody's answers with it."""
    monkeypatch.setattr(sys.modules["vllm.platforms"].current_platform, "device_type", device)
    session, heard = opened(release)
    session.start(1, ask(5, 6, 7, seed=3))
    heard.ended(1)
    assert MADE[-1].asked[0][1].seed == seed
    session.close()


def test_without_logprobs_none_are_computed(release: Path) -> None:
    session, heard = opened(release)
    session.start(1, ask(5, 6, 7, logprobs=False))
    pieces = heard.ended(1)
    assert ([token for piece in pieces for token in piece.ids], [piece.logprobs for piece in pieces]) == (
        [5, 6, 7],
        [[], []],
    )
    assert MADE[0].asked[0][1].logprobs is None
    session.close()


def test_safetensors_only_and_no_code_from_the_folder(release: Path) -> None:
    session, _ = opened(release)
    told = MADE[0].arguments
    assert (told.load_format, told.trust_remote_code, told.enable_prefix_caching) == ("safetensors", False, True)
    assert (told.enable_lora, told.max_lora_rank, told.max_num_seqs) == (True, 32, 4)
    session.close()


def test_work_for_equal_beginnings_is_shared_unless_it_is_switched_off(release: Path) -> None:
    vllm_engine.VllmEngine(running=4, batch_tokens=512, prefix_caching=False).open(
        release, Heard(), adapter=False
    ).close()
    assert MADE[0].arguments.enable_prefix_caching is False


def test_merged_weights_need_no_adapter(release: Path) -> None:
    session, heard = opened(release, adapter=False)
    session.start(1, ask(5, stop_ids=frozenset()))
    heard.ended(1)
    (engine,) = MADE
    assert not engine.arguments.enable_lora
    assert engine.asked[0][3] is None
    assert engine.asked[0][1].ignore_eos
    session.close()


def test_who_is_cancelled_is_notified_even_before_the_first_step(release: Path) -> None:
    session, heard = opened(release)
    for number in range(20):
        session.start(number, ask(ENDLESS))
        session.cancel(number)
    assert {heard.ended(number)[-1].end for number in range(20)} == {"cancelled"}
    session.start(20, ask(ENDLESS))
    heard.begun(20)
    session.cancel(20)
    assert heard.ended(20)[-1].end == "cancelled"
    session.cancel(99)  # nobody's
    session.start(21, ask(ENDLESS))
    session.close()
    assert heard.ended(21)[-1].end == "cancelled"


def test_an_engine_that_died_is_broken_and_can_be_closed(release: Path) -> None:
    before = threading.enumerate()
    session, heard = opened(release)
    session.start(1, ask(DIES))
    assert (heard.ended(1)[-1].end, heard.pieces[1][-1].why) == ("failed", "EngineCore died")
    assert session.broken == "EngineCore died"
    session.close()
    assert MADE[0].ended
    assert not [thread for thread in threading.enumerate() if thread.name == "vllm" and thread not in before]


def test_what_cannot_be_loaded_is_said(tmp_path: Path) -> None:
    folder = tmp_path / "broken"
    with pytest.raises(ArtifactError, match="vLLM cannot load it: no weights there"):
        opened(folder, adapter=False)
    assert not [one for one in threading.enumerate() if one.name == "vllm"]
