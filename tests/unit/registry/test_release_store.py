"""The store of releases: a state machine of swaps, kills, damage and messages."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunectl.artifacts import atomic_io
from tunectl.core.errors import ArtifactError, GateError, InfrastructureError, UsageError
from tunectl.registry import release_manifest, release_state
from tunectl.registry.release_manifest import BuildFacts, Lineage, RecordedVerdict
from tunectl.registry.release_state import ReleaseEvent
from tunectl.registry.release_store import CHAMPION, EVENTS, RELEASES, SCRATCH, ReleaseRegistry

FACTS = BuildFacts("demo", "openvino", "merged")


def content(folder: Path, text: str) -> Path:
    (folder / "adapter").mkdir(parents=True)
    (folder / "adapter" / "adapter_model.safetensors").write_text(text)
    (folder / "MODEL_CARD.md").write_text("# demo\n")
    return folder


@pytest.fixture
def three(tmp_path: Path) -> tuple[ReleaseRegistry, list[str]]:
    store = ReleaseRegistry(tmp_path / "store")
    return store, [store.add(content(tmp_path / name, name), FACTS).id for name in "abc"]


def test_the_same_content_is_the_same_release_and_is_added_once(tmp_path: Path) -> None:
    store = ReleaseRegistry(tmp_path / "store")
    first = store.add(content(tmp_path / "a", "x"), FACTS, author="me", message="first")
    second = store.add(content(tmp_path / "b", "x"), BuildFacts("other", "vllm", "adapter"))
    assert second == first
    assert store.ids() == [first.id]
    assert [entry.action for entry in store.log()] == ["add"]
    assert len(first.id) == 16
    assert first.files.keys() == {"adapter/adapter_model.safetensors", "MODEL_CARD.md"}
    assert store.verify(first.id) == []
    assert not (store.root / SCRATCH).exists() or not any((store.root / SCRATCH).iterdir())


@given(
    st.dictionaries(st.text("abc/._", min_size=1), st.text("0123456789abcdef", min_size=64, max_size=64), min_size=1)
)
def test_the_name_depends_on_content_and_not_on_order(files: dict[str, str]) -> None:
    turned = dict(reversed(files.items()))
    assert release_manifest.content_id(files) == release_manifest.content_id(turned)
    name = next(iter(files))
    assert release_manifest.content_id({**files, name: "z" * 64}) != release_manifest.content_id(files)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.one_of(st.integers(0, 2), st.just("back")), max_size=12))
def test_swaps_behave_like_a_stack(tmp_path_factory: pytest.TempPathFactory, moves: list) -> None:
    folder = tmp_path_factory.mktemp("stack")
    store = ReleaseRegistry(folder / "store")
    names = [store.add(content(folder / name, name), FACTS).id for name in "abc"]
    stack: list[str] = []
    swaps = 0
    for move in moves:
        if move == "back" and len(stack) < 2:
            with pytest.raises(UsageError):
                store.rollback(author="t", message="w")
            continue
        if move == "back":
            stack.pop()
            swaps += 1
            store.rollback(author="t", message="w")
        else:
            if stack[-1:] != [names[move]]:
                stack.append(names[move])
                swaps += 1
            store.promote(names[move], author="t", message="w")
        now = store.champion()
        assert now is not None
        assert now.release == stack[-1]
        assert now.previous == (stack[-2] if len(stack) > 1 else None)
        assert now.sequence == swaps
        assert release_state.promotion_stack(store.log()) == stack
    assert [entry.sequence for entry in store.log() if entry.sequence] == list(range(1, swaps + 1))


def test_files_left_by_a_kill_are_repaired(three: tuple[ReleaseRegistry, list[str]]) -> None:
    store, (one, two, _) = three
    store.promote(one, author="t", message="first")
    before = (store.root / EVENTS).read_bytes()
    store.promote(two, author="t", message="second")
    whole = (store.root / EVENTS).read_bytes()
    for cut in range(len(before), len(whole)):  # the pointer moved, the line is cut off anywhere
        (store.root / EVENTS).write_bytes(whole[:cut])
        assert release_state.promotion_stack(store.log()) == [one, two]
    (store.root / SCRATCH / "half").mkdir(parents=True)
    assert store.rollback(author="t", message="third").release == one
    assert not (store.root / SCRATCH / "half").exists()
    assert [(entry.action, entry.message) for entry in store.log()][3:] == [
        ("promote", "first"),
        ("promote", "second"),
        ("rollback", "third"),
    ]


def test_a_release_without_its_line_in_the_log_gets_one(three: tuple[ReleaseRegistry, list[str]]) -> None:
    store, names = three
    lines = (store.root / EVENTS).read_bytes().splitlines(keepends=True)
    (store.root / EVENTS).write_bytes(b"".join(lines[:2]))
    assert [entry.release for entry in store.log()] == names
    store.promote(names[0], author="t", message="w")
    assert len((store.root / EVENTS).read_bytes().splitlines()) == 4


KILLED = """
import sys
from pathlib import Path
from tunectl.registry.release_manifest import BuildFacts
from tunectl.registry.release_store import ReleaseRegistry
store, names = ReleaseRegistry(Path(sys.argv[1])), sys.argv[2:]
number = 0
while True:
    number += 1
    source = Path(sys.argv[1]) / ".." / f"new-{number}-{store.log()[-1].created_at[-12:-6]}"
    source.mkdir()
    (source / "file").write_text(str(source) * 500)
    print("add", store.add(source, BuildFacts("d", "e", "r")).id, flush=True)
    for name in names[1:]:
        found = store.promote(name, author="t", message=str(number))
        print("swap", found.sequence, found.release, flush=True)
    found = store.rollback(author="t", message=str(number))
    print("swap", found.sequence, found.release, flush=True)
"""


def test_kill_9_at_any_moment_loses_nothing_that_was_said(three: tuple[ReleaseRegistry, list[str]]) -> None:
    store, names = three
    store.promote(names[0], author="t", message="w")
    chance = random.Random(7)
    said: list[list[str]] = []
    for _ in range(int(os.environ.get("TUNECTL_KILLS", "6"))):
        with subprocess.Popen(
            [sys.executable, "-c", KILLED, store.root, *names], stdout=subprocess.PIPE, text=True
        ) as child:
            assert child.stdout is not None
            said.append(child.stdout.readline().split())
            time.sleep(chance.random() * 0.15)
            child.send_signal(signal.SIGKILL)
            said += [line.split() for line in child.stdout if line.endswith("\n")]
        entries, pointer = store.log(), store.champion()
        swaps = {entry.sequence: entry.release for entry in entries if entry.sequence}
        assert list(swaps) == list(range(1, len(swaps) + 1))
        assert pointer is not None
        assert pointer.sequence == max(swaps)
        assert release_state.promotion_stack(entries)[-1] == pointer.release
        for word, *rest in said:
            assert rest[0] in store.ids() if word == "add" else swaps[int(rest[0])] == rest[1]
    assert all(store.verify(name) == [] for name in store.ids())
    assert len({word[0] for word in said}) == 2


def test_every_kind_of_damage_is_reported(three: tuple[ReleaseRegistry, list[str]]) -> None:
    store, (one, two, three_) = three
    (store.folder(one) / "MODEL_CARD.md").write_text("# other\n")
    (store.folder(one) / "extra").write_text("")
    (store.folder(one) / "adapter" / "adapter_model.safetensors").unlink()
    assert store.verify(one) == [
        "adapter/adapter_model.safetensors is missing",
        "extra does not belong to this release",
        (
            f"MODEL_CARD.md was changed: its SHA-256 is {atomic_io.sha256_path(store.folder(one) / 'MODEL_CARD.md')[:12]}…, "
            f"recorded is {store.manifest(one).files['MODEL_CARD.md'][:12]}…"
        ),
    ]
    with pytest.raises(ArtifactError, match=f"release {one} is damaged: adapter/adapter_model.safetensors is missing"):
        store.promote(one, author="t", message="w")
    store.folder(two).rename(store.folder("0" * 16))
    assert store.verify("0" * 16) == [f"its name should be {two}, the manifest says {two}, the folder {'0' * 16}"]
    (store.folder(three_) / release_manifest.NAME).unlink()
    assert store.verify(three_) == [
        f"{store.folder(three_) / release_manifest.NAME} does not exist, so this is not a stored release"
    ]
    assert store.ids() == sorted(["0" * 16, one], key=lambda name: store.manifest(name).created_at)


def test_a_damaged_release_is_not_taken_for_the_same(three: tuple[ReleaseRegistry, list[str]], tmp_path: Path) -> None:
    store, (one, *_) = three
    (store.folder(one) / "MODEL_CARD.md").write_text("# other\n")
    with pytest.raises(ArtifactError, match=r"is damaged: MODEL_CARD.md was changed"):
        store.add(tmp_path / "a", FACTS)


def test_what_a_gate_refused_is_promoted_by_force_only(tmp_path: Path) -> None:
    store = ReleaseRegistry(tmp_path / "store")
    refused = BuildFacts(
        "demo", "openvino", "merged", {}, {"package": RecordedVerdict(False, "export_differs", "too far off")}
    )
    name = store.add(content(tmp_path / "a", "a"), refused).id
    with pytest.raises(GateError) as caught:
        store.promote(name, author="t", message="w")
    assert str(caught.value) == f"release {name} was refused: package: too far off\n  go on all the same: --force"
    assert store.champion() is None
    assert store.promote(name, author="t", message="w", force=True).release == name


def test_who_comes_second_is_reported(three: tuple[ReleaseRegistry, list[str]]) -> None:
    store, (one, two, _) = three
    store.promote(one, author="t", message="w", after=0)
    with pytest.raises(GateError, match="somebody else changed the champion: sequence 1, not 0"):
        store.promote(two, author="t", message="w", after=0)


def test_links_are_no_release(tmp_path: Path) -> None:
    folder = content(tmp_path / "a", "a")
    (folder / "link").symlink_to("/etc/hostname")
    with pytest.raises(ArtifactError, match="link is a link or a special file"):
        ReleaseRegistry(tmp_path / "store").add(folder, FACTS)
    assert ReleaseRegistry(tmp_path / "store").ids() == []


def test_two_writers_do_not_meet(three: tuple[ReleaseRegistry, list[str]]) -> None:
    store, (one, *_) = three
    with (
        store.hold_lock("a test"),
        pytest.raises(InfrastructureError, match="another process changes this store: a test"),
    ):
        store.promote(one, author="t", message="w")


def test_releases_are_found_by_the_start_of_their_name(three: tuple[ReleaseRegistry, list[str]]) -> None:
    store, names = three
    assert store.find(names[0][:15]) == names[0]
    store.promote(names[0], author="t", message="w")
    store.promote(names[1], author="t", message="w")
    assert (store.find("champion"), store.find("previous")) == (names[1], names[0])
    with pytest.raises(UsageError) as caught:
        store.find("nothing")
    assert str(caught.value) == (f"nothing: there is no such release in {store.root}\n  there are: {', '.join(names)}")
    with pytest.raises(UsageError, match=r"has no previous release"):
        ReleaseRegistry(store.root / "none").find("previous")
    with pytest.raises(UsageError, match="there is no earlier release to roll back to"):
        ReleaseRegistry(store.root / "none").rollback(author="t", message="w")


@pytest.mark.parametrize("line", [b'{"what":"add"}\n', b'{"what":"\xff"}\n'])
def test_a_line_changed_by_hand_is_named(line: bytes, three: tuple[ReleaseRegistry, list[str]]) -> None:
    store, _ = three
    (store.root / EVENTS).write_bytes(line)
    with pytest.raises(ArtifactError, match=r"events.jsonl:1 is not the expected JSON"):
        store.log()


def test_a_pointer_that_is_no_utf8_is_named(three: tuple[ReleaseRegistry, list[str]]) -> None:
    store, names = three
    store.promote(names[0], author="t", message="w")
    (store.root / CHAMPION).write_bytes((store.root / CHAMPION).read_bytes().replace(b'"w"', b'"\xff"'))
    with pytest.raises(ArtifactError, match=r"champion.json is not the expected JSON: 'utf-8' codec"):
        store.champion()


def test_the_difference_says_files_numbers_and_lineage(tmp_path: Path) -> None:
    store = ReleaseRegistry(tmp_path / "store")
    one = BuildFacts(
        "demo",
        "openvino",
        "merged",
        {"bleu": 50.0},
        {"evaluate": RecordedVerdict(True, "tuned_better", "yes")},
        Lineage("b", "1", {"sft": "x"}),
    )
    other = BuildFacts("demo", "openvino", "adapter", {"bleu": 51.0, "chrf": 60.0}, {}, Lineage("b", "1", {"sft": "y"}))
    first = store.add(content(tmp_path / "a", "a"), one)
    folder = content(tmp_path / "b", "b")
    (folder / "more").write_text("")
    second = store.add(folder, other)
    assert release_manifest.diff(first, second) == {
        "files": {"adapter/adapter_model.safetensors": "changed", "more": "added"},
        "manifest": {"layout": ["merged", "adapter"]},
        "metrics": {"bleu": [50.0, 51.0], "chrf": [None, 60.0]},
        "verdicts": {"evaluate": ["tuned_better", None]},
        "lineage": {"stages.sft": ["x", "y"]},
    }
    assert release_manifest.diff(first, first) == {}


def test_the_pointer_is_plain_json(three: tuple[ReleaseRegistry, list[str]]) -> None:
    store, (one, *_) = three
    store.promote(one, author="me", message="it is good")
    found = json.loads((store.root / CHAMPION).read_text())
    assert found | {"promoted_at": ""} == {
        "release": one, "previous": None, "promoted_at": "", "author": "me", "message": "it is good", "sequence": 1, "action": "promote",
        "digest": store.digest(one), "signature": None, "version": 2,
    }  # fmt: skip
    assert {path.name for path in (store.root / RELEASES).iterdir()} == set(store.ids())
    assert store.log()[-1] == ReleaseEvent(
        "promote", one, found["promoted_at"], "me", "it is good", None, 1, digest=store.digest(one)
    )


def test_a_challenger_is_put_up_and_withdrawn(three: tuple[ReleaseRegistry, list[str]]) -> None:
    store, (one, two, three_) = three
    with pytest.raises(UsageError, match=f"{one} has no champion to be tested against"):
        store.start_canary(one, share=0.1, author="t", message="w")
    store.promote(one, author="t", message="w")
    with pytest.raises(UsageError) as caught:
        store.start_canary(one, share=0.1, author="t", message="w")
    assert (
        str(caught.value)
        == f"release {one} is the champion itself ({store.root})\n  choose another release: tunectl release list"
    )
    with pytest.raises(UsageError) as caught:
        store.start_canary(two, share=10, author="t", message="w")
    assert str(caught.value) == "share = 10: must be from 0 to 1\n  0.1 is a tenth of the users"
    with pytest.raises(UsageError, match="there is no challenger"):
        store.stop_canary(author="t", message="w")
    first = store.start_canary(two, share=0.1, author="t", message="w")
    second = store.start_canary(three_, share=0.5, author="t", message="more")
    assert first.salt != second.salt
    assert (store.canary(), store.find("challenger")) == (second, three_)
    assert store.stop_canary(author="t", message="enough") == second
    assert store.canary() is None
    told = [(one.action, one.release, one.share) for one in store.log()[-3:]]
    assert told == [("canary_start", two, 0.1), ("canary_start", three_, 0.5), ("canary_stop", three_, None)]


def test_a_challenger_that_is_promoted_is_one_no_more(three: tuple[ReleaseRegistry, list[str]]) -> None:
    store, (one, two, _) = three
    store.promote(one, author="t", message="w")
    store.start_canary(two, share=0.1, author="t", message="w")
    store.promote(two, author="t", message="w")
    assert store.canary() is None
    assert [entry.action for entry in store.log()[-3:]] == ["canary_start", "promote", "canary_stop"]
    assert release_state.promotion_stack(store.log()) == [one, two]


def test_a_challenger_that_is_rolled_back_to_is_one_no_more(three: tuple[ReleaseRegistry, list[str]]) -> None:
    store, (one, two, _) = three
    store.promote(one, author="t", message="w")
    store.promote(two, author="t", message="w")
    store.start_canary(one, share=0.1, author="t", message="w")
    store.rollback(author="t", message="w")
    assert (store.champion().release, store.canary()) == (one, None)
    assert [entry.action for entry in store.log()[-3:]] == ["canary_start", "rollback", "canary_stop"]


def test_a_kill_between_promotion_and_withdrawal_leaves_no_challenger_that_is_champion(
    three: tuple[ReleaseRegistry, list[str]],
) -> None:
    store, (one, two, _) = three
    store.promote(one, author="t", message="w")
    store.start_canary(two, share=0.1, author="t", message="w")
    canary = (store.root / "canary.json").read_bytes()
    store.promote(two, author="t", message="w")
    lines = (store.root / EVENTS).read_bytes().splitlines(keepends=True)
    (store.root / EVENTS).write_bytes(b"".join(lines[:-1]))
    (store.root / "canary.json").write_bytes(canary)
    with store.hold_lock("the next change"):
        assert store.canary() is None
    assert [entry.action for entry in store.log()[-3:]] == ["canary_start", "promote", "canary_stop"]


def test_what_a_kill_kept_from_the_log_is_written_there_again(three: tuple[ReleaseRegistry, list[str]]) -> None:
    store, (one, two, _) = three
    store.promote(one, author="t", message="w")
    before = (store.root / EVENTS).read_bytes()
    canary = store.start_canary(two, share=0.1, author="t", message="w")
    whole = (store.root / EVENTS).read_bytes()
    (store.root / EVENTS).write_bytes(before)  # killed between the file and its line
    assert store.log()[-1] == ReleaseEvent(
        "canary_start",
        two,
        canary.started_at,
        "t",
        "w",
        share=0.1,
        salt=canary.salt,
        digest=canary.digest,
        number=canary.number,
    )
    store.promote(one, author="t", message="changes nothing")
    assert (store.root / EVENTS).read_bytes() == whole
    (store.root / "canary.json").unlink()
    assert (store.log()[-1].action, store.log()[-1].release) == ("canary_stop", two)


def test_the_commit_that_came_later_is_taken_over(tmp_path: Path) -> None:
    store = ReleaseRegistry(tmp_path / "store")
    folder = content(tmp_path / "a", "a")
    assert store.add(folder, FACTS, git="1" * 40 + "-dirty").git == "1" * 40 + "-dirty"
    manifest = (store.folder(store.ids()[0]) / "manifest.json").read_bytes()
    assert store.add(folder, FACTS, git="2" * 40, author="ci").git == "2" * 40
    assert store.add(folder, FACTS, git="3" * 40).git == "2" * 40
    assert store.manifest(store.ids()[0]).git == "2" * 40
    assert (store.folder(store.ids()[0]) / "manifest.json").read_bytes() == manifest, "it is written once"
    events = [(event.action, event.author, event.git) for event in store.log()]
    assert events == [("add", "", None), ("commit", "ci", "2" * 40)]
    assert store.verify(store.ids()[0]) == []


def stack_as_defined(entries: list[ReleaseEvent]) -> list[str]:
    """The promoted releases as the log defines them: a rollback takes the top away, and all down to its release where that is there."""
    stack: list[str] = []
    for entry in entries:
        if entry.action == "promote" and stack[-1:] != [entry.release]:
            stack.append(entry.release)
        elif entry.action == "rollback":
            stack = stack[:-1]
            while entry.release in stack[:-1] and stack[-1] != entry.release:
                stack.pop()
    return stack


@given(st.lists(st.tuples(st.sampled_from(["promote", "rollback", "add"]), st.sampled_from("abcd")), max_size=30))
def test_the_stack_is_as_the_log_defines_it(steps: list[tuple[str, str]]) -> None:
    entries = [ReleaseEvent(action, name * 16, "2026-01-01T00:00:00+00:00") for action, name in steps]  # type: ignore[arg-type]
    assert release_state.promotion_stack(entries) == stack_as_defined(entries)


def test_a_long_history_of_somebody_else_takes_no_hours() -> None:
    """64 MB of an address hold half a million events."""
    moment, names = "2026-01-01T00:00:00+00:00", [f"{number:016x}" for number in range(100_000)]
    entries = [ReleaseEvent("promote", name, moment) for name in names]
    entries += [ReleaseEvent("rollback", "f" * 16, moment) for _ in range(20_000)]
    entries.append(ReleaseEvent("rollback", names[0], moment))
    started = time.process_time()
    assert release_state.promotion_stack(entries) == names[:1]
    assert time.process_time() - started < 5


@given(st.lists(st.tuples(st.sampled_from(["promote", "rollback", "add"]), st.sampled_from("abcd")), max_size=30))
def test_the_champions_of_one_pass_are_those_of_every_beginning(steps: list[tuple[str, str]]) -> None:
    entries = [ReleaseEvent(action, name * 16, "2026-01-01T00:00:00+00:00") for action, name in steps]  # type: ignore[arg-type]
    assert list(release_state.iter_champions(entries)) == [
        (number, entry, release_state.champion_of(entries[:number]))
        for number, entry in enumerate(entries, 1)
        if entry.action in release_state.SWAPS
    ]
