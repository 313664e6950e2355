"""Pairs as rows: what is shared, where rewards are read, and what is refused."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunectl.artifacts.records import AnnotationMetadata, Message, PreferencePair, Source
from tunectl.artifacts.row_counts import RowCounter
from tunectl.chat.loss_mask import TokenizedExample, TokenSpan
from tunectl.chat.template import TemplateRefusedError
from tunectl.training import batch_schedule
from tunectl.training.prefix_sharing import collate
from tunectl.training.reward import pair_batches
from tunectl.training.reward.pair_batches import TokenizedPair


def pair(number, prompt, chosen, rejected, margin=None):
    return PreferencePair(
        str(number),
        prompt,
        [Message("user", prompt)],
        [Message("assistant", chosen)],
        [Message("assistant", rejected)],
        [AnnotationMetadata(Source("f", number))],
        margin,
    )


def item(number, prompt, chosen, rejected, margin=None):
    return TokenizedPair(pair(number, prompt, "c", "r", margin), tuple(chosen), tuple(rejected))


@dataclass
class Letters:
    """A masker whose tokens are letters; the end of turn is 2."""

    def mask(self, examples, *, max_tokens=None):
        found = []
        for example in examples:
            before = [ord(letter) for message in example.messages for letter in message.content]
            answer = [*(ord(letter) for letter in example.answers[0].text.strip()), 2]
            found.append(
                TokenizedExample(
                    example, TokenSpan(before, [False] * len(before)), (TokenSpan(answer, [True] * len(answer)),)
                )
            )
        return found


class Refuses(Letters):
    """One that renders no conversation with a question mark, as a template that raises an exception."""

    def mask(self, examples, *, max_tokens=None):
        if any("?" in example.answers[0].text for example in examples):
            raise TemplateRefusedError("the chat template refuses a conversation of user, assistant: no questions")
        return super().mask(examples)


def test_a_pair_that_the_template_refuses_is_rejected_and_no_more():
    tally = RowCounter("reward")
    pairs = [pair(number, "Hi", f"a{number}", "b?" if number == 3 else "b") for number in range(8)]
    kept = pair_batches.tokenize_pairs(pairs, Refuses(), max_tokens=100, tally=tally)
    assert [one.pair.id for one in kept] == [one.id for one in pairs if one is not pairs[3]]
    assert [(reject.source.row, reject.reason) for reject in tally.rejects] == [(3, "template_refuses")]
    assert tally.finish(records_out=7).samples["template_refuses"][0].detail.endswith("no questions")


def test_rewards_are_read_at_the_last_token_of_each_answer():
    row = pair_batches.build_row([(1, 5, 6, 7, 2), (1, 5, 8, 2)])
    assert row.prompt.ids == [1, 5]
    assert row.length == 2 + 3 + 2
    flat = collate([row])
    assert flat.ids[0] == [1, 5, 6, 7, 2, 8, 2]
    assert flat.positions[0] == [0, 1, 2, 3, 4, 2, 3]
    assert flat.sources == [4, 6]


def test_an_answer_that_begins_another_keeps_its_end():
    row = pair_batches.build_row([(1, 5, 2), (1, 5, 2, 9, 2)])
    flat = collate([row])
    assert flat.ids[0] == [1, 5, 2, 2, 9, 2]
    assert flat.sources == [2, 5]


@given(st.lists(st.lists(st.integers(3, 6), min_size=1, max_size=8), min_size=1, max_size=5))
def test_rows_hold_the_sequences_they_were_made_of(some):
    whole = [(1, *one, 2) for one in some]
    row = pair_batches.build_row(whole)
    assert [(*row.prompt.ids, *branch.ids[:-1]) for branch in row.branches] == whole
    flat = collate([row])
    assert [flat.ids[0][place] for place in flat.sources] == [2] * len(whole)
    for place, one in zip(flat.sources, whole, strict=True):
        assert flat.positions[0][place] == len(one) - 1


def test_pairs_of_one_prompt_lie_side_by_side_and_equal_answers_are_read_once():
    items = [
        item(0, "a", (1, 5, 2), (1, 6, 2)),
        item(1, "b", (1, 9, 2), (1, 8, 2)),
        item(2, "a", (1, 5, 2), (1, 7, 2), 3.0),
    ]
    first, second = pair_batches.group_pairs(items, share=True, margins=True)
    assert len(first.rows) == 1
    assert len(first.branches) == 3
    assert [(pair.chosen, pair.rejected, pair.margin, pair.pair) for pair in first.pairs] == [
        (0, 1, 0.0, 0),
        (0, 2, 3.0, 2),
    ]
    assert [pair.pair for pair in second.pairs] == [1]
    assert first.tokens == 1 + 3 * 2
    assert first.unshared_tokens == 4 * 3
    assert [pair.margin for pair in pair_batches.group_pairs(items, share=True, margins=False)[0].pairs] == [0.0, 0.0]


def test_rows_of_their_own_name_the_same_answers():
    items = [item(0, "a", (1, 5, 2), (1, 6, 6, 2))]
    (apart,) = pair_batches.group_pairs(items, share=False, margins=False)
    assert [row.length for row in apart.rows] == [3, 4]
    assert apart.length == 8
    (shared,) = pair_batches.group_pairs(items, share=True, margins=False)
    assert pair_batches.split_answers([shared]) == [apart]


def test_many_pairs_of_one_prompt_are_cut_into_rows():
    items = [item(number, "a", (1, *[5] * 120, number, 2), (1, *[6] * 120, number, 2)) for number in range(10, 20)]
    found = pair_batches.group_pairs(items, share=True, margins=False)
    assert sorted(pair.pair for bundle in found for pair in bundle.pairs) == list(range(10))
    assert all(row.length <= pair_batches.MAX_SHARED_TOKENS for bundle in found for row in bundle.rows)
    assert len(found) == 4


def test_steps_hold_the_declared_pairs_and_fit_the_budget():
    items = [item(number, str(number), (1, *[5] * (number % 7), 2), (1, 6, 2)) for number in range(100)]
    some = pair_batches.group_pairs(items, share=True, margins=False)
    steps = batch_schedule.build_schedule(some, epochs=1, answers=20, tokens=64, seed=1)
    sizes = [sum(len(some[number].pairs) for group in step.batches for number in group) for step in steps]
    assert sum(sizes) == 100
    assert set(sizes) <= {9, 10, 11}
    for step in steps:
        assert all(len(group) * max(some[number].length for number in group) <= 64 for group in step.batches)


@pytest.mark.parametrize(
    ("made", "reason", "detail"),
    [
        (pair(1, "aaaa", "x" * 10, "y"), "too_long", "15 tokens; the limit is 12"),
        (pair(1, "aaaa", "x ", "x"), "same_answer", "the chat template makes the same tokens of chosen and rejected"),
    ],
)
def test_what_does_not_go_on_has_a_reason(made, reason, detail):
    tally = RowCounter("reward")
    kept = pair_batches.tokenize_pairs([made, pair(2, "b", "x", "y")], Letters(), max_tokens=12, tally=tally)
    assert [one.pair.id for one in kept] == ["2"]
    account = tally.finish(records_out=1)
    assert (account.rows_in, account.kept, account.rejected) == (2, 1, {reason: 1})
    assert account.samples[reason][0].detail == detail
    assert account.samples[reason][0].source == Source("f", 1)


def test_a_side_without_an_answer_is_refused():
    from msgspec.structs import replace

    tally = RowCounter("reward")
    broken = replace(pair(1, "a", "x", "y"), rejected=[Message("user", "y")])
    assert pair_batches.tokenize_pairs([broken], Letters(), max_tokens=12, tally=tally) == []
    assert tally.finish(records_out=0).samples["no_answer"][0].detail == (
        "an answer does not end with a turn of the assistant"
    )


def test_turns_before_the_last_belong_to_the_answer():
    long = PreferencePair(
        "1",
        "p",
        [Message("user", "a")],
        [Message("assistant", "b"), Message("user", "c"), Message("assistant", "d")],
        [Message("assistant", "e")],
        [AnnotationMetadata(Source("f", 1))],
    )
    (found,) = pair_batches.tokenize_pairs([long], Letters(), max_tokens=12, tally=RowCounter("reward"))
    assert found.chosen == (*map(ord, "abcd"), 2)
    assert found.rejected == (*map(ord, "ae"), 2)


def test_pairs_are_drawn_by_prompt_and_the_same_again():
    some = [pair(number, str(number // 4), "x", "y") for number in range(40)]
    found = pair_batches.subsample_prompts(some, 13, 1)
    assert len(found) == 12
    assert [one.id for one in found] == sorted((one.id for one in found), key=int)
    assert pair_batches.subsample_prompts(some, 13, 1) == found != pair_batches.subsample_prompts(some, 13, 2)
    assert len(pair_batches.subsample_prompts(some, 2, 1)) == 4  # one prompt at least
    assert pair_batches.subsample_prompts(some, None, 1) == some


def test_spread_of_equal_scores_divides_by_one():
    assert pair_batches.mean_std([2.0, 2.0]) == pair_batches.MeanStd(2.0, 1.0)
    assert pair_batches.mean_std([1.0, 3.0]) == pair_batches.MeanStd(2.0, 1.0)
    assert pair_batches.mean_std([0.0, 4.0]).scale == 2.0
