"""Chunks of a stream: what one says goes on where the last one ended."""

import json

from tunectl.serving.response_encoding import ResponseHead, StreamEncoder, Token


def test_offsets_of_tokens_go_on_from_chunk_to_chunk() -> None:
    encoder = StreamEncoder(ResponseHead("cmpl-1", 0, "m", "r", chat=False), usage=False)

    def offsets(index: int, *texts: str) -> list[int]:
        chunk = encoder.text(index, "".join(texts), [Token(text, text.encode(), -1.0) for text in texts])
        return json.loads(chunk.removeprefix(b"data: "))["choices"][0]["logprobs"]["text_offset"]

    assert offsets(0, "He", "llo") == [0, 2]
    assert offsets(1, "One") == [0]
    assert offsets(0, " é") == [5]
    assert offsets(0, "!") == [7]
