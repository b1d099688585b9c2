"""The image of a study: pixels, geometry and the few header facts that the rest of MediScan needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

RADIOGRAPH_MODALITIES = frozenset({"CR", "DX", "DR", "RG", "XR", "MG", "IO", "PX"})
"""DICOM modality codes of projection images, for which one exposure is the whole study."""

IDENTITY_DIRECTION = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)


@dataclass(frozen=True, eq=False)
class MedicalImage:
    """One image or volume in physical space. Immutable; one class for a radiograph and a volume.

    Physical coordinates are DICOM's patient system, LPS, in mm. The geometry follows ITK: the centre of the
    voxel at index (column, row, slice) lies at `origin + direction @ (spacing * index)`.

    Attributes:
        pixels: (slice, row, column) float32, all finite. MONOCHROME2 sense: larger is brighter. Hounsfield units
            where `units` is "HU", else the modality's own values after rescale.
        spacing: Distance in mm between neighbouring (columns, rows, slices), ITK's x, y, z order; None where the
            file gives none (photographs, PNG, JPEG): then nothing may be called a length.
        origin: (x, y, z) of the first voxel's centre, LPS, mm.
        direction: Row-major 3x3, columns are the unit vectors along which column, row and slice index grow, LPS.
        modality: DICOM modality code (CR, DX, CT, US, MG, MR...), None if unknown.
        body_part: DICOM Body Part Examined in upper case, None if unknown.
        view: View position such as PA, AP, LL, None if unknown.
        laterality: L, R, B or None.
        units: "HU" or "intensity".
        window: (center, width) in pixel units that the file asks for at display, None if it asks for nothing.
        slice_axis: "position" where slices are places in space, "frame" where they are time points or loose frames.
        color: True where the file held colour and `pixels` is its luminance.
        inverted: True where MONOCHROME1 (or an inverse presentation) was turned into MONOCHROME2 on reading.
        identifiers: Hashed patient, study, series and instance identifiers (never the plain ones).
        prefill: Clinical fields that the header states, by ClinicalRecord field name (age_years, sex...).
        reader: Name and version of the reader and decoder that made the pixels.
        source: What was read, as the user named it.
        warnings: Sentences a user should see about this image.
    """

    pixels: npt.NDArray[np.float32]
    spacing: tuple[float, float, float] | None = None
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0)
    direction: tuple[float, ...] = IDENTITY_DIRECTION
    modality: str | None = None
    body_part: str | None = None
    view: str | None = None
    laterality: str | None = None
    units: Literal["HU", "intensity"] = "intensity"
    window: tuple[float, float] | None = None
    slice_axis: Literal["position", "frame"] = "position"
    color: bool = False
    inverted: bool = False
    identifiers: Mapping[str, str] = field(default_factory=dict)
    prefill: Mapping[str, float | str] = field(default_factory=dict)
    reader: str = "array"
    source: str = ""
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        pixels = np.ascontiguousarray(self.pixels, dtype=np.float32)
        if pixels.ndim != 3 or 0 in pixels.shape:
            raise ValueError(f"pixels must be (slice, row, column) and not empty, got shape {self.pixels.shape}")
        if not np.isfinite(pixels).all():
            raise ValueError("pixels must be finite")
        if self.spacing is not None and (len(self.spacing) != 3 or not all(0 < s < np.inf for s in self.spacing)):
            raise ValueError(f"spacing must be three positive numbers in mm or None, got {self.spacing}")
        if len(self.direction) != 9 or not np.allclose(
            self.direction_matrix @ self.direction_matrix.T, np.eye(3), atol=1e-3
        ):
            raise ValueError(f"direction must be an orthonormal 3x3 matrix, row by row, got {self.direction}")
        pixels = pixels.view()
        pixels.flags.writeable = False
        object.__setattr__(self, "pixels", pixels)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(slices, rows, columns)."""
        slices, rows, columns = self.pixels.shape
        return slices, rows, columns

    @property
    def is_volume(self) -> bool:
        """True where there are several slices in space."""
        return self.shape[0] > 1 and self.slice_axis == "position"

    @property
    def is_radiograph(self) -> bool:
        """True for projection radiographs."""
        return self.modality in RADIOGRAPH_MODALITIES

    @property
    def direction_matrix(self) -> npt.NDArray[np.float64]:
        """3x3 matrix whose columns are the axes of column, row and slice index in LPS."""
        return np.asarray(self.direction, dtype=np.float64).reshape(3, 3)

    @property
    def affine(self) -> npt.NDArray[np.float64]:
        """4x4 matrix from (column, row, slice, 1) to LPS mm; unit spacing where the spacing is unknown."""
        matrix = np.eye(4)
        matrix[:3, :3] = self.direction_matrix * np.asarray(self.spacing or (1.0, 1.0, 1.0))
        matrix[:3, 3] = self.origin
        return matrix

    def to_physical(self, index: tuple[float, float, float]) -> tuple[float, float, float]:
        """LPS position in mm of the index (slice, row, column)."""
        x, y, z = (self.affine @ (index[2], index[1], index[0], 1.0))[:3]
        return float(x), float(y), float(z)

    def to_index(self, position: tuple[float, float, float]) -> tuple[float, float, float]:
        """Continuous index (slice, row, column) of an LPS position in mm."""
        column, row, slice_ = (np.linalg.inv(self.affine) @ (*position, 1.0))[:3]
        return float(slice_), float(row), float(column)

    def with_pixels(self, pixels: npt.NDArray[np.float32]) -> MedicalImage:
        """The same geometry and header facts with other pixels of the same shape."""
        if pixels.shape != self.pixels.shape:
            raise ValueError(f"expected shape {self.pixels.shape}, got {pixels.shape}")
        return replace(self, pixels=pixels)
