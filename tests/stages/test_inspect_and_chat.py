"""tunectl data inspect and tunectl chat on a small project with the tiny model."""

import io as text_io
import json
import shutil
import sys
from pathlib import Path

import pytest
import yaml
from msgspec.structs import replace

from tunectl.artifacts import atomic_io, manifest
from tunectl.artifacts.records import Example, Message, ReferenceAnswer, Source, Tokens
from tunectl.chat import model_spec, template
from tunectl.cli.main import main

CONF = Path(__file__).parents[2] / "conf"


def example(number, *texts):
    source = Source("in.csv", number)
    return Example(f"e{number}", source, [Message("user", "Hi")], [ReferenceAnswer(text, source) for text in texts])


@pytest.fixture
def project(tmp_path, tiny_model, monkeypatch):
    monkeypatch.chdir(tmp_path)
    artifacts = tmp_path / "artifacts"
    shutil.copytree(tiny_model, artifacts / "model")
    manifest.write(artifacts / "model", manifest.Manifest("model", "c"))
    atomic_io.write_json(artifacts / "cpt" / "passed_through.json", {"reason": "off"})
    manifest.write(artifacts / "cpt", manifest.Manifest("cpt", "c", passed_through=True))
    settle([example(1, "Yes", "Oh"), example(2, "No")])
    configure()
    return tmp_path


def settle(examples):
    atomic_io.write_rows(Path("artifacts/split/train.jsonl"), examples)


def configure(**changes):
    section = yaml.safe_load((CONF / "sft" / "lora.yaml").read_text()) | {"learning_rate": 0.001} | changes
    profile = yaml.safe_load((CONF / "hardware" / "cpu.yaml").read_text()) | {"dtype": "float32", "threads": 1}
    settings = {"sft": section, "seed": 1, "hardware": profile, "project": "test"}
    atomic_io.write_json(
        Path("artifacts/config/sft.json"), {"stage": "sft", "settings": settings, "code": "c", "sources": {}}
    )


def test_data_inspect_shows_what_is_trained(project, capsys):
    assert main(["data", "inspect"]) == 0
    out = capsys.readouterr().out
    assert "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n«Yes<|im_end|>»" in out
    assert "every answer ends with <|im_end|>, and it is trained" in out


def test_data_inspect_in_numbers_and_as_a_page(project, capsys):
    assert main(["data", "inspect", "--json", "--example", "1", "--html", "data_inspect.html"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["healthy"]
    assert (found["examples"], found["answers"], found["place"]) == (2, 3, "in.csv:2")
    assert found["trained_share"] == round((4 + 3 + 3) / (3 * found["prompt_tokens"] + 4 + 3 + 3), 4)
    assert [token["text"] for token in found["shown"] if token["trained"]] == ["N", "o", "<|im_end|>"]
    page = Path("data_inspect.html").read_text()
    assert page.count('title="trained"') == 3
    assert "https://" not in page


def test_an_example_that_is_not_there_is_refused(project, capsys):
    assert main(["data", "inspect", "--example", "2"]) == 2
    refused = capsys.readouterr().err
    assert "--example 2: there are 2 examples\n  give a number from 0 to 1" in refused


def test_nothing_trained_is_found(project, capsys):
    settle([example(1, "Yes"), Example("t", Source("in.csv", 9), tokens=Tokens([5, 6], [-100, -100]))])
    assert main(["data", "inspect"]) == 3
    assert capsys.readouterr().err == (
        "tunectl: something is trained: failed: 1 of 2 answers have no trained token at all; the first is in.csv:9\n"
        "  see sft.loss_on, sft.max_length and model.chat_template, then look again: tunectl data inspect\n"
    )


def change_template(source: str) -> None:
    folder = Path("artifacts/model")
    (folder / "chat_template.jinja").write_text(source)
    from tunectl.chat.template import digest

    facts = json.loads((folder / "model_spec.json").read_text())
    (folder / "model_spec.json").write_text(json.dumps(facts | {"template_sha256": digest(source)}))


def test_an_end_that_is_not_trained_is_found(project, capsys):
    change_template(
        "{% for m in messages %}{{ m.role }}:{% generation %}{{ m.content }}{% endgeneration %}<|im_end|>{% endfor %}".replace(
            "{% generation %}", "{% if m.role == 'assistant' %}{% generation %}"
        ).replace("{% endgeneration %}", "{% endgeneration %}{% else %}{{ m.content }}{% endif %}")
    )
    assert main(["data", "inspect"]) == 3
    assert (
        "the end of turn is trained: failed: 3 of 3 answers do not train <|im_end|> at their end, so the model would not learn to stop; "
        "the first is in.csv:1" in capsys.readouterr().err
    )


def test_a_doubled_begin_of_text_is_found(project, capsys):
    change_template(
        "<|im_start|><|im_start|>{% for m in messages %}{{ m.role }}:{{ m.content }}<|im_end|>{% endfor %}"
        "{% if add_generation_prompt %}assistant:{% endif %}"
    )
    assert main(["data", "inspect"]) == 3
    assert (
        "no doubled begin of text: failed: 3 of 3 answers begin with two begin-of-text tokens"
        in capsys.readouterr().err
    )


def test_a_template_that_is_not_the_contracts_is_found(project, capsys):
    path = Path("artifacts/model/chat_template.jinja")
    path.write_text(" " + path.read_text())
    assert main(["data", "inspect"]) == 3
    assert (
        "the chat template is the one that the model was set up with: failed: artifacts/model/chat_template.jinja differs from the template that"
        in capsys.readouterr().err
    )


def test_answers_that_would_be_left_out_are_found(project, capsys):
    settle([example(1, "Yes", "x" * 200)])
    configure(max_length=100)
    assert main(["data", "inspect"]) == 3
    assert (
        "answers fit: failed: 1 of 2 answers are longer than sft.max_length = 100 and would be left out (the limit is 5%)"
        in capsys.readouterr().err
    )
    configure(max_length=100, max_rejected_share=0.5)
    assert main(["data", "inspect"]) == 0


def test_conversations_that_the_template_refuses_are_found(project, capsys):
    folder = Path("artifacts/model")
    path = folder / template.FILE
    path.write_text("{% if messages[0].content == 'odd' %}{{ raise_exception('odd') }}{% endif %}" + path.read_text())
    model_spec.save(replace(model_spec.load(folder), template_sha256=template.digest(path.read_text())), folder)
    manifest.write(folder, manifest.Manifest("model", "c"))
    settle([replace(example(1, "Yes"), messages=[Message("user", "odd")]), example(2, "No")])
    assert main(["data", "inspect", "--json"]) == 3
    found = capsys.readouterr()
    assert json.loads(found.out)["examples"] == 1
    assert (
        "1 of 2 examples are refused and would be left out (the limit is 5%); the first is in.csv:1: the chat"
        in found.err
    )


def test_prefixes_that_disagree_stop_it(project, capsys):
    change_template(
        "{% for m in messages %}{{ loop.length }}{{ m.content }}<|im_end|>{% endfor %}{% if add_generation_prompt %}a:{% endif %}"
    )
    assert main(["data", "inspect"]) == 2
    assert "renders the text before turn 2 (assistant) in two ways" in capsys.readouterr().err


def test_chat_answers_one_prompt(project, capsys):
    assert main(["chat", "model", "--prompt", "Hi", "--max-new-tokens", "5"]) == 0
    plain = capsys.readouterr().out
    assert main(["chat", "model", "--prompt", "Hi", "--max-new-tokens", "5", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["prompt"] == "Hi"
    assert plain == found["answer"] + "\n"


def test_chat_reads_lines(project, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", text_io.StringIO("one\n\ntwo\n"))
    assert main(["chat", "artifacts/model", "--json", "--max-new-tokens", "3"]) == 0
    assert [json.loads(line)["prompt"] for line in capsys.readouterr().out.splitlines()] == ["one", "two"]


def test_what_a_model_says_is_no_command_to_the_terminal(project, capsys, monkeypatch):
    from tunectl.backends.modeling import chat_session

    def answer(self, prompt, *, on_text, **how):
        for piece in ("a\x1b", "]0;b\x07\n", "\x9b2J\u202e"):  # an escape in two pieces
            on_text(piece)
        return "a\x1b]0;b\x07\n\x9b2J\u202e"

    monkeypatch.setattr(chat_session.ChatSession, "answer", answer)
    assert main(["chat", "model", "--prompt", "Hi"]) == 0
    assert capsys.readouterr().out == "a\ufffd]0;b\ufffd\n\ufffd2J\ufffd\n"
    assert main(["chat", "model", "--prompt", "Hi", "--json"]) == 0
    shown = capsys.readouterr().out
    assert not {"\x1b", "\x07", "\x9b", "\u202e"} & set(shown)
    assert json.loads(shown)["answer"] == "a\x1b]0;b\x07\n\ufffd2J\ufffd"


def test_chat_is_a_conversation_in_a_terminal(project, capsys, monkeypatch):
    asked = iter(["one", "two", "", "three"])

    def ask(_prompt):
        try:
            return next(asked)
        except StopIteration:
            raise EOFError from None

    class Terminal(text_io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(sys, "stdin", Terminal())
    monkeypatch.setattr("builtins.input", ask)
    from tunectl.backends.modeling import chat_session

    prompts = []
    own = chat_session.ChatSession.answer
    monkeypatch.setattr(
        chat_session.ChatSession,
        "answer",
        lambda self, prompt, **how: prompts.append(prompt) or own(self, prompt, **how),
    )
    assert main(["chat", "model", "--max-new-tokens", "2", "--system", "Be brief."]) == 0
    start = "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n"
    assert [prompt.startswith(start + word) for prompt, word in zip(prompts, ("one", "one", "three"), strict=True)] == [
        True
    ] * 3
    assert prompts[1].count("<|im_start|>user") == 2
    assert "(a new conversation)\n" in capsys.readouterr().out


def test_chat_with_an_adapter_of_other_weights(project, capsys):
    folder = Path("adapter")
    atomic_io.write_json(folder / "adapter_config.json", {})
    own = json.loads(Path("artifacts/model/model_spec.json").read_text())
    (folder / "model_spec.json").write_text(json.dumps(own | {"weights_sha256": "0" * 64}))
    assert main(["chat", "adapter", "--prompt", "Hi"]) == 5
    expected = model_spec.load(Path("artifacts/model")).weights_sha256[:12]
    assert capsys.readouterr().err == (
        f"tunectl: adapter was trained on other weights (000000000000…) than artifacts/model has ({expected}…)\n"
        "  name the right one with --base, or rebuild: tunectl repro\n  more: tunectl docs was-trained-on-other-weights-than-has\n"
    )


def test_chat_with_what_is_no_model(project, capsys):
    Path("nothing").mkdir()
    assert main(["chat", "nothing", "--prompt", "Hi"]) == 2
    assert capsys.readouterr().err == (
        "tunectl: nothing is neither a model folder (config.json) nor an adapter folder (adapter_config.json)\n  give the name of a stage with a model, or one of these folders\n  more: tunectl docs is-neither-a-model-folder-config-json\n"
    )
    assert main(["chat", "--prompt", "Hi"]) == 5
    assert "artifacts/sft does not exist" in capsys.readouterr().err
