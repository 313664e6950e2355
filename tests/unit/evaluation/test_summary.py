"""The final table and the flat numbers."""

import msgspec

from tunectl.evaluation import gate, plot_data, summary
from tunectl.evaluation.results import (
    AnswerRow,
    Candidate,
    Cost,
    MetricDifference,
    PromptDescription,
    Results,
    Score,
    Search,
    System,
)


def made() -> Results:
    cost = Cost(answers=2, prompt_tokens=40, tokens=30, seconds=1.5, tokens_per_second=20.0)
    systems = [
        System(
            "base", "Base", {"chrf": Score(20, 18, 22, 2), "bleu": Score(5, 4, 6, 2)}, PromptDescription(None), cost
        ),
        System("nearest", "Nearest answer", {"bleu": Score(30, None, None, 2)}),
        System(
            "tuned",
            "Tuned",
            {"bleu": Score(50, 45, 55, 2), "chrf": Score(60, 58, 62, 2)},
            PromptDescription(None),
            cost,
        ),
    ]
    differences = [
        MetricDifference("tuned", "base", "bleu", 45, 40, 50, 0.0),
        MetricDifference("nearest", "base", "bleu", 25, None, None, None),
    ]
    search = Search(
        2,
        [
            Candidate(PromptDescription(None), 5.0, 80, 1.0),
            Candidate(PromptDescription("Be, brief", 1, "random"), None, 9, 0, "x"),
        ],
        0,
        80,
        1.0,
    )
    return Results(
        project="p", seed=1, inputs=2, available=3, skipped={}, primary="bleu", min_difference=1, confidence=0.95,
        resamples=100, units=2, decoding={}, bleu_signature="s", systems=systems, differences=differences, slices=[],
        search=search, references_seen=0.1, safety=None, judge=[], cases=[], warnings=[],
        verdict=gate.gate_tuned(differences, title="BLEU", least=1, confidence=0.95, items=2),
    )  # fmt: skip


def test_a_system_a_row_with_the_primary_measure_first():
    columns, rows = summary.summary_rows(made())
    assert columns == ["system", "BLEU", "chrF", "BLEU over base", "tokens/s"]
    assert rows == [
        ["Base", "5.0", "20.0", "-", "20"],
        ["Nearest answer", "30.0", "-", "+25.0 (no interval)", "-"],
        ["Tuned", "50.0", "60.0", "+45.0 (40.0 to 50.0)", "20"],
    ]


def test_flat_numbers_for_dvc():
    assert summary.to_dvc_metrics(made())["tuned"] == {"bleu": 50, "chrf": 60, "answer_tokens": 30, "prompt_tokens": 40}
    assert summary.to_dvc_metrics(made())["nearest"] == {"bleu": 30}


def test_tables_for_dvc_plots():
    files = plot_data.csv_files(made())
    assert set(files) == {"scores.csv", "differences.csv", "prompts.csv"}
    assert files["scores.csv"].splitlines()[:2] == ["system,measure,value,low,high,items", "base,chrf,20,18,22,2"]
    assert files["differences.csv"].splitlines()[2] == "nearest,base,bleu,25,,,"
    assert files["prompts.csv"].splitlines()[2] == '"""Be, brief"", 1 random example",,9,0'


def test_finding_systems_and_differences():
    assert made().system("tuned").title == "Tuned"
    assert made().system("other") is None
    assert made().difference("base").value == 45
    assert made().difference("prompted") is None


def test_examples_show_the_base_answer_above_the_trained_one():
    rows = [
        AnswerRow(
            "1", "Write an ad\nfor a bakery.", [], {}, {"base": "Sure!", "nearest": "-", "tuned": "Fresh bread. " * 40}
        )
    ]
    first, before, after = summary.example_lines(made(), rows)
    assert (first, before) == ("Input  Write an ad for a bakery.", "Base   Sure!")
    assert after.startswith("Tuned  Fresh bread. ")
    assert len(after) == len("Tuned  ") + summary.LONGEST_EXAMPLE
    assert after.endswith("…")


def test_few_inputs_are_said_to_make_wide_intervals():
    assert summary.size_note(made()) == "2 test inputs: the intervals are wide"
    assert summary.size_note(msgspec.structs.replace(made(), inputs=100)) is None
