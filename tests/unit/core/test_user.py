"""Who types, also where the account has no name."""

import os
import pwd

import pytest

from tunectl.core import user


def test_the_account_says_who_types_and_no_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.setenv(name, "the-boss")
    assert user.current_user() == pwd.getpwuid(os.getuid()).pw_name != "the-boss"


def test_an_account_without_a_name_is_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 4_000_123)
    assert user.current_user() == "uid 4000123"
