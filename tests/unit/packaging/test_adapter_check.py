"""The liveness walk: who passes, who is told apart, and by which words."""

from collections.abc import Callable

from tunectl.packaging.adapter_check import (
    Probe,
    ProbeLimits,
    ProbeReport,
    ProbeRun,
    count_allowed_mismatches,
    evaluate_probes,
)

STOPS = frozenset({0})
LIMITS = ProbeLimits(agreement=0.9, logprob=0.1)
TUNED, BASE = [-0.1, -0.2, -0.3, -0.4, -0.5], [-2.0, -2.0, -2.0, -2.0, -0.5]
PROBES = [Probe([100 + turn], [5, 6, 7, 8, 0], TUNED, [1, 2, 3, 4, 0], BASE) for turn in range(4)]
Engine = Callable[[list[int], int], tuple[list[int], list[float]]]


def plays(way: list[int], logprobs: list[float]) -> Engine:
    """An engine that says ``way`` wherever it is put in; a stop token ends what it says and is not among it."""

    def say(prompt: list[int], room: int) -> tuple[list[int], list[float]]:
        at = len(prompt) - 1
        said: list[int] = []
        for token in way[at : at + room]:
            if token in STOPS:
                break
            said.append(token)
        return said, logprobs[at : at + len(said)]

    return say


def proved(say: Engine, probes: list[Probe] = PROBES, limits: ProbeLimits = LIMITS) -> ProbeReport:
    walks = [ProbeRun(probe, STOPS) for probe in probes]
    for walk in walks:
        while not walk.over:
            walk.feed(*say(walk.prompt, walk.room))
    return evaluate_probes(walks, limits)


def test_the_right_weights_pass() -> None:
    found = proved(plays([5, 6, 7, 8, 0], [-0.12, -0.2, -0.3, -0.4, -0.5]))
    assert found.holds
    assert (found.agreement, found.as_base, found.tokens) == (1.0, 0, 20)
    assert found.logprob_gap < 0.006


def test_an_ignored_adapter_is_told_by_the_bases_answers() -> None:
    found = proved(plays([1, 2, 3, 4, 0], [-0.1] * 5))
    assert not found.holds
    assert found.as_base == 4
    assert found.reason == (
        "the adapter is not applied: all 4 probes are answered as the base model answers; 20.0% of 20 probe tokens agree with "
        "the training side, at least 90.0% must"
    )


def test_a_near_tie_is_one_miss_and_the_walk_goes_on() -> None:
    found = proved(plays([5, 9, 7, 8, 0], [-0.1, -0.2, -0.3, -0.4, -0.5]), limits=ProbeLimits(0.8, 0.1))
    assert found.holds
    assert found.agreement == 0.8
    assert count_allowed_mismatches(PROBES, ProbeLimits(0.8, 0.1)) == 4


def test_other_weights() -> None:
    found = proved(plays([9, 9, 9, 9, 9], [-1.0] * 5))
    assert found.reason == (
        "these are not the weights that were tested: 0.0% of 20 probe tokens agree with the training side, at least 90.0% must "
        "(0 of 4 probes sound like the base)"
    )


def test_a_scaled_adapter_is_told_by_its_log_probabilities() -> None:
    found = proved(plays([5, 6, 7, 8, 0], [-0.6] * 5))
    assert "log-probabilities differ by 0.350 nat on average, at most 0.100 is allowed" in found.reason


def test_an_adapter_that_changes_little_is_told_when_it_is_ignored() -> None:
    under = [-0.15, -0.25, -0.35, -0.45, -0.55]
    little = [Probe([100 + turn], [5, 6, 7, 8, 0], TUNED, [5, 6, 7, 9, 0], under) for turn in range(4)]
    assert proved(plays([5, 6, 7, 8, 0], [one - 0.01 for one in TUNED]), little).holds
    found = proved(plays([5, 6, 7, 8, 0], [one + 0.01 for one in under]), little)
    assert found.agreement == 1.0
    assert found.reason == (
        "the adapter is not applied: log-probabilities are 0.010 nat from the base model's and 0.040 from the tuned model's; "
        "100.0% of 20 probe tokens agree with the training side, at least 90.0% must"
    )


def test_no_numbers_and_no_probes() -> None:
    assert "no numbers" in proved(plays([5, 6, 7, 8, 0], [float("nan")] * 5)).reason
    assert "no probes" in proved(plays([], []), []).reason


def test_an_engine_that_says_nothing_fails() -> None:
    assert not proved(plays([0, 0, 0, 0, 9], [0.0] * 5)).holds
