"""What one method says of one case: where its map lies, whether the model leans on it, and what shakes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ...errors import DataError, MediScanError
from ...prediction.explanations import Explanation, explain, faithfulness
from ...prediction.localization import BoolArray, HeatArray, centered_blob, overlap, pointing, relevance_mass
from ...prediction.result import Prediction
from ...progress import Progress, tracked
from ...study.image import MedicalImage
from ...study.reading import read_image
from ..evaluating.localization import THRESHOLDS
from .cases import UNDECIDED, Case
from .degradations import JPEG, NOISE, generator_of, shifted
from .grids import grid_of, pack, rank_correlation, shifted_back
from .journal import Journal
from .models import Model
from .request import FAITHFULNESS, ROBUSTNESS, Request

SHIFT, SHIFT_SHARE = "shift", 0.03
NOISE_DEGREE, JPEG_QUALITY = 2.0, 50
PERTURBATIONS = {
    SHIFT: f"moved by {SHIFT_SHARE:.0%} of the shorter side, and the map moved back".replace("%", " %"),
    NOISE.name: f"noise, SD {NOISE_DEGREE:g} % of the gray range",
    JPEG.name: f"JPEG, quality {JPEG_QUALITY}",
}
"""Small changes under which a map should stay."""

MARKS, MAP = "marks", "map"
"""Kinds of pieces in the journal."""


@dataclass(frozen=True)
class Failure:
    """What could not be done, and why.

    Attributes:
        what: Case, model and method.
        message: For people.
    """

    what: str
    message: str


def explain_cases(
    cases: Sequence[Case], models: Sequence[Model], request: Request, journal: Journal, progress: Progress
) -> list[Failure]:
    """All methods of all models on all cases, into the journal.

    A case or a method that fails is told of, tried again by the next run, and keeps no other from being done.

    Raises:
        CancelledError: `progress` asked to stop.
        WriteError: The journal cannot be written.
    """
    failures: list[Failure] = []
    work = [(case, model, method) for case in cases for model in models for method in request.methods]
    at: _AtCase | None = None
    for case, model, method in tracked(work, "explanations", len(work), progress):
        try:
            if at is None or at.case is not case:
                at = _AtCase(case, models, request, journal)
            at.explain(model, method)
        except (MediScanError, ValueError) as error:
            if isinstance(error, MediScanError) and error.code in ("write_failed", "cancelled"):
                raise
            failure = Failure(f"{case.name}, {model.name}, {method}", str(error))
            failures.append(failure)
    return failures


class _AtCase:
    """One case: its image is read, and each model asked about it, only where something is left to do."""

    def __init__(self, case: Case, models: Sequence[Model], request: Request, journal: Journal) -> None:
        self.case = case
        self._models, self._request, self._journal = models, request, journal
        self._image: MedicalImage | None = None
        self._marked: BoolArray | None = None
        self._predictions: dict[str, Prediction] = {}

    def explain(self, model: Model, method: str) -> None:
        key = map_key(self.case, model.name, method)
        if key in self._journal:
            return
        facts = self._facts()
        finding = facts["finding"]
        if finding not in model.labels:
            return  # another model may know it
        self._journal.put(key, self._piece(model, method, finding))

    @property
    def image(self) -> MedicalImage:
        if self._image is None:
            self._image = read_image(self.case.image)
            if self.case.region is not None and self._image.shape[0] > 1:
                raise DataError(f"{self.case.image}: boxes and masks are scored on single images, not on volumes.")
        return self._image

    @property
    def marked(self) -> BoolArray | None:
        if self._marked is None and self.case.region is not None:
            self._marked = self.case.region.marked(self.image.shape[1:])
        return self._marked

    def _facts(self) -> dict[str, Any]:
        """What holds for every model: which finding is looked at, the marked area, and how a blob does."""
        key = marks_key(self.case)
        found = self._journal.get(key)
        if found is None:
            found = {"finding": self._finding(), **_blob(self.image, self.marked)}
            self._journal.put(key, found)
        facts: dict[str, Any] = found
        return facts

    def _finding(self) -> str:
        if self.case.label:
            return self.case.label
        for model in self._models:
            known = [label for label in UNDECIDED if label in model.labels]
            if known:
                probabilities = self._prediction(model).probabilities
                return max(known, key=lambda label: probabilities[label])
        return UNDECIDED[0]

    def _prediction(self, model: Model) -> Prediction:
        if model.name not in self._predictions:
            self._predictions[model.name] = model.scores(self.image, self.case.record)
        return self._predictions[model.name]

    def _piece(self, model: Model, method: str, finding: str) -> dict[str, Any]:
        prediction = self._prediction(model)
        explanation = self._explain(model, method, finding, self.image)
        maps = explanation.maps
        decided = next(f for f in prediction.findings if f.label == finding)
        piece: dict[str, Any] = {
            "probability": round(decided.probability, 6),
            "decision": decided.decision,
            "deferred": prediction.certainty.deferred,
            "grid": pack(grid_of(maps, finding)),
            "scale": maps.scale(finding),
            "scale_meaning": explanation.scale_meaning,
            "slice": maps.peak(finding)[1][0],
            "seconds": round(explanation.seconds, 4),
            "relative_cost": round(explanation.relative_cost, 3),
        }
        if self.marked is not None:
            piece["scores"] = scores_of(maps.on_image(finding)[0], self.marked)
        if self.case.reported(self._request.split):
            if FAITHFULNESS in self._request.checks:
                piece[FAITHFULNESS] = self._faithfulness(model, explanation, finding)
            if ROBUSTNESS in self._request.checks:
                piece[ROBUSTNESS] = self._robustness(model, method, explanation, finding, decided.probability)
        return piece

    def _explain(self, model: Model, method: str, finding: str, image: MedicalImage) -> Explanation:
        return explain(model.predictor, image, self.case.record, method=method, findings=[finding])

    def _faithfulness(self, model: Model, explanation: Explanation, finding: str) -> dict[str, Any]:
        found = faithfulness(
            model.predictor,
            self.image,
            self.case.record,
            explanation,
            finding,
            steps=self._request.steps,
            random_orders=self._request.random_orders,
            seed=self._request.seed,
        )
        names = ("deletion", "insertion", "random_deletion", "random_insertion", "better_than_random")
        return {name: getattr(found, name) for name in names}

    def _robustness(
        self, model: Model, method: str, explanation: Explanation, finding: str, probability: float
    ) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, (image, move) in self._perturbed().items():
            after = self._explain(model, method, finding, image)
            similarity = rank_correlation(*shifted_back(explanation.maps, after.maps, finding, move))
            changed = model.scores(image, self.case.record)
            decision = next(f for f in changed.findings if f.label == finding).decision
            found[name] = {
                "similarity": similarity,
                "change": round(changed.probabilities[finding] - probability, 6),
                "decision": decision,
            }
        return found

    def _perturbed(self) -> dict[str, tuple[MedicalImage, tuple[int, int]]]:
        seed, key, image = self._request.seed, self.case.name, self.image
        step = max(1, round(SHIFT_SHARE * min(image.shape[1:])))
        rows, columns = (step * int(sign) for sign in generator_of(seed, SHIFT, key).choice((-1, 1), 2))
        return {
            SHIFT: (shifted(image, rows, columns), (rows, columns)),
            NOISE.name: (NOISE(image, NOISE_DEGREE, key, seed), (0, 0)),
            JPEG.name: (JPEG(image, 100 - JPEG_QUALITY, key, seed), (0, 0)),
        }


def marks_key(case: Case) -> tuple[str, ...]:
    """Names what holds for every model."""
    return (MARKS, *case.key)


def map_key(case: Case, model: str, method: str) -> tuple[str, ...]:
    """Names what one method of one model says."""
    return (MAP, *case.key, model, method)


def scores_of(heat: HeatArray, marked: BoolArray) -> dict[str, Any]:
    """Pointing game, relevance mass and the IoU at each of THRESHOLDS times the map's own peak."""
    peak = float(heat.max())
    return {
        "pointing": pointing(heat, marked),
        "mass": round(relevance_mass(heat, marked), 6),
        "overlap": [round(overlap(heat, marked, threshold * peak), 6) for threshold in THRESHOLDS],
    }


def _blob(image: MedicalImage, marked: BoolArray | None) -> dict[str, Any]:
    if marked is None:
        return {"area": None, "blob": None}
    return {"area": round(float(marked.mean()), 6), "blob": scores_of(centered_blob(image.shape[1:]), marked)}
