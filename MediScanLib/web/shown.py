"""A prediction as plain values that the page draws; the words are those of the other faces."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..prediction.result import Prediction
from ..prediction.sentences import trust_sentences
from ..study.fields import FIELDS
from .form import value_text

DECISIONS = {"present": "● present", "absent": "○ absent", "unsure": "◐ unsure"}
"""A shape beside each word, so that nothing hangs on a color."""

_NO_EFFECT = 0.005


def shown(prediction: Prediction, summary: Mapping[str, str]) -> dict[str, Any]:
    """Everything that is said of one study.

    Args:
        prediction: What was said.
        summary: From `scene.results.summary_lines`.
    """
    certainty = prediction.certainty
    calibrated = all(finding.calibrated for finding in prediction.findings)
    top = prediction.top.label
    return {
        "deferred": certainty.deferred,
        "reasons": [reason.message for reason in certainty.reasons],
        "headline": f"Most probable: {top}, but see above."
        if certainty.deferred
        else f"Most probable: {top}. No reason was found to distrust this.",
        "calibrated": calibrated,
        "calibration": "Probabilities are calibrated on studies that the model was not trained on."
        if calibrated
        else "Probabilities are not calibrated: compare them, do not trust their size.",
        "trust": trust_sentences(prediction),
        "rule": prediction.volume_rule or "",
        "findings": finding_rows(prediction),
        "top": top,
        "severity": summary["severity"],
        "severity_percent": None if prediction.severity.score is None else round(100 * prediction.severity.score),
        "contributions": _contributions(prediction, top),
        "clinical": _clinical(prediction),
        "model": f"By {summary['model']}.",
        "notes": list(prediction.provenance.notes),
    }


def finding_rows(prediction: Prediction) -> list[dict[str, Any]]:
    """Findings, the most probable first."""
    rows = []
    for finding in sorted(prediction.findings, key=lambda finding: -finding.probability):
        point = f"Present from {100 * finding.threshold:.0f} % on. {finding.operating_point or ''}".strip()
        if finding.interval is not None:
            low, high = (100 * value for value in finding.interval)
            point += f" With parts of the features left out mostly {low:.0f} to {high:.0f} %."
        rows.append(
            {
                "label": finding.label,
                "percent": round(100 * finding.probability, 1),
                "text": f"{100 * finding.probability:.0f} %",
                "threshold": round(100 * finding.threshold, 1),
                "decision": DECISIONS[finding.decision],
                "kind": finding.decision,
                "point": point,
            }
        )
    return rows


def change_rows(before: Prediction, after: Mapping[str, float] | None) -> list[dict[str, Any]]:
    """Findings as they were said and as they would be with other values.

    Args:
        before: What was said; it stays beside the other.
        after: Probabilities by finding; None where nothing was tried.
    """
    rows = []
    for finding in sorted(before.findings, key=lambda finding: -finding.probability):
        now = finding.probability if after is None else after[finding.label]
        change = 100 * (now - finding.probability)
        way = "=" if abs(change) < 0.05 else f"{'▲' if change > 0 else '▼'} {change:+.1f} points"
        rows.append(
            {
                "label": finding.label,
                "before": f"{100 * finding.probability:.1f} %",
                "after": f"{100 * now:.1f} %",
                "change": way,
            }
        )
    return rows


def _contributions(prediction: Prediction, top: str) -> list[dict[str, str]]:
    found = next((part for part in prediction.clinical.contributions if part.finding == top), None)
    if found is None:
        return []
    return [
        {
            "title": f"{FIELDS[name].title} {value_text(name, prediction.clinical.used[name])}",
            "way": "▲ for" if effect > _NO_EFFECT else "▼ against" if effect < -_NO_EFFECT else "no effect",
            "effect": f"{effect:+.2f}",
        }
        for name, effect in sorted(found.fields.items(), key=lambda pair: -abs(pair[1]))
    ]


def _clinical(prediction: Prediction) -> str:
    clinical = prediction.clinical
    known = len(clinical.used)
    said = [f"{known} of {known + len(clinical.missing)} clinical values known."]
    if clinical.prefilled:
        said.append(f"From the image: {_titles(clinical.prefilled)}.")
    if clinical.unlearned:
        said.append(f"Not used, since no training study had it: {_titles(clinical.unlearned)}.")
    return " ".join(said)


def _titles(names: list[str]) -> str:
    return ", ".join(FIELDS[name].title.lower() for name in names)
