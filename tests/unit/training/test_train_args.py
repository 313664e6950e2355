"""What a hint proposes after a loss that is not finite, and seeds beside a declared one."""

from __future__ import annotations

import pytest

from tunectl.training.train_args import derive_seed, suggest_for_lost_loss


@pytest.mark.parametrize(
    ("now", "advice"),
    [
        (None, "set sft.max_grad_norm=1.0"),
        (2.0, "set sft.max_grad_norm=1.0"),
        (1.0, "sft.max_grad_norm (now 1)"),
        (0.3, "sft.max_grad_norm (now 0.3)"),
    ],
)
def test_the_hint_never_proposes_the_value_that_is_set(now: float | None, advice: str) -> None:
    assert suggest_for_lost_loss("sft", 1e-3, now) == f"lower sft.learning_rate (now 0.001), or {advice}"


def test_seeds_after_the_largest_one_begin_at_zero() -> None:
    assert [derive_seed(2**32 - 2, offset) for offset in range(4)] == [2**32 - 2, 2**32 - 1, 0, 1]
