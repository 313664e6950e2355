"""Backup and restore: what was confirmed is there, who was erased stays erased, and what cannot be done is said."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from conf_copy import copy_conf
from inference_rows import finish, inference, thumb

from tunectl.access import api_keys, signatures
from tunectl.access.signatures import TrustedKey
from tunectl.artifacts import atomic_io
from tunectl.artifacts.lock import file_lock
from tunectl.artifacts.paths import ProjectPaths
from tunectl.artifacts.records import Example, Message, ReferenceAnswer, Source
from tunectl.backends.storage.inference_log_sql import open_log
from tunectl.backends.storage.object_store import FsspecObjectStore
from tunectl.backup import create, host_state, restore
from tunectl.canary.canary_store import CanaryRecord, CanaryStore
from tunectl.canary.sequential_test import SequentialTestRules
from tunectl.cli.main import main
from tunectl.config.loading import checks
from tunectl.core.errors import ArtifactError, GateError, InfrastructureError, UsageError
from tunectl.inference_log import erasure_ledger, pseudonyms, snapshot
from tunectl.inference_log.log_store import FinishedRequest
from tunectl.registry import release_statement, remote_sync
from tunectl.registry.release_manifest import BuildFacts
from tunectl.registry.release_store import ReleaseRegistry
from tunectl.registry.sequence_guard import SequenceGuard
from tunectl.retraining import golden_set
from tunectl.retraining.run_store import RunStore
from tunectl.retraining.state_machine import Trigger

NOW = datetime.now(UTC)
FACTS = BuildFacts("shop", "openvino", "merged")
PRIVATE = "a very private question"


def write_release(folder: Path, text: str) -> Path:
    folder.mkdir(parents=True)
    (folder / "weights.safetensors").write_text(text)
    return folder


@pytest.fixture
def project(url, tmp_path, monkeypatch):
    """A project with traffic of Ada and of others, keys, two releases, a retrain and a frozen window."""
    home = tmp_path / "project"
    home.mkdir()
    copy_conf(home)
    monkeypatch.chdir(home)
    monkeypatch.delenv("TUNECTL_REGISTRY", raising=False)
    if url.startswith("postgresql"):
        monkeypatch.setenv("TUNECTL_INFERENCE_LOG_URL", url)
    host = describe()
    key = pseudonyms.load_hash_key(host.log_config, home)
    with open_log(host.url, home) as store:
        pseudonyms.register_hash_key(store, host.log_config, key)
        for number in range(6):
            ada = {"user_hash": pseudonyms.pseudonymize("ada", key), "request": {"messages": [{"content": PRIVATE}]}}
            store.write([inference(number, **(ada if number < 2 else {}))])
            store.write([FinishedRequest(f"chatcmpl-{number:06}", finish(number))])
        store.write([thumb(number) for number in range(6)])
        span = {"since": NOW - timedelta(9999), "until": NOW, "at": NOW, "window": None}
        snapshot.freeze(store, Path(host.snapshots), **span)
    secret, entry = api_keys.create_key("laptop", ["chat"], None, NOW)
    api_keys.add(host.keys, entry)
    registry = ReleaseRegistry(host.registry_folder)
    for name in "ab":
        release = registry.add(write_release(tmp_path / name, name), FACTS).id
        registry.promote(release, author="me", message="better")
    RunStore(host.layout.retrain).enqueue_trigger(Trigger("person", "request-1", NOW, "new shops"))
    (host.layout.retrain / "worktree").mkdir()
    (host.layout.retrain / "worktree/scratch").write_text(PRIVATE)
    return secret


def describe():
    layout = ProjectPaths()
    return host_state.describe_host(layout, checks.load_config(layout, []).root)


def lose_everything(url):
    shutil.rmtree(".tunectl")
    if url.startswith("postgresql"):
        import psycopg

        with psycopg.connect(url, autocommit=True) as connection:
            for name in ("inferences", "feedback", "windows", "events", "inference_log_version"):
                connection.execute(f"DROP TABLE {name}")


@pytest.fixture
def database(url):
    """Loses the whole state of the host."""
    return lambda: lose_everything(url)


def holds_text(folder: Path) -> list[str]:
    return [str(path) for path in sorted(folder.rglob("*")) if path.is_file() and PRIVATE.encode() in path.read_bytes()]


def test_what_was_confirmed_is_there_after_a_restore_and_nobody_erased_is(project, database, tmp_path, capsys):
    host, target = describe(), tmp_path / "backups/monday"
    stop, confirmed = threading.Event(), list[str]()

    def load() -> None:
        with open_log(host.url, Path.cwd()) as store:
            number = 100
            while not stop.is_set():
                store.write([inference(number, accepted_at=datetime.now(UTC))])
                confirmed.append(f"chatcmpl-{number:06}")
                number += 1

    writer = threading.Thread(target=load)
    writer.start()
    while len(confirmed) < 20:
        pass
    before = list(confirmed)
    made = create.create_backup(host, target)
    stop.set()
    writer.join()
    assert (made.releases, made.keys, made.inference_log) == (2, 1, "postgresql" if host.database is None else "sqlite")
    assert main(["log", "erase", "--user", "Ada"]) == 0  # after the backup
    champion = ReleaseRegistry(host.registry_folder).champion()
    database()
    capsys.readouterr()
    assert main(["restore", str(target), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["erasures"], shown["erased"], shown["snapshots"]) == (1, 4, 1)
    with open_log(host.url, Path.cwd()) as store:
        known = {one.id for one in store.inferences(erased=True)}
        assert set(before) <= known
        assert sorted(store.tombstones()) == ["chatcmpl-000000", "chatcmpl-000001"]
        assert store.inference("chatcmpl-000000").request is None
        assert store.feedback_of(["chatcmpl-000003"])
        assert store.events(kind="restored")[0].body["erasures"] == 1
        assert main(["log", "erase", "--user", "Ada"]) == 0, "the hash key is the same"
    registry = ReleaseRegistry(host.registry_folder)
    assert registry.champion() == champion
    assert registry.verify(champion.release) == []
    assert [entry.action for entry in registry.log()] == ["add", "promote", "add", "promote"]
    assert [key.sha256 for key in api_keys.read(host.keys)] == [api_keys.hash_key(project)]
    assert [one.id for one in RunStore(host.layout.retrain).list_pending_triggers()] == ["request-1"]
    assert holds_text(Path(".tunectl")) == []
    assert not Path(".tunectl/restore.json").exists()


def test_a_backup_is_private_whole_and_has_no_scratch(project, tmp_path, capsys):
    os.umask(0o022)
    target = tmp_path / "backups/one"
    assert main(["backup", str(target), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert {stat.S_IMODE(path.stat().st_mode) for path in target.rglob("*") if path.is_file()} == {0o600}
    assert {stat.S_IMODE(path.stat().st_mode) for path in (target, *target.rglob("*")) if path.is_dir()} == {0o700}
    assert set(shown["files"]) == {str(path.relative_to(target)) for path in target.rglob("*") if path.is_file()} - {
        "backup.json"
    }
    assert not [name for name in shown["files"] if "worktree" in name or "lock" in name or "gate" in name]
    assert any(one.startswith("DVC's cache") for one in shown["missing"])
    assert sorted(path.name for path in target.parent.iterdir()) == [".tunectl-backup.lock", "erasures.jsonl", "one"]
    assert main(["backup", str(target)]) == 2
    assert capsys.readouterr().err.startswith(f"tunectl: {target} already exists\n")
    assert main(["backup", ".tunectl/retrain/inside"]) == 2


def test_signatures_trusted_keys_and_the_newest_champion_come_back(project, database, tmp_path, monkeypatch):
    monkeypatch.setenv(signatures.TRUSTED_KEYS_ENV, ".tunectl/trusted.json")
    host, path, newest = describe(), Path(".tunectl/trusted.json"), Path(".tunectl/newest_champion.json")
    key = signatures.generate_key(tmp_path / "ci.key")
    signatures.add_trusted_key(path, TrustedKey("ci", "release", key.public_key, NOW))
    registry = ReleaseRegistry(host.registry_folder)
    release = registry.champion().release
    release_statement.sign_release(registry.folder(release), key)
    SequenceGuard(newest).latest(registry.champion(), registry.location)
    statement, remembered = registry.read_statement(release), newest.read_bytes()
    of_monitor = host.layout.monitor_newest_champion
    SequenceGuard(of_monitor).latest(registry.champion(), registry.location)
    create.create_backup(host, tmp_path / "backups/monday")
    assert not list((tmp_path / "backups").rglob("*.key"))
    database()
    restore.restore(describe(), tmp_path / "backups/monday")
    assert (registry.read_statement(release), newest.read_bytes()) == (statement, remembered)
    assert of_monitor.read_bytes() == remembered
    assert [entry.name for entry in signatures.read_trusted_keys(path)] == ["ci"]
    database()
    signatures.add_trusted_key(path, TrustedKey("ci", "release", key.public_key, NOW))
    signatures.revoke_trusted_key(path, "ci")
    restore.restore(describe(), tmp_path / "backups/monday")
    (entry,) = signatures.read_trusted_keys(path)
    assert entry.revoked_at is not None, "a backup makes no revoked key good again"


def freeze_golden_set(store: Path) -> None:
    source = Source("test.jsonl", 1)
    answers = [ReferenceAnswer("an answer", source)]
    examples = [Example(f"e{number}", source, [Message("user", PRIVATE)], answers) for number in range(3)]
    golden_set.freeze(store, examples, 3, seed=7, at=NOW, source="test split")
    golden_set.count_use(store)


def start_canary(registry: ReleaseRegistry) -> CanaryRecord:
    challenger = next(name for name in registry.ids() if name != registry.champion().release)
    rules, until = SequentialTestRules(0.2, 0.0, 0.05, 0.05, 0.05, 50, None), NOW + timedelta(days=7)
    canary = CanaryRecord("one", challenger, "", "click", rules, 24.0, 5.0, NOW, until, "salt", "Ann", "why")
    return CanaryStore(registry).start(canary)


def test_a_golden_set_and_a_running_canary_come_back(project, database, tmp_path):
    host, target = describe(), tmp_path / "backups/one"
    registry = ReleaseRegistry(host.registry_folder)
    freeze_golden_set(registry.root)
    version, folder = golden_set.newest(registry.root)
    examples, canary = golden_set.items(folder, version), start_canary(registry)
    create.create_backup(host, target)
    database()
    os.umask(0o022)
    restore.restore(host, target)
    assert golden_set.newest(registry.root) == (version, folder)
    assert (version.uses, golden_set.items(folder, version)) == (1, examples)
    canaries = CanaryStore(registry)
    assert (canaries.running(), registry.canary().salt, canaries.repair()) == (canary, "salt", False)
    private = {registry.root / "golden", folder, folder / golden_set.ITEMS}
    assert {stat.S_IMODE(path.stat().st_mode) for path in private} == {0o700, 0o600}
    assert stat.S_IMODE((registry.root / "golden").stat().st_mode) == 0o700
    assert stat.S_IMODE((registry.root / "experiments/one.json").stat().st_mode) == 0o644


def test_records_of_a_registry_behind_an_address_are_those_of_the_controllers_folder(project, database, tmp_path):
    host, target = dataclasses.replace(describe(), registry="s3://bucket/shop"), tmp_path / "backups/one"
    registry = ReleaseRegistry(host.layout.root / host.retrain_registry)
    freeze_golden_set(registry.root)
    version, canary = golden_set.newest(registry.root), start_canary(registry)
    made = create.create_backup(host, target)
    assert made.releases == 0
    assert "the registry, which lies at s3://bucket/shop" in made.missing
    with pytest.raises(UsageError, match="a folder that the backup saves"):
        create.create_backup(host, registry.root / "inside")
    database()
    restore.restore(host, target)
    assert golden_set.newest(registry.root) == version
    assert CanaryStore(registry).all() == [canary]
    assert sorted(path.name for path in registry.root.iterdir()) == ["experiments", "golden"]


def test_an_old_backup_with_a_golden_set_among_the_records_of_retrains_is_restored(project, database, tmp_path):
    host, target = describe(), tmp_path / "backups/one"
    create.create_backup(host, target)
    name = "retrain/golden/v1/golden.json"
    (target / name).parent.mkdir(parents=True)
    (target / name).write_text("{}")
    manifest = json.loads((target / "backup.json").read_text())
    manifest["files"][name] = {"sha256": hashlib.sha256(b"{}").hexdigest(), "size": 2}
    (target / "backup.json").write_text(json.dumps(manifest))
    database()
    restore.restore(host, target)
    assert (host.layout.retrain / "golden/v1/golden.json").read_text() == "{}"


def test_restore_takes_no_place_that_is_taken(project, database, tmp_path):
    host, target = describe(), tmp_path / "backups/one"
    create.create_backup(host, target)
    with pytest.raises(UsageError) as error:
        restore.restore(host, target)
    for place in (host.hash_key, host.keys, host.snapshots, host.registry_folder, host.layout.retrain):
        assert str(place) in error.value.message
    assert ("tables of an inference log" if host.database is None else str(host.database)) in error.value.message
    database()
    (host.layout.retrain).mkdir(parents=True)
    with (
        file_lock(host.layout.retrain / ".lock", "controller"),
        pytest.raises(InfrastructureError, match="runs here and holds"),
    ):
        restore.restore(host, target)
    restore.restore(host, target)
    assert ReleaseRegistry(host.registry_folder).champion() is not None


@pytest.mark.parametrize("harm", ["cut", "changed", "gone", "no backup"])
def test_a_damaged_backup_changes_nothing(project, database, tmp_path, harm):
    host, target = describe(), tmp_path / "backups/one"
    create.create_backup(host, target)
    database()
    path = next((target / "registry/releases").rglob("weights.safetensors"))
    if harm == "cut":
        path.write_text("")
    elif harm == "changed":
        path.write_text("z")
    elif harm == "gone":
        path.unlink()
    else:
        (target / "backup.json").unlink()
    with pytest.raises(ArtifactError) as error:
        restore.restore(host, target)
    assert str(target) in error.value.message
    assert not Path(".tunectl").exists()


@pytest.mark.parametrize("name", ["snapshots/", "./keys.json", "a//b", "/etc/passwd", "../a"])
def test_a_backup_that_names_no_plain_file_is_refused(project, tmp_path, name):
    host, target = describe(), tmp_path / "backups/one"
    create.create_backup(host, target)
    shutil.rmtree(target / "snapshots", ignore_errors=True)
    (target / "snapshots").write_text("")
    manifest = json.loads((target / "backup.json").read_text())
    known = {"sha256": hashlib.sha256(b"").hexdigest(), "size": 0}
    (target / "backup.json").write_text(json.dumps({**manifest, "files": {name: known}}))
    with pytest.raises(ArtifactError, match=r"backup\.json names "):
        restore.read_backup(target)


def test_an_erasure_says_where_it_could_not_be_noted(project, database, tmp_path, capsys):
    host, target = describe(), tmp_path / "backups/one"
    create.create_backup(host, target)
    target.parent.rename(tmp_path / "unmounted")
    target.parent.mkdir()
    assert main(["log", "erase", "--user", "ada"]) == 5
    assert f"{target.parent}/erasures.jsonl: No such file or directory" in capsys.readouterr().err
    target.parent.rmdir()
    (tmp_path / "unmounted").rename(target.parent)
    saved = tmp_path / "erasures-of-another-host.jsonl"
    shutil.copy(host.hash_key.parent / "erasures.jsonl", saved)
    database()
    found = restore.restore(host, target, [saved])
    assert (found.erasures, found.erased > 0, found.snapshots) == (1, True, 1)
    assert holds_text(Path(".tunectl")) == []


def test_who_came_again_after_an_erasure_is_kept(project, database, tmp_path):
    host = describe()
    hashed = pseudonyms.pseudonymize("ada", pseudonyms.load_hash_key(host.log_config, Path()))
    assert main(["log", "erase", "--user", "ada"]) == 0
    with open_log(host.url, Path.cwd()) as store:
        store.write([inference(50, user_hash=hashed, accepted_at=datetime.now(UTC) + timedelta(seconds=1))])
    create.create_backup(host, tmp_path / "backups/one")
    database()
    assert restore.restore(host, tmp_path / "backups/one").erased == 0
    with open_log(host.url, Path.cwd()) as store:
        assert [one.id for one in store.inferences(user_hash=hashed)] == ["chatcmpl-000050"]


def run_child(code: str) -> subprocess.CompletedProcess[str]:
    text = f"""
import os, resource, signal, sys
from pathlib import Path
from tunectl.artifacts import atomic_io
from tunectl.artifacts.paths import ProjectPaths
from tunectl.backup import create, host_state, restore
from tunectl.config.loading import checks
host = host_state.describe_host(ProjectPaths(), checks.load_config(ProjectPaths(), []).root)
{code}
"""
    return subprocess.run([sys.executable, "-c", text], check=False, capture_output=True, text=True)


def test_a_full_disk_leaves_no_half_backup(project, tmp_path):
    target = tmp_path / "backups/one"
    child = run_child(f"""
resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))
from tunectl.core.errors import InfrastructureError
try:
    create.create_backup(host, Path({str(target)!r}))
except InfrastructureError as error:
    print(error.message)
""")
    assert str(target.parent) in child.stdout, child.stderr
    assert not target.exists()
    assert not (target.parent / ".tunectl-backup").exists()
    create.create_backup(describe(), target)


def test_a_killed_backup_leaves_nothing_that_counts_and_its_text_goes(project, tmp_path):
    target = tmp_path / "backups/one"
    child = run_child(f"""
host_state.BACKUP.__class__.write = lambda *given: os.kill(os.getpid(), signal.SIGKILL)
create.create_backup(host, Path({str(target)!r}))
""")
    assert child.returncode == -signal.SIGKILL, child.stderr
    assert not target.exists()
    create.create_backup(describe(), target)
    assert not (target.parent / ".tunectl-backup").exists()


def test_a_file_that_cannot_be_read_is_named_as_such(project, tmp_path, monkeypatch):
    host, opened = describe(), Path.open

    def refuse(path, *given, **more):
        if path == host.keys:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return opened(path, *given, **more)

    monkeypatch.setattr(Path, "open", refuse)  # the tests run as root, which may read all
    with pytest.raises(InfrastructureError, match=f"cannot read {host.keys}: Permission denied"):
        create.create_backup(host, tmp_path / "backups/one")
    assert not (tmp_path / "backups/one").exists()


@pytest.mark.parametrize("number", [0, 2, 4])
def test_a_killed_restore_goes_on(project, database, tmp_path, number):
    host, target = describe(), tmp_path / "backups/one"
    create.create_backup(host, target)
    assert main(["log", "erase", "--user", "ada"]) == 0
    database()
    child = run_child(f"""
real, calls = restore._move, []
def die(*given):
    calls.append(given)
    if len(calls) > {number}:
        os.kill(os.getpid(), signal.SIGKILL)
    real(*given)
restore._move = die
restore.restore(host, Path({str(target)!r}))
""")
    assert child.returncode == -signal.SIGKILL, child.stderr
    restore.restore(host, target)
    with open_log(host.url, Path.cwd()) as store:
        assert len(list(store.tombstones())) == 2
    assert ReleaseRegistry(host.registry_folder).champion() is not None
    assert holds_text(Path(".tunectl")) == []


def test_a_restore_that_goes_on_replaces_nothing_that_came_after_the_kill(project, database, tmp_path, monkeypatch):
    host, target = describe(), tmp_path / "backups/one"
    create.create_backup(host, target)
    database()
    really = restore._move

    def fail(fresh: Path, destination: Path) -> None:
        if fresh.name == "champion.json":
            raise OSError(errno.ENOSPC, "No space left on device")
        really(fresh, destination)

    monkeypatch.setattr(restore, "_move", fail)
    with pytest.raises(InfrastructureError):
        restore.restore(host, target)
    monkeypatch.setattr(restore, "_move", really)
    newer = ReleaseRegistry(host.registry_folder).add(write_release(tmp_path / "c", "c"), FACTS).id
    api_keys.add(host.keys, api_keys.create_key("phone", ["chat"], None, datetime.now(UTC))[1])
    restore.restore(host, target)
    assert newer in ReleaseRegistry(host.registry_folder).ids()
    assert ReleaseRegistry(host.registry_folder).champion() is not None
    assert "phone" in [key.name for key in api_keys.read(host.keys)]


def test_a_restore_that_goes_on_refuses_what_it_has_not_put_there(project, database, tmp_path, monkeypatch):
    host, target = describe(), tmp_path / "backups/one"
    create.create_backup(host, target)
    database()

    def fail(*given: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(restore, "_move", fail)
        with pytest.raises(InfrastructureError):
            restore.restore(host, target)
    newer = ReleaseRegistry(host.registry_folder).add(write_release(tmp_path / "c", "c"), FACTS).id
    with pytest.raises(UsageError, match=f"these exist already: .*{host.registry_folder}"):
        restore.restore(host, target)
    assert ReleaseRegistry(host.registry_folder).ids() == [newer]


def test_a_backup_during_a_promotion_has_one_champion_and_its_history(project, tmp_path):
    host = describe()
    if host.database is None:
        return  # the registry does not know the database
    registry, stop = ReleaseRegistry(host.registry_folder, timeout_seconds=30), threading.Event()
    names = registry.ids()

    def swap() -> None:
        while not stop.is_set():
            for name in names:
                registry.promote(name, author="me", message="again")

    swapper = threading.Thread(target=swap)
    swapper.start()
    try:
        for number in range(5):
            made = create.create_backup(host, tmp_path / f"backups/{number}")
            saved = ReleaseRegistry(tmp_path / f"backups/{number}/registry")
            assert saved.champion().release == made.champion
            last = [entry for entry in saved.log() if entry.action == "promote"][-1]
            assert (last.release, last.sequence) == (made.champion, saved.champion().sequence)
            assert all(saved.verify(name) == [] for name in saved.ids())
    finally:
        stop.set()
        swapper.join()


def test_an_old_backup_beside_a_newer_address_rolls_nobody_back(project, database, tmp_path):
    host = describe()
    if host.database is None:
        return
    address = FsspecObjectStore(f"file://{tmp_path}/bucket")
    registry = ReleaseRegistry(host.registry_folder)
    remote_sync.push(registry, address)
    create.create_backup(host, tmp_path / "backups/one")
    newer = registry.add(write_release(tmp_path / "c", "c"), FACTS).id
    registry.promote(newer, author="me", message="much better")
    remote_sync.push(registry, address)
    database()
    restore.restore(host, tmp_path / "backups/one")
    registry = ReleaseRegistry(host.registry_folder)
    with pytest.raises(GateError):
        remote_sync.push(registry, address)
    assert remote_sync.pull(registry, address).releases == [newer]  # a prefix
    assert registry.champion().release == newer

    shutil.rmtree(host.registry_folder)
    shutil.rmtree(".tunectl")
    restore.restore(host, tmp_path / "backups/one")
    registry = ReleaseRegistry(host.registry_folder)
    registry.rollback(author="me", message="the old one was better")  # a fork
    for act in (remote_sync.push, remote_sync.pull):
        with pytest.raises(GateError):
            act(registry, address)
    assert remote_sync._open(registry, address).champion().release == newer


def test_nobody_serves_while_a_restore_goes_on_or_was_killed(project, database, tmp_path, monkeypatch):
    """What they write until it has ended would be replaced; a server without the hash key would even make another one."""
    host, target = describe(), tmp_path / "backups/one"
    create.create_backup(host, target)
    database()
    really, refusals = restore._move, list[str]()

    def move(*given: Path) -> None:
        for start in (
            lambda: file_lock(host.layout.retrain / ".lock", "a controller").__enter__(),
            lambda: open_log(host.url, Path.cwd(), serving=True).__enter__(),
            lambda: pseudonyms.load_hash_key(host.log_config, Path.cwd()),
            lambda: create.create_backup(host, tmp_path / "backups/two"),
        ):
            with pytest.raises(InfrastructureError) as error:
                start()
            refusals.append(error.value.message)
        really(*given)

    monkeypatch.setattr(restore, "_move", move)
    restore.restore(host, target)
    assert len(refusals) >= 4
    assert "tunectl restore" in refusals[0]
    assert refusals[1].endswith("restore.json says that the restore of a backup has begun here and not ended")
    with open_log(host.url, Path.cwd(), serving=True) as store:
        assert len(list(store.inferences())) == 6


@pytest.mark.parametrize("end", ["-wal", "-journal"])
def test_a_journal_that_another_database_left_is_no_free_place(project, database, tmp_path, end):
    """SQLite would put it into the restored file: rows of people who were erased, or damage."""
    host, target = describe(), tmp_path / "backups/one"
    if host.database is None:
        return
    create.create_backup(host, target)
    database()
    host.database.parent.mkdir(parents=True)
    journal = host.database.with_name(f"{host.database.name}{end}")
    journal.write_bytes(b"old")
    with pytest.raises(UsageError, match=f"these exist already: {journal}"):
        restore.restore(host, target)
    journal.unlink()
    restore.restore(host, target)


def test_who_was_erased_is_not_in_frozen_windows_of_a_backup_without_a_log(project, database, tmp_path):
    host, target = describe(), tmp_path / "backups/one"
    if host.database is None:
        return
    host.database.rename(tmp_path / "elsewhere.sqlite")  # as for a backup whose environment does not name the database
    made = create.create_backup(host, target)
    assert made.inference_log is None
    assert holds_text(target)
    (tmp_path / "elsewhere.sqlite").rename(host.database)
    assert main(["log", "erase", "--user", "ada"]) == 0
    database()
    assert restore.restore(host, target).snapshots == 1
    assert holds_text(Path(".tunectl")) == []
    (folder,) = host.snapshots.glob("*/manifest.json")
    assert len(list(snapshot.read_inferences(folder.parent))) == 4


def test_a_backup_of_another_project_is_refused(project, database, tmp_path):
    create.create_backup(describe(), tmp_path / "backups/one")
    database()
    other = dataclasses.replace(describe(), project="bakery")
    with pytest.raises(UsageError, match=r"the backup is of the project \w+, and this one is bakery"):
        restore.restore(other, tmp_path / "backups/one")
    restore.restore(describe(), tmp_path / "backups/one")


def test_another_kind_of_database_is_refused(project, tmp_path, monkeypatch):
    host = describe()
    create.create_backup(host, tmp_path / "backups/one")
    shutil.rmtree(".tunectl")
    other = "sqlite:///.tunectl/x.sqlite" if host.database is None else "postgresql://nobody@127.0.0.1:9/none"
    monkeypatch.setenv("TUNECTL_INFERENCE_LOG_URL", other)
    with pytest.raises(UsageError, match="and the backup is of a log in"):
        restore.restore(describe(), tmp_path / "backups/one")


def test_ledgers_repair_a_truncated_line_and_refuse_an_invalid_one(tmp_path):
    one = erasure_ledger.Erasure("a" * 32, False, NOW)
    path = tmp_path / "erasures.jsonl"
    erasure_ledger.append(path, [one], create=True)
    with path.open("ab") as stream:
        stream.write(b'{"hash": "b')
    assert erasure_ledger.read(path) == [one]
    erasure_ledger.append(path, [one], create=False)
    assert erasure_ledger.merge([erasure_ledger.read(path)]) == [one]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    atomic_io.write_text(path, "{}\n")
    with pytest.raises(ArtifactError, match=r"erasures\.jsonl:1 is not the record of an erasure"):
        erasure_ledger.read(path)
