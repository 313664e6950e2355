"""What schemathesis is told before each request (SCHEMATHESIS_HOOKS): bodies that get further than the first check.

Half of the bodies name a model that is served and an inference that is kept, so that the rest of them is looked at; none
asks for more than a few tokens.
"""

import os

import schemathesis

SHORT = 3
"""Tokens of an answer."""
BOUNDED = {"max_tokens": SHORT, "max_completion_tokens": SHORT, "n": 2, "best_of": 2}
KNOWN = {"model": "shop", "inference_id": os.environ.get("TUNECTL_INFERENCE_ID", "")}


@schemathesis.hook
def before_call(context, case, kwargs):
    """Tame the body of a request."""
    if isinstance(case.body, dict):
        case.body = tamed(case.body)


def tamed(body):
    """A body with known names where it has names, and small numbers where it has numbers."""
    found = dict(body)
    if len(str(body)) % 2:
        found |= {name: value for name, value in KNOWN.items() if isinstance(found.get(name), str)}
    for name, most in BOUNDED.items():
        value = found.get(name)
        if isinstance(value, int) and value > most:
            found[name] = 1 + value % most
    return {"max_tokens": SHORT, **found} if "model" in found else found
