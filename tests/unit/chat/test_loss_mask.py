"""Which tokens are learned from, through the real tokenizers library and a byte-level vocabulary."""

import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunectl.artifacts.records import Example, Message, ReferenceAnswer, Segment, Source, Tokens
from tunectl.artifacts.row_counts import RowCounter
from tunectl.chat import builtin_templates, template
from tunectl.chat.loss_mask import LossMasker, mask_each
from tunectl.chat.template import Template
from tunectl.chat.tokenizer import Tokenizer
from tunectl.core.errors import ArtifactError, DataError
from tunectl.training.sft import sft_dataset

END = 2


@pytest.fixture(scope="module")
def tokenizer(tiny_model):
    return Tokenizer(tiny_model)


def masker(tokenizer, source, **changes):
    chat = source if isinstance(source, Template) else Template(source, "", "<|im_end|>")
    return LossMasker(chat, tokenizer, **{"end_of_turn": END, "train_on": "final_answer", **changes})


@pytest.fixture(scope="module")
def chatml(tiny_model):
    return template.load(tiny_model)


def example(*answers, messages=(("user", "Hi"),), **fields):
    given_messages = [item if isinstance(item, Message) else Message(*item) for item in messages]
    return Example(
        "e",
        Source("in.csv", 7),
        given_messages,
        [ReferenceAnswer(text, Source("in.csv", 7)) for text in answers],
        **fields,
    )


def learned(tokenizer, masked, answer=0):
    """The learned tokens of one answer's whole sequence, as text, with '|' where learned runs are apart."""
    ids = masked.prompt.ids + masked.answers[answer].ids
    flags = masked.prompt.trained + masked.answers[answer].trained
    runs, before = [], False
    for number, flag in zip(ids, flags, strict=True):
        if flag:
            runs = [*runs[:-1], [*runs[-1], number]] if before else [*runs, [number]]
        before = flag
    return [tokenizer.text_of(run) for run in runs]


def test_the_answer_and_its_end_are_learned_and_nothing_else(tokenizer, chatml):
    (found,) = masker(tokenizer, chatml).mask([example("Yes", "No, never")])
    assert learned(tokenizer, found, 0) == ["Yes<|im_end|>"]
    assert learned(tokenizer, found, 1) == ["No, never<|im_end|>"]
    assert tokenizer.text_of(found.prompt.ids) == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    assert found.answers[0].ids[-1] == END


def test_a_special_token_that_two_parts_of_a_turn_write_is_text(tokenizer, chatml):
    parts = [
        Segment("What <|im_", train=False),
        Segment("end|> ends", train=True),
        Segment("\ufdd2 <|im_end|>", train=False),
    ]
    answer = ReferenceAnswer("".join(part.text for part in parts), Source("in.csv", 7), parts=parts)
    (found,) = masker(tokenizer, chatml).mask([Example("e", Source("in.csv", 7), [Message("user", "Hi")], [answer])])
    assert learned(tokenizer, found) == ["end|> ends"]


@pytest.mark.parametrize("name", ["chatml", "mistral", "plain", "zephyr"])  # the other ends are no tokens here
def test_marks_and_prefixes_agree(tokenizer, name):
    marked = builtin_templates.get_template(name)
    bare = marked.replace("{% generation %}", "").replace("{% endgeneration %}", "")
    end = tokenizer.id_of("<|im_end|>")
    chat = [example("Yes", "No", messages=[("user", "a"), ("assistant", "b"), ("user", "c")])]
    for train_on in ("final_answer", "assistant"):
        by_marks, by_prefix = (
            masker(tokenizer, source, end_of_turn=end, train_on=train_on).mask(chat)[0] for source in (marked, bare)
        )
        assert [learned(tokenizer, by_marks, i) for i in (0, 1)] == [learned(tokenizer, by_prefix, i) for i in (0, 1)]


def test_a_row_that_the_template_refuses_is_rejected_and_no_more(tokenizer, chatml):
    refusing = "{% for m in messages if '?' in m.content %}{{ raise_exception('no questions') }}{% endfor %}"
    own = masker(tokenizer, replace(chatml, source=refusing + chatml.source))
    rows = [example("Yes", "No"), example("Why", "Why?"), *[example(str(number)) for number in range(300)]]
    tally = RowCounter("sft")
    kept = sft_dataset.tokenize_examples(rows, own, sft_dataset.LengthLimits(100), tally)
    assert [one.example for one in kept] == [rows[0], *rows[2:]]
    assert tally.finish(records_out=301).rejected == {"template_refuses": 2}
    with pytest.raises(DataError, match="the chat template refuses a conversation of user, assistant: no questions"):
        sft_dataset.tokenize_examples(rows[1:2], own, sft_dataset.LengthLimits(100), RowCounter("sft"))


def test_all_assistant_turns(tokenizer, chatml):
    chat = example("d", messages=[("user", "a"), ("assistant", "b"), ("user", "c")])
    (answer,) = masker(tokenizer, chatml).mask([chat])
    (every,) = masker(tokenizer, chatml, train_on="assistant").mask([chat])
    assert learned(tokenizer, answer) == ["d<|im_end|>"]
    assert learned(tokenizer, every) == ["b<|im_end|>", "d<|im_end|>"]


def test_a_flag_of_a_message_comes_first(tokenizer, chatml):
    def chat(flag):
        return example("d", messages=[("user", "a"), Message("assistant", "b", train=flag), ("user", "c")])

    (wanted,) = masker(tokenizer, chatml).mask([chat(True)])
    (unwanted,) = masker(tokenizer, chatml, train_on="assistant").mask([chat(False)])
    assert learned(tokenizer, wanted) == ["b<|im_end|>", "d<|im_end|>"]
    assert learned(tokenizer, unwanted) == ["d<|im_end|>"]


def test_segments(tokenizer, chatml):
    chat = replace_body(segments=[Segment("ab", train=False), Segment("cd", train=True), Segment("e", train=False)])
    (found,) = masker(tokenizer, chatml).mask([chat])
    assert learned(tokenizer, found) == ["cd"]
    assert tokenizer.text_of(found.answers[0].ids) == "abcd"


def test_tokens_are_taken_as_they_are(tokenizer, chatml):
    (found,) = masker(tokenizer, chatml).mask([replace_body(tokens=Tokens([5, 6, 7], [-100, 6, 7]))])
    assert found.answers[0].ids == [5, 6, 7]
    assert found.answers[0].trained == [False, True, True]


def replace_body(**body):
    return Example("e", Source("f", 1), **body)


def test_an_end_inside_the_answer_does_not_cut_it(tokenizer, chatml):
    (found,) = masker(tokenizer, chatml).mask([example("a<|im_end|>b")])
    assert learned(tokenizer, found) == ["a<|im_end|>b<|im_end|>"]


def test_prefixes_that_disagree_are_shown(tokenizer):
    source = (
        "{% for m in messages %}{% if loop.last and m.role == 'assistant' %}<think></think>{% endif %}"
        "{{ m.role + ':' + m.content }}<|im_end|>{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"
    )
    with pytest.raises(DataError) as caught:
        masker(tokenizer, source).mask([example("Yes")])
    assert caught.value.message == (
        "in.csv:7: the chat template renders the text before turn 2 (assistant) in two ways, which differ at character 17\n"
        "    before the answer: 'user:Hi<|im_end|>assistant:'\n"
        "    with the answer:   'user:Hi<|im_end|><think></think>assistant:Yes<|im_end|>'"
    )
    assert caught.value.hint == "mark what is generated in the template: {% generation %} ... {% endgeneration %}"


def test_marks_that_miss_a_turn_are_an_error(tokenizer):
    source = (
        "{% for m in messages %}{% if loop.last %}{% generation %}{{ m.content }}{% endgeneration %}"
        "{% else %}{{ m.content }}{% endif %}{% endfor %}"
    )
    with pytest.raises(DataError) as caught:
        masker(tokenizer, source).mask([example("d", messages=[("user", "a"), ("assistant", "b"), ("user", "c")])])
    assert caught.value.message == (
        "in.csv:7: the chat template marks 1 generated parts in a conversation with 2 assistant turns"
    )
    with pytest.raises(DataError, match="marks 1 generated parts"):  # a fault of the template, and no reject of the row
        mask_each(
            masker(tokenizer, source),
            [example("e"), example("d", messages=[("user", "a"), ("assistant", "b"), ("user", "c")])],
            max_tokens=100,
        )


LETTERS = st.text(st.characters(exclude_categories=("Cs", "Cn")), min_size=1, max_size=30)
"""What is no character of Unicode marks turns, and is left out of what a template is given."""


@given(
    prompt=LETTERS,
    answers=st.lists(LETTERS, min_size=1, max_size=4),
)
@settings(max_examples=80, deadline=None)
def test_any_text_is_learned_whole(tokenizer, chatml, prompt, answers):
    (found,) = masker(tokenizer, chatml).mask([example(*answers, messages=[("user", prompt)])])
    for number, text in enumerate(answers):
        (whole,) = tokenizer.encode([chatml.render([Message("user", prompt), Message("assistant", text)])])
        sequence = found.prompt.ids + found.answers[number].ids
        assert sequence == whole.ids[: len(sequence)]
        assert sum(found.answers[number].trained) == len(tokenizer.encode([text + "<|im_end|>"])[0].ids)


def test_an_answer_that_melts_into_the_prompt_is_not_shared(tiny_model, tmp_path):
    """A vocabulary with the token 'tY': the prompt's last letter and the answer's first are one token."""
    import json

    facts = json.loads((tiny_model / "tokenizer.json").read_text())
    facts["model"]["vocab"]["tY"] = 259
    facts["model"]["merges"] = [["t", "Y"]]
    (tmp_path / "tokenizer.json").write_text(json.dumps(facts))
    own = Tokenizer(tmp_path)
    source = "{% for m in messages %}{{ m.content }}<|im_end|>{% endfor %}{% if add_generation_prompt %}t{% endif %}"
    source = source.replace("{{ m.content }}", "{{ ('t' if m.role == 'assistant' else '') + m.content }}")
    (found,) = masker(own, source).mask([example("Yes", "No")])
    assert found.prompt.ids == []
    assert learned(own, found, 0) == ["es<|im_end|>"]
    assert learned(own, found, 1) == ["No<|im_end|>"]


def test_a_tokenizer_that_is_none(tmp_path):
    with pytest.raises(ArtifactError) as caught:
        Tokenizer(tmp_path)
    assert caught.value.message == f"{tmp_path / 'tokenizer.json'}, the tokenizer, does not exist"
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ArtifactError, match="is not a tokenizer"):
        Tokenizer(tmp_path)


def test_the_mask_of_an_example_keeps_its_weight(tokenizer, chatml):
    (found,) = masker(tokenizer, chatml).mask([example("x", weight=2.5)])
    assert found.example.weight == 2.5
    assert replace(found).example.id == "e"


def test_many_trained_parts_take_linear_time(tokenizer, chatml):
    count = 20_000
    row = Example("e", Source("in.csv", 7), segments=[Segment("ab ", False), Segment("cd ", True)] * count)
    started = time.process_time()
    (found,) = masker(tokenizer, chatml).mask([row])
    assert time.process_time() - started < 8
    assert tokenizer.text_of(
        [n for n, on in zip(found.answers[0].ids, found.answers[0].trained, strict=True) if on]
    ) == ("cd " * count)


def with_many_turns(count, **fields):
    turns = [("user", "a") if index % 2 == 0 else ("assistant", "b") for index in range(count - 1)]
    return example("c", messages=turns, **fields)


def test_an_example_that_is_too_long_is_not_masked(tokenizer, chatml, monkeypatch):
    """Its length is the whole one, and the turns before the answer are not rendered one by one."""
    bare = Template(chatml.source.replace("{% generation %}", "").replace("{% endgeneration %}", ""), "", "<|im_end|>")
    own = masker(tokenizer, bare, train_on="assistant")
    chat = with_many_turns(40)
    (whole,) = own.mask([chat])
    length = len(whole.prompt.ids) + len(whole.answers[0].ids)
    (fits,) = own.mask([chat], max_tokens=length)
    assert fits == whole
    calls = []
    render = Template.render
    monkeypatch.setattr(Template, "render", lambda self, *given, **how: calls.append(1) or render(self, *given, **how))
    (cut,) = own.mask([chat], max_tokens=length - 1)
    assert len(calls) == 2
    assert cut.prompt.ids + cut.answers[0].ids == whole.prompt.ids + whole.answers[0].ids


def test_an_answer_that_fits_beside_one_that_is_too_long_is_masked(tokenizer, chatml):
    bare = Template(chatml.source.replace("{% generation %}", "").replace("{% endgeneration %}", ""), "", "<|im_end|>")
    own = masker(tokenizer, bare, train_on="assistant")
    chat = example("c", "d" * 500, messages=[("user", "a"), ("assistant", "b"), ("user", "a")])
    assert own.mask([chat], max_tokens=300) == own.mask([chat])


@pytest.mark.parametrize("marked", [True, False])
def test_each_token_is_looked_at_about_once(tokenizer, chatml, marked):
    """The mask of a conversation of many turns asks for the positions of its tokens a few times each, and not once for each turn."""
    source = (
        chatml.source if marked else chatml.source.replace("{% generation %}", "").replace("{% endgeneration %}", "")
    )
    own = masker(tokenizer, Template(source, "", "<|im_end|>"), train_on="assistant")
    looked = []

    class Positions(list):
        def __iter__(self):
            looked.append(len(self))
            return super().__iter__()

        def __getitem__(self, index):
            looked.append(1)
            return super().__getitem__(index)

    def encode(texts):
        return [replace(item, offsets=Positions(item.offsets)) for item in tokenizer.encode(texts)]

    own._tokenizer = SimpleNamespace(encode=encode)
    (found,) = own.mask([with_many_turns(60)])
    assert sum(looked) <= 8 * len(found.prompt.ids + found.answers[0].ids)
    assert learned(tokenizer, found) == ["b<|im_end|>"] * 29 + ["c<|im_end|>"]
