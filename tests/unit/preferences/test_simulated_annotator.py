"""The simulated annotator: what each criterion says, how it errs, and that it is never taken for a person."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from tunectl.artifacts.records import Example, Message, ReferenceAnswer, Source
from tunectl.config.schema.simulated_annotator import Criterion, SimulatedAnnotator
from tunectl.preferences.answer_cache import sample_answers
from tunectl.preferences.simulated_annotator import SampledAnswers, annotate, score

CONF = Path(__file__).parents[3] / "conf/preferences/local_lens.yaml"
DECLARED = yaml.safe_load(CONF.read_text())["simulated"]
FACTS = {
    "method": "facts",
    "name": "f",
    "weight": 1,
    "fields": [],
    "pattern": None,
    "ignore_case": False,
    "first_words": None,
}
PATTERN = {"method": "pattern", "name": "p", "weight": 1, "pattern": "x", "min_matches": 1, "max_matches": None}
WORDS = {"method": "words", "name": "w", "weight": 1, "min_words": 2, "max_words": 3}
BRIEF = "Ad wanted | Blue Door | tailor | Kirkwood | $ | plain | for commuters | offer: 6 dollars off | facts: open until 8 pm"
FIELDS = {"business": "Blue Door", "neighbourhood": "Kirkwood"}
GOOD = (
    "Looking for a solid tailor in Kirkwood? Blue Door is it. Your first visit brings 6 dollars off, fair prices. It stays open"
    " until 8 pm, and that is a promise for all of us who come home late in the evening. Find us here: Blue Door, Kirkwood."
)


def criterion(base, **changes):
    return TypeAdapter(Criterion).validate_python({**base, **changes})


def rules(**changes):
    return SimulatedAnnotator.model_validate({**DECLARED, "noise": 0, "flip_rate": 0, "tie_threshold": 0, **changes})


def one(base, answer, question="", fields=None, **changes):
    return score([criterion(base, **changes)], answer, question, fields or {}).parts.get(base["name"])


def asked(number, *answers, question=BRIEF):
    messages = [Message("user", f"{question} {number}")]
    return SampledAnswers(
        Example(f"e{number}", Source("s", number), messages, [ReferenceAnswer("r", Source("s"))], fields=FIELDS),
        f"p{number}",
        list(answers),
    )


def test_facts_of_fields():
    found = criterion({**FACTS, "fields": ["business", "neighbourhood", "price"]})
    assert score([found], "Blue Door in Midtown", "", FIELDS).parts == {"f": 0.5}
    assert score([found], "blue\ndoor of Kirkwood", "", FIELDS).parts == {"f": 0.5}
    folded = criterion({**FACTS, "fields": ["business"], "ignore_case": True})
    assert score([folded], "the blue\n  door", "", FIELDS).total == 1


def test_facts_of_the_input():
    assert one(FACTS, "6 dollars off till 8", BRIEF, pattern=r"\d+") == 1
    assert one(FACTS, "6 dollars off", BRIEF, pattern=r"\d+") == 0.5
    assert one(FACTS, "6 dollars off", BRIEF, pattern=r"offer: ([^|]+)") == 1
    assert one(FACTS, "Now there is 6 dollars off", BRIEF, pattern=r"offer: ([^|]+)", first_words=5) == 0
    assert one(FACTS, "anything", "no facts here", pattern=r"\d+") is None


def test_what_the_input_does_not_state_does_not_count():
    both = [criterion(FACTS, pattern=r"\d+", weight=9), criterion(PATTERN)]
    assert score(both, "x", "no numbers", {}).total == 1
    assert score(both, "x", "5 numbers", {}).total == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("answer", "least", "most", "passes"),
    [("xx", 1, 1, 0), ("ax", 1, 1, 1), ("a", 0, 0, 1), ("ax", 0, 0, 0), ("xx", 1, None, 1)],
)
def test_patterns(answer, least, most, passes):
    assert one(PATTERN, answer, min_matches=least, max_matches=most) == passes


@pytest.mark.parametrize(("answer", "passes"), [("one", 0), ("one two", 1), ("a b c", 1), ("a b c d", 0)])
def test_words(answer, passes):
    assert one(WORDS, answer) == passes


@given(st.text(), st.text(max_size=60))
def test_scores_are_shares(answer, question):
    found = score(rules().rubric, answer, question, FIELDS)
    assert all(0 <= value <= 1 for value in (found.total, *found.parts.values()))


def test_the_editor_of_the_example():
    assert score(rules().rubric, GOOD, BRIEF, FIELDS).total == 1
    assert score(rules().rubric, GOOD.replace("6 dollars off", "a gift"), BRIEF, FIELDS).parts["states_offer"] == 0
    assert score(rules().rubric, GOOD.replace("a solid", "the best"), BRIEF, FIELDS).parts["no_superlatives"] == 0
    assert score(rules().rubric, GOOD[:-40], BRIEF, FIELDS).parts["one_call_to_action"] == 0
    wish = score(rules().rubric, GOOD.replace("Find us here", "We are glad to see you"), BRIEF, FIELDS).parts
    assert (wish["invites_directly"], wish["one_call_to_action"]) == (0, 1)


def test_the_better_one_wins_and_the_reasons_are_tags():
    (said,), found = annotate([asked(1, GOOD.replace("6 dollars off", "a gift"), GOOD)], rules(), 1)
    assert said.choice == "second"
    assert said.annotation.tags == ["states_offer", "keeps_numbers"]
    assert said.annotation.annotator == "Local Lens editor (simulated)"
    assert (said.kind, said.fields, said.messages[0].role) == ("simulated", FIELDS, "user")
    assert (found.compared, found.ties, found.judged, found.turned, found.unusable) == (1, 0, 1, 0, 0)
    assert found.scores["states_offer"] == 0.5


def test_equal_and_empty_answers_are_left_out_and_close_ones_are_ties():
    said, found = annotate([asked(1, "a", "a ", "", "b")], rules(tie_threshold=0.1), 1)
    assert said == []
    assert (found.answers, found.unusable, found.compared, found.ties) == (4, 2, 1, 1)


def test_errors_are_as_frequent_as_declared_and_counted():
    many = [asked(number, GOOD, "bad") for number in range(400)]
    said, found = annotate(many, rules(flip_rate=0.25), 1)
    wrong = sum(one.choice == "second" for one in said)
    assert found.turned == wrong
    assert 70 < wrong < 130
    assert annotate(many, rules(flip_rate=0.25), 1) == (said, found)
    assert annotate(many, rules(flip_rate=0.25), 2) != (said, found)


def test_noise_changes_only_close_pairs():
    close = [asked(number, GOOD, GOOD.replace("a solid", "the best")) for number in range(200)]
    far = [asked(number, GOOD, "bad") for number in range(200)]
    assert 0 < sum(one.choice == "second" for one in annotate(close, rules(noise=0.1), 1)[0]) < 100
    assert all(one.choice == "first" for one in annotate(far, rules(noise=0.1), 1)[0])


def test_pairs_of_one_input_can_be_bounded():
    assert len(annotate([asked(1, *"abcde", GOOD)], rules(max_pairs_per_input=3, tie_threshold=0), 1)[0]) <= 3


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"annotator": "Ada"}, "String should match pattern"),
        ({"rubric": [WORDS, WORDS]}, "rubric has two criteria of one name: w, w"),
        (
            {"rubric": [{**WORDS, "min_words": 4}]},
            "the minimum is 4 and the maximum is 3; no answer can pass, so raise the maximum",
        ),
        (
            {"rubric": [{**PATTERN, "min_matches": 0}]},
            "the minimum is 0 and the maximum is null, so every answer passes; bound one of them",
        ),
        ({"rubric": [{**PATTERN, "pattern": "("}]}, "pattern '(' is not a regular expression"),
        (
            {"rubric": [FACTS]},
            "fields is empty and pattern is null, so there are no facts to look for; set one of them",
        ),
        ({"rubric": []}, "at least 1 item"),
        ({"flip_rate": 0.5}, "less than 0.5"),
    ],
)
def test_mistakes_in_a_rubric(changes, text):
    with pytest.raises(ValidationError) as caught:
        rules(**changes)
    assert text in str(caught.value)


def test_a_run_that_was_killed_goes_on_and_ends_the_same(tmp_path):
    inputs = [(asked(number).example, f"p{number}") for number in range(120)]
    loads = []

    def load(fail_after=None):
        def write():
            loads.append(0)

            def answers(examples, seed):
                if loads[-1] == fail_after:
                    raise KeyboardInterrupt
                loads[-1] += 1
                return [f"{seed} {place} {one.id}" for place, one in enumerate(examples)]

            return answers

        return write

    whole = list(sample_answers(inputs, 4, load(), 1, tmp_path / "whole"))
    assert [len(one.answers) for one in whole] == [4] * 120
    assert [one.prompt for one in whole] == [prompt for _, prompt in inputs]
    assert all(text.endswith(one.example.id) for one in whole for text in one.answers)
    with pytest.raises(KeyboardInterrupt):
        list(sample_answers(inputs, 4, load(fail_after=1), 1, tmp_path / "cut"))
    assert list(sample_answers(inputs, 4, load(), 1, tmp_path / "cut")) == whole
    assert loads == [3, 1, 2]
    assert (
        list(sample_answers(inputs, 4, lambda: pytest.fail("nothing is left to write"), 1, tmp_path / "cut")) == whole
    )
