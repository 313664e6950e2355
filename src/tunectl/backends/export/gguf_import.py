"""Turn a GGUF file into a plain model folder."""

from __future__ import annotations

import contextlib
import io
import os
import resource
import struct
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

from tunectl.core.distribution import format_install_command
from tunectl.core.errors import MissingExtraError, TunectlError, UsageError
from tunectl.core.optional import import_optional

CHECK_FILE: Final = "check that the file is whole, or convert the model elsewhere and name its folder: model=folder"

_PACKAGES: Final = Path(__file__).parents[3]


class ReadLimits(NamedTuple):
    """Memory (bytes) and processor time (seconds) that the child process may use to read one GGUF file."""

    memory_bytes: int
    """Address space in bytes. Libraries reserve more than they use."""
    seconds: float
    """Wall time; the same limit holds for the processor time of all threads together."""

    @classmethod
    def of(cls, file: Path) -> Self:
        """Return limits that grow with the size of ``file``, since weights read as float32 take up to 16 times the space of two-bit weights, plus a copy."""
        size = file.stat().st_size if file.is_file() else 0
        return cls((16 << 30) + 48 * size, 600 + size / 500_000)


def load_gguf(file: Path) -> tuple[Any, Any]:
    """Return the model (float32) and the tokenizer of a GGUF file, as transformers objects.

    Raises  UsageError when transformers does not know the architecture, or ``file`` is no GGUF file.
    """
    torch = import_optional("torch", extra="train")
    transformers = import_optional("transformers", extra="train")
    gguf = import_optional("gguf", extra="train")
    transformers.utils.logging.disable_progress_bar()
    where: dict[str, Any] = {"gguf_file": file.name, "local_files_only": True, "trust_remote_code": False}
    try:
        with _parse_once(gguf), contextlib.redirect_stderr(io.StringIO()):  # its progress bar cannot be switched off
            model = transformers.AutoModelForCausalLM.from_pretrained(file.parent, dtype=torch.float32, **where)
            tokenizer = transformers.AutoTokenizer.from_pretrained(file.parent, **where)
    except (OSError, ValueError, KeyError, IndexError, struct.error) as error:
        raise UsageError(f"{file.name} cannot be read as a GGUF model: {error}") from error
    return model, tokenizer


@contextlib.contextmanager
def _parse_once(gguf: Any) -> Iterator[None]:
    """Let transformers parse the file once inside the block.

    It parses the file for the configuration, the weights and the tokenizer each, and builds the table of tensor names for each
    module: 17 s in place of 9 for 135 million weights.
    """
    names = ("GGUFReader", "get_tensor_name_map")
    originals = {name: getattr(gguf, name) for name in names}
    for name, original in originals.items():
        setattr(gguf, name, cache(original))
    try:
        yield
    finally:
        for name, original in originals.items():
            setattr(gguf, name, original)


def convert(file: Path, out: Path, *, limits: ReadLimits | None = None) -> None:
    """Convert the GGUF file ``file`` to a model folder ``out``: config, weights in bfloat16, tokenizer and chat template.

    A separate process reads the file, because a malicious file can take any memory or time, or crash the library.
    Raises  UsageError when transformers does not know the architecture, or reading exceeds ``limits``.
    """
    read_limits = limits or ReadLimits.of(file)
    arguments = [
        sys.executable,
        "-m",
        __name__,
        str(file),
        str(out),
        str(read_limits.memory_bytes),
        str(max(1, int(read_limits.seconds))),
    ]
    environment = {**os.environ, "PYTHONPATH": str(_PACKAGES), "HF_HUB_OFFLINE": "1"}
    try:
        finished = subprocess.run(
            arguments,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=read_limits.seconds,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise UsageError(
            f"{file.name} cannot be read as a GGUF model: reading it took more than {read_limits.seconds:g} s",
            hint=CHECK_FILE,
        ) from error
    if finished.returncode == UsageError.exit_code:
        raise UsageError(finished.stderr.strip().splitlines()[-1], hint=CHECK_FILE)
    if finished.returncode == MissingExtraError.exit_code:
        raise MissingExtraError("gguf, torch or transformers is not installed", hint=format_install_command("train"))
    if finished.returncode != 0:
        reason = (
            f"its reader was ended by signal {-finished.returncode}"
            if finished.returncode < 0
            else _last_line(finished.stderr)
        )
        raise UsageError(
            f"{file.name} cannot be read as a GGUF model: {reason}",
            hint=f"{CHECK_FILE}; reading it is limited to {read_limits.memory_bytes >> 30} GiB of memory and {read_limits.seconds:.0f} s",
        )


def _last_line(text: str) -> str:
    return ([line.strip() for line in text.splitlines() if line.strip()] or ["no output"])[-1][:300]


def _convert(file: Path, out: Path) -> None:
    """Do the work of ``convert``: transformers refuses to save a model that it read from GGUF, so a plain one gets the weights."""
    torch = import_optional("torch", extra="train")
    model, tokenizer = load_gguf(file)
    settings = model.config.to_dict()
    for name in ("quantization_config", "_name_or_path", "transformers_version"):
        settings.pop(name, None)
    config = type(model.config)(**settings)
    config.architectures = [type(model).__name__]
    with torch.device("meta"):
        plain = type(model)(config)
    plain.load_state_dict(model.state_dict(), assign=True)
    plain.tie_weights()
    plain.to(torch.bfloat16).save_pretrained(out)
    tokenizer.save_pretrained(out)


def main(file: str, out: str, memory: str, seconds: str) -> int:
    """Convert ``file`` to the folder ``out`` under limits of ``memory`` (bytes) and processor time (``seconds``); return the exit code of this child process."""
    resource.setrlimit(resource.RLIMIT_AS, (int(memory), int(memory)))
    resource.setrlimit(resource.RLIMIT_CPU, (int(seconds), int(seconds)))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        _convert(Path(file), Path(out))
    except TunectlError as error:
        sys.stderr.write(f"\n{error.message}\n")
        return error.exit_code
    except (MemoryError, RuntimeError) as error:  # torch raises RuntimeError when it cannot allocate
        sys.stderr.write(f"\n{type(error).__name__}: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
