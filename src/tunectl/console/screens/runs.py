"""Screen of the runs of ``tunectl repro`` and of fetched results, newest first: who, changes against the previous run, primary metric, verdict, release."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct, field
from msgspec.structs import replace

from tunectl.config.loading.provenance import format_value, iter_leaves, to_dotted_key
from tunectl.console.paging import find_page_start
from tunectl.console.read_context import ProblemList, stamp_files
from tunectl.console.screens.jobs import count_jobs
from tunectl.evaluation import metrics
from tunectl.evaluation.results import Score
from tunectl.pipeline import run_ledger
from tunectl.pipeline.run_ledger import RunRecord, StageLaunch
from tunectl.tracking import spool

if TYPE_CHECKING:
    from tunectl.console.read_context import ReadContext

PAGE_SIZE: Final = 50
MAX_CHANGES: Final = 4
"""Number of differences in a row of the list; the comparison shows all."""
ABSENT: Final = "not there"
JUDGED: Final = ("aligned", "tuned")
"""The systems that a run can produce, the last one first."""


class ChangedSetting(Struct, frozen=True):
    """One setting that differs between two runs, with both values."""

    what: str
    """STAGE: key."""
    old: str
    new: str


class RunRow(Struct, frozen=True):
    """One run in a list: who started it, how long it took, how it ended."""

    id: str
    started_at: datetime
    seconds: float
    author: str
    reason: str
    """Reason that was given where it was started from the console; the job where its results were fetched."""
    unattended: bool
    """Whether the retrain controller or a sweep started it."""
    commit: str
    changes: list[ChangedSetting]
    """The first differences from the previous run."""
    more_changes: int
    executed: list[str]
    """Stages that it ran."""
    system: str
    """System whose score is shown."""
    metric: str
    score: Score | None
    verdict: str
    passed: bool | None
    failure: str
    release: str
    note: str = ""
    """What somebody wrote about the run afterwards, and who; empty: nothing."""
    note_author: str = ""
    launches: dict[str, StageLaunch] = field(default_factory=dict)
    """Stages that were trained on several processes, with the way in which these were launched."""
    build: str = ""
    """Id of the build at the trackers; empty where it is not tracked."""
    tracked: dict[str, str] = field(default_factory=dict)
    """Address of the run at each tracker, which may be empty; no entry while the build is not sent yet."""


class RunsScreen(Struct, frozen=True):
    """Content of the screen Runs: one page of the ledger."""

    rows: list[RunRow] = field(default_factory=list)
    total: int = 0
    at: int = 0
    size: int = PAGE_SIZE
    jobs: dict[str, int] = field(default_factory=dict)
    """Number of jobs on a cluster by the state that was last recorded; empty where none was ever submitted."""
    problems: dict[str, str] = field(default_factory=dict)


def read_runs(context: ReadContext, query: Mapping[str, str]) -> RunsScreen:
    """Return one page of the recorded runs, the newest first; ``query["at"]`` is the index of its first run."""
    problems = ProblemList()
    names: list[str] = problems.attempt("runs", lambda: run_ledger.list_runs(context.layout), [])
    at = find_page_start(query.get("at", ""), PAGE_SIZE, len(names))
    page = names[at : at + PAGE_SIZE + 1]
    records = {name: try_load(context, problems, name) for name in page}
    readable = [record for record in records.values() if record is not None]
    rows = [
        build_row(record, readable[index + 1] if index + 1 < len(readable) else None)
        for index, record in enumerate(readable[:PAGE_SIZE])
    ]
    rows = [replace(row, tracked=_find_tracked(context, problems, row.build)) if row.build else row for row in rows]
    jobs = count_jobs(context, problems)
    return RunsScreen(rows, len(names), at, PAGE_SIZE, jobs, problems.problems)


def try_load(context: ReadContext, problems: ProblemList, name: str) -> RunRecord | None:
    """Return one run; None where it cannot be read, with the error in ``problems``."""
    return problems.attempt(f"run {name}", lambda: _load(context, name), None)


def _load(context: ReadContext, name: str) -> RunRecord:
    stamp = stamp_files([context.layout.runs / f"{name}.json"])
    return context.cache.get(f"run {name}", stamp, lambda: run_ledger.read_run(context.layout, name))


def build_row(record: RunRecord, before: RunRecord | None) -> RunRow:
    """Return the row of a run; ``before``: the run with which its settings are compared."""
    changes = list(list_changes(before, record)) if before is not None else []
    system = next((name for name in JUDGED if name in record.primary_scores), next(iter(record.primary_scores), ""))
    verdict = record.verdicts.get("evaluate") or next(iter(record.verdicts.values()), None)
    return RunRow(
        record.id,
        datetime.fromtimestamp(record.started_at, UTC),
        record.seconds,
        record.author,
        record.reason,
        record.unattended,
        record.commit or "",
        changes[:MAX_CHANGES],
        max(0, len(changes) - MAX_CHANGES),
        [stage.name for stage in record.stages if stage.executed],
        system,
        _title(record.primary) if record.primary else "",
        record.primary_scores.get(system),
        verdict.reason or verdict.verdict if verdict else "",
        verdict.passed if verdict else None,
        record.failure.message if record.failure else "",
        record.release or "",
        record.note,
        record.note_author,
        {stage.name: stage.launch for stage in record.stages if stage.launch is not None and stage.launch.ranks > 1},
        record.build,
    )


def list_changes(old: RunRecord, new: RunRecord) -> Iterator[ChangedSetting]:
    """Yield the settings that differ between two runs."""
    before, after = flatten_settings(old.settings), flatten_settings(new.settings)
    for key in sorted(before.keys() | after.keys()):
        if before.get(key) != after.get(key):
            yield ChangedSetting(key, before.get(key, ABSENT), after.get(key, ABSENT))


def flatten_settings(settings: Mapping[str, Any]) -> dict[str, str]:
    """Return the settings of all stages by dotted key; a section that several stages read comes once."""
    sections = {name: section for view in settings.values() for name, section in view.items()}
    return {to_dotted_key(path): format_value(value) for path, value in iter_leaves(sections) if path}


def _find_tracked(context: ReadContext, problems: ProblemList, build: str) -> dict[str, str]:
    """Return the address of a sent build at each tracker; an address that is no web page is left out."""
    if not build.replace("-", "").isalnum():
        return {}
    path = context.layout.track / spool.SENT / f"{build}.json"
    nothing: dict[str, str] = {}
    addresses = problems.attempt(f"build {build}", lambda: context.read_json(path, dict[str, str]) or nothing, nothing)
    return {name: address if address.startswith(("http://", "https://")) else "" for name, address in addresses.items()}


def _title(metric: str) -> str:
    try:
        return metrics.get_metric(metric).title
    except KeyError:
        return metric
