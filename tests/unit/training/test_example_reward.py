"""The example's reward: its checks find the two facts of a brief in every form of brief."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from statistics import fmean

import pytest
import yaml
from pydantic import TypeAdapter

from tunectl.config.schema.evaluate import FactsCheck
from tunectl.evaluation.declared_checks import collect_expected_facts, score

ROOT = Path(__file__).parents[3]
TERMS = yaml.safe_load((ROOT / "conf/align/local_lens.yaml").read_text())["rewards"]
CHECKS = [TypeAdapter(FactsCheck).validate_python(term["check"]) for term in TERMS if term["method"] == "check"]


@pytest.mark.parametrize(("file", "forms"), [("campaigns", 6), ("new_clients", 2)])
def test_each_check_finds_one_fact_of_a_brief_and_its_ad_has_it(file: str, forms: int) -> None:
    found = defaultdict(list)
    for line in (ROOT / f"examples/local_lens/data/{file}.jsonl").read_text().splitlines():
        brief = json.loads(line)
        if " anuncio " in brief["prompt"]:  # the Spanish briefs state no facts
            continue
        for check in CHECKS:
            assert len(collect_expected_facts(check, brief["prompt"], {})) == 1
            share = score(check, brief["completion"], brief["prompt"], {}, lambda *_: True)
            assert share is not None
            found[brief["form"], check.name].append(share)
    assert len(found) == 2 * forms
    assert all(fmean(values) > 0.95 for values in found.values())  # a few ads are empty or belong to another brief
