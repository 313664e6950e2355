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
from synthetic_data.rng import SeededRng

HERE = Path(__file__).resolve().parent


def make_files() -> dict[str, bytes]:
    """Map the relative name of each generated file to its content.

    The names of the random streams are part of the seed: another name gives other data.
    """
    planted = planted_errors.new_planted()
    old = campaigns.make_businesses(SeededRng("businesses"), new=False)
    new = campaigns.make_businesses(SeededRng("new clients"), new=True)
    clean = campaigns.make_rows(old, campaigns.USUAL_TEMPLATES, SeededRng("campaigns"), ads_each=1, prefix="c")
    past = planted_errors.plant_errors(clean, old, planted["campaigns.jsonl"], SeededRng("dirt"))
    reserved = campaigns.make_rows(
        new, campaigns.RESERVED_TEMPLATES, SeededRng("new campaigns"), ads_each=2, prefix="n"
    )
    files = {
        "data/campaigns.jsonl": to_json_lines(past),
        "data/new_clients.jsonl": to_json_lines(reserved),
        "data/reviews.csv": documents.make_review_table(old, planted["reviews.csv"], SeededRng("reviews")).encode(),
        "data/social.jsonl": documents.make_social_posts(old, planted["social.jsonl"], SeededRng("social")).encode(),
    }
    pages = documents.make_web_pages(old, planted["web"], SeededRng("web"))
    files |= {f"data/web/{name}": text.encode() for name, text in pages.items()}
    articles = documents.make_news(old, planted["news"], SeededRng("news"))
    files |= {f"data/news/{name}": text.encode() for name, text in articles.items()}
    flyers = documents.make_flyer_lines(old, SeededRng("flyers"))
    files |= {
        f"data/flyers/flyer_{number:03d}.pdf": documents.make_flyer_pdf(*flyer)
        for number, flyer in enumerate(flyers, 1)
    }
    files["planted.json"] = json.dumps(planted, indent=1, sort_keys=True).encode() + b"\n"
    files["README.md"] = data_card.write_card(files, planted).encode()
    return files


def to_json_lines(rows: list[dict[str, str]]) -> bytes:
    """Encode rows as JSON lines."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def read_pdf_text(pdf: bytes) -> str:
    """Extract the text of a PDF file, page by page."""
    from pypdf import PdfReader

    return "\f".join(page.extract_text() for page in PdfReader(io.BytesIO(pdf)).pages)


def find_differences(files: dict[str, bytes], folder: Path) -> list[str]:
    """List the files on disk that are missing, differ, or are not generated."""
    result = []
    for name, content in files.items():
        path = folder / name
        if not path.is_file():
            result.append(f"{name} is missing")
        elif path.read_bytes() != content and not (
            name.endswith(".pdf") and read_pdf_text(path.read_bytes()) == read_pdf_text(content)
        ):
            result.append(f"{name} differs")
    present = {item.relative_to(folder).as_posix() for item in (folder / "data").rglob("*") if item.is_file()}
    return result + [f"{name} is not generated" for name in sorted(present - files.keys())]


def main() -> int:
    """Write the files, or compare them; the exit code is 1 where they differ."""
    parser = argparse.ArgumentParser(description="make the synthetic data of Local Lens")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when the files on disk differ")
    arguments = parser.parse_args()
    files = make_files()
    if arguments.check:
        result = find_differences(files, HERE)
        print("\n".join(result) or f"{len(files)} files are as generated")
        return int(bool(result))
    for name, content in files.items():
        (HERE / name).parent.mkdir(parents=True, exist_ok=True)
        (HERE / name).write_bytes(content)
    print(f"wrote {len(files)} files")
    return 0


if __name__ == "__main__":
    sys.exit(main())
