"""``tunectl evaluate`` on files and base models, with the tiny model."""

import gzip
import json
import shutil
from pathlib import Path

import msgspec
import pytest
from cli_errors import drop_more
from conf_copy import copy_conf

from tunectl.artifacts import atomic_io, manifest
from tunectl.artifacts.records import Example, Message, ReferenceAnswer, Source
from tunectl.chat import model_spec, template
from tunectl.cli import main

pytest.importorskip("torch")
pytest.importorskip("sacrebleu")
COLUMNS = ["--input-column", "mr", "--reference-column", "ref"]
SHORT = ["--max-new-tokens", "4"]
CSV = "mr,ref\nname[A],A is a pub.\nname[B],B is a cafe.\nname[A],There is a pub called A.\n"


@pytest.fixture
def project(tmp_path, tiny_model, monkeypatch):
    monkeypatch.chdir(tmp_path)
    copy_conf(Path())
    shutil.copytree(tiny_model, "artifacts/model")
    manifest.write(Path("artifacts/model"), manifest.Manifest("model", "x"))
    Path("data.csv").write_text(CSV)
    return tmp_path


def run(*words):
    """The exit code of ``tunectl evaluate WORDS`` with a configuration of one table."""
    return main.main(
        ["evaluate", *words, "--source", "new_clients"] if "--bases" not in words else ["evaluate", *words]
    )


def refused(capsys, *words):
    code = run(*words)
    return code, drop_more(capsys.readouterr().err).rpartition("tunectl: ")[2]


def measured(capsys, *words):
    assert run(*words, "--json", *SHORT) == 0
    return json.loads(capsys.readouterr().out)


def test_rows_with_one_input_are_one_input_with_two_references(project, capsys):
    found = measured(capsys, "data.csv", "--model", "model", *COLUMNS)
    assert (found["inputs"], found["references"], found["available"]) == (2, 3, 2)
    assert {"bleu", "chrf", "rouge_l", "perplexity", "words", "unfinished"} <= set(found["scores"])
    assert found["scores"]["bleu"]["items"] == 2
    assert found["decoding"] == {"method": "greedy", "max_new_tokens": 4}
    assert found["cost"]["tokens"] > 0


def test_beams_limit_and_files(project, capsys):
    found = measured(
        capsys, "data.csv", "--model", "artifacts/model", *COLUMNS, "--beams", "2", "--limit", "1", "--out", "out"
    )
    assert found["decoding"]["beams"] == 2
    assert (found["inputs"], found["available"]) == (1, 2)
    assert json.loads(Path("out/results.json").read_text())["inputs"] == 1
    rows = [json.loads(line) for line in Path("out/answers.jsonl").read_text().splitlines()]
    assert len(rows) == 1
    assert set(rows[0]["answers"]) == {"model"}


def test_one_row_has_no_interval_and_says_so(project, capsys):
    Path("one.csv").write_text("mr,ref\nname[A],A is a pub.\n")
    found = measured(capsys, "one.csv", "--model", "model", *COLUMNS)
    assert (found["scores"]["bleu"]["low"], found["scores"]["bleu"]["high"]) == (None, None)
    assert run("one.csv", "--model", "model", *COLUMNS, *SHORT) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if "BLEU" in line)
    assert line.split()[2] == "-"


def test_a_plain_model_folder_is_prepared_first(project, tiny_model, capsys):
    shutil.copytree(tiny_model, "plain")
    Path("plain/model_spec.json").unlink()
    one = measured(capsys, "data.csv", "--model", "plain", *COLUMNS)
    two = measured(capsys, "data.csv", "--model", "model", *COLUMNS)
    assert one["scores"] == two["scores"]
    assert len(list(Path(".tunectl/cache/bases").iterdir())) == 1


def test_an_adapter_brings_its_base_and_its_system_text(project, capsys):
    adapter(Path("artifacts/sft"), system="Be brief.")
    found = measured(capsys, "data.csv", "--model", "sft", *COLUMNS)
    assert (found["model"], found["adapter"]) == ("artifacts/model", "artifacts/sft")
    plain = measured(capsys, "data.csv", "--model", "model", *COLUMNS)
    extra = len("<|im_start|>system\nBe brief.<|im_end|>\n") - len("<|im_start|>") - len("<|im_end|>") + 2
    assert found["cost"]["prompt_tokens"] - plain["cost"]["prompt_tokens"] == 2 * extra
    assert measured(capsys, "data.csv", "--model", "model", "--adapter", "auto", *COLUMNS)["adapter"] == "artifacts/sft"


def test_two_models_are_compared_input_by_input(project, capsys):
    adapter(Path("artifacts/sft"), system="Be brief.")
    rules = ["--slots", "conf/evaluate/e2e.yaml"]
    Path("data.csv").write_text(CSV + "".join(f"name[{name}],{name} is a pub.\n" for name in "CDEF"))
    found = measured(capsys, "data.csv", "--model", "sft", "--against", "model", *COLUMNS, *rules, "--out", "out")
    assert (found["model"]["adapter"], found["against"]["adapter"]) == ("artifacts/sft", None)
    by_measure = {one["measure"]: one for one in found["differences"]}
    for name, one in by_measure.items():
        mine, theirs = (found[side]["scores"][name]["value"] for side in ("model", "against"))
        assert one["value"] == pytest.approx(mine - theirs)
    slot = by_measure["slot_error"]
    assert (slot["system"], slot["against"]) == ("model", "against")
    assert slot["low"] <= slot["value"] <= slot["high"]
    assert {one["judge"]: one["pairs"] for one in found["win_rates"]} == {"checks": 6, "slots": 6}
    row = json.loads(Path("out/answers.jsonl").read_text().splitlines()[0])
    assert set(row["answers"]) == {"model", "against"}
    assert run("data.csv", "--model", "sft", "--against", "sft", *COLUMNS, *rules, *SHORT) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if "Slot errors" in line)
    assert "+0.00 to +0.00" in line


def test_slot_errors_of_one_model(project, capsys):
    found = measured(capsys, "data.csv", "--model", "model", *COLUMNS, "--slots", "conf/evaluate/e2e.yaml")
    assert found["scores"]["slot_error"]["value"] == 100
    name = found["slots"]["parts"][0]
    assert (name["attribute"], name["stated"], name["systems"]["model"]["missing"]) == ("name", 2, 2)
    assert len(found["slots"]["cases"]) == 2
    assert "slot_error" not in measured(capsys, "data.csv", "--model", "model", *COLUMNS)["scores"]
    assert run("data.csv", "--model", "model", *COLUMNS, *SHORT, "--slots", "conf/evaluate/e2e.yaml") == 0
    assert "slot errors by attribute" in capsys.readouterr().out


def test_rules_that_are_none(project, capsys):
    Path("rules.yaml").write_text("slots: {parse: bracketed, terms: {}}\n")
    assert refused(capsys, "data.csv", "--model", "model", *COLUMNS, "--slots", "rules.yaml") == (
        2,
        ("rules.yaml: attributes: Field required\n  write rules as in conf/evaluate/e2e.yaml, below a key slots\n"),
    )
    code, text = refused(capsys, "data.csv", "--model", "model", *COLUMNS, "--slots", "gone.yaml")
    assert code == 2
    assert text.startswith("gone.yaml cannot be read: ")


def test_an_aligned_model_that_there_is_not(project, capsys):
    Path("artifacts/align").mkdir()
    Path("artifacts/align/passed_through.json").write_text("{}")
    manifest.write(Path("artifacts/align"), manifest.Manifest("align", "x"))
    assert refused(capsys, "data.csv", "--model", "model", "--against", "align", *COLUMNS) == (
        2,
        (
            "--against align: align was switched off (align: none), so there is no aligned model\n"
            "  switch it on, for example tunectl repro align=rloo, or evaluate --model sft\n"
        ),
    )


def adapter(folder, *, system=None, weights=None):
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained("artifacts/model", local_files_only=True)
    get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"])).save_pretrained(folder)
    agreed = model_spec.load(Path("artifacts/model"))
    changes = {"system": system} | ({"weights_sha256": weights} if weights else {})
    model_spec.save(msgspec.structs.replace(agreed, **changes), folder)
    manifest.write(folder, manifest.Manifest("sft", "x"))


def test_an_adapter_of_another_base(project, capsys):
    adapter(Path("artifacts/sft"), weights="c" * 64)
    own = model_spec.load(Path("artifacts/model")).weights_sha256
    code, text = refused(capsys, "data.csv", "--model", "sft", *COLUMNS)
    assert code == 5
    assert text == (
        f"artifacts/sft does not fit artifacts/model: it was trained with the weights cccccccccccc…, not {own[:12]}…\n"
        f"  train it again on this model, or use the one that it was trained on (tiny, revision {own[:12]})\n"
    )


def test_an_unknown_model(project, capsys):
    assert refused(capsys, "data.csv", "--model", "sfd", *COLUMNS) == (
        2,
        (
            "--model sfd: no stage with a model has that name, and it is no folder\n"
            "  give one of model, cpt, sft, align, a model folder or an adapter folder\n"
        ),
    )
    Path("empty").mkdir()
    assert "it holds neither config.json nor adapter_config.json" in refused(capsys, "data.csv", "--model", "empty")[1]


def test_a_stage_that_has_not_run(project, capsys):
    assert refused(capsys, "data.csv", "--model", "sft", *COLUMNS) == (
        5,
        "artifacts/sft does not exist\n  run: tunectl repro --to sft\n",
    )


def test_wrong_columns(project, capsys):
    code, text = refused(
        capsys, "data.csv", "--model", "model", "--input-column", "meaning", "--reference-column", "ref"
    )
    assert code == 2
    assert text == (
        "read as columns (pinned: meaning, ref), but data.csv:1 does not fit: no column 'meaning'; there are mr, ref\n"
        '    the row: {"mr":"name[A]","ref":"A is a pub."}\n'
        "    columns expects: meaning, ref\n"
        "  check the file; name its columns with --input-column NAME --reference-column NAME, or its --format NAME\n"
    )


def test_the_hint_of_the_cause_is_kept_where_it_names_no_source(project, capsys):
    Path("latin.csv").write_bytes("mr,ref\nname[A],A is a café.\n".encode("latin-1"))
    assert refused(capsys, "latin.csv", "--model", "model", *COLUMNS)[1].endswith("\n  write the file as UTF-8\n")
    Path("cut.csv.gz").write_bytes(gzip.compress(bytes(range(256)) * 99)[:60])
    text = refused(capsys, "cut.csv.gz", "--model", "model", *COLUMNS)[1]
    assert text.endswith("\n  it was cut off, or has a wrong name; copy it again\n")


def test_an_empty_file(project, capsys):
    Path("none.csv").write_text("")
    code, text = refused(capsys, "none.csv", "--model", "model", *COLUMNS)
    assert (code, text) == (
        2,
        (
            "none.csv holds no rows\n"
            "  check the file; name its columns with --input-column NAME --reference-column NAME, or its --format NAME\n"
        ),
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["data.csv", *COLUMNS], "--model is missing: which model should answer?\n  for example: --model sft\n"),
        (
            ["a.csv", "b.csv", "--model", "model"],
            "DATA must be one file, not 2: a.csv, b.csv\n  run the command once for each\n",
        ),
        (
            ["--model", "model"],
            "DATA is missing: which file should the model be evaluated on?\n  name it, for example: tunectl evaluate test.jsonl\n",
        ),
        (
            ["data.csv", "--model", "model", "--input-column", "mr"],
            "--input-column and --reference-column go together; give both or neither\n",
        ),
        (["data.csv", "--model", "model", *COLUMNS, "--beams", "40"], "--beams 40: must be 1 to 16\n"),
        (["data.csv", "--model", "model", *COLUMNS, "--limit", "0"], "--limit 0: must be at least 1\n"),
        (
            ["data.csv", "--model", "model", *COLUMNS, "--max-new-tokens", "0"],
            "--max-new-tokens 0: must be at least 1\n",
        ),
        (
            ["data.csv", "--model", "model", "--adapter", "nowhere", *COLUMNS],
            "--adapter nowhere: nowhere/adapter_config.json does not exist\n  give the folder of an adapter\n",
        ),
        (
            ["--bases", "smollm3_1b"],
            (
                "--bases smollm3_1b: neither an option of conf/model (folder, hub, smollm2_135m), nor a folder, nor a Hub id\n"
                "  a Hub id looks like owner/name@COMMIT\n"
            ),
        ),
        (
            ["--bases", "owner/name"],
            (
                "--bases owner/name: no such folder, and a Hub id needs its commit, because a branch can move\n"
                "  write owner/name@COMMIT with the 40 characters of the commit hash\n"
            ),
        ),
        (
            ["data.csv", "--bases", "owner/name"],
            "--bases compares on the validation split; leave out DATA, --model and --against\n",
        ),
        (["--bases", ","], "--bases names no model\n  for example: --bases smollm2_135m,DIR,owner/name@COMMIT\n"),
    ],
)
def test_words_that_do_not_go_together(project, capsys, words, message):
    assert refused(capsys, *words) == (2, message)


def test_a_missing_file(project, capsys):
    assert refused(capsys, "gone.csv", "--model", "model", *COLUMNS) == (
        2,
        "gone.csv: there is no such file\n  check the path of DATA\n",
    )


def test_a_source_that_is_not_declared(project, capsys):
    assert main.main(["evaluate", "data.csv", "--model", "model", "--source", "campain"]) == 2
    text = capsys.readouterr().err
    assert text.startswith("tunectl: --source campain: ingest has no such source; there are web, reviews, ")


def refuse_odd(folder):
    """Give the model in ``folder`` a chat template that refuses conversations with the word odd."""
    path = folder / "chat_template.jinja"
    refusal = "{%- for m in messages %}{% if 'odd' in m.content %}{{ raise_exception('odd') }}{% endif %}{% endfor -%}"
    path.write_text(refusal + path.read_text())
    spec = model_spec.load(folder)
    model_spec.save(msgspec.structs.replace(spec, template_sha256=template.digest(path.read_text())), folder)


def test_inputs_that_a_model_cannot_be_asked_are_left_out_and_counted(project, tiny_model, capsys):
    refuse_odd(Path("artifacts/model"))
    shutil.copytree(tiny_model, "other")
    rows = [f"name[{number}],It is {number}." for number in range(8)]
    long = f"name[L]{' long' * 300},It is long."
    Path("data.csv").write_text("\n".join(["mr,ref", "an odd one,It is odd.", *rows, long, ""]))
    found = measured(capsys, "data.csv", "--model", "model", *COLUMNS, "--out", "out")
    assert (found["inputs"], found["available"]) == (8, 10)
    assert found["skipped"] == {"template_refuses": 1, "too_long": 1}
    assert len(Path("out/answers.jsonl").read_text().splitlines()) == 8
    pair = measured(capsys, "data.csv", "--model", "other", "--against", "model", *COLUMNS)
    assert [pair[side]["inputs"] for side in ("model", "against")] == [8, 8]  # what both can be asked
    assert pair["model"]["skipped"] == {"too_long": 1, "template_refuses": 1}
    for words in ([], ["--against", "other"]):
        assert run("data.csv", "--model", "model", *COLUMNS, *SHORT, *words) == 0
        assert "left out: 1 template_refuses, 1 too_long" in capsys.readouterr().out
    Path("data.csv").write_text("\n".join(["mr,ref", "an odd one,It is odd.", *rows[:3], ""]))
    assert refused(capsys, "data.csv", "--model", "model", *COLUMNS, *SHORT)[1].startswith(
        "1 of 4 inputs of data.csv cannot be asked (1 template_refuses); at most 20% may be left out\n"
    )


def test_rows_that_cannot_be_read_are_counted(project, capsys):
    rows = [{"mr": f"name[{number}]", "ref": f"It is {number}."} for number in range(9)]
    Path("data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*rows, {"mr": "name[A]", "ref": None}]))
    found = measured(capsys, "data.jsonl", "--model", "model", *COLUMNS)
    assert (found["inputs"], sum(found["skipped"].values())) == (9, 1)


def test_base_models_answer_the_same_inputs_and_say_what_was_left_out(project, tiny_model, capsys):
    split = Path("artifacts/split")
    source = Source("f", 1)
    rows = [
        Example(f"e{n}", source, [Message("user", f"say {n}")], [ReferenceAnswer(f"word {n}", source)])
        for n in range(8)
    ]
    odd = msgspec.structs.replace(rows[0], id="odd", messages=[Message("user", "odd")])
    atomic_io.write_rows(split / "train.jsonl", [odd, *rows[:3]])
    atomic_io.write_rows(split / "validation.jsonl", [odd, *rows[3:]])
    manifest.write(split, manifest.Manifest("split", "x"))
    shutil.copytree(tiny_model, "other")
    refuse_odd(Path("other"))
    assert main.main(["evaluate", "--bases", "artifacts/model,other", "--json", *SHORT]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["inputs"], found["skipped"]) == (5, {"template_refuses": 1})
    first, second = found["bases"]
    assert first["zero_shot"]["bleu"]["items"] == second["zero_shot"]["bleu"]["items"] == 5
    assert first["few_shot"]["bleu"] == second["few_shot"]["bleu"]
    assert main.main(["evaluate", "--bases", "other", *SHORT]) == 0
    assert "left out: 1 template_refuses" in capsys.readouterr().out
    atomic_io.write_rows(split / "validation.jsonl", [odd, *rows[3:6]])
    assert main.main(["evaluate", "--bases", "other", *SHORT]) == 2
    assert "1 of 4 validation inputs cannot be asked (1 template_refuses); at most 20%" in capsys.readouterr().err


def test_base_models_side_by_side(project, tiny_model, capsys):
    split = Path("artifacts/split")
    source = Source("f", 1)
    rows = [
        Example(f"e{n}", source, [Message("user", f"say {n}")], [ReferenceAnswer(f"word {n}", source)])
        for n in range(6)
    ]
    split.mkdir(parents=True)
    atomic_io.write_rows(split / "train.jsonl", rows[:3])
    atomic_io.write_rows(split / "validation.jsonl", rows[3:])
    manifest.write(split, manifest.Manifest("split", "x"))
    shutil.copytree(tiny_model, "other")
    assert main.main(["evaluate", "--bases", "other,artifacts/model", "--json", *SHORT]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["inputs"], found["shots"]) == (3, 3)
    first, second = found["bases"]
    assert (first["name"], second["name"]) == ("artifacts/model", "other")
    assert first["zero_shot"]["bleu"] == second["zero_shot"]["bleu"]
    assert first["few_shot"]["perplexity"]["value"] > 1
    assert first["parameters"] == model_spec.load(tiny_model).parameters
    assert main.main(["evaluate", "--bases", "other", *SHORT]) == 0
    assert "not stated" in capsys.readouterr().out


def test_without_a_file_the_comparison_is_made_again_and_the_artifacts_stay(project, capsys):
    from tunectl.artifacts.paths import ProjectPaths
    from tunectl.config.loading.checks import load_config as check
    from tunectl.pipeline import resolved_config

    source = Source("f", 1)
    rows = [
        Example(f"e{n}", source, [Message("user", f"say {n}")], [ReferenceAnswer(f"word {n}", source)])
        for n in range(9)
    ]
    Path("artifacts/split").mkdir()
    for part, chosen in {"train": rows[:3], "validation": rows[3:6], "test": rows[6:]}.items():
        atomic_io.write_rows(Path(f"artifacts/split/{part}.jsonl"), chosen)
    for stage in ("cpt", "reward", "align"):
        Path(f"artifacts/{stage}").mkdir()
        Path(f"artifacts/{stage}/passed_through.json").write_text("{}")
    adapter(Path("artifacts/sft"))
    words = ["evaluate=default", "evaluate.decoding.max_new_tokens=4", "evaluate.safety.max_new_tokens=4"]
    from tunectl.config.loading.override_file import merge_overrides

    root = check(ProjectPaths(), merge_overrides([], [*words, "evaluate.prompts.shots=[0]"])).root
    for stage in ("model", "split", "cpt", "sft", "reward", "align", "evaluate"):
        record = {"stage": stage, "settings": resolved_config.stage_view(stage, root), "code": "x", "sources": {}}
        atomic_io.write_json(Path(f"artifacts/config/{stage}.json"), record)
        if stage != "evaluate":
            config = atomic_io.sha256_json(atomic_io.read_json(Path(f"artifacts/config/{stage}.json")))
            manifest.write(Path("artifacts") / stage, manifest.Manifest(stage, config))
    assert main.main(["evaluate", "--json", "--out", "again"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [system["name"] for system in found["systems"]] == ["base", "prompted", "nearest", "tuned"]
    assert {path.name for path in Path("again").iterdir()} == {
        "results.json",
        "answers.jsonl",
        "verdict.json",
        "input_scores.jsonl",
        "report.html",
    }
    assert not Path("artifacts/evaluate").exists()
