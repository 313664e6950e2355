"""From models to answers, from people to agreement, through the command line; the models are a stand-in."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from conf_copy import copy_conf

from tunectl.annotation import uncertainty_ranking
from tunectl.annotation.active_sampling import QueuePolicy
from tunectl.annotation.annotation_queue import AnnotationQueue
from tunectl.artifacts import atomic_io, manifest
from tunectl.artifacts.paths import ProjectPaths
from tunectl.artifacts.records import Example, Message, ReferenceAnswer, Source
from tunectl.backends.modeling import generator, reward_scorer
from tunectl.cli import annotate
from tunectl.cli.main import main
from tunectl.config.loading import checks, override_file
from tunectl.evaluation.protocols import GeneratedText
from tunectl.preferences import annotation_store
from tunectl.training.reward.protocols import RewardScore


class Writer:
    """A stand-in for a loaded model: what it writes follows from prompt and seed."""

    context = None
    asked = 0

    def answer(self, requests, how, *, seed, label):
        Writer.asked += len(requests)
        return [GeneratedText(f"seed {seed} for {item.prompt[-60:]}", 1, 1, 0.0, finished=True) for item in requests]

    def close(self):
        pass


@pytest.fixture
def project(tmp_path, monkeypatch, tiny_model):
    monkeypatch.setattr(generator, "model_loader", lambda profile: lambda folder, adapter: Writer())
    copy_conf(tmp_path)
    (tmp_path / "conf/overrides.yaml").write_text(
        "- annotate.prepare.inputs=10\n- annotate.prepare.systems=[model,model]\n- annotate.prepare.decoding.max_new_tokens=8\n"
        "- preferences=default\n- preferences.max_rejected_share=0.9\n"
    )
    monkeypatch.chdir(tmp_path)
    layout = ProjectPaths()
    shutil.copytree(tiny_model, layout.artifact("model"))
    manifest.write(layout.artifact("model"), manifest.Manifest("model", "c"))
    for part, count in (("train", 14), ("validation", 1), ("test", 1)):
        rows = [
            Example(
                f"{part}{n}",
                Source(f"{part}.csv", n),
                [Message("user", f"Ad for {part} {n}")],
                [ReferenceAnswer(f"Visit {n}!", Source("f", n))],
            )
            for n in range(count)
        ]
        atomic_io.write_rows(layout.artifact("split") / f"{part}.jsonl", rows)
    return layout


def test_models_write_the_answers_people_compare_them_and_agreement_is_measured(project, capsys):
    assert main(["annotate", "prepare"]) == 0
    with annotation_store.open_store(Path("judgments")) as opened:
        found = list(opened.tasks.values())
        asked = [one for one in found if not one.attention]
        assert len(asked) == 10
        assert len(found) - len(asked) == 2
        assert all(one.systems == ["model", "model"] and len(set(one.answers)) == 2 for one in asked)
        assert all("train" in one.source.file for one in found)
    said = capsys.readouterr().out
    assert f"judgments: {len(found)} new questions, {len(found)} in all; now: tunectl annotate" in said
    assert main(["annotate", "prepare"]) == 0
    assert (
        f"judgments: 0 new questions, {len(found)} in all" in capsys.readouterr().out
    )  # the same seed, the same answers
    with annotation_store.open_store(Path("judgments")) as opened:
        for who in ("Ada", "Bo"):
            desk = AnnotationQueue(opened, QueuePolicy(0, 0, 1, 1))
            while (now := desk.get_current_task(who)) is not None:
                desk.submit(who, now.id, "left" if now.left == 0 else "right", [], None)
    assert main(["data", "agreement"]) == 0
    said = capsys.readouterr().out
    assert "Ada" in said
    assert "seed" not in said
    page = Path("artifacts/agreement.html").read_text()
    assert "<svg" in page
    assert "Ada" in page
    assert main(["data", "agreement", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["people"][0]["with_others"]["value"] == 1.0


def test_prepare_counts_what_nobody_could_choose_between(project, capsys, monkeypatch):
    written = Writer.answer

    def answer(self, requests, how, *, seed, label):
        replies = written(self, requests, how, seed=seed, label=label)
        return [replace(one, text="" if "train 3" in one.text else one.text) for one in replies]

    monkeypatch.setattr(Writer, "answer", answer)
    assert main(["annotate", "prepare", "annotate.prepare.inputs=14", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "store": "judgments",
        "inputs": 14,
        "left_out": 1,
        "new": 15,
        "questions": 15,
    }
    assert main(["annotate", "prepare", "annotate.prepare.inputs=14"]) == 0
    assert "1 of 14 inputs left out: their answers were alike or empty" in capsys.readouterr().out


def test_prepare_goes_on_where_it_was_stopped(project, capsys, monkeypatch):
    assert main(["annotate", "prepare"]) == 0
    before = Writer.asked
    assert main(["annotate", "prepare", "annotate.prepare.inputs=14"]) == 0
    assert Writer.asked - before == 12  # the first batch of 8 is read back
    assert main(["annotate", "prepare", "annotate.prepare.decoding.temperature=0.5"]) == 0
    assert Writer.asked - before == 12 + 20  # other settings, other answers


def test_a_writer_that_breaks_down_is_reported_on_the_page(project, monkeypatch):
    def answer(self, requests, how, *, seed, label):
        raise RuntimeError("not enough memory")

    monkeypatch.setattr(Writer, "answer", answer)
    root = checks.load_config(project, override_file.load_overrides(project)).root
    with annotation_store.open_store(Path("judgments")) as opened:
        writing = annotate._BackgroundWriter(
            project, root, AnnotationQueue(opened, QueuePolicy(0, 0, 1, 1)), generate=True
        )
        writing._write()
    assert writing.pending() == "No more answers can be written: not enough memory"


def test_the_address_that_is_printed_can_be_opened():
    assert annotate._url("127.0.0.1", 8321) == "http://127.0.0.1:8321/"
    assert annotate._url("::1", 8321) == "http://[::1]:8321/"


def test_a_policy_that_is_switched_off_writes_nothing(project, capsys):
    align = ProjectPaths().artifact("align")
    atomic_io.write_json(align / manifest.PASSED_THROUGH, {"reason": "align: none"})
    manifest.write(align, manifest.Manifest("align", "c", passed_through=True))
    manifest.write(ProjectPaths().artifact("cpt"), manifest.Manifest("cpt", "c", passed_through=True))
    assert main(["annotate", "prepare", "annotate.prepare.systems=[model,align]"]) != 0
    assert "annotate.prepare.systems names align, which is switched off" in capsys.readouterr().err


# What the reward model doubts


class Reward:
    """A stand-in for a reward model: an answer's score is the last number in it."""

    def score(self, prompts, answers):
        assert len(prompts) == len(answers)
        return [RewardScore(float(text.split()[-1]), 0.0) for text in answers]

    def close(self):
        pass


def made(passed=True):
    layout = ProjectPaths()
    for name in ("cpt", "sft", "reward"):
        atomic_io.write_json(layout.artifact(name) / "verdict.json", {"passed": passed})
        manifest.write(layout.artifact(name), manifest.Manifest(name, "c", passed_through=name == "cpt"))
    return layout


def ask(name, first, second):
    return annotation_store.AnnotationTask(
        name, name, Source("t"), [Message("user", name)], [f"score {first}", f"score {second}"], ["a", "b"]
    )


def test_questions_are_ranked_by_doubt_once(project, monkeypatch):
    loaded = []
    monkeypatch.setattr(reward_scorer, "load", lambda **words: loaded.append(words) or Reward())
    layout, root = made(), SimpleNamespace(hardware=None)
    asked = [ask("near", 1, 1.1), ask("far", 1, 9)]
    found = uncertainty_ranking.rank_by_uncertainty(layout, root, asked)
    assert found["near"] > 0.4 > found["far"]
    assert uncertainty_ranking.rank_by_uncertainty(layout, root, asked) == found
    assert len(loaded) == 1
    assert loaded[0]["base"] == layout.artifact("model")
    assert set(uncertainty_ranking.rank_by_uncertainty(layout, root, [*asked, ask("new", 1, 2)])) == {
        "near",
        "far",
        "new",
    }
    assert len(loaded) == 2


def test_why_the_order_is_random(project):
    layout = ProjectPaths()
    assert uncertainty_ranking.why_unranked(layout) == "there is no reward model yet (tunectl repro --to reward)"
    made(passed=False)
    assert uncertainty_ranking.why_unranked(layout) == "the reward model did not pass its gate"
    made()
    assert uncertainty_ranking.why_unranked(layout) is None
    atomic_io.write_json(layout.artifact("reward") / manifest.PASSED_THROUGH, {"reason": "reward: none"})
    assert uncertainty_ranking.why_unranked(layout) == "the reward model is switched off (reward: none)"


def test_agreement_without_judgments(project, capsys):
    assert main(["data", "agreement"]) == 2
    assert capsys.readouterr().err == (
        "tunectl: preferences.collected = judgments: that folder holds no judgments\n  collect some: tunectl annotate\n  more: tunectl docs preferences-collected-that-folder-holds-no-judgments\n"
    )


def test_a_model_that_is_not_there(project, capsys):
    assert main(["annotate", "prepare", "annotate.prepare.systems=[model,sft]"]) == 5
    assert capsys.readouterr().err == "tunectl: artifacts/sft does not exist\n  run: tunectl repro --to sft\n"
