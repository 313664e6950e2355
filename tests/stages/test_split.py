import random
from pathlib import Path

import pytest
import yaml

from tunectl.artifacts import atomic_io, row_counts
from tunectl.artifacts.records import Document, Example, Message, ReferenceAnswer, Source
from tunectl.config.schema.split import SplitStage
from tunectl.core.errors import DataError
from tunectl.data.split.report import SplitReport
from tunectl.evaluation.items import from_examples
from tunectl.pipeline.stages import split

CONF = Path(__file__).parents[2] / "conf" / "split"


def config(name="default", **changes):
    values = yaml.safe_load((CONF / f"{name}.yaml").read_text())
    return SplitStage.model_validate({"split": values | changes, "seed": 1})


def example(number, text=None, answer=None, **fields):
    source = Source("ads.csv", number)
    said = answer or f"Answer number {number} says something that is only its own, namely {number * 7919}"
    return Example(
        f"e{number}",
        source,
        messages=[Message("user", text or f"Write ad {number}")],
        answers=[ReferenceAnswer(said, source)],
        fields=fields,
    )


def project(tmp_path, examples, documents=()):
    folder = tmp_path / "curate"
    atomic_io.write_rows(folder / "examples.jsonl", examples)
    atomic_io.write_rows(folder / "documents.jsonl", documents)
    out = tmp_path / "split"
    out.mkdir()
    return split.Inputs(folder), split.Outputs(out)


def parts(out):
    return {
        name: list(atomic_io.read_rows(out.artifact / f"{name}.jsonl", Example))
        for name in ("train", "validation", "test")
    }


def test_default_shares_and_account(tmp_path):
    inputs, outputs = project(tmp_path, [example(n) for n in range(200)], [Document("d1", "text", Source("a.txt"))])
    found = split.run(config(), inputs, outputs)
    assert (found.train, found.validation, found.test, found.documents) == (140, 30, 30, 1)
    account = row_counts.load(outputs.artifact)
    assert (account.rows_in, account.kept, account.records_out) == (201, 201, 201)
    assert {name: {row.split for row in rows} for name, rows in parts(outputs).items()} == {
        name: {name} for name in parts(outputs)
    }


def test_what_stays_together_is_one_cluster(tmp_path):
    """Intervals of evaluate resample by cluster: ten ads of one business are not ten independent ads."""
    rows = [example(n, business=f"b{n // 5}" if n < 100 else "") for n in range(200)]
    inputs, outputs = project(tmp_path, rows)
    split.run(config(group=["business"]), inputs, outputs)
    for written in parts(outputs).values():
        for row in written:
            assert row.cluster == (f"business={row.fields['business']}" if row.fields["business"] else None)
    items, _ = from_examples(parts(outputs)["test"])
    assert len({item.cluster for item in items}) < len(items)


def test_leaks_are_removed_from_train_and_reported(tmp_path):
    told = "Come to our place tonight for the best soup in all of the city centre"
    inputs, outputs = project(tmp_path, [example(n, answer=told if n < 10 else None) for n in range(100)])
    found = split.run(config(), inputs, outputs)
    rows = parts(outputs)
    held = [row for name in ("validation", "test") for row in rows[name] if row.answers[0].text == told]
    assert held, "the seed must put one of the ten into validation or test"
    assert not [row for row in rows["train"] if row.answers[0].text == told]
    assert found.leaks == 10 - len(held)
    assert row_counts.load(outputs.artifact).rejected == {"leaks_into_test": found.leaks}
    report = atomic_io.read_json(outputs.artifact / "report.json", SplitReport)
    assert report.leaks.removed
    assert report.leaks.samples[0].train == told


def test_leaks_are_only_reported_where_asked(tmp_path):
    inputs, outputs = project(
        tmp_path, [example(n, answer="the same eight words again and again here") for n in range(50)]
    )
    found = split.run(config("e2e"), inputs, outputs)
    assert found.leaks == found.train
    assert found.rejected == 0
    assert found.test_4grams_seen == 1.0


def test_documents_that_hold_a_test_answer_are_removed(tmp_path):
    rows = [example(n) for n in range(30)]
    texts = [
        Document(f"d{n}", f"A page. {row.answers[0].text} The end.", Source(f"{n}.html")) for n, row in enumerate(rows)
    ]
    inputs, outputs = project(tmp_path, rows, texts)
    found = split.run(config(), inputs, outputs)
    held = {row.id[1:] for name in ("validation", "test") for row in parts(outputs)[name]}
    kept = {row.id[1:] for row in atomic_io.read_rows(outputs.artifact / "documents.jsonl", Document)}
    assert kept == {str(n) for n in range(30)} - held
    assert found.leaks == len(held)
    report = atomic_io.read_json(outputs.artifact / "report.json", SplitReport)
    assert (report.leaks.found, report.leaks.documents, report.documents) == (0, len(held), len(kept))


def test_documents_of_held_out_groups_stay_out(tmp_path):
    rows = [example(n, business=f"b{n % 20}") for n in range(100)]
    texts = [Document(f"d{n}", f"about {n}", Source(f"{n}.html"), fields={"business": f"b{n}"}) for n in range(20)]
    inputs, outputs = project(tmp_path, rows, texts)
    split.run(config(group=["business"], documents_exclude_groups=["business"]), inputs, outputs)
    found = parts(outputs)
    held = {row.fields["business"] for name in ("validation", "test") for row in found[name]}
    assert held.isdisjoint(row.fields["business"] for row in found["train"])
    kept = {row.fields["business"] for row in atomic_io.read_rows(outputs.artifact / "documents.jsonl", Document)}
    assert kept == {f"b{n}" for n in range(20)} - held
    assert row_counts.load(outputs.artifact).rejected == {"about_a_test_group": len(held)}


POPULATION = {"price": {"low": 0.5, "high": 0.5}}


def priced():
    draw = random.Random(3)
    return [example(n, price="low" if draw.random() < 0.8 else "high") for n in range(300)]


def test_reweight_reaches_the_population(tmp_path):
    inputs, outputs = project(tmp_path, priced())
    balance = {"method": "reweight", "min_weight": 0.2, "max_weight": 5.0}
    found = split.run(config(population=POPULATION, balance=balance), inputs, outputs)
    report = atomic_io.read_json(outputs.artifact / "report.json", SplitReport)
    assert report.balance["records"][0].values[0].out_of_balance
    assert report.balance["train"][0].values[0].share == pytest.approx(0.5, abs=1e-3)
    assert found.train_effective < found.train
    assert {row.weight for row in parts(outputs)["test"]} == {1.0}


@pytest.mark.parametrize("count", [12, 300])  # of few rows a value may be absent by chance, and is named all the same
@pytest.mark.parametrize(
    "balance",
    [
        None,
        {"method": "reweight", "min_weight": 0.2, "max_weight": 5.0},
        {"method": "resample", "size": 1.0, "max_copies": 3},
    ],
)
def test_a_group_that_never_occurs_is_named_and_not_made_up(tmp_path, caplog, balance, count):
    inputs, outputs = project(tmp_path, [example(n, price="low" if n % 3 else "Mid ") for n in range(count)])
    population = {"price": {"low": 0.5, "mid": 0.3, "high": 0.2}}
    split.run(config(population=population, balance=balance), inputs, outputs)
    told = [record.getMessage() for record in caplog.records]
    assert "price=high never occurs: population 20.0%; no weight makes up for it" in told
    assert "price=mid never occurs: population 30.0%; no weight makes up for it" in told
    assert (
        f"price: the population does not name 'Mid ' ({count // 3}, did you mean mid?); these records are left out of its shares"
        in told
    )
    report = atomic_io.read_json(outputs.artifact / "report.json", SplitReport)
    if balance is not None:
        assert report.weights.gap == pytest.approx(0.5)  # low has all the weight, and should have half


@pytest.mark.parametrize(("size", "most"), [(1.0, 4), (0.35, 1)])
def test_resample_reaches_the_population(tmp_path, size, most):
    inputs, outputs = project(tmp_path, priced())
    balance = {"method": "resample", "size": size, "max_copies": most}
    found = split.run(config(population=POPULATION, balance=balance), inputs, outputs)
    train = parts(outputs)["train"]
    assert sum(row.fields["price"] == "low" for row in train) / len(train) == pytest.approx(0.5, abs=0.03)
    assert len({row.id for row in train}) == len(train)
    assert len(train) == pytest.approx(210 * size, abs=2)
    account = row_counts.load(outputs.artifact)
    assert account.rejected["over_represented"] == found.rejected
    assert account.records_out == found.train + found.validation + found.test


def test_one_row(tmp_path):
    inputs, outputs = project(tmp_path, [example(1)])
    with pytest.raises(DataError) as error:
        split.run(config(), inputs, outputs)
    assert str(error.value) == (
        "split: validation and test would be empty: 1 record in 1 group that must stay together (equal inputs, near duplicates); at least 3 groups are needed\n"
        "  add data, group by fewer fields (split.group), or see what earlier stages rejected: tunectl data rejects"
    )


def test_no_examples(tmp_path):
    inputs, outputs = project(tmp_path, [], [Document("d", "x", Source("a"))])
    with pytest.raises(DataError, match=r"^split: there is no example to train and test on"):
        split.run(config(), inputs, outputs)


def test_unknown_field(tmp_path):
    inputs, outputs = project(tmp_path, [example(n, price="low") for n in range(9)])
    with pytest.raises(DataError) as error:
        split.run(config(group=["busines"]), inputs, outputs)
    assert str(error.value) == (
        "split.group: no record has a field busines; fields kept by ingest: price\n  list it under fields of its source in the ingest section"
    )


def test_all_of_train_leaks(tmp_path):
    inputs, outputs = project(
        tmp_path, [example(n, answer="one text of eight words for all inputs") for n in range(20)]
    )
    with pytest.raises(DataError) as error:
        split.run(config(), inputs, outputs)
    assert str(error.value) == (
        "split: train is empty: all 14 records leak into validation or test (80% of word 8-grams)\n"
        "  raise split.leakage.min_overlap or split.leakage.ngram, or count leaks only: split.leakage.action=report"
    )


def test_same_bytes_twice_and_in_any_order(tmp_path):
    rows = [example(n, business=f"b{n % 30}") for n in range(120)]
    ids = []
    for name, order in (("a", rows), ("b", rows[::-1])):
        inputs, outputs = project(tmp_path / name, order)
        split.run(config(group=["business"]), inputs, outputs)
        ids.append({part: sorted(row.id for row in found) for part, found in parts(outputs).items()})
    assert ids[0] == ids[1]
