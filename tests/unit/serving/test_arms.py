"""Arms: by name, by sticky hash, else the champion."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunectl.artifacts.records import Trial
from tunectl.serving.arms import assigned, chosen
from tunectl.serving.wire import Problem

LOADED = {"champion": "aaaa", "challenger": "bbbb"}


def test_names_choose() -> None:
    trial = Trial("bbbb", 1.0, "s")
    for asked, arm in (
        ("champion", "champion"),
        ("aaaa", "champion"),
        ("bbbb", "challenger"),
        ("challenger", "challenger"),
    ):
        assert chosen(asked, "me", LOADED, ["shop"], trial) == arm
    assert chosen("shop", "me", LOADED, ["shop"], trial) == "challenger"
    assert chosen("shop", "me", LOADED, ["shop"], None) == "champion"
    assert chosen("shop", "me", {"champion": "aaaa"}, ["shop"], trial) == "champion"


def test_an_unknown_model_is_not_found() -> None:
    with pytest.raises(Problem) as caught:
        chosen("gpt-9", "me", LOADED, ["shop"], None)
    assert caught.value.status == 404
    assert str(caught.value) == "model 'gpt-9' is not served here; there are: shop, champion, challenger"


@given(st.text(), st.text())
def test_a_person_stays_in_an_arm_and_wider_shares_keep_them(identity: str, salt: str) -> None:
    arms = [assigned(identity, Trial("b", share / 10, salt)) for share in range(11)]
    assert arms == sorted(arms, reverse=True)  # champion until the share reaches this identity, challenger ever after
    assert (arms[0], arms[-1]) == ("champion", "challenger")


def test_shares_are_met() -> None:
    drawn = [assigned(f"user {number}", Trial("b", 0.1, "x")) for number in range(5000)]
    assert 0.08 < drawn.count("challenger") / 5000 < 0.12
