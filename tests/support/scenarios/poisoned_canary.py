"""A poisoner's key is removed, and what it wrote erased, in the middle of an experiment (fault 35)."""

from __future__ import annotations

import random
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import yaml

from scenarios.fault_result import FaultResult
from tunectl.access import api_keys
from tunectl.access.api_errors import ApiError
from tunectl.access.api_keys import KeyStore
from tunectl.artifacts.records import Feedback, InferenceRecord
from tunectl.backends.storage.inference_log_sql import open_log
from tunectl.canary.canary_store import CanaryRecord, CanaryStore
from tunectl.config.schema.retrain import CanaryConfig
from tunectl.inference_log import erasure, pseudonyms
from tunectl.inference_log.log_store import InferenceLog
from tunectl.registry.release_manifest import BuildFacts
from tunectl.registry.release_store import ReleaseRegistry
from tunectl.retraining import canary_run

CONF = Path(__file__).parents[3] / "conf" / "retrain" / "default.yaml"
HASH_KEY = b"k" * 32
HONEST, POISONER = "shop-app", "stolen"
RATE = 0.3
"""Of honest people who click, whichever variant answers them: nobody wins."""


def removed_key(folder: Path, *, times: int, people: int = 400, invented: int = 400) -> FaultResult:
    """Invent people who favor one variant, with a key that acts for many; remove the key, erase it, and look at the experiment."""
    found = FaultResult(
        35,
        "a poisoner's key removed in mid-experiment",
        "the key opens nothing within a second; after its erasure the experiment reads as if it had never written",
    )
    swayed = 0
    for number in range(times):
        ground = folder / f"{number:03}"
        ground.mkdir(parents=True)
        swayed += _play(found, ground, random.Random(3500 + number), people, invented, favors=number % 2 == 0)
    found.figures |= {"experiments": times, "decided_by_the_poisoner": swayed}
    found.require(swayed == times, f"the poisoner decided {swayed} of {times} experiments: the others say nothing")
    return found


def _play(found: FaultResult, folder: Path, dice: random.Random, people: int, invented: int, *, favors: bool) -> bool:
    store, names = _make_releases(folder)
    began = datetime.now(UTC) - timedelta(days=2)
    wanted = CanaryConfig.model_validate(yaml.safe_load(CONF.read_text())["canary"]).model_copy(
        update={"share": 0.5, "metric": "click", "attribution_hours": 1.0}
    )
    canaries = CanaryStore(store)
    made = canaries.start(
        canary_run.build_canary_record(wanted, names[1], name="one", now=began, author="somebody", message="try")
    )
    keys = folder / "keys.json"
    secrets = {}
    for name in (HONEST, POISONER):
        secrets[name], entry = api_keys.create_key(name, ["chat", "feedback", "acts_for"], None, began)
        api_keys.add(keys, entry)
    key_store = KeyStore(keys, 0.1)
    key_store.load()
    with open_log("sqlite:///inference_log.sqlite", folder) as live:
        _write(live, made, names, HONEST, people, dice, {"champion": RATE, "challenger": RATE})
        honest = _read(made, live)
        rates = {"champion": float(not favors), "challenger": float(favors)}
        _write(live, made, names, POISONER, invented, dice, rates)
        _judge_others(live, POISONER, favors=favors)
        poisoned = canary_run.evaluate_canary(made, live, canaries, datetime.now(UTC))
        api_keys.remove(keys, POISONER)
        began_at = time.monotonic()
        while key_store.opens(secrets[POISONER], "feedback") and time.monotonic() - began_at < 10:
            time.sleep(0.02)
        found.require(time.monotonic() - began_at < 1.5, "the removed key opened something for more than a second")
        found.require(key_store.opens(secrets[HONEST], "feedback"), "the honest key opens nothing any more")
        _refused(found, key_store, secrets[POISONER])
        hashed = pseudonyms.pseudonymize(pseudonyms.key_holder_name(POISONER), HASH_KEY)
        erased = erasure.erase_person(live, folder, hashed, by_key=True, at=datetime.now(UTC))
        found.require(erased.inferences == invented, f"{erased.inferences} of {invented} inferences were erased")
        after = _read(made, live)
        found.require(after.units == honest.units, f"{len(after.units)} units after, {len(honest.units)} before")
        reading = canary_run.evaluate_canary(made, live, canaries, datetime.now(UTC))
        found.require(reading is not None and reading.decision == "running", f"afterwards: {reading}")
        found.require(canaries.running() is not None, "the experiment was ended")
    return poisoned is not None and poisoned.decision == ("promote" if favors else "harm")


def _make_releases(folder: Path) -> tuple[ReleaseRegistry, list[str]]:
    store, names = ReleaseRegistry(folder / "store"), []
    for name in ("champion", "challenger"):
        (folder / name).mkdir()
        (folder / name / "weights").write_text(name)
        names.append(store.add(folder / name, BuildFacts("shop", "transformers", "adapter")).id)
    store.promote(names[0], author="somebody", message="first")
    return store, names


def _read(made: CanaryRecord, live: InferenceLog) -> canary_run.CanaryData:
    return canary_run.collect_observations(made, live, datetime.now(UTC))


def _hash(name: str) -> str:
    return pseudonyms.pseudonymize(name, HASH_KEY)


def _write(
    live: InferenceLog,
    made: CanaryRecord,
    names: list[str],
    key: str,
    count: int,
    dice: random.Random,
    rates: dict[str, float],
) -> None:
    """Traffic of so many people of one key, who click as often as ``rates`` says of the variant that answers them."""
    hashed = _hash(pseudonyms.key_holder_name(key))
    for number in range(count):
        challenger = dice.random() < 0.5
        at = made.started_at + timedelta(seconds=2 * number + (key == POISONER))
        name, variant, person = f"{key}-{number}", ("champion", "challenger")[challenger], _hash(f"{key} {number}")
        live.write(
            [InferenceRecord(
                name, at, variant, names[challenger], "t", {"model": "shop"}, person, finished_at=at, response={},
                finish_reason="stop", latency_seconds=1.0, refusal=False, key_hash=hashed, acts_for=True,
            )]
        )  # fmt: skip
        if dice.random() < rates[variant]:
            live.write(
                [
                    Feedback(
                        f"f-{name}", name, "click", "buy", at, person, key_hash=hashed, acts_for=True, received_at=at
                    )
                ]
            )


def _judge_others(live: InferenceLog, key: str, *, favors: bool) -> None:
    """The poisoner clicks on answers of others, too: those of the variant that it favors."""
    hashed = _hash(pseudonyms.key_holder_name(key))
    for inference in list(live.inferences()):
        if inference.id.startswith(HONEST) and (inference.variant == "challenger") is favors:
            live.write(
                [Feedback(
                    f"p-{inference.id}", inference.id, "click", "buy", inference.accepted_at, _hash("invented"),
                    key_hash=hashed, acts_for=True, received_at=inference.accepted_at,
                )]
            )  # fmt: skip


def _refused(found: FaultResult, key_store: KeyStore, secret: str) -> None:
    try:
        key_store.key(secret, "feedback", time.monotonic())
        found.require(False, "the removed key gives feedback")
    except ApiError as error:
        found.require(error.status == 401, f"refused with {error.status}")
