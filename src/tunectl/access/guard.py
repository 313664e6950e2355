"""Checks of a request before it is handled: its credential, the web page that sent it, the host name that it was sent to.

A browser sends its sign-in (HTTP Basic, cookies) along with whatever any web site makes it send. So Basic opens what is read and
nothing else, a POST has the content type that the route declares, and it comes from no foreign site: ``Sec-Fetch-Site`` says so,
or ``Origin`` where a browser does not send that. Where no key is asked for, the service answers only requests to this machine's
own host names (a web site may point its own name here), and none that came through a proxy, which may be open to the internet.

``ServiceGuard`` runs all checks by the table of routes; the server's ``/v1`` routes call ``check_origin``, ``check_content_type`` and
``read_secret`` themselves (``serving.app``).
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from tunectl.access import routes
from tunectl.access.api_errors import ApiError
from tunectl.access.routes import CONTENT_TYPES, BodyKind, Credential, RouteRule, ServiceName

PAGE_CREDENTIALS: Final = frozenset({"nothing", "typed key", "session", "signed link"})
"""Credentials that the service checks itself: they are in a form, a cookie or the path."""
SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
OWN_SITES: Final = frozenset({"same-origin", "none"})
"""Values of Sec-Fetch-Site in requests of this page itself, and of addresses that somebody typed."""
LOCAL_NAMES: Final = frozenset({"localhost", "127.0.0.1", "[::1]"})
CROSS_SITE: Final = "cross_site"
PROXY_HEADERS: Final = frozenset(
    {"forwarded", "via", "x-real-ip", "x-client-ip", "x-cluster-client-ip", "true-client-ip", "fastly-client-ip"}
)
PROXY_PREFIXES: Final = ("x-forwarded", "x-original-", "x-envoy-", "cf-")
"""What proxies and content networks add to a request: RFC 7239, RFC 9110, nginx, Envoy, Akamai, Cloudflare, Fastly."""


class RequestHead(NamedTuple):
    """Method, path and headers of a request, without its body."""

    method: str
    path: str
    headers: Mapping[str, str]
    """Headers by name in lower case."""


def parse_authorization(header: str) -> tuple[str, str | None]:
    """Return the scheme of an Authorization header in lower case, and its secret: a bearer token, or the password that a browser sends."""
    scheme, _, value = header.partition(" ")
    scheme = scheme.lower()
    if scheme == "bearer":
        return scheme, value.strip() or None
    if scheme == "basic":
        try:
            return scheme, base64.b64decode(value, validate=True).decode().partition(":")[2] or None
        except ValueError:  # no base64, no text, or not even ASCII
            return scheme, None
    return scheme, None


def read_secret(head: RequestHead) -> str | None:
    """Return the API key in the Authorization header of a request; None without one.

    Raises  ApiError (401) for HTTP Basic on a request that is not GET, HEAD or OPTIONS.
    """
    scheme, secret = parse_authorization(head.headers.get("authorization", ""))
    if scheme == "basic" and head.method not in SAFE_METHODS:
        raise ApiError(
            "HTTP Basic is accepted for GET and HEAD only; send the key as Authorization: Bearer <key>",
            "authentication_error",
            code="invalid_api_key",
        )
    return secret


def check_origin(head: RequestHead, origins: Collection[str] = (), *, strict: bool = False) -> None:
    """Refuse a request that the page of another web site made a browser send.

    Args:
        head: The request; one that only reads (GET, HEAD, OPTIONS) is never refused.
        origins: Origins whose pages may send, ``*`` for any.
        strict: Whether a request without Origin and Sec-Fetch-Site is refused, too: for pages with cookies, which only browsers send.

    Raises  ApiError (403).
    """
    if head.method in SAFE_METHODS:
        return
    origin, site = head.headers.get("origin", ""), head.headers.get("sec-fetch-site", "")
    if origin and (origin in origins or "*" in origins):
        return
    if site:
        own = site in OWN_SITES
    elif origin:
        own = origin.partition("://")[2].lower() == head.headers.get("host", "").lower()
    else:
        own = not strict
    if not own:
        what = f"cross-origin request from {origin[:200] or 'another site, or without an Origin header,'} refused"
        raise ApiError(
            f"{what}; use a page of this service" if strict else f"{what}; add that origin to serve.cors",
            "permission_error",
            code=CROSS_SITE,
        )


def check_content_type(head: RequestHead, body: BodyKind | None) -> None:
    """Refuse a POST without the content type that the route declares (``body``; None: any), since a form on any web site can send text/plain.

    Raises  ApiError (415).
    """
    if body is None or head.method in SAFE_METHODS:
        return
    expected, content_type = CONTENT_TYPES[body], head.headers.get("content-type", "")
    if content_type.partition(";")[0].strip().lower() != expected:
        raise ApiError(
            f"the body must be sent as Content-Type: {expected}, but it was sent {'as ' + content_type[:100] if content_type else 'without one'}",
            code="content_type",
            status=415,
        )


def check_direct(head: RequestHead, hosts: Collection[str]) -> None:
    """Refuse a request to a foreign host name or through a proxy, on a service without keys, which is for this machine only.

    Raises  ApiError: 421 for a name that is not in ``hosts``, 401 behind a proxy.
    """
    if any(name in PROXY_HEADERS or name.startswith(PROXY_PREFIXES) for name in head.headers):
        raise ApiError(
            "requests through a proxy need an API key; without keys only local requests are accepted (tunectl serve keys add NAME makes one)",
            "authentication_error",
            code="proxy",
        )
    host = head.headers.get("host", "")
    if strip_port(host) not in hosts:
        names = ", ".join(sorted(hosts))
        raise ApiError(
            f"without a key this service answers to {names}, not to {host[:200] or 'no name'}; use one of these names, or send a key",
            code="host",
            status=421,
        )


def list_hosts(address: str) -> frozenset[str]:
    """Return the host names of a service that listens on a loopback ``address``."""
    return LOCAL_NAMES | {f"[{address}]" if ":" in address else address.lower()}


def strip_port(host: str) -> str:
    """Return the name in a Host header, in lower case, without the port."""
    if host.startswith("["):
        return host.partition("]")[0].lower() + "]"
    return host.partition(":")[0].lower()


@dataclass(frozen=True, slots=True)
class ServiceGuard:
    """Checks each request to a service by the table of routes: route, credential, origin, content type and host."""

    service: ServiceName
    verify: Callable[[str | None, Credential], None]
    """Raises ApiError (401, 403) where a secret is not valid for the credential."""
    hosts: Callable[[], frozenset[str] | None]
    """Host names of the service while no key is asked for; None while one is."""
    unknown: Credential
    """Credential that a request for an unknown path needs; without it the answer is 401, not 404."""

    @property
    def challenge(self) -> str:
        """Realm for which browsers ask for a password (HTTP Basic); empty where the service has a sign-in page."""
        return "" if self.unknown == "nothing" else f"tunectl {self.service}"

    def admit(self, head: RequestHead) -> RouteRule:
        """Return the rule of the request's route, if the request may be answered.

        Raises  ApiError: 401, 403, 404, 405, 415 or 421.
        """
        rules = routes.find_rules(self.service, head.path)
        rule = rules.get(head.method)
        opened_by = rule.opened_by if rule is not None else self.unknown
        check_origin(head, strict=opened_by in ("session", "typed key"))
        self._check_credential(head, opened_by, keyless=rule.keyless if rule is not None else True)
        if rule is None:
            raise _refuse_route(head, rules)
        check_content_type(head, rule.body)
        return rule

    def _check_credential(self, head: RequestHead, opened_by: Credential, *, keyless: bool) -> None:
        hosts = self.hosts() if keyless else None
        if opened_by in PAGE_CREDENTIALS:
            if hosts is not None:
                check_direct(head, hosts)
            return
        secret = read_secret(head)
        if hosts is None:
            self.verify(secret, opened_by)
            return
        try:
            check_direct(head, hosts)
        except ApiError:
            if not secret:
                raise
            self.verify(secret, opened_by)


def _refuse_route(head: RequestHead, rules: Iterable[str]) -> ApiError:
    allowed = ", ".join(sorted(rules))
    if not allowed:
        return ApiError(
            f"there is nothing at {head.path[:200]}; check the path (tunectl docs routes lists all)", "not_found_error"
        )
    return ApiError(f"{head.path[:200]} takes {allowed}, not {head.method[:20]}", status=405, allow=allowed)
