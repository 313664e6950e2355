"""Synchronize a registry with its copy behind an address, which several machines may write.

The release history decides. A registry may extend the history at the address only where that is the beginning of its own: else
another machine has written there, and its changes (a promotion, a canary) would be lost silently.

push     adds the new events of this registry; the part of the history is claimed first, as an object that can be made once
pull     adopts the new events at the address
resolve  both have new events: one champion is kept, under a higher sequence than either had
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

from msgspec import Struct

from tunectl.access import signatures
from tunectl.artifacts import atomic_io
from tunectl.artifacts.canary_state import CanaryState
from tunectl.artifacts.record_format import RecordFormat
from tunectl.core.errors import ArtifactError, GateError, UsageError
from tunectl.registry import (
    event_log,
    history_adoption,
    registry_formats,
    release_manifest,
    release_state,
    release_statement,
    signature_policy,
)
from tunectl.registry.history_adoption import AdoptedHistory
from tunectl.registry.protocols import MAX_MANIFEST_BYTES, ObjectStore
from tunectl.registry.registry_formats import FORKS, RELEASES, RemoteCanary
from tunectl.registry.release_state import ChampionPointer, ReleaseEvent
from tunectl.registry.release_store import ReleaseRegistry
from tunectl.registry.remote import CANARIES, CHAMPIONS, EVENTS, RemoteRegistry, build_object_name

INCOMING: Final = "incoming"
Side = Literal["ours", "theirs"]
TRIES: Final = 5
"""Number of tries to extend a history that others extend at the same time."""
_EVENT: Final = registry_formats.EVENT


class PulledHistory(Struct, frozen=True):
    """Result of ``pull``: number of new events, and names of the releases that were copied here."""

    events: int
    """How many events of the history were new here."""
    releases: list[str]
    """Releases that were downloaded."""


def push(store: ReleaseRegistry, files: ObjectStore) -> list[str]:
    """Copy what ``files`` does not have; return the releases that were copied.

    First the releases that the pointers name, the history and the pointers, so that a rollback waits for no other release; then the rest.
    Raises  GateError where the address is ahead, or another machine writes at the same time; nothing is changed there then.
            ArtifactError for a damaged release, which stays here.
    """
    remote, local_events = _open(store, files), store.log()
    _refuse_other_history(store, remote, local_events, remote.log())
    pointer = release_state.champion_of(local_events)
    canary = release_state.canary_of(local_events, store.canary())
    named = {pointer.release, pointer.previous} if pointer else set()
    named |= {canary.release} if canary else set()
    releases = _send_releases(store, files, [release for release in store.ids() if release in named])
    _append_history(store, files, local_events)
    last = release_state.last_canary_event(local_events)
    if last is not None:
        _create(files, build_object_name(CANARIES, last[0]), registry_formats.REMOTE_CANARY, RemoteCanary(canary))
    if pointer is not None:
        _create(files, build_object_name(CHAMPIONS, pointer.sequence), registry_formats.POINTER, pointer)
    return releases + _send_releases(store, files, [release for release in store.ids() if release not in named])


def pull(store: ReleaseRegistry, files: ObjectStore, *, force: bool = False) -> PulledHistory:
    """Adopt the history at the address, with champion and canary; return what is new. Releases that only this registry knows stay in it.

    ``force``: accept earlier promotions that a key signed which was revoked since, and unsigned ones from before the first signature.
    Raises  GateError where champion or canary were changed here, too, and for what no trusted key signed and this registry does not have;
            UsageError where the address has no registry.
    """
    remote = _open(store, files)
    remote_events = remote.log()
    if not remote_events:
        raise UsageError(
            f"there is no registry at {remote.location}", hint=f"make one: tunectl release sync {remote.location}"
        )
    releases, remote_canary = list[str](), remote.canary()  # read once: what is adopted is what was checked
    if _is_news(store, remote, remote_events):
        _refuse_unsigned(store, remote, remote_events, remote_canary, force=force)
        releases = _fetch(store, remote, remote_events, remote_canary)  # before the lock: a download may take long
    with store.hold_lock("adopting a history"):
        if not _is_news(store, remote, remote_events):
            return PulledHistory(0, [])
        local_events = store.log()
        _adopt(store, remote, _rebase_additions(local_events, remote_events), remote_canary, releases)
    known = set(map(_EVENT.encode, local_events))
    return PulledHistory(sum(_EVENT.encode(event) not in known for event in remote_events), releases)


def resolve(store: ReleaseRegistry, files: ObjectStore, keep: Side, *, author: str, message: str) -> list[str]:
    """Resolve a fork: adopt the history at the address, and promote one of the two champions once more, above both sequences.

    The history of this registry is kept in ``forks/``. Servers follow: the sequence is higher than any that they have seen.

    Args:
        store: the registry of this machine.
        files: the address.
        keep: whose champion is kept. ``theirs`` also keeps the canary at the address.
        author: who decides.
        message: why.

    Returns:
        The releases that were copied to the address.

    Raises:
        UsageError: the side to keep has no champion.
        GateError: another machine wrote at the same time, no trusted key signed the pointers at the address that are kept, or this
            machine has no trusted key to sign the promotion.
    """
    remote = _open(store, files)
    remote_events, remote_canary = remote.log(), remote.canary()
    if keep == "theirs":
        _refuse_unsigned(store, remote, remote_events, remote_canary)
    signature_policy.refuse_pointer_key(store)
    releases = _fetch(store, remote, remote_events, remote_canary)
    with store.hold_lock("resolving a fork"):
        local_events = store.log()
        pointer = release_state.champion_of(local_events if keep == "ours" else remote_events)
        if pointer is None:
            raise UsageError(
                f"{store.root if keep == 'ours' else remote.location} has no champion to keep",
                hint=f"keep the champion of the other side: --keep {'theirs' if keep == 'ours' else 'ours'}",
            )
        is_fork = local_events[: len(remote_events)] != remote_events
        history = _rebase_additions(local_events, remote_events) if is_fork or keep == "theirs" else list(local_events)
        sequence = 1 + max(release_state.count_swaps(local_events), release_state.count_swaps(remote_events))
        moment = event_log.current_moment()
        digest = pointer.digest or store.digest(pointer.release)
        below = release_state.promotion_stack(history)
        returns = pointer.release in below[:-1] and below[-1] != pointer.release
        action: Literal["promote", "rollback"] = "rollback" if returns else "promote"  # back to what was champion there
        champion = ChampionPointer(pointer.release, None, moment, author, message, sequence, action, digest=digest)
        signed = release_statement.sign_swap(champion, history, signatures.load_named_key(signatures.POINTER_KEY_ENV))
        history.append(release_state.entry_of(signed, history))
        canary = release_state.canary_of(history, remote_canary)
        if canary is not None and (keep == "ours" or canary.release == pointer.release):
            history.append(ReleaseEvent("canary_stop", canary.release, moment, author, "a fork was resolved"))
        _EVENT.write_lines(store.root / FORKS / f"{sequence:06d}.jsonl", local_events)
        _adopt(store, remote, history, remote_canary, releases)
    return push(store, files)


def _refuse_unsigned(
    store: ReleaseRegistry,
    remote: RemoteRegistry,
    remote_events: Sequence[ReleaseEvent],
    remote_canary: CanaryState | None,
    *,
    force: bool = False,
) -> None:
    """Refuse to adopt swaps or a canary that no trusted key signed: the next change here would build on them, and sign it."""
    if store.trust is None:
        return
    hint = f"check who may write there; to keep this store: tunectl release sync {remote.location} --keep ours -m WHY"
    for pointer in (release_state.champion_of(remote_events), release_state.canary_of(remote_events, remote_canary)):
        if pointer is None or pointer in (store.champion(), store.canary()):
            continue
        status, reason = release_statement.check_pointer(pointer, store.trust)
        if status != "trusted":
            raise GateError(
                f"{remote.location}: the pointer to release {pointer.release} {reason}; nothing was adopted", hint=hint
            )
    local_events = store.log()
    known_count = _count_common_events(local_events, remote_events)
    canary, last = release_state.canary_of(remote_events, remote_canary), release_state.last_canary_event(remote_events)
    if canary is not None and last is not None and last[0] > known_count and canary.number != last[0]:
        raise GateError(
            f"{remote.location}: the start of the canary {canary.release} is event {last[0]}, and was signed as event "
            f"{canary.number}: it is a copy of an earlier one; nothing was adopted",
            hint=hint,
        )
    forged = release_statement.find_forged_swap(remote_events, store.trust, known_count, force=force)
    if forged is not None:
        what = (
            f"the {forged.action} of release {forged.release} (sequence {forged.sequence}) as it stands in the history"
        )
        if (
            not force
            and _only_additions(local_events, remote_events)
            and release_statement.find_forged_swap(remote_events, store.trust, known_count, force=True) is None
        ):
            hint += f"; to adopt it knowingly: tunectl release pull {remote.location} --force"
        raise GateError(f"{remote.location}: no trusted key signed {what}; nothing was adopted", hint=hint)


def _open(store: ReleaseRegistry, files: ObjectStore) -> RemoteRegistry:
    # a history may name releases that no pointer there names yet: a push was interrupted before it made them
    return RemoteRegistry(files, store.root / INCOMING, store.trust, keep_recent=True)


def _append_history(store: ReleaseRegistry, files: ObjectStore, local_events: Sequence[ReleaseEvent]) -> None:
    """Add the new part of the history. Two processes of one machine may do so at once: then the second adds the rest."""
    for _ in range(TRIES):
        remote = _open(store, files)
        remote_events = remote.log()
        _refuse_other_history(store, remote, local_events, remote_events)
        known_events = (
            len(remote_events) if files.names(EVENTS) else 0
        )  # an address of 0.1 gets the whole history as its first part
        if not local_events[known_events:]:
            return
        if files.create(
            build_object_name(EVENTS, known_events + 1, ".jsonl"),
            b"".join(map(_EVENT.encode, local_events[known_events:])),
        ):
            return
    raise GateError(
        f"nothing was copied, since other machines keep writing to {files.address}",
        hint=f"try again: tunectl release sync {files.address}",
    )


def _create(files: ObjectStore, name: str, form: RecordFormat, record: Struct) -> None:
    """Make a numbered object; an existing one was made from the same history, by a copy that was interrupted after it.

    Raises  ArtifactError for another one: servers would see that in place of ``record``, and nobody would know.
    """
    if files.create(name, form.encode(record)):
        return
    try:
        existing = form.decode(files.read(name) or b"", type(record), name)
    except atomic_io.NOT_JSON:
        existing = None
    if existing != record:
        raise ArtifactError(
            f"{files.address}/{name} is not the record of this registry, so servers do not see the last change",
            hint=f"check who may write there, delete that object, then: tunectl release sync {files.address}",
        )


def _send_releases(store: ReleaseRegistry, files: ObjectStore, names: Sequence[str]) -> list[str]:
    present, releases = set(files.names(RELEASES)), list[str]()
    for release in names:
        folder, prefix = store.folder(release), f"{RELEASES}/{release}"
        _send_statement(store, files, release)
        complete = release in present and files.read(f"{prefix}/{release_manifest.NAME}", MAX_MANIFEST_BYTES)
        if complete == (folder / release_manifest.NAME).read_bytes():
            continue
        wrong = store.verify(release)
        if wrong:
            raise ArtifactError(
                f"release {release} is damaged: {'; '.join(wrong)}",
                hint="restore it from a backup, or package again; tunectl release verify checks it",
            )
        for name in store.manifest(release).files if not complete else ():
            files.send(folder / name, f"{prefix}/{name}")
        files.send(folder / release_manifest.NAME, f"{prefix}/{release_manifest.NAME}")
        releases.append(release)
    return releases


def _send_statement(store: ReleaseRegistry, files: ObjectStore, release: str) -> None:
    """Copy the signed statement about a release; signatures of others of the same statement stay."""
    content = store.read_statement(release)
    if content is None:
        return
    name = f"{RELEASES}/{release}{release_statement.ENDING}"
    existing = files.read(name, MAX_MANIFEST_BYTES)
    merged = release_statement.merge_signatures(content, existing)
    if merged != existing:
        files.write(name, merged)


def _refuse_other_history(
    store: ReleaseRegistry,
    remote: RemoteRegistry,
    local_events: Sequence[ReleaseEvent],
    remote_events: Sequence[ReleaseEvent],
) -> None:
    pointer = remote.champion()
    sequence = release_state.count_swaps(local_events)
    if list(local_events[: len(remote_events)]) == list(remote_events) and (
        pointer is None or pointer.sequence <= sequence
    ):
        return
    if not _only_additions(local_events, remote_events):
        raise _build_fork_error(store, remote, local_events, remote_events)
    state = f"champion {pointer.release}, sequence {pointer.sequence}" if pointer else "no champion"
    raise GateError(
        f"{remote.location} has events that {store.root} does not have ({state}; here the sequence is {sequence}): another machine "
        "wrote there, and nothing was changed",
        hint=f"adopt them, then go on: tunectl release pull {remote.location}",
    )


def _build_fork_error(
    store: ReleaseRegistry,
    remote: RemoteRegistry,
    local_events: Sequence[ReleaseEvent],
    remote_events: Sequence[ReleaseEvent],
) -> GateError:
    local_champion, remote_champion = (release_state.champion_of(item) for item in (local_events, remote_events))
    return GateError(
        f"{remote.location} and {store.root} have different histories since event {_count_common_events(local_events, remote_events) + 1}: the champion there is "
        f"{remote_champion.release if remote_champion else 'none'}, here {local_champion.release if local_champion else 'none'}; nothing was changed",
        hint=f"keep one of the two: tunectl release sync {remote.location} --keep theirs -m WHY (or: --keep ours)",
    )


def _count_common_events(local_events: Sequence[ReleaseEvent], remote_events: Sequence[ReleaseEvent]) -> int:
    pairs = zip(local_events, remote_events, strict=False)
    return next(
        (index for index, (first, other) in enumerate(pairs) if first != other),
        min(len(local_events), len(remote_events)),
    )


def _only_additions(local_events: Sequence[ReleaseEvent], remote_events: Sequence[ReleaseEvent]) -> bool:
    """Return whether this registry has only added releases since the last sync: those can follow any other history."""
    return all(
        entry.action in release_state.ADDITIONS
        for entry in local_events[_count_common_events(local_events, remote_events) :]
    )


def _rebase_additions(
    local_events: Sequence[ReleaseEvent], remote_events: Sequence[ReleaseEvent]
) -> list[ReleaseEvent]:
    """Return the history at the address, followed by the additions of this registry."""
    remote_additions = {(event.action, event.release) for event in remote_events}
    return [
        *remote_events,
        *(
            event
            for event in local_events
            if event.action in release_state.ADDITIONS and (event.action, event.release) not in remote_additions
        ),
    ]


def _is_news(store: ReleaseRegistry, remote: RemoteRegistry, remote_events: Sequence[ReleaseEvent]) -> bool:
    """Return whether the history at the address has new events. Raises  GateError for a fork."""
    local_events = store.log()
    if local_events[: len(remote_events)] == remote_events:
        return False
    if not _only_additions(local_events, remote_events):
        raise _build_fork_error(store, remote, local_events, remote_events)
    return True


def _fetch(
    store: ReleaseRegistry, remote: RemoteRegistry, history: Sequence[ReleaseEvent], remote_canary: CanaryState | None
) -> list[str]:
    """Download the releases that the pointers of a history name and this registry does not have; others are not needed."""
    pointer, canary = release_state.champion_of(history), release_state.canary_of(history, remote_canary)
    named = [pointer.release, pointer.previous] if pointer else []
    needed = [name for name in dict.fromkeys([*named, canary.release if canary else None]) if name is not None]
    missing = [item for item in needed if not store.folder(item).is_dir()]
    for release in missing:
        statement = remote.read_statement(release)
        remote.fetch(release)
        if statement is not None:
            atomic_io.write_bytes(release_statement.statement_path(store.folder(release)), statement)
    return missing


def _adopt(
    store: ReleaseRegistry,
    remote: RemoteRegistry,
    history: list[ReleaseEvent],
    remote_canary: CanaryState | None,
    fetched: Sequence[str],
) -> None:
    """Move the downloaded releases into the registry, then adopt the history that names them."""
    for release in fetched:
        if not store.folder(release).is_dir():
            remote.folder(release).rename(store.folder(release))
    atomic_io.fsync_directory(store.root / RELEASES)
    canary = release_state.canary_of(history, remote_canary)
    history_adoption.adopt(store.root, AdoptedHistory(history, canary))
