"""Stage align with dpo and kto through the libraries themselves, on a small model and made-up judgments."""

import json
import shutil
from pathlib import Path

import pytest
import yaml

from tunectl.artifacts import atomic_io, manifest, row_counts
from tunectl.artifacts.records import (
    AnnotationMetadata,
    Example,
    LabeledCompletion,
    Message,
    PreferencePair,
    ReferenceAnswer,
    Source,
)
from tunectl.backends.modeling import model_loader, peft_adapter
from tunectl.chat import model_spec, template
from tunectl.chat.tokenizer import Tokenizer
from tunectl.config.schema.align import AlignStage
from tunectl.config.schema.hardware import HardwareProfile
from tunectl.core.errors import DataError
from tunectl.pipeline.stages import align

torch = pytest.importorskip("torch")
CONF = Path(__file__).parents[2] / "conf" / "align"
MACHINE = {
    "device": "cpu",
    "threads": 1,
    "dtype": "float32",
    "train_batch_tokens": 256,
    "generate_batch": 8,
    "gradient_checkpointing": False,
}


def asked(letter):
    return [Message("user", f"Say {letter}")]


@pytest.fixture(scope="module")
def trained(tiny_model, tmp_path_factory):
    """Base and sft adapter: to ``Say a`` comes an ``a`` or two, or another letter."""
    peft = pytest.importorskip("peft")
    root = tmp_path_factory.mktemp("align")
    model, sft = root / "model", root / "sft"
    shutil.copytree(tiny_model, model)
    renderer, tokenizer = template.load(model, system=None), Tokenizer(model)
    torch.manual_seed(1)
    base = model_loader.load(model, adapter=None, profile=HardwareProfile(**MACHINE)).model
    optimizer = torch.optim.AdamW(base.parameters(), lr=0.01)
    texts = [renderer.render(asked(letter), add_generation_prompt=True) for letter in "abcdefgh"]
    prompts = [one.ids for one in tokenizer.encode(texts)]
    ends = [one.ids for one in tokenizer.encode([f"{letter}{letter}" for letter in "abcdefgh"])]
    ids = torch.tensor([[*prompt, *end, 2] for prompt, end in zip(prompts, ends, strict=True)])
    labels = ids.clone()
    labels[:, : len(prompts[0])] = -100
    for _ in range(60):
        optimizer.zero_grad()
        base(input_ids=ids, labels=labels).loss.backward()
        optimizer.step()
    pytest.importorskip("safetensors.torch").save_model(
        base, str(model / "model.safetensors"), metadata={"format": "pt"}
    )
    torch.manual_seed(2)
    adapted = peft.get_peft_model(
        base, peft.LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=8, target_modules="all-linear")
    )
    with torch.no_grad():
        for name, weights in adapted.named_parameters():
            if "lora_B" in name:
                weights.normal_(0, 0.005)
    peft_adapter.save_adapter(adapted, {}, sft, model_spec.load(model))
    model_spec.save(model_spec.load(model), sft)
    return model, sft


def pair(number, letter):
    vote = AnnotationMetadata(Source("pairs.jsonl", number))
    said = [[Message("assistant", text)] for text in (f"{letter}!", f"no {letter}")]
    return PreferencePair(f"p{number}", f"d{letter}", asked(letter), *said, [vote])


def mark(number, letter, *, good, split):
    vote = AnnotationMetadata(Source("labeled_completions.jsonl", number))
    said = [Message("assistant", f"{letter}!" if good else f"no {letter}")]
    return LabeledCompletion(f"m{number}", f"d{letter}", asked(letter), said, good, [vote], split=split)


@pytest.fixture
def inputs(trained, tmp_path):
    model, sft = trained
    for name in ("cpt", "reward"):
        (tmp_path / name).mkdir()
        atomic_io.write_json(tmp_path / name / manifest.PASSED_THROUGH, {"reason": f"{name}: none"})
    for name in ("split", "preferences"):
        (tmp_path / name).mkdir()
    for part, letters in (("train", "abcdef"), ("validation", "gh")):
        source = Source("rows.jsonl", 1)
        atomic_io.write_rows(
            tmp_path / "split" / f"{part}.jsonl",
            [
                Example(letter, source, messages=asked(letter), answers=[ReferenceAnswer(f"{letter}!", source)])
                for letter in letters
            ],
        )
        atomic_io.write_rows(
            tmp_path / "preferences" / f"{part}.jsonl", [pair(number, one) for number, one in enumerate(letters, 1)]
        )
    atomic_io.write_rows(tmp_path / "preferences" / "labeled_completions.jsonl", [])
    return align.Inputs(
        model=model,
        cpt=tmp_path / "cpt",
        split=tmp_path / "split",
        sft=sft,
        preferences=tmp_path / "preferences",
        reward=tmp_path / "reward",
    )


def cfg(method, **changes):
    section = yaml.safe_load((CONF / f"{method}.yaml").read_text())
    section["validation"] |= {"eval_steps": 4, "inputs": 2, "resamples": 100, "tolerance": 100.0, "samples": 2}
    section |= {"epochs": 6, "max_length": 96, "max_new_tokens": 12, "learning_rate": 5e-3, "warmup_ratio": 0.0}
    section["batch_size"] = 4
    return AlignStage.model_validate({"align": section | changes, "seed": 1, "hardware": MACHINE, "project": "letters"})


def outputs(tmp_path):
    found = align.Outputs(artifact=tmp_path / "out", plots=tmp_path / "plots", work=tmp_path / "work")
    found.artifact.mkdir()
    found.plots.mkdir()
    return found


@pytest.mark.parametrize("method", ["dpo", "kto"])
def test_judgments_become_an_adapter_and_a_report(inputs, tmp_path, method):
    if method == "kto":
        marks = [
            mark(number, letter, good=number % 2 == 0, split="train" if letter < "g" else "validation")
            for number, letter in enumerate("abcdefgh")
        ]
        atomic_io.write_rows(inputs.preferences / "labeled_completions.jsonl", marks)
    out = outputs(tmp_path)
    found = align.run(cfg(method), inputs, out)
    assert (found.method, found.steps, found.rejected) == (method, found.planned_steps, 0)
    assert found.best_step > 0
    account = row_counts.load(out.artifact)
    rows = 8 if method == "dpo" else 16  # kto takes pairs and labeled answers
    assert (account.rows_in, account.kept, account.rejected) == (rows, rows, {})
    facts = json.loads((out.artifact / "align.json").read_text())
    assert facts["validation"][-1]["held_out_loss"] < facts["validation"][0]["held_out_loss"]
    assert facts["validation"][-1]["held_out_accuracy"] == (1.0 if method == "dpo" else None)
    page = (out.artifact / "report.html").read_text()
    assert "Loss on held-out judgments from " in page
    assert "<b>Answer of sft</b>" in page
    assert (out.artifact / "samples.jsonl").read_text().count("\n") == 2 * len(facts["validation"])
    assert not out.work.exists()
    model_loader.load(inputs.model, adapter=out.artifact, profile=HardwareProfile(**MACHINE))


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("dpo", "align: dpo learns from collected judgments, and preferences has no pairs in its training part"),
        (
            "kto",
            "align: kto learns from collected judgments, and preferences has neither labeled answers nor pairs in its training part",
        ),
    ],
)
def test_without_judgments_nothing_is_learned(inputs, tmp_path, method, message):
    atomic_io.write_json(inputs.preferences / manifest.PASSED_THROUGH, {"reason": "preferences: none"})
    with pytest.raises(DataError) as caught:
        align.run(cfg(method), inputs, outputs(tmp_path))
    assert caught.value.message == message


def test_too_many_rejects_stop_it_before_it_learns(inputs, tmp_path):
    pairs = [pair(number, letter) for number, letter in enumerate("abcdef", 1)]
    long = PreferencePair(
        "p9", "dz", asked("z"), [Message("assistant", "z" * 200)], [Message("assistant", "no")], pairs[0].annotations
    )
    atomic_io.write_rows(inputs.preferences / "train.jsonl", [*pairs, long])
    out = outputs(tmp_path)
    with pytest.raises(DataError) as caught:
        align.run(cfg("dpo"), inputs, out)
    assert caught.value.message.splitlines()[0] == "align: 11.1% of 9 rows were rejected; the limit is 5%"
    assert "too_long: first pairs.jsonl:1 225 tokens; the limit is 96" in caught.value.message
    assert not out.work.exists()
