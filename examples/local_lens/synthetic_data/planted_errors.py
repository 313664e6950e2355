"""Errors that are planted in the raw files on purpose, and the record of where.

``Planted`` maps each file to the kinds of errors and the ids of the rows that have them; data card and tests read it.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial

from synthetic_data import vocabulary
from synthetic_data.campaigns import Business, Row
from synthetic_data.rng import SeededRng

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
    """Return an empty record of planted errors."""
    return defaultdict(dict)


def make_email(person: str) -> str:
    """Make an address at a domain that is reserved for examples."""
    return f"{person.lower().replace(' ', '.')}@example.com"


def make_phone(rng: SeededRng) -> str:
    """Make a number from the block that is reserved for fiction."""
    return f"404-555-01{rng.randbelow(100):02d}"


def make_card_number(rng: SeededRng) -> str:
    """Make a card number with a valid check digit, of no real bank."""
    digits = [4, 0, 0, 0, 0, 0] + [rng.randbelow(10) for _ in range(9)]
    doubled = [2 * digit - 9 * (digit > 4) if index % 2 == 0 else digit for index, digit in enumerate(digits)]
    digits.append(-sum(doubled) % 10)
    text = "".join(map(str, digits))
    return " ".join(text[start : start + 4] for start in range(0, 16, 4))


def make_personal_note(rng: SeededRng) -> tuple[str, list[str]]:
    """Make a sentence with personal data; return it and the kinds in it."""
    person = rng.choice(vocabulary.PEOPLE)
    notes = (
        (f"Questions go to {person}, {make_email(person)}.", ["person", "email"]),
        (f"Call {person} at {make_phone(rng)} before noon.", ["person", "phone"]),
        (f"The invoice was paid with card {make_card_number(rng)}.", ["card"]),
        (f"Write to {make_email(person)} or ring {make_phone(rng)}.", ["email", "phone"]),
    )
    return rng.choice(notes)


def to_mojibake(text: str) -> str:
    """Decode UTF-8 as Windows-1252, as old spreadsheets do; apostrophes become curly first."""
    return text.replace("'", "\u2019").encode().decode("cp1252")


def _can_be_mojibake(text: str) -> bool:
    return "'" in text or any(letter in text for letter in "éèñû")


def plant_errors(
    rows: list[Row], clients: Sequence[Business], planted: dict[str, list[str]], rng: SeededRng
) -> list[Row]:
    """Plant all kinds of errors in clean campaigns: some rows are changed, others added; the order is shuffled."""
    free = rng.shuffle(rows)
    _change(
        free,
        30,
        planted,
        "mojibake",
        lambda row: {**row, "prompt": to_mojibake(row["prompt"]), "completion": to_mojibake(row["completion"])},
        _is_breakable,
    )
    _change(free, 30, planted, "html", lambda row: {**row, "completion": _to_html(row["completion"])})
    _change(
        free,
        45,
        planted,
        "personal",
        lambda row: {**row, "prompt": f"{row['prompt']}\n{_make_note(row, planted, rng)}"},
    )
    for number, (prefix, secret) in enumerate(CANARIES, 1):
        _change(free, CANARY_COPIES, planted, f"canary_{number}", partial(_append_secret, f" {prefix} {secret}."))
    _change(
        free,
        20,
        planted,
        "truncated",
        lambda row: {**row, "completion": _truncate(row["completion"])},
        lambda row: " and " in row["completion"],
    )
    _change(free, 12, planted, "empty", lambda row: {**row, "completion": ""})
    used = {identity for ids in planted.values() for identity in ids}
    whole = [row for row in free if row["campaign_id"] not in used]
    changed = {row["campaign_id"]: row for row in free}
    added = [
        *_make_copies(whole[:50], "x", "exact_duplicate", planted),
        *_make_copies(whole[50:90], "d", "near_duplicate", planted, _reword),
        *_make_spanish_rows(clients, planted, rng),
    ]
    return rng.shuffle([*(changed[row["campaign_id"]] for row in rows), *added])


def _is_breakable(row: Row) -> bool:
    return _can_be_mojibake(row["completion"])


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


def _append_secret(secret: str, row: Row) -> Row:
    return {**row, "completion": row["completion"] + secret}


def _make_note(row: Row, planted: dict[str, list[str]], rng: SeededRng) -> str:
    text, kinds = make_personal_note(rng)
    for kind in kinds:
        planted.setdefault(f"personal_{kind}", []).append(row["campaign_id"])
    return text


def _to_html(text: str) -> str:
    return "<p>" + text.replace(". ", ".<br/> ") + "</p>"


def _truncate(text: str) -> str:
    """Cut ``text`` after its last "and", as a field with a length limit does."""
    return text[: text.rindex(" and ") + 4]


def _reword(row: Row) -> Row:
    """Make a near-duplicate of a campaign."""
    body = re.sub(r" (\S+)$", r" \1 Thank you for reading.", row["completion"])
    return {**row, "prompt": "Second try. " + row["prompt"], "completion": body}


def _make_copies(
    rows: list[Row], letter: str, kind: str, planted: dict[str, list[str]], change: Callable[[Row], Row] = dict
) -> list[Row]:
    copies = [{**change(row), "campaign_id": f"{row['campaign_id']}{letter}"} for row in rows]
    planted[kind] = [row["campaign_id"] for row in copies]
    return copies


def _make_spanish_rows(clients: Sequence[Business], planted: dict[str, list[str]], rng: SeededRng) -> list[Row]:
    result = []
    for number in range(1, 31):
        client = rng.choice(clients)
        values = {"name": client.name, "hood": client.hood}
        result.append(
            {
                "campaign_id": f"s{number:04d}", "business": client.name, "neighbourhood": client.hood, "price_range": client.price,
                "form": "note", "phrasing": "porch", "prompt": rng.choice(SPANISH_BRIEFS).format(**values), "completion": rng.choice(SPANISH_ADS).format(**values),
            }
        )  # fmt: skip
    planted["spanish"] = [row["campaign_id"] for row in result]
    return result
