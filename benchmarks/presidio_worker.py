"""Presidio's pattern recognizers over texts from stdin; runs in an environment of its own, which has no tunectl.

Reads a JSON list of texts, writes JSON: the version, the entity types that were asked for, seconds, and spans of each text.
A blank spaCy pipeline splits words: names and places need a trained model, which is a download of its own, and are left out.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from importlib.metadata import version

KINDS = {
    "EMAIL_ADDRESS": "email",
    "PHONE_NUMBER": "phone",
    "CREDIT_CARD": "card",
    "IBAN_CODE": "iban",
    "IP_ADDRESS": "ip",
    "US_SSN": "ssn",
}
"""Presidio's entity types, and ours. It has no pattern recognizer for street addresses, passwords in URLs, and secrets."""


def main() -> None:
    """Answer one list of texts."""
    import spacy
    from presidio_analyzer import AnalyzerEngine
    from presidio_analyzer.nlp_engine import SpacyNlpEngine

    class BlankEngine(SpacyNlpEngine):
        """Words and no more."""

        def __init__(self) -> None:
            super().__init__(models=[{"lang_code": "en", "model_name": "blank"}])
            self.nlp = {"en": spacy.blank("en")}

    logging.disable(logging.WARNING)
    texts = json.load(sys.stdin)
    analyzer = AnalyzerEngine(nlp_engine=BlankEngine(), supported_languages=["en"])
    started = time.perf_counter()
    result = [
        [
            (KINDS[item.entity_type], item.start, item.end, item.score)
            for item in analyzer.analyze(text, language="en", entities=list(KINDS))
        ]
        for text in texts
    ]
    seconds = time.perf_counter() - started
    json.dump({"version": version("presidio-analyzer"), "seconds": seconds, "found": result}, sys.stdout)


if __name__ == "__main__":
    main()
