"""Stress tests of the model itself: less is known, the image is damaged or hidden, the record says the opposite."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from ...errors import MediScanError
from ...prediction.predictor import Predictor
from ...prediction.result import Prediction
from ...progress import Progress, tracked
from ...study.image import MedicalImage
from ...study.record import ClinicalRecord
from ..datasets import Study
from ..evaluating.asking import hidden_feature, read_study, without_image
from .degradations import DEGRADATIONS
from .explaining import Failure
from .journal import Journal
from .models import Model
from .records import contradicting, swapped, with_fewer_fields
from .request import Request

STRESSED = "stress"
AS_IS, FIELDS, HIDDEN, BLACK, SWAPPED, OPPOSITE = (
    "as is",
    "known fields",
    "image hidden",
    "black image",
    "record of another patient",
    "record that contradicts the image",
)
"""Conditions beside those of DEGRADATIONS."""


def stress(
    studies: Sequence[Study],
    everything: Sequence[Study],
    models: Sequence[Model],
    request: Request,
    journal: Journal,
    progress: Progress,
) -> list[Failure]:
    """What every model answers to every study under every condition, into the journal.

    Args:
        studies: Studies to ask about.
        everything: All studies of the manifest: train, for the average image; the split, for records of others.
        models: Models.
        request: Split and seed.
        journal: Where the answers go.
        progress: Hears of every study and may cancel.

    Raises:
        CancelledError: `progress` asked to stop.
        WriteError: The journal cannot be written.
    """
    failures: list[Failure] = []
    donors = [study for study in everything if study.split == request.split]
    train = [study for study in everything if study.split == "train"]
    asked = {model.name: _Asked(model, train) for model in models}
    work = [(study, model) for study in studies for model in models]
    for study, model in tracked(work, "stress", len(work), progress):
        key = stress_key(study, model.name)
        if key in journal:
            continue
        try:
            journal.put(key, list(asked[model.name].answers(study, donors, request.seed)))
        except (MediScanError, ValueError) as error:
            if isinstance(error, MediScanError) and error.code in ("write_failed", "cancelled"):
                raise
            failures.append(Failure(f"row {study.row}, {study.image.name}, {model.name}", str(error)))
    return failures


def stress_key(study: Study, model: str) -> tuple[str, ...]:
    """Names the answers of a model to a study in the journal."""
    return (STRESSED, str(study.row), model)


class _Asked:
    """A model, and the same with the image hidden."""

    def __init__(self, model: Model, train: Sequence[Study]) -> None:
        self._model, self._train = model, train

    @cached_property
    def _hidden(self) -> Predictor | None:
        """None where the manifest has no study of train to make an average image from."""
        try:
            return without_image(self._model.scores, hidden_feature(self._model.scores, self._train))
        except MediScanError:
            return None

    def answers(self, study: Study, donors: Sequence[Study], seed: int) -> Iterator[dict[str, Any]]:
        """One answer a condition; the image's own come first, so that the encoder looks at it once."""
        image = read_study(study)
        # age and sex of a header are known like the others, and must go like the others
        record = study.record.with_prefill(image.prefill)
        image = dataclasses.replace(image, prefill={})
        study = dataclasses.replace(study, record=ClinicalRecord(**record.known))
        key, scores = str(study.row), self._model.scores
        yield _answer(AS_IS, 0, scores(image, study.record))
        for size, fewer in with_fewer_fields(study.record, key, seed):
            yield _answer(FIELDS, size, scores(image, fewer))
        yield _answer(OPPOSITE, 0, scores(image, contradicting(study)))
        other = swapped(study, donors, seed)
        if other is not None:
            yield _answer(SWAPPED, 0, scores(image, other))
        for damage in DEGRADATIONS:
            for degree in damage.degrees:
                yield _answer(damage.name, degree, scores(damage(image, degree, key, seed), study.record))
        yield _answer(BLACK, 0, scores(_black(image), study.record))
        if self._hidden is not None:
            yield _answer(HIDDEN, 0, self._hidden(image, study.record))


def _black(image: MedicalImage) -> MedicalImage:
    return image.with_pixels(np.zeros_like(image.pixels))


def _answer(condition: str, degree: float, prediction: Prediction) -> dict[str, Any]:
    return {
        "condition": condition,
        "degree": degree,
        "probabilities": {label: round(p, 6) for label, p in prediction.probabilities.items()},
        "present": [finding.label for finding in prediction.findings if finding.decision == "present"],
        "deferred": prediction.certainty.deferred,
    }
