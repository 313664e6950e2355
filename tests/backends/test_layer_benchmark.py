"""One timed layer: what a plan's speeds rest on."""

from __future__ import annotations

import torch

from tunectl.backends.modeling.layer_benchmark import layer_speed
from tunectl.config.schema.hardware import HardwareProfile

CPU = HardwareProfile(
    device="cpu", threads=None, dtype="float32", train_batch_tokens=512, generate_batch=8, gradient_checkpointing=False
)


def test_a_layer_is_timed_in_all_its_uses() -> None:
    before = torch.get_rng_state()
    threads = torch.get_num_threads()
    found = layer_speed(CPU, hidden=128, intermediate=256, vocabulary=1000, rank=4, batch=8)
    assert found is not None
    assert 0 < found.read < found.learn  # the backward pass comes on top
    assert 0 < found.write_one < found.write_batch * 4
    assert found.write_batch < 8 * found.write_one * 4  # together is no dearer than one after the other
    assert 0 < found.head < 0.1
    assert torch.equal(before, torch.get_rng_state())
    assert torch.get_num_threads() == threads


def test_a_plan_for_a_card_is_timed_only_where_there_is_one() -> None:
    cuda = CPU.model_copy(update={"device": "cuda"})
    found = layer_speed(cuda, hidden=128, intermediate=256, vocabulary=99, rank=4, batch=8)
    assert (found is not None) == torch.cuda.is_available()
