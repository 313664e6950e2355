"""Chat with the model of a stage or a folder: the base model, the pretrained one (cpt), the tuned one, or a folder.

tunectl chat                 the tuned model (artifacts/sft)
tunectl chat model           the base model
tunectl chat PATH            a model folder, or an adapter folder (with --base where it is not of this project)
echo "Hi" | tunectl chat     each line is a separate question; --prompt asks one and ends

In the terminal the conversation continues until Ctrl-D; an empty line starts a new one.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tunectl.artifacts import manifest
from tunectl.artifacts.paths import ProjectPaths
from tunectl.artifacts.records import Message
from tunectl.core.control_codes import replace_control_codes
from tunectl.core.errors import ArtifactError, UsageError

STAGES = ("model", "cpt", "sft")


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options and positional arguments of ``tunectl chat`` to ``parser``."""
    parser.add_argument("who", nargs="?", default="sft", metavar="STAGE|PATH", help="model, cpt, sft or a folder (sft)")
    parser.add_argument("--base", type=Path, metavar="DIR", help="model folder below an adapter folder")
    parser.add_argument("--prompt", metavar="TEXT", help="ask this question and end")
    parser.add_argument("--system", metavar="TEXT", help="system text, instead of the one used in training")
    parser.add_argument("--max-new-tokens", type=int, default=256, metavar="N", help="longest answer (256)")
    parser.add_argument(
        "--temperature", type=float, default=0.0, metavar="T", help="0 takes the likeliest token each time (0)"
    )
    parser.add_argument("--json", action="store_true", help="print question and answer as JSON, one line each")


def run(args: argparse.Namespace) -> int:
    """Load a model and chat with it on the terminal, or answer the lines of standard input; return the exit code."""
    if args.max_new_tokens < 1 or args.temperature < 0:
        raise UsageError(
            f"--max-new-tokens must be 1 or more and --temperature 0 or more, not {args.max_new_tokens} and {args.temperature:g}"
        )
    base, adapter = resolve_model(args.who, args.base, ProjectPaths())
    answer = _build_responder(args, base, adapter)
    if args.prompt is not None:
        _one(answer, [Message("user", args.prompt)], args)
    elif sys.stdin.isatty():
        _converse(answer, args)
    else:
        for line in sys.stdin:
            if line.strip():
                _one(answer, [Message("user", line.rstrip("\n"))], args)
    return 0


def resolve_model(name: str, base: Path | None, layout: ProjectPaths) -> tuple[Path, Path | None]:
    """Return the model folder, and the adapter folder or None, that ``name`` means: a stage, a model folder or an adapter folder.

    ``base`` is the model folder for an adapter folder that is not of this project.
    Raises  ArtifactError when it is not finished; UsageError when the folder is neither a model nor an adapter.
    """
    folder = layout.artifact(name) if name in STAGES else Path(name)
    if name in STAGES:
        manifest.read(folder)
        if (folder / manifest.PASSED_THROUGH).is_file():
            folder = layout.artifact("model")
    if (folder / "config.json").is_file():
        return folder, None
    if not (folder / "adapter_config.json").is_file():
        raise UsageError(
            f"{folder} is neither a model folder (config.json) nor an adapter folder (adapter_config.json)",
            hint="give the name of a stage with a model, or one of these folders",
        )
    return base or _base_of(layout), folder


def _base_of(layout: ProjectPaths) -> Path:
    adapted = layout.artifact("cpt")
    if (adapted / "config.json").is_file():
        return adapted
    path = layout.artifact("model")
    manifest.read(path)
    return path


def _build_responder(
    args: argparse.Namespace, base: Path, adapter: Path | None
) -> Callable[[list[Message], Callable[[str], None]], str]:
    from tunectl.backends.modeling.chat_session import ChatSession
    from tunectl.chat import model_spec, template

    own = model_spec.load(base)
    if adapter is not None:
        its = model_spec.load(adapter)
        if its.weights_sha256 != own.weights_sha256:
            raise ArtifactError(
                f"{adapter} was trained on other weights ({its.weights_sha256[:12]}…) than {base} has ({own.weights_sha256[:12]}…)",
                hint="name the right one with --base, or rebuild: tunectl repro",
            )
        own = its
    chat = template.load(base, system=own.system if args.system is None else args.system)
    speaker = ChatSession(base, adapter, _profile(), end_of_turn=own.eot_token.id)

    def answer(messages: list[Message], on_text: Callable[[str], None]) -> str:
        prompt = chat.render(messages, add_generation_prompt=True)
        return speaker.answer(prompt, max_new_tokens=args.max_new_tokens, temperature=args.temperature, on_text=on_text)

    return answer


def _profile() -> Any:
    """Return the machine as the project declares it for sft; a plain CPU outside a project."""
    from tunectl.config.schema.hardware import HardwareProfile
    from tunectl.pipeline import resolved_config

    try:
        return resolved_config.load_stage_config(ProjectPaths(), "sft")[0].hardware
    except ArtifactError:
        return HardwareProfile(
            device="cpu",
            threads=None,
            dtype="auto",
            train_batch_tokens=64,
            generate_batch=1,
            gradient_checkpointing=False,
        )


def _one(
    answer: Callable[[list[Message], Callable[[str], None]], str], messages: list[Message], args: argparse.Namespace
) -> str:
    import msgspec

    if args.json:
        text = answer(messages, _ignore_text)
        line = msgspec.json.encode({"prompt": messages[-1].content, "answer": text}).decode()
        sys.stdout.write(replace_control_codes(line) + "\n")
    else:
        text = answer(messages, _print)
        sys.stdout.write("\n")
    sys.stdout.flush()
    return text


def _converse(answer: Callable[[list[Message], Callable[[str], None]], str], args: argparse.Namespace) -> None:
    messages: list[Message] = []
    while True:
        try:
            question = input("> ")
        except EOFError:
            sys.stdout.write("\n")
            return
        if not question.strip():
            messages = []
            sys.stdout.write("(a new conversation)\n")
            continue
        messages.append(Message("user", question))
        messages.append(Message("assistant", _one(answer, messages, args)))


def _print(text: str) -> None:
    """Write a piece of an answer; each code is one character, so none is divided over two pieces."""
    sys.stdout.write(replace_control_codes(text))
    sys.stdout.flush()


def _ignore_text(_text: str) -> None:
    """Show nothing while an answer is written."""
