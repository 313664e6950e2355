"""Private fits: Opacus' epsilon, equality with plain SGD, what is kept through a kill, and what is refused."""

import math
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import tiny_fits

from tunectl.backends.modeling import batching, model_loader, training_checkpoint, training_run
from tunectl.backends.modeling.process_group import ProcessGroup
from tunectl.backends.trainers import private_run
from tunectl.backends.trainers.sft_trainer import SftTrainer
from tunectl.chat.loss_mask import TokenSpan
from tunectl.config.schema.sft import Privacy
from tunectl.core.errors import DataError, InfrastructureError, UsageError
from tunectl.training.prefix_sharing import PackedRow
from tunectl.training.train_args import LoraArgs

pytest.importorskip("opacus")
torch = pytest.importorskip("torch")


@pytest.fixture(autouse=True)
def fixed_noise(monkeypatch):
    monkeypatch.setenv("TUNECTL_TEST_NOISE_KEY", "0123456789abcdef")


def privacy(tmp_path: Path, **changes) -> Privacy:
    standard = {
        "unit": "source",
        "person_field": None,
        "min_units": 2,
        "target_epsilon": None,
        "target_delta": None,
        "noise_multiplier": 1.0,
        "max_grad_norm": 1.0,
        "expected_batch_size": 3,
        "accountant": "rdp",
        "noise_key_file": str(tmp_path / "key"),
        "noise_key_env": "TUNECTL_TEST_NOISE_KEY",
    }
    return Privacy(**standard | changes)


def plan(secret: Privacy, **changes):
    return tiny_fits.plan(
        max_grad_norm=None, privacy=secret, keep_last=True, **{"ema_decay": None, "epochs": 3, **changes}
    )


def unit_rows(units=8, each=2):
    """Rows of equal size, ``each`` of one unit."""
    return [
        replace(row, unit=f"person {number % units}")
        for number, row in enumerate(tiny_fits.rows(units * each, answers=2))
    ]


def fit(model: Path, tmp_path: Path, chosen, name="out", train=None, group=None):
    return SftTrainer(*([group] if group else [])).fit(
        chosen,
        model=model,
        train=unit_rows() if train is None else train,
        validation=tiny_fits.rows(4, start=30),
        out=tmp_path / name,
        work=tmp_path / f"work-{name}",
    )


@pytest.mark.parametrize("accountant", ["rdp", "prv"])
def test_epsilon_is_that_of_opacus(tiny_model, tmp_path, accountant):
    from opacus.accountants import create_accountant

    found = fit(
        tiny_model, tmp_path, plan(privacy(tmp_path, target_epsilon=4.0, noise_multiplier=None, accountant=accountant))
    )
    spent = found.privacy
    own = create_accountant(mechanism=accountant)
    for _ in range(found.steps):
        own.step(noise_multiplier=spent.noise_multiplier, sample_rate=3 / 8)
    assert spent.steps == found.steps == 8  # three passes, each of which draws 3 of 8 people a step
    assert spent.delta == pytest.approx(1 / 80)
    assert spent.epsilon == pytest.approx(own.get_epsilon(delta=1 / 80))
    assert 3.9 < spent.epsilon <= 4.0
    assert (spent.unit, spent.units, spent.sample_rate) == ("source", 8, 3 / 8)


def trained_weights(folder: Path):
    return pytest.importorskip("safetensors.torch").load_file(folder / "adapter_model.safetensors")


def test_without_noise_and_with_a_huge_clip_it_is_plain_sgd(tiny_model, tmp_path):
    """Everybody in each step: the mean of the people's gradients is the gradient of the mean, because all have equally many tokens."""
    common = {"optimizer": "sgd", "lr_scheduler": "constant", "warmup_ratio": 0.0, "epochs": 4, "learning_rate": 0.3}
    secret = privacy(tmp_path, noise_multiplier=0.0, max_grad_norm=1e9, expected_batch_size=8)
    private = fit(tiny_model, tmp_path, plan(secret, **common), "private")
    plain = fit(
        tiny_model,
        tmp_path,
        replace(plan(secret, **common), privacy=None, keep_last=False, batch_size=32, prefix_sharing=True),
        "plain",
    )
    assert private.steps == plain.steps == 4
    assert private.best_loss < private.first_loss - 0.05
    assert private.best_loss == pytest.approx(plain.best_loss, abs=1e-4)
    own, other = trained_weights(tmp_path / "private"), trained_weights(tmp_path / "plain")
    for name, weights in own.items():
        torch.testing.assert_close(weights, other[name], rtol=1e-3, atol=1e-5)
    assert private.privacy.epsilon is None


def test_a_person_with_many_rows_moves_the_weights_no_further_than_one_clip(tiny_model, tmp_path):
    """One step of plain SGD: the sum of what both units may add is at most two clips, however many rows the second has."""
    rows = [replace(row, unit="a" if number == 0 else "b") for number, row in enumerate(tiny_fits.rows(12))]
    secret = privacy(tmp_path, noise_multiplier=0.0, max_grad_norm=0.01, expected_batch_size=2)
    common = {"optimizer": "sgd", "lr_scheduler": "constant", "warmup_ratio": 0.0, "learning_rate": 0.5, "epochs": 1}
    started = plan(secret, **common)
    fit(tiny_model, tmp_path, started, train=rows)
    fit(tiny_model, tmp_path, replace(started, learning_rate=1e-30), "still", train=rows)
    after, before = trained_weights(tmp_path / "out"), trained_weights(tmp_path / "still")
    moved = sum(float((after[name] - before[name]).square().sum()) for name in after) ** 0.5
    assert 0 < moved <= 0.5 * 0.01 * 1.001  # learning rate x (2 clips / 2 units)


def test_the_last_weights_are_kept_and_the_stored_adapter_has_their_loss(tiny_model, tmp_path):
    found = fit(
        tiny_model,
        tmp_path,
        plan(privacy(tmp_path, noise_multiplier=20.0), evals_per_epoch=3, learning_rate=0.5, lr_scheduler="constant"),
    )
    measured = [point.validation_loss for point in found.history if point.validation_loss is not None]
    assert found.best_step == found.steps
    assert found.best_loss == measured[-1] > min(measured)  # the noise made it worse, and nothing was chosen
    model = model_loader.load(tiny_model, adapter=tmp_path / "out", profile=tiny_fits.PROFILE).model
    route = batching.forward_path(model, plain_head=True, autocast=False)
    batch = route.batch(tiny_fits.rows(4, start=30))
    with torch.no_grad():
        loss = float(batching.cross_entropy_loss(route, batch)) / float(batch.weights.sum())
    assert loss == pytest.approx(found.best_loss, abs=1e-4)


def test_the_same_seed_and_key_give_the_same_bytes_and_another_key_other_noise(tiny_model, tmp_path, monkeypatch):
    chosen = plan(privacy(tmp_path))
    monkeypatch.delenv("TUNECTL_TEST_NOISE_KEY")
    fit(tiny_model, tmp_path, chosen, "first")
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
    fit(tiny_model, tmp_path, chosen, "second")
    assert tiny_fits.digest(tmp_path / "first") == tiny_fits.digest(tmp_path / "second")
    fit(tiny_model, tmp_path, replace(chosen, seed=6), "seed")
    monkeypatch.setenv("TUNECTL_TEST_NOISE_KEY", "0123456789abcdef")
    fit(tiny_model, tmp_path, chosen, "other_key")
    assert len({str(tiny_fits.digest(tmp_path / name)) for name in ("first", "seed", "other_key")}) == 3


def first_noise(tmp_path, rows, chosen=None, base="a" * 64):
    """Noise of the first step; nothing is trained."""
    chosen = chosen or plan(privacy(tmp_path))
    run = private_run.build(chosen, chosen.privacy, rows, [], None, torch.nn.Linear(2, 2), base=base)
    dice = private_run._generator(run.key, "noise", 0, "cpu")
    return torch.randn(8, generator=dice).tolist()


def test_other_rows_settings_or_weights_have_other_noise(tmp_path):
    rows = unit_rows()
    usual = first_noise(tmp_path, rows)
    assert first_noise(tmp_path, unit_rows()) == usual
    elsewhere = privacy(tmp_path, noise_key_file=str(tmp_path / "another" / "key"))
    assert first_noise(tmp_path, rows, plan(elsewhere)) == usual
    others = [
        first_noise(tmp_path, rows[:-1]),
        first_noise(tmp_path, rows, base="b" * 64),
        first_noise(tmp_path, rows, plan(privacy(tmp_path), learning_rate=2e-2)),
        first_noise(tmp_path, rows, plan(privacy(tmp_path), seed=6)),
        first_noise(tmp_path, rows, plan(privacy(tmp_path, noise_multiplier=2.0))),
    ]
    assert len({tuple(noise) for noise in (usual, *others)}) == 6


CHILD = """
import sys
sys.path[:0] = [{tests!r}, {support!r}]
from pathlib import Path
import test_private_fit as t
root = Path({root!r})
t.fit(Path({model!r}), root, t.kill_plan(root))
"""


def kill_plan(tmp_path: Path):
    return plan(privacy(tmp_path), epochs=20, ema_decay=0.9)


def test_a_killed_fit_ends_with_the_same_bytes_and_the_same_epsilon(tiny_model, tmp_path):
    whole = fit(tiny_model, tmp_path, kill_plan(tmp_path), "whole")
    tests = Path(__file__).parent
    text = CHILD.format(
        tests=str(tests), support=str(tests.parent / "support"), root=str(tmp_path), model=str(tiny_model)
    )
    process = subprocess.Popen([sys.executable, "-c", text], env=dict(os.environ), stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 120
    while not list((tmp_path / "work-out").glob(f"checkpoint-*/{training_checkpoint.MARKER}")):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < until
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stderr.close()
    checkpoint = training_checkpoint.latest_checkpoint(tmp_path / "work-out")
    state = training_checkpoint.TrainerState.load(checkpoint)
    assert state.accountant == [(1.0, 3 / 8, int(checkpoint.name.rpartition("-")[2]))]
    resumed = fit(tiny_model, tmp_path, kill_plan(tmp_path))
    assert tiny_fits.digest(tmp_path / "out") == tiny_fits.digest(tmp_path / "whole")
    assert resumed.privacy == whole.privacy


def test_a_step_that_draws_nobody_is_noise_and_is_counted(tiny_model, tmp_path):
    found = fit(tiny_model, tmp_path, plan(privacy(tmp_path, expected_batch_size=0.05), epochs=0.1))
    assert found.steps == found.privacy.steps == 16  # each draws one of 160 people
    assert found.tokens < 200  # hardly anybody was read


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"min_units": 9}, DataError, "sft.privacy: the training rows are of 8 sources, and sft.privacy.min_units is 9"),
        ({"expected_batch_size": 9}, UsageError, "sft.privacy.expected_batch_size is 9, but the training rows are of 8 units (source)"),
        ({"target_delta": 0.2}, UsageError, "sft.privacy.target_delta is 0.2; with 8 units it must be below 1 / 8, or it does not protect a single one"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_before_a_model_is_loaded(tmp_path, changes, error, message):
    with pytest.raises(error) as caught:
        fit(tmp_path / "no model", tmp_path, plan(privacy(tmp_path, **changes)))
    assert caught.value.message == message


def test_an_epsilon_out_of_reach_is_named(tiny_model, tmp_path):
    with pytest.raises(UsageError) as caught:
        fit(
            tiny_model, tmp_path, plan(privacy(tmp_path, target_epsilon=1e-3, target_delta=1e-9, noise_multiplier=None))
        )
    assert caught.value.message.startswith(
        "sft.privacy.target_epsilon = 0.001 cannot be reached in 8 steps that draw 37.50% of the units"
    )


def test_several_processes_and_a_short_key_are_refused(tmp_path):
    with pytest.raises(UsageError) as caught:
        fit(tmp_path, tmp_path, plan(privacy(tmp_path)), group=ProcessGroup(rank=0, world_size=2))
    assert caught.value.message == "sft.privacy works in one process only, but launch starts 2"
    (tmp_path / "key").write_text("short")
    with pytest.raises(InfrastructureError) as short:
        private_run.load_noise_key(privacy(tmp_path), {})
    assert (
        short.value.message
        == f"{tmp_path / 'key'} holds 5 bytes; at least 16 are needed, or the noise could be guessed"
    )
    (tmp_path / "key").write_text("0" * 64)
    with pytest.raises(
        InfrastructureError, match="1 different bytes; at least 6 are needed, or the noise could be guessed"
    ):
        private_run.load_noise_key(privacy(tmp_path), {})


def test_a_plain_fit_never_imports_opacus(tiny_model, tmp_path):
    assert issubclass(private_run.PrivateRun, training_run.TrainingRun)
    code = "import sys; import tunectl.backends.trainers.sft_trainer; assert 'opacus' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, env=dict(os.environ))


SECRETS = {f"carrier {number}": [10 + (number * 7 + place * 5) % 40 for place in range(4)] for number in range(6)}
"""Four of 40 tokens each, which one person alone has: the planted secrets of Carlini et al. (arXiv 1802.08232)."""
CANDIDATES = 512


def secret_row(number: int, tokens: list[int], unit: str = "") -> PackedRow:
    prompt = TokenSpan([1, 51 + number, 41], [False] * 3)
    return PackedRow(prompt, (TokenSpan([*tokens, 2], [True] * 5),), 1.0, unit)


def exposure(model: Path, adapter: Path) -> float:
    """Bits by which the secrets rank above others of their kind, on average: 0 to 9, 1.4 for a model that has never seen them."""
    loaded = model_loader.load(model, adapter=adapter, profile=tiny_fits.PROFILE).model
    dice, bits = random.Random(3), []
    for number, own in enumerate(SECRETS.values()):
        others = [[dice.randrange(10, 50) for _ in range(4)] for _ in range(CANDIDATES - 1)]
        prompt = secret_row(number, own).prompt.ids
        ids = torch.tensor([[*prompt, *tokens, 2] for tokens in (own, *others)])
        with torch.no_grad():
            logits = loaded(input_ids=ids).logits[:, len(prompt) - 1 : -1].log_softmax(dim=-1)
        scores = logits.gather(2, ids[:, len(prompt) :, None])[..., 0].sum(dim=1)
        bits.append(math.log2(CANDIDATES) - math.log2(int((scores >= scores[0]).sum())))
    return sum(bits) / len(bits)


@pytest.mark.slow
def test_planted_secrets_are_less_exposed(tiny_model, tmp_path):
    rows = unit_rows(units=26, each=2)
    rows += [secret_row(number, tokens, unit) for number, (unit, tokens) in enumerate(SECRETS.items())] * 6
    secret = privacy(tmp_path, target_epsilon=8.0, noise_multiplier=None, max_grad_norm=1.0, expected_batch_size=8)
    adapter = LoraArgs("lora", 16, 32, 0.0, "all-linear")
    chosen = plan(secret, epochs=20, learning_rate=2e-2, evals_per_epoch=1, adapter=adapter, batch_size=8)
    private = fit(tiny_model, tmp_path, chosen, "private", train=rows)
    public = replace(chosen, privacy=None, max_grad_norm=1.0)
    plain = fit(tiny_model, tmp_path, public, "plain", train=rows)
    unseen = fit(tiny_model, tmp_path, public, "unseen", train=rows[:52])
    found = {name: exposure(tiny_model, tmp_path / name) for name in ("plain", "private", "unseen")}
    print("exposure in bits of 9:", found, "epsilon", private.privacy.epsilon, private.best_loss, plain.best_loss)
    assert private.privacy.epsilon <= 8
    assert private.best_loss < private.first_loss - 0.3  # it did learn what the people have in common
    assert unseen.best_loss < unseen.first_loss
    assert found["plain"] > 7.5  # 8.3 to 9.0 with four seeds, of 9; without max_grad_norm 4.8 to 7.2
    assert found["private"] < 3  # 2.0; secrets that nobody has shown to the model: 0.9
