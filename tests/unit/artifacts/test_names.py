"""What may become part of a path: nothing that a stranger wrote, unless it is a name."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunectl.artifacts import names
from tunectl.artifacts.canary_state import CanaryState
from tunectl.canary.canary_store import CanaryRecord
from tunectl.core.errors import ArtifactError
from tunectl.inference_log.snapshot import Snapshot
from tunectl.registry.release_manifest import ReleaseManifest
from tunectl.registry.release_state import ChampionPointer, ReleaseEvent
from tunectl.retraining.state_machine import RetrainRun, Trigger

GOOD = "0123456789abcdef"
BAD = [
    "",
    ".",
    "..",
    "/etc",
    "../../x",
    GOOD[:-1],
    f"{GOOD}0",
    GOOD.upper(),
    f"{GOOD}\n",
    f"{GOOD}/x",
    f"./{GOOD}",
    "\0" * 16,
]
OTHERS = st.one_of(st.text(), st.from_regex(r"[0-9a-f/.]{16}", fullmatch=True), st.sampled_from(BAD))
others = OTHERS.filter(lambda text: not re.fullmatch("[0-9a-f]{16}", text))


@given(others)
def test_only_hexadecimal_names_lead_into_a_folder(name: str) -> None:
    with pytest.raises(ArtifactError):
        names.join_content_id(Path("place"), name)
    assert not names.is_content_id(name)


def test_a_name_leads_into_its_folder_and_another_text_is_reported() -> None:
    assert names.join_content_id(Path("place"), GOOD) == Path("place") / GOOD
    with pytest.raises(ArtifactError) as caught:
        names.join_content_id(Path("place"), "../x")
    assert str(caught.value) == (
        "'../x' names nothing in place: names there have 16 hexadecimal digits\n"
        "  the file that holds this name, such as champion.json, was changed by hand; restore it from a backup"
    )


FIELDS = [
    (ChampionPointer, "release"),
    (ChampionPointer, "previous"),
    (ReleaseEvent, "release"),
    (ReleaseEvent, "previous"),
    (CanaryState, "release"),
    (ReleaseManifest, "id"),
    (ReleaseManifest, "parent"),
    (CanaryRecord, "challenger"),
    (Trigger, "release"),
    (Snapshot, "id"),
]
"""Every field of what is read that becomes the name of a release's or snapshot's folder."""


@pytest.mark.parametrize(("record", "field"), FIELDS, ids=lambda one: getattr(one, "__name__", one))
@given(name=others)
def test_no_record_names_another_folder(record: type, field: str, name: str) -> None:
    shape = next(one.type for one in msgspec.structs.fields(record) if one.name == field)
    assert msgspec.convert(GOOD, shape) == GOOD
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(name, shape)


@pytest.mark.parametrize(("record", "field"), [(CanaryRecord, "id"), (RetrainRun, "key")])
@pytest.mark.parametrize("name", ["", ".", "..", "../x", "/x", "a/b", "a\n", "a\0", "a\\b", "a" * 121])
def test_no_record_is_written_elsewhere(record: type, field: str, name: str) -> None:
    shape = next(one.type for one in msgspec.structs.fields(record) if one.name == field)
    assert msgspec.convert("manual-0a1b", shape) == "manual-0a1b"
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(name, shape)


@pytest.mark.parametrize("name", ["", ".", "/etc/passwd", "..", "a/../../b", "a\\b", "a\0"])
def test_no_manifest_names_a_file_outside(name: str) -> None:
    names.refuse_outside("adapter/weights", "s3://bucket")
    with pytest.raises(ArtifactError) as caught:
        names.refuse_outside(name, "s3://bucket")
    assert caught.value.message == f"a manifest of s3://bucket names the file {name!r}, which is outside its release"
