"""Messages to people: the link that decides reaches them and no log, nor does the address that takes messages."""

import http.client
import json
import logging
import urllib.error
import urllib.request
from contextlib import nullcontext
from email.message import Message
from types import SimpleNamespace

import pytest

from tunectl.retraining import local_activities, notifications

LINK = "http://127.0.0.1:3200/decide/eyJydW4iOiJyMSJ9.c2lnbmVk"
VARIABLE = "TUNECTL_NOTIFY_URL"
SECRET = "T000/B000/SECRETSECRET"


@pytest.fixture
def logged(caplog):
    caplog.set_level(logging.DEBUG, "tunectl")
    return caplog


def ask():
    root = SimpleNamespace(project="shop")
    settings = SimpleNamespace(approval=SimpleNamespace(notify_url_env=VARIABLE))
    activities = SimpleNamespace(_root=root, settings=settings)
    activities._notify = local_activities.LocalActivities._notify.__get__(activities)
    run = SimpleNamespace(trigger=SimpleNamespace(message="drift"))
    local_activities.LocalActivities.request_approval(activities, run, "promote", LINK)


def test_the_link_is_sent_and_not_logged(logged, monkeypatch):
    sent = []
    monkeypatch.setenv(VARIABLE, f"https://hooks.example/services/{SECRET}")
    monkeypatch.setattr(urllib.request, "urlopen", lambda asked, timeout: nullcontext(sent.append(asked)))
    ask()
    assert json.loads(sent[0].data) == {"text": f"shop: Make the new model champion? drift\n{LINK}"}
    assert "Make the new model champion? drift" in logged.text
    assert "/decide/" not in logged.text


def test_text_from_outside_mentions_nobody_and_makes_no_link(monkeypatch):
    """Slack reads <...> as a mention or a link; & < > as entities are what it asks for, and all that it asks for."""
    sent = []
    monkeypatch.setenv(VARIABLE, "https://hooks.example/x")
    monkeypatch.setattr(urllib.request, "urlopen", lambda asked, timeout: nullcontext(sent.append(asked)))
    notifications.notify('<!channel> <@U1> <https://x.example|Approve> "R&D" it\'s', "a<b", VARIABLE, f"{LINK}?a=1&b=2")
    assert json.loads(sent[0].data) == {
        "text": 'a&lt;b: &lt;!channel&gt; &lt;@U1&gt; &lt;https://x.example|Approve&gt; "R&amp;D" it\'s\n'
        f"{LINK}?a=1&amp;b=2"
    }


def test_without_an_address_the_question_is_logged_and_its_link_is_not(logged, monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    ask()
    assert "Make the new model champion? drift (tunectl status shows the link)" in logged.text
    assert "/decide/" not in logged.text


@pytest.mark.parametrize(
    ("address", "error", "told"),
    [
        (f"hooks.slack.com/services/{SECRET}", None, "it holds no web address"),
        (
            f"https://hooks.example/{SECRET} \n",
            http.client.InvalidURL(f"no control characters: /{SECRET}"),
            "no web address",
        ),
        (
            "https://x.example",
            urllib.error.HTTPError(f"https://x/{SECRET}", 404, SECRET, Message(), None),
            "status 404",
        ),
        ("https://x.example", urllib.error.URLError(ConnectionRefusedError(111, "Connection refused")), "refused"),
        ("https://x.example", urllib.error.URLError(f"unknown {SECRET}"), "URLError"),
        ("https://x.example", TimeoutError("timed out"), "TimeoutError"),
        ("https://x.example", http.client.BadStatusLine(SECRET), "BadStatusLine"),
    ],
)
def test_what_is_not_delivered_is_logged_without_the_address(logged, monkeypatch, address, error, told):
    def refuse(_asked, timeout):
        raise error

    monkeypatch.setenv(VARIABLE, address)
    if error is not None:
        monkeypatch.setattr(urllib.request, "urlopen", refuse)
    notifications.notify("hello", "shop", VARIABLE)
    assert f"was not delivered to the address in {VARIABLE}" in logged.text
    assert told in logged.text
    assert SECRET not in logged.text
