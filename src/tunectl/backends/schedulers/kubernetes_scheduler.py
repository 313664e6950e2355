"""Kubernetes: the manifest of a Job (batch/v1), and kubectl. The manifest was validated; no cluster was tried."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import yaml

from tunectl.backends.schedulers import scheduler_command
from tunectl.core.errors import UsageError
from tunectl.jobs import job_script
from tunectl.jobs.job_records import JobRecord
from tunectl.jobs.job_spec import JobSpec

FILE: Final = "job.yaml"
CONTAINER: Final = "build"
HOPELESS: Final = [1, 2, 3, 4]
"""Exit codes of tunectl that a restart would not change: our bug, configuration, gate, missing extra."""


class _Dumper(yaml.SafeDumper):
    """Writes texts of several lines as blocks, and no YAML aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _represent_text)


def check(job: JobSpec) -> None:
    """Refuse job settings that Kubernetes cannot use.

    Raises  UsageError without an image, and where only one of volume claim and storage path is set.
    """
    options = job.section.kubernetes
    if options.image is None:
        raise UsageError(
            "submit.kubernetes.image is null, and a job of Kubernetes needs an image with bash, git and tunectl",
            hint="tunectl submit run STAGE submit.kubernetes.image=REGISTRY/IMAGE:TAG, or write it into conf/submit/",
        )
    if (options.volume_claim is None) != (job.section.storage_path is None):
        raise UsageError(
            f"submit.kubernetes.volume_claim = {options.volume_claim or 'null'} and submit.storage_path = {job.section.storage_path or 'null'}: "
            "the claim is mounted at that path, so one needs the other",
            hint="set both, or set both to null; a job without them that is restarted begins again",
        )


def render_job_file(job: JobSpec) -> str:
    """Return the job's manifest as YAML text."""
    section, labels = job.section, {"app.kubernetes.io/managed-by": "tunectl", "tunectl/job": job.id}
    manifest = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": job.name, "namespace": section.kubernetes.namespace, "labels": labels},
        "spec": {
            "backoffLimit": section.max_restarts,
            "activeDeadlineSeconds": round(section.max_hours * 3600),
            "podFailurePolicy": {
                "rules": [
                    {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
                    {
                        "action": "FailJob",
                        "onExitCodes": {"containerName": CONTAINER, "operator": "In", "values": HOPELESS},
                    },
                ]
            },
            "template": {"metadata": {"labels": labels}, "spec": _build_pod(job)},
        },
    }
    text: str = yaml.dump(manifest, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1_000_000)
    return text


def _build_pod(job: JobSpec) -> dict[str, Any]:
    section = job.section
    limits: dict[str, Any] = {}
    if section.cpus is not None:
        limits["cpu"] = str(section.cpus)
    if section.memory_gb is not None:
        limits["memory"] = f"{section.memory_gb}G"
    if section.gpus:
        limits[section.kubernetes.gpu_resource] = str(section.gpus)
    container: dict[str, Any] = {"name": CONTAINER, "image": section.kubernetes.image}
    container["command"] = ["bash", "-c", job_script.write_script(job)]
    if limits:
        container["resources"] = {"requests": limits, "limits": limits.copy()}
    if section.kubernetes.secret is not None:
        container["envFrom"] = [{"secretRef": {"name": section.kubernetes.secret}}]
    pod: dict[str, Any] = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": section.grace_seconds,
        "automountServiceAccountToken": False,
        "containers": [container],
    }
    if section.kubernetes.volume_claim is not None:
        container["volumeMounts"] = [{"name": "storage", "mountPath": section.storage_path}]
        claim = {"claimName": section.kubernetes.volume_claim}
        pod["volumes"] = [{"name": "storage", "persistentVolumeClaim": claim}]
    return pod


def build_id(job: JobSpec) -> str:
    """Return what kubectl finds the job by before the cluster has confirmed it: its kind and name."""
    return f"job.batch/{job.name}"


def submit(job: JobSpec, folder: Path) -> str:
    """Create the Job of the manifest in ``folder``; return its name, which is the job id.

    Raises  InfrastructureError where kubectl is not installed, or the cluster refuses; UnconfirmedError where it may have the job.
    """
    scheduler_command.require_program("kubectl")
    namespace = f"--namespace={job.section.kubernetes.namespace}"
    arguments = ["--filename", str(folder / FILE), "--output=name", namespace]
    check_command = f"kubectl get {build_id(job)} {namespace}"
    printed = scheduler_command.send_job(["kubectl", "create", *arguments], check_command=check_command)
    return printed.strip()


def read_state(record: JobRecord) -> str:
    """Return the state of the job: pending, running, finished, failed or lost.

    Raises  InfrastructureError where kubectl is not installed, or the cluster does not answer.
    """
    arguments = ["get", record.scheduler_id, "--ignore-not-found", "--output=json"]
    return parse_state(_call_kubectl(record, *arguments))


def parse_state(text: str) -> str:
    """Return the state in ``text``, a Job as kubectl's JSON; ``lost`` for an empty text, which means that the Job does not exist any more.

    A pod that waits for a machine is ``active``, too; clusters older than 1.24 do not count those that are ``ready``.
    """
    if not text.strip():
        return "lost"
    status: dict[str, Any] = json.loads(text).get("status", {})
    conditions = {condition["type"] for condition in status.get("conditions", []) if condition["status"] == "True"}
    if "Complete" in conditions:
        return "finished"
    if conditions & {"Failed", "FailureTarget"}:
        return "failed"
    return "running" if status.get("ready", status.get("active")) else "pending"


def build_log_command(record: JobRecord, *, follow: bool) -> list[str]:
    """Return the kubectl command that prints the job's output, and with ``follow`` continues as it grows."""
    scheduler_command.require_program("kubectl")
    command = ["kubectl", "logs", record.scheduler_id, f"--namespace={record.location}"]
    return [*command, *(["--follow"] if follow else [])]


def cancel(record: JobRecord) -> None:
    """Delete the Job and its pod; do nothing if it does not exist any more.

    Raises  InfrastructureError where kubectl is not installed, or the cluster refuses.
    """
    _call_kubectl(record, "delete", record.scheduler_id, "--ignore-not-found")


def _call_kubectl(record: JobRecord, *arguments: str) -> str:
    scheduler_command.require_program("kubectl")
    return scheduler_command.call(["kubectl", *arguments, f"--namespace={record.location}"])
