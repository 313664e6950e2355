"""The changed town: what is asked can be answered as a person of the house would, and nothing in it looks like somebody's data."""

from __future__ import annotations

from itertools import islice

import healing_parts
import pytest
from healing import people
from town import change, words

SOME = 300


@pytest.fixture(scope="module", params=["everyday", "changed"])
def commissions(request: pytest.FixtureRequest) -> list[change.Commission]:
    return list(islice(getattr(change, request.param)(), SOME))


def test_an_ad_of_the_house_has_what_must_be_in_it_and_ends_in_its_tone(commissions: list[change.Commission]) -> None:
    for one in commissions:
        assert people.liking(one.must, one.endings, one.ad) == 1.0, one
        assert one.ad.endswith(f": {one.must[0]}, {one.must[1]}.")
        for piece in one.must:
            assert piece.casefold() in one.brief.casefold()


def test_the_same_town_each_time_and_hardly_twice_the_same_question(commissions: list[change.Commission]) -> None:
    again = list(islice(change.everyday() if commissions[0].must[1] != change.HOOD else change.changed(), SOME))
    assert again == commissions
    assert len({one.brief for one in commissions}) > 0.97 * SOME


def test_the_change_is_one_of_place_kind_and_tone() -> None:
    before, after = list(islice(change.everyday(), SOME)), list(islice(change.changed(), SOME))
    assert change.HOOD not in words.NEIGHBOURHOODS
    assert change.CLIMBING.name not in {kind.name for kind in words.KINDS}
    assert change.TONE not in words.TONES
    assert all(change.HOOD in one.brief and change.TONE in one.brief for one in after)
    assert not any(change.HOOD in one.brief or change.CLIMBING.name in one.brief for one in before)
    share = sum(change.CLIMBING.name in one.brief for one in after) / SOME
    assert abs(share - change.SHARE) < 0.1


def test_another_stream_asks_other_things() -> None:
    mine = {one.brief for one in islice(change.changed(), SOME)}
    assert not mine & {one.brief for one in islice(change.changed("workshop"), SOME)}


def test_nothing_looks_like_personal_data() -> None:
    """Else it would be masked in the live store, and people's edits would be about placeholders."""
    pytest.importorskip("faker")
    from tunectl.artifacts.layout import Layout
    from tunectl.backends import privacy_tools
    from tunectl.config import check
    from tunectl.config.live import Live
    from tunectl.privacy.mask import Masker

    live: Live = check.load(Layout(healing_parts.ROOT)).root.live
    tools = privacy_tools.tools(regions=live.personal.regions, locales=live.personal.locales)
    masker = Masker(tools, kinds=live.personal.kinds, keep=live.personal.keep)
    for one in islice(change.changed(), SOME):
        for text in (one.brief, one.ad):
            assert masker.mask(text).text == text
