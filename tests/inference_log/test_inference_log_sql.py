"""The inference log: the same promises on SQLite and on a real PostgreSQL server."""

from __future__ import annotations

import re
import sqlite3
import threading
import time
from contextlib import closing
from datetime import datetime, timedelta, timezone

import msgspec
import pytest
from inference_rows import START, finish, inference, thumb
from msgspec.structs import asdict, replace

from tunectl.backends.storage.inference_log_sql import PAGE, open_log
from tunectl.core.errors import DataError, InfrastructureError, UsageError
from tunectl.inference_log.log_store import FinishedRequest, LogEvent, TimeWindow
from tunectl.inference_log.log_writer import unknown_record


def test_an_inference_and_its_end_come_back_as_they_were(store, url, tmp_path):
    store.write([inference()])
    assert store.inference("chatcmpl-000000") == inference()
    store.write([FinishedRequest("chatcmpl-000000", finish())])
    store.close()
    with open_log(url, tmp_path) as again:
        found = again.inference("chatcmpl-000000")
    assert found == msgspec.structs.replace(inference(), **asdict(finish()))
    assert found.accepted_at.tzinfo is not None
    assert store.inference("nothing") is None


def test_ids_are_idempotent(store):
    assert store.write([inference(), inference(), FinishedRequest("chatcmpl-000000", finish()), thumb(), thumb()]) == [
        "new",
        "known",
        "new",
        "new",
        "known",
    ]
    other = FinishedRequest("chatcmpl-000000", finish(7))
    assert store.write([inference(variant="challenger"), other, thumb(value="down")]) == ["known"] * 3
    assert store.inference("chatcmpl-000000") == replace(inference(), **asdict(finish()))
    assert store.feedback_of(["chatcmpl-000000", "other"]) == {"chatcmpl-000000": [thumb()]}
    assert store.write([thumb()]) == ["known"]
    assert store.write([thumb(id="fb-other")]) == ["new"]


def test_an_id_is_taken_by_one_key_and_free_for_the_others(store):
    """Who guesses ids would else keep the feedback of others out, which are told that it is known."""
    store.write([inference(), inference(1)])
    squatted, own = thumb(id="click-17", key_hash="m"), thumb(1, id="click-17", value="down", key_hash="h")
    assert store.write([squatted, own, own, squatted]) == ["new", "new", "known", "known"]
    assert [one.value for found in store.feedback_of(store_ids(store)).values() for one in found] == ["up", "down"]
    assert store.erase("m", by_key=True) == (0, 1, False)
    assert store.write([squatted, own, thumb(id="click-17")]) == ["known"] * 3  # what was erased stays erased
    assert store.erase("h", by_key=True) == (0, 1, False)
    assert store.write([squatted, own]) == ["known", "known"]


def store_ids(store):
    return [one.id for one in store.inferences()]


def test_what_is_said_about_nothing_is_refused(store):
    assert store.write([FinishedRequest("gone", finish()), thumb()]) == ["unknown", "unknown"]
    assert str(unknown_record(thumb(inference_id="chatcmpl-gone"))) == (
        "inference 'chatcmpl-gone' is not in the inference log\n  take the id of an answer, for example chatcmpl-..."
    )


def test_a_row_that_does_not_fit_leaves_the_batch_out_whole(store):
    with pytest.raises((DataError, ValueError)):
        store.write([inference(), inference(1, accepted_at=datetime(2026, 1, 1))])
    assert store.counts().inferences == 0


def test_spans_pages_and_filters(store):
    rows = [inference(number, variant="challenger" if number % 5 == 0 else "champion") for number in range(PAGE + 7)]
    rows += [inference(number + 10_000, accepted_at=START) for number in range(3)]  # the same moment as the first
    store.write(rows)
    found = list(store.inferences())
    assert [one.id for one in found] == [one.id for one in sorted(rows, key=lambda one: (one.accepted_at, one.id))]
    span = list(store.inferences(START + timedelta(seconds=3), START + timedelta(seconds=6)))
    assert [one.id for one in span] == [f"chatcmpl-{number:06}" for number in (3, 4, 5)]
    elsewhere = START.astimezone(timezone(timedelta(hours=5)))
    assert len(list(store.inferences(elsewhere, elsewhere + timedelta(seconds=1)))) == 4
    assert len(list(store.inferences(variant="challenger"))) == 102
    assert len(list(store.inferences(user_hash="user-0", release="0123456789abcdef"))) == 170
    assert list(store.inferences(release="other")) == []


def test_the_newest_come_first(store):
    store.write([inference(number, variant="challenger" if number % 5 == 0 else "champion") for number in range(12)])
    store.erase("user-2")  # 2, 5, 8, 11
    assert [one.id for one in store.newest(3)] == [f"chatcmpl-{number:06}" for number in (10, 9, 7)]
    assert store.newest(50) == list(store.inferences())[::-1]
    assert [one.id for one in store.newest(1, until=START + timedelta(seconds=6), variant="challenger")] == [
        "chatcmpl-000000"
    ]
    assert store.newest(9, since=START + timedelta(seconds=10), release="other") == store.newest(0) == []
    mine = [one for one in store.newest(50) if one.user_hash == "user-0"]
    assert mine
    assert store.newest(50, user_hash="user-0") == mine
    assert store.newest(50, user_hash="user") == []


def test_a_preference_is_about_two_inferences_that_are_there(store):
    store.write([inference(0), inference(1)])
    good, bad = ({"other": name, "choice": "first"} for name in ("chatcmpl-000001", "ada@example.org"))
    assert store.write([thumb(0, kind="preference", value=good)]) == ["new"]
    missing = thumb(1, kind="preference", value=bad)
    assert store.write([missing]) == ["unknown"]
    assert unknown_record(missing).message == (
        "inference 'chatcmpl-000001', or the other one of the preference, is not in the inference log"
    )
    store.erase("user-1")  # the other one: its id stays, and nobody is in it
    assert store.write([thumb(2, inference_id="chatcmpl-000000", kind="preference", value=good)]) == ["new"]


def test_late_feedback_joins_its_inference(store):
    store.write([inference(number) for number in range(3)])
    store.retain(START)  # deletes nothing
    sale = thumb(1, created_at=START + timedelta(days=90), kind="conversion", value=19.5)
    edit = thumb(9, inference_id="chatcmpl-000001", kind="edit", value="besser 🎈")
    assert store.write([sale]) == store.write([edit]) == ["new"]
    said = store.feedback_of([one.id for one in store.inferences()])
    assert [one.value for one in said["chatcmpl-000001"]] == ["besser 🎈", 19.5]


def test_counts(store):
    store.write([inference(number) for number in range(4)])
    store.write([FinishedRequest("chatcmpl-000001", finish(1)), thumb(1), thumb(2, kind="rating", value=4), thumb(3)])
    store.erase("user-0")
    found = store.counts()
    assert (found.inferences, found.finished, found.erased, found.users) == (4, 1, 2, 2)
    assert found.feedback == {"rating": 1, "thumb": 2}
    assert (found.first, found.last) == (START, START + timedelta(seconds=3))
    assert store.counts(START + timedelta(days=1)) == type(found)(0, 0, 0, 0, {}, None, None)


def test_what_a_key_wrote_is_erased_whomever_it_named(store):
    store.write([replace(inference(number), key_hash="leaked" if number < 2 else "honest") for number in range(4)])
    store.write([replace(thumb(2, annotator="a1"), key_hash="leaked"), replace(thumb(3), key_hash="honest")])
    assert set(store.last_uses()) == {"leaked", "honest"}
    assert store.erase("leaked") == (0, 0, False)  # as a person
    assert store.erase("leaked", by_key=True) == (2, 1, False)
    assert store.erase("leaked", by_key=True) == (0, 0, False)
    assert list(store.tombstones()) == ["chatcmpl-000000", "chatcmpl-000001"]
    found = store.feedback_of(["chatcmpl-000002", "chatcmpl-000003"])
    assert [found[name][0].value for name in sorted(found)] == [None, "up"]
    assert set(store.last_uses()) == {"honest"}


def test_feedback_comes_in_the_order_in_which_it_was_received(store):
    store.write([inference(0)])
    first = replace(thumb(0), id="f1", created_at=START + timedelta(days=9), received_at=START + timedelta(seconds=1))
    store.write([first, replace(thumb(0), id="f2", received_at=START + timedelta(seconds=2))])
    assert [one.id for one in store.feedback_of(["chatcmpl-000000"])["chatcmpl-000000"]] == ["f1", "f2"]


def test_forgetting_leaves_tombstones_and_no_text(store):
    store.write([inference(number) for number in range(6)])
    store.write([FinishedRequest("chatcmpl-000000", finish(0)), thumb(0, kind="edit", value="ganz anders"), thumb(1)])
    store.write([thumb(4, annotator="user-0", kind="edit", value="von ihm")])
    assert store.erase("user-0") == (2, 2, False)
    assert store.erase("user-0") == (0, 0, False)
    assert list(store.tombstones()) == ["chatcmpl-000000", "chatcmpl-000003"]
    assert [one.id for one in store.inferences()] == [f"chatcmpl-{number:06}" for number in (1, 2, 4, 5)]
    gone = store.inference("chatcmpl-000000")
    assert (gone.request, gone.response, gone.session, gone.user_hash) == (None,) * 4
    assert gone.erased_at is not None
    assert gone.completion_tokens == 7  # a number is nobody's
    said = store.feedback_of(["chatcmpl-000000", "chatcmpl-000001", "chatcmpl-000004"])
    assert [said[name][0].value for name in sorted(said)] == [None, "up", None]
    # what comes late brings nothing back
    assert store.write([inference(0), FinishedRequest("chatcmpl-000003", finish(3))]) == ["known", "new"]
    store.write([thumb(30, inference_id="chatcmpl-000003", kind="edit", value="spät")])
    assert store.inference("chatcmpl-000003").response is None
    assert store.feedback_of(["chatcmpl-000003"])["chatcmpl-000003"][0].value is None
    assert [event.body for event in store.events(kind="erased")] == [
        {"inferences": 2, "feedback": 2},
        {"inferences": 0, "feedback": 0},
    ]
    assert store.retain(START + timedelta(days=400)) == 4
    assert list(store.tombstones()) == [
        "chatcmpl-000000",
        "chatcmpl-000003",
    ]  # an older snapshot must still leave them out


@pytest.mark.parametrize("way", ["erase", "retain"])
def test_what_is_said_at_that_very_moment_goes_as_well(store, way):
    store.write([inference(0), inference(1)])
    said, words = threading.Event(), thumb(0, kind="edit", value="an Wanda")

    def speak() -> None:
        with store._transaction() as connection:
            assert store._write(connection, words) == "new"
            said.set()
            time.sleep(1)  # not yet committed while the other one begins

    speaker = threading.Thread(target=speak)
    speaker.start()
    assert said.wait(30)
    if way == "erase":
        assert store.erase("user-0") == (1, 1, False)
    else:
        assert store.retain(START + timedelta(seconds=1)) == 1
    speaker.join()
    left = store.feedback_of(["chatcmpl-000000"])
    assert [(one.value, one.annotator) for one in left.get("chatcmpl-000000", [])] == (
        [(None, None)] if way == "erase" else []
    )


def test_retention_deletes_inferences_with_what_was_said(store):
    store.write([*(inference(number) for number in range(PAGE + 3)), thumb(0), thumb(PAGE + 1)])
    assert store.retain(START + timedelta(seconds=PAGE + 1)) == PAGE + 1
    assert [one.id for one in store.inferences()] == [f"chatcmpl-{PAGE + number:06}" for number in (1, 2)]
    assert store.feedback_of(["chatcmpl-000000", f"chatcmpl-{PAGE + 1:06}"]) == {
        f"chatcmpl-{PAGE + 1:06}": [thumb(PAGE + 1)]
    }
    store.purge()
    assert store.counts().inferences == 2


def test_windows_and_events(store):
    window = TimeWindow(
        "w1", START, START + timedelta(days=1), START + timedelta(days=2), {"verdict": "quiet", "rows": 3}
    )
    assert (store.add_window(window), store.add_window(window)) == (True, False)
    assert store.windows() == [window]
    assert store.windows(START + timedelta(days=3)) == []
    events = [LogEvent(f"e{number}", START + timedelta(hours=number), "swap", {"to": number}) for number in range(3)]
    for event in reversed(events):
        assert store.add_event(event)
    assert store.events() == events
    assert store.events(START + timedelta(hours=2), "swap") == events[2:]
    assert store.events(kind="other") == []


def test_several_threads_write_at_once(store):
    def work(part: int) -> None:
        for number in range(part, 120, 4):
            store.write([inference(number)])
            store.write([inference(0)])

    threads = [threading.Thread(target=work, args=(part,)) for part in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.counts().inferences == 120


def test_two_processes_may_open_the_same_store_at_once(url, tmp_path):
    with open_log(url, tmp_path) as one, open_log(url, tmp_path) as two:
        one.write([inference()])
        assert two.inference("chatcmpl-000000") == inference()
        assert two.erase("user-0") == (1, 0, False)
        assert list(one.inferences()) == []


def test_sqlite_is_set_up_to_lose_nothing_and_to_forget(tmp_path):
    with open_log("sqlite:///live/a.sqlite", tmp_path) as store, store._engine.connect() as connection:
        asked = [connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in ("journal_mode", "synchronous")]
        assert asked == ["wal", 2]
        assert connection.exec_driver_sql("PRAGMA secure_delete").scalar() == 1
    assert (tmp_path / "live/a.sqlite").is_file()


def test_forgotten_text_is_not_in_the_files_of_sqlite(tmp_path):
    with open_log("sqlite:///a.sqlite", tmp_path) as store:
        for number in range(300):
            secret = {"messages": [{"role": "user", "content": f"Kanarienvogel {number} " + "x" * (number * 37)}]}
            store.write([inference(number, request=secret, user_hash="one" if number % 2 else "two")])
        assert b"Kanarienvogel 7 " in b"".join(path.read_bytes() for path in tmp_path.iterdir())
        assert store.erase("one") == (150, 0, False)
        left = b"".join(path.read_bytes() for path in tmp_path.iterdir())
        assert b"Kanarienvogel 8 " in left
        assert not re.search(rb"Kanarienvogel \d*[13579] ", left)


def test_a_second_server_on_one_sqlite_file_is_refused(tmp_path):
    with (
        open_log("sqlite:///a.sqlite", tmp_path, serving=True) as first,
        pytest.raises(InfrastructureError) as caught,
        open_log("sqlite:///a.sqlite", tmp_path, serving=True),
    ):
        pass
    assert str(caught.value).startswith(
        f"{tmp_path}/a.sqlite: another server writes to this inference log: tunectl serve, "
    )
    assert str(caught.value).endswith(
        "\n  stop it, give this one another inference_log.url, or let both use PostgreSQL"
    )
    with open_log("sqlite:///a.sqlite", tmp_path) as reader:  # commands come in beside the server
        assert reader.counts().inferences == 0
    first.close()


def test_a_database_that_is_no_database(tmp_path):
    (tmp_path / "a.sqlite").write_bytes(b"no database at all, but long enough to be looked at " * 40)
    with pytest.raises(InfrastructureError) as caught, open_log("sqlite:///a.sqlite", tmp_path):
        pass
    assert str(caught.value) == (
        f"inference log sqlite:///{tmp_path}/a.sqlite: file is not a database\n"
        "  check the free space and the rights of that file, or the server"
    )


def test_other_databases_are_refused(tmp_path):
    for url, message in (
        (
            "mysql://u:secret@host/d",
            "inference_log.url is the address of a mysql database; only SQLite and PostgreSQL are supported",
        ),
        ("sqlite://", "inference_log.url is an SQLite address without a file"),
        (
            "nonsense",
            "inference_log.url is malformed: not the address of a database (not shown: it may hold a password)",
        ),
    ):
        with pytest.raises(UsageError) as caught, open_log(url, tmp_path):
            pass
        assert str(caught.value) == f"{message}\n  write sqlite:///FILE or postgresql://USER@HOST/NAME"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://me:secret@127.0.0.1:9/live", "me:***@127.0.0.1:9/live"),
        ("postgresql://127.0.0.1:9/live?password=secret&user=me", "127.0.0.1:9/live?password=***&user=me"),
    ],
)
def test_a_server_that_is_away_is_named_without_its_password(tmp_path, url, shown):
    with pytest.raises(InfrastructureError) as caught, open_log(url, tmp_path):
        pass
    assert f"postgresql+psycopg://{shown}: connection failed" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_postgres_comes_back_after_a_crash(postgres, tmp_path):
    with open_log(postgres.database("tests"), tmp_path) as store:
        store.write([inference(number) for number in range(50)])
        with postgres.stopped(), pytest.raises(InfrastructureError):
            store.write([inference(50)])
        store.write([inference(51)])
        assert store.counts().inferences == 51


def test_postgres_without_fsync_is_refused(postgres, tmp_path):
    import psycopg

    url = postgres.database("tests")
    admin = f"postgresql://tunectl@127.0.0.1:{postgres.port}/postgres"
    for setting in ("off", "on"):
        with psycopg.connect(admin, autocommit=True) as connection:
            connection.execute(f"ALTER SYSTEM SET fsync = {setting}")
            connection.execute("SELECT pg_reload_conf()")
        shown = ""
        while shown != setting:
            with psycopg.connect(admin) as connection:
                shown = connection.execute("SHOW fsync").fetchone()[0]
        if setting == "off":
            with pytest.raises(InfrastructureError) as caught, open_log(url, tmp_path):
                pass
            assert str(caught.value) == (
                "the PostgreSQL server runs with fsync = off, so nothing it confirms survives a power cut\n"
                "  set fsync = on in its postgresql.conf"
            )


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
def test_postgres_keeps_all_text_or_is_refused(postgres, tmp_path, encoding):
    import psycopg

    server, name = f"postgresql://tunectl@127.0.0.1:{postgres.port}", f"in_{encoding.lower()}"
    with psycopg.connect(f"{server}/postgres", autocommit=True) as connection:
        connection.execute(f"DROP DATABASE IF EXISTS {name}")
        connection.execute(f"CREATE DATABASE {name} ENCODING '{encoding}' TEMPLATE template0")
    if encoding == "SQL_ASCII":  # knows of no encoding, and keeps what it is given
        told = inference(session="Käse 🧀")
        with open_log(f"{server}/{name}", tmp_path) as store:
            store.write([told])
            assert store.inference(told.id) == told
        return
    with pytest.raises(InfrastructureError) as caught, open_log(f"{server}/{name}", tmp_path):
        pass
    assert str(caught.value) == (
        f"the PostgreSQL database {name} stores text as LATIN1, which lacks most characters\n"
        "  create it again: CREATE DATABASE ... ENCODING 'UTF8' TEMPLATE template0"
    )


def test_times_are_kept_in_utc(tmp_path):
    with open_log("sqlite:///a.sqlite", tmp_path) as store:
        store.write([inference(accepted_at=datetime(2026, 3, 1, 5, tzinfo=timezone(timedelta(hours=3))))])
    with closing(sqlite3.connect(tmp_path / "a.sqlite")) as connection:
        raw = connection.execute("SELECT accepted_at FROM inferences").fetchone()[0]
    assert raw == "2026-03-01 02:00:00.000000"
