"""What our trainers override of TRL and transformers is there, with the parameters that we take: another version is seen at once."""

import inspect

import pytest

trl = pytest.importorskip("trl")
transformers = pytest.importorskip("transformers")
LOOP = {
    "get_train_dataloader": ["self"],
    "training_step": ["self", "model", "inputs", "num_items_in_batch"],
    "evaluate": ["self", "eval_dataset", "ignore_keys", "metric_key_prefix"],
    "_save_checkpoint": ["self", "model", "trial"],
}
"""Overrides of ``backends/trainers/trainer_loop.py``, which deals the rows of a step to the ranks and sums gradients."""


@pytest.mark.parametrize(
    "trainer", [trl.SFTTrainer, trl.RewardTrainer, transformers.Trainer], ids=lambda kind: kind.__name__
)
def test_the_loop_overrides_what_there_is(trainer):
    found = {name: list(inspect.signature(getattr(trainer, name)).parameters) for name in LOOP}
    passes_on = {} if trainer is transformers.Trainer else {"training_step": ["self", "args", "kwargs"]}
    assert found == LOOP | passes_on


def test_gradients_are_summed_by_us_alone():
    """In a process group transformers sums gradients of weights beside sharded ones by itself, where it sharded the model; we did."""
    source = inspect.getsource(transformers.Trainer)
    call = source.index("self._sync_replicated_trainable_parameters(")
    before = source[:call].rsplit("if ", 1)[1]
    assert before.startswith("self.is_distributed_loading_by_transformers:")
