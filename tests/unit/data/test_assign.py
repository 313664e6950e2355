from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunectl.artifacts.records import SPLIT_NAMES, Example, Message, ReferenceAnswer, Segment, Source, Tokens
from tunectl.core.errors import DataError
from tunectl.data.split.assign import SplitRule, assign_splits
from tunectl.data.split.groups import find_connected_groups, prompt_key, split_words

SHARES = {"train": 0.7, "validation": 0.15, "test": 0.15}


def rule(**changes):
    values = {"shares": SHARES, "stratify": (), "group": (), "held_out": {}, "seed": 1} | changes
    return SplitRule(**values)


def example(number, text=None, *, cluster=None, split=None, **fields):
    source = Source("f", number)
    turns = [Message("user", text or f"input {number}")]
    return Example(
        f"e{number}",
        source,
        messages=turns,
        answers=[ReferenceAnswer("a", source)],
        fields=fields,
        cluster=cluster,
        split=split,
    )


def sizes(placed):
    return Counter(place.part for place in placed if place.reason is None)


values = st.none() | st.integers(0, 12)
rows = st.lists(st.tuples(st.integers(0, 60), values, values), min_size=30, max_size=120)


def build(drawn):
    made = []
    for number, (text, cluster, shop) in enumerate(drawn):
        fields = {} if shop is None else {"shop": f"s{shop}"}
        made.append(example(number, f"text {text}", cluster=None if cluster is None else f"c{cluster}", **fields))
    # ten that nothing joins, so that three splits can be filled
    return made + [example(1000 + n, f"alone {n}") for n in range(10)]


@settings(max_examples=80, deadline=None)
@given(rows, st.integers(0, 5))
def test_no_group_ever_spans_two_splits(drawn, seed):
    made = build(drawn)
    placed = assign_splits(made, rule(group=("shop",), seed=seed))
    for link in (prompt_key, lambda e: e.cluster, lambda e: e.fields.get("shop")):
        where = {}
        for row, place in zip(made, placed, strict=True):
            if link(row) is not None:
                assert where.setdefault(link(row), place.part) == place.part


@settings(max_examples=40, deadline=None)
@given(rows, st.randoms(use_true_random=False))
def test_order_of_rows_plays_no_part(drawn, shuffler):
    made = build(drawn)
    mixed = made.copy()
    shuffler.shuffle(mixed)
    one = {row.id: place for row, place in zip(made, assign_splits(made, rule(group=("shop",))), strict=True)}
    two = {row.id: place for row, place in zip(mixed, assign_splits(mixed, rule(group=("shop",))), strict=True)}
    assert one == two


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 6), min_size=20, max_size=80), st.integers(0, 9))
def test_shares_are_met_to_within_a_group(group_sizes, seed):
    made = [example(100 * g + n, shop=f"s{g}") for g, size in enumerate(group_sizes) for n in range(size)]
    found = sizes(assign_splits(made, rule(group=("shop",), seed=seed)))
    for part, share in SHARES.items():
        assert abs(found[part] - share * len(made)) <= 6


def test_strata_get_the_same_shares():
    made = [example(n, area="a" if n % 4 else "b") for n in range(400)]
    placed = assign_splits(made, rule(stratify=("area",)))
    for area in "ab":
        inside = Counter(p.part for e, p in zip(made, placed, strict=True) if e.fields["area"] == area)
        assert inside["test"] == pytest.approx(0.15 * inside.total(), abs=1)


def test_many_tiny_strata_still_meet_the_shares():
    made = [example(n, area=f"a{n // 2}") for n in range(200)]
    found = sizes(assign_splits(made, rule(stratify=("area",))))
    assert found["test"] == pytest.approx(30, abs=1)
    assert found["validation"] == pytest.approx(30, abs=1)


def test_new_rows_move_few_old_ones():
    made = [example(n) for n in range(1000)]
    before = [place.part for place in assign_splits(made, rule())]
    after = [place.part for place in assign_splits(made + [example(n) for n in range(1000, 1100)], rule())][:1000]
    moved = sum(a != b for a, b in zip(before, after, strict=True))
    assert moved <= 40  # independent draws would move about 460


def test_seed_matters():
    made = [example(n) for n in range(100)]
    assert assign_splits(made, rule(seed=1)) != assign_splits(made, rule(seed=2))


def test_a_large_group_stays_in_train():
    made = [example(n, shop="chain") for n in range(50)] + [example(100 + n, shop=f"s{n}") for n in range(50)]
    placed = assign_splits(made, rule(group=("shop",)))
    assert {place.part for place in placed[:50]} == {"train"}
    assert sizes(placed)["test"] == 15


def test_own_column_is_respected():
    made = [example(n, split=SPLIT_NAMES[n % 3]) for n in range(30)]
    assert [place.part for place in assign_splits(made, rule())] == [row.split for row in made]


def test_validation_is_taken_from_train_where_the_column_has_none():
    made = [example(n, split="test" if n < 20 else "train") for n in range(100)]
    placed = assign_splits(made, rule())
    assert {place.part for place in placed[:20]} == {"test"}
    assert sizes(placed) == {"test": 20, "validation": 15, "train": 65}


def test_rows_marked_train_stay_where_others_are_free():
    made = [example(n, split="train" if n < 50 else None) for n in range(100)]
    placed = assign_splits(made, rule())
    assert {place.part for place in placed[:50]} == {"train"}
    assert sizes(placed)["test"] == 15


def test_one_input_marked_twice_is_rejected_from_train():
    made = [example(n, split=SPLIT_NAMES[n % 3]) for n in range(9)] + [example(10, "input 2", split="train")]
    last = assign_splits(made, rule())[-1]
    assert (last.part, last.reason) == ("test", "group_in_other_split")
    assert (
        last.detail == "marked train, but a record of its group (equal input, near duplicate or field) is marked test"
    )


HELD = {"phrasing": {"validation": frozenset({"p8"}), "test": frozenset({"p9"})}}


def test_held_out_values_never_occur_elsewhere():
    made = [example(n, shop=f"s{n % 30}", phrasing=f"p{n % 10}") for n in range(300)]
    placed = assign_splits(made, rule(group=("shop",), held_out=HELD))
    kept = [
        (place.part, row.fields["phrasing"]) for row, place in zip(made, placed, strict=True) if place.reason is None
    ]
    assert {value for part, value in kept if part == "test"} == {"p9"}
    assert {value for part, value in kept if part == "validation"} == {"p8"}
    assert {value for part, value in kept if part == "train"} == {f"p{n}" for n in range(8)}


def test_a_group_goes_where_its_values_may_be():
    made = [
        example(n, shop=f"s{n % 20}", phrasing="p9" if n % 20 < 5 else "p8" if n % 20 < 8 else "p1") for n in range(200)
    ]
    placed = assign_splits(made, rule(group=("shop",), held_out=HELD))
    assert not [place for place in placed if place.reason]
    assert sizes(placed) == {"test": 50, "validation": 30, "train": 120}


def test_without_held_validation_values_it_shares_trains():
    held = {"phrasing": {"validation": frozenset(), "test": frozenset({"p9"})}}
    made = [example(n, phrasing="p9" if n < 20 else "p1") for n in range(100)]
    placed = assign_splits(made, rule(held_out=held))
    assert sizes(placed) == {"test": 20, "validation": 15, "train": 65}


def test_wrong_value_for_the_split_names_it():
    made = [example(n, shop=f"s{n // 2}", phrasing="p9" if n % 2 else "p1") for n in range(40)]
    rejected = next(
        place
        for place in assign_splits(
            made, rule(group=("shop",), held_out={"phrasing": HELD["phrasing"] | {"validation": frozenset()}})
        )
        if place.reason
    )
    assert rejected.reason == "held_out_value"
    assert rejected.detail in {
        "phrasing=p9 may not be in train",
        "phrasing=p1 may not be in test",
        "phrasing=p9 may not be in validation",
    }


def test_three_rows_fill_three_splits():
    assert sizes(assign_splits([example(n) for n in range(3)], rule())) == {"train": 1, "validation": 1, "test": 1}


def test_two_groups_cannot():
    made = [example(n, shop=f"s{n % 2}") for n in range(12)]
    with pytest.raises(
        DataError,
        match=r"^split: validation would be empty: 12 records in 2 groups that must stay together \(equal inputs, near duplicates, shop\); at least 3",
    ):
        assign_splits(made, rule(group=("shop",)))


def test_input_keys():
    one = example(1, "Write  an AD, please!")
    assert prompt_key(one) == prompt_key(example(2, "write an ad please"))
    assert prompt_key(example(1, "!!!")) != prompt_key(example(1, "???"))
    shown = Example("s", Source("f"), segments=[Segment("hello ", False), Segment("world", True)])
    assert prompt_key(shown) == prompt_key(
        Example("t", Source("f"), segments=[Segment("hello", False), Segment("you", True)])
    )
    ids = Example("t", Source("f"), tokens=Tokens([1, 2, 3], [-100, -100, 3]))
    assert prompt_key(ids) == prompt_key(Example("u", Source("f"), tokens=Tokens([1, 2, 9], [-100, -100, 9])))


def test_words_fold_case_width_and_signs():
    assert split_words("\uff23afé—it's  FINE!") == ["café", "it", "s", "fine"]


def test_group_keys_survive_new_members():
    made = [example(1, shop="a"), example(2, shop="a"), example(3)]
    before = [group.key for group in find_connected_groups(made, ("shop",))]
    after = [group.key for group in find_connected_groups([*made, example(4, shop="a")], ("shop",))]
    assert before == after
