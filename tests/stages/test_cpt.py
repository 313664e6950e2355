"""The cpt stage: passed on, or really trained and merged with the tiny model."""

import json

import pytest

from tunectl.artifacts import atomic_io
from tunectl.artifacts.records import Document, Source
from tunectl.chat import model_spec, template
from tunectl.config.schema.cpt import CptStage
from tunectl.core.errors import DataError
from tunectl.pipeline.stages import cpt

PROFILE = {
    "device": "cpu",
    "threads": 1,
    "dtype": "float32",
    "train_batch_tokens": 256,
    "generate_batch": 4,
    "gradient_checkpointing": False,
}
LORA = {
    "method": "lora",
    "lora_rank": 4,
    "lora_alpha": 16,
    "block_size": 32,
    "epochs": 2,
    "batch_size": 4,
    "validation_share": 0.2,
    "min_tokens": 100,
    "learning_rate": 0.01,
    "lr_scheduler": "cosine",
    "warmup_ratio": 0.1,
    "weight_decay": 0.0,
    "max_grad_norm": 1.0,
    "save_steps": 5,
}


def stage(section):
    return CptStage.model_validate({"cpt": section, "seed": 3, "hardware": PROFILE})


@pytest.fixture
def given(tmp_path, tiny_model):
    atomic_io.write_rows(
        tmp_path / "split" / "documents.jsonl",
        [Document(str(i), "spam and eggs, " * 6, Source("d.txt", i)) for i in range(10)],
    )
    (tmp_path / "out").mkdir()
    return cpt.Inputs(tiny_model, tmp_path / "split"), cpt.Outputs(tmp_path / "out", tmp_path / "work")


def test_switched_off_it_says_so(given):
    inputs, outputs = given
    found = cpt.run(stage({"method": "none"}), inputs, outputs)
    assert [path.name for path in outputs.artifact.iterdir()] == ["passed_through.json"]
    assert json.loads((outputs.artifact / "passed_through.json").read_text()) == {"reason": "cpt.method is none"}
    assert found.validation_loss is None


def test_it_reads_the_text_and_leaves_a_whole_model(given):
    torch = pytest.importorskip("torch")
    from tunectl.backends.modeling import model_loader
    from tunectl.config.schema.hardware import HardwareProfile

    inputs, outputs = given
    found = cpt.run(stage(LORA), inputs, outputs)
    assert found.validation_loss < found.validation_loss_before - 0.2
    own, base = model_spec.load(outputs.artifact), model_spec.load(inputs.model)
    assert own.weights_sha256 == atomic_io.sha256_path(outputs.artifact / "model.safetensors") != base.weights_sha256
    assert (own.base, own.template_sha256) == (base.base, base.template_sha256)
    assert template.load(outputs.artifact) == template.load(inputs.model)
    losses = []
    for folder in (inputs.model, outputs.artifact):
        loaded = model_loader.load(folder, adapter=None, profile=HardwareProfile(**PROFILE))
        ids = loaded.tokenizer("spam and eggs, spam and eggs", return_tensors="pt")["input_ids"]
        with torch.no_grad():
            losses.append(float(loaded.model(input_ids=ids, labels=ids).loss))
    assert losses[1] < losses[0] - 0.2
    assert (outputs.artifact / "history.csv").read_text().startswith("step,epoch,loss,validation_loss,learning_rate\n")
    assert not outputs.work.exists()
    again = cpt.Outputs(outputs.artifact.with_name("again"), outputs.work)
    again.artifact.mkdir()
    cpt.run(stage(LORA), inputs, again)
    first, second = (
        {path.name: atomic_io.sha256_path(path) for path in each.artifact.iterdir()} for each in (outputs, again)
    )
    assert first == second  # no clock is in the artifact


def test_too_little_text_is_an_error(given):
    inputs, outputs = given
    with pytest.raises(DataError) as caught:
        cpt.run(stage(LORA | {"min_tokens": 100_000}), inputs, outputs)
    assert caught.value.message == (
        "cpt: the documents of the training side hold 728 tokens of text in 10 documents; at least 100000 are asked for"
    )
    assert caught.value.hint == "bring more documents, lower cpt.min_tokens, or leave the stage out: cpt=none"
