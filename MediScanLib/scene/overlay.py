"""Heat map of a finding as a colored, half transparent volume over the image it explains."""

from __future__ import annotations

import slicer

from ..errors import UsageError
from ..prediction.heatmaps import HeatMaps
from .colors import COLOR_MAPS, color_node
from .nodes import Node, Scene, ensure_node, find_node, remove_with_belongings
from .views import hide_from_views, show_in_views
from .volumes import grid_shape, write_voxels

HEAT_MAP = "heat map"
FINDING = "MediScan.Finding"
"""Attribute of an overlay: the finding whose map it holds."""

DEFAULT_OPACITY = 0.5
DEFAULT_THRESHOLD = 0.25
LEGEND_SIZE = (0.12, 0.4)
"""Width and height of the legend as fractions of a view: small, since it lies over the image."""


def show_overlay(
    scene: Scene,
    maps: HeatMaps,
    label: str,
    reference: Node,
    *,
    opacity: float = DEFAULT_OPACITY,
    threshold: float = DEFAULT_THRESHOLD,
    colors: str = COLOR_MAPS[0],
) -> Node:
    """Make or change the overlay of an image and lay it over the slice views that show the image.

    Args:
        scene: vtkMRMLScene.
        maps: Heat maps of the prediction for that image.
        label: Finding to show.
        reference: Volume node that the prediction was made for.
        opacity: Of the overlay, 0..1.
        threshold: Values below it are transparent, 0..1 of the model's scale.
        colors: One of `COLOR_MAPS`.

    Returns:
        The overlay: one vtkMRMLScalarVolumeNode an image, reused when the finding changes.

    Raises:
        UsageError: There is no map of that finding, or the maps are of another image.
    """
    overlay = make_overlay(scene, maps, label, reference, colors=colors)
    set_threshold(overlay, threshold)
    set_visible(scene, overlay, reference, True, opacity)
    return overlay


def make_overlay(scene: Scene, maps: HeatMaps, label: str, reference: Node, *, colors: str = COLOR_MAPS[0]) -> Node:
    """The overlay volume without touching the views: geometry of the image, values 0..1 over the model's scale.

    See `show_overlay` for arguments and errors.
    """
    if label not in maps.labels:
        raise UsageError(f"There is no heat map of {label!r}. Choose one of {', '.join(maps.labels)}.")
    if grid_shape(reference) != maps.shape:
        raise UsageError(
            f"The heat maps are of an image of {_size(maps.shape)} voxels, but {reference.GetName()!r} has "
            f"{_size(grid_shape(reference))}. Show them on the image that the prediction was made for."
        )
    overlay = ensure_node(scene, "vtkMRMLScalarVolumeNode", HEAT_MAP, reference)
    write_voxels(overlay, maps.normalized(label))
    overlay.GetImageData().SetExtent(reference.GetImageData().GetExtent())
    overlay.CopyOrientation(reference)
    overlay.SetAndObserveTransformNodeID(reference.GetTransformNodeID())
    overlay.SetAttribute(FINDING, label)
    overlay.SetName(f"{reference.GetName()} {label} {HEAT_MAP}")
    _set_colors(scene, overlay, colors)
    _set_legend(scene, overlay, label)
    return overlay


def find_overlay(scene: Scene, reference: Node) -> Node | None:
    """The overlay of an image, None if there is none."""
    return find_node(scene, "vtkMRMLScalarVolumeNode", HEAT_MAP, reference)


def set_threshold(overlay: Node, threshold: float) -> None:
    """Make values below `threshold` (0..1 of the model's scale) transparent."""
    display = overlay.GetDisplayNode()
    display.AutoThresholdOff()
    display.SetThreshold(threshold, 1.0)
    display.ApplyThresholdOn()


def set_visible(scene: Scene, overlay: Node, reference: Node, visible: bool, opacity: float = DEFAULT_OPACITY) -> bool:
    """Show the overlay and its legend with that opacity, or hide both.

    Returns:
        True where a view got a new background, see `show_in_views`.
    """
    turned = False
    if visible:
        turned = show_in_views(scene, overlay, reference, opacity)
    else:
        hide_from_views(scene, overlay)
    legend = _legend(overlay)
    if legend is not None:
        legend.SetVisibility(visible)
        legend.Modified()  # its displayable manager does not notice by itself that the layers of a view changed
    return turned


def remove_overlay(scene: Scene, reference: Node) -> None:
    """Remove an image's overlay with its display, legend and storage, and put the views back as they were."""
    overlay = find_overlay(scene, reference)
    if overlay is not None:
        hide_from_views(scene, overlay)
        remove_with_belongings(scene, overlay)


def _set_colors(scene: Scene, overlay: Node, colors: str) -> None:
    if overlay.GetDisplayNode() is None:
        overlay.CreateDefaultDisplayNodes()
        set_threshold(overlay, DEFAULT_THRESHOLD)
    display = overlay.GetDisplayNode()
    # The legend shows the whole table, so the window must be the scale itself and never follow the values.
    display.AutoWindowLevelOff()
    display.SetWindowLevelMinMax(0.0, 1.0)
    display.InterpolateOn()
    display.SetAndObserveColorNodeID(color_node(scene, colors).GetID())


def _set_legend(scene: Scene, overlay: Node, label: str) -> None:
    if not scene.IsNodeClassRegistered("vtkMRMLColorLegendDisplayNode"):  # the application does it at startup
        scene.RegisterNodeClass(slicer.vtkMRMLColorLegendDisplayNode())
    legend = slicer.vtkSlicerColorLogic.AddDefaultColorLegendDisplayNode(overlay.GetDisplayNode())
    legend.SetTitleText(label)
    legend.SetLabelFormat("%.1f")
    legend.SetNumberOfLabels(3)
    legend.SetSize(*LEGEND_SIZE)


def _legend(overlay: Node) -> Node | None:
    for number in range(overlay.GetNumberOfDisplayNodes()):
        display = overlay.GetNthDisplayNode(number)
        if display is not None and display.IsA("vtkMRMLColorLegendDisplayNode"):
            return display
    return None


def _size(shape: tuple[int, int, int]) -> str:
    return " x ".join(str(length) for length in shape)
