"""FedAvg and the mean of products, on adapters of small matrices."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunectl.federated import averaging

A, B, M = "layer.lora_A.weight", "layer.lora_B.weight", "layer.lora_magnitude_vector"


def adapter(seed: int, *, rank: int = 3, inside: int = 7, out: int = 5) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    shapes = {A: (rank, inside), B: (out, rank), M: (out,)}
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def product(weights) -> np.ndarray:
    return weights[B].astype(np.float64) @ weights[A].astype(np.float64)


def test_fedavg_is_the_weighted_mean_of_each_tensor():
    first, second = adapter(1), adapter(2)
    found = averaging.average_weights([first, second], [300, 100])
    for name in first:
        np.testing.assert_allclose(found[name], 0.75 * first[name] + 0.25 * second[name], rtol=1e-5, atol=1e-6)
        assert found[name].dtype == np.float32


@pytest.mark.parametrize("average", [averaging.average_weights, averaging.average_products])
def test_one_client_keeps_its_product(average):
    own = adapter(1)
    np.testing.assert_allclose(product(average([own], [7])), product(own), atol=1e-5)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 10_000), min_size=2, max_size=4), st.integers(1, 4))
def test_the_mean_of_products_is_the_best_of_its_rank(seeds, rank):
    updates = [adapter(seed, rank=rank) for seed in seeds]
    shares = [1 + seed % 5 for seed in seeds]
    mean = sum(share * product(update) for share, update in zip(shares, updates, strict=True)) / sum(shares)
    found = averaging.average_products(updates, shares)
    values = np.linalg.svd(mean, compute_uv=False)
    left_out = np.sqrt((values[rank:] ** 2).sum())  # Eckart and Young
    assert np.linalg.norm(product(found) - mean) == pytest.approx(left_out, abs=1e-4)
    fedavg = averaging.average_weights(updates, shares)
    assert np.linalg.norm(product(found) - mean) <= np.linalg.norm(product(fedavg) - mean) + 1e-4
    np.testing.assert_allclose(found[M], fedavg[M])


def test_an_adapter_that_has_learned_nothing_stays_able_to_learn():
    fresh = adapter(1) | {B: np.zeros((5, 3), np.float32)}
    found = averaging.average_products([fresh, fresh], [1, 1])
    np.testing.assert_array_equal(found[A], fresh[A])
    np.testing.assert_array_equal(found[B], fresh[B])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {A: np.ones((2, 7), np.float32)},
            r"layer.lora_A.weight has type float32 and shape \(2, 7\), but the server sent float32 \(3, 7\)",
        ),
        (
            {B: np.full((5, 3), np.nan, np.float32)},
            "layer.lora_B.weight of the client's update has values that are nan or inf",
        ),
        ({"other": np.ones(1)}, "other is only in the client's update: it trained another adapter"),
    ],
)
def test_what_does_not_fit_is_named(change, message):
    with pytest.raises(ValueError, match=message):
        averaging.check_update(adapter(1) | change, adapter(2))


def test_nothing_has_no_mean():
    with pytest.raises(ValueError, match="0 updates"):
        averaging.average_weights([], [])
