"""Rows, shared prompts and the schedule."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from tunectl.artifacts.records import Example, Source
from tunectl.chat.loss_mask import TokenizedExample, TokenSpan
from tunectl.training import batch_schedule, prefix_sharing

EXAMPLE = Example("e", Source("f", 1), weight=2.0)


def piece(ids, trained=True):
    return TokenSpan(list(ids), [trained] * len(ids))


def masked(*answers, prompt=(7, 8, 9)):
    return TokenizedExample(EXAMPLE, piece(prompt, trained=False), tuple(piece(answer) for answer in answers))


def test_answers_share_a_row_and_are_dealt_out_evenly():
    found = prefix_sharing.pack_example(masked([1] * 10, [2] * 10, [3] * 10), share=True, limit=23)
    assert [len(row.branches) for row in found] == [2, 1]
    assert [row.length for row in found] == [3 + 18, 3 + 9]
    assert [row.unshared_tokens for row in found] == [26, 13]
    assert sum(row.target_tokens for row in found) == 30


def test_without_sharing_each_answer_has_a_row():
    found = prefix_sharing.pack_example(masked([1, 2], [3, 4]), share=False, limit=512)
    assert [len(row.branches) for row in found] == [1, 1]
    assert (
        prefix_sharing.one_answer_per_row(prefix_sharing.pack_example(masked([1, 2], [3, 4]), share=True, limit=512))
        == found
    )


def test_places_and_targets():
    (row,) = prefix_sharing.pack_example(masked([4, 5], [6, 5]), share=True, limit=512)
    flat = prefix_sharing.collate([row, row])
    assert flat.ids == [[7, 8, 9, 4, 6]] * 2
    assert flat.positions == [[0, 1, 2, 3, 3]] * 2
    assert flat.branch == [[0, 0, 0, 1, 2]] * 2
    assert flat.sources == [2, 3, 2, 4, 7, 8, 7, 9]
    assert flat.targets == [4, 5, 6, 5] * 2
    assert set(flat.weights) == {2.0}
    assert flat.branched


def test_the_first_token_of_a_row_without_prompt_is_not_predicted():
    (row,) = prefix_sharing.pack_example(masked([4, 5, 6], prompt=()), share=True, limit=512)
    flat = prefix_sharing.collate([row])
    assert flat.sources == [0, 1]
    assert flat.targets == [5, 6]
    assert row.target_tokens == 2


def test_a_learned_prompt_token_counts_once_an_answer():
    shared = TokenizedExample(EXAMPLE, TokenSpan([7, 8, 9], [False, True, False]), (piece([4, 5]), piece([6, 5])))
    (row,) = prefix_sharing.pack_example(shared, share=True, limit=512)
    flat = prefix_sharing.collate([row])
    assert (flat.targets[0], flat.weights[0]) == (8, 4.0)
    assert row.target_tokens == 2 + 4


def test_padding_is_marked():
    short, long = (
        prefix_sharing.pack_example(masked([4, 5]), share=True, limit=9)[0],
        prefix_sharing.pack_example(masked([4] * 6), share=True, limit=9)[0],
    )
    flat = prefix_sharing.collate([short, long])
    assert flat.branch[0] == [0, 0, 0, 1, -1, -1, -1, -1]
    assert not flat.branched


@given(
    counts=st.lists(st.integers(1, 12), min_size=1, max_size=40),
    answers=st.integers(1, 40),
    tokens=st.integers(8, 200),
    epochs=st.sampled_from([0.5, 1, 2, 2.25]),
)
def test_a_schedule_holds_every_row_once_an_epoch_and_keeps_the_budget(counts, answers, tokens, epochs):
    found = [
        row
        for count in counts
        for row in prefix_sharing.pack_example(masked(*[[1] * (3 + count)] * count), share=True, limit=60)
    ]
    steps = batch_schedule.build_schedule(found, epochs=epochs, answers=answers, tokens=tokens, seed=1)
    assert steps == batch_schedule.build_schedule(found, epochs=epochs, answers=answers, tokens=tokens, seed=1)
    for epoch in range(1, int(epochs) + 1):
        seen = Counter(number for step in steps if step.epoch == epoch for batch in step.batches for number in batch)
        assert seen == Counter(range(len(found)))
    for batch in (batch for step in steps for batch in step.batches):
        width = max(found[number].length for number in batch)
        assert len(batch) == 1 or width * len(batch) <= tokens


def test_another_seed_is_another_order():
    found = [row for _ in range(50) for row in prefix_sharing.pack_example(masked([1, 2]), share=True, limit=60)]
    plans = [batch_schedule.build_schedule(found, epochs=1, answers=4, tokens=64, seed=seed) for seed in (1, 2)]
    assert plans[0] != plans[1]


def test_steps_have_about_the_declared_number_of_answers():
    found = [row for _ in range(64) for row in prefix_sharing.pack_example(masked(*[[1, 2]] * 4), share=True, limit=60)]
    steps = batch_schedule.build_schedule(found, epochs=1, answers=16, tokens=10_000, seed=1)
    assert {sum(len(found[n].branches) for batch in step.batches for n in batch) for step in steps} == {16}
