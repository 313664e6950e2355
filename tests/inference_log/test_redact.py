"""Nothing personal gets into the inference log; what is clean stays as it was."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
from datetime import timedelta
from urllib.parse import quote

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from inference_rows import START, finish, inference, thumb
from msgspec.structs import replace

from tunectl.backends.storage.inference_log_sql import open_log
from tunectl.backends.text import pii_resources
from tunectl.inference_log.log_store import FinishedRequest
from tunectl.inference_log.log_writer import Writer
from tunectl.inference_log.redact import TOKENS, UNREAD, Redactor
from tunectl.privacy.decoded_text import decode_text
from tunectl.privacy.mask import PiiMasker

SALT = b"0123456789abcdef"
CANARIES = [
    "wanda.kanarie@example.org",
    "+1 415 555 2671",
    "4111 1111 1111 1111",
    "DE89370400440532013000",
    "203.0.113.77",
    "Wanda Thompson",
    "123 Main Street",
    "https://wanda:geheim77@example.org/a",
]
SAID = "I am Wanda Thompson, 123 Main Street, wanda.kanarie@example.org, call +1 415 555 2671. " + " ; ".join(
    CANARIES[2:]
)


@pytest.fixture(scope="module")
def masker():
    return PiiMasker(pii_resources.tools(regions=["US"], locales=["en_US"]))


def body():
    return {
        "model": "champion",
        "user": "wanda.kanarie@example.org",
        "safety_identifier": "wanda.kanarie@example.org",
        "seed": 4155552671,
        "metadata": {"wanda.kanarie@example.org": "x", "card": 4111111111111111, "float": 4111111111111111.0},
        "stop": ["wanda.kanarie@example.org"],
        "messages": [
            {"role": "system", "content": SAID},
            {"role": "user", "name": "wanda", "content": [{"type": "text", "text": SAID}]},
            {
                "role": "assistant",
                "tool_calls": [
                    {
                        "id": "call_1",
                        "type": "function",
                        "function": {"name": "mail", "arguments": f'{{"to": "{CANARIES[0]}"}}'},
                    }
                ],
            },
            {"role": "tool", "tool_call_id": "call_1", "content": SAID},
        ],
    }


def answer():
    message = {"role": "assistant", "content": f"Dear Wanda Thompson, I wrote to {CANARIES[0]} and bob@example.org."}
    spelled = [{"token": piece, "logprob": -0.1, "bytes": list(piece.encode())} for piece in ("wanda.", "kanarie@ex")]
    return {
        "id": "chatcmpl-4155552671",
        "created": 1772366400,
        "choices": [{"index": 0, "message": message, "logprobs": {"content": spelled}, "finish_reason": "stop"}],
    }


def squeezed(text):
    return re.sub(r"[^a-z0-9@]", "", text.casefold())


def test_canaries_are_nowhere(masker, tmp_path, caplog):
    caplog.set_level(logging.DEBUG)

    async def talk(store):
        writer = Writer(store, Redactor(masker, SALT), policy="refuse", timeout_seconds=60, waiting=100)
        await writer.accept(inference(request=body()))
        await writer.finish("chatcmpl-000000", finish(response=answer()))
        await writer.feedback(thumb(kind="edit", value=SAID))
        await writer.feedback(thumb(kind="click", value=CANARIES[0], id="click"))
        assert writer.close()

    with open_log("sqlite:///a.sqlite", tmp_path) as store:
        asyncio.run(talk(store))
        found = store.inference("chatcmpl-000000")
        files = "".join(path.read_bytes().decode("utf-8", "replace") for path in tmp_path.iterdir())
    for canary in CANARIES:
        assert squeezed(canary) not in squeezed(files), canary
        assert squeezed(canary) not in squeezed(caplog.text), canary
    assert "geheim77" not in files
    # the answer has the placeholders of the question, and a new one for what is new
    asked = found.request["messages"][1]["content"][0]["text"]
    assert asked.startswith("I am [PERSON_1], [ADDRESS_1], [EMAIL_1], call [PHONE_1]. ")
    choice = found.response["choices"][0]
    assert choice["message"]["content"] == "Dear [PERSON_1], I wrote to [EMAIL_1] and [EMAIL_2]."
    assert "logprobs" not in choice
    assert found.request["messages"][2]["tool_calls"][0]["function"] == {
        "name": "mail",
        "arguments": '{"to": "[EMAIL_1]"}',
    }
    assert "user" not in found.request
    assert found.request["metadata"] == {"[EMAIL_1]": "x", "card": "[CARD_1]", "float": "[CARD_1]"}
    assert (found.response["id"], found.request["seed"]) == ("chatcmpl-4155552671", 4155552671)


def write_every_way(text):
    """``text`` as programs pass it on: JSON in strings, parameters of URLs, HTML, Markdown, other signs."""
    return [
        json.dumps({"note": f"Hello,\n{text}\nBye"}),
        json.dumps({"result": json.dumps({"inner": [text]})}),
        f"https://example.org/?q={quote(text)}&page=2",
        f"<p>{''.join(f'&#{ord(letter)};' for letter in text)}</p>",
        f"_{text}_",
        text.translate({code: code + 0xFEE0 for code in range(0x21, 0x7F)} | {0x20: 0x3000}),
        "\u200b".join(text),
    ]


@pytest.mark.parametrize(
    "canary",
    [*CANARIES[:5], "I am Wanda Thompson", CANARIES[6], "key AKIAIOSFODNN7EXAMPLE", "Bearer tk-4155552671abcdefghij"],
)
def test_canaries_are_nowhere_however_they_are_written(masker, tmp_path, canary):
    forms = write_every_way(canary)
    calls = [{"id": "c", "type": "function", "function": {"name": "f", "arguments": form}} for form in forms]
    turns = [{"role": "assistant", "tool_calls": calls}, *({"role": "tool", "content": form} for form in forms)]
    given = {"messages": turns, "metadata": {"forms": forms}, "tools": [{"function": {"description": forms[0]}}]}
    said = [{"index": 0, "message": {"role": "assistant", "content": form, "tool_calls": calls}} for form in forms]

    async def talk(store):
        writer = Writer(store, Redactor(masker, SALT), policy="refuse", timeout_seconds=60, waiting=100)
        await writer.accept(inference(request=given))
        await writer.finish("chatcmpl-000000", finish(response={"choices": said}))
        for number, form in enumerate(forms):
            await writer.feedback(thumb(kind="edit", value=form, id=f"fb-{number}"))
        assert writer.close()

    with open_log("sqlite:///a.sqlite", tmp_path) as store:
        asyncio.run(talk(store))
        found = store.inference("chatcmpl-000000")
        files = "".join(path.read_bytes().decode("utf-8", "replace") for path in tmp_path.iterdir())
    secret = squeezed(canary.split(" ", 1)[-1] if canary[0] in "IkB" else canary).removeprefix("am")
    assert secret not in squeezed(decode_text(files).text)
    kept = found.response["choices"][0]["message"]["tool_calls"][0]["function"]["arguments"]
    assert json.loads(kept)["note"].startswith("Hello,\n")  # JSON is JSON still


DENSE = {"iban": "DE12 " + "A1B2 " * 7, "address": "1 Aa St, " + "Aa, " * 4, "phone": "tel 0 1 2 3 4 5 6 7 "}


@pytest.mark.slow
def test_text_that_takes_seconds_to_mask_delays_no_other_key(masker, tmp_path):
    """Rows as large as one request may be, which cost this thread 2 to 5 s each when they were found to starve the others."""

    async def talk(writer):
        started, waits = time.monotonic(), []
        hostile = [
            asyncio.create_task(
                writer.accept(
                    inference(
                        number,
                        request={"messages": [{"role": "user", "content": text * (300_000 // len(text))}]},
                        key_hash="hostile",
                    )
                )
            )
            for number, text in enumerate(DENSE.values())
        ]
        number = 1000
        while not all(task.done() for task in hostile):
            asked = time.monotonic()
            assert await writer.accept(inference(number, key_hash="honest"))
            waits.append(time.monotonic() - asked)
            assert await writer.finish(inference(number).id, finish(number), "honest")
            await asyncio.sleep(0.05)
            number += 1
        assert all(task.result() for task in hostile)
        return max(waits), time.monotonic() - started

    with open_log("sqlite:///a.sqlite", tmp_path) as store:
        writer = Writer(store, Redactor(masker, SALT), policy="refuse", timeout_seconds=60, waiting=100)
        longest, all_of_it = asyncio.run(talk(writer))
        assert writer.close()
    assert longest < all_of_it / 4, "it waited for no row of the other key, let alone for all three"


class BreakingMasker(PiiMasker):
    def find(self, text):
        if "broken" in text:
            raise ValueError(text)
        return super().find(text)


def test_a_text_on_which_masking_fails_is_left_out_and_counted_and_the_row_is_kept(masker, tmp_path, caplog):
    errors = []
    redact = Redactor(BreakingMasker(masker.tools), SALT, errors.append)
    said = [{"role": "user", "content": text} for text in ("broken", "write to wanda.kanarie@example.org")]

    async def talk(store):
        writer = Writer(store, redact, policy="refuse", timeout_seconds=60, waiting=100)
        assert await writer.accept(inference(request={"messages": said, "metadata": {"broken key": 1}}))
        assert await writer.feedback(thumb(id="broken id"))
        assert writer.close()

    with open_log("sqlite:///a.sqlite", tmp_path) as store:
        asyncio.run(talk(store))
        found = store.inference("chatcmpl-000000")
    assert [turn["content"] for turn in found.request["messages"]] == [UNREAD, "write to [EMAIL_1]"]
    assert found.request["metadata"] == {UNREAD: 1}
    assert errors == [1, 1, 1]
    assert "masking it failed: ValueError" in caplog.text
    assert "broken" not in caplog.text


def test_a_value_in_two_parts_of_a_message_is_masked(masker):
    """The model reads parts as one text, and so does whoever reads the log."""
    for whole in (*CANARIES, "AKIAIOSFODNN7EXAMPLE", "my password: Tr0ub4dor77"):
        for cut in range(1, len(whole)):
            parts = [{"type": "text", "text": text} for text in (f"so: {whole[:cut]}", f"{whole[cut:]}, ok")]
            kept = Redactor(masker, SALT)(inference(request={"messages": [{"role": "user", "content": parts}]})).request
            assert squeezed(whole) not in squeezed("".join(part["text"] for part in kept["messages"][0]["content"]))
    errors = []
    split = [{"type": "text", "text": "bro"}, {"type": "text", "text": "ken"}]
    row = inference(request={"messages": [{"role": "user", "content": split}]})
    kept = Redactor(BreakingMasker(masker.tools), SALT, errors.append)(row).request["messages"][0]["content"]
    assert ([part["text"] for part in kept], errors) == ([UNREAD, UNREAD], [2])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("password", "Tr0ub4dor77"),
        ("first_name", "Amarachukwu"),
        ("ssn", "123456789"),
        ("ssn", 123456789),
        ("api_key", "k9f8s7d6f5g4h3"),
    ],
)
def test_the_key_of_an_object_says_what_its_value_is(masker, key, value):
    call = {"type": "function", "function": {"name": "Lookup", "arguments": {key: value}}}
    given = {"messages": [{"role": "assistant", "tool_calls": [call]}], "metadata": {key: value}, key: value}
    kept = Redactor(masker, SALT)(inference(request=given)).request
    text = Redactor(masker, SALT)(inference(request={"prompt": json.dumps({key: value})})).request["prompt"]
    assert kept["metadata"] == {key: kept[key]} == json.loads(text)
    assert kept["messages"][0]["tool_calls"][0]["function"] == {"name": "Lookup", "arguments": {key: kept[key]}}
    assert str(value) not in json.dumps(kept)
    assert Redactor(masker, SALT)(thumb(kind="edit", value={key: value})).value == {key: kept[key]}


def test_a_prompt_of_token_ids_is_not_kept(masker):
    redact = Redactor(masker, SALT)
    for prompt in ([101, 7, 9], [[1, 2], [3]]):
        assert redact(inference(request={"prompt": prompt})).request == {"prompt": TOKENS}
    texts = ["write to wanda.kanarie@example.org", "hello"]
    assert redact(inference(request={"prompt": texts})).request == {"prompt": ["write to [EMAIL_1]", "hello"]}


def test_an_address_in_the_place_of_a_model_is_masked(masker):
    assert Redactor(masker, SALT)(inference(request={"model": CANARIES[0]})).request == {"model": "[EMAIL_1]"}


@pytest.mark.parametrize(
    "made_up",
    [
        {CANARIES[0]: 1},
        {"id": CANARIES[5]},
        {"object": {"to": CANARIES[0], "call": [CANARIES[1]]}},
        {"system_fingerprint": CANARIES[6]},
        {"created": f"card {CANARIES[2]}"},
        {"model": [SAID]},
    ],
)
def test_what_a_client_makes_up_is_masked_wherever_it_stands(masker, made_up):
    kept = msgspec.json.encode(Redactor(masker, SALT)(inference(request={"model": "shop", **made_up})).request).decode()
    assert "_1]" in kept
    for canary in CANARIES:
        assert squeezed(canary) not in squeezed(kept)


def test_names_of_people_and_conversations_are_left_out(masker):
    turns = [
        {"role": "user", "name": "wanda", "content": "mail it"},
        {"role": "tool", "name": "mail", "content": "done"},
    ]
    given = {"metadata": {"session": "wanda on Monday", "page": 3}, "messages": turns}
    assert Redactor(masker, SALT)(inference(request=given)).request == {
        "metadata": {"page": 3},
        "messages": [{"role": "user", "content": "mail it"}, turns[1]],
    }


def test_an_id_that_is_personal_is_hashed_and_counts_once_still(masker):
    redact, other = Redactor(masker, b"a" * 16), Redactor(masker, b"b" * 16)
    names = [redact(thumb(id=name)).id for name in (CANARIES[0], CANARIES[0], "bob@example.org", "fb-0")]
    assert names[0] == names[1] != names[2]
    assert re.fullmatch(r"fb-[0-9a-f]{32}", names[0])
    assert names[3] == "fb-0"
    assert other(thumb(id=CANARIES[0])).id != names[0]


def test_placeholders_that_came_in_keep_their_numbers(masker):
    redact = Redactor(masker, SALT)
    keys = redact(inference(request={"metadata": {"[EMAIL_1]": 1, "wanda.kanarie@example.org": 2}}))
    assert keys.request == {"metadata": {"[EMAIL_1]": 1, "[EMAIL_2]": 2}}
    first = redact(inference(request={"messages": [{"content": "[EMAIL_1] and wanda.kanarie@example.org"}]}))
    assert first.request == {"messages": [{"content": "[EMAIL_1] and [EMAIL_2]"}]}


CLEAN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-999_999, 999_999)
    | st.floats(-999_999, 999_999)
    | st.floats(1e20)
    | st.text("xyz ?!\n", max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("xyz", max_size=4), inner, max_size=3),
    max_leaves=12,
)


@settings(deadline=None, max_examples=50)
@given(st.dictionaries(st.text("abc", max_size=4), CLEAN, max_size=4))
def test_clean_bodies_stay_and_masking_twice_is_masking_once(masker, clean):
    redact = Redactor(masker, SALT)
    one = inference(request=clean)
    assert redact(one) == one
    assert redact(FinishedRequest(one.id, finish(response=clean))).finish.response == clean
    dirty = {**clean, "messages": [{"content": SAID}]}
    once = redact(inference(request=dirty))
    assert redact(once) == once


def test_records_survive_json():
    for row in (inference(), replace(inference(), finished_at=START + timedelta(seconds=2)), thumb()):
        assert msgspec.json.decode(msgspec.json.encode(row), type=type(row)) == row
