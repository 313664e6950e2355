"""Run blocking work in daemon threads, so that a hanging call cannot keep the server from stopping.

A process waits for the threads of ``asyncio.to_thread`` before it ends: one that hangs, in a library or on a network, would keep
the server from stopping.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from typing import TypeVar

T = TypeVar("T")


async def run_in_thread(work: Callable[[], T], *, on_late: Callable[[T], object] = lambda _: None) -> T:
    """Run ``work`` in a new daemon thread, and return its result or raise its error.

    A cancelled caller waits no longer; ``on_late`` is then called with the result when it comes, for example to close it.
    """
    future: Future[T] = Future()
    threading.Thread(target=_work, args=(work, future, on_late), name="aside", daemon=True).start()
    try:
        return await asyncio.wrap_future(future)
    except asyncio.CancelledError:
        if not future.cancel() and future.exception() is None:  # the result came at the moment of cancellation
            threading.Thread(target=on_late, args=(future.result(),), name="aside", daemon=True).start()
        raise


def _work(work: Callable[[], T], future: Future[T], on_late: Callable[[T], object]) -> None:
    try:
        result = work()
    except BaseException as error:  # noqa: BLE001  # any error is raised in the waiting caller
        with suppress(InvalidStateError):
            future.set_exception(error)
        return
    try:
        future.set_result(result)
    except InvalidStateError:
        on_late(result)
