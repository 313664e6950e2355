"""One look after another at a real inference log (SQLite): windows, references, promotions, replay."""

from __future__ import annotations

import re
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import replace as changed
from datetime import timedelta
from pathlib import Path

import pytest
from drift_fixtures import at, examiner, inference, release, rows
from msgspec import to_builtins
from msgspec.structs import replace

from tunectl.access import signatures
from tunectl.access.signatures import TrustedKey
from tunectl.artifacts import atomic_io
from tunectl.artifacts.paths import ProjectPaths
from tunectl.artifacts.records import DriftWindow
from tunectl.backends.storage import inference_log_sql
from tunectl.backends.storage.object_store import FsspecObjectStore
from tunectl.config.loading import checks
from tunectl.config.schema.monitor import MonitorSettings
from tunectl.core.errors import GateError, InfrastructureError
from tunectl.inference_log.log_store import LogEvent
from tunectl.monitoring import backtest, factory, reference_data
from tunectl.monitoring import window as windows
from tunectl.monitoring.drift_monitor import DriftMonitor
from tunectl.monitoring.http_api import build_pages
from tunectl.monitoring.monitor_metrics import DriftMetrics
from tunectl.registry import registry_formats, release_statement
from tunectl.registry.release_state import ChampionPointer
from tunectl.registry.release_store import ReleaseRegistry

ROOT = Path(__file__).parents[2]
RELEASE = "0123456789abcdef"


def settings(**prompts) -> MonitorSettings:
    root = checks.load_config(ProjectPaths(ROOT)).root
    rule = root.monitor.window.model_copy(update={"max_rows": 120, "max_hours": 24.0, "settle_seconds": 60.0})
    asked = root.monitor.prompts.model_copy(update=prompts)
    monitored = root.monitor.model_copy(update={"window": rule, "prompts": asked, "evidently": False})
    return MonitorSettings(
        project="shop",
        seed=7,
        monitor=monitored,
        inference_log=root.inference_log,
        registry=".tunectl/releases",
        keys_file=".tunectl/keys.json",
    )


def test_no_champion_is_watched_that_servers_would_not_follow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever writes the bucket could else name a release that nobody serves, and no drift would be seen."""
    release(tmp_path / ".tunectl" / "releases")
    key = signatures.generate_key(tmp_path / "ops.key")
    signatures.add_trusted_key(tmp_path / "trusted.json", TrustedKey("ops", "pointer", key.public_key, at(1)))
    monkeypatch.setenv(signatures.TRUSTED_KEYS_ENV, str(tmp_path / "trusted.json"))
    monkeypatch.setattr(factory, "feature_tools", lambda *_: None)
    with inference_log_sql.open_log(f"sqlite:///{tmp_path}/inference_log.sqlite", tmp_path) as store:
        found = factory.build_monitor(settings(), ProjectPaths(tmp_path), store)
        with pytest.raises(GateError, match=r"the champion pointer of .* is not signed; it is not followed"):
            found.run_once()


@pytest.mark.parametrize("damaged", [False, True])
def test_a_monitor_that_was_started_again_follows_no_older_champion(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, *, damaged: bool
) -> None:
    """Whoever writes the bucket could else put an old signed pointer back, and the traffic of another release would be watched."""
    key = signatures.generate_key(tmp_path / "ops.key")
    signatures.add_trusted_key(tmp_path / "trusted.json", TrustedKey("ops", "pointer", key.public_key, at(1)))
    monkeypatch.setenv(signatures.TRUSTED_KEYS_ENV, str(tmp_path / "trusted.json"))
    monkeypatch.setattr(factory, "feature_tools", lambda *_: None)
    bucket, layout = FsspecObjectStore(f"file://{tmp_path}/bucket"), ProjectPaths(tmp_path)
    fourth, fifth = (
        release_statement.sign_champion(
            ChampionPointer(str(sequence) * 16, None, at(1).isoformat(), "ops", "", sequence), key
        )
        for sequence in (4, 5)
    )
    for pointer in (fourth, fifth):
        bucket.create(f"champion/{pointer.sequence:06d}.json", registry_formats.POINTER.encode(pointer))

    def start() -> DriftMonitor:
        asked = settings().model_copy(update={"registry": bucket.address})
        return factory.build_monitor(asked, layout, store)

    with inference_log_sql.open_log(f"sqlite:///{tmp_path}/inference_log.sqlite", tmp_path) as store:
        assert start().releases.champion() == fifth
        bucket.remove("champion/000005.json")
        if damaged:  # it remembers nothing then, as the file of a server
            layout.monitor_newest_champion.write_bytes(b"{")
            assert start().releases.champion() == fourth
            return
        again = start()
        assert [again.releases.champion(), again.releases.champion()] == [fifth, fifth]
        (logged,) = [record.getMessage() for record in caplog.records]
        assert f"{'4' * 16} with sequence 4, and {'5' * 16} with sequence 5 was seen there: it is an old copy" in logged
        assert f"delete {layout.monitor_newest_champion} and start again" in logged
        layout.monitor_newest_champion.unlink()
        assert start().releases.champion() == fourth


@pytest.fixture
def monitor(tmp_path: Path) -> Iterator[DriftMonitor]:
    with inference_log_sql.open_log(f"sqlite:///{tmp_path}/inference_log.sqlite", tmp_path) as store:
        release(tmp_path / "releases")
        yield DriftMonitor(
            settings(),
            ProjectPaths(tmp_path),
            store,
            ReleaseRegistry(tmp_path / "releases"),
            examiner(),
            now=lambda: at(1, 12),
        )


def served(
    monitor: DriftMonitor, count: int, seed: int, start, topics=("garden", "bike"), name: str = RELEASE, **more
) -> None:
    """So many inferences of one second each."""
    found = [
        inference(row, row.id, start + timedelta(seconds=place), name)
        for place, row in enumerate(rows(count, seed, topics))
    ]
    monitor.store.write([replace(one, **more) for one in found])


def accept(monitor: DriftMonitor, name: str) -> None:
    body = windows.accept([name], author="test", message="")
    monitor.store.add_event(LogEvent(f"accept-{name}", monitor.now(), windows.REFERENCE_SET, body))


def later(monitor: DriftMonitor, day: int, hour: int = 12) -> DriftMonitor:
    monitor.now = lambda: at(day, hour)
    return monitor


def test_nothing_was_served(monitor: DriftMonitor) -> None:
    assert monitor.run_once() == []
    assert monitor.find_latest_window() is None


def test_without_a_champion_it_waits(monitor: DriftMonitor, tmp_path: Path) -> None:
    (tmp_path / "releases" / "champion.json").unlink()
    assert monitor.run_once() == []


def test_the_story_of_a_drift(monitor: DriftMonitor) -> None:
    served(monitor, 120, 1, at(1, 12))
    first = later(monitor, 1, 13).run_once()
    assert [one.verdict for one in first] == ["insufficient"]
    assert first[0].reason == "prompts: no window of prompts was accepted yet: tunectl monitor set-reference ID"
    assert first[0].signals["answer_text"].p_value is not None
    accept(monitor, first[0].id)
    served(monitor, 120, 2, at(1, 14))
    quiet = later(monitor, 1, 15).run_once()
    assert [(one.verdict, one.reference) for one in quiet] == [("ok", first[0].id)]
    for turn in range(3):
        served(monitor, 120, 3 + turn, at(2, 10 + turn), topics=("garden", "bread"))
    drift = later(monitor, 2, 20).run_once()
    assert [one.verdict for one in drift] == ["drift"] * 3
    assert [len(one.signals["prompt_text"].pooled) for one in drift] == [1, 1, 2]
    assert [one.changed_since for one in drift] == [drift[0].since] * 3
    assert drift[-1].segments
    assert drift[-1].exemplars
    accept(monitor, drift[-1].id)  # as the promotion of a rebuilt model does
    served(monitor, 120, 9, at(3, 10), topics=("garden", "bread"))
    healed = later(monitor, 3, 20).run_once()
    prompts = [one for name, one in healed[0].signals.items() if name.startswith("prompt")]
    assert not any(one.shifted for one in prompts)
    assert healed[0].reference == drift[-1].id


def test_windows_too_small_for_the_declared_change_are_told_of_once(monitor: DriftMonitor, caplog) -> None:
    for hour in (12, 14, 16):
        served(monitor, 120, hour, at(1, hour))
    small = later(monitor, 1, 18).run_once()
    assert [one.too_small_for for one in small] == [0.2, 0.2, 0.2]
    told = [one.getMessage() for one in caplog.records if "monitor.rule.min_effect" in one.getMessage()]
    assert len(told) == 1
    assert told[0].startswith("windows of 120 rows never add up to a change of 0.2 (monitor.rule.min_effect)")


def test_a_window_is_kept_once_whoever_looks_again(monitor: DriftMonitor) -> None:
    served(monitor, 130, 1, at(1, 12))
    later(monitor, 1, 13).run_once()
    again = changed(monitor, _before=None)
    assert again.run_once() == []
    assert [one.id for one in reference_data.list_closed_windows(monitor.store)] == [
        one.id for one in monitor.list_closed_windows()
    ]
    repeated = changed(monitor, _before=[])  # a monitor that was killed between keeping a window and knowing of it
    assert [one.id for one in repeated.run_once()] == [monitor.list_closed_windows()[0].id]
    assert len(monitor.store.windows()) == 1


def test_little_traffic_closes_by_time_and_says_so(monitor: DriftMonitor) -> None:
    served(monitor, 5, 1, at(1, 12))
    found = later(monitor, 3, 13).run_once()
    assert [(one.verdict, one.rows, one.reason) for one in found] == [
        ("insufficient", 5, "too few rows: 5 of 50"),
        ("insufficient", 0, "too few rows: 0 of 50"),
    ]


def test_a_promotion_begins_anew(monitor: DriftMonitor, tmp_path: Path) -> None:
    served(monitor, 240, 1, at(1, 12), topics=("bread",))
    found = later(monitor, 1, 14).run_once()
    assert found[-1].evidence > 3
    release(tmp_path / "releases", "f" * 16)
    pointer = {
        "release": "f" * 16,
        "previous": RELEASE,
        "promoted_at": "2026-03-01T14:00:00+00:00",
        "by": "",
        "why": "",
        "sequence": 2,
    }
    atomic_io.write_json(tmp_path / "releases" / "champion.json", pointer)
    assert monitor.find_latest_window() is None
    served(monitor, 10, 4, at(1, 13))  # the old champion's last answers are not compared
    served(monitor, 120, 5, at(1, 15), topics=("bread",), name="f" * 16)
    after = later(monitor, 1, 16).run_once()
    assert [(one.release, one.rows, one.pooled_windows) for one in after] == [("f" * 16, 120, 1)]


def test_the_first_window_can_be_accepted_without_asking(monitor: DriftMonitor) -> None:
    monitor.settings = settings(accept_first=True)
    served(monitor, 240, 1, at(1, 12))
    found = later(monitor, 1, 13).run_once()
    assert [one.reference for one in found] == ["none", found[0].id]
    assert found[1].verdict == "ok"


def test_the_training_prompts_can_be_declared(monitor: DriftMonitor, tmp_path: Path) -> None:
    from tunectl.artifacts.records import Example, Message, Source

    monitor.settings = settings(reference="training")
    served(monitor, 240, 1, at(1, 12))
    assert "train.jsonl does not exist; build it: tunectl repro --to split" in monitor.baselines(RELEASE)[1]["prompt"]
    examples = [Example(row.id, Source("f"), messages=[Message("user", row.prompt)]) for row in rows(400, 8)]
    atomic_io.write_rows(tmp_path / "artifacts" / "split" / "train.jsonl", examples)
    found = later(monitor, 1, 13).run_once()
    assert [(one.verdict, one.reference) for one in found] == [("ok", "training")] * 2
    assert found[0].signals["prompt_tokens"].reason == "too few rows in the reference: 0 of 50"


def test_a_window_without_a_single_signal_is_known_after_a_restart(monitor: DriftMonitor) -> None:
    """Nothing to compare with on either side: it is the one that somebody has to find, to accept it."""
    release(monitor.releases.root, rows=10)
    served(monitor, 120, 1, at(1, 12))
    (first,) = later(monitor, 1, 13).run_once()
    assert (first.verdict, first.signals) == ("insufficient", {})
    assert [one.id for one in reference_data.list_closed_windows(monitor.store)] == [first.id]
    assert changed(monitor, _before=None, _measured={}).run_once() == []


def test_what_was_forgotten_is_in_no_reference(monitor: DriftMonitor) -> None:
    served(monitor, 120, 1, at(1, 12))
    first = later(monitor, 1, 13).run_once()[0]
    accept(monitor, first.id)
    assert len(reference_data.load_accepted_windows(monitor.store, 1000, 60).rows) == 120
    monitor.store.retain(at(1, 12) + timedelta(seconds=60))
    assert len(reference_data.load_accepted_windows(monitor.store, 1000, 60).rows) == 60
    assert len(reference_data.load_accepted_windows(monitor.store, 40, 60).rows) == 40


def test_what_was_erased_leaves_a_reference_that_has_more_rows_than_are_compared(monitor: DriftMonitor) -> None:
    """Their number stays, since others take their places; the page and Evidently's report show the texts and words of both."""
    monitor.settings = settings(max_rows=60)
    served(monitor, 60, 1, at(1, 12), user_hash="ada")
    served(monitor, 60, 2, at(1, 13), user_hash="bob")
    accept(monitor, later(monitor, 1, 14).run_once()[0].id)
    before = monitor.baselines(RELEASE)[0]["prompt"].rows
    hers = {one.id for one in monitor.store.inferences(user_hash="ada")} - {one.id for one in before[:1]}
    assert hers & {row.id for row in before}
    monitor.store.write([replace(one, id=f"more-{one.id}") for one in monitor.store.inferences(user_hash="bob")])
    monitor.store.erase("ada")
    after = monitor.baselines(RELEASE)[0]["prompt"].rows
    assert len(after) == len(before) == 60
    assert not hers & {row.id for row in after}


def test_words_that_an_erasure_clears_leave_the_pages_of_a_running_monitor(monitor: DriftMonitor) -> None:
    served(monitor, 120, 1, at(1, 12))
    accept(monitor, later(monitor, 1, 13).run_once()[0].id)
    served(monitor, 120, 3, at(2, 10), topics=("garden", "bread"), user_hash="ada")
    (drift,) = later(monitor, 2, 12).run_once()
    word = drift.segments[0].name
    pages = build_pages(monitor.settings, monitor.layout, monitor, DriftMetrics(3.0))
    assert word in (pages.window(drift.id) or "")
    assert word in pages.data().decode()
    monitor.store.erase("ada")
    assert word not in (pages.window(drift.id) or "")
    assert word not in pages.data().decode()


def test_words_of_pruned_windows_go_also_where_several_were_accepted_together(monitor: DriftMonitor) -> None:
    served(monitor, 120, 1, at(1, 12))
    served(monitor, 120, 2, at(1, 14))
    body = windows.accept([one.id for one in later(monitor, 1, 16).run_once()], author="test", message="")
    monitor.store.add_event(LogEvent("both", monitor.now(), windows.REFERENCE_SET, body))
    served(monitor, 120, 3, at(2, 10), topics=("garden", "bread"))
    assert later(monitor, 2, 12).run_once()[0].segments
    monitor.store.retain(at(1, 13))
    assert not any(one.segments for one in reference_data.list_closed_windows(monitor.store))


def test_a_reference_that_is_gone_is_said(monitor: DriftMonitor) -> None:
    accept(monitor, "0" * 16)
    assert (
        reference_data.load_accepted_windows(monitor.store, 100, 60).why
        == f"the accepted window {'0' * 16} is not in the inference log"
    )


@pytest.mark.parametrize("error", [InfrastructureError("no picture"), UnicodeEncodeError("utf-8", "x", 0, 1, "odd")])
def test_a_broken_report_leaves_the_verdict(monitor: DriftMonitor, error: Exception) -> None:
    def broken(*_):
        raise error

    monitor.report = broken
    served(monitor, 120, 1, at(1, 12))
    found = later(monitor, 1, 13).run_once()
    assert len(found) == 1
    assert found[0].report is None


def test_replay_gives_what_was_seen_and_keeps_nothing(monitor: DriftMonitor) -> None:
    served(monitor, 240, 1, at(1, 12))
    seen = later(monitor, 1, 13).run_once()
    again = list(backtest.backtest(changed(monitor, _measured={}), at(1, 11), at(1, 13)))
    assert [(one.id, one.verdict) for one in again] == [(one.id, one.verdict) for one in seen]
    assert len(monitor.store.windows()) == 2
    assert to_builtins(again[0]) == to_builtins(seen[0])


def test_champion_periods() -> None:
    from tunectl.registry.release_state import ChampionPointer, ReleaseEvent

    log = [
        ReleaseEvent("add", "a", "2026-03-01T00:00:00+00:00"),
        ReleaseEvent("promote", "a", "2026-03-02T00:00:00+00:00"),
        ReleaseEvent("promote", "b", "2026-03-04T00:00:00+00:00"),
    ]
    champion = ChampionPointer("b", "a", "2026-03-04T00:00:00+00:00", "", "", 2)
    found = backtest.champion_periods(log, champion, at(3, 0), at(5, 0))
    assert [(one.release, one.since, one.until) for one in found] == [
        ("a", at(3, 0), at(4, 0)),
        ("b", at(4, 0), at(5, 0)),
    ]
    assert backtest.champion_periods([], champion, at(1, 0), at(5, 0))[0].since == at(4, 0)


def test_a_window_that_cannot_be_examined_is_an_error_and_the_next_one_is_looked_at(
    monitor: DriftMonitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tunectl.monitoring.drift_detector import DriftDetector

    examine, calls = DriftDetector.examine_window, []

    def once(self, *args, **named):
        calls.append(1)
        if len(calls) == 2:
            raise ZeroDivisionError("poison")
        return examine(self, *args, **named)

    monkeypatch.setattr(DriftDetector, "examine_window", once)
    served(monitor, 360, 1, at(1, 12), topics=("bread",))
    found = later(monitor, 1, 14).run_once()
    assert [one.verdict for one in found] == ["drift", "error", "drift"]
    assert found[1].evidence == found[0].evidence
    assert found[2].signals["answer_text"].pooled[0].rows == 240, "the rows of an error are not pooled"
    assert found[1].reason == "ZeroDivisionError: poison"


def test_answers_of_accepted_windows_where_that_is_declared(monitor: DriftMonitor) -> None:
    declared = monitor.settings.monitor.answers.model_copy(update={"reference": "live"})
    monitor.settings = monitor.settings.model_copy(
        update={"monitor": monitor.settings.monitor.model_copy(update={"answers": declared})}
    )
    served(monitor, 120, 1, at(1, 12), topics=("bread",))
    first = later(monitor, 1, 14).run_once()[0]
    assert (first.verdict, first.signals) == ("insufficient", {}), (
        "people ask something else than the validation prompts"
    )
    accept(monitor, first.id)
    assert monitor.baselines(RELEASE)[0]["answer"].name == first.id
    samples, missing = monitor.baselines("f" * 16)
    assert "answer" not in samples
    assert missing["answer"] == f"answers: no accepted window has answers of release {'f' * 16}"


def test_answers_of_its_canary_for_a_release_that_was_promoted_because_the_world_had_changed(
    monitor: DriftMonitor,
) -> None:
    declared = monitor.settings.monitor.answers.model_copy(update={"reference": "live"})
    monitor.settings = monitor.settings.model_copy(
        update={"monitor": monitor.settings.monitor.model_copy(update={"answers": declared})}
    )
    served(monitor, 120, 1, at(1, 12), topics=("bread",))
    accept(monitor, later(monitor, 1, 14).run_once()[0].id)
    fresh = release(monitor.releases.root, "f" * 16)
    assert "answer" not in monitor.baselines(fresh)[0], "it had no canary"
    served(monitor, 40, 2, at(1, 15), topics=("bread",), name=fresh, variant="challenger")
    assert "answer" not in monitor.baselines(fresh)[0], "too few rows say nothing"
    served(monitor, 40, 3, at(1, 16), topics=("bread",), name=fresh, variant="challenger")
    by_name = {"model": "challenger", "messages": [{"role": "user", "content": "soil"}]}
    served(monitor, 9, 4, at(1, 17), topics=("garden",), name=fresh, variant="challenger", request=by_name)
    found = monitor.baselines(fresh)[0]["answer"]
    assert (found.name, len(found.rows)) == (f"canary-{fresh}", 80)
    served(monitor, 120, 5, at(2, 12), topics=("bread",), name=fresh)
    healed = later(monitor, 2, 14).run_once()[-1]
    assert (healed.release, healed.verdict) == (fresh, "ok")
    assert not any(one.shifted for one in healed.signals.values())


def test_a_window_that_could_not_be_examined_is_accepted_by_nobody(
    monitor: DriftMonitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tunectl.monitoring.drift_detector import DriftDetector

    def poisoned(*_args, **_named):
        raise ZeroDivisionError("poison")

    monkeypatch.setattr(DriftDetector, "examine_window", poisoned)
    monitor.settings = settings(accept_first=True)
    served(monitor, 120, 1, at(1, 12))
    assert [one.verdict for one in later(monitor, 1, 13).run_once()] == ["error"]
    assert monitor.store.events(kind=windows.REFERENCE_SET) == []


def test_a_reference_that_was_forgotten_is_replaced_by_a_person_only(monitor: DriftMonitor) -> None:
    """What comes after it was pruned may be the drift: it must not become the normal by itself."""
    monitor.settings = settings(accept_first=True)
    body = windows.accept(["f" * 16], author="Bo", message="")  # its rows are gone
    monitor.store.add_event(LogEvent("chosen", at(1, 1), windows.REFERENCE_SET, body))
    served(monitor, 120, 1, at(1, 12), topics=("bread",))
    later(monitor, 1, 13).run_once()
    assert [event.body for event in monitor.store.events(kind=windows.REFERENCE_SET)] == [body]


def test_after_a_rollback_no_window_of_an_earlier_time_is_shown(monitor: DriftMonitor, tmp_path: Path) -> None:
    served(monitor, 240, 1, at(1, 12), topics=("bread",))
    assert later(monitor, 1, 14).run_once()[-1].evidence > 3
    assert monitor.find_latest_window() is not None
    path = tmp_path / "releases" / "champion.json"
    pointer = {**atomic_io.read_json(path, dict), "promoted_at": "2026-03-02T14:00:00+00:00", "sequence": 3}
    atomic_io.write_json(path, pointer)
    assert monitor.find_latest_window() is None


def test_what_was_found_against_a_reference_that_is_none_any_more_is_not_shown(monitor: DriftMonitor) -> None:
    """A person says: this is how it is now. The gauge that the alert compares must not say drift until the next window."""
    served(monitor, 240, 1, at(1, 12), topics=("bread",))
    found = later(monitor, 1, 13).run_once()
    assert monitor.find_latest_window() == found[-1]
    accept(monitor, found[-1].id)
    assert monitor.find_latest_window() is None
    served(monitor, 120, 2, at(1, 14), topics=("bread",))
    (after,) = later(monitor, 1, 15).run_once()
    assert after.reference == found[-1].id
    assert monitor.find_latest_window() == after


def test_a_clock_that_went_far_ahead_and_came_back_is_reported(monitor: DriftMonitor) -> None:
    served(monitor, 120, 1, at(9, 12))
    assert len(later(monitor, 9, 13).run_once()) == 1
    assert later(monitor, 9, 1).run_once() == [], "an hour or two are waited for"
    with pytest.raises(InfrastructureError) as caught:
        later(monitor, 2, 13).run_once()
    assert (
        caught.value.message
        == "the next window begins at 2026-03-09 12:01 UTC, but the clock of this machine says 2026-03-02 13:00; "
        "drift is not monitored until then"
    )


def test_who_is_told_to_stop_does_not_catch_up_first(monitor: DriftMonitor) -> None:
    served(monitor, 360, 1, at(1, 12))
    found: list[DriftWindow] = []
    monitor.stopped = lambda: len(found) == 2
    assert len(later(monitor, 1, 14).run_once(found.append)) == 2
    monitor.stopped = lambda: False
    assert len(monitor.run_once()) == 1


def test_recorded_answers_are_masked_like_live_ones(monitor: DriftMonitor) -> None:
    from tunectl.artifacts.records import Message
    from tunectl.backends.text import pii_resources
    from tunectl.packaging.probes import RecordedResponse
    from tunectl.privacy.mask import PiiMasker
    from tunectl.privacy.resources import PiiResources

    folder = monitor.releases.fetch(RELEASE)
    asked = [Message("user", "Write to [EMAIL_1] and to the shop.")]
    atomic_io.write_rows(
        folder / "reference.jsonl", [RecordedResponse(asked, "Done: shop@example.org", 3, -0.1, "stop")]
    )
    known = PiiResources(
        lambda _text: (), pii_resources.card(), pii_resources.iban(), pii_resources.ssn(), frozenset(), frozenset()
    )
    (row,) = reference_data.load_recorded_answers(folder, PiiMasker(known)).rows
    assert row.answer == "Done: [EMAIL_2]"
    assert reference_data.load_recorded_answers(folder).rows[0].answer == "Done: shop@example.org"


def test_a_reference_that_is_cut_has_rows_of_every_part(monitor: DriftMonitor, tmp_path: Path) -> None:
    from tunectl.artifacts.records import Example, Message, Source

    examples = [Example(str(number), Source("f"), messages=[Message("user", f"ask {number}")]) for number in range(199)]
    atomic_io.write_rows(tmp_path / "artifacts" / "split" / "train.jsonl", examples)
    chosen = [
        int(row.id.removeprefix("training-"))
        for row in reference_data.training_prompts(ProjectPaths(tmp_path), 100).rows
    ]
    assert len(chosen) == len(set(chosen)) == 100
    assert chosen[-1] > 195
    assert len(reference_data.training_prompts(ProjectPaths(tmp_path), 500).rows) == 199


def test_a_window_is_shown_beside_the_one_before(monitor: DriftMonitor) -> None:
    """It says whether something is new: after a change, windows differ from the reference but not from each other."""
    from tunectl.monitoring import drift_page

    served(monitor, 120, 1, at(1, 12))
    first = later(monitor, 1, 13).run_once()[0]
    assert first.previous_p_values == {}
    accept(monitor, first.id)
    for turn in range(2):
        served(monitor, 120, 3 + turn, at(2, 10 + turn), topics=("garden", "bread"))
    changed_at, after = later(monitor, 2, 12).run_once()
    assert changed_at.previous_p_values["prompt_text"] <= 0.05 < after.previous_p_values["prompt_text"]
    assert after.signals["prompt_text"].shifted
    page = drift_page.render_window("shop", replace(after, report="w.html"), {}, {"w.html"})
    assert "p, window before" in page
    assert "/reports/w.html" in page
    assert "/reports/w.html" not in drift_page.render_window("shop", replace(after, report="w.html"), {}, set()), (
        "it is old"
    )
    assert f"{after.previous_p_values['prompt_text']:.3f}" in page
    restarted = changed(monitor, _before=None, _measured={}, _columns={})
    served(monitor, 120, 6, at(2, 14), topics=("garden", "bread"))
    (next_one,) = later(restarted, 2, 15).run_once()
    assert next_one.previous_p_values["prompt_text"] > 0.05


def test_late_feedback_does_not_count(monitor: DriftMonitor) -> None:
    from tunectl.artifacts.records import Feedback

    served(monitor, 120, 1, at(1, 12))
    for place, seconds in ((3, 30), (4, 3000)):
        name = f"row-1-{place}"
        monitor.store.write(
            [Feedback(f"fb-{place}", name, "thumb", "up", at(1, 12) + timedelta(seconds=place + seconds))]
        )
    window = later(monitor, 1, 14).run_once()[0]
    kept = monitor.store.windows()[0]
    assert window.signals["answer_text"].n == 120
    assert sum(bool(row.feedback) for row in reference_data.rows_of(monitor.store, kept, 60)) == 1
    assert sum(bool(row.feedback) for row in reference_data.rows_of(monitor.store, kept)) == 2


@pytest.mark.parametrize(
    ("share", "words"),
    [
        (
            0.5,
            r"60 of 120 rows of a window have log-probabilities \(inference_log.logprob_share 0.5\): a change of 0.2 ",
        ),
        (
            0.01,
            r"1 of 120 rows .* too few for the signal mean_logprob, even of 9 windows together: 1 rows in the window, 50 are",
        ),
    ],
)
def test_calibrate_says_what_the_share_of_log_probabilities_leaves(
    monitor: DriftMonitor, monkeypatch: pytest.MonkeyPatch, capsys, tmp_path: Path, share: float, words: str
) -> None:
    from tunectl.cli import monitor_calibrate
    from tunectl.monitoring import factory

    live = monitor.settings.inference_log.model_copy(
        update={"logprob_share": share, "url": f"sqlite:///{tmp_path}/inference_log.sqlite"}
    )
    given = monitor.settings.model_copy(update={"inference_log": live})
    monkeypatch.setattr(factory, "build_monitor", lambda *_: monitor)
    monkeypatch.delenv("TUNECTL_INFERENCE_LOG_URL", raising=False)
    args = Namespace(trials=20, rows=None, json=False)
    assert monitor_calibrate.calibrate(args, given, ProjectPaths(tmp_path)) == 0
    assert re.search(words, " ".join(capsys.readouterr().out.split()))
    kept = atomic_io.read_json(ProjectPaths(tmp_path).calibration)["logprob"]
    assert (kept["share"], kept["rows"], kept["min_rows"]) == (share, round(120 * share), 50)
    assert (kept["ninth"] is None) == (share == 0.01)
    assert kept["ninth_of_all"] >= (kept["ninth"] or 0)
