"""What becomes of judgments on their way to preferences."""

from __future__ import annotations

import time

from tunectl.artifacts.records import AnnotationMetadata, Comparison, Message, Source
from tunectl.preferences import vote_aggregation


def test_many_labels_of_one_answer_take_linear_time() -> None:
    turns, answers = [Message("user", "q")], [[Message("assistant", "a")]]
    judgments = [
        Comparison(str(row), "p", turns, answers, "good", AnnotationMetadata(Source("f", row)))
        for row in range(200_000)
    ]
    started = time.process_time()
    (mark,) = vote_aggregation._marks(judgments)
    assert time.process_time() - started < 10
    assert mark.annotations == [judgment.annotation for judgment in judgments]
