"""A person's experiment from the command line to its end: real store, real SQLite, the test that may be looked at always."""

from __future__ import annotations

import json
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import retrain_project
import yaml
from msgspec.structs import replace

from tunectl.access import signatures
from tunectl.access.signatures import TrustedKey, TrustStore
from tunectl.artifacts import atomic_io, manifest
from tunectl.artifacts.manifest import Manifest
from tunectl.artifacts.paths import ProjectPaths
from tunectl.artifacts.records import Example, Feedback, InferenceRecord, Message, ReferenceAnswer, Source
from tunectl.backends.storage import inference_log_sql
from tunectl.canary.canary_store import CanaryStore
from tunectl.cli.main import main
from tunectl.config.loading import checks
from tunectl.config.loading.override_parsing import Override
from tunectl.config.schema.retrain import CanaryConfig
from tunectl.core.errors import ArtifactError, GateError
from tunectl.registry import release_statement
from tunectl.registry.release_manifest import BuildFacts, Lineage
from tunectl.registry.release_store import ReleaseRegistry
from tunectl.retraining import canary_run, controller_process
from tunectl.retraining.retrain_metrics import RetrainMetrics
from tunectl.retraining.workspace import RetrainWorkspace

ROOT = Path(__file__).parents[2]
CANARY = CanaryConfig.model_validate(yaml.safe_load((ROOT / "conf/retrain/default.yaml").read_text())["canary"])


def _traffic(store, began: datetime, releases: tuple[str, str], rates: tuple[float, float], people: int) -> None:
    dice = random.Random(7)
    for number in range(people):
        challenger = dice.random() < 0.5
        at = began + timedelta(seconds=number)
        name, variant = f"chatcmpl-{began:%H%M%S}{number}", "challenger" if challenger else "champion"
        store.write(
            [InferenceRecord(
                name, at, variant, releases[challenger], "t", {"model": "shop"}, f"{began:%S}u{number}",
                finished_at=at, response={}, finish_reason="stop", latency_seconds=1.0, refusal=False,
            )]
        )  # fmt: skip
        if dice.random() < rates[challenger]:
            store.write([Feedback(f"f{name}", name, "click", "buy", at)])


def _stored(tmp_path: Path, releases: int) -> tuple[ReleaseRegistry, list[str]]:
    store, names = ReleaseRegistry(tmp_path / "store"), []
    for number in range(releases):
        folder = tmp_path / f"r{number}"
        folder.mkdir()
        (folder / "weights").write_text(str(number))
        names.append(store.add(folder, BuildFacts("shop", "transformers", "adapter")).id)
    store.promote(names[0], author="test", message="first")
    return store, names


def test_variants_that_are_no_longer_what_was_declared_end_it(tmp_path: Path) -> None:
    store, names = _stored(tmp_path, 3)
    canaries, now = CanaryStore(store), datetime.now(UTC)
    with inference_log_sql.open_log("sqlite:///inference_log.sqlite", tmp_path) as live:

        def looked(began: datetime, name: str):
            made = canaries.start(
                canary_run.build_canary_record(CANARY, names[1], name=name, now=began, author="Ann", message="try")
            )
            found = canary_run.evaluate_canary(made, live, canaries, now)
            return made, (found.decision, found.reason)

        ahead, (decision, words) = looked(now + timedelta(days=400), "clock")
        assert decision == "unfair"
        assert words.endswith("by a clock that was wrong")
        canaries.end(ahead, "unfair", now, None)
        made, found = looked(now, "one")
        assert found[0] == "running"
        store.promote(names[2], author="Bo", message="a repair")
        found = canary_run.evaluate_canary(made, live, canaries, now)
        assert (found.decision, found.reason) == (
            "unfair",
            f"the champion is {names[2]} now; {names[0]} was when it began",
        )
        store.promote(names[1], author="Bo", message="I like it")
        found = canary_run.evaluate_canary(made, live, canaries, now)
        assert (found.decision, found.reason) == ("promote", "Bo has made it the champion: I like it")
        canaries.end(made, "running", now, None)
        assert canary_run.evaluate_canary(made, live, canaries, now) is None, "somebody ended it meanwhile"


@pytest.mark.parametrize(("rates", "decision"), [((0.2, 0.5), "promote"), ((0.5, 0.2), "harm")])
def test_an_experiment_reads_live_traffic(tmp_path: Path, rates: tuple[float, float], decision: str) -> None:
    store, names = _stored(tmp_path, 2)
    began = datetime.now(UTC) - timedelta(days=2)
    wanted = CANARY.model_copy(update={"share": 0.5, "metric": "click", "attribution_hours": 1.0})
    made = canary_run.build_canary_record(wanted, names[1], name="one", now=began, author="Ann", message="try")
    canaries = CanaryStore(store)
    made = canaries.start(made)
    with inference_log_sql.open_log("sqlite:///inference_log.sqlite", tmp_path) as live:
        _traffic(live, began, (names[0], names[1]), rates, 500)
        reading = canary_run.evaluate_canary(made, live, canaries, datetime.now(UTC))
    assert reading.decision == decision
    text = RetrainMetrics(0.0).text([], [], store.champion(), canaries.running()).decode()
    assert f'tunectl_champion_info{{release="{names[0]}"}} 1.0' in text
    assert "tunectl_experiment_running 1.0" in text
    assert 'tunectl_experiment_units{variant="challenger"}' in text
    assert "NaN" not in text


class _Slow(ReleaseRegistry):
    """Hashing a release takes as long as a person needs to do something."""

    def may_serve(self, release: str, **more: object) -> None:
        super().may_serve(release, **more)
        if (then := self.__dict__.pop("then", None)) is not None:
            then(ReleaseRegistry(self.root))


@pytest.mark.parametrize(
    ("act", "decision", "champion"),
    [
        (lambda store, names: store.promote(names[2], author="Ann", message="urgent"), "unfair", 2),
        (lambda store, _: store.rollback(author="Ann", message="urgent"), "unfair", 3),
        (lambda store, names: store.promote(names[1], author="Ann", message="I like it"), "promote", 1),
        (lambda _, __: None, "promote", 1),
    ],
    ids=["another", "back", "the same", "nobody"],
)
def test_what_a_person_swaps_between_look_and_promotion_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, act, decision: str, champion: int
) -> None:
    plain, names = _stored(tmp_path, 4)
    plain.promote(names[3], author="test", message="below")
    plain.promote(names[0], author="test", message="the champion")
    monkeypatch.chdir(ROOT)
    root = checks.load_config(ProjectPaths(), [Override.from_cli("retrain.port=0")]).root
    layout, store = ProjectPaths(tmp_path), _Slow(plain.root)
    began = datetime.now(UTC) - timedelta(days=2)
    wanted = CANARY.model_copy(update={"share": 0.5, "metric": "click", "attribution_hours": 1.0})
    made = replace(
        canary_run.build_canary_record(wanted, names[1], name="one", now=began, author="Ann", message="try"), run=None
    )
    made = CanaryStore(store).start(made)
    watcher = controller_process.RetrainerProcess(RetrainWorkspace(layout), store, layout, root, "")
    with watcher._open_log() as live:
        _traffic(live, began, (names[0], names[1]), (0.2, 0.5), 500)
    store.then = lambda quick: act(quick, names)
    watcher._advance_canaries(datetime.now(UTC))
    watcher._api.close()
    assert store.champion().release == names[champion]
    assert store.champion().author == ("Ann" if act.__code__.co_names else "tunectl retrain controller")
    (ended,) = CanaryStore(store).all()
    assert (ended.decision, store.canary()) == (decision, None)


@pytest.mark.parametrize("signed_again", [True, False])
def test_a_key_that_is_revoked_between_canary_and_promotion_promotes_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, signed_again: bool
) -> None:
    store, names = _stored(tmp_path, 2)
    path = tmp_path / "trusted.json"
    for name, role in (("ci", "release"), ("new", "release"), ("loop", "pointer")):
        key = signatures.generate_key(tmp_path / f"{name}.key")
        signatures.add_trusted_key(path, TrustedKey(name, role, key.public_key, datetime.now(UTC)))
    monkeypatch.setenv(signatures.POINTER_KEY_ENV, str(tmp_path / "loop.key"))
    for release in names:
        release_statement.sign_release(store.folder(release), signatures.load_key(tmp_path / "ci.key"))
    store.trust = TrustStore(path)
    store.promote(names[0], author="test", message="the champion")
    monkeypatch.chdir(ROOT)
    root = checks.load_config(ProjectPaths(), [Override.from_cli("retrain.port=0")]).root
    layout, began = ProjectPaths(tmp_path), datetime.now(UTC) - timedelta(days=2)
    settings = CANARY.model_copy(update={"share": 0.5, "metric": "click", "attribution_hours": 1.0})
    experiment = canary_run.build_canary_record(settings, names[1], name="one", now=began, author="Ann", message="try")
    experiment = CanaryStore(store).start(replace(experiment, run=None))
    controller = controller_process.RetrainerProcess(RetrainWorkspace(layout), store, layout, root, "")
    with controller._open_log() as live:
        _traffic(live, began, (names[0], names[1]), (0.2, 0.5), 500)
    signatures.revoke_trusted_key(path, "ci")
    with pytest.raises(GateError, match=f"release {names[1]}: signed by ci, whose key was revoked"):
        controller._advance_canaries(datetime.now(UTC))
    assert (store.champion().release, store.canary().release) == (names[0], names[1]), "what serves goes on"
    if signed_again:
        release_statement.sign_release(store.folder(names[1]), signatures.load_key(tmp_path / "new.key"))
        controller._advance_canaries(datetime.now(UTC))
        assert store.champion().release == names[1]
    else:
        controller._advance_canaries(experiment.until + timedelta(seconds=1))
        assert (store.champion().release, store.canary()) == (names[0], None)
        (ended,) = CanaryStore(store).all()
        assert ended.decision == "running"
        assert "whose key was revoked" in store.log()[-1].message
    controller._api.close()


def test_a_challenger_that_is_damaged_is_not_promoted_and_its_canary_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, names = _stored(tmp_path, 2)
    monkeypatch.chdir(ROOT)
    root = checks.load_config(ProjectPaths(), [Override.from_cli("retrain.port=0")]).root
    layout, began = ProjectPaths(tmp_path), datetime.now(UTC) - timedelta(days=2)
    settings = CANARY.model_copy(update={"share": 0.5, "metric": "click", "attribution_hours": 1.0})
    experiment = canary_run.build_canary_record(settings, names[1], name="one", now=began, author="Ann", message="try")
    experiment = CanaryStore(store).start(replace(experiment, run=None))
    controller = controller_process.RetrainerProcess(RetrainWorkspace(layout), store, layout, root, "")
    with controller._open_log() as live:
        _traffic(live, began, (names[0], names[1]), (0.2, 0.5), 500)
    weights = store.folder(names[1]) / "weights"
    weights.chmod(0o644)
    weights.write_text("other")
    with pytest.raises(ArtifactError, match=names[1]):
        controller._advance_canaries(datetime.now(UTC))
    assert (store.champion().release, store.canary().release) == (names[0], names[1]), "there is time to mend it"
    controller._advance_canaries(experiment.until + timedelta(seconds=1))
    controller._api.close()
    assert (store.champion().release, store.canary()) == (names[0], None)
    (ended,) = CanaryStore(store).all()
    assert ended.decision == "running"
    assert names[1] in store.log()[-1].message


def test_who_came_before_the_challenger_was_loaded_is_in_neither_variant(tmp_path: Path) -> None:
    began = datetime(2026, 5, 1, tzinfo=UTC)
    wanted = CANARY.model_copy(update={"share": 0.5, "attribution_hours": 0.01})
    found = canary_run.build_canary_record(wanted, "r1", name="one", now=began, author="Ann", message="try")
    with inference_log_sql.open_log("sqlite:///inference_log.sqlite", tmp_path) as live:
        for number in range(60):
            variant, release = ("challenger", "r1") if number >= 40 and number % 2 == 0 else ("champion", "r0")
            at = began + timedelta(seconds=number)
            live.write(
                [
                    InferenceRecord(
                        f"c{number}", at, variant, release, "t", {"model": "shop"}, f"u{number}", finished_at=at
                    )
                ]
            )
        units = canary_run.collect_observations(found, live, began + timedelta(minutes=5)).units
        assert len(units) == 20
        assert sum(unit.challenger for unit in units) == 10
        other = replace(found, challenger="r2")
        assert canary_run.collect_observations(other, live, began + timedelta(minutes=5)).units == [], (
            "it may still be loaded"
        )
        assert len(canary_run.collect_observations(other, live, began + timedelta(hours=1)).units) == 50, (
            "nobody serves it"
        )


def test_verbs_of_the_canary_and_the_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "shop"
    store = retrain_project.make(folder)
    monkeypatch.chdir(folder)
    other = folder / ".tunectl" / "second"
    other.mkdir()
    (other / "weights").write_text("second")
    challenger = store.add(other, BuildFacts("shop", "transformers", "adapter")).id

    def told(*words: str):
        capsys.readouterr()
        assert main([*words, "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    assert told("release", "canary", "status") is None
    made = told("release", "canary", "start", challenger[:6], "--share", "0.3", "-m", "it reads better")
    assert (made["challenger"], made["rules"]["share"], made.get("run")) == (
        challenger,
        0.3,
        None,
    )
    assert main(["release", "canary", "start", challenger, "--no-test"]) == 3, "its variants are what was declared"
    assert "wait for its end, or end it: tunectl release canary stop" in capsys.readouterr().err
    found = told("release", "canary", "status")
    assert found["reading"]["decision"] == "running"
    plan = told("release", "canary", "plan", "--rate", "0.3", "--effect", "0.2", "--share", "0.5")
    assert 50 < plan["half"] < plan["most"] < 2000
    assert told("release", "canary", "stop")["decision"] == "running"
    assert (store.root / "canary.json").exists() is False
    asked = told("retrain", "request", "-m", "two new shops")
    assert asked["controller"] is False
    assert (folder / ".tunectl" / "retrain" / "inbox" / f"{asked['trigger']}.json").is_file()
    assert [row["action"] for row in told("release", "log")][-3:] == ["add", "canary_start", "canary_stop"]
    assert main(["release", "log", "nothing"]) == 2
    assert main(["release", "log", "--page", "report.html"]) == 0
    assert "<h2>Retrains, the newest first</h2>" in (folder / "report.html").read_text()


def test_lineage_goes_back_and_forward(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "shop"
    store = retrain_project.make(folder)
    monkeypatch.chdir(folder)
    champion = store.champion().release
    row = Example(
        "e1", Source("ads.csv", 7), [Message("user", "An ad")], [ReferenceAnswer("Ad.", Source("ads.csv", 7))]
    )
    for stage, name in (("ingest", "examples.jsonl"), ("curate", "examples.jsonl"), ("split", "train.jsonl")):
        atomic_io.write_rows(folder / "artifacts" / stage / name, [row])
        atomic_io.write_rows(folder / "artifacts" / stage / "rejects.jsonl", [])
    capsys.readouterr()
    assert main(["data", "lineage", "ads.csv:7", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["learned_by"] == [], "no release names a split"
    steps = told["forward"]
    assert [(step["stage"], step["what"]) for step in steps] == [
        ("ingest", "kept"),
        ("curate", "kept"),
        ("split", "kept"),
    ]
    manifest.write(folder / "artifacts" / "split", Manifest("split", "config"))
    stages = {"split": atomic_io.sha256_json(manifest.read(folder / "artifacts" / "split"))}
    facts = BuildFacts("shop", "transformers", "adapter", lineage=Lineage("tiny", "rev", stages, {}, {}, {}))
    other = folder / ".tunectl" / "second"
    other.mkdir()
    (other / "weights").write_text("second")
    learner = store.add(other, facts).id
    assert main(["data", "lineage", "ads.csv:7", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["learned_by"] == [learner]
    assert main(["data", "lineage", "ads.csv:7"]) == 0
    assert f"learned by releases: {learner[:12]}" in capsys.readouterr().out
    (folder / "artifacts" / "split" / "train.jsonl").rename(folder / "artifacts" / "split" / "test.jsonl")
    assert main(["data", "lineage", "ads.csv:7"]) == 0
    assert "learned by no release: the split at hand does not train on it" in capsys.readouterr().out
    assert main(["data", "lineage", champion[:8], "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["release"]["id"] == champion
    learned = Example("live-chatcmpl-x", Source("inference_log/s1/chatcmpl-x"), [Message("user", "An ad")], [])
    atomic_io.write_rows(folder / "artifacts" / "feedback" / "examples.jsonl", [learned])
    with inference_log_sql.open_log("sqlite:///.tunectl/inference_log/inference_log.sqlite", folder) as live:
        live.write([InferenceRecord("chatcmpl-x", datetime.now(UTC), "champion", champion, "t", {}, "u")])
    assert main(["data", "lineage", "chatcmpl-x", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["answer"]["release"], told["release"]["id"]) == (champion, champion)
    assert [(step["stage"], step["what"]) for step in told["forward"]] == [("feedback", "kept")]
    assert main(["data", "lineage", "chatcmpl-nobody"]) == 2
    assert "chatcmpl-nobody: there is no answer, release or row with this id" in capsys.readouterr().err
