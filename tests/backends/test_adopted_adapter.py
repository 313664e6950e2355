"""An adapter from elsewhere in place of a fit, and the local fit of a federation, with the tiny model and without Flower."""

from dataclasses import replace
from pathlib import Path

import pytest
import tiny_fits

from tunectl.artifacts import atomic_io, row_counts
from tunectl.backends.federated import local_fit
from tunectl.backends.trainers.adopted_adapter import RECORD, AdoptedAdapter
from tunectl.backends.trainers.sft_trainer import SftTrainer
from tunectl.chat import model_spec
from tunectl.core.errors import ArtifactError, UsageError
from tunectl.federated import exchange
from tunectl.federated.exchange import ClientCounts, RoundRequest
from tunectl.training import fit_request
from tunectl.training.train_args import LoraArgs

pytest.importorskip("torch")


@pytest.fixture(scope="module")
def fitted(tiny_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("fitted")
    result = SftTrainer().fit(
        tiny_fits.plan(ema_decay=None, epochs=1),
        model=tiny_model,
        train=tiny_fits.rows(),
        validation=tiny_fits.rows(5, start=30),
        out=folder / "adapter",
        work=folder / "work",
    )
    return folder / "adapter", result


def adopt(model: Path, adapter: Path, out: Path, plan=None):
    return AdoptedAdapter(adapter).fit(
        plan or tiny_fits.plan(),
        model=model,
        train=tiny_fits.rows(),
        validation=tiny_fits.rows(5, start=30),
        out=out,
        work=out / "work",
    )


def test_it_is_measured_and_stored_as_it_is(tiny_model, fitted, tmp_path):
    adapter, result = fitted
    (adapter / RECORD).write_text("{}")
    found = adopt(tiny_model, adapter, tmp_path / "out")
    assert (found.steps, found.planned_steps, found.tokens) == (0, 0, 0)
    assert found.best_loss == pytest.approx(result.best_loss, abs=1e-5)
    assert found.first_loss == pytest.approx(result.first_loss, abs=1e-5)
    assert (tmp_path / "out" / "adapter_model.safetensors").read_bytes() == (
        adapter / "adapter_model.safetensors"
    ).read_bytes()
    assert (tmp_path / "out" / RECORD).is_file()


def test_another_shape_or_base_is_refused_by_the_name_of_the_setting(tiny_model, fitted, tmp_path):
    adapter, _ = fitted
    other = tiny_fits.plan(adapter=LoraArgs("lora", 8, 16, 0.0, "all-linear"))
    with pytest.raises(
        UsageError,
        match=r"sft.adapter = .*lora_A.weight is \(4, 64\) in that adapter, and \(8, 64\) in the adapter to be trained",
    ) as caught:
        adopt(tiny_model, adapter, tmp_path / "out", other)
    assert caught.value.hint.endswith("or set sft.adapter=null")
    with pytest.raises(ArtifactError, match=r"sft.adapter = .*: there is no adapter_model.safetensors in it"):
        adopt(tiny_model, tmp_path, tmp_path / "out")
    agreed = model_spec.load(tiny_model)
    model_spec.save(model_spec.ModelSpec(**{**{name: getattr(agreed, name) for name in agreed.__struct_fields__}, "weights_sha256": "0" * 64}), adapter)  # fmt: skip
    try:
        with pytest.raises(ArtifactError, match="it was trained with the weights 000000000000"):
            adopt(tiny_model, adapter, tmp_path / "out")
    finally:
        (adapter / model_spec.NAME).unlink()


@pytest.mark.parametrize("steps", [3, 20])
def test_a_local_fit_takes_the_given_steps_from_the_given_start(tiny_model, tmp_path, steps):
    plan = tiny_fits.plan(ema_decay=None, keep_last=True, evals_per_epoch=1, warmup_ratio=0.0, seed=2**32 - 1)
    job = replace(tiny_fits.sft_job(tiny_model, tmp_path, plan), work=tmp_path)
    fit_request.write_rows(tmp_path, job.train, job.validation)
    request = fit_request.build_request(job, tmp_path, sharded=False, collective_timeout_seconds=0)
    atomic_io.write_json(tmp_path / fit_request.REQUEST, request)
    atomic_io.write_json(tmp_path / row_counts.ROW_COUNTS, row_counts.RowCounts("federate: a", 75, 72, {"too_long": 3}))
    local_fit.init(tmp_path)
    start = exchange.read_weights(tmp_path / exchange.START)
    assert all((start[name] == 0).all() == ("lora_B" in name) for name in start)
    place = tmp_path / "round-1"
    place.mkdir()
    exchange.write_weights(place / exchange.START, start)
    atomic_io.write_json(place / "request.json", RoundRequest(1, 4, local_steps=steps))
    local_fit.fit(tmp_path, place)
    counts = atomic_io.read_json(place / exchange.COUNTS, ClientCounts)
    assert counts == ClientCounts(answers=72, steps=steps, rows=75, refused=3)
    update = exchange.read_weights(place / exchange.UPDATE)
    assert update.keys() == start.keys()
    assert any((update[name] != start[name]).any() for name in start)
