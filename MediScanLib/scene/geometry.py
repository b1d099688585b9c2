"""Where voxels lie: from MRML's IJK and RAS to the library's (slice, row, column) and LPS, and back."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from vtkmodules.vtkCommonMath import vtkMatrix4x4

from ..errors import ReadError

Matrix = npt.NDArray[np.float64]

LPS_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""Turns LPS coordinates (DICOM, ITK) into RAS (Slicer) and back: it is its own inverse."""

ORTHOGONAL_TOLERANCE = 1e-3


def to_numpy(matrix: Any) -> Matrix:
    """A vtkMatrix4x4 as a (4, 4) array."""
    return np.array([[matrix.GetElement(row, column) for column in range(4)] for row in range(4)])


def to_vtk(matrix: Matrix) -> Any:
    """A (4, 4) array as a vtkMatrix4x4."""
    result = vtkMatrix4x4()
    result.DeepCopy(np.asarray(matrix, dtype=np.float64).ravel().tolist())
    return result


def ijk_to_ras(node: Any) -> Matrix:
    """The volume node's own (4, 4) matrix from (column, row, slice, 1) to RAS mm, without parent transforms."""
    matrix = vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    return to_numpy(matrix)


def ijk_to_world_ras(node: Any) -> Matrix:
    """From (column, row, slice, 1) to world RAS mm, through all parent transforms.

    Raises:
        ReadError: A parent transform is not linear, so that no matrix says where the voxels are.
    """
    own = ijk_to_ras(node)
    parent = node.GetParentTransformNode()
    if parent is None:
        return own
    if not parent.IsTransformToWorldLinear():
        raise ReadError(
            f"Volume {node.GetName()!r}",
            f"it stands under the non-linear transform {parent.GetName()!r} (Slicer adds one to series with gantry "
            "tilt or uneven slice gaps)",
            "Harden the transform in the Transforms module, or resample the volume to a regular grid, and try again.",
            code="geometry",
        )
    to_world = vtkMatrix4x4()
    parent.GetMatrixTransformToWorld(to_world)
    return to_numpy(to_world) @ own


def split_affine(affine: Matrix, what: str) -> tuple[tuple[float, ...], tuple[float, ...], tuple[float, ...]]:
    """Spacing, origin and row-major direction of an index-to-space matrix.

    Args:
        affine: (4, 4), from (column, row, slice, 1) to mm.
        what: Names the image in the error.

    Raises:
        ReadError: An axis has no length, or the axes are not at right angles (shear).
    """
    axes = affine[:3, :3]
    spacing = np.linalg.norm(axes, axis=0)
    if not np.isfinite(affine).all() or (spacing < 1e-9).any():
        raise ReadError(
            what,
            "its geometry has an axis without length",
            "Set the spacing in the Volumes module.",
            code="geometry",
        )
    direction = axes / spacing
    if not np.allclose(direction.T @ direction, np.eye(3), atol=ORTHOGONAL_TOLERANCE):
        raise ReadError(
            what,
            "its axes are not at right angles (a shearing transform or gantry tilt)",
            "Resample the volume to a regular grid, for example with Crop Volume or Resample Scalar/Vector/DWI "
            "Volume, and try again.",
            code="geometry",
        )
    return (
        tuple(float(value) for value in spacing),
        tuple(float(value) for value in affine[:3, 3]),
        tuple(float(value) for value in direction.ravel()),
    )


def world_ras(node: Any, index: tuple[float, float, float]) -> tuple[float, float, float]:
    """World RAS position in mm of the (slice, row, column) index of a volume node."""
    x, y, z = (ijk_to_world_ras(node) @ (index[2], index[1], index[0], 1.0))[:3]
    return float(x), float(y), float(z)
