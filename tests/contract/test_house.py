"""The walls of the house: floors, seams, sizes, documentation."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from source_trees import FILES, SOURCE, parse_file, parse_package

ROOT = Path(__file__).parents[2]

EVERYWHERE = {"msgspec", "pydantic", "numpy", "scipy"}
"""Numbers and records are used where they are needed."""
ROOMS = {
    "torch": ("backends/",),
    "transformers": ("backends/",),
    "peft": ("backends/",),
    "trl": ("backends/trainers/",),
    "bitsandbytes": ("backends/",),
    "safetensors": ("backends/",),
    "datasets": ("backends/trainers/", "backends/readers/hub_dataset.py"),  # an in-memory table for TRL; the Hub
    "httpx": (  # web pages; a judge; servers that write answers; the server inside its own process
        "backends/readers/web_fetch.py",
        "backends/text/openai_client.py",
        "backends/trainers/vllm_client.py",
        "backends/web/asgi_call.py",
    ),
    "bentoml": (
        "services/bento_service.py",
        "cli/serve.py",
        "backends/export/bento_",
    ),  # the service, its start, its build
    "jinja2": (
        "backends/reports/render.py",
        "chat/template.py",
    ),  # pages; chat templates in a sandbox
    "huggingface_hub": ("backends/storage/hub_",),
    "yaml": ("config/", "backends/vcs/", "backends/schedulers/kubernetes_"),  # settings; files of DVC; a manifest
    "starlette": ("annotation/", "backends/web/http_server.py", "console/"),
    "prometheus_client": (
        "serving/serving_metrics.py",
        "monitoring/monitor_metrics.py",
        "retraining/retrain_metrics.py",
        "status/service_metrics.py",
    ),  # writes metrics; reads those of other programs
    "ray": ("backends/launchers/ray_",),
    "pyarrow": (
        "backends/readers/parquet_reader.py",
        "backends/launchers/ray_tables.py",
        "backends/launchers/ray_launcher.py",
    ),  # files; blocks of Ray Data; storage of Ray Train
    "flwr": ("backends/federated/flower_",),
    "opacus": ("backends/trainers/private_run.py",),
    "sqlalchemy": ("backends/storage/inference_log_", "backends/sweeps/"),
    "optuna": ("backends/sweeps/",),
    "alembic": ("backends/storage/inference_log_",),
    "cryptography": ("access/signatures.py",),
}
"""Any other library is named in one file. These have several, each in a room that was looked at."""
LOADER = "import_optional"
"""The function that imports a library late: its calls are imports, which import-linter does not see."""


def calls_of_loader(tree: ast.AST) -> Iterator[ast.Call]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == LOADER:
            yield node


def imports(tree: ast.AST) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    for call in calls_of_loader(tree):
        found |= {str(word.value).partition(".")[0] for word in call.args[:1] if isinstance(word, ast.Constant)}
    return found


def test_late_imports_are_seen() -> None:
    """The tests below prove nothing where the loader is called something else."""
    assert sum(1 for tree in parse_package().values() for _ in calls_of_loader(tree)) > 150
    assert {"torch", "trl", "sqlalchemy", "starlette"} <= set().union(
        *(imports(tree) for tree in parse_package().values())
    )


def test_imports_go_down_only() -> None:
    done = subprocess.run(
        [str(Path(sys.executable).with_name("lint-imports"))], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-3000:]


def test_each_library_has_one_file_that_names_it() -> None:
    named: dict[str, set[str]] = defaultdict(set)
    for path, tree in parse_package().items():
        for library in imports(tree) - set(sys.stdlib_module_names) - EVERYWHERE - {"tunectl"}:
            named[library].add(path.relative_to(SOURCE).as_posix())
    wrong = {
        library: sorted(files)
        for library, files in named.items()
        if len(files) > 1 and not all(name.startswith(ROOMS.get(library, ())) for name in files)
    }
    assert not wrong, f"libraries named in several files: {wrong}"


def extras(tree: ast.Module) -> set[str]:
    """The extras that the loader is given, as a text or as a constant of the module."""
    constants = {
        ast.unparse(name): node.value
        for node in tree.body
        if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.Constant)
        for name in (node.targets if isinstance(node, ast.Assign) else [node.target])
    }
    told = [word.value for node in calls_of_loader(tree) for word in node.keywords if word.arg == "extra"]
    found = [constants.get(ast.unparse(one), one) for one in told]
    return {str(one.value) for one in found if isinstance(one, ast.Constant)}


def test_every_extra_that_an_error_names_can_be_installed() -> None:
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    wrong = {path.relative_to(SOURCE).as_posix(): extras(tree) - known.keys() for path, tree in parse_package().items()}
    assert not {path: names for path, names in wrong.items() if names}


def test_source_never_names_its_surroundings() -> None:
    for path, tree in parse_package().items():
        assert not imports(tree) & {"tests", "conf", "monitoring", "benchmarks"}, path


def test_files_and_functions_stay_small() -> None:
    sizes = {path: len(path.read_text().splitlines()) for path in FILES}
    functions = [
        ((node.end_lineno or 0) - node.lineno + 1, f"{path.relative_to(ROOT)}:{node.lineno} {node.name}")
        for path, tree in parse_package().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    assert not [f"{path}: {size}" for path, size in sizes.items() if size > 400]
    assert not [where for size, where in functions if size > 60]


def public(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef]:
    """Public functions and classes of a module. Methods may be described by the protocol that they implement."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            yield node


def test_every_public_name_is_documented() -> None:
    shown = [*FILES, *(path for room in ("benchmarks", "examples") for path in sorted((ROOT / room).rglob("*.py")))]
    trees = {path: parse_file(path) for path in shown}
    missing = [str(path) for path, tree in trees.items() if ast.get_docstring(tree) is None]
    missing += [
        f"{path}:{node.lineno} {node.name}"
        for path, tree in trees.items()
        for node in public(tree)
        if not ast.get_docstring(node)
    ]
    assert not missing, missing


def test_nothing_dangerous_is_written() -> None:
    for path in FILES:
        text = path.read_text()
        for word in (
            "import pickle",
            "pickle.load",
            "trust_remote_code=True",
            "shell=True",
            "yaml.load(",
            "weights_only=False",
        ):
            assert word not in text, f"{path} says {word}"
