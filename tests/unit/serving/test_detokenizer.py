"""Growing text: whole characters, stop texts, nothing lost."""

import json
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

from hypothesis import given, settings
from hypothesis import strategies as st

from tunectl.generation.engine import TokenChunk
from tunectl.serving.detokenizer import IncrementalDetokenizer
from tunectl.serving.request_job import GeneratedAnswer


class Bytes:
    """A tokenizer whose ids are bytes."""

    strips = False
    size = 256

    def ids(self, text: str) -> list[int]:
        return list(text.encode())

    def bytes_of(self, number: int) -> bytes:
        return bytes([number])


TEXTS = st.text(st.sampled_from("ab\n é☃🦊"), max_size=30)


def pieces(ids: list[int], cuts: list[int]) -> list[list[int]]:
    places = sorted({0, len(ids), *(cut % (len(ids) + 1) for cut in cuts)})
    return [ids[a:b] for a, b in pairwise(places)]


def grown(ids: list[int], cuts: list[int], stops: list[str]) -> tuple[str, bool]:
    growing, parts = IncrementalDetokenizer(Bytes(), stops), []
    for piece in pieces(ids, cuts):
        parts.append(growing.push(piece))
    parts.append(growing.push([], last=True))
    assert "\ufffd" not in "".join(parts)
    return "".join(parts), growing.done


@settings(deadline=None)
@given(TEXTS, st.lists(st.integers(0, 200), max_size=20))
def test_text_comes_out_whole_wherever_it_is_cut(text: str, cuts: list[int]) -> None:
    assert grown(list(text.encode()), cuts, []) == (text, False)


@given(
    TEXTS, st.lists(st.integers(0, 200), max_size=20), st.lists(st.text("ab\n é☃", min_size=1, max_size=4), max_size=3)
)
@settings(max_examples=300, deadline=None)
def test_text_ends_before_the_first_stop(text: str, cuts: list[int], stops: list[str]) -> None:
    places = [text.find(stop) for stop in stops if stop in text]
    said, done = grown(list(text.encode()), cuts, stops)
    if not places:
        assert (said, done) == (text, False)
    else:  # a stop that is complete earlier ends the text, even where another began before it
        assert done
        assert text.startswith(said)
        assert any(text.startswith(stop, len(said)) for stop in stops)


def test_a_character_that_never_ends_is_shown_as_broken() -> None:
    growing = IncrementalDetokenizer(Bytes())
    assert growing.push([0xF0, 0x9F]) == ""
    assert growing.push([], last=True) == "\ufffd"


def test_bytes_of_the_real_tokenizer(tiny_model: Path) -> None:
    from tunectl.chat.tokenizer import Tokenizer

    tokenizer = Tokenizer(tiny_model)
    text = "für 3 € 🦊\n"
    ids = tokenizer.ids(f"{text}<|im_end|>")
    growing = IncrementalDetokenizer(tokenizer)
    assert "".join(growing.push([number]) for number in ids) == text
    assert tokenizer.size == 259


def test_a_number_beyond_the_tokenizer_is_no_text_and_no_error(tiny_model: Path) -> None:
    from tunectl.chat.tokenizer import Tokenizer

    tokenizer = Tokenizer(tiny_model)
    padding = tokenizer.size  # the model's vocabulary may go on: it is padded to a round number
    first, second = tokenizer.ids("é")
    answer = GeneratedAnswer(
        IncrementalDetokenizer(tokenizer), SimpleNamespace(prompts=SimpleNamespace(tokenizer=tokenizer)), wants=True
    )
    said = [
        answer.feed(TokenChunk([first, padding], [-1.0, -2.0])),
        answer.feed(TokenChunk([second], [-3.0], "length")),
    ]
    assert (said, answer.text, answer.count) == (["", "é"], "é", 3)
    assert [(one.data, one.logprob) for one in answer.tokens] == [(b"\xc3", -1.0), (b"", -2.0), (b"\xa9", -3.0)]
    assert answer.tokens[1].text == ""


def test_a_byte_level_token_in_letters_of_its_own(tmp_path: Path) -> None:
    from tokenizers import Tokenizer as Fast
    from tokenizers import decoders, models

    from tunectl.chat.tokenizer import Tokenizer

    fast = Fast(models.BPE(vocab={"\u0120a": 0, "a \u2603": 1}, merges=[]))
    fast.decoder = decoders.ByteLevel()
    fast.save(str(tmp_path / "tokenizer.json"))
    tokenizer = Tokenizer(tmp_path)
    assert [tokenizer.bytes_of(number).decode() for number in (0, 1)] == tokenizer.tokens_of([0, 1]) == [" a", "a ☃"]


def test_a_sentencepiece_tokenizer(tmp_path: Path) -> None:
    from tokenizers import Tokenizer as Fast
    from tokenizers import decoders, models

    from tunectl.chat.tokenizer import Tokenizer

    words = {"\u2581Hi": 0, "\u2581you": 1, "<0xC3>": 2, "<0xA9>": 3, "</s>": 4}
    fast = Fast(models.BPE(vocab=words, merges=[]))
    fast.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    fast.add_special_tokens(["</s>"])
    fast.save(str(tmp_path / "tokenizer.json"))
    assert "decoder" in json.loads((tmp_path / "tokenizer.json").read_text())
    growing = IncrementalDetokenizer(Tokenizer(tmp_path))
    assert [growing.push([number]) for number in (0, 1, 2, 3, 4)] == ["Hi", " you", "", "é", ""]
    continuing = IncrementalDetokenizer(Tokenizer(tmp_path), continues=True)
    assert [continuing.push([number]) for number in (0, 1)] == [" Hi", " you"]
