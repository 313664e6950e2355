"""Built-in chat templates, by name, for models without one. Each marks the generated parts with their end token."""

from __future__ import annotations

_BLOCKS = {
    "chatml": (
        "{{ '<|im_start|>' + message.role + '\\n' }}",
        "{{ message.content + '<|im_end|>' }}",
        "{{ '\\n' }}",
        "{{ '<|im_start|>assistant\\n' }}",
    ),
    "llama3": (
        "{{ '<|start_header_id|>' + message.role + '<|end_header_id|>\\n\\n' }}",
        "{{ message.content + '<|eot_id|>' }}",
        "",
        "{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}",
    ),
    "gemma": (
        "{{ '<start_of_turn>' + ('model' if message.role == 'assistant' else 'user') + '\\n' }}",
        "{{ message.content + '<end_of_turn>' }}",
        "{{ '\\n' }}",
        "{{ '<start_of_turn>model\\n' }}",
    ),
    "mistral": (
        "{% if message.role != 'assistant' %}{{ '[INST] ' }}{% endif %}",
        "{{ message.content + (eos_token if message.role == 'assistant' else ' [/INST]') }}",
        "",
        "",
    ),
    "plain": (
        "{{ message.role | capitalize + ':\\n' }}",
        "{{ message.content + eos_token }}",
        "{{ '\\n' }}",
        "{{ 'Assistant:\\n' }}",
    ),
    "zephyr": (
        "{{ '<|' + message.role + '|>\\n' }}",
        "{{ message.content + eos_token }}",
        "{{ '\\n' }}",
        "{{ '<|assistant|>\\n' }}",
    ),
}
"""By name: opening of a turn, its content with its end, separator of turns, and opening of the next answer."""

_BOS = frozenset({"llama3", "gemma", "mistral"})
"""Families whose text starts with the begin-of-text token."""


def list_templates() -> list[str]:
    """Return the names of the built-in templates, sorted."""
    return sorted(_BLOCKS)


def get_template(name: str) -> str | None:
    """Return the Jinja text of a named template; None where there is no such name.

    ``plain`` needs nothing but an end-of-text token, so it fits every tokenizer.
    """
    if name not in _BLOCKS:
        return None
    opening, content, between, answer = _BLOCKS[name]
    start = "{{ bos_token }}" if name in _BOS else ""
    return (
        f"{start}{{% for message in messages %}}{opening}"
        f"{{% if message.role == 'assistant' %}}{{% generation %}}{content}{{% endgeneration %}}{{% else %}}{content}{{% endif %}}"
        f"{between}{{% endfor %}}{{% if add_generation_prompt %}}{answer}{{% endif %}}"
    )
