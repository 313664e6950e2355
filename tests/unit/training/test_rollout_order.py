"""Which inputs each step asks, and how answers are dealt to rows."""

from hypothesis import given
from hypothesis import strategies as st

from tunectl.training.rl.rollout_order import distribute_prompts, pack_answers, prompt_seed, prompts_per_step


@given(st.integers(1, 40), st.integers(1, 12), st.integers(1, 30), st.integers(0, 5))
def test_a_step_asks_different_questions_and_a_pass_asks_each_once(questions, each, steps, seed):
    found = prompts_per_step(questions, steps=steps, each=each, seed=seed)
    size = min(each, questions)
    assert len(found) == steps
    assert all(len(set(step)) == len(step) == size for step in found)
    asked = [number for step in found for number in step]
    counts = [asked.count(number) for number in range(questions)]
    assert max(counts) - min(counts) <= 1
    assert found == prompts_per_step(questions, steps=steps, each=each, seed=seed)
    assert found[: steps // 2] == prompts_per_step(questions, steps=steps // 2, each=each, seed=seed)


def test_seeds_differ_by_step_and_prompt():
    assert len({prompt_seed(3, step, place) for step in range(50) for place in range(8)}) == 400
    assert prompt_seed(3, 1, 0) == prompt_seed(3, 1, 0) != prompt_seed(4, 1, 0)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=20), st.integers(1, 6))
def test_prompts_are_dealt_to_ranks_once_and_evenly(lengths, ranks):
    shares = [distribute_prompts(lengths, rank=rank, world_size=ranks) for rank in range(ranks)]
    assert sorted(place for share in shares for place in share) == list(range(len(lengths)))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    assert all(share == sorted(share) for share in shares)
    assert distribute_prompts(lengths, rank=0, world_size=1) == list(range(len(lengths)))


@given(st.lists(st.integers(1, 50), max_size=20), st.integers(1, 100), st.booleans())
def test_every_answer_is_dealt_once(lengths, prompt, shared):
    groups = pack_answers(lengths, prompt, shared=shared, limit=120)
    assert sorted(place for group in groups for place in group) == list(range(len(lengths)))
    assert all(groups)
    if not shared:
        assert all(len(group) == 1 for group in groups)
