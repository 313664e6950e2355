"""A release on the Hugging Face Hub: adapter, tokenizer and card, so that peft and transformers load it by name."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from tunectl.core.errors import InfrastructureError, UsageError
from tunectl.core.optional import import_optional
from tunectl.packaging import serving_contract

TOKEN = "HF_TOKEN"  # noqa: S105  the name of a variable


def stage_files(release: Path, out: Path) -> None:
    """Write the files for the Hub to ``out``: README.md, the adapter's and the tokenizer's files, and the serving contract."""
    out.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(release / serving_contract.CARD, out / "README.md")
    shutil.copyfile(release / serving_contract.NAME, out / "serving_contract.json")
    for part in (serving_contract.ADAPTER, serving_contract.TOKENIZER):
        for path in sorted((release / part).iterdir()):
            shutil.copyfile(path, out / path.name)


def upload(release: Path, repo: str, *, private: bool, message: str) -> str:
    """Upload the release to the Hub as ``repo``, which is created if it is absent; return the address of the commit.

    Raises  UsageError for a name that the Hub refuses, or no right to write; InfrastructureError without a connection.
    """
    hub = import_optional("huggingface_hub", extra="train")
    errors = import_optional("huggingface_hub.errors", extra="train")
    with tempfile.TemporaryDirectory() as scratch:
        stage_files(release, Path(scratch))
        try:
            api = hub.HfApi()
            api.create_repo(repo, private=private, exist_ok=True)
            result: Any = api.upload_folder(repo_id=repo, folder_path=scratch, commit_message=message)
        except errors.OfflineModeIsEnabled as error:
            raise InfrastructureError(
                f"{repo} cannot be pushed: HF_HUB_OFFLINE is set", hint="unset HF_HUB_OFFLINE, then run again"
            ) from error
        except (errors.HfHubHTTPError, errors.HFValidationError, errors.LocalTokenNotFoundError) as error:
            raise UsageError(
                f"the Hub refuses {repo}: {_first(error)}",
                hint=f"log in with: hf auth login (or {TOKEN}), with the right to write; the name is OWNER/NAME",
            ) from error
        except (
            OSError,
            errors.HTTPError,
        ) as error:  # the Hub's client raises errors other than OSError without a connection
            raise InfrastructureError(
                f"{repo} cannot be pushed: {_first(error)}",
                hint="check that this machine reaches the Hub (HF_ENDPOINT, if set, is its address), then run again",
            ) from error
    return str(result.commit_url)


def _first(error: Exception) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)[:300]
