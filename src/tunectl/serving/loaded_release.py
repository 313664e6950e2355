"""A release in memory: loaded, compared with its ``contract.json``, and verified by the same calls that serve requests."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from math import inf
from pathlib import Path

from tunectl.artifacts import atomic_io
from tunectl.chat.tokenizer import Tokenizer
from tunectl.core.errors import ArtifactError, InfrastructureError
from tunectl.generation.engine import Engine, EngineSession, GenerationRequest
from tunectl.generation.prompt import PromptRenderer
from tunectl.packaging import serving_contract as contracts
from tunectl.packaging.adapter_check import (
    Probe,
    ProbeLimits,
    ProbeReport,
    ProbeRun,
    count_allowed_mismatches,
    evaluate_probes,
)
from tunectl.packaging.serving_contract import ServingContract
from tunectl.registry import release_manifest
from tunectl.serving.background_threads import run_in_thread
from tunectl.serving.stream_router import StreamRouter, TokenStream

Engines = Callable[[str], Engine]
"""Returns the engine of a name; raises ArtifactError for one that this server does not have."""
PACKAGE_AGAIN = "package it again: tunectl repro; if the store is shared, check who may write there"
ADAPTER = "adapter_model.safetensors"
BASE = "model/model.safetensors"
APART = "adapter"
CLOSE_SECONDS = 60.0
"""Seconds after which a session that does not close is abandoned; one in a separate process is killed before."""


@dataclass(slots=True)
class LoadedRelease:
    """A verified release in an engine session, owned by ``ModelManager``.

    ``contract``: what packaging recorded (digests of adapter and base, rendered test conversations, probes); files, rendering and
    probes were compared with it at loading.
    """

    id: str
    contract: ServingContract
    prompts: PromptRenderer
    stops: frozenset[int]
    engine_session: EngineSession
    router: StreamRouter
    proof: ProbeReport | None
    """None for the base model, which has no adapter to prove."""
    created: int
    """Unix seconds."""
    claims: int = field(default=0)
    """Number of requests that have chosen it and are not finished; some of them may still be queued."""
    closed: bool = field(default=False)

    async def retire(self, silence_seconds: float = inf) -> None:
        """Wait until the requests of this release have finished, then release its memory; stop waiting after ``silence_seconds`` seconds without output."""
        if self.closed:
            return
        self.closed = True
        while (self.router.busy or self.claims) and self.router.idle_seconds(time.monotonic()) < silence_seconds:
            await asyncio.sleep(0.2)
        await self.close()

    async def close(self) -> None:
        """Release the memory at once; running answers are cancelled."""
        await close_session(self.engine_session)
        self.router.give_up()


async def close_session(engine_session: EngineSession) -> None:
    """Close an engine session in a thread, which releases its memory."""
    with suppress(TimeoutError):
        async with asyncio.timeout(CLOSE_SECONDS):
            await run_in_thread(engine_session.close)


def verify_release(folder: Path) -> tuple[ServingContract, PromptRenderer]:
    """Check a release without loading it; return its contract (``contract.json``) and the prompt renderer.

    Checked are the digests of all files, adapter and base against the contract, and how its test conversations are rendered.
    Raises  ArtifactError for the first check that fails.
    """
    wrong = release_manifest.verify(folder)
    if wrong:
        raise ArtifactError(
            f"release {folder.name} is damaged: {'; '.join(wrong)}", hint="package again: tunectl repro"
        )
    contract = contracts.load(folder)
    _refuse_other_adapter(folder, contract)
    _refuse_other_base(folder, contract)
    prompts = PromptRenderer(contracts.template_of(folder, contract), Tokenizer(folder / contracts.TOKENIZER))
    for number, fixture in enumerate(contract.fixtures):
        text = prompts.template.render(fixture.messages, add_generation_prompt=True)
        if text != fixture.text or prompts.tokenizer.ids(text) != fixture.token_ids:
            what = "tokens" if text == fixture.text else "text"
            raise ArtifactError(
                f"{folder}: test conversation {number} of contract.json gives another {what} here than in training",
                hint="use the tunectl version that made the release, or package again: tunectl repro",
            )
    return contract, prompts


def _refuse_other_adapter(folder: Path, contract: ServingContract) -> None:
    path = folder / contracts.ADAPTER / ADAPTER
    result = atomic_io.sha256_path(path) if path.is_file() else "none"
    if result != contract.adapter_sha256:
        raise ArtifactError(
            f"{path} differs from the adapter that contract.json names: its SHA-256 starts with {result[:12]}, expected "
            f"{(contract.adapter_sha256 or 'none')[:12]}",
            hint=PACKAGE_AGAIN,
        )


def _refuse_other_base(folder: Path, contract: ServingContract) -> None:
    """Check the base weights where they are in their original form; other engines convert them, and the probes verify those."""
    result = release_manifest.load(folder).files.get(BASE)
    if contract.layout == APART and result is not None and result != contract.base.sha256:
        raise ArtifactError(
            f"{folder / BASE} differs from the base that contract.json names, {contract.base.source} at revision {contract.base.revision}: "
            f"its SHA-256 starts with {result[:12]}, expected {contract.base.sha256[:12]}",
            hint=PACKAGE_AGAIN,
        )


async def load_release(
    folder: Path, engines: Engines, *, base: bool = False, load_timeout_seconds: float = inf
) -> LoadedRelease:
    """Check the release in ``folder``, load it, and run its probes: prompts whose stored answers the engine must give again.

    ``engines`` returns the engine of a name; ``base`` leaves out adapter and probes; ``load_timeout_seconds``: time limit in seconds.
    Raises  ArtifactError with the reason for which it must not serve, InfrastructureError where it is not checked, loaded and
            verified within ``load_timeout_seconds`` seconds; what was loaded is closed again.
    """
    limit = asyncio.timeout(load_timeout_seconds)
    try:
        async with limit:
            contract, prompts = await run_in_thread(partial(verify_release, folder))
            _refuse_merged(folder, contract, base=base)
            engine, router = engines(contract.engine), StreamRouter(asyncio.get_running_loop())
            stops = frozenset(contract.stop_token_ids)
            engine_session = await _open_session(engine, folder, router, adapter=contract.layout == APART and not base)
            proof = None if base else await _alive(folder, contract, engine_session, router, stops)
    except TimeoutError as error:
        if not limit.expired():
            raise
        raise InfrastructureError(
            f"release {folder.name} was not loaded and probed within {load_timeout_seconds:g} s",
            hint="look at the engine's own lines in the log, and raise serve.load_timeout_seconds if it only needs more time",
        ) from error
    created = int((folder / contracts.NAME).stat().st_mtime)
    return LoadedRelease(folder.name, contract, prompts, stops, engine_session, router, proof, created)


async def _open_session(engine: Engine, folder: Path, router: StreamRouter, *, adapter: bool) -> EngineSession:
    """Open a session. A cancelled caller ends the opening where possible; a session that opens all the same is closed."""
    try:
        return await run_in_thread(
            partial(engine.open, folder, router.deliver, adapter=adapter), on_late=lambda item: item.close()
        )
    except asyncio.CancelledError:
        engine.cancel_open()
        raise


async def _alive(
    folder: Path, contract: ServingContract, engine_session: EngineSession, router: StreamRouter, stops: frozenset[int]
) -> ProbeReport:
    """Return the proof of a session, which is closed where it fails."""
    try:
        proof = await run_probes(contract, engine_session, router, stops)
        _refuse_dead(folder, proof)
    except BaseException:
        await close_session(engine_session)
        raise
    return proof


def _refuse_dead(folder: Path, proof: ProbeReport) -> None:
    if not proof.holds:
        raise ArtifactError(f"release {folder.name}: {proof.reason}", hint=PACKAGE_AGAIN)


def _refuse_merged(folder: Path, contract: ServingContract, *, base: bool) -> None:
    if base and contract.layout != APART:
        raise ArtifactError(
            f"release {folder.name} holds base and adapter merged into one model, so serve.variants.base cannot serve the base alone",
            hint="package with package.layout=adapter, or set serve.variants.base=false",
        )


async def run_probes(
    contract: ServingContract,
    engine_session: EngineSession,
    router: StreamRouter,
    stops: frozenset[int],
) -> ProbeReport:
    """Generate the answers of all probes at once with the session, compare them with the contract, and return the result.

    It stops once more tokens differ than the contract tolerates.
    """
    limits = ProbeLimits(contract.tolerance.min_token_agreement, contract.tolerance.max_logprob_diff)
    probes = [
        Probe(probe.token_ids, probe.answer_ids, probe.logprobs, probe.base_ids, probe.answer_under_base)
        for probe in contract.probes
    ]
    walks = [ProbeRun(probe, stops) for probe in probes]
    bound = count_allowed_mismatches(probes, limits)

    async def walk(probe_run: ProbeRun) -> None:
        while not probe_run.over and (probe_run.free is None or sum(each.missed for each in walks) <= bound):
            probe_run.feed(
                *await _generate_tokens(
                    engine_session, router, GenerationRequest(probe_run.prompt, probe_run.room, 0.0, 1.0, stops)
                )
            )

    await asyncio.gather(*map(walk, walks))
    return evaluate_probes(walks, limits)


async def _generate_tokens(
    engine_session: EngineSession, router: StreamRouter, request: GenerationRequest
) -> tuple[list[int], list[float]]:
    token_stream, ids, logprobs = TokenStream(1), list[int](), list[float]()
    router.start(engine_session, request, token_stream, 0)
    while token_stream.open:
        for _, piece in await token_stream.take():
            ids += piece.ids
            logprobs += piece.logprobs
            if piece.end in ("refused", "failed", "cancelled"):
                raise ArtifactError(
                    f"the engine failed on a probe of the release: {piece.why or piece.end}",
                    hint="look at the engine's own lines in the log, then package the release again: tunectl repro",
                )
    return ids, logprobs
