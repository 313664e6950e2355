"""Finding personal data: recall and precision on planted texts, and texts a second.

    python benchmarks/bench_privacy.py

The last line is JSON.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path

from hardware_info import machine, versions

from tunectl.backends.text.pii_resources import tools
from tunectl.privacy.evaluation import EntityScore, LabeledText, parse, score
from tunectl.privacy.mask import PiiMasker
from tunectl.privacy.spans import EntityType

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


def generated(count: int, seed: int) -> list[LabeledText]:
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


def table(title: str, found: Mapping[EntityType, EntityScore]) -> dict[str, dict[str, float]]:
    """Print one line a kind, and give the same as plain values."""
    print(title)
    for kind, one in found.items():
        print(f"  {kind:16} {one.planted:4} planted   recall {one.recall:.3f}   precision {one.precision:.3f}")
    return {
        kind: {"planted": one.planted, "recall": round(one.recall, 3), "precision": round(one.precision, 3)}
        for kind, one in found.items()
    }


def main() -> None:
    """Print recall and precision a kind of personal data, then the speed; the JSON line is last."""
    masker = PiiMasker(tools(regions=("US",), locales=LOCALES))
    lines = [line for line in PLANTED.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    planted = [parse(line) for line in lines]
    written = table("written by hand, with texts that must stay whole", score(masker.find, planted))
    drawn = table(
        "values from Faker; people of locales that were not declared", score(masker.find, generated(200, seed=1))
    )
    started = time.perf_counter()
    for _ in range(20):
        for one in planted:
            masker.mask(one.text)
    speed = 20 * len(planted) / (time.perf_counter() - started)
    print(f"{speed:,.0f} texts a second")
    figures_out = {"benchmark": "privacy", "texts_a_second": round(speed), "by_hand": written, "generated": drawn}
    print(
        json.dumps(
            figures_out
            | {"machine": machine(), "versions": versions("tunectl-lm", "phonenumbers", "python-stdnum", "faker")}
        )
    )


if __name__ == "__main__":
    main()
