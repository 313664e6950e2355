"""Erase all data of the person who sent a request (right to be forgotten), from the page of that request."""

from __future__ import annotations

from collections.abc import Mapping

from tunectl.artifacts.records import InferenceRecord
from tunectl.backends.storage import open_inference_log
from tunectl.console.act_page import REASON, ActButton, ActPage, check_unchanged
from tunectl.console.acts.act_errors import require_reason
from tunectl.console.read_context import NotFoundError, ReadContext
from tunectl.core import logging_setup
from tunectl.core.errors import UsageError
from tunectl.inference_log import erasure
from tunectl.inference_log.erasure import BUSY, LIMIT
from tunectl.inference_log.log_store import InferenceLog

MAX_COUNT = 10_000
"""Most inferences of one person that are counted before the act."""


def _find_record(log: InferenceLog | None, form: Mapping[str, str]) -> InferenceRecord:
    record = None if log is None else log.inference(form.get("inference", ""))
    if record is None:
        raise NotFoundError(form.get("inference", ""))
    return record


def read(context: ReadContext, form: Mapping[str, str]) -> ActPage:
    """Return the confirmation page of an erasure: how many records of the request's author there are, and what stays.

    Raises  NotFoundError for a request that is not in the log.
    """
    with open_inference_log.open_if_exists(context.load_settings().inference_log, context.layout) as log:
        record = _find_record(log, form)
        count = _count_inferences(log, record.user_hash)
    if record.user_hash is None:
        return ActPage(
            "Erase a person",
            [
                "Nobody was named when this was asked, so there is no person to erase. All that one key wrote can be erased in a terminal."
            ],
            back=f"/live/{record.id}",
            command="tunectl log erase --key NAME",
        )
    return ActPage(
        "Erase a person",
        [
            f"The text of {count} requests and their answers is deleted now, and all feedback of this person. It cannot be taken back.",
            "No later build uses them. What keeps counting are numbers without text.",
            LIMIT,
        ],
        facts=[("person", f"{record.user_hash[:16]} (a keyed hash)"), ("requests", str(count))],
        fields=[REASON],
        state={"person": record.user_hash},
        scope="admin",
        buttons=[ActButton("yes", "Erase everything of this person", "danger")],
        back=f"/live/{record.id}",
        command=f"tunectl log erase --hash {record.user_hash}",
    )


def _count_inferences(log: InferenceLog | None, person: str | None) -> str:
    if log is None or person is None:
        return "0"
    count = 0
    for count, _ in enumerate(log.inferences(user_hash=person), start=1):
        if count == MAX_COUNT:
            return f"{MAX_COUNT:,} or more"
    return f"{count:,}"


def perform(context: ReadContext, form: Mapping[str, str]) -> ActPage:
    """Erase the texts of the request's author, leaving records without text; return a page with the result.

    Raises  UsageError where the request names no person.
    """
    reason = require_reason(form)
    section = context.load_settings().inference_log
    with open_inference_log.open_if_exists(section, context.layout) as log:
        record = _find_record(log, form)
        if log is None or record.user_hash is None:
            raise UsageError(
                "this request was logged without a user, so there is no person to erase",
                hint="in a terminal, erase all that one API key wrote: tunectl log erase --key NAME",
            )
        check_unchanged(form, {"person": record.user_hash})
        folder = (context.layout.root / section.hash_key_file).parent
        erased = erasure.erase_person(log, folder, record.user_hash, at=context.now)
    logging_setup.get_logger(__name__).info("%s erased %s: %s", context.visitor, record.user_hash[:16], reason)
    consequences = [f"{erased.inferences:,} requests and {erased.feedback:,} pieces of feedback are erased.", LIMIT]
    return ActPage("Erased", [*consequences, BUSY] if erased.journal_busy else consequences, back=f"/live/{record.id}")
