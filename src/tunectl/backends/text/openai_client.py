"""An LLM judge behind any OpenAI-compatible address, through httpx."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tunectl.artifacts.records import Message
from tunectl.config.schema.evaluate import LlmJudge
from tunectl.core import progress
from tunectl.core.errors import InfrastructureError, UsageError
from tunectl.core.optional import import_optional

REPLY_TOKENS = 300
"""Longest reply in tokens: a sentence of reasoning and the score."""
TRIES = 3
"""Tries of a request that a busy server asks to repeat (408, 429, 5xx)."""
PAUSE = 0.5
"""Seconds before the second try; the third waits twice as long."""


class OpenAiClient:
    """Client of an LLM judge: sends conversations to ``POST {base_url}/chat/completions`` with temperature 0."""

    def __init__(self, judge: LlmJudge) -> None:
        """Read the key from its environment variable.

        Raises  UsageError naming the variable when it is not set.
        """
        self._judge = judge
        self._headers = {}
        if judge.api_key_env is not None:
            key = os.environ.get(judge.api_key_env)
            if not key:
                raise UsageError(
                    f"evaluate.judge.api_key_env names {judge.api_key_env}, but that variable is not set",
                    hint=f"export {judge.api_key_env}=..., or switch the judge off: evaluate.judge=null",
                )
            self._headers = {"Authorization": f"Bearer {key}"}

    def __call__(self, conversations: Sequence[Sequence[Message]]) -> list[str]:
        """Return one reply per conversation, in their order, ``concurrency`` at a time.

        Raises  InfrastructureError when the address cannot be reached, refuses, or answers in another shape.
        """
        if not conversations:
            return []
        httpx = import_optional("httpx", extra="evaluate")
        with (
            httpx.Client(headers=self._headers, timeout=self._judge.timeout_seconds) as client,
            ThreadPoolExecutor(self._judge.concurrency) as pool,
        ):
            try:
                replies = pool.map(lambda conversation: self._ask(client, conversation), conversations)
                return list(progress.track(replies, "judge", len(conversations)))
            except InfrastructureError:
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _ask(self, client: Any, conversation: Sequence[Message]) -> str:
        httpx = import_optional("httpx", extra="evaluate")
        body = {
            "model": self._judge.model,
            "messages": [{"role": message.role, "content": message.content} for message in conversation],
            "temperature": 0,
            "max_tokens": REPLY_TOKENS,
        }
        address = f"{self._judge.base_url.rstrip('/')}/chat/completions"
        for retries_left in reversed(range(TRIES)):
            try:
                response = client.post(address, json=body)
            except httpx.TransportError as error:
                raise self._failure(address, str(error) or type(error).__name__) from error
            if not retries_left or (response.status_code not in {408, 429} and response.status_code < 500):
                break
            time.sleep(PAUSE * (TRIES - retries_left))
        if response.status_code != 200:
            raise self._failure(address, f"HTTP {response.status_code}: {response.text[:200].strip()}")
        try:
            return str(response.json()["choices"][0]["message"]["content"])
        except (ValueError, LookupError, TypeError) as error:
            raise self._failure(
                address, f"its reply has no text at choices[0].message.content: {response.text[:200].strip()}"
            ) from error

    def _failure(self, address: str, description: str) -> InfrastructureError:
        return InfrastructureError(
            f"the judge at {address} gave no usable answer: {description}",
            hint="check evaluate.judge.base_url, evaluate.judge.model, and the key in the variable that evaluate.judge.api_key_env "
            "names; or switch the judge off: evaluate.judge=null",
        )
