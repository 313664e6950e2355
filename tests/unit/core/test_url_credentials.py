"""Credentials in addresses: what carries them, and what is shown of it."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunectl.core.url_credentials import has_credentials, hide_credentials


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("https://me:secret@host/shop.git", "https://***@host/shop.git"),
        ("https://me:se/cret@host/v1", "https://***@host/v1"),
        ("https://me:se@cret@host:8443/v1", "https://***@host:8443/v1"),
        ("https://ghp_secret@github.com/o/r.git", "https://***@github.com/o/r.git"),
        ("https://git:secret@host/r.git", "https://***@host/r.git"),
        ("ssh://git:secret@host/r.git", "ssh://***@host/r.git"),
        ("postgresql://me:a@b@host:5/name", "postgresql://***@host:5/name"),
        ("postgresql://h/db?user=u&password=secret&sslmode=disable", "postgresql://h/db?user=u&password=***&sslmode=disable"),
        ("postgresql://me:***@h/db?sslpassword=secret", "postgresql://me:***@h/db?sslpassword=***"),
        ("https://h/r.git?private_token=glpat-secret", "https://h/r.git?private_token=***"),
        ("https://h/v1?a=b&api_key=sk-secret#top", "https://h/v1?a=b&api_key=***#top"),
        ("https://h/v1?API-Key=secret", "https://h/v1?API-Key=***"),
        ("s3://b/f?X-Amz-Signature=secret&X-Amz-Credential=secret", "s3://b/f?X-Amz-Signature=***&X-Amz-Credential=***"),
        ("https://h/v1?key=0123456789abcdef", "https://h/v1?key=***"),
        ("[https://h/v1,https://h/v1?token=secret]", "[https://h/v1,https://h/v1?token=***"),
        ("[https://a/v1,https://secret@b/v1]", "[https://***@b/v1]"),
        ("cannot reach https://a:secret@h/v1 now", "cannot reach https://***@h/v1 now"),
    ],
)  # fmt: skip
def test_credentials_are_found_and_hidden(address: str, shown: str) -> None:
    assert has_credentials(address)
    assert hide_credentials(address) == shown
    assert not has_credentials(shown), "what is shown can be shown again"


@pytest.mark.parametrize(
    "address",
    [
        "git@github.com:o/r.git",
        "ssh://git@host:22/r.git",
        "ssh://ada@host/r.git",
        "git+ssh://ada@host/r.git",
        "https://git@host/r.git",
        "https://host:8443/r.git",
        "https://host/@team/r.git",
        "postgresql://me@host:5432/log?sslmode=verify-full",
        "postgresql+psycopg://me@host/log?passfile=/run/secrets/pg",
        "postgresql+psycopg://me:***@host/log",
        "sqlite:////tmp/a:b@c.sqlite",
        "s3://bucket/releases@2",
        "https://h/v1?key=short&page_token_count=3",
        "no address: password=1@2",
    ],
)
def test_an_address_without_credentials_is_shown_as_it_is(address: str) -> None:
    assert not has_credentials(address)
    assert hide_credentials(address) == address


@given(st.lists(st.sampled_from(["://", "s3://", "@", ":", "/", " ", "a", "\n", "user:pw@"]), max_size=12).map("".join))
def test_logins_are_hidden_as_the_pattern_says(text: str) -> None:
    assert hide_credentials(text) == re.sub(r"(?<=://)(\S*:\S*|[^/\s]*)@", "***@", text)
