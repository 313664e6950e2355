"""What becomes an example and what does not; the caps hold for whatever people say."""

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import get_args

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from tunectl.artifacts.records import Feedback, InferenceRecord
from tunectl.inference_log import feedback
from tunectl.inference_log.feedback import REASONS, FeedbackRules, SkipReason

DAY = datetime(2026, 5, 1, tzinfo=UTC)
NOW = DAY + timedelta(days=3)
RULES = FeedbackRules(timedelta(hours=24), 100, 100, 1.0, 100, 1.0, 0.0)


def inference(number=0, *, user="u", asked=None, answer="An ad."):
    return InferenceRecord(
        f"e{number}",
        DAY + timedelta(minutes=number),
        "champion",
        "r1",
        "t",
        {"messages": [{"role": "user", "content": asked or f"Write an ad, please, number {number}"}]},
        user_hash=user,
        finished_at=DAY + timedelta(minutes=number),
        response={"choices": [{"message": {"role": "assistant", "content": answer}}]},
    )


def said(one, kind="thumb", value="up", *, by="a", at=DAY, name=""):
    return Feedback(f"f{one.id}{kind}{by}{name}", one.id, kind, value, at, by)


def left(ones, opinions, rules=RULES, **more):
    by_inference = {}
    for opinion in opinions:
        by_inference.setdefault(opinion.inference_id, []).append(opinion)
    return feedback.select_examples(ones, by_inference, rules, at=NOW, **more)


def test_each_reason_has_words_and_a_case():
    one = inference()
    cases = {
        "erased": left([one], [said(one)], erased={"e0"}),
        "unfinished": left([replace(one, finished_at=None)], [said(one)]),
        "no_chat": left([replace(one, request={"prompt": "Write"})], [said(one)]),
        "quarantined": left([one], [said(one, at=NOW - timedelta(hours=1))]),
        "not_approved": left([one], [said(one), said(one, value="down", by="b")]),
        "in_golden": left([one], [said(one)], golden={feedback.digest_prompt(one)}),
    }
    many = [inference(number, user=f"u{number}") for number in range(9)]
    approvals = [said(one, by=f"a{place}") for place, one in enumerate(many)]
    cases["user_cap"] = left([replace(one, user_hash="u") for one in many], approvals, replace(RULES, per_user=8))
    cases["annotator_cap"] = left(many, [said(one) for one in many], replace(RULES, per_annotator=8))
    mixed = [said(one, by="a" if place < 5 else f"b{place}") for place, one in enumerate(many)]
    cases["annotator_share"] = left(many, mixed, replace(RULES, annotator_share=0.5))
    same = [inference(number, asked="The same") for number in range(4)]
    cases["prompt_cap"] = left(same, [said(one) for one in same], replace(RULES, per_prompt=3))
    cases["model_text_share"] = left([one], [said(one)], replace(RULES, model_text_share=0.5))
    assert set(cases) == set(REASONS) == set(get_args(SkipReason))
    for reason, found in cases.items():
        assert set(found.reasons) == {reason}, reason
        assert found.reasons[reason] == 1, reason


def test_an_edit_is_a_lesson_in_the_words_of_the_person():
    one = inference()
    found = left([one], [said(one, value="down"), said(one, "edit", "A better ad.", by="b")])
    assert [(example.kind, example.by) for example in found.examples] == [("edit", "b")]
    assert found.examples[0].inference.response["choices"][0]["message"]["content"] == "A better ad."


def test_an_edit_that_changes_nothing_is_an_approval():
    one = inference()
    assert left([one], [said(one, "edit", "An ad.")]).examples[0].kind == "approved"


def test_a_late_thumbs_down_overrides_an_old_approval():
    one = inference()
    assert left([one], [said(one), said(one, value="down", by="b", at=NOW)]).reasons == {"not_approved": 1}


def test_what_was_held_for_the_gate_once_is_never_learned_later():
    ones = [inference(number) for number in range(40)]
    opinions = [said(one) for one in ones]
    held = {example.prompt for example in left(ones, opinions, replace(RULES, holdout=0.3)).examples if example.holdout}
    assert 4 < len(held) < 20
    again = left(ones[:20], opinions, replace(RULES, holdout=0.3)).examples
    assert all(example.holdout == (example.prompt in held) for example in again)


def test_one_person_with_five_percent_of_the_feedback_stays_below_the_configured_share():
    ones = [inference(number, user=f"u{number % 50}") for number in range(200)]
    opinions = [said(one, "edit", "BUY NOW", by="poison") for one in ones[:10]]
    opinions += [said(one, "edit", f"An ad {one.id}.", by=f"a{place % 12}") for place, one in enumerate(ones[10:])]
    found = left(ones, opinions, replace(RULES, annotator_share=0.03, per_annotator=1000))
    poisoned = sum(example.by == "poison" for example in found.examples)
    assert poisoned <= 0.03 * len(found.examples)


def test_so_many_people_as_are_waited_for_can_teach_something_and_fewer_cannot():
    """What ``retrain.data`` waits for and what ``feedback`` lets one person teach are one promise."""
    conf = Path(__file__).parents[3] / "conf"
    share = yaml.safe_load((conf / "feedback" / "default.yaml").read_text())["max_annotator_share"]
    wanted = yaml.safe_load((conf / "retrain" / "default.yaml").read_text())["data"]["min_annotators"]
    ones = [inference(number, user=f"u{number}") for number in range(60)]
    for people in (wanted - 1, wanted):
        opinions = [
            said(one, "edit", f"An ad {one.id}.", by=f"a{place % people}", name=str(people))
            for place, one in enumerate(ones)
        ]
        found = left(ones, opinions, replace(RULES, annotator_share=share))
        assert len(found.examples) == (60 if people == wanted else 0)


OPINIONS = st.lists(
    st.tuples(st.integers(0, 14), st.sampled_from(["up", "down", "edit"]), st.sampled_from("abcd"), st.integers(0, 72)),
    max_size=40,
)


@settings(max_examples=150, deadline=None)
@given(OPINIONS, st.integers(1, 4), st.integers(1, 4), st.floats(0.1, 1), st.floats(0, 1), st.integers(1, 3))
def test_rows_add_up_and_no_cap_is_ever_exceeded(raw, per_user, per_annotator, share, model_text, per_prompt):
    ones = [inference(number, user=f"u{number % 4}", asked=f"ask {number % 6}") for number in range(15)]
    opinions = [
        said(
            ones[place],
            "edit" if what == "edit" else "thumb",
            what,
            by=who,
            at=DAY + timedelta(hours=hour),
            name=str(n),
        )
        for n, (place, what, who, hour) in enumerate(raw)
    ]
    rules = FeedbackRules(timedelta(hours=24), per_user, per_annotator, share, per_prompt, model_text, 0.2)
    found = left(ones, opinions, rules)
    talked = {opinion.inference_id for opinion in opinions}
    assert len(found.examples) + len(found.skipped) == len(talked)
    assert {example.inference.id for example in found.examples}.isdisjoint(name for name, _ in found.skipped)
    examples = found.examples
    for example in examples:
        assert sum(other.inference.user_hash == example.inference.user_hash for other in examples) <= per_user
        assert sum(other.by == example.by for other in examples) <= per_annotator
        assert sum(other.prompt == example.prompt for other in examples) <= per_prompt
        assert share == 1 or sum(other.by == example.by for other in examples) <= share * len(examples)
    assert sum(example.kind == "approved" for example in examples) <= model_text * len(examples)
    assert left(list(reversed(ones)), opinions, rules) == found


def sent(one, *, by="a", key="k", acts_for=False, received=DAY, at=DAY):
    """An edit as a server keeps it."""
    return Feedback(
        f"f{one.id}{by}", one.id, "edit", "Better.", at, by, key_hash=key, acts_for=acts_for, received_at=received
    )


def test_feedback_does_not_get_older_by_what_it_says_of_itself():
    ones = [inference(number, user=f"u{number}") for number in range(60)]
    fresh, old = NOW - timedelta(hours=1), datetime(2000, 1, 1, tzinfo=UTC)
    backdated = left(ones, [sent(one, by=f"a{place % 12}", received=fresh, at=old) for place, one in enumerate(ones)])
    assert (backdated.examples, backdated.reasons) == ([], {"quarantined": 60})
    postdated = left(ones, [sent(one, received=DAY, at=NOW) for one in ones])
    assert postdated.reasons == {"quarantined": 60}
    assert len(left(ones, [sent(one, by=one.id, at=old) for one in ones]).examples) == 60
    late = replace(ones[0], accepted_at=NOW - timedelta(hours=1))  # of 0.1, which kept no time of its own
    assert left([late], [said(late, "edit", "Better.", at=old)]).reasons == {"quarantined": 1}


def test_rows_of_many_people_are_cut_in_linear_time():
    """An application names its people: as many as it likes."""
    found = [
        feedback.FeedbackExample(
            inference(number, user=f"u{number}"), "approved", f"a{number}", f"p{number}", holdout=False
        )
        for number in range(10_000)
    ]
    rules = replace(RULES, per_user=1, per_annotator=1, annotator_share=0.5, model_text_share=0.5)
    started = time.process_time()
    kept, left_out = feedback.apply_caps(found, rules)
    assert time.process_time() - started < 2
    assert (kept, len(left_out)) == ([], 10_000)


def test_one_key_with_twelve_names_is_one_person():
    ones = [inference(number, user=f"u{number}") for number in range(60)]
    names = [f"a{number % 12}" for number in range(60)]
    rules = replace(RULES, annotator_share=0.34)
    own = [sent(one, by=name) for one, name in zip(ones, names, strict=True)]
    others = [sent(one, by=name, acts_for=True) for one, name in zip(ones, names, strict=True)]
    assert left(ones, own, rules).reasons == {"annotator_share": 60}
    assert {example.by for example in left(ones, own).examples} == {"k"}
    assert len(left(ones, others, rules).examples) == 60
    asked = [replace(one, key_hash="k", acts_for=False) for one in ones]
    assert left(asked, others, replace(RULES, per_user=8)).reasons == {"user_cap": 52}
