"""What becomes of judgments on their way to preferences."""

from __future__ import annotations

import time

from tunectl.artifacts.records import AnnotationMetadata, Comparison, Message, Source
from tunectl.artifacts.row_counts import RowCounter
from tunectl.preferences import vote_aggregation
from tunectl.preferences.vote_aggregation import AggregationRules


def test_many_labels_of_one_answer_take_linear_time() -> None:
    turns, answers = [Message("user", "q")], [[Message("assistant", "a")]]
    judgments = [
        Comparison(str(row), "p", turns, answers, "good", AnnotationMetadata(Source("f", row)))
        for row in range(200_000)
    ]
    started = time.process_time()
    (mark,) = vote_aggregation._marks(judgments, vote_aggregation._find_disputed(judgments))
    assert time.process_time() - started < 10
    assert mark.annotations == [judgment.annotation for judgment in judgments]


def test_an_answer_called_good_beside_one_and_bad_beside_another_has_no_label() -> None:
    def judge(name: str, choice: str, *texts: str) -> Comparison:
        answers = [[Message("assistant", text)] for text in texts]
        about = AnnotationMetadata(Source("f", name), annotator=name)
        return Comparison(name, "p", [Message("user", "q")], answers, choice, about)

    judgments = [judge("ada", "both_good", "A", "B"), judge("bo", "both_bad", "A", "C"), judge("cy", "bad", "A")]
    tally = RowCounter("preferences")
    tally.read(3)
    rules = AggregationRules(attention=0.0, contradictions="majority", rows_per_annotator=None, seed=1)
    found = vote_aggregation.aggregate_votes(judgments, rules, tally)
    assert [(mark.completion[0].content, mark.label) for mark in found.marks] == [("B", True), ("C", False)]
    assert tally.finish(records_out=2).rejected == {"contradicted": 1}  # the judgment that was about this answer alone
