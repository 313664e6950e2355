"""Chat templates: the same text as transformers, marks, the sandbox, contracts."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunectl.artifacts.records import Message
from tunectl.chat import builtin_templates, model_spec, template
from tunectl.chat.template import RenderedChat, Template
from tunectl.core.errors import ArtifactError, DataError, UsageError

SMOL = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\n"
    "You are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
USER = Message("user", "Hi")


def test_a_default_system_text_and_a_declared_one():
    assert Template(SMOL).render([USER], add_generation_prompt=True) == (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )
    assert Template(SMOL, system="Be brief.").render([USER]) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
    )
    own = [Message("system", "Own."), USER]
    assert Template(SMOL, system="Be brief.").render(own) == Template(SMOL).render(own)


def test_the_date_is_that_of_today_also_long_after_the_template_was_compiled(monkeypatch):
    class Later(template.date):
        @classmethod
        def today(cls):
            return cls(2031, 5, 17)

    made = Template("{{ strftime_now('%d %B %Y') }}")
    assert made.render([USER]) == template.date.today().strftime("%d %B %Y")
    monkeypatch.setattr(template, "date", Later)
    assert made.render([USER]) == "17 May 2031"


TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\ufdd0\ufdd1"), max_size=40)


@given(
    texts=st.lists(TEXT, min_size=1, max_size=4),
    opens=st.booleans(),
    name=st.sampled_from(["own", *builtin_templates.list_templates()]),
)
@settings(max_examples=60, deadline=None)
def test_the_text_is_that_of_transformers(texts, opens, name):
    utils = pytest.importorskip("transformers.utils.chat_template_utils")
    source = SMOL if name == "own" else builtin_templates.get_template(name)
    messages = [Message("assistant" if i % 2 else "user", text) for i, text in enumerate(texts)]
    plain = [{"role": message.role, "content": message.content} for message in messages]
    theirs, spans = utils.render_jinja_template(
        conversations=[plain],
        chat_template=source,
        add_generation_prompt=opens,
        return_assistant_tokens_mask=name != "own",
        bos_token="<s>",
        eos_token="</s>",
    )
    ours = Template(source, "<s>", "</s>").render_marked(messages, add_generation_prompt=opens)
    assert ours.text == theirs[0]
    if name != "own":
        assert [tuple(span) for span in spans[0]] == list(ours.generated)


def test_marks_are_places_and_never_text():
    source = "{% for m in messages %}<{% generation %}{{ m.content }}!{% endgeneration %}>{% endfor %}"
    found = Template(source).render_marked([Message("assistant", "ab"), Message("assistant", "\ufdd0c\ufdd1")])
    assert found == RenderedChat("<ab!><c!>", ((1, 4), (6, 8)))
    assert Template(source).marks_generation
    assert not Template(SMOL).marks_generation


def test_tools_and_tool_calls_reach_the_template():
    source = (
        "{% for t in tools or [] %}{{ t | tojson }}{% endfor %}"
        "{% for m in messages if m.tool_calls %}{{ m.tool_calls | tojson }}{% endfor %}"
    )
    call = Message("assistant", "", tool_calls=[{"function": {"name": "f", "arguments": {"x": "é"}}}])
    assert Template(source).render([call], tools=[{"name": "f"}]) == (
        '{"name": "f"}[{"function": {"name": "f", "arguments": {"x": "é"}}}]'
    )


def test_a_template_that_refuses_is_quoted():
    source = "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    with pytest.raises(DataError) as caught:
        Template(source).render([Message("system", "x"), USER])
    assert caught.value.message == "the chat template refuses a conversation of system, user: System role not supported"


def test_a_template_reaches_nothing_of_python():
    for source in ("{{ messages.__class__.__mro__ }}", "{{ ''.__class__ }}", "{{ messages.append(1) }}"):
        with pytest.raises(DataError, match="refuses"):
            Template(source + "{{ (messages.__class__).x.y }}").render([USER])


def test_what_is_not_jinja_is_an_error():
    with pytest.raises(UsageError) as caught:
        Template("{% for %}").render([USER])
    assert (
        caught.value.message
        == "the chat template is not valid Jinja: line 1: expected token 'end of statement block', got ';'"
        or (caught.value.message.startswith("the chat template is not valid Jinja: line 1: "))
    )


def test_a_folder_whose_template_was_changed_is_refused(tiny_model, tmp_path):
    for name in ("chat_template.jinja", "model_spec.json"):
        (tmp_path / name).write_text((tiny_model / name).read_text())
    assert template.load(tmp_path).render([USER]) == "<|im_start|>user\nHi<|im_end|>\n"
    (tmp_path / "chat_template.jinja").write_text("other")
    with pytest.raises(ArtifactError) as caught:
        template.load(tmp_path)
    ours, theirs = template.digest("other")[:12], model_spec.load(tmp_path).template_sha256[:12]
    assert caught.value.message == (
        f"{tmp_path / 'chat_template.jinja'} differs from the template that {tmp_path / 'model_spec.json'} names: "
        f"its SHA-256 starts with {ours}, expected {theirs}"
    )
    assert caught.value.hint == "rebuild the model with: tunectl repro --force --to model"


def test_the_system_text_of_a_contract_is_used(tiny_model, tmp_path):
    for name in ("chat_template.jinja", "model_spec.json"):
        (tmp_path / name).write_text((tiny_model / name).read_text())
    facts = json.loads((tmp_path / "model_spec.json").read_text())
    (tmp_path / "model_spec.json").write_text(json.dumps(facts | {"system": "Short."}))
    assert template.load(tmp_path).system == "Short."
    assert template.load(tmp_path, system="Other.").system == "Other."


def test_named_templates():
    assert builtin_templates.list_templates() == ["chatml", "gemma", "llama3", "mistral", "plain", "zephyr"]
    assert builtin_templates.get_template("other") is None
    chat = [USER, Message("assistant", "Yes")]
    assert (
        Template(builtin_templates.get_template("plain"), "", "</s>").render(chat)
        == "User:\nHi</s>\nAssistant:\nYes</s>\n"
    )
    assert (
        Template(builtin_templates.get_template("mistral"), "<s>", "</s>").render(chat) == "<s>[INST] Hi [/INST]Yes</s>"
    )
