"""Fixtures that several rooms share."""

import gc
import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest
import tiers
import two_workers
from postgres_server import Postgres, run_postgres

os.environ |= {"HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1", "BENTOML_DO_NOT_TRACK": "True", "DVC_NO_ANALYTICS": "1"}
"""Before any library reads them: a test asks no hub, and tells nobody that it ran."""
hypothesis.settings.register_profile("untimed", hypothesis.settings(), deadline=None)  # no test measures time
hypothesis.settings.load_profile("untimed")

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""A template without generation marks and without a default system text."""


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama of 2 layers with a byte-level tokenizer, in the layout of ``artifacts/model``.

    It knows 256 bytes and three special tokens; pad is the end of turn, as in the embedded model. Read only.
    """
    folder = tmp_path_factory.mktemp("tiny") / "model"
    build_tiny_model(folder)
    return folder


@pytest.fixture(scope="session")
def build_model() -> Callable[..., None]:
    """``build_tiny_model``, for tests that need a model of their own."""
    return build_tiny_model


def build_tiny_model(folder: Path, *, template: str | None = CHATML, head_dim: int = 8, seed: int = 0) -> None:
    """Write the tiny model into ``folder``; ``template`` None leaves chat template and contract out (a base model)."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    from safetensors.torch import save_file

    folder.mkdir(parents=True)
    tokenizer = _byte_tokenizer()
    tokenizer.save(str(folder / "tokenizer.json"))
    special = {
        "bos_token": "<|im_start|>",
        "eos_token": "<|im_end|>",
        "pad_token": "<|im_end|>",
        "unk_token": "<|endoftext|>",
    }
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 512, **special}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    config = transformers.LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=head_dim,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
    )
    state = torch.random.get_rng_state()
    torch.manual_seed(seed)
    model = transformers.LlamaForCausalLM(config)
    with torch.no_grad():
        model.model.embed_tokens.weight.mul_(15)  # the frozen output layer is the same: small weights could say nothing
    torch.random.set_rng_state(state)
    config.architectures = ["LlamaForCausalLM"]
    config.save_pretrained(folder)
    own = {name: weights for name, weights in model.state_dict().items() if name != "lm_head.weight"}  # tied
    save_file(own, str(folder / "model.safetensors"), metadata={"format": "pt"})
    if template is not None:
        (folder / "chat_template.jinja").write_text(template)
        _write_contract(folder, template, sum(weights.numel() for weights in model.parameters()))


def _byte_tokenizer():
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    vocabulary = {text: number for number, text in enumerate([*special, *letters])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(special)
    return tokenizer


def _write_contract(folder: Path, template: str, parameters: int) -> None:
    from tunectl.chat import model_spec

    weights = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    end = model_spec.SpecialToken("<|im_end|>", 2)
    model_spec.save(
        model_spec.ModelSpec(
            base="tiny",
            revision=weights,
            weights_sha256=weights,
            template_sha256=hashlib.sha256(template.encode()).hexdigest(),
            eot_token=end,
            bos=model_spec.SpecialToken("<|im_start|>", 1),
            eos=end,
            pad=end,
            system=None,
            license=None,
            parameters=parameters,
            context=512,
        ),
        folder,
    )


@pytest.fixture(scope="session")
def releases(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    """A store with two releases of the tiny model, the first of them champion. Copy it before changing anything."""
    from tiny_release import filled

    return filled(tiny_model, tmp_path_factory.mktemp("releases"))


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """The one PostgreSQL server of a session. A test names a database of its own in it, and leaves the server running."""
    with run_postgres() as server:
        if server is None:
            pytest.skip("PostgreSQL is not installed (Debian: postgresql)")
        yield server


@pytest.fixture(autouse=True)
def unconfigured_log() -> None:
    """Undo what a command in an earlier test of this process set: it would keep records from ``caplog``."""
    logger = logging.getLogger("tunectl")
    logger.handlers.clear()
    logger.setLevel(logging.NOTSET)
    logger.propagate = True


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """With ``-n``: who gets what."""
    return two_workers.scheduler(config, log)


@pytest.hookimpl(tryfirst=True)  # before -m looks at markers
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark the tier of each test. With ``-n``: the longest first; without it the order stays."""
    for item in items:
        tier = tiers.find_tier(item.nodeid, slow=item.get_closest_marker("slow") is not None)
        if tier is not None:
            item.add_marker(tier)
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: two_workers.rank(item.nodeid))


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """Let the garbage collector pass over what imports have made: with torch and TRL these are millions of objects."""
    gc.collect()
    gc.freeze()


ALLOWED_SKIPS = (
    "needs a GPU",
    "no Docker engine can start",
    "vLLM's CPU build needs AVX512",
)
"""Beginnings of the only reasons for which a test may be skipped where TUNECTL_CI is set."""


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Note skips for any other reason; xfail reports look like skips and are left alone."""
    if report.skipped and not hasattr(report, "wasxfail"):
        reason = str(report.longrepr[2]).removeprefix("Skipped: ")
        if not reason.startswith(ALLOWED_SKIPS):
            _wrong_skips.append(f"{report.nodeid}: {reason}")


def pytest_collectreport(report: pytest.CollectReport) -> None:
    """The same for whole files, as by ``importorskip`` at their top."""
    if report.skipped:
        _wrong_skips.append(f"{report.nodeid}: {report.longrepr}")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail a run in the gate that skipped what it should have tested."""
    if os.environ.get("TUNECTL_CI") and _wrong_skips and session.exitstatus == 0:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say which skips were not allowed."""
    if os.environ.get("TUNECTL_CI") and _wrong_skips:
        terminalreporter.section("skips that are not allowed here", red=True, bold=True)
        for line in _wrong_skips:
            terminalreporter.line(line)


_wrong_skips: list[str] = []
