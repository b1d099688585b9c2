"""What the module sees in a volume node, from its header and its geometry: quick enough to say at every choice."""

from __future__ import annotations

import numpy as np
from vtkmodules.util.numpy_support import vtk_to_numpy

from ..errors import ReadError
from ..study.luminance import to_gray
from .geometry import ijk_to_world_ras, split_affine
from .header import header_facts
from .nodes import Node
from .volumes import grid_shape, is_picture

SAMPLES = 16384
"""Voxels that are looked at to tell a gray picture that is stored as color."""

_LATERALITY = {"L": "left", "R": "right", "B": "both sides"}


def describe_image(node: Node | None) -> list[tuple[str, str]]:
    """Name and value of what is known of an image, in the order to show it; never anything of the patient.

    Only metadata and a sample of color voxels are looked at, so that it costs the same for every size.

    Args:
        node: Volume node; None and a volume without voxels give an empty list.
    """
    data = node.GetImageData() if node is not None else None
    if node is None or data is None or data.GetPointData().GetScalars() is None:
        return []
    facts = header_facts(node)
    slices, rows, columns = grid_shape(node)
    kind = f"volume of {slices} slices" if slices > 1 else "single image"
    view = ", ".join(filter(None, (facts.get("view"), _LATERALITY.get(facts.get("laterality") or ""))))
    described = [
        ("Modality", facts.get("modality") or "not stated"),
        ("Body part", facts.get("body_part") or "not stated"),
        ("View", view),
        ("Kind", ", ".join(filter(None, (kind, _frame(node))))),
        ("Size", f"{columns} x {rows}" + (f" x {slices}" if slices > 1 else "")),
        ("Spacing", _spacing(node, slices, stated=facts.get("has_spacing", True))),
        ("Values", _values(node, inverted=facts.get("inverted", False), units=facts.get("units"))),
    ]
    return [(name, value) for name, value in described if value]


def _frame(node: Node) -> str:
    """Which frame of a sequence the volume holds now; empty for a volume that is none."""
    scene = node.GetScene()
    if scene is None:
        return ""
    for number in range(scene.GetNumberOfNodesByClass("vtkMRMLSequenceBrowserNode")):
        browser = scene.GetNthNodeByClass(number, "vtkMRMLSequenceBrowserNode")
        if browser.IsProxyNodeID(node.GetID()):
            return f"frame {browser.GetSelectedItemNumber() + 1} of {browser.GetNumberOfItems()}"
    return ""


def _spacing(node: Node, slices: int, *, stated: bool) -> str:
    """In world space, as the model sees it; the plain spacing where the geometry is one that it refuses."""
    if not stated or is_picture(node):
        return "no physical spacing"
    try:
        spacing = split_affine(ijk_to_world_ras(node), "")[0]
    except ReadError:
        spacing = node.GetSpacing()
    return " x ".join(f"{mm:.3g}" for mm in spacing[: 3 if slices > 1 else 2]) + " mm"


def _values(node: Node, *, inverted: bool, units: str | None) -> str:
    components = node.GetImageData().GetNumberOfScalarComponents()
    said = "gray"
    if components >= 3:
        colored = to_gray(_sample(node)[:, :3])[1]
        said = "color" if colored else "gray, stored as color"
    if units == "HU":
        said += ", Hounsfield units"
    if inverted:
        said += ", was stored inverted (MONOCHROME1)"
    return said


def _sample(node: Node) -> np.ndarray:
    """(voxel, component): voxels evenly spread over the volume, with a step that is no divisor of a row's length."""
    voxels = vtk_to_numpy(node.GetImageData().GetPointData().GetScalars())
    step = max(1, len(voxels) // SAMPLES)
    columns = node.GetImageData().GetDimensions()[0]
    while step > 1 and np.gcd(step, columns) > 1:
        step += 1
    return voxels[::step]
