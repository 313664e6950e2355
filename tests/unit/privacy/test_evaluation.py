"""Recall and precision on planted texts, with floors; ``benchmarks/bench_privacy.py`` prints the figures."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import yaml

pytest.importorskip("phonenumbers")
pytest.importorskip("stdnum")
pytest.importorskip("faker")

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"

# kind: recall, precision. Names are the weak kind: lists and cues carry no further.
BY_HAND = {
    "email": (1.0, 1.0),
    "phone": (1.0, 1.0),
    "card": (1.0, 1.0),
    "iban": (1.0, 1.0),
    "ip": (1.0, 1.0),
    "ssn": (1.0, 1.0),
    "url_credentials": (1.0, 1.0),
    "secret": (1.0, 1.0),
    "address": (0.95, 0.95),
    "person": (0.85, 0.95),
}
# Values from a library that knows nothing of our patterns; people of locales that were not declared.
GENERATED = {
    "email": (0.99, 1.0),
    "phone": (0.85, 0.99),
    "card": (0.99, 1.0),
    "iban": (0.99, 1.0),
    "ip": (0.99, 1.0),
    "ssn": (0.99, 1.0),
    "address": (0.95, 0.99),
    "person": (0.1, 0.9),
}


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        spec = importlib.util.spec_from_file_location("bench_privacy", BENCHMARKS / "bench_privacy.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module


@pytest.fixture(scope="module")
def find(bench: ModuleType):  # type: ignore[no-untyped-def]
    return bench.PiiMasker(bench.tools(regions=("US",), locales=bench.LOCALES)).find


@pytest.mark.parametrize("origin", ["by_hand", "generated"])
def test_floors(bench: ModuleType, find, origin: str) -> None:  # type: ignore[no-untyped-def]
    lines = bench.PLANTED.read_text(encoding="utf-8").splitlines()
    hand = [bench.parse(line) for line in lines if not line.startswith("#")]
    planted, floors = (hand, BY_HAND) if origin == "by_hand" else (bench.generate_texts(100, seed=7), GENERATED)
    found = bench.score(find, planted)
    below = {
        kind: (one.recall, one.precision)
        for kind, one in found.items()
        if one.recall < floors[kind][0] or one.precision < floors[kind][1]
    }
    assert not below
    assert set(found) == set(floors)


def test_texts_without_personal_data_stay_whole(bench: ModuleType, find) -> None:  # type: ignore[no-untyped-def]
    lines = [
        line
        for line in bench.PLANTED.read_text(encoding="utf-8").splitlines()
        if "⟦" not in line and not line.startswith("#")
    ]
    assert len(lines) > 50
    touched = [line for line in lines if find(line)]
    assert touched == ["Wells Fargo and Morgan Stanley have offices here."]  # a company with the name of a person


def test_the_measure_itself(bench: ModuleType) -> None:
    planted = bench.parse("Call ⟦phone:404⟧ or ⟦email:a@b⟧.")
    assert planted.text == "Call 404 or a@b."
    assert [planted.text[start:end] for _, start, end in planted.spans] == ["404", "a@b"]
    found = bench.score(lambda text: [], [planted])
    assert (found["phone"].recall, found["phone"].precision) == (0.0, 1.0)


def test_the_figures_are_those_of_the_default_configuration(bench: ModuleType) -> None:
    personal = yaml.safe_load((BENCHMARKS.parent / "conf" / "curate" / "default.yaml").read_text())["pii"]
    assert (tuple(personal["locales"]), personal["regions"], personal["keep"]) == (bench.LOCALES, ["US"], [])
