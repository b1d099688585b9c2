"""From a MedicalImage to the tensor a network takes, with the exact way back for heat maps.

A slice keeps its shape: it is scaled by one factor in physical space until it fits the network's input, and the rest
is padding. Scaling follows the half-pixel convention (pixel i covers [i, i + 1)), with antialiasing. Axial slices are
turned the way the training images lie, with the patient's right on the left and the front on top, whichever way the
file stores them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ..errors import UsageError
from ..network.card import Card, InputSpec
from ..study.image import MedicalImage
from ..study.record import FIELDS, ClinicalRecord
from .heatmaps import AxisMap


@dataclass(frozen=True)
class NetworkInput:
    """What goes into the encoder and how its pixels relate to the image's.

    Attributes:
        tensor: (slice, 1, row, column) for a 2D network, (1, 1, slice, row, column) for a 3D one; float32.
        axes: Relation of image (slices, rows, columns) to input pixels; the slices stand apart (None) in 2D.
        slices: Image slices in the tensor (2D), empty in 3D.
    """

    tensor: Tensor
    axes: tuple[AxisMap | None, AxisMap, AxisMap]
    slices: tuple[int, ...]


@dataclass(frozen=True)
class _Fit:
    """Scaling and centering of one axis: `length` pixels become `scaled` of `size`, after `before` of padding."""

    length: int
    size: int
    scaled: int

    @property
    def before(self) -> int:
        return (self.size - self.scaled) // 2

    def axis(self, mirrored: bool) -> AxisMap:
        factor = self.scaled / self.length
        first = 0.5 * factor - 0.5
        if mirrored:
            return AxisMap(-factor, self.before + self.scaled - 1 - first)
        return AxisMap(factor, self.before + first)


def prepare_slices(image: MedicalImage, spec: InputSpec, slices: Sequence[int]) -> NetworkInput:
    """Chosen slices of an image as a batch for a 2D network.

    Args:
        image: Image.
        spec: Input of the network, `size` (rows, columns).
        slices: Slice indices.

    Raises:
        UsageError: A slice that the image does not have.
    """
    for index in slices:
        if not 0 <= index < image.shape[0]:
            raise UsageError(
                f"{image.source or 'image'}: there is no slice {index}; it has 0 to {image.shape[0] - 1}."
            )
    x_mm, y_mm, _ = image.spacing or (1.0, 1.0, 1.0)
    rows, columns = _fit_all(image.shape[1:], (y_mm, x_mm), spec.size)
    pixels = _windowed(image, spec, image.pixels[list(slices)])
    resized = functional.interpolate(
        pixels[:, None], size=(rows.scaled, columns.scaled), mode="bilinear", antialias=True, align_corners=False
    )
    mirrored = mirrored_axes(image)[1:]
    tensor = _laid_out(_stretched(resized, _uneven(pixels), spec), (rows, columns), mirrored, spec)
    return NetworkInput(tensor, (None, rows.axis(mirrored[0]), columns.axis(mirrored[1])), tuple(slices))


def prepare_volume(image: MedicalImage, spec: InputSpec) -> NetworkInput:
    """A whole volume for a 3D network, `spec.size` (slices, rows, columns)."""
    x_mm, y_mm, z_mm = image.spacing or (1.0, 1.0, 1.0)
    slices, rows, columns = _fit_all(image.shape, (z_mm, y_mm, x_mm), spec.size)
    pixels = _windowed(image, spec, image.pixels)
    in_plane = functional.interpolate(
        pixels[:, None],
        size=(rows.scaled, columns.scaled),
        mode="bilinear",
        antialias=True,
        align_corners=False,
    )
    # antialiasing exists for two axes only: the slice axis is scaled as the rows of a (slice, pixel) image
    flat = in_plane.reshape(1, 1, image.shape[0], rows.scaled * columns.scaled)
    through = functional.interpolate(
        flat, size=(slices.scaled, flat.shape[3]), mode="bilinear", antialias=True, align_corners=False
    )
    volume = through.reshape(1, 1, slices.scaled, rows.scaled, columns.scaled)
    mirrored = mirrored_axes(image)
    tensor = _laid_out(_stretched(volume, _uneven(pixels[None]), spec), (slices, rows, columns), mirrored, spec)
    return NetworkInput(tensor, (slices.axis(mirrored[0]), rows.axis(mirrored[1]), columns.axis(mirrored[2])), ())


def is_axial(image: MedicalImage) -> bool:
    """True where columns, rows and slices run along right-left, anterior-posterior and inferior-superior."""
    return bool((np.abs(np.diag(image.direction_matrix)) > np.sqrt(0.5)).all())


def mirrored_axes(image: MedicalImage) -> tuple[bool, bool, bool]:
    """Which of (slices, rows, columns) run against inferior-superior, anterior-posterior and right-left.

    Only axial slices are turned: what is upright in a radiograph or an ultrasound is how the file stores it.
    """
    direction = image.direction_matrix
    if not is_axial(image) or not (image.is_volume or image.modality == "CT"):
        return False, False, False
    return bool(direction[2, 2] < 0), bool(direction[1, 1] < 0), bool(direction[0, 0] < 0)


def _fit_all(lengths: Sequence[int], spacing: Sequence[float], sizes: Sequence[int]) -> list[_Fit]:
    """One physical scale for all axes, so that nothing is stretched."""
    extents = [length * mm for length, mm in zip(lengths, spacing, strict=True)]
    pixels_per_mm = min(size / extent for size, extent in zip(sizes, extents, strict=True))
    return [
        _Fit(length, size, max(1, min(size, round(extent * pixels_per_mm))))
        for length, size, extent in zip(lengths, sizes, extents, strict=True)
    ]


def _windowed(image: MedicalImage, spec: InputSpec, pixels: np.ndarray) -> Tensor:
    """A copy of pixels, limited to the window that the network was trained with or, failing that, the file's own."""
    window = spec.windows.get(image.modality or "") if image.units == "HU" else image.window
    if window is None:
        return torch.from_numpy(pixels.copy())
    center, width = window
    return torch.from_numpy(pixels.clip(center - width / 2, center + width / 2))


def _uneven(pixels: Tensor) -> Tensor:
    """(sample, 1) False where all pixels of a sample are the same; asked before scaling, which rounds."""
    flat = pixels.flatten(1)
    return flat.amax(dim=1, keepdim=True) > flat.amin(dim=1, keepdim=True)


def _stretched(resized: Tensor, uneven: Tensor, spec: InputSpec) -> Tensor:
    """Percentiles of each sample to 0 and 1."""
    flat = resized.flatten(1)
    count = flat.shape[1]
    ranks = [max(1, min(count, math.ceil(p / 100 * count))) for p in spec.percentiles]
    low, high = (flat.kthvalue(rank, dim=1, keepdim=True).values for rank in ranks)
    # an even picture has no contrast to stretch: it becomes all zero instead of amplified noise
    span = (high - low).clamp_min(torch.finfo(torch.float32).tiny)
    scaled = torch.where(uneven & (high > low), (flat - low) / span, 0.0)
    return scaled.clamp(0, 1).reshape(resized.shape)


def _laid_out(tensor: Tensor, fits: Sequence[_Fit], mirrored: Sequence[bool], spec: InputSpec) -> Tensor:
    """Turned, centered in the network's input with a black border as outside a collimator, and standardized."""
    turned = tensor.flip([2 + axis for axis, flip in enumerate(mirrored) if flip])
    padding = [side for fit in reversed(fits) for side in (fit.before, fit.size - fit.scaled - fit.before)]
    # border before standardizing: an even picture must come out exactly as its border, to be known as blank
    return (functional.pad(turned, padding) - spec.mean) / spec.std


def prepare_clinical(records: Sequence[ClinicalRecord], card: Card) -> tuple[Tensor, Tensor]:
    """Standardized clinical values (record, field) float32 and the mask of known ones, bool; unknown ones are 0.

    A field that no training study had is masked: the network never learned what it means.
    """
    values, known = (np.stack(column) for column in zip(*(record.encode() for record in records), strict=True))
    fields = [card.clinical[name] for name in FIELDS]
    known = known & np.array([field.known_fraction > 0 for field in fields])
    standardized = (values - [field.mean for field in fields]) / [field.std for field in fields]
    return torch.from_numpy(np.where(known, standardized, 0.0).astype(np.float32)), torch.from_numpy(known)
