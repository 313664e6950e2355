"""A backup in the middle of promotions, an old one beside a newer address, and one on a full disk (faults 31 to 33)."""

from __future__ import annotations

import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import inference_rows
from serving_process import settings

from scenarios.disk import SmallDisk
from scenarios.fault_result import FaultResult
from tunectl.access import api_keys
from tunectl.artifacts.paths import ProjectPaths
from tunectl.backends.storage.inference_log_sql import open_log
from tunectl.backends.storage.object_store import FsspecObjectStore
from tunectl.backup import create, host_state, restore
from tunectl.backup.host_state import HostState
from tunectl.config.schema.serve import ServeSettings
from tunectl.core.errors import GateError, InfrastructureError
from tunectl.inference_log import pseudonyms
from tunectl.inference_log.log_store import FinishedRequest
from tunectl.registry import release_state, remote_sync
from tunectl.registry.release_manifest import BuildFacts
from tunectl.registry.release_store import ReleaseRegistry
from tunectl.registry.remote import RemoteRegistry

PRIVATE = "a very private question"
PROMOTER = """
import sys
from pathlib import Path
from tunectl.registry.release_store import ReleaseRegistry
registry = ReleaseRegistry(Path(sys.argv[1]), timeout_seconds=60)
names = registry.ids()
registry.promote(names[0], author="somebody", message="again")
print("goes", flush=True)
while True:
    for name in names:
        registry.promote(name, author="somebody", message="again")
    registry.rollback(author="somebody", message="back")
"""
"""Another process, which swaps the champion as fast as it can; it says so after the first swap, since a backup may take the lock next."""


def describe(folder: Path) -> HostState:
    """A host in ``folder``, whatever the environment says."""
    given = ServeSettings.model_validate(settings(), strict=True)
    return host_state.describe_host(ProjectPaths(folder), given, {})


def add_release(registry: ReleaseRegistry, folder: Path, name: str, size: int = 0) -> str:
    """A release whose weights are its name, and so many bytes."""
    source = folder / "sources" / name
    source.mkdir(parents=True)
    (source / "weights.safetensors").write_bytes(name.encode() + b"\0" * size)
    return registry.add(source, BuildFacts("shop", "openvino", "merged"), author="somebody").id


def make_host(folder: Path, *, rows: int = 20, size: int = 0) -> HostState:
    """A host with traffic, a key, a hash key and two releases, the second of them the champion."""
    host = describe(folder / "host")
    key = pseudonyms.load_hash_key(host.log_config, host.layout.root)
    with open_log(host.url, host.layout.root) as store:
        pseudonyms.register_hash_key(store, host.log_config, key)
        for number in range(rows):
            text = {"messages": [{"role": "user", "content": f"{PRIVATE} {number} {'x' * (size // max(rows, 1))}"}]}
            store.write([inference_rows.inference(number, request=text)])
            store.write([FinishedRequest(f"chatcmpl-{number:06}", inference_rows.finish(number))])
    api_keys.add(host.keys, api_keys.create_key("laptop", ["chat"], None, datetime.now(UTC))[1])
    registry = ReleaseRegistry(host.registry_folder)
    for name in ("first", "second"):
        registry.promote(add_release(registry, folder, name, size), author="somebody", message=name)
    return host


def during_promotions(folder: Path, *, times: int) -> FaultResult:
    """Back up while another process promotes, and is killed at that moment; each backup has one champion and its history."""
    found = FaultResult(31, "backup during a promotion", "the backup has one champion, its history, and whole releases")
    host, swaps = make_host(folder), set[int]()
    registry = ReleaseRegistry(host.registry_folder, timeout_seconds=60)
    for number in range(times):
        promoter = subprocess.Popen(
            [sys.executable, "-c", PROMOTER, str(registry.root)], stdout=subprocess.PIPE, text=True
        )
        promoter.stdout.readline()
        target = folder / "backups" / f"{number:04}"
        made = create.create_backup(host, target)
        promoter.kill()
        promoter.communicate()
        saved = ReleaseRegistry(target / host_state.REGISTRY)
        pointer, history = saved.champion(), saved.log()
        follows = release_state.champion_of(history)
        found.require(
            pointer is not None and pointer.release == made.champion, f"{number}: {pointer} and {made.champion}"
        )
        found.require(follows == pointer, f"{number}: the history ends with {follows}, the pointer is {pointer}")
        found.require(all(not saved.verify(name) for name in saved.ids()), f"{number}: a release is damaged")
        found.require(len(saved.ids()) == 2, f"{number}: {saved.ids()}")
        swaps.add(pointer.sequence)
        if number % 10 == 0:
            fresh = describe(folder / f"restored{number}")
            restore.restore(fresh, target)
            back = ReleaseRegistry(fresh.registry_folder)
            found.require(back.champion() == pointer, f"{number}: restored {back.champion()}, not {pointer}")
            back.promote(back.ids()[0], author="somebody", message="after the restore")
            shutil.rmtree(fresh.layout.root)
        shutil.rmtree(target)
    found.figures |= {"backups": times, "swaps": registry.champion().sequence, "different_champions": len(swaps)}
    found.require(len(swaps) > times / 2, "hardly anything was promoted meanwhile: it says nothing")
    return found


def beside_a_newer_address(folder: Path) -> FaultResult:
    """Restore an old backup where the address has gone on: what is a prefix is pulled, a fork is refused until somebody decides."""
    found = FaultResult(
        32, "old backup beside a newer address", "a prefix is pulled, a fork refused, production is not rolled back"
    )
    host, address = make_host(folder), FsspecObjectStore(f"file://{folder}/bucket")
    registry = ReleaseRegistry(host.registry_folder)
    server = RemoteRegistry(address, folder / "server")
    remote_sync.push(registry, address)
    create.create_backup(host, folder / "backups/old")
    newer = add_release(registry, folder, "third")
    registry.promote(newer, author="somebody", message="much better")
    remote_sync.push(registry, address)

    def lose_and_restore() -> None:
        shutil.rmtree(host.layout.root)
        restore.restore(host, folder / "backups/old")

    def must_refuse(what: str, act: object) -> None:
        try:
            act(registry, address)
            found.require(False, f"{what} went through")
        except GateError as error:
            found.require(bool(error.hint), f"{what}: {error.message} says not how to go on")
        found.require(server.champion().release == newer, f"after {what} the address has {server.champion()}")

    lose_and_restore()
    must_refuse("push of a prefix", remote_sync.push)
    pulled = remote_sync.pull(registry, address)
    found.require(pulled.releases == [newer], f"pulled {pulled.releases}")
    found.require(registry.champion() == server.champion(), f"here {registry.champion()}, there {server.champion()}")
    for keep in ("theirs", "ours"):
        lose_and_restore()
        registry.rollback(author="somebody", message="a fork")
        mine, before = registry.champion(), server.champion()
        for what, act in (("push of a fork", remote_sync.push), ("pull of a fork", remote_sync.pull)):
            must_refuse(what, act)
        remote_sync.resolve(registry, address, keep, author="somebody", message="decided")
        expected = mine.release if keep == "ours" else newer
        after = server.champion()
        found.require(after.release == registry.champion().release == expected, f"{keep}: {after}")
        found.require(
            after.sequence > max(before.sequence, mine.sequence), f"{keep}: {before} and {mine}, then {after}"
        )
    found.figures |= {"sequence": server.champion().sequence, "refusals": 5}
    return found


def on_a_full_disk(folder: Path, *, times: int) -> FaultResult:
    """Back up onto a disk that gets full at another byte each time; then with room."""
    found = FaultResult(
        33, "disk full during a backup", "no half backup, no text left; older ones whole, and the next one good"
    )
    host, disk = make_host(folder, size=300_000), SmallDisk(folder / "disk", megabytes=4)
    if not disk.mounted:
        found.wrong.append("not tried: no file system can be mounted here")
        return found
    try:
        first = disk.folder / "first"
        create.create_backup(host, first)
        size = sum(path.stat().st_size for path in first.rglob("*") if path.is_file())
        for number in range(times):
            _leave(disk, round(size * number / times))
            target = disk.folder / "next"
            try:
                create.create_backup(host, target)
                found.require(False, f"room for {number} of {times} parts: it was written")
            except InfrastructureError as error:
                named = str(disk.folder) in error.message and ("space" in error.message or "full" in error.message)
                found.require(named, f"room for {number} of {times} parts: {error.message}")
            left = sorted(path.name for path in disk.folder.iterdir() if path.name not in ("ballast", "first"))
            known = {".tunectl-backup.lock", "erasures.jsonl"}
            found.require(set(left) <= known, f"left after {number} of {times} parts: {left}")
            try:
                restore.read_backup(first)
            except Exception as error:  # whatever it is, the older backup is lost
                found.require(False, f"room for {number} of {times} parts: {error}")
        disk.free_ballast()
        create.create_backup(host, disk.folder / "next")
        restore.restore(describe(folder / "restored"), disk.folder / "next")
        champion = ReleaseRegistry(describe(folder / "restored").registry_folder).champion()
        found.require(champion == ReleaseRegistry(host.registry_folder).champion(), f"restored: {champion}")
        found.figures |= {"full_disks": times, "bytes": size}
    finally:
        disk.close()
    return found


def _leave(disk: SmallDisk, room: int) -> None:
    """Fill the disk but for ``room`` bytes."""
    disk.free_ballast()
    usage = shutil.disk_usage(disk.folder)
    disk.add_ballast(max(0, usage.free - room))
