"""Whatever is in the files and on the command line: a tree, or a message; never a traceback."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from tunectl.config.loading.compose import compose
from tunectl.config.loading.override_parsing import Override
from tunectl.core.errors import ConfigError

FILES = {
    "config.yaml": "defaults:\n  - sft: lora\n  - _self_\n  - experiment: null\n\nname: a\nseed: 17\ndata: null\n",
    "sft/lora.yaml": "# plain\nmethod: lora\nrank: 16\nwords: [a, b]\nparts: {x: {size: 1}}\n",
    "sft/dora.yaml": "defaults: [lora, _self_]\nmethod: dora\n",
    "experiment/small.yaml": "# @package _global_\ndefaults:\n  - override /sft: dora\nsft:\n  rank: 4\nname: ${sft.method}\n",
}
PIECES = (
    *(
        b"\xff",
        b"\t",
        b"- a\n",
        b": ",
        b"${",
        b"}",
        b"[",
        b"]",
        b"'",
        b"null",
        b"???",
        b"&x ",
        b"*x",
        b"<<: ",
        b"\n",
        b"  ",
    ),
    *(
        b"!!python/object:os.system ",
        b"#",
        b"defaults:",
        b"override /",
        b"@",
        b"1e400",
        b"~",
        b"hydra:\n  x: 1\n",
        b"? ",
    ),
)
WORDS = (
    *(
        "sft.rank=3",
        "experiment=small",
        "sft=dora",
        "a.b=3",
        "sft.rank=[",
        "sft.²=1",
        "sft.words.³=1",
        "seed=${",
        "name=${name}",
        "sft.words=[${seed}]",
    ),
    *(
        "sft@x=lora",
        "sft/x=lora",
        "=3",
        "a",
        "sft=lora,dora",
        "name=\x00",
        "name=\ud800",
        "sft.parts=null",
        "data=x",
        "0=3",
    ),
    *(
        "sft.words.0.x=3",
        "data={path: x}",
        "hydra.verbose=true",
        "hydra/launcher=x",
        "name=!x",
        "name=`x`",
        "sft..rank=3",
    ),
)


def _write(conf: Path) -> None:
    for name, text in FILES.items():
        path = conf / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def _problems(conf: Path, words: Sequence[Override] = ()) -> list[str]:
    try:
        return [one.text for one in compose(conf, words).problems if one.text]
    except ConfigError as error:
        return list(error.problems)


@pytest.mark.parametrize("seed", range(40))
def test_random_damage_is_reported_in_words(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    _write(tmp_path)
    for _ in range(rng.choice([0, 1, 2])):
        file = tmp_path / rng.choice(list(FILES))
        content = file.read_bytes()
        at = rng.randrange(len(content) + 1)
        file.write_bytes(content[:at] + rng.choice(PIECES) + content[at + rng.choice([0, 0, 1, 5]) :])
    words = [Override.from_cli(word) for word in rng.sample(WORDS, rng.choice([0, 1, 2, 3]))]
    assert all(problem.strip() for problem in _problems(tmp_path, words))


@pytest.mark.parametrize(
    ("file", "old", "new", "problem"),
    [
        ("sft/lora.yaml", b"lora", b"l\xffra", "{conf}/sft/lora.yaml: not UTF-8 text: byte 0xff at 17"),
        (
            "config.yaml",
            b"  - _self_\n",
            b"",
            "{conf}/config.yaml: the defaults list lacks _self_; add - _self_ where this file's own values shall apply, usually at the end",
        ),
        (
            "config.yaml",
            b"data:",
            b"hydra: {job: {name: x}}\ndata:",
            "hydra ({conf}/config.yaml:8): settings of Hydra itself have no effect here; remove them",
        ),
    ],
)
def test_files_of_another_kind(tmp_path: Path, file: str, old: bytes, new: bytes, problem: str) -> None:
    _write(tmp_path)
    (tmp_path / file).write_bytes((tmp_path / file).read_bytes().replace(old, new))
    assert _problems(tmp_path) == [problem.replace("{conf}", tmp_path.name)]


@pytest.mark.parametrize("word", ["sft.²=1", "sft.words.³=1"])
def test_a_raised_digit_is_no_number_of_an_entry(tmp_path: Path, word: str) -> None:
    _write(tmp_path)
    assert isinstance(_problems(tmp_path, [Override.from_cli(word)]), list)


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    _write(tmp_path)
    found = compose(tmp_path, [Override.from_cli("name=a\udcff")]).problems
    assert [one.text for one in found] == ["override 'name=a\\udcff': not UTF-8 text"]
