"""What a browser sends for another site, and what is sent under another name, is refused."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from tunectl.access import guard, routes
from tunectl.access.api_errors import ApiError
from tunectl.access.guard import RequestHead, ServiceGuard
from tunectl.access.routes import Credential

EVIL, OWN = "https://evil.example", "http://127.0.0.1:3000"


def head(method: str = "POST", path: str = "/", **headers: str) -> RequestHead:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return RequestHead(method, path, {"host": "127.0.0.1:3000", **named})


def status(check: Any, *args: Any, **options: Any) -> int:
    """Of the refusal; 200 where there is none."""
    try:
        check(*args, **options)
    except ApiError as problem:
        return problem.status
    return 200


def basic(text: bytes) -> str:
    return "basic " + base64.b64encode(text).decode()


@pytest.mark.parametrize(
    ("header", "found"),
    [
        ("", None),
        ("Bearer  abc ", "abc"),
        ("Bearer", None),
        (basic("anna:käse".encode()), "käse"),
        ("Basic !!!", None),
        ("Basic \xe9", None),
        (basic(b"\xff"), None),
        (basic(b":"), None),
        ("Digest abc", None),
    ],
)
def test_the_secret_of_a_bearer_or_a_browser(header: str, found: str | None) -> None:
    assert guard.read_secret(head("GET", authorization=header)) == found


def test_a_browsers_sign_in_only_reads() -> None:
    sent = basic(b"ada:tk-secret")
    assert guard.read_secret(head("HEAD", authorization=sent)) == "tk-secret"
    for method in ("POST", "PUT", "DELETE", "made-up"):
        with pytest.raises(ApiError) as caught:
            guard.read_secret(head(method, authorization=sent))
        assert caught.value.status == 401
        assert "HTTP Basic is accepted for GET and HEAD only" in str(caught.value)
    assert guard.read_secret(head("POST", authorization="Bearer tk-secret")) == "tk-secret"


@pytest.mark.parametrize(
    ("sent", "loose", "strict"),
    [
        ({}, 200, 403),
        ({"origin": OWN}, 200, 200),
        ({"origin": OWN.upper()}, 200, 200),
        ({"origin": "http://127.0.0.1:3001"}, 403, 403),
        ({"origin": EVIL}, 403, 403),
        ({"origin": "null"}, 403, 403),
        ({"sec_fetch_site": "same-origin"}, 200, 200),
        ({"sec_fetch_site": "same-origin", "origin": "null"}, 200, 200),
        ({"sec_fetch_site": "none"}, 200, 200),
        ({"sec_fetch_site": "same-site"}, 403, 403),
        ({"sec_fetch_site": "cross-site"}, 403, 403),
        ({"sec_fetch_site": "cross-site", "origin": OWN}, 403, 403),
        ({"sec_fetch_site": "made-up"}, 403, 403),
    ],
)
def test_where_a_post_comes_from(sent: dict[str, str], loose: int, strict: int) -> None:
    assert status(guard.check_origin, head(**sent)) == loose
    assert status(guard.check_origin, head(**sent), strict=True) == strict
    assert status(guard.check_origin, head("GET", **sent), strict=True) == 200


def test_a_declared_origin_may_send() -> None:
    sent = head(origin="https://shop.example", sec_fetch_site="cross-site")
    assert status(guard.check_origin, sent) == 403
    assert status(guard.check_origin, sent, ["https://shop.example"]) == 200
    assert status(guard.check_origin, sent, ["*"]) == 200
    assert status(guard.check_origin, sent, ["https://shop.example.org"]) == 403


@pytest.mark.parametrize(
    ("sent", "as_json", "as_form"),
    [
        ("application/json", 200, 415),
        ("Application/JSON; charset=utf-8", 200, 415),
        ("application/x-www-form-urlencoded", 415, 200),
        ("text/plain", 415, 415),
        ("text/plain; a=application/json", 415, 415),
        ("multipart/form-data; boundary=x", 415, 415),
        ("", 415, 415),
    ],
)
def test_the_kind_of_a_body(sent: str, as_json: int, as_form: int) -> None:
    assert status(guard.check_content_type, head(content_type=sent), "json") == as_json
    assert status(guard.check_content_type, head(content_type=sent), "form") == as_form
    assert status(guard.check_content_type, head("GET", content_type=sent), "json") == 200


@pytest.mark.parametrize(
    ("sent", "found"),
    [
        ({"host": "localhost"}, 200),
        ({"host": "LOCALHOST:8080"}, 200),
        ({"host": "127.0.0.1:3000"}, 200),
        ({"host": "[::1]:3000"}, 200),
        ({"host": "127.0.0.2"}, 200),
        ({"host": "127.0.0.3"}, 421),
        ({"host": "evil.example:3000"}, 421),
        ({"host": "localhost.evil.example"}, 421),
        ({"host": "[::1].evil.example"}, 200),  # no name that anybody can own
        ({"host": ""}, 421),
        ({"host": "localhost", "x_forwarded_for": "10.0.0.1"}, 401),
        ({"host": "localhost", "x_forwarded_made_up": ""}, 401),
        ({"host": "localhost", "forwarded": "for=10.0.0.1"}, 401),
        ({"host": "localhost", "x_real_ip": "10.0.0.1"}, 401),
        *(
            ({"host": "localhost", name.replace("-", "_"): "10.0.0.1"}, 401)
            for name in (
                "via",
                "x-forwarded",
                "x-client-ip",
                "x-cluster-client-ip",
                "true-client-ip",
                "fastly-client-ip",
                "cf-connecting-ip",
                "cf-ray",
                "x-envoy-external-address",
                "x-original-forwarded-for",
            )
        ),
        ({"host": "localhost", "x_requested_with": "curl", "connection": "close"}, 200),
    ],
)
def test_without_a_key_this_machine_alone_is_answered(sent: dict[str, str], found: int) -> None:
    assert status(guard.check_direct, head("GET", **sent), guard.list_hosts("127.0.0.2")) == found


def test_an_ipv6_address_is_a_name_as_browsers_write_it() -> None:
    assert status(guard.check_direct, head("GET", host="[::1]:80"), guard.list_hosts("::1")) == 200


def opened(secret: str | None, opened_by: Credential) -> None:
    if secret != "right":
        raise ApiError("no", "authentication_error")


@pytest.mark.parametrize(
    ("sent", "found"),
    [
        ({}, 200),
        ({"host": "evil.example"}, 421),
        ({"host": "evil.example", "authorization": "Bearer wrong"}, 401),
        ({"host": "evil.example", "authorization": "Bearer right"}, 200),
        ({"x_forwarded_for": "10.0.0.1"}, 401),
        ({"x_forwarded_for": "10.0.0.1", "authorization": basic(b"me:right")}, 200),
    ],
)
def test_a_key_opens_what_is_else_open_to_this_machine_alone(sent: dict[str, str], found: int) -> None:
    local = ServiceGuard("retrain", opened, lambda: guard.list_hosts("localhost"), "look")
    assert status(local.admit, head("GET", "/metrics", **sent)) == found
    assert status(local.admit, head("GET", "/runs/x", **sent)) == found
    assert status(local.admit, head("GET", "/healthz", **sent)) == 200
    assert status(local.admit, head("GET", "/decide/x.y", **sent)) == 200
    there = ServiceGuard("retrain", opened, lambda: None, "look")
    assert status(there.admit, head("GET", "/metrics", **sent)) == (found if "authorization" in sent else 401)


def test_what_is_not_in_the_table_is_nowhere() -> None:
    there = ServiceGuard("retrain", opened, lambda: None, "look")
    key = {"authorization": "Bearer right"}
    assert status(there.admit, head("GET", "/made/up")) == 401
    assert status(there.admit, head("GET", "/made/up", **key)) == 404
    assert status(there.admit, head("GET", "/runs/a/b", **key)) == 404
    assert status(there.admit, head("POST", "/runs/a", **key)) == 405
    assert status(there.admit, head("GET", "/webhook", **key)) == 405
    assert status(there.admit, head("HEAD", "/runs/a", **key)) == 200


def test_paths_of_the_table() -> None:
    assert routes.find_rules("monitor", "/windows/..%2f")["GET"].path == "/windows/{id}"
    assert routes.find_rules("monitor", "/windows/a/b") == {}
    assert routes.find_rules("server", "/v1/models/org/name")["HEAD"].opened_by == "chat"
    assert routes.find_rules("server", "/v1/models/a\nb")["GET"].path == "/v1/models/{model:path}"
    assert set(routes.find_rules("retrain", "/decide/x")) == {"GET", "HEAD", "POST"}
