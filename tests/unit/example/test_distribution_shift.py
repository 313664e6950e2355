"""The changed town: what is asked can be answered as a person of the house would, and nothing in it looks like somebody's data."""

from __future__ import annotations

from itertools import islice

import loop_demo_fixtures
import pytest
from loop_demo import simulated_users
from synthetic_data import distribution_shift, vocabulary

SOME = 300


@pytest.fixture(scope="module", params=["everyday", "changed"])
def commissions(request: pytest.FixtureRequest) -> list[distribution_shift.Commission]:
    return list(islice(getattr(distribution_shift, f"generate_{request.param}")(), SOME))


def test_an_ad_of_the_house_has_what_must_be_in_it_and_ends_in_its_tone(
    commissions: list[distribution_shift.Commission],
) -> None:
    for one in commissions:
        assert simulated_users.liking(one.must, one.endings, one.ad) == 1.0, one
        assert one.ad.endswith(f": {one.must[0]}, {one.must[1]}.")
        for piece in one.must:
            assert piece.casefold() in one.brief.casefold()


def test_the_same_town_each_time_and_hardly_twice_the_same_question(
    commissions: list[distribution_shift.Commission],
) -> None:
    again = list(
        islice(
            distribution_shift.generate_everyday()
            if commissions[0].must[1] != distribution_shift.HOOD
            else distribution_shift.generate_changed(),
            SOME,
        )
    )
    assert again == commissions
    assert len({one.brief for one in commissions}) > 0.97 * SOME


def test_the_change_is_one_of_place_kind_and_tone() -> None:
    before, after = (
        list(islice(distribution_shift.generate_everyday(), SOME)),
        list(islice(distribution_shift.generate_changed(), SOME)),
    )
    assert distribution_shift.HOOD not in vocabulary.NEIGHBOURHOODS
    assert distribution_shift.CLIMBING.name not in {kind.name for kind in vocabulary.KINDS}
    assert distribution_shift.TONE not in vocabulary.TONES
    assert all(distribution_shift.HOOD in one.brief and distribution_shift.TONE in one.brief for one in after)
    assert not any(
        distribution_shift.HOOD in one.brief or distribution_shift.CLIMBING.name in one.brief for one in before
    )
    share = sum(distribution_shift.CLIMBING.name in one.brief for one in after) / SOME
    assert abs(share - distribution_shift.SHARE) < 0.1


def test_another_stream_asks_other_things() -> None:
    mine = {one.brief for one in islice(distribution_shift.generate_changed(), SOME)}
    assert not mine & {one.brief for one in islice(distribution_shift.generate_changed("workshop"), SOME)}


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
    for one in islice(distribution_shift.generate_changed(), SOME):
        for text in (one.brief, one.ad):
            assert masker.mask(text).text == text
