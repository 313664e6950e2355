"""The boards: Grafana's own typed schema takes them whole, their places and names are fixed, and their queries name what is exposed."""

from __future__ import annotations

import importlib
import json
import re
from itertools import combinations

import pytest
import yaml
from monitoring_files import ALERTING, MONITORING, RECORDED, exposed, unknown

BOARDS = {
    path.stem: json.loads(path.read_text()) for path in sorted((MONITORING / "grafana" / "boards").glob("*.json"))
}
TITLES = {"service": "Service", "quality": "Quality", "drift": "Drift", "retraining": "Retraining"}
UIDS = {name: f"tunectl-{name}" for name in TITLES}
OURS = {"expr", "step", "titleFormat", "textFormat"}
"""Keys of an annotation that the data source reads and the schema does not know."""


def models(name: str):
    return importlib.import_module(f"grafana_foundation_sdk.models.{name}")


def plain(value):
    """An object of the SDK as JSON."""
    from grafana_foundation_sdk.cog.encoder import JSONEncoder

    return json.loads(json.dumps(value, cls=JSONEncoder))


def lost(given, read, where: str = "") -> list[str]:
    """What of ``given`` is not in ``read``: the SDK drops what it does not know."""
    if isinstance(given, dict):
        if not isinstance(read, dict):
            return [where]
        missing = [f"{where}.{key}" for key, value in given.items() if value is not None and key not in read]
        return missing + [one for key in given if key in read for one in lost(given[key], read[key], f"{where}.{key}")]
    if isinstance(given, list):
        if not isinstance(read, list) or len(given) != len(read):
            return [where]
        return [
            one for place, pair in enumerate(zip(given, read, strict=True)) for one in lost(*pair, f"{where}[{place}]")
        ]
    return [] if given == read else [f"{where}: {given!r} became {read!r}"]


@pytest.fixture(scope="module", autouse=True)
def _known_panels() -> None:
    from grafana_foundation_sdk.cog.plugins import register_default_plugins

    register_default_plugins()


@pytest.mark.parametrize("name", BOARDS)
def test_grafanas_schema_takes_the_board_whole(name: str) -> None:
    dashboard, board = models("dashboard"), BOARDS[name]
    read = plain(dashboard.Dashboard.from_json(board))
    assert lost({key: value for key, value in board.items() if key != "annotations"}, read) == []
    for one in board["annotations"]["list"]:
        known = {key: value for key, value in one.items() if key not in OURS}
        assert lost(known, plain(dashboard.AnnotationQuery.from_json(one))) == []
    for one in board["links"]:
        assert lost(one, plain(dashboard.DashboardLink.from_json(one))) == []
    for one in board["templating"]["list"]:
        assert lost(one, plain(dashboard.VariableModel.from_json(one))) == []
    for panel in board["panels"]:
        for target in panel.get("targets", []):
            assert lost(target, plain(models("prometheus").Dataquery.from_json(target))) == []


def test_a_key_that_grafana_does_not_know_is_found() -> None:
    board = json.loads(json.dumps(BOARDS["service"]))
    board["panels"][1]["options"]["colourMode"] = "value"
    board["panels"][1]["gridPos"]["z"] = 1
    found = lost(board["panels"], plain(models("dashboard").Dashboard.from_json(board))["panels"])
    assert [one.rpartition(".")[2] for one in found] == ["z", "colourMode"]


def test_the_four_boards_have_fixed_names() -> None:
    assert {name: board["uid"] for name, board in BOARDS.items()} == UIDS
    assert {name: board["title"] for name, board in BOARDS.items()} == TITLES
    shared = [(b["links"], b["templating"], b["annotations"], b["schemaVersion"], b["tags"]) for b in BOARDS.values()]
    assert all(one == shared[0] for one in shared)


@pytest.mark.parametrize("name", BOARDS)
def test_panels_have_room_a_question_and_a_source(name: str) -> None:
    panels = BOARDS[name]["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for panel in panels:
        grid = panel["gridPos"]
        assert 0 <= grid["x"] < grid["x"] + grid["w"] <= 24
        assert panel["title"]
        if panel["type"] != "row":
            assert panel["description"].endswith(".")
            assert panel["datasource"]["uid"] == "tunectl-prometheus"
    for one, two in combinations([panel["gridPos"] for panel in panels], 2):
        apart = one["x"] + one["w"] <= two["x"] or two["x"] + two["w"] <= one["x"]
        assert apart or one["y"] + one["h"] <= two["y"] or two["y"] + two["h"] <= one["y"], (one, two)


@pytest.mark.parametrize("name", BOARDS)
def test_queries_name_what_the_programs_expose(name: str) -> None:
    board = BOARDS[name]
    asked = [target["expr"] for panel in board["panels"] for target in panel.get("targets", [])]
    asked += [one["expr"] for one in board["annotations"]["list"]]
    asked += [re.fullmatch(r"label_values\((.+), url\)", one["query"])[1] for one in board["templating"]["list"]]
    assert {expr: unknown(expr) for expr in asked if unknown(expr)} == {}


def test_every_metric_is_on_some_board() -> None:
    """Whoever adds a metric says where it is looked at."""
    text = json.dumps(BOARDS)
    families = {re.sub(r"_(bucket|count|sum|created|total)$", "", name) for name in exposed()}
    assert {name for name in families if name not in text} == set()


def test_runbooks_and_reports_are_a_click_away() -> None:
    for board in BOARDS.values():
        urls = [one.get("url") for one in board["links"]]
        assert {"${monitor}/reports", "${monitor}/", "${retrain}/", "${runbooks}/README.md"} <= set(urls)
    assert "tunectl:link:info" in RECORDED


def test_provisioning_names_the_boards_sources_and_folder() -> None:
    folder = MONITORING / "grafana" / "provisioning"
    sources = yaml.safe_load((folder / "datasources" / "tunectl.yaml").read_text())["datasources"]
    assert {one["type"]: one["uid"] for one in sources} == {
        "prometheus": "tunectl-prometheus", "alertmanager": "tunectl-alertmanager",
    }  # fmt: skip
    (provider,) = yaml.safe_load((folder / "dashboards" / "tunectl.yaml").read_text())["providers"]
    grafana = yaml.safe_load((MONITORING / "compose.yaml").read_text())["services"]["grafana"]
    assert f"./grafana/boards:{provider['options']['path']}:ro" in grafana["volumes"]
    assert provider["allowUiUpdates"] is False


def test_grafanas_schema_takes_rules_and_contact_points() -> None:
    """Files of provisioning write some keys otherwise than the API, whose schema this is."""
    alerting = models("alerting")
    (group,) = yaml.safe_load((ALERTING / "rules.yaml").read_text())["groups"]
    for rule in group["rules"]:
        spelt = {"keep_firing_for" if key == "keepFiringFor" else key: value for key, value in rule.items()}
        given = spelt | {"folderUID": group["folder"], "ruleGroup": group["name"], "orgID": group["orgId"]}
        assert lost(given, plain(alerting.Rule.from_json(given))) == []
        for query in rule["data"]:
            assert lost(query, plain(alerting.Query.from_json(query))) == []
        assert rule["condition"] in {query["refId"] for query in rule["data"]}
        assert re.fullmatch(r"tunectl-[a-z-]{1,32}", rule["uid"])
    for point in yaml.safe_load((ALERTING / "contact_points.yaml").read_text())["contactPoints"]:
        for receiver in point["receivers"]:
            given = {**receiver, "name": point["name"]}
            assert lost(given, plain(alerting.ContactPoint.from_json(given))) == []
