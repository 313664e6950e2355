from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from tunectl.config.schema.split import SplitStage

CONF = Path(__file__).parents[3] / "conf" / "split"


def section(name="default", **changes):
    values = yaml.safe_load((CONF / f"{name}.yaml").read_text()) | changes
    return SplitStage.model_validate({"split": values, "seed": 1}).split


def test_the_files_are_valid_and_seventy_fifteen_fifteen_is_the_default():
    shares = section().shares
    assert (shares.train, shares.validation, shares.test) == (0.70, 0.15, 0.15)
    assert section("e2e").leakage.action == "report"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"shares": {"train": 0.9, "validation": 0.15, "test": 0.15}},
            "train 0.9 + validation 0.15 + test 0.15 is 1.2; must be 1",
        ),
        ({"shares": {"train": 0.85, "validation": 0.15, "test": 0.0}}, "greater than 0"),
        ({"population": {"price": {"low": 0.5, "high": 0.6}}}, "the shares add up to 1.1; must be 1"),
        ({"population": {"price": {"low": 1.0}}}, "at least 2 items"),
        (
            {"hold_out": {"form": {"validation": ["a"], "test": ["a", "b"]}}},
            "a is held out for both validation and test; take it out of one of them",
        ),
        (
            {"balance": {"method": "reweight", "min_weight": 0.2, "max_weight": 5}},
            "balance is reweight, but population is empty",
        ),
        (
            {"balance": {"method": "resample", "size": 3, "max_copies": 2}},
            "size 3 cannot be reached with max_copies 2; size may be 2 at most",
        ),
        ({"balance": {"method": "reweight", "min_weight": 2, "max_weight": 5}}, "less than or equal to 1"),
        (
            {"leakage": {"action": "remove", "compare": ["answer"], "ngram": 1, "min_overlap": 0.8}},
            "greater than or equal to 2",
        ),
        ({"straify": ["price"]}, "Extra inputs are not permitted"),
    ],
)
def test_mistakes_say_what_is_allowed(changes, message):
    with pytest.raises(ValidationError) as error:
        section(**changes)
    assert message in str(error.value)
