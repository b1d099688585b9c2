"""What the model would say of the same image if one clinical value were another, over the whole range of the value."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import ClinicalError, UsageError
from ..network.card import Card, FieldStatistics
from ..network.fusion import FusionNetwork, GatedFusion
from ..progress import Progress, SilentProgress
from ..study.fields import FIELDS, FieldInfo
from ..study.image import MedicalImage
from ..study.record import ClinicalRecord
from ..study.values import unknown_field_message
from .assembly import volume_scores
from .calibrated import calibrated_probabilities
from .predictor import Predictor
from .preprocessing import prepare_clinical

POINTS = 16
"""Values within the range of the training values, at most; beyond, as many would cover the whole plausible range."""

_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)
_MOST_NUMBERS = 2**22
"""Image tokens that are held at once, at most: 16 MiB."""


@dataclass(frozen=True)
class WhatIfPoint:
    """The answer for one value.

    Attributes:
        value: None for unknown.
        probabilities: Calibrated, by finding.
        current: Whether it is what the record says.
        extrapolated: Whether hardly any training study had such a value.
    """

    value: float | str | None
    probabilities: dict[str, float]
    current: bool
    extrapolated: bool


@dataclass(frozen=True)
class WhatIfCurve:
    """Answers over the plausible range of one clinical field; everything else stays as it is.

    Attributes:
        field: Name.
        title: Label for people.
        unit: Of the values, empty for a coded field.
        learned: False where no training study had the field: then its value changes nothing.
        known_fraction: Share of training studies that had it.
        usual: Range of the training values, mean +- 2 standard deviations within the plausible range, outside of which
            the curve is extrapolation; None for a coded field and for one that was not learned.
        points: Unknown first, then by rising value, or the codes in their order.
    """

    field: str
    title: str
    unit: str
    learned: bool
    known_fraction: float
    usual: tuple[float, float] | None
    points: tuple[WhatIfPoint, ...]

    @property
    def unknown(self) -> WhatIfPoint:
        """The answer without the value."""
        return self.points[0]

    @property
    def current(self) -> WhatIfPoint:
        """The answer for what the record says."""
        return next(point for point in self.points if point.current)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-ready values."""
        return dataclasses.asdict(self)


def what_if_curves(
    predictor: Predictor,
    image: MedicalImage,
    record: ClinicalRecord | None = None,
    fields: Sequence[str] | None = None,
    *,
    slices: Sequence[int] | None = None,
    progress: Progress | None = None,
    points: int = POINTS,
) -> list[WhatIfCurve]:
    """Curves of clinical fields for one study; the image that was predicted last costs no second pass.

    The slices of a volume that stand for the study are those of the prediction, whatever the value.

    Args:
        predictor: Model.
        image: Image or volume.
        record: What is known of the patient; age and sex may come from the image header, as for a prediction.
        fields: Which; all ten where None.
        slices: As for a prediction.
        progress: As for a prediction.
        points: See `POINTS`.

    Raises:
        ClinicalError: There is no such field.
        UsageError: The model learned no clinical value at all, or an impossible number of points or slice.
        CancelledError: `progress` asked to stop.
    """
    card = predictor.bundle.card
    names = list(FIELDS) if fields is None else list(fields)
    for name in names:
        _field(name)
    known = (record or ClinicalRecord()).with_prefill(image.prefill)
    if not any(statistics.known_fraction > 0 for statistics in card.clinical.values()):
        raise UsageError(f"{card.name}: this model has learned no clinical value: there is nothing to try.")
    whole = card.network.spatial_dims == 3
    wanted = () if whole else tuple(range(image.shape[0])) if slices is None else tuple(slices)
    if not whole and not wanted:
        raise UsageError(f"{image.source or 'image'}: no slice was chosen. Choose one at least.")
    progress = progress or SilentProgress()
    _, output = predictor._look(image, known, wanted, progress)
    run = torch.from_numpy(output.seen[volume_scores(output.scores(), card, wanted).run])
    return [what_if_curve(predictor.network, run, known, name, card, points=points) for name in names]


def what_if_curve(
    network: FusionNetwork, seen: Tensor, record: ClinicalRecord, field: str, card: Card, *, points: int = POINTS
) -> WhatIfCurve:
    """The curve of one clinical field, from the head alone.

    Args:
        network: In evaluation mode.
        seen: (sample, ...) from `attribution.seen_by_head`: the slices over which the probabilities are averaged, or
            the one image or volume.
        record: What is known of the patient.
        field: Name of the field.
        card: Card of the network.
        points: See `POINTS`.

    Raises:
        ClinicalError: There is no such field.
        UsageError: Fewer than two points.
    """
    info = _field(field)
    statistics = card.clinical[field]
    learned = statistics.known_fraction > 0
    usual = _usual(info, statistics) if learned and not info.choices else None
    current = getattr(record, field)
    tried: list[float | str | None] = [None, *(info.choices or _grid(info, usual, current, points))]
    values, known = prepare_clinical([record.model_copy(update={field: value}) for value in tried], card)
    probabilities = _probabilities(network, seen, values, known, card)
    return WhatIfCurve(
        field=field,
        title=info.title,
        unit=info.unit,
        learned=learned,
        known_fraction=statistics.known_fraction,
        usual=usual,
        points=tuple(
            WhatIfPoint(
                value=value,
                probabilities=dict(zip(card.labels, row, strict=True)),
                current=value == current,
                extrapolated=value is not None and not (learned and _is_usual(value, info, statistics)),
            )
            for value, row in zip(tried, probabilities, strict=True)
        ),
    )


def _field(name: str) -> FieldInfo:
    if name not in FIELDS:
        raise ClinicalError(unknown_field_message(name))
    return FIELDS[name]


def _usual(info: FieldInfo, statistics: FieldStatistics) -> tuple[float, float]:
    low, high = statistics.mean - 2 * statistics.std, statistics.mean + 2 * statistics.std
    return max(low, info.minimum), min(high, info.maximum)


def _is_usual(value: float | str, info: FieldInfo, statistics: FieldStatistics) -> bool:
    if isinstance(value, str):  # the mean of a code is how often it was the other one
        return abs(info.choices.index(value) - statistics.mean) < 1
    return abs(value - statistics.mean) <= 2 * statistics.std


def _grid(
    info: FieldInfo, usual: tuple[float, float] | None, current: float | None, points: int
) -> list[float | str | None]:
    """Round values over the plausible range, densely where the training values lie, and the current one."""
    if points < 2:
        raise UsageError(f"A curve needs 2 points at least, not {points}.")
    grid = {info.minimum, info.maximum, *_round_values(info.minimum, info.maximum, points)}
    if usual is not None:
        low, high = usual
        grid = {value for value in grid if not low <= value <= high}
        grid |= {end for end in usual if end in (info.minimum, info.maximum)} | set(_round_values(low, high, points))
    if current is not None:
        grid.add(current)
    return [float(value) for value in sorted(grid)]


def _round_values(low: float, high: float, most: int) -> list[float]:
    """Multiples of 1, 2, 2.5 or 5 times a power of ten from `low` to `high`, as many as fit below `most`."""
    if high <= low:
        return []
    least = (high - low) / most
    power = 10.0 ** math.floor(math.log10(least))
    step = next(part * power for part in _STEPS if part * power >= least * (1 - 1e-9))
    return [round(number * step, 10) for number in range(math.ceil(low / step), math.floor(high / step) + 1)]


@torch.no_grad()
def _probabilities(
    network: FusionNetwork, seen: Tensor, values: Tensor, observed: Tensor, card: Card
) -> list[list[float]]:
    """Calibrated probabilities (record, finding), the mean over the samples, for records (record, field)."""
    weight = network.disease.weight
    seen, values, observed = seen.to(weight.device, weight.dtype), values.to(weight), observed.to(weight.device)
    step = max(1, _MOST_NUMBERS // seen[0].numel())
    fusion = network.fusion
    every = []
    for some, there in zip(values.split(step), observed.split(step), strict=True):
        total = torch.zeros(len(some), len(card.labels), dtype=torch.float64)
        for sample in seen:
            same = sample.expand(len(some), *sample.shape)
            if isinstance(fusion, GatedFusion):
                gate, projected = fusion.state(same, some, there)
                fused = gate * projected
            else:
                fused = fusion.fuse(same, some, there)
            total += calibrated_probabilities(network.answer(fused).logits, card.calibration)
        every.append(total / len(seen))
    answers: list[list[float]] = torch.cat(every).tolist()
    return answers
