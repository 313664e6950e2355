"""Open the project's inference log for commands that only read: reading creates none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tunectl.artifacts.paths import ProjectPaths
from tunectl.core.errors import DataError

if TYPE_CHECKING:
    from tunectl.artifacts.records import InferenceRecord
    from tunectl.config.schema.inference_log import InferenceLogConfig
    from tunectl.inference_log.log_store import InferenceLog


@contextmanager
def open_if_exists(settings: InferenceLogConfig, layout: ProjectPaths) -> Iterator[InferenceLog | None]:
    """Yield the inference log; None where nothing was logged yet.

    Raises  InfrastructureError where it cannot be opened.
    """
    if _find_absent_file(settings, layout) is not None:
        yield None
        return
    with open_existing(settings, layout) as store:
        yield store


@contextmanager
def open_existing(settings: InferenceLogConfig, layout: ProjectPaths) -> Iterator[InferenceLog]:
    """Yield the inference log of a project whose server has logged something.

    Raises  DataError where nothing was logged yet; InfrastructureError where it cannot be opened.
    """
    from tunectl.backends.storage import inference_log_sql
    from tunectl.inference_log import pseudonyms

    require_log(settings, layout)
    with inference_log_sql.open_log(pseudonyms.address(settings), layout.root) as store:
        yield store


def require_log(settings: InferenceLogConfig, layout: ProjectPaths) -> None:
    """Check that something was logged; raise DataError otherwise."""
    absent = _find_absent_file(settings, layout)
    if absent is not None:
        raise DataError(f"{absent}: nothing was logged yet", hint="serve the model: tunectl serve")


def inference(store: InferenceLog, name: str) -> InferenceRecord | None:
    """Return the inference whose id is ``name``, or the only one whose id begins with it; None if there is none.

    Raises  DataError where several ids begin so.
    """
    if any("\ud800" <= sign <= "\udfff" for sign in name):
        return None  # bytes that are no text, as a terminal may pass them: no database stores them
    record = store.inference(name)
    if record is not None:
        return record
    names = store.find_ids_by_prefix(name)
    if len(names) > 1:
        listed = ", ".join(names[:3]) + (", ..." if names[3:] else "")
        raise DataError(f"{name!r} matches several ids: {listed}", hint="give more characters of the id")
    return store.inference(names[0]) if names else None


def _find_absent_file(settings: InferenceLogConfig, layout: ProjectPaths) -> Path | None:
    """Return the file of the database, where it is a file and does not exist."""
    from tunectl.backends.storage import inference_log_schema
    from tunectl.inference_log import project_folder, pseudonyms

    project_folder.require_new_folder(layout.root)
    file = inference_log_schema.database_file(pseudonyms.address(settings), layout.root)
    return None if file is None or file.is_file() else file
