"""Agreement, verdict and the choice of probes."""

import math

import pytest

from tunectl.artifacts.record_format import NewerRecordError
from tunectl.artifacts.records import Message
from tunectl.core.errors import ArtifactError
from tunectl.packaging import parity, probes, serving_contract
from tunectl.packaging.parity import EngineScore, ParityBounds, TokenAgreement
from tunectl.packaging.probes import BaseTunedComparison, RenderedConversation
from tunectl.packaging.protocols import GreedyOutput, TeacherForced

STRICT = ParityBounds(0.95, 0.05)
GOOD = TokenAgreement(4, 100, 0.99, 0.01, 0.0)


def test_agreement_counts_tokens_and_leaves_stop_tokens_out_of_the_gap():
    found = parity.token_agreement(
        [[5, 6, 2], [7, 3]],
        [TeacherForced([5, 9, 2], [-0.5, -1.0, math.nan]), TeacherForced([7, 2], [-0.25, math.nan])],
        [[-0.4, -1.3, -0.1], [-0.25, -9.0]],
        [2, 3],
    )
    assert (found.answers, found.tokens, found.top1) == (2, 5, 4 / 5)  # one stop token is as good as another
    assert found.gap == pytest.approx((0.1 + 0.3 + 0.0) / 3)
    assert found.shift == pytest.approx((-0.1 + 0.3) / 3)


def test_nothing_read_is_no_agreement():
    assert not parity.verdict(parity.token_agreement([], [], [], [2]), None, STRICT, probes=1).passed


@pytest.mark.parametrize(
    ("found", "measured", "passed"),
    [
        (GOOD, None, True),
        (TokenAgreement(4, 100, 0.949, 0.01, 0.0), None, False),
        (TokenAgreement(4, 100, 0.99, 0.051, 0.0), None, False),
        (GOOD, EngineScore("bleu", 9, 50.0, 45.0, 45.0), True),
        (GOOD, EngineScore("bleu", 9, 50.0, 45.0, 44.9), False),
    ],
)
def test_every_bound_counts(found, measured, passed):
    assert parity.verdict(found, measured, STRICT, probes=1).passed is passed


def test_without_bounds_the_distance_is_printed_only():
    told = parity.verdict(TokenAgreement(4, 100, 0.5, 0.9, 0.0), None, ParityBounds(None, None), probes=1)
    assert told.passed
    assert told.reason == "The export is the model that was trained: 50.0% of 100 tokens agree, 0.900 nat apart."


def compared(tuned, base, under):
    asked = RenderedConversation([Message("user", "x")], "x", [1])
    return BaseTunedComparison(
        asked, GreedyOutput(tuned, [-0.1] * len(tuned), True), GreedyOutput(base, [-0.1] * len(base), True), under
    )


def test_probes_are_other_answers_first_then_other_likelihoods():
    near, far = compared([5, 2], [6, 2], [-0.3, -0.1]), compared([7, 2], [8, 2], [-5.0, -0.1])
    softly, same = compared([9, 2], [9, 2], [-0.5, -0.1]), compared([9, 2], [9, 2], [-0.2, -0.1])
    assert probes.select_probes([near, softly, same, far], 9, least=0.1) == [far, near, softly]
    assert probes.select_probes([near, far], 1, least=0.1) == [far]
    assert probes.select_probes([same, compared([], [2], [])], 9, least=0.1) == []


def test_without_probes_the_verdict_is_no():
    told = parity.verdict(GOOD, None, STRICT, probes=0)
    assert (told.passed, told.verdict) == (False, "adapter_changes_nothing")


def test_a_cut_answer_says_so():
    whole = GreedyOutput([1, 2, 3], [-0.1, -0.2, -0.3], finished=True)
    assert probes.truncate(whole, 3) is whole
    assert probes.truncate(whole, 2) == GreedyOutput([1, 2], [-0.1, -0.2], finished=False)


def test_an_empty_answer_has_no_mean():
    assert probes.reference([], "", GreedyOutput([2], [math.nan], True)) == probes.RecordedResponse(
        [], "", 0, None, "stop"
    )


def test_a_contract_of_a_later_format_is_refused(tmp_path):
    with pytest.raises(ArtifactError, match=r"contract.json does not exist, so .* is not a release"):
        serving_contract.load(tmp_path)
    (tmp_path / "contract.json").write_text('{"format": 3}')
    with pytest.raises(NewerRecordError) as caught:
        serving_contract.load(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path / 'contract.json'} is a serving contract of version 3; this tunectl reads versions up to 2\n"
        "  a newer tunectl wrote it: install that version here"
    )
