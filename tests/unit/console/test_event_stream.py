"""The stream: a change is heard soon, nobody looks while nobody listens, a session that ends ends its stream."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path

from console_projects import NOW, build
from console_records import URL

from tunectl.artifacts import lock
from tunectl.backends.storage import inference_log_sql
from tunectl.console.event_stream import LOOK_SECONDS, MAX_STREAMS, ChangeWatcher, stamp_project, stream_changes
from tunectl.console.read_context import ReadContext
from tunectl.console.screen_table import SCREENS
from tunectl.inference_log.log_store import LogEvent
from tunectl.retraining.run_store import ApprovalDecision, RunStore


def test_a_change_reaches_all_listeners_and_the_thread_ends_with_the_last() -> None:
    async def play() -> None:
        stamp, before = [0], set(threading.enumerate())

        def is_watched() -> bool:
            return any(thread.name == "changes" for thread in set(threading.enumerate()) - before)

        watcher = ChangeWatcher(lambda: stamp[0], seconds=0.02)
        assert not is_watched()
        streams = [stream_changes(watcher, watcher.subscribe(), lambda: True) for _ in range(3)]
        assert all([b"hello" in await anext(one) for one in streams])
        assert is_watched()
        await asyncio.sleep(0.05)
        stamp[0] = 1
        for one in streams:
            assert b"event: changed" in await asyncio.wait_for(anext(one), 2)
        for one in streams:
            await one.aclose()
        end = time.monotonic() + 2
        while is_watched() and time.monotonic() < end:
            await asyncio.sleep(0.02)
        assert not is_watched()

    asyncio.run(play())


def test_a_change_is_told_at_the_first_look_after_it() -> None:
    """A look a second, and none in vain: a page hears of a change within two seconds. Looks are counted, so a busy machine fails nothing."""
    told, looks = threading.Event(), []

    def take() -> bool:
        looks.append(
            len(looks) < 2 or told.wait(20)
        )  # the third look begins only when the page has heard of the second
        return len(looks) > 1

    async def play() -> None:
        watcher = ChangeWatcher(take, seconds=0.02)
        stream = stream_changes(watcher, watcher.subscribe(), lambda: True)
        await anext(stream)
        assert b"event: changed" in await anext(stream)
        told.set()
        await stream.aclose()

    asyncio.run(play())
    assert all(looks)
    assert LOOK_SECONDS <= 1


def test_a_stamp_that_fails_ends_no_updates() -> None:
    async def play() -> None:
        stamp: list[int | None] = [0]

        def take() -> int:
            if stamp[0] is None:
                raise OSError("a folder that went away")
            return stamp[0]

        watcher = ChangeWatcher(take, seconds=0.02)
        stream = stream_changes(watcher, watcher.subscribe(), lambda: True)
        await anext(stream)
        stamp[0] = None
        await asyncio.sleep(0.1)
        stamp[0] = 1
        assert b"event: changed" in await asyncio.wait_for(anext(stream), 2)
        await stream.aclose()

    asyncio.run(play())


def test_a_stream_ends_with_its_session() -> None:
    async def play() -> None:
        watcher, open_ = ChangeWatcher(lambda: 0, seconds=0.02), [True]
        stream = stream_changes(watcher, watcher.subscribe(), lambda: open_[0], heartbeat_seconds=0.02)
        await anext(stream)
        assert await anext(stream) == b": beat\n\n"
        open_[0] = False
        assert [one async for one in stream] in ([], [b": beat\n\n"])

    asyncio.run(play())


def test_so_many_streams_are_open_at_most() -> None:
    async def play() -> None:
        watcher = ChangeWatcher(lambda: 0, seconds=0.02)
        heard = [watcher.subscribe() for _ in range(MAX_STREAMS)]
        assert watcher.subscribe() is None
        watcher.unsubscribe(heard[0])
        assert watcher.subscribe() is not None

    asyncio.run(play())


def test_each_record_changes_the_stamp(tmp_path: Path) -> None:
    layout = build(tmp_path / "shop")
    for name in ("progress/sft.jsonl", "failure.json", "releases/events.jsonl", "runs/a.json", "retrain/inbox/a.json"):
        before = stamp_project(layout)
        path = layout.state_dir / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as stream:
            stream.write("x")
        assert stamp_project(layout) != before, name


def test_what_the_settings_place_changes_the_stamp(tmp_path: Path) -> None:
    layout = build(tmp_path / "shop")
    settings = ReadContext(layout, NOW).load_settings()
    (layout.releases / "experiments").mkdir(exist_ok=True)
    names = ["judgments/annotations.jsonl", "judgments/tasks.jsonl", ".tunectl/keys.json"]
    for name in [*names, ".tunectl/releases/experiments/a.json"]:
        before = stamp_project(layout, settings)
        with (layout.root / name).open("a") as stream:
            stream.write("x")
        assert stamp_project(layout, settings) != before, name
    for path in (layout.root / "judgments" / ".lock", layout.retrain / ".lock"):
        before = stamp_project(layout, settings)
        with lock.file_lock(path, "tunectl annotate"):
            assert stamp_project(layout, settings) != before, path


def test_looking_at_the_screens_is_no_change_to_hear_of(tmp_path: Path) -> None:
    layout = build(tmp_path / "shop")
    context = ReadContext(layout, NOW)
    before = stamp_project(layout)
    for screen in SCREENS:
        if "{" not in screen.path:
            screen.read(context, {})
            assert stamp_project(layout) == before, screen.path


def test_what_is_decided_and_logged_is_heard_of(tmp_path: Path) -> None:
    layout = build(tmp_path / "shop")
    stamps = [stamp_project(layout)]
    for number in range(2):
        answer = ApprovalDecision(approved=True, at=NOW, author="ann", nonce="n")
        assert RunStore(layout.retrain).record_decision(f"{number:012d}-1", "retrain", answer)
        stamps.append(stamp_project(layout))
    with inference_log_sql.open_log(
        URL, layout.root
    ) as log:  # a server, which goes on: all it wrote lies in the journal
        for number in range(2):
            log.add_event(LogEvent(f"event-{number}", NOW, "example", {}))
            stamps.append(stamp_project(layout))
    assert len({str(stamp) for stamp in stamps}) == 5
