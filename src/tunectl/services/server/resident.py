"""A release in memory: opened, held against its contract, and proved alive on the very calls that serve requests."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from math import inf
from pathlib import Path

from tunectl.artifacts import io
from tunectl.chat.tokens import Tokenizer
from tunectl.core.errors import ArtifactError, EnvironmentFailure
from tunectl.release import contract as contracts
from tunectl.release import manifest
from tunectl.release.contract import ServingContract
from tunectl.services.server.aside import aside
from tunectl.services.server.switchboard import Feed, Switchboard
from tunectl.serving.engine import Ask, Engine, Pipeline
from tunectl.serving.prompt import Prompts
from tunectl.serving.proof import Limits, Probe, Proof, Walk, allowed, judged

Engines = Callable[[str], Engine]
"""The engine of a name; raises ArtifactError for one that this server does not have."""
ADAPTER = "adapter_model.safetensors"
BASE = "model/model.safetensors"
APART = "apart"
LEFT = 60.0
"""Seconds after which a pipeline that does not close is left to itself; one in a process of its own is killed before."""


@dataclass(slots=True)
class Resident:
    """A release that can answer."""

    id: str
    contract: ServingContract
    prompts: Prompts
    stops: frozenset[int]
    pipeline: Pipeline
    board: Switchboard
    proof: Proof | None
    """None for the base model, which has nothing to prove."""
    created: int
    """Unix seconds."""
    claims: int = field(default=0)
    """Requests that have chosen it and are not over; some of them may still wait for a place."""
    closed: bool = field(default=False)

    async def retire(self, patience: float = inf) -> None:
        """Let whoever chose it finish, then give the memory back; an engine that says nothing for ``patience`` seconds is not waited for."""
        if self.closed:
            return
        self.closed = True
        while (self.board.busy or self.claims) and self.board.silence(time.monotonic()) < patience:
            await asyncio.sleep(0.2)
        await self.close()

    async def close(self) -> None:
        """Give the memory back now; what is under way is cancelled."""
        await closed(self.pipeline)
        self.board.give_up()


async def closed(pipeline: Pipeline) -> None:
    """Give a pipeline's memory back."""
    with suppress(TimeoutError):
        async with asyncio.timeout(LEFT):
            await aside(pipeline.close)


def checked(folder: Path) -> tuple[ServingContract, Prompts]:
    """The contract of a release and how its prompts are made, once every file of it is as the contract says.

    Raises  ArtifactError for the first promise that does not hold.
    """
    wrong = manifest.verify(folder)
    if wrong:
        raise ArtifactError(
            f"release {folder.name} is damaged: {'; '.join(wrong)}", hint="package again: tunectl repro"
        )
    contract = contracts.load(folder)
    _refuse_other_adapter(folder, contract)
    _refuse_other_base(folder, contract)
    prompts = Prompts(contracts.template_of(folder, contract), Tokenizer(folder / contracts.TOKENIZER))
    for number, fixture in enumerate(contract.fixtures):
        text = prompts.template.render(fixture.messages, add_generation_prompt=True)
        if text != fixture.text or prompts.tokenizer.ids(text) != fixture.token_ids:
            what = "tokens" if text == fixture.text else "text"
            raise ArtifactError(
                f"{folder}: fixture {number} of the contract renders to another {what} here than in training"
            )
    return contract, prompts


def _refuse_other_adapter(folder: Path, contract: ServingContract) -> None:
    path = folder / contracts.ADAPTER / ADAPTER
    found = io.digest(path) if path.is_file() else "none"
    if found != contract.adapter_sha256:
        raise ArtifactError(
            f"{path} is not the adapter of the contract: its SHA-256 starts with {found[:12]}, the contract says "
            f"{(contract.adapter_sha256 or 'none')[:12]}"
        )


def _refuse_other_base(folder: Path, contract: ServingContract) -> None:
    """Only where the base lies there as it was trained on; other engines have their own form of it, and the probes tell."""
    found = manifest.load(folder).files.get(BASE)
    if contract.route == APART and found is not None and found != contract.base.sha256:
        raise ArtifactError(
            f"{folder / BASE} is not the base of the contract, {contract.base.source} at revision {contract.base.revision}: "
            f"its SHA-256 starts with {found[:12]}, the contract says {contract.base.sha256[:12]}"
        )


async def opened(folder: Path, engines: Engines, *, base: bool = False, within: float = inf) -> Resident:
    """Check, load and prove a release; ``base`` leaves the adapter out, and then nothing is proved.

    Raises  ArtifactError with the reason for which it must not serve, EnvironmentFailure where it is not checked, loaded and
            proved ``within`` so many seconds; what was loaded is closed again.
    """
    limit = asyncio.timeout(within)
    try:
        async with limit:
            contract, prompts = await aside(partial(checked, folder))
            _refuse_merged(folder, contract, base=base)
            engine, board = engines(contract.engine), Switchboard(asyncio.get_running_loop())
            stops = frozenset(contract.stop_token_ids)
            pipeline = await _loaded(engine, folder, board, adapter=contract.route == APART and not base)
            proof = None if base else await _alive(folder, contract, pipeline, board, stops)
    except TimeoutError as error:
        if not limit.expired():
            raise
        raise EnvironmentFailure(
            f"release {folder.name} was not loaded and proved within {within:g} s",
            hint="the engine's own lines in the log say how far it came; serve.load_seconds is how long it may take",
        ) from error
    created = int((folder / contracts.NAME).stat().st_mtime)
    return Resident(folder.name, contract, prompts, stops, pipeline, board, proof, created)


async def _loaded(engine: Engine, folder: Path, board: Switchboard, *, adapter: bool) -> Pipeline:
    """Open a pipeline. Who is cancelled ends what can be ended, and what opens all the same is closed."""
    try:
        return await aside(partial(engine.open, folder, board.deliver, adapter=adapter), late=lambda one: one.close())
    except asyncio.CancelledError:
        engine.give_up()
        raise


async def _alive(
    folder: Path, contract: ServingContract, pipeline: Pipeline, board: Switchboard, stops: frozenset[int]
) -> Proof:
    """The proof of a pipeline, which is closed where there is none."""
    try:
        proof = await proved(contract, pipeline, board, stops)
        _refuse_dead(folder, proof)
    except BaseException:
        await closed(pipeline)
        raise
    return proof


def _refuse_dead(folder: Path, proof: Proof) -> None:
    if not proof.holds:
        raise ArtifactError(f"release {folder.name}: {proof.reason}")


def _refuse_merged(folder: Path, contract: ServingContract, *, base: bool) -> None:
    if base and contract.route != APART:
        raise ArtifactError(
            f"release {folder.name} holds base and adapter merged, so it cannot answer as the base",
            hint="package with the route apart, or set serve.arms.base=false",
        )


async def proved(
    contract: ServingContract,
    pipeline: Pipeline,
    board: Switchboard,
    stops: frozenset[int],
) -> Proof:
    """Walk the pipeline along every probe, all of them at once as requests would come; gives up once too much differs."""
    limits = Limits(contract.tolerance.agreement, contract.tolerance.logprob)
    probes = [
        Probe(one.token_ids, one.answer_ids, one.logprobs, one.base_ids, one.answer_under_base)
        for one in contract.probes
    ]
    walks = [Walk(probe, stops) for probe in probes]
    bound = allowed(probes, limits)

    async def walk(one: Walk) -> None:
        while not one.over and (one.free is None or sum(each.missed for each in walks) <= bound):
            one.feed(*await _said(pipeline, board, Ask(one.prompt, one.room, 0.0, 1.0, stops)))

    await asyncio.gather(*map(walk, walks))
    return judged(walks, limits)


async def _said(pipeline: Pipeline, board: Switchboard, ask: Ask) -> tuple[list[int], list[float]]:
    feed, ids, logprobs = Feed(1), list[int](), list[float]()
    board.start(pipeline, ask, feed, 0)
    while feed.open:
        for _, piece in await feed.take():
            ids += piece.ids
            logprobs += piece.logprobs
            if piece.end in ("failed", "cancelled"):
                raise ArtifactError(f"the engine failed on a probe: {piece.why or piece.end}")
    return ids, logprobs
