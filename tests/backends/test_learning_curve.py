"""The learning curve with the real stages and a tiny model."""

import json
import shutil
from pathlib import Path

import pytest
from conf_copy import copy_conf
from msgspec.structs import replace

from tunectl.artifacts import atomic_io, lock, manifest
from tunectl.artifacts.paths import ProjectPaths
from tunectl.artifacts.records import Example, Message
from tunectl.backends.modeling import generator
from tunectl.cli.main import main
from tunectl.core.errors import ArtifactError
from tunectl.data.learning_curve import SHARES, Likelihood, MeasuredSize
from tunectl.evaluation.protocols import GeneratedText, LogProb
from tunectl.pipeline import learning_curve_runner, resolved_config

ROOT = Path(__file__).parents[2]
pytest.importorskip("torch")


@pytest.fixture(scope="module")
def built(tmp_path_factory, tiny_model):
    """A project up to split, made by the commands themselves."""
    root = tmp_path_factory.mktemp("curve")
    copy_conf(root)
    (root / "data").mkdir()
    rows = (ROOT / "examples/local_lens/data/new_clients.jsonl").read_text().splitlines()
    (root / "data" / "rows.jsonl").write_text("\n".join(rows[:80]) + "\n")
    given = ["experiment=smoke", "data.path=data", f"model.source.path={tiny_model}", "sft.max_length=1024"]
    (root / "conf" / "overrides.yaml").write_text(json.dumps(given))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        for stage in ("compose", "model", "ingest", "feedback", "curate", "split", "cpt"):
            assert main(["run", stage]) == 0, stage
    return root


@pytest.fixture
def project(built, tmp_path, monkeypatch):
    shutil.copytree(built, tmp_path / "p")
    monkeypatch.chdir(tmp_path / "p")
    return ProjectPaths()


def test_one_size_is_tuned_and_measured_for_real(project):
    train = list(atomic_io.read_rows(project.artifact("split") / "train.jsonl", Example))
    validation = list(atomic_io.read_rows(project.artifact("split") / "validation.jsonl", Example))
    settings, _ = resolved_config.load_stage_config(project, "sft")
    work = project.work("curve", "k")
    found = learning_curve_runner.SftTrainAndScore(project, settings, work, seed=1, is_sft_current=False).learn(
        train[:3], label="10%"
    )
    assert [one.id for one in found] == [row.id for row in validation]
    assert all(one.nats < 0 < one.tokens for one in found)
    # the byte tokenizer: one token a byte, and the end of turn
    assert found[0].tokens == sum(len(answer.text.encode()) + 1 for answer in validation[0].answers)
    assert not (work / "10").exists()  # adapters are not left behind


class Silent:
    """Answers nothing, and keeps what it is asked."""

    def __init__(self, asked):
        self.asked = asked

    def answer(self, requests, *_args, **_kwargs):
        self.asked.extend(requests)
        return [GeneratedText("", 9, 1, 0.0, finished=True, references=(LogProb(-2.0, 3),)) for _ in requests]

    def close(self):
        """Nothing is held."""


def test_tools_on_offer_are_part_of_what_is_scored(project, monkeypatch):
    rows = list(atomic_io.read_rows(project.artifact("split") / "validation.jsonl", Example))
    tool = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}
    atomic_io.write_rows(project.artifact("split") / "validation.jsonl", [replace(rows[0], tools=[tool])])
    settings, _ = resolved_config.load_stage_config(project, "sft")
    asked = []
    monkeypatch.setattr(generator, "model_loader", lambda _profile: lambda _folder, _adapter: Silent(asked))
    tuner = learning_curve_runner.SftTrainAndScore(
        project, settings, project.work("curve", "k"), seed=1, is_sft_current=False
    )
    assert tuner._score(project.artifact("model")) == [Likelihood(rows[0].id, -2.0, 3)]
    assert '"name": "look_up"' in asked[0].prompt


def write_validation(project, rows):
    folder = project.artifact("split")
    atomic_io.write_rows(folder / "validation.jsonl", rows)
    manifest.write(folder, manifest.read(folder))


def test_validation_examples_that_cannot_be_scored_are_left_out_and_counted(project, capsys, monkeypatch):
    path = project.artifact("split") / "validation.jsonl"
    (row, *_) = atomic_io.read_rows(path, Example)
    rows = [
        replace(row, id=f"e{number}", messages=[Message("user", "Say it")], answers=row.answers[:1])
        for number in range(9)
    ]
    rows = [replace(row, answers=[replace(row.answers[0], text="It.")]) for row in rows]
    long = replace(rows[0], id="long", messages=[Message("user", "long " * 500)])
    write_validation(project, [long, *rows])
    settings, _ = resolved_config.load_stage_config(project, "sft")
    monkeypatch.setattr(generator, "model_loader", lambda _profile: lambda _folder, _adapter: Silent([]))
    tuner = learning_curve_runner.SftTrainAndScore(
        project, settings, project.work("curve", "k"), seed=1, is_sft_current=False
    )
    assert [one.id for one in tuner._score(project.artifact("model"))] == [row.id for row in rows]
    monkeypatch.setattr(
        learning_curve_runner.SftTrainAndScore, "learn", lambda self, train, label: Fake().learn(train, label=label)
    )
    assert main(["data", "report", "--learning-curve"]) == 0
    assert "validation examples left out: 1 too_long" in capsys.readouterr().out
    assert "1 validation examples were left out: too_long" in (project.artifacts / "data_report.html").read_text()
    assert main(["data", "report", "--learning-curve", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["curve"]["left_out"] == {"too_long": 1}
    write_validation(project, [*[replace(long, id=f"long{number}") for number in range(len(rows))], *rows])
    assert main(["data", "report", "--learning-curve"]) == 2
    assert "validation inputs cannot be asked" in capsys.readouterr().err


def test_the_report_shows_the_curve(project, monkeypatch, capsys):
    monkeypatch.setattr(
        learning_curve_runner.SftTrainAndScore, "learn", lambda self, train, label: Fake().learn(train, label=label)
    )
    assert main(["data", "report", "--learning-curve"]) == 0
    assert "ore data would help: " in capsys.readouterr().out
    page = (project.artifacts / "data_report.html").read_text()
    assert "Validation loss after tuning on parts of train" in page
    points = sorted(project.state_dir.glob("work/curve-*/point-*.json"))
    train = sum(1 for _ in atomic_io.read_rows(project.artifact("split") / "train.jsonl", Example))
    assert [atomic_io.read_json(path, MeasuredSize).rows for path in points] == [
        round(train * share) for share in SHARES
    ]


def test_two_at_once_is_refused(project, capsys):
    with lock.file_lock(project.stage_lock, "stage sft"):
        assert main(["data", "report", "--learning-curve"]) == 5
    assert "tunectl: another run is working in this project: stage sft, process " in capsys.readouterr().err


class Fake:
    """Learns at once; stops when it is told to."""

    def __init__(self, *, stop_at=None):
        self.stop_at, self.asked, self.left_out = stop_at, [], {}

    def learn(self, train, *, label):
        if label == self.stop_at:
            raise KeyboardInterrupt
        self.asked.append(label)
        return [Likelihood(f"v{n}", -20 * (1 + len(train) ** -0.5 + n / 100), 20) for n in range(12)]


def test_an_interrupted_curve_goes_on(project):
    with pytest.raises(KeyboardInterrupt):
        learning_curve_runner.measure_learning_curve(project, worth=0.02, learner=Fake(stop_at="50%"))
    again = Fake()
    curve = learning_curve_runner.measure_learning_curve(project, worth=0.02, learner=again)
    assert again.asked == ["50%", "100%"]
    assert len(curve.marks) == 4


def test_all_of_train_is_not_tuned_again_where_sft_stands(project, monkeypatch):
    record = atomic_io.read_json(project.config("sft"))
    inputs = {
        name: atomic_io.sha256_json(atomic_io.read_json(project.artifact(name) / manifest.NAME))
        for name in ("model", "split", "cpt")
    }
    tuned = []
    monkeypatch.setattr(
        learning_curve_runner.SftTrainAndScore, "_tune", lambda self, train, folder, adapter: tuned.append(folder.name)
    )
    monkeypatch.setattr(
        learning_curve_runner.SftTrainAndScore,
        "_score",
        lambda self, adapter: [Likelihood("a", -3.0, 2), Likelihood("b", -2.0, 2)],
    )
    for digests, expected in ((inputs, ["10", "25", "50"]), (inputs | {"split": "another"}, ["10", "25", "50", "100"])):
        folder = project.artifact("sft")
        folder.mkdir(exist_ok=True)
        manifest.write(folder, manifest.Manifest("sft", atomic_io.sha256_json(record), digests))
        tuned.clear()
        shutil.rmtree(project.state_dir / "work", ignore_errors=True)
        learning_curve_runner.measure_learning_curve(project, worth=0.02)
        assert tuned == expected


def test_needs_what_tuning_reads(project):
    shutil.rmtree(project.artifact("cpt"))
    with pytest.raises(ArtifactError, match=r"^artifacts/cpt does not exist"):
        learning_curve_runner.measure_learning_curve(project, worth=0.02, learner=Fake())
