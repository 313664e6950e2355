"""The exporter and the engine themselves, on the tiny model: both routes say what the trained model says."""

import os
import shutil
from pathlib import Path

import pytest
from openvino_release import exported

from tunectl.artifacts import atomic_io
from tunectl.backends.engines import offline_runner
from tunectl.backends.export import exporter_env, openvino_export
from tunectl.backends.modeling.merge_adapter import merge
from tunectl.backends.wiring.packaging import PackagingBackend
from tunectl.config.schema.hardware import HardwareProfile
from tunectl.core.errors import InfrastructureError
from tunectl.packaging import parity

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
ROOT = Path(__file__).parents[2]
PROFILE = HardwareProfile(
    device="cpu", threads=None, dtype="float32", train_batch_tokens=2048, generate_batch=8, gradient_checkpointing=False
)
STOPS, PROMPTS = [2], [[1, *range(start, start + 20)] for start in (30, 50, 70, 90)]


@pytest.fixture(scope="module", autouse=True)
def exporter():
    """The environment that .ci/run made, or one of this checkout."""
    before = os.environ.get(exporter_env.VARIABLE)
    os.environ[exporter_env.VARIABLE] = before or str(exporter_env.ensure_interpreter(ROOT / ".tunectl" / "exporters"))
    yield
    if before is None:
        del os.environ[exporter_env.VARIABLE]


@pytest.fixture(scope="module")
def adapter(tiny_model, tmp_path_factory):
    """LoRA with a scale that is not 1, which an engine can get wrong."""
    import peft
    import torch
    import transformers

    folder = tmp_path_factory.mktemp("adapter")
    model = transformers.AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    torch.manual_seed(1)
    settings = peft.LoraConfig(r=4, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM")
    tuned = peft.get_peft_model(model, settings)
    with torch.no_grad():
        for name, weights in tuned.named_parameters():
            if "lora_B" in name:
                weights.normal_(0, 0.15)
    tuned.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("route", ["merged", "adapter"])
def test_both_layouts_are_the_trained_model(route, tiny_model, adapter, tmp_path):
    tools = PackagingBackend(PROFILE)
    model, release = tiny_model, tmp_path / "release"
    if route == "merged":
        model = tmp_path / "merged"
        merge(tiny_model, adapter, model)
        openvino_export.export(model, release / "model", "int8")
    else:
        exported(model, release / "model")
    shutil.copytree(adapter, release / "adapter")
    tuned, base = (tools.load_trained_model(tiny_model, one, STOPS, "float32") for one in (adapter, None))
    said = [one.ids for one in tuned.generate(PROMPTS, 10)]
    side = offline_runner.SubprocessRunner(release, "openvino", STOPS, adapter=route == "adapter")
    readings = side.teacher_force(PROMPTS, said)
    chosen = [one.choices for one in readings]
    found = parity.token_agreement(said, readings, tuned.likelihood(PROMPTS, said, chosen), STOPS)
    assert parity.verdict(found, None, parity.ParityBounds(0.95, 0.05), probes=1).passed, found
    other = parity.token_agreement(said, readings, base.likelihood(PROMPTS, said, chosen), STOPS)
    assert other.gap > 3 * found.gap, "the adapter makes no difference"
    (answer,) = side.generate(PROMPTS[:1], 10)
    assert answer.ids == said[0]


def test_the_exporters_own_words_reach_the_user(tmp_path):
    atomic_io.write_json(tmp_path / "config.json", {"model_type": "no_such_model"})
    with pytest.raises(InfrastructureError, match=r"exporting .* to OpenVINO failed: .*no_such_model"):
        openvino_export.export(tmp_path, tmp_path / "out", "int8")


def test_weights_of_another_kind_are_noticed(tiny_model, tmp_path, monkeypatch):
    monkeypatch.setitem(openvino_export.HOW, "int8", ("--weight-format", "fp32"))
    with pytest.raises(InfrastructureError, match=r"exporting model to OpenVINO gave weights of .*f32.*, not int8"):
        openvino_export.export(tiny_model, tmp_path / "out", "int8")
