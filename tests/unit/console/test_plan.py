"""What a build would do, before it is started: stages, tokens, memory and minutes, as ``tunectl estimate`` has them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from console_projects import NOW, Console, PageFacts, build, initialize

from tunectl.artifacts.paths import ProjectPaths
from tunectl.config.loading import checks
from tunectl.console.acts import build as build_act
from tunectl.console.read_context import ReadContext
from tunectl.pipeline import run_estimate
from tunectl.pipeline.stages import STAGES

OPERATE = frozenset({"look", "operate"})


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> ProjectPaths:
    """A new project with a table of its own."""
    layout = initialize(tmp_path_factory.mktemp("plan") / "shop")
    (layout.conf / "overrides.yaml").write_text("- ingest=table\n- data.path=briefs.csv\n")
    lines = [f"Write ad {number} for a bike shop.,Ride with us {number}.\n" for number in range(100)]
    (layout.root / "briefs.csv").write_text("prompt,completion\n" + "".join(lines))
    return layout


def test_the_plan_has_the_figures_of_the_estimate(layout: ProjectPaths) -> None:
    console = Console(layout)
    plan = console.client.get("/build/plan.json?settings=sft.epochs=3").json()
    root = checks.load_project_config(layout, ["sft.epochs=3"]).root
    estimate = run_estimate.estimate_run(layout, root, time_layer=False)
    assert plan["problems"] == {}
    assert plan["overrides"] == ["sft.epochs=3"]
    assert [(one["stage"], one["tokens"], one["minutes"]) for one in plan["stages"]] == [
        (one["stage"], one["tokens"], one["minutes"]) for one in estimate["stages"]
    ]
    assert plan["minutes"] == pytest.approx(estimate["minutes"], abs=0.1)
    once = console.client.get("/build/plan.json").json()
    tokens = {one["stage"]: one["tokens"] for one in once["stages"]}
    assert next(one["tokens"] for one in plan["stages"] if one["stage"] == "sft") > tokens["sft"]
    page = console.client.get("/build/plan?settings=sft.epochs=3").text
    assert PageFacts(page).errors == []
    assert 'href="/build/start?settings=sft.epochs%3D3"' in page
    assert "100 rows (counted)" in page
    assert "tunectl estimate sft.epochs=3" in page


def test_the_page_of_the_act_has_them_too(layout: ProjectPaths) -> None:
    page = build_act.show_start(ReadContext(layout, NOW, OPERATE), {})
    assert [name for name, _ in page.facts] == [stage.name for stage in STAGES]
    assert all("estimated: " in text for _, text in page.facts)
    assert any("Estimated: about " in words and "GB of memory at the peak" in words for words in page.consequences)


def test_what_cannot_be_told_is_said_and_the_rest_is_shown(tmp_path: Path) -> None:
    console = Console(build(tmp_path / "shop"))  # its raw files are not there
    plan = console.client.get("/build/plan.json").json()
    assert set(plan["problems"]) == {"estimate"}
    assert len(plan["stages"]) > 3
    assert plan["minutes"] is None
    assert "align" in console.client.get("/build/plan").text
    words = " ".join(build_act.show_start(ReadContext(console.layout, NOW, OPERATE), {}).consequences)
    assert "Tokens, memory and minutes cannot be told: " in words


@pytest.mark.parametrize("settings", ["sft.epochs=many", "sft.epoch=2", "epochs", "ingest.max_rejected_share=1", "'"])
def test_a_mistake_in_the_settings_is_named(layout: ProjectPaths, settings: str) -> None:
    console = Console(layout)
    shown = console.client.get("/build/plan.json", params={"settings": settings})
    assert (shown.status_code, list(shown.json()["problems"]), shown.json()["stages"]) == (200, ["settings"], [])
    page = console.client.get("/build/plan", params={"settings": settings}).text
    assert PageFacts(page).errors == []
    assert 'href="/build/start' not in page


def test_a_plan_loads_no_torch(layout: ProjectPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("torch", "transformers", "pandas", "pyarrow"):
        monkeypatch.setitem(sys.modules, name, None)  # whoever imports it now fails
    root = checks.load_project_config(layout).root
    estimate = run_estimate.estimate_run(layout, root, time_layer=False)
    assert len(estimate["stages"]) == len(STAGES)
    assert estimate["machine"]["source"] == "assumed: not timed"
