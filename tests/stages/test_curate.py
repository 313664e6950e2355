"""Stage curate: files in, files out, account and report; on real data where it is at hand."""

from __future__ import annotations

import csv
import gzip
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from conf_copy import copy_conf

from tunectl.artifacts import atomic_io, manifest, row_counts
from tunectl.artifacts.paths import ProjectPaths
from tunectl.artifacts.records import Document, Example, Message, ReferenceAnswer, RejectedRow, Source, Tokens
from tunectl.backends.wiring import curation
from tunectl.config.loading import checks, override_file
from tunectl.config.loading.override_parsing import Override
from tunectl.config.schema.curate import CurateStage
from tunectl.core.errors import DataError
from tunectl.core.optional import RequiredPackage
from tunectl.data.curation_pipeline import FilterDeps
from tunectl.data.curation_report import CurationReport, RecordTally
from tunectl.pipeline.required_extras import list_build_packages
from tunectl.pipeline.stages import STAGES, curate
from tunectl.pipeline.stages.compose import compose
from tunectl.privacy.mask import PiiMasker
from tunectl.privacy.resources import PiiResources

ROOT = Path(__file__).parents[2]
CORPORA = ROOT / "tests" / "data" / "corpora"
PROFILE = {
    "device": "cpu",
    "threads": 1,
    "dtype": "auto",
    "train_batch_tokens": 4096,
    "generate_batch": 8,
    "gradient_checkpointing": False,
}
TOOLS = PiiResources(lambda text: [], bool, bool, bool, frozenset(["sarah"]), frozenset(["miller"]))
FAKES = FilterDeps(
    mojibake=lambda repair: lambda text: text.replace("Ã©", "é"),
    languages=lambda language: lambda text: ("de", 0.99) if "und" in text.split() else ("en", 0.99),
    personal=lambda personal: PiiMasker(TOOLS, kinds=personal.kinds, keep=personal.keep),
)


def settings(group: str, **changes: Any) -> CurateStage:
    values = yaml.safe_load((ROOT / "conf" / "curate" / f"{group}.yaml").read_text())
    del values["engine"]  # in no stage's settings
    return CurateStage.model_validate({"curate": values | changes, "seed": 0, "hardware": PROFILE})


def run(
    folder: Path, cfg: CurateStage, records: list[Document | Example], libraries: FilterDeps | None = FAKES
) -> curate.Metrics:
    (folder / "ingest").mkdir(parents=True)
    (folder / "curate").mkdir()
    atomic_io.write_rows(
        folder / "ingest" / "documents.jsonl", [record for record in records if isinstance(record, Document)]
    )
    atomic_io.write_rows(
        folder / "ingest" / "examples.jsonl", [record for record in records if isinstance(record, Example)]
    )
    inputs = curate.Inputs(folder / "ingest", nothing(folder / "feedback"))
    return curate.run(cfg, inputs, curate.Outputs(folder / "curate"), libraries=libraries)


def nothing(folder: Path) -> Path:
    """What feedback leaves where there is no live traffic."""
    atomic_io.write_json(folder / manifest.PASSED_THROUGH, {"reason": "none"})
    return folder


def document(row: int, text: str, kind: str = "pages") -> Document:
    return Document(f"d{row}", text, Source("pages.csv", row), kind)


def pair(row: int, asked: str, answer: str) -> Example:
    place = Source("ads.csv", row)
    return Example(f"e{row}", place, [Message("user", asked)], [ReferenceAnswer(answer, place)], kind="ads")


RECORDS: list[Document | Example] = [
    document(1, "The cafÃ© on <b>Main Street</b> opens at seven every day. Write to cafe@example.com."),
    document(2, "the café on Main Street opens at seven every day, write to other@example.com"),
    document(3, "Wir haben Brot und Butter und Bier und mehr, und das jeden einzelnen Tag im ganzen Jahr."),
    document(4, "too short"),
    pair(1, "ad for the mill", "Fresh bread at the mill."),
    pair(2, "ad for the mill", "The mill bakes for you. Ask Sarah Miller."),
    pair(3, "ad for the mill", "fresh bread at the mill"),
    pair(4, "ad for the pond", "Swim in the pond, the"),
    Example("t", Source("t.jsonl", 1), tokens=Tokens([1, 2], [-100, 2]), kind="tokens"),
]


def test_what_goes_on_and_what_does_not(tmp_path: Path) -> None:
    metrics = run(tmp_path, settings("default", max_rejected_share=0.9), RECORDS)
    documents = list(atomic_io.read_rows(tmp_path / "curate" / "documents.jsonl", Document))
    examples = list(atomic_io.read_rows(tmp_path / "curate" / "examples.jsonl", Example))
    assert [row.text for row in documents] == ["The café on Main Street opens at seven every day. Write to [EMAIL_1]."]
    assert [[answer.text for answer in row.answers] for row in examples] == [
        ["Fresh bread at the mill.", "The mill bakes for you. Ask [PERSON_1]."],
        [],
    ]
    assert [answer.source.row for answer in examples[0].answers] == [1, 2]
    reasons = {"exact_duplicate": 2, "language": 1, "document_too_short": 1, "truncated": 1}
    assert metrics == curate.Metrics(
        records_in=9, documents=1, examples=2, answers=2, rejected=5, merged=1, personal=3, reasons=metrics.reasons
    )
    assert metrics.reasons == reasons


def test_account_and_rejects_prove_the_sum_and_leak_nothing(tmp_path: Path) -> None:
    run(tmp_path, settings("default", max_rejected_share=0.9), RECORDS)
    account = row_counts.load(tmp_path / "curate")
    assert (account.rows_in, account.kept, account.records_out) == (9, 4, 3)
    rejects = list(atomic_io.read_rows(tmp_path / "curate" / "rejects.jsonl", RejectedRow))
    assert {(reject.source.file, reject.source.row, reject.reason) for reject in rejects} == {
        ("pages.csv", 2, "exact_duplicate"),
        ("pages.csv", 3, "language"),
        ("pages.csv", 4, "document_too_short"),
        ("ads.csv", 3, "exact_duplicate"),
        ("ads.csv", 4, "truncated"),
    }
    assert b"@example.com" not in (tmp_path / "curate" / "rejects.jsonl").read_bytes()
    assert b"@example.com" not in (tmp_path / "curate" / "row_counts.json").read_bytes()


def test_report_has_its_declared_shape(tmp_path: Path) -> None:
    run(tmp_path, settings("default", max_rejected_share=0.9), RECORDS)
    report: CurationReport = atomic_io.read_json(tmp_path / "curate" / "report.json", CurationReport)
    assert msgspec.to_builtins(report.records) == {
        "documents_before": 4,
        "documents_after": 1,
        "examples_before": 5,
        "examples_after": 2,
    }
    assert (report.answers.before, report.answers.after, report.answers.rejected, report.answers.dropped) == (
        4,
        2,
        2,
        {},
    )
    assert report.repairs == {"mojibake": 1, "html": 1, "control_characters": 0, "unicode_form": 0, "white_space": 0}
    assert report.personal == {"email": 2, "person": 1}
    assert report.personal_records == 3
    assert report.languages is not None
    assert report.languages["de"] == 1
    assert (report.duplicates.exact, report.duplicates.merged, report.duplicates.near) == (2, 1, 0)
    assert report.sources == {
        "ads": {"before": 4, "after": 1},
        "pages": {"before": 4, "after": 1},
        "tokens": {"before": 1, "after": 1},
    }


def test_switched_off_parts_are_null_and_change_nothing(tmp_path: Path) -> None:
    metrics = run(tmp_path, settings("none"), RECORDS)
    report: CurationReport = atomic_io.read_json(tmp_path / "curate" / "report.json", CurationReport)
    assert (report.repairs, report.languages, report.personal, report.personal_records) == (None, None, None, None)
    assert metrics.rejected == 0
    assert [row.text for row in atomic_io.read_rows(tmp_path / "curate" / "documents.jsonl", Document)] == [
        record.text for record in RECORDS if isinstance(record, Document)
    ]


def test_the_same_records_give_the_same_bytes(tmp_path: Path) -> None:
    near = {
        "side": "both",
        "action": "remove",
        "keep": "longest",
        "threshold": 0.6,
        "shingle": {"unit": "word", "size": 2},
        "bands": 20,
        "rows": 3,
    }
    for name in ("one", "two"):
        run(tmp_path / name, settings("default", near=near, max_rejected_share=0.9), RECORDS)
    assert atomic_io.sha256_path(tmp_path / "one" / "curate") == atomic_io.sha256_path(tmp_path / "two" / "curate")


def test_too_many_rejects_stop_the_stage_and_name_the_setting(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        run(tmp_path, settings("default"), RECORDS)
    assert caught.value.message == (
        "curate: 55.6% of 9 rows were rejected; the limit is 20%\n"
        "          2  exact_duplicate: first pages.csv:2 same as d1\n"
        "          1  document_too_short: first pages.csv:4 2 words, least 5\n"
        "          1  language: first pages.csv:3 de with confidence 0.99\n"
        "          1  truncated: first ads.csv:4 ends in the word the"
    )
    assert caught.value.hint == "fix the data, or allow more: curate.max_rejected_share=<share from 0 to 1>"


def test_all_rows_rejected(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="curate: all 1 rows were rejected"):
        run(tmp_path, settings("default", max_rejected_share=1.0), [document(1, "short")])


def test_no_rows(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="curate: no rows came in"):
        run(tmp_path, settings("none"), [])


def real(name: str) -> list[dict[str, str]]:
    with gzip.open(CORPORA / name, "rt", encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_e2e_keeps_every_row(tmp_path: Path) -> None:
    rows = real("e2e_devset.csv.gz")
    records: list[Document | Example] = [pair(number, row["mr"], row["ref"]) for number, row in enumerate(rows, 2)]
    metrics = run(tmp_path, settings("e2e"), records, libraries=None)
    assert (metrics.records_in, metrics.rejected, metrics.answers, metrics.examples) == (4672, 0, 4672, 547)


def test_real_reviews_lose_few_and_quickly(tmp_path: Path) -> None:
    rows = real("product_reviews.csv.gz")
    records: list[Document | Example] = [document(number, row["text"]) for number, row in enumerate(rows, 2)]
    started = time.process_time()
    metrics = run(tmp_path, settings("default"), records, libraries=None)
    assert time.process_time() - started < 10  # 1,200 reviews; well below one second here
    assert set(metrics.reasons) <= {"document_too_short", "exact_duplicate", "few_letters"}
    assert metrics.documents > 1060


def test_answers_left_out_of_a_record_are_listed(tmp_path: Path) -> None:
    place = Source("many.jsonl", 7)
    answers = [
        ReferenceAnswer("Come in!", place),
        ReferenceAnswer("come in", Source("many.jsonl", 8)),
        ReferenceAnswer("Meet Sarah Miller,", Source("many.jsonl", 9)),
    ]
    metrics = run(tmp_path, settings("default"), [Example("m", place, [Message("user", "ad for the mill")], answers)])
    assert (metrics.records_in, metrics.rejected, metrics.answers) == (1, 0, 1)
    assert list(atomic_io.read_rows(tmp_path / "curate" / "dropped_answers.jsonl", RejectedRow)) == [
        RejectedRow(Source("many.jsonl", 9), "truncated", "ends in ,", "Meet [PERSON_1],"),
        RejectedRow(Source("many.jsonl", 8), "exact_duplicate", "same as m", "come in"),
    ]
    report: CurationReport = atomic_io.read_json(tmp_path / "curate" / "report.json", CurationReport)
    assert report.answers.dropped == {"exact_duplicate": 1, "truncated": 1}
    assert report.answers.before == report.answers.after + report.answers.rejected + sum(
        report.answers.dropped.values()
    )


def test_another_engine_changes_no_json_of_a_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy_conf(tmp_path)
    (tmp_path / "a.txt").write_text("text\n")
    monkeypatch.chdir(tmp_path)
    layout = ProjectPaths()
    common = [Override.from_cli("ingest=documents"), Override.from_cli("data.path=a.txt")]
    override_file.save_overrides(layout, common)
    compose(layout)
    assert curation.choose_engine("curate", layout.curate_engine) == {}
    override_file.save_overrides(layout, [*common, Override.from_cli("curate.engine=ray")])
    assert compose(layout) == {"written": [], "unchanged": [stage.name for stage in STAGES], "removed": []}
    assert curation.choose_engine("curate", layout.curate_engine) == {"engine": curation.curate_on_ray}
    assert curation.choose_engine("split", layout.curate_engine) == {}
    packages = list_build_packages(checks.load_project_config(layout).root, ["curate"])
    assert RequiredPackage("ray", "ray", "curate") in packages


def test_an_engine_takes_the_place_of_the_blocks(tmp_path: Path) -> None:
    def engine(filters: Any, blocks: Any, build: Any, files: Any, total: Any, after: Any) -> RecordTally:
        assert [path.name for path in files] == ["documents.jsonl", "examples.jsonl"]
        assert [type(block) for block in build().blocks()] == [type(block) for block in blocks.blocks()]
        total.read(3)
        total.keep(1)
        for row in (2, 3):
            total.reject(RejectedRow(Source("pages.csv", row), "empty", "", "mail someone@example.com"))
        after.append(RECORDS[3])
        return RecordTally(documents=3, kinds={"pages": 3})

    (tmp_path / "curate").mkdir()
    for name in ("documents", "examples"):
        atomic_io.write_rows(tmp_path / "ingest" / f"{name}.jsonl", [])
    inputs = curate.Inputs(tmp_path / "ingest", nothing(tmp_path / "feedback"))
    cfg = settings("default", max_rejected_share=1.0)
    metrics = curate.run(cfg, inputs, curate.Outputs(tmp_path / "curate"), libraries=FAKES, engine=engine)
    assert (metrics.records_in, metrics.documents, metrics.rejected) == (3, 1, 2)
    assert row_counts.load(tmp_path / "curate").rejected == {"empty": 2}
    assert b"[EMAIL_1]" in (tmp_path / "curate" / "rejects.jsonl").read_bytes()
