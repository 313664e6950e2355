"""The bare engine of bench_serve: OpenVINO GenAI's continuous batching and nothing else, driven over one connection.

    python benchmarks/serve_bare_engine.py MODEL PORT CACHE_TOKENS BATCH_TOKENS RUNNING SHARE [ADAPTER]

One line in: a number and {"prompt": [token ids], "max_tokens": N}, with temperature, top_p and seed where answers are sampled. One
line out for every token, of the length and shape of our server's events, so that the process that reads them works as hard as
it does for the server. Log-probabilities are computed for SHARE of the answers, as the server does it. No text, no template, no
keeping: what is missing here is what the server adds.
"""

from __future__ import annotations

import json
import queue
import socket
import sys
import threading
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import openvino_genai as genai

BLOCK = 32
EVENT = (
    '%d data: {"id":"chatcmpl-0123456789abcdef0123456789abcdef","object":"chat.completion.chunk","created":1700000000,'
    '"model":"benchmark","system_fingerprint":"0123456789abcdef","choices":[{"index":0,"delta":{"content":"%d"},'
    '"logprobs":null,"finish_reason":null}],"usage":null}\n'
)
END = '%d data: {"choices":[],"usage":{"prompt_tokens":%d,"completion_tokens":%d}}\n%d data: [DONE]\n'


def open_pipeline(model: str, cache: int, batch: int, running: int, adapter: str | None) -> Any:
    """The pipeline, set as our server sets it."""
    scheduler = genai.SchedulerConfig()
    scheduler.num_kv_blocks = cache // BLOCK
    scheduler.max_num_batched_tokens = batch
    scheduler.max_num_seqs = running
    scheduler.dynamic_split_fuse = True
    scheduler.enable_prefix_caching = True
    properties: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32"}
    if adapter:
        settings = json.loads((Path(adapter) / "adapter_config.json").read_text())
        weights = genai.Adapter(str(Path(adapter) / "adapter_model.safetensors"))
        properties["adapters"] = genai.AdapterConfig(weights, settings["lora_alpha"] / settings["r"])
    pipeline = genai.ContinuousBatchingPipeline(model, scheduler_config=scheduler, device="CPU", properties=properties)
    if adapter:
        pipeline.generate(
            [openvino.Tensor(np.array([[0]], dtype=np.int64))], [genai.GenerationConfig(max_new_tokens=1)]
        )
    return pipeline


def read(connection: socket.socket, inbox: queue.SimpleQueue[bytes | None]) -> None:
    """Hand every line over; None at the end."""
    with connection.makefile("rb") as lines:
        for line in lines:
            inbox.put(line)
    inbox.put(None)


def build_config(request: dict[str, Any], number: int, share: float) -> Any:
    """How one answer is generated."""
    logprobs = int(zlib.crc32(b"%d" % number) / 2**32 < share)
    config = genai.GenerationConfig(max_new_tokens=request["max_tokens"], ignore_eos=True, logprobs=logprobs)
    if request.get("temperature"):
        config.do_sample = True
        config.temperature, config.top_p, config.rng_seed = request["temperature"], request["top_p"], request["seed"]
    return config


def serve(pipeline: Any, connection: socket.socket, first: int, share: float) -> int:
    """Answer one client until it goes; returns the number of the next request."""
    inbox: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
    threading.Thread(target=read, args=(connection, inbox), daemon=True).start()
    active: dict[int, list[Any]] = {}
    here, last = True, first
    while here:
        while True:
            try:
                line = inbox.get(block=not active)
            except queue.Empty:
                break
            if line is None:
                here = False
                break
            number, _, body = line.partition(b" ")
            request = json.loads(body)
            config = build_config(request, last, share)
            prompt = openvino.Tensor(np.array([request["prompt"]], dtype=np.int64))
            active[int(number)] = [pipeline.add_request(last, prompt, config), 0, len(request["prompt"])]
            last += 1
        if not here or not active:
            continue
        pipeline.step()
        events = collect_events(active)
        try:
            connection.sendall(events)
        except OSError:
            here = False
    for handle, *_ in active.values():
        handle.cancel()
    if active:
        pipeline.step()
    return last


def collect_events(active: dict[int, list[Any]]) -> bytes:
    """What one step made, as events."""
    events = []
    for number, entry in list(active.items()):
        handle = entry[0]
        if not handle.can_read():
            continue
        (output,) = handle.read().values()
        entry[1] += len(output.generated_ids)
        events += [EVENT % (number, token) for token in output.generated_ids]
        if output.finish_reason != genai.GenerationFinishReason.NONE:
            events.append(END % (number, entry[2], entry[1], number))
            del active[number]
    return "".join(events).encode()


def main() -> None:
    """Load, then answer one client after another."""
    model, port, cache, batch, running, share, *rest = sys.argv[1:]
    pipeline = open_pipeline(model, int(cache), int(batch), int(running), rest[0] if rest else None)
    with socket.create_server(("127.0.0.1", int(port))) as door:
        print("ready", flush=True)
        number = 0
        while True:
            connection, _ = door.accept()
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with connection:
                number = serve(pipeline, connection, number, float(share))


if __name__ == "__main__":
    main()
