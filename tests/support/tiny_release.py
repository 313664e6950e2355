"""A whole release of the tiny model, for servers under test: the contract is computed here with plain torch."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

from tunectl.artifacts.records import Message
from tunectl.chat.model_spec import SpecialToken
from tunectl.chat.template import Template
from tunectl.chat.tokenizer import Tokenizer
from tunectl.packaging import serving_contract as contracts
from tunectl.packaging.serving_contract import (
    BaseModel,
    DecodingDefaults,
    ParityProbe,
    RenderFixture,
    ServingContract,
    Tolerance,
)
from tunectl.registry.release_manifest import BuildFacts
from tunectl.registry.release_store import ReleaseRegistry

STOP = 2
END = SpecialToken("<|im_end|>", STOP)


def tiny_adapter(base: Path, folder: Path, *, seed: int, scale: float = 0.3) -> None:
    """A random LoRA adapter that changes what the tiny model says."""
    import peft
    import torch
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    state = torch.random.get_rng_state()
    torch.manual_seed(seed)
    tuned = peft.get_peft_model(model, peft.LoraConfig(r=4, lora_alpha=8, target_modules="all-linear"))
    for name, weights in tuned.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(weights, std=scale)
    torch.random.set_rng_state(state)
    tuned.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)


def tiny_release(
    base: Path, folder: Path, *, seed: int = 1, engine: str = "transformers", project: str = "shop"
) -> Path:
    """Write a release folder, adapter apart, without its manifest."""
    shutil.copytree(base, folder / "model")
    (folder / "tokenizer").mkdir()
    for name in ("tokenizer.json", "chat_template.jinja"):
        shutil.copy(base / name, folder / "tokenizer" / name)
    tiny_adapter(base, folder / "adapter", seed=seed)
    source = (base / "chat_template.jinja").read_text()
    template, tokenizer = (
        Template(source, "<|im_start|>", "<|im_end|>", extra={"pad_token": "<|im_end|>"}),
        Tokenizer(base),
    )
    asked = [[Message("user", text)] for text in ("Hi", "What is it?", "naïve ☃", "Tell me more about Eagle 17")]
    prompts = [template.render(one, add_generation_prompt=True) for one in asked]
    ids = [tokenizer.ids(text) for text in prompts]
    probes = tiny_probes(base, folder / "adapter", tokenizer, asked, ids)
    weights = hashlib.sha256((base / "model.safetensors").read_bytes()).hexdigest()
    contracts.save(
        ServingContract(
            project=project,
            base=BaseModel("tiny", weights, weights, "bf16"),
            adapter_sha256=hashlib.sha256((folder / "adapter/adapter_model.safetensors").read_bytes()).hexdigest(),
            template_sha256=hashlib.sha256(source.encode()).hexdigest(),
            eot_token=END,
            bos=SpecialToken("<|im_start|>", 1),
            eos=END,
            pad=END,
            stop_token_ids=[STOP],
            context_length=512,
            engine=engine,
            layout="adapter",
            defaults=DecodingDefaults(0.0, 1.0, 16),
            system=None,
            tolerance=Tolerance(0.05, 0.95),
            fixtures=[RenderFixture(one, text, made) for one, text, made in zip(asked, prompts, ids, strict=True)],
            probes=probes,
        ),
        folder,
    )
    (folder / "MODEL_CARD.md").write_text("# tiny\n")
    (folder / "reference.jsonl").write_text("")
    return folder


def tiny_probes(
    base: Path, adapter: Path, tokenizer: Tokenizer, asked: list[list[Message]], ids: list[list[int]]
) -> list[ParityProbe]:
    """Greedy answers of the tuned and the base model; each differs in its tokens."""
    import peft
    import torch
    import transformers

    plain = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()
    based = [greedy(plain, one) for one in ids]
    tuned_model = peft.PeftModel.from_pretrained(plain, adapter).eval()
    tuned = [greedy(tuned_model, one) for one in ids]
    assert all(one[0] != other[0] for one, other in zip(based, tuned, strict=True))
    with tuned_model.disable_adapter():
        under = [likelihood(tuned_model, one, said) for one, (said, _) in zip(ids, tuned, strict=True)]
    return [
        ParityProbe(
            messages, prompt, said, tokenizer.text_of(said), logprobs,
            base_said, tokenizer.text_of(base_said), base_logprobs, told,
        )
        for messages, prompt, (said, logprobs), (base_said, base_logprobs), told
        in zip(asked, ids, tuned, based, under, strict=True)
    ]  # fmt: skip


def greedy(model, prompt: list[int], most: int = 12) -> tuple[list[int], list[float]]:
    """The likeliest tokens and their log-probabilities; a stop token is the last."""
    import torch

    given, said, logprobs = list(prompt), [], []
    for _ in range(most):
        with torch.inference_mode():
            told = model(torch.tensor([given])).logits[0, -1].float().log_softmax(-1)
        token = int(told.argmax())
        said.append(token)
        logprobs.append(float(told[token]))
        given.append(token)
        if token == STOP:
            break
    return said, logprobs


def likelihood(model, prompt: list[int], said: list[int]) -> list[float]:
    """Log-probabilities of given tokens."""
    import torch

    with torch.inference_mode():
        told = model(torch.tensor([[*prompt, *said]])).logits[0].float().log_softmax(-1)
    return [float(told[len(prompt) - 1 + place, token]) for place, token in enumerate(said)]


def stored(release: Path, store: Path) -> str:
    """Put a release folder into a store; its id."""
    contract = json.loads((release / "contract.json").read_text())
    return (
        ReleaseRegistry(store).add(release, BuildFacts(contract["project"], contract["engine"], contract["layout"])).id
    )


def prepare_store(folder: Path, given: Path | None) -> Path:
    """A release store in ``folder``: a copy of the one that was given, else one of a tiny model."""
    if given is not None:
        return Path(shutil.copytree(given, folder / "store"))
    from conftest import build_tiny_model

    build_tiny_model(folder / "tiny")
    return filled(folder / "tiny", folder)[0]


def filled(model: Path, folder: Path) -> tuple[Path, str, str]:
    """A store in ``folder`` with two releases, the first of them champion."""
    names = [stored(tiny_release(model, folder / f"r{seed}", seed=seed), folder / "store") for seed in (1, 2)]
    ReleaseRegistry(folder / "store").promote(names[0], author="test", message="first")
    return folder / "store", names[0], names[1]
