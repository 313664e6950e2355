"""Variants: by name, by sticky hash, else the champion."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunectl.access.api_errors import ApiError
from tunectl.artifacts.canary_state import CanaryState
from tunectl.serving.routing import assign_variant, resolve_variant

LOADED = {"champion": "aaaa", "challenger": "bbbb"}


def test_names_choose() -> None:
    canary = CanaryState("bbbb", 1.0, "s")
    for asked, variant in (
        ("champion", "champion"),
        ("aaaa", "champion"),
        ("bbbb", "challenger"),
        ("challenger", "challenger"),
    ):
        assert resolve_variant(asked, "me", LOADED, ["shop"], canary) == variant
    assert resolve_variant("shop", "me", LOADED, ["shop"], canary) == "challenger"
    assert resolve_variant("shop", "me", LOADED, ["shop"], None) == "champion"
    assert resolve_variant("shop", "me", {"champion": "aaaa"}, ["shop"], canary) == "champion"


def test_an_unknown_model_is_not_found() -> None:
    with pytest.raises(ApiError) as caught:
        resolve_variant("gpt-9", "me", LOADED, ["shop"], None)
    assert caught.value.status == 404
    assert str(caught.value) == "model 'gpt-9' is not served here; there are: shop, champion, challenger"


@given(st.text(), st.text())
def test_a_person_stays_in_a_variant_and_wider_shares_keep_them(identity: str, salt: str) -> None:
    variants = [assign_variant(identity, CanaryState("b", share / 10, salt)) for share in range(11)]
    assert variants == sorted(
        variants, reverse=True
    )  # champion until the share reaches this identity, challenger ever after
    assert (variants[0], variants[-1]) == ("champion", "challenger")


def test_shares_are_met() -> None:
    drawn = [assign_variant(f"user {number}", CanaryState("b", 0.1, "x")) for number in range(5000)]
    assert 0.08 < drawn.count("challenger") / 5000 < 0.12
