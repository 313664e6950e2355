"""Log-probabilities of answers: equal to those of whole logits, gradients with them, however prompts are shared."""

from contextlib import contextmanager

import pytest

from tunectl.backends.modeling import batching, logprobs, model_loader
from tunectl.chat.loss_mask import TokenSpan
from tunectl.config.schema.hardware import HardwareProfile
from tunectl.training.prefix_sharing import PackedRow

torch = pytest.importorskip("torch")
MACHINE = HardwareProfile(
    device="cpu", threads=1, dtype="float32", train_batch_tokens=128, generate_batch=4, gradient_checkpointing=False
)


def row(seed, *lengths, trained=None):
    random = torch.Generator().manual_seed(seed)

    def ids(size):
        return torch.randint(10, 200, (size,), generator=random).tolist()

    branches = tuple(TokenSpan(ids(size), trained or [True] * size) for size in lengths)
    return PackedRow(TokenSpan(ids(5), [False] * 5), branches, 1.0)


ROWS = [row(1, 4, 2, 7), row(2, 3), row(3, 5, trained=[True, True, False, False, True])]


@pytest.fixture
def model(tiny_model):
    """A model whose word vectors have gradients; the output layer is tied, so it is given a copy."""
    found = model_loader.load(tiny_model, adapter=None, profile=MACHINE).model
    found.requires_grad_(False)
    found.lm_head.weight = torch.nn.Parameter(found.lm_head.weight.clone(), requires_grad=False)
    found.get_input_embeddings().weight.requires_grad_()
    return found


def plain(model, temperature):
    """Each answer by itself, through whole logits: its tokens that are learned, one list an answer."""
    lines = []
    for some in ROWS:
        for branch in some.branches:
            ids = torch.tensor([some.prompt.ids + branch.ids])
            nats = (model(input_ids=ids).logits[0] / temperature).log_softmax(-1)
            places = [len(some.prompt.ids) + at for at, wanted in enumerate(branch.trained) if wanted]
            lines.append(torch.stack([nats[place - 1, ids[0, place]] for place in places]))
    return lines


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("plain_head", [True, False])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_values_and_gradients_are_those_of_whole_logits(model, monkeypatch, shared, plain_head, temperature):
    monkeypatch.setattr(logprobs, "SLICE", 4)  # several slices
    vectors = model.get_input_embeddings().weight
    lines = plain(model, temperature)
    weights = [0.5, -1.0, 2.0, 1.0, -0.3]  # unlike ones, as losses give them
    sum(weight * line.sum() ** 2 for weight, line in zip(weights, lines, strict=True)).backward()
    wanted, vectors.grad = vectors.grad, None

    route = batching.forward_path(model, plain_head=plain_head, autocast=False)
    found = logprobs.answer_logps(route, ROWS, shared=shared, temperature=temperature)
    assert found.mask.sum(dim=1).tolist() == [4, 2, 7, 3, 3]
    assert not found.values[~found.mask].any()
    for own, mask, line in zip(found.values, found.mask, lines, strict=True):
        torch.testing.assert_close(own[mask], line, rtol=1e-4, atol=1e-4)
    (torch.tensor(weights) * found.values.sum(dim=1) ** 2).sum().backward()
    torch.testing.assert_close(vectors.grad, wanted, rtol=1e-3, atol=1e-3)


def test_without_gradients_nothing_is_kept(model):
    route = batching.forward_path(model, plain_head=True, autocast=False)
    with torch.no_grad():
        quiet = logprobs.answer_logps(route, ROWS).values
    loud = logprobs.answer_logps(route, ROWS).values
    assert not quiet.requires_grad
    assert loud.requires_grad
    torch.testing.assert_close(quiet, loud.detach())


@pytest.mark.parametrize("plain_head", [True, False])
def test_how_far_two_sets_of_weights_are_apart(model, monkeypatch, plain_head):
    monkeypatch.setattr(logprobs, "SLICE", 4)
    layer = model.model.layers[0].mlp.down_proj.weight
    before, other = layer.data.clone(), layer.data + torch.randn(layer.shape, generator=torch.manual_seed(1))

    @contextmanager
    def second():
        layer.data = other
        yield
        layer.data = before

    def whole():
        """The chances of all tokens where one is learned, answer by answer."""
        lines = []
        for some in ROWS:
            for branch in some.branches:
                ids = torch.tensor([some.prompt.ids + branch.ids])
                nats = model(input_ids=ids).logits[0].log_softmax(-1)
                places = [len(some.prompt.ids) + at for at, wanted in enumerate(branch.trained) if wanted]
                lines += [(nats[place - 1], int(ids[0, place])) for place in places]
        return lines

    route = batching.forward_path(model, plain_head=plain_head, autocast=False)
    found = logprobs.kl_between(route, route.batch(ROWS), second)
    assert not found.kl.requires_grad
    with torch.no_grad():
        own = whole()
        with second():
            its = whole()
    ratios = [float(one[token] - another[token]) for (one, token), (another, _) in zip(own, its, strict=True)]
    kls = [float((one.exp() * (one - another)).sum()) for (one, _), (another, _) in zip(own, its, strict=True)]
    assert found.ratio.tolist() == pytest.approx(ratios, abs=1e-4)
    assert found.kl.tolist() == pytest.approx(kls, abs=1e-4)
    assert min(kls) > 0
    assert min(ratios) < 0, "a ratio may be negative, a divergence may not: this is not the same thing"
