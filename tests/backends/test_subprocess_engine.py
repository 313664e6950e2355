"""A session in a process of its own: what it says arrives, and nobody waits for ever when it dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from importlib import import_module
from pathlib import Path

import pytest
from delivery_recorder import Heard
from faulty_engine import BREAKS, DIES, SLOW
from scenarios.process_inspection import alive, children
from serving_process import settings

from tunectl.backends.engines import engine_registry
from tunectl.backends.engines.engine_registry import ENGINES
from tunectl.backends.engines.subprocess_engine import SubprocessEngine, SubprocessSession
from tunectl.config.schema.serve import ServeSettings
from tunectl.core.errors import ArtifactError, UsageError
from tunectl.generation.engine import GenerationRequest

SUPPORT = Path(__file__).parents[1] / "support"


@pytest.fixture(autouse=True)
def _findable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(SUPPORT))


def opened(heard: Heard, mood: str = "well") -> SubprocessSession:
    engine = SubprocessEngine("frail", "faulty_engine:FrailEngine", {"mood": mood})
    return engine.open(Path("/releases/one"), heard, adapter=True)


@pytest.fixture
def session():
    heard = Heard()
    found = opened(heard)
    yield found, heard
    found.close()


def ask(*prompt: int) -> GenerationRequest:
    return GenerationRequest(list(prompt), 8, 0.0, 1.0, frozenset({2}), seed=-5, schema='{"a":1}')


def test_pieces_arrive_in_order_and_side_by_side(session) -> None:
    open_, heard = session
    for number in range(20):
        open_.start(number, ask(*range(100 * number, 100 * number + 50)))
    for number in range(20):
        pieces = heard.ended(number)
        assert [token for piece in pieces for token in piece.ids] == list(range(100 * number, 100 * number + 50))
        assert pieces[-1].end == "length"
        assert {nat for piece in pieces for nat in piece.logprobs} == {-0.5}


def test_what_lies_in_the_working_folder_is_not_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "queue.py").write_text("raise SystemExit(3)")
    monkeypatch.chdir(tmp_path)
    opened(Heard()).close()


def test_cancel_and_close_end_what_runs(session) -> None:
    open_, heard = session
    for number in (1, 2):
        open_.start(number, ask(SLOW, *range(1000)))
    open_.cancel(1)
    open_.cancel(99)  # nobody's
    assert heard.ended(1)[-1].end == "cancelled"
    open_.close()
    assert heard.ended(2)[-1].end == "cancelled"
    assert open_.broken is None
    open_.start(3, ask(1))
    assert heard.ended(3)[-1].end == "cancelled"
    open_.close()


def test_all_requests_fail_when_the_engine_process_dies(session) -> None:
    open_, heard = session
    open_.start(1, ask(SLOW, *range(1000)))
    open_.start(2, ask(DIES))
    for number in (1, 2):
        end = heard.ended(number)[-1]
        assert (end.end, end.why) == ("failed", "its process was ended by signal 11 (SIGSEGV)")
    assert open_.broken == "its process was ended by signal 11 (SIGSEGV)"
    open_.start(3, ask(1))
    assert heard.ended(3)[-1].end == "failed"


def test_a_broken_session_says_so_before_its_pieces_do(session) -> None:
    open_, heard = session
    open_.start(1, ask(BREAKS))
    assert heard.ended(1)[-1].why == "a step failed"
    assert open_.broken == "a step failed"


@pytest.mark.parametrize(
    ("mood", "words"),
    [
        ("absent", "/releases/one: there is nothing, adapter True\n  look there$"),
        (
            "odd",
            "^/releases/one: the engine frail cannot open it: ZeroDivisionError: no error of ours\n  its log lines above",
        ),
        (
            "dead",
            r"the engine frail cannot be opened: its process was ended by signal 8 \(SIGFPE\)\n  its log lines above",
        ),
    ],
)
def test_what_cannot_be_opened_is_an_error_with_its_words(mood: str, words: str) -> None:
    with pytest.raises(ArtifactError, match=words):
        opened(Heard(), mood)


@pytest.mark.parametrize("last", [DIES, BREAKS, 1])
def test_what_it_started_ends_with_it(last: int) -> None:
    heard = Heard()
    session = opened(heard, "forks")
    (other,) = children(session._process.pid)
    session.start(1, ask(last))
    assert heard.ended(1)[-1].end == ("length" if last == 1 else "failed")
    session.close()
    ended(other)


def test_what_a_hanging_one_started_ends_with_it() -> None:
    engine = SubprocessEngine("frail", "faulty_engine:FrailEngine", {"mood": "forks and hangs"})
    found: list[int] = []

    def give_up() -> None:
        while not found:
            time.sleep(0.05)
            found.extend(other for one in engine._opening for other in children(one._process.pid))
        engine.cancel_open()

    threading.Thread(target=give_up).start()
    with pytest.raises(ArtifactError, match="SIGKILL"):
        engine.open(Path("/releases/one"), Heard(), adapter=True)
    ended(found[0])


@pytest.mark.parametrize("name", ENGINES)
def test_every_engine_of_a_server_has_processes_of_its_own(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module = import_module(ENGINES[name])
    monkeypatch.setattr(module, "require_installed", lambda package, extra: None)
    found = engine_registry.get_engine(name, ServeSettings.model_validate(settings(), strict=True).serve)
    assert isinstance(found, SubprocessEngine)
    module, _, factory = found.factory.partition(":")
    assert found.name == getattr(import_module(module), factory)(**found.settings).name == name


@pytest.mark.parametrize("name", ENGINES)
def test_only_vllm_divides_a_model(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_module(ENGINES[name]), "require_installed", lambda package, extra: None)
    serve = ServeSettings.model_validate(settings(), strict=True).serve
    divided = serve.model_copy(update={"engine": serve.engine.model_copy(update={"tensor_parallel_size": 2})})
    if name == "vllm":
        monkeypatch.setattr(import_module("torch").cuda, "device_count", lambda: 1)
        with pytest.raises(UsageError) as error:
            engine_registry.get_engine(name, divided)
        assert error.value.message == "serve.engine.tensor_parallel_size = 2, and torch sees 1 GPUs"
        monkeypatch.setattr(import_module("torch").cuda, "device_count", lambda: 2)
        assert engine_registry.get_engine(name, divided).settings["cards"] == 2
        return
    with pytest.raises(UsageError) as error:
        engine_registry.get_engine(name, divided)
    assert error.value.message == (
        f"serve.engine.tensor_parallel_size = 2: the engine {name} runs a model on one device"
    )


@pytest.mark.parametrize("early", [True, False])
def test_an_open_that_hangs_is_ended_from_outside(early: bool) -> None:
    engine = SubprocessEngine("frail", "faulty_engine:FrailEngine", {"mood": "hangs"})
    if early:
        engine.cancel_open()  # the thread that opens had not come so far
    else:
        threading.Thread(target=given_up, args=(engine,)).start()
    start = time.monotonic()
    with pytest.raises(ArtifactError, match=r"cannot be opened: its process was ended by signal 9 \(SIGKILL\)"):
        engine.open(Path("/releases/one"), Heard(), adapter=True)
    assert time.monotonic() - start < 30
    assert engine._opening == []


def given_up(engine: SubprocessEngine) -> None:
    while not engine._opening:
        time.sleep(0.05)
    time.sleep(1)
    engine.cancel_open()


OWNER = """
import sys, time
from pathlib import Path
from tunectl.backends.engines.subprocess_engine import SubprocessEngine
from tunectl.generation.engine import GenerationRequest
engine = SubprocessEngine("frail", "faulty_engine:FrailEngine", {"mood": "well"})
session = engine.open(Path("x"), lambda batch: None, adapter=False)
session.start(1, GenerationRequest([668, *range(1000)], 8, 0.0, 1.0, frozenset()))
print(session._process.pid, flush=True)
time.sleep(60)
"""


def test_it_dies_with_its_server_and_outlives_the_signal_that_stops_one() -> None:
    with subprocess.Popen([sys.executable, "-c", OWNER], stdout=subprocess.PIPE, text=True) as owner:
        pid = int(owner.stdout.readline())
        os.kill(pid, signal.SIGTERM)
        time.sleep(0.3)
        assert alive(pid)
        owner.kill()
        ended(pid)


def ended(pid: int) -> None:
    until = time.monotonic() + 10
    while alive(pid):
        assert time.monotonic() < until
        time.sleep(0.05)
