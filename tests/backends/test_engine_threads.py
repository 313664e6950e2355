"""The threads that drive an engine: whatever a library raises, whoever asked hears of it, and nobody waits for ever."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from delivery_recorder import Heard

from tunectl.backends.engines import openvino_engine
from tunectl.backends.engines.openvino_engine import OpenVinoSession
from tunectl.backends.engines.transformers_engine import TransformersSession
from tunectl.generation.engine import GenerationRequest


class Handle:
    """An answer without an end; ``read`` raises once it is told to."""

    def __init__(self, library: Library) -> None:
        self._library = library

    def can_read(self) -> bool:
        return True

    def read(self) -> dict[int, Any]:
        if self._library.fails == "read":
            raise RuntimeError("read failed")
        return {0: SimpleNamespace(generated_ids=[7], generated_log_probs=[-0.5], finish_reason="none")}

    def cancel(self) -> None:
        if self._library.fails == "cancel":
            raise RuntimeError("cancel failed")
        self._library.fails = {"the step after a cancellation": "step"}.get(self._library.fails, self._library.fails)


class Library:
    """``openvino_genai`` and one of its pipelines."""

    GenerationFinishReason = SimpleNamespace(STOP="stop", LENGTH="length")
    GenerationStatus = SimpleNamespace(IGNORED="ignored")

    def __init__(self) -> None:
        self.fails = ""

    def GenerationConfig(self, **given: Any) -> SimpleNamespace:  # as the library calls it
        return SimpleNamespace(**given)

    def add_request(self, number: int, prompt: Any, config: Any) -> Handle:
        return Handle(self)

    def step(self) -> None:
        if self.fails == "step":
            raise RuntimeError("step failed")


@pytest.fixture
def openvino(monkeypatch: pytest.MonkeyPatch):
    modules = {"openvino": SimpleNamespace(Tensor=lambda array: array), "numpy": np}
    monkeypatch.setattr(openvino_engine, "import_optional", lambda name, extra: modules[name])
    library, heard, before = Library(), Heard(), set(threading.enumerate())
    session = OpenVinoSession(library, library, heard)
    yield library, session, heard
    session.close()
    assert not [thread for thread in threading.enumerate() if thread not in before]


ASK = GenerationRequest([1, 2], 400, 0.0, 1.0, frozenset({2}))


@pytest.mark.parametrize(
    ("where", "why"),
    [
        ("step", "step failed"),
        ("read", "read failed"),
        ("cancel", "cancel failed"),
        ("the step after a cancellation", "step failed"),
    ],
)
def test_every_openvino_failure_ends_all_requests_with_its_reason(openvino, where: str, why: str) -> None:
    library, session, heard = openvino
    session.start(1, ASK)
    heard.begun(1)
    library.fails = where
    if "cancel" in where:
        session.cancel(1)
    end = heard.ended(1)[-1]
    assert (end.end, end.why, session.broken) == ("failed", why, why)
    session.start(2, ASK)
    assert (heard.ended(2)[-1].end, heard.ended(2)[-1].why) == ("failed", why)
    session.cancel(2)


def test_one_of_several_may_leave(openvino) -> None:
    _, session, heard = openvino
    for number in (1, 2):
        session.start(number, ASK)
        heard.begun(number)
    for number in (1, 2):
        session.cancel(number)
        assert heard.ended(number)[-1].end == "cancelled"
    assert session.broken is None


def test_an_answer_that_transformers_fails_at_ends_alone() -> None:
    torch = pytest.importorskip("torch")

    class Model:
        device = "cpu"

        def __call__(self, **given: Any) -> Any:
            raise KeyError("no such layer")

    heard = Heard()
    session = TransformersSession(torch, Model(), heard)
    for number in (1, 2):
        session.start(number, ASK)
        assert (heard.ended(number)[-1].end, heard.ended(number)[-1].why) == ("failed", "'no such layer'")
    session.close()


def test_a_gpu_that_fails_breaks_the_transformers_session() -> None:
    torch = pytest.importorskip("torch")

    class Model:
        device = "cpu"

        def __call__(self, **given: Any) -> Any:
            raise torch.AcceleratorError("CUDA error: device-side assert triggered")

    heard = Heard()
    session = TransformersSession(torch, Model(), heard)
    for number in (1, 2):  # the second one is not tried
        session.start(number, ASK)
        assert (heard.ended(number)[-1].end, heard.ended(number)[-1].why) == (
            "failed",
            "CUDA error: device-side assert triggered",
        )
    assert session.broken == "CUDA error: device-side assert triggered"
    session.close()
