"""Raw text about the past clients: web pages, a review table, social posts, local news, flyers."""

from __future__ import annotations

import csv
import html
import io
import json
from collections.abc import Sequence

from synthetic_data import planted_errors, vocabulary
from synthetic_data.campaigns import Business, capitalize_first, fill_pattern
from synthetic_data.rng import SeededRng

PAGES, REVIEWS, POSTS, ARTICLES, FLYERS = 60, 360, 240, 36, 32

PRAISE = (
    "I go to {name} every {day} because {fact}.", "{name} is the {kind} I tell my friends about: {fact}.", "Honestly the best {kind} in {hood}, and {fact}.",
    "We tried {name} last {day}. {Fact}, just as they say.", "Good {item}, kind people, and {fact}.",
)  # fmt: skip
BLAME = (
    "The {item} at {name} was fine but the wait was long.", "I like that {fact}, yet {name} is too crowded on {day}.",
    "Not bad for {hood}. I hoped for a better {item}.", "{name} used to be quieter before the new street opened in {hood}.",
)  # fmt: skip
EXTRA = (
    "I will come back.",
    "My sister agrees.",
    "Would send anybody there.",
    "Next time I bring a neighbour.",
    "Four stars from me.",
    "That is all I wanted to say.",
    "See for yourself.",
)
NEWS = (
    "{name}, a {kind} in {hood}, has become a meeting place for the street. {Fact1}, and {fact2}.",
    "Residents of {hood} say that {name} changed their week. The {kind} is known for its {item}. {Fact1}.",
    "The neighbourhood council of {hood} named {name} its {kind} of the season. {Fact1}. {Fact2}.",
)
NEWS_MORE = (
    "The council will discuss parking and street trees at its meeting on {day}.", "A street market is planned for {day}; {n} stalls have signed up.",
    "Shop owners in {hood} hope for a dry {day}.", "The library branch in {hood} will show photographs of the street from {year}.",
)  # fmt: skip


def make_values(business: Business, rng: SeededRng) -> dict[str, str]:
    """Make values for the patterns above."""
    fact1, fact2 = rng.sample(business.facts, 2)
    return {
        "name": business.name, "kind": business.kind.name, "hood": business.hood, "fact": fact1, "Fact": capitalize_first(fact1), "fact1": fact1, "fact2": fact2,
        "Fact1": capitalize_first(fact1), "Fact2": capitalize_first(fact2), "item": rng.choice(business.kind.items), "day": rng.choice(vocabulary.DAYS),
        "n": str(6 + rng.randbelow(20)), "year": str(1920 + rng.randbelow(50)),
    }  # fmt: skip


def make_web_pages(clients: Sequence[Business], planted: dict[str, list[str]], rng: SeededRng) -> dict[str, str]:
    """Map file names to HTML with navigation, cookie notice and footer around the text."""
    pages = {}
    for number, client in enumerate(rng.sample(clients, PAGES), 1):
        name = f"page_{number:03d}.html"
        note = ""
        if number % 8 == 0:
            note, _ = planted_errors.make_personal_note(rng)
            planted.setdefault("personal", []).append(name)
        pages[name] = _make_page(client, note, rng)
        if number % 20 == 0:
            planted.setdefault("exact_duplicate", []).append(f"page_{number:03d}_copy.html")
            pages[f"page_{number:03d}_copy.html"] = pages[name]
    return pages


def _make_page(client: Business, note: str, rng: SeededRng) -> str:
    facts = " ".join(f"{capitalize_first(fact)}." for fact in client.facts[:5])
    offer = fill_pattern(rng.choice(vocabulary.OFFERS), rng, client.hood, client.kind)
    more = " ".join(f"{capitalize_first(fact)}." for fact in client.facts[5:])
    name, text = html.escape(client.name), html.escape
    paragraphs = "".join(
        f"    <p>{text(paragraph)}</p>\n"
        for paragraph in (
            f"{client.name} is a {client.kind.name} in {client.hood}, Atlanta. {facts}",
            f"{more} This month we have {offer}.",
            note,
        )
        if paragraph
    )
    return (
        f'<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8"><title>{name} | {text(client.hood)}</title>'
        f"<script>window.stats = {{page: 1}};</script></head>\n<body>\n"
        '  <nav><a href="/">Home</a> <a href="/menu">Menu</a> <a href="/find">Find us</a> <a href="/jobs">Jobs</a></nav>\n'
        '  <div class="cookie-banner">We use cookies to make this page better. <button>Accept all cookies</button></div>\n'
        f"  <main><article>\n    <h1>{name}</h1>\n{paragraphs}  </article></main>\n"
        "  <footer>All rights reserved. Privacy policy. Subscribe to our newsletter. This business is invented.</footer>\n</body>\n</html>\n"
    )


def make_review_table(clients: Sequence[Business], planted: dict[str, list[str]], rng: SeededRng) -> str:
    """Make a CSV of reviews; some are copies, some are in Spanish, some are empty, some name people."""
    rows: list[tuple[str, str, Business, str, str, int, str]] = []
    for number in range(1, REVIEWS + 1):
        client = rng.choice(clients)
        stars = 1 + rng.randbelow(5)
        identity, values = f"r{number:04d}", make_values(client, rng)
        kinds = {0: "spanish", 3: "personal", 7: "exact_duplicate", 11: "empty", 13: "mojibake"}
        kind = kinds.get(number % 24)
        text = f"{rng.choice(PRAISE if stars > 2 else BLAME).format(**values)} {rng.choice(EXTRA)}"
        if kind == "exact_duplicate":
            client, text = rows[-3][2], rows[-3][6]
        text = _add_error(text, kind, rng)
        planted.setdefault(kind, []).append(identity) if kind else None
        rows.append(
            (
                identity,
                f"2026-{1 + rng.randbelow(9):02d}-{1 + rng.randbelow(28):02d}",
                client,
                client.hood,
                client.price,
                stars,
                text,
            )
        )
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(("review_id", "date", "business", "neighbourhood", "price_range", "stars", "text"))
    writer.writerows(
        (item, date, client.name, hood, price, stars, text) for item, date, client, hood, price, stars, text in rows
    )
    return out.getvalue()


def _add_error(text: str, kind: str | None, rng: SeededRng) -> str:
    if kind == "spanish":
        return rng.choice(planted_errors.SPANISH_REVIEWS)
    if kind == "empty":
        return ""
    if kind == "personal":
        return f"{text} {planted_errors.make_personal_note(rng)[0]}"
    if kind == "mojibake":
        return planted_errors.to_mojibake(f"{text} It's a place you'd miss.")
    return text


def make_social_posts(clients: Sequence[Business], planted: dict[str, list[str]], rng: SeededRng) -> str:
    """Make JSON lines of posts with tags, URLs and HTML entities."""
    lines = []
    for number in range(1, POSTS + 1):
        client = rng.choice(clients)
        values, identity = make_values(client, rng), f"p{number:04d}"
        tag = client.hood.replace(" ", "").replace("-", "")
        text = f"{rng.choice(PRAISE).format(**values)} #{tag} #ATL https://social.example/{number}"
        if number % 15 == 0:
            text = text.replace(" and ", " &amp; ") + "<br>"
            planted.setdefault("html", []).append(identity)
        if number % 16 == 0:
            text += f" {planted_errors.make_personal_note(rng)[0]}"
            planted.setdefault("personal", []).append(identity)
        row = {
            "post_id": identity,
            "business": client.name,
            "neighbourhood": client.hood,
            "price_range": client.price,
            "text": text,
            "likes": rng.randbelow(400),
        }
        lines.append(json.dumps(row, ensure_ascii=False))
    return "\n".join(lines) + "\n"


def make_news(clients: Sequence[Business], planted: dict[str, list[str]], rng: SeededRng) -> dict[str, str]:
    """Map file names to articles: Markdown and plain text alternate."""
    files = {}
    for number in range(1, ARTICLES + 1):
        sample = rng.sample(clients, 3)
        parts = [rng.choice(NEWS).format(**make_values(client, rng)) for client in sample]
        closing = rng.choice(NEWS_MORE).format(**make_values(sample[0], rng))
        title = f"News from {sample[0].hood}"
        markdown = number % 2 == 0
        name = f"article_{number:03d}.{'md' if markdown else 'txt'}"
        files[name] = "\n\n".join([f"# {title}" if markdown else title.upper(), *parts, closing]) + "\n"
        if number % 9 == 0:
            files[name] += (
                f"\nReported by {rng.choice(vocabulary.PEOPLE)}. {planted_errors.make_personal_note(rng)[0]}\n"
            )
            planted.setdefault("personal", []).append(name)
    return files


def make_flyer_lines(clients: Sequence[Business], rng: SeededRng) -> list[tuple[str, list[str]]]:
    """Make the title and the lines of each flyer."""
    result = []
    for client in rng.sample(clients, FLYERS):
        lines = [
            f"Your {client.kind.name} in {client.hood}, Atlanta",
            *(f"{capitalize_first(fact)}." for fact in client.facts[:4]),
        ]
        lines.append(f"Bring this flyer: {fill_pattern(rng.choice(vocabulary.OFFERS), rng, client.hood, client.kind)}.")
        result.append((client.name, lines))
    return result


def make_flyer_pdf(title: str, lines: Sequence[str]) -> bytes:
    """Make a one-page PDF with a text layer."""
    from reportlab.lib.pagesizes import A5
    from reportlab.pdfgen.canvas import Canvas

    target = io.BytesIO()
    canvas = Canvas(target, pagesize=A5, invariant=1)
    canvas.setTitle(f"{title} (invented)")
    canvas.setFont("Helvetica-Bold", 22)
    canvas.drawString(40, 520, title)
    canvas.setFont("Helvetica", 12)
    for index, line in enumerate(lines):
        canvas.drawString(40, 480 - 24 * index, line)
    canvas.save()
    return target.getvalue()
