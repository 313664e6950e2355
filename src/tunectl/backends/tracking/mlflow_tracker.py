"""Wrapper of MLflow: builds become runs with children, releases become versions of a registered model with aliases."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from tunectl.artifacts import atomic_io
from tunectl.config.schema.track import Track
from tunectl.core.errors import InfrastructureError, TunectlError
from tunectl.core.optional import import_optional
from tunectl.core.url_credentials import hide_credentials
from tunectl.registry.release_store import ReleaseRegistry
from tunectl.tracking import spool
from tunectl.tracking.build_record import BuildRecord, StageRecord, flatten

BUILD = "tunectl.build"
COMPLETE = "tunectl.complete"
RELEASE = "release"
BATCH = 900
"""Metrics per request; MLflow takes 1000."""
CONTRACT, CARD = "contract.json", "MODEL_CARD.md"
"""Files of a release in a model version; weights stay in our registry."""
QUOTED = ("fixtures", "probes")
"""Parts of the contract that are inputs and answers."""


class MlflowTracker:
    """Sends builds to one MLflow experiment, and releases to its registered model."""

    def __init__(self, settings: Track) -> None:
        os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] = str(settings.timeout_seconds)
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
        mlflow = import_optional("mlflow", extra="mlflow")
        self._entities = import_optional("mlflow.entities", extra="mlflow")
        self._errors = import_optional("mlflow.exceptions", extra="mlflow")
        self._settings = settings
        with self._name_errors():  # of an address of no kind that it knows
            self._client = mlflow.MlflowClient(tracking_uri=settings.uri, registry_uri=settings.registry_uri)

    def send(self, folder: Path) -> str:
        """Send the build in the spool folder ``folder``; one that is complete on the server is not sent again.

        Returns  the address of its page; empty where the server has none.

        Raises  InfrastructureError with MLflow's error message.
        """
        record = spool.load(folder)
        with self._name_errors():
            experiment = self._find_experiment()
            query = f"tags.`{BUILD}` = '{record.id}'"
            runs = self._client.search_runs([experiment], query)
            for run in runs:
                if COMPLETE in run.data.tags:
                    return self._find_page(experiment, run.info.run_id)
            for run in runs:
                self._delete_build(experiment, run.info.run_id)
            return self._find_page(experiment, self._send_runs(experiment, record, folder / spool.FILES))

    def mirror(self, store: ReleaseRegistry) -> list[str]:
        """Make versions and aliases of MLflow's registered model equal to the release registry; return the changes, a sentence each.

        Raises  InfrastructureError with MLflow's error message.
        """
        name = self._settings.registered_model
        if name is None:
            return []
        with self._name_errors():
            self._ensure_model(name)
            versions = self._list_versions(name)
            changes = []
            for release in store.ids():
                if release not in versions:
                    metrics = dict(flatten(store.manifest(release).metrics))
                    versions[release] = self._add_version(name, release, store.folder(release), metrics)
                    changes.append(f"{name} version {versions[release]} is release {release}")
            champion, canary = store.champion(), store.canary()
            aliases = {
                "champion": champion.release if champion is not None else None,
                "challenger": canary.release if canary is not None else None,
            }
            return changes + self._move_aliases(name, aliases, versions)

    def _delete_build(self, experiment: str, parent: str) -> None:
        """Delete the run of a build after those of its stages, which MLflow would keep and nobody would find again."""
        for run in self._client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{parent}'"):
            self._client.delete_run(run.info.run_id)
        self._client.delete_run(parent)

    def _find_page(self, experiment: str, run: str) -> str:
        server = hide_credentials(str(self._client.tracking_uri)).replace("://***@", "://").rstrip("/")
        return f"{server}/#/experiments/{experiment}/runs/{run}" if server.startswith(("http://", "https://")) else ""

    def _send_runs(self, experiment: str, record: BuildRecord, files: Path) -> str:
        tags = {"mlflow.runName": f"{record.project}-{record.id}", BUILD: record.id, **record.tags}
        start, end = round(record.started * 1000), round((record.started + record.seconds) * 1000)
        parent = self._client.create_run(experiment, start_time=start, tags=tags).info.run_id
        params = [self._entities.Param(key, value) for key, value in record.params.items()]
        self._log(parent, record.metrics, {}, end, params)
        self._log_digests(parent, record.digests)
        for stage in record.stages:
            self._send_stage(experiment, parent, stage, start, end)
        if files.is_dir():
            self._client.log_artifacts(parent, str(files))
        status = {0: "FINISHED", 3: "FINISHED", 75: "KILLED", 130: "KILLED"}.get(record.exit_code, "FAILED")
        self._client.set_terminated(parent, status, end)
        self._client.set_tag(parent, COMPLETE, "true")
        return str(parent)

    def _send_stage(self, experiment: str, parent: str, stage: StageRecord, start: int, end: int) -> None:
        tags = {"mlflow.runName": stage.name, "mlflow.parentRunId": parent, "tunectl.stage": stage.name}
        run = self._client.create_run(experiment, start_time=start, tags=tags).info.run_id
        self._log(run, stage.metrics, stage.curves, end, [])
        self._client.set_terminated(run, "FINISHED", end)

    def _log(
        self, run: str, metrics: Mapping[str, float], curves: Mapping[str, Any], index: int, params: list[Any]
    ) -> None:
        points = [self._entities.Metric(name, value, index, 0) for name, value in metrics.items() if name not in curves]
        points += [
            self._entities.Metric(name, value, index, step) for name, curve in curves.items() for step, value in curve
        ]
        for number in range(0, len(params), 100):
            self._client.log_batch(run, params=params[number : number + 100])
        rest = iter(points)
        while batch := list(islice(rest, BATCH)):
            self._client.log_batch(run, metrics=batch)

    def _log_digests(self, run: str, digests: Mapping[str, str]) -> None:
        inputs = [
            self._entities.DatasetInput(
                self._entities.Dataset(
                    name, digest[:36], "dvc", json.dumps({"path": f"artifacts/{name}", "md5": digest})
                ),
                [self._entities.InputTag("mlflow.data.context", "training")],
            )
            for name, digest in digests.items()
        ]
        if inputs:
            self._client.log_inputs(run, datasets=inputs)

    def _find_experiment(self) -> str:
        name = self._settings.experiment
        experiment_by_name = self._client.get_experiment_by_name(name)
        return str(
            experiment_by_name.experiment_id if experiment_by_name is not None else self._client.create_experiment(name)
        )

    def _ensure_model(self, name: str) -> None:
        try:
            self._client.get_registered_model(name)
        except self._errors.MlflowException as error:
            if error.error_code not in {"RESOURCE_DOES_NOT_EXIST", "NOT_FOUND"}:  # MLflow's server, Databricks
                raise
            self._client.create_registered_model(
                name, description="releases of tunectl; its registry decides, this mirrors it"
            )

    def _list_versions(self, name: str) -> dict[str, str]:
        """Return the version of each release that has one."""
        versions: dict[str, str] = {}
        token: str | None = None
        while True:
            page = self._client.search_model_versions(f"name='{name}'", page_token=token)
            for version in page:
                tags = version.tags
                if not isinstance(tags, Mapping):  # what a search of Unity Catalog returns has none
                    tags = self._client.get_model_version(name, version.version).tags
                if RELEASE in tags:
                    versions[tags[RELEASE]] = version.version
            token = page.token
            if not token:
                return versions

    def _add_version(self, name: str, release: str, folder: Path, metrics: Mapping[str, float]) -> str:
        """Return a version whose files are the contract, the model card, and an ``MLmodel`` with a signature."""
        tags = {"mlflow.runName": f"release {release}", "tunectl.release": release}
        run = self._client.create_run(self._find_experiment(), tags=tags)
        self._log(run.info.run_id, metrics, {}, run.info.start_time, [])
        with tempfile.TemporaryDirectory() as scratch:
            scratch_folder = Path(scratch)
            if (folder / CARD).is_file():
                (scratch_folder / CARD).write_bytes((folder / CARD).read_bytes())
            contract: dict[str, Any] = atomic_io.read_json(folder / CONTRACT, dict[str, Any])
            public_fields = {name: value for name, value in contract.items() if name not in QUOTED}
            atomic_io.write_json(scratch_folder / CONTRACT, public_fields)
            atomic_io.write_text(scratch_folder / "MLmodel", describe_model(release, run.info.run_id))
            self._client.log_artifacts(run.info.run_id, scratch, "release")
        self._client.set_terminated(run.info.run_id)
        source = f"{run.info.artifact_uri}/release"
        version = self._client.create_model_version(name, source, run.info.run_id, tags={RELEASE: release})
        return str(version.version)

    def _move_aliases(self, name: str, aliases: Mapping[str, str | None], versions: Mapping[str, str]) -> list[str]:
        now = {alias: str(version) for alias, version in self._client.get_registered_model(name).aliases.items()}
        changes = []
        for alias, release in aliases.items():
            version = versions.get(release) if release is not None else None
            if version is not None and now.get(alias) != version:
                self._client.set_registered_model_alias(name, alias, version)
                changes.append(f"{alias} is version {version}")
            elif version is None and alias in now:
                self._client.delete_registered_model_alias(name, alias)
                changes.append(f"there is no {alias}")
        return changes

    @contextmanager
    def _name_errors(self) -> Iterator[None]:
        try:
            yield
        except TunectlError:
            raise
        except Exception as error:  # artifact stores raise errors of their libraries: requests, botocore, ImportError
            message = hide_credentials(" ".join(f"{type(error).__name__}: {error}".split()))[
                :300
            ]  # it repeats track.uri
            raise InfrastructureError(
                f"sending to MLflow failed: {message}",
                hint="check track.uri, its credentials and the server, then send again: tunectl track sync",
            ) from error


def describe_model(release: str, run: str) -> str:
    """Return the text of the ``MLmodel`` file of a release, logged by run ``run``: a signature of messages in and text out, no weights."""
    inputs = json.dumps([{"type": "string", "name": "prompt", "required": True}])
    outputs = json.dumps([{"type": "string", "name": "answer", "required": True}])
    return (
        f"artifact_path: release\nrun_id: {run}\nflavors:\n  tunectl:\n    release: {release}\n"
        f"signature:\n  inputs: '{inputs}'\n  outputs: '{outputs}'\n  params: null\n"
    )
