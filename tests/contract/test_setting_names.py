"""Names of settings: ``min_`` and ``max_`` for bounds, the unit at the end, ``_env`` for names of environment variables.

The prose of the schema says what a setting is; its name must say the same. Exceptions are words of the library that executes
the setting, and a few bounds that are no minimum or maximum of the value itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, get_args

import pytest

from tunectl.config.loading.json_schema_export import field_docs
from tunectl.config.loading.type_descriptions import TypeInfo, inspect_type, of_field, section, union_members
from tunectl.config.schema.root import TunectlConfig

HIGHEST = re.compile(
    r"\bat most\b|^(Highest|Most|Largest|Longest|Deepest|Greatest)\b|\b(above|beyond) which\b|\bup to which\b"
)
LOWEST = re.compile(r"\bat least\b|^(Lowest|Fewest|Smallest|Shortest)\b|\b(below|under|without|from) which\b")
WORDS = re.compile(r"(^|_)(least|most|minimum|maximum|lowest|highest|longest|largest|fewest|smallest)(_|$)")
UNITS = ("seconds", "minutes", "hours", "days", "bytes")
UNIT = re.compile(rf"^({'|'.join(UNITS)})\b|\bin ({'|'.join(UNITS)})\b", re.IGNORECASE)
VARIABLE = re.compile(r"^Environment variable|\bname of (an|the) environment variable", re.IGNORECASE)
BOUNDS = re.compile(r"(^|_)(min|max)_|_timeout_|^timeout_|_threshold(_|$)|^threshold$|_tolerance$")
"""A timeout is a maximum; a threshold or tolerance separates two outcomes and bounds no value."""
EXCEPTIONS = {
    "hardware.train_batch_tokens": "fairseq's word: a batch is filled up to its size",
    "hardware.generate_batch": "a batch is filled up to its size",
    "curate.quality.repetition.dup_line_frac": "datatrove's word",
    "curate.quality.repetition.top_2_gram_frac": "datatrove's word",
    "curate.quality.repetition.dup_5_gram_frac": "datatrove's word",
    "curate.near.bands": "datasketch's word; what agrees at least once is a band of a candidate",
    "monitor.rule.effect_floor_quantile": "a quantile: the smallest effect itself is measured",
    "retrain.canary.alpha": "the word of statistics for the probability of an error",
    "retrain.canary.harm_alpha": "the word of statistics for the probability of an error",
}


def settings(shape: TypeInfo, key: str, prose: str, seen: frozenset[type]) -> Iterator[tuple[str, TypeInfo, str]]:
    """Dotted key, type and prose of every setting below ``shape``; ``*`` stands for a name that people choose."""
    models = [model for model in map(section, shape.kinds) if model is not None]
    models += [model for model in union_members(shape).values() if model not in models]
    for model in models:
        if model not in seen:
            docs = field_docs(model)
            for name, info in model.model_fields.items():
                yield from settings(of_field(info), f"{key}.{name}".strip("."), docs.get(name, ""), seen | {model})
    for kind in shape.kinds:
        inner = get_args(kind)
        if getattr(kind, "__origin__", None) is dict:
            yield from settings(inspect_type(inner[1]), f"{key}.*", prose, seen)
        elif getattr(kind, "__origin__", None) in {list, tuple} and inner:
            yield from settings(inspect_type(inner[0]), key, prose, seen)
    if key and not models:
        yield key, shape, prose


def faults(key: str, prose: str, *, number: bool) -> Iterator[str]:
    """What is wrong with the name of one setting."""
    name = key.replace(".*", "").rpartition(".")[2]
    if WORDS.search(name):
        yield "a bound begins with min_ or max_"
    if "variable" in name or (VARIABLE.search(prose) and not name.endswith("_env")):
        yield "the name of an environment variable ends in _env"
    if any(part in UNITS for part in name.split("_")[:-1]):
        yield "the unit stands at the end"
    if not number:
        return
    if HIGHEST.search(prose) and "max_" not in name and not BOUNDS.search(name):
        yield "its prose calls it an upper bound: max_"
    if LOWEST.search(prose) and "min_" not in name and not BOUNDS.search(name):
        yield "its prose calls it a lower bound: min_"
    unit = UNIT.search(prose)
    if unit and not name.endswith(f"_{(unit[1] or unit[2]).lower()}"):
        yield f"its prose gives {(unit[1] or unit[2]).lower()}, which stand at the end of the name"


def is_number(shape: TypeInfo) -> bool:
    return any(kind in (int, float) for kind in shape.kinds)


SETTINGS: dict[tuple[str, str], TypeInfo] = {
    (key, prose): shape
    for key, shape, prose in settings(TypeInfo((TunectlConfig,), nullable=False, metadata=()), "", "", frozenset())
}


def test_names_of_settings_say_bound_unit_and_environment() -> None:
    wrong = {
        f"{key}: {fault}"
        for (key, prose), shape in SETTINGS.items()
        for fault in faults(key, prose, number=is_number(shape))
        if key not in EXCEPTIONS
    }
    assert sorted(wrong) == []


def test_every_exception_is_needed_and_has_a_reason() -> None:
    used = {key for (key, prose), shape in SETTINGS.items() if list(faults(key, prose, number=is_number(shape)))}
    assert set(EXCEPTIONS) == used
    assert all(EXCEPTIONS.values())


def test_the_walk_reaches_every_section() -> None:
    assert {key.partition(".")[0] for key, _ in SETTINGS} == set(TunectlConfig.model_fields)
    assert len(SETTINGS) > 500
    prose = "Requests that wait; more are refused with 429. Fewer: refused sooner, after shorter waits."
    assert ("serve.limits.max_queue", prose) in SETTINGS


@pytest.mark.parametrize(
    ("key", "prose", "expected"),
    [
        ("live.waiting", "Rows held in memory at most.", "its prose calls it an upper bound: max_"),
        ("retrain.data.least_new", "New rows.", "a bound begins with min_ or max_"),
        ("split.overlap", "Share from which it counts as a leak.", "its prose calls it a lower bound: min_"),
        ("live.url_variable", "The database.", "the name of an environment variable ends in _env"),
        ("live.key", "Environment variable of the key.", "the name of an environment variable ends in _env"),
        ("serve.load", "Seconds to load.", "its prose gives seconds, which stand at the end of the name"),
        ("serve.seconds_to_load", "The time to load.", "the unit stands at the end"),
        ("serve.load_seconds", "Seconds to load.", None),
        ("serve.max_queue", "Requests that wait, at most.", None),
        ("evaluate.judge.timeout_seconds", "Longest wait for one reply.", None),
    ],
)
def test_a_bad_name_is_found(key: str, prose: str, expected: str | None) -> None:
    assert list(faults(key, prose, number=True)) == ([] if expected is None else [expected])


def test_prose_is_read_from_the_schema() -> None:
    """Without it the bounds above would all pass."""
    without: list[Any] = [key for (key, prose), _ in SETTINGS.items() if not prose]
    assert without == []
