"""Names: one word has one meaning, and each is the field's."""

from __future__ import annotations

import ast
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest
import source_trees
from source_trees import SOURCE

ROOT = Path(__file__).parents[2]
FILES = [path for path in source_trees.FILES if path.name != "__init__.py"]
AROUND = [path for folder in ("benchmarks", "examples", "monitoring") for path in sorted((ROOT / folder).rglob("*.py"))]
"""Code beside the package. Tests are not in it: fixtures, and what builds data for them, are named after their results."""

STAGE_CLASSES = {"Inputs", "Outputs", "Metrics"}
FAMILIES = (
    "cli/",
    "pipeline/stages/",
    "config/schema/",
    "backends/reports/",
    "backends/wiring/",
    "console/screens/",
    "console/acts/",
)
"""Folders whose modules may be called like a module elsewhere: a stage, its section and its verb share one name."""
FAMILY_NAMES = {"protocols", "report"}
PARTICIPLES = frozenset(
    [
        "begun",
        "bought",
        "broken",
        "brought",
        "built",
        "caught",
        "chosen",
        "dealt",
        "done",
        "drawn",
        "driven",
        "fallen",
        "fed",
        "forgotten",
        "found",
        "frozen",
        "given",
        "gone",
        "heard",
        "held",
        "hidden",
        "kept",
        "known",
        "laid",
        "led",
        "left",
        "lent",
        "lost",
        "made",
        "meant",
        "met",
        "paid",
        "proven",
        "said",
        "seen",
        "sent",
        "shown",
        "sold",
        "spoken",
        "stolen",
        "stood",
        "taken",
        "taught",
        "thought",
        "thrown",
        "told",
        "torn",
        "understood",
        "withdrawn",
        "won",
        "worn",
        "written",
    ]
)
"""Irregular participles; forms that are imperatives as well (read, set, put, cut, let, run, split) are none of them."""
VAGUE_WORDS = frozenset(
    [
        "agreed",
        "asked",
        "brought",
        "drawn",
        "found",
        "given",
        "gone",
        "heard",
        "held",
        "looked",
        "made",
        "said",
        "shown",
        "taken",
        "told",
        "wanted",
    ]
)
"""Participles that say what was done to a value and not what it is: a variable is a noun (match, record, reply, query)."""
JSON_KEYS = {
    ("console/screens/answers.py", "shown"): "a key of the page's JSON",
    ("console/screens/compare.py", "asked"): "a key of the page's JSON",
    ("console/screens/people.py", "found"): "a key of the page's JSON",
    ("data/split/report.py", "found"): "a key of the report of split",
    ("data/split/report.py", "held"): "a key of the report of split",
    ("federated/exchange.py", "asked"): "a key of a federation's record of a round",
    ("pipeline/system_check.py", "found"): "a key of tunectl doctor --json",
    ("retraining/promotion_gate.py", "said"): "a key of a retrain's evidence",
    ("training/mask_diagnostics.py", "shown"): "a key of tunectl data inspect --json",
}
"""Fields that keep such a word, because it is written to a file or sent, and why: other programs read it."""
SWEEPS = (
    "sweeps/",
    "backends/sweeps/",
    "backends/reports/sweep.py",
    "cli/sweep_",
    "console/screens/sweeps.py",
    "pipeline/sweep_",
)
TEXTS = (
    "backends/reports/evaluate.py",
    "backends/text/",
    "console/screens/",
    "console/word_alignment.py",
    "core/error_slugs.py",
    "data/",
    "evaluation/",
    "monitoring/exemplars.py",
    "monitoring/features.py",
    "preferences/word_evidence.py",
    "privacy/",
    "training/rl/reward_functions.py",
)
SUBJECTS = {
    "trial": (*SWEEPS, "backends/trainers/trainer_base.py", "backends/trainers/trainer_loop.py"),
    "trials": SWEEPS,
    "word": TEXTS,
    "words": TEXTS,
    "look": (),
    "looks": (),
    "place": (),
    "places": (),
}
"""Words with one meaning, and the files that may name a variable so. trial: one of a sweep (Optuna; the Trainer's own argument, too).
word: one of a text; else argument, override or message. place: folder, path, index or location; look: validation point."""
VERBS_IN_ED = {"embed", "feed", "need", "seed", "shed", "speed"}
ADJECTIVES = {"added", "fused", "grouped", "nested", "shared", "stacked", "tuned", "unsupported"}
"""Before a noun they say which one, as in ``nested_subsets``; alone they would be a participle."""
SPELLINGS = re.compile(
    r"licence|judgement|centre|centring|normalis|optimis|[a-z]+ised\b|[a-z]+isation|aliser?s?\b|dialled|labelled(?!by)|modelled|"
    r"colour|favour|grey\b|behaviour|tokenis|summaris|recognis|neighbour(?!hood)",
    re.IGNORECASE,
)
AMERICAN_IN_ISED = re.compile(
    r"(rais|advis|advertis|compris|compromis|devis|exercis|pois|promis|revis|supervis|surpris)ed$"
)
DATA = {
    "e2e.yaml": "centre",
    "bench_align.py": "centre",
    "0005-slot-rules.md": "centre",
    "name_words.py": "centre",
    "person_names.py": "neighbour",
    "documents.py": "neighbour",
    "vocabulary.py": "neighbour",
}
"""Files whose data holds such a word: values of E2E, words of names and of the example as people write them."""
SPELLED = [
    *FILES,
    *AROUND,
    *sorted((ROOT / "conf").rglob("*.yaml")),
    *(path for path in sorted((ROOT / "docs").rglob("*")) if path.suffix in {".md", ".py"}),
    *(path for folder in ("src", "monitoring") for path in sorted((ROOT / folder).rglob("*.html"))),
    *(path for path in sorted((ROOT / "monitoring").rglob("*")) if path.suffix in {".md", ".yml", ".yaml", ".json"}),
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "Makefile", "benchmarks/README.md")),
    *sorted((ROOT / "examples").glob("*/*.md")),
]
"""Neither data nor results; the change log names words of earlier versions."""


def functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def is_property(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return any("property" in ast.unparse(one) or ".setter" in ast.unparse(one) for one in node.decorator_list)


def begins_with_participle(name: str) -> bool:
    first, _, rest = name.strip("_").partition("_")
    if first in PARTICIPLES:
        return True
    regular = first.endswith("ed") and first not in VERBS_IN_ED
    return regular and not (rest and first in ADJECTIVES)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("kept", True),
        ("_folded", True),
        ("written_rows", True),
        ("embed", False),
        ("nested_subsets", False),
        ("nested", True),
        ("read_rows", False),
        ("open_release", False),
        ("feed", False),
    ],
)
def test_participles_are_told_from_verbs(name: str, expected: bool) -> None:
    assert begins_with_participle(name) is expected


def named_trees() -> Iterator[tuple[Path, ast.Module]]:
    """Modules with a name of their own, and their trees."""
    trees = source_trees.parse_package()
    return ((path, trees[path]) for path in FILES)


def test_functions_are_named_by_verbs_and_not_by_participles() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"
        for path, tree in [*named_trees(), *((path, source_trees.parse_file(path)) for path in AROUND)]
        for node in functions(tree)
        if not is_property(node) and begins_with_participle(node.name)
    ]
    assert wrong == []


def bound_names(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Names of variables, parameters and attributes where they get a value, with the line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id, node.lineno
        elif isinstance(node, ast.arg):
            yield node.arg, node.lineno
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr, node.lineno
        elif isinstance(node, ast.ExceptHandler | ast.MatchAs | ast.MatchStar) and node.name is not None:
            yield node.name, node.lineno


@pytest.mark.parametrize(
    ("code", "names"),
    [
        ("found = [told for told in rows]", ["found", "told"]),
        ("def read(said, *, shown=0): self._made = lambda given: 1", ["said", "shown", "_made", "given"]),
        ("class Row:\n    held: int = 0", ["held"]),
        ("for asked, (drawn, *gone) in rows: pass", ["asked", "drawn", "gone"]),
        ("if (taken := 1): pass\nwith x as heard: pass", ["taken", "heard"]),
        ("try: pass\nexcept OSError as brought: pass", ["brought"]),
        ("match x:\n    case [wanted, *looked]: pass", ["wanted", "looked"]),
        ("f(found=row.found)", []),
    ],
)
def test_every_kind_of_binding_is_seen(code: str, names: list[str]) -> None:
    assert sorted(name for name, _ in bound_names(ast.parse(code))) == sorted(names)


def test_variables_are_nouns() -> None:
    vague = [
        (path.relative_to(SOURCE).as_posix(), name, line)
        for path, tree in source_trees.parse_package().items()
        for name, line in bound_names(tree)
        if name.strip("_") in VAGUE_WORDS
    ]
    assert [f"{path}:{line} {name}" for path, name, line in vague if (path, name) not in JSON_KEYS] == []
    assert {(path, name) for path, name, _ in vague} >= JSON_KEYS.keys()


def test_a_word_has_one_subject() -> None:
    used: dict[str, set[str]] = defaultdict(set)
    for path, tree in source_trees.parse_package().items():
        for name, _ in bound_names(tree):
            used[name.strip("_").lower()].add(path.relative_to(SOURCE).as_posix())
    for word, files in SUBJECTS.items():
        assert {path for path in used[word] if not path.startswith(files)} == set(), word
        assert all(
            any(path.startswith(file) for path in used["trial"] | used["words"] | used["word"]) for file in files
        ), word


def public_classes(tree: ast.Module) -> Iterator[str]:
    """Classes of a module, also those inside a function or a class, and aliases of types at its top level."""
    yield from (node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef))
    for node in tree.body:
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        if isinstance(target, ast.Name) and re.fullmatch(r"[A-Z][a-z]\w*[a-z]\w*", target.id):
            yield target.id


def test_no_class_name_is_used_twice() -> None:
    where: dict[str, set[str]] = defaultdict(set)
    for path, tree in named_trees():
        for name in public_classes(tree):
            if not name.startswith("_"):
                where[name].add(path.relative_to(SOURCE).as_posix())
    twice = {name: sorted(files) for name, files in where.items() if len(files) > 1 and name not in STAGE_CLASSES}
    assert twice == {}


def test_no_module_is_named_like_another_or_like_one_of_the_standard_library() -> None:
    where: dict[str, list[str]] = defaultdict(list)
    for path in FILES:
        name = path.relative_to(SOURCE).as_posix()
        if not name.startswith(FAMILIES) and path.stem not in FAMILY_NAMES and path.stem != "__main__":
            where[path.stem].append(name)
    assert {stem: names for stem, names in where.items() if len(names) > 1} == {}
    assert [str(path) for path in FILES if path.stem in sys.stdlib_module_names and path.stem != "__main__"] == []


def find_british(text: str) -> list[str]:
    return [word for word in SPELLINGS.findall(text) if not AMERICAN_IN_ISED.search(word.lower())]


def test_spelling_is_american() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{number} {word}"
        for path in SPELLED
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        for word in find_british(line)
        if '"licence"' not in line and 'OLD_FOLDER: Final = "judgements"' not in line and DATA.get(path.name) != word
    ]
    assert wrong == []


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("the centring of a quantised model", ["centring", "quantised"]),
        ("a generalised, realised quantisation", ["generalised", "realised", "quantisation"]),
        ("COLOURS of a grey label, dialled", ["COLOUR", "grey", "dialled"]),
        (
            'raised, promised, supervised; grey50, <p aria-labelledby="a">, neighbourhood',
            [],
        ),
        ("the realization of an optimized center", []),
    ],
)
def test_british_spellings_are_found(text: str, wrong: list[str]) -> None:
    assert find_british(text) == wrong
