"""``tunectl init``: a project of one's own, whole or not at all."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tunectl.artifacts.paths import ProjectPaths
from tunectl.backends.vcs import project_repo
from tunectl.cli import project_template
from tunectl.cli.main import main
from tunectl.config.loading import checks
from tunectl.core.errors import InfrastructureError, UsageError


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Stand in a folder of one's own; repositories are left to the tests that are about them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(project_repo, "init_repositories", lambda folder: ["no repositories in this test"])


def names(folder: Path) -> set[str]:
    return {item.name for item in folder.iterdir()}


def test_empty_project_has_all_parts_and_passes_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", "My Shop"]) == 0
    target = tmp_path / "My Shop"
    assert names(target) >= {"conf", "dvc.yaml", "data", "README.md", ".gitignore", ".dvcignore"}
    assert names(tmp_path) == {"My Shop"}
    checked = checks.load_config(ProjectPaths(target), [])
    assert checked.root.project == "my-shop"
    assert [source.path for source in checked.root.ingest.sources.values()] == ["data"]
    assert not list((target / "conf").rglob("*local_lens*"))
    assert "local_lens" not in (target / "conf" / "config.yaml").read_text()
    out = capsys.readouterr().out
    assert "my-shop: a new project in" in out
    assert "cd 'My Shop' && tunectl check" in out


def test_recipe_of_an_empty_project_lists_the_options_that_it_has(tmp_path: Path) -> None:
    assert main(["init", "shop"]) == 0
    conf = tmp_path / "shop" / "conf"
    rows = [row for row in (conf / "config.yaml").read_text().splitlines() if row.startswith("  - ") and "#" in row]
    for row in rows:
        group = row.removeprefix("  - ").partition(":")[0]
        if (conf / group).is_dir():
            listed = set(row.rpartition(": ")[2].split(" | ")) - {"null"}
            assert listed == {file.stem for file in (conf / group).glob("*.yaml")}, row
    assert len({row.index("#") for row in rows}) == 1


def test_example_project_keeps_the_settings_of_the_example(tmp_path: Path) -> None:
    assert main(["init", "lens", "--example", "local_lens", "--name", "town"]) == 0
    checked = checks.load_config(ProjectPaths(tmp_path / "lens"), [])
    assert checked.root.project == "town"
    assert (tmp_path / "lens" / "examples" / "local_lens" / "data" / "campaigns.jsonl").is_file()
    assert "campaigns" in checked.root.ingest.sources


def test_recorded_overrides_of_the_checkout_do_not_travel(tmp_path: Path) -> None:
    assert main(["init", "one"]) == 0
    assert (tmp_path / "one" / "conf" / "overrides.yaml").read_text().endswith("\n[]\n")


@pytest.mark.parametrize(
    ("there", "shown"),
    [
        (["b.txt", "a.txt"], "a.txt, b.txt"),
        ([f"{n}.txt" for n in range(10)], "0.txt, 1.txt, 2.txt, 3.txt, 4.txt, 5.txt, 6.txt, 7.txt and 2 more"),
    ],
)
def test_full_folder_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], there: list[str], shown: str
) -> None:
    (tmp_path / "full").mkdir()
    for name in there:
        (tmp_path / "full" / name).touch()
    assert main(["init", "full"]) == 2
    assert capsys.readouterr().err == (
        f"tunectl: full is not empty: it holds {shown}\n  choose another folder, or go into this one with --force\n  more: tunectl docs is-not-empty-it-holds\n"
    )
    assert names(tmp_path / "full") == set(there)


def test_file_in_the_way(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "taken").touch()
    assert main(["init", "taken"]) == 2
    assert (
        capsys.readouterr().err
        == "tunectl: taken is a file, not a folder\n  choose another name\n  more: tunectl docs is-a-file-not-a-folder\n"
    )


def test_unknown_example(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", "x", "--example", "local_lense"]) == 2
    assert (
        capsys.readouterr().err
        == "tunectl: local_lense: no such example; there is local_lens\n  did you mean local_lens?\n  more: tunectl docs no-such-example-there-is\n"
    )


def test_impossible_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", "x", "--name", "My Shop"]) == 2
    assert capsys.readouterr().err == (
        "tunectl: My Shop cannot be the name of a project: lower-case letters, digits, _ and - are allowed\n"
        "  give one: --name my-project\n  more: tunectl docs cannot-be-the-name-of-a-project\n"
    )


def test_force_keeps_data_and_sets_aside_what_was_in_the_way(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "old"
    (target / "data").mkdir(parents=True)
    (target / "data" / "mine.csv").write_text("a\n1\n")
    (target / "dvc.yaml").write_text("stages: {}\n")
    (target / "notes.txt").write_text("mine")
    assert main(["init", "old", "--force"]) == 0
    assert (target / "data" / "mine.csv").read_text() == "a\n1\n"
    assert (target / "notes.txt").read_text() == "mine"
    assert (target / ".before-init" / "dvc.yaml").read_text() == "stages: {}\n"
    assert "compose" in (target / "dvc.yaml").read_text()
    assert f"what was in the way is in {target / '.before-init'}" in capsys.readouterr().out


def test_failure_leaves_everything_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(folder: Path) -> list[str]:
        raise InfrastructureError("dvc init failed")

    monkeypatch.setattr(project_repo, "init_repositories", fail)
    assert main(["init", "new"]) == 5
    assert names(tmp_path) == set()
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "dvc.yaml").write_text("mine")
    assert main(["init", "old", "--force"]) == 5
    assert names(tmp_path / "old") == {"dvc.yaml"}
    assert (tmp_path / "old" / "dvc.yaml").read_text() == "mine"


def test_read_only_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def refuse(**_: object) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(project_template.tempfile, "mkdtemp", refuse)
    assert main(["init", "new"]) == 5
    assert capsys.readouterr().err == (
        f"tunectl: cannot write in {tmp_path}: Permission denied\n  choose another folder, or fix its permissions\n  more: tunectl docs cannot-write-in\n"
    )


def test_installation_without_parts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(project_template, "PACKAGE", tmp_path / "lib" / "tunectl")
    with pytest.raises(InfrastructureError, match="is missing, so this installation cannot make projects"):
        project_template.find_template_dir()


def test_name_from_a_folder_without_letters() -> None:
    with pytest.raises(UsageError, match="cannot be the name of a project"):
        project_template.project_name(Path("/"), None)


needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


@needs_git
def test_repositories_are_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("dvc")
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    assert main(["init", "new"]) == 0
    assert (tmp_path / "new" / ".git").is_dir()
    assert "analytics = false" in (tmp_path / "new" / ".dvc" / "config").read_text()


@needs_git
def test_folder_inside_a_repository_gets_no_second_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("dvc")
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    subprocess.run(["git", "init", "--quiet", "."], cwd=tmp_path, check=True)
    assert main(["init", "team/new"]) == 0
    assert not (tmp_path / "team" / "new" / ".git").exists()
    assert (tmp_path / "team" / "new" / ".dvc" / "config").is_file()
