"""The references of a window: the champion's own answers, and the prompts of accepted windows or of the training set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from math import inf
from pathlib import Path

import msgspec

from tunectl.artifacts import atomic_io
from tunectl.artifacts.paths import ProjectPaths
from tunectl.artifacts.records import DriftWindow, Example, Message
from tunectl.evaluation.safety import refuses
from tunectl.inference_log.log_store import InferenceLog, TimeWindow
from tunectl.monitoring import window as windows
from tunectl.monitoring.signals import MonitoredInference
from tunectl.packaging import serving_contract
from tunectl.packaging.probes import RecordedResponse
from tunectl.privacy.mask import PiiMasker, PlaceholderMap


@dataclass(frozen=True, slots=True)
class ReferenceData:
    """The rows of a reference with its name, or the reason (``why``) why there is none."""

    name: str
    """Part of the id of windows: id of a window, of a release, or ``training_prompts``."""
    rows: tuple[MonitoredInference, ...] = ()
    why: str = ""
    """Why there are no rows."""


def load_recorded_answers(release: Path, masker: PiiMasker | None = None) -> ReferenceData:
    """Return the champion's own answers to validation prompts, recorded in the folder ``release`` when it was packaged.

    ``masker`` masks personal data in them as it is masked in logged answers; else the placeholders of the log would look like drift.
    Raises  ArtifactError or DataError for a damaged release.
    """
    path = release / serving_contract.REFERENCE
    if not path.is_file():
        return ReferenceData(
            release.name, why=f"release {release.name} holds no answers (package.reference_responses is 0)"
        )
    rows = enumerate(atomic_io.read_rows(path, RecordedResponse))
    return ReferenceData(release.name, tuple(_answer(index, item, _mask_answer(item, masker)) for index, item in rows))


def _mask_answer(response: RecordedResponse, masker: PiiMasker | None) -> str:
    if masker is None:
        return response.answer
    memory = PlaceholderMap()
    for text in (*(turn.content for turn in response.prompt), response.answer):
        memory.reserve(text)
    return masker.mask(response.answer, memory).text


def _answer(index: int, response: RecordedResponse, text: str) -> MonitoredInference:
    return MonitoredInference(
        id=f"reference-{index}",
        answer=text or None,
        answer_tokens=response.tokens,
        finish_reason=response.finish_reason,
        refused=not response.answer.strip() or refuses(response.answer),
        mean_logprob=response.mean_logprob,
    )


def training_prompts(layout: ProjectPaths, maximum: int) -> ReferenceData:
    """Return at most ``maximum`` training prompts, as the reference for ``monitor.prompts.reference=training``."""
    path = layout.artifact("split") / "train.jsonl"
    if not path.is_file():
        return ReferenceData(windows.TRAINING, why=f"{path} does not exist; build it: tunectl repro --to split")
    rows = []
    for row in atomic_io.read_rows(path, Example):
        text = _find_last_user_text(row.messages)
        if text:
            rows.append(MonitoredInference(id=f"training-{row.id}", prompt=text))
    return ReferenceData(windows.TRAINING, _spread(rows, maximum))


def _spread(rows: Sequence[MonitoredInference], maximum: int) -> tuple[MonitoredInference, ...]:
    """Return at most so many rows, evenly spaced: files are sorted by source, and windows by time."""
    count = min(len(rows), maximum)
    return tuple(rows[index * len(rows) // count] for index in range(count))


def _find_last_user_text(messages: Sequence[Message]) -> str:
    return next((message.content for message in reversed(messages) if message.role == "user"), "")


def load_accepted_windows(
    store: InferenceLog, maximum: int, within: float, release: str | None = None
) -> ReferenceData:
    """Return at most ``maximum`` rows of the windows that ``tunectl monitor set-reference`` accepted last, without those erased since.

    Feedback counts when it came at most ``within`` seconds after the request; ``release``: only windows in which that one answered.
    """
    accepted_windows = windows.find_accepted_windows([event.body for event in store.events(kind=windows.REFERENCE_SET)])
    if not accepted_windows:
        return ReferenceData(
            windows.EMPTY, why="no window of prompts was accepted yet: tunectl monitor set-reference ID"
        )
    windows_by_id = {window.id: window for window in store.windows()}
    absent = [name for name in accepted_windows if name not in windows_by_id]
    if absent:
        return ReferenceData(windows.EMPTY, why=f"the accepted window {absent[0]} is not in the inference log")
    accepted_windows = [name for name in accepted_windows if release in {None, windows_by_id[name].body.get("release")}]
    if not accepted_windows:
        return ReferenceData(windows.EMPTY, why=f"no accepted window has answers of release {release}")
    rows: list[MonitoredInference] = []
    for name in accepted_windows:
        rows += rows_of(store, windows_by_id[name], within)
    return ReferenceData("+".join(accepted_windows), _spread(rows, maximum))


def canary_answers(store: InferenceLog, release: str, maximum: int, within: float) -> ReferenceData:
    """Return at most ``maximum`` answers of a release in its canary: recent requests of randomly assigned identities.

    Feedback counts when it came at most ``within`` seconds after the request. Inferences whose caller asked for the release by
    name were not assigned, and are left out.
    """
    name = f"canary-{release}"
    inferences = windows.select_rows(store.inferences(release=release, variant=windows.CHALLENGER), windows.CHALLENGER)
    sampled = [item for item in inferences if (item.request or {}).get("model") not in (windows.CHALLENGER, release)][
        -maximum:
    ]
    if not sampled:
        return ReferenceData(name, why=f"release {release} had no canary")
    feedback_by_inference = store.feedback_of([item.id for item in sampled])
    return ReferenceData(
        name,
        tuple(windows.to_monitored_inference(item, feedback_by_inference.get(item.id, ()), within) for item in sampled),
    )


def rows_of(store: InferenceLog, window: TimeWindow, within: float = inf) -> list[MonitoredInference]:
    """Return the champion's inferences in a closed window that are still in the inference log, each with its feedback.

    Feedback later than ``within`` seconds after the request is ignored; its inference is still returned.
    """
    release_name = window.body.get("release")
    inferences = windows.select_rows(
        store.inferences(window.since, window.until, release=release_name, variant=windows.CHAMPION)
    )
    feedback_by_inference = store.feedback_of([item.id for item in inferences])
    return [windows.to_monitored_inference(item, feedback_by_inference.get(item.id, ()), within) for item in inferences]


def load_rows_by_id(store: InferenceLog, name: str) -> dict[str, MonitoredInference]:
    """Return the inferences of the closed window with id ``name``, by inference id, as they are in the inference log now."""
    result = next((window for window in store.windows() if window.id == name), None)
    return {} if result is None else {row.id: row for row in rows_of(store, result)}


def list_windows_since_change(store: InferenceLog, name: str) -> list[DriftWindow]:
    """Return the windows from the change on that the window with id ``name`` detected, oldest first: same release, same reference.

    None where that window is not in the inference log.
    """
    closed = list_closed_windows(store)
    detected = next((window for window in closed if window.id == name), None)
    if detected is None:
        return []
    since = detected.changed_since or detected.since
    streak = windows.select_streak(closed, detected.release, detected.reference)
    return [window for window in streak if window.since >= since and window.verdict != "error"]


def list_closed_windows(store: InferenceLog, since: datetime | None = None) -> list[DriftWindow]:
    """Return the windows that the monitor closed since ``since`` (None: all), oldest first; other rows of that table are not the monitor's."""
    own = [window.body for window in store.windows(since) if "verdict" in window.body and "reference" in window.body]
    result = [msgspec.convert(body, DriftWindow, strict=False) for body in own]
    return sorted(result, key=lambda item: item.until)
