"""Choose the variant that answers: by the name in the request, else by a sticky hash while a canary runs, else the champion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tunectl.access.api_errors import ApiError
from tunectl.artifacts.canary_state import VARIANTS, CanaryState, Variant
from tunectl.core.hashing import hash_to_unit


def assign_variant(identity: str, canary: CanaryState) -> Variant:
    """Return the variant (champion or challenger) of an identity in a canary; it is the same for the whole canary.

    ``identity`` is a user, else a key, else a session.
    """
    return "challenger" if hash_to_unit(f"{canary.salt}\0{identity}") < canary.share else "champion"


def resolve_variant(
    model: str, identity: str, releases: Mapping[Variant, str], names: Sequence[str], canary: CanaryState | None
) -> Variant:
    """Return the variant (champion, challenger, base) that answers a request.

    model     name in the request: a variant, a release, or one of ``names``, which leave the choice to the server
    releases  loaded releases, by variant
    Raises  ApiError (404) for any other name, listing the valid ones.
    """
    if model in names:
        return assign_variant(identity, canary) if canary is not None and "challenger" in releases else "champion"
    for variant in VARIANTS:
        if variant in releases and model in (variant, releases[variant]):
            return variant
    available = ", ".join([*names, *(variant for variant in VARIANTS if variant in releases)])
    raise ApiError(
        f"model {model[:100]!r} is not served here; there are: {available}",
        "not_found_error",
        param="model",
        code="model_not_found",
    )
