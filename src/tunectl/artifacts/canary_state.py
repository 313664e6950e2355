"""The variants of a server, the challenger of a registry, and the signature that it and the champion pointer carry."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from msgspec import Meta, Struct

from tunectl.artifacts.names import ContentId
from tunectl.artifacts.record_format import require_moment

Variant = Literal["champion", "challenger", "base"]
"""The models that one server answers with: the release that is live, the one that is tested, and the model under both."""
VARIANTS: Final[tuple[Variant, ...]] = ("champion", "challenger", "base")


class Signature(Struct, frozen=True):
    """An Ed25519 signature and the id of the key that made it, as stored in a registry."""

    key_id: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}(?!\n)$")]
    """SHA-256 of the public key."""
    value: Annotated[str, Meta(max_length=100)]
    """Base64."""


class CanaryState(Struct, frozen=True, omit_defaults=True):
    """The challenger of a registry and its share of the traffic, as stored in ``canary.json``."""

    release: ContentId
    share: Annotated[float, Meta(ge=0, le=1)]
    """Share of the identities that get the challenger by default; 0 leaves it to those who ask for it by name."""
    salt: str
    """Hashed with the identity, so that the assignment of this canary is independent of every other's."""
    started_at: str = ""
    """Time of the start, UTC, ISO 8601."""
    author: str = ""
    message: str = ""
    digest: str | None = None
    """Full SHA-256 over the files of the release. Absent in records of tunectl 0.1."""
    signature: Signature | None = None
    """Signature by a key of role pointer."""
    number: int | None = None
    """Number of its start event in the release history, so that it grows with every canary. Absent in records of tunectl 0.1."""

    def __post_init__(self) -> None:
        if self.started_at:
            require_moment("started_at", self.started_at)
