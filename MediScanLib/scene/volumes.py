"""Volume nodes to MedicalImage and back, geometry included."""

from __future__ import annotations

from pathlib import PurePath
from typing import Any

import numpy as np
import numpy.typing as npt
from vtkmodules.util.numpy_support import get_vtk_array_type, vtk_to_numpy
from vtkmodules.vtkCommonDataModel import vtkImageData

from ..errors import ReadError, UsageError
from ..study.guards import finite_float32
from ..study.hounsfield import AIR_HU, assumed_hounsfield
from ..study.image import MedicalImage
from ..study.luminance import to_gray
from .geometry import LPS_RAS, ijk_to_world_ras, split_affine, to_vtk
from .header import header_facts, remember_facts
from .nodes import Node, Scene, is_ours

PICTURE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif"})
"""Formats that carry no length: Slicer's spacing of 1 mm is then a stand-in."""

CHEST_PARTS = frozenset({"CHEST", "THORAX", "LUNG"})
LUNG_WINDOW = (-600.0, 1500.0)
SOFT_TISSUE_WINDOW = (40.0, 400.0)


def image_from_volume(node: Node) -> MedicalImage:
    """The image that a scalar or vector (color) volume node shows, in world space.

    Linear parent transforms are applied to the geometry; voxels are copied once. MONOCHROME1 comes inverted by
    Slicer's reader and is not inverted again. Modality, body part, age and sex come from the DICOM database or the
    subject hierarchy where the volume came from there.

    Args:
        node: vtkMRMLScalarVolumeNode or vtkMRMLVectorVolumeNode of 1 to 4 components.

    Raises:
        ReadError: No voxels, an unsuitable number of components, no finite voxel, or a geometry that a grid with
            right angles cannot have.
        UsageError: The node is no image volume, or one of MediScan's own heat maps.
    """
    if node is None or not node.IsA("vtkMRMLScalarVolumeNode"):
        raise UsageError("There is no image volume. Choose a scalar or color volume.")
    if is_ours(node):
        raise UsageError(f"{node.GetName()!r} is a heat map made by MediScan. Choose the image itself.")
    name = f"Volume {node.GetName()!r}"
    voxels = _voxels(node, name)
    facts = header_facts(node)

    gray, color = _gray(voxels)
    pixels, notes = finite_float32(gray, name)
    if facts.pop("invert_now", False):
        pixels = pixels.max() + pixels.min() - pixels
    assumed = None if color or facts.get("modality") else assumed_hounsfield(pixels)
    if assumed:
        facts["modality"] = "CT"
        notes = (*notes, assumed)
    facts.setdefault("units", "HU" if facts.get("modality") == "CT" else "intensity")
    if facts["units"] == "HU":
        pixels = np.maximum(pixels, np.float32(AIR_HU))

    affine = LPS_RAS @ ijk_to_world_ras(node)
    extent = node.GetImageData().GetExtent()
    affine[:3, 3] += affine[:3, :3] @ extent[0::2]
    spacing, origin, direction = split_affine(affine, name)
    has_lengths = facts.pop("has_spacing", True) and not is_picture(node)
    return MedicalImage(
        pixels=pixels,
        spacing=spacing if has_lengths else None,  # type: ignore[arg-type]  # tuples of three by construction
        origin=origin,  # type: ignore[arg-type]
        direction=direction,
        color=color,
        reader="volume node",
        source=node.GetName() or "",
        warnings=(*facts.pop("warnings", ()), *notes),
        **facts,
    )


def volume_from_image(scene: Scene, image: MedicalImage, name: str) -> Node:
    """A new vtkMRMLScalarVolumeNode with the image's voxels, geometry and a sensible window.

    The window is the image's own, else lung or soft tissue for Hounsfield units, else 1st to 99th percentile.

    Args:
        scene: vtkMRMLScene.
        image: Float32 voxels; unknown spacing becomes 1 mm, as Slicer does for pictures.
        name: Name of the node.
    """
    node = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
    node.SetIJKToRASMatrix(to_vtk(LPS_RAS @ image.affine))
    write_voxels(node, image.pixels)
    remember_facts(node, image)
    node.CreateDefaultDisplayNodes()
    center, width = display_window(image)
    display = node.GetDisplayNode()
    display.AutoWindowLevelOff()
    display.SetWindowLevel(width, center)
    return node


def display_window(image: MedicalImage) -> tuple[float, float]:
    """(center, width) that shows the image well, in pixel units; the width is never zero."""
    if image.window is not None:
        return image.window
    if image.units == "HU":
        return LUNG_WINDOW if image.body_part in CHEST_PARTS else SOFT_TISSUE_WINDOW
    low, high = np.percentile(image.pixels, (1, 99))
    return float(low + high) / 2, max(float(high - low), 1e-3)


def mend_window(node: Node, image: MedicalImage) -> None:
    """Give a MONOCHROME1 volume a window that fits, unless the user has already set one.

    Slicer applies the header's window, which counts for the file's values, to the inverted ones.
    """
    display = node.GetDisplayNode()
    if not image.inverted or display is None or display.GetNumberOfWindowLevelPresets() == 0:
        return
    from_header = (display.GetWindowPreset(0), display.GetLevelPreset(0))
    if (display.GetWindow(), display.GetLevel()) == from_header:
        center, width = display_window(image)
        display.AutoWindowLevelOff()
        display.SetWindowLevel(width, center)


def write_voxels(node: Node, pixels: npt.NDArray[np.float32]) -> None:
    """Copy a (slice, row, column) array into a scalar volume node, reusing its memory where size and type fit."""
    data = node.GetImageData()
    dimensions = pixels.shape[::-1]
    scalar_type = get_vtk_array_type(pixels.dtype)
    if data is None or data.GetDimensions() != dimensions or data.GetScalarType() != scalar_type:
        data = vtkImageData()
        data.SetDimensions(*dimensions)
        data.AllocateScalars(scalar_type, 1)
        node.SetAndObserveImageData(data)
    scalars = data.GetPointData().GetScalars()
    vtk_to_numpy(scalars).reshape(pixels.shape)[...] = pixels
    scalars.Modified()
    data.Modified()


def grid_shape(node: Node) -> tuple[int, int, int]:
    """(slices, rows, columns) of a volume node."""
    columns, rows, slices = node.GetImageData().GetDimensions()
    return slices, rows, columns


def _voxels(node: Node, name: str) -> npt.NDArray[Any]:
    """The node's voxels, (slice, row, column) or (slice, row, column, component), sharing memory."""
    data = node.GetImageData()
    scalars = data.GetPointData().GetScalars() if data is not None else None
    if scalars is None or scalars.GetNumberOfTuples() == 0:
        raise ReadError(name, "it holds no voxels", "Load the image again.", code="empty")
    components = scalars.GetNumberOfComponents()
    if components > 4:
        raise ReadError(
            name,
            f"it has {components} values a voxel",
            "Choose a gray or color volume; extract one component or frame of this one first.",
            code="unsupported",
        )
    array = vtk_to_numpy(scalars)
    shape = grid_shape(node)
    return array.reshape(shape) if components == 1 else array.reshape(*shape, components)


def _gray(voxels: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], bool]:
    """One value a voxel, and whether there is color: a gray picture stored as RGB is as gray as from its file."""
    if voxels.ndim == 3:
        return voxels, False
    if voxels.shape[3] < 3:  # gray with transparency
        return voxels[..., 0], False
    channels = voxels[..., :3]
    return to_gray(channels)


def is_picture(node: Node) -> bool:
    """True where the volume came from a file in a format that carries no length."""
    storage = node.GetStorageNode()
    file_name = storage.GetFileName() if storage is not None else None
    return file_name is not None and PurePath(file_name).suffix.lower() in PICTURE_SUFFIXES
