"""MLflow's seam with a client that is made up: what it is given, and what it may raise. The real one: tests/tracking."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import NoCredentialsError

from tunectl.artifacts.paths import ProjectPaths
from tunectl.backends.tracking.mlflow_tracker import MlflowTracker
from tunectl.config.schema.track import Track
from tunectl.core.errors import InfrastructureError
from tunectl.pipeline import build_tracking
from tunectl.registry.release_manifest import BuildFacts
from tunectl.registry.release_store import ReleaseRegistry
from tunectl.tracking import spool
from tunectl.tracking.build_record import BuildRecord

SETTINGS = Track.model_validate(
    {
        "to": ["mlflow"],
        "experiment": "shop",
        "uri": None,
        "registry_uri": None,
        "registered_model": "ads",
        "timeout_seconds": 1,
    }
)


class Page(list[Any]):
    """A page of a search, and the mark of the next one."""

    token = ""


class MadeUpClient:
    """Takes all calls; ``uploads`` has the files of each upload, and ``failures`` what the next uploads raise."""

    def __init__(self) -> None:
        self.uploads: list[dict[str, str]] = []
        self.failures: list[Exception] = []
        self.tracking_uri = "sqlite://"

    def __getattr__(self, name: str) -> Any:
        info = SimpleNamespace(run_id="r", artifact_uri="files:/r", start_time=1)
        answer = SimpleNamespace(info=info, experiment_id="1", version="1", aliases={})
        return lambda *_, **__: Page([]) if name.startswith("search_") else answer

    def log_artifacts(self, run: str, folder: str, path: str = "") -> None:
        if self.failures:
            raise self.failures.pop()
        files = [file for file in Path(folder).rglob("*") if file.is_file()]
        self.uploads.append({file.name: file.read_text() for file in files})


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> MadeUpClient:
    client = MadeUpClient()
    entities = {name: lambda *_: None for name in ("Param", "Metric", "Dataset", "DatasetInput", "InputTag")}
    parts = {
        "mlflow": {"MlflowClient": lambda **_: client},
        "mlflow.entities": entities,
        "mlflow.exceptions": {"MlflowException": type("MlflowException", (Exception,), {})},
    }
    for name, values in parts.items():
        module = ModuleType(name)
        vars(module).update(values)
        monkeypatch.setitem(sys.modules, name, module)
    return client


def test_a_version_has_no_probe_of_the_contract(tmp_path: Path, client: MadeUpClient) -> None:
    """Fixtures and probes are inputs and answers."""
    store = ReleaseRegistry(tmp_path / "releases")
    (tmp_path / "release").mkdir()
    quoted = [{"messages": [{"role": "user", "content": "quokka"}], "text": "quokka"}]
    contract = {"project": "shop", "fixtures": quoted, "probes": quoted}
    (tmp_path / "release" / "contract.json").write_text(json.dumps(contract))
    store.add(tmp_path / "release", BuildFacts("shop", "transformers", "adapter", metrics={}))
    MlflowTracker(SETTINGS).mirror(store)
    (files,) = client.uploads
    assert json.loads(files["contract.json"]) == {"project": "shop"}
    assert not [name for name, text in files.items() if "quokka" in text]


def test_of_unity_catalog_a_release_gets_one_version(tmp_path: Path, client: MadeUpClient) -> None:
    """Its searches come in pages, and the tags of what is found are a method that raises: mlflow.entities.ModelVersionSearch."""

    class Found:
        def __init__(self, version: str) -> None:
            self.version = version

        def tags(self) -> None:
            raise AssertionError("UC Model Versions gathered through search_model_versions do not have tags.")

    store, made = ReleaseRegistry(tmp_path / "releases"), list[dict[str, str]]()
    for name in ("one", "two", "three"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "contract.json").write_text(json.dumps({"project": name}))
        store.add(tmp_path / name, BuildFacts("shop", "transformers", "adapter", metrics={}))
    pages = {None: Page([Found("1")]), "second": Page([Found("2")])}
    pages[None].token = "second"
    tags = {str(number): {"release": release} for number, release in enumerate(store.ids()[:2], 1)}
    client.search_model_versions = lambda _, page_token: pages[page_token]
    client.get_model_version = lambda _, version: SimpleNamespace(tags=tags[version])
    client.create_model_version = lambda *_, **words: made.append(words["tags"]) or SimpleNamespace(version="3")
    assert MlflowTracker(SETTINGS).mirror(store) == [f"ads version 3 is release {store.ids()[2]}"]
    assert made == [{"release": store.ids()[2]}]


@pytest.mark.parametrize(
    "failure",
    [NoCredentialsError(), ConnectionResetError("reset"), ModuleNotFoundError("No module named 'boto3'"), ValueError()],
)
def test_a_store_of_artifacts_that_fails_keeps_no_other_build_back(
    tmp_path: Path, client: MadeUpClient, failure: Exception
) -> None:
    layout = ProjectPaths(tmp_path)
    (tmp_path / "verdict.json").write_text("{}")
    for name in ("a", "b"):
        numbers = {"started": 1e9, "seconds": 1.0, "exit_code": 0, "metrics": {}}
        record = BuildRecord(id=name, project="shop", tags={}, params={}, digests={}, stages=[], **numbers)
        spool.save(layout.track / "spool", record, [(tmp_path / "verdict.json", "evaluate/verdict.json")])
    client.failures = [failure]
    with pytest.raises(InfrastructureError, match=type(failure).__name__):
        build_tracking.send_spool(layout, SETTINGS, lambda _: None)
    assert [folder.name for folder in spool.list_builds(layout.track / "spool")] == ["a"]


def test_a_build_that_was_sent_in_part_is_deleted_with_the_runs_of_its_stages(
    tmp_path: Path, client: MadeUpClient
) -> None:
    """MLflow keeps the children of a run that is deleted."""
    numbers = {"started": 1e9, "seconds": 1.0, "exit_code": 0, "metrics": {}}
    record = BuildRecord(id="a", project="shop", tags={}, params={}, digests={}, stages=[], **numbers)
    spool.save(tmp_path / "spool", record, [])
    runs = {"tags.`tunectl.build` = 'a'": ["parent"], "tags.`mlflow.parentRunId` = 'parent'": ["sft", "evaluate"]}
    deleted: list[str] = []

    def search(experiments: list[str], query: str) -> list[Any]:
        assert experiments == ["1"]
        return [SimpleNamespace(info=SimpleNamespace(run_id=run), data=SimpleNamespace(tags={})) for run in runs[query]]

    client.search_runs = search
    client.delete_run = deleted.append
    (folder,) = spool.list_builds(tmp_path / "spool")
    MlflowTracker(SETTINGS).send(folder)
    assert deleted == ["sft", "evaluate", "parent"], "the parent last: after a failure the next send still finds it"


def test_an_address_that_mlflow_does_not_know_is_named(client: MadeUpClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """It looks at the address when the client is made."""

    def refuse(**_: Any) -> None:
        raise ValueError("unsupported URI 'htp://x' for model registry store")

    monkeypatch.setattr(sys.modules["mlflow"], "MlflowClient", refuse)
    with pytest.raises(InfrastructureError, match="sending to MLflow failed: ValueError: unsupported URI") as caught:
        MlflowTracker(SETTINGS)
    assert "track.uri" in caught.value.hint


def test_the_words_of_mlflow_repeat_no_credentials(tmp_path: Path, client: MadeUpClient) -> None:
    layout = ProjectPaths(tmp_path)
    (tmp_path / "verdict.json").write_text("{}")
    numbers = {"started": 1e9, "seconds": 1.0, "exit_code": 0, "metrics": {}}
    record = BuildRecord(id="a", project="shop", tags={}, params={}, digests={}, stages=[], **numbers)
    spool.save(layout.track / "spool", record, [(tmp_path / "verdict.json", "evaluate/verdict.json")])
    client.failures = [OSError("API request to https://ann:s3cr3t@track.example.org/api failed")]
    with pytest.raises(InfrastructureError, match=r"https://\*\*\*@track.example.org/api failed") as caught:
        build_tracking.send_spool(layout, SETTINGS, lambda _: None)
    assert "s3cr3t" not in str(caught.value)
