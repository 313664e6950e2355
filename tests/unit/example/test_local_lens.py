"""The example is what its script makes, has the errors that its card lists, and no test business or phrasing gets into training."""

import csv
import io
import json
import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[3]
HERE = ROOT / "examples" / "local_lens"
RESERVED_PHRASINGS = {"harbour", "kettle", "lantern"}
RESERVED_FORMS = {"ticket", "letter"}


@pytest.fixture(scope="module")
def script() -> Iterator[ModuleType]:
    """make_data.py, imported as it is when it is run."""
    sys.path.insert(0, str(HERE))
    try:
        import make_data
    finally:
        sys.path.remove(str(HERE))
    yield make_data
    for name in [name for name in sys.modules if name == "make_data" or name.split(".")[0] == "synthetic_data"]:
        del sys.modules[name]


def rows(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (HERE / "data" / name).read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def planted() -> dict[str, dict[str, list[str]]]:
    return json.loads((HERE / "planted.json").read_text(encoding="utf-8"))


def test_script_makes_the_committed_files(script: ModuleType) -> None:
    pytest.importorskip("reportlab")
    first, second = script.make_files(), script.make_files()
    assert first == second
    assert script.find_differences(first, HERE) == []


def test_differences_are_named(script: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "old.txt").write_text("old")
    (tmp_path / "README.md").write_text("changed")
    found = script.find_differences({"README.md": b"made", "data/new.txt": b"new"}, tmp_path)
    assert found == ["README.md differs", "data/new.txt is missing", "data/old.txt is not generated"]


def test_five_kinds_of_raw_source_and_campaigns() -> None:
    counts = {folder: len(list((HERE / "data" / folder).iterdir())) for folder in ("web", "news", "flyers")}
    assert counts == {"web": 63, "news": 36, "flyers": 32}
    with (HERE / "data" / "reviews.csv").open(encoding="utf-8", newline="") as stream:
        assert len(list(csv.DictReader(stream))) == 360
    assert len(rows("social.jsonl")) == 240
    assert len(rows("campaigns.jsonl")) == 860
    assert len(rows("new_clients.jsonl")) == 240


def test_flyers_have_text() -> None:
    pypdf = pytest.importorskip("pypdf")
    for path in (HERE / "data" / "flyers").iterdir():
        text = "".join(page.extract_text() for page in pypdf.PdfReader(io.BytesIO(path.read_bytes())).pages)
        assert "Bring this flyer" in text


def find_errors(campaigns: list[dict[str, Any]]) -> dict[str, set[str]]:
    """Find the errors in the rows, without the record of what was planted."""
    pairs = Counter((row["prompt"], row["completion"]) for row in campaigns)
    tests = {
        "empty": lambda row: not row["completion"],
        "html": lambda row: "<p>" in row["completion"],
        "mojibake": lambda row: re.search("Ã|â€", row["completion"]) is not None,
        "truncated": lambda row: row["completion"].endswith(" and"),
        "spanish": lambda row: re.search(r"\b(barrio|familia|todos)\b", row["prompt"] + row["completion"]) is not None,
        "personal_email": lambda row: "@" in row["prompt"],
        "personal_phone": lambda row: re.search(r"555-01\d\d", row["prompt"]) is not None,
        "personal_card": lambda row: re.search(r"(\d{4} ){3}\d{4}", row["prompt"]) is not None,
        "canary_1": lambda row: "copper-5527-quill" in row["completion"],
        "canary_2": lambda row: "velvet-9164-anchor" in row["completion"],
        "near_duplicate": lambda row: row["prompt"].startswith("Second try."),
        "exact_duplicate": lambda row: pairs[row["prompt"], row["completion"]] > 1 and row["campaign_id"].endswith("x"),
    }
    return {kind: {row["campaign_id"] for row in campaigns if test(row)} for kind, test in tests.items()}


def test_the_rows_have_the_planted_errors_and_no_others(planted: dict[str, dict[str, list[str]]]) -> None:
    expected = {
        kind: set(ids)
        for kind, ids in planted["campaigns.jsonl"].items()
        if kind not in {"personal", "personal_person"}
    }
    assert find_errors(rows("campaigns.jsonl")) == expected
    assert all(not found for found in find_errors(rows("new_clients.jsonl")).values())


def test_card_counts_what_is_planted(planted: dict[str, dict[str, list[str]]]) -> None:
    card = (HERE / "README.md").read_text(encoding="utf-8")
    table = dict(re.findall(r"^\| ([\w.]+ \| \w+) \| (\d+) \|$", card, re.MULTILINE))
    assert table == {
        f"{place} | {kind}": str(len(ids)) for place, kinds in planted.items() for kind, ids in kinds.items()
    }
    assert "synthetic" in card.splitlines()[0]


def test_card_numbers_have_a_right_check_digit() -> None:
    found = re.findall(r"(?:\d{4} ){3}\d{4}", "\n".join(row["prompt"] for row in rows("campaigns.jsonl")))
    assert found
    for number in found:
        digits = [int(digit) for digit in reversed(number.replace(" ", ""))]
        assert sum(digits[::2]) + sum(2 * digit - 9 * (digit > 4) for digit in digits[1::2]) in range(0, 200, 10)


def test_new_clients_share_no_words_with_past_clients() -> None:
    past, new = rows("campaigns.jsonl"), rows("new_clients.jsonl")
    words = {word for row in past for word in row["business"].split()} - {"&"}
    assert not words & {word for row in new for word in row["business"].split()}
    assert {row["phrasing"] for row in new} == RESERVED_PHRASINGS
    assert {row["form"] for row in new} == RESERVED_FORMS
    assert not RESERVED_PHRASINGS & {row["phrasing"] for row in past}
    assert not RESERVED_FORMS & {row["form"] for row in past}
    assert set(Counter(row["prompt"] for row in new).values()) == {2}


def test_ads_keep_the_house_style() -> None:
    for row in rows("new_clients.jsonl"):
        ad, name, hood = row["completion"], row["business"], row["neighbourhood"]
        assert ad.endswith(f": {name}, {hood}.")
        assert name in ad.removesuffix(f"{name}, {hood}.")
        assert set(re.findall(r"\d+", ad)) <= set(re.findall(r"\d+", row["prompt"])), (
            "an ad claims a number that its brief lacks"
        )


def test_raw_documents_do_not_mention_new_clients() -> None:
    new = {row["business"] for row in rows("new_clients.jsonl")}
    texts = [
        path.read_text(encoding="utf-8")
        for path in (HERE / "data").rglob("*")
        if path.suffix in {".html", ".csv", ".md", ".txt"}
    ]
    texts += [row["text"] for row in rows("social.jsonl")]
    assert not [name for name in new if any(name in text for text in texts)]


class Result:
    """Artifacts of the real stages."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def rows(self, stage: str, name: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / stage / name).read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Result:
    """The bundled configuration through the real stages ingest, curate and split."""
    for library in ("trafilatura", "pypdf", "ftfy", "py3langid", "phonenumbers", "faker"):
        pytest.importorskip(library)
    from tunectl.artifacts import atomic_io, manifest
    from tunectl.artifacts.paths import ProjectPaths
    from tunectl.config.loading import checks
    from tunectl.config.schema.curate import CurateStage
    from tunectl.config.schema.ingest import IngestStage
    from tunectl.config.schema.split import SplitStage
    from tunectl.pipeline.stages import curate, ingest, split

    folder = tmp_path_factory.mktemp("local_lens")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        root = checks.load_config(ProjectPaths(), []).root
        for stage in ("ingest", "curate", "split"):
            (folder / stage).mkdir()
        ingest.run(IngestStage(ingest=root.ingest), ingest.Inputs(), ingest.Outputs(artifact=folder / "ingest"))
        settings = CurateStage(curate=root.curate, seed=root.seed, hardware=root.hardware)
        atomic_io.write_json(folder / "feedback" / manifest.PASSED_THROUGH, {"reason": "no live traffic"})
        inputs = curate.Inputs(ingest=folder / "ingest", feedback=folder / "feedback")
        curate.run(settings, inputs, curate.Outputs(artifact=folder / "curate"))
        parts = SplitStage(split=root.split, seed=root.seed)
        split.run(parts, split.Inputs(curate=folder / "curate"), split.Outputs(artifact=folder / "split"))
    return Result(folder)


def test_at_least_800_pairs_are_usable(built: Result) -> None:
    assert sum(len(row["answers"]) for row in built.rows("curate", "examples.jsonl")) >= 800


def test_no_test_business_or_phrasing_is_trained_on(built: Result) -> None:
    parts = {name: built.rows("split", f"{name}.jsonl") for name in ("train", "validation", "test")}
    fields = {
        name: {key: {row["fields"][key] for row in part} for key in ("business", "phrasing", "form")}
        for name, part in parts.items()
    }
    assert fields["test"]["phrasing"] == RESERVED_PHRASINGS
    for key in ("business", "phrasing", "form"):
        for name in ("train", "validation"):
            assert not fields[name][key] & fields["test"][key]
    assert not fields["train"]["business"] & fields["validation"]["business"]
    assert len(parts["test"]) >= 110
    assert all(len(row["answers"]) == 2 for row in parts["test"])


def test_curate_finds_the_planted_errors(built: Result, planted: dict[str, dict[str, list[str]]]) -> None:
    report = json.loads((built.folder / "curate" / "report.json").read_text(encoding="utf-8"))
    errors = planted["campaigns.jsonl"]
    spanish = len(errors["spanish"]) + len(planted["reviews.csv"]["spanish"])
    assert report["rejected"]["language"] >= 0.9 * spanish
    assert report["rejected"]["truncated"] == len(errors["truncated"])
    assert report["answers"]["dropped"]["exact_duplicate"] >= 0.9 * len(errors["exact_duplicate"])
    assert report["rejected"]["near_duplicate"] >= 0.9 * len(errors["near_duplicate"])
    assert report["personal"]["email"] >= len(errors["personal_email"])
    assert report["personal"]["card"] >= len(errors["personal_card"])
    left = json.dumps(built.rows("curate", "examples.jsonl"), ensure_ascii=False)
    assert not re.search("Ã|â€|<br|@example|555-01", left)


def test_balance_finds_the_over_represented(built: Result) -> None:
    report = (built.folder / "split" / "report.json").read_text(encoding="utf-8")
    assert "Midtown" in report
    train = built.rows("split", "train.jsonl")
    shares = Counter(row["fields"]["neighbourhood"] for row in train)
    assert shares["Midtown"] / len(train) > 0.11 + 0.05
