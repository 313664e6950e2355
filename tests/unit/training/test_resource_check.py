"""Estimates of memory and disk, and what is said when they do not suffice."""

import shutil
from collections import namedtuple

import pytest

from tunectl.core.errors import InfrastructureError
from tunectl.training import resource_check

SMOL = resource_check.ModelSize(parameters=134_515_008, layers=30, hidden=576, intermediate=1536, vocabulary=49_152)


def test_memory_grows_with_tokens_and_checkpointing_saves():
    few, many = (
        resource_check.estimate_memory(SMOL, tokens=tokens, trainable=5_000_000, checkpointing=False)
        for tokens in (512, 4096)
    )
    saved = resource_check.estimate_memory(SMOL, tokens=4096, trainable=5_000_000, checkpointing=True)
    assert few < saved < many
    assert 2e9 < resource_check.estimate_memory(SMOL, tokens=2048, trainable=5_000_000, checkpointing=False) < 6e9


def test_too_little_memory_says_what_to_lower():
    resource_check.check_memory(5_000_000_000, None, hint="")
    resource_check.check_memory(5_000_000_000, 5_000_000_000, hint="")
    with pytest.raises(InfrastructureError) as caught:
        resource_check.check_memory(5_000_000_000, 3_000_000_000, hint=resource_check.memory_hint(2048, "sft"))
    assert caught.value.message == "training needs about 5,000 MB of memory, and 3,000 MB are free"
    assert caught.value.hint == (
        "lower hardware.train_batch_tokens (now 2048), sft.max_length or sft.lora_rank, switch on hardware.gradient_checkpointing, "
        "or take a smaller model"
    )


def test_free_memory_is_read_where_the_machine_says_it(tmp_path):
    (tmp_path / "meminfo").write_text("MemTotal: 100 kB\nMemAvailable:   2048 kB\n")
    assert resource_check.available_memory(tmp_path / "meminfo") == 2048 * 1024
    assert resource_check.available_memory(tmp_path / "nothing") is None


def test_too_little_disk_is_said_before_anything_is_written(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10, 5, 7_000_000))
    work = tmp_path / "work" / "sft-1"
    resource_check.check_disk(work, 7_000_000)
    with pytest.raises(InfrastructureError) as caught:
        resource_check.check_disk(work, 9_000_000)
    assert caught.value.message == f"{work} needs 9 MB for checkpoints, and 7 MB are free on its disk"
    assert caught.value.hint == "free some space (tunectl keeps unfinished work in .tunectl/work), then run again"
    assert not work.exists()
