"""``tunectl log verify``, and the check of an SQLite file whose server did not stop by itself."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from conf_copy import copy_conf
from inference_rows import finish, inference, thumb

from tunectl.backends.storage.inference_log_sql import open_log
from tunectl.cli.main import main
from tunectl.core.errors import ArtifactError
from tunectl.inference_log.log_store import FinishedRequest

FILE = Path(".tunectl/inference_log/inference_log.sqlite")


@pytest.fixture
def project(url, tmp_path, monkeypatch):
    home = tmp_path / "project"
    copy_conf(home)
    monkeypatch.chdir(home)
    if url.startswith("sqlite"):
        url = f"sqlite:///{FILE}"
    monkeypatch.setenv("TUNECTL_INFERENCE_LOG_URL", url)
    with open_log(url, home) as store:
        for number in range(40):
            store.write([inference(number)])
            store.write([FinishedRequest(f"chatcmpl-{number:06}", finish(number))])
        store.write([thumb(number) for number in range(3)])
    return url


def damage(file: Path) -> None:
    """Overwrite a page in the middle with noise, as a failing disk does."""
    with file.open("r+b") as stream:
        stream.seek(file.stat().st_size // 2 // 4096 * 4096)
        stream.write(os.urandom(4096))


def test_a_whole_log_is_called_whole_while_a_server_writes(project, capsys):
    with open_log(project, Path(), serving=True) as store:
        store.write([inference(99)])
        assert main(["log", "verify"]) == 0
    told = capsys.readouterr().out
    assert "is whole: schema version 0003, 41 inferences, 3 feedback, 0 windows, 0 events" in told
    assert main(["log", "verify", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["problems"] == []


def test_rows_that_cannot_be_read_and_feedback_about_nothing_are_named(project, capsys):
    change = "UPDATE inferences SET request = '{\"cut' WHERE id = 'chatcmpl-000007'"
    drop = "DELETE FROM inferences WHERE id = 'chatcmpl-000001'"
    if project.startswith("sqlite"):
        with closing(sqlite3.connect(FILE)) as connection, connection:
            connection.execute(change)
            connection.execute(drop)
    else:
        import psycopg

        with psycopg.connect(project) as connection:
            connection.execute(change)
            connection.execute(drop)
    assert main(["log", "verify"]) == 5
    told = capsys.readouterr().err
    assert "inferences chatcmpl-000007: request is not JSON" in told
    assert "feedback fb-1 is about inference chatcmpl-000001, which does not exist" in told
    assert main(["log", "verify", "--json"]) == 5
    assert len(json.loads(capsys.readouterr().out)["problems"]) == 2


def test_a_damaged_page_is_found_and_no_backup_is_made_of_it(project, capsys, tmp_path):
    if not project.startswith("sqlite"):
        return  # PostgreSQL has its own checksums and tools
    damage(FILE)
    assert main(["log", "verify"]) == 5
    told = capsys.readouterr().err
    assert str(FILE) in told
    assert "tunectl restore DIR" in told
    assert main(["backup", str(tmp_path / "backups/one")]) == 5
    assert not (tmp_path / "backups/one").exists()
    assert "tunectl log verify" in capsys.readouterr().err


def test_nothing_to_verify(project, capsys, monkeypatch):
    monkeypatch.setenv("TUNECTL_INFERENCE_LOG_URL", "sqlite:///nothing.sqlite")
    assert main(["log", "verify"]) == 2
    assert capsys.readouterr().err.startswith("tunectl: nothing.sqlite: nothing was logged yet")
    assert not Path("nothing.sqlite").exists()


def test_a_server_looks_at_the_file_after_an_unclean_stop_and_only_then(project, caplog):
    if not project.startswith("sqlite"):
        return
    with open_log(project, Path(), serving=True):
        pass
    damage(FILE)
    with open_log(project, Path(), serving=True):
        pass  # it stopped by itself, so its start is quick; log verify finds it
    assert "did not stop by itself" not in caplog.text
    code = f"""
import os, signal
from pathlib import Path
from tunectl.backends.storage.inference_log_sql import open_log
with open_log({project!r}, Path(), serving=True):
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -signal.SIGKILL
    for _ in range(2):
        with pytest.raises(ArtifactError) as error, open_log(project, Path(), serving=True):
            pass
        assert error.value.message.startswith(f"{FILE} is damaged: ")
    assert "its server did not stop by itself; the file is checked" in caplog.text
