"""Near duplicates against plain Python: the same similarities, the same clusters, whatever the order."""

from __future__ import annotations

import itertools
import random
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunectl.artifacts.records import Document, Example, Message, ReferenceAnswer, Source, Tokens
from tunectl.config.schema.curate import NearDedupConfig
from tunectl.data.dedup import minhash
from tunectl.data.dedup.jaccard import JaccardMatrix
from tunectl.data.dedup.near import NearDedup
from tunectl.data.transform import RejectedRecord

WORDS = ["peach", "Bakery", "straße", "12", "café", "ärger", "東京", "o'clock", "x_y", "a"]
TEXTS = st.lists(st.lists(st.sampled_from(WORDS), max_size=9).map(", ".join), max_size=14)
UNITS = st.sampled_from([("word", 1), ("word", 2), ("word", 3), ("character", 1), ("character", 4)])
# With 64 bands of one row a pair of similarity 0.5 is missed once in 10^19: the bound is one.
SURE = {"bands": 64, "rows": 1}


def plain_set(text: str, unit: str, size: int) -> set[tuple[str, ...]]:
    words = re.findall(r"[^\W_]+", text.lower())
    units = words if unit == "word" else list(" ".join(words))
    if not units:
        return set()
    return {tuple(units[start : start + size]) for start in range(max(1, len(units) - size + 1))}


def plain_similarity(one: str, other: str, unit: str, size: int) -> float:
    a, b = plain_set(one, unit, size), plain_set(other, unit, size)
    return len(a & b) / len(a | b) if a | b else 1.0


def plain_clusters(texts: list[str], unit: str, size: int, threshold: float) -> list[int]:
    labels = list(range(len(texts)))
    for one, other in itertools.combinations(range(len(texts)), 2):
        if (
            plain_set(texts[one], unit, size)
            and plain_set(texts[other], unit, size)
            and plain_similarity(texts[one], texts[other], unit, size) >= threshold
        ):
            low, high = sorted((labels[one], labels[other]))
            labels = [low if label == high else label for label in labels]
    return labels


@given(TEXTS, UNITS)
@settings(deadline=None)
def test_similarity_is_that_of_plain_sets(texts: list[str], how: tuple[str, int]) -> None:
    pairs = list(itertools.combinations(range(len(texts)), 2))
    if not pairs:
        return
    left, right = np.array(pairs, dtype=np.int64).T
    found = JaccardMatrix([texts], how[0], how[1]).similarity(texts, left, right)  # type: ignore[arg-type]
    assert found.tolist() == [plain_similarity(texts[one], texts[other], *how) for one, other in pairs]


@given(TEXTS, UNITS, st.sampled_from([0.5, 0.7, 1.0]))
@settings(deadline=None, max_examples=60)
def test_clusters_are_those_of_brute_force(texts: list[str], how: tuple[str, int], threshold: float) -> None:
    plan = minhash.MinHashParams(threshold, how[0], how[1], threads=1, **SURE)  # type: ignore[arg-type]
    assert minhash.label_clusters([texts], plan).tolist() == plain_clusters(texts, *how, threshold)


def corpus(seed: int, bases: int) -> list[str]:
    draw = random.Random(seed)
    vocabulary = [f"w{number}" for number in range(400)]
    texts = []
    for _ in range(bases):
        words = draw.choices(vocabulary, k=draw.randint(15, 40))
        texts.append(" ".join(words))
        for _ in range(draw.choice([0, 0, 1, 2])):
            copy = list(words)
            for _ in range(draw.randint(1, 3)):
                copy[draw.randrange(len(copy))] = draw.choice(vocabulary)
            texts.append(" ".join(copy))
    draw.shuffle(texts)
    return texts


def test_recall_is_within_the_bound_and_no_pair_is_wrong() -> None:
    texts = corpus(3, 300)
    plan = minhash.MinHashParams(0.6, "word", 2, bands=12, rows=4, seed=1)
    labels = minhash.label_clusters([texts], plan).tolist()
    likely = found = 0.0
    for one, other in itertools.combinations(range(len(texts)), 2):
        similarity = plain_similarity(texts[one], texts[other], "word", 2)
        if similarity >= 0.6:
            likely += 1 - (1 - similarity**4) ** 12  # chance to become a candidate: 12 bands of 4 values
            found += labels[one] == labels[other]
    assert likely > 100
    assert found >= likely - 3 * likely**0.5
    exact = plain_clusters(texts, "word", 2, 0.6)
    assert all(
        exact[one] == exact[other]
        for one, other in itertools.combinations(range(len(texts)), 2)
        if labels[one] == labels[other]
    )


@pytest.mark.parametrize("seed", range(4))
def test_clusters_do_not_depend_on_the_order(seed: int) -> None:
    texts = [*corpus(5, 120), "same words here", "same words here", "Same, words HERE!"]
    # Few bands on purpose: what is found and what is missed must be the same in any order.
    plan = minhash.MinHashParams(0.6, "word", 2, bands=3, rows=4, seed=2)
    order = list(range(len(texts)))
    random.Random(seed).shuffle(order)
    straight, shuffled = (
        minhash.label_clusters([texts], plan).tolist(),
        minhash.label_clusters([[texts[place] for place in order]], plan).tolist(),
    )
    assert groups(straight) == {frozenset(order[place] for place in group) for group in groups(shuffled)}


def groups(labels: list[int]) -> set[frozenset[int]]:
    found: dict[int, set[int]] = {}
    for place, label in enumerate(labels):
        found.setdefault(label, set()).add(place)
    return {frozenset(group) for group in found.values()}


def test_threads_and_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = corpus(7, 100)
    one = minhash.label_clusters([texts], minhash.MinHashParams(0.6, "word", 2, 20, 4, threads=1)).tolist()
    monkeypatch.setattr("tunectl.data.dedup.shingles.CHUNK_CHARACTERS", 500)
    monkeypatch.setattr("tunectl.data.dedup.jaccard.PART_CHARACTERS", 700)
    assert minhash.label_clusters([texts], minhash.MinHashParams(0.6, "word", 2, 20, 4, threads=3)).tolist() == one


def test_a_bucket_larger_than_the_whole_is_still_one_cluster() -> None:
    texts = [f"the very same template of many words for shop number {number} in town today" for number in range(200)]
    assert set(minhash.label_clusters([texts], minhash.MinHashParams(0.6, "word", 2, 20, 2)).tolist()) == {0}


def near(**more: object) -> NearDedupConfig:
    values = {
        "side": "output",
        "action": "remove",
        "keep": "longest",
        "threshold": 0.6,
        "shingle": {"unit": "word", "size": 2},
        "bands": 40,
        "rows": 2,
    }
    return NearDedupConfig.model_validate(values | more)


def document(name: str, text: str) -> Document:
    return Document(name, text, Source("a", 1))


def example(name: str, asked: str, *answers: str) -> Example:
    return Example(
        name,
        Source("a", 1),
        [Message("system", "be brief"), Message("user", asked)],
        [ReferenceAnswer(text, Source("a", 1)) for text in answers],
    )


LONG = "fresh peach pie every sunday morning at the old mill cafe downtown"


def test_the_longest_stays_and_the_reject_says_why() -> None:
    block = NearDedup(near(), seed=0, threads=1)
    outcomes = list(block([document("1", LONG), document("2", f"{LONG} today"), document("3", "nothing like it")]))

    assert outcomes[1:] == [document("2", f"{LONG} today"), document("3", "nothing like it")]
    assert isinstance(outcomes[0], RejectedRecord)
    assert outcomes[0].detail == "0.92 like 2"
    assert block.sizes == {2: 1}


def test_the_first_stays_when_declared() -> None:
    outcomes = list(
        NearDedup(near(keep="first"), seed=0, threads=1)([document("1", LONG), document("2", f"{LONG} today")])
    )
    assert [isinstance(outcome, RejectedRecord) for outcome in outcomes] == [False, True]


def test_marked_clusters_all_stay() -> None:
    one, two, three = (
        example("1", "q", LONG),
        example("2", "r", f"{LONG} today"),
        example("3", "s", "something else entirely"),
    )
    outcomes = list(NearDedup(near(action="cluster"), seed=0, threads=1)([one, two, three]))
    assert all(isinstance(outcome, Example) for outcome in outcomes)
    clusters = [outcome.cluster for outcome in outcomes if isinstance(outcome, Example)]
    assert clusters[0] is not None
    assert clusters[0] == clusters[1]
    assert clusters[2] is None


@pytest.mark.parametrize(("side", "removed"), [("input", 1), ("output", 0), ("both", 0)])
def test_sides_with_like_inputs(side: str, removed: int) -> None:
    records = [example("1", LONG, "yes it is so nice there"), example("2", f"{LONG} today", "closed on monday we fear")]
    outcomes = list(NearDedup(near(side=side), seed=0, threads=1)(records))
    assert sum(isinstance(outcome, RejectedRecord) for outcome in outcomes) == removed


@pytest.mark.parametrize(("side", "removed"), [("input", 0), ("output", 1), ("both", 0)])
def test_sides_with_like_outputs(side: str, removed: int) -> None:
    records = [example("1", "an ad for the mill", LONG), example("2", "what is on sundays", f"{LONG} today")]
    outcomes = list(NearDedup(near(side=side), seed=0, threads=1)(records))
    assert sum(isinstance(outcome, RejectedRecord) for outcome in outcomes) == removed


def test_tokenized_rows_pass() -> None:
    rows = [Example(f"t{number}", Source("a", 1), tokens=Tokens([1, 2, 3], [1, 2, 3])) for number in range(3)]
    assert list(NearDedup(near(), seed=0, threads=1)(rows)) == rows


def test_a_second_time_removes_nothing() -> None:
    records = [document(str(number), text) for number, text in enumerate(corpus(11, 150))]
    left = [outcome for outcome in NearDedup(near(), seed=0, threads=1)(records) if isinstance(outcome, Document)]
    assert len(left) < len(records)
    assert list(NearDedup(near(), seed=0, threads=1)(left)) == left


def test_documents_and_examples_are_not_compared() -> None:
    records = [document("1", LONG), example("2", "q", LONG)]
    assert list(NearDedup(near(), seed=0, threads=1)(records)) == records
