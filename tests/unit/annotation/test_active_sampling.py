"""Which question comes next, who sees what, and that what was said stays said."""

from __future__ import annotations

import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tunectl.annotation import active_sampling
from tunectl.annotation.active_sampling import QueuePolicy
from tunectl.annotation.annotation_queue import AnnotationQueue
from tunectl.artifacts.records import Example, Message, ReferenceAnswer, Source
from tunectl.core.errors import DataError, InfrastructureError
from tunectl.preferences import annotation_store, annotation_tasks
from tunectl.preferences.annotation_store import AnnotationEvent, AnnotationTask

NOWHERE = Source("f", 1)


def question(number, *, attention=False, answers=None, prompt=None):
    texts = answers or [f"good answer number {number}", f"nothing alike {number} here"]
    name = f"{'a' if attention else 'q'}{number:03}"
    return AnnotationTask(
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
    with annotation_store.open_store(tmp_path / "s") as found:
        found.add(
            [question(number) for number in range(40)] + [question(number, attention=True) for number in range(40, 60)]
        )
        yield found


def answer_all(desk, who, most=200, button="left"):
    shown = []
    while len(shown) < most and (now := desk.get_current_task(who)) is not None:
        shown.append(now)
        assert desk.submit(who, now.id, button, [], None)
    return shown


@pytest.mark.parametrize("repeats", [0, 1])
def test_the_next_question_is_found_in_time_that_grows_with_their_number(repeats):
    """Not with its square: the page answers nobody else meanwhile."""
    tasks = [question(number) for number in range(30_000)]
    said = [AnnotationEvent(f"e{at}", tasks[at].id, "Ada", "2026", "first", 0, 1.0) for at in range(15_000)]
    start = time.process_time()
    assert active_sampling.next_task(tasks, said, "Ada", len(said), QueuePolicy(repeats, 0, 3, 1)) is not None
    assert time.process_time() - start < 0.5


def test_shares_of_repeats_and_attention_checks_are_as_declared(opened):
    desk = AnnotationQueue(opened, QueuePolicy(repeats=0.25, attention=0.2, gap=3, seed=1), clock=Clock())
    shown = answer_all(desk, "Ada")
    fresh = [one for one in shown if not one.repeat and not one.task.attention]
    assert sorted(one.task.id for one in fresh) == [f"q{number:03}" for number in range(40)]  # everything was asked
    assert 0.15 <= sum(one.repeat for one in shown) / len(shown) <= 0.35
    assert 0.1 <= sum(one.task.attention for one in shown) / len(shown) <= 0.3
    for at, one in enumerate(shown):
        if one.repeat:
            assert one.task.id not in [earlier.task.id for earlier in shown[max(0, at - 3) : at]]


def test_repeats_ask_what_others_judged_first(opened):
    desk = AnnotationQueue(opened, QueuePolicy(repeats=0.5, attention=0, gap=3, seed=1), clock=Clock())
    of_ada = {one.task.id for one in answer_all(desk, "Ada", 10)}
    of_bo = list(answer_all(desk, "Bo", 10))
    again = [one.task.id for one in of_bo if one.repeat]
    assert again
    assert set(again) <= of_ada
    assert not {one.task.id for one in of_bo if not one.repeat} & of_ada  # fresh ones first go to nobody twice


def test_both_sides_come_about_equally_often(opened):
    desk = AnnotationQueue(opened, QueuePolicy(repeats=0, attention=0, gap=3, seed=1), clock=Clock())
    assert 10 <= sum(one.left for one in answer_all(desk, "Ada")) <= 30


def test_what_a_reward_model_doubts_most_comes_first():
    items, plan = [question(number) for number in range(6)], QueuePolicy(0, 0, 1, 1)
    found = active_sampling.next_task(items, [], "Ada", 0, plan, uncertainties={"q001": 0.1, "q003": 0.4, "q004": 0.2})
    assert found.task.id == "q003"


def test_without_a_reward_model_the_order_is_random_and_the_same_again():
    def order(seed):
        said, plan = [], QueuePolicy(0, 0, 1, seed)
        while (
            found := active_sampling.next_task([question(n) for n in range(30)], said, "Ada", len(said), plan)
        ) is not None:
            said.append(AnnotationEvent(str(len(said)), found.task.id, "Ada", "", "first", 0, 1.0))
        return [one.task for one in said]

    assert order(1) == order(1)
    assert order(1) != order(2)
    assert order(1) not in (sorted(order(1)), sorted(order(1), reverse=True))
    assert len(set(order(1))) == 30


def test_doubt_is_large_where_scores_are_close_or_members_disagree():
    assert active_sampling.preference_uncertainty((1.0, 0.0), (1.0, 0.0)) == 0.5
    assert (
        active_sampling.preference_uncertainty((3.0, 0.0), (0.0, 0.0))
        < active_sampling.preference_uncertainty((1.0, 0.0), (0.0, 0.0))
        < 0.5
    )
    assert active_sampling.preference_uncertainty((3.0, 2.0), (0.0, 0.0)) > active_sampling.preference_uncertainty(
        (3.0, 0.0), (0.0, 0.0)
    )
    assert active_sampling.preference_uncertainty((0.0, 1.0), (2.0, 0.0)) == active_sampling.preference_uncertainty(
        (2.0, 0.0), (0.0, 1.0)
    )


def test_the_annotation_queue_prefers_uncertain_tasks_once_it_has_votes(opened):
    desk = AnnotationQueue(opened, QueuePolicy(0, 0, 3, 1), clock=Clock())
    first = desk.get_current_task("Ada")
    desk.rank({"q007": 0.5, first.task.id: 0.4})
    assert desk.get_current_task("Ada").id == first.id  # what is on the screen stays
    desk.submit("Ada", first.id, "left", [], None)
    assert desk.get_current_task("Ada").task.id == "q007"


def test_a_restarted_page_shows_what_the_old_one_showed(opened):
    plan = QueuePolicy(repeats=0.2, attention=0.2, gap=3, seed=1)
    desk = AnnotationQueue(opened, plan, clock=Clock())
    answer_all(desk, "Ada", 7)
    before = desk.get_current_task("Ada")
    after = AnnotationQueue(opened, plan, clock=Clock()).get_current_task("Ada")
    assert (before.id, before.task, before.left) == (after.id, after.task, after.left)


def test_a_choice_counts_once_and_undo_brings_it_back(opened):
    desk = AnnotationQueue(opened, QueuePolicy(0, 0, 1, 1), clock=Clock())
    now = desk.get_current_task("Ada")
    assert desk.submit("Ada", now.id, "right", ["short"], f" {now.texts[0]}\r\n")
    assert desk.submit("Ada", now.id, "right", ["short"], None)  # an impatient finger
    for button, tags, edit in (("left", ["short"], None), ("right", [], None), ("right", ["short"], "Better")):
        assert not desk.submit("Ada", now.id, button, tags, edit)  # what is not saved is not confirmed
    (said,) = opened.list_annotations()
    assert (said.choice, said.left, said.tags, said.edit) == (("second", "first")[now.left], now.left, ["short"], None)
    assert said.seconds == 2.0
    assert not desk.submit("Ada", "another showing", "left", [], None)
    assert desk.undo("Ada")
    again = desk.get_current_task("Ada")
    assert (again.task, again.left, again.id != now.id) == (now.task, now.left, True)
    assert opened.list_annotations() == []
    assert not desk.undo("Ada")
    assert desk.submit("Ada", again.id, "left", [], "A better one")
    assert opened.list_annotations()[0].edit == "A better one"


def test_what_is_pressed_on_one_question_never_counts_for_another(opened):
    desk = AnnotationQueue(opened, QueuePolicy(0, 0, 1, 1), clock=Clock())
    (first,) = answer_all(desk, "Ada", 1)
    second = desk.get_current_task("Ada")
    assert desk.undo("Ada")  # in another window, or just before
    assert desk.get_current_task("Ada").task == first.task
    assert not desk.submit("Ada", second.id, "left", [], "Better words for the second")
    assert not desk.submit("Ada", first.id, "left", [], None)  # it was taken back
    assert opened.list_annotations() == []


def test_a_page_of_before_a_restart_does_not_answer_what_the_new_one_asks(opened):
    plan = QueuePolicy(0, 0, 1, 1)
    desk = AnnotationQueue(opened, plan, clock=Clock())
    desk.rank({"q007": 0.5})
    before = desk.get_current_task("Ada")
    again = AnnotationQueue(opened, plan, clock=Clock())  # what the reward model doubts is not known yet
    assert before.task.id == "q007" != again.get_current_task("Ada").task.id
    assert not again.submit("Ada", before.id, "left", [], None)
    assert opened.list_annotations() == []


def test_what_was_said_survives_a_reopening_and_a_torn_line_does_not(tmp_path):
    said = AnnotationEvent("s1", "q001", "Ada", "2026", "first", 0, 1.0)
    with annotation_store.open_store(tmp_path) as found:
        found.add([question(1)])
        found.write(said)
        found.write(said)
    with (tmp_path / annotation_store.ANNOTATIONS).open("ab") as stream:
        stream.write(b'{"what":"said","id":"s2","ques')
    assert len(list(annotation_store.load_annotations(tmp_path))) == 1
    with annotation_store.open_store(tmp_path) as found:
        assert found.list_annotations() == [said]
        found.write(AnnotationEvent("s2", "q001", "Bo", "2026", "second", 0, 1.0))
    assert (tmp_path / annotation_store.ANNOTATIONS).read_bytes().count(b"\n") == 2
    assert (tmp_path / ".gitignore").read_text() == ".lock\n"


def test_a_second_page_on_one_store_is_refused(tmp_path):
    with (
        annotation_store.open_store(tmp_path / "s"),
        pytest.raises(InfrastructureError) as caught,
        annotation_store.open_store(tmp_path / "s"),
    ):
        pass
    assert caught.value.message.startswith(
        f"{tmp_path / 's'}: another process has this store of judgments open: tunectl annotate, process "
    )
    assert caught.value.hint == "let several people share one page, or close the other"


def test_a_full_disk_confirms_nothing(opened, monkeypatch):
    desk = AnnotationQueue(opened, QueuePolicy(0, 0, 1, 1), clock=Clock())
    now = desk.get_current_task("Ada")
    path = opened.folder / annotation_store.ANNOTATIONS
    before = path.read_bytes()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(annotation_store.os, "fsync", full)
    with pytest.raises(InfrastructureError, match="No space left on device"):
        desk.submit("Ada", now.id, "left", [], None)
    assert path.read_bytes() == before
    assert opened.list_annotations() == []
    monkeypatch.undo()
    assert desk.submit("Ada", now.id, "left", [], None)


def test_a_full_disk_adds_no_question(opened, monkeypatch):
    desk = AnnotationQueue(opened, QueuePolicy(0, 0, 1, 1), clock=Clock())
    before = desk.list_tasks()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(annotation_store.os, "fsync", full)
    with pytest.raises(InfrastructureError, match="No space left on device"):
        desk.add([question(99)])
    monkeypatch.undo()
    assert desk.list_tasks() == before  # a judgment of a question that is not on the disk could never be read


def test_a_store_is_read_while_its_page_adds_a_question_and_somebody_answers_it(tmp_path, monkeypatch):
    with annotation_store.open_store(tmp_path) as found:
        found.add([question(1)])
        found.write(AnnotationEvent("s1", "q001", "Ada", "2026", "first", 0, 1.0))
        rows, read = annotation_store._rows, []

        def slowly(folder, name, shape):
            yield from list(rows(folder, name, shape))
            read.append(name)
            if len(read) == 1:
                found.add([question(2)])
                found.write(AnnotationEvent("s2", "q002", "Ada", "2026", "first", 0, 1.0))

        monkeypatch.setattr(annotation_store, "_rows", slowly)
        assert len(list(annotation_store.load_annotations(tmp_path))) in {1, 2}
    assert len(read) == 2


def test_a_judgment_of_no_question_is_refused_at_the_opening(tmp_path):
    with annotation_store.open_store(tmp_path) as found:
        found.add([question(1), question(2)])
        found.write(AnnotationEvent("s1", "q001", "Ada", "2026", "first", 0, 1.0))
        found.write(AnnotationEvent("s2", "q002", "Ada", "2026", "skip", 0, 1.0))
    path = tmp_path / annotation_store.TASKS
    path.write_bytes(path.read_bytes().splitlines(keepends=True)[0])
    for read in (
        lambda: list(annotation_store.load_annotations(tmp_path)),
        lambda: annotation_store.open_store(tmp_path).__enter__(),
    ):
        with pytest.raises(DataError) as caught:
            read()
        assert (caught.value.message, caught.value.hint) == (
            f"{tmp_path / annotation_store.ANNOTATIONS}:2 is about question q002, which is not in {path}",
            f"restore {path} from Git",
        )


@settings(deadline=None, max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from("AB"), st.sampled_from(["left", "right", "skip", "undo"])), max_size=25))
def test_the_journal_always_matches_the_annotation_queue(tmp_path_factory, steps):
    folder = Path(tmp_path_factory.mktemp("s"))
    with annotation_store.open_store(folder) as found:
        found.add([question(number) for number in range(4)])
        desk = AnnotationQueue(found, QueuePolicy(0.2, 0, 1, 1), clock=Clock())
        for who, step in steps:
            now = desk.get_current_task(who)
            if step == "undo":
                desk.undo(who)
            elif now is not None:
                assert desk.submit(who, now.id, step, [], None)
        counted = found.list_annotations()
    with annotation_store.open_store(folder) as again:
        assert again.list_annotations() == counted
    reasons = Counter(getattr(item, "reason", "judgment") for item in annotation_store.load_annotations(folder))
    assert reasons["judgment"] == sum(one.choice != "skip" for one in counted)
    assert reasons["skipped"] == sum(one.choice == "skip" for one in counted)


def test_questions_need_two_answers_that_differ():
    example = Example("e", NOWHERE, [Message("user", "Q")], [ReferenceAnswer("R", NOWHERE)], fields={"town": "x"})
    assert annotation_tasks.make_task(example, "p", ["a b", "a  b "], ["m", "s"]) is None
    assert annotation_tasks.make_task(example, "p", ["a", " "], ["m", "s"]) is None
    made = annotation_tasks.make_task(example, "p", ["a", "b"], ["m", "s"])
    assert (made.answers, made.systems, made.fields, made.attention) == (["a", "b"], ["m", "s"], {"town": "x"}, False)


def test_attention_checks_have_their_reference_first():
    examples = [
        (Example(f"e{n}", NOWHERE, [Message("user", f"Q{n}")], [ReferenceAnswer(f"R{n}", NOWHERE)]), f"p{n}")
        for n in range(20)
    ]
    made = list(annotation_tasks.attention_checks(examples, seed=1))
    assert len(made) == 3
    for one in made:
        number = one.messages[0].content[1:]
        assert one.answers[0] == f"R{number}"
        assert one.answers[1] != f"R{number}"


def test_the_same_inputs_are_drawn_first_when_more_are_wanted():
    examples = [Example(f"e{n}", NOWHERE, [Message("user", "Q")]) for n in range(30)]
    assert annotation_tasks.sample_inputs(examples, 20, 7)[:10] == annotation_tasks.sample_inputs(examples, 10, 7)
