"""Finding personal data: recall and precision on planted texts beside Presidio's pattern recognizers, and texts a second.

    python benchmarks/bench_privacy.py [--peer VENV | --no-peer] [--keep]

Texts are written by hand (``privacy_planted.txt``), and drawn by Faker; those of Faker also inside JSON, a URL, HTML, and in
full-width letters. Presidio gets the same texts in the same run, in an environment of its own; names are left out there, because
they need a trained model, and so are the kinds that it has no pattern for. The last line is JSON; ``--keep`` writes it to
``results/bench_privacy.json``.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
import time
import venv
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import quote

from hardware_info import machine, versions
from pii_scoring import EntityScore, LabeledText, parse, score

from tunectl.backends.text.pii_resources import tools
from tunectl.privacy.mask import PiiMasker
from tunectl.privacy.spans import EntityType, PiiSpan

PEER = "presidio-analyzer==2.2.366"
PEER_KINDS = ("email", "phone", "card", "iban", "ip", "ssn")
PLANTED = Path(__file__).with_name("privacy_planted.txt")
LOCALES = (
    "en_US",
    "en_GB",
    "en_IN",
    "es_MX",
    "es_ES",
    "de_DE",
    "fr_FR",
    "it_IT",
    "nl_NL",
    "sv_SE",
)  # as in conf/curate/default.yaml
FRAMES = (
    "Please note {}, thanks.",
    "{} is what they wrote on the form.",
    "We had {} on the list; it was wrong.",
    "(see {})",
    "new: {}",
)

FORMS: dict[str, Callable[[str], str]] = {
    "JSON in JSON": lambda text: json.dumps(json.dumps(text)[1:-1])[1:-1],
    "percent-encoded": lambda text: quote(text, safe=""),
    "HTML entities": lambda text: "".join(f"&#{ord(letter)};" for letter in text),
    "full width": lambda text: text.translate({code: code + 0xFEE0 for code in range(0x21, 0x7F)} | {0x20: 0x3000}),
}
"""Ways to write a text, piece by piece, so that it is known where the planted value stands afterwards."""


def generate_texts(count: int, seed: int) -> list[LabeledText]:
    """``count`` texts a kind with values from Faker, which knows nothing of our patterns; people are of undeclared locales."""
    from faker import Faker

    american, german, british = Faker("en_US"), Faker("de_DE"), Faker("en_GB")
    foreign = Faker(["pl_PL", "cs_CZ", "hu_HU", "fi_FI", "tr_TR"])
    for number, fake in enumerate((american, german, british, foreign)):
        fake.seed_instance(seed + number)
    makers = {
        "email": american.email,
        "phone": american.phone_number,
        "card": lambda: american.credit_card_number("visa16"),
        "iban": german.iban,
        "ip": american.ipv4_public,
        "ssn": american.ssn,
        "address": lambda: american.address().replace("\n", ", "),
        "person": lambda: f"{foreign.first_name()} {foreign.last_name()}",
    }
    return [
        parse(FRAMES[number % len(FRAMES)].format(f"⟦{kind}:{maker()}⟧"))
        for kind, maker in makers.items()
        for number in range(count)
    ]


def table(title: str, entity_scores: Mapping[EntityType, EntityScore]) -> dict[str, dict[str, float]]:
    """Print one line a kind, and give the same as plain values."""
    print(title)
    for kind, item in entity_scores.items():
        print(f"  {kind:16} {item.planted:4} planted   recall {item.recall:.3f}   precision {item.precision:.3f}")
    return {
        kind: {"planted": item.planted, "recall": round(item.recall, 3), "precision": round(item.precision, 3)}
        for kind, item in entity_scores.items()
    }


def write(planted: LabeledText, form: Callable[[str], str]) -> LabeledText:
    """A text with one planted value in another form."""
    ((kind, start, end),) = planted.spans
    pieces = [form(planted.text[:start]), form(planted.text[start:end]), form(planted.text[end:])]
    before = len(pieces[0]) + 1
    return LabeledText(f'"{"".join(pieces)}"', ((kind, before, before + len(pieces[1])),))


def peer_python(folder: Path | None, scratch: Path) -> Path:
    """The interpreter of an environment with Presidio, made under ``scratch`` unless given."""
    home = folder or scratch / "peer"
    python = home / "bin" / "python"
    if not python.exists():
        venv.create(home, with_pip=True)
        install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*install, PEER], check=True)
    return python


def peer(python: Path, planted: list[LabeledText]) -> tuple[Callable[[str], list[PiiSpan]], str, float]:
    """What Presidio finds in the planted texts, as a finder; its version; and its texts a second."""
    worker = Path(__file__).with_name("presidio_worker.py")
    texts = json.dumps([item.text for item in planted])
    process = subprocess.run([str(python), str(worker)], input=texts, capture_output=True, text=True, check=True)
    reply = json.loads(process.stdout)
    result = {
        item.text: [PiiSpan(kind, start, end, "") for kind, start, end, _ in spans]
        for item, spans in zip(planted, reply["found"], strict=True)
    }
    return result.__getitem__, reply["version"], len(planted) / reply["seconds"]


def only_kinds(planted: list[LabeledText], kinds: tuple[str, ...]) -> list[LabeledText]:
    """The same texts, with the marks of ``kinds`` alone."""
    return [LabeledText(item.text, tuple(span for span in item.spans if span[0] in kinds)) for item in planted]


def measure(options: argparse.Namespace) -> dict[str, object]:
    """All runs; figures by kind."""
    masker = PiiMasker(tools(regions=("US",), locales=LOCALES))
    lines = [line for line in PLANTED.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    planted, generated = [parse(line) for line in lines], generate_texts(200, seed=1)
    figures: dict[str, object] = {
        "by_hand": table("written by hand, with texts that must stay whole", score(masker.find, planted)),
        "generated": table(
            "values from Faker; people of locales that were not declared", score(masker.find, generated)
        ),
    }
    for name, form in FORMS.items():
        figures[name] = table(
            f"values from Faker, {name}",
            score(masker.find, [write(item, form) for item in generated if item.spans[0][0] != "person"]),
        )
    started = time.perf_counter()
    for _ in range(20):
        deque((masker.mask(item.text) for item in planted), 0)
    figures["texts_a_second"] = round(20 * len(planted) / (time.perf_counter() - started))
    print(f"{figures['texts_a_second']:,} texts a second")
    if options.no_peer:
        return figures
    with tempfile.TemporaryDirectory() as folder:
        python = peer_python(options.peer, Path(folder))
        for name, texts in (("by_hand", planted), ("generated", generated)):
            find, number, speed = peer(python, texts)
            title = (
                f"Presidio {number}, patterns only, {name}; no names, addresses, secrets; {speed:,.0f} texts a second"
            )
            result = score(find, only_kinds(texts, PEER_KINDS))
            figures[f"presidio_{name}"] = table(title, result) | {"version": number, "texts_a_second": round(speed)}
    return figures


def main() -> None:
    """Print recall and precision a kind of personal data, then the speed; the JSON line is last."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", type=Path, help="an environment with Presidio; one is made when this is left out")
    parser.add_argument("--no-peer", action="store_true")
    parser.add_argument("--keep", action="store_true", help="write results/bench_privacy.json")
    options = parser.parse_args()
    own = versions("tunectl-lm", "phonenumbers", "python-stdnum", "faker")
    figures = {"benchmark": "privacy"} | measure(options) | {"machine": machine(), "versions": own}
    print(json.dumps(figures))
    if options.keep:
        Path(__file__).with_name("results").joinpath("bench_privacy.json").write_text(
            json.dumps(figures, indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
