"""Write the generated pages of docs/reference/ from the code.

    make docs-reference                            write the pages
    python docs/generate_reference.py --check      only say which pages are stale; exit 1 where one is

Settings come from the schema and from conf/, commands from the parsers of the verbs, errors from their classes, metrics from the
Prometheus registries, files from ``ProjectPaths``, routes from the table that the guard reads, the HTTP API from the server's OpenAPI
document, the Python API from signatures and docstrings, reject reasons from their table. A contract test fails where a committed page differs from what is written here.
"""

from __future__ import annotations

import argparse
import ast
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from reference_http import render_http
from reference_python import render_python
from reference_settings import Row, render_settings, render_table, strip_roles

from tunectl.artifacts.paths import ProjectPaths
from tunectl.artifacts.reject_reasons import REJECT_REASONS
from tunectl.cli.main import VERBS
from tunectl.core import errors
from tunectl.core.error_slugs import iter_raises, read_text

ROOT = Path(__file__).parents[1]
PAGES = ROOT / "docs" / "reference"
SOURCES = ROOT / "src" / "tunectl"
NOTE = "<!-- Generated from the code by `make docs-reference`. Change the code, not this page. -->\n"
EXIT_CODES = (
    ("0", "The command did what it says."),
    ("1", "A bug, or a failure without a better name."),
    ("2", "A mistake in the configuration, on the command line, or in your data."),
    ("3", "A gate failed. The message is its reason."),
    ("4", "An optional library is missing. The hint is the line that installs it."),
    ("5", "The environment refused: disk, memory, port, lock, network, or an artifact that is missing or damaged."),
    ("130", "Stopped with Ctrl-C. Run the same command to go on."),
)


def main(words: Sequence[str] | None = None) -> int:
    """Write the pages, or compare them with what is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 where a page is stale")
    args = parser.parse_args(words)
    pages = render_pages()
    stale = find_stale_pages(pages)
    for name in stale:
        if not args.check:
            (PAGES / name).write_text(pages[name], encoding="utf-8")
        sys.stdout.write(f"docs/reference/{name}: {'stale' if args.check else 'written'}\n")
    return 1 if args.check and stale else 0


def find_stale_pages(pages: Mapping[str, str]) -> list[str]:
    """Return the names of the committed pages that differ from ``pages``."""
    texts = {path.name: path.read_text(encoding="utf-8") for path in PAGES.glob("*.md")}
    return [name for name, text in pages.items() if texts.get(name) != text]


def render_pages() -> dict[str, str]:
    """Return every generated page by its file name."""
    pages = {
        "settings.md": render_settings,
        "commands.md": render_commands,
        "errors.md": render_errors,
        "metrics.md": render_metrics,
        "files.md": render_files,
        "routes.md": render_routes,
        "http.md": render_http,
        "python.md": render_python,
        "reject-reasons.md": render_reject_reasons,
        "other-tools.md": render_foreign_keys,
    }
    return {name: NOTE + "\n" + render() for name, render in pages.items()}


# Commands


def render_commands() -> str:
    """Return one section a verb, from the table of verbs and the parser of each."""
    text = "# Commands\n\n" + render_table(
        ("command", "what it does"), [(f"[`tunectl {verb.name}`](#tunectl-{verb.name})", verb.help) for verb in VERBS]
    )
    text += (
        "\nEach command but `tunectl dvc`, which hands it to DVC, also takes `--verbose`: log details, and show tracebacks."
        " Exit codes: [Errors](errors.md).\n"
    )
    for verb in VERBS:
        module = import_module(verb.module)
        parser = argparse.ArgumentParser(prog=f"tunectl {verb.name}", description=module.__doc__)
        module.add(parser)
        text += render_parser(parser, level=2)
    return text


def render_parser(parser: argparse.ArgumentParser, level: int) -> str:
    """Return heading, description and words of a parser, then those of the verbs below it."""
    text = f"\n{'#' * level} {parser.prog}\n\n"
    description = inspect.cleandoc(parser.description or "")
    if description:
        text += f"```text\n{description}\n```\n" if "\n" in description else f"{description}\n"
    below: list[argparse.ArgumentParser] = []
    rows: list[Row] = []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            below += list(dict.fromkeys(action.choices.values()))
        elif not isinstance(action, argparse._HelpAction):
            rows.append((f"`{describe_word(action)}`", strip_roles((action.help or "").replace("%%", "%"))))
    if rows:
        text += "\n" + render_table(("word", "meaning"), rows)
    return text + "".join(render_parser(inner, level + 1) for inner in below)


def describe_word(action: argparse.Action) -> str:
    """Return how a word is typed: its flags, and the name of its value."""
    choices = "{" + ",".join(map(str, action.choices)) + "}" if action.choices is not None else None
    metavar = " ".join(action.metavar) if isinstance(action.metavar, tuple) else action.metavar
    if not action.option_strings:
        name = metavar or choices or action.dest
        return f"[{name} ...]" if action.nargs == "*" else f"[{name}]" if action.nargs == "?" else name
    flags = ", ".join(action.option_strings)
    if action.nargs == 0:
        return flags
    value = metavar or choices or action.dest.upper()
    return f"{flags} [{value}]" if action.nargs == "?" else f"{flags} {value}"


# Errors


def render_errors() -> str:
    """Return the exit codes, and every error class with its code, its module and what it means."""
    text = "# Errors and exit codes\n\n"
    text += "Each message says what is wrong, where, and what is allowed; a second, indented line says what to do.\n\n"
    text += render_table(("exit code", "meaning"), EXIT_CODES)
    text += "\n## Classes\n\nAll are below `tunectl.core.errors.TunectlError`, so that one `except` catches them.\n\n"
    rows = [
        (f"`{name}`", f"`{base}`", str(code), f"`{module}`", strip_roles(docs.split("\n\n", maxsplit=1)[0]))
        for name, base, code, module, docs in iter_error_classes()
    ]
    text += render_table(("class", "is a", "exit code", "module", "meaning"), rows)
    text += "\n## Messages\n\nAn error ends with `more: tunectl docs NAME`, which opens its entry here. `…` stands for a value.\n"
    return text + render_messages({name: code for name, _, code, _, _ in iter_error_classes()})


def render_messages(codes: Mapping[str, int]) -> str:
    """Return an entry for each message with a slug, below the class that raises it first."""
    entries: dict[str, list[tuple[str, str, str, str]]] = {}
    for path in sorted(SOURCES.rglob("*.py")):
        module = path.relative_to(SOURCES).with_suffix("").as_posix()
        for _, slug, call in iter_raises(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(call.func, ast.Name) and call.func.id in codes:
                hint = next((read_text(word.value) or "" for word in call.keywords if word.arg == "hint"), "")
                entries.setdefault(slug, []).append((call.func.id, module, read_text(call.args[0]) or "", hint))
    text = ""
    for name in dict.fromkeys(codes):
        below = {slug: found for slug, found in sorted(entries.items()) if found[0][0] == name}
        text += f"\n### Messages of {name}\n" if below else ""
        for slug, found in below.items():
            text += f"\n#### {slug}\n\n" + "".join(
                f"- {line}\n" for line in dict.fromkeys(map(describe_message, found))
            )
    return text


def describe_message(message: tuple[str, str, str, str]) -> str:
    """Return message, hint and module of one statement that raises."""
    _, module, text, hint = message
    advice = f" To do: {quote_code(hint)}." if hint else ""
    return f"{quote_code(text)}.{advice} ({module})"


def quote_code(text: str) -> str:
    """Return a text as code, on one line, whatever backquotes are in it."""
    line = " ".join(text.split())
    return f"`` {line} ``" if "`" in line else f"`{line}`"


def iter_error_classes() -> Iterator[tuple[str, str, int, str, str]]:
    """Yield name, base, exit code, module and docstring of each error class, those of ``core/errors`` first."""
    codes: dict[str, int] = {}
    for name, kind in vars(errors).items():
        if isinstance(kind, type) and issubclass(kind, errors.TunectlError):
            codes[name] = kind.exit_code
            yield (
                name,
                kind.__base__.__name__ if kind.__base__ else "",
                kind.exit_code,
                "core.errors",
                kind.__doc__ or "",
            )
    for path in sorted(SOURCES.rglob("*.py")):
        module = ".".join(path.relative_to(SOURCES).with_suffix("").parts)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef) and module != "core.errors":
                base = next((item.id for item in node.bases if isinstance(item, ast.Name) and item.id in codes), None)
                if base is not None:
                    yield node.name, base, codes[base], module, ast.get_docstring(node) or ""


# Metrics


def render_metrics() -> str:
    """Return one table a program: name, type, labels and meaning of each metric."""
    from tunectl.monitoring.monitor_metrics import DriftMetrics
    from tunectl.retraining.retrain_metrics import RetrainMetrics
    from tunectl.serving.serving_metrics import ServingMetrics

    text = "# Metrics\n\n"
    text += "`/metrics` of each program, in the text format of Prometheus. Label sets are closed; a number that is not known\n"
    text += "has no series, and no value is NaN. The key that reads them needs the scope `scrape`.\n"
    programs: tuple[tuple[str, Callable[[], object]], ...] = (
        ("tunectl serve", lambda: ServingMetrics().render()),
        ("tunectl monitor", lambda: DriftMetrics(required=3).render()),
        ("tunectl retrain controller", lambda: RetrainMetrics(began=0.0).text([], [], None, None)),
    )
    for program, render in programs:
        rows = sorted(iter_metrics(capture_registry(render)))
        text += f"\n## {program}\n\n" + render_table(("metric", "type", "labels", "meaning"), rows)
    return text


def capture_registry(render: Callable[[], object]) -> Any:
    """Return the registry that ``render`` hands to prometheus_client."""
    library: ModuleType = import_module("prometheus_client")
    seen: list[Any] = []
    original = library.generate_latest

    def generate_latest(registry: Any) -> bytes:
        seen.append(registry)
        text: bytes = original(registry)
        return text

    library.generate_latest = generate_latest  # type: ignore[attr-defined]
    try:
        render()
    finally:
        library.generate_latest = original  # type: ignore[attr-defined]
    return seen[-1]


def iter_metrics(registry: Any) -> Iterator[Row]:
    """Yield the row of each metric of a registry; the labels are known where it has no series yet, too."""
    for collector in registry._collector_to_names:
        for family in collector.collect():
            labels = getattr(collector, "_labelnames", None) or getattr(family, "_labelnames", None) or ()
            name = f"{family.name}_total" if family.type == "counter" else family.name
            text = strip_roles(family.documentation)
            yield f"`{name}`", family.type, ", ".join(f"`{label}`" for label in labels), text


# Files


def render_files() -> str:
    """Return every path of a project, from ``ProjectPaths``."""
    text = "# Files\n\n"
    text += "Every path of a project. `artifacts/` is what the stages write, `.tunectl/` is state that is never committed.\n\n"
    paths = ProjectPaths()
    rows: list[Row] = []
    for name, member in vars(ProjectPaths).items():
        if isinstance(member, property):
            path = getattr(paths, name)
        elif inspect.isfunction(member) and not name.startswith("_"):
            words = [f"<{word}>" for word in inspect.signature(member).parameters if word != "self"]
            path = member(paths, *words)
        else:
            continue
        description = strip_roles(inspect.getdoc(member)).removeprefix("Return ")
        rows.append((f"`{path.as_posix()}`", description[:1].upper() + description[1:]))
    return text + render_table(("path", "what"), rows)


# Routes


SERVICES = (
    ("server", "tunectl serve"),
    ("monitor", "tunectl monitor"),
    ("retrain", "tunectl retrain controller"),
    ("annotate", "tunectl annotate"),
    ("console", "tunectl console"),
)
"""The services of the table of routes, and the commands that start them."""


def render_routes() -> str:
    """Return every route of every service with what opens it, from the table that the guard reads."""
    from tunectl.access import routes
    from tunectl.access.scopes import SCOPE_MEANINGS
    from tunectl.console.console_routes import list_console_rules

    text = "# Routes\n\n"
    text += "What opens each route of each service. A scope is that of a key of `tunectl serve keys add`; `admin` opens every scope.\n\n"
    text += "- A POST from the page of another web site is refused with 403, unless `serve.cors` of the server names that origin.\n"
    text += "- A POST with a body of another kind than the table says is refused with 415.\n"
    text += "- Reading takes a key as `Authorization: Bearer` or as the password of a browser's sign-in (Basic), a POST as `Bearer` alone.\n"
    text += "- *without a key*: yes where the service listens on a loopback address and has no keys (monitor: no keys file; retrain\n"
    text += "  controller: always; annotate: no key of scope annotate). Then a request must name this machine (421 otherwise) and\n"
    text += "  come through no proxy (401 otherwise).\n"
    text += "- The token of `retrain.token_file` opens what scopes " + " and ".join(
        f"`{item}`" for item in routes.TOKEN_SCOPES
    )
    text += " open at the retrain controller.\n"
    text += "- The console has sessions alone: the link that it prints opens one with every scope, a key one with its own scopes. A\n"
    text += "  request under a name that is none of `console.hosts` and of this machine is refused with 421.\n\n"
    text += "## Scopes\n\n"
    text += render_table(("scope", "opens"), [(f"`{item}`", meaning) for item, meaning in SCOPE_MEANINGS.items()])
    for service, command in SERVICES:
        rows = [
            (
                rule.method,
                f"`{rule.path.replace(':path', '')}`",
                describe_opening(rule.opened_by, rule.scopes),
                rule.body or "",
                "yes" if rule.keyless else "",
            )
            for rule in (*routes.ROUTES, *list_console_rules())
            if rule.service == service
        ]
        text += f"\n## {command}\n\n" + render_table(("method", "path", "opened by", "body", "without a key"), rows)
    return text


def describe_opening(opened_by: str, scopes: tuple[str, ...]) -> str:
    """Return what opens a route, in words."""
    if opened_by not in ROUTE_WORDS:
        return f"scope `{opened_by}`"
    return f"{opened_by} with {' and '.join(f'`{scope}`' for scope in scopes)}" if scopes else opened_by


def render_foreign_keys() -> str:
    """Return every setting of Axolotl and LLaMA-Factory that an import knows, beside ours."""
    from tunectl.config.loading.foreign_keys import KEYS

    text = "# Settings of Axolotl and LLaMA-Factory\n\n"
    text += "What `tunectl import axolotl FILE` and `tunectl import llama-factory FILE` do with each setting. A name in the last\n"
    text += "column is the setting here; a sentence is the reason why there is none. Other settings are listed as unknown.\n\n"

    def spell(names: str) -> str:
        return ", ".join(f"`{name}`" for name in names.split())

    rows = [
        (spell(key.axolotl), spell(key.llama_factory), key.ours if " " in key.ours else f"`{key.ours}`") for key in KEYS
    ]
    return text + render_table(("Axolotl", "LLaMA-Factory", "here"), rows)


ROUTE_WORDS = ("nothing", "any key", "typed key", "session", "signed link")
"""What opens a route without being a scope."""
# Reject reasons


def render_reject_reasons() -> str:
    """Return every reason for which a stage rejects a row, in the order of the stages."""
    text = "# Reject reasons\n\n"
    text += "Every rejected row has one of these reasons, in `rejects.jsonl` of its stage. `tunectl data rejects` shows the rows.\n\n"
    return text + render_table(("reason", "meaning"), [(f"`{name}`", words) for name, words in REJECT_REASONS.items()])


if __name__ == "__main__":
    sys.exit(main())
