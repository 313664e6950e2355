"""The OpenVINO engine on the tiny model: streams, seeds, schemas, cancellation, and a step that fails.

``test_openvino_engine.py`` runs these in a process of their own.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from delivery_recorder import Heard
from openvino_release import exported

from tunectl.backends.engines.openvino_engine import OpenVinoEngine, OpenVinoSession
from tunectl.chat.tokenizer import Tokenizer
from tunectl.core.errors import ArtifactError
from tunectl.generation.engine import GenerationRequest

pytestmark = pytest.mark.timeout(1800)


@pytest.fixture(scope="module")
def release(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("release")
    exported(tiny_model, folder / "model")
    return folder


@pytest.fixture
def opened(release: Path):
    heard = Heard()  # two threads: with one, OpenVINO 2026.4 divides by zero on a model as small as this
    session = OpenVinoEngine(threads=2, cache_tokens=2048, batch_tokens=64, running=4).open(
        release, heard, adapter=False
    )
    yield session, heard
    session.close()


def ask(**values) -> GenerationRequest:
    return GenerationRequest(
        **{
            "prompt": [1, 40, 41, 42],
            "max_tokens": 8,
            "temperature": 0.0,
            "top_p": 1.0,
            "stop_ids": frozenset({2}),
            **values,
        }
    )


def said(session: OpenVinoSession, heard: Heard, number: int, **values) -> list[int]:
    session.start(number, ask(**values))
    return [token for piece in heard.ended(number) for token in piece.ids]


def test_a_token_a_step_with_its_logprob_and_the_same_seed_twice(opened) -> None:
    session, heard = opened
    said(session, heard, 1)
    assert all(len(piece.ids) == len(piece.logprobs) <= 1 for piece in heard.pieces[1])
    assert all(logprob <= 0 for piece in heard.pieces[1] for logprob in piece.logprobs)
    assert heard.pieces[1][-1].end in ("length", "stop")
    drawn = [said(session, heard, number, temperature=1.0, seed=seed) for number, seed in ((2, 5), (3, 5), (4, 6))]
    assert drawn[0] == drawn[1] != drawn[2]


def test_without_logprobs_the_tokens_are_the_same(opened) -> None:
    session, heard = opened
    ways = ({}, {"temperature": 1.0, "seed": 5}, {"temperature": 0.7, "top_p": 0.8, "seed": 9}, {"presence": 0.5})
    for number, way in enumerate(ways):
        first = said(session, heard, 2 * number, max_tokens=20, **way)
        assert said(session, heard, 2 * number + 1, max_tokens=20, logprobs=False, **way) == first
        assert not any(piece.logprobs for piece in heard.pieces[2 * number + 1])


def test_a_schema_is_followed(opened, tiny_model: Path) -> None:
    session, heard = opened
    shape = {"type": "object", "properties": {"a": {"enum": [1, 2]}, "b": {"type": "boolean"}}, "required": ["a", "b"]}
    found = said(session, heard, 1, schema=json.dumps(shape), max_tokens=60)
    value = json.loads(Tokenizer(tiny_model).text_of(found))
    assert set(value) == {"a", "b"}


def test_cancel_stops_within_a_step_and_others_go_on(opened) -> None:
    session, heard = opened
    for number in (1, 2):
        session.start(number, ask(max_tokens=400, stop_ids=frozenset()))
    before = len(heard.begun(1, pieces=4))
    session.cancel(1)
    pieces = heard.ended(1)
    assert pieces[-1].end == "cancelled"
    assert len(pieces) - before <= 20  # the steps of a model as small as this are as quick as this test
    assert heard.ended(2)[-1].end == "length"


def test_without_stop_tokens_only_the_length_ends_an_answer(opened) -> None:
    session, heard = opened
    assert len(said(session, heard, 1, stop_ids=frozenset(), max_tokens=300)) == 300
    assert heard.pieces[1][-1].end == "length"


def test_a_shared_beginning_is_read_once(opened) -> None:
    session, heard = opened
    steps = []
    inner = session._inner

    class Counted:
        def step(self) -> None:
            steps.append(1)
            inner.step()

        def add_request(self, *given):
            return inner.add_request(*given)

    def read(number: int, start: int) -> int:
        steps.clear()
        prompt = [start + place % 90 for place in range(640)]  # ten steps of 64 tokens
        said(session, heard, number, prompt=[*prompt, 50 + number], max_tokens=1)
        return len(steps)

    session._inner = Counted()
    assert read(1, 100) >= 10
    assert read(2, 100) <= 2  # all but the last block is known
    assert read(3, 300) >= 10  # another beginning


def test_after_a_failed_step_everybody_hears_why(opened) -> None:
    session, heard = opened
    session._config = lambda ask: session._genai.GenerationConfig(
        max_new_tokens=4,
        structured_output_config=session._genai.StructuredOutputConfig(json_schema='{"type": "nonsense"}'),
    )
    session.start(1, ask())
    assert "nonsense" in heard.ended(1)[-1].why
    assert "nonsense" in (session.broken or "")
    session.start(2, ask())
    assert heard.ended(2)[-1].end == "failed"


def test_what_cannot_be_loaded_is_said(release: Path, tmp_path: Path) -> None:
    engine = OpenVinoEngine(2, 2048, 64, 4)
    with pytest.raises(ArtifactError, match="OpenVINO cannot load it"):
        engine.open(tmp_path, Heard(), adapter=False)
    with pytest.raises(ArtifactError, match=r"adapter_config.json does not exist"):
        engine.open(release, Heard(), adapter=True)
