"""The data report: facts from artifacts, the page, and what it warns about."""

import random
from html.parser import HTMLParser

import pytest

from tunectl.artifacts import atomic_io
from tunectl.artifacts.records import SPLIT_NAMES, Document, Example, Message, ReferenceAnswer, RejectedRow, Source
from tunectl.artifacts.row_counts import RowCounter, save
from tunectl.backends.reports import data
from tunectl.cli.main import main
from tunectl.core.errors import ArtifactError
from tunectl.data.curation_report import Answers, CurationReport, Duplicates, RecordCounts
from tunectl.data.data_report import gather, list_findings
from tunectl.data.learning_curve import Likelihood, MeasuredSize, fit_and_advise
from tunectl.data.population_balance import measure_shares
from tunectl.data.readers.example_collector import FormatDecision, SourceReport
from tunectl.data.split.report import ContaminationReport, LeakSample, SplitReport, Weights


def example(number, part):
    draw = random.Random(number)
    source = Source("data/ads.jsonl", number)
    fields = {"price": draw.choices(["low", "high"], [8, 2])[0], "business": f"b{number}"}
    answers = [ReferenceAnswer("an answer of " + "many " * draw.randint(1, 40), source)] * (1 + number % 2)
    cluster = f"c{number // 20}" if number % 20 < 2 else None
    return Example(
        f"e{number}",
        source,
        [Message("user", f"ad <script>{number}</script> please")],
        answers,
        kind="ads",
        fields=fields,
        split=part,
        cluster=cluster,
        weight=1.0 if part != "train" else 0.5 + number % 2,
    )


def account(folder, stage, *, rejected, files):
    tally = RowCounter(stage)
    kept = sum(map(len, files.values()))
    tally.read(kept + len(rejected))
    tally.keep(kept)
    for number, reason in enumerate(rejected, 1):
        tally.reject(RejectedRow(Source("data/raw.csv", number), reason, "value <b>", f"sample text {number}"))
    for name, rows in files.items():
        atomic_io.write_rows(folder / name, rows)
    save(tally, folder, records_out=kept, max_rejected_share=1.0, setting="x")


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = {
        part: [example(1000 * place + n, part) for n in range(size)]
        for place, (part, size) in enumerate(zip(SPLIT_NAMES, (140, 30, 30), strict=True))
    }
    every = [row for part in SPLIT_NAMES for row in rows[part]]
    texts = [
        Document(f"d{n}", "word " * (n + 1), Source(f"web/{n}.html"), kind="web", fields={"price": "low"})
        for n in range(20)
    ]
    root = tmp_path / "artifacts"
    whole = {"documents.jsonl": texts, "examples.jsonl": every}
    account(
        root / "ingest",
        "ingest",
        rejected=["no_text"],
        files=whole | {"documents.jsonl": [*texts, *[Document(f"x{n}", "x", Source("y")) for n in range(90)]]},
    )
    atomic_io.write_json(
        root / "ingest" / "decisions.json",
        {
            "ads": SourceReport(
                "data/ads.jsonl",
                1,
                200,
                200,
                0,
                200,
                300,
                read_as=[FormatDecision("jsonl", "chat", "examples", "columns messages", "data/ads.jsonl")],
            )
        },
    )
    account(root / "curate", "curate", rejected=["exact_duplicate"] * 90, files=whole)
    atomic_io.write_json(root / "curate" / "report.json", curation())
    account(
        root / "split",
        "split",
        rejected=["leaks_into_test"] * 0,
        files={**{f"{part}.jsonl": rows[part] for part in SPLIT_NAMES}, "documents.jsonl": texts},
    )
    atomic_io.write_json(root / "split" / "report.json", split_report(every, rows["train"]))
    return root


def curation():
    return CurationReport(
        RecordCounts(110, 20, 200, 200),
        Answers(300, 298, 0, {"echo": 2}),
        {"mojibake": 7, "html": 0},
        {"en": 190, "es": 4},
        {"email": 5},
        4,
        Duplicates(exact=90, merged=3, field_conflicts=1, cluster_sizes={"2": 4}),
        {"exact_duplicate": 90},
        {},
    )


def split_report(every, train):
    target = {"low": 0.5, "high": 0.5}
    views = {
        "records": [measure_shares([row.fields for row in every], "price", target, seed=1)],
        "documents": [measure_shares([{"price": "low"}] * 20, "price", target, seed=1)],
        "train": [
            measure_shares(
                [row.fields for row in train], "price", target, seed=1, weights=[row.weight for row in train]
            )
        ],
    }
    leaks = ContaminationReport(1, 0, False, 8, 0.8, [LeakSample("answer", 0.9, "train words", "test words")])
    return SplitReport(
        {"train": 140, "validation": 30, "test": 30},
        {"train": 210, "validation": 45, "test": 45},
        20,
        150,
        80,
        leaks,
        0.31,
        None,
        views,
        Weights("reweight", 120.4, 0.01, 0.5, 1.5),
    )


def folders(root):
    return {stage: root / stage for stage in ("model", "ingest", "curate", "split", "sft")}


def curve():
    return fit_and_advise(
        [
            MeasuredSize(
                rows / 140, rows, [Likelihood(f"v{n}", -20 * (1 + 5 / rows**0.5 + n % 3 / 50), 20) for n in range(30)]
            )
            for rows in (14, 35, 70, 140)
        ],
        worth=0.02,
        seed=1,
        clusters={},
    )


class Page(HTMLParser):
    def __init__(self):
        super().__init__()
        self.outside, self.ids, self.targets, self.svgs, self.scripts = [], set(), set(), 0, 0

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.svgs += tag == "svg"
        self.scripts += tag == "script"
        if values.get("id"):
            self.ids.add(values["id"])
        link = values.get("href") or values.get("src") or ""
        (self.targets.add(link[1:]) if link.startswith("#") else self.outside.append(link)) if link else None


def test_facts(project):
    facts = gather(folders(project))
    assert facts.origin == "curate"
    assert facts.kinds == {"ads": {"documents": 0, "examples": 200}, "web": {"documents": 20, "examples": 0}}
    assert (len(facts.lengths.documents), len(facts.lengths.inputs), len(facts.lengths.answers)) == (20, 200, 300)
    assert [(loss.stage, loss.reason, loss.rows, len(loss.samples)) for loss in facts.losses] == [
        ("curate", "exact_duplicate", 90, 5),
        ("ingest", "no_text", 1, 1),
    ]
    assert [entry.field for entry in facts.slices] == ["price"]  # every business is another one: no slice
    assert sum(facts.slices[0].shares["train"]) == pytest.approx(1)
    assert len(facts.weights) == 140
    assert facts.clusters[:3] == [2, 2, 2]


def test_notes_say_what_to_look_at(project):
    found = list_findings(gather(folders(project)))
    assert ("good", "Every row is accounted for.") in found
    assert ("warn", "curate rejected 29% of its 310 rows.") in found
    assert (
        "warn",
        "One group of 80 records must stay together, out of 200: the splits hang on where it goes.",
    ) in found
    assert ("warn", "1 train records and documents hold most of a validation or test text, and were left in.") in found
    assert ("warn", "Test has 30 records: only large differences between models will show.") in found
    assert any(
        sentence.startswith("price is not that of the population (large distance): too much low; too little high")
        for _, sentence in found
    )


def test_the_page_is_whole_and_self_contained(project):
    text = data.render("lens", gather(folders(project)), curve=curve())
    page = Page()
    page.feed(text)
    assert page.outside == []
    assert page.scripts == 0  # a row's markup is shown, never run
    assert page.targets == {
        "content",  # of the link that skips the contents
        "account",
        "sources",
        "lengths",
        "rejects",
        "duplicates",
        "curation",
        "who",
        "splits",
        "curve",
    }
    assert page.targets <= page.ids
    assert page.svgs >= 12
    for words in (
        "The data of lens",
        "exact_duplicate: 90 of curate",
        "31.0 %",
        "effective sample size 120",
        "More data would help",
        "jsonl, chat (columns messages)",
    ):
        assert words in text, words
    assert "value &lt;b&gt;" in text


def test_the_page_of_a_project_that_has_only_ingested(project):
    for stage in ("curate", "split"):
        for path in (project / stage).iterdir():
            path.unlink()
    facts = gather(folders(project))
    assert (facts.origin, facts.split, facts.curation) == ("ingest", None, None)
    text = data.render("lens", facts, curve=None)
    assert 'id="who"' not in text
    assert "Records of each declared source after ingest." in text


def test_the_verb_writes_the_page_and_says_the_notes(project, capsys):
    assert main(["data", "report"]) == 0
    out = capsys.readouterr().out
    assert "curate rejected 29% of its 310 rows." in out
    assert "report: artifacts/data_report.html" in out
    assert (project / "data_report.html").read_text().startswith("<!doctype html>")
    assert main(["data", "report", "--json"]) == 0
    assert '"origin": "curate"' in capsys.readouterr().out


def test_nothing_ingested(project):
    for name in ("documents.jsonl", "examples.jsonl"):
        for stage in ("ingest", "curate"):
            (project / stage / name).unlink()
    with pytest.raises(ArtifactError, match="ingest is not built, so there is no data to report on"):
        gather(folders(project))
