"""Clinical values of a training set: their statistics, and standardized arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ..network.card import FieldStatistics
from ..study.record import FIELDS
from .datasets import Study
from .presence import Mask, Values


def clinical_statistics(studies: Sequence[Study]) -> dict[str, FieldStatistics]:
    """Mean, deviation and share of known values by field, of the training split alone.

    A field that nobody knows gets the middle of its plausible range; the predictor does not use it.
    """
    encoded = [study.record.encode() for study in studies]
    values, known = (np.stack(column) for column in zip(*encoded, strict=True))
    statistics = {}
    for position, (name, info) in enumerate(FIELDS.items()):
        column = values[known[:, position], position].astype(np.float64)
        statistics[name] = FieldStatistics(
            mean=float(column.mean()) if len(column) else (info.minimum + info.maximum) / 2,
            std=max(float(column.std()), 1e-3) if len(column) > 1 else 1.0,
            known_fraction=len(column) / len(studies),
        )
    return statistics


def standardized_records(studies: Sequence[Study], statistics: Mapping[str, FieldStatistics]) -> tuple[Values, Mask]:
    """Standardized values, 0 where unknown, and the mask of known ones, (study, field) each.

    A field that no training study knew is masked, as the predictor does.
    """
    values, known = (np.stack(column) for column in zip(*(s.record.encode() for s in studies), strict=True))
    fields = [statistics[name] for name in FIELDS]
    known = known & np.array([field.known_fraction > 0 for field in fields])
    means, stds = np.array([field.mean for field in fields]), np.array([field.std for field in fields])
    return np.where(known, (values - means) / stds, 0).astype(np.float32), known
