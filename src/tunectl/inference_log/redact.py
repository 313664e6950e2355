"""Mask personal data in inferences and feedback before they are written.

Placeholders are those of ``curate`` (``privacy/mask.py``), so that masking does not look like drift. Request and answer of
one inference share them: what was ``[EMAIL_1]`` in the question is ``[EMAIL_1]`` in the answer.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from threading import Lock
from typing import Any, Final

from msgspec.structs import replace

from tunectl.artifacts.records import Feedback, InferenceRecord
from tunectl.core import logging_setup
from tunectl.inference_log.log_store import FinishedRequest, LogEntry
from tunectl.inference_log.pseudonyms import pseudonymize
from tunectl.privacy.mask import PiiMasker, PlaceholderMap
from tunectl.privacy.structured import ValueMasker, iterate_texts

IDENTIFIERS: Final = frozenset(("user", "safety_identifier", "prompt_cache_key"))
"""Keys of a request that name a person; ``user_hash`` replaces them."""
SESSION: Final = "session"
"""Key of a request's metadata that names a conversation; the hashed ``session`` of the inference replaces it."""
SERVER_CHECKED_KEYS: Final = frozenset(("model", "seed"))
"""Keys of a request whose values the server offers or validates: they are no text of people."""
SERVER_KEYS: Final = frozenset(("id", "object", "model", "system_fingerprint", "created"))
"""Keys of an answer that the server writes itself."""
TOKEN_KEYS: Final = frozenset(("logprobs", "prompt_logprobs", "token_ids", "prompt_token_ids"))
"""Keys with the text in tokens, which the detection cannot read: they are left out."""
TOKENS: Final = "[TOKENS]"
"""Replaces a prompt that came as token ids."""
UNREAD: Final = "[UNREAD]"
"""Replaces a text on which masking failed: the row is logged without it."""
MAX_RUNNING: Final = 10_000
"""Number of running inferences whose placeholders are kept; far more than a server runs."""


class Redactor:
    """Masks personal data in inferences and feedback before they are stored. Thread-safe."""

    def __init__(self, masker: PiiMasker, hash_key: bytes, on_error: Callable[[int], None] = lambda _: None) -> None:
        """``hash_key``: key of the HMAC that replaces user and session ids (``inference_log/pseudonyms.py``).

        ``on_error`` is called with the number of further texts that are left out of the log because masking failed on them.
        """
        self._masker, self._hash_key, self._on_error = masker, hash_key, on_error
        self._running: OrderedDict[str, PlaceholderMap] = OrderedDict()
        self._lock = Lock()

    def __call__(self, entry: LogEntry) -> LogEntry:
        """Return the entry without personal data; a clean one is returned unchanged."""
        if isinstance(entry, InferenceRecord):
            return self._redact_inference(entry)
        if isinstance(entry, FinishedRequest):
            return self._redact_finished_request(entry)
        return self._redact_feedback(entry)

    def _redact_inference(self, entry: InferenceRecord) -> InferenceRecord:
        memory = PlaceholderMap()
        for text in iterate_texts([entry.request, entry.response]):
            memory.reserve(text)
        if entry.finished_at is None:
            self._remember(entry.id, memory)
        request = self._body(entry.request, SERVER_CHECKED_KEYS, memory)
        return replace(entry, request=request, response=self._body(entry.response, SERVER_KEYS, memory))

    def _redact_finished_request(self, entry: FinishedRequest) -> FinishedRequest:
        with self._lock:
            memory = self._running.pop(entry.id, None) or PlaceholderMap()
        for text in iterate_texts(entry.finish.response):
            memory.reserve(text)
        return replace(
            entry, finish=replace(entry.finish, response=self._body(entry.finish.response, SERVER_KEYS, memory))
        )

    def _redact_feedback(self, entry: Feedback) -> Feedback:
        memory = PlaceholderMap()
        for text in iterate_texts(entry.value):
            memory.reserve(text)
        if entry.kind != "preference":  # which holds a choice and the id of an inference, that the store must know
            entry = replace(entry, value=self._masks(memory)(entry.value))
        is_personal = self._masks(memory)(entry.id) != entry.id  # clients make ids out of whatever they have
        return replace(entry, id=f"fb-{pseudonymize(entry.id, self._hash_key)}") if is_personal else entry

    def _remember(self, name: str, memory: PlaceholderMap) -> None:
        with self._lock:
            self._running[name] = memory
            if len(self._running) > MAX_RUNNING:
                self._running.popitem(last=False)

    def _body(
        self, body: dict[str, Any] | None, trusted: frozenset[str], memory: PlaceholderMap
    ) -> dict[str, Any] | None:
        if body is None:
            return None
        masks = self._masks(memory)
        return {
            masks(key): value if key in trusted and _plain(value) else _mask_field(key, value, masks)
            for key, value in body.items()
            if key not in IDENTIFIERS | TOKEN_KEYS
        }

    def _masks(self, memory: PlaceholderMap) -> ValueMasker:
        """Return what masks the values of one row; a text on which that fails is left out."""

        def mask(texts: Sequence[str]) -> list[str]:
            try:
                return [masked.text for masked in self._masker.mask_parts(texts, memory)]
            except Exception as error:  # noqa: BLE001  whatever it is, the row must not be missing from the log for it
                logging_setup.get_logger(__name__).error(
                    "a text is left out of a row: masking it failed: %s", type(error).__name__
                )
                self._on_error(len(texts))
                return [UNREAD] * len(texts)

        return ValueMasker(mask, TOKEN_KEYS)


def _mask_field(key: str, value: Any, masks: ValueMasker) -> Any:
    if key == "prompt" and isinstance(value, list) and not all(isinstance(item, str) for item in value):
        return TOKENS
    if key == "messages" and isinstance(value, list):
        value = [_nameless(turn) for turn in value]
    if key == "metadata" and isinstance(value, dict):
        value = {name: item for name, item in value.items() if name != SESSION}
    return masks(value, key)


def _plain(value: Any) -> bool:
    """Return whether a top-level value of a body can be a name or a number of ours: not nested, short, and no address."""
    if isinstance(value, str):
        return len(value) <= 200 and "@" not in value and not value[:1].isspace()
    return value is None or isinstance(value, int)


def _nameless(turn: Any) -> Any:
    """Return a turn without the speaker's name; a tool's own name is kept."""
    if not isinstance(turn, dict) or turn.get("role") in ("tool", "function"):
        return turn
    return {key: value for key, value in turn.items() if key != "name"}
