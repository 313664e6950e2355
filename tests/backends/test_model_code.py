"""No code that comes with a model is run, whoever says yes to a library that asks."""

from __future__ import annotations

import builtins
from collections.abc import Callable
from pathlib import Path

import pytest

from tunectl.artifacts import atomic_io
from tunectl.backends.engines.transformers_engine import TransformersEngine
from tunectl.backends.text.sentence_encoder import SentenceEncoder
from tunectl.core.errors import ArtifactError

pytest.importorskip("torch")
CODE = """
import pathlib
from transformers import PretrainedConfig, PreTrainedModel
pathlib.Path({mark!r}).touch()
class C(PretrainedConfig):
    model_type = "foreign"
class M(PreTrainedModel):
    config_class = C
"""


@pytest.mark.parametrize(
    "load",
    [
        lambda folder: TransformersEngine(0).open(folder, lambda _: None, adapter=False),
        lambda folder: SentenceEncoder(folder / "model"),
    ],
    ids=["engine", "encoder"],
)
def test_code_of_a_model_is_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, load: Callable[[Path], object]
) -> None:
    dynamic = pytest.importorskip("transformers.dynamic_module_utils")
    monkeypatch.setattr(dynamic, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(builtins, "input", lambda *_: "y")
    folder, mark = tmp_path / "model", tmp_path / "ran"
    names = {"AutoConfig": "own_code.C", "AutoModel": "own_code.M", "AutoModelForCausalLM": "own_code.M"}
    atomic_io.write_json(folder / "config.json", {"model_type": "foreign", "auto_map": names})
    (folder / "own_code.py").write_text(CODE.format(mark=str(mark)))
    with pytest.raises((ArtifactError, ValueError), match="custom code"):
        load(tmp_path)
    assert not mark.exists()
