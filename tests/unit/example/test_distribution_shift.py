"""Requests of the loop demo: every reference ad gets the full score, and no text looks like personal data."""

from __future__ import annotations

from itertools import islice

import loop_demo_fixtures
import pytest
from loop_demo import simulated_users
from synthetic_data import distribution_shift, vocabulary

SOME = 300


@pytest.fixture(scope="module", params=["baseline", "changed"])
def requests(request: pytest.FixtureRequest) -> list[distribution_shift.AdRequest]:
    return list(islice(getattr(distribution_shift, f"generate_{request.param}_requests")(), SOME))


def test_reference_ads_have_required_phrases_and_a_closing_phrase(
    requests: list[distribution_shift.AdRequest],
) -> None:
    for one in requests:
        assert simulated_users.score_ad(one.required_phrases, one.closing_phrases, one.ad) == 1.0, one
        assert one.ad.endswith(f": {one.required_phrases[0]}, {one.required_phrases[1]}.")
        for piece in one.required_phrases:
            assert piece.casefold() in one.brief.casefold()


def test_requests_are_reproducible_and_mostly_distinct(
    requests: list[distribution_shift.AdRequest],
) -> None:
    again = list(
        islice(
            distribution_shift.generate_baseline_requests()
            if requests[0].required_phrases[1] != distribution_shift.NEW_NEIGHBOURHOOD
            else distribution_shift.generate_changed_requests(),
            SOME,
        )
    )
    assert again == requests
    assert len({one.brief for one in requests}) > 0.97 * SOME


def test_changed_requests_have_another_neighbourhood_kind_and_tone() -> None:
    before, after = (
        list(islice(distribution_shift.generate_baseline_requests(), SOME)),
        list(islice(distribution_shift.generate_changed_requests(), SOME)),
    )
    assert distribution_shift.NEW_NEIGHBOURHOOD not in vocabulary.NEIGHBOURHOODS
    assert distribution_shift.CLIMBING_GYM.name not in {kind.name for kind in vocabulary.KINDS}
    assert distribution_shift.NEW_TONE not in vocabulary.TONES
    assert all(
        distribution_shift.NEW_NEIGHBOURHOOD in one.brief and distribution_shift.NEW_TONE in one.brief for one in after
    )
    assert not any(
        distribution_shift.NEW_NEIGHBOURHOOD in one.brief or distribution_shift.CLIMBING_GYM.name in one.brief
        for one in before
    )
    share = sum(distribution_shift.CLIMBING_GYM.name in one.brief for one in after) / SOME
    assert abs(share - distribution_shift.CLIMBING_GYM_SHARE) < 0.1


def test_another_stream_gives_other_requests() -> None:
    mine = {one.brief for one in islice(distribution_shift.generate_changed_requests(), SOME)}
    assert not mine & {one.brief for one in islice(distribution_shift.generate_changed_requests("workshop"), SOME)}


def test_nothing_looks_like_personal_data() -> None:
    """Else it would be masked in the inference log, and people's edits would be about placeholders."""
    pytest.importorskip("faker")
    from tunectl.artifacts.paths import ProjectPaths
    from tunectl.backends.text import pii_resources
    from tunectl.config.loading import checks
    from tunectl.config.schema.inference_log import InferenceLogConfig
    from tunectl.privacy.mask import PiiMasker

    live: InferenceLogConfig = checks.load_config(ProjectPaths(loop_demo_fixtures.ROOT)).root.inference_log
    tools = pii_resources.tools(regions=live.pii.regions, locales=live.pii.locales)
    masker = PiiMasker(tools, kinds=live.pii.kinds, keep=live.pii.keep)
    for one in islice(distribution_shift.generate_changed_requests(), SOME):
        for text in (one.brief, one.ad):
            assert masker.mask(text).text == text
