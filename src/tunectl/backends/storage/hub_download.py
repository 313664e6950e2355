"""Fetch a model from the Hugging Face Hub at one commit: safetensors and JSON only."""

from __future__ import annotations

from pathlib import Path

from tunectl.core.errors import InfrastructureError, UsageError
from tunectl.core.optional import import_optional

WANTED = ["*.safetensors", "*.json", "*.jinja", "tokenizer.model", "README.md"]
"""Patterns to download. No .bin, .pt or .py: pickled weights and code can do anything."""
UNWANTED = ["consolidated*.safetensors"]
"""Patterns to leave out: the same weights once more, in a layout that transformers does not read."""


def snapshot_download(repo: str, revision: str, cache: Path) -> Path:
    """Return the folder in ``cache`` with the files of the Hub repository ``repo`` at the commit ``revision``; downloaded if absent.

    Raises  UsageError when the repository or commit does not exist, or is private or gated; InfrastructureError without a connection.
    """
    hub = import_optional("huggingface_hub", extra="train")
    errors = import_optional("huggingface_hub.errors", extra="train")
    try:
        return Path(
            hub.snapshot_download(
                repo, revision=revision, cache_dir=cache, allow_patterns=WANTED, ignore_patterns=UNWANTED
            )
        )
    except errors.GatedRepoError as error:
        raise UsageError(
            f"model.source.repo = {repo} is gated: its owner wants you to accept terms first",
            hint=f"accept them at https://huggingface.co/{repo}, then run: hf auth login",
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise UsageError(
            f"model.source.repo = {repo}: there is no such model, or it is private",
            hint="check the spelling, or run: hf auth login",
        ) from error
    except errors.RevisionNotFoundError as error:
        raise UsageError(
            f"model.source.revision = {revision}: {repo} has no such commit",
            hint=f"set it to the full hash of a commit at https://huggingface.co/{repo}/commits/main",
        ) from error
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled, errors.HfHubHTTPError, OSError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InfrastructureError(
            f"{repo} at {revision[:12]} cannot be fetched from the Hub, and is not in {cache}: {first}",
            hint="connect this machine (HF_ENDPOINT names a mirror), or use a model of the package index or a folder: model=smollm2_135m, model=folder",
        ) from error


def find_dataset_commit(name: str) -> str:
    """Return the newest commit of the data set ``name`` on the Hub, so that its revision can be pinned.

    Raises  UsageError where there is none of that name, or it is private or gated; InfrastructureError without a connection.
    """
    hub = import_optional("huggingface_hub", extra="train")
    errors = import_optional("huggingface_hub.errors", extra="train")
    try:
        return str(hub.HfApi().dataset_info(name).sha)
    except (errors.RepositoryNotFoundError, errors.HFValidationError) as error:
        raise UsageError(
            f"{name}: there is no such file or folder, and no such data set on the Hub",
            hint="check the spelling; for a data set that is private or gated: hf auth login",
        ) from error
    except (errors.OfflineModeIsEnabled, errors.HfHubHTTPError, OSError) as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InfrastructureError(
            f"{name}: there is no such file or folder, and the Hub cannot be asked for a data set of that name: {first}",
            hint="check the path; or connect this machine (HF_ENDPOINT names a mirror)",
        ) from error


def license_of(folder: Path) -> str | None:
    """Return the license that the model card in ``folder`` declares; None if there is none."""
    card = folder / "README.md"
    if not card.is_file():
        return None
    for line in card.read_text(errors="replace").splitlines()[:60]:
        name, _, value = line.partition(":")
        if name.strip() in {"license", "licence"} and value.strip():
            return value.strip()
    return None
