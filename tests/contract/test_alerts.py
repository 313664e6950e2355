"""Rules, routes and runbooks: each names what is there. What they do is tested with promtool, in tests/stack."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from monitoring_files import (
    ALERTING,
    ALERTS,
    MONITORING,
    PROMETHEUS,
    RECORDED,
    ROOT,
    RULES,
    RUNBOOKS,
    TESTS,
    exposed,
    read,
    unknown,
)  # fmt: skip
from pydantic.fields import FieldInfo

from tunectl.cli.main import VERBS
from tunectl.config.schema.monitor import Monitor
from tunectl.config.schema.retrain import RetrainingConfig


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.get("alert") or rule["record"])
def test_rules_name_what_the_programs_expose(rule: dict) -> None:
    assert unknown(rule["expr"]) == []
    for text in rule.get("annotations", {}).values():
        for asked in re.findall(r'query\s+"((?:[^"\\]|\\.)*)"', text):
            assert unknown(asked.replace('\\"', '"')) == []


def test_names_that_nobody_exposes_are_found() -> None:
    assert unknown("sum by (job) (rate(tunectl_request_total[5m])) > 1e3") == ["nobody exposes tunectl_request_total"]
    assert "has no finished_reason 'eror'" in unknown('tunectl_requests_total{finished_reason=~"eror|timeout"}')[0]
    assert unknown("time() - tunectl_drift_last_success_timestamp_seconds offset 5m > 300 unless on (job) up") == []


@pytest.mark.parametrize("name", ALERTS)
def test_alerts_say_how_bad_it_is_and_what_to_do(name: str) -> None:
    rule = ALERTS[name]
    assert re.fullmatch(r"Tunectl[A-Z][A-Za-z]+", name)
    assert set(rule["labels"]) == {"severity"}
    assert rule["labels"]["severity"] in {"page", "ticket"}
    assert rule["annotations"]["runbook_url"] == f"{{{{ $externalURL }}}}/user/{name}.md"
    assert rule["annotations"]["summary"].endswith(".")
    text = (RUNBOOKS / f"{name}.md").read_text()
    assert text.startswith(f"# {name}\n\n**")
    assert len(text.splitlines()) <= 45, "one page"
    assert f"| [{name}]({name}.md) | {rule['labels']['severity']} |" in (RUNBOOKS / "README.md").read_text()


def test_no_runbook_is_left_over_and_all_their_links_lead_somewhere() -> None:
    assert {path.stem for path in RUNBOOKS.glob("*.md")} == {*ALERTS, "README"}
    for path in RUNBOOKS.glob("*.md"):
        for target in re.findall(r"\]\(([^)]+)\)", path.read_text()):
            assert (RUNBOOKS / target).is_file(), (path.name, target)


@pytest.mark.parametrize("path", sorted(RUNBOOKS.glob("*.md")), ids=lambda path: path.stem)
def test_runbooks_name_verbs_settings_and_metrics_that_exist(path: Path) -> None:
    text = path.read_text()
    for verb in re.findall(r"`tunectl (\w+)", text):
        assert verb in {one.name for one in VERBS}, verb
    for group, key in re.findall(r"`(monitor|retrain|serve|inference_log)\.([a-z_.]+)[`:]", text):
        place = read(ROOT / "conf" / group / "default.yaml")
        for part in key.split("."):
            assert part in place, f"{group}.{key}"
            place = place[part]
    for name in re.findall(r"\btunectl_\w+\b(?!\*)", text):
        assert name in exposed() or name in RECORDED or any(known.startswith(name) for known in exposed()), name


@pytest.mark.parametrize("name", ALERTS)
def test_every_alert_is_tested_to_fire_keep_still_clear_and_miss_its_data(name: str) -> None:
    mine = [test for test in TESTS if test["name"].startswith(f"{name}: ")]
    told = next(test for test in mine if test["name"] == f"{name}: does not fire, fires, clears")
    looks = [bool(one["exp_alerts"]) for one in told["alert_rule_test"] if one["alertname"] == name]
    assert (looks[0], True in looks, looks[-1]) == (False, True, False)
    missing = next(test for test in mine if test["name"] == f"{name}: missing data")
    assert missing["alert_rule_test"]
    for test in mine:
        assert {one["alertname"] for one in test["alert_rule_test"]} >= {name}


def test_drift_goes_to_the_controller_and_the_rest_to_people() -> None:
    config = read(MONITORING / "alertmanager" / "alertmanager.yml")
    watched = read(ROOT / "conf" / "retrain" / "default.yaml")
    (route,) = [one for one in config["route"]["routes"] if one["receiver"] == "tunectl-retrain"]
    assert route["matchers"] == [f'alertname="{name}"' for name in watched["alerts"]]
    assert set(watched["alerts"]) <= set(ALERTS)
    assert (config["route"]["receiver"], "continue" in route) == ("people", False)
    receivers = {one["name"]: one for one in config["receivers"]}
    (hook,) = receivers["tunectl-retrain"]["webhook_configs"]
    assert hook["url"].endswith(f":{watched['port']}/webhook")
    assert "credentials_file" in hook["http_config"]["authorization"]
    named = {
        name
        for rule in config["inhibit_rules"]
        for side in ("source_matchers", "target_matchers")
        for name in rule[side]
    }
    for matcher in named:
        pattern = re.fullmatch(r'alertname=~?"(.+)"', matcher)[1]
        assert any(re.fullmatch(pattern, name) for name in ALERTS), matcher


def test_promises_and_buckets_meet() -> None:
    """The latency objective counts a bucket that the server has."""
    edges = {one for one in exposed()["tunectl_time_to_first_token_seconds_bucket"] if one.startswith("le=")}
    asked = set(re.findall(r'le="[^"]+"', " ".join(rule["expr"] for rule in RULES)))
    assert asked
    assert asked <= edges


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("TunectlDriftJobStale", Monitor.model_fields["poll_seconds"]),
        ("TunectlRetrainControllerStale", RetrainingConfig.model_fields["poll_seconds"]),
    ],
)
def test_whoever_looks_as_seldom_as_is_allowed_is_not_called_stale(name: str, field: FieldInfo) -> None:
    after = int(re.search(r"_timestamp_seconds > (\d+)", ALERTS[name]["expr"])[1])
    (most,) = [one.le for one in field.metadata if hasattr(one, "le")]
    assert after >= 2 * most


def test_grafana_has_the_same_drift_rules() -> None:
    (group,) = read(ALERTING / "rules.yaml")["groups"]
    ours = {rule["alert"]: rule for g in read(PROMETHEUS / "rules" / "drift.yml")["groups"] for rule in g["rules"]}
    assert [rule["title"] for rule in group["rules"]] == list(ours)
    words = lambda text: " ".join(text.split())
    for rule in group["rules"]:
        same = ours[rule["title"]]
        query = next(one for one in rule["data"] if one["refId"] == "A")["model"]
        assert words(query["expr"]) == words(same["expr"])
        assert (rule["for"], rule.get("keepFiringFor"), rule["labels"]) == (
            same.get("for", "0s"), same.get("keep_firing_for"), same["labels"],
        )  # fmt: skip
        plain = re.sub(r"\{\{.*?\}\}", "*", rule["annotations"]["summary"])
        assert plain == re.sub(r"\{\{.*?\}\}", "*", same["annotations"]["summary"])
        assert rule["annotations"]["runbook_url"].endswith(f"/user/{rule['title']}.md")
        told = " ".join(rule["annotations"].values())
        assert "$" not in told.replace("$$", ""), "a single $ would be an environment variable"
        named = {one["refId"]: one["model"].get("expr", "") for one in rule["data"]}
        assert set(re.findall(r"\$values\.(\w+)", told)) <= set(named)
        assert all(expr.endswith(" or vector(-1)") for name, expr in named.items() if name > "B"), (
            "a query without data silences the rule"
        )
    watched = read(ROOT / "conf" / "retrain" / "default.yaml")["alerts"]
    for rule in group["rules"]:
        receiver = "tunectl retrain controller" if rule["title"] in watched else "tunectl people"
        assert rule["notification_settings"] == {"receiver": receiver}


def test_both_carry_what_calibration_measured() -> None:
    """False alarms and power, and words where nobody has calibrated."""
    (group,) = read(ALERTING / "rules.yaml")["groups"]
    theirs, ours = group["rules"][0], ALERTS["TunectlDriftSustained"]
    for said in (ours["annotations"]["description"], theirs["annotations"]["description"]):
        plain = re.sub(r"\{\{.*?\}\}", "*", said)
        assert plain.endswith(
            "*False-alarm rate over 3 windows: **; detection rate for a 30 % topic change: **."
            "*Not calibrated: the rate of false alarms is unknown until tunectl monitor calibrate measures it.*"
        )
    asked = {one["model"]["expr"].removesuffix(" or vector(-1)") for one in theirs["data"] if one["refId"] in "CD"}
    assert asked == {
        one.replace('\\"', '"') for one in re.findall(r'"(m\w+\(.*?\))"', ours["annotations"]["description"])
    }
    assert all(unknown(expr) == [] for expr in asked)


def test_grafana_and_alertmanager_use_the_same_webhook() -> None:
    points = {one["name"]: one["receivers"][0] for one in read(ALERTING / "contact_points.yaml")["contactPoints"]}
    config = read(MONITORING / "alertmanager" / "alertmanager.yml")
    hook = next(one for one in config["receivers"] if one["name"] == "tunectl-retrain")["webhook_configs"][0]
    settings = points["tunectl retrain controller"]["settings"]
    assert settings["url"] == hook["url"]
    assert (
        settings["authorization_credentials"]
        == f"$__file{{{hook['http_config']['authorization']['credentials_file']}}}"
    )


def test_compose_starts_what_is_scraped_and_notified() -> None:
    compose = read(MONITORING / "compose.yaml")
    services = compose["services"]
    assert {"service", "postgres", "monitor", "retrain-controller", "prometheus", "alertmanager", "grafana"} <= set(
        services
    )
    inside = {"service": 3000, "prometheus": 9090, "alertmanager": 9093}
    inside |= {
        name: read(ROOT / "conf" / group / "default.yaml")["port"]
        for name, group in (("monitor", "monitor"), ("retrain-controller", "retrain"))
    }
    for name, one in services.items():
        for port in one.get("ports", []):
            assert port.startswith("127.0.0.1:")
            assert name not in inside or port.endswith(f":{inside[name]}")
        for volume in one.get("volumes", []):
            if volume.startswith("./"):
                assert (MONITORING / volume.split(":")[0]).exists(), volume
        assert set(one.get("secrets", [])) <= set(compose["secrets"])
    for job in read(PROMETHEUS / "prometheus.yml")["scrape_configs"]:
        host, _, port = job["static_configs"][0]["targets"][0].partition(":")
        assert int(port) == inside["prometheus" if host == "127.0.0.1" else host]
        if "authorization" in job:
            secret = Path(job["authorization"]["credentials_file"])
            assert secret.parent == Path("/run/secrets")
            assert secret.name in services["prometheus"]["secrets"]
    links = {
        rule["labels"]["name"]: rule["labels"]["url"] for rule in RULES if rule.get("record") == "tunectl:link:info"
    }
    assert links == {
        "monitor": "http://127.0.0.1:3001", "retrain": "http://127.0.0.1:3200", "runbooks": "http://127.0.0.1:9090/user",
    }  # fmt: skip


def test_the_readme_names_metrics_and_alerts_that_are_there() -> None:
    text = (MONITORING / "README.md").read_text()
    table = text[text.index("| `tunectl_...` | meaning |") : text.index("`prometheus/prometheus.yml` is complete")]
    named = re.findall(
        r"`([a-z_]+)(?:\{[^`]*)?`", "".join(line.split("|")[1] for line in table.splitlines()[2:] if line)
    )
    families = {re.sub(r"_(bucket|count|sum)$", "", name) for name in exposed()}
    assert named
    assert {f"tunectl_{name}" for name in named} <= families
    assert set(re.findall(r"`(Tunectl[A-Z]\w+)`", text)) <= set(ALERTS)


def test_every_link_of_the_readme_leads_somewhere() -> None:
    """The pictures of the boards among them: `make screenshots`."""
    for target in re.findall(r"\]\(([^)#:]+)\)", (MONITORING / "README.md").read_text()):
        assert (MONITORING / target).exists(), target
