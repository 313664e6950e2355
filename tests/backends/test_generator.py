"""Batched generation and scoring against transformers' own, row by row."""

import copy
import math

import pytest

from tunectl.backends.modeling import decoding, kv_cache, model_loader, short_attention
from tunectl.backends.modeling import generator as modeling_generator
from tunectl.config.schema.evaluate import BeamSearch, Greedy, Sampling
from tunectl.config.schema.hardware import HardwareProfile
from tunectl.core import progress
from tunectl.core.errors import InfrastructureError, UsageError
from tunectl.evaluation.protocols import GenerationPrompt

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
sdpa_attention = pytest.importorskip("transformers.integrations.sdpa_attention")
PROFILE = HardwareProfile(
    device="cpu", threads=2, dtype="float32", train_batch_tokens=64, generate_batch=4, gradient_checkpointing=False
)
GREEDY = Greedy(method="greedy", max_new_tokens=12)
PROMPTS = [
    "<|im_start|>user\nA<|im_end|>\n",
    "Inman Park bakery, open daily",
    "x",
    "A rather longer prompt than others",
]


@pytest.fixture(scope="module")
def loaded(tiny_model):
    found = model_loader.load(tiny_model, adapter=None, profile=PROFILE)
    with torch.no_grad():
        # a random model repeats one letter for ever: make it restless, and let it end its turn at times
        torch.manual_seed(3)
        for weights in found.model.parameters():
            weights.mul_(4.0)
    return found


def generator(loaded, batch=4):
    return modeling_generator.HfGenerator(loaded.model, loaded.tokenizer, batch=batch)


def ask(loaded, prompts, how=GREEDY, *, batch=4, seed=1):
    return generator(loaded, batch).answer(
        [GenerationPrompt(prompt) for prompt in prompts], how, seed=seed, label="test"
    )


def alone(loaded, prompt, **options):
    """What transformers' generate gives for one prompt."""
    ids = torch.tensor([loaded.tokenizer(prompt, add_special_tokens=False)["input_ids"]])
    written = loaded.model.generate(ids, max_new_tokens=12, pad_token_id=2, eos_token_id=2, **options)[
        0, ids.shape[1] :
    ]
    return loaded.tokenizer.decode(
        [token for token in written.tolist() if token != 2], skip_special_tokens=True
    ).strip()


def test_greedy_answers_are_those_of_transformers(loaded):
    found = ask(loaded, PROMPTS)
    assert [reply.text for reply in found] == [alone(loaded, prompt, do_sample=False) for prompt in PROMPTS]
    assert len({reply.text for reply in found}) > 1


def test_the_batch_makes_no_difference(loaded):
    texts = [f"{prompt} {number}" for prompt in PROMPTS for number in range(4)]
    one, four, all_ = (ask(loaded, texts, batch=batch) for batch in (1, 4, 16))
    assert [r.text for r in one] == [r.text for r in four] == [r.text for r in all_]
    assert [r.prompt_tokens for r in one] == generator(loaded).lengths(texts)


def test_a_shared_beginning_makes_no_difference(loaded):
    start = "The same long system text and its worked examples stand before every input. " * 2
    texts = [start + prompt for prompt in PROMPTS]
    assert [r.text for r in ask(loaded, texts)] == [alone(loaded, text, do_sample=False) for text in texts]


def test_equal_prompts_share_all_but_their_last_token(loaded):
    texts = ["A prompt of more than two dozen letters"] * 3
    assert len({r.text for r in ask(loaded, texts)}) == 1


def test_equal_prompts_are_read_once_and_answered_as_if_each_were(loaded, monkeypatch):
    texts = [PROMPTS[0], PROMPTS[1], PROMPTS[0], PROMPTS[0]]
    read = []
    forward = loaded.model.forward
    monkeypatch.setattr(
        loaded.model, "forward", lambda **inputs: read.append(tuple(inputs["input_ids"].shape)) or forward(**inputs)
    )
    found = [reply.text for reply in ask(loaded, texts)]
    assert read[0][0] == 2
    assert found == [alone(loaded, text, do_sample=False) for text in texts]


def test_the_output_layer_reads_whole_rows_of_memory(loaded):
    """Of anything else torch makes a batched product, for which it copies the layer once a row."""
    given = []
    layer = loaded.model.get_output_embeddings()
    hook = layer.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
    try:
        ask(loaded, PROMPTS)
    finally:
        hook.remove()
    assert given[0].shape[:2] == (4, 1)
    assert all(one.is_contiguous() for one in given)


def test_beams_with_short_attention_are_those_of_transformers(loaded):
    short = copy.deepcopy(loaded.model)
    short_attention.patch_attention(short)
    how = BeamSearch(method="beams", beams=3, length_penalty=1.0, max_new_tokens=12)
    requests = [GenerationPrompt(prompt, ("One answer.",)) for prompt in PROMPTS]
    usual = generator(loaded).answer(requests, how, seed=1, label="test")
    found = modeling_generator.HfGenerator(short, loaded.tokenizer, batch=4).answer(requests, how, seed=1, label="test")
    assert [one.text for one in found] == [one.text for one in usual]
    assert [one.references[0].nats for one in found] == pytest.approx(
        [one.references[0].nats for one in usual], rel=1e-4
    )


@pytest.mark.parametrize("start", ["", "The same long system text and its worked examples stand before every input. "])
def test_short_attention_answers_and_scores_as_transformers_own(loaded, start, monkeypatch):
    requests = [GenerationPrompt(start + prompt, ("One answer.", "Another, longer answer.")) for prompt in PROMPTS]
    short = copy.deepcopy(loaded.model)
    short_attention.patch_attention(short)
    usual = generator(loaded).answer(requests, GREEDY, seed=1, label="test")
    own = sdpa_attention.sdpa_attention_forward
    read = []
    monkeypatch.setattr(
        sdpa_attention,
        "sdpa_attention_forward",
        lambda module, query, *rest, **more: read.append(query.shape[2]) or own(module, query, *rest, **more),
    )
    found = modeling_generator.HfGenerator(short, loaded.tokenizer, batch=4).answer(
        requests, GREEDY, seed=1, label="test"
    )
    assert [one.text for one in found] == [one.text for one in usual]
    for mine, theirs in zip(found, usual, strict=True):
        assert [one.nats for one in mine.references] == pytest.approx([one.nats for one in theirs.references], rel=1e-4)
    long = [new for new in read if new > 1]
    assert len(long) == (2 if start else 0), "only what all prompts begin with, which needs no mask, was left to sdpa"


@pytest.mark.parametrize("top_p", [1.0, 0.9])
def test_tokens_are_drawn_as_often_as_their_chance_says(loaded, top_p):
    decoder = decoding.Decoder(loaded.model, ())
    how = Sampling(method="sampling", max_new_tokens=1, temperature=2.0, top_p=top_p)
    chances = [0.5, 0.0, 0.3, 0.15, 0.05]
    logits = torch.tensor(chances).log().mul(2.0).expand(20_000, -1)
    tokens, said = decoder._pick(logits, how, torch.Generator().manual_seed(3))
    counts = torch.bincount(tokens, minlength=5).double()
    kept = torch.tensor(chances if top_p == 1 else [0.5, 0.0, 0.3, 0.15, 0.0]).double()
    expected = 20_000 * kept / kept.sum()
    assert counts[expected == 0].sum() == 0
    distance = ((counts - expected).square() / expected)[expected > 0].sum()
    assert distance < 16, "chi-square with at most 3 degrees of freedom: 1 in 1,000"
    assert torch.allclose(said, torch.tensor(chances)[tokens])


@pytest.mark.parametrize("top_p", [1.0, 0.9])
def test_chances_that_are_no_numbers_are_refused(loaded, top_p):
    how = Sampling(method="sampling", max_new_tokens=1, temperature=1.0, top_p=top_p)
    logits = torch.tensor([[0.0, 1.0], [0.0, math.nan]])
    with pytest.raises(UsageError, match="probabilities are NaN or infinite"):
        decoding.Decoder(loaded.model, ())._pick(logits, how, torch.Generator().manual_seed(3))


def test_rows_that_end_early_leave_and_are_counted(loaded):
    ids = torch.tensor([loaded.tokenizer(PROMPTS[1], add_special_tokens=False)["input_ids"]])
    written = loaded.model.generate(ids, max_new_tokens=12, do_sample=False, pad_token_id=2, eos_token_id=2)
    stop = written[0, ids.shape[1] + 3].item()
    before = loaded.model.generation_config.eos_token_id
    loaded.model.generation_config.eos_token_id = [stop]
    try:
        found = ask(loaded, PROMPTS)
    finally:
        loaded.model.generation_config.eos_token_id = before
    assert found[1].finished
    assert found[1].tokens <= 4
    whole = ask(loaded, PROMPTS)
    for early, late in zip(found, whole, strict=True):
        assert late.text.startswith(early.text)
        assert early.finished or early.tokens == 12


def test_beams_are_those_of_transformers(loaded):
    how = BeamSearch(method="beams", max_new_tokens=12, beams=3, length_penalty=1.0)
    expected = [alone(loaded, prompt, num_beams=3, do_sample=False) for prompt in PROMPTS]
    assert [reply.text for reply in ask(loaded, PROMPTS, how, batch=6)] == expected


def test_sampling_follows_the_seed(loaded):
    how = Sampling(method="sampling", max_new_tokens=12, temperature=1.5, top_p=0.95)
    first, again, other = (ask(loaded, PROMPTS, how, seed=seed) for seed in (1, 1, 2))
    assert [r.text for r in first] == [r.text for r in again]
    assert [r.text for r in first] != [r.text for r in other]


def test_a_tiny_nucleus_is_greedy(loaded):
    how = Sampling(method="sampling", max_new_tokens=12, temperature=1.0, top_p=1e-9)
    assert [r.text for r in ask(loaded, PROMPTS, how)] == [r.text for r in ask(loaded, PROMPTS)]


def direct(loaded, prompt, answer):
    """Log-probability of an answer by one plain forward pass."""
    encode = lambda text: loaded.tokenizer(text, add_special_tokens=False)["input_ids"]
    before, after = encode(prompt), encode(answer)
    with torch.no_grad():
        logits = loaded.model(torch.tensor([before + after])).logits[0].log_softmax(-1)
    return sum(logits[len(before) + place - 1, token].item() for place, token in enumerate(after)), len(after)


@pytest.mark.parametrize("shared", ["", "a long beginning that all of the prompts have in common "])
@pytest.mark.parametrize("how", [GREEDY, BeamSearch(method="beams", max_new_tokens=4, beams=2, length_penalty=1.0)])
def test_likelihood_of_references_is_that_of_a_plain_pass(loaded, shared, how, monkeypatch):
    monkeypatch.setattr(modeling_generator, "SCORED_TOKENS", 8)  # several passes an answer
    references = [("one<|im_end|>", "another answer<|im_end|>"), (), ("z",), ("a much longer reference answer.",)]
    texts = [shared + prompt for prompt in PROMPTS]
    requests = [GenerationPrompt(text, given) for text, given in zip(texts, references, strict=True)]
    found = generator(loaded).answer(requests, how, seed=1, label="test")
    for text, given, reply in zip(texts, references, found, strict=True):
        expected = [direct(loaded, text, answer) for answer in given]
        assert [score.tokens for score in reply.references] == [tokens for _, tokens in expected]
        assert [score.nats for score in reply.references] == pytest.approx([nats for nats, _ in expected], abs=1e-3)


def test_scoring_leaves_the_answers_alone(loaded):
    requests = [GenerationPrompt(prompt, ("some reference",)) for prompt in PROMPTS]
    found = generator(loaded).answer(requests, GREEDY, seed=1, label="test")
    assert [r.text for r in found] == [r.text for r in ask(loaded, PROMPTS)]


def test_time_is_shared_out_among_the_answers(loaded):
    import time

    started = time.perf_counter()
    found = ask(loaded, PROMPTS)
    wall = time.perf_counter() - started
    assert all(reply.seconds > 0 for reply in found)
    assert sum(reply.seconds for reply in found) <= wall


def test_nothing_asked_is_nothing_answered(loaded):
    assert ask(loaded, []) == []


def test_context_comes_from_the_model(loaded):
    assert generator(loaded).context == 512


def test_an_adapter_is_merged_before_generating(tiny_model, tmp_path):
    peft = pytest.importorskip("peft")
    base = model_loader.load(tiny_model, adapter=None, profile=PROFILE)
    plain = [r.text for r in ask(base, PROMPTS)]
    torch.manual_seed(0)
    lora = peft.get_peft_model(base.model, peft.LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False))
    lora.save_pretrained(tmp_path)
    tuned = modeling_generator.model_loader(PROFILE)(tiny_model, tmp_path)
    texts = [
        r.text for r in tuned.answer([GenerationPrompt(prompt) for prompt in PROMPTS], GREEDY, seed=1, label="test")
    ]
    with torch.no_grad():
        unmerged = modeling_generator.HfGenerator(lora, base.tokenizer, batch=4)
    expected = [
        r.text for r in unmerged.answer([GenerationPrompt(prompt) for prompt in PROMPTS], GREEDY, seed=1, label="x")
    ]
    assert texts == expected
    assert texts != plain
    tuned.close()


def test_progress_is_reported(loaded, monkeypatch):
    seen = []

    class Bars:
        def bar(self, label, total):
            from contextlib import contextmanager

            @contextmanager
            def opened():
                seen.append((label, total))
                yield type("B", (), {"advance": lambda self, steps=1, **figures: seen.append((steps, figures))})()

            return opened()

    monkeypatch.setattr(progress, "_renderer", [Bars()])
    ask(loaded, PROMPTS, batch=2)
    assert seen[0] == ("test", 4)
    assert [step for step, _ in seen[1:]] == [2, 2]
    assert "tokens/s" in seen[1][1]


def test_the_roomy_cache_equals_transformers_own(loaded):
    ours, theirs = kv_cache.new_cache(loaded.model.config), transformers.DynamicCache(config=loaded.model.config)
    torch.manual_seed(0)
    for length in (5, 1, 1, 70, 1):
        keys, values = torch.randn(3, 2, length, 8), torch.randn(3, 2, length, 8)
        for found, expected in zip(ours.update(keys, values, 0), theirs.update(keys, values, 0), strict=True):
            assert torch.equal(found, expected)
    fork = kv_cache.clone(ours)
    fork.update(torch.zeros(3, 2, 1, 8), torch.zeros(3, 2, 1, 8), 0)
    keep = torch.tensor([2, 0])
    ours.batch_select_indices(keep)
    theirs.batch_select_indices(keep)
    keys, values = torch.randn(2, 2, 1, 8), torch.randn(2, 2, 1, 8)
    for found, expected in zip(ours.update(keys, values, 0), theirs.update(keys, values, 0), strict=True):
        assert torch.equal(found, expected)
    assert fork.get_seq_length() == 79


@pytest.mark.parametrize("error", [RuntimeError("[enforce] DefaultCPUAllocator: can't allocate memory"), MemoryError()])
def test_too_little_memory_says_what_to_lower(loaded, monkeypatch, error):
    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(decoding.Decoder, "prefill", fail)
    with pytest.raises(InfrastructureError) as caught:
        ask(loaded, PROMPTS)
    assert caught.value.message == "out of memory while 4 answers were generated together"
    assert caught.value.hint == (
        "lower hardware.generate_batch (now 4), evaluate.prompts.shots or evaluate.decoding.max_new_tokens"
    )


def test_another_failure_of_torch_stays_what_it_is(loaded, monkeypatch):
    def fail(*args, **kwargs):
        raise RuntimeError("shapes differ")

    monkeypatch.setattr(decoding.Decoder, "prefill", fail)
    with pytest.raises(RuntimeError, match="shapes differ"):
        ask(loaded, PROMPTS)
