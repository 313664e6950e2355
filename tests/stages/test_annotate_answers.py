"""From models to answers, from people to agreement, through the command line; the models are a stand-in."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tunectl.artifacts import io, manifest
from tunectl.artifacts.layout import Layout
from tunectl.artifacts.records import Answer, Example, Message, Source
from tunectl.backends import hf_generate
from tunectl.cli.main import main
from tunectl.evaluation.generator import Reply
from tunectl.preferences import store
from tunectl.preferences.desk import Desk
from tunectl.preferences.sampling import Plan

ROOT = Path(__file__).parents[2]


class Writer:
    """A stand-in for a loaded model: what it writes follows from prompt and seed."""

    def answer(self, requests, how, *, seed, label):
        return [Reply(f"seed {seed} for {item.prompt[-60:]}", 1, 1, 0.0, finished=True) for item in requests]

    def close(self):
        pass


@pytest.fixture
def project(tmp_path, monkeypatch, tiny_model):
    monkeypatch.setattr(hf_generate, "opener", lambda profile: lambda folder, adapter: Writer())
    shutil.copytree(ROOT / "conf", tmp_path / "conf")
    (tmp_path / "conf/overrides.yaml").write_text(
        "- annotate.prepare.inputs=10\n- annotate.prepare.systems=[model,model]\n- annotate.prepare.decoding.max_new_tokens=8\n"
        "- preferences=default\n- preferences.max_rejected_share=0.9\n"
    )
    monkeypatch.chdir(tmp_path)
    layout = Layout()
    shutil.copytree(tiny_model, layout.artifact("model"))
    manifest.write(layout.artifact("model"), manifest.Manifest("model", "c"))
    for part, count in (("train", 14), ("validation", 1), ("test", 1)):
        rows = [
            Example(
                f"{part}{n}",
                Source(f"{part}.csv", n),
                [Message("user", f"Ad for {part} {n}")],
                [Answer(f"Visit {n}!", Source("f", n))],
            )
            for n in range(count)
        ]
        io.write_rows(layout.artifact("split") / f"{part}.jsonl", rows)
    return layout


def test_models_write_the_answers_people_compare_them_and_agreement_is_measured(project, capsys):
    assert main(["annotate", "prepare"]) == 0
    with store.opened(Path("judgements")) as opened:
        found = list(opened.questions.values())
        asked = [one for one in found if not one.attention]
        assert len(asked) == 10
        assert len(found) - len(asked) == 2
        assert all(one.systems == ["model", "model"] and len(set(one.answers)) == 2 for one in asked)
        assert all("train" in one.source.file for one in found)
    said = capsys.readouterr().out
    assert f"judgements: {len(found)} new questions, {len(found)} in all; now: tunectl annotate" in said
    assert main(["annotate", "prepare"]) == 0
    assert (
        f"judgements: 0 new questions, {len(found)} in all" in capsys.readouterr().out
    )  # the same seed, the same answers
    with store.opened(Path("judgements")) as opened:
        for who in ("Ada", "Bo"):
            desk = Desk(opened, Plan(0, 0, 1, 1))
            while (now := desk.showing(who)) is not None:
                desk.say(who, now.id, "left" if now.left == 0 else "right", [], None)
    assert main(["data", "agreement"]) == 0
    said = capsys.readouterr().out
    assert "Ada" in said
    assert "seed" not in said
    page = Path("artifacts/agreement.html").read_text()
    assert "<svg" in page
    assert "Ada" in page
    assert main(["data", "agreement", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["people"][0]["with_others"]["value"] == 1.0


def test_agreement_without_judgements(project, capsys):
    assert main(["data", "agreement"]) == 2
    assert capsys.readouterr().err == (
        "tunectl: preferences.collected = judgements: there are no judgements\n  collect some: tunectl annotate\n"
    )


def test_a_model_that_is_not_there(project, capsys):
    assert main(["annotate", "prepare", "annotate.prepare.systems=[model,sft]"]) == 5
    assert capsys.readouterr().err == "tunectl: artifacts/sft does not exist\n  run: tunectl repro --to sft\n"
