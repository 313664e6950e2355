"""Stage feedback: a real SQLite store, frozen, harvested, learned from; nothing of the forgotten, nothing changed by hand."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tunectl.artifacts import atomic_io, manifest, row_counts
from tunectl.artifacts.records import Comparison, Example, Feedback, InferenceRecord
from tunectl.backends.storage import inference_log_sql
from tunectl.config.schema.feedback import FeedbackStage
from tunectl.core.errors import ArtifactError
from tunectl.inference_log import erasure, snapshot, training_window
from tunectl.inference_log.training_window import FeedbackWindow
from tunectl.pipeline.stages import feedback

DAY = datetime(2026, 5, 1, tzinfo=UTC)
SECTION = {
    "method": "inference_log",
    "window": "inference_log/window.json",
    "snapshots": "snapshots",
    "quarantine_hours": 0,
    "max_per_user": 50,
    "max_per_annotator": 50,
    "max_annotator_share": 1.0,
    "max_per_prompt": 5,
    "max_model_text_share": 0.6,
    "holdout": 0.3,
}


@pytest.fixture
def frozen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> snapshot.Snapshot:
    """Thirty inferences: every third edited, every third liked, the others not talked about."""
    monkeypatch.chdir(tmp_path)
    with inference_log_sql.open_log("sqlite:///inference_log.sqlite", tmp_path) as store:
        for number in range(30):
            at = DAY + timedelta(minutes=number)
            asked = {"messages": [{"role": "user", "content": f"An ad for number {number}"}]}
            said = {"choices": [{"message": {"role": "assistant", "content": f"Ad {number}"}}]}
            name = f"chatcmpl-{number}"
            store.write(
                [
                    InferenceRecord(
                        name, at, "champion", "r1", "t", asked, f"u{number % 5}", finished_at=at, response=said
                    )
                ]
            )
            kind = ("edit", "thumb", None)[number % 3]
            if kind is not None:
                value = f"Better ad {number}" if kind == "edit" else "up"
                store.write([Feedback(f"f{number}", name, kind, value, at, f"a{number % 4}")])
        return snapshot.freeze(
            store,
            tmp_path / "snapshots",
            since=DAY,
            until=DAY + timedelta(days=1),
            at=DAY + timedelta(days=2),
            window="w1",
        )


def run(named: FeedbackWindow, out: str = "out") -> feedback.Metrics:
    training_window.WINDOW_FORMAT.write(Path("inference_log/window.json"), named)
    cfg = FeedbackStage.model_validate({"feedback": SECTION})
    Path(out).mkdir()
    return feedback.run(cfg, feedback.Inputs(), feedback.Outputs(Path(out)))


def test_edits_and_approvals_become_rows_and_the_sums_hold(frozen: snapshot.Snapshot) -> None:
    found = run(FeedbackWindow([frozen]))
    assert (found.with_feedback, found.edits + found.held_out > 0) == (20, True)
    account = row_counts.load(Path("out"))
    assert account.rows_in == 20 == account.kept + sum(account.rejected.values())
    rows = list(atomic_io.read_rows(Path("out/examples.jsonl"), Example))
    held = list(atomic_io.read_rows(Path("out/slice.jsonl"), Example))
    assert len(rows) == found.examples
    assert 0 < len(held) <= found.held_out
    assert all(row.fields["origin"] == "edit" for row in held), "approved answers are the champion's own"
    assert {row.id for row in rows}.isdisjoint(row.id for row in held)
    assert all(row.split == "train" and row.kind == "inference_log" for row in rows)
    edited = next(row for row in rows if row.fields["origin"] == "edit")
    number = edited.id.rpartition("-")[2]
    assert edited.answers[0].text == f"Better ad {number}"
    assert edited.source.file == f"inference_log/{frozen.id}/chatcmpl-{number}"
    pairs = list(atomic_io.read_rows(Path("out/judgments.jsonl"), Comparison))
    assert len(pairs) == found.edits
    assert pairs[0].answers[0][0].content.startswith("Better")
    assert pairs[0].answers[1][0].content.startswith("Ad")


def test_a_conversation_is_read_as_the_server_gave_it_to_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Arguments of calls are objects, and parts of a text are joined without a line end; calls that are none are a reject."""
    monkeypatch.chdir(tmp_path)
    call = {"id": "c1", "type": "function", "function": {"name": "find", "arguments": '{"of": "bread"}'}}
    tools = [{"type": "function", "function": {"name": "find", "parameters": {"type": "object"}}}]
    user = {"role": "user", "content": [{"type": "text", "text": "Find br"}, {"type": "text", "text": "ead"}]}
    end = {"choices": [{"message": {"role": "assistant", "content": "Aisle 4"}}]}
    with inference_log_sql.open_log("sqlite:///inference_log.sqlite", tmp_path) as store:
        for name, arguments in (("good", '{"of": "bread"}'), ("bad", "[PERSON_1]")):
            asked = {**call, "function": {"name": "find", "arguments": arguments}}
            turns = [
                user,
                {"role": "assistant", "content": None, "tool_calls": [asked]},
                {"role": "tool", "content": "4"},
            ]
            row = InferenceRecord(
                name,
                DAY,
                "champion",
                "r1",
                "t",
                {"messages": turns, "tools": tools},
                "u",
                finished_at=DAY,
                response=end,
            )
            store.write([row, Feedback(f"f-{name}", name, "edit", "Aisle four", DAY, "a")])
        frozen = snapshot.freeze(
            store, tmp_path / "snapshots", since=DAY, until=DAY + timedelta(1), at=DAY + timedelta(2), window=None
        )
    monkeypatch.setitem(SECTION, "holdout", 0.0)
    run(FeedbackWindow([frozen]))
    (row,) = atomic_io.read_rows(Path("out/examples.jsonl"), Example)
    assert row.messages[0].content == "Find bread"
    assert row.messages[1].tool_calls == [{**call, "function": {"name": "find", "arguments": {"of": "bread"}}}]
    (comparison,) = atomic_io.read_rows(Path("out/judgments.jsonl"), Comparison)
    assert (row.tools, comparison.tools) == (tools, tools), "both are trained on with the tools that were offered"
    assert row_counts.load(Path("out")).rejected == {"not_text": 1}


def test_a_conversation_of_too_many_turns_is_left_out(
    frozen: snapshot.Snapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feedback, "MAX_TURNS", 1)
    assert run(FeedbackWindow([frozen])).examples == 0
    account = row_counts.load(Path("out"))
    assert account.rejected["too_long"] > 0
    assert account.samples["too_long"][0].sample == ""
    assert not list(atomic_io.read_rows(Path("out/examples.jsonl"), Example))


def test_the_same_snapshot_gives_the_same_bytes(frozen: snapshot.Snapshot) -> None:
    run(FeedbackWindow([frozen]), "one")
    run(FeedbackWindow([frozen]), "two")
    assert atomic_io.sha256_path(Path("one")) == atomic_io.sha256_path(Path("two"))


def test_what_was_taught_before_is_not_new(frozen: snapshot.Snapshot) -> None:
    with inference_log_sql.open_log("sqlite:///inference_log.sqlite", Path()) as store:
        at = DAY + timedelta(days=3)
        said = {"choices": [{"message": {"role": "assistant", "content": "Ad"}}]}
        for number in range(12):
            name = f"chatcmpl-late-{number}"
            asked = {"messages": [{"role": "user", "content": f"An ad for quay {number}"}]}
            store.write(
                [InferenceRecord(name, at, "champion", "r1", "t", asked, f"v{number}", finished_at=at, response=said)]
            )
            store.write([Feedback(f"late{number}", name, "edit", f"Better {number}", at, f"a{number % 4}")])
        later = DAY + timedelta(days=4)
        newest = snapshot.freeze(store, Path("snapshots"), since=DAY, until=later, at=later, window="w2")
    assert newest.inferences == 32, "it reaches back over the one before"
    section = FeedbackStage.model_validate({"feedback": SECTION}).feedback.root
    found = training_window.build_feedback_examples(FeedbackWindow([frozen, newest]), section)
    assert found.newly_selected == {one.inference.id for one in found.feedback.examples if "late" in one.inference.id}
    assert len(found.newly_selected) == 12
    run(FeedbackWindow([frozen, newest]))
    assert all("late" in row.id for row in atomic_io.read_rows(Path("out/slice.jsonl"), Example))
    assert training_window.build_feedback_examples(FeedbackWindow([newest]), section).newly_selected == {
        one.inference.id for one in found.feedback.examples
    }, "without the one before, all of it is"


def test_what_was_too_new_is_not_so_for_ever(frozen: snapshot.Snapshot) -> None:
    day = timedelta(days=1)
    with inference_log_sql.open_log("sqlite:///inference_log.sqlite", Path()) as store:
        later = snapshot.freeze(store, Path("snapshots"), since=DAY, until=DAY + day, at=DAY + 9 * day, window=None)
    assert (later.id, later.created_at) == (frozen.id, DAY + 9 * day), "the same content, looked at later"
    assert snapshot.feedback_out_of_quarantine(Path("snapshots"), frozen, 5 * day) == 0
    assert snapshot.feedback_out_of_quarantine(Path("snapshots"), later, 5 * day) == frozen.feedback == 20
    section = FeedbackStage.model_validate({"feedback": SECTION | {"quarantine_hours": 120}}).feedback.root
    assert training_window.build_feedback_examples(FeedbackWindow([frozen]), section).feedback.examples == []
    assert training_window.build_feedback_examples(FeedbackWindow([later]), section).feedback.examples != []


def test_a_forgotten_inference_is_left_out_of_an_older_snapshot(frozen: snapshot.Snapshot) -> None:
    found = run(FeedbackWindow([frozen], ["chatcmpl-0"]))
    assert found.left_out["erased"] == 1
    assert "chatcmpl-0" not in Path("out/origins.jsonl").read_text()


def test_purging_deletes_the_text_and_the_snapshot_is_still_what_was_named(frozen: snapshot.Snapshot) -> None:
    place = Path("snapshots") / frozen.id / "inferences.jsonl"
    assert "Ad 3" in place.read_text()
    with inference_log_sql.open_log("sqlite:///inference_log.sqlite", Path()) as store:
        assert erasure.purge(Path("snapshots"), store) == 0
        store.erase("u3")
        gone = erasure.find_erased(store, {f"chatcmpl-{number}" for number in range(30)})
        assert [erasure.purge(Path("snapshots"), store) for _ in range(2)] == [1, 0]
    assert '"chatcmpl-3"' not in place.read_text()
    assert run(FeedbackWindow([frozen], sorted(gone))).with_feedback == 16


def test_feedback_of_an_erased_user_on_other_answers_is_not_trained_on(frozen: snapshot.Snapshot) -> None:
    said = Path("snapshots") / frozen.id / "feedback.jsonl"
    with inference_log_sql.open_log("sqlite:///inference_log.sqlite", Path()) as store:
        store.erase("a1")
        gone = erasure.find_erased(store, {f"chatcmpl-{number}" for number in range(30)})
        assert gone == {"f1", "f9", "f13", "f21", "f25"}
        assert run(FeedbackWindow([frozen], sorted(gone))).with_feedback == 15
        assert "Better ad 21" in said.read_text()
        assert erasure.purge(Path("snapshots"), store) == 1
    assert "Better ad 21" not in said.read_text()
    assert run(FeedbackWindow([frozen]), "again").with_feedback == 15


def test_with_time_snapshots_that_no_build_needs_are_deleted(frozen: snapshot.Snapshot) -> None:
    folder = Path("snapshots")
    (folder / "cut").mkdir()  # what a kill left of one
    (folder / snapshot.SCRATCH / "x").mkdir(parents=True, exist_ok=True)  # a process that was killed while it froze one
    assert erasure.prune_snapshots(folder, (), DAY) == 1
    assert erasure.prune_snapshots(folder, {frozen.id}, DAY + timedelta(days=9)) == 0
    assert erasure.prune_snapshots(folder, (), DAY + timedelta(days=9)) == 1
    assert [path.name for path in folder.iterdir()] == [], "whoever writes now holds the lock of the folder"
    assert erasure.prune_snapshots(Path("nowhere"), (), DAY) == 0


def test_no_window_is_nothing_to_learn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(FeedbackWindow()).examples == 0
    assert atomic_io.read_json(Path("out") / manifest.PASSED_THROUGH) == {
        "reason": "inference_log/window.json names no snapshot"
    }


def test_a_snapshot_that_was_edited_or_is_gone_is_refused(frozen: snapshot.Snapshot) -> None:
    place = Path("snapshots") / frozen.id / "feedback.jsonl"
    place.write_text(place.read_text().replace("Better", "Worse"))
    with pytest.raises(ArtifactError) as error:
        run(FeedbackWindow([frozen]))
    assert error.value.message.startswith(f"snapshots/{frozen.id} was changed: its digest is ")
    assert (
        error.value.hint
        == "a snapshot must not be edited: copy it again from the machine where the retrain controller ran, or from a backup"
    )
    (Path("snapshots") / frozen.id / "manifest.json").unlink()
    with pytest.raises(ArtifactError) as error:
        run(FeedbackWindow([frozen]), "again")
    assert str(error.value) == (
        f"snapshots/{frozen.id} does not exist, though the file of feedback.window names it\n"
        "  it is on the machine where the retrain controller ran: copy it, or run tunectl dvc pull artifacts/feedback"
    )
