"""A model on several processes writes the answers that one process writes."""

import os
import signal
from dataclasses import replace

import pytest
import tiny_fits
from pydantic import TypeAdapter

from tunectl.backends.launchers.model_replicas import ReplicaLauncher
from tunectl.backends.modeling import generator
from tunectl.backends.modeling.reference_model import ReferenceModel
from tunectl.config.schema.evaluate import Decoding
from tunectl.config.schema.launch import TorchrunLaunch
from tunectl.core import progress
from tunectl.core.errors import ArtifactError, InfrastructureError, UsageError
from tunectl.evaluation.protocols import GenerationPrompt

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.slow  # each test starts processes that import torch
PROMPTS = [f"The {'very ' * (number % 5)}long prompt number {number}" for number in range(19)]
DECODING = {
    "greedy": {"method": "greedy", "max_new_tokens": 8},
    "sampling": {"method": "sampling", "max_new_tokens": 8, "temperature": 0.9, "top_p": 0.9},
    "beams": {"method": "beams", "max_new_tokens": 6, "beams": 2, "length_penalty": 1.0},
}
DECODE = TypeAdapter(Decoding).validate_python


def launch(processes):
    values = {"nnodes": 1, "rdzv_endpoint": None, "storage_path": None, "max_restarts": 0, "shard": "none"}
    return TorchrunLaunch(method="torchrun", nproc_per_node=processes, collective_timeout_seconds=60, **values)


class Counter:
    """Draws nothing, and counts the steps of its bars."""

    def __init__(self):
        self.steps, self.bars = 0.0, []

    def bar(self, label, total):
        self.bars.append((label, total))
        return self

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None

    def advance(self, steps=1, **figures):
        self.steps += steps


@pytest.fixture(scope="module")
def launcher():
    return ReplicaLauncher("evaluate", launch(2), tiny_fits.PROFILE)


@pytest.fixture(scope="module")
def both(launcher, tiny_model):
    """The model on two processes, and here."""
    there = launcher.open_generator(tiny_model, None)
    here = generator.model_loader(tiny_fits.PROFILE)(tiny_model, None)
    yield there, here
    there.close()
    here.close()


def without_clock(replies):
    return [replace(reply, seconds=0.0) for reply in replies]


@pytest.mark.parametrize("method", list(DECODING))
def test_two_processes_write_the_answers_of_one(both, method):
    there, here = both
    asked = [GenerationPrompt(prompt, ("right", "wrong")[: number % 3]) for number, prompt in enumerate(PROMPTS)]
    decoding = DECODE(DECODING[method])
    counter = Counter()
    with progress.use_renderer(counter):
        found = there.answer(asked, decoding, seed=3, label="answers")
    expected = here.answer(asked, decoding, seed=3, label="answers")
    assert without_clock(found) == without_clock(expected)
    assert all(reply.seconds > 0 for reply in found)
    assert (counter.steps, counter.bars) == (19, [("answers", 19)])
    assert (
        there.answer(asked[:1], decoding, seed=3, label="one")[0].text
        == here.answer(asked[:1], decoding, seed=3, label="one")[0].text
    )
    assert there.answer([], decoding, seed=3, label="none") == []


def test_what_one_process_says_of_the_model(both, launcher):
    there, here = both
    assert there.context == here.context
    assert there.lengths(PROMPTS) == here.lengths(PROMPTS)
    assert [(end.ranks, end.nodes, end.device, end.restarts) for end in launcher.ends[:1]] == [(2, 1, "cpu", 0)]


def test_one_process_is_this_one(tiny_model):
    one = ReplicaLauncher("evaluate", launch(1), tiny_fits.PROFILE)
    loaded = one.open_generator(tiny_model, None)
    assert type(loaded) is generator.HfGenerator
    loaded.close()
    assert type(one.open_reference(tiny_model, None, [2], tiny_fits.PROFILE)) is ReferenceModel
    assert one.ends == []
    with pytest.raises(UsageError) as error:
        ReplicaLauncher("evaluate", launch("auto"), tiny_fits.PROFILE).open_generator(tiny_model, None)
    assert error.value.message == "launch.nproc_per_node = auto counts GPUs, and hardware.device is cpu"


def test_the_trained_model_of_packaging_is_divided_too(launcher, tiny_model):
    prompts = [[1, *range(40, 42 + number % 6)] for number in range(11)]
    here = ReferenceModel(tiny_model, None, [2], tiny_fits.PROFILE)
    there = launcher.open_reference(tiny_model, None, [2], tiny_fits.PROFILE)
    expected, found = here.generate(prompts, 6), there.generate(prompts, 6)
    assert [answer.ids for answer in found] == [answer.ids for answer in expected]
    answers = [answer.ids for answer in expected]
    # the log-probabilities noted while writing are those of reading the answers
    for answer, nats in zip(expected, here.likelihood(prompts, answers, answers), strict=True):
        assert answer.logprobs == pytest.approx(nats, abs=1e-5)
    for ours, theirs in zip(
        there.likelihood(prompts, answers, answers), here.likelihood(prompts, answers, answers), strict=True
    ):
        assert ours == pytest.approx(theirs, abs=1e-5)
    os.kill(there._pool._replicas[1]._process.pid, signal.SIGKILL)
    with pytest.raises(InfrastructureError) as killed:
        there.generate(prompts, 6)
    assert killed.value.message == "generation process 1 ended with SIGKILL before it had written its answers"
    assert all(replica._process.poll() is not None for replica in there._pool._replicas)
    there.close()


def test_a_model_that_cannot_be_loaded_raises_the_error_of_one_process(launcher, tmp_path):
    with pytest.raises(ArtifactError) as error:
        launcher.open_generator(tmp_path, None)
    with pytest.raises(ArtifactError) as here:
        generator.model_loader(tiny_fits.PROFILE)(tmp_path, None)
    assert (error.value.message, error.value.hint) == (here.value.message, here.value.hint)
