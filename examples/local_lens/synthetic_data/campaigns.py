"""Past campaigns: a business, the brief, and the ad that was written. One row is one brief with one ad."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from synthetic_data import templates, vocabulary
from synthetic_data.rng import SeededRng

BUSINESSES = 185
NEW_CLIENTS = 30
BRIEFS_EACH = 4
OFFER_FIRST = frozenset({"street", "window", "corner", "kettle"})  # families that name the offer before the facts

Row = dict[str, str]


@dataclass(frozen=True)
class Business:
    """An invented business; its facts are the same in every document."""

    name: str
    kind: vocabulary.Kind
    hood: str
    price: str
    facts: tuple[str, ...]


@dataclass(frozen=True)
class TemplateSet:
    """Templates of the briefs, ads and invitations of a set of campaigns."""

    briefs: Mapping[str, str]
    families: Mapping[str, tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]]
    invitations: Mapping[str, tuple[str, ...]]


USUAL_TEMPLATES = TemplateSet(templates.BRIEFS, templates.FAMILIES, templates.INVITATIONS)
RESERVED_TEMPLATES = TemplateSet(templates.RESERVED_BRIEFS, templates.RESERVED_FAMILIES, templates.RESERVED_INVITATIONS)


def fill_pattern(pattern: str, rng: SeededRng, hood: str, kind: vocabulary.Kind | None = None) -> str:
    """Return ``pattern`` with its placeholders filled in at random."""
    return pattern.format(
        n=rng.choice((3, 4, 5, 6, 8, 9, 10, 12, 14, 15)), pct=rng.choice((10, 15, 20, 25, 30)), miles=rng.choice((5, 8, 12, 20, 30, 40)),
        years=rng.choice((7, 11, 16, 22, 31)), year=rng.choice((1948, 1957, 1963, 1971, 1979, 1986, 1994)), minutes=rng.choice((10, 15, 20, 30, 45)),
        months=rng.choice((3, 6, 12)), steps=rng.choice((30, 60, 90, 150)), seats=rng.choice((7, 9, 11, 16, 24)),
        early=rng.choice(("5 am", "6 am", "7 am", "8 am", "9 am")), late=rng.choice(("6 pm", "7 pm", "8 pm", "9 pm", "10 pm")),
        day=rng.choice(vocabulary.DAYS), pet=rng.choice(vocabulary.PETS), hood=hood,
        item=rng.choice(kind.items) if kind else "", extra=rng.choice(kind.extras) if kind else "",
    )  # fmt: skip


def make_businesses(rng: SeededRng, *, new: bool) -> list[Business]:
    """Make the past clients, or the new ones, whose names share no word with the past ones."""
    first, last = (
        (vocabulary.NEW_FIRST_WORDS, vocabulary.NEW_LAST_WORDS)
        if new
        else (vocabulary.FIRST_WORDS, vocabulary.LAST_WORDS)
    )
    names = rng.sample([f"{item} {two}" for item in first for two in last], NEW_CLIENTS if new else BUSINESSES)
    # New clients are spread evenly over neighbourhoods; past clients are not.
    everywhere = dict.fromkeys(vocabulary.NEIGHBOURHOODS, 1 / len(vocabulary.NEIGHBOURHOODS))
    hoods = rng.distribute(everywhere if new else vocabulary.NEIGHBOURHOODS, len(names))
    prices = rng.distribute(vocabulary.PRICES, len(names))
    result = []
    for index, (name, hood, price) in enumerate(zip(names, hoods, prices, strict=True)):
        kind = vocabulary.KINDS[index % len(vocabulary.KINDS)]
        facts = [*kind.facts, *rng.sample(vocabulary.SHARED_FACTS, 4)]
        result.append(Business(name, kind, hood, price, tuple(fill_pattern(fact, rng, hood) for fact in facts)))
    return result


def capitalize_first(text: str) -> str:
    """Return ``text`` with a capital first letter."""
    return text[:1].upper() + text[1:]


def with_article(adjective: str) -> str:
    """Return the adjective with its article."""
    return f"{'an' if adjective == 'honest' else 'a'} {adjective}"


def write_brief(business: Business, template_set: TemplateSet, rng: SeededRng) -> tuple[str, str, dict[str, str]]:
    """Return the name of the form, the brief, and the values in it."""
    fact1, fact2 = rng.sample(business.facts, 2)
    tone = rng.choice(vocabulary.TONES)
    values = {
        "name": business.name, "kind": business.kind.name, "hood": business.hood, "price": vocabulary.SIGNS[business.price],
        "offer": fill_pattern(rng.choice(vocabulary.OFFERS), rng, business.hood, business.kind), "audience": rng.choice(list(vocabulary.AUDIENCES)),
        "tone": tone, "a_tone": f"{'an' if tone == 'elegant' else 'a'} {tone}", "fact1": fact1, "fact2": fact2, "Fact1": capitalize_first(fact1), "Fact2": capitalize_first(fact2),
    }  # fmt: skip
    form = rng.choice(list(template_set.briefs))
    return form, template_set.briefs[form].format(**values), values


def write_ad(family: str, values: Mapping[str, str], price: str, template_set: TemplateSet, rng: SeededRng) -> str:
    """Write an ad in the house style with one family of templates."""
    opening, facts, offer = (rng.choice(part) for part in template_set.families[family])
    adjective = rng.choice(vocabulary.ADJECTIVES[values["tone"]])
    # A piece may name audience or price; no ad names either twice.
    words = {
        **values,
        "adj": adjective,
        "a_adj": with_article(adjective),
        "aud": rng.choice(vocabulary.AUDIENCES[values["audience"]]),
    }
    words["priceword"] = rng.choice(vocabulary.PRICE_WORDS[price])
    middle = (offer, facts) if family in OFFER_FIRST else (facts, offer)
    closing = f"{rng.choice(template_set.invitations[values['tone']])}: {values['name']}, {values['hood']}."
    return " ".join([*(capitalize_first(piece.format(**words)) for piece in (opening, *middle)), closing])


def make_rows(
    clients: list[Business], template_set: TemplateSet, rng: SeededRng, *, ads_each: int, prefix: str
) -> list[Row]:
    """Make ``BRIEFS_EACH`` briefs a client, each with ``ads_each`` ads of different families."""
    result: list[Row] = []
    for client in clients:
        for _ in range(BRIEFS_EACH):
            form, prompt, values = write_brief(client, template_set, rng)
            for family in rng.sample(list(template_set.families), ads_each):
                result.append(
                    {
                        "campaign_id": f"{prefix}{len(result) + 1:04d}", "business": client.name, "neighbourhood": client.hood,
                        "price_range": client.price, "form": form, "phrasing": family, "prompt": prompt,
                        "completion": write_ad(family, values, client.price, template_set, rng),
                    }
                )  # fmt: skip
    return result
