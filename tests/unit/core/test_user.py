"""Who types, also where the account has no name."""

import getpass

import pytest

from tunectl.core import user


@pytest.mark.parametrize("error", [KeyError("getpwuid(): uid not found: 4711"), OSError("no user name")])
def test_an_account_without_a_name_is_nobody(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def absent() -> str:
        raise error

    monkeypatch.setattr(getpass, "getuser", absent)
    assert user.current_user() == ""
    monkeypatch.setattr(getpass, "getuser", lambda: "ann")
    assert user.current_user() == "ann"
