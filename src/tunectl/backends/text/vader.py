"""Load the sentiment lexicon of vaderSentiment: words and their valence from -4 to 4.

Only its file is read: its code is never imported, and nothing is downloaded.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from tunectl.core.distribution import format_install_command
from tunectl.core.errors import ArtifactError, MissingExtraError

PACKAGE, FILE = "vaderSentiment", "vader_lexicon.txt"


def lexicon() -> dict[str, float]:
    """Return the valence, -4 (negative) to 4, by word in lower case or emoticon.

    Raises  MissingExtraError where the package is not installed; ArtifactError where its file has another digest.
    """
    spec = find_spec(PACKAGE)
    folders = list(spec.submodule_search_locations or ()) if spec is not None else []
    if not folders:
        raise MissingExtraError(
            f"{PACKAGE} is not installed, and the drift monitor needs its word list for the signals of tone",
            hint=format_install_command("monitor"),
        )
    path = Path(folders[0]) / FILE
    result = {}
    try:
        for line in path.read_text(encoding="utf-8").splitlines():
            word, valence, *_ = line.split("\t")
            result[word] = float(valence)
    except (OSError, ValueError) as error:
        raise ArtifactError(
            f"{path} is not a lexicon; it must have a word and its valence in each line: {error}",
            hint="pip install --force-reinstall vaderSentiment",
        ) from error
    return result
