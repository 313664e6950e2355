"""Write the model card: what was trained on what, its scores, and its use. Pure text, in the Hub's format."""

from __future__ import annotations

from collections.abc import Sequence

from tunectl.packaging.parity import ParityReport
from tunectl.packaging.serving_contract import ServingContract
from tunectl.registry.release_manifest import BuildFacts, Lineage


def render_model_card(
    facts: BuildFacts,
    contract: ServingContract,
    report: ParityReport,
    *,
    license_name: str | None,
    scores: Sequence[tuple[str, str]],
) -> str:
    """Return the card as Markdown; ``scores`` are rows (system, metrics as text)."""
    lineage = facts.lineage or Lineage(contract.base.source, contract.base.revision)
    head = ["---", "library_name: peft", "pipeline_tag: text-generation"]
    if contract.base.source.count("/") == 1:  # the Hub takes names of the Hub only
        head.append(f"base_model: {contract.base.source}")
    head += [f"license: {license_name.lower()}"] if license_name else []
    head += ["tags: [tunectl, lora]", "---"]
    verdicts = [f"- {stage}: {verdict.reason}" for stage, verdict in facts.verdicts.items()]
    proof = [f"- {report.verdict.reason}"]
    if report.measured is None:
        proof.append("- The evaluation's measure was not taken of the export.")
    proof += [f"- {name}: {value:g}" for name, value in facts.metrics.items()]
    sources = [f"- `{path}`: SHA-256 {source or 'unknown'}" for path, source in lineage.sources.items()]
    stages = [
        f"| {stage} | {result[:12]} | {lineage.configs.get(stage, '')[:12]} | {lineage.code.get(stage, '')[:12]} |"
        for stage, result in lineage.stages.items()
    ]
    parts = [
        *head,
        f"# {facts.project}",
        f"{contract.base.source} (revision {contract.base.revision}), fine-tuned with a LoRA adapter by tunectl.",
        "## Results",
        "On the test split, which was never trained on:",
        *([f"| system | {scores[0][1]} |", "|---|---|"] if scores else []),
        *(f"| {name} | {value} |" for name, value in scores[1:]),
        "",
        *verdicts,
        "## Export",
        f"Engine {facts.engine}, weights {contract.base.weights}, adapter {facts.layout}.",
        *proof,
        "## Use",
        "The adapter is in `adapter/`, the tokenizer and its chat template in `tokenizer/`. Serve it with `tunectl serve`,",
        "or load the adapter with peft onto the base model named above.",
        _prompt(contract),
        "## Lineage",
        *(sources or ["No declared local sources."]),
        "",
        "| stage | artifact | configuration | code |",
        "|---|---|---|---|",
        *stages,
        "## Limits",
        "It is as good as the table says on inputs like those of the test split, and unknown on others. It may state what is",
        "false. Personal data was masked before training as far as the row counts say.",
    ]
    return "\n".join(parts) + "\n"


def _prompt(contract: ServingContract) -> str:
    if contract.system is None:
        return "Conversations without a system text get what the template puts there."
    return f"System text of conversations that bring none: {contract.system!r}."
