"""What was found on each case, out of the journal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ..evaluating.localization import MASS, OVERLAP, POINTING, THRESHOLDS
from .cases import Case
from .explaining import map_key, marks_key
from .grids import FloatArray, unpack
from .journal import Journal
from .models import Model
from .request import FAITHFULNESS, ROBUSTNESS, Request

BLOB = "centered blob"

Scores = Mapping[str, float | None]


@dataclass(frozen=True, eq=False)
class Found:
    """What one method of one model says of one case.

    Attributes:
        case: Case.
        finding: Finding whose map was made.
        area: Share of the image that is marked; None where nothing is.
        model: Model.
        method: Method.
        piece: As in the journal.
    """

    case: Case
    finding: str
    area: float | None
    model: str
    method: str
    piece: Mapping[str, Any]

    @cached_property
    def grid(self) -> FloatArray:
        """(slice, row, column) raw map in cells."""
        return unpack(self.piece["grid"])

    def scores(self, threshold: float | None) -> Scores:
        """Pointing game, IoU at the threshold, relevance mass; empty without marks."""
        return _scores(self.piece.get("scores"), threshold)

    @property
    def faithfulness(self) -> Scores:
        """Insertion and deletion, and what they gain over random orders; empty where not measured."""
        found = self.piece.get(FAITHFULNESS)
        if found is None:
            return {}
        return {
            "deletion": found["deletion"],
            "insertion": found["insertion"],
            "deletion gain": found["random_deletion"] - found["deletion"],
            "insertion gain": found["insertion"] - found["random_insertion"],
            "better than random": float(found["better_than_random"]),
        }

    @property
    def robustness(self) -> Mapping[str, Mapping[str, Any]]:
        """By perturbation: similarity of the map, change of the probability, decision."""
        found: Mapping[str, Mapping[str, Any]] = self.piece.get(ROBUSTNESS) or {}
        return found

    @property
    def steadiness(self) -> float | None:
        """Mean similarity over the perturbations."""
        values = [part["similarity"] for part in self.robustness.values() if part["similarity"] is not None]
        return float(np.mean(values)) if values else None


@dataclass(frozen=True, eq=False)
class Results:
    """Everything that was found, and the thresholds of the IoU.

    Attributes:
        found: What was found on the reported cases, in their order, then by model and method.
        thresholds: By model and method, fraction of the map's own peak; tuned on val.
        blob: By case, what a blob in the middle scores; empty without marks.
        blob_threshold: Of the blob, tuned likewise.
    """

    found: Sequence[Found]
    thresholds: Mapping[tuple[str, str], float | None]
    blob: Mapping[tuple[str, str, str], Scores]
    blob_threshold: float | None

    @property
    def cases(self) -> list[Case]:
        """Cases of which anything was found."""
        return list({item.case.key: item.case for item in self.found}.values())

    def of(self, model: str, method: str) -> list[Found]:
        """What one method of one model says."""
        return [item for item in self.found if (item.model, item.method) == (model, method)]

    def scores(self, item: Found) -> Scores:
        """Where its map lies."""
        return item.scores(self.thresholds[item.model, item.method])


def collect(cases: Sequence[Case], models: Sequence[Model], request: Request, journal: Journal) -> Results:
    """What the journal holds of these cases."""
    found, tuning = [], []
    for case in cases:
        facts = journal.get(marks_key(case))
        if facts is None:
            continue
        for model in models:
            for method in request.methods:
                piece = journal.get(map_key(case, model.name, method))
                if piece is not None:
                    item = Found(case, facts["finding"], facts["area"], model.name, method, piece)
                    if case.reported(request.split):
                        found.append(item)
                    if case.split == "val":
                        tuning.append(item)
    thresholds = {
        (model.name, method): best_threshold(
            [item.piece["scores"]["overlap"] for item in tuning if (item.model, item.method) == (model.name, method)]
        )
        for model in models
        for method in request.methods
    }
    facts_of = {case.key: journal.get(marks_key(case)) for case in cases}
    blobs = {key: facts["blob"] for key, facts in facts_of.items() if facts is not None and facts["blob"] is not None}
    blob_threshold = best_threshold(
        [blobs[case.key]["overlap"] for case in cases if case.split == "val" and case.key in blobs]
    )
    return Results(
        found,
        thresholds,
        {key: _scores(blob, blob_threshold) for key, blob in blobs.items()},
        blob_threshold,
    )


def best_threshold(overlaps: Sequence[Sequence[float]]) -> float | None:
    """Fraction of the peak with the largest mean IoU; None where there is nothing to tune it on."""
    return THRESHOLDS[int(np.mean(overlaps, axis=0).argmax())] if overlaps else None


def _scores(scores: Mapping[str, Any] | None, threshold: float | None) -> Scores:
    if scores is None:
        return {}
    return {
        POINTING: scores["pointing"],
        OVERLAP: None if threshold is None else scores["overlap"][THRESHOLDS.index(threshold)],
        MASS: scores["mass"],
    }
