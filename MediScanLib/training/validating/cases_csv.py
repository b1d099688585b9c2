"""cases.csv: a line for each case, model and method."""

from __future__ import annotations

import csv
import io

from ..evaluating.localization import MASS, OVERLAP, POINTING
from .agreement import Agreements
from .explaining import PERTURBATIONS
from .results import Results

_FAITHFULNESS = ("deletion", "insertion", "deletion gain", "insertion gain", "better than random")


def cases_csv(results: Results, agreed: Agreements) -> str:
    """The table; what is undefined or was not measured is empty."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(
        [
            *("image", "group", "patient", "split", "finding", "model", "method"),
            *("probability", "decision", "deferred", "relative_peak"),
            *("marked_area", "pointing", "iou", "iou_threshold", "relevance_mass"),
            *("blob_pointing", "blob_iou", "blob_relevance_mass"),
            *(name.replace(" ", "_") for name in _FAITHFULNESS),
            *(f"{name}_{what}" for name in PERTURBATIONS for what in ("rank_correlation", "probability_change")),
            *("agreement", "case_agreement", "seconds", "relative_cost"),
        ]
    )
    for item in results.found:
        scores, blob = results.scores(item), results.blob.get(item.case.key, {})
        threshold = results.thresholds[item.model, item.method] if scores else None
        robustness = [item.robustness.get(name, {}) for name in PERTURBATIONS]
        row = [
            *(item.case.name, item.case.group, item.case.patient, item.case.split, item.finding),
            *(item.model, item.method),
            *(item.piece["probability"], item.piece["decision"], int(item.piece["deferred"])),
            float(item.grid.max()) / item.piece["scale"],
            *(item.area, scores.get(POINTING), scores.get(OVERLAP), threshold, scores.get(MASS)),
            *(blob.get(name) for name in (POINTING, OVERLAP, MASS)),
            *(item.faithfulness.get(name) for name in _FAITHFULNESS),
            *(part.get(what) for part in robustness for what in ("similarity", "change")),
            agreed.by_map[item.case.key, item.model, item.method],
            agreed.by_case[item.case.key],
            *(item.piece["seconds"], item.piece["relative_cost"]),
        ]
        writer.writerow([_cell(value) for value in row])
    return stream.getvalue()


def _cell(value: object) -> object:
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else value
