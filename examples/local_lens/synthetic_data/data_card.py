"""The data card: the contents of the folder, with counts."""

from __future__ import annotations

import csv
import json
from collections import Counter

from synthetic_data import vocabulary
from synthetic_data.planted_errors import Planted

HEAD = """# Local Lens: a synthetic example

**Everything here is invented.** No business, person, address, number or campaign is real; only the neighbourhood names of
Atlanta are. The shares of neighbourhoods and prices are made up, too, and say nothing about the city. Made by
`make_data.py` from a fixed seed; `python examples/local_lens/make_data.py --check` proves that the files are what the script makes.
License: that of tunectl (Apache-2.0).

The use case: Local Lens writes short ads for small businesses. It has five kinds of raw text about them and its past
campaigns, each a brief and the ad that was written. The files have the errors of real files: duplicates, wrong encodings,
empty fields, and personal data.

## Files
"""

TASK = """
Beside them: `run_loop_demo.py` (`make loop`) runs the retraining loop on what `make run` built, and `record_demo.py` (`make demo`) records both as
the project that `tunectl demo` shows.

## The task
From a brief (business, kind, neighbourhood, price, offer, audience, tone, two facts) to an ad in the house style: the first
sentences name business and neighbourhood; both facts and the offer stand in the ad word for word; nothing else is claimed; the
wording follows the tone; the last sentence is an invitation, a colon, and "name, neighbourhood."

`campaigns.jsonl` holds past clients, one ad a brief. `new_clients.jsonl` holds new clients: their names
share no word with those of past clients, their briefs come in forms (`form`), and their ads in families of phrasing (`phrasing`), that
occur nowhere else; each brief has two ads. They are the test set: `conf/split/local_lens.yaml` holds those values out, so a
model that only memorizes scores low. No raw document mentions a new client.
"""

USE = """
## Neighbourhoods
Two neighbourhoods are over-represented on purpose, so that the balance check of `tunectl` reports them. The target
population is declared in `conf/split/local_lens.yaml` and is also invented.

| neighbourhood | past campaigns | share |
|---|---|---|
"""

ERRORS = """
## Planted errors
`planted.json` lists where each error was planted. `personal_*` says which kinds of invented personal data are in the
rows of `personal`; e-mail addresses are at example.com, telephone numbers are from the block 555-01xx, card numbers have a valid
check digit and belong to nobody. A canary is a made-up secret; the evaluation tests whether the model reveals it.

| file | error | count |
|---|---|---|
"""


def write_card(files: dict[str, bytes], planted: Planted) -> str:
    """Return the text of README.md, with every number counted from ``files`` and ``planted``."""
    past = read_rows(files["data/campaigns.jsonl"])
    hoods = Counter(row["neighbourhood"] for row in past)
    shares = "".join(
        f"| {hood} | {hoods[hood]} | {hoods[hood] / len(past):.1%} |\n" for hood in vocabulary.NEIGHBOURHOODS
    )
    errors = "".join(
        f"| {index} | {kind} | {len(ids)} |\n"
        for index, kinds in sorted(planted.items())
        for kind, ids in sorted(kinds.items())
    )
    return HEAD + format_files_table(files) + TASK + USE + shares + ERRORS + errors


def read_rows(content: bytes) -> list[dict[str, str]]:
    """Return the objects of a JSON-lines file."""
    return [json.loads(line) for line in content.decode().splitlines()]


def format_files_table(files: dict[str, bytes]) -> str:
    """Return a table with one line a file or folder, and its count."""
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
        "social posts (JSON lines)": ("data/social.jsonl", len(read_rows(files["data/social.jsonl"])), "rows"),
        "local news (Markdown and text)": (
            "data/news/",
            sum(name.startswith("data/news/") for name in files),
            "articles",
        ),
        "flyers (PDF)": ("data/flyers/", sum(name.startswith("data/flyers/") for name in files), "pages"),
        "past campaigns (brief, ad)": ("data/campaigns.jsonl", len(read_rows(files["data/campaigns.jsonl"])), "rows"),
        "campaigns of new clients, two ads a brief": (
            "data/new_clients.jsonl",
            len(read_rows(files["data/new_clients.jsonl"])),
            "rows",
        ),
    }
    body = "".join(f"| `{place}` | {what} | {count} {unit} |\n" for what, (place, count, unit) in counts.items())
    return "| file | what | how many |\n|---|---|---|\n" + body
