from __future__ import annotations

import pytest
from pydantic import ValidationError

from tunectl.config.schema.monitor import DetectionRuleConfig, MonitorWindow


def test_a_level_that_no_p_value_can_reach_names_the_number_that_would_do() -> None:
    with pytest.raises(ValidationError) as caught:
        DetectionRuleConfig(
            significance_level=0.001, permutations=1999, effect_floor_quantile=0.95, consecutive_windows=3
        )
    assert (
        "level is 0.001 and permutations is 1999; no p-value can pass Holm's correction: raise permutations to 13000 or more"
        in str(caught.value)
    )
    DetectionRuleConfig(significance_level=0.001, permutations=13000, effect_floor_quantile=0.95, consecutive_windows=3)


def test_fewer_permutations_than_holm_needs() -> None:
    with pytest.raises(ValidationError, match="greater than or equal to 1999"):
        DetectionRuleConfig(
            significance_level=0.05, permutations=199, effect_floor_quantile=0.95, consecutive_windows=3
        )


def test_windows_that_could_never_say_anything() -> None:
    with pytest.raises(ValidationError) as caught:
        MonitorWindow(max_rows=50, max_hours=24, min_rows=60, settle_seconds=1, max_sampled_rows=100)
    assert "min_rows is 60, max_rows is 50 and max_sampled_rows is 100; every window would be insufficient" in str(
        caught.value
    )
    MonitorWindow(max_rows=60, max_hours=24, min_rows=60, settle_seconds=1, max_sampled_rows=100)
