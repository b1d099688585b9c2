"""One flat row a prediction, for spreadsheets and statistics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def columns(labels: Sequence[str]) -> list[str]:
    """Column names for a model with these labels."""
    return [
        "input",
        "error_code",
        "error_message",
        "finding",
        *(f"probability_{label}" for label in labels),
        *(f"decision_{label}" for label in labels),
        "calibrated",
        "severity_grade",
        "severity_score",
        "deferred",
        "deferral_reasons",
        "prediction_set_90",
        "epistemic_uncertainty",
        "novelty",
        "peak_slice",
        "peak_row",
        "peak_column",
        "clinical_used",
        "clinical_prefilled",
        "model",
        "model_version",
        "model_sha256",
        "device",
        "notice",
    ]


def row(entry: Mapping[str, Any]) -> dict[str, Any]:
    """The row of a prediction, or of an error object, in its JSON form."""
    if "error" in entry:
        return {
            "input": entry["input"],
            "error_code": entry["error"]["code"],
            "error_message": entry["error"]["message"],
        }
    certainty, severity, model = entry["certainty"], entry["severity"], entry["provenance"]
    peak = next((m["index"] for m in entry["heat_maps"] if m["label"] == certainty["label"]), ("", "", ""))
    return {
        "input": entry["input"],
        "finding": certainty["label"],
        **{f"probability_{f['label']}": f"{f['probability']:.6f}" for f in entry["findings"]},
        **{f"decision_{f['label']}": f["decision"] for f in entry["findings"]},
        "calibrated": all(f["calibrated"] for f in entry["findings"]),
        "severity_grade": severity["grade"] or "",
        "severity_score": "" if severity["score"] is None else f"{severity['score']:.6f}",
        "deferred": certainty["deferred"],
        "deferral_reasons": " ".join(reason["code"] for reason in certainty["reasons"]),
        "prediction_set_90": _set(certainty.get("sets", []), 0.9),
        "epistemic_uncertainty": _number((certainty.get("uncertainty") or {}).get("epistemic")),
        "novelty": _number(certainty.get("novelty")),
        "peak_slice": peak[0],
        "peak_row": peak[1],
        "peak_column": peak[2],
        "clinical_used": " ".join(f"{name}={value}" for name, value in entry["clinical"]["used"].items()),
        "clinical_prefilled": " ".join(entry["clinical"]["prefilled"]),
        "model": model["model"],
        "model_version": model["model_version"],
        "model_sha256": model["model_sha256"],
        "device": model["device"],
        "notice": entry["notice"],
    }


def _set(sets: Sequence[Mapping[str, Any]], coverage: float) -> str:
    return next((" ".join(one["labels"]) for one in sets if one["coverage"] == coverage), "")


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6f}"
