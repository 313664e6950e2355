"""datasets: batches of rows of a data set of the Hugging Face Hub, streamed at a pinned revision. Its files are a stranger's: ``reader_process`` runs this in its child."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NoReturn

from msgspec import Struct

from tunectl.backends.readers import parquet_reader
from tunectl.core.errors import DataError, InfrastructureError, TunectlError
from tunectl.core.optional import import_optional

ENVIRONMENT: Final[Mapping[str, str]] = {
    "HF_DATASETS_TRUST_REMOTE_CODE": "0",
    "USE_TORCH": "0",
    "MALLOC_ARENA_MAX": "2",
    "OMP_NUM_THREADS": "2",
    "OPENBLAS_NUM_THREADS": "1",
}
"""Variables of the child. datasets before version 4 ran a data set's own code where the first is 1. Without torch it starts 2 s sooner. Each thread
reserves address space, which the child has little of, and a machine of many cores would start many."""


class HubRequest(Struct, frozen=True):
    """Data set of the Hub to read: the fields of ``HubDataset`` that say where its rows are."""

    id: str
    revision: str
    subset: str | None
    split: str | None

    @property
    def address(self) -> str:
        """Return the address of the data set, which the name of each row's split follows."""
        return f"hf://datasets/{self.id}@{self.revision}"


def read_columns(
    hub: HubRequest, batch_rows: int, max_characters: int
) -> Iterator[tuple[str, list[str], list[list[Any]]]]:
    """Yield batches of at most ``batch_rows`` rows: split, names of the columns, and each column as a list of plain values.

    Where all splits are read, a column ``split`` comes first, unless there is one. Pictures and sounds are not decoded: their paths could
    name files of this machine. ``max_characters``: see ``parquet_reader.list_columns``.
    Raises  InfrastructureError when the Hub cannot be reached, DataError when the data set, subset or split is not there or cannot be read.
    """
    library = import_optional("datasets", extra="train")
    try:
        builder = library.load_dataset_builder(hub.id, name=hub.subset, revision=hub.revision)
        _require_own_files(hub, builder)
        streams = builder.as_streaming_dataset(split=hub.split)
        splits = streams if hub.split is None else {hub.split: streams}
        for split, rows in splits.items():
            for table in rows.with_format("arrow").iter(batch_size=batch_rows):
                names, columns = _list_columns(library, table, max_characters)
                if hub.split is None and "split" not in names:
                    names, columns = ["split", *names], [[str(split)] * table.num_rows, *columns]
                yield str(split), names, columns
    except (MemoryError, TunectlError):
        raise
    except Exception as error:  # broken files fail in datasets and its readers with errors of every kind
        if isinstance(error, ConnectionError | TimeoutError) or type(error).__module__.partition(".")[0] == "httpx":
            raise InfrastructureError(
                f"the Hub cannot be reached for the data set {hub.id}: {_first_line(error)}", hint=_suggest_copy(hub)
            ) from error
        raise_read_error(hub, _first_line(error), error)


def raise_read_error(hub: HubRequest, reason: str, cause: Exception) -> NoReturn:
    """Raise the DataError for a data set that cannot be read, or not to its end."""
    raise DataError(
        f"the data set {hub.id} cannot be read (revision {hub.revision}, subset {hub.subset}, split {hub.split}): {reason}",
        hint=f"set id, revision, subset and split of this source to those on https://huggingface.co/datasets/{hub.id}; or {_suggest_copy(hub)}",
    ) from cause


def _require_own_files(hub: HubRequest, builder: Any) -> None:
    """Refuse a data set whose README.md names other files than its own: of this machine, or at any address."""
    base = str(builder.base_path or "")
    own = base.partition("@")[0] + "@" if base.startswith("hf://") else f"{Path(base).resolve()}{os.sep}"
    for files in (builder.config.data_files or {}).values():
        for file in files:
            origin = str(file).rpartition("::")[2]  # behind the path inside an archive
            if not (origin if "://" in origin else os.path.normpath(origin)).startswith(own):
                raise DataError(
                    f"the data set {hub.id} (revision {hub.revision}) names a file outside of it: {file}",
                    hint="its README.md does so, under configs; take a data set whose files are its own",
                )


def _list_columns(library: Any, table: Any, max_characters: int) -> tuple[list[str], list[list[Any]]]:
    """Return names and columns of a pyarrow table; a column of JSON in texts (datasets has it for values of mixed types) is decoded: a cut one could not be."""
    columns = parquet_reader.list_columns(table, max_characters)
    for number, field in enumerate(table.schema):
        if "arrow.json" in str(field.type):
            features = library.Features.from_arrow_schema(table.schema)
            columns[number] = features.decode_column(table.column(number).to_pylist(), field.name)
    return list(table.schema.names), columns


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _suggest_copy(hub: HubRequest) -> str:
    folder = f"data/{hub.id.rpartition('/')[2]}"
    return (
        f"make a local copy where the Hub can be reached, with: hf download {hub.id} --repo-type dataset --revision "
        f"{hub.revision} --local-dir {folder}; then declare method: files, path: {folder}"
    )
