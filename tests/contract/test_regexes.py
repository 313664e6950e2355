"""No pattern that meets a stranger's text takes more than linear time; every pattern of the source is listed as meeting it, or not."""

from __future__ import annotations

import ast
import importlib
import json
import re
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest

from tunectl.privacy import secret_keys

SOURCE = Path(__file__).parents[2] / "src"
LETTERS = 100_000
"""Of each hostile text."""
SECONDS = 0.5
"""Of processor time for one of them: linear patterns take a few hundredths, quadratic ones several seconds."""
CROSSED = 40
"""Most pairs of a beginning and what is repeated behind it; of a pattern with more of them, each repetition keeps its own beginning."""
TIMEOUT_SECONDS = 5.0
"""Seconds without a word from the child, which are its end: a pattern that backtracks listens to nobody."""

OUTSIDE = {
    **dict.fromkeys(
        (
            "cli.project_source:_PINS",  # columns of somebody's table
            "cli.project_source:_PLAIN",
            "cli.project_source:_pin()",
            "backends.reports.render:_CONTROL",
            "console.report_fragment:_LOCAL",
            "console.report_fragment:_REMOTE",
            "core.control_codes:_CODES",
            "core.url_credentials:_CAPITAL",
            "core.url_credentials:_LOGIN_ALONE",
            "core.url_credentials:_MAYBE_SECRET",
            "core.url_credentials:_NAME",
            "core.url_credentials:_NO_LOGIN",
            "core.url_credentials:_PORT",
            "core.url_credentials:_RUN",  # what a bucket's driver says
            "core.url_credentials:_SECRET",
            "core.url_credentials:_SPACED",
            "core.url_credentials:_USER",
            "core.url_credentials:_VALUE",
            "generation.json_schema_grammar:_RULE_NAME",
            "backends.vcs.guarded_dvc:_DIGEST",  # lists in DVC's remote
            "backends.readers.html_reader:_PICTURE",
            "backends.readers.html_reader:_XML",
            "backends.readers.web_fetch:_AGENT",
            "config.loading.foreign_import:_set_base_model()",  # a configuration that somebody else wrote
            "config.loading.foreign_import:_add_axolotl_dataset()",
            "config.loading.foreign_import:_add_source()",
            "data.filters.repair:_ATTRIBUTE",
            "data.filters.repair:_BLANKS",
            "data.filters.repair:_BREAKS",
            "data.filters.repair:_CLOSING",
            "data.filters.repair:_CONTROLS",
            "data.filters.repair:_EMPTY_LINES",
            "data.filters.repair:_ENTITY",
            "data.filters.repair:_ESCAPES",
            "data.filters.repair:_INNER",
            "data.filters.repair:_LINE_ENDS",
            "data.filters.repair:_OPENING",
            "data.filters.repair:_PARAGRAPHS",
            "data.filters.repair:_TAGS",
            "data.filters.repair:_TOO_LARGE",
            "data.formats.instruction:_TURN",
            "data.formats.preference_formats:_SPEAKER",
            "data.split.contamination:_TOKEN",
            "data.split.groups:_WORD",
            "data.filters.language:_NO_LETTERS",
            "data.readers.file_discovery:_CACHED",  # where a link in an archive of somebody else leads
            "data.readers.json_reader:_BLANKS",
            "data.readers.json_reader:_CONSTANT",
            "data.readers.json_reader:_MARK",
            "data.readers.text_reader:_FRONT",
            "data.readers.text_reader:_KEY",
            "data.readers.text_reader:_PAIR",
            "data.readers.csv_reader:_EXCEL",
            "evaluation.llm_judge:_ALONE",
            "evaluation.llm_judge:_LAST",
            "evaluation.train_overlap:_WORD",
            "evaluation.safety:_REFUSAL",
            "evaluation.safety:_WORD",
            "evaluation.slot_error:_APOSTROPHES",
            "evaluation.slot_error:_BLANKS",
            "evaluation.slot_error:_MOJIBAKE",
            "evaluation.slot_error:_POUND",
            "monitoring.exemplars:_WORD",
            "monitoring.features:_WORD",
            "preferences.meaning_representation:_NO_NAME",
            "preferences.meaning_representation:_VALUE",
            "preferences.word_evidence:_WORD",
            "privacy.street_addresses:_BOX",
            "privacy.street_addresses:_DIGIT",
            "privacy.street_addresses:_ENGLISH",
            "privacy.street_addresses:_FRENCH",
            "privacy.street_addresses:_GERMAN",
            "privacy.street_addresses:_MILITARY",
            "privacy.street_addresses:_NAMELESS",
            "privacy.street_addresses:_NORTHERN",
            "privacy.street_addresses:_SOUTHERN",
            "privacy.street_addresses:_YEAR",
            "privacy.street_addresses:_ZIPPED",
            "privacy.decoded_text:_BASE64",
            "privacy.decoded_text:_BASE64_LINES",
            "privacy.decoded_text:_MARKED",
            "privacy.decoded_text:_TAGS",
            "privacy.decoded_text:_WRITTEN",
            "privacy.json_numbers:_QUOTE",
            "privacy.mask:_SHORT_WORD",
            "privacy.secret_keys:_ALTERNATIVES",
            "privacy.secret_keys:_AMAZON",
            "privacy.secret_keys:_ASSIGNED",
            "privacy.secret_keys:_BITCOIN",
            "privacy.secret_keys:_PUTTY",
            "privacy.secret_keys:_WRITTEN_ELSEWHERE",
            "privacy.secret_keys:_ISSUED",
            "privacy.secret_keys:_LONGEST_WORD",
            "privacy.secret_keys:_NOUN",
            "privacy.secret_keys:_PHRASE",
            "privacy.secret_keys:_STATEMENT",
            "privacy.secret_keys:_SCHEME",
            "privacy.spans:PLACEHOLDER",
            "privacy.patterns:_AT",
            "privacy.patterns:_MARKS",
            "privacy.patterns:_CARD",
            "privacy.patterns:_DATABASE_LOGIN",
            "privacy.patterns:_DOT",
            "privacy.patterns:_EMAIL",
            "privacy.patterns:_SPACED_EMAIL",
            "privacy.patterns:_SPELLED_EMAIL",
            "privacy.patterns:_MAIL_WORD",
            "privacy.patterns:_MAIL_HOST",
            "privacy.patterns:_NO_MAILBOX",
            "privacy.patterns:_IBAN",
            "privacy.patterns:_IPV4",
            "privacy.patterns:_IPV6",
            "privacy.patterns:_ISSUER",
            "privacy.patterns:_LOCAL",
            "privacy.patterns:_LINKED",
            "privacy.patterns:_LOGIN",
            "privacy.patterns:_NANP",
            "privacy.patterns:_SCALED_IMAGE",
            "privacy.patterns:_SEVEN_DIGITS",
            "privacy.patterns:_SLASHES",
            "privacy.patterns:_SSN",
            "privacy.patterns:_TOKEN",
            "privacy.patterns:_TRUNK",
            "privacy.patterns:_URL",
            "privacy.patterns:find_card_numbers()",
            "privacy.patterns:find_ibans()",
            "privacy.patterns:_digits()",
            "privacy.patterns:find_ssns()",
            "privacy.person_names:_FIELD",
            "privacy.person_names:_MAILBOX",
            "privacy.person_names:_OTHER_LETTERS",
            "privacy.person_names:_PIECE",
            "privacy.person_names:_RUN",
            "privacy.person_names:_strip_possessive()",
            "artifacts.names:ContentId",  # a bucket's pointers
            "artifacts.canary_state:Signature.key_id",
            "artifacts.names:RecordName",
            "artifacts.names:_CONTENT_ID",
            "retraining.run_store:NAME",
            "serving.requests:PrintableId",
            "serving.requests:_PATH",  # words of msgspec, which repeat a value of the body
            "serving.requests:parse()",
        ),
        LETTERS,
    ),
    # Tried on so many letters of a text at most, which the place that calls it cuts out.
    "backends.readers.html_reader:_CHARSET": 4096,
    "backends.readers.html_reader:_XML_ENCODING": 4096,
    "privacy.street_addresses:_AFTER_IN": 8,
    "privacy.patterns:_PHONE_WORD": 40,
    "privacy.patterns:_VERSION": 24,
    "privacy.person_names:_DASH": 40,
    "privacy.person_names:_FIRM": 20,
    "privacy.person_names:_INTRODUCED": 40,
    "privacy.person_names:_NAMED": 40,
    "privacy.person_names:_ROLE": 40,
}
"""Patterns that meet a stranger's text, and on how many letters of it they are tried."""

OWN, TYPED, DECLARED = "text that we wrote ourselves", "what a person typed here", "the project's own configuration"
INTERNAL = {
    "backends.export.bento_build:_BLOCK": OWN,
    "backends.export.bento_build:_PACKAGE": OWN,
    "backends.export.sbom:_BASE_IMAGE": OWN,
    "backends.export.sbom:_REQUIREMENT": OWN,
    "backends.vcs.dvc_cache:_DIGEST": "file names in DVC's cache",
    "backends.vcs.dvc_lock:_EXPONENT": "dvc.lock, which DVC writes",
    "cli.project_source:HUB_ID": TYPED,
    "cli.project_source:add_source()": TYPED,
    "console.build_state:find_running_stage()": OWN,
    "console.links:_VARIABLE": OWN,
    "core.documentation:_ANCHOR": OWN,
    "core.documentation:read_anchors()": OWN,
    "core.error_slugs:make_slug()": OWN,
    "pipeline.background_build:parse_process()": OWN,
    "cli.federate:_take_name()": "a name that was typed here",
    "backends.export.exporter_env:error_line()": "a line of our own child process",
    "backends.export.openvino_export:read_element_types()": OWN,
    "backends.reports.svg_plots:_rewrite_tag()": "tags that matplotlib wrote; the text of labels has no < there",
    "backends.reports.svg_plots:_write()": OWN,
    "chat.tokenizer:Tokenizer.__init__()": "a decoder's description, which the tokenizer library wrote",
    "chat.tokenizer:_BYTE": "one token of the vocabulary",
    "cli.evaluate_bases:_HUB": TYPED,
    "cli.import_:run()": TYPED,
    "pipeline.run_estimate:model_size()": DECLARED,
    "sweeps.search_space:_PLAIN": DECLARED,
    "jobs.job_script:_HOLE": DECLARED,
    "backends.schedulers.ray_scheduler:_STATE": "what the program of Ray printed",
    "backends.schedulers.slurm_scheduler:_SUBMITTED": "what sbatch printed",
    "backends.schedulers.slurm_scheduler:_quote_path()": DECLARED,
    "backends.vcs.dvc_remote:_SECTION": DECLARED,
    "sweeps.search_space:_format()": DECLARED,
    "pipeline.system_check:_EXTRA": "the installed metadata of this distribution",
    "pipeline.system_check:_REQUIREMENT": "the installed metadata of this distribution",
    "cli.project_template:NAME": TYPED,
    "cli.project_template:_replace_line()": OWN,
    "cli.project_template:_settle_conf()": OWN,
    "cli.project_template:project_name()": TYPED,
    "cli.time_args:parse_time()": TYPED,
    "cli.retrain_controller:_refuse_builds()": TYPED,
    "pipeline.code_digest:_DOTTED": OWN,
    "pipeline.code_digest:_data_files()": OWN,
    "config.loading.compose:_describe_composition_error()": "an error of Hydra",
    "config.loading.override_parsing:_GROUP": TYPED,
    "config.loading.override_parsing:_KEY": TYPED,
    "config.loading.override_file:_PLAIN": TYPED,
    "config.schema.slot_error:SlotErrorRules._refuse_bad()": DECLARED,
    "config.schema.slot_error:TERM": DECLARED,
    "data.filters.quality:QualityFilter._build_shared_rules()": "words that the configuration declares, each as it is",
    "core.pattern_ambiguity:validate_pattern()": "compiled to find mistakes; DeclaredPattern searches",
    "access.signatures:TrustedKeyName": "the file of trusted keys",
    "access.signatures:TrustedKey.public_key": "the file of trusted keys",
    "access.api_keys:ApiKey.name": "the server's own file of keys",
    "access.api_keys:ApiKey.sha256": "the server's own file of keys",
}
"""Patterns that meet none, and why."""

_BLANKS, _DEEP = " " * LETTERS, LETTERS // 4
FUNCTIONS: dict[str, tuple[str, ...]] = {
    "backends.readers.web_fetch:parse_robots": (  # older versions of protego than pyproject.toml asks for take hours for the first two
        "User-agent: *\nDisallow: /" + "*a" * 20 + "b\n",
        "a " * LETTERS,
        "".join(f"User-agent: a{number}\n" for number in range(3000)) + "Disallow: /\n" * 4000,
        "".join(f"useragent t{'*' * number}\n" for number in range(300)) + "Disallow: /\n" * 4000,
    ),
    "privacy.secret_keys:find_marked_keys": (
        *(mark * (LETTERS // len(mark)) for mark in secret_keys._BY_MARK),
        *(mark + "a" * LETTERS for mark in secret_keys._BY_MARK),
        *(f"{mark}0123456789abcdef" * (LETTERS // 30) for mark in secret_keys._BY_MARK),
        "a" * LETTERS + "".join(secret_keys._BY_MARK),
        "0" * LETTERS + "".join(secret_keys._BY_MARK),
    ),
    "privacy.secret_keys:_find_private_keys": (
        "Private-Lines: 1 " * (LETTERS // 2),
        "Private-Lines: 1\nPrivate-MAC: " * (LETTERS // 4),
        "-----BEGIN PRIVATE KEY-----" * (LETTERS // 4),
        "-----BEGIN PRIVATE KEY----------END " * (LETTERS // 4),
        "-----BEGIN " * (LETTERS // 4),
    ),
    "chat.tool_calls:parse_tool_calls": (
        "<tool_call>" + _BLANKS,
        "<tool_call>\n" * 9000,
        f"<tool_call>{_BLANKS}x</tool_call>",
    ),
    "core.url_credentials:hide_credentials": (
        "://" + ":" * LETTERS,
        "://" * _DEEP,
        "a://b@" * 16_000,
        "://:@" * 20_000,
        "://" + "?token=" * 14_000,
        "://" + "?key=a" * 16_000,
        "://" + ";key=a" * 16_000,
        "://" + "?" + "a" * LETTERS,
        "://" + "?a=" * 33_000,
        "://" + "?a_" * 33_000,
        "://a:" * 20_000,
        "://a:b " * 14_000,
        "://a:" + "b " * 50_000,
        "://" + "?key=" + "a" * LETTERS,
    ),
    "console.report_fragment:clean": (
        *(
            piece * (LETTERS // len(piece))
            for piece in (
                *(
                    "<",
                    "<a",
                    "<a ",
                    "<a/",
                    "<a b='",
                    '<a b=">',
                    "</",
                    "</a ",
                    "<!",
                    "<!--",
                    "<![CDATA[",
                    "<?",
                    "&",
                    "&#",
                ),
                *("<b>", "<br/>", "<title>", "<form>", "<script>", "<a href=#a>", "<svg id=a>", "<p>1 < 2 & "),
            )
        ),
        "<b>" * (LETTERS // 6) + "</i>" * (LETTERS // 8),
        "<i><b>" + "<b></i>" * (LETTERS // 7),
        "<form>" + "<p></i>" * (LETTERS // 7),
        "<script>" + "</script " * (LETTERS // 9),
        "<script>" + "</" * (LETTERS // 2),
        f"<p class='{'a' * LETTERS}'>",
        f"<p {'a=b ' * _DEEP}>",
        f"<p style='{'fill:a;' * (LETTERS // 7)}'>",
        f"<p a{_BLANKS}=",
        "<p " + "=" * LETTERS + "'",
        "<!--" + "-- " * (LETTERS // 3),
        "<![CDATA[" + "] " * (LETTERS // 2),
        "&#" + "9" * LETTERS,
    ),
    "data.readers.text_reader:front_matter": (
        f"---\nk:{_BLANKS}x\n---\n",
        f"---\nk{_BLANKS}x\n---\n",
        "---\n" + "\n---x" * 20_000,
        "---\n" + "\n---" + _BLANKS,
        "---\n" + "k: v\n- x\n" * (LETTERS // 9) + "---\n",
        f"---\n'{'k' * LETTERS}\n---\n",
        "---" + _BLANKS,
    ),
    "data.filters.repair:strip_html": (
        "<script>" * 12_000,
        "<!--" * _DEEP,
        "<a " * _DEEP,
        "<a" + _BLANKS,
        "<br" * _DEEP,
        "x<b>" * _DEEP,
        "x<p else>" * (LETTERS // 9),
        "x<p>" * _DEEP + "</p>",
        "</b>" * _DEEP,
        "</b" + _BLANKS,
        f"x<p{_BLANKS}a{_BLANKS}>",
        f"x<p {'a' * LETTERS}>",
        "&" * LETTERS,
    ),
    "data.filters.repair:normalize_whitespace": (_BLANKS, " \n" * 50_000, "a" + _BLANKS, "\t \r" * 30_000),
    "data.filters.repair:strip_control_chars": (
        "\x1b[" * 50_000,
        "\x1b]" * 50_000,
        "\x1b]" + "x" * LETTERS,
        "\x1b[" + "0" * LETTERS,
    ),
    "preferences.meaning_representation:parse_mr": (
        "a" * LETTERS,
        "a" + _BLANKS,
        "a[" * 50_000,
        "a " * 50_000,
        "a[b]" * _DEEP,
        "[" * LETTERS,
    ),
    "evaluation.llm_judge:parse_verdict": ("-" * LETTERS, "answer" + _BLANKS, "a" + _BLANKS + "x", "[[" * 50_000),
    "evaluation.safety:refuses": ("I cannot " * 11_000, "i" * LETTERS, "we are " * 14_000),
    "evaluation.slot_error:input_slots": (
        "name[" * 20_000,
        "name" * _DEEP,
        "name" + _BLANKS,
        "name[a]" * 14_000,
        "name[x] " + "name[" * 19_000,
    ),
    "evaluation.slot_error:normalize": ("gbp" * 33_000, "£" * LETTERS, "'" * LETTERS),
}
"""Whole functions, for what stands around their patterns: slices, loops, ``find``; and for patterns that they put together."""


class Place(NamedTuple):
    """Where patterns stand: a constant, a field, or a function that spells them."""

    name: str
    """``room.module:NAME``, or ``room.module:function()``."""
    spelt: list[tuple[str, str]]
    """Verb and pattern of each call; the pattern is empty where it is no plain text."""
    verbs: set[str]
    """Of a constant: how its module uses it."""


def sources() -> Iterator[Place]:
    """Every place of the source that has a pattern of Python's own."""
    for path in sorted((SOURCE / "tunectl").rglob("*.py")):
        module = ".".join(path.with_suffix("").relative_to(SOURCE / "tunectl").parts)
        tree = ast.parse(path.read_text())
        used = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
        for name, node in places(tree.body):
            found = list(patterns(node))
            if found:
                yield Place(f"{module}:{name}", found, {one.attr for one in used if ast.unparse(one.value) == name})


def places(body: list[ast.stmt], before: str = "") -> Iterator[tuple[str, ast.AST]]:
    for node in body:
        if isinstance(node, ast.ClassDef):
            yield from places(node.body, f"{before}{node.name}.")
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield f"{before}{node.name}()", node
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            yield before + ast.unparse(node.targets[0] if isinstance(node, ast.Assign) else node.target), node
        else:
            yield f"{before}line {node.lineno}", node


def patterns(place: ast.AST) -> Iterator[tuple[str, str]]:
    """Each use of a pattern of Python's own. Fields of pydantic are matched by Rust, in linear time."""
    for call in ast.walk(place):
        if not isinstance(call, ast.Call):
            continue
        module, _, verb = ast.unparse(call.func).rpartition(".")
        given = next((word.value for word in call.keywords if word.arg == "pattern"), None)
        if module == "re" and verb != "escape":
            given = call.args[0]
        elif verb != "Meta" or given is None:
            continue
        yield verb, given.value if isinstance(given, ast.Constant) and isinstance(given.value, str) else ""


def test_every_pattern_is_listed_and_none_twice() -> None:
    there, functions = {place.name for place in sources()}, {f"{name}()" for name in FUNCTIONS}
    assert sorted(there - OUTSIDE.keys() - INTERNAL.keys() - functions) == [], (
        "list it: does it meet a stranger's text?"
    )
    assert sorted((OUTSIDE.keys() | INTERNAL.keys()) - there) == [], "it is gone: take it from the list"
    assert not OUTSIDE.keys() & INTERNAL.keys()
    assert all(INTERNAL.values())


def test_patterns_are_called_by_their_usual_name_and_pydantic_uses_rust() -> None:
    for path in (SOURCE / "tunectl").rglob("*.py"):
        text = path.read_text()
        assert "from re import" not in text, path
        assert "import re as" not in text, path
        assert "regex_engine" not in text, path


def test_no_field_takes_a_line_break_behind_its_end() -> None:
    """``$`` matches before a last line break; msgspec searches with ``re``, and a name with one goes into files and logs."""
    fields = [(place.name, text) for place in sources() for verb, text in place.spelt if verb == "Meta"]
    assert len(fields) > 5
    assert [name for name, text in fields if not text.endswith(r"(?!\n)$")] == []


VERBS = {"match": {"match"}, "fullmatch": {"fullmatch"}, "Meta": {"search"}}
"""What is tried for each way to use a pattern; all others look for every match."""


def compiled(place: Place) -> Iterator[tuple[re.Pattern[Any], set[str]]]:
    """The patterns of a place and what is done with them: of a constant as it is, of anything else as they are spelt there."""
    module, _, attribute = place.name.partition(":")
    constant = attribute.isidentifier() and getattr(importlib.import_module(f"tunectl.{module}"), attribute)
    if isinstance(constant, re.Pattern):
        yield constant, {one for verb in place.verbs or {""} for one in VERBS.get(verb, {"finditer"})}
        return
    for verb, text in place.spelt:
        if text:
            yield re.compile(text), VERBS.get(verb, {"finditer"})


_parser: Any = importlib.import_module("re._parser")
CLASSES = {
    "CATEGORY_DIGIT": str.isdigit,
    "CATEGORY_SPACE": str.isspace,
    "CATEGORY_WORD": lambda one: one.isalnum() or one == "_",
}
CANDIDATES = [*"a A1-.,:_'[(<@/=\n\t\"&;#\x1b☃"]


def in_class(items: list[tuple[Any, Any]], letter: str) -> bool:
    wanted, code = True, ord(letter)
    found = False
    for kind, value in items:
        match str(kind):
            case "NEGATE":
                wanted = False
            case "LITERAL":
                found |= code == value
            case "RANGE":
                found |= value[0] <= code <= value[1]
            case _:
                told = str(value)
                found |= CLASSES[told.replace("_NOT_", "_")](letter) != ("_NOT_" in told)
    return found is wanted


def letters_of(kind: str, value: Any) -> list[str]:
    """Some letters that one step of a pattern takes."""
    if kind == "LITERAL":
        return [chr(value)]
    if kind == "NOT_LITERAL":
        return [one for one in CANDIDATES if ord(one) != value][:3]
    if kind == "ANY":
        return ["a", " "]
    own = [
        chr(told if str(what) == "LITERAL" else told[0]) for what, told in value if str(what) in {"LITERAL", "RANGE"}
    ]
    return [one for one in [*CANDIDATES, *own] if in_class(value, one)][:3]


def walked(tree: Any, before: str = "", *, repeated: bool = False) -> Iterator[tuple[str, str]]:
    """(what leads to it, one round of it) for each repetition in a parsed pattern; the last is (a whole match, nothing)."""
    for kind, value in ((str(kind), value) for kind, value in tree):
        match kind:
            case "LITERAL" | "NOT_LITERAL" | "ANY" | "IN":
                before += letters_of(kind, value)[0]
            case "BRANCH":
                ends = []
                for branch in value[1]:
                    *inner, (end, _) = walked(branch, before)
                    yield from inner
                    ends.append(end)
                yield from ((before, end[len(before) :]) for end in ends if repeated)
                before = ends[0]
            case "SUBPATTERN" | "ATOMIC_GROUP":
                *inner, (before, _) = walked(value[-1] if kind == "SUBPATTERN" else value, before, repeated=repeated)
                yield from inner
            case "MAX_REPEAT" | "MIN_REPEAT" | "POSSESSIVE_REPEAT":
                least, most, body = value
                *inner, (end, _) = walked(body, before, repeated=True)
                yield from inner
                if int(most) > 1:
                    one = [(str(what), told) for what, told in body]
                    plain = len(one) == 1 and one[0][0] in {"LITERAL", "NOT_LITERAL", "ANY", "IN"}
                    yield from ((before, unit) for unit in (letters_of(*one[0]) if plain else [end[len(before) :]]))
                before += end[len(before) :] * max(int(least), 1)
            case "ASSERT" if value[0] < 0:
                *_, (before, _) = walked(value[1], before)
            case _:  # edges and what must not stand there take no letter
                pass
    yield before, ""


def attacks(pattern: re.Pattern[Any], most: int) -> Iterator[str]:
    """Texts that make a pattern repeat itself without coming to an end, as it is read from its own parts."""

    def filled(start: str, unit: str, end: str = "") -> str:
        return start + unit * ((most - len(start)) // len(unit)) + end

    *repeats, (whole, _) = walked(
        _parser.parse(pattern.pattern.decode() if isinstance(pattern.pattern, bytes) else pattern.pattern)
    )
    starts = dict.fromkeys(start for start, _ in repeats)
    units = {unit for _, unit in repeats}
    yield from (filled("", unit) for unit in sorted(units | {whole, " ", "a"}) if unit)
    yield from (filled("", start) for start in starts if start)
    crossed = list(product(starts, sorted(units)))
    for start, unit in crossed if len(crossed) <= CROSSED else dict.fromkeys(repeats):
        yield filled(start, unit, "\0☃")
        yield filled("", start + unit)


def hold(
    act: Callable[[str], object], texts: Iterable[str], before: Callable[[], None] = lambda: None
) -> tuple[float, str]:
    """The most processor time that one of the texts took, and how that text begins; ``before`` is called before each."""
    worst = (0.0, "")
    for text in dict.fromkeys(texts):
        before()
        began = time.process_time()
        found = act(text)
        if isinstance(found, Iterator):
            deque(found, 0)
        worst = max(worst, (time.process_time() - began, text[:40]))
        if worst[0] > SECONDS:
            break
    return worst


def scan(pattern: re.Pattern[Any], verbs: set[str]) -> Callable[[str], object]:
    """What the source does with a pattern, done with a text."""

    def act(text: str) -> None:
        given: Any = text.encode("utf-8", "replace") if isinstance(pattern.pattern, bytes) else text
        for verb in verbs:
            found = getattr(pattern, verb)(given)
            if verb == "finditer":
                deque(found, 0)

    return act


def attack() -> None:
    """What the child does: a line before each text, so that whoever reads knows which place took too long."""
    for place in sources():
        if place.name in OUTSIDE:
            for pattern, verbs in compiled(place):
                say(place.name)
                say(
                    place.name,
                    *hold(scan(pattern, verbs), attacks(pattern, OUTSIDE[place.name]), partial(say, place.name)),
                )
    for name, texts in FUNCTIONS.items():
        module, _, function = name.partition(":")
        act = getattr(importlib.import_module(f"tunectl.{module}"), function)
        say(name)
        say(name, *hold(partial(ACTS[function], act) if function in ACTS else act, texts, partial(say, name)))


def with_rules(act: Callable[[Any, Any], object], text: str) -> object:
    return act(SimpleNamespace(parse="brackets", attributes={"name": None}), SimpleNamespace(question=text))


def ask_robots(act: Callable[[str, str], Any], text: str) -> object:
    return act(text, "tunectl").can_fetch("http://h/" + "a" * 2000, "tunectl")


ACTS = {"input_slots": with_rules, "parse_robots": ask_robots}
"""How functions are called that take more than a text."""


def say(name: str, seconds: float = 0.0, text: str = "") -> None:
    print(json.dumps([name, seconds, text]), flush=True)


@pytest.fixture(scope="module")
def told() -> dict[str, tuple[float, str]]:
    """What the child says of each place: processor time, and the text that took it; 'killed' where it said nothing for too long."""
    child = subprocess.Popen([sys.executable, __file__], stdout=subprocess.PIPE, text=True)
    found: dict[str, tuple[float, str]] = {}
    assert child.stdout is not None
    watch = threading.Timer(6 * TIMEOUT_SECONDS, child.kill)  # the first word waits for imports
    watch.start()
    last = ""
    for line in child.stdout:
        watch.cancel()
        last, seconds, text = json.loads(line)
        found[last] = max(found.get(last, (0.0, "")), (seconds, text))
        watch = threading.Timer(TIMEOUT_SECONDS, child.kill)
        watch.start()
    watch.cancel()
    child.stdout.close()
    with suppress(subprocess.TimeoutExpired):
        child.wait(TIMEOUT_SECONDS)
    if child.returncode != 0:
        found[last] = (TIMEOUT_SECONDS, f"killed, or ended with {child.returncode}")
    return found


def test_no_hostile_text_holds_a_pattern_up(told: dict[str, tuple[float, str]]) -> None:
    assert {name: worst for name, worst in told.items() if worst[0] > SECONDS} == {}
    assert told.keys() == OUTSIDE.keys() | FUNCTIONS.keys()


def test_a_pattern_that_backtracks_is_noticed() -> None:
    for text, sizes in (
        (r"<c>\s*(.*?)\s*</c>", (150, 450)),
        (r"(\w[\w -]*?)\s*\[", (1000, 4000)),
        (r"(a+)+b", (16, 20)),
    ):
        pattern = re.compile(text)
        act = scan(pattern, {"finditer"})
        small, large = (max(hold(act, iter([one]))[0] for one in attacks(pattern, size)) for size in sizes)
        assert large > 5 * small, text


if __name__ == "__main__":
    attack()
