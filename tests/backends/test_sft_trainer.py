"""Fitting through TRL: exactness of shared prompts, equal bytes, resuming after a kill, and what goes wrong."""

import hashlib
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tunectl.artifacts.records import Example, Source
from tunectl.backends.modeling import (
    batching,
    capability_probe,
    layer_sharding,
    lora_kernels,
    model_loader,
    peft_adapter,
    short_attention,
    training_checkpoint,
    training_run,
    warm_start,
)
from tunectl.backends.trainers import sft_trainer
from tunectl.backends.trainers.sft_trainer import SftTrainer
from tunectl.chat import model_spec
from tunectl.chat.loss_mask import TokenizedExample, TokenSpan
from tunectl.config.schema.hardware import HardwareProfile
from tunectl.core.errors import ArtifactError, InfrastructureError, UsageError
from tunectl.training import prefix_sharing
from tunectl.training.train_args import LoraArgs, TrainingArgs

torch = pytest.importorskip("torch")


def profile(**changes):
    values = {
        "device": "cpu",
        "threads": 1,
        "dtype": "float32",
        "train_batch_tokens": 128,
        "generate_batch": 4,
        "gradient_checkpointing": False,
    }
    return HardwareProfile(**{**values, **changes})


def plan(**changes):
    standard = TrainingArgs(
        label="sft",
        adapter=LoraArgs("lora", 4, 8, 0.0, "all-linear"),
        epochs=2,
        batch_size=6,
        optimizer="adamw",
        learning_rate=1e-2,
        lr_scheduler="linear",
        warmup_ratio=0.1,
        weight_decay=0.0,
        max_grad_norm=1.0,
        label_smoothing=0.0,
        neftune_noise_alpha=None,
        ema_decay=None,
        prefix_sharing=True,
        evals_per_epoch=2,
        patience=None,
        min_delta=0.0,
        save_steps=3,
        seed=5,
        project="test",
        profile=profile(),
    )
    return replace(standard, **changes)


def example_rows(count=12, *, share=True, start=0):
    """Rows that say: after the letter n comes n three times, then the end."""
    found = []
    for number in range(start, start + count):
        letter = 10 + number % 20
        prompt = TokenSpan([1, 40, letter, 50], [False] * 4)
        answers = tuple(TokenSpan([letter + shift, letter, 2], [True] * 3) for shift in range(3))
        found += prefix_sharing.pack_example(
            TokenizedExample(Example(str(number), Source("f", number)), prompt, answers), share=share, limit=512
        )
    return found


def fit(model: Path, tmp_path: Path, chosen: TrainingArgs, name="out", **changes):
    given = {"train": example_rows(), "validation": example_rows(4), **changes}
    return SftTrainer().fit(chosen, model=model, out=tmp_path / name, work=tmp_path / f"work-{name}", **given)


def digest(folder: Path):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def gradients(model_folder: Path, some_rows):
    peft = pytest.importorskip("peft")
    torch.manual_seed(3)
    model = model_loader.load(model_folder, adapter=None, profile=profile()).model
    model = peft.get_peft_model(
        model, peft.LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM")
    )
    lora_kernels.use_fused_lora(model)
    loss = batching.cross_entropy_loss(
        batching.forward_path(model, plain_head=True, autocast=False), batching.to_tensor_batch(some_rows, "cpu")
    )
    loss.backward()
    return float(loss.detach()), {name: p.grad for name, p in model.named_parameters() if p.requires_grad}


def test_the_adapter_is_drawn_in_memory_and_then_moved_to_the_device(tiny_model, monkeypatch):
    drawn = []
    place = layer_sharding.place_model
    monkeypatch.setattr(
        layer_sharding,
        "place_model",
        lambda model, *rest: (drawn.append({w.device.type for w in model.parameters()}), place(model, *rest)),
    )
    elsewhere = profile().model_copy(update={"device": "meta"})  # a device that every machine has
    model, _, _ = sft_trainer.load_with_adapter(replace(plan(), profile=elsewhere), tiny_model)
    assert drawn == [{"cpu"}]
    assert {weights.device.type for weights in (*model.parameters(), *model.buffers())} == {"meta"}


def test_shared_prompts_give_the_loss_and_gradients_of_separate_rows(tiny_model):
    shared_loss, shared = gradients(tiny_model, example_rows(5))
    apart_loss, apart = gradients(tiny_model, example_rows(5, share=False))
    assert shared_loss == pytest.approx(apart_loss, rel=1e-5)
    for name, grad in apart.items():
        torch.testing.assert_close(shared[name], grad, rtol=1e-3, atol=1e-5)


def test_short_attention_and_norms_equal_those_of_transformers(tiny_model):
    results = []
    for short in (False, True):
        model = model_loader.load(tiny_model, adapter=None, profile=profile()).model
        model.requires_grad_(False)
        vectors = model.get_input_embeddings().weight.requires_grad_()
        if short:
            short_attention.use_short_attention(model)
            assert model.config._attn_implementation == short_attention.NAME
            assert sum("forward" in vars(module) for module in model.modules()) == 5
        route = batching.forward_path(model, plain_head=False, autocast=False)
        loss = batching.cross_entropy_loss(route, route.batch([*example_rows(2), *example_rows(2, share=False)]))
        loss.backward()
        results.append((float(loss.detach()), vectors.grad))
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-5)
    torch.testing.assert_close(results[0][1], results[1][1], rtol=1e-3, atol=1e-5)


def test_long_rows_go_to_sdpa(tiny_model, monkeypatch):
    monkeypatch.setattr(short_attention, "LONGEST", 5)
    usual, _ = gradients(tiny_model, example_rows(3))
    model = model_loader.load(tiny_model, adapter=None, profile=profile()).model
    short_attention.use_short_attention(model)
    route = batching.forward_path(model, plain_head=True, autocast=False)
    batch = route.batch(example_rows(3))
    assert batch.mask.dtype == torch.bool
    assert torch.isfinite(batching.cross_entropy_loss(route, batch))
    assert usual > 0


def test_without_the_mask_answers_would_see_each_other(tiny_model):
    """The test above could not fail if attention did not matter: here it is taken away."""
    model = model_loader.load(tiny_model, adapter=None, profile=profile()).model
    model.requires_grad_(False)
    route = batching.forward_path(model, plain_head=True, autocast=False)
    batch = batching.to_tensor_batch(example_rows(5), "cpu")
    open_batch = replace(batch, mask=torch.ones_like(batch.mask).tril())
    gap = float(batching.cross_entropy_loss(route, open_batch)) - float(batching.cross_entropy_loss(route, batch))
    assert abs(gap) > 1e-3


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_fast_loss_and_layers_equal_the_plain_ones(tiny_model, smoothing):
    peft = pytest.importorskip("peft")
    results = []
    for fast in (False, True):
        torch.manual_seed(3)
        model = model_loader.load(tiny_model, adapter=None, profile=profile()).model
        model = peft.get_peft_model(
            model, peft.LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM")
        )
        assert not fast or lora_kernels.use_fused_lora(model) == 14
        route = batching.forward_path(model, plain_head=fast, autocast=False)
        loss = batching.cross_entropy_loss(route, batching.to_tensor_batch(example_rows(3), "cpu"), smoothing=smoothing)
        loss.backward()
        results.append((loss.item(), [p.grad for p in model.parameters() if p.requires_grad]))
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-5)
    for plain, fast in zip(results[0][1], results[1][1], strict=True):
        torch.testing.assert_close(plain, fast, rtol=1e-3, atol=1e-6)


def test_the_probe_trusts_a_plain_llama(tiny_model):
    model = model_loader.load(tiny_model, adapter=None, profile=profile()).model
    assert capability_probe.probe(model, example_rows(3), autocast=False) == capability_probe.ModelCapabilities(
        plain_head=True, shared_prompts=True
    )


def test_the_probe_sees_logits_that_are_changed_behind_the_head(tiny_model):
    model = model_loader.load(tiny_model, adapter=None, profile=profile()).model

    class Capped(type(model)):
        def forward(self, **inputs):
            found = super().forward(**inputs)
            found.logits = found.logits * 30
            return found

    model.__class__ = Capped
    assert not capability_probe.probe(model, example_rows(3), autocast=False).plain_head


def test_it_learns_and_the_same_seed_gives_the_same_bytes(tiny_model, tmp_path):
    eager = LoraArgs("lora", 8, 64, 0.0, "all-linear")
    first = fit(tiny_model, tmp_path, plan(adapter=eager), "first")
    fit(tiny_model, tmp_path, plan(adapter=eager), "second")
    assert first.best_loss < first.first_loss - 0.5
    assert first.shared_prompts
    assert first.steps == first.planned_steps == 12
    assert first.tokens == 2 * sum(row.length + 3 for row in example_rows())
    assert digest(tmp_path / "first") == digest(tmp_path / "second")
    assert sorted(digest(tmp_path / "first")) == ["adapter_config.json", "adapter_model.safetensors"]
    assert str(tmp_path) not in (tmp_path / "first" / "adapter_config.json").read_text()
    fit(tiny_model, tmp_path, plan(adapter=eager, seed=6), "third")
    assert digest(tmp_path / "first") != digest(tmp_path / "third")


@pytest.mark.parametrize("method", ["lora", "dora", "rslora"])
def test_it_goes_on_from_a_stored_adapter(tiny_model, tmp_path, method):
    adapter = LoraArgs(method, 4, 8, 0.0, "all-linear")
    first = fit(tiny_model, tmp_path, plan(adapter=adapter), "first")
    again = fit(tiny_model, tmp_path, plan(adapter=adapter, init_adapter=tmp_path / "first", seed=6), "again")
    assert again.first_loss == pytest.approx(first.best_loss, rel=1e-4)
    assert again.best_loss < first.best_loss
    with pytest.raises(ArtifactError) as missing:
        fit(tiny_model, tmp_path, plan(init_adapter=tmp_path), "missing")
    assert missing.value.message == f"sft.init_adapter = {tmp_path}: there is no adapter_model.safetensors in it"


@pytest.mark.parametrize(
    ("adapter", "words"),
    [
        (
            LoraArgs("lora", 4, 16, 0.0, "all-linear"),
            "the LoRA scale of that adapter is 2 (alpha 8, rank 4), but sft.lora_alpha and sft.lora_rank give 4",
        ),
        (
            LoraArgs("lora", 2, 4, 0.0, "all-linear"),
            "down_proj.lora_A.weight is (4, 64) in that adapter, and (2, 64) in the adapter to be trained",
        ),
        (LoraArgs("lora", 4, 8, 0.0, ("q_proj",)), " in that adapter, and absent in the adapter to be trained"),
    ],
)
def test_an_adapter_of_another_shape_is_no_start(tiny_model, tmp_path, adapter, words):
    fit(tiny_model, tmp_path, plan(), "first")
    with pytest.raises(UsageError) as error:
        fit(tiny_model, tmp_path, plan(init_adapter=tmp_path / "first", adapter=adapter), "other")
    assert words in str(error.value)


@pytest.mark.parametrize("method", ["lora", "dora", "rslora"])
def test_each_method_learns_and_loads_again(tiny_model, tmp_path, method):
    found = fit(tiny_model, tmp_path, plan(adapter=LoraArgs(method, 4, 8, 0.1, ("q_proj", "up_proj"))))
    assert found.best_loss < found.first_loss
    again = model_loader.load(tiny_model, adapter=tmp_path / "out", profile=profile()).model
    with torch.no_grad():
        loss = batching.cross_entropy_loss(
            batching.forward_path(again, plain_head=True, autocast=False),
            batching.to_tensor_batch(example_rows(4), "cpu"),
        )
    assert float(loss) / 36 == pytest.approx(found.best_loss, abs=1e-4)


@pytest.mark.parametrize(
    "change",
    [
        {"optimizer": "adafactor"},
        {"optimizer": "sgd"},
        {"lr_scheduler": "cosine"},
        {"lr_scheduler": "constant"},
        {"weight_decay": 0.1, "label_smoothing": 0.1, "max_grad_norm": None},
        {"neftune_noise_alpha": 0.1},
        {"profile": profile(gradient_checkpointing=True)},
        {"profile": profile(dtype="bfloat16")},
    ],
    ids=",".join,
)
def test_settings_reach_the_fit(tiny_model, tmp_path, change):
    usual, changed = (
        fit(tiny_model, tmp_path, plan(epochs=1)),
        fit(tiny_model, tmp_path, plan(epochs=1, **change), "changed"),
    )
    assert changed.best_loss < changed.first_loss
    if "profile" not in change:
        assert changed.best_loss != usual.best_loss


def test_weights_of_the_best_validation_are_kept(tiny_model, tmp_path):
    found = fit(tiny_model, tmp_path, plan(learning_rate=0.9, max_grad_norm=None, epochs=3, evals_per_epoch=4))
    measured = {point.step: point.validation_loss for point in found.history if point.validation_loss is not None}
    assert len(measured) == 12
    assert found.best_loss == min(measured.values()) == measured[found.best_step]


def test_each_validation_happens_once(tiny_model, tmp_path, monkeypatch):
    own, seen = training_run.validation_loss, []
    monkeypatch.setattr(training_run, "validation_loss", lambda run, model: seen.append(1) or own(run, model))
    fit(tiny_model, tmp_path, plan(epochs=2, evals_per_epoch=2))
    assert len(seen) == 1 + 4  # once before the first step


def test_early_stopping(tiny_model, tmp_path):
    found = fit(
        tiny_model, tmp_path, plan(learning_rate=0.9, max_grad_norm=None, epochs=20, evals_per_epoch=4, patience=2)
    )
    assert found.steps < found.planned_steps


def test_a_fit_that_had_stopped_early_is_not_trained_on(tiny_model, tmp_path):
    """The second call finds what a kill after the last checkpoint leaves: each step is one, the last one too."""
    early = {"learning_rate": 0.9, "max_grad_norm": None, "epochs": 20, "evals_per_epoch": 4, "patience": 2}
    stopped = fit(tiny_model, tmp_path, plan(**early, save_steps=1))
    before = digest(tmp_path / "out")
    assert stopped.steps < stopped.planned_steps
    assert fit(tiny_model, tmp_path, plan(**early, save_steps=1)) == stopped
    assert digest(tmp_path / "out") == before


def test_a_loaded_average_is_on_the_device_of_the_weights(tmp_path):
    chosen, layer = plan(ema_decay=0.5), torch.nn.Linear(2, 2)
    run = training_run.TrainingRun(chosen, [], [], [], None, training_checkpoint.TrainerState())
    training_run.update_ema(run, layer, 1)
    run.state.save(tmp_path)
    training_run.load_state(run, layer.to("meta"), tmp_path)  # a device that every machine has
    assert {value.device.type for value in run.state.average.values()} == {"meta"}
    training_run.update_ema(run, layer, 2)


def test_saving_and_going_on_ask_nobody_about_the_base_model(tiny_model, tmp_path, monkeypatch):
    peft = pytest.importorskip("peft")
    from peft.utils import save_and_load

    monkeypatch.setattr(save_and_load, "check_file_exists_on_hf_hub", lambda *_: pytest.fail("Hugging Face was asked"))
    model = peft.get_peft_model(
        model_loader.load(tiny_model, adapter=None, profile=profile()).model,
        peft.LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"),
    )
    model.peft_config["default"].base_model_name_or_path = "org/base"  # as in the adapter that a fit goes on from
    peft_adapter.save_adapter(model, {}, tmp_path / "out", model_spec.load(tiny_model))
    adapter = LoraArgs("lora", 4, 8, 0.0, "all-linear")
    warm_start.load_adapter_weights(model, tmp_path / "out", adapter, setting="sft.init_adapter")


def test_the_average_is_kept_and_validated(tiny_model, tmp_path):
    usual, averaged = fit(tiny_model, tmp_path, plan()), fit(tiny_model, tmp_path, plan(ema_decay=0.5), "averaged")
    assert averaged.best_loss < averaged.first_loss
    assert averaged.best_loss != usual.best_loss


CHILD = """
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
import test_sft_trainer as t
root = Path({root!r})
t.fit(Path({model!r}), root, t.plan(epochs=6, ema_decay=0.9, adapter=t.LoraArgs("lora", 4, 8, 0.2, "all-linear")), "out")
"""


def child(tiny_model: Path, root: Path) -> subprocess.Popen:
    text = CHILD.format(tests=str(Path(__file__).parent), root=str(root), model=str(tiny_model))
    return subprocess.Popen(
        [sys.executable, "-c", text], env={**os.environ, "HF_HUB_OFFLINE": "1"}, stderr=subprocess.PIPE, text=True
    )


def wait_for_checkpoint(work: Path, process: subprocess.Popen) -> None:
    until = time.monotonic() + 90
    while not list(work.glob(f"checkpoint-*/{training_checkpoint.MARKER}")):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < until
        time.sleep(0.02)


def test_a_killed_fit_goes_on_and_ends_with_the_same_bytes(tiny_model, tmp_path):
    chosen = plan(epochs=6, ema_decay=0.9, adapter=LoraArgs("lora", 4, 8, 0.2, "all-linear"))
    whole = fit(tiny_model, tmp_path, chosen, "whole")
    process = child(tiny_model, tmp_path)
    work = tmp_path / "work-out"
    wait_for_checkpoint(work, process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stderr.close()
    assert not (tmp_path / "out").exists()
    step = int(training_checkpoint.latest_checkpoint(work).name.rpartition("-")[2])
    (work / "checkpoint-9999").mkdir()  # half-written when the kill came
    resumed = fit(tiny_model, tmp_path, chosen)
    assert 0 < step < resumed.steps == whole.steps
    assert digest(tmp_path / "out") == digest(tmp_path / "whole")
    assert [(p.step, p.loss, p.validation_loss) for p in resumed.history] == [
        (p.step, p.loss, p.validation_loss) for p in whole.history
    ]


def test_ctrl_c_stops_cleanly_and_the_same_call_goes_on(tiny_model, tmp_path):
    chosen = plan(epochs=6)
    whole = fit(tiny_model, tmp_path, chosen, "whole")

    original, calls = training_run.update_progress, []

    def count(run, number):
        original(run, number)
        calls.append(number)
        if number == 4:
            os.kill(os.getpid(), signal.SIGINT)

    training_run.update_progress = count
    try:
        with pytest.raises(InfrastructureError) as caught:
            fit(tiny_model, tmp_path, chosen)
    finally:
        training_run.update_progress = original
    assert caught.value.message in {f"sft stopped at step {step} of 36; its state is kept" for step in (4, 5)}
    assert caught.value.hint == "run the same command again to resume"
    fit(tiny_model, tmp_path, chosen)
    assert digest(tmp_path / "out") == digest(tmp_path / "whole")
    assert whole.steps == 36


def test_a_loss_that_is_no_number_is_named(tiny_model, tmp_path, monkeypatch):
    own, calls = batching.cross_entropy_loss, []

    def breaks(route, batch, **smoothing):
        loss = own(route, batch, **smoothing)
        calls.append(loss.requires_grad)
        return loss * float("nan") if sum(calls) > 2 else loss

    monkeypatch.setattr(batching, "cross_entropy_loss", breaks)
    with pytest.raises(UsageError) as caught:
        fit(tiny_model, tmp_path, plan())
    assert re.fullmatch(
        r"sft: the loss is nan at step 3; the last good loss was \d\.\d{4} at step 2", caught.value.message
    )
    assert caught.value.hint == "lower sft.learning_rate (now 0.01), or sft.max_grad_norm (now 1)"
    assert not (tmp_path / "out").exists()


def test_out_of_memory_says_what_to_lower(tiny_model, tmp_path, monkeypatch):
    def fail(*_args, **_kwargs):
        raise RuntimeError(
            "[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes."
        )

    monkeypatch.setattr(batching, "cross_entropy_loss", fail)
    with pytest.raises(InfrastructureError) as caught:
        fit(tiny_model, tmp_path, plan())
    assert caught.value.message.startswith("sft ran out of memory: [enforce fail")
    assert caught.value.hint == (
        "lower hardware.train_batch_tokens (now 128), sft.max_length or sft.lora_rank, switch on hardware.gradient_checkpointing, or take a smaller model"
    )


def test_an_unknown_target_is_named(tiny_model, tmp_path):
    with pytest.raises(UsageError) as caught:
        fit(tiny_model, tmp_path, plan(adapter=LoraArgs("lora", 4, 8, 0.0, ("q_proj", "query"))))
    assert caught.value.message == (
        "sft.target_modules names query, which the model does not have; it has down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj"
    )


def test_qlora_needs_cuda(tiny_model, tmp_path):
    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    with pytest.raises(InfrastructureError) as caught:
        fit(tiny_model, tmp_path, plan(adapter=LoraArgs("qlora", 4, 8, 0.0, "all-linear")))
    assert caught.value.message == "sft.method = qlora needs a CUDA device, and torch sees none"
