"""The seam of py3langid: which language a text is in, without a network."""

from __future__ import annotations

from collections.abc import Callable

from tunectl.core.errors import ConfigError
from tunectl.core.lazy import need

Guess = tuple[str, float]


def guesser(allowed: list[str]) -> Callable[[str], Guess]:
    """A function from text to (ISO 639-1 code, confidence from 0 to 1).

    Raises  ConfigError when one of ``allowed`` is a language that the model does not know.
    """
    langid = need("py3langid.langid", extra="data")
    model = langid.LanguageIdentifier.from_model_file(langid.MODEL_FILE, norm_probs=True)
    known = sorted(model.labels)
    unknown = [code for code in allowed if code not in known]
    if unknown:
        raise ConfigError(
            [f"curate.language.allowed holds {', '.join(unknown)}; known languages are {', '.join(known)}"]
        )

    def guess(text: str) -> Guess:
        code, confidence = model.classify(text)
        return str(code), float(confidence)

    return guess
