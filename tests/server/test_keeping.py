"""What is kept of those who ask and judge, and under which name."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from live_rows import exchange
from serving_process import settings

from tunectl.backends import sqlalchemy_store
from tunectl.config.live import Live
from tunectl.core.errors import EnvironmentFailure
from tunectl.live import identity
from tunectl.services.server import keeping
from tunectl.services.server.keeping import Keeper
from tunectl.serving import keys
from tunectl.serving.schema import FeedbackRequest

LAPTOP = keys.made("laptop", ["feedback"], None, datetime.now(UTC))[1]


@pytest.fixture
def live(monkeypatch: pytest.MonkeyPatch) -> Live:
    monkeypatch.delenv("TUNECTL_LIVE_URL", raising=False)
    monkeypatch.delenv("TUNECTL_LIVE_SALT", raising=False)
    return Live.model_validate(settings()["live"], strict=True)


@pytest.fixture
def keeper(live: Live, tmp_path: Path) -> Iterator[Keeper]:
    found = keeping.opened(live, tmp_path, on_error=lambda _: None)
    found.store.accept(exchange())
    yield found
    found.close()


@pytest.fixture
def said(keeper: Keeper) -> Callable[..., str]:
    def say(**given: Any) -> str:
        request = FeedbackRequest("chatcmpl-000000", "edit", "It rains.", **given)
        return asyncio.run(keeper.said(request, LAPTOP))[1]

    return say


def test_what_a_key_said_is_forgotten_with_it(keeper: Keeper, said: Callable[..., str]) -> None:
    said()
    said(annotator="laptop")  # a person of that name
    assert keeper.store.forget(identity.hidden(identity.holder("laptop"), keeper.salt)) == (0, 1)
    values = [one.value for one in keeper.store.feedback_of(["chatcmpl-000000"])["chatcmpl-000000"]]
    assert sorted(values, key=str) == ["It rains.", None]
    assert keeper.store.forget(identity.hidden("laptop", keeper.salt)) == (0, 1)


def test_ids_that_are_personal_cannot_be_undone_without_the_salt(keeper: Keeper, said: Callable[..., str]) -> None:
    assert said(id="ann@example.org") == "ann@example.org"  # who sent it may know it
    ((kept,),) = keeper.store.feedback_of(["chatcmpl-000000"]).values()
    assert kept.id == f"fb-{identity.hidden('ann@example.org', keeper.salt)}"


def test_a_server_with_another_salt_is_refused_and_lets_go(
    keeper: Keeper, live: Live, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeper.close()
    monkeypatch.setenv("TUNECTL_LIVE_SALT", "another one of 16")
    with pytest.raises(EnvironmentFailure, match="hidden under another salt"):
        keeping.opened(live, tmp_path, on_error=lambda _: None)
    with sqlalchemy_store.opened(live.url, tmp_path, serving=True) as store:  # nobody holds its lock
        assert store.counts().exchanges == 1
