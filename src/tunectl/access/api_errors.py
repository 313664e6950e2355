"""OpenAI's error format, and the exception that a failed request raises."""

from __future__ import annotations

from typing import Literal

import msgspec
from msgspec import Struct

ErrorKind = Literal[
    "invalid_request_error",
    "authentication_error",
    "permission_error",
    "not_found_error",
    "rate_limit_error",
    "server_error",
    "unavailable_error",
]
_STATUS: dict[ErrorKind, int] = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "permission_error": 403,
    "not_found_error": 404,
    "rate_limit_error": 429,
    "server_error": 500,
    "unavailable_error": 503,
}


class ErrorBody(Struct, frozen=True):
    """The ``error`` object of an error response, in OpenAI's format."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ApiError(Exception):
    """Raised for a request that is answered with an error: HTTP status, body and, where a retry may succeed, seconds to wait."""

    def __init__(
        self,
        message: str,
        kind: ErrorKind = "invalid_request_error",
        *,
        param: str | None = None,
        code: str | None = None,
        status: int | None = None,
        wait: float | None = None,
        allow: str = "",
    ) -> None:
        super().__init__(message)
        self.fault = ErrorBody(message, kind, param, code)
        self.status = status or _STATUS[kind]
        self.wait = wait
        """Seconds after which to try again; None where a retry would not help."""
        self.allow = allow
        """Methods that the path takes, for a 405."""

    def body(self) -> bytes:
        """Return the JSON body of the response."""
        return msgspec.json.encode({"error": self.fault})
