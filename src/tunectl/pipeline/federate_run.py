"""Federated training of the project's sft adapter: prepare files, start Flower's processes, and write the result where sft reads it.

tunectl -> Flower's server or client (separate environment) -> local trainings (tunectl's environment)
"""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from tunectl.artifacts import atomic_io, lock, manifest
from tunectl.artifacts.paths import ProjectPaths
from tunectl.artifacts.records import Example
from tunectl.artifacts.row_counts import RowCounter
from tunectl.backends.export import exporter_env
from tunectl.backends.federated import local_fit
from tunectl.backends.modeling import peft_adapter
from tunectl.backends.system.child_group import ChildGroup
from tunectl.backends.trainers.adopted_adapter import RECORD
from tunectl.chat import model_spec
from tunectl.config.loading import checks
from tunectl.config.schema.base import is_loopback
from tunectl.config.schema.root import TunectlConfig
from tunectl.core.errors import DataError, InfrastructureError, UsageError
from tunectl.core.optional import require_all
from tunectl.federated import exchange
from tunectl.federated.exchange import ClientTask, FederatedRound, ServerTask
from tunectl.pipeline import federate_rows, runner
from tunectl.pipeline.required_extras import list_required_packages
from tunectl.training import fit_request, train_args
from tunectl.training.fit_request import FitJob
from tunectl.training.prefix_sharing import PackedRow

Tell = Callable[[str], None]
FLOWER = ("-m", "tunectl.backends.federated")
QUIET = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1", "GRPC_VERBOSITY": "ERROR"}
TOKEN_BYTES = 16
"""Shortest token in bytes: a shorter one could be guessed."""
FEW = 8
"""Rows on which a local training validates: its last weights are used in any case."""


class FederationRecord(msgspec.Struct, frozen=True):
    """``federated.json`` beside the adapter: rounds, clients and settings."""

    name: str
    average: str
    weighting: str
    local_steps: int
    rounds: list[FederatedRound]


@dataclass(frozen=True, slots=True)
class Federation:
    """The federated training that this project serves, joins or simulates: its settings and the base model."""

    layout: ProjectPaths
    root: TunectlConfig
    base: Path
    """Folder of the base weights of the adapter."""

    @property
    def folder(self) -> Path:
        """Absolute path of the folder with the federation's tasks, rounds and logs."""
        return (self.layout.state_dir / "federate" / self.root.federate.name).absolute()


def open_federation(layout: ProjectPaths, overrides: Sequence[str]) -> Federation:
    """Return the federation that ``conf/`` and ``overrides`` declare, after checking settings, packages and base model.

    Raises  ConfigError with every mistake; UsageError for settings that a federation does not support; ArtifactError where the model is not built.
    """
    root = checks.load_project_config(layout, overrides).root
    for name, value in (("privacy", root.sft.privacy), ("adapter", root.sft.adapter)):
        if value is not None:
            raise UsageError(
                f"sft.{name} is set, and a federation supports only null there", hint=f"set sft.{name}=null"
            )
    require_all(list_required_packages(root, ["sft"]))
    for stage in ("model", "cpt"):
        runner.load_input_artifact(layout, stage)
    cpt = layout.artifact("cpt")
    base = layout.artifact("model") if (cpt / manifest.PASSED_THROUGH).is_file() else cpt
    return Federation(layout, root, base.absolute())


def serve(federation: Federation, tell: Tell) -> Path:
    """Run the server until its rounds are done, resuming an interrupted run; return the adapter's folder. ``tell`` gets progress lines.

    Raises  UsageError without a token where other machines connect; InfrastructureError with the reason where it gives up.
    """
    settings = federation.root.federate
    check_token(settings.token_env, settings.host)
    with lock.file_lock(federation.folder / "server.lock", f"the server of {settings.name}"):
        prepare_server(federation)
        with _group(federation.folder, tell) as group:
            group.start("server", _build_flower_command("flower_server", federation.folder))
            _raise_failure(federation.folder, "server", group.wait("server"))
        return finish(federation)


def join(federation: Federation, name: str, tell: Tell) -> None:
    """Run a client called ``name`` on this project's training rows until the server has no more rounds. ``tell`` gets progress lines.

    Raises  UsageError without a token; DataError without rows, or where too many of them are refused; InfrastructureError with the reason where the server is lost.
    """
    settings = federation.root.federate
    check_token(settings.token_env, settings.server_address.rpartition(":")[0])
    runner.load_input_artifact(federation.layout, "split")
    folder = federation.folder / f"client-{name}"
    with lock.file_lock(folder.with_name(f"{folder.name}.lock"), f"the client {name}"):
        examples = federate_rows.read_examples(federation.layout)
        tell(prepare_client(federation, folder, name, examples, settings.server_address))
        _run_local(["init", str(folder)], "making the adapter's settings")
        with _group(folder, tell) as group:
            group.start(name, _build_flower_command("flower_client", folder))
            _raise_failure(folder, name, group.wait(name))


def simulate(federation: Federation, tell: Tell) -> Path:
    """Run a server and its clients on this machine, each with a share of the training inputs; return the folder of the adapter.

    A client that ends early is left out of the rounds that follow.
    Raises  DataError where a client would get no rows, or too many of them are refused; InfrastructureError with the reason where the server gives up.
    """
    settings = federation.root.federate
    runner.load_input_artifact(federation.layout, "split")
    parts = federate_rows.partition(
        federate_rows.read_examples(federation.layout), settings.simulate.shares, federation.root.seed
    )
    if settings.min_clients > len(parts):
        raise UsageError(
            f"federate.min_clients is {settings.min_clients}, and federate.simulate.shares has {len(parts)} clients",
            hint=f"set federate.min_clients={len(parts)} at most",
        )
    with lock.file_lock(federation.folder / "server.lock", f"the server of {settings.name}"):
        prepare_server(federation, expected_clients=len(parts))
        run_simulation(federation, parts, tell)
        return finish(federation)


def run_simulation(federation: Federation, parts: Sequence[tuple[list[Example], list[Example]]], tell: Tell) -> None:
    """Run the prepared server, and one client per (train, validation) pair of ``parts``, until all rounds are done.

    Raises  DataError where a client has no rows, or too many of them are refused; InfrastructureError with the reason where the server gives up.
    """
    root, count = federation.folder, federation.root.federate.simulate.max_concurrent_fits
    task: ServerTask = atomic_io.read_json(root / exchange.SERVER, ServerTask)
    locks = [str(root / f"fit-{number}.lock") for number in range(count)]
    folders = [root / f"client-{number}" for number in range(1, len(parts) + 1)]
    for folder, part in zip(folders, parts, strict=True):
        tell(prepare_client(federation, folder, folder.name, part, f"{task.host}:{task.port}", locks))
        shutil.rmtree(folder / local_fit.ADAPTER, ignore_errors=True)
        shutil.copytree(root / local_fit.ADAPTER, folder / local_fit.ADAPTER)
    with _group(root, tell) as group:
        group.start("server", _build_flower_command("flower_server", root))
        for folder in folders:
            group.start(folder.name, _build_flower_command("flower_client", folder))
        _raise_failure(root, "server", group.wait("server"))


def prepare_server(federation: Federation, *, expected_clients: int = 0) -> None:
    """Write the server's task and the first adapter; keep existing rounds of the same settings. ``expected_clients`` 0: not known.

    Raises  UsageError where the folder holds rounds of other settings.
    """
    folder, settings = federation.folder, federation.root.federate
    folder.mkdir(parents=True, exist_ok=True)
    task = ServerTask(
        host=settings.host,
        port=settings.port or _free_port(settings.host),
        rounds=settings.rounds,
        fraction_train=settings.fraction_train,
        min_clients=settings.min_clients,
        expected_clients=expected_clients,
        weighting=settings.weighting,
        average=settings.average,
        seed=federation.root.seed,
        round_timeout_seconds=settings.round_timeout_seconds,
        wait_timeout_seconds=settings.wait_timeout_seconds,
        token_env=settings.token_env,
        certificates=_certificates(federation),
        base=_base_digest(federation),
    )
    key = _digest(federation, task)
    if (folder / "key").is_file() and (folder / "key").read_text() != key and exchange.read_rounds(folder):
        raise UsageError(
            f"{folder} holds rounds of a federation with other settings",
            hint=f"give this one another name: federate.name={settings.name}_2, or delete that folder",
        )
    (folder / exchange.FAILURE).unlink(missing_ok=True)
    atomic_io.write_json(folder / exchange.SERVER, task)
    if not (folder / exchange.START).is_file() or not exchange.read_rounds(folder):
        _write_request(federation, folder, [], [])
        _run_local(["init", str(folder)], "making the first adapter")
    atomic_io.write_text(folder / "key", key)


def prepare_client(
    federation: Federation,
    folder: Path,
    name: str,
    examples: tuple[list[Example], list[Example]],
    address: str,
    locks: Sequence[str] = (),
) -> str:
    """Write the client's task and training rows into ``folder``; return the counts of its rows as a sentence.

    ``address``: HOST:PORT of the server; ``locks``: files that limit concurrent trainings.
    Raises  DataError where it has no rows to train on, or too many of them are refused.
    """
    settings = federation.root.federate
    tally = RowCounter(f"federate: {name}")
    train = federate_rows.pack_examples(examples[0], federation.base, federation.root.sft, tally)
    validation = federate_rows.pack_examples(examples[1], federation.base, federation.root.sft, RowCounter("federate"))
    folder.mkdir(parents=True, exist_ok=True)
    counts = federate_rows.save_counts(tally, folder, federation.root.sft.max_rejected_share) if tally.rows_in else ""
    if not train or not validation:
        raise DataError(
            f"federate: {name} has {len(train)} rows to learn from and {len(validation)} to validate on; each needs 1 at least",
            hint="add data, or raise the share in split.shares",
        )
    (folder / exchange.FAILURE).unlink(missing_ok=True)
    _write_request(federation, folder, train, validation[:FEW])
    task = ClientTask(
        name=name,
        server_address=address,
        ca_file=str(Path(settings.ca_file).absolute()) if settings.ca_file else None,
        token_env=settings.token_env,
        wait_timeout_seconds=settings.wait_timeout_seconds,
        fit=[sys.executable, "-m", local_fit.__name__, "fit", str(folder)],
        locks=list(locks),
        local_steps=settings.local_steps,
        base=_base_digest(federation),
    )
    atomic_io.write_json(folder / exchange.CLIENT, task)
    return counts


def finish(federation: Federation) -> Path:
    """Write the adapter of the last round and ``federated.json``; return the adapter's folder."""
    folder, settings = federation.folder, federation.root.federate
    rounds = exchange.read_rounds(folder)
    weights = exchange.read_weights(exchange.round_file(folder, len(rounds)))
    out = folder / "result"
    peft_adapter.write_adapter(out, weights, folder / local_fit.ADAPTER)
    record = FederationRecord(settings.name, settings.average, settings.weighting, settings.local_steps, rounds)
    atomic_io.write_json(out / RECORD, record)
    return out


def check_token(variable: str, host: str, environment: Mapping[str, str] = os.environ) -> None:
    """Check that the environment variable ``variable`` holds a secret that is long enough, unless ``host`` is loopback.

    Raises  UsageError where it is absent or too short.
    """
    token = environment.get(variable, "")
    if not is_loopback(host) and len(token) < TOKEN_BYTES:
        raise UsageError(
            f"{variable} holds {len(token)} characters; server and clients on several machines need the same secret of at least {TOKEN_BYTES}",
            hint=f"export {variable}=$(openssl rand -hex 32) on the server, and the same value on every client",
        )


def _certificates(federation: Federation) -> tuple[str, str, str] | None:
    tls = federation.root.federate.tls
    if tls is None:
        return None
    files = {"ca_file": tls.ca_file, "certificate_file": tls.certificate_file, "key_file": tls.key_file}
    paths = {name: Path(file).absolute() for name, file in files.items()}
    for name, path in paths.items():
        if not path.is_file():
            text = f"federate.tls.{name}: {path} does not exist"
            raise UsageError(text, hint="make it as docs/guides/federated.md shows")
    return str(paths["ca_file"]), str(paths["certificate_file"]), str(paths["key_file"])


def _plan(federation: Federation) -> train_args.TrainingArgs:
    root = federation.root
    plan = train_args.from_sft_config(root.sft, seed=root.seed, profile=root.hardware, project=root.project)
    # each round sets ``epochs``: how many passes the local steps are depends on the rows of each client
    return replace(
        plan,
        epochs=1.0,
        warmup_ratio=0.0,
        evals_per_epoch=1,
        patience=None,
        keep_last=True,
    )


def _digest(federation: Federation, task: ServerTask) -> str:
    plan = fit_request.encode_plan(_plan(federation)) | {
        "profile": None,
        "local_steps": federation.root.federate.local_steps,
    }
    same = {name: getattr(task, name) for name in ("weighting", "average", "seed", "fraction_train")}
    return hashlib.sha256(msgspec.json.encode([plan, same, task.base], order="deterministic")).hexdigest()


def _base_digest(federation: Federation) -> str:
    spec = model_spec.load(federation.base)
    return hashlib.sha256(f"{spec.weights_sha256}:{spec.template_sha256}".encode()).hexdigest()


def _write_request(federation: Federation, folder: Path, train: list[PackedRow], validation: list[PackedRow]) -> None:
    job = FitJob("sft", _plan(federation), federation.base, None, train, validation, folder, folder)
    fit_request.write_rows(folder, train, validation)
    request = fit_request.build_request(job, folder, sharded=False, collective_timeout_seconds=0)
    atomic_io.write_json(folder / fit_request.REQUEST, request)


def _build_flower_command(module: str, folder: Path) -> list[str]:
    python = exporter_env.ensure_interpreter(tool=exporter_env.FLOWER)
    settings = [f"{name}={value}" for name, value in QUIET.items()]
    source = f"PYTHONPATH={exporter_env.PACKAGE.parent}"
    return ["env", *settings, source, str(python), FLOWER[0], f"{FLOWER[1]}.{module}", str(folder)]


def _group(folder: Path, tell: Tell) -> ChildGroup:
    return ChildGroup(Path.cwd(), folder / "log.txt", tell)


def _run_local(arguments: Sequence[str], description: str) -> None:
    process = subprocess.run(
        [sys.executable, "-m", local_fit.__name__, *arguments], capture_output=True, text=True, check=False
    )
    if process.returncode:
        raise InfrastructureError(
            f"{description} failed: {exporter_env.error_line(process.stderr) or f'exit code {process.returncode}'}",
            hint="tunectl repro --to sft shows whether a training without federation works",
        )


def _free_port(host: str) -> int:
    with socket.create_server((host, 0)) as listener:
        return int(listener.getsockname()[1])


def _raise_failure(folder: Path, name: str, code: int) -> None:
    if not code:
        return
    message = f"exit code {code}"
    if (folder / exchange.FAILURE).is_file():
        failure: Any = atomic_io.read_json(folder / exchange.FAILURE, exchange.FlowerFailure)
        message = failure.message
    raise InfrastructureError(
        f"federate: {name} gave up: {message}",
        hint=f"{folder / 'log.txt'} has more; the same command goes on with the round after the last one that ended",
    )
