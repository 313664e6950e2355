"""Open a page of the documentation of this version: built pages lie in the package, and work offline, with their search.

    tunectl docs                     the first page
    tunectl docs serve               the page of that name; guides/serve and serve#elsewhere work, too
    tunectl docs sft                 a heading of the reference: a section of settings, a command, a word of the glossary
    tunectl docs release list        a command
    tunectl docs sft.lora_rank       the section of a setting
    tunectl docs cannot-be-read      what an error says and what to do, under the name that the error shows

It prints the address, and opens it where there is a browser. In a checkout `make docs` builds the pages; before, this prints
the Markdown file.
"""

from __future__ import annotations

import argparse
import os
import sys


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options and positional arguments of ``tunectl docs`` to ``parser``."""
    parser.add_argument(
        "slug", nargs="*", metavar="SLUG", help="a page, a heading, a command, a setting, or the name of an error"
    )
    parser.add_argument("--print", action="store_true", dest="print_only", help="print the address, and open nothing")


def run(args: argparse.Namespace) -> int:
    """Print the address of a documentation page, and open it in the browser; return the exit code.

    Raises  UsageError where there is no such page; InfrastructureError where this installation has no pages.
    """
    from tunectl.core import documentation

    page = documentation.find_page(documentation.find_folder(), " ".join(args.slug))
    if page.path.suffix == ".md":
        sys.stdout.write(f"{page.path}{f'#{page.anchor}' if page.anchor else ''}\n")
        sys.stderr.write("make docs builds the pages for a browser\n")
        return 0
    sys.stdout.write(f"{page.address}\n")
    sys.stdout.flush()
    if not args.print_only and any(os.environ.get(name) for name in ("BROWSER", "DISPLAY", "WAYLAND_DISPLAY")):
        import webbrowser

        webbrowser.open(page.address)
    return 0
