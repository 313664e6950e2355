"""Rules that convert a setting of another tool, and what an import has collected."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple

Tool = Literal["axolotl", "llama-factory"]
TITLES: Mapping[Tool, str] = {"axolotl": "Axolotl", "llama-factory": "LLaMA-Factory"}
EFFECT, NONE, TOOL = "changes the result", "no effect on the result", "unknown to tunectl"
"""How much a setting without a counterpart matters."""
OFF: Final[tuple[Any, ...]] = (None, False, "", [], {}, "none", 0)
"""Values that switch a setting off: such a setting is not listed."""
OPTIMIZERS = {
    "adamw_torch": "adamw",
    "adamw_torch_fused": "adamw",
    "adamw_hf": "adamw",
    "adamw": "adamw",
    "adamw_8bit": "adamw_8bit",
    "adamw_bnb_8bit": "adamw_8bit",
    "paged_adamw_8bit": "adamw_8bit",
    "adafactor": "adafactor",
    "lion": "lion",
    "lion_32bit": "lion",
    "lion_8bit": "lion",
    "paged_lion_8bit": "lion",
    "sgd": "sgd",
}
"""Their optimizers; the fused, paged and 8-bit variants compute the same up to rounding."""
SCHEDULES = {"constant": "constant", "constant_with_warmup": "constant", "linear": "linear", "cosine": "cosine"}
TEMPLATES = frozenset({"chatml", "llama3", "gemma", "mistral", "zephyr"})
TRACKERS = frozenset({"mlflow", "wandb"})

PREFERENCES = (
    "only supervised tuning is taken over; preferences are declared in groups of their own: preferences, reward, align"
)


@dataclass(frozen=True, slots=True)
class UnsupportedKey:
    """A setting that could not be carried over."""

    key: str
    value: Any
    matters: str
    """One of ``EFFECT``, ``NONE``, ``TOOL``."""
    reason: str


@dataclass(slots=True)
class ImportedConfig:
    """What an import has collected so far."""

    foreign: Mapping[str, Any]
    """Settings of the other tool's file."""
    groups: dict[str, str] = field(default_factory=dict)
    """Chosen file of each group, for example ``sft: dora``."""
    values: dict[str, Any] = field(default_factory=dict)
    """Our settings by dotted key."""
    notes: dict[str, str] = field(default_factory=dict)
    """Comments by dotted key."""
    sources: dict[str, str] = field(default_factory=dict)
    """Base of each source: ``files`` or ``hub``."""
    dropped: list[UnsupportedKey] = field(default_factory=list)

    def set(self, name: str, value: Any, note: str = "") -> None:
        """Give one of our settings a value; ``note`` becomes a comment beside it.

        One that would be read as another setting, which may hold an address or a name of a secret, is listed as not carried over.
        """
        if "${" in str(value):
            self.dropped.append(UnsupportedKey(name, value, EFFECT, "${...} would be read as another setting of yours"))
            return
        self.values[name] = value
        if note:
            self.notes[name] = note

    def drop(self, key: str, reason: str, matters: str = EFFECT) -> None:
        """List one of their settings as having no counterpart."""
        self.dropped.append(UnsupportedKey(key, self.foreign.get(key), matters, reason))


Apply = Callable[[ImportedConfig, str, Any], None]


class ForeignKey(NamedTuple):
    """One row of the table: a setting under the name of each tool, and the rule that converts it."""

    axolotl: str
    """Names in Axolotl, separated by blanks; empty where it has none."""
    llama_factory: str
    ours: str
    """Our dotted setting, or why there is none."""
    apply: Apply


@contextmanager
def catch_bad_value(draft: ImportedConfig, key: str) -> Iterator[None]:
    """List ``key`` as not converted where its value has an unexpected type."""
    try:
        yield
    except (ValueError, TypeError, AttributeError, LookupError) as error:
        draft.drop(key, f"the value cannot be understood: {error}")


def rename(
    axolotl: str, llama_factory: str, own_key: str, convert: Callable[[Any], Any] = lambda value: value
) -> ForeignKey:
    """Return the rule of a setting that has another name here; ``convert`` may raise ValueError with the reason why a value cannot be converted."""

    def apply(draft: ImportedConfig, key: str, value: Any) -> None:
        try:
            draft.set(own_key, convert(value))
        except (ValueError, TypeError) as error:
            draft.drop(key, str(error))

    return ForeignKey(axolotl, llama_factory, own_key, apply)


def lack(axolotl: str, llama_factory: str, reason: str) -> ForeignKey:
    """Return the rule of a setting that has no counterpart and changes the result."""

    def apply(draft: ImportedConfig, key: str, value: Any) -> None:
        if value not in OFF:
            draft.drop(key, reason)

    return ForeignKey(axolotl, llama_factory, reason, apply)


def ignore(axolotl: str, llama_factory: str, reason: str) -> ForeignKey:
    """Return the rule of a setting that has no counterpart and does not change the result."""
    return ForeignKey(axolotl, llama_factory, reason, lambda draft, key, _: draft.drop(key, reason, NONE))


def require(axolotl: str, llama_factory: str, allowed: Iterable[Any], reason: str) -> ForeignKey:
    """Return the rule of a setting that must have one of the values ``allowed``: tunectl always works that way."""
    values = list(allowed)

    def apply(draft: ImportedConfig, key: str, value: Any) -> None:
        if value not in values:
            draft.drop(key, reason)

    return ForeignKey(axolotl, llama_factory, reason, apply)


def combine(axolotl: str, llama_factory: str, own_key: str) -> ForeignKey:
    """Return the rule of a setting whose counterpart is ``own_key``, and that is converted together with others (``foreign_import``)."""
    return ForeignKey(axolotl, llama_factory, own_key, lambda *_: None)


def look_up(table: Mapping[str, Any], description: str) -> Callable[[Any], Any]:
    """Return a conversion by table; any other value is refused with the names of the table."""

    def convert(value: Any) -> Any:
        name = str(value).lower()
        if name not in table:
            raise ValueError(
                f"{description} {value} is not offered; there are {', '.join(sorted(set(map(str, table.values()))))}"
            )
        return table[name]

    return convert


def to_int(value: Any) -> int:
    """Return an integer, also where YAML read it as text; refuses fractions."""
    if float(value) != int(float(value)):
        raise ValueError(f"{value} is not a whole number")
    return int(float(value))


def to_float_or_none(value: Any) -> float | None:
    """Return a number, also where YAML read ``1e-4`` as text; None where the value switches it off."""
    return float(value) or None if value else None


def set_template(draft: ImportedConfig, key: str, value: Any) -> None:
    """Set a named chat template, or the model's own where there is none of that name."""
    name = str(value)
    if name in TEMPLATES:
        draft.set("model.chat_template", name)
    elif name.startswith("tokenizer_default") and key == "chat_template":
        draft.set("model.chat_template", None, "the model's own")
    elif name != "jinja" or key != "chat_template":
        draft.set("model.chat_template", None, f"the model's own; compare it with {name}: tunectl data inspect")
        draft.drop(
            key, f"{name} is not one of our named templates, so the model's own is used; tunectl data inspect shows it"
        )


def set_template_text(draft: ImportedConfig, key: str, value: Any) -> None:
    """Set a chat template given as text, which must become a file; a path is used unchanged."""
    text = str(value or "")
    if "{" in text or "\n" in text:
        draft.set("model.chat_template", "???", "a file that holds the text of chat_template_jinja")
        draft.drop(key, "put the template into a file, and name that file")
    elif text:
        draft.set("model.chat_template", text)


def set_stage(draft: ImportedConfig, key: str, value: Any) -> None:
    """Convert LLaMA-Factory's stage: pt is our cpt."""
    if value == "pt":
        draft.groups["cpt"] = "lora"
        draft.drop(key, "further pre-training is the cpt stage here, switched on; its settings keep our values")
    elif value != "sft":
        draft.drop(key, PREFERENCES)


def set_save_steps(draft: ImportedConfig, key: str, value: Any) -> None:
    """Convert LLaMA-Factory's save_steps, which may be a share of all steps."""
    if isinstance(value, int) and value >= 1:
        draft.set("sft.save_steps", value)
    else:
        draft.drop(key, "a share of all steps; tunectl counts steps: sft.save_steps", NONE)


def set_patience(draft: ImportedConfig, _: str, value: Any) -> None:
    """Set early stopping by a number of validations."""
    if value:
        draft.set("sft.early_stopping", {"patience": to_int(value), "min_delta": 0.0})


def set_end_of_turn(draft: ImportedConfig, key: str, value: Any) -> None:
    """Set the end of turn, which is a single token here."""
    tokens = [str(item) for item in value or []]
    if tokens:
        draft.set("model.eot_token", tokens[0])
    if len(tokens) > 1:
        draft.drop(key, f"one token ends a turn here: {tokens[0]}")


def drop_special_tokens(draft: ImportedConfig, key: str, value: Any) -> None:
    """Drop the setting: special tokens come from the model."""
    names = sorted(name for name, token in (value or {}).items() if token)
    if names:
        draft.drop(key, f"{', '.join(names)}: special tokens are the model's own; padding is masked by length", NONE)


def set_targets(value: Any) -> Any:
    """Return LLaMA-Factory's lora_target: a list, or names separated by commas."""
    names = [part.strip() for part in value.split(",")] if isinstance(value, str) else list(value)
    return "all-linear" if names in (["all"], ["all-linear"]) else names


def report_to(draft: ImportedConfig, key: str, value: Any) -> None:
    """Set the trackers; those that tunectl does not know are listed."""
    names = [str(item).lower() for item in (value if isinstance(value, list) else [value]) if item]
    trackers = sorted({name for name in names if name in TRACKERS} | set(draft.values.get("track.to", [])))
    draft.set("track.to", trackers)
    for name in names:
        if name == "tensorboard":
            draft.drop(key, "curves are in artifacts/plots/*/history.csv, and dvc plots draws them", NONE)
        elif name not in TRACKERS and name not in {"none", "all"}:
            draft.drop(key, f"{name} is not offered; there are {', '.join(sorted(TRACKERS))}", NONE)


def report_by_key(name: str) -> Apply:
    """Read Axolotl's trackers, each of which has its own setting."""

    def apply(draft: ImportedConfig, key: str, value: Any) -> None:
        if value:
            report_to(draft, key, [name])

    return apply
