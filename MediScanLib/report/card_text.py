"""The card of a model as text for people."""

from __future__ import annotations

from ..network.bundle import Bundle
from ..notice import RESEARCH_USE_NOTICE


def card_text(bundle: Bundle) -> str:
    """What the model is for, what it was trained on, how well it did and what to mind, a fact a line."""
    card = bundle.card
    lines = [
        f"{card.name} {card.version}: {card.title}",
        card.description,
        "",
        f"Findings:    {', '.join(card.labels)}",
        f"Network:     {card.network.backbone}, {card.network.fusion} fusion, {card.network.spatial_dims}D, "
        f"input {' x '.join(str(size) for size in card.input.size)}",
        f"Trained on:  {', '.join(card.input.modalities)} of {', '.join(card.input.body_parts)}",
        f"Calibrated:  {card.calibration.fitted_on if card.calibration else 'no'}",
        f"Weights:     {card.weights_licence}",
        f"SHA-256:     {bundle.sha256}",
        "",
        "Data:",
        *(f"  {source.name:14} {source.studies} studies, licence: {source.licence}" for source in card.data),
        "",
        "Operating points:",
        *(f"  {label:10} {t.value:.3f}  {t.operating_point}" for label, t in card.thresholds.items()),
        "",
        "Figures (95 % interval), each within its own source:",
    ]
    for metric in card.metrics:
        interval = "" if metric.low is None else f" ({metric.low:.3f} to {metric.high:.3f})"
        lines.append(
            f"  {metric.split:6} {metric.source:14} {metric.task:30} n={metric.studies:<4} "
            f"{metric.name}: {metric.value:.3f}{interval}"
        )
    lines += ["", "Mind:", *(f"  - {caution}" for caution in card.cautions), "", RESEARCH_USE_NOTICE]
    return "\n".join(lines)
