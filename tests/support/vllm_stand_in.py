"""A server that speaks the endpoints of ``vllm serve`` (0.32) that align uses, on a real socket, and writes with a tiny model.

Answers, errors and their codes are those of vLLM's source (entrypoints/serve/lora, entrypoints/openai). Drawing follows the seed as the
trainer's own writing does, so a fit that takes its answers from here learns what it would have learned alone.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route

from tunectl.artifacts import atomic_io
from tunectl.backends.trainers.rollout_generation import RolloutGenerator
from tunectl.config.schema.evaluate import Sampling
from tunectl.training.rl.rl_types import Prompt


class VllmStandIn:
    """A server of one base model; ``url`` is its address once the block of ``with`` is entered."""

    def __init__(
        self,
        model: Path,
        *,
        port: int = 0,
        max_lora_rank: int = 16,
        max_model_len: int = 512,
        api_key: str | None = None,
        updating: bool = True,
        lora: bool = True,
        token_ids: bool = True,
        mounted: bool = True,
    ) -> None:
        """``updating`` is VLLM_ALLOW_RUNTIME_LORA_UPDATING, ``lora`` --enable-lora; without ``token_ids`` it is an old version.

        Not ``mounted``, it does not see the disk of the trainer.
        """
        self.model, self.max_lora_rank, self.max_model_len = model, max_lora_rank, max_model_len
        self.api_key, self.updating, self.lora = api_key, updating, lora
        self.token_ids, self.mounted = token_ids, mounted
        self.adapters: dict[str, Any] = {}
        self.loaded: list[str] = []
        self.asked: list[dict[str, Any]] = []
        """Bodies of all questions for answers."""
        routes = [
            Route("/v1/models", self.list_models),
            Route("/v1/completions", self.complete, methods=["POST"]),
            Route("/v1/load_lora_adapter", self.load, methods=["POST"]),
            Route("/v1/unload_lora_adapter", self.unload, methods=["POST"]),
        ]
        app = Starlette(routes=routes)
        config = uvicorn.Config(app, host="127.0.0.1", port=port, log_level="error", lifespan="off")
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, daemon=True)

    def __enter__(self) -> VllmStandIn:
        self._thread.start()
        while not self._server.started:
            assert self._thread.is_alive()
            self._thread.join(0.01)
        self.port = self._server.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        return self

    def __exit__(self, *_error: object) -> None:
        self._server.should_exit = True
        self._thread.join()

    def list_models(self, request: Request) -> JSONResponse:
        if refusal := self._refuse_key(request):
            return refusal
        base = {"id": str(self.model), "root": str(self.model), "parent": None, "max_model_len": self.max_model_len}
        cards = [{"id": name, "root": name, "parent": str(self.model)} for name in self.adapters]
        return JSONResponse({"object": "list", "data": [base, *cards]})

    async def load(self, request: Request) -> JSONResponse | PlainTextResponse:
        if not self.updating:
            return JSONResponse({"detail": "Not Found"}, 404)
        if refusal := self._refuse_key(request):
            return refusal
        body = await request.json()
        name, folder = body["lora_name"], Path(body["lora_path"])
        if not self.lora:
            return _error(500, "LoRA is not enabled. Use --enable-lora to enable LoRA.", "InternalServerError")
        if name in self.adapters:
            return _error(400, f"The lora adapter '{name}' has already been loaded.", "InvalidUserInput")
        if not self.mounted or not (folder / "adapter_config.json").is_file():
            return _error(404, f"Loading lora {name} failed: No adapter found for {folder}", "NotFoundError")
        rank = atomic_io.read_json(folder / "adapter_config.json")["r"]
        if rank > self.max_lora_rank:
            words = f"LoRA rank {rank} is greater than max_lora_rank {self.max_lora_rank}."
            return _error(500, words, "InternalServerError")
        self.adapters[name] = load_model(self.model, folder)
        self.loaded.append(name)
        return PlainTextResponse(f"Success: LoRA adapter '{name}' added successfully.")

    async def unload(self, request: Request) -> JSONResponse | PlainTextResponse:
        body = await request.json()
        if self.adapters.pop(body["lora_name"], None) is None:
            return _error(404, f"The lora adapter '{body['lora_name']}' cannot be found.", "NotFoundError")
        return PlainTextResponse(f"Success: LoRA adapter '{body['lora_name']}' removed successfully.")

    async def complete(self, request: Request) -> JSONResponse:
        if refusal := self._refuse_key(request):
            return refusal
        return self._answer(await request.json())

    def _answer(self, body: dict[str, Any]) -> JSONResponse:
        if body["model"] not in {str(self.model), *self.adapters}:
            return _error(404, f"The model `{body['model']}` does not exist.", "NotFoundError")
        model, tokenizer = self.adapters.get(body["model"]) or load_model(self.model, None)
        if "prompt_logprobs" in body:
            rows = score(model, body["prompt"])
            return JSONResponse({"choices": [{"index": 0, "text": "", "prompt_logprobs": rows}]})
        self.asked.append(body)
        prompt = Prompt("", (), "", tuple(body["prompt"]), (), {})
        writer = RolloutGenerator(model, tokenizer, batch=16)
        if body["temperature"] == 0:
            lines = writer.generate_greedy([prompt], body["max_tokens"])
        else:
            values = {"temperature": body["temperature"], "top_p": body["top_p"]}
            how = Sampling(method="sampling", max_new_tokens=body["max_tokens"], **values)
            lines = writer.sample_completions([prompt], body["n"], how, [body["seed"]])
        choices = [
            {"index": place, "text": "", "finish_reason": "stop" if line.finished else "length"}
            | ({"token_ids": line.answer} if self.token_ids else {})
            for place, line in enumerate(lines)
        ]
        return JSONResponse({"choices": choices[::-1]})

    def _refuse_key(self, request: Request) -> JSONResponse | None:
        if self.api_key is None or request.headers.get("authorization") == f"Bearer {self.api_key}":
            return None
        return JSONResponse({"error": "Unauthorized"}, 401)


def load_model(base: Path, adapter: Path | None) -> tuple[Any, Any]:
    """The model with an adapter, or without, and its tokenizer."""
    import peft
    import torch
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    tokenizer = transformers.AutoTokenizer.from_pretrained(base)
    if adapter is not None:
        return peft.PeftModel.from_pretrained(model, adapter).eval(), tokenizer
    return model.eval(), tokenizer


def score(model: Any, ids: list[int]) -> list[dict[str, Any] | None]:
    """Each token of a prompt with its log-probability, as ``prompt_logprobs`` has it."""
    import torch

    with torch.no_grad():
        nats = model(input_ids=torch.tensor([ids])).logits[0].log_softmax(dim=-1)
    rows: list[dict[str, Any] | None] = [None]
    for place, token in enumerate(ids[1:]):
        rows.append({str(token): {"logprob": float(nats[place, token]), "rank": 1, "decoded_token": ""}})
    return rows


def _error(status: int, message: str, kind: str) -> JSONResponse:
    return JSONResponse({"error": {"message": message, "type": kind, "param": None, "code": status}}, status)
