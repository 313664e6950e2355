"""Make the synthetic data of Local Lens again: ``python examples/local_lens/make_data.py`` (with ``--check``: only compare).

All businesses, people, numbers and addresses are invented; the neighbourhood names are real. The same script gives the
same text files, byte for byte; PDF files depend on the version of reportlab, so of those only the text is compared.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
from pathlib import Path

from synthetic_data import campaigns, data_card, documents, planted_errors
from synthetic_data.rng import Dice

HERE = Path(__file__).resolve().parent


def make() -> dict[str, bytes]:
    """Relative name of each generated file to its content."""
    planted = planted_errors.new_planted()
    old = campaigns.businesses(Dice("businesses"), new=False)
    new = campaigns.businesses(Dice("new clients"), new=True)
    clean = campaigns.rows(old, campaigns.USUAL, Dice("campaigns"), ads_each=1, prefix="c")
    past = planted_errors.spoil_campaigns(clean, old, planted["campaigns.jsonl"], Dice("dirt"))
    reserved = campaigns.rows(new, campaigns.RESERVED, Dice("new campaigns"), ads_each=2, prefix="n")
    files = {
        "data/campaigns.jsonl": lines(past),
        "data/new_clients.jsonl": lines(reserved),
        "data/reviews.csv": documents.review_table(old, planted["reviews.csv"], Dice("reviews")).encode(),
        "data/social.jsonl": documents.social_posts(old, planted["social.jsonl"], Dice("social")).encode(),
    }
    pages = documents.web_pages(old, planted["web"], Dice("web"))
    files |= {f"data/web/{name}": text.encode() for name, text in pages.items()}
    articles = documents.news(old, planted["news"], Dice("news"))
    files |= {f"data/news/{name}": text.encode() for name, text in articles.items()}
    flyers = documents.flyer_lines(old, Dice("flyers"))
    files |= {f"data/flyers/flyer_{number:03d}.pdf": documents.flyer(*flyer) for number, flyer in enumerate(flyers, 1)}
    files["planted.json"] = json.dumps(planted, indent=1, sort_keys=True).encode() + b"\n"
    files["README.md"] = data_card.write(files, planted).encode()
    return files


def lines(rows: list[dict[str, str]]) -> bytes:
    """JSON lines."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def text_of(pdf: bytes) -> str:
    """The text of a PDF file, page by page."""
    from pypdf import PdfReader

    return "\f".join(page.extract_text() for page in PdfReader(io.BytesIO(pdf)).pages)


def differences(files: dict[str, bytes], folder: Path) -> list[str]:
    """What on disk is absent, other than generated, or there without being generated."""
    result = []
    for name, content in files.items():
        path = folder / name
        if not path.is_file():
            result.append(f"{name} is missing")
        elif path.read_bytes() != content and not (
            name.endswith(".pdf") and text_of(path.read_bytes()) == text_of(content)
        ):
            result.append(f"{name} differs")
    there = {item.relative_to(folder).as_posix() for item in (folder / "data").rglob("*") if item.is_file()}
    return result + [f"{name} is not generated" for name in sorted(there - files.keys())]


def main() -> int:
    """Write the files, or compare them; the exit code is 1 where they differ."""
    parser = argparse.ArgumentParser(description="make the synthetic data of Local Lens")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when the files on disk differ")
    arguments = parser.parse_args()
    files = make()
    if arguments.check:
        result = differences(files, HERE)
        print("\n".join(result) or f"{len(files)} files are as generated")
        return int(bool(result))
    for name, content in files.items():
        (HERE / name).parent.mkdir(parents=True, exist_ok=True)
        (HERE / name).write_bytes(content)
    print(f"wrote {len(files)} files")
    return 0


if __name__ == "__main__":
    sys.exit(main())
