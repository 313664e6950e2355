"""datasets: rows of a data set of the Hugging Face Hub, streamed at a pinned revision."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tunectl.artifacts.records import RejectedRow, Source
from tunectl.config.schema.ingest import HubDataset
from tunectl.core.errors import DataError, InfrastructureError
from tunectl.core.optional import import_optional
from tunectl.data.readers.row import RawRow


def read_hub(hub: HubDataset) -> Iterator[RawRow | RejectedRow]:
    """Yield the rows of the declared split, or of all splits if none is declared; row numbers count from 1 in each split.

    Where all splits are read, each row gets a ``split`` column with its split's name, unless it has one.
    Raises  InfrastructureError when the Hub cannot be reached, DataError when the data set, subset or split is not there.
    """
    library = import_optional("datasets", extra="train")
    try:
        dataset = library.load_dataset(hub.id, name=hub.subset, revision=hub.revision, split=hub.split, streaming=True)
        splits = dataset if hub.split is None else {hub.split: dataset}
        for name, rows in splits.items():
            yield from _rows(hub, str(name), rows)
    except (ConnectionError, TimeoutError) as error:
        raise InfrastructureError(
            f"the Hub cannot be reached for the data set {hub.id}: {_first_line(error)}", hint=_copy(hub)
        ) from error
    except (OSError, ValueError) as error:
        raise DataError(
            f"the data set {hub.id} cannot be read (revision {hub.revision}, subset {hub.subset}, split {hub.split}): "
            f"{_first_line(error)}",
            hint=f"set id, revision, subset and split of this source to those on https://huggingface.co/datasets/{hub.id}; or {_copy(hub)}",
        ) from error


def _rows(hub: HubDataset, split: str, rows: Any) -> Iterator[RawRow]:
    address = f"hf://datasets/{hub.id}@{hub.revision}/{split}"
    for number, columns in enumerate(rows, 1):
        named = columns if hub.split is not None else {"split": split, **columns}
        yield RawRow(Source(address, number), named)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _copy(hub: HubDataset) -> str:
    folder = f"data/{hub.id.rpartition('/')[2]}"
    return (
        f"make a local copy where the Hub can be reached, with: hf download {hub.id} --repo-type dataset --revision "
        f"{hub.revision} --local-dir {folder}; then declare method: files, path: {folder}"
    )
