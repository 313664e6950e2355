"""What the promotion gate asks a release: a prompt that cannot be asked does not end it."""

from types import SimpleNamespace

from tunectl.artifacts.records import Message
from tunectl.backends.engines.release_generation import GenerationJob, encode_prompts
from tunectl.chat.template import Template
from tunectl.generation.prompt import PromptRenderer

REFUSING = "{% for m in messages %}{% if m.content == 'odd' %}{{ raise_exception('odd') }}{% endif %}{{ m.content }}{% endfor %}"


def test_a_prompt_that_is_refused_or_too_long_is_not_asked() -> None:
    prompts = [[Message("user", text)] for text in ("one", "odd", "much too long", "two")]
    renderer = PromptRenderer(Template(REFUSING), SimpleNamespace(ids=lambda text: [*text.encode()]))
    job = GenerationJob("release", prompts, limit=4)
    assert encode_prompts(job, renderer, context=9) == {0: [*b"one"], 3: [*b"two"]}
