"""Predictions for many inputs, one after another: what fails is told and does not stop the rest."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ..config import InferenceConfig
from ..errors import MediScanError, UsageError
from ..study.image import MedicalImage
from ..study.reading import read_image
from ..study.record import ClinicalRecord
from .devices import is_out_of_memory
from .result import Prediction

_log = logging.getLogger(__name__)

_MOST_HELD_BYTES = 512 * 1024**2
"""Decoded pixels that wait for a batch at most."""


class StudyPredictor(Protocol):
    """A `Predictor`, or what stands for one that is elsewhere."""

    settings: InferenceConfig

    def __call__(
        self, image: MedicalImage, record: ClinicalRecord | None = None, *, slices: Sequence[int] | None = None
    ) -> Prediction:
        """Predict one study."""

    def predict_batch(self, studies: Sequence[tuple[MedicalImage, ClinicalRecord | None]]) -> list[Prediction]:
        """Predict single-slice studies together."""


@dataclass(frozen=True, eq=False)
class Outcome:
    """What became of one input: a prediction with its image, or a failure.

    Attributes:
        source: The input as the user named it, see `shown`.
        prediction: None where it failed.
        image: None where it failed.
        error_code: None where it did not fail.
        error_message: None where it did not fail.
    """

    source: str
    prediction: Prediction | None = None
    image: MedicalImage | None = None
    error_code: str | None = None
    error_message: str | None = None


def predict_inputs(
    predictor: StudyPredictor,
    inputs: Sequence[Path],
    record_of: Callable[[Path], ClinicalRecord],
    *,
    slice_index: int | None = None,
    series: str | None = None,
) -> Iterator[Outcome]:
    """Read and predict inputs in order; single images go through the network together.

    Args:
        predictor: Model.
        inputs: Paths that `read_image` takes.
        record_of: Clinical record of an input.
        slice_index: Look at this slice only; at all where None.
        series: Which DICOM series of a folder.
    """
    size = predictor.settings.max_batch_size
    waiting: list[tuple[Path, MedicalImage | Outcome]] = []
    for path in inputs:
        image = _read(path, series)
        waiting.append((path, image))
        held = sum(image.pixels.nbytes for _, image in waiting if isinstance(image, MedicalImage))
        # a volume fills batches by itself and should not be held in memory beside others
        volume = isinstance(image, MedicalImage) and image.shape[0] > 1
        if len(waiting) == size or volume or held > _MOST_HELD_BYTES:
            yield from _predict(predictor, waiting, record_of, slice_index)
            waiting = []
    yield from _predict(predictor, waiting, record_of, slice_index)


def shown(path: Path) -> str:
    """The path as text that can be written anywhere: bytes in it that are no text stand as escapes."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _read(path: Path, series: str | None) -> MedicalImage | Outcome:
    try:
        return read_image(path, series=series if path.is_dir() else None, name=shown(path))
    except Exception as error:  # whatever one file does, the others go on
        return _failure(path, error)


def _predict(
    predictor: StudyPredictor,
    waiting: Sequence[tuple[Path, MedicalImage | Outcome]],
    record_of: Callable[[Path], ClinicalRecord],
    slice_index: int | None,
) -> Iterator[Outcome]:
    singles = [
        (path, image)
        for path, image in waiting
        if isinstance(image, MedicalImage) and image.shape[0] == 1 and slice_index in (None, 0)
    ]
    together: dict[Path, Prediction] = {}
    if len(singles) > 1:
        try:
            predictions = predictor.predict_batch([(image, record_of(path)) for path, image in singles])
            together = dict(zip((path for path, _ in singles), predictions, strict=True))
        except Exception as error:  # one by one below tells which image it was
            _log.debug("batch failed, going on one by one: %s", error)
    for path, image in waiting:
        if isinstance(image, Outcome):
            yield image
            continue
        try:
            prediction = together.get(path) or predictor(
                image, record_of(path), slices=None if slice_index is None else _slice(image, slice_index)
            )
            yield Outcome(shown(path), prediction, image)
        except Exception as error:
            yield _failure(path, error)


def _slice(image: MedicalImage, index: int) -> tuple[int]:
    if not 0 <= index < image.shape[0]:
        raise UsageError(
            f"{image.source}: there is no slice {index}; it has {image.shape[0]}, counted from 0. Choose one of them."
        )
    return (index,)


def _failure(path: Path, error: Exception) -> Outcome:
    name = shown(path)
    if isinstance(error, MediScanError):
        return Outcome(name, error_code=error.code, error_message=str(error))
    # torch's CPU allocator raises a RuntimeError of its own
    if isinstance(error, MemoryError) or is_out_of_memory(error) or "can't allocate memory" in str(error):
        message = f"{name}: not enough memory. Close other programs, or use a smaller image."
        return Outcome(name, error_code="out_of_memory", error_message=message)
    _log.debug("unexpected failure on %s", name, exc_info=error)
    message = f"{name}: unexpected {type(error).__name__}: {error}. Please report this with --debug's output."
    return Outcome(name, error_code="internal", error_message=message)
