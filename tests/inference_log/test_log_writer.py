"""The way into the store: group commit, a full disk, a slow one, and rows that break."""

from __future__ import annotations

import asyncio
import resource
import signal
import subprocess
import threading
import time
from contextlib import contextmanager

import pytest
from inference_rows import finish, inference, thumb

from tunectl.artifacts.records import InferenceRecord
from tunectl.backends.storage.inference_log_sql import SqlInferenceLog, open_log
from tunectl.core.errors import DataError, InfrastructureError
from tunectl.inference_log import log_writer as live_writer
from tunectl.inference_log.log_store import FinishedRequest
from tunectl.inference_log.log_writer import LARGEST_BATCH, LARGEST_BATCH_BYTES, PAUSE, LogWriteError, Writer

LONG = {"messages": [{"role": "user", "content": "x" * 20_000}]}


def same(entry):
    return entry


class Counted(SqlInferenceLog):
    """Counts transactions; each takes at least ``slow`` seconds, as on a slow disk."""

    slow = 0.0

    def __init__(self, *words) -> None:
        super().__init__(*words)
        self.sizes: list[int] = []

    def write(self, entries):
        time.sleep(self.slow)
        self.sizes.append(len(entries))
        return super().write(entries)


def writer(store, policy="refuse", redact=same, **other):
    errors = []
    made = Writer(
        store, redact, policy=policy, on_error=errors.append, **{"timeout_seconds": 60, "waiting": 1000, **other}
    )
    return made, errors


def test_many_at_once_share_a_transaction(url, tmp_path):
    store = Counted(url, tmp_path)
    store.slow = 0.02
    made, errors = writer(store)

    async def one(number):
        assert await made.accept(inference(number))
        assert await made.finish(f"chatcmpl-{number:06}", finish(number))
        assert await made.feedback(thumb(number))
        assert not await made.feedback(thumb(number))

    async def all_of_them():
        await asyncio.gather(*(one(number) for number in range(100)))

    asyncio.run(all_of_them())
    assert made.close()
    assert sum(store.sizes) == 400
    assert len(store.sizes) < 40
    counts = store.counts()
    assert (counts.inferences, counts.finished, counts.feedback) == (100, 100, {"thumb": 100})
    assert errors == []
    store.close()


def test_feedback_about_nothing(store):
    made, errors = writer(store)
    with pytest.raises(DataError, match="inference 'chatcmpl-000005' is not in the inference log"):
        asyncio.run(made.feedback(thumb(5)))
    assert errors == []
    assert made.close()


@contextmanager
def small_disk(folder, bytes_of_it=700_000):
    """A folder that is soon full: a file system of its own, or where that needs other rights a limit on the size of files."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={bytes_of_it}", "tmpfs", str(folder)]
    if subprocess.run(mount, stderr=subprocess.DEVNULL).returncode == 0:
        try:
            (folder / "ballast").write_bytes(b"\0" * (bytes_of_it // 3))
            yield (folder / "ballast").unlink
        finally:
            subprocess.run(["umount", "-l", str(folder)], check=True)
        return
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_of_it, before[1]))
    try:
        yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, before)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


async def until_full(made):
    for number in range(1, 200):
        if not await made.accept(inference(number, request=LONG)):
            return number
    raise AssertionError("the disk never was full")


def test_a_full_disk_is_counted_and_made_up_for_later(tmp_path):
    with small_disk(tmp_path / "disk") as make_room, open_log("sqlite:///a.sqlite", tmp_path / "disk") as store:
        made, errors = writer(store, "serve_and_count")

        async def talk():
            full = await until_full(made)
            assert errors == [1]
            assert "disk" in made.trouble
            assert not await made.finish(f"chatcmpl-{full:06}", finish(full))
            with pytest.raises(LogWriteError):
                await made.feedback(thumb(1))
            assert len(errors) == 3
            make_room()
            await asyncio.sleep(1.5)
            assert await made.accept(inference(500))
            return full

        full = asyncio.run(talk())
        assert made.trouble is None
        assert made.close()
        assert store.counts().inferences == full + 1
        assert store.inference(f"chatcmpl-{full:06}").completion_tokens == 7
        assert len(errors) == 3


def test_a_full_disk_refuses_where_that_is_declared(tmp_path):
    with small_disk(tmp_path / "disk") as make_room, open_log("sqlite:///a.sqlite", tmp_path / "disk") as store:
        made, errors = writer(store)

        async def talk():
            with pytest.raises(LogWriteError) as caught:
                await until_full(made)
            assert str(caught.value).startswith("this inference cannot be logged: inference log sqlite:///")
            assert str(caught.value).endswith("\n  try again later")
            make_room()
            assert await made.accept(inference(500))

        asyncio.run(talk())
        assert errors == [1]
        assert made.close()
        kept = [one.id for one in store.inferences()]
        assert kept == [
            f"chatcmpl-{number:06}" for number in [*range(1, len(kept)), 500]
        ]  # the refused one is not there


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InfrastructureError, match=r"cannot write .*file/sub: Not a directory"):
        SqlInferenceLog("sqlite:///file/sub/a.sqlite", tmp_path)


@pytest.mark.parametrize("policy", ["serve_and_count", "refuse"])
def test_a_slow_disk_delays_no_request(policy, tmp_path):
    store = Counted("sqlite:///a.sqlite", tmp_path)
    store.slow = 2.0
    made, errors = writer(store, policy, timeout_seconds=0.2)

    async def talk():
        start = time.monotonic()
        if policy == "refuse":
            with pytest.raises(
                LogWriteError, match=r"this inference cannot be logged: the disk took longer than 0\.2 s"
            ):
                await made.accept(inference())
        else:
            assert not await made.accept(inference())
        assert time.monotonic() - start < 1.5

    asyncio.run(talk())
    assert errors == [1]
    assert made.close()
    assert store.counts().inferences == 1  # late, but there
    assert errors == [1]
    store.close()


def test_a_row_that_breaks_does_not_take_others_with_it(store):
    def fragile(entry):
        if entry.id.endswith("3"):
            raise RecursionError(entry.request)
        return entry

    made, errors = writer(store, redact=fragile)

    async def talk():
        rows = [inference(number) for number in range(6)]
        rows.append(inference(6, session=object()))  # no column takes this
        return await asyncio.gather(*(made.accept(row) for row in rows), return_exceptions=True)

    kept = asyncio.run(talk())
    assert [one is True for one in kept] == [True, True, True, False, True, True, False]
    assert str(kept[3]).startswith("this inference cannot be logged: it cannot be written: RecursionError")
    assert errors == [1, 1]
    assert made.close()


class Broken:
    """A store whose server never answers."""

    def __init__(self) -> None:
        self.given: list[list[str]] = []
        self.tries = 0
        self.whole = threading.Event()

    def write(self, entries):
        self.tries += 1
        if not self.whole.is_set():
            raise InfrastructureError("no server")
        self.given.append([entry.id for entry in entries])
        return ["new"] * len(entries)


def test_what_waits_is_bounded_keeps_its_order_and_says_what_is_lost(caplog):
    store = Broken()
    made, errors = writer(store, "serve_and_count", waiting=5, timeout_seconds=5)

    async def talk():
        for number in range(8):
            assert not await made.accept(inference(number))
        store.whole.set()

    asyncio.run(talk())
    end = time.monotonic() + 20
    while not store.given and time.monotonic() < end:
        time.sleep(0.05)
    assert made.close()
    assert [name for batch in store.given for name in batch] == [f"chatcmpl-{number:06}" for number in range(5)]
    assert len(errors) == 8
    assert made.lost == 3
    assert (
        caplog.text.count("rows are lost from now on: more wait for the disk than inference_log.max_buffered_rows = 5")
        == 1
    )


def test_what_waits_is_bounded_in_bytes_as_well(caplog):
    store = Broken()
    made, errors = writer(store, "serve_and_count", waiting_bytes=100_000, timeout_seconds=5)

    async def talk():
        for number in range(8):
            assert not await made.accept(inference(number, request=LONG))
        assert not await made.accept(inference(8))  # a small one fits still
        store.whole.set()

    asyncio.run(talk())
    assert until_given(store, 5) == [f"chatcmpl-{number:06}" for number in (0, 1, 2, 3, 8)]
    assert (len(errors), made.lost) == (9, 4)
    assert caplog.text.count("or inference_log.max_buffered_bytes = 100000") == 1
    assert made.close()
    assert (made._queued_bytes, made._writing_bytes) == (0, 0)


@pytest.mark.parametrize("policy", ["serve_and_count", "refuse"])
def test_one_row_alone_may_be_as_large_as_it_is(policy):
    store = Broken()
    made, _ = writer(store, policy, waiting_bytes=10)
    with pytest.raises(LogWriteError):
        made.submit(inference(0, request=LONG)).answer.result(30)
    store.whole.set()
    if policy == "serve_and_count":
        assert until_given(store, 1) == ["chatcmpl-000000"]
    while made._writing_bytes:
        time.sleep(0.01)
    assert made.submit(inference(1, request=LONG)).answer.result(30) == "new"
    assert made.close()


def until_given(store, count):
    end = time.monotonic() + 60
    while sum(map(len, store.given)) < count and time.monotonic() < end:
        time.sleep(0.05)
    return [name for batch in store.given for name in batch]


def test_a_long_outage_delays_nobody_and_burns_nothing():
    store, many = Broken(), LARGEST_BATCH + 100
    made, errors = writer(store, "serve_and_count")
    first = [made.submit(inference(number)) for number in range(many)]
    assert all(isinstance(ticket.answer.exception(30), LogWriteError) for ticket in first)

    async def talk():
        start, tries, number = time.monotonic(), store.tries, many
        while time.monotonic() < start + 1:
            assert not await made.accept(inference(number))  # would wait for its timeout_seconds behind the others
            number += 1
        return number, (store.tries - tries) / (time.monotonic() - start)

    number, pace = asyncio.run(talk())
    assert number > many + 1
    assert pace < 1.5 / PAUSE
    store.whole.set()
    assert until_given(store, number) == [f"chatcmpl-{turn:06}" for turn in range(number)]
    assert len(errors) == number
    assert made.close()


@pytest.mark.parametrize("policy", ["serve_and_count", "refuse"])
def test_the_first_row_after_an_outage_does_not_wait_for_the_next_try(policy, monkeypatch):
    monkeypatch.setattr(live_writer, "RETRY", 50.0)
    store = Broken()
    made, _ = writer(store, policy)
    with pytest.raises(LogWriteError):
        made.submit(inference()).answer.result(30)
    store.whole.set()
    assert made.submit(inference(1)).answer.result(30) == "new"
    assert made.close()


class Picky:
    """Takes no row 1, and is away for the length of its fourth transaction."""

    def __init__(self) -> None:
        self.given: list[list[str]] = []
        self.tries = 0

    def write(self, entries):
        self.tries += 1
        names = [entry.id for entry in entries]
        if "chatcmpl-000001" in names:
            raise ValueError(names)
        if self.tries == 4:
            raise InfrastructureError("no server")
        self.given.append(names)
        return ["new"] * len(entries)


def test_a_row_that_breaks_while_the_disk_says_no_changes_no_order(caplog):
    store = Picky()
    made, errors = writer(store, "serve_and_count")
    with made._wake:  # so that they come in one transaction
        rows = [made.submit(inference(number)) for number in range(6)]
    assert until_given(store, 5) == [f"chatcmpl-{number:06}" for number in (0, 2, 3, 4, 5)]
    assert store.given[1:] == [[f"chatcmpl-{number:06}" for number in (2, 3, 4, 5)]]
    assert [ticket.answer.exception(30) is None for ticket in rows] == [True, False, False, False, False, False]
    assert len(errors) == 5
    assert caplog.text.count("a row cannot be written: ValueError") == 1
    assert made.close()


DENSE = {"messages": [{"role": "user", "content": "DE12 A1B2 " * 4_000}]}


def slow(entry):
    """A masker to which each letter of a large row costs as much as dense text on an old machine."""
    time.sleep(0.8 if len(str(entry)) > LARGEST_BATCH_BYTES else 0.0)
    return entry


def test_large_rows_of_one_key_delay_no_other_key_and_are_no_disk_error(store):
    """Four rows take 3.2 s, and whoever waits for the disk for longer than 2.5 s is refused."""
    made, errors = writer(store, redact=slow, timeout_seconds=2.5)

    async def talk():
        hostile = [
            asyncio.create_task(made.accept(inference(number, request=DENSE, key_hash="hostile")))
            for number in range(4)
        ]
        await asyncio.sleep(0)
        assert await made.accept(inference(100, key_hash="honest"))
        assert await made.accept(inference(200, key_hash="hostile"))  # a small one of its own waits for none of them
        assert not hostile[-1].done()
        for number in range(101, 110):
            assert await made.accept(inference(number, key_hash="honest"))
            assert await made.finish(inference(number).id, finish(number), "honest")
        assert all(await asyncio.gather(*hostile))

    asyncio.run(talk())
    assert errors == []
    assert made.close()


def test_what_is_said_of_a_large_row_waits_for_it(store):
    made, errors = writer(store, redact=slow)
    first = made.submit(inference(0, request=DENSE, key_hash="a"))
    end = made.submit(FinishedRequest(inference(0).id, finish()), "a")
    said = made.submit(thumb(0, key_hash="b"))
    assert not first.answer.done()
    assert [ticket.answer.result(30) for ticket in (first, end, said)] == ["new", "new", "new"]
    assert made.close()
    assert (made._queued_bytes, made._writing_bytes, errors) == (0, 0, [])


def test_what_another_key_says_of_a_row_in_line_does_not_overtake_it(store):
    made, _ = writer(store, redact=slow)
    rows = [made.submit(inference(number, request=DENSE, key_hash="a")) for number in range(3)]
    said = [made.submit(thumb(number, key_hash="b")) for number in (2, 1, 0)]
    assert [ticket.answer.result(30) for ticket in (*rows, *said)] == ["new"] * 6
    with made._wake:  # so that they come in one transaction
        rows = [made.submit(inference(number, key_hash="a")) for number in range(10, 20)]
        said = made.submit(thumb(19, key_hash="b"))
    assert [ticket.answer.result(30) for ticket in (*rows, said)] == ["new"] * 11
    assert made.close()


def test_a_large_row_that_breaks_is_refused_and_closing_waits_for_the_others(store):
    def redact(entry):
        if entry.id.endswith("1"):
            raise RecursionError
        return slow(entry)

    made, errors = writer(store, redact=redact)
    tickets = [made.submit(inference(number, request=DENSE, key_hash="a")) for number in range(3)]
    assert made.close()
    assert [ticket.answer.exception() is None for ticket in tickets] == [True, False, True]
    assert (made._queued_bytes, errors) == (0, [1])


def test_a_closed_writer_takes_nothing(store):
    made, _ = writer(store)
    assert made.close()
    with pytest.raises(LogWriteError, match="the store is closed"):
        made.submit(inference()).answer.result()


def test_closing_with_a_dead_server_ends(caplog):
    made, _ = writer(Broken(), "serve_and_count", timeout_seconds=1)
    asyncio.run(made.accept(inference()))
    assert made.close(20) is False
    assert "the inference log is closed and 1 rows or more are not in it: no server" in caplog.text


def test_who_stops_waiting_does_not_stop_the_row(tmp_path):
    store = Counted("sqlite:///a.sqlite", tmp_path)
    store.slow = 0.3
    made, _ = writer(store)

    async def talk():
        task = asyncio.create_task(made.accept(inference()))
        await asyncio.sleep(0.05)
        task.cancel()  # the client hung up
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await made.finish("chatcmpl-000000", finish())

    asyncio.run(talk())
    assert made.close()
    assert isinstance(store.inference("chatcmpl-000000"), InferenceRecord)
    store.close()
