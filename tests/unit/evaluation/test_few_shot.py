"""Prompts, examples, and the search among them."""

from tunectl.artifacts.records import Example, Message, ReferenceAnswer, Segment, Source
from tunectl.chat import tool_calls
from tunectl.config.schema.evaluate import Greedy
from tunectl.evaluation import few_shot, items, prompt_search, train_overlap
from tunectl.evaluation.few_shot import FewShotRenderer, FewShotSampler
from tunectl.evaluation.items import Item
from tunectl.evaluation.prompt_search import TokenBudget
from tunectl.evaluation.protocols import GeneratedText
from tunectl.evaluation.results import PromptDescription
from tunectl.evaluation.system import GenerationSettings


class ChatMl:
    def render(self, messages, *, add_generation_prompt=False, tools=()):
        text = "".join(f"<s>{message.role}\n{message.content}<e>\n" for message in messages)
        return text + ("<s>assistant\n" if add_generation_prompt else "")


PROMPTER = FewShotRenderer(ChatMl(), "<e>")


def item(number, system=None):
    turns = [Message("user", f"question {number}")]
    if system:
        turns.insert(0, Message("system", system))
    return Item(f"i{number}", tuple(turns), (f"answer {number}", "other"))


class Reversed:
    """Finds the last texts."""

    def __init__(self, size):
        self.size = size

    def nearest(self, queries, count):
        return [[self.size - 1 - place for place in range(count)] for _ in queries]


def test_the_reference_follows_the_prompt_up_to_the_end_of_turn():
    messages = [Message("user", "hi")]
    assert PROMPTER.prompt(messages) == "<s>user\nhi<e>\n<s>assistant\n"
    assert PROMPTER.answer(messages, Message("assistant", "yes")) == "yes<e>"


def test_a_template_that_writes_turns_in_two_ways_still_gives_the_reference():
    class Odd(ChatMl):
        def render(self, messages, *, add_generation_prompt=False, tools=()):
            return "think" if add_generation_prompt else "whole"

    assert FewShotRenderer(Odd(), "<e>").answer([Message("user", "hi")], Message("assistant", "yes")) == "yes<e>"


class Calling(ChatMl):
    """A template with a form of its own for tool calls."""

    def render(self, messages, *, add_generation_prompt=False, tools=()):
        told = [
            Message(
                turn.role, turn.content + "".join(f"[{call['function']['name']}]" for call in turn.tool_calls or ())
            )
            for turn in messages
        ]
        return super().render(told, add_generation_prompt=add_generation_prompt)


def test_a_reference_that_calls_a_tool_is_rendered_as_a_call_and_so_is_a_worked_example():
    call = {"type": "function", "function": {"name": "weather", "arguments": {"town": "Rome"}}}
    source = Source("f", 1)
    turn = Message("assistant", "Let me look.", tool_calls=[call])
    example = Example("e", source, messages=[Message("user", "hi")], answers=[tool_calls.to_answer(turn, source)])
    (found,), _ = items.from_examples([example])
    assert found.references == (
        'Let me look.\n<tool_call>\n{"name": "weather", "arguments": {"town": "Rome"}}\n</tool_call>',
    )
    shots, prompter = FewShotSampler([found], None, seed=1), FewShotRenderer(Calling(), "<e>")
    rendered = few_shot.render_items([found], PromptDescription(None, 1, "random"), shots, prompter, 4)
    assert rendered.references == [("Let me look.[weather]<e>",)]
    assert rendered.prompts[0].count("<s>assistant\nLet me look.[weather]<e>") == 1


def test_examples_stand_between_system_text_and_input():
    talk = few_shot.conversation(item(1, "own"), PromptDescription("new", 1, "random"), [item(2)])
    assert [(message.role, message.content) for message in talk] == [
        ("system", "new"),
        ("user", "question 2"),
        ("assistant", "answer 2"),
        ("user", "question 1"),
    ]
    kept = few_shot.conversation(item(1, "own"), PromptDescription(None), [])
    assert kept[0].content == "own"


def test_random_examples_are_the_same_for_all_and_retrieved_ones_end_with_the_nearest():
    pool = [item(number) for number in range(10)]
    shots = FewShotSampler(pool, Reversed(10), seed=1)
    first, second = shots.of(PromptDescription(None, 3, "random"), pool[:2])
    assert first == second
    assert len({example.id for example in first}) == 3
    assert FewShotSampler(pool, None, seed=1).of(PromptDescription(None, 3, "random"), pool[:1]) == [first]
    found = shots.of(PromptDescription(None, 2, "retrieved"), pool[:1])[0]
    assert [example.id for example in found] == ["i8", "i9"]


def test_candidates_are_ordered_by_price_and_without_twins():
    found = few_shot.candidates([None, "new"], [3, 0], ["random", "retrieved"])
    assert [(c.system, c.shots, c.selection) for c in found] == [
        (None, 0, None),
        ("new", 0, None),
        (None, 3, "random"),
        ("new", 3, "random"),
        (None, 3, "retrieved"),
        ("new", 3, "retrieved"),
    ]


class Counting:
    context = 60

    def lengths(self, texts):
        return [len(text.split()) for text in texts]

    def answer(self, requests, how, *, seed, label):
        return [
            GeneratedText(str(request.prompt.count("answer")), len(request.prompt.split()), 2, 0.5, True)
            for request in requests
        ]


def find(wanted, budget):
    asking = GenerationSettings(Greedy(method="greedy", max_new_tokens=5), 1, 0)
    pool = [item(number) for number in range(30)]
    return prompt_search.search(
        Counting(),
        [item(100), item(101)],
        wanted,
        shots=FewShotSampler(pool, None, 1),
        prompter=PROMPTER,
        asking=asking,
        budget=TokenBudget(budget),
        judge=lambda items, answers: float(answers[0]),
    )


def test_the_best_prompt_is_chosen_and_its_cost_counted():
    found = find([PromptDescription(None), PromptDescription(None, 2, "random")], 1000)
    assert found.chosen == 1
    assert found.candidates[1].score == 2
    assert found.tokens == sum(candidate.tokens for candidate in found.candidates)
    assert found.seconds == 2.0


def test_of_equals_the_cheaper_wins():
    assert find([PromptDescription(None), PromptDescription("new")], 1000).chosen == 0


def test_too_long_and_too_dear_candidates_say_so():
    found = find(
        [PromptDescription(None), PromptDescription(None, 20, "random"), PromptDescription(None, 2, "random")], 30
    )
    assert [candidate.why_not for candidate in found.candidates] == [
        "",
        "longer than the model's context of 60 tokens",
        "over the budget of 30 tokens",
    ]
    assert found.chosen == 0


def test_examples_without_a_separate_answer_are_counted():
    source = Source("f", 1)
    given = [
        Example("a", source, [Message("user", "q")], [ReferenceAnswer("x", source)]),
        Example("b", source, segments=[Segment("t", train=True)]),
        Example("c", source, [Message("user", "q")], [ReferenceAnswer(" ", source)]),
    ]
    found, skipped = items.from_examples(given)
    assert [one.id for one in found] == ["a"]
    assert skipped == {"no_separate_answer": 1, "no_reference": 1}


def test_drawing_keeps_order_and_seed():
    pool = [item(number) for number in range(20)]
    found = items.sample_items(pool, 5, seed=3)
    assert found == items.sample_items(pool, 5, seed=3)
    assert [pool.index(one) for one in found] == sorted(pool.index(one) for one in found)
    assert items.sample_items(pool, None, seed=3) == pool


def test_share_of_copied_runs():
    seen = train_overlap.train_ngrams(["The cat sat on the mat."])
    assert train_overlap.share("the cat SAT on a mat", seen) == (1, 3)
    assert train_overlap.share("too short", seen) == (0, 0)
