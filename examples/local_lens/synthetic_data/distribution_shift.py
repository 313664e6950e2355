"""The distribution shift of the loop demo: requests with a new neighbourhood, a new kind of business, and a new tone.

``generate_baseline_requests`` gives requests of past clients, ``generate_changed_requests`` those after the change. Each request comes with a
reference ad and the phrases that an ad must contain; the simulated users score and edit answers with them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from synthetic_data import campaigns, templates, vocabulary
from synthetic_data.campaigns import Business, TemplateSet, capitalize_first, fill_pattern
from synthetic_data.rng import SeededRng

NEW_NEIGHBOURHOOD = "Edgewood"
NEW_TONE = "daring"
CLIMBING_GYM = vocabulary.Kind(
    "climbing gym",
    ("day pass", "first lesson", "month of climbing", "shoe rental"),
    ("chalk bag", "belay check", "protein bar", "warm-up class"),
    ("the tallest wall is {n} metres high", "new routes are set every {day}", "the hall opens at {early}", "children climb free on {day}",
     "the old mill was turned into walls in {year}", "{seats} ropes hang from the roof", "nobody needs a partner for the low walls"),
)  # fmt: skip
CLIMBING_GYM_SHARE = 0.75
"""Share of the changed requests that come from climbing gyms; the rest come from known kinds of business in the new neighbourhood."""
FIRST_WORDS = (
    "Granite", "Pulley", "Topout", "Basecamp", "Switchback", "Chalkline", "Overhang", "Rappel", "Keystone", "Sandbag", "Cornice", "Plumbline",
)  # fmt: skip
LAST_WORDS = ("Walls", "Union", "Yard", "Depot", "Hall", "Loft", "Works", "& Rope")
ADJECTIVES = ("bold", "fearless", "wild", "restless", "reckless")
CHANGED_TEMPLATES = TemplateSet(
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
    invitations={NEW_TONE: ("Dare you to drop in", "Chalk up and show up")},
)


@dataclass(frozen=True)
class AdRequest:
    """A request for one ad."""

    brief: str
    ad: str
    """The reference ad, in the house style."""
    required_phrases: tuple[str, ...]
    """What the ad must contain word for word."""
    closing_phrases: tuple[str, ...]
    """Invitations that fit the requested tone."""


def generate_baseline_requests() -> Iterator[AdRequest]:
    """Yield requests of past clients, without end."""
    rng = SeededRng("everyday")
    clients = campaigns.make_businesses(SeededRng("businesses"), new=False)
    while True:
        client = rng.choice(clients)
        _, brief, values = campaigns.write_brief(client, campaigns.USUAL_TEMPLATES, rng)
        family = rng.choice(list(templates.FAMILIES))
        text = campaigns.write_ad(family, values, client.price, campaigns.USUAL_TEMPLATES, rng)
        yield _make_request(brief, text, values, templates.INVITATIONS[values["tone"]])


def generate_changed_requests(stream: str = "changed") -> Iterator[AdRequest]:
    """Yield requests after the change, without end; another ``stream`` gives other requests."""
    rng = SeededRng(stream)
    names = rng.shuffle([f"{item} {two}" for item in FIRST_WORDS for two in LAST_WORDS])
    while True:
        for name in names:
            client = _make_client(name, rng)
            brief, values = _write_brief(client, rng)
            yield _make_request(brief, _write_ad(values), values, CHANGED_TEMPLATES.invitations[NEW_TONE])


def _make_client(name: str, rng: SeededRng) -> Business:
    kind = CLIMBING_GYM if rng.randbelow(100) < 100 * CLIMBING_GYM_SHARE else rng.choice(vocabulary.KINDS)
    facts = [*kind.facts, *rng.sample(vocabulary.SHARED_FACTS, 4)]
    price = rng.choice(list(vocabulary.PRICES))
    return Business(
        name, kind, NEW_NEIGHBOURHOOD, price, tuple(fill_pattern(fact, rng, NEW_NEIGHBOURHOOD) for fact in facts)
    )


def _write_brief(client: Business, rng: SeededRng) -> tuple[str, dict[str, str]]:
    fact1, fact2 = rng.sample(client.facts, 2)
    values = {
        "name": client.name, "kind": client.kind.name, "hood": client.hood, "price": vocabulary.SIGNS[client.price], "tone": NEW_TONE,
        "offer": fill_pattern(rng.choice(vocabulary.OFFERS), rng, client.hood, client.kind), "audience": rng.choice(list(vocabulary.AUDIENCES)),
        "fact1": fact1, "fact2": fact2, "Fact1": capitalize_first(fact1), "Fact2": capitalize_first(fact2),
    }  # fmt: skip
    return CHANGED_TEMPLATES.briefs[rng.choice(list(CHANGED_TEMPLATES.briefs))].format(**values), values


def _write_ad(values: dict[str, str]) -> str:
    """Write the reference ad. Its parts depend on the audience alone, so that a few dozen ads suffice to learn the style."""
    index = list(vocabulary.AUDIENCES).index(values["audience"])
    (family,) = CHANGED_TEMPLATES.families.values()
    words = {**values, "adj": ADJECTIVES[index % len(ADJECTIVES)]}
    pieces = [capitalize_first(part[index >> bit & 1].format(**words)) for bit, part in enumerate(family)]
    return " ".join(
        [*pieces, f"{CHANGED_TEMPLATES.invitations[NEW_TONE][index % 3 % 2]}: {values['name']}, {values['hood']}."]
    )


def _make_request(brief: str, text: str, values: dict[str, str], closing_phrases: tuple[str, ...]) -> AdRequest:
    required_phrases = (values["name"], values["hood"], values["fact1"], values["fact2"], values["offer"])
    return AdRequest(brief, text, required_phrases, closing_phrases)
