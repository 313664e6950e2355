"""Print the completion script of a shell.

bash   tunectl completions bash >> ~/.bashrc
zsh    tunectl completions zsh  >> ~/.zshrc
fish   tunectl completions fish > ~/.config/fish/completions/tunectl.fish
"""

from __future__ import annotations

import argparse
import sys

from tunectl.cli.main import VERBS
from tunectl.pipeline.stages import COMPOSE, STAGES


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options and positional arguments of ``tunectl completions`` to ``parser``."""
    parser.add_argument("shell", choices=("bash", "zsh", "fish"))


def run(args: argparse.Namespace) -> int:
    """Print the completion script of a shell, for commands, stages and file names; return the exit code."""
    sys.stdout.write({"bash": _bash, "zsh": _zsh, "fish": _fish}[args.shell]())
    return 0


def _list_candidates() -> tuple[str, str]:
    return " ".join(verb.name for verb in VERBS), " ".join([COMPOSE, *(stage.name for stage in STAGES)])


def _bash() -> str:
    verbs, stages = _list_candidates()
    return f"""_tunectl() {{
  local word="${{COMP_WORDS[COMP_CWORD]}}"
  if [ "$COMP_CWORD" -eq 1 ]; then COMPREPLY=($(compgen -W "{verbs}" -- "$word")); return; fi
  if [ "${{COMP_WORDS[COMP_CWORD-1]}}" = --to ] && [ "${{COMP_WORDS[1]}}" = repro ]; then
    COMPREPLY=($(compgen -W "{stages}" -- "$word")); return
  fi
  case "${{COMP_WORDS[1]}}" in
    run|chat) COMPREPLY=($(compgen -W "{stages}" -- "$word") $(compgen -f -- "$word"));;
    *) COMPREPLY=($(compgen -f -- "$word"));;
  esac
}}
complete -F _tunectl tunectl
"""


def _zsh() -> str:
    return "autoload -U +X bashcompinit && bashcompinit\n" + _bash()


def _fish() -> str:
    _, stages = _list_candidates()
    lines = []
    for verb in VERBS:
        description = verb.help.replace("'", "\\'")
        lines.append(f"complete -c tunectl -n __fish_use_subcommand -f -a {verb.name} -d '{description}'")
    lines += [
        f"complete -c tunectl -n '__fish_seen_subcommand_from run chat' -a '{stages}'",
        f"complete -c tunectl -n '__fish_seen_subcommand_from repro' -x -l to -a '{stages}'",
    ]
    return "\n".join(lines) + "\n"
