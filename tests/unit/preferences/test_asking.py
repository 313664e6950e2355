"""Which question comes next, who sees what, and that what was said stays said."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tunectl.artifacts.records import Answer, Example, Message, Source
from tunectl.core.errors import DataError, EnvironmentFailure
from tunectl.preferences import questions, sampling, store
from tunectl.preferences.desk import Desk
from tunectl.preferences.sampling import Plan
from tunectl.preferences.store import Question, Said

NOWHERE = Source("f", 1)


def question(number, *, attention=False, answers=None, prompt=None):
    texts = answers or [f"good answer number {number}", f"nothing alike {number} here"]
    name = f"{'a' if attention else 'q'}{number:03}"
    return Question(
        name, prompt or f"p{number}", NOWHERE, [Message("user", f"Q{number}")], texts, ["x", "y"], attention
    )


class Clock:
    def __init__(self):
        self.now = datetime(2026, 11, 25, 10, tzinfo=UTC)

    def __call__(self):
        self.now += timedelta(seconds=2)
        return self.now


@pytest.fixture
def opened(tmp_path):
    with store.opened(tmp_path / "s") as found:
        found.add(
            [question(number) for number in range(40)] + [question(number, attention=True) for number in range(40, 60)]
        )
        yield found


def answer_all(desk, who, most=200, button="left"):
    shown = []
    while len(shown) < most and (now := desk.showing(who)) is not None:
        shown.append(now)
        assert desk.say(who, now.id, button, [], None)
    return shown


def test_shares_of_repeats_and_attention_checks_are_as_declared(opened):
    desk = Desk(opened, Plan(repeats=0.25, attention=0.2, gap=3, seed=1), clock=Clock())
    shown = answer_all(desk, "Ada")
    fresh = [one for one in shown if not one.repeat and not one.question.attention]
    assert sorted(one.question.id for one in fresh) == [f"q{number:03}" for number in range(40)]  # everything was asked
    assert 0.15 <= sum(one.repeat for one in shown) / len(shown) <= 0.35
    assert 0.1 <= sum(one.question.attention for one in shown) / len(shown) <= 0.3
    for at, one in enumerate(shown):
        if one.repeat:
            assert one.question.id not in [earlier.question.id for earlier in shown[max(0, at - 3) : at]]


def test_repeats_ask_what_others_judged_first(opened):
    desk = Desk(opened, Plan(repeats=0.5, attention=0, gap=3, seed=1), clock=Clock())
    of_ada = {one.question.id for one in answer_all(desk, "Ada", 10)}
    of_bo = list(answer_all(desk, "Bo", 10))
    again = [one.question.id for one in of_bo if one.repeat]
    assert again
    assert set(again) <= of_ada
    assert not {one.question.id for one in of_bo if not one.repeat} & of_ada  # fresh ones first go to nobody twice


def test_both_sides_come_about_equally_often(opened):
    desk = Desk(opened, Plan(repeats=0, attention=0, gap=3, seed=1), clock=Clock())
    assert 10 <= sum(one.left for one in answer_all(desk, "Ada")) <= 30


def test_what_a_reward_model_doubts_most_comes_first():
    items, plan = [question(number) for number in range(6)], Plan(0, 0, 1, 1)
    found = sampling.choose(items, [], "Ada", 0, plan, telling={"q001": 0.1, "q003": 0.4, "q004": 0.2})
    assert found.question.id == "q003"


def test_without_a_reward_model_the_order_is_random_and_the_same_again():
    def order(seed):
        said, plan = [], Plan(0, 0, 1, seed)
        while (found := sampling.choose([question(n) for n in range(30)], said, "Ada", len(said), plan)) is not None:
            said.append(Said(str(len(said)), found.question.id, "Ada", "", "first", 0, 1.0))
        return [one.question for one in said]

    assert order(1) == order(1)
    assert order(1) != order(2)
    assert order(1) not in (sorted(order(1)), sorted(order(1), reverse=True))
    assert len(set(order(1))) == 30


def test_doubt_is_large_where_scores_are_close_or_members_disagree():
    assert sampling.doubt((1.0, 0.0), (1.0, 0.0)) == 0.5
    assert sampling.doubt((3.0, 0.0), (0.0, 0.0)) < sampling.doubt((1.0, 0.0), (0.0, 0.0)) < 0.5
    assert sampling.doubt((3.0, 2.0), (0.0, 0.0)) > sampling.doubt((3.0, 0.0), (0.0, 0.0))
    assert sampling.doubt((0.0, 1.0), (2.0, 0.0)) == sampling.doubt((2.0, 0.0), (0.0, 1.0))


def test_a_desk_asks_first_what_is_in_doubt_from_when_it_knows(opened):
    desk = Desk(opened, Plan(0, 0, 3, 1), clock=Clock())
    first = desk.showing("Ada")
    desk.rank({"q007": 0.5, first.question.id: 0.4})
    assert desk.showing("Ada").id == first.id  # what is on the screen stays
    desk.say("Ada", first.id, "left", [], None)
    assert desk.showing("Ada").question.id == "q007"


def test_a_restarted_page_shows_what_the_old_one_showed(opened):
    plan = Plan(repeats=0.2, attention=0.2, gap=3, seed=1)
    desk = Desk(opened, plan, clock=Clock())
    answer_all(desk, "Ada", 7)
    before = desk.showing("Ada")
    after = Desk(opened, plan, clock=Clock()).showing("Ada")
    assert (before.id, before.question, before.left) == (after.id, after.question, after.left)


def test_a_choice_counts_once_and_undo_brings_it_back(opened):
    desk = Desk(opened, Plan(0, 0, 1, 1), clock=Clock())
    now = desk.showing("Ada")
    assert desk.say("Ada", now.id, "right", ["short"], f" {now.texts[0]}\r\n")
    assert desk.say("Ada", now.id, "right", ["short"], None)  # an impatient finger
    for button, tags, edit in (("left", ["short"], None), ("right", [], None), ("right", ["short"], "Better")):
        assert not desk.say("Ada", now.id, button, tags, edit)  # what is not saved is not confirmed
    (said,) = opened.said()
    assert (said.choice, said.left, said.tags, said.edit) == (("second", "first")[now.left], now.left, ["short"], None)
    assert said.seconds == 2.0
    assert not desk.say("Ada", "another showing", "left", [], None)
    assert desk.undo("Ada")
    again = desk.showing("Ada")
    assert (again.question, again.left, again.id != now.id) == (now.question, now.left, True)
    assert opened.said() == []
    assert not desk.undo("Ada")
    assert desk.say("Ada", again.id, "left", [], "A better one")
    assert opened.said()[0].edit == "A better one"


def test_what_is_pressed_on_one_question_never_counts_for_another(opened):
    desk = Desk(opened, Plan(0, 0, 1, 1), clock=Clock())
    (first,) = answer_all(desk, "Ada", 1)
    second = desk.showing("Ada")
    assert desk.undo("Ada")  # in another window, or just before
    assert desk.showing("Ada").question == first.question
    assert not desk.say("Ada", second.id, "left", [], "Better words for the second")
    assert not desk.say("Ada", first.id, "left", [], None)  # it was taken back
    assert opened.said() == []


def test_a_page_of_before_a_restart_does_not_answer_what_the_new_one_asks(opened):
    plan = Plan(0, 0, 1, 1)
    desk = Desk(opened, plan, clock=Clock())
    desk.rank({"q007": 0.5})
    before = desk.showing("Ada")
    again = Desk(opened, plan, clock=Clock())  # what the reward model doubts is not known yet
    assert before.question.id == "q007" != again.showing("Ada").question.id
    assert not again.say("Ada", before.id, "left", [], None)
    assert opened.said() == []


def test_what_was_said_survives_a_reopening_and_a_torn_line_does_not(tmp_path):
    said = Said("s1", "q001", "Ada", "2026", "first", 0, 1.0)
    with store.opened(tmp_path) as found:
        found.add([question(1)])
        found.write(said)
        found.write(said)
    with (tmp_path / store.SAID).open("ab") as stream:
        stream.write(b'{"what":"said","id":"s2","ques')
    assert len(list(store.collected(tmp_path))) == 1
    with store.opened(tmp_path) as found:
        assert found.said() == [said]
        found.write(Said("s2", "q001", "Bo", "2026", "second", 0, 1.0))
    assert (tmp_path / store.SAID).read_bytes().count(b"\n") == 2
    assert (tmp_path / ".gitignore").read_text() == ".lock\n"


def test_a_second_page_on_one_store_is_refused(tmp_path):
    with store.opened(tmp_path / "s"), pytest.raises(EnvironmentFailure) as caught, store.opened(tmp_path / "s"):
        pass
    assert caught.value.message.startswith(
        f"{tmp_path / 's'}: another process has this store of judgements open: tunectl annotate, process "
    )
    assert caught.value.hint == "let several people share one page, or close the other"


def test_a_full_disk_confirms_nothing(opened, monkeypatch):
    desk = Desk(opened, Plan(0, 0, 1, 1), clock=Clock())
    now = desk.showing("Ada")
    path = opened.folder / store.SAID
    before = path.read_bytes()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store.os, "fsync", full)
    with pytest.raises(EnvironmentFailure, match="No space left on device"):
        desk.say("Ada", now.id, "left", [], None)
    assert path.read_bytes() == before
    assert opened.said() == []
    monkeypatch.undo()
    assert desk.say("Ada", now.id, "left", [], None)


def test_a_full_disk_adds_no_question(opened, monkeypatch):
    desk = Desk(opened, Plan(0, 0, 1, 1), clock=Clock())
    before = desk.questions()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store.os, "fsync", full)
    with pytest.raises(EnvironmentFailure, match="No space left on device"):
        desk.add([question(99)])
    monkeypatch.undo()
    assert desk.questions() == before  # a judgement of a question that is not on the disk could never be read


def test_a_store_is_read_while_its_page_adds_a_question_and_somebody_answers_it(tmp_path, monkeypatch):
    with store.opened(tmp_path) as found:
        found.add([question(1)])
        found.write(Said("s1", "q001", "Ada", "2026", "first", 0, 1.0))
        rows, read = store._rows, []

        def slowly(path, shape):
            yield from list(rows(path, shape))
            read.append(path.name)
            if len(read) == 1:
                found.add([question(2)])
                found.write(Said("s2", "q002", "Ada", "2026", "first", 0, 1.0))

        monkeypatch.setattr(store, "_rows", slowly)
        assert len(list(store.collected(tmp_path))) in {1, 2}
    assert len(read) == 2


def test_a_judgement_of_no_question_is_refused_at_the_opening(tmp_path):
    with store.opened(tmp_path) as found:
        found.add([question(1), question(2)])
        found.write(Said("s1", "q001", "Ada", "2026", "first", 0, 1.0))
        found.write(Said("s2", "q002", "Ada", "2026", "skip", 0, 1.0))
    path = tmp_path / store.QUESTIONS
    path.write_bytes(path.read_bytes().splitlines(keepends=True)[0])
    for read in (lambda: list(store.collected(tmp_path)), lambda: store.opened(tmp_path).__enter__()):
        with pytest.raises(DataError) as caught:
            read()
        assert (caught.value.message, caught.value.hint) == (
            f"{tmp_path / store.SAID}:2 is about question q002, which {path} does not hold",
            "restore that file from Git",
        )


@settings(deadline=None, max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from("AB"), st.sampled_from(["left", "right", "skip", "undo"])), max_size=25))
def test_the_journal_always_tells_what_the_desk_knows(tmp_path_factory, steps):
    folder = Path(tmp_path_factory.mktemp("s"))
    with store.opened(folder) as found:
        found.add([question(number) for number in range(4)])
        desk = Desk(found, Plan(0.2, 0, 1, 1), clock=Clock())
        for who, step in steps:
            now = desk.showing(who)
            if step == "undo":
                desk.undo(who)
            elif now is not None:
                assert desk.say(who, now.id, step, [], None)
        counted = found.said()
    with store.opened(folder) as again:
        assert again.said() == counted
    reasons = Counter(getattr(item, "reason", "judgement") for item in store.collected(folder))
    assert reasons["judgement"] == sum(one.choice != "skip" for one in counted)
    assert reasons["skipped"] == sum(one.choice == "skip" for one in counted)


def test_questions_need_two_answers_that_differ():
    example = Example("e", NOWHERE, [Message("user", "Q")], [Answer("R", NOWHERE)], fields={"town": "x"})
    assert questions.question(example, "p", ["a b", "a  b "], ["m", "s"]) is None
    assert questions.question(example, "p", ["a", " "], ["m", "s"]) is None
    made = questions.question(example, "p", ["a", "b"], ["m", "s"])
    assert (made.answers, made.systems, made.fields, made.attention) == (["a", "b"], ["m", "s"], {"town": "x"}, False)


def test_attention_checks_have_their_reference_first():
    examples = [
        (Example(f"e{n}", NOWHERE, [Message("user", f"Q{n}")], [Answer(f"R{n}", NOWHERE)]), f"p{n}") for n in range(20)
    ]
    made = list(questions.checks(examples, seed=1))
    assert len(made) == 3
    for one in made:
        number = one.messages[0].content[1:]
        assert one.answers[0] == f"R{number}"
        assert one.answers[1] != f"R{number}"


def test_the_same_inputs_are_drawn_first_when_more_are_wanted():
    examples = [Example(f"e{n}", NOWHERE, [Message("user", "Q")]) for n in range(30)]
    assert questions.drawn(examples, 20, 7)[:10] == questions.drawn(examples, 10, 7)
