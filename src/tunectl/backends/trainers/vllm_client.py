"""HTTP client of a vLLM server: load adapters, generate answers as token ids, and read log-probabilities of a prompt."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunectl.backends.modeling.peft_adapter import find_max_rank
from tunectl.config.schema.evaluate import Greedy, Sampling
from tunectl.core.errors import InfrastructureError
from tunectl.core.optional import import_optional

EXTRA = "train"
TRIES = 3
"""Tries of requests that can be repeated: the connection broke, or the server is busy (429, 502, 503)."""
PAUSE_SECONDS = 0.5
"""Seconds before the second try; twice as long before the third."""
IDLE_SECONDS = 2.0
"""Seconds for which an idle connection is kept: less than the 5 seconds after which vLLM closes it."""
UNLOAD_SECONDS = 10.0
LOAD_PATH = "/v1/load_lora_adapter"
_KEY_HINT = "align.vllm.api_key_env names the environment variable that holds its key"
_HINTS = {
    401: _KEY_HINT,
    403: _KEY_HINT,
    404: "run the same command again to resume: its adapters are loaded anew",
}
TRANSFORMERS_HINT = "or write answers with transformers: align.vllm=null"
START_HINT = f"start it, or correct align.vllm.urls; {TRANSFORMERS_HINT}"


@dataclass(frozen=True, slots=True)
class ServedModel:
    """Base model of a vLLM server, as /v1/models names it."""

    name: str
    max_model_len: int
    """Tokens of prompt and answer."""


class VllmClient:
    """Client of one vLLM server. Every method raises InfrastructureError if the server does not answer or refuses."""

    def __init__(self, url: str, *, api_key: str | None, timeout_seconds: float) -> None:
        """``url`` is an address without ``/v1``."""
        self.url, self._timeout_seconds = url.rstrip("/"), timeout_seconds
        self._httpx = import_optional("httpx", extra=EXTRA)
        self._http = self._httpx.Client(
            base_url=self.url,
            headers={"Authorization": f"Bearer {api_key}"} if api_key else {},
            limits=self._httpx.Limits(keepalive_expiry=IDLE_SECONDS),
        )

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    def read_model(self) -> ServedModel:
        """Return the server's base model."""
        answer = self._ask("GET", "/v1/models", None)
        try:
            card = next(card for card in answer["data"] if not card.get("parent"))
            return ServedModel(str(card["id"]), int(card["max_model_len"]))
        except (LookupError, TypeError, ValueError, StopIteration) as error:
            raise InfrastructureError(
                f"{self.url}/v1/models does not answer as vLLM does: {str(answer)[:200]}",
                hint=f"align.vllm.urls names servers of vLLM; {TRANSFORMERS_HINT}",
            ) from error

    def load_adapter(self, name: str, folder: Path) -> None:
        """Load the adapter in ``folder`` on the server under the new name ``name``."""
        response = self._send("POST", LOAD_PATH, {"lora_name": name, "lora_path": str(folder)})
        if response.status_code == 200:
            return
        message = _error_message(response)
        if response.status_code in {404, 405} and message is None:
            raise InfrastructureError(
                f"{self.url} does not load adapters while it runs: HTTP {response.status_code} from {LOAD_PATH}",
                hint="start it with VLLM_ALLOW_RUNTIME_LORA_UPDATING=True in its environment, and with --enable-lora",
            )
        raise self._explain_refusal(message or f"HTTP {response.status_code}", folder)

    def unload_adapter(self, name: str) -> None:
        """Unload the adapter ``name`` from the server."""
        response = self._send("POST", "/v1/unload_lora_adapter", {"lora_name": name}, timeout_seconds=UNLOAD_SECONDS)
        if response.status_code != 200:
            raise InfrastructureError(
                f"{self.url} does not unload the adapter {name}: {_error_message(response) or f'HTTP {response.status_code}'}",
                hint="start that server again, then run the same command again to resume",
            )

    def read_logprobs(self, model: str, ids: Sequence[int]) -> list[float]:
        """Return the log-probability (nats) of each token of the prompt ``ids`` given those before it, from the second on."""
        body = {"model": model, "prompt": list(ids), "max_tokens": 1, "temperature": 0.0, "prompt_logprobs": 0}
        answer = self._ask("POST", "/v1/completions", body)
        try:
            rows = answer["choices"][0]["prompt_logprobs"][1:]
            return [float(row[str(token)]["logprob"]) for row, token in zip(rows, ids[1:], strict=True)]
        except (LookupError, TypeError, ValueError) as error:
            raise InfrastructureError(
                f"{self.url} gives no log-probabilities of a prompt: {str(answer)[:200]}",
                hint=f"take vLLM 0.10.2 or newer, {TRANSFORMERS_HINT}",
            ) from error

    def complete(
        self,
        model: str,
        ids: Sequence[int],
        copies: int,
        how: Greedy | Sampling,
        seed: int | None,
        stops: Sequence[int],
    ) -> list[list[int]]:
        """Return ``copies`` answers to the prompt ``ids`` as token ids, each with the token that ended it."""
        sampled = isinstance(how, Sampling)
        body = {
            "model": model,
            "prompt": list(ids),
            "n": copies,
            "max_tokens": how.max_new_tokens,
            "temperature": how.temperature if isinstance(how, Sampling) else 0.0,
            "top_p": how.top_p if isinstance(how, Sampling) else 1.0,
            "stop_token_ids": list(stops),
            "return_token_ids": True,
            # override the sampling settings in the model's generation_config.json
            "top_k": 0,
            "min_p": 0.0,
            "repetition_penalty": 1.0,
            "presence_penalty": 0.0,
            "frequency_penalty": 0.0,
        }
        answer = self._ask("POST", "/v1/completions", body | ({"seed": seed} if sampled else {}))
        try:
            choices = sorted(answer["choices"], key=lambda choice: int(choice["index"]))
            result = [[int(token) for token in choice["token_ids"]] for choice in choices]
        except (LookupError, TypeError, ValueError) as error:
            raise InfrastructureError(
                f"{self.url} does not return token ids (return_token_ids)",
                hint=f"take vLLM 0.10.2 or newer, {TRANSFORMERS_HINT}",
            ) from error
        if len(result) != copies or not all(result):
            raise InfrastructureError(
                f"{self.url} returned {sum(map(bool, result))} non-empty answers of {copies} asked for",
                hint="see the log of the vLLM server; run the same command again to resume from the last checkpoint",
            )
        return result

    def _explain_refusal(self, message: str, folder: Path) -> InfrastructureError:
        """Return the error for an adapter that the server refuses, with what to do about it."""
        if "max_lora_rank" in message:
            rank, size = find_max_rank(folder)
            return InfrastructureError(
                f"{self.url}: the adapter has rank {rank}, which is above the server's max_lora_rank",
                hint=f"start it with --max-lora-rank {size}, or train sft with a smaller sft.lora_rank",
            )
        if "--enable-lora" in message:
            return InfrastructureError(
                f"{self.url} was started without adapters: {message[:200]}", hint="start it with --enable-lora"
            )
        if "No adapter found" in message or "does not contain" in message or "No such file" in message:
            return InfrastructureError(
                f"{self.url} does not see the adapter in {folder}: {message[:200]}",
                hint="set align.vllm.storage_path to a folder that the trainer and all servers see at the same path",
            )
        return InfrastructureError(
            f"{self.url} does not take the adapter in {folder}: {message[:300]}",
            hint=f"train sft with plain LoRA, which vLLM applies, {TRANSFORMERS_HINT}",
        )

    def _ask(self, method: str, path: str, body: dict[str, Any] | None) -> Any:
        """Return the server's answer."""
        for retries_left in reversed(range(TRIES)):
            try:
                response = self._send(method, path, body)
            except _BrokenConnectionError:
                if not retries_left:
                    raise
            else:
                if not retries_left or response.status_code not in {429, 502, 503}:
                    break
            time.sleep(PAUSE_SECONDS * (TRIES - retries_left))
        if response.status_code != 200:
            message = _error_message(response) or response.text.strip()
            hint = _HINTS.get(
                response.status_code,
                "the log of that server says why; correct it, then run the same command again to resume",
            )
            raise InfrastructureError(
                f"{self.url}{path} answers HTTP {response.status_code}: {message[:300]}", hint=hint
            )
        try:
            return response.json()
        except ValueError as error:
            raise InfrastructureError(
                f"{self.url}{path} does not answer as vLLM does: {response.text[:200].strip()}", hint=START_HINT
            ) from error

    def _send(
        self, method: str, path: str, body: dict[str, Any] | None, *, timeout_seconds: float | None = None
    ) -> Any:
        seconds = timeout_seconds or self._timeout_seconds
        try:
            return self._http.request(method, path, json=body, timeout=seconds)
        except self._httpx.TimeoutException as error:
            raise InfrastructureError(
                f"{self.url}{path} did not answer within {seconds:g} seconds (align.vllm.timeout_seconds)",
                hint="raise it, add a server to align.vllm.urls, or lower align.max_new_tokens",
            ) from error
        except self._httpx.TransportError as error:
            raise _BrokenConnectionError(
                f"{self.url} does not answer: {str(error) or type(error).__name__}", hint=START_HINT
            ) from error


class _BrokenConnectionError(InfrastructureError):
    """There is no connection, or it broke."""


def _error_message(response: Any) -> str | None:
    """Return vLLM's error message, None where something else answered; older versions have no key ``error``."""
    try:
        body = response.json()
    except ValueError:
        return None
    if not isinstance(body, dict):
        return None
    inner = body.get("error", body)
    message = inner.get("message") if isinstance(inner, dict) else inner
    return str(message) if message else None
