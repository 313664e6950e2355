"""Every test belongs to a tier, and the Makefile names the same folders."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tiers import CI, QUICK, TEST_ALL, find_tier, is_below

ROOT = Path(__file__).parents[2]
TESTS = ROOT / "tests"


@pytest.mark.parametrize(
    ("nodeid", "slow", "tier"),
    [
        ("tests/unit/test_version.py::test_a", False, "quick"),
        ("tests/backends/test_generator.py::test_a[tests/serving]", False, "quick"),
        ("tests/backends/test_openvino_export.py::test_a", True, "ci"),
        ("tests/serving/test_openai.py::test_a", False, "ci"),
        ("tests/e2e/test_loop.py::test_a", True, "ci"),
        ("tests/cluster/test_ray_nodes.py::test_a", True, None),
        ("tests/e2e/test_own_data.py::test_a", True, None),
        ("tests/elsewhere/test_a.py::test_a", False, None),
        ("tests/serving/test_lifecycle.py::test_sigterm_finishes_streams_then_ends", False, None),
        ("tests/serving/test_lifecycle.py::test_sigterm_finishes_streams_then_ends_at_once", False, "ci"),
        ("tests/retraining/test_retrain_controller.py::test_kill_nine_of_each_party[dvc]", False, None),
        ("tests/retraining/test_retrain_controller.py::test_kill_nine_of_each_party[watcher]", False, "ci"),
    ],
)
def test_the_tier_follows_from_the_place(nodeid: str, slow: bool, tier: str | None) -> None:
    assert find_tier(nodeid, slow=slow) == tier


@pytest.mark.parametrize(
    ("name", "below"),
    [
        ("serving", True),
        ("serving/test_a.py", True),
        ("serving/test_a.py::test_b", True),
        ("serving/test_a.py::test_b[x-1]", True),
        ("serving/test_a.py::test_b[x]", False),
        ("serving/test_a.py::test_", False),
        ("serving/test_b.py::test_b", False),
        ("serv", False),
    ],
)
def test_a_folder_a_file_a_test_or_one_of_its_parameters_may_be_named(name: str, below: bool) -> None:
    assert is_below("tests/serving/test_a.py::test_b[x-1]", (name,)) is below


def test_no_folder_is_left_out_of_the_gate() -> None:
    folders = {path.relative_to(TESTS).parts[0] for path in TESTS.rglob("test_*.py")}
    assert folders == {*QUICK, *CI, *(name for name in TEST_ALL if ".py" not in name)}


def test_every_place_is_there() -> None:
    assert [name for name in (*QUICK, *CI, *TEST_ALL) if not (TESTS / name.partition("::")[0]).exists()] == []


def test_every_test_that_is_named_is_there() -> None:
    named = [name.partition("[")[0].split("::") for name in TEST_ALL if "::" in name]
    assert len(named) > 5
    assert [test for file, test in named if f"def {test}(" not in (TESTS / file).read_text()] == []


def test_the_makefile_names_the_same_folders() -> None:
    line = re.search(r"^QUICK := (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert line is not None
    assert line[1].split() == [f"tests/{name}" for name in QUICK]


def test_this_test_is_marked(request: pytest.FixtureRequest) -> None:
    assert [mark.name for mark in request.node.iter_markers() if mark.name in {"quick", "ci"}] == ["quick"]
