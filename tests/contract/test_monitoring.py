"""What stands in monitoring/: documents that their readers accept, with names and ports that the server really has."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tomllib
from copy import deepcopy
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from tunectl.cli.project_template import PARTS
from tunectl.serving.app import HEALTH
from tunectl.serving.serving_metrics import ServingMetrics

ROOT = Path(__file__).parents[2]
MONITORING = ROOT / "monitoring"
MANIFESTS = sorted((MONITORING / "kubernetes").glob("*.yaml"))
OURS = {"adapter.yaml"}  # values of a Helm chart, not a manifest
RELEASED = ("1.30", "1.34", "1.37")
COMPOSE = MONITORING / "compose.yaml"
DOCKERFILE = (ROOT / "bento.dockerfile.j2").read_text()


def documents(kind: str = "") -> list[dict]:
    found = [one for path in MANIFESTS if path.name not in OURS for one in yaml.safe_load_all(path.read_text())]
    return [one for one in found if kind in ("", one["kind"])]


def pod() -> dict:
    (deployment,) = documents("Deployment")
    return deployment["spec"]["template"]["spec"]


@pytest.mark.parametrize("version", RELEASED)
def test_kubernetes_takes_every_manifest(version: str) -> None:
    for one in documents():
        if one["kind"] != "PodMonitor":
            kubernetes_validate.validate(one, version, strict=True)


def test_the_validator_finds_a_mistake() -> None:
    (wrong,) = deepcopy(documents("Deployment"))
    wrong["spec"]["template"]["spec"]["containers"][0]["readynessProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError, match="readynessProbe"):
        kubernetes_validate.validate(wrong, RELEASED[0], strict=True)


def test_the_operator_takes_the_pod_monitor() -> None:
    from cloudcoil.models.prometheus_operator.v1 import PodMonitor

    (given,) = documents("PodMonitor")
    read = PodMonitor.model_validate(given).model_dump(mode="json", by_alias=True, exclude_none=True)
    assert read == given  # what it does not know it drops


def compose(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    given = {"TUNECTL_IMAGE": "shop", "POSTGRES_PASSWORD": "secret", "TUNECTL_HASH_KEY": "0123456789abcdef"}
    command = ["docker", "compose", "--file", str(COMPOSE), "config", *words]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **given, **environment})


def has_compose() -> bool:
    asked = ["docker", "compose", "version"]
    return shutil.which("docker") is not None and subprocess.run(asked, capture_output=True).returncode == 0


@pytest.mark.skipif(not has_compose(), reason="docker compose is not installed (Debian: docker-cli docker-compose)")
def test_compose_takes_its_file() -> None:
    told = compose("--format", "json")
    assert told.returncode == 0, told.stderr
    services = json.loads(told.stdout)["services"]
    ours = services["service"]
    assert ours["environment"]["TUNECTL_INFERENCE_LOG_URL"] == "postgresql://tunectl:secret@postgres/tunectl"
    assert (ours["read_only"], ours["cap_drop"], ours["ports"][0]["host_ip"]) == (True, ["ALL"], "127.0.0.1")
    assert ours["ports"][0]["target"] == 3000
    told = compose(POSTGRES_PASSWORD="")
    assert "a password of letters and digits" in told.stderr


def test_names_of_metrics_are_those_of_the_server() -> None:
    shown = ServingMetrics().render().decode()
    known = set(re.findall(r"^# TYPE (\w+)", shown, re.MULTILINE))
    known |= {name + end for name in known for end in ("_bucket", "_count", "_sum")}
    for path in (MONITORING / "kubernetes").glob("*.yaml"):
        named = set(re.findall(r"\btunectl_\w+", path.read_text()))
        assert named <= known, path
    assert "tunectl_requests_waiting" in (MONITORING / "kubernetes" / "hpa.yaml").read_text()
    adapter = yaml.safe_load((MONITORING / "kubernetes" / "adapter.yaml").read_text())
    (autoscaler,) = documents("HorizontalPodAutoscaler")
    (rule,) = adapter["rules"]["custom"]
    assert autoscaler["spec"]["metrics"][0]["pods"]["metric"]["name"] == rule["name"]["matches"]


def test_ports_paths_and_names_meet() -> None:
    (container,) = pod()["containers"]
    (port,) = container["ports"]
    assert f"EXPOSE {port['containerPort']}\n" in DOCKERFILE
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert container[probe]["httpGet"]["path"] in HEALTH
        assert container[probe]["httpGet"]["port"] == port["name"]
    (monitor,) = documents("PodMonitor")
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    assert (endpoint["port"], endpoint["path"]) == (port["name"], "/metrics")
    job = endpoint["relabelings"][0]["replacement"]
    for name in ("prometheus/rules/serving.yml", "prometheus/prometheus.yml", "README.md"):
        text = (ROOT / "monitoring" / name).read_text(encoding="utf-8")
        assert f'job="{job}"' in text or f"job_name: {job}" in text, name
    (service,) = documents("Service")
    assert service["spec"]["ports"][0]["targetPort"] == port["name"]
    labels = documents("Deployment")[0]["spec"]["template"]["metadata"]["labels"]
    selectors = [service["spec"]["selector"], monitor["spec"]["selector"]["matchLabels"]]
    selectors += [documents("PodDisruptionBudget")[0]["spec"]["selector"]["matchLabels"]]
    assert all(selector == labels for selector in selectors)


def test_the_pod_is_locked_down_and_stops_gracefully() -> None:
    given, (container,) = pod(), pod()["containers"]
    secured = container["securityContext"]
    assert given["securityContext"]["runAsNonRoot"]
    assert (secured["readOnlyRootFilesystem"], secured["allowPrivilegeEscalation"]) == (True, False)
    assert {mount["mountPath"] for mount in container["volumeMounts"]} >= {"/tmp", "/data"}
    drain = yaml.safe_load((ROOT / "conf" / "serve" / "default.yaml").read_text())["shutdown"]["grace_period_seconds"]
    notice = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert given["terminationGracePeriodSeconds"] > notice + drain
    grace = yaml.safe_load(COMPOSE.read_text())["services"]["service"]["stop_grace_period"]
    assert int(grace.removesuffix("s")) > drain


def test_monitor_and_controller_have_less_cpu_weight_than_the_service() -> None:
    """Niceness ends at the border of a container; its weight does not."""
    services = yaml.safe_load(COMPOSE.read_text())["services"]
    assert "cpu_shares" not in services["service"], "1024, as for everybody"
    assert {services[name]["cpu_shares"] for name in ("monitor", "retrain-controller")} == {128}


WORKER = (MONITORING / "worker.dockerfile").read_text()


def test_the_workers_image_is_made_of_what_is_there() -> None:
    kept = [
        line[1:] for line in (MONITORING / "worker.dockerfile.dockerignore").read_text().splitlines() if line[0] == "!"
    ]
    assert all((ROOT / name).exists() for name in kept)
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    wanted = {name.partition("/")[0] for name in (*wheel["packages"], *wheel["force-include"])}
    assert wanted <= set(kept), "what the wheel is made of"
    for words in re.findall(r"^COPY (.+) \S+$", WORKER, re.MULTILINE):
        sources = words.split()
        assert all(one == "." or (one.partition("/")[0] in kept and list(ROOT.glob(one))) for one in sources)
        assert any(one == "." or one.partition("/")[0] in PARTS for one in sources), "also in a project that init made"
    services = yaml.safe_load(COMPOSE.read_text())["services"]
    for name, verb in (("monitor", "monitor"), ("retrain-controller", "retrain")):
        assert services[name]["build"]["dockerfile"] == "monitoring/worker.dockerfile"
        assert services[name]["command"][0] == verb
    assert 'ENTRYPOINT ["python", "-m", "tunectl"]' in WORKER
