"""A study as the network sees it: batches of slices, or one volume."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from ...errors import UsageError
from ...study.image import MedicalImage
from ...study.record import ClinicalRecord
from ..predictor import Predictor
from ..preprocessing import NetworkInput, prepare_clinical, prepare_slices, prepare_volume

FEW = 2
"""On a CPU an image takes longest in a large batch, whose activations no longer fit its caches."""


def at_once(predictor: Predictor) -> int:
    """Images that go through the network together, at most: volumes go alone, as they do in a prediction."""
    if predictor.bundle.card.network.spatial_dims == 3:
        return 1
    most = predictor.settings.max_batch_size
    return min(most, FEW) if predictor.device.type == "cpu" else most


def wanted_slices(predictor: Predictor, image: MedicalImage, slices: Sequence[int] | None) -> tuple[int, ...]:
    """Slices to look at; none of them by itself for a 3D network.

    Raises:
        UsageError: None was chosen.
    """
    if predictor.bundle.card.network.spatial_dims == 3:
        return ()
    wanted = tuple(range(image.shape[0])) if slices is None else tuple(slices)
    if not wanted:
        raise UsageError(f"{image.source or 'image'}: no slice was chosen. Choose one at least.")
    return wanted


def prepared_parts(predictor: Predictor, image: MedicalImage, wanted: Sequence[int]) -> Iterator[NetworkInput]:
    """The study in batches of as many slices as go through the network together."""
    spec = predictor.bundle.card.input
    if not wanted:
        yield prepare_volume(image, spec)
        return
    step = at_once(predictor)
    for start in range(0, len(wanted), step):
        yield prepare_slices(image, spec, wanted[start : start + step])


def clinical_input(predictor: Predictor, image: MedicalImage, record: ClinicalRecord | None) -> tuple[Tensor, Tensor]:
    """Standardized values and which are known, (1, field), on the device; what the image's header states included."""
    known = (record or ClinicalRecord()).with_prefill(image.prefill)
    values, observed = prepare_clinical([known], predictor.bundle.card)
    return values.to(predictor.device), observed.to(predictor.device)


def on_device(predictor: Predictor, prepared: NetworkInput) -> Tensor:
    """The tensor where and as the network wants it."""
    return prepared.tensor.to(predictor.device, memory_format=torch.contiguous_format)
