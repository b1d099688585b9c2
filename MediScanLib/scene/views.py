"""Heat maps in the slice views: foreground over the image they belong to, and the way back."""

from __future__ import annotations

import json
from collections.abc import Iterator

from .geometry import world_ras
from .nodes import Node, Scene, slot_of

BEFORE = "MediScan.ForegroundBefore"
"""Attribute of an overlay: what each slice view showed in its foreground before, so that it can be put back."""

LEFT, RIGHT = "MediScanLeft", "MediScanRight"
"""Layout names of the two views that compare images side by side, see `comparison`."""


def show_in_views(scene: Scene, overlay: Node, reference: Node, opacity: float) -> bool:
    """Lay the overlay over the slice views that show its image.

    A view without a background gets the image as background; a view that shows another image is left alone, since
    a heat map over the wrong image misleads. Only where no view shows the image, all views are turned to it.

    The two views of a comparison keep their layers; an overlay that one of them holds follows the opacity. One in a
    slot that is held there is made for the comparison and comes into no other view.

    Args:
        scene: vtkMRMLScene.
        overlay: Heat map volume node.
        reference: The image it belongs to.
        opacity: Of the foreground, 0..1.

    Returns:
        True where a view got a new background, which the caller may want to fit into the view.
    """
    if _follow(scene, overlay, opacity) and slot_of(overlay):
        return False
    views = list(_own_composites(scene))
    shown = [node for node in views if node.GetBackgroundVolumeID() == reference.GetID()]
    empty = [node for node in views if not node.GetBackgroundVolumeID()]
    turned = empty if shown or empty else views
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
    _follow(scene, overlay, 0.0)
    before = _before(overlay)
    for node in _own_composites(scene):
        if node.GetForegroundVolumeID() != overlay.GetID():
            continue
        volume_id, opacity = before.get(node.GetID(), (None, 0.0))
        node.SetForegroundVolumeID(volume_id if volume_id and scene.GetNodeByID(volume_id) else None)
        node.SetForegroundOpacity(opacity)
    overlay.RemoveAttribute(BEFORE)


def jump_to(scene: Scene, reference: Node, index: tuple[float, float, float]) -> None:
    """Move the slice views that show an image to one of its (slice, row, column) places, without panning them."""
    position = world_ras(reference, index)
    for composite in composites_showing(scene, reference):
        view = slice_node_of(scene, composite)
        if view is not None:
            view.JumpSliceByOffsetting(*position)


def composites_showing(scene: Scene, reference: Node) -> list[Node]:
    """Composite nodes of the slice views that have the image as their background; those of a comparison come first.

    A comparison holds images only while it lies over the user's views, so that it is what the user looks at.
    """
    found = [node for node in composites(scene) if node.GetBackgroundVolumeID() == reference.GetID()]
    return sorted(found, key=lambda node: not in_comparison(node))


def in_comparison(view: Node) -> bool:
    """True for the slice or composite node of one of the two views that compare images."""
    return view.GetLayoutName() in (LEFT, RIGHT)


def composites(scene: Scene) -> Iterator[Node]:
    """Composite nodes of all slice views: they say what lies in the layers of a view."""
    for number in range(scene.GetNumberOfNodesByClass("vtkMRMLSliceCompositeNode")):
        yield scene.GetNthNodeByClass(number, "vtkMRMLSliceCompositeNode")


def slice_node_of(scene: Scene, composite: Node) -> Node | None:
    """The slice node of the same view: both carry the view's layout name."""
    for number in range(scene.GetNumberOfNodesByClass("vtkMRMLSliceNode")):
        node = scene.GetNthNodeByClass(number, "vtkMRMLSliceNode")
        if node.GetLayoutName() == composite.GetLayoutName():
            return node
    return None


def _own_composites(scene: Scene) -> Iterator[Node]:
    """Those of the user's views."""
    return (node for node in composites(scene) if not in_comparison(node))


def _follow(scene: Scene, overlay: Node, opacity: float) -> bool:
    """Fade an overlay in the views of a comparison without taking it out of them; True where one holds it."""
    held = [n for n in composites(scene) if in_comparison(n) and n.GetForegroundVolumeID() == overlay.GetID()]
    for node in held:
        node.SetForegroundOpacity(opacity)
    return bool(held)


def _before(overlay: Node) -> dict[str, list]:
    stored = overlay.GetAttribute(BEFORE)
    return json.loads(stored) if stored else {}
