"""What is kept of those who ask and judge, and under which name."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from inference_rows import inference
from serving_process import settings

from tunectl.access import api_keys
from tunectl.backends.storage import inference_log_sql
from tunectl.config.schema.inference_log import InferenceLogConfig
from tunectl.core.errors import InfrastructureError
from tunectl.inference_log import pseudonyms
from tunectl.serving import inference_logger
from tunectl.serving.inference_logger import InferenceLogger
from tunectl.serving.requests import FeedbackRequest
from tunectl.serving.response_encoding import ResponseChoice

LAPTOP = api_keys.create_key("laptop", ["feedback"], None, datetime.now(UTC))[1]


@pytest.mark.parametrize("text", ["[" * 2000, "[" * 2000 + "]" * 2000, '{"a":' * 2000, "no JSON"])
def test_an_answer_that_is_nested_too_deeply_is_no_valid_json(text: str) -> None:
    job: Any = SimpleNamespace(asks=[SimpleNamespace(schema="{}")])
    assert inference_logger._check_json_format(job, [ResponseChoice(text, "length", None, [])]) is False


@pytest.fixture
def live(monkeypatch: pytest.MonkeyPatch) -> InferenceLogConfig:
    monkeypatch.delenv("TUNECTL_INFERENCE_LOG_URL", raising=False)
    monkeypatch.delenv("TUNECTL_HASH_KEY", raising=False)
    return InferenceLogConfig.model_validate(settings()["inference_log"], strict=True)


@pytest.fixture
def logger(live: InferenceLogConfig, tmp_path: Path) -> Iterator[InferenceLogger]:
    found = inference_logger.open_logger(live, tmp_path, on_error=lambda _: None)
    found.store.write([inference()])
    yield found
    found.close()


@pytest.fixture
def said(logger: InferenceLogger) -> Callable[..., str]:
    def say(**given: Any) -> str:
        request = FeedbackRequest("chatcmpl-000000", "edit", "It rains.", **given)
        return asyncio.run(logger.log_feedback(request, LAPTOP))[1]

    return say


def test_what_a_key_said_is_forgotten_with_it(logger: InferenceLogger, said: Callable[..., str]) -> None:
    said()
    said(annotator="laptop")  # a person of that name
    assert logger.store.erase(pseudonyms.pseudonymize(pseudonyms.key_holder_name("laptop"), logger.hash_key)) == (
        0,
        1,
        False,
    )
    values = [one.value for one in logger.store.feedback_of(["chatcmpl-000000"])["chatcmpl-000000"]]
    assert sorted(values, key=str) == ["It rains.", None]
    assert logger.store.erase(pseudonyms.pseudonymize("laptop", logger.hash_key)) == (0, 1, False)


def test_feedback_tells_its_key_and_when_it_came(logger: InferenceLogger, said: Callable[..., str]) -> None:
    before = datetime.now(UTC)
    said(annotator="Ada", at="2000-01-01T00:00:00Z")
    ((kept,),) = logger.store.feedback_of(["chatcmpl-000000"]).values()
    key_hash = pseudonyms.pseudonymize(pseudonyms.key_holder_name("laptop"), logger.hash_key)
    assert (kept.key_hash, kept.acts_for, kept.created_at.year) == (key_hash, False, 2000)
    assert before <= kept.received_at <= datetime.now(UTC)
    assert (kept.counted_at, kept.person) == (kept.received_at, key_hash)
    assert logger.store.last_uses() == {key_hash: kept.received_at}


def test_an_id_that_is_derived_cannot_be_reckoned_by_others(logger: InferenceLogger, said: Callable[..., str]) -> None:
    """Who could would send feedback under it first, and the owner's would count as a repetition."""
    first = said(annotator="Ada")
    parts = ["chatcmpl-000000", "edit", "It rains.", "Ada"]
    public = hashlib.sha256(msgspec.json.encode(parts, order="sorted")).hexdigest()[:32]
    assert first.startswith("fb-")
    assert first != f"fb-{public}"
    assert said(annotator="Ada") == first
    keyed = hmac.new(logger.hash_key, msgspec.json.encode(parts, order="sorted"), hashlib.sha256).hexdigest()[:32]
    assert first == f"fb-{keyed}"


def test_ids_that_are_personal_cannot_be_undone_without_the_salt(
    logger: InferenceLogger, said: Callable[..., str]
) -> None:
    assert said(id="ann@example.org") == "ann@example.org"  # who sent it may know it
    ((kept,),) = logger.store.feedback_of(["chatcmpl-000000"]).values()
    assert kept.id == f"fb-{pseudonyms.pseudonymize('ann@example.org', logger.hash_key)}"


def test_a_server_with_another_salt_is_refused_and_lets_go(
    logger: InferenceLogger, live: InferenceLogConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logger.close()
    monkeypatch.setenv("TUNECTL_HASH_KEY", "another one of 16")
    with pytest.raises(InfrastructureError, match="hashed with another key"):
        inference_logger.open_logger(live, tmp_path, on_error=lambda _: None)
    with inference_log_sql.open_log(live.url, tmp_path, serving=True) as store:  # nobody holds its lock
        assert store.counts().inferences == 1
