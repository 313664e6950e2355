"""Approvals of retrain runs and promotions: who may decide, whether a question is open, and the record.

Whoever decides needs a key of scope decide, and the record has the name of that key; a link alone decides nothing.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator
from datetime import datetime
from typing import NamedTuple

from tunectl.access.api_errors import ApiError
from tunectl.access.api_keys import ApiKey, KeyStore
from tunectl.retraining.run_store import ApprovalDecision, RunStore
from tunectl.retraining.signed_links import ApprovalQuestion
from tunectl.retraining.state_machine import RetrainRun


class Approvers(NamedTuple):
    """The keys that may approve or reject a retrain: those of scope decide, of ``people`` only where that is not None."""

    keys: KeyStore
    people: tuple[str, ...] | None
    """Names of keys, as in ``retrain.approval.people``. None: every key of scope decide."""

    def verify(self, secret: str) -> str:
        """Return the name of the key ``secret``, which may decide.

        Raises  ApiError: 401 for an unknown key, 403 for one that may not decide.
        """
        key = self.keys.key(secret or None, "decide", time.monotonic())
        check_person(key.name, self.people)
        return key.name


def check_person(name: str, people: Collection[str] | None) -> None:
    """Check that the key ``name`` is among ``people`` (``retrain.approval.people``; None: every key may approve).

    Raises  ApiError (403).
    """
    if people is not None and name not in people:
        raise ApiError(
            f"the key {name} may not approve: retrain.approval.people names {', '.join(people) or 'nobody'}",
            "permission_error",
            code="scope",
        )


def list_approvers(entries: Iterable[ApiKey], people: Collection[str] | None) -> list[str]:
    """Return the names of the keys with scope decide that are in ``people``, or of all with that scope where it is None."""
    return [entry.name for entry in entries if entry.allows("decide") and (people is None or entry.name in people)]


def list_open(store: RunStore, runs: Iterable[RetrainRun], now: datetime) -> Iterator[tuple[RetrainRun, datetime]]:
    """Yield (run, end of its time to decide) for each retrain whose approval is pending."""
    for run in runs:
        facts = run.steps[-1].facts
        if run.state == "awaiting_approval" and store.get_decision(run.id, facts["question"]) is None:
            until = datetime.fromisoformat(facts["until"])
            if now < until:
                yield run, until


def find_obstacle(store: RunStore, run: RetrainRun, question: ApprovalQuestion, nonce: str) -> str:
    """Return why an approval cannot be decided now; empty while it is pending. ``nonce``: that of the approval as it was shown."""
    decision = store.get_decision(run.id, question)
    if decision is not None:
        verdict, at = "yes" if decision.approved else "no", f"{decision.at:%Y-%m-%d %H:%M} UTC"
        return f"{decision.author or 'Somebody'} said {verdict} at {at}; this question is decided."
    last = run.steps[-1]
    if last.state != "awaiting_approval" or last.facts.get("nonce") != nonce:
        return f"Nothing waits for this link: the retrain is {run.state}."
    return ""


def record(store: RunStore, run: RetrainRun, question: ApprovalQuestion, decision: ApprovalDecision) -> bool:
    """Store a decision durably and return True; False where the approval is not pending any more, since somebody was faster."""
    if find_obstacle(store, run, question, decision.nonce):
        return False
    return store.record_decision(run.id, question, decision)
