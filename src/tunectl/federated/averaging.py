"""Averages of adapters, with numpy alone: Flower's environment imports this file.

FedAvg averages A and B separately, but a layer adds their product BA, and a product of means is not the mean of products. ``average_products``
takes that mean and reduces it to the rank by singular values: the best adapter of that rank in the Frobenius norm.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tunectl.core.optional import import_optional

AdapterWeights = Mapping[str, Any]
"""Numpy array of each tensor, by name."""
DOWN, UP = "lora_A", "lora_B"


def average_weights(updates: Sequence[AdapterWeights], shares: Sequence[float]) -> dict[str, Any]:
    """Return the weighted mean of each tensor (FedAvg, arXiv 1602.05629); ``shares`` has one weight per update, of any sum.

    Raises  ValueError where there are no updates, the weights sum to 0, or tensors differ in names or shapes.
    """
    np = import_optional("numpy", extra="train")
    _check(updates, shares)
    total = float(sum(shares))
    return {
        name: sum(
            np.asarray(update[name], dtype=np.float64) * (share / total)
            for update, share in zip(updates, shares, strict=True)
        ).astype(np.asarray(first).dtype)
        for name, first in updates[0].items()
    }


def average_products(updates: Sequence[AdapterWeights], shares: Sequence[float]) -> dict[str, Any]:
    """Return the LoRA adapter of the same rank that is nearest to the mean of the clients' products BA, weighted by ``shares``.

    A is (rank, in) and B (out, rank). The result's B and A each get the square root of the singular values, so that both continue training
    at the same learning rate. Tensors that are not of LoRA are averaged as ``average_weights`` does.
    Raises  ValueError as ``average_weights``.
    """
    np = import_optional("numpy", extra="train")
    result = average_weights(updates, shares)
    total = float(sum(shares))
    for down in [name for name in result if DOWN in name]:
        up = down.replace(DOWN, UP)
        if up not in result:
            continue
        # The mean is [B1 s1, B2 s2, ..] [A1; A2; ..]: QR of both sides leaves a small matrix to decompose, whatever the layer's size
        ups = np.concatenate(
            [
                np.asarray(update[up], np.float64) * (share / total)
                for update, share in zip(updates, shares, strict=True)
            ],
            axis=1,
        )
        right = np.concatenate([np.asarray(update[down], np.float64) for update in updates], axis=0)
        q_left, r_left = np.linalg.qr(ups)
        q_right, r_right = np.linalg.qr(right.T)
        u, values, v = np.linalg.svd(r_left @ r_right.T)
        rank = result[down].shape[0]
        new_rank = min(rank, len(values))
        root = np.sqrt(values[:new_rank])
        new_up, new_down = np.zeros(result[up].shape), np.zeros(result[down].shape)
        new_up[:, :new_rank] = (q_left @ u[:, :new_rank]) * root
        new_down[:new_rank] = root[:, None] * (v[:new_rank] @ q_right.T)
        if not values[0] > 0:  # all products are zero: keep A, because with A and B zero no gradient would change them
            continue
        result[up], result[down] = new_up.astype(result[up].dtype), new_down.astype(result[down].dtype)
    return result


def check_update(update: AdapterWeights, start: AdapterWeights) -> None:
    """Check a client's tensors against the weights ``start`` that it was sent.

    Raises  ValueError where a tensor is absent, new, of another shape or type, or not finite.
    """
    np = import_optional("numpy", extra="train")
    if update.keys() != start.keys():
        odd = min(update.keys() ^ start.keys())
        raise ValueError(
            f"{odd} is {'missing from' if odd in start else 'only in'} the client's update: it trained another adapter; "
            "give all clients the server's settings of sft"
        )
    for name, own in start.items():
        received, expected = np.asarray(update[name]), np.asarray(own)
        if received.shape != expected.shape or received.dtype != expected.dtype:
            raise ValueError(
                f"{name} has type {received.dtype} and shape {received.shape}, but the server sent {expected.dtype} {expected.shape}; "
                "give all clients the server's settings of sft and hardware"
            )
        if not np.isfinite(received).all():
            raise ValueError(f"{name} of the client's update has values that are nan or inf; lower sft.learning_rate")


def check_count(answers: int) -> None:
    """Check that ``answers``, a client's number of training answers (its weight in the average), is at least 1.

    Raises  ValueError below 1.
    """
    if answers < 1:
        raise ValueError(f"num_examples = {answers}; must be at least 1")


def check_steps(steps: object) -> None:
    """Check that ``steps``, the optimizer steps that a client reports, is a whole number of 0 or more.

    Raises  ValueError where it is not such a number.
    """
    if not isinstance(steps, int) or steps < 0:
        raise ValueError(f"steps = {steps!r:.40}; must be a whole number of 0 or more")


def check_rows(answers: int, rows: object, refused: object) -> None:
    """Check that a client's ``rows`` are those it trains on (``answers``) and those it ``refused``.

    Raises  ValueError where they are not whole numbers, or not the sum.
    """
    if not isinstance(rows, int) or not isinstance(refused, int) or refused < 0 or rows != answers + refused:
        raise ValueError(
            f"rows = {rows!r:.40}, refused = {refused!r:.40}; must be whole numbers, and rows the sum of refused and num_examples = {answers}"
        )


def _check(updates: Sequence[AdapterWeights], shares: Sequence[float]) -> None:
    if not updates or len(updates) != len(shares) or min(shares) < 0 or not sum(shares) > 0:
        raise ValueError(
            f"{len(updates)} updates with shares {list(shares)}: there must be an update, one share for each, none below 0, and a sum above 0"
        )
    for update in updates[1:]:
        check_update(update, updates[0])
