"""Measure how fast this machine computes one transformer layer (for the estimates of ``tunectl estimate``).

The peak speed of matrix products says little: processors with matrix units reach it only on large square ones. So one layer of the
model's own width, with an adapter on its linear parts, is built from random numbers and timed in the four relevant ways.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tunectl.config.schema.hardware import HardwareProfile
from tunectl.core.optional import import_optional

ROW = 128
"""Tokens of one sequence in training and in reading."""
CONTEXT = 96
"""Tokens in the cache to which a new token attends in generation."""
MAX_WEIGHT_TOKENS = 2.5e9
"""Weights times tokens of one timed pass: about 50 ms on two cores."""
SECONDS = 0.2
"""Seconds for which each pass is repeated."""
GAIN = 0.6
"""Exponent of the speedup by threads: two threads train and read 1.5 to 1.7 times as fast as one (2 cores, SmolLM2-135M)."""
HEAD = 64
"""Width of an attention head."""


@dataclass(frozen=True, slots=True)
class Speed:
    """Measured seconds of one transformer layer and of the output layer on this machine."""

    learn: float
    """Seconds per token, forward and backward."""
    read: float
    """Seconds per token, forward."""
    write_one: float
    """Seconds of one step of one answer."""
    write_batch: float
    """Seconds of one step of ``batch`` answers."""
    batch: int
    head: float
    """Seconds per token through the output layer, forward."""


def layer_speed(
    profile: HardwareProfile, *, hidden: int, intermediate: int, vocabulary: int, rank: int, batch: int
) -> Speed | None:
    """Measure one layer, and return its seconds per token and per decoding step, and those of the output layer.

    ``hidden``, ``intermediate`` and ``vocabulary`` are the sizes of the model; ``rank`` is that of the adapter; ``batch`` the answers per decoding step.
    None where the profile asks for CUDA and this machine has none. Raises  MissingExtraError without torch.
    """
    from tunectl.backends.modeling import model_loader
    from tunectl.backends.system import malloc

    torch = import_optional("torch", extra="train")
    if profile.device == "cuda" and not torch.cuda.is_available():
        return None
    malloc.retain_freed_memory()  # as ``model_loader.load`` does
    before = torch.get_num_threads()
    try:
        with torch.random.fork_rng(devices=[]):  # the measurement must not change later random numbers
            return _time_layer(torch, profile, model_loader, (hidden, intermediate, vocabulary, rank), batch)
    finally:
        torch.set_num_threads(before)


def _time_layer(
    torch: Any, profile: HardwareProfile, hf_model: Any, sizes: tuple[int, int, int, int], batch: int
) -> Speed:
    hidden, intermediate, vocabulary, rank = sizes
    width = max(HEAD, hidden // HEAD * HEAD)
    layer = _Layer(torch, profile.device, hf_model.dtype(profile), width, intermediate, rank)
    weights = 4 * width**2 + 3 * width * intermediate
    rows = max(1, min(2048, int(MAX_WEIGHT_TOKENS / weights)) // ROW)
    tokens = rows * ROW
    clock = _MinTimer(torch, profile.device, hf_model.set_threads(profile))
    text, one, many = layer.inputs(rows, ROW), layer.inputs(1, 1), layer.inputs(batch, 1)
    past_one, past_many = layer.past(1), layer.past(batch)
    hidden_states, head = layer.inputs(1, min(tokens, 256))[0], layer.inputs(1, vocabulary)[0]
    with torch.inference_mode():
        read = clock(lambda: layer.forward(text)) / tokens
        write_one = clock(lambda: layer.write(one, past_one), gain=0.0)
        write_many = clock(lambda: layer.write(many, past_many))
        last = clock(lambda: torch.nn.functional.linear(hidden_states, head)) / len(hidden_states)
    learn = clock(lambda: layer.learn(text)) / tokens
    return Speed(learn=learn, read=read, write_one=write_one, write_batch=write_many, batch=batch, head=last)


class _MinTimer:
    """Shortest time of a call, after a first one for the setup: other programs can only make it slower.

    On a busy CPU threads wait for one another, so the processor time of one thread, divided by the usual speedup of more
    threads, is taken where it is shorter.
    """

    def __init__(self, torch: Any, device: str, threads: int) -> None:
        self._wait: Callable[[], None] = torch.cuda.synchronize if device == "cuda" else lambda: None
        self._set_threads: Callable[[int], None] = torch.set_num_threads
        self._threads = threads if device == "cpu" else 1

    def __call__(self, work: Callable[[], Any], *, gain: float = GAIN) -> float:
        """Time ``work``; ``gain`` is the exponent of its speedup by threads."""
        self._set_threads(self._threads)
        together = self._best(work, time.perf_counter)
        if self._threads == 1:
            return together
        self._set_threads(1)
        return min(together, self._best(work, time.process_time) / self._threads**gain)

    def _best(self, work: Callable[[], Any], clock: Callable[[], float]) -> float:
        work()
        best, until = math.inf, time.perf_counter() + SECONDS
        while time.perf_counter() < until or best == math.inf:
            self._wait()
            started = clock()
            work()
            self._wait()
            best = min(best, clock() - started)
        return best


class _Layer:
    """Norm, attention and MLP with frozen random weights, and a trained low-rank update beside each linear part."""

    def __init__(self, torch: Any, device: str, dtype: Any, hidden: int, intermediate: int, rank: int) -> None:
        self.torch, self.device, self.dtype, self.hidden = torch, device, dtype, hidden
        sizes = [(hidden, hidden)] * 4 + [(hidden, intermediate)] * 2 + [(intermediate, hidden)]
        self.weights = [self._random(out, into) for into, out in sizes]
        self.down = [self._random(rank, into).requires_grad_() for into, _ in sizes]
        self.up = [self._random(out, rank).requires_grad_() for _, out in sizes]
        self.norm = self._random(hidden)

    def _random(self, *shape: int) -> Any:
        return (self.torch.randn(*shape, device=self.device) * 0.02).to(self.dtype)

    def inputs(self, rows: int, length: int) -> Any:
        """Return random activations (rows, length, hidden)."""
        return self._random(rows, length, self.hidden)

    def _linear(self, part: int, x: Any) -> Any:
        function = self.torch.nn.functional
        return function.linear(x, self.weights[part]) + function.linear(
            function.linear(x, self.down[part]), self.up[part]
        )

    def _plain(self, part: int, x: Any) -> Any:
        return self.torch.nn.functional.linear(x, self.weights[part])

    def _heads(self, x: Any) -> Any:
        return x.view(x.shape[0], x.shape[1], -1, HEAD).transpose(1, 2)

    def forward(self, x: Any, linear: Any = None, past: Any = None) -> Any:
        """Return the output of the layer; ``past`` (rows, heads, context, 64) has earlier keys and values."""
        function, linear = self.torch.nn.functional, linear or self._linear
        inner = function.rms_norm(x, (self.hidden,), self.norm)
        query, key, value = (self._heads(linear(part, inner)) for part in range(3))
        if past is not None:
            key, value = self.torch.cat((past, key), 2), self.torch.cat((past, value), 2)
        mixed = function.scaled_dot_product_attention(query, key, value, is_causal=past is None)
        x = x + linear(3, mixed.transpose(1, 2).reshape(x.shape))
        inner = function.rms_norm(x, (self.hidden,), self.norm)
        return x + linear(6, function.silu(linear(4, inner)) * linear(5, inner))

    def past(self, rows: int) -> Any:
        """Return keys or values of ``CONTEXT`` earlier tokens."""
        return self._random(rows, self.hidden // HEAD, CONTEXT, HEAD)

    def write(self, x: Any, past: Any) -> Any:
        """Compute one new token per row, after those of ``past``; adapters are merged by then."""
        return self.forward(x, self._plain, past)

    def learn(self, x: Any) -> None:
        """Forward and backward, down to the input, as a layer in the middle of a model must."""
        start = x.detach().requires_grad_()
        self.forward(start).sum().backward()
