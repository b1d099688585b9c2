"""Two images, or one image twice, side by side in two views of their own, and the way back.

The views belong to a layout of their own and to a view group of their own, so that neither the user's views nor what
is linked with them change. While they are on, they and the layout are left out of the scene's file: elsewhere nobody
may know that layout, and the window would stay empty.

In the application, set up the views, fit them once they have their size, and move them to their place:

    names = show_side_by_side(scene, left, right)
    slicer.app.processEvents()
    for name in names:
        slicer.app.layoutManager().sliceWidget(name).sliceLogic().FitSliceToBackground()
    go_to_place(scene)
    for name, text in corner_texts(scene).items():
        view = slicer.app.layoutManager().sliceWidget(name).sliceView()
        write_corner_text(view.cornerAnnotation(), text)
        view.scheduleRender()
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import slicer

from ..errors import UsageError
from .geometry import ijk_to_world_ras
from .nodes import Node, Scene, is_ours, reference_of, slot_of
from .overlay import needs_maps, restyle
from .stored_maps import stored_maps
from .style import DEFAULT_OPACITY, Style, style_of
from .views import LEFT, RIGHT, composites, composites_showing, in_comparison, slice_node_of
from .volumes import grid_shape

LAYOUT_ID = 6347
"""Slicer's own layouts end at 100, and scripts and extensions commonly take 500 to 999."""

VIEW_GROUP = 6347
"""Linked views follow each other within their group."""

LABEL = "MediScan.Label"
"""Attribute of a slice node: the text that stands in the view."""

PLACE = "MediScan.Place"
"""Attribute of a slice node: the RAS position that it should show once it is fitted, as JSON."""

LAYOUT_BEFORE = "MediScan.LayoutBefore"
"""Attribute of the layout node while the views are side by side: the layout to go back to."""

# "L" and "R" would be taken for the patient's sides, "A" for anterior.
_LOOKS = {LEFT: ("1", "#E69F00"), RIGHT: ("2", "#56B4E9")}

_VIEW = (
    '<item><view class="vtkMRMLSliceNode" singletontag="{name}">'
    '<property name="orientation" action="default">Axial</property>'
    '<property name="viewlabel" action="default">{label}</property>'
    '<property name="viewcolor" action="default">{color}</property>'
    '<property name="viewgroup" action="default">{group}</property>'
    "</view></item>"
)

LAYOUT = '<layout type="horizontal">{}</layout>'.format(
    "".join(
        _VIEW.format(name=name, label=label, color=color, group=VIEW_GROUP) for name, (label, color) in _LOOKS.items()
    )
)


@dataclass(frozen=True, eq=False)
class Pane:
    """One side of a comparison.

    Attributes:
        reference: Image volume node.
        overlay: Heat map or label map volume node over it, None for the image alone.
        label: Text that stands in the view.
    """

    reference: Node
    overlay: Node | None = None
    label: str = ""


def show_side_by_side(scene: Scene, left: Pane, right: Pane, *, opacity: float = DEFAULT_OPACITY) -> tuple[str, ...]:
    """Show two panes beside each other, in place of the layout that is on.

    The views are linked where they show the same grid, or volumes that lie in the same space. Both come to the place
    that the user looked at, else to the middle. Shown again with other panes, views that keep their image stay where
    they are. Window and level of an image are those of its display, as everywhere.

    Args:
        scene: vtkMRMLScene.
        left: What the left view shows.
        right: What the right view shows.
        opacity: Of the heat maps, 0..1.

    Returns:
        Layout names of the views that got another image: fit them, then call `go_to_place`.

    Raises:
        UsageError: An image has no voxels, or a heat map belongs to another image.
        ReadError: An image stands under a transform that is not linear.
    """
    panes = {LEFT: left, RIGHT: right}
    for pane in panes.values():
        _check(pane)
    linked = _belong_together(left.reference, right.reference)
    position = _looked_at(scene, left.reference)
    layout = _layout_node(scene)
    changed = []
    for name, pane in panes.items():
        view, composite = _view(scene, name)
        view.RemoveAttribute(PLACE)
        if composite.GetBackgroundVolumeID() != pane.reference.GetID():
            changed.append(name)
            _orient(view, pane.reference)
            _remember_place(view, _place(pane.reference, position))
        _fill(composite, view, pane, opacity, linked)
    layout.AddLayoutDescription(LAYOUT_ID, LAYOUT)
    if layout.GetViewArrangement() != LAYOUT_ID:
        layout.SetAttribute(LAYOUT_BEFORE, str(layout.GetViewArrangement()))
        layout.SaveWithSceneOff()
        layout.RemoveAllMaximizedViewNodes()
        layout.SetViewArrangement(LAYOUT_ID)
    _settle_legends(scene)
    go_to_place(scene)
    return tuple(changed)


def leave_side_by_side(scene: Scene) -> None:
    """Go back to the layout that was there before; where the user has chosen another by then, it stays.

    Nothing happens where nothing stands side by side.
    """
    layout = scene.GetFirstNodeByClass("vtkMRMLLayoutNode")
    if layout is None or (layout.GetSaveWithScene() and layout.GetViewArrangement() != LAYOUT_ID):
        return
    before = layout.GetAttribute(LAYOUT_BEFORE)
    layout.RemoveAttribute(LAYOUT_BEFORE)
    layout.SaveWithSceneOn()
    for view, composite in _views(scene):
        composite.SetBackgroundVolumeID(None)
        composite.SetForegroundVolumeID(None)
        composite.SetLabelVolumeID(None)
        view.RemoveAttribute(LABEL)
        view.RemoveAttribute(PLACE)
    if layout.GetViewArrangement() == LAYOUT_ID:
        layout.SetViewArrangement(_known_layout(layout, before))
    _settle_legends(scene)


def is_side_by_side(scene: Scene) -> bool:
    """True while two panes stand side by side."""
    layout = scene.GetFirstNodeByClass("vtkMRMLLayoutNode")
    return layout is not None and layout.GetViewArrangement() == LAYOUT_ID


def go_to_place(scene: Scene) -> None:
    """Move the views to the place that they should show: fitting a view takes it to the middle of its image."""
    for view, _ in _views(scene):
        stored = view.GetAttribute(PLACE)
        if stored:
            view.JumpSliceByOffsetting(*json.loads(stored))


def style_side_by_side(scene: Scene, style: Style) -> None:
    """Draw the heat maps of both panes in another style; nothing happens where nothing stands side by side.

    Raises:
        UsageError: See `restyle`.
    """
    if not is_side_by_side(scene):
        return
    for _, composite in _views(scene):
        overlay = scene.GetNodeByID(composite.GetForegroundVolumeID() or "")
        reference = reference_of(overlay) if overlay is not None and is_ours(overlay) else None
        if reference is None:
            continue
        # An overlay of another finding alone has a slot of its own, but its maps are the image's first.
        maps = None
        if needs_maps(overlay, style):
            maps = stored_maps(scene, reference, slot_of(overlay)) or stored_maps(scene, reference)
        restyle(scene, maps, overlay, reference, style)


def corner_texts(scene: Scene) -> dict[str, str]:
    """The text of each of the two views by layout name, empty to take it away; see `write_corner_text`."""
    return {view.GetLayoutName(): view.GetAttribute(LABEL) or "" for view, _ in _views(scene)}


def _check(pane: Pane) -> None:
    if pane.reference is None or pane.reference.GetImageData() is None:
        raise UsageError("There is no image to show side by side. Choose one.")
    overlay = pane.overlay
    if overlay is not None and is_ours(overlay) and reference_of(overlay) is not pane.reference:
        raise UsageError(
            f"{overlay.GetName()!r} is no heat map of {pane.reference.GetName()!r}. Show it over its own image."
        )


def _layout_node(scene: Scene) -> Node:
    """The scene's layout node; outside the application nobody makes one."""
    node = scene.GetFirstNodeByClass("vtkMRMLLayoutNode")
    if node is None:
        node = scene.CreateNodeByClass("vtkMRMLLayoutNode")
        node.UnRegister(None)
        node.SetSingletonTag("vtkMRMLLayoutNode")
        node = scene.AddNode(node)
    return node


def _known_layout(layout: Node, before: str | None) -> int:
    """The layout that was there before, or Slicer's first where closing the scene in between has forgotten it."""
    none, first = slicer.vtkMRMLLayoutNode.SlicerLayoutNone, slicer.vtkMRMLLayoutNode.SlicerLayoutInitialView
    wanted = [int(before)] if before else []
    return next((number for number in (*wanted, first) if layout.IsLayoutDescription(number)), none)


def _view(scene: Scene, name: str) -> tuple[Node, Node]:
    """Slice and composite node of one of the two views, made where they are not there yet.

    The application makes a widget for a slice node that is added, and its logic a composite node for it.
    """
    view = scene.GetSingletonNode(name, "vtkMRMLSliceNode")
    if view is None:
        view = _add(scene, "vtkMRMLSliceNode", name)
    composite = next((node for node in composites(scene) if node.GetLayoutName() == name), None)
    if composite is None:
        composite = _add(scene, "vtkMRMLSliceCompositeNode", name)
    label, color = _LOOKS[name]
    view.SetLayoutLabel(label)
    view.SetLayoutColor(*(int(color[start : start + 2], 16) / 255 for start in (1, 3, 5)))
    view.SetViewGroup(VIEW_GROUP)
    view.SetDefaultOrientation("Axial")
    view.SaveWithSceneOff()
    composite.SaveWithSceneOff()
    return view, composite


def _add(scene: Scene, class_name: str, layout_name: str) -> Node:
    node = scene.CreateNodeByClass(class_name)
    node.UnRegister(None)
    node.SetName(layout_name)
    node.SetLayoutName(layout_name)
    return scene.AddNode(node)


def _views(scene: Scene) -> Iterator[tuple[Node, Node]]:
    """Slice and composite nodes of the two views that are there."""
    for composite in composites(scene):
        if in_comparison(composite):
            view = slice_node_of(scene, composite)
            if view is not None:
                yield view, composite


def _fill(composite: Node, view: Node, pane: Pane, opacity: float, linked: bool) -> None:
    """Put a pane into its view. A label map becomes an outline, so that one still sees what it marks."""
    is_labels = pane.overlay is not None and pane.overlay.IsA("vtkMRMLLabelMapVolumeNode")
    overlay_id = pane.overlay.GetID() if pane.overlay is not None else None
    heat_id, labels_id = (None, overlay_id) if is_labels else (overlay_id, None)
    was_modified = composite.StartModify()
    # First apart, or the views would follow each other while they are filled.
    composite.SetLinkedControl(False)
    composite.SetBackgroundVolumeID(pane.reference.GetID())
    composite.SetForegroundVolumeID(heat_id)
    composite.SetForegroundOpacity(opacity if heat_id else 0.0)
    composite.SetLabelVolumeID(labels_id)
    composite.SetLabelOpacity(1.0)
    composite.SetLinkedControl(linked)
    composite.SetHotLinkedControl(linked)
    composite.EndModify(was_modified)
    view.SetUseLabelOutline(is_labels)
    view.SetAttribute(LABEL, pane.label)


def _orient(view: Node, reference: Node) -> None:
    """Axial for a volume, its own plane for an image of one slice."""
    view.SetOrientation("Axial")
    if _is_flat(reference):
        view.RotateToVolumePlane(reference)


def _is_flat(reference: Node) -> bool:
    return 1 in reference.GetImageData().GetDimensions()


def _belong_together(first: Node, second: Node) -> bool:
    """True for the same grid, and for volumes that share some space: then one place means the same in both."""
    if grid_shape(first) == grid_shape(second) and np.allclose(
        ijk_to_world_ras(first), ijk_to_world_ras(second), atol=1e-4
    ):
        return True
    if _is_flat(first) or _is_flat(second):
        return False
    (low, high), (other_low, other_high) = _bounds(first), _bounds(second)
    return bool((np.maximum(low, other_low) < np.minimum(high, other_high)).all())


def _bounds(reference: Node) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest world RAS coordinates in mm."""
    bounds = [0.0] * 6
    reference.GetRASBounds(bounds)
    return np.array(bounds[0::2]), np.array(bounds[1::2])


def _looked_at(scene: Scene, reference: Node) -> tuple[float, float, float] | None:
    """World RAS position that the views of an image have in common, as far as they show it.

    Each view says where it stands along its normal; the first one of each direction counts.
    """
    low, high = _bounds(reference)
    place = (low + high) / 2
    found = False
    directions: list[np.ndarray] = []
    for composite in composites_showing(scene, reference):
        view = slice_node_of(scene, composite)
        if view is None:
            continue
        matrix = view.GetSliceToRAS()
        normal = np.array([matrix.GetElement(row, 2) for row in range(3)])
        origin = np.array([matrix.GetElement(row, 3) for row in range(3)])
        if any(abs(normal @ other) > 0.01 for other in directions):
            continue
        directions.append(normal)
        moved = place + normal * (normal @ (origin - place))
        if ((low <= moved) & (moved <= high)).all():
            place, found = moved, True
    return (float(place[0]), float(place[1]), float(place[2])) if found else None


def _place(reference: Node, position: tuple[float, float, float] | None) -> list[float]:
    """The position if it lies in the image, else the image's middle; an image of one slice has one place only."""
    low, high = _bounds(reference)
    if position is not None and not _is_flat(reference) and ((low <= position) & (position <= high)).all():
        return list(position)
    return [float(value) for value in (low + high) / 2]


def _remember_place(view: Node, place: list[float]) -> None:
    view.SetAttribute(PLACE, json.dumps(place))


def _settle_legends(scene: Scene) -> None:
    """Show the legend of a heat map where a view shows the map, and nowhere else."""
    shown = {node.GetForegroundVolumeID() for node in composites(scene)}
    for number in range(scene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode")):
        node = scene.GetNthNodeByClass(number, "vtkMRMLScalarVolumeNode")
        display = node.GetDisplayNode() if is_ours(node) else None
        legend = slicer.vtkSlicerColorLogic.GetColorLegendDisplayNode(display) if display is not None else None
        if legend is not None:
            legend.SetVisibility(node.GetID() in shown and style_of(node).legend)
            legend.Modified()  # its displayable manager does not notice by itself that the layers of a view changed
