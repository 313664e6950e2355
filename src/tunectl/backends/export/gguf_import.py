"""Turn a GGUF file into a plain model folder."""

from __future__ import annotations

import contextlib
import io
import struct
from pathlib import Path
from typing import Any

from tunectl.core.errors import UsageError
from tunectl.core.optional import import_optional


def load_gguf(file: Path) -> tuple[Any, Any]:
    """Return model (float32) and tokenizer of a GGUF file, as transformers reads them.

    Raises  UsageError when transformers does not know the architecture, or it is no GGUF file.
    """
    torch = import_optional("torch", extra="train")
    transformers = import_optional("transformers", extra="train")
    import_optional("gguf", extra="train")
    transformers.utils.logging.disable_progress_bar()
    where: dict[str, Any] = {"gguf_file": file.name, "local_files_only": True, "trust_remote_code": False}
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # its bar has no switch
            model = transformers.AutoModelForCausalLM.from_pretrained(file.parent, dtype=torch.float32, **where)
            tokenizer = transformers.AutoTokenizer.from_pretrained(file.parent, **where)
    except (OSError, ValueError, KeyError, IndexError, struct.error) as error:
        raise UsageError(f"{file.name} cannot be read as a GGUF model: {error}") from error
    return model, tokenizer


def convert(file: Path, out: Path) -> None:
    """Write config.json, model.safetensors (bfloat16), tokenizer files and chat template of ``file`` into ``out``.

    transformers refuses to save a model that it read from GGUF, so a plain one is built and given the weights.
    Raises  UsageError when transformers does not know the architecture.
    """
    torch = import_optional("torch", extra="train")
    read, tokenizer = load_gguf(file)
    settings = read.config.to_dict()
    for name in ("quantization_config", "_name_or_path", "transformers_version"):
        settings.pop(name, None)
    config = type(read.config)(**settings)
    config.architectures = [type(read).__name__]
    with torch.device("meta"):
        plain = type(read)(config)
    plain.load_state_dict(read.state_dict(), assign=True)
    plain.tie_weights()
    plain.to(torch.bfloat16).save_pretrained(out)
    tokenizer.save_pretrained(out)
