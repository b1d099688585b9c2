"""Where the pixels of a DICOM image lie: spacing, position and orientation, and what the spacing means."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from .dicom_values import element_items, element_number, element_numbers, element_text
from .image import RADIOGRAPH_MODALITIES

Vector = npt.NDArray[np.float64]

_SAME_DIRECTION = 1e-3


@dataclass(frozen=True)
class Plane:
    """One slice in space, LPS, mm.

    Attributes:
        along_columns: Unit vector in which the column index grows.
        along_rows: Unit vector in which the row index grows.
        position: Centre of the first pixel; None where the header does not say.
        spacing: (between columns, between rows); None where the header does not say.
        thickness: Slice thickness, None if unknown.
    """

    along_columns: Vector
    along_rows: Vector
    position: Vector | None
    spacing: tuple[float, float] | None
    thickness: float | None

    @property
    def normal(self) -> Vector:
        """Unit vector across the slice."""
        return np.cross(self.along_columns, self.along_rows)

    @property
    def distance(self) -> float:
        """Signed distance of the slice from the origin along its normal."""
        assert self.position is not None
        return float(self.position @ self.normal)

    @property
    def direction(self) -> tuple[float, ...]:
        """As `MedicalImage.direction`."""
        columns = np.stack([self.along_columns, self.along_rows, self.normal], axis=1)
        return tuple(float(value) for value in columns.ravel())


def frame_headers(header: Dataset, frames: int) -> list[Dataset]:
    """For each frame one flat data set of its functional groups (PS3.3 C.7.6.16), per-frame over shared.

    Objects without functional groups give the header itself for every frame.
    """
    shared = element_items(header, "SharedFunctionalGroupsSequence")
    per_frame = element_items(header, "PerFrameFunctionalGroupsSequence")
    if not shared and not per_frame:
        return [header] * frames
    common = _flat(shared[0]) if shared else Dataset()
    result = []
    for index in range(frames):
        merged = Dataset()
        merged.update(common)
        if index < len(per_frame):
            merged.update(_flat(per_frame[index]))
        result.append(merged)
    return result


def _flat(groups: Dataset) -> Dataset:
    flat = Dataset()
    for keyword in (
        "PixelMeasuresSequence",
        "PlanePositionSequence",
        "PlaneOrientationSequence",
        "PixelValueTransformationSequence",
        "FrameVOILUTSequence",
    ):
        for item in element_items(groups, keyword)[:1]:
            flat.update(item)
    return flat


def plane_of(header: Dataset, radiograph: bool) -> tuple[Plane, tuple[str, ...]]:
    """Geometry of one file or frame, and what a user should know about its spacing."""
    notes: list[str] = []
    spacing, note = _spacing(header, radiograph)
    if note:
        notes.append(note)
    position = element_numbers(header, "ImagePositionPatient", 3)
    orientation = element_numbers(header, "ImageOrientationPatient", 6)
    columns, rows = np.array([1.0, 0, 0]), np.array([0, 1.0, 0])
    if orientation is not None:
        stated = np.array(orientation[:3]), np.array(orientation[3:])
        lengths = np.linalg.norm(stated[0]), np.linalg.norm(stated[1])
        if min(lengths) < 0.9 or max(lengths) > 1.1 or abs(stated[0] @ stated[1]) > 0.01:
            notes.append("The image orientation in the header is not a pair of perpendicular unit vectors; ignored.")
            position = None
        else:
            columns = stated[0] / lengths[0]
            rows = stated[1] - (stated[1] @ columns) * columns
            rows /= np.linalg.norm(rows)
    else:
        position = None  # a position without an orientation places nothing
    thickness = element_number(header, "SliceThickness")
    return (
        Plane(
            columns,
            rows,
            None if position is None else np.array(position),
            spacing,
            thickness if thickness and thickness > 0 else None,
        ),
        tuple(notes),
    )


def _pair(header: Dataset, keyword: str) -> tuple[float, float] | None:
    """(between columns, between rows); DICOM states rows first (PS3.3 10.7.1.3)."""
    values = element_numbers(header, keyword, 2)
    return (values[1], values[0]) if values is not None and min(values) > 0 else None


def _spacing(header: Dataset, radiograph: bool) -> tuple[tuple[float, float] | None, str | None]:
    calibrated = _pair(header, "PixelSpacing")
    detector = _pair(header, "ImagerPixelSpacing") or _pair(header, "NominalScannedPixelSpacing")
    if calibrated is None and detector is None:
        stated = element_numbers(header, "PixelSpacing") or element_numbers(header, "ImagerPixelSpacing")
        return None, "The pixel spacing in the header is not positive; lengths are unknown." if stated else None
    if not radiograph:
        return calibrated or detector, None
    magnification = element_number(header, "EstimatedRadiographicMagnificationFactor")
    factor = f" (estimated magnification {magnification:g})" if magnification and magnification > 0 else ""
    at_detector = f"Lengths are at the detector, larger than in the patient{factor}."
    if calibrated is None or calibrated == detector:
        return detector, at_detector
    how = element_text(header, "PixelSpacingCalibrationType")
    if how is not None or detector is not None:
        return calibrated, f"Lengths are calibrated ({(how or 'method not stated').lower()})."
    return calibrated, f"The header does not say whether lengths are calibrated or at the detector{factor}."


def pixel_aspect(header: Dataset) -> float:
    """Height of a pixel divided by its width where only their ratio is known (PS3.3 C.7.6.3.1.7), else 1."""
    ratio = element_numbers(header, "PixelAspectRatio", 2)
    return ratio[0] / ratio[1] if ratio is not None and min(ratio) > 0 else 1.0


def frame_planes(header: Dataset, groups: Sequence[Dataset]) -> tuple[list[Plane], tuple[str, ...]]:
    """The place of each frame of an object, and what a user should know about its spacing.

    Args:
        header: Top-level data set.
        groups: What `frame_headers` returns for it.
    """
    radiograph = element_text(header, "Modality") in RADIOGRAPH_MODALITIES
    found = [plane_of(group, radiograph) for group in (groups if groups[0] is not header else groups[:1])]
    planes = [plane for plane, _ in found]
    if len(planes) < len(groups):
        planes = _classic_planes(header, len(groups), planes[0])
    return planes, found[0][1]


def _classic_planes(header: Dataset, frames: int, first: Plane) -> list[Plane]:
    positions = _classic_frame_positions(header, frames, first)
    if positions is None:
        return [replace(first, position=None)] * frames
    return [replace(first, position=position) for position in positions]


def stackable(planes: Sequence[Plane]) -> bool:
    """True where every frame has a place of its own, with one orientation and one spacing."""
    first = planes[0]
    if not all(
        plane.position is not None
        and plane.spacing is not None
        and first.spacing is not None
        and np.allclose(plane.spacing, first.spacing, rtol=1e-3)
        and same_orientation(plane, first)
        for plane in planes
    ):
        return False
    distances = np.sort([plane.distance for plane in planes])
    return bool((np.diff(distances) > 0.01).all())


def same_orientation(a: Plane, b: Plane) -> bool:
    """True where two slices are parallel and their rows and columns run the same way."""
    return np.allclose(a.along_columns, b.along_columns, atol=_SAME_DIRECTION) and np.allclose(
        a.along_rows, b.along_rows, atol=_SAME_DIRECTION
    )


def _classic_frame_positions(header: Dataset, frames: int, plane: Plane) -> list[Vector] | None:
    """Positions of frames that a Grid Frame Offset Vector places along the normal (dose grids), else None."""
    offsets = element_numbers(header, "GridFrameOffsetVector", frames)
    if offsets is None or plane.position is None:
        return None
    return [plane.position + (offset - offsets[0]) * plane.normal for offset in offsets]
