"""Tables of curation on a Ray cluster, by Ray Data."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from tunectl.backends.launchers import ray_errors, ray_launcher
from tunectl.config.schema.base import validate_endpoint
from tunectl.core.errors import UsageError
from tunectl.core.optional import import_optional
from tunectl.data.partitioned.tables import Batch, Columns, Load, Work

EXTRA = "ray"
START_HINT = "start a cluster (ray start --head), or unset RAY_ADDRESS to start one here"
RETRY_HINT = "run the same command again, or work without Ray: curate.engine=local"
MAX_RETRIES = 10
"""Times that the work on a block is done again after its process was killed. Ray Data's default has no end: a block that needs more memory
than there is would be tried for ever."""
PARTITIONS_A_CPU = 4
"""Partitions per CPU: enough that no single partition decides the time."""


@contextmanager
def open_tables(partitions: int | None = None) -> Iterator[RayTables]:
    """Yield tables on the cluster that ``RAY_ADDRESS`` names, or on one that is started here and ended afterwards.

    ``partitions``: number of partitions of a shuffle; None: a fixed number per CPU of the cluster.
    Raises  UsageError for an address of Ray's client, or one that is none; InfrastructureError where no cluster is reachable, or a step failed too often; the error that a step raised; MissingExtraError without Ray.
    """
    named = os.environ.get("RAY_ADDRESS") or "local"
    if "://" in named:
        raise UsageError(
            f"RAY_ADDRESS = {named}: Ray's client (ray://) is not supported",
            hint="run on a node of the cluster with RAY_ADDRESS=auto, or send a job: tunectl submit run STAGE --to ray",
        )
    if named not in ("local", "auto"):
        try:
            validate_endpoint(named)
        except ValueError as error:
            raise UsageError(f"RAY_ADDRESS = {named}: {error}", hint=START_HINT) from error
    ray_launcher.prepare_environment(local=named == "local")
    ray = import_optional("ray", extra=EXTRA)
    started = ray_launcher.connect(ray, "RAY_ADDRESS", named, START_HINT, log_to_driver=False, include_dashboard=False)
    try:
        cpus = max(1, int(ray.cluster_resources().get("CPU", 1)))
        with warnings.catch_warnings():
            # map_batches has no named parameter for the number of tries, so it is one of the deprecated ones; pyproject.toml bounds Ray
            warnings.simplefilter("ignore", import_optional("ray.util.annotations", extra=EXTRA).RayDeprecationWarning)
            yield RayTables(ray, partitions or PARTITIONS_A_CPU * cpus)
    except ray.exceptions.RayError as error:
        raise ray_errors.describe(error, "curate.engine = ray: a step failed on the cluster", RETRY_HINT) from error
    finally:
        if started:
            ray.shutdown()


class RayTables:
    """Runs the steps of curation on Ray Data: a table is a materialized data set, or None if it has no rows.

    A step (``work``) is a function that gets one block of rows as columns, and returns columns.
    """

    def __init__(self, ray: Any, partitions: int) -> None:
        self.partitions = partitions
        self._ray = ray
        self._data = import_optional("ray.data", extra=EXTRA)
        for handler in logging.getLogger("ray.data").handlers:
            if isinstance(
                handler, logging.StreamHandler
            ):  # the console: we print the error; its traceback goes to Ray's log alone
                handler.setLevel(logging.CRITICAL)
        context = self._data.DataContext.get_current()
        context.raise_original_map_exception = True  # else an error of a step arrives without its type and message
        context.enable_progress_bars = False
        context.execution_options.preserve_order = True
        # Hash shuffle starts one actor for several partitions: 17 s for a thousand rows on two cores, where sorting takes 1.4 s.
        context.shuffle_strategy = import_optional(
            "ray.data.context", extra=EXTRA
        ).ShuffleStrategy.SORT_SHUFFLE_PULL_BASED

    def start(self, rows: list[dict[str, Any]], columns: Columns) -> Any:
        """Return a table of ``rows``, each in a block of its own, with ``columns`` (type by name)."""
        batches = [{name: [row[name]] for name in columns} for row in rows]
        return self._data.from_arrow([_to_arrow(batch, columns) for batch in batches])

    def map(self, table: Any, work: Work, columns: Columns) -> Any:
        """Run ``work`` on each block of ``table``; return its output, a table with ``columns``."""
        if table is None:
            return None
        return _keep(
            table.map_batches(
                _ArrowWork(work, columns), batch_format="pyarrow", batch_size=None, max_retries=MAX_RETRIES
            )
        )

    def group(self, table: Any, work: Work, columns: Columns) -> Any:
        """Run ``work`` on all rows of each partition (column ``part``), after a shuffle; return its output, a table with ``columns``."""
        if table is None:
            return None
        groups = table.groupby("part")
        return _keep(groups.map_groups(_ArrowWork(work, columns), batch_format="pyarrow", max_retries=MAX_RETRIES))

    def join(self, tables: list[Any]) -> Any:
        """Return one table with the rows of all ``tables``, in order; None if they have no rows."""
        filled = [table for table in tables if table is not None]
        if len(filled) < 2:  # Ray's union takes two or more data sets
            return filled[0] if filled else None
        return filled[0].union(*filled[1:])

    def read(self, table: Any, *, sort: Sequence[str] = ()) -> Iterator[Batch]:
        """Yield the blocks of a table as columns, sorted by the columns ``sort`` if there are any."""
        if table is None:
            return
        ordered = table.sort(list(sort)) if sort else table
        for batch in ordered.iter_batches(batch_format="pyarrow", batch_size=None):
            yield _from_arrow(batch)

    def share(self, value: Any) -> Load:
        """Put ``value`` into Ray's object store; return a function by which workers read it, once per node."""
        return _SharedObject(self._ray.put(value))


def _keep(table: Any) -> Any:
    result = table.materialize()
    return result if result.count() else None


class _SharedObject:
    def __init__(self, reference: Any) -> None:
        self.reference = reference

    def __call__(self) -> Any:
        return import_optional("ray", extra=EXTRA).get(self.reference)


class _ArrowWork:
    def __init__(self, work: Work, columns: Columns) -> None:
        self.work, self.columns = work, columns
        self.__name__ = getattr(work, "__name__", type(work).__name__)  # Ray shows it

    def __call__(self, batch: Any) -> Any:
        return _to_arrow(self.work(_from_arrow(batch)), self.columns)


def _from_arrow(batch: Any) -> Batch:
    arrow = import_optional("pyarrow", extra=EXTRA)
    return {
        name: batch[name].to_pylist() if arrow.types.is_large_binary(batch[name].type) else batch[name].to_numpy()
        for name in batch.column_names
    }


def _to_arrow(batch: Batch, columns: Columns) -> Any:
    arrow = import_optional("pyarrow", extra=EXTRA)
    types = {"int64": arrow.int64(), "float64": arrow.float64(), "binary": arrow.large_binary()}
    schema = arrow.schema([(name, types[kind]) for name, kind in columns.items()])
    return arrow.table({name: batch[name] for name in columns}, schema=schema)
