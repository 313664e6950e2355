"""What is quick stays quick: counted by the modules that are loaded, not by a clock."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = {
    "torch",
    "transformers",
    "trl",
    "peft",
    "datasets",
    "evidently",
    "bentoml",
    "dvc",
    "matplotlib",
    "scipy",
    "pandas",
    "pyarrow",
    "hydra",
    "omegaconf",
    "ray",
    "optuna",
    "mlflow",
    "wandb",
    "opacus",
    "flwr",
    "botocore",
    "s3fs",
    "sqlalchemy",
}


def loaded(code: str) -> set[str]:
    """Top-level names of the modules that a new interpreter has after ``code``."""
    text = f"import sys, io\nout, sys.stdout = sys.stdout, io.StringIO()\n{code}\nimport json\nprint(json.dumps(sorted({{m.partition('.')[0] for m in sys.modules}})), file=out)"
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout))


def test_help_imports_no_library() -> None:
    seen = loaded("from tunectl.cli.main import main; main(['--help'])")
    assert not seen & (HEAVY | {"pydantic", "msgspec", "rich", "numpy"})


@pytest.mark.parametrize(
    "verb",
    [
        "init",
        "check",
        "repro",
        "run",
        "status",
        "estimate",
        "doctor",
        "chat",
        "data",
        "annotate",
        "console",
        "serve",
        "submit",
        "evaluate",
        "explain",
        "sweep",
        "track",
        "federate",
        "release",
        "retrain",
        "import",
        "completions",
    ],
)
def test_help_of_a_verb_imports_nothing_heavy(verb: str) -> None:
    code = f"from tunectl.cli.main import main\ntry:\n    main(['{verb}', '--help'])\nexcept SystemExit: pass"
    assert not loaded(code) & HEAVY


def test_status_imports_no_library_before_it_needs_one() -> None:
    code = "import tunectl.cli.status, tunectl.status.collect, tunectl.status.status_text"
    assert not loaded(code) & (HEAVY | {"pydantic", "numpy", "prometheus_client", "cronsim", "rich"})


@pytest.mark.parametrize(
    "stage",
    ["model", "ingest", "feedback", "curate", "split", "cpt", "sft", "preferences", "reward", "align", "evaluate"],
)
def test_a_stage_module_imports_nothing_heavy(stage: str) -> None:
    assert (
        not loaded(
            f"import tunectl.pipeline.resolved_config, tunectl.cli.run, tunectl.pipeline.runner, tunectl.pipeline.stages.{stage}"
        )
        & HEAVY
    )


def test_importing_the_package_imports_nothing() -> None:
    assert not loaded("import tunectl") & (HEAVY | {"pydantic", "msgspec", "argparse"})
