"""Long requests: what makes their prompts works beside the loop, without Python's lock, and gives the ids of short ones."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunectl.access.api_errors import ApiError
from tunectl.chat.template import Template
from tunectl.chat.tokenizer import Tokenizer
from tunectl.generation.engine import FinishReason, TokenChunk
from tunectl.generation.prompt import PromptRenderer
from tunectl.serving import generation_task, request_job, requests

SOURCE = (
    "{% for tool in tools or [] %}{{ tool | tojson }}\n{% endfor %}{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{{ message['content'] }}{% for call in message['tool_calls'] or [] %}<tool_call>{{ call['function'] | tojson }}</tool_call>{% endfor %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
WORDS = "some words and names of streets "
SIZE = 375 * 1024
TIMES = SIZE // len(WORDS)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    tokenizers = pytest.importorskip("tokenizers")
    folder = tmp_path_factory.mktemp("tokenizer")
    made = tokenizers.Tokenizer(tokenizers.models.BPE())
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    letters = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<|im_start|>", "<|im_end|>"], initial_alphabet=letters, show_progress=False
    )
    made.train_from_iterator([WORDS, "{name: value, description: street}"], trainer)
    made.save(str(folder / "tokenizer.json"))
    return Tokenizer(folder)


def body(kind: str, times: int = TIMES) -> dict[str, Any]:
    turn: dict[str, Any] = {"role": "user", "content": "hi"}
    told: dict[str, Any] = {"model": "m", "messages": [turn]}
    if kind == "content":
        turn["content"] = WORDS * times
    elif kind == "tools":
        tool = {"type": "function", "function": {"name": "f", "description": WORDS * 12, "parameters": {}}}
        told["tools"] = [tool] * (times // 12)
    else:
        call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": json.dumps({"x": WORDS * times})}}
        told["messages"] = [turn, {"role": "assistant", "content": None, "tool_calls": [call]}, turn]
    return told


class Recorded:
    """A tokenizer that tells which thread asked it."""

    def __init__(self, inner: Tokenizer) -> None:
        self._inner = inner
        self.size = inner.size
        self.strips = inner.strips
        self.bytes_of = inner.bytes_of
        self.thread: threading.Thread | None = None

    def ids(self, text: str) -> list[int]:
        self.thread = threading.current_thread()
        return self._inner.ids(text)


async def build(
    told: dict[str, Any],
    tokenizer: Any,
    share: float = 1.0,
    kind: type[Any] = requests.ChatRequest,
    source: str = SOURCE,
) -> request_job.ChatJob:
    raw = json.dumps(told).encode()
    request = requests.parse(raw, kind, depth=32)
    defaults = SimpleNamespace(temperature=0.0, top_p=1.0, max_tokens=8)
    contract = SimpleNamespace(defaults=defaults, context_length=10**9)
    prompts = PromptRenderer(Template(source, "", "<|im_end|>"), tokenizer)
    release: Any = SimpleNamespace(prompts=prompts, contract=contract, stops=frozenset(), id="r")
    variant: Any = "champion"
    return await request_job.build_job(request, variant, release, 0.0, "m", size=len(raw), logprob_share=share)


def test_the_share_of_logprobs_is_exact_and_stable() -> None:
    names = [f"chatcmpl-{number:032x}" for number in range(20_000)]
    chosen = {
        share: {name for name in names if request_job.is_logprob_sampled(name, share)} for share in (0.0, 0.3, 0.6, 1.0)
    }
    assert (len(chosen[0.0]), len(chosen[1.0])) == (0, 20_000)
    assert abs(len(chosen[0.3]) / 20_000 - 0.3) < 0.015  # 4.6 standard errors
    assert chosen[0.3] < chosen[0.6]  # a larger share only adds
    golden = [request_job.is_logprob_sampled(f"chatcmpl-{number}", 0.5) for number in range(8)]
    assert golden == [True, True, False, False, False, False, False, True]


def test_who_asks_for_logprobs_has_them_whatever_the_share(tokenizer: Tokenizer) -> None:
    asking = {**body("content", 1), "logprobs": True}
    for told, share, expected in (
        (asking, 0.0, True),
        (body("content", 1), 0.0, False),
        (body("content", 1), 1.0, True),
    ):
        job = asyncio.run(build({**told, "n": 3}, tokenizer, share))
        assert [ask.logprobs for ask in job.asks] == [expected] * 3
    job = asyncio.run(build(body("content", 1), tokenizer, 0.5))
    assert job.asks[0].logprobs is request_job.is_logprob_sampled(job.head.id, 0.5)


def test_a_completion_asks_for_them_with_a_number(tokenizer: Tokenizer) -> None:
    told = {"model": "m", "prompt": ["one", "two"]}
    for asking, expected in (({}, False), ({"logprobs": 0}, True), ({"logprobs": 1}, True)):
        job = asyncio.run(build({**told, **asking}, tokenizer, 0.0, requests.CompletionRequest))
        assert [ask.logprobs for ask in job.asks] == [expected] * 2
    job = asyncio.run(build(told, tokenizer, 0.5, requests.CompletionRequest))
    assert [ask.logprobs for ask in job.asks] == [request_job.is_logprob_sampled(job.head.id, 0.5)] * 2


def test_an_answer_without_logprobs_has_no_mean(tokenizer: Tokenizer) -> None:
    for share, nats, expected in ((0.0, [], None), (1.0, [-0.5, -1.5], -1.0)):
        job = asyncio.run(build(body("content", 1), tokenizer, share))
        assert job.mean_logprob is None  # no token yet
        job.answers[0].feed(TokenChunk([5, 6], nats, "length"))
        assert (job.completion_tokens, job.mean_logprob) == (2, expected)


def test_ids_of_tool_calls_differ_between_answers_and_not_within_one(tokenizer: Tokenizer) -> None:
    job = asyncio.run(build({**body("tools", 12), "n": 2}, tokenizer))
    for answer in job.answers:
        answer.parts.append('<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>' * 2)
    ids = [[call["id"] for call in answer.choice(calls=True).calls] for answer in job.answers]
    assert len({*ids[0], *ids[1]}) == 4
    assert all(re.fullmatch("[0-9a-z]{9}", name) for name in ids[0])
    assert [call["id"] for call in job.answers[0].choice(calls=True).calls] == ids[0]  # a stream asks twice


def test_only_a_schema_that_the_engine_refuses_is_the_clients_fault(tokenizer: Tokenizer) -> None:
    schema = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}}

    def fails(end: FinishReason, **more: Any) -> int:
        job = asyncio.run(build({**body("content", 1), **more}, tokenizer))
        task = generation_task.GenerationTask(job, SimpleNamespace(), SimpleNamespace())
        with pytest.raises(ApiError) as error:
            task._refuse(TokenChunk([], [], end, "why"))
        return error.value.status

    assert fails("refused", response_format=schema) == 400
    assert fails("failed", response_format=schema) == 500
    assert fails("refused") == 500
    assert fails("failed") == 500


ONE_CALL = '<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>'


def test_a_client_that_takes_one_call_gets_one(tokenizer: Tokenizer) -> None:
    for taken, expected in ((None, 2), (True, 2), (False, 1)):
        job = asyncio.run(build({**body("tools", 12), "parallel_tool_calls": taken}, tokenizer))
        job.answers[0].parts.append(ONE_CALL * 2)
        choice = job.answers[0].choice(calls=True)
        assert (len(choice.calls), choice.finish) == (expected, "tool_calls")


def test_a_top_p_of_0_is_greedy(tokenizer: Tokenizer) -> None:
    (ask,) = asyncio.run(build({**body("content", 1), "temperature": 0.7, "top_p": 0}, tokenizer)).asks
    assert (ask.temperature, ask.top_p) == (0.0, 1.0)
    (ask,) = asyncio.run(build({**body("content", 1), "temperature": 0.7, "top_p": 0.5}, tokenizer)).asks
    assert (ask.temperature, ask.top_p) == (0.7, 0.5)


def test_tools_are_refused_where_the_calls_could_not_be_read(tokenizer: Tokenizer) -> None:
    told = {**body("content", 1), "tools": [{"type": "function", "function": {"name": "f"}}]}
    other = "{% for message in messages %}{% for call in message['tool_calls'] or [] %}[TOOL_CALLS]{{ call | tojson }}{% endfor %}{% endfor %}"
    with pytest.raises(ApiError, match="its chat template writes tool calls in another format") as error:
        asyncio.run(build(told, tokenizer, source=other))
    assert (error.value.status, error.value.fault.param) == (400, "tools")
    asyncio.run(build({**told, "tool_choice": "none"}, tokenizer, source=other))


ANSWERS = st.lists(
    st.sampled_from([ONE_CALL, "<tool_call>", "</tool_call>", "<tool", "a < b", " \n", "Let me look.", "<"]), max_size=6
)


@given(ANSWERS, st.lists(st.integers(0, 120), max_size=8))
def test_a_stream_sends_text_before_its_calls_as_it_comes(pieces: list[str], cuts: list[int]) -> None:
    whole = "".join(pieces)
    bounds = sorted({0, *(min(cut, len(whole)) for cut in cuts), len(whole)})
    answer = request_job.GeneratedAnswer(SimpleNamespace(), SimpleNamespace(), wants=False)
    sent = ""
    for start, end in itertools.pairwise(bounds):
        answer.parts.append(whole[start:end])
        sent += answer.take_sendable_text(whole[start:end])
        seen = whole[:end]
        assert seen.startswith(sent)
        if "<" not in seen:
            assert sent == seen.rstrip()  # nothing waits without a reason
    choice = answer.choice(calls=True)
    assert "<tool_call>" not in sent
    assert answer.letters_sent == len(sent)
    assert choice.text.startswith(sent)


@pytest.mark.parametrize("kind", ["content", "tools", "calls"])
def test_a_long_request_does_not_work_on_the_loop(tokenizer: Tokenizer, kind: str) -> None:
    seen = Recorded(tokenizer)
    asyncio.run(build(body(kind), seen))
    assert seen.thread not in (None, threading.main_thread())
    asyncio.run(build(body(kind, 12), seen))
    assert seen.thread is threading.main_thread()


def test_the_tokenizer_lets_others_work(tokenizer: Tokenizer) -> None:
    text = WORDS * TIMES * 4
    gaps: list[float] = []
    done = threading.Event()

    def tick() -> None:
        last = time.perf_counter()
        while not done.is_set():
            time.sleep(0.002)
            now = time.perf_counter()
            gaps.append(now - last)
            last = now

    ticker = threading.Thread(target=tick)
    ticker.start()
    begun = time.perf_counter()
    tokenizer.ids(text)
    took = time.perf_counter() - begun
    done.set()
    ticker.join()
    assert max(gaps) < took / 2


@given(st.text() | st.text(alphabet="aeinorst <|im_start|>\n"))
def test_ids_are_those_of_encode(tokenizer: Tokenizer, text: str) -> None:
    assert tokenizer.ids(text) == tokenizer.encode([text])[0].ids
    assert tokenizer.ids(text) == tokenizer._inner.encode(text, add_special_tokens=False).ids
