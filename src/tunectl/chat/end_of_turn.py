"""Find the token that ends a turn, from the template."""

from __future__ import annotations

from tunectl.artifacts.records import Message
from tunectl.chat.model_spec import SpecialToken
from tunectl.chat.template import Template
from tunectl.chat.tokenizer import Tokenizer
from tunectl.core.errors import UsageError

_QUESTION, _ANSWER = "What is it?", "It is it."
_HINT = "declare it: model.eot_token=<a token of the tokenizer>, or take another template: model.chat_template="


def find_eot_token(template: Template, tokenizer: Tokenizer, declared_token: str | None) -> SpecialToken:
    """Return the token that closes an answer: ``declared_token``, or the special token that the template writes after an answer.

    Raises  UsageError when the template writes none, or the declared text is not one token.
    """
    if declared_token is not None:
        number = tokenizer.id_of(declared_token)
        if number is None:
            raise UsageError(
                f"model.eot_token = {declared_token!r} is not a token of this tokenizer",
                hint="look into tokenizer.json: added_tokens",
            )
        return SpecialToken(declared_token, number)
    text = template.render([Message("user", _QUESTION), Message("assistant", _ANSWER)])
    tail = text[text.rindex(_ANSWER) + len(_ANSWER) :] if _ANSWER in text else ""
    (encoded,) = tokenizer.encode([tail])
    for number in encoded.ids:
        if number in tokenizer.special:
            return SpecialToken(tokenizer.text_of([number]), number)
    raise UsageError(
        f"the chat template writes no special token behind an answer, only {tail!r}: a model tuned with it would never stop",
        hint=_HINT,
    )
