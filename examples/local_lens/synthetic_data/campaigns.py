"""Past campaigns: a business, what was asked for, and the ad that was written. One row is one brief with one ad."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from synthetic_data import templates, vocabulary
from synthetic_data.rng import Dice

BUSINESSES = 185
NEW_CLIENTS = 30
BRIEFS_EACH = 4
OFFER_FIRST = frozenset({"street", "window", "corner", "kettle"})  # families that name the offer before the facts

Row = dict[str, str]


@dataclass(frozen=True)
class Business:
    """An invented business; its facts stay the same wherever it is mentioned."""

    name: str
    kind: vocabulary.Kind
    hood: str
    price: str
    facts: tuple[str, ...]


@dataclass(frozen=True)
class Voice:
    """What a campaign may be worded with."""

    briefs: Mapping[str, str]
    families: Mapping[str, tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]]
    invitations: Mapping[str, tuple[str, ...]]


USUAL = Voice(templates.BRIEFS, templates.FAMILIES, templates.INVITATIONS)
RESERVED = Voice(templates.RESERVED_BRIEFS, templates.RESERVED_FAMILIES, templates.RESERVED_INVITATIONS)


def fill(pattern: str, dice: Dice, hood: str, kind: vocabulary.Kind | None = None) -> str:
    """``pattern`` with its numbers, days and things filled in."""
    return pattern.format(
        n=dice.pick((3, 4, 5, 6, 8, 9, 10, 12, 14, 15)), pct=dice.pick((10, 15, 20, 25, 30)), miles=dice.pick((5, 8, 12, 20, 30, 40)),
        years=dice.pick((7, 11, 16, 22, 31)), year=dice.pick((1948, 1957, 1963, 1971, 1979, 1986, 1994)), minutes=dice.pick((10, 15, 20, 30, 45)),
        months=dice.pick((3, 6, 12)), steps=dice.pick((30, 60, 90, 150)), seats=dice.pick((7, 9, 11, 16, 24)),
        early=dice.pick(("5 am", "6 am", "7 am", "8 am", "9 am")), late=dice.pick(("6 pm", "7 pm", "8 pm", "9 pm", "10 pm")),
        day=dice.pick(vocabulary.DAYS), pet=dice.pick(vocabulary.PETS), hood=hood,
        item=dice.pick(kind.items) if kind else "", extra=dice.pick(kind.extras) if kind else "",
    )  # fmt: skip


def businesses(dice: Dice, *, new: bool) -> list[Business]:
    """The clients of the past, or the new ones, whose names share no word with the others."""
    first, last = (
        (vocabulary.NEW_FIRST_WORDS, vocabulary.NEW_LAST_WORDS)
        if new
        else (vocabulary.FIRST_WORDS, vocabulary.LAST_WORDS)
    )
    names = dice.sample([f"{item} {two}" for item in first for two in last], NEW_CLIENTS if new else BUSINESSES)
    # New clients come from everywhere alike; the past has its favorites.
    everywhere = dict.fromkeys(vocabulary.NEIGHBOURHOODS, 1 / len(vocabulary.NEIGHBOURHOODS))
    hoods = dice.distribute(everywhere if new else vocabulary.NEIGHBOURHOODS, len(names))
    prices = dice.distribute(vocabulary.PRICES, len(names))
    result = []
    for index, (name, hood, price) in enumerate(zip(names, hoods, prices, strict=True)):
        kind = vocabulary.KINDS[index % len(vocabulary.KINDS)]
        facts = [*kind.facts, *dice.sample(vocabulary.SHARED_FACTS, 4)]
        result.append(Business(name, kind, hood, price, tuple(fill(fact, dice, hood) for fact in facts)))
    return result


def capital(text: str) -> str:
    """``text`` with a capital first letter."""
    return text[:1].upper() + text[1:]


def article(adjective: str) -> str:
    """The adjective with its article."""
    return f"{'an' if adjective == 'honest' else 'a'} {adjective}"


def brief(business: Business, voice: Voice, dice: Dice) -> tuple[str, str, dict[str, str]]:
    """The form's name, the text that asks for an ad, and the values in it."""
    fact1, fact2 = dice.sample(business.facts, 2)
    tone = dice.pick(vocabulary.TONES)
    values = {
        "name": business.name, "kind": business.kind.name, "hood": business.hood, "price": vocabulary.SIGNS[business.price],
        "offer": fill(dice.pick(vocabulary.OFFERS), dice, business.hood, business.kind), "audience": dice.pick(list(vocabulary.AUDIENCES)),
        "tone": tone, "a_tone": f"{'an' if tone == 'elegant' else 'a'} {tone}", "fact1": fact1, "fact2": fact2, "Fact1": capital(fact1), "Fact2": capital(fact2),
    }  # fmt: skip
    form = dice.pick(list(voice.briefs))
    return form, voice.briefs[form].format(**values), values


def ad(family: str, values: Mapping[str, str], price: str, voice: Voice, dice: Dice) -> str:
    """An ad in the house style, worded by one family."""
    opening, facts, offer = (dice.pick(part) for part in voice.families[family])
    adjective = dice.pick(vocabulary.ADJECTIVES[values["tone"]])
    # Audience and price are mentioned where the pieces have room, but never twice.
    words = {
        **values,
        "adj": adjective,
        "a_adj": article(adjective),
        "aud": dice.pick(vocabulary.AUDIENCES[values["audience"]]),
    }
    words["priceword"] = dice.pick(vocabulary.PRICE_WORDS[price])
    middle = (offer, facts) if family in OFFER_FIRST else (facts, offer)
    closing = f"{dice.pick(voice.invitations[values['tone']])}: {values['name']}, {values['hood']}."
    return " ".join([*(capital(piece.format(**words)) for piece in (opening, *middle)), closing])


def rows(clients: list[Business], voice: Voice, dice: Dice, *, ads_each: int, prefix: str) -> list[Row]:
    """``BRIEFS_EACH`` briefs a client, each with ``ads_each`` ads of different families."""
    result: list[Row] = []
    for client in clients:
        for _ in range(BRIEFS_EACH):
            form, prompt, values = brief(client, voice, dice)
            for family in dice.sample(list(voice.families), ads_each):
                result.append(
                    {
                        "campaign_id": f"{prefix}{len(result) + 1:04d}", "business": client.name, "neighbourhood": client.hood,
                        "price_range": client.price, "form": form, "phrasing": family, "prompt": prompt,
                        "completion": ad(family, values, client.price, voice, dice),
                    }
                )  # fmt: skip
    return result
