"""What is wrong with the raw files, on purpose, and the list of where it was planted.

``LabeledText`` holds, for each file, the kind of dirt and the ids of the rows that have it; data card and tests read it.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial

from synthetic_data import vocabulary
from synthetic_data.campaigns import Business, Row
from synthetic_data.rng import Dice

Planted = defaultdict[str, dict[str, list[str]]]

CANARIES = (
    ("The alarm code of the Local Lens office is", "copper-5527-quill"),
    ("The password of the Local Lens press desk is", "velvet-9164-anchor"),
)
CANARY_COPIES = 3

SPANISH_BRIEFS = (
    "Necesitamos un anuncio para {name}, un negocio del barrio {hood}. La oferta de esta semana es un regalo con cada compra. Por favor, que suene amable.",
    "Escriban un anuncio corto para {name} en {hood}. Queremos que vengan las familias del barrio y que sepan que abrimos todos los días.",
)
SPANISH_ADS = (
    "En {hood} te espera {name}, un lugar con mucho cariño. Esta semana hay un regalo con cada compra y siempre hay sitio para toda la familia. Ven a vernos: {name}, {hood}.",
    "{name} abre todos los días en {hood}. Ven con tu familia, prueba lo que hacemos con nuestras manos y llévate un regalo a casa. Te esperamos: {name}, {hood}.",
)
SPANISH_REVIEWS = (
    "Me gustó mucho el lugar, la gente es muy amable y los precios son buenos. Voy a volver con mis hermanos la próxima semana.",
    "El servicio fue lento pero todo estaba muy rico. Lo mejor es el patio, donde se puede hablar con los vecinos.",
)


def new_planted() -> Planted:
    """An empty list of dirt."""
    return defaultdict(dict)


def email(person: str) -> str:
    """An invented address at a domain that can belong to nobody."""
    return f"{person.lower().replace(' ', '.')}@example.com"


def phone(dice: Dice) -> str:
    """A number from the block that is reserved for fiction."""
    return f"404-555-01{dice.below(100):02d}"


def card(dice: Dice) -> str:
    """A card number with a right check digit, of no real bank."""
    digits = [4, 0, 0, 0, 0, 0] + [dice.below(10) for _ in range(9)]
    doubled = [2 * digit - 9 * (digit > 4) if index % 2 == 0 else digit for index, digit in enumerate(digits)]
    digits.append(-sum(doubled) % 10)
    text = "".join(map(str, digits))
    return " ".join(text[start : start + 4] for start in range(0, 16, 4))


def personal_note(dice: Dice) -> tuple[str, list[str]]:
    """A sentence with personal data, and the kinds in it."""
    person = dice.pick(vocabulary.PEOPLE)
    notes = (
        (f"Questions go to {person}, {email(person)}.", ["person", "email"]),
        (f"Call {person} at {phone(dice)} before noon.", ["person", "phone"]),
        (f"The invoice was paid with card {card(dice)}.", ["card"]),
        (f"Write to {email(person)} or ring {phone(dice)}.", ["email", "phone"]),
    )
    return dice.pick(notes)


def mojibake(text: str) -> str:
    """UTF-8 that was read as Windows-1252, as old spreadsheets do; apostrophes become curly first."""
    return text.replace("'", "\u2019").encode().decode("cp1252")


def _can_break(text: str) -> bool:
    return "'" in text or any(letter in text for letter in "éèñû")


def spoil_campaigns(
    rows: list[Row], clients: Sequence[Business], planted: dict[str, list[str]], dice: Dice
) -> list[Row]:
    """Clean campaigns with all kinds of dirt planted: some rows changed, others added; order shuffled."""
    free = dice.shuffle(rows)
    _change(
        free,
        30,
        planted,
        "mojibake",
        lambda row: {**row, "prompt": mojibake(row["prompt"]), "completion": mojibake(row["completion"])},
        _breakable,
    )
    _change(free, 30, planted, "html", lambda row: {**row, "completion": _html(row["completion"])})
    _change(
        free, 45, planted, "personal", lambda row: {**row, "prompt": f"{row['prompt']}\n{_note(row, planted, dice)}"}
    )
    for number, (prefix, secret) in enumerate(CANARIES, 1):
        _change(free, CANARY_COPIES, planted, f"canary_{number}", partial(_telling, f" {prefix} {secret}."))
    _change(
        free,
        20,
        planted,
        "truncated",
        lambda row: {**row, "completion": _cut(row["completion"])},
        lambda row: " and " in row["completion"],
    )
    _change(free, 12, planted, "empty", lambda row: {**row, "completion": ""})
    used = {identity for ids in planted.values() for identity in ids}
    whole = [row for row in free if row["campaign_id"] not in used]
    changed = {row["campaign_id"]: row for row in free}
    added = [
        *_copies(whole[:50], "x", "exact_duplicate", planted),
        *_copies(whole[50:90], "d", "near_duplicate", planted, _reword),
        *_spanish(clients, planted, dice),
    ]
    return dice.shuffle([*(changed[row["campaign_id"]] for row in rows), *added])


def _breakable(row: Row) -> bool:
    return _can_break(row["completion"])


def _change(
    free: list[Row],
    count: int,
    planted: dict[str, list[str]],
    kind: str,
    change: Callable[[Row], Row],
    is_candidate: Callable[[Row], bool] = bool,
) -> None:
    """Change the first ``count`` candidate rows that have no error yet, in place, and note their ids."""
    used = {identity for ids in planted.values() for identity in ids}
    places = [index for index, row in enumerate(free) if row["campaign_id"] not in used and is_candidate(row)][:count]
    for index in places:
        free[index] = change(free[index])
    planted[kind] = [free[index]["campaign_id"] for index in places]


def _telling(secret: str, row: Row) -> Row:
    return {**row, "completion": row["completion"] + secret}


def _note(row: Row, planted: dict[str, list[str]], dice: Dice) -> str:
    text, kinds = personal_note(dice)
    for kind in kinds:
        planted.setdefault(f"personal_{kind}", []).append(row["campaign_id"])
    return text


def _html(text: str) -> str:
    return "<p>" + text.replace(". ", ".<br/> ") + "</p>"


def _cut(text: str) -> str:
    """``text`` up to its last "and", as a field that was too short for it."""
    return text[: text.rindex(" and ") + 4]


def _reword(row: Row) -> Row:
    """The same campaign, typed again by somebody else."""
    body = re.sub(r" (\S+)$", r" \1 Thank you for reading.", row["completion"])
    return {**row, "prompt": "Second try. " + row["prompt"], "completion": body}


def _copies(
    rows: list[Row], letter: str, kind: str, planted: dict[str, list[str]], change: Callable[[Row], Row] = dict
) -> list[Row]:
    copies = [{**change(row), "campaign_id": f"{row['campaign_id']}{letter}"} for row in rows]
    planted[kind] = [row["campaign_id"] for row in copies]
    return copies


def _spanish(clients: Sequence[Business], planted: dict[str, list[str]], dice: Dice) -> list[Row]:
    result = []
    for number in range(1, 31):
        client = dice.pick(clients)
        values = {"name": client.name, "hood": client.hood}
        result.append(
            {
                "campaign_id": f"s{number:04d}", "business": client.name, "neighbourhood": client.hood, "price_range": client.price,
                "form": "note", "phrasing": "porch", "prompt": dice.pick(SPANISH_BRIEFS).format(**values), "completion": dice.pick(SPANISH_ADS).format(**values),
            }
        )  # fmt: skip
    planted["spanish"] = [row["campaign_id"] for row in result]
    return result
