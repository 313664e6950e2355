"""Credentials in addresses: what carries them, and what is shown of it."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

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
        ("postgresql://h/db?pass%77ord=secret", "postgresql://h/db?pass%77ord=***"),
        ("https://h/v1?api_token=secret&x-api-key=secret", "https://h/v1?api_token=***&x-api-key=***"),
        ("https://h/v1?private-token=secret&accessToken=secret", "https://h/v1?private-token=***&accessToken=***"),
        ("https://h/v1?authToken=secret&client-secret=secret", "https://h/v1?authToken=***&client-secret=***"),
        ("https://h/v1?subscription-key=secret&APIKey=secret", "https://h/v1?subscription-key=***&APIKey=***"),
        ("mysql://h/db?a=b;user_pass=sec;ret&c=d", "mysql://h/db?a=b;user_pass=***&c=d"),
        ("https://h/v1?clientsecret=secret&dbPassword=secret", "https://h/v1?clientsecret=***&dbPassword=***"),
        ("https://h/v1?licence_key=0123456789abcdef", "https://h/v1?licence_key=***"),
        ("postgresql://me:my secret@host/db", "postgresql://***@host/db"),
        ("postgresql://me:my own s@cret@host/db", "postgresql://***@host/db"),
        ("https://glpat-secret@gitlab.com/o/r.git", "https://***@gitlab.com/o/r.git"),
        ("https://x-token-auth:secret@bitbucket.org/o/r.git", "https://***@bitbucket.org/o/r.git"),
        ("https://a1b2c3d4e5f6@host/r.git", "https://***@host/r.git"),
        ("https://abcdefghijklmnopqrst@host/r.git", "https://***@host/r.git"),
        ("https://h:8443/v1,https://me:secret@h:8443/v1", "https://***@h:8443/v1"),
        ("postgresql://me:2024/secret@host/db", "postgresql://***@host/db"),
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
        "https://org@dev.azure.com/org/project/_git/repo",
        "https://alice@bitbucket.org/team/repo.git",
        "https://ada.lovelace2@host/r.git",
        "https://h:8443/@scope/pkg",
        "http://h:8000/v1/models@latest",
        "http://[::1]:8000/v1/models@latest",
        "http://localhost:8000 is down, write to ada@example.org",
        "mysql://user@h/db",
        "postgresql+psycopg2://a-user-with-a-long-name@h/db",
        "postgresql://h/db?application_name=tunectl&connect_timeout=10&target_session_attrs=read-write",
        "postgresql://h/db?sslkey=/run/secrets/postgresql/client.key&sslmode=verify-full",
        "https://h/v1?keyspace=a&monkey=b&bypass=c&compass=d&sort_key=name&max_tokens=16",
        "no address: password=1@2",
    ],
)
def test_an_address_without_credentials_is_shown_as_it_is(address: str) -> None:
    assert not has_credentials(address)
    assert hide_credentials(address) == address


@pytest.mark.parametrize("address", ["https://me:123/secret@h", "https://registry:5000/@scope/pkg"])
def test_digits_up_to_a_slash_are_a_port_and_an_at_behind_them_is_part_of_the_path(address: str) -> None:
    """RFC 3986, 3.2: the authority ends at the first slash. Both addresses have one form, and neither has a login."""
    parts = urlsplit(address)
    assert (parts.username, parts.port is not None, "@" in parts.path) == (None, True, True)
    assert hide_credentials(address) == address


def test_a_number_that_no_port_has_begins_a_password() -> None:
    assert hide_credentials("https://h:65535/secret@path") == "https://h:65535/secret@path"
    assert hide_credentials("https://me:65536/secret@h") == "https://***@h"


@given(st.lists(st.sampled_from(["://", "s3://", "@", ":", "/", " ", "a", "\n", "user:pw@"]), max_size=12).map("".join))
def test_logins_are_hidden_as_the_pattern_says(text: str) -> None:
    spaced = r"(?<=://)[^\s/:@]+:(?!//)[^\s@]*(?: [^\s@:]*){1,4}@(?:[^\s/@]*@){0,4}"  # blanks in a password
    user = r"(?:a+|\*\*\*)@[^@/\s]*(?![^/\s])"
    shown = re.sub(rf"(?<=://)(\S*:\S*|(?!{user})[^/\s]*)@", "***@", re.sub(spaced, "***@", text))
    assert hide_credentials(text) == shown
