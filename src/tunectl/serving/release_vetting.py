"""Check signatures: which pointer a server follows, and which releases it may load, where ``serve.trusted_keys_file`` names keys.

A release without a trusted signature is not loaded, whatever the registry says; a serving one continues, and ``/readyz`` says
why it would not be loaded again.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from tunectl.access.signatures import TrustStore
from tunectl.artifacts.canary_state import CanaryState
from tunectl.core.errors import ArtifactError, GateError, TunectlError
from tunectl.registry import release_manifest, release_statement
from tunectl.registry.protocols import RegistryReader
from tunectl.registry.release_state import ChampionPointer
from tunectl.registry.release_statement import StatementCheck
from tunectl.registry.sequence_guard import CanaryGuard, FollowedPointer, SequenceGuard


@dataclass
class ReleaseVetting:
    """Decides which releases a server may load: by signatures with trusted keys, else by the digests in the pointers."""

    store: RegistryReader
    bundled: Path | None
    guard: SequenceGuard = field(default_factory=SequenceGuard)
    """Keeps a server from following an old copy of the registry; with a file also after a restart."""
    canary_guard: CanaryGuard = field(default_factory=CanaryGuard)
    """Keeps a server from following an old copy of a canary, where signatures are checked."""
    trust: TrustStore | None = None
    _statements: dict[str, bytes] = field(default_factory=dict)
    """Statements that were verified once; whether their keys are still trusted is checked each time."""
    _canary: CanaryState | None = None
    """The challenger that served last."""
    digests: dict[str, str] = field(default_factory=dict)
    """Full digest in the pointer of each release."""

    def read_pointer(self) -> FollowedPointer:
        """Return the champion pointer to follow: the newest one seen, or with trusted keys the newest with a trusted signature."""
        pointer, problem = self.guard.follow(self.store.champion(), self.store.location, self.trust)
        if pointer is not None and pointer.digest is not None:
            self.digests[pointer.release] = pointer.digest
        return FollowedPointer(pointer, problem or self.store.warning)

    def read_canary(self) -> tuple[CanaryState | None, str]:
        """Return (canary to serve or None, what is wrong with the canary in the registry or ``""``).

        A challenger that serves already continues when the key that signed the canary is revoked.
        """
        canary = self.store.canary()
        if canary is None:
            if self.trust is not None:
                self.canary_guard.observe(None, self.store.location)
            return None, ""
        problem = ""
        if self.trust is not None:
            status, reason = release_statement.check_pointer(canary, self.trust)
            if status != "trusted":
                problem = f"the canary of {self.store.location} {reason}"
                if status != "revoked" or canary != self._canary:
                    return None, f"{problem}; its release gets no traffic"
            replay = self.canary_guard.observe(canary, self.store.location, self.trust)
            if replay:
                return None, f"{replay}; its release gets no traffic"
        self._canary = canary
        if canary.digest is not None:
            self.digests[canary.release] = canary.digest
        return canary, problem

    def find_refusal(self, release: str) -> str:
        """Return why a release must not be loaded; empty if it may be."""
        if self.trust is None:
            return ""
        checked = self._check(release)
        return "" if checked.status == "trusted" else checked.reason

    def check_files(self, folder: Path) -> None:
        """Compare the files of a release on this machine with its pointer and its signed statement, before it is loaded.

        Raises  GateError where they differ, or where no trusted key signed it.
        """
        checked = self._check(folder.name) if self.trust is not None else None
        if checked is not None and checked.status != "trusted":
            raise GateError(
                checked.reason,
                hint=f"sign it with a key of serve.trusted_keys_file: tunectl release sign {folder.name}",
            )
        try:
            manifest = release_manifest.load(folder)
        except ArtifactError:
            return  # the release is not loaded, and the load's own error says more
        statement = checked.statement if checked is not None else None
        release_statement.check_manifest(manifest, self.digests.get(folder.name), statement)

    def choose_champion(self, pointer: ChampionPointer | None, loaded: str | None) -> tuple[str | None, str]:
        """Return (release to serve as champion or None, why it is not the pointer's release or ``""``).

        The pointer's release is served if it may be loaded. Else ``loaded``, the release that serves now, continues; without one, the
        pointer's previous release is taken, then the release in the Bento (``bundled``).
        """
        bundled = self.bundled.name if self.bundled else None
        desired = pointer.release if pointer else bundled
        reason = self.find_refusal(desired) if desired is not None else ""
        if not reason:
            return desired, ""
        if loaded is not None:
            return loaded, reason if desired == loaded else f"{reason}; release {loaded} serves on"
        others: Collection[str | None] = (pointer.previous if pointer else None, bundled)
        other = next((name for name in others if name not in (None, desired) and not self.find_refusal(name)), None)
        return other, f"{reason}; release {other} serves in its place" if other else reason

    def _check(self, release: str) -> StatementCheck:
        if self.trust is None:
            return StatementCheck("trusted", "")
        statement = self._statements.get(release)
        checked = release_statement.check_statement(statement, release, self.trust)
        if checked.status == "trusted":
            return checked
        content = self._read_statement(release)  # it may have been signed since
        latest = release_statement.check_statement(content, release, self.trust)
        if content is not None and latest.status == "trusted":
            self._statements[release] = content
        return latest if statement is None or latest.status == "trusted" else checked

    def _read_statement(self, release: str) -> bytes | None:
        if self.bundled is not None and self.bundled.name == release:
            path = release_statement.statement_path(self.bundled)
            if path.is_file():
                return path.read_bytes()
        try:
            return self.store.read_statement(release)
        except TunectlError:
            if self.bundled is not None and self.bundled.name == release:
                return None
            raise
