"""Heat map of a finding as a colored, half transparent volume over the image it explains."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import slicer

from ..errors import UsageError
from ..prediction.heatmaps import HeatMaps
from .colors import color_node, outline_color_node
from .geometry import ijk_to_ras, to_vtk
from .nodes import Node, Scene, ensure_node, find_node, in_slot, remove_with_belongings
from .outline import Band, outline_band, outline_field
from .style import DEFAULT_OPACITY, DEFAULT_THRESHOLD, Style, remember_style, style_of
from .views import hide_from_views, show_in_views
from .volumes import grid_shape, write_voxels

__all__ = [
    "DEFAULT_OPACITY",
    "DEFAULT_THRESHOLD",
    "FINDING",
    "HEAT_MAP",
    "find_overlay",
    "legend_title",
    "make_overlay",
    "needs_maps",
    "remove_overlay",
    "restyle",
    "set_visible",
    "show_overlay",
]

HEAT_MAP = "heat map"
FINDING = "MediScan.Finding"
"""Attribute of an overlay: the finding whose map it holds."""

DEFAULT_STYLE = Style()
LEGEND_SIZE = (0.1, 0.3)
"""Width and height of the legend as fractions of a view: small, since it lies over the image.

The width says how large the letters are, those of the title too.
"""
LEGEND_SHADE = 0.4
OUTLINE_LETTERS = 13
OUTLINE_LEGEND_SIZE = (0.08, 0.12)
"""The legend of an outline is its title."""


def show_overlay(
    scene: Scene, maps: HeatMaps, label: str, reference: Node, style: Style = DEFAULT_STYLE, *, slot: str = ""
) -> Node:
    """Make or change the overlay of an image and lay it over the slice views that show the image.

    Args:
        scene: vtkMRMLScene.
        maps: Heat maps of the prediction for that image.
        label: Finding to show.
        reference: Volume node that the prediction was made for.
        style: How it is drawn.
        slot: An overlay in a slot stands beside the first (see `nodes.SLOT`).

    Returns:
        The overlay: one vtkMRMLScalarVolumeNode an image and slot, reused when the finding changes.

    Raises:
        UsageError: There is no map of that finding, or the maps are of another image.
    """
    overlay = make_overlay(scene, maps, label, reference, style, slot=slot)
    set_visible(scene, overlay, reference, style.visible, style.opacity)
    return overlay


def make_overlay(
    scene: Scene, maps: HeatMaps, label: str, reference: Node, style: Style = DEFAULT_STYLE, *, slot: str = ""
) -> Node:
    """The overlay volume without touching the views: geometry of the image, values 0..1 of the scale, or an outline.

    See `show_overlay` for arguments and errors.
    """
    if label not in maps.labels:
        raise UsageError(f"There is no heat map of {label!r}. Choose one of {', '.join(maps.labels)}.")
    if grid_shape(reference) != maps.shape:
        raise UsageError(
            f"The heat maps are of an image of {_size(maps.shape)} voxels, but {reference.GetName()!r} has "
            f"{_size(grid_shape(reference))}. Show them on the image that the prediction was made for."
        )
    overlay = ensure_node(scene, "vtkMRMLScalarVolumeNode", HEAT_MAP, reference, slot)
    overlay.SetAttribute(FINDING, label)
    _draw(overlay, maps, reference, style)
    overlay.SetAndObserveTransformNodeID(reference.GetTransformNodeID())
    overlay.SetName(f"{reference.GetName()} {label} {HEAT_MAP}{in_slot(slot)}")
    _display(scene, overlay, reference, style)
    return overlay


def restyle(scene: Scene, maps: HeatMaps | None, overlay: Node, reference: Node, style: Style) -> bool:
    """Draw an overlay that is there in another style, writing its voxels only where the style asks for it.

    Args:
        scene: vtkMRMLScene.
        maps: Heat maps of the image; None will do where `needs_maps` is False.
        overlay: From `make_overlay`.
        reference: The image it belongs to.
        style: How it is drawn from now on.

    Returns:
        True where a view got a new background, see `show_in_views`.

    Raises:
        UsageError: The voxels must be written anew and there are no maps for it.
    """
    if needs_maps(overlay, style):
        if maps is None:
            raise UsageError("There are no heat maps for this image. Run the model on it first.")
        _draw(overlay, maps, reference, style)
    _display(scene, overlay, reference, style)
    return set_visible(scene, overlay, reference, style.visible, style.opacity)


def needs_maps(overlay: Node, style: Style) -> bool:
    """Whether the voxels of an overlay must be written anew for a style."""
    return style_of(overlay).voxels != style.voxels


def find_overlay(scene: Scene, reference: Node, slot: str = "") -> Node | None:
    """The overlay of an image, None if there is none."""
    return find_node(scene, "vtkMRMLScalarVolumeNode", HEAT_MAP, reference, slot)


def set_visible(scene: Scene, overlay: Node, reference: Node, visible: bool, opacity: float | None = None) -> bool:
    """Show the overlay and its legend, or hide both.

    Args:
        scene: vtkMRMLScene.
        overlay: From `make_overlay`.
        reference: The image it belongs to.
        visible: Whether to show it.
        opacity: 0..1; that of its style if None.

    Returns:
        True where a view got a new background, see `show_in_views`.
    """
    style = style_of(overlay)
    style = replace(style, visible=visible, opacity=style.opacity if opacity is None else opacity)
    remember_style(overlay, style)
    turned = False
    if visible:
        turned = show_in_views(scene, overlay, reference, style.opacity)
    else:
        hide_from_views(scene, overlay)
    legend = _legend(overlay)
    if legend is not None:
        legend.SetVisibility(visible and style.legend)
        legend.Modified()  # its displayable manager does not notice by itself that the layers of a view changed
    return turned


def remove_overlay(scene: Scene, reference: Node, slot: str = "") -> None:
    """Remove an image's overlay with its display, legend and storage, and put the views back as they were."""
    overlay = find_overlay(scene, reference, slot)
    if overlay is not None:
        hide_from_views(scene, overlay)
        remove_with_belongings(scene, overlay)


def _draw(overlay: Node, maps: HeatMaps, reference: Node, style: Style) -> None:
    """Write the voxels: values of the scale, or the outline."""
    label = overlay.GetAttribute(FINDING)
    if not style.outline:
        write_voxels(overlay, maps.normalized(label, common=style.common_scale))
        overlay.GetImageData().SetExtent(reference.GetImageData().GetExtent())
        overlay.CopyOrientation(reference)
        return
    band = _band(reference)
    write_voxels(overlay, outline_field(maps, label, style.threshold, band, common=style.common_scale))
    overlay.GetImageData().SetDimensions(band.shape[::-1])  # its extent starts at zero, whatever it was before
    start = np.eye(4)
    start[:3, 3] = reference.GetImageData().GetExtent()[0::2]
    overlay.SetIJKToRASMatrix(to_vtk(ijk_to_ras(reference) @ start @ band.to_image))


def _band(reference: Node) -> Band:
    across, down, _ = reference.GetSpacing()
    return outline_band(grid_shape(reference), (down, across))


def _display(scene: Scene, overlay: Node, reference: Node, style: Style) -> None:
    """Colors, threshold and legend."""
    remember_style(overlay, style)
    if overlay.GetDisplayNode() is None:
        overlay.CreateDefaultDisplayNodes()
    display = overlay.GetDisplayNode()
    was_modified = display.StartModify()
    # The legend shows the whole table, so the window must be the scale itself and never follow the values.
    display.AutoWindowLevelOff()
    drawn = _band(reference).limits if style.outline else (style.threshold, 1.0)
    display.SetWindowLevelMinMax(*(drawn if style.outline else (0.0, 1.0)))
    display.InterpolateOn()
    display.AutoThresholdOff()
    display.SetThreshold(*drawn)
    display.ApplyThresholdOn()
    colors = outline_color_node if style.outline else color_node
    display.SetAndObserveColorNodeID(colors(scene, style.colors).GetID())
    display.EndModify(was_modified)
    _set_legend(scene, overlay, style)


def _set_legend(scene: Scene, overlay: Node, style: Style) -> None:
    if not scene.IsNodeClassRegistered("vtkMRMLColorLegendDisplayNode"):  # the application does it at startup
        scene.RegisterNodeClass(slicer.vtkMRMLColorLegendDisplayNode())
    legend = slicer.vtkSlicerColorLogic.AddDefaultColorLegendDisplayNode(overlay.GetDisplayNode())
    legend.SetTitleText(legend_title(overlay.GetAttribute(FINDING), style))
    legend.SetUseColorNamesForLabels(False)
    legend.SetLabelFormat("%.1f")
    for text in (legend.GetTitleTextProperty(), legend.GetLabelTextProperty()):
        text.SetColor(1.0, 1.0, 1.0)
        text.SetBackgroundColor(0.0, 0.0, 0.0)
        text.SetBackgroundOpacity(LEGEND_SHADE)  # white letters must be read on bones, too
    legend.GetTitleTextProperty().SetFontSize(OUTLINE_LETTERS)  # else they are as large as the labels'
    legend.SetNumberOfLabels(0 if style.outline else 3)
    legend.SetSize(*(OUTLINE_LEGEND_SIZE if style.outline else LEGEND_SIZE))


def legend_title(label: str, style: Style) -> str:
    """The finding and the scale its map is drawn on, in two short lines that fit into a small view.

    An outline has one color, so that its title says what it surrounds.
    """
    what = f"{label} \N{GREATER-THAN OR EQUAL TO} {style.threshold:.2f}" if style.outline else label
    return f"{what}\n{'common scale' if style.common_scale else 'own scale'}"


def _legend(overlay: Node) -> Node | None:
    for number in range(overlay.GetNumberOfDisplayNodes()):
        display = overlay.GetNthDisplayNode(number)
        if display is not None and display.IsA("vtkMRMLColorLegendDisplayNode"):
            return display
    return None


def _size(shape: tuple[int, int, int]) -> str:
    return " x ".join(str(length) for length in shape)
