"""One conversation with a loaded model; answers are shown while they are generated."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tunectl.backends.modeling import model_loader
from tunectl.chat.literal_tokens import encode_rendered
from tunectl.config.schema.hardware import HardwareProfile
from tunectl.core.optional import import_optional


class ChatSession:
    """A model in memory for ``tunectl chat``: answers one rendered prompt at a time, and streams the text."""

    def __init__(self, folder: Path, adapter: Path | None, profile: HardwareProfile, *, end_of_turn: int) -> None:
        """Load the model of ``folder``, with ``adapter`` merged in where there is one."""
        loaded = model_loader.load(folder, adapter=adapter, profile=profile)
        self._model = loaded.model.merge_and_unload() if adapter is not None else loaded.model
        self._tokenizer = loaded.tokenizer
        self._end = end_of_turn

    def answer(self, prompt: str, *, max_new_tokens: int, temperature: float, on_text: Callable[[str], None]) -> str:
        """Return the answer to the rendered ``prompt``; ``on_text`` gets each piece of text once its words are complete.

        ``temperature`` 0 takes the likeliest token each time.
        """
        torch = import_optional("torch", extra="train")
        inputs = self._encode(prompt)
        sampling: dict[str, Any] = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
        if temperature > 0:
            sampling = {"do_sample": True, "temperature": temperature}
        with torch.inference_mode():
            out = self._model.generate(
                **inputs,
                max_new_tokens=max_new_tokens,
                eos_token_id=self._end,
                pad_token_id=self._end,
                streamer=_streamer(self._tokenizer, on_text),
                **sampling,
            )
        text: str = self._tokenizer.decode(out[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        return text

    def _encode(self, prompt: str) -> Any:
        torch = import_optional("torch", extra="train")
        own = self._tokenizer([prompt], add_special_tokens=False)["input_ids"]
        ids = torch.tensor(encode_rendered(self._tokenizer.backend_tokenizer, [prompt], own))
        return {"input_ids": ids.to(self._model.device), "attention_mask": torch.ones_like(ids).to(self._model.device)}


def _streamer(tokenizer: Any, on_text: Callable[[str], None]) -> Any:
    transformers = import_optional("transformers", extra="train")

    class Streamer(transformers.TextStreamer):  # type: ignore[name-defined]
        """Pass finished text to the callback."""

        def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
            """Print text that is final; transformers calls this."""
            on_text(text)

    return Streamer(tokenizer, skip_prompt=True, skip_special_tokens=True)
