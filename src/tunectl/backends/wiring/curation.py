"""Choose whether curate runs in this process or on a Ray cluster."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunectl.artifacts import atomic_io

if TYPE_CHECKING:
    from tunectl.artifacts.disk_list import RowList
    from tunectl.artifacts.row_counts import RowCounter
    from tunectl.config.schema.curate import CurateFilters
    from tunectl.data.curation_pipeline import CurationPipeline
    from tunectl.data.curation_report import RecordTally
    from tunectl.data.transform import Record


def choose_engine(stage: str, path: Path) -> dict[str, Any]:
    """Return the argument ``engine`` for ``run`` of curate if ``compose`` wrote ``ray`` to the file ``path``; empty if not, or for another stage."""
    if stage != "curate" or not path.is_file() or atomic_io.read_json(path) != {"engine": "ray"}:
        return {}
    return {"engine": curate_on_ray}


def curate_on_ray(
    filters: CurateFilters,
    blocks: CurationPipeline,
    build: Callable[[], CurationPipeline],
    files: Sequence[Path],
    total: RowCounter,
    after: RowList[Record],
) -> RecordTally:
    """Curate the rows in ``files`` on the cluster that ``RAY_ADDRESS`` names, or on one that is started here; return the row counts.

    Kept rows are added to ``after``, counts to ``total``; ``build`` makes the pipeline on each worker.
    """
    from tunectl.backends.launchers import ray_tables
    from tunectl.data.partitioned.curation import PartitionedCuration

    with ray_tables.open_tables() as tables:
        return PartitionedCuration(tables, filters, blocks, build, uuid.uuid4().hex).run(files, total, after)
