"""Judged answers as rows: what is shared, what is learned from, what is rejected and why."""

import dataclasses
import shutil

import pytest
from msgspec.structs import replace

from tunectl.artifacts.records import AnnotationMetadata, LabeledCompletion, Message, PreferencePair, Source
from tunectl.artifacts.row_counts import RowCounter
from tunectl.chat import model_spec, template
from tunectl.chat.loss_mask import LossMasker, TokenSpan
from tunectl.chat.tokenizer import Tokenizer
from tunectl.config.schema.align import Dpo, Kto
from tunectl.core.errors import DataError
from tunectl.training.prefix_sharing import ROW_TOKENS, PackedRow, collate
from tunectl.training.reward import pair_batches
from tunectl.training.rl import preference_batches
from tunectl.training.rl.preference_batches import PreferenceSplit

WATCH = {
    "eval_steps": 4,
    "inputs": 4,
    "metric": {"method": "score", "name": "chrf"},
    "tolerance": 1.0,
    "confidence": 0.9,
    "resamples": 100,
    "samples": 2,
}
LEARNING = {
    "learning_rate": 1e-3,
    "lr_scheduler": "linear",
    "warmup_ratio": 0.0,
    "weight_decay": 0.0,
    "max_grad_norm": None,
    "max_rejected_share": 0.1,
    "save_steps": 2,
    "validation": WATCH,
    "epochs": 1,
    "max_length": 400,
    "max_new_tokens": 8,
    "beta": 0.1,
}


def dpo(**changes):
    own = {"method": "dpo", "loss": "sigmoid", "label_smoothing": 0.0, "ld_alpha": None, "batch_size": 4}
    return Dpo.model_validate({**LEARNING, **own, **changes})


def kto(**changes):
    own = {"method": "kto", "desirable_weight": 1.0, "undesirable_weight": 1.0, "batch_size": 4}
    return Kto.model_validate({**LEARNING, **own, **changes})


@pytest.fixture(scope="module")
def masker(tiny_model):
    return LossMasker(template.load(tiny_model, system=None), Tokenizer(tiny_model), end_of_turn=2, train_on="answer")


@pytest.fixture(scope="module")
def words(tiny_model):
    tokenizer = Tokenizer(tiny_model)
    return lambda ids: "".join(tokenizer.tokens_of(list(ids)))


def said(text):
    return [Message("assistant", text)]


def pair(number, chosen="good", rejected="bad", *, asked="Hi", margin=None):
    vote = AnnotationMetadata(Source("pairs.jsonl", number))
    return PreferencePair(
        f"p{number}", f"d{asked}", [Message("user", asked)], said(chosen), said(rejected), [vote], margin
    )


def mark(number, text, *, good, asked="Hi"):
    vote = AnnotationMetadata(Source("labeled_completions.jsonl", number))
    return LabeledCompletion(f"m{number}", f"d{asked}", [Message("user", asked)], said(text), good, [vote])


def test_a_pair_shares_its_prompt_and_learns_from_both_answers(masker, words):
    tally = RowCounter("align")
    (found,) = preference_batches.rows_of_pairs(
        [pair(1, "good", "bad one", margin=2.0)], masker, max_tokens=400, tally=tally
    )
    assert words(found.row.prompt.ids) == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    assert [words(branch.ids) for branch in found.row.branches] == ["good<|im_end|>", "bad one<|im_end|>"]
    assert all(all(branch.trained) for branch in found.row.branches)
    assert not any(found.row.prompt.trained)
    assert (found.good, found.margin) == ((True, False), 2.0)
    assert (tally.rows_in, tally.kept) == (1, 1)


def test_answers_that_the_template_refuses_are_rejected_and_no_more(tiny_model):
    own = template.load(tiny_model, system=None)
    refusing = "{% for m in messages if '?' in m.content %}{{ raise_exception('no questions') }}{% endfor %}"
    masker = LossMasker(
        dataclasses.replace(own, source=refusing + own.source), Tokenizer(tiny_model), end_of_turn=2, train_on="answer"
    )
    tally = RowCounter("align")
    rows = preference_batches.rows_of_pairs([pair(1), pair(2, "good?"), pair(3)], masker, max_tokens=400, tally=tally)
    marks = [mark(4, "fine", good=True), mark(5, "what?", good=True)]
    rows += preference_batches.rows_of_labeled_answers(marks, masker, max_tokens=400, tally=tally)
    assert [len(row.good) for row in rows] == [2, 2, 1]
    assert [(reject.source.row, reject.reason) for reject in tally.rejects] == [
        (2, "template_refuses"),
        (5, "template_refuses"),
    ]
    assert all(reject.detail.endswith("no questions") for reject in tally.rejects)
    tally.finish(records_out=3)


def test_answers_that_begin_alike_share_no_more_than_the_prompt(masker, words):
    (found,) = preference_batches.rows_of_pairs(
        [pair(1, "same start A", "same start B")], masker, max_tokens=400, tally=RowCounter("align")
    )
    assert words(found.row.prompt.ids).endswith("assistant\n")
    assert [words(branch.ids) for branch in found.row.branches] == [
        "same start A<|im_end|>",
        "same start B<|im_end|>",
    ]


def test_of_a_conversation_only_what_follows_the_prompt_is_learned(masker, words):
    before = [Message("user", "a"), Message("assistant", "b", train=True), Message("user", "c")]
    longer = [Message("assistant", "x"), Message("user", "y"), Message("assistant", "z")]
    one = PreferencePair("p", "d", before, longer, said("q"), [AnnotationMetadata(Source("f", 1))])
    (found,) = preference_batches.rows_of_pairs([one], masker, max_tokens=400, tally=RowCounter("align"))
    chosen = found.row.branches[0]
    learned = [token for token, trained in zip(chosen.ids, chosen.trained, strict=True) if trained]
    assert words(learned) == "x<|im_end|>z<|im_end|>"
    assert not any(found.row.prompt.trained)
    assert words(found.row.prompt.ids).count("<|im_start|>") == 4
    flat = collate([found.row])
    assert words(flat.targets) == "x<|im_end|>z<|im_end|>q<|im_end|>"


CALL = {"id": "call00000", "type": "function", "function": {"name": "weather", "arguments": {"town": "Rome"}}}


def test_an_answer_that_calls_a_tool_is_a_call_to_the_template(tiny_model, tmp_path, words):
    shutil.copytree(tiny_model, tmp_path / "model")
    source = (tiny_model / template.FILE).read_text()
    own = "message['content'] + (message['tool_calls'][0].function.name if message['tool_calls'] else '') +"
    source = source.replace("message['content'] +", own)  # a form of its own for calls: the name of the first
    (tmp_path / "model" / template.FILE).write_text(source)
    agreed = replace(model_spec.load(tiny_model), template_sha256=template.digest(source))
    model_spec.save(agreed, tmp_path / "model")
    asking = [Message("assistant", "", tool_calls=[CALL])]
    one = PreferencePair(
        "p", "d", [Message("user", "Warm?")], asking, said("Maybe."), [AnnotationMetadata(Source("f", 1))]
    )
    told = '<tool_call>\n{"name": "weather", "arguments": {"town": "Rome"}}\n</tool_call><|im_end|>'
    for folder, chosen in ((tiny_model, told), (tmp_path / "model", "weather<|im_end|>")):
        masker = LossMasker(template.load(folder, system=None), Tokenizer(folder), end_of_turn=2, train_on="answer")
        (found,) = preference_batches.rows_of_pairs([one], masker, max_tokens=400, tally=RowCounter("align"))
        assert [words(branch.ids) for branch in found.row.branches] == [chosen, "Maybe.<|im_end|>"]
        (compared,) = pair_batches.tokenize_pairs([one], masker, max_tokens=400, tally=RowCounter("reward"))
        assert words(compared.chosen).endswith("assistant\n" + chosen)


def test_pairs_that_teach_nothing_are_rejected_with_the_reason(masker):
    tally = RowCounter("align")
    open_end = replace(pair(5), rejected=[Message("user", "and?")])
    some = [pair(1), pair(2, "x" * 500), pair(3, rejected="y" * 500), pair(4, "same", "same"), open_end]
    assert len(preference_batches.rows_of_pairs(some, masker, max_tokens=100, tally=tally)) == 1
    assert [(reject.source.row, reject.reason) for reject in tally.rejects] == [
        (2, "too_long"),
        (3, "too_long"),
        (4, "same_answer"),
        (5, "no_answer"),
    ]
    assert tally.rejects[0].detail.endswith("tokens; the limit is 100")
    assert tally.finish(records_out=1).rows_in == 5


def test_marked_answers_of_one_input_lie_in_one_row(masker, words):
    some = [mark(1, "a", good=True), mark(2, "b", good=False, asked="Ho"), mark(3, "c", good=False)]
    found = preference_batches.rows_of_labeled_answers(some, masker, max_tokens=400, tally=RowCounter("align"))
    assert [[words(branch.ids) for branch in item.row.branches] for item in found] == [
        ["a<|im_end|>", "c<|im_end|>"],
        ["b<|im_end|>"],
    ]
    assert [item.good for item in found] == [(True, False), (False,)]


def test_long_marked_answers_are_dealt_to_several_rows(masker):
    some = [mark(number, chr(97 + number) * 150, good=number % 2 == 0) for number in range(5)]
    found = preference_batches.rows_of_labeled_answers(some, masker, max_tokens=400, tally=RowCounter("align"))
    assert [len(item.good) for item in found] == [2, 2, 1]
    assert all(item.row.length <= ROW_TOKENS for item in found)
    kinds = {chr(item.row.branches[place].ids[0]): kind for item in found for place, kind in enumerate(item.good)}
    assert list(kinds.values()).count(True) == 3


def test_strangers_are_the_answers_of_the_row_before():
    some = [PackedRow(TokenSpan([number], [False]), (TokenSpan([10 + number], [True]),), 1.0) for number in range(3)]
    found = preference_batches.kto_mismatched_pairs(some)
    assert [(row.prompt.ids, row.branches[0].ids) for row in found] == [([0], [12]), ([1], [10]), ([2], [11])]


def test_kto_takes_pairs_apart_and_says_so(masker, caplog):
    caplog.set_level("INFO", logger="tunectl")
    train = PreferenceSplit([pair(1), pair(2)], [])
    found, held_out = preference_batches.build_rows(
        kto(), train, PreferenceSplit([pair(3)], []), masker, RowCounter("align")
    )
    assert [item.good for item in found] == [(True, False)] * 2
    assert [item.good for item in held_out] == [(True, False)]
    assert "align: 0 labeled answers, and 2 pairs as a good and a bad answer each" in caplog.text


def test_kto_takes_labeled_answers_and_pairs(masker):
    train = PreferenceSplit([pair(1)], [mark(1, "a", good=True), mark(2, "b", good=False, asked="Ho")])
    found, held_out = preference_batches.build_rows(
        kto(), train, PreferenceSplit([pair(3)], []), masker, RowCounter("align")
    )
    assert [item.good for item in found] == [(True,), (False,), (True, False)]
    assert [item.good for item in held_out] == [(True, False)]


@pytest.mark.parametrize(
    ("settings", "train", "message", "hint"),
    [
        (
            dpo(),
            PreferenceSplit([], [mark(1, "a", good=True)]),
            "align: dpo learns from collected judgments, and preferences has no pairs in its training part",
            "collect some with: tunectl annotate, or declare a file in preferences.sources; or use: align=none",
        ),
        (
            kto(),
            PreferenceSplit([], []),
            "align: kto learns from collected judgments, and preferences has neither labeled answers nor pairs in its training part",
            "collect some with: tunectl annotate, or declare a file in preferences.sources; or use: align=none",
        ),
        (
            kto(),
            PreferenceSplit([], [mark(1, "a", good=False), mark(2, "b", good=False, asked="Ho")]),
            "align: kto learns from good and bad answers, and all 2 labeled answers of the training part are bad",
            "add answers labeled good to preferences.sources, or add pairs and use: align=dpo",
        ),
        (
            dpo(max_length=16),
            PreferenceSplit([pair(1), pair(2)], []),
            (
                "align: none of the 2 pairs of the training part can be learned from; the first is rejected as too_long "
                "(26 tokens; the limit is 16)"
            ),
            "if they are too long, raise align.max_length (now 16); else add other judgments to preferences.sources",
        ),
    ],
    ids=["dpo without pairs", "kto without anything", "one kind of mark", "all too long"],
)
def test_what_cannot_be_learned_from_is_named(masker, settings, train, message, hint):
    with pytest.raises(DataError) as caught:
        preference_batches.build_rows(settings, train, PreferenceSplit([], []), masker, RowCounter("align"))
    assert caught.value.message == message
    assert caught.value.hint == hint


def test_label_smoothing_needs_the_loss_that_has_it():
    assert dpo(loss="robust", label_smoothing=0.1).label_smoothing == 0.1
    with pytest.raises(
        ValueError, match=r"label_smoothing is 0\.1, and loss sigmoid has none; set it to 0, or loss to robust"
    ):
        dpo(label_smoothing=0.1)
