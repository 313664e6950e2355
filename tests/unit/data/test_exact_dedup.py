"""Exact duplicates, references of one input, and the account of both."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunectl.artifacts.records import Document, Example, Message, ReferenceAnswer, Segment, Source, Tokens
from tunectl.artifacts.row_counts import RowCounter
from tunectl.data.dedup.exact import ExactDedup, MergeReferences
from tunectl.data.text_normalization import digest16, normalize
from tunectl.data.transform import MergedRecord, Pipeline, RejectedRecord


def source(row: int) -> Source:
    return Source("a.csv", row)


def pair(row: int, asked: str, *answers: str, **more: object) -> Example:
    return Example(
        f"e{row}",
        source(row),
        [Message("user", asked)],
        [ReferenceAnswer(text, source(row)) for text in answers],
        **more,
    )  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("one", "other"),
    [("Hello, world!", "hello  WORLD"), ("“Quoted”", "quoted"), ("straße", "STRASSE"), ("a\nb", "a b")],
)
def test_fold_joins(one: str, other: str) -> None:
    assert normalize(one) == normalize(other)


@pytest.mark.parametrize(
    ("one", "other"), [("5 + 3", "5 - 3"), ("3.5", "35"), ("f(x)", "f[x]"), ("?", "!"), ("$5", "5")]
)
def test_fold_keeps_apart(one: str, other: str) -> None:
    assert normalize(one) != normalize(other)


def test_keys_do_not_run_together() -> None:
    assert digest16("ab", "c") != digest16("a", "bc")


def test_documents_first_one_stays() -> None:
    outcomes = list(
        ExactDedup(loose=True)([Document("1", "Hi there", source(1)), Document("2", "hi there!", source(2))])
    )
    assert outcomes == [
        Document("1", "Hi there", source(1)),
        RejectedRecord(Document("2", "hi there!", source(2)), "exact_duplicate", "same as 1"),
    ]


def test_strict_comparison_sees_case() -> None:
    outcomes = list(ExactDedup(loose=False)([Document("1", "Hi", source(1)), Document("2", "hi", source(2))]))
    assert not any(isinstance(outcome, RejectedRecord) for outcome in outcomes)


def test_two_answers_to_one_input_are_no_duplicates() -> None:
    records = [pair(1, "q", "one"), pair(2, "q", "two"), pair(3, "q", "One."), pair(4, "other", "one")]
    outcomes = list(ExactDedup(loose=True)(records))
    assert [isinstance(outcome, RejectedRecord) for outcome in outcomes] == [False, False, True, False]


def test_a_repeated_answer_inside_a_record_is_dropped_and_counted() -> None:
    block = ExactDedup(loose=True)
    (outcome,) = block([pair(1, "q", "one", "One", "two")])
    assert isinstance(outcome, Example)
    assert [answer.text for answer in outcome.answers] == ["one", "two"]
    assert [reject.source for reject in block.dropped] == [source(1)]


def test_the_users_own_splits_are_looked_at_apart() -> None:
    records = [pair(1, "q", "a", split="train"), pair(2, "q", "a", split="test")]
    assert list(ExactDedup(loose=True)(records)) == records
    assert list(MergeReferences()(records)) == records


def test_segments_and_tokens_are_compared_whole() -> None:
    tokens = Example("t1", source(1), tokens=Tokens([1, 2], [-100, 2]))
    other = Example("t2", source(2), tokens=Tokens([1, 2], [1, 2]))
    again = Example("t3", source(3), tokens=Tokens([1, 2], [-100, 2]))
    text = Example("s1", source(4), segments=[Segment("a", train=True)])
    same = Example("s2", source(5), segments=[Segment("a", train=True)])
    outcomes = list(ExactDedup(loose=True)([tokens, other, again, text, same]))
    assert [isinstance(outcome, RejectedRecord) for outcome in outcomes] == [False, False, True, False, True]


def test_references_become_one_record_with_their_sources() -> None:
    block = MergeReferences()
    first, second = pair(1, "q", "one", fields={"a": "x"}), pair(2, "q", "two", fields={"a": "y"})
    joined, merged = block([first, second])
    assert isinstance(joined, Example)
    assert joined.answers == [ReferenceAnswer("one", source(1)), ReferenceAnswer("two", source(2))]
    assert joined.fields == {"a": "x"}
    assert merged == MergedRecord(second, "e1")
    assert block.conflicts == 1


def test_inputs_that_differ_in_a_sign_stay_apart() -> None:
    assert (
        len([o for o in MergeReferences()([pair(1, "5 + 3", "8"), pair(2, "5 - 3", "2")]) if isinstance(o, Example)])
        == 2
    )


def test_merged_rows_share_the_fate_of_their_record() -> None:
    class RejectAll:
        name = "all"

        def __call__(self, records):  # type: ignore[no-untyped-def]
            return (RejectedRecord(record, "language") for record in records)

    tally = RowCounter("curate")
    left = Pipeline(tally).run(
        [MergeReferences(), RejectAll()], [pair(1, "q", "one"), pair(2, "q", "two"), pair(3, "q", "three")]
    )
    assert left == []
    account = tally.finish(records_out=0)
    assert (account.rows_in, account.kept, account.rejected) == (3, 0, {"language": 3})
    assert [reject.source.row for reject in tally.rejects] == [1, 2, 3]


PAIRS = st.lists(st.tuples(st.sampled_from(["q", "r", "Q"]), st.sampled_from(["a", "b", "A!"])), max_size=12)


@given(PAIRS)
def test_account_holds_and_a_second_time_changes_nothing(rows: list[tuple[str, str]]) -> None:
    tally = RowCounter("curate")
    records = [pair(number, asked, answer) for number, (asked, answer) in enumerate(rows)]
    left = Pipeline(tally).run([ExactDedup(loose=True), MergeReferences()], records)
    account = tally.finish(records_out=len(left))
    assert account.kept + sum(account.rejected.values()) == len(rows)
    assert {(normalize(asked), normalize(answer)) for asked, answer in rows} == {
        (normalize(example.messages[0].content), normalize(answer.text))
        for example in left
        if isinstance(example, Example)
        for answer in example.answers
    }
    again = RowCounter("curate")
    assert Pipeline(again).run([ExactDedup(loose=True), MergeReferences()], left) == left
    assert not again.rejects
