"""Screen People: how many answers each annotator compared, agreement and biases; and where the annotation page is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from msgspec import Struct, field

from tunectl.artifacts import lock
from tunectl.artifacts.records import Comparison
from tunectl.console.read_context import ProblemList, stamp_files
from tunectl.pipeline import background_build, background_prepare
from tunectl.pipeline.background_build import BuildRequest
from tunectl.preferences import agreement, annotation_store
from tunectl.preferences.agreement import InterAnnotatorAgreement

if TYPE_CHECKING:
    from pathlib import Path

    from tunectl.console.read_context import ReadContext


class PeopleScreen(Struct, frozen=True):
    """Content of the screen People: numbers of judged inputs, and the annotators' agreement."""

    questions: int = 0
    judged: int = 0
    """Of the questions: those with at least one judgment."""
    judgments: int = 0
    skipped: int = 0
    """Number of skipped or taken back questions."""
    found: InterAnnotatorAgreement | None = None
    """Agreement without Krippendorff's alpha, which is in the agreement report."""
    address: str = ""
    """Address of the annotation page."""
    is_open: bool = False
    """Whether that page is being served."""
    is_preparing: bool = False
    """Whether models write questions now; the page cannot be opened meanwhile."""
    request: BuildRequest | None = None
    """Who let the running preparation start from the console, and why."""
    log: str = ""
    """The last lines of a preparation that was started from the console."""
    problems: dict[str, str] = field(default_factory=dict)


def read_people(context: ReadContext, query: Mapping[str, str]) -> PeopleScreen:  # noqa: ARG001 - every screen is read alike
    """Return numbers and agreement from the store of judgments, without taking its lock."""
    problems = ProblemList()
    settings = problems.attempt("settings", context.load_settings, None)
    if settings is None:
        return PeopleScreen(problems=problems.problems)
    folder = context.layout.root / settings.annotate.store
    measurements = problems.attempt("judgments", lambda: _load(context, folder, settings.seed), None)
    holder = lock.read_holder(folder / annotation_store.LOCK)
    process = background_prepare.find_prepare(folder)
    host = f"[{settings.annotate.host}]" if ":" in settings.annotate.host else settings.annotate.host
    return PeopleScreen(
        questions=problems.attempt("questions", lambda: annotation_store.count_tasks(folder), 0),
        judged=measurements[1] if measurements else 0,
        judgments=measurements[2].judgments if measurements else 0,
        skipped=measurements[0] if measurements else 0,
        found=measurements[2] if measurements else None,
        address=f"http://{host}:{settings.annotate.port}/",
        is_open=bool(holder) and process is None,
        is_preparing=process is not None,
        request=background_build.read_record(context.layout.prepare_request, BuildRequest, process)
        if process
        else None,
        log=background_build.read_file_end(context.layout.prepare_log),
        problems=problems.problems,
    )


def _load(context: ReadContext, folder: Path, seed: int) -> tuple[int, int, InterAnnotatorAgreement] | None:
    def build() -> tuple[int, int, InterAnnotatorAgreement] | None:
        if not annotation_store.has_annotations(folder):
            return None
        rows = list(annotation_store.load_annotations(folder))
        judgments = [row for row in rows if isinstance(row, Comparison)]
        measured = agreement.inter_annotator_agreement(judgments, lambda _: None, seed=seed)
        tasks = {(one.prompt, str(one.answers)) for one in judgments}
        return len(rows) - len(judgments), len(tasks), measured

    files = [folder / annotation_store.ANNOTATIONS, folder / annotation_store.TASKS]
    return context.cache.get(f"judgments {folder}", stamp_files(files), build)
