"""The inference log of tunectl 0.1: migrated whole or not at all, on both databases, and nothing is lost."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa
from conf_copy import copy_conf
from inference_rows import inference, thumb
from msgspec import to_builtins
from old_inference_log import (
    ERASED,
    EXPECTED,
    FEEDBACK,
    INFERENCE,
    copy_database,
    copy_project,
    expected_events,
    expected_windows,
    rename,
    restore_database,
)

from tunectl.artifacts import lock
from tunectl.artifacts.records import DriftWindow
from tunectl.backends.storage import inference_log_migration, inference_log_schema
from tunectl.backends.storage.inference_log_sql import SqlInferenceLog, open_log
from tunectl.cli.main import main
from tunectl.config.schema.curate import PiiConfig
from tunectl.config.schema.inference_log import InferenceLogConfig
from tunectl.core.errors import ArtifactError, InfrastructureError
from tunectl.inference_log import erasure, project_folder, pseudonyms, snapshot, training_window
from tunectl.monitoring import reference_data

LIVE = EXPECTED["live"]
IDS = [one["id"] for one in LIVE["exchanges"]]


@pytest.fixture
def old(request: pytest.FixtureRequest, url: str, tmp_path: Path) -> str:
    """The database of 0.1, SQLite and PostgreSQL."""
    return copy_database(tmp_path / "old") if url.startswith("sqlite") else restore_database(url)


def settings(**changes) -> InferenceLogConfig:
    values = {
        "url": "sqlite:///.tunectl/inference_log/inference_log.sqlite",
        "url_env": "NOT_SET",
        "replicas": 1,
        "disk_full": "serve_and_count",
        "write_timeout_seconds": 1.0,
        "max_buffered_rows": 10,
        "max_buffered_bytes": 1_000_000,
        "retention_days": None,
        "hash_key_file": ".tunectl/inference_log/hash_key",
        "hash_key_env": "NOT_SET_EITHER",
        "logprob_share": 1.0,
        "pii": PiiConfig(kinds=["email"], regions=["US"], locales=["en_US"], keep=[]),
    }
    return InferenceLogConfig(**{**values, **changes})


def migrated(url: str, folder: Path) -> SqlInferenceLog:
    done = inference_log_migration.migrate(url, folder)
    assert (done.from_version, done.to_version) == ("0001", inference_log_migration.CURRENT)
    assert done.rows == {"inferences": 54, "feedback": 44, "windows": 10, "events": 21}
    return SqlInferenceLog(url, folder)


def test_nothing_is_lost(old: str, tmp_path: Path) -> None:
    with closing(migrated(old, tmp_path)) as store:
        assert [to_builtins(one) for one in store.inferences(erased=True)] == [
            rename(one, INFERENCE) for one in LIVE["exchanges"]
        ]
        found = {one.id: to_builtins(one) for ones in store.feedback_of(IDS).values() for one in ones}
        assert {name for name, one in found.items() if one.pop("erased_at", None)} == ERASED
        assert found == {one["id"]: rename(one, FEEDBACK) for one in LIVE["feedback"]}
        assert [to_builtins(one) for one in store.windows()] == expected_windows()
        key = lambda one: one["id"]
        assert sorted((to_builtins(one) for one in store.events()), key=key) == sorted(expected_events(), key=key)
        counts = to_builtins(store.counts())
        assert counts == rename(LIVE["counts"], {"exchanges": "inferences", "forgotten": "erased"})
        assert list(store.tombstones()) == LIVE["tombstones"]


def test_the_monitor_reads_its_windows_again(old: str, tmp_path: Path) -> None:
    with closing(migrated(old, tmp_path)) as store:
        found = reference_data.list_closed_windows(store)
        assert [[one.id, one.verdict] for one in found] == [row[:2] for row in LIVE["closed_windows"]]
        assert all(isinstance(one, DriftWindow) for one in found)
        named = reference_data.windows.find_accepted_windows(
            [one.body for one in store.events(kind=reference_data.windows.REFERENCE_SET)]
        )
        assert named == LIVE["accepted_windows"]


def test_the_key_of_the_hashes_is_still_accepted_and_no_other(old: str, tmp_path: Path) -> None:
    project = copy_project(tmp_path / "project")
    project_folder.move(project, {})
    live = settings()
    key = pseudonyms.load_hash_key(live, project, make=False)
    with closing(migrated(old, tmp_path)) as store:
        pseudonyms.register_hash_key(store, live, key)
        assert [one.id for one in store.events(kind="hash_key")] == ["hash_key"], "no second one beside it"
        with pytest.raises(InfrastructureError, match="hashed with another key"):
            pseudonyms.check_hash_key(store, live, b"another key of 32 hexadecimals..")
        for name in LIVE["of_user"]:
            hashed = pseudonyms.pseudonymize(name, key)
            assert [one.id for one in store.inferences(user_hash=hashed)] == LIVE["of_user"][name]


def test_feedback_without_a_value_is_not_taken_for_erased(old: str, tmp_path: Path) -> None:
    with closing(migrated(old, tmp_path)) as store:
        found = erasure.find_erased(store, IDS)
        assert found == {*LIVE["tombstones"], *ERASED}


def test_a_click_without_a_value_is_erased_with_its_person(store: SqlInferenceLog) -> None:
    store.write(
        [
            inference(1),
            inference(2),
            thumb(1, kind="click", value=None),
            thumb(2, kind="click", value=None, annotator="b"),
        ]
    )
    names = ["chatcmpl-000001", "chatcmpl-000002"]
    assert erasure.find_erased(store, names) == set()
    assert store.erase("b").feedback == 1
    assert erasure.find_erased(store, names) == {"fb-2"}


def schema(url: str, folder: Path) -> dict[str, object]:
    engine = inference_log_schema.engine(url, folder)
    try:
        inspected = sa.inspect(engine)
        found = {}
        for name in inspected.get_table_names():
            columns = [(one["name"], str(one["type"]), one["nullable"]) for one in inspected.get_columns(name)]
            indexes = sorted((one["name"], one["column_names"]) for one in inspected.get_indexes(name))
            found[name] = (columns, indexes, inspected.get_pk_constraint(name))
        return found
    finally:
        engine.dispose()


def test_a_migrated_database_has_the_tables_of_a_new_one(
    request: pytest.FixtureRequest, old: str, tmp_path: Path
) -> None:
    new = f"sqlite:///{tmp_path}/new.sqlite"
    if not old.startswith("sqlite"):
        new = request.getfixturevalue("postgres").database("new")
    SqlInferenceLog(new, tmp_path).close()
    migrated(old, tmp_path).close()
    assert schema(old, tmp_path) == schema(new, tmp_path)
    assert len(schema(new, tmp_path)) == 5


def test_all_revisions_together_make_the_tables_of_a_new_one(
    url: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """The version of the code is that of the newest revision."""
    SqlInferenceLog(url, tmp_path).close()
    other = f"sqlite:///{tmp_path}/other.sqlite"
    if not url.startswith("sqlite"):
        other = request.getfixturevalue("postgres").database("other")
    engine = inference_log_schema.engine(other, tmp_path)
    with engine.connect().execution_options(writes=True) as connection, connection.begin():
        inference_log_migration._run_revisions(connection, "")
        assert inference_log_migration.read_version(connection) == inference_log_migration.CURRENT
    engine.dispose()
    assert schema(url, tmp_path) == schema(other, tmp_path)


def test_sqlite_is_copied_and_migrated_when_it_is_opened(tmp_path: Path) -> None:
    url, file = copy_database(tmp_path), tmp_path / "log.sqlite"
    file.chmod(0o600)
    with open_log(url, tmp_path) as store:
        assert store.counts().inferences == 54
        copy = tmp_path / "log.sqlite.version-0001"
        assert inference_log_migration.copies(file) == [copy]
        assert copy.stat().st_mode & 0o777 == 0o600
        with closing(sqlite3.connect(copy)) as connection:
            assert connection.execute("SELECT count(*) FROM exchanges").fetchone() == (54,)
    before = copy.stat().st_mtime_ns
    with open_log(url, tmp_path) as store:
        assert copy.stat().st_mtime_ns == before, "nothing is migrated twice"
        store.erase("nobody")
        assert not copy.exists(), "a copy would keep what was erased"


def test_postgres_refuses_until_the_command_was_run(postgres, tmp_path: Path, monkeypatch, capsys) -> None:
    url = restore_database(postgres.database("refuses"))
    with pytest.raises(InfrastructureError) as caught, open_log(url, tmp_path):
        pass
    assert "has schema version 0001; this tunectl needs 0003" in str(caught.value)
    assert str(caught.value).endswith("save it with pg_dump, then: tunectl log migrate")
    project(tmp_path, monkeypatch)
    monkeypatch.setenv("TUNECTL_INFERENCE_LOG_URL", url)
    assert main(["log", "show"]) == 5
    assert main(["log", "migrate"]) == 0
    assert "schema version 0001 to 0003" in capsys.readouterr().out
    assert main(["log", "show", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["counts"]["inferences"] == 54
    assert main(["log", "migrate"]) == 0
    assert (
        "has schema version 0003 already: 54 inferences, 44 feedback, 10 windows, 21 events" in capsys.readouterr().out
    )


def test_postgres_is_not_migrated_under_a_running_server(postgres, tmp_path: Path) -> None:
    import psycopg

    url = restore_database(postgres.database("running"))
    with psycopg.connect(url, application_name="tunectl"):
        with pytest.raises(InfrastructureError, match="1 connections of other tunectl processes") as caught:
            inference_log_migration.migrate(url, tmp_path)
        assert "stop the servers, the monitor and the retrain controller" in str(caught.value)
    migrated(url, tmp_path).close()


def test_a_file_is_not_migrated_under_a_running_server(tmp_path: Path, monkeypatch) -> None:
    url, file = copy_database(tmp_path), tmp_path / "log.sqlite"
    monkeypatch.setattr(inference_log_schema, "BUSY", 0.2)
    with (
        lock.file_lock(Path(f"{file}.lock"), "tunectl serve"),
        pytest.raises(InfrastructureError) as caught,
        open_log(url, tmp_path),
    ):
        pass
    assert f"{file}: this inference log is of an older tunectl and another process writes to it: tunectl serve" in str(
        caught.value
    )
    assert inference_log_migration.copies(file) == []
    with open_log(url, tmp_path, serving=True) as store:
        assert store.counts().inferences == 54


def test_a_newer_one_is_refused(url: str, tmp_path: Path) -> None:
    SqlInferenceLog(url, tmp_path).close()
    engine = inference_log_schema.engine(url, tmp_path)
    with engine.connect().execution_options(writes=True) as connection, connection.begin():
        connection.exec_driver_sql("UPDATE inference_log_version SET version_num = '0999'")
    engine.dispose()
    for call in (lambda: open_log(url, tmp_path).__enter__(), lambda: inference_log_migration.migrate(url, tmp_path)):
        with pytest.raises(InfrastructureError) as caught:
            call()
        text = str(caught.value)
        assert "has schema version 0999; this tunectl knows versions up to 0003" in text
        assert "use the tunectl that wrote it, or a newer one: pip install" in text


OPEN = "from tunectl.backends.storage.inference_log_sql import open_log\nwith open_log({url!r}, Path({root!r})) as store:\n    print(store.counts().inferences)"
MIGRATE = "from tunectl.backends.storage import inference_log_migration as m\nprint(m.migrate({url!r}, Path({root!r})).rows['inferences'])"
KILLS = {
    "before the copy is whole": "m.atomic_io.fsync_directory = die",
    "after the renames": "v.convert_window = die",
    "among the events": "v.convert_event = die",
    "before the commit": "m._count_rows = die",
}


def python(text: str, url: str, root: Path) -> subprocess.Popen:
    text = "from pathlib import Path\n" + text.format(url=url, root=str(root))
    return subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_two_that_open_at_once_migrate_once(old: str, tmp_path: Path) -> None:
    text = OPEN if old.startswith("sqlite") else MIGRATE
    both = [python(text, old, tmp_path) for _ in range(3)]
    for process in both:
        out, errors = process.communicate(timeout=120)
        assert (process.returncode, out) == (0, "54\n"), errors
    with closing(SqlInferenceLog(old, tmp_path)) as store:
        assert len(store.events()) == 21


@pytest.mark.parametrize(
    ("url", "point"),
    [(url, point) for url in ("sqlite", "postgresql") for point in KILLS if url == "sqlite" or "copy" not in point],
    indirect=["url"],
)
def test_a_kill_leaves_it_as_it_was_and_the_next_one_migrates(old: str, point: str, tmp_path: Path) -> None:
    before = schema(old, tmp_path)
    preamble = (
        "import os\nfrom tunectl.backends.storage import inference_log_migration as m\n"
        "from tunectl.inference_log import version_0_1 as v\n"
        "def die(*_):\n    os.kill(os.getpid(), 9)\n" + KILLS[point] + "\n"
    )
    process = python(preamble + MIGRATE, old, tmp_path)
    process.communicate(timeout=120)
    assert process.returncode == -9
    assert schema(old, tmp_path) == before
    test_nothing_is_lost(old, tmp_path)
    if old.startswith("sqlite"):
        assert [one.name for one in (tmp_path / "old").glob("*version*")] == ["log.sqlite.version-0001"]


def test_a_full_disk_leaves_it_as_it_was(tmp_path: Path, monkeypatch) -> None:
    url, file = copy_database(tmp_path), tmp_path / "log.sqlite"
    before = schema(url, tmp_path)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(inference_log_migration.os, "fsync", full)
    with pytest.raises(InfrastructureError, match=r"is not migrated: it cannot be copied to .*No space left"):
        inference_log_migration.migrate(url, tmp_path)
    assert schema(url, tmp_path) == before
    assert inference_log_migration.copies(file) == []


def project(folder: Path, monkeypatch) -> Path:
    """A project of today, with ``conf/``."""
    folder.mkdir(exist_ok=True)
    copy_conf(folder)
    monkeypatch.chdir(folder)
    return folder


def test_the_folder_of_0_1_is_refused_until_it_is_moved(tmp_path: Path, monkeypatch, capsys) -> None:
    copy_project(project(tmp_path, monkeypatch))
    refusals = (
        lambda: open_log(settings().url, tmp_path).__enter__(),
        lambda: pseudonyms.load_hash_key(settings(), tmp_path),
    )
    for call in refusals:
        with pytest.raises(InfrastructureError) as caught:
            call()
        assert str(caught.value).startswith(f"{tmp_path}/.tunectl/live is the inference log of tunectl 0.1")
        assert str(caught.value).endswith("then: tunectl log migrate")
    with pytest.raises(ArtifactError, match=r"live/window.json is of tunectl 0.1.*\n.*tunectl log migrate"):
        training_window.load_window(tmp_path / "inference_log/window.json")
    assert main(["log"]) == 5
    assert not (tmp_path / ".tunectl/inference_log").exists(), "whoever is refused makes nothing"

    assert main(["log", "migrate"]) == 0
    shown = capsys.readouterr().out
    assert ".tunectl/live is .tunectl/inference_log now\n" in shown
    assert "live/window.json is inference_log/window.json now; commit both\n" in shown
    assert "schema version 0001 to 0003 in" in shown
    assert not (tmp_path / ".tunectl/live").exists()
    assert not (tmp_path / "live").exists()
    assert sorted(path.name for path in (tmp_path / ".tunectl/inference_log").iterdir()) == [
        "hash_key",
        "inference_log.sqlite",
        "inference_log.sqlite.lock",
        "inference_log.sqlite.version-0001",
        "snapshots",
    ]
    assert main(["log", "migrate", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["moved"], told["migration"]["from_version"], told["migration"]["copy"]) == ([], "0003", None)


def test_a_move_that_was_killed_goes_on(tmp_path: Path) -> None:
    copy_project(tmp_path)
    (tmp_path / ".tunectl/live/live.sqlite").rename(tmp_path / ".tunectl/live/inference_log.sqlite")
    (tmp_path / ".tunectl/inference_log").mkdir()  # by a build in a worktree
    with pytest.raises(InfrastructureError):
        project_folder.require_new_folder(tmp_path)
    assert [one.old for one in project_folder.move(tmp_path, {})] == [".tunectl/live", "live/window.json"]
    assert (tmp_path / ".tunectl/inference_log/hash_key").is_file()
    assert (tmp_path / ".tunectl/inference_log/inference_log.sqlite").is_file()
    assert project_folder.move(tmp_path, {}) == []


def test_a_folder_that_is_in_use_is_not_moved(tmp_path: Path) -> None:
    copy_project(tmp_path)
    database = tmp_path / ".tunectl/live/live.sqlite"
    with closing(sqlite3.connect(database)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM exchanges").fetchone()
        with pytest.raises(InfrastructureError, match="database is locked"):
            project_folder.move(tmp_path, {})
    with (
        lock.file_lock(Path(f"{database}.lock"), "tunectl serve"),
        pytest.raises(InfrastructureError, match=r"is in use by a server of tunectl 0\.1: tunectl serve"),
    ):
        project_folder.move(tmp_path, {})
    assert database.is_file()


def test_a_setting_that_names_the_old_folder_is_reported_first(tmp_path: Path, monkeypatch, capsys) -> None:
    copy_project(project(tmp_path, monkeypatch))
    monkeypatch.setenv("TUNECTL_INFERENCE_LOG_URL", "sqlite:///.tunectl/live/live.sqlite")
    assert main(["log", "migrate"]) == 2
    assert (
        "a setting names the old folder: inference_log.url = sqlite:///.tunectl/live/live.sqlite"
        in capsys.readouterr().err
    )
    assert (tmp_path / ".tunectl/live/live.sqlite").is_file()


def test_there_is_nothing_to_migrate(tmp_path: Path, monkeypatch, capsys) -> None:
    project(tmp_path, monkeypatch)
    assert main(["log", "migrate"]) != 0
    assert "nothing was logged yet" in capsys.readouterr().err


@pytest.fixture
def moved(tmp_path: Path) -> Path:
    copy_project(tmp_path)
    project_folder.move(tmp_path, {})
    return tmp_path


def test_the_window_file_names_the_same_as_before(moved: Path) -> None:
    named = training_window.load_window(moved / "inference_log/window.json")
    expected = EXPECTED["window_file"]["named"]
    assert named.erased == expected["forgotten"]
    assert named.golden == expected["golden"]
    assert [to_builtins(one) for one in named.snapshots] == [
        rename(one, {"at": "created_at", "exchanges": "inferences"}) for one in expected["snapshots"]
    ]
    text = json.loads((moved / "inference_log/window.json").read_text())
    assert text["version"] == 2
    (moved / "inference_log/window.json").write_text(json.dumps({**text, "version": 3}))
    with pytest.raises(ArtifactError, match="is a feedback window of version 3; this tunectl reads versions up to 2"):
        training_window.load_window(moved / "inference_log/window.json")


def test_snapshots_of_0_1_teach_what_they_taught(moved: Path) -> None:
    named = training_window.load_window(moved / "inference_log/window.json")
    for one in named.snapshots:
        inferences, said = snapshot.read(moved / ".tunectl/inference_log/snapshots", one)
        expected = EXPECTED["snapshots"][one.id]
        assert [row.id for row in inferences] == expected["exchanges"]
        assert {row.id for rows in said.values() for row in rows} == set(expected["feedback"])


def test_purge_writes_a_snapshot_of_0_1_in_the_words_of_today(moved: Path, tmp_path: Path) -> None:
    folder = moved / ".tunectl/inference_log/snapshots"
    name = "a2077593f8e0161a"
    before = snapshot.read_manifest(folder / name)
    rows = list(snapshot.read_inferences(folder / name))
    with open_log("sqlite:///.tunectl/inference_log/inference_log.sqlite", moved) as store:
        store.erase(next(one.user_hash for one in rows if one.user_hash))
        assert erasure.purge(folder, store) > 0
    after = snapshot.read_manifest(folder / name)
    assert not (folder / name / "exchanges.jsonl").exists()
    assert after.purged_from == (before.purged_from or before.digest)
    left, _ = snapshot.read(folder, after)
    assert 0 < len(left) < len(rows)
