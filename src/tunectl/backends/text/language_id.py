"""Wrapper of py3langid: which language a text is in, without a network."""

from __future__ import annotations

from collections.abc import Callable

from tunectl.core.errors import ConfigError
from tunectl.core.optional import import_optional

Guess = tuple[str, float]


def make_detector(allowed: list[str]) -> Callable[[str], Guess]:
    """Return a function from text to (likeliest ISO 639-1 code, confidence from 0 to 1).

    For a code in ``allowed``, the confidence is the probability that the text is in any of ``allowed``; for another code, that it
    is in none of them: a text that may be Spanish or Galician is surely not English.

    Raises  ConfigError when one of ``allowed`` is a language that the model does not know.
    """
    langid = import_optional("py3langid.langid", extra="data")
    model = langid.LanguageIdentifier.from_model_file(langid.MODEL_FILE, norm_probs=True)
    languages = sorted(model.labels)
    unknown = [code for code in allowed if code not in languages]
    if unknown:
        raise ConfigError(
            [f"curate.language.allowed holds {', '.join(unknown)}; known languages are {', '.join(languages)}"],
            hint=f"replace {', '.join(unknown)} by some of these (ISO 639-1), or remove it",
        )

    def guess(text: str) -> Guess:
        ranked = model.rank(text)
        inside = min(1.0, sum(share for code, share in ranked if code in allowed))
        code = str(ranked[0][0])
        return code, float(inside if code in allowed else 1.0 - inside)

    return guess
