from __future__ import annotations

import pytest
from pydantic import ValidationError

from tunectl.config.schema.monitor import DetectionRuleConfig, MonitorWindow


@pytest.mark.parametrize(
    ("name", "value", "limit"),
    [
        ("false_alarms_per_1000", 0, "greater than or equal to 0.01"),
        ("false_alarms_per_1000", 51, "less than or equal to 50"),
        ("min_effect", 0.01, "greater than or equal to 0.02"),
        ("permutations", 199, "greater than or equal to 999"),
    ],
)
def test_a_rule_that_could_decide_on_nothing(name: str, value: float, limit: str) -> None:
    sound = {"false_alarms_per_1000": 1, "min_effect": 0.2, "permutations": 1999, "effect_floor_quantile": 0.95}
    DetectionRuleConfig.model_validate(sound)
    with pytest.raises(ValidationError, match=limit) as caught:
        DetectionRuleConfig.model_validate(sound | {name: value})
    assert caught.value.errors()[0]["loc"] == (name,)


def test_windows_that_could_never_say_anything() -> None:
    with pytest.raises(ValidationError) as caught:
        MonitorWindow(max_rows=50, max_hours=24, min_rows=60, settle_seconds=1, max_sampled_rows=100)
    assert (
        "min_rows is 60, max_rows is 50 and max_sampled_rows is 100; no window would have enough rows, so lower min_rows"
        in str(caught.value)
    )
    MonitorWindow(max_rows=60, max_hours=24, min_rows=60, settle_seconds=1, max_sampled_rows=100)
