"""Heat maps in the slice views: foreground over the image they belong to, and the way back."""

from __future__ import annotations

import json
from collections.abc import Iterator

from .geometry import world_ras
from .nodes import Node, Scene

BEFORE = "MediScan.ForegroundBefore"
"""Attribute of an overlay: what each slice view showed in its foreground before, so that it can be put back."""


def show_in_views(scene: Scene, overlay: Node, reference: Node, opacity: float) -> bool:
    """Lay the overlay over the slice views that show its image.

    A view without a background gets the image as background; a view that shows another image is left alone, since
    a heat map over the wrong image misleads. Only where no view shows the image, all views are turned to it.

    Args:
        scene: vtkMRMLScene.
        overlay: Heat map volume node.
        reference: The image it belongs to.
        opacity: Of the foreground, 0..1.

    Returns:
        True where a view got a new background, which the caller may want to fit into the view.
    """
    composites = list(_composites(scene))
    shown = [node for node in composites if node.GetBackgroundVolumeID() == reference.GetID()]
    empty = [node for node in composites if not node.GetBackgroundVolumeID()]
    turned = empty if shown or empty else composites
    for node in turned:
        node.SetBackgroundVolumeID(reference.GetID())
    before = _before(overlay)
    for node in shown + turned:
        if node.GetForegroundVolumeID() != overlay.GetID():
            before[node.GetID()] = [node.GetForegroundVolumeID(), node.GetForegroundOpacity()]
            node.SetForegroundVolumeID(overlay.GetID())
        node.SetForegroundOpacity(opacity)
    overlay.SetAttribute(BEFORE, json.dumps(before))
    return bool(turned)


def hide_from_views(scene: Scene, overlay: Node) -> None:
    """Take the overlay out of the slice views and put back the foreground that was there before."""
    before = _before(overlay)
    for node in _composites(scene):
        if node.GetForegroundVolumeID() != overlay.GetID():
            continue
        volume_id, opacity = before.get(node.GetID(), (None, 0.0))
        node.SetForegroundVolumeID(volume_id if volume_id and scene.GetNodeByID(volume_id) else None)
        node.SetForegroundOpacity(opacity)
    overlay.RemoveAttribute(BEFORE)


def jump_to(scene: Scene, reference: Node, index: tuple[float, float, float]) -> None:
    """Move the slice views that show an image to one of its (slice, row, column) places, without panning them."""
    position = world_ras(reference, index)
    for composite in _composites(scene):
        if composite.GetBackgroundVolumeID() == reference.GetID():
            view = _slice_node(scene, composite)
            if view is not None:
                view.JumpSliceByOffsetting(*position)


def _composites(scene: Scene) -> Iterator[Node]:
    for number in range(scene.GetNumberOfNodesByClass("vtkMRMLSliceCompositeNode")):
        yield scene.GetNthNodeByClass(number, "vtkMRMLSliceCompositeNode")


def _slice_node(scene: Scene, composite: Node) -> Node | None:
    """The slice node of the same view: both carry the view's layout name."""
    for number in range(scene.GetNumberOfNodesByClass("vtkMRMLSliceNode")):
        node = scene.GetNthNodeByClass(number, "vtkMRMLSliceNode")
        if node.GetLayoutName() == composite.GetLayoutName():
            return node
    return None


def _before(overlay: Node) -> dict[str, list]:
    stored = overlay.GetAttribute(BEFORE)
    return json.loads(stored) if stored else {}
