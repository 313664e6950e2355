"""A key-value cache that grows without copying itself at every token (a cache class for transformers)."""

from __future__ import annotations

import copy
from functools import cache as once
from typing import Any

from tunectl.core.optional import import_optional

ROOM = 64
"""Free positions that are added at each growth."""


@once
def _roomy_layer() -> type[Any]:
    """Return the layer class; defined on first use because its base is transformers'."""
    dynamic = import_optional("transformers.cache_utils", extra="train").DynamicLayer

    class RoomyLayer(dynamic):  # type: ignore[misc, valid-type]
        """Keys and values are views of larger buffers, so that a new token is written in place.

        transformers' own layer concatenates, which for 32 rows of 700 tokens copies half a gigabyte per token.
        """

        keys: Any
        values: Any

        def __init__(self, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self._buffers: tuple[Any, Any] | None = None
            self._views: tuple[Any, Any] | None = None

        def update(self, key_states: Any, value_states: Any, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
            """Append; shapes (batch, heads, tokens, size)."""
            if not self.is_initialized:
                self.lazy_initialization(key_states, value_states)
            old = self.get_seq_length()
            new = old + key_states.shape[-2]
            if not self._fits(new):
                self._buffers = (
                    _grow_buffer(self.keys, key_states, old, new + ROOM),
                    _grow_buffer(self.values, value_states, old, new + ROOM),
                )
            assert self._buffers is not None
            keys, values = self._buffers
            keys[..., old:new, :] = key_states
            values[..., old:new, :] = value_states
            self.keys, self.values = keys[..., :new, :], values[..., :new, :]
            self._views = (self.keys, self.values)
            return self.keys, self.values

        def _fits(self, length: int) -> bool:
            # reordering or selecting rows replaces keys and values: the buffers are stale then
            current = self._views is not None and self.keys is self._views[0] and self.values is self._views[1]
            return current and self._buffers is not None and length <= self._buffers[0].shape[-2]

    return RoomyLayer


def _grow_buffer(have: Any, fresh: Any, length: int, room: int) -> Any:
    """Return a buffer with space for ``room`` tokens that begins with the ``length`` tokens of ``have``."""
    shape = (*fresh.shape[:-2], room, fresh.shape[-1])
    buffer = fresh.new_zeros(shape)
    if length:
        buffer[..., :length, :] = have
    return buffer


def new_cache(config: Any) -> Any:
    """Return an empty transformers cache for a model with ``config``; layers without full attention keep transformers' own class."""
    utils = import_optional("transformers.cache_utils", extra="train")
    cache = utils.DynamicCache(config=config)
    cache.layers = [_roomy_layer()() if type(layer) is utils.DynamicLayer else layer for layer in cache.layers]
    return cache


def expand(shared: Any, rows: int) -> Any:
    """Return a copy of a cache of one row, repeated ``rows`` times."""
    cache = copy.deepcopy(shared)
    cache.batch_repeat_interleave(rows)
    return cache


def clone(original: Any) -> Any:
    """Return a deep copy of a cache, which can be extended without changing the original."""
    return copy.deepcopy(original)
