"""Render a conversation through a chat template, without transformers: sandboxed Jinja, with the same settings and result.

Where a template marks what the assistant generates (``{% generation %} ... {% endgeneration %}``), the positions of those
parts are returned beside the text.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec

from tunectl.artifacts.records import Message
from tunectl.chat import literal_tokens, model_spec, tool_calls
from tunectl.chat.model_spec import SpecialToken
from tunectl.chat.tokenizer import Tokenizer
from tunectl.core.errors import ArtifactError, DataError, UsageError
from tunectl.core.optional import import_optional

FILE = "chat_template.jinja"
OPEN, CLOSE = "\ufdd0", "\ufdd1"
"""Unicode noncharacters that surround generated parts while a template runs, and are removed afterwards."""

_PROBE = "tunectl_probe"
"""Name of a tool that no template mentions."""


@dataclass(frozen=True)
class RenderedChat:
    """A conversation as text, and the [start, end) positions in it that the template marks as generated."""

    text: str
    generated: tuple[tuple[int, int], ...]


class TemplateRefusedError(DataError):
    """The chat template does not render this conversation; others it may."""


@dataclass(frozen=True)
class Template:
    """A chat template (Jinja) with the special tokens and system text that it uses."""

    source: str
    """Jinja text."""
    bos: str = ""
    eos: str = ""
    system: str | None = None
    """Put before conversations without a system message; None leaves that to the template."""
    extra: dict[str, str] = field(default_factory=dict)
    """Other special tokens by name, for example ``pad_token``."""
    special: tuple[str, ...] = ()
    """Texts of all special tokens: in messages and tools each is broken by a guard, so that it stays text."""

    @property
    def marks_generation(self) -> bool:
        """Whether the template marks generated text (``{% generation %}``)."""
        return "endgeneration" in self.source

    @cached_property
    def renders_tool_calls(self) -> bool:
        """Whether the template writes tool calls itself, tested by rendering one."""
        return _PROBE in self._rendered_call

    @cached_property
    def renders_other_tool_calls(self) -> bool:
        """Whether the template writes tool calls itself, in a format that ``chat.tool_calls`` does not read."""
        return self.renders_tool_calls and not tool_calls.contains_call(self._rendered_call, _PROBE)

    @cached_property
    def renders_tools(self) -> bool:
        """Whether the template writes the tools on offer itself, tested by rendering one."""
        shape = {"type": "object", "properties": {"of": {"type": "string"}}, "required": ["of"]}
        tool = {"name": _PROBE, "description": "It", "parameters": shape}
        return _PROBE in self._try_write([Message("user", "What is it?")], [{"type": "function", "function": tool}])

    def render(
        self,
        messages: Sequence[Message],
        *,
        add_generation_prompt: bool = False,
        tools: Sequence[dict[str, Any]] = (),
    ) -> str:
        """Return the text that the model reads; ``add_generation_prompt`` opens the assistant's turn at its end."""
        return self.render_marked(messages, add_generation_prompt=add_generation_prompt, tools=tools).text

    def render_marked(
        self,
        messages: Sequence[Message],
        *,
        add_generation_prompt: bool = False,
        tools: Sequence[dict[str, Any]] = (),
    ) -> RenderedChat:
        """Return the conversation as text with the positions of its generated spans.

        Tool calls, their results and the tools on offer are written as text where the template writes none (``chat.tool_calls``).
        Raises  TemplateRefusedError when the template refuses the conversation, with the template's own message.
        """
        prepared = self._inline_tools(self.with_system(messages), tools)
        jinja = import_optional("jinja2", extra="train")
        try:
            text = self._write(prepared, tools, add_generation_prompt=add_generation_prompt)
        except (jinja.TemplateError, TypeError) as error:
            roles = ", ".join(message.role for message in prepared)
            raise TemplateRefusedError(
                f"the chat template refuses a conversation of {roles}: {error}",
                hint="change the roles in the data, or choose another model.chat_template",
            ) from error
        return _unmark(text)

    def try_render(self, messages: Sequence[Message]) -> str | None:
        """Return the text up to where an answer begins; None where the template refuses the conversation."""
        try:
            return self.render(messages, add_generation_prompt=True)
        except TemplateRefusedError:
            return None

    def _inline_tools(self, messages: list[Message], offered: Sequence[dict[str, Any]]) -> list[Message]:
        called = any(message.tool_calls or message.role == "tool" for message in messages)
        if not called and not offered:
            return messages
        return tool_calls.inline_tools(
            messages,
            offered,
            own_calls=not called or self.renders_tool_calls,
            own_tools=not offered or self.renders_tools,
        )

    def _write(
        self, messages: Sequence[Message], offered: Sequence[dict[str, Any]], *, add_generation_prompt: bool
    ) -> str:
        text: str = self._compiled.render(
            messages=[literal_tokens.guard_value(_plain(message), self.special) for message in messages],
            tools=literal_tokens.guard_value(list(offered), self.special) or None,
            add_generation_prompt=add_generation_prompt,
            bos_token=self.bos,
            eos_token=self.eos,
            **self.extra,
        )
        return text

    @cached_property
    def _rendered_call(self) -> str:
        call = {"id": "probe0001", "type": "function", "function": {"name": _PROBE, "arguments": {"of": "it"}}}
        messages = [Message("user", "What is it?"), Message("assistant", "", tool_calls=[call]), Message("tool", "12")]
        return self._try_write(messages, ())

    def _try_write(self, messages: Sequence[Message], offered: Sequence[dict[str, Any]]) -> str:
        """Return what the template writes; nothing where it refuses the conversation."""
        jinja = import_optional("jinja2", extra="train")
        try:
            return self._write(messages, offered, add_generation_prompt=False)
        except (jinja.TemplateError, TypeError):
            return ""

    def with_system(self, messages: Sequence[Message]) -> list[Message]:
        """Return the conversation, with the declared system text first where it has none."""
        if self.system is None or (messages and messages[0].role == "system"):
            return list(messages)
        return [Message("system", self.system), *messages]

    @cached_property
    def _compiled(self) -> Any:
        return compile_template(self.source)


def load(folder: Path, *, system: str | None = None) -> Template:
    """Return the chat template of a model folder.

    ``system`` is used where a conversation has none; None takes that of model_spec.json in the folder.
    Raises  ArtifactError when the template or model_spec.json is absent, or the spec was made for another template.
    """
    path = folder / FILE
    if not path.is_file():
        raise ArtifactError(
            f"{path}, the chat template of the model, does not exist", hint="build the model: tunectl repro --to model"
        )
    source = path.read_text()
    result = model_spec.load(folder)
    if result.template_sha256 != digest(source):
        raise ArtifactError(
            f"{path} differs from the template that {folder / model_spec.NAME} names: its SHA-256 starts with {digest(source)[:12]}, "
            f"expected {result.template_sha256[:12]}",
            hint="rebuild the model with: tunectl repro --force --to model",
        )
    bos, eos = result.bos.text if result.bos else "", result.eos.text if result.eos else ""
    pad = {"pad_token": result.pad.text} if result.pad else {}
    special = literal_tokens.load_special_texts(folder)
    return Template(source, bos, eos, system=result.system if system is None else system, extra=pad, special=special)


def digest(source: str) -> str:
    """Return SHA-256 of a template's text; hexadecimal."""
    return hashlib.sha256(source.encode()).hexdigest()


def compile_template(source: str) -> Any:
    """Return ``source`` as a compiled template (``jinja2.Template``), in a sandbox without access to files and to attributes of Python.

    Raises  UsageError when it is not Jinja.
    """
    jinja = import_optional("jinja2", extra="train")
    sandbox = import_optional("jinja2.sandbox", extra="train")
    environment = sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_generation(), "jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _refuse
    environment.globals["strftime_now"] = _format_today
    try:
        return environment.from_string(source)
    except jinja.TemplateSyntaxError as error:
        raise UsageError(
            f"the chat template is not valid Jinja: line {error.lineno}: {error.message}",
            hint="correct the file that model.chat_template names, or name a built-in template, for example chatml",
        ) from error


def _format_today(form: str) -> str:
    """Return today's date: a server compiles a template once, and runs for weeks."""
    return date.today().strftime(form)


def _generation() -> Any:
    """Return the Jinja extension behind ``{% generation %}``: it puts ``OPEN`` and ``CLOSE`` around what the block writes."""
    ext = import_optional("jinja2.ext", extra="train")
    nodes = import_optional("jinja2.nodes", extra="train")

    class Generation(ext.Extension):  # type: ignore[misc, name-defined]
        """``{% generation %} ... {% endgeneration %}``, as transformers knows it."""

        tags = frozenset({"generation"})

        def parse(self, parser: Any) -> Any:
            """Read the block; the node calls ``_wrap_caller`` with what the block writes."""
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.CallBlock(self.call_method("_wrap_caller"), [], [], body).set_lineno(line)

        def _wrap_caller(self, caller: Any) -> str:
            return f"{OPEN}{caller()}{CLOSE}"

    return Generation


def _unmark(text: str) -> RenderedChat:
    """Remove the marks and return their positions."""
    pieces: list[str] = []
    spans: list[tuple[int, int]] = []
    position = 0
    for number, part in enumerate(text.split(OPEN)):
        inside, mark, outside = part.partition(CLOSE) if number else ("", "", part)
        if mark:
            spans.append((position, position + len(inside)))
        pieces += [inside, outside]
        position += len(inside) + len(outside)
    return RenderedChat("".join(pieces), tuple(spans))


def _plain(message: Message) -> dict[str, Any]:
    """Return one message as the dictionary that a template gets."""
    plain: dict[str, Any] = msgspec.to_builtins(message)
    for key in ("train", "parts"):
        plain.pop(key, None)
    return plain


def _to_json(value: Any, ensure_ascii: bool = False, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent)


def _refuse(message: str) -> None:
    raise import_optional("jinja2", extra="train").TemplateError(message)


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
                hint="name one of added_tokens in the model's tokenizer.json, or set null to take the one of the chat template",
            )
        return SpecialToken(declared_token, number)
    text = template.render([Message("user", _QUESTION), Message("assistant", _ANSWER)])
    tail = text[text.rindex(_ANSWER) + len(_ANSWER) :] if _ANSWER in text else ""
    (encoded,) = tokenizer.encode([tail])
    for number in encoded.ids:
        if number in tokenizer.special:
            return SpecialToken(tokenizer.text_of([number]), number)
    raise UsageError(
        f"the chat template writes no special token after an answer, only {tail!r}: a model tuned with it would never stop",
        hint=_HINT,
    )
