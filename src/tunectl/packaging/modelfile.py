"""Write the Modelfile beside a GGUF file: the settings that Ollama cannot read from that file, which contains the chat template."""

from __future__ import annotations

from tunectl.packaging.serving_contract import ServingContract

NAME = "Modelfile"


def render_modelfile(contract: ServingContract, file: str) -> str:
    """Return the text for ``ollama create NAME -f Modelfile``, beside the GGUF file ``file``: decoding defaults, stop tokens, and the system prompt of the training."""
    defaults = contract.defaults
    ends = {item.text for item in (contract.eot_token, contract.eos) if item is not None}
    lines = [
        f"# ollama create {contract.project} -f {NAME}",
        f"FROM ./{file}",
        f"PARAMETER temperature {defaults.temperature:g}",
        f"PARAMETER top_p {defaults.top_p:g}",
        f"PARAMETER num_predict {defaults.max_tokens}",
        f"PARAMETER num_ctx {contract.context_length}",
        *(f'PARAMETER stop "{text}"' for text in sorted(ends)),
    ]
    if contract.system is not None:
        lines.append(f'SYSTEM """{contract.system}"""')
    return "\n".join(lines) + "\n"
