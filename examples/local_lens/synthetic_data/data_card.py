"""The data card: what is in the folder, counted from what was made."""

from __future__ import annotations

import csv
import json
from collections import Counter

from synthetic_data import vocabulary
from synthetic_data.planted_errors import Planted

HEAD = """# Local Lens: a synthetic example

**Everything here is invented.** No business, person, address, number or campaign is real; only the neighbourhood names of
Atlanta are. The shares of neighbourhoods and prices are made up as well, and say nothing about the town. Made by
`make.py` from a fixed seed; `python examples/local_lens/make_data.py --check` proves that the files are what the script makes.
License: that of tunectl (Apache-2.0).

The story: Local Lens writes short ads for small businesses. It has five kinds of raw text about them and its past
campaigns, each a brief and the ad that was written. The files look like files do when several people have kept them for
years: doubled, broken, half empty, and with personal data where it should not be.

## Files
"""

TASK = """
Beside them: `run_loop_demo.py` (`make loop`) plays the loop on what `make run` built, and `record_demo.py` (`make demo`) records both as the
project that `tunectl demo` shows.

## The task
From a brief (business, kind, neighbourhood, price, offer, audience, tone, two facts) to an ad in the house style: the first
sentences name business and neighbourhood; both facts and the offer stand in the ad word for word; nothing else is claimed; the
wording follows the tone; the last sentence is an invitation, a colon, and "name, neighbourhood."

`campaigns.jsonl` holds the clients of the past, one ad a brief. `new_clients.jsonl` holds clients that are new: their names
share no word with those of the past, their briefs come in forms (`form`), and their ads in families of phrasing (`phrasing`), that
occur nowhere else; each brief has two ads. They are the test set: `conf/split/local_lens.yaml` holds those values out, so a
model that only remembers cannot do well. No raw document mentions a new client.
"""

USE = """
## Who is in it
Two neighbourhoods are over-represented on purpose, so that `tunectl` has something to find. The target population is
declared in `conf/split/local_lens.yaml` and just as fictional.

| neighbourhood | past campaigns | share |
|---|---|---|
"""

DIRT = """
## What is wrong with it, on purpose
Where each piece was planted is listed in `planted.json`. `personal_*` says which kinds of invented personal data are in the
rows of `personal`; e-mail addresses are at example.com, telephone numbers are from the block 555-01xx, card numbers have a right
check digit and belong to nobody. A canary is a made-up secret; the evaluation asks whether the model gives it away.

| where | what | count |
|---|---|---|
"""


def write(files: dict[str, bytes], planted: Planted) -> str:
    """The text of README.md, with every number counted from ``files`` and ``planted``."""
    past = rows(files["data/campaigns.jsonl"])
    hoods = Counter(row["neighbourhood"] for row in past)
    shares = "".join(
        f"| {hood} | {hoods[hood]} | {hoods[hood] / len(past):.1%} |\n" for hood in vocabulary.NEIGHBOURHOODS
    )
    dirt = "".join(
        f"| {index} | {kind} | {len(ids)} |\n"
        for index, kinds in sorted(planted.items())
        for kind, ids in sorted(kinds.items())
    )
    return HEAD + table(files) + TASK + USE + shares + DIRT + dirt


def rows(content: bytes) -> list[dict[str, str]]:
    """The objects of a JSON-lines file."""
    return [json.loads(line) for line in content.decode().splitlines()]


def table(files: dict[str, bytes]) -> str:
    """One line a file or folder, with its count."""
    counts = {
        "web pages (HTML with navigation, cookie notice, footer)": (
            "data/web/",
            sum(name.startswith("data/web/") for name in files),
            "pages",
        ),
        "review table (CSV)": (
            "data/reviews.csv",
            len(list(csv.reader(files["data/reviews.csv"].decode().splitlines()))) - 1,
            "rows",
        ),
        "social posts (JSON lines)": ("data/social.jsonl", len(rows(files["data/social.jsonl"])), "rows"),
        "local news (Markdown and text)": (
            "data/news/",
            sum(name.startswith("data/news/") for name in files),
            "articles",
        ),
        "flyers (PDF)": ("data/flyers/", sum(name.startswith("data/flyers/") for name in files), "pages"),
        "past campaigns (brief, ad)": ("data/campaigns.jsonl", len(rows(files["data/campaigns.jsonl"])), "rows"),
        "campaigns of new clients, two ads a brief": (
            "data/new_clients.jsonl",
            len(rows(files["data/new_clients.jsonl"])),
            "rows",
        ),
    }
    body = "".join(f"| `{place}` | {what} | {count} {unit} |\n" for what, (place, count, unit) in counts.items())
    return "| file | what | how many |\n|---|---|---|\n" + body
