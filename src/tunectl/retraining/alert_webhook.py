"""Convert webhook payloads of Alertmanager and Grafana to triggers. Pure.

Alertmanager sends payload version 4, Grafana's own alerting version 1; both deliver at least once, repeatedly, and add
keys from release to release. So: unknown keys are ignored, an unknown version is refused, and an alert has one id however
often it comes.
Source: Alertmanager ``notify/webhook/webhook.go`` and ``docs/configuration.md``; Grafana "Configure webhook notifications".
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from msgspec import Struct, field

from tunectl.core.errors import DataError
from tunectl.retraining.state_machine import Trigger

VERSIONS: Final = {"4": "Alertmanager", "1": "Grafana"}
LARGEST: Final = 1_000_000
"""Largest payload in bytes."""
MAX_TRIGGERS: Final = 20
"""Most triggers of one payload, those that started last: all of them can start only one retrain."""
KEPT: Final = ("alertname", "severity", "job", "instance", "signal", "project")
"""Labels that a record keeps."""


class _Alert(Struct, frozen=True):
    """One alert of either sender."""

    status: str
    labels: dict[str, str] = field(default_factory=dict)
    annotations: dict[str, str] = field(default_factory=dict)
    starts_at: str = field(name="startsAt", default="")
    fingerprint: str = ""


class _Payload(Struct, frozen=True):
    """The fields of a payload that are used."""

    version: str
    alerts: list[_Alert]


def parse_alertmanager(body: bytes, names: Collection[str], now: datetime) -> list[Trigger]:
    """Return a trigger for each firing alert whose ``alertname`` is in ``names``: at most ``MAX_TRIGGERS``, the newest ones.

    Raises  DataError for an invalid payload; the message quotes nothing from the payload.
    """
    if len(body) > LARGEST:
        raise DataError(
            f"the webhook payload has {len(body)} bytes; the limit is {LARGEST}",
            hint="limit the alerts of a payload: max_alerts in Alertmanager's webhook_configs, Max Alerts in Grafana's contact point",
        )
    try:
        result = msgspec.json.decode(body, type=_Payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise DataError(
            f"the body must be a webhook payload of Alertmanager or Grafana: {_short(error)}",
            hint="send alerts by Alertmanager's webhook_configs or by a webhook contact point of Grafana, without a payload template",
        ) from error
    if result.version not in VERSIONS:
        raise DataError(
            f"payload version {result.version[:10]!r}; supported are 4 (Alertmanager) and 1 (Grafana)",
            hint="use a version of Alertmanager or Grafana that sends one of these",
        )
    sender = VERSIONS[result.version]
    own_alerts = [
        alert for alert in result.alerts if alert.status == "firing" and alert.labels.get("alertname") in names
    ]
    triggers = {item.id: item for item in (_trigger(alert, sender, now) for alert in own_alerts)}
    return sorted(triggers.values(), key=lambda item: str(item.facts["startsAt"]), reverse=True)[:MAX_TRIGGERS]


def _trigger(alert: _Alert, sender: str, now: datetime) -> Trigger:
    """Build the trigger without a window: as a label it would create a new series each time, so the controller takes the newest drift."""
    labels = {name: alert.labels[name][:200] for name in KEPT if name in alert.labels}
    mark = alert.fingerprint or msgspec.json.encode(sorted(alert.labels.items())).decode()
    name = hashlib.sha256(f"{mark}\0{_start(alert.starts_at)}".encode()).hexdigest()[:24]
    summary = alert.annotations.get("summary") or alert.annotations.get("description") or alert.labels["alertname"]
    facts: dict[str, Any] = {"labels": labels, "summary": summary[:500], "startsAt": alert.starts_at[:40]}
    if alert.annotations.get("description"):
        facts["description"] = alert.annotations["description"][:1000]
    return Trigger("alert", f"alert-{name}", now, summary[:500], sender, facts=facts)


def _start(text: str) -> str:
    """Return the time in one form: the same moment gives the same text, in any zone and with any number of digits."""
    try:
        at = datetime.fromisoformat(text[:19] + _zone(text))
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).astimezone(UTC).isoformat()
    except (ValueError, OverflowError):  # no time, or one before the first year where the zone is taken away
        return text[:40]


def _zone(text: str) -> str:
    tail = text[19:]
    return "Z" if tail.endswith("Z") else tail[-6:] if len(tail) >= 6 and tail[-6] in "+-" else ""


def _short(error: Exception) -> str:
    return type(error).__name__ if not isinstance(error, msgspec.ValidationError) else str(error)[:200]
