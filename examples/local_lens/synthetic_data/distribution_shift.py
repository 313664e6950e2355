"""Changed requests: a neighbourhood that nobody wrote about, a kind of business that was not there, and another tone.

``generate_everyday`` is what clients of the past ask, ``generate_changed`` what they ask afterwards. Each commission comes with the ad as a
person of the house would write it, and with what must be in it: that is how the people of the demonstration judge and edit.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from synthetic_data import campaigns, templates, vocabulary
from synthetic_data.campaigns import Business, Voice, capital, fill
from synthetic_data.rng import Dice

HOOD = "Edgewood"
TONE = "daring"
CLIMBING = vocabulary.Kind(
    "climbing gym",
    ("day pass", "first lesson", "month of climbing", "shoe rental"),
    ("chalk bag", "belay check", "protein bar", "warm-up class"),
    ("the tallest wall is {n} metres high", "new routes are set every {day}", "the hall opens at {early}", "children climb free on {day}",
     "the old mill was turned into walls in {year}", "{seats} ropes hang from the roof", "nobody needs a partner for the low walls"),
)  # fmt: skip
SHARE = 0.75
"""Of the commissions after the change that come from climbing gyms; the rest are old kinds that open there."""
FIRST = (
    "Granite", "Pulley", "Topout", "Basecamp", "Switchback", "Chalkline", "Overhang", "Rappel", "Keystone", "Sandbag", "Cornice", "Plumbline",
)  # fmt: skip
LAST = ("Walls", "Union", "Yard", "Depot", "Hall", "Loft", "Works", "& Rope")
ADJECTIVES = ("bold", "fearless", "wild", "restless", "reckless")
VOICE = Voice(
    briefs={
        "text": "need an ad!! {name}, {kind}, {hood}, {price}. crowd: {audience}. vibe: {tone}. hook: {offer}. has to be in there: {fact1} + {fact2}.",
        "memo": "Voice memo. {name} in {hood}, that's a {kind}, {price}. Make it {tone}, for {audience}. They give {offer}. Tell people {fact1}, tell people {fact2}.",
    },
    families={
        "ledge": (
            ("No fear, {hood}: {name} is your {adj} {kind}.", "{hood}, look up: {name}, one {adj} {kind}."),
            ("Fact one: {fact1}. Fact two: {fact2}.", "Truth: {fact1}. More truth: {fact2}."),
            ("Grab {offer}, now.", "Your excuse is gone: {offer}."),
        ),
    },
    invitations={TONE: ("Dare you to drop in", "Chalk up and show up")},
)


@dataclass(frozen=True)
class Commission:
    """One ad that somebody wants."""

    brief: str
    ad: str
    """As a person of the house writes it."""
    must: tuple[str, ...]
    """What has to stand in it, word for word."""
    endings: tuple[str, ...]
    """Invitations that fit its tone."""


def generate_everyday() -> Iterator[Commission]:
    """What clients of the past ask, without end."""
    rng = Dice("everyday")
    clients = campaigns.businesses(Dice("businesses"), new=False)
    while True:
        client = rng.pick(clients)
        _, brief, values = campaigns.brief(client, campaigns.USUAL, rng)
        family = rng.pick(list(templates.FAMILIES))
        text = campaigns.ad(family, values, client.price, campaigns.USUAL, rng)
        yield _commission(brief, text, values, templates.INVITATIONS[values["tone"]])


def generate_changed(stream: str = "changed") -> Iterator[Commission]:
    """What they ask once Edgewood has opened, without end; another ``stream`` has other commissions."""
    rng = Dice(stream)
    names = rng.shuffle([f"{item} {two}" for item in FIRST for two in LAST])
    while True:
        for name in names:
            client = _client(name, rng)
            brief, values = _brief(client, rng)
            yield _commission(brief, _ad(values), values, VOICE.invitations[TONE])


def _client(name: str, dice: Dice) -> Business:
    kind = CLIMBING if dice.below(100) < 100 * SHARE else dice.pick(vocabulary.KINDS)
    facts = [*kind.facts, *dice.sample(vocabulary.SHARED_FACTS, 4)]
    price = dice.pick(list(vocabulary.PRICES))
    return Business(name, kind, HOOD, price, tuple(fill(fact, dice, HOOD) for fact in facts))


def _brief(client: Business, dice: Dice) -> tuple[str, dict[str, str]]:
    fact1, fact2 = dice.sample(client.facts, 2)
    values = {
        "name": client.name, "kind": client.kind.name, "hood": client.hood, "price": vocabulary.SIGNS[client.price], "tone": TONE,
        "offer": fill(dice.pick(vocabulary.OFFERS), dice, client.hood, client.kind), "audience": dice.pick(list(vocabulary.AUDIENCES)),
        "fact1": fact1, "fact2": fact2, "Fact1": capital(fact1), "Fact2": capital(fact2),
    }  # fmt: skip
    return VOICE.briefs[dice.pick(list(VOICE.briefs))].format(**values), values


def _ad(values: dict[str, str]) -> str:
    """Its parts are chosen by whom it is for: a few dozen ads teach how Edgewood sounds, many more teach that as well."""
    place = list(vocabulary.AUDIENCES).index(values["audience"])
    (family,) = VOICE.families.values()
    words = {**values, "adj": ADJECTIVES[place % len(ADJECTIVES)]}
    pieces = [capital(part[place >> bit & 1].format(**words)) for bit, part in enumerate(family)]
    return " ".join([*pieces, f"{VOICE.invitations[TONE][place % 3 % 2]}: {values['name']}, {values['hood']}."])


def _commission(brief: str, text: str, values: dict[str, str], endings: tuple[str, ...]) -> Commission:
    must = (values["name"], values["hood"], values["fact1"], values["fact2"], values["offer"])
    return Commission(brief, text, must, endings)
