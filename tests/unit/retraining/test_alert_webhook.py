"""Payloads of both senders: what counts, what is refused, and that one alert is one trigger however it is written."""

import json
from contextlib import suppress
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunectl.core.errors import DataError
from tunectl.retraining import alert_webhook

NOW = datetime(2026, 5, 1, tzinfo=UTC)
NAMES = ("TunectlDriftSustained",)


def alert(status="firing", name="TunectlDriftSustained", start="2026-04-30T10:00:00.123456789Z", mark="f00d", **more):
    return {
        "status": status,
        "labels": {"alertname": name, "severity": "ticket", "secret": "x"},
        "annotations": {"summary": "The world changed.", "description": "Calibrated: 1%."},
        "startsAt": start,
        "endsAt": "0001-01-01T00:00:00Z",
        "generatorURL": "http://prometheus/graph",
        "fingerprint": mark,
        **more,
    }


def payload(*given, version="4", **more):
    whole = {"version": version, "groupKey": "{}", "truncatedAlerts": 0, "status": "firing", "receiver": "tunectl"}
    return json.dumps({**whole, "alerts": list(given), "externalURL": "", **more}).encode()


def test_alertmanager_and_grafana_are_both_understood_with_their_new_keys():
    (one,) = alert_webhook.parse_alertmanager(payload(alert(), notification_reason="new", routeLabels={}), NAMES, NOW)
    assert (one.author, one.message, one.window) == ("Alertmanager", "The world changed.", None)
    assert one.facts["description"] == "Calibrated: 1%."
    assert one.facts["labels"] == {"alertname": "TunectlDriftSustained", "severity": "ticket"}
    (two,) = alert_webhook.parse_alertmanager(
        payload(alert(values={"A": 3}, silenceURL=""), version="1", orgId=1, state="alerting"), NAMES, NOW
    )
    assert (two.author, two.id) == ("Grafana", one.id)


def test_resolved_and_other_alerts_start_nothing():
    given = payload(alert("resolved"), alert(name="TunectlSloBurn"), truncatedAlerts=7)
    assert alert_webhook.parse_alertmanager(given, NAMES, NOW) == []


@pytest.mark.parametrize(
    "start", ["2026-04-30T10:00:00Z", "2026-04-30T12:00:00.1+02:00", "2026-04-30T10:00:00.12345+00:00"]
)
def test_the_same_moment_written_otherwise_is_the_same_alert(start):
    ids = {
        alert_webhook.parse_alertmanager(payload(alert(start=one)), NAMES, NOW)[0].id
        for one in (start, "2026-04-30T10:00:00.9Z")
    }
    assert len(ids) == 1


def test_another_start_or_fingerprint_is_another_alert():
    given = [alert(), alert(mark="beef"), alert(start="2026-04-30T11:00:00Z"), alert()]
    assert len(alert_webhook.parse_alertmanager(payload(*given), NAMES, NOW)) == 3


@pytest.mark.parametrize("start", ["", "yesterday", "0001-01-01T00:00:00+02:00", "9999-12-31T23:59:59-01:00", "é" * 99])
def test_a_start_that_is_no_time_is_an_alert_still(start):
    assert len(alert_webhook.parse_alertmanager(payload(alert(start=start), alert(start=start)), NAMES, NOW)) == 1


def test_of_a_thousand_alerts_in_one_payload_the_last_to_start_are_kept():
    given = [alert(start=f"2026-04-{day:02}T{hour:02}:00:00Z") for day in range(1, 31) for hour in range(24)]
    found = alert_webhook.parse_alertmanager(payload(*given), NAMES, NOW)
    assert [one.facts["startsAt"] for one in found][:2] == ["2026-04-30T23:00:00Z", "2026-04-30T22:00:00Z"]
    assert len(found) == alert_webhook.MAX_TRIGGERS


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (payload(version="5"), "payload version '5'; supported are 4 (Alertmanager) and 1 (Grafana)"),
        (b"{", "the body must be a webhook payload of Alertmanager or Grafana: DecodeError"),
        (b"[]", "the body must be a webhook payload of Alertmanager or Grafana: Expected `object`, got `array`"),
        (b" " * 5_000_000, "the webhook payload has 5000000 bytes; the limit is 1000000"),
        (
            b'{"version": "4"}',
            "the body must be a webhook payload of Alertmanager or Grafana: Object missing required field `alerts`",
        ),
    ],
)
def test_what_is_no_payload_is_refused(body, words):
    with pytest.raises(DataError) as error:
        alert_webhook.parse_alertmanager(body, NAMES, NOW)
    assert error.value.message == words
    assert error.value.hint


@settings(deadline=None)
@given(
    st.binary(max_size=400)
    | st.recursive(
        st.none() | st.text() | st.integers(),
        lambda inner: (
            st.lists(inner) | st.dictionaries(st.sampled_from(["version", "alerts", "status", "labels"]), inner)
        ),
    ).map(lambda value: json.dumps(value).encode())
)
def test_any_bytes_are_a_delivery_or_a_data_error(body):
    with suppress(DataError):
        assert alert_webhook.parse_alertmanager(body, NAMES, NOW) == []
